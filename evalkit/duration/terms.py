"""A design of many rows whose factors stand as column numbers: what hazards depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.effects import Array, frozen
from evalkit.kernels import terms as kernel

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Terms:
    """R rows of P columns, without an intercept. Make it with :func:`dense`, :func:`factor` and :func:`joined`.

    Attributes
    ----------
    codes: (R, F) the column that is one in this row for each of F factors, -1 for the reference level.
    numbers: (R, N) values of the numeric columns; at: (N,) which columns they are.
    names: P names.
    """

    codes: NDArray[np.int32]
    numbers: Array
    at: NDArray[np.int32]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", frozen(self.codes, np.int32))
        object.__setattr__(self, "numbers", frozen(self.numbers))
        object.__setattr__(self, "at", frozen(self.at, np.int32))
        rows = len(self.codes)
        if self.codes.ndim != 2 or self.numbers.shape != (rows, len(self.at)):
            raise ValueError("terms: codes, numbers and columns do not fit")
        if (self.codes.size and self.codes.max() >= self.width) or (self.at.size and self.at.max() >= self.width):
            raise ValueError("terms: a column lies outside the names")

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def width(self) -> int:
        """P, the number of columns."""
        return len(self.names)

    def predict(self, theta: ArrayLike) -> Array:
        """(R,) linear predictor x'theta."""
        return np.asarray(kernel.predict(self.codes, self.numbers, self.at, np.asarray(theta, float)))

    def sums(self, weight: ArrayLike, group: NDArray[Any] | None = None, groups: int = 1) -> Array:
        """(G, P) sums of weight times x within groups, weight (R,), group (R,) in 0..G-1; one group without it."""
        out = np.zeros((groups, self.width))
        index = np.zeros(len(self), np.int64) if group is None else np.asarray(group, np.int64)
        kernel.sums(self.codes, self.numbers, self.at, np.asarray(weight, float), index, out)
        return out

    def products(self, weight: ArrayLike, other: Terms | None = None) -> Array:
        """(P, P') sum over rows of weight times x z', z the other design on the same rows (this one without it)."""
        two = self if other is None else other
        out = np.zeros((self.width, two.width))
        kernel.products(
            self.codes, self.numbers, self.at, two.codes, two.numbers, two.at, np.asarray(weight, float), out
        )
        return out

    def take(self, rows: NDArray[Any]) -> Terms:
        """Some of the rows."""
        return replace(self, codes=self.codes[rows], numbers=self.numbers[rows])

    def varying(self) -> Terms:
        """Without columns that are the same in every row: a level nobody has, a number that does not vary."""
        own = np.zeros(self.width, bool)
        for column in np.unique(self.codes[self.codes >= 0]):
            hit = (self.codes == column).any(axis=1)
            own[column] = 0 < hit.sum() < len(hit)
        for number, column in enumerate(self.at):
            own[column] |= bool(len(self)) and float(np.ptp(self.numbers[:, number])) > 0
        return self.only(np.flatnonzero(own))

    def only(self, columns: NDArray[np.integer]) -> Terms:
        """Some of the columns, in the order given; another level of a factor then counts as its reference."""
        place = np.full(self.width, -1)
        place[columns] = np.arange(len(columns))
        kept = np.flatnonzero(place[self.at] >= 0)
        codes = np.where(self.codes >= 0, place[np.maximum(self.codes, 0)], -1)
        names = tuple(self.names[j] for j in columns)
        return Terms(codes, self.numbers[:, kept], place[self.at[kept]].astype(np.int32), names)

    def matrix(self) -> Array:
        """(R, P) written out."""
        out = np.zeros((len(self), self.width))
        for f in range(self.codes.shape[1]):
            own = self.codes[:, f] >= 0
            out[np.flatnonzero(own), self.codes[own, f]] += 1.0
        for j, column in enumerate(self.at):
            out[:, column] += self.numbers[:, j]
        return out


def dense(values: ArrayLike, names: Sequence[str]) -> Terms:
    """Numeric columns only; values (R, P)."""
    x = np.asarray(values, float)
    return Terms(np.zeros((len(x), 0), np.int32), x, np.arange(x.shape[1], dtype=np.int32), tuple(names))


def factor(codes: ArrayLike, names: Sequence[str], reference: int | None = 0) -> Terms:
    """One factor; codes (R,) of its levels (negative: no level), names of all levels; the reference has no column."""
    level = np.asarray(codes, np.int64)
    place = np.arange(len(names))
    if reference is not None:
        place = np.where(place == reference, -1, place - (place > reference))
    column = np.where(level < 0, -1, place[np.maximum(level, 0)]) if len(names) else np.full(len(level), -1)
    kept = tuple(name for number, name in enumerate(names) if number != reference)
    return Terms(column[:, None], np.zeros((len(level), 0)), np.zeros(0, np.int32), kept)


def joined(*parts: Terms) -> Terms:
    """Several designs of the same rows side by side."""
    starts = np.concatenate([[0], np.cumsum([part.width for part in parts])]).astype(np.int64)
    codes = [np.where(part.codes >= 0, part.codes + start, -1) for part, start in zip(parts, starts, strict=False)]
    at = [part.at + start for part, start in zip(parts, starts, strict=False)]
    return Terms(
        np.concatenate(codes, axis=1), np.concatenate([part.numbers for part in parts], axis=1), np.concatenate(at),
        tuple(name for part in parts for name in part.names),
    )  # fmt: skip


def interacted(by: Terms, factor_codes: ArrayLike, names: Sequence[str], reference: int | None = None) -> Terms:
    """``by`` times each level of a factor: columns ``name x level``; codes (R,), negative: nothing.

    With ``reference`` None every level has its own columns; else that level has none.
    """
    level = np.asarray(factor_codes, np.int64)
    place = np.arange(len(names))
    if reference is not None:
        place = np.where(place == reference, -1, place - (place > reference))
    own = np.where(level < 0, -1, place[np.maximum(level, 0)])
    kept = [name for number, name in enumerate(names) if number != reference]
    width = by.width
    codes = np.where((by.codes >= 0) & (own[:, None] >= 0), by.codes + width * own[:, None], -1)
    blocks = [np.where((own == k)[:, None], by.numbers, 0.0) for k in range(len(kept))]
    numbers = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(by), 0))
    at = np.concatenate([by.at + width * k for k in range(len(kept))]) if kept else by.at[:0]
    return Terms(codes, numbers, at, tuple(f"{name} x {made}" for made in kept for name in by.names))
