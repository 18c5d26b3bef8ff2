"""Kernel, radius and ridge matching: each focal row is compared with everybody near it on the score.

The weights add up to one a focal row and are summed as they are made, without keeping pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import DesignError, Fault
from evalkit.kernels import smooth as kernels
from evalkit.matching.adjustment import Matching, TargetName
from evalkit.matching.distance import Space
from evalkit.matching.greedy import Units, match_greedy

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

SmoothName = Literal["kernel", "radius", "ridge"]
KernelName = Literal["epanechnikov", "gaussian", "uniform", "triangular", "biweight", "triweight", "tricube", "cosine"]
Bandwidth = float | Literal["pair", "widest", "cv"]

RIDGE: dict[str, float] = {"epanechnikov": 5 / 16, "gaussian": 0.35}
"""Ridge parameters of Seifert and Gasser's rule of thumb, as Frölich (2004) uses them."""

PAIR_QUANTILE, PAIR_FACTOR = 0.9, 1.5
CV_GRID, CV_ROWS = 20, 5_000


@dataclass(frozen=True)
class _Side:
    """One direction: rows that are compared, and the pool in the order of the kernel with each row's part of it."""

    rows: Ints
    pool: Ints
    first: Ints
    last: Ints


def match_smooth(
    units: Units,
    treated: Mask,
    target: TargetName,
    discarded: Ints,
    *,
    how: SmoothName,
    kernel: KernelName | None = None,
    bandwidth: Bandwidth = "pair",
    values: Array | None = None,
    ridge: float | None = None,
) -> Matching:
    """Compare each focal row with a local average of the pool at its score, within exact strata.

    With K the kernel, h the bandwidth and k_j = K((s_j - s_i) / h) the pool row j gets in the comparison of row i

    - ``kernel``, ``radius``: w_ij = k_j / sum k, a local mean (Heckman, Ichimura and Todd 1997, 1998); ``radius`` has
      the uniform kernel unless another is named (``triangular`` counts the nearer more, in the spirit of Lechner,
      Miquel and Wunsch 2011);
    - ``ridge``: w_ij = k_j / S0 + k_j (s_j - c) (s_i - c) / (S2 + r h |s_i - c|), c the weighted mean of the scores
      near i, S0 = sum k, S2 = sum k (s_j - c)^2: a local line held back where few are near (Seifert and Gasser 1996;
      Frölich 2004). These weights add up to one too, but some may be negative, and so may their sums; ridge = 0 is the
      local line.

    Parameters
    ----------
    units: ``focal`` are the treated, whatever the target; ``score``, ``stratum`` and ``person`` are used.
    kernel: default ``epanechnikov``, ``uniform`` for ``radius``. The normal density is followed to six bandwidths.
    bandwidth: in units of the score. ``pair``: 1.5 times the 90 % quantile of the distances, other than zero, between
        each focal row and its nearest neighbour (Huber, Lechner and Wunsch 2013; Jann 2017). ``widest``: 1.5 times the
        largest of them (Lechner, Miquel and Wunsch 2011). ``cv``: that of twenty bandwidths, even in logs from half the
        pair rule to the standard deviation of the score, which predicts ``values`` best among the pool, each row left
        out in turn (at most 5,000 rows, those with the lowest keys; the mean of the pool where nobody is near).
    values: (n,) for ``cv``: what is to be predicted, such as an outcome before the start.
    ridge: r; default 5/16 for ``epanechnikov`` and 0.35 for ``gaussian``.

    Returns
    -------
    Matching without pairs and sets; ``width`` is the bandwidth.

    Raises
    ------
    DesignError
        ``design.nobody_matched``; ``design.match_bandwidth``; ``design.match_ridge`` when a ridge parameter is lacking.
    """
    kind = kernel or ("uniform" if how == "radius" else "epanechnikov")
    if kind not in kernels.KERNELS:
        raise DesignError(Fault("design.match_kernel", {"kernel": str(kind)}))
    code = kernels.KERNELS.index(kind)
    strength = -1.0
    if how == "ridge":
        given = RIDGE.get(kind) if ridge is None else ridge
        if given is None or not 0 <= given < np.inf:
            raise DesignError(Fault("design.match_ridge", {"kernel": kind}))
        strength = float(given)
    directions = {"att": [units], "atc": [units.swapped()], "ate": [units, units.swapped()]}[target]
    width = _bandwidth(directions, bandwidth, values, code, strength)
    population = np.zeros(len(treated))
    weight = np.zeros(len(treated))
    outside: list[Ints] = []
    for one in directions:
        side = _side(one, np.flatnonzero(one.focal))
        summed, found, _ = _run(one, side, code, width, strength, np.zeros(len(side.pool)))
        population[side.rows[found]] = 1.0
        weight[side.pool] += summed
        outside.append(side.rows[~found])
    if not population.any():
        raise DesignError(Fault("design.nobody_matched", {"starters": int(sum(one.focal.sum() for one in directions))}))
    return Matching(
        treated, target, population, weight + population, None, None, np.sort(np.concatenate(outside)), discarded, width
    )


def _side(units: Units, rows: Ints, pool: Mask | None = None) -> _Side:
    others = np.flatnonzero(units.pool if pool is None else pool)
    others = others[np.lexsort((units.key[others], units.score[others], units.stratum[others]))]
    cells = units.stratum[others]
    bounds = [np.searchsorted(cells, units.stratum[rows], side=side).astype(np.int64) for side in ("left", "right")]
    return _Side(rows, others, bounds[0], bounds[1])


def _run(units: Units, side: _Side, code: int, width: float, ridge: float, values: Array) -> tuple[Array, Mask, Array]:
    summed, found, fitted = kernels.smooth(
        units.score[side.rows],
        units.person[side.rows],
        side.first,
        side.last,
        units.score[side.pool],
        units.person[side.pool],
        code,
        width,
        ridge,
        values,
    )
    return summed, found, fitted


def _bandwidth(
    directions: Sequence[Units], bandwidth: Bandwidth, values: Array | None, code: int, ridge: float
) -> float:
    if not isinstance(bandwidth, str):
        if not 0 < bandwidth < np.inf:
            raise DesignError(Fault("design.match_bandwidth", {}))
        return float(bandwidth)
    if bandwidth not in ("pair", "widest", "cv"):
        raise DesignError(Fault("design.match_bandwidth", {}))
    near = np.concatenate([_pair_distances(one) for one in directions])
    kept = directions[0].focal | directions[0].pool
    spread = float(np.std(directions[0].score[kept], ddof=1)) or 1.0
    near = near[near > 1e-9 * spread]
    pair = PAIR_FACTOR * float(np.quantile(near, PAIR_QUANTILE)) if len(near) else 1e-6 * spread
    if bandwidth == "pair":
        return pair
    if bandwidth == "widest":
        return PAIR_FACTOR * float(near.max()) if len(near) else pair
    if values is None:
        raise DesignError(Fault("design.match_bandwidth_values", {}))
    grid = np.geomspace(0.5 * pair, max(spread, pair), CV_GRID)
    errors = [sum(_left_out(one, values, code, float(h), ridge) for one in directions) for h in grid]
    return float(grid[int(np.argmin(errors))])


def _pair_distances(units: Units) -> Array:
    """Distance of each focal row to its nearest neighbour; nothing when nobody has one."""
    try:
        pairs = match_greedy(units, Space(units.score[:, None]), replace=True, order="data")
    except DesignError:
        return np.empty(0)
    return np.abs(units.score[pairs.treated] - units.score[pairs.control])


def _left_out(units: Units, values: Array, code: int, width: float, ridge: float) -> float:
    """Sum of squared errors of the pool's values, each predicted from the others'."""
    pool = np.flatnonzero(units.pool)
    rows = np.sort(pool[np.lexsort((pool, units.key[pool]))[:CV_ROWS]])
    side = _side(units, rows)
    _, _, fitted = _run(units, side, code, width, ridge, values[side.pool])
    fitted = np.where(np.isfinite(fitted), fitted, values[pool].mean())
    return float(((values[rows] - fitted) ** 2).sum())
