"""A register of a thousand persons that no rule objects to, which tests then spoil in one way at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evalkit import register, study
from evalkit.register import Check
from evalkit.register.checks.columns import Column
from evalkit.register.checks.days import Days

FIRST, LAST = pd.Timestamp("2015-01-01"), pd.Timestamp("2016-12-31")

_TEXT = """
schema = 1
seed = 1
languages = ["en"]
title = {{ en = "Two years" }}
[data]
window = {{ first = 2015-01-01, last = 2016-12-31 }}
[data.persons]
file = "p.csv"
columns = {{ person = "p", sex = "s", birth_year = "b", education = "e", distance = "d", measured = "m" }}
[data.benefits]
file = "b.csv"
columns = {{ person = "p", start = "a", end = "b", reason = "r", registered = "g" }}
codes.reason = {{ work = ["work"], education = ["education"], other = ["other"] }}
[data.episodes]
file = "e.csv"
codes.type = {{ training = ["training"], coaching = ["coaching"] }}
[data.episodes.columns]
person = "p"
type = "t"
start = "a"
end = "b"
planned_end = "pe"
referral = "r"
registered = "g"
cost = "c"
[data.jobs]
file = "j.csv"
columns = {{ person = "p", start = "a", end = "b", hours = "h", wage = "w" }}
[time]
horizon = {horizon}
clock = "{clock}"
[eligibility]
elapsed = [0, 5]
[treatment]
instrument = "training"
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[[outcome]]
name = "in_work"
kind = "state"
source = "state:work"
[covariates]
numeric = ["distance"]
categorical = ["sex", "education"]
[[analysis]]
id = "main"
method = "matching"
"""

Frames = dict[str, pd.DataFrame]


@functools.cache
def protocol(horizon: int = 6, clock: str = "start") -> study.Study:
    """The study of the example."""
    return study.parse(_TEXT.format(horizon=horizon, clock=clock), Path("study.toml"))


def _days(number: int) -> pd.Timedelta:
    return pd.Timedelta(days=number)


def clean() -> Frames:
    """Spells that begin evenly from half a year before the window; every fourth leads to training, in its time."""
    persons: list[dict[str, Any]] = []
    benefits: list[dict[str, Any]] = []
    episodes: list[dict[str, Any]] = []
    jobs: list[dict[str, Any]] = []
    for i in range(1220):
        start = FIRST - _days(184) + _days(i * 3 // 4)
        end = start + _days(40 + i * 37 % 200)
        if end < FIRST or start > LAST:
            continue
        person = f"p{i:04d}"
        persons.append(
            {
                "person": person,
                "sex": "mv"[i // 7 % 2],
                "birth_year": 1955 + i * 7 % 40,
                "education": ("low", "middle", "high")[i // 5 % 3],
                "distance": i * 13 % 97 / 10,
                "measured": start - _days(30),
            }
        )
        running = end > LAST
        reason = None if running else ("work", "other", "work", "education")[i // 4 % 4]
        spell = {"person": person, "start": start, "end": pd.NaT if running else end, "reason": reason}
        benefits.append(spell | {"registered": start + _days(5)})
        begin = start + _days(15 + i % 20)
        kind = "training" if i % 4 == 0 else "coaching" if i % 5 == 0 else ""
        if kind and FIRST <= begin <= LAST:
            stop = begin + _days(30 + i % 60)
            episodes.append(
                {
                    "person": person,
                    "type": kind,
                    "start": begin,
                    "end": stop,
                    "planned_end": stop + _days(10),
                    "referral": begin - _days(7),
                    "registered": begin + _days(3),
                    "cost": 1000.0,
                }
            )
        if i % 3 < 2:
            works = FIRST + _days(i * 11 % 720)
            jobs.append(
                {"person": person, "start": works, "end": works + _days(90), "hours": 400.0, "wage": 6000.0 + i % 50}
            )
    return {
        "persons": pd.DataFrame(persons),
        "benefits": pd.DataFrame(benefits),
        "episodes": pd.DataFrame(episodes),
        "jobs": pd.DataFrame(jobs),
    }


CLEAN = clean()
"""Never changed; tests work on copies."""


def copy() -> Frames:
    """The clean frames, to be spoilt."""
    return {name: frame.copy() for name, frame in CLEAN.items()}


def add(frames: Frames, table: str, *rows: dict[str, Any]) -> None:
    """Rows behind those of a table; text that looks like a date in a date column becomes one."""
    frame = frames[table]
    more = pd.DataFrame(list(rows), columns=frame.columns)
    for column in frame.columns:
        if str(frame[column].dtype).startswith("datetime"):
            more[column] = pd.to_datetime(more[column])
        elif frame[column].dtype.kind in "if":
            more[column] = more[column].astype(float)
    frames[table] = pd.concat([frame, more], ignore_index=True)


def scene(
    frames: Frames | None = None,
    *,
    spells: tuple[str, ...] = ("2015-02-03 2015-11-20",),
    training: tuple[str, ...] = (),
    coaching: tuple[str, ...] = (),
    jobs: tuple[str, ...] = (),
    episode: dict[str, Any] | None = None,
    benefit: dict[str, Any] | None = None,
    job: dict[str, Any] | None = None,
    person: dict[str, Any] | None = None,
) -> Frames:
    """The clean register (or another) and one more person: spells, episodes and jobs as "start end" or "start"."""
    frames = frames or copy()
    one = {"person": "q1", "sex": "m", "birth_year": 1980, "education": "low", "distance": 4.0}
    one |= {"measured": "2014-01-06"} | (person or {})
    add(frames, "persons", one)
    key = one["person"]

    def rows(texts: tuple[str, ...], **more: Any) -> list[dict[str, Any]]:
        split = [(*text.split(), None)[:2] for text in texts]
        return [{"person": key, "start": start, "end": end, **more} for start, end in split]

    for row in rows(spells):
        add(frames, "benefits", row | {"reason": "work" if row["end"] else None} | (benefit or {}))
    for kind, texts in (("training", training), ("coaching", coaching)):
        for row in rows(texts, type=kind):
            add(frames, "episodes", row | (episode or {}))
    for row in rows(jobs, hours=100.0, wage=1000.0):
        add(frames, "jobs", row | (job or {}))
    return frames


def read(frames: Frames, made: study.Study | None = None) -> register.Register:
    """The register of frames."""
    return register.from_frames(made or protocol(), **frames)


def found(frames: Frames, code: str, made: study.Study | None = None) -> list[Check]:
    """The checks with this code."""
    return [check for check in read(frames, made).findings if check.code == code]


def starts(frames: Frames, person: pd.Series) -> np.ndarray:
    """Whether persons start the instrument."""
    training = frames["episodes"]
    return person.isin(training.loc[training["type"] == "training", "person"]).to_numpy(bool)


def days_of(frames: Frames, horizon: int = 6) -> Iterator[Days]:
    """The days that the survey counts, counted by pandas."""
    reasons, types = ("work", "education", "other"), ("training", "coaching")
    training = frames["episodes"][frames["episodes"]["type"] == "training"]
    kinds: tuple[tuple[str, str, str, str, tuple[str, ...], pd.DataFrame], ...] = (
        ("entries", "benefits", "start", "", (), frames["benefits"]),
        ("exits", "benefits", "end", "reason", reasons, frames["benefits"]),
        ("starts", "episodes", "start", "", (), training),
        ("episodes", "episodes", "start", "type", types, frames["episodes"]),
        ("episode_ends", "episodes", "end", "", (), frames["episodes"]),
        ("jobs", "jobs", "start", "", (), frames["jobs"]),
    )
    first, last = ((day - pd.Timestamp(0)).days for day in (FIRST, LAST))
    for name, table, column, code, names, frame in kinds:
        rows = frame[frame[column].between(FIRST, LAST)]
        day = (rows[column] - pd.Timestamp(0)).dt.days.to_numpy(np.int64)
        codes = rows[code].fillna("unknown").to_numpy(object) if code else np.full(len(rows), "", object)
        ones, starter = np.ones(len(rows), np.int64), starts(frames, rows["person"])
        yield Days(name, table, column, day, codes, starter, ones, first, last, horizon, code, names)


def columns_of(frames: Frames) -> Iterator[Column]:
    """The columns that the survey counts, as they are."""
    persons = frames["persons"]
    ones, starter = np.ones(len(persons), np.int64), starts(frames, persons["person"])
    for name in ("birth_year", "sex", "education", "distance"):
        numeric = name in ("birth_year", "distance")
        values = persons[name].astype(object).where(persons[name].notna(), None).to_numpy(object)
        yield Column(name, values, starter, ones, numeric)
