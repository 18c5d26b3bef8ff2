"""Layouts of Dutch sources: what they fill in, that it shows, and that nothing else changes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from layouts_example import CBS, LAYOUTS, cbs, write_layouts, write_plain
from typer.testing import CliRunner

from evalkit import doctor, layouts, register, study
from evalkit.cli import app
from evalkit.errors import DataError, StudyError
from evalkit.mapping import as_toml, propose
from evalkit.register.schema import COLUMNS, EXTRA
from evalkit.report.findings import check_sentence
from evalkit.report.view import View
from evalkit.run import run
from evalkit.study.rules import OPTIONAL, REQUIRED
from evalkit.text import LANGUAGES

ROOT = Path(__file__).parents[1]
PLAIN_SRG = 'columns = { person = "p", type = "t", start = "s", end = "e" }\ncodes.type = { other_workplace = ["29"] }'


def parse(text: str, old: str = "", new: str = "") -> study.Study:
    assert old in text
    return study.parse(text.replace(old, new) if old else text)


def codes(error: StudyError | DataError) -> list[str]:
    return [fault.code for fault in error.faults]


# -- what is shipped ------------------------------------------------------------------------------------------------


def test_every_layout_fits_the_schema_and_its_lists():
    for (name, table), layout in layouts.layouts().items():
        known = {*COLUMNS[table], *EXTRA.get(table, {}), "sex"}
        assert set(layout.columns) <= known, (name, table)
        assert set(layout.codes.values()) <= set(layouts.list_names())
        if table != "persons":
            assert set(layout.columns) <= {*REQUIRED[table], *OPTIONAL[table]}
    used = {codelist for layout in layouts.layouts().values() for codelist in layout.codes.values()}
    assert used == set(layouts.list_names())


@pytest.mark.parametrize("name", layouts.list_names())
def test_every_shipped_list_says_where_its_codes_come_from(name):
    codelist = layouts.shipped(name)
    assert not codelist.own and codelist.codes
    for row in codelist.codes:
        assert row.source and row.term
    for lang in LANGUAGES:
        assert set(codelist.labels(lang)) == {row.term for row in codelist.codes}


def test_lists_are_shipped_with_the_package():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert "**/*.csv" in setuptools["package-data"]["evalkit"]


def test_the_reasons_are_those_of_the_statistics():
    terms = list(layouts.shipped("bus_reason").by_term())
    assert terms == [
        "work", "self_employed", "education", "household", "pension_age", "other_benefit", "moved", "detention",
        "sanction", "death", "other", "unknown",
    ]  # fmt: skip
    assert len(layouts.shipped("bus_reason").unverified) == len(layouts.shipped("bus_reason").codes)


def test_verified_types_are_the_codes_that_were_seen():
    codelist = layouts.shipped("srg_type")
    verified = {row.code: row.term for row in codelist.codes if row.verified}
    assert {"23", "29", "30", "31", "59"} <= set(verified) and all(code.isdigit() for code in verified)
    assert not any(code.isdigit() for code in codelist.unverified)


def test_the_page_names_every_layout_list_and_column():
    page = (ROOT / "docs" / "layouts.md").read_text("utf-8")
    for layout in layouts.layouts().values():
        for own in layout.columns.values():
            for part in (own,) if isinstance(own, str) else own:
                assert part in page, part
    for name in layouts.list_names():
        assert f"`{name}`" in page


# -- filling in -----------------------------------------------------------------------------------------------------


def test_what_a_layout_fills_in():
    made = parse(LAYOUTS)
    benefits = made.data.benefits
    assert benefits.columns == {
        "person": "burgerservicenummer", "start": "datum_aanvang", "end": "datum_beeindiging",
        "reason": "reden_beeindiging", "scheme": "soort_uitkering",
    }  # fmt: skip
    assert benefits.codes["reason"]["work"][0] == "01"
    assert benefits.codes["reason"]["moved"] == ("verhuizing",)
    assert benefits.codes["scheme"]["bbz"][:2] == ("Bbz", "Bbz 2004")
    assert made.data.episodes.codes["type"]["job_coach"] == ("30",)
    assert made.labels["nl"]["job_coach"] == "Jobcoach of begeleiding op de werkplek"
    assert made.labels["en"]["reason:unknown"] == "Reason unknown"
    assert [(f.table, f.layout, len(f.columns)) for f in made.filled] == [
        ("benefits", "bus", 5),
        ("episodes", "srg", 4),
    ]
    (reason, scheme) = made.filled[0].codes
    assert (reason.codelist, reason.own, reason.count) == ("bus_reason", False, 19)
    assert reason.unverified == 19 and scheme.column == "scheme"
    assert made.protocol()["data"]["benefits"]["columns"]["end"] == "datum_beeindiging"
    assert "filled" not in made.protocol() and made.text == LAYOUTS


def test_own_columns_and_codes_win():
    text = LAYOUTS.replace(
        'codes.reason = { work = ["01"] }',
        'columns = { person = "sleutel", wet = "x" }\ncodes.reason = { gone = ["verhuizing", "werk"] }',
    ).replace(', wet = "x"', "")
    text = text.replace('"exit:work"', '"exit:gone"')
    benefits = parse(text).data.benefits
    assert benefits.columns["person"] == "sleutel" and benefits.columns["end"] == "datum_beeindiging"
    assert benefits.codes["reason"]["gone"] == ("verhuizing", "werk")
    assert "werk" not in benefits.codes["reason"]["work"] and "moved" not in benefits.codes["reason"]


def test_a_star_of_ones_own_takes_all_codes():
    made = parse(LAYOUTS, 'codes.reason = { work = ["01"] }', 'codes.reason = { work = ["01"], other = ["*"] }')
    assert made.data.benefits.codes["reason"] == {"work": ("01",), "other": ("*",)}
    assert [item.column for item in made.filled[0].codes] == ["scheme"]
    assert made.labels["en"]["reason:work"] == "Work as an employee"


def test_an_empty_column_is_left_out_with_its_codes():
    made = parse(LAYOUTS, 'codes.reason = { work = ["01"] }', 'columns.scheme = ""\ncodes.reason = { work = ["01"] }')
    assert "scheme" not in made.data.benefits.columns and "scheme" not in made.data.benefits.codes


def test_a_column_used_under_another_name_is_not_filled_in():
    made = parse(CBS.replace("KIND", "csv"), '[data.persons]\nfile = "gba.csv"', '[data.persons]\nfile = "gba.csv"\n')
    assert made.data.persons.columns["sex"] == "GBAGESLACHT"
    text = CBS.replace("KIND", "csv").replace('file = "gba.csv"', 'file = "gba.csv"\ncolumns.gender = "GBAGESLACHT"')
    made = parse(text.replace('categorical = ["sex"]', 'categorical = ["gender"]'))
    assert "sex" not in made.data.persons.columns and "sex" not in made.data.persons.codes


def test_own_labels_win():
    made = parse(LAYOUTS + '[labels.nl]\nother_workplace = "Werkplek"\n')
    assert made.labels["nl"]["other_workplace"] == "Werkplek"
    assert made.labels["en"]["other_workplace"] == "Other workplaces"


def test_a_study_without_layouts_is_what_it_was():
    made = study.parse(study.template("en"))
    assert made.filled == () and made.labels["nl"]["training"] == "Scholing"


FAULTY = {
    "unknown layout": ('layout = "bus"', 'layout = "buss"', "study.not_allowed", 'layout = "buss"'),
    "of another table": ('layout = "bus"', 'layout = "srg"', "study.not_allowed", 'layout = "srg"'),
    "empty": ('layout = "bus"', 'layout = ""', "study.empty", 'layout = ""'),
    "no text": ('layout = "bus"', "layout = 1", "study.wrong_type.text", "layout = 1"),
    "several columns": (
        'layout = "bus"',
        'layout = "bus"\ncolumns.start = ["a", "b"]',
        "study.several_columns",
        "columns.start",
    ),
    "no columns": ('layout = "bus"', 'layout = "bus"\ncolumns.person = []', "study.empty", "columns.person"),
    "column twice": (
        'layout = "bus"',
        'layout = "bus"\ncolumns.person = ["a", "a"]',
        "study.column_twice",
        "columns.person",
    ),
    "empty without layout": ('layout = "bus"', 'columns.household_id = ""\nlayout = "bus"', "study.empty", "columns.h"),
    "lists unused": (
        HEAD_OF := 'folder = "."',
        'folder = "."\ncodelists = "x"',
        "layouts.folder_missing",
        "codelists",
    ),
    "lists outside": (HEAD_OF, 'folder = "."\ncodelists = "../x"', "study.path_outside", "codelists"),
    "instrument not in the list": ('"other_workplace"', '"training"', "study.not_allowed", "instrument"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_faults_of_a_layout(case):
    old, new, code, line = FAULTY[case]
    with pytest.raises(StudyError) as caught:
        parse(LAYOUTS, old, new)
    (fault,) = caught.value.faults
    assert fault.code == code
    text = LAYOUTS.replace(old, new).splitlines()
    assert text[int(fault.place.rsplit(" ", 1)[1]) - 1].startswith(line)
    assert fault.text("nl") != fault.text("en")


def test_lists_without_a_layout_and_a_layout_for_areas():
    benefits = 'columns = { person = "p", start = "s", end = "e", reason = "r" }'
    text = LAYOUTS.replace('layout = "bus"', benefits).replace('layout = "srg"', PLAIN_SRG)
    with pytest.raises(StudyError) as caught:
        parse(text, 'folder = "."', 'folder = "."\ncodelists = "x"')
    assert codes(caught.value) == ["layouts.lists_unused"]
    area = """[data.areas.rate]
file = "a.csv"
layout = "bus"
area = "sex"
columns = { area = "a", month = "m", value = "v" }
"""
    with pytest.raises(StudyError) as caught:
        parse(LAYOUTS, "[treatment]", area + "[treatment]")
    assert "layouts.none_here" in codes(caught.value)


# -- the whole line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> tuple[dict, dict]:
    """The results of the municipality's own files, and of the same files as BUS and SRG."""
    plain, layout = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("layout")
    return run(write_plain(plain)).results.document, run(write_layouts(layout)).results.document


def test_layouts_change_no_number(town):
    plain, layout = town
    for part in ("flow", "gates", "profiles", "findings"):
        assert layout[part] == plain[part], part
    one, other = ([e for e in made["exhibits"] if not str(e.get("id")).startswith("instrument")] for made in town)
    assert one == other  # the overview of instruments has a row for every type that the study names
    ours = ("layout_filled", "codes_unverified", "srg_break_2019", "code_unused")
    rest = [{**check, "params": {}} for check in layout["checks"] if check["code"] not in ours]
    assert rest == [{**check, "params": {}} for check in plain["checks"] if check["code"] not in ours]


def test_the_results_say_what_was_filled_in(town):
    plain, layout = town
    study_part = layout["study"]
    assert study_part["text"] == LAYOUTS and "datum_aanvang" not in LAYOUTS
    assert study_part["protocol"]["data"]["benefits"]["columns"]["start"] == "datum_aanvang"
    assert study_part["protocol"]["data"]["episodes"]["codes"]["type"]["coaching"]
    found = [check for check in layout["checks"] if check["code"] == "layout_filled"]
    assert [(check["table"], check["count"], check["unit"]) for check in found] == [
        ("benefits", 5, "columns"), ("episodes", 4, "columns"),
    ]  # fmt: skip
    unverified = {c["params"]["codelist"]: c["count"] for c in layout["checks"] if c["code"] == "codes_unverified"}
    assert unverified == {"bus_reason": 19, "bus_scheme": 17, "srg_type": 4}
    assert not [check for check in plain["checks"] if check["code"] in ("layout_filled", "codes_unverified")]
    for lang in LANGUAGES:
        said = check_sentence(View(layout, lang), found[0], "say")
        assert "bus" in said and "datum" not in said and "person, start, end, reason, scheme" in said


@pytest.mark.parametrize("lang", LANGUAGES)
def test_labels_of_the_lists_reach_the_report(town, lang):
    view = View(town[1], lang)
    assert view.word("other_workplace") == {"nl": "Overige werkplekken", "en": "Other workplaces"}[lang]
    assert view.level("reason", "moved") == {"nl": "Verhuisd", "en": "Moved"}[lang]
    unused = next(c for c in town[1]["checks"] if c["code"] == "code_unused" and c["table"] == "benefits")
    assert {"nl": "Overleden (death)", "en": "Died (death)"}[lang] in check_sentence(view, unused, "say")


def test_check_prints_it(tmp_path):
    path = write_layouts(tmp_path)
    done = CliRunner().invoke(app, ["check", str(path), "--quiet", "--lang", "en"])
    assert "layout bus filled in columns" in done.stdout and "[layout_filled]" in done.stdout
    assert "srg_break_2019" in done.stdout and "srg_break_2023" not in done.stdout
    done = CliRunner().invoke(app, ["check", str(path), "--quiet", "--json"])
    assert json.loads(done.stdout)["study"]["protocol"]["data"]["jobs"] is None


def test_doctor_knows_layouts(tmp_path):
    path = write_layouts(tmp_path)
    text = doctor.examine(path).text("en")
    assert "benefits: the layout bus fills in the columns person, start, end, reason, scheme" in text
    assert "12 codes of type come from our code list srg_type, of which 4 were not verified" in text
    path.write_text(LAYOUTS.replace('layout = "srg"', 'layout = "srg"\ncolumns.end = "tot"'))
    diagnosis = doctor.examine(path)
    assert diagnosis.exit_code == 3 and "tot" in diagnosis.text("nl")


def test_a_column_of_the_layout_that_is_not_there(tmp_path):
    path = write_layouts(tmp_path)
    bus = tmp_path / "bus.csv"
    bus.write_text(bus.read_text().replace("soort_uitkering", "soort_uitk"))
    with pytest.raises(DataError) as caught:
        register.read(study.read(path))
    assert codes(caught.value) == ["data.missing_columns"]
    assert "soort_uitkering" in caught.value.text("en") and "soort_uitk" in caught.value.text("en")


def test_the_scheme_is_kept_and_can_keep_people_out(tmp_path):
    path = write_layouts(tmp_path)
    kept = register.read(study.read(path)).arrays("benefits")["scheme"]
    assert set(kept) == {"participation_act", "bbz"}
    more = '[data.changes.scheme]\nfile = "bus.csv"\nlayout = "bus"\n[treatment]'
    text = LAYOUTS.replace("[treatment]", more).replace(
        "[eligibility]", '[eligibility]\nexclude = { scheme = ["bbz"] }'
    )
    path.write_text(text.replace('categorical = ["sex"]', 'categorical = ["sex", "scheme"]'))
    made = study.read(path)
    assert made.data.changes["scheme"].columns["value"] == "soort_uitkering"
    assert made.labels["en"]["scheme:bbz"] == "Bbz (self-employed)"
    document = run(path).results.document
    assert [row for row in document["flow"] if row["kind"] == "out" and "excluded" in row["reason"]]


# -- breaks in the series -------------------------------------------------------------------------------------------


def episodes_from(days: list[str], first: str, last: str, layout: str) -> list[str]:
    """Codes of the checks on a register whose episodes begin on some days."""
    text = LAYOUTS.replace("2018-01-01", first).replace("2021-12-31", last).replace('layout = "srg"', layout)
    made = study.parse(text)
    persons = pd.DataFrame({"person": [f"p{i}" for i in range(len(days))], "sex": "man", "birth_year": 1980})
    benefits = persons[["person"]].assign(start=pd.Timestamp(first), end=pd.NaT, reason=None, scheme="ioaw")
    kinds = persons[["person"]].assign(type="other_workplace", start=pd.to_datetime(days), end=pd.NaT)
    found = register.from_frames(made, persons=persons, benefits=benefits, episodes=kinds).findings
    return [check.code for check in found if check.code.startswith("srg_break")]


BREAKS = [
    (["2018-12-31", "2019-01-01"], "2017-01-01", "2021-12-31", 'layout = "srg"', ["srg_break_2019"]),
    (["2022-12-31", "2023-01-01"], "2019-01-01", "2024-12-31", 'layout = "srg"', ["srg_break_2023"]),
    (["2018-05-01", "2023-05-01"], "2017-01-01", "2024-12-31", 'layout = "srg"', ["srg_break_2019", "srg_break_2023"]),
    (["2018-05-01", "2018-12-31"], "2017-01-01", "2021-12-31", 'layout = "srg"', []),
    (["2019-01-01", "2020-12-31"], "2017-01-01", "2021-12-31", 'layout = "srg"', []),
    (["2019-01-01", "2022-12-31"], "2019-01-01", "2022-12-31", 'layout = "srg"', []),
    (["2018-05-01", "2023-05-01"], "2017-01-01", "2024-12-31", PLAIN_SRG, []),
]


@pytest.mark.parametrize(("days", "first", "last", "layout", "expected"), BREAKS)
def test_breaks_in_the_series(days, first, last, layout, expected):
    assert episodes_from(days, first, last, layout) == expected


# -- a proposal -----------------------------------------------------------------------------------------------------


def test_map_proposes_layouts(tmp_path):
    write_layouts(tmp_path)
    tables_found = {
        table.table: table for table in propose([tmp_path / "bus.csv", tmp_path / "srg.csv", tmp_path / "p.csv"]).tables
    }
    bus, srg = tables_found["benefits"], tables_found["episodes"]
    assert (bus.layout, srg.layout, tables_found["persons"].layout) == ("bus", "srg", "")
    assert bus.columns == {} and srg.columns == {"planned_end": "planned_end", "referral": "referral"}
    assert bus.codes["reason"].placed == {} and bus.codes["reason"].unplaced == ("01",)
    text = as_toml(propose([tmp_path / "bus.csv", tmp_path / "srg.csv", tmp_path / "p.csv"]), "en", tmp_path)
    assert 'layout = "bus"' in text and "docs/layouts.md" in text
    tomllib.loads(text)


def test_map_proposes_the_layout_of_microdata(tmp_path):
    for name, frame in cbs(False).items():
        if name == "bijstand":
            frame.columns = [column.lower() for column in frame.columns]
        if name == "spolis":
            frame = frame.drop(columns="SCONTRACTSOORT")
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    found = {table.table: table for table in propose(sorted(tmp_path.glob("*.csv"))).tables}
    assert {name: table.layout for name, table in found.items()} == dict.fromkeys(COLUMNS_OF, "cbs")
    assert found["persons"].columns == {} and found["persons"].missing == ()
    assert found["benefits"].columns["person"] == ("rinpersoons", "rinpersoon")
    assert found["jobs"].columns == {"contract": ""}
    text = as_toml(propose(sorted(tmp_path.glob("*.csv"))), "nl", tmp_path)
    assert tomllib.loads(text)["data"]["benefits"]["columns"]["person"] == ["rinpersoons", "rinpersoon"]


COLUMNS_OF = ("persons", "benefits", "episodes", "jobs")
