"""Covariates as a design that is never expanded: unit-level columns shared by the rows of one unit.

A person at risk in twenty risk sets has one row of covariates, not twenty. Models read the design through kernels;
only the few rows that an estimate needs are ever written out as a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalkit.effects import frozen

Array = NDArray[np.float64]

MISSING = "missing"
"""The level of those without a value."""


@dataclass(frozen=True)
class Factor:
    """A categorical covariate: its levels in order (the first is the reference) and a code a unit or row."""

    name: str
    levels: tuple[str, ...]
    codes: NDArray[np.int32]


@dataclass(frozen=True)
class Design:
    """Intercept, numeric columns and dummies for n rows of P units.

    Attributes
    ----------
    index: (n,) the unit of each row.
    numeric, numeric_names: (P, q) unit-level numeric columns.
    own_numeric, own_numeric_names: (n, r) numeric columns that differ between rows of a unit (age at time zero).
    factors: unit-level factors, codes (P,).
    own_factors: row-level factors, codes (n,): covariates that change between rows of a unit.
    time_factors: row-level factors of time, codes (n,) (elapsed month, calendar quarter): no covariates.
    """

    index: NDArray[np.int32]
    numeric: Array
    numeric_names: tuple[str, ...]
    own_numeric: Array
    own_numeric_names: tuple[str, ...]
    factors: tuple[Factor, ...]
    own_factors: tuple[Factor, ...] = ()
    time_factors: tuple[Factor, ...] = ()

    def __post_init__(self) -> None:
        n, units = len(self.index), len(self.numeric)
        if self.own_numeric.shape != (n, len(self.own_numeric_names)):
            raise ValueError(f"design: own_numeric {self.own_numeric.shape} does not fit {n} rows")
        if self.numeric.shape[1] != len(self.numeric_names):
            raise ValueError("design: numeric columns and names differ in number")
        if any(len(f.codes) != units for f in self.factors) or any(len(f.codes) != n for f in self.row_factors):
            raise ValueError("design: factor codes do not fit units or rows")

    @property
    def row_factors(self) -> tuple[Factor, ...]:
        """All factors with a code a row, those of time last."""
        return self.own_factors + self.time_factors

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names: intercept, numeric, own numeric, ``factor:level``."""
        dummies = [f"{f.name}:{level}" for f in self.factors + self.row_factors for level in f.levels[1:]]
        return ("intercept", *self.numeric_names, *self.own_numeric_names, *dummies)

    def without_time(self) -> Design:
        """The same design without the dummies of time."""
        return replace(self, time_factors=())

    def take(self, rows: NDArray[np.int64]) -> Design:
        """The design of some rows; units stay."""
        return replace(
            self,
            index=self.index[rows],
            own_numeric=self.own_numeric[rows],
            own_factors=tuple(replace(f, codes=f.codes[rows]) for f in self.own_factors),
            time_factors=tuple(replace(f, codes=f.codes[rows]) for f in self.time_factors),
        )

    def parameter_codes(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Factor codes as parameter positions, (P, f) and (n, e); -1 at the reference level."""
        position = 1 + len(self.numeric_names) + len(self.own_numeric_names)
        blocks = []
        for group, rows in ((self.factors, len(self.numeric)), (self.row_factors, len(self.index))):
            codes = np.empty((rows, len(group)), np.int32)
            for j, factor in enumerate(group):
                codes[:, j] = np.where(factor.codes > 0, position + factor.codes - 1, -1)
                position += len(factor.levels) - 1
            blocks.append(codes)
        return blocks[0], blocks[1]

    def matrix(self, rows: NDArray[np.int64] | None = None) -> Array:
        """The dense matrix (m, p) of some rows, columns as :attr:`names`."""
        part = self if rows is None else self.take(rows)
        columns: list[Array] = [np.ones((len(part.index), 1)), part.numeric[part.index], part.own_numeric]
        for factor in part.factors:
            columns.append(_dummies(factor.codes[part.index], len(factor.levels)))
        for factor in part.row_factors:
            columns.append(_dummies(factor.codes, len(factor.levels)))
        return np.concatenate(columns, axis=1)


def _dummies(codes: NDArray[np.int32], levels: int) -> Array:
    return (codes[:, None] == np.arange(1, levels)[None, :]).astype(float)


def factor(name: str, values: Sequence[object] | NDArray[np.generic]) -> Factor:
    """A factor from values; levels are sorted, None and NaN become the level ``missing``."""
    raw = np.asarray(values, dtype=object)
    missing = np.array([value is None or value != value for value in raw], dtype=bool)
    text = np.where(missing, MISSING, raw).astype(str)
    levels, codes = np.unique(text, return_inverse=True)
    return Factor(name, tuple(map(str, levels)), frozen(codes, np.int32))


def cut_factor(name: str, values: Array, cuts: Sequence[float]) -> Factor:
    """A factor from numbers: groups from one cut (included) to the next, those that occur; NaN is ``missing``, last."""
    edges = sorted(cuts)
    text = [f"{edge:g}" for edge in edges]
    between = [f"{low} - <{high}" for low, high in zip(text[:-1], text[1:], strict=True)]
    labels = [f"<{text[0]}", *between, f">={text[-1]}", MISSING] if edges else ["all", MISSING]
    groups = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
    present, codes = np.unique(groups, return_inverse=True)
    return Factor(name, tuple(labels[i] for i in present), frozen(codes, np.int32))


def integer_factor(name: str, values: NDArray[np.integer]) -> Factor:
    """A factor from whole numbers, levels in numeric order."""
    levels, codes = np.unique(values, return_inverse=True)
    return Factor(name, tuple(str(int(level)) for level in levels), frozen(codes, np.int32))
