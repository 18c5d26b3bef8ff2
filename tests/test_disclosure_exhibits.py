"""Disclosure control of tables, charts, findings and checks: nothing shown gives a hidden count back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import results_example as example

from evalkit import gate
from evalkit.analyses.common import balance_table
from evalkit.disclosure import protect, to_base
from evalkit.exhibits import Analysis, Column, Table


def exhibit(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in document["exhibits"] if e.get("id") == name)


def with_exhibits(*exhibits: Any, disclosure: str = "municipal") -> dict[str, Any]:
    """The protected example with its exhibits replaced."""
    made = replace(example.analysis(), exhibits=exhibits)
    return dict(example.assemble(disclosure, made).document)


# -- tables ----------------------------------------------------------------------------------------------------------


def balance(treated: tuple[int, ...], n: int = example.TREATED) -> dict[str, Any]:
    rows = example.balance_rows(treated)
    return with_exhibits(
        balance_table(rows, n, example.COMPARISON, example.COMPARISON), example.love(rows), example.model()
    )


def test_a_small_level_takes_the_next_smallest_along() -> None:
    table = exhibit(balance((40, 25, 12, 4)), "balance")
    shown = {row["level"]: row["mean_treated"] for row in table["rows"] if row["variable"] == "education"}
    assert (shown["overig"], shown["hoog"]) == (None, None)
    assert (shown["laag"], shown["midden"]) == (0.5, round(25 / 80, 3))


def test_small_levels_that_add_up_to_a_telling_total_take_one_more_along() -> None:
    """1 + 1: the rest, which standardised differences give exactly, leaves two people for two levels."""
    table = exhibit(balance((50, 29, 1, 1)), "balance")
    shown = {row["level"]: row["mean_treated"] for row in table["rows"] if row["variable"] == "education"}
    assert (shown["hoog"], shown["overig"], shown["midden"]) == (None, None, None)
    assert shown["laag"] is not None
    wide = exhibit(balance((50, 21, 5, 5)), "balance")
    assert [row["mean_treated"] is None for row in wide["rows"][2:]] == [False, False, True, True]


def test_two_levels_go_together() -> None:
    """Of two levels a small one is the other's complement."""
    rows = tuple(r for r in example.balance_rows((77, 0, 0, 4)) if r.level in ("laag", "overig"))
    table = exhibit(with_exhibits(balance_table(rows, 81, 130, 130)), "balance")
    assert [row["mean_treated"] for row in table["rows"]] == [None, None]


def test_what_gives_a_hidden_share_back_is_hidden_too() -> None:
    document = balance((40, 25, 12, 4))
    gone = {"education:hoog", "education:overig"}
    for row in exhibit(document, "balance")["rows"]:
        hidden = f"{row['variable']}:{row['level']}" in gone
        assert ({row["smd_before"], row["smd_after"]} == {None}) == hidden
    love = exhibit(document, "love")
    for line in love["series"]:
        assert {name for name, y in zip(love["x"], line["y"], strict=True) if y is None} == gone
        assert line["support"] == []
    model = exhibit(document, "model")
    shown = {row["variable"] for row in model["rows"] if row["coefficient"] is not None}
    assert shown == {"age", "debt"}  # 1 / error^2 of a dummy is about its count; the reference shows in all of them
    assert {cell[1] for cell in model["hidden"]} == {"coefficient", "std_error"}
    whole = exhibit(balance((40, 20, 11, 10)), "model")
    assert (whole["hidden"], {row["coefficient"] is None for row in whole["rows"]}) == ([], {False})


def test_a_finding_does_not_tell_the_difference_of_a_hidden_level() -> None:
    made = example.analysis()
    told = [
        gate.Finding("balance", "", "warn", 0.1234, 0.25, {"variable": name, "smd": 0.1234, "p": 0.0123})
        for name in ("education:overig", "education:laag")
    ]
    document = example.assemble("municipal", replace(made, findings=tuple(told))).document
    hidden, shown = document["findings"]
    assert (hidden["value"], hidden["params"]) == (None, {"variable": "education:overig", "smd": None, "p": None})
    assert (shown["value"], shown["params"]["smd"], shown["verdict"]) == (0.12, 0.12, "warn")


def test_means_of_a_tiny_group_are_hidden() -> None:
    """The mean age of three people tells their ages; so does a standardised difference."""
    rows = example.balance_rows()[:1]
    row = exhibit(with_exhibits(balance_table(rows, 3, 130, 130)), "balance")["rows"][0]
    assert (row["mean_treated"], row["smd_before"], row["vr_after"], row["n_treated"]) == (None, None, None, None)
    assert row["mean_before"] == 42.99
    row = exhibit(with_exhibits(balance_table(rows, 10, 130, 130)), "balance")["rows"][0]
    assert (row["mean_treated"], row["smd_before"]) == (38.21, -0.4)


def test_the_mean_of_a_zero_one_column_is_a_share() -> None:
    """A numeric column of zeros and ones: 2 of 81 have debts."""
    row = replace(example.balance_rows()[1], mean_treated=2 / 81)
    document = with_exhibits(balance_table((row,), 81, 130, 130), example.model())
    shown = exhibit(document, "balance")["rows"][0]
    assert (shown["mean_treated"], shown["smd_before"]) == (None, None)
    assert exhibit(document, "model")["rows"][2]["std_error"] is None
    row = replace(row, mean_treated=30 / 81)
    assert exhibit(with_exhibits(balance_table((row,), 81, 130, 130)), "balance")["rows"][0]["mean_treated"] == 0.375


def test_columns_that_add_up_to_their_parent() -> None:
    """12 starters, 10 matched: the difference of what is shown leaves 1 or 2 outside."""
    table = exhibit(with_exhibits(example.risk_sets(((12, 10), (33, 28), (40, 40), (6, 3)))), "risk_sets")
    cells = [(row["n_treated"], row["matched"], row["outside"]) for row in table["rows"]]
    assert cells == [(10, None, None), (35, 30, None), (40, 40, 0), (None, None, None)]
    assert [row["elapsed"] for row in table["rows"]] == [0, 1, 2, 3]


def test_matching_counts_are_rounded_and_support_does_not_undo_it() -> None:
    settings = example.study_of("open").gate
    made = example.analysis()
    shown = {}
    for matched, starters in ((47, 50), (40, 50), (50, 50), (4, 50)):
        finding = gate.support_finding(matched, starters, settings)
        document = example.assemble("municipal", replace(made, findings=(finding,))).document
        shown[matched] = document["findings"][0]
    assert (shown[47]["value"], shown[47]["params"]) == (None, {"share": None, "matched": None, "starters": 50})
    assert (shown[40]["value"], shown[40]["params"]["matched"]) == (0.8, 40)
    assert shown[50]["value"] == 1
    assert (shown[4]["value"], shown[4]["verdict"]) == (None, "fail")


@pytest.mark.parametrize(("cluster", "value"), [("person", None), ("team", 8)])
def test_a_number_of_clusters_is_a_number_of_people_only_when_people_are_the_clusters(
    cluster: str, value: int | None
) -> None:
    document = example.raw()
    document["study"]["protocol"]["treatment"]["cluster"] = cluster
    params = {"clusters": 8, "minimum": 30}
    finding = {"analysis": "main", "code": "few_clusters", "scope": "", "verdict": "warn", "value": 8.0}
    document["findings"] = [finding | {"threshold": 30, "params": params}]
    made = protect(document)["findings"][0]
    assert (made["value"], made["params"]["clusters"]) == (value, value)


# -- charts, checks --------------------------------------------------------------------------------------------------


def test_bins_of_a_small_count_cannot_be_worked_out_from_the_others() -> None:
    counts = (0, 3, 12, 40, 20, 5, 1)
    line = exhibit(with_exhibits(example.overlap(counts)), "overlap")["series"][0]
    assert line["y"] == [None, None, 0.125, 0.5, 0.25, None, None]
    rest = 1 - sum(y for y in line["y"] if y is not None)
    assert abs(rest * sum(counts) - 9) > 1  # nine people are in the hidden bins
    full = exhibit(with_exhibits(example.overlap((0, 12, 15, 40, 14, 0, 0))), "overlap")["series"][0]
    assert full["y"][0] == 0  # an empty bin is shown as long as no bin is hidden
    x = exhibit(with_exhibits(example.overlap(counts)), "overlap")["x"]
    assert x == [round(v, 2) for v in x]


def test_steps_of_a_cumulative_share_do_not_count_people() -> None:
    """From month to month one person more starts; the chart moves in fives."""
    people = tuple(range(8, 8 + example.MONTHS))
    line = exhibit(with_exhibits(example.later_start(people)), "later_start")["series"][0]
    assert line["y"][:2] == [None, None]
    moves = np.diff([y for y in line["y"] if y is not None])
    assert {round(m * example.COMPARISON) for m in moves} <= {0, 5}


def test_a_share_of_nearly_everybody_is_hidden() -> None:
    people = (*range(60, 127, 6), 127, 128)
    line = exhibit(with_exhibits(example.later_start(people)), "later_start")["series"][0]
    assert line["y"][-2:] == [None, None]
    assert line["y"][0] is not None


def test_the_sentence_on_later_starters_tells_no_more_than_the_chart() -> None:
    document = example.protected()
    finding = next(f for f in document["findings"] if f["code"] == "later_start")
    last = exhibit(document, "later_start")["series"][0]["y"][-1]
    assert finding["value"] == finding["params"]["share"] == last != 0.2
    few = replace(example.analysis(), exhibits=(example.later_start((0,) * 12 + (2, 3)),))
    document = dict(example.assemble("municipal", few).document)
    finding = next(f for f in document["findings"] if f["code"] == "later_start")
    assert (finding["value"], finding["params"]["share"]) == (None, None)


def test_checks_hide_small_counts_and_their_shares() -> None:
    document = example.raw()
    check = document["checks"][0]
    document["checks"] = [
        check | {"count": 24, "share": 24 / 900, "params": {"rows": 4, "limit": 17, "column": "start", "of": 0.123456}},
        check | {"count": 3, "share": 3 / 900},
        check | {"count": 897, "share": 897 / 900},
    ]
    shown, small, nearly = protect(document)["checks"]
    assert (shown["count"], shown["share"]) == (25, 0.03)
    assert shown["params"] == {"rows": None, "limit": 15, "column": "start", "of": 0.12}
    assert (small["count"], small["share"]) == (None, None)
    assert nearly["share"] is None


@pytest.mark.parametrize(("value", "base"), [(0, 0), (2, 0), (3, 5), (7, 5), (7.5, 10), (12, 10), (13, 15), (-3, -5)])
def test_rounding_to_five(value: float, base: int) -> None:
    assert to_base(value) == base


def test_an_analysis_without_exhibits_is_fine() -> None:
    document = example.assemble("strict", Analysis("main", "matching", (example.profile(),))).document
    assert document["exhibits"] == []
    assert document["profiles"][0]["months"][5]["estimate"] is not None


def test_hidden_statuses_that_were_there_stay() -> None:
    table = Table("x", "x", (Column("n", "n", "count"),), ({"n": None}, {"n": 4}), hidden=((0, "n", "not_estimable"),))
    hidden = exhibit(with_exhibits(table), "x")["hidden"]
    assert hidden == [[0, "n", "not_estimable"], [1, "n", "suppressed"]]
