"""Extended two-way fixed effects by cohort and period: linear, logit or Poisson (Wooldridge 2021, 2023).

Untreated mean of unit i with covariates z_i = (1, x_i), constant in time, in period t:

    G^-1(E[y_it(0) | cohort g, x]) = z_i'(a_g + b_t),

G^-1 the identity, the log-odds or the log. Parallel trends are assumed on *that* scale, and given the covariates:
between those alike in x, cohorts differ by something constant in time. Treated cells get coefficients of their own,
z_i'delta_gt. The effect is on the scale of the outcome, averaged over the treated of the cell:

    ATT(g, t) = mean over i in (g, t) of [G(z_i'(a_g + b_t + delta_gt)) - G(z_i'(a_g + b_t))].

``not_yet``: only treated cells have coefficients, every untreated row serves as comparison. ``never``: every cell but
the base period has, so that the never treated alone show the trend, and the cells before treatment are placebos.

Linear, units followed: unit effects for a_g (the same estimates when every unit is seen in every period; with missing
periods unit effects allow the gaps to depend on them). Else: pooled over rows by cohort, without unit effects, which is
consistent for logit and Poisson with many units and few periods. Since G is the canonical link and treated cells are
saturated, their coefficients make the mean fitted outcome equal the mean outcome; a_g and b_t depend on untreated rows
alone. So ATT(g, t) = mean outcome - mean of G(z_i'(a_g + b_t)) with a, b fitted on the untreated rows: the same number
as the pooled quasi-likelihood (Wooldridge 2023, section 4), and a treated cell where the outcome is 0 or 1 for all has
an effect too, while its coefficient has none.

Standard errors: influence function of coefficients and of the average over the treated, summed by cluster. They need no
binary outcome for a logit and no Poisson one for a Poisson, only the right mean.

Sources: Wooldridge (2021), Two-way fixed effects, the two-way Mundlak regression, and difference-in-differences
estimators; Wooldridge (2023), Econometrics Journal 26: C31-C66.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from evalkit.did.cells import Cells
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.did.sun_abraham import base_periods, cells_of, number_cells
from evalkit.did.within import Covariates, allow, cell_units, chosen, cohort_numbers, invert, regress, usable
from evalkit.effects import Array
from evalkit.errors import DataError, DesignError, Fault, UsageError

Family = Literal["linear", "logit", "poisson"]
Control = Literal["not_yet", "never"]
Reasons = dict[tuple[int, int], str]

STEPS = 100
CONVERGED = 1e-22
"""Twice the gain in quasi log-likelihood that a further step promises, per unit of weight (of outcome: Poisson)."""

STEEP = 30.0
"""A log-odds or a log relative to the mean beyond which a fitted outcome counts as 0 or 1 for certain."""


def extended(
    panel: Panel,
    *,
    family: Family = "linear",
    control: Control = "not_yet",
    covariates: Covariates = True,
    anticipation: int = 0,
) -> Cells:
    """Effects of cohorts in periods by the extended two-way fixed effects regression.

    Parameters
    ----------
    panel: with or without missing periods, weights, repeated cross-sections. Cross-sections, ``logit`` and ``poisson``
        are pooled by cohort.
    family: ``linear``; ``logit`` for outcomes in [0, 1], shares included; ``poisson`` for outcomes >= 0.
    control: ``not_yet``: every untreated row is compared with. ``never``: units never treated only; cells before
        treatment are placebos against the last period before it.
    covariates: which of ``panel.x``: True all, False none, or names. The value of a unit in its first period,
        multiplied by cohort, period and cell; in cross-sections the row's own.
    anticipation: periods before the first treated one in which effects may begin: they count as treated.

    Returns
    -------
    Cells with ATT(g, t) in outcome units (a difference in shares for ``logit``). In ``missing``, without an estimate:
    cells of cohorts or periods whose untreated outcomes are all 0, or all 1 (``regression_separated_cell``), periods in
    which nobody is untreated (``regression_no_comparison``), cells not identified (``regression_not_identified``) or
    without rows (``regression_cell_empty``). With an estimate: cohorts within a single cluster
    (``regression_cohort_small``), whose own variation the standard error does not know.

    Raises
    ------
    DataError
        ``did.regression_outcome_share``, ``did.regression_outcome_count``: outcomes that the family does not have.
    DesignError
        ``did.regression_no_never``; ``did.regression_separated`` when covariates separate the outcomes; those of
        :func:`~evalkit.did.two_way.two_way`.
    UsageError
        ``did.regression_setting``.
    """
    _settings(family, control, anticipation)
    panel = usable(panel)
    if family == "logit" and ((panel.outcome < 0) | (panel.outcome > 1)).any():
        raise DataError(Fault("did.regression_outcome_share", {}))
    if family == "poisson" and (panel.outcome < 0).any():
        raise DataError(Fault("did.regression_outcome_count", {}))
    panel, _ = panel.without_always_treated(anticipation)
    if control == "never" and not (panel.first == NEVER).any():
        raise DesignError(Fault("did.regression_no_never", {}))
    if not (panel.first < NEVER).any():
        raise DesignError(Fault("did.regression_no_treated", {}))
    design = Design.of(panel, control, anticipation, covariates)
    if family == "linear" and not panel.repeated:
        return _within(design)
    return _pooled(design, family)


def _settings(family: str, control: str, anticipation: int) -> None:
    allow("family", family, "linear", "logit", "poisson")
    allow("control", control, "not_yet", "never")
    if anticipation < 0:
        raise UsageError(Fault("did.regression_setting", {"setting": "anticipation", "allowed": "0, 1, ..."}))


@dataclass(frozen=True)
class Design:
    """Which cells have effects, and what they are compared with.

    ``cohort`` (N,) number of a unit's cohort. ``z`` (n, Q) by row: constant and covariates, these centred over all.
    ``wanted`` (H, T): cells with a coefficient; ``bases`` (H, T): base cells (``never``). ``compared`` (H, T):
    comparison units of a cell.
    """

    panel: Panel
    cohort: Numbers
    z: Array
    wanted: Mask
    bases: Mask
    compared: Numbers
    control: Control

    @classmethod
    def of(cls, panel: Panel, control: Control, anticipation: int, covariates: Covariates) -> Design:
        cohort = cohort_numbers(panel)
        columns = list(chosen(panel, covariates))
        x = panel.x[:, columns] if panel.repeated else panel.x[_starts(panel)][:, columns][panel.unit]
        size = np.abs(x).max(axis=0, initial=0.0)
        x = x - np.average(x, axis=0, weights=panel.weight)
        x = x[:, np.sqrt(np.average(x**2, axis=0, weights=panel.weight)) > 1e-9 * size]
        z = np.column_stack([np.ones(len(panel)), x])
        units = cell_units(panel, cohort)
        when = np.append(panel.cohorts, NEVER)
        exposed = panel.periods[None, :] >= when[:, None] - anticipation
        if control == "never":
            bases = base_periods(panel, -1 - anticipation)
            wanted = ~bases
            wanted[-1] = False
            compared = np.broadcast_to(units[-1], units.shape)
        else:
            bases, wanted = np.zeros_like(exposed), exposed
            compared = np.broadcast_to((units * ~exposed).sum(axis=0), units.shape)
        return cls(panel, cohort, z, wanted, bases, compared, control)

    def by_cell(self) -> dict[tuple[int, int], Numbers]:
        """Rows of every cell (cohort, period) that has some."""
        periods = len(self.panel.periods)
        code = self.cohort[self.panel.unit] * periods + self.panel.time
        order = np.argsort(code, kind="stable")
        found, start = np.unique(code[order], return_index=True)
        parts = np.split(order, start[1:])
        return {divmod(cell, periods): rows for cell, rows in zip(found.tolist(), parts, strict=True)}


def _starts(panel: Panel) -> Numbers:
    """(N,) the first row of every unit."""
    return np.flatnonzero(np.r_[True, np.diff(panel.unit) > 0]).astype(np.int64)


def _within(design: Design) -> Cells:
    """Linear with unit effects."""
    panel = design.panel
    alone = design.wanted & (design.compared == 0)  # in these periods nobody shows what would have happened
    column, places = number_cells(panel, design.wanted)
    fit = regress(panel, column, len(places), covariates=False, z=design.z[_starts(panel)])
    count, q = len(places), design.z.shape[1]
    cells = design.by_cell()
    average = np.zeros((count, count, q))  # the effect is the cell's coefficients at the mean of its z
    gaps: list[Array] = []
    for c, (h, t) in enumerate(places.tolist()):
        rows = cells[h, t]
        share = panel.weight[rows] / panel.weight[rows].sum()
        average[c, c] = share @ design.z[rows]
        gaps.append(share * ((design.z[rows] - average[c, c]) @ fit.coefficients[c]))
    linear = average.reshape(count, -1)
    estimate = np.where(
        fit.estimable(linear) & ~alone[places[:, 0], places[:, 1]], linear @ fit.coefficients.ravel(), np.nan
    )
    influence = fit.influence(linear)
    for c, (h, t) in enumerate(places.tolist()):
        influence[panel.unit[cells[h, t]], c] += gaps[c]
    reasons = {(int(h), int(t)): "regression_no_comparison" for h, t in np.argwhere(alone)}
    return _cells(design, "linear", places, estimate, influence, reasons)


def _cells(
    design: Design, family: Family, places: Numbers, estimate: Array, influence: Array, reasons: Reasons
) -> Cells:
    return cells_of(
        design.panel, places, estimate, influence, design.bases, design.compared,
        f"extended two-way fixed effects, {family}, control {design.control}", wanted=design.wanted, reasons=reasons,
    )  # fmt: skip


def _pooled(design: Design, family: Family) -> Cells:
    """Any family, pooled over rows with cohort effects."""
    panel = design.panel
    used, reasons = _told(design, family)
    fit = _fit(design, family, used)
    _, places = number_cells(panel, design.wanted)
    count, q = len(places), design.z.shape[1]
    cells = design.by_cell()
    estimate = np.full(count, np.nan)
    slope = np.zeros((count, len(fit.inverse)))
    influence = np.zeros((panel.units, count))
    for c, (h, t) in enumerate(places.tolist()):
        if not fit.known[h, t]:
            if design.compared[h, t] == 0:
                reasons.setdefault((h, t), "regression_no_comparison")
            continue
        rows = cells[h, t]
        share = panel.weight[rows] / panel.weight[rows].sum()
        mean = _mean(family, design.z[rows] @ fit.coefficients[h, t])
        gap = panel.outcome[rows] - mean
        step = (share * _slope(family, mean)) @ design.z[rows]
        for number in (fit.cohort[h], fit.period[t]):
            if number >= 0:
                slope[c, number * q : number * q + q] -= step
        size = np.linalg.norm(slope[c])
        if np.abs(slope[c] @ fit.null).max(initial=0.0) > 1e-6 * size:
            slope[c] = 0.0
            continue
        estimate[c] = share @ gap
        influence[panel.unit[rows], c] += share * (gap - estimate[c])
    root = (slope @ fit.inverse).T.reshape(-1, q, count)
    score = panel.weight * fit.residual
    for (h, t), rows in cells.items():
        rows = rows[used[rows]]
        if len(rows):
            pull = root[fit.cohort[h]] + (root[fit.period[t]] if fit.period[t] >= 0 else 0.0)
            influence[panel.unit[rows]] += (score[rows, None] * design.z[rows]) @ pull  # a unit is once in a period
    return _cells(design, family, places, estimate, influence, reasons)


def _told(design: Design, family: Family) -> tuple[Mask, Reasons]:
    """The rows (n,) that a fit without infinite coefficients can use, and why cells have no estimate.

    A cohort or a period whose untreated outcomes are all 0 (or all 1) would have an infinite coefficient; without it
    another may be in the same place.
    """
    panel = design.panel
    cohort = design.cohort[panel.unit]
    used = ~design.wanted[cohort, panel.time]
    reasons: Reasons = {}
    found = family != "linear"
    while found:
        found = False
        for axis, code in enumerate((cohort, panel.time)):
            weight, outcome = panel.weight[used], panel.outcome[used]
            count = design.wanted.shape[axis]
            some = np.bincount(code[used], weight, count) > 0
            none = np.bincount(code[used], weight * outcome, count) <= 0
            whole = np.bincount(code[used], weight * (1 - outcome), count) <= 0
            bad = some & (none | whole if family == "logit" else none)
            for number in np.flatnonzero(bad).tolist():
                where = design.wanted[number] if axis == 0 else design.wanted[:, number]
                for place in np.flatnonzero(where).tolist():
                    reasons[(number, place) if axis == 0 else (place, number)] = "regression_separated_cell"
            found |= bool(bad.any())
            used &= ~bad[code]
    if not used.any():
        raise DesignError(Fault("did.regression_separated", {"family": family}))
    return used, reasons


def _mean(family: Family, eta: Array) -> Array:
    if family == "logit":
        return np.asarray(special.expit(eta))
    return np.exp(eta) if family == "poisson" else eta


def _slope(family: Family, mean: Array) -> Array:
    if family == "logit":
        return mean * (1 - mean)
    return mean if family == "poisson" else np.ones_like(mean)


def _loss(family: Family, eta: Array, mean: Array, outcome: Array, weight: Array) -> float:
    """Minus the quasi log-likelihood, up to a constant."""
    if family == "logit":
        return float(weight @ (np.logaddexp(0.0, eta) - outcome * eta))
    if family == "poisson":
        return float(weight @ (mean - outcome * eta))
    return float(weight @ (outcome - mean) ** 2) / 2


@dataclass(frozen=True)
class Untreated:
    """The untreated mean fitted by cohort and period.

    Attributes
    ----------
    coefficients: (H, T, Q) what z is multiplied by. ``known`` (H, T): whether cohort and period have a coefficient.
    cohort, period: (H,), (T,) their numbers among the parameters, -1 none; a parameter is a vector of Q.
    inverse, null: of the cross product, as :func:`~evalkit.did.within.invert` gives them.
    residual: (n,); 0 outside the fit.
    """

    coefficients: Array
    known: Mask
    cohort: Numbers
    period: Numbers
    inverse: Array
    null: Array
    residual: Array


@dataclass(frozen=True)
class _Rows:
    """The untreated rows, and how parameters of cohorts and periods meet in them: sums by cell, no design matrix."""

    z: Array
    h: Numbers
    t: Numbers
    shape: tuple[int, int]
    cohort: Numbers
    period: Numbers
    count: int

    @classmethod
    def of(cls, design: Design, used: Mask) -> _Rows:
        h, t = design.cohort[design.panel.unit[used]], design.panel.time[used]
        cohorts, periods = np.unique(h), np.unique(t)
        shape = (design.wanted.shape[0], design.wanted.shape[1])
        of_cohort, of_period = np.full(shape[0], -1), np.full(shape[1], -1)
        of_cohort[cohorts] = np.arange(len(cohorts))
        of_period[periods[1:]] = len(cohorts) + np.arange(len(periods) - 1)  # the first period is in the cohorts
        return cls(design.z[used], h, t, shape, of_cohort, of_period, len(cohorts) + len(periods) - 1)

    @property
    def known(self) -> Mask:
        """(H, T) whether cohort and period occur among the rows."""
        seen = np.isin(np.arange(self.shape[1]), self.t)
        return (self.cohort >= 0)[:, None] & seen[None, :]

    def gather(self, values: Array) -> Array:
        """(H, T) sums by cell."""
        size = self.shape[0] * self.shape[1]
        return np.asarray(np.bincount(self.h * self.shape[1] + self.t, values, size).reshape(self.shape), float)

    def spread(self, theta: Array) -> Array:
        """(H, T, Q) coefficients of cells from the parameters."""
        table = np.vstack([theta.reshape(self.count, -1), np.zeros(self.z.shape[1])])
        return np.asarray(table[self.cohort][:, None] + table[self.period][None])

    def index(self, theta: Array) -> Array:
        """Linear index of every row."""
        return np.asarray((self.spread(theta)[self.h, self.t] * self.z).sum(axis=1))

    def gradient(self, values: Array) -> Array:
        """Sum of values times regressors, by parameter."""
        sums = np.stack([self.gather(values * column) for column in self.z.T], axis=2)
        out = np.zeros((self.count, self.z.shape[1]))
        out[self.cohort[self.cohort >= 0]] = sums[self.cohort >= 0].sum(axis=1)
        out[self.period[self.period >= 0]] = sums[:, self.period >= 0].sum(axis=0)
        return out.ravel()

    def cross(self, values: Array) -> Array:
        """Cross product of the regressors, weighted by values."""
        q = self.z.shape[1]
        moments = np.empty((*self.shape, q, q))
        for a in range(q):
            for b in range(a + 1):
                moments[:, :, a, b] = moments[:, :, b, a] = self.gather(values * self.z[:, a] * self.z[:, b])
        gram = np.zeros((self.count * q, self.count * q))
        for h, t in np.argwhere(self.gather(np.ones(len(self.h))) > 0).tolist():
            numbers = np.array([n for n in (self.cohort[h], self.period[t]) if n >= 0])
            place = (numbers[:, None] * q + np.arange(q)).ravel()
            gram[np.ix_(place, place)] += np.tile(moments[h, t], (len(numbers), len(numbers)))
        return gram


def _fit(design: Design, family: Family, used: Mask) -> Untreated:
    """Newton's method with step halving on the untreated rows."""
    panel = design.panel
    rows = _Rows.of(design, used)
    outcome, weight = panel.outcome[used], panel.weight[used]
    begin = np.zeros((rows.count, rows.z.shape[1]))
    if family != "linear":
        level = float(np.average(outcome, weights=weight))
        begin[rows.cohort[rows.cohort >= 0], 0] = special.logit(level) if family == "logit" else np.log(level)
    theta = np.asarray(begin.ravel())
    start = theta[0]
    eta = rows.index(theta)
    mean = _mean(family, eta)
    loss = _loss(family, eta, mean, outcome, weight)
    scale = float(weight @ outcome) if family == "poisson" else float(weight.sum())
    for _ in range(STEPS):
        gradient = rows.gradient(weight * (outcome - mean))
        inverse, null = invert(rows.cross(weight * _slope(family, mean)))
        step = inverse @ gradient
        if family != "linear" and float(gradient @ step) <= CONVERGED * scale:
            break
        length = 1.0
        while True:
            trial = theta + length * step
            eta = rows.index(trial)
            if family != "poisson" or eta.max() < 300:
                mean = _mean(family, eta)
                found = _loss(family, eta, mean, outcome, weight)
                if found <= loss + 1e-12 * abs(loss) or length < 1e-6 or family == "linear":
                    break
            length /= 2
        theta, loss = trial, found
        if family == "linear":  # the first step is the solution
            break
    else:
        raise DesignError(Fault("did.regression_separated", {"family": family}))
    if family != "linear" and np.abs(eta - start).max() > STEEP:
        raise DesignError(Fault("did.regression_separated", {"family": family}))
    residual = np.zeros(len(panel))
    residual[used] = outcome - mean
    return Untreated(rows.spread(theta), rows.known, rows.cohort, rows.period, inverse, null, residual)
