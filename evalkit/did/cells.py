"""Effects of cohorts in periods, ATT(g, t), with the influence of every unit: what aggregation works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.did.effects import By, Effects, Missing
from evalkit.did.panel import Mask, Numbers, Panel
from evalkit.effects import Array, frozen

Shares = Literal["estimated", "known"]


@dataclass(frozen=True)
class Cells:
    """Effects (C,) of cohorts in periods, with the influence of every unit; read-only.

    Attributes
    ----------
    panel: the units used, after dropping; N of them.
    group, time: (C,) the cohort (its first treated period) and the period, on the panel's own scale. No pair twice.
    estimate: (C,) average effect on the treated of cohort ``group`` in period ``time``, in outcome units; NaN: not
        estimable, then ``missing`` says why. 0 at a base cell.
    counterfactual: (C,) mean outcome of the cohort in the period less the effect.
    n_treated, n_comparison: (C,) distinct units beneath.
    influence: (N, C) influence of the units in sum form: estimate - truth is approximately the column sum. Zeros at a
        base cell and where the estimate is NaN. Kept as given, without a copy: it is the largest array of a fit.
    base: (C,) whether the cell is the period that its cohort is compared with, where the effect is 0 by construction.
    missing: cells without an estimate, and cells whose estimate stands with a reservation, each with its reason.
    se_kind: the name of the standard error.
    """

    panel: Panel
    group: Numbers
    time: Numbers
    estimate: Array
    counterfactual: Array
    n_treated: Numbers
    n_comparison: Numbers
    influence: Array
    base: Mask
    missing: tuple[Missing, ...] = ()
    se_kind: str = "influence function, clustered on unit"

    def __post_init__(self) -> None:
        for name in ("group", "time", "n_treated", "n_comparison"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))
        for name in ("estimate", "counterfactual"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        object.__setattr__(self, "base", frozen(self.base, bool))
        influence = np.asarray(self.influence, np.float64).view()
        influence.setflags(write=False)
        object.__setattr__(self, "influence", influence)
        names = ("group", "time", "estimate", "counterfactual", "n_treated", "n_comparison", "base")
        if {getattr(self, name).shape for name in names} != {(len(self.group),)}:
            raise ValueError("cells: arrays of unlike length")
        if influence.shape != (self.panel.units, len(self.group)):
            raise ValueError(f"cells: influence {influence.shape}, units and cells {(self.panel.units, len(self))}")

    def __len__(self) -> int:
        return len(self.group)

    @property
    def event(self) -> NDArray[np.int64]:
        """(C,) periods since the first treated one, on the panel's scale: ``time - group``."""
        return self.time - self.group

    @property
    def estimable(self) -> Mask:
        """(C,) whether there is an estimate."""
        return np.isfinite(self.estimate)

    @cached_property
    def unit_weight(self) -> Array:
        """(N,) the weight with which a unit counts in the share of its cohort.

        Its weight in the first period when every unit is seen in every period, otherwise the mean over its rows.
        """
        panel = self.panel
        if panel.balanced:
            return frozen(panel.wide(panel.weight)[:, 0])
        rows = np.bincount(panel.unit, minlength=panel.units)
        return frozen(np.bincount(panel.unit, panel.weight, minlength=panel.units) / np.maximum(rows, 1))

    @property
    def vcov(self) -> Array:
        """(C, C) covariance of the estimates, clustered as the panel is; zeros where there is no estimate."""
        summed = self.influence
        panel = self.panel
        if len(panel.cluster_ids) < panel.units:
            columns = [np.bincount(panel.cluster, c, minlength=len(panel.cluster_ids)) for c in self.influence.T]
            summed = np.stack(columns, axis=1)
        return np.asarray(summed.T @ summed)

    @property
    def std_error(self) -> Array:
        """(C,) standard errors, clustered as the panel is; 0 at a base cell, NaN where there is no estimate."""
        return np.where(self.estimable, np.sqrt(np.clip(np.diag(self.vcov), 0.0, None)), np.nan)

    def aggregate(
        self,
        by: By = "event",
        *,
        balance: int | None = None,
        window: tuple[int | None, int | None] | None = None,
        shares: Shares = "estimated",
    ) -> Effects:
        """The cells averaged by event time, cohort, calendar period or into one number.

        See :func:`evalkit.did.aggregate.aggregate`.
        """
        from evalkit.did.aggregate import aggregate

        return aggregate(self, by, balance=balance, window=window, shares=shares)

    def take(self, keep: Mask | Sequence[int]) -> Cells:
        """Only some cells (mask (C,) or places)."""
        place = np.arange(len(self))[np.asarray(keep)]
        return Cells(
            self.panel, self.group[place], self.time[place], self.estimate[place], self.counterfactual[place],
            self.n_treated[place], self.n_comparison[place], self.influence[:, place], self.base[place], self.missing,
            self.se_kind,
        )  # fmt: skip
