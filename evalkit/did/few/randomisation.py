"""Randomisation inference: how large the effect is among those that other assignments of the same dates would show.

Sources: Fisher (1935); Rosenbaum (2002) for inverting the test; MacKinnon and Webb (2020) for clusters: the version on
t-statistics holds up better than that on estimates when treated clusters differ in size from the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import factorial, prod
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.did.effects import Effects, Estimator
from evalkit.did.few.result import Tested, hull, share_as_large
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Array, Influence, generator
from evalkit.errors import DataError, DesignError, Fault, UsageError

Statistic = Literal["estimate", "t"]


def assigned(panel: Panel) -> NDArray[np.int64]:
    """(G,) the first treated period of each cluster.

    Raises
    ------
    DesignError
        ``did.few_mixed_clusters`` when units of one cluster have different first treated periods: then the cluster is
        not what treatment was given to.
    """
    first = panel.first_of_cluster
    mixed = len(np.unique(panel.cluster[panel.first != first[panel.cluster]]))
    if mixed:
        raise DesignError(Fault("did.few_mixed_clusters", {"clusters": mixed}))
    return first


def count_assignments(first: NDArray[np.int64], strata: NDArray[np.int64] | None = None) -> int:
    """How many different ways there are to give these dates to these clusters, within strata."""
    blocks = np.zeros(len(first), np.int64) if strata is None else strata
    total = 1
    for block in np.unique(blocks):
        sizes = np.unique(first[blocks == block], return_counts=True)[1]
        total *= factorial(int(sizes.sum())) // prod(factorial(int(s)) for s in sizes)
    return total


def assignments(
    first: NDArray[np.int64], draws: int, rng: np.random.Generator, strata: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], bool]:
    """Assignments (B, G) of the dates to the clusters, the observed one first, and whether they are all."""
    blocks = np.zeros(len(first), np.int64) if strata is None else strata
    places = [np.flatnonzero(blocks == b) for b in np.unique(blocks)]
    if count_assignments(first, strata) <= draws:
        rows = [first]
        for dates in _product([list(_orders(sorted(first[p].tolist()))) for p in places]):
            other = np.empty_like(first)
            for place, values in zip(places, dates, strict=True):
                other[place] = values
            if not np.array_equal(other, first):
                rows.append(other)
        return np.array(rows), True
    out = np.tile(first, (draws, 1))
    for place in places:
        for row in out[1:]:
            row[place] = first[rng.permutation(place)]
    return out, False


def _orders(values: list[int]) -> Iterator[tuple[int, ...]]:
    """The different orders of values among which some are equal."""
    if not values:
        yield ()
        return
    for value in sorted(set(values)):
        rest = values.copy()
        rest.remove(value)
        for tail in _orders(rest):
            yield (value, *tail)


def _product(parts: Sequence[list[tuple[int, ...]]]) -> Iterator[tuple[tuple[int, ...], ...]]:
    if not parts:
        yield ()
        return
    for head in parts[0]:
        for tail in _product(parts[1:]):
            yield (head, *tail)


@dataclass
class _Runs:
    """Estimate and squared error under each assignment, for the outcome and for a shift of it (B, M)."""

    outcome: Array
    shift: Array
    vyy: Array
    vys: Array
    vss: Array

    @classmethod
    def empty(cls, draws: int, count: int) -> _Runs:
        return cls(*(np.full((draws, count), np.nan) for _ in range(5)))

    def take(self, keep: NDArray[np.bool_]) -> _Runs:
        return _Runs(self.outcome[keep], self.shift[keep], self.vyy[keep], self.vys[keep], self.vss[keep])

    def at(self, m: int, value: float, studentised: bool) -> Array:
        """(B,) the statistic when ``value`` times the shift is taken off the outcome."""
        moved = self.outcome[:, m] - value * self.shift[:, m]
        if not studentised:
            return np.asarray(moved)
        squared = self.vyy[:, m] - 2 * value * self.vys[:, m] + value * value * self.vss[:, m]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(moved / np.sqrt(np.clip(squared, 0, None)))


def randomisation(
    panel: Panel,
    estimator: Estimator,
    *,
    statistic: Statistic = "estimate",
    draws: int = 1_000,
    seed: int = 0,
    strata: ArrayLike | None = None,
    level: float = 0.95,
) -> Tested:
    """p-values and confidence sets from assigning the adoption dates to the clusters again.

    Believed: which clusters got which date is as if drawn by lot (within strata), so that under the hypothesis every
    assignment was as likely. Nothing is believed about the errors. The hypothesis is sharp: no effect on any unit in
    any period. p = share of assignments whose statistic is at least as large in absolute value, the observed one
    counted; exact whatever the number of clusters, but never below 1 / (number of assignments).

    The set of values tau that are not rejected supposes one additive effect: for event times from 0 on, cohorts,
    calendar periods and the overall effect tau in every treated unit and period; for earlier event times tau in every
    period before treatment that is no base. The estimator runs on the outcome and on this shift under each assignment.
    Where it is not linear in the outcome the set is NaN, and the p-value stands.

    Parameters
    ----------
    estimator: settings chosen; gets the panel with other first treated periods. One that says it cannot estimate under
        an assignment leaves this assignment out (``undefined``): whether it can depends on the dates, not the outcome.
    statistic: ``estimate``, or ``t``: divided by its standard error, which is better when clusters differ in size.
    draws: assignments in all, the observed one included; when there are no more in all, every one is used once.
    strata: (G,) stratum of each cluster in the order of ``panel.cluster_ids``.

    Raises
    ------
    DesignError
        ``did.few_mixed_clusters``; ``did.few_one_assignment`` when nothing can be assigned differently.
    DataError
        ``did.few_strata`` when ``strata`` holds not one value a cluster.
    UsageError
        ``did.few_no_error`` for ``t`` with an estimator without standard errors.
    """
    first = assigned(panel)
    blocks = None
    if strata is not None:
        given = np.asarray(strata)
        if given.shape != first.shape:
            raise DataError(Fault("did.few_strata", {"given": int(given.size), "clusters": len(first)}))
        blocks = np.unique(given, return_inverse=True)[1].astype(np.int64)
    if count_assignments(first, blocks) < 2:
        raise DesignError(Fault("did.few_one_assignment", {}))
    observed = estimator(panel)
    studentised = statistic == "t"
    if studentised and observed.vcov is None:
        raise UsageError(Fault("did.few_no_error", {}))
    dates, exact = assignments(first, draws, generator(seed, "randomisation"), blocks)
    shifts = _shifts(panel, observed)
    count = len(observed) + (observed.overall is not None)
    runs = _Runs.empty(len(dates), count)
    for b, when in enumerate(dates):
        try:
            _run(runs, b, panel.with_first(when[panel.cluster]), estimator, shifts, observed, studentised)
        except DesignError:
            continue
    linear = _linear(panel, estimator, observed, shifts, studentised)
    done = np.asarray(np.isfinite(runs.outcome[:, np.isfinite(runs.outcome[0])]).all(axis=1))
    runs = runs.take(done)
    kind = f"randomisation {statistic}"
    parts = [_tested(runs, m, studentised, linear, 1 - level) for m in range(count)]
    p_value, low, high = (np.array(x) for x in zip(*parts, strict=True))
    base = np.isin(observed.at, observed.base) if observed.base else np.zeros(len(observed), bool)
    own = slice(0, len(observed))
    low[own][base] = high[own][base] = 0.0
    smallest, undefined = 1 / len(runs.outcome), int((~done).sum())

    def result(at: slice, effects: Effects, overall: Tested | None) -> Tested:
        return Tested(
            effects.estimate, p_value[at], low[at], high[at], level, kind, len(runs.outcome), exact, smallest,
            effects.std_error, undefined, None, overall,
        )  # fmt: skip

    total = observed.overall
    overall = None if total is None else result(slice(len(observed), count), total, None)
    return result(own, observed, overall).on(observed)


def _shifts(panel: Panel, observed: Effects) -> list[tuple[Array, NDArray[np.bool_]]]:
    """What is added to the outcome (n,) per unit of tau, and the effects (M + overall) that it is for."""
    count = len(observed) + (observed.overall is not None)
    early = np.zeros(count, bool)
    if observed.by == "event":
        early[: len(observed)] = observed.at < 0
    found = [(panel.treated.astype(float), ~early)]
    if early.any():
        since = panel.period - panel.first[panel.unit]
        before = (panel.first[panel.unit] < NEVER) & (since < 0) & ~np.isin(since, observed.base)
        found.append((before.astype(float), early))
    return found


def _stack(effects: Effects, like: Effects) -> tuple[Array, Array | None, float]:
    """Estimates in the order of ``like`` with the overall effect last; their influence (G, M), its factor."""
    place = {int(v): m for m, v in enumerate(effects.at)}
    pick = np.array([place.get(int(v), -1) for v in like.at])
    estimate = np.where(pick >= 0, effects.estimate[pick], np.nan)
    parts = [effects] if like.overall is None or effects.overall is None else [effects, effects.overall]
    if len(parts) == 2:
        estimate = np.append(estimate, parts[1].estimate)
    elif like.overall is not None:
        estimate = np.append(estimate, np.nan)
    if (
        not all(isinstance(part.uncertainty, Influence) for part in parts)
        or len(estimate) != len(pick) + len(parts) - 1
    ):
        return estimate, None, 1.0
    values = [part.uncertainty.values for part in parts if isinstance(part.uncertainty, Influence)]
    factors = {part.uncertainty.factor for part in parts if isinstance(part.uncertainty, Influence)}
    values[0] = np.where(pick >= 0, values[0][:, pick], np.nan)
    if len({len(v) for v in values}) > 1 or len(factors) > 1:
        return estimate, None, 1.0
    return estimate, np.hstack(values), factors.pop()


def _squared(effects: Effects, like: Effects) -> Array:
    """Squared errors in the order of ``like``, the overall effect last."""
    place = {int(v): m for m, v in enumerate(effects.at)}
    pick = np.array([place.get(int(v), -1) for v in like.at])
    found = np.where(pick >= 0, effects.std_error[pick] ** 2, np.nan)
    if like.overall is not None:
        found = np.append(found, np.nan if effects.overall is None else effects.overall.std_error**2)
    return np.asarray(found)


def _run(
    runs: _Runs,
    b: int,
    panel: Panel,
    estimator: Estimator,
    shifts: list[tuple[Array, NDArray[np.bool_]]],
    like: Effects,
    studentised: bool,
) -> None:
    """One assignment: fill row ``b``."""
    with_y = estimator(panel)
    y, psi, factor = _stack(with_y, like)
    runs.outcome[b] = y
    if studentised:
        runs.vyy[b] = _squared(with_y, like) if psi is None else factor * (psi**2).sum(axis=0)
    for shift, use in shifts:
        with_s = estimator(panel.with_outcome(shift))
        s, phi, _ = _stack(with_s, like)
        runs.shift[b, use] = s[use]
        if not studentised:
            continue
        if psi is not None and phi is not None and psi.shape == phi.shape:
            runs.vss[b, use] = factor * (phi[:, use] ** 2).sum(axis=0)
            runs.vys[b, use] = factor * (psi[:, use] * phi[:, use]).sum(axis=0)
        else:  # the variance is quadratic in the outcome: a third point gives the cross term
            both = _squared(estimator(panel.with_outcome(panel.outcome + shift)), like)
            runs.vss[b, use] = _squared(with_s, like)[use]
            runs.vys[b, use] = (both[use] - runs.vyy[b, use] - runs.vss[b, use]) / 2


def _linear(
    panel: Panel,
    estimator: Estimator,
    observed: Effects,
    shifts: list[tuple[Array, NDArray[np.bool_]]],
    studentised: bool,
) -> bool:
    """Whether the estimate is linear (its squared error quadratic) in the outcome, tried on the data themselves."""
    row = _Runs.empty(1, len(observed) + (observed.overall is not None))
    _run(row, 0, panel, estimator, shifts, observed, studentised)
    step = float(np.std(panel.outcome)) or 1.0
    for shift, use in shifts:
        moved = estimator(panel.with_outcome(panel.outcome - step * shift))
        found, _, _ = _stack(moved, observed)
        squared = _squared(moved, observed)
        size = np.abs(row.outcome[0]) + step
        good = np.abs(found - (row.outcome[0] - step * row.shift[0])) <= 1e-7 * size
        if studentised:
            meant = row.vyy[0] - 2 * step * row.vys[0] + step**2 * row.vss[0]
            good &= np.abs(squared - meant) <= 1e-6 * (np.abs(meant) + row.vyy[0])
        if not (good | ~np.isfinite(row.outcome[0]))[use].all():
            return False
    return True


def _tested(runs: _Runs, m: int, studentised: bool, linear: bool, alpha: float) -> tuple[float, float, float]:
    """p-value and set of effect ``m``; NaN where it has no variation."""
    reference = runs.at(m, 0.0, studentised)
    if not np.isfinite(runs.outcome[0, m]) or np.ptp(runs.outcome[:, m]) == 0:
        return np.nan, np.nan, np.nan
    reference = np.where(np.isfinite(reference), reference, np.inf)
    p_value = float(share_as_large(reference[:, None], reference[:1], _tiny(reference))[0])
    moves = runs.shift[0, m]
    if not linear or not abs(moves) > 1e-6:
        return p_value, np.nan, np.nan

    def of(values: Array) -> Array:
        found = np.empty(len(values))
        for at, value in enumerate(values):
            here = runs.at(m, float(value), studentised)
            here = np.where(np.isnan(here), np.inf, here)
            found[at] = share_as_large(here[:, None], here[:1], _tiny(here))[0]
        return found

    centre = float(runs.outcome[0, m] / moves)
    moved = runs.outcome[:, m] - centre * runs.shift[:, m]
    low, high = hull(of, centre, float(np.sqrt(np.mean(moved**2)) / abs(moves)), alpha)
    return p_value, low, high


def _tiny(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return 1e-11 * float(np.sqrt(np.mean(finite**2))) if len(finite) else 0.0
