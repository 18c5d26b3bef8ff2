"""What must agree between the keys of a study file; every rule looks at the pieces it needs and skips faulty ones."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from pathlib import PureWindowsPath
from typing import Any

from evalkit.study.changing import changing, register_tables, usable_columns
from evalkit.study.complete import outside
from evalkit.study.instrument_rules import instruments, only_events
from evalkit.study.lines import KeyPath
from evalkit.study.model import (
    AnalysisSpec,
    Codes,
    Columns,
    Cost,
    Covariates,
    Gate,
    Outcome,
    Protocol,
    Spells,
    Subgroup,
    TableData,
    Time,
    Treatment,
    Window,
)
from evalkit.study.outcome_source import AMOUNTS, NOT, WORK_REGISTER, OutcomeSource, destinations, examples, read_source
from evalkit.study.panel_rules import on_panels, ready_panel
from evalkit.study.parts import Parts
from evalkit.study.translate import Issue, nearest, not_allowed, unknown_key

REQUIRED = {
    "persons": ("person",),
    "benefits": ("person", "start", "end"),
    "episodes": ("person", "type", "start", "end"),
    "jobs": ("person", "start", "end"),
    "changes": ("person", "start", "value"),
    "areas": ("area", "month", "value"),
}
"""Fixed names every register table must map, by its kind."""

OPTIONAL = {
    "benefits": ("reason", "scheme", "month", "household_id", "registered"),
    "episodes": ("planned_end", "referral", "month", "registered", "provider", "caseworker", "cost", "hours"),
    "jobs": (*AMOUNTS, "contract"),
    "changes": ("end", "registered"),
    "areas": (),
}
"""Fixed names that may be mapped as well; ``persons`` may have any."""

KEYS = ("person", "household_id")
"""Columns that may be composed of several."""

RESERVED_COLUMNS = frozenset(
    "age arm cluster elapsed entry follow_up own_start_after quarter spell time_zero weight".split()
)
RESERVED_CODES = {("benefits", "reason"): ("any", WORK_REGISTER), ("episodes", "type"): ("wait", "never")}

DUCKDB = (".duckdb", ".ddb", ".db")
"""Extensions of files that hold tables, of which one must be named."""

EXCEL = (".xlsx", ".xlsm")
"""Extensions of files that hold sheets, of which one may be named."""

SPARK = "spark"
"""Stands for the Spark session that runs, where a study file names a database."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIRECTIVE = re.compile(r"%(.?)")


def contradictions(parts: Parts, root: str) -> list[Issue]:
    """All rules over all pieces that can be read; ``root`` is what to call the file as a whole."""
    found = [*_road(parts, root), *_words(parts), *_names(parts), *_ranges(parts)]
    if parts.raw("data") is not None:
        found += [*_tables(parts), *_time(parts), *instruments(parts), *_people(parts), *_register_outcomes(parts)]
        found += changing(parts, RESERVED_COLUMNS)
    elif parts.raw("table") is not None:
        found += [*_table(parts)]
    elif parts.raw("panel") is not None:
        found += [*ready_panel(parts)]
    found += [*on_panels(parts)]
    found += [*_paths(parts), *_sources(parts), *_formats(parts), *_methods(parts)]
    return found


def _road(parts: Parts, root: str) -> Iterator[Issue]:
    """Register tables, one ready table or one ready panel: exactly one of them."""
    has_data, has_table, has_panel = (parts.raw(name) is not None for name in ("data", "table", "panel"))
    if has_data and has_table:
        yield Issue(("table",), "study.data_and_table", {})
    if has_panel and (has_data or has_table):
        yield Issue(("panel",), "study.panel_and_other", {"other": "data" if has_data else "table"})
    if not has_data and not has_table and not has_panel:
        yield Issue((), "study.no_data", {"file": root})


def _words(parts: Parts) -> Iterator[Issue]:
    """The title in every language of the report."""
    languages = parts.get(tuple[str, ...], "languages")
    if parts.raw("languages") is None:
        languages = Protocol.model_fields["languages"].default
    title = parts.raw("title")
    if isinstance(title, dict):
        for language in sorted({"nl", "en"}.intersection(languages or ()) - set(title)):
            yield Issue(("title",), "study.title_missing", {"language": language})


def _names(parts: Parts) -> Iterator[Issue]:
    """Names that must differ from each other, and the one primary outcome."""
    for section, key in (("outcome", "name"), ("analysis", "id"), ("subgroup", "name"), ("instrument", "name")):
        items = parts.raw(section)
        count = len(items) if isinstance(items, tuple) else 0
        yield from _twice(((section, i, key), parts.raw(section, i, key)) for i in range(count))
    listed: list[tuple[KeyPath, Any]] = []
    for key in ("numeric", "categorical"):
        columns = parts.get(tuple[str, ...], "covariates", key) or ()
        listed += [(("covariates", key, i), column) for i, column in enumerate(columns)]
    yield from _twice(listed)
    languages = parts.get(tuple[str, ...], "languages") or ()
    yield from _twice((("languages", i), language) for i, language in enumerate(languages))

    outcomes = parts.raw("outcome")
    if isinstance(outcomes, tuple) and outcomes:
        flags = [parts.raw("outcome", i, "primary") for i in range(len(outcomes))]
        primary = [i for i, flag in enumerate(flags) if flag is True]
        sound = all(flag is None or isinstance(flag, bool) for flag in flags)
        if not primary and sound:
            yield Issue(("outcome", 0), "study.no_primary", {})
        for i in primary[1:]:
            yield Issue(("outcome", i, "primary"), "study.several_primary", {"count": len(primary)})
        for i in primary:
            if parts.raw("outcome", i, "role") == "negative_control":
                yield Issue(("outcome", i, "role"), "study.control_primary", {"name": parts.raw("outcome", i, "name")})


def _twice(values: Iterable[tuple[KeyPath, Any]]) -> Iterator[Issue]:
    seen: set[str] = set()
    for path, value in values:
        if isinstance(value, str):
            if value in seen:
                key = ".".join(part for part in path if isinstance(part, str))
                yield Issue(path, "study.duplicate", {"key": key, "value": value})
            seen.add(value)


def _ranges(parts: Parts) -> Iterator[Issue]:
    """Low before high, first before last."""
    for key in ("age", "elapsed", "earlier_spells"):
        pair = parts.get(tuple[int, int], "eligibility", key)
        if pair and pair[0] > pair[1]:
            yield Issue(("eligibility", key), "study.range_reversed", {"key": f"eligibility.{key}"})
    gate = parts.section(Gate, "gate")
    if gate and gate.smd_warn > gate.smd_fail:
        yield Issue(("gate", "smd_warn"), "study.gate_order", {"warn": gate.smd_warn, "fail": gate.smd_fail})
    costs = parts.raw("costs")
    for name in costs if isinstance(costs, dict) else ():
        cost = parts.get(Cost, "costs", name)
        if cost and not cost.low <= cost.value <= cost.high:
            yield Issue(("costs", name), "study.cost_order", {"name": name})
    for path, subgroup in parts.each(Subgroup, "subgroup"):
        if list(subgroup.cuts) != sorted(set(subgroup.cuts)):
            yield Issue((*path, "cuts"), "study.not_ascending", {"key": "subgroup.cuts"})


def _tables(parts: Parts) -> Iterator[Issue]:
    """Columns and codes of the register tables."""
    for place in register_tables(parts):
        table, base = place[1], (*place, "columns")
        columns = parts.get(Columns, *base)
        if columns is None:
            continue
        required = [name for name in REQUIRED[table] if not (stated(table, columns) and name in ("start", "end"))]
        for name in required:
            if name not in columns and not (place[1:] == ("episodes",) and name == "end" and only_events(parts)):
                yield Issue((*base, name), "study.missing_key", {"key": name, "where": f"[{'.'.join(base)}]"})
        if table in OPTIONAL:
            valid = [*REQUIRED[table], *OPTIONAL[table]]
            yield from (unknown_key((*base, name), valid, "") for name in columns if name not in valid)
        else:
            for name in (name for name in columns if name in RESERVED_COLUMNS):
                yield Issue((*base, name), "study.reserved_name", {"name": name})
            first = {name.casefold(): name for name in reversed(["person", "birth_year", *columns])}
            for name in (name for name in columns if first[name.casefold()] != name):
                yield Issue((*base, name), "study.capitals", {"name": name, "other": first[name.casefold()]})
        owners: dict[str, str] = {}
        for name, value in columns.items():
            if not isinstance(value, str) and name not in KEYS:
                params = {"key": ".".join((*base, name)), "keys": ", ".join(KEYS)}
                yield Issue((*base, name), "study.several_columns", params)
            for own in (value,) if isinstance(value, str) else value:
                if own in owners:
                    params = {"column": own, "first": owners[own], "second": name}
                    yield Issue((*base, name), "study.column_twice", params)
                owners.setdefault(own, name)
        yield from _codes(parts, place, columns)


def stated(table: str, columns: Columns) -> bool:
    """Whether rows of benefits are statements of a month, which may do without a start and an end."""
    return table == "benefits" and "month" in columns


def _codes(parts: Parts, place: tuple[str, ...], columns: Columns) -> Iterator[Issue]:
    codes = parts.get(Codes, *place, "codes") or {}
    for column, mapping in codes.items():
        base: KeyPath = (*place, "codes", column)
        if column not in columns:
            yield Issue(base, "study.codes_unmapped", {"column": column, "table": ".".join(place[1:])})
        reserved = RESERVED_CODES.get((place[1], column))
        seen: set[str] = set()
        for name, own_codes in mapping.items():
            if reserved and (name in reserved or (column == "reason" and name.startswith(NOT))):
                yield Issue((*base, name), "study.reserved_name", {"name": name})
            elif reserved and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                yield Issue((*base, name), "study.bad_name", {"key": ".".join((*place, "codes", column)), "name": name})
            for i, code in enumerate(own_codes):
                if code in seen:
                    yield Issue((*base, name, i), "study.code_twice", {"code": code, "column": column})
                seen.add(code)


def _time(parts: Parts) -> Iterator[Issue]:
    """The observation window against the clock."""
    window = parts.get(Window, "data", "window")
    if window and window.first > window.last:
        yield Issue(("data", "window"), "study.window_reversed", {"first": window.first, "last": window.last})
    horizon = parts.get(int, "time", "horizon")
    if window and window.first <= window.last and horizon:
        months = whole_months(window.first, window.last)
        look = _look_ahead(parts)
        if horizon > months:
            yield Issue(("time", "horizon"), "study.horizon_window", {"horizon": horizon, "months": months})
        elif horizon + look > months:
            params = {"horizon": horizon, "months": months, "ahead": look, "most": months - look}
            yield Issue(("time", "horizon"), "study.horizon_look_ahead", params)
    columns = parts.get(Columns, "data", "episodes", "columns")
    if columns and parts.raw("time", "clock") == "referral" and "referral" not in columns:
        yield Issue(("time", "clock"), "study.referral_unmapped", {})
    date_format = parts.get(str, "data", "format", "date")
    time = parts.get(Time, "time")
    if time and date_format and "%m" in date_format and "%d" not in date_format and time.within_month == "dates":
        yield Issue(("time", "within_month"), "study.no_days", {"format": date_format})


def _look_ahead(parts: Parts) -> int:
    """Months beyond the horizon that the outcomes need."""
    spells = parts.section(Spells, "spells") or Spells()
    sources = [read_source(outcome.source) for _, outcome in parts.each(Outcome, "outcome")]
    return max((source.look_ahead(spells.merge_gap_months) for source in sources if source), default=0)


def whole_months(first: dt.date, last: dt.date) -> int:
    """The largest k for which ``first + k months`` is not after the day that follows ``last``."""
    end = last + dt.timedelta(days=1)
    months = 12 * (end.year - first.year) + end.month - first.month
    return months - (end.day < min(first.day, calendar.monthrange(end.year, end.month)[1]))


def _people(parts: Parts) -> Iterator[Issue]:
    """Covariates, subgroups and age come from mapped columns of persons."""
    columns = parts.get(Columns, "data", "persons", "columns")
    if columns is None:
        return
    usable = usable_columns(parts, columns)
    covariates = parts.section(Covariates, "covariates")
    subgroups = parts.each(Subgroup, "subgroup")
    named: list[tuple[KeyPath, str]] = [((*path, "name"), subgroup.name) for path, subgroup in subgroups]
    for key in ("numeric", "categorical"):
        names = parts.get(tuple[str, ...], "covariates", key) or ()
        named += [(("covariates", key, i), name) for i, name in enumerate(names)]
        if key == "categorical" and "age" in names:
            yield Issue(("covariates", key, names.index("age")), "study.age_numeric", {})
    for path, name in named:
        if name not in usable:
            params = {"name": name, "nearest": nearest(name, usable), "valid": ", ".join(usable)}
            yield Issue(path, "study.unknown_column", params)
    if "birth_year" not in columns:
        age_paths = [path for path, name in named if name == "age"]
        age_paths += [("eligibility", "age")] if parts.raw("eligibility", "age") is not None else []
        yield from (Issue(path, "study.age_without_birth_year", {}) for path in age_paths)
    if covariates:
        numeric = {"age", "birth_year", *covariates.numeric}
        for path, subgroup in subgroups:
            if subgroup.name in usable and subgroup.cuts and subgroup.name not in numeric:
                yield Issue((*path, "cuts"), "study.cuts_not_numeric", {"name": subgroup.name})
            if subgroup.name in usable and not subgroup.cuts and subgroup.name in numeric:
                yield Issue(path, "study.cuts_missing", {"name": subgroup.name})


def _register_outcomes(parts: Parts) -> Iterator[Issue]:
    """Where an outcome comes from, see ``docs/outcomes.md``; and what the spells are made of."""
    codes = parts.get(Codes, "data", "benefits", "codes")
    if parts.raw("data", "benefits", "codes") is None and parts.raw("data", "benefits") is not None:
        codes = {}
    reasons = [reason for reason in (codes or {}).get("reason", {}) if reason != "unknown"]
    jobs, columns = parts.raw("data", "jobs") is not None, parts.get(Columns, "data", "jobs", "columns")
    for path, outcome in parts.each(Outcome, "outcome"):
        source = read_source(outcome.source)
        if not outcome.source:
            yield Issue(path, "study.missing_key", {"key": "source", "where": "[[outcome]]"})
        elif not source or not _possible(source, reasons if codes is not None else None, jobs, columns):
            yield not_allowed((*path, "source"), outcome.source, examples(reasons, jobs, columns or ()))
        elif source.kind != outcome.kind:
            params = {"source": outcome.source, "kind": outcome.kind, "expected": source.kind}
            yield Issue((*path, "kind"), "study.kind_of_source", params)
        elif source.family == "flow" and outcome.unit == "fraction":
            expected = "hours" if source.which == "hours" else "euro"
            yield Issue(path, "study.unit_missing", {"source": outcome.source, "expected": expected})
        elif source.family == "months" and outcome.unit != "fraction":
            yield Issue((*path, "unit"), "study.unit_of_months", {"source": outcome.source, "unit": outcome.unit})
    columns = parts.get(Columns, "data", "benefits", "columns")
    if columns is not None and parts.raw("spells", "level") == "household" and "household_id" not in columns:
        yield Issue(("spells", "level"), "study.household_unmapped", {})


def _possible(source: OutcomeSource, reasons: list[str] | None, jobs: bool, columns: Columns | None) -> bool:
    """Whether the tables can give a source; what is faulty itself is not held against it."""
    if source.needs_jobs and not jobs:
        return False
    if source.family == "flow":
        return columns is None or source.which in columns
    known = source.family not in ("exit", "durable") or reasons is None
    return known or source.which in destinations(reasons or (), jobs)


def _table(parts: Parts) -> Iterator[Issue]:
    """A table that is ready for analysis: outcomes are its columns, and so is the horizon."""
    if parts.raw("eligibility") is not None:
        yield Issue(("eligibility",), "study.eligibility_in_table", {})
    if parts.raw("spells") is not None:
        yield Issue(("spells",), "study.spells_in_table", {})
    if parts.raw("instrument") is not None:
        yield Issue(("instrument",), "study.instruments_in_table", {})
    if parts.raw("treatment", "others") is not None:
        yield Issue(("treatment", "others"), "study.others_in_table", {})
    table = parts.get(TableData, "table")
    if table is None:
        return
    horizon, longest = parts.get(int, "time", "horizon"), max(len(columns) for columns in table.outcomes.values())
    if horizon and horizon != longest:
        yield Issue(("time", "horizon"), "study.horizon_table", {"horizon": horizon, "columns": longest})
    for path, outcome in parts.each(Outcome, "outcome"):
        if outcome.name not in table.outcomes:
            yield not_allowed((*path, "name"), outcome.name, list(table.outcomes))
        if outcome.source:
            yield Issue((*path, "source"), "study.source_in_table", {"source": outcome.source})
    if table.unit == table.treatment:
        yield Issue(("table", "treatment"), "study.column_role", {"column": table.unit})
    used: list[tuple[KeyPath, str]] = [
        (("table", "outcomes", name, i), column)
        for name, columns in table.outcomes.items()
        for i, column in enumerate(columns)
    ]
    history: list[tuple[KeyPath, str]] = [
        (("table", "before", name, i), column)
        for name, columns in table.before.items()
        for i, column in enumerate(columns)
    ]
    taken = {column for _, column in used}
    for path, column in history:
        if column in taken:
            yield Issue(path, "study.before_twice", {"column": column})
        taken.add(column)
    for name in table.before:
        if name not in table.outcomes:
            yield not_allowed(("table", "before", name), name, list(table.outcomes))
    used += history
    for key in ("numeric", "categorical"):
        names = parts.get(tuple[str, ...], "covariates", key) or ()
        used += [(("covariates", key, i), name) for i, name in enumerate(names)]
    for path, column in used:
        if column in (table.unit, table.treatment):
            yield Issue(path, "study.column_role", {"column": column})


def _paths(parts: Parts) -> Iterator[Issue]:
    """Data files lie inside the study folder."""
    places: list[KeyPath] = [("data", "folder"), ("data", "codelists"), ("table", "file"), ("panel", "file")]
    places.append(("treatment", "adopted_from", "file"))
    places += [(*place, "file") for place in register_tables(parts)]
    for place in places:
        value = parts.raw(*place)
        if isinstance(value, str) and outside(value):
            key = ".".join(str(part) for part in place)
            yield Issue(place, "study.path_outside", {"key": key, "value": value})


def _sources(parts: Parts) -> Iterator[Issue]:
    """A file or a database, and what is needed to find the table in it. A connection string is never shown."""
    for place in (("table",), ("panel",), ("treatment", "adopted_from"), *register_tables(parts)):
        if not isinstance(parts.raw(*place), dict):
            continue
        file, table, sheet, database = (parts.raw(*place, key) for key in ("file", "table", "sheet", "database"))
        key = ".".join(place)
        suffix = PureWindowsPath(file).suffix.lower() if isinstance(file, str) else ""
        if file is None and database is None:
            yield Issue((*place, "file"), "study.missing_key", {"key": "file", "where": f"[{key}]"})
        elif file is not None and database is not None:
            yield Issue((*place, "database"), "study.file_and_database", {"where": f"[{key}]"})
        if isinstance(database, str) and database and not _VARIABLE.fullmatch(database):
            yield Issue((*place, "database"), "study.database_name", {"key": f"{key}.database"})
        if table is None and (database is not None or suffix in DUCKDB):
            yield Issue((*place, "table"), "study.missing_key", {"key": "table", "where": f"[{key}]"})
        if table is not None and database is None and suffix and suffix not in DUCKDB:
            yield Issue((*place, "table"), "study.not_in_such_a_file", {"key": f"{key}.table", "kind": "DuckDB"})
        if sheet is not None and (database is not None or (suffix and suffix not in EXCEL)):
            yield Issue((*place, "sheet"), "study.not_in_such_a_file", {"key": f"{key}.sheet", "kind": "Excel"})
    given = [place for place in register_tables(parts) if isinstance(parts.raw(*place), dict)]
    inside = [parts.raw(*place, "database") == SPARK for place in given]
    if any(inside) and not all(inside):
        other = given[inside.index(False)]
        yield Issue(other, "study.spark_mixed", {"where": f"[{'.'.join(other)}]"})
    for place in (("table",), ("panel",), ("treatment", "adopted_from")):
        if parts.raw(*place, "database") == SPARK:
            yield Issue((*place, "database"), "study.spark_table", {})


def _formats(parts: Parts) -> Iterator[Issue]:
    """A date format has at least a month and a year of four digits, and nothing we cannot read."""
    for section in ("data", "table", "panel"):
        value = parts.raw(section, "format", "date")
        if isinstance(value, str) and value not in ("", "auto"):
            codes = _DIRECTIVE.findall(value)
            if not {"m", "Y"} <= set(codes) <= {"d", "m", "Y", "H", "M", "S"} or len(codes) != len(set(codes)):
                yield Issue((section, "format", "date"), "study.bad_date_format", {"value": value})


def _methods(parts: Parts) -> Iterator[Issue]:
    """What a method asks of the rest of the protocol; and shares are fractions."""
    covariates = parts.section(Covariates, "covariates")
    treatment = parts.get(Treatment, "treatment")
    for path, analysis in parts.each(AnalysisSpec, "analysis"):
        if analysis.method == "matching" and covariates and not covariates.numeric and not covariates.categorical:
            yield Issue(path, "study.no_covariates", {"id": analysis.id})
        if analysis.method == "experiment" and treatment and treatment.design != "randomised":
            yield Issue((*path, "method"), "study.not_randomised", {"id": analysis.id})
    for path, outcome in parts.each(Outcome, "outcome"):
        if outcome.kind != "flow" and outcome.unit != "fraction":
            yield Issue((*path, "unit"), "study.unit_of_kind", {"kind": outcome.kind, "unit": outcome.unit})
