"""Weighted regressions of many outcomes at once, with what their influence functions need.

One factorisation serves K right-hand sides. Linear regressions are least squares; logit and Poisson ones are quasi
maximum likelihood (Gourieroux, Monfort and Trognon 1984; McCullagh and Nelder 1989): consistent for the mean whatever
the law of the outcome, with residuals that sum to zero under the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit

from evalkit.errors import DesignError, Fault

Array = NDArray[np.float64]
Family = Literal["linear", "logit", "poisson"]

RANK = 1e-9
"""A column whose own part is smaller than this, relative to the largest, says nothing of its own."""
LARGEST_LEVERAGE = 0.9
STEPS = 60
DECREMENT = 1e-20
"""Squared Newton step in standard errors at which a logit or Poisson regression counts as solved."""
STEEPEST = 30.0
"""A linear predictor beyond this is a chance of 1e-13: separation."""


@dataclass(frozen=True)
class Fit:
    """A weighted regression: m(x) = g(x'b) with b solving sum_i w_i x_i (Y_i - m(x_i)) = 0.

    Attributes
    ----------
    x: (n, q) the columns that are used, scaled.
    fitted: (n, K) m(x) of every row, also of rows without weight.
    slope: (n, K), or (n, 1) for all outcomes: derivative of the mean to the linear predictor.
    inverse: (K, q, q), or (1, q, q) for all: inverse of sum_i w_i slope_i x_i x_i'.
    leverage: (n, K) or (n, 1): w_i slope_i x_i' inverse x_i, zero for rows without weight.
    """

    x: Array
    fitted: Array
    slope: Array
    inverse: Array
    leverage: Array

    def gradient(self, population: Array) -> Array:
        """Derivative of the mean of m over a population (n,) to b: (K, q), or (1, q) for all outcomes."""
        return np.asarray((population[:, None] * self.slope).T @ self.x / population.sum())

    def pull(self, direction: Array) -> Array:
        """direction' inverse x_i for each row, (n, K) or (n, 1).

        Times weight and residual it is the influence of row i on direction'b.
        """
        return np.asarray(self.x @ np.einsum("kpq,kq->kp", self.inverse, direction).T)


def fit_mean(x: Array, y: Array, weight: Array, family: Family = "linear") -> Fit:
    """Regress each column of ``y`` (n, K) on ``x`` (n, p) under ``weight`` (n,) >= 0.

    Columns without variation of their own among the rows with weight are left out (pivoted QR); predictions of other
    rows then leave them out too.

    Raises
    ------
    DesignError
        ``outcome.separated`` when a logit or Poisson regression has no finite solution.
    """
    used = np.flatnonzero(weight > 0)
    root = np.sqrt(weight[used])
    scaled = x[used] * root[:, None]
    norm = np.sqrt((scaled**2).sum(axis=0))
    norm[norm == 0] = 1.0
    q, r, pivot = linalg.qr(scaled / norm, mode="economic", pivoting=True)
    size = np.abs(np.diag(r))
    rank = int((size > RANK * size[0]).sum())
    kept = pivot[:rank]
    design = x[:, kept] / norm[kept]
    if family != "linear":
        return _quasi_likelihood(design, y, weight, used, family)
    triangle = r[:rank, :rank]
    beta = linalg.solve_triangular(triangle, q[:, :rank].T @ (y[used] * root[:, None]))
    half = linalg.solve_triangular(triangle, np.eye(rank))
    leverage = np.zeros((len(x), 1))
    leverage[used, 0] = (q[:, :rank] ** 2).sum(axis=1)
    return Fit(design, design @ beta, np.ones((len(x), 1)), (half @ half.T)[None], leverage)


def _quasi_likelihood(x: Array, y: Array, weight: Array, used: NDArray[np.int64], family: Family) -> Fit:
    shape = (len(x), y.shape[1])
    fitted, slope, leverage = np.empty(shape), np.empty(shape), np.zeros(shape)
    inverse = np.empty((y.shape[1], x.shape[1], x.shape[1]))
    for k in range(y.shape[1]):
        outcome = y[used, k]
        if np.ptp(outcome) == 0 and (family == "logit" or outcome[0] == 0):
            fitted[:, k], slope[:, k], inverse[k] = outcome[0], 0.0, 0.0
            continue
        beta, inverse[k] = _newton(x[used], outcome, weight[used], family)
        fitted[:, k], slope[:, k] = _mean(x @ beta, family)
        leverage[used, k] = weight[used] * slope[used, k] * ((x[used] @ inverse[k]) * x[used]).sum(axis=1)
    return Fit(x, fitted, slope, inverse, leverage)


def _mean(index: Array, family: Family) -> tuple[Array, Array]:
    if family == "logit":
        chance = expit(index)
        return chance, chance * (1 - chance)
    level = np.exp(np.clip(index, -700, 700))
    return level, level


def _deviance(y: Array, index: Array, weight: Array, family: Family) -> float:
    """Minus the quasi log-likelihood, up to a constant."""
    cumulant = np.logaddexp(0, index) if family == "logit" else np.exp(np.clip(index, -700, 700))
    return float(weight @ (cumulant - y * index))


def _newton(x: Array, y: Array, weight: Array, family: Family) -> tuple[Array, Array]:
    """Coefficients and inverse information by Newton's method with step halving."""
    level = float(weight @ y / weight.sum())
    start = np.log(level / (1 - level)) if family == "logit" else np.log(level)
    beta = linalg.lstsq(x * np.sqrt(weight)[:, None], np.full(len(x), start) * np.sqrt(weight))[0]
    value = _deviance(y, x @ beta, weight, family)
    for _ in range(STEPS):
        mean, slope = _mean(x @ beta, family)
        information = (x * (weight * slope)[:, None]).T @ x
        score = x.T @ (weight * (y - mean))
        try:
            inverse = linalg.inv(information)
        except linalg.LinAlgError:
            break
        step = inverse @ score
        if score @ step <= DECREMENT * max(1.0, abs(value)):
            if family == "logit" and np.abs(x @ beta).max() > STEEPEST:
                break
            return beta + step, inverse
        size = 1.0
        while size > 1e-8:
            trial = _deviance(y, x @ (beta + size * step), weight, family)
            if trial <= value + 1e-12 * abs(value):
                break
            size /= 2
        beta, value = beta + size * step, trial
    raise DesignError(Fault("outcome.separated", {"family": family, "rows": len(x)}))


def small_sample(leverage: Array) -> Array:
    """HC2 factor 1 / sqrt(1 - leverage) (MacKinnon and White 1985), at most 1 / sqrt(0.1)."""
    return np.asarray(1 / np.sqrt(1 - np.minimum(leverage, LARGEST_LEVERAGE)))
