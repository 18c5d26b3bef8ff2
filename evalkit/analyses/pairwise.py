"""Several instruments compared pair by pair, and with waiting (Lechner 2001): settings, sample in, profiles out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evalkit.analyses import matching
from evalkit.analyses.adjusted import Way, arm_weights, outcomes_of, profiles_of
from evalkit.analyses.adjusting import Fitted, codes_of
from evalkit.analyses.described import describe
from evalkit.analyses.matching import Caliper, matched
from evalkit.effects import EffectProfile
from evalkit.errors import DesignError, Fault, StudyError
from evalkit.exhibits import Analysis, Column, Finding, Note, Table
from evalkit.gate import emptied, follow_up_finding
from evalkit.hashing import mix
from evalkit.matching.adjustment import Adjustment, Candidates
from evalkit.matching.admissible import ErrorName
from evalkit.matching.models import ModelName
from evalkit.matching.regressions import Family
from evalkit.matching.several import ArmPair, PairSupport, fit_arms, pairs_of, support_table
from evalkit.sample import Sample
from evalkit.study import Frozen, Outcome, Study

FAILING = {
    "support": "pair_failed_support",
    "balance": "pair_failed_balance",
    "balance_significant": "pair_failed_balance",
}
"""Findings on one pair that reject it, with the finding on the analysis that says so."""
EMPTY = {"design.nobody_matched", "design.match_no_overlap"}
"""Faults that say that nobody of a pair has a match."""


class Settings(Frozen):
    """Nearest neighbours on the chance of one instrument among those in either, for every two of them.

    ``support``: who counts: starters with a counterpart in their own comparison (``pair``), or in every comparison
    (``joint``), so that the comparisons are about the same kind of people. ``estimand``: the starters of the first
    instrument. ``exact``, ``caliper``, ``ratio``, ``replace``, ``outcome_model``, ``family``, ``errors``, ``before``:
    as for matching.
    """

    estimand: Literal["att"] = "att"
    support: Literal["pair", "joint"] = "pair"
    exact: tuple[str, ...] | None = None
    caliper: Caliper | None = Caliper(width=0.2)
    ratio: int = Field(default=1, ge=1, le=50)
    replace: bool = True
    outcome_model: ModelName | None = None
    family: Family = "linear"
    errors: ErrorName = "influence"
    before: int = Field(default=0, ge=0, le=120)

    def matching(self) -> matching.Settings:
        """The same for one pair."""
        chosen = ("exact", "caliper", "ratio", "replace", "outcome_model", "family", "errors", "before")
        return matching.Settings(**{name: getattr(self, name) for name in chosen})


@dataclass(frozen=True)
class _Found:
    """One pair: its profiles, and what is to be said of it.

    ``reasons``: codes of the findings that reject it. ``unequal``: outcomes that its groups were not followed equally
    long for. ``persons``: of the first instrument with a match. ``smd``: how unlike the groups remain. ``few``: too few
    clusters, if so. ``cautions``: other findings.
    """

    pair: ArmPair
    profiles: tuple[EffectProfile, ...]
    reasons: tuple[str, ...]
    unequal: tuple[str, ...]
    persons: int
    smd: float | None
    few: Finding | None
    cautions: tuple[Finding, ...]

    def rejects(self, outcome: str) -> bool:
        """Whether the effect on an outcome is not to be relied on."""
        return bool(self.reasons) or outcome in self.unequal


def faults(study: Study, settings: Settings) -> list[Fault]:
    """What the settings ask that this study cannot give; known before any data are read.

    ``pairwise.no_others``: the study names one instrument only. ``pairwise.estimated_score``: a standard error for the
    score of one logit. And what matching refuses, each once.
    """
    place = study.path.name
    wrong = matching.faults(study, settings.matching())
    if not study.treatment.others:
        wrong.append(Fault("pairwise.no_others", {}, place))
    if settings.errors == "abadie_imbens_estimated":
        wrong.append(Fault("pairwise.estimated_score", {"errors": settings.errors}, place))
    return [one for i, one in enumerate(wrong) if one not in wrong[:i]]


def run(sample: Sample, settings: Settings, rng: np.random.Generator, id: str = "pairwise") -> Analysis:
    """Match every two instruments, and each with waiting, on the starters of the first.

    Raises
    ------
    StudyError
        See :func:`faults`.
    DesignError
        ``design.*`` faults of the model of several instruments; ``design.nobody_matched`` when no pair can be compared.
    """
    wrong = faults(sample.study, settings)
    if wrong or sample.several is None:
        raise StudyError(wrong or [Fault("pairwise.no_others", {}, sample.study.path.name)])
    several = sample.several
    base, entries = several.sample, several.sample.entries
    model = fit_arms(base.design(entries), entries.arm, several.names)
    exact = base.time_names if settings.exact is None else settings.exact
    pairs = pairs_of(model, entries.arm, codes_of(base, exact, entries))
    made = [_compare(base, settings, id, pair) for pair in pairs]
    found = [one for one in made if one is not None]
    if not found:
        raise DesignError(Fault("design.nobody_matched", {"starters": int((entries.arm > 0).sum())}))
    reason = sample.study.gate.show_anyway
    findings = [
        Finding("pair_empty", "", "warn", params={"pair": [pair.focal, pair.other]})
        for pair, one in zip(pairs, made, strict=True)
        if one is None
    ]
    for one in found:
        findings += _rejected(one, sample.study.gate.support_min, reason)
    findings += _all_rejected(found)
    few = [one.few for one in found if one.few is not None]
    if few:
        findings.append(min(few, key=lambda finding: finding.value or 0.0))
    findings += [finding for one in found for finding in one.cautions]
    profiles = tuple(
        emptied(profile) if one.rejects(profile.labels["outcome"]) and not reason else profile
        for one in found
        for profile in one.profiles
    )
    table = _support(support_table(model, pairs, entries.arm, entries.person), pairs, made, entries.person)
    return Analysis(id, "pairwise", profiles, (table, Note("pairwise")), tuple(findings))


def _rejected(one: _Found, support_min: float, reason: str) -> Iterator[Finding]:
    """Why a pair is rejected, in one sentence for each kind of reason; and that it is shown nevertheless."""
    pair = [one.pair.focal, one.pair.other]
    for code in dict.fromkeys(FAILING[name] for name in one.reasons):
        threshold = support_min if code == "pair_failed_support" else None
        yield Finding(code, "", "warn", None, threshold, {"pair": pair, "reasons": list(one.reasons)})
    if reason and (one.reasons or one.unequal):
        yield Finding("pair_shown_anyway", "", "warn", params={"pair": pair, "reason": reason})


def _all_rejected(found: Sequence[_Found]) -> list[Finding]:
    """The analysis fails when every pair is rejected, an outcome when every pair is rejected for it."""
    names = dict.fromkeys(profile.labels["outcome"] for profile in found[0].profiles)
    failed = [name for name in names if all(one.rejects(name) for one in found)]
    scopes = [""] if len(failed) == len(names) else failed
    return [Finding("pairs_failed", scope, "fail") for scope in scopes]


def _support(
    counts: Sequence[PairSupport],
    pairs: Sequence[ArmPair],
    made: Sequence[_Found | None],
    person: NDArray[np.integer],
) -> Table:
    """Who can be compared, pair by pair; each number of people is part of the one before, and they do not add up."""
    columns = (
        Column("first", "first_instrument", "text"),
        Column("second", "second_instrument", "text"),
        Column("n_first", "n_first", "count", decimals=0),
        Column("n_supported", "n_supported", "count", decimals=0),
        Column("n_joint", "n_joint", "count", decimals=0),
        Column("n_matched", "n_matched", "count", decimals=0),
        Column("n_second", "n_second", "count", decimals=0),
        Column("smd", "smd_after", "stat", support="n_matched", decimals=2),
    )
    rows = tuple(
        {
            "first": row.focal,
            "second": row.other,
            "n_first": row.persons,
            "n_supported": row.persons_supported,
            "n_joint": row.persons_joint,
            "n_matched": 0 if one is None else one.persons,
            "n_second": len(np.unique(person[pair.rows[~pair.treated & pair.support]])),
            "smd": None if one is None else one.smd,
        }
        for row, pair, one in zip(counts, pairs, made, strict=True)
    )
    return Table("pairwise_support", "pairwise_support", columns, rows)


def _compare(base: Sample, settings: Settings, id: str, pair: ArmPair) -> _Found | None:
    """One pair matched and estimated; None when nobody can be matched."""
    inside = pair.within(settings.support)
    if not inside.treated.any() or inside.treated.all():
        return None
    entries = base.entries.take(inside.rows)
    people = base.people
    candidates = Candidates(
        inside.treated,
        entries.person.astype(np.int64),
        mix(people.key[entries.person], entries.time_zero),
        inside.stratum,
        inside.score,
    )
    starters = int(pair.treated.sum())
    fitted = Fitted(entries, base.design(entries), inside.treated, candidates, None, starters, ())
    chosen = settings.matching()
    way = Way(id, "pairwise", chosen, chosen.model, partial(matched, base, chosen))
    try:
        adjustment = way.adjust(fitted)
    except DesignError as error:
        if {fault.code for fault in error.faults} <= EMPTY:
            return None
        raise
    outcomes = outcomes_of(base, way)
    profiles, cautions = profiles_of(base, way, fitted, adjustment, outcomes)
    shown = describe(base, fitted, adjustment).findings
    names = [pair.focal, pair.other]
    unequal = tuple(_follow_up(base, fitted, adjustment, outcomes, names))
    return _Found(
        pair,
        tuple(_named(profiles, base.study, pair)),
        tuple(dict.fromkeys(f.code for f in shown if f.verdict == "fail" and f.code in FAILING)),
        tuple(finding.scope for finding in unequal),
        len(np.unique(entries.person[adjustment.population > 0])),
        next((f.value for f in shown if f.code == "balance"), None),
        next((f for f in shown if f.code == "few_clusters"), None),
        (*unequal, *_reduced(cautions, names)),
    )


def _follow_up(
    base: Sample, fitted: Fitted, adjustment: Adjustment, outcomes: Sequence[Outcome], names: list[str]
) -> Iterator[Finding]:
    """The outcomes that the two groups were not followed equally long for, judged as for matching."""
    rows = adjustment.used
    used, weights = fitted.entries.take(rows), [weight[rows] for weight in arm_weights(adjustment)]
    for outcome in outcomes:
        seen = base.outcome(outcome.name, used)[1].mean(axis=1)
        one, other = (float(weight @ seen / weight.sum()) for weight in weights)
        judged = follow_up_finding(outcome.name, one, other, base.horizon)
        if judged.verdict == "fail":
            yield replace(judged, code="pair_follow_up", verdict="warn", params={**judged.params, "pair": names})


def _reduced(cautions: Sequence[Finding], names: list[str]) -> list[Finding]:
    """That the correction uses fewer characteristics, once for the pair: in the outcome with the fewest."""
    reduced = [f.params for f in cautions if f.code == "bias_correction_reduced"]
    if not reduced:
        return []
    least = min(reduced, key=lambda params: params["used"])
    params = {"pair": names, "used": max(least["used"], 0), "wanted": least["wanted"]}
    return [Finding("pair_correction_reduced", "", "warn", params=params)]


def _named(profiles: tuple[EffectProfile, ...], study: Study, pair: ArmPair) -> Iterator[EffectProfile]:
    """The profiles with the names of the two instruments; only the study's own question is primary."""
    own = (pair.focal, pair.other) == (study.treatment.instrument, study.treatment.versus)
    for profile in profiles:
        labels = dict(profile.labels) | {
            "instrument": pair.focal,
            "comparison": pair.other,
            "variant": f"{pair.focal}-{pair.other}",
        }
        if not own:
            labels["primary"] = "false"
        yield replace(
            profile, labels=labels, estimand=replace(profile.estimand, strategy=pair.focal, versus=pair.other)
        )
