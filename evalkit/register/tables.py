"""The register: checked tables with fixed names, in memory, and the road from the files of a study to them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pyarrow as pa

from evalkit.errors import DataError, Fault
from evalkit.register import checks, statements
from evalkit.register.cells import ROW
from evalkit.register.dialect import AUTO, Notice, settle, unheard
from evalkit.register.engine import Engine
from evalkit.register.filled import filled_in
from evalkit.register.keys import compose
from evalkit.register.panel import read_adopted
from evalkit.register.reader import Raw, check_columns, plain_table
from evalkit.register.schema import (
    MANY_TABLES,
    ROW_ID,
    TABLES,
    UNKNOWN,
    Check,
    Field,
    Input,
    Quarantined,
    fields,
    required,
    shape,
    wanted,
)
from evalkit.register.sources import read_source
from evalkit.study.rules import SPARK

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.register.spark import Spark, SparkEngine
    from evalkit.study import Data, Study

Loads = dict[str, tuple[Raw, tuple[Field, ...]]]
"""By table: the file as read and the columns wanted of it."""

_SIFTED = "__sifted_{}"


@dataclass(frozen=True)
class Register:
    """Checked register tables; only rows that can be used are in them.

    Parameters
    ----------
    persons, benefits, episodes, jobs:
        Lazy frames with the fixed schema (see ``docs/register.md``); ``jobs`` is None when the study has none.
    window:
        First and last observed day, both included.
    inputs:
        The files with their checksums.
    about_files:
        What there is to say about the files themselves.
    quarantine:
        How many rows were set aside, by table and reason.
    survey:
        The checks, which are run when ``findings`` is asked for.
    changes, areas:
        By covariate that changes over time: its values by person and day, or its figures by area and month.
    adopted:
        By unit, where the study gives days of adoption.
    """

    persons: nw.LazyFrame = field(repr=False)
    benefits: nw.LazyFrame = field(repr=False)
    episodes: nw.LazyFrame = field(repr=False)
    jobs: nw.LazyFrame | None = field(repr=False)
    window: tuple[dt.date, dt.date]
    inputs: tuple[Input, ...]
    about_files: tuple[Check, ...]
    quarantine: tuple[Quarantined, ...]
    engine: Engine | SparkEngine = field(repr=False, compare=False)
    survey: checks.Survey = field(repr=False, compare=False)
    changes: Mapping[str, nw.LazyFrame] = field(default_factory=dict, repr=False)
    areas: Mapping[str, nw.LazyFrame] = field(default_factory=dict, repr=False)
    adopted: Mapping[str, dt.date] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in (*MANY_TABLES, "adopted"):
            object.__setattr__(self, kind, MappingProxyType(dict(getattr(self, kind))))

    @cached_property
    def findings(self) -> tuple[Check, ...]:
        """What the checks found: in the files, in the rows set aside and in those that stay."""
        return (*self.about_files, *self.survey.checks())

    def arrays(self, name: str, places: bool = False) -> dict[str, np.ndarray]:
        """A table as numpy arrays, sorted by person, start and end (open ends last); ``changes.household`` is one too.

        Dates are ``datetime64[D]`` with NaT, text is object with None, the row numbers ``spell``, ``episode`` and
        ``job`` are int64 from 0, every other number is float64 with NaN. With ``places`` a person is the number of his
        row in the table of persons, which is much smaller than his key.

        Raises
        ------
        KeyError
            When the register has no such table.
        """
        kind, _, one = name.partition(".")
        if one not in getattr(self, kind) if kind in MANY_TABLES else name not in TABLES or getattr(self, name) is None:
            raise KeyError(name)
        return self.engine.arrays(name, places)

    def set_aside(self, name: str) -> nw.LazyFrame:
        """The rows of a table that could not be used: ``__row`` (record in the file, from 1), ``__reason``, fields.

        Microdata, for the owner of the data to look into; it stays in memory.
        """
        sifted = self.engine.frame(_SIFTED.format(name))
        return sifted.filter(~nw.col(checks.REASON).is_null()).sort(ROW)


@dataclass
class _Found:
    """What is gathered while the tables are built."""

    faults: list[Fault] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)

    def about(self, place: str) -> bool:
        """Whether there is a fault at or below a place."""
        return any(fault.place.startswith(place) for fault in self.faults)

    def raise_faults(self) -> None:
        if self.faults:
            raise DataError(self.faults)


def _data_of(study: Study) -> Data:
    if study.data is None:
        raise DataError(Fault("data.not_a_register", {}, "data"))
    return study.data


def _load(study: Study, data: Data, found: _Found, notice: Notice, spark: Spark | None = None) -> Loads:
    """Read all files, or the tables in Spark; faults of all of them together."""
    loads: Loads = {}
    for table, spec in data.tables.items():
        columns = fields(study, table)
        try:
            if spark:
                raw = spark.read(table, spec, columns)
            else:
                raw = read_source(spec, study.folder, data.format, f"data.{table}")
        except DataError as error:
            found.faults += error.faults
            continue
        about_file, aside, faults = checks.records(table, raw)
        found.checks += about_file
        found.quarantine += aside
        found.faults += [*faults, *check_columns(raw, wanted(columns), data.format, f"data.{table}.columns")]
        raw, restored = compose(table, raw, columns)
        found.checks += [*filled_in(study, table), *restored]
        if spark:
            found.checks += spark.blanks(table, raw, columns)
            settled, dialect, faults = settle(spark.texts(raw, columns), columns, data.format, "data.format")
            raw = replace(raw, layout=settled.layout)
        else:
            raw, dialect, faults = settle(raw, columns, data.format, "data.format")
        found.faults += faults
        notice(dialect)
        loads[table] = raw, columns
    return loads


def _sift(
    engine: Engine | SparkEngine, table: str, frame: nw.LazyFrame, rules: tuple[checks.Rule, ...], found: _Found
) -> nw.LazyFrame:
    """Set aside the rows of a table that cannot be used, and count them; the usable rows come back.

    ``frame``: all rows, with the reason of each.
    """
    sifted = engine.keep(_SIFTED.format(table), frame)
    counts = checks.reasons(sifted)
    rows = sum(counts.values())
    dropped, aside = checks.set_aside(table, rules, counts, rows)
    found.quarantine += aside
    usable = sifted.filter(nw.col(checks.REASON).is_null())

    place = f"data.{table}"
    orphans = counts.get("orphan.person", 0)
    blamed = found.about("data.persons")  # faulty persons would make orphans of everyone
    if rows and orphans >= checks.HALF * rows and not blamed:
        params = {"table": table, "count": orphans, "share": orphans / rows}
        found.faults.append(Fault("data.orphans", params, f"{place}.columns.person"))
    if table == "persons" and (count := checks.conflicting(usable)):
        found.faults.append(Fault("data.conflicting_persons", {"count": count}, f"{place}.columns.person"))
    if not counts.get("") and not blamed and not found.about(place) and table != "jobs":
        codes = ", ".join(dict.fromkeys(check.code for check in dropped))
        found.faults.append(Fault("data.no_rows", {"table": table, "count": rows, "checks": codes}, place))
    return usable


def _finish(
    engine: Engine | SparkEngine,
    table: str,
    usable: nw.LazyFrame,
    columns: tuple[Field, ...],
    window: tuple[dt.date, dt.date],
) -> nw.LazyFrame:
    """The table as the rest of evalkit sees it: fixed columns only, sorted, numbered."""
    names = [column.name for column in columns]
    frame = usable.select(*names)
    match shape(table):
        case "persons":
            return engine.keep_sorted(table, frame.with_columns(checks.birth_year(window)), ["person"])
        case "benefits":  # a spell that still runs has no reason yet
            reason = nw.when(~nw.col("end").is_null()).then(nw.col("reason").fill_null(UNKNOWN)).otherwise(None)
            frame = frame.with_columns(reason.alias("reason"))
        case "episodes":
            frame = frame.with_columns(nw.col("type").fill_null(UNKNOWN))
        case "areas":
            return engine.keep_sorted(table, frame, ["area", "month", "value"], ROW_ID["areas"])
        case "changes":  # of rows with the same start the last one in this order counts
            order = ["person", "start", *(name for name in ("registered",) if name in names), "end", "value"]
            order += [name for name in names if name not in order]
            return engine.keep_sorted(table, frame, order, ROW_ID["changes"])
    first = ["person", "start", "end"]
    order = first + [name for name in names if name not in first]
    return engine.keep_sorted(table, frame, order, ROW_ID[table])


def _build(
    study: Study,
    data: Data,
    loads: Loads,
    found: _Found,
    engine: Engine | SparkEngine | None = None,
    notice: Notice = unheard,
) -> Register:
    """Type, sift, check and sort the tables, in an engine of their own unless one is given."""
    adopted, adoption = read_adopted(study, notice)
    window = (data.window.first, data.window.last)
    day = "referral" if study.time.clock == "referral" else "start"
    engine = engine or Engine()
    if data.format.date != AUTO:
        engine.check_date_format(data.format.date, "data.format.date")
    frames: dict[str, nw.LazyFrame] = {}
    surveyed: dict[str, checks.Sifted] = {}
    for table, (raw, columns) in loads.items():
        held = raw.table if raw.native is None else raw.native
        typed = engine.type_table(f"__typed_{table}", held, raw.header, columns, raw.layout or data.format)
        found.faults += checks.unreadable(table, columns, typed)
        if table == "episodes":
            typed = checks.points(typed, study.events)
        if table != "persons" and shape(table) != "areas":
            known = frames["persons"].select("person", nw.lit(True).alias(checks.KNOWN))
            typed = typed.join(known, on="person", how="left")
        found.checks += checks.blanks(table, raw, columns)
        drops = _drops(table, columns, window, day == "referral")
        again = checks.duplicate(table)
        rules: tuple[checks.Rule, ...] = (*drops, again)
        if statements.stated(columns):
            drops, later = statements.rules(drops)
            typed = statements.dated(table, typed)
            rows = engine.keep(f"__rows_{table}", checks.sift(typed, drops, columns, again.key))
            found.checks += statements.absent_months(table, rows)
            sifted = statements.join(table, rows, columns, later, window)
            rules = (*drops, again, *later)
        else:
            sifted = checks.sift(typed, drops, columns, again.key)
        usable = _sift(engine, table, sifted, rules, found)
        engine.drop(f"__typed_{table}")
        if statements.stated(columns):
            engine.drop(f"__rows_{table}")
        sifted = engine.frame(_SIFTED.format(table))
        surveyed[table] = checks.Sifted(sifted, columns, rules, checks.notes(table, columns, window))
        frames[table] = _finish(engine, table, usable, columns, window)
    found.raise_faults()
    inputs = (*(Input(raw.name, raw.sha256, raw.rows) for raw, _ in loads.values()), *adoption)
    loads.clear()
    pa.default_memory_pool().release_unused()  # the files as read are several times the size of the tables
    tables = (frames["persons"], frames["benefits"], frames["episodes"], frames.get("jobs"))
    survey = checks.Survey(study, window, frames, surveyed, engine.keep)
    changes = {name: frames[f"changes.{name}"] for name in data.changes}
    areas = {name: frames[f"areas.{name}"] for name in data.areas}
    about = (tuple(found.checks), tuple(found.quarantine))
    return Register(*tables, window, inputs, *about, engine, survey, changes, areas, adopted)


def _drops(
    table: str, columns: tuple[Field, ...], window: tuple[dt.date, dt.date], by_referral: bool
) -> tuple[checks.Rule, ...]:
    """The conditions under which a row of any table is set aside."""
    if shape(table) in MANY_TABLES:
        return checks.changing_drops(shape(table), columns)
    return checks.drop_rules(table, window, by_referral=by_referral)


def read(study: Study, notice: Notice = unheard) -> Register:
    """Read and check the register tables of a study.

    Parameters
    ----------
    study:
        A study with ``[data]``; files are looked for in its data folder.
    notice:
        Is told how each file turned out to be written, before its contents are used.

    Raises
    ------
    DataError
        With all faults of all files together: first those of files and columns, then those of their contents.
        ``docs/register.md`` lists the codes.
    """
    data = _data_of(study)
    if data.persons.database == SPARK:
        from evalkit.register.spark import active_session

        return from_spark(study, active_session(), notice)
    found = _Found()
    loads = _load(study, data, found, notice)
    found.raise_faults()
    return _build(study, data, loads, found, notice=notice)


def from_spark(study: Study, session: Any, notice: Notice = unheard, **tables: Any) -> Register:
    """Read and check the register tables of a study in a Spark session; they stay there.

    Parameters
    ----------
    session:
        A session of pyspark 4.
    tables:
        By name (``persons``, ``benefits``, ..) a Spark frame or the name of a table, with the columns and codes of the
        study file. Without, the tables that the study file names.

    Raises
    ------
    DataError
        As ``read``.
    """
    from evalkit.register.spark import Spark, SparkEngine

    data = _data_of(study)
    found = _Found()
    loads = _load(study, data, found, notice, Spark(session, tables))
    found.raise_faults()
    return _build(study, data, loads, found, SparkEngine(session), notice)


def _frame(table: str, frame: pd.DataFrame, columns: tuple[Field, ...]) -> Raw:
    """A pandas frame as if it were a file."""
    plain: dict[str, pa.ChunkedArray | None] = {}
    for name in [column.name for column in columns if column.name in frame]:
        try:
            values = pa.array(frame[name], from_pandas=True)
            plain[name] = pa.chunked_array([values]) if isinstance(values, pa.Array) else values
        except (pa.ArrowException, TypeError, ValueError):  # mixed types: check_columns names the column
            plain[name] = None
    return plain_table(plain, name=table, sha256="")


def from_frames(
    study: Study,
    *,
    persons: pd.DataFrame,
    benefits: pd.DataFrame,
    episodes: pd.DataFrame,
    jobs: pd.DataFrame | None = None,
    changes: Mapping[str, pd.DataFrame] | None = None,
    areas: Mapping[str, pd.DataFrame] | None = None,
) -> Register:
    """A register from pandas frames that have the fixed names, types and codes already; same checks as ``read``.

    Every column that the study maps must be there under its fixed name. Text dates are read in the study's format.
    ``changes`` and ``areas`` hold a frame for each covariate that changes, by its name.

    Raises
    ------
    DataError
        As ``read``.
    """
    data = _data_of(study)
    found = _Found()
    loads: Loads = {}
    given = dict(zip(TABLES, (persons, benefits, episodes, jobs), strict=True))
    for kind, several in (("changes", changes), ("areas", areas)):
        given |= {f"{kind}.{name}": (several or {}).get(name) for name in getattr(data, kind)}
    for table, frame in given.items():
        if frame is None:
            if shape(table) in MANY_TABLES:
                found.faults.append(Fault("data.empty_file", {"file": table}, table))
            continue
        columns = fields(study, table, present=[str(name) for name in frame.columns])
        if len(frame) == 0 and table != "jobs":
            found.faults.append(Fault("data.empty_file", {"file": table}, table))
            continue
        raw = _frame(table, frame, columns)
        needed = {name: name for name in required(study, table)} | wanted(columns)
        found.faults += check_columns(raw, needed, data.format, table)
        raw, _, faults = settle(raw, columns, data.format, "data.format")
        found.faults += faults
        loads[table] = raw, columns
    found.raise_faults()
    return _build(study, data, loads, found)
