"""Which rows cannot be used and why, and what is counted in the rows that stay as they came.

Rules are narwhals expressions on typed tables (fields, their states and ``__row``), so they run on any engine.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import pyarrow as pa
import pyarrow.compute as pc

from evalkit.errors import Fault
from evalkit.register.cells import BAD, EMPTY, OPEN, ROW, state_column
from evalkit.register.reader import Raw
from evalkit.register.schema import MANY_TABLES, UNKNOWN, Check, Field, Quarantined, Severity, shape

REASON = "__reason"
KNOWN = "__known"
HALF = 0.5
"""Share of unreadable cells, orphans or ragged records from which the data cannot answer the study."""

CLOCK = "@clock"
_LONGEST_LIFE = 110  # years
_BLANK = " \t\r\n\u00a0"


@dataclass(frozen=True)
class Rule:
    """A condition under which a row is set aside, or counted.

    Parameters
    ----------
    column:
        Where it is seen; ``CLOCK`` stands for the column that time zero is taken from.
    among:
        The rows that are judged; all of them when None.
    least, rows:
        A rule that counts speaks up from this share of them, and from this many of them.
    """

    code: str
    test: nw.Expr
    column: str = ""
    severity: Severity = "warn"
    among: nw.Expr | None = None
    least: float = 0.0
    rows: int = 1

    @property
    def key(self) -> str:
        """Code and column as one word."""
        return f"{self.code}.{self.column}" if self.column else self.code


def _state(column: str) -> nw.Expr:
    return nw.col(state_column(column))


def _is(column: str, state: int) -> nw.Expr:
    return _state(column) == state


def drop_rules(table: str, window: tuple[dt.date, dt.date], by_referral: bool) -> tuple[Rule, ...]:
    """The conditions under which a row of a table is set aside; the first that holds is the reason.

    Parameters
    ----------
    window:
        First and last observed day.
    by_referral:
        Time zero is the referral: an episode without a start is then usable when its referral is known.
    """
    rules = [Rule("person_missing", nw.col("person").is_null(), "person")]
    if table == "persons":
        return tuple(rules)
    first, last = (nw.lit(day) for day in window)
    begin = earliest = nw.col("start")
    latest = nw.col("start")
    if table == "episodes" and by_referral:
        begin = nw.coalesce(nw.col("start"), nw.col("referral"))
        earliest = nw.coalesce(nw.col("referral"), nw.col("start"))
        latest = begin
        rules.append(Rule("start_missing", _is("start", EMPTY) & begin.is_null(), "start"))
    else:
        rules.append(Rule("start_missing", _is("start", EMPTY), "start"))
    return (
        *rules,
        Rule("date_unreadable", _is("start", BAD), "start"),
        Rule("date_unreadable", _is("end", BAD), "end"),
        Rule("end_before_start", nw.col("end") < nw.col("start")),
        Rule("outside_window", ((latest > last) & (earliest > last)) | (nw.col("end") < first), severity="info"),
        Rule("orphan", nw.col(KNOWN).is_null(), "person"),
    )


def changing_drops(form: str, fields: Sequence[Field]) -> tuple[Rule, ...]:
    """The same for tables of values that change. Rows before the window stay: they tell what was known in it."""
    mapped = {field.name for field in fields if field.own}
    if form == "areas":
        coded = any(field.name == "area" and field.codes is not None for field in fields)
        return (
            Rule("area_missing", nw.col("area").is_null(), "area"),
            Rule("month_missing", _is("month", EMPTY), "month"),
            Rule("date_unreadable", _is("month", BAD), "month"),
            *((Rule("area_unknown", nw.col("area") == UNKNOWN, "area", "info"),) if coded else ()),
            Rule("figure_missing", nw.col("value").is_null(), "value", "info"),
        )
    known = [Rule("registered_missing", _is("registered", EMPTY), "registered")]
    known.append(Rule("date_unreadable", _is("registered", BAD), "registered"))
    return (
        Rule("person_missing", nw.col("person").is_null(), "person"),
        Rule("start_missing", _is("start", EMPTY), "start"),
        Rule("date_unreadable", _is("start", BAD), "start"),
        Rule("date_unreadable", _is("end", BAD), "end"),
        *(known if "registered" in mapped else ()),
        Rule("end_before_start", nw.col("end") < nw.col("start")),
        Rule("orphan", nw.col(KNOWN).is_null(), "person"),
    )


def duplicate(table: str) -> Rule:
    """The reason of a row that repeats another in full; which ones those are only shows in the whole table."""
    if shape(table) in MANY_TABLES:
        return Rule("row_duplicate", nw.lit(False), severity="info")
    return Rule("person_duplicate" if table == "persons" else "spell_duplicate", nw.lit(False))


def notes(table: str, fields: Sequence[Field], window: tuple[dt.date, dt.date]) -> tuple[Rule, ...]:
    """What is counted in the rows that stay."""
    rules = []
    mapped = {field.name for field in fields if field.own}
    for field in fields:
        if field.kind in ("number", "integer"):
            rules.append(Rule("number_unreadable", _is(field.name, BAD), field.name))
        elif field.kind == "code" and field.own:
            rules.append(Rule("code_unknown", _is(field.name, BAD), field.name))
    match table:
        case "persons":
            rules.append(Rule("birth_year_implausible", _implausible(window), "birth_year"))
        case "benefits":
            missing = ~nw.col("end").is_null() & nw.col("reason").is_null()
            if any(field.name == "reason" and field.own for field in fields):
                rules.append(Rule("reason_missing", missing, "reason"))
                early = nw.col("end").is_null() & ~nw.col("reason").is_null()
                rules.append(Rule("reason_without_end", early, "reason", "info"))
        case "episodes":
            rules.append(Rule("type_missing", nw.col("type").is_null(), "type"))
            rules += [Rule("date_missing", _is(name, BAD), name) for name in ("planned_end", "referral")]
    extra = [name for name in ("registered", "measured") if name in mapped]
    rules += [Rule("date_missing", _is(name, BAD), name) for name in extra]
    opened = [name for name in ("end", "planned_end") if any(field.name == name for field in fields)]
    rules += [Rule("open_end", _is(name, OPEN), name, "info") for name in opened]
    return tuple(rules)


def points(episodes: nw.LazyFrame, events: Sequence[str]) -> nw.LazyFrame:
    """Episodes in which those that are points in time end on the day they begin, whatever stands in the file."""
    if not events:
        return episodes
    event = nw.col("type").is_in(list(events))
    return episodes.with_columns(
        nw.when(event).then(nw.col("start")).otherwise(nw.col("end")).alias("end"),
        nw.when(event).then(nw.lit(EMPTY)).otherwise(_state("end")).alias(state_column("end")),
    )


def _implausible(window: tuple[dt.date, dt.date]) -> nw.Expr:
    year = nw.col("birth_year")
    return (year < window[0].year - _LONGEST_LIFE) | (year > window[1].year)


def birth_year(window: tuple[dt.date, dt.date]) -> nw.Expr:
    """The birth year, empty where it is implausible."""
    return nw.when(~_implausible(window)).then(nw.col("birth_year")).otherwise(None).alias("birth_year")


def sift(frame: nw.LazyFrame, rules: Sequence[Rule], fields: Sequence[Field], duplicate: str) -> nw.LazyFrame:
    """Add ``__reason``: the key of the first rule that sets a row aside, empty for a row that can be used.

    Of rows that agree in all fields one is kept; the others get the reason ``duplicate``, unless that is empty.
    """
    reason: Any = nw.lit(None, dtype=nw.String)
    for rule in reversed(rules):
        reason = nw.when(rule.test).then(nw.lit(rule.key)).otherwise(reason)
    frame = frame.with_columns(reason.alias(REASON))
    if not duplicate:
        return frame
    occurrence = nw.col(ROW).cum_count().over(REASON, *(field.name for field in fields), order_by=ROW)
    again = nw.col(REASON).is_null() & (occurrence > 1)
    return frame.with_columns(nw.when(again).then(nw.lit(duplicate)).otherwise(nw.col(REASON)).alias(REASON))


def one(frame: nw.LazyFrame, **sums: nw.Expr) -> dict[str, int]:
    """Sums over all rows as whole numbers."""
    row = frame.select(**sums).collect("pyarrow").to_native().to_pylist()[0]
    return {name: int(value or 0) for name, value in row.items()}


def reasons(sifted: nw.LazyFrame) -> dict[str, int]:
    """Number of rows by key of the reason; the empty key counts the rows that stay."""
    counted = sifted.group_by(REASON).agg(nw.len().alias("n")).collect("pyarrow").to_native().to_pylist()
    return {row[REASON] or "": int(row["n"]) for row in counted}


def set_aside(
    table: str, rules: Sequence[Rule], counts: Mapping[str, int], rows: int
) -> tuple[list[Check], list[Quarantined]]:
    """Checks and quarantine of the rows that cannot be used, in the order of the rules."""
    found = [(rule, counts[rule.key]) for rule in rules if counts.get(rule.key)]
    checks = [Check(r.code, r.severity, table, n, n / rows, {"column": r.column}) for r, n in found]
    return checks, [Quarantined(table, r.code, r.column, n) for r, n in found]


def blanks(table: str, raw: Raw, fields: Sequence[Field]) -> list[Check]:
    """Text columns in which values have blanks around them; those are dropped when a file is read."""
    found = []
    for field in (field for field in fields if field.own in raw.header):
        column = raw.table.column(f"c{raw.header.index(field.own)}")
        if not pa.types.is_string(column.type):
            continue
        bare = pc.binary_length(pc.utf8_trim(column, characters=_BLANK))
        shorter = pc.and_(pc.less(bare, pc.binary_length(column)), pc.greater(bare, 0))
        count = pc.sum(shorter).as_py() or 0
        if count:
            found.append(Check("blank_around", "info", table, count, count / raw.rows, {"column": field.name}))
    return found


def records(table: str, raw: Raw) -> tuple[list[Check], list[Quarantined], list[Fault]]:
    """What there is to say about the file: records of another length than the header, and its encoding."""
    found = [Check("encoding_suspect", "warn", table, 1, 1.0, {"file": raw.name}, "files")] if raw.suspect else []
    if not raw.ragged:
        return found, [], []
    share = raw.ragged / raw.rows
    if share >= HALF:
        params = {"file": raw.name, "count": raw.ragged, "share": share}
        ready = table in ("table", "panel") or table.startswith("treatment.")
        place = f"{table}.file" if ready else f"data.{table}.file"
        return found, [], [Fault("data.ragged", params, place)]
    found.append(Check("ragged_record", "warn", table, raw.ragged, share, {"file": raw.name}))
    return found, [Quarantined(table, "ragged_record", "", raw.ragged)], []


def _unreadable(fields: Sequence[Field], frame: nw.LazyFrame) -> list[tuple[Field, int, int]]:
    """Fields with unreadable cells or unknown codes: how many of them, and how many cells are filled."""
    judged = [field for field in fields if field.kind not in ("key", "text") and field.own]
    sums: dict[str, nw.Expr] = {}
    for i, field in enumerate(judged):
        sums[f"bad{i}"] = _is(field.name, BAD).cast(nw.Int64).sum()
        sums[f"filled{i}"] = (nw.col(state_column(field.name)) != EMPTY).cast(nw.Int64).sum()
    counted = one(frame, **sums) if sums else {}
    found = [(field, counted[f"bad{i}"], counted[f"filled{i}"]) for i, field in enumerate(judged)]
    return [(field, bad, filled) for field, bad, filled in found if bad]


def unreadable(table: str, fields: Sequence[Field], typed: nw.LazyFrame) -> list[Fault]:
    """Faults of columns of which at least half of the filled cells cannot be read, or no code is known."""
    faults = []
    for field, bad, filled in _unreadable(fields, typed):
        if bad >= (filled if field.kind == "code" else HALF * filled):
            kinds = {"date": "data.dates", "month": "data.months", "code": "data.codes"}
            code = kinds.get(field.kind, "data.numbers")
            params = {"table": table, "column": field.own, "count": bad, "share": bad / filled}
            faults.append(Fault(code, params, f"data.{table}.columns.{field.name}"))
    return faults


def not_numeric(fields: Sequence[Field], frame: nw.LazyFrame, place: str = "table") -> list[Fault]:
    """Faults of columns that must be numbers, or dates, throughout."""
    return [
        Fault(
            "data.no_dates" if field.kind == "date" else "data.not_numeric",
            {"column": field.own, "count": bad, "share": bad / filled},
            place,
        )
        for field, bad, filled in _unreadable(fields, frame)
    ]


def conflicting(persons: nw.LazyFrame) -> int:
    """Number of persons with several rows that differ; rows that agree must have been set aside."""
    twice = persons.group_by("person").agg(nw.len().alias("n")).filter(nw.col("n") > 1)
    return one(twice, n=nw.len())["n"]
