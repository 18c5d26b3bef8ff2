"""Several instruments compared pair by pair, and with waiting (Lechner 2001): settings, sample in, profiles out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from pydantic import Field

from evalkit.analyses.adjusted import Way, outcomes_of, profiles_of
from evalkit.analyses.adjusting import Estimating, Fitted, codes_of, common_faults
from evalkit.analyses.described import describe
from evalkit.analyses.matching import Caliper, matched
from evalkit.analyses.matching import Settings as MatchingSettings
from evalkit.effects import EffectProfile
from evalkit.errors import DesignError, Fault, StudyError
from evalkit.exhibits import Analysis, Column, Finding, Note, Table
from evalkit.gate import emptied
from evalkit.hashing import mix
from evalkit.matching.nearest import Candidates
from evalkit.matching.several import ArmPair, fit_arms, pairs_of, support_table
from evalkit.sample import Sample
from evalkit.study import Study

HIDDEN = ("support", "balance", "balance_significant")
"""Findings on one pair that withhold its result."""


class Settings(Estimating):
    """Nearest neighbours on the chance of one instrument among those in either, for every two of them.

    ``support``: who counts: starters with a counterpart in their own comparison (``pair``), or in every comparison
    (``joint``), so that the comparisons are about the same kind of people. ``exact``, ``caliper``, ``ratio``,
    ``replace``: as for matching.
    """

    estimand: Literal["att"] = "att"
    support: Literal["pair", "joint"] = "pair"
    exact: tuple[str, ...] | None = None
    caliper: Caliper | None = Caliper(width=0.2)
    ratio: int = Field(default=1, ge=1, le=50)
    replace: bool = True

    def matching(self) -> MatchingSettings:
        """The same for one pair."""
        chosen = ("exact", "caliper", "ratio", "replace", "outcome_model", "family", "errors", "before")
        return MatchingSettings(**{name: getattr(self, name) for name in chosen})


@dataclass(frozen=True)
class _Found:
    """One pair: its profiles, whether it meets the gate, and how unlike the groups remain."""

    pair: ArmPair
    profiles: tuple[EffectProfile, ...]
    fails: bool
    smd: float | None


def faults(study: Study, settings: Settings) -> list[Fault]:
    """``pairwise.no_others``: the study names one instrument only; and what matching refuses."""
    wrong = common_faults(study, settings)
    if not study.treatment.others:
        wrong.append(Fault("pairwise.no_others", {}, study.path.name))
    return wrong


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
    table = support_table(model, pairs, entries.arm, entries.person)
    found = [one for pair in pairs if (one := _compare(base, settings, id, pair)) is not None]
    if not found:
        raise DesignError(Fault("design.nobody_matched", {"starters": int((entries.arm > 0).sum())}))
    findings = [
        Finding("pair_failed", "", "warn", None, None, {"pair": [one.pair.focal, one.pair.other]})
        for one in found
        if one.fails
    ]
    if all(one.fails for one in found):
        findings.append(Finding("pairs_failed", "", "fail"))
    hide = not sample.study.gate.show_anyway
    profiles = [emptied(p) if one.fails and hide else p for one in found for p in one.profiles]
    worst = {(one.pair.focal, one.pair.other): one.smd for one in found}
    candidates = {(p.focal, p.other): len(np.unique(entries.person[p.rows[~p.treated & p.support]])) for p in pairs}
    columns = (
        Column("first", "first_instrument", "text"),
        Column("second", "second_instrument", "text"),
        Column("n_first", "n_first", "count", decimals=0),
        Column("n_supported", "n_supported", "count", decimals=0),
        Column("n_joint", "n_joint", "count", decimals=0),
        Column("n_second", "n_second", "count", decimals=0),
        Column("smd", "smd_after", "stat", support="n_supported", decimals=2),
    )
    rows = tuple(
        {
            "first": row.focal,
            "second": row.other,
            "n_first": row.persons,
            "n_supported": row.persons_supported,
            "n_joint": row.persons_joint,
            "n_second": candidates[row.focal, row.other],
            "smd": worst.get((row.focal, row.other)),
        }
        for row in table
    )
    exhibits = (Table("pairwise_support", "pairwise_support", columns, rows), Note("pairwise"))
    return Analysis(id, "pairwise", tuple(profiles), exhibits, tuple(findings))


def _compare(base: Sample, settings: Settings, id: str, pair: ArmPair) -> _Found | None:
    """One pair matched and estimated; None when nobody can be matched."""
    inside = pair.within(settings.support)
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
        profiles, _ = profiles_of(base, way, fitted, adjustment, outcomes_of(base, way))
    except DesignError:
        return None
    shown = describe(base, fitted, adjustment)
    fails = any(f.verdict == "fail" for f in shown.findings if f.code in HIDDEN)
    smd = next((f.value for f in shown.findings if f.code == "balance"), None)
    return _Found(pair, tuple(_named(profiles, base.study, pair)), fails, smd)


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
