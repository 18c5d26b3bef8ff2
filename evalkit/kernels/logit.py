"""Gradient and Hessian of a logit over rows that share unit-level covariates, without a dense design matrix."""

from __future__ import annotations

import numpy as np
from numba import njit

# A row's design holds: 1, the unit's numeric columns, the row's own numeric columns, one dummy a unit-level factor,
# one dummy a row-level factor. Factor codes are columns of the parameter vector; -1 is the reference level.


@njit(cache=True)
def _fill(i, index, numeric, own_numeric, factors, own_factors, columns, values):
    """Nonzero columns and values of row i; returns how many."""
    unit = index[i]
    q, r = numeric.shape[1], own_numeric.shape[1]
    columns[0] = 0
    values[0] = 1.0
    m = 1
    for j in range(q):
        columns[m] = 1 + j
        values[m] = numeric[unit, j]
        m += 1
    for j in range(r):
        columns[m] = 1 + q + j
        values[m] = own_numeric[i, j]
        m += 1
    for j in range(factors.shape[1]):
        if factors[unit, j] >= 0:
            columns[m] = factors[unit, j]
            values[m] = 1.0
            m += 1
    for j in range(own_factors.shape[1]):
        if own_factors[i, j] >= 0:
            columns[m] = own_factors[i, j]
            values[m] = 1.0
            m += 1
    return m


@njit(cache=True)
def linear_predictor(index, numeric, own_numeric, factors, own_factors, theta):
    """x'theta a row, (n,)."""
    n = index.shape[0]
    width = 1 + numeric.shape[1] + own_numeric.shape[1] + factors.shape[1] + own_factors.shape[1]
    columns = np.empty(width, np.int64)
    values = np.empty(width, np.float64)
    out = np.empty(n, np.float64)
    for i in range(n):
        m = _fill(i, index, numeric, own_numeric, factors, own_factors, columns, values)
        total = 0.0
        for a in range(m):
            total += values[a] * theta[columns[a]]
        out[i] = total
    return out


@njit(cache=True)
def score_and_information(index, numeric, own_numeric, factors, own_factors, y, theta):
    """Log-likelihood, score (p,) and information (p, p) of the logit at theta."""
    n, p = index.shape[0], theta.shape[0]
    width = 1 + numeric.shape[1] + own_numeric.shape[1] + factors.shape[1] + own_factors.shape[1]
    columns = np.empty(width, np.int64)
    values = np.empty(width, np.float64)
    score = np.zeros(p)
    information = np.zeros((p, p))
    loglik = 0.0
    for i in range(n):
        m = _fill(i, index, numeric, own_numeric, factors, own_factors, columns, values)
        total = 0.0
        for a in range(m):
            total += values[a] * theta[columns[a]]
        if total >= 0:
            e = np.exp(-total)
            chance = 1.0 / (1.0 + e)
            loglik += -np.log1p(e) - (0.0 if y[i] else total)
        else:
            e = np.exp(total)
            chance = e / (1.0 + e)
            loglik += -np.log1p(e) + (total if y[i] else 0.0)
        residual = (1.0 if y[i] else 0.0) - chance
        weight = chance * (1.0 - chance)
        for a in range(m):
            score[columns[a]] += residual * values[a]
            scaled = weight * values[a]
            for b in range(a + 1):
                information[columns[a], columns[b]] += scaled * values[b]
    for a in range(p):
        for b in range(a):
            # each pair was added once, on whichever side its row listed it
            both = information[a, b] + information[b, a]
            information[a, b] = both
            information[b, a] = both
    return loglik, score, information
