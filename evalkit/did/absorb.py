"""Effects of units and periods taken out of columns: weighted two-way least squares without dummies, exact.

Model: y = level effect + period effect + z'slope + u, by rows, with weights. A level is a unit, or a cohort in repeated
cross-sections. The level effects go by demeaning, so that one equation is left for each period and column, whatever the
number of units. With w_lt the weights summed by level and period, and w_l their sum, the part of the periods is

    diag(sum_l w_lt) - sum_l (w_l1 .. w_lT)'(w_l1 .. w_lT) / w_l,

for any pattern of missing periods. No iteration; a second solve for what is left takes out the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from evalkit.did.panel import Mask, Numbers, Panel
from evalkit.effects import Array

SINGULAR = 1e-10
"""Eigenvalue of the scaled normal equations, the largest being about one, below which a direction is not identified."""

INSIDE = 1e-6
"""A prediction is identified when its part in the directions that are not is smaller than this share of its length."""

CONSTANT = 1e-9
"""A column that varies less than this, as a share of its size, does not vary."""


class Solution(NamedTuple):
    """Level effects (L,), period effects (T,), slopes (P,) and residuals (n,); of the first three only what is
    identified means something by itself."""

    level: Array
    period: Array
    slope: Array
    residual: Array


@dataclass(frozen=True)
class TwoWay:
    """Weighted least squares on level and period effects and further columns; n rows, L levels, T periods, P columns.

    Attributes
    ----------
    level, time, weight: (n,) of the rows.
    total: (L,) weight of a level, 0 without rows. ``shares``: (L, T) how it is spread over the periods.
    z: (n, P) the further columns less their level means ``z_mean`` (L, P).
    inverse: (T + P, T + P) of the equations that are left, in the directions that the rows identify.
    null: (T + P, r) the directions that they do not, in units of ``scale`` (T + P,).
    """

    level: Numbers
    time: Numbers
    weight: Array
    total: Array
    shares: sparse.csr_matrix
    z: Array
    z_mean: Array
    inverse: Array
    null: Array
    scale: Array

    @classmethod
    def of(cls, panel: Panel, rows: Numbers | None = None, z: Array | None = None) -> TwoWay:
        """Of a panel, or of some of its rows, with further columns ``z`` (rows, P)."""
        level = levels_of(panel)
        levels = int(level.max(initial=-1)) + 1
        part = slice(None) if rows is None else rows
        return cls.of_rows(level[part], panel.time[part], panel.weight[part], levels, len(panel.periods), z)

    @classmethod
    def of_rows(
        cls, level: Numbers, time: Numbers, weight: Array, levels: int, periods: int, z: Array | None = None
    ) -> TwoWay:
        """From rows (n,): level 0..levels-1, period 0..periods-1, weights; further columns ``z`` (n, P)."""
        z = np.empty((len(level), 0)) if z is None else z
        p = z.shape[1]
        total = np.bincount(level, weight, levels).astype(float)
        safe = np.where(total > 0, total, 1.0)
        shares = sparse.csr_matrix((weight / safe[level], (level, time)), shape=(levels, periods))
        z_mean = np.empty((levels, p))
        for j in range(p):
            z_mean[:, j] = np.bincount(level, weight * z[:, j], levels) / safe
        within = z - z_mean[level]
        by_period = np.bincount(time, weight, periods)
        normal = np.zeros((periods + p, periods + p))
        normal[:periods, :periods] = np.diag(by_period) - _square(shares, total)
        for j in range(p):
            normal[:periods, periods + j] = np.bincount(time, weight * within[:, j], periods)
        normal[periods:, :periods] = normal[:periods, periods:].T
        normal[periods:, periods:] = within.T @ (weight[:, None] * within)
        spread = weight @ (z - z.mean(axis=0)) ** 2 if p else np.empty(0)
        size = weight.sum() * np.abs(z).max(axis=0, initial=0.0) ** 2
        scale = np.sqrt(np.concatenate([by_period, np.where(spread > CONSTANT**2 * size, spread, size)]))
        scale[scale == 0] = 1.0
        roots, vectors = np.linalg.eigh((normal + normal.T) / 2 / np.outer(scale, scale))
        kept = roots > SINGULAR
        half = vectors[:, kept] / scale[:, None]
        inverse = (half / roots[kept]) @ half.T
        return cls(level, time, weight, total, shares, within, z_mean, inverse, vectors[:, ~kept], scale)

    @property
    def periods(self) -> int:
        """T."""
        return self.shares.shape[1]

    def level_mean(self, values: Array) -> Array:
        """(L,) weighted mean of a column (n,); 0 without rows."""
        total = np.where(self.total > 0, self.total, 1.0)
        return np.asarray(np.bincount(self.level, self.weight * values, len(total)) / total)

    def centred(self, values: Array) -> Array:
        """(n,) less the weighted mean of its level."""
        return values - self.level_mean(values)[self.level]

    def within(self, beta: Array) -> Array:
        """(n,) periods and columns times ``beta`` (T + P,), less their mean within the level."""
        t = self.periods
        moved = np.asarray(beta[:t][self.time] - (self.shares @ beta[:t])[self.level])
        return moved + self.z @ beta[t:] if self.z.shape[1] else moved

    def solve(self, y: Array) -> Solution:
        """The weighted regression of a column (n,)."""
        t, mean = self.periods, self.level_mean(y)
        y = y - mean[self.level]
        beta, rest = np.zeros(len(self.inverse)), y
        for _ in range(2):
            score = self.weight * rest
            beta = beta + self.inverse @ np.concatenate([np.bincount(self.time, score, t), self.z.T @ score])
            rest = y - self.within(beta)
        return Solution(mean - self.shares @ beta[:t] - self.z_mean @ beta[t:], beta[:t], beta[t:], rest)

    def residual(self, values: Array) -> Array:
        """(n,) or (n, k) without the effects and columns."""
        if values.ndim == 2:
            return np.column_stack([self.residual(column) for column in values.T]) if values.shape[1] else values
        return self.solve(values).residual

    def identified(self, level: Numbers, time: Numbers, z: Array) -> Mask:
        """(m,) whether the prediction for rows is fixed by the rows that were fitted."""
        found = self.total[level] > 0
        if not self.null.shape[1]:
            return found
        t, square = self.periods, self.scale**-2
        size = (self.shares.power(2) @ square[:t])[level] + square[time]
        null = self.null[:t] / self.scale[:t, None]
        off = null[time] - (self.shares @ null)[level]
        if z.shape[1]:
            moved = (z - self.z_mean[level]) / self.scale[t:]
            size += (moved**2).sum(axis=1)
            off += moved @ self.null[t:]
        return np.asarray(found & (np.abs(off).max(axis=1) <= INSIDE * np.sqrt(size)))

    @property
    def slopes_identified(self) -> Mask:
        """(P,) whether the slopes are fixed by the rows."""
        return np.asarray(np.abs(self.null[self.periods :]).max(axis=1, initial=0.0) <= INSIDE)

    def weights_of(self, level: Numbers, time: Numbers, z: Array, w: Array) -> Array:
        """(n,) weights v of the fitted outcomes with sum w * prediction = sum v * y, for rows with weights w."""
        t, levels = self.periods, len(self.total)
        a = np.bincount(level, w, levels)
        b = np.concatenate([np.bincount(time, w, t) - self.shares.T @ a, z.T @ w - self.z_mean.T @ a])
        safe = np.where(self.total > 0, self.total, 1.0)
        return np.asarray(self.weight * ((a / safe)[self.level] + self.within(self.inverse @ b)))

    def weights_of_slope(self, column: int) -> Array:
        """(n,) weights v of the fitted outcomes with slope = sum v * y."""
        return self.weight * self.within(self.inverse[self.periods + column])


def levels_of(panel: Panel) -> Numbers:
    """(n,) whose effect a row has: the number of its unit; in repeated cross-sections of its cohort, never last."""
    if not panel.repeated:
        return panel.unit
    return np.unique(panel.first, return_inverse=True)[1].astype(np.int64)[panel.unit]


def _square(shares: sparse.csr_matrix, total: Array) -> Array:
    """(T, T) sum over levels of total * shares'shares; densely when most levels are seen in most periods."""
    if 4 * shares.nnz > shares.shape[0] * shares.shape[1]:
        full = shares.toarray()
        return np.asarray((full * total[:, None]).T @ full)
    return np.asarray((shares.T @ sparse.diags(total) @ shares).toarray())
