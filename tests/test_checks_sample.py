"""Every rule on the sample: one that triggers it, and one that does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks_example import Frames, copy, protocol, read
from checks_spoilt import first_rows, no_starter_leaves_for, nothing, starters

from evalkit import sample
from evalkit.register.schema import Check
from evalkit.sample.types import NO_START, Sample
from evalkit.study import Study

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


def arms_of(cut: Sample) -> dict[bool, set[int]]:
    """Persons who start, and persons at risk who never do, from the entries one by one."""
    entries = cut.entries
    starter = {int(p) for p, arm in zip(entries.person, entries.arm, strict=True) if arm}
    later = {int(p) for p, wait in zip(entries.person, entries.own_start_after, strict=True) if wait != NO_START}
    return {True: starter, False: {int(p) for p in entries.person} - starter - later}


def by_month(cut: Sample) -> dict[int, tuple[int, int]]:
    """Starters and others at risk by elapsed month, of months with starters."""
    months = pd.DataFrame({"elapsed": cut.entries.elapsed, "arm": cut.entries.arm})
    sizes = months.groupby("elapsed")["arm"].agg(starters="sum", all="size")
    sizes = sizes[sizes["starters"] > 0]
    return {month: (row["starters"], row["all"] - row["starters"]) for month, row in sizes.iterrows()}


def persons_with(cut: Sample, frames: Frames, arms: tuple[bool, ...], column: str, test: Callable[[Any], bool]) -> int:
    values = frames["persons"].set_index("person")[column]
    return sum(test(values[cut.people.ids[person]]) for arm in arms for person in arms_of(cut)[arm])


def quarters(cut: Sample, frames: Frames) -> int:
    return max(Counter(cut.entries.quarter[cut.entries.arm == 1].tolist()).values())


Change = Callable[[Frames], None]
SAMPLES: dict[str, tuple[Change, Change, Callable[[Sample, Frames], int]]] = {
    "starters_few": (few_starts(49), few_starts(50), lambda cut, frames: 49),
    "starters_thin": (few_starts(12), nothing, lambda cut, frames: sum(n < 10 for n, _ in by_month(cut).values())),
    "comparison_thin": (many_starts, nothing, lambda cut, frames: sum(m < 3 * n for n, m in by_month(cut).values())),
    "starters_one_quarter": (one_quarter, nothing, quarters),
    "level_one_arm": (
        people_of(True, 1, education="own"),
        people_of(False, 2, education="own"),
        lambda cut, frames: len(arms_of(cut)[True]),
    ),
    "covariate_missing_uneven": (
        people_of(True, 2, distance=np.nan),
        first_rows("persons", 0.5, distance=np.nan),
        lambda cut, frames: persons_with(cut, frames, (True, False), "distance", pd.isna),
    ),
    "outcome_one_arm": (no_starter_leaves_for("work"), nothing, lambda cut, frames: len(arms_of(cut)[True])),
}


@pytest.mark.parametrize("code", SAMPLES)
def test_a_sample_that_triggers_a_rule_and_one_that_does_not(code):
    spoil, sound, expected = SAMPLES[code]
    frames = copy()
    spoil(frames)
    cut = sample.from_register(protocol(), read(frames))
    (check,) = [check for check in sample.judge_sample(cut) if check.code == code]
    assert (check.table, check.count) == ("sample", expected(cut, frames)) and check.count > 0
    assert 0 < check.share <= 1 and check.unit == ("months" if code.endswith("_thin") else "rows")
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
