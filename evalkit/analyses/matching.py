"""Matching inside risk sets: settings, sample in, profiles and exhibits out."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evalkit.analyses.common import composition_of, make_profile
from evalkit.analyses.matched import Fitted, describe, regressors
from evalkit.design import Design
from evalkit.effects import EffectProfile
from evalkit.errors import DesignError, Fault, StudyError
from evalkit.exhibits import Analysis, Exhibit, Finding, Lost, Note
from evalkit.gate import follow_up_finding
from evalkit.hashing import mix
from evalkit.matching.effect import Matched, matched_effect
from evalkit.matching.nearest import Candidates, Pairs, match_nearest
from evalkit.matching.propensity import fit_logit
from evalkit.matching.support import common_levels
from evalkit.sample import Entries, Sample
from evalkit.study import Frozen, Study

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

SE_KIND = "influence function, clustered on {level}"


class Caliper(Frozen):
    """How far a match may lie: ``width`` standard deviations or raw units of the score."""

    width: float = Field(gt=0)
    unit: Literal["sd_linear", "raw_linear", "sd", "raw"] = "sd_linear"


class Settings(Frozen):
    """Propensity-score nearest-neighbour matching inside each risk set, bias-corrected.

    ``propensity``: one start model over all risk sets, or one for each elapsed month. ``exact``: matches agree on
    these; by default elapsed month and calendar quarter. ``ratio``: comparison entries for each starter.
    """

    propensity: Literal["pooled", "by_month"] = "pooled"
    exact: tuple[str, ...] | None = None
    caliper: Caliper | None = Caliper(width=0.2)
    ratio: int = Field(default=1, ge=1, le=50)
    replace: Literal[True] = True


def faults(study: Study, settings: Settings) -> list[Fault]:
    """What the settings ask that this study cannot give; known before any data are read.

    ``matching.versus``: risk sets compare starting now with waiting; "never" would condition on the future, and another
    instrument needs its own starters. ``matching.exact_unknown``: a name that is no categorical column of the study.
    """
    wrong = []
    register = study.data is not None
    if register and study.treatment.versus != "wait":
        wrong.append(Fault("matching.versus", {"versus": study.treatment.versus}, study.path.name))
    known = [*(("elapsed", "quarter") if register else ()), *study.covariates.categorical]
    for name in settings.exact or ():
        if name not in known:
            params = {"name": name, "known": ", ".join(known) or "–"}
            wrong.append(Fault("matching.exact_unknown", params, study.path.name))
    return wrong


def run(sample: Sample, settings: Settings, rng: np.random.Generator, id: str = "matching") -> Analysis:
    """Match, estimate every outcome and every subgroup, and describe what was matched.

    Raises
    ------
    StudyError
        See :func:`faults`.
    DesignError
        ``design.*`` faults: no starters, no comparison, separation, nobody within the caliper.
    """
    wrong = faults(sample.study, settings)
    if wrong:
        raise StudyError(wrong)
    fitted = _fit(sample, settings)
    pairs = _match(fitted.candidates, settings)
    matched = Matched.of(pairs)
    profiles, cautions = _profiles(sample, id, fitted, matched, pairs)
    groups, notes = _subgroups(sample, settings, id, fitted)
    if sample.alternative is not None:
        profiles += _alternative(sample.alternative, settings, id)
    exhibits, findings = describe(sample, fitted, matched, pairs)
    findings += (*_follow_up(sample, fitted, matched), *cautions)
    return Analysis(
        id,
        "matching",
        profiles + groups,
        (*exhibits, _method_note(sample, settings), *notes),
        fitted.findings + findings,
        _lost(fitted, pairs),
    )


def _lost(fitted: Fitted, pairs: Pairs) -> tuple[Lost, ...]:
    """Starters outside support, and comparison entries that no starter is matched with."""
    person = fitted.entries.person
    starters, used = np.unique(pairs.treated), np.unique(pairs.control)
    return (
        Lost("treated", "outside_support", len(np.unique(person[starters])), len(starters)),
        Lost("comparison", "unmatched_not_used", len(np.unique(person[used])), len(used)),
    )


def _fit(sample: Sample, settings: Settings) -> Fitted:
    """The start model and everyone's linear predictor; categories without starters or without others fall out."""
    everyone = sample.entries
    starters = int((everyone.arm == 1).sum())
    shared = common_levels(sample.design(everyone), everyone.arm == 1)
    findings = []
    if shared.dropped:
        findings.append(Finding("ps_separation", "", "warn", params={"variables": list(shared.dropped)}))
    entries = everyone if shared.rows is None else everyone.take(shared.rows)
    design, treated = shared.design, entries.arm == 1
    model = fit_logit(design, treated)
    score = model.score
    if settings.propensity == "by_month":
        score, small = _by_month(design, treated, entries.elapsed, score)
        if small:
            findings.append(Finding("small_month", "", "warn", float(len(small)), params={"months": len(small)}))
    people = sample.people
    candidates = Candidates(
        treated,
        entries.person.astype(np.int64),
        mix(people.key[entries.person], entries.time_zero),
        _strata(sample, settings, entries),
        score,
    )
    return Fitted(entries, design, treated, candidates, model, starters, tuple(findings))


def _by_month(
    design: Design, treated: NDArray[np.bool_], elapsed: NDArray[np.int16], pooled: Array
) -> tuple[Array, list[str]]:
    """A model for each elapsed month; months with fewer than five starters a parameter keep the pooled score."""
    score, small = pooled.copy(), []
    for month in np.unique(elapsed):
        rows = np.flatnonzero(elapsed == month)
        part = design.take(rows)
        part = replace(part, time_factors=tuple(f for f in part.time_factors if f.name != "elapsed"))
        own = _own_score(part, treated[rows])
        if own is None:
            small.append(str(int(month)))
        else:
            score[rows] = own
    return score, small


def _own_score(design: Design, treated: NDArray[np.bool_]) -> Array | None:
    """The score from a model for these rows alone; None when they are too few or too uneven for one."""
    try:
        shared = common_levels(design, treated)
        if shared.rows is None and min(treated.sum(), (~treated).sum()) >= 5 * len(shared.design.names):
            return fit_logit(shared.design, treated).score
    except DesignError:
        pass
    return None


def _strata(sample: Sample, settings: Settings, entries: Entries) -> NDArray[np.int64]:
    """One code for each combination of the exact-matching variables."""
    code = np.zeros(len(entries), np.int64)
    for name in _exact(sample, settings):
        if name in sample.time_names:
            level = getattr(entries, name).astype(np.int64)
        else:
            level = sample.group(name, (), entries).codes.astype(np.int64)
        level = level - level.min()
        code = code * (int(level.max()) + 1) + level
    return code


def _match(candidates: Candidates, settings: Settings) -> Pairs:
    caliper = settings.caliper
    return match_nearest(
        candidates,
        ratio=settings.ratio,
        width=None if caliper is None else caliper.width,
        unit="sd_linear" if caliper is None else caliper.unit,
    )


def _profiles(
    sample: Sample, id: str, fitted: Fitted, matched: Matched, pairs: Pairs, subgroup: str = "", variant: str = ""
) -> tuple[tuple[EffectProfile, ...], tuple[Finding, ...]]:
    """One profile an outcome, and what to be careful about in it."""
    lost = len(pairs.outside) + fitted.starters - int(fitted.treated.sum())
    used = fitted.entries.take(matched.rows)
    x = regressors(sample, fitted, matched.rows)
    profiles, findings = [], []
    for outcome in sample.study.outcomes:
        y, observed = sample.outcome(outcome.name, used)
        effect = matched_effect(
            matched,
            y,
            observed,
            x,
            used.person.astype(np.int64),
            sample.people.cluster[used.person],
            sample.people.cluster_level,
        )
        numbers = effect.n_treated
        profiles.append(
            make_profile(
                sample,
                id,
                "matching",
                outcome,
                effect,
                observed,
                population="starters",
                identification="conditional_independence",
                se_kind=SE_KIND.format(level=sample.people.cluster_level),
                restriction="caliper" if lost else "",
                subgroup=subgroup,
                variant=variant,
            )
        )
        wanted = x.shape[1]
        if effect.columns < wanted:
            params = {"used": effect.columns - 1, "wanted": wanted - 1}
            findings.append(Finding("bias_correction_reduced", outcome.name, "warn", params=params))
        if composition_of(observed) == "varying":
            params = {"first": int(numbers[0]), "last": int(numbers[-1]), "month": len(numbers)}
            findings.append(Finding("composition_varying", outcome.name, "warn", params=params))
    return tuple(profiles), tuple(findings)


def _subgroups(
    sample: Sample, settings: Settings, id: str, fitted: Fitted
) -> tuple[tuple[EffectProfile, ...], tuple[Exhibit, ...]]:
    """Each level of each subgroup matched within itself on the common score."""
    profiles: tuple[EffectProfile, ...] = ()
    notes: list[Exhibit] = []
    for subgroup in sample.study.subgroups:
        made = sample.group(subgroup.name, subgroup.cuts, fitted.entries)
        for number, level in enumerate(made.levels):
            rows = np.flatnonzero(made.codes == number)
            part = replace(
                fitted,
                entries=fitted.entries.take(rows),
                design=fitted.design.take(rows),
                treated=fitted.treated[rows],
                candidates=Candidates(*(getattr(fitted.candidates, n)[rows] for n in Candidates.__dataclass_fields__)),
                starters=int(fitted.treated[rows].sum()),
            )
            name = f"{subgroup.name}={level}"
            try:
                pairs = _match(part.candidates, settings)
            except DesignError:
                notes.append(Note("subgroup_empty", {"subgroup": name}, "warn"))
                continue
            profiles += _profiles(sample, id, part, Matched.of(pairs), pairs, subgroup=name)[0]
    return profiles, tuple(notes)


def _alternative(sample: Sample, settings: Settings, id: str) -> tuple[EffectProfile, ...]:
    """The same analysis under the other convention for starts and exits in the same month."""
    fitted = _fit(sample, settings)
    pairs = _match(fitted.candidates, settings)
    return _profiles(sample, id, fitted, Matched.of(pairs), pairs, variant=sample.convention)[0]


def _follow_up(sample: Sample, fitted: Fitted, matched: Matched) -> list[Finding]:
    used = fitted.entries.take(matched.rows)
    starters = np.unique(matched.treated)
    weight = matched.uses()
    findings = []
    for outcome in sample.study.outcomes:
        seen = sample.outcome(outcome.name, used)[1].mean(axis=1)
        treated, comparison = seen[starters].mean(), (weight @ seen) / weight.sum()
        findings.append(follow_up_finding(outcome.name, float(treated), float(comparison), sample.horizon))
    return findings


def _exact(sample: Sample, settings: Settings) -> tuple[str, ...]:
    """What matches agree on: the setting, else elapsed month and quarter (nothing for a ready table)."""
    return sample.time_names if settings.exact is None else settings.exact


def _method_note(sample: Sample, settings: Settings) -> Note:
    """How was matched: with a caliper in standard deviations, in raw units, or without; exactly on something or not."""
    exact, caliper = _exact(sample, settings), settings.caliper
    params: dict[str, object] = {"ratio": settings.ratio}
    key = "matching_method_free"
    if caliper is not None:
        key = "matching_method" if caliper.unit.startswith("sd") else "matching_method_raw"
        params["caliper"] = caliper.width
    if exact:
        return Note(key, params | {"exact": list(exact)})
    return Note(f"{key}_any", params)
