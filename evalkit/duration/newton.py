"""Newton's method on likelihoods: steps, columns that follow from others, likelihoods without a maximum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from evalkit.effects import Array

DEPENDENT = 1e-9
"""A column whose part that does not follow from the others has less than this share of its information is dependent."""
WEAK = 1e-5
"""A direction that keeps less than this part of the information at the start is looked at."""
BEYOND, LOSS = 30.0, 1e-4
"""There is no maximum when the log-likelihood loses less than LOSS so far on (in the largest linear predictor)."""


def solve(matrix: Array, right: Array) -> Array:
    """Solution of a symmetric system, scaled to a unit diagonal; least squares where it is not positive definite."""
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix * np.outer(scale, scale)
    scaling = scale if right.ndim == 1 else scale[:, None]
    try:
        return np.asarray(scaling * linalg.cho_solve(linalg.cho_factor(scaled), scaling * right))
    except linalg.LinAlgError:
        return np.asarray(scaling * np.linalg.lstsq(scaled, scaling * right, rcond=1e-13)[0])


def dependent(information: Array, order: NDArray[np.integer] | None = None) -> list[int]:
    """Columns that follow from those before them in ``order``, by a Cholesky factor that leaves them out."""
    size = len(information)
    order = np.arange(size) if order is None else np.asarray(order)
    scale = np.sqrt(np.maximum(np.diag(information), 0.0))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = information / np.outer(scale, scale)
    lower = np.zeros((size, size))
    kept: list[int] = []
    bad: list[int] = []
    for place, j in enumerate(order):
        if kept:
            before = order[kept]
            solved = linalg.solve_triangular(lower[np.ix_(kept, kept)], scaled[j, before], lower=True)
            lower[place, kept] = solved
            rest = scaled[j, j] - solved @ solved
        else:
            rest = scaled[j, j]
        if rest > DEPENDENT:
            lower[place, place] = np.sqrt(rest)
            kept.append(place)
        else:
            bad.append(int(j))
    return bad


def uphill(information: Array, gradient: Array) -> Array:
    """Newton's step; where the information is not positive, one that climbs all the same."""
    move = solve(information, gradient)
    if gradient @ move >= 0:
        return move
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    roots, vectors = np.linalg.eigh(information * np.outer(scale, scale))
    roots = np.maximum(np.abs(roots), 1e-8 * np.abs(roots).max())
    return np.asarray(scale * (vectors @ ((vectors.T @ (scale * gradient)) / roots)))


def unbounded(
    value: Callable[[Array], float],
    first: Array,
    theta: Array,
    alike: Array,
    information: Array,
    reach: Callable[[Array], float],
    spread: Array,
) -> list[int]:
    """Parameters along which the log-likelihood does not fall on some side, none when it has a maximum.

    Where it has none, Newton's steps stop far out because nothing more is gained, not because it falls. Looked at are
    the directions in which hardly any information is left, and what the steps walked in them.

    Parameters
    ----------
    first, theta: (P,) where the steps began and where they stopped. alike, information: (P, P) minus the second
        derivative there. reach: the largest change in a linear predictor that a step (P,) makes. spread: (P,) by which
        a parameter counts among those that move together.
    """
    if not len(theta):
        return []
    scale = 1 / np.sqrt(np.maximum(np.diag(alike), 1e-300))
    metric = alike * np.outer(scale, scale)
    roots, vectors = linalg.eigh(information * np.outer(scale, scale), metric)
    weak = vectors[:, roots < WEAK]
    if not weak.size:
        return []
    walked = weak @ (weak.T @ (metric @ ((theta - first) / scale)))
    best = value(theta)
    for vector in (walked, *weak.T):
        move = scale * vector
        move = move / max(reach(move), 1e-300)
        if any(value(theta + side * BEYOND * move) > best - LOSS for side in (1.0, -1.0)):
            size = np.abs(move) * spread
            return [int(j) for j in np.flatnonzero(size > 0.3 * size.max())]
    return []
