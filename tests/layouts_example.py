"""A small simulated municipality as its own files, and the same as BUS, SRG, Polis and CBS would give it."""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd

from evalkit import simulate

REASONS = {"work": "01", "education": "opleiding", "moved": "verhuizing", "other": "overig"}
TYPES = {"training": "29", "coaching": "30"}

REST = """
[spells]
merge_gap_months = 0
[time]
horizon = 12
[eligibility]
elapsed = [0, 11]
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[covariates]
numeric = ["age"]
categorical = ["sex"]
[[analysis]]
id = "main"
method = "matching"
[disclosure]
profile = "open"
"""

HEAD = """
seed = 1
languages = ["nl", "en"]
title = { nl = "Wat doet het?", en = "What does it do?" }
[data]
folder = "."
format = { date = "%Y-%m-%d", decimal = "." }
window = { first = 2018-01-01, last = 2021-12-31 }
"""

PLAIN = (
    HEAD
    + """
[data.persons]
file = "p.csv"
columns = { person = "person", sex = "sex", birth_year = "birth_year" }
[data.benefits]
file = "b.csv"
columns = { person = "person", start = "start", end = "end", reason = "reason" }
codes.reason = { work = ["01"], education = ["opleiding"], moved = ["verhuizing"], other = ["overig"] }
[data.episodes]
file = "e.csv"
columns = { person = "person", type = "type", start = "start", end = "end" }
codes.type = { other_workplace = ["29"], job_coach = ["30"] }
[treatment]
instrument = "other_workplace"
"""
    + REST
)

LAYOUTS = (
    HEAD
    + """
[data.persons]
file = "p.csv"
columns = { person = "person", sex = "sex", birth_year = "birth_year" }
[data.benefits]
file = "bus.csv"
layout = "bus"
codes.reason = { work = ["01"] }
[data.episodes]
file = "srg.csv"
layout = "srg"
[treatment]
instrument = "other_workplace"
"""
    + REST
)

CBS = (
    HEAD
    + """
[data.persons]
file = "gba.KIND"
layout = "cbs"
[data.benefits]
file = "bijstand.KIND"
layout = "cbs"
columns.reason = "REDEN"
codes.reason = { work = ["01"] }
[data.episodes]
file = "voorziening.KIND"
layout = "cbs"
columns = { type = "TYPE", start = "BEGIN", end = "EINDE" }
[data.jobs]
file = "spolis.KIND"
layout = "cbs"
[treatment]
instrument = "other_workplace"
"""
    + REST
)


@functools.cache
def tables(persons: int = 1200) -> simulate.Tables:
    """The municipality; persons are numbers of nine digits."""
    made = simulate.draw(simulate.SMALL, persons, 4)
    names = {name: f"{700 + 1009 * i:09d}" for i, name in enumerate(made.persons["person"])}
    frames = {}
    for name in ("persons", "benefits", "episodes"):
        frame = getattr(made, name).copy()
        frame["person"] = frame["person"].map(names)
        frames[name] = frame
    return simulate.Tables(seed=made.seed, **frames)


def exported() -> dict[str, pd.DataFrame]:
    """The tables with own codes, dates as text."""
    made = tables()
    benefits, episodes = made.benefits.copy(), made.episodes.copy()
    benefits["reason"] = benefits["reason"].map(REASONS)
    episodes["type"] = episodes["type"].map(TYPES)
    for frame in (benefits, episodes):
        for column in ("start", "end"):
            frame[column] = frame[column].dt.strftime("%Y-%m-%d")
    return {"persons": made.persons, "benefits": benefits, "episodes": episodes}


def write_plain(folder: Path) -> Path:
    """The files under names of their own, and a study that maps everything; its path."""
    frames = exported()
    for name, frame in zip("pbe", frames.values(), strict=True):
        frame.to_csv(folder / f"{name}.csv", index=False)
    (folder / "study.toml").write_text(PLAIN)
    return folder / "study.toml"


def write_layouts(folder: Path, text: str = LAYOUTS) -> Path:
    """The same as BUS and SRG, and a study that leaves the mapping to the layouts; its path."""
    frames = exported()
    frames["persons"].to_csv(folder / "p.csv", index=False)
    bus = frames["benefits"].rename(
        columns={
            "person": "burgerservicenummer",
            "start": "datum_aanvang",
            "end": "datum_beeindiging",
            "reason": "reden_beeindiging",
        }
    )
    bus["soort_uitkering"] = ["Bbz" if i % 7 == 0 else "WWB" for i in range(len(bus))]
    bus.to_csv(folder / "bus.csv", index=False, sep=";")
    srg = frames["episodes"].rename(
        columns={
            "person": "burgerservicenummer",
            "type": "type_voorziening",
            "start": "begindatum_voorziening",
            "end": "einddatum_voorziening",
        }
    )
    srg.to_csv(folder / "srg.csv", index=False, sep=";")
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def jobs() -> pd.DataFrame:
    """A row a month of work for every third person."""
    rows = []
    for i, person in enumerate(tables().persons["person"]):
        for month in range(i % 40, min(i % 40 + 5, 48)) if i % 3 == 0 else ():
            start = pd.Timestamp(2018, 1, 1) + pd.DateOffset(months=month)
            end = start + pd.DateOffset(months=1) - pd.Timedelta(days=1)
            rows.append({"person": person, "start": start, "end": end, "hours": 80.0 + i % 9, "wage": 1000.0 + i % 5})
    return pd.DataFrame(rows)


def cbs(number: bool) -> dict[str, pd.DataFrame]:
    """The tables with the names of CBS microdata; RINPERSOON as text, or as a number without its zeros."""
    frames = exported()
    persons = pd.DataFrame(
        {
            "GBAGEBOORTEJAAR": frames["persons"]["birth_year"].astype(str),
            "GBAGESLACHT": frames["persons"]["sex"].map({"man": "1", "woman": "2"}),
        }
    )
    spells = frames["benefits"].rename(
        columns={
            "start": "BIJSTANDAanvangUitkeringPersoon1A",
            "end": "BIJSTANDEindeUitkeringPersoon1A",
            "reason": "REDEN",
        }
    )
    spells["BIJSTANDStatistiekcodeA"] = "01"
    parts = frames["episodes"].rename(columns={"type": "TYPE", "start": "BEGIN", "end": "EINDE"})
    work = jobs().rename(
        columns={"start": "SDATUMAANVANGIKO", "end": "SDATUMEINDEIKO", "hours": "SAANTVERLU", "wage": "SLNSV"}
    )
    for column in ("SDATUMAANVANGIKO", "SDATUMEINDEIKO"):
        work[column] = work[column].dt.strftime("%Y-%m-%d")
    work["SLNLBPH"], work["SCONTRACTSOORT"] = work["SLNSV"] + 1, "B"
    made = {}
    for name, frame, key in (
        ("gba", persons, frames["persons"]["person"]),
        ("bijstand", spells, spells["person"]),
        ("voorziening", parts, parts["person"]),
        ("spolis", work, work["person"]),
    ):
        frame = frame.drop(columns="person", errors="ignore")
        frame.insert(0, "RINPERSOONS", "R")
        frame.insert(1, "RINPERSOON", key.astype(float).to_numpy() if number else key.to_numpy())
        drop = [column for column in ("planned_end", "referral") if column in frame]
        made[name] = frame.drop(columns=drop)
    return made
