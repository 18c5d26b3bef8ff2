"""Group-time effects in plain loops: one cell at a time, one unit at a time, formulas as printed in the papers."""

from __future__ import annotations

import math

import numpy as np

NEVER = 10**9


def regression(rows, outcome, weight):
    """Coefficients of a weighted regression and the inverse of its cross products."""
    gram = sum(weight(r) * np.outer(r["x"], r["x"]) for r in rows)
    cross = sum(weight(r) * r["x"] * outcome(r) for r in rows)
    bread = np.linalg.inv(gram)
    return bread @ cross, bread


def chance(z):
    return 1 / (1 + math.exp(-z))


def logit(rows, as_glm=False):
    """Coefficients and inverse information of the logit of D.

    ``as_glm``: as R's glm does: iteratively reweighted least squares from (w D + 1/2) / (w + 1), until the deviance
    changes by less than 1e-8 of itself; the information is that of the step before the last update.
    """
    if not as_glm:
        theta = np.zeros(len(rows[0]["x"]))
        for _ in range(30):
            slope = sum(r["w"] * (r["d"] - chance(theta @ r["x"])) * r["x"] for r in rows)
            info = information(rows, theta)
            theta = theta + np.linalg.solve(info, slope)
        return theta, np.linalg.inv(information(rows, theta))
    mu = [(r["w"] * r["d"] + 0.5) / (r["w"] + 1) for r in rows]
    before = math.inf
    while True:
        eta = [math.log(m / (1 - m)) for m in mu]
        v = [r["w"] * m * (1 - m) for r, m in zip(rows, mu, strict=True)]
        z = [e + (r["d"] - m) / (m * (1 - m)) for e, r, m in zip(eta, rows, mu, strict=True)]
        gram = sum(a * np.outer(r["x"], r["x"]) for a, r in zip(v, rows, strict=True))
        theta = np.linalg.solve(gram, sum(a * b * r["x"] for a, b, r in zip(v, z, rows, strict=True)))
        mu = [chance(theta @ r["x"]) for r in rows]
        deviance = -2 * sum(r["w"] * math.log(m if r["d"] else 1 - m) for r, m in zip(rows, mu, strict=True))
        if abs(deviance - before) / (abs(deviance) + 0.1) < 1e-8:
            return theta, np.linalg.inv(gram)
        before = deviance


def information(rows, theta):
    total = 0.0
    for r in rows:
        p = chance(theta @ r["x"])
        total = total + r["w"] * p * (1 - p) * np.outer(r["x"], r["x"])
    return total


def tilting(rows):
    """g with sum_D w x = sum_C w exp(x'g) x."""
    theta = np.zeros(len(rows[0]["x"]))
    theta[0] = math.log(sum(r["w"] for r in rows if r["d"]) / sum(r["w"] for r in rows if not r["d"]))
    for _ in range(200):
        gap = sum((r["w"] if r["d"] else -r["w"] * math.exp(theta @ r["x"])) * r["x"] for r in rows)
        curve = sum(r["w"] * math.exp(theta @ r["x"]) * np.outer(r["x"], r["x"]) for r in rows if not r["d"])
        step = np.linalg.solve(curve, gap)
        theta = theta + step * min(1.0, 1.0 / max(abs(step)))
    return theta


def mean(rows, value, weight):
    return sum(weight(r) * value(r) for r in rows) / sum(weight(r) for r in rows)


def panel_cell(rows, method, as_glm=False):
    """Effect and influence by row (a list) from rows of d, dy, w, x (with the one)."""
    one = [r for r in rows if r["d"]]
    two = [r for r in rows if not r["d"]]
    p = len(rows[0]["x"])
    zero = np.zeros(p)
    theta = inverse = None
    if method in ("dr", "ipw"):
        theta, inverse = logit(rows, as_glm)
    if method == "dr_improved":
        theta = tilting(rows)

    def odds(r):
        return r["w"] * (1.0 if theta is None else math.exp(theta @ r["x"]))

    beta, bread = zero, None
    if method in ("dr", "reg"):
        beta, bread = regression(two, lambda r: r["dy"], lambda r: r["w"])
    if method == "dr_improved":
        beta, bread = regression(two, lambda r: r["dy"], odds)

    def left(r):
        return r["dy"] - beta @ r["x"]

    w1 = sum(r["w"] for r in one)
    eta1 = mean(one, left, lambda r: r["w"])
    m1 = sum(r["w"] * r["x"] for r in one) / w1
    if method == "reg":
        eta0 = 0.0
    else:
        w0 = sum(odds(r) for r in two)
        eta0 = mean(two, left, odds)
        m2 = sum(odds(r) * (left(r) - eta0) * r["x"] for r in two) / w0
        m3 = sum(odds(r) * r["x"] for r in two) / w0
    influence = []
    for r in rows:
        psi = 0.0
        if r["d"]:
            psi += r["w"] * (left(r) - eta1) / w1
        elif method != "reg":
            psi -= odds(r) * (left(r) - eta0) / w0
        if method in ("dr", "reg") and not r["d"]:
            of_beta = bread @ r["x"] * r["w"] * left(r)
            psi -= of_beta @ (m1 - (m3 if method == "dr" else zero))
        if method in ("dr", "ipw"):
            psi -= (inverse @ r["x"] * r["w"] * (r["d"] - chance(theta @ r["x"]))) @ m2
        influence.append(psi)
    return eta1 - eta0, influence


def section_cell(rows, method):
    """Effect from rows of d, post, y, w, x, and the influence by row of ``dr_improved`` with its models taken as known.

    For the other methods the influence is None: tests take the derivative to the weights instead.
    """

    def of(d, post):
        return [r for r in rows if r["d"] == d and r["post"] == post]

    def plain(r):
        return r["w"]

    def y(r):
        return r["y"]

    treated = of(1, 0) + of(1, 1)
    if method == "means":
        return sum((2 * d - 1) * (2 * post - 1) * mean(of(d, post), y, plain) for d in (0, 1) for post in (0, 1)), None
    if method == "reg":
        after, before = (regression(of(0, post), y, plain)[0] for post in (1, 0))
        rest = mean(treated, lambda r: (after - before) @ r["x"], plain)
        return mean(of(1, 1), y, plain) - mean(of(1, 0), y, plain) - rest, None
    theta = tilting(rows) if method == "dr_improved" else logit(rows)[0]

    def odds(r):
        return r["w"] * (1.0 if r["d"] else math.exp(theta @ r["x"]))

    beta = {(d, post): np.zeros(len(rows[0]["x"])) for d in (0, 1) for post in (0, 1)}
    if method != "ipw":
        for d, post in beta:
            tilted = odds if method == "dr_improved" and not d else plain
            beta[d, post] = regression(of(d, post), y, tilted)[0]
    total, influence = 0.0, [0.0] * len(rows)

    def add(sign, among, value, weight):
        nonlocal total
        chosen = [r for r in rows if among(r)]
        average, size = mean(chosen, value, weight), sum(weight(r) for r in chosen)
        total += sign * average
        for i, r in enumerate(rows):
            if among(r):
                influence[i] += sign * weight(r) * (value(r) - average) / size

    for post, sign in ((1, 1.0), (0, -1.0)):

        def left(r, post=post):
            return r["y"] - beta[0, post] @ r["x"]

        def gain(r, post=post):
            return (beta[1, post] - beta[0, post]) @ r["x"]

        add(sign, lambda r, p=post: r["d"] and r["post"] == p, left, plain)
        add(-sign, lambda r, p=post: not r["d"] and r["post"] == p, left, odds)
        if method != "ipw":
            add(sign, lambda r: r["d"], gain, plain)
            add(-sign, lambda r, p=post: r["d"] and r["post"] == p, gain, plain)
    return total, influence if method == "dr_improved" else None


def design(periods, cohorts, base, anticipation):
    """Cells (g, t, base period)."""
    found = []
    for g in cohorts:
        anchor = max(t for t in periods if t < g - anticipation)
        for i, t in enumerate(periods):
            if base == "universal" or t >= g - anticipation:
                found.append((g, t, anchor))
            elif i > 0:
                found.append((g, t, periods[i - 1]))
    return found


def compared(first, g, t, b, control, anticipation):
    if control == "never":
        return first == NEVER
    return first != g and first > max(t, b) + anticipation


def cells(data, *, control, method, base, anticipation=0, policy="complete", as_glm=False):
    """{(g, t): (effect, influence by unit or None, treated units, comparison units)}; None where there is no unit.

    ``data``: {unit: (first, {period: (y, w, x)})}; first NEVER for never.
    """
    periods = sorted({t for _, seen in data.values() for t in seen})
    data = {u: v for u, v in data.items() if v[0] > periods[0] + anticipation}
    if policy == "complete":
        data = {u: v for u, v in data.items() if len(v[1]) == len(periods)}
    cohorts = sorted({first for first, _ in data.values() if first < NEVER})
    found = {}
    for g, t, b in design(periods, cohorts, base, anticipation):
        rows = []
        for unit, (first, seen) in data.items():
            d = int(first == g)
            if not d and not compared(first, g, t, b, control, anticipation):
                continue
            if policy == "sections":
                for when in {t, b}:
                    if when in seen:
                        y, w, x = seen[when]
                        x = np.array([1.0, *x])
                        rows.append({"unit": unit, "d": d, "post": int(when == t), "y": y, "w": w, "x": x})
            elif t in seen and b in seen:
                _, w, x = seen[min(t, b)]
                dy = seen[t][0] - seen[b][0]
                rows.append({"unit": unit, "d": d, "dy": dy, "w": w, "x": np.array([1.0, *x])})
        n = [len({r["unit"] for r in rows if r["d"] == d}) for d in (1, 0)]
        if t == b:
            found[g, t] = (0.0, {}, *n)
        elif policy == "sections":
            if len({(r["d"], r["post"]) for r in rows}) < 4:
                found[g, t] = None
                continue
            found[g, t] = (section_cell(rows, method)[0], None, *n)
        elif 0 in n:
            found[g, t] = None
        else:
            effect, influence = panel_cell(rows, method, as_glm)
            by_unit = {r["unit"]: psi for r, psi in zip(rows, influence, strict=True)}
            found[g, t] = (effect, by_unit, *n)
    return found


def aggregate(found, share, by, balance=None, last=None, first=None):
    """{at: effect} and the overall effect; ``found`` {(g, t): effect}, ``share`` {g: weight of the cohort}."""

    def average(keys):
        return sum(share[k[0]] * found[k] for k in keys) / sum(share[k[0]] for k in keys)

    after = [k for k in found if k[1] >= k[0]]
    if by == "simple":
        return {0: average(after)}, None
    if by == "calendar":
        out = {t: average([k for k in after if k[1] == t]) for t in sorted({k[1] for k in after})}
        return out, sum(out.values()) / len(out)
    if by == "group":
        out = {}
        for g in sorted({k[0] for k in after}):
            mine = [found[k] for k in after if k[0] == g]
            out[g] = sum(mine) / len(mine)
        return out, sum(share[g] * out[g] for g in out) / sum(share[g] for g in out)
    keys = list(found)
    if balance is not None:
        keys = [k for k in keys if last - k[0] >= balance and balance - last + first <= k[1] - k[0] <= balance]
    out = {e: average([k for k in keys if k[1] - k[0] == e]) for e in sorted({k[1] - k[0] for k in keys})}
    later = [out[e] for e in out if e >= 0]
    return out, sum(later) / len(later)


def share_influence(found, share, weight, first, keys, n_cohorts=None):
    """What the estimated shares add for one unit to the average of ``keys``, in sum form: written as in the paper,
    w_i (1{G = g} - P(g)) / sum P less P(g) sum (w_i 1{G = g} - P(g)) / (sum P)^2, all divided by the number of
    units."""
    total = sum(share[k[0]] for k in keys)
    units = sum(share.values())
    p = {k: share[k[0]] / units for k in keys}
    whole = total / units
    second = sum(weight * (first == k[0]) - p[k] for k in keys)
    return sum(found[k] * ((weight * (first == k[0]) - p[k]) / whole - p[k] * second / whole**2) for k in keys) / units


def emulated_group_overall_error(found, influence, share, n, firsts):
    """The error of the overall effect by cohort as did 2.1.2 reports it.

    In the influence of the cohorts' shares it takes the indicator of the cohort from the list of *cells*, by number:
    with k cohorts that is the cohort of the first k cells, mostly the first cohort k times over.
    """
    cohorts = sorted({k[0] for k in found if k[1] >= k[0]})
    listed = [k[0] for k in found][: len(cohorts)]
    effect = {g: np.mean([found[k] for k in found if k[0] == g and k[1] >= g]) for g in cohorts}
    p = {g: share[g] / n for g in cohorts}
    whole = sum(p.values())
    square = 0.0
    for unit, first in firsts.items():
        own = sum(
            p[g] / whole * np.mean([influence[k].get(unit, 0.0) for k in found if k[0] == g and k[1] >= g])
            for g in cohorts
        )
        gap = [float(first == wrong) - p[g] for g, wrong in zip(cohorts, listed, strict=True)]
        for g, d in zip(cohorts, gap, strict=True):
            own += effect[g] * (d / whole - sum(gap) * p[g] / whole**2) / n
        square += own**2
    return math.sqrt(square)
