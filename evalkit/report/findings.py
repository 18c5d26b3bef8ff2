"""What the checks and gates found, as sentences with what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.report.blocks import Callout
from evalkit.report.view import Profile, View, inner, status


def sentence(view: View, finding: Mapping[str, Any]) -> str:
    """A finding in words; a code without a sentence stands as it is."""
    key = f"finding.{finding['code']}"
    if not view.known(key):
        return str(finding["code"])
    return view.say(key, **_params(view, finding))


def advice(view: View, finding: Mapping[str, Any]) -> str:
    """What to do about a finding, empty where the catalogue has nothing."""
    key = f"advice.{finding['code']}"
    return view.say(key, **_params(view, finding)) if view.known(key) else ""


def check_sentence(view: View, check: Mapping[str, Any], part: str) -> str:
    """A check's sentence; the code stands in where the catalogue or a parameter is missing."""
    key = f"check.{check['code']}.{part}"
    params = {"count": check["count"], "share": check["share"], "table": check["table"]} | dict(check["params"])
    params["table"] = inner(view.term("report.table", params["table"]))
    if view.known(key):
        try:
            return view.say(key, **params)
        except KeyError:
            pass
    return str(check["code"]).replace("_", " ") if part == "say" else "–"


def of_analysis(view: View, analysis: str) -> list[Mapping[str, Any]]:
    """The findings of one analysis, the worst first."""
    order = {"fail": 0, "warn": 1, "info": 2, "pass": 3}
    found = [f for f in view.document.get("findings") or () if f["analysis"] in (analysis, "")]
    return sorted(found, key=lambda finding: order.get(finding["verdict"], 4))


def explained(view: View, profile: Profile, verdicts: Sequence[str], remedies: bool = True) -> tuple[str, ...]:
    """The findings on a profile with these verdicts, each with its remedy when ``remedies`` asks for it.

    The reason for showing a failed estimate is left out: it stands beside the verdict.
    """
    lines = []
    labels = profile["labels"]
    for finding in of_analysis(view, labels["analysis"]):
        if finding["scope"] not in ("", labels["outcome"]):
            continue
        if finding["verdict"] in verdicts and finding["code"] != "shown_anyway":
            remedy = advice(view, finding) if remedies else ""
            lines.append(f"{sentence(view, finding)} {remedy}".strip())
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
    params = view.params(params)
    if "level" in params and "variable" in params:
        params["variable"] = f"{params['variable']}: {params['level']}" if params["level"] else params["variable"]
    return params
