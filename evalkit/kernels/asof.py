"""What is known of a unit, day by day, from rows that begin and end to be known."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def turning_points(unit, first, last, owner, day, row):
    """Fill ``owner``, ``day`` and ``row`` with the units and days on which the row that counts changes; how many.

    Rows are grouped by unit; of those that hold the last one counts. Row i holds from ``first[i]`` to ``last[i]``. Row
    -1 is none. There is room for two turning points a row.
    """
    used = 0
    start = 0
    while start < len(unit):
        stop = start
        while stop < len(unit) and unit[stop] == unit[start]:
            stop += 1
        days = np.empty(2 * (stop - start), np.int64)
        found = 0
        for i in range(start, stop):
            if first[i] <= last[i]:
                days[found] = first[i]
                days[found + 1] = last[i] + 1
                found += 2
        days = np.sort(days[:found])
        before = -1
        for k in range(found):
            if k > 0 and days[k] == days[k - 1]:
                continue
            now = -1
            for i in range(stop - 1, start - 1, -1):
                if first[i] <= days[k] <= last[i]:
                    now = i
                    break
            if now != before:
                owner[used] = unit[start]
                day[used] = days[k]
                row[used] = now
                used += 1
                before = now
        start = stop
    return used
