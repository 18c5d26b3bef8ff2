"""Instruments by hand: what is one episode, when a combination starts, which event is the second, who is compared."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from instruments_example import EPISODE, INSTRUMENTS, episode, frames, protocol, read, text_of
from test_sample_twin import entries_of, flow_of

from evalkit import register
from evalkit.calendar import NEVER, day_number
from evalkit.errors import DesignError, StudyError
from evalkit.sample.instruments import Episodes, combined, joined, numbered
from evalkit.sample.spells import intervals
from evalkit.study import Instrument, parse


def n(day: str | None) -> int:
    return int(NEVER) if day is None else day_number(dt.date.fromisoformat(day))


def s(number: int) -> str | None:
    return None if number >= NEVER else str(np.datetime64(int(number), "D"))


def rows(*found: tuple, clock: str = "start") -> Episodes:
    """(person, start, end, planned end, referral), what is missing left out."""
    full = [(*row, *[None] * (5 - len(row))) for row in found]
    start, end, planned, referral = (np.array([n(row[i]) for row in full], np.int64) for i in range(1, 5))
    person = np.array([row[0] for row in full], np.int64)
    day = referral if clock == "referral" else start
    return Episodes(person, day, start, end, end, planned, referral, np.arange(len(full)))


def shown(made: Episodes, *columns: str) -> list[tuple]:
    return [(int(p), *(s(getattr(made, c)[i]) for c in columns)) for i, p in enumerate(made.person)]


# -- one episode ----------------------------------------------------------------------------------------------------


def test_rows_that_overlap_or_follow_are_one():
    found = rows(
        (1, "2016-01-01", "2016-03-31"),
        (1, "2016-03-01", "2016-05-31"),  # overlaps
        (1, "2016-06-01", "2016-06-30"),  # the next day
        (1, "2016-07-02", "2016-07-31"),  # a day between
        (2, "2016-08-01", "2016-08-31"),  # someone else
    )
    made, part = joined(found, Instrument(name="a"))
    assert shown(made, "start", "end") == [
        (1, "2016-01-01", "2016-06-30"),
        (1, "2016-07-02", "2016-07-31"),
        (2, "2016-08-01", "2016-08-31"),
    ]
    assert part.tolist() == [0, 0, 0, 1, 2] and made.row.tolist() == [0, 3, 4]
    wider, _ = joined(found, Instrument(name="a", join_gap_days=1))
    assert shown(wider, "start", "end")[0] == (1, "2016-01-01", "2016-07-31")
    as_is, _ = joined(found, Instrument(name="a", join_gap_days=None))
    assert len(as_is) == 5


def test_what_lies_inside_does_not_shorten_and_open_rows_hold_what_follows():
    made, _ = joined(
        rows((1, "2016-01-01", "2016-12-31"), (1, "2016-02-01", "2016-02-28"), (1, "2016-12-31", "2017-01-31")),
        Instrument(name="a"),
    )
    assert shown(made, "start", "end") == [(1, "2016-01-01", "2017-01-31")]
    made, _ = joined(rows((1, "2016-01-01"), (1, "2018-01-01", "2018-02-28")), Instrument(name="a"))
    assert shown(made, "start", "end", "until") == [(1, "2016-01-01", None, None)]


def test_the_plan_is_the_first_and_the_referral_the_earliest():
    made, _ = joined(
        rows(
            (1, "2016-01-01", "2016-03-31", "2016-03-31", None),
            (1, "2016-04-01", "2016-05-31", "2016-06-30", "2016-03-20"),
            (1, "2016-05-01", "2016-05-02", None, "2016-04-20"),
        ),
        Instrument(name="a"),
    )
    assert shown(made, "planned_end", "referral", "end") == [(1, "2016-03-31", "2016-03-20", "2016-05-31")]
    twice = rows(
        (1, "2016-01-01", None, None), (1, "2016-01-01", None, "2016-04-30")
    )  # of two first rows the known one
    assert shown(joined(twice, Instrument(name="a"))[0], "planned_end") == [(1, "2016-04-30")]


def test_an_open_end_is_assumed_for_who_is_in_it_only():
    listed = Instrument(name="a", open_end_months=6)
    made, _ = joined(rows((1, "2016-01-31"), (2, "2016-01-01", "2016-02-29")), listed)
    assert shown(made, "end", "until") == [(1, None, "2016-07-30"), (2, "2016-02-29", "2016-02-29")]
    made, _ = joined(rows((1, "2016-01-01"), (1, "2016-07-02", "2016-08-01")), listed)
    assert shown(made, "start", "end") == [(1, "2016-01-01", None), (1, "2016-07-02", "2016-08-01")]
    made, _ = joined(rows((1, "2016-01-01"), (1, "2016-07-01", "2016-08-01")), listed)  # follows on 30 June
    assert shown(made, "start", "end", "until") == [(1, "2016-01-01", None, "2016-08-01")]


def test_events_of_a_day_are_one_and_have_no_end():
    listed = Instrument(name="a", kind="event")
    made, part = joined(rows((1, "2016-01-01", "2016-05-01"), (1, "2016-01-01"), (1, "2016-01-02")), listed)
    assert shown(made, "start", "end", "until") == [
        (1, "2016-01-01", "2016-01-01", "2016-01-01"),
        (1, "2016-01-02", "2016-01-02", "2016-01-02"),
    ]
    assert part.tolist() == [0, 0, 1]


def test_a_referral_without_a_start_stays_by_itself():
    found = rows((1, None, None, None, "2016-01-01"), (1, "2016-03-01", "2016-04-01", None, "2016-02-01"))
    made, _ = joined(found, Instrument(name="a", join_gap_days=366), "referral")
    assert shown(made, "day", "start") == [(1, "2016-01-01", None), (1, "2016-02-01", "2016-03-01")]


# -- combinations ---------------------------------------------------------------------------------------------------


def test_a_combination_starts_with_the_last_of_its_parts():
    one = rows((1, "2016-01-31", "2016-12-31"), (2, "2016-01-31", "2016-02-10"), (3, "2016-05-01"), (4, "2016-05-01"))
    other = rows((1, "2016-04-29", "2016-06-30"), (2, "2016-04-30", "2016-05-31"), (3, "2016-05-01", "2016-05-31"))
    made = combined([one, other], 3)
    # 31 January + 3 months = 30 April: the day before counts, the day itself does not; parts need not overlap
    assert shown(made, "day", "start", "end") == [
        (1, "2016-04-29", "2016-04-29", "2016-12-31"),
        (3, "2016-05-01", "2016-05-01", None),
    ]
    assert shown(combined([other, one], 3), "day") == shown(made, "day")
    assert combined([one, rows()], 3).day.tolist() == []
    assert made.row.tolist() == [0, 2]  # the row of the part that completes it


def test_the_latest_of_a_part_counts_and_a_further_combination_needs_all_anew():
    one = rows((1, "2016-01-01"), (1, "2016-06-01"), (1, "2016-09-01"))
    other = rows((1, "2016-06-15"), (1, "2016-06-20"), (1, "2016-09-15"))
    made = combined([one, other], 1)
    # 15 June with 1 June; 20 June has no new one beside it; 15 September with 1 September
    assert shown(made, "day") == [(1, "2016-06-15"), (1, "2016-09-15")]
    three = combined([one, other, rows((1, "2016-09-20"))], 1)
    assert shown(three, "day") == [(1, "2016-09-20")]


def test_the_clock_of_a_combination_may_be_the_last_referral():
    one = rows((1, "2016-03-01", None, None, "2016-01-10"), (2, "2016-03-01", None, None, None), clock="referral")
    other = rows(
        (1, "2016-02-01", None, None, "2016-01-20"), (2, "2016-03-01", None, None, "2016-02-01"), clock="referral"
    )
    made = combined([one, other], 1)
    assert shown(made, "day", "start", "referral") == [(1, "2016-01-20", "2016-03-01", "2016-01-20")]
    by_start = combined([rows((2, "2016-03-01")), rows((2, "2016-03-01", None, None, "2016-02-01"))], 1)
    assert shown(by_start, "day", "referral") == [(2, "2016-03-01", None)]  # one of the referrals is not known


# -- the n-th of a type ---------------------------------------------------------------------------------------------


def test_the_second_event_within_a_benefit_spell():
    spells = intervals(
        *(
            np.array(c)
            for c in (
                [1, 1, 2],
                [n("2016-01-01"), n("2016-06-01"), n("2016-01-01")],
                [n("2016-04-30"), int(NEVER), n("2016-04-30")],
            )
        )
    )
    found = rows(
        (1, "2015-12-31"),  # before the spell
        (1, "2016-01-01"),  # first, on the first day
        (1, "2016-04-30"),  # second, on the last day
        (1, "2016-05-10"),  # between spells
        (1, "2016-07-01"), (1, "2016-07-01"),  # first of the next spell, twice
        (1, "2016-08-01"), (1, "2016-09-01"),
        (2, "2016-02-01"),
    )  # fmt: skip
    made, before = numbered(found, 2, spells)
    assert shown(made, "day") == [(1, "2016-04-30"), (1, "2016-08-01")]
    assert [s(day) for day in before] == ["2016-01-01", "2016-07-01", "2016-02-01"]
    made, before = numbered(found, 3, spells)
    assert shown(made, "day") == [(1, "2016-09-01")]
    assert [s(day) for day in before] == ["2016-04-30", "2016-08-01", None]


# -- who is compared ------------------------------------------------------------------------------------------------

LONG = ("2016-01-01", "2018-12-31")
STAYERS = [(f"z{i}", *LONG) for i in range(4)]


def in_sample(instrument: str, benefits: list[tuple], episodes: list[dict], **keys):
    made = protocol(instrument, **keys)
    sample = read(made, frames([*benefits, *STAYERS], episodes))[1]
    return entries_of(sample), sample


def test_parts_of_a_combination_are_no_other_instrument():
    episodes = [
        episode("a", "training", "2016-02-10", "2016-12-31"),
        episode("a", "coaching", "2016-03-10", "2016-06-30"),
        episode("b", "coaching", "2016-02-10", "2016-12-31"),  # has begun one part only: may start the whole
    ]
    entries, sample = in_sample("both", [("a", *LONG), ("b", *LONG)], episodes)
    assert {k: v[:2] for k, v in entries.items() if v[0]} == {("a", 0, 2): (1, dt.date(2016, 3, 10))}
    assert ("b", 0, 2) in entries and entries["b", 0, 2][3] is None
    assert sample.flow[0].reason == "all_starts" and sample.flow[0].entries == 1
    # for training alone coaching is another instrument
    entries, _ = in_sample("training", [("a", *LONG), ("b", *LONG)], episodes)
    assert ("b", 0, 1) not in entries


def test_another_instrument_still_counts_beside_a_combination():
    episodes = [
        episode("a", "training", "2016-02-10", "2016-12-31"),
        episode("a", "coaching", "2016-03-10", "2016-06-30"),
        episode("a", "meeting", "2016-03-10"),
    ]
    with pytest.raises(DesignError):
        in_sample("both", [("a", *LONG)], episodes)
    entries, _ = in_sample("both", [("a", *LONG)], episodes, other="include")
    assert ("a", 0, 2) in entries


def test_an_event_keeps_nobody_in_it_beyond_its_day():
    episodes = [
        episode("a", "training", "2016-02-10", "2016-04-30"),
        episode("a", "meeting", "2016-02-09"),  # the day before
        episode("b", "training", "2016-02-10", "2016-04-30"),
        episode("b", "meeting", "2016-02-10"),  # the very day
    ]
    entries, sample = in_sample("training", [("a", *LONG), ("b", *LONG)], episodes)
    assert {k for k, v in entries.items() if v[0]} == {("a", 0, 1)}
    assert ("other_instrument", 1, 1) in flow_of(sample, "treated")
    # had it been an episode without an end, it would have lasted for ever
    plain = INSTRUMENTS.replace('kind = "event"\n', "").split('[[instrument]]\nname = "second')[0]
    with pytest.raises(DesignError):
        in_sample("training", [("a", *LONG), ("b", *LONG)], episodes, instruments=plain)


def test_the_same_event_may_come_again_and_is_no_start_of_the_spell():
    episodes = [episode("a", "meeting", day) for day in ("2016-02-10", "2016-02-10", "2016-03-10")]
    entries, sample = in_sample("meeting", [("a", *LONG)], episodes)
    assert {k for k, v in entries.items() if v[0]} == {("a", 0, 1)}
    assert ("not_first_start", 0, 1) in flow_of(sample, "treated")


def test_only_those_who_had_the_first_may_have_the_second():
    episodes = [
        episode("a", "meeting", "2016-02-10"),
        episode("a", "meeting", "2016-04-10"),
        episode("b", "meeting", "2016-01-05"),
        episode("c", "meeting", "2016-04-30"),
    ]
    people = [(p, *LONG) for p in "abc"]
    entries, sample = in_sample("second_meeting", people, episodes)
    assert {k[0] for k, v in entries.items() if v[0]} == {"a"} and entries["a", 0, 3][1] == dt.date(2016, 4, 10)
    assert {k[0] for k, v in entries.items() if not v[0]} == {"b"}
    out = dict((reason, count) for reason, _, count in flow_of(sample, "comparison"))
    assert out["previous_event"] > 0


def test_extensions_are_no_second_start():
    episodes = [
        episode("a", "training", "2016-02-10", "2016-04-30"),
        episode("a", "training", "2016-05-05", "2016-06-30"),  # within a week
    ]
    spells = [("a", "2016-01-01", "2016-05-01"), ("a", "2016-05-03", "2018-12-31")]
    entries, sample = in_sample("training", spells, episodes)
    assert {k for k, v in entries.items() if v[0]} == {("a", 0, 1)}
    assert sample.flow[0].entries == 1
    entries, sample = in_sample("training", spells, episodes, instruments="")
    assert {k for k, v in entries.items() if v[0]} == {("a", 0, 1), ("a", 1, 0)}


def test_an_assumed_end_frees_people_for_the_comparison():
    episodes = [
        episode("a", "training", "2016-02-10", "2016-04-30"),
        episode("a", "coaching", "2015-06-01"),  # never closed; assumed over after six months
    ]
    entries, _ = in_sample("training", [("a", *LONG)], episodes)
    assert ("a", 0, 1) in entries
    with pytest.raises(DesignError):
        in_sample("training", [("a", *LONG)], episodes, instruments=INSTRUMENTS.replace("open_end_months = 6\n", ""))


def test_instruments_are_at_hand_in_python():
    episodes = [
        episode("a", "training", "2016-02-10", "2016-04-30"),
        episode("a", "coaching", "2016-02-20", "2016-03-31"),
    ]
    _, sample = in_sample("training", [("a", *LONG)], episodes, other="include")
    assert list(sample.instruments.named) == ["training", "coaching", "meeting", "both", "second_meeting"]
    assert sample.instruments.plain == ("training", "coaching", "meeting")
    assert s(sample.instruments["both"].day[0]) == "2016-02-20"


# -- the register ---------------------------------------------------------------------------------------------------


def test_columns_of_episodes_have_a_fixed_kind():
    made = protocol()
    known = dict(provider="Acme", caseworker="007", cost=1200.5, hours=40.0)
    found = register.from_frames(made, **frames([("a", *LONG)], [episode("a", "training", "2016-02-10", **known)]))
    arrays = found.arrays("episodes")
    assert {name: arrays[name][0] for name in known} == known
    assert arrays["cost"].dtype == float and arrays["provider"].dtype == object
    short = protocol(columns=', end = "b"')
    tables = frames([("a", *LONG)], [episode("a", "training", "2016-02-10")])
    tables["episodes"] = tables["episodes"][EPISODE[:4]]
    assert "provider" not in register.from_frames(short, **tables).arrays("episodes")


def test_the_end_of_an_event_is_ignored_whatever_it_is():
    tables = frames(
        [("a", *LONG)],
        [
            episode("a", "meeting", "2016-02-10", "2016-01-01"),  # before the start
            episode("a", "meeting", "2016-03-10", "2019-01-01"),
            episode("a", "meeting", "2014-03-10"),  # before the window
            episode("a", "training", "2016-02-10", "2016-01-01"),
        ],
    )
    found = register.from_frames(protocol(), **tables)
    kept = found.arrays("episodes")
    assert [str(day) for day in kept["end"]] == ["2016-02-10", "2016-03-10"]
    assert {q.code: q.rows for q in found.quarantine} == {"end_before_start": 1, "outside_window": 1}
    assert not {c.code for c in found.findings} & {"episode_one_day", "episode_never_closed", "ends_on_last"}


ONLY_MEETINGS = '[[instrument]]\nname = "meeting"\nkind = "event"\n'


def test_events_alone_need_no_column_for_the_end():
    text = text_of("meeting", ONLY_MEETINGS, columns="")
    with pytest.raises(StudyError) as missing:
        parse(text)
    assert [fault.code for fault in missing.value.faults] == ["study.missing_key"]
    made = parse(text.replace('training = ["T"], coaching = ["C"], ', ""))
    tables = frames([("a", *LONG), *STAYERS], [episode("a", "meeting", "2016-02-10")])
    tables["episodes"] = tables["episodes"][["person", "type", "start"]]
    entries = entries_of(read(made, tables)[1])
    assert ("a", 0, 1) in entries


def test_starters_of_the_checks_are_those_of_the_instrument():
    episodes = [
        episode("a", "training", "2016-02-10", "2016-04-30"),
        episode("a", "coaching", "2016-03-10", "2016-04-30"),
        episode("b", "training", "2016-02-10", "2016-04-30"),
        episode("c", "meeting", "2016-02-10"),
        episode("c", "meeting", "2016-03-10"),
        episode("d", "meeting", "2016-02-10"),
    ]
    people = [(p, *LONG) for p in "abcd"]
    wanted = {"training": "ab", "both": "a", "meeting": "cd", "second_meeting": "c"}
    for instrument, who in wanted.items():
        found = register.from_frames(protocol(instrument), **frames(people, episodes))
        assert sorted(found.survey.started.select("person").collect()["person"].to_list()) == list(who)


# -- the worked example of the page ---------------------------------------------------------------------------------

EXAMPLE = """
[[instrument]]
name = "training"
join_gap_days = 14
[[instrument]]
name = "coaching"
open_end_months = 24
[[instrument]]
name = "meeting"
kind = "event"
[[instrument]]
name = "both"
combine = ["training", "coaching"]
within_months = 3
[[instrument]]
name = "second_meeting"
of = "meeting"
order = 2
"""
ROWS = [
    episode("a", "training", "2016-02-01", "2016-03-31", planned_end="2016-03-31", referral="2016-01-11"),
    episode("a", "training", "2016-04-10", "2016-06-30", planned_end="2016-06-30"),
    episode("a", "coaching", "2016-04-15", referral="2016-04-01"),
    episode("a", "training", "2016-09-01", "2016-09-30"),
    *(episode("a", "meeting", day) for day in ("2016-01-05", "2016-01-05", "2016-04-20")),
]


def test_the_worked_example():
    spells = [("a", *LONG)]
    entries, sample = in_sample("training", spells, ROWS, instruments=EXAMPLE)
    assert {k[2]: v[1] for k, v in entries.items() if v[0]} == {1: dt.date(2016, 2, 1)}
    assert ("not_first_start", 0, 1) in flow_of(sample, "treated")
    named = sample.instruments.named
    columns = ("start", "end", "planned_end", "referral")
    assert shown(named["training"], *columns)[0][1:] == ("2016-02-01", "2016-06-30", "2016-03-31", "2016-01-11")
    assert shown(named["training"], *columns)[1][1:3] == ("2016-09-01", "2016-09-30")
    assert shown(named["coaching"], "end", "until")[0][1:] == (None, "2018-04-14")
    assert shown(named["both"], "day", "referral") == [(0, "2016-04-15", "2016-04-01")]
    assert shown(named["second_meeting"], "day") == [(0, "2016-04-20")]
    with pytest.raises(DesignError):
        in_sample("coaching", spells, ROWS, instruments=EXAMPLE)  # in training at that moment
    entries, _ = in_sample("coaching", spells, ROWS, instruments=EXAMPLE, other="include")
    assert {v[1] for v in entries.values() if v[0]} == {dt.date(2016, 4, 15)}
    with pytest.raises(DesignError):
        in_sample(
            "second_meeting",
            [*spells, ("b", *LONG)],
            [*ROWS, episode("b", "meeting", "2016-01-05")],
            instruments=EXAMPLE,
        )
