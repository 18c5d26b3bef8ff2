"""Spells cut into stretches: against months in plain loops; the door; meetings; what comes after; known truths."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow
import pytest
from naive import duration_spells as naive
from tolerances import EXACT, MONTE_CARLO

from evalkit.duration.afterwards import Afterwards, with_afterwards
from evalkit.duration.answers import answers
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.likelihood import stretches
from evalkit.duration.npmle import npmle
from evalkit.duration.repeated import Repeated
from evalkit.duration.spells import NEVER, Instrument, Layout, Spells, Timeline, planned
from evalkit.duration.spells_frame import Column, found, spells_from_frame
from evalkit.duration.terms import dense, factor, joined
from evalkit.errors import DataError, DesignError, EvalkitError, UsageError
from evalkit.text import say

CAUSES = ("work", "education", "other")
LEVELS = ("man", "woman", "unknown")


def drawn(size: int, seed: int, *, stock: bool = True, meetings: Repeated | None = None, after: bool = True) -> Spells:
    """Spells with every oddity: stock, starts before entry, at the end, after it, and in the same month."""
    rng = np.random.default_rng(seed)
    person = np.unique(np.sort(rng.integers(0, max(1, int(size * 0.7)), size)), return_inverse=True)[1]
    people = int(person.max()) + 1
    entry = np.where(rng.random(size) < 0.3, rng.integers(1, 6, size), 0) if stock else np.zeros(size, int)
    stop = entry + rng.integers(1, 25, size)
    cause = rng.integers(-1, 3, size)

    def start(share: float) -> np.ndarray:
        month = rng.integers(-2, 28, size)
        return np.where(rng.random(size) < share, month, NEVER)

    first = start(0.7)
    second = np.where(rng.random(size) < 0.4, first, start(0.6))
    third = np.where(rng.random(size) < 0.3, np.minimum(second, 2**29) + rng.integers(0, 3, size), start(0.5))
    third = np.where(second < NEVER, third, start(0.3))
    x = joined(
        factor(rng.integers(0, 3, size), [f"sex:{level}" for level in LEVELS]),
        dense(rng.normal(size=(size, 2)), ["age", "hours"]),
    )
    instruments = (
        Instrument("training", first, rng.integers(0, 7, size), "end", (3, 8)),
        Instrument("sanction", third, np.zeros(size, int), "start", (2,), after="warning" if after else ""),
        Instrument("warning", second, np.zeros(size, int), "start", ()),
        Instrument("talk", start(0.3), np.zeros(size, int), "start", (1, 4), modelled=False),
    )
    again = () if meetings is None else (meetings,)
    return Spells(
        person, np.arange(people), entry, stop, cause, CAUSES, rng.integers(24_000, 24_030, size), x, instruments,
        np.arange(people) // 2, np.arange((people + 1) // 2), "team", again,
    )  # fmt: skip


def plainly(spells: Spells) -> tuple[list[naive.Spell], list[naive.Kind]]:
    x = spells.x.matrix()
    held = defaultdict(list)
    for each in spells.repeated:
        for spell, month in zip(each.spell.tolist(), each.month.tolist(), strict=True):
            held[spell].append(month)
    out = []
    for i in range(len(spells)):
        columns = {
            name: float(value)
            for name, value in zip(spells.x.names, x[i], strict=True)
            if value or name in ("age", "hours")
        }
        start = [int(each.start[i]) if each.start[i] < NEVER else None for each in spells.instruments]
        out.append(
            naive.Spell(
                int(spells.person[i]),
                int(spells.entry[i]),
                int(spells.stop[i]),
                CAUSES[spells.cause[i]] if spells.cause[i] >= 0 else "",
                int(spells.begin[i]),
                columns,
                start,
                [int(each.length[i]) for each in spells.instruments],
                held[i],
            )  # fmt: skip
        )
    return out, [
        naive.Kind(each.name, each.clock, each.bounds, each.after, each.modelled) for each in spells.instruments
    ]


def meetings(size: int, seed: int, **settings) -> Repeated:
    rng = np.random.default_rng(seed)
    return Repeated("meeting", rng.integers(0, size, 3 * size), rng.integers(-1, 30, 3 * size), **settings)


PLAIN = Timeline((1, 3, 6, 12))
CASES = {
    "plain": (PLAIN, None),
    "year": (replace(PLAIN, calendar="year", by=("sex", "age"), start_duration=(2, 5)), None),
    "quarter": (replace(PLAIN, calendar="quarter", by=("hours",), by_phase=True), None),
    "together": (
        replace(PLAIN, together=(("training", "warning"), ("sanction", "talk"), ("warning", "talk"))),
        {"orders": 3, "recency": (1, 3), "by": ("sex",), "starts": True},
    ),
    "cells": (replace(PLAIN, calendar="year"), {"orders": 2, "recency": (2,), "cells": True}),
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("case", list(CASES))
def test_stretches_are_the_months_of_plain_loops(case, before):
    timeline, asked = CASES[case]
    size = 140
    spells = drawn(size, 3, meetings=meetings(size, 4, **asked) if asked else None)
    layout = Layout(spells, timeline)
    own, kinds = plainly(spells)
    line = naive.Line(
        timeline.duration,
        timeline.duration if timeline.start_duration is None else timeline.start_duration,
        timeline.calendar, timeline.by, timeline.by_phase, timeline.together,
        (asked["orders"], asked["recency"], asked.get("by", ()), asked.get("starts", False), asked.get("cells", False))
        if asked else None,
    )  # fmt: skip
    months = naive.months(own, list(CAUSES), kinds, line, before)
    assert any(each.hidden for each in months) == before
    made = {timing: layout.histories(timing, before=before) for timing in ("grouped", "exact")}
    h = made["grouped"]
    people = sorted({each.person for each in months})
    assert h.persons == len(people)
    assert h.length.sum() == len(months)
    assert h.length[h.before].sum() == sum(each.hidden for each in months)
    assert h.level == "team"
    assert h.cluster_ids[h.cluster].tolist() == [person // 2 for person in people]

    rng = np.random.default_rng(1)
    theta = [rng.normal(0, 0.4, design.width) for design in h.designs]
    level = rng.normal(-2, 0.3, len(h.risks))
    named = {
        risk: dict(zip(design.names, values, strict=True))
        for risk, design, values in zip(h.risks, h.designs, theta, strict=True)
    }
    levels = dict(zip(h.risks, level.tolist(), strict=True))
    for k, risk in enumerate(h.risks):
        exposure, events = defaultdict(float), defaultdict(float)
        for each in months:
            if risk in each.at_risk:
                for name, value in each.at_risk[risk].items():
                    exposure[name] += value
                    events[name] += value * (each.event == risk)
        on = h.at_risk[:, k]
        assert h.length[on].sum() == sum(risk in each.at_risk for each in months)
        assert (h.event == k).sum() == sum(each.event == risk for each in months)
        design = h.designs[k]
        assert len(set(design.names)) == design.width
        found = design.sums(np.where(on, h.length, 0.0))[0]
        assert found == pytest.approx([exposure[name] for name in design.names], abs=1e-9), risk
        assert set(exposure) <= set(design.names)
        found = design.sums((h.event == k).astype(float))[0]
        assert found == pytest.approx([events[name] for name in design.names], abs=1e-9), risk
    for timing, link in (("grouped", "hazard"), ("grouped", "logit"), ("exact", "hazard")):
        made_h = made[timing]
        eta = np.column_stack([d.predict(t) for d, t in zip(made_h.designs, theta, strict=True)]) + level
        value = np.bincount(made_h.person, stretches(made_h, eta, link)[0], minlength=made_h.persons)
        by_person = defaultdict(float)
        for each in months:
            by_person[each.person] += naive.log_likelihood(each, named, levels, timing, link)
        assert value == pytest.approx([by_person[person] for person in people], rel=EXACT, abs=EXACT), (timing, link)


def test_instruments_wait_for_a_free_month_and_for_what_they_need():
    """Three in one month; the one listed first that needs the second takes its month after it."""

    def single(names, months, after, stop=20, cause=-1):
        made = tuple(
            Instrument(name, np.array([month]), np.zeros(1, int), "start", (), after.get(name, ""))
            for name, month in zip(names, months, strict=True)
        )
        one = np.array([0])
        return Spells(
            one,
            one,
            one,
            np.array([stop]),
            np.array([cause]),
            ("work",),
            one,
            dense(np.zeros((1, 0)), ()),
            made,
            one,
            one,
        )

    def months(*settings, **more):
        return [int(each[0]) for each in single(*settings, **more).started]

    assert months("abc", (6, 5, 5), {}) == [6, 5, 7]
    assert months("abc", (5, 5, 5), {}) == [5, 6, 7]
    assert months("ab", (5, 5), {"a": "b"}) == [6, 5]
    assert months("abc", (5, 5, 5), {"a": "b", "b": "c"}) == [7, 6, 5]
    assert months("ab", (-3, 0), {}) == [0, 1]
    assert months("ab", (5, 5), {}, stop=5) == [5, NEVER]
    assert months("ab", (4, 5), {}, stop=5, cause=0) == [4, NEVER]
    with pytest.raises(UsageError) as error:
        single("ab", (5, 5), {"a": "b", "b": "a"})
    assert [fault.code for fault in error.value.faults] == ["duration.spells_circle"]
    with pytest.raises(UsageError) as error:
        single("aa", (5, 5), {})
    assert [fault.code for fault in error.value.faults] == ["duration.spells_names"]


def test_a_start_without_what_it_needs_is_no_event():
    """The enforcement lies before its warning: it has its effect, its own start was never at risk."""
    spells = drawn(200, 5, stock=False)
    sanction, warning = spells.started[1], spells.started[2]
    layout = Layout(spells, PLAIN)
    h = layout.histories()
    risk = h.risks.index("start sanction")
    assert ((sanction < NEVER) & (warning >= sanction)).sum() > 5
    assert (h.event == risk).sum() == ((sanction < NEVER) & (warning < sanction)).sum()
    codes = {note.code: note for note in found(spells) if note.params.get("instrument") == "sanction"}
    assert codes["duration_spells_needed"].value == ((sanction < NEVER) & (warning >= sanction)).sum()


def test_pairs_of_which_one_needs_the_other_are_refused():
    spells = drawn(40, 1)
    for pair in (("warning", "sanction"), ("sanction", "warning"), ("talk", "talk")):
        with pytest.raises(UsageError) as error:
            Layout(spells, replace(PLAIN, together=(pair,)))
        assert error.value.faults[0].params == dict(zip(("first", "second"), pair, strict=True))


def test_parts_of_months_and_lengths_below_zero_are_refused():
    with pytest.raises(DataError) as error:
        Instrument("training", np.array([2.5]), np.array([3]))
    assert [fault.code for fault in error.value.faults] == ["duration.spells_not_whole"]
    with pytest.raises(DataError) as error:
        Instrument("training", np.array([2, NEVER]), np.array([-1, -1]), "end", (6,))
    assert error.value.faults[0].params == {"instrument": "training", "rows": 1}
    spells = drawn(20, 1)
    with pytest.raises(ValueError, match="a cause without a name"):
        replace(spells, cause=np.full(20, 3))
    with pytest.raises(DataError) as error:
        replace(spells, stop=spells.entry)
    assert error.value.faults[0].code == "duration.zero_length"
    with pytest.raises(UsageError) as error:
        Layout(spells, replace(PLAIN, together=(("training", "nothing"),)))
    assert error.value.faults[0].params == {"name": "nothing"}
    with pytest.raises(UsageError) as error:
        Repeated("meeting", np.array([0]), np.array([1]), recency=(3, 1))
    assert error.value.faults[0].code == "duration.spells_repeated"


def test_unknown_plans_get_the_usual_length():
    start = np.array([1, 2, 3, NEVER, 4])
    made, filled = planned("training", start, np.array([4, 7, np.nan, 100, -1]))
    assert (made.length.tolist(), filled, made.clock, made.bounds) == ([4, 7, 5, 0, 5], 2, "end", (6, 12))
    with pytest.raises(DesignError) as error:
        planned("training", start, np.full(5, np.nan))
    assert error.value.faults[0].code == "duration.spells_no_plan"


def test_cutting_in_parts_is_cutting_at_once(monkeypatch):
    spells = drawn(300, 7, meetings=meetings(300, 8))
    layout = Layout(spells, replace(PLAIN, calendar="quarter", by=("age",)))
    whole = layout.histories()
    monkeypatch.setattr("evalkit.duration.spells.CHUNK", 37)
    parts = layout.histories()
    for name in ("person", "length", "event", "at_risk", "before"):
        assert (getattr(whole, name) == getattr(parts, name)).all()
    for one, two in zip(whole.designs, parts.designs, strict=True):
        assert one.names == two.names
        assert (one.codes == two.codes).all()
        assert (one.numbers == two.numbers).all()


def test_later_spells_of_someone_whose_past_is_unknown_take_no_part():
    spells = drawn(400, 9)
    layout = Layout(spells, PLAIN)
    part = layout.part()
    early = np.zeros(400, bool)
    for month in spells.started:
        early |= (spells.entry > 0) & (month <= spells.entry)
    assert early.sum() > 10
    assert not part[early].any()
    since = {}
    for i in np.flatnonzero(early).tolist():
        since[spells.person[i]] = min(since.get(spells.person[i], 10**9), spells.begin[i])
    later = [i for i in np.flatnonzero(~early).tolist() if since.get(spells.person[i], 10**9) <= spells.begin[i]]
    assert len(later) > 5
    assert sorted(np.flatnonzero(~part).tolist()) == sorted([*later, *np.flatnonzero(early).tolist()])
    assert layout.part(before=False).all()


# -- repeated events --------------------------------------------------------------------------------------------------


def test_repeated_events_of_some_spells():
    again = Repeated("meeting", np.array([2, 0, 0, 3]), np.array([5, 7, 1, 2]))
    taken = again.take(np.array([0, 3, 0]))
    assert (taken.spell.tolist(), taken.month.tolist()) == ([0, 0, 1, 2, 2], [1, 7, 2, 1, 7])
    kept = again.until(np.array([6, 0, 5, 1]))
    assert (kept.spell.tolist(), kept.month.tolist()) == ([0, 2], [1, 5])
    count, since = again.state(np.array([0, 0, 0, 1, 2]), np.array([0, 1, 9, 9, 4]))
    assert (count.tolist(), since.tolist()) == ([0, 1, 2, 0, 0], [-1, 0, 2, -1, -1])
    spell, month = again.edges()
    assert sorted(zip(spell.tolist(), month.tolist(), strict=True)) == [
        (0, 1), (0, 2), (0, 4), (0, 7), (0, 8), (0, 10), (2, 5), (2, 6), (2, 8), (3, 2), (3, 3), (3, 5)
    ]  # fmt: skip
    none = Repeated("meeting", np.zeros(0, int), np.zeros(0, int))
    assert none.columns(np.array([0, 1]), np.array([3, 3])).matrix().tolist() == [[0.0] * 5] * 2


def test_paths_after_a_start_know_no_later_meetings():
    spells = drawn(120, 11, stock=False, meetings=meetings(120, 12))
    layout = Layout(spells, PLAIN)
    start = np.minimum(spells.started[0], 10)
    own = np.flatnonzero(spells.started[0] < NEVER)
    never = [np.full(len(own), -1)] * 4
    later = layout.as_known(start).exits(own, start[own] + 8, never).matrix()
    names = layout.exits(own[:1], start[own[:1]], [each[:1] for each in never]).names
    number = later[:, [names.index("meeting 2"), names.index("meeting 3+")]]
    month = spells.repeated[0].month
    so_far = np.array([(month[spells.repeated[0].spell == i] <= start[i]).sum() for i in own])
    assert (number[:, 0] == (so_far == 2)).all()
    assert (number[:, 1] == (so_far >= 3)).all()
    seen = layout.exits(own, start[own] + 8, never).matrix()
    assert (seen != later).any()


# -- from a frame -----------------------------------------------------------------------------------------------------


def table(size: int = 60, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    begin = pd.Timestamp("2015-01-10") + pd.to_timedelta(rng.integers(0, 700, size), unit="D")
    stop = rng.integers(2, 24, size)
    start = np.where(rng.random(size) < 0.5, rng.integers(1, 12, size), -1)
    return pd.DataFrame(
        {
            "who": np.arange(size) + 100,
            "from": begin,
            "months": stop,
            "why": np.resize(["work", "study", "", "work"], size),
            "age": rng.normal(40, 10, size).round(1),
            "sex": np.resize(["man", "woman"], size),
            "training": np.where((start > 0) & (start < stop), start, np.nan),
            "plan": np.where(rng.random(size) < 0.8, 6.0, np.nan),
            "team": np.resize(["north", "south", "west"], size),
        }
    )


COLUMNS = {
    "person": "who", "stop": "months", "cause": "why", "begin": "from", "numeric": ["age"], "categorical": ["sex"],
    "instruments": [Column("training", length="plan")], "cluster": "team",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "shuffled"])
def test_frames_of_every_kind_give_the_same_spells(kind):
    frame = table()
    other = {
        "pandas": lambda: frame,
        "polars": lambda: pytest.importorskip("polars").from_pandas(frame),
        "pyarrow": lambda: pyarrow.Table.from_pandas(frame),
        "shuffled": lambda: frame.sample(frac=1.0, random_state=3),
    }[kind]()
    spells = spells_from_frame(other, **COLUMNS)
    assert spells.causes == ("study", "work")
    assert spells.stop.tolist() == frame["months"].tolist()
    assert spells.begin.tolist() == (frame["from"].dt.year * 12 + frame["from"].dt.month - 1).tolist()
    assert [spells.causes[c] if c >= 0 else "" for c in spells.cause] == frame["why"].tolist()
    start = frame["training"].fillna(NEVER).astype(int)
    assert spells.instrument.start.tolist() == start.tolist()
    assert set(spells.instrument.length[start < NEVER].tolist()) == {6}
    assert spells.x.names == ("age", "sex:woman")
    assert spells.x.numbers[:, 0] == pytest.approx(frame["age"] - frame["age"].mean())
    assert spells.cluster_ids.tolist() == ["north", "south", "west"]
    assert (spells.level, spells.person_ids.tolist()) == ("team", frame["who"].tolist())
    (note,) = [note for note in spells.notes if note.code == "duration_spells_plan"]
    assert note.value == (frame["training"].notna() & frame["plan"].isna()).sum() > 0


def test_all_that_is_wrong_is_told_at_once():
    frame = table()
    frame.loc[3, "who"] = frame.loc[2, "who"]
    frame.loc[3, "from"] = frame.loc[2, "from"]
    frame.loc[3, "team"], frame.loc[2, "team"] = "north", "south"
    frame["months"] = frame["months"].astype(float)
    frame.loc[5, "months"] = 0
    frame.loc[6, "months"] = 2.5
    frame.loc[7, "months"] = np.nan
    frame.loc[8, "age"] = np.nan
    frame.loc[9, "plan"] = -4
    frame["odd"] = "text"
    frame.loc[10, "training"] = 1.5
    last = int((frame["from"].dt.year * 12 + frame["from"].dt.month - 1 + frame["months"].fillna(0) - 1).max()) - 1
    with pytest.raises(DataError) as error:
        spells_from_frame(
            frame, **{**COLUMNS, "numeric": ["age", "odd"]}, causes=("work", "prison"), missing="refuse",
            window_close=last,
        )  # fmt: skip
    faults = {(fault.code.removeprefix("duration."), *fault.params.values()) for fault in error.value.faults}
    assert faults == {
        ("spells_not_whole", "months", 1),
        ("spells_not_whole", "training", 1),
        ("spells_empty", "months", 1),
        ("zero_length", 1),
        ("cause_unknown", "work, prison"),
        ("no_events", "prison"),
        ("spells_length", "training", 1),
        ("spells_not_number", "odd"),
        ("spells_missing", "age", 1),
        ("spells_overlap", 1),
        ("spells_cluster", 1),
        ("after_close", 1),
    }
    for lang in ("en", "nl"):
        assert "{" not in error.value.text(lang)


@pytest.mark.parametrize(
    ("change", "settings", "code"),
    [
        ({}, {"stop": "nothing"}, "spells_columns"),
        ({"who": None}, {}, "spells_person"),
        ({"team": ""}, {}, "spells_cluster_empty"),
        ({"from": "yesterday"}, {}, "spells_not_date"),
        ({}, {"window_close": "2020-01", "begin": None}, "spells_close"),
        ({}, {"window_close": "soon"}, "spells_close"),
        ({"entry": -1}, {"entry": "entry"}, "spells_entry"),
        ({"months": "many"}, {}, "spells_not_number"),
        ({"why": ""}, {}, "no_events"),
    ],
)
def test_one_thing_wrong(change, settings, code):
    frame = table().assign(**change)
    with pytest.raises(DataError) as error:
        spells_from_frame(frame, **{**COLUMNS, **settings})
    assert f"duration.{code}" in [fault.code for fault in error.value.faults]
    for lang in ("en", "nl"):
        assert "{" not in error.value.text(lang)


def test_no_rows_and_no_plans():
    with pytest.raises(DataError) as error:
        spells_from_frame(table().iloc[:0], **COLUMNS)
    assert error.value.faults[0].code == "duration.spells_no_spells"
    with pytest.raises(DesignError) as error:
        spells_from_frame(table().assign(plan=np.nan), **COLUMNS)
    assert error.value.faults[0].code == "duration.spells_no_plan"


def test_a_spell_may_begin_in_the_month_in_which_another_ends():
    frame = pd.DataFrame(
        {"who": [1, 1], "from": pd.to_datetime(["2015-05-28", "2015-01-10"]), "months": [4, 5], "why": ["work", "work"]}
    )
    names = {"person": "who", "stop": "months", "cause": "why", "begin": "from"}
    spells = spells_from_frame(frame, **names, window_close="2015-09-01")
    assert (spells.stop.tolist(), spells.causes) == ([5, 4], ("work",))
    with pytest.raises(DataError) as error:
        spells_from_frame(frame.assign(months=[4, 6]), **names)
    assert error.value.faults[0].params == {"persons": 1}


def test_missing_covariates_are_a_level():
    frame = table()
    frame.loc[[1, 2], "age"] = np.nan
    frame.loc[[4, 5, 6], "sex"] = None
    frame["same"] = "alike"
    spells = spells_from_frame(frame, **{**COLUMNS, "categorical": ["sex", "same"]})
    x = dict(zip(spells.x.names, spells.x.matrix().T, strict=True))
    assert list(x) == ["age", "age:missing", "sex:woman", "sex:missing"]
    assert np.flatnonzero(x["age:missing"]).tolist() == [1, 2]
    assert x["age"][[1, 2]].tolist() == [0.0, 0.0]
    assert np.flatnonzero(x["sex:missing"]).tolist() == [4, 5, 6]


def test_what_is_no_fault_is_counted():
    frame = pd.DataFrame(
        {
            "who": range(8), "months": [10] * 8, "why": ["work", "work", "study", "other", "", "", "work", "study"],
            "training": [3, 12, 4, None, -2, 10, 10, 6], "talk": [3, None, None, None, None, None, None, None],
        }
    )  # fmt: skip
    asked = [Column("training"), Column("talk", after="training")]
    again = Repeated("meeting", np.array([0, 0, 1]), np.array([2, 10, -1]))
    spells = spells_from_frame(
        frame, person="who", stop="months", cause="why", instruments=asked, repeated=[again]
    )  # fmt: skip
    found = {
        (
            note.code.removeprefix("duration_spells_"),
            note.params.get("instrument"),
            note.params.get("cause"),
        ): note.value
        for note in spells.notes
    }
    assert found == {
        ("early", "training", None): 1,
        ("late", "training", None): 2,
        ("before_only", "training", "other"): 1,
        ("after_only", "training", "study"): 2,
        ("shifted", "talk", None): 1,
        ("before_only", "talk", "other"): 1,
        ("before_only", "talk", "study"): 2,
        ("repeated", None, None): 2,
    }
    for note in spells.notes:
        for lang in ("en", "nl"):
            assert str(note.params["count"]) in say(f"finding.{note.code}", lang, **note.params)
            assert say(f"advice.{note.code}", lang, **note.params)


# -- after the exit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("calendar", ["none", "year"])
def test_time_after_an_exit_joins_the_person(before, calendar):
    spells = drawn(300, 21)
    layout = Layout(spells, replace(PLAIN, calendar=calendar, by=("sex",)))
    rng = np.random.default_rng(2)
    own = rng.permutation(np.flatnonzero(spells.cause == 0))[:60]
    after = Afterwards(own, rng.integers(1, 20, 60), rng.random(60) < 0.5, duration=(2, 6), length=(4, 10))
    plain = layout.histories("grouped", before=before)
    joint = with_afterwards(plain, layout, after, before=before)
    assert joint.risks == (*plain.risks, "return")
    new = joint.at_risk[:, -1]
    assert not joint.at_risk[new, :-1].any()
    rest = joint.take(np.flatnonzero(~new))
    for name in ("person", "length", "event", "before"):
        assert (getattr(rest, name) == getattr(plain, name)).all()
    assert (rest.at_risk[:, :-1] == plain.at_risk).all()
    for one, two in zip(rest.designs, plain.designs, strict=False):
        assert (one.matrix() == two.matrix()).all()
    assert joint.designs[0] is joint.designs[1]
    exposure, events = defaultdict(float), defaultdict(float)
    part = layout.part(before)
    people = np.unique(spells.person[part]).tolist()
    by_person = defaultdict(float)
    x = spells.x.matrix()
    for spell, stop, back in zip(after.spell.tolist(), after.stop.tolist(), after.returned.tolist(), strict=True):
        if not part[spell]:
            continue
        t = int(spells.stop[spell])
        for month in range(stop):
            row = dict(zip(spells.x.names, x[spell].tolist(), strict=True))
            row[f"month {naive.short(naive.span((2, 6), month))}"] = 1.0
            row["benefit 1-4 months" if t <= 4 else "benefit 5-10 months" if t <= 10 else "benefit 11+ months"] = 1.0
            year = (int(spells.begin[spell]) + t + month) // 12
            row[f"year {min(max(year, layout.years[0]), layout.years[-1])}" if calendar == "year" else ""] = 1.0
            for number, each in enumerate(spells.instruments):
                begun = int(spells.started[number][spell])
                if begun < t:
                    kind = naive.Kind(each.name, each.clock, each.bounds)
                    row[naive.phase(kind, int(each.length[spell]), t - 1 - begun)] = 1.0
                    if number == 0:
                        row |= {f"{name} x training": row[name] for name in spells.x.names if name.startswith("sex")}
            by_person[people.index(spells.person[spell])] += 1
            for name, value in row.items():
                exposure[name] += value
                events[name] += value * (back and month == stop - 1)
    design = joint.designs[-1]
    length = np.where(new, joint.length, 0.0)
    assert design.sums(length)[0] == pytest.approx([exposure[name] for name in design.names], abs=1e-9)
    happened = (joint.event == len(plain.risks)).astype(float)
    assert design.sums(happened)[0] == pytest.approx([events[name] for name in design.names], abs=1e-9)
    found = np.bincount(joint.person, length, minlength=joint.persons)
    assert found.tolist() == [by_person[i] for i in range(joint.persons)]


def test_returns_follow_from_the_next_spell():
    one = np.array([0, 0, 0, 1, 2])
    spells = Spells(
        one, np.arange(3), np.zeros(5, int), np.array([5, 3, 4, 6, 2]), np.array([0, 0, -1, 0, 1]), ("work", "other"),
        np.array([100, 110, 112, 100, 100]), dense(np.zeros((5, 0)), ()), (), np.arange(3), np.arange(3),
    )  # fmt: skip
    after = Afterwards.of(spells, last=115)
    assert after.spell.tolist() == [0, 1, 3]
    assert after.stop.tolist() == [6, 1, 10]
    assert after.returned.tolist() == [True, True, False]
    assert Afterwards.of(spells, last=105).spell.tolist() == [0, 1]
    with pytest.raises(DataError) as error:
        Afterwards.of(spells, 115, "study")
    assert error.value.faults[0].code == "duration.cause_unknown"


def test_what_cannot_come_after_is_refused():
    spells = drawn(100, 23)
    layout = Layout(spells, PLAIN)
    h = layout.histories()
    work = np.flatnonzero(spells.cause == 0)
    job = Afterwards(work, np.full(len(work), 3), np.ones(len(work), bool))
    codes = []
    for make in (
        lambda: Afterwards(work[[0, 0]], np.array([1, 0]), np.ones(2, bool)),
        lambda: with_afterwards(h, layout, replace(job, cause="study")),
        lambda: with_afterwards(h, layout, replace(job, cause="education")),
        lambda: with_afterwards(h, layout, replace(job, returned=np.zeros(len(work), bool))),
        lambda: with_afterwards(h, layout, job, before=False),
        lambda: replace(job, duration=(3, 2)),
    ):
        with pytest.raises(EvalkitError) as error:
            make()
        codes.append([fault.code.removeprefix("duration.") for fault in error.value.faults])
    assert codes == [
        ["zero_length", "afterwards_twice"], ["cause_unknown"], ["afterwards_cause"], ["afterwards_none"],
        ["spells_other_histories"], ["bounds"],
    ]  # fmt: skip


# -- known truths -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """Monthly law: exits to work, an earlier instrument ("first") and a later one that needs it ("second").

    ``first``, ``second``: what they add to the log rate of work, the second beyond the first; ``meeting``: by number
    (1, 2 and more) and, in the month itself, more. ``slope``: of a covariate, on work, on first, on second.
    """

    size: int
    seed: int
    first: float = 0.3
    second: float = 0.6
    meeting: tuple[float, float, float] | None = None
    slope: tuple[float, float, float] = (0.5, 0.4, -0.3)
    rates: tuple[float, float, float] = (-3.0, -2.8, -1.8)
    longest: int = 24

    def draw(self) -> Spells:
        rng = np.random.default_rng(self.seed)
        n = self.size
        x = rng.integers(0, 2, n) - 0.5
        alive = np.ones(n, bool)
        stop, cause = np.full(n, self.longest), np.full(n, -1)
        start = [np.full(n, NEVER), np.full(n, NEVER)]
        held, count, last = [], np.zeros(n, int), np.full(n, -99)
        for month in range(self.longest):
            rate = self.rates[0] + self.slope[0] * x + self.first * (start[0] <= month)
            rate = rate + self.second * (start[1] <= month)
            if self.meeting is not None:
                rate = rate + np.where(count > 0, np.array(self.meeting)[np.clip(count, 1, 2) - 1], 0.0)
                rate = rate + np.where(last == month, self.meeting[2], 0.0)
            leaves = alive & (rng.random(n) < -np.expm1(-np.exp(rate)))
            stop[leaves], cause[leaves] = month + 1, 0
            alive &= ~leaves
            can = [start[0] == NEVER, (start[0] <= month) & (start[1] == NEVER)]
            for j in range(2):
                rate = self.rates[j + 1] + self.slope[j + 1] * x
                begins = alive & can[j] & (rng.random(n) < -np.expm1(-np.exp(rate)))
                start[j][begins] = month + 1
            meets = alive & (rng.random(n) < 0.15)
            if self.meeting is not None:
                held.append(np.column_stack([np.flatnonzero(meets), np.full(meets.sum(), month + 1)]))
                count[meets] += 1
                last[meets] = month + 1
        zero = np.zeros(n, int)
        made = (
            Instrument("first", start[0], zero, "start", ()),
            Instrument("second", start[1], zero, "start", (), after="first"),
        )
        again = ()
        if self.meeting is not None:
            spell, when = np.concatenate(held).T
            again = (Repeated("meeting", spell, when, orders=2, recency=(1,)),)
        return Spells(
            np.arange(n), np.arange(n), zero, stop, cause, ("work",), zero + 24_000, dense(x[:, None], ["x"]), made,
            np.arange(n), np.arange(n), "person", again,
        )  # fmt: skip


def off(fit, truth: dict[str, float]) -> dict[str, float]:
    """How many standard errors each is away from the truth."""
    at = {label: place for place, label in enumerate(fit.labels)}
    error = fit.std_error
    return {name: float((fit.packed[at[name]] - value) / error[at[name]]) for name, value in truth.items()}


def test_warning_and_enforcement_are_recovered():
    law = Law(20_000, 31)
    layout = Layout(law.draw(), Timeline((6,)))
    fit = fit_hazards(layout.histories())
    truth = {
        "work:first 0+": 0.3, "work:second 0+": 0.6, "work:x": 0.5, "work:month 6+": 0.0, "work:point 1": -3.0,
        "start first:x": 0.4, "start first:point 1": -2.8, "start second:x": -0.3, "start second:point 1": -1.8,
    }  # fmt: skip
    away = off(fit, truth)
    assert max(map(abs, away.values())) < MONTE_CARLO, away
    assert fit.std_error[fit.labels.index("work:second 0+")] < 0.06
    loose = Layout(
        replace(layout.spells, instruments=tuple(replace(e, after="") for e in layout.spells.instruments)),
        layout.timeline,
    )
    with pytest.raises(DesignError) as error:
        fit_hazards(loose.histories())
    assert error.value.faults[0].code == "duration.hazards_separated"


def test_meetings_by_number_and_recency_are_recovered():
    law = Law(15_000, 33, first=0.0, second=0.0, meeting=(0.2, 0.5, 0.4))
    spells = law.draw()
    fit = fit_hazards(Layout(spells, Timeline(())).histories())
    truth = {
        "work:meeting month 0": 0.6, "work:meeting month 1+": 0.2, "work:meeting 2+": 0.3, "work:first 0+": 0.0,
        "work:second 0+": 0.0, "work:x": 0.5,
    }  # fmt: skip
    away = off(fit, truth)
    assert max(map(abs, away.values())) < MONTE_CARLO, away
    assert fit.std_error[fit.labels.index("work:meeting 2+")] < 0.08


@pytest.mark.parametrize("threat", [0.0, 0.4])
def test_a_referral_of_its_own_tells_anticipation_and_a_lead_does_not(threat):
    """Nobody leaves in the months before his own start, whatever he does on hearing of it."""
    spells = Law(15_000, 35, first=threat, second=-0.5).draw()
    fit = fit_hazards(Layout(spells, Timeline(())).histories())
    away = off(fit, {"work:first 0+": threat, "work:second 0+": -0.5})
    assert max(map(abs, away.values())) < MONTE_CARLO, away
    start = spells.started[1]
    lead = (start < NEVER) & (spells.stop <= start) & (spells.cause == 0)
    assert (start < NEVER).sum() > 4000
    assert lead.sum() == 0


def test_the_registered_end_shows_an_effect_where_there_is_none():
    """Half of those who find work during the programme leave it in the month before; the programme does nothing."""
    law = Law(20_000, 37, first=0.0, second=0.0, rates=(-3.0, -2.5, -9.0))
    spells = law.draw()
    rng = np.random.default_rng(1)
    start, length = spells.started[0], np.full(len(spells), 6)
    early = (
        (spells.cause == 0) & (start + 1 < spells.stop) & (spells.stop <= start + 6) & (rng.random(len(spells)) < 0.5)
    )
    registered = np.where(early, spells.stop - 1 - start, length)
    found = {}
    for name, months in (("planned", length), ("registered", registered)):
        one = Instrument("first", spells.instruments[0].start, months, "end", (6,), modelled=False)
        fit = fit_hazards(Layout(replace(spells, instruments=(one,)), Timeline(())).histories())
        found[name] = off(fit, {f"work:{phase}": 0.0 for phase in one.phases})
    assert max(map(abs, found["planned"].values())) < MONTE_CARLO
    assert found["registered"]["work:first during"] < -5
    assert found["registered"]["work:first after 0-5"] > 5


def test_leaving_starting_and_returning_with_the_same_hidden_differences():
    """Two groups: who leaves late starts sooner and returns sooner; the start shortens benefit and lengthens jobs."""
    rng = np.random.default_rng(39)
    n, longest, job = 6_000, 30, 30
    group = rng.integers(0, 2, n)
    x = rng.integers(0, 2, n) - 0.5
    add = np.where(group[:, None], [0.8, -0.5, -0.8], [-0.8, 0.5, 0.8])
    alive, start = np.ones(n, bool), np.full(n, NEVER)
    stop, cause = np.full(n, longest), np.full(n, -1)
    for month in range(longest):
        leaves = alive & (rng.random(n) < -np.expm1(-np.exp(-2.6 + 0.5 * x + 0.4 * (start <= month) + add[:, 0])))
        stop[leaves], cause[leaves] = month + 1, 0
        alive &= ~leaves
        begins = alive & (start == NEVER) & (rng.random(n) < -np.expm1(-np.exp(-2.6 - 0.3 * x + add[:, 1])))
        start[begins] = month + 1
    own = np.flatnonzero(cause == 0)
    rate = np.exp(-3.0 - 0.4 * x[own] - 0.5 * (start[own] < stop[own]) + add[own, 2])
    time = rng.geometric(-np.expm1(-rate))
    zero, people = np.zeros(n, int), np.arange(n)
    instrument = Instrument("training", start, zero, "start", ())
    spells = Spells(
        people, people, zero, stop, cause, ("work",), zero + 24_000, dense(x[:, None], ["x"]), (instrument,), people,
        people,
    )  # fmt: skip
    layout = Layout(spells, Timeline(()))
    after = Afterwards(own, np.minimum(time, job), time <= job, duration=(), length=(), phases="started")
    histories = with_afterwards(layout.histories(), layout, after)
    truth = {
        "work:training 0+": 0.4,
        "return:training": -0.5,
        "return:x": -0.4,
        "work:x": 0.5,
        "start training:x": -0.3,
    }
    plain = off(fit_hazards(histories), truth)
    assert abs(plain["return:training"]) > 8
    fit = npmle(histories, points=2).last
    assert fit.risks == ("work", "start training", "return")
    away = off(fit, truth)
    assert max(map(abs, away.values())) < MONTE_CARLO, away
    low = int(np.argmin(fit.points[:, 0]))
    assert fit.points[low] == pytest.approx([-3.4, -2.1, -2.2], abs=0.3)
    answered = answers(layout, fit, horizon=6).of["work"]
    assert answered.effect[-1] > 3 * answered.std_error[-1]
