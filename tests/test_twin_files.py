"""A twin in the study's own layout: names, codes, notation; other kinds of sources; the study file; the command."""

from __future__ import annotations

import io
import json
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import twin_example as example
from command import process, within

from evalkit import register, simulate
from evalkit import study as studies
from evalkit.simulate.own_layout import own_code, study_text, table_files
from evalkit.study import Study
from evalkit.study.editing import edited

PERSONS = 1_500


def write_out(folder: Path, made: simulate.Made) -> Study:
    """The files of a twin in a folder; its study."""
    for name, content in made.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return studies.read(folder)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("own")
    made = example.study(folder)
    example.write(folder, example.tables(PERSONS), made)
    return made


@pytest.fixture(scope="module")
def made(own: Study) -> simulate.Made:
    return simulate.make(*simulate.gather(own.path), persons=800, seed=4)


def read_csv(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), sep=";", decimal=",", encoding="cp1252", dtype=str)


def test_names_codes_and_notation_are_the_users_own(made: simulate.Made, own: Study) -> None:
    tables = {f"gegevens/{name}" for name in example.FILES.values()}
    assert set(made.files) == tables | {"gegevens/truth.json", "aggregates.json", "study.toml"}
    people, spells, episodes, jobs = (read_csv(made.files[f"gegevens/{name}"]) for name in example.FILES.values())
    assert list(people) == ["klant", "gebjaar", "sekse", "inkomen", "opl", "aantekening", "land", "ploeg"]
    assert set(people["sekse"]) == {"m", "v"} and people["aantekening"].isna().all() and people["opl"].isna().any()
    assert set(spells["uitstroom"].dropna()) == {"01", "21", "other"}  # one own code for each fixed code
    assert spells["uitstroom"].isna().gt(spells["laatste dag"].isna()).any()  # reasons that nobody knows
    assert set(episodes["soort"]) == {"Café S1", "C"}
    assert spells["ingang"].str.fullmatch(r"\d\d/\d\d/\d{4}").all()
    assert spells["ingang"].equals(spells["ingevoerd"])
    assert jobs["loon"].str.fullmatch(r"\d+(,\d+)?").all() and people["klant"].str.fullmatch(r"T\d{6}").all()
    assert b"Caf\xe9" in made.files["gegevens/traject.csv"]
    assert list(people["klant"]) != sorted(people["klant"])


def test_the_twin_reads_and_runs_as_it_is(made: simulate.Made, tmp_path: Path) -> None:
    study = write_out(tmp_path, made)
    tables = register.read(study)
    assert len(tables.arrays("persons")["person"]) == 800 and not tables.quarantine
    again = simulate.aggregates(study, tables)
    assert again.instruments[0].type == "training" and study.title["en"].startswith("Synthetic twin: What does")
    assert study.text.startswith("# ") and "# My own study" in study.text


def test_every_other_source_becomes_csv(own: Study, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    openpyxl = pytest.importorskip("openpyxl")
    made = example.tables(600)
    study = example.study(
        tmp_path,
        persons='file = "in/klanten.parquet"',
        benefits='file = "register.duckdb"\ntable = "uitkering"   # in the database',
        episodes='file = "traject.xlsx"\nsheet = "2023"',
        jobs='database = "EVALKIT_TEST_DATABASE"\ntable = "banen"',
    )
    assert study.data is not None
    named = {
        table: frame.rename(columns={fixed: str(name) for fixed, name in study.data.tables[table].columns.items()})
        for table, frame in made.items()
    }
    folder = tmp_path / "gegevens"
    (folder / "in").mkdir(parents=True)
    named["persons"].to_parquet(folder / "in" / "klanten.parquet")
    connection = duckdb.connect(str(folder / "register.duckdb"))
    spells = named["benefits"]
    connection.execute("CREATE TABLE uitkering AS SELECT * FROM spells")
    connection.close()
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "2023"
    sheet.append(list(named["episodes"]))
    for row in named["episodes"].astype(object).where(named["episodes"].notna(), None).itertuples(index=False):
        sheet.append(list(row))
    book.save(folder / "traject.xlsx")
    assert len(spells) > 600
    lines = study.text.replace('database = "EVALKIT_TEST_DATABASE"\ntable = "banen"', 'file = "banen.csv"')
    named["jobs"].to_csv(folder / "banen.csv", sep=";", decimal=",", index=False, date_format="%d/%m/%Y")
    readable = studies.parse(lines, study.path)
    told = simulate.aggregates(readable, register.read(readable))
    twin = simulate.make(study, told)
    files = {"persons": "in/klanten.csv", "benefits": "register.csv", "episodes": "traject.csv", "jobs": "jobs.csv"}
    assert table_files(study) == files and twin.converted == tuple(files.values())
    text = twin.files["study.toml"].decode()
    assert "duckdb" not in text and "sheet" not in text and "EVALKIT_TEST_DATABASE" not in text
    again = write_out(tmp_path / "twin", twin)
    assert len(register.read(again).arrays("persons")["person"]) == 600


def test_two_tables_of_one_file_get_a_file_each(tmp_path: Path) -> None:
    one = 'file = "all.xlsx"\nsheet = "{}"'
    study = example.study(tmp_path, **{table: one.format(table) for table in example.FILES})
    names = table_files(study)
    assert names == {
        "persons": "all.csv", "benefits": "all_benefits.csv", "episodes": "all_episodes.csv", "jobs": "all_jobs.csv"
    }  # fmt: skip
    again = studies.parse(study_text(study), study.path)
    assert again.data is not None and {t: s.file for t, s in again.data.tables.items()} == names


def test_own_codes() -> None:
    assert own_code("work", {"01": "work", "02": "work", "*": "other"}) == "01"
    assert own_code("other", {"01": "work", "*": "other"}) == "other"
    assert own_code("other", {"other": "work", "*": "other"}) == "other_"
    assert own_code("none", {"": "none", "1": "some"}) == ""
    assert own_code("unknown", {"1": "some"}) == "unknown"


def test_the_clock_may_be_the_referral(own: Study, tmp_path: Path) -> None:
    study = studies.parse(own.text.replace("horizon = 12", 'horizon = 12\nclock = "referral"'), own.path)
    told = simulate.aggregates(study, register.read(study))
    assert told.clock == "referral"
    episodes = simulate.twin(told, 2_000, 1).episodes.query("type == 'training'")
    assert episodes["referral"].notna().all() and not (episodes["start"] < episodes["referral"]).any()
    assert (episodes["start"] > episodes["referral"]).mean() > 0.5
    twin = write_out(tmp_path, simulate.make(study, told))
    assert len(register.read(twin).arrays("episodes")["person"]) > 50


def test_events_have_no_end(own: Study, tmp_path: Path) -> None:
    event = "[treatment]\n", '[[instrument]]\nname = "training"\nkind = "event"\n[treatment]\n'
    study = studies.parse(own.text.replace(*event), own.path)
    told = simulate.aggregates(study, register.read(study))
    assert told.instruments[0].event and not told.instruments[0].planned
    episodes = simulate.twin(told, 2_000, 1).episodes
    assert episodes.query("type == 'training'")["end"].isna().all()
    assert episodes.query("type == 'coaching'")["end"].notna().any()


@pytest.mark.slow
def test_keys_of_several_columns_and_monthly_statements(tmp_path: Path) -> None:
    made = example.tables(800)
    study = example.study(tmp_path)
    text = study.text.replace('columns.person = "klant"', 'columns.person = ["S", "NR"]')
    text = text.replace('columns = { person = "klant"', 'columns = { person = ["S", "NR"]')
    text = text.replace('end = "laatste dag", reason', 'end = "laatste dag", month = "maand", reason')
    keyed = studies.parse(text, study.path)
    told = simulate.aggregates(study, register_of(study, made))
    drawn = simulate.make(keyed, told)
    spells = read_csv(drawn.files["gegevens/uitkering.csv"])
    assert set(spells["S"]) == {"T"} and spells["NR"].str.fullmatch(r"\d{6}").all()
    assert spells["maand"].str.fullmatch(r"\d{4}-\d\d").all() and len(spells) > 3 * 800
    twin = write_out(tmp_path / "twin", drawn)
    read = register.read(twin)
    plain = simulate.twin(told, 800, 1).benefits
    found = read.arrays("benefits")
    assert len(found["person"]) == pytest.approx(len(plain), rel=0.02)
    assert (found["reason"] == "work").sum() == pytest.approx((plain["reason"] == "work").sum(), rel=0.02)


def register_of(study: Study, made: dict[str, pd.DataFrame]) -> register.Register:
    example.write(study.path.parent, made, study)
    return register.read(study)


def test_the_users_code_lists_come_along(own: Study, tmp_path: Path) -> None:
    listed = "code;term;label_nl;label_en;source;verified;note\n7;work;Werk;Work;own;no;\n8;other;;;own;no;\n"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "bus_reason.csv").write_text(listed, "utf-8")
    (tmp_path / "lists" / "notes.txt").write_text(example.MARKER, "utf-8")
    text = own.text.replace('folder = "gegevens"', 'folder = "gegevens"\ncodelists = "lists"')
    text = text.replace("[data.benefits]\n", '[data.benefits]\nlayout = "bus"\n')
    text = text.replace('codes.reason = { work = ["01", "02"], education = ["21"], other = ["*"] }', "")
    text = text.replace('source = "exit:education"', 'source = "exit:other"')
    study = studies.parse(text, tmp_path / "study.toml")
    from evalkit.simulate.own_layout import code_lists

    assert code_lists(study) == {"lists/bus_reason.csv": listed.encode()}


def test_covariates_that_change_are_told_as_they_were_at_entry(own: Study, tmp_path: Path) -> None:
    made = example.tables(900)
    people = made["persons"]
    single = pd.DataFrame({"person": people["person"], "start": pd.Timestamp(2000, 1, 1), "value": "1"})
    single.loc[people.index[:300], "value"] = "2"
    few = single.iloc[:5].assign(start=pd.Timestamp(2001, 1, 1), value=example.MARKER)
    later = single.assign(start=pd.Timestamp(2024, 1, 1), value="9")  # after the window: never as it was
    table = '[data.changes.household]\nfile = "huis.csv"\n'
    table += 'columns = { person = "klant", start = "van", value = "soort" }\n'
    table += 'codes.value = { single = ["1"], couple = ["2"] }\n[spells]'
    text = own.text.replace("[spells]", table).replace('"nationality"]', '"nationality", "household"]')
    study = studies.parse(text, tmp_path / "study.toml")
    example.write(tmp_path, made, own)
    rows = pd.concat([single, few, later]).rename(columns={"person": "klant", "start": "van", "value": "soort"})
    rows.to_csv(tmp_path / "gegevens" / "huis.csv", sep=";", index=False, date_format="%d/%m/%Y")
    told = simulate.aggregates(study, register.read(study))
    column = told.columns[-1]
    assert (column.name, column.table) == ("household", "changes")
    assert {level.value: level.persons for level in column.levels} == {"single": 600, "couple": 300}
    twin = simulate.make(study, told)
    assert example.MARKER not in "".join(content.decode("cp1252") for content in twin.files.values())
    again = write_out(tmp_path / "twin", twin)
    tables = register.read(again)
    found = tables.arrays("changes.household")
    assert len(found["person"]) == 900 and set(found["value"]) == {"single", "couple"}
    known = dict(zip(found["person"], found["start"], strict=True))
    spells = tables.arrays("benefits")
    assert all(known[person] < start or start < pd.Timestamp(2015, 1, 1) for person, start in first_days(spells))


def first_days(spells: dict[str, Any]) -> list[tuple[str, Any]]:
    """The first day on benefit of every person."""
    frame = pd.DataFrame({"person": spells["person"], "start": spells["start"]})
    return list(frame.groupby("person")["start"].min().items())


# -- changing a study file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values", "without", "expected"),
    [
        ('a = "x" # kept\n', {("a",): "y"}, [], {"a": "y"}),
        ("t = { a = 'x', b = 1 }\n", {("t", "a"): 'q"q'}, [], {"t": {"a": 'q"q', "b": 1}}),
        ('t = { a = "x", b = 1, c = 2 }\n', {}, [("t", "b")], {"t": {"a": "x", "c": 2}}),
        ('t = { a = "x", c = 2 }\n', {}, [("t", "c")], {"t": {"a": "x"}}),
        ('[t]\na = "x"\nb = 1   # gone with it\nc = 2\n', {}, [("t", "b")], {"t": {"a": "x", "c": 2}}),
        ("[t]\r\nb = 1\r\nc = 2\r\n", {}, [("t", "b")], {"t": {"c": 2}}),
        ('u.t.db = "E"\nu.t.x = 1\n', {("u", "t", "f"): "n"}, [("u", "t", "db")], {"u": {"t": {"f": "n", "x": 1}}}),
        ('t = { db = "E", s = "p" }', {("t", "f"): "n"}, [("t", "db"), ("t", "s")], {"t": {"f": "n"}}),
        ('a = """long\ntext"""\nb = 1\n', {("a",): "s"}, [("nothing",)], {"a": "s", "b": 1}),
    ],
)
def test_edited(text: str, values: dict[Any, str], without: list[Any], expected: dict[str, Any]) -> None:
    assert tomllib.loads(edited(text, values, without)) == expected


def test_edited_keeps_comments() -> None:
    text = '# one\nt = { a = "x" } # two\n[u] # three\nb = "y"   # four\n'
    assert edited(text, {("t", "a"): "n", ("u", "b"): "m"}) == text.replace('"x"', '"n"').replace('"y"', '"m"')


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_from_study_to_results(own: Study, tmp_path: Path) -> None:
    wanted = ("--persons", 2500, "--effect", "0.5,1.5,4")
    done = process("simulate", "--like", own.path.parent, "--out", tmp_path / "twin", *wanted)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "twin" / "study.toml")
    assert "note" in done.stderr and "wages" in done.stderr and "privacy officer" in done.stderr
    twin = tmp_path / "twin"
    again = within("simulate", tmp_path / "again", "--like", twin, "--from", twin, *wanted, "-q")
    assert again.returncode == 0 and again.stderr == ""
    for name in example.FILES.values():  # aggregates and study file are enough, without the register
        one, two = (tmp_path / folder / "gegevens" / name for folder in ("twin", "again"))
        assert one.read_bytes() == two.read_bytes()
    checked = within("check", tmp_path / "twin", "-q")
    assert checked.returncode in (0, 4), checked.stderr
    true = json.loads((tmp_path / "twin" / "gegevens" / "truth.json").read_text("utf-8"))
    assert set(true) == {"left_to_work", "left", "education", "no_work", "in_job", "on_benefit"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["simulate"], "cli.simulate_where", 2),
        (["simulate", "a", "--out", "b"], "cli.simulate_where", 2),
        (["simulate", "a", "--effect", "1,2"], "cli.needs_like", 2),
        (["simulate", "a", "--from", "b"], "cli.needs_like", 2),
        (["simulate", "a", "--like", "b", "--variant", "null"], "cli.not_with_like", 2),
        (["simulate", "a", "--like", "b", "--effect", "x"], "twin.effect", 2),
        (["simulate", "a", "--like", "nowhere"], "study.file_missing", 2),
    ],
)
def test_wrong_commands(
    arguments: list[str], code: str, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = within(*arguments, EVALKIT_LANG="nl")
    assert done.returncode == exit_code and code in done.stderr and not list(tmp_path.iterdir())
