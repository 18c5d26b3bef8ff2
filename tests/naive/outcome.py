"""Outcome steps written out for one month, every row counting f_i times, and their derivatives to f by brute force.

The derivative of an estimator to how often row i stands in the data is the influence of that row, whatever formula
says so: weights, regressions and averages are all worked out anew for each shift.
"""

import numpy as np

STEP = 1e-4


def jackknife(estimator, n):
    """Derivative of ``estimator(f)`` to each f_i at one, by central differences, corrected to the fourth order."""
    out = np.zeros(n)
    for i in range(n):

        def at(shift, i=i):
            f = np.ones(n)
            f[i] += shift
            return estimator(f)

        out[i] = (8 * (at(STEP) - at(-STEP)) - (at(2 * STEP) - at(-2 * STEP))) / (12 * STEP)
    return out


def mean_of(index, family):
    if family == "logit":
        return 1 / (1 + np.exp(-index))
    return np.exp(index) if family == "poisson" else index


def regress(x, y, w, family="linear"):
    """Coefficients with sum w x (y - m) = 0, by Newton's method on the normal equations."""
    beta = np.zeros(x.shape[1])
    if family == "poisson":
        beta[0] = np.log((w @ y) / w.sum())
    for _ in range(1 if family == "linear" else 60):
        m = mean_of(x @ beta, family)
        slope = {"linear": np.ones(len(y)), "logit": m * (1 - m), "poisson": m}[family]
        beta = beta + np.linalg.solve((x * (w * slope)[:, None]).T @ x, x.T @ (w * (y - m)))
    return beta


def effect(model, treated, x, y, w, g, count, family="linear"):
    """The estimate from weights w, population weights g and counts, all of which hold how often a row stands there."""
    one, zero = treated & (w > 0), ~treated & (w > 0)
    if model == "means":
        return (w @ (y * one)) / (w @ one) - (w @ (y * zero)) / (w @ zero)
    if model == "regression":
        return regress(np.column_stack([treated, x]), y, w)[0]
    fits = []
    for arm in (one, zero):
        weight = count if model == "aipw" else w
        fits.append(mean_of(x @ regress(x[arm], y[arm], weight[arm], family), family))
    value = g @ (fits[0] - fits[1]) / g.sum()
    if model == "aipw":
        value += (w @ ((y - fits[0]) * one)) / (w @ one) - (w @ ((y - fits[1]) * zero)) / (w @ zero)
    return value


def chance_weights(treated, z, f, target):
    """Weights and population from a logit in which row i counts f_i times; both hold f."""
    e = mean_of(z @ regress(z, treated.astype(float), f, "logit"), "logit")
    weight = {
        "att": np.where(treated, 1, e / (1 - e)),
        "atc": np.where(treated, (1 - e) / e, 1),
        "ate": np.where(treated, 1 / e, 1 / (1 - e)),
        "ato": np.where(treated, 1 - e, e),
    }[target]
    population = {"att": treated, "atc": ~treated, "ate": np.ones(len(e)), "ato": e * (1 - e)}[target]
    return f * weight, f * population


def balancing_weights(treated, z, f):
    """Entropy balancing weights for the treated, of rows that count f_i times."""
    theta = np.zeros(z.shape[1])
    target = z.T @ (f * treated)
    theta[0] = np.log((f @ treated) / (f @ ~treated))
    for _ in range(60):
        w = f * np.exp(z @ theta) * ~treated
        theta = theta + np.linalg.solve((z * w[:, None]).T @ z, target - z.T @ w)
    return np.where(treated, f, f * np.exp(z @ theta)), f * treated


def stratum_weights(treated, stratum, f, target):
    """Stratum weights counted anew: each arm of a stratum carries the stratum's population."""
    population = f * {"att": treated, "atc": ~treated, "ate": np.ones(len(f))}[target]
    weight = np.zeros(len(f))
    for s in np.unique(stratum):
        inside = stratum == s
        for arm in (treated, ~treated):
            rows = inside & arm
            weight[rows] = f[rows] * population[inside].sum() / f[rows].sum()
    return weight, population


def matched_means(treated, control, weight, y, score, design, chance):
    """Difference of matched means for the treated: estimate, contributions by row, and t, in plain loops.

    c is a cubic in the score among the matches, weighted by how often each is used; t = -sum K (X - x) (Y - m0) / N1.
    """
    n = len(y)
    starters = sorted(set(treated))
    uses = np.zeros(n)
    for _, j, w in zip(treated, control, weight, strict=True):
        uses[j] += w
    used = np.flatnonzero(uses)
    n1 = len(starters)
    low, high = score[used].min(), score[used].max()
    z = (np.clip(score, low, high) - (low + high) / 2) / ((high - low) / 2)
    cubic = np.column_stack([z**p for p in range(4)])
    root = np.sqrt(uses[used])
    hat = cubic[used] * root[:, None]
    leverage = np.diag(hat @ np.linalg.pinv(hat.T @ hat) @ hat.T)
    m0 = cubic @ np.linalg.lstsq(hat, y[used] * root, rcond=None)[0]
    xhat = cubic @ np.linalg.lstsq(hat, design[used] * root[:, None], rcond=None)[0]
    tau = y[starters].mean() - uses @ y / n1
    shift = np.mean([y[i] - m0[i] for i in starters])
    psi, t = np.zeros(n), np.zeros(design.shape[1])
    for i in starters:
        psi[i] = (y[i] - m0[i] - shift) / n1 / np.sqrt(1 - 1 / n1)
    for place, j in enumerate(used):
        psi[j] = -uses[j] * (y[j] - m0[j]) / n1 / np.sqrt(1 - leverage[place])
        t -= uses[j] * (design[j] - xhat[j]) * (y[j] - m0[j]) / n1
    return tau, psi, t
