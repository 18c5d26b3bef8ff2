"""Whether a log-likelihood has a maximum where Newton's steps stopped."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import linalg

from evalkit.effects import Array

WEAK = 1e-5
"""A direction that keeps less than this part of the information at the start is looked at."""
BEYOND, LOSS = 30.0, 1e-4
"""There is no maximum when the log-likelihood loses less than LOSS so far on (in the largest linear predictor)."""


def unbounded(
    value: Callable[[Array], float], theta: Array, information: Array, alike: Array, predictors: Array, spread: Array
) -> list[int]:
    """Parameters along which the log-likelihood does not fall on some side, none when it has a maximum.

    Where it has none, Newton's steps stop far out because nothing more is gained, not because it falls.

    information, alike: (P, P) minus the second derivative at theta and at the start. predictors: (n, P) how linear
    predictors move. spread: (P,) by which a parameter counts among those that move together.
    """
    if not len(theta):
        return []
    scale = 1 / np.sqrt(np.maximum(np.diag(alike), 1e-300))
    roots, vectors = linalg.eigh(information * np.outer(scale, scale), alike * np.outer(scale, scale))
    best = value(theta)
    for vector in vectors[:, roots < WEAK].T:
        move = scale * vector
        move = move / max(float(np.abs(predictors @ move).max()), 1e-300)
        for side in (1.0, -1.0):
            if value(theta + side * BEYOND * move) > best - LOSS:
                size = np.abs(move) * spread
                return np.flatnonzero(size > 0.3 * size.max()).tolist()
    return []
