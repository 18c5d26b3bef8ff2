"""Answer and design as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalkit.report import findings
from evalkit.report.view import View, inner

MONTHS = (12, 24, 36, 48)


def answer_text(document: Mapping[str, Any], lang: str) -> str:
    """The primary effects at full years, and the verdict of the gate."""
    view = View(document, lang)
    lines = []
    for profile in document["profiles"]:
        labels = profile["labels"]
        if labels["primary"] == "true" and not labels["subgroup"]:
            lines += [f"[{labels['analysis']}] {line}" for line in _effects(view, profile)]
    return "\n".join([*lines, *_gates(view, "gate")])


def _effects(view: View, profile: Mapping[str, Any]) -> list[str]:
    labels, unit = profile["labels"], profile["estimand"]["unit"]
    outcome = f"“{view.word(labels['outcome'])}”"
    if labels.get("variant"):
        outcome += f" ({view.variant(labels['variant'])})"
    last = profile["months"][-1]["month"]
    chosen = [row for row in profile["months"] if row["month"] in {m for m in MONTHS if m < last} | {last}]
    out = []
    for row in chosen:
        if row["estimate"] is None:
            status = view.say(f"report.status.{row['status']}")
            return [view.say("cli.plain.effect_hidden", outcome=outcome, status=status)]
        params = {
            "outcome": outcome,
            "month": row["month"],
            "estimate": row["estimate"],
            "low": row["ci_low"],
            "high": row["ci_high"],
        }
        if unit != "fraction":
            out.append(view.say("cli.plain.effect_number", unit=view.unit(unit), **params))
        elif row["counterfactual"] is None:
            out.append(view.say("cli.plain.effect_short", **params))
        else:
            params |= {
                "strategy": inner(view.word(profile["estimand"]["strategy"])),
                "counterfactual": row["counterfactual"],
                "treated": row["estimate"] + row["counterfactual"],
            }
            out.append(view.say("cli.plain.effect", **params))
    return out


def _gates(view: View, key: str) -> list[str]:
    return [
        view.say(
            f"cli.plain.{key}",
            analysis=gate["analysis"],
            outcome=view.word(gate["outcome"]),
            verdict=view.say(f"cli.verdict.{gate['verdict']}"),
        )
        for gate in view.document["gates"]
    ]


def _checks(view: View) -> list[str]:
    """What the checks found with why and what to do: errors first, then by table."""
    groups = findings.by_severity(view)
    if not groups:
        return ["  " + view.say("cli.plain.none")]
    lines = ["  " + view.say("checks.found", numbers=findings.check_counts(view))]
    for severity, checks in groups.items():
        lines += ["", "  " + view.say(f"checks.heading.{severity}")]
        for table in dict.fromkeys(check["table"] for check in checks):
            lines.append(f"    {view.table_name(table)}")
            for check in (check for check in checks if check["table"] == table):
                say, why, fix = (findings.check_sentence(view, check, part) for part in ("say", "why", "fix"))
                remedy = f"{view.say('checks.fix')}: {fix}"
                lines += [f"    - {say} [{check['code']}]", f"        {why}", f"        {remedy}"]
    return lines


def design_text(document: Mapping[str, Any], lang: str) -> str:
    """Checks, flow, diagnostics and the verdict of the gate; no estimate."""
    view = View(document, lang)
    lines = [view.say("cli.plain.heading_checks"), *_checks(view)]
    lines += ["", view.say("cli.plain.heading_flow")]
    for row in document["flow"]:
        mark = {"start": "  ", "out": "    - ", "left": "  = "}[row["kind"]]
        words = {
            "arm": view.say(f"cli.arm.{row['arm']}"),
            "persons": view.count(row["persons"]),
            "entries": "–" if row["entries"] is None else view.count(row["entries"]),
            "reason": inner(view.reason(row["reason"])),
        }
        lines.append(mark + view.say("cli.plain.flow", **words))
    lines += ["", view.say("cli.plain.heading_findings")]
    found = [f"  {view.say('cli.verdict.' + f['verdict'])}: {findings.sentence(view, f)}" for f in document["findings"]]
    lines += dict.fromkeys(found)
    lines += ["", view.say("cli.plain.heading_gate"), *("  " + line for line in _gates(view, "gate_line"))]
    return "\n".join(lines)
