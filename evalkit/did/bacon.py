"""What the two-way fixed effects estimate compares: its decomposition into two-group, two-period comparisons.

The regression ``y_it = a_i + b_t + c D_it`` averages every comparison of a group whose treatment changes with a group
whose treatment does not, over the periods in which that is so. Comparisons with units that were treated earlier take
changes of those units' effects off the estimate; their weight says how much of the estimate rests on them.

Source: Goodman-Bacon (2021), Journal of Econometrics 225: 254-277, theorem 1; section 5.2 with covariates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalkit.did.panel import NEVER, Numbers, Panel
from evalkit.effects import Array, frozen
from evalkit.errors import DesignError, Fault

TINY = 1e-20
"""Below this share of the variance of treatment a part is rounding: sums of squares of doubles go no further."""

Kind = Literal["earlier_vs_later", "later_vs_earlier", "treated_vs_never", "later_vs_always", "both_treated"]
"""``both_treated``: an earlier and a later cohort in both directions at once, which covariates do not let apart."""


@dataclass(frozen=True)
class Within:
    """The part of an estimate with covariates that comes from inside the cohorts.

    Covariates that move differently among units of one cohort make the adjusted treatment differ among units that were
    treated at the same time. ``share`` is its weight (Omega), ``estimate`` its coefficient.
    """

    share: float
    estimate: float


@dataclass(frozen=True)
class Decomposition:
    """Comparisons (M,) of the two-way estimate, their weights and estimates.

    Attributes
    ----------
    treated: (M,) the cohort whose treatment changes; with covariates the earlier of the pair.
    versus: (M,) the cohort that it is compared with; ``NEVER``, or the first period for those treated from the start.
    kind: (M,) what sort of comparison it is.
    weight: (M,) adds up to 1.
    estimate: (M,) in outcome units.
    total: the two-way estimate: ``sum(weight * estimate)``, or with covariates
        ``within.share * within.estimate + (1 - within.share) * sum(weight * estimate)``.
    """

    treated: Numbers
    versus: Numbers
    kind: tuple[Kind, ...]
    weight: Array
    estimate: Array
    total: float
    within: Within | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("treated", np.int64), ("versus", np.int64), ("weight", float), ("estimate", float)):
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))

    def __len__(self) -> int:
        return len(self.kind)

    def by_kind(self) -> dict[Kind, tuple[float, float]]:
        """Weight and weighted average estimate of each sort of comparison that occurs."""
        found: dict[Kind, tuple[float, float]] = {}
        for kind in dict.fromkeys(self.kind):
            rows = np.array([k == kind for k in self.kind])
            weight = float(self.weight[rows].sum())
            average = float(self.weight[rows] @ self.estimate[rows]) / weight if weight else np.nan
            found[kind] = (weight, average)
        return found


def bacon(panel: Panel, *, covariates: bool = False) -> Decomposition:
    """Goodman-Bacon's decomposition of the two-way fixed effects estimate.

    Parameters
    ----------
    panel: balanced; weights may differ between units, not between the periods of one unit.
    covariates: decompose the regression with the panel's covariates. Their effects are those of the whole regression
        (the same in every comparison), and the pair of an earlier and a later cohort is one comparison.

    Raises
    ------
    DesignError
        ``did.bacon_unbalanced``, ``did.bacon_weights`` (weights change within a unit), ``did.bacon_no_variation``
        (no two groups whose treatment differs in some period and not in another), ``did.bacon_collinear`` (a covariate
        adds nothing to unit and period, or all say the same as treatment).

    Notes
    -----
    n_k: share of cohort k among the units, d_k: share of the periods in which it is treated, V: variance of the
    residual of treatment on units and periods. For k treated before l (l may be never, d_l = 0; k may be always,
    d_k = 1)::

        earlier_vs_later  weight n_k n_l (d_k - d_l)(1 - d_k) / V,  k before and after its date, l not yet treated
        later_vs_earlier  weight n_k n_l d_l (d_k - d_l) / V,       l before and after its date, k treated throughout

    With covariates, treatment less unit and period effects and less the covariates' prediction p is split into p's
    deviation from its cohort's mean in the period (*within*) and the rest r_kt. With V_b the variance of r::

        weight_kl = n_k n_l mean_t (r_kt - r_lt)^2 / V_b
        estimate_kl = sum_t (r_kt - r_lt)(y_kt - y_lt) / sum_t (r_kt - r_lt)^2
    """
    if not panel.balanced:
        raise DesignError(Fault("did.bacon_unbalanced", {"complete": panel.complete()[0].units, "units": panel.units}))
    weights = panel.wide(panel.weight)
    if not np.allclose(weights, weights[:, :1], rtol=1e-12, atol=0.0):
        raise DesignError(Fault("did.bacon_weights", {}))
    begun = np.maximum(panel.first, panel.periods[0])  # whoever was treated before the first period is one group
    cohorts, code = np.unique(begun, return_inverse=True)
    share = np.bincount(code, weights[:, 0], minlength=len(cohorts))
    share = share / share.sum()
    treated = (panel.periods >= cohorts[:, None]).astype(float)
    if not (_centre(treated, share) ** 2).sum() > 1e-12:
        raise DesignError(Fault("did.bacon_no_variation", {}))
    if not covariates or not panel.names:
        return _plain(panel.periods, cohorts, share, treated, _means(code, weights[:, 0], panel.wide(), len(cohorts)))
    return _adjusted(panel, cohorts, code, share, treated)


def _means(code: Numbers, weight: Array, values: Array, groups: int) -> Array:
    """(groups, T) weighted means of (N, T) within groups."""
    total = np.bincount(code, weight, groups)
    return np.stack([np.bincount(code, weight * column, groups) / total for column in values.T], axis=1)


def _centre(values: Array, share: Array) -> Array:
    """(K, T) less row and column effects, rows weighted by ``share``."""
    rows = values - values.mean(axis=1, keepdims=True)
    return rows - share @ rows


def _plain(periods: Numbers, cohorts: Numbers, share: Array, treated: Array, y: Array) -> Decomposition:
    residual = _centre(treated, share)
    total = float(share @ (residual * y).sum(axis=1) / (share @ (residual**2).sum(axis=1)))
    variance = float(share @ (residual**2).mean(axis=1))
    d = treated.mean(axis=1)
    always = cohorts <= periods[0]
    rows: list[tuple[int, int, Kind, float, float]] = []
    for k in range(len(cohorts)):
        for later in range(k + 1, len(cohorts)):
            gap = share[k] * share[later] * (d[k] - d[later]) / variance
            before, between, after = periods < cohorts[k], (periods >= cohorts[k]) & (periods < cohorts[later]), (
                periods >= cohorts[later]
            )  # fmt: skip
            never = cohorts[later] == NEVER
            if not always[k]:
                change = [row[between].mean() - row[before].mean() for row in (y[k], y[later])]
                kind: Kind = "treated_vs_never" if never else "earlier_vs_later"
                rows.append((cohorts[k], cohorts[later], kind, gap * (1 - d[k]), change[0] - change[1]))
            if not never:
                change = [row[after].mean() - row[between].mean() for row in (y[later], y[k])]
                kind = "later_vs_always" if always[k] else "later_vs_earlier"
                rows.append((cohorts[later], cohorts[k], kind, gap * d[later], change[0] - change[1]))
    return _table(rows, total, None)


def _adjusted(panel: Panel, cohorts: Numbers, code: Numbers, share: Array, treated: Array) -> Decomposition:
    weight = panel.wide(panel.weight)[:, 0]
    weight = weight / weight.sum()
    root = np.sqrt(weight)[:, None]
    y = panel.wide()
    d = _centre(treated[code], weight)
    x = np.stack([root * _centre(panel.wide(column), weight) for column in panel.x.T]).reshape(len(panel.names), -1).T
    scale = np.sqrt((x**2).sum(axis=0))
    size = np.sqrt((panel.x**2).mean(axis=0))
    if (scale <= 1e-10 * size).any() or np.linalg.matrix_rank(x / np.where(scale > 0, scale, 1.0)) < x.shape[1]:
        raise DesignError(Fault("did.bacon_collinear", {}))
    target = (root * d).ravel()
    p = (x @ (np.linalg.lstsq(x / scale, target, rcond=None)[0] / scale)).reshape(y.shape) / root
    residual = d - p
    variance = float(weight @ (residual**2).sum(axis=1))
    if variance <= 1e-10 * float(weight @ (d**2).sum(axis=1)):
        raise DesignError(Fault("did.bacon_collinear", {}))
    total = float(weight @ (residual * y).sum(axis=1)) / variance
    inner = p - _means(code, weight, p, len(cohorts))[code]
    spread = float(weight @ (inner**2).sum(axis=1))
    r = _means(code, weight, residual, len(cohorts))
    outer = float(share @ (r**2).sum(axis=1))
    if outer <= TINY * variance:
        raise DesignError(Fault("did.bacon_collinear", {}))
    if spread > TINY * variance:
        within = Within(spread / variance, -float(weight @ (inner * y).sum(axis=1)) / spread)
    else:  # the covariates move alike within every cohort
        within = Within(0.0, 0.0)
    level = _means(code, weight, y - weight @ y, len(cohorts))
    rows: list[tuple[int, int, Kind, float, float]] = []
    for k in range(len(cohorts)):
        for later in range(k + 1, len(cohorts)):
            gap = r[k] - r[later]
            square = float(gap @ gap)
            kind: Kind = "treated_vs_never" if cohorts[later] == NEVER else "both_treated"
            estimate = float(gap @ (level[k] - level[later])) / square if square > TINY * variance else 0.0
            rows.append((cohorts[k], cohorts[later], kind, share[k] * share[later] * square / outer, estimate))
    return _table(rows, total, within)


def _table(rows: list[tuple[int, int, Kind, float, float]], total: float, within: Within | None) -> Decomposition:
    treated, versus, kind, weight, estimate = zip(*rows, strict=True)
    return Decomposition(np.array(treated), np.array(versus), kind, np.array(weight), np.array(estimate), total, within)
