"""The effect on those who start, from matched pairs, with its influence function.

Estimates, for each month k, tau_k = E[Y_k(start) - Y_k(versus) | starters] by bias-corrected matching (Abadie and
Imbens 2011): the mean over matched starters of Y_i - sum_j w_ij (Y_j + m0(X_i) - m0(X_j)), where m0 is a regression of
Y on X among the matched comparison rows, weighted by how often each is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from evalkit.effects import Influence, MonthlyEffect
from evalkit.matching.nearest import Pairs

Array = NDArray[np.float64]

ROWS_A_COLUMN = 5
"""Fewer matched comparison rows than this a column of X, and m0 falls back on the first columns (the score)."""


def tally(rows: NDArray[np.int64], weight: Array, size: int) -> Array:
    """Summed weight of each of ``size`` rows."""
    return np.bincount(rows, weight, minlength=size).astype(float)


@dataclass(frozen=True)
class Matched:
    """Rows that matching uses, renumbered 0..m-1; ``rows`` are their numbers among the candidates."""

    rows: NDArray[np.int64]
    treated: NDArray[np.int64]
    control: NDArray[np.int64]
    weight: Array

    @classmethod
    def of(cls, pairs: Pairs) -> Matched:
        """The rows that the pairs use."""
        rows = np.unique(np.concatenate([pairs.treated, pairs.control]))
        return cls(rows, np.searchsorted(rows, pairs.treated), np.searchsorted(rows, pairs.control), pairs.weight)

    def where(self, keep: NDArray[np.bool_]) -> Matched:
        """The pairs that are kept, each starter's weights again summing to one."""
        treated, control, weight = self.treated[keep], self.control[keep], self.weight[keep]
        total = np.bincount(treated, weight, minlength=len(self.rows))
        return Matched(self.rows, treated, control, weight / total[treated])

    def uses(self) -> Array:
        """K: summed match weight of each row (m,); zero for starters."""
        return tally(self.control, self.weight, len(self.rows))


def matched_effect(
    matched: Matched,
    y: Array,
    observed: NDArray[np.bool_],
    x: Array,
    person: NDArray[np.int64],
    cluster: NDArray[np.int64],
    level: str = "person",
) -> MonthlyEffect:
    """Bias-corrected effect on matched starters, all months in one pass.

    Parameters
    ----------
    y, observed: (m, K) outcome paths of the used rows and whether a month is observed.
    x: (m, p) covariates of the used rows with an intercept first; columns in order of importance.
    person, cluster: (m,) codes; influences are summed within clusters.

    Notes
    -----
    With N1 matched starters, K_j the summed match weight and e = Y - m0(X), the influence in sum form is
    psi_i = [D_i (e_i - tau) - (1 - D_i) K_i e_i] / N1. m0 is fitted with weights K and an intercept, so the second term
    sums to zero and so does the first. Residuals of comparison rows are divided by sqrt(1 - leverage) and those of
    starters by sqrt(1 - 1/N1), which vanishes in large samples (HC2; MacKinnon and White 1985). A month uses the pairs
    in which both are observed; months with the same pairs are worked out together.
    """
    horizon = y.shape[1]
    estimate, counterfactual = np.full(horizon, np.nan), np.full(horizon, np.nan)
    n_treated, n_comparison = np.zeros(horizon, np.int64), np.zeros(horizon, np.int64)
    ids, index = np.unique(cluster, return_inverse=True)
    influence = np.zeros((len(ids), horizon))
    usable = observed[matched.treated] & observed[matched.control]
    patterns, which = np.unique(usable, axis=1, return_inverse=True)
    columns = x.shape[1]
    for number in range(patterns.shape[1]):
        keep = patterns[:, number]
        months = np.flatnonzero(which.ravel() == number)
        if not keep.any():
            continue
        part = matched.where(keep)
        starters, k = np.unique(part.treated), part.uses()
        used = np.flatnonzero(k > 0)
        n1 = len(starters)
        n_treated[months] = len(np.unique(person[starters]))
        n_comparison[months] = len(np.unique(person[used]))
        width = min(x.shape[1], max(1, len(used) // ROWS_A_COLUMN))
        columns = min(columns, width)
        outcome = y[:, months]
        fit, leverage = _weighted_fit(x[:, :width], outcome, k, used)
        residual = outcome - fit
        tau = residual[starters].sum(axis=0) / n1 - (k[used] @ residual[used]) / n1
        estimate[months] = tau
        counterfactual[months] = outcome[starters].mean(axis=0) - tau
        if n1 < 2:
            estimate[months], counterfactual[months] = np.nan, np.nan
            continue
        psi = np.zeros_like(outcome)
        psi[starters] = (residual[starters] - tau) / np.sqrt(1 - 1 / n1)
        psi[used] -= (k[used] / np.sqrt(np.clip(1 - leverage, 0.1, None)))[:, None] * residual[used]
        rows = np.concatenate([starters, used])
        block = np.zeros((len(ids), len(months)))
        np.add.at(block, index[rows], psi[rows] / n1)
        influence[:, months] = block
    return MonthlyEffect(estimate, counterfactual, n_treated, n_comparison, Influence(ids, influence, level), columns)


def _weighted_fit(x: Array, y: Array, weight: Array, used: NDArray[np.int64]) -> tuple[Array, Array]:
    """Least squares on the used rows with weights: fitted values of all rows (m, K), leverages of the used rows.

    Columns without variation of their own among the used rows are left out (pivoted QR).
    """
    root = np.sqrt(weight[used])
    scaled = x[used] * root[:, None]
    norm = np.sqrt((scaled**2).sum(axis=0))
    norm[norm == 0] = 1.0
    q, r, pivot = linalg.qr(scaled / norm, mode="economic", pivoting=True)
    size = np.abs(np.diag(r))
    rank = int((size > 1e-9 * size[0]).sum())
    kept = pivot[:rank]
    beta = linalg.solve_triangular(r[:rank, :rank], q[:, :rank].T @ (y[used] * root[:, None]))
    fit = (x[:, kept] / norm[kept]) @ beta
    return fit, (q[:, :rank] ** 2).sum(axis=1)
