"""What was known before a day: values with the day from which each was known, looked up as of any day.

Pure functions over arrays. A row is known *before* day t when the last of its days that make it known lies before t;
so nothing that happens or is entered on t or later can change what is found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.calendar import NEVER, Days
from evalkit.kernels.asof import turning_points

Rows = NDArray[np.int32]
AnyDays = NDArray[np.int32] | NDArray[np.int64]
"""Day numbers; those of sixty million entries fit in four bytes each."""

_SPAN = 1 << 21
_ORIGIN = -(1 << 20)  # days from here to the end of the span: the years 900 to 4840
_CHUNK = 1 << 20


def _key(unit: NDArray[np.int64], day: AnyDays) -> NDArray[np.int64]:
    """Unit and day in one number that sorts by unit, then day."""
    return np.asarray(unit * _SPAN + (day - _ORIGIN), np.int64)


@dataclass(frozen=True)
class History:
    """By unit and day, which row of a table was known before that day.

    key: (B,) unit and day in one number, ascending: from that day on ``row`` counts.
    row: (B,) row of the table; -1 none.
    """

    key: NDArray[np.int64]
    row: Rows

    def as_of(self, unit: NDArray[np.integer], day: AnyDays) -> Rows:
        """The row of each unit (-1: no unit) that was known before a day (n,); -1 when none was.

        One binary search a lookup, in pieces, so that sixty million take no more room than their answer.
        """
        rows = np.full(len(unit), -1, np.int32)
        if not len(self.key):
            return rows
        for begin in range(0, len(unit), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            of = unit[part].astype(np.int64)
            place = np.searchsorted(self.key, _key(of, day[part]), side="right") - 1
            found = (place >= 0) & (self.key[place] >= of * _SPAN)
            rows[part] = np.where(found, self.row[place], -1)
        return rows


def _until_next(unit: NDArray[np.int64], known: Days) -> Days:
    """The day on which a later row of the unit became known; NEVER when there is none."""
    latest = _ORIGIN + _SPAN - 1
    key = _key(unit, np.minimum(known, latest))
    soonest = np.minimum.accumulate(key[::-1])[::-1]  # units ascend, so a minimum never reaches into the next
    day = np.full(len(unit), NEVER)
    same = unit[1:] == unit[:-1]
    day[:-1][same] = (soonest[1:] - unit[1:] * _SPAN + _ORIGIN)[same]
    return np.where(day >= latest, NEVER, day)


def history(unit: NDArray[np.integer], known: Days, over: Days | None = None) -> History:
    """What the rows of a table tell of each unit over time.

    Parameters
    ----------
    unit: (N,) ascending, from 0; of two rows of a unit that both hold the later one counts.
    known: (N,) the day on which a row became known: it counts for the days after it.
    over: (N,) the day on which a row no longer holds: it counts up to that day. NEVER, or None for all: it counts until
        a later row of the unit is known.
    """
    units, known = unit.astype(np.int64), np.asarray(known, np.int64)
    first = np.minimum(known, NEVER - 1) + 1
    last = _until_next(units, known)
    if over is not None:
        last = np.where(over < NEVER, over, last)
    owner, day, row = (np.empty(2 * len(first), np.int64) for _ in range(3))
    used = int(turning_points(units, first, last, owner, day, row))
    inside = np.flatnonzero(day[:used] < _ORIGIN + _SPAN)  # what is never known has no turning point
    return History(_key(owner[inside], day[inside]), row[inside].astype(np.int32))
