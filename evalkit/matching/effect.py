"""The effect on those who start, from matched pairs, with its influence function.

Estimates, for each month k, tau_k = E[Y_k(start) - Y_k(versus) | starters] by bias-corrected matching (Abadie and
Imbens 2011): the mean over matched starters of Y_i - sum_j w_ij (Y_j + m0(X_i) - m0(X_j)), where m0 is a regression of
Y on X among the matched comparison rows, weighted by how often each is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.effects import MonthlyEffect
from evalkit.matching.adjustment import Matching, Pairs
from evalkit.matching.models import ROWS_A_COLUMN
from evalkit.matching.outcome import estimate

__all__ = ["ROWS_A_COLUMN", "Matched", "matched_effect", "tally"]

Array = NDArray[np.float64]


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
    treated = np.zeros(len(matched.rows), bool)
    treated[matched.treated] = True
    everyone = np.arange(len(matched.rows))
    pairs = Pairs(matched.treated, matched.control, matched.weight, everyone[:0], np.inf)
    matching = Matching(
        treated, "att", treated.astype(float), treated + matched.uses(), pairs, None, everyone[:0], everyone[:0]
    )
    return estimate(
        matching,
        y,
        observed,
        x,
        model="bias_corrected",
        errors="influence",
        person=person,
        cluster=cluster,
        level=level,
    )
