"""Disclosure control of doubts: who fell out, simulated confounders, controls, heavy weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import results_example as example

from evalkit.analyses.common import balance_table
from evalkit.disclosure import protect
from evalkit.exhibits import Column, Finding, Note, Table
from evalkit.gate import balance_findings, support_finding

LIMITS = example.study_of("open").gate
HIDDEN = {"education:hoog", "education:overig"}
"""What the example's balance hides."""


def document(*exhibits: Any, findings: tuple[Finding, ...] = (), disclosure: str = "municipal") -> dict[str, Any]:
    made = replace(example.analysis(), exhibits=exhibits, findings=findings)
    return dict(example.assemble(disclosure, made).document)


def found(finding: Finding, disclosure: str = "municipal") -> dict[str, Any]:
    return dict(document(findings=(finding,), disclosure=disclosure)["findings"][0])


def ledger(made: dict[str, Any]) -> dict[str, int]:
    return {line.split(": ")[0]: int(line.split(": ")[1]) for line in made["disclosure"]["ledger"]}


def balance(treated: tuple[int, ...] = (40, 25, 12, 4)) -> Table:
    rows = example.balance_rows(treated)
    return balance_table(rows, example.TREATED, example.COMPARISON, example.COMPARISON)


def exhibit(made: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in made["exhibits"] if e.get("id") == name)


# -- whom the estimate leaves out ------------------------------------------------------------------------------------


def narrowed(share: float, starters: int | None) -> Note:
    known = {} if starters is None else {"starters": starters}
    return Note("estimand_narrowed", {"share": share, "variable": "age"} | known)


def test_the_share_that_fell_out_is_one_of_rounded_counts() -> None:
    made = document(narrowed(13 / 83, 83))
    assert made["exhibits"][0]["params"] == {"share": round(15 / 85, 3), "variable": "age", "starters": 85}
    assert "notes" not in ledger(made)


@pytest.mark.parametrize(("share", "starters"), [(4 / 83, 83), (79 / 83, 83), (1 / 12, 12), (0.2, None)])
def test_that_few_fell_out_is_not_said(share: float, starters: int | None) -> None:
    made = document(Note("estimand_wait"), narrowed(share, starters))
    assert [e["key"] for e in made["exhibits"]] == ["estimand_wait"]
    assert ledger(made)["notes"] == 1
    assert len(document(narrowed(share, starters), disclosure="open")["exhibits"]) == 1


def dropped(people: int) -> Table:
    """Means of people who fell out, of the covariates that the balance shows."""
    columns = (
        Column("variable", "variable", "text"),
        Column("level", "level", "text"),
        Column("measure", "measure", "key"),
        Column("mean_dropped", "mean_dropped", "share", support="n_dropped"),
        Column("smd_dropped", "smd_dropped"),
        Column("n_dropped", "n_dropped", "count"),
    )
    rows = [
        {"variable": r.variable, "level": r.level, "measure": "share" if r.level else "mean"}
        | {"mean_dropped": 0.5, "smd_dropped": 0.4, "n_dropped": people}
        for r in example.balance_rows()
    ]
    return Table("dropped", "dropped", columns, tuple(rows))


def test_few_who_fell_out_hide_nothing_about_those_who_stayed() -> None:
    full = (31, 20, 15, 15)
    rows = example.balance_rows(full)
    others = (balance(full), example.love(rows), example.model())
    finding = balance_findings(rows, LIMITS)
    alone, beside = document(*others, findings=finding), document(dropped(3), *others, findings=finding)
    assert beside["exhibits"][1:] == alone["exhibits"]
    assert beside["findings"] == alone["findings"]
    assert beside["findings"][0]["value"] is not None
    table = exhibit(beside, "dropped")
    assert {row[key] for row in table["rows"] for key in ("mean_dropped", "smd_dropped", "n_dropped")} == {None}


def test_who_fell_out_gives_no_hidden_level_of_the_balance_free() -> None:
    rows = example.balance_rows()
    made = document(dropped(40), balance(), example.love(rows))
    love = exhibit(made, "love")
    assert {name for name, y in zip(love["x"], love["series"][0]["y"], strict=True) if y is None} == HIDDEN


# -- simulated confounders -------------------------------------------------------------------------------------------


def simulated() -> Table:
    columns = (
        Column("like", "like", "key"),
        Column("outcome_effect", "outcome_effect", "stat", support="n"),
        Column("estimate", "adjusted_estimate_points", "stat", support="n", decimals=1),
        Column("low", "adjusted_low", "stat", support="n", decimals=1),
        Column("n", "n_rows", "count", decimals=0),
    )
    rows = tuple(
        {"like": like, "outcome_effect": 1.21, "estimate": 7.3, "low": None, "n": 81}
        for like in ("education:overig", "education:laag", "what.strong_confounder")
    )
    return Table("simulated_confounder", "simulated_confounder", columns, rows, hidden=((1, "low", "not_estimable"),))


@pytest.mark.parametrize("first", [True, False])
def test_a_confounder_like_a_hidden_level_is_hidden(first: bool) -> None:
    """Whichever table comes first."""
    made = document(*((simulated(), balance()) if first else (balance(), simulated())))
    table = exhibit(made, "simulated_confounder")
    assert [(row["outcome_effect"], row["estimate"], row["n"]) for row in table["rows"]] == [
        (None, None, 80),
        (1.21, 7.3, 80),
        (1.21, 7.3, 80),
    ]
    assert table["hidden"] == [
        [0, "estimate", "suppressed"],
        [0, "outcome_effect", "suppressed"],
        [1, "low", "not_estimable"],
    ]
    assert ledger(made)["simulated_confounder"] == 2
    whole = exhibit(document(balance((31, 20, 15, 15)), simulated()), "simulated_confounder")
    assert [row["estimate"] for row in whole["rows"]] == [7.3] * 3


def test_a_level_hidden_in_another_analysis_hides_nothing_here() -> None:
    given = example.raw()
    given["exhibits"] = document(simulated(), disclosure="open")["exhibits"] + [
        e | {"analysis": "other"} for e in document(balance(), disclosure="open")["exhibits"]
    ]
    assert exhibit(protect(given), "simulated_confounder")["rows"][0]["estimate"] == 7.3


# -- findings --------------------------------------------------------------------------------------------------------


def test_limits_of_the_study_are_no_data() -> None:
    params = {"variable": "education:overig", "smd": 0.1234, "attention": 0.125, "threshold": 0.375}
    made = document(balance(), findings=(Finding("balance", "", "warn", 0.1234, 0.375, params),))["findings"][0]
    assert (made["value"], made["threshold"]) == (None, 0.375)
    assert made["params"] == params | {"smd": None}
    shown = found(Finding("balance", "", "warn", 0.1234, 0.375, params | {"variable": "age"}))
    assert shown["params"] == params | {"variable": "age", "smd": 0.12}


def control(code: str, support: int | None, unit: str = "fraction") -> Finding:
    params: dict[str, Any] = {"estimate": 0.012345, "low": -0.023456, "high": 0.034567, "unit": unit, "month": 12}
    params |= {} if support is None else {"support": support}
    params |= {"margin": 0.054321} if code.startswith("placebo") else {}
    return Finding(code, "", "pass", 0.012345, params.get("margin"), params)


CONTROLS = ("placebo", "negative_control")


@pytest.mark.parametrize("code", CONTROLS)
@pytest.mark.parametrize("support", [23, None])
def test_a_share_where_there_is_no_effect_is_rounded_as_an_effect(code: str, support: int | None) -> None:
    made = found(control(code, support))
    assert [made["params"][key] for key in ("estimate", "low", "high")] == [0.012, -0.023, 0.035]
    assert (made["value"], made["params"].get("support")) == (0.012, None if support is None else 25)


@pytest.mark.parametrize("code", CONTROLS)
def test_an_amount_where_there_is_no_effect_is_rounded_to_cents(code: str) -> None:
    made = found(control(f"{code}_amount", 30, "euro"))
    assert [made["params"][key] for key in ("estimate", "low", "high")] == [0.01, -0.02, 0.03]
    assert made["value"] == 0.01


@pytest.mark.parametrize(
    ("code", "unit"), [(c, "fraction") for c in CONTROLS] + [(f"{c}_amount", "euro") for c in CONTROLS]
)
@pytest.mark.parametrize(("disclosure", "support", "shown"), [
    ("municipal", 9, False), ("municipal", 10, True), ("cbs", 0, False), ("open", 2, True),
])  # fmt: skip
def test_estimates_of_few_people_are_hidden(code: str, unit: str, disclosure: str, support: int, shown: bool) -> None:
    made = found(control(code, support, unit), disclosure)
    numbers = [made["value"], *(made["params"][key] for key in ("estimate", "low", "high", "support"))]
    assert [number is not None for number in numbers] == [shown] * 5
    assert (made["verdict"], made["params"]["unit"], made["params"]["month"]) == ("pass", unit, 12)


def test_the_margin_of_an_amount_tells_of_the_comparison_group() -> None:
    """A margin for shares is a setting; one for amounts is a part of what the comparison group has."""
    made = found(control("placebo_amount", 9, "euro"))
    assert (made["threshold"], made["params"]["margin"]) == (None, None)
    made = found(control("placebo_amount", 10, "euro"))
    assert (made["threshold"], made["params"]["margin"]) == (0.05, 0.05)
    assert found(control("placebo", 9))["threshold"] == 0.054321


@pytest.mark.parametrize(("count", "shown"), [(9, None), (12, 0.12), (None, None)])
def test_the_largest_weight_of_few_is_hidden(count: int | None, shown: float | None) -> None:
    known = {} if count is None else {"count": count}
    made = found(Finding("weights_concentrated", "", "warn", 0.1234, 0.05, {"share": 0.1234} | known))
    assert (made["value"], made["params"]) == (shown, {"share": shown, "count": shown and 10})
    assert (made["threshold"], made["verdict"]) == (0.05, "warn")


@pytest.mark.parametrize("target", ["atc", "ate", "att"])
def test_support_of_whomever_is_protected_alike(target: str) -> None:
    total = "starters" if target == "att" else "entries"
    made = found(support_finding(47, 50, LIMITS, target))
    assert (made["value"], made["params"]) == (None, {"share": None, "matched": None, total: 50})
    made = found(support_finding(38, 53, LIMITS, target))
    assert (made["value"], made["params"]) == (
        round(40 / 55, 3),
        {"share": round(40 / 55, 3), "matched": 40, total: 55},
    )
    made = found(support_finding(50, 50, LIMITS, target))
    assert made["value"] == 1
