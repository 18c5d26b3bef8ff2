"""A logit with an absolute penalty (lasso), solved exactly, its penalty chosen by cross-validation over persons.

Minimises the mean of -log-likelihood plus penalty times sum |b_k| over standardised columns, the intercept free
(Tibshirani 1996). Each Newton step is a penalised quadratic in as many numbers as there are columns, solved by
coordinate descent and then exactly for the signs found (Friedman, Hastie and Tibshirani 2010).
"""

from __future__ import annotations

import numpy as np

from evalkit.matching.adjustment import Array, Ints, Mask
from evalkit.matching.weighting.newton import Logistic
from evalkit.matching.weighting.terms import cross, solve_symmetric

PENALTIES = 20
"""Penalties tried, on a logarithmic grid from the smallest that leaves nothing in."""

SMALLEST = 1e-3
"""The last penalty of the grid, as a share of the first."""

SWEEPS = 2_000
"""Sweeps of coordinate descent over one quadratic; the signs it finds are then solved for exactly."""

MAX_ITERATIONS = 100
SETTLED, ROUGHLY = 1e-9, 1e-2
"""On the last change of any row's linear predictor: in the end, and while penalties are compared. Newton's method
squares it."""

REACH = 5.0
"""A step moves no row's linear predictor further."""


def penalties(z: Array, treated: Mask, base: Array) -> Array:
    """The grid (PENALTIES,), from the strongest of use to the weakest."""
    share = float(base @ treated) / float(base.sum())
    strongest = float(np.abs(z[:, 1:].T @ (base * (treated - share))).max(initial=0.0)) / float(base.sum())
    return strongest * np.logspace(0.0, np.log10(SMALLEST), PENALTIES)


def lasso_path(z: Array, treated: Mask, base: Array, grid: Array, settled: float = SETTLED) -> Array:
    """Coefficients (len(grid), k) of the penalised logit for each penalty, each started from the one before.

    ``z``: (n, k) ones in the first column, the others standardised. ``grid``: penalties on the mean loss, descending.
    settled: when a search ends.
    """
    total = float(base.sum())
    loss = Logistic(treated, base / total)
    share = float(base @ treated) / total
    theta = np.zeros(z.shape[1])
    theta[0] = np.log(share / (1.0 - share))
    out = np.empty((len(grid), len(theta)))
    for row, penalty in enumerate(grid):
        price = np.full(len(theta), float(penalty))
        price[0] = 0.0
        theta = _descend(z, loss, price, theta, settled)
        out[row] = theta
    return out


def _descend(z: Array, loss: Logistic, price: Array, start: Array, settled: float) -> Array:
    theta, eta = start, z @ start
    value = loss.value(eta) + float(price @ np.abs(theta))
    for _ in range(MAX_ITERATIONS):
        hessian = cross(z, loss.curvature(eta))
        gradient = z.T @ loss.slope(eta)
        aim = penalised_quadratic(hessian, hessian @ theta - gradient, price, theta)
        step = aim - theta
        move = z @ step
        reach = float(np.abs(move).max())
        promised = float(gradient @ step) + float(price @ (np.abs(aim) - np.abs(theta)))
        size = REACH / max(REACH, reach)
        while True:
            trial = loss.value(eta + size * move) + float(price @ np.abs(theta + size * step))
            if trial <= value + 1e-4 * size * promised + 1e-14 or size < 1e-8:
                break
            size /= 2
        theta = aim if size == 1.0 else theta + size * step
        eta, value = z @ theta, trial
        if size * reach < settled:
            break
    return theta


def chosen_penalty(z: Array, treated: Mask, base: Array, fold: Ints, grid: Array) -> int:
    """Number in the grid of the penalty with the best log-likelihood on the folds (n,) left out in turn."""
    lost = np.zeros(len(grid))
    for left_out in range(int(fold.max()) + 1):
        rows = fold == left_out
        path = lasso_path(z[~rows], treated[~rows], base[~rows], grid, ROUGHLY)
        outside = Logistic(treated[rows], base[rows])
        lost += [outside.value(z[rows] @ theta) for theta in path]
    return int(lost.argmin())


def penalised_quadratic(hessian: Array, pull: Array, price: Array, start: Array) -> Array:
    """Minimum of phi'H phi / 2 - pull'phi + sum price |phi|: coordinate descent for the signs, then solved exactly."""
    ridge = hessian + 1e-11 * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
    if not price.any():
        return _solved_well(hessian, ridge, pull)
    exact = _exact(hessian, ridge, pull, price, np.sign(start))
    if exact is not None:
        return exact
    phi = start.copy()
    slope = ridge @ phi - pull
    signs = np.full(len(phi), 2.0)
    for _ in range(SWEEPS):
        for j in range(len(phi)):
            wanted = ridge[j, j] * phi[j] - slope[j]
            new = np.sign(wanted) * max(abs(wanted) - price[j], 0.0) / ridge[j, j]
            if new != phi[j]:
                slope += ridge[:, j] * (new - phi[j])
                phi[j] = new
        if np.array_equal(np.sign(phi), signs):
            exact = _exact(hessian, ridge, pull, price, signs)
            if exact is not None:
                return exact
        signs = np.sign(phi)
    return phi


def _solved_well(hessian: Array, ridge: Array, pull: Array) -> Array:
    """H^-1 pull, with two rounds of refinement; with a slight ridge where H has no inverse."""
    try:
        phi = solve_symmetric(hessian, pull)
        for _ in range(2):
            phi = phi + solve_symmetric(hessian, pull - hessian @ phi)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.solve(ridge, pull))
    return phi if np.isfinite(phi).all() else np.asarray(np.linalg.solve(ridge, pull))


def _exact(hessian: Array, ridge: Array, pull: Array, price: Array, signs: Array) -> Array | None:
    """The minimum with given signs, or None when it has other signs or another coefficient should not be zero."""
    used = (signs != 0) | (price == 0)
    phi = np.zeros(len(pull))
    block = np.ix_(used, used)
    phi[used] = _solved_well(hessian[block], ridge[block], (pull - price * signs)[used])
    slope = ridge @ phi - pull
    agrees = np.where(price > 0, np.sign(phi) == signs, True).all()
    return phi if agrees and (np.abs(slope[~used]) <= price[~used] * (1 + 1e-9)).all() else None
