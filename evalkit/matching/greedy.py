"""Greedy nearest-neighbour matching: with or without replacement, one or several matches, under any set of rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import DesignError, Fault
from evalkit.hashing import Hash
from evalkit.kernels import greedy as kernel
from evalkit.matching.adjustment import Pairs
from evalkit.matching.distance import Space

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

Order = Literal["largest", "smallest", "closest", "data", "random"]
Tie = Literal["hash", "walk", "all"]

SAME = 1e-9
"""Distances that differ by less than this many standard deviations are equal, except for ``tie="walk"``."""


@dataclass(frozen=True)
class Units:
    """Who may be matched with whom, as arrays over rows (n,).

    ``focal``: rows that look for a match; ``pool``: rows they may get (neither: left out). ``stratum``: matches stay
    within its codes. ``person``: nobody is his own match. ``key``: keyed hashes for ties. ``anti`` (n, a): columns on
    which a match must differ. ``columns`` (n, c) with ``widths`` (c,): calipers on covariates, negative for "further
    apart than". ``score`` with ``reach``: the caliper on the score (infinite for none). ``limit``: caliper on the
    distance itself. ``spread``: standard deviation of the distance's scale, the yardstick for equal distances.
    """

    focal: Mask
    pool: Mask
    stratum: Ints
    person: Ints
    key: Hash
    score: Array
    anti: Ints
    columns: Array
    widths: Array
    reach: float = np.inf
    limit: float = np.inf
    spread: float = 1.0

    def swapped(self) -> Units:
        """The other direction: the pool looks for matches among the focal rows."""
        return Units(**{**vars(self), "focal": self.pool, "pool": self.focal})


@dataclass(frozen=True)
class _Sorted:
    """Rows in the order of the kernel, and all that it asks for."""

    rows: Ints
    mode: int
    queue: Ints
    stratum: Ints
    lows: Ints
    highs: Ints
    focal: Mask
    axis: Array
    coords: Array
    matrix: Array
    column: Ints
    tree: tuple[NDArray[np.generic], ...]
    person: Ints
    anti: Ints
    columns: Array
    widths: Array
    slack: Array
    score: Array
    key: Hash
    above: Ints
    same: float


def extremal_numbers(
    score: Array, other_mean: float, ratio: float, low: int, high: int, second: Hash | Ints | None = None
) -> Ints:
    """How many matches each focal unit gets under variable ratio matching (Ming and Rosenbaum 2000, section 3).

    In all round(ratio n) matches, ``low`` for some units, ``high`` for others and at most one number between: the split
    that keeps to the total. The units furthest from the others' mean score, towards their own side, get the low number,
    because their equals are scarce; equal scores in the order of ``second`` (default: as given).
    """
    n = len(score)
    total = int(np.rint(ratio * n))
    many = min(n, (total - low * n) // (high - low))
    numbers = np.full(n, low, np.int64)
    away = np.lexsort((np.arange(n) if second is None else second, -score if score.mean() > other_mean else score))
    nearest_first = away[::-1]
    numbers[nearest_first[:many]] = high
    if many < n:
        numbers[nearest_first[many]] = total - high * many - low * (n - many - 1)
    return numbers


def processing_order(units: Units, order: Order, tie: Tie) -> Ints:
    """Focal rows in the order in which they choose; equal scores by key, under ``walk`` by row."""
    rows = np.flatnonzero(units.focal)
    second = rows if tie == "walk" else units.key[rows]
    if order == "data":
        return rows
    if order == "random":
        return rows[np.lexsort((rows, units.key[rows]))]
    if order == "closest":
        return rows[np.argsort(second, kind="stable")]
    score = units.score[rows]
    return rows[np.lexsort((second, -score if order == "largest" else score))]


def match_greedy(
    units: Units,
    space: Space,
    *,
    numbers: Ints | int = 1,
    replace: bool = False,
    order: Order = "largest",
    tie: Tie = "hash",
) -> Pairs:
    """Give every focal row its nearest allowed pool rows.

    Parameters
    ----------
    numbers: matches a focal row, one for all or one each (in row order); fewer where fewer are allowed.
    replace: whether a pool row may serve more than once. Without it rows choose in ``order`` and round by round: all
        get their first match before any gets a second.
    order: as in ``processing_order``; ``closest``: in each round the pair that lies nearest comes first.
    tie: among pool rows that lie as near: ``hash`` takes the lowest hash of the pair of keys, whatever the order of
        rows and the machine (distances within ``SAME`` standard deviations are equal). ``walk`` compares distances to
        the last bit and takes the first one reached by a walk through the sorted rows, as MatchIt 4.7 does: on a score
        from the row itself, left and right in turn, left first; in a space of several covariates along the first one,
        from behind the last row with the same value, the right side before the left.

    Returns
    -------
    Pairs; a focal row's matches nearest first.
    """
    o = _prepare(units, space, processing_order(units, order, tie), tie)
    wanted = np.zeros(len(units.focal), np.int64)
    wanted[units.focal] = numbers
    chosen = kernel.greedy(
        o.mode, o.queue, wanted[o.rows[o.queue]], order == "closest", replace, o.focal, o.stratum, o.lows, o.highs,
        o.axis, o.coords, o.matrix, o.column, o.tree, o.person, o.anti, o.columns, o.widths, o.slack, o.score,
        units.reach, units.limit, kernel.WALK if tie == "walk" else kernel.HASH, o.key, o.above, o.same,
    )  # fmt: skip
    focal = o.rows[o.queue]
    back = np.argsort(focal, kind="stable")
    chosen = chosen[back]
    found = chosen >= 0
    return pairs_of(units, focal[back], found.sum(axis=1), o.rows[chosen[found]])


def match_all_ties(units: Units, space: Space, *, ratio: int, tolerance: float) -> Pairs:
    """Every pool row as near as the ``ratio``-th nearest, with replacement; a focal row's matches share its weight.

    ``tolerance`` is on the squared distance, as in the R package Matching (1e-5): on few covariates many people lie
    equally near, and leaving some of them out at random would be arbitrary (Abadie and Imbens 2006).
    """
    o = _prepare(units, Space(space.coords), np.flatnonzero(units.focal), "all")
    offsets, found = kernel.all_nearest(
        o.queue, ratio, o.stratum, o.coords, o.tree, o.person, o.anti, o.columns, o.widths, o.slack, o.score,
        units.reach + o.same, units.limit + o.same, tolerance,
    )  # fmt: skip
    return pairs_of(units, o.rows[o.queue], np.diff(offsets), o.rows[found])


def pairs_of(units: Units, focal: Ints, number: Ints, match: Ints) -> Pairs:
    """Pairs from focal rows (m,), their number of matches (m,) and the matches one focal row after another.

    Raises
    ------
    DesignError
        ``design.nobody_matched`` when nobody has a match.
    """
    if not number.any():
        raise DesignError(Fault("design.nobody_matched", {"starters": len(focal)}))
    weight = np.repeat(1.0 / np.maximum(number, 1), number)
    return Pairs(np.repeat(focal, number), match.astype(np.int64), weight, focal[number == 0], float(units.reach))


def _prepare(units: Units, space: Space, queue: Ints, tie: Tie) -> _Sorted:
    """Sort the rows by stratum, first coordinate and row, and grow the search structure."""
    rows = np.flatnonzero(units.focal | units.pool)
    first = space.coords[:, 0] if space.coords.shape[1] else np.zeros(len(units.focal))
    rows = rows[np.lexsort((rows, first[rows], units.stratum[rows]))]
    place = np.full(len(units.focal), -1, np.int64)
    place[rows] = np.arange(len(rows))
    values, stratum = np.unique(units.stratum[rows], return_inverse=True)
    stratum = stratum.astype(np.int64)
    lows = np.searchsorted(stratum, np.arange(len(values)), side="left")
    highs = np.searchsorted(stratum, np.arange(len(values)), side="right")
    focal = units.focal[rows]
    coords = np.ascontiguousarray(space.coords[rows])
    axis = np.ascontiguousarray(first[rows])
    score = units.score[rows]
    mode = kernel.MATRIX if space.matrix is not None else kernel.LINE if space.line and tie != "all" else kernel.SPACE
    if mode == kernel.LINE and not np.array_equal(axis, score):
        mode = kernel.SPACE
    column = np.empty(0, np.int64)
    matrix = np.zeros((0, 0))
    if space.matrix is not None:
        column, matrix = space.index[rows], space.matrix
    widths = np.asarray(units.widths, np.float64)
    slack = np.zeros(len(widths))
    same = 0.0
    if tie != "walk":
        same = SAME * units.spread
        if len(widths):
            slack = SAME * units.columns[rows].std(axis=0)
    pool = np.flatnonzero(~focal)
    cells = stratum[pool]
    bounds = [np.searchsorted(cells, np.arange(len(values)), side=side) for side in ("left", "right")]
    if mode != kernel.SPACE:
        pool, bounds = pool[:0], [b[:0] for b in bounds]
    tree = kernel.grow(coords, score, pool, *bounds)
    return _Sorted(
        rows, mode, place[queue], stratum, lows, highs, focal, axis, coords, matrix, column, tree,
        units.person[rows], units.anti[rows], units.columns[rows], widths, slack, score, units.key[rows],
        _above(axis, stratum), same,
    )  # fmt: skip


def _above(axis: Array, stratum: Ints) -> Ints:
    """For every place the first place behind it, in its stratum, with a larger first coordinate."""
    n = len(axis)
    if not n:
        return np.empty(0, np.int64)
    breaks = np.flatnonzero((np.diff(axis) != 0) | (np.diff(stratum) != 0)) + 1
    ends = np.append(breaks, n)
    return ends[np.searchsorted(breaks, np.arange(n), side="right")].astype(np.int64)
