"""Outcomes in the months before time zero: to the day, against loops over days, and blind to what comes after."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from naive.before import before as naive
from sample_example import cut, frames, person, protocol

from evalkit import sample, study
from evalkit.errors import DesignError, StudyError
from evalkit.register import read_table

FIRST, LAST = dt.date(2018, 1, 1), dt.date(2021, 12, 31)
DAY = dt.timedelta(days=1)
MONTHS = 14
MORE = """
[[outcome]]
name = "months_work"
kind = "flow"
source = "months:work"
[[outcome]]
name = "months_benefit"
kind = "flow"
source = "months:benefit"
[[outcome]]
name = "earned"
kind = "flow"
source = "flow:earnings"
unit = "euro"
[[outcome]]
name = "came_back"
kind = "event"
source = "return:benefit"
"""
WITH = ("on_benefit", "in_work", "months_work", "months_benefit", "earned")


def asked(**keys):
    keys = dict(horizon=3, first=str(FIRST), last=str(LAST), jobs=True, amounts=True, outcomes=MORE) | keys
    return protocol(**keys)


def some(rng, low, days):
    return low + dt.timedelta(days=int(rng.integers(days)))


def town(seed, people=150):
    """Benefits with gaps, starts, and jobs that overlap, touch, run on and cross the start; dates as dates."""
    rng = np.random.default_rng(seed)
    benefits, episodes, jobs = [], [], []
    for i in range(people):
        p = f"p{i:03d}"
        begin = some(rng, dt.date(2017, 6, 1), 900)
        for _ in range(rng.integers(1, 4)):
            end = begin + dt.timedelta(days=int(rng.integers(20, 500)))
            benefits.append((p, begin, None if rng.random() < 0.2 else end, "work"))
            if benefits[-1][2] is None:
                break
            begin = end + dt.timedelta(days=int(rng.choice([2, 15, 28, 40, 200])))
        if rng.random() < 0.7:
            _, low, high, _ = benefits[-1]
            start = low + dt.timedelta(days=int(rng.integers(0, 200)))
            episodes.append((p, "training", start, start + 30 * DAY, None))
            for length in (60, 400):  # jobs about the start: up to the day before, from that day, across it
                begin = start + dt.timedelta(days=int(rng.choice([0, 0, 1, -1, -30])))
                jobs.append((p, begin, begin + length * DAY, 10.0, 900.0, float(rng.integers(1, 5000))))
                if rng.random() < 0.5:
                    jobs.append((p, begin - 100 * DAY, begin - DAY, 10.0, 900.0, float(rng.integers(1, 5000))))
        for _ in range(rng.integers(0, 5)):
            begin = some(rng, dt.date(2017, 1, 1), 1700)
            end = None if rng.random() < 0.15 else begin + dt.timedelta(days=int(rng.integers(0, 300)))
            jobs.append((p, begin, end, 10.0, 900.0, float(rng.integers(1, 5000))))
    benefits = [row for row in benefits if row[1] <= LAST]
    episodes = [row for row in episodes if row[2] <= LAST]
    jobs = [row for row in jobs if row[1] <= LAST]
    return [person(f"p{i:03d}") for i in range(people)], benefits, episodes, jobs


@pytest.mark.slow
@pytest.mark.parametrize("within", ["dates", "start_first", "exit_first"])
@pytest.mark.parametrize("amounts", ["total", "rate"])
def test_every_month_is_that_of_the_loops(within, amounts):
    people, benefits, episodes, jobs = town(4)
    made = asked(within=within, spells=f'job_amounts = "{amounts}"\nmerge_gap_months = 1')
    found = cut(made, frames(people, benefits, episodes, jobs))
    rows = np.random.default_rng(1).permutation(len(found.entries))[:150]
    entries = found.entries.take(rows)
    days = found.known_day(entries).astype("datetime64[D]").astype(object)
    ids = found.people.ids[entries.person]
    for name in WITH:
        values, observed = found.before(name, entries, MONTHS)
        assert values.shape == observed.shape == (len(rows), MONTHS)
        for i, (who, day) in enumerate(zip(ids, days, strict=True)):
            expected, seen = naive(name, who, day, MONTHS, benefits, jobs, FIRST, LAST, 1, amounts)
            assert observed[i].tolist() == seen, (name, who, day)
            assert np.where(seen, values[i], 0) == pytest.approx(np.where(seen, expected, 0), abs=1e-9), (
                name,
                who,
                day,
            )
        assert not values[~observed].any()
        assert 0 < observed.sum() < observed.size and len(np.unique(values[observed])) > 1, name


def test_the_last_months_of_one_person():
    """Time zero is 31 March: month -1 begins on 28 February (2019), month -2 on 31 January."""
    jobs = [
        ("S", "2018-10-01", "2019-02-27", 1.0, 1.0, 1.0),
        ("S", "2019-03-30", "2019-03-30", 1.0, 1.0, 1.0),
        ("S", "2019-03-31", None, 1.0, 1.0, 1.0),
    ]
    tables = frames(
        [person("S"), person("W")],
        [("S", "2019-01-15", None, None), ("W", "2019-01-15", None, None)],
        [("S", "training", "2019-03-31", "2019-05-01", None)],
        jobs,
    )
    found = cut(asked(), tables)
    entries = found.entries.take(np.flatnonzero(found.entries.arm == 1))
    values, observed = found.before("months_work", entries, 3)
    assert values[0].tolist() == [1.0, 28 / 28, 1 / 31] and observed.all()  # the job ends on the day before month -1
    # at the close of month -1 the one day of work is over, and the job that begins on time zero is not seen
    assert found.before("in_work", entries, 3)[0][0].tolist() == [1.0, 0.0, 0.0]
    assert found.before("on_benefit", entries, 3)[0][0].tolist() == [1.0, 1.0, 1.0]
    assert found.before("on_benefit", entries, 4)[0][0].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert found.before("months_benefit", entries, 3)[0][0, 0] == 16 / 31  # from 31 December to 30 January
    _, observed = found.before("in_work", entries, 16)
    assert observed[0].tolist() == [False, False, *[True] * 14]  # months from 30 November and 31 December 2017


def test_which_outcomes_have_a_history():
    people, benefits, episodes, jobs = town(4, 40)
    found = cut(asked(), frames(people, benefits, episodes, jobs))
    names = [outcome.name for outcome in found.study.outcomes]
    assert [name for name in names if found.has_history(name)] == [name for name in names if name in WITH]
    with pytest.raises(DesignError) as caught:
        found.before("came_back", found.entries, 3)
    assert caught.value.faults[0].code == "design.no_history"
    assert caught.value.faults[0].params == {"outcome": "came_back"}
    with pytest.raises(ValueError):
        found.before("in_work", found.entries, 0)
    none = found.entries.take(np.empty(0, np.int64))
    assert all(found.before(name, none, 3)[0].shape == (0, 3) for name in WITH)


# -- the future -------------------------------------------------------------------------------------------------------


def changed(rows, seed, since, ends):
    """Jobs with everything that begins on a day or later replaced, and what runs on then ended otherwise if asked."""
    rng = np.random.default_rng(seed)
    kept = [row for row in rows if row[1] < since]
    people = sorted({row[0] for row in rows})
    new = []
    for row in kept:
        end = row[2]
        if ends and (end is None or end >= since):
            end = None if rng.random() < 0.3 else some(rng, since, 300)
        new.append((row[0], row[1], end, *row[3:]))
    for who in people:
        for begin in (since, since + DAY, some(rng, since, 400)):
            if rng.random() < 0.7 and begin <= LAST:
                new.append((who, begin, some(rng, begin, 300), 5.0, 5.0, float(rng.integers(1, 5000))))
    return new


@pytest.mark.slow
@pytest.mark.parametrize(("within", "amounts"), [("dates", "rate"), ("exit_first", "rate"), ("dates", "total")])
def test_the_future_changes_nothing(within, amounts):
    """What begins later, and when what runs now will end; but a total is spread over its days, so its end stays."""
    people, benefits, episodes, jobs = town(9, 80)
    made = asked(within=within, spells=f'job_amounts = "{amounts}"')
    plain = cut(made, frames(people, benefits, episodes, jobs))
    days = np.unique(plain.known_day(plain.entries))
    moved = 0
    for seed, number in enumerate(days[:: len(days) // 5]):
        since = dt.date(1970, 1, 1) + dt.timedelta(days=int(number))
        other = cut(made, frames(people, benefits, episodes, changed(jobs, seed, since, amounts == "rate")))
        assert np.array_equal(plain.entries.time_zero, other.entries.time_zero)
        known = plain.known_day(plain.entries) <= number
        for name in WITH:
            one, two = (found.before(name, found.entries, MONTHS) for found in (plain, other))
            assert np.array_equal(one[0][known], two[0][known]) and np.array_equal(one[1], two[1]), name
            moved += not np.array_equal(one[0][~known], two[0][~known])
    assert moved > 5  # the changes do change what comes after


# -- tables -----------------------------------------------------------------------------------------------------------

TABLE = """
seed = 1
languages = ["en"]
title = { en = "Did it work?" }
[table]
file = "x.csv"
unit = "id"
treatment = "t"
outcomes = { work = ["w1", "w2"], euro = ["e1"] }
before = { work = ["w_3", "w_2", "w_1"] }
[treatment]
instrument = "x"
[[outcome]]
name = "work"
kind = "state"
primary = true
[[outcome]]
name = "euro"
kind = "flow"
unit = "euro"
[covariates]
numeric = ["w_3"]
[[analysis]]
id = "main"
method = "matching"
"""


def test_a_table_may_tell_what_came_before(tmp_path):
    data = pd.DataFrame(
        {"id": ["b", "a", "c"], "t": [1, 0, 0], "w1": [1, 0, 1], "w2": [1, 1, 1], "e1": [5, 6, 7],
         "w_3": [0, 1, 0], "w_2": [1, None, 0], "w_1": [1, 0, 1]},
    )  # fmt: skip
    data.to_csv(tmp_path / "x.csv", index=False, sep=";", decimal=",")
    made = study.parse(TABLE, tmp_path / "study.toml")
    found = sample.from_table(made, read_table(made))
    assert found.people.ids.tolist() == ["a", "b", "c"]
    values, observed = found.before("work", found.entries, 2)
    assert values.tolist() == [[0, 0], [1, 1], [0, 1]]  # a's w_2 is not known
    assert observed.tolist() == [[False, True], [True, True], [True, True]]
    values, observed = found.before("work", found.entries.take(np.array([1])), 5)
    assert values.tolist() == [[0, 0, 0, 1, 1]] and observed.tolist() == [[False, False, True, True, True]]
    assert found.has_history("work") and not found.has_history("euro")
    with pytest.raises(DesignError):
        found.before("euro", found.entries, 1)


def fault_of(old, new):
    text = TABLE.replace(old, new)
    assert text != TABLE
    with pytest.raises(StudyError) as caught:
        study.parse(text, Path("study.toml"))
    return [fault.code for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("before = { work =", "before = { wrok =", "study.not_allowed"),
        ('"w_3", "w_2", "w_1"]', '"w_3", "w_2", "w_3"]', "study.before_twice"),
        ('"w_3", "w_2", "w_1"]', '"w_3", "w_2", "w1"]', "study.before_twice"),
        ('"w_3", "w_2", "w_1"]', '"w_3", "w_2", "t"]', "study.column_role"),
        ('"w_3", "w_2", "w_1"]', '"w_3", "w_2", "id"]', "study.column_role"),
        ('"w_3", "w_2", "w_1"]', "]", "study.empty"),
        ('instrument = "x"', 'instrument = "x"\nothers = ["y"]', "study.others_in_table"),
        ("primary = true", 'primary = true\nrole = "negative_control"', "study.control_primary"),
        ("primary = true", 'primary = true\nrole = "placebo"', "study.not_allowed"),
    ],
)
def test_faults_of_before_and_of_roles(old, new, code):
    assert fault_of(old, new) == [code]


def test_a_negative_control():
    made = study.parse(TABLE.replace('unit = "euro"', 'unit = "euro"\nrole = "negative_control"'))
    assert [outcome.role for outcome in made.outcomes] == ["effect", "negative_control"]
    assert made.protocol()["outcomes"][1]["role"] == "negative_control"
