"""The bootstrap of weighting and stratification, with the weights made anew in every draw.

Persons (or coarser clusters) are drawn, not rows. Valid for estimators that are smooth in the data: weights from a
model or from balance conditions, strata, kernels. Not for nearest neighbours, whose match weights jump: there it is
refused (Abadie and Imbens 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.effects import Covariance, generator
from evalkit.errors import DesignError, Fault
from evalkit.matching.adjustment import Adjustment, Weights

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_DRAWS = 50
LOST = 0.05
"""Share of draws without an estimate above which the bootstrap is given up."""


@dataclass(frozen=True)
class Bootstrap:
    """How to draw.

    Attributes
    ----------
    redo: makes the adjustment anew from how often each row stands in the draw: ``redo(count)`` with count (n,) >= 0
        returns weights and population (n,) in the same order that hold the count (a row that stands twice weighs
        twice), such as ``weigh(..., base=count)``, or :func:`by_rows`.
    draws: how many.
    seed, name: of the generator (``evalkit.effects.generator``).
    kind: ``resample`` (Efron 1979): clusters with replacement; ``poisson``: each cluster a Poisson(1) number of times;
        ``bayesian`` (Rubin 1981): exponential weights with mean one, so that no cluster is lost and no arm is empty.
    """

    redo: Callable[[Array], Adjustment]
    draws: int = 999
    seed: int = 0
    name: str = "bootstrap"
    kind: Literal["resample", "poisson", "bayesian"] = "resample"


def by_rows(adjust: Callable[[Ints], Adjustment]) -> Callable[[Array], Adjustment]:
    """``redo`` for an adjustment that knows no counts: ``adjust(rows)`` works on the rows (m,), which repeat.

    For ``resample`` and ``poisson``, whose counts are whole.
    """

    def redo(count: Array) -> Adjustment:
        size = len(count)
        rows = np.repeat(np.arange(size), count.astype(np.int64))
        made = adjust(rows)
        treated = np.zeros(size, bool)
        treated[rows] = made.treated
        weight = np.bincount(rows, made.weight, minlength=size).astype(float)
        population = np.bincount(rows, made.population, minlength=size).astype(float)
        if isinstance(made, Weights):
            return replace(made, treated=treated, population=population, weight=weight, derivative=None, influence=None)
        subclass = None
        if made.subclass is not None:
            subclass = np.full(size, -1, np.int64)
            subclass[rows] = made.subclass
        return replace(made, treated=treated, population=population, weight=weight, subclass=subclass)

    return redo


def counts(rng: np.random.Generator, clusters: int, kind: str) -> Array:
    """How often each cluster stands in one draw (G,)."""
    if kind == "resample":
        return np.bincount(rng.integers(0, clusters, clusters), minlength=clusters).astype(float)
    if kind == "poisson":
        return rng.poisson(1.0, clusters).astype(float)
    return rng.exponential(1.0, clusters)


def resample(how: Bootstrap, cluster: Ints, points: Callable[[Adjustment, Array], Array]) -> Covariance:
    """Covariance (K, K) of the estimates over draws.

    ``points(adjustment, count)`` returns the estimates (K,) of one draw. Draws whose adjustment cannot be made, or
    that leave a month without estimate, are left out.

    Raises
    ------
    DesignError
        ``outcome.bootstrap_draws`` with too few draws; ``outcome.bootstrap_fails`` when more than one in twenty fails.
    """
    if how.draws < FEWEST_DRAWS:
        raise DesignError(Fault("outcome.bootstrap_draws", {"draws": how.draws, "least": FEWEST_DRAWS}))
    rng = generator(how.seed, how.name)
    _, index = np.unique(cluster, return_inverse=True)
    number = int(index.max()) + 1
    found = []
    for _ in range(how.draws):
        count = counts(rng, number, how.kind)[index]
        try:
            value = points(how.redo(count), count)
        except DesignError:
            continue
        if np.isfinite(value).all():
            found.append(value)
    failed = how.draws - len(found)
    if failed > LOST * how.draws:
        raise DesignError(Fault("outcome.bootstrap_fails", {"failed": failed, "draws": how.draws}))
    return Covariance(np.atleast_2d(np.cov(np.array(found), rowvar=False)))
