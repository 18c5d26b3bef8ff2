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

from evalkit.did.absorb import CONSTANT, TwoWay, levels_of
from evalkit.did.effects import By, Effects, Missing
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.effects import Array, Influence
from evalkit.errors import DesignError, Fault, UsageError

Recentre = Literal["cohort", "event", "all"]


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
    Effects with influence by cluster. ``overall``: the mean over all treated observations. ``missing``: cells of which
    no treated observation has an untreated outcome to compare with (``imputation_none``: left out of every average), or
    only some have (``imputation_partly``: the others are left out, and the estimate is that of those).

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
    level = levels_of(panel)
    z = _columns(panel, level) if covariates and panel.x.shape[1] else np.empty((len(panel), 0))
    fit = TwoWay.of(panel, untreated, z[untreated])
    found = fit.identified(level[rows], panel.time[rows], z[rows])
    if not (found & (panel.period[rows] >= first[rows])).any():
        raise DesignError(Fault("did.imputation_nothing_identified", {"rows": len(rows)}))
    fitted = fit.solve(panel.outcome[untreated])
    effect = panel.outcome[rows] - (
        fitted.level[level[rows]] + fitted.period[panel.time[rows]] + z[rows] @ fitted.slope
    )
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
        panel, start, untreated, rows, fit, level, z, fitted.residual, effect, found, elapsed, first[rows], group,
        pair, leave_out, anticipation, _missing(panel, rows, first[rows], found), kind,
    )  # fmt: skip


def _columns(panel: Panel, level: Numbers) -> Array:
    """Covariates of the model: those that do not change within units times period dummies, if rows are not units."""
    parts = []
    count = np.maximum(np.bincount(level), 1)
    for column in panel.x.T:
        column = column - column.mean()
        mean = np.bincount(level, column) / count
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
    fit = TwoWay.of(panel, rows, z)
    fitted, told = fit.solve(panel.outcome[rows]), fit.slopes_identified
    cells, clusters = {}, len(panel.cluster_ids)
    for event in [base, *leads.tolist()]:
        here = elapsed == event
        weight = panel.weight[rows[here]]
        mean = float(weight @ panel.outcome[rows[here]] / weight.sum())
        estimate, influence = 0.0, np.zeros(clusters)
        if event != base:
            place = work.z.shape[1] + int(np.searchsorted(leads, event))
            estimate = float(fitted.slope[place]) if told[place] else np.nan
            if told[place]:
                score = fit.weights_of_slope(place) * fitted.residual
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
