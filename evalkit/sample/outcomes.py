"""Outcome paths worked out from spells and jobs, or taken from columns.

Event by k: last benefit day < t0 + k months. State at k: at the close of month k, on day t0 + k months - 1; a spell
whose last day that is has ended. Flow in k: within [t0 + (k - 1) months, t0 + k months). ``docs/outcomes.md`` defines
every source to the day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days
from evalkit.kernels.overlap import overlap_sums
from evalkit.register.schema import UNKNOWN
from evalkit.sample.history import AnyDays
from evalkit.sample.jobs import Jobs
from evalkit.sample.spells import Intervals, Spells
from evalkit.sample.types import Entries
from evalkit.study.outcome_source import NOT, WORK_REGISTER, OutcomeSource

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def state_path(held: Intervals, person: NDArray[np.integer], time_zero: NDArray[np.integer], horizon: int) -> Array:
    """1 when some interval of the person holds the close of month k, (n, horizon).

    An interval counts for the months k with start < t0 + k months <= end.
    """
    n = len(person)
    change = np.zeros((n, horizon + 2))
    first = np.searchsorted(held.person, person, side="left")
    number = np.searchsorted(held.person, person, side="right") - first
    for j in range(int(number.max(initial=0))):
        rows = np.flatnonzero(number > j)
        at = first[rows] + j
        zero = time_zero[rows].astype(np.int64)
        rows = rows[held.end[at] >= zero]
        at = first[rows] + j
        zero = time_zero[rows].astype(np.int64)
        begins = np.where(held.start[at] < zero, 1, calendar.whole_months(zero, np.maximum(held.start[at], zero)) + 1)
        open_ended = held.end[at] >= NEVER
        last_day = np.where(open_ended, zero, held.end[at])
        ends = np.where(open_ended, horizon, calendar.whole_months(zero, last_day))
        begins, ends = np.clip(begins, 1, horizon + 1), np.clip(ends, 0, horizon)
        used = begins <= ends
        np.add.at(change, (rows[used], begins[used]), 1.0)
        np.add.at(change, (rows[used], ends[used] + 1), -1.0)
    return (np.cumsum(change, axis=1)[:, 1 : horizon + 1] > 0).astype(float)


def month_of(day: Days, time_zero: NDArray[np.integer]) -> NDArray[np.int64]:
    """The month since time zero that holds a day: smallest k with day < t0 + k months; NEVER stays NEVER."""
    month = np.full(len(day), NEVER)
    known = day < NEVER
    month[known] = calendar.whole_months(time_zero[known].astype(np.int64), day[known]) + 1
    return month


def month_bounds(time_zero: NDArray[np.integer], horizon: int, before: int = 0) -> Days:
    """First days of the months from ``before`` months before time zero to ``horizon`` after it, and of the next one.

    (n, before + horizon + 1); t0 - m months stands in column before - m.
    """
    days, at = np.unique(time_zero, return_inverse=True)
    return calendar.add_months(days[:, None], np.arange(-before, horizon + 1)[None, :])[at]


def amount_path(held: Intervals, weight: Array, person: NDArray[np.integer], bounds: Days) -> Array:
    """Sum of weight times days in each month over the intervals of the person, (n, K); see ``month_bounds``."""
    first = np.searchsorted(held.person, person, side="left")
    last = np.searchsorted(held.person, person, side="right")
    return np.asarray(overlap_sums(first, last, held.start, held.end, weight, bounds))


def observed_path(entries: Entries, horizon: int, look_ahead: int = 0) -> Mask:
    """Whether month k lies within potential follow-up, (n, horizon); an early exit never extends it.

    A value that is known only ``look_ahead`` months later needs those to be observed as well.
    """
    return np.asarray(entries.follow_up[:, None] >= np.arange(1, horizon + 1)[None, :] + look_ahead)


@dataclass(frozen=True)
class SpellOutcomes:
    """Outcomes from registers: ``sources`` holds the source of each outcome by name.

    ``first_day``: the first day that the data cover.
    """

    spells: Spells
    jobs: Jobs | None
    sources: Mapping[str, OutcomeSource]
    merge_gap_months: int = 0
    first_day: int = -int(NEVER)

    def paths(self, name: str, entries: Entries, horizon: int) -> tuple[Array, Mask]:
        """Values (n, horizon) of one outcome and whether they are observed."""
        source = self.sources[name]
        observed = observed_path(entries, horizon, source.look_ahead(self.merge_gap_months))
        if source.kind == "event":
            values = (self._month(source, entries)[:, None] <= np.arange(1, horizon + 1)[None, :]).astype(float)
            return values, observed
        if source.family == "state":
            return state_path(self._held(source), entries.person, entries.time_zero, horizon), observed
        return self._flow(source, entries, month_bounds(entries.time_zero, horizon)), observed

    def has_history(self, name: str) -> bool:
        """States and amounts exist before time zero; an event is one of the spell that holds it."""
        return self.sources[name].kind != "event"

    def before(self, name: str, entries: Entries, day: AnyDays, months: int) -> tuple[Array, Mask]:
        """Values (n, months) in the months before a day, oldest first, and whether they lie within the window.

        What begins on the day or later counts for nothing. So the state at the close of the last month is that of the
        rows that had begun by then, while a job that follows on an earlier one from that very day is not seen.
        """
        source, person = self.sources[name], entries.person
        bounds = month_bounds(day, 0, months)
        observed = bounds[:, :-1] >= self.first_day
        if source.family == "state":
            values = self._held(source).runs_on(person[:, None], bounds[:, 1:]).astype(float)
            if source.which == "work":
                values[:, -1] = self._jobs().rows.runs_on(person, bounds[:, -1])
        else:
            values = self._flow(source, entries, bounds)
        return np.where(observed, values, 0.0), np.asarray(observed)

    def _jobs(self) -> Jobs:
        assert self.jobs is not None  # the study file asked for jobs, so the build required them
        return self.jobs

    def _held(self, source: OutcomeSource) -> Intervals:
        return self.spells if source.which == "benefit" else self._jobs().held

    def _month(self, source: OutcomeSource, entries: Entries) -> NDArray[np.int64]:
        """The month since time zero in which the event happens; NEVER when it does not."""
        back = self.spells.next_start(entries.spell)
        if source.family == "return":
            return month_of(back, entries.time_zero)
        end = self.spells.end[entries.spell]
        happens = (end < NEVER) & self._leads_to(source, entries, end)
        if source.family == "durable":
            off = np.where(happens, end, 0) + 1
            happens &= back >= calendar.add_months(off, source.months)
        return np.where(happens, month_of(end, entries.time_zero), NEVER)

    def _leads_to(self, source: OutcomeSource, entries: Entries, end: Days) -> Mask:
        """Whether the spell of an entry, when it has ended, led to the destination that the source asks for."""
        which = source.which
        if which == "any":
            return np.ones(len(entries), bool)
        if source.register:
            closed = np.where(end < NEVER, end, 0)
            day = calendar.add_months(closed + 1, 1) - 1  # the last day of the first month off benefit
            work = self._jobs().held.holds(entries.person, day)
            return (work if which == WORK_REGISTER else ~work) & ~self.spells.holds(entries.person, day)
        reason, reasons = self.spells.reason[entries.spell], self.spells.reasons
        if which.startswith(NOT):
            unwanted = (which.removeprefix(NOT), UNKNOWN)
            return np.isin(reason, [code for code, known in enumerate(reasons) if known not in unwanted])
        return np.isin(reason, [code for code, known in enumerate(reasons) if known == which])

    def _flow(self, source: OutcomeSource, entries: Entries, bounds: Days) -> Array:
        if source.family == "months":
            held = self._held(source)
            return amount_path(held, np.ones(len(held.start)), entries.person, bounds) / np.diff(bounds, axis=1)
        jobs = self._jobs()
        total = amount_path(jobs.rows, jobs.amounts[source.which], entries.person, bounds)
        return total if jobs.daily else total / np.diff(bounds, axis=1)


@dataclass(frozen=True)
class TableOutcomes:
    """Outcomes that stand as columns of an analysis-ready table; rows are the entries' ``spell``.

    ``history``: those of periods before the treatment, oldest first.
    """

    values: Mapping[str, Array]
    history: Mapping[str, Array] = field(default_factory=dict)

    def paths(self, name: str, entries: Entries, horizon: int) -> tuple[Array, Mask]:
        """Values (n, horizon) of one outcome, and whether they are there."""
        values = np.full((len(entries), horizon), np.nan)
        stored = self.values[name][entries.spell]
        values[:, : stored.shape[1]] = stored
        observed = np.isfinite(values)
        return np.where(observed, values, 0.0), observed

    def has_history(self, name: str) -> bool:
        """Whether the table has columns for periods before the treatment."""
        return name in self.history

    def before(self, name: str, entries: Entries, day: AnyDays, months: int) -> tuple[Array, Mask]:
        """Values (n, months) of the last periods before the treatment, and whether they are there."""
        values = np.full((len(entries), months), np.nan)
        stored = self.history[name][entries.spell, -months:]
        values[:, months - stored.shape[1] :] = stored
        observed = np.isfinite(values)
        return np.where(observed, values, 0.0), observed
