"""Whether the people beneath change with treatment: covariates, numbers of rows and absence as outcomes.

In repeated cross-sections, and in stocks such as "everyone on benefit this month", treatment can change who is there.
The difference in outcomes then mixes what happened to people with who they are (Hong 2013; Sant'Anna and Xu 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special

from evalkit.balance import holm
from evalkit.did.effects import Effects, Estimator
from evalkit.did.overall import attempt, table
from evalkit.did.panel import Panel
from evalkit.effects import Array, frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError


@dataclass(frozen=True)
class Composition:
    """Difference-in-differences of covariate means (P,).

    Attributes
    ----------
    names: the covariates.
    estimate, std_error: (P,) overall effect "of treatment" on the mean of the covariate; NaN when not estimable.
    scale: (P,) standard deviation of the covariate among untreated observations.
    p_value, p_holm: (P,) two-sided normal p value, and adjusted for testing all covariates (Holm 1979).
    effects: (P,) the whole results, None when not estimable.
    """

    names: tuple[str, ...]
    estimate: Array
    std_error: Array
    scale: Array
    p_value: Array
    p_holm: Array
    effects: tuple[Effects | None, ...]

    def __post_init__(self) -> None:
        for name in ("estimate", "std_error", "scale", "p_value", "p_holm"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def standardised(self) -> Array:
        """(P,) estimate in standard deviations."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.scale > 0, self.estimate / np.where(self.scale > 0, self.scale, 1.0), np.nan)

    @property
    def joint(self) -> float:
        """p value of "no covariate changes": the smallest adjusted one; NaN when nothing is estimable."""
        return float(np.nanmin(self.p_holm)) if np.isfinite(self.p_holm).any() else np.nan


def composition(panel: Panel, estimator: Estimator, names: Sequence[str] | None = None) -> Composition:
    """Every covariate as an outcome of the same estimator, without covariates.

    Covariates that are fixed within units say nothing in a balanced panel (the effect is zero by construction); in
    repeated cross-sections and unbalanced panels they show who comes and goes. Covariates that treatment itself changes
    (such as later income) are no test of composition.

    Parameters
    ----------
    names: covariates to test; all by default.

    Raises
    ------
    UsageError
        ``did.composition_traits``: the panel has no covariates, or lacks a named one.
    """
    chosen = panel.names if names is None else tuple(names)
    absent = [name for name in chosen if name not in panel.names]
    if absent or not chosen:
        raise UsageError(Fault("did.composition_traits", {"columns": ", ".join(absent)}))
    bare = replace(panel, x=np.empty((len(panel), 0)), names=())
    untreated = ~panel.treated & (panel.weight > 0)
    found: list[Effects | None] = []
    scale = np.full(len(chosen), np.nan)
    for place, name in enumerate(chosen):
        values = panel.x[:, panel.names.index(name)]
        if untreated.any():
            weight = panel.weight[untreated]
            mean = np.average(values[untreated], weights=weight)
            scale[place] = np.sqrt(np.average((values[untreated] - mean) ** 2, weights=weight))
        found.append(attempt(estimator, bare.with_outcome(values)))
    estimate, std_error = table(found)[:2]
    rounding = 1e-12 * np.where(scale > 0, scale, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        p_value = np.where(std_error > rounding, 2 * special.ndtr(-np.abs(estimate / std_error)), np.nan)
    exact = (std_error <= rounding) & (np.abs(estimate) <= 1e3 * rounding)  # fixed within units: nothing to test
    p_value = np.where(exact, 1.0, p_value)
    tested = np.isfinite(p_value)
    adjusted = np.full(len(chosen), np.nan)
    adjusted[tested] = holm(p_value[tested])
    return Composition(chosen, estimate, std_error, scale, p_value, adjusted, tuple(found))


def presence(panel: Panel, estimator: Estimator) -> Effects:
    """The effect of treatment on being seen: the share of units that have a row, over all units and periods.

    For a panel in which units come and go. An effect on it means that treatment decides who is observed. The unit's
    weight is the mean of its rows.

    Raises
    ------
    UsageError
        ``did.composition_cross_sections``: rows of repeated cross-sections are no units that could be absent; see
        :func:`rows`.
    """
    if panel.repeated:
        raise UsageError(Fault("did.composition_cross_sections", {}))
    periods = len(panel.periods)
    seen = np.bincount(panel.unit * periods + panel.time, minlength=panel.units * periods) > 0
    held = np.maximum(np.bincount(panel.unit, minlength=panel.units), 1)
    weight = np.bincount(panel.unit, panel.weight, minlength=panel.units) / held
    return estimator(_grid(panel, seen.astype(float), np.repeat(weight, periods)))


def rows(panel: Panel, estimator: Estimator, scale: Literal["log", "count"] = "log") -> Effects:
    """The effect of treatment on the number of rows (weighted, where rows have weights) of a cluster in a period.

    For repeated cross-sections and stocks: a change in inflow or in staying. The clusters are the units here, without
    weights.

    Parameters
    ----------
    scale: ``log``: relative change, exp(effect) - 1, when numbers would have moved in parallel in relative terms.
        ``count``: rows a cluster.

    Raises
    ------
    DataError
        ``did.composition_mixed``: a cluster holds units with different first treated periods, so that it has no date.
    DesignError
        ``did.composition_zero``: a cluster has no rows in a period, and the logarithm was asked for.
    """
    if scale not in ("log", "count"):
        raise ValueError(f"rows: {scale}")
    clusters, periods = len(panel.cluster_ids), len(panel.periods)
    first = panel.first_of_cluster
    mixed = np.unique(panel.cluster[panel.first != first[panel.cluster]])
    if len(mixed):
        raise DataError(Fault("did.composition_mixed", {"clusters": len(mixed)}))
    cell = panel.cluster[panel.unit] * periods + panel.time
    number = np.bincount(cell, panel.weight, clusters * periods).astype(float)
    if scale == "log" and (number <= 0).any():
        raise DesignError(Fault("did.composition_zero", {"cells": int((number <= 0).sum())}))
    counted = Panel(
        np.repeat(np.arange(clusters), periods), np.tile(np.arange(periods), clusters),
        np.log(number) if scale == "log" else number, panel.cluster_ids, panel.periods, first,
        np.ones(clusters * periods), np.empty((clusters * periods, 0)), (), np.arange(clusters), panel.cluster_ids,
        panel.level,
    )  # fmt: skip
    return estimator(counted)


def _grid(panel: Panel, outcome: Array, weight: Array) -> Panel:
    """Every unit in every period, without covariates."""
    units, periods = panel.units, len(panel.periods)
    return replace(
        panel, unit=np.repeat(np.arange(units), periods), time=np.tile(np.arange(periods), units), outcome=outcome,
        weight=weight, x=np.empty((units * periods, 0)), names=(), person_rows=None,
    )  # fmt: skip
