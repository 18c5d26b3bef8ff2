"""Every rule on rows: a person who triggers it, and one just inside the line who does not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pytest
from checks_example import add, copy, found, protocol, read, scene
from checks_spoilt import reasons

from evalkit import sample
from evalkit.register.checks.rules import ROW_RULES
from evalkit.register.schema import Check

# -- a register without faults ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean() -> tuple[Check, ...]:
    made = read(copy())
    cut = sample.from_register(protocol(), made)
    return (*made.findings, *sample.judge_sample(cut))


def test_no_rule_objects_to_a_register_without_faults(clean):
    assert clean == ()


# -- rules on rows: one more person, and the same person just inside the line ------------------------------------------

SCENES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "persons.person_without_spell": ({"spells": ()}, {}),
    "persons.person_many_spells": (
        {"spells": tuple(f"2015-{m:02d}-0{d} 2015-{m:02d}-0{d + 1}" for m in range(1, 12) for d in (2,))},
        {"spells": tuple(f"2015-{m:02d}-02 2015-{m:02d}-03" for m in range(1, 11))},
    ),
    "persons.person_many_starts": (
        {"training": tuple(f"2015-{m:02d}-09 2015-{m:02d}-20" for m in range(4, 10))},
        {"training": tuple(f"2015-{m:02d}-09 2015-{m:02d}-20" for m in range(4, 9))},
    ),
    "persons.birth_year_missing": ({"person": {"birth_year": None}}, {}),
    "persons.measured_after_start": (
        {"training": ("2015-03-05 2015-05-05",), "person": {"measured": "2015-03-05"}},
        {"training": ("2015-03-05 2015-05-05",), "person": {"measured": "2015-03-04"}},
    ),
    "persons.measured_after_entry": ({"person": {"measured": "2015-02-04"}}, {"person": {"measured": "2015-02-03"}}),
    "persons.key_alike": ({"person": {"person": "P0400"}}, {"person": {"person": "P9999"}}),
    "benefits.spell_overlap": (
        {"spells": ("2015-02-03 2015-06-10", "2015-06-10 2015-09-09")},
        {"spells": ("2015-02-03 2015-06-10", "2015-06-11 2015-09-09")},
    ),
    "benefits.spell_touching": (
        {"spells": ("2015-02-03 2015-06-10", "2015-06-11 2015-09-09")},
        {"spells": ("2015-02-03 2015-06-10", "2015-06-12 2015-09-09")},
    ),
    "benefits.spell_gap_short": (
        {"spells": ("2015-02-03 2015-06-10", "2015-07-10 2015-09-09")},
        {"spells": ("2015-02-03 2015-06-10", "2015-07-11 2015-09-09")},
    ),
    "benefits.spell_one_day": ({"spells": ("2015-02-03 2015-02-03",)}, {"spells": ("2015-02-03 2015-02-04",)}),
    "benefits.spell_short": ({"spells": ("2015-02-03 2015-03-01",)}, {"spells": ("2015-02-03 2015-03-02",)}),
    "benefits.spell_after_window": ({"spells": ("2016-12-03 2017-01-01",)}, {"spells": ("2016-11-03 2016-12-31",)}),
    "benefits.age_impossible": ({"person": {"birth_year": 2001}}, {"person": {"birth_year": 2000}}),
    "benefits.age_below": ({"person": {"birth_year": 1998}}, {"person": {"birth_year": 1997}}),
    "benefits.age_above": ({"person": {"birth_year": 1948}}, {"person": {"birth_year": 1949}}),
    "benefits.registered_late": (
        {"benefit": {"registered": "2015-03-03"}},
        {"benefit": {"registered": "2015-03-02"}},
    ),
    "benefits.registered_after_end": (
        {"benefit": {"registered": "2015-11-21"}},
        {"benefit": {"registered": "2015-11-20"}},
    ),
    "episodes.episode_without_benefit": (
        {"training": ("2015-11-21 2015-12-20",)},
        {"training": ("2015-11-20 2015-12-20",)},
    ),
    "episodes.start_after_spell": ({"training": ("2016-02-19 2016-04-20",)}, {"training": ("2016-02-20 2016-04-20",)}),
    "episodes.start_before_spell": (
        {"training": ("2015-01-30 2015-04-20",)},
        {"spells": ("2015-07-03",), "training": ("2015-04-03 2015-04-20",)},
    ),
    "episodes.episode_never_closed": (
        {"spells": ("2014-08-05",), "training": ("2015-01-01",)},
        {"spells": ("2014-08-05",), "training": ("2015-01-02",)},
    ),
    "episodes.episode_long": ({"training": ("2015-03-05 2020-03-05",)}, {"training": ("2015-03-05 2020-03-04",)}),
    "episodes.episode_one_day": ({"training": ("2015-03-05 2015-03-05",)}, {"training": ("2015-03-05 2015-03-06",)}),
    "episodes.episode_repeated": (
        {"training": ("2015-03-05 2015-05-06", "2015-03-05 2015-05-07")},
        {"training": ("2015-03-05 2015-05-06",), "coaching": ("2015-03-05 2015-05-07",)},
    ),
    "episodes.episode_overlap_same": (
        {"training": ("2015-03-05 2015-05-06", "2015-05-06 2015-06-07")},
        {"training": ("2015-03-05 2015-05-06", "2015-05-07 2015-06-07")},
    ),
    "episodes.episode_overlap_other": (
        {"training": ("2015-03-05 2015-05-06",), "coaching": ("2015-05-06 2015-06-07",)},
        {"training": ("2015-03-05 2015-05-06",), "coaching": ("2015-05-07 2015-06-07",)},
    ),
    "episodes.planned_before_start": (
        {"training": ("2015-03-05 2015-05-06",), "episode": {"planned_end": "2015-03-04"}},
        {"training": ("2015-03-05 2015-05-06",), "episode": {"planned_end": "2015-03-05"}},
    ),
    "episodes.referral_after_start": (
        {"training": ("2015-03-05 2015-05-06",), "episode": {"referral": "2015-03-06"}},
        {"training": ("2015-03-05 2015-05-06",), "episode": {"referral": "2015-03-05"}},
    ),
    "episodes.referral_long_before": (
        {"training": ("2015-03-05 2015-05-06",), "episode": {"referral": "2014-03-05"}},
        {"training": ("2015-03-05 2015-05-06",), "episode": {"referral": "2014-03-06"}},
    ),
    "episodes.referral_missing": (
        {"training": ("2015-03-05 2015-05-06",)},
        {"coaching": ("2015-03-05 2015-05-06",)},
    ),
    "episodes.cost_negative": (
        {"training": ("2015-03-05 2015-05-06",), "episode": {"cost": -1.0}},
        {"training": ("2015-03-05 2015-05-06",), "episode": {"cost": 0.0}},
    ),
    "episodes.registered_late": (
        {"training": ("2015-03-05 2015-05-06",), "episode": {"registered": "2015-04-05"}},
        {"training": ("2015-03-05 2015-05-06",), "episode": {"registered": "2015-04-04"}},
    ),
    "episodes.registered_after_end": (
        {"training": ("2015-03-05 2015-05-06",), "episode": {"registered": "2015-05-07"}},
        {"training": ("2015-03-05 2015-05-06",), "episode": {"registered": "2015-05-06"}},
    ),
    "jobs.job_overlap": (
        {"jobs": ("2015-03-05 2015-05-06", "2015-05-06 2015-06-06")},
        {"jobs": ("2015-03-05 2015-05-06", "2015-05-07 2015-06-06")},
    ),
    "jobs.job_too_young": (
        {"jobs": ("2015-03-05 2015-05-06",), "person": {"birth_year": 2001}},
        {"jobs": ("2015-03-05 2015-05-06",), "person": {"birth_year": 2000}},
    ),
    "jobs.job_one_day": ({"jobs": ("2015-03-05 2015-03-05",)}, {"jobs": ("2015-03-05 2015-03-06",)}),
    "jobs.wage_negative": (
        {"jobs": ("2015-03-05 2015-05-06",), "job": {"wage": -1.0}},
        {"jobs": ("2015-03-05 2015-05-06",), "job": {"wage": 0.0}},
    ),
    "jobs.hours_negative": (
        {"jobs": ("2015-03-05 2015-05-06",), "job": {"hours": -1.0}},
        {"jobs": ("2015-03-05 2015-05-06",), "job": {"hours": 0.0}},
    ),
    "jobs.hours_high": (
        {"jobs": ("2015-03-02 2015-03-29",), "job": {"hours": 245.0}},
        {"jobs": ("2015-03-02 2015-03-29",), "job": {"hours": 235.0}},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def stage() -> tuple[dict[str, Counter[str]], tuple[Check, ...]]:
    """All scenes in one register: for each rule how many rows of which persons it counts, and the checks."""
    frames = copy()
    for name, pair in SCENES.items():
        for kind, what in zip(("spoilt", "sound"), pair, strict=True):
            person = {"person": f"{kind} {name}"} | what.get("person", {})
            frames = scene(frames, **what | {"person": person})
    made = read(frames)
    hits: dict[str, Counter[str]] = {}
    for table in ROW_RULES:
        rules = [rule for rule, _ in made.survey.rules(table)]
        tests = {rule.code: rule.test if rule.among is None else rule.test & rule.among for rule in rules}
        rows = made.survey.facts(table).select("person", **tests).collect("pyarrow").to_native().to_pylist()
        for code in tests:
            hits[f"{table}.{code}"] = Counter(row["person"] for row in rows if row[code])
    return hits, made.findings


@pytest.mark.parametrize("name", SCENES)
def test_a_row_that_triggers_a_rule_and_one_that_does_not(name, stage):
    table, code = name.split(".")
    hits, checks = stage
    spoilt, sound = (
        {"person": f"{kind} {name}"} | what.get("person", {})
        for kind, what in zip(("spoilt", "sound"), SCENES[name], strict=True)
    )
    assert hits[name][spoilt["person"]] == 1
    assert hits[name][sound["person"]] == 0
    (check,) = [check for check in checks if (check.code, check.table) == (code, table)]
    assert check.count == hits[name].total() == sum(arm["count"] for arm in check.arms.values())


def test_the_order_of_rows_changes_nothing():
    frames = copy()
    for name, pair in list(SCENES.items())[::3]:
        frames = scene(frames, **pair[0] | {"person": {"person": name} | pair[0].get("person", {})})
    mixed = {name: frame.sample(frac=1, random_state=5).reset_index(drop=True) for name, frame in frames.items()}
    first, again = read(frames).findings, read(mixed).findings
    assert first == again and len(first) > 12


# -- by arm ------------------------------------------------------------------------------------------------------------


def test_counts_by_arm_have_shares_of_their_own_arm():
    frames = copy()
    reasons(0.5, True, "unknown")(frames)
    (check,) = found(frames, "reason_unknown")
    assert check.arms["starters"]["share"] == pytest.approx(0.5, abs=0.01)
    assert check.arms["others"] == {"count": 0, "share": 0.0}


def test_rows_that_are_set_aside_are_told_by_arm():
    frames = copy()
    person = frames["episodes"]["person"][frames["episodes"]["type"] == "training"].iloc[5]
    add(frames, "benefits", {"person": person, "start": "2016-03-05", "end": "2016-03-01"})
    add(frames, "benefits", {"person": "nobody", "start": "2016-03-05", "end": "2016-03-09"})
    (check,) = found(frames, "end_before_start")
    assert {arm: part["count"] for arm, part in check.arms.items()} == {"starters": 1, "others": 0}
    assert [dict(check.arms) for check in found(frames, "orphan")] == [{}]


def test_the_same_days_twice_with_another_reason():
    frames = scene()
    add(frames, "benefits", {"person": "q1", "start": "2015-02-03", "end": "2015-11-20", "reason": "other"})
    assert [check.count for check in found(frames, "spell_same_dates")] == [1]
    frames["benefits"].loc[len(frames["benefits"]) - 1, "end"] = pd.Timestamp("2015-11-21")
    assert found(frames, "spell_same_dates") == []
