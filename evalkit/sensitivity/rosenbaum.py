"""Rosenbaum bounds: how much hidden bias would it take to explain the finding away.

Within a matched set, two people who look alike may differ in their odds of having been treated by at most a factor
Gamma >= 1. For each Gamma the p-value of the test of no effect lies between two bounds, and the estimate too; Gamma = 1
is a randomised comparison within sets. The *critical* Gamma is the largest at which the upper bound stays below alpha.
Source: Rosenbaum (2002), Observational Studies, chapter 4.

Gamma bounds the bias; it does not estimate it. Matching with replacement breaks the independence of sets on which this
rests: use it for matching without replacement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from evalkit.effects import frozen
from evalkit.errors import DesignError, Fault, UsageError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Alternative = Literal["greater", "less"]
Method = Literal["normal", "exact"]
GAMMAS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
EXACT_PAIRS, EXACT_SETS = 600, 20_000
"""Above these numbers the exact distribution takes long, and the normal one is as good."""


@dataclass(frozen=True)
class PValueBounds:
    """Bounds on the one-sided p-value by Gamma.

    Attributes
    ----------
    gamma, low, high: (g,) odds ratio of the hidden bias, smallest and largest p-value.
    statistic: the test statistic. ``n_sets``: pairs or sets that inform it; ``uninformative``: those that do not (equal
        outcomes).
    method: ``normal`` or ``exact``. ``alternative``: ``greater`` (treatment raises the outcome) or ``less``.
    """

    gamma: Array
    low: Array
    high: Array
    statistic: float
    n_sets: int
    uninformative: int
    method: Method
    alternative: Alternative

    def frame(self) -> pd.DataFrame:
        """One row a Gamma."""
        import pandas as pd

        return pd.DataFrame({"gamma": self.gamma, "p_low": self.low, "p_high": self.high})


@dataclass(frozen=True)
class EstimateBounds:
    """Bounds (g,) on the Hodges-Lehmann estimate by Gamma; ``estimate`` at Gamma = 1."""

    gamma: Array
    low: Array
    high: Array
    estimate: float
    n_sets: int

    def frame(self) -> pd.DataFrame:
        """One row a Gamma."""
        import pandas as pd

        return pd.DataFrame({"gamma": self.gamma, "low": self.low, "high": self.high})


def _gammas(gamma: ArrayLike) -> Array:
    given = np.atleast_1d(np.asarray(gamma, float))
    if not (np.isfinite(given).all() and (given >= 1).all()):
        raise UsageError(Fault("sensitivity.gamma_below_one", {}))
    return given


def _differences(treated: ArrayLike, control: ArrayLike) -> Array:
    first, second = np.asarray(treated, float), np.asarray(control, float)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError("rosenbaum: one treated and one control outcome a pair")
    difference = first - second
    if not np.isfinite(difference).all():
        raise ValueError("rosenbaum: outcomes must be finite")
    return difference


# -- pairs, any outcome -----------------------------------------------------------------------------------------------


def signed_rank_bounds(
    treated: ArrayLike,
    control: ArrayLike,
    gamma: ArrayLike = GAMMAS,
    *,
    alternative: Alternative = "greater",
    method: Method = "normal",
    null: float = 0.0,
) -> PValueBounds:
    """Bounds on the p-value of Wilcoxon's signed rank test over matched pairs.

    Parameters
    ----------
    treated, control: (n,) outcomes; row i is a pair.
    gamma: values >= 1. ``null``: effect under test, in units of the outcome.
    method: ``normal`` approximation, or ``exact`` (up to 600 pairs) given the ranks, ties included.

    Raises
    ------
    DesignError
        ``design.no_differing_pairs`` when all pairs are equal.
    UsageError
        ``sensitivity.gamma_below_one``; ``sensitivity.exact_too_large``.

    Notes
    -----
    Pairs with equal outcomes are left out and the others ranked by absolute difference, ties sharing their mean rank.
    T = sum of the ranks of pairs in which the treated has more. Its largest distribution under Gamma: independent
    ranks, each counted with chance p = Gamma / (1 + Gamma); the smallest: 1 / (1 + Gamma). Normal: mean p sum r,
    variance p (1 - p) sum r^2, no continuity correction; this is what rbounds' psens shows (rounded to four decimals).
    """
    grid = _gammas(gamma)
    difference = (_differences(treated, control) - null) * (1.0 if alternative == "greater" else -1.0)
    used = difference[difference != 0]
    if not len(used):
        raise DesignError(Fault("design.no_differing_pairs", {"pairs": len(difference)}))
    ranks = stats.rankdata(np.abs(used))
    total = float(ranks[used > 0].sum())
    if method == "exact":
        if len(used) > EXACT_PAIRS:
            raise UsageError(Fault("sensitivity.exact_too_large", {"sets": len(used), "limit": EXACT_PAIRS}))
        doubled = np.rint(2 * ranks).astype(np.int64)  # mean ranks are whole or half
        at = round(2 * total)
        tail = [[_signed_rank_tail(doubled, p, at) for p in _chances(g)] for g in grid]
    else:
        spread = float(ranks @ ranks)
        tail = [[_normal_tail(total, p * ranks.sum(), p * (1 - p) * spread) for p in _chances(g)] for g in grid]
    low, high = np.array(tail).T
    return PValueBounds(
        frozen(grid), frozen(low), frozen(high), total, len(used), len(difference) - len(used), method, alternative
    )


def _chances(gamma: float) -> tuple[float, float]:
    return 1 / (1 + gamma), gamma / (1 + gamma)


def _normal_tail(value: float, mean: float, variance: float) -> float:
    if variance <= 0:
        return 1.0 if value <= mean else 0.0
    return float(special.ndtr(-(value - mean) / np.sqrt(variance)))


def _signed_rank_tail(ranks: NDArray[np.int64], chance: float, at: int) -> float:
    """P(sum of ranks >= at), each counted independently with the same chance."""
    mass = np.zeros(int(ranks.sum()) + 1)
    mass[0] = 1.0
    reach = 0
    for rank in ranks:
        counted = chance * mass[: reach + 1]
        mass[: reach + 1] *= 1 - chance
        mass[rank : reach + rank + 1] += counted
        reach += int(rank)
    return float(min(1.0, mass[at:].sum()))


def hodges_lehmann_bounds(treated: ArrayLike, control: ArrayLike, gamma: ArrayLike = GAMMAS) -> EstimateBounds:
    """Bounds on the Hodges-Lehmann estimate of an additive effect over matched pairs.

    Parameters
    ----------
    treated, control: (n,) outcomes; row i is a pair. ``gamma``: values >= 1.

    Notes
    -----
    The estimate is the shift d at which the signed rank statistic of the shifted differences equals its expectation
    p n (n + 1) / 2, p = Gamma / (1 + Gamma) for the lower bound and 1 / (1 + Gamma) for the upper one: a quantile of
    the n (n + 1) / 2 averages of two differences (for p = 1/2 their median). Solved exactly; where a whole interval
    solves, its middle. Pairs with equal outcomes take part: shifted, they differ. (rbounds' hlsens walks from the
    estimate outward in steps and returns the first step beyond the solution; its value at Gamma = 1 leaves equal pairs
    out, the others do not.)
    """
    grid = _gammas(gamma)
    difference = np.sort(_differences(treated, control))
    averages = len(difference) * (len(difference) + 1) / 2
    if not len(difference):
        raise DesignError(Fault("design.no_differing_pairs", {"pairs": 0}))
    high = [_walsh_quantile(difference, averages / (1 + g)) for g in grid]
    low = [_walsh_quantile(difference, averages * g / (1 + g)) for g in grid]
    middle = _walsh_quantile(difference, averages / 2)
    return EstimateBounds(frozen(grid), frozen(low), frozen(high), middle, len(difference))


def _walsh_quantile(ordered: Array, above: float) -> float:
    """The middle of the shifts d that have ``above`` averages of two differences above them."""
    nearest = float(round(above))
    whole = abs(above - nearest) < 1e-9 * max(1.0, above)
    target = nearest if whole else above
    count = len(ordered)

    def beyond(shift: float) -> float:
        pairs = count - np.searchsorted(ordered, 2 * shift - ordered, side="right")
        return float(pairs.sum() + (ordered > shift).sum()) / 2

    def edge(keep: Callable[[float], bool]) -> float:
        low, high = float(ordered[0]) - 1.0, float(ordered[-1])
        while True:
            middle = (low + high) / 2
            if not low < middle < high:
                return high
            if keep(beyond(middle)):
                low = middle
            else:
                high = middle

    last = edge(lambda found: found > target)
    return (last + edge(lambda found: found >= target)) / 2 if whole else last


# -- binary outcomes --------------------------------------------------------------------------------------------------


def mcnemar_bounds(
    treated_only: int, control_only: int, gamma: ArrayLike = GAMMAS, *, alternative: Alternative = "greater"
) -> PValueBounds:
    """Exact bounds on the p-value of McNemar's test over matched pairs with a binary outcome.

    Parameters
    ----------
    treated_only, control_only: pairs in which only the treated, only the control had the event. Others do not inform.

    Notes
    -----
    P(B >= treated_only) with B binomial over the discordant pairs, chance Gamma / (1 + Gamma) for the upper bound and
    1 / (1 + Gamma) for the lower one. The observed number counts, as a p-value asks. (rbounds' binarysens leaves it out
    and shows P(B > treated_only), which is too small: at Gamma = 1 it is not McNemar's exact p-value.)
    """
    grid = _gammas(gamma)
    if min(treated_only, control_only) < 0:
        raise ValueError("mcnemar_bounds: numbers of pairs")
    total = treated_only + control_only
    if total == 0:
        raise DesignError(Fault("design.no_differing_pairs", {"pairs": 0}))
    more = treated_only if alternative == "greater" else control_only
    low, high = np.array([[stats.binom.sf(more - 1, total, p) for p in _chances(g)] for g in grid]).T
    return PValueBounds(frozen(grid), frozen(low), frozen(high), float(more), total, 0, "exact", alternative)


def mantel_haenszel_bounds(
    size: ArrayLike,
    events: ArrayLike,
    treated_event: ArrayLike,
    gamma: ArrayLike = GAMMAS,
    *,
    alternative: Alternative = "greater",
    method: Method = "exact",
) -> PValueBounds:
    """Bounds on the p-value of the Mantel-Haenszel test: sets of one treated and one or more controls, binary outcome.

    Parameters
    ----------
    size: (s,) people in each set, the treated one included. ``events``: (s,) how many of them had the event.
    treated_event: (s,) bool, whether the treated one did.
    method: ``exact`` (the sum of independent, unlike chances; up to 20,000 sets) or ``normal``.

    Notes
    -----
    T = number of treated with the event. In a set of n with d events the chance that the treated is one of them is at
    most d Gamma / (d Gamma + n - d) and at least d / (d + (n - d) Gamma) (Rosenbaum 2002, section 4.4.2). Pairs give
    :func:`mcnemar_bounds`.
    """
    grid = _gammas(gamma)
    n, d = np.asarray(size, float), np.asarray(events, float)
    hit = np.asarray(treated_event, bool)
    if not (n.shape == d.shape == hit.shape) or (d > n).any() or (d < 0).any() or (d[hit] < 1).any():
        raise ValueError("mantel_haenszel_bounds: sizes, events and treated events do not fit together")
    if alternative == "less":
        d, hit = n - d, ~hit
    informs = (d > 0) & (d < n)
    if not informs.any():
        raise DesignError(Fault("design.no_differing_pairs", {"pairs": len(n)}))
    n, d, hit = n[informs], d[informs], hit[informs]
    if method == "exact" and len(n) > EXACT_SETS:
        raise UsageError(Fault("sensitivity.exact_too_large", {"sets": len(n), "limit": EXACT_SETS}))
    total = int(hit.sum())
    tails = []
    for g in grid:
        for chance in (d / (d + (n - d) * g), d * g / (d * g + n - d)):
            if method == "exact":
                tails.append(float(min(1.0, _poisson_binomial(chance)[total:].sum())))
            else:
                tails.append(_normal_tail(total, float(chance.sum()), float((chance * (1 - chance)).sum())))
    low, high = np.array(tails).reshape(-1, 2).T
    uninformative = int((~informs).sum())
    return PValueBounds(
        frozen(grid), frozen(low), frozen(high), float(total), len(n), uninformative, method, alternative
    )


def _poisson_binomial(chance: Array) -> Array:
    """Distribution (s + 1,) of the number of successes; sets with the same chance together."""
    mass = np.ones(1)
    for value, times in zip(*np.unique(chance, return_counts=True), strict=True):
        mass = np.convolve(mass, stats.binom.pmf(np.arange(times + 1), times, value))
    return mass


# -- sets with several controls, any outcome ---------------------------------------------------------------------------


def matched_set_bounds(
    outcome: ArrayLike,
    treated: ArrayLike,
    subclass: ArrayLike,
    gamma: ArrayLike = GAMMAS,
    *,
    trim: float = 3.0,
    alternative: Alternative = "greater",
) -> PValueBounds:
    """Bounds on the p-value of an m-test over matched sets of one treated and several controls, or the reverse.

    Parameters
    ----------
    outcome: (n,). ``treated``: (n,) bool. ``subclass``: (n,) code of the matched set, -1 for rows in none. Every set
        holds exactly one treated or exactly one control (1:k, variable ratio and full matching).
    trim: differences count up to this many times the median absolute difference within sets.

    Raises
    ------
    DesignError
        ``design.sets_not_one_to_many`` when a set has several of both or lacks one; ``design.no_differing_pairs``.

    Notes
    -----
    Score of person j in a set of n: q_j = mean over the others of psi((y_j - y_l) / s), psi(x) = min(|x|, trim)
    sign(x), s the median of the absolute differences within sets, which does not depend on who was treated. T sums the
    scores of the treated. For the largest p-value each set puts the odds Gamma on its highest scores: of the n - 1 ways
    to divide the ordered scores, the one with the largest expectation, and the largest variance among equals
    (asymptotically separable, Gastwirth, Krieger and Rosenbaum 2000); then the normal approximation, which needs many
    sets. Sources: Rosenbaum (2007), Biometrics 63: 456-464; (2014), JASA 109: 1145-1158.
    """
    grid = _gammas(gamma)
    groups = _sets(np.asarray(outcome, float), np.asarray(treated, bool), np.asarray(subclass, np.int64))
    gaps = np.concatenate([_gaps(y) for y, _, _ in groups])
    scale = float(np.median(gaps))
    if scale == 0:
        scale = float(gaps[gaps > 0].mean()) if (gaps > 0).any() else 1.0
    scores, total, count = [], 0.0, 0
    for y, lone, side in groups:
        psi = np.clip((y[:, :, None] - y[:, None, :]) / scale, -trim, trim).sum(axis=2) / (y.shape[1] - 1)
        q = psi * (side if alternative == "greater" else -side)[:, None]
        total += float(q[np.arange(len(q)), lone].sum())
        count += len(q)
        scores.append(np.sort(q[np.ptp(q, axis=1) > 0], axis=1))
    informs = sum(map(len, scores))
    if not informs:
        raise DesignError(Fault("design.no_differing_pairs", {"pairs": count}))
    low, high = [], []
    for g in grid:
        mean, variance = np.sum([_most_biased(q, g) for q in scores], axis=0)
        high.append(_normal_tail(total, mean, variance))
        mean, variance = np.sum([_most_biased(-q[:, ::-1], g) for q in scores], axis=0)
        low.append(_normal_tail(total, -mean, variance))
    return PValueBounds(frozen(grid), frozen(low), frozen(high), total, informs, count - informs, "normal", alternative)


def _gaps(outcome: Array) -> Array:
    """Absolute differences between all members of each set; outcome (m, n)."""
    i, j = np.triu_indices(outcome.shape[1], 1)
    return np.abs(outcome[:, i] - outcome[:, j]).ravel()


Group = tuple[Array, NDArray[np.int64], Array]


def _sets(outcome: Array, treated: NDArray[np.bool_], subclass: NDArray[np.int64]) -> list[Group]:
    """Sets of the same size together: outcomes (m, n), place of the lone person (m,), +1 when that is the treated, -1
    when it is the control (m,)."""
    rows = np.flatnonzero(subclass >= 0)
    rows = rows[np.argsort(subclass[rows], kind="stable")]
    first = np.flatnonzero(np.diff(subclass[rows], prepend=-1))
    size = np.diff(np.append(first, len(rows)))
    number = np.add.reduceat(treated[rows].astype(np.int64), first) if len(first) else np.empty(0, np.int64)
    wrong = (size < 2) | ((number != 1) & (size - number != 1))
    if wrong.any() or not len(first):
        raise DesignError(Fault("design.sets_not_one_to_many", {"sets": int(wrong.sum())}))
    groups = []
    for members in np.unique(size):
        here = size == members
        part = rows[first[here][:, None] + np.arange(members)]
        alone = number[here] == 1
        lone = np.argmax(treated[part] == alone[:, None], axis=1)
        groups.append((outcome[part], lone, np.where(alone, 1.0, -1.0)))
    return groups


def _most_biased(ordered: Array, gamma: float) -> tuple[float, float]:
    """Largest expectation of the lone person's score, and its variance, summed over sets with ordered scores (m, n)."""
    size = ordered.shape[1]
    without = np.arange(1, size)
    weight = without + gamma * (size - without)
    first, second = (np.cumsum(power, axis=1) for power in (ordered, ordered**2))
    mean = (first[:, :-1] + gamma * (first[:, -1:] - first[:, :-1])) / weight
    variance = (second[:, :-1] + gamma * (second[:, -1:] - second[:, :-1])) / weight - mean**2
    largest = mean.max(axis=1)
    best = mean >= (largest - 1e-12 * np.maximum(1.0, np.abs(largest)))[:, None]
    return float(largest.sum()), float(np.where(best, variance, -np.inf).max(axis=1).sum())


# -- one number -------------------------------------------------------------------------------------------------------


def critical_gamma(
    bounds: Callable[[ArrayLike], PValueBounds], *, alpha: float = 0.05, largest: float = 100.0, precision: float = 1e-6
) -> float:
    """The largest Gamma at which the upper bound on the p-value is still at most alpha.

    Parameters
    ----------
    bounds: from Gamma to bounds, such as ``lambda gamma: mcnemar_bounds(24, 2, gamma)``.

    Returns
    -------
    NaN when the p-value exceeds alpha without any bias (Gamma = 1); infinity when it does not at ``largest``.
    """

    def high(gamma: float) -> float:
        return float(bounds([gamma]).high[0])

    if high(1.0) > alpha:
        return float("nan")
    if high(largest) <= alpha:
        return float("inf")
    low, top = 1.0, largest
    while top - low > precision:
        middle = (low + top) / 2
        low, top = (middle, top) if high(middle) <= alpha else (low, middle)
    return low
