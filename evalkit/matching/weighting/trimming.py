"""Which rows are kept by their chance of treatment, and how large a weight may be: both stated, never silent."""

from __future__ import annotations

from typing import Literal

import numpy as np

from evalkit.matching.adjustment import Array, Mask, TargetName

Trim = tuple[float, float] | Literal["crump", "common"]


def kept_by_score(score: Array, treated: Mask, base: Array, target: TargetName, trim: Trim) -> Mask:
    """Rows (n,) that trimming keeps.

    Parameters
    ----------
    score: (n,) chance of treatment e.
    trim: ``(low, high)`` keeps low <= e <= high. ``common`` keeps the range in which both groups have chances, from
        the larger of the two minima to the smaller of the two maxima. ``crump`` is the rule of Crump, Hotz, Imbens and
        Mitnik (2009): the rows for which the bound on the variance of the average effect, under equal outcome
        variances, is smallest. For ``ate`` it is on 1/(e (1 - e)) and symmetric in e; for ``att`` it only leaves out
        high chances and for ``atc`` only low ones.
    """
    if isinstance(trim, tuple):
        return (score >= trim[0]) & (score <= trim[1])
    if trim == "common":
        low = max(score[treated].min(), score[~treated].min())
        high = min(score[treated].max(), score[~treated].max())
        return (score >= low) & (score <= high)
    cost, share = {
        "ate": (1.0 / (score * (1.0 - score)), np.ones(len(score))),
        "att": (1.0 / (1.0 - score), score),
        "atc": (1.0 / score, 1.0 - score),
    }[target]
    return cost <= crump_limit(cost, base * share)


def crump_limit(cost: Array, share: Array) -> float:
    """The limit c that minimises sum(share cost) / sum(share)^2 over the rows with cost <= c.

    ``cost``: (n,) contribution of a row to the variance bound; ``share``: (n,) weight in the average. At the best limit
    the largest cost kept is no more than twice the mean of those kept.
    """
    order = np.argsort(cost, kind="stable")
    size = np.cumsum(share[order])
    bound = np.cumsum(share[order] * cost[order]) / np.maximum(size, 1e-300) ** 2
    last = np.append(cost[order][1:] > cost[order][:-1], True)  # rows with the same cost stay together
    bound[~last] = np.inf
    return float(cost[order][int(bound.argmin())])


def capped(
    weight: Array, base: Array, fixed: Mask, cap: float | None, cap_quantile: float | None
) -> tuple[Array, float, Mask]:
    """Weights (n,) with a largest weight, the cap, and which rows were capped.

    The cap is on the weight a unit of base weight. A quantile (linear between order statistics) is over the rows whose
    weight is estimated, ``~fixed``.
    """
    ratio = weight / base
    limit = float(cap) if cap is not None else float("inf")
    if cap_quantile is not None:
        limit = min(limit, float(np.quantile(ratio[~fixed], cap_quantile)))
    above = ~fixed & (ratio > limit)
    return np.where(above, base * limit, weight), limit, above
