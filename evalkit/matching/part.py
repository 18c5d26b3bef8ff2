"""What an adjustment says about the rows that are observed in a month."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalkit.matching.adjustment import Adjustment, Matching, Pairs, Weights

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

SAME = 1e-12


@dataclass(frozen=True)
class Part:
    """An adjustment on the rows in use, arrays (m,).

    Attributes
    ----------
    rows: their numbers in the data.
    treated: bool.
    population: weight in the population whose average effect is estimated.
    weight: weight in its own arm.
    matches: the part of ``weight`` that comes from being matched with others (K); for weights from a model, zero.
    pairs: focal row, match and weight, as numbers among the rows in use; None without pairs.
    subclass: code of the stratum, -1 for none; None without strata.
    count: how often the row stands in the data: 1, or its weight in a bootstrap draw.
    """

    rows: Ints
    treated: Mask
    population: Array
    weight: Array
    matches: Array
    pairs: tuple[Ints, Ints, Array] | None
    subclass: Ints | None
    count: Array

    @property
    def focal(self) -> Mask:
        """Rows of the population that stand for themselves, and of which the other arm is imputed."""
        return self.population > 0

    def arms(self) -> tuple[Mask, Mask]:
        """Rows with weight in the arm without and with treatment."""
        return ~self.treated & (self.weight != 0), self.treated & (self.weight != 0)

    def rescaled(self) -> Array:
        """Weights with mean one among the used rows of each arm, for matching without replacement and for strata.

        Regressions with one slope for both arms depend on how much each arm counts. Matches with replacement and
        weights from a model keep their own sum.
        """
        if self.subclass is None:
            return self.weight
        out = self.weight.copy()
        for arm in self.arms():
            out[arm] /= out[arm].mean() if arm.any() else 1.0
        return out

    @property
    def complete(self) -> bool:
        """Whether both arms and the population have someone."""
        return bool(self.arms()[0].any() and self.arms()[1].any() and self.focal.any())


def whole(adjustment: Adjustment, count: Array | None = None) -> Part:
    """The rows that an adjustment uses, before any month is looked at.

    ``count`` (n,): how often each row stands in the data that the adjustment was made of, for the bootstrap.
    """
    used = (adjustment.weight != 0) | (adjustment.population > 0)
    if count is not None:
        used &= count > 0
    rows = np.flatnonzero(used)
    times = np.ones(len(rows)) if count is None else count[rows]
    weight, population = adjustment.weight[rows], adjustment.population[rows]
    if isinstance(adjustment, Weights):
        return Part(rows, adjustment.treated[rows], population, weight, np.zeros(len(rows)), None, None, times)
    matches = weight - population
    matches[np.abs(matches) <= SAME * population] = 0.0
    pairs = None if adjustment.pairs is None else _renumbered(adjustment.pairs, rows)
    subclass = None if adjustment.subclass is None else adjustment.subclass[rows]
    return Part(rows, adjustment.treated[rows], population, weight, matches, pairs, subclass, times)


def _renumbered(pairs: Pairs, rows: Ints) -> tuple[Ints, Ints, Array]:
    return np.searchsorted(rows, pairs.treated), np.searchsorted(rows, pairs.control), pairs.weight


def usable(part: Part, observed: Mask) -> Mask:
    """What decides which rows a month uses: pairs (M, K) of which both are observed, or rows (m, K) that are."""
    if part.pairs is None:
        return observed
    focal, match, _ = part.pairs
    return np.asarray(observed[focal] & observed[match])


def where(part: Part, keep: Mask, adjustment: Adjustment) -> Part:
    """The part that is left when only these pairs or rows (see :func:`usable`) can be used.

    Pairs: a focal row leans on the matches it has left, and one without any leaves the population. Strata: in each
    stratum both arms again carry the weight of its population, and a stratum without one of the arms is left out.
    Kernels: the other arm again carries the weight of the whole population. Weights from a model stay as they are;
    estimators divide by their sum.
    """
    if keep.all():
        return part
    if part.pairs is not None:
        return _fewer_pairs(part, keep)
    population, weight = part.population * keep, part.weight * keep
    if isinstance(adjustment, Matching):
        cell = np.zeros(len(keep), np.int64) if part.subclass is None else part.subclass + 1
        size = int(cell.max(initial=0)) + 1
        total = np.bincount(cell, population, size)
        arms = [np.bincount(cell, weight * arm, size) for arm in (~part.treated, part.treated)]
        whole = (arms[0] > 0) & (arms[1] > 0) & (total > 0)
        population *= whole[cell]
        share = [np.divide(total, arm, out=np.zeros(size), where=whole) for arm in arms]
        weight *= np.where(part.treated, share[1][cell], share[0][cell])
    rows = (weight != 0) | (population > 0)
    matches = weight - population if isinstance(adjustment, Matching) else np.zeros(len(keep))
    matches[np.abs(matches) <= SAME * population] = 0.0
    subclass = None if part.subclass is None else part.subclass[rows]
    return replace(
        part,
        rows=part.rows[rows],
        treated=part.treated[rows],
        population=population[rows],
        weight=weight[rows],
        matches=matches[rows],
        subclass=subclass,
        count=part.count[rows],
    )


def _fewer_pairs(part: Part, keep: Mask) -> Part:
    assert part.pairs is not None
    focal, match, weight = part.pairs[0][keep], part.pairs[1][keep], part.pairs[2][keep]
    size = len(part.rows)
    weight = weight / np.bincount(focal, weight, size)[focal]
    population = np.zeros(size)
    population[focal] = part.population[focal]
    matches = np.bincount(match, weight * population[focal], size).astype(float)
    used = np.flatnonzero((population > 0) | (matches != 0))
    pairs = (np.searchsorted(used, focal), np.searchsorted(used, match), weight)
    subclass = None if part.subclass is None else part.subclass[used]
    return replace(
        part,
        rows=part.rows[used],
        treated=part.treated[used],
        population=population[used],
        weight=(population + matches)[used],
        matches=matches[used],
        pairs=pairs,
        subclass=subclass,
        count=part.count[used],
    )
