"""Restrictions on the difference in trends, as moment inequalities from which the unknown effects are gone.

Let delta (T,) be the difference in trends that would have been there without treatment, 0 in the base period, so that
beta_pre = delta_pre and beta_post = tau + delta_post. The contrast is theta = l'tau. A restriction gives inequalities
A delta <= d. For a hypothesised theta the other effects are nuisance; the least violation over them,

    eta = min over eta, tau with l'tau = theta of eta  such that  A (beta - tau) - d <= eta * sd(A beta),

is a linear programme, and by duality the maximum of g'(A beta - d) over the vertices g of its dual. Both restrictions
here tie every effect to an increment of the trend by a triangular matrix, so that only *one* combination of the
inequalities is free of nuisance. The vertices then are few and known in closed form, whatever the number of periods: no
programme has to be solved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalkit.did.honest.study import EventStudy
from evalkit.effects import Array


@dataclass(frozen=True)
class Moments:
    """The values at the V vertices: ``level - slope * theta``, normal with covariance ``loading @ loading.T``.

    All have mean zero or less where theta is true and the restriction holds; ``loading`` (V, 2).
    """

    level: Array
    slope: Array
    loading: Array


def differences(pre: int, post: int) -> Array:
    """(T, T) of first differences delta(t + 1) - delta(t), t = -pre..post-1, of a vector without its base of zero."""
    full = np.diff(np.eye(pre + 1 + post), axis=0)
    return np.delete(full, pre, axis=1)


def curvature(pre: int, post: int) -> Array:
    """(T - 1, T) of second differences around t = -pre+1..post-1, of a vector without its base of zero."""
    full = np.diff(np.eye(pre + 1 + post), n=2, axis=0)
    return np.delete(full, pre, axis=1)


def second_weights(weights: Array) -> Array:
    """(post,) weights of the second differences around t = 0..post-1 that give l'delta_post but for the last slope.

    k_j = sum over i > j of (i - j) l_i, i = 1..post.
    """
    return np.cumsum(np.cumsum(weights[::-1]))[::-1]


def smoothness(study: EventStudy, weights: Array, m: float) -> Moments:
    """Moments of smoothness: no change of slope beyond ``m`` from one period to the next, |second difference| <= m.

    Those around periods before the base are left out, as they do not hold an effect. Free of nuisance is
    sum_j k_j (second difference j of beta) = l'beta_post + k_0 beta_last: the contrast less what the last slope before
    the base extrapolates to.
    """
    rows = curvature(study.pre, study.post)[study.pre - 1 :]
    spread = _deviation(rows, study.sigma)
    k = second_weights(weights)
    direction = k @ rows
    size = float(np.abs(k) @ spread)
    signs = np.array([1.0, -1.0, 0.0])
    level = np.append(
        signs[:2] * float(direction @ study.beta) / size - m * float(np.abs(k).sum()) / size,
        -m / float(spread.max()),  # the two sides of one inequality against each other
    )
    loading = np.zeros((3, 2))
    loading[:, 0] = signs * float(_deviation(direction[None], study.sigma)[0]) / size
    return Moments(level, signs / size, loading)


def relative_magnitudes(study: EventStudy, weights: Array, m: float) -> tuple[Moments, ...]:
    """Moments of relative magnitudes: no increment of the trend after the base beyond ``m`` times the largest before.

    That set is a union over the increment before the base which is the largest, and over its sign: one ``Moments``
    each, with |increment after| <= m u, u the signed increment before. Increments before the base are compared with
    each other nowhere: the union is the same without, and such inequalities do not hold an effect.
    """
    rows = differences(study.pre, study.post)
    after = rows[study.pre :]
    w = np.cumsum(weights[::-1])[::-1]  # l'delta_post = w'(increments after the base)
    direction = w @ after
    found = []
    for increment in rows[: study.pre]:
        for before in (increment, -increment):
            upper, lower = _deviation(after - m * before, study.sigma), _deviation(-after - m * before, study.sigma)
            plus, minus = np.maximum(w, 0.0), np.maximum(-w, 0.0)
            sizes = plus @ upper + minus @ lower, minus @ upper + plus @ lower
            total = m * float(np.abs(w).sum())
            pairs = upper + lower  # u >= 0 follows from the two sides of each inequality: the extremes suffice
            coefficients = np.array(
                [
                    [1.0 / sizes[0], -total / sizes[0]],
                    [-1.0 / sizes[1], -total / sizes[1]],
                    [0.0, -2.0 * m / pairs.min()],
                    [0.0, -2.0 * m / pairs.max()],
                ]
            )
            both = np.stack([direction, before])
            found.append(
                Moments(coefficients @ (both @ study.beta), coefficients[:, 0], coefficients @ _root(both, study.sigma))
            )
    return tuple(found)


def _deviation(rows: Array, sigma: Array) -> Array:
    return np.sqrt(np.clip(np.einsum("ij,jk,ik->i", rows, sigma, rows), 0.0, None))


def _root(pair: Array, sigma: Array) -> Array:
    """(2, 2) lower triangular root of the covariance of two combinations; the second may follow from the first."""
    (a, c), (_, b) = pair @ sigma @ pair.T
    first = np.sqrt(a)
    return np.array([[first, 0.0], [c / first, np.sqrt(max(b - c * c / a, 0.0))]])
