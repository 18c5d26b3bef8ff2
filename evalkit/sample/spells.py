"""Benefit spells with the first start of the instrument inside each, and what overlaps a given day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days

NO_ELAPSED = np.int64(2**20)


def locator(ids: NDArray[np.object_]) -> Callable[[NDArray[Any]], NDArray[np.int64]]:
    """Gives the row of persons for an array of ids, -1 where there is none; an array of rows stays what it is."""

    def rows(values: NDArray[Any]) -> NDArray[np.int64]:
        if values.dtype.kind == "i":
            return values
        return np.asarray(pd.Index(ids).get_indexer(pd.Index(values)), np.int64)

    return rows


@dataclass(frozen=True)
class Intervals:
    """Intervals of days by person, sorted by (person, start): [start, end], both included; NEVER = open."""

    person: NDArray[np.int64]
    start: Days
    end: Days

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        """Where each person's intervals begin, up to two persons beyond the last who has any."""
        last = int(self.person[-1]) if len(self.person) else -1
        return np.searchsorted(self.person, np.arange(last + 3))

    def covers(self, person: NDArray[np.integer], day: Days) -> NDArray[np.bool_]:
        """Whether some interval of the person holds the day; works through the n-th interval of everyone at once."""
        person = np.minimum(person, len(self._first) - 2)
        first = self._first
        number = first[person + 1] - first[person]
        found = np.zeros(len(person), bool)
        for j in range(int(number.max(initial=0))):
            has = np.flatnonzero((number > j) & ~found)
            at = first[person[has]] + j
            found[has] = (self.start[at] <= day[has]) & (day[has] <= self.end[at])
        return found

    def holds(self, person: NDArray[np.integer], day: Days) -> NDArray[np.bool_]:
        """As ``covers``, for intervals of which no two of a person overlap; a single look-up."""
        if not len(self.start):
            return np.zeros(len(person), bool)
        at = np.searchsorted(by_person(self.person, self.start), by_person(person, day), side="right") - 1
        return np.asarray((at >= 0) & (self.person[at] == person) & (day <= self.end[at]))

    @cached_property
    def _latest(self) -> Days:
        """The last day of all intervals of the person up to and including each."""
        key = self.person * 10**7
        far = np.minimum(self.end, 5 * 10**6)
        latest = np.maximum.accumulate(key + far) - key
        return np.where(latest == 5 * 10**6, NEVER, latest)

    def runs_on(self, person: NDArray[np.integer], day: Days) -> NDArray[np.bool_]:
        """Whether some interval that began before the day lasts to that day or longer; they may overlap. Broadcasts."""
        if not len(self.start):
            return np.zeros(np.broadcast_shapes(np.shape(person), np.shape(day)), bool)
        at = np.searchsorted(by_person(self.person, self.start), by_person(person, day), side="left") - 1
        return np.asarray((at >= 0) & (self.person[at] == person) & (day <= self._latest[at]))


@dataclass(frozen=True)
class Spells(Intervals):
    """Benefit spells (S), of which no two of a person overlap.

    ``own_start``: day on which the person first starts the instrument in the spell (NEVER if he does not);
    ``own_elapsed``: elapsed month of that day (NO_ELAPSED if none). ``earlier``: earlier spells of the person, which
    numbers them.
    """

    reason: NDArray[np.int32]
    reasons: tuple[str, ...]
    earlier: NDArray[np.int64]
    own_start: Days
    own_elapsed: NDArray[np.int64]

    def stock(self, first_day: int) -> NDArray[np.bool_]:
        """Spells that ran already when the window began: what came before is not seen, so they are no inflow."""
        return np.asarray(self.start < first_day)

    @property
    def censored(self) -> NDArray[np.bool_]:
        """Spells of which the end is not known."""
        return np.asarray(self.end >= NEVER)

    def next_start(self, spell: NDArray[np.integer]) -> Days:
        """The first day of the person's next spell, NEVER if there is none."""
        later = np.minimum(spell + 1, len(self.start) - 1)
        return np.where((later > spell) & (self.person[later] == self.person[spell]), self.start[later], NEVER)


@dataclass(frozen=True)
class Starts:
    """Starts (E), sorted by person, day and instrument.

    ``day``: day of time zero. ``spell``: the one that holds it (-1 none). ``first``: whether it is the first in the
    days of that spell. ``which``: the instrument, by number.
    """

    person: NDArray[np.int64]
    day: Days
    spell: NDArray[np.int64]
    first: NDArray[np.bool_]
    which: NDArray[np.int64]

    @property
    def shared(self) -> NDArray[np.bool_]:
        """Starts of a person who starts another of the instruments on the same day."""
        same = (self.person[1:] == self.person[:-1]) & (self.day[1:] == self.day[:-1])
        day = np.cumsum(np.append(True, ~same)[: len(self.day)]) - 1  # a number for each person and day
        change = np.append(False, same & (self.which[1:] != self.which[:-1]))[: len(day)]
        return np.asarray(np.bincount(day, change, minlength=1)[day] > 0) if len(day) else np.zeros(0, bool)


def intervals(person: NDArray[np.integer], start: Days, end: Days) -> Intervals:
    """Intervals sorted by person, start and end."""
    order = np.lexsort((end, start, person))
    return Intervals(np.asarray(person, np.int64)[order], start[order], end[order])


def by_person(person: NDArray[np.integer], day: Days) -> NDArray[np.int64]:
    """One number that sorts by person, then day; days are far fewer than ten million, also before 1970."""
    return np.asarray(person, np.int64) * 10**7 + day + 10**6


def spell_holding(spells: Intervals, person: NDArray[np.int64], day: Days) -> NDArray[np.int64]:
    """The latest-starting spell of the person that holds the day, -1 if none."""
    at = np.searchsorted(by_person(spells.person, spells.start), by_person(person, day), side="right") - 1
    result = np.full(len(person), -1, np.int64)
    open_rows = np.flatnonzero(at >= 0)
    while len(open_rows):
        spell = at[open_rows]
        same = spells.person[spell] == person[open_rows]
        holds = same & (spells.start[spell] <= day[open_rows]) & (day[open_rows] <= spells.end[spell])
        result[open_rows[holds]] = spell[holds]
        open_rows = open_rows[same & ~holds]
        at[open_rows] -= 1
        open_rows = open_rows[at[open_rows] >= 0]
    return result


def attach_starts(
    person: NDArray[np.integer],
    start: Days,
    end: Days,
    reason: NDArray[np.int32],
    reasons: tuple[str, ...],
    start_person: NDArray[np.int64],
    start_day: Days,
) -> tuple[Spells, Starts]:
    """Spells with the first start inside each, and every start with the spell that holds it."""
    order = np.lexsort((reason, end, start, person))
    base = Intervals(np.asarray(person, np.int64)[order], start[order], end[order])
    starts, own_start, own_elapsed = first_starts(base, start_person, start_day, np.zeros(len(start_day), np.int64))
    begins = np.searchsorted(base.person, base.person, side="left")
    earlier = np.arange(len(base.person)) - begins
    return Spells(base.person, base.start, base.end, reason[order], reasons, earlier, own_start, own_elapsed), starts


def first_starts(
    spells: Intervals, person: NDArray[np.int64], day: Days, which: NDArray[np.int64]
) -> tuple[Starts, Days, NDArray[np.int64]]:
    """Starts with the spell that holds each; by spell the day of the first (NEVER if none) and its elapsed month."""
    by_day = np.lexsort((which, day, person))
    person, day, which = person[by_day], day[by_day], which[by_day]
    holding = spell_holding(spells, person, day)
    at = np.searchsorted(by_person(person, day), by_person(spells.person, spells.start))  # first start not before it
    near = np.flatnonzero(at < len(day))
    has = np.zeros(len(spells.start), bool)
    has[near] = (person[at[near]] == spells.person[near]) & (day[at[near]] <= spells.end[near])
    own_start = np.full(len(spells.start), NEVER)
    own_start[has] = day[at[has]]
    first = (holding >= 0) & (at[holding] == np.arange(len(holding)))
    own_elapsed = np.full(len(spells.start), NO_ELAPSED)
    own_elapsed[has] = calendar.whole_months(spells.start[has], own_start[has])
    return Starts(person, day, holding, first, which), own_start, own_elapsed
