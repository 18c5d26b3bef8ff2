"""Months at risk of one spell at a time, month by month, in plain loops."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Columns = dict[str, float]


@dataclass
class Kind:
    """An instrument: by ``clock`` its phases, what it needs, whether its start is a risk."""

    name: str
    clock: str
    bounds: tuple[int, ...]
    after: str = ""
    modelled: bool = True


@dataclass
class Line:
    """Steps of the exits and of the starts, calendar, covariates by which the first instrument differs, pairs."""

    steps: tuple[int, ...]
    start_steps: tuple[int, ...]
    calendar: str = "none"
    by: tuple[str, ...] = ()
    by_phase: bool = False
    together: tuple[tuple[str, str], ...] = ()
    meetings: tuple[int, tuple[int, ...], tuple[str, ...], bool, bool] | None = None
    """Orders, recency, covariates, whether starts depend on them, whether in cells."""


@dataclass
class Spell:
    """What is known of one spell; a start is None when it does not come."""

    person: int
    entry: int
    stop: int
    cause: str
    begin: int
    x: Columns
    start: list[int | None]
    length: list[int]
    meetings: list[int] = field(default_factory=list)


@dataclass
class Month:
    """One month at risk: by risk its columns; the event, empty without; hidden when before observation."""

    person: int
    spell: int
    month: int
    hidden: bool
    at_risk: dict[str, Columns]
    event: str


def starts_of(spell: Spell, kinds: list[Kind]) -> list[int | None]:
    """Months of the starts that were seen: one a month, an instrument that needs another after that one."""
    order: list[int] = []
    while len(order) < len(kinds):
        for j, kind in enumerate(kinds):
            needed = [i for i, other in enumerate(kinds) if other.name == kind.after]
            if j not in order and all(i in order for i in needed):
                order.append(j)
                break
    found: dict[int, int | None] = {}
    for j in order:
        month = spell.start[j]
        if month is not None:
            month = max(month, 0)
            while month in found.values():
                month += 1
            if month > spell.stop or (month == spell.stop and spell.cause):
                month = None
        found[j] = month
    return [found[j] for j in range(len(kinds))]


def span(bounds: tuple[int, ...], value: int) -> str:
    """``0-2``, ``3-5``, ``6+``."""
    low = 0
    for bound in bounds:
        if value < bound:
            return f"{low}-{bound - 1}"
        low = bound
    return f"{low}+"


def short(text: str) -> str:
    """``2-2`` is ``2``."""
    low, _, high = text.partition("-")
    return low if low == high else text


def phase(kind: Kind, length: int, since: int) -> str:
    if kind.clock == "start":
        return f"{kind.name} {span(kind.bounds, since)}"
    if since < length:
        return f"{kind.name} during"
    return f"{kind.name} after {span(kind.bounds, since - length)}"


def base(spell: Spell, month: int, steps: tuple[int, ...], line: Line, years: list[int]) -> Columns:
    out = dict(spell.x)
    if steps and month >= steps[0]:
        out[f"month {short(span(steps, month))}"] = 1.0
    when = spell.begin + month
    if line.calendar == "year":
        year = min(max(when // 12, years[0]), years[-1])
        if year != years[0]:
            out[f"year {year}"] = 1.0
    if line.calendar == "quarter" and (when % 12) // 3:
        out[f"quarter {(when % 12) // 3 + 1}"] = 1.0
    return out


def covariates(spell: Spell, names: tuple[str, ...]) -> Columns:
    return {
        column: value
        for name in names
        for column, value in spell.x.items()
        if column == name or column.startswith(f"{name}:")
    }


def needs(kinds: list[Kind], j: int) -> list[int]:
    out = []
    while kinds[j].after:
        j = [kind.name for kind in kinds].index(kinds[j].after)
        out.append(j)
    return out


def effects(
    spell: Spell, month: int, kinds: list[Kind], begun: list[int | None], line: Line, of: int | None
) -> Columns:
    """Columns of the exits, or of the start of instrument ``of``: what it needs has its first phase as reference."""
    out: Columns = {}
    always = [] if of is None else needs(kinds, of)
    for j, kind in enumerate(kinds):
        if j == of or begun[j] is None or begun[j] > month:
            continue
        name = phase(kind, spell.length[j], month - begun[j])
        first = phase(kind, 1, 0)
        if j not in always or name != first:
            out[name] = 1.0
        for column, value in covariates(spell, line.by).items() if j == 0 else ():
            if line.by_phase and (j not in always or name != first):
                out[f"{column} x {name}"] = value
            elif not line.by_phase and j not in always:
                out[f"{column} x {kind.name}"] = value
    names = [kind.name for kind in kinds]
    for pair in line.together:
        own = [names.index(each) for each in pair]
        if all(j != of and j not in always and begun[j] is not None and begun[j] <= month for j in own):
            out[f"{pair[0]} with {pair[1]}"] = 1.0
    return out


def meetings(spell: Spell, month: int, line: Line) -> Columns:
    so_far = [each for each in spell.meetings if each <= month]
    if not so_far:
        return {}
    orders, recency, by, _, cells = line.meetings
    number = min(len(so_far), orders)
    called = f"meeting {number}{'+' if number == orders else ''}"
    when = f"meeting month {short(span(recency, month - max(so_far)))}"
    out = {f"{called}, {when}": 1.0} if cells else {when: 1.0}
    if number > 1 and not cells:
        out[called] = 1.0
    for column, value in covariates(spell, by).items():
        out[f"{column} x meeting"] = value
    return out


def months(spells: list[Spell], causes: list[str], kinds: list[Kind], line: Line, before: bool) -> list[Month]:
    """All months at risk, person by person."""
    seen = [(spell.begin + m) // 12 for spell in spells for m in (spell.entry, spell.stop - 1)]
    years = list(range(min(seen), max(seen) + 1))
    out: list[Month] = []
    excluded: list[tuple[int, int]] = []
    for spell in spells:
        begun = starts_of(spell, kinds)
        if spell.entry > 0 and any(each is not None and each <= spell.entry for each in begun):
            excluded.append((spell.person, spell.begin))
    for number, spell in enumerate(spells):
        if before and any(person == spell.person and begin <= spell.begin for person, begin in excluded):
            continue
        begun = starts_of(spell, kinds)
        for month in range(0 if before else spell.entry, spell.stop):
            exits = base(spell, month, line.steps, line, years) | effects(spell, month, kinds, begun, line, None)
            if line.meetings:
                exits |= meetings(spell, month, line)
            at_risk = {cause: exits for cause in causes}
            event = spell.cause if month == spell.stop - 1 else ""
            for j, kind in enumerate(kinds):
                if not kind.modelled or (begun[j] is not None and begun[j] <= month):
                    continue
                if kind.after:
                    other = begun[[each.name for each in kinds].index(kind.after)]
                    if other is None or other > month:
                        continue
                own = base(spell, month, line.start_steps, line, years)
                own |= effects(spell, month, kinds, begun, line, j)
                if line.meetings and line.meetings[3]:
                    own |= meetings(spell, month, line)
                at_risk[f"start {kind.name}"] = own
                if begun[j] == month + 1:
                    event = f"start {kind.name}"
            hidden = month < spell.entry
            out.append(Month(spell.person, number, month, hidden, at_risk, "" if hidden else event))
    return out


def log_likelihood(month: Month, theta: dict[str, Columns], level: dict[str, float], timing: str, link: str) -> float:
    """Of one month; ``grouped``: exits first, starts of those who stay; ``exact``: constant rates, event at the end."""
    h = {
        risk: math.exp(level[risk] + sum(theta[risk][name] * value for name, value in columns.items()))
        for risk, columns in month.at_risk.items()
    }
    if timing == "exact":
        return -sum(h.values()) + (math.log(h[month.event]) if month.event else 0.0)
    total = 0.0
    for kind in (False, True):
        own = {risk: value for risk, value in h.items() if risk.startswith("start ") == kind}
        whole = sum(own.values())
        if month.event in own:
            if link == "logit":
                return total + math.log(own[month.event] / (1 + whole))
            return total + math.log(own[month.event] / whole) + math.log(-math.expm1(-whole))
        total += -math.log1p(whole) if link == "logit" else -whole
    return total
