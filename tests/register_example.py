"""A small municipality as files, which tests spoil in one way at a time."""

from __future__ import annotations

from pathlib import Path

from evalkit import study as studies

MARKER = "ZZMARKER7"

STUDY = """
schema = 1
seed = 1
languages = ["nl", "en"]
title = {{ nl = "Wat doet scholing?", en = "What does training do?" }}
[data]
folder = "data"
format = {{ {layout} }}
window = {{ first = 2015-01-01, last = 2023-12-31 }}
[data.persons]
file = "personen.csv"
columns = {{ person = "pseudoniem", sex = "sekse", birth_year = "gebjaar", income = "inkomen" }}
[data.benefits]
file = "uitkering.csv"
columns = {{ person = "pseudoniem", start = "ingang", end = "laatste_dag", reason = "uitstroom" }}
codes.reason = {{ work = ["01", "02"], education = ["21"] }}
[data.episodes]
file = "trajecten.csv"
columns = {{ person = "pseudoniem", type = "soort", start = "van", end = "tot", planned_end = "gepland"{referral} }}
codes.type = {{ training = ["S1", "S2"], coaching = ["Café"] }}
[time]
horizon = 24
clock = "{clock}"
[treatment]
instrument = "training"
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[covariates]
numeric = ["age", "income"]
categorical = ["sex"]
[[analysis]]
id = "main"
method = "matching"
"""

TABLE_STUDY = """
schema = 1
seed = 1
languages = ["nl", "en"]
title = { nl = "Proef", en = "Trial" }
[table]
file = "proef.csv"
unit = "nr"
treatment = "groep"
outcomes = { earnings = ["y1", "y2"] }
[time]
horizon = 2
[treatment]
instrument = "training"
design = "randomised"
[[outcome]]
name = "earnings"
kind = "flow"
primary = true
[covariates]
numeric = ["leeftijd"]
categorical = ["opleiding"]
[[analysis]]
id = "main"
method = "experiment"
"""

PERSONS = """pseudoniem;sekse;gebjaar;inkomen
0001;m;1980;1.234,50
0002;v;1990;12,5
0003;v;1975;
0010;m;1985;-3
"""
BENEFITS = """pseudoniem;ingang;laatste_dag;uitstroom
0001;01-02-2016;31-01-2018;01
0002;15-03-2017;;
0003;01-01-2018;30-06-2018;21
0003;01-01-2019;30-06-2020;
0010;05-05-2019;06-06-2021;02
"""
EPISODES = """pseudoniem;soort;van;tot;gepland
0001;S1;01-03-2016;01-09-2016;01-10-2016
0002;Café;01-04-2017;;
0010;S2;05-05-2019;05-08-2019;
"""
TABLE = """nr;groep;leeftijd;opleiding;y1;y2
a1;1;30;mbo;100,5;0
a2;nee;40;hbo;;7
a3;ja;25;;1.000;8
"""


def write(
    folder: Path,
    persons: str | bytes = PERSONS,
    benefits: str | bytes = BENEFITS,
    episodes: str | bytes = EPISODES,
    layout: str = "",
    clock: str = "start",
    encoding: str = "utf-8",
) -> studies.Study:
    """Write the three files and read the study that belongs to them."""
    (folder / "data").mkdir(exist_ok=True)
    for name, text in (("personen", persons), ("uitkering", benefits), ("trajecten", episodes)):
        data = text if isinstance(text, bytes) else text.encode(encoding)
        (folder / "data" / f"{name}.csv").write_bytes(data)
    referral = ', referral = "verwezen"' if clock == "referral" else ""
    text = STUDY.format(layout=layout, clock=clock, referral=referral)
    return studies.parse(text, folder / "study.toml")


def write_table(folder: Path, table: str = TABLE) -> studies.Study:
    """Write an analysis-ready file and read the study that belongs to it."""
    (folder / "proef.csv").write_text(table, "utf-8")
    return studies.parse(TABLE_STUDY, folder / "study.toml")


def bsn(count: int, first: int = 10_000_001) -> list[str]:
    """Invented numbers that pass the 11-test, nine digits."""
    found: list[str] = []
    number = first
    while len(found) < count:
        digits = [int(digit) for digit in f"{number:09d}"]
        if sum(w * d for w, d in zip((9, 8, 7, 6, 5, 4, 3, 2, -1), digits, strict=True)) % 11 == 0:
            found.append(f"{number:09d}")
        number += 7919
    return found
