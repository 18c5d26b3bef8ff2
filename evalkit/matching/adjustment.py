"""What makes two groups alike: matches or weights. Every estimator of this package starts from one of these values.

Rows are the rows of the data (n,), in the order given. Nothing here knows an outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.hashing import Hash

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

TargetName = Literal["att", "atc", "ate", "ato", "atm"]
"""Whose average effect: of the treated, of the others, of all, of those with overlap, of those an even match keeps."""


POPULATION = {"att": "starters", "atc": "comparison", "ate": "eligible", "ato": "overlap", "atm": "overlap"}
"""What profiles call the population of a target."""


@dataclass(frozen=True)
class Candidates:
    """Who can be matched, as arrays (n,).

    ``treated``: bool. ``person``: integer codes; nobody is his own match. ``key``: keyed hash of the person, settles
    ties. ``stratum``: integer code of the cell within which matches are exact. ``score``: linear predictor.
    """

    treated: NDArray[np.bool_]
    person: NDArray[np.int64]
    key: Hash
    stratum: NDArray[np.int64]
    score: Array


@dataclass(frozen=True)
class Pairs:
    """Matches: ``treated`` and ``control`` (M,) are row numbers, ``weight`` (M,) sums to one a treated row.

    For the effect on the others (``atc``) the roles are swapped: ``treated`` holds the rows that are matched (the focal
    rows), ``control`` the rows they are matched with. ``outside`` lists focal rows without a match inside the caliper;
    ``width`` is the caliper on the score used.
    """

    treated: Ints
    control: Ints
    weight: Array
    outside: Ints
    width: float

    @property
    def matched(self) -> Ints:
        """Focal rows with at least one match, ascending."""
        return np.unique(self.treated)


@dataclass(frozen=True)
class Matching:
    """The outcome of any matching method.

    Attributes
    ----------
    treated: (n,) bool.
    target: ``att``, ``atc`` or ``ate``.
    population: (n,) weight of each row in the population whose average effect is estimated: for ``att`` 1 for treated
        rows that are kept, 0 elsewhere; for ``atc`` the same for the others; for ``ate`` 1 for every row kept.
    weight: (n,) matching weights, not rescaled: for ``att`` 1 for kept treated rows and K_j, the summed match weight,
        for comparison rows (so that they sum to the number of kept treated rows); for ``ate`` 1 + K_j for every kept
        row. 0 for rows that are not used.
    pairs: focal row -> match, both directions one after the other for ``ate``; None where there are none (strata) or
        too many to keep (kernel).
    subclass: (n,) code of the matched set or stratum, -1 for rows in none; None with replacement and for kernels.
    outside: focal rows without a match; ``discarded``: rows outside common support before matching.
    width: caliper on the score in its own units, infinite without one.
    """

    treated: Mask
    target: TargetName
    population: Array
    weight: Array
    pairs: Pairs | None
    subclass: Ints | None
    outside: Ints
    discarded: Ints
    width: float = float("inf")

    @property
    def used(self) -> Ints:
        """Rows that carry weight or belong to the population, ascending."""
        return np.flatnonzero((self.weight != 0) | (self.population > 0))

    def take(self, rows: Ints) -> Matching:
        """The same matches among some rows, ascending, which must hold every row used; they are renumbered."""
        pairs = self.pairs
        if pairs is not None:
            treated, control = (np.searchsorted(rows, r) for r in (pairs.treated, pairs.control))
            pairs = replace(pairs, treated=treated, control=control, outside=np.empty(0, np.int64))
        return Matching(
            self.treated[rows],
            self.target,
            self.population[rows],
            self.weight[rows],
            pairs,
            None if self.subclass is None else self.subclass[rows],
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            self.width,
        )

    @property
    def scaled_weight(self) -> Array:
        """Weights with mean 1 among the used rows of each arm, as MatchIt shows them."""
        out = self.weight.copy()
        for arm in (self.treated, ~self.treated):
            used = arm & (out > 0)
            if used.any():
                out[used] /= out[used].mean()
        return out


@dataclass(frozen=True)
class Weights:
    """Weights from a model or from balance conditions, with what is needed to account for their estimation.

    Attributes
    ----------
    treated: (n,) bool.
    target: ``att``, ``atc``, ``ate``, ``ato`` or ``atm``.
    population: (n,) weight of each row in the target population (``att``: treated; ``ate``: 1; ``ato``: e (1 - e)).
    weight: (n,) weights of both arms, >= 0, not rescaled; 0 for rows that are trimmed.
    score: (n,) fitted chance of treatment; None where the method has none.
    derivative: (n, p) d weight / d theta at the estimate; ``population_derivative`` (n, p) likewise, None when the
        population does not depend on theta.
    influence: (n, p) influence of each row on theta in sum form (theta_hat - theta ~ its column sums); None where the
        estimation of the weights cannot be accounted for (then ``derivative`` is None too).
    trimmed: rows left out by trimming; ``truncated``: how many weights were capped, and ``cap`` where.
    converged, iterations: of the solver. ``imbalance``: largest absolute standardised difference that is left.
    """

    treated: Mask
    target: TargetName
    population: Array
    weight: Array
    score: Array | None
    derivative: Array | None
    influence: Array | None
    population_derivative: Array | None = None
    trimmed: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    truncated: int = 0
    cap: float = float("inf")
    converged: bool = True
    iterations: int = 0
    imbalance: float = 0.0

    @property
    def used(self) -> Ints:
        """Rows that carry weight or belong to the population, ascending."""
        return np.flatnonzero((self.weight != 0) | (self.population > 0))


Adjustment = Matching | Weights


def placed(adjustment: Adjustment, rows: Ints, treated: Mask) -> Adjustment:
    """An adjustment of some rows as one of all n rows, of which ``rows`` are the places; the others count for nothing.

    ``treated``: (n,) of all rows. Matches keep no list of pairs.
    """

    def back(values: NDArray[Any] | None, missing: float = 0) -> NDArray[Any] | None:
        if values is None:
            return None
        out = np.full((len(treated), *values.shape[1:]), missing, values.dtype)
        out[rows] = values
        return out

    changed: dict[str, Any] = {name: back(getattr(adjustment, name)) for name in ("population", "weight")}
    if isinstance(adjustment, Matching):
        changed |= {"pairs": None, "subclass": back(adjustment.subclass, -1)}
        changed |= {name: rows[getattr(adjustment, name)] for name in ("outside", "discarded")}
        return replace(adjustment, treated=treated, **changed)
    for name in ("derivative", "influence", "population_derivative"):
        changed[name] = back(getattr(adjustment, name))
    return replace(
        adjustment, treated=treated, score=back(adjustment.score, np.nan), trimmed=rows[adjustment.trimmed], **changed
    )
