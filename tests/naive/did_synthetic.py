"""Synthetic difference-in-differences in plain loops: objectives, effects, and a Frank-Wolfe search that stops early.

``frank_wolfe`` and ``early_weights`` imitate the observed behaviour of the authors' R program (synthdid): steps of
Frank and Wolfe until the objective falls by less than (1e-5 times the noise level) squared, first 100 steps, then
weights below a quarter of the largest set to zero, then at most 10,000 steps more.
"""

import itertools

import numpy as np


def objective(a, b, ridge, x):
    """||a x - b||^2 + ridge ||x||^2 by loops."""
    total = ridge * sum(v * v for v in x)
    for i in range(len(b)):
        total += (sum(a[i][j] * x[j] for j in range(len(x))) - b[i]) ** 2
    return total


def best_by_support(a, b, ridge):
    """The minimum on the simplex by trying every set of positive weights."""
    n = a.shape[1]
    best, best_value = None, np.inf
    for size in range(1, n + 1):
        for support in itertools.combinations(range(n), size):
            part = a[:, support]
            system = np.zeros((size + 1, size + 1))
            system[:size, :size] = part.T @ part + ridge * np.eye(size)
            system[:size, size] = system[size, :size] = 1.0
            solved = np.linalg.lstsq(system, np.append(part.T @ b, 1.0), rcond=None)[0][:size]
            if (solved < -1e-12).any():
                continue
            x = np.zeros(n)
            x[list(support)] = solved
            value = objective(a, b, ridge, x)
            if value < best_value:
                best, best_value = x, value
    return best


def noise(controls, before):
    changes = [row[t + 1] - row[t] for row in controls for t in range(before - 1)]
    mean = sum(changes) / len(changes)
    return (sum((c - mean) ** 2 for c in changes) / (len(changes) - 1)) ** 0.5


def effects(controls, treated, omega, lambdas):
    """Effect by period: double differences with the weights, by loops."""
    periods = len(controls[0])
    gap = []
    for t in range(periods):
        mean = sum(row[t] for row in treated) / len(treated)
        gap.append(mean - sum(w * row[t] for w, row in zip(omega, controls, strict=True)))
    level = sum(w * g for w, g in zip(lambdas, gap, strict=True))
    return [g - level for g in gap]


def frank_wolfe(a, b, eta, x, decrease, steps):
    """Steps of Frank and Wolfe on eta ||x||^2 + ||a x - b||^2, each with the best length, until the fall is small."""
    rows = len(b)
    last = np.inf
    for _ in range(steps):
        rest = a @ x - b
        half = rest @ a + eta * x
        corner = int(np.argmin(half))
        direction = -x.copy()
        direction[corner] += 1.0
        if np.all(direction == 0):
            break
        moved = a @ direction
        length = -(half @ direction) / (moved @ moved + eta * (direction @ direction))
        x = x + min(1.0, max(0.0, length)) * direction
        value = (np.sum((a @ x - b) ** 2) + eta * (x @ x)) / rows
        if last - value <= decrease**2:
            break
        last = value
    return x


def early_weights(a, b, eta, sigma, intercept):
    """Weights where the R program stops."""
    if intercept:
        a, b = a - a.mean(axis=0), b - b.mean()
    n = a.shape[1]
    x = frank_wolfe(a, b, eta, np.full(n, 1.0 / n), 1e-5 * sigma, 100)
    x = np.where(x <= x.max() / 4, 0.0, x)
    return frank_wolfe(a, b, eta, x / x.sum(), 1e-5 * sigma, 10_000)


def early_stopped(controls, treated, before, method="synthetic_did", sigma=None):
    """Unit weights, time weights and estimate as the R program finds them."""
    n0, periods = controls.shape
    sigma = noise(controls, before) if sigma is None else sigma
    target = treated.mean(axis=0)[:before]
    lambdas = np.zeros(periods)
    zeta = 1e-6 * sigma
    if method == "synthetic_did":
        after = controls[:, before:].mean(axis=1)
        lambdas[:before] = early_weights(controls[:, :before], after, n0 * (1e-6 * sigma) ** 2, sigma, True)
        zeta = (len(treated) * (periods - before)) ** 0.25 * sigma
    omega = early_weights(controls[:, :before].T, target, before * zeta**2, sigma, method == "synthetic_did")
    path = effects(controls, treated, omega, lambdas)
    return omega, lambdas, sum(path[before:]) / (periods - before)
