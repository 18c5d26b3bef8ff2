"""Spark gives what DuckDB gives: tables, checks, shapes, samples."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.spark
sys.path.insert(0, str(Path(__file__).parents[1]))

from evalkit import register, sample, simulate, study  # noqa: E402
from evalkit.errors import DataError  # noqa: E402
from evalkit.sample.shapes import Splits, Traits, episodes, panel, patterns, spell_table  # noqa: E402

PERSONS = 2_000
TOML = """
schema = 1
seed = 1
languages = ["en"]
title = { en = "Spark" }
[data]
window = { first = 2015-01-01, last = 2023-12-31 }
[data.persons]
SOURCE_persons
[data.persons.columns]
person = "Pseudoniem"
sex = "sekse"
birth_year = "geb"
education = "opl"
distance = "afstand"
team = "team"
[data.benefits]
SOURCE_benefits
columns = { person = "Pseudoniem", start = "van", end = "tot met", reason = "uitstroom" }
codes.reason = { work = ["11", "12"], education = ["21"], other = ["31"] }
[data.episodes]
SOURCE_episodes
columns = { person = "Pseudoniem", type = "soort", start = "van", end = "tot met", planned_end = "gepland" }
codes.type = { training = ["S1"], coaching = ["C"] }
[data.jobs]
SOURCE_jobs
columns = { person = "Pseudoniem", start = "van", end = "tot met", hours = "uren", earnings = "loon" }
[eligibility]
stock = "include"
[time]
horizon = 12
[treatment]
instrument = "training"
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[[outcome]]
name = "earned"
kind = "flow"
source = "flow:earnings"
unit = "euro"
[covariates]
categorical = ["sex", "education"]
numeric = ["age", "distance"]
[[analysis]]
id = "main"
method = "matching"
"""


def protocol(spark=False):
    text = TOML
    for name in ("persons", "benefits", "episodes", "jobs"):
        where = f'database = "spark"\ntable = "{name}"' if spark else f'file = "{name}.csv"'
        text = text.replace(f"SOURCE_{name}", where)
    return study.parse(text, Path("study.toml"))


@pytest.fixture(scope="module")
def tables():
    """Tables as a town exports them: text, own codes, and all that is wrong with them."""
    drawn = simulate.draw(simulate.DEMO, PERSONS, 3)
    rng = np.random.default_rng(3)
    written = {"work": "11", "education": "21", "other": "31"}

    def dates(column):
        return column.dt.strftime("%d-%m-%Y").astype(object).where(column.notna(), "")

    persons = pd.DataFrame(
        {
            "Pseudoniem": drawn.persons.person,
            "sekse": drawn.persons.sex,
            "geb": drawn.persons.birth_year.astype(str),
            "opl": drawn.persons.education.astype(object).mask(rng.random(PERSONS) < 0.03, "  "),
            "afstand": [f"{value:.3f}".replace(".", ",") for value in drawn.persons.distance],
            "team": [f"team {n % 7}" for n in range(PERSONS)],
        }
    )
    persons.loc[5, "geb"], persons.loc[6, "geb"], persons.loc[7, "afstand"] = "1850", "onbekend", "1.234,5"
    benefits = pd.DataFrame(
        {
            "Pseudoniem": drawn.benefits.person,
            "van": dates(drawn.benefits.start),
            "tot met": dates(drawn.benefits.end),
            "uitstroom": drawn.benefits.reason.map(written).fillna(""),
        }
    )
    benefits.loc[3, "van"], benefits.loc[4, "tot met"] = "31-02-2019", "31-12-9999"
    benefits.loc[8, "Pseudoniem"], benefits.loc[9, "uitstroom"] = "nobody", "99"
    benefits.loc[10, "van"], benefits.loc[11, "uitstroom"] = "2016-03-01 00:00:00", " 12 "
    again = benefits.iloc[100:140].copy()
    overlap = drawn.benefits.iloc[200:260]
    later = pd.DataFrame(
        {
            "Pseudoniem": overlap.person,
            "van": dates(overlap.start + pd.Timedelta(days=20)),
            "tot met": dates(overlap.end + pd.Timedelta(days=45)),
            "uitstroom": "12",
        }
    )
    episodes = pd.DataFrame(
        {
            "Pseudoniem": drawn.episodes.person,
            "soort": drawn.episodes.type.map({"training": "S1", "coaching": "C"}),
            "van": dates(drawn.episodes.start),
            "tot met": dates(drawn.episodes.end),
            "gepland": dates(drawn.episodes.planned_end),
        }
    )
    start = pd.to_datetime("2015-02-01") + pd.to_timedelta(rng.integers(0, 3000, 900), "D")
    jobs = pd.DataFrame(
        {
            "Pseudoniem": rng.choice(drawn.persons.person, 900),
            "van": start.date,
            "tot met": (start + pd.to_timedelta(rng.integers(0, 700, 900), "D")).date,
            "uren": rng.integers(1, 2000, 900).astype(float),
            "loon": rng.integers(1, 40_000, 900).astype(float),
        }
    )
    return {
        "persons": pd.concat([persons, persons.iloc[20:25]]),
        "benefits": pd.concat([benefits, again, later]),
        "episodes": episodes,
        "jobs": jobs,
    }


@pytest.fixture(scope="module")
def both(spark, tables, tmp_path_factory):
    """The same register in DuckDB, from files, and in Spark."""
    folder = tmp_path_factory.mktemp("files")
    made = protocol()
    for name, frame in tables.items():
        path = folder / f"{name}.csv"
        shown = (
            frame.assign(**{c: pd.to_datetime(frame[c]).dt.strftime("%d-%m-%Y") for c in ("van", "tot met")})
            if name == "jobs"
            else frame
        )
        shown.to_csv(path, sep=";", index=False, decimal=",")
    here = made.model_copy(update={"path": folder / "study.toml", "data": made.data.model_copy(update={"folder": "."})})
    frames = {name: spark.createDataFrame(frame) for name, frame in tables.items()}
    return register.read(here), register.from_spark(made, spark, **frames), made


def rows(frame, *order):
    return frame.sort(*order).collect("pyarrow").to_native().to_pylist()


@pytest.mark.parametrize("name", ["persons", "benefits", "episodes", "jobs"])
def test_tables_are_the_same(both, name):
    duck, spark, _ = both
    for places in (False, True) if name != "persons" else (False,):
        one, two = duck.arrays(name, places), spark.arrays(name, places)
        assert one.keys() == two.keys() and len(next(iter(one.values()))) > 400
        for column in one:
            assert one[column].dtype == two[column].dtype, column
            np.testing.assert_array_equal(one[column], two[column], err_msg=column)


def test_checks_and_quarantine_are_the_same(both):
    duck, spark, _ = both
    assert sorted(duck.quarantine, key=str) == sorted(spark.quarantine, key=str)
    assert [input.rows for input in duck.inputs] == [input.rows for input in spark.inputs]
    one = {(c.code, c.table, c.params.get("column")): c for c in duck.findings}
    two = {(c.code, c.table, c.params.get("column")): c for c in spark.findings}
    assert one.keys() == two.keys() and len(one) > 15
    for key, check in one.items():
        assert (check.count, check.severity, check.unit) == (two[key].count, two[key].severity, two[key].unit), key
        assert check.share == pytest.approx(two[key].share)
        assert {arm: dict(v) for arm, v in check.arms.items()} == {arm: dict(v) for arm, v in two[key].arms.items()}, (
            key
        )


def test_spells_episodes_and_patterns_are_the_same(both):
    duck, spark, made = both
    assert rows(spell_table(duck, made), "place", "spell") == rows(spell_table(spark, made), "place", "spell")
    splits = Splits((3, 12), (6, 12), True, True)
    traits = Traits(columns=["sex", "education", "age"], bands={"age": (30, 45)})
    for make, key in ((episodes, "person"), (patterns, "pattern")):
        one, two = (rows(make(source, made, splits, traits), key, "spell", "start") for source in (duck, spark))
        assert len(one) > 1500 and one == two
    plain = [
        make(source, made).collect("pyarrow").to_native() for make in (episodes, patterns) for source in (duck, spark)
    ]
    assert plain[0].to_pylist() == plain[1].to_pylist() and plain[2].to_pylist() == plain[3].to_pylist()  # sorted too


PANELS = ["state:benefit", "exit:work", "months:benefit", "state:work", "flow:earnings"]


@pytest.mark.parametrize(
    ("outcome", "unit", "period"), [*((outcome, "team", "month") for outcome in PANELS), ("exit:any", "person", "year")]
)
def test_panels_are_the_same(both, outcome, unit, period):
    duck, spark, made = both
    one, two = (rows(panel(s, made, outcome, unit=unit, period=period), "unit", "period") for s in (duck, spark))
    assert len(one) == len(two) > 300
    for a, b in zip(one, two, strict=True):
        assert a | {"outcome": 0} == b | {"outcome": 0}
        assert a["outcome"] == pytest.approx(b["outcome"], rel=1e-12, abs=1e-12)


def test_samples_are_the_same(both):
    duck, spark, made = both
    one, two = sample.from_register(made, duck), sample.from_register(made, spark)
    assert one.flow == two.flow
    for name in one.entries.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one.entries, name), getattr(two.entries, name))


def test_a_study_file_names_the_tables(spark, tables, both):
    made = protocol(spark=True)
    for name, frame in tables.items():
        spark.createDataFrame(frame).createOrReplaceTempView(name)
    heard = []
    read = register.read(made, heard.append)
    assert [dialect.kind for dialect in heard] == ["spark"] * 4 and heard[1].date == "%d-%m-%Y"
    np.testing.assert_array_equal(read.arrays("benefits")["start"], both[0].arrays("benefits")["start"])
    assert len({input.sha256 for input in read.inputs}) == 4
    views = {table.name for table in spark.catalog.listTables()}
    assert views == set(tables)  # nothing of our own is left behind
    for name in tables:
        spark.catalog.dropTempView(name)


def test_faults(spark, tables):
    made = protocol(spark=True)
    with pytest.raises(DataError) as caught:
        register.from_spark(made, spark)
    assert {fault.code for fault in caught.value.faults} == {"data.missing_table"}
    bad = {name: spark.createDataFrame(frame) for name, frame in tables.items()}
    numbers = tables["persons"].assign(bsn=[str(valid(i)) for i in range(len(tables["persons"]))])
    bad["persons"] = spark.createDataFrame(numbers)
    bad["benefits"] = bad["benefits"].drop("van")
    with pytest.raises(DataError) as caught:
        register.from_spark(made, spark, **bad)
    assert [fault.code for fault in caught.value.faults] == ["data.bsn", "data.missing_columns"]


def valid(i):
    """The i-th number that passes the 11-test."""
    stem = 12_345_60 + i
    digits = [int(d) for d in f"{stem:08d}"]
    last = sum(w * d for w, d in zip(range(9, 1, -1), digits, strict=True)) % 11
    return f"{stem:08d}{last}" if last < 10 else valid(i + 100_000)
