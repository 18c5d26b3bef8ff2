"""How many clusters there are, how many of them treated, and which procedure is then valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from evalkit.did.few.randomisation import count_assignments
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Array
from evalkit.exhibits import Finding

Procedure = Literal["influence", "wild", "randomisation", "conley_taber", "ferman_pinto"]

ENOUGH_CLUSTERS = 30
"""Below this the normal quantile of the clustered error is too small (Cameron, Gelbach and Miller 2008)."""
ENOUGH_TREATED = 6
"""With fewer treated (or fewer untreated) clusters the clustered error itself is too small, and the wild bootstrap
hardly rejects with the hypothesis imposed and far too often without (MacKinnon and Webb 2018)."""
ENOUGH_EFFECTIVE = 10.0
"""Effective clusters below which one or a few dominate (Carter, Schnepel and Steigerwald 2017)."""
UNEVEN = 2.0
"""The largest cluster has more than this times the persons of the smallest: the noise differs by size."""


@dataclass(frozen=True)
class ClusterVerdict:
    """What the number of clusters allows.

    Attributes
    ----------
    clusters, treated, comparison: numbers of clusters; comparison: not treated in the first treated period.
    never: clusters that are never treated. effective: the effective number of clusters of the static effect (NaN when
        only counts were given). smallest: the smallest p-value that assigning the dates again can give.
    uneven: largest over smallest cluster in persons.
    procedure: the valid one; ``errors = "<procedure>"`` asks for it.
    code: ``did_few_treated``, ``did_few_clusters``, ``did_uneven_clusters``, or empty when nothing is wrong.
    """

    clusters: int
    treated: int
    comparison: int
    never: int
    effective: float
    smallest: float
    uneven: float
    procedure: Procedure
    code: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    @property
    def sufficient(self) -> bool:
        """Whether clustered errors from the influence function can be relied on."""
        return not self.code

    def finding(self, scope: str = "") -> Finding | None:
        """The verdict as a finding; None when nothing is wrong."""
        if not self.code:
            return None
        few = self.code == "did_few_treated"
        value, threshold = {
            "did_few_treated": (min(self.treated, self.comparison), ENOUGH_TREATED),
            "did_few_clusters": (self.clusters, ENOUGH_CLUSTERS),
            "did_uneven_clusters": (self.effective, ENOUGH_EFFECTIVE),
        }[self.code]
        return Finding(self.code, scope, "fail" if few else "warn", float(value), float(threshold), self.params)


def effective_clusters(panel: Panel) -> float:
    """Effective number of clusters of the static two-way effect: G / (1 + squared coefficient of variation of gamma_g).

    gamma_g is the cluster's part of the squares of treatment after units and periods are taken out, which is its part
    of the variance when errors are independent (Carter, Schnepel and Steigerwald 2017; with errors that are perfectly
    alike within a cluster the parts would be zero here, since the effects of units take such errors out).
    """
    residual = _partialled(panel)
    parts = np.bincount(panel.cluster[panel.unit], panel.weight * residual**2, len(panel.cluster_ids))
    total = parts.sum()
    return float(total**2 / (parts @ parts)) if total > 0 else float("nan")


def _partialled(panel: Panel) -> Array:
    """(n,) treatment less its effects of unit (cluster, in cross-sections) and period, by the panel's weights."""
    group = panel.cluster[panel.unit] if panel.repeated else panel.unit
    total = np.maximum(np.bincount(group, panel.weight), 1e-300)

    def within(columns: Array) -> Array:
        means = np.stack([np.bincount(group, panel.weight * c) for c in columns.T], axis=1) / total[:, None]
        return np.asarray(columns - means[group])

    periods = within((panel.time[:, None] == np.arange(1, len(panel.periods))).astype(float))
    own = within(panel.treated[:, None].astype(float))[:, 0]
    root = np.sqrt(panel.weight)
    slope = np.linalg.lstsq(periods * root[:, None], own * root, rcond=None)[0]
    return np.asarray(own - periods @ slope)


def few_clusters(
    panel: Panel | None = None, *, clusters: int = 0, treated: int = 0, comparison: int | None = None
) -> ClusterVerdict:
    """Which procedure is valid for this many clusters, from a panel or from counts alone.

    - fewer than 6 treated clusters, or fewer than 6 to compare with: clustered errors are far too small whatever the
      total, and the wild bootstrap fails too. ``conley_taber`` when no fewer clusters are never treated than treated,
      ``ferman_pinto`` when they differ in size by more than a factor of two, otherwise ``randomisation``.
    - fewer than 30 clusters: ``wild``.
    - fewer than 10 effective clusters: one or a few large ones decide: ``wild``.
    - otherwise ``influence``.

    A cluster counts as treated when any of its units is.
    """
    effective, uneven, smallest = float("nan"), 1.0, float("nan")
    if panel is not None:
        first = panel.first_of_cluster
        clusters, treated = len(first), int((first < NEVER).sum())
        never = clusters - treated
        comparison = int((first > first.min()).sum())
        effective = effective_clusters(panel)
        rows = panel.weight if panel.person_rows is None else panel.person_rows.astype(float)
        size = np.bincount(panel.cluster[panel.unit], rows, clusters)
        uneven = float(size.max() / size.min()) if size.min() > 0 else float("inf")
        ways = count_assignments(first)
    else:
        never = clusters - treated
        comparison = never if comparison is None else comparison
        ways = count_assignments(np.repeat([0, NEVER], [treated, max(clusters - treated, 0)]))
    smallest = 1.0 / ways if ways < 10**300 else 0.0
    few = min(treated, comparison) < ENOUGH_TREATED
    procedure: Procedure = "influence"
    code = ""
    if few:
        code = "did_few_treated"
        if never >= max(2, treated):
            procedure = "ferman_pinto" if uneven > UNEVEN else "conley_taber"
        else:
            procedure = "randomisation"
    elif clusters < ENOUGH_CLUSTERS:
        code, procedure = "did_few_clusters", "wild"
    elif isfinite(effective) and effective < ENOUGH_EFFECTIVE:
        code, procedure = "did_uneven_clusters", "wild"
    params = {
        "clusters": clusters,
        "treated": treated,
        "comparison": comparison,
        "minimum": ENOUGH_TREATED if few else ENOUGH_CLUSTERS,
        "effective": effective,
        "smallest": smallest,
        "procedure": procedure,
    }
    return ClusterVerdict(clusters, treated, comparison, never, effective, smallest, uneven, procedure, code, params)
