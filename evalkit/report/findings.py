"""What the checks and gates found, as sentences with what to do next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.report.blocks import Callout
from evalkit.report.view import Profile, View, inner, is_randomised, status


def sentence(view: View, finding: Mapping[str, Any]) -> str:
    """A finding in words; a code without a sentence stands as it is."""
    key = _variant(view, finding, "finding")
    if not view.known(key):
        return str(finding["code"])
    return view.say(key, **_params(view, finding))


def advice(view: View, finding: Mapping[str, Any]) -> str:
    """What to do about a finding, empty where the catalogue has nothing."""
    key = _variant(view, finding, "advice")
    return view.say(key, **_params(view, finding)) if view.known(key) else ""


def _variant(view: View, finding: Mapping[str, Any], section: str) -> str:
    """The key of a sentence on a finding; one of its own where the analysis rests on a draw by lot."""
    key = f"{section}.{finding['code']}"
    lot = any(is_randomised(p) for p in view.profiles if p["labels"]["analysis"] == finding["analysis"])
    return f"{key}_randomised" if lot and view.known(f"{key}_randomised") else key


def by_severity(view: View) -> dict[str, list[Mapping[str, Any]]]:
    """The checks by severity, errors first, and within a severity in the order of the tables."""
    tables = ("table", "persons", "benefits", "episodes", "jobs", "changes", "areas", "sample")
    place = {name: i for i, name in enumerate(tables)}
    shape = {check["table"]: check["table"].partition(".")[0] for check in view.document.get("checks") or ()}
    found = sorted(view.document.get("checks") or (), key=lambda check: place.get(shape[check["table"]], len(tables)))
    groups = {severity: [c for c in found if c["severity"] == severity] for severity in ("error", "warn", "info")}
    return {severity: checks for severity, checks in groups.items() if checks}


def check_counts(view: View) -> str:
    """How many errors, warnings and notes there are, in words."""
    groups = by_severity(view)
    numbers = {severity: len(groups.get(severity, ())) for severity in ("error", "warn", "info")}
    words = [view.say(f"checks.number.{name}{'' if n == 1 else 's'}", n=n) for name, n in numbers.items() if n]
    return view.listing(words)


def check_sentence(view: View, check: Mapping[str, Any], part: str) -> str:
    """A check's sentence; the code stands in where the catalogue or a parameter is missing.

    A hidden share is left out; one that rounds to nothing is less than one percent.
    """
    key = f"check.{check['code']}.{part}"
    params = {"count": check["count"], "share": _share(view, check), "table": check["table"]} | dict(check["params"])
    params["table"] = inner(view.table_name(params["table"]))
    if params["count"] is None:
        params["count"] = view.count(None)
    if "codes" in params and "column" in params:
        codes = str(params["codes"]).split(", ")
        params["codes"] = ", ".join(_labelled(view, str(params["column"]), code) for code in codes)
    if "month" in params:
        year, month = str(params["month"]).split("-")
        params["month"] = f"{view.say(f'checks.month.m{month}')} {year}"
    if view.known(key):
        try:
            sentence = re.sub(r" \(–[^)]*\)", "", view.say(key, **params))
            return sentence + (_by_arm(view, check) if part == "say" else "")
        except KeyError:
            pass
    return str(check["code"]).replace("_", " ") if part == "say" else "–"


def _labelled(view: View, column: str, code: str) -> str:
    """A code with its label in front, when it has one: the reader knows the label, the study file the code."""
    label = view.labels.get(f"{column}:{code}") or view.labels.get(code)
    return f"{label} ({code})" if label and label != code else code


def _share(view: View, cell: Mapping[str, Any]) -> Any:
    """A share as the catalogue takes it; in words where it is more than nothing and rounds to nothing."""
    return f"<{view.percent(0.01)}" if cell["count"] and cell["share"] == 0 else cell["share"]


def _by_arm(view: View, check: Mapping[str, Any]) -> str:
    """Counts and shares of starters and others, where both may be shown."""
    arms = check.get("arms") or {}
    if not arms or any(arm["share"] is None for arm in arms.values()):
        return ""
    shares = {name: _share(view, arm) for name, arm in arms.items()}
    counts = {f"{name}_count": arm["count"] for name, arm in arms.items()}
    return " " + view.say("checks.by_arm", **shares, **counts)


def of_analysis(view: View, analysis: str) -> list[Mapping[str, Any]]:
    """The findings of one analysis, the worst first; without facts whose only number is suppressed."""
    order = {"fail": 0, "warn": 1, "info": 2, "pass": 3}
    found = [f for f in view.document.get("findings") or () if f["analysis"] in (analysis, "")]
    found = [f for f in found if f["verdict"] != "info" or f["params"].get("share", 0) is not None]
    return sorted(found, key=lambda finding: order.get(finding["verdict"], 4))


def explained(view: View, profile: Profile, verdicts: Sequence[str], remedies: bool = True) -> tuple[str, ...]:
    """The findings on a profile with these verdicts, each with its remedy when ``remedies`` asks for it.

    The reason for showing a failed estimate is left out: it stands beside the verdict.
    """
    labels = profile["labels"]
    found = [
        f
        for f in of_analysis(view, labels["analysis"])
        if f["scope"] in ("", labels["outcome"]) and f["verdict"] in verdicts and f["code"] != "shown_anyway"
    ]
    if not remedies:  # the largest difference is not named twice
        named = {f["params"].get("variable") for f in found if f["code"] == "balance_significant"}
        found = [f for f in found if f["code"] != "balance" or f["params"].get("variable") not in named]
    lines = [f"{sentence(view, f)} {advice(view, f) if remedies else ''}".strip() for f in found]
    return tuple(dict.fromkeys(lines))


def not_shown(view: View, profile: Profile, brief: bool = False) -> Callout:
    """Why an estimate is not shown and what to do next; ``brief`` refers to where the reasons stand."""
    kind = status(profile)
    if kind == "withheld" and view.gate(profile)["verdict"] != "fail":  # a run that looks at the design only
        return Callout(view.say("report.answer.blind.title"), view.say("report.answer.blind.text"), "plain")
    if kind == "withheld" and brief:
        return Callout(view.say("report.answer.withheld.title"), view.say("report.answer.withheld.brief"), "fail")
    items = explained(view, profile, ("fail",)) if kind == "withheld" else ()
    instrument = inner(view.word(profile["labels"]["instrument"]))
    text = view.say(f"report.answer.{kind}.text", instrument=instrument, minimum=view.minimum)
    return Callout(view.say(f"report.answer.{kind}.title"), text, "fail" if kind == "withheld" else "warn", items)


def _params(view: View, finding: Mapping[str, Any]) -> dict[str, Any]:
    params = {"value": finding.get("value"), "threshold": finding.get("threshold")} | dict(finding.get("params") or {})
    gate = view.protocol.get("gate") or {}
    params |= {"attention": gate.get("smd_warn", 0.1)}
    params = view.params(params)
    if "level" in params and "variable" in params:
        params["variable"] = f"{params['variable']}: {params['level']}" if params["level"] else params["variable"]
    return params
