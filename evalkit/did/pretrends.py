"""Tests of trends before treatment, and what such a test would miss (Roth 2022).

That effects before treatment do not differ from zero is weak evidence for parallel trends: with few units a trend that
matters would often go unseen, and estimates that are kept because their test passed are more biased, not less. So the
test comes with its power: which linear difference in trends would it detect half of the time, or four times out of
five, and how far off would the effects then be? To claim that a difference is *small*, use an equivalence test
(:func:`evalkit.sensitivity.placebo.placebo_equivalence`); to let effects carry the doubt, use
:func:`evalkit.did.honest.honest`.

Source: Roth (2022), American Economic Review: Insights 4: 305-322.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize, special, stats
from scipy.stats import ncx2, qmc

from evalkit.did.effects import Effects
from evalkit.did.honest.study import EventStudy, independent, of_effects
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Array, Influence, frozen, generator
from evalkit.errors import Fault, UsageError

Rule = Literal["any", "wald"]
_NODES = {1: 1, 2: 96, 3: 48, 4: 32, 5: 20}
"""Gauss-Legendre nodes along each but the last dimension of a rectangle; beyond five, quasi-random points."""
_FAR = 9.0
_NEVER = 1e-12
_POINTS = 2**15


@dataclass(frozen=True)
class PretrendTest:
    """Are all effects before the base period zero?

    Attributes
    ----------
    event, estimate, std_error, t: (J,) by event time before the base.
    wald, df, p_joint: joint Wald statistic, its degrees of freedom (below J where the covariance is singular) and
        p-value. ``p_any``: that of the largest |t|, by the joint normal law of all; NaN where the covariance is
        singular.
    """

    event: NDArray[np.int64]
    estimate: Array
    std_error: Array
    t: Array
    wald: float
    df: int
    p_joint: float
    p_any: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "event", frozen(self.event, np.int64))
        for name in ("estimate", "std_error", "t"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


@dataclass(frozen=True)
class PretrendPower:
    """What a test of effects before treatment does if trends differ.

    Attributes
    ----------
    rule: the test: ``any`` (some |t| above the quantile) or ``wald`` (joint). ``level``: 1 - size of one test.
    slope: of the difference in trends, in outcome units a period; NaN for another shape.
    power: probability that the test rejects under it; ``size``: the same under parallel trends.
    event: (K,) event times, without the base; ``post``: (K,) those after it.
    trend: (K,) the difference in trends, 0 in the base period: the bias of the estimates.
    estimate, std_error: (K,) as found.
    mean_if_passed: (K,) what the estimates are on average when the test does not reject, without effects.
    bayes_factor: probability to pass under the trend over that under parallel trends.
    likelihood_ratio: likelihood of the estimates before the base under the trend over that under parallel trends.
    """

    rule: Rule
    level: float
    slope: float
    power: float
    size: float
    event: NDArray[np.int64]
    post: NDArray[np.bool_]
    trend: Array
    estimate: Array
    std_error: Array
    mean_if_passed: Array
    bayes_factor: float
    likelihood_ratio: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "event", frozen(self.event, np.int64))
        object.__setattr__(self, "post", frozen(self.post, bool))
        for name in ("trend", "estimate", "std_error", "mean_if_passed"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


def pretrend_test(effects: Effects, *, window: tuple[int, int] | None = None) -> PretrendTest:
    """Test that the effects before the base period are zero, jointly and one by one.

    ``window``: only the event times from .. to .., bounds included. Errors as for :func:`evalkit.did.honest.honest`
    (one base period for all cells; no gaps).

    Notes
    -----
    W = b' V^- b, chi-squared with the rank of V. P-value of the largest |t|: 1 - P(|Z_j| <= max |t| for all j), Z
    normal with the correlations of V.
    """
    study = of_effects(effects, window)
    b, v = study.beta[: study.pre], study.sigma[: study.pre, : study.pre]
    error = np.sqrt(np.diag(v))
    inverse, rank = _inverse(v)
    wald = float(b @ inverse @ b)
    t = b / error
    p_any = math.nan
    if rank == study.pre:
        p_any = 1 - _Rectangle(v / np.outer(error, error), float(np.abs(t).max())).passed(np.zeros(study.pre))[0]
    return PretrendTest(study.event[: study.pre], b, error, t, wald, rank, float(special.chdtrc(rank, wald)), p_any)


@dataclass(frozen=True)
class JointTest:
    """The joint test of the periods before the start with few clusters: how many, statistic, its F law, p-value.

    ``p_value`` is NaN when there are no more treated, or comparison, clusters than periods and one.
    """

    periods: int
    statistic: float
    df: tuple[float, float]
    p_value: float


def joint_test(panel: Panel, effects: Effects, *, anticipation: int = 0) -> JointTest | None:
    """Test that nothing happens before the start, with a distribution that allows for few clusters.

    Unlike :func:`pretrend_test` it needs the influence function and no single base period. None without periods before.

    Notes
    -----
    W = b' V^-1 b with V summed over strata s (cohorts) of clusters, V_s = n_s / (n_s - 1) psi_s' psi_s; W times
    (nu - k + 1) / (k nu) is set against F(k, nu - k + 1), with
    nu = (k + k^2) / sum_s [tr((V_s V^-1)^2) + tr(V_s V^-1)^2] / (n_s - 1) (Krishnamoorthy and Yu 2004, Statistics &
    Probability Letters 66: 161-169, here for cohorts of clusters). Simulated
    size at 5 % with 12 treated of 24 clusters and 3, 7 and 11 periods: 4.5, 3.5 and 6 %; by the chi-squared
    distribution 12, 32 and 55 %.
    """
    early = (effects.at < -anticipation) & np.isfinite(effects.estimate) & (effects.std_error > 0)
    k = int(early.sum())
    if not k or not isinstance(effects.uncertainty, Influence):
        return None
    of = dict(zip(panel.cluster_ids.tolist(), panel.first_of_cluster.tolist(), strict=True))
    stratum = np.array([of[i] for i in effects.uncertainty.ids.tolist()])
    later = len(stratum) - int((stratum == stratum.min()).sum())
    nothing = JointTest(k, np.nan, (k, np.nan), np.nan)
    if min(int((stratum < NEVER).sum()), later) <= k + 1:
        return nothing
    psi = effects.uncertainty.values[:, early]
    parts = []
    for one in np.unique(stratum):
        mine = psi[stratum == one]
        n = len(mine)
        parts.append((n, (n / max(n - 1, 1)) * (mine.T @ mine)))
    inverse = np.linalg.pinv(sum((part for _, part in parts), np.zeros((k, k))), hermitian=True)
    spread = 0.0
    for n, part in parts:
        share = part @ inverse
        spread += (float(np.trace(share @ share)) + float(np.trace(share)) ** 2) / max(n - 1, 1)
    nu = (k + k * k) / spread
    if nu <= k:
        return nothing
    b = effects.estimate[early]
    statistic = float(b @ inverse @ b) * (nu - k + 1) / (k * nu)
    return JointTest(k, statistic, (k, nu - k + 1), float(stats.f.sf(statistic, k, nu - k + 1)))


def pretrend_power(
    effects: Effects,
    *,
    slope: float | None = None,
    power: float | None = None,
    trend: ArrayLike | None = None,
    rule: Rule = "any",
    level: float = 0.95,
    window: tuple[int, int] | None = None,
) -> PretrendPower:
    """The power of a test of effects before treatment, and the bias that comes through it.

    Parameters
    ----------
    slope, power, trend: one of them. ``slope``: a difference in trends that is linear, in outcome units a period.
        ``power``: the (positive) slope that the test would detect with this probability; 0.5 when nothing is given.
        ``trend`` (K,): any difference in trends at the event times without the base.
    rule: ``any``: rejects when some estimate before the base has |t| above the normal quantile of ``level``, as readers
        of an event plot do; ``wald``: rejects when the joint test does.
    window: only the event times from .. to .., bounds included.

    Raises
    ------
    UsageError
        ``did.pretrend_one_of`` when more than one of slope, power and trend is given; ``did.pretrend_power_range`` when
        ``power`` is not between the size of the test and 1; ``did.pretrend_trend`` when ``trend`` does not fit;
        ``did.pretrend_never_passes`` when the test would practically always reject: nothing to condition on;
        ``did.pretrend_rule``, ``did.honest_level``; and those of :func:`evalkit.did.honest.honest`.
    DesignError
        ``did.honest_singular`` when the covariance before the base is singular; those of honest.

    Notes
    -----
    Estimates are normal around the trend. ``any``: P(pass) = P(|b_j| <= q s_j, all j), a rectangle; with d the trend,
    E[b_post | pass] = d_post + V_post,pre V_pre^-1 (E[b_pre | pass] - d_pre). Up to five periods before the base by
    Gauss-Legendre (to 1e-10), beyond by 32,768 quasi-random points with a fixed seed: errors up to 1e-5 of the
    probability and 1e-4 standard errors in the mean with nine periods, 1e-4 and 1e-3 with 24.
    ``wald``: W is noncentral chi-squared, lambda = d' V^-1 d; E[b_pre | pass] = d_pre F_{J+2}(c) / F_J(c), F its law.
    """
    if sum(value is not None for value in (slope, power, trend)) > 1:
        raise UsageError(Fault("did.pretrend_one_of", {}))
    if rule not in ("any", "wald"):
        raise UsageError(Fault("did.pretrend_rule", {"rule": str(rule)}))
    if not 0.5 <= level < 1:
        raise UsageError(Fault("did.honest_level", {}))
    study = of_effects(effects, window)
    independent(study, study.pre)
    passed = _passing(study, rule, level)
    line = (study.event - study.base).astype(float)
    before = study.pre
    size = 1 - passed(np.zeros(before))[0]
    if trend is not None:
        shape = np.asarray(trend, float)
        if shape.shape != line.shape or not np.isfinite(shape).all():
            raise UsageError(Fault("did.pretrend_trend", {"events": len(line)}))
        rise = math.nan
    else:
        rise = float(slope) if slope is not None else _slope(passed, line[:before], study, power, size)
        if not math.isfinite(rise):
            raise UsageError(Fault("did.pretrend_trend", {"events": len(line)}))
        shape = rise * line
    probability, mean = passed(shape[:before])
    if not probability > _NEVER:
        raise UsageError(Fault("did.pretrend_never_passes", {}))
    v = study.sigma
    regression = linalg.solve(v[:before, :before], v[:before, before:], assume_a="pos")
    after = shape[before:] + (mean - shape[:before]) @ regression
    b = study.beta[:before]
    distances = [x @ linalg.solve(v[:before, :before], x, assume_a="pos") for x in (b, b - shape[:before])]
    return PretrendPower(
        rule=rule,
        level=level,
        slope=rise,
        power=1 - probability,
        size=size,
        event=study.event,
        post=np.arange(len(line)) >= before,
        trend=shape,
        estimate=study.beta,
        std_error=np.sqrt(np.diag(v)),
        mean_if_passed=np.concatenate([mean, after]),
        bayes_factor=probability / (1 - size),
        likelihood_ratio=float(np.exp((distances[0] - distances[1]) / 2)),
    )


Passing = Callable[[Array], tuple[float, Array]]
"""Probability to pass, and mean of the estimates given that, from a difference in trends before the base."""


def _passing(study: EventStudy, rule: Rule, level: float) -> Passing:
    v = study.sigma[: study.pre, : study.pre]
    if rule == "any":
        error = np.sqrt(np.diag(v))
        box = _Rectangle(v / np.outer(error, error), float(special.ndtri(0.5 + level / 2)))

        def individually(delta: Array) -> tuple[float, Array]:
            probability, mean = box.passed(delta / error)
            return probability, mean * error

        return individually
    inverse = np.linalg.inv(v)
    limit = float(special.chdtri(study.pre, 1 - level))

    def jointly(delta: Array) -> tuple[float, Array]:
        away = float(delta @ inverse @ delta)
        probability = float(ncx2.cdf(limit, study.pre, away)) if away else level
        wider = float(ncx2.cdf(limit, study.pre + 2, away)) if away else 0.0
        return probability, delta * (wider / probability if probability > 0 else math.nan)

    return jointly


def _slope(passed: Passing, line: Array, study: EventStudy, power: float | None, size: float) -> float:
    """The slope that is detected with probability ``power``; the probability grows with it (Anderson 1955)."""
    target = 0.5 if power is None else float(power)
    if not size < target < 1:
        raise UsageError(Fault("did.pretrend_power_range", {"size": round(size, 3)}))

    def excess(rise: float) -> float:
        return 1 - passed(rise * line)[0] - target

    top = float(np.sqrt(study.sigma[0, 0])) / abs(line[0])
    while excess(top) < 0:
        top *= 2
    return float(optimize.brentq(excess, 0.0, top, xtol=1e-13 * top, rtol=1e-12))


def _inverse(matrix: Array) -> tuple[Array, int]:
    """Inverse of a covariance and its rank; where it is singular, the generalised one on correlations."""
    scale = np.sqrt(np.diag(matrix))
    roots, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    kept = roots > 1e-10 * roots.max()
    half = vectors[:, kept] / scale[:, None]
    return (half / roots[kept]) @ half.T, int(kept.sum())


class _Rectangle:
    """P(|Y_j| <= limit for all j) and E[Y | that], Y normal with a mean and the correlations given.

    Coordinate by coordinate along the triangular root: given those before it, each is a standard normal between two
    bounds, and the last is integrated exactly. Few coordinates: Gauss-Legendre between the bounds. Many: each is drawn
    from its part of the normal law (Genz 1992). The points are the same for every mean, so that the probability is a
    smooth function of it.
    """

    def __init__(self, correlation: Array, limit: float):
        self.limit = limit
        self.order = _leading_first(correlation)
        self.root = np.linalg.cholesky(correlation[np.ix_(self.order, self.order)])
        size = len(correlation)
        self.quadrature = size in _NODES
        if self.quadrature:
            nodes, shares = np.polynomial.legendre.leggauss(_NODES[size])
            grids = np.meshgrid(*[nodes] * (size - 1), indexing="ij")
            self.points = np.stack([grid.ravel() for grid in grids]) if grids else np.empty((0, 1))
            weight = np.ones(1)
            for _ in range(size - 1):
                weight = np.outer(weight, shares).ravel()
            self.share = weight
        else:
            sobol = qmc.Sobol(size - 1, rng=generator(0, "pretrends", size))
            self.points = np.clip(sobol.random(_POINTS).T, 1e-15, 1 - 1e-15)
            self.share = np.full(_POINTS, 1 / _POINTS)

    def passed(self, mean: Array) -> tuple[float, Array]:
        """Probability and conditional mean."""
        mean = mean[self.order]
        z = np.zeros((len(mean), self.points.shape[1]))
        weight = self.share.copy()
        for j, row in enumerate(self.root):
            shift = mean[j] + row[:j] @ z[:j]
            low, high = (-self.limit - shift) / row[j], (self.limit - shift) / row[j]
            if self.quadrature and j < len(mean) - 1:
                low, high = np.clip(low, -_FAR, _FAR), np.clip(high, -_FAR, _FAR)
                half = (high - low) / 2
                z[j] = (high + low) / 2 + half * self.points[j]
                weight *= half * _density(z[j])
                continue
            # where both bounds are positive take them in the other tail, where their difference keeps its digits
            side = np.where(low > 0, -1.0, 1.0)
            low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
            start = special.ndtr(low)
            part = special.ndtr(high) - start
            weight *= part
            if j < len(mean) - 1:
                z[j] = side * special.ndtri(start + self.points[j] * part)
            else:
                z[j] = side * (_density(low) - _density(high)) / np.where(part > 0, part, 1.0)
        probability = float(weight.sum())
        # a point far out may be infinite where its weight is nothing
        centre = np.where(weight > 0, np.nan_to_num(z), 0.0) @ weight / (probability or 1.0)
        expected = np.empty(len(mean))
        expected[self.order] = mean + self.root @ centre
        return min(probability, 1.0), expected


def _leading_first(correlation: Array) -> list[int]:
    """An order in which each next coordinate explains most of what the earlier left: little then varies with the points
    of the later ones, which cuts the error of the points ten times and more."""
    rest = correlation.copy()
    left, order = list(range(len(rest))), []
    while left:
        part = rest[np.ix_(left, left)]
        first = left[int(((part**2).sum(axis=0) / np.clip(np.diag(part), 1e-12, None)).argmax())]
        order.append(first)
        left.remove(first)
        rest = rest - np.outer(rest[:, first], rest[first]) / rest[first, first]
    return order


def _density(z: Array) -> Array:
    return np.asarray(np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
