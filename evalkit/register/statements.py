"""Monthly statements: a row a month for everything that runs, as the statistics are delivered, made into periods.

A row says that something ran in its month. Of benefits, rows of a person that touch or overlap are one spell; of
episodes, rows of a person with the same type and start are one episode. The latest statement tells how it ended; what
is no longer stated ended with the month of its latest statement. What stands in the last month delivered still runs.
``docs/layouts.md`` has examples.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import narwhals as nw

from evalkit.register.cells import EMPTY, GOOD, ROW, state_column
from evalkit.register.checks import REASON, Rule, next_day
from evalkit.register.schema import UNKNOWN, Check, Field

MONTH = "month"
JOINED = Rule("statement_joined", nw.lit(False), severity="info")
"""Why a statement is not in the register by itself: a later one of the same period is."""

_UNTIL, _FREE, _LATEST, _BEFORE, _PART, _RANK, _SIZE = (
    f"__{name}" for name in ("until", "free", "latest", "before", "part", "rank", "size")
)


def stated(columns: Sequence[Field]) -> bool:
    """Whether the rows of a table are monthly statements about persons."""
    if not any(column.name == "person" for column in columns):
        return False
    return any(column.name == MONTH and column.kind == "month" and column.own for column in columns)


def _last_day(month: nw.Expr) -> nw.Expr:
    return month.dt.offset_by("1mo").dt.offset_by("-1d").cast(nw.Date)


def dated(table: str, typed: nw.LazyFrame) -> nw.LazyFrame:
    """Typed rows in which a benefit without a start begins with its month, or on its end if that came before."""
    if table != "benefits":
        return typed
    month, start, end = nw.col(MONTH), nw.col("start"), nw.col("end")
    begin = nw.when(end < month).then(end).otherwise(month)
    state = nw.col(state_column("start"))
    absent = (state == EMPTY) & ~month.is_null()
    return typed.with_columns(
        nw.when(absent).then(begin).otherwise(start).alias("start"),
        nw.when(absent).then(nw.lit(GOOD)).otherwise(state).alias(state_column("start")),
        nw.when(absent).then(nw.lit(True)).otherwise(nw.lit(False)).alias("__undated"),
    )


def rules(drops: Sequence[Rule]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The conditions for a single row, and those for what the rows are made into."""
    state = nw.col(state_column(MONTH))
    needed = (
        Rule("month_missing", state == EMPTY, MONTH),
        Rule("date_unreadable", ~(state == EMPTY) & nw.col(MONTH).is_null(), MONTH),
    )
    first = tuple(rule for rule in drops if rule.code == "person_missing")
    later = tuple(rule for rule in drops if rule.code == "outside_window")
    return (*first, *needed, *(rule for rule in drops if rule not in (*first, *later))), (JOINED, *later)


def join(
    table: str, sifted: nw.LazyFrame, columns: Sequence[Field], later: Sequence[Rule], window: tuple[dt.date, dt.date]
) -> nw.LazyFrame:
    """Statements made into periods: the latest row of each stays with the period's start and end.

    Parameters
    ----------
    sifted:
        The rows with the reason why they cannot be used, empty for those that can.
    later:
        The conditions under which a period is set aside, as ``rules`` gives them.

    Returns
    -------
    All rows; those that a later statement replaces have that as their reason.
    """
    usable = sifted.filter(nw.col(REASON).is_null())
    months = usable.select(a=nw.col(MONTH).min(), z=nw.col(MONTH).max()).collect("pyarrow").to_native().to_pylist()[0]
    if months["z"] is None:
        return sifted
    by = ("person", "type", "__begin") if table == "episodes" else ("person",)
    ended = ~nw.col("end").is_null()
    frame = usable
    if table == "episodes":
        frame = frame.with_columns(nw.coalesce(nw.col("start"), nw.col("referral")).alias("__begin"))
    if table == "benefits":
        frame = _undated(frame, months["a"], window[0])
        if not any(column.name == "end" and column.own for column in columns):  # the reason tells that it ended
            ended = ended | (nw.col("reason") != UNKNOWN).fill_null(False)
    close = _last_day(nw.col(MONTH))
    close = nw.when(nw.col("start") > close).then(nw.col("start")).otherwise(close)  # stated before it began
    until = nw.coalesce(nw.col("end"), close)
    frame = frame.with_columns(until.alias(_UNTIL), ended.alias("__ended"))
    frame = _parts(frame, by) if table == "benefits" else frame.with_columns(nw.lit(1).alias(_PART))
    order = [MONTH, _UNTIL, *(c.name for c in columns if c.name not in ("person", MONTH, "start")), ROW]
    frame = frame.with_columns(
        nw.col("start").min().over(*by, _PART).alias("start") if table == "benefits" else nw.col("start"),
        nw.col(ROW).cum_count().over(*by, _PART, order_by=order).alias(_RANK),
        nw.col(ROW).count().over(*by, _PART).alias(_SIZE),
    )
    running = (nw.col(MONTH) == nw.lit(months["z"])) & ~nw.col("__ended")
    end = nw.when(running).then(nw.lit(None, dtype=nw.Date)).otherwise(nw.col(_UNTIL))
    last = nw.col(_RANK) == nw.col(_SIZE)
    frame = frame.with_columns(end.alias("end"))
    reason = nw.when(~last).then(nw.lit(JOINED.key)).otherwise(nw.lit(None, dtype=nw.String))
    for rule in later[1:]:
        reason = nw.when(last & rule.test.fill_null(False)).then(nw.lit(rule.key)).otherwise(reason)
    names = sifted.collect_schema().names()
    frame = frame.with_columns(reason.alias(REASON)).select(*names)
    return nw.concat([sifted.filter(~nw.col(REASON).is_null()), frame], how="vertical")


def _undated(frame: nw.LazyFrame, first_month: dt.date, first_day: dt.date) -> nw.LazyFrame:
    """A benefit without a start that stands in the first month delivered began before it: nobody knows when."""
    before = min(first_month, first_day) - dt.timedelta(days=1)
    unseen = nw.col("__undated") & (nw.col(MONTH) == nw.lit(first_month))
    return frame.with_columns(nw.when(unseen).then(nw.lit(before)).otherwise(nw.col("start")).alias("start"))


def _parts(frame: nw.LazyFrame, by: tuple[str, ...]) -> nw.LazyFrame:
    """Number the spells of a person: a new one begins where nothing before it reaches the day before."""
    order = ["start", _UNTIL, MONTH, ROW]
    frame = frame.with_columns(next_day(nw.col(_UNTIL)).alias(_FREE))
    frame = frame.with_columns(nw.col(_FREE).cum_max().over(*by, order_by=order).alias(_LATEST))
    frame = frame.with_columns(nw.col(_LATEST).shift(1).over(*by, order_by=order).alias(_BEFORE))
    new = (nw.col("start") > nw.col(_BEFORE)).fill_null(True).cast(nw.Int64)
    frame = frame.with_columns(new.alias(_PART))
    return frame.with_columns(nw.col(_PART).cum_sum().over(*by, order_by=order).alias(_PART))


def absent_months(table: str, sifted: nw.LazyFrame) -> list[Check]:
    """Months between the first and the last of which there is no statement of anybody."""
    months = sifted.select(MONTH).filter(~nw.col(MONTH).is_null()).unique().collect("pyarrow").to_native()
    numbers = sorted(12 * day.year + day.month - 1 for day in months.column(MONTH).to_pylist())
    if not numbers:
        return []
    absent = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if not absent:
        return []
    params = {"column": MONTH, "month": f"{absent[0] // 12}-{absent[0] % 12 + 1:02d}"}
    of = numbers[-1] - numbers[0] + 1
    return [Check("statement_month_absent", "warn", table, len(absent), len(absent) / of, params, "months")]
