"""What evalkit map proposes for unknown files, and what it never shows."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from register_example import bsn
from typer.testing import CliRunner

from evalkit import simulate
from evalkit.cli import app
from evalkit.mapping import as_toml, insert, propose
from evalkit.mapping.content import holders, judge
from evalkit.mapping.propose import fold, likeness, sort_codes, words
from evalkit.register.schema import COLUMNS, EXTRA, TABLES
from evalkit.study import FILE_NAME, parse, template
from evalkit.text import LANGUAGES

PERSONS = 200
DRAW = random.Random(3)
SECRET = "Geheimenaam"


def day() -> str:
    return f"{DRAW.randint(1, 28):02d}/{DRAW.randint(1, 12):02d}/{DRAW.randint(2015, 2022)}"


def files(folder: Path) -> list[Path]:
    """Exports with names of their own, as a municipality gives them."""
    keys = [f"K{i:05d}" for i in range(PERSONS)]
    people = pd.DataFrame({"Cliëntnr": keys})
    people["Achternaam"] = [f"{SECRET}{i}" for i in range(PERSONS)]
    people["Geboortedatum"] = [day() for _ in keys]
    people["Geb. jaar"] = [DRAW.randint(1950, 2000) for _ in keys]
    people["M/V geslacht"] = [DRAW.choice("mv") for _ in keys]
    people["Zaaknummer"] = [f"Z{DRAW.randint(10**6, 10**7)}" for _ in keys]
    spells = pd.DataFrame({"Cliëntnr": keys, "Datum ingang": [day() for _ in keys], "Datum beëindiging": ""})
    spells["Reden beëindiging"] = ["Werk in loondienst"] * 90 + ["34"] * 60 + ["Verhuisd"] * 45 + [SECRET] * 5
    parts = pd.DataFrame({"Klant-ID": keys[:100], "Startdatum": [day() for _ in range(100)]})
    parts["Verwachte einddatum"] = [day() for _ in range(100)]
    parts["Einddatum"] = [day() for _ in range(100)]
    parts["Soort voorziening"] = ["S1"] * 50 + ["29"] * 46 + ["zz1", "zz2", "zz3", "zz4"]
    jobs = pd.DataFrame({"persoon": keys[:50], "start": [day() for _ in range(50)], "einde": ""})
    jobs["uren per week"] = ["32,5"] * 50
    made = []
    for name, frame in (("A1", people), ("WWB_uitk", spells), ("export-12", parts), ("x", jobs)):
        frame.to_csv(folder / f"{name}.csv", sep=";", index=False, encoding="cp1252")
        made.append(folder / f"{name}.csv")
    return made


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("town") / "data"
    folder.mkdir()
    return files(folder)


def test_tables_columns_and_codes(town: list[Path]) -> None:
    tables = {table.table: table for table in propose(town[::-1]).tables}
    assert list(tables) == list(TABLES)
    persons, benefits, episodes, jobs = tables.values()
    assert persons.columns == {"person": "Cliëntnr", "birth_year": "Geb. jaar", "sex": "M/V geslacht"}
    assert persons.identifying == ("Achternaam",) and persons.unused == ("Zaaknummer",)
    assert persons.birth_date == "Geboortedatum" and persons.categorical == ("sex",)
    assert benefits.columns == {
        "person": "Cliëntnr", "start": "Datum ingang", "end": "Datum beëindiging", "reason": "Reden beëindiging",
    }  # fmt: skip
    codes = benefits.codes["reason"]
    assert codes.placed == {"work": ("Werk in loondienst",), "moved": ("Verhuisd",)}
    assert codes.unplaced == ("34",) and (codes.hidden, codes.hidden_rows) == (1, 5)
    assert episodes.columns == {
        "person": "Klant-ID", "type": "Soort voorziening", "start": "Startdatum", "end": "Einddatum",
        "planned_end": "Verwachte einddatum",
    }  # fmt: skip
    assert episodes.codes["type"].placed == {"s1": ("S1",), "type_29": ("29",)}
    assert (episodes.codes["type"].hidden, episodes.codes["type"].hidden_rows) == (4, 4)
    assert jobs.columns == {"person": "persoon", "start": "start", "end": "einde", "hours": "uren per week"}
    assert propose(town).date == "%d/%m/%Y" and propose(town).decimal == ","


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_text_is_toml_and_shows_no_values(town: list[Path], lang: str) -> None:
    text = as_toml(propose(town), lang, town[0].parents[1])
    data = tomllib.loads(text)["data"]
    assert data["folder"] == "data" and data["persons"]["file"] == "A1.csv"
    assert data["benefits"]["codes"]["reason"]["work"] == ["Werk in loondienst"]
    assert SECRET not in text and "zz1" not in text
    for path in town:
        frame = pd.read_csv(path, sep=";", dtype=str, encoding="cp1252")
        coded = ("Reden beëindiging", "Soort voorziening")
        for name in frame.columns.difference(coded):
            for value in frame[name].dropna().unique():
                assert len(value) < 3 or value not in text, name
    common = as_toml(propose(town, minimum=1000), lang, minimum=1000)
    assert "loondienst" not in common and "S1" not in common


def test_into_a_study_file_changes_nothing_of_it(town: list[Path]) -> None:
    for ending in ("\n", "\r\n"):
        for lang in LANGUAGES:
            before = template(lang).replace("\n", ending)
            once = insert(before, as_toml(propose(town), lang))
            assert once.startswith(before.rstrip("\n"))
            assert tomllib.loads(once) == tomllib.loads(before)
            assert parse(once).protocol() == parse(before).protocol()
            assert insert(once, as_toml(propose(town), lang)) == once
            lines = once[len(before) :].splitlines()
            assert [line for line in lines if line and not line.startswith("#")] == []
            assert lines[-1] == "# <<< evalkit map"


def test_signs_taken_away_it_is_a_study(town: list[Path]) -> None:
    text = as_toml(propose(town), "nl", town[0].parents[1])
    block = insert("", text).replace(
        "# window = { first = 2015-01-01, last = 2023-12-31 }", "window = { first = 2015-01-01, last = 2023-12-31 }"
    )
    active = "\n".join(
        line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in block.splitlines()
    )
    rest = (
        """
title = { en = "x" }
seed = 1
languages = ["en"]
"""
        + active
        + """
[time]
horizon = 12
[treatment]
instrument = "s1"
[[outcome]]
name = "w"
kind = "event"
source = "exit:work"
primary = true
[covariates]
categorical = ["sex"]
[[analysis]]
id = "main"
method = "matching"
"""
    )
    from evalkit import register

    study = parse(rest, town[0].parents[1] / FILE_NAME)
    read = register.read(study)
    assert len(read.arrays("persons")["person"]) == PERSONS
    assert len(read.arrays("jobs")["person"]) == 50


def test_simulated_files_are_recognised(tmp_path: Path) -> None:
    simulate.write(tmp_path, simulate.draw(simulate.SMALL, 500, 1))
    tables = {table.table: table for table in propose(sorted(tmp_path.glob("*.csv"))).tables}
    assert {"persons", "benefits", "episodes"} <= set(tables)
    data = tomllib.loads(template("nl"))["data"]
    for name in ("persons", "benefits", "episodes"):
        wanted = data[name]["columns"]
        assert {k: v for k, v in tables[name].columns.items() if k in wanted} == wanted


def test_numbers_are_refused_and_not_shown(tmp_path: Path) -> None:
    numbers = bsn(50)
    text = "BSN;geboortejaar;geslacht\n" + "".join(f"{number};1980;m\n" for number in numbers)
    (tmp_path / "personen.csv").write_text(text, "utf-8")
    (table,) = propose([tmp_path / "personen.csv"]).tables
    assert table.bsn == (1,) and "person" not in table.columns and table.missing == ("person",)
    shown = as_toml(propose([tmp_path / "personen.csv"]), "nl")
    assert not any(number.lstrip("0") in shown for number in numbers) and "GEWEIGERD" in shown


def test_a_first_line_that_is_a_person(tmp_path: Path) -> None:
    rows = "".join(f"K{i};{SECRET}{i};01-01-2020;m\n" for i in range(30))
    (tmp_path / "a.csv").write_text(rows, "utf-8")
    (table,) = propose([tmp_path / "a.csv"]).tables
    assert not table.trusted
    text = as_toml(propose([tmp_path / "a.csv"]), "nl")
    assert SECRET not in text and "K0" not in text and "eerste regel" in text


def test_names_that_could_break_the_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"pseudoniem": [f"k{i}" for i in range(40)], 'ge"slacht\n]': ["m", "v"] * 20})
    frame["geslacht"] = ["m", "v"] * 20
    frame['x\n[evil]\ny = "'] = 1
    path = tmp_path / 'per"soon.csv'
    frame.to_csv(path, sep=";", index=False)
    text = as_toml(propose([path]), "en")
    assert set(tomllib.loads(text)) == {"data"}
    assert tomllib.loads(insert("a = 1\n", text)) == {"a": 1}


def test_tables_of_a_database_and_sheets(town: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    with duckdb.connect(str(tmp_path / "r.duckdb")) as connection, pd.ExcelWriter(tmp_path / "r.xlsx") as book:
        for path in town:
            frame = pd.read_csv(path, sep=";", dtype=str, encoding="cp1252")
            connection.register("f", frame)
            connection.execute(f'CREATE TABLE "{path.stem}" AS SELECT * FROM f')
            frame.to_excel(book, sheet_name=path.stem, index=False)
    for name, key in (("r.duckdb", "table"), ("r.xlsx", "sheet")):
        data = tomllib.loads(as_toml(propose([tmp_path / name]), "en"))["data"]
        assert {data[table]["file"] for table in TABLES} == {name}
        assert data["benefits"][key].endswith("WWB_uitk")


def test_words_belong_to_the_schema() -> None:
    for table in ("benefits", "episodes", "jobs"):
        assert set(words()[table]) <= {*COLUMNS[table], *EXTRA[table]}, table
    assert {"birth_year"} <= set(words()["persons"])
    for name, group in words().items():
        if name != "identifying":
            assert all(group.values()), name


def test_likeness() -> None:
    assert fold("Cliënt-Nr. 2") == "clientnr2"
    assert likeness("Datum beëindiging", ["datumbeeindiging"]) >= 1
    assert 0.7 <= likeness("dt_startdatum_x", ["startdatum"]) < 1
    assert likeness("werkplek", ["werk*"]) >= 1
    assert likeness("kwartaal", ["start"]) == 0


def test_kinds_of_content() -> None:
    def kind(values: list[object]) -> str:
        return judge(pa.chunked_array([pa.array(values)])).kind

    assert kind(["01-02-2020", "", None]) == "date"
    assert kind([1980, 1990]) == "year" and kind([1980.0, None]) == "year"
    assert kind(["1,5", "2"]) == "number" and kind(["", None]) == "empty"
    assert kind(["a", "b"] * 10) == "code" and kind([f"k{i}" for i in range(200)]) == "text"
    assert kind(bsn(20)) == "bsn"
    few = judge(pa.chunked_array([pa.array(["a"] * 12 + ["b"] * 3)]))
    assert sort_codes(few, "type", 10).placed == {"a": ("a",)} and "b" not in repr(few.counts[:1])
    assert "a" not in repr(few).replace("Content", "").replace("date", "").replace("decimal", "").split("counts")[-1]


def test_the_command(town: list[Path], tmp_path: Path) -> None:
    names = [str(path) for path in town]
    printed = CliRunner().invoke(app, ["map", *names, "--lang", "nl"])
    assert printed.exit_code == 0 and "[data.benefits]" in printed.stdout
    missing = CliRunner().invoke(app, ["map", *names, "--into", str(tmp_path)])
    assert missing.exception is not None and "map.no_study" in str(missing.exception)
    study = town[0].parents[1] / FILE_NAME
    study.write_text(template("en"), "utf-8")
    done = CliRunner().invoke(app, ["map", *names, "--into", str(study.parent), "--lang", "en"])
    assert done.exit_code == 0 and done.stdout.strip() == str(study)
    assert parse(study.read_text("utf-8")) and 'file = "A1.csv"' in study.read_text("utf-8")


def test_a_code_is_shown_when_enough_persons_have_it() -> None:
    """One person with a code ten times is one person; blanks around a code make no other code."""
    codes = pa.chunked_array([pa.array(["S1"] * 12 + ["S1 ", SECRET, None, "NULL"] + [SECRET] * 20)])
    people = [f"p{i}" for i in range(12)] + ["p0", "p1", "p2", "p3", *["p1"] * 10, *["p4", ""] * 5]
    assert holders(codes, pa.chunked_array([pa.array(people)])) == {"S1": 12, SECRET: 2}
    shown = sort_codes(judge(codes), "type", 10, holders(codes, pa.chunked_array([pa.array(people)])))
    assert shown.placed == {"s1": ("S1",)} and (shown.hidden, shown.hidden_rows) == (1, 21)
    whole = pa.chunked_array([pa.array([1.0, 2.0, None, 1.0])])
    assert holders(whole, pa.chunked_array([pa.array([7, 7, 7, 8])])) == {"1": 2, "2": 1}


def test_a_code_of_one_person_in_a_file_is_not_shown(tmp_path: Path) -> None:
    rows = "klant;soort;van;tot\n" + "".join(f"k{i};S1;01-02-2016;01-05-2016\n" for i in range(30))
    rows += f"k1;{SECRET};01-02-2017;01-05-2017\n" * 30
    (tmp_path / "trajecten.csv").write_text(rows, "utf-8")
    assert SECRET not in as_toml(propose([tmp_path / "trajecten.csv"]), "nl")
    assert '"S1"' in as_toml(propose([tmp_path / "trajecten.csv"]), "nl")
