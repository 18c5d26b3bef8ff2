"""Rows that state a month become spells and episodes: by hand, against a naive twin, and whatever their order."""

from __future__ import annotations

import datetime as dt
import random
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evalkit import register, study
from evalkit.errors import DataError, StudyError

sys.path.insert(0, str(Path(__file__).parent / "naive"))
import statements as naive  # noqa: E402

STUDY = """
seed = 1
languages = ["en"]
title = { en = "x" }
[data]
folder = "."
format = { date = "%Y-%m-%d" }
window = { first = 2015-01-01, last = 2015-12-31 }
[data.persons]
file = "p.csv"
columns = { person = "id" }
[data.benefits]
file = "b.csv"
layout = "bus"
columns = { person = "id", month = "verslagmaand", scheme = "" }
codes.reason = { work = ["01"] }
[data.episodes]
file = "e.csv"
layout = "srg"
columns = { person = "id", month = "maand" }
[time]
horizon = 2
[treatment]
instrument = "job_coach"
[[outcome]]
name = "w"
kind = "event"
source = "exit:work"
primary = true
[covariates]
categorical = []
[[analysis]]
id = "main"
method = "experiment"
[disclosure]
profile = "open"
""".replace('instrument = "job_coach"', 'instrument = "job_coach"\ndesign = "randomised"')

HEAD = "id;verslagmaand;datum_aanvang;datum_beeindiging;reden_beeindiging"
EPISODES = """id;maand;type_voorziening;begindatum_voorziening;einddatum_voorziening
a;2015-03;30;2015-03-05;
a;2015-04;30;2015-03-05;
a;2015-05;30;2015-03-05;2015-05-20
b;2015-03;29;2015-03-05;
b;2015-04;29;2015-03-05;
b;2015-04;30;2015-03-05;
c;2015-06;29;2015-06-05;
"""


def write(folder: Path, rows: list[str], episodes: str = EPISODES, text: str = STUDY, head: str = HEAD) -> study.Study:
    people = sorted({row.split(";")[0] for row in (*rows, *episodes.splitlines()[1:])})
    (folder / "p.csv").write_text("id\n" + "\n".join(people) + "\n")
    (folder / "b.csv").write_text("\n".join([head, *rows]) + "\n")
    (folder / "e.csv").write_text(episodes)
    (folder / "study.toml").write_text(text)
    return study.read(folder)


def spells(read: register.Register) -> list[tuple[Any, ...]]:
    arrays = read.arrays("benefits")
    days = [[None if str(day) == "NaT" else day.astype(object) for day in arrays[name]] for name in ("start", "end")]
    return list(zip(arrays["person"].tolist(), *days, arrays["reason"].tolist(), strict=True))


def day(text: str) -> dt.date | None:
    return dt.date.fromisoformat(text) if text else None


def several(person: str, *months: str) -> list[str]:
    return [f"{person};{month};;;" for month in months]


BY_HAND = {
    "ended": (several("a", "2015-02", "2015-03", "2015-04"), [("2015-02-01", "2015-04-30", "unknown")]),
    "a gap of a month": (
        several("a", "2015-02", "2015-04"),
        [("2015-02-01", "2015-02-28", "unknown"), ("2015-04-01", "2015-04-30", "unknown")],
    ),
    "running": (several("a", "2015-10", "2015-11", "2015-12"), [("2015-10-01", "", None)]),
    "an end with its reason": (
        [*several("a", "2015-02"), "a;2015-03;;2015-03-15;01"],
        [("2015-02-01", "2015-03-15", "work")],
    ),
    "an end told later": (
        [*several("a", "2015-02", "2015-03"), "a;2015-04;;2015-03-10;01"],
        [("2015-02-01", "2015-03-10", "work")],
    ),
    "an end that was taken back": (
        ["a;2015-02;;2015-02-15;01", *several("a", "2015-03", "2015-04")],
        [("2015-02-01", "2015-02-15", "work"), ("2015-03-01", "2015-04-30", "unknown")],
    ),
    "begins within the month": (
        ["a;2015-02;2015-02-10;;", "a;2015-03;2015-02-10;;"],
        [("2015-02-10", "2015-03-31", "unknown")],
    ),
    "a start before the window": (["a;2015-02;2014-03-10;;"], [("2014-03-10", "2015-02-28", "unknown")]),
    "there in the first month delivered": (
        several("a", "2015-01", "2015-02"),
        [("2014-12-31", "2015-02-28", "unknown")],
    ),
    "stated before it begins": (["a;2015-02;2015-03-04;;"], [("2015-03-04", "2015-03-04", "unknown")]),
    "months written in other ways": (
        ["a;201502;;;", "a;03-2015;;;", "a;2015-04-01;;;"],
        [("2015-02-01", "2015-04-30", "unknown")],
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case, tmp_path):
    rows, expected = BY_HAND[case]
    others = several("z", *(f"2015-{month:02d}" for month in range(1, 13)))
    read = register.read(write(tmp_path, [*rows, *others]))
    found = [spell[1:] for spell in spells(read) if spell[0] == "a"]
    assert found == [(day(start), day(end) if end else None, reason) for start, end, reason in expected]
    assert spells(read)[-1] == ("z", dt.date(2014, 12, 31), None, None)
    assert "statement_month_absent" not in {check.code for check in read.findings if check.table == "benefits"}


def test_without_a_column_for_the_end_a_known_reason_tells_it(tmp_path):
    text = STUDY.replace('scheme = ""', 'scheme = "", start = "", end = ""')
    rows = ["a;2015-11;", "a;2015-12;01", "b;2015-11;", "b;2015-12;99", "c;2015-12;"]
    read = register.read(write(tmp_path, rows, text=text, head="id;verslagmaand;reden_beeindiging"))
    assert [spell[2:] for spell in spells(read)] == [(dt.date(2015, 12, 31), "work"), (None, None), (None, None)]


def test_episodes_are_joined_by_type_and_start(tmp_path):
    rows = several("a", *(f"2015-{month:02d}" for month in range(1, 13)))
    read = register.read(write(tmp_path, [*rows, *several("b", "2015-01"), *several("c", "2015-01")]))
    table = read.arrays("episodes")
    ends = [None if str(day) == "NaT" else str(day) for day in table["end"]]
    assert sorted(zip(table["person"], table["type"], map(str, ends), strict=True)) == [
        ("a", "job_coach", "2015-05-20"),
        ("b", "job_coach", "2015-04-30"),
        ("b", "other_workplace", "2015-04-30"),
        ("c", "other_workplace", "None"),
    ]
    (joined,) = [q.rows for q in read.quarantine if (q.table, q.code) == ("episodes", "statement_joined")]
    assert joined == 3


def random_rows(seed: int, people: int = 400) -> list[str]:
    """One row a person and month, some of them missing, with dates that make sense, or do not."""
    draw = random.Random(seed)
    rows = []
    for i in range(people):
        first = draw.randint(-4, 11)
        start = ""
        for month in range(first, min(first + draw.randint(1, 12), 13)):
            if draw.random() < 0.15:
                continue
            year, number = 2015 + month // 12, month % 12 + 1
            if draw.random() < 0.3:
                start = f"{year}-{number:02d}-{draw.randint(1, 28):02d}"
            end = ""
            if draw.random() < 0.15:
                back = draw.choice([0, 0, 0, 1, 2])
                end = f"{2015 + (month - back) // 12}-{(month - back) % 12 + 1:02d}-{draw.randint(1, 28):02d}"
            reason = draw.choice(["", "01", "opleiding"]) if end else ""
            rows.append(f"p{i:03d};{year}-{number:02d};{start if draw.random() < 0.7 else ''};{end};{reason}")
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_as_a_naive_twin_does(seed, tmp_path):
    rows = random_rows(seed)
    read = register.read(write(tmp_path, rows))
    parsed = []
    for row in rows:
        person, month, start, end, reason = row.split(";")
        known = {"01": "work", "opleiding": "education", "": None}[reason]
        parsed.append(
            {"person": person, "month": day(month + "-01"), "start": day(start), "end": day(end), "reason": known}
        )
    twin = naive.spells(parsed, (dt.date(2015, 1, 1), dt.date(2015, 12, 31)))
    assert spells(read) == twin and len(twin) > 300
    aside = {q.code: q.rows for q in read.quarantine if q.table == "benefits"}
    assert len(rows) == len(twin) + sum(aside.values())
    (tmp_path / "other").mkdir()
    random.Random(1).shuffle(rows)
    again = register.read(write(tmp_path / "other", rows))
    for name, values in read.arrays("benefits").items():
        pd.testing.assert_series_equal(pd.Series(values), pd.Series(again.arrays("benefits")[name]))


def test_months_that_nobody_states_and_months_that_are_missing(tmp_path):
    rows = [*several("a", "2015-01", "2015-02", "2015-05"), "a;;;;", "a;xx;;;", *several("b", "2015-02", "2015-08")]
    read = register.read(write(tmp_path, rows))
    found = {check.code: check for check in read.findings if check.table == "benefits"}
    absent = found["statement_month_absent"]
    assert (absent.count, absent.unit, absent.params["month"]) == (4, "months", "2015-03")
    assert found["month_missing"].count == 1 and found["date_unreadable"].count == 1
    assert found["statement_joined"].count == 1 and found["statement_joined"].severity == "info"
    rows = several("a", "2015-01", "2015-02", "2015-03")
    (tmp_path / "b").mkdir()
    whole = register.read(write(tmp_path / "b", rows))
    assert "statement_month_absent" not in {check.code for check in whole.findings if check.table == "benefits"}


def test_spells_wholly_before_the_window_are_set_aside(tmp_path):
    rows = [*several("a", "2014-10", "2014-11"), *several("b", "2014-11", "2014-12", "2015-01", "2015-02")]
    read = register.read(write(tmp_path, [*rows, *several("c", *(f"2015-{m:02d}" for m in range(1, 13)))]))
    assert [(p, s) for p, s, _, _ in spells(read)] == [("b", dt.date(2014, 11, 1)), ("c", dt.date(2015, 1, 1))]
    assert {q.code: q.rows for q in read.quarantine if q.table == "benefits"} == {
        "outside_window": 1,
        "statement_joined": 1 + 3 + 11,
    }


def test_rows_that_are_periods_are_left_alone(tmp_path):
    text = STUDY.replace(', month = "verslagmaand"', "").replace(', month = "maand"', "")
    rows = ["a;2015-02;2015-02-10;2015-04-03;01", "a;2015-03;2015-05-10;;", "b;2015-03;2015-03-05;;"]
    rows += ["c;2015-03;2015-03-05;;"]
    read = register.read(write(tmp_path, rows, EPISODES.replace("a;2015-03", "a;2015-02"), text))
    assert len(spells(read)) == 4 and "month" not in read.arrays("benefits")
    assert "statement_joined" not in {check.code for check in read.findings}


def test_without_dates_and_without_months(tmp_path):
    with pytest.raises(StudyError) as caught:
        study.parse(STUDY.replace('month = "verslagmaand", scheme = ""', 'start = "", scheme = ""'))
    assert [fault.code for fault in caught.value.faults] == ["study.missing_key"]
    with pytest.raises(DataError) as error:
        register.read(write(tmp_path, [f"a;maand {i};;;" for i in range(4)]))
    assert "data.months" in {fault.code for fault in error.value.faults}
