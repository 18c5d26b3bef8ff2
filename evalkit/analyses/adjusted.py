"""From two groups that are made alike, by whatever way, to profiles, findings and who was lost.

A method gives a :class:`Way`; everything after that is the same for matching and weighting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.analyses.adjusting import Adjusting, Fitted, regressors
from evalkit.analyses.common import composition_of, make_profile
from evalkit.effects import EffectProfile, MonthlyEffect
from evalkit.errors import DesignError
from evalkit.exhibits import Analysis, Chart, Exhibit, Finding, Lost, Note, Series
from evalkit.gate import follow_up_finding, placebo_finding
from evalkit.matching.abadie_imbens import Neighbours
from evalkit.matching.adjustment import POPULATION, Adjustment, Matching, Weights, placed
from evalkit.matching.admissible import se_kind
from evalkit.matching.bootstrap import Bootstrap, by_rows
from evalkit.matching.inference import Score
from evalkit.matching.models import ModelName
from evalkit.matching.outcome import estimate
from evalkit.matching.propensity import fit_logit
from evalkit.matching.support import common_levels
from evalkit.sample import Sample
from evalkit.study import Outcome

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

LEAN = ("bias_corrected", "gcomputation", "regression")
"""Outcome steps that look at the rows in use only; the others look at everybody."""
SE_KIND = {"influence": "influence function"}
ALONE = ("pair_cluster", "abadie_imbens", "abadie_imbens_estimated")
"""Standard errors that are not summed within clusters."""
NOBODY = {"design.nobody_matched", "design.no_treated", "design.no_controls", "design.no_common_support"}
"""Faults that say that a group has nobody to compare."""
NEIGHBOURS = 2
"""Rows of the same arm with the nearest score, among which Abadie and Imbens find the spread of outcomes."""


@dataclass(frozen=True)
class Way:
    """How an analysis makes the groups alike.

    ``adjust``: from candidates to matches or weights. ``model``: the outcome step. ``score``: the score that candidates
    are matched on was estimated by one logit, and its estimation counts.
    """

    id: str
    method: str
    settings: Adjusting
    model: ModelName
    adjust: Callable[[Fitted], Adjustment]
    score: bool = False

    def kind(self, sample: Sample, adjustment: Adjustment) -> str:
        """The name of the standard error, with the level it is clustered on."""
        name = se_kind(adjustment, self.settings.errors)
        name = SE_KIND.get(name, name)
        return name if self.settings.errors in ALONE else f"{name}, clustered on {sample.people.cluster_level}"


@dataclass(frozen=True)
class Shown:
    """What a method shows of its adjustment beside the profiles."""

    exhibits: tuple[Exhibit, ...]
    findings: tuple[Finding, ...]


def run_adjusted(
    sample: Sample,
    way: Way,
    fit: Callable[[Sample], Fitted],
    describe: Callable[[Fitted, Adjustment], Shown],
    doubts: Callable[[Fitted, Adjustment, EffectProfile], Shown],
) -> Analysis:
    """Adjust, estimate every outcome and every subgroup, describe, and doubt."""
    fitted = fit(sample)
    adjustment = way.adjust(fitted)
    effects = outcomes_of(sample, way)
    profiles, cautions = profiles_of(sample, way, fitted, adjustment, effects)
    groups, notes = _subgroups(sample, way, fitted, effects)
    lead = next((p for p in profiles if p.labels["primary"] == "true"), profiles[0])
    if sample.alternative is not None:
        other = fit(sample.alternative)
        variant = sample.alternative.convention
        profiles += profiles_of(sample.alternative, way, other, way.adjust(other), effects, variant=variant)[0]
    parts = (
        describe(fitted, adjustment),
        _placebo(sample, way, fitted, adjustment),
        _negative_controls(sample, way, fitted, adjustment),
        doubts(fitted, adjustment, lead),
    )
    findings = [f for part in parts for f in part.findings]
    left = tuple(o.name for o in sample.study.outcomes if o not in effects and o.role == "effect")
    if left:
        notes += (Note("no_history_left_out", {"outcomes": list(left)}, "warn"),)
    return Analysis(
        way.id,
        way.method,
        profiles + groups,
        (*(e for part in parts for e in part.exhibits), *notes),
        (*fitted.findings, *findings, *_follow_up(sample, fitted, adjustment, effects), *cautions),
        _lost(fitted, adjustment),
    )


def outcomes_of(sample: Sample, way: Way) -> tuple[Outcome, ...]:
    """The outcomes whose effect is estimated: no negative controls; with changes only those that exist beforehand."""
    found = (o for o in sample.study.outcomes if o.role == "effect")
    return tuple(o for o in found if not way.settings.before or sample.has_history(o.name))


@dataclass(frozen=True)
class Using:
    """The candidates that an outcome step looks at, and what it needs of them."""

    rows: Rows
    adjustment: Adjustment
    x: Array
    person: Rows
    cluster: Rows
    extra: dict[str, Any]


def using(sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment) -> Using:
    """Only the rows in use where that is enough: outcome paths of everybody would be large."""
    settings = way.settings
    everybody = isinstance(adjustment, Weights) or way.model not in LEAN or settings.errors in ALONE[1:]
    everybody |= settings.errors == "bootstrap"
    rows = np.arange(len(fitted.entries)) if everybody else adjustment.used
    part: Adjustment = adjustment
    if isinstance(adjustment, Matching) and not everybody:
        part = adjustment.take(rows)
    person = fitted.entries.person[rows].astype(np.int64)
    extra: dict[str, Any] = {}
    if way.score and way.model == "means" and isinstance(adjustment, Matching) and fitted.model is not None:
        design = fitted.design.matrix()[:, [fitted.design.names.index(name) for name in fitted.model.names]]
        extra["score"] = Score.of_logit(fitted.model.score, design, fitted.treated)
    if settings.errors in ALONE[1:]:
        extra["neighbours"] = Neighbours(fitted.candidates.score[:, None], NEIGHBOURS)
    if settings.errors == "bootstrap":

        def anew(drawn: Rows) -> Adjustment:
            part = fitted.take(drawn)
            return adjust_part(way, part, part.treated, np.arange(len(drawn)))

        extra["bootstrap"] = Bootstrap(by_rows(anew), settings.draws, sample.study.seed, way.id)
    x = regressors(sample, fitted, rows, score=way.method != "weighting")
    return Using(rows, part, x, person, sample.people.cluster[person], extra)


def adjust_part(way: Way, part: Fitted, treated: NDArray[np.bool_], rows: Rows) -> Adjustment:
    """The adjustment of some rows, with a start model of their own on the categories that both their arms have.

    ``rows``: their places among all rows, whose arms are ``treated``; for a draw of the bootstrap or what is left after
    trimming.
    """
    shared = common_levels(part.design, part.treated)
    kept = np.arange(len(part.treated)) if shared.rows is None else shared.rows
    part = replace(part.take(kept), design=shared.design)
    model = fit_logit(part.design, part.treated)
    candidates = replace(part.candidates, score=model.score)
    return placed(way.adjust(replace(part, candidates=candidates, model=model)), rows[kept], treated)


def effect_of(sample: Sample, way: Way, on: Using, y: Array, observed: NDArray[np.bool_], **more: Any) -> MonthlyEffect:
    """The effect on outcome paths (n, K) of the rows in use."""
    return estimate(
        on.adjustment,
        y,
        observed,
        on.x,
        model=way.model,
        errors=way.settings.errors,
        family=way.settings.family,
        person=on.person,
        cluster=on.cluster,
        level=sample.people.cluster_level,
        **on.extra,
        **more,
    )


def profiles_of(
    sample: Sample,
    way: Way,
    fitted: Fitted,
    adjustment: Adjustment,
    outcomes: Sequence[Outcome],
    *,
    subgroup: str = "",
    variant: str = "",
) -> tuple[tuple[EffectProfile, ...], tuple[Finding, ...]]:
    """One profile an outcome, and what to be careful about in it."""
    on = using(sample, way, fitted, adjustment)
    used = fitted.entries.take(on.rows)
    profiles, findings = [], []
    for outcome in outcomes:
        y, observed = sample.outcome(outcome.name, used)
        more: dict[str, Any] = {}
        if way.settings.before:
            more["before"], more["before_observed"] = sample.before(outcome.name, used, way.settings.before)
        effect = effect_of(sample, way, on, y, observed, **more)
        if more:
            effect = _with_level(effect, on.adjustment, observed, more["before"], more["before_observed"])
        profiles.append(
            make_profile(
                sample,
                way.id,
                way.method,
                outcome,
                effect,
                observed,
                population=POPULATION[adjustment.target],
                identification=_identification(way),
                se_kind=way.kind(sample, adjustment),
                restriction=restriction(fitted, adjustment),
                subgroup=subgroup,
                variant=variant,
            )
        )
        wanted = on.x.shape[1]
        if way.model != "means" and effect.columns < wanted:
            params = {"used": max(effect.columns - 1, 0), "wanted": wanted - 1}
            findings.append(Finding("bias_correction_reduced", outcome.name, "warn", params=params))
        if composition_of(observed) == "varying":
            numbers = effect.n_treated
            params = {"first": int(numbers[0]), "last": int(numbers[-1]), "month": len(numbers)}
            findings.append(Finding("composition_varying", outcome.name, "warn", params=params))
    return tuple(profiles), tuple(findings)


def _with_level(
    effect: MonthlyEffect, adjustment: Adjustment, observed: NDArray[np.bool_], before: Array, seen: NDArray[np.bool_]
) -> MonthlyEffect:
    """The counterfactual as a level: the population's own mean before, plus the change without treatment."""
    count = seen.sum(axis=1)
    level = np.where(seen, before, 0.0).sum(axis=1) / np.maximum(count, 1)
    weight = adjustment.population[:, None] * (observed & (count > 0)[:, None])
    total = weight.sum(axis=0)
    own = np.divide(level @ weight, total, out=np.full(len(total), np.nan), where=total > 0)
    return replace(effect, counterfactual=effect.counterfactual + own)


def _identification(way: Way) -> str:
    return "conditional_parallel_trends" if way.settings.before else "conditional_independence"


def focal(adjustment: Adjustment) -> NDArray[np.bool_]:
    """Rows whose average effect was asked for, before anybody was left out."""
    if adjustment.target == "att":
        return adjustment.treated
    return ~adjustment.treated if adjustment.target == "atc" else np.ones(len(adjustment.treated), bool)


def restriction(fitted: Fitted, adjustment: Adjustment) -> str:
    """What narrowed the population: trimming, the caliper, or categories that one arm lacks."""
    if isinstance(adjustment, Weights):
        return "trimming" if len(adjustment.trimmed) else _categories(fitted)
    kept = adjustment.population > 0
    if adjustment.pairs is not None and (focal(adjustment) & ~kept).any():
        return "caliper"
    return "common_support" if (focal(adjustment) & ~kept).any() else _categories(fitted)


def _categories(fitted: Fitted) -> str:
    return "caliper" if fitted.starters > int(fitted.treated.sum()) else ""


def _subgroups(
    sample: Sample, way: Way, fitted: Fitted, outcomes: Sequence[Outcome]
) -> tuple[tuple[EffectProfile, ...], tuple[Exhibit, ...]]:
    """Each level of each subgroup made alike within itself."""
    profiles: tuple[EffectProfile, ...] = ()
    notes: list[Exhibit] = []
    for subgroup in sample.study.subgroups:
        made = sample.group(subgroup.name, subgroup.cuts, fitted.entries)
        for number, level in enumerate(made.levels):
            part = fitted.take(np.flatnonzero(made.codes == number))
            name = f"{subgroup.name}={level}"
            try:
                if way.method == "weighting":  # weights are estimated within the level
                    rows = np.arange(len(part.entries))
                    adjustment = adjust_part(way, part, part.treated, rows)
                else:
                    adjustment = way.adjust(part)
                profiles += profiles_of(sample, way, part, adjustment, outcomes, subgroup=name)[0]
            except DesignError as error:
                nobody = {fault.code for fault in error.faults} <= NOBODY
                notes.append(Note("subgroup_empty" if nobody else "subgroup_fails", {"subgroup": name}, "warn"))
    return profiles, tuple(notes)


def arm_weights(adjustment: Adjustment) -> tuple[Array, Array]:
    """Weights (n,) of the starters and of the comparison that the estimate rests on."""
    return adjustment.weight * adjustment.treated, adjustment.weight * ~adjustment.treated


def _follow_up(sample: Sample, fitted: Fitted, adjustment: Adjustment, outcomes: Sequence[Outcome]) -> list[Finding]:
    rows = adjustment.used
    used = fitted.entries.take(rows)
    one, other = (weight[rows] for weight in arm_weights(adjustment))
    findings = []
    for outcome in outcomes:
        seen = sample.outcome(outcome.name, used)[1].mean(axis=1)
        treated, comparison = ((weight @ seen) / weight.sum() for weight in (one, other))
        findings.append(follow_up_finding(outcome.name, float(treated), float(comparison), sample.horizon))
    return findings


def _lost(fitted: Fitted, adjustment: Adjustment) -> tuple[Lost, ...]:
    """Starters outside support, and comparison entries that the estimate does not use."""
    person = fitted.entries.person
    starters, used = (np.flatnonzero(weight != 0) for weight in arm_weights(adjustment))
    reasons = ("outside_support", "unmatched_not_used")
    if isinstance(adjustment, Weights):
        reasons = ("outside_support", "not_weighted")
    return (
        Lost("treated", reasons[0], len(np.unique(person[starters])), len(starters)),
        Lost("comparison", reasons[1], len(np.unique(person[used])), len(used)),
    )


# -- where there can be no effect -----------------------------------------------------------------------------------


def _placebo(sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment) -> Shown:
    """The same comparison on the months before time zero."""
    asked = way.settings.placebo
    if asked is None:
        return Shown((), ())
    on = using(sample, way, fitted, adjustment)
    used = fitted.entries.take(on.rows)
    exhibits: list[Exhibit] = []
    findings = []
    for outcome in sample.study.outcomes:
        if not sample.has_history(outcome.name):
            continue
        base = way.settings.before  # changes are compared with the months before those of the placebo
        y, observed = sample.before(outcome.name, used, asked.months + base)
        more: dict[str, Any] = {}
        if base:
            more = {"before": y[:, :base], "before_observed": observed[:, :base]}
        y, observed = y[:, base:], observed[:, base:]
        if np.ptp(y[observed]) == 0 if observed.any() else True:
            continue  # everybody had it, or nobody: such months say nothing
        effect = effect_of(sample, way, on, y, observed, **more)
        profile = make_profile(
            sample, way.id, way.method, outcome, effect, observed, population=POPULATION[adjustment.target],
            identification=_identification(way), se_kind=way.kind(sample, adjustment),
        )  # fmt: skip
        level = float(np.nanmean(np.abs(effect.counterfactual))) if outcome.unit != "fraction" else 1.0
        findings.append(placebo_finding(profile, outcome.name, asked.margin * level))
        error = profile.std_error
        low, high = (profile.estimate + sign * 1.6448536269514722 * error for sign in (-1, 1))

        def shown(values: Array) -> tuple[float | None, ...]:
            return tuple(float(v) if np.isfinite(v) else None for v in values)

        support = tuple(int(min(a, b)) for a, b in zip(effect.n_treated, effect.n_comparison, strict=True))
        series = Series("difference", shown(profile.estimate), shown(low), shown(high), support)
        months = tuple(range(-asked.months, 0))
        unit = "points" if outcome.unit == "fraction" else ""
        exhibits.append(
            Chart(f"placebo_{outcome.name}", "placebo", "interval", months, (series,), unit, "month_before")
        )
    return Shown(tuple(exhibits), tuple(findings))


def _negative_controls(sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment) -> Shown:
    """Outcomes that the instrument cannot change: what is found there is not an effect."""
    controls = tuple(o for o in sample.study.outcomes if o.role == "negative_control")
    if not controls:
        return Shown((), ())
    plain = replace(way, settings=way.settings.model_copy(update={"before": 0}))
    profiles, _ = profiles_of(sample, plain, fitted, adjustment, controls)
    findings = []
    for profile in profiles:
        k = int(np.flatnonzero(np.isfinite(profile.estimate))[-1]) if np.isfinite(profile.estimate).any() else 0
        value, error = float(profile.estimate[k]), float(profile.std_error[k])
        low, high = value - 1.959963984540054 * error, value + 1.959963984540054 * error
        verdict = "warn" if low > 0 or high < 0 else "pass"
        params = {"outcome": profile.labels["outcome"], "month": int(profile.month[k]), "estimate": value}
        params |= {"low": low, "high": high, "unit": profile.estimand.unit}
        params |= {"support": int(min(profile.n_treated[k], profile.n_comparison[k]))}
        code = "negative_control" if profile.estimand.unit == "fraction" else "negative_control_amount"
        findings.append(Finding(code, "", verdict, value, None, params))  # type: ignore[arg-type]
    return Shown((), tuple(findings))
