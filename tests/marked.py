"""A municipality in which values that must never leave are planted in every column of every table."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit import simulate

MARKER = "ZZMARKER7"
LEAK = re.compile(r"zzmarker7|1907-0?3-0?4|0?4-0?3-1907|19070304|0?4[/.]0?3[/.]1907|987[.,]?654[.,]?3|987[.,]654", re.I)
"""The planted text, day (4 March 1907) and number (987654.321), however they may be written."""

DAY, NUMBER = "04-03-1907", "987654,321"

STUDY = """
schema = 1
seed = 1
languages = ["nl", "en"]
title = {{ nl = "Proef", en = "Trial" }}
[data]
format = {{ delimiter = ";", encoding = "utf-8", decimal = ",", date = "%d-%m-%Y" }}
window = {{ first = 2015-01-01, last = 2023-12-31 }}
[data.persons]
file = "personen.{ending}"
{table}
columns.person = "sleutel"
columns.sex = "sekse"
columns.birth_year = "geboren"
columns.education = "niveau"
columns.distance = "afstand"
columns.measured = "gemeten"
columns.team = "wijk"
[data.benefits]
file = "uitkeringen.{ending}"
{table}
columns = {{ person = "sleutel", start = "ingang", end = "laatste_dag", reason = "reden", registered = "geboekt" }}
codes.reason = {{ work = ["work"], education = ["education"], other = ["other"] }}
[data.episodes]
file = "trajecten.{ending}"
{table}
columns.person = "sleutel"
columns.type = "soort"
columns.start = "van"
columns.end = "tot"
columns.planned_end = "gepland"
columns.referral = "verwezen"
columns.registered = "geboekt"
codes.type = {{ training = ["training"], coaching = ["coaching"] }}
[data.jobs]
file = "banen.{ending}"
{table}
columns = {{ person = "sleutel", start = "van", end = "tot", hours = "uren", wage = "loon" }}
[time]
horizon = 6
[treatment]
instrument = "training"
cluster = "team"
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[[outcome]]
name = "in_work"
kind = "state"
source = "state:work"
[[outcome]]
name = "wage"
kind = "flow"
source = "flow:wage"
unit = "euro"
[covariates]
numeric = ["distance", "age"]
categorical = ["sex", "education"]
[[subgroup]]
name = "education"
[[analysis]]
id = "main"
method = "matching"
"""

Frames = dict[str, pd.DataFrame]


@cache
def _town() -> Frames:
    tables = simulate.draw(simulate.DEMO, 2500, 3)
    people = tables.persons[["person", "sex", "birth_year", "education", "distance"]].astype(object)
    keys = people["person"].astype(str)
    people["birth_year"] = people["birth_year"].astype(str)
    people["measured"] = "05-01-2014"
    people["team"] = [f"{MARKER} wijk {i % 60}" for i in range(len(people))]
    people["naam"] = [f"{MARKER} {i}" for i in range(len(people))]
    people["distance"] = [f"{value:.1f}".replace(".", ",") for value in people["distance"].astype(float)]
    benefits, episodes = tables.benefits.astype(object), tables.episodes.astype(object)
    for frame in (benefits, episodes):
        for column in frame.columns.intersection(["start", "end", "planned_end", "referral"]):
            days = pd.to_datetime(frame[column])
            frame[column] = days.dt.strftime("%d-%m-%Y").where(days.notna(), "")
        frame["registered"] = frame["start"]
        frame["opmerking"] = MARKER
    benefits["reason"] = benefits["reason"].where(benefits["reason"].notna(), "")
    rng = np.random.default_rng(1)
    jobs = pd.DataFrame({"person": keys[::2].to_numpy(), "start": "01-02-2017", "end": "01-02-2019"}, dtype=object)
    jobs["hours"], jobs["wage"] = "1200", [f"{wage}" for wage in rng.integers(9000, 30000, len(jobs))]
    order = ["person", "start", "end", "reason", "registered", "opmerking"]
    more = ["person", "type", "start", "end", "planned_end", "referral", "registered", "opmerking"]
    return {"personen": people, "uitkeringen": benefits[order], "trajecten": episodes[more], "banen": jobs}


OWN = {
    "personen": ["sleutel", "sekse", "geboren", "niveau", "afstand", "gemeten", "wijk", "naam"],
    "uitkeringen": ["sleutel", "ingang", "laatste_dag", "reden", "geboekt", "opmerking"],
    "trajecten": ["sleutel", "soort", "van", "tot", "gepland", "verwezen", "geboekt", "opmerking"],
    "banen": ["sleutel", "van", "tot", "uren", "loon"],
}


def town() -> Frames:
    """Tables of text; every key and some cells of every column are marked, the rest is as it should be."""
    frames = {name: frame.copy() for name, frame in _town().items()}
    for name, frame in frames.items():
        frame["person"] = f"{MARKER}-" + frame["person"].astype(str)
        frame.columns = OWN[name]
        frame.reset_index(drop=True, inplace=True)
    people, benefits, episodes, jobs = frames.values()
    plant(people, "sekse", MARKER, 3)
    plant(people, "geboren", MARKER, 2)
    plant(people, "niveau", f"{MARKER} rare", 4)
    people.loc[::40, "afstand"] = NUMBER
    plant(people, "afstand", MARKER, 2, 100)
    plant(people, "gemeten", DAY, 5)
    plant(people, "gemeten", MARKER, 5, 100)
    plant(benefits, "ingang", DAY, 3)
    plant(benefits, "ingang", MARKER, 3, 100)
    plant(benefits, "laatste_dag", DAY, 3, 200)
    plant(benefits, "ingang", DAY, 1, 200)
    plant(benefits, "reden", MARKER, 4)
    plant(benefits, "geboekt", DAY, 5)
    plant(episodes, "soort", MARKER, 3)
    plant(episodes, "van", DAY, 2, 30)
    plant(episodes, "tot", MARKER, 2, 40)
    plant(episodes, "gepland", DAY, 4)
    plant(episodes, "verwezen", DAY, 4, 10)
    plant(episodes, "verwezen", MARKER, 4, 20)
    plant(jobs, "uren", NUMBER, 3)
    plant(jobs, "loon", NUMBER, 3, 10)
    plant(jobs, "loon", MARKER, 3, 20)
    frames["personen"] = pd.concat([people, people.tail(3)], ignore_index=True)
    orphans = benefits.tail(3).assign(sleutel=f"{MARKER}-orphan")
    frames["uitkeringen"] = pd.concat([benefits, benefits.tail(2), orphans], ignore_index=True)
    return frames


def plant(frame: pd.DataFrame, column: str, value: str, times: int, first: int = 0) -> None:
    """Some cells of a column get a value."""
    frame.loc[frame.index[first : first + times], column] = value


# -- files of every kind -----------------------------------------------------------------------------------------------


def as_csv(folder: Path, frames: Frames) -> None:
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", sep=";", index=False, quoting=csv.QUOTE_MINIMAL)
    with (folder / "uitkeringen.csv").open("a", encoding="utf-8") as file:
        file.write(f"{MARKER};{DAY};;;;;;{NUMBER}\n{MARKER}\n")  # too many fields, and too few


def typed(frames: Frames) -> Frames:
    """Numbers and dates as such, as far as they can be; a marked day then is a real one."""
    made = {name: frame.copy() for name, frame in frames.items()}
    for name, columns in {"uitkeringen": ["ingang", "geboekt"], "trajecten": ["van", "gepland", "verwezen"]}.items():
        for column in columns:
            made[name][column] = pd.to_datetime(made[name][column], format="%d-%m-%Y", errors="coerce")
    for column in ("uren", "loon"):
        made["banen"][column] = pd.to_numeric(made["banen"][column].str.replace(",", "."), errors="coerce")
    return made


def as_parquet(folder: Path, frames: Frames) -> None:
    for name, frame in typed(frames).items():
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / f"{name}.parquet")


def as_excel(folder: Path, frames: Frames) -> None:
    for name, frame in typed(frames).items():
        frame.to_excel(folder / f"{name}.xlsx", index=False)


def as_spss(folder: Path, frames: Frames) -> None:
    import pyreadstat

    for name, frame in typed(frames).items():
        pyreadstat.write_sav(frame.astype({c: str for c in frame.select_dtypes("object")}), str(folder / f"{name}.sav"))


def as_stata(folder: Path, frames: Frames) -> None:
    import pyreadstat

    for name, frame in typed(frames).items():
        pyreadstat.write_dta(frame.astype({c: str for c in frame.select_dtypes("object")}), str(folder / f"{name}.dta"))


def as_duckdb(folder: Path, frames: Frames) -> None:
    import duckdb

    for name, frame in typed(frames).items():
        with duckdb.connect(str(folder / f"{name}.duckdb")) as connection:
            connection.register("made", pa.Table.from_pandas(frame, preserve_index=False))
            connection.execute("CREATE TABLE kept AS SELECT * FROM made")


KINDS: dict[str, tuple[str, Callable[[Path, Frames], None]]] = {
    "csv": ("csv", as_csv),
    "parquet": ("parquet", as_parquet),
    "excel": ("xlsx", as_excel),
    "spss": ("sav", as_spss),
    "stata": ("dta", as_stata),
    "duckdb": ("duckdb", as_duckdb),
}


def short() -> Frames:
    """The first rows only, where nothing is estimated."""
    return {name: frame.head(250) for name, frame in town().items()}


def study_in(folder: Path, kind: str = "csv", frames: Frames | None = None) -> Path:
    """A study folder with marked data of one kind; the folder."""
    (folder / "data").mkdir(parents=True)
    ending, write = KINDS[kind]
    write(folder / "data", frames or town())
    text = STUDY.format(ending=ending, table='table = "kept"' if kind == "duckdb" else "")
    (folder / "study.toml").write_text(text, "utf-8")
    return folder
