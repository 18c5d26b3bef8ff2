"""Every rule on the sample: one that triggers it, and one that does not. And: no rule is without a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks_example import Frames, copy, protocol, read
from checks_spoilt import first_rows, no_starter_leaves_for, nothing, starters
from test_checks_days import MASS
from test_checks_rows import SCENES

from evalkit import sample
from evalkit.register.checks.columns import BIRTH_RULES, COLUMN_RULES
from evalkit.register.checks.days import DAY_RULES
from evalkit.register.checks.rules import ROW_RULES
from evalkit.register.schema import Check
from evalkit.sample.checks import SAMPLE_RULES
from evalkit.study import Study
from evalkit.text import LANGUAGES, known

# -- rules on the sample -----------------------------------------------------------------------------------------------


def judged(frames: Frames, code: str, study: Study | None = None) -> list[Check]:
    study = study or protocol()
    cut = sample.from_register(study, read(frames, study))
    return [check for check in sample.judge_sample(cut) if check.code == code]


def few_starts(number: int) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        training = frames["episodes"][frames["episodes"]["type"] == "training"]
        frames["episodes"] = training.iloc[20 : 20 + number].reset_index(drop=True)

    return change


def one_quarter(frames: Frames) -> None:
    """Nearly all start in one quarter."""
    rows = frames["episodes"]
    inside = rows["start"].between("2015-07-01", "2015-09-30")
    early = rows["start"].between("2015-04-01", "2015-06-30") & (rows["type"] == "training")
    frames["episodes"] = rows[inside | (early.cumsum() <= 10) & early].reset_index(drop=True)


def people_of(arm: bool, every: int, **columns: Any) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        chosen = frames["persons"]["person"].isin(frames["benefits"].loc[starters(frames) == arm, "person"])
        for column, value in columns.items():
            at = frames["persons"].index[chosen][::every]
            frames["persons"].loc[at, column] = value

    return change


def many_starts(frames: Frames) -> None:
    """Of those who might have waited nearly all start."""
    kinds = frames["episodes"]["type"] == "training"
    rest = frames["benefits"][~starters(frames)]
    rest = rest[rest["start"].between("2015-01-01", "2016-10-01")]
    rest = rest[rest["end"].isna() | (rest["end"] > rest["start"] + pd.Timedelta(days=25))].iloc[::2]
    begin = rest["start"] + pd.Timedelta(days=20)
    more = (
        frames["episodes"][kinds].head(1).loc[[frames["episodes"].index[kinds][0]] * len(rest)].reset_index(drop=True)
    )
    more["person"], more["start"] = rest["person"].values, begin.values
    more["end"] = more["planned_end"] = (begin + pd.Timedelta(days=30)).values
    frames["episodes"] = pd.concat([frames["episodes"][kinds], more], ignore_index=True)


SAMPLES: dict[str, tuple[Callable[[Frames], None], Callable[[Frames], None]]] = {
    "starters_few": (few_starts(49), few_starts(50)),
    "starters_thin": (few_starts(12), nothing),
    "comparison_thin": (many_starts, nothing),
    "starters_one_quarter": (one_quarter, nothing),
    "level_one_arm": (people_of(True, 1, education="own"), people_of(False, 2, education="own")),
    "covariate_missing_uneven": (people_of(True, 2, distance=np.nan), first_rows("persons", 0.5, distance=np.nan)),
    "outcome_one_arm": (no_starter_leaves_for("work"), nothing),
}


@pytest.mark.parametrize("code", SAMPLES)
def test_a_sample_that_triggers_a_rule_and_one_that_does_not(code):
    spoil, sound = SAMPLES[code]
    frames = copy()
    spoil(frames)
    checks = judged(frames, code)
    assert checks and all(check.table == "sample" and check.count > 0 for check in checks)
    frames = copy()
    sound(frames)
    assert judged(frames, code) == []


def test_an_outcome_that_is_known_of_one_arm_only():
    cut = sample.from_register(protocol(), read(copy()))

    class Half:
        def paths(self, name, entries, horizon):
            values, observed = cut.outcomes.paths(name, entries, horizon)
            return values, observed & (entries.arm[:, None] == 1)

    checks = sample.judge_sample(replace(cut, outcomes=Half()))
    assert {(check.code, check.params["column"], check.severity) for check in checks} == {
        ("outcome_one_arm", "left_to_work", "error"),
        ("outcome_one_arm", "in_work", "error"),
    }


# -- the list is whole -------------------------------------------------------------------------------------------------

ELSEWHERE = {"follow_up_short", "spell_same_dates"}
"""Rules with a test of their own."""


def test_every_rule_has_a_test():
    scenes = {tuple(name.split(".")) for name in SCENES} | {(table, code) for code, (table, *_) in MASS.items()}
    tested = {code for _, code in scenes} | set(SAMPLES) | ELSEWHERE
    rules = {rule.code for rules in ROW_RULES.values() for rule in rules}
    rules |= {rule.code for rule in (*DAY_RULES, *COLUMN_RULES, *BIRTH_RULES, *SAMPLE_RULES)}
    assert rules - tested == set()
    for lang in LANGUAGES:
        assert [
            code for code in rules for part in ("say", "why", "fix") if not known(f"check.{code}.{part}", lang)
        ] == []
