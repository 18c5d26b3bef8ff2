"""The conditional-least-favourable hybrid test of moment inequalities, and the interval that it inverts to.

First step: the test of size kappa that compares the largest moment with the quantile of what it would be if every
moment had mean zero (the least favourable case). Second step: given which vertex is the largest, and all that is
independent of it, the largest moment is a truncated normal; it is compared with that law's quantile, at the size that
is left. Sources: Andrews, Roth and Pakes (2023), Review of Economic Studies 90: 2763-2791 (the hybrid test); Rambachan
and Roth (2023), Review of Economic Studies 90: 2555-2591 (its use here).

Nothing is simulated and there is no grid in the answer: the quantile is an integral over the angle of the two normal
variables beneath, and each end of the interval is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from evalkit.did.honest.moments import Moments
from evalkit.effects import Array

FIRST_STEP = 0.1
"""Share of the size that the first step takes: kappa = alpha / 10, as the authors advise."""
_POINTS = 401
_NODES, _SHARES = np.polynomial.legendre.leggauss(48)
Pieces = tuple[tuple[float, float], ...]


def least_favourable(loading: Array, size: float) -> float:
    """The 1 - ``size`` quantile of max_i loading_i'z, z two independent standard normals.

    In polar coordinates the maximum stays below c along the angle a as long as the radius is below c / h(a), h(a) the
    largest loading_i'(cos a, sin a). So P(max > c) is the mean over angles of exp(-c^2 / (2 h(a)^2)), zero where h is
    not positive: Gauss-Legendre between the kinks of h.
    """
    kinks = [-np.pi, np.pi]
    for i, row in enumerate(loading):
        for other in [*loading[:i], np.zeros(2)]:
            gap = row - other
            if np.hypot(*gap) > 0:
                angle = np.arctan2(gap[1], gap[0])  # equal at right angles to the gap
                kinks += [np.angle(np.exp(1j * (angle + turn))) for turn in (-np.pi / 2, np.pi / 2)]
    ends = np.unique(kinks)
    ends = np.unique(np.concatenate([ends, (ends[1:] + ends[:-1]) / 2]))
    half, middle = np.diff(ends) / 2, (ends[1:] + ends[:-1]) / 2
    angle = (middle[:, None] + half[:, None] * _NODES).ravel()
    share = (half[:, None] * _SHARES).ravel() / (2 * np.pi)
    reach = np.max(loading @ np.stack([np.cos(angle), np.sin(angle)]), axis=0)
    share, inverse = share[reach > 0], 0.5 / reach[reach > 0] ** 2

    def excess(c: float) -> float:
        return float(share @ np.exp(-c * c * inverse)) - size

    if excess(0.0) <= 0:  # pragma: no cover - a maximum over two opposite moments exceeds zero with certainty
        return 0.0
    top = _at_most(loading, size)
    return float(optimize.brentq(excess, 0.0, top, xtol=1e-15 * top, rtol=8.9e-16))


def accepts(moments: Moments, theta: Array, alpha: float, critical: float) -> NDArray[np.bool_]:
    """Whether the hybrid test of size ``alpha`` accepts each ``theta`` (n,); ``critical`` from its first step."""
    values = moments.level - np.asarray(theta, float)[:, None] * moments.slope
    return decide(values, moments.loading, alpha, critical)


def decide(values: Array, loading: Array, alpha: float, critical: float) -> NDArray[np.bool_]:
    """Whether the hybrid test accepts, from values of all moments (n, V) and their ``loading`` (V, 2)."""
    best = values.argmax(axis=1)
    eta = values[np.arange(len(values)), best]
    cov = loading @ loading.T
    variance = np.diag(cov)[best]
    known = variance > 1e-24 * np.diag(cov).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        tie = cov[best] / variance[:, None]
        border = (values - tie * eta[:, None]) / (1.0 - tie)
    low = np.where(1.0 - tie > 1e-10, border, -np.inf).max(axis=1)
    high = np.where(1.0 - tie < -1e-10, border, np.inf).min(axis=1)
    low, high = np.minimum(low, eta), np.maximum(np.minimum(high, critical), eta)
    left = FIRST_STEP * alpha
    second = (alpha - left) / (1.0 - left)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.sqrt(variance)
        above = _survival(eta / deviation, low / deviation, high / deviation)
    passed = known & (eta <= critical) & (above >= second)
    return np.asarray((eta <= 0) | passed)


def _survival(x: Array, low: Array, high: Array) -> Array:
    """P(Z >= x | low <= Z <= high), in logs: the tails may be far out."""
    at, start, end = (special.log_ndtr(-v) for v in (x, low, high))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.exp(at - start) * -np.expm1(end - at) / -np.expm1(end - start)
    return np.where(high > low, ratio, 1.0)


def accepted(moments: Moments, alpha: float) -> Pieces:
    """The theta that the hybrid test accepts, as separate intervals in increasing order; none when there is no such.

    Where the largest moment exceeds the first step's quantile nothing is accepted, which bounds the search exactly.
    Within, the test is evaluated at points close together and wherever another moment becomes the largest, and the
    change between a point that is accepted and one that is not is bisected to rounding.
    """
    critical = least_favourable(moments.loading, FIRST_STEP * alpha)
    moving = moments.slope != 0
    if (moments.level[~moving] > critical).any():
        return ()
    at = (moments.level[moving] - critical) / moments.slope[moving]
    low, high = at[moments.slope[moving] > 0].max(), at[moments.slope[moving] < 0].min()
    if low > high:
        return ()
    level, slope = moments.level, moments.slope
    gap = slope[:, None] - slope
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = ((level[:, None] - level) / gap)[np.abs(gap) > 1e-12 * np.abs(slope).max()]
    inner = crossings[(crossings > low) & (crossings < high)]
    theta = np.unique(np.concatenate([np.linspace(low, high, _POINTS), inner]))
    inside = accepts(moments, theta, alpha, critical)
    if not inside.any():
        return ()
    change = np.flatnonzero(inside[1:] != inside[:-1])
    yes = np.where(inside[change], theta[change], theta[change + 1])
    no = np.where(inside[change], theta[change + 1], theta[change])
    for _ in range(64):
        middle = (yes + no) / 2
        good = accepts(moments, middle, alpha, critical)
        yes, no = np.where(good, middle, yes), np.where(good, no, middle)
    edges = [*([theta[0]] if inside[0] else []), *yes.tolist(), *([theta[-1]] if inside[-1] else [])]
    return tuple((float(a), float(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def union(sets: Sequence[Pieces]) -> Pieces:
    """Intervals merged where they touch, in increasing order."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted(piece for pieces in sets for piece in pieces):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def accepts_one(moments: Sequence[Moments], theta: float, alpha: float) -> bool:
    """Whether ``theta`` is accepted under one of the restrictions whose union is meant."""
    point = np.array([theta])
    largest = [float((part.level - part.slope * theta).max()) for part in moments]
    if min(largest) <= 0:
        return True
    for part, value in zip(moments, largest, strict=True):
        if value < _at_most(part.loading, FIRST_STEP * alpha):  # else the first step rejects, whatever its quantile
            critical = least_favourable(part.loading, FIRST_STEP * alpha)
            if bool(accepts(part, point, alpha, critical)[0]):
                return True
    return False


def _at_most(loading: Array, size: float) -> float:
    """A bound above :func:`least_favourable`: as many moments as there are, each beyond it with size / number."""
    scale = float(np.sqrt((loading**2).sum(axis=1).max()))
    return scale * float(-special.ndtri(size / (2 * len(loading))))
