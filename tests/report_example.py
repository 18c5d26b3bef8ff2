"""Results documents as a run writes them, made by hand: what the report is tested on."""

from __future__ import annotations

import copy
import math
from typing import Any

MONTHS = range(1, 37)
COVARIATES = ("age", "sex", "education")

STUDY_TEXT = """schema = 1
seed = 20260101
languages = ["nl", "en"]
title = { nl = "Wat doet scholing?", en = "What does training do?" }
"""

LABELS = {
    "nl": {
        "training": "Scholing",
        "left_to_work": "Uit de uitkering naar werk",
        "on_benefit": "Heeft een uitkering",
        "earnings": "Inkomen uit werk per jaar",
        "age": "Leeftijd",
        "sex": "Geslacht",
        "sex:man": "Mannen",
        "sex:vrouw": "Vrouwen",
        "education": "Opleiding",
        "education:laag": "laag",
        "education:midden": "midden",
        "education:hoog": "hoog",
    },
    "en": {
        "training": "Training",
        "left_to_work": "Left benefit for work",
        "on_benefit": "On benefit",
        "earnings": "Earnings per year",
        "sex:man": "Men",
        "sex:vrouw": "Women",
        "education:laag": "low",
        "education:midden": "middle",
        "education:hoog": "high",
    },
}


def _path(depth: float, gain: float, k: int) -> float:
    """A dip of ``depth`` around month 5 and a gain of ``gain`` in the long run."""
    return gain * (1 - math.exp(-((k / 20) ** 2))) - depth * (k / 5) * math.exp(1 - k / 5)


def profile(
    outcome: str, *, subgroup: str = "", depth: float = 0.036, gain: float = 0.072, error: float = 0.011, n: int = 2140
) -> dict[str, Any]:
    """A profile of 36 months, as the results document holds it."""
    sign = -1.0 if outcome == "on_benefit" else 1.0
    months, running, cumulated = [], 0.0, []
    for k in MONTHS:
        effect, se = sign * _path(depth, gain, k), error * (0.35 + 0.65 * min(1.0, k / 18))
        without = 0.55 * (1 - math.exp(-k / 26)) if outcome == "left_to_work" else 0.2 + 0.8 * math.exp(-k / 24)
        months.append(_month(k, effect, se, without, n))
        running += effect
        spread = 2.7 * error * k * 0.8
        cumulated.append({"month": k, "estimate": running, "band_low": running - spread, "band_high": running + spread})
    good = [sign * row["estimate"] for row in months]
    dip = next((i for i, value in enumerate(good) if value >= 0), 36)
    volume = sign * sum(good[:dip])
    first = next((c["month"] for c in cumulated if c["month"] > dip and sign * c["estimate"] >= 0), None)
    kind = {"left_to_work": "event", "on_benefit": "state"}[outcome]
    return {
        "id": "/".join(part for part in ("main", outcome, subgroup) if part),
        "estimand": {
            "population": "starters",
            "strategy": "training",
            "versus": "wait",
            "clock": "start",
            "outcome": outcome,
            "kind": kind,
            "unit": "fraction",
            "identification": "conditional_independence",
            "restriction": "caliper",
        },
        "labels": {
            "analysis": "main",
            "method": "matching",
            "instrument": "training",
            "comparison": "wait",
            "outcome": outcome,
            "subgroup": subgroup,
            "better": "lower" if sign < 0 else "higher",
            "primary": "true" if outcome == "left_to_work" else "false",
        },
        "se_kind": "influence function, clustered on person",
        "composition": "fixed",
        "level": 0.95,
        "months": months,
        "vcov": None,
        "lock_in": {"exists": True, "established": depth > 0.03},
        "cumulated": cumulated,
        "summary": [
            _measure("lock_in_depth", min(good) * sign, -0.049 * sign, -0.011 * sign),
            _measure("lock_in_months", dip, 8, 17),
            _measure("lock_in_volume", volume, -0.52 * sign, -0.09 * sign),
            _measure("crossing_month", dip + 1, 9, 18),
            _measure("break_even_month", first, 17, None, "reached" if first else "not_reached"),
            _measure("cumulated_12", cumulated[11]["estimate"], -0.6 * sign, 0.05 * sign, error=0.15),
            _measure("cumulated_24", cumulated[23]["estimate"], -0.4 * sign, 0.7 * sign, error=0.25),
            _measure("cumulated_36", cumulated[35]["estimate"], 0.1 * sign, 1.6 * sign, error=0.36),
            _measure("long_run", sign * sum(good[24:]) / 12, 0.03 * sign, 0.09 * sign, error=0.014),
        ],
    }


def _month(k: int, effect: float, se: float, without: float, n: int, critical: float = 2.72) -> dict[str, Any]:
    return {
        "month": k,
        "estimate": effect,
        "std_error": se,
        "ci_low": effect - 1.96 * se,
        "ci_high": effect + 1.96 * se,
        "band_low": effect - critical * se,
        "band_high": effect + critical * se,
        "counterfactual": without,
        "n_treated": n,
        "n_comparison": int(0.86 * n),
        "status": "ok",
    }


def _measure(
    name: str,
    estimate: float | None,
    low: float,
    high: float | None,
    status: str = "reached",
    error: float | None = None,
) -> dict[str, Any]:
    low, high = (low, high) if high is None or low <= high else (high, low)
    return {
        "measure": name,
        "estimate": estimate,
        "std_error": error,
        "set_low": low,
        "set_high": high,
        "status": status,
    }


def difference(outcome: str) -> dict[str, Any]:
    """The contrast between men and women."""
    found = profile(outcome, depth=-0.004, gain=0.012, error=0.019, n=980)
    found["id"] = f"main/contrast/{outcome}/sex=man - sex=vrouw"
    found["labels"] |= {"kind": "contrast", "variant": "contrast", "subgroup": "sex=man - sex=vrouw"}
    found["lock_in"], found["cumulated"], found["summary"] = {"exists": False, "established": False}, [], []
    for row in found["months"]:
        row["counterfactual"] = None
    return found


def _flow() -> list[dict[str, Any]]:
    treated = [
        ("start", "all_starts", 3412, 3655),
        ("out", "no_benefit_at_start", 214, 221),
        ("out", "stock", 388, 402),
        ("out", "age", 31, 31),
        ("out", "elapsed", 265, 270),
        ("out", "other_instrument", 122, 125),
        ("out", "follow_up", 402, 410),
        ("out", "missing_covariate", None, None),
        ("out", "outside_support", 48, 48),
        ("left", "left", 2140, 2140),
    ]
    comparison = [
        ("start", "all_candidate_months", 18250, 214611),
        ("out", "stock", 2210, 30112),
        ("out", "age", 340, 4020),
        ("out", "elapsed", 1180, 60244),
        ("out", "follow_up", 3020, 41200),
        ("out", "no_starter_same_month", 120, 1220),
        ("out", "unmatched_not_used", 9480, 75705),
        ("left", "left", 1840, 2110),
    ]
    return [
        {"step": step, "arm": arm, "kind": kind, "reason": reason, "persons": persons, "entries": entries}
        for arm, rows in (("treated", treated), ("comparison", comparison))
        for step, (kind, reason, persons, entries) in enumerate(rows)
    ]


def _column(key: str, role: str = "stat", decimals: int = 2) -> dict[str, Any]:
    return {"key": key, "label": key, "role": role, "support": "", "parent": "", "decimals": decimals}


def table(identity: str, columns: list[dict[str, Any]], rows: list[tuple[Any, ...]], **more: Any) -> dict[str, Any]:
    """A table exhibit of the analysis ``main``."""
    keys = [column["key"] for column in columns]
    return {
        "analysis": "main",
        "type": "table",
        "id": identity,
        "title": identity,
        "columns": columns,
        "rows": [dict(zip(keys, row, strict=True)) for row in rows],
        "hidden": [],
    } | more


def chart(identity: str, mark: str, x: list[Any], x_label: str, unit: str, **series: list[Any]) -> dict[str, Any]:
    """A chart exhibit of the analysis ``main``."""
    return {
        "analysis": "main",
        "type": "chart",
        "id": identity,
        "title": identity,
        "mark": mark,
        "x": x,
        "x_label": x_label,
        "unit": unit,
        "series": [{"key": key, "y": y, "low": [], "high": [], "support": []} for key, y in series.items()],
    }


BALANCE = [
    ("age", "", 38.2, 42.9, 38.4, -0.41, -0.02, 0.84, 0.98),
    ("sex", "man", 0.52, 0.47, 0.53, 0.10, -0.01, 1.00, 1.00),
    ("sex", "vrouw", 0.48, 0.53, 0.47, -0.10, 0.01, 1.00, 1.00),
    ("education", "laag", 0.41, 0.55, 0.43, -0.28, -0.04, 0.98, 0.99),
    ("education", "midden", 0.44, 0.32, 0.42, 0.25, 0.05, 1.13, 1.01),
    ("education", "hoog", 0.15, 0.13, 0.15, 0.06, 0.00, 1.13, 1.00),
]


def _balance() -> dict[str, Any]:
    columns = [_column("variable", "text"), _column("level", "text"), _column("measure", "key")]
    columns += [_column(key, "share") for key in ("mean_treated", "mean_before", "mean_after")]
    columns += [_column(key) for key in ("smd_before", "smd_after", "vr_before", "vr_after")]
    columns += [_column("n_treated", "count", 0), _column("n_comparison", "count", 0)]
    rows = [(*row[:2], "share" if row[1] else "mean", *row[2:], 2140, 1840) for row in BALANCE]
    return table("balance", columns, rows)


SCORES = {"treated": (-3.1, 0.62), "comparison": (-3.9, 0.75), "matched": (-3.14, 0.63)}


def _density(middle: float, width: float, grid: list[float]) -> list[float]:
    return [0.06 * math.exp(-(((x - middle) / width) ** 2) / 2) / width / math.sqrt(2 * math.pi) for x in grid]


def _exhibits() -> list[dict[str, Any]]:
    grid = [-6 + 0.06 * i for i in range(90)]
    names = [f"{name}:{level}" if level else name for name, level, *_ in BALANCE]
    risk = [(t, max(8, 240 - 10 * t), 16000 - 520 * t, max(7, 232 - 10 * t), 8 if t > 19 else 2) for t in range(24)]
    later = [0.34 * (1 - math.exp(-k / 14)) for k in MONTHS]
    coefficients = [("age", -0.021, 0.002), ("sex:vrouw", -0.14, 0.04), ("education:midden", 0.38, 0.05)]
    sets = [_column(key, "count", 0) for key in ("elapsed", "n_treated", "n_at_risk", "matched", "outside")]
    shares = {key: _density(*shape, grid) for key, shape in SCORES.items()}
    columns = [_column("what", "key"), _column("value", "count", 0)]
    counts = [("what.starters", 2188), ("what.starters_matched", 2140)]
    return [
        _balance(),
        chart("love", "interval", names, "", "", before=[r[5] for r in BALANCE], after=[r[6] for r in BALANCE]),
        chart("overlap", "area", grid, "score", "share", **shares),
        table("matching", columns, counts),
        table("risk_sets", sets, risk, hidden=[[23, "outside", "suppressed"]]),
        chart("later_start", "line", list(MONTHS), "month", "share", comparison=later),
        table("model", [_column("variable", "text"), _column("coefficient"), _column("std_error")], coefficients),
        _note("estimand_wait", {}),
        _note("matching_method", {"ratio": 1, "caliper": 0.2, "exact": ["elapsed", "quarter"]}),
        _note("bias_corrected", {"covariates": 3}),
        _note("event_outcome_cumulated", {}),
        _note("disclosure_rounding", {"minimum": 10}),
    ]


def _note(key: str, params: dict[str, Any], severity: str = "info") -> dict[str, Any]:
    return {"analysis": "main", "type": "note", "key": key, "params": params, "severity": severity}


def finding(code: str, verdict: str, value: float | None, threshold: float | None, **params: Any) -> dict[str, Any]:
    """A finding of the analysis ``main``."""
    return {
        "analysis": "main",
        "code": code,
        "scope": "",
        "verdict": verdict,
        "value": value,
        "threshold": threshold,
        "params": params,
    }


def _protocol() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "seed": 20260101,
        "languages": ["nl", "en"],
        "title": {"nl": "Wat doet scholing?", "en": "What does training do?"},
        "data": {"folder": "data", "window": {"first": "2015-01-01", "last": "2023-12-31"}},
        "table": None,
        "time": {"clock": "start", "within_month": "dates", "horizon": 36, "follow_up": "complete"},
        "eligibility": {
            "age": [18, 64],
            "elapsed": [0, 23],
            "stock": "exclude",
            "other_instrument": "exclude",
            "earlier_spells": None,
        },
        "treatment": {"instrument": "training", "versus": "wait", "cluster": "person", "design": "observational"},
        "outcomes": [
            {"name": "left_to_work", "kind": "event", "source": "exit:work", "better": "higher", "primary": True},
            {"name": "on_benefit", "kind": "state", "source": "state:benefit", "better": "lower", "primary": False},
        ],
        "covariates": {"numeric": ["age"], "categorical": ["sex", "education"], "missing": "category"},
        "subgroups": [{"name": "sex", "planned": True, "cuts": []}],
        "analyses": [{"id": "main", "method": "matching", "settings": {"exact": ["elapsed", "quarter"]}}],
        "gate": {"smd_fail": 0.25, "smd_warn": 0.1, "support_min": 0.8, "show_anyway": ""},
        "costs": {},
        "disclosure": {"profile": "municipal", "minimum": 10},
        "labels": copy.deepcopy(LABELS),
    }


def example_document() -> dict[str, Any]:
    """A register study with 36 months, two outcomes and a subgroup; everything passes."""
    men = {"subgroup": "sex=man", "depth": 0.041, "gain": 0.079, "error": 0.015, "n": 1112}
    women = {"subgroup": "sex=vrouw", "depth": 0.031, "gain": 0.064, "error": 0.016, "n": 1028}
    profiles = []
    for outcome in ("left_to_work", "on_benefit"):
        profiles += [profile(outcome), profile(outcome, **men), profile(outcome, **women), difference(outcome)]
    return {
        "schema": 1,
        "evalkit": "0.1.0",
        "created": "2026-01-01T00:00:00Z",
        "seed": 20260101,
        "study": {"text": STUDY_TEXT, "sha256": "3f" * 32, "name": "study.toml", "protocol": _protocol()},
        "inputs": [
            {"name": "personen.csv", "sha256": "ab" * 32, "rows": 20000},
            {"name": "uitkering.csv", "sha256": "cd" * 32, "rows": 31207},
            {"name": "trajecten.csv", "sha256": "ef" * 32, "rows": 5120},
        ],
        "environment": {
            "python": "3.11.9",
            "platform": "Linux x86_64",
            "packages": {"numpy": "2.4.6", "duckdb": "2.0.0"},
        },
        "flow": _flow(),
        "gates": [
            {"analysis": "main", "outcome": "left_to_work", "verdict": "pass", "shown_anyway": ""},
            {"analysis": "main", "outcome": "on_benefit", "verdict": "pass", "shown_anyway": ""},
        ],
        "profiles": profiles,
        "exhibits": _exhibits(),
        "findings": [
            finding("balance", "pass", 0.05, 0.25, variable="education", level="midden", smd=0.05),
            finding("support", "pass", 0.978, 0.8, share=0.978, matched=2140, starters=2188),
            finding("later_start", "info", 0.31, None, share=0.31, horizon=36),
        ],
        "checks": [
            {
                "code": "instrument_without_benefit",
                "severity": "warn",
                "table": "episodes",
                "count": 221,
                "share": 0.043,
                "params": {},
            },
            {
                "code": "spell_outside_window",
                "severity": "info",
                "table": "benefits",
                "count": None,
                "share": None,
                "params": {},
            },
        ],
        "disclosure": {"profile": "municipal", "minimum": 10, "hidden": 3, "ledger": ["flow treated 7 persons"]},
        "first_run": None,
    }


def _blank(row: dict[str, Any], status: str) -> None:
    counts = ("n_treated", "n_comparison") if status == "suppressed" else ()
    for key in row:
        if key not in ("month", "n_treated", "n_comparison", "status") or key in counts:
            row[key] = None
    row["status"] = status


def withheld_document() -> dict[str, Any]:
    """The gate failed on both outcomes: every estimate is withheld."""
    document = example_document()
    for found in document["profiles"]:
        for row in found["months"]:
            _blank(row, "withheld")
        found["cumulated"], found["lock_in"] = [], {"exists": False, "established": False}
        for measure in found["summary"]:
            measure.update(estimate=None, std_error=None, set_low=None, set_high=None, status="withheld")
    for gate in document["gates"]:
        gate["verdict"] = "fail"
    document["findings"] = [
        finding("balance", "fail", 0.31, 0.25, variable="education", level="laag", smd=0.31),
        finding("support", "fail", 0.71, 0.8, share=0.71, matched=1553, starters=2188),
        finding("few_clusters", "warn", 12, 30, clusters=12, minimum=30),
    ]
    return document


def shown_anyway_document() -> dict[str, Any]:
    """The gate failed, and the study file gives a reason to show the estimates all the same."""
    document = example_document()
    reason = "De gemeenteraad wil de cijfers zien; zie de toelichting."
    for gate in document["gates"]:
        gate.update(verdict="fail", shown_anyway=reason)
    document["findings"] = [
        finding("balance", "fail", 0.31, 0.25, variable="education", level="laag", smd=0.31),
        finding("shown_anyway", "warn", None, None, reason=reason),
    ]
    return document


def suppressed_document() -> dict[str, Any]:
    """Small numbers: the last months, one subgroup and many counts are suppressed; the gate warns."""
    document = example_document()
    for found in document["profiles"]:
        few = found["labels"]["subgroup"] == "sex=man"
        for row in found["months"]:
            if few or row["month"] > 30:
                _blank(row, "suppressed")
            else:
                row["n_treated"], row["n_comparison"] = 64, 52
    for step in document["flow"][1:-1]:
        step["persons"] = step["entries"] = None
    for gate in document["gates"]:
        gate["verdict"] = "warn"
    document["findings"] = [finding("balance", "warn", 0.14, 0.25, variable="age", level="", smd=0.14)]
    return document


def experiment_document() -> dict[str, Any]:
    """An analysis-ready table with one measured period, by lot and matched."""
    document = example_document()
    protocol = document["study"]["protocol"]
    protocol.update(
        data=None,
        table={
            "file": "nsw.csv",
            "unit": "id",
            "treatment": "treat",
            "outcomes": {"earnings": ["re78"]},
            "period_months": 12,
        },
        outcomes=[
            {"name": "earnings", "kind": "flow", "source": "", "better": "higher", "primary": True, "unit": "dollar"}
        ],
        subgroups=[],
        analyses=[
            {"id": "experiment", "method": "experiment", "settings": {}},
            {"id": "matched", "method": "matching", "settings": {"replace": True}},
        ],
    )
    protocol["treatment"]["design"] = "randomised"
    protocol["time"]["horizon"] = 1
    document["profiles"] = [
        _period("experiment", "difference_in_means", "experiment", "randomisation", 1794.3, 670.9),
        _period("experiment", "regression_adjusted", "experiment", "randomisation", 1676.3, 677.6),
        _period("matched", "", "matching", "conditional_independence", 1540.0, 910.0),
    ]
    document["flow"] = [
        {"step": 0, "arm": arm, "kind": "start", "reason": "randomised_all", "persons": count, "entries": count}
        for arm, count in (("treated", 185), ("comparison", 260))
    ] + [
        {"step": 1, "arm": arm, "kind": "left", "reason": "left", "persons": count, "entries": count}
        for arm, count in (("treated", 185), ("comparison", 260))
    ]
    document["gates"] = [
        {"analysis": name, "outcome": "earnings", "verdict": verdict, "shown_anyway": ""}
        for name, verdict in (("experiment", "pass"), ("matched", "warn"))
    ]
    document["exhibits"] = [_balance() | {"analysis": "experiment"}, _note("experiment_method", {})]
    document["findings"] = [
        finding("balance", "pass", 0.05, 0.25, variable="age", level="", smd=0.05) | {"analysis": "experiment"}
    ]
    document["inputs"] = document["inputs"][:1]
    document["checks"] = []
    return document


def _period(analysis: str, variant: str, method: str, identification: str, effect: float, se: float) -> dict[str, Any]:
    found = profile("left_to_work")
    found["id"] = "/".join(part for part in (analysis, variant, "earnings") if part)
    found["estimand"] |= {"outcome": "earnings", "kind": "flow", "unit": "dollar", "identification": identification}
    found["labels"] |= {"analysis": analysis, "method": method, "outcome": "earnings", "variant": variant}
    found["se_kind"] = (
        "HC2, clustered on person" if method == "experiment" else "influence function, clustered on person"
    )
    found["months"] = [_month(1, effect, se, 4554.8, 185, critical=1.96)]
    found["lock_in"], found["cumulated"] = {"exists": False, "established": False}, []
    found["summary"] = [_measure("long_run", None, 0.0, None, "not_defined")]
    return found
