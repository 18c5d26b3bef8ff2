"""Newton's method for convex losses of a linear predictor: logit, entropy balancing and covariate balancing scores.

Minimises f(theta) = sum_i loss_i(z_i'theta) - linear'theta. A step moves no row's predictor further than ``longest``
and is halved until the loss falls; along a step only (n,) arrays are worked out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import expit

from evalkit.matching.adjustment import Array, Mask
from evalkit.matching.weighting.terms import cross, solve_symmetric

TOLERANCE = 1e-20
"""On the Newton decrement a unit of total weight; one more full step then ends at rounding."""

SETTLED = 1e-4
"""On the change of any row's linear predictor: under separation it keeps moving by one while the loss levels off."""

MAX_ITERATIONS = 200

LEVEL, PATIENCE = 1e-9, 10
"""So many steps that gain less than ``LEVEL`` a unit of weight and yet move a row's predictor by a half or more: the
minimum lies at infinity."""


class Loss(Protocol):
    """A convex loss of the linear predictor, summed over rows, with slope and curvature of each row."""

    def value(self, eta: Array) -> float: ...

    def slope(self, eta: Array) -> Array: ...

    def curvature(self, eta: Array) -> Array: ...


@dataclass(frozen=True)
class Logistic:
    """Minus the log-likelihood of a logit."""

    treated: Mask
    base: Array

    def value(self, eta: Array) -> float:
        return float(self.base @ (np.logaddexp(0.0, eta) - self.treated * eta))

    def slope(self, eta: Array) -> Array:
        return np.asarray(self.base * (expit(eta) - self.treated))

    def curvature(self, eta: Array) -> Array:
        chance = expit(eta)
        return np.asarray(self.base * chance * (1.0 - chance))


@dataclass(frozen=True)
class Exponential:
    """Sum of base times exp(eta): the dual of entropy balancing; weights are its slope."""

    base: Array

    def value(self, eta: Array) -> float:
        return float(self.base @ np.exp(eta))

    def slope(self, eta: Array) -> Array:
        return np.asarray(self.base * np.exp(eta))

    def curvature(self, eta: Array) -> Array:
        return self.slope(eta)


@dataclass(frozen=True)
class CovariateBalancing:
    """The loss whose slope is minus the balance condition of the whole population: D/e - (1 - D)/(1 - e)."""

    treated: Mask
    base: Array

    def value(self, eta: Array) -> float:
        signed = np.where(self.treated, -eta, eta)
        return float(self.base @ (np.exp(signed) + signed))

    def slope(self, eta: Array) -> Array:
        signed = np.where(self.treated, -eta, eta)
        return np.asarray(self.base * np.where(self.treated, -1.0, 1.0) * (np.exp(signed) + 1.0))

    def curvature(self, eta: Array) -> Array:
        return np.asarray(self.base * np.exp(np.where(self.treated, -eta, eta)))


@dataclass(frozen=True)
class Minimum:
    """Where Newton's method ended. ``step``: the last step; ``stopped``: there is no minimum, or the caller said so."""

    theta: Array
    eta: Array
    hessian: Array
    value: float
    iterations: int
    converged: bool
    stopped: bool
    step: Array


def minimise(
    z: Array,
    loss: Loss,
    *,
    linear: Array | None = None,
    total: float,
    start: Array | None = None,
    longest: float = 5.0,
    level: Callable[[Array], float] | None = None,
    stop: Callable[[Array, Array], bool] | None = None,
    most: int = MAX_ITERATIONS,
) -> Minimum:
    """The minimum of a convex loss.

    Parameters
    ----------
    z: (n, k) with ones in the first column. ``total``: sum of weights, the scale of the tolerance.
    linear: (k,) subtracted inner product; None for zero.
    level: the shift of the intercept that is best at a predictor, where it is known in closed form.
    stop: whether to give up at (theta, eta): a proof that there is no minimum, or a coefficient out of bounds.
    most: iterations.
    """
    k = z.shape[1]
    pull = np.zeros(k) if linear is None else linear
    theta = np.zeros(k) if start is None else start.copy()
    eta = z @ theta
    if level is not None:
        shift = level(eta)
        theta[0] += shift
        eta += shift
    value = loss.value(eta) - float(pull @ theta)
    step = np.zeros(k)
    hessian = cross(z, loss.curvature(eta))
    converged = stopped = False
    iteration = drifting = 0
    while iteration < most and not converged:
        iteration += 1
        gradient = z.T @ loss.slope(eta) - pull
        try:
            step = -solve_symmetric(hessian, gradient)
        except np.linalg.LinAlgError:
            stopped = True
            break
        decrement = -float(gradient @ step)
        move = z @ step
        reach = float(np.abs(move).max())
        if not np.isfinite(reach) or decrement < -1e-8 * total:
            stopped = True
            break
        size = longest / max(longest, reach)
        while True:
            trial = eta + size * move
            trial_value = loss.value(trial) - float(pull @ (theta + size * step))
            if trial_value <= value - 1e-4 * size * decrement + 1e-12 * (abs(value) + total) or size < 1e-8:
                break
            size /= 2
        theta = theta + size * step
        eta = trial
        if level is not None:
            shift = level(eta)
            theta[0] += shift
            eta += shift
        value = loss.value(eta) - float(pull @ theta)
        converged = decrement < TOLERANCE * total and size * reach < SETTLED
        drifting = drifting + 1 if decrement < LEVEL * total and size * reach >= 0.5 else 0
        hessian = cross(z, loss.curvature(eta))
        if not converged and (drifting >= PATIENCE or (stop is not None and stop(theta, eta))):
            stopped = True
            break
    return Minimum(theta, eta, hessian, value, iteration, converged, stopped, step)


def influence_of(z: Array, residual: Array, hessian: Array) -> Array:
    """Influence (n, k) in sum form of a root of sum_i residual_i z_i = 0 whose slope in theta is ``hessian``."""
    return np.asarray(z @ -np.linalg.inv(hessian)) * residual[:, None]
