"""Sources: every kind of file and database gives the register that the CSV files of the same data give."""

from __future__ import annotations

import datetime as dt
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from register_example import BENEFITS, EPISODES, MARKER, PERSONS, TABLE, TABLE_STUDY, bsn, write, write_table
from typer.testing import CliRunner

from evalkit import register, study
from evalkit.cli import app
from evalkit.errors import DataError, StudyError
from evalkit.register.dialect import Dialect, date_format, decimal_mark
from evalkit.register.sources import database
from evalkit.register.sources.packages import load

openpyxl = pytest.importorskip("openpyxl")
pyreadstat = pytest.importorskip("pyreadstat")

TABLES = {"personen": PERSONS, "uitkering": BENEFITS, "trajecten": EPISODES}
DAYS = ("ingang", "laatste_dag", "van", "tot", "gepland")
OPEN = dt.date(9999, 12, 31)
SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def frames(last: bool = False) -> dict[str, pd.DataFrame]:
    """The example with types: dates, numbers, text; an open end is given as the last day there is."""
    made = {}
    for name, text in TABLES.items():
        frame = pd.read_csv(io.StringIO(text), sep=";", dtype=str, keep_default_na=False)
        for column in frame.columns.intersection(DAYS):
            days = [dt.datetime.strptime(day, "%d-%m-%Y").date() if day else None for day in frame[column]]
            if last and column == "laatste_dag":
                days = [day or OPEN for day in days]
            frame[column] = pd.Series(days, dtype=object)
        for column in frame.columns.intersection(["gebjaar", "inkomen"]):
            plain = frame[column].str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
            frame[column] = pd.to_numeric(plain)
        made[name] = frame
    return made


def plan(folder: Path, extra: dict[str, str]) -> study.Study:
    """The study of the example with other sources: by table what stands instead of ``file = ...``."""
    text = write(folder).text
    for name, source in extra.items():
        text = text.replace(f'file = "{name}.csv"', source)
    return study.parse(text, folder / "study.toml")


def same(one: register.Register, other: register.Register) -> None:
    for table in ("persons", "benefits", "episodes"):
        a, b = one.arrays(table), other.arrays(table)
        assert list(a) == list(b)
        for name in a:
            assert a[name].dtype == b[name].dtype, name
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert [i.rows for i in one.inputs] == [i.rows for i in other.inputs]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> register.Register:
    return register.read(write(tmp_path_factory.mktemp("plain")))


def sheet(frame: pd.DataFrame, path: Path, *others: str, start: int = 0) -> None:
    with pd.ExcelWriter(path) as writer:
        frame.to_excel(writer, sheet_name="gegevens", index=False, startrow=start)
        for name in others:
            pd.DataFrame({"x": [1]}).to_excel(writer, sheet_name=name, index=False)


WRITERS = {
    "parquet": lambda frame, path: frame.to_parquet(path, index=False),
    "dta": pyreadstat.write_dta,
    "sav": pyreadstat.write_sav,
    "zsav": lambda frame, path: pyreadstat.write_sav(frame, path, compress=True),
    "xpt": pyreadstat.write_xport,
    "xlsx": sheet,
}  # sas7bdat cannot be written by any open tool; it is read by the same function of the same package


@pytest.mark.parametrize("kind", WRITERS)
def test_files_give_the_same_arrays(kind: str, tmp_path: Path, plain: register.Register) -> None:
    source = plan(tmp_path, {name: f'file = "{name}.{kind}"' for name in TABLES})
    for name, frame in frames().items():
        if kind == "xpt":  # names of eight characters at most
            frame = frame.rename(columns={"pseudoniem": "pseudon", "laatste_dag": "laatste"})
        WRITERS[kind](frame, tmp_path / "data" / f"{name}.{kind}")
    if kind == "xpt":
        text = source.text.replace('"pseudoniem"', '"pseudon"').replace('"laatste_dag"', '"laatste"')
        source = study.parse(text, source.path)
    read = register.read(source)
    same(read, plain)
    assert all(len(file.sha256) == 64 for file in read.inputs)


def test_por_and_old_encodings(tmp_path: Path) -> None:
    frame = pd.DataFrame({"NR": ["0001", "0002"], "X": [1.0, 2.5]})
    pyreadstat.write_por(frame, tmp_path / "p.por")
    from evalkit.register.sources import read_source
    from evalkit.study import Format, Source

    raw = read_source(Source(file="p.por"), tmp_path, Format(), "data.persons")
    assert raw.kind == "spss" and raw.table.column("c0").to_pylist() == ["0001", "0002"]


def test_sas7bdat_goes_to_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: register.Register) -> None:
    """The file cannot be made, so the package's reader is stood in for by one that gives what it gives."""
    source = plan(tmp_path, {"personen": 'file = "personen.sas7bdat"'})
    (tmp_path / "data" / "personen.sas7bdat").write_bytes(b"x")
    frame = frames()["personen"]
    values = {name: [None if v != v else v for v in frame[name].tolist()] for name in frame}
    monkeypatch.setattr(pyreadstat, "read_sas7bdat", lambda path, output_format: (values, None))
    same(register.read(source), plain)


def test_excel_sheets_and_rows_above(tmp_path: Path, plain: register.Register) -> None:
    book = tmp_path / "data" / "personen.xlsx"
    source = plan(tmp_path, {"personen": 'file = "personen.xlsx"'})
    named = plan(tmp_path, {"personen": 'file = "personen.xlsx"\nsheet = "gegevens"'})
    sheet(frames()["personen"], book, start=3)
    same(register.read(source), plain)
    sheet(frames()["personen"], book, "uitleg")
    same(register.read(named), plain)
    with pytest.raises(DataError) as caught:
        register.read(source)
    assert [fault.code for fault in caught.value.faults] == ["data.sheet"]
    wrong = plan(tmp_path, {"personen": 'file = "personen.xlsx"\nsheet = "gegeven"'})
    with pytest.raises(DataError) as caught:
        register.read(wrong)
    assert "gegevens" in caught.value.text("nl")


def test_excel_of_mixed_cells_is_text_in_the_notation_of_the_study(tmp_path: Path) -> None:
    source = plan(tmp_path, {"personen": 'file = "personen.xlsx"'})
    frame = frames()["personen"].astype(object)
    frame.loc[0, "inkomen"] = "onbekend"
    frame.loc[1, "pseudoniem"] = 2  # a number among texts
    sheet(frame, tmp_path / "data" / "personen.xlsx")
    text = BENEFITS.replace("\n0002;", "\n2;")
    (tmp_path / "data" / "uitkering.csv").write_text(text, "utf-8")
    read = register.read(source)
    assert read.arrays("persons")["person"].tolist() == ["0001", "0003", "0010", "2"]
    np.testing.assert_array_equal(read.arrays("persons")["income"], [np.nan, np.nan, -3, 12.5])
    assert ("number_unreadable", 1) in [(check.code, check.count) for check in read.findings]


def test_excel_formulas_that_were_never_computed(tmp_path: Path) -> None:
    source = plan(tmp_path, {"personen": 'file = "personen.xlsx"'})
    frame = frames()["personen"].astype(object)
    frame["inkomen"] = [f"=A{i + 2}*1" for i in range(len(frame))]
    sheet(frame, tmp_path / "data" / "personen.xlsx")
    with pytest.raises(DataError) as caught:
        register.read(source)
    assert [fault.code for fault in caught.value.faults] == ["data.formulas"]


# -- databases ------------------------------------------------------------------------------------------------------


def duck(path: Path, tables: dict[str, pd.DataFrame], schema: str = "main") -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        for name, frame in tables.items():
            connection.register("__frame", frame)
            connection.execute(f"CREATE TABLE {schema}.{name} AS SELECT * FROM __frame")


def test_duckdb_gives_the_same_arrays(tmp_path: Path, plain: register.Register) -> None:
    tables = {name: pa.Table.from_pandas(frame, preserve_index=False) for name, frame in frames().items()}
    wanted = {name: f'file = "register.duckdb"\ntable = "{name}"' for name in TABLES}
    source = plan(tmp_path, wanted)
    duck(tmp_path / "data" / "register.duckdb", tables)
    before = (tmp_path / "data" / "register.duckdb").read_bytes()
    same(register.read(source), plain)
    assert (tmp_path / "data" / "register.duckdb").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "data").iterdir() if "duckdb" in p.name) == ["register.duckdb"]


def test_duckdb_schema_infinity_and_long_keys(tmp_path: Path, plain: register.Register) -> None:
    file = tmp_path / "data" / "register.duckdb"
    source = plan(tmp_path, {"uitkering": 'file = "register.duckdb"\ntable = "soza.uitkering"'})
    frame = pa.Table.from_pandas(frames()["uitkering"], preserve_index=False)
    duck(file, {"uitkering": frame}, "soza")
    with duckdb.connect(str(file)) as connection:
        connection.execute("UPDATE soza.uitkering SET laatste_dag = 'infinity' WHERE laatste_dag IS NULL")
        connection.execute("CREATE TABLE keys AS SELECT 12345678901234567890123::HUGEINT AS k, [1] AS l")
        connection.execute("CREATE TABLE other AS SELECT 1 AS k")
    read = register.read(source)
    same(read, plain)
    assert "open_end" in [check.code for check in read.findings]
    raw = database.read_duckdb(file, "keys", "data.persons")
    assert raw.table.column("c0").to_pylist() == ["12345678901234567890123"] and raw.unreadable == ("l",)
    with pytest.raises(DataError) as caught:
        database.read_duckdb(file, "uitkeringen", "data.persons")
    assert caught.value.faults[0].params["nearest"] == "uitkering"


def test_a_duckdb_view_reaches_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with duckdb.connect(str(tmp_path / "r.duckdb")) as connection:
        connection.execute(f"CREATE VIEW v AS SELECT * FROM read_csv('{tmp_path}/secret.csv')")
    with pytest.raises(DataError) as caught:
        database.read_duckdb(tmp_path / "r.duckdb", "v", "data.persons")
    assert caught.value.faults[0].code == "data.unreadable_file"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The connection string of a PostgreSQL server that listens to a socket in a folder of its own only."""
    if not SERVERS:
        pytest.skip("PostgreSQL is not installed (/usr/lib/postgresql/*/bin/initdb)")
    pytest.importorskip("psycopg")
    programs = SERVERS[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # the path of a socket must be short
    folder.chmod(0o777)
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []

    def call(program: str, *arguments: str) -> int:
        command = [*user, str(programs / program), "-D", str(folder / "db"), *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=60).returncode

    try:
        if call("initdb", "-A", "trust", "-N", "-U", "postgres", "-E", "UTF8", "--locale=C"):
            pytest.skip("initdb does not work here")
        options = f"-c listen_addresses='' -k {folder} -c fsync=off"
        if call("pg_ctl", "-w", "-o", options, "-l", str(folder / "log"), "start"):
            pytest.skip("the PostgreSQL server does not start here")
        yield f"host={folder} user=postgres dbname=postgres"
    finally:
        call("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


PG_TYPES = {"pseudoniem": "varchar(8)", "gebjaar": "smallint", "inkomen": "numeric"}


@pytest.fixture(scope="module")
def filled(server: str) -> str:
    import psycopg

    with psycopg.connect(server) as connection:
        for name, frame in frames().items():
            kinds = [PG_TYPES.get(c, "date" if c in DAYS else "text") for c in frame.columns]
            fields = ", ".join(f"{c} {k}" for c, k in zip(frame.columns, kinds, strict=True))
            connection.execute(f"CREATE TABLE {name} ({fields})")
            for row in frame.astype(object).where(frame.notna(), None).to_numpy().tolist():
                connection.execute(f"INSERT INTO {name} VALUES ({', '.join(['%s'] * len(row))})", row)
        connection.execute(
            """CREATE TABLE kinds AS SELECT 1::numeric(9,0) AS a, 12345678901234567890::numeric AS b, 1.5::numeric AS c,
            true AS d, '\\x00'::bytea AS e, 'infinity'::date AS f, timestamptz '2020-01-02 03:04+00' AS g,
            1.5::real AS h, E'a"b\\nc;,' AS i, NULL::text AS j, ''::text AS k,
            array[1] AS l, 'infinity'::timestamp AS m"""
        )
        connection.execute("UPDATE uitkering SET laatste_dag = 'infinity' WHERE pseudoniem = '0002'")
    return server


def test_postgres_gives_the_same_arrays(
    filled: str, tmp_path: Path, plain: register.Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWN_DATABASE", filled)
    wanted = {name: f'database = "TOWN_DATABASE"\ntable = "{name}"' for name in TABLES}
    source = plan(tmp_path, {**wanted, "trajecten": 'database = "TOWN_DATABASE"\ntable = "public.trajecten"'})
    read = register.read(source)
    same(read, plain)
    again = register.read(source)
    assert [file.sha256 for file in again.inputs] == [file.sha256 for file in read.inputs]
    assert all(len(file.sha256) == 64 for file in read.inputs)
    assert filled not in repr(source.protocol()) and [file.name for file in read.inputs][0] == "personen"


def test_postgres_types(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWN_DATABASE", filled)
    raw = database.read_postgres("TOWN_DATABASE", "kinds", "data.persons")
    values = {name: raw.table.column(f"c{i}").to_pylist()[0] for i, name in enumerate(raw.header)}
    assert raw.unreadable == ("e", "l")
    assert values == {
        "a": 1, "b": "12345678901234567890", "c": 1.5, "d": "true", "f": OPEN, "g": dt.date(2020, 1, 2), "h": 1.5,
        "i": 'a"b\nc;,', "j": None, "k": "", "m": OPEN,
    }  # fmt: skip


def test_postgres_faults_name_no_connection_string(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def codes(string: str | None, table: str) -> str:
        if string is None:
            monkeypatch.delenv("TOWN_DATABASE", raising=False)
        else:
            monkeypatch.setenv("TOWN_DATABASE", string)
        with pytest.raises(DataError) as caught:
            database.read_postgres("TOWN_DATABASE", table, "data.persons")
        assert MARKER not in caught.value.text("en") + repr(caught.value.__context__)
        return caught.value.faults[0].code

    assert codes(None, "personen") == "data.database_variable"
    assert codes(filled, "persons") == "data.missing_table"
    assert codes(f"host={tmp_path} password={MARKER} user={MARKER}", "personen") == "data.no_connection"
    assert codes(f"nonsense {MARKER}", "personen") == "data.no_connection"


def test_postgres_guards_against_numbers(filled: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import psycopg

    with psycopg.connect(filled) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS secret (pseudoniem text, sekse text, gebjaar int, inkomen int)")
        for number in bsn(20):
            connection.execute("INSERT INTO secret VALUES (%s, 'm', 1980, 1)", [number])
    monkeypatch.setenv("TOWN_DATABASE", filled)
    source = plan(tmp_path, {"personen": 'database = "TOWN_DATABASE"\ntable = "secret"'})
    with pytest.raises(DataError) as caught:
        register.read(source)
    assert [fault.code for fault in caught.value.faults] == ["data.bsn"]


# -- what all share -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dta", "sav", "xlsx"])
def test_numbers_are_refused_in_every_kind(kind: str, tmp_path: Path) -> None:
    source = plan(tmp_path, {"personen": f'file = "personen.{kind}"'})
    numbers = bsn(20)
    frame = pd.DataFrame({"pseudoniem": [f"x{i}" for i in range(20)], "sekse": "m", "gebjaar": 1980, "inkomen": 1.0})
    frame["nummer"] = [int(number) for number in numbers]  # leading zeros lost, as a spreadsheet does
    WRITERS[kind](frame, tmp_path / "data" / f"personen.{kind}")
    with pytest.raises(DataError) as caught:
        register.read(source)
    assert [fault.code for fault in caught.value.faults] == ["data.bsn"]
    assert not any(number.lstrip("0") in caught.value.text("nl") for number in numbers)


@pytest.mark.parametrize("name", ["p.dta", "p.sav", "p.sas7bdat", "p.xpt", "p.por", "p.xlsx", "p.duckdb", "p.parquet"])
def test_a_damaged_file_is_a_fault_without_its_words(name: str, tmp_path: Path) -> None:
    table = '\ntable = "x"' if name.endswith("duckdb") else ""
    source = plan(tmp_path, {"personen": f'file = "{name}"{table}'})
    (tmp_path / "data" / name).write_bytes(f"{MARKER};1\n".encode() * 100)
    with pytest.raises(DataError) as caught:
        register.read(source)
    assert [fault.code for fault in caught.value.faults] == ["data.unreadable_file"]
    assert MARKER not in caught.value.text("en") and caught.value.__cause__ is None


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    for name, code in (("x.dta", "data.missing_file"), ("x.xls", "data.foreign_file"), ("x.xlsx", "data.missing_file")):
        source = plan(tmp_path, {"personen": f'file = "{name}"'})
        if code == "data.foreign_file":
            (tmp_path / "data" / name).write_bytes(b"\xd0\xcf\x11\xe0")
        with pytest.raises(DataError) as caught:
            register.read(source)
        assert [fault.code for fault in caught.value.faults] == [code]


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(DataError) as caught:
        load("evalkit_no_such_package", "x.sav", "data.persons.file")
    assert "evalkit-nl[sources]" in caught.value.text("nl")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("", "study.missing_key"),
        ('file = "a.csv"\ndatabase = "X"\ntable = "t"', "study.file_and_database"),
        ('database = "X"', "study.missing_key"),
        ('file = "a.duckdb"', "study.missing_key"),
        (f'database = "postgresql://u:{MARKER}@h/db"\ntable = "t"', "study.database_name"),
        ('file = "a.csv"\ntable = "t"', "study.not_in_such_a_file"),
        ('file = "a.csv"\nsheet = "t"', "study.not_in_such_a_file"),
        ('database = "spark"\ntable = "t"', "study.spark_mixed"),
    ],
)
def test_sources_in_the_study_file(source: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        plan(tmp_path, {"personen": source})
    assert [fault.code for fault in caught.value.faults] == [code]
    assert MARKER not in caught.value.text("en") + caught.value.text("nl")


def test_a_ready_table_is_not_read_from_spark() -> None:
    text = TABLE_STUDY.replace('file = "proef.csv"', 'database = "spark"\ntable = "t"')
    with pytest.raises(StudyError) as caught:
        study.parse(text, Path("study.toml"))
    assert [fault.code for fault in caught.value.faults] == ["study.spark_table"]


def test_a_ready_table_from_another_source(tmp_path: Path) -> None:
    plain = register.read_table(write_table(tmp_path))
    frame = pd.read_csv(io.StringIO(TABLE), sep=";", decimal=",", thousands=".")
    sheet(frame, tmp_path / "proef.xlsx")
    other = register.read_table(study.parse(TABLE_STUDY.replace("proef.csv", "proef.xlsx"), tmp_path / "study.toml"))
    for name, values in plain.columns.items():
        np.testing.assert_array_equal(values, other.columns[name])


# -- dialects -------------------------------------------------------------------------------------------------------


def found(source: study.Study) -> list[Dialect]:
    heard: list[Dialect] = []
    register.read(source, heard.append)
    return heard


def test_what_was_found_is_told_before_use(tmp_path: Path) -> None:
    persons, benefits, _ = found(write(tmp_path, encoding="cp1252"))
    assert persons == Dialect("personen.csv", "csv", 4, ";", "utf-8", ",", "")
    assert benefits.date == "%d-%m-%Y" and benefits.rows == 5
    assert found(write(tmp_path, encoding="cp1252"))[2].encoding == "cp1252"
    for lang in ("nl", "en"):
        assert "uitkering.csv" in benefits.text(lang) and "%d-%m-%Y" in benefits.text(lang)
    heard: list[Dialect] = []
    with pytest.raises(DataError):
        register.read(write(tmp_path, layout='date = "%m/%Y/%d"'), heard.append)
    assert [dialect.date for dialect in heard] == ["", "%d-%m-%Y", "%d-%m-%Y"]


@pytest.mark.parametrize(("date", "decimal"), [("%Y%m%d", "."), ("%Y/%m/%d", ","), ("%d.%m.%Y", ".")])
def test_auto_fills_in_decimal_mark_and_dates(
    date: str, decimal: str, tmp_path: Path, plain: register.Register
) -> None:
    texts = {}
    for name, frame in frames().items():
        for column in frame.columns.intersection(DAYS):
            frame[column] = [day.strftime(date) if day else "" for day in frame[column]]
        buffer = io.StringIO()
        frame.to_csv(buffer, sep=";", decimal=decimal, index=False)
        texts[name] = buffer.getvalue()
    source = write(tmp_path, *texts.values(), layout='date = "auto", decimal = "auto"')
    same(register.read(source), plain)


def test_auto_does_not_guess(tmp_path: Path) -> None:
    first = BENEFITS.replace("15-03-2017", "01-03-2017")
    for day in ("31-01-2018", "30-06-2018", "30-06-2020"):
        first = first.replace(day, "01-02-2021")
    source = write(tmp_path, benefits=first.replace("-", "/"), layout='date = "auto"')
    with pytest.raises(DataError) as caught:
        register.read(source)
    assert {fault.code for fault in caught.value.faults} == {"data.date_ambiguous"}
    persons = "pseudoniem;sekse;gebjaar;inkomen\n0001;m;1980;1.234\n0002;v;1990;2.500\n0003;m;1990;\n0010;v;1985;\n"
    with pytest.raises(DataError) as caught:
        register.read(write(tmp_path, persons=persons, layout='decimal = "auto"'))
    assert [fault.code for fault in caught.value.faults] == ["data.decimal_ambiguous"]


@pytest.mark.parametrize(
    ("texts", "mark"),
    [
        (["1,5", "2"], (",", False)),
        (["1.5", "2"], (".", False)),
        (["1.234,5"], (",", False)),
        (["1,234.5"], (".", False)),
        (["1.234"], ("", True)),
        (["1.234.567"], (",", False)),
        (["12", "7"], ("", False)),
        ([], ("", False)),
    ],
)
def test_decimal_marks(texts: list[str], mark: tuple[str, bool]) -> None:
    assert decimal_mark(pa.array(texts, pa.string())) == mark


@pytest.mark.parametrize(
    ("texts", "formats"),
    [
        (["31-12-2020"], ("%d-%m-%Y", "")),
        (["2020-12-31 00:00:00"], ("%Y-%m-%d", "")),
        (["20201231"], ("%Y%m%d", "")),
        (["12/31/2020"], ("%m/%d/%Y", "")),
        (["01/02/2020"], ("%d/%m/%Y", "%m/%d/%Y")),
        (["202012"], ("%Y%m", "")),
        (["hello", "20201231", "x"], ("", "")),
        ([], ("", "")),
    ],
)
def test_date_formats(texts: list[str], formats: tuple[str, str]) -> None:
    assert date_format(pa.array(texts, pa.string())) == formats


def test_check_shows_what_was_found(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["init", str(tmp_path / "s"), "-q"]).exit_code == 0
    loud = CliRunner().invoke(app, ["check", str(tmp_path / "s"), "--lang", "nl"])
    assert loud.exit_code == 0
    assert "personen.csv: CSV, 2.000 rijen; scheidingsteken ;  tekencodering utf-8" in loud.stderr
    assert "%d-%m-%Y" in loud.stderr.partition("uitkeringen.csv")[2].partition("\n")[0]
    assert CliRunner().invoke(app, ["check", str(tmp_path / "s"), "-q"]).stderr == ""
