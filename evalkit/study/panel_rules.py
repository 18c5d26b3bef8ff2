"""The rules about panels: a ready file, days of adoption, and what a study that works on panels can do without."""

from __future__ import annotations

from collections.abc import Iterator

from evalkit.study.lines import KeyPath
from evalkit.study.model import (
    PANEL_METHODS,
    AdoptedFrom,
    AnalysisSpec,
    Columns,
    Outcome,
    PanelSpec,
    Subgroup,
    Treatment,
)
from evalkit.study.outcome_source import read_source
from evalkit.study.parts import Parts
from evalkit.study.translate import Issue, not_allowed

_NOT_WITH_PANEL: tuple[KeyPath, ...] = (
    ("eligibility",), ("spells",), ("time", "clock"), ("time", "within_month"), ("instrument",),
    ("treatment", "others"), ("treatment", "cluster"), ("treatment", "unit"), ("treatment", "adopted"),
    ("treatment", "adopted_from"),
)  # fmt: skip
_NO_PANEL = ("durable", "return")
"""Families of outcomes that look ahead of a single exit, which a panel by calendar period does not know."""


def ready_panel(parts: Parts) -> Iterator[Issue]:
    """A panel that is ready: its columns have one role each, and nothing stands beside it that would do nothing."""
    for path in _NOT_WITH_PANEL:
        if parts.raw(*path) is not None:
            yield Issue(path, "study.not_with_panel", {"key": ".".join(str(part) for part in path)})
    for path, analysis in parts.each(AnalysisSpec, "analysis"):
        if analysis.method not in PANEL_METHODS:
            params = {"id": analysis.id, "method": analysis.method, "allowed": ", ".join(PANEL_METHODS)}
            yield Issue((*path, "method"), "study.method_with_panel", params)
    panel = parts.get(PanelSpec, "panel")
    if panel is None:
        return
    if not panel.first_treated and not panel.treated:
        yield Issue(("panel", "first_treated"), "study.missing_key", {"key": "first_treated", "where": "[panel]"})
    if panel.first_treated and panel.treated:
        yield Issue(("panel", "treated"), "study.panel_two_treatments", {})
    elif panel.repeated and panel.treated:
        yield Issue(("panel", "treated"), "study.panel_repeated", {})
    for path, outcome in parts.each(Outcome, "outcome"):
        if outcome.name not in panel.outcomes:
            yield not_allowed((*path, "name"), outcome.name, list(panel.outcomes))
        if outcome.source:
            yield Issue((*path, "source"), "study.source_in_panel", {"source": outcome.source})
    yield from _roles(parts, panel)


def _roles(parts: Parts, panel: PanelSpec) -> Iterator[Issue]:
    """Unit, period and treatment are columns of their own; the cluster may be the unit."""
    own: dict[str, str] = {}
    for key in ("unit", "period", "first_treated", "treated"):
        column = getattr(panel, key)
        if column and column in own:
            yield Issue(("panel", key), "study.panel_column_role", {"column": column, "first": own[column]})
        own.setdefault(column, f"panel.{key}")
    used: list[tuple[KeyPath, str]] = [(("panel", "outcomes", name), column) for name, column in panel.outcomes.items()]
    used += [(("panel", key), getattr(panel, key)) for key in ("weight", "persons") if getattr(panel, key)]
    for key in ("numeric", "categorical"):
        names = parts.get(tuple[str, ...], "covariates", key) or ()
        used += [(("covariates", key, i), name) for i, name in enumerate(names)]
    if panel.cluster and panel.cluster != panel.unit:
        used.append((("panel", "cluster"), panel.cluster))
    used += [((*path, "name"), subgroup.name) for path, subgroup in parts.each(Subgroup, "subgroup")]
    for path, column in used:
        if column in own:
            yield Issue(path, "study.panel_column_role", {"column": column, "first": own[column]})


def on_panels(parts: Parts) -> Iterator[Issue]:
    """Adoption of the instrument, and what is left of the protocol where every analysis works on panels."""
    analyses = parts.each(AnalysisSpec, "analysis")
    chosen = [analysis for _, analysis in analyses if analysis.method in PANEL_METHODS]
    treatment = parts.get(Treatment, "treatment")
    if parts.raw("table") is not None:
        for path, analysis in analyses:
            if analysis.method in PANEL_METHODS:
                yield Issue((*path, "method"), "study.method_needs_panel", {"id": analysis.id})
        return
    if not analyses or treatment is None:
        return
    alone = len(chosen) == len(analyses) or parts.raw("panel") is not None
    if alone and treatment.versus != "no_adoption":
        yield Issue(("treatment", "versus"), "study.versus_of_panels", {"versus": treatment.versus})
    if not alone and treatment.versus == "no_adoption":
        yield Issue(("treatment", "versus"), "study.no_adoption_alone", {})
    if parts.raw("data") is None:
        return
    yield from _adoption(parts, treatment, bool(chosen))
    inflow = any(a.settings.get("inflow") or a.settings.get("estimator") == "hazards" for a in chosen)
    if alone and not inflow and parts.raw("eligibility"):
        yield Issue(("eligibility",), "study.eligibility_on_panels", {})
    if alone and treatment.others:
        yield Issue(("treatment", "others"), "study.others_on_panels", {})
    for path, outcome in parts.each(Outcome, "outcome") if alone and not inflow else ():
        source = read_source(outcome.source)
        if source and (source.family in _NO_PANEL or source.register):
            yield Issue((*path, "source"), "study.source_without_panel", {"source": outcome.source})


def _adoption(parts: Parts, treatment: Treatment, used: bool) -> Iterator[Issue]:
    """The unit is a column of persons; days of adoption stand in one place, and are asked for."""
    columns = parts.get(Columns, "data", "persons", "columns")
    if columns is not None and treatment.unit not in ("person", *columns):
        yield not_allowed(("treatment", "unit"), treatment.unit, ["person", *(c for c in columns if c != "person")])
    given = [key for key in ("unit", "adopted", "adopted_from") if parts.raw("treatment", key) is not None]
    if not used:
        yield from (Issue(("treatment", key), "study.adoption_unused", {"key": key}) for key in given)
    if treatment.adopted is not None and treatment.adopted_from is not None:
        yield Issue(("treatment", "adopted_from"), "study.adopted_twice", {})
    if treatment.adopted is not None and treatment.unit == "person":
        yield Issue(("treatment", "adopted"), "study.adopted_persons", {})
    source = parts.get(AdoptedFrom, "treatment", "adopted_from")
    if source and source.unit == source.day:
        params = {"column": source.day, "first": "treatment.adopted_from.unit"}
        yield Issue(("treatment", "adopted_from", "day"), "study.panel_column_role", params)
