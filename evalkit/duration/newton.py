"""Linear algebra of likelihoods: Newton steps, and columns that follow from others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from evalkit.effects import Array

DEPENDENT = 1e-9
"""A column whose part that does not follow from the others has less than this share of its information is dependent."""


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
