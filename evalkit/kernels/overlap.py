"""Amounts of intervals by month since a person's own day."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def overlap_sums(first, last, start, end, weight, bounds):
    """For each row i and month k the sum over intervals j of weight[j] times their days in the month, (n, K).

    Row i has the intervals first[i] .. last[i]-1, sorted by start, both ends included. Month k runs from bounds[i, k]
    up to but not including bounds[i, k + 1]; bounds is (n, K + 1). Summed in the order of the intervals.
    """
    n, months = bounds.shape[0], bounds.shape[1] - 1
    total = np.zeros((n, months), np.float64)
    for i in range(n):
        k = 0
        for j in range(first[i], last[i]):
            if start[j] >= bounds[i, months]:
                break
            if end[j] < bounds[i, 0]:
                continue
            while bounds[i, k + 1] <= start[j]:
                k += 1
            at = k
            while at < months and bounds[i, at] <= end[j]:
                days = min(end[j] + 1, bounds[i, at + 1]) - max(start[j], bounds[i, at])
                total[i, at] += weight[j] * days
                at += 1
    return total
