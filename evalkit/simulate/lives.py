"""Spells of persons each with rates of their own, where every later spell obeys the law of a first one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evalkit.calendar import NEVER
from evalkit.simulate.draw import boundary, day_within, spell
from evalkit.simulate.model import STEPS, Array, Ints, Law, month_days

LATEST_DAY = 27
"""Entries fall on the first 28 days of a month, so that sub-steps have a day in every month."""


def lives(rng: np.random.Generator, law: Law, entry: Ints, offset: Ints, first: int, last: int) -> Ints:
    """Spells (person, first day, last day, kind of exit, day of the start); NEVER and -1 where not seen by ``last``.

    Parameters
    ----------
    law: its cells are persons.
    entry: month in which the first spell of each person begins, counted from the law's first.
    offset: days after the first of that month.
    first, last: days between which exits and starts happen.
    """
    assert law.returns is not None
    days = month_days(law, 2)
    calendar = np.ones(law.entries + 2)
    return _lives(
        rng, law.work, law.start, law.others, law.others_duration, law.duration, law.start_elapsed, calendar, law.path,
        law.returns, days, entry, offset, law.entries, first, last,
    )  # fmt: skip


@njit(cache=True)
def _lives(
    rng: Any,
    work: Array,
    start: Array,
    others: Array,
    others_duration: Array,
    duration: Array,
    start_elapsed: Array,
    calendar: Array,
    path: Array,
    returns: Array,
    days: Ints,
    entries: Ints,
    offsets: Ints,
    months: int,
    first: int,
    last: int,
) -> NDArray[Any]:
    """The loops of :func:`lives`."""
    rows = np.empty((2 * len(entries) + 8, 5), np.int64)
    n = 0
    for person in range(len(entries)):
        entry, offset, from_step = entries[person], offsets[person], 0
        while boundary(days, entry, offset, from_step) < first and from_step < (months - entry) * STEPS:
            from_step += 1
        begin = days[entry] + offset
        while begin <= last:
            steps = (months - entry) * STEPS
            begun, left, kind = spell(
                rng, work[person], start[person], others, others_duration, duration, calendar, start_elapsed, calendar,
                path, entry, from_step, steps,
            )  # fmt: skip
            started: Any = boundary(days, entry, offset, begun) if begun >= 0 else NEVER
            end: Any = day_within(rng, days, entry, offset, left) if left >= 0 else NEVER
            if n == len(rows):
                rows = np.concatenate((rows, np.empty_like(rows)))
            seen = end <= last
            rows[n, 0], rows[n, 1], rows[n, 2] = person, begin, end if seen else NEVER
            rows[n, 3], rows[n, 4] = kind if seen else -1, started if started <= last else NEVER
            n += 1
            if not seen:
                break
            back = left
            away = True
            while away and back + 1 < steps and back - left < returns.shape[1]:
                back += 1
                away = rng.random() >= returns[kind, back - left - 1]
            if away:
                break
            begin = boundary(days, entry, offset, back) + 1
            while days[entry + 1] <= begin:
                entry += 1
            offset = begin - days[entry]
            if offset > LATEST_DAY:
                entry, offset = entry + 1, 0
            begin, from_step = days[entry] + offset, 0
    return rows[:n]
