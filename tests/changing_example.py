"""A small register with covariates that change, and random rows of them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd

from evalkit import register, sample, study

FIRST, LAST = dt.date(2018, 1, 1), dt.date(2021, 12, 31)

_TEXT = """
seed = 3
languages = ["en"]
title = {{ en = "What changes" }}
[data]
window = {{ first = 2018-01-01, last = 2021-12-31 }}
[data.persons]
file = "p.csv"
columns = {{ person = "p", sex = "s", birth_year = "b", town = "t" }}
[data.benefits]
file = "b.csv"
columns = {{ person = "p", start = "a", end = "b", reason = "r" }}
codes.reason = {{ work = ["work"], other = ["*"] }}
[data.episodes]
file = "e.csv"
columns = {{ person = "p", type = "t", start = "a", end = "b" }}
codes.type = {{ training = ["training"], coaching = ["*"] }}
[data.changes.household]
file = "h.csv"
columns = {{ person = "p", start = "a", end = "b", value = "v"{registered} }}
[data.changes.debt]
file = "d.csv"
columns = {{ person = "p", start = "a", value = "v" }}
[data.changes.place]
file = "m.csv"
columns = {{ person = "p", start = "a", value = "v" }}
[data.areas.unemployment]
file = "u.csv"
columns = {{ area = "g", month = "m", value = "v" }}
area = "{area}"
delay_months = {delay}
[time]
horizon = 6
within_month = "{within}"
[eligibility]
elapsed = [0, 11]
stock = "include"
{eligibility}
[treatment]
instrument = "training"
[[outcome]]
name = "left"
kind = "event"
source = "exit:any"
primary = true
[covariates]
{covariates}
[[subgroup]]
name = "{subgroup}"
{cuts}
[[analysis]]
id = "main"
method = "matching"
exact = ["elapsed", "quarter"{exact}]
[disclosure]
profile = "open"
minimum = 1
"""
_COVARIATES = 'numeric = ["age", "debt", "unemployment"]\ncategorical = ["sex", "household"]'


def protocol(
    *,
    registered: bool = True,
    area: str = "town",
    delay: int = 1,
    within: str = "dates",
    eligibility: str = "",
    covariates: str = _COVARIATES,
    subgroup: str = "household",
    cuts: str = "",
    exact: str = "",
) -> study.Study:
    """A study with four covariates that change, of which ``place`` may tell the area."""
    text = _TEXT.format(
        registered=', registered = "r"' if registered else "", area=area, delay=delay, within=within,
        eligibility=eligibility, covariates=covariates, subgroup=subgroup, cuts=cuts, exact=exact,
    )  # fmt: skip
    return study.parse(text, Path("study.toml"))


def dates(values: list[dt.date | None]) -> pd.Series:
    """A column of dates."""
    return pd.to_datetime(pd.Series(values, dtype=object))


def changes(rows: list[tuple], registered: bool = True) -> pd.DataFrame:
    """A frame from rows (person, start, end, registered, value)."""
    person, start, end, entered, value = zip(*rows, strict=True)
    frame = pd.DataFrame({"person": person, "start": dates(start), "end": dates(end), "value": value})
    return frame.assign(registered=dates(entered)) if registered else frame


def figures(rows: list[tuple]) -> pd.DataFrame:
    """A frame from rows (area, first day of the month, figure)."""
    area, month, value = zip(*rows, strict=True)
    return pd.DataFrame({"area": area, "month": [f"{m:%Y-%m}" for m in month], "value": value})


def day(rng: np.random.Generator, first: dt.date = dt.date(2017, 6, 1), days: int = 1600) -> dt.date:
    """A day at random."""
    return first + dt.timedelta(days=int(rng.integers(days)))


TOWNS = ("A", "B", "C")


def town(seed: int, persons: int = 160) -> dict:
    """Persons with one spell, a third of whom start, and rows of what changes with all that may be odd about them."""
    rng = np.random.default_rng(seed)
    people, benefits, episodes = [], [], []
    household, debt, place, rate = [], [], [], []
    for i in range(persons):
        person = f"p{i:03d}"
        people.append((person, "mv"[int(rng.integers(2))], int(rng.integers(1960, 2000)), rng.choice([*TOWNS, "X"])))
        start = day(rng, dt.date(2018, 1, 1), 800)
        benefits.append((person, start, start + dt.timedelta(days=int(rng.integers(90, 900))), "work"))
        if i % 3 == 0:
            begun = start + dt.timedelta(days=int(rng.integers(1, 330)))
            episodes.append((person, "training", begun, begun + dt.timedelta(days=90)))
        for _ in range(int(rng.integers(0, 6))):
            since = day(rng)
            end = since + dt.timedelta(days=int(rng.integers(0, 500))) if rng.random() < 0.5 else None
            entered = since + dt.timedelta(days=int(rng.integers(-30, 200)))
            household.append((person, since, end, entered, rng.choice(["single", "couple", "parent", None])))
            if rng.random() < 0.2:  # another value, or another registration, from the same day on
                household.append((person, since, end, entered, "parent"))
                household.append((person, since, None, entered + dt.timedelta(days=40), "couple"))
        for _ in range(int(rng.integers(0, 3))):
            debt.append((person, day(rng), None, None, float(rng.integers(0, 9)) * 1.1))
        for _ in range(int(rng.integers(0, 3))):
            place.append((person, day(rng), None, None, rng.choice([*TOWNS, "X"])))
    for name in TOWNS:
        for i in range(48):
            if rng.random() < 0.8:
                month = dt.date(2017 + (6 + i) // 12, (6 + i) % 12 + 1, 1)
                rate.append((name, month, round(float(rng.uniform(3, 9)), 1)))
                if rng.random() < 0.1:
                    rate.append((name, month, round(float(rng.uniform(3, 9)), 1)))
    return {
        "persons": people, "benefits": benefits, "episodes": episodes,
        "household": household, "debt": debt, "place": place, "unemployment": rate,
    }  # fmt: skip


def frames(rows: dict, registered: bool = True) -> dict:
    """The frames of ``register.from_frames``."""
    people = pd.DataFrame(rows["persons"], columns=["person", "sex", "birth_year", "town"])
    benefits = pd.DataFrame(rows["benefits"], columns=["person", "start", "end", "reason"])
    episodes = pd.DataFrame(rows["episodes"], columns=["person", "type", "start", "end"])
    for frame in (benefits, episodes):
        frame["start"], frame["end"] = pd.to_datetime(frame["start"]), pd.to_datetime(frame["end"])
    plain = {name: changes(rows[name], False).drop(columns="end") for name in ("debt", "place")}
    return {
        "persons": people,
        "benefits": benefits,
        "episodes": episodes,
        "changes": {"household": changes(rows["household"], registered), **plain},
        "areas": {"unemployment": figures(rows["unemployment"])},
    }


def cut(made: study.Study, rows: dict, registered: bool = True) -> sample.Sample:
    """The sample of a study from rows."""
    return sample.from_register(made, register.from_frames(made, **frames(rows, registered)))


def of(rows: list[tuple], person: str) -> list[tuple]:
    """The rows (start, end, registered, value) of one person."""
    return [row[1:] for row in rows if row[0] == person]
