"""Two groups, two times: the average effect on the treated, doubly robust, weighted or by regression, with influence.

Identification: given the covariates, the outcome of the treated would have changed as that of the comparison group did
(conditional parallel trends), no anticipation, and every treated unit has a chance below one of being treated.

Notation, for a panel: dY the change of a unit's outcome, D treated, x covariates with a one in front, w the sampling
weight, p(x) the logit of D on x, o(x) = p / (1 - p), m(x) the regression of dY on x among the comparison units.

- ``means``: mean_D(dY) - mean_C(dY).
- ``reg``: mean_D(dY - m(x)), Heckman, Ichimura and Todd (1997).
- ``ipw``: mean_D(dY) - mean_C(dY; weights w o), normalised (Hajek), Abadie (2005).
- ``dr``: mean_D(dY - m) - mean_C(dY - m; w o), consistent if either p or m is right.
- ``dr_improved``: the same with p from sum_D w x = sum_C w o x (inverse probability tilting) and m weighted by w o:
  then estimating p and m does not change the error to first order, also if one of the two is wrong.

For repeated cross-sections the four means (treated or not, before or after) are of different units. ``dr`` and
``dr_improved`` are then the locally efficient ones: they also use regressions among the treated.

Influence is in sum form and complete: with the part of every estimated parameter (except for ``dr_improved``, where it
is of smaller order). It is that of Sant'Anna and Zhao, derived here as a stack of estimating equations.

Source: Sant'Anna and Zhao (2020), Journal of Econometrics 219: 101-122; Graham, Pinto and Egel (2012), Review of
Economic Studies 79: 1053-1079 (tilting).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalkit.effects import Array

Method = Literal["dr", "ipw", "reg", "dr_improved", "means"]

NO_OVERLAP = 0.999
"""A unit with at least this chance of being treated: no estimate (as the R package did)."""

TRIM = 0.995
"""Comparison units with at least this chance of being treated get no weight (as the R package DRDID)."""

PIVOT = 1e-10
"""A covariate of which the others leave less than this share of its variance follows from them."""

STEPS = 60


@dataclass(frozen=True)
class TwoByTwo:
    """Effects (L,) of L outcomes with the influence (L, n) of the rows, columns as given; sum form.

    ``code``: why there is no estimate (then NaN and zeros), empty when there is. ``trimmed``: comparison rows without
    weight because their chance of treatment is too high.
    """

    estimate: Array
    influence: Array
    code: str = ""
    trimmed: int = 0


class _Refused(Exception):
    """No estimate; the code says why."""


@dataclass(frozen=True)
class _Score:
    """A fitted model of the chance of treatment: odds (n,), score (n,), inverse information (p, p), None if exact."""

    odds: Array
    score: Array | None
    inverse: Array | None
    trimmed: int


def panel_effects(delta: Array, treated: int, x: Array, weight: Array, method: Method) -> TwoByTwo:
    """Effects from changes of the same units.

    Parameters
    ----------
    delta: (L, n) changes of L outcomes; the first ``treated`` columns are of treated units, the others of comparison.
    x: (P, n) covariates without the one, best on a scale near mean 0 and standard deviation 1. With P = 0 every method
        is ``means``.
    weight: (n,) sampling weights.
    """
    lines, n = delta.shape
    try:
        if not 0 < treated < n or weight[:treated].sum() <= 0:
            raise _Refused("cell_no_treated" if treated < n else "cell_no_comparison")
        if weight[treated:].sum() <= 0:
            raise _Refused("cell_no_comparison")
        if method == "means" or not len(x):
            return _means(delta, treated, weight)
        return _adjusted(delta, treated, np.vstack([np.ones(n), x]), weight, method)
    except _Refused as reason:
        return TwoByTwo(np.full(lines, np.nan), np.zeros((lines, n)), str(reason))


def _means(delta: Array, treated: int, weight: Array) -> TwoByTwo:
    """Difference of mean changes."""
    a = _shares(weight, treated)
    influence = np.empty_like(delta)
    means = []
    for sign, part in ((1.0, slice(0, treated)), (-1.0, slice(treated, None))):
        mean = delta[:, part] @ a[part]
        np.subtract(delta[:, part], mean[:, None], out=influence[:, part])
        influence[:, part] *= sign * a[part]
        means.append(mean)
    return TwoByTwo(means[0] - means[1], influence)


def _shares(weight: Array, treated: int) -> Array:
    """Weights that add up to one among the treated and among the others."""
    return np.concatenate([weight[:treated] / weight[:treated].sum(), weight[treated:] / weight[treated:].sum()])


def _adjusted(delta: Array, treated: int, x: Array, weight: Array, method: Method) -> TwoByTwo:
    weight = weight / weight.mean()
    one, two = slice(0, treated), slice(treated, None)
    a1 = weight[one] / weight[one].sum()
    xc, wc = x[:, two], weight[two]
    score, a0 = None, None
    if method != "reg":
        score = tilting(x, treated, weight) if method == "dr_improved" else logit(x, treated, weight)
        a0 = score.odds[two] * wc
        if a0.sum() <= 0:
            raise _Refused("cell_no_overlap")
        a0 = a0 / a0.sum()
    residual, pull = delta, None
    if method != "ipw":
        if np.count_nonzero(wc) <= len(x):
            raise _Refused("cell_singular")  # a regression through every point has no error left
        wm = wc if a0 is None or method == "dr" else a0 * len(a0)
        bread = _inverse((xc * wm) @ xc.T)
        beta = (delta[:, two] * wm) @ xc.T @ bread
        residual = delta - beta @ x
        if method != "dr_improved":
            aim = x[:, one] @ a1 - (0.0 if a0 is None else xc @ a0)
            pull = wc * ((bread @ aim) @ xc)  # what the regression's coefficients pass on
    influence = np.empty_like(delta)
    mean = residual[:, one] @ a1
    np.subtract(residual[:, one], mean[:, None], out=influence[:, one])
    influence[:, one] *= a1
    if a0 is None:
        np.multiply(residual[:, two], -np.asarray(pull), out=influence[:, two])
        return TwoByTwo(mean, influence)
    other = residual[:, two] @ a0
    np.multiply(residual[:, two], -(a0 if pull is None else a0 + pull), out=influence[:, two])
    influence[:, two] += other[:, None] * a0
    if score is not None and score.score is not None:
        slope = ((residual[:, two] - other[:, None]) * a0) @ xc.T @ np.asarray(score.inverse)
        influence -= slope @ (x * score.score)
    return TwoByTwo(mean - other, influence, "", 0 if score is None else score.trimmed)


def section_effects(y: Array, sizes: tuple[int, int, int, int], x: Array, weight: Array, method: Method) -> TwoByTwo:
    """The effect from cross-sections, one outcome: every row is another unit, or a unit before or after.

    Parameters
    ----------
    y: (n,) outcomes in four blocks of ``sizes``: treated after, treated before, comparison after, comparison before.
    x: (P, n) covariates of the rows, as in :func:`panel_effects`.
    weight: (n,) sampling weights.
    """
    n = len(y)
    edge = np.cumsum((0, *sizes))
    part = [slice(int(edge[i]), int(edge[i + 1])) for i in range(4)]
    try:
        for i, code in enumerate(("cell_no_treated", "cell_no_treated", "cell_no_comparison", "cell_no_comparison")):
            if weight[part[i]].sum() <= 0:
                raise _Refused(code)
        full = np.vstack([np.ones(n), x]) if method != "means" and len(x) else None
        return _sections(y, part, full, weight / weight.mean(), method)
    except _Refused as reason:
        return TwoByTwo(np.array([np.nan]), np.zeros((1, n)), str(reason))


def _sections(y: Array, part: list[slice], x: Array | None, weight: Array, method: Method) -> TwoByTwo:
    """Four means with signs; see the head of the module."""
    tp, tb, cp, cb = part  # treated post and before, comparison post and before
    both = slice(0, tb.stop)  # all treated rows
    sign = {0: 1.0, 1: -1.0, 2: -1.0, 3: 1.0}
    influence = np.zeros_like(y)
    if x is None:
        value = 0.0
        for i, rows in enumerate(part):
            a = weight[rows] / weight[rows].sum()
            mean = float(a @ y[rows])
            value += sign[i] * mean
            influence[rows] = sign[i] * a * (y[rows] - mean)
        return TwoByTwo(np.array([value]), influence[None])
    treated = both.stop
    score = None
    if method != "reg":
        score = tilting(x, treated, weight) if method == "dr_improved" else logit(x, treated, weight)
    a_d = weight[both] / weight[both].sum()
    mean_d = x[:, both] @ a_d
    bread: dict[int, Array] = {}
    beta: dict[int, Array] = {}
    wm = weight.copy()
    if score is not None and method == "dr_improved":
        wm[treated:] *= score.odds[treated:]
    for i, rows in enumerate(part):
        if method == "ipw" or (method == "reg" and i < 2):
            beta[i] = np.zeros(len(x))
            continue
        if np.count_nonzero(wm[rows]) <= len(x):
            raise _Refused("cell_singular")
        bread[i] = _inverse((x[:, rows] * wm[rows]) @ x[:, rows].T)
        beta[i] = bread[i] @ (x[:, rows] @ (wm[rows] * y[rows]))

    def passed(i: int, gradient: Array) -> None:
        """Adds what the coefficients of regression i pass on, ``gradient`` the derivative of the effect to them."""
        rows = part[i]
        error = y[rows] - beta[i] @ x[:, rows]
        influence[rows] += wm[rows] * error * ((bread[i] @ gradient) @ x[:, rows])

    if method == "reg":
        value = 0.0
        for i in (0, 1):
            a = weight[part[i]] / weight[part[i]].sum()
            mean = float(a @ y[part[i]])
            value += sign[i] * mean
            influence[part[i]] += sign[i] * a * (y[part[i]] - mean)
        change = (beta[2] - beta[3]) @ x[:, both]
        shift = float(a_d @ change)
        influence[both] -= a_d * (change - shift)
        passed(2, -mean_d)
        passed(3, mean_d)
        return TwoByTwo(np.array([value - shift]), influence[None])

    assert score is not None
    chance = weight.copy()
    chance[treated:] *= score.odds[treated:]
    value, slope = 0.0, np.zeros(len(x))
    means_of_x = []
    for i, rows in enumerate(part):
        if chance[rows].sum() <= 0:
            raise _Refused("cell_no_overlap")
        a = chance[rows] / chance[rows].sum()
        residual = y[rows] - beta[2 + i % 2] @ x[:, rows]
        mean = float(a @ residual)
        value += sign[i] * mean
        influence[rows] += sign[i] * a * (residual - mean)
        means_of_x.append(x[:, rows] @ a)
        if i >= 2:
            slope += sign[i] * (x[:, rows] @ (a * (residual - mean)))
    if method != "ipw":
        for i in (0, 1):  # the locally efficient part: all treated rows against those of one time
            rows = part[i]
            gain = (beta[i] - beta[2 + i]) @ x[:, both]
            a = weight[rows] / weight[rows].sum()
            of_all, of_time = float(a_d @ gain), float(a @ gain[rows])
            value += sign[i] * (of_all - of_time)
            influence[both] += sign[i] * a_d * (gain - of_all)
            influence[rows] -= sign[i] * a * (gain[rows] - of_time)
            if method == "dr":
                passed(i, sign[i] * (mean_d - means_of_x[i]))
                passed(2 + i, sign[i] * (means_of_x[2 + i] - mean_d))
    if score.score is not None:
        influence += (slope @ np.asarray(score.inverse)) @ (x * score.score)
    return TwoByTwo(np.array([value]), influence[None], "", score.trimmed)


def _inverse(gram: Array) -> Array:
    """Inverse of a matrix of cross products; refused where a column follows from the others."""
    scale = np.sqrt(np.diag(gram))
    if not (scale > 0).all():
        raise _Refused("cell_singular")
    unit = gram / np.outer(scale, scale)
    try:
        factor = np.linalg.cholesky(unit)
    except np.linalg.LinAlgError:
        raise _Refused("cell_singular") from None
    if np.diag(factor).min() ** 2 < PIVOT:
        raise _Refused("cell_singular")
    half = np.linalg.inv(factor) / scale
    return np.asarray(half.T @ half)


def logit(x: Array, treated: int, weight: Array) -> _Score:
    """Logit of being among the first ``treated`` columns, to its exact maximum; odds of the trimmed are 0."""
    eta, gradient, inverse = _newton(x, treated, weight, _logit_terms)
    odds, trimmed = _odds(eta, treated)
    return _Score(odds, gradient, inverse, trimmed)


def tilting(x: Array, treated: int, weight: Array) -> _Score:
    """Odds exp(x'g) with which the comparison columns get the treated ones' sums of x."""
    eta, _, _ = _newton(x, treated, weight, _tilting_terms)
    odds, trimmed = _odds(eta, treated)
    return _Score(odds, None, None, trimmed)


def _odds(eta: Array, treated: int) -> tuple[Array, int]:
    """exp(eta), refused without overlap; how many comparison columns are trimmed."""
    if eta.max() >= np.log(NO_OVERLAP / (1 - NO_OVERLAP)):
        raise _Refused("cell_no_overlap")
    odds = np.exp(eta)
    out = eta[treated:] >= np.log(TRIM / (1 - TRIM))
    odds[treated:][out] = 0.0
    return odds, int(np.count_nonzero(out))


def _logit_terms(eta: Array, treated: int, weight: Array) -> tuple[Array, Array]:
    """Derivative of the log likelihood to eta and its negative second derivative, a column."""
    with np.errstate(over="ignore"):
        chance = 1.0 / (1.0 + np.exp(-eta))
    gradient = -weight * chance
    curve = -gradient * (1.0 - chance)
    gradient[:treated] += weight[:treated]
    return gradient, curve


def _tilting_terms(eta: Array, treated: int, weight: Array) -> tuple[Array, Array]:
    """The same of sum_D w eta - sum_C w exp(eta)."""
    gradient, curve = weight.copy(), np.zeros_like(weight)
    curve[treated:] = weight[treated:] * np.exp(np.minimum(eta[treated:], 300.0))
    gradient[treated:] = -curve[treated:]
    return gradient, curve


def _newton(
    x: Array, treated: int, weight: Array, terms: Callable[[Array, int, Array], tuple[Array, Array]]
) -> tuple[Array, Array, Array]:
    """eta = theta'x at the maximum of a concave function, its gradient a column, and the inverse curvature.

    Newton's method; a step at whose end the slope has turned around is halved. It stops after a step that gains less
    than 1e-12: the next would gain less than 1e-24. (R's glm stops when the deviance changes by less than 1e-8 of
    itself and keeps the curvature of the step before, which shows in the fourth digit of a standard error.)
    """
    _inverse((x * weight) @ x.T)  # refuses what no model can tell apart, before the search is lost in it
    theta = np.zeros(len(x))
    theta[0] = np.log(weight[:treated].sum() / weight[treated:].sum())
    eta = theta @ x
    gradient, curve = terms(eta, treated, weight)
    try:
        for _ in range(STEPS):
            slope = x @ gradient
            step = _inverse((x * curve) @ x.T) @ slope
            gain = float(slope @ step)
            before, size = theta, 1.0
            while True:
                theta = before + size * step
                eta = theta @ x
                gradient, curve = terms(eta, treated, weight)
                turned = float((x @ gradient) @ step)
                if gain < 1e-12 or turned > -0.1 * gain or size < 1e-6:
                    break
                size /= 2
            if gain < 1e-12:
                return eta, gradient, _inverse((x * curve) @ x.T)
    except _Refused:
        pass  # the curvature vanished: some combination of covariates tells the groups apart
    raise _Refused("cell_separated")
