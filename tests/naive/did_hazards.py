"""Difference-in-differences for exit rates by plain loops over persons and months, with statsmodels for the models.

A spell is a dict: begin, entry, stop, cause (None while it runs), group, adopted (0 never), cluster, cell.
"""

import numpy as np
import statsmodels.api as sm


def person_months(spells, window, anticipation=0):
    """Untreated person-months within the window: (spell number, elapsed, calendar, cause of exit or None)."""
    rows = []
    for number, spell in enumerate(spells):
        for t in range(spell["entry"], spell["stop"]):
            c = spell["begin"] + t
            if not window[0] <= c <= window[1]:
                continue
            if spell["adopted"] and c >= spell["adopted"] - anticipation:
                continue
            rows.append((number, t, c, spell["cause"] if t == spell["stop"] - 1 else None))
    return rows


class Dummies:
    """An intercept and dummies without the first level of each factor."""

    def __init__(self, rows, spells, band, group_durations):
        self.band, self.group_durations = band, group_durations
        self.levels = [
            sorted({self.key(spells[n], t, c)[f] for n, t, c, _ in rows}) for f in range(len(self.key(spells[0], 0, 0)))
        ]
        self.columns = [(f, level) for f, levels in enumerate(self.levels) for level in levels[1:]]

    def key(self, spell, t, c):
        duration = (self.band(t),)
        group = (spell["group"],)
        first = ((self.band(t), spell["group"]),) if self.group_durations else duration + group
        return (*first, c, spell.get("cell", 0))

    def row(self, spell, t, c):
        """The design's row, None when a level is unknown."""
        key = self.key(spell, t, c)
        if any(key[f] not in self.levels[f] for f in range(len(key))):
            return None
        return np.array([1.0] + [float(key[f] == level) for f, level in self.columns])


def fit(rows, spells, cause, link, dummies):
    """Parameters, scores a row and the inverse of minus the second derivative."""
    x = np.array([dummies.row(spells[n], t, c) for n, t, c, _ in rows])
    y = np.array([1.0 if why == cause else 0.0 for _, _, _, why in rows])
    if link == "identity":
        found = sm.OLS(y, x).fit()
        return found.params, x * found.resid[:, None], np.linalg.inv(x.T @ x)
    model = sm.GLM(y, x, family=sm.families.Binomial(link=sm.families.links.CLogLog()))
    found = model.fit(tol=1e-14, maxiter=200, tol_criterion="params")
    return (
        found.params,
        model.score_obs(found.params, scale=1.0),
        np.linalg.inv(-model.hessian(found.params, scale=1.0, observed=True)),
    )


def hazard(x, theta, link):
    return float(x @ theta) if link == "identity" else float(1 - np.exp(-np.exp(x @ theta)))


def exposure(spell, window):
    """Elapsed month at exposure, None when it is never exposed within the window."""
    if not spell["adopted"]:
        return None
    c = max(spell["adopted"], spell["begin"])
    t = c - spell["begin"]
    return t if c <= window[1] and spell["entry"] <= t < spell["stop"] else None


def without(spell, s, thetas, causes, link, dummies, horizon):
    """Cumulated exit by cause (D, K) without treatment."""
    out, alive, so_far = np.zeros((len(causes), horizon)), 1.0, np.zeros(len(causes))
    for j in range(horizon):
        x = dummies.row(spell, s + j, spell["begin"] + s + j)
        h = [hazard(x, theta, link) for theta in thetas]
        for d in range(len(causes)):
            so_far[d] += alive * h[d]
        out[:, j] = so_far
        alive *= 1 - sum(h)
    return out


def effect(
    spells,
    window,
    causes,
    horizon,
    link="cloglog",
    band=lambda t: t,
    group_durations=False,
    anticipation=0,
    influence=False,
    until=None,
):
    """Effect (D, K), counterfactual (D, K), number exposed; with ``influence`` a dict of cluster to (D, K) as well.

    ``until``: a function of a spell, the last calendar month that its follow-up may use; that of the window when None.
    """
    rows = person_months(spells, window, anticipation)
    dummies = Dummies(rows, spells, band, group_durations)
    fits = [fit(rows, spells, cause, link, dummies) for cause in causes]
    exposed = []
    for number, spell in enumerate(spells):
        s = exposure(spell, window)
        if s is not None and spell["begin"] + s + horizon - 1 <= (window[1] if until is None else until(spell)):
            exposed.append((number, s))

    def average(thetas):
        return sum(without(spells[n], s, thetas, causes, link, dummies, horizon) for n, s in exposed) / len(exposed)

    thetas = [f[0] for f in fits]
    observed = np.zeros((len(causes), horizon))
    seen = {}
    for n, s in exposed:
        seen[n] = np.zeros((len(causes), horizon))
        for d, cause in enumerate(causes):
            for k in range(1, horizon + 1):
                seen[n][d, k - 1] = float(spells[n]["cause"] == cause and spells[n]["stop"] - s <= k)
        observed += seen[n] / len(exposed)
    base = average(thetas)
    result = observed - base, base, len(exposed)
    if not influence:
        return result
    by = {spell["cluster"]: np.zeros((len(causes), horizon)) for spell in spells}
    for n, s in exposed:
        own = without(spells[n], s, thetas, causes, link, dummies, horizon)
        by[spells[n]["cluster"]] += (seen[n] - own - result[0]) / len(exposed)
    for e in range(len(causes)):
        theta, score, inverse = fits[e]
        slope = np.zeros((len(theta), len(causes), horizon))
        for p in range(len(theta)):
            step = 1e-5
            up, down = [t.copy() for t in thetas], [t.copy() for t in thetas]
            up[e][p] += step
            down[e][p] -= step
            slope[p] = (average(up) - average(down)) / (2 * step)
        moved = score @ inverse
        for (n, _, _, _), row in zip(rows, moved, strict=True):
            by[spells[n]["cluster"]] -= np.einsum("p,pdk->dk", row, slope)
    return (*result, by)


def plain_did(spells, window, before, after):
    """Difference-in-differences of monthly exit rates of all on benefit: adopters less others, after less before."""

    def rate(adopts, low, high):
        at_risk = exits = 0
        for spell in spells:
            if bool(spell["adopted"]) != adopts:
                continue
            for t in range(spell["entry"], spell["stop"]):
                if low <= spell["begin"] + t <= high:
                    at_risk += 1
                    exits += t == spell["stop"] - 1 and spell["cause"] is not None
        return exits / at_risk

    return (rate(True, *after) - rate(True, *before)) - (rate(False, *after) - rate(False, *before))
