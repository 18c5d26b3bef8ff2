"""Whole months as narwhals expressions: the rule of ``evalkit.calendar``, month ends included, on any engine."""

from __future__ import annotations

import datetime as dt

import narwhals as nw


def month_number(day: nw.Expr) -> nw.Expr:
    """Calendar month as months since January 1970."""
    return (day.dt.year() * 12 + day.dt.month() - 1970 * 12 - 1).cast(nw.Int32)


def next_day(day: nw.Expr) -> nw.Expr:
    """The day after."""
    return day.dt.offset_by("1d").cast(nw.Date)


def whole_months(month: nw.Expr, day_of_month: nw.Expr, day: nw.Expr) -> nw.Expr:
    """The largest m with ``start + m months <= day``, from the month number and the day of the month of ``start``.

    ``start + m months`` is clipped to the end of its month, so a later day of the month counts in full on the last
    day of a shorter one: 31 January + 1 month is 28 February.
    """
    last_of_month = next_day(day).dt.day() == 1
    short = (day_of_month > day.dt.day()) & ~last_of_month
    return month_number(day) - month - short.cast(nw.Int32)


def months_before(month: nw.Expr, day_of_month: nw.Expr, day: nw.Expr) -> nw.Expr:
    """The smallest m with ``start + m months >= day``: how many whole months have begun before it."""
    return whole_months(month, day_of_month, day.dt.offset_by("-1d").cast(nw.Date)) + 1


def date(day: dt.date) -> nw.Expr:
    """A constant day."""
    return nw.lit(day).cast(nw.Date)
