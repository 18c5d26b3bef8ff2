"""Imputation: the untreated outcome of the treated from a model fitted to untreated observations only.

The model is y_it(0) = unit effect + period effect + covariates. It is fitted, by (weighted) least squares, to the
observations that are not treated yet; every treated observation gets its own effect, y_it less the prediction; the
effects are averaged. With errors that are neither correlated nor of unequal variance no linear unbiased estimator is
more precise.

Source: Borusyak, Jaravel and Spiess (2024), Revisiting event-study designs: robust and efficient estimation, Review of
Economic Studies 91: 3253-3285.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from evalkit.did.effects import By, Effects, Missing
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.effects import Array, Influence
from evalkit.errors import DesignError, Fault, UsageError

Recentre = Literal["cohort", "event", "all"]

SINGULAR = 1e-10
"""Eigenvalue of the scaled normal equations, the largest being about one, below which a direction is not identified."""

INSIDE = 1e-6
"""A prediction is identified when its part in the directions that are not is smaller than this share of its length."""

CONSTANT = 1e-9
"""A covariate that varies less than this within units, as a share of its spread, does not change over time."""


@dataclass(frozen=True)
class TwoWay:
    """Least squares on level (unit or cohort) and period effects and further columns, on the rows it was given.

    The level effects are taken out by exact demeaning, so that a system of one equation a period and column is left,
    whatever the number of units. Directions that the rows do not identify are kept apart (``null``).
    """

    level: Numbers
    time: Numbers
    z: Array
    weight: Array
    total: Array
    shares: sparse.csr_matrix
    z_mean: Array
    inverse: Array
    null: Array
    scale: Array

    @classmethod
    def of(cls, level: Numbers, time: Numbers, z: Array, weight: Array, levels: int, periods: int) -> TwoWay:
        """From rows (n,): level 0..levels-1, period 0..periods-1, further columns ``z`` (n, P), weights above zero."""
        total = np.bincount(level, weight, levels)
        safe = np.where(total > 0, total, 1.0)
        counts = sparse.csr_matrix((weight, (level, time)), shape=(levels, periods))
        shares = sparse.csr_matrix(sparse.diags(1.0 / safe) @ counts)
        z_mean = np.column_stack(
            [np.bincount(level, weight * c, levels) / safe for c in z.T] or [np.empty((levels, 0))]
        )
        within = z - z_mean[level]
        by_period = np.bincount(time, weight, periods)
        p = z.shape[1]
        normal = np.zeros((periods + p, periods + p))
        normal[:periods, :periods] = np.diag(by_period) - (counts.T @ shares).toarray()
        for j in range(p):
            normal[:periods, periods + j] = np.bincount(time, weight * within[:, j], periods)
        normal[periods:, :periods] = normal[:periods, periods:].T
        normal[periods:, periods:] = within.T @ (weight[:, None] * within)
        spread = weight @ (z - z.mean(axis=0)) ** 2
        size = weight.sum() * np.abs(z).max(axis=0) ** 2
        scale = np.sqrt(np.concatenate([by_period, np.where(spread > CONSTANT**2 * size, spread, size)]))
        scale[scale == 0] = 1.0
        roots, vectors = np.linalg.eigh((normal + normal.T) / 2 / np.outer(scale, scale))
        kept = roots > SINGULAR
        half = vectors[:, kept] / scale[:, None]
        return cls(
            level=level,
            time=time,
            z=within,
            weight=weight,
            total=np.asarray(total, float),
            shares=shares,
            z_mean=z_mean,
            inverse=(half / roots[kept]) @ half.T,
            null=vectors[:, ~kept],
            scale=scale,
        )

    @property
    def periods(self) -> int:
        """T."""
        return self.shares.shape[1]

    def solve(self, y: Array) -> tuple[Array, Array]:
        """Level effects, then period effects and slopes. One step of refinement takes the rounding of the normal
        equations out."""
        safe = np.where(self.total > 0, self.total, 1.0)
        mean = np.bincount(self.level, self.weight * y, len(safe)) / safe
        y = y - mean[self.level]
        beta = np.zeros(len(self.inverse))
        for _ in range(2):
            rest = self.weight * (y - self.within(beta))
            beta = beta + self.inverse @ np.concatenate([np.bincount(self.time, rest, self.periods), self.z.T @ rest])
        t = self.periods
        return mean - self.shares @ beta[:t] - self.z_mean @ beta[t:], beta

    def within(self, beta: Array) -> Array:
        """(n,) period effects and columns times ``beta``, less their mean within the level."""
        t = self.periods
        moved = np.asarray(beta[:t][self.time] - (self.shares @ beta[:t])[self.level])
        return moved + self.z @ beta[t:] if self.z.shape[1] else moved

    def identified(self, level: Numbers, time: Numbers, z: Array) -> Mask:
        """(m,) whether the model's prediction of rows is fixed by the rows that it was fitted to."""
        found = self.total[level] > 0
        if not self.null.shape[1]:
            return found
        t = self.periods
        shares = self.shares.multiply(1.0 / self.scale[:t]).tocsr()
        size = np.asarray(shares.multiply(shares).sum(axis=1)).ravel()[level] + 1.0 / self.scale[time] ** 2
        off = (self.null[:t] / self.scale[:t, None])[time] - (shares @ self.null[:t])[level]
        if z.shape[1]:
            moved = (z - self.z_mean[level]) / self.scale[t:]
            size += (moved**2).sum(axis=1)
            off += moved @ self.null[t:]
        return np.asarray(found & (np.abs(off).max(axis=1) <= INSIDE * np.sqrt(size)))

    def weights_of(self, level: Numbers, time: Numbers, z: Array, w: Array) -> Array:
        """(n,) weights v of the fitted rows' outcomes with sum w * prediction = sum v * y, for rows with weights w."""
        t, levels = self.periods, len(self.total)
        a = np.bincount(level, w, levels)
        b = np.concatenate([np.bincount(time, w, t) - self.shares.T @ a, z.T @ w - self.z_mean.T @ a])
        safe = np.where(self.total > 0, self.total, 1.0)
        return np.asarray(self.weight * ((a / safe)[self.level] + self.within(self.inverse @ b)))


def imputation(
    panel: Panel,
    *,
    by: By = "event",
    window: tuple[int, int] | None = None,
    covariates: bool = True,
    pretrend: int | None = None,
    anticipation: int = 0,
    recentre: Recentre = "cohort",
    leave_out: bool = False,
) -> Effects:
    """Average effects on the treated by imputation (Borusyak, Jaravel and Spiess 2024).

    Parameters
    ----------
    panel: may be unbalanced; sampling weights count in the fit and in the averages. In repeated cross-sections cohort
        effects take the place of unit effects.
    by: ``event``: mean effect over the treated observations e periods after the first treated one; ``group`` and
        ``calendar``: over those of a cohort or a period; ``simple``: over all.
    window: first and last event time to return (``event`` only); it changes no estimate.
    covariates: use the panel's covariates. One that changes within units enters as it is, and must not be changed by
        the treatment; one that does not enters times period dummies, so that trends may differ with it.
    pretrend: how many periods before the treatment get a coefficient (``event`` only); 0: none. Default: one less than
        the untreated periods of the cohort that has the fewest (two at least), so that every cohort has a base period.
    anticipation: periods before the first treated one in which an effect is possible. Their observations count as
        treated; their effects are returned at negative event times, and are in no sum.
    recentre: groups of treated observations whose mean effect is taken out for the standard error: of a cohort and
        period, of an event time, or all treated ones.
    leave_out: take the mean over the other clusters of the group out.

    Returns
    -------
    Effects with influence by cluster. ``overall``: the mean over all treated observations.

    Raises
    ------
    DesignError
        ``did.imputation_no_treated``; ``did.imputation_nothing_identified`` when for no treated observation both its
        unit and its period have untreated ones; ``did.imputation_alone`` when ``leave_out`` meets a group of one
        cluster.
    UsageError
        ``did.imputation_pretrend`` when no base period is left before the asked ones; ``did.imputation_window`` when no
        event time lies in the window.

    Notes
    -----
    The estimate is the sum over treated rows of w (y - y0hat), w the averaging weights; it is linear in the outcomes,
    with weight w on treated rows and -v on untreated ones. Influence of a cluster: the sum over its treated rows of
    w (tau_hat - tau_bar_g) less the sum over its untreated rows of v e, e the residual. tau_bar_g is the mean effect of
    group g with weights (sum of w in cluster and group) squared, which makes the variance the least conservative.
    Shares of cohorts are taken as given. The variance is conservative for the mean effect on these units; with groups
    of cohort and period it is asymptotically right for the population that the units of a cohort are drawn from. A
    group of one cluster adds no variance at all: with cohorts of a few clusters use ``recentre="event"``, or
    ``leave_out``.

    Coefficients at negative event times come from a second regression, on untreated observations only, of the outcome
    on dummies for the last ``pretrend`` untreated periods of the treated-to-be beside the same effects. They compare
    with the mean of all earlier periods (the latest of them, returned as 0, stands for all), whereas effects after the
    start compare with all untreated periods. All have one covariance.
    """
    if by not in ("event", "group", "calendar", "simple"):
        raise ValueError(f"imputation: by {by!r}")
    work = _prepare(panel, covariates, anticipation, recentre, leave_out)
    after = work.elapsed >= 0
    simple = _effects(work, "simple", [0], [_average(work, after)])
    if by == "simple":
        return simple
    if by == "event":
        return _events(work, window, pretrend, simple)
    key = work.cohort if by == "group" else panel.period[work.rows]
    at = np.unique(key[after]).tolist()
    return _effects(work, by, at, [_average(work, after & (key == a)) for a in at], overall=simple)


@dataclass(frozen=True)
class _Work:
    """What all averages share; arrays over the m treated rows ``rows``, u untreated rows ``untreated``."""

    panel: Panel
    start: Numbers
    untreated: Numbers
    rows: Numbers
    fit: TwoWay
    level: Numbers
    z: Array
    residual: Array
    effect: Array
    found: Mask
    elapsed: Numbers
    cohort: Numbers
    group: Numbers
    pair: Numbers
    leave_out: bool
    anticipation: int
    missing: tuple[Missing, ...]
    se_kind: str

    def cluster(self, rows: Numbers) -> Numbers:
        """The cluster of rows of the panel."""
        return self.panel.cluster[self.panel.unit[rows]]


def _prepare(panel: Panel, covariates: bool, anticipation: int, recentre: Recentre, leave_out: bool) -> _Work:
    first = panel.first[panel.unit]
    never = first >= NEVER
    start = np.where(never, NEVER, first - anticipation)
    treated = panel.period >= start
    if not (treated & (panel.period >= first)).any():
        raise DesignError(Fault("did.imputation_no_treated", {}))
    untreated, rows = np.flatnonzero(~treated), np.flatnonzero(treated)
    if not len(untreated):
        raise DesignError(Fault("did.imputation_nothing_identified", {"rows": len(rows)}))
    level = np.unique(panel.first, return_inverse=True)[1][panel.unit] if panel.repeated else panel.unit
    levels = int(level.max()) + 1
    z = _columns(panel, level, levels) if covariates and panel.x.shape[1] else np.empty((len(panel), 0))
    fit = TwoWay.of(
        level[untreated], panel.time[untreated], z[untreated], panel.weight[untreated], levels, len(panel.periods)
    )
    found = fit.identified(level[rows], panel.time[rows], z[rows])
    if not (found & (panel.period[rows] >= first[rows])).any():
        raise DesignError(Fault("did.imputation_nothing_identified", {"rows": len(rows)}))
    alpha, beta = fit.solve(panel.outcome[untreated])
    t = len(panel.periods)
    guess = alpha[level] + beta[:t][panel.time] + z @ beta[t:]
    elapsed = panel.period[rows] - first[rows]
    if recentre == "cohort":
        code = (first[rows] - panel.periods[0]) * (len(panel.periods) + 1) + panel.time[rows]
    else:
        code = elapsed if recentre == "event" else np.zeros(len(rows), np.int64)
    group = np.unique(code, return_inverse=True)[1]
    clusters = panel.cluster[panel.unit[rows]]
    pair = np.unique(group * len(panel.cluster_ids) + clusters, return_inverse=True)[1]
    name = {"cohort": "cohort and period", "event": "event time", "all": "nothing"}[recentre]
    kind = f"imputation, effects recentred by {name}{', leave-out' if leave_out else ''}, clustered on {panel.level}"
    return _Work(
        panel, start, untreated, rows, fit, level, z, panel.outcome[untreated] - guess[untreated],
        panel.outcome[rows] - guess[rows], found, elapsed, first[rows], group, pair, leave_out, anticipation,
        _missing(panel, rows, first[rows], found), kind,
    )  # fmt: skip


def _columns(panel: Panel, level: Numbers, levels: int) -> Array:
    """Covariates of the model: those that do not change within units times period dummies, if rows are not units."""
    parts = []
    for column in panel.x.T:
        column = column - column.mean()
        count = np.bincount(level, minlength=levels)
        mean = np.bincount(level, column, levels) / np.maximum(count, 1)
        if panel.repeated or np.abs(column - mean[level]).max() > CONSTANT * max(float(np.abs(column).max()), 1e-300):
            parts.append(column[:, None])
        else:
            dummies = np.zeros((len(panel), len(panel.periods)))
            dummies[np.arange(len(panel)), panel.time] = column
            parts.append(dummies)
    return np.concatenate(parts, axis=1)


def _missing(panel: Panel, rows: Numbers, cohort: Numbers, found: Mask) -> tuple[Missing, ...]:
    """Cells of which all, or some, treated observations have no untreated outcome to compare with."""
    period = panel.period[rows]
    cells, code = np.unique(np.column_stack([cohort, period]), axis=0, return_inverse=True)
    seen, have = (np.bincount(code.ravel(), w, len(cells)) for w in (np.ones(len(rows)), found))
    return tuple(
        Missing(int(g), int(t), "imputation_none" if have[i] == 0 else "imputation_partly")
        for i, (g, t) in enumerate(cells.tolist())
        if have[i] < seen[i]
    )


@dataclass(frozen=True)
class _Cell:
    """One number of the answer, with its influence by cluster (G,)."""

    estimate: float
    counterfactual: float
    n_treated: int
    n_comparison: int
    influence: Array


def _effects(
    work: _Work, by: By, at: list[int], cells: list[_Cell], base: tuple[int, ...] = (), overall: Effects | None = None
) -> Effects:
    panel = work.panel
    return Effects(
        by=by,
        at=np.array(at, np.int64),
        estimate=np.array([cell.estimate for cell in cells]),
        counterfactual=np.array([cell.counterfactual for cell in cells]),
        n_treated=np.array([cell.n_treated for cell in cells], np.int64),
        n_comparison=np.array([cell.n_comparison for cell in cells], np.int64),
        uncertainty=Influence(panel.cluster_ids, np.column_stack([cell.influence for cell in cells]), panel.level),
        base=base,
        se_kind=work.se_kind,
        overall=overall,
        missing=work.missing,
    )


def _summed(code: Numbers, values: Array, size: int = 0) -> Array:
    """Sums of values by code."""
    return np.bincount(code, values, size).astype(float)


def _average(work: _Work, mask: Mask) -> _Cell:
    """Weighted mean of the effects over some treated rows, as far as they are identified."""
    panel, clusters = work.panel, len(work.panel.cluster_ids)
    chosen = np.flatnonzero(mask & work.found)
    if not len(chosen):
        return _Cell(np.nan, np.nan, 0, 0, np.zeros(clusters))
    rows = work.rows[chosen]
    w = panel.weight[rows] / panel.weight[rows].sum()
    effect = work.effect[chosen]
    v = work.fit.weights_of(work.level[rows], panel.time[rows], work.z[rows], w)
    of_untreated = _summed(work.cluster(work.untreated), v * work.residual, clusters)
    estimate = float(w @ effect)
    return _Cell(
        estimate,
        float(w @ panel.outcome[rows]) - estimate,
        len(np.unique(panel.unit[rows])),
        _units_at(panel, work.untreated, np.unique(panel.time[rows])),
        _recentred(work, chosen, w, effect) - of_untreated,
    )


def _units_at(panel: Panel, untreated: Numbers, times: Numbers) -> int:
    """Distinct units that are seen untreated in some of the periods."""
    wanted = np.zeros(len(panel.periods), bool)
    wanted[times] = True
    seen = np.zeros(panel.units, bool)
    seen[panel.unit[untreated[wanted[panel.time[untreated]]]]] = True
    return int(seen.sum())


def _recentred(work: _Work, chosen: Numbers, w: Array, effect: Array) -> Array:
    """(G,) sum over a cluster's treated rows of w (effect - mean effect of the group), by group and cluster first."""
    _, start, pair = np.unique(work.pair[chosen], return_index=True, return_inverse=True)
    group = np.unique(work.group[chosen][start], return_inverse=True)[1]
    cluster = work.cluster(work.rows[chosen])[start]
    weight, product = _summed(pair, w), _summed(pair, w * effect)
    square, cross = _summed(group, weight**2)[group], _summed(group, weight * product)[group]
    if work.leave_out:
        alone = int((np.bincount(group) == 1).sum())
        if alone:
            raise DesignError(Fault("did.imputation_alone", {"groups": alone, "level": work.panel.level}))
        square, cross = square - weight**2, cross - weight * product
    return _summed(cluster, product - weight * cross / square, len(work.panel.cluster_ids))


def _events(work: _Work, window: tuple[int, int] | None, pretrend: int | None, simple: Effects) -> Effects:
    """Coefficients before the treatment, then effects from it (or from anticipation) on."""
    base, before = _pretrend(work, pretrend)
    low, high = (-NEVER, NEVER) if window is None else window
    after = [int(e) for e in np.unique(work.elapsed) if low <= e <= high]
    early = [e for e in before if low <= e <= high]
    if not after and not early:
        raise UsageError(Fault("did.imputation_window", {}))
    cells = [before[e] for e in early] + [_average(work, work.elapsed == e) for e in after]
    return _effects(work, "event", early + after, cells, tuple(e for e in base if e in early), simple)


def _pretrend(work: _Work, asked: int | None) -> tuple[tuple[int, ...], dict[int, _Cell]]:
    """The base event time and cells by event time: of the base (zero), and of the last untreated periods."""
    panel, rows = work.panel, work.untreated
    first = panel.first[panel.unit[rows]]
    elapsed = np.where(first < NEVER, panel.period[rows] - first, NEVER)  # NEVER: no event time
    known = np.unique(elapsed[elapsed < 0])
    if asked is None:
        asked = _default_leads(work, first, elapsed)
    else:
        most = max(int(-known[0]) - work.anticipation - 1, 0) if len(known) else 0
        if not 0 <= asked <= most:
            raise UsageError(Fault("did.imputation_pretrend", {"asked": asked, "most": most}))
    if asked == 0:
        return (), {}
    base = int(known[known < -work.anticipation - asked][-1])
    leads = known[known >= -work.anticipation - asked]
    z = np.concatenate([work.z[rows], (elapsed[:, None] == leads).astype(float)], axis=1)
    level, t = work.level[rows], len(panel.periods)
    fit = TwoWay.of(level, panel.time[rows], z, panel.weight[rows], len(work.fit.total), t)
    alpha, beta = fit.solve(panel.outcome[rows])
    residual = panel.outcome[rows] - alpha[level] - beta[:t][panel.time[rows]] - z @ beta[t:]
    cells, clusters = {}, len(panel.cluster_ids)
    for event in [base, *leads.tolist()]:
        here = elapsed == event
        weight = panel.weight[rows[here]]
        mean = float(weight @ panel.outcome[rows[here]] / weight.sum())
        place = t + work.z.shape[1] + int(np.searchsorted(leads, event))
        estimate, influence = 0.0, np.zeros(clusters)
        if event != base:
            fixed = float(np.abs(fit.null[place]).max(initial=0.0)) <= INSIDE
            estimate = float(beta[place]) if fixed else np.nan
            if fixed:
                score = fit.weight * fit.within(fit.inverse[place]) * residual
                influence = _summed(work.cluster(rows), score, clusters)
        units = len(np.unique(panel.unit[rows[here]]))
        others = _units_at(panel, rows[~here], np.unique(panel.time[rows[here]]))
        cells[event] = _Cell(estimate, mean - estimate, units, others, influence)
    return (base,), cells


def _default_leads(work: _Work, first: Numbers, elapsed: Numbers) -> int:
    """One less than the untreated periods of the cohort with the fewest, of those with two at least."""
    found = []
    for cohort in work.panel.cohorts.tolist():
        own = np.unique(elapsed[first == cohort])
        if len(own) > 1:
            found.append(int(-own[0]) - work.anticipation - 1)
    return min(found, default=0)
