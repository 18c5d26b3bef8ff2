"""Episodes and patterns from the engine against plain loops over persons and months, and against the sample."""

import datetime as dt
from collections import Counter
from pathlib import Path

import narwhals as nw
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from naive import shapes as naive
from naive.spells import members, merge
from sample_example import frames, protocol
from test_sample_twin import FIRST, LAST, REASONS, crooked, rows_of

from evalkit import calendar, register
from evalkit.errors import DataError
from evalkit.sample import describe, from_register
from evalkit.sample.shapes import Splits, Traits, episodes, patterns, spell_table

ROW = "spell start stop event exit risk_set starts since_start planned_since_end".split()
SPAN = dict(seed=5, first=str(FIRST), last=str(LAST))


@pytest.fixture(scope="module")
def town():
    tables = crooked(3, 300)
    rows = tables["episodes"]
    rng = np.random.default_rng(3)
    planned = rows["start"] + pd.to_timedelta(rng.integers(-20, 400, len(rows)), "D")
    tables["episodes"] = rows.assign(planned_end=planned.mask(rng.random(len(rows)) < 0.2))
    return tables


def plain(frame):
    """A lazy frame as dictionaries."""
    table = frame.collect("pyarrow").to_native()
    return table.to_pylist()


def spells_and_starts(tables, gap, clock="start", household=False):
    """What the loops work on, from the same tables."""
    columns = ["person", "start", "end", "reason"]
    rows = rows_of(tables["benefits"], [*columns, *(["household_id"] if household else [])])
    rows = sorted({r for r in rows if r[2] is None or r[2] >= FIRST}, key=str)
    if household:
        of = members(rows, {})
    else:
        of = {}
        for person, start, end, reason in rows:
            of.setdefault(person, []).append((start, end, None if end is None else reason or "unknown"))
    spells = {person: merge(own, gap, REASONS) for person, own in of.items()}
    starts = {}
    columns = ["person", "type", "start", "end", "referral", "planned_end"]
    for person, kind, start, end, referral, planned in rows_of(tables["episodes"], columns):
        day = referral if clock == "referral" else start
        if kind == "training" and day is not None and (end is None or end >= FIRST):
            starts.setdefault(person, []).append((day, planned))
    return spells, starts


CASES = {
    "plain": (dict(), dict(), Splits()),
    "all": (dict(spells=""), dict(), Splits((3, 12, 24), (6, 12), True, True)),
    "stock": (
        dict(spells="", eligibility='stock = "include"'),
        dict(stock=True),
        Splits(since_start=(6,), planned_end=True),
    ),
    "start_first": (dict(spells="", within="start_first"), dict(within="start_first"), Splits(years=True)),
    "exit_first": (
        dict(spells="merge_gap_months = 3", within="exit_first"),
        dict(within="exit_first", gap=3),
        Splits(since_entry=(1, 2), since_start=(1,), until=20),
    ),
    "referral": (dict(spells="", clock="referral"), dict(), Splits(planned_end=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_episodes_are_those_of_plain_loops(town, name):
    keys, rules, splits = CASES[name]
    made = protocol(**SPAN, **keys)
    gap = made.spells.merge_gap_months
    spells, starts = spells_and_starts(town, gap, made.time.clock)
    asked = naive.Rules(
        FIRST, LAST, **{"gap": gap, **rules}, since_entry=splits.since_entry, since_start=splits.since_start,
        planned_end=splits.planned_end, years=splits.years, until=splits.until or 10**6,
    )  # fmt: skip
    expected = naive.episodes(spells, starts, asked)
    rows = plain(episodes(register.from_frames(made, **town), made, splits, Traits(columns=["team"])))
    got = {}
    for row in rows:
        got.setdefault(row["person"], []).append((*(row[k] for k in ROW), row.get("year")))
    assert got.keys() == expected.keys()
    for person, own in expected.items():
        assert got[person] == own
    assert [(r["person"], r["spell"], r["start"]) for r in rows] == sorted(
        (r["person"], r["spell"], r["start"]) for r in rows
    )
    assert sum(row["starts"] for row in rows) > 5 and sum(row["event"] for row in rows) > 50
    assert {row["cluster"] for row in rows} == set(got)

    teams = dict(zip(town["persons"].person, town["persons"].team.astype(str), strict=True))
    found = plain(patterns(register.from_frames(made, **town), made, splits, Traits(columns=["team"])))
    by_pattern, counts = {}, {}
    for row in found:
        by_pattern.setdefault(row["pattern"], []).append((*(row[k] for k in ROW), row.get("year")))
        counts[row["pattern"]] = (row["team"], row["count"])
    wanted = naive.patterns(expected, teams, splits.planned_end)
    assert {(counts[p][0], tuple(own)): counts[p][1] for p, own in by_pattern.items()} == dict(wanted)
    assert len(by_pattern) == len(wanted) < len(expected)
    assert sum(n for _, n in counts.values()) == len(expected)


def test_a_cluster_above_the_person_is_part_of_the_key(town):
    made = protocol(**SPAN, spells="", cluster="team")
    tables = register.from_frames(made, **town)
    apart = plain(patterns(tables, made, Splits(), Traits(columns=["sex"])))
    rows = plain(episodes(tables, made, Splits(), Traits(columns=["sex"])))
    key = ["cluster", "sex", *ROW[:-1]]
    by_row = Counter(tuple(row[k] for k in key) for row in rows)
    by_pattern = Counter()
    for row in apart:
        by_pattern[tuple(row[k] for k in key)] += row["count"]
    assert by_row == by_pattern
    assert {row["cluster"] for row in rows} == {"0", "1", "2", "3", "4"}


def test_starters_and_those_at_risk_are_those_of_the_sample():
    """Counts by elapsed month and quarter, with month-only data, where no pseudo start day thins those at risk.

    All rules on time zero are switched off but follow-up, which asks for the month itself, as observation does here.
    The sample keeps months and quarters with a starter; those are compared.
    """
    tables = crooked(8, 400)
    tables["episodes"] = tables["episodes"].assign(end=tables["episodes"].start)  # nobody is still in an earlier one
    made = protocol(
        **SPAN, within="start_first", follow_up="available",
        eligibility='elapsed = [0, 40]\nstock = "exclude"\nother_instrument = "include"',
    )  # fmt: skip
    tables = register.from_frames(made, **tables)
    entries = from_register(made, tables).entries
    counts = Counter(zip(entries.arm.tolist(), entries.elapsed.tolist(), entries.quarter.tolist(), strict=True))
    rows = pd.DataFrame(plain(spell_table(tables, made)))
    rows = rows[~rows.stock]
    rows["began"] = rows["began"].fillna(10**6)
    cells = {(month, quarter) for arm, month, quarter in counts if arm == 1}
    assert len(cells) > 30
    for month, quarter in cells:
        here = rows[(rows.entry <= month) & (month < rows.stop) & ((rows.month + month) // 3 == quarter)]
        assert (here.began == month).sum() == counts[1, month, quarter]
        assert (here.began > month).sum() == counts[0, month, quarter]


def test_months_at_risk_are_those_of_the_spells_of_the_sample():
    """With days known: whoever is under observation in a month, against the sample's own spells."""
    made = protocol(**SPAN, spells="")
    tables = register.from_frames(made, **crooked(9, 300))
    rows = pd.DataFrame(plain(spell_table(tables, made)))
    spells = from_register(made, tables).outcomes.spells
    last = calendar.day_number(LAST) + 1
    for month in range(0, 40, 3):
        begin, close = calendar.add_months(spells.start, month), calendar.add_months(spells.start, month + 1)
        seen = calendar.add_months(spells.start, month + 2) <= last  # and a month to see whether an exit lasts
        here = (spells.end >= begin) & (begin >= calendar.day_number(FIRST)) & seen
        mine = (rows.entry <= month) & (month < rows.stop)
        assert mine.sum() == here.sum()
        assert (mine & (rows.event == 1) & (rows.stop == month + 1)).sum() == (here & (spells.end < close)).sum()
        assert (mine & (rows.began == month)).sum() == (here & (spells.own_elapsed == month)).sum()


def test_spells_are_those_of_the_sample(town):
    """Entry, end, reason and own start of every spell, household benefits included."""
    for keys in (dict(), dict(spells=""), dict(spells="merge_gap_months = 4"), dict(spells="", clock="referral")):
        made = protocol(**SPAN, **keys)
        tables = register.from_frames(made, **town)
        same_spells(made, tables)


def same_spells(made, tables):
    rows = plain(spell_table(tables, made).sort("place", "spell"))
    spells = from_register(made, tables).outcomes.spells
    day = [calendar.day_number(row["begin"]) for row in rows]
    last = [calendar.NEVER if row["end"] is None else calendar.day_number(row["end"]) for row in rows]
    assert [row["place"] for row in rows] == spells.person.tolist()
    assert [row["spell"] for row in rows] == spells.earlier.tolist()
    assert day == spells.start.tolist() and last == spells.end.tolist()
    assert [row["reason"] for row in rows] == [spells.reasons[code] for code in spells.reason]
    own = [2**20 if row["began"] is None else row["began"] for row in rows]
    observed = [o if s["began"] is not None else 2**20 for o, s in zip(own, rows, strict=True)]
    assert observed == spells.own_elapsed.tolist()


DERIVED = """
[[instrument]]
name = "training"
join_gap_days = 60
[[instrument]]
name = "both"
combine = ["training", "coaching"]
within_months = 6
[[instrument]]
name = "second"
of = "training"
order = 2
"""


@pytest.mark.parametrize("instrument", ["training", "both", "second"])
def test_instruments_that_are_joined_combined_or_numbered(town, instrument):
    made = protocol(**SPAN, spells=f"\n{DERIVED}")
    made = made.model_copy(update={"treatment": made.treatment.model_copy(update={"instrument": instrument})})
    tables = register.from_frames(made, **town)
    same_spells(made, tables)
    assert sum(row["began"] is not None for row in plain(spell_table(tables, made))) >= 2


def test_a_household_shares_its_benefit(town):
    rng = np.random.default_rng(0)
    tables = dict(town)
    house = pd.Series([f"h{n}" for n in rng.integers(0, 60, len(tables["benefits"]))], dtype=object)
    house = house.mask(rng.random(len(house)) < 0.3)
    tables["benefits"] = tables["benefits"].reset_index(drop=True).assign(household_id=house)
    made = protocol(**SPAN, spells='level = "household"', household=True)
    same_spells(made, register.from_frames(made, **tables))


# -- by hand --------------------------------------------------------------------------------------------------------

HAND = dict(
    persons=[("a", "m", 1980, 1.0, "x"), ("b", "m", 1980, 2.0, "x"), ("c", "v", 1990, 1.0, "y")],
    benefits=[
        ("a", "2015-03-10", "2016-07-31", "work"),
        ("b", "2015-03-10", "2016-07-31", "work"),
        ("c", "2014-01-31", "2015-02-27", "other"),
        ("c", "2023-11-15", None, None),
    ],
    episodes=[
        ("a", "training", "2015-06-25", "2015-12-01", None),
        ("b", "training", "2015-07-01", "2015-12-01", None),
    ],
)


def hand(**keys):
    made = protocol(**{"spells": "", "eligibility": 'stock = "include"', **keys})
    return made, register.from_frames(made, **frames(**HAND))


def test_the_worked_example():
    """March 10 to July 31 of the next year: seventeen months; the instrument from the fourth month on."""
    made, tables = hand()
    rows = [tuple(row[k] for k in ["person", *ROW]) for row in plain(episodes(tables, made))]
    assert rows[:4] == [
        ("a", 0, 0, 4, 0, None, True, True, None, None),
        ("a", 0, 4, 17, 1, "work", False, False, 0, None),
        ("b", 0, 0, 4, 0, None, True, True, None, None),
        ("b", 0, 4, 17, 1, "work", False, False, 0, None),
    ]
    # 31 January 2014 + 12 months = 31 January 2015; month 12 runs to 27 February, and 28 February begins month 13
    assert rows[4:] == [("c", 0, 12, 13, 1, "other", True, False, None, None)]
    (one,) = [row for row in plain(patterns(tables, made)) if row["start"] == 4]
    assert one["count"] == 2 and "cluster" not in one and one["sex"] == "m"


def test_bands_and_where():
    made, tables = hand(covariates='numeric = ["distance"]')
    traits = Traits(columns=["age", "distance"], bands={"age": (27, 40), "distance": (2.0,)}, where=nw.col("age") > 30)
    rows = plain(episodes(tables, made, None, traits))
    assert {(row["person"], row["age"], row["distance"]) for row in rows} == {("a", 1, 0), ("b", 1, 1)}


def test_a_start_on_the_first_day_of_a_month_counts_from_that_month():
    tables = {
        **HAND,
        "episodes": [("a", "training", "2015-06-10", None, None), ("b", "training", "2015-03-10", None, None)],
    }
    expected = {"dates": (3, 0), "start_first": (3, 0), "exit_first": (4, 1)}
    for within, months in expected.items():
        made = protocol(spells="", within=within)
        rows = plain(spell_table(register.from_frames(made, **frames(**tables)), made).sort("place"))
        assert tuple(row["treated"] for row in rows[:2]) == months


def test_months_that_the_window_cuts_are_left_out():
    made, tables = hand(first="2015-03-20", last="2016-07-31", horizon=6)
    (row,) = [row for row in plain(spell_table(tables, made)) if row["place"] == 0]
    assert (row["entry"], row["stop"], row["event"]) == (1, 15, 0)  # 16 months less the gap of one


def test_unknown_columns_and_impossible_splits():
    made, tables = hand()
    with pytest.raises(DataError) as caught:
        episodes(tables, made, None, Traits(columns=["shoe_size"]))
    assert caught.value.faults[0].code == "shapes.unknown_column"
    with pytest.raises(DataError) as caught:
        episodes(tables, made, None, Traits(bands={"sex": (1,)}))
    assert caught.value.faults[0].code == "shapes.not_a_number"
    with pytest.raises(ValueError):
        Splits(since_entry=(0,))


def test_missing_covariates_as_the_study_says():
    rows = [("a", None, 1980, 1.0, "x"), ("b", "m", 1980, None, "x"), ("c", "v", 1990, 1.0, "y")]
    for missing, kept in (("category", {"a", "b", "c"}), ("exclude", {"c"})):
        made = protocol(
            spells="", eligibility='stock = "include"',
            covariates=f'categorical = ["sex"]\nnumeric = ["distance"]\nmissing = "{missing}"',
        )  # fmt: skip
        tables = register.from_frames(made, **frames(**{**HAND, "persons": rows}))
        got = plain(episodes(tables, made))
        assert {row["person"] for row in got} == kept
        assert {row["sex"] for row in got if row["person"] == "a"} <= {"missing"}


def test_order_of_rows_changes_nothing(town):
    made = protocol(**SPAN, spells="", covariates='categorical = ["sex"]')
    rng = np.random.default_rng(1)
    shuffled = {name: frame.iloc[rng.permutation(len(frame))] for name, frame in town.items()}
    splits = Splits((3,), (6,), True, True)
    for make in (episodes, patterns):
        one, two = (make(register.from_frames(made, **t), made, splits) for t in (town, shuffled))
        assert one.collect("pyarrow").to_native().equals(two.collect("pyarrow").to_native())


day = some.dates(dt.date(2015, 1, 1), dt.date(2018, 12, 31))


@settings(max_examples=25, deadline=None)
@given(
    spells=some.lists(
        some.tuples(some.sampled_from("abc"), day, some.integers(0, 500) | some.none()), min_size=1, max_size=8
    ),
    starts=some.lists(some.tuples(some.sampled_from("abc"), day), min_size=1, max_size=4),
    gap=some.integers(0, 2),
)
def test_random_registers(spells, starts, gap):
    """Any dates, month ends among them, give what the loops give."""
    rows = [
        (p, a, None if n is None else a + dt.timedelta(days=n), None if n is None else "work") for p, a, n in spells
    ]
    made = protocol(
        first="2016-01-01", last="2018-06-30", horizon=6, spells=f"merge_gap_months = {gap}",
        eligibility='stock = "include"',
    )  # fmt: skip
    tables = frames(
        [(p, "m", 1980, 1.0, "x") for p in "abc"], rows, [(p, "training", a, None, None) for p, a in starts]
    )  # fmt: skip
    first, last = dt.date(2016, 1, 1), dt.date(2018, 6, 30)
    usable = sorted({r for r in rows if (r[2] is None or r[2] >= first) and r[1] <= last}, key=str)
    begun = {(p, a) for p, a in starts if a <= last}
    if not usable or not begun:
        return
    of, own = {}, {}
    for person, *row in usable:
        of.setdefault(person, []).append(tuple(row))
    for person, start in begun:
        own.setdefault(person, []).append((start, None))
    merged = {person: merge(mine, gap, REASONS) for person, mine in of.items()}
    rules = naive.Rules(first, last, gap, stock=True, since_entry=(3,), since_start=(2,), years=True)
    expected = naive.episodes(merged, own, rules)
    found = plain(episodes(register.from_frames(made, **tables), made, Splits((3,), (2,), years=True)))
    got = {}
    for row in found:
        got.setdefault(row["person"], []).append((*(row[k] for k in ROW), row["year"]))
    assert got == expected


def test_no_value_is_written_anywhere(town, tmp_path, monkeypatch):
    """Shapes stay in memory until somebody asks for a file."""
    monkeypatch.chdir(tmp_path)
    made = protocol(**SPAN)
    plain(patterns(register.from_frames(made, **town), made))
    assert not list(Path(tmp_path).iterdir())


def test_the_report_tells_what_is_observed(town):
    """The table counts what the engine's spells hold."""
    made = protocol(**SPAN, spells="")
    tables = register.from_frames(made, **town)
    (table,) = [e for e in describe(tables, from_register(made, tables)) if getattr(e, "id", "") == "observed_spells"]
    rows = pd.DataFrame(plain(spell_table(tables, made)))
    rows = rows[rows.entry < rows.stop]
    for row, stock in zip(table.rows, (False, True), strict=True):
        own = rows[rows.stock == stock]
        began = (own.began >= own.entry) & (own.began < own.stop)
        found = (
            own.place.nunique(),
            len(own),
            (own.stop - own.entry).sum(),
            own.event.sum(),
            (own.event == 0).sum(),
            began.sum(),
        )
        assert tuple(row[name] for name in ("persons", "spells", "months", "exits", "running", "starts")) == found
    assert [row["spells_of"] for row in table.rows] == ["spells_of.inflow", "spells_of.stock"]
