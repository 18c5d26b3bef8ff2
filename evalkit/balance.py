"""Do the groups look alike before the start: standardised differences, variance ratios, effective sample size.

Conventions (ATT): the denominator is always the standard deviation of the treated in the unadjusted sample, n - 1 for
numbers and sqrt(p (1 - p)) for shares; weighted variances use sum w (x - mean)^2 / (1 - sum w^2) with weights that add
up to one (as MatchIt and cobalt do). Shares are standardised too, as MatchIt does; cobalt shows them raw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from evalkit.design import Design

Array = NDArray[np.float64]


class Moments(NamedTuple):
    """Mean and variance of each column (c,)."""

    mean: Array
    variance: Array


@dataclass(frozen=True)
class BalanceRow:
    """One covariate, or one level of a categorical one. ``vr`` are None for shares; ``p_value`` tests mean after."""

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
) -> tuple[BalanceRow, ...]:
    """Balance before and after. Weights (n,): ones for matched starters, match weights for comparison rows."""
    one = treated.astype(float)
    of_treated, before = moments(design, one), moments(design, 1.0 - one)
    kept, after = moments(design, matched_treated), moments(design, matched_control)
    scale = np.sqrt(of_treated.variance)
    scale = np.where(scale > 0, scale, np.nan)
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
            )
        )
    return tuple(rows)


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
