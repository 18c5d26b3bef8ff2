"""Stable balancing weights: the least variable weights that balance within a tolerance (Zubizarreta 2015).

For the treated (att): minimise sum over the others of w_i^2 / q_i subject to w >= 0, sum w = N_1 and, for each term,
|sum w_i z_i / N_1 - mean of the treated| <= delta SD, with q the base weights and N_1 the base weight of the treated.
The dual has one number a term: w_i = q_i max(0, z_i'theta) where theta minimises
sum_i q_i max(0, z_i'theta)^2 / 2 - N_1 mean'theta + N_1 delta sum_k SD_k |theta_k|.
That function is convex and piecewise quadratic; Newton's method with an exact solution of each quadratic piece ends
at the minimum in finitely many steps. For all (ate) each arm is weighted to the full sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import DesignError, Fault
from evalkit.matching.adjustment import Array, Mask
from evalkit.matching.weighting.entropy import told_apart
from evalkit.matching.weighting.lasso import penalised_quadratic
from evalkit.matching.weighting.terms import (
    FLAT,
    Problem,
    Solution,
    cross,
    moments_of,
    pseudo_inverse,
    small_sample,
)

MAX_ITERATIONS = 500
BALANCED = 1e-9
"""How far a condition may be missed, in standard deviations."""


@dataclass(frozen=True)
class _Arm:
    """Dual solution of one arm: coefficients (k,), predictor of its rows, Hessian, iterations, whether it converged."""

    theta: Array
    eta: Array
    hessian: Array
    iterations: int
    converged: bool


def stable(given: Problem, *, tolerance: float) -> Solution:
    """Stable balancing weights with every term within ``tolerance`` standard deviations of its target.

    Influence: conditions that bind hold with equality and their coefficients solve
    sum_i [1(arm) w_i z_i - 1(target) q_i z_i] + N_1 tolerance SD sign(theta) = 0; the others have coefficient zero.
    Which conditions bind is taken as given, and the SD counts as estimated. With tolerance 0 all bind: exact
    calibration. The means around which powers and products are taken count as known.

    Raises
    ------
    DesignError
        ``design.weights_cannot_balance`` naming terms, when some combination of them differs from the target by more
        than the tolerance in every row of an arm.
    """
    n, k = given.z.shape
    arms = {"att": (False,), "atc": (True,), "ate": (True, False)}[given.target]
    aim = np.ones(n, bool) if given.target == "ate" else given.treated == (given.target == "att")
    reach = np.concatenate([[0.0], tolerance * given.yardstick])
    weight = given.base.copy()
    derivative = np.zeros((n, k * len(arms))) if given.account else None
    influence = np.zeros((n, k * len(arms))) if given.account else None
    converged, iterations = True, 0
    total = float(given.base[aim].sum())
    mean = given.base[aim] @ given.z[aim] / total
    for part, arm in enumerate(arms):
        rows = given.treated == arm
        z = given.z[rows]
        kept = told_apart(given, z, given.base[rows], mean) if tolerance == 0 else np.arange(k)
        found = _balance(given, z[:, kept], given.base[rows], mean[kept], reach[kept], total, kept)
        weight[rows] = given.base[rows] * np.maximum(found.eta, 0.0)
        if derivative is not None and influence is not None:
            binding, score = _binding(given, found, rows, aim, kept, weight, tolerance)
            columns = part * k + kept[binding]
            slope = np.where(found.eta > 0, given.base[rows], 0.0)
            derivative[np.ix_(rows, columns)] = slope[:, None] * z[:, kept[binding]]
            influence[:, columns] = -score @ pseudo_inverse(found.hessian[np.ix_(binding, binding)])
        converged &= found.converged
        iterations = max(iterations, found.iterations)
    fixed = np.zeros(n, bool) if given.target == "ate" else aim
    population = np.where(aim, given.base, 0.0)
    return Solution(weight, population, None, derivative, influence, fixed, None, converged, iterations)


def _binding(
    given: Problem, found: _Arm, rows: Mask, aim: Mask, kept: np.ndarray, weight: Array, tolerance: float
) -> tuple[NDArray[np.bool_], Array]:
    """Which of the kept conditions bind, and each row's part (n, b) in the equations that they solve."""
    binding = np.ones(len(kept), bool) if tolerance == 0 else found.theta != 0
    binding[0] = True
    residual = np.where(rows, weight, 0.0) - np.where(aim, given.base, 0.0)
    score = residual[:, None] * given.z[:, kept[binding]]
    if tolerance > 0:
        sign = np.sign(found.theta[binding])
        sign[0] = 0.0
        score += sign * tolerance * _spread_influence(given, kept[binding], aim)
    return binding, score


def _spread_influence(given: Problem, columns: np.ndarray, aim: Mask) -> Array:
    """Influence (n, c) in sum form of (weight of the target) x (yardstick of a term)."""
    z = given.z[:, columns]
    total = float(given.base[aim].sum())
    width = np.concatenate([[1.0], given.yardstick])[columns]
    binary = np.concatenate([[True], given.binary])[columns]
    out = np.where(aim, given.base, 0.0)[:, None] * width
    halves = {"att": ((True, 1.0),), "atc": ((False, 1.0),), "ate": ((True, 0.5), (False, 0.5))}[given.target]
    spread = sum(
        share * moments_of(z[given.treated == arm], given.base[given.treated == arm])[1] for arm, share in halves
    )
    flat = spread <= FLAT  # the yardstick is then the standard deviation of all rows
    groups = [(given.treated == arm, np.where(flat, 0.0, share), True) for arm, share in halves]
    groups.append((np.ones(len(z), bool), np.where(flat, 1.0, 0.0), False))
    for rows, share, corrected in groups:
        base = given.base[rows]
        mean, variance = moments_of(z[rows], base)
        factor = small_sample(int(rows.sum()), binary) if corrected else np.ones(z.shape[1])
        bend = factor * ((z[rows] - mean) ** 2 - variance) / base.sum()
        out[rows] += total * share * base[:, None] * bend / (2 * width)
    return out


def _balance(
    given: Problem, z: Array, base: Array, mean: Array, reach: Array, total: float, columns: np.ndarray
) -> _Arm:
    """The minimum of the dual of one arm."""
    k = z.shape[1]
    theta = np.zeros(k)
    theta[0] = total / base.sum()
    eta = z @ theta
    value = _dual(theta, eta, base, mean, reach, total)
    hessian = cross(z, np.where(eta > 0, base, 0.0))
    converged = False
    iteration = 0
    while iteration < MAX_ITERATIONS and not converged:
        iteration += 1
        piece = penalised_quadratic(hessian, total * mean, total * reach, theta)
        step = piece - theta
        move = z @ step
        gradient = z.T @ (base * np.maximum(eta, 0.0)) - total * mean
        promised = float(gradient @ step) + total * float(reach @ (np.abs(piece) - np.abs(theta)))
        size = 1.0
        while True:
            trial = theta + size * step
            trial_value = _dual(trial, eta + size * move, base, mean, reach, total)
            if trial_value <= value + 1e-4 * size * promised + 1e-12 * (abs(value) + total) or size < 1e-10:
                break
            size /= 2
        theta, eta, value = trial, z @ trial, trial_value
        aimed = float(mean @ theta) - float(reach @ np.abs(theta))
        if aimed > float(eta.max()) + 1e-9 * (1.0 + abs(aimed)):
            full = np.zeros(len(given.names))
            full[columns[1:] - 1] = theta[1:]
            raise DesignError(Fault("design.weights_cannot_balance", {"columns": given.named(full)}))
        hessian = cross(z, np.where(eta > 0, base, 0.0))
        converged = _solved(theta, z.T @ (base * np.maximum(eta, 0.0)) / total - mean, reach)
    return _Arm(theta, eta, hessian, iteration, converged)


def _dual(theta: Array, eta: Array, base: Array, mean: Array, reach: Array, total: float) -> float:
    above = np.maximum(eta, 0.0)
    return float(base @ above**2) / 2 - total * float(mean @ theta) + total * float(reach @ np.abs(theta))


def _solved(theta: Array, gap: Array, reach: Array) -> bool:
    """Whether the conditions hold: those with a coefficient at the limit on its side, the others within it."""
    at_limit = np.abs(gap + reach * np.sign(theta)) <= BALANCED
    return bool(np.where((theta != 0) | (reach == 0), at_limit, np.abs(gap) <= reach + BALANCED).all())
