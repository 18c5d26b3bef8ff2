"""Least squares with weights that are not negative and add up to one, solved exactly, with a certificate.

Minimise ||A x - b||^2 + ridge ||x||^2 over x >= 0, sum x = 1. Which weights are positive is found by exchanging
constraints; given that set the weights solve linear equations. No step size, no stopping rule: the answer is the
optimum up to rounding, and ``gap`` bounds what a better one could gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from evalkit.did.panel import Mask
from evalkit.effects import Array

STRONG = 1e-6
"""A ridge above this share of the mean squared length of A's columns makes the problem well-conditioned."""

ROUNDING = 1e-13
"""Rounding of a gradient, as a share of its largest term."""

PIVOTS = 60
"""Rounds of exchanging all wrong constraints at once before going one by one. It takes some ten."""


@dataclass(frozen=True)
class SimplexFit:
    """Weights (n,), the value of the objective, and the duality gap: objective - minimum <= gap."""

    x: Array
    objective: float
    gap: float


def simplex_least_squares(a: Array, b: Array, ridge: float) -> SimplexFit:
    """The weights on the columns of ``a`` (m, n) that come closest to ``b`` (m,)."""
    m, n = a.shape
    centre = a.mean(axis=1)  # the weights add up to one, so this changes nothing but the rounding
    a, b = a - centre[:, None], b - centre
    used_a, used_b = a, b
    if m > n:
        q, used_a = np.linalg.qr(a)
        used_b = q.T @ b
    elif m > 1:
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        rank = max(1, int((s > 1e-12 * s[0]).sum())) if s[0] > 0 else 1
        used_a, used_b = s[:rank, None] * vt[:rank], u[:, :rank].T @ b
    square = float((a**2).sum()) / n
    x = None
    if ridge > STRONG * square:
        x = _exchange_all(used_a, used_b, ridge)
    if x is None:
        x = _exchange_one(used_a, used_b, ridge)
    objective, gap = certificate(a, b, ridge, x)
    return SimplexFit(x, objective, gap)


def certificate(a: Array, b: Array, ridge: float, x: Array) -> tuple[float, float]:
    """The objective at weights x, and the duality gap of Frank and Wolfe: gradient'x - min gradient.

    The objective is convex, so that its minimum is at least objective - gap, whatever found x.
    """
    rest = a @ x - b
    gradient = 2 * (a.T @ rest + ridge * x)
    return float(rest @ rest + ridge * (x @ x)), float(max(gradient @ x - gradient.min(), 0.0))


def _exchange_all(a: Array, b: Array, ridge: float) -> Array | None:
    """All constraints that are wrong change sides at once, from all weights free; None when that does not settle."""
    n = a.shape[1]
    free = np.ones(n, bool)
    slack = ROUNDING * max(float((a**2).sum(axis=0).max()), ridge, float(np.abs(a.T @ b).max(initial=0.0)))
    for _ in range(PIVOTS):
        x = np.zeros(n)
        x[free] = _equality(a[:, free], b, ridge)
        gradient = a.T @ (a @ x - b) + ridge * x
        level = float(gradient[free].mean())
        wrong: Mask = np.where(free, x < 0, gradient < level - slack)
        if not wrong.any():
            return x
        free = free ^ wrong
        if not free.any():
            return None
    return None


def _exchange_one(a: Array, b: Array, ridge: float) -> Array:
    """From the best single column: let the most promising weight in, and step back where a weight would be negative."""
    n = a.shape[1]
    squares = (a**2).sum(axis=0)
    slack = ROUNDING * max(float(squares.max()), ridge, float(np.abs(a.T @ b).max(initial=0.0)))
    start = int(np.argmin(squares - 2 * (a.T @ b)))
    x = np.zeros(n)
    x[start] = 1.0
    free = x > 0
    best, best_value = x, np.inf
    for _ in range(20 * n + 100):
        rest = a @ x - b
        value = float(rest @ rest + ridge * (x @ x))
        gradient = a.T @ rest + ridge * x
        drop = np.where(free, np.inf, gradient - gradient @ x)
        entering = int(np.argmin(drop))
        if value >= best_value:  # no gain any more: rounding is reached
            return best
        best, best_value = x, value
        if drop[entering] >= -slack:
            return x
        free = free.copy()
        free[entering] = True
        while True:
            z = np.zeros(n)
            z[free] = _equality(a[:, free], b, ridge)
            below = free & (z < 0)
            if not below.any():
                x = z
                break
            step = np.full(n, np.inf)
            step[below] = x[below] / (x[below] - z[below])
            out = int(np.argmin(step))
            x = np.where(free, x + step[out] * (z - x), 0.0)
            x[out] = 0.0
            x = np.maximum(x, 0.0)
            free = free.copy()
            free[out] = False
    return best


def _equality(a: Array, b: Array, ridge: float) -> Array:
    """Minimise over weights that add up to one, of any sign."""
    m, k = a.shape
    if k == 1:
        return np.ones(1)
    if k > m and ridge > 0:  # more weights than equations: solve for the residuals
        total = a.sum(axis=1)
        factor = linalg.cho_factor(ridge * np.eye(m) + a @ a.T)
        of_b, of_total = linalg.cho_solve(factor, b), linalg.cho_solve(factor, total)
        if ridge > STRONG * float((a**2).sum()) / k:
            level = ridge * (1 - total @ of_b) / (k - total @ of_total)
            x = (a.T @ (ridge * of_b - level * of_total) + level) / ridge
            return np.asarray(x / x.sum())
    difference = a[:, :-1] - a[:, -1:]
    root = np.sqrt(ridge)
    left = np.vstack([difference, root * np.eye(k - 1), -root * np.ones((1, k - 1))])
    right = np.concatenate([b - a[:, -1], np.zeros(k - 1), [-root]])
    y = np.linalg.lstsq(left, right, rcond=1e-15)[0]
    return np.append(y, 1 - y.sum())
