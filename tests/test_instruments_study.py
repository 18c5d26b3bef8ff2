"""Instruments in the study file: what a good one gives, and every fault with its line and both languages."""

from __future__ import annotations

import pytest
from instruments_example import COLUMNS, INSTRUMENTS, protocol, text_of

from evalkit.errors import StudyError
from evalkit.study import parse, template


def faults(text: str) -> list[tuple[str, str]]:
    with pytest.raises(StudyError) as caught:
        parse(text)
    for fault in caught.value.faults:
        assert fault.text("nl") != fault.text("en") and "{" not in fault.text("nl")
    return [(fault.code, fault.place) for fault in caught.value.faults]


def test_what_a_good_one_gives():
    made = protocol("both")
    assert made.instrument("both").parts == ("training", "coaching")
    assert made.instrument("second_meeting").parts == ("meeting",)
    assert made.instrument("training").join_gap_days == 7
    assert made.instrument("unheard_of").join_gap_days is None  # not listed: nothing is joined
    assert made.events == ("meeting",)
    assert [made.family(name) for name in ("training", "coaching", "both", "second_meeting")] == [
        "training", "own", "other", "guidance",
    ]  # fmt: skip
    assert parse(template("en")).instruments == ()
    assert made.protocol()["instruments"][3]["combine"] == ["training", "coaching"]


BOTH = '\n[[instrument]]\nname = "x"\ncombine = ["training", "coaching"]\n'
THIRD = '\n[[instrument]]\nname = "x"\nof = "meeting"\norder = 3\n'

ONE_FAULT = [
    ('name = "meeting"', 'name = "meting"', "study.not_allowed"),
    ('name = "meeting"', 'name = "training"', "study.duplicate"),
    ('family = "guidance"', 'family = "guidence"', "study.family_unknown"),
    ('kind = "event"', 'kind = "moment"', "study.not_allowed"),
    ('kind = "event"', 'kind = "event"\njoin_gap_days = 3 #^', "study.instrument_key"),
    ('kind = "event"', 'kind = "event"\nopen_end_months = 3 #^', "study.instrument_key"),
    ("join_gap_days = 7", "join_gap_days = -1", "study.out_of_range.at_least"),
    ("join_gap_days = 7", "order = 2", "study.instrument_key"),
    ("open_end_months = 6", "open_end_months = 0", "study.out_of_range.at_least"),
    ("open_end_months = 6", "within_months = 6", "study.instrument_key"),
    ("open_end_months = 6", "open_ends = 6", "study.unknown_key"),
    ("within_months = 3", "within_months = 0", "study.out_of_range.at_least"),
    ("within_months = 3", "within_months = 3\njoin_gap_days = 3 #^", "study.instrument_key"),
    ("within_months = 3", 'within_months = 3\nof = "meeting" #^', "study.instrument_both"),
    ("combine =", 'combine = ["training", "coach"]', "study.not_allowed"),
    ("combine =", 'combine = ["training"]', "study.combine_few"),
    ("combine =", 'combine = ["training", "coaching", "training"]', "study.duplicate"),
    ('name = "both"', 'name = "coaching_"\nkind = "episode" #^', "study.instrument_key"),
    ('name = "both"', 'name = "never"', "study.reserved_name"),
    ('name = "both"', 'name = "both of them"', "study.bad_name"),
    ('of = "meeting"', 'of = "meetings"', "study.not_allowed"),
    ("order = 2", "order = 1", "study.out_of_range.at_least"),
    ("order = 2", 'order = 2\nkind = "event" #^', "study.instrument_key"),
    ("instrument =", 'instrument = "third_meeting"', "study.not_allowed"),
    ("instrument =", 'instrument = "both"\nversus = "boht" #^', "study.not_allowed"),
    ("instrument =", 'instrument = "both"\nversus = "both" #^', "study.versus_itself"),
    ("cluster =", 'cluster = "caseworker"', "study.cluster_of_episodes"),
    ("cluster =", 'cluster = "teem"', "study.not_allowed"),
]


@pytest.mark.parametrize(("old", "new", "code"), ONE_FAULT, ids=[f"{row[2]}:{row[1][:30]}" for row in ONE_FAULT])
def test_one_fault(old, new, code):
    lines = text_of("training").splitlines()
    hit = next(i for i, line in enumerate(lines) if line.startswith(old))
    lines[hit : hit + 1] = new.split("\n")
    marked = [i for i, line in enumerate(lines) if line.endswith("#^")]
    assert faults("\n".join(lines)) == [(code, f"study.toml line {(marked or [hit])[0] + 1}")]


def test_a_name_of_a_type_is_taken_and_the_order_is_asked_for():
    text = text_of(instruments=BOTH.replace('"x"', '"meeting"'))
    assert [code for code, _ in faults(text)] == ["study.instrument_taken"]
    text = text_of(instruments=THIRD.replace("order = 3\n", ""))
    assert [code for code, _ in faults(text)] == ["study.missing_key"]


def test_a_family_of_ones_own_has_a_word_in_every_language():
    text = text_of().replace('[labels.en]\nown = "A family of its own"\n', "")
    assert [code for code, _ in faults(text)] == ["study.family_unknown"]
    parse(text.replace('languages = ["nl", "en"]', 'languages = ["nl"]'))


def test_what_is_made_may_be_studied_and_compared_with():
    for name in ("both", "second_meeting"):
        parse(text_of(name))
        parse(text_of().replace('cluster = "person"', f'versus = "{name}"'))


def test_columns_of_episodes():
    assert parse(text_of(columns=COLUMNS)).data.episodes.columns["caseworker"] == "cw"
    text = text_of(columns=COLUMNS.replace("caseworker =", "case_worker ="))
    assert [code for code, _ in faults(text)] == ["study.unknown_key"]


def test_a_ready_table_has_no_instruments():
    text = """
seed = 1
languages = ["en"]
title = { en = "Did it work?" }
[table]
file = "x.csv"
unit = "id"
treatment = "t"
outcomes = { work = ["w1"] }
[treatment]
instrument = "x"
design = "randomised"
[[outcome]]
name = "work"
kind = "state"
primary = true
[[analysis]]
id = "main"
method = "experiment"
[[instrument]]
name = "x"
"""
    assert faults(text) == [("study.instruments_in_table", "study.toml line 20")]
    parse(text.split("[[instrument]]")[0])
    assert INSTRUMENTS.count("[[instrument]]") == 5
