"""One or a few treated units among many: the effect is compared with what stand-ins without treatment show.

Sources: Conley and Taber (2011), Review of Economics and Statistics 93: 113-125; Ferman and Pinto (2019), Review of
Economics and Statistics 101: 452-467. With a fixed number of treated units the estimate is not normal and its clustered
error is far too small: both papers take the distribution of the noise from the units without treatment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product
from math import perm
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.did.effects import Effects
from evalkit.did.few.randomisation import assigned
from evalkit.did.few.result import Tested, hull, share_as_large
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Array, Intervals, generator
from evalkit.errors import DataError, DesignError, Fault
from evalkit.kernels.did_few import leave_one_out

Base = Literal["mean", "last"]
Reference = Literal["finite", "published"]
Numbers = NDArray[np.int64]

FEWEST = 199
"""Assignments that must be found when not all are listed."""
BATCHES = 60
"""Times that 2,000 sets of clusters are drawn, to keep those without a cluster at another's date."""


@dataclass(frozen=True)
class Stage:
    """Contrasts of clusters, ready for a test: N treated and never treated clusters, P effects, C dates.

    Attributes
    ----------
    contrast: (C, N, P) each cluster's contrast at each date: outcome at an event time (or mean since treatment) less
        the base; NaN where the date has no such event time.
    treated: (J,) numbers of the treated clusters; cohort: (J,) their date, 0..C-1.
    member: (C, N) never treated, or treated at that date. Only these stand in, or are compared with, for a date: the
        contrast of a cluster that is treated at another date holds its own effect.
    never: numbers of the clusters that are never treated.
    share: (J, P) weight of a treated cluster in an effect; columns add up to one.
    at: (P - 1,) event times; the last effect is the overall one.
    size: (N,) persons beneath a cluster.
    level: (J, P) outcome that belongs to the first part of the contrast, for the counterfactual mean.
    base: event times that are zero by construction.
    ids: (N,) names of the clusters. dropped: clusters that lack a period.
    """

    contrast: Array
    treated: Numbers
    cohort: Numbers
    member: NDArray[np.bool_]
    never: Numbers
    share: Array
    at: Numbers
    size: Array
    level: Array
    base: tuple[int, ...]
    ids: NDArray[np.generic]
    dropped: int

    def of(self, effects: NDArray[np.bool_]) -> Stage:
        """Only some effects (mask (P,)) and the treated clusters that have a share in them."""
        active = (self.share[:, effects] > 0).any(axis=1)
        return replace(
            self, contrast=self.contrast[:, :, effects], treated=self.treated[active], cohort=self.cohort[active],
            share=self.share[active][:, effects], level=self.level[active][:, effects],
        )  # fmt: skip

    def estimate(self) -> Array:
        """(P,) mean over the treated clusters of their contrast less the mean contrast of the never treated."""
        z = self.contrast[self.cohort, self.treated] - self.contrast[:, self.never].mean(axis=1)[self.cohort]
        return np.asarray(np.where(self.share > 0, self.share * z, 0.0).sum(axis=0))


def stage(
    panel: Panel,
    *,
    base: Base = "mean",
    anticipation: int = 0,
    window: tuple[int, int] | None = None,
    size: ArrayLike | None = None,
) -> Stage:
    """Means of clusters by period, and the contrasts of every date.

    Raises
    ------
    DesignError
        ``did.few_mixed_clusters``; ``did.few_no_treated`` without a treated cluster that has a period before;
        ``did.few_controls`` with fewer never treated clusters than treated ones, or fewer than two.
    DataError
        ``did.few_size`` when ``size`` holds not one positive number a cluster.
    """
    first = assigned(panel)
    groups, length = len(panel.cluster_ids), len(panel.periods)
    cell = panel.cluster[panel.unit] * length + panel.time
    total = np.bincount(cell, panel.weight, groups * length).reshape(groups, length)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(cell, panel.weight * panel.outcome, groups * length).reshape(groups, length) / total
    if size is None:
        beneath = panel.weight if panel.person_rows is None else panel.person_rows.astype(float)
        persons = np.bincount(cell, beneath, groups * length).reshape(groups, length).mean(axis=1)
    else:
        persons = np.asarray(size, float)
        if persons.shape != (groups,) or not (persons > 0).all():
            raise DataError(Fault("did.few_size", {"given": int(persons.size), "clusters": groups}))
    whole = (total > 0).all(axis=1)
    kept = whole & ((first == NEVER) | (first - anticipation > panel.periods[0]))
    mean, first, persons = mean[kept], first[kept], persons[kept]
    treated, never = np.flatnonzero(first < NEVER), np.flatnonzero(first == NEVER)
    if not len(treated):
        raise DesignError(Fault("did.few_no_treated", {}))
    if len(never) < max(2, len(treated)):
        raise DesignError(Fault("did.few_controls", {"controls": len(never), "treated": len(treated)}))
    dates, cohort = np.unique(first[treated], return_inverse=True)
    since = panel.periods[None, :] - dates[:, None]
    at = np.unique(since)
    if window is not None:
        at = at[(at >= window[0]) & (at <= window[1])]
    effects = len(at) + 1
    contrast = np.full((len(dates), len(first), effects), np.nan)
    level = np.full((len(treated), effects), np.nan)
    for c in range(len(dates)):
        before = since[c] < -anticipation
        if base == "last":
            before &= since[c] == since[c][before].max()
        origin = mean[:, before].mean(axis=1)
        ours = np.flatnonzero(cohort == c)
        for p in range(effects):
            chosen = since[c] >= 0 if p == len(at) else since[c] == at[p]
            if chosen.any():
                value = mean[:, chosen].mean(axis=1)
                contrast[c, :, p] = value - origin
                level[ours, p] = value[treated[ours]]
    available = np.isfinite(level)
    share = available / available.sum(axis=0)
    member = (first == NEVER)[None, :] | (first[None, :] == dates[:, None])
    zero: tuple[int, ...] = ()
    if base == "last" and -1 - anticipation in at:
        zero = (-1 - anticipation,)
    return Stage(
        contrast, treated, cohort.astype(np.int64), member, never, share, at.astype(np.int64), persons, level, zero,
        panel.cluster_ids[kept], int((~kept).sum()),
    )  # fmt: skip


def stand_ins(given: Stage, draws: int, rng: np.random.Generator) -> tuple[Numbers, bool]:
    """Who takes the place of each treated cluster (B, J), the treated themselves first; and whether these are all.

    A place is taken by a never treated cluster or by one treated at the same date; nobody takes two.

    Raises
    ------
    DesignError
        ``did.few_assignments`` when fewer than 199 are found: too many treated clusters with too many dates.
    """
    n, j = len(given.size), len(given.treated)
    allowed = given.member[given.cohort]
    if perm(n, j) <= max(draws, 1_000):
        rows = np.array(list(permutations(range(n), j)))
        rows = rows[allowed[np.arange(j), rows].all(axis=1)]
        own = (rows == given.treated).all(axis=1)
        return np.concatenate([rows[own], rows[~own]]), True
    found = [given.treated[None, :]]
    have = 1
    for _ in range(BATCHES):
        rows = np.argsort(rng.random((2_000, n)), axis=1)[:, :j]
        rows = rows[allowed[np.arange(j), rows].all(axis=1)][: draws - have]
        found.append(rows)
        have += len(rows)
        if have >= draws:
            break
    if have < min(FEWEST, draws):
        raise DesignError(Fault("did.few_assignments", {"treated": j, "dates": len(given.member)}))
    return np.concatenate(found), False


def conley_taber(
    panel: Panel,
    *,
    base: Base = "mean",
    anticipation: int = 0,
    window: tuple[int, int] | None = None,
    reference: Reference = "finite",
    draws: int = 9_999,
    seed: int = 0,
    level: float = 0.95,
) -> Tested:
    """Conley and Taber's test and confidence set, one for each event time and one for all periods since treatment.

    Estimate, by clusters' means: over the treated clusters j the mean of c_j'(y_j - mean of the never treated), c_j the
    contrast "outcome at event time e (overall: mean since treatment) less the mean of the periods before" (``base``
    ``mean``) or less the last period before (``last``). Believed: parallel trends, and that the noise of treated
    and never treated clusters has one distribution, alike over time or not, independent between clusters.

    ``published``: as in the paper, the distribution of the noise is that of contrasts of never treated clusters around
    their own mean. With some 20 clusters that rejects a true hypothesis too often: the mean is estimated, and so is
    the spread. ``finite`` (default) does three things. (1) The hypothesised effect is taken off the treated
    clusters, which then join the never treated ones: under the hypothesis all are alike, so that nothing
    estimated stands between the statistic and its reference distribution. (2) Every stand-in is compared with all who
    are not standing in, as the treated clusters are: that has the same variance. (3) The treated clusters are one of
    the stand-ins themselves. With one date this is a permutation test of clusters and exact in any number of
    clusters; with several dates a cluster treated at another date takes no part in this date.

    Returns
    -------
    Tested
        ``smallest`` = 1/(number of stand-ins): with one treated cluster 1/(clusters), so that fewer than 20 clusters
        cannot reject at 5 per cent and the set has no end. ``overall`` is the effect over all periods.

    Raises
    ------
    DesignError
        See :func:`stage` and :func:`stand_ins`.
    """
    given = stage(panel, base=base, anticipation=anticipation, window=window)
    if reference == "published":
        flat = np.ones_like(given.contrast)
        return _collect(given, _published(flat, seed), draws, seed, level, "conley_taber (published)")
    return _collect(given, _permuted, draws, seed, level, "conley_taber")


Test = tuple[Callable[[Array], Array], float]
"""p-values (L,) of hypothesised effects (L,), and how far the reference distribution spreads."""


def _permuted(given: Stage, effects: Numbers, who: Numbers) -> list[Test]:
    """Tests of effects on the same treated clusters, by permutation of clusters."""
    noise, effect = _statistics(given, who)

    def test(p: int) -> Test:
        spread = float(np.sqrt(np.mean((noise[:, p] - noise[0, p] * effect[:, p]) ** 2)))
        tiny = 1e-11 * (spread + float(np.abs(noise[0, p])))

        def p_value(values: Array) -> Array:
            here = noise[:, p, None] - effect[:, p, None] * values
            return share_as_large(here, here[0], tiny)

        return p_value, spread

    return [test(p) for p in range(len(effects))]


def _statistics(given: Stage, who: Numbers) -> tuple[Array, Array]:
    """(B, P) the statistic of every row of stand-ins, and what one unit of effect on the treated adds to it."""
    draws, j = who.shape
    effects = given.share.shape[1]
    noise, effect = np.zeros((draws, effects)), np.zeros((draws, effects))
    for c, member in enumerate(given.member):
        places = np.flatnonzero(given.cohort == c)
        if not len(places):
            continue
        own = np.zeros(len(member))
        own[given.treated[places]] = 1.0
        z = np.where(member[:, None], np.nan_to_num(given.contrast[c]), 0.0)
        others = member.sum() - member[who].sum(axis=1)
        for values, into in ((z, noise), (np.repeat(own[:, None], effects, 1), effect)):
            donors = (values.sum(axis=0) - values[who].sum(axis=1)) / others[:, None]
            for k in places:
                into += given.share[k] * (values[who[:, k]] - donors)
    return noise, effect


def _collect(
    given: Stage,
    tests: Callable[[Stage, Numbers, Numbers], list[Test]],
    draws: int,
    seed: int,
    level: float,
    kind: str,
) -> Tested:
    """p-values and sets of every effect, the last one as the overall effect.

    Effects on the same treated clusters share their stand-ins; a cluster without a share in an effect has no place.
    """
    estimate = given.estimate()
    count = len(estimate)
    p_value, low, high, used = (np.full(count, np.nan) for _ in range(4))
    exact = True
    zero = np.append(np.isin(given.at, given.base), False)
    low[zero] = high[zero] = 0.0
    patterns, which = np.unique(given.share > 0, axis=1, return_inverse=True)
    for k in range(patterns.shape[1]):
        same = (which.ravel() == k) & ~zero
        if not same.any():
            continue
        some = given.of(same)
        numbers = np.flatnonzero(same)
        who, all_of_them = stand_ins(some, draws, generator(seed, "stand-ins", *some.treated.tolist()))
        exact &= all_of_them
        used[numbers] = len(who)
        for p, (of, spread) in zip(numbers, tests(some, numbers, who), strict=True):
            if np.isfinite(spread) and spread > 0:
                p_value[p] = float(of(np.zeros(1))[0])
                low[p], high[p] = hull(of, float(estimate[p]), spread, 1 - level)
    with np.errstate(invalid="ignore"):
        level_of = np.where(given.share > 0, given.share * given.level, 0.0).sum(axis=0)
    n_treated, n_never = (given.share > 0).sum(axis=0), len(given.never)
    nan = np.full(count, np.nan)

    def part(at: slice, overall: Tested | None) -> Tested:
        own = Tested(
            estimate[at], p_value[at], low[at], high[at], level, kind, int(used[-1]), exact, 1 / used[-1], nan[at],
            overall=overall,
        )  # fmt: skip
        event = overall is not None
        described = Effects(
            "event" if event else "simple", given.at if event else np.zeros(1, np.int64), estimate[at],
            level_of[at] - estimate[at], n_treated[at], np.full(len(own.estimate), n_never),
            Intervals(own.low, own.high, level, kind), given.base if event else (), kind,
            None if overall is None else overall.effects,
        )  # fmt: skip
        return own.on(described)

    return part(slice(0, count - 1), part(slice(count - 1, count), None))


def _published(deviation: Array, seed: int) -> Callable[[Stage, Numbers, Numbers], list[Test]]:
    """The papers' version: contrasts of never treated clusters around their mean, set to the treated one's spread.

    ``deviation`` (C, N, P): standard deviation of a contrast, up to a factor.
    """

    def tests(given: Stage, effects: Numbers, who: Numbers) -> list[Test]:
        only = _independent(given.never, who.shape[1], max(len(who), 999), generator(seed, "published"))
        around = given.contrast - given.contrast[:, given.never].mean(axis=1, keepdims=True)
        noise = np.zeros((len(only), len(effects)))
        for k, c in enumerate(given.cohort):
            spread = deviation[c][:, effects]
            unit = np.nan_to_num(around[c] / spread)
            noise += given.share[k] * np.nan_to_num(spread[given.treated[k]]) * unit[only[:, k]]
        estimate = given.estimate()

        def test(p: int) -> Test:
            return (
                lambda values: share_as_large(noise[:, p, None], estimate[p] - values),
                float(np.sqrt(np.mean(noise[:, p] ** 2))),
            )

        return [test(p) for p in range(len(effects))]

    return tests


def _independent(never: Numbers, places: int, draws: int, rng: np.random.Generator) -> Numbers:
    """Never treated clusters for every place, drawn independently; all combinations where they are few."""
    if len(never) ** places <= draws:
        return np.array(list(product(never.tolist(), repeat=places)))
    return np.asarray(never[rng.integers(0, len(never), (draws, places))])


def ferman_pinto(
    panel: Panel,
    *,
    size: ArrayLike | None = None,
    base: Base = "mean",
    anticipation: int = 0,
    window: tuple[int, int] | None = None,
    reference: Reference = "finite",
    draws: int = 9_999,
    seed: int = 0,
    level: float = 0.95,
) -> Tested:
    """Ferman and Pinto's test: as :func:`conley_taber`, for clusters of different sizes.

    The variance of a cluster's contrast is a + b / M, M the persons beneath it, a, b >= 0: a part that all
    persons share, and the mean of what is their own. Stand-ins count in standard deviations and are set to the
    deviation of the cluster whose place they take, so that a small treated cluster is not judged by large ones.

    ``published``: a and b from the never treated clusters, whose noise around their own mean is rescaled.
    ``finite`` (default), since with some 20 clusters a and b are uncertain: (1) the hypothesised effect is taken off
    the treated clusters, which then count in estimating a and b too; a and b by quasi-likelihood of a variance (squares
    weighted by 1/variance^2), squares corrected for the estimated mean. (2) The deviation of a cluster is that from the
    mean of the others, in standard deviations from a and b without this cluster, or from all if that is
    larger: without it, a cluster of unusual size decides its own variance; with the first alone a variance
    extrapolated to zero makes a cluster look extreme. (3) The treated clusters are one of the stand-ins. (4) With
    several dates their mean deviation is set to the spread of stand-ins (:func:`standing`). If size
    has nothing to do with who is treated, one treated cluster is tested exactly. For a treated cluster that is far
    smaller or larger than the others a + b/M is extrapolated, and nothing in the data shows that it holds there.

    Parameters
    ----------
    size: (G,) persons of each cluster in the order of ``panel.cluster_ids``; without it the mean over periods of
        ``person_rows``, or else of the weights. The other settings are those of :func:`conley_taber`.

    Raises
    ------
    DesignError, DataError
        See :func:`stage` and :func:`stand_ins`.
    """
    given = stage(panel, base=base, anticipation=anticipation, window=window, size=size)
    inverse = np.median(given.size) / given.size
    if reference == "published":
        deviation = np.ones_like(given.contrast)
        for c in range(len(given.member)):
            for p in np.flatnonzero(np.isfinite(given.contrast[c]).all(axis=0)):
                z = given.contrast[c, given.never, p]
                squares = ((z - z.mean()) ** 2)[None, :]
                a, b = variance_line(squares, inverse[given.never], np.ones_like(squares))
                deviation[c, :, p] = np.sqrt(np.maximum(a + b * inverse, 1e-300))
        return _collect(given, _published(deviation, seed), draws, seed, level, "ferman_pinto (published)")
    return _collect(given, _rescaled(inverse), draws, seed, level, "ferman_pinto")


def _rescaled(inverse: Array) -> Callable[[Stage, Numbers, Numbers], list[Test]]:
    """Permutation of scores, each set to the deviation of the cluster whose place it takes."""

    def tests(given: Stage, effects: Numbers, who: Numbers) -> list[Test]:
        def test(p: int) -> Test:
            def p_value(values: Array) -> Array:
                found = placed(given, p, values, inverse, who)
                return share_as_large(found, found[0])

            around = np.concatenate([given.contrast[c, given.never, p] for c in np.unique(given.cohort)])
            return p_value, float(np.std(around))

        return [test(p) for p in range(len(effects))]

    return tests


def placed(given: Stage, p: int, values: Array, inverse: Array, who: Numbers) -> Array:
    """(B, L) what every row of stand-ins shows for effect ``p`` under each hypothesised value."""
    scored = {}
    for c in np.unique(given.cohort).tolist():
        member = np.flatnonzero(given.member[c])
        own = np.isin(member, given.treated[given.cohort == c])
        scored[c] = scores(given.contrast[c, member, p] - values[:, None] * own, inverse[member])
    return standing(given, given.share[:, p], scored, who)


def standing(given: Stage, share: Array, scored: dict[int, tuple[Array, Array]], who: Numbers) -> Array:
    """(B, L) of every row of stand-ins: the mean deviation of those who fill the places.

    ``scored``: by date, scores and standard deviations (L, members). A stand-in's score counts in deviations of the
    cluster whose place it takes. Treated clusters of different dates are each compared with the same never treated
    ones, so that their deviations share the noise of that mean; those of stand-ins, which are in the mean themselves,
    lean against one another. The first row is therefore set to the spread of the others: times
    sqrt(V_stand-ins / V_treated), V the variance of the mean deviation with correlation
    v_m / sqrt((v_j + v_m)(v_k + v_m)) between treated clusters of different dates, v_m the variance of the mean of
    the never treated, and -1/(number of never treated) otherwise. With one date the factor is one.
    """
    rows = next(iter(scored.values()))[0].shape[0]
    found = np.zeros((len(who), rows))
    spread, common = np.zeros((len(given.treated), rows)), np.zeros((len(given.treated), rows))
    for c, (score, deviation) in scored.items():
        member = given.member[c]
        whole = np.zeros((len(member), rows))
        whole[member] = score.T
        place = np.cumsum(member) - 1
        of_mean = 1 / (1 / deviation[:, place[given.never]] ** 2).sum(axis=1)
        for k in np.flatnonzero(given.cohort == c):
            own = deviation[:, place[given.treated[k]]]
            found += share[k] * own * whole[who[:, k]]
            spread[k] = share[k] * own
            common[k] = np.sqrt(of_mean / (own**2 + of_mean))
    if len(scored) > 1:
        apart = -1 / len(given.never)
        stand_in = treated = (spread**2).sum(axis=0)
        for i, j in combinations(range(len(given.treated)), 2):
            both = 2 * spread[i] * spread[j]
            stand_in = stand_in + both * apart
            treated = treated + both * (common[i] * common[j] if given.cohort[i] != given.cohort[j] else apart)
        found[0] *= np.sqrt(stand_in / treated)
    return found


def variance_line(squares: Array, inverse: Array, weight: Array) -> tuple[Array, Array]:
    """a, b >= 0 (L,) of variance a + b x ``inverse``: weighted least squares of the squares (L, N).

    Where a or b would be negative it is zero, and b where the clusters used are of one size.
    """
    s0, s1, s2 = weight.sum(axis=1), weight @ inverse, weight @ inverse**2
    t0, t1 = (weight * squares).sum(axis=1), (weight * squares) @ inverse
    det = s0 * s2 - s1**2
    flat = det <= 1e-12 * s0 * s2
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (s2 * t0 - s1 * t1) / det, (s0 * t1 - s1 * t0) / det
    no_b, no_a = flat | (b < 0), ~flat & (b >= 0) & (a < 0)
    return np.where(no_b, t0 / s0, np.where(no_a, 0.0, a)), np.where(no_b, 0.0, np.where(no_a, t1 / s2, b))


TURNS = 5
"""Turns of mean and variance: from equal weights to weights by 1/variance (mean) and 1/variance^2 (squares)."""


def scores(z: Array, inverse: Array) -> tuple[Array, Array]:
    """Deviation of every cluster from the others in standard deviations (L, N), and the deviations (L, N).

    z (L, N): contrasts with the hypothesised effect off, one row a hypothesis. See :func:`ferman_pinto`.
    """
    fitted = leave_one_out(np.ascontiguousarray(z), np.ascontiguousarray(inverse), TURNS)
    _, of_mean, a, b = fitted[:, -1].T
    variance = np.maximum(a[:, None] + b[:, None] * inverse, 1e-9 * z.var(axis=1)[:, None] + 1e-300)
    # of a deviation from a mean that it is part of
    own = np.maximum(variance - of_mean[:, None], 0.05 * variance)
    mean, of_mean, a, b = np.moveaxis(fitted[:, :-1], 2, 0)
    alone = a + b * inverse + of_mean
    return (z - mean) / np.sqrt(np.maximum(alone, own)), np.sqrt(variance)
