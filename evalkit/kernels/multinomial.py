"""Score and information of a multinomial logit over rows that share unit-level covariates."""

from __future__ import annotations

import numpy as np
from numba import njit

from evalkit.kernels.logit import _fill


@njit(cache=True)
def score_and_information(index, numeric, own_numeric, factors, own_factors, arm, possible, theta):
    """Log-likelihood, score (J, p) and information (J, p, J, p) at theta (J, p).

    ``arm`` (n,) is 0 or the number of one of J arms; ``possible`` (n, J) says which of these a row may have: the others
    have chance 0, and arm 0 is always possible. A row's design is that of ``evalkit.kernels.logit``.
    """
    n, size, p = index.shape[0], theta.shape[0], theta.shape[1]
    width = 1 + numeric.shape[1] + own_numeric.shape[1] + factors.shape[1] + own_factors.shape[1]
    columns = np.empty(width, np.int64)
    values = np.empty(width, np.float64)
    chance = np.empty(size, np.float64)
    score = np.zeros((size, p))
    information = np.zeros((size, p, size, p))
    loglik = 0.0
    for i in range(n):
        m = _fill(i, index, numeric, own_numeric, factors, own_factors, columns, values)
        top = 0.0  # the linear predictor of arm 0
        for j in range(size):
            total = 0.0
            for a in range(m):
                total += values[a] * theta[j, columns[a]]
            chance[j] = total
            if possible[i, j]:
                top = max(top, total)
        if arm[i] > 0:
            loglik += chance[arm[i] - 1]
        whole = np.exp(-top)
        for j in range(size):
            chance[j] = np.exp(chance[j] - top) if possible[i, j] else 0.0
            whole += chance[j]
        loglik -= top + np.log(whole)
        for j in range(size):
            chance[j] /= whole
        for j in range(size):
            if not possible[i, j]:
                continue
            residual = (1.0 if arm[i] == j + 1 else 0.0) - chance[j]
            for a in range(m):
                score[j, columns[a]] += residual * values[a]
            for k in range(j + 1):
                weight = chance[j] * (1.0 - chance[j]) if j == k else -chance[j] * chance[k]
                for a in range(m):
                    scaled = weight * values[a]
                    for b in range(a + 1):
                        information[j, columns[a], k, columns[b]] += scaled * values[b]
    for j in range(size):
        for k in range(j + 1):
            for a in range(p):
                for b in range(a):
                    # each pair of columns was added once, on whichever side its row listed it
                    both = information[j, a, k, b] + information[j, b, k, a]
                    information[j, a, k, b] = both
                    information[j, b, k, a] = both
            for a in range(p):
                for b in range(p):
                    information[k, b, j, a] = information[j, a, k, b]
    return loglik, score, information
