"""Instruments as the study file defines them, from rows of episodes.

Rows that extend each other are one episode; events of a type on one day are one event; several instruments together are
a combination; the n-th event within a benefit spell is an instrument of its own. ``docs/instruments.md`` gives every
definition to the day. Arrays in, arrays out; nothing depends on the order of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days
from evalkit.sample.merging import components
from evalkit.sample.spells import Intervals, intervals, spell_holding
from evalkit.study import Instrument, Study

Ints = NDArray[np.int64]

_SPAN, _BEFORE, _FAR = 10**7, 10**6, 5 * 10**6
"""Days are far fewer, also before 1970; what never comes counts as the last where person and day are one number."""


@dataclass(frozen=True)
class Episodes:
    """Episodes of one instrument (n,), sorted by person, day and start; what is not known or never comes is NEVER.

    Attributes
    ----------
    person: row of people.
    day: what the clock of the study looks at: the start, or the referral.
    start, end: first and last day; ``end`` is NEVER while the episode is open.
    until: last day that counts as being in the instrument: the end, or what is assumed for an open one.
    planned_end, referral: as known when the episode began.
    row: the row of the table that began it.
    """

    person: Ints
    day: Days
    start: Days
    end: Days
    until: Days
    planned_end: Days
    referral: Days
    row: Ints

    def __len__(self) -> int:
        return len(self.person)

    def take(self, rows: NDArray[Any]) -> Episodes:
        """Some of them."""
        return Episodes(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Instruments:
    """Every instrument of a study.

    Attributes
    ----------
    named: episodes by name, those of the table first, then those made of them.
    rows: by type the rows of the table; number: for each row of the table the episode of its type that it is part of.
    before: for an instrument that is the n-th of a type: by benefit spell the day of the one before it.
    """

    study: Study
    named: Mapping[str, Episodes]
    rows: Mapping[str, Ints]
    number: Ints
    before: Mapping[str, Days]

    def __getitem__(self, name: str) -> Episodes:
        return self.named[name]

    @property
    def plain(self) -> tuple[str, ...]:
        """Names of the types that stand in the table."""
        return tuple(name for name in self.named if not self.study.instrument(name).derived)

    def running(self, *names: str) -> Intervals:
        """Days on which a person has been in one of some instruments since an earlier day."""
        person, start, until = self._days(names)
        return intervals(person, start + 1, until)

    def others(self, *names: str) -> Intervals:
        """Days in instruments other than these and what they are made of."""
        parts = {part for name in names for part in self.study.instrument(name).parts}
        return intervals(*self._days([other for other in self.plain if other not in parts]))

    def _days(self, names: Sequence[str]) -> list[Ints]:
        """Person, first and last day of every episode of some instruments."""
        found = [self.named[name] for name in names]
        none = np.empty(0, np.int64)
        return [np.concatenate([none, *(getattr(e, c) for e in found)]) for c in ("person", "start", "until")]


def read_instruments(
    study: Study, table: Mapping[str, Any], of: Callable[[NDArray[Any]], Ints], spells: Intervals
) -> Instruments:
    """The instruments of a study.

    Parameters
    ----------
    table: the episodes of the register.
    of: gives the row of persons for an array of ids.
    spells: benefit spells, of which no two of a person overlap, sorted by person and start.
    """
    types, found = pd.factorize(table["type"])
    listed = list(study.data.episodes.codes.get("type", {})) if study.data else []
    names = [*listed, *sorted(str(name) for name in found if name not in listed)]
    place = {str(name): i for i, name in enumerate(found)}
    start = calendar.to_days(table["start"])
    referral = calendar.to_days(table["referral"])
    end = calendar.to_days(table["end"])
    day = referral if study.time.clock == "referral" else start
    planned = calendar.to_days(table["planned_end"])
    rows = Episodes(of(table["person"]), day, start, end, end, planned, referral, np.arange(len(types)))
    named: dict[str, Episodes] = {}
    of_type: dict[str, Ints] = {}
    number = np.full(len(types), -1, np.int64)
    for name in names:
        of_type[name] = np.flatnonzero(types == place.get(name, -2))
        named[name], number[of_type[name]] = joined(rows.take(of_type[name]), study.instrument(name), study.time.clock)
    before: dict[str, Days] = {}
    for instrument in study.instruments:
        if instrument.combine:
            named[instrument.name] = combined([named[part] for part in instrument.combine], instrument.within_months)
        elif instrument.of:
            made = numbered(named[instrument.of], instrument.order, spells)
            named[instrument.name], before[instrument.name] = made
    return Instruments(study, named, of_type, number, before)


def joined(rows: Episodes, instrument: Instrument, clock: str = "start") -> tuple[Episodes, Ints]:
    """Episodes of a type from its rows, and for each row the episode that it is part of.

    A row that begins within ``join_gap_days`` days after an earlier one of the person ended extends that one: the
    episode begins with the first, ends with the last to end, and keeps the plan of the first and the earliest referral.
    Events on one day are one. A row without a start is an episode by itself.
    """
    event, months = instrument.kind == "event", instrument.open_end_months
    until = rows.start if event else rows.end
    if months is not None:
        open_ = np.flatnonzero((rows.end >= NEVER) & (rows.start < NEVER))
        until = until.copy()
        until[open_] = calendar.add_months(rows.start[open_], months) - 1
    rows = replace(rows, until=until, end=rows.start if event else rows.end)
    gap = -1 if event else instrument.join_gap_days
    order = order_by(rows.person, rows.start, rows.planned_end, rows.end, rows.until, rows.referral, rows.row)
    rows = rows.take(order)
    begun = rows.start < NEVER
    first = np.ones(len(rows), bool)
    if gap is not None:
        part, _ = components(Intervals(rows.person[begun], rows.start[begun], rows.until[begun]), 0, gap)
        first[begun] = first_of_run(part)
    # rows without a start sort behind the others of a person, so that every episode is a run of rows
    begins = np.flatnonzero(first)
    part = np.cumsum(first) - 1
    made = rows.take(begins)
    if len(begins):
        made = replace(
            made,
            end=np.maximum.reduceat(rows.end, begins),
            until=np.maximum.reduceat(rows.until, begins),
            referral=np.minimum.reduceat(rows.referral, begins),
        )
    made = replace(made, day=made.referral if clock == "referral" else made.start)
    final = order_by(made.person, made.day, made.start, made.until, made.end, made.referral, made.planned_end, made.row)
    rank = np.empty(len(final), np.int64)
    rank[final] = np.arange(len(final))
    number = np.empty(len(rows), np.int64)
    number[order] = rank[part]
    return made.take(final), number


def first_of_run(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before it."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _key(person: Ints, day: Days) -> Ints:
    """One number that sorts by person, then day."""
    return person * _SPAN + np.minimum(day, _FAR) + _BEFORE


def order_by(person: Ints, day: Days, *ties: Ints) -> Ints:
    """The order by person and day, then by ``ties``, which are looked at only where they must be."""
    key = _key(person, day)
    order = np.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same)) if len(same) else np.empty(0, np.int64)
    rows = order[tied]
    order[tied] = rows[np.lexsort((*(column[rows] for column in reversed(ties)), key[rows]))]
    return order


def combined(parts: Sequence[Episodes], months: int) -> Episodes:
    """The days on which the last of several instruments begins, each within ``months`` months of the first.

    Of every instrument the latest one begun by that day counts. A further combination needs all of them anew.
    """
    parts = [part.take(np.flatnonzero(part.day < NEVER)) for part in parts]
    keys = [_key(part.person, part.day) for part in parts]
    key = np.sort(np.concatenate(keys), kind="stable")
    key = key[first_of_run(key)]
    person, day = key // _SPAN, key % _SPAN - _BEFORE
    latest = [np.searchsorted(own, key, side="right") - 1 for own in keys]
    whole = np.ones(len(key), bool)
    first = np.full(len(key), NEVER)
    for part, at in zip(parts, latest, strict=True):
        has = at >= 0
        has[has] = part.person[at[has]] == person[has]
        whole &= has
        first[has] = np.minimum(first[has], part.day[at[has]])
    whole[whole] = day[whole] < calendar.add_months(first[whole], months)
    rows = _anew(np.flatnonzero(whole), person, day, first)
    chosen = [part.take(at[rows]) for part, at in zip(parts, latest, strict=True)]
    last = np.argmax([part.day for part in chosen], axis=0)
    return Episodes(
        person=person[rows],
        day=day[rows],
        **{name: np.max([getattr(part, name) for part in chosen], axis=0) for name in _LATEST},
        row=np.array([part.row for part in chosen])[last, np.arange(len(rows))],
    )


_LATEST = ("start", "end", "until", "planned_end", "referral")
"""What a combination has of the last of its parts; where one of them does not know, neither does it."""


def _anew(rows: Ints, person: Ints, day: Days, first: Days) -> Ints:
    """Of days that complete a combination those that use no instrument of an earlier one of the person."""
    taken: list[Ints] = []
    while len(rows):
        begins = first_of_run(person[rows])
        taken.append(rows[begins])
        done = np.repeat(day[rows[begins]], np.diff(np.append(np.flatnonzero(begins), len(rows))))
        rows = rows[first[rows] > done]
    return np.sort(np.concatenate(taken)) if taken else rows


def numbered(episodes: Episodes, order: int, spells: Intervals) -> tuple[Episodes, Days]:
    """Those that are the ``order``-th of the person within a benefit spell, counting different days.

    Beside them by spell (S,) the day of the one before, NEVER where there is none.
    """
    known = episodes.take(np.flatnonzero(episodes.day < NEVER))
    holding = spell_holding(spells, known.person, known.day)
    inside = np.flatnonzero(holding >= 0)
    inside = inside[np.argsort(holding[inside], kind="stable")]
    spell, day = holding[inside], known.day[inside]
    new_spell = first_of_run(spell)
    new_day = new_spell | first_of_run(day)
    count = np.cumsum(new_day)
    nth = np.asarray(count - np.maximum.accumulate(np.where(new_spell, count - 1, 0)), np.int64)
    before = np.full(len(spells.start), NEVER)
    before[spell[nth == order - 1]] = day[nth == order - 1]
    return known.take(np.sort(inside[nth == order])), before
