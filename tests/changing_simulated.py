"""A register in which what drives starting and leaving changes over time, and its true effect by recursion.

Every month, first: whoever has not started starts at a rate that depends on household and on the unemployment rate last
known. Then: whoever is on benefit leaves at a rate that depends on both and on having started. Last: households change.
Leaving changes the household as well, so the last value in the file tells who left.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd

from evalkit import register, sample, study

MONTHS, ENTRIES, ELAPSED, HORIZON, TOWNS, DELAY = 36, 20, 10, 12, 40, 1
START, LEAVE = (-3.6, 1.1, -0.30), (-2.9, 0.9, -0.30)  # intercept, couple, a point of unemployment
GAIN = 0.35
"""On the log rate of leaving, from the month of the start on."""
FORMS, PARTS = 0.05, 0.05
TURNS = 0.7
"""Chance that a single who leaves becomes half of a couple soon after."""


def first_of(month: int) -> dt.date:
    """The first day of a month of the register; month 0 is January 2018."""
    return dt.date(2018 + month // 12, month % 12 + 1, 1)


def rates() -> np.ndarray:
    """Unemployment (TOWNS, MONTHS + 12) by month, from a year before the first; without any trend."""
    return np.round(np.random.default_rng(99).uniform(3, 9, (TOWNS, MONTHS + 12)), 1)


def known_rate(rate: np.ndarray, month: int) -> np.ndarray:
    """The rate (TOWNS,) known before the first day of a month: that of three months earlier."""
    return rate[:, month - DELAY - 2 + 12]


def chance(law: tuple[float, float, float], couple, rate, gain=0.0):
    """Chance in a month."""
    return -np.expm1(-np.exp(law[0] + law[1] * couple + law[2] * (rate - 6.0) + gain))


def truth() -> tuple[np.ndarray, np.ndarray]:
    """Chance (K,) to have left by month k when starting, and when not starting that month, averaged over starters."""
    rate = rates()
    span = MONTHS + 1
    moves = np.array([[1 - FORMS, FORMS], [PARTS, 1 - PARTS]])
    couple = np.arange(2)[None, :]
    start, stay = np.zeros((span, TOWNS, 2)), np.zeros((2, span, TOWNS, 2))
    for c in range(span):
        known = known_rate(rate, c)[:, None]
        start[c] = chance(START, couple, known)
        for treated in range(2):
            stay[treated, c] = 1 - chance(LEAVE, couple, known, GAIN * treated)
    alive = np.ones(
        (HORIZON + 1, 2, span + 1, TOWNS, 2)
    )  # still there k months on, by treated, at the start of a month
    after = np.ones((HORIZON + 1, 2, span, TOWNS, 2))  # the same, once it is known who starts in that month
    for k in range(1, HORIZON + 1):
        for c in range(span - k):
            for treated in range(2):
                after[k, treated, c] = stay[treated, c] * (alive[k - 1, treated, c + 1] @ moves.T)
            alive[k, 1, c] = after[k, 1, c]
            alive[k, 0, c] = start[c] * after[k, 1, c] + (1 - start[c]) * after[k, 0, c]
    sums, total = np.zeros((2, HORIZON)), 0.0
    for entry in range(ENTRIES):
        here = np.tile([0.6, 0.4], (TOWNS, 1))
        for m in range(ELAPSED + 1):
            c = entry + m
            if c + HORIZON <= MONTHS:
                weight = here * start[c]
                total += weight.sum()
                for treated in range(2):
                    sums[1 - treated] += [(weight * (1 - after[k, treated, c])).sum() for k in range(1, HORIZON + 1)]
            here = (here * (1 - start[c]) * stay[0, c]) @ moves
    return sums[0] / total, sums[1] / total


def draw(persons: int, seed: int) -> dict[str, pd.DataFrame]:
    """Frames: persons with town and last values, benefits, episodes, household and unemployment."""
    rng, rate = np.random.default_rng(seed), rates()
    town, entry = rng.integers(TOWNS, size=persons), rng.integers(ENTRIES, size=persons)
    couple = (rng.random(persons) < 0.4).astype(int)
    begun, left = np.full(persons, -1), np.full(persons, -1)
    changes = [(np.arange(persons), entry, np.full(persons, -40), couple.copy())]  # person, month, day, couple
    for month in range(MONTHS):
        here = (entry <= month) & (left < 0)
        known = known_rate(rate, month)[town]
        may = here & (begun < 0) & (month - entry <= ELAPSED + 6)
        begun[may & (rng.random(persons) < chance(START, couple, known))] = month
        gone = here & (rng.random(persons) < chance(LEAVE, couple, known, GAIN * (begun >= 0)))
        left[gone] = month
        stays = here & ~gone
        flips = np.where(stays, rng.random(persons) < np.where(couple == 1, PARTS, FORMS), False)
        turns = gone & (couple == 0) & (rng.random(persons) < TURNS)
        couple = np.where(flips | turns, 1 - couple, couple)
        rows = np.flatnonzero(flips | turns)
        changes.append((rows, np.full(len(rows), month), np.where(turns[rows], 24, 19), couple[rows]))
    who, month, day, value = (np.concatenate(column) for column in zip(*changes, strict=True))
    firsts = np.array([first_of(m) for m in range(MONTHS)], "datetime64[D]").astype("datetime64[ns]")
    one_day = np.timedelta64(1, "D")
    ids = np.array([f"p{i:06d}" for i in range(persons)], object)
    words = np.array(["single", "couple"], object)
    names = np.array([f"t{g:02d}" for g in range(TOWNS)], object)
    none = np.datetime64("NaT")
    end = np.where(left >= 0, firsts[left] + 10 * one_day, none)
    starts = np.flatnonzero(begun >= 0)
    last = rate[:, -1]
    return {
        "persons": pd.DataFrame(
            {"person": ids, "town": names[town], "last_household": words[couple], "last_rate": last[town]}
        ),
        "benefits": pd.DataFrame(
            {"person": ids, "start": firsts[entry], "end": end, "reason": np.where(left >= 0, "work", None)}
        ),
        "episodes": pd.DataFrame(
            {"person": ids[starts], "type": "training", "start": firsts[begun[starts]], "end": none}
        ),
        "household": pd.DataFrame({"person": ids[who], "start": firsts[month] + day * one_day, "value": words[value]}),
        "unemployment": pd.DataFrame(
            [(names[g], f"{first_of(m):%Y-%m}", rate[g, m + 12]) for g in range(TOWNS) for m in range(-12, MONTHS)],
            columns=["area", "month", "value"],
        ),
    }


_TEXT = """
seed = 11
languages = ["en"]
title = {{ en = "Confounders that change" }}
[data]
window = {{ first = 2018-01-01, last = 2020-12-31 }}
[data.persons]
file = "p.csv"
columns = {{ person = "p", town = "t", last_household = "h", last_rate = "u" }}
[data.benefits]
file = "b.csv"
columns = {{ person = "p", start = "a", end = "b", reason = "r" }}
codes.reason = {{ work = ["work"] }}
[data.episodes]
file = "e.csv"
columns = {{ person = "p", type = "t", start = "a", end = "b" }}
codes.type = {{ training = ["training"] }}
[data.changes.household]
file = "h.csv"
columns = {{ person = "p", start = "a", value = "v" }}
[data.areas.unemployment]
file = "u.csv"
columns = {{ area = "g", month = "m", value = "v" }}
area = "town"
delay_months = {delay}
[spells]
merge_gap_months = 0
[time]
horizon = {horizon}
[eligibility]
elapsed = [0, {elapsed}]
[treatment]
instrument = "training"
[[outcome]]
name = "left"
kind = "event"
source = "exit:any"
primary = true
[covariates]
{covariates}
[[analysis]]
id = "main"
method = "matching"
ratio = 3
[disclosure]
profile = "open"
"""
COVARIATES = {
    "as of time zero": 'numeric = ["unemployment"]\ncategorical = ["household"]',
    "last in the files": 'numeric = ["last_rate"]\ncategorical = ["last_household"]',
    "left out": 'categorical = ["town"]',
}


def protocol(which: str) -> study.Study:
    """The study that adjusts for ``which`` values."""
    text = _TEXT.format(delay=DELAY, horizon=HORIZON, elapsed=ELAPSED, covariates=COVARIATES[which])
    return study.parse(text, Path("study.toml"))


def cut(made: study.Study, frames: dict[str, pd.DataFrame]) -> sample.Sample:
    """The sample of a study from the frames."""
    tables = {name: frames[name] for name in ("persons", "benefits", "episodes")}
    changes, areas = {"household": frames["household"]}, {"unemployment": frames["unemployment"]}
    return sample.from_register(made, register.from_frames(made, **tables, changes=changes, areas=areas))
