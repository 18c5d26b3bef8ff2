"""Covariate balancing propensity scores: a logit whose coefficients balance the covariates (Imai and Ratkovic 2014).

Just identified, the coefficients solve the balance conditions alone: for the treated (att) the odds of the others
balance, which is entropy balancing with the odds as weights; for all (ate) sum (D/e - (1 - D)/(1 - e)) z = 0. Both
are the minimum of a convex function. Over-identified, the likelihood score is added and the two are weighed by
two-step GMM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from evalkit.errors import DesignError
from evalkit.matching.adjustment import Array, Mask, TargetName
from evalkit.matching.weighting.entropy import LONGEST, balance_arm
from evalkit.matching.weighting.ipw import from_score
from evalkit.matching.weighting.models import fit_logit_to, separated
from evalkit.matching.weighting.newton import CovariateBalancing, influence_of, minimise
from evalkit.matching.weighting.terms import Problem, Solution, cross, pseudo_inverse

GMM_ITERATIONS = 100
GMM_TOLERANCE = 1e-22
"""On the Newton decrement of the GMM criterion, which is free of scale."""


def covariate_balancing(given: Problem, *, over: bool) -> Solution:
    """Weights from a covariate balancing propensity score for ``att``, ``atc`` or ``ate``.

    Raises
    ------
    DesignError
        ``design.separation`` (ate, over-identified), ``design.weights_cannot_balance`` (att, atc) naming terms.
    """
    if over:
        return _overidentified(given)
    eta, _, influence, iterations, converged = _just_identified(given)
    return from_score(given, eta, influence, iterations, converged)


def _just_identified(given: Problem) -> tuple[Array, Array, Array, int, bool]:
    """Linear predictor (n,), coefficients (k,), their influence (n, k), iterations, whether it converged."""
    treated, base, z = given.treated, given.base, given.z
    if given.target == "ate":
        total = float(base.sum())
        loss = CovariateBalancing(treated, base)
        start = np.zeros(z.shape[1])
        start[0] = np.log(float(base @ treated) / float(base @ ~treated))
        found = minimise(z, loss, total=total, start=start, longest=LONGEST)
        if not found.converged:
            fit_logit_to(given)  # says so when the groups can be separated
            if found.stopped:
                raise separated(given, found.step)
        return (
            found.eta,
            found.theta,
            influence_of(z, loss.slope(found.eta), found.hessian),
            found.iterations,
            found.converged,
        )
    aim = treated == (given.target == "att")
    sign = 1.0 if given.target == "att" else -1.0
    kept, found = balance_arm(given, ~aim, aim)
    theta, influence = np.zeros(z.shape[1]), np.zeros(z.shape)
    theta[kept] = sign * found.theta
    eta = z @ theta
    residual = np.where(aim, -base, base * np.exp(sign * np.where(aim, 0.0, eta)))
    influence[:, kept] = sign * influence_of(z[:, kept], residual, found.hessian)
    return eta, theta, influence, found.iterations, found.converged


@dataclass(frozen=True)
class _Conditions:
    """Factors (n,) of z in the likelihood score (``a``) and in the balance condition (``c``), with two slopes each."""

    a: Array
    a1: Array
    a2: Array
    c: Array
    c1: Array
    c2: Array


@dataclass(frozen=True)
class _Spread:
    """Variances and covariance (n,) of a and c given the covariates, with their slopes in the linear predictor."""

    aa: Array
    ac: Array
    cc: Array
    aa1: Array
    ac1: Array
    cc1: Array


def _conditions(treated: Mask, eta: Array, target: TargetName) -> _Conditions:
    e, spread = expit(eta), expit(eta) * expit(-eta)
    up, down = np.where(treated, 0.0, np.exp(eta)), np.where(treated, np.exp(-eta), 0.0)
    if target == "ate":
        c, c1, c2 = np.where(treated, 1.0, -1.0) + down - up, -down - up, down - up
    elif target == "att":
        c, c1, c2 = treated - up, -up, -up
    else:
        c, c1, c2 = down - ~treated, -down, down
    return _Conditions(treated - e, -spread, -spread * (1 - 2 * e), c, c1, c2)


def _spread(eta: Array, target: TargetName) -> _Spread:
    e, other = expit(eta), expit(-eta)
    v = e * other
    v1 = v * (other - e)
    if target == "ate":
        return _Spread(v, np.ones(len(eta)), 1 / v, v1, np.zeros(len(eta)), -(other - e) / v)
    if target == "att":
        return _Spread(v, e, np.exp(eta), v1, v, np.exp(eta))
    return _Spread(v, other, np.exp(-eta), v1, -v, -np.exp(-eta))


def _overidentified(given: Problem) -> Solution:
    """Two-step GMM of the likelihood score and the balance conditions.

    Minimises g'W g, g the mean of (a z, c z) with a = D - e and c the balance factor of the target, W the inverse of
    the covariance of (a z, c z) given the covariates at the maximum-likelihood estimate (the formula of Imai and
    Ratkovic 2014, section 3). Searched from that estimate and from the just-identified one; the lower minimum counts.

    The influence is that of the whole procedure, the first step and W included, and holds when the conditions cannot
    all be met (Hall and Inoue 2003): with M the Hessian, G the slope of g, m = W g and S the covariance,
    psi_i = -M^-1 [G_i' m + G'W (g_i - S_i m - (dS/dtheta_1 m) psi_1i)], psi_1 the influence of the first step.
    """
    first = fit_logit_to(given)
    base, target = given.base / given.base.sum(), given.target
    turn = np.linalg.cholesky(cross(given.z, base)).T
    starts = [turn @ first.theta]
    try:
        starts.append(turn @ _just_identified(given)[1])
    except DesignError:
        pass  # no exact balance: the likelihood score still identifies the coefficients
    given = replace(given, z=np.linalg.solve(turn.T, given.z.T).T.copy())  # uncorrelated columns, the same model
    z, k = given.z, len(turn)
    spread = _spread(first.eta, target)
    blocks = [cross(z, base * w) for w in (spread.aa, spread.ac, spread.cc)]
    weighing = pseudo_inverse(np.block([[blocks[0], blocks[1]], [blocks[1], blocks[2]]]))
    ended = [_descend(given, base, weighing, start) for start in starts]
    theta, _, iterations, converged = min(ended, key=lambda end: (not end[3], end[1]))
    eta = z @ theta
    now = _conditions(given.treated, eta, target)
    mean, slope, hessian = _criterion(given, base, weighing, now)
    pressed = weighing @ mean
    ma, mc = z @ pressed[:k], z @ pressed[k:]
    lever = slope.T @ weighing
    direct = (base * (now.a1 * ma + now.c1 * mc))[:, None] * z
    direct += (base * (now.a - spread.aa * ma - spread.ac * mc))[:, None] * (z @ lever[:, :k].T)
    direct += (base * (now.c - spread.ac * ma - spread.cc * mc))[:, None] * (z @ lever[:, k:].T)
    bent = np.concatenate(
        [
            cross(z, base * (spread.aa1 * ma + spread.ac1 * mc)),
            cross(z, base * (spread.ac1 * ma + spread.cc1 * mc)),
        ]
    )
    residual = given.base * (expit(first.eta) - given.treated)
    first_influence = influence_of(z, residual, cross(z, given.base * spread.aa))
    direct -= first_influence @ (lever @ bent).T
    influence = -direct @ np.linalg.inv(hessian).T
    return from_score(given, eta, influence, iterations, converged)


def _criterion(given: Problem, base: Array, weighing: Array, now: _Conditions) -> tuple[Array, Array, Array]:
    """Mean of the conditions (2k,), its slope (2k, k), and the Hessian (k, k) of half the criterion."""
    z = given.z
    k = z.shape[1]
    mean = np.concatenate([z.T @ (base * now.a), z.T @ (base * now.c)])
    slope = np.concatenate([cross(z, base * now.a1), cross(z, base * now.c1)])
    pressed = weighing @ mean
    curve = cross(z, base * (now.a2 * (z @ pressed[:k]) + now.c2 * (z @ pressed[k:])))
    return mean, slope, slope.T @ weighing @ slope + curve


def _descend(given: Problem, base: Array, weighing: Array, start: Array) -> tuple[Array, float, int, bool]:
    """Newton's method on half the criterion, with Gauss-Newton steps where it is not convex, and step halving."""
    z, target = given.z, given.target

    def value(eta: Array) -> float:
        now = _conditions(given.treated, eta, target)
        mean = np.concatenate([z.T @ (base * now.a), z.T @ (base * now.c)])
        return float(mean @ weighing @ mean) / 2

    theta, eta = start.copy(), z @ start
    current = value(eta)
    for iteration in range(1, GMM_ITERATIONS + 1):
        mean, slope, hessian = _criterion(given, base, weighing, _conditions(given.treated, eta, target))
        gradient = slope.T @ weighing @ mean
        try:
            np.linalg.cholesky(hessian)
        except np.linalg.LinAlgError:
            hessian = slope.T @ weighing @ slope
        step = -np.linalg.solve(hessian, gradient)
        decrement = -float(gradient @ step)
        move = z @ step
        size = min(1.0, 2.0 / max(float(np.abs(move).max()), 1e-300))
        while True:
            trial = value(eta + size * move)
            if trial <= current - 1e-4 * size * decrement + 1e-11 * current or size < 1e-10:
                break
            size /= 2
        theta, eta = theta + size * step, eta + size * move
        current = trial
        if decrement < GMM_TOLERANCE:
            return theta, current, iteration, True
    return theta, current, GMM_ITERATIONS, False
