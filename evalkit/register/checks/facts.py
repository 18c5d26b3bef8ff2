"""What the row rules look at: each table with its person's facts and its neighbours in time beside every row.

Lazy frames on any engine; nothing is computed here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import narwhals as nw

FAR = dt.date(9998, 12, 31)
"""The last day of a spell that still runs."""

STARTER = "__starter"
"""The column that says whether a row's person starts the instrument."""

_LIMITS = (18, 66)  # ages at entry when the study sets none: Participation Act, year before pension age


@dataclass(frozen=True)
class Context:
    """What rules need to know of the study: window, instrument, clock (start or referral), ages that may take part.

    ``types`` are the types of episode that the instrument is made of, and ``order`` which of them counts; ``events``
    the types that are points in time.
    """

    window: tuple[dt.date, dt.date]
    types: tuple[str, ...]
    clock: str
    ages: tuple[int, int] | None = None
    amounts: str = "total"  # of jobs: over the whole row, or a rate a month
    order: int = 1
    events: tuple[str, ...] = ()
    composed: bool = False  # keys have several parts, of which the last is the number

    @property
    def own(self) -> nw.Expr:
        """Whether an episode is of the instrument, or of what it is made of."""
        return nw.col("type").is_in(list(self.types))


def whole_months(start: nw.Expr, day: nw.Expr) -> nw.Expr:
    """Whole months from one day to another by the calendar; negative when the second is earlier."""
    months = (day.dt.year() - start.dt.year()) * 12 + day.dt.month() - start.dt.month()
    return months - (day.dt.day() < start.dt.day()).cast(nw.Int64)


def next_day(day: nw.Expr) -> nw.Expr:
    """The day after."""
    return day.dt.offset_by("1d").cast(nw.Date)


def starters(episodes: nw.LazyFrame, context: Context) -> nw.LazyFrame:
    """Persons with a start of the instrument anywhere in the data: ``person``, their first ``__began``, how many.

    Of a combination all parts, of the n-th of a type as many; whether they fall together is left to the sample.
    """
    day = nw.col(context.clock)
    own = episodes.filter(context.own, ~day.is_null())
    if context.order > 1:
        own = own.filter(day.cum_count().over("person", order_by=(context.clock, "episode")) >= context.order)
    began = own.group_by("person", "type").agg(__began=day.min(), __starts=nw.len())
    if len(context.types) > 1:
        parts = began.group_by("person").agg(nw.col("__began").max(), nw.col("__starts").min(), __parts=nw.len())
        began = parts.filter(nw.col("__parts") == len(context.types)).drop("__parts")
    else:
        began = began.drop("type")
    return began.with_columns(nw.lit(True).alias(STARTER))


def with_arm(frame: nw.LazyFrame, started: nw.LazyFrame) -> nw.LazyFrame:
    """A frame with ``__starter``, whether the row's person is one; the names keep clear of the study's own."""
    return frame.join(started, on="person", how="left").with_columns(nw.col(STARTER).fill_null(False))


def _limits(context: Context) -> dict[str, nw.Expr]:
    low, high = context.ages or _LIMITS
    first, last = (nw.lit(day) for day in context.window)
    return {
        "first_day": first,
        "last_day": last,
        "after_last": next_day(last),
        "age_low": nw.lit(low),
        "age_high": nw.lit(high),
    }


def _previous(frame: nw.LazyFrame, by: tuple[str, ...], row: str, mark: str) -> nw.LazyFrame:
    """Add start and end of the row before, and the latest end of all before, of the same person (and type)."""
    latest = nw.col("until").cum_max().over(*by, order_by=row)
    frame = frame.with_columns(latest.alias(f"{mark}latest"))
    shifted = {"start": f"{mark}start_1", "until": f"{mark}until_1", f"{mark}latest": f"{mark}before"}
    return frame.with_columns(
        nw.col(column).shift(1).over(*by, order_by=row).alias(name) for column, name in shifted.items()
    )


def persons(frames: Mapping[str, nw.LazyFrame], started: nw.LazyFrame, context: Context) -> nw.LazyFrame:
    """Persons with the number of their spells, the first entry and start, and whose keys look alike."""
    spells = frames["benefits"].group_by("person").agg(spells=nw.len(), entered=nw.col("start").min())
    own = [name for name in ("birth_year", "measured") if name in frames["persons"].collect_schema().names()]
    frame = with_arm(frames["persons"].select("person", *own).join(spells, on="person", how="left"), started)
    key = nw.col("person")
    number = key.str.replace_all(r"^.*\|", "") if context.composed else key
    digits, zero, length = ~number.str.contains(r"[^0-9]"), number.str.starts_with("0"), number.str.len_chars()
    folded = number.str.to_lowercase().str.replace_all(r"^0+", "")
    if context.composed:
        folded = nw.concat_str([key.str.to_lowercase().str.replace_all(r"[^|]*$", ""), folded])
    frame = frame.with_columns(
        nw.col("spells").fill_null(0),
        nw.col("__starts").fill_null(0),
        digits=digits,
        length=length,
        zero=zero,
        folded=folded,
    )
    # a key is as wide as the widest key of digits with a zero in front; without such keys no zero was lost
    wide = frames["persons"].filter(digits, zero).select(length.max().alias("width"))
    alike = frames["persons"].select(folded=folded).group_by("folded").agg(alike=nw.len())
    return frame.join(wide, how="cross").join(alike, on="folded", how="left")


def benefits(frames: Mapping[str, nw.LazyFrame], started: nw.LazyFrame, context: Context) -> nw.LazyFrame:
    """Benefit spells with the spell before, what comes of earlier ones, and the person's birth year."""
    frame = frames["benefits"].with_columns(until=nw.col("end").fill_null(nw.lit(FAR)))
    frame = _previous(frame, ("person",), "spell", "")
    born = frames["persons"].select("person", "birth_year")
    frame = with_arm(frame.join(born, on="person", how="left"), started)
    return frame.with_columns(
        free=next_day(nw.col("before")),
        over=next_day(nw.col("until")),
        age=nw.col("start").dt.year() - nw.col("birth_year"),
        **_limits(context),
    )


def episodes(frames: Mapping[str, nw.LazyFrame], started: nw.LazyFrame, context: Context) -> nw.LazyFrame:
    """Episodes with earlier ones of the person and of the same type, and where time zero falls in the benefits."""
    frame = frames["episodes"].with_columns(
        until=nw.col("end").fill_null(nw.lit(FAR)),
        day=nw.col(context.clock),
        own=context.own,
        event=nw.col("type").is_in(list(context.events)) if context.events else nw.lit(False),
    )
    frame = _previous(frame, ("person",), "episode", "any_")
    frame = _previous(frame, ("person", "type"), "episode", "same_")
    spells = frames["benefits"].select("person", first="start", last=nw.col("end").fill_null(nw.lit(FAR)))
    day, first, last = nw.col("day"), nw.col("first"), nw.col("last")
    met = frame.select("episode", "person", "day").join(spells, on="person", how="inner").group_by("episode")
    place = met.agg(
        held=((first <= day) & (day <= last)).cast(nw.Int64).max(),
        on_first=(first == day).cast(nw.Int64).max(),
        on_last=(last == day).cast(nw.Int64).max(),
        left=nw.when(last < day).then(last).otherwise(None).max(),
        enters=nw.when(first > day).then(first).otherwise(None).min(),
    )
    frame = with_arm(frame.join(place, on="episode", how="left"), started)
    return frame.with_columns(nw.col("held", "on_first", "on_last").fill_null(0), **_limits(context))


def jobs(frames: Mapping[str, nw.LazyFrame], started: nw.LazyFrame, context: Context) -> nw.LazyFrame:
    """Jobs with the person's earlier jobs and birth year, and hours a week (to within a day)."""
    frame = frames["jobs"].with_columns(until=nw.col("end").fill_null(nw.lit(FAR)))
    frame = _previous(frame, ("person",), "job", "")
    born = frames["persons"].select("person", "birth_year")
    frame = with_arm(frame.join(born, on="person", how="left"), started).with_columns(**_limits(context))
    if context.amounts == "rate":
        return frame.with_columns(weekly=nw.col("hours") * 12 / 52)
    last = nw.coalesce(nw.col("end"), nw.col("last_day"))
    days = (last.dt.year() - nw.col("start").dt.year()) * 365.25 + last.dt.ordinal_day()
    frame = frame.with_columns(days=days - nw.col("start").dt.ordinal_day() + 1)
    weeks = nw.when(nw.col("days") > 7).then(nw.col("days") / 7).otherwise(1.0)
    return frame.with_columns(weekly=nw.col("hours") / weeks)


FACTS = {"persons": persons, "benefits": benefits, "episodes": episodes, "jobs": jobs}
"""By table: its facts."""
