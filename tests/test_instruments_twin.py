"""Instruments and the samples cut for them, against plain loops over persons and dates."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from naive import instruments as naive
from naive import risk_sets as sets
from naive.spells import merge
from sample_example import cut, protocol
from test_sample_twin import FIRST, LAST, REASONS, crooked, entries_of, flow_of, rows_of

from evalkit.calendar import NEVER, day_number
from evalkit.sample.instruments import Episodes, combined, joined, numbered
from evalkit.sample.spells import intervals
from evalkit.study import Instrument, parse

ZERO = dt.date(1969, 6, 1)  # so that some days lie before 1970


def number(day: dt.date | None) -> int:
    return int(NEVER) if day is None else day_number(day)


def date(number: int) -> dt.date | None:
    return None if number >= NEVER else dt.date(1970, 1, 1) + dt.timedelta(int(number))


def random_rows(rng: np.random.Generator, rows: int, span: int = 700) -> list[tuple]:
    """(person, start, end, planned, referral) with gaps of every kind and days that coincide."""

    def some(day: dt.date, chance: float) -> dt.date | None:
        return day if rng.random() > chance else None

    found = []
    for _ in range(rows):
        start = ZERO + dt.timedelta(int(rng.integers(span)))
        length, plan, before = rng.integers(0, [60, 90, 40])
        end = some(start + dt.timedelta(int(length)), 0.15)
        planned = some(start + dt.timedelta(int(plan)), 0.3)
        referral = some(start - dt.timedelta(int(before)), 0.2)
        found.append((int(rng.integers(6)), start if referral is None else some(start, 0.1), end, planned, referral))
    return found


def episodes_of(rows: list[tuple], clock: str) -> Episodes:
    person = np.array([row[0] for row in rows], np.int64)
    start, end, planned, referral = (np.array([number(row[i]) for row in rows], np.int64) for i in range(1, 5))
    day = referral if clock == "referral" else start
    return Episodes(person, day, start, end, end, planned, referral, np.arange(len(rows)))


def plain(made: Episodes, person: int) -> list[tuple]:
    rows = np.flatnonzero(made.person == person)
    columns = (made.start, made.end, made.until, made.planned_end, made.referral)
    return [tuple(date(column[row]) for column in columns) for row in rows]


def own(rows: list[tuple], person: int) -> list[tuple]:
    return [row[1:] for row in rows if row[0] == person]


HOW = {
    "as it stands": dict(join_gap_days=None),
    "touching": dict(join_gap_days=0),
    "a week": dict(join_gap_days=7),
    "open for three months": dict(join_gap_days=3, open_end_months=3),
    "event": dict(kind="event"),
}


@pytest.mark.parametrize("clock", ["start", "referral"])
@pytest.mark.parametrize("how", HOW)
def test_joined_as_in_loops(how, clock):
    instrument = Instrument(name="a", **HOW[how])
    rng = np.random.default_rng(3)
    sizes = []
    for _ in range(60):
        rows = random_rows(rng, int(rng.integers(0, 30)), 300)
        made, part = joined(episodes_of(rows, clock), instrument, clock)
        gap = None if instrument.kind == "event" else instrument.join_gap_days
        for person in range(6):
            mine = own(rows, person)
            expected = naive.joined(mine, gap, instrument.kind == "event", instrument.open_end_months)
            assert sorted(plain(made, person), key=str) == expected
        order = np.lexsort((made.start, made.day, made.person))
        assert np.array_equal(order, np.arange(len(made)))
        assert np.array_equal(made.person[part], [row[0] for row in rows])  # every row is part of one of its person
        assert np.array_equal(part[made.row], np.arange(len(made)))
        shuffled = [rows[i] for i in rng.permutation(len(rows))]
        again, _ = joined(episodes_of(shuffled, clock), instrument, clock)
        for name in set(Episodes.__dataclass_fields__) - {"row"}:
            assert np.array_equal(getattr(made, name), getattr(again, name))
        sizes.append((len(rows), len(made)))
    fewer = sum(a for a, _ in sizes) - sum(b for _, b in sizes)
    assert (fewer == 0) == (how == "as it stands")


@pytest.mark.parametrize("clock", ["start", "referral"])
@pytest.mark.parametrize("months", [1, 4])
@pytest.mark.parametrize("number_of_parts", [2, 3])
def test_combined_as_in_loops(number_of_parts, months, clock):
    rng = np.random.default_rng(months)
    found = 0
    for _ in range(60):
        parts = [random_rows(rng, int(rng.integers(0, 25)), 400) for _ in range(number_of_parts)]
        made = combined([joined(episodes_of(rows, clock), Instrument(name="a"), clock)[0] for rows in parts], months)
        for person in range(6):
            mine = [naive.joined(own(rows, person), 0) for rows in parts]
            expected = naive.combined(mine, months, clock)
            rows = np.flatnonzero(made.person == person)
            got = [tuple(date(c[row]) for c in (made.day, made.start, made.until)) for row in rows]
            assert got == [(naive.day_of(e, clock), e[0], e[2]) for e in expected]
            assert all(e[4] == date(r) for e, r in zip(expected, made.referral[rows], strict=True))
            found += len(got)
    assert found > 10


@pytest.mark.parametrize("clock", ["start", "referral"])
@pytest.mark.parametrize("order", [2, 3])
def test_numbered_as_in_loops(order, clock):
    rng = np.random.default_rng(order)
    found = 0
    for _ in range(60):
        rows = random_rows(rng, 40)
        spells = {}
        for person in range(6):
            cuts = np.sort(rng.choice(900, 6, replace=False))
            days = [ZERO + dt.timedelta(int(cut) - 50) for cut in cuts]
            spells[person] = list(zip(days[::2], [*days[1::2][:2], None], strict=True))  # the last one runs on
        flat = [(p, *spell) for p, own_spells in spells.items() for spell in own_spells]
        held = intervals(
            *(np.array(c, np.int64) for c in zip(*((p, number(a), number(b)) for p, a, b in flat), strict=True))
        )
        made, before = numbered(
            joined(episodes_of(rows, clock), Instrument(name="a", kind="event"), clock)[0], order, held
        )
        for person in range(6):
            mine = naive.joined(own(rows, person), event=True)
            expected, earlier = naive.numbered(mine, order, spells[person], clock)
            assert sorted(plain(made, person), key=str) == sorted(expected, key=str)
            at = np.flatnonzero(held.person == person)
            assert [date(before[i]) for i in at] == [earlier.get(nth) for nth in range(3)]
            found += len(expected)
    assert found > 20


# -- whole samples --------------------------------------------------------------------------------------------------

LISTED = """
[[instrument]]
name = "training"
family = "training"
join_gap_days = 20
open_end_months = 5
[[instrument]]
name = "coaching"
family = "guidance"
open_end_months = 2
"""
BOTH = """
[[instrument]]
name = "both"
combine = ["training", "coaching"]
within_months = 4
"""
MEETINGS = """
[[instrument]]
name = "coaching"
family = "guidance"
kind = "event"
[[instrument]]
name = "second"
of = "coaching"
order = 2
"""
STUDIES = {
    "listed": ("training", LISTED, dict(), dict()),
    "listed, by referral": ("training", LISTED, dict(clock="referral"), dict()),
    "both": ("both", BOTH, dict(eligibility='stock = "include"'), dict(stock=True)),
    "both, listed, by referral": ("both", LISTED + BOTH, dict(clock="referral", follow_up="available"), dict()),
    "second": ("second", MEETINGS, dict(eligibility='stock = "include"'), dict(stock=True)),
    "second, month only": ("second", MEETINGS, dict(within="start_first"), dict(convention="start_first")),
    "second, by referral, merged": ("second", MEETINGS, dict(clock="referral", spells=""), dict(merge_gap=1)),
    "events are others": ("training", MEETINGS, dict(), dict()),
}


def study_of(instrument: str, text: str, **keys):
    made = protocol(seed=5, first=str(FIRST), last=str(LAST), subgroups=text, **keys)
    return parse(made.text.replace('[treatment]\ninstrument = "training"', f'[treatment]\ninstrument = "{instrument}"'))


def instruments_of(study, tables, spells):
    """By name the episodes of every person in plain loops, and what comes before in each spell."""
    rows = rows_of(tables["episodes"], ["person", "type", "start", "end", "referral"])
    made: dict[str, dict[str, list]] = {"training": {}, "coaching": {}}
    for person, kind, start, end, referral in sorted(set(rows), key=str):
        last = start if kind in study.events else end
        if last is None or last >= FIRST:
            made[kind].setdefault(person, []).append((start, end, None, referral))
    for kind, people in made.items():
        listed = study.instrument(kind)
        event, gap = listed.kind == "event", listed.join_gap_days
        made[kind] = {p: naive.joined(r, gap, event, listed.open_end_months) for p, r in people.items()}
    before = {}
    for instrument in study.instruments:
        found: dict[str, list] = {}
        for person in spells:
            parts = [made[part].get(person, []) for part in instrument.parts]
            if instrument.combine:
                found[person] = naive.combined(parts, instrument.within_months, study.time.clock)
            elif instrument.of:
                own, earlier = naive.numbered(parts[0], instrument.order, spells[person], study.time.clock)
                found[person] = own
                before |= {(person, nth): day for nth, day in earlier.items()}
        if instrument.derived:
            made[instrument.name] = found
    return made, before


def twin_of(study, tables, rules):
    """The naive risk sets of a study with instruments of its own."""
    rules = {key: value for key, value in rules.items() if key != "merge_gap"}
    births = dict(rows_of(tables["persons"], ["person", "birth_year"]))
    benefits = rows_of(tables["benefits"], ["person", "start", "end", "reason"])
    benefits = sorted({b for b in benefits if b[2] is None or b[2] >= FIRST}, key=str)
    gap = study.spells.merge_gap_months
    spells = {p: merge(rows, gap, REASONS) for p, rows in sets.spells_of(benefits).items()}
    made, before = instruments_of(study, tables, spells)
    name = study.treatment.instrument
    parts = study.instrument(name).parts
    episodes = []
    for kind in (name, *(other for other in ("training", "coaching") if other not in parts)):
        for person, found in made[kind].items():
            word = "training" if kind == name else "other"
            episodes += [(person, word, start, until, referral) for start, _, until, _, referral in found]
    everyone = [(person, *row) for person, found in spells.items() for row in found]
    plan = sets.Rules(
        seed=5, first=FIRST, last=LAST, look_ahead=gap, clock=study.time.clock,
        before=before if study.instrument(name).of else None,
        complete=study.time.follow_up == "complete", **rules,
    )  # fmt: skip
    return sets.risk_sets(births, everyone, episodes, plan, benefits)


@pytest.fixture(scope="module")
def town():
    return crooked(11, 300)


@pytest.mark.parametrize("name", STUDIES)
def test_samples_as_in_loops(town, name):
    instrument, text, keys, rules = STUDIES[name]
    made = study_of(instrument, text, **keys)
    tables = {**town, "episodes": busy(town["episodes"])} if "coaching" in made.events else town
    sample = cut(made, tables)
    expected, flow = twin_of(made, tables, rules)
    got = entries_of(sample)
    assert got == expected
    starters = sum(v[0] for v in got.values())
    assert starters > 3 and len(got) - starters > 3
    for arm in ("treated", "comparison"):
        assert flow_of(sample, arm) == flow[arm]
    if instrument == "second":
        assert any(reason == "previous_event" for reason, _, _ in flow["comparison"])
    if instrument == "training" and not made.events:
        assert any(reason == "already_in_instrument" for reason, _, _ in flow["comparison"])


def busy(episodes):
    """The same with a second and a third meeting for many, some of them on the same day."""
    meetings = episodes[episodes.type == "coaching"]
    day = np.timedelta64(1, "D")
    more = []
    for seed, shift in enumerate((0, 25, 26, 90)):
        some = meetings.sample(frac=0.4, random_state=seed)
        more.append(some.assign(**{c: some[c] + shift * day for c in ("start", "end", "referral")}))
    found = pd.concat([episodes, *more], ignore_index=True)
    return found[found.start <= str(LAST)]
