"""Mean and variance line of clusters of different sizes, without each cluster in turn."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def leave_one_out(z, inverse, turns):
    """Weighted mean, its variance, and a, b >= 0 of variance a + b x inverse, for each row and each cluster left out.

    z (L, N), inverse (N,). Returns (L, N + 1, 4): at place i without cluster i, at place N with all. Starts from equal
    variances; each turn takes the mean by 1/variance, squares divided by one less the weight of the own value (at least
    0.05), and least squares of the squares by 1/variance^2.
    """
    rows, n = z.shape
    out = np.empty((rows, n + 1, 4))
    variance, weight = np.empty(n), np.empty(n)
    for row in range(rows):
        scale = z[row].var() + 1e-300
        for skip in range(n + 1):
            variance[:] = 1.0
            mean = of_mean = a = b = 0.0
            for _ in range(turns):
                total = top = 0.0
                for i in range(n):
                    weight[i] = 0.0 if i == skip else 1.0 / variance[i]
                    total += weight[i]
                    top += weight[i] * z[row, i]
                mean = top / total
                s0 = s1 = s2 = t0 = t1 = 0.0
                for i in range(n):
                    if i == skip:
                        continue
                    square = (z[row, i] - mean) ** 2 / max(1.0 - weight[i] / total, 0.05) / scale
                    w = weight[i] * weight[i]
                    q = inverse[i]
                    s0 += w
                    s1 += w * q
                    s2 += w * q * q
                    t0 += w * square
                    t1 += w * square * q
                det = s0 * s2 - s1 * s1
                if det <= 1e-12 * s0 * s2 or s0 * t1 < s1 * t0:
                    a, b = t0 / s0, 0.0
                elif s2 * t0 < s1 * t1:
                    a, b = 0.0, t1 / s2
                else:
                    a, b = (s2 * t0 - s1 * t1) / det, (s0 * t1 - s1 * t0) / det
                of_mean = 0.0
                for i in range(n):
                    variance[i] = max(a + b * inverse[i], 1e-9)
                    if i != skip:
                        of_mean += 1.0 / variance[i]
            out[row, skip, 0] = mean
            out[row, skip, 1] = scale / of_mean
            out[row, skip, 2] = a * scale
            out[row, skip, 3] = b * scale
    return out
