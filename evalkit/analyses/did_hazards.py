"""Difference-in-differences in exit rates: from spells by group to cumulated exit since exposure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.analyses.did import Settings, by_level
from evalkit.did.effects import Effects
from evalkit.did.few import few_clusters
from evalkit.did.few.clusters import ENOUGH_CLUSTERS
from evalkit.did.hazards import AtRisk, HazardEffects, hazard_did, leads_test, spells_at_risk
from evalkit.did.panel import NEVER
from evalkit.effects import EffectProfile, Estimand
from evalkit.errors import DesignError, UsageError
from evalkit.exhibits import Analysis, Chart, Column, Exhibit, Finding, Note, Series, Table
from evalkit.gate import placebo_finding
from evalkit.sample import GroupSpells, Sample, group_spells
from evalkit.study import Outcome

LEADS = 6
Z90 = 1.6448536269514722


def run_hazards(sample: Sample, settings: Settings, id: str) -> Analysis:
    """Effects on cumulated exit for every outcome that is an exit, placebo months beside them.

    Raises
    ------
    DesignError, DataError
        Those of ``evalkit.did.hazards`` and of :func:`evalkit.sample.group_spells`.
    """
    outcomes = [o for o in sample.study.outcomes if o.source.startswith("exit:") and o.role == "effect"]
    others = [o.name for o in sample.study.outcomes if o not in outcomes and o.role == "effect"]
    spells = group_spells(sample, settings.unit, covariates=settings.covariates)
    at_risk = _at_risk(sample, settings, spells)
    profiles: list[EffectProfile] = []
    findings: list[Finding] = []
    exhibits: list[Exhibit] = [_exposed(at_risk)]
    found: HazardEffects | None = None
    for outcome in outcomes:
        destination = outcome.source.removeprefix("exit:")
        found = _effects(sample, settings, at_risk, spells.cut, destination)
        profiles.append(_profile(sample, settings, id, outcome, found, found.effects[destination]))
        exhibits += _placebo_chart(outcome, found.placebo.get(destination))
        findings += _placebo(settings, sample, id, outcome, found, destination)
        findings += _leads(settings, at_risk, spells.cut, outcome, destination)
    if found is not None:
        findings += _left_out(found)
    findings += _few_groups(at_risk)
    few = few_clusters(clusters=len(at_risk.cluster_ids), treated=found.n["treated_clusters"]) if found else None
    if few is not None and (warned := few.finding()) is not None:
        findings.append(Finding(warned.code, "", "warn", warned.value, warned.threshold, warned.params))
    groups, notes = _subgroups(sample, settings, id, outcomes)
    exhibits += [*notes, Note("did_hazards_method")]
    if others:
        exhibits.append(Note("did_hazards_exits_only", {"outcomes": others}, "warn"))
    return Analysis(id, "did", (*profiles, *groups), tuple(exhibits), tuple(findings))


def _at_risk(sample: Sample, settings: Settings, spells: GroupSpells) -> AtRisk:
    level = sample.study.treatment.cluster
    unit = settings.unit or sample.study.treatment.unit
    cell = spells.cell if len(np.unique(spells.cell)) > 1 else None
    cluster: Any = "group" if level == unit else "auto"
    if level not in ("person", unit):
        cluster = sample.people.cluster[spells.person]
    return spells_at_risk(
        spells.entry_month, spells.entry_offset, spells.stop, spells.event, spells.cause, spells.group, spells.adopted,
        spells.window, person=spells.person, cell=cell, cluster=cluster,
        level=level if level != "person" else "cluster",
    )  # fmt: skip


def _effects(sample: Sample, settings: Settings, at_risk: AtRisk, cut: int, destination: str) -> HazardEffects:
    chosen = settings.hazard
    return hazard_did(
        at_risk.together() if destination == "any" else at_risk, link=chosen.link, horizon=sample.horizon,
        duration=chosen.duration, group_durations=chosen.group_durations,
        destination=None if destination == "any" else destination, follow_up=sample.follow_up,
        population=chosen.population, anticipation=settings.anticipation + cut, placebo=settings.before,
    )  # fmt: skip


def _profile(
    sample: Sample, settings: Settings, id: str, outcome: Outcome, found: HazardEffects, effects: Effects,
    subgroup: str = "", variant: str = "",
) -> EffectProfile:  # fmt: skip
    study = sample.study
    labels = {
        "analysis": id, "method": "did", "instrument": study.treatment.instrument, "comparison": "no_adoption",
        "outcome": outcome.name, "subgroup": subgroup, "better": outcome.better,
        "primary": "true" if outcome.primary else "false", "unit_of_panel": settings.unit or study.treatment.unit,
    }  # fmt: skip
    if variant:
        labels["variant"] = variant
    restriction = "follow_up" if found.n["short"] else ""
    return EffectProfile(
        estimand=Estimand(
            "exposed", study.treatment.instrument, "no_adoption", "adoption", outcome.name, "event", outcome.unit,
            "parallel_hazards", restriction,
        ),
        labels=labels,
        month=effects.at + 1,
        estimate=effects.estimate,
        counterfactual=effects.counterfactual,
        n_treated=effects.n_treated,
        n_comparison=effects.n_comparison,
        uncertainty=effects.uncertainty,
        se_kind=effects.se_kind.replace("clustered on group", f"clustered on {labels['unit_of_panel']}"),
        composition=found.composition,
    )  # fmt: skip


def _placebo(
    settings: Settings, sample: Sample, id: str, outcome: Outcome, found: HazardEffects, destination: str
) -> Iterator[Finding]:
    """Cumulated exit after a pretended adoption: its last month must lie within the margin."""
    effects = found.placebo.get(destination)
    if settings.placebo is None or effects is None:
        return
    profile = _profile(sample, settings, id, outcome, found, effects, variant="placebo")
    last = np.arange(len(effects.at)) == int(np.flatnonzero(np.isfinite(effects.estimate))[-1])
    yield placebo_finding(profile.take(last), outcome.name, settings.placebo.margin)


def _placebo_chart(outcome: Outcome, effects: Effects | None) -> tuple[Exhibit, ...]:
    if effects is None or effects.vcov is None:
        return ()

    def shown(values: NDArray[np.float64]) -> tuple[float | None, ...]:
        return tuple(float(v) if np.isfinite(v) else None for v in values)

    low, high = (effects.estimate + sign * Z90 * effects.std_error for sign in (-1, 1))
    support = tuple(int(min(a, b)) for a, b in zip(effects.n_treated, effects.n_comparison, strict=True))
    series = Series("difference", shown(effects.estimate), shown(low), shown(high), support)
    months = tuple(effects.at.tolist())
    return (Chart(f"placebo_{outcome.name}", "placebo", "interval", months, (series,), "points", "month_before"),)


def _leads(settings: Settings, at_risk: AtRisk, cut: int, outcome: Outcome, destination: str) -> Iterator[Finding]:
    """Do hazards move alike before adoption?"""
    chosen = settings.hazard
    try:
        found = leads_test(
            at_risk.together() if destination == "any" else at_risk, LEADS, link=chosen.link, duration=chosen.duration,
            group_durations=chosen.group_durations, destination=None if destination == "any" else destination,
            anticipation=settings.anticipation + cut,
        )  # fmt: skip
    except (DesignError, UsageError):
        return
    params = {"p": found.p_value, "months": len(found.at)}
    verdict: Any = "warn" if found.p_value < 0.05 else "pass"
    yield Finding("did_hazards_leads", outcome.name, verdict, found.p_value, 0.05, params)


def _exposed(at_risk: AtRisk) -> Table:
    """Groups, people and spells: those that adopt and those that do not."""
    adopts = at_risk.first < NEVER
    group = at_risk.group[at_risk.row]
    columns = (
        Column("what", "what", "key"), Column("groups", "panel_units", "text"),
        Column("persons", "persons", "count", decimals=0), Column("spells", "spells", "count", decimals=0),
    )  # fmt: skip
    rows = []
    for name, own in (("column.adopting", adopts), ("column.never_treated", ~adopts)):
        mine = own[group]
        rows.append(
            {"what": name, "groups": int(own.sum()), "persons": len(np.unique(at_risk.person[mine])),
             "spells": int(mine.sum())}
        )  # fmt: skip
    return Table("did_exposed", "did_exposed", columns, tuple(rows))


def _few_groups(at_risk: AtRisk) -> Iterator[Finding]:
    """That people count as independent although few groups adopt."""
    groups = len(at_risk.group_ids)
    if groups < ENOUGH_CLUSTERS and len(at_risk.cluster_ids) > groups:
        yield Finding(
            "did_hazards_few_groups", "", "warn", float(groups), float(ENOUGH_CLUSTERS),
            {"groups": str(groups), "minimum": str(ENOUGH_CLUSTERS)},
        )  # fmt: skip


def _left_out(found: HazardEffects) -> Iterator[Finding]:
    """Exposed spells without a counterfactual."""
    lost = found.n.get("not_estimable", 0)
    if lost:
        codes = sorted({m.code for m in found.missing})
        params = {"persons": lost, "why": f"did.{codes[0]}" if codes else ""}
        yield Finding("did_hazards_left_out", "", "warn", float(lost), None, params)


def _subgroups(
    sample: Sample, settings: Settings, id: str, outcomes: list[Outcome]
) -> tuple[tuple[EffectProfile, ...], tuple[Exhibit, ...]]:
    """The same for the people of each level."""

    def of_level(name: str, among: NDArray[np.bool_]) -> list[EffectProfile]:
        spells = group_spells(sample, settings.unit, among, covariates=settings.covariates)
        at_risk, profiles = _at_risk(sample, settings, spells), []
        for outcome in outcomes:
            destination = outcome.source.removeprefix("exit:")
            found = _effects(sample, settings, at_risk, spells.cut, destination)
            profiles.append(_profile(sample, settings, id, outcome, found, found.effects[destination], name))
        return profiles

    return by_level(sample, of_level)
