"""The first table: figures by hand, words in both languages, and cells that may not be derived."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from naive import sensitivity as naive
from tolerances import EXACT

from evalkit.balance import balance_statistics
from evalkit.errors import DataError, DesignError, UsageError
from evalkit.table_one import TableOne, hidden_cells, table_one
from evalkit.text import LANGUAGES

FRAME = pd.DataFrame(
    {
        "age": [20.0, 30, 40, np.nan, 22, 26, 24, 60],
        "sex": ["v", "m", "v", "v", "m", None, "v", "m"],
        "income": [1000.0, 2000, 1500, 0, 1000, 3000, 2500, 1800],
    }
)
TREATED = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
WEIGHT = np.array([1, 1, 1, 1, 2, 1, 1, 0.0])


def cell(table: TableOne, kind: str, variable: str, level: str, column: str) -> pd.Series:
    frame = table.frame()
    rows = frame[(frame.kind == kind) & (frame.variable == variable) & (frame.level == level)]
    return rows[rows.column == column].iloc[0]


def test_figures_by_hand() -> None:
    made = table_one(FRAME, TREATED, WEIGHT, median=["income"])
    assert [(row.kind, row.variable, row.level) for row in made.rows] == [
        ("number", "", ""),
        ("effective", "", ""),
        ("mean_sd", "age", ""),
        ("missing", "age", ""),
        ("level", "sex", "m"),
        ("level", "sex", "v"),
        ("missing", "sex", ""),
        ("mean_sd", "income", ""),
        ("median_iqr", "income", ""),
    ]
    assert [c.count for c in made.rows[0].cells] == [4, 4, 4, 3]
    assert [c.count for c in made.rows[1].cells] == pytest.approx([4, 4, 4, 16 / 6], rel=EXACT)
    before, after = (cell(made, "mean_sd", "age", "", c) for c in ("treated_before", "comparison_after"))
    assert (before["first"], before["second"]) == pytest.approx((30, 10), rel=EXACT)
    assert after["first"] == pytest.approx((2 * 22 + 26 + 24) / 4, rel=EXACT)  # weights 1/2, 1/4, 1/4
    assert after["second"] == pytest.approx(np.sqrt((0.5 * 2.25 + 0.25 * (6.25 + 0.25)) / (1 - 0.375)), rel=EXACT)
    # shares are among the known: 1 of 4 treated men, 2 of 3 others, weights 2 of 3 after; no count where weights differ
    shares = [cell(made, "level", "sex", "m", c)["share"] for c in made.columns]
    assert shares == pytest.approx([1 / 4, 2 / 3, 1 / 4, 2 / 3], rel=EXACT)
    assert cell(made, "level", "sex", "m", "comparison_before")["count"] == 2
    assert np.isnan(cell(made, "level", "sex", "m", "comparison_after")["count"])
    assert cell(made, "missing", "age", "", "treated_before")["share"] == pytest.approx(0.25)
    # quartiles of 0, 1000, 1500, 2000: between the second and third value, between first and second, third and fourth
    low, middle, high = (
        cell(made, "median_iqr", "income", "", "treated_before")[k] for k in ("second", "first", "third")
    )
    assert (low, middle, high) == (500, 1250, 1750)
    # weighted: 1000 (2), 2500 (1), 3000 (1)
    assert cell(made, "median_iqr", "income", "", "comparison_after")["first"] == 1750


def test_differences_are_those_of_the_balance_table() -> None:
    rng = np.random.default_rng(1)
    n = 200
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.integers(0, 2, n), "g": rng.choice(list("abc"), n)})
    treated, weight = rng.uniform(size=n) < 0.4, rng.exponential(size=n)
    columns = np.column_stack([frame.x, frame.z, *(frame.g == level for level in "abc")]).astype(float)
    names = ("x", "z", "a", "b", "c")
    for convention in ("standardised", "raw"):
        table = table_one(frame, treated, weight, target="ate", binary_convention=convention)  # type: ignore[arg-type]
        theirs = balance_statistics(
            columns,
            names,
            None,
            treated,
            weight,
            target="ate",
            binary_convention=convention,  # type: ignore[arg-type]
        )
        ours = {row.level if row.variable == "g" else row.variable: row for row in table.rows[2:] if row.level != "0"}
        for j, name in enumerate(names):
            assert ours[name].smd_before == pytest.approx(theirs.smd_before[j], rel=1e3 * EXACT)
            assert ours[name].smd_after == pytest.approx(theirs.smd_after[j], rel=1e3 * EXACT)


def test_numbers_of_people_stand_after_matching_one_to_one() -> None:
    weight = np.array([1, 1, 1, 0, 1, 1, 1, 0.0])
    made = table_one(FRAME[["sex"]], TREATED, weight)
    assert cell(made, "level", "sex", "v", "treated_after")["count"] == 2
    assert cell(made, "level", "sex", "v", "comparison_after")["count"] == 1


def test_columns_can_be_chosen_and_counted() -> None:
    frame = FRAME.assign(region=[1, 2, 3, 1, 2, 3, 1, 2])
    made = table_one(frame, TREATED, variables=["region"], categorical=["region"])
    assert [row.level for row in made.rows[1:]] == ["1", "2", "3"]
    assert made.columns == ("treated_before", "comparison_before")
    assert all(row.smd_after is None for row in made.rows)
    assert [row.kind for row in table_one(frame, TREATED, variables=["region"]).rows] == ["number", "mean_sd"]


def test_kinds_of_columns() -> None:
    """Nullable numbers and booleans, categories in their own order, another index."""
    frame = pd.DataFrame(
        {
            "income": pd.array([1, 2, None, 4, 5, 6, 7, 8], dtype="Int64"),
            "benefit": pd.array([True, None, False, True, True, False, False, True], dtype="boolean"),
            "level": pd.Categorical(["low", "high", "low", "low", "high", "high", None, "low"], ["low", "high"]),
        },
        index=range(10, 18),
    )
    made = table_one(frame, TREATED)
    assert [(row.kind, row.variable, row.level) for row in made.rows[1:]] == [
        ("mean_sd", "income", ""),
        ("missing", "income", ""),
        ("level", "benefit", "False"),
        ("level", "benefit", "True"),
        ("missing", "benefit", ""),
        ("level", "level", "low"),
        ("level", "level", "high"),
        ("missing", "level", ""),
    ]
    assert made.rows[1].cells[0].first == pytest.approx(7 / 3)
    assert made.words("nl").iloc[4, 0] == "benefit: ja"
    assert made.rows[6].cells[0].count == 3


def test_faults() -> None:
    with pytest.raises(UsageError, match="table_unknown_variable"):
        table_one(FRAME, TREATED, variables=["height"])
    with pytest.raises(DataError, match="table_missing_arm"):
        table_one(FRAME, [1, 1, 1, 1, 0, 0, None, 0])
    with pytest.raises(DesignError, match="balance_no_weight"):
        table_one(FRAME, np.ones(8, bool))


# -- words ------------------------------------------------------------------------------------------------------------


def test_words_in_both_languages() -> None:
    made = table_one(FRAME, TREATED, WEIGHT, labels={"sex": "geslacht", "sex=v": "vrouw"}, median=["income"])
    dutch, english = made.words("nl"), made.words("en")
    assert dutch.iloc[2, 1] == "30,0 (10,0)"
    assert english.iloc[2, 1] == "30.0 (10.0)"
    assert dutch.iloc[5, 0] == "geslacht: vrouw"
    assert dutch.iloc[5, 1] == "3 (75,0\u00a0%)"
    assert english.iloc[8, 1] == "1,250 [500 to 1,750]"
    assert dutch.iloc[8, 1] == "1.250 [500 tot 1.750]"
    assert dutch.shape == english.shape == (9, 7)
    assert not set(dutch.columns) & set(english.columns)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_form_holds_every_cell(lang: str) -> None:
    made = table_one(FRAME, TREATED, WEIGHT)
    words = made.words(lang)
    for form in (made.text(lang), made.markdown(lang), made.csv(lang)):
        assert len(form.strip().split("\n")) >= len(words) + 1
    for value in words.to_numpy().ravel():
        assert value in made.text(lang)
        assert value in made.csv(lang).replace('""', '"')
    assert made.html(lang).count("<tr>") == len(words) + 1
    assert made.markdown(lang).split("\n")[1].count("|") == len(words.columns) + 1


def test_names_are_escaped() -> None:
    frame = pd.DataFrame({"a<b|c": [1.0, 2, 3, 4]})
    made = table_one(frame, [True, True, False, False])
    assert "a&lt;b|c" in made.html()
    assert "a<b\\|c" in made.markdown()


# -- small cells ------------------------------------------------------------------------------------------------------


def test_a_small_cell_takes_another_with_it() -> None:
    assert hidden_cells([3, 40, 60], 10) == ("small", "cover", "")
    assert hidden_cells([5, 5, 60], 10) == ("small", "small", "")
    assert hidden_cells([0, 40, 60], 10) == ("", "", "")
    assert hidden_cells([1, 1, 60], 10) == ("small", "small", "cover")  # together 2: both are 1
    assert hidden_cells([9, 9, 60], 10) == ("small", "small", "cover")
    assert hidden_cells([3, 0, 60], 10) == ("small", "", "cover")
    assert hidden_cells([3, 0], 10) == ("cover", "cover")


def test_no_small_count_can_be_derived() -> None:
    """Every table of three or four counts up to 30, minimum 5: enumeration leaves each small count three values."""
    rng = np.random.default_rng(2)
    tables = [tuple(rng.integers(0, top, size)) for top in (8, 30) for size in (3, 4) for _ in range(150)]
    hidden = 0
    for counts in tables:
        counts = tuple(int(c) for c in counts)
        marks = hidden_cells(counts, 5)
        assert all(mark or not 0 < count < 5 for count, mark in zip(counts, marks, strict=True))
        for values in naive.derivable(counts, marks, 5).values():
            hidden += 1
            assert len(values) >= 3, (counts, marks)
    assert hidden > 100


def test_no_more_is_hidden_than_asked() -> None:
    for counts in product((0, 5, 9, 30), repeat=3):
        assert not any(hidden_cells(counts, 5))


def drawn(seed: int = 3) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = 400
    origin = rng.choice(["a", "b", "c", "d"], n, p=[0.6, 0.36, 0.03, 0.01])
    origin = np.where(rng.uniform(size=n) < 0.01, None, origin)
    return pd.DataFrame({"origin": origin, "age": rng.normal(40, 10, n)}), rng.uniform(size=n) < 0.4


def test_hidden_cells_are_nowhere_in_the_table() -> None:
    frame, treated = drawn()
    whole = table_one(frame, treated, np.ones(400))
    safe = table_one(frame, treated, np.ones(400), minimum=10)
    small = {
        (row.level, column)
        for row in whole.rows
        if row.variable == "origin"
        for column, c in zip(whole.columns, row.cells, strict=True)
        if c.count is not None and 0 < c.count < 10
    }
    assert len(small) >= 4
    for row in safe.rows:
        for column, c in zip(safe.columns, row.cells, strict=True):
            if row.variable == "origin" and (row.level, column) in small:
                assert c.hidden
                assert (c.count, c.share) == (None, None)
            if c.hidden and column.endswith("before"):
                assert row.smd_before is None
            if c.hidden:
                assert row.smd_after is None
            assert not (c.count is not None and 0 < c.count < 10)
    assert "<10" in safe.text("nl")
    assert "verborgen" in safe.text("nl") or "<10" in safe.text("nl")


def test_shares_do_not_tell_how_many_are_missing() -> None:
    """With a minimum the shares and differences of a level are those of everybody: the number missing is in none."""
    frame, treated = drawn()
    filled = frame.assign(origin=frame.origin.where(frame.origin.notna(), "d"))
    shown = [table_one(f, treated, minimum=10) for f in (frame, filled)]
    rows = [{row.level: row for row in table.rows if row.kind == "level"} for table in shown]
    for level in ("a", "b"):
        first, second = rows[0][level], rows[1][level]
        assert [c.share for c in first.cells if not c.hidden] == [
            c.share for c, d in zip(second.cells, first.cells, strict=True) if not d.hidden
        ]
        if first.smd_before is not None:
            assert first.smd_before == pytest.approx(second.smd_before)


def test_a_few_who_fell_out_are_not_counted() -> None:
    frame, treated = drawn()
    weight = np.ones(400)
    weight[np.flatnonzero(treated)[:3]] = 0
    safe = table_one(frame, treated, weight, minimum=10)
    assert safe.rows[0].cells[2].hidden == "cover"
    assert safe.rows[1].cells[2].hidden == "cover"
    assert safe.rows[0].cells[3].count == (~treated).sum()
    for row in safe.rows[2:]:
        assert row.cells[2].count is None
        share = row.cells[2].share
        assert share is None or share == round(share, 2)


def test_a_mean_of_few_people_is_hidden() -> None:
    frame = pd.DataFrame({"x": [1.0, 2, 3] + [np.nan] * 30 + list(range(40))})
    treated = np.arange(73) < 33
    safe = table_one(frame, treated, minimum=10)
    mean, missing = safe.rows[1], safe.rows[2]
    assert [c.hidden for c in mean.cells] == ["small", ""]
    assert [c.hidden for c in missing.cells] == ["small", ""]  # 30 of 33 would give the three away
    assert mean.smd_before is None
