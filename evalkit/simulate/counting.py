"""From a register to what may be told of it: the only step of a twin that sees persons.

Nothing leaves this module but an ``Aggregates``, and no number enters one but through ``Rules``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days
from evalkit.errors import DisclosureError, Fault
from evalkit.register import UNKNOWN, Register
from evalkit.register.dialect import AUTO, Dialect
from evalkit.sample.instruments import Episodes
from evalkit.sample.spells import spell_holding
from evalkit.simulate.aggregates import (
    EXITS,
    MONTH,
    Aggregates,
    Band,
    Exit,
    Group,
    Instrument,
    Layout,
    Quarters,
    Reason,
    Share,
)
from evalkit.simulate.columns import Course, columns
from evalkit.simulate.facts import Facts, Ints, attach, refuse
from evalkit.simulate.rounding import Rules, groups, persons_in, runs
from evalkit.simulate.workers import jobs
from evalkit.study import Study

ON_BENEFIT = (0, 1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48, 60, 84, 120, 180)
"""Months since a spell began at which its rates may change."""
OFF_BENEFIT = (0, 1, 2, 3, 6, 12, 24, 36, 60, 120)
"""Months since a spell ended at which the rate of return may change."""


def aggregates(study: Study, register: Register, dialects: Sequence[Dialect] = ()) -> Aggregates:
    """What may be told of a register.

    Parameters
    ----------
    dialects: how the files turned out to be written, in the order of the study's tables; without, the study's format.

    Raises
    ------
    UsageError
        ``twin.ready_table``, ``twin.tables``, ``twin.instrument``: a kind of study that cannot have a twin.
    DisclosureError
        ``twin.too_few.exits``: too few persons to tell anything of what the study is about.
    """
    refuse(study)
    assert study.data is not None
    facts = Facts.read(study, register)
    rules = Rules(study.disclosure.minimum)
    facts = _pooled(facts, rules)
    exits, returns = _exits(facts, rules)
    instruments = _instruments(facts, rules)
    course = _course(facts, exits[0].bands, instruments[0].starts)
    began = facts.spells.start[facts.first]
    flowed = began >= facts.first_day
    inflow = _inflow(facts, began[flowed], rules)
    n = int(flowed.sum())
    first_of_month = int((began[flowed] == calendar.month_start(calendar.month_number(began[flowed]))).sum())
    return Aggregates(
        minimum=rules.minimum,
        window=register.window,
        persons=rules.count(facts.people),
        with_spell=Share(persons=rules.count(facts.people), part=rules.part(len(facts.first), facts.people)),
        spells=_number_of_spells(facts, rules),
        columns=columns(facts, course, rules),
        inflow=inflow,
        on_first=Share(persons=rules.count(n), part=rules.part(first_of_month, n)) if inflow else None,
        stock=groups(calendar.whole_months(began[~flowed], np.int64(facts.first_day)), rules),
        exits=exits,
        returns=returns,
        instruments=instruments,
        jobs=jobs(register.arrays("jobs"), facts, rules) if register.jobs is not None else None,
        gap_months=study.spells.merge_gap_months,
        clock=study.time.clock,
        layouts=_layouts(study, dialects),
    )


# -- rates ----------------------------------------------------------------------------------------------------------


def bands(
    edges: Sequence[int], person: Ints, origin: Days, start: Days, stop: Days, event: Days, rules: Rules
) -> tuple[Band, ...]:
    """Events by month since ``origin`` of those at risk from ``start`` up to but not including ``stop``.

    Neighbouring months are taken together until in each band enough persons have an event and enough have none.
    ``person`` is sorted.
    """
    parts = []
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        low, high = calendar.add_months(origin, a), calendar.add_months(origin, b)
        days = np.clip(np.minimum(high, stop) - np.maximum(low, start), 0, None)
        happened = (event >= np.maximum(low, start)) & (event < high)
        parts.append((a, b, (days > 0) | happened, happened, float(days.sum())))
    while parts and not parts[-1][2].any():
        parts.pop()
    found: list[tuple[int, int, NDArray[np.bool_], NDArray[np.bool_], float]] = []
    open_ = None
    for part in parts:
        open_ = part if open_ is None else _together(open_, part)
        if _enough(open_, person, rules):
            found.append(open_)
            open_ = None
    if open_ is not None and found:
        if _ceased(open_, found[-1], person, rules):
            found.append(open_)
        else:
            found[-1] = _together(found[-1], open_)
    while len(found) > 1 and not _told(found[-1], person, rules):  # the rest may have left nobody without an event
        found[-2:] = [_together(found[-2], found[-1])]
    if not found or not _told(found[-1], person, rules):
        return ()
    return tuple(
        Band(
            first=a,
            last=b,
            persons=rules.count(persons_in(person[risk])),
            events=rules.count(int(happened.sum())),
            months=rules.months(days / MONTH, b - a),
        )
        for a, b, risk, happened, days in found
    )


def _together(one: Any, two: Any) -> Any:
    return one[0], two[1], one[2] | two[2], one[3] | two[3], one[4] + two[4]


def _enough(part: Any, person: Ints, rules: Rules) -> bool:
    """Whether enough persons have an event, and enough have none."""
    return rules.splits(persons_in(person[part[3]]), persons_in(person[part[2]]))


def _ceased(part: Any, before: Any, person: Ints, rules: Rules) -> bool:
    """Whether far fewer events happened than with the rate before: the band is then told as one without any."""
    foreseen = part[4] * before[3].sum() / before[4] if before[4] else 0.0
    return foreseen >= 2 * rules.minimum and persons_in(person[part[2]]) >= rules.minimum


def _told(part: Any, person: Ints, rules: Rules) -> bool:
    return _enough(part, person, rules) or not rules.count(int(part[3].sum()))


def expected(known: Sequence[Band], origin: Days, start: Days, stop: Days) -> NDArray[np.float64]:
    """Events that those at risk would have had with the rates of some bands; the last one goes on for ever."""
    total = np.zeros(len(origin))
    for band in known:
        low = calendar.add_months(origin, band.first)
        high = np.full(len(origin), NEVER) if band is known[-1] else calendar.add_months(origin, band.last)
        days = np.clip(np.minimum(high, stop) - np.maximum(low, start), 0, None)
        total += days / MONTH * band.events / band.months
    return total


def _pooled(facts: Facts, rules: Rules) -> Facts:
    """The same with a kind of exit that cannot be told of counted as another.

    Raises
    ------
    DisclosureError
        ``twin.too_few.exits`` when even exits to the target cannot be told of.
    """
    if not _exit_bands(facts, 0, rules):
        raise DisclosureError(Fault("twin.too_few.exits", {"minimum": rules.minimum}))
    if not _reasons(facts, 1, rules) or not _exit_bands(facts, 1, rules):
        return facts.with_kind(1, 2)
    return facts if _exit_bands(facts, 2, rules) else facts.with_kind(2, 1)


def _exits(facts: Facts, rules: Rules) -> tuple[tuple[Exit, Exit, Exit], tuple[Band, ...]]:
    """Kinds of exit, and the rate of return after any of them when that after one of them cannot be told."""
    spells, person, kind = facts.spells, facts.spells.person, facts.kind
    later = np.minimum(np.arange(len(person)) + 1, len(person) - 1)
    again = np.where((person[later] == person) & (later > np.arange(len(person))), spells.start[later], NEVER)
    off = np.where(spells.end < NEVER, spells.end, 0) + 1
    gap = facts.study.spells.merge_gap_months
    edges = (gap, *(edge for edge in OFF_BENEFIT if edge > gap))

    def back(chosen: NDArray[np.bool_]) -> tuple[Band, ...]:
        rows = np.flatnonzero(chosen)
        event = np.where(again[rows] <= facts.last_day, again[rows], NEVER)
        stop = np.minimum(again[rows], facts.last_day + 1)
        return bands(edges, person[rows], off[rows], calendar.add_months(off[rows], gap), stop, event, rules)

    returns = [back(kind == k) for k in range(3)]
    made = [
        Exit(name=name, reasons=_reasons(facts, k, rules), bands=_exit_bands(facts, k, rules), returns=returns[k])
        for k, name in enumerate(EXITS)
    ]
    rare = any(one.bands and not one.returns for one in made)
    return (made[0], made[1], made[2]), back(kind >= 0) if rare else ()


def _exit_bands(facts: Facts, kind: int, rules: Rules) -> tuple[Band, ...]:
    """Exits of a kind before any start."""
    spells = facts.spells
    stop = np.minimum(facts.stop, spells.own_start)
    event = np.where((facts.kind == kind) & (spells.own_start > spells.end), spells.end, NEVER)
    return bands(ON_BENEFIT, spells.person, spells.start, facts.seen, stop, event, rules)


def _reasons(facts: Facts, kind: int, rules: Rules) -> tuple[Reason, ...]:
    """Reasons that enough persons have; none for those without a known one."""
    if kind == 2 or not facts.target:
        return ()
    found = []
    for code in sorted(set(facts.reasons[facts.kind == kind])):
        number = persons_in(facts.spells.person[(facts.kind == kind) & (facts.reasons == code)])
        if number >= rules.minimum:
            found.append(Reason(code=code, persons=rules.count(number)))
    return tuple(found)


def _course(facts: Facts, exits: Sequence[Band], starts: Sequence[Band]) -> Course:
    """By person what happened while waiting for a start, and what would have with everybody's rates."""
    spells, people = facts.spells, facts.people
    stop = np.minimum(facts.stop, spells.own_start)
    left = (facts.kind == 0) & (spells.own_start > spells.end)
    begun = (spells.own_start >= facts.seen) & (spells.own_start <= facts.last_day)

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(spells.person, values, people).astype(float)

    return Course(
        entry=facts.entry,
        at_risk=total(stop > facts.seen) > 0,
        exits=total(left),
        exits_expected=total(expected(exits, spells.start, facts.seen, stop)),
        starts=total(begun),
        starts_expected=total(expected(starts, spells.start, facts.seen, stop)),
    )


# -- instruments ----------------------------------------------------------------------------------------------------


def _instruments(facts: Facts, rules: Rules) -> tuple[Instrument, ...]:
    """Types of episode that can be told of, that of the study first."""
    own = facts.study.treatment.instrument
    found = []
    for name in (own, *(other for other in facts.instruments.plain if other not in (own, UNKNOWN))):
        episodes = facts.instruments[name]
        day = episodes.day if name == own else episodes.start
        spells = attach(facts.spells, episodes, day)
        stop = np.minimum(facts.stop, spells.own_start)
        event = np.where(spells.own_start <= facts.last_day, spells.own_start, NEVER)
        starts = bands(ON_BENEFIT, spells.person, spells.start, facts.seen, stop, event, rules)
        if starts:
            found.append(_instrument(facts, name, episodes, starts, rules))
        elif name == own:
            raise DisclosureError(Fault("twin.too_few.starts", {"minimum": rules.minimum}))
    return tuple(found)


def _instrument(facts: Facts, name: str, episodes: Episodes, starts: tuple[Band, ...], rules: Rules) -> Instrument:
    """Lengths and the way from referral to start, each from a person's first episode of the type."""
    if facts.study.instrument(name).kind == "event":
        return Instrument(type=name, event=True, starts=starts)
    begun = np.flatnonzero(episodes.start < NEVER)
    one = episodes.take(begun[np.unique(episodes.person[begun], return_index=True)[1]])
    planned = (one.planned_end < NEVER) & (one.planned_end >= one.start)
    referred = (one.referral < NEVER) & (one.referral <= one.start)
    holding = spell_holding(facts.spells, one.person, one.start)
    benefit_end = np.where(holding >= 0, facts.spells.end[holding], NEVER)
    closed = (one.end >= one.start) & (one.end <= facts.last_day) & (one.end < benefit_end)
    assert facts.study.data is not None
    mapped = facts.study.data.episodes.columns

    def known(mask: NDArray[np.bool_], column: str) -> Share | None:
        if column not in mapped or len(mask) < rules.minimum:
            return None
        return Share(persons=rules.count(len(mask)), part=rules.part(int(mask.sum()), len(mask)))

    return Instrument(
        type=name,
        starts=starts,
        planned=groups(_months(one.start, one.planned_end)[planned], rules),
        planned_known=known(planned, "planned_end"),
        realised=groups(_months(one.start, one.end)[closed], rules),
        referred=groups((one.start - one.referral)[referred], rules),
        referral_known=known(referred, "referral"),
    )


def _months(start: Days, end: Days) -> NDArray[np.float64]:
    """Lengths in whole months, rounded; a shorter one is one month."""
    return np.maximum(1.0, np.round((np.minimum(end, 10**6) + 1 - start) / MONTH))


# -- persons --------------------------------------------------------------------------------------------------------


def _inflow(facts: Facts, began: Days, rules: Rules) -> tuple[Quarters, ...]:
    """Persons by calendar quarter of their first spell, neighbours taken together."""
    first, last = (int(calendar.quarter_number(day)) for day in (facts.first_day, facts.last_day))
    number = np.bincount(calendar.quarter_number(began) - first, minlength=last - first + 1)
    return tuple(
        Quarters(first=_quarter(first + a), last=_quarter(first + b - 1), persons=rules.count(number[a:b].sum()))
        for a, b in runs(number.tolist(), rules.minimum)
    )


def _quarter(number: int) -> str:
    return f"{1970 + number // 4}-Q{number % 4 + 1}"


def _number_of_spells(facts: Facts, rules: Rules) -> tuple[Group, ...]:
    """Persons by number of spells, those with four or more together."""
    number = np.bincount(np.minimum(np.unique(facts.spells.person, return_counts=True)[1], 4), minlength=5)[1:]
    return tuple(
        Group(low=a + 1, high=b, persons=rules.count(number[a:b].sum()))
        for a, b in runs(number.tolist(), rules.minimum)
    )


def _layouts(study: Study, dialects: Sequence[Dialect]) -> dict[str, Layout]:
    """How each file is written; what the study leaves to be found out as it was found."""
    assert study.data is not None
    asked, found = study.data.format, dict(zip(study.data.tables, dialects, strict=False))
    made = {}
    for table in study.data.tables:
        seen = found.get(table)
        guess = {
            "delimiter": asked.delimiter if asked.delimiter != AUTO else (seen and seen.delimiter) or ";",
            "encoding": asked.encoding if asked.encoding != AUTO else (seen and seen.encoding) or "utf-8",
            "decimal": asked.decimal if asked.decimal != AUTO else (seen and seen.decimal) or ",",
            "date": asked.date if asked.date != AUTO else (seen and seen.date) or "%d-%m-%Y",
        }
        made[table] = Layout(**guess)
    return made
