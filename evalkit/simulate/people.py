"""Persons of a twin: columns drawn from their margins, independent of each other, and what they do to the rates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from evalkit.simulate.aggregates import Column, Level
from evalkit.simulate.model import Array, Ints
from evalkit.simulate.truth import BLOCK

OTHER = "other"
"""The value of those whose own value too few persons have."""

_MOST = 1.5
"""Largest effect of one column on a log rate: that of a category, or of two standard deviations of a number."""
_POINTS = 4  # numbers that stand for a group of them in the truth
_FINE = 0.02  # log rates are added up on a grid of this width
_COARSE = 0.2  # and then taken together, each group by its mean
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Margin:
    """The distribution of one column over its levels (L,), the last of which may be "missing".

    ``fixed``: log ratio of the exit and the start rate of a level (L, 2). ``slope``: what a number adds to them
    for each unit from ``centre``.
    """

    column: Column
    levels: tuple[Level, ...]
    share: Array
    fixed: Array
    slope: tuple[float, float] = (0.0, 0.0)
    centre: float = 0.0

    @property
    def missing(self) -> int:
        """The level of those without a value, -1 when there is none."""
        return len(self.levels) - 1 if self.column.missing is not None else -1

    def points(self) -> tuple[Array, Array, NDArray[np.float64]]:
        """Chances (q,), log ratios (q, 2) and numbers (q,) (NaN where it is none) that stand for the whole margin."""
        chance, ratio, number = [], [], []
        for i, level in enumerate(self.levels):
            values = _spread(level, self.column.step)
            chance.append(np.full(len(values), self.share[i] / len(values)))
            ratio.append(self.ratios(np.full(len(values), i), values))
            number.append(values)
        return np.concatenate(chance), np.concatenate(ratio), np.concatenate(number)

    def ratios(self, level: Ints, number: NDArray[np.float64]) -> Array:
        """Log ratios of the exit and the start rate (n, 2) of persons."""
        away = np.where(np.isnan(number), 0.0, number - self.centre)
        return self.fixed[level] + away[:, None] * np.array(self.slope)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Ints, NDArray[np.float64]]:
        """A level and a number (NaN where it is none) for each of n persons."""
        level = np.searchsorted(np.cumsum(self.share), rng.random(n) * self.share.sum(), side="right")
        level = np.minimum(level, len(self.levels) - 1)
        low = np.array([np.nan if one.low is None else one.low for one in self.levels], float)[level]
        high = np.array([np.nan if one.high is None else one.high for one in self.levels], float)[level]
        step = self.column.step or 1.0
        steps = np.where(high > low, np.floor(rng.random(n) * np.round((high - low) / step)), 0.0)
        return level, np.round(low + steps * step, 9)


def _spread(level: Level, step: float) -> NDArray[np.float64]:
    """A few numbers that stand for those of a level."""
    if level.low is None or level.high is None:
        return np.array([np.nan])
    last = level.high - (step or 1.0)
    if last <= level.low:
        return np.array([level.low])
    return level.low + (last - level.low) * (np.arange(_POINTS) + 0.5) / _POINTS


def margin(column: Column) -> Margin | None:
    """The margin of a column that tells something; None for the others."""
    levels = column.levels + (() if column.missing is None else (column.missing,))
    if not column.levels:
        return None
    share = np.array([level.persons for level in levels], float)
    told = [(level.exits, level.exits_expected, level.starts, level.starts_expected) for level in levels]
    fixed = np.array([[_ratio(exits, e0), _ratio(starts, s0)] for exits, e0, starts, s0 in told])
    if column.kind == "category":
        return Margin(column, levels, share / share.sum(), fixed)
    middle = np.array([_spread(level, column.step).mean() for level in column.levels])
    known = share[: len(middle)] / share[: len(middle)].sum()
    centre = float(known @ middle)
    width = 2 * float(np.sqrt(known @ (middle - centre) ** 2))
    fixed[: len(middle)] = 0.0
    slopes = []
    for events, foreseen in (("exits", "exits_expected"), ("starts", "starts_expected")):
        pairs = [(getattr(level, events), getattr(level, foreseen)) for level in column.levels]
        slope = _slope(middle - centre, np.array(pairs, float))
        slopes.append(float(np.clip(slope, -_MOST / width, _MOST / width)) if width else 0.0)
    return Margin(column, levels, share / share.sum(), fixed, (slopes[0], slopes[1]), centre)


def _ratio(events: int, foreseen: int) -> float:
    return float(np.clip(np.log(events / foreseen), -_MOST, _MOST)) if events and foreseen else 0.0


def _slope(x: NDArray[np.float64], told: Array) -> float:
    """Poisson regression of events on x with what was expected as exposure, over the groups that are told."""
    used = told.min(axis=1) > 0
    x, events, foreseen = x[used], told[used, 0], told[used, 1]
    if len(x) < 2 or np.ptp(x) == 0:
        return 0.0
    scale = np.ptp(x)
    design = np.column_stack([np.ones(len(x)), x / scale])
    coefficient = np.zeros(2)
    for _ in range(30):
        mean = foreseen * np.exp(np.clip(design @ coefficient, -10, 10))
        move = np.linalg.solve(design.T @ (design * mean[:, None]), design.T @ (events - mean))
        coefficient += np.clip(move, -2, 2)
    return float(coefficient[1] / scale)


def restrict(one: Margin, numbers: tuple[float, float] | None, without: Collection[str], known: bool) -> Margin:
    """The margin among those who may take part: numbers in a range, some values excluded, or a value known.

    The shares keep adding up to the part of all persons that is left.
    """
    share = one.share.copy()
    if numbers is not None:
        for i, level in enumerate(one.levels):
            values = _spread(level, one.column.step)
            share[i] *= float(np.mean((values >= numbers[0]) & (values <= numbers[1])))
    for i, level in enumerate(one.levels[: len(one.levels) - (one.missing >= 0)]):
        if level.value is not None and level.value in without:
            share[i] = 0.0
    if one.missing >= 0 and (known or "missing" in without):
        share[one.missing] = 0.0
    return Margin(one.column, one.levels, share, one.fixed, one.slope, one.centre)


def cells(margins: Sequence[Margin]) -> tuple[Array, Array]:
    """Cells of persons with about the same rates: their shares (C,) and log ratios of exit and start rate (C, 2).

    All combinations of the columns, on a grid; C is a multiple of ``BLOCK``, filled up with cells of share 0.
    """
    mass, origin = np.ones((1, 1)), np.zeros(2)
    for one in margins:
        own, low = _on_grid(*one.points()[:2])
        mass, origin = np.maximum(fftconvolve(mass, own), 0.0), origin + low
    if not mass.any():
        return np.zeros(BLOCK), np.zeros((BLOCK, 2))
    at = np.argwhere(mass > _NEGLIGIBLE**2)
    share, ratio = mass[tuple(at.T)], (at + origin) * _FINE
    _, group = np.unique(np.floor(ratio / _COARSE), axis=0, return_inverse=True)
    group = group.ravel()
    total = np.bincount(group, share)
    mean = np.column_stack([np.bincount(group, share * ratio[:, i]) for i in range(2)]) / total[:, None]
    kept = total > _NEGLIGIBLE * total.sum()
    total, mean = total[kept] * total.sum() / total[kept].sum(), mean[kept]
    size = -(-len(total) // BLOCK) * BLOCK - len(total)
    return np.append(total, np.zeros(size)), np.vstack([mean, np.zeros((size, 2))])


def _on_grid(chance: Array, ratio: Array) -> tuple[Array, Array]:
    """Chances on the fine grid, each divided over its neighbours so that means stay; and the grid's first point."""
    place = ratio / _FINE
    low = np.floor(place).min(axis=0)
    mass = np.zeros(tuple((np.floor(place).max(axis=0) - low + 2).astype(int)))
    base = np.floor(place).astype(int)
    over = place - base
    for i, j in product((0, 1), repeat=2):
        part = chance * np.where(i, over[:, 0], 1 - over[:, 0]) * np.where(j, over[:, 1], 1 - over[:, 1])
        np.add.at(mass, tuple((base - low.astype(int) + (i, j)).T), part)
    return mass, low


def values(one: Margin, level: Ints, number: NDArray[np.float64], entry_year: Ints) -> NDArray[Any]:
    """What stands in the column of drawn persons."""
    if one.column.kind == "category":
        names = [OTHER if own.value is None else own.value for own in one.levels]
        if one.missing >= 0:
            names[one.missing] = None  # type: ignore[call-overload]
        return np.array(names, object)[level]
    return entry_year - number if one.column.kind == "age" else number
