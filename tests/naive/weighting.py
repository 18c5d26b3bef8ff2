"""Weighting by brute force: general-purpose optimisers on the problems as they are stated in the papers."""

import numpy as np
from scipy import optimize


def standardised(x):
    """Columns with mean zero and standard deviation one, after a column of ones."""
    return np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])


def logit(treated, z, base):
    """Coefficients of the maximum-likelihood logit."""
    import statsmodels.api as sm

    fitted = sm.GLM(treated.astype(float), z, family=sm.families.Binomial(), freq_weights=base).fit(tol=1e-14)
    return np.asarray(fitted.params)


def chance(z, theta):
    return 1.0 / (1.0 + np.exp(-(z @ theta)))


def primal(x, q, mean, total, loss, slope, reach=None):
    """min sum loss(w, q) over w >= 0 with the total and the means given (within ``reach`` where it is not None)."""
    n = len(q)
    gap = (x - mean).T / total
    rules = [{"type": "eq", "fun": lambda w: w.sum() / total - 1, "jac": lambda w: np.ones(n) / total}]
    if reach is None:
        rules.append({"type": "eq", "fun": lambda w: gap @ w, "jac": lambda w: gap})
    else:
        rules.append({"type": "ineq", "fun": lambda w: reach - gap @ w, "jac": lambda w: -gap})
        rules.append({"type": "ineq", "fun": lambda w: reach + gap @ w, "jac": lambda w: gap})
    found = optimize.minimize(
        lambda w: loss(w, q).sum() / total,
        q * total / q.sum(),
        jac=lambda w: slope(w, q) / total,
        bounds=[(1e-12, None)] * n,
        constraints=rules,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-15},
    )
    assert found.success or found.status == 8, found.message  # 8: no further descent at this precision
    return found.x


def entropy(x, q, mean, total):
    """Entropy balancing weights from the primal."""
    return primal(x, q, mean, total, lambda w, q: w * np.log(w / q), lambda w, q: np.log(w / q) + 1)


def stable(x, q, mean, total, reach):
    """Stable balancing weights from the primal."""
    return primal(x, q, mean, total, lambda w, q: w**2 / q, lambda w, q: 2 * w / q, reach)


def balance_factor(treated, e, target):
    """What multiplies z in the balance condition of Imai and Ratkovic."""
    d = treated.astype(float)
    return {"ate": (d - e) / (e * (1 - e)), "att": (d - e) / (1 - e), "atc": (d - e) / e}[target]


def just_identified(treated, z, base, target, start):
    """Root of the balance conditions."""
    found = optimize.root(
        lambda theta: z.T @ (base * balance_factor(treated, chance(z, theta), target)) / base.sum(), start, tol=1e-13
    )
    assert np.abs(found.fun).max() < 1e-9
    return found.x


def gmm_criterion(treated, z, base, target, first):
    """The two-step criterion as a function of the coefficients: W from the model at ``first``."""
    e, total = chance(z, first), base.sum()
    k = z.shape[1]
    spread = np.zeros((2 * k, 2 * k))
    for row, chance_of_row, b in zip(z, e, base, strict=True):
        for d, p in ((1.0, chance_of_row), (0.0, 1 - chance_of_row)):
            factor = balance_factor(np.array([d]), np.array([chance_of_row]), target)[0]
            g = np.concatenate([(d - chance_of_row) * row, factor * row])
            spread += b * p * np.outer(g, g) / total
    weighing = np.linalg.inv(spread)

    def criterion(theta):
        now = chance(z, theta)
        g = (
            np.concatenate([z.T @ (base * (treated - now)), z.T @ (base * balance_factor(treated, now, target))])
            / total
        )
        return g @ weighing @ g

    return criterion


def crump_ate(score):
    """Rows kept: every possible limit on 1/(e(1 - e)) tried, the smallest variance bound taken."""
    cost = 1 / (score * (1 - score))
    best = min(np.unique(cost), key=lambda limit: cost[cost <= limit].sum() / (cost <= limit).sum() ** 2)
    return cost <= best


def hajek(treated, weight, y):
    """Difference of weighted means."""
    one, nought = (np.average(y[arm], weights=weight[arm]) for arm in (treated, ~treated))
    return one - nought


def influence(w, y):
    """Influence (n,) in sum form of the difference of weighted means, the weights' own estimation included."""
    psi, pull = np.zeros(len(y)), 0.0
    for arm, sign in ((w.treated, 1.0), (~w.treated, -1.0)):
        total = w.weight[arm].sum()
        error = np.where(arm, y - np.average(y[arm], weights=w.weight[arm]), 0.0)
        psi = psi + sign * w.weight * error / total
        if w.derivative is not None:
            pull = pull + sign * (w.derivative.T @ error) / total
    return psi if w.influence is None else psi + w.influence @ pull
