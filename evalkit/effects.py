"""The effect profile: what a strategy does, by month since its start, with its covariance.

Every method returns this one value, so that bands, cumulated effects, lock-in, contrasts and money are written once.
Effects are on the outcome's own scale: fractions (not percentage points), months, euro.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from evalkit.errors import Fault, UsageError

Array = NDArray[np.float64]

DRAWS = 10_000


def frozen(values: ArrayLike, dtype: Any = np.float64) -> NDArray[Any]:
    """A private, read-only, C-contiguous copy."""
    array = np.array(values, dtype=dtype, order="C", copy=True)
    array.setflags(write=False)
    return array


def generator(seed: int, *names: object) -> np.random.Generator:
    """A random generator that depends on the study's seed and on what it is for, and on nothing else."""
    text = "\0".join([str(seed), *map(str, names)])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


@dataclass(frozen=True)
class Estimand:
    """Which difference, for whom, on which clock, and what identifies it.

    Attributes
    ----------
    population: ``starters``, ``eligible``, ``overlap``, ``comparison``, or ``exposed``: the people of units (teams,
        districts) that adopted an approach.
    strategy, versus: the two strategies; versus is ``wait``, ``never``, ``no_adoption`` or another instrument.
    clock: what month counts from: ``start`` or ``referral``.
    outcome, kind, unit: the outcome's name, ``event``/``state``/``flow``, and ``fraction``/``months``/``euro``...
    identification: the assumption in one word: ``randomisation``, ``conditional_independence``, ...
    restriction: what narrowed the population (``caliper``, ``common_support``), empty when nothing did.
    """

    population: Literal["starters", "eligible", "overlap", "comparison", "exposed"]
    strategy: str
    versus: str
    clock: str
    outcome: str
    kind: str
    unit: str
    identification: str
    restriction: str = ""


@dataclass(frozen=True)
class Influence:
    """Influence by cluster, (G, K) in sum form: estimate - truth is approximately the column sum.

    The covariance is ``factor * values.T @ values``. ``ids`` (G,) name the clusters, ``level`` says what they are.
    Microdata: never written to disk.
    """

    ids: NDArray[Any]
    values: Array
    level: str = "person"
    factor: float = 1.0

    def __post_init__(self) -> None:
        ids = frozen(self.ids, np.asarray(self.ids).dtype)
        values = frozen(self.values)
        if values.ndim != 2 or ids.shape != values.shape[:1]:
            raise ValueError(f"influence: ids {ids.shape} do not fit values {values.shape}")
        rising = ids.dtype.kind in "iufUS" and bool((ids[1:] > ids[:-1]).all())
        if not rising and len(np.unique(ids)) != len(ids):
            raise ValueError("influence: one row a cluster, but an id stands twice")
        if not np.isfinite(values).all():
            raise ValueError("influence: values must be finite")
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "values", values)

    @cached_property
    def vcov(self) -> Array:
        """Covariance (K, K); worked out once, since every month's standard error and every band asks for it."""
        return frozen(self.factor * (self.values.T @ self.values))

    def linear(self, weights: Array) -> Influence:
        """Influence of ``weights @ estimate``; weights (M, K)."""
        return replace(self, values=self.values @ weights.T)

    def take(self, keep: NDArray[np.bool_]) -> Influence:
        """Only some of the columns; ``keep`` (K,)."""
        return replace(self, values=self.values[:, keep])

    def coarsen(self, clusters: Mapping[Any, Any], level: str) -> Influence:
        """The same influence summed over coarser clusters; ``clusters`` maps each id to its cluster."""
        ids, index = np.unique([clusters[i] for i in self.ids.tolist()], return_inverse=True)
        values = np.zeros((len(ids), self.values.shape[1]))
        np.add.at(values, index, self.values)
        return Influence(ids, values, level, self.factor)

    def aligned(self, ids: NDArray[Any]) -> Array:
        """Rows in the order of ``ids`` (sorted), scaled so that plain sums of products are covariances; absent = 0."""
        place = np.searchsorted(ids, self.ids)
        if (place == len(ids)).any() or (ids[place] != self.ids).any():
            raise ValueError("influence: align on sorted ids that hold every cluster")
        rows = np.zeros((len(ids), self.values.shape[1]))
        rows[place] = np.sqrt(self.factor) * self.values
        return rows


@dataclass(frozen=True)
class Covariance:
    """A covariance (K, K) without an influence function; ``df`` for t quantiles, infinite for normal."""

    vcov: Array
    df: float = np.inf

    def __post_init__(self) -> None:
        vcov = frozen(self.vcov)
        if vcov.ndim != 2 or vcov.shape[0] != vcov.shape[1]:
            raise ValueError(f"covariance: {vcov.shape} is not square")
        object.__setattr__(self, "vcov", vcov)

    def linear(self, weights: Array) -> Covariance:
        """Covariance of ``weights @ estimate``."""
        return replace(self, vcov=weights @ self.vcov @ weights.T)

    def take(self, keep: NDArray[np.bool_]) -> Covariance:
        """Only some of the numbers; ``keep`` (K,)."""
        return replace(self, vcov=self.vcov[np.ix_(keep, keep)])


@dataclass(frozen=True)
class Intervals:
    """Intervals by month only (randomisation inference, honest intervals): nothing can be derived from them."""

    low: Array
    high: Array
    level: float
    method: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", frozen(self.low))
        object.__setattr__(self, "high", frozen(self.high))

    @property
    def vcov(self) -> None:
        """None: intervals have no covariance."""
        return None

    def linear(self, weights: Array) -> None:
        """None: nothing can be derived from intervals."""
        return None

    def take(self, keep: NDArray[np.bool_]) -> Intervals:
        """Only some of the intervals; ``keep`` (K,)."""
        return replace(self, low=self.low[keep], high=self.high[keep])


Uncertainty = Influence | Covariance | Intervals


@dataclass(frozen=True)
class Band:
    """Pointwise interval and simultaneous band at one level; arrays (K,)."""

    low: Array
    high: Array
    band_low: Array
    band_high: Array
    critical: float
    level: float

    def take(self, keep: NDArray[np.bool_]) -> Band:
        """The same band in some of its months; it still holds for all of them together."""
        return Band(
            self.low[keep], self.high[keep], self.band_low[keep], self.band_high[keep], self.critical, self.level
        )


@dataclass(frozen=True)
class MonthlyEffect:
    """What an estimator returns for one outcome, before it has a name: arrays by month (K,) and their uncertainty.

    ``columns``: how many regressors the adjustment for covariates could use.
    """

    estimate: Array
    counterfactual: Array
    n_treated: NDArray[np.int64]
    n_comparison: NDArray[np.int64]
    uncertainty: Uncertainty
    columns: int


@dataclass(frozen=True)
class EffectProfile:
    """The difference between two strategies for one population at months k on one clock.

    Attributes
    ----------
    estimand: what is estimated.
    labels: analysis, method, instrument, comparison, outcome, subgroup, better (``higher``/``lower``), ...
    month: (K,) whole months since time zero, the first is 1. Months up to 0 lie before the start: placebo months of
        difference-in-differences, in which nothing can have been done yet; a base month there is 0 by construction.
    estimate, counterfactual: (K,) effect and mean outcome under ``versus``, in outcome units; NaN = not estimable.
    n_treated, n_comparison: (K,) numbers of distinct persons.
    uncertainty: :class:`Influence`, :class:`Covariance` or :class:`Intervals`.
    se_kind: the name of the standard error.
    composition: ``fixed`` when every month describes the same people, else ``varying``.
    status: (K,) ``ok``, ``suppressed``, ``withheld`` or ``not_estimable``.
    """

    estimand: Estimand
    labels: Mapping[str, str]
    month: NDArray[np.int64]
    estimate: Array
    counterfactual: Array
    n_treated: NDArray[np.int64]
    n_comparison: NDArray[np.int64]
    uncertainty: Uncertainty
    se_kind: str
    composition: Literal["fixed", "varying"] = "fixed"
    status: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", MappingProxyType({k: str(v) for k, v in dict(self.labels).items()}))
        object.__setattr__(self, "month", frozen(self.month, np.int64))
        for name in ("estimate", "counterfactual"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        for name in ("n_treated", "n_comparison"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))
        size = self.month.shape
        if not self.status:
            status = np.where(np.isfinite(self.estimate), "ok", "not_estimable")
            object.__setattr__(self, "status", tuple(status.tolist()))
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray) and value.shape != size:
                raise ValueError(f"profile: {item.name} has shape {value.shape}, month has {size}")
        if len(self.status) != len(self.month):
            raise ValueError("profile: one status a month")
        if np.any(np.diff(self.month) <= 0):
            raise ValueError("profile: months must increase")
        matrix = self.uncertainty.vcov
        width = len(self.uncertainty.low) if isinstance(self.uncertainty, Intervals) else len(np.asarray(matrix))
        if width != len(self.month):
            raise ValueError(f"profile: uncertainty covers {width} months, estimate {len(self.month)}")

    @property
    def id(self) -> str:
        """Stable name: analysis / outcome / subgroup."""
        parts = [self.labels.get(key, "") for key in ("analysis", "variant", "outcome", "subgroup")]
        return "/".join(part for part in parts if part)

    @property
    def sign(self) -> float:
        """+1 when more of the outcome is better, -1 when less is."""
        return -1.0 if self.labels.get("better") == "lower" else 1.0

    @property
    def vcov(self) -> Array | None:
        """Covariance (K, K), or None where only intervals exist."""
        return self.uncertainty.vcov

    @property
    def std_error(self) -> Array:
        """Standard errors (K,), NaN where only intervals exist."""
        if self.vcov is None:
            return np.full(len(self.month), np.nan)
        return np.sqrt(np.clip(np.diag(self.vcov), 0.0, None))

    @property
    def df(self) -> float:
        """Degrees of freedom of the t quantile; infinite for normal."""
        return self.uncertainty.df if isinstance(self.uncertainty, Covariance) else np.inf

    def critical(self, level: float = 0.95) -> float:
        """Critical value of a single number: normal, or t with the profile's degrees of freedom."""
        return _pointwise(self.df, level)

    def band(self, seed: int, level: float = 0.95, draws: int = DRAWS) -> Band:
        """Pointwise interval and simultaneous band.

        The critical value is the ``level`` quantile of max_k |Z_k| / se_k over seeded draws Z ~ N(0, vcov). For an
        influence function this *is* the Gaussian multiplier bootstrap: sum_g xi_g psi_g with xi_g ~ N(0, 1) has
        exactly that law, so drawing from the covariance saves the G x draws product (Montiel Olea and
        Plagborg-Møller 2019; Callaway and Sant'Anna 2021). With finite ``df`` each draw is divided by a common
        sqrt(chi2/df). Never narrower than the pointwise interval.
        """
        if isinstance(self.uncertainty, Intervals):
            low, high = self.uncertainty.low, self.uncertainty.high
            missing = np.full(len(self.month), np.nan)
            return Band(low, high, missing, missing, np.nan, self.uncertainty.level)
        return band_of(self.estimate, np.asarray(self.vcov), self.df, generator(seed, "band", self.id), level, draws)

    def take(self, keep: NDArray[np.bool_]) -> EffectProfile:
        """The same profile in some of its months; ``keep`` (K,)."""
        return replace(
            self,
            month=self.month[keep],
            estimate=self.estimate[keep],
            counterfactual=self.counterfactual[keep],
            n_treated=self.n_treated[keep],
            n_comparison=self.n_comparison[keep],
            uncertainty=self.uncertainty.take(keep),
            status=tuple(s for s, kept in zip(self.status, keep.tolist(), strict=True) if kept),
        )

    def after(self) -> EffectProfile:
        """The months since the start, 1 and later: what lock-in, break-even and sums are about."""
        later = self.month >= 1
        return self if later.all() else self.take(later)

    def linear(self, weights: ArrayLike) -> tuple[Array, Array | None]:
        """Estimate (M,) and covariance (M, M) of ``weights @ effect``; weights (M, K)."""
        matrix = np.atleast_2d(np.asarray(weights, float))
        derived = self.uncertainty.linear(matrix)
        return matrix @ self.estimate, None if derived is None else derived.vcov

    def cumulate(self) -> EffectProfile:
        """The running sum over months 1..k: months (or euro) gained by k. Needs one composition and every month."""
        if self.composition != "fixed":
            raise UsageError(Fault("effects.varying_composition", {"profile": self.id}))
        if not np.array_equal(self.month, np.arange(1, len(self.month) + 1)):
            raise UsageError(Fault("effects.months_missing", {"profile": self.id}))
        weights = np.tril(np.ones((len(self.month), len(self.month))))
        derived = self.uncertainty.linear(weights)
        if derived is None:
            raise UsageError(Fault("effects.no_covariance", {"profile": self.id}))
        unit = "months" if self.estimand.unit == "fraction" else self.estimand.unit
        return replace(
            self,
            estimand=replace(self.estimand, kind="cumulated", unit=unit),
            estimate=weights @ self.estimate,
            counterfactual=weights @ self.counterfactual,
            uncertainty=derived,
        )


def _pointwise(df: float, level: float) -> float:
    return float(special.stdtrit(df, 0.5 + level / 2) if np.isfinite(df) else special.ndtri(0.5 + level / 2))


def band_of(
    estimate: Array, vcov: Array, df: float, rng: np.random.Generator, level: float = 0.95, draws: int = DRAWS
) -> Band:
    """Pointwise interval and simultaneous band of a vector with a covariance; see :meth:`EffectProfile.band`."""
    std_error = np.sqrt(np.clip(np.diag(vcov), 0.0, None))
    used = np.isfinite(estimate) & (std_error > 0)
    pointwise = _pointwise(df, level)
    critical = pointwise
    if used.sum() > 1:
        scale = std_error[used]
        correlation = vcov[np.ix_(used, used)] / np.outer(scale, scale)
        roots, vectors = np.linalg.eigh((correlation + correlation.T) / 2)
        half = (vectors * np.sqrt(np.clip(roots, 0.0, None))) @ vectors.T  # symmetric: a vector's sign is arbitrary
        largest = np.abs(rng.standard_normal((draws, used.sum())) @ half.T).max(axis=1)
        if np.isfinite(df):
            largest = largest / np.sqrt(rng.chisquare(df, draws) / df)
        critical = max(pointwise, float(np.quantile(largest, level)))
    width = np.where(np.isfinite(estimate), std_error, np.nan)
    return Band(
        estimate - pointwise * width,
        estimate + pointwise * width,
        estimate - critical * width,
        estimate + critical * width,
        critical,
        level,
    )


_COMPARABLE = ("population", "strategy", "versus", "clock", "outcome", "kind", "unit", "identification", "restriction")


def joint_vcov(profiles: Sequence[EffectProfile]) -> Array:
    """Covariance of several profiles stacked, from their influence functions at their common cluster level.

    Clusters are aligned by id, absent ones count zero. Profiles whose uncertainty is no influence function, or whose
    levels differ, are refused: summing covariances as if independent would be wrong for the same people.
    """
    parts = _joinable(profiles)
    ids = np.unique(np.concatenate([part.ids for part in parts]))
    rows = np.concatenate([part.aligned(ids) for part in parts], axis=1)
    return np.asarray(rows.T @ rows)


def _joinable(profiles: Sequence[EffectProfile]) -> list[Influence]:
    """The influence functions of profiles, refused when one has none or when their cluster levels differ."""
    parts: list[Influence] = []
    for profile in profiles:
        if not isinstance(profile.uncertainty, Influence):
            raise UsageError(Fault("effects.no_influence", {"profile": profile.id}))
        parts.append(profile.uncertainty)
    if len({part.level for part in parts}) > 1:
        raise UsageError(Fault("effects.levels_differ", {"levels": ", ".join(sorted({p.level for p in parts}))}))
    return parts


def contrast(
    first: EffectProfile, second: EffectProfile, *, across_estimands: bool = False, same: Sequence[str] = _COMPARABLE
) -> EffectProfile:
    """``first - second``, month by month, with the standard error that sharing people implies.

    Both must answer the same question: every field of the estimand is equal. ``across_estimands=True`` allows unlike
    ones; the result is then called a difference between answers, not bias, and carries both names.
    """
    unlike = [name for name in same if getattr(first.estimand, name) != getattr(second.estimand, name)]
    if unlike and not across_estimands:
        raise UsageError(Fault("effects.unlike_estimands", {"fields": ", ".join(unlike)}))
    if first.estimand.unit != second.estimand.unit:
        raise UsageError(Fault("effects.unlike_estimands", {"fields": "unit"}))
    month = np.intersect1d(first.month, second.month)
    if not len(month):
        raise UsageError(Fault("effects.no_common_month", {"first": first.id, "second": second.id}))
    picks = [np.searchsorted(p.month, month) for p in (first, second)]
    parts = _joinable((first, second))
    ids = np.unique(np.concatenate([part.ids for part in parts]))
    values = parts[0].aligned(ids)[:, picks[0]] - parts[1].aligned(ids)[:, picks[1]]
    kind = "difference_between_answers" if unlike else "contrast"
    labels = dict(first.labels) | {"kind": kind, "first": first.id, "second": second.id, "variant": kind}
    if first.labels.get("subgroup") != second.labels.get("subgroup"):
        labels["subgroup"] = f"{first.labels.get('subgroup', '')} - {second.labels.get('subgroup', '')}"
    return EffectProfile(
        estimand=first.estimand,
        labels=labels,
        month=month,
        estimate=first.estimate[picks[0]] - second.estimate[picks[1]],
        counterfactual=np.full(len(month), np.nan),
        n_treated=np.minimum(first.n_treated[picks[0]], second.n_treated[picks[1]]),
        n_comparison=np.minimum(first.n_comparison[picks[0]], second.n_comparison[picks[1]]),
        uncertainty=Influence(ids, values, parts[0].level),
        se_kind=first.se_kind,
        composition="fixed" if first.composition == second.composition == "fixed" else "varying",
    )


def subgroup_contrasts(profiles: Sequence[EffectProfile]) -> tuple[EffectProfile, ...]:
    """For every outcome and subgroup variable: each level minus the first, from influence functions only.

    Profiles belong together when analysis, outcome and variant agree and their subgroup labels (``name=level``) share
    the name.
    """
    families: dict[tuple[str, ...], list[EffectProfile]] = {}
    for profile in profiles:
        name, _, level = profile.labels.get("subgroup", "").partition("=")
        if level and isinstance(profile.uncertainty, Influence):
            key = (profile.labels["analysis"], profile.labels["outcome"], profile.labels.get("variant", ""), name)
            families.setdefault(key, []).append(profile)
    same = [name for name in _COMPARABLE if name != "restriction"]  # one level may lose starters to the caliper
    return tuple(contrast(other, members[0], same=same) for members in families.values() for other in members[1:])
