"""A municipality in a layout of its own, with values planted that may never be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from evalkit import study as studies
from evalkit.simulate import DEMO, draw
from evalkit.study import Study

MARKER = "ZZMARK"
RARE_DAY = "13-07-1931"
RARE_NUMBER = "98765.43"
COMMON = 9
"""So many persons share what is planted: one too few to be told."""

STUDY = """# My own study
schema = 1
seed = 5
languages = ["nl", "en"]
title = {{ nl = "Wat doet 'scholing'?", en = "What does \\"training\\" do?" }}
[data]
folder = "gegevens"
format = {{ delimiter = ";", encoding = "cp1252", decimal = ",", date = "%d/%m/%Y" }}
window = {{ first = 2015-01-01, last = 2023-12-31 }}
[data.persons]
{persons}
columns.person = "klant"
columns.sex = "sekse"
columns.birth_year = "gebjaar"
columns.income = "inkomen"
columns.education = "opl"
columns.note = "aantekening"
columns.nationality = "land"
columns.team = "ploeg"
codes.sex = {{ man = ["m", "1"], woman = ["v"] }}
[data.benefits]
{benefits}
columns = {{ person = "klant", start = "ingang", end = "laatste dag", reason = "uitstroom", registered = "ingevoerd" }}
codes.reason = {{ work = ["01", "02"], education = ["21"], other = ["*"] }}
[data.episodes]
{episodes}
columns.person = "klant"
columns.type = "soort"
columns.start = "van"
columns.end = "tot"
columns.planned_end = "gepland"
columns.referral = "aangemeld"
codes.type = {{ training = ["Café S1", "S2"], coaching = ["C"] }}
[data.jobs]
{jobs}
columns = {{ person = "klant", start = "van", end = "tot", wage = "loon", hours = "uren" }}
[spells]
merge_gap_months = 1
[time]
horizon = 12
[treatment]
instrument = "training"
cluster = "team"
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[[outcome]]
name = "left"
kind = "event"
source = "exit:any"
[[outcome]]
name = "education"
kind = "event"
source = "exit:education"
[[outcome]]
name = "no_work"
kind = "event"
source = "exit:not_work"
[[outcome]]
name = "in_job"
kind = "event"
source = "exit:work_register"
[[outcome]]
name = "on_benefit"
kind = "state"
source = "state:benefit"
better = "lower"
[[outcome]]
name = "wages"
kind = "flow"
source = "flow:wage"
unit = "euro"
[covariates]
numeric = ["age", "income"]
categorical = ["sex", "education", "nationality"]
[[analysis]]
id = "main"
method = "matching"
"""

FILES = {"persons": "klanten.csv", "benefits": "uitkering.csv", "episodes": "traject.csv", "jobs": "banen.csv"}


def study(folder: Path, **sources: str) -> Study:
    """The study; ``sources`` are other lines for some tables than their file."""
    lines = {table: f'file = "{name}"' for table, name in FILES.items()} | sources
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(STUDY.format(**lines), "utf-8")
    return studies.read(folder)


def tables(persons: int, seed: int = 1) -> dict[str, pd.DataFrame]:
    """Four tables with fixed names and own codes, nothing planted."""
    drawn = draw(DEMO, persons, seed)
    rng = np.random.default_rng(seed)
    n = len(drawn.persons)
    people = pd.DataFrame(
        {
            "person": drawn.persons["person"],
            "sex": drawn.persons["sex"].map({"man": "m", "woman": "v"}),
            "birth_year": drawn.persons["birth_year"].astype(object),
            "income": np.round(np.exp(rng.normal(6, 0.5, n)), 2),
            "education": drawn.persons["education"],
            "note": rng.choice(["belt terug", "geen bijzonderheden"], n),
            "nationality": rng.choice(["NL", "TR", "MA", "PL"], n, p=[0.7, 0.12, 0.1, 0.08]),
            "team": rng.choice([f"team {name}" for name in ("noord", "zuid", "oost", "west")], n),
        }
    )
    people.loc[rng.random(n) < 0.05, "education"] = None
    benefits = drawn.benefits.assign(registered=drawn.benefits["start"])
    own = benefits["reason"].map({"work": "01", "education": "21", "other": "77"})
    benefits["reason"] = own.mask(rng.random(len(own)) < 0.04)
    episodes = drawn.episodes.assign(type=drawn.episodes["type"].map({"training": "Café S1", "coaching": "C"}))
    left = drawn.benefits[(drawn.benefits["reason"] == "work") & (rng.random(len(own)) < 0.8)]
    start = left["end"] + pd.Timedelta(days=1)
    end = start + pd.to_timedelta(rng.integers(60, 900, len(left)), "D")
    jobs = pd.DataFrame({"person": left["person"], "start": start, "end": end})
    wage, hours = np.round(rng.normal(1500, 300, len(jobs)), 2), rng.choice([16.0, 24.0, 36.0], len(jobs))
    jobs = jobs.assign(wage=wage, hours=hours)
    return {"persons": people, "benefits": benefits, "episodes": episodes, "jobs": jobs}


def plant(made: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The same with marked ids, texts, rare categories, and dates, ages and numbers that nobody else has."""
    made = {name: frame.copy() for name, frame in made.items()}
    for frame in made.values():
        frame["person"] = MARKER + frame["person"]
    people = made["persons"]
    people["note"] = [f"{MARKER} note {i}" for i in range(len(people))]
    few = people.index[:COMMON]
    people.loc[few, "nationality"] = f"{MARKER} land"
    people.loc[few, "education"] = [f"{MARKER} school {i % 3}" for i in range(COMMON)]
    people.loc[few, "income"] = float(RARE_NUMBER)
    people.loc[few, "birth_year"] = 1931
    people["team"] = f"{MARKER} " + people["team"]
    for table in ("benefits", "episodes"):
        rows = made[table]["person"].isin(people.loc[few, "person"])
        made[table].loc[rows, "start"] = pd.Timestamp("1931-07-13")
    made["jobs"].loc[made["jobs"].index[:COMMON], "wage"] = float(RARE_NUMBER)
    return made


def write(folder: Path, made: dict[str, pd.DataFrame], own: Study) -> None:
    """The tables as CSV files in the layout of the study."""
    assert own.data is not None
    (folder / own.data.folder).mkdir(parents=True, exist_ok=True)
    for table, frame in made.items():
        columns = own.data.tables[table].columns
        out = frame.rename(columns={fixed: str(name) for fixed, name in columns.items()})
        out = out[[str(name) for name in columns.values()]]
        out.to_csv(
            folder / own.data.folder / FILES[table], sep=";", decimal=",", index=False, encoding="cp1252",
            date_format="%d/%m/%Y",
        )  # fmt: skip
