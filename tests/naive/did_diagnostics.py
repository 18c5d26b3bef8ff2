"""Diagnostics of difference-in-differences written out: regressions with dummies, comparisons and cells in loops."""

from math import sqrt

import numpy as np
from scipy import optimize


def dummies(codes):
    return np.array([[float(c == k) for k in sorted(set(codes))] for c in codes])


def two_way(y, d, unit, time, weight=None, x=None):
    """Coefficients of d (columns) in a regression with unit and period dummies."""
    root = np.sqrt(np.ones(len(y)) if weight is None else weight)
    parts = [np.asarray(d, float).reshape(len(y), -1), dummies(unit), dummies(time)]
    if x is not None:
        parts.append(x)
    design = np.hstack(parts)
    count = parts[0].shape[1]
    return np.linalg.lstsq(design * root[:, None], np.asarray(y) * root, rcond=None)[0][:count]


def bacon(y, first, periods, never):
    """{(treated, versus, kind): (weight, estimate)} of a balanced panel, y[i][t]; Goodman-Bacon's theorem 1."""
    n, out, total = len(first), {}, 0.0
    cohorts = sorted(set(first))
    for k in cohorts:
        for later in cohorts:
            if later <= k or (k <= periods[0] and later == never):
                continue
            pair = [i for i in range(n) if first[i] in (k, later)]
            nk, nl = (sum(f == c for f in first) / n for c in (k, later))
            share = nk / (nk + nl)
            dk, dl = (sum(t >= c for t in periods) / len(periods) for c in (k, later))
            before = [t for t in periods if t < later]
            after = [t for t in periods if t >= k]
            if k > periods[0]:
                part = len(before) / len(periods)
                inner = (dk - dl) / (1 - dl)
                weight = ((nk + nl) * part) ** 2 * share * (1 - share) * inner * (1 - inner)
                kind = "treated_vs_never" if later == never else "earlier_vs_later"
                out[k, later, kind] = (weight, regress(y, pair, before, periods, first, k))
                total += weight
            if later != never:
                inner = dl / dk
                weight = ((nk + nl) * dk) ** 2 * share * (1 - share) * inner * (1 - inner)
                kind = "later_vs_always" if k <= periods[0] else "later_vs_earlier"
                out[later, k, kind] = (weight, regress(y, pair, after, periods, first, later))
                total += weight
    return {key: (weight / total, estimate) for key, (weight, estimate) in out.items()}


def regress(y, pair, times, periods, first, treated):
    """The two-way regression on two groups and some periods, ``treated`` the one whose treatment changes."""
    rows = [(i, t) for i in pair for t in times]
    values = [y[i][list(periods).index(t)] for i, t in rows]
    d = [float(first[i] == treated and t >= treated) for i, t in rows]
    return float(two_way(values, d, [i for i, _ in rows], [t for _, t in rows])[0])


def cell_weights(d, unit, time, cohort, period, weight, x=None):
    """{(cohort, period): (share, weight)} of treated cells in the two-way coefficient."""
    others = [dummies(unit), dummies(time)] + ([] if x is None else [x])
    root = np.sqrt(weight)[:, None]
    design = np.hstack(others)
    e = d - design @ np.linalg.lstsq(design * root, d * root[:, 0], rcond=None)[0]
    n1 = sum(w for w, treated in zip(weight, d, strict=True) if treated)
    score = sum(w * r for w, r, treated in zip(weight, e, d, strict=True) if treated)
    found = {}
    for key in sorted({(g, t) for g, t, treated in zip(cohort, period, d, strict=True) if treated}):
        rows = [i for i in range(len(d)) if d[i] and (cohort[i], period[i]) == key]
        amount = sum(weight[i] for i in rows)
        found[key] = (amount / n1, (sum(weight[i] * e[i] for i in rows) / amount) / (score / n1))
    return found


def least_sd(share, weight, estimate, opposite):
    """Smallest standard deviation of effects that give the estimate, with mean zero or all of the opposite sign."""
    share, weight = np.asarray(share), np.asarray(weight)
    rules = [{"type": "eq", "fun": lambda v: share @ (weight * v) - estimate}]
    if not opposite:
        rules.append({"type": "eq", "fun": lambda v: share @ v})
    side = (None, 0.0) if estimate > 0 else (0.0, None)
    best = np.inf
    for seed in range(5):
        start = np.random.default_rng(seed).normal(size=len(share)) * abs(estimate)
        found = optimize.minimize(
            lambda v: (share @ (v - share @ v) ** 2) / estimate**2, start, constraints=rules, method="SLSQP",
            bounds=[side] * len(share) if opposite else None, options={"maxiter": 2000, "ftol": 1e-16},
        )  # fmt: skip
        if found.success:
            best = min(best, sqrt(max(found.fun, 0.0)) * abs(estimate))
    return best


def dr_effect(change, treated, x):
    """Doubly robust effect on the treated with logit and least squares, by general-purpose optimisation."""
    treated = np.asarray(treated, bool)
    design = np.column_stack([np.ones(len(change)), x])

    def loss(theta):
        eta = design @ theta
        return np.logaddexp(0, eta).sum() - eta[treated].sum()

    def slope(theta):
        return design.T @ (1 / (1 + np.exp(-(design @ theta))) - treated)

    theta = optimize.minimize(loss, np.zeros(design.shape[1]), jac=slope, method="BFGS", options={"gtol": 1e-10}).x
    beta = np.linalg.lstsq(design[~treated], change[~treated], rcond=None)[0]
    rest = change - design @ beta
    odds = np.exp(design @ theta)[~treated]
    return rest[treated].mean() - (odds @ rest[~treated]) / odds.sum()


def triple_means(y, first, eligible, periods, g, t, base, comparison):
    """Difference of two differences-in-differences of means, y[i][t]."""
    change = [row[periods.index(t)] - row[periods.index(base)] for row in y]

    def mean(cohort, reached):
        members = [c for c, f, q in zip(change, first, eligible, strict=True) if f == cohort and bool(q) == reached]
        return sum(members) / len(members)

    return (mean(g, True) - mean(g, False)) - (mean(comparison, True) - mean(comparison, False))
