"""Instruments described: how many take part, how long, as planned or not, in which order, and what follows a start.

Durations, plans and costs are those of each person's first episode, so that every number beneath a mean counts persons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days
from evalkit.exhibits import Column, Exhibit, Note, Table
from evalkit.register import Register
from evalkit.sample.instruments import Episodes, Instruments, first_of_run, order_by
from evalkit.sample.outcomes import SpellOutcomes
from evalkit.sample.types import Sample
from evalkit.study.model import FAMILIES

Array = NDArray[np.float64]
Row = dict[str, Any]

MONTH = 365.25 / 12
"""Days in a month, where a length is an average and no date."""
NEVER_CLOSED = 24
"""Months after which an open episode was probably never closed, as the check ``episode_never_closed`` has it."""

_SPAN, _FAR = 10**7, 5 * 10**6  # days are far fewer; an open end counts as the latter where it is put in one number

_NAME = Column("instrument", "instrument", "text")


def _count(key: str, *, parent: str = "", support: str = "") -> Column:
    return Column(key, key, "count", support, parent, 0)


def _mean(key: str, support: str, decimals: int = 1) -> Column:
    return Column(key, key, "mean", support, decimals=decimals)


def describe_instruments(register: Register, sample: Sample) -> Iterator[Exhibit]:
    """The tables on instruments, and what a reader must know about those that are made of others."""
    if sample.instruments is None:
        return
    made = sample.instruments
    table = register.arrays("episodes")
    last = calendar.day_number(register.window[1])
    firsts = {name: first_episodes(made[name]) for name in made.named}
    yield _overview(made, table)
    for exhibit in (
        _lengths(made, firsts, last),
        _plans(made, firsts, last),
        _practice(made, firsts, table),
        _pairs(made, firsts),
        _later(sample, made),
    ):
        if exhibit.rows:
            yield exhibit
    yield from _notes(made, last)


def first_episodes(episodes: Episodes) -> Episodes:
    """The first episode of each person; one that is not known to have begun comes last."""
    order = order_by(episodes.person, episodes.start, episodes.until, episodes.row)
    return episodes.take(order[first_of_run(episodes.person[order])])


def _overview(made: Instruments, table: Mapping[str, Any]) -> Table:
    """Who takes part in what, and how often."""
    study, rows = made.study, []
    named = [name for name in ("provider", "caseworker") if name in table]
    for name, episodes in made.named.items():
        times = np.diff(np.append(np.flatnonzero(first_of_run(episodes.person)), len(episodes)))
        family = study.family(name)
        row: Row = {
            "instrument": name,
            "family": f"family.{family}" if family in FAMILIES else family,
            "persons": len(times),
            "once": int((times == 1).sum()),
            "repeated": int((times > 1).sum()),
            "episodes": len(episodes),
        }
        plain = not study.instrument(name).derived  # of what is made of several it would be that of one of them
        rows.append(row | {f"{who}s": _different(table[who][episodes.row]) if plain else None for who in named})
    columns = (
        _NAME,
        Column("family", "family", "key"),
        _count("persons"),
        _count("once", parent="persons"),
        _count("repeated", parent="persons"),
        _count("episodes", support="persons"),
        *(Column(f"{who}s", f"{who}s", "stat", "persons", decimals=0) for who in named),
    )
    return Table("instruments", "instruments", columns, tuple(rows))


def _different(values: NDArray[Any]) -> int:
    return len(pd.unique(values[~pd.isna(values)]))


def _lasting(made: Instruments) -> list[str]:
    """Types that last: not points in time, nor made of others."""
    return [name for name in made.plain if made.study.instrument(name).kind == "episode" and len(made[name])]


def _months(first: Days, last: Days) -> Array:
    return (last + 1 - first) / MONTH


def _average(values: Array, key: str) -> Row:
    """Mean and median; the median in whole months, since an exact one is the value of a person."""
    if not len(values):
        return {f"{key}_mean": None, f"{key}_median": None}
    return {f"{key}_mean": float(values.mean()), f"{key}_median": float(np.floor(np.median(values) + 0.5))}


def _lengths(made: Instruments, firsts: Mapping[str, Episodes], last: int) -> Table:
    """How long first episodes really lasted, of those that ended within the window."""
    rows = []
    for name in _lasting(made):
        own = firsts[name]
        own = own.take(np.flatnonzero(own.start < NEVER))
        ended = own.end <= last
        counts = {"persons": len(own), "ended": int(ended.sum()), "open": int((~ended).sum())}
        rows.append({"instrument": name} | counts | _average(_months(own.start, own.end)[ended], "realised"))
    columns = (
        _NAME,
        _count("persons"),
        _count("ended", parent="persons"),
        _count("open", parent="persons"),
        _mean("realised_mean", "ended"),
        _mean("realised_median", "ended", 0),
    )
    return Table("instrument_lengths", "instrument_lengths", columns, tuple(rows))


def _plans(made: Instruments, firsts: Mapping[str, Episodes], last: int) -> Table:
    """How long first episodes were planned to last, and what became of those whose planned end has come.

    Only of these it is known for all whether they stopped early: towards the end of the window only early ends show.
    """
    rows = []
    for name in _lasting(made):
        own = firsts[name]
        own = own.take(np.flatnonzero((own.start <= own.planned_end) & (own.planned_end < NEVER)))
        if not len(own):
            continue
        due = own.take(np.flatnonzero(own.planned_end <= last))
        closed = due.end <= last
        gap = (due.end - due.planned_end)[closed] / MONTH
        early = np.zeros(len(due), bool)
        early[closed] = calendar.add_months(due.end[closed], 1) <= due.planned_end[closed]
        row: Row = {"instrument": name, "planned": len(own)} | _average(_months(own.start, own.planned_end), "planned")
        row |= {"due": len(due), "early": float(early.mean()) if len(due) else None}
        row |= {"closed": int(closed.sum()), "overdue": int((~closed).sum())}
        rows.append(row | {"difference": float(gap.mean()) if len(gap) else None})
    columns = (
        _NAME,
        _count("planned"),
        _mean("planned_mean", "planned"),
        _mean("planned_median", "planned", 0),
        _count("due"),
        Column("early", "early", "share", "due"),
        _count("closed", parent="due"),
        _count("overdue", parent="due"),
        _mean("difference", "closed"),
    )
    return Table("instrument_plans", "instrument_plans", columns, tuple(rows))


def _practice(made: Instruments, firsts: Mapping[str, Episodes], table: Mapping[str, Any]) -> Table:
    """Days from referral to start, costs and hours of first episodes; only what the table tells of."""
    found: dict[str, Row] = {}
    referral = any((firsts[name].referral < NEVER).any() for name in made.plain)
    amounts = [name for name in ("cost", "hours") if name in table]
    for name in made.plain if referral or amounts else ():
        own = firsts[name]
        if not len(own):
            continue
        row: Row = {"instrument": name}
        if referral:
            known = (own.referral <= own.start) & (own.start < NEVER)
            days = (own.start - own.referral)[known]
            row |= {"referred": len(days), "delay": float(days.mean()) if len(days) else None}
        for amount in amounts:
            values = _sums(made, name, own, table[amount])
            values = values[~np.isnan(values)]
            row |= {f"{amount}_known": len(values), f"{amount}_mean": float(values.mean()) if len(values) else None}
        found[name] = row
    columns = [_NAME]
    if referral:
        columns += [_count("referred"), _mean("delay", "referred", 0)]
    for amount in amounts:
        columns += [_count(f"{amount}_known"), _mean(f"{amount}_mean", f"{amount}_known", 0)]
    return Table("instrument_practice", "instrument_practice", tuple(columns), tuple(found.values()))


def _sums(made: Instruments, name: str, own: Episodes, amount: Array) -> Array:
    """What an episode adds up to over its rows; not known where a row does not tell."""
    rows = made.rows[name]
    total = np.bincount(made.number[rows], weights=np.asarray(amount, float)[rows], minlength=len(made[name]))
    return np.asarray(total[made.number[own.row]], float)


def _pairs(made: Instruments, firsts: Mapping[str, Episodes]) -> Table:
    """Who took part in two instruments: at once on some day, or first in the one and then in the other."""
    begun = {name: firsts[name].take(np.flatnonzero(firsts[name].start < NEVER)) for name in made.plain}
    rows = []
    for one, other in combinations([name for name in made.plain if len(begun[name])], 2):
        person, i, j = np.intersect1d(begun[one].person, begun[other].person, return_indices=True)
        together = np.isin(person, _overlapping(made[one], made[other]))
        earlier = begun[one].start[i] < begun[other].start[j]
        parts = {"together": together, "first_before": ~together & earlier, "second_before": ~together & ~earlier}
        counts = {"both": len(person)} | {key: int(mask.sum()) for key, mask in parts.items()}
        rows.append({"first": one, "second": other} | counts)
    columns = (
        Column("first", "first", "text"),
        Column("second", "second", "text"),
        _count("both"),
        *(_count(key, parent="both") for key in ("together", "first_before", "second_before")),
    )
    return Table("instrument_pairs", "instrument_pairs", columns, tuple(rows))


def _overlapping(one: Episodes, other: Episodes) -> NDArray[np.int64]:
    """Persons of whom some episode of the one shares a day with some episode of the other.

    A day is shared when an episode begins on a day that lies in the other: sorted by person and day, the latest last
    day of the other so far tells.
    """
    found = []
    for begins, runs in ((one, other), (other, one)):
        known = runs.take(np.flatnonzero(runs.start < NEVER))
        known = known.take(order_by(known.person, known.start))
        latest = np.maximum.accumulate(known.person * _SPAN + np.minimum(known.until, _FAR))
        asked = begins.take(np.flatnonzero(begins.start < NEVER))
        at = np.searchsorted(known.person * _SPAN + known.start, asked.person * _SPAN + asked.start, side="right") - 1
        at_least = np.flatnonzero(at >= 0)
        at, asked = at[at_least], asked.take(at_least)
        shares = (known.person[at] == asked.person) & (latest[at] - asked.person * _SPAN >= asked.start)
        found.append(asked.person[shares])
    return np.concatenate(found)


def _later(sample: Sample, made: Instruments) -> Table:
    """What starters of the sample begin after their start, within the horizon."""
    entries = sample.entries
    starters = np.flatnonzero(entries.arm == 1)
    person = entries.person[starters].astype(np.int64)
    assert isinstance(sample.outcomes, SpellOutcomes)
    start = sample.outcomes.spells.own_start[entries.spell[starters]]
    people = np.unique(person)
    close = calendar.add_months(start, sample.horizon)
    name = sample.study.treatment.instrument
    rows = []
    for other in (*made.plain, *([name] if name not in made.plain else [])):
        own = made[other]
        own = own.take(np.flatnonzero(own.day < NEVER))
        key = own.person * _SPAN + own.day
        at = np.searchsorted(key, person * _SPAN + start, side="right")  # the first after that day
        inside = at < len(key)
        begun = np.zeros(len(person), bool)
        begun[inside] = (own.person[at[inside]] == person[inside]) & (own.day[at[inside]] < close[inside])
        later = len(np.unique(person[begun]))
        rows.append({"instrument": other, "starters": len(people), "later": later, "not_later": len(people) - later})
    columns = (_NAME, _count("starters"), _count("later", parent="starters"), _count("not_later", parent="starters"))
    return Table("instrument_later", "instrument_later", columns, tuple(rows))


def _notes(made: Instruments, last: int) -> Iterator[Note]:
    """What an instrument made of others means for who is compared, and what is assumed of open ends."""
    study = made.study
    own = study.instrument(study.treatment.instrument)
    clock = "_referral" if study.time.clock == "referral" else ""
    if own.combine:
        params = {"instruments": list(own.combine), "months": own.within_months}
        yield Note(f"instrument_combination{clock}", params)
    elif own.of:
        yield Note("instrument_sequence", {"instruments": [own.of], "order": own.order, "before": own.order - 1})
    lasting = [name for name in made.plain if study.instrument(name).kind == "episode"]
    assumed = {name: study.instrument(name).open_end_months for name in lasting}
    for months in sorted({m for m in assumed.values() if m is not None}):
        named = [name for name, chosen in assumed.items() if chosen == months]
        yield Note("open_end_assumed", {"instruments": named, "months": months})
    long_ago = _long_ago(last)
    running = [name for name in lasting if assumed[name] is None and _open_since(made[name], long_ago)]
    if running:
        yield Note("open_end_running", {"instruments": running, "months": NEVER_CLOSED}, "warn")


def _long_ago(last: int) -> int:
    return int(calendar.add_months(np.int64(last + 1), -NEVER_CLOSED))


def _open_since(episodes: Episodes, day: int) -> bool:
    return bool(((episodes.end >= NEVER) & (episodes.start <= day)).any())
