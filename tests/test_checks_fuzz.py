"""Registers drawn at random: never another error than our own, no row lost, and the flow of people adds up.

``EVALKIT_FUZZ=5000 python -m pytest tests/test_checks_fuzz.py`` tries as many as one likes.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fuzz_files import MARKER, Town
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from naive import risk_sets as naive
from naive.spells import members, merge

from evalkit import register, sample
from evalkit.analyses import all_settings
from evalkit.doctor import examine
from evalkit.errors import EvalkitError
from evalkit.mapping import as_toml, propose
from evalkit.report.plain import design_text
from evalkit.run import analyse, bind_all
from evalkit.study import Study, read

LONG = int(os.environ.get("EVALKIT_FUZZ", "0"))
_SMALL = 25  # persons up to which plain loops count along

fuzzed = settings(
    deadline=None,
    derandomize=not LONG,
    phases=[Phase.explicit, Phase.generate],  # making an example smaller takes minutes
    suppress_health_check=list(HealthCheck),
)
SEEDS = st.integers(0, 2**32 - 1)
ODD = st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.2, 0.7])
WORDS = st.lists(st.text(max_size=12), max_size=4)
KINDS = ("csv", "parquet", "duckdb", "excel", "stata", "spss")


@settings(fuzzed, max_examples=LONG or 20)
@given(SEEDS, ODD, WORDS)
def test_any_csv_register_ends_in_results_or_an_error_of_ours(seed, odd, words):
    attempt(Town(seed, odd, words, damage=0.1))


@pytest.mark.slow
@settings(fuzzed, max_examples=LONG or 60)
@given(SEEDS, ODD, WORDS, st.sampled_from([0.0, 0.1, 0.5]))
def test_any_files_end_in_results_or_an_error_of_ours(seed, odd, words, damage):
    attempt(Town(seed, odd, words, damage, KINDS))


@settings(fuzzed, max_examples=LONG or 8)
@given(SEEDS, ODD, WORDS, st.sampled_from([0.1, 0.5]), st.sampled_from([("csv",), KINDS]))
def test_map_and_doctor_find_their_way_through_any_files(seed, odd, words, damage, kinds):
    look(Town(seed, odd, words, damage, kinds))


def look(town: Town) -> None:
    """What is said of files before they are used; few persons have what was planted, so it is not shown."""
    with tempfile.TemporaryDirectory() as folder:
        file = town.write(Path(folder) / "study")
        shown = [examine(file).text(lang) for lang in ("nl", "en")]
        for path in sorted((file.parent / "data").iterdir()):
            try:
                shown += [as_toml(propose([path]), lang, file.parent) for lang in ("nl", "en")]
            except EvalkitError as error:
                shown.append(error.text("nl"))
        if town.odd < 0.2:
            private(shown)


def attempt(town: Town) -> str:
    """The whole line on a town; how it ended. Anything that is not ours is raised."""
    with tempfile.TemporaryDirectory() as folder:
        file = town.write(Path(folder) / "study")
        made: register.Register | None = None
        try:
            study = read(file, all_settings())
            bound = bind_all(study)
            heard: list[str] = []
            made = register.read(study, lambda dialect: heard.append(dialect.text("nl")))
            private(heard)
            no_row_is_lost(study, made, town)
            found(made)
            cut = sample.from_register(study, made)
            adds_up(study, cut, made)
            done = analyse(study, bound, made, cut, blind=True)
            document = done.results.document
            private([design_text(document, lang) for lang in ("nl", "en")], document)
        except EvalkitError as error:
            private([error.text("nl"), error.text("en")], error.args, [dict(fault.params) for fault in error.faults])
            cause: BaseException | None = error
            while cause := cause.__cause__ or cause.__context__:
                private([repr(cause)], cause.args)
            return error.faults[0].code
        return "done"


def private(texts: list[str], *objects: Any) -> None:
    """No value of a row is in them."""
    assert all(texts)
    assert MARKER not in "\n".join([*texts, *map(str, objects)])


def no_row_is_lost(study: Study, made: register.Register, town: Town) -> None:
    """Rows that can be used and rows set aside are those of the file."""
    for table, source in zip(study.data.tables, made.inputs, strict=True):
        kept = len(made.arrays(table)["person"])
        aside = sum(q.rows for q in made.quarantine if q.table == table)
        assert kept + aside == source.rows
        if table not in town.broken:
            assert source.rows == town.rows[table]
    persons = made.arrays("persons")["person"]
    assert len(set(persons)) == len(persons)
    for table in ("benefits", "episodes", "jobs"):
        assert set(made.arrays(table)["person"]) <= set(persons)


def found(made: register.Register) -> None:
    """Every check counts something, tells it in words, and its arms add up."""
    for check in made.findings:
        assert check.count > 0 and 0 <= check.share <= 1
        private([part(lang) for part in (check.message, check.reason, check.remedy) for lang in ("nl", "en")])
        private([check.code], dict(check.params))
        if check.arms:
            assert sum(arm["count"] for arm in check.arms.values()) == check.count
            assert all(arm["share"] is None or 0 <= arm["share"] <= 1 for arm in check.arms.values())


def adds_up(study: Study, cut: sample.Sample, made: register.Register) -> None:
    """Who starts the flow falls out or is left, in persons and entries; every start of the instrument is in it."""
    for check in sample.judge_sample(cut):
        assert check.count > 0 and check.message("nl") and check.message("en")
    for arm in ("treated", "comparison"):
        rows = [row for row in cut.flow if row.arm == arm]
        assert rows[0].kind == "start" and rows[-1].kind == "left"
        for measure in ("persons", "entries"):
            assert getattr(rows[0], measure) == sum(getattr(row, measure) for row in rows[1:])
        assert rows[-1].entries == int((cut.entries.arm == (arm == "treated")).sum())
    episodes = made.arrays("episodes")
    day = episodes["referral" if study.time.clock == "referral" else "start"]
    starts = (episodes["type"] == "training") & ~pd.isna(day)
    assert (cut.flow[0].persons, cut.flow[0].entries) == (len(set(episodes["person"][starts])), int(starts.sum()))
    if len(cut.people.ids) <= _SMALL:
        expected = by_plain_loops(study, made)
        for arm in ("treated", "comparison"):
            shown = [(r.reason if r.kind == "out" else r.kind, r.persons, r.entries) for r in cut.flow if r.arm == arm]
            assert shown == expected[arm]


def plain(made: register.Register, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Rows of a table; dates as dates, gaps as None."""
    arrays = made.arrays(table)
    listed = [arrays[column].astype(object) for column in columns]
    listed = [np.where(pd.isna(values), None, values) for values in listed]
    return list(zip(*listed, strict=True))


def by_plain_loops(study: Study, made: register.Register) -> dict[str, list[tuple[str, int, int]]]:
    """The flow of both arms, person by person and month by month."""
    who, time = study.eligibility, study.time
    columns = ("person", "birth_year", "distance", "sex", "education", "household_id")
    people = plain(made, "persons", *columns)
    rules = naive.Rules(
        seed=study.seed, first=made.window[0], last=made.window[1], clock=time.clock, horizon=time.horizon,
        complete=time.follow_up == "complete", elapsed=who.elapsed, age=who.age, stock=who.stock == "include",
        other=who.other_instrument == "include", earlier=who.earlier_spells, convention=time.within_month,
        known={row[0] for row in people if None not in row[1:5]}, look_ahead=study.look_ahead,
        exclude_missing=study.covariates.missing == "exclude",
    )  # fmt: skip
    rows = plain(made, "benefits", "person", "start", "end", "reason", "household_id")
    if study.spells.level == "household":
        held = members(rows, {row[0]: row[5] for row in people if row[5] is not None})
        rows = [(person, *row) for person, given in held.items() for row in given]
    rows = sorted({row[:4] for row in rows}, key=str)
    listed = list(study.data.benefits.codes["reason"])
    merged = {p: merge(own, study.spells.merge_gap_months, listed) for p, own in naive.spells_of(rows).items()}
    spells = [(person, *row) for person, own in merged.items() for row in own]
    episodes = plain(made, "episodes", "person", "type", "start", "end", "referral")
    return naive.risk_sets({row[0]: row[1] for row in people}, spells, episodes, rules, rows)[1]
