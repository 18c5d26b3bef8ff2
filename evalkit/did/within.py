"""Weighted regressions with unit and period effects, solved from moments by cohort instead of from a design matrix.

Model: y_it = unit effect + z_i'lambda_t + sum_c 1{(g(i), t) belongs to column c} z_i'beta_c + x_it'gamma + u_it, least
squares with weights w_it. z_i is 1, or (1, covariates of the unit). Every estimator here is such a regression: only
what the columns are differs (one for "treated", one an event time, one a cohort and period).

The columns are functions of cohort and period. With the unit effects taken out, all cross products of periods and
columns in cohort g are therefore entries of one small matrix, with w_i the total weight of unit i,

    M_g = sum_i z_i z_i' (x) [diag(w_i1 .. w_iT) - (w_i1 .. w_iT)'(w_i1 .. w_iT) / w_i].

The normal equations are assembled from the M_g: exact for any pattern of missing periods, no iteration, no dummies.

Influence of unit i on a linear combination a of the coefficients, in sum form: a'H^-1 sum_t w_it R_it u_it, with H the
cross product of the residualised regressors R: what a covariance clustered on the unit (Liang and Zeger 1986; Arellano
1987) sums the squares of. Repeated cross-sections have cohort effects in the place of unit effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from evalkit.did.absorb import TwoWay
from evalkit.did.effects import by_cluster
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.effects import Array, Influence
from evalkit.errors import DesignError, Fault, UsageError

SmallSample = Literal["none", "cluster", "nested", "full"]
Covariates = bool | Sequence[str]

RANK = 1e-10
"""Share of a regressor's square sum, given the others, below which it counts as a combination of them."""

ABSORBED = 1e-7
"""Share of a covariate's standard deviation, within units and periods, below which the effects absorb it."""


def usable(panel: Panel) -> Panel:
    """The rows that count: weight above zero, of units that are seen before they are treated.

    Raises
    ------
    DesignError
        ``did.regression_no_treated`` when nobody is treated after a period before; ``did.regression_no_untreated`` when
        no row is untreated once the first are treated; ``did.regression_two_periods`` with a single period.
    """
    if (panel.weight <= 0).any():
        panel = panel.take_rows(panel.weight > 0)
    panel, _ = panel.without_always_treated()
    if len(panel.periods) < 2:
        raise DesignError(Fault("did.regression_two_periods", {}))
    if not panel.treated.any():
        raise DesignError(Fault("did.regression_no_treated", {}))
    since = panel.period >= panel.cohorts[0]
    if panel.treated[since].all():
        raise DesignError(Fault("did.regression_no_untreated", {}))
    return panel


def chosen(panel: Panel, covariates: Covariates) -> tuple[int, ...]:
    """Columns of ``panel.x`` that are asked for: all, none, or those named.

    Raises
    ------
    UsageError
        ``did.regression_unknown_covariate`` for a name that the panel does not have.
    """
    if isinstance(covariates, bool):
        return tuple(range(len(panel.names))) if covariates else ()
    for name in covariates:
        if name not in panel.names:
            raise UsageError(Fault("did.regression_unknown_covariate", {"column": name}))
    return tuple(panel.names.index(name) for name in covariates)


def allow(setting: str, value: str, *allowed: str) -> None:
    """Raise ``did.regression_setting`` (UsageError) unless the value of a setting is one of those allowed."""
    if value not in allowed:
        raise UsageError(Fault("did.regression_setting", {"setting": setting, "allowed": ", ".join(allowed)}))


def cohort_numbers(panel: Panel) -> Numbers:
    """(N,) number of a unit's cohort in ``panel.cohorts``; the number after the last for units never treated."""
    return np.searchsorted(panel.cohorts, panel.first).astype(np.int64)


def cell_sums(panel: Panel, values: Array, cohort: Numbers | None = None) -> Array:
    """(H, T) sums of a column of rows (n,) by cohort and period; the last cohort are the never treated."""
    cohort = cohort_numbers(panel) if cohort is None else cohort
    shape = (len(panel.cohorts) + 1, len(panel.periods))
    code = cohort[panel.unit] * shape[1] + panel.time
    return np.asarray(np.bincount(code, values, minlength=shape[0] * shape[1]).reshape(shape), float)


def cell_units(panel: Panel, cohort: Numbers | None = None) -> Numbers:
    """(H, T) number of units seen by cohort and period."""
    return np.rint(cell_sums(panel, np.ones(len(panel)), cohort)).astype(np.int64)


def absorbed(panel: Panel, covariates: Covariates = True) -> tuple[str, ...]:
    """Covariates that are constant within units up to a common course (or follow from the others): they drop out.

    Dropping them changes no other coefficient: the effects already hold everything that they could explain.
    """
    columns = chosen(panel, covariates)
    kept = independent(TwoWay.of(panel), panel.x[:, list(columns)])[1]
    return tuple(panel.names[column] for place, column in enumerate(columns) if place not in kept)


def independent(effects: TwoWay, x: Array) -> tuple[Array, list[int]]:
    """Residuals (n, p) of the columns that vary beyond the effects and the columns before, and which they are."""
    rest = effects.residual(x)
    weight = effects.weight
    spread = np.sqrt(weight @ (x - np.average(x, axis=0, weights=weight)) ** 2) if x.shape[1] else np.empty(0)
    size = np.sqrt(weight @ rest**2)
    kept: list[int] = []
    basis: list[Array] = []
    for j in range(x.shape[1]):
        if size[j] <= ABSORBED * spread[j] or spread[j] == 0:
            continue
        own = rest[:, j] / size[j]
        for column in basis * 2:
            own = own - (weight @ (own * column)) * column
        left = np.sqrt(weight @ own**2)
        if left > np.sqrt(RANK):
            kept.append(j)
            basis.append(own / left)
    return rest[:, kept], kept


@dataclass(frozen=True)
class Regression:
    """A fitted regression; the coefficients are ordered periods (all but the first), columns, x.

    Attributes
    ----------
    panel, effects, cohort: what it is fitted on; cohort (N,) as :func:`cohort_numbers` says.
    column: (H, T) the column that a cohort is in in a period, -1 none. ``columns``: how many there are, C.
    z: (N, Q) the regressors that periods and columns are multiplied by.
    x: (n, P) covariates by row, without the effects.
    theta: (K,); ``inverse``: (K, K) of the cross product; ``null``: (K, r) directions that the data cannot tell.
    residual: (n,).
    rank: of the regressors without the unit effects.
    """

    panel: Panel
    effects: TwoWay
    cohort: Numbers
    column: Numbers
    columns: int
    z: Array
    x: Array
    theta: Array
    inverse: Array
    null: Array
    residual: Array
    rank: int

    @property
    def _start(self) -> int:
        return (len(self.panel.periods) - 1) * self.z.shape[1]

    @property
    def _stop(self) -> int:
        return self._start + self.columns * self.z.shape[1]

    @property
    def coefficients(self) -> Array:
        """(C, Q) of the columns."""
        return self.theta[self._start : self._stop].reshape(self.columns, -1)

    @property
    def covariates(self) -> Array:
        """(P,) of x."""
        return self.theta[self._stop :]

    def estimable(self, linear: Array) -> Mask:
        """Whether each combination (M, C * Q) of the columns' coefficients follows from the data."""
        left = linear @ self.null[self._start : self._stop]
        size = np.linalg.norm(linear, axis=1)
        return np.asarray(np.abs(left).max(axis=1, initial=0.0) <= 1e-6 * np.where(size > 0, size, 1.0))

    def influence(self, linear: Array) -> Array:
        """(N, M): influence of every unit on combinations (M, C * Q) of the columns' coefficients, in sum form."""
        panel, q = self.panel, self.z.shape[1]
        periods = len(panel.periods)
        root = linear @ self.inverse[self._start : self._stop]  # (M, K)
        of_period = np.zeros((periods, q, len(linear)))
        of_period[1:] = root[:, : self._start].T.reshape(periods - 1, q, -1)
        of_column = root[:, self._start : self._stop].T.reshape(self.columns, q, -1)
        of_x = root[:, self._stop :].T
        score = panel.weight * self.residual
        out = np.empty((panel.units, len(linear)))
        wide = None if panel.repeated else np.bincount(
            panel.unit * periods + panel.time, score, panel.units * periods
        ).reshape(panel.units, periods)  # fmt: skip
        for h in range(len(self.column)):
            units = np.flatnonzero(self.cohort == h)
            if not len(units):
                continue
            slope = of_period.copy()
            slope[self.column[h] >= 0] += of_column[self.column[h][self.column[h] >= 0]]
            if wide is None:  # a row is a unit, and its residual does not sum to zero within its level
                slope -= np.tensordot(self.effects.shares[[h]].toarray()[0], slope, 1)
                out[units] = score[units, None] * slope[panel.time[units], 0]
            else:
                out[units] = sum(wide[units] * self.z[units, a, None] @ slope[:, a] for a in range(q))
        for p in range(self.x.shape[1]):
            out += np.bincount(panel.unit, score * self.x[:, p], panel.units)[:, None] * of_x[p]
        return out

    def factor(self, small_sample: SmallSample) -> float:
        """What the covariance is multiplied by; see :func:`small_sample_factor`."""
        levels = int((self.effects.total > 0).sum())
        return small_sample_factor(
            small_sample, len(self.panel.cluster_ids), len(self.panel), self.rank, levels, not self.panel.repeated
        )

    def uncertainty(self, linear: Array, small_sample: SmallSample) -> Influence:
        """The same by cluster, as a value that effects carry."""
        return by_cluster(self.panel, self.influence(linear), self.factor(small_sample))


def small_sample_factor(kind: SmallSample, clusters: int, rows: int, rank: int, levels: int, nested: bool) -> float:
    """Factor of a clustered covariance for few clusters, G clusters and n rows.

    ``none``: 1. ``cluster``: G / (G - 1). ``nested``: G / (G - 1) (n - 1) / (n - K), K the coefficients without effects
    that lie within clusters (one is counted for all of these): what fixest, reghdfe and xtreg, fe do by default.
    ``full``: the same with every effect counted in K: areg and regressions with dummies.

    Raises
    ------
    DesignError
        ``did.regression_few_clusters`` with fewer than two clusters or no degree of freedom left.
    """
    if kind not in ("none", "cluster", "nested", "full"):
        raise ValueError(f"small_sample: {kind}")
    if clusters < 2:
        raise DesignError(Fault("did.regression_few_clusters", {"clusters": clusters}))
    if kind == "none":
        return 1.0
    factor = clusters / (clusters - 1)
    if kind == "cluster":
        return factor
    used = rank + (1 if nested and kind == "nested" else levels)
    if rows <= used:
        raise DesignError(Fault("did.regression_few_clusters", {"clusters": clusters}))
    return factor * (rows - 1) / (rows - used)


def regress(panel: Panel, column: Numbers, columns: int, *, covariates: Covariates = True,
            z: Array | None = None) -> Regression:  # fmt: skip
    """Fit the regression of this module.

    Parameters
    ----------
    panel: as :func:`usable` gives it.
    column: (H, T) number of the column of a cohort (in the order of ``panel.cohorts``, then the never treated) in a
        period, -1 none; ``columns``: how many.
    covariates: which of ``panel.x`` enter by row. What the effects absorb drops out (:func:`absorbed`).
    z: (N, Q) regressors of units, the first a constant; not for repeated cross-sections.
    """
    if z is not None and panel.repeated:
        raise ValueError("regress: z is a value of a unit that is followed")
    effects = TwoWay.of(panel)
    cohort = cohort_numbers(panel)
    z = np.ones((panel.units, 1)) if z is None else z
    q, periods = z.shape[1], len(panel.periods)
    x, _ = independent(effects, panel.x[:, list(chosen(panel, covariates))])
    y = effects.residual(panel.outcome)
    start = (periods - 1) * q
    stop = start + columns * q
    size = stop + x.shape[1]
    gram, right = np.zeros((size, size)), np.zeros(size)
    targets = np.column_stack([y, x]) * panel.weight[:, None]
    for h in range(len(column)):
        units = np.flatnonzero(cohort == h)
        if not len(units):
            continue
        levels, weights = (np.array([h]), np.ones((1, 1))) if panel.repeated else (units, z[units])
        within = _moments(effects.shares[levels].toarray(), weights, effects.total[levels])
        rows = cohort[panel.unit] == h
        reached = np.stack(
            [_by_period(panel.time[rows], targets[rows] * z[panel.unit[rows], a, None], periods) for a in range(q)], 1
        ).reshape(periods * q, -1)  # (T Q, 1 + P)
        place = _places(column[h], q, start)
        _add(gram, right, within, reached, place, stop)
    gram[stop:, stop:] = x.T @ (x * panel.weight[:, None])
    right[stop:] = x.T @ targets[:, 0]
    gram[stop:, :stop] = gram[:stop, stop:].T
    inverse, null = invert(gram)
    theta = inverse @ right
    fitted = np.zeros((len(column), periods, q))
    fitted[:, 1:] += theta[:start].reshape(periods - 1, q)
    fitted[column >= 0] += theta[start:stop].reshape(columns, q)[column[column >= 0]]
    of_rows = (fitted[cohort[panel.unit], panel.time] * z[panel.unit]).sum(axis=1)
    residual = y - effects.centred(of_rows) - x @ theta[stop:]
    return Regression(
        panel, effects, cohort, column, columns, z, x, theta, inverse, null, residual, size - null.shape[1]
    )


def _by_period(time: Numbers, values: Array, periods: int) -> Array:
    return np.column_stack([np.bincount(time, value, periods) for value in values.T])


def _moments(shares: Array, z: Array, total: Array) -> Array:
    """M_g, (T Q, T Q), ordered by period and within it by regressor."""
    periods, q = shares.shape[1], z.shape[1]
    moments = np.empty((periods, q, periods, q))
    for a in range(q):
        for b in range(a + 1):
            both = z[:, a] * z[:, b] * total
            block = -(shares * both[:, None]).T @ shares
            block[np.diag_indices(periods)] += both @ shares
            moments[:, a, :, b] = moments[:, b, :, a] = (block + block.T) / 2
    return moments.reshape(periods * q, periods * q)


def _places(column: Numbers, q: int, start: int) -> list[tuple[Numbers, Numbers]]:
    """Pairs (place among the T Q of a cohort, place among the coefficients): of periods, and of columns."""
    periods = np.arange(1, len(column))
    treated = np.flatnonzero(column >= 0)
    each = np.arange(q)
    of_period = ((periods[:, None] * q + each).ravel(), ((periods[:, None] - 1) * q + each).ravel())
    of_column = ((treated[:, None] * q + each).ravel(), (start + column[treated][:, None] * q + each).ravel())
    return [of_period, of_column]


def _add(gram: Array, right: Array, within: Array, reached: Array, place: list[tuple[Numbers, Numbers]],
         stop: int) -> None:  # fmt: skip
    """Add a cohort's cross products to the normal equations; two periods may share a column."""
    for here, there in place:
        np.add.at(right, there, reached[here, 0])
        np.add.at(gram, (there[:, None], np.arange(stop, len(gram))[None, :]), reached[here, 1:])
        for other, far in place:
            np.add.at(gram, (there[:, None], far[None, :]), within[np.ix_(here, other)])


def invert(gram: Array) -> tuple[Array, Array]:
    """Inverse of a cross product (K, K) and the directions (K, r) that it cannot tell; a pseudo-inverse when r > 0."""
    scale = np.sqrt(np.diag(gram))
    scale = np.where(scale > 0, scale, 1.0)
    unit = gram / np.outer(scale, scale)
    factor, info = linalg.lapack.dpotrf(unit, lower=1)
    if info == 0 and np.diag(factor).min(initial=1.0) ** 2 > RANK:
        lower, _ = linalg.lapack.dpotri(factor, lower=1)
        inverse = np.tril(lower) + np.tril(lower, -1).T
        return inverse / np.outer(scale, scale), np.empty((len(gram), 0))
    roots, vectors = np.linalg.eigh(unit)
    told = roots > RANK * max(float(roots[-1]), 1.0)
    inverse = (vectors[:, told] / roots[told]) @ vectors[:, told].T
    null = vectors[:, ~told] / scale[:, None]
    size = np.linalg.norm(null, axis=0)
    return inverse / np.outer(scale, scale), null / np.where(size > 0, size, 1.0)


def at_event(panel: Panel) -> NDArray[np.int64]:
    """(H, T) periods since the first treated one, of each cohort; of the never treated a very low number."""
    when = np.append(panel.cohorts, NEVER)
    return panel.periods[None, :] - when[:, None]
