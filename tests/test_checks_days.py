"""Every rule on days, columns and shares: a register that triggers it, and one like it that does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks_example import CLEAN, FIRST, LAST, Frames, columns_of, copy, days_of, found, protocol, read, scene, starts
from checks_spoilt import (
    both,
    end_of,
    entry_of,
    exit_of,
    first_rows,
    last_days,
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
from evalkit.register.checks.days import DAY_RULES, Days, day_checks
from evalkit.register.schema import Check, uneven

Expected = int | Callable[[Frames], tuple[pd.Series, pd.Series]]


def rows_of(table: str, chosen: Callable[[pd.DataFrame], Any], judged: Callable[[pd.DataFrame], Any] = len) -> Expected:
    """Which rows of a table are counted, and which are judged (all unless told otherwise), by pandas."""

    def masks(frames: Frames) -> tuple[pd.Series, pd.Series]:
        rows = frames[table]
        among = judged(rows) if judged is not len else pd.Series(True, rows.index)
        return chosen(rows) & among, among

    return masks


def inside(column: str) -> Callable[[pd.DataFrame], Any]:
    return lambda rows: rows[column].between(FIRST, LAST)


def on(column: str, pattern: str, form: str = "%m-%d") -> Callable[[pd.DataFrame], Any]:
    return lambda rows: rows[column].dt.strftime(form).str.fullmatch(pattern, na=False)


def has(column: str) -> Callable[[pd.DataFrame], Any]:
    return lambda rows: rows[column].notna()


def equal(column: str, value: Any) -> Callable[[pd.DataFrame], Any]:
    return lambda rows: rows[column] == value


def turn_of_month(rows: pd.DataFrame) -> Any:
    return rows["end"].dt.is_month_start | rows["end"].dt.is_month_end


def ended(rows: pd.DataFrame) -> Any:
    return rows["end"] <= LAST


def within(rows: pd.DataFrame) -> Any:
    return rows["start"].between(FIRST, LAST)


MASS: dict[str, tuple[str, Callable[[Frames], None], Callable[[Frames], None], Expected]] = {
    "key_zeros_lost": ("persons", zeros(7), zeros(8), rows_of("persons", equal("person", "9" * 7))),
    "stock_large": (
        "benefits",
        first_rows("benefits", 0.32, start=pd.Timestamp("2014-12-30")),
        first_rows("benefits", 0.25, start=pd.Timestamp("2014-12-30")),
        rows_of("benefits", lambda rows: rows["start"] < FIRST),
    ),
    "reason_unknown": (
        "benefits",
        reasons(0.08, None, "unknown"),
        reasons(0.03, None, "unknown"),
        rows_of("benefits", equal("reason", "unknown"), ended),
    ),
    "start_on_first_day": (
        "episodes",
        first_rows("episodes", 0.1, start=entry_of),
        first_rows("episodes", 0.03, start=entry_of),
        rows_of("episodes", lambda rows: rows["start"] == entry_of(rows), within),
    ),
    "start_on_last_day": (
        "episodes",
        last_days(0.02),
        last_days(0.005),
        rows_of("episodes", lambda rows: rows["start"] == exit_of(rows), within),
    ),
    "end_is_planned": (
        "episodes",
        shift_starts,
        first_rows("episodes", 0.8, planned_end=lambda rows: rows["end"]),
        rows_of("episodes", has("end")),
    ),
    "starts_on_first": (
        "benefits",
        first_rows("benefits", 0.7, start=month_of("start")),
        first_rows("benefits", 0.3, start=month_of("start")),
        rows_of("benefits", on("start", "..-01"), inside("start")),
    ),
    "ends_on_last": (
        "benefits",
        first_rows("benefits", 0.7, end=end_of("end")),
        first_rows("benefits", 0.3, end=end_of("end")),
        rows_of("benefits", turn_of_month, inside("end")),
    ),
    "starts_on_new_year": (
        "benefits",
        first_rows("benefits", 0.3, start=pd.Timestamp("2015-01-01")),
        first_rows("benefits", 1.0, start=month_of("start")),
        rows_of("benefits", on("start", "01-01"), inside("start")),
    ),
    "ends_on_new_year": (
        "benefits",
        first_rows("benefits", 0.2, end=pd.Timestamp("2015-12-31")),
        first_rows("benefits", 1.0, end=end_of("end")),
        rows_of("benefits", on("end", "12-31"), inside("end")),
    ),
    "starts_on_one_day": (
        "benefits",
        first_rows("benefits", 0.3, start=pd.Timestamp("2015-01-13")),
        first_rows("benefits", 1.0, start=month_of("start")),
        rows_of("benefits", equal("start", pd.Timestamp("2015-01-13")), inside("start")),
    ),
    "ends_on_one_day": (
        "benefits",
        first_rows("benefits", 0.3, end=pd.Timestamp("2016-04-13")),
        nothing,
        rows_of("benefits", equal("end", pd.Timestamp("2016-04-13")), inside("end")),
    ),
    "entries_none": ("benefits", without("benefits", "start", "2015-09-01", "2015-09-30"), nothing, 1),
    "exits_none": (
        "benefits",
        without("benefits", "end", "2015-09-01", "2015-09-30"),
        without("benefits", "end", "2015-09-01", "2015-09-29"),
        1,
    ),
    "starts_none": ("episodes", without("episodes", "start", "2015-09-01", "2015-09-30"), nothing, 1),
    "jobs_none": (
        "jobs",
        without("jobs", "start", "2015-09-01", "2015-10-31"),
        without("jobs", "start", "2015-09-01", "2015-09-15"),
        2,
    ),
    "jobs_drop": (
        "jobs",
        without("jobs", "start", "2015-09-01", "2015-09-30", 5),
        without("jobs", "start", "2015-09-01", "2015-09-15"),
        1,
    ),
    "entries_drop": (
        "benefits",
        without("benefits", "start", "2015-09-01", "2015-09-30", 5),
        without("benefits", "start", "2015-09-01", "2015-09-15"),
        1,
    ),
    "exits_drop": (
        "benefits",
        without("benefits", "end", "2015-09-01", "2015-09-30", 5),
        without("benefits", "end", "2015-09-01", "2015-09-15"),
        1,
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
        1,
    ),
    "entries_peak": ("benefits", repeat("benefits", "start", "2015-09-01", "2015-09-30"), nothing, 1),
    "exits_peak": ("benefits", repeat("benefits", "end", "2015-09-01", "2015-09-30"), nothing, 1),
    "starts_peak": ("episodes", repeat("episodes", "start", "2015-09-01", "2015-09-30"), nothing, 1),
    "data_begin_late": (
        "jobs",
        without("jobs", "start", "2015-01-01", "2015-04-02"),
        without("jobs", "start", "2015-01-01", "2015-03-02"),
        3,
    ),
    "data_end_early": (
        "episodes",
        without("episodes", "start", "2016-09-29", "2016-12-31"),
        without("episodes", "start", "2016-10-29", "2016-12-31"),
        3,
    ),
    "code_appears": ("benefits", recode("2015-01-01", "2015-12-31", ("education",), "other"), nothing, 1),
    "code_disappears": (
        "benefits",
        recode("2016-01-01", "2016-12-31", ("education",), "other"),
        recode("2016-10-01", "2016-12-31", ("education",), "other"),
        1,
    ),
    "code_shift": (
        "benefits",
        recode("2016-03-01", "2016-12-31", ("work",), "other"),
        recode("2016-11-01", "2016-12-31", ("work",), "other"),
        2,
    ),
    "code_rare": ("benefits", reasons(0.995, None, "work"), nothing, 2),
    "code_unused": ("benefits", recode("2014-01-01", "2016-12-31", ("education",), "other"), nothing, 1),
    "reason_unknown_uneven": (
        "benefits",
        reasons(0.2, True, "unknown"),
        scattered("unknown"),
        rows_of("benefits", equal("reason", "unknown"), ended),
    ),
    "reason_one_arm": ("benefits", no_starter_leaves_for("education"), nothing, 1),
    "covariate_missing": (
        "persons",
        first_rows("persons", 0.01, education=None),
        nothing,
        rows_of("persons", lambda rows: rows["education"].isna()),
    ),
    "covariate_almost_empty": (
        "persons",
        first_rows("persons", 0.95, distance=np.nan),
        first_rows("persons", 0.85, distance=np.nan),
        rows_of("persons", lambda rows: rows["distance"].isna()),
    ),
    "covariate_constant": (
        "persons",
        first_rows("persons", 1.0, sex="m"),
        first_rows("persons", 0.9, sex="m"),
        rows_of("persons", has("sex")),
    ),
    "category_spelling": (
        "persons",
        first_rows("persons", 0.05, education="Mid dle"),
        first_rows("persons", 0.05, education="midle"),
        rows_of("persons", equal("education", "Mid dle")),
    ),
    "category_rare": (
        "persons",
        first_rows("persons", 9 / 1150, sex="x"),
        first_rows("persons", 10 / 1150, sex="x"),
        rows_of("persons", equal("sex", "x")),
    ),
    "category_many": (
        "persons",
        first_rows("persons", 1.0, education=lambda rows: [f"e{i % 51}" for i in range(len(rows))]),
        first_rows("persons", 1.0, education=lambda rows: [f"e{i % 50}" for i in range(len(rows))]),
        rows_of("persons", has("education")),
    ),
    "category_unknown_word": (
        "persons",
        first_rows("persons", 0.1, education="Onbekend"),
        first_rows("persons", 0.1, education="onbekende"),
        rows_of("persons", equal("education", "Onbekend")),
    ),
    "numeric_outlier": (
        "persons",
        first_rows("persons", 0.01, distance=35.0),
        first_rows("persons", 0.01, distance=25.0),
        rows_of("persons", equal("distance", 35.0)),
    ),
    "numeric_sentinel": (
        "persons",
        first_rows("persons", 0.01, distance=99.0),
        first_rows("persons", 0.01, distance=9.9),
        rows_of("persons", equal("distance", 99.0)),
    ),
    "birth_year_heaped": (
        "persons",
        first_rows("persons", 0.2, birth_year=lambda rows: rows["birth_year"] // 10 * 10),
        first_rows("persons", 0.05, birth_year=lambda rows: rows["birth_year"] // 10 * 10),
        rows_of("persons", lambda rows: rows["birth_year"] % 5 == 0),
    ),
    "birth_year_peak": (
        "persons",
        peak_of_births(150),
        peak_of_births(50),
        rows_of("persons", equal("birth_year", 1971)),
    ),
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
    table, spoil, sound, expected = MASS[code]
    frames = copy()
    spoil(frames)
    (check,) = [check for check in noticed(frames, code) if check.table == table]
    if isinstance(expected, int):
        assert check.count == expected and check.unit in ("months", "codes")
    else:
        exactly(check, frames, *expected(frames))
    frames = copy()
    sound(frames)
    assert [check for check in noticed(frames, code) if check.table == table] == []


def exactly(check: Check, frames: Frames, chosen: pd.Series, judged: pd.Series) -> None:
    """The check counts just these rows, in all and by arm, among just those."""
    arm = pd.Series(starts(frames, frames[check.table]["person"]), chosen.index)
    assert (check.count, check.unit) == (chosen.sum(), "rows")
    assert check.share == pytest.approx(chosen.sum() / judged.sum())
    for name, one in (("starters", arm), ("others", ~arm)):
        share = (chosen & one).sum() / (judged & one).sum()
        assert check.arms[name] == {"count": (chosen & one).sum(), "share": pytest.approx(share)}


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


def test_jobs_of_one_arm_only():
    frames = copy()
    only_arm(True)(frames)
    (check,) = found(frames, "jobs_one_arm")
    idle = ~frames["persons"]["person"].isin(frames["jobs"]["person"])
    exactly(check, frames | {"jobs": frames["persons"]}, idle, pd.Series(True, idle.index))
    assert found(copy(), "jobs_one_arm") == []


def test_new_year_is_compared_with_the_other_firsts_that_the_window_has():
    first, last = 16_709, 16_829  # 1 October 2015 to 29 January 2016: one new year, three other firsts
    day = np.array([16_709, 16_740, 16_770, 16_801])
    about = ("episodes", "episodes", "start", day, np.full(4, "", object), np.zeros(4, bool))
    for january, alarm in ((299, False), (301, True)):
        days = Days(*about, np.array([100, 100, 100, january]), first, last, 6)
        assert [c.count for c in day_checks(days) if c.code == "starts_on_new_year"] == [january] * alarm


BREAKS = {
    (0, 0, *[400] * 10): [],  # without a stock nobody leaves at first
    (30, *[400] * 11): [],
    (400, 0, *[400] * 10): ["exits_none"],
    (400, 30, *[400] * 10): ["exits_drop"],
    (*[400] * 11, 30): ["exits_drop"],
    (*[400] * 11, 0): ["exits_none"],
    (*[400] * 5, 0, *[400] * 6): ["exits_none"],  # the months around it are no peaks for that
    (*[400] * 5, 900, *[400] * 6): ["exits_peak"],
    (900, *[400] * 11): ["exits_peak"],
    (*[3] * 5, 0, *[3] * 6): [],  # too few a month to tell
}
"""Exits in each month of a year, and which breaks are seen in them."""


@pytest.mark.parametrize("months", BREAKS)
def test_breaks_by_month(months):
    middle = np.array([16_450, 16_481, 16_509, 16_540, 16_570, 16_601, 16_631, 16_662, 16_693, 16_723, 16_754, 16_784])
    count = np.array(months)
    some = count > 0
    about = ("exits", "benefits", "end", middle[some], np.full(some.sum(), "", object), np.zeros(some.sum(), bool))
    checks = [c for c in day_checks(Days(*about, count[some], 16_436, 16_800, 6)) if c.code in MONTHLY]
    assert [(check.code, check.count) for check in checks] == [(code, 1) for code in BREAKS[months]]


MONTHLY = ("exits_none", "exits_drop", "exits_peak")


def test_an_uneven_share_must_be_beyond_chance():
    assert uneven({True: 30, False: 100}, {True: 100, False: 1000})
    assert not uneven({True: 20, False: 101}, {True: 100, False: 1000})  # less than ten points
    assert not uneven({True: 6, False: 4}, {True: 25, False: 25})  # 24 % and 16 %
    assert not uneven({True: 8, False: 4}, {True: 25, False: 25})  # sixteen points, and nothing odd in so few
    assert not uneven({True: 5, False: 0}, {True: 5, False: 0})


def test_follow_up_that_is_too_short():
    episodes = CLEAN["episodes"]
    late = (episodes["start"] >= "2015-04-02") & (episodes["type"] == "training")  # twenty months and one to look ahead
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
