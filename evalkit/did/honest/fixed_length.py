"""The shortest interval of fixed length around an affine estimator, under smoothness.

The estimator is v'beta with v = l on the periods after the base. Over all differences in trends whose slope changes by
at most M a period its bias is at most M |k|_1, where v = D'k and D takes second differences: finite only when v removes
a linear trend. Its interval is v'beta -+ s c(bias / s), s its standard error and c(t) the quantile of |N(t, 1)|. That
half-length is convex in v; along the solutions of a lasso (least variance plus a multiple of |k|_1) it has one minimum.
Sources: Armstrong and Kolesar (2018), Econometrica 86: 655-683, and (2020), Quantitative Economics 11: 1-39; Rambachan
and Roth (2023), Review of Economic Studies 90: 2555-2591, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from evalkit.did.honest.moments import curvature, second_weights
from evalkit.did.honest.study import EventStudy, independent
from evalkit.effects import Array


@dataclass(frozen=True)
class Affine:
    """An affine estimator of the contrast: ``weights`` (K,) of the effects before and after the base, what it
    estimates, its standard error, its largest bias and half the length of its interval."""

    weights: Array
    estimate: float
    std_error: float
    bias: float
    half: float


def folded_quantile(t: float, alpha: float) -> float:
    """c with P(|N(t, 1)| <= c) = 1 - alpha, t >= 0."""

    def excess(beyond: float) -> float:  # in c - t, which stays of order one
        return float(special.ndtr(-beyond) + special.ndtr(-beyond - 2 * t)) - alpha

    low, high = float(-special.ndtri(alpha)), float(-special.ndtri(alpha / 2))
    if excess(low) <= 0:  # t is so large that the other tail is nothing
        return t + low
    return t + float(optimize.brentq(excess, low, high, xtol=1e-15, rtol=8.9e-16))


def optimal(study: EventStudy, weights: Array, m: float, alpha: float) -> Affine:
    """The affine estimator whose interval under smoothness ``m`` is the shortest.

    Raises
    ------
    DesignError
        ``did.honest_singular`` when the covariance is singular: some estimator then would seem to have no variance.
    """
    independent(study)
    rows = curvature(study.pre, study.post)
    fixed = second_weights(weights)
    start = fixed @ rows[study.pre - 1 :]
    free = rows[: study.pre - 1]
    fixed_size = float(np.abs(fixed).sum())
    path = _Path(free @ study.sigma @ free.T, free @ study.sigma @ start)

    def estimator(penalty: float) -> Affine:
        k = path.at(penalty)
        v = start + k @ free
        error = float(np.sqrt(v @ study.sigma @ v))
        bias = m * (fixed_size + float(np.abs(k).sum()))
        return Affine(v, float(v @ study.beta), error, bias, error * folded_quantile(bias / error, alpha))

    def gradient(penalty: float) -> float:
        """Sign of the change of the half-length along the path."""
        here = estimator(penalty)
        t = here.bias / here.std_error
        c = here.half / here.std_error
        steep = float(np.tanh(c * t))  # dc/dt
        return penalty * (c - t * steep) / here.std_error - m * steep

    if m == 0 or path.top == 0:
        return estimator(0.0)
    if gradient(path.top) <= 0:
        return estimator(path.top)
    return estimator(float(optimize.brentq(gradient, 0.0, path.top, xtol=1e-15 * path.top, rtol=8.9e-16)))


class _Path:
    """All minima of x'Qx / 2 + q'x + penalty |x|_1: piecewise linear in the penalty.

    Followed down from the penalty ``top`` at which x leaves zero; at each kink one coordinate enters or leaves
    (Osborne, Presnell and Turlach 2000; Efron and others 2004).
    """

    def __init__(self, quadratic: Array, linear: Array):
        size = len(linear)
        self.top = float(np.abs(linear).max()) if size else 0.0
        kinks, points = [self.top], [np.zeros(size)]
        active: list[int] = []
        sign = np.zeros(size)
        if self.top > 0:
            first = int(np.abs(linear).argmax())
            active, sign[first] = [first], -np.sign(linear[first])
        here = self.top
        barred = -1  # one that has just left may come back, but not at the same penalty
        while here > 0:
            part = quadratic[np.ix_(active, active)]
            still, move = -np.linalg.solve(part, linear[active]), np.linalg.solve(part, sign[active])
            step, event = 0.0, -1
            for place, i in enumerate(active):  # still - penalty * move reaches zero
                zero = still[place] / move[place] if move[place] else -1.0
                if step < zero < here * (1 - 1e-12):
                    step, event = zero, i
            for i in set(range(size)) - set(active):
                most = here * (1 - 1e-9) if i == barred else here
                a, b = linear[i] + quadratic[i, active] @ still, quadratic[i, active] @ move
                for side in (1.0, -1.0):  # a - penalty * b reaches side * penalty
                    reach = a / (side + b) if side + b else -1.0
                    if step < reach <= most:
                        step, event = reach, i
            barred = -1
            x = np.zeros(size)
            x[active] = still - step * move
            if event in active:
                x[event] = 0.0
                active.remove(event)
                sign[event] = 0.0
                barred = event
            elif event >= 0:
                slope = linear[event] + quadratic[event] @ x
                active.append(event)
                sign[event] = -np.sign(slope)
            kinks.append(step)
            points.append(x)
            here = step if active or step == 0 else 0.0
        self._kinks, self._points = np.array(kinks[::-1]), np.array(points[::-1])

    def at(self, penalty: float) -> Array:
        """The minimum at one penalty."""
        return np.array([np.interp(penalty, self._kinks, column) for column in self._points.T])
