"""Effects where there can be none: pretended dates, pretended groups, and outcomes that treatment cannot reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from evalkit.did.effects import Effects, Estimator, Missing
from evalkit.did.overall import attempt, combine, overall, table
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.effects import Array, frozen, generator
from evalkit.errors import DesignError, Fault, UsageError


@dataclass(frozen=True)
class Placebos:
    """Effects (P,) that should be zero.

    Attributes
    ----------
    kind: ``dates`` or ``groups``.
    at: (P,) the cohort (dates), or the number of the draw (groups).
    estimate, std_error: (P,) overall placebo effects, in outcome units; NaN where there is none.
    n_treated, n_comparison: (P,) units beneath.
    effects: the whole results of those that were estimated: what :func:`evalkit.did.overall.overall` sums up; not
        kept for random draws.
    combined: the average over cohorts, weighted by treated units; None for several draws.
    missing: cohorts without a placebo effect: ``placebo_no_before`` (seen too briefly before treatment: not in ``at``)
        or ``placebo_none`` (the estimator could not do it: NaN).
    """

    kind: Literal["dates", "groups"]
    at: Numbers
    estimate: Array
    std_error: Array
    n_treated: Numbers
    n_comparison: Numbers
    effects: tuple[Effects, ...]
    combined: Effects | None = None
    missing: tuple[Missing, ...] = ()

    def __post_init__(self) -> None:
        for name, dtype in (("at", np.int64), ("estimate", float), ("std_error", float), ("n_treated", np.int64),
                            ("n_comparison", np.int64)):  # fmt: skip
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))

    def __len__(self) -> int:
        return len(self.at)

    @property
    def p_value(self) -> Array:
        """(P,) two-sided, from the normal distribution."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(2 * special.ndtr(-np.abs(self.estimate / self.std_error)))

    def rejected(self, alpha: float = 0.05) -> float:
        """Share of the placebo effects that differ from zero at level ``alpha``.

        Over many draws of groups it should be near ``alpha``; far above it, the standard errors are too small
        (Bertrand, Duflo and Mullainathan 2004).
        """
        told = np.isfinite(self.p_value)
        return float((self.p_value[told] < alpha).mean()) if told.any() else np.nan

    def rank(self, estimate: float) -> float:
        """Share of draws at least as far from zero as ``estimate``, which counts itself: (1 + sum) / (1 + draws).

        A randomisation p value only if the real groups were drawn as these are, and are as many.
        """
        drawn = self.estimate[np.isfinite(self.estimate)]
        return float((1 + (np.abs(drawn) >= abs(estimate) * (1 - 1e-12)).sum()) / (1 + len(drawn)))


def _collect(kind: Literal["dates", "groups"], at: Sequence[int], found: Sequence[Effects | None],
             missing: Sequence[Missing] = (), combined: bool = False) -> Placebos:  # fmt: skip
    held = [overall(effects) for effects in found if effects is not None]
    if not held:
        raise DesignError(Fault("did.placebo_none", {}))
    whole = None
    if combined:
        weights = np.array([total.n_treated[0] for total in held], float)
        whole = held[0] if len(held) == 1 else combine(held, weights / weights.sum())
    return Placebos(
        kind,
        np.array(at, np.int64),
        *table(found),
        tuple(effects for effects in found if effects is not None),
        whole,
        tuple(missing),
    )


def placebo_dates(panel: Panel, estimator: Estimator, shift: int = 1, *, anticipation: int = 0) -> Placebos:
    """Pretend that treatment came ``shift`` periods earlier, with all treated observations left out.

    Each cohort g has a panel of its own: the periods before ``g - anticipation``, the cohort with its first treated
    period ``shift`` periods before the end of them, and the units that are not treated in them (later cohorts and never
    treated), as never treated. Nobody in it is treated, so the truth is zero if trends are parallel and nobody reacts
    ahead. The test has the power that so many periods give: not to reject is no proof.

    Parameters
    ----------
    shift: number of periods (not years) that count as treated, at least 1; at least one period must remain before them.
    anticipation: on the scale of the periods, how long before treatment units react; those periods are left out.

    Raises
    ------
    UsageError
        ``did.placebo_shift``: less than 1.
    DesignError
        ``did.placebo_no_before``: no cohort is seen long enough before treatment. ``did.placebo_none``: the estimator
        could estimate for none.
    """
    if shift < 1:
        raise UsageError(Fault("did.placebo_shift", {"shift": shift}))
    found: list[Effects | None] = []
    missing: list[Missing] = []
    tested: list[int] = []
    for g in panel.cohorts.tolist():
        before = panel.periods[panel.periods < g - anticipation]
        if len(before) <= shift:
            missing.append(Missing(g, g, "placebo_no_before"))
            continue
        date = int(before[-shift])
        chosen = (panel.first == g) | (panel.first - anticipation > before[-1])
        seen = panel.take_rows(chosen[panel.unit] & (panel.period <= before[-1]))
        mine = np.isin(seen.ids, panel.ids[panel.first == g])
        tested.append(g)
        found.append(attempt(estimator, seen.with_first(np.where(mine, date, NEVER))))
        if found[-1] is None:
            missing.append(Missing(g, date, "placebo_none"))
    if not tested:
        raise DesignError(Fault("did.placebo_no_before", {}))
    return _collect("dates", tested, found, missing, combined=True)


def placebo_groups(
    panel: Panel,
    estimator: Estimator,
    *,
    pretend: Mask | Sequence[Any] | None = None,
    date: int | None = None,
    draws: int = 99,
    seed: int = 0,
) -> Placebos:
    """Pretend that units which were never treated had been; treated units are left out.

    Give the panel the clusters in which treatment was decided: random groups are made of whole clusters.

    Parameters
    ----------
    pretend: (N,) mask of the panel's units, or names of clusters, that are the pretended group (those among them that
        were treated are left out). None: draw groups of clusters at random.
    date: the pretended first treated period of the group; the first real one by default. Not for draws.
    draws: number of random groups. Each draw gives every cohort as many clusters as its share of all clusters implies,
        rounded, at least one, and keeps at least half of the clusters as comparison.
    seed: of the draws.

    Raises
    ------
    DesignError
        ``did.placebo_untreated``: fewer than two clusters that were never treated, or nobody left to compare with.
        ``did.placebo_none``: the estimator could estimate for none.
    """
    never = panel.first >= NEVER
    pool = panel.take_units(never)
    clusters = len(pool.cluster_ids)
    if clusters < 2 or not len(panel.cohorts):
        raise DesignError(Fault("did.placebo_untreated", {"clusters": clusters}))
    if pretend is not None:
        chosen = np.asarray(pretend)
        if chosen.dtype == bool:
            if chosen.shape != (panel.units,):
                raise ValueError("placebo_groups: pretend holds one value a unit")
            mine = chosen[never]
        else:
            mine = np.isin(pool.cluster_ids, chosen)[pool.cluster]
        if not mine.any() or mine.all():
            raise DesignError(Fault("did.placebo_untreated", {"clusters": clusters}))
        when = int(panel.cohorts[0]) if date is None else date
        return _collect("groups", [0], [estimator(pool.with_first(np.where(mine, when, NEVER)))], combined=True)
    cohorts, sizes = _sizes(panel, clusters)
    rng = generator(seed, "placebo_groups")
    found = []  # not the results: they hold the influence of every unit
    for _ in range(draws):
        order = rng.permutation(clusters)
        first = np.full(clusters, NEVER)
        first[order[: sizes.sum()]] = np.repeat(cohorts, sizes)
        found.append(table([attempt(estimator, pool.with_first(first[pool.cluster]))]))
    if np.isnan([row[0] for row in found]).all():
        raise DesignError(Fault("did.placebo_none", {}))
    estimate, std_error, n_treated, n_comparison = (np.concatenate(column) for column in zip(*found, strict=True))
    return Placebos("groups", np.arange(draws), estimate, std_error, n_treated, n_comparison, ())


def _sizes(panel: Panel, clusters: int) -> tuple[Numbers, Numbers]:
    """How many of the untreated clusters each cohort gets: its share of all clusters, at most half in all."""
    cohorts = panel.cohorts[panel.cohorts > panel.periods[0]]
    if not len(cohorts):
        raise DesignError(Fault("did.placebo_untreated", {"clusters": clusters}))
    real = np.array([len(np.unique(panel.cluster[panel.first == g])) for g in cohorts], float)
    sizes = np.maximum(np.rint(real / len(panel.cluster_ids) * clusters), 1).astype(np.int64)
    while sizes.sum() > clusters // 2 and sizes.max() > 1:
        sizes[np.argmax(sizes)] -= 1
    if sizes.sum() > clusters // 2:  # more cohorts than room: the largest ones
        keep = np.sort(np.argsort(-real, kind="stable")[: max(clusters // 2, 1)])
        cohorts, sizes = cohorts[keep], sizes[keep]
    return cohorts, sizes


def placebo_outcome(panel: Panel, outcome: Array, estimator: Estimator) -> Effects:
    """The estimator on another outcome (n,), in the order of the panel's rows, that treatment cannot change."""
    return estimator(panel.with_outcome(outcome))
