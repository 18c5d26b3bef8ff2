"""Panels from the engine against plain loops over persons, days and months."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from naive import shapes as naive
from naive.spells import Person, merge
from sample_example import frames, person, protocol
from test_sample_twin import FIRST, LAST, REASONS, crooked, rows_of

from evalkit import register
from evalkit.errors import DataError
from evalkit.sample.shapes import panel

LENGTH = {"month": 1, "quarter": 3, "year": 12}
SPAN = dict(seed=5, first=str(FIRST), last=str(LAST))
AHEAD = {"state:benefit": 1, "exit:any": 1, "exit:work": 1, "exit:not_work": 1, "months:benefit": 1}
OUTCOMES = [*AHEAD, "state:work", "months:work", "flow:hours", "flow:earnings"]


@pytest.fixture(scope="module")
def town():
    tables = crooked(5, 60)
    rng = np.random.default_rng(5)
    people = tables["persons"].sample(40, random_state=1)["person"]
    start = pd.to_datetime("2016-06-01") + pd.to_timedelta(rng.integers(0, 1500, len(people)), "D")
    jobs = pd.DataFrame(
        {"person": people, "start": start, "end": start + pd.to_timedelta(rng.integers(0, 400, 40), "D")}
    )
    touching = jobs.head(6).assign(
        start=jobs.head(6).end + pd.Timedelta(days=1), end=jobs.head(6).end + pd.Timedelta(days=90)
    )
    jobs = pd.concat([jobs, touching, jobs.tail(5)], ignore_index=True)
    jobs.loc[3:6, "end"] = pd.NaT
    for name in ("hours", "wage", "earnings"):
        jobs[name] = np.where(rng.random(len(jobs)) < 0.1, np.nan, rng.integers(1, 2000, len(jobs)))
    tables["jobs"] = jobs[(jobs.start <= str(LAST)) & (jobs.end.isna() | (jobs.end >= str(FIRST)))].drop_duplicates()
    return tables


def loops(tables, rate):
    """Everyone's merged spells and jobs."""
    rows = sorted({r for r in rows_of(tables["benefits"], ["person", "start", "end", "reason"])}, key=str)
    of, jobs = {}, {}
    for who, start, end, reason in rows:
        if (end is None or end >= FIRST) and start <= LAST:
            of.setdefault(who, []).append((start, end, None if end is None else reason or "unknown"))
    for who, start, end, *amounts in rows_of(tables["jobs"], ["person", "start", "end", "hours", "wage", "earnings"]):
        amounts = [None if a is None or a != a else a for a in amounts]
        jobs.setdefault(who, []).append((start, end, dict(zip(("hours", "wage", "earnings"), amounts, strict=True))))
    spells = {who: merge(own, 1, REASONS) for who, own in of.items()}
    return spells, jobs, rate


def value(source, spells, jobs, rate, month):
    """What a person adds to a month: (y, n)."""
    first, close = month
    family, which = source.split(":")
    if family == "state" and which == "benefit":
        return float(naive.on_benefit(spells, close)), 1
    if family == "exit":
        if not naive.on_benefit(spells, first - dt.timedelta(days=1)):
            return 0.0, 0
        (spell,) = [s for s in spells if s[0] < first and (s[1] is None or s[1] >= first)]
        ended = spell[1] is not None and spell[1] <= close
        leads = which == "any" or spell[2] == which or (which == "not_work" and spell[2] not in ("work", "unknown"))
        return float(ended and leads), 1
    held = [(s, None if e is None or e >= LAST else e, None) for s, e, _ in jobs]
    if family == "state":
        return float(naive.held(held, close)), 1
    if family == "months":
        held = spells if which == "benefit" else held
        return Person(held, held).value("months:benefit", 0, first, 1), 1
    if rate:
        return Person([], jobs, True).value(source, 0, first, 1), 1
    return Person([], jobs).value(source, 0, first, 1), 1


@pytest.mark.parametrize("source", OUTCOMES)
@pytest.mark.parametrize(("unit", "period"), [("person", "quarter"), ("team", "month"), ("sex", "year")])
def test_panels_are_those_of_plain_loops(town, source, unit, period):
    if unit == "person" and source not in ("state:benefit", "exit:any", "flow:hours"):
        pytest.skip("the others in groups only")
    rate = unit == "sex"
    spells = 'merge_gap_months = 1\njob_amounts = "rate"' if rate else "merge_gap_months = 1"
    made = protocol(**SPAN, spells=spells, jobs=True, amounts=True)
    tables = register.from_frames(made, **town)
    of, jobs, _ = loops(town, rate)
    people = dict(zip(town["persons"].person, town["persons"][unit].astype(str), strict=True))
    people = {who: unit for who, unit in people.items() if unit not in ("nan", "None")}
    periods = naive.calendar_months(FIRST, LAST, LENGTH[period], AHEAD.get(source, 0))

    def one(who, month):
        return value(source, of.get(who, []), jobs.get(who, []), rate, month)

    kind = {"exit": "rate", "state": "state"}.get(source.split(":")[0], "sum")
    expected = naive.panel(people, periods, one, kind)
    rows = panel(tables, made, source, unit=unit, period=period).collect("pyarrow").to_native().to_pylist()
    got = {(row["unit"], row["period"]): (row["outcome"], row["weight"]) for row in rows}
    assert got.keys() == expected.keys()
    for key, (y, n) in expected.items():
        assert got[key][0] == pytest.approx(y, rel=1e-12, abs=1e-12) and got[key][1] == n
    assert len({round(y, 9) for y, _ in got.values()}) > 1
    assert [(r["unit"], r["period"]) for r in rows] == sorted(got)
    assert {(row["period"], row["begins"]) for row in rows} <= {(i, p[0][0]) for i, p in enumerate(periods, 1)}


def hand():
    return frames(
        persons=[person("a", team="x"), person("b", team="x"), person("c", team="y"), person("d", team=None)],
        benefits=[
            ("a", "2019-11-20", "2020-03-31", "work"),
            ("b", "2020-02-01", "2020-02-29", "other"),
            ("c", "2020-01-15", None, None),
            ("d", "2020-01-15", None, None),
        ],
        episodes=[("a", "training", "2020-02-10", None, None), ("c", "training", "2019-06-01", None, None)],
    )


def test_by_hand():
    """From January to November: December would need a month more to know whether an exit lasts."""
    made = protocol(first="2020-01-01", last="2020-12-31", horizon=6, spells="")
    tables = register.from_frames(made, **hand())
    rows = panel(tables, made, "on_benefit", unit="team").collect("pyarrow").to_native().to_pylist()
    x = [(r["period"], r["outcome"], r["first_treated"], r["weight"]) for r in rows if r["unit"] == "x"]
    assert x[:4] == [(1, 0.5, 2, 2.0), (2, 0.5, 2, 2.0), (3, 0.0, 2, 2.0), (4, 0.0, 2, 2.0)]
    assert len(x) == 11 and x[-1][0] == 11
    y = [r for r in rows if r["unit"] == "y"]
    assert {r["first_treated"] for r in y} == {1} and {r["cluster"] for r in y} == {"y"}  # before the panel began
    assert {r["unit"] for r in rows} == {"x", "y"}
    exits = panel(tables, made, "exit:work", unit="team").collect("pyarrow").to_native().to_pylist()
    x = [(r["period"], r["outcome"], r["weight"]) for r in exits if r["unit"] == "x"]
    assert x == [(1, 0.0, 1.0), (2, 0.0, 1.0), (3, 1.0, 1.0)]  # b came and went within February
    people = panel(tables, made, "state:benefit", period="quarter").collect("pyarrow").to_native().to_pylist()
    assert {r["period"] for r in people} == {1, 2, 3}
    assert {r["unit"]: r["first_treated"] for r in people} == {"a": 1, "b": 0, "c": 1, "d": 0}


def test_units_adopt_when_the_user_says_so():
    made = protocol(first="2020-01-01", last="2020-12-31", horizon=6, spells="")
    tables = register.from_frames(made, **hand())
    days = {"x": dt.date(2020, 4, 15)}
    rows = panel(tables, made, "state:benefit", unit="team", adopted=days).collect("pyarrow").to_native().to_pylist()
    assert {r["unit"]: r["first_treated"] for r in rows} == {"x": 4, "y": 0}


def test_a_cluster_above_the_unit():
    made = protocol(first="2020-01-01", last="2020-12-31", horizon=6, spells="", cluster="sex")
    tables = register.from_frames(made, **hand())
    rows = panel(tables, made, "state:benefit", unit="team").collect("pyarrow").to_native().to_pylist()
    assert {r["cluster"] for r in rows} == {"m"}


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        (dict(outcome="durable:6"), "shapes.unknown_outcome"),
        (dict(outcome="happiness"), "shapes.unknown_outcome"),
        (dict(outcome="state:benefit", unit="shoe_size"), "shapes.unknown_column"),
        (dict(outcome="state:work"), "sample.no_jobs"),
        (dict(outcome="state:benefit", period="year"), "shapes.no_period"),
    ],
)
def test_what_cannot_be_made(keys, code):
    made = protocol(first="2020-01-01", last="2020-12-31", horizon=6, spells="")
    tables = register.from_frames(made, **hand())
    with pytest.raises(DataError) as caught:
        panel(tables, made, **keys)
    assert caught.value.faults[0].code == code
