"""The columns that a weighting method balances or fits on: covariates, powers, products; standardised, named, checked.

Every method works on one :class:`Problem`. Its matrix starts with a column of ones; the others have mean zero and
standard deviation one over the rows at hand, which changes no weight and keeps Newton's method well conditioned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import DesignError, Fault
from evalkit.matching.adjustment import Array, Mask, TargetName
from evalkit.matching.newton import pivots

PIVOT = 1e-9
"""A column of which a smaller share of the variance is its own follows from the columns before it."""

FLAT = 1e-18
"""A variance of a standardised term that is zero but for rounding."""

BLOCK = 16_384
"""Rows taken together in sums of products: fits the cache, and the order of the sum is fixed."""


@dataclass(frozen=True)
class Problem:
    """What a weighting method gets.

    Attributes
    ----------
    treated: (n,) bool.
    z: (n, 1 + k) a column of ones and the standardised terms.
    base: (n,) base weights, > 0.
    target: whose average effect.
    names: (k,) names of the terms, for messages. ``centre``, ``scale``: (k,) of the terms before standardising.
    yardstick: (k,) standard deviation of each standardised term in the group that the target is about.
    binary: (k,) whether a term has two values.
    account: whether derivative and influence are asked for.
    """

    treated: Mask
    z: Array
    base: Array
    target: TargetName
    names: tuple[str, ...]
    centre: Array
    scale: Array
    yardstick: Array
    binary: NDArray[np.bool_]
    account: bool = True

    def named(self, direction: Array, most: int = 3) -> str:
        """The terms that weigh most in a direction (k,), for a message."""
        size = np.abs(direction)
        order = np.argsort(-size, kind="stable")[:most]
        return ", ".join(self.names[j] for j in order if size[j] >= 0.1 * size.max(initial=0.0))


@dataclass(frozen=True)
class Solution:
    """What a weighting method gives back, on the rows of its problem; the fields are those of ``Weights``.

    ``fixed``: (n,) rows whose weight is not estimated (1 in their own target group); no cap applies to them.
    """

    weight: Array
    population: Array
    score: Array | None
    derivative: Array | None
    influence: Array | None
    fixed: Mask
    population_derivative: Array | None = None
    converged: bool = True
    iterations: int = 0


def cross(z: Array, weight: Array) -> Array:
    """Sum of w_i z_i z_i' (k, k), in blocks of rows."""
    total = np.zeros((z.shape[1], z.shape[1]))
    for first in range(0, len(z), BLOCK):
        block = z[first : first + BLOCK]
        total += (block * weight[first : first + BLOCK, None]).T @ block
    return (total + total.T) / 2


def solve_symmetric(matrix: Array, right: Array) -> Array:
    """Solve with a positive definite matrix whose columns may differ in scale; LinAlgError when it has no inverse."""
    scale = np.sqrt(np.diag(matrix))
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise np.linalg.LinAlgError("no information on a column")
    wide = scale if right.ndim == 1 else scale[:, None]
    return np.asarray(np.linalg.solve(matrix / np.outer(scale, scale), right / wide) / wide)


def pseudo_inverse(matrix: Array, smallest: float = 1e-12) -> Array:
    """Inverse of a symmetric positive semi-definite matrix; directions without information are left out."""
    scale = np.sqrt(np.diag(matrix))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    use = values > smallest * values[-1]
    half = vectors[:, use] / np.sqrt(values[use]) / scale[:, None]
    return np.asarray(half @ half.T)


def moments_of(x: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted mean and variance (divided by the sum of weights) of each column."""
    total = weight.sum()
    mean = weight @ x / total
    variance = np.zeros(x.shape[1])
    for first in range(0, len(x), BLOCK):
        variance += weight[first : first + BLOCK] @ (x[first : first + BLOCK] - mean) ** 2
    return mean, variance / total


def two_valued(x: Array) -> NDArray[np.bool_]:
    """Columns (k,) with at most two different values."""

    def two(column: Array) -> bool:
        low, high = column.min(), column.max()
        return all(
            bool(((part == low) | (part == high)).all())
            for part in (column[:BLOCK], column[BLOCK:])  # the first rows settle it for most columns
        )

    return np.array([two(column) for column in x.T])


def small_sample(rows: int, binary: NDArray[np.bool_]) -> Array:
    """Factor on a variance: n / (n - 1) for numbers, 1 for shares."""
    return np.where(binary, 1.0, rows / max(rows - 1, 1))


def yardstick(x: Array, treated: Mask, base: Array, target: TargetName, binary: NDArray[np.bool_]) -> Array:
    """Standard deviation (k,) in which differences are told, of standardised terms ``x`` (n, k) before weighting.

    That of the treated (att), of the others (atc), or the root of the mean of both variances; n - 1 for numbers,
    p (1 - p) for shares, as in ``evalkit.balance``. Where it is zero, that of all rows, which is one.
    """
    variance = {}
    for arm in (True, False):
        rows = treated == arm
        variance[arm] = moments_of(x[rows], base[rows])[1] * small_sample(int(rows.sum()), binary)
    chosen = variance[target == "att"] if target in ("att", "atc") else (variance[True] + variance[False]) / 2
    return np.sqrt(np.where(chosen > FLAT, chosen, 1.0))


def problem(
    treated: Mask,
    x: Array,
    base: Array,
    target: TargetName,
    names: tuple[str, ...],
    *,
    moments: int = 1,
    interactions: bool = False,
    account: bool = True,
) -> Problem:
    """Standardise, add powers and products, and refuse columns that cannot be told apart.

    Powers are of the standardised covariates and only of those with more than two values; products are of pairs.
    A power or product that is constant or follows from the terms before it is left out: it is balanced with them.

    Raises
    ------
    DesignError
        ``design.constant_column``, ``design.collinear`` for a covariate itself.
    """
    n, p = x.shape
    centre, variance = moments_of(x, base)
    scale = np.sqrt(variance)
    constant = np.flatnonzero(scale <= 1e-12 * np.abs(centre))
    if len(constant):
        raise DesignError(Fault("design.constant_column", {"column": names[constant[0]]}))
    z = np.empty((n, 1 + p))
    z[:, 0] = 1.0
    np.divide(x - centre, scale, out=z[:, 1:])
    labels = list(names)
    binary = two_valued(x)
    if moments > 1 or interactions:
        extra, extra_labels = _derived(z[:, 1:], labels, binary, moments, interactions)
        mean, variance = moments_of(extra, base)
        varies = np.sqrt(variance) > 1e-9
        extra = (extra[:, varies] - mean[varies]) / np.sqrt(variance[varies])
        centre = np.concatenate([centre, mean[varies]])
        scale = np.concatenate([scale, np.sqrt(variance[varies])])
        z = np.concatenate([z, extra], axis=1)
        labels += [label for label, keep in zip(extra_labels, varies, strict=True) if keep]
    kept = pivots(cross(z, base / base.sum()), ("",) + tuple(labels), 1 + p, PIVOT)
    if len(kept) < z.shape[1]:
        z = np.ascontiguousarray(z[:, kept])
        labels = [labels[j - 1] for j in kept[1:]]
        centre, scale = centre[kept[1:] - 1], scale[kept[1:] - 1]
    if z.shape[1] > 1 + p:
        binary = np.concatenate([binary, two_valued(z[:, 1 + p :])])
    width = yardstick(z[:, 1:], treated, base, target, binary)
    return Problem(treated, z, base, target, tuple(labels), centre, scale, width, binary, account)


def _derived(
    z: Array, names: list[str], binary: NDArray[np.bool_], moments: int, interactions: bool
) -> tuple[Array, list[str]]:
    """Powers up to ``moments`` and, if asked, products of pairs."""
    columns: list[Array] = []
    labels: list[str] = []
    for power in range(2, moments + 1):
        for column, name, two in zip(z.T, names, binary, strict=True):
            if not two:
                columns.append(column**power)
                labels.append(f"{name}^{power}")
    if interactions:
        for i in range(z.shape[1]):
            for j in range(i + 1, z.shape[1]):
                columns.append(z[:, i] * z[:, j])
                labels.append(f"{names[i]} x {names[j]}")
    return (np.column_stack(columns) if columns else np.empty((len(z), 0))), labels
