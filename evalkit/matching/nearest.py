"""Nearest-neighbour matching on a score, with a caliper, exactly within strata, with replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from evalkit.errors import DesignError, Fault
from evalkit.hashing import Hash
from evalkit.kernels.nearest import nearest_with_replacement
from evalkit.matching.adjustment import Pairs

Array = NDArray[np.float64]
SAME = 1e-9
"""Distances that differ by less than this many standard deviations of the score are equal."""

Unit = Literal["sd_linear", "raw_linear", "sd", "raw"]


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


def within_stratum_sd(candidates: Candidates, score: Array) -> float:
    """Standard deviation (n - number of strata) of the score within strata; ordinary SD (n - 1) without strata.

    The caliper's yardstick. Between-stratum spread is left out because matches never cross strata.
    """
    _, cell = np.unique(candidates.stratum, return_inverse=True)
    count = np.bincount(cell)
    mean = np.bincount(cell, score) / count
    residual = score - mean[cell]
    degrees = len(score) - len(count)
    return float(np.sqrt((residual @ residual) / degrees)) if degrees > 0 else 0.0


def match_nearest(candidates: Candidates, *, ratio: int, width: float | None, unit: Unit) -> Pairs:
    """Match each treated row to its ``ratio`` nearest comparison rows of the same stratum, with replacement.

    Parameters
    ----------
    ratio: matches a treated row; fewer are used where fewer lie within the caliper.
    width: caliper, inclusive; None for none. ``unit`` says on which scale: standard deviations or raw units of the
        linear predictor (``sd_linear``, ``raw_linear``) or of the probability (``sd``, ``raw``). Distances are
        measured on the same scale.

    Raises
    ------
    DesignError
        ``design.nobody_matched`` when no treated row has a comparison within the caliper.
    """
    if not np.isfinite(candidates.score).all():
        raise ValueError("match_nearest: scores must be finite")
    linear = unit.endswith("_linear")
    score = candidates.score if linear else expit(candidates.score)
    spread = within_stratum_sd(candidates, score)
    if width is None:
        reach = np.inf
    else:
        reach = width * spread if unit.startswith("sd") else width
    treated = np.flatnonzero(candidates.treated)
    pool = np.flatnonzero(~candidates.treated)
    order = pool[np.lexsort((candidates.key[pool], score[pool], candidates.stratum[pool]))]
    cells = candidates.stratum[order]
    first = np.searchsorted(cells, candidates.stratum[treated], side="left")
    last = np.searchsorted(cells, candidates.stratum[treated], side="right")
    chosen = nearest_with_replacement(
        score[treated],
        candidates.key[treated],
        candidates.person[treated],
        first,
        last,
        score[order],
        candidates.key[order],
        candidates.person[order],
        ratio,
        reach,
        SAME * spread,
    )
    found = chosen >= 0
    number = found.sum(axis=1)
    if not number.any():
        raise DesignError(Fault("design.nobody_matched", {"starters": len(treated)}))
    row, _ = np.nonzero(found)
    return Pairs(treated[row], order[chosen[found]], 1.0 / number[row], treated[number == 0], float(reach))
