"""The list is whole: every check that has a sentence has a register that triggers it and one that does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import test_changing_register
import test_did_sample
import test_layout_keys
import test_layouts
import test_statements
from checks_example import copy, found, protocol, scene
from checks_spoilt import nothing, only_arm
from layouts_example import LAYOUTS
from register_example import TABLE, write, write_table
from sample_example import cut, frames, person
from sample_example import protocol as few
from test_changing_register import SPOILT
from test_checks import WARNED
from test_checks_days import MASS
from test_checks_rows import SCENES
from test_checks_sample import SAMPLES

from evalkit import register, study
from evalkit.register import Check
from evalkit.register.checks.columns import BIRTH_RULES, COLUMN_RULES
from evalkit.register.checks.days import DAY_RULES
from evalkit.register.checks.rules import ROW_RULES
from evalkit.sample.checks import SAMPLE_RULES
from evalkit.text import LANGUAGES, catalogue, known

CODES = sorted({key.split(".")[1] for key in catalogue("en") if key.startswith("check.")})

Found = Callable[[Path], Sequence[Check]]


@dataclass(frozen=True)
class Case:
    """What is found where a rule must speak, what where it must not, and the exact count of the first."""

    spoilt: Found
    sound: Found
    count: int


# -- files -------------------------------------------------------------------------------------------------------------


def read(**changed: Any) -> Found:
    return lambda folder: register.read(write(folder, **changed)).findings


def table(text: str = TABLE) -> Found:
    return lambda folder: register.read_table(write_table(folder, text)).findings


def of(**scenes: Any) -> Found:
    return lambda folder: register.from_frames(protocol(), **scene(**scenes)).findings


def days_twice(last: str) -> Found:
    """A spell twice, with another reason."""

    def findings(folder: Path) -> Sequence[Check]:
        made = scene(spells=("2015-02-03 2015-11-20", f"2015-02-03 {last}"))
        made["benefits"].loc[len(made["benefits"]) - 1, "reason"] = "other"
        return found(made, "spell_same_dates")

    return findings


def arm_of_jobs(change: Callable[[Any], None]) -> Found:
    def findings(folder: Path) -> Sequence[Check]:
        made = copy()
        change(made)
        return found(made, "jobs_one_arm")

    return findings


def idle_but_for_starters() -> int:
    """Persons without a job when only starters keep theirs."""
    made = copy()
    training = made["episodes"].loc[made["episodes"]["type"] == "training", "person"]
    return len(set(made["persons"]["person"]) - (set(made["jobs"]["person"]) & set(training)))


def late_starts(horizon: int) -> Found:
    return lambda folder: found(copy(), "follow_up_short", protocol(horizon=horizon))


def starts_after(day: str) -> int:
    rows = copy()["episodes"]
    return int(((rows["start"] >= day) & (rows["type"] == "training")).sum())


# -- spells and jobs of a few lines ------------------------------------------------------------------------------------

STARTER = ("S", "training", "2020-01-31", None, None)


def spells(*rows: tuple[str | None, ...]) -> Found:
    """A has these rows; S starts the training and C waits beside him."""
    held = [("A", *row) for row in rows] + [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None)]

    def findings(folder: Path) -> Sequence[Check]:
        made = few(horizon=3, spells="merge_gap_months = 1")
        return cut(made, frames([person(id) for id in "ASC"], held, [STARTER])).checks

    return findings


def household(other: str) -> Found:
    """A has a benefit for a household in which B lives, or another."""
    held = [("A", "2018-01-01", "2018-06-30", "work", "h1"), ("B", "2017-01-01", "2017-02-02", "work", other),
            ("S", "2019-12-20", None, None, None), ("C", "2019-12-22", None, None, None)]  # fmt: skip

    def findings(folder: Path) -> Sequence[Check]:
        made = few(horizon=3, spells='level = "household"', household=True)
        return cut(made, frames([person(id) for id in "ABSC"], held, [STARTER])).checks

    return findings


def jobs(*rows: tuple[Any, ...]) -> Found:
    flow = '[[outcome]]\nname = "hours"\nkind = "flow"\nsource = "flow:hours"\nunit = "hours"\n'
    held = [("S", "2019-12-20", None, None), ("C", "2019-12-22", None, None)]
    worked = [("S", *row, 1.0, 1.0) for row in rows]

    def findings(folder: Path) -> Sequence[Check]:
        made = few(horizon=3, jobs=True, amounts=True, outcomes=flow)
        return cut(made, frames([person("S"), person("C")], held, [STARTER], worked)).checks

    return findings


# -- layouts -----------------------------------------------------------------------------------------------------------


def srg(*days: str, last: str = "2024-12-31") -> Found:
    """Episodes that begin on these days, in a window from 2017 on."""

    def findings(folder: Path) -> Sequence[Check]:
        made = study.parse(LAYOUTS.replace("2018-01-01", "2017-01-01").replace("2021-12-31", last))
        persons = pd.DataFrame({"person": [f"p{i}" for i in range(len(days))], "sex": "man", "birth_year": 1980})
        held = persons[["person"]].assign(start=pd.Timestamp("2017-01-01"), end=pd.NaT, reason=None, scheme="ioaw")
        begun = persons[["person"]].assign(type="other_workplace", start=pd.to_datetime(days), end=pd.NaT)
        return register.from_frames(made, persons=persons, benefits=held, episodes=begun).findings

    return findings


CASES: dict[str, Case] = {
    "srg_break_2019": Case(srg("2018-12-31", "2019-01-01", "2020-05-05"), srg("2019-01-01", "2020-05-05"), 2),
    "srg_break_2023": Case(srg("2022-12-31", "2023-01-01"), srg("2018-12-31", "2022-12-31"), 1),
    "encoding_suspect": Case(read(layout='encoding = "cp1252"'), read(layout='encoding = "utf-8"'), 1),
    "unit_missing": Case(table(TABLE + ";1;1;x;1;1\n;0;1;x;1;1\n"), table(), 2),
    "treatment_missing": Case(table(TABLE + "a5;;1;x;1;1\n"), table(), 1),
    "value_missing": Case(table(), table(TABLE.replace("hbo;;7", "hbo;1;7")), 1),
    "spell_same_dates": Case(days_twice("2015-11-20"), days_twice("2015-11-21"), 1),
    "jobs_one_arm": Case(arm_of_jobs(only_arm(True)), arm_of_jobs(nothing), idle_but_for_starters()),
    "follow_up_short": Case(late_starts(20), late_starts(10), starts_after("2015-04-02")),
    "spells_household": Case(household("h1"), household("h2"), 2),
    "spells_overlap_joined": Case(
        spells(("2018-01-01", "2018-06-30", "work"), ("2018-06-30", "2018-07-31", "work")),
        spells(("2018-01-01", "2018-06-30", "work"), ("2018-07-01", "2018-07-31", "work")),
        1,
    ),
    "spells_merged": Case(
        spells(("2018-01-01", "2018-06-30", "work"), ("2018-07-31", "2018-08-31", "work")),
        spells(("2018-01-01", "2018-06-30", "work"), ("2018-08-01", "2018-08-31", "work")),
        1,
    ),
    "job_amount_missing": Case(
        jobs(("2020-02-01", "2020-02-29", None), ("2020-03-01", "2020-03-02", 1.0)),
        jobs(("2020-02-01", "2020-02-29", 0.0)),
        1,
    ),
    "job_amount_open": Case(jobs(("2020-02-01", None, 8.0)), jobs(("2020-02-01", "2020-02-29", 8.0)), 1),
}  # fmt: skip
"""What no other list of tests holds. A new check needs an entry here or in one of those."""


@pytest.mark.parametrize("code", CASES)
def test_a_check_that_speaks_and_one_that_is_silent(tmp_path, code):
    case = CASES[code]
    checks = [check for check in case.spoilt(tmp_path) if check.code == code]
    assert [check.count for check in checks] == [case.count]
    assert [check.code for check in case.sound(tmp_path) if check.code == code] == []


ELSEWHERE: dict[str, Callable[..., None]] = {
    "adopted_unknown": test_did_sample.test_a_day_for_nobody_is_told,
    "area_unknown": test_changing_register.test_areas_that_the_study_does_not_name_are_set_aside,
    "value_not_known": test_changing_register.test_a_value_that_is_unknown_and_a_figure_that_is_old,
    "figure_old": test_changing_register.test_a_value_that_is_unknown_and_a_figure_that_is_old,
    "layout_filled": test_layouts.test_the_results_say_what_was_filled_in,
    "codes_unverified": test_layouts.test_the_results_say_what_was_filled_in,
    "key_zeros_restored": test_layout_keys.test_keys_of_microdata_from_every_kind_of_file,
    "statement_joined": test_statements.test_months_that_nobody_states_and_months_that_are_missing,
    "statement_month_absent": test_statements.test_months_that_nobody_states_and_months_that_are_missing,
    "month_missing": test_statements.test_months_that_nobody_states_and_months_that_are_missing,
}
"""Tests that hold the exact count of a check and a register in which it is silent."""

LISTS = [CASES, WARNED, MASS, SAMPLES, {name.split(".")[1] for name in SCENES}, SPOILT, ELSEWHERE]
"""Lists of cases: here, rows of files, distributions, samples, single rows, what changes. Each has its own test."""


@pytest.mark.parametrize("code", CODES)
def test_every_check_of_the_catalogue_has_a_case(code):
    assert any(code in cases for cases in LISTS)
    for lang in LANGUAGES:
        assert all(known(f"check.{code}.{part}", lang) for part in ("say", "why", "fix"))


def test_every_rule_is_in_the_catalogue():
    rules = {rule.code for rules in ROW_RULES.values() for rule in rules}
    rules |= {rule.code for rule in (*DAY_RULES, *COLUMN_RULES, *BIRTH_RULES, *SAMPLE_RULES)}
    assert rules <= set(CODES)


def test_every_row_rule_of_every_table_has_a_case():
    """A rule may look at several tables; each of them needs its own."""
    tested = {tuple(name.split(".")) for name in SCENES} | {(table, code) for code, (table, *_) in MASS.items()}
    tested |= {("benefits", "spell_same_dates")}
    assert {(table, rule.code) for table, rules in ROW_RULES.items() for rule in rules} <= tested


def test_every_check_that_the_program_makes_has_a_sentence():
    """Codes stand in the source as words of their own; none of them may be without a sentence."""
    source = Path(register.__file__).parent.parent
    made = set()
    for path in (*source.glob("register/**/*.py"), *source.glob("sample/**/*.py")):
        made |= set(re.findall(r'(?:Rule|Check|_check)\(\s*"(\w+)"', path.read_text("utf-8")))
    assert len(made) > 90 and made <= set(CODES)
