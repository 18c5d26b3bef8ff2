"""The rules on days, as data: heaping, breaks in calendar time, codes that drift.

What happened when is counted once in the engine, by day, code and arm; the rules are small functions of those counts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.register.checks.rules import MANY
from evalkit.register.schema import UNKNOWN, Check, Severity, Unit, by_arm, uneven

Counts = NDArray[np.int64]

BUSY = 10
"""Mean a month beneath which a month with nothing says little."""
SIGMAS = 4
"""Standard deviations of a count, beside the half, from which a month differs from its neighbours."""
HALF_YEAR = 6


@dataclass(frozen=True)
class Days:
    """When something happened: rows (n,) of day number, code, starter and count; all within the window.

    ``name`` says what: entries, exits, starts (of the instrument), episodes, episode_ends, jobs. ``names`` are the
    study's fixed codes in the column ``coded``, ``first`` and ``last`` the window, ``horizon`` the months of follow-up
    that the outcomes need, ``layout`` that of the table.
    """

    name: str
    table: str
    column: str
    day: Counts
    code: NDArray[np.object_]
    starter: NDArray[np.bool_]
    count: Counts
    first: int
    last: int
    horizon: int
    coded: str = ""
    names: tuple[str, ...] = ()
    minimum: int = 10
    layout: str = ""

    @cached_property
    def total(self) -> int:
        """How many."""
        return int(self.count.sum())

    @cached_property
    def months(self) -> Counts:
        """How many in each calendar month of the window."""
        first, last = calendar.month_number(np.array([self.first, self.last]))
        return np.bincount(calendar.month_number(self.day) - first, self.count, last - first + 1).astype(np.int64)

    @cached_property
    def whole(self) -> NDArray[np.bool_]:
        """Which of those months lie in the window from their first day to their last."""
        number = calendar.month_number(self.first) + np.arange(len(self.months))
        return (calendar.month_start(number) >= self.first) & (calendar.month_start(number + 1) - 1 <= self.last)

    def rows(self, chosen: NDArray[np.bool_]) -> int:
        """How many on chosen days."""
        return int(self.count[chosen].sum())

    def split(self, chosen: NDArray[np.bool_] | None = None) -> dict[bool, int]:
        """How many on chosen days, or on all, of starters and of others."""
        arms = {arm: self.starter == arm for arm in (True, False)}
        return {arm: self.rows(rows if chosen is None else rows & chosen) for arm, rows in arms.items()}

    def arms(self, chosen: NDArray[np.bool_]) -> dict[str, dict[str, float | None]]:
        """The chosen ones by arm, as a check holds them."""
        return by_arm(self.split(chosen), self.split())


@dataclass(frozen=True)
class Found:
    """What a rule found: how many of how many, and what the sentence needs."""

    count: int
    of: int
    params: Mapping[str, Any]
    unit: Unit = "rows"
    arms: Mapping[str, Mapping[str, float | None]] | None = None


@dataclass(frozen=True)
class DayRule:
    """A code, the days it looks at, how serious it is and how it is found."""

    code: str
    about: tuple[str, ...]
    severity: Severity
    find: Callable[[Days], Found | None]


def _heaped(days: Days, chosen: NDArray[np.bool_], least: float) -> Found | None:
    n = days.rows(chosen)
    return Found(n, days.total, {}, arms=days.arms(chosen)) if days.total >= MANY and n >= least * days.total else None


def _first_of_month(day: Counts) -> NDArray[np.bool_]:
    return np.asarray(calendar.month_start(calendar.month_number(day)) == day)


def starts_on_first(days: Days) -> Found | None:
    """At least half on the first of a month."""
    return _heaped(days, _first_of_month(days.day), 0.5)


def ends_on_last(days: Days) -> Found | None:
    """At least half on the last or the first of a month."""
    return _heaped(days, _first_of_month(days.day + 1) | _first_of_month(days.day), 0.5)


def _new_year(days: Days, later: int) -> Found | None:
    """On the turn of the year three times as many as on another turn of a month, and at least one in fifty.

    ``later``: 1 when what is counted lies on the day before the turn.
    """
    turn, all_turns = days.day + later, np.arange(days.first, days.last + 1) + later
    all_turns = all_turns[_first_of_month(all_turns)]
    years = int((calendar.month_number(all_turns) % 12 == 0).sum())
    on_turn = _first_of_month(turn)
    january = on_turn & (calendar.month_number(turn) % 12 == 0)
    if not 0 < years < len(all_turns):
        return None
    others = days.rows(on_turn & ~january) / (len(all_turns) - years)
    return _heaped(days, january, 0.02) if days.rows(january) / years > 3 * others else None


def starts_on_new_year(days: Days) -> Found | None:
    """Heaped on 1 January, beyond what the firsts of other months show."""
    return _new_year(days, 0)


def ends_on_new_year(days: Days) -> Found | None:
    """Heaped on 31 December."""
    return _new_year(days, 1)


def one_day(days: Days) -> Found | None:
    """One day with more than one in twenty, and five times as many as other busy days."""
    number, at = np.unique(days.day, return_inverse=True)
    if days.total < MANY or len(number) < 2:
        return None
    by_day = np.bincount(at, days.count)
    busiest = np.sort(by_day)[::-1]
    if busiest[0] < 0.05 * days.total or busiest[0] < 5 * np.median(busiest[1:21]):
        return None
    chosen = days.day == number[int(np.argmax(by_day))]
    return Found(days.rows(chosen), days.total, {"month": _month(days, chosen)}, arms=days.arms(chosen))


def _month(days: Days, chosen: NDArray[np.bool_]) -> str:
    """The first month of chosen days as 2019-03."""
    return str(days.day[chosen].min().astype("datetime64[D]").astype("datetime64[M]"))


def _neighbours(days: Days) -> NDArray[np.float64]:
    """Mean of the two months on either side that have any and lie wholly in the window; NaN where too few."""
    whole, months = days.whole, days.months
    mean = np.full(len(months), np.nan)
    for i in np.flatnonzero(whole):
        near = [j for j in (i - 2, i - 1, i + 1, i + 2) if 0 <= j < len(months) and whole[j] and months[j]]
        if len(near) >= 2:
            mean[i] = months[near].mean()
    return mean


def _break(days: Days, odd: NDArray[np.bool_]) -> Found | None:
    found = np.flatnonzero(odd)
    if not len(found):
        return None
    first = np.datetime64(days.first, "D").astype("datetime64[M]") + found[0]
    return Found(len(found), int(days.whole.sum()), {"month": str(first)}, "months")


def none_in_month(days: Days) -> Found | None:
    """Months with nothing since the first with something, in days that have enough of them a month."""
    some = days.months[days.whole & (days.months > 0)]
    begun = np.cumsum(days.months) > 0
    return _break(days, days.whole & begun & (days.months == 0)) if len(some) and some.mean() >= BUSY else None


def drop(days: Days) -> Found | None:
    """Months below half of their neighbours, beyond chance; not the first, in which data may begin slowly."""
    mean = _neighbours(days)
    low = (days.months < mean / 2) & (mean - days.months > SIGMAS * np.sqrt(mean))
    return _break(days, low & (days.months > 0) & (np.arange(len(mean)) > days.whole.argmax()))


def peak(days: Days) -> Found | None:
    """Months above twice their neighbours, beyond chance."""
    mean = _neighbours(days)
    return _break(days, (days.months > 2 * mean) & (days.months - mean > SIGMAS * np.sqrt(np.maximum(mean, BUSY))))


def data_begin_late(days: Days) -> Found | None:
    """Whole months of the window before anything happens, three or more."""
    months = int(calendar.whole_months(days.first, days.day.min())) if days.total >= MANY else 0
    return Found(months, len(days.months), {}, "months") if months >= 3 else None


def data_end_early(days: Days) -> Found | None:
    """Whole months of the window after the last thing happens, three or more."""
    months = int(calendar.whole_months(days.day.max() + 1, days.last + 1)) if days.total >= MANY else 0
    return Found(months, len(days.months), {}, "months") if months >= 3 else None


def follow_up_short(days: Days) -> Found | None:
    """More than half cannot be followed to the horizon."""
    short = calendar.whole_months(days.day, np.int64(days.last + 1)) < days.horizon
    n = days.rows(short)
    return Found(n, days.total, {}) if n > days.total / 2 else None


def _codes(days: Days) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for name in days.names:
        yield name, np.asarray(days.code == name, bool)


def _named(days: Days, names: list[str]) -> Found | None:
    """Codes of the study file that a rule names."""
    if not names:
        return None
    params = {"column": days.coded, "codes": ", ".join(dict.fromkeys(names))}
    return Found(len(names), len(days.names), params, "codes")


def _late(days: Days, names: list[str], backwards: bool) -> Found | None:
    """Codes absent for half a year or more at one end of the data, though common enough to have been expected."""
    if days.total < MANY:
        return None
    day = -days.day if backwards else days.day
    for name, chosen in _codes(days):
        if not chosen.any():
            continue
        edge = day[chosen].min()
        before = days.rows(day < edge)
        rate = days.rows(chosen) / max(days.rows(day >= edge), 1)
        if edge - day.min() >= HALF_YEAR * 30 and rate * before >= 2 * BUSY:
            names.append(name)
    return _named(days, names)


def code_appears(days: Days) -> Found | None:
    """Codes that do not occur before some day."""
    return _late(days, [], backwards=False)


def code_disappears(days: Days) -> Found | None:
    """Codes that do not occur after some day."""
    return _late(days, [], backwards=True)


def code_shift(days: Days) -> Found | None:
    """Codes whose share differs by more than twenty points between two years in a row, and appear in both."""
    year = calendar.year(days.day)
    names = []
    for name, chosen in _codes(days):
        for this in np.unique(year)[1:]:
            sizes = [days.rows(year == y) for y in (this - 1, this)]
            parts = [days.rows(chosen & (year == y)) for y in (this - 1, this)]
            if min(sizes) >= MANY and min(parts) and abs(parts[1] / sizes[1] - parts[0] / sizes[0]) > 0.2:
                names.append(name)
                break
    return _named(days, names)


def code_rare(days: Days) -> Found | None:
    """Codes that occur, but fewer times than the smallest number that is shown."""
    if days.total < MANY:
        return None
    return _named(days, [name for name, chosen in _codes(days) if 0 < days.rows(chosen) < days.minimum])


def code_unused(days: Days) -> Found | None:
    """Codes of the study file that do not occur at all."""
    return _named(days, [name for name, chosen in _codes(days) if not chosen.any()] if days.total >= MANY else [])


def reason_unknown_uneven(days: Days) -> Found | None:
    """The share of unknown destinations differs by more than ten points between the arms, beyond chance."""
    unknown = np.asarray(days.code == UNKNOWN, bool)
    counts, sizes = days.split(unknown), days.split()
    if min(sizes.values()) < MANY / 2 or not uneven(counts, sizes):
        return None
    return Found(days.rows(unknown), days.total, {}, arms=by_arm(counts, sizes))


def reason_one_arm(days: Days) -> Found | None:
    """Destinations that only one arm has, though the other is large enough to have had them."""
    names = []
    sizes = days.split()
    for name, chosen in _codes(days):
        parts = days.split(chosen)
        for arm in (True, False):
            if not parts[arm] and sizes[not arm] and parts[not arm] / sizes[not arm] * sizes[arm] >= 2 * BUSY:
                names.append(name)
    return _named(days, names)


def _since(days: Days, layout: str, first: dt.date) -> Found | None:
    """How many began since a break in a series, when the table has its layout and there are some on either side."""
    day = calendar.day_number(first)
    chosen = days.day >= day
    n = days.rows(chosen)
    if days.layout != layout or not days.first < day <= days.last or not 0 < n < days.total:
        return None
    return Found(n, days.total, {}, arms=days.arms(chosen))


def srg_break_2019(days: Days) -> Found | None:
    """Re-integration provisions from before and after the guidelines of 2019."""
    return _since(days, "srg", dt.date(2019, 1, 1))


def srg_break_2023(days: Days) -> Found | None:
    """Re-integration provisions from before and after the change of system in 2023."""
    return _since(days, "srg", dt.date(2023, 1, 1))


_CODED = ("exits", "episodes")
_EVENTS = ("entries", "exits", "episodes", "jobs")

DAY_RULES: tuple[DayRule, ...] = (
    DayRule("starts_on_first", ("entries", "episodes"), "warn", starts_on_first),
    DayRule("ends_on_last", ("exits", "episode_ends"), "warn", ends_on_last),
    DayRule("starts_on_new_year", ("entries", "episodes"), "warn", starts_on_new_year),
    DayRule("ends_on_new_year", ("exits", "episode_ends"), "warn", ends_on_new_year),
    DayRule("starts_on_one_day", ("entries", "episodes"), "warn", one_day),
    DayRule("ends_on_one_day", ("exits", "episode_ends"), "warn", one_day),
    DayRule("entries_none", ("entries",), "warn", none_in_month),
    DayRule("exits_none", ("exits",), "warn", none_in_month),
    DayRule("starts_none", ("starts",), "warn", none_in_month),
    DayRule("entries_drop", ("entries",), "warn", drop),
    DayRule("exits_drop", ("exits",), "warn", drop),
    DayRule("starts_drop", ("starts",), "warn", drop),
    DayRule("entries_peak", ("entries",), "warn", peak),
    DayRule("exits_peak", ("exits",), "warn", peak),
    DayRule("starts_peak", ("starts",), "info", peak),
    DayRule("jobs_none", ("jobs",), "warn", none_in_month),
    DayRule("jobs_drop", ("jobs",), "warn", drop),
    DayRule("data_begin_late", _EVENTS, "warn", data_begin_late),
    DayRule("data_end_early", _EVENTS, "warn", data_end_early),
    DayRule("follow_up_short", ("starts",), "warn", follow_up_short),
    DayRule("code_appears", _CODED, "warn", code_appears),
    DayRule("code_disappears", _CODED, "warn", code_disappears),
    DayRule("code_shift", _CODED, "warn", code_shift),
    DayRule("code_rare", _CODED, "info", code_rare),
    DayRule("code_unused", _CODED, "info", code_unused),
    DayRule("reason_unknown_uneven", ("exits",), "warn", reason_unknown_uneven),
    DayRule("reason_one_arm", ("exits",), "error", reason_one_arm),
    DayRule("srg_break_2019", ("episodes",), "warn", srg_break_2019),
    DayRule("srg_break_2023", ("episodes",), "warn", srg_break_2023),
)
"""What is looked for in which days."""


def day_checks(days: Days) -> Iterator[Check]:
    """The checks of one kind of days."""
    for rule in DAY_RULES:
        if days.name in rule.about and days.total and (found := rule.find(days)):
            share = found.count / found.of if found.of else 0.0
            params = {"column": days.column, **found.params}
            yield Check(rule.code, rule.severity, days.table, found.count, share, params, found.unit, found.arms or {})
