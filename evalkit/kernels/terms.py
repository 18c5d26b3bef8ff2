"""Sums over rows of a design whose factors stand as column numbers and are never written out as dummies."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int32]


@njit(cache=True)
def predict(codes: Codes, numbers: Array, at: Codes, theta: Array) -> Array:
    """(R,) x'theta; codes (R, F) columns that are one (-1: none), numbers (R, N) values of the columns ``at`` (N,)."""
    out = np.zeros(codes.shape[0])
    for r in range(codes.shape[0]):
        total = 0.0
        for f in range(codes.shape[1]):
            if codes[r, f] >= 0:
                total += theta[codes[r, f]]
        for j in range(numbers.shape[1]):
            total += numbers[r, j] * theta[at[j]]
        out[r] = total
    return out


@njit(cache=True)
def sums(codes: Codes, numbers: Array, at: Codes, weight: Array, group: NDArray[np.int64], out: Array) -> None:
    """Add weight x to the row of ``out`` (G, P) that ``group`` (R,) names; weight (R,)."""
    for r in range(codes.shape[0]):
        w = weight[r]
        if w == 0.0:
            continue
        row = out[group[r]]
        for f in range(codes.shape[1]):
            if codes[r, f] >= 0:
                row[codes[r, f]] += w
        for j in range(numbers.shape[1]):
            row[at[j]] += w * numbers[r, j]


@njit(cache=True)
def products(
    codes: Codes, numbers: Array, at: Codes, other_codes: Codes, other_numbers: Array, other_at: Codes, weight: Array,
    out: Array,
) -> None:  # fmt: skip
    """Add the cross products x w z' of two designs on the same rows to ``out`` (P, P')."""
    for r in range(codes.shape[0]):
        w = weight[r]
        if w == 0.0:
            continue
        for f in range(codes.shape[1] + numbers.shape[1]):
            if f < codes.shape[1]:
                a, v = codes[r, f], w
                if a < 0:
                    continue
            else:
                a, v = at[f - codes.shape[1]], w * numbers[r, f - codes.shape[1]]
            row = out[a]
            for g in range(other_codes.shape[1]):
                if other_codes[r, g] >= 0:
                    row[other_codes[r, g]] += v
            for j in range(other_numbers.shape[1]):
                row[other_at[j]] += v * other_numbers[r, j]
