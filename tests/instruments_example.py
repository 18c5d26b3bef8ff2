"""A register with instruments of every kind, of a few lines or of many persons who are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from evalkit import register, sample, study

STUDY = """
schema = 1
seed = 1
languages = ["nl", "en"]
title = {{ nl = "Samen", en = "Together" }}
[data]
window = {{ first = 2015-01-01, last = 2019-12-31 }}
[data.persons]
file = "p.csv"
columns = {{ person = "p", sex = "s", team = "t" }}
[data.benefits]
file = "b.csv"
columns = {{ person = "p", start = "a", end = "b", reason = "r" }}
codes.reason = {{ work = ["work"], other = ["*"] }}
[data.episodes]
file = "e.csv"
columns = {{ person = "p", type = "t", start = "a"{columns} }}
codes.type = {{ training = ["T"], coaching = ["C"], meeting = ["M"] }}
[spells]
merge_gap_months = 0
[time]
horizon = 6
clock = "{clock}"
[eligibility]
elapsed = [0, 11]
other_instrument = "{other}"
[treatment]
instrument = "{instrument}"
cluster = "{cluster}"
{instruments}
[[outcome]]
name = "left"
kind = "event"
source = "exit:any"
primary = true
[covariates]
categorical = ["sex"]
[[analysis]]
id = "main"
method = "matching"
caliper = {{ width = 20.0 }}
[disclosure]
profile = "{disclosure}"
minimum = {minimum}
[labels.nl]
training = "Scholing"
own = "Eigen familie"
[labels.en]
own = "A family of its own"
"""
COLUMNS = ', end = "b", planned_end = "pl", referral = "r", provider = "pr", caseworker = "cw", cost = "c", hours = "h"'
INSTRUMENTS = """
[[instrument]]
name = "training"
family = "training"
join_gap_days = 7
[[instrument]]
name = "coaching"
family = "own"
open_end_months = 6
[[instrument]]
name = "meeting"
family = "guidance"
kind = "event"
[[instrument]]
name = "both"
combine = ["training", "coaching"]
within_months = 3
[[instrument]]
name = "second_meeting"
of = "meeting"
order = 2
"""
EPISODE = ["person", "type", "start", "end", "planned_end", "referral", "provider", "caseworker", "cost", "hours"]


def text_of(
    instrument: str = "training",
    instruments: str = INSTRUMENTS,
    *,
    clock: str = "start",
    other: str = "exclude",
    cluster: str = "person",
    columns: str = COLUMNS,
    disclosure: str = "open",
    minimum: int = 1,
) -> str:
    """The text of a study on one instrument."""
    return STUDY.format(
        instrument=instrument, instruments=instruments, clock=clock, other=other, cluster=cluster, columns=columns,
        disclosure=disclosure, minimum=minimum,
    )  # fmt: skip


def protocol(*args: Any, **keys: Any) -> study.Study:
    """The study on one instrument."""
    return study.parse(text_of(*args, **keys), Path("study.toml"))


def frames(benefits: list[tuple], episodes: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Frames from (person, start, end) and from episodes that name only what they know."""
    people = sorted({row[0] for row in benefits} | {row["person"] for row in episodes})
    spells = pd.DataFrame(benefits, columns=["person", "start", "end"]).assign(reason="work")
    spells["reason"] = spells["reason"].where(spells["end"].notna())
    trips = pd.DataFrame(episodes, columns=EPISODE)
    for frame in (spells, trips):
        for column in {"start", "end", "planned_end", "referral"} & set(frame.columns):
            frame[column] = pd.to_datetime(frame[column])
    for column in ("cost", "hours"):
        trips[column] = trips[column].astype(float)
    sexes = ["m" if i % 2 else "f" for i in range(len(people))]
    persons = pd.DataFrame({"person": people, "sex": sexes, "team": "a"})
    return {"persons": persons, "benefits": spells, "episodes": trips}


def episode(person: str, type: str, start: str | None, end: str | None = None, **known: Any) -> dict[str, Any]:
    """One row of episodes."""
    return {"person": person, "type": type, "start": start, "end": end, **known}


def read(made: study.Study, tables: dict[str, pd.DataFrame]) -> tuple[register.Register, sample.Sample]:
    """The register and the sample of a study."""
    found = register.from_frames(made, **tables)
    return found, sample.from_register(made, found)
