"""The outcome step: what an adjustment says about the outcomes, month by month, with its uncertainty.

One front door, :func:`estimate`. Which rows count in a month is settled in ``part``, the estimate and its expansion in
``models``, contributions by row in ``inference``; ``admissible`` says what goes together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evalkit.effects import Covariance, Influence, MonthlyEffect, Uncertainty
from evalkit.errors import DesignError, Fault
from evalkit.matching.abadie_imbens import Everyone, Neighbours, abadie_imbens, estimated_score_term
from evalkit.matching.adjustment import Adjustment, Matching, Weights
from evalkit.matching.admissible import ErrorName, admissible
from evalkit.matching.bootstrap import Bootstrap, resample
from evalkit.matching.inference import (
    PairSums,
    Score,
    fixed_influence,
    matching_influence,
    pair_contributions,
    weighting_influence,
)
from evalkit.matching.models import MODELS, Expansion, ModelName
from evalkit.matching.part import Part, usable, where, whole
from evalkit.matching.regressions import Family

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

FEWEST = 2
"""Fewer rows than this in the population, or none in an arm: the month has no estimate."""


def estimate(
    adjustment: Adjustment,
    y: Array,
    observed: Mask,
    x: Array,
    *,
    model: ModelName,
    errors: ErrorName = "influence",
    person: Ints,
    cluster: Ints | None = None,
    level: str = "person",
    family: Family = "linear",
    before: Array | None = None,
    before_observed: Mask | None = None,
    score: Score | None = None,
    neighbours: Neighbours | None = None,
    bootstrap: Bootstrap | None = None,
) -> MonthlyEffect:
    """The effect by month on the population that the adjustment names.

    Estimates tau_k = E_g[Y_k(1) - Y_k(0)], g the target population of ``adjustment``, given that the covariates behind
    the adjustment account for who starts. With ``before`` it is conditional difference-in-differences: the effect on
    the change since the mean of the months before, given that without treatment both would have changed alike
    (Heckman, Ichimura, Smith and Todd 1998). The outcome being the change itself, its noise in both periods, the
    matching or weighting and the regression are all in the standard error.

    Parameters
    ----------
    adjustment: matches or weights on n rows.
    y, observed: (n, K) outcomes by month and whether a month is observed. Values where it is not are not looked at.
    x: (n, p) covariates, an intercept first, in order of importance: with few rows the first columns only are used.
    model: ``means``, ``regression``, ``gcomputation``, ``bias_corrected`` or ``aipw``; see ``evalkit.matching.models``.
    errors: ``influence`` (default; for weights M-estimation), ``m_estimation``, ``HC0`` .. ``HC3``, ``pair_cluster``,
        ``abadie_imbens``, ``abadie_imbens_estimated``, ``bootstrap``; see :func:`~evalkit.matching.admissible`.
    person: (n,) codes, for counting people.
    cluster: (n,) codes within which contributions are summed; default: persons. ``level`` names it.
    family: ``linear``, ``logit`` (fractions) or ``poisson`` (counts, money) for the regressions by arm.
    before, before_observed: (n, M) outcomes in months before time zero.
    score: what rows were matched on; lets ``means`` account for its estimation.
    neighbours: ``abadie_imbens`` only: covariances from the nearest rows of the same arm.
    bootstrap: ``bootstrap`` only: how to draw and how to adjust anew.

    Returns
    -------
    MonthlyEffect
        Months with fewer than two rows in the population, or an empty arm, are NaN. The uncertainty is an
        :class:`~evalkit.effects.Influence` by cluster for ``influence``, ``m_estimation`` and ``HC*``, a
        :class:`~evalkit.effects.Covariance` otherwise.

    Raises
    ------
    DesignError
        ``outcome.*`` for a combination that is refused, for rows that are not independent where they must be, for
        months observed for different rows where all must be alike, and for regressions without a solution.
    """
    admissible(adjustment, model, errors, family)
    if model in ("regression", "gcomputation") and (adjustment.weight < 0).any():
        raise DesignError(Fault("outcome.negative_weights", {"model": model}))
    cluster = person if cluster is None else cluster
    if before is not None:
        y, observed = changes(y, observed, before, before_observed)
    y = np.where(observed, y, 0.0)
    if errors == "bootstrap":
        if bootstrap is None:
            raise DesignError(Fault("outcome.bootstrap_undefined", {"errors": errors}))
        result = _Result(y.shape[1])
        result.work_out(adjustment, y, observed, x, model, family, person)
        draw = partial(points, y=y, observed=observed, x=x, model=model, family=family)
        return result.effect(resample(bootstrap, cluster, draw))
    result = _Result(y.shape[1])
    blocks = result.work_out(adjustment, y, observed, x, model, family, person)
    if isinstance(adjustment, Matching) and errors in ("abadie_imbens", "abadie_imbens_estimated"):
        return result.effect(_independent(adjustment, blocks, y, observed, cluster, errors, score, neighbours))
    if isinstance(adjustment, Matching) and errors == "pair_cluster":
        return result.effect(Covariance(_pair_sums(blocks, adjustment, y.shape).vcov()))
    psi = contributions(adjustment, blocks, x, y.shape, errors, score)
    return result.effect(clustered(psi, cluster, level))


@dataclass(frozen=True)
class Block:
    """Months that use the same rows: their numbers, what is usable (see ``part.usable``), the part, the expansion."""

    months: Ints
    keep: Mask
    part: Part
    found: Expansion


class _Result:
    """Estimates by month as they come in."""

    def __init__(self, horizon: int):
        self.value = np.full(horizon, np.nan)
        self.versus = np.full(horizon, np.nan)
        self.people = np.zeros((2, horizon), np.int64)
        self.columns: list[int] = []

    def work_out(
        self, adjustment: Adjustment, y: Array, observed: Mask, x: Array, model: ModelName, family: Family, person: Ints
    ) -> list[Block]:
        """Estimate all months; the blocks that have an estimate."""
        blocks = []
        for months, keep, part in months_alike(adjustment, observed):
            for arm, rows in enumerate(part.arms()):
                self.people[arm, months] = len(np.unique(person[part.rows[rows]]))
            if not part.complete or part.focal.sum() < FEWEST:
                continue
            found = MODELS[model](part, x[part.rows], y[np.ix_(part.rows, months)], family)
            self.value[months], self.versus[months] = found.estimate, found.versus
            self.columns.append(found.columns)
            blocks.append(Block(months, keep, part, found))
        return blocks

    def effect(self, uncertainty: Uncertainty) -> MonthlyEffect:
        """The months together."""
        columns = min(self.columns, default=0)
        return MonthlyEffect(self.value, self.versus, self.people[1], self.people[0], uncertainty, columns)


def changes(y: Array, observed: Mask, before: Array, before_observed: Mask | None) -> tuple[Array, Mask]:
    """Outcomes less each row's own mean over the months before that are observed; rows without any are not observed."""
    seen = np.isfinite(before) if before_observed is None else before_observed
    count = seen.sum(axis=1)
    mean = np.where(seen, before, 0.0).sum(axis=1) / np.maximum(count, 1)
    return np.where(observed, y, 0.0) - mean[:, None], observed & (count > 0)[:, None]


def months_alike(
    adjustment: Adjustment, observed: Mask, count: Array | None = None
) -> Iterator[tuple[Ints, Mask, Part]]:
    """Months that can use the same rows, what they can use, and the adjustment on it. ``count``: see :class:`Part`."""
    part = whole(adjustment, count)
    can = usable(part, observed[part.rows])
    alike: dict[bytes, list[int]] = {}
    for month, packed in enumerate(np.packbits(can, axis=0).T):
        alike.setdefault(packed.tobytes(), []).append(month)
    for months in alike.values():
        keep = np.ascontiguousarray(can[:, months[0]])
        yield np.array(months), keep, where(part, keep, adjustment)


def points(
    adjustment: Adjustment, count: Array, y: Array, observed: Mask, x: Array, model: ModelName, family: Family
) -> Array:
    """Estimates by month (K,) when row i stands count_i times in the data that ``adjustment`` was made of."""
    out = np.full(y.shape[1], np.nan)
    for months, _, part in months_alike(adjustment, observed, count):
        if part.complete and part.focal.sum() >= FEWEST:
            out[months] = MODELS[model](part, x[part.rows], y[np.ix_(part.rows, months)], family).estimate
    return out


def contributions(
    adjustment: Adjustment,
    blocks: list[Block],
    x: Array,
    shape: tuple[int, ...],
    errors: ErrorName,
    score: Score | None,
) -> Array:
    """Contributions of all rows (n, K) to the estimates by month, in sum form."""
    psi = np.zeros(shape)
    for block in blocks:
        part, found, term, source = block.part, block.found, None, None
        if errors.startswith("HC"):
            rows = fixed_influence(part, found, errors)
        elif isinstance(adjustment, Weights):
            rows, term = weighting_influence(part, found, adjustment)
            source = adjustment.influence
        else:
            rows, term = matching_influence(part, found, x[part.rows], score)
            source = None if score is None else score.influence
        psi[np.ix_(part.rows, block.months)] += rows
        if term is not None and source is not None:
            psi[:, block.months] += source @ term
    return psi


def clustered(psi: Array, cluster: Ints, level: str) -> Influence:
    """Contributions (n, K) summed within clusters (n,); clusters that contribute nothing are kept."""
    ids, index = np.unique(cluster, return_inverse=True)
    values = np.zeros((len(ids), psi.shape[1]))
    np.add.at(values, index, psi)
    return Influence(ids, values, level)


def _pair_sums(blocks: list[Block], adjustment: Matching, shape: tuple[int, ...]) -> PairSums:
    """Contributions with weights taken as given, by matched set; with replacement also by row and by single match."""
    sets, size, parameters = np.zeros(shape), np.ones(shape[1]), np.ones(shape[1])
    if adjustment.subclass is not None:
        _, cell = np.unique(adjustment.subclass, return_inverse=True)
        for block in blocks:
            part, columns = block.part, block.months
            np.add.at(sets, np.ix_(cell[part.rows], columns), fixed_influence(part, block.found))
            size[columns], parameters[columns] = (part.weight != 0).sum(), block.found.parameters
        return PairSums(sets, None, None, size, parameters)
    assert adjustment.pairs is not None
    rows, single = np.zeros(shape), np.zeros((shape[0] + len(adjustment.pairs.treated), shape[1]))
    for block in blocks:
        part, columns = block.part, block.months
        own, lent, total = pair_contributions(part, block.found)
        sets[np.ix_(part.rows, columns)] = total
        rows[np.ix_(part.rows, columns)] = fixed_influence(part, block.found)
        single[np.ix_(part.rows, columns)] = own
        single[np.ix_(shape[0] + np.flatnonzero(block.keep), columns)] = lent
        size[columns], parameters[columns] = part.focal.sum() + len(lent), block.found.parameters
    return PairSums(sets, rows, single, size, parameters)


def _independent(
    adjustment: Matching,
    blocks: list[Block],
    y: Array,
    observed: Mask,
    cluster: Ints,
    errors: ErrorName,
    score: Score | None,
    neighbours: Neighbours | None,
) -> Covariance:
    """Covariance of Abadie and Imbens: independent rows, and the same ones in every month."""
    used = whole(adjustment).rows
    if len(np.unique(cluster[used])) < len(used):
        raise DesignError(Fault("outcome.rows_not_independent", {"errors": errors}))
    months = np.concatenate([block.months for block in blocks]) if blocks else np.empty(0, np.int64)
    if len(blocks) != 1 or len(months) < y.shape[1]:
        raise DesignError(Fault("outcome.months_differ", {"errors": errors}))
    seen: Mask = np.asarray(observed.all(axis=1), bool)
    seen[adjustment.discarded] = False
    everyone = Everyone(y, adjustment.treated, seen)
    block = blocks[0]
    vcov = abadie_imbens(block.part, block.found, everyone, neighbours)
    if errors == "abadie_imbens_estimated":
        if score is None or score.design is None:
            raise DesignError(Fault("outcome.score_missing", {"errors": errors}))
        vcov = vcov + estimated_score_term(block.part, block.found, everyone, score)
    return Covariance(vcov)
