"""Instruments described: hand-worked numbers, what disclosure control hides, and both reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from instruments_example import episode, frames, protocol, read

from evalkit import results
from evalkit.audit import audit
from evalkit.disclosure import protect
from evalkit.errors import DataError, DesignError, DisclosureError
from evalkit.exhibits import Note, Table
from evalkit.report import render
from evalkit.run import analyse, bind_all
from evalkit.sample import describe
from evalkit.text import LANGUAGES, say

LONG = ("2016-01-01", "2018-12-31")
MARKER = "ZZMARKER"
STAYERS = [(f"z{i:02d}", *LONG) for i in range(30)]


def described(benefits: list[tuple], episodes: list[dict], **keys: Any):
    made = protocol(**keys)
    found = describe(*read(made, frames([*benefits, *STAYERS], episodes)))
    tables = {e.id: [dict(row) for row in e.rows] for e in found if isinstance(e, Table)}
    return tables, [e for e in found if isinstance(e, Note)]


def row(tables: dict[str, list[dict]], table: str, instrument: str) -> dict:
    return next(r for r in tables[table] if r["instrument"] == instrument)


def test_how_many_and_how_often():
    tables, _ = described(
        [(p, *LONG) for p in "abc"],
        [
            episode("a", "training", "2016-02-01", "2016-03-31", provider="X", caseworker="1"),
            episode("a", "training", "2016-04-01", "2016-04-30", provider="Y", caseworker="2"),  # an extension
            episode("a", "training", "2016-06-01", "2016-06-30", provider="Z", caseworker="2"),
            episode("b", "training", "2016-02-01", "2016-03-31", provider="X"),
            episode("a", "coaching", "2016-03-01", "2016-03-31"),
            episode("c", "meeting", "2016-03-01"),
            episode("c", "meeting", "2016-03-01"),
        ],
    )
    counts = ("persons", "once", "repeated", "episodes", "providers", "caseworkers")
    assert [(r["instrument"], r["family"], *(r[c] for c in counts)) for r in tables["instruments"]] == [
        ("training", "family.training", 2, 1, 1, 3, 2, 2),
        ("coaching", "own", 1, 1, 0, 1, 0, 0),
        ("meeting", "family.guidance", 1, 1, 0, 1, 0, 0),
        ("both", "family.other", 1, 1, 0, 1, None, None),
        ("second_meeting", "family.guidance", 0, 0, 0, 0, None, None),
    ]


def test_lengths_and_plans_of_first_episodes():
    """Windows ends on 31 December 2019. A month is 30.4375 days."""
    tables, _ = described(
        [(p, *LONG) for p in "abcdefg"],
        [
            episode("a", "training", "2016-02-01", "2016-03-31", planned_end="2016-03-31"),  # 60 days, as planned
            episode("a", "training", "2017-02-01", "2017-02-02", planned_end="2017-12-31"),  # not the first
            episode("b", "training", "2016-02-01", "2016-02-29", planned_end="2016-03-28"),  # a day short of a month
            episode("c", "training", "2016-02-01", "2016-02-29", planned_end="2016-03-29"),  # a month early
            episode("d", "training", "2016-02-01", None, planned_end="2016-03-31"),  # overdue
            episode("e", "training", "2019-11-01", "2019-11-10", planned_end="2020-04-30"),  # not due: not judged
            episode("f", "training", "2019-11-01", "2020-02-28"),  # ends after the window
            episode("g", "training", "2016-02-01", "2016-03-31", planned_end="2016-01-01"),  # a plan before the start
        ],
    )
    (lengths,) = tables["instrument_lengths"]
    assert {k: lengths[k] for k in ("persons", "ended", "open")} == {"persons": 7, "ended": 5, "open": 2}
    days = [60, 29, 29, 10, 60]
    assert lengths["realised_mean"] == pytest.approx(sum(days) / 5 / 30.4375)
    assert lengths["realised_median"] == 1  # 29 days
    (plans,) = tables["instrument_plans"]
    assert plans["planned"] == 5 and plans["planned_median"] == 2
    assert plans["planned_mean"] == pytest.approx((60 + 57 + 58 + 60 + 182) / 5 / 30.4375)
    assert (plans["due"], plans["closed"], plans["overdue"]) == (4, 3, 1)
    assert plans["early"] == 0.25
    assert plans["difference"] == pytest.approx((0 - 28 - 29) / 3 / 30.4375)


def test_waiting_time_cost_and_hours():
    tables, _ = described(
        [(p, *LONG) for p in "abcd"],
        [
            episode("a", "training", "2016-02-11", "2016-03-31", referral="2016-02-01", cost=1000.0, hours=10.0),
            episode("a", "training", "2016-04-01", "2016-04-30", cost=200.0),  # extends it; its hours are not known
            episode("b", "training", "2016-02-11", "2016-03-31", referral="2016-02-11", cost=400.0, hours=30.0),
            episode("c", "training", "2016-02-11", "2016-03-31", referral="2016-03-01"),  # after the start
            episode("d", "meeting", "2016-02-11", referral="2016-02-08"),
        ],
    )
    training = row(tables, "instrument_practice", "training")
    assert training == dict(
        instrument="training", referred=2, delay=5.0, cost_known=2, cost_mean=800.0, hours_known=1, hours_mean=30.0
    )
    meeting = row(tables, "instrument_practice", "meeting")
    assert (meeting["referred"], meeting["delay"], meeting["cost_known"], meeting["cost_mean"]) == (1, 3.0, 0, None)
    bare, _ = described([("a", *LONG)], [episode("a", "training", "2016-02-11")])
    assert "instrument_plans" not in bare and set(bare["instrument_practice"][0]) == {
        "instrument", "cost_known", "cost_mean", "hours_known", "hours_mean",
    }  # fmt: skip


def test_pairs_tell_before_at_once_and_after():
    tables, _ = described(
        [(p, *LONG) for p in "abcdef"],
        [
            episode("a", "training", "2016-02-01", "2016-03-31"),
            episode("a", "coaching", "2016-03-31", "2016-05-31"),  # one day in common
            episode("b", "training", "2016-02-01", "2016-03-31"),
            episode("b", "coaching", "2016-04-01", "2016-05-31"),
            episode("c", "training", "2016-06-01", "2016-07-31"),
            episode("c", "coaching", "2016-04-01", "2016-05-31"),
            episode("d", "training", "2017-01-01", "2017-02-28"),
            episode("d", "coaching", "2016-01-15"),  # open, assumed over after six months
            episode("e", "training", "2016-02-01", "2016-02-29"),
            episode("e", "coaching", "2016-04-01", "2016-05-31"),
            episode("e", "training", "2016-05-15", "2016-06-30"),  # the second training overlaps
            episode("f", "training", "2016-02-01", "2016-02-29"),
            episode("f", "meeting", "2016-02-29"),
        ],
    )
    pairs = {(r["first"], r["second"]): list(r.values())[2:] for r in tables["instrument_pairs"]}
    assert pairs == {
        ("training", "coaching"): [5, 2, 1, 2],
        ("training", "meeting"): [1, 1, 0, 0],
        ("coaching", "meeting"): [0, 0, 0, 0],
    }


def test_what_starters_begin_later():
    """Six months of follow-up; what others begin does not count."""
    tables, _ = described(
        [(p, *LONG) for p in "abc"],
        [
            episode("a", "training", "2016-02-10", "2016-03-31"),
            episode("a", "training", "2016-08-09", "2016-09-30"),  # the last day of month six
            episode("a", "coaching", "2016-02-10", "2016-02-20"),  # the same day is not later
            episode("b", "training", "2016-02-10", "2016-03-31"),
            episode("b", "training", "2016-08-10", "2016-09-30"),  # too late
            episode("b", "meeting", "2016-02-11"),
            episode("c", "coaching", "2016-05-10", "2016-05-20"),
        ],
        other="include",
    )
    assert tables["instrument_later"] == [
        dict(instrument="training", starters=2, later=1, not_later=1),
        dict(instrument="coaching", starters=2, later=0, not_later=2),
        dict(instrument="meeting", starters=2, later=1, not_later=1),
    ]


def test_notes_say_what_an_instrument_is_and_what_is_assumed():
    episodes = [
        episode("a", "training", "2016-02-10"),
        episode("a", "coaching", "2016-03-10"),
        episode("a", "meeting", "2016-02-01"),
        episode("a", "meeting", "2016-03-01"),
    ]
    people = [(p, *LONG) for p in "ab"]
    more = [episode("b", "meeting", "2016-01-10")]
    _, notes = described(people, episodes, instrument="both")
    assert [(n.key, dict(n.params)) for n in notes] == [
        ("instrument_combination", {"instruments": ["training", "coaching"], "months": 3}),
        ("open_end_assumed", {"instruments": ["coaching"], "months": 6}),
        ("open_end_running", {"instruments": ["training"], "months": 24}),
    ]
    _, notes = described(people, [*episodes, *more], instrument="second_meeting", other="include")
    assert (notes[0].key, dict(notes[0].params)) == (
        "instrument_sequence",
        {"instruments": ["meeting"], "order": 2, "before": 1},
    )
    for lang in LANGUAGES:
        assert "24" in say("note.open_end_running", lang, instruments="x", months=24)


def test_types_that_are_not_listed_are_described_as_they_stand():
    tables, _ = described(
        [("a", *LONG)],
        [episode("a", "training", "2016-02-01", "2016-03-31"), episode("a", "training", "2016-04-01", "2016-04-30")],
        instruments="",
    )
    assert tables["instruments"][0]["episodes"] == 2 and tables["instruments"][0]["family"] == "family.training"
    assert [r["instrument"] for r in tables["instruments"]] == ["training", "coaching", "meeting"]


# -- the whole line -------------------------------------------------------------------------------------------------


def many() -> tuple[list[tuple], list[dict]]:
    """Forty in training (four stop early, of thirty-five the cost is known), twelve in coaching, four in meetings."""
    people = [(f"a{i:02d}", *LONG) for i in range(40)] + [(f"b{i:02d}", *LONG) for i in range(16)]
    episodes = []
    for i in range(40):
        end = "2016-03-31" if i < 4 else "2016-07-31"
        cost = 1000.0 + i if i < 35 else None
        known = dict(
            planned_end="2016-07-31",
            referral="2016-01-20",
            cost=cost,
            provider=f"{MARKER}{i % 3}",
            caseworker=f"{MARKER}{i}",
        )
        episodes.append(episode(f"a{i:02d}", "training", "2016-02-10", end, **known))
    episodes += [episode(f"b{i:02d}", "coaching", "2016-02-01", "2016-04-30", cost=500.0) for i in range(12)]
    episodes += [episode(f"b{i:02d}", "meeting", "2016-02-01", cost=50.0) for i in range(12, 16)]
    return people, episodes


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    """The results under an open and under a municipal profile."""
    found = {}
    for profile in ("open", "municipal"):
        made = protocol(disclosure=profile, minimum=10, other="include")
        benefits, episodes = many()
        data, sample = read(made, frames([*benefits, *STAYERS], episodes))
        found[profile] = dict(analyse(made, bind_all(made), data, sample).results.document)
    return found


def table_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in document["exhibits"] if e.get("id") == name)


def test_descriptions_belong_to_no_analysis_and_follow_the_schema(documents):
    schema = json.loads((Path(results.__file__).parent / "results.schema.json").read_text("utf-8"))
    for document in documents.values():
        own = [e for e in document["exhibits"] if not e["analysis"]]
        assert [e["id"] for e in own if e["type"] == "table"] == [
            "observed_spells", "instruments", "instrument_lengths", "instrument_plans", "instrument_practice",
            "instrument_pairs", "instrument_later",
        ]  # fmt: skip
        jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(document)))


def test_a_small_instrument_is_hidden(documents):
    whole, safe = (
        {r["instrument"]: r for r in table_of(documents[p], "instruments")["rows"]} for p in ("open", "municipal")
    )
    assert whole["meeting"]["persons"] == 4 and whole["meeting"]["caseworkers"] == 0
    numbers = {k: v for k, v in safe["meeting"].items() if k not in ("instrument", "family")}
    assert numbers == dict(persons=None, once=None, repeated=0, episodes=None, providers=None, caseworkers=None)
    assert safe["training"]["persons"] == 40 and safe["training"]["providers"] == 3
    practice = {r["instrument"]: r for r in table_of(documents["municipal"], "instrument_practice")["rows"]}
    assert practice["meeting"]["cost_mean"] is None and practice["meeting"]["cost_known"] is None
    assert practice["coaching"]["cost_mean"] == 500 and practice["training"]["cost_mean"] == 1017


def test_a_few_who_stop_early_are_hidden(documents):
    whole, safe = (table_of(documents[p], "instrument_plans")["rows"][0] for p in ("open", "municipal"))
    assert whole["early"] == 0.1 and safe["early"] is None and safe["due"] == 40
    assert documents["municipal"]["disclosure"]["hidden"] > 0


def test_means_of_a_few_go_also_where_their_count_is_not_shown():
    """Means need their count, parts their total: neither can be worked out from the rest of a row."""
    made = protocol(disclosure="municipal", minimum=10, other="include")
    benefits, episodes = many()
    found = describe(*read(made, frames([*benefits, *STAYERS], episodes)))
    shown = [results._exhibit(e, "") for e in found]
    columns = {c["key"]: c for e in shown if e["type"] == "table" for c in e["columns"]}
    for column in columns.values():
        if column["role"] in ("mean", "share", "stat"):
            assert columns[column["support"]]["role"] == "count", column["key"]
    parents = {
        c["parent"]: [o["key"] for o in columns.values() if o["parent"] == c["parent"]] for c in columns.values()
    }
    for parent, parts in parents.items():
        if parent:
            for exhibit in shown:
                for r in exhibit.get("rows", []):
                    if parent in r and all(part in r for part in parts):
                        assert sum(r[part] for part in parts) == r[parent]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_report_shows_them(documents, lang):
    page = render(documents["municipal"], lang)
    own = page[page.index('id="described"') : page.index('id="checks"')]
    for key in ("report.section.described", "exhibit.instrument_plans", "column.cost_mean", "family.guidance"):
        assert say(key, lang) in own, key
    assert ("Scholing" if lang == "nl" else "Training") in own
    assert ("Eigen familie" if lang == "nl" else "A family of its own") in own
    assert "&lt;10" in own and say("report.cell.suppressed", lang) in own
    assert say("report.section.described", lang) not in render(without_description(documents["municipal"]), lang)
    people = page[page.index('id="people"') : page.index('id="trust"')]
    assert say("exhibit.instruments", lang) not in people
    assert "instrument.both.within_months" in page  # the settings, for the referee


def without_description(document: dict[str, Any]) -> dict[str, Any]:
    return document | {"exhibits": [e for e in document["exhibits"] if e["analysis"]]}


def test_two_analyses_leave_the_description_its_title(documents):
    document = json.loads(json.dumps(documents["open"]))
    again = [e | {"analysis": "second"} for e in document["exhibits"] if e["analysis"]]
    document["exhibits"] += again
    page = render(document, "en")
    own = page[page.index('id="described"') : page.index('id="checks"')]
    assert say("exhibit.instruments", "en") + "</h3>" in own


def test_a_description_is_protected_under_every_profile(documents):
    for profile in ("municipal", "cbs", "strict"):
        document = json.loads(json.dumps(documents["open"]))
        document["disclosure"]["profile"] = profile
        safe = protect(document)
        meeting = next(r for r in table_of(safe, "instruments")["rows"] if r["instrument"] == "meeting")
        assert meeting["persons"] is None
        assert profile == "municipal" or meeting["repeated"] is None  # zeros too


def test_no_provider_nor_caseworker_is_named(documents):
    for document in documents.values():
        assert MARKER not in json.dumps(document)
        assert MARKER not in render(document, "nl")


@pytest.mark.parametrize("clock", ["start", "referral"])
def test_any_register_can_be_described(clock):
    """Rows as they come: no start, no referral, ends before plans, types of which nobody has any."""
    rng = np.random.default_rng(1)
    described_at_all = 0
    for _ in range(10):
        benefits, _ = many()
        episodes = []
        for _ in range(int(rng.integers(1, 120))):
            day = [str(np.datetime64("2015-10-01") + int(rng.integers(0, 800))) for _ in range(4)]
            start, end, planned, referral = (d if rng.random() < 0.8 else None for d in day)
            kind = ("training", "coaching", "meeting")[int(rng.integers(rng.integers(1, 4)))]
            person = f"a{int(rng.integers(40)):02d}"
            cost = float(rng.integers(-5, 5)) if rng.random() < 0.7 else None
            episodes.append(episode(person, kind, start, end, planned_end=planned, referral=referral, cost=cost))
        made = protocol(clock=clock, instrument=("training", "both", "second_meeting")[int(rng.integers(3))])
        try:
            found = describe(*read(made, frames([*benefits, *STAYERS], episodes)))
        except (DataError, DesignError):  # nobody starts, or nothing can be read
            continue
        assert found
        described_at_all += 1
        for exhibit in found:
            json.dumps(results._exhibit(exhibit, ""), allow_nan=False)
    assert described_at_all > 2


def test_a_small_count_in_a_description_is_stopped_at_the_door(documents):
    document = json.loads(json.dumps(documents["municipal"]))
    audit(document)
    table_of(document, "instrument_pairs")["rows"][0]["together"] = 3
    with pytest.raises(DisclosureError):
        audit(document)


def test_the_order_of_rows_changes_nothing():
    made = protocol(other="include")
    benefits, episodes = many()
    tables = frames([*benefits, *STAYERS], episodes)
    again = {name: frame.sample(frac=1, random_state=4) for name, frame in tables.items()}
    assert describe(*read(made, tables)) == describe(*read(made, again))
