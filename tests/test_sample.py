"""The sample worked out by hand: boundary days, conventions, who falls out, and no bias where there is no effect."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sample_example import cut, frames, person, protocol

from evalkit import study as studies
from evalkit.errors import DataError, DesignError
from evalkit.exhibits import Lost
from evalkit.register import read_table
from evalkit.register.table import Table
from evalkit.sample import extend, from_table

# Starter S on 31 January 2020, in the second month of a spell; C waits beside him.
STARTER = ("S", "training", "2020-01-31", None, None)


def setting(end="2021-12-31", reason="work", more=(), jobs=None, other="2019-12-22", **keys):
    """S starts on 31 January 2020 with this last day on benefit; C is on benefit all along."""
    tables = frames(
        [person("S"), person("C")],
        [("S", "2019-12-20", end, reason), ("C", other, None, None), *more],
        [STARTER],
        jobs,
    )
    return cut(protocol(horizon=3, jobs=jobs is not None, **keys), tables)


def path(sample, outcome, id="S"):
    rows = np.flatnonzero(sample.people.ids[sample.entries.person] == id)
    values, observed = sample.outcome(outcome, sample.entries.take(rows[:1]))
    assert observed.all()
    return values[0].astype(int).tolist()


def many(spells, jobs=None):
    """Starters on 31 January 2020, one for each list of later spells or ends, in one register; C waits beside them."""
    ids = [f"S{i}" for i in range(len(spells))]
    tables = frames(
        [person(id) for id in (*ids, "C")],
        [("C", "2019-12-22", None, None), *((id, *row) for id, rows in zip(ids, spells, strict=True) for row in rows)],
        [(id, *STARTER[1:]) for id in ids],
        None if jobs is None else [(id, *row) for id, rows in zip(ids, jobs, strict=True) for row in rows],
    )
    return cut(protocol(horizon=3, jobs=jobs is not None), tables), ids


# months end on 28 February, 30 March and 29 April: 31 January + 1 month is 29 February
EDGES = {
    "2020-01-31": ([1, 1, 1], [0, 0, 0]),
    "2020-02-28": ([1, 1, 1], [0, 0, 0]),  # the last day of month 1: the spell has ended by its close
    "2020-02-29": ([0, 1, 1], [1, 0, 0]),
    "2020-03-30": ([0, 1, 1], [1, 0, 0]),
    "2020-03-31": ([0, 0, 1], [1, 1, 0]),
    "2020-04-29": ([0, 0, 1], [1, 1, 0]),
    "2020-04-30": ([0, 0, 0], [1, 1, 1]),
    None: ([0, 0, 0], [1, 1, 1]),
}


def test_event_and_state_at_the_edges():
    sample, ids = many([[("2019-12-20", end, "work" if end else None)] for end in EDGES])
    for id, (event, state) in zip(ids, EDGES.values(), strict=True):
        assert path(sample, "left_to_work", id) == path(sample, "left", id) == event
        assert path(sample, "on_benefit", id) == state


def test_another_reason_is_another_exit():
    sample = setting("2020-02-28", "other")
    assert path(sample, "left_to_work") == [0, 0, 0]
    assert path(sample, "left") == [1, 1, 1]


def test_coming_back_counts_in_the_state_not_in_the_event():
    back = {"2020-02-12": [1, 1, 1], "2020-02-29": [0, 1, 1], "2020-03-30": [0, 1, 1], "2020-03-31": [0, 0, 1]}
    sample, ids = many([[("2019-12-20", "2020-02-10", "work"), (again, None, None)] for again in back])
    for id, state in zip(ids, back.values(), strict=True):
        assert path(sample, "left", id) == [1, 1, 1]
        assert path(sample, "on_benefit", id) == state


def test_work_is_a_state_too():
    cases = (
        ([("2020-02-28", "2020-03-30")], [1, 0, 0]),
        ([("2020-02-29", "2020-03-31")], [0, 1, 0]),
        ([("2019-01-01", None)], [1, 1, 1]),
        ([("2020-02-01", "2020-02-20"), ("2020-02-21", "2020-03-31")], [1, 1, 0]),
        ([("2020-02-01", "2020-02-20"), ("2020-01-01", "2020-03-31"), ("2020-04-01", None)], [1, 1, 1]),
        ([], [0, 0, 0]),
    )
    sample, ids = many([[("2019-12-20", None, None)]] * len(cases), [jobs for jobs, _ in cases])
    for id, (_, state) in zip(ids, cases, strict=True):
        assert path(sample, "in_work", id) == state


def test_work_needs_jobs():
    made = protocol(horizon=3, jobs=True)
    spells = [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None)]
    tables = frames([person("S"), person("C")], spells, [STARTER])
    with pytest.raises(DataError) as caught:
        cut(made, tables)
    assert caught.value.faults[0].code == "sample.no_jobs"


@pytest.mark.parametrize(
    ("last", "months"), [("2020-04-29", 3), ("2020-04-28", None), ("2020-05-30", 4), ("2020-05-29", 3)]
)
def test_potential_follow_up(last, months):
    """31 January + 3 months is 30 April: the day after the last observed one at the earliest."""
    if months is None:
        with pytest.raises(DesignError) as caught:
            setting("2020-02-10", last=last, other="2019-12-20")  # that he left soon does not extend his follow-up
        assert caught.value.faults[0].code == "design.no_starters"
    else:
        sample = setting("2020-02-10", last=last, other="2019-12-20")
        assert sample.entries.follow_up[sample.entries.arm == 1].tolist() == [months]


def test_available_follow_up_observes_what_there_is():
    sample = setting("2020-02-10", last="2020-03-31", follow_up="available")
    rows = np.flatnonzero(sample.entries.arm == 1)
    values, observed = sample.outcome("left", sample.entries.take(rows))
    assert observed.tolist() == [[True, True, False]]
    assert values[0, :2].tolist() == [1, 1]


def entries_of(sample, id):
    e = sample.entries
    rows = np.flatnonzero(sample.people.ids[e.person] == id)
    return [(int(e.arm[r]), int(e.elapsed[r]), str(e.time_zero[r].astype("datetime64[D]"))) for r in rows]


def test_pseudo_start_day_is_the_starters_place_in_the_month():
    """S starts on day 12 (of 31) of his elapsed month: 11.5 / 31 of it has gone. C's month has 31 days as well."""
    sample = setting()
    assert entries_of(sample, "S") == [(1, 1, "2020-01-31")]
    assert entries_of(sample, "C") == [(0, 1, "2020-02-02")]  # 22 January and 11 days


@pytest.mark.parametrize(
    ("within", "zero", "gone", "there"),
    [
        ("dates", "2020-01-31", "2020-02-01", "2020-02-02"),  # the pseudo start of C and D is on 2 February
        ("start_first", "2020-01-20", "2020-01-21", "2020-01-22"),
        ("exit_first", "2020-02-19", "2020-02-20", "2020-02-21"),
    ],
)
def test_conventions_for_the_month_of_the_start(within, zero, gone, there):
    """C's last day is the day before his time zero, D's is that day itself."""
    tables = frames(
        [person(p) for p in "SCDE"],
        [
            ("S", "2019-12-20", None, None),
            ("C", "2019-12-22", gone, "work"),
            ("D", "2019-12-22", there, "work"),
            ("E", "2019-12-22", None, None),
        ],
        [STARTER],
    )
    sample = cut(protocol(horizon=3, within=within), tables)
    assert entries_of(sample, "S") == [(1, 1, zero)]
    assert entries_of(sample, "C") == []
    assert entries_of(sample, "D") == [(0, 1, there)]


def test_who_starts_within_the_month_is_not_waiting():
    """Their second month runs from 22 January to 21 February; starting later is what waiting means."""
    starts = {"A": "2020-01-22", "B": "2020-02-21", "C": "2020-02-22"}
    tables = frames(
        [person(p) for p in "SABCD"],
        [(p, "2019-12-22" if p != "S" else "2019-12-20", None, None) for p in "SABCD"],
        [STARTER, *((p, "training", day, None, None) for p, day in starts.items())],
    )
    sample = cut(protocol(horizon=3, eligibility="elapsed = [1, 1]"), tables)
    waiting = {p: [month for arm, month, _ in entries_of(sample, p) if arm == 0] for p in "ABCD"}
    assert waiting == {"A": [], "B": [], "C": [1], "D": [1]}
    e = sample.entries
    row = np.flatnonzero((sample.people.ids[e.person] == "C") & (e.arm == 0))
    zero = e.time_zero[row].astype("datetime64[D]")
    months = 0 if zero > np.datetime64("2020-01-22") else 1
    assert e.own_start_after[row].tolist() == [months]


def test_overlapping_spells_share_their_start():
    """W starts in the later of two spells that overlap: he no longer waits in the earlier one either."""
    tables = frames(
        [person("S"), person("C"), person("W")],
        [
            ("S", "2019-12-20", None, None),
            ("C", "2019-12-22", None, None),
            ("W", "2019-12-21", None, None),
            ("W", "2020-01-05", "2020-06-30", "other"),
        ],
        [STARTER, ("W", "training", "2020-01-10", None, None)],
    )
    sample = cut(protocol(horizon=3), tables)
    assert [arm for arm, _, _ in entries_of(sample, "W")] == [1]


def test_an_age_that_is_known_of_nobody_is_refused():
    rows = [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None)]
    people = [person("S", birth=None), person("C", birth=None)]
    made = protocol(horizon=3, covariates='numeric = ["age"]')
    sample = cut(made, frames(people, rows, [("S", "training", "2020-01-31", None, None)]))
    with pytest.raises(DataError, match="sample.covariate_empty"):
        sample.design(sample.entries)


def test_age_is_that_of_the_year_of_time_zero():
    tables = frames(
        [person("S", birth=1990), person("C", birth=None), person("D", birth=1960)],
        [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None), ("D", "2019-12-22", None, None)],
        [STARTER],
    )
    made = protocol(horizon=3, covariates='numeric = ["age"]', subgroups='[[subgroup]]\nname = "age"\ncuts = [30, 50]')
    sample = cut(made, tables)
    e = sample.entries
    ids = sample.people.ids[e.person]
    ages = dict(zip(ids, sample.ages(e), strict=True))
    assert ages["S"] == 30 and ages["D"] == 60 and np.isnan(ages["C"])
    design = sample.design(e)
    assert design.own_numeric_names == ("age", "age:missing")
    assert design.own_numeric[ids == "C"].tolist() == [[45.0, 1.0]]
    group = sample.group("age", (30.0, 50.0), e)
    assert {i: group.levels[c] for i, c in zip(ids, group.codes, strict=True)} == {
        "S": "30 - <50", "D": ">=50", "C": "missing",
    }  # fmt: skip
    with pytest.raises(DesignError):  # an unknown age is not between the limits
        cut(protocol(horizon=3, eligibility="age = [18, 29]"), tables)
    limited = cut(protocol(horizon=3, eligibility="age = [18, 64]"), tables)
    assert entries_of(limited, "C") == [] and entries_of(limited, "S") != []


def test_numbers_that_are_missing():
    tables = frames(
        [person("S", distance=1.0), person("C", distance=None), person("D", distance=4.0)],
        [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None), ("D", "2019-12-22", None, None)],
        [STARTER],
    )
    split = '[[subgroup]]\nname = "distance"\ncuts = [2.0]'
    sample = cut(protocol(horizon=3, covariates='numeric = ["distance"]', subgroups=split), tables)
    assert sample.people.numeric_names == ("distance", "distance:missing")
    order = {id: row for row, id in enumerate(sample.people.ids)}
    assert sample.people.numeric[[order[i] for i in "SCD"]].tolist() == [[1, 0], [2.5, 1], [4, 0]]
    group = sample.group("distance", (2.0,), sample.entries)
    ids = sample.people.ids[sample.entries.person]
    assert {i: group.levels[c] for i, c in zip(ids, group.codes, strict=True)} == {
        "S": "<2", "D": ">=2", "C": "missing",
    }  # fmt: skip
    out = cut(protocol(horizon=3, covariates='numeric = ["distance"]\nmissing = "exclude"'), tables)
    assert entries_of(out, "C") == []
    assert ("missing_covariate", 1) in [(r.reason, r.persons) for r in out.flow if r.arm == "comparison"]


def test_nobody_starts_or_nobody_waits():
    only = [("S", "2019-12-20", None, None)]
    with pytest.raises(DesignError) as caught:
        cut(protocol(horizon=3), frames([person("S")], only, [STARTER]))
    assert caught.value.faults[0].code == "design.no_risk_set"
    with pytest.raises(DesignError) as caught:
        cut(protocol(horizon=3), frames([person("S")], only, [("S", "coaching", "2020-01-31", None, None)]))
    assert caught.value.faults[0].code == "design.no_starters"


def test_clusters_are_the_named_column():
    people = [person(f"P{i}", team=team) for i, team in enumerate("abba")]
    spells = [(f"P{i}", "2019-12-20", None, None) for i in range(4)]
    sample = cut(
        protocol(horizon=3, cluster="team"), frames(people, spells, [("P0", "training", "2020-01-31", None, None)])
    )
    assert sample.people.cluster_level == "team"
    assert sample.people.cluster.tolist() == [0, 1, 1, 0]


def test_another_exclusion_keeps_the_flow_adding_up():
    flow = setting().flow
    left = next(r for r in flow if r.arm == "treated" and r.kind == "left")
    longer = extend(flow, Lost("treated", "outside_support", 0, 0))
    rows = [r for r in longer if r.arm == "treated"]
    assert rows[-1].entries == 0 and rows[-2].reason == "outside_support" and rows[-2].entries == left.entries
    assert [r.step for r in rows] == list(range(len(rows)))
    assert rows[0].persons == sum(r.persons for r in rows[1:])
    assert extend(flow, Lost("treated", "outside_support", left.persons, left.entries)) == flow


# no effect: what the conventions do to the first month


def without_effect(persons=25_000, hazard=0.05, start=0.04, seed=1):
    """Exits at a constant rate on real days; starting the instrument changes nothing."""
    rng = np.random.default_rng(seed)
    month = 365.25 / 12
    entry = rng.integers(0, 1096, persons)  # 2015 - 2017
    end = entry + np.floor(rng.exponential(month / -np.log1p(-hazard), persons)).astype(int)
    begin = entry + np.floor(rng.exponential(month / -np.log1p(-start), persons)).astype(int)
    began = begin <= end
    base = np.datetime64("2015-01-01", "ns")
    days = lambda number: base + number.astype("timedelta64[D]")  # noqa: E731
    ids = np.array([f"P{i:06d}" for i in range(persons)], object)
    tables = {
        "persons": pd.DataFrame({"person": ids, "sex": "m", "birth_year": 1985, "distance": 1.0, "team": "a"}),
        "benefits": pd.DataFrame({"person": ids, "start": days(entry), "end": days(end), "reason": "work"}),
        "episodes": pd.DataFrame({"person": ids[began], "type": "training", "start": days(begin[began])}),
    }
    tables["episodes"]["end"] = pd.NaT
    tables["episodes"]["referral"] = pd.NaT
    for frame in tables.values():
        if "start" in frame:
            frame.drop(frame[frame.start > "2019-12-31"].index, inplace=True)
    return tables


def stratified(sample):
    """Difference in exits by k, strata of elapsed month and quarter weighted by starters, with its standard error."""
    e = sample.entries
    y, _ = sample.outcome("left", e)
    cell = np.unique(e.elapsed.astype(np.int64) * 100_000 + e.quarter, return_inverse=True)[1]
    arms = []
    for arm in (1, 0):
        n = np.bincount(cell[e.arm == arm], minlength=cell.max() + 1)
        total = np.zeros((len(n), y.shape[1]))
        np.add.at(total, cell[e.arm == arm], y[e.arm == arm])
        arms.append((n, total / np.maximum(n, 1)[:, None]))
    (n1, one), (n0, other) = arms
    weight = n1 * (n0 > 0) / n1[n0 > 0].sum()
    p = (weight @ one) * (1 - weight @ one)
    return weight @ (one - other), np.sqrt(p / n1.sum())


def test_no_effect_is_no_effect_with_days_and_biased_without():
    """Starters had to survive to their start day, so must the others: with 5 % a month, half a month is 2.5 points."""
    tables = without_effect()
    dates, error = stratified(cut(protocol(last="2019-12-31", horizon=6), tables))
    assert np.abs(dates / error).max() < 3
    assert error[0] < 0.005
    start_first = cut(protocol(last="2019-12-31", horizon=6, within="start_first"), tables)
    first, error = stratified(start_first)
    assert abs(first[0] + 0.025) < 3 * error[0]
    assert first[0] < -3 * error[0]
    other, error = stratified(start_first.alternative)
    assert other[0] > 3 * error[0]  # exits of starters in their own month all count, those of others do not


# analysis-ready tables

TABLE = """
schema = 1
seed = 1
languages = ["en"]
title = {{ en = "Trial" }}
[table]
file = "trial.csv"
unit = "nr"
treatment = "group"
outcomes = {{ work = ["w1", "w2"], pay = ["p1"] }}
format = {{ decimal = "." }}
[time]
horizon = 2
follow_up = "{follow_up}"
[treatment]
instrument = "training"
design = "randomised"
[[outcome]]
name = "work"
kind = "state"
primary = true
[[outcome]]
name = "pay"
kind = "flow"
unit = "euro"
[covariates]
numeric = ["age"]
categorical = ["level"]
missing = "{missing}"
[[subgroup]]
name = "age"
cuts = [30.0]
[[subgroup]]
name = "score"
cuts = [1.0, 2.0]
[[subgroup]]
name = "level"
[[analysis]]
id = "main"
method = "experiment"
[disclosure]
minimum = 1
"""
ROWS = """nr;group;age;level;score;w1;w2;p1
b;1;20;x;0.5;1;1;10
a;0;30;y;1;0;1;20
d;1;;x;2;1;;30
c;0;40;;3;0;0;
e;;50;x;1;1;1;1
f;0;60;x;;0;0;5
"""


def trial(folder: Path, follow_up="complete", missing="category", rows=ROWS):
    (folder / "trial.csv").write_text(rows, "utf-8")
    made = studies.parse(TABLE.format(follow_up=follow_up, missing=missing), folder / "trial.toml")
    return made, from_table(made, read_table(made))


def flow_of(sample, arm):
    return [(r.kind if r.kind != "out" else r.reason, r.persons, r.entries) for r in sample.flow if r.arm == arm]


def test_table_counts_who_falls_out(tmp_path):
    _, sample = trial(tmp_path, missing="exclude", follow_up="complete")
    assert sample.people.ids[sample.entries.person].tolist() == ["a", "b", "f"]
    assert flow_of(sample, "treated") == [("start", 2, 2), ("missing_covariate", 1, 1), ("left", 1, 1)]
    assert flow_of(sample, "comparison") == [("start", 3, 3), ("missing_covariate", 1, 1), ("left", 2, 2)]
    _, sample = trial(tmp_path)
    assert flow_of(sample, "treated") == [("start", 2, 2), ("missing_outcome", 1, 1), ("left", 1, 1)]
    assert flow_of(sample, "comparison") == [("start", 3, 3), ("missing_outcome", 1, 1), ("left", 2, 2)]
    _, sample = trial(tmp_path, follow_up="available")
    assert sample.people.ids[sample.entries.person].tolist() == ["a", "b", "c", "d", "f"]
    assert sample.entries.arm.tolist() == [0, 1, 0, 1, 0]


def test_table_outcomes_and_covariates(tmp_path):
    _, sample = trial(tmp_path, follow_up="available")
    work, seen = sample.outcome("work", sample.entries)
    assert work.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0], [0, 0]]
    assert seen.tolist() == [[True, True], [True, True], [True, True], [True, False], [True, True]]
    pay, seen = sample.outcome("pay", sample.entries)
    assert pay[:, 0].tolist() == [20, 10, 0, 30, 5]
    assert seen.tolist() == [[True, False], [True, False], [False, False], [True, False], [True, False]]
    design = sample.design(sample.entries)
    assert design.names == ("intercept", "age", "age:missing", "level:x", "level:y")
    assert design.matrix()[3].tolist() == [1, 37.5, 1, 1, 0]


def test_table_subgroups_of_numbers_are_cut(tmp_path):
    """Also a column called age, and one that is no covariate; who has no value is a group of his own."""
    _, sample = trial(tmp_path, follow_up="available")
    for name, cuts, expected in (
        ("age", (30.0,), [">=30", "<30", ">=30", "missing", ">=30"]),
        ("score", (1.0, 2.0), ["1 - <2", "<1", ">=2", ">=2", "missing"]),
        ("level", (), ["y", "x", "missing", "x", "x"]),
    ):
        group = sample.group(name, cuts, sample.entries)
        assert [group.levels[c] for c in group.codes] == expected


def test_unknown_treatment_falls_out_of_a_table_made_by_hand(tmp_path):
    made, _ = trial(tmp_path)
    columns = {
        "nr": np.array(["b", "a", "c"], object), "group": np.array([1.0, np.nan, 0.0]), "age": np.array([20.0, 30, 40]),
        "level": np.array(["x", "x", "y"], object), "score": np.ones(3), "w1": np.ones(3), "w2": np.ones(3),
        "p1": np.ones(3),
    }  # fmt: skip
    sample = from_table(made, Table(columns, (), (), ()))
    assert flow_of(sample, "comparison") == [("start", 2, 2), ("missing_treatment", 1, 1), ("left", 1, 1)]
    assert sample.people.ids[sample.entries.person].tolist() == ["b", "c"]


def test_shuffled_table_is_bit_identical(tmp_path):
    _, one = trial(tmp_path, follow_up="available")
    head, *lines = ROWS.strip().split("\n")
    _, two = trial(tmp_path, follow_up="available", rows="\n".join([head, *lines[::-1]]) + "\n")
    for name in one.entries.__dataclass_fields__:
        assert np.array_equal(getattr(one.entries, name), getattr(two.entries, name))
    assert np.array_equal(one.people.key, two.people.key) and one.flow == two.flow
    assert np.array_equal(one.design(one.entries).matrix(), two.design(two.entries).matrix())
