"""Every check of a register: what was set aside and kept, and the rules on rows, days and columns, each by arm."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pyarrow as pa

from evalkit import calendar
from evalkit.register.checks import facts
from evalkit.register.checks.changing import CHANGING_RULES, changing_facts, without_figures
from evalkit.register.checks.columns import BIRTH_RULES, COLUMN_RULES, Column, column_checks
from evalkit.register.checks.days import BUSY, Days, day_checks
from evalkit.register.checks.facts import STARTER, Context
from evalkit.register.checks.rows import CLOCK, REASON, Rule
from evalkit.register.checks.rules import ROW_RULES
from evalkit.register.schema import COLUMNS, EXTRA, MANY_TABLES, TABLES, UNKNOWN, Check, Field, by_arm, shape

if TYPE_CHECKING:
    from evalkit.study import Study

_NO_ARM = ("person_missing", "orphan")
"""Rows of which it is not known to whom they belong."""


@dataclass(frozen=True)
class Sifted:
    """A table before rows were set aside (with ``__reason``), its fields, and the rules by which that was done."""

    frame: nw.LazyFrame
    fields: tuple[Field, ...]
    drops: tuple[Rule, ...]
    notes: tuple[Rule, ...]


@dataclass(frozen=True)
class Survey:
    """The tables of a register, ready to be looked at; ``checks()`` does so.

    ``keep`` computes a lazy frame once and gives it back as a table, so that who starts is worked out once.
    """

    study: Study
    window: tuple[dt.date, dt.date]
    frames: Mapping[str, nw.LazyFrame]
    sifted: Mapping[str, Sifted]
    keep: Callable[[str, nw.LazyFrame], nw.LazyFrame]

    @cached_property
    def context(self) -> Context:
        """What the rules need to know of the study."""
        study = self.study
        ages, amounts = study.eligibility.age, study.spells.job_amounts
        own = study.instrument(study.treatment.instrument)
        composed = study.data is not None and not isinstance(study.data.persons.columns.get("person", ""), str)
        of_study = (study.time.clock, ages, amounts, own.order or 1, study.events, composed)
        return Context(self.window, own.parts, *of_study)

    @cached_property
    def started(self) -> nw.LazyFrame:
        """Who starts the instrument."""
        return self.keep("__started", facts.starters(self.frames["episodes"], self.context))

    def checks(self) -> tuple[Check, ...]:
        """All that was found, table by table."""
        found: list[Check] = []
        for table in self.frames:
            found += self._sorting(table)
            found += self._rows(table)
        for column in self.columns():
            found += column_checks("persons", column, BIRTH_RULES if column.name == "birth_year" else COLUMN_RULES)
        for table, column in self._changing_columns():
            found += column_checks(table, column)
        for days in self.days():
            found += day_checks(days)
        return (*found, *self._jobs(), *self._areas())

    def facts(self, table: str) -> nw.LazyFrame:
        """What the row rules of a table look at."""
        if shape(table) in MANY_TABLES:
            return changing_facts(shape(table), self._armed(table, self.frames[table]), self.window[1])
        return facts.FACTS[table](self.frames, self.started, self.context)

    def rules(self, table: str) -> list[tuple[Rule, str]]:
        """The row rules of a table whose column is mapped, each with that column."""
        mapped = self._mapped(table) | (self._mapped("persons") & {"birth_year"})
        all_rules = CHANGING_RULES[shape(table)] if shape(table) in MANY_TABLES else ROW_RULES[table]
        rules = [(rule, self.context.clock if rule.column == CLOCK else rule.column) for rule in all_rules]
        return [(rule, column) for rule, column in rules if not column or column in mapped]

    def _mapped(self, table: str) -> set[str]:
        return {field.name for field in self.sifted[table].fields if field.own}

    def _armed(self, table: str, frame: nw.LazyFrame) -> nw.LazyFrame:
        """A frame with whether the row's person starts the instrument; False where a row is about no person."""
        if shape(table) == "areas":
            return frame.with_columns(nw.lit(False).alias(STARTER))
        return facts.with_arm(frame, self.started)

    def _sorting(self, table: str) -> Iterator[Check]:
        """What was set aside, and what is counted in the rows that stayed as they came."""
        sifted = self.sifted[table]
        sums = {f"n{i}": rule.test.cast(nw.Int64).sum() for i, rule in enumerate(sifted.notes)}
        by_reason = self._armed(table, sifted.frame).group_by(REASON, STARTER)
        rows = _table(by_reason.agg(nw.len().alias("rows"), **sums))
        totals = _by_arm(rows, "rows")
        for rule in sifted.drops:
            counts = _by_arm([row for row in rows if row[REASON] == rule.key], "rows")
            if count := sum(counts.values()):
                arms = {} if rule.code in _NO_ARM or shape(table) == "areas" else by_arm(counts, totals)
                share = count / sum(totals.values())
                yield Check(rule.code, rule.severity, table, count, share, {"column": rule.column}, arms=arms)
        kept = [row for row in rows if row[REASON] is None]
        totals = _by_arm(kept, "rows")
        for i, rule in enumerate(sifted.notes):
            counts = _by_arm(kept, f"n{i}")
            if count := sum(counts.values()):
                arms = {} if shape(table) == "areas" else by_arm(counts, totals)
                share = count / sum(totals.values())
                yield Check(rule.code, rule.severity, table, count, share, {"column": rule.column}, arms=arms)

    def _rows(self, table: str) -> Iterator[Check]:
        """The rules on rows, all in one pass."""
        rules = self.rules(table)
        sums: dict[str, nw.Expr] = {}
        for i, (rule, _) in enumerate(rules):
            test = rule.test if rule.among is None else rule.test & rule.among
            sums[f"n{i}"] = test.cast(nw.Int64).sum()
            sums[f"of{i}"] = nw.len() if rule.among is None else rule.among.cast(nw.Int64).sum()
        rows = _table(self.facts(table).group_by(STARTER).agg(**sums))
        for i, (rule, column) in enumerate(rules):
            counts, totals = _by_arm(rows, f"n{i}"), _by_arm(rows, f"of{i}")
            count, of = sum(counts.values()), sum(totals.values())
            if count and of >= rule.rows and count >= rule.least * of:
                arms = {} if shape(table) == "areas" else by_arm(counts, totals)
                yield Check(rule.code, rule.severity, table, count, count / of, {"column": column}, arms=arms)

    def columns(self) -> Iterator[Column]:
        """Covariates, subgroups and the birth year, counted."""
        study = self.study
        used = [*study.covariates.numeric, *study.covariates.categorical, *(group.name for group in study.subgroups)]
        fixed = (set(COLUMNS["persons"]) | set(EXTRA["persons"])) - {"birth_year"}
        wanted = [f for f in self.sifted["persons"].fields if f.own and f.name in {*used, "birth_year"} - fixed]
        own = {f"__value{i}": nw.col(field.name) for i, field in enumerate(wanted)}
        persons = facts.with_arm(self.frames["persons"].select("person", **own), self.started)
        for field, name in zip(wanted, own, strict=True):
            counts = persons.group_by(name, STARTER).agg(nw.len().alias("rows"))
            values, starter, count = _arrays(counts, name, STARTER, "rows")
            numeric = field.kind in ("number", "integer")
            yield Column(
                field.name, values, starter.astype(bool), count.astype(np.int64), numeric, study.disclosure.minimum
            )

    def days(self) -> Iterator[Days]:
        """Everything that happens on days, counted."""
        clock, instrument = self.context.clock, self.context.own
        lasting = ~nw.col("type").is_in(list(self.context.events)) if self.context.events else None
        frames = {
            table: facts.with_arm(self.frames[table], self.started) for table in TABLES[1:] if table in self.frames
        }
        kinds = [
            ("entries", "benefits", "start", "", None),
            ("exits", "benefits", "end", "reason", None),
            ("starts", "episodes", clock, "", instrument),
            ("episodes", "episodes", "start", "type", None),
            ("episode_ends", "episodes", "end", "", lasting),
            ("jobs", "jobs", "start", "", None),
        ]
        first, last = (nw.lit(day) for day in self.window)
        for name, table, column, code, which in kinds:
            if table not in frames:
                continue
            within = (nw.col(column) >= first) & (nw.col(column) <= last)
            frame = frames[table].filter(within if which is None else within & which)
            keys = [column, STARTER, *([code] if code else [])]
            counts = frame.group_by(*keys).agg(nw.len().alias("rows"))
            day, starter, *codes, count = _arrays(counts, *keys, "rows")
            order = np.lexsort((starter, day))
            names = [f.codes.values() for f in self.sifted[table].fields if f.name == code and f.own and f.codes]
            yield Days(
                name,
                table,
                column,
                day.astype("datetime64[D]").astype(np.int64)[order],
                codes[0][order] if codes else np.full(len(day), "", object),
                starter.astype(bool)[order],
                count.astype(np.int64)[order],
                calendar.day_number(self.window[0]),
                calendar.day_number(self.window[1]),
                self.study.time.horizon + self.study.look_ahead,
                code,
                tuple(name for name in dict.fromkeys(itertools.chain(*names)) if name != UNKNOWN),
                self.study.disclosure.minimum,
                self.study.data.tables[table].layout if self.study.data else "",
            )

    def _jobs(self) -> Iterator[Check]:
        """Jobs of which one arm has none, though it is large enough to have had some."""
        if "jobs" not in self.frames:
            return
        working = self.frames["jobs"].select("person", nw.lit(True).alias("works")).unique()
        persons = facts.with_arm(self.frames["persons"].join(working, on="person", how="left"), self.started)
        some = (~nw.col("works").is_null()).cast(nw.Int64).sum()
        rows = _table(persons.group_by(STARTER).agg(nw.len().alias("rows"), works=some))
        counts, totals = _by_arm(rows, "works"), _by_arm(rows, "rows")
        for arm in (True, False):
            other = counts.get(not arm, 0) / max(totals.get(not arm, 0), 1)
            if totals.get(arm) and not counts[arm] and other * totals[arm] >= 2 * BUSY:
                without = {side: totals[side] - counts[side] for side in totals}
                count, of = sum(without.values()), sum(totals.values())
                yield Check("jobs_one_arm", "error", "jobs", count, count / of, {}, arms=by_arm(without, totals))

    def _changing_columns(self) -> Iterator[tuple[str, Column]]:
        """The values of each covariate that changes, every person once for each of his values."""
        for table in (name for name in self.frames if shape(name) == "changes"):
            one = self._armed(table, self.frames[table].select("person", "value").unique())
            counts = one.group_by("value", STARTER).agg(nw.len().alias("rows"))
            values, starter, count = _arrays(counts, "value", STARTER, "rows")
            numeric = any(f.name == "value" and f.kind == "number" for f in self.sifted[table].fields)
            name, least = table.partition(".")[2], self.study.disclosure.minimum
            yield table, Column(name, values, starter.astype(bool), count.astype(np.int64), numeric, least)

    def _areas(self) -> Iterator[Check]:
        """Persons of whose area there are no figures."""
        assert self.study.data is not None
        for name, spec in self.study.data.areas.items():
            changes = f"changes.{spec.area}"
            frame, column = (self.frames["persons"], spec.area)
            if changes in self.frames:
                frame, column = self.frames[changes].select("person", "value").unique(), "value"
            told = without_figures(self._armed("persons", frame), column, self.frames[f"areas.{name}"])
            lacking = (~nw.col("__told")).cast(nw.Int64).sum()
            rows = _table(told.group_by(STARTER).agg(nw.len().alias("rows"), lacking=lacking))
            counts, totals = _by_arm(rows, "lacking"), _by_arm(rows, "rows")
            if count := sum(counts.values()):
                arms, params = by_arm(counts, totals), {"column": spec.area}
                share = count / sum(totals.values())
                yield Check("area_without_figures", "warn", f"areas.{name}", count, share, params, arms=arms)


def _table(frame: nw.LazyFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = frame.collect("pyarrow").to_native().to_pylist()
    return rows


def _by_arm(rows: Sequence[Mapping[str, Any]], name: str) -> dict[bool, int]:
    counts: dict[bool, int] = {}
    for row in rows:
        counts[bool(row[STARTER])] = counts.get(bool(row[STARTER]), 0) + int(row[name] or 0)
    return counts


def _arrays(frame: nw.LazyFrame, *names: str) -> list[np.ndarray]:
    """Columns as numpy arrays."""
    table: pa.Table = frame.collect("pyarrow").to_native()
    return [_numpy(table.column(name)) for name in names]


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_date(column.type):
        return np.asarray(column.to_numpy())
    return np.asarray(column.to_pylist(), object) if pa.types.is_string(column.type) else np.asarray(column.to_numpy())
