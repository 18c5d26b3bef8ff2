"""Months and days against dateutil and against counting."""

import datetime as dt

import numpy as np
import pytest
from dateutil.relativedelta import relativedelta

from evalkit import calendar
from evalkit.calendar import NEVER


def dates(days):
    return [dt.date(1970, 1, 1) + dt.timedelta(int(d)) for d in days]


@pytest.fixture(scope="module")
def days():
    """Random days 1950..2100, every month end of twenty years, and leap days."""
    rng = np.random.default_rng(3)
    some = rng.integers(-7305, 47_482, 1500)
    ends = [(dt.date(2000 + m // 12, m % 12 + 1, 1) + relativedelta(day=31)) for m in range(240)]
    leap = [dt.date(y, 2, 29) for y in range(1952, 2100, 4)]
    return np.concatenate([some, [calendar.day_number(d) for d in ends + leap]])


def test_add_months_is_relativedelta(days):
    months = np.random.default_rng(4).integers(-300, 601, len(days))
    added = calendar.add_months(days, months)
    expected = [d + relativedelta(months=int(m)) for d, m in zip(dates(days), months, strict=True)]
    assert dates(added) == expected


def test_add_months_counts_from_the_original_day():
    start = calendar.day_number(dt.date(2023, 1, 31))
    got = dates(calendar.add_months(start, np.arange(4)))
    assert got == [dt.date(2023, 1, 31), dt.date(2023, 2, 28), dt.date(2023, 3, 31), dt.date(2023, 4, 30)]


def test_whole_months_is_the_largest_that_fits(days):
    rng = np.random.default_rng(5)
    later = days + rng.integers(-900, 4000, len(days))
    months = calendar.whole_months(days, later)
    assert (calendar.add_months(days, months) <= later).all()
    assert (calendar.add_months(days, months + 1) > later).all()


def test_whole_months_at_the_boundaries(days):
    for m in (0, 1, 11, 12, 13, 25):
        edge = calendar.add_months(days, m)
        assert (calendar.whole_months(days, edge) >= m).all()
        assert (calendar.whole_months(days, edge - 1) < m).all()


@pytest.mark.parametrize(
    ("start", "day", "months"),
    [
        ("2023-01-31", "2023-02-27", 0),
        ("2023-01-31", "2023-02-28", 1),  # February is over: its last day begins the next month
        ("2024-01-31", "2024-02-28", 0),
        ("2024-01-31", "2024-02-29", 1),
        ("2024-02-29", "2025-02-27", 11),
        ("2024-02-29", "2025-02-28", 12),
        ("2024-02-29", "2028-02-28", 47),
        ("2023-05-10", "2023-05-09", -1),
        ("2023-05-10", "2023-04-10", -1),
        ("2023-05-10", "2023-04-09", -2),
    ],
)
def test_whole_months_by_hand(start, day, months):
    numbers = [calendar.day_number(dt.date.fromisoformat(text)) for text in (start, day)]
    assert int(calendar.whole_months(*numbers)) == months


def test_parts_of_a_date(days):
    when = dates(days)
    assert calendar.month_number(days).tolist() == [(d.year - 1970) * 12 + d.month - 1 for d in when]
    assert calendar.year(days).tolist() == [d.year for d in when]
    assert calendar.quarter_number(days).tolist() == [(d.year - 1970) * 4 + (d.month - 1) // 3 for d in when]
    assert dates(calendar.month_start(calendar.month_number(days))) == [d.replace(day=1) for d in when]


def test_missing_dates_are_never():
    raw = np.array(["2020-01-01", "NaT"], "datetime64[ns]")
    assert calendar.to_days(raw).tolist() == [18262, int(NEVER)]
    assert calendar.day_number(dt.date(2020, 1, 1)) == 18262
