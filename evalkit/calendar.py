"""Months and days on whole arrays: the one place where "t0 + k months" is worked out.

Days are int64 numbers of days since 1970-01-01 (what ``datetime64[D]`` holds). Adding months keeps the day of the
month and clips to the month's last day (31 January + 1 month = 28 or 29 February), each time from the original day.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Days = NDArray[np.int64]

NEVER = np.int64(2**40)
"""A day later than any other: a spell that is still open, an event that did not happen."""


def day_number(date: dt.date) -> int:
    """Days since 1970-01-01."""
    return (date - dt.date(1970, 1, 1)).days


def to_days(dates: ArrayLike) -> Days:
    """datetime64 (any unit) to day numbers; NaT becomes NEVER."""
    array = np.asarray(dates).astype("datetime64[D]")
    days = array.astype(np.int64)
    return np.where(np.isnat(array), NEVER, days)


_FIRST, _LAST = -25_567, 84_006  # 1900 to 2199: looked up; other days are worked out
_MONTH_OF_DAY = np.arange(_FIRST, _LAST).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
_FIRST_MONTH = int(_MONTH_OF_DAY[0])
_MONTH_DATES = np.arange(_FIRST_MONTH, _MONTH_OF_DAY[-1] + 1).astype("datetime64[M]").astype("datetime64[D]")
_START_OF_MONTH = _MONTH_DATES.astype(np.int64)


def month_number(days: ArrayLike) -> NDArray[np.int64]:
    """Calendar month as months since January 1970."""
    day = np.asarray(days, np.int64)
    if day.size and day.min() >= _FIRST and day.max() < _LAST:
        return np.asarray(_MONTH_OF_DAY[day - _FIRST])
    return day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def month_start(months: ArrayLike) -> Days:
    """First day of a calendar month counted since January 1970."""
    month = np.asarray(months, np.int64) - _FIRST_MONTH
    if month.size and month.min() >= 0 and month.max() < len(_START_OF_MONTH):
        return np.asarray(_START_OF_MONTH[month])
    return (month + _FIRST_MONTH).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def year(days: ArrayLike) -> NDArray[np.int64]:
    """Calendar year."""
    return month_number(days) // 12 + 1970


def quarter_number(days: ArrayLike) -> NDArray[np.int64]:
    """Calendar quarter as quarters since the first of 1970."""
    return month_number(days) // 3


def add_months(days: ArrayLike, months: ArrayLike) -> Days:
    """``days + months`` with clipping to the last day of the month; broadcasts."""
    start = np.asarray(days, np.int64)
    month = month_number(start)
    offset = start - month_start(month)
    target: Any = month + np.asarray(months, np.int64)
    length = month_start(target + 1) - month_start(target)
    return month_start(target) + np.minimum(offset, length - 1)


def whole_months(start: ArrayLike, day: ArrayLike) -> NDArray[np.int64]:
    """The largest m (may be negative) with ``start + m months <= day``: the elapsed month of ``day``. Broadcasts."""
    first, last = np.broadcast_arrays(np.asarray(start, np.int64), np.asarray(day, np.int64))
    months = month_number(last) - month_number(first)
    return months - (add_months(first, months) > last)
