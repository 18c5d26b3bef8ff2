"""Reading: dialects, the fixed schema, order of rows, frames and analysis-ready files."""

from __future__ import annotations

import io
import itertools
import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from register_example import BENEFITS, EPISODES, PERSONS, TABLE, write, write_table

from evalkit import register
from evalkit.errors import DataError
from evalkit.register.engine import Engine
from evalkit.register.reader import read_file


def same(one: register.Register, other: register.Register) -> None:
    for table in ("persons", "benefits", "episodes"):
        a, b = one.arrays(table), other.arrays(table)
        assert list(a) == list(b)
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


def test_fixed_schema(tmp_path):
    read = register.read(write(tmp_path))
    persons, benefits, episodes = (read.arrays(name) for name in ("persons", "benefits", "episodes"))
    assert list(persons) == ["person", "birth_year", "sex", "income"]
    assert persons["person"].tolist() == ["0001", "0002", "0003", "0010"]
    assert persons["birth_year"].tolist() == [1980, 1990, 1975, 1985]
    np.testing.assert_array_equal(persons["income"], [1234.5, 12.5, np.nan, -3])
    assert list(benefits) == ["spell", "person", "start", "end", "reason"]
    assert benefits["spell"].dtype == np.int64 and benefits["spell"].tolist() == [0, 1, 2, 3, 4]
    assert benefits["start"].dtype == np.dtype("datetime64[D]")
    assert benefits["start"][0] == np.datetime64("2016-02-01")
    assert np.isnat(benefits["end"]).tolist() == [False, True, False, False, False]
    assert benefits["reason"].tolist() == ["work", None, "education", "unknown", "work"]
    assert list(episodes) == ["episode", "person", "type", "start", "end", "planned_end", "referral"]
    assert episodes["type"].tolist() == ["training", "coaching", "training"]
    assert np.isnat(episodes["referral"]).all() and episodes["referral"].dtype == np.dtype("datetime64[D]")
    assert read.jobs is None and read.quarantine == ()
    with pytest.raises(KeyError):
        read.arrays("jobs")
    assert [(file.name, file.rows) for file in read.inputs] == [
        ("personen.csv", 4),
        ("uitkering.csv", 5),
        ("trajecten.csv", 3),
    ]
    assert all(len(file.sha256) == 64 for file in read.inputs)
    assert "0001" not in repr(read)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> register.Register:
    """The example as it is written."""
    return register.read(write(tmp_path_factory.mktemp("plain")))


DIALECTS = list(
    itertools.product(
        (";", ",", "\t"),
        ("utf-8", "utf-8-sig", "cp1252"),
        (",", "."),
        ("%d-%m-%Y", "%Y-%m-%d"),
        (True, False),
    )
)


def dialect(text: str, delimiter: str, decimal: str, date: str, numbers: str) -> str:
    frame = pd.read_csv(io.StringIO(text), sep=";", dtype=str, keep_default_na=False)
    for name in frame.columns.intersection(["ingang", "laatste_dag", "van", "tot", "gepland"]):
        days = pd.to_datetime(frame[name], format="%d-%m-%Y")
        frame[name] = days.dt.strftime(date).fillna("")
    if numbers in frame and decimal == ".":
        frame[numbers] = frame[numbers].str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    elif numbers in frame:
        frame[numbers] = frame[numbers].str.replace(".", "", regex=False)
    return frame.to_csv(sep=delimiter, index=False, lineterminator="\r\n")


@pytest.mark.parametrize(("delimiter", "encoding", "decimal", "date", "auto"), DIALECTS)
def test_dialects(tmp_path, plain, delimiter, encoding, decimal, date, auto):
    said = f'decimal = "{decimal}", date = "{date}"'
    if not auto:
        said += f', encoding = "{"cp1252" if encoding == "cp1252" else "utf-8"}"'
        said += f', delimiter = "{delimiter}"' if delimiter != "\t" else ""
    files = [dialect(text, delimiter, decimal, date, "inkomen") for text in (PERSONS, BENEFITS, EPISODES)]
    study = write(tmp_path, *files, layout=said, encoding=encoding)
    found = register.read(study)
    same(found, plain)
    assert found.findings == plain.findings


def test_odd_exports_are_read(tmp_path):
    """Blanks, quotes, times of day, NULL, no end as 31-12-9999, the Excel line, empty lines, loose delimiters."""
    expected = register.read(write(tmp_path))
    persons = 'sep=;\r\n pseudoniem ;"sekse";gebjaar;inkomen;\r\n'
    persons += (
        '"0001"; m ;1980;1.234,50;\r\n0002;v;1990,0;12,5;\r\n\r\n0003\u00a0;v;1975;NULL;\r\n0010;m;1985;-3,00;\r\n'
    )
    benefits = BENEFITS.replace("15-03-2017;;", "15-03-2017 00:00:00;31-12-9999;").replace("01-02-2016", "1-2-2016")
    benefits = benefits.replace("05-05-2019", "2019-05-05T00:00")
    episodes = EPISODES.replace("pseudoniem;soort", 'noot;pseudoniem;"soort"').replace("\n0", '\n"a;\nb";0')
    found = register.read(write(tmp_path, persons, benefits, episodes))
    same(found, expected)
    more = Counter(check.code for check in found.findings) - Counter(check.code for check in expected.findings)
    assert more == {"blank_around": 2, "open_end": 1}


def test_other_date_format(tmp_path, plain):
    files = [dialect(text, ";", ",", "%Y%m%d", "inkomen") for text in (PERSONS, BENEFITS, EPISODES)]
    same(register.read(write(tmp_path, *files, layout='date = "%Y%m%d"')), plain)


def test_utf16_is_read(tmp_path):
    expected = register.read(write(tmp_path))
    same(register.read(write(tmp_path, encoding="utf-16")), expected)


def test_shuffled_rows_give_identical_arrays(tmp_path):
    rng = random.Random(3)
    files = [PERSONS, BENEFITS + "0003;01-01-2018;30-06-2018;21\n0003;01-03-2018;;\n", EPISODES]
    expected = register.read(write(tmp_path, *files))
    for _ in range(5):
        shuffled = []
        for text in files:
            header, *rows = text.splitlines()
            shuffled.append("\n".join([header, *rng.sample(rows, len(rows))]) + "\n")
        found = register.read(write(tmp_path, *shuffled))
        same(found, expected)
        assert found.findings == expected.findings and found.quarantine == expected.quarantine


def frames(read: register.Register) -> dict[str, pd.DataFrame]:
    tables = {name: pd.DataFrame(read.arrays(name)) for name in ("persons", "benefits", "episodes")}
    return {name: table.drop(columns=["spell", "episode"], errors="ignore") for name, table in tables.items()}


def test_frames_give_the_same_register(tmp_path):
    study = write(tmp_path)
    expected = register.read(study)
    same(register.from_frames(study, **frames(expected)), expected)


def test_frames_report_what_they_lack(tmp_path):
    study = write(tmp_path)
    tables = frames(register.read(study))
    tables["persons"] = tables["persons"].drop(columns="income")
    tables["benefits"] = tables["benefits"].rename(columns={"start": "begin"})
    tables["episodes"]["type"] = ["training", 3, "ZZMARKER7"]
    with pytest.raises(DataError) as error:
        register.from_frames(study, **tables)
    codes = [(fault.code, fault.place) for fault in error.value.faults]
    assert codes == [
        ("data.missing_columns", "persons"),
        ("data.missing_columns", "benefits"),
        ("data.column_type", "episodes"),
    ]
    assert "ZZMARKER7" not in str(error.value)


def test_parquet(tmp_path):
    study = write(tmp_path)
    expected = register.read(study)
    text = {"dtype": str, "sep": ";", "keep_default_na": False}
    for name in ("personen", "uitkering", "trajecten"):
        frame = pd.read_csv(tmp_path / "data" / f"{name}.csv", **text)
        for column in frame.columns.intersection(["ingang", "laatste_dag", "van", "tot", "gepland"]):
            frame[column] = pd.to_datetime(frame[column], format="%d-%m-%Y")
        if "gebjaar" in frame:
            frame["gebjaar"] = frame["gebjaar"].astype(float)
            frame["inkomen"] = [1234.5, 12.5, np.nan, -3]
            frame["sekse"] = frame["sekse"].astype("category")
        frame.to_parquet(tmp_path / "data" / f"{name}.parquet")
    tables = {
        name: getattr(study.data, name).model_copy(update={"file": file})
        for name, file in (
            ("persons", "personen.parquet"),
            ("benefits", "uitkering.parquet"),
            ("episodes", "trajecten.parquet"),
        )
    }
    study = study.model_copy(update={"data": study.data.model_copy(update=tables)})
    same(register.read(study), expected)


def test_referral_clock_keeps_those_who_never_started(tmp_path):
    episodes = "pseudoniem;soort;van;tot;gepland;verwezen\n"
    episodes += "0001;S1;01-03-2016;01-09-2016;;15-02-2016\n0002;S1;;;;01-04-2017\n0003;S1;;;;\n"
    study = write(tmp_path, episodes=episodes, clock="referral")
    read = register.read(study)
    assert read.arrays("episodes")["person"].tolist() == ["0001", "0002"]
    assert [(q.code, q.rows) for q in read.quarantine] == [("start_missing", 1)]


def test_the_engine_touches_no_file_and_no_network():
    connection = Engine()._connection
    for query in ("SELECT * FROM read_csv('/etc/hostname')", "INSTALL httpfs", "COPY (SELECT 1) TO 'x.csv'"):
        with pytest.raises(Exception, match="disabled"):
            connection.execute(query)


def test_numbers_are_not_guessed(tmp_path):
    """A point in a decimal-comma file is a thousands separator only in front of three digits."""
    persons = PERSONS.replace("1.234,50", "12.5").replace("-3\n", "1.234.567\n0011;m;1990;1.000\n0012;m;1990;inf\n")
    read = register.read(write(tmp_path, persons.replace(";12,5", ";7")))
    np.testing.assert_array_equal(read.arrays("persons")["income"], [np.nan, 7, np.nan, 1234567, 1000, np.nan])
    assert [c.count for c in read.findings if c.code == "number_unreadable"] == [2]


def test_table(tmp_path):
    table = register.read_table(write_table(tmp_path))
    assert list(table.columns) == ["nr", "groep", "y1", "y2", "leeftijd", "opleiding"]
    assert table.columns["nr"].tolist() == ["a1", "a2", "a3"]
    assert table.columns["groep"].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(table.columns["y1"], [100.5, np.nan, 1000])
    assert table.columns["opleiding"].tolist() == ["mbo", "hbo", None]
    assert [(c.code, c.count, c.params["column"]) for c in table.findings] == [
        ("value_missing", 1, "y1"),
        ("covariate_missing", 1, "opleiding"),
    ]
    assert table.inputs[0].rows == 3


def test_table_in_any_order(tmp_path):
    expected = register.read_table(write_table(tmp_path))
    header, *rows = TABLE.splitlines()
    found = register.read_table(write_table(tmp_path, "\n".join([header, *reversed(rows)])))
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)


def test_raw_rows_know_their_record(tmp_path):
    study = write(tmp_path, benefits=BENEFITS.replace("0002;15-03-2017;;", "0002;x;y;z;te;veel"))
    raw = read_file(tmp_path / "data" / "uitkering.csv", study.data.format, "")
    assert raw.table.column("row").to_pylist() == [1, 3, 4, 5] and raw.ragged == 1 and raw.rows == 5
