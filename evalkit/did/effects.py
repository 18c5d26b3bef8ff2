"""What estimators return: effects by event time, cohort or calendar period, with their joint uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.did.panel import Panel
from evalkit.effects import Array, Influence, Uncertainty, frozen

By = Literal["event", "group", "calendar", "simple"]


@dataclass(frozen=True)
class Missing:
    """A cell without an estimate, or whose estimate stands with a reservation: cohort, period, code of the reason.

    The sentences stand under ``fault.did.<code>``. Codes in :data:`RESERVATIONS` are reservations.
    """

    group: int
    time: int
    code: str


@dataclass(frozen=True)
class Effects:
    """Effects (M,) by what ``by`` names, with their joint uncertainty.

    Attributes
    ----------
    by: ``event`` (periods since the first treated one, 0 is the first with treatment, negative before), ``group`` (the
        first treated period), ``calendar`` (the period) or ``simple`` (one number).
    at: (M,) event times, cohorts or periods, increasing; (0,) for ``simple``.
    estimate: (M,) average effect on the treated, in outcome units; NaN: not estimable. At a base period it is 0.
    counterfactual: (M,) mean outcome of the treated less the effect; NaN where the estimator does not give it.
    n_treated, n_comparison: (M,) units beneath: treated ones, and those that they are compared with.
    uncertainty: :class:`~evalkit.effects.Influence` by cluster in sum form (columns of zeros at a base period),
        ``Covariance``, or ``Intervals``.
    base: event times at which the effect is zero by construction.
    se_kind: the name of the standard error.
    overall: one effect that sums up the others as the estimator's authors do; None for ``simple``.
    missing: cells that are not estimable, and those whose estimate stands with a reservation, with the reason.
    """

    by: By
    at: NDArray[np.int64]
    estimate: Array
    counterfactual: Array
    n_treated: NDArray[np.int64]
    n_comparison: NDArray[np.int64]
    uncertainty: Uncertainty
    base: tuple[int, ...] = ()
    se_kind: str = "influence function, clustered on unit"
    overall: Effects | None = None
    missing: tuple[Missing, ...] = ()

    def __post_init__(self) -> None:
        for name in ("at", "n_treated", "n_comparison"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))
        for name in ("estimate", "counterfactual"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        sizes = {len(getattr(self, name)) for name in
                 ("at", "estimate", "counterfactual", "n_treated", "n_comparison")}  # fmt: skip
        if len(sizes) > 1:
            raise ValueError("effects: arrays of unlike length")

    def __len__(self) -> int:
        return len(self.at)

    @property
    def vcov(self) -> Array | None:
        """(M, M), or None where only intervals exist."""
        return self.uncertainty.vcov

    @property
    def std_error(self) -> Array:
        """(M,) standard errors; NaN where only intervals exist, 0 at a base period."""
        if self.vcov is None:
            return np.full(len(self), np.nan)
        return np.sqrt(np.clip(np.diag(self.vcov), 0.0, None))

    def linear(self, weights: Array) -> tuple[Array, Array | None]:
        """Estimate (L,) and covariance (L, L) of ``weights @ effects``; weights (L, M)."""
        matrix = np.atleast_2d(np.asarray(weights, float))
        derived = self.uncertainty.linear(matrix)
        return matrix @ self.estimate, None if derived is None else derived.vcov


RESERVATIONS = frozenset({"cell_lone", "cell_trimmed", "regression_cohort_small", "imputation_partly"})
"""Codes of cells whose estimate stands, but should be read with care; all others have none."""

Estimator = Callable[[Panel], Effects]
"""An estimator with its settings chosen: what placebo tests, reassignment and leaving out work with."""


def by_cluster(panel: Panel, values: Array, factor: float = 1.0) -> Influence:
    """Influence of units (N, M), in sum form, summed over the panel's clusters."""
    if len(panel.cluster_ids) == panel.units and np.array_equal(panel.cluster, np.arange(panel.units)):
        return Influence(panel.ids, values, panel.level, factor)
    summed = np.zeros((len(panel.cluster_ids), values.shape[1]))
    np.add.at(summed, panel.cluster, values)
    return Influence(panel.cluster_ids, summed, panel.level, factor)
