"""Local means and local lines on a score, as weights added up without keeping a single pair."""

from __future__ import annotations

import numpy as np
from numba import njit

KERNELS = ("epanechnikov", "gaussian", "uniform", "triangular", "biweight", "triweight", "tricube", "cosine")
FAR = 6.0  # bandwidths to which the normal density is followed


@njit(cache=True)
def _height(kind, u):
    a = abs(u)
    if kind == 1:
        return np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi) if a <= FAR else 0.0
    if a > 1.0:
        return 0.0
    if kind == 0:
        return 0.75 * (1.0 - u * u)
    if kind == 2:
        return 0.5
    if kind == 3:
        return 1.0 - a
    if kind == 4:
        return 0.9375 * (1.0 - u * u) ** 2
    if kind == 5:
        return 1.09375 * (1.0 - u * u) ** 3
    if kind == 6:
        return 70.0 / 81.0 * (1.0 - a * a * a) ** 3
    return np.pi / 4.0 * np.cos(np.pi / 2.0 * u)


@njit(cache=True)
def smooth(score, person, first, last, pool_score, pool_person, kind, width, ridge, values):
    """Weights of the pool in local means (``ridge`` < 0) or local ridge lines at each score.

    The pool is sorted by (stratum, score); row i may use pool rows first[i] .. last[i]-1, never its own person. Returns
    summed weights (n0,), for each row whether it has any neighbour, and the mean of ``values`` (n0,) by its weights.
    """
    n = score.shape[0]
    total = np.zeros(pool_score.shape[0])
    found = np.zeros(n, np.bool_)
    fitted = np.full(n, np.nan)
    reach = width * (FAR if kind == 1 else 1.0)
    for i in range(n):
        a, b = first[i], last[i]
        s = score[i]
        low = a + np.searchsorted(pool_score[a:b], s - reach * (1.0 + 1e-9))
        mass = moment = 0.0
        high = low
        while high < b and pool_score[high] - s <= reach * (1.0 + 1e-9):
            if pool_person[high] != person[i]:
                k = _height(kind, (pool_score[high] - s) / width)
                mass += k
                moment += k * (pool_score[high] - s)
            high += 1
        if mass <= 0.0:
            continue
        found[i] = True
        centre, slope = 0.0, 0.0
        if ridge >= 0.0:
            centre = moment / mass
            spread = 0.0
            for j in range(low, high):
                if pool_person[j] != person[i]:
                    gap = pool_score[j] - s - centre
                    spread += _height(kind, (pool_score[j] - s) / width) * gap * gap
            if spread <= 1e-12 * mass * width * width:  # all at one score: there is no line, only rounding
                spread = 0.0
            bottom = spread + ridge * width * abs(centre)
            slope = -centre / bottom if bottom > 0.0 else 0.0
        mean = 0.0
        for j in range(low, high):
            if pool_person[j] != person[i]:
                k = _height(kind, (pool_score[j] - s) / width)
                w = k / mass + k * (pool_score[j] - s - centre) * slope
                total[j] += w
                mean += w * values[j]
        fitted[i] = mean
    return total, found, fitted
