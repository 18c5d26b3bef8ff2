"""Every outcome on its boundary days by hand, and entry by entry against plain loops on random crooked registers."""

import datetime as dt
import time

import numpy as np
import pytest
from naive import risk_sets as naive
from naive.spells import Person, merge
from sample_example import cut, frames, person, protocol

from evalkit.calendar import NEVER
from evalkit.errors import DataError, StudyError
from evalkit.sample.jobs import Jobs
from evalkit.sample.merging import union
from evalkit.sample.outcomes import SpellOutcomes
from evalkit.sample.spells import Intervals, Spells
from evalkit.sample.types import Entries
from evalkit.study import template
from evalkit.study.outcome_source import read_source

LISTED = ["work", "education", "other"]
STARTER = ("training", "2020-01-31", None, None)


def outcome(source, unit="", name=""):
    kind = read_source(source).kind
    name = name or source.replace(":", "_")
    return f'[[outcome]]\nname = "{name}"\nkind = "{kind}"\nsource = "{source}"\n' + (
        f'unit = "{unit}"\n' if unit else ""
    )


def several(sources, people, unit="", spells="merge_gap_months = 0", horizon=3, other="2019-12-20", **keys):
    """By source the paths of starters on 31 January 2020 with these (later) spells and jobs; C waits beside them.

    Months end on 28 February, 30 March and 29 April: 31 January plus one month is 29 February.
    """
    ids = [f"S{i:02d}" for i in range(len(people))]
    rows = [("C", other, None, None)]
    rows += [(id, *row) for id, (first, _) in zip(ids, people, strict=True) for row in first]
    jobs = [(id, *row) for id, (_, held) in zip(ids, people, strict=True) for row in held]
    jobs = [(*row, *([None] * 6))[:6] for row in jobs] or [("C", "2016-01-01", "2016-01-02", 1.0, 1.0, 1.0)]
    tables = frames([person(id) for id in (*ids, "C")], rows, [(id, *STARTER) for id in ids], jobs)
    asked = "".join(outcome(source, unit, f"o{i}") for i, source in enumerate(sources))
    sample = cut(protocol(horizon=horizon, jobs=True, amounts=True, outcomes=asked, spells=spells, **keys), tables)
    starters = sample.entries.take(np.flatnonzero(sample.entries.arm == 1))
    starters = starters.take(np.argsort(sample.people.ids[starters.person].astype(str)))
    assert sample.people.ids[starters.person].tolist() == ids
    found = {}
    for i, source in enumerate(sources):
        values, observed = sample.outcome(f"o{i}", starters)
        assert observed.all()
        found[source] = values.tolist()
    return found


def paths(source, people, unit="", **keys):
    """The same for one source."""
    return several([source], people, unit, **keys)[source]


def spell(end, reason="work"):
    return ("2019-12-20", end, reason if end else None)


def test_exit_to_work_as_the_statistics_define_it():
    """Off from 29 February the first month off ends on 28 March, off from 1 March on 31 March."""
    cases = [  # last day on benefit, jobs, to work, not to work
        ("2020-02-28", [("2020-03-28", "2020-03-28")], 1),  # off from 29 February: looked at on 28 March
        ("2020-02-28", [("2020-03-29", None)], 0),
        ("2020-02-28", [("2019-01-01", "2020-03-27")], 0),
        ("2020-02-29", [("2020-03-31", "2020-03-31")], 1),  # off from 1 March: looked at on 31 March
        ("2020-02-29", [("2020-02-01", "2020-03-30")], 0),
        ("2020-02-15", [("2020-03-15", None)], 1),
        ("2020-02-15", [("2020-03-16", None)], 0),
        ("2020-02-15", [("2020-02-01", "2020-03-10"), ("2020-03-11", "2020-12-31")], 1),
        ("2020-02-15", [], 0),
    ]
    people = [([spell(end, "other")], jobs) for end, jobs, _ in cases]
    held = [("2020-01-01", None)]
    people.append(([spell("2020-02-15"), ("2020-03-10", None, None)], held))  # on benefit again on 15 March: neither
    people.append(([spell("2020-02-15"), ("2020-02-20", "2020-03-14", "other")], held))  # back, and gone the day before
    found = several(["exit:work_register", "exit:not_work_register"], people)
    to_work, elsewhere = found.values()
    assert (to_work[-2:], elsewhere[-2:]) == ([[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]])
    for (end, _, work), yes, no in zip(cases, to_work, elsewhere, strict=False):
        gone = [0, 1, 1] if end == "2020-02-29" else [1, 1, 1]
        assert (yes, no) == ((gone, [0, 0, 0]) if work else ([0, 0, 0], gone))


def test_exits_by_reason():
    people = [([spell("2020-02-28", reason)], []) for reason in ("work", "education", "other", "bogus")]
    people.append(([spell(None)], []))
    yes, no = [1, 1, 1], [0, 0, 0]
    assert several(["exit:work", "exit:not_work", "exit:unknown", "exit:any"], people) == {
        "exit:work": [yes, no, no, no, no],
        "exit:not_work": [no, yes, yes, no, no],  # an unknown reason is not known to be another
        "exit:unknown": [no, no, no, yes, no],
        "exit:any": [yes, yes, yes, yes, no],
    }


LASTING = [  # last day on benefit, first day back, whether that many months without benefit came between
    ("2020-02-29", "2020-08-31", {5: 1, 6: 0, 12: 0}),  # off from 1 March; six months later is 1 September
    ("2020-02-29", "2020-09-01", {6: 1, 7: 0, 12: 0}),
    ("2020-02-28", "2020-08-28", {5: 1, 6: 0}),  # off from 29 February
    ("2020-02-28", "2020-08-29", {6: 1, 7: 0}),
    ("2020-02-15", "2021-02-15", {6: 1, 12: 0}),
    ("2020-02-15", "2021-02-16", {6: 1, 12: 1, 13: 0}),
    ("2020-02-15", None, {6: 1, 12: 1, 30: 1}),
]


def test_durable_exit():
    rows = [[spell(end), *([(back, "2023-06-30", "other")] if back else [])] for end, back, _ in LASTING]
    people = [(spells, held) for spells in rows for held in ([], [("2020-01-01", "2020-03-31")])]
    forms = ["durable:{}", "durable:work:{}", "durable:other:{}", "durable:not_work:{}", "durable:work_register:{}"]
    months = sorted({m for _, _, lasts in LASTING for m in lasts})
    found = several([form.format(m) for form in forms for m in months], people)
    for i, (end, _, lasts) in enumerate(LASTING):
        gone = [0, 1, 1] if end == "2020-02-29" else [1, 1, 1]
        for m, value in lasts.items():
            yes, no = gone if value else [0, 0, 0], [0, 0, 0]
            without, with_job = ([found[form.format(m)][2 * i + j] for form in forms] for j in (0, 1))
            assert without == [yes, yes, no, no, no]
            assert with_job == [yes, yes, no, no, yes]


def test_return_to_benefit():
    """By month k: the first day back lies before t0 + k months."""
    back = {"2020-02-28": [1, 1, 1], "2020-02-29": [0, 1, 1], "2020-03-30": [0, 1, 1], "2020-03-31": [0, 0, 1]}
    back |= {"2020-04-29": [0, 0, 1], "2020-04-30": [0, 0, 0]}
    people = [([spell("2020-02-05"), (again, None, None)], []) for again in back]
    assert paths("return:benefit", people) == list(back.values())
    # merged: back on 5 March at the latest is no return, nor was it an exit
    short = {"2020-02-28": 1, "2020-02-29": 1, "2020-03-05": 1, "2020-03-06": 0, "2020-03-31": 0}
    people = [([spell("2020-02-05"), (again, None, None)], []) for again in short]
    found = several(["return:benefit", "exit:any", "state:benefit"], people, spells="")
    for joined, back, gone, there in zip(short.values(), *found.values(), strict=True):
        assert gone == ([0, 0, 0] if joined else [1, 1, 1])
        assert (max(back) == 0) == bool(joined)
        assert there == [1, 1, 1] if joined else there[0] == 0
    assert paths("return:benefit", [([spell("2020-02-05")], []), ([spell(None)], [])]) == [[0, 0, 0]] * 2


def test_a_change_of_job_between_two_months_is_work():
    """Month 1 ends on 28 February: one job ends that day, the next begins on the 29th. So with a row a month."""
    people = [
        ([spell(None)], [("2020-02-01", "2020-02-28"), ("2020-02-29", "2020-04-30")]),
        ([spell(None)], [("2020-02-01", "2020-02-28"), ("2020-03-01", "2020-04-30")]),
        ([spell(None)], [("2020-01-01", "2020-01-31"), ("2020-02-01", "2020-02-29"), ("2020-03-01", "2020-03-31")]),
    ]
    assert paths("state:work", people) == [[1, 1, 1], [0, 1, 1], [1, 1, 0]]


def test_a_job_that_lasts_to_the_end_of_the_data_runs_on():
    people = [([spell(None)], [("2020-02-01", end)]) for end in ("2020-04-28", "2020-04-29", "2020-04-30", None)]
    assert paths("state:work", people[:3]) == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    known = paths("state:work", people, last="2020-04-29", spells="merge_gap_months = 0")
    assert known == [[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]


def test_months_are_days_of_the_month():
    """Months 1 and 2 have 29 and 31 days: 31 January - 28 February, 29 February - 30 March."""
    jobs = [("2020-01-31", "2020-01-31"), ("2020-02-27", "2020-02-29"), ("2020-02-28", "2020-03-01")]
    people = [([spell(None)], jobs), ([spell("2020-01-31")], []), ([spell("2020-03-14")], [("2020-01-01", None)])]
    assert several(["months:work", "months:benefit"], people) == {
        "months:work": [[3 / 29, 2 / 31, 0], [0, 0, 0], [1, 1, 1]],
        "months:benefit": [[1, 1, 1], [1 / 29, 0, 0], [1, 15 / 31, 0]],
    }


def test_amounts_by_month():
    jobs = [("2020-01-01", "2020-01-31", 31, 310, 62), ("2020-02-01", "2020-02-29", 29, 580, 29), ("2020-03-31", None)]
    held = [spell(None)]
    hours, wage, earnings = several(["flow:hours", "flow:wage", "flow:earnings"], [(held, jobs)], "x").values()
    assert hours[0] == pytest.approx([1 + 28, 1, 0])
    assert wage[0] == pytest.approx([10 + 28 * 20, 20, 0])
    assert earnings[0] == pytest.approx([2 + 28, 1, 0])
    rate = 'merge_gap_months = 0\njob_amounts = "rate"'
    jobs = [("2020-02-10", None, 36, 2900, None), ("2020-02-28", "2020-02-29", 29, None, 1)]
    hours, wage = several(["flow:hours", "flow:wage"], [(held, jobs)], "x", rate).values()
    assert hours[0] == pytest.approx([36 * 19 / 29 + 1, 36 + 29 / 31, 36])
    assert wage[0] == pytest.approx([1900, 2900, 2900])


def test_amounts_that_are_missing_are_counted():
    jobs = [("S", "2020-02-01", "2020-02-29", None, 1.0, 1.0), ("S", "2020-03-01", None, 5.0, 1.0, 1.0),
            ("S", "2020-04-01", "2020-04-02", 5.0, 1.0, 1.0), ("S", "2020-04-01", None, None, 1.0, 1.0)]  # fmt: skip
    rows = [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None)]
    tables = frames([person("S"), person("C")], rows, [("S", *STARTER)], jobs)
    found = {}
    for amounts in ("total", "rate"):
        spells = f'merge_gap_months = 0\njob_amounts = "{amounts}"'
        made = protocol(jobs=True, amounts=True, spells=spells, outcomes=outcome("flow:hours", "hours"))
        checks = cut(made, tables).checks
        found[amounts] = [(c.code, c.severity, c.count, c.share, dict(c.params)) for c in checks]
        assert all(c.message(lang) and c.remedy(lang) for c in checks for lang in ("nl", "en"))
    missing = ("job_amount_missing", "warn", 2, 0.5, {"column": "hours"})
    assert found == {"total": [missing, ("job_amount_open", "warn", 1, 0.25, {"column": "hours"})], "rate": [missing]}


# looking ahead


@pytest.mark.parametrize(
    ("source", "spells", "ahead"),
    [
        ("exit:work", "merge_gap_months = 0", 0),
        ("exit:work", "merge_gap_months = 2", 2),
        ("exit:work_register", "merge_gap_months = 0", 1),
        ("durable:6", "merge_gap_months = 0", 6),
        ("durable:6", "merge_gap_months = 7", 7),
        ("durable:work_register:1", "", 1),
        ("state:benefit", "", 1),
        ("months:benefit", "merge_gap_months = 0", 0),
    ],
)
def test_what_looks_ahead_shortens_the_follow_up(source, spells, ahead):
    """31 January 2020 plus (3 + ahead) months is the day after the last at the latest, for everyone and every month."""
    close = naive.after(dt.date(2020, 1, 31), 3 + ahead)
    rows = [([spell(None)], [])]
    assert len(paths(source, rows, spells=spells, last=str(close - naive.DAY))) == 1
    with pytest.raises(Exception) as caught:
        paths(source, rows, spells=spells, last=str(close - 2 * naive.DAY))
    assert caught.value.faults[0].code == "design.no_starters"


def test_sources_that_look_ahead_less_are_known_for_longer():
    assert read_source("return:benefit").look_ahead(1) == 0 and read_source("state:work").look_ahead(3) == 0
    assert read_source("flow:wage").look_ahead(3) == 0
    rows = [("S", "2019-12-20", None, None), ("C", "2019-12-20", None, None)]
    tables = frames([person("S"), person("C")], rows, [("S", *STARTER)])
    more = outcome("durable:2") + outcome("return:benefit")
    made = protocol(horizon=6, last="2020-05-30", follow_up="available", outcomes=more, spells="merge_gap_months = 1")
    assert made.look_ahead == 2
    sample = cut(made, tables)
    one = sample.entries.take(np.flatnonzero(sample.entries.arm == 1))
    seen = {name: sample.outcome(name, one)[1][0].tolist() for name in ("durable_2", "left", "return_benefit")}
    assert seen == {
        "durable_2": [True] * 2 + [False] * 4, "left": [True] * 3 + [False] * 3,
        "return_benefit": [True] * 4 + [False] * 2,
    }  # fmt: skip


# the study file


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("exit:work", ("exit", "work", 0)),
        ("exit:not_work_register", ("exit", "not_work_register", 0)),
        ("durable:6", ("durable", "any", 6)),
        ("durable:work:12", ("durable", "work", 12)),
        ("return:benefit", ("return", "benefit", 0)),
        ("months:work", ("months", "work", 0)),
        ("flow:earnings", ("flow", "earnings", 0)),
        *((bad, None) for bad in (
            "", "exit", "exit:", "exit:work:6", "durable", "durable:", "durable:work", "durable:0", "durable:61",
            "durable::6", "durable:a:b:6", "durable:6:6:", "return:work", "state:hours", "months:", "flow:pay",
            "leave:work",
        )),
    ],
)  # fmt: skip
def test_sources_are_taken_apart(source, expected):
    found = read_source(source)
    assert found is None if expected is None else (found.family, found.which, found.months) == expected


def codes(**keys):
    with pytest.raises(StudyError) as caught:
        protocol(**keys)
    assert all(fault.text("nl") != fault.text("en") for fault in caught.value.faults)
    return [fault.code for fault in caught.value.faults]


def test_what_the_study_file_refuses():
    assert codes(outcomes=outcome("exit:wrk")) == ["study.not_allowed"]
    assert codes(outcomes=outcome("durable:wrk:6")) == ["study.not_allowed"]
    for source in ("exit:work_register", "exit:not_work_register", "durable:work_register:6", "months:work"):
        assert codes(outcomes=outcome(source)) == ["study.not_allowed"]  # without jobs
        protocol(outcomes=outcome(source), jobs=True)
    assert codes(outcomes=outcome("flow:wage", "euro"), jobs=True) == ["study.not_allowed"]  # not mapped
    assert codes(outcomes=outcome("flow:wage"), jobs=True, amounts=True) == ["study.unit_missing"]
    assert codes(outcomes=outcome("months:work", "months"), jobs=True) == ["study.unit_of_months"]
    assert codes(outcomes=outcome("durable:6").replace("event", "state")) == ["study.kind_of_source"]
    assert codes(horizon=12, first="2018-01-01", last="2019-06-30", outcomes=outcome("durable:7")) == [
        "study.horizon_look_ahead"
    ]
    protocol(horizon=12, first="2018-01-01", last="2019-06-30", outcomes=outcome("durable:6"))
    assert codes(spells="merge_gap_months = 13") == ["study.out_of_range.at_most"]
    assert codes(spells='level = "house"') == ["study.not_allowed"]


def test_reasons_that_would_read_as_something_else():
    from evalkit.study import parse

    for name in ("not_work", "work_register", "any"):
        text = template("en").replace('education = ["opleiding"]', f'{name} = ["opleiding"]', 1)
        with pytest.raises(StudyError) as caught:
            parse(text)
        assert [fault.code for fault in caught.value.faults] == ["study.reserved_name"]


def test_a_ready_table_has_no_spells():
    from test_study_faults import TABLE, faults

    (found,) = faults(TABLE + "[spells]\nmerge_gap_months = 0\n")
    assert found.code == "study.spells_in_table"


def test_outcomes_of_jobs_need_the_table():
    made = protocol(jobs=True, outcomes=outcome("months:work"))
    rows = [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None)]
    with pytest.raises(DataError) as caught:
        cut(made, frames([person("S"), person("C")], rows, [("S", *STARTER)]))
    assert caught.value.faults[0].code == "sample.no_jobs"


# against plain loops

SOURCES = """exit:work exit:any exit:not_work exit:unknown exit:work_register exit:not_work_register durable:6
durable:work:12 durable:not_work:3 durable:work_register:6 return:benefit state:benefit state:work months:benefit
months:work flow:hours flow:wage flow:earnings""".split()
FIRST, LAST = dt.date(2016, 1, 1), dt.date(2020, 12, 31)


def days_from(rng, begin, lengths, gaps, running):
    """Rows one after another: overlapping, touching, short gaps, ends on the last of a month."""
    rows, day = [], begin
    while day <= LAST and len(rows) < 12:
        end = day + dt.timedelta(days=int(rng.choice(lengths)))
        if rng.random() < 0.4 and end.replace(day=1) > day:
            end = end.replace(day=1) - naive.DAY
        rows.append((day, None if rng.random() < running else end))
        day = max(day, end + dt.timedelta(days=int(rng.choice(gaps))))
        if day.day > 25 and rng.random() < 0.3:
            day = naive.after(day.replace(day=1), 1)
    return rows


def town(seed, persons=120):
    """Benefits, jobs (some of them a row a month) and starts, all crooked."""
    rng = np.random.default_rng(seed)
    benefits, jobs, episodes = [], [], []
    for i in range(persons):
        id = f"P{i:03d}"
        begin = FIRST + dt.timedelta(days=int(rng.integers(0, 700)))
        for start, end in days_from(rng, begin, [20, 60, 150, 400], [-20, 1, 2, 20, 28, 30, 31, 40, 100, 500], 0.1):
            benefits.append((id, start, end, str(rng.choice([*LISTED, "bogus"])) if end else None))
        amount = lambda: None if rng.random() < 0.1 else float(rng.integers(0, 3000))  # noqa: E731
        if rng.random() < 0.4:  # a row a month
            month = dt.date(2016, 1, 1)
            while month <= LAST:
                if rng.random() < 0.7:
                    jobs.append((id, month, naive.after(month, 1) - naive.DAY, amount(), amount(), amount()))
                month = naive.after(month, 1)
        elif rng.random() < 0.8:
            begin = FIRST + dt.timedelta(days=int(rng.integers(-200, 900)))
            rows = days_from(rng, begin, [0, 5, 60, 300], [-30, 1, 2, 15, 60, 200], 0.15)
            jobs += [(id, *row, amount(), amount(), amount()) for row in rows if (row[1] or LAST) >= FIRST]
        if rng.random() < 0.5:
            start, end = benefits[-1][1:3] if rng.random() < 0.5 else next(b[1:3] for b in benefits if b[0] == id)
            room = max(((end or LAST) - start).days, 1)
            episodes.append((id, "training", start + dt.timedelta(days=int(rng.integers(0, room))), None, None))
    return list(dict.fromkeys(benefits)), list(dict.fromkeys(jobs)), episodes


def people_of(benefits, jobs, merge_gap, rate):
    spells = {}
    for id, start, end, reason in benefits:
        spells.setdefault(id, []).append((start, end, "unknown" if reason == "bogus" else reason))
    held = {}
    for id, start, end, hours, wage, earnings in jobs:
        held.setdefault(id, []).append((start, end, {"hours": hours, "wage": wage, "earnings": earnings}))
    return {id: Person(merge(rows, merge_gap, LISTED), held.get(id, []), rate) for id, rows in spells.items()}


@pytest.mark.parametrize(("seed", "merge_gap", "rate"), [(1, 0, False), (2, 1, True), (3, 1, False), (4, 3, True)])
def test_every_outcome_equals_plain_loops(seed, merge_gap, rate):
    benefits, jobs, episodes = town(seed)
    made = protocol(
        seed=seed, first=str(FIRST), last=str(LAST), horizon=14, follow_up="available", jobs=True, amounts=True,
        eligibility='stock = "include"',
        spells=f'merge_gap_months = {merge_gap}\njob_amounts = "{"rate" if rate else "total"}"',
        outcomes="".join(outcome(s, "euro" if s.startswith("flow") else "", f"o{i}") for i, s in enumerate(SOURCES)),
    )  # fmt: skip
    tables = frames([person(id) for id in sorted({b[0] for b in benefits})], benefits, episodes, jobs)
    sample = cut(made, tables)
    entries, spells = sample.entries, sample.outcomes.spells
    some = np.random.default_rng(seed).permutation(len(entries))[:120]
    part = entries.take(some)
    people = people_of(benefits, jobs, merge_gap, rate)
    happened = {}
    for i, source in enumerate(SOURCES):
        values, observed = sample.outcome(f"o{i}", part)
        ahead = read_source(source).look_ahead(merge_gap)
        for row in range(len(part)):
            one = people[sample.people.ids[part.person[row]]]
            nth = int(spells.earlier[part.spell[row]])
            zero = part.time_zero[row].astype("datetime64[D]").item()
            seen = [naive.after(zero, k + ahead) <= LAST + naive.DAY for k in range(1, 15)]
            assert observed[row].tolist() == seen
            expected = [one.value(source, nth, zero, k) for k in range(1, sum(seen) + 1)]
            if read_source(source).family == "state" and source.endswith("work"):
                close = naive.after(zero, sum(seen)) - naive.DAY  # what lasts to the last day runs on
                expected[-1] = float(one.in_job(close)) if close == LAST else expected[-1]
            assert values[row, : sum(seen)] == pytest.approx(expected, rel=1e-12, abs=1e-9), source
            happened.setdefault(source, set()).update(expected)
    assert [source for source, found in happened.items() if len(found) < 2] == []


@pytest.mark.slow
def test_outcomes_are_fast():
    """200,000 entries by 36 months with some forty rows of jobs a person, each outcome in under three seconds."""
    rng = np.random.default_rng(0)
    persons, rows, n = 100_000, 40, 200_000
    day = 16_000 + np.sort(rng.integers(0, 3000, (persons, rows)), axis=1).ravel()
    who = np.repeat(np.arange(persons), rows)
    jobs = Intervals(who, day, day + rng.integers(1, 60, len(day)))
    amounts = {"wage": rng.random(len(day))}
    begin = 16_000 + np.sort(rng.integers(0, 3000, (persons, 3)), axis=1).ravel()
    spells = union(Intervals(np.repeat(np.arange(persons), 3), begin, begin + rng.integers(30, 900, len(begin))))
    number = len(spells.person)
    made = Spells(
        spells.person, spells.start, np.where(rng.random(number) < 0.1, NEVER, spells.end),
        rng.integers(0, 2, number).astype(np.int32), ("unknown", "work"), np.zeros(number, int),
        np.full(number, NEVER), np.zeros(number, int),
    )  # fmt: skip
    chosen = rng.integers(0, number, n)
    small = np.zeros(n, np.int16)
    zero = (made.start[chosen] + 10).astype(np.int32)
    entries = Entries(
        made.person[chosen].astype(np.int32), chosen.astype(np.int32), np.zeros(n, np.int8), small, zero, small,
        np.full(n, 60, np.int16), np.zeros(n, np.int32),
    )  # fmt: skip
    sources = "exit:work exit:work_register durable:work_register:6 return:benefit state:benefit state:work".split()
    sources += ["months:benefit", "months:work", "flow:wage"]
    held = Jobs(jobs, union(jobs), amounts, True, ())
    outcomes = SpellOutcomes(made, held, {s: read_source(s) for s in sources}, 1)
    outcomes.paths("flow:wage", entries, 2)  # compiled once
    for source in sources:
        begun = time.process_time()
        values, _ = outcomes.paths(source, entries, 36)
        took = time.process_time() - begun
        print(f"{source:28s} {took:5.2f} s")
        assert values.shape == (n, 36) and took < 3
