"""Synthetic difference-in-differences, and synthetic control and difference-in-differences in the same form.

Untreated units are weighted so that, over the periods before, their mean runs parallel to that of the treated; periods
before are weighted so that, among untreated units, their mean differs from that of the periods after by a constant.
The estimate is a weighted two-by-two difference. Made for few treated units (one is enough) in a panel of aggregates.

Sources: Arkhangelsky, Athey, Hirshberg, Imbens and Wager (2021), Synthetic difference-in-differences, American Economic
Review 111: 4088-4118; several adoption dates: its appendix, and Clarke, Pailañir, Athey and Imbens (2024), Stata
Journal 24: 557-598; synthetic control: Abadie, Diamond and Hainmueller (2010), JASA 105: 493-505.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.did.absorb import TwoWay
from evalkit.did.effects import By, Effects
from evalkit.did.panel import NEVER, Numbers, Panel
from evalkit.did.synthetic.simplex import simplex_least_squares
from evalkit.effects import Array, Covariance, Influence, Intervals, Uncertainty, frozen, generator
from evalkit.errors import DesignError, Fault, UsageError

Method = Literal["synthetic_did", "synthetic_control", "did"]
Errors = Literal["placebo", "jackknife", "bootstrap", "none"]

TINY_RIDGE = 1e-6
"""Times the noise level: the ridge of the time weights and of synthetic control, which only makes them unique."""

REDRAWS = 1000
"""Bootstrap samples without some cohort, or with one control, are drawn again, this often at most."""

ALL = 1e-6
"""A control, or a cluster of them, with less than this missing has all of the weight."""


@dataclass(frozen=True)
class SyntheticDiD:
    """Estimate, weights and uncertainty; C cohorts, N0 controls, T periods, D repetitions.

    Attributes
    ----------
    method, errors: as asked.
    estimate: mean effect over treated units and periods.
    cohorts, treated: (C,) first treated periods, and units first treated then.
    periods: (T,). ``before`` (C,): how many of them lie before the cohort's treatment.
    controls: (N0,) names of the untreated units.
    unit_weights: (C, N0) not negative, rows add up to one.
    time_weights: (C, T) zero from the treatment on; rows add up to one, or are zero for synthetic control.
    effect: (C, T) treated less weighted controls, less the same in the weighted periods before. Before the treatment:
        how well the paths fit. The cohort's estimate is the mean from its treatment on.
    observed: (C, T) mean outcome of the treated (less the covariates' part); less the effect: the counterfactual.
    noise: (C,) standard deviation of the controls' changes between periods before. ``zeta`` (C,): ridge of the unit
        weights.
    unit_gap, time_gap: (C,) duality gaps: how far, at most, the objectives of the weights lie above their minima.
    deviations: (D, C T) repetitions less their centre, scaled so that the covariance is ``deviations' deviations``.
    dropped: units left out because they are not seen in every period.
    """

    method: Method
    errors: Errors
    estimate: float
    cohorts: Numbers
    treated: Numbers
    periods: Numbers
    before: Numbers
    controls: NDArray[Any]
    unit_weights: Array
    time_weights: Array
    effect: Array
    observed: Array
    noise: Array
    zeta: Array
    unit_gap: Array
    time_gap: Array
    deviations: Array = field(repr=False)
    left_out: NDArray[Any] = field(repr=False)
    level: str
    dropped: int = 0

    @property
    def std_error(self) -> float:
        """Standard error of ``estimate``; NaN without errors."""
        return float(self.effects(by="simple").std_error[0])

    def effects(self, by: By = "event", window: tuple[int, int] | None = None) -> Effects:
        """Effects by event time (periods before included), cohort, calendar period, or one number.

        Cohorts count by their numbers of treated units (and of periods from the treatment on). Uncertainty: Covariance
        for placebo and bootstrap, Influence by cluster for the jackknife. No period is a base: the weighted mean of the
        effects before the treatment is zero, no single one is.
        """
        if by not in ("event", "group", "calendar", "simple"):
            raise ValueError(f"effects: by {by!r}")
        elapsed = self.periods[None, :] - self.cohorts[:, None]
        if by == "event":
            at = np.unique(elapsed)
            if window is not None:
                at = at[(at >= window[0]) & (at <= window[1])]
            chosen = [elapsed == e for e in at]
        else:
            after = elapsed >= 0
            key = np.broadcast_to(self.cohorts[:, None] if by == "group" else self.periods[None, :], elapsed.shape)
            at = np.zeros(1, np.int64) if by == "simple" else np.unique(key[after])
            chosen = [after] if by == "simple" else [after & (key == a) for a in at]
        weights = np.array(
            [(mask * self.treated[:, None] / (mask * self.treated[:, None]).sum()).ravel() for mask in chosen]
        )
        weights = weights.reshape(len(chosen), elapsed.size)
        estimate = weights @ self.effect.ravel()
        n_treated = np.array([int(self.treated[mask.any(axis=1)].sum()) for mask in chosen], np.int64)
        return Effects(
            by, at, estimate, weights @ self.observed.ravel() - estimate, n_treated,
            np.full(len(at), len(self.controls)), self._uncertainty(weights), (), self._se_kind,
            None if by == "simple" else self.effects(by="simple"),
        )  # fmt: skip

    @property
    def _se_kind(self) -> str:
        return {"none": "none", "placebo": f"placebo, {len(self.deviations)} assignments",
                "jackknife": f"jackknife by {self.level}, weights fixed",
                "bootstrap": f"bootstrap by {self.level}, {len(self.deviations)} draws"}[self.errors]  # fmt: skip

    def _uncertainty(self, weights: Array) -> Uncertainty:
        if self.errors == "none":
            unknown = np.full(len(weights), np.nan)
            return Intervals(unknown, unknown, 0.95, "none")
        values = self.deviations @ weights.T
        if self.errors == "jackknife":
            return Influence(self.left_out, values, self.level)
        return Covariance(values.T @ values)


def synthetic_did(
    panel: Panel,
    *,
    method: Method = "synthetic_did",
    errors: Errors = "placebo",
    draws: int = 200,
    seed: int = 0,
    covariates: bool = True,
    incomplete: Literal["error", "drop"] = "error",
) -> SyntheticDiD:
    """Synthetic difference-in-differences of one or more cohorts against the never treated.

    Parameters
    ----------
    panel: balanced. Every cohort has two periods before its treatment at least (one for ``did``); two units at least
        are never treated. Weights of rows must be equal.
    method: ``synthetic_did``; ``synthetic_control`` (weights on units only, no intercept); ``did`` (equal weights).
    errors: ``placebo``: spread of the estimates when untreated units, as many as there are treated ones, take their
        place; all such choices when there are ``draws`` at most. It takes the treated to vary as the controls do, is
        the only one for a single treated unit, and needs two more controls than treated. ``jackknife``: leave a unit
        (cluster) out, weights fixed; two treated units in every cohort at least, somewhat conservative; not for
        synthetic control, whose level moves when a weighted unit goes.
        ``bootstrap``: units (clusters) drawn with replacement, weights found anew; needs many treated. ``none``.
    draws, seed: repetitions of placebo and bootstrap, and where they start.
    covariates: subtract x'beta first, beta from a two-way regression on untreated observations; found anew in every
        repetition. Covariates that do not change over time drop out.
    incomplete: units that are not seen in every period: ``error``, or ``drop`` them (``dropped`` says how many).

    Raises
    ------
    UsageError
        ``did.synthetic_repeated``, ``did.synthetic_weights``, ``did.synthetic_clusters`` (placebo with clusters above
        the unit), ``did.synthetic_levels`` (jackknife of synthetic control).
    DesignError
        ``did.synthetic_incomplete``, ``did.synthetic_no_treated``, ``did.synthetic_controls``,
        ``did.synthetic_before``, ``did.synthetic_placebo``, ``did.synthetic_jackknife``, ``did.synthetic_one_control``,
        ``did.synthetic_bootstrap``.

    Notes
    -----
    With T0 periods before, T1 after, N0 controls, N1 treated: sigma is the standard deviation of the controls' changes
    in the T0 periods, zeta = (N1 T1)^(1/4) sigma. Unit weights minimise, over the periods before,
    sum_t (w0 + sum_i w_i y_it - ytr_t)^2 + zeta^2 T0 sum_i w_i^2; time weights minimise, over the controls,
    sum_i (l0 + sum_t l_t y_it - ypost_i)^2 + (1e-6 sigma)^2 N0 sum_t l_t^2; both are not negative and add up to one.
    Effect in period t: (ytr_t - sum_i w_i y_it) less its mean over the periods before with weights l. Synthetic control
    has neither intercept nor l, and zeta = 1e-6 sigma. A cohort is compared with the never treated only.
    """
    if method not in ("synthetic_did", "synthetic_control", "did"):
        raise ValueError(f"synthetic_did: method {method!r}")
    if errors not in ("placebo", "jackknife", "bootstrap", "none") or draws < 2:
        raise ValueError(f"synthetic_did: errors {errors!r}, draws {draws}")
    if errors == "jackknife" and method == "synthetic_control":
        raise UsageError(Fault("did.synthetic_levels", {}))
    panel, dropped = _usable(panel, incomplete)
    data = _Data(
        panel.wide(), panel.first, panel.cluster, panel.periods, panel.cohorts,
        panel.x.reshape(panel.units, len(panel.periods), -1) if covariates and panel.x.shape[1] else None,
    )  # fmt: skip
    _check(data, method)
    found = _solve(data, method)
    effect = np.array([fit.effect for fit in found])
    ids = panel.cluster_ids
    deviations = np.empty((0, effect.size))
    if errors == "placebo":
        if len(ids) < panel.units:
            raise UsageError(Fault("did.synthetic_clusters", {"level": panel.level}))
        deviations = _spread(_placebo(data, method, draws, seed))
    elif errors == "bootstrap":
        deviations = _spread(_bootstrap(data, method, draws, seed))
    elif errors == "jackknife":
        deviations = _jackknife(data, found, effect.ravel())
    at = np.flatnonzero(panel.first >= NEVER)
    treated = np.array([(panel.first == g).sum() for g in panel.cohorts])
    after = panel.periods[None, :] >= panel.cohorts[:, None]
    share = after * treated[:, None]
    return SyntheticDiD(
        method, errors, float((share * effect).sum() / share.sum()), frozen(panel.cohorts, np.int64),
        frozen(treated, np.int64), panel.periods, frozen([fit.before for fit in found], np.int64),
        frozen(panel.ids[at], panel.ids.dtype), frozen([fit.omega for fit in found]),
        frozen([fit.lambdas for fit in found]), frozen(effect), frozen([fit.observed for fit in found]),
        frozen([fit.noise for fit in found]), frozen([fit.zeta for fit in found]),
        frozen([fit.unit_gap for fit in found]), frozen([fit.time_gap for fit in found]), frozen(deviations), ids,
        panel.level, dropped,
    )  # fmt: skip


@dataclass(frozen=True)
class _Data:
    """Outcomes (N, T), first treated periods (N,), clusters (N,), the cohorts to estimate, covariates (N, T, P)."""

    y: Array
    first: Numbers
    cluster: Numbers
    periods: Numbers
    cohorts: Numbers
    x: Array | None

    def take(self, rows: Numbers) -> _Data:
        """Some units, perhaps more than once."""
        x = None if self.x is None else self.x[rows]
        return replace(self, y=self.y[rows], first=self.first[rows], cluster=self.cluster[rows], x=x)

    def adjusted(self) -> Array:
        """(N, T) outcomes less the covariates' part; the slopes come from untreated observations."""
        if self.x is None:
            return self.y
        n, t = self.y.shape
        x = (self.x - self.x.mean(axis=(0, 1))).reshape(n * t, -1)
        unit, time = np.repeat(np.arange(n), t), np.tile(np.arange(t), n)
        rows = np.flatnonzero((self.periods[None, :] < self.first[:, None]).ravel())
        fit = TwoWay.of_rows(unit[rows], time[rows], np.ones(len(rows)), n, t, x[rows])
        return self.y - (x @ fit.solve(self.y.ravel()[rows]).slope).reshape(n, t)


@dataclass(frozen=True)
class _Fit:
    """One cohort: weights of controls (N0,) and of all periods (T,), effect and mean outcome of the treated (T,)."""

    omega: Array
    lambdas: Array
    before: int
    effect: Array
    observed: Array
    noise: float
    zeta: float
    unit_gap: float
    time_gap: float


def _usable(panel: Panel, incomplete: str) -> tuple[Panel, int]:
    if panel.repeated:
        raise UsageError(Fault("did.synthetic_repeated", {}))
    if len(panel) and np.ptp(panel.weight) > 1e-12 * np.abs(panel.weight).max():
        raise UsageError(Fault("did.synthetic_weights", {}))
    whole, lost = panel.complete()
    if len(lost) and incomplete == "error":
        raise DesignError(Fault("did.synthetic_incomplete", {"units": len(lost), "all": panel.units}))
    return whole, len(lost)


def _check(data: _Data, method: Method) -> None:
    controls = int((data.first >= NEVER).sum())
    if not len(data.cohorts):
        raise DesignError(Fault("did.synthetic_no_treated", {}))
    if controls < 2:
        raise DesignError(Fault("did.synthetic_controls", {"controls": controls}))
    needed = 1 if method == "did" else 2
    early = [g for g in data.cohorts.tolist() if (data.periods < g).sum() < needed]
    if early:
        units = int(np.isin(data.first, early).sum())
        raise DesignError(Fault("did.synthetic_before", {"units": units, "needed": needed}))


def _solve(data: _Data, method: Method) -> list[_Fit]:
    """The fit of every cohort."""
    y = data.adjusted()
    controls = y[data.first >= NEVER]
    return [_cohort(controls, y[data.first == g], int((data.periods < g).sum()), method) for g in data.cohorts.tolist()]


def _cohort(controls: Array, treated: Array, before: int, method: Method) -> _Fit:
    """Weights and effects of one cohort from (N0, T) and (N1, T) outcomes."""
    (n0, periods), n1 = controls.shape, len(treated)
    observed = treated.mean(axis=0)
    change = np.diff(controls[:, :before], axis=1)
    noise = float(change.std(ddof=1)) if change.size > 1 else 0.0
    lambdas, unit_gap, time_gap, zeta = np.zeros(periods), 0.0, 0.0, np.nan
    if method == "did":
        omega = np.full(n0, 1.0 / n0)
        lambdas[:before] = 1.0 / before
    else:
        paths, target = controls[:, :before].T, observed[:before]
        zeta = TINY_RIDGE * noise
        if method == "synthetic_did":
            zeta = (n1 * (periods - before)) ** 0.25 * noise
            rows = controls[:, :before]
            after = controls[:, before:].mean(axis=1)
            of_time = simplex_least_squares(
                rows - rows.mean(axis=0), after - after.mean(), n0 * (TINY_RIDGE * noise) ** 2
            )
            lambdas[:before], time_gap = of_time.x, of_time.gap
            paths, target = paths - paths.mean(axis=0), target - target.mean()
        of_unit = simplex_least_squares(paths, target, before * zeta**2)
        omega, unit_gap = of_unit.x, of_unit.gap
    return _Fit(
        omega, lambdas, before, _effect(controls, observed, omega, lambdas), observed, noise, zeta, unit_gap, time_gap
    )


def _effect(controls: Array, observed: Array, omega: Array, lambdas: Array) -> Array:
    """(T,) difference of treated and weighted controls, less its weighted mean over the periods before."""
    difference = observed - omega @ controls
    return np.asarray(difference - lambdas @ difference)


def _flat(fits: list[_Fit]) -> Array:
    return np.concatenate([fit.effect for fit in fits])


def _spread(repetitions: list[Array]) -> Array:
    """Repetitions less their mean, scaled so that sums of products are their covariance (divisor: their number)."""
    values = np.array(repetitions)
    return np.asarray((values - values.mean(axis=0)) / math.sqrt(len(values)))


def _placebo(data: _Data, method: Method, draws: int, seed: int) -> list[Array]:
    """Effects of untreated units that take the place of the treated: all choices, or a sample of them."""
    controls = data.take(np.flatnonzero(data.first >= NEVER))
    sizes = [int((data.first == g).sum()) for g in data.cohorts]
    n0, n1 = len(controls.y), sum(sizes)
    if n0 < n1 + 2:
        raise DesignError(Fault("did.synthetic_placebo", {"controls": n0, "treated": n1, "needed": n1 + 2}))
    starts = np.repeat(data.cohorts, sizes)

    def choices() -> Iterator[Numbers]:
        if len(sizes) == 1 and math.comb(n0, n1) <= draws:
            yield from (np.array(choice) for choice in combinations(range(n0), n1))
            return
        rng = generator(seed, "synthetic_did", "placebo")
        for _ in range(draws):
            yield rng.permutation(n0)[:n1]

    found = []
    for chosen in choices():
        first = np.full(n0, NEVER)
        first[chosen] = starts
        found.append(_flat(_solve(replace(controls, first=first), method)))
    return found


def _bootstrap(data: _Data, method: Method, draws: int, seed: int) -> list[Array]:
    """Effects in samples of clusters with replacement that hold every cohort and two controls."""
    strata = [data.first == g for g in data.cohorts] + [data.first >= NEVER]
    if any(len(np.unique(data.cluster[rows])) < 2 for rows in strata):
        raise DesignError(Fault("did.synthetic_bootstrap", {}))
    members = np.split(np.argsort(data.cluster, kind="stable"), np.cumsum(np.bincount(data.cluster))[:-1])
    rng = generator(seed, "synthetic_did", "bootstrap")
    found = []
    for _ in range(draws):
        for _ in range(REDRAWS):
            rows = np.concatenate([members[c] for c in rng.integers(len(members), size=len(members))])
            counts = [int(mask[rows].sum()) for mask in strata]
            if min(counts) > 0 and counts[-1] > 1:
                break
        else:
            raise DesignError(Fault("did.synthetic_bootstrap", {}))
        found.append(_flat(_solve(data.take(rows), method)))
    return found


def _jackknife(data: _Data, fits: list[_Fit], whole: Array) -> Array:
    """(G, C T) change of the effects without a cluster, weights of units rescaled, times sqrt((G - 1) / G).

    The sign is that of an influence: the whole less the part.
    """
    groups = int(data.cluster.max()) + 1
    control = data.first >= NEVER
    if any(len(np.unique(data.cluster[data.first == g])) < 2 for g in data.cohorts):
        raise DesignError(Fault("did.synthetic_jackknife", {}))
    most = max(float(np.bincount(data.cluster[control], fit.omega).max()) for fit in fits)
    if most > 1 - ALL:
        raise DesignError(Fault("did.synthetic_one_control", {}))
    change = np.empty((groups, len(whole)))
    for c in range(groups):
        keep = data.cluster != c
        part = data.take(np.flatnonzero(keep))
        y = part.adjusted()
        effects = []
        for g, fit in zip(data.cohorts.tolist(), fits, strict=True):
            omega = fit.omega[keep[control]]
            observed = y[part.first == g].mean(axis=0)
            effects.append(_effect(y[part.first >= NEVER], observed, omega / omega.sum(), fit.lambdas))
        change[c] = whole - np.concatenate(effects)
    return change * math.sqrt((groups - 1) / groups)
