"""How a number of persons may be told: rounded, and only where enough of them are behind it.

Everything that :mod:`evalkit.simulate.counting` takes from a register passes through here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.disclosure import to_base
from evalkit.simulate.aggregates import Group

FLOOR = 5
"""No study file can ask for fewer persons behind a number than this."""

_CELLS = 20
_GROUPS = 12
"""Numbers are put in cells, so many between the 5th and the 95th of 100, and these in about so many groups."""
_OWN_VALUE = 20
"""A value that one in so many persons has stands by itself."""


@dataclass(frozen=True)
class Rules:
    """At least ``minimum`` persons behind every number, and every count a multiple of ``minimum``."""

    minimum: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "minimum", max(FLOOR, self.minimum))

    def count(self, number: float) -> int:
        """A count as it may be told; 0 when it is too small."""
        return 0 if number < self.minimum else to_base(number, self.minimum)

    def part(self, number: float, whole: float) -> int:
        """A part of a whole: nobody when it is too small, everybody when the rest is."""
        if number < self.minimum:
            return 0
        return self.count(whole) if whole - number < self.minimum else min(self.count(number), self.count(whole))

    def splits(self, number: float, whole: float) -> bool:
        """Whether both a part and the rest are large enough."""
        return number >= self.minimum and whole - number >= self.minimum

    def months(self, number: float, width: int) -> int:
        """Months spent by persons who each spend up to ``width``: a person moves it by one step at most."""
        step = self.minimum * max(1, min(width, 12))
        return max(step, to_base(number, step))


@dataclass(frozen=True)
class Cut:
    """A group of numbers: one value (``low`` = ``high``), or those from ``low`` up to but not including ``high``."""

    low: float
    high: float


def persons_in(person: NDArray[np.integer]) -> int:
    """How many different persons there are in sorted rows."""
    return int(np.count_nonzero(person[1:] != person[:-1])) + 1 if len(person) else 0


def groups(values: NDArray[Any], rules: Rules) -> tuple[Group, ...]:
    """A distribution of numbers, one a person."""
    cuts, group = cut(np.asarray(values, float), rules)
    size = np.bincount(group[group >= 0], minlength=len(cuts))
    return tuple(Group(low=c.low, high=c.high, persons=rules.count(n)) for c, n in zip(cuts, size, strict=True))


def cut(
    values: NDArray[np.float64], rules: Rules, step: float | None = None
) -> tuple[tuple[Cut, ...], NDArray[np.int64]]:
    """Groups of numbers with enough persons in each, and the group of each number (-1: there are no groups).

    A value that a twentieth of the persons has (and enough of them) is a group by itself. The others are cut at round
    numbers. What lies beyond the outermost value that enough persons reach counts with the outermost group, so that no
    extreme value is told. ``values``: one a person, none missing. ``step``: cut at its multiples, as finely as may be.
    """
    n = len(values)
    cuts: list[Cut] = []
    if step is None:
        distinct, number = np.unique(values, return_counts=True)
        frequent = distinct[number >= max(rules.minimum, to_base(n, rules.minimum) / _OWN_VALUE)]
        cuts = [Cut(float(value), float(value)) for value in frequent]
        spread = values[~np.isin(values, frequent)]
    else:
        spread = values
    cuts += _lattice(spread, rules, step)
    cuts.sort(key=lambda c: (c.low, c.high))
    while cuts:  # a value may be nearer to another group than to the one it was counted with
        group = _nearest(values, cuts)
        number = np.bincount(group, minlength=len(cuts))
        if number.min() >= rules.minimum:
            return tuple(cuts), group
        del cuts[int(number.argmin())]
    return (), np.full(n, -1, np.int64)


def _lattice(values: NDArray[np.float64], rules: Rules, step: float | None) -> list[Cut]:
    """Groups between round numbers, each with enough values; in thin tails smaller ones rather than wide ones."""
    n = len(values)
    if n < rules.minimum:
        return []
    ordered = np.sort(values)
    low, high = ordered[rules.minimum - 1], ordered[n - rules.minimum]
    if low > high:
        low = high = ordered[n // 2]
    enough, width = rules.minimum, 1
    if step is None:
        inner = max(ordered[n - 1 - n // 20] - ordered[n // 20], (high - low) / 4, 1e-9)
        step = nice(inner / _CELLS)
        if whole(values, rules):
            step = max(1.0, float(round(step)))
        enough = max(rules.minimum, to_base(n, rules.minimum) // _GROUPS)
        width = max(1, round(inner / step) // _GROUPS * 2)
    bins = np.clip(np.floor(values / step), math.floor(low / step), math.floor(high / step)).astype(np.int64)
    first = int(bins.min())
    number = np.bincount(bins - first).tolist()
    return [
        Cut(round((first + a) * step, 9), round((first + b) * step, 9))
        for a, b in runs(number, rules.minimum, enough, width)
    ]


def whole(values: NDArray[np.float64], rules: Rules) -> bool:
    """Whether numbers are whole, but for those of too few persons."""
    return int((values != np.floor(values)).sum()) < rules.minimum


def _nearest(values: NDArray[np.float64], cuts: Sequence[Cut]) -> NDArray[np.int64]:
    """The group that holds each value, a value by itself first; else the one whose edge is nearest."""
    best = np.full(len(values), np.inf)
    group = np.zeros(len(values), np.int64)
    for i, c in sorted(enumerate(cuts), key=lambda pair: pair[1].high - pair[1].low):
        away = np.maximum(np.maximum(c.low - values, values - c.high), 0.0)
        if c.high > c.low:
            away = np.where((values < c.low) | (values >= c.high), np.maximum(away, 1e-12), 0.0)
        closer = away < best
        best[closer], group[closer] = away[closer], i
    return group


def runs(numbers: Sequence[float], least: float, enough: float = 0, width: int = 1) -> Iterator[tuple[int, int]]:
    """Neighbours taken together, from left to right: (first, behind the last).

    A run is closed when it adds up to ``enough``, or to ``least`` and has the given width. What is left at the end goes
    with the last run. Nothing when all together are not enough.
    """
    ends, total = [0], 0.0
    for i, number in enumerate(numbers):
        total += number
        if total >= max(least, enough) or (total >= least and i + 1 - ends[-1] >= width):
            ends.append(i + 1)
            total = 0.0
    if len(ends) > 1:
        ends[-1] = len(numbers)
    yield from zip(ends[:-1], ends[1:], strict=True)


def nice(size: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten, not above twice the size."""
    power = 10.0 ** math.floor(math.log10(size))
    return power * (1 if size < 1.5 * power else 2 if size < 3.5 * power else 5 if size < 7.5 * power else 10)
