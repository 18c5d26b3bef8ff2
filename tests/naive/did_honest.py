"""Naive twins of honest inference: inequalities written out row by row, linear programmes, and the R generator.

The engine knows the vertices of the dual in closed form and integrates; here every step is a linear programme in all
unknown effects, and the truncation points are found by bisection on that programme.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, special


def inequalities(pre, post, restriction, m, increment=0, sign=1):
    """Rows A and right-hand sides d of A delta <= d, delta over -pre..post without 0, that hold a period after 0."""
    times = list(range(-pre, post + 1))

    def row(entries):
        found = np.zeros(len(times))
        for t, value in entries:
            found[times.index(t)] += value
        return np.delete(found, pre)  # delta is zero in the base

    rows, bounds = [], []
    if restriction == "smoothness":
        for t in range(post):
            for side in (1, -1):
                rows.append(side * row([(t + 1, 1), (t, -2), (t - 1, 1)]))
                bounds.append(m)
    else:
        start = -pre + increment
        before = sign * row([(start + 1, 1), (start, -1)])
        for t in range(post):
            for side in (1, -1):
                rows.append(side * row([(t + 1, 1), (t, -1)]) - m * before)
                bounds.append(0.0)
    return np.array(rows), np.array(bounds)


def largest(objective, nuisance, spread):
    """max g'objective over g >= 0, g'nuisance = 0, g'spread = 1: the value and g."""
    equal = np.column_stack([nuisance, spread]).T
    target = np.append(np.zeros(nuisance.shape[1]), 1.0)
    found = optimize.linprog(-objective, A_eq=equal, b_eq=target, bounds=(0, None), method="highs")
    assert found.status == 0
    return -found.fun, found.x


def hybrid_accepts(beta, sigma, pre, post, weights, rows, bounds, theta, alpha, critical, corners=None):
    """The hybrid test by linear programmes, its first critical value given.

    ``corners``: all vertices of the dual, to search instead of solving a programme each time (which takes seconds).
    """
    weights = np.asarray(weights, float)
    after = rows[:, pre:]
    # effects with l'tau = theta: one of them, and a basis of the directions in which the others may go
    particular = weights * theta / (weights @ weights)
    _, _, right = np.linalg.svd(weights[None])
    nuisance = after @ right[1:].T
    y = rows @ beta - bounds - after @ particular
    cov = rows @ sigma @ rows.T
    spread = np.sqrt(np.diag(cov))
    eta, g = largest(y, nuisance, spread)
    if eta <= 0:
        return True
    if eta > critical:
        return False
    variance = g @ cov @ g
    c = cov @ g / variance
    rest = y - c * eta

    def beaten(t):
        if corners is not None:
            return (corners @ (rest + c * t)).max() - t > 1e-9
        return largest(rest + c * t, nuisance, spread)[0] - t > 1e-9

    def end(direction):
        step = 1.0
        while not beaten(eta + direction * step):
            step *= 2
            if step > 1e6:
                return direction * np.inf
        good, bad = 0.0, step
        for _ in range(60):
            middle = (good + bad) / 2
            good, bad = (good, middle) if beaten(eta + direction * middle) else (middle, bad)
        return eta + direction * good

    low, high = end(-1.0), min(end(1.0), critical)
    kappa = alpha / 10
    second = (alpha - kappa) / (1 - kappa)
    s = np.sqrt(variance)
    chance = special.ndtr(high / s) - special.ndtr(eta / s)
    return bool(chance / (special.ndtr(high / s) - special.ndtr(low / s)) >= second)


def vertices(rows, sigma, pre, weights):
    """Every vertex of the dual, by trying each set of as many columns as there are equations."""
    from itertools import combinations

    after = rows[:, pre:]
    _, _, right = np.linalg.svd(np.asarray(weights, float)[None])
    equal = np.column_stack([after @ right[1:].T, np.sqrt(np.diag(rows @ sigma @ rows.T))]).T
    target = np.append(np.zeros(len(equal) - 1), 1.0)
    found = []
    for chosen in combinations(range(len(rows)), len(equal)):
        part = equal[:, chosen]
        if abs(np.linalg.det(part)) < 1e-12 * np.abs(part).max() ** len(equal):
            continue
        value = np.linalg.solve(part, target)
        if (value >= -1e-10).all():
            g = np.zeros(len(rows))
            g[list(chosen)] = value
            found.append(g)
    return np.array(found)


def simulated_critical(rows, sigma, pre, weights, size, draws, rng):
    """The 1 - size quantile of the largest moment when all have mean zero, by draws, and its standard error."""
    g = vertices(rows, sigma, pre, weights)
    noise = rng.standard_normal((draws, len(sigma))) @ np.linalg.cholesky(sigma).T
    top = (noise @ rows.T @ g.T).max(axis=1)
    at = np.quantile(top, 1 - size)
    width = np.quantile(top, 1 - size / 2) - np.quantile(top, 1 - 1.5 * size)
    return at, np.sqrt(size * (1 - size) / draws) * width / size


def half_length(v_pre, weights, sigma, m, alpha):
    """Half the length of the interval around (v_pre, weights)'beta under smoothness m; infinite where bias is."""
    pre, post = len(v_pre), len(weights)
    v = np.append(v_pre, weights)
    times = np.array([*range(-pre, 0), *range(1, post + 1)])
    if abs(v @ times) > 1e-7 * np.abs(v).sum():
        return np.inf
    # a trend is its changes of slope, one by one within +-m, once a linear one is ruled out by holding a period still
    rows = []
    for t in range(-pre + 1, post):
        row = np.zeros(pre + 1 + post)
        row[t + pre - 1 : t + pre + 2] = (1, -2, 1)
        rows.append(np.delete(row, pre))
    rows.append(np.eye(len(v))[0])
    trends = np.linalg.inv(np.array(rows))[:, :-1]  # one column for a change of one in one period
    bias, s = m * sum(abs(v @ column) for column in trends.T), np.sqrt(v @ sigma @ v)
    low, high = 0.0, 10.0 + bias / s
    for _ in range(200):
        middle = (low + high) / 2
        inside = special.ndtr(middle - bias / s) - special.ndtr(-middle - bias / s)
        low, high = (middle, high) if inside < 1 - alpha else (low, middle)
    return s * middle


def r_normals(seed, count):
    """``set.seed(seed); rnorm(count)`` of R: Mersenne Twister, inversion of two uniforms."""
    state = seed
    for _ in range(50):
        state = (69069 * state + 1) % 2**32
    words = []
    for _ in range(625):
        state = (69069 * state + 1) % 2**32
        words.append(state)
    twister = np.random.RandomState()
    twister.set_state(("MT19937", np.array(words[1:], np.uint32), 624))
    uniform = twister.randint(0, 2**32, size=2 * count, dtype=np.uint32) * 2.3283064365386963e-10
    uniform = np.clip(uniform, 2.328306437080797e-10 / 2, 1 - 2.328306437080797e-10 / 2)
    return special.ndtri((np.floor(2**27 * uniform[::2]) + uniform[1::2]) / 2**27)


def pretrend_draws(delta, sigma, pre, limit, draws, rng):
    """Share that passes "no |t| above limit" and mean of the estimates among those, by draws, with standard errors."""
    noise = delta + rng.standard_normal((draws, len(delta))) @ np.linalg.cholesky(sigma).T
    passed = (np.abs(noise[:, :pre]) <= limit * np.sqrt(np.diag(sigma))[:pre]).all(axis=1)
    kept = noise[passed]
    share = passed.mean()
    return share, np.sqrt(share * (1 - share) / draws), kept.mean(axis=0), kept.std(axis=0) / np.sqrt(len(kept))
