"""A register of a few lines, and the study that is cut from it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evalkit import register, sample, study

_TEXT = """
schema = 1
seed = {seed}
languages = ["en"]
title = {{ en = "A few lines" }}
[data]
window = {{ first = {first}, last = {last} }}
[data.persons]
file = "p.csv"
columns = {{ person = "p", sex = "s", birth_year = "b", distance = "d", team = "t" }}
[data.benefits]
file = "b.csv"
columns = {{ person = "p", start = "a", end = "b", reason = "r"{household} }}
codes.reason = {{ work = ["work"], education = ["education"], other = ["*"] }}
[data.episodes]
file = "e.csv"
columns = {{ person = "p", type = "t", start = "a", end = "b", referral = "r" }}
codes.type = {{ training = ["training"], coaching = ["coaching"] }}
{jobs}
[spells]
{spells}
[time]
horizon = {horizon}
clock = "{clock}"
within_month = "{within}"
follow_up = "{follow_up}"
[eligibility]
{eligibility}
[treatment]
instrument = "training"
{treatment}
cluster = "{cluster}"
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
name = "on_benefit"
kind = "state"
source = "state:benefit"
better = "lower"
{outcome}
[covariates]
{covariates}
{subgroups}
[[analysis]]
id = "main"
method = "{method}"
{settings}
[disclosure]
profile = "open"
minimum = 1
"""
JOBS = """[data.jobs]
file = "j.csv"
columns = {{ person = "p", start = "a", end = "b"{amounts} }}
"""
AMOUNTS = ', hours = "h", wage = "w", earnings = "e"'
WORK = """[[outcome]]
name = "in_work"
kind = "state"
source = "state:work"
"""


def protocol(
    *,
    seed: int = 1,
    first: str = "2015-01-01",
    last: str = "2023-12-31",
    horizon: int = 12,
    clock: str = "start",
    within: str = "dates",
    follow_up: str = "complete",
    eligibility: str = "",
    cluster: str = "person",
    jobs: bool = False,
    amounts: bool = False,
    household: bool = False,
    outcomes: str = "",
    spells: str = "merge_gap_months = 0",
    covariates: str = 'categorical = ["sex"]',
    subgroups: str = "",
    settings: str = "",
    method: str = "matching",
    treatment: str = "",
) -> study.Study:
    """A study with one instrument and three outcomes, four with jobs."""
    text = _TEXT.format(
        seed=seed, first=first, last=last, horizon=horizon, clock=clock, within=within, follow_up=follow_up,
        eligibility=eligibility, cluster=cluster, spells=spells, outcome=(WORK if jobs else "") + outcomes,
        jobs=JOBS.format(amounts=AMOUNTS if amounts else "") if jobs else "",
        household=', household_id = "h"' if household else "",
        covariates=covariates, subgroups=subgroups, settings=settings, method=method, treatment=treatment,
    )  # fmt: skip
    return study.parse(text, Path("study.toml"))


def frames(persons, benefits, episodes, jobs=None):
    """Frames from short rows.

    Rows are (id, sex, birth, distance, team), (id, start, end, reason), (id, type, start, end, referral) and
    (id, start, end) or (id, start, end, hours, wage, earnings). A reason may be followed by a household.
    """
    benefit = ["person", "start", "end", "reason", "household_id"]
    job = ["person", "start", "end", "hours", "wage", "earnings"]

    made = {
        "persons": pd.DataFrame(persons, columns=["person", "sex", "birth_year", "distance", "team"]),
        "benefits": pd.DataFrame(benefits, columns=benefit[: len(benefits[0])]),
        "episodes": pd.DataFrame(episodes, columns=["person", "type", "start", "end", "referral"]),
    }
    if jobs is not None:
        made["jobs"] = pd.DataFrame(jobs, columns=job[: len(jobs[0]) if jobs else 3])
    for frame in made.values():
        for column in {"start", "end", "referral"} & set(frame.columns):
            frame[column] = pd.to_datetime(frame[column])
    made["persons"]["birth_year"] = made["persons"]["birth_year"].astype("Int64")
    return made


def cut(made: study.Study, tables) -> sample.Sample:
    """The sample of a study from frames."""
    return sample.from_register(made, register.from_frames(made, **tables))


def person(id: str, sex: str = "m", birth: int | None = 1985, distance: float = 1.0, team: str = "a"):
    """A person row."""
    return (id, sex, birth, distance, team)
