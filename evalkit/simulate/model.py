"""The law of a simulated municipality: who enters, who starts, who leaves, what a start changes.

Time is a grid of :data:`STEPS` sub-steps in each elapsed month; ``draw`` samples from this law and ``truth``
sums over it, both from the same arrays (:func:`law`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.calendar import day_number, month_number, month_start

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = 9
"""Sub-steps in an elapsed month; sub-step g begins ``STEP_DAYS * g`` days after the month's first day."""
STEP_DAYS = 3
STARTS = 24
"""The instrument starts in elapsed months 0 .. STARTS - 1 only."""

SEX = ("man", "woman")
EDUCATION = ("low", "middle", "high")
HOUSEHOLD = ("single", "couple", "single_parent")
DISTANCE = (0.0, 0.5, 1.0, 1.5, 2.0)
AGE = tuple(range(20, 61, 5))
REASON = ("work", "education", "other")
COVARIATES = ("sex", "education", "household", "distance", "age")

_SEX_SHARE = (0.47, 0.53)
_EDUCATION_SHARE = (0.50, 0.35, 0.15)
_HOUSEHOLD_SHARE = ((0.68, 0.26, 0.06), (0.50, 0.22, 0.28))  # by sex
_DISTANCE_SHARE = ((0.12, 0.20, 0.28, 0.25, 0.15), (0.22, 0.27, 0.26, 0.16, 0.09), (0.34, 0.30, 0.20, 0.11, 0.05))
_AGE_SHARE = (0.10, 0.14, 0.15, 0.14, 0.12, 0.11, 0.10, 0.08, 0.06)


@dataclass(frozen=True)
class Slopes:
    """Log rate ratios against a man of 40, low education, single, distance 0; age a year, distance a point."""

    woman: float = 0.0
    middle: float = 0.0
    high: float = 0.0
    couple: float = 0.0
    single_parent: float = 0.0
    age: float = 0.0
    distance: float = 0.0


@dataclass(frozen=True)
class Municipality:
    """Parameters of a simulated municipality. Rates are monthly intensities: P(event in a month) = 1 - exp(-rate).

    Attributes
    ----------
    window: first and last observed day; a first of a month and a last of a month.
    entry_days: ``first``: benefit begins on the first of a month and the truth is exact; ``any``: on day 1..28.
    stock_months: entries from this many months before the window are drawn too and kept when still on benefit.
    work_rate, education_rate, other_rate: exits of the reference person in elapsed month 0, untreated.
    work: covariates on the exit to work. Education and other do not depend on covariates.
    slowing: work rate times (1 + elapsed / 6) ** -slowing.
    cycle, season: amplitudes of the log work rate over seven years and over the year, by calendar month.
    start_rate, start: starting the studied instrument ("training"), of the reference person, and its slopes.
    start_quarters: factor on the start rate by quarter of the year.
    programme_months: planned length of the training; the lock-in lasts as long.
    work_during, work_after: factor on the work rate in the programme and after it.
    fade_months: the gain shrinks by exp(-months after the programme / fade_months); 0 keeps it for good.
    education_during, education_after, other_during, other_after: the same for the other exits.
    return_rates: back to benefit after an exit to work, education, other.
    again_rates: exits to work, education, other from such a later spell, where nobody starts an instrument.
    coaching_rate, coaching_months: a second instrument without any effect, at most once in the first spell.
    """

    window: tuple[dt.date, dt.date] = (dt.date(2015, 1, 1), dt.date(2023, 12, 31))
    entry_days: Literal["first", "any"] = "first"
    stock_months: int = 0
    work_rate: float = 0.060
    education_rate: float = 0.005
    other_rate: float = 0.015
    work: Slopes = Slopes(woman=-0.1, middle=0.2, high=0.4, couple=0.1, single_parent=-0.3, age=-0.02, distance=-0.4)
    slowing: float = 0.4
    cycle: float = 0.15
    season: float = 0.10
    start_rate: float = 0.010
    start: Slopes = Slopes(woman=0.1, middle=0.2, high=0.0, couple=0.1, single_parent=-0.1, age=-0.02, distance=0.4)
    start_quarters: tuple[float, float, float, float] = (1.1, 1.0, 0.7, 1.2)
    programme_months: int = 6
    work_during: float = 0.60
    work_after: float = 1.42
    fade_months: float = 0.0
    education_during: float = 0.6
    education_after: float = 1.0
    other_during: float = 0.8
    other_after: float = 1.0
    return_rates: tuple[float, float, float] = (0.012, 0.010, 0.004)
    again_rates: tuple[float, float, float] = (0.045, 0.005, 0.015)
    coaching_rate: float = 0.005
    coaching_months: int = 3

    def __post_init__(self) -> None:
        first, last = self.window
        if first.day != 1 or (last + dt.timedelta(1)).day != 1 or first >= last:
            raise ValueError("municipality: the window runs from a first of a month to a last of a month")
        if self.programme_months < 1 or self.coaching_months < 1 or self.stock_months < 0:
            raise ValueError("municipality: months of programmes are at least 1, of stock at least 0")

    @property
    def months(self) -> int:
        """Calendar months in the window."""
        first, last = (int(month_number(day_number(day))) for day in self.window)
        return last - first + 1


DEMO = Municipality(entry_days="any", stock_months=60)
"""As a municipality delivers it: entry on any day, a stock at the beginning of the window."""
NO_EFFECT: dict[str, Any] = {
    f"{name}_{when}": 1.0 for name in ("work", "education", "other") for when in ("during", "after")
}
NULL = replace(Municipality(), **NO_EFFECT)
"""The default municipality with an instrument that changes nothing."""
SMALL = Municipality(
    window=(dt.date(2018, 1, 1), dt.date(2021, 12, 31)), start_rate=0.03, work_rate=0.09, programme_months=4
)
"""Four years, more starts: a horizon of 12 or 24 months with few persons."""


@dataclass(frozen=True)
class Law:
    """The law in arrays. Cells are combinations of covariates; months count from the first entry month.

    Attributes
    ----------
    levels: by covariate, the value of each cell (C,).
    share, work, start: (C,) probability, work rate and start rate of a cell, before time factors.
    duration, start_elapsed: (M,) factors by elapsed month. calendar, start_calendar: (M,) by calendar month.
    path: (3, M) factor on each exit rate in month 1, 2, .. since the start.
    others: (2,) rates of education and other exits; others_duration: (2, M) their factors by elapsed month.
    back, again: (3,) probability in a sub-step to return after each exit, and to leave a later spell to each.
    coach: probability in a sub-step to begin coaching.
    first: first entry month (months since 1970); entries: number of entry months, stock included.
    starts: the instrument starts in elapsed months 0 .. starts - 1 only.
    returns: (3, U) probability to return in the first, second, .. sub-step after each exit, when spells are *renewed*:
        every later spell then obeys the law of a first one, and ``back`` and ``again`` are not used. None: they are.
    """

    levels: dict[str, NDArray[Any]]
    share: Array
    work: Array
    start: Array
    duration: Array
    start_elapsed: Array
    calendar: Array
    start_calendar: Array
    path: Array
    others: Array
    others_duration: Array
    back: Array
    again: Array
    coach: float
    first: int
    entries: int
    starts: int = STARTS
    returns: Array | None = None


def step_probability(rate: Any) -> Any:
    """Probability of an event in one sub-step at a monthly rate: 1 - exp(-rate / STEPS)."""
    return -np.expm1(-np.asarray(rate, float) / STEPS)


def law(municipality: Municipality) -> Law:
    """The arrays that sampling and truth share."""
    town = municipality
    cells = list(product(range(2), range(3), range(3), range(5), range(9)))
    index = np.array(cells)
    share = np.array(
        [
            _SEX_SHARE[s] * _EDUCATION_SHARE[e] * _HOUSEHOLD_SHARE[s][h] * _DISTANCE_SHARE[e][d] * _AGE_SHARE[a]
            for s, e, h, d, a in cells
        ]
    )
    supports = (SEX, EDUCATION, HOUSEHOLD, DISTANCE, AGE)
    levels = {
        name: np.asarray(support, object if isinstance(support[0], str) else None)[index[:, i]]
        for i, (name, support) in enumerate(zip(COVARIATES, supports, strict=True))
    }
    first = int(month_number(day_number(town.window[0]))) - town.stock_months
    entries = town.months + town.stock_months
    span = np.arange(entries + STARTS)
    later = np.arange(1, len(span) + 1) - town.programme_months  # months after the programme, > 0 once it is over
    fade = np.exp(-np.maximum(later - 1, 0) / town.fade_months) if town.fade_months else np.ones(len(span))
    pairs = [(getattr(town, f"{name}_during"), getattr(town, f"{name}_after")) for name in REASON]
    path = np.array([np.where(later > 0, 1 + (after - 1) * fade, during) for during, after in pairs])
    month = first + span
    again_total = sum(town.again_rates)
    return Law(
        levels=levels,
        share=share / share.sum(),
        work=town.work_rate * np.exp(_predictor(town.work, levels)),
        start=town.start_rate * np.exp(_predictor(town.start, levels)),
        duration=(1 + span / 6) ** -town.slowing,
        start_elapsed=np.where(span < STARTS, np.minimum(0.5 + 0.25 * span, 1.25 - 0.025 * span), 0.0),
        calendar=np.exp(
            town.cycle * np.sin(2 * np.pi * (month - 12 * 45) / 84) + town.season * np.cos(2 * np.pi * (month - 4) / 12)
        ),
        start_calendar=np.asarray(town.start_quarters)[month % 12 // 3],
        path=path,
        others=np.array([town.education_rate, town.other_rate]),
        others_duration=np.ones((2, len(span))),
        back=step_probability(town.return_rates),
        again=step_probability(again_total) * np.asarray(town.again_rates) / max(again_total, 1e-300),
        coach=float(step_probability(town.coaching_rate)),
        first=first,
        entries=entries,
    )


def month_days(law: Law, ahead: int) -> Ints:
    """First day of every calendar month from the first entry month to ``ahead`` + 1 months past the window."""
    return month_start(law.first + np.arange(law.entries + ahead + 2))


def _predictor(slopes: Slopes, levels: dict[str, NDArray[Any]]) -> Array:
    total = (
        slopes.woman * (levels["sex"] == "woman")
        + slopes.middle * (levels["education"] == "middle")
        + slopes.high * (levels["education"] == "high")
        + slopes.couple * (levels["household"] == "couple")
        + slopes.single_parent * (levels["household"] == "single_parent")
        + slopes.age * (levels["age"] - 40.0)
        + slopes.distance * levels["distance"]
    )
    return np.round(total.astype(float), 12)  # so that equal predictors are equal numbers and cells can be merged
