"""How much each treated cell counts in a two-way regression, and what its event-study coefficients are mixed with.

When effects differ between cohorts or over time, the coefficient of treatment in ``y_it = a_i + b_t + c D_it`` is a
weighted sum of the effects in the treated cells whose weights may be negative: every effect may be positive and the
coefficient negative. The coefficients of an event study are such sums too, and each holds effects of other event times.

Sources: de Chaisemartin and D'Haultfoeuille (2020), American Economic Review 110: 2964-2996, theorem 1 and corollary 1;
Sun and Abraham (2021), Journal of Econometrics 225: 175-199, proposition 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalkit.did.absorb import TwoWay
from evalkit.did.panel import NEVER, Numbers, Panel
from evalkit.did.within import independent
from evalkit.effects import Array, frozen
from evalkit.errors import DesignError, Fault, UsageError

ROUNDING = 1e-10
"""A weight smaller than this in size is rounding, not a negative weight."""


@dataclass(frozen=True)
class TreatmentWeights:
    """Weights (C,) of the treated cells in the coefficient of treatment of a two-way regression.

    Attributes
    ----------
    group: (C,) the cohort, or with ``by="row"`` the number of the unit. ``time``: (C,) the period.
    share: (C,) the cell's share of the treated observations; adds up to 1.
    weight: (C,) weight relative to that share: ``share @ weight`` is 1. An average effect on the treated has 1
        everywhere. The coefficient is ``sum(share * weight * effect)`` plus departures from parallel trends.
    estimate: the coefficient, in outcome units.
    """

    group: Numbers
    time: Numbers
    share: Array
    weight: Array
    estimate: float

    def __post_init__(self) -> None:
        for name, dtype in (("group", np.int64), ("time", np.int64), ("share", float), ("weight", float)):
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))

    def __len__(self) -> int:
        return len(self.group)

    @property
    def contribution(self) -> Array:
        """(C,) ``share * weight``, adding up to 1: what an effect of one unit in the cell adds to the coefficient."""
        return self.share * self.weight

    @property
    def negative(self) -> int:
        """How many cells have a negative weight."""
        return int((self.weight < -ROUNDING).sum())

    @property
    def negative_share(self) -> float:
        """Share of the treated observations that lie in cells with a negative weight."""
        return float(self.share[self.weight < -ROUNDING].sum())

    @property
    def negative_sum(self) -> float:
        """Sum of the negative contributions; the positive ones add up to 1 minus this."""
        return float(self.contribution[self.weight < -ROUNDING].sum())

    @property
    def sd_for_zero(self) -> float:
        """The smallest standard deviation of effects across treated cells with which their average can be zero.

        ``|estimate| / sd(weight)``; infinite when all weights are equal. Small: heterogeneity of a likely size can
        explain the coefficient away.
        """
        spread = float(np.sqrt(self.share @ (self.weight - 1.0) ** 2))
        return abs(self.estimate) / spread if spread > ROUNDING else np.inf

    @property
    def sd_for_opposite(self) -> float:
        """The smallest standard deviation of effects with which all of them can have the sign opposite to the estimate.

        Infinite when no weight is negative. With weights w in decreasing order, P_i, S_i, T_i the sums of share, share
        * w, share * w^2 from place i on, and s the first i with w_i < -S_i / (1 - P_i): ``|estimate| / sqrt(T_s + S_s^2
        / (1 - P_s))``.
        """
        if not self.negative:
            return np.inf
        order = np.argsort(-self.weight, kind="stable")
        w, p = self.weight[order], self.share[order]
        below = [np.cumsum((p * w**power)[::-1])[::-1] for power in range(3)]
        rest = np.maximum(1.0 - below[0], 0.0)
        place = np.flatnonzero(w * rest < -below[1])
        place = place[place > 0]
        if not len(place):
            return np.inf
        i = place[0]
        return float(abs(self.estimate) / np.sqrt(below[2][i] + below[1][i] ** 2 / rest[i]))


def negative_weights(
    panel: Panel, *, covariates: bool = False, by: Literal["cohort", "row"] = "cohort"
) -> TreatmentWeights:
    """Weights of the static two-way regression on the effect in each treated cell.

    Parameters
    ----------
    panel: unbalanced ones and repeated cross-sections too (then cohort effects stand in for unit effects). Units
        treated from the start count as treated.
    covariates: of the regression with the panel's covariates.
    by: ``cohort``: cells of cohort and period; the weight of a cell is the mean over its observations, which is the
        weight of its effect when the effect is the same for all in the cell. ``row``: every treated observation.

    Raises
    ------
    DesignError
        ``did.weights_no_treated``: no treated observation. ``did.weights_no_variation``: treatment follows from the
        unit and period effects (and the covariates), so that the regression has no coefficient.

    Notes
    -----
    e_it: residual of treatment on unit and period effects (and covariates), h_it the sampling weights. Cell c has
    ``share_c = sum_c h / sum_treated h`` and ``weight_c = (sum_c h e / sum_c h) / (sum_treated h e / sum_treated h)``.
    """
    treated = panel.treated
    h = panel.weight
    if not h[treated].sum() > 0:
        raise DesignError(Fault("did.weights_no_treated", {}))
    effects = TwoWay.of(panel)
    e = effects.residual(treated.astype(float))
    whole = float(h @ (treated - np.average(treated, weights=h)) ** 2)
    if covariates and panel.names:
        x, _ = independent(effects, panel.x)
        root = np.sqrt(h)
        e = e - x @ np.linalg.lstsq(x * root[:, None], e * root, rcond=None)[0]
    variance = float(h @ e**2)
    if variance <= ROUNDING * whole:
        raise DesignError(Fault("did.weights_no_variation", {}))
    estimate = float(h @ (e * panel.outcome)) / variance
    rows = np.flatnonzero(treated & (h > 0))
    group = panel.first[panel.unit[rows]] if by == "cohort" else panel.unit[rows]
    group = np.maximum(group, panel.periods[0]) if by == "cohort" else group
    if by == "row":
        groups, times, code = group, panel.period[rows], np.arange(len(rows))
    else:
        names, number = np.unique(group, return_inverse=True)
        cells, code = np.unique(number * len(panel.periods) + panel.time[rows], return_inverse=True)
        groups, times = names[cells // len(panel.periods)], panel.periods[cells % len(panel.periods)]
    amount = np.bincount(code, h[rows], minlength=len(groups))
    score = np.bincount(code, h[rows] * e[rows], minlength=len(groups))
    share = amount / amount.sum()
    return TreatmentWeights(groups, times, share, score / amount / (score.sum() / amount.sum()), estimate)


@dataclass(frozen=True)
class Contamination:
    """Weights of event-study coefficients (K,) on the effects of cohorts at event times (C,).

    Attributes
    ----------
    at: (K,) event times that have a coefficient. ``coefficient``: (K,) the coefficients, in outcome units.
    cohort, event: (C,) the cells.
    weight: (K, C) the weights: ``coefficient = weight @ effect`` plus departures from parallel trends. Over the cells
        of its own event time a row adds up to 1, over those of another event time with a coefficient to 0, over those
        of the event times without one to -1.
    reference: event times without a coefficient.
    """

    at: Numbers
    coefficient: Array
    cohort: Numbers
    event: Numbers
    weight: Array
    reference: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, dtype in (("at", np.int64), ("cohort", np.int64), ("event", np.int64), ("weight", float),
                            ("coefficient", float)):  # fmt: skip
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))

    @property
    def other(self) -> Array:
        """(K,) sum of the sizes of the weights on other event times than the coefficient's own and the reference.

        0: not mixed. Cohorts whose effects follow the same course cancel out all the same.
        """
        foreign = (self.event != self.at[:, None]) & ~np.isin(self.event, self.reference)
        return np.asarray((np.abs(self.weight) * foreign).sum(axis=1))

    @property
    def negative_own(self) -> Array:
        """(K,) sum of the negative weights on cells of the coefficient's own event time."""
        own = (self.event == self.at[:, None]) & (self.weight < -ROUNDING)
        return np.asarray((self.weight * own).sum(axis=1))


def contamination(panel: Panel, *, reference: Sequence[int] = (-1,)) -> Contamination:
    """Weights of the coefficients of a two-way event study, as Sun and Abraham.

    The regression has unit effects, period effects and a dummy for every event time that occurs, but for ``reference``
    (``-1`` the last period before treatment; event times on the scale of the panel's periods). Each weight is the
    coefficient of the dummy in the same regression with ``1{cohort e at event time l}`` as outcome.

    Parameters
    ----------
    panel: unbalanced ones and repeated cross-sections too. Without units that are never treated, two references at
        least are needed.
    reference: event times left out.

    Raises
    ------
    UsageError
        ``did.contamination_reference``: a reference that occurs for no cohort.
    DesignError
        ``did.weights_no_treated``; ``did.contamination_collinear``: the dummies follow from each other and from the
        unit and period effects: name one reference more.
    """
    first, weights, code = _types(panel)
    kinds, periods = weights.shape
    effects = TwoWay.of_rows(
        np.repeat(np.arange(kinds), periods), np.tile(np.arange(periods), kinds), weights.ravel(), kinds, periods
    )
    seen = (weights > 0).ravel()
    begun = np.repeat(first, periods)
    event = np.where(begun < NEVER, np.tile(panel.periods, kinds) - begun, NEVER)
    found = np.unique(event[seen & (event < NEVER)])
    if not (found >= 0).any():
        raise DesignError(Fault("did.weights_no_treated", {}))
    missing = sorted(set(reference) - set(found.tolist()))
    if missing:
        raise UsageError(Fault("did.contamination_reference", {"event": ", ".join(map(str, missing))}))
    at = found[~np.isin(found, reference)]
    cells = np.unique(np.column_stack([begun, event])[seen & (event < NEVER)], axis=0)
    root = np.sqrt(effects.weight)[:, None]
    dummies = root * effects.residual((event[:, None] == at).astype(float))
    indicator = root * effects.residual(
        ((begun[:, None] == cells[:, 0]) & (event[:, None] == cells[:, 1])).astype(float)
    )
    size = np.sqrt((dummies**2).sum(axis=0))
    whole = np.sqrt(((event[:, None] == at) * effects.weight[:, None]).sum(axis=0))
    if (size <= 1e-7 * whole).any() or np.linalg.matrix_rank(dummies / size, tol=1e-7) < len(at):
        raise DesignError(Fault("did.contamination_collinear", {"reference": len(set(reference))}))
    solved = np.linalg.lstsq(dummies / size, indicator, rcond=None)[0] / size[:, None]
    total = np.bincount(code[panel.unit] * periods + panel.time, panel.weight * panel.outcome, len(effects.weight))
    mean = total / np.where(effects.weight > 0, effects.weight, 1.0)
    coefficient = np.linalg.lstsq(dummies / size, root[:, 0] * mean, rcond=None)[0] / size
    return Contamination(at, coefficient, cells[:, 0], cells[:, 1], solved, tuple(sorted(set(map(int, reference)))))


def _types(panel: Panel) -> tuple[Numbers, Array, Numbers]:
    """Cohort (K,) and weights (K, T) of units that are alike, and which kind a unit is (N,).

    Alike: of the same cohort, and with weights in the same proportions over the periods.

    Regressors of cohort and period alone have the same coefficients on these few rows as on the panel.
    """
    periods = len(panel.periods)
    if panel.repeated:
        first, level_of = np.unique(panel.first, return_inverse=True)
        code = level_of[panel.unit] * periods + panel.time
        summed = np.bincount(code, panel.weight, len(first) * periods).astype(float)
        return first, summed.reshape(-1, periods), level_of
    weights = np.bincount(panel.unit * periods + panel.time, panel.weight, panel.units * periods).reshape(-1, periods)
    if np.array_equal(weights, np.broadcast_to(weights[:, :1], weights.shape)):
        first, level = np.unique(panel.first, return_inverse=True)  # balanced, one weight a unit: a type is a cohort
        summed = np.bincount(level, weights[:, 0], len(first)).astype(float)
        return first, np.repeat(summed[:, None], periods, axis=1), level
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        proportion = np.where(total[:, None] > 0, np.round(weights / total[:, None], 14), 0.0)
    key = np.column_stack([panel.first.astype(float), proportion])
    kinds, code = np.unique(key, axis=0, return_inverse=True)
    summed = np.zeros((len(kinds), periods))
    np.add.at(summed, code.ravel(), weights)
    return kinds[:, 0].astype(np.int64), summed, code.ravel()
