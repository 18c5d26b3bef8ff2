"""Strata: exact cells, coarsened cells and classes of the score, with the weights that make the two groups alike.

Within a stratum everybody counts as alike; the strata are weighted by how many of the target population they hold. A
stratum with one group only says nothing and is left out, which changes whose effect is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.errors import DesignError, Fault
from evalkit.hashing import Hash
from evalkit.matching.adjustment import Matching, TargetName

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

Cut = int | str | Sequence[float] | None
"""How one covariate is coarsened, see ``coarsen``."""


def cells(columns: ArrayLike) -> Ints:
    """Codes 0, 1, ... (n,) of the distinct rows of (n,) or (n, k) columns, in sorted order."""
    values = np.asarray(columns)
    if values.ndim == 1:
        return np.unique(values, return_inverse=True)[1].astype(np.int64).ravel()
    code = np.zeros(len(values), np.int64)
    for column in values.T:
        _, own = np.unique(column, return_inverse=True)
        code = code * (int(own.max(initial=0)) + 1) + own
        code = np.unique(code, return_inverse=True)[1].astype(np.int64)
    return code


def coarsen(x: Array, cut: Cut = "sturges") -> Ints:
    """Bins (n,) of one covariate (n,).

    Parameters
    ----------
    cut: ``sturges`` (ceil(log2 n + 1) bins), ``scott`` (width 3.5 s n^(-1/3)) or ``fd`` (Freedman and Diaconis: width
        2 IQR n^(-1/3)): bins of equal width from the smallest to the largest value. A whole number: so many bins of
        equal width; 0 for every value its own. ``q`` and a number (``q4``): bins with equal numbers of units. A list:
        the limits between bins. ``None``: every value its own bin. Bins hold their lower limit; the last of
        equal width also its upper one.
    """
    x = np.asarray(x, np.float64)
    if cut is None or cut == 0:
        return cells(x)
    low, high = float(x.min()), float(x.max())
    if isinstance(cut, str) and cut.startswith("q") and cut[1:].isdigit():
        inner = np.unique(np.quantile(x, np.linspace(0.0, 1.0, int(cut[1:]) + 1)[1:-1]))
        return np.searchsorted(inner, x, side="right").astype(np.int64)
    if not isinstance(cut, str | int | np.integer):
        return np.searchsorted(np.unique(np.asarray(cut, np.float64)), x, side="right").astype(np.int64)
    if low == high:
        return np.zeros(len(x), np.int64)
    if isinstance(cut, str):
        number = _number_of_bins(x, cut)
    else:
        number = int(cut)
    if number < 1:
        raise DesignError(Fault("design.match_cutpoints", {"cut": str(cut)}))
    limits = low + np.arange(number + 1) * ((high - low) / number)
    return np.clip(np.searchsorted(limits, x, side="right") - 1, 0, number - 1).astype(np.int64)


def _number_of_bins(x: Array, rule: str) -> int:
    n = len(x)
    if rule == "sturges":
        return int(np.ceil(np.log2(n) + 1))
    if rule == "scott":
        width = 3.5 * float(np.std(x, ddof=1)) * n ** (-1 / 3)
    elif rule == "fd":
        width = 2.0 * float(np.subtract(*np.quantile(x, [0.75, 0.25]))) * n ** (-1 / 3)
    else:
        raise DesignError(Fault("design.match_cutpoints", {"cut": rule}))
    return max(1, int(np.ceil(np.ptp(x) / width))) if width > 0 else 1


def score_classes(
    treated: Mask, score: Array, target: TargetName, classes: int | Sequence[float], least: int, key: Hash
) -> Ints:
    """Classes (n,) of the score (Rosenbaum and Rubin 1984).

    Parameters
    ----------
    classes: how many, with limits at quantiles of the score among the treated (``att``), the others (``atc``) or all
        (``ate``), linear between order statistics; or the shares at which the quantiles are taken. A class holds its
        lower limit; units beyond the outer limits belong to the outer classes.
    least: units of each group in every class. Where a class has fewer, the nearest class with more than ``least`` gives
        up one of that group and the limits in between move along, so that the order on the score is kept; the lowest
        class first, of two equally near the lower gives. 0 leaves classes as they are.

    Raises
    ------
    DesignError
        ``design.match_few_in_classes`` when a group is too small for so many classes.
    """
    if isinstance(classes, int | np.integer):
        shares = np.linspace(0.0, 1.0, int(classes) + 1)
    else:
        shares = np.unique(np.concatenate([[0.0], np.asarray(classes, np.float64), [1.0]]))
    if len(shares) < 2 or shares[0] < 0 or shares[-1] > 1:
        raise DesignError(Fault("design.match_classes", {}))
    group = treated if target == "att" else ~treated if target == "atc" else np.ones(len(score), bool)
    inner = np.unique(np.quantile(score[group], shares[1:-1]))
    code = np.searchsorted(inner, score, side="right").astype(np.int64)
    number = len(inner) + 1
    for arm in (treated, ~treated):
        rows = np.flatnonzero(arm)
        if len(rows) < least * number:
            raise DesignError(Fault("design.match_few_in_classes", {"classes": number, "least": least}))
        count = np.bincount(code[rows], minlength=number)
        while count.min() < least:
            poor = int(np.flatnonzero(count < least)[0])
            rich = np.flatnonzero(count > least)
            giver = rich[np.argmin(np.abs(rich - poor))]
            count[giver] -= 1
            count[poor] += 1
        rows = rows[np.lexsort((key[rows], score[rows]))]
        code[rows] = np.repeat(np.arange(number), count)
    return code


def stratum_matching(treated: Mask, kept: Mask, code: Ints, target: TargetName, discarded: Ints) -> Matching:
    """Weights of strata.

    With n1 treated and n0 others in a stratum, for ``att`` its treated weigh 1 and the others n1 / n0 each, for ``atc``
    the others 1 and the treated n0 / n1, for ``ate`` (n1 + n0) / n1 and (n1 + n0) / n0: in each group the weights of a
    stratum add up to its number in the target population.

    Parameters
    ----------
    treated, kept: (n,); rows that are not kept belong to no stratum. code: (n,) codes from 0.

    Raises
    ------
    DesignError
        ``design.match_no_stratum`` when no stratum has both groups.
    """
    size = int(code.max(initial=0)) + 1
    n1 = np.bincount(code[kept & treated], minlength=size)
    n0 = np.bincount(code[kept & ~treated], minlength=size)
    both = (n1 > 0) & (n0 > 0)
    if not both.any():
        raise DesignError(Fault("design.match_no_stratum", {"strata": int(((n1 > 0) | (n0 > 0)).sum())}))
    used = kept & both[code]
    into = {"att": n1, "atc": n0, "ate": n1 + n0}[target]
    share = np.where(treated, into[code] / np.maximum(n1[code], 1), into[code] / np.maximum(n0[code], 1))
    focal = {"att": treated, "atc": ~treated, "ate": np.ones(len(treated), bool)}[target]
    subclass = np.full(len(treated), -1, np.int64)
    subclass[used] = np.unique(code[used], return_inverse=True)[1].ravel()
    return Matching(
        treated=treated,
        target=target,
        population=(used & focal).astype(np.float64),
        weight=np.where(used, share, 0.0),
        pairs=None,
        subclass=subclass,
        outside=np.flatnonzero(kept & focal & ~used),
        discarded=discarded,
    )
