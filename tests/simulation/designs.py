"""Simulated studies whose truth is known: what coverage and benchmarks run on."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit import simulate, study

_TEXT = """
schema = 1
seed = {seed}
languages = ["en"]
title = {{ en = "Simulated municipality" }}
[data]
window = {{ first = {first}, last = {last} }}
[data.persons]
file = "personen.csv"
columns = {{ person = "p", sex = "s", birth_year = "b", education = "e", household = "h", distance = "d" }}
[data.benefits]
file = "uitkeringen.csv"
columns = {{ person = "p", start = "a", end = "b", reason = "r" }}
codes.reason = {{ work = ["work"], education = ["education"], other = ["*"] }}
[data.episodes]
file = "trajecten.csv"
columns = {{ person = "p", type = "t", start = "a", end = "b", planned_end = "c" }}
codes.type = {{ training = ["training"], coaching = ["coaching"] }}
[spells]
merge_gap_months = 0  # the law of the municipality counts every day off benefit, and so does its truth
[time]
horizon = {horizon}
follow_up = "{follow_up}"
[eligibility]
age = [18, 66]
elapsed = [0, 23]
earlier_spells = [0, 0]
[treatment]
instrument = "training"
versus = "wait"
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[[outcome]]
name = "on_benefit"
kind = "state"
source = "state:benefit"
better = "lower"
[covariates]
numeric = ["age", "distance"]
categorical = ["sex", "education", "household"]
[[analysis]]
id = "main"
method = "matching"
{settings}
[disclosure]
profile = "open"
minimum = 1
"""


@dataclass(frozen=True)
class Design:
    """A municipality, how many persons, and how the study looks at it."""

    name: str
    municipality: simulate.Municipality
    persons: int
    horizon: int = 24
    follow_up: str = "complete"
    settings: str = ""

    def study(self, seed: int = 1) -> study.Study:
        """The study file of this design."""
        first, last = self.municipality.window
        text = _TEXT.format(
            seed=seed, first=first, last=last, horizon=self.horizon, follow_up=self.follow_up, settings=self.settings
        )
        return study.parse(text, Path("study.toml"))


_SHORT = simulate.Municipality(window=(dt.date(2015, 1, 1), dt.date(2020, 12, 31)), start_rate=0.02)
_FREQUENT = replace(_SHORT, start_rate=0.06)

DESIGNS = (
    Design("training", _SHORT, 4000),
    Design("no effect", replace(_SHORT, **simulate.NO_EFFECT), 4000),
    Design("three matches", _SHORT, 4000, settings="ratio = 3"),
    Design("frequent starts", _FREQUENT, 3000, settings="ratio = 3"),
    Design("small pilot", _SHORT, 700, settings="ratio = 3"),
    Design("available", _SHORT, 4000, follow_up="available", settings="ratio = 3"),
)
