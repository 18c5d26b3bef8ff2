"""Disclosure control: small counts planted in flow and profiles, and a reader who reckons to get them back."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import results_example as example
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import PRINTED

from evalkit import gate
from evalkit.disclosure import protect, to_base

MINIMUM = 10
EFFECTS = ("estimate", "std_error", "ci_low", "ci_high", "band_low", "band_high", "counterfactual")


def named(document: dict[str, Any], subgroup: str = "") -> dict[str, Any]:
    return next(p for p in document["profiles"] if p["labels"]["subgroup"] == subgroup)


def numbers(value: Any) -> Iterator[float]:
    """Every number in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


# -- the whole document ----------------------------------------------------------------------------------------------


def test_open_profile_is_unchanged() -> None:
    document = example.raw("open")
    assert protect(document) == document
    assert any(row["persons"] == 4 for row in document["flow"])  # there was something to hide


@pytest.mark.parametrize("disclosure", ["open", "municipal", "cbs", "strict"])
def test_the_given_document_is_not_touched(disclosure: str) -> None:
    document = example.raw(disclosure)
    before = copy.deepcopy(document)
    protect(document)
    assert document == before


@pytest.mark.parametrize("disclosure", ["municipal", "cbs", "strict"])
def test_no_number_keeps_full_precision(disclosure: str) -> None:
    document = example.protected(disclosure)
    parts = {key: document[key] for key in ("flow", "profiles", "exhibits", "findings", "checks", "inputs")}
    assert {n for n in numbers(parts) if abs(n - round(n, 4)) > 1e-12} == set()
    assert any(abs(n - round(n, 4)) > 1e-12 for n in numbers(example.raw()["profiles"]))


@pytest.mark.parametrize("disclosure", ["municipal", "cbs", "strict"])
def test_counts_are_multiples_of_five_and_never_small(disclosure: str) -> None:
    document = example.protected(disclosure)
    counts = [row[key] for row in document["flow"] for key in ("persons", "entries")]
    counts += [row[key] for p in document["profiles"] for row in p["months"] for key in ("n_treated", "n_comparison")]
    for table in (e for e in document["exhibits"] if e["type"] == "table"):
        keys = [column["key"] for column in table["columns"] if column["role"] == "count"]
        counts += [row[key] for row in table["rows"] for key in keys]
    counts += [check["count"] for check in document["checks"]] + [item["rows"] for item in document["inputs"]]
    shown = [n for n in counts if n is not None]
    assert len(shown) > 50
    assert all(n % 5 == 0 for n in shown)
    assert all(n >= MINIMUM or (n == 0 and disclosure == "municipal") for n in shown)
    assert None in counts


def test_rounding_leaves_no_minus_zero() -> None:
    document = example.raw()
    document["profiles"][0]["months"][5] |= {"estimate": -0.0001, "ci_low": -0.0004}
    document["findings"][0] |= {"value": -0.001, "params": {}}
    made = protect(document)
    assert made["profiles"][0]["months"][5]["estimate"] == made["findings"][0]["value"] == 0
    assert {math.copysign(1, n) for n in numbers([made["profiles"], made["findings"]]) if n == 0} == {1.0}


def test_no_covariance_leaves_and_nothing_is_nan() -> None:
    document = example.protected()
    assert {p["vcov"] is None for p in document["profiles"]} == {True}
    json.dumps(document, allow_nan=False)
    assert named(example.raw())["vcov"] is not None


@pytest.mark.parametrize("disclosure", ["municipal", "cbs", "strict"])
def test_protecting_twice_brings_nothing_back(disclosure: str) -> None:
    once = example.protected(disclosure)
    twice = protect(once)
    assert twice["flow"] == once["flow"]
    assert twice["checks"] == once["checks"]
    for a, b in zip(once["profiles"], twice["profiles"], strict=True):
        for key in (*EFFECTS, "n_treated", "n_comparison"):
            for row, again in zip(a["months"], b["months"], strict=True):
                if again[key] is not None:
                    assert again[key] == pytest.approx(row[key], abs=2 * PRINTED)
                assert row["status"] == "ok" or again[key] == row[key]
    for a, b in zip(once["exhibits"], twice["exhibits"], strict=True):
        if a["type"] == "table":
            assert {tuple(cell) for cell in a["hidden"]} <= {tuple(cell) for cell in b["hidden"]}


def test_the_ledger_counts_what_was_hidden() -> None:
    rules = example.protected()["disclosure"]
    assert rules["hidden"] == sum(int(line.split(": ")[1]) for line in rules["ledger"]) > 0
    assert example.raw("open")["disclosure"]["ledger"] == []


# -- flow ------------------------------------------------------------------------------------------------------------


def flow_of(parts: list[int], ratio: float = 1.0) -> list[dict[str, Any]]:
    """One arm: out rows, then the last row; entries are ``ratio`` times persons."""
    kinds = ["start", *["out"] * (len(parts) - 1), "left"]
    counts = [sum(parts), *parts]
    return [
        {"step": i, "arm": "treated", "kind": kind, "reason": "x", "persons": n, "entries": round(n * ratio)}
        for i, (kind, n) in enumerate(zip(kinds, counts, strict=True))
    ]


def protected_flow(parts: list[int], ratio: float = 1.0) -> list[dict[str, Any]]:
    document = example.raw() | {"flow": flow_of(parts, ratio)}
    return list(protect(document)["flow"])


def candidates(shown: int | None, small: bool) -> range:
    """The counts that a cell may stand for, for a reader who knows which hidden cells are small."""
    if shown is None:
        return range(1, MINIMUM) if small else range(MINIMUM, 60)
    return range(0, 1) if shown == 0 else range(max(MINIMUM, shown - 2), shown + 3)


def possible(parts: list[int], rows: list[dict[str, Any]], key: str = "persons") -> list[set[int]]:
    """By enumeration: the values of each hidden small part in all worlds that give the published rows."""
    cells = [candidates(row[key], n < MINIMUM) for n, row in zip(parts, rows[1:], strict=True)]
    total = rows[0][key]
    worlds = np.array(list(itertools.product(*cells)))
    if total is not None:
        sums = worlds.sum(axis=1)
        worlds = worlds[(sums >= max(MINIMUM, total - 2)) & (sums <= total + 2)]
    assert (worlds == np.array(parts)).all(axis=1).any()  # the truth is among them
    hidden = [i for i, row in enumerate(rows[1:]) if row[key] is None and parts[i] < MINIMUM]
    return [set(worlds[:, i].tolist()) for i in hidden]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    small=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    large=st.lists(st.integers(10, 40), min_size=1, max_size=2),
)
def test_a_small_step_of_the_flow_cannot_be_worked_out(small: list[int], large: list[int]) -> None:
    parts = small + large
    rows = protected_flow(parts)
    for values in possible(parts, rows) + possible(parts, rows, "entries"):
        assert len(values) >= 3


@pytest.mark.parametrize("ratio", [1.0, 6.0])
@pytest.mark.parametrize("parts", [[1, 1, 1, 1, 98], [9, 9, 9, 9, 102], [1, 1, 10], [2, 10], [1, 10, 10]])
def test_hidden_steps_that_rounding_does_not_protect(parts: list[int], ratio: float) -> None:
    """Four reasons of one person each: 100 in, 100 left, so each hidden one must be 1. Hence one row more is hidden."""
    rows = protected_flow(parts, ratio)
    assert [row["persons"] for row in rows].count(None) > sum(n < MINIMUM for n in parts)
    assert min(len(values) for values in possible(parts, rows)) >= 3


def test_entries_do_not_pin_persons_down_either() -> None:
    """Persons leave 1 to 9 open, entries (105 less 45 and 65) leave 1: nobody falls out without an entry."""
    rows = flow_of([1, 42, 62])
    for row, entries in zip(rows, (107, 1, 43, 63), strict=True):
        row["entries"] = entries
    made = protect(example.raw() | {"flow": rows})["flow"]
    assert [row["persons"] for row in made] == [105, None, None, 60]
    assert [row["entries"] for row in made] == [105, None, None, 65]


def test_few_entries_of_nobody_who_left_are_hidden() -> None:
    """Three person-months fall out while all persons stay: at most three people."""
    rows = example.protected()["flow"]
    row = next(r for r in rows if r["arm"] == "comparison" and r["reason"] == "age")
    assert (row["persons"], row["entries"]) == (0, None)


def test_flow_without_small_steps_is_only_rounded() -> None:
    rows = protected_flow([33, 22, 81], 1.5)
    assert [(row["persons"], row["entries"]) for row in rows] == [(135, 205), (35, 50), (20, 35), (80, 120)]


def test_zeros_are_hidden_under_the_strict_profiles_only() -> None:
    for disclosure, shown in (("municipal", 0), ("cbs", None), ("strict", None)):
        document = example.raw(disclosure) | {"flow": flow_of([0, 40, 60])}
        assert protect(document)["flow"][1]["persons"] == shown


# -- profiles --------------------------------------------------------------------------------------------------------


def test_effect_plus_counterfactual_is_a_share_of_rounded_counts() -> None:
    shown = 0
    for profile in example.protected()["profiles"]:
        for row in profile["months"]:
            if row["counterfactual"] is None:
                continue
            share = row["estimate"] + row["counterfactual"]
            steps = share * row["n_treated"] / 5
            assert steps == pytest.approx(round(steps), abs=2 * PRINTED * row["n_treated"] / 5)
            shown += 1
    assert shown > 20


def month(n1: int, n0: int, left: int, without: float) -> dict[str, Any]:
    return {
        "month": 1,
        "estimate": left / n1 - without,
        "std_error": 0.01,
        **dict.fromkeys(("ci_low", "ci_high", "band_low", "band_high"), 0.1),
        "counterfactual": without,
        "n_treated": n1,
        "n_comparison": n0,
        "status": "ok",
    }


def protected_month(row: dict[str, Any], **estimand: str) -> dict[str, Any]:
    document = example.raw()
    profile = document["profiles"][0]
    profile["estimand"] |= estimand
    profile["months"] = [row]
    document["profiles"] = [profile]
    return dict(protect(document)["profiles"][0]["months"][0])


@pytest.mark.parametrize("n1", [11, 25, 81, 180, 999])
def test_several_counts_give_the_same_published_month(n1: int) -> None:
    """The reader knows effect and level as printed; every count of treated he can think of has a twin that fits too."""
    published: dict[int | None, set[int]] = {}
    for left in range(n1 + 1):
        row = protected_month(month(n1, 400, left, 0.4))
        level = None if row["counterfactual"] is None else row["estimate"] + row["counterfactual"]
        level = None if level is None else round(level * to_base(n1) / 5)
        published.setdefault(level, set()).add(left)
        small = 0 < left < MINIMUM or 0 < n1 - left < MINIMUM
        assert (row["counterfactual"] is None) == small
        assert row["estimate"] is not None
    assert all(len(twins) >= 2 or twins <= {0, n1} for twins in published.values())
    assert len(published[None]) == len([n for n in range(n1 + 1) if 0 < n < MINIMUM or 0 < n1 - n < MINIMUM])


@pytest.mark.parametrize("without", [3 / 60, 57 / 60, 0.001])
def test_levels_are_hidden_when_the_other_arm_is_small(without: float) -> None:
    """Nobody treated has left: the counterfactual would be minus the effect, 3 of 60 at full precision."""
    row = protected_month(month(80, 60, 0, without))
    assert row["counterfactual"] is None
    assert protected_month(month(80, 60, 0, 0.5))["counterfactual"] == 0.5


def test_a_group_below_the_minimum_has_no_numbers() -> None:
    for subgroup in ("sex=vrouw", "sex=vrouw - sex=man"):
        profile = named(example.protected(), subgroup)
        assert {row["status"] for row in profile["months"]} == {"suppressed"}
        assert {row[key] for row in profile["months"] for key in (*EFFECTS, "n_treated")} == {None}
        assert (profile["cumulated"], profile["lock_in"], profile["vcov"]) == ([], None, None)
        assert {m["status"] for m in profile["summary"]} == {"suppressed"}
        assert list(numbers(profile["summary"])) == []


def test_one_small_month_hides_the_derived_path() -> None:
    document = example.raw()
    row = document["profiles"][0]["months"][-1]
    row["n_comparison"] = 9
    profile = protect(document)["profiles"][0]
    assert (profile["months"][-1]["estimate"], profile["months"][-1]["n_comparison"]) == (None, None)
    assert profile["months"][0]["estimate"] is not None
    assert (profile["cumulated"], profile["lock_in"]) == ([], None)


def test_a_group_at_the_minimum_is_shown() -> None:
    assert protected_month(month(10, 10, 0, 0.0))["estimate"] == 0
    assert protected_month(month(9, 10, 0, 0.0))["estimate"] is None
    assert protected_month(month(10, 9, 0, 0.0))["estimate"] is None


def test_withheld_profiles_carry_no_numbers() -> None:
    made = example.analysis()
    failing = gate.Finding("balance", "", "fail", 0.4, 0.25, {"variable": "age", "smd": 0.4})
    for disclosure in ("open", "municipal"):
        document = example.assemble(disclosure, replace(made, findings=(failing,))).document
        for profile in document["profiles"]:
            assert {row[key] for row in profile["months"] for key in EFFECTS} == {None}
            assert "ok" not in {row["status"] for row in profile["months"]}
            assert (profile["cumulated"], profile["lock_in"], profile["vcov"]) == ([], None, None)
            assert list(numbers(profile["summary"])) == []


def test_other_units_are_rounded_whole() -> None:
    row = protected_month(month(80, 60, 40, 0.4) | {"estimate": 1234.567, "counterfactual": 9876.54}, unit="euro")
    assert (row["estimate"], row["counterfactual"]) == (1235, 9877)


# -- a randomised comparison: effect and standard error give both shares back ----------------------------------------


def experiment(subgroup: str = "", variant: str = "", small: bool = True, **labels: str) -> dict[str, Any]:
    """Two months; in the first 3 of 60 in the comparison group have left."""
    profile = copy.deepcopy(example.raw()["profiles"][0])
    profile["id"] = "/".join(p for p in ("exp", variant, "left", subgroup) if p)
    profile["estimand"]["identification"] = "randomisation"
    profile["labels"] |= {"analysis": "exp", "variant": variant, "subgroup": subgroup, "outcome": "left"} | labels
    without = 3 / 60 if small else 0.4
    profile["months"] = [month(80, 60, 30, without), month(80, 60, 40, 0.4) | {"month": 2}]
    if "first" in labels:
        for row in profile["months"]:
            row["counterfactual"] = None
    profile["cumulated"] = [{"month": k, "estimate": 0.123, "band_low": 0.0, "band_high": 0.3} for k in (1, 2)]
    return profile


def test_effect_and_standard_error_do_give_both_counts_back() -> None:
    """Why the month goes: of all pairs of counts one alone has this difference and this standard error."""
    n1 = n0 = 60
    effect, error = 2 / n1 - 3 / n0, math.sqrt(2 * 58 / n1**3 + 3 * 57 / n0**3)
    fits = [
        (a, b)
        for a, b in itertools.product(range(31), repeat=2)
        if abs(a / n1 - b / n0 - effect) < PRINTED
        and abs(math.sqrt(a * (n1 - a) / n1**3 + b * (n0 - b) / n0**3) - error) < PRINTED / 10
    ]
    assert fits == [(2, 3)]


def test_a_randomised_month_with_a_small_count_is_hidden_with_its_twin_and_contrasts() -> None:
    document = example.raw()
    document["profiles"] = [
        experiment("", "regression_adjusted"),
        experiment("", "difference_in_means", small=False),
        experiment("sex=man", "", small=False),
        experiment("sex=vrouw", ""),
        experiment("sex=vrouw - sex=man", "contrast", first="exp/left/sex=vrouw", second="exp/left/sex=man"),
        experiment("", "", small=False, analysis="other"),
    ]
    made = protect(document)["profiles"]
    hidden = [[row["status"] for row in p["months"]] for p in made]
    assert hidden == [["suppressed", "ok"]] * 2 + [["ok", "ok"]] + [["suppressed", "ok"]] * 2 + [["ok", "ok"]]
    assert {made[0]["months"][0][key] for key in EFFECTS} == {None}
    assert [row["estimate"] for row in made[0]["cumulated"]] == [None, 0.12]
    assert made[0]["months"][1]["counterfactual"] is not None
    for row in made[0]["summary"]:
        assert all(abs(v - round(v, 2)) < 1e-9 for v in numbers(row))


def test_a_matched_month_keeps_its_effect() -> None:
    """A bias-corrected weighted mean is no count: effect and error do not tell the two shares apart."""
    assert protected_month(month(80, 60, 30, 3 / 60))["estimate"] is not None
