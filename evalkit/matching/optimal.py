"""Optimal matching: the least total distance over all ways of matching, in pairs or in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from evalkit.errors import DesignError, Fault
from evalkit.matching.adjustment import Matching, Pairs, TargetName
from evalkit.matching.distance import Space
from evalkit.matching.greedy import SAME, Units, pairs_of
from evalkit.matching.strata import stratum_matching

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Arcs = tuple[Ints, Ints, Array]
"""Row among the focal units of a stratum, row among its pool, distance."""

Nearest = tuple[Array, Ints, Array, Ints, Arcs]
"""Distance to the nearest partner and who that is, of focal and of pool units; pairs that may save something."""

BLOCK = 4_000_000  # distances held at a time
DENSE = 50_000_000  # entries of a cost matrix that is solved whole: 400 MB
MOST_ARCS = 40_000_000


def match_optimal(units: Units, space: Space, *, ratio: int = 1) -> Pairs:
    """Match each focal row with ``ratio`` pool rows, none used twice, at the least total distance.

    Among all matchings that make as many matches as the rules allow - and, with more than one match a row, leave as few
    rows as possible without any - it has the least sum of distances (Rosenbaum 1989). Each exact stratum is an
    assignment problem of its own, solved by shortest augmenting paths (Jonker and Volgenant 1987; Crouse 2016). On a
    score only those pairs enter that can be in a solution: some best matching keeps the order of the score, and then
    nobody needs to go further right than when everybody goes right, nor further left than when everybody goes left.

    Raises
    ------
    DesignError
        ``design.nobody_matched``; ``design.match_too_large`` when a stratum has too many possible pairs.
    """
    focal_rows, match_rows = [], []
    for focal, pool in _strata(units):
        slots = np.repeat(np.arange(len(focal)), ratio)
        if _simple(units, space, focal, pool):
            arcs = _line_arcs(units, space.coords[focal, 0], space.coords[pool, 0], ratio)
        else:
            _refuse_size(len(slots) * len(pool), DENSE)
            rows, cols, cost = _gather(units, space, focal, pool)
            arcs = _slots(rows, cols, cost, ratio)
        first = np.arange(len(slots)) % ratio == 0
        chosen = _assign(arcs, len(slots), len(pool), np.where(first, 2.0, 1.0))
        found = chosen >= 0
        focal_rows.append(focal[slots[found]])
        match_rows.append(pool[chosen[found]])
    return _as_pairs(units, focal_rows, match_rows)


def match_full(
    units: Units,
    space: Space,
    treated: Mask,
    target: TargetName,
    discarded: Ints,
    *,
    fewest: float | None = None,
    most: float | None = None,
) -> Matching:
    """Put everybody in a set of one treated and several others or of several treated and one other.

    Optimal full matching (Rosenbaum 1991; Hansen and Klopfer 2006): of all such sets those with the least sum of
    distances between the one and the several. Without bounds this is an edge cover of least weight, which is a matching
    of greatest weight once each distance d(i, j) is replaced by what the pair saves, near(i) + near(j) - d(i, j), near
    being the distance to the nearest allowed partner; only pairs that save something are kept. With bounds it is a
    flow, solved as a linear program, whose corners are whole numbers (HiGHS).

    Parameters
    ----------
    units, space: ``focal`` are the treated, whatever the target.
    fewest, most: bounds on the number of others a treated unit; ``fewest`` = 1/k lets k treated share one.

    Returns
    -------
    Matching with sets in ``subclass``, weights as of strata, and the pairs within sets. Rows without an allowed partner
    are in no set.

    Raises
    ------
    DesignError
        ``design.nobody_matched``; ``design.match_full_bounds`` when bounds cannot be met, ``design.match_too_large``.
    """
    if fewest is not None and most is not None and fewest > most:
        raise DesignError(Fault("design.match_full_bounds", {}))
    bounded = fewest is not None or most is not None
    one, other = [], []
    for focal, pool in _strata(units):
        edges = (_bounded if bounded else _cover)(units, space, focal, pool, fewest, most)
        one.append(focal[edges[0]])
        other.append(pool[edges[1]])
    left, right = np.concatenate(one or [np.empty(0, np.int64)]), np.concatenate(other or [np.empty(0, np.int64)])
    n = len(treated)
    if not len(left):
        raise DesignError(Fault("design.nobody_matched", {"starters": int(units.focal.sum())}))
    _, component = connected_components(coo_array((np.ones(len(left)), (left, right)), shape=(n, n)), directed=False)
    kept = np.zeros(n, bool)
    kept[left] = kept[right] = True
    code = component.astype(np.int64)
    result = stratum_matching(treated, kept, code, target, discarded)
    forward = _within(left, right, n)
    backward = _within(right, left, n)
    parts = {"att": (forward,), "atc": (backward,), "ate": (forward, backward)}[target]
    focal_mask = {"att": treated, "atc": ~treated, "ate": np.ones(n, bool)}[target] & (units.focal | units.pool)
    outside = np.flatnonzero(focal_mask & ~kept)
    focal_rows, match_rows, share = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    pairs = Pairs(focal_rows, match_rows, share, outside, float(units.reach))
    return replace(result, pairs=pairs, outside=outside, width=float(units.reach))


def _within(focal: Ints, match: Ints, n: int) -> tuple[Ints, Ints, Array]:
    order = np.lexsort((match, focal))
    focal, match = focal[order], match[order]
    return focal, match, 1.0 / np.bincount(focal, minlength=n)[focal]


def _as_pairs(units: Units, focal_rows: list[Ints], match_rows: list[Ints]) -> Pairs:
    empty = [np.empty(0, np.int64)]
    focal, match = np.concatenate(focal_rows + empty), np.concatenate(match_rows + empty)
    order = np.lexsort((match, focal))
    every = np.flatnonzero(units.focal)
    number = np.bincount(focal, minlength=len(units.focal))[every]
    return pairs_of(units, every, number, match[order])


def _strata(units: Units) -> Iterator[tuple[Ints, Ints]]:
    """Focal and pool rows of each stratum that has both, each in the order of their keys."""
    rows = np.flatnonzero(units.focal | units.pool)
    rows = rows[np.lexsort((rows, units.key[rows], units.stratum[rows]))]
    for part in np.split(rows, np.flatnonzero(np.diff(units.stratum[rows])) + 1):
        focal, pool = part[units.focal[part]], part[units.pool[part]]
        if len(focal) and len(pool):
            yield focal, pool


def _simple(units: Units, space: Space, focal: Ints, pool: Ints) -> bool:
    """Whether only the distance on a line, and a caliper on it, decides who may be matched."""
    if not space.line or len(units.widths) or units.anti.shape[1]:
        return False
    if np.isin(units.person[focal], units.person[pool]).any():
        return False
    return not np.isfinite(units.reach) or np.array_equal(units.score, space.coords[:, 0])


def _refuse_size(number: int, limit: int) -> None:
    if number > limit:
        raise DesignError(Fault("design.match_too_large", {"limit": limit}))


def _blocks(units: Units, space: Space, focal: Ints, pool: Ints) -> Iterator[tuple[int, Array]]:
    """Distances of a few focal rows to the whole pool at a time, infinite where the rules exclude the pair."""
    step = max(1, BLOCK // len(pool))
    same = SAME * units.spread
    slack = SAME * units.columns.std(axis=0) if len(units.widths) else ()
    for start in range(0, len(focal), step):
        f = focal[start : start + step]
        if space.matrix is not None:
            d = space.matrix[np.ix_(space.index[f], space.index[pool])].copy()
            d[np.isnan(d)] = np.inf
        else:
            d = np.zeros((len(f), len(pool)))
            for k in range(space.coords.shape[1]):
                d += (space.coords[f, k][:, None] - space.coords[pool, k][None, :]) ** 2
            d = np.sqrt(d)
        bad = d > units.limit + same
        if np.isfinite(units.reach):
            bad |= np.abs(units.score[f][:, None] - units.score[pool][None, :]) > units.reach + same
        bad |= units.person[f][:, None] == units.person[pool][None, :]
        for column in units.anti.T:
            bad |= column[f][:, None] == column[pool][None, :]
        for column, width, more in zip(units.columns.T, units.widths, slack, strict=True):
            gap = np.abs(column[f][:, None] - column[pool][None, :])
            bad |= gap > width + more if width >= 0 else gap <= -width + more
        d[bad] = np.inf
        yield start, d


def _gather(units: Units, space: Space, focal: Ints, pool: Ints) -> Arcs:
    """All allowed pairs of a stratum."""
    parts = []
    total = 0
    for start, d in _blocks(units, space, focal, pool):
        row, col = np.nonzero(np.isfinite(d))
        total += len(row)
        _refuse_size(total, MOST_ARCS)
        parts.append((row + start, col, d[row, col]))
    rows, cols, cost = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return rows, cols, cost


def _slots(rows: Ints, cols: Ints, cost: Array, ratio: int) -> Arcs:
    """Arcs with every focal row repeated ``ratio`` times."""
    each = np.arange(ratio)
    return (rows[:, None] * ratio + each).ravel(), np.repeat(cols, ratio), np.repeat(cost, ratio)


def _line_arcs(units: Units, focal: Array, pool: Array, ratio: int) -> Arcs:
    """Arcs that can be in an optimal matching on the line, for every focal row repeated ``ratio`` times."""
    by_focal, by_pool = np.argsort(focal, kind="stable"), np.argsort(pool, kind="stable")
    slot = np.repeat(by_focal, ratio) * ratio + np.tile(np.arange(ratio), len(focal))
    at, line = np.repeat(focal[by_focal], ratio), pool[by_pool]
    number = np.arange(len(at))
    last = np.maximum.accumulate(np.searchsorted(line, at, side="left") - number) + number
    back = np.searchsorted(line, at, side="left") - 1 + (len(at) - 1 - number)  # equal scores count as to the right
    first = np.minimum.accumulate(back[::-1])[::-1] - (len(at) - 1 - number)
    reach = min(units.reach, units.limit) + SAME * units.spread
    first = np.maximum(np.maximum(first, 0), np.searchsorted(line, at - reach, side="left"))
    last = np.minimum(np.minimum(last, len(line) - 1), np.searchsorted(line, at + reach, side="right") - 1)
    width = np.maximum(last - first + 1, 0)
    _refuse_size(int(width.sum()), MOST_ARCS)
    rows = np.repeat(number, width)
    cols = np.arange(len(rows)) - np.repeat(np.cumsum(width) - width, width) + np.repeat(first, width)
    return slot[rows], by_pool[cols], np.abs(at[rows] - line[cols])


def _assign(arcs: Arcs, n_rows: int, n_cols: int, worth: Array) -> Ints:
    """Column of every row (-1 for none): the most rows by ``worth``, then the least total cost."""
    rows, cols, cost = arcs
    chosen = np.full(n_rows, -1, np.int64)
    if not len(rows):
        return chosen
    scale = float(cost.max()) or 1.0
    penalty = worth * (n_rows + 1.0)
    if n_rows * (n_cols + n_rows) <= BLOCK or (len(rows) > 0.2 * n_rows * n_cols and n_rows * n_cols <= DENSE):
        table = np.repeat(penalty[:, None], max(n_cols, n_rows), axis=1)
        table[rows, cols] = cost / scale
        row, col = linear_sum_assignment(table)
        real = table[row, col] < penalty[row]
        chosen[row[real]] = col[real]
        return chosen
    own = np.arange(n_rows)
    graph = csr_array(
        (
            1.0 + np.concatenate([cost / scale, penalty]),
            (np.concatenate([rows, own]), np.concatenate([cols, n_cols + own])),
        ),
        shape=(n_rows, n_cols + n_rows),
    )
    row, col = min_weight_full_bipartite_matching(graph)
    real = col < n_cols
    chosen[row[real]] = col[real]
    return chosen


def _cover(
    units: Units, space: Space, focal: Ints, pool: Ints, fewest: float | None, most: float | None
) -> tuple[Ints, Ints]:
    """Edge cover of least weight of one stratum, as edges between its focal and pool rows, stars only."""
    find = _line_savers if _simple(units, space, focal, pool) else _savers
    near_one, to_pool, near_other, to_focal, (rows, cols, cost) = find(units, space, focal, pool)
    chosen = _save_most((rows, cols, near_one[rows] + near_other[cols] - cost), len(focal), len(pool))
    single = (chosen < 0) & np.isfinite(near_one)
    taken = np.zeros(len(pool), bool)
    taken[chosen[chosen >= 0]] = True
    alone = ~taken & np.isfinite(near_other)
    left = np.concatenate([np.flatnonzero(chosen >= 0), np.flatnonzero(single), to_focal[alone]])
    right = np.concatenate([chosen[chosen >= 0], to_pool[single], np.flatnonzero(alone)])
    return _stars(left, right, len(focal), len(pool))


def _savers(units: Units, space: Space, focal: Ints, pool: Ints) -> Nearest:
    """Nearest partners, and the pairs that lie closer than their two nearest partners together."""
    near_one, to_pool = np.full(len(focal), np.inf), np.zeros(len(focal), np.int64)
    near_other, to_focal = np.full(len(pool), np.inf), np.zeros(len(pool), np.int64)
    for start, d in _blocks(units, space, focal, pool):
        stop = start + len(d)
        to_pool[start:stop] = d.argmin(axis=1)
        near_one[start:stop] = d.min(axis=1)
        low = d.min(axis=0)
        better = low < near_other
        to_focal[better] = start + d.argmin(axis=0)[better]
        near_other = np.minimum(near_other, low)
    parts, total = [], 0
    for start, d in _blocks(units, space, focal, pool):
        row, col = np.nonzero(d < near_one[start : start + len(d), None] + near_other[None, :])
        total += len(row)
        _refuse_size(total, MOST_ARCS)
        parts.append((row + start, col, d[row, col]))
    rows, cols, cost = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return near_one, to_pool, near_other, to_focal, (rows, cols, cost)


def _line_savers(units: Units, space: Space, focal: Ints, pool: Ints) -> Nearest:
    """As ``_savers`` on a line, without looking at all pairs: by classes of the distance to the nearest partner."""
    a, b = space.coords[focal, 0], space.coords[pool, 0]
    reach = min(units.reach, units.limit) + SAME * units.spread
    near_one, to_pool = _line_nearest(a, b, reach)
    near_other, to_focal = _line_nearest(b, a, reach)
    open_pool = np.flatnonzero(np.isfinite(near_other))
    by = np.argsort(a, kind="stable")
    by = by[np.isfinite(near_one[by])]
    size = np.full(len(a), -1100, np.int64)
    some = np.isfinite(near_one) & (near_one > 0)
    size[some] = np.ceil(np.log2(near_one[some])).astype(np.int64)
    parts, total = [], 0
    for one in np.unique(size[by]):
        member = by[size[by] == one]
        wide = near_other[open_pool] + near_one[member].max()
        first = np.searchsorted(a[member], b[open_pool] - wide, side="left")
        width = np.searchsorted(a[member], b[open_pool] + wide, side="right") - first
        _refuse_size(int(width.sum()), MOST_ARCS)
        cols = np.repeat(open_pool, width)
        place = np.arange(len(cols)) - np.repeat(np.cumsum(width) - width, width) + np.repeat(first, width)
        rows = member[place]
        cost = np.abs(a[rows] - b[cols])
        keep = (cost < near_one[rows] + near_other[cols]) & (cost <= reach)
        total += int(keep.sum())
        _refuse_size(total, MOST_ARCS)
        parts.append((rows[keep], cols[keep], cost[keep]))
    empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    rows, cols, cost = (np.concatenate(columns) for columns in zip(empty, *parts, strict=True))
    return near_one, to_pool, near_other, to_focal, (rows, cols, cost)


def _line_nearest(a: Array, b: Array, reach: float) -> tuple[Array, Ints]:
    """For each a the distance to the nearest b (infinite beyond ``reach``) and which one; of equal ones the first."""
    by = np.argsort(b, kind="stable")
    line = b[by]
    right = np.searchsorted(line, a, side="left")
    above = np.minimum(right, len(line) - 1)
    below = np.searchsorted(line, line[np.maximum(right - 1, 0)], side="left")
    choose = np.where(np.abs(a - line[below]) <= np.abs(a - line[above]), below, above)
    near = np.abs(a - line[choose])
    return np.where(near <= reach, near, np.inf), by[choose]


def _save_most(arcs: Arcs, n_rows: int, n_cols: int) -> Ints:
    """Matching of greatest total saving; a row may stay single at no saving."""
    rows, cols, saving = arcs
    chosen = np.full(n_rows, -1, np.int64)
    if not len(rows):
        return chosen
    top = float(saving.max())
    own = np.arange(n_rows)
    graph = csr_array(
        (
            1.0 + np.concatenate([1.0 - saving / top, np.ones(n_rows)]),
            (np.concatenate([rows, own]), np.concatenate([cols, n_cols + own])),
        ),
        shape=(n_rows, n_cols + n_rows),
    )
    row, col = min_weight_full_bipartite_matching(graph)
    real = col < n_cols
    chosen[row[real]] = col[real]
    return chosen


def _stars(left: Ints, right: Ints, n_left: int, n_right: int) -> tuple[Ints, Ints]:
    """Edges without repetitions and without those whose two ends are both covered by other edges."""
    edges = np.unique(np.column_stack([left, right]), axis=0)
    degree_left = np.bincount(edges[:, 0], minlength=n_left)
    degree_right = np.bincount(edges[:, 1], minlength=n_right)
    keep = np.ones(len(edges), bool)
    for e in np.flatnonzero((degree_left[edges[:, 0]] > 1) & (degree_right[edges[:, 1]] > 1)):
        a, b = edges[e]
        if degree_left[a] > 1 and degree_right[b] > 1:
            keep[e] = False
            degree_left[a] -= 1
            degree_right[b] -= 1
    return edges[keep, 0], edges[keep, 1]


def _bounded(
    units: Units, space: Space, focal: Ints, pool: Ints, fewest: float | None, most: float | None
) -> tuple[Ints, Ints]:
    """Full matching of one stratum with bounds on the sets, as a flow.

    Every arc is used or not; a treated unit has between max(1, fewest) and most arcs, another unit between 1 and
    1 / fewest. An arc whose two ends both have others never helps, so that what is left are stars.
    """
    rows, cols, cost = _gather(units, space, focal, pool)
    has_one, has_other = np.unique(rows), np.unique(cols)
    low = 1.0 if fewest is None else max(1.0, np.ceil(fewest))
    high = np.inf if most is None else max(1.0, np.floor(most))
    share = np.inf if fewest is None else max(1.0, np.floor(1.0 / fewest + 1e-9))
    if most is not None and most < 1:
        raise DesignError(Fault("design.match_full_bounds", {}))
    m = len(rows)
    one = csr_array((np.ones(m), (np.searchsorted(has_one, rows), np.arange(m))), shape=(len(has_one), m))
    other = csr_array((np.ones(m), (np.searchsorted(has_other, cols), np.arange(m))), shape=(len(has_other), m))
    scale = float(cost.max()) or 1.0
    solved = milp(
        cost / scale,
        constraints=[LinearConstraint(one, low, high), LinearConstraint(other, 1.0, share)],
        bounds=Bounds(0.0, 1.0),
        integrality=np.zeros(m),
    )
    if solved.x is None:
        raise DesignError(Fault("design.match_full_bounds", {}))
    used = solved.x > 0.5
    left, right = rows[used], cols[used]
    return (left, right) if low > 1 else _stars(left, right, len(focal), len(pool))
