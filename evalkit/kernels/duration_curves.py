"""Sums of squares of influence by cluster at every time of a curve, in one pass over the stretches."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]


@njit(cache=True)
def by_place(place: Numbers, size: int) -> tuple[Numbers, Numbers]:
    """Rows in the order of their place 0..size-1 (stable), and where each place begins (size + 1)."""
    first = np.zeros(size + 1, np.int64)
    for r in range(len(place)):
        first[place[r] + 1] += 1
    for k in range(size):
        first[k + 1] += first[k]
    room = first[:-1].copy()
    order = np.empty(len(place), np.int64)
    for r in range(len(place)):
        order[room[place[r]]] = r
        room[place[r]] += 1
    return order, first


@njit(cache=True)
def spread(
    low: Numbers, high: Numbers, weight: Array, cluster: Numbers, groups: int, enter: Array, leave: Array, at: Array
) -> Array:
    """Sum over clusters of squared influence at places 0..T, when influence is bilinear in stretch and time.

    A stretch is at risk at places low + 1 .. high. Its influence at place k is (x, y, 1) . at[k] with weight w, where
    (x, y) is ``enter[low]`` while it lasts and the sum of ``enter[low]`` and its own ``leave`` once k >= high; then
    its third number is 0. enter (T + 1, 2), leave (R, 2), at (T + 1, 3): the result (T + 1,).
    """
    size = len(enter)
    come, come_first = by_place(low, size)
    go, go_first = by_place(high, size)
    state = np.zeros((groups, 3))
    square = np.zeros((3, 3))
    total = np.zeros(size)
    for k in range(size):
        for leaving in range(2):
            order, first = (go, go_first) if leaving else (come, come_first)
            for o in range(first[k], first[k + 1]):
                r = order[o]
                if low[r] == high[r]:
                    continue
                w = weight[r]
                x, y, n = (leave[r, 0], leave[r, 1], -w) if leaving else (enter[k, 0], enter[k, 1], w)
                here = state[cluster[r]]
                a, b, c = here[0], here[1], here[2]
                here[0] = a + w * x
                here[1] = b + w * y
                here[2] = c + n
                square[0, 0] += here[0] * here[0] - a * a
                square[0, 1] += here[0] * here[1] - a * b
                square[0, 2] += here[0] * here[2] - a * c
                square[1, 1] += here[1] * here[1] - b * b
                square[1, 2] += here[1] * here[2] - b * c
                square[2, 2] += here[2] * here[2] - c * c
        for i in range(3):
            total[k] += at[k, i] * at[k, i] * square[i, i]
            for j in range(i + 1, 3):
                total[k] += 2.0 * at[k, i] * at[k, j] * square[i, j]
    return total
