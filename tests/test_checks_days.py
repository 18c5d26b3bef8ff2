"""Every rule on days, columns and shares: a register that triggers it, and one like it that does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from checks_example import CLEAN, Frames, columns_of, copy, days_of, found, protocol, read, scene
from checks_spoilt import (
    both,
    end_of,
    entry_of,
    first_rows,
    month_of,
    no_starter_leaves_for,
    nothing,
    only_arm,
    peak_of_births,
    reasons,
    recode,
    repeat,
    scattered,
    shift_starts,
    without,
    zeros,
)

from evalkit.register.checks.columns import BIRTH_RULES, COLUMN_RULES, column_checks
from evalkit.register.checks.days import DAY_RULES, day_checks
from evalkit.register.schema import Check

MASS: dict[str, tuple[str, Callable[[Frames], None], Callable[[Frames], None]]] = {
    "key_zeros_lost": ("persons", zeros(7), zeros(8)),
    "stock_large": (
        "benefits",
        first_rows("benefits", 0.32, start=pd.Timestamp("2014-12-30")),
        first_rows("benefits", 0.25, start=pd.Timestamp("2014-12-30")),
    ),
    "reason_unknown": ("benefits", reasons(0.08, None, "unknown"), reasons(0.03, None, "unknown")),
    "start_on_first_day": (
        "episodes",
        first_rows("episodes", 0.1, start=entry_of),
        first_rows("episodes", 0.03, start=entry_of),
    ),
    "end_is_planned": (
        "episodes",
        shift_starts,
        first_rows("episodes", 0.8, planned_end=lambda rows: rows["end"]),
    ),
    "starts_on_first": (
        "benefits",
        first_rows("benefits", 0.7, start=month_of("start")),
        first_rows("benefits", 0.3, start=month_of("start")),
    ),
    "ends_on_last": (
        "benefits",
        first_rows("benefits", 0.7, end=end_of("end")),
        first_rows("benefits", 0.3, end=end_of("end")),
    ),
    "starts_on_new_year": (
        "benefits",
        first_rows("benefits", 0.3, start=pd.Timestamp("2015-01-01")),
        first_rows("benefits", 1.0, start=month_of("start")),
    ),
    "ends_on_new_year": (
        "benefits",
        first_rows("benefits", 0.2, end=pd.Timestamp("2015-12-31")),
        first_rows("benefits", 1.0, end=end_of("end")),
    ),
    "starts_on_one_day": (
        "benefits",
        first_rows("benefits", 0.3, start=pd.Timestamp("2015-01-13")),
        first_rows("benefits", 1.0, start=month_of("start")),
    ),
    "ends_on_one_day": ("benefits", first_rows("benefits", 0.3, end=pd.Timestamp("2016-04-13")), nothing),
    "entries_none": ("benefits", without("benefits", "start", "2015-09-01", "2015-09-30"), nothing),
    "exits_none": (
        "benefits",
        without("benefits", "end", "2015-09-01", "2015-09-30"),
        without("benefits", "end", "2015-09-01", "2015-09-29"),
    ),
    "starts_none": ("episodes", without("episodes", "start", "2015-09-01", "2015-09-30"), nothing),
    "entries_drop": (
        "benefits",
        without("benefits", "start", "2015-09-01", "2015-09-30", 5),
        without("benefits", "start", "2015-09-01", "2015-09-15"),
    ),
    "exits_drop": (
        "benefits",
        without("benefits", "end", "2015-09-01", "2015-09-30", 5),
        without("benefits", "end", "2015-09-01", "2015-09-15"),
    ),
    "starts_drop": (
        "episodes",
        both(
            repeat("episodes", "start", "2015-01-01", "2016-12-31"),
            without("episodes", "start", "2015-09-01", "2015-09-30", 9),
        ),
        both(
            repeat("episodes", "start", "2015-01-01", "2016-12-31"),
            without("episodes", "start", "2015-09-01", "2015-09-12"),
        ),
    ),
    "entries_peak": ("benefits", repeat("benefits", "start", "2015-09-01", "2015-09-30"), nothing),
    "exits_peak": ("benefits", repeat("benefits", "end", "2015-09-01", "2015-09-30"), nothing),
    "starts_peak": ("episodes", repeat("episodes", "start", "2015-09-01", "2015-09-30"), nothing),
    "data_begin_late": (
        "jobs",
        without("jobs", "start", "2015-01-01", "2015-04-02"),
        without("jobs", "start", "2015-01-01", "2015-03-02"),
    ),
    "data_end_early": (
        "episodes",
        without("episodes", "start", "2016-09-29", "2016-12-31"),
        without("episodes", "start", "2016-10-29", "2016-12-31"),
    ),
    "code_appears": ("benefits", recode("2015-01-01", "2015-12-31", ("education",), "other"), nothing),
    "code_disappears": (
        "benefits",
        recode("2016-01-01", "2016-12-31", ("education",), "other"),
        recode("2016-10-01", "2016-12-31", ("education",), "other"),
    ),
    "code_shift": (
        "benefits",
        recode("2016-03-01", "2016-12-31", ("work",), "other"),
        recode("2016-11-01", "2016-12-31", ("work",), "other"),
    ),
    "code_rare": ("benefits", reasons(0.995, None, "work"), nothing),
    "code_unused": ("benefits", recode("2014-01-01", "2016-12-31", ("education",), "other"), nothing),
    "reason_unknown_uneven": ("benefits", reasons(0.2, True, "unknown"), scattered("unknown")),
    "reason_one_arm": ("benefits", no_starter_leaves_for("education"), nothing),
    "jobs_one_arm": ("jobs", only_arm(True), nothing),
    "covariate_missing": ("persons", first_rows("persons", 0.01, education=None), nothing),
    "covariate_almost_empty": (
        "persons",
        first_rows("persons", 0.95, distance=np.nan),
        first_rows("persons", 0.85, distance=np.nan),
    ),
    "covariate_constant": ("persons", first_rows("persons", 1.0, sex="m"), first_rows("persons", 0.9, sex="m")),
    "category_spelling": (
        "persons",
        first_rows("persons", 0.05, education="Mid dle"),
        first_rows("persons", 0.05, education="midle"),
    ),
    "category_rare": ("persons", first_rows("persons", 9 / 1150, sex="x"), first_rows("persons", 10 / 1150, sex="x")),
    "category_many": (
        "persons",
        first_rows("persons", 1.0, education=lambda rows: [f"e{i % 51}" for i in range(len(rows))]),
        first_rows("persons", 1.0, education=lambda rows: [f"e{i % 50}" for i in range(len(rows))]),
    ),
    "category_unknown_word": (
        "persons",
        first_rows("persons", 0.1, sex="Onbekend"),
        first_rows("persons", 0.1, sex="onbekende"),
    ),
    "numeric_outlier": (
        "persons",
        first_rows("persons", 0.01, distance=35.0),
        first_rows("persons", 0.01, distance=25.0),
    ),
    "numeric_sentinel": (
        "persons",
        first_rows("persons", 0.01, distance=99.0),
        first_rows("persons", 0.01, distance=9.9),
    ),
    "birth_year_heaped": (
        "persons",
        first_rows("persons", 0.2, birth_year=lambda rows: rows["birth_year"] // 10 * 10),
        first_rows("persons", 0.05, birth_year=lambda rows: rows["birth_year"] // 10 * 10),
    ),
    "birth_year_peak": ("persons", peak_of_births(150), peak_of_births(50)),
}  # fmt: skip


def noticed(frames: Frames, code: str) -> list[Check]:
    """The checks with a code; rules on days and columns straight from the frames, others through the register."""
    if code in {rule.code for rule in DAY_RULES}:
        checks = [check for days in days_of(frames) for check in day_checks(days)]
    elif code in {rule.code for rule in (*COLUMN_RULES, *BIRTH_RULES)}:
        rules = {"birth_year": BIRTH_RULES}
        columns = columns_of(frames)
        checks = [
            c for column in columns for c in column_checks("persons", column, rules.get(column.name, COLUMN_RULES))
        ]
    else:
        return found(frames, code)
    return [check for check in checks if check.code == code]


@pytest.mark.parametrize("code", MASS)
def test_a_register_that_triggers_a_rule_and_one_that_does_not(code):
    table, spoil, sound = MASS[code]
    frames = copy()
    spoil(frames)
    checks = [check for check in noticed(frames, code) if check.table == table]
    assert len(checks) == 1 and checks[0].count > 0
    assert 0 < checks[0].share <= 1
    frames = copy()
    sound(frames)
    assert [check for check in noticed(frames, code) if check.table == table] == []


def test_the_register_counts_days_and_columns_as_pandas_does():
    frames = copy()
    for code in ("ends_on_one_day", "code_shift", "reason_unknown_uneven", "covariate_missing", "category_rare"):
        MASS[code][1](frames)
    survey = read(frames).survey
    for mine, twin in zip(survey.days(), days_of(frames), strict=True):
        assert list(day_checks(mine)) == list(day_checks(twin))
        assert (mine.total, mine.names, mine.first, mine.last) == (twin.total, twin.names, twin.first, twin.last)
    for mine, twin in zip(survey.columns(), columns_of(frames), strict=True):
        assert list(column_checks("persons", mine)) == list(column_checks("persons", twin))
    wanted, all_of_them = [check for days in days_of(frames) for check in day_checks(days)], survey.checks()
    assert len(wanted) >= 3 and all(check in all_of_them for check in wanted)


def test_follow_up_that_is_too_short():
    episodes = CLEAN["episodes"]
    late = (episodes["start"] >= "2015-05-02") & (episodes["type"] == "training")
    assert [check.count for check in found(copy(), "follow_up_short", protocol(horizon=20))] == [int(late.sum())]
    assert found(copy(), "follow_up_short", protocol(horizon=10)) == []


def test_age_limits_are_those_of_the_study():
    limits = protocol().model_copy(update={"eligibility": protocol().eligibility.model_copy(update={"age": (27, 50)})})
    low = (CLEAN["benefits"]["start"].dt.year - CLEAN["persons"]["birth_year"]) < 27
    assert [check.count for check in found(copy(), "age_below", limits)] == [int(low.sum())]
    assert found(copy(), "age_above", limits)


def test_a_month_is_named_where_a_break_begins():
    frames = copy()
    without("benefits", "end", "2015-09-01", "2015-10-31")(frames)
    (check,) = found(frames, "exits_none")
    assert (check.count, check.unit, check.params["month"]) == (2, "months", "2015-09")


def test_hours_may_be_a_rate():
    rate = protocol()
    rate = rate.model_copy(update={"spells": rate.spells.model_copy(update={"job_amounts": "rate"})})
    frames = copy()
    frames["jobs"]["hours"] = 250.0
    frames["jobs"].loc[0, "hours"] = 270.0
    assert [check.count for check in found(frames, "hours_high", rate)] == [1]


def test_the_clock_of_the_study_decides_which_day_is_looked_at():
    frames = scene(training=("2015-12-20 2016-02-20",), episode={"referral": "2015-10-05"})
    assert [check.params["column"] for check in found(frames, "episode_without_benefit")] == ["start"]
    assert found(frames, "episode_without_benefit", protocol(clock="referral")) == []
