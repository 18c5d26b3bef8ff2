"""Study files with covariates that change: what they give, and every fault on its line."""

from __future__ import annotations

import pytest
from changing_example import protocol

from evalkit.errors import StudyError
from evalkit.study import AreaSpec, TableSpec, parse

GOOD = protocol(eligibility='exclude = { household = ["couple"], sex = ["v", "missing"] }').text


def test_the_study_says_what_changes():
    made = parse(GOOD)
    assert list(made.data.changes) == ["household", "debt", "place"] and list(made.data.areas) == ["unemployment"]
    assert made.data.changing == ("household", "debt", "place", "unemployment")
    assert list(made.data.tables) == [
        "persons", "benefits", "episodes", "changes.household", "changes.debt", "changes.place", "areas.unemployment",
    ]  # fmt: skip
    spec = made.data.areas["unemployment"]
    assert isinstance(spec, AreaSpec) and (spec.area, spec.delay_months) == ("town", 1)
    assert isinstance(made.data.changes["debt"], TableSpec)
    assert made.eligibility.exclude == {"household": ("couple",), "sex": ("v", "missing")}


FAULTS = [  # what is replaced, by what, the line it is found on, the code
    ('value = "v", registered = "r"', 'value = "v", registerd = "r"', "study.unknown_key"),
    ('start = "a", end = "b", value = "v", registered', 'end = "b", value = "v", registered', "study.missing_key"),
    ('start = "a", end = "b", value = "v"', 'start = "a", end = "a", value = "v"', "study.column_twice"),
    ("[data.changes.place]", "[data.changes.sex]", "study.covariate_twice"),
    ("[data.changes.place]", "[data.changes.age]", "study.reserved_name"),
    ("[data.changes.place]", "[data.changes.elapsed]", "study.reserved_name"),
    ("[data.changes.place]", '[data.changes."my place"]', "study.bad_name"),
    ('month = "m", value = "v" }', 'value = "v" }', "study.missing_key"),
    ('area = "town"', 'area = "twon"', "study.not_allowed"),
    ('area = "town"', 'area = "debt"', "study.area_numeric"),
    ('area = "town"', 'area = "birth_year"', "study.not_allowed"),
    ('area = "town"\n', "", "study.missing_key"),
    ("delay_months = 1", "delay_months = -1", "study.out_of_range.at_least"),
    ("delay_months = 1", "delay = 1", "study.unknown_key"),
    ('file = "h.csv"', 'file = "../h.csv"', "study.path_outside"),
    ('file = "u.csv"', 'file = "u.duckdb"', "study.missing_key"),
    ('"debt", "unemployment"]', '"debt", "unemploymnt"]', "study.unknown_column"),
    ('"sex", "household"]', '"sex", "household", "debt"]', "study.duplicate"),
    ('name = "household"', 'name = "debt"', "study.cuts_missing"),
    ('name = "household"', 'name = "household"\ncuts = [1]', "study.cuts_not_numeric"),
    ('exclude = { household = ["couple"]', 'exclude = { debt = ["1"]', "study.exclude_numeric"),
    ('exclude = { household = ["couple"]', 'exclude = { age = ["30"]', "study.exclude_numeric"),
    ('exclude = { household = ["couple"]', 'exclude = { hosehold = ["couple"]', "study.unknown_column"),
    ('exclude = { household = ["couple"]', "exclude = { household = []", "study.empty"),
    ('exclude = { household = ["couple"]', 'exclude = { household = "couple"', "study.wrong_type.list"),
    (
        "[data.areas.unemployment]\n",
        '[data.changes.extra]\nfile = "x.csv"\n[data.areas.unemployment]\n',
        "study.missing_key",
    ),
]


@pytest.mark.parametrize(("old", "new", "code"), FAULTS, ids=[f"{code}:{new[:40]}" for _, new, code in FAULTS])
def test_one_fault(old, new, code):
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    with pytest.raises(StudyError) as caught:
        parse(text)
    faults = caught.value.faults
    assert {fault.code for fault in faults} == {code}
    for fault in faults:
        assert fault.text("nl") != fault.text("en") and "{" not in fault.message("en")
        line = int(fault.place.removeprefix("study.toml line "))
        assert line <= len(text.splitlines())
    lines = [int(fault.place.removeprefix("study.toml line ")) for fault in faults]
    changed = text[: text.index(new)].count("\n") + 1 if new else 0
    assert code in ELSEWHERE or all(changed <= line <= changed + new.count("\n") for line in lines)


ELSEWHERE = ("study.missing_key", "study.cuts_missing")  # the table lacks something: its heading


def test_values_that_keep_people_out_are_codes_where_there_are_codes():
    coded = GOOD.replace('file = "h.csv"', 'file = "h.csv"\ncodes.value = { single = ["1"], couple = ["2"] }')
    parse(coded)
    for value in ("unknown", "missing"):
        parse(coded.replace('household = ["couple"]', f'household = ["{value}"]'))
    with pytest.raises(StudyError) as caught:
        parse(coded.replace('household = ["couple"]', 'household = ["cuople"]'))
    assert [fault.code for fault in caught.value.faults] == ["study.not_allowed"]
    assert "couple" in caught.value.faults[0].remedy("en")


def test_a_name_stands_for_one_table_only():
    text = GOOD.replace("[data.changes.place]", "[data.changes.unemployment]")
    with pytest.raises(StudyError) as caught:
        parse(text)
    (fault,) = caught.value.faults
    line = int(fault.place.removeprefix("study.toml line "))
    assert fault.code == "study.covariate_twice" and text.splitlines()[line - 1] == "[data.areas.unemployment]"


def test_an_area_may_be_told_by_a_table_of_changes():
    assert parse(GOOD.replace('area = "town"', 'area = "place"')).data.areas["unemployment"].area == "place"
