"""Regression-based difference-in-differences with explicit dummies and plain loops."""

from __future__ import annotations

import numpy as np
import statsmodels.api as sm

NEVER = 2**40


def least_squares(design, outcome, weight, cluster):
    """Coefficients, covariance summed over clusters by loops (no factor), and influence by cluster."""
    root = np.sqrt(weight)
    theta = np.linalg.lstsq(design * root[:, None], outcome * root, rcond=1e-12)[0]
    bread = np.linalg.pinv((design * weight[:, None]).T @ design, rcond=1e-12, hermitian=True)
    residual = outcome - design @ theta
    influence = {}
    for row in range(len(outcome)):
        term = bread @ (design[row] * weight[row] * residual[row])
        influence[cluster[row]] = influence.get(cluster[row], 0.0) + term
    rows = np.array([influence[c] for c in sorted(influence)])
    return theta, rows.T @ rows, rows


def dummies(codes):
    return (np.asarray(codes)[:, None] == np.unique(codes)[None, :]).astype(float)


def effects_of(panel):
    """Dummies of units (cohorts in repeated cross-sections) and periods."""
    unit = panel.first[panel.unit] if panel.repeated else panel.unit
    return np.column_stack([dummies(unit), dummies(panel.time)])


def regression(panel, columns, x=None):
    """Coefficients and influence by cluster of some columns (n, C) next to effects and covariates."""
    x = panel.x if x is None else x
    design = np.column_stack([columns, effects_of(panel), x])
    theta, _, influence = least_squares(design, panel.outcome, panel.weight, panel.cluster[panel.unit])
    return theta[: columns.shape[1]], influence[:, : columns.shape[1]]


def event_columns(panel, at, window=None):
    columns = np.zeros((len(panel), len(at)))
    for row in range(len(panel)):
        first = panel.first[panel.unit[row]]
        if first == NEVER:
            continue
        event = panel.period[row] - first
        if window is not None:
            event = min(max(event, window[0]), window[1])
        for k, e in enumerate(at):
            columns[row, k] = event == e
    return columns


def cell_columns(panel, group, time):
    columns = np.zeros((len(panel), len(group)))
    for row in range(len(panel)):
        for c in range(len(group)):
            columns[row, c] = panel.first[panel.unit[row]] == group[c] and panel.period[row] == time[c]
    return columns


def extended_linear(panel, group, time):
    """Cells, and covariates centred at the mean of the cell, multiplied by period and cell: estimates, influence."""
    cells = cell_columns(panel, group, time)
    columns, slopes = [], []
    for c in range(len(group)):
        inside = cells[:, c] == 1
        mean = np.average(panel.x[inside], axis=0, weights=panel.weight[inside])
        columns.append(cells[:, c])
        slopes.append(cells[:, c, None] * (panel.x - mean))
    periods = dummies(panel.time)
    by_period = np.column_stack([periods * panel.x[:, p, None] for p in range(panel.x.shape[1])])
    design = np.column_stack([*columns, *slopes, effects_of(panel), by_period])
    theta, _, influence = least_squares(design, panel.outcome, panel.weight, panel.cluster[panel.unit])
    count, p = len(group), panel.x.shape[1]
    influence = influence[:, :count].copy()
    for c in range(count):
        inside = np.flatnonzero(cells[:, c])
        slope = theta[count + c * p : count + c * p + p]
        for row in inside:  # the mean of the covariates is that of a sample
            gap = slopes[c][row] @ slope
            influence[panel.cluster[panel.unit[row]], c] += panel.weight[row] * gap / panel.weight[inside].sum()
    return theta[:count], influence


def extended_pooled(panel, group, time, family):
    """The pooled quasi-likelihood on all rows with explicit interactions, average partial effects, delta method."""
    x = panel.x
    cells = cell_columns(panel, group, time)
    cohort, period = dummies(panel.first[panel.unit]), dummies(panel.time)[:, 1:]
    plain = [cohort, period]
    for p in range(x.shape[1]):
        plain += [cohort * x[:, p, None], period * x[:, p, None]]
    treated = [cells] + [cells * x[:, p, None] for p in range(x.shape[1])]
    design = np.column_stack(plain + treated)
    without = np.column_stack(plain + [np.zeros_like(t) for t in treated])
    kind = {"logit": sm.families.Binomial(), "poisson": sm.families.Poisson(), "linear": sm.families.Gaussian()}[family]
    fit = sm.GLM(panel.outcome, design, family=kind, var_weights=panel.weight).fit(tol=1e-14, maxiter=200)
    theta = fit.params
    link = kind.link
    mean, untreated = link.inverse(design @ theta), link.inverse(without @ theta)
    slope, slope0 = link.inverse_deriv(design @ theta), link.inverse_deriv(without @ theta)
    bread = np.linalg.inv((design * (panel.weight * slope)[:, None]).T @ design)
    estimate = np.empty(len(group))
    influence = np.zeros((panel.units, len(group)))
    for c in range(len(group)):
        inside = cells[:, c] == 1
        share = panel.weight * inside / panel.weight[inside].sum()
        gap = mean - untreated
        estimate[c] = share @ gap
        jacobian = share @ (slope[:, None] * design - slope0[:, None] * without)
        for row in range(len(panel)):
            score = panel.weight[row] * (panel.outcome[row] - mean[row]) * design[row]
            influence[panel.unit[row], c] += jacobian @ bread @ score + share[row] * (gap[row] - estimate[c])
    return estimate, influence


def stacked(panel, before, after, control, weighting):
    """The stacked rows, with unit-by-stack and period-by-stack dummies; influence by unit, weights known."""
    rows, stacks = [], []
    events = list(range(-before, after + 1))
    for first in sorted(set(panel.first.tolist()) - {NEVER}):
        if first - before < panel.periods[0] or first + after > panel.periods[-1]:
            continue
        chosen = []
        for unit in range(panel.units):
            own = panel.first[unit] == first
            clean = panel.first[unit] == NEVER if control == "never" else panel.first[unit] > first + after
            mine = [
                r for r in range(len(panel)) if panel.unit[r] == unit and -before <= panel.period[r] - first <= after
            ]
            if (own or clean) and len(mine) == len(events):
                chosen += [(r, own) for r in mine]
        if {own for _, own in chosen} == {True, False}:
            rows += chosen
            stacks += [first] * len(chosen)
    row = np.array([r for r, _ in rows])
    treated = np.array([own for _, own in rows])
    stacks = np.array(stacks)
    unit, event = panel.unit[row], panel.period[row] - stacks
    weight = np.array([panel.weight[panel.unit == u].mean() for u in range(panel.units)])[unit]
    if weighting == "corrective":
        one = event == 0
        all_treated = weight[one & treated].sum()
        all_control = weight[one & ~treated].sum()
        for a in np.unique(stacks):
            share = weight[one & treated & (stacks == a)].sum() / all_treated
            of_controls = weight[one & ~treated & (stacks == a)].sum() / all_control
            weight = np.where(~treated & (stacks == a), weight * share / of_controls, weight)
    free = [e for e in events if e != -1]
    columns = np.column_stack([(treated & (event == e)).astype(float) for e in free])
    by_unit, by_event = dummies(stacks * 10_000 + unit), dummies(stacks * 10_000 + event + 500)
    design = np.column_stack([columns, by_unit, by_event])
    theta, _, influence = least_squares(design, panel.outcome[row], weight, unit)
    return free, theta[: len(free)], np.unique(unit), influence[:, : len(free)]
