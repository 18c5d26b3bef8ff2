"""The account behind the answer: verdicts, method, data checks, how to repeat it, disclosure, words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evalkit.report import people
from evalkit.report.blocks import Block, Callout, Code, Fold, Grid, Heading, Items, Section, Text, Tone, words
from evalkit.report.changes import changes
from evalkit.report.findings import advice, by_severity, check_counts, check_sentence, of_analysis, sentence
from evalkit.report.view import FEW_MONTHS, Profile, View, capital, inner

TONES: Mapping[str, Tone] = {"pass": "good", "warn": "warn", "fail": "fail"}

ESTIMAND = ("population", "strategy", "versus", "clock", "outcome", "unit", "identification", "restriction", "se_kind")

REGISTER_SETTINGS = ("time.clock", "time.within_month", "eligibility.")
"""Beginnings of settings that an analysis-ready table does not use."""

INSTRUMENT_KEYS = {
    "": ("family", "kind", "join_gap_days", "open_end_months"),
    "combine": ("family", "combine", "within_months"),
    "of": ("family", "of", "order"),
}
"""The settings of a type of episode, of a combination and of the n-th of a type."""

REGISTER_ASSUMPTIONS = {("conditional_independence", 4)}
"""Assumptions on people who are still to start: kind and number."""

GLOSSARY = ("point", "interval", "band", "lock_in", "break_even", "comparison", "smd", "support", "propensity")


def trust(view: View) -> Section:
    """The gate's verdicts, then every finding with what to do about it."""
    blocks: list[Block] = [Text(view.say("report.trust.reading"))]
    several = len({gate["analysis"] for gate in view.document.get("gates") or ()}) > 1
    for gate in view.document.get("gates") or ():
        name = view.analysis(gate["analysis"])
        outcome = view.word(gate["outcome"]) if gate["outcome"] not in ("", "*") else view.say("report.trust.all")
        kind = "shown" if gate["verdict"] == "fail" and gate["shown_anyway"] else gate["verdict"]
        key = "report.trust.title_analysis" if several else "report.trust.title"
        words = {"analysis": name, "outcome": outcome, "verdict": view.say(f"report.verdict.{gate['verdict']}")}
        title = view.say(key, **words)
        text = view.say(f"report.trust.{kind}", reason=gate["shown_anyway"])
        blocks.append(Callout(title, text, TONES.get(gate["verdict"], "plain")))
    analyses = list(dict.fromkeys(f["analysis"] for f in view.document.get("findings") or ()))
    rows = []
    for analysis in analyses:
        for finding in (f for f in of_analysis(view, analysis) if f["analysis"] == analysis):
            first = view.say(f"report.verdict.{finding['verdict']}")
            scope = [capital(view.analysis(analysis))] if len(analyses) > 1 else []
            remedy = advice(view, finding) if finding["verdict"] in ("warn", "fail") else ""
            found = sentence(view, finding)
            if finding["scope"] and len(view.profiles) > 1:
                found = f"{view.word(finding['scope'])}: {inner(found)}"
            rows.append((first, *scope, found, remedy or "–"))
    if rows:
        names = ["verdict", *(["analysis"] if len(analyses) > 1 else []), "finding", "advice"]
        head = tuple(view.say(f"report.findings.{name}") for name in names)
        blocks += [
            Heading(view.say("report.findings.title")),
            Grid(view.say("report.findings.caption"), head, tuple(rows), (False,) * len(head)),
        ]
    return Section("trust", view.say("report.section.trust"), tuple(blocks))


# -- method ---------------------------------------------------------------------------------------------------------


def method(view: View) -> Section:
    """How the answer was reached, in plain words, then for the referee."""
    blocks: list[Block] = []
    firsts: dict[str, Profile] = {}
    for profile in view.profiles:
        firsts.setdefault(profile["labels"]["method"], profile)
    for profile in firsts.values():
        blocks += _plain(view, profile)
    notes = [e for e in view.document.get("exhibits") or () if e["type"] == "note"]
    if notes:
        blocks.append(Heading(view.say("report.method_section.notes")))
        blocks.append(Items(tuple(dict.fromkeys(("", _note(view, note)) for note in notes))))
    blocks.append(Heading(view.say("report.method_section.assumptions")))
    blocks.append(_assumptions(view))
    blocks += _referee(view)
    return Section("method", view.say("report.section.method"), tuple(blocks))


def _plain(view: View, profile: Profile) -> list[Block]:
    name = profile["labels"]["method"]
    key = f"report.plain.{name}"
    covariates = view.protocol.get("covariates") or {}
    if "covariates_used" in profile["labels"]:
        used = profile["labels"]["covariates_used"]
        covariates = {"numeric": used.split(",") if used else []}
    if profile["estimand"]["identification"] == "parallel_hazards":
        key = "report.plain.did_hazards"
    if profile["estimand"]["identification"] == "timing_of_events":
        key = "report.plain.duration_mixture"
    names = [view.inside(c) for c in (*(covariates.get("numeric") or ()), *(covariates.get("categorical") or ()))]
    params = {
        "instrument": inner(view.word(profile["labels"]["instrument"])),
        "covariates": view.listing(names) or view.say("report.plain.no_covariates"),
    }
    heading = Heading(capital(view.term("report.method", name)))
    blocks: list[Block] = [heading, Text(view.say(key if view.known(key) else "report.plain.other", **params))]
    listed = {*(covariates.get("numeric") or ()), *(covariates.get("categorical") or ())}
    if changing := [view.inside(c) for c, _, _ in _changing(view) if c in listed]:
        blocks.append(Text(view.say("report.changing.plain", covariates=view.listing(changing))))
    return blocks


def _changing(view: View) -> list[tuple[str, str, str]]:
    """Covariates that change over time: name, key of the study file, and what counts as known."""
    data = view.protocol.get("data") or {}
    found = []
    for name, spec in (data.get("changes") or {}).items():
        kind = "registered" if "registered" in spec["columns"] else "start"
        found.append((name, f"data.changes.{name}", view.say(f"report.changing.{kind}")))
    for name, spec in (data.get("areas") or {}).items():
        words = {"area": view.inside(spec["area"]), "delay": spec["delay_months"]}
        found.append((name, f"data.areas.{name}", view.say("report.changing.area", **words)))
    return found


def _note(view: View, note: Mapping[str, Any]) -> str:
    key = f"note.{note['key']}"
    if not view.known(key):
        return str(note["key"])
    return view.say(key, **view.params({"instrument": _instrument(view)} | dict(note.get("params") or {})))


def _instrument(view: View) -> str:
    return str((view.protocol.get("treatment") or {}).get("instrument") or "")


def _assumptions(view: View) -> Items:
    kinds = list(dict.fromkeys(p["estimand"]["identification"] for p in view.profiles))
    items = []
    for kind in kinds:
        for index in range(1, 5):
            key = f"report.assumption.{kind}.{index}"
            if view.known(key) and not (view.table and (kind, index) in REGISTER_ASSUMPTIONS):
                items.append(view.say(key, instrument=inner(view.word(_instrument(view)))))
    items.append(view.say("report.assumption.records"))
    return Items(tuple(("", item) for item in dict.fromkeys(items)))


def _referee(view: View) -> list[Block]:
    blocks: list[Block] = [Heading(view.say("report.referee.title"))]
    rows = [
        (view.say(f"report.referee.{name}"), *(_estimand(view, p)[name] for p in view.profiles))
        for name in ESTIMAND
        if not (view.table and name == "clock")
    ]
    head = (view.say("report.referee.what"), *(_column(view, profile) for profile in view.profiles))
    blocks.append(Grid(view.say("report.referee.caption"), head, tuple(rows), (False,) * len(head)))
    for kind, ending in dict.fromkeys((p["labels"]["method"], _ending(p)) for p in view.profiles):
        key = f"report.equation.{kind}{ending}"
        if view.known(key):
            term = view.say("report.equation.term", method=view.term("report.method", kind))
            blocks.append(Items(((term, view.say(key)),)))
    few = all(len(profile["months"]) < FEW_MONTHS for profile in view.profiles)
    blocks.append(Text(view.say("report.referee.interval" if few else "report.referee.bands")))
    blocks.append(_design(view))
    return blocks + people.appendix(view)


def _ending(profile: Profile) -> str:
    return "_hazards" if profile["estimand"]["identification"] == "parallel_hazards" else ""


def _column(view: View, profile: Profile) -> str:
    return f"{capital(view.analysis_name(profile))}: {inner(view.outcome_word(profile))}"


def _estimand(view: View, profile: Profile) -> dict[str, str]:
    e = profile["estimand"]
    return {
        "population": view.term("report.population", e["population"]),
        "strategy": view.word(e["strategy"]),
        "versus": capital(view.versus(profile)),
        "clock": view.term("report.clock", e["clock"]),
        "outcome": view.term(
            "report.kind", "panel" if e["kind"] == "flow" and "unit_of_panel" in profile["labels"] else e["kind"]
        ),
        "unit": view.unit(e["unit"]),
        "identification": view.term("report.identification", e["identification"]),
        "restriction": view.term("report.restriction", e["restriction"])
        if e["restriction"]
        else view.say("report.none"),
        "se_kind": view.se_kind(profile["se_kind"]),
    }


def _design(view: View) -> Grid:
    """The protocol's settings as they stand in the study file."""
    rows = []
    for part in ("time", "eligibility", "treatment", "covariates", "gate"):
        rows += [(f"{part}.{key}", _plain_value(value)) for key, value in (view.protocol.get(part) or {}).items()]
    for found in view.protocol.get("instruments") or ():
        shape = "combine" if found["combine"] else "of" if found["of"] else ""
        rows += [(f"instrument.{found['name']}.{key}", _plain_value(found[key])) for key in INSTRUMENT_KEYS[shape]]
    rows += [(key, known) for _, key, known in _changing(view)]
    for analysis in view.protocol.get("analyses") or ():
        settings = {"method": analysis["method"]} | dict(analysis.get("settings") or {})
        rows += [(f"analysis.{analysis['id']}.{key}", _plain_value(value)) for key, value in settings.items()]
    if view.table:
        rows = [row for row in rows if not row[0].startswith(REGISTER_SETTINGS)]
    head = (view.say("report.design.key"), view.say("report.design.value"))
    return Grid(view.say("report.design.caption"), head, tuple(rows), (False, False))


def _plain_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_plain_value(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(_plain_value(item) for item in value) or "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "–" if value in (None, "") else str(value)


# -- data, repetition, disclosure -----------------------------------------------------------------------------------


def checks(view: View) -> Section:
    """What the data checks found, with why it matters and what to do: errors first, notes folded."""
    groups = by_severity(view)
    if not groups:
        return Section("checks", view.say("report.section.checks"), (Text(view.say("report.checks.none")),))
    found = view.say("checks.found", numbers=check_counts(view))
    blocks: list[Block] = [Text(f"{found} {view.say('report.checks.reading')}")]
    head = tuple(view.say(f"report.checks.{name}") for name in ("table", "say", "why", "fix"))
    for severity, group in groups.items():
        title = view.say(f"checks.heading.{severity}")
        rows = []
        for check in group:
            say, why, fix = (check_sentence(view, check, part) for part in ("say", "why", "fix"))
            rows.append((view.table_name(check["table"]), f"{say} [{check['code']}]", why, fix))
        grid = Grid(title, head, tuple(rows), (False,) * len(head), quiet=True)
        blocks += [Fold(title, (grid,))] if severity == "info" else [Heading(title), grid]
    return Section("checks", view.say("report.section.checks"), tuple(blocks))


def reproduce(view: View) -> Section:
    """Versions, checksums and seed, and the study file itself."""
    document = view.document
    study, environment = document["study"], document["environment"]
    facts = [
        ("evalkit", document["evalkit"]),
        ("python", environment["python"]),
        ("platform", environment["platform"]),
        ("created", document["created"]),
        ("seed", str(document["seed"])),
        ("study", f"{study['name']} (sha256 {study['sha256']})"),
    ]
    head = (view.say("report.reproduce.what"), view.say("report.reproduce.value"))
    table = Grid(
        view.say("report.reproduce.caption"),
        head,
        tuple((view.say(f"report.reproduce.{key}"), value) for key, value in facts),
        (False, False),
    )
    inputs = Grid(
        view.say("report.reproduce.inputs"),
        tuple(view.say(f"report.reproduce.{key}") for key in ("file", "rows", "sha256")),
        tuple((item["name"], view.count(item["rows"]), item["sha256"]) for item in document["inputs"]),
        (False, True, False),
    )
    packages = Grid(
        view.say("report.reproduce.packages"),
        (view.say("report.reproduce.package"), view.say("report.reproduce.version")),
        tuple(sorted(environment["packages"].items())),
        (False, False),
    )
    blocks: list[Block] = [
        Text(view.say("report.reproduce.reading", seed=str(document["seed"]))),
        Code(f"evalkit run {study['name']}"),
        table,
        inputs,
        Fold(view.say("report.reproduce.packages"), (packages,)),
        Fold(view.say("report.reproduce.study_file", name=study["name"]), (Code(study["text"]),)),
        *changes(view),
    ]
    return Section("reproduce", view.say("report.section.reproduce"), tuple(blocks))


def disclosure(view: View) -> Section:
    """What was left out to protect people."""
    found = view.document["disclosure"]
    profile = found["profile"]
    key = "open" if profile == "open" else "closed"
    text = view.say(f"report.disclosure.{key}", profile=profile, minimum=found["minimum"], hidden=int(found["hidden"]))
    blocks: list[Block] = [Text(text), Text(view.say("report.disclosure.use"))]
    if found.get("ledger"):
        items = Items(tuple(("", str(line)) for line in found["ledger"]))
        blocks.append(Fold(view.say("report.disclosure.ledger"), (items,)))
    return Section("disclosure", view.say("report.section.disclosure"), tuple(blocks))


def glossary(view: View, sections: Iterable[Section]) -> Section | None:
    """The words a reader may not know, as far as the sections use them; None when they use none."""
    said = words(sections).lower()
    used = [k for k in GLOSSARY if any(word in said for word in view.say(f"report.glossary.{k}.words").split("|"))]
    items = tuple((view.say(f"report.glossary.{key}.term"), view.say(f"report.glossary.{key}.meaning")) for key in used)
    if not items:
        return None
    return Section("glossary", view.say("report.section.glossary"), (Items(items),))
