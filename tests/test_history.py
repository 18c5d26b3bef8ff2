"""What was known before a day: cases worked by hand, and a slow twin on random rows."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from naive.changing import known_before

from evalkit.calendar import NEVER
from evalkit.sample.history import History, history

NONE = -1


def ask(found: History, unit: int, *days: int) -> list[int]:
    return found.as_of(np.full(len(days), unit), np.array(days, np.int64)).tolist()


def test_a_value_counts_from_the_day_after_it_was_known():
    found = history(np.array([0, 0]), np.array([10, 20]))
    assert ask(found, 0, 9, 10, 11, 20, 21, 10_000) == [NONE, NONE, 0, 0, 1, 1]


def test_an_end_leaves_nothing_until_the_next_value():
    found = history(np.array([0, 0]), np.array([10, 20]), np.array([15, NEVER]))  # holds to day 14
    assert ask(found, 0, 11, 15, 16, 20, 21) == [0, 0, NONE, NONE, 1]


def test_a_value_without_an_end_does_not_come_back():
    found = history(np.array([0, 0]), np.array([10, 20]), np.array([NEVER, 30]))
    assert ask(found, 0, 20, 21, 30, 31) == [0, 1, 1, NONE]


def test_a_longer_period_comes_back_when_one_within_it_has_ended():
    found = history(np.array([0, 0]), np.array([10, 20]), np.array([50, 30]))
    assert ask(found, 0, 20, 21, 30, 31, 50, 51) == [0, 1, 1, 0, 0, NONE]


def test_what_is_entered_late_counts_from_then_on_only():
    found = history(np.array([0, 0, 0]), np.array([10, 60, 40]))  # the second began before the third, entered later
    assert ask(found, 0, 11, 40, 41, 60, 61) == [0, 0, 2, 2, 2]
    found = history(np.array([0, 0]), np.array([10, 60]))  # a correction of the first
    assert ask(found, 0, 60, 61) == [0, 1]


def test_a_period_entered_after_its_end_never_counts():
    found = history(np.array([0, 0]), np.array([10, 60]), np.array([NEVER, 31]))
    assert ask(found, 0, 60, 61) == [0, NONE]  # but it does tell that the first is over


def test_what_is_never_known_never_counts():
    found = history(np.array([0, 0, 2]), np.array([10, NEVER, NEVER]))
    assert ask(found, 0, 11, 1_000_000) == [0, 0]
    assert ask(found, 2, 11) == [NONE]


def test_units_do_not_see_each_other():
    found = history(np.array([1, 3]), np.array([10, -20_000]))
    assert [ask(found, unit, 5_000)[0] for unit in (-1, 0, 1, 2, 3, 4)] == [NONE, NONE, 0, NONE, 1, NONE]


def test_nothing_at_all():
    empty = np.empty(0, np.int64)
    assert ask(history(empty, empty), 0, 5) == [NONE]


@pytest.mark.parametrize("seed", range(6))
def test_twin(seed):
    """Random rows of thirty persons, every day of half a year."""
    rng = np.random.default_rng(seed)
    origin = dt.date(2019, 1, 1)
    rows = []
    for person in range(30):
        own = []
        for _ in range(int(rng.integers(0, 7))):
            start = int(rng.integers(0, 150))
            end = start + int(rng.integers(0, 60)) if rng.random() < 0.5 else None
            own.append((start, start + int(rng.integers(-20, 60)), end))
        own.sort(key=lambda row: (row[0], row[1], row[2] if row[2] is not None else 10**6))
        rows += [(person, *row) for row in own]
    unit, start, entered, end = (np.array(column, object) for column in zip(*rows, strict=True))
    over = np.array([NEVER if e is None else e + 1 for e in end], np.int64)
    found = history(unit.astype(np.int64), np.maximum(start, entered).astype(np.int64), over)
    asked = np.arange(-30, 220)
    for person in range(30):
        mine = [i for i, row in enumerate(rows) if row[0] == person]

        def date(number):
            return None if number is None else origin + dt.timedelta(days=int(number))

        plain = [(date(start[i]), date(end[i]), date(entered[i]), i) for i in mine]
        expected = [known_before(plain, date(t)) for t in asked]
        assert ask(found, person, *asked) == [NONE if value is None else value for value in expected]


def test_many_lookups_go_in_pieces(monkeypatch):
    from evalkit.sample import history as module

    rng = np.random.default_rng(1)
    unit = np.sort(rng.integers(0, 50, 300))
    known = rng.integers(0, 1000, 300)
    known = known[np.lexsort((known, unit))]
    found = history(unit, known)
    asked, days = rng.integers(-1, 52, 1000).astype(np.int32), rng.integers(0, 1100, 1000).astype(np.int32)
    whole = found.as_of(asked, days)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert np.array_equal(found.as_of(asked, days), whole)
    assert whole.dtype == np.int32
