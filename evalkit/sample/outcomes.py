"""Outcome paths worked out from spells or taken from columns.

Event by k: last benefit day < t0 + k months. State at k: at the close of month k, on day t0 + k months - 1; a spell
whose last day that is has ended. See ``docs/contracts.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER
from evalkit.sample.spells import Intervals, Spells
from evalkit.sample.types import Entries

Array = NDArray[np.float64]


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


def exit_month(spells: Spells, entries: Entries) -> NDArray[np.int64]:
    """The month since time zero in which the spell ends: smallest k with last day < t0 + k months; huge if open."""
    end = spells.end[entries.spell]
    zero = entries.time_zero.astype(np.int64)
    closed = end < NEVER
    month = np.full(len(entries), NEVER)
    month[closed] = calendar.whole_months(zero[closed], end[closed]) + 1
    return month


def observed_path(entries: Entries, horizon: int) -> NDArray[np.bool_]:
    """Whether month k lies within potential follow-up, (n, horizon); an early exit never extends it."""
    return np.asarray(entries.follow_up[:, None] >= np.arange(1, horizon + 1)[None, :])


@dataclass(frozen=True)
class SpellOutcomes:
    """Outcomes from registers: ``sources`` maps an outcome's name to ``exit:<reason>``, ``exit:any``,
    ``state:benefit`` or ``state:work``."""

    spells: Spells
    jobs: Intervals | None
    sources: Mapping[str, str]

    def paths(self, name: str, entries: Entries, horizon: int) -> tuple[Array, NDArray[np.bool_]]:
        """Values (n, horizon) of one outcome and whether they are observed."""
        what, _, which = self.sources[name].partition(":")
        if what == "exit":
            month = exit_month(self.spells, entries)
            if which != "any":
                wanted = self.spells.reasons.index(which) if which in self.spells.reasons else -1
                month = np.where(self.spells.reason[entries.spell] == wanted, month, NEVER)
            values = (month[:, None] <= np.arange(1, horizon + 1)[None, :]).astype(float)
        else:
            held = self.spells if which == "benefit" else self.jobs
            assert held is not None  # the study file asked for jobs, so the build required them
            values = state_path(held, entries.person, entries.time_zero, horizon)
        return values, observed_path(entries, horizon)


@dataclass(frozen=True)
class TableOutcomes:
    """Outcomes that stand as columns of an analysis-ready table; rows are the entries' ``spell``."""

    values: Mapping[str, Array]

    def paths(self, name: str, entries: Entries, horizon: int) -> tuple[Array, NDArray[np.bool_]]:
        """Values (n, horizon) of one outcome, and whether they are there."""
        values = np.full((len(entries), horizon), np.nan)
        stored = self.values[name][entries.spell]
        values[:, : stored.shape[1]] = stored
        observed = np.isfinite(values)
        return np.where(observed, values, 0.0), observed
