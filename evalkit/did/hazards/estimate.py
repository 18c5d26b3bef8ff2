"""Difference-in-differences for exit rates.

Source of the approach: imputation of untreated outcomes (Borusyak, Jaravel and Spiess 2024, Review of Economic Studies
    91:
3253-3285), carried to nonlinear models with parallel trends on the link scale (Wooldridge 2023, Econometrics Journal
26: C31-C66), and to hazards, whose survivors are selected, by chaining them to cumulated exit among those at risk at
    exposure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from evalkit.did.effects import Effects, Missing
from evalkit.did.hazards.at_risk import AtRisk
from evalkit.did.hazards.chain import Coding, Exposed, Profile, hazards, profile
from evalkit.did.hazards.model import Fitted, Link, fit
from evalkit.did.panel import NEVER, Mask, Numbers
from evalkit.effects import Array, Influence
from evalkit.errors import DesignError, Fault, UsageError

Duration = Literal["monthly", "bands"] | Sequence[int]
FollowUp = Literal["complete", "available"]
Population = Literal["exposed", "stock", "inflow"]

BANDS = (0, 1, 2, 3, 6, 9, 12, 18, 24, 36, 48, 60, 84, 120)
"""First elapsed month of each band of ``duration = "bands"``."""

OUTSIDE = 0.01
"""Share of predicted person-months that may have a hazard outside [0, 1]."""

PLACEBO = 6
"""Months that a placebo exposure lies before the real one, unless the horizon is shorter."""


@dataclass(frozen=True)
class HazardModel:
    """One fitted hazard model without treatment.

    cause, link; person_months and exits it was fitted on; parameters; log_likelihood (of least squares: minus half the
    sum of squares); iterations; edge_levels: levels in which nobody or everybody left, whose hazards are 0 or 1;
    outside: share of predicted person-months with a hazard outside [0, 1], where all causes together count.
    """

    cause: str
    link: Link
    person_months: int
    exits: int
    parameters: int
    log_likelihood: float
    iterations: int
    edge_levels: int
    outside: float


@dataclass(frozen=True)
class HazardEffects:
    """Effects on cumulated exit since exposure, by destination.

    Attributes
    ----------
    effects: destination to :class:`~evalkit.did.effects.Effects` by event time 0..K-1: event time e is cumulated exit
        by the close of month k = e + 1 since exposure. ``counterfactual`` is cumulated exit without treatment. ``any``
        is all exits together, when there are several destinations. ``overall`` is the effect at the horizon.
    placebo: the same for an exposure pretended so many months earlier, event times -L..-1; empty when it cannot be
        worked out.
    by_cohort: destination, first treated calendar month, effects; empty unless asked for.
    models: one a destination, behind ``effects``.
    n: ``spells`` and ``persons`` exposed and counted; ``groups`` that adopt and ``never``; ``clusters``,
        ``treated_clusters``; ``short`` spells exposed too late to be followed up, ``not_estimable`` spells left out
        without counterfactual.
    composition: ``fixed`` when every month describes the same people.
    missing: groups of spells left out (first treated month, month of exposure, reason).
    """

    effects: Mapping[str, Effects]
    placebo: Mapping[str, Effects]
    by_cohort: Mapping[str, Mapping[int, Effects]]
    models: Mapping[str, HazardModel]
    n: Mapping[str, int]
    composition: Literal["fixed", "varying"]
    missing: tuple[Missing, ...]


def hazard_did(
    at_risk: AtRisk,
    *,
    link: Link = "cloglog",
    horizon: int = 12,
    duration: Duration = "monthly",
    group_durations: bool = False,
    destination: str | None = None,
    follow_up: FollowUp = "complete",
    population: Population = "exposed",
    anticipation: int = 0,
    placebo: int | None = None,
    by_cohort: bool = False,
) -> HazardEffects:
    """Effect of adoption on cumulated exit, among those at risk when they are first exposed.

    Without treatment the hazard of cause d at elapsed month t is
    ``g(h_d) = alpha_t + lambda_group + gamma_calendar (+ beta_cell)``, fitted on person-months of groups that have not
    adopted (yet). Spells that run at adoption are exposed at the elapsed month they are in, later ones from entry.
    Their hazards without treatment are predicted for 1..K months since exposure and chained to cumulated exit; the
    effect is what was observed less that, averaged over those exposed. Hazards after exposure are never compared: once
    treatment changes who leaves, those who are left differ.

    Parameters
    ----------
    link: ``cloglog`` (proportional hazards) or ``identity`` (equal differences).
    horizon: K months since exposure.
    duration: an effect for every elapsed month (``monthly``), for :data:`BANDS`, or for bands that begin at the months
        given.
    group_durations: every group its own profile over elapsed months, known from its months before adoption.
    destination: this cause and all others together; None: every cause by itself.
    follow_up: ``complete``: only who is exposed K months before the window closes; ``available``: month k uses who is
        exposed k months before it closes.
    population: who is exposed, or only spells that ran at adoption (``stock``) or began at or after it (``inflow``).
    anticipation: months before adoption that count neither as untreated nor as exposed: those in which people knew, or
        that adoption cuts.
    placebo: L months; 0 for none; None for :data:`PLACEBO` or the horizon, whichever is less.
    by_cohort: effects of each month of adoption too.

    Raises
    ------
    UsageError
        ``did.hazards_setting`` (a setting out of range), ``did.hazards_destination``.
    DesignError
        ``did.hazards_nobody_treated``: no group with untreated months adopts. ``did.hazards_horizon``: nobody is
        followed up so long. ``did.hazards_not_estimable``: no counterfactual for anyone. ``did.hazards_outside``:
        hazards outside [0, 1]. ``did.hazards_no_exits``, ``did.hazards_not_converged``: the model cannot be fitted.
    """
    length = min(PLACEBO, horizon) if placebo is None else placebo
    if horizon < 1 or anticipation < 0 or length < 0:
        raise UsageError(Fault("did.hazards_setting", {"setting": "horizon, anticipation, placebo"}))
    for name, value, known in (
        ("link", link, ("cloglog", "identity")),
        ("follow_up", follow_up, ("complete", "available")),
        ("population", population, ("exposed", "stock", "inflow")),
    ):
        if value not in known:
            raise UsageError(Fault("did.hazards_setting", {"setting": name}))
    if destination is not None:
        at_risk = at_risk.pooled(destination)
    last = np.full(len(at_risk.first), at_risk.window[1])
    plan = _Plan(link, horizon, duration, group_durations, follow_up == "complete", population, anticipation, last)
    found = _estimate(at_risk, plan, by_cohort)
    earlier: Mapping[str, Effects] = {}
    missing = found.missing
    if length:
        earlier, why = _placebo(at_risk, plan, length)
        missing = (*missing, *why)
    return HazardEffects(
        found.effects, MappingProxyType(dict(earlier)), found.cohorts, found.models, found.n,
        "fixed" if plan.complete else "varying", missing,
    )  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """Settings, and by group the last calendar month that a follow-up may use."""

    link: Link
    horizon: int
    duration: Duration
    group_durations: bool
    complete: bool
    population: Population
    anticipation: int
    until: Numbers


@dataclass(frozen=True)
class _Found:
    effects: Mapping[str, Effects]
    cohorts: Mapping[str, Mapping[int, Effects]]
    models: Mapping[str, HazardModel]
    n: Mapping[str, int]
    missing: tuple[Missing, ...]


def _placebo(at_risk: AtRisk, plan: _Plan, length: int) -> tuple[Mapping[str, Effects], tuple[Missing, ...]]:
    """Exposure ``length`` months before the months that may be affected; followed up until they begin.

    Untreated months of adopting groups from the pretended exposure on are kept out of the fit, as they are after the
    real one.
    """
    moved = at_risk.first < NEVER
    back = plan.anticipation + length
    earlier = replace(at_risk, first=np.where(moved, at_risk.first - back, NEVER))
    until = np.where(moved, at_risk.first - plan.anticipation - 1, plan.until)
    pretended = replace(plan, horizon=length, complete=True, population="exposed", anticipation=0, until=until)
    try:
        found = _estimate(earlier, pretended, False)
    except DesignError as error:
        code = error.faults[0].code.removeprefix("did.")
        cohorts = np.unique(at_risk.first[moved])
        return {}, tuple(Missing(int(g), int(g - back), code) for g in cohorts)
    at = np.arange(-length, 0)
    shifted = {}
    for name, effects in found.effects.items():
        shifted[name] = replace(effects, at=at)
    return shifted, tuple(replace(m, group=m.group + back) for m in found.missing)


def coding_of(
    at_risk: AtRisk, duration: Duration, group_durations: bool, horizon: int
) -> tuple[Coding, tuple[int, ...]]:
    """How group, cell, calendar and elapsed month become levels of factors, and how many levels each has.

    Raises
    ------
    UsageError
        ``did.hazards_setting`` when bands do not increase from 0.
    """
    longest = int(at_risk.elapsed.max()) + horizon + 1
    if isinstance(duration, str) and duration not in ("monthly", "bands"):
        raise UsageError(Fault("did.hazards_setting", {"setting": "duration"}))
    edges = np.asarray(BANDS if duration == "bands" else duration, np.int64) if duration != "monthly" else None
    if edges is not None and (len(edges) == 0 or edges[0] != 0 or (np.diff(edges) <= 0).any()):
        raise UsageError(Fault("did.hazards_setting", {"setting": "duration"}))
    level = np.arange(longest) if edges is None else np.searchsorted(edges, np.arange(longest), side="right") - 1
    low, high = at_risk.window
    months, bands = high - low + 1 + horizon, int(level.max()) + 1
    groups, cells = len(at_risk.group_ids), len(at_risk.cell_ids)

    def codes(group: Numbers, cell: Numbers, calendar: Numbers, elapsed: Numbers) -> Numbers:
        band = level[elapsed]
        factors = [group * bands + band] if group_durations else [band, group]
        factors.append(calendar - low)
        if cells > 1:
            factors.append(cell)
        return np.stack(factors)

    sizes = (*((groups * bands,) if group_durations else (bands, groups)), months, *((cells,) if cells > 1 else ()))
    return codes, sizes


def untreated(at_risk: AtRisk, anticipation: int) -> Mask:
    """(R,) rows of groups that have not adopted (yet), nor are about to."""
    return np.asarray(at_risk.calendar < at_risk.first[at_risk.group] - anticipation)


def _estimate(at_risk: AtRisk, plan: _Plan, by_cohort: bool) -> _Found:
    coding, sizes = coding_of(at_risk, plan.duration, plan.group_durations, plan.horizon)
    rows = untreated(at_risk, plan.anticipation) & (at_risk.at_risk > 0)
    before = np.zeros(len(at_risk.first), bool)
    before[at_risk.group[rows]] = True
    adopts = at_risk.first < NEVER
    if not (adopts & before).any():
        raise DesignError(Fault("did.hazards_nobody_treated", {"groups": int(adopts.sum())}))
    codes = coding(at_risk.group, at_risk.cell, at_risk.calendar, at_risk.elapsed)
    models = tuple(
        fit(codes, sizes, at_risk.at_risk, at_risk.exits[:, d], rows, plan.link, d + 1)
        for d in range(len(at_risk.causes))
    )
    exposed, missing, n = _exposed(at_risk, plan, before, models, coding)
    found = profile(at_risk, models, coding, exposed, plan.horizon, plan.complete)
    outside = _outside(at_risk, plan, models, coding, exposed)
    if outside > OUTSIDE:
        raise DesignError(Fault("did.hazards_outside", {"share": outside, "allowed": OUTSIDE}))
    compared = _compared(at_risk, rows, exposed, plan.horizon)
    used = adopts & before
    clusters = len(at_risk.cluster_ids)
    treated = len(np.unique(at_risk.cluster[at_risk.first[at_risk.group[at_risk.row]] < NEVER]))
    n = {
        "spells": int(found.spells[0]), "persons": int(found.persons[0]), "groups": int(used.sum()),
        "never": int((~adopts & before).sum()), "clusters": clusters, "treated_clusters": treated, **n,
    }  # fmt: skip
    cohorts: dict[str, dict[int, Effects]] = {}
    if by_cohort:
        of = at_risk.first[at_risk.group[exposed.row]]
        for month in np.unique(of).tolist():
            part = exposed.take(of == month)
            own = profile(at_risk, models, coding, part, plan.horizon, plan.complete)
            against = _compared(at_risk, rows, part, plan.horizon)
            for name, effects in _effects(at_risk, own, against, missing).items():
                cohorts.setdefault(name, {})[month] = effects
    return _Found(
        MappingProxyType(_effects(at_risk, found, compared, missing)),
        MappingProxyType({name: MappingProxyType(own) for name, own in cohorts.items()}),
        MappingProxyType({m.cause: m for m in _summaries(at_risk, models, outside)}),
        MappingProxyType(n), missing,
    )  # fmt: skip


def _exposed(
    at_risk: AtRisk, plan: _Plan, before: Mask, models: tuple[Fitted, ...], coding: Coding
) -> tuple[Exposed, tuple[Missing, ...], dict[str, int]]:
    """Strata exposed and followed up with a counterfactual; what was left out and why."""
    head, length = at_risk.starts[:-1], np.diff(at_risk.starts)
    group = at_risk.group[head]
    first, begin = at_risk.first[group], at_risk.begin
    month = np.maximum(first, begin)
    row = head + month - begin - at_risk.elapsed[head]
    keep = (first < NEVER) & (row >= head) & (row < head + length)
    if plan.population != "exposed":
        keep &= (begin < first) == (plan.population == "stock")
    follow = plan.until[group] - month + 1
    keep[keep] &= at_risk.at_risk[row[keep]] > 0
    least = plan.horizon if plan.complete else 1
    number = np.where(keep, at_risk.at_risk[np.where(keep, row, 0)], 0)
    short = keep & (follow < least)
    keep &= ~short
    if not keep.any() or follow[keep].max() < plan.horizon:
        longest = int(max(0, follow[number > 0].max(initial=0)))
        raise DesignError(Fault("did.hazards_horizon", {"horizon": plan.horizon, "longest": longest}))
    unknown = keep & ~before[group]
    all_ = Exposed(row[keep], month[keep], np.minimum(follow[keep], plan.horizon))
    known = hazards(at_risk, models, coding, all_, plan.horizon)[2]
    reach = np.minimum(np.cumprod(known, axis=1).sum(axis=1), all_.follow_up)
    reach[~before[group[keep]]] = 0
    lost = np.zeros(len(keep), bool)
    lost[keep] = reach < least
    codes = np.where(unknown, "hazards_no_before", "hazards_no_comparison")
    left = sorted({(int(first[p]), int(month[p]), str(codes[p])) for p in np.flatnonzero(lost)})
    counts = {"short": int(number[short].sum()), "not_estimable": int(number[lost].sum())}
    use = Exposed(all_.row, all_.month, reach).take(reach >= least)
    if len(use.row) == 0 or use.follow_up.max() < plan.horizon:
        raise DesignError(Fault("did.hazards_not_estimable", {"spells": counts["not_estimable"]}))
    return use, tuple(Missing(*each) for each in left), counts


def _outside(at_risk: AtRisk, plan: _Plan, models: tuple[Fitted, ...], coding: Coding, exposed: Exposed) -> float:
    """Share of predicted person-months with a hazard of a cause below 0, or of all together above 1."""
    h, _, known, _ = hazards(at_risk, models, coding, exposed, plan.horizon)
    counted = at_risk.at_risk[exposed.row][:, None] * (np.arange(plan.horizon) < exposed.follow_up[:, None]) * known
    bad = (h < -1e-12).any(axis=0) | (h.sum(axis=0) > 1 + 1e-12)
    return float((counted * bad).sum() / counted.sum())


def _compared(at_risk: AtRisk, rows: Mask, exposed: Exposed, horizon: int) -> Numbers:
    """(K,) persons with an untreated month within the calendar months that month 1..k of the exposed lie in."""
    untreated_until = np.concatenate([[0], np.cumsum(rows)])
    months = untreated_until[at_risk.row + at_risk.months] - untreated_until[at_risk.row]
    some = months > 0  # a spell's untreated months are its first ones: adoption comes once
    start = at_risk.calendar[at_risk.row]
    low, high = int(exposed.month.min()), int(exposed.month.max())
    some &= start + months - 1 >= low
    when = np.full(len(at_risk.person_ids), horizon, np.int64)
    np.minimum.at(when, at_risk.person[some], np.maximum(start[some] - high, 0))
    return np.cumsum(np.bincount(np.minimum(when, horizon), minlength=horizon + 1)[:horizon])


def _effects(at_risk: AtRisk, found: Profile, compared: Numbers, missing: tuple[Missing, ...]) -> dict[str, Effects]:
    causes, horizon = found.observed.shape
    parts: dict[str, Array] = {name: np.eye(causes)[d] for d, name in enumerate(at_risk.causes)}
    if causes > 1:
        parts["any"] = np.ones(causes)
    out = {}
    for name, mix in parts.items():
        estimate = mix @ (found.observed - found.without)
        values = np.einsum("gdk,d->gk", found.influence, mix)
        whole = Influence(at_risk.cluster_ids, values, at_risk.level)
        kind = f"influence function, clustered on {at_risk.level}"
        last = np.eye(horizon)[-1:]
        overall = Effects(
            "simple", np.zeros(1, np.int64), estimate[-1:], mix @ found.without[:, -1:], found.persons[-1:],
            compared[-1:], whole.linear(last), se_kind=kind, missing=missing,
        )  # fmt: skip
        out[name] = Effects(
            "event", np.arange(horizon), estimate, mix @ found.without, found.persons, compared, whole, se_kind=kind,
            overall=overall, missing=missing,
        )  # fmt: skip
    return out


def _summaries(at_risk: AtRisk, models: tuple[Fitted, ...], outside: float) -> list[HazardModel]:
    out = []
    for d, (name, model) in enumerate(zip(at_risk.causes, models, strict=True)):
        edges = sum(int(np.isinf(block).sum()) for block in model.coefficient)
        used = model.used
        out.append(HazardModel(
            name, model.link, int(at_risk.at_risk[used].sum()), int(at_risk.exits[used, d].sum()), model.parameters,
            model.log_likelihood, model.iterations, edges, outside,
        ))  # fmt: skip
    return out
