"""Rows of benefits become spells: overlaps, short gaps, households; by hand and against plain loops."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from naive.spells import members, merge
from sample_example import cut, frames, person, protocol

from evalkit.calendar import NEVER
from evalkit.errors import StudyError
from evalkit.study import parse
from evalkit.text import catalogue

LISTED = ["work", "education", "other"]
STARTER = ("S", "training", "2020-01-31", None, None)


def spells_of(sample):
    """{person: [(start, end, reason)]} of the sample."""
    spells, found = sample.outcomes.spells, {}
    for i in range(len(spells.person)):
        start, end = (spells.start[i].astype("datetime64[D]").item(), spells.end[i])
        end = None if end == NEVER else end.astype("datetime64[D]").item()
        reason = spells.reasons[spells.reason[i]] if end else None
        found.setdefault(sample.people.ids[spells.person[i]], []).append((start, end, reason))
    return found


def merged(rows, spells="", **keys):
    """A sample in which A has these rows; S starts the training and C waits beside him."""
    rows = [("A", *row) for row in rows] + [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None)]
    tables = frames([person(id) for id in "ASC"], rows, [STARTER])
    return cut(protocol(horizon=3, spells=spells, **keys), tables)


def shown(sample, id="A"):
    return [(str(start), str(end) if end else None, reason) for start, end, reason in spells_of(sample)[id]]


# The month after the last day: 31 January off from 1 February, so a return before 1 March is within a month.
GAPS = {
    ("2018-01-31", "2018-02-01"): {0: 1, 1: 1, 2: 1},  # touches: not a day off
    ("2018-01-31", "2018-02-02"): {0: 2, 1: 1, 2: 1},
    ("2018-01-31", "2018-02-28"): {0: 2, 1: 1, 2: 1},
    ("2018-01-31", "2018-03-01"): {0: 2, 1: 2, 2: 1},
    ("2018-01-30", "2018-02-27"): {0: 2, 1: 1, 2: 1},  # off from 31 January: a month later is 28 February
    ("2018-01-30", "2018-02-28"): {0: 2, 1: 2, 2: 1},
    ("2018-02-14", "2018-03-14"): {0: 2, 1: 1, 2: 1},
    ("2018-02-14", "2018-03-15"): {0: 2, 1: 2, 2: 1},
    ("2018-02-14", "2018-04-14"): {0: 2, 1: 2, 2: 1},
    ("2018-02-14", "2018-04-15"): {0: 2, 1: 2, 2: 2},
}


@pytest.mark.parametrize(("end", "back"), GAPS)
def test_short_interruptions(end, back):
    rows = [("2017-05-01", end, "work"), (back, "2018-12-31", "other")]
    for months, number in GAPS[end, back].items():
        sample = merged(rows, f"merge_gap_months = {months}")
        whole = [("2017-05-01", "2018-12-31", "other")]
        apart = [("2017-05-01", end, "work"), (back, "2018-12-31", "other")]
        assert shown(sample) == (whole if number == 1 else apart)
        found = {check.code: check for check in sample.checks}
        if number == 1:
            assert found["spells_merged"].count == 1 and found["spells_merged"].params == {"months": months}
        else:
            assert found == {}
    assert shown(merged(rows)) == shown(merged(rows, "merge_gap_months = 1"))  # one month is the default


@pytest.mark.parametrize(
    ("rows", "spell"),
    [
        ([("01-01", "06-30", "work"), ("03-01", "09-30", "other")], ("01-01", "09-30", "other")),
        ([("01-01", "12-31", "work"), ("03-01", "09-30", "other")], ("01-01", "12-31", "work")),  # nested
        ([("01-01", "12-31", "work"), ("03-01", "12-31", "other")], ("01-01", "12-31", "other")),  # the last listed
        ([("01-01", "12-31", "work"), ("03-01", "12-31", "bogus")], ("01-01", "12-31", "work")),  # known before unknown
        ([("01-01", None, None), ("03-01", "12-31", "work")], ("01-01", None, None)),
        ([("01-01", "01-10", "work"), ("02-20", None, None), ("01-05", "02-10", "other")], ("01-01", None, None)),
        ([("01-01", "12-31", "work"), ("02-01", "02-10", "work"), ("12-31", "12-31", "other")],
         ("01-01", "12-31", "other")),
    ],
)  # fmt: skip
def test_overlaps_become_one_spell_with_the_reason_that_ends_last(rows, spell):
    year = lambda day: day and f"2018-{day}"  # noqa: E731
    sample = merged([(year(a), year(b), r) for a, b, r in rows])
    assert shown(sample) == [(year(spell[0]), year(spell[1]), spell[2])]
    joined = {check.code: check.count for check in sample.checks}
    assert sum(joined.values()) == len(rows) - 1


def test_what_was_joined_is_counted_and_said():
    rows = [("2018-01-01", "2018-06-30", "work"), ("2018-06-30", "2018-07-31", "work"),
            ("2018-08-01", "2018-08-31", "work"), ("2018-09-20", None, None)]  # fmt: skip
    checks = merged(rows).checks
    assert [(c.code, c.severity, c.table, c.count, c.share) for c in checks] == [
        ("spells_overlap_joined", "info", "benefits", 1, 1 / 6),
        ("spells_merged", "info", "benefits", 2, 2 / 6),
    ]
    for check in checks:
        for lang in ("nl", "en"):
            assert check.message(lang) and check.reason(lang) and check.remedy(lang)
    keys = {key.split(".")[1] for key in catalogue("en") if key.startswith("check.spells_")}
    assert keys == {"spells_household", "spells_overlap_joined", "spells_merged"}
    assert merged([("2018-01-01", None, None)]).checks == ()


def test_spells_are_numbered_flagged_and_censored():
    rows = [("2014-06-01", "2015-03-31", "work"), ("2016-01-01", "2016-12-31", "work"), ("2018-01-01", None, None)]
    sample = merged(rows, eligibility='stock = "include"')
    spells = sample.outcomes.spells
    mine = sample.people.ids[spells.person] == "A"
    assert spells.earlier[mine].tolist() == [0, 1, 2]
    assert spells.stock(np.datetime64("2015-01-01").astype(int))[mine].tolist() == [True, False, False]
    assert spells.censored[mine].tolist() == [False, False, True]
    later = spells.next_start(np.flatnonzero(mine))
    assert later.tolist() == [*spells.start[mine][1:], NEVER]


def test_nobody_takes_part_on_a_day_off_benefit_that_was_bridged_later():
    """The gap runs from 25 January to 9 February; its end is known only afterwards."""
    rows = [("G", "2019-12-20", "2020-01-24", "work"), ("G", "2020-02-10", None, None)]
    rows += [
        ("S", "2019-12-20", None, None),
        ("C", "2019-12-22", None, None),
        ("D", "2019-12-22", "2020-01-31", "work"),
    ]
    rows += [("D", "2020-02-05", None, None)]
    tables = frames([person(id) for id in "GSCD"], rows, [STARTER, ("G", "training", "2020-01-31", None, None)])
    sample = cut(protocol(horizon=3, spells="", eligibility="elapsed = [1, 1]"), tables)
    ids = sample.people.ids[sample.entries.person]
    assert sorted(ids) == ["C", "S"]  # the pseudo start of C and D is on 2 February
    out = {row.reason: row.persons for row in sample.flow if row.arm == "treated"}
    assert out["no_benefit_at_start"] == 1


# households


def test_a_household_benefit_is_everyones():
    """B is named on one row, D in the table of persons, E has a household of his own, S and C have none."""
    people = pd.DataFrame(
        [("A", "h1"), ("B", "h1"), ("D", "h1"), ("E", "h2"), ("S", None), ("C", None)], columns=["person", "team"]
    )
    rows = [
        ("A", "2018-01-01", "2018-06-30", "work", "h1"),
        ("B", "2018-12-01", "2019-03-31", "other", "h1"),
        ("B", "2019-06-01", "2019-06-30", "other", None),
        ("E", "2018-01-01", None, None, "h2"),
        ("S", "2019-12-20", None, None, None),
        ("C", "2019-12-22", None, None, None),
    ]
    tables = frames([person(id) for id in people.person], rows, [STARTER])
    tables["persons"]["household_id"] = people.team.to_numpy()
    made = protocol(horizon=3, spells='level = "household"', household=True)
    first, second = ("2018-01-01", "2018-06-30", "work"), ("2018-12-01", "2019-03-31", "other")
    sample = cut(made, tables)
    assert shown(sample, "A") == [first, second]
    assert shown(sample, "B") == [first, second, ("2019-06-01", "2019-06-30", "other")]
    assert "D" not in spells_of(sample)  # persons.household_id is not mapped
    assert shown(sample, "E") == [("2018-01-01", None, None)]
    assert {check.code: check.count for check in sample.checks} == {"spells_household": 2}
    text = made.text.replace('team = "t" }', 'team = "t", household_id = "x" }')
    mapped = cut(parse(text), tables)
    assert shown(mapped, "D") == [first, second]
    alone = cut(protocol(horizon=3, household=True), tables)
    assert shown(alone, "A") == [first]


def test_household_level_needs_its_column():
    with pytest.raises(StudyError) as caught:
        protocol(spells='level = "household"')
    assert [fault.code for fault in caught.value.faults] == ["study.household_unmapped"]


# against plain loops


def messy(seed, persons=60):
    """Rows with every kind of neighbour: overlapping, nested, the same day, touching, gaps around whole months."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(persons):
        day = dt.date(2015, 1, 1) + dt.timedelta(days=int(rng.integers(0, 900)))
        household = None if rng.random() < 0.3 else f"h{rng.integers(0, persons // 3)}"
        for _ in range(int(rng.integers(1, 6))):
            end = day + dt.timedelta(days=int(rng.choice([0, 5, 30, 90, 200])))
            if rng.random() < 0.3:
                end = end.replace(day=1) - dt.timedelta(days=1) if end.replace(day=1) > day else end
            running = rng.random() < 0.06
            reason = None if running else str(rng.choice([*LISTED, "bogus"]))
            rows.append((f"P{i:03d}", day, None if running else end, reason, household))
            day = max(day, end + dt.timedelta(days=int(rng.choice([-40, -3, 0, 1, 2, 27, 28, 29, 30, 31, 32, 60, 90]))))
    rows = list(dict.fromkeys(rows))
    return rows + [("S", dt.date(2019, 12, 20), None, None, None), ("C", dt.date(2019, 12, 22), None, None, None)]


@pytest.mark.parametrize("level", ["person", "household"])
@pytest.mark.parametrize("months", [0, 1, 3])
def test_spells_equal_those_of_plain_loops(level, months):
    for seed in range(4):
        rows = messy(seed)
        ids = sorted({row[0] for row in rows})
        tables = frames([person(id) for id in ids], rows, [STARTER])
        spells = f'merge_gap_months = {months}\nlevel = "{level}"'
        sample = cut(protocol(horizon=3, spells=spells, household=True), tables)
        plain = [(p, a, b, ("unknown" if r == "bogus" else r), h) for p, a, b, r, h in rows]
        given = members(plain, {})
        if level == "person":
            given = {id: [row[1:4] for row in plain if row[0] == id] for id in ids}
        expected = {id: merge(found, months, LISTED) for id, found in given.items()}
        assert spells_of(sample) == expected
        if level == "person":
            lost = len(set(row[:4] for row in plain)) - sum(map(len, expected.values()))
            assert sum(check.count for check in sample.checks) >= lost


def test_row_order_changes_nothing():
    rows = messy(9)
    tables = frames([person(id) for id in sorted({row[0] for row in rows})], rows, [STARTER])
    made = protocol(horizon=3, spells='level = "household"', household=True)
    one = cut(made, tables)
    shuffled = {name: frame.sample(frac=1, random_state=1) for name, frame in tables.items()}
    assert spells_of(cut(made, shuffled)) == spells_of(one) and cut(made, shuffled).checks == one.checks
