"""Do the groups look alike before the start: standardised differences, variance ratios, distances of distributions.

Conventions: the denominator of a standardised difference comes from the unadjusted sample, before and after alike: the
standard deviation of the treated (att), of the others (atc), or the root of the mean of both variances (ate and the
overlap targets); n - 1 for numbers and sqrt(p (1 - p)) for shares. Weighted variances use
sum w (x - mean)^2 / (1 - sum w^2) with weights that add up to one (as MatchIt and cobalt do). Shares are standardised
too, as MatchIt does (``standardised``); cobalt shows their difference as it is (``raw``).

Two doors: :func:`balance` works on a design that is never written out (matching of register entries);
:func:`balance_statistics` on a plain matrix, for weights of both arms and any target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from evalkit.design import Design
from evalkit.effects import frozen
from evalkit.errors import DesignError, Fault

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

Target = Literal["att", "atc", "ate", "ato", "atm"]
BinaryConvention = Literal["standardised", "raw"]


class Moments(NamedTuple):
    """Mean and variance of each column (c,)."""

    mean: Array
    variance: Array


@dataclass(frozen=True)
class BalanceRow:
    """One covariate, or one level of a categorical one. ``p_value`` tests mean after.

    Variance ratios ``vr``, standard deviations ``sd`` and distances between distributions ``ks`` are None for shares.
    """

    variable: str
    level: str
    mean_treated: float
    mean_before: float
    mean_after: float
    smd_before: float
    smd_after: float
    vr_before: float | None
    vr_after: float | None
    p_value: float
    sd_treated: float | None = None
    sd_before: float | None = None
    sd_after: float | None = None
    ks_before: float | None = None
    ks_after: float | None = None
    mean_treated_after: float | None = None


def columns(design: Design) -> list[tuple[str, str]]:
    """(variable, level) of every balance column: numbers have no level, every level of a factor has its own."""
    numbers = [(name, "") for name in design.numeric_names + design.own_numeric_names]
    return numbers + [(f.name, level) for f in design.factors + design.own_factors for level in f.levels]


def moments(design: Design, weight: Array) -> Moments:
    """Weighted moments of all balance columns over the design's rows, without writing the rows out."""
    weight = weight / weight.sum()
    units = np.bincount(design.index, weight, minlength=len(design.numeric))
    spread = 1.0 - float(weight @ weight)
    spread = spread if spread > 0 else np.nan
    means: list[Array] = []
    variances: list[Array] = []
    for block, block_weight in ((design.numeric, units), (design.own_numeric, weight)):
        mean = block_weight @ block
        means.append(mean)
        variances.append(block_weight @ (block - mean) ** 2 / spread)
    both = [(f, units) for f in design.factors] + [(f, weight) for f in design.own_factors]
    for factor, factor_weight in both:
        share = np.asarray(np.bincount(factor.codes, factor_weight, minlength=len(factor.levels)), float)
        means.append(share)
        variances.append(share * (1 - share))
    return Moments(np.concatenate(means), np.concatenate(variances))


def wide(design: Design, rows: NDArray[np.int64]) -> Array:
    """Balance columns of some rows, written out (m, c)."""
    part = design.take(rows)
    blocks = [part.numeric[part.index], part.own_numeric]
    coded = [(f.codes[part.index], f) for f in part.factors] + [(f.codes, f) for f in part.own_factors]
    blocks += [(codes[:, None] == np.arange(len(f.levels))[None, :]).astype(float) for codes, f in coded]
    return np.concatenate(blocks, axis=1)


def balance(
    design: Design,
    treated: NDArray[np.bool_],
    matched_treated: Array,
    matched_control: Array,
    p_values: Array | None = None,
    target: Target = "att",
) -> tuple[BalanceRow, ...]:
    """Balance before and after. Weights (n,) of treated and comparison rows; ``target`` decides the denominator."""
    one = treated.astype(float)
    of_treated, before = moments(design, one), moments(design, 1.0 - one)
    kept, after = moments(design, matched_treated), moments(design, matched_control)
    scale = np.sqrt(_pooled(target, of_treated.variance, before.variance))
    scale = np.where(scale > 0, scale, np.nan)
    gaps = [_distances(design, one, 1.0 - one), _distances(design, matched_treated, matched_control)]
    rows = []
    for j, (variable, level) in enumerate(columns(design)):
        share = bool(level)
        rows.append(
            BalanceRow(
                variable,
                level,
                float(of_treated.mean[j]),
                float(before.mean[j]),
                float(after.mean[j]),
                _ratio(of_treated.mean[j] - before.mean[j], scale[j]),
                _ratio(kept.mean[j] - after.mean[j], scale[j]),
                None if share else _ratio(of_treated.variance[j], before.variance[j]),
                None if share else _ratio(kept.variance[j], after.variance[j]),
                1.0 if p_values is None else float(p_values[j]),
                sd_treated=None if share else float(np.sqrt(of_treated.variance[j])),
                sd_before=None if share else float(np.sqrt(before.variance[j])),
                sd_after=None if share else float(np.sqrt(after.variance[j])),
                ks_before=gaps[0][j],
                ks_after=gaps[1][j],
                mean_treated_after=float(kept.mean[j]),
            )
        )
    return tuple(rows)


def _pooled(target: Target, treated: Array, others: Array) -> Array:
    """Variance behind the denominator: of the group whose effect is asked for, else the mean of both."""
    return {"att": treated, "atc": others}.get(target, (treated + others) / 2)


def _distances(design: Design, of_treated: Array, of_others: Array) -> list[float | None]:
    """Kolmogorov-Smirnov distance of every balance column, without writing rows out; None for shares.

    Weights are summed by unit first, so that a person in many rows is sorted once.
    """
    signed = of_treated / of_treated.sum() - of_others / of_others.sum()
    units = np.bincount(design.index, signed, minlength=len(design.numeric)).astype(float)
    found: list[float | None] = [_largest_gap(column, units) for column in design.numeric.T]
    found += [_largest_gap(column, signed) for column in design.own_numeric.T]
    return found + [None] * sum(len(f.levels) for f in design.factors + design.own_factors)


def _largest_gap(column: Array, signed: Array) -> float:
    order = np.argsort(column)  # within equal values the order changes nothing but the last bit
    ranked = column[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    return float(np.abs(np.cumsum(signed[order])[last]).max()) if len(column) else 0.0


def weighted_p_values(values: Array, treated: Mask, weight: Array, person: NDArray[np.int64]) -> Array:
    """p-values (c,) of the difference of weighted means between the arms, weights taken as given, by person.

    Variance: sum over persons of their weighted deviations from the mean of their arm, squared.
    """
    total = np.zeros((len(np.unique(person)), values.shape[1]))
    _, index = np.unique(person, return_inverse=True)
    difference = np.zeros(values.shape[1])
    for arm, sign in ((treated, 1.0), (~treated, -1.0)):
        share = weight[arm] / weight[arm].sum()
        mean = share @ values[arm]
        difference += sign * mean
        np.add.at(total, index[arm], sign * share[:, None] * (values[arm] - mean))
    error = np.sqrt((total**2).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(error > 0, np.abs(difference) / error, 0.0)
    return np.asarray(2 * special.ndtr(-z))


def _ratio(top: float, bottom: float) -> float:
    if np.isnan(bottom) or bottom == 0:
        return 0.0 if abs(top) < 1e-12 else float("inf") * float(np.sign(top))
    return float(top / bottom)


def paired_p_values(
    values: Array, treated: NDArray[np.int64], control: NDArray[np.int64], weight: Array, person: NDArray[np.int64]
) -> Array:
    """p-values (c,) of the weighted mean difference between starters and their matches, clustered two ways.

    values (m, c) of the used rows; pairs (M,) as positions in them. Variance: by starter plus by comparison person
    minus by pair (Cameron, Gelbach and Miller 2011), never below that by starter.
    """
    difference = (values[treated] - values[control]) * weight[:, None]
    n1 = len(np.unique(treated))
    mean = difference.sum(axis=0) / n1
    part = (difference - weight[:, None] * mean) / n1

    def squares(group: NDArray[np.int64]) -> Array:
        _, index = np.unique(group, return_inverse=True)
        total = np.zeros((index.max() + 1, part.shape[1]))
        np.add.at(total, index, part)
        return (total**2).sum(axis=0)

    by_starter = squares(treated)
    variance = np.maximum(by_starter + squares(person[control]) - (part**2).sum(axis=0), by_starter)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, np.abs(mean) / np.sqrt(variance), 0.0)
    return np.asarray(2 * special.ndtr(-z))


def holm(p_values: Array) -> Array:
    """Holm's (1979) adjusted p-values, in the given order."""
    order = np.argsort(p_values, kind="stable")
    size = len(p_values)
    adjusted = np.maximum.accumulate((size - np.arange(size)) * np.asarray(p_values)[order])
    out = np.empty(size)
    out[order] = np.minimum(adjusted, 1.0)
    return out


def effective_size(weight: Array) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2."""
    total = float((weight**2).sum())
    return float(weight.sum() ** 2 / total) if total > 0 else 0.0


# -- plain arrays, both arms weighted ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class BalanceTable:
    """Balance of every covariate before and after adjustment; arrays (c,) in the order of ``names``.

    Attributes
    ----------
    names, binary: the covariates, and which are shares (0 or 1).
    mean_treated_before, mean_comparison_before, mean_treated_after, mean_comparison_after: (weighted) means.
    sd_treated, sd_comparison: standard deviations in the unadjusted sample.
    scale: denominator of the standardised differences; 1 for shares under the convention ``raw``.
    smd_before, smd_after: (treated - comparison) / scale. Where the scale is zero: 0 when the means agree, else signed
        infinity.
    vr_before, vr_after: variance of the treated over that of the comparison; NaN for shares.
    ks_before, ks_after: largest distance between the distribution functions (Kolmogorov-Smirnov, "eCDF max").
    ecdf_before, ecdf_after: their mean distance over the distinct values of the covariate, each counted once. For
        shares both distances are the absolute difference between the shares.
    n_treated, n_comparison: rows with weight; ess_treated, ess_comparison: their effective sizes (sum w)^2 / sum w^2.
    target, binary_convention: as asked.
    """

    names: tuple[str, ...]
    binary: Mask
    mean_treated_before: Array
    mean_comparison_before: Array
    mean_treated_after: Array
    mean_comparison_after: Array
    sd_treated: Array
    sd_comparison: Array
    scale: Array
    smd_before: Array
    smd_after: Array
    vr_before: Array
    vr_after: Array
    ks_before: Array
    ks_after: Array
    ecdf_before: Array
    ecdf_after: Array
    n_treated: int
    n_comparison: int
    ess_treated: float
    ess_comparison: float
    target: Target
    binary_convention: BinaryConvention

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                if value.shape != (len(self.names),):
                    raise ValueError(f"balance table: {item.name} has shape {value.shape}, {len(self.names)} names")
                object.__setattr__(self, item.name, frozen(value, value.dtype))

    def frame(self) -> pd.DataFrame:
        """One row a covariate, one column a statistic."""
        import pandas as pd

        arrays = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)}
        return pd.DataFrame(arrays, index=pd.Index(self.names, name="covariate"))


class _Side(NamedTuple):
    """Statistics of all covariates under one set of weights."""

    means: Array
    variances: Array
    ks: Array
    ecdf: Array


def is_binary(x: ArrayLike) -> Mask:
    """(c,) whether each column of x (n, c) holds zeros and ones only."""
    values = np.asarray(x, float)
    return np.asarray(((values == 0) | (values == 1)).all(axis=0))


def balance_statistics(
    x: ArrayLike,
    names: Sequence[str],
    binary: ArrayLike | None,
    treated: ArrayLike,
    weight: ArrayLike,
    *,
    target: Target = "att",
    binary_convention: BinaryConvention = "standardised",
    base: ArrayLike | None = None,
) -> BalanceTable:
    """Balance before and after weighting both arms, on plain arrays.

    Parameters
    ----------
    x: (n, c) covariates, without missing values; a factor as one column a level.
    names: c names. ``binary``: (c,) which columns are shares; None finds the columns of zeros and ones.
    treated: (n,) bool. ``weight``: (n,) weights after adjustment, >= 0, of any size; 0 for rows that are not used.
    target: whose effect, which fixes the denominator: ``att`` the standard deviation of the treated, ``atc`` that of
        the others, else the root of the mean of the two variances; always that of the unadjusted sample.
    binary_convention: ``standardised`` divides differences of shares by sqrt(p (1 - p)) of the same rows (MatchIt);
        ``raw`` leaves them as they are (cobalt's default).
    base: (n,) weights of the unadjusted sample (survey weights); None for ones.

    Returns
    -------
    BalanceTable. Before: weights ``base``; after: weights ``weight``, which must already contain the base weights.

    Raises
    ------
    DesignError
        ``design.balance_missing`` for covariates with missing values; ``design.balance_no_weight`` when an arm has no
        weight.

    Notes
    -----
    With w adding up to one in each arm: mean sum w x; variance sum w (x - mean)^2 / (1 - sum w^2), p (1 - p) for
    shares; distance max_v |F1(v) - F0(v)|, F(v) = sum of w over x <= v; mean distance over the distinct values of the
    rows given. One sort a covariate. Sources: Austin (2009), Statistics in Medicine 28: 3083-3107; Austin and Stuart
    (2015), Statistics in Medicine 34: 3661-3679.
    """
    values = np.asarray(x, float)
    arm = np.asarray(treated, bool)
    after = np.asarray(weight, float)
    before = np.ones(len(arm)) if base is None else np.asarray(base, float)
    shares = is_binary(values) if binary is None else np.asarray(binary, bool)
    if values.shape != (len(arm), len(names)) or shares.shape != (len(names),) or after.shape != arm.shape:
        raise ValueError("balance_statistics: x (n, c), names and binary (c,), treated and weight (n,)")
    if not all(np.isfinite(w).all() and (w >= 0).all() for w in (after, before)):
        raise ValueError("balance_statistics: weights must be finite and not negative")
    complete = np.isfinite(values).all(axis=0)
    lacking = [name for name, whole in zip(names, complete, strict=True) if not whole]
    if lacking:
        raise DesignError(Fault("design.balance_missing", {"names": ", ".join(lacking)}))
    sides = [[w[arm], w[~arm]] for w in (before, after)]
    if any(part.sum() <= 0 for side in sides for part in side):
        raise DesignError(Fault("design.balance_no_weight", {}))
    plain, adjusted = _sides(values, shares, arm, before, after)
    var1, var0 = plain.variances
    scale = np.sqrt({"att": var1, "atc": var0}.get(target, (var1 + var0) / 2))
    if binary_convention == "raw":
        scale = np.where(shares, 1.0, scale)

    def standardised(side: _Side) -> Array:
        return np.array(
            [_ratio(d, s if s > 0 else np.nan) for d, s in zip(side.means[0] - side.means[1], scale, strict=True)]
        )

    def ratio(side: _Side) -> Array:
        pairs = zip(side.variances[0], side.variances[1], shares, strict=True)
        return np.array([np.nan if share else _variance_ratio(a, b) for a, b, share in pairs])

    return BalanceTable(
        tuple(names),
        shares,
        plain.means[0],
        plain.means[1],
        adjusted.means[0],
        adjusted.means[1],
        np.sqrt(var1),
        np.sqrt(var0),
        scale,
        standardised(plain),
        standardised(adjusted),
        ratio(plain),
        ratio(adjusted),
        plain.ks,
        adjusted.ks,
        plain.ecdf,
        adjusted.ecdf,
        int((after[arm] > 0).sum()),
        int((after[~arm] > 0).sum()),
        effective_size(after[arm]),
        effective_size(after[~arm]),
        target,
        binary_convention,
    )


def _variance_ratio(top: float, bottom: float) -> float:
    if bottom > 0:
        return float(top / bottom)
    return float("inf") if top > 0 else float("nan")


def _sides(values: Array, shares: Mask, arm: Mask, before: Array, after: Array) -> tuple[_Side, _Side]:
    """Statistics under both sets of weights; each column is taken out and sorted once."""
    count = values.shape[1]
    rows = np.flatnonzero(arm), np.flatnonzero(~arm)
    sides = [_Side(np.empty((2, count)), np.empty((2, count)), np.empty(count), np.empty(count)) for _ in range(2)]
    weights, signed = [], []
    for raw in (before, after):
        parts = [raw[index] / raw[index].sum() for index in rows]
        weights.append(parts)
        difference = np.empty(len(arm))
        difference[rows[0]], difference[rows[1]] = parts[0], -parts[1]
        signed.append(difference)
    for j in range(count):
        column = np.ascontiguousarray(values[:, j])
        by_arm = [column[index] for index in rows]
        for side, parts in zip(sides, weights, strict=True):
            for a in range(2):
                side.means[a, j], side.variances[a, j] = _moments_of(by_arm[a], parts[a], bool(shares[j]))
        if shares[j]:
            for side in sides:
                side.ks[j] = side.ecdf[j] = abs(side.means[0, j] - side.means[1, j])
            continue
        order = np.argsort(column)  # within equal values the order changes nothing but the last bit
        ranked = column[order]
        last = np.append(ranked[1:] != ranked[:-1], True)
        for side, difference in zip(sides, signed, strict=True):
            distance = np.abs(np.cumsum(difference[order])[last])
            side.ks[j], side.ecdf[j] = distance.max(), distance.mean()
    return sides[0], sides[1]


def _moments_of(column: Array, weight: Array, share: bool) -> tuple[float, float]:
    """Weighted mean and variance; weights add up to one."""
    mean = float(weight @ column)
    if share:
        return mean, mean * (1 - mean)
    spread = 1.0 - float(weight @ weight)
    centred = column - mean
    centred *= centred
    return mean, float(weight @ centred) / spread if spread > 1e-15 else float("nan")
