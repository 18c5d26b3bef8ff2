"""A randomised design: difference in means, and regression adjustment with treatment interacted (Lin 2013).

Estimates the average effect of assignment on everyone in the experiment. Both come as influence functions whose
covariance is the HC2 sandwich (MacKinnon and White 1985); for the difference in means that is Neyman's variance
s1^2/n1 + s0^2/n0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from evalkit.effects import Influence, MonthlyEffect
from evalkit.errors import DesignError, Fault

Array = NDArray[np.float64]


def difference(
    treated: NDArray[np.bool_],
    y: Array,
    observed: NDArray[np.bool_],
    cluster: NDArray[np.int64],
    x: Array | None = None,
    level: str = "person",
) -> MonthlyEffect:
    """Effect by month from least squares of Y on (1, D), or on (1, D, x - mean x, D (x - mean x)).

    Parameters
    ----------
    treated: (n,); y, observed: (n, K); cluster: (n,) codes; x: (n, p) covariates without intercept, or None.

    Raises
    ------
    DesignError
        ``design.too_few`` when an arm has fewer than two observed units in some month.

    Notes
    -----
    Psi_i = [(Z'Z)^-1 z_i]_D e_i / sqrt(1 - h_i), summed within clusters. Columns that are collinear in the months at
    hand are left out; with fewer than five units a column in the smaller arm, all covariates are.
    """
    horizon = y.shape[1]
    estimate, counterfactual = np.empty(horizon), np.empty(horizon)
    n1, n0 = np.empty(horizon, np.int64), np.empty(horizon, np.int64)
    ids, index = np.unique(cluster, return_inverse=True)
    influence = np.zeros((len(ids), horizon))
    patterns, which = np.unique(observed, axis=1, return_inverse=True)
    regressors = 0 if x is None else x.shape[1]
    for number in range(patterns.shape[1]):
        rows = np.flatnonzero(patterns[:, number])
        months = np.flatnonzero(which.ravel() == number)
        d = treated[rows]
        if min(d.sum(), (~d).sum()) < 2:
            raise DesignError(Fault("design.too_few", {"treated": int(d.sum()), "comparison": int((~d).sum())}))
        z, used = _regressors(d, None if x is None else x[rows])
        regressors = min(regressors, used)
        q, r = np.linalg.qr(z)
        inverse = linalg.solve_triangular(r, np.eye(r.shape[1]))
        outcome = y[np.ix_(rows, months)]
        beta = inverse @ (q.T @ outcome)
        leverage = np.clip((q**2).sum(axis=1), 0.0, 1 - 1e-6)
        weight = (q @ inverse.T)[:, 1] / np.sqrt(1 - leverage)
        estimate[months], counterfactual[months] = beta[1], beta[0]
        block = np.zeros((len(ids), len(months)))
        np.add.at(block, index[rows], weight[:, None] * (outcome - z @ beta))
        influence[:, months] = block
        n1[months], n0[months] = d.sum(), (~d).sum()
    return MonthlyEffect(estimate, counterfactual, n1, n0, Influence(ids, influence, level), regressors)


def _regressors(treated: NDArray[np.bool_], x: Array | None) -> tuple[Array, int]:
    base = np.column_stack([np.ones(len(treated)), treated.astype(float)])
    if x is None or not x.shape[1]:
        return base, 0
    centred = x - x.mean(axis=0)
    size = centred.std(axis=0)
    centred = centred[:, size > 0] / size[size > 0]
    if min(treated.sum(), (~treated).sum()) < 5 * (centred.shape[1] + 1):
        return base, 0
    full = np.column_stack([base, centred, centred * treated[:, None]])
    keep = [0, 1]
    for j in range(2, full.shape[1]):  # few columns: one at a time, so that the first of a collinear pair stays
        trial = full[:, [*keep, j]]
        size_j = np.abs(np.diag(np.linalg.qr(trial, mode="r")))
        if size_j[-1] > 1e-8 * np.sqrt((full[:, j] ** 2).sum()):
            keep.append(j)
    return full[:, keep], centred.shape[1]
