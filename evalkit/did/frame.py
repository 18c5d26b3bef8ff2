"""A panel from a data frame: columns checked, rows sorted, what is dropped counted.

Faults tell all that is wrong with the columns at once, with names and counts, never a value of a row.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import narwhals as nw
import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.design import factor
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Array, frozen
from evalkit.errors import DataError, DesignError, Fault
from evalkit.exhibits import Finding

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DroppedRows:
    """Rows left out for one reason, and of how many units no row was left after that.

    ``reason``: ``missing_unit``, ``missing_period``, ``missing_outcome``, ``missing_covariate``, ``missing_weight``,
    ``zero_weight``.
    """

    reason: str
    rows: int
    units: int


@dataclass(frozen=True)
class PanelFrame:
    """A frame as a panel.

    Attributes
    ----------
    panel: what the estimators take.
    dropped: rows left out, by reason.
    notes: what was found that is no fault: gaps, periods that nobody is seen in, cohorts of one unit, units treated
        from the first period on, no unit that is never treated. Sentences stand under ``finding.<code>``.
    labels: (T,) the periods as text: ``2019``, ``2019-04``, ``2019 Q2``, or the number itself.
    period_months: months in a period where dates tell it, else None.
    rows: (n,) which row of the frame each row of the panel is.
    fate: (rows of the frame) the place in ``dropped`` of the reason that took a row; -1 when it is in the panel.
    unit_of, ever_treated: (rows of the frame) a number for the unit of each row, -1 without one, and whether that unit
        is treated in some period of the frame.
    """

    panel: Panel
    dropped: tuple[DroppedRows, ...]
    notes: tuple[Finding, ...]
    labels: tuple[str, ...]
    period_months: int | None
    rows: Ints = field(repr=False)
    fate: Ints = field(repr=False)
    unit_of: Ints = field(repr=False)
    ever_treated: Mask = field(repr=False)


def panel_from_frame(
    frame: IntoDataFrame,
    *,
    period: str,
    outcome: str,
    unit: str | None = None,
    first_treated: str | None = None,
    treated: str | None = None,
    cluster: str | None = None,
    weight: str | None = None,
    covariates: Sequence[str] = (),
    repeated: bool = False,
    persons: str | None = None,
) -> PanelFrame:
    """A panel from a data frame (pandas, polars, pyarrow, anything narwhals takes), in any order of rows.

    Parameters
    ----------
    period: whole numbers from 1, or dates: the first days of months, quarters or years then become months and quarters
        numbered from 1, or years.
    outcome: numbers. Rows without one are dropped and counted.
    unit: who or what is followed. With ``repeated`` it may be left out; given, it is the cluster unless another is.
    first_treated: the first treated period of the unit, the same in all its rows, on the scale of ``period``; empty, 0
        or infinite: never. Or ``treated``: 0 or 1 in every row, 1 from the first treated period on.
    cluster: the level at which treatment was decided, the same in all rows of a unit.
    weight: sampling weights, zero or more; rows of weight zero are dropped and counted.
    covariates: numbers as they are, texts as 0/1 columns ``name:level`` for all levels but the first.
    repeated: cross-sections: every row is a unit of its own; treatment is told by ``first_treated`` only, that of the
        group the row belongs to.
    persons: how many persons are beneath a row, for disclosure.

    Raises
    ------
    DataError
        ``did.missing_columns``, ``did.no_treatment``, ``did.two_treatments``, ``did.repeated_treated``,
        ``did.unit_needed``, ``did.not_numeric``, ``did.outcome_infinite``, ``did.covariate_infinite``,
        ``did.period_not_whole``, ``did.period_below_one``, ``did.period_coded``, ``did.period_days``,
        ``did.treated_not_binary``,
        ``did.first_not_whole``, ``did.first_not_alike``, ``did.duplicate_rows``, ``did.treatment_stops``,
        ``did.first_changes``, ``did.cluster_changes``, ``did.cluster_missing``, ``did.weight_negative``,
        ``did.persons_negative``, ``did.no_rows``.
    DesignError
        ``did.one_period``, ``did.no_treated``, ``did.no_period_before``, ``did.no_comparison``.
    """
    table = nw.from_native(frame, eager_only=True)
    faults = _roles(table, unit, first_treated, treated, repeated)
    named = [period, outcome, *(unit, first_treated, treated, cluster, weight, persons), *covariates]
    absent = [name for name in dict.fromkeys(named) if name is not None and name not in table.columns]
    if absent:
        faults.append(Fault("did.missing_columns", {"names": ", ".join(absent), "known": ", ".join(table.columns)}))
    if faults:
        raise DataError(faults)
    read = _Reader(table, faults)
    clock = read.clock(period, first_treated)
    y = read.numbers(outcome, "did.outcome_infinite")
    x, names, x_gap = read.covariates(covariates)
    weights = read.numbers(weight) if weight else np.ones(len(y))
    if (weights < 0).any():
        faults.append(Fault("did.weight_negative", {"column": weight, "count": int((weights < 0).sum())}))
    beneath = read.numbers(persons) if persons else np.ones(len(y))
    if not (beneath >= 0).all():
        faults.append(Fault("did.persons_negative", {"column": persons, "count": int((~(beneath >= 0)).sum())}))
    units, unit_gap = read.names(unit) if unit else (np.arange(len(y)), np.zeros(len(y), bool))
    placed = ~unit_gap & ~np.isnan(clock.number)
    if treated is None:
        first = clock.first
    else:
        first = read.switched_on(treated, units, clock.number, placed)
    if cluster:
        groups, absent_group = read.names(cluster)
        if (absent_group & placed).any():
            faults.append(
                Fault("did.cluster_missing", {"column": cluster, "count": int((absent_group & placed).sum())})
            )
    else:
        groups = units
    code = np.where(unit_gap, -1, np.unique(units, return_inverse=True)[1])
    if not repeated and unit:
        faults += _alike(
            code[placed], clock.number[placed], first[placed], groups[placed], unit, first_treated, cluster
        )
    if faults:
        raise DataError(faults)

    steps = (
        ("missing_unit", unit_gap),
        ("missing_period", np.isnan(clock.number)),
        ("missing_outcome", np.isnan(y)),
        ("missing_covariate", x_gap),
        ("missing_weight", np.isnan(weights)),
        ("zero_weight", weights == 0),
    )
    fate, dropped = _drop(steps, np.arange(len(y)) if repeated else code)
    rows = np.flatnonzero(fate < 0)
    if not len(rows):
        raise DataError(Fault("did.no_rows", {"count": len(y)}))
    rows = rows[_order(rows, clock.number, code, repeated, first, groups, y, weights, beneath, x)]
    clock_first = first
    first, between = _snapped(first[rows], np.unique(clock.number[rows]))
    panel = Panel.of(
        units[rows], clock.number[rows], y[rows], first, weight=weights[rows] if weight else None, x=x[rows],
        names=names, cluster=groups[rows] if cluster or (repeated and unit) else None,
        level=cluster or unit or "unit", repeated=repeated,
    )  # fmt: skip
    if persons:
        panel = replace(panel, person_rows=frozen(beneath[rows], np.int64))
    check_design(panel)
    notes = [*panel_notes(panel)]
    if between:
        notes.append(_note("panel_first_between", between))
    if treated is not None and not repeated and (late := _started_in_gap(panel)):
        notes.append(_note("panel_start_in_gap", late, "warn"))
    labels = tuple(clock.label(int(number)) for number in panel.periods)
    ever = clock_first <= np.nanmax(clock.number)
    return PanelFrame(
        panel, dropped, tuple(notes), labels, clock.months, frozen(rows, np.int64), frozen(fate, np.int64),
        frozen(np.arange(len(y)) if repeated else code, np.int64), frozen(ever, bool),
    )  # fmt: skip


def _roles(table: Any, unit: str | None, first_treated: str | None, treated: str | None, repeated: bool) -> list[Fault]:
    """Which columns must be named, and which cannot be together."""
    faults = []
    if first_treated is None and treated is None:
        faults.append(Fault("did.no_treatment", {}))
    if first_treated is not None and treated is not None:
        faults.append(Fault("did.two_treatments", {"first": first_treated, "second": treated}))
    elif repeated and treated is not None:
        faults.append(Fault("did.repeated_treated", {"column": treated}))
    if unit is None and not repeated:
        faults.append(Fault("did.unit_needed", {}))
    return faults


@dataclass(frozen=True)
class _Clock:
    """Periods as whole numbers (NaN missing), first treated periods on the same scale (infinite: never)."""

    number: Array
    first: Array
    label: Callable[[int], str]
    months: int | None


class _Reader:
    """Columns of a frame as arrays; what is wrong with them is added to ``faults``."""

    def __init__(self, table: Any, faults: list[Fault]):
        self.table, self.faults = table, faults

    def _missing(self, name: str) -> tuple[NDArray[Any], Mask]:
        values = np.empty(len(self.table), object)
        values[:] = self.table[name].to_list()
        return values, np.asarray(pd.isna(values), bool)

    def _as_numbers(self, name: str) -> Array | None:
        """A column of numbers or booleans, NaN where empty; None when it holds anything else."""
        kind = self.table[name].dtype
        found: Array | None = None
        with contextlib.suppress(Exception):  # the words of an error may quote a value
            if kind.is_numeric():
                found = np.array(self.table[name].cast(nw.Float64).to_numpy(), float)
            elif kind in (nw.Boolean, nw.Object, nw.Unknown):
                values, gap = self._missing(name)
                if all(isinstance(value, int | float | np.number | np.bool_) for value in values[~gap]):
                    found = np.full(len(values), np.nan)
                    found[~gap] = values[~gap].astype(float)
            elif not kind.is_temporal() and self.table[name].is_null().all():
                found = np.full(len(self.table), np.nan)
        return found

    def _as_days(self, name: str) -> NDArray[np.datetime64] | None:
        """A column of dates, NaT where empty; None when it holds anything else. Of a moment the day counts."""
        if self._as_numbers(name) is not None:
            return None
        values, gap = self._missing(name)
        if not all(isinstance(value, dt.date | np.datetime64) for value in values[~gap]):
            return None
        days = np.full(len(values), "NaT", "datetime64[D]")
        plain = [value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value for value in values[~gap]]
        days[~gap] = np.array(plain, "datetime64[D]")
        return days

    def numbers(self, name: str, infinite: str = "") -> Array:
        """A column as float64; text, dates and (where there is a code for it) infinite values are faults."""
        found = self._as_numbers(name)
        if found is None:
            self.faults.append(Fault("did.not_numeric", {"column": name}))
            return np.full(len(self.table), 1.0)
        if infinite and np.isinf(found).any():
            self.faults.append(Fault(infinite, {"column": name, "count": int(np.isinf(found).sum())}))
        return found

    def names(self, name: str) -> tuple[NDArray[Any], Mask]:
        """A column of names: whole numbers stay numbers, everything else is text; and which are empty."""
        found = self._as_numbers(name)
        if found is not None and (np.isnan(found) | (np.abs(found) < 2**53) & (found == np.floor(found))).all():
            return np.where(np.isnan(found), 0, found).astype(np.int64), np.isnan(found)
        values, gap = self._missing(name)
        return np.array(["" if absent else str(value) for value, absent in zip(values, gap, strict=True)]), gap

    def covariates(self, names: Sequence[str]) -> tuple[Array, tuple[str, ...], Mask]:
        """Columns (n, P) with their names, texts as 0/1 columns, and the rows in which one is empty."""
        columns: list[Array] = []
        labels: list[str] = []
        gap = np.zeros(len(self.table), bool)
        for name in names:
            found = self._as_numbers(name)
            if found is None:
                if self.table[name].dtype.is_temporal():
                    self.faults.append(Fault("did.not_numeric", {"column": name}))
                    continue
                values, absent = self._missing(name)
                made = factor(name, np.where(absent, "", values))
                levels = [level for level in made.levels if level or not absent.any()]
                gap |= absent
                columns += [made.codes == made.levels.index(level) for level in levels[1:]]
                labels += [f"{name}:{level}" for level in levels[1:]]
                continue
            if np.isinf(found).any():
                params = {"column": name, "count": int(np.isinf(found).sum())}
                self.faults.append(Fault("did.covariate_infinite", params))
            gap |= np.isnan(found)
            columns.append(found)
            labels.append(name)
        wide = np.column_stack(columns).astype(float) if columns else np.empty((len(self.table), 0))
        return wide, tuple(labels), gap

    def clock(self, period: str, first: str | None) -> _Clock:
        """The periods of rows, and the first treated ones where a column tells them."""
        size = len(self.table)
        days = self._as_days(period)
        if days is not None:
            return self._calendar(period, days, first)
        number = self._as_numbers(period)
        begun = np.full(size, np.inf)
        if number is None or not (np.isnan(number) | (number == np.floor(number)) & np.isfinite(number)).all():
            self.faults.append(Fault("did.period_not_whole", {"column": period}))
            number = np.full(size, np.nan)  # nothing that depends on periods is judged then
        elif (number < 1).any():
            self.faults.append(Fault("did.period_below_one", {"column": period}))
        elif _coded_months(number):
            self.faults.append(Fault("did.period_coded", {"column": period}))
        if first:
            found = self._as_numbers(first)
            if found is None and self._as_days(first) is not None:
                self.faults.append(Fault("did.first_not_alike", {"column": first, "period": period}))
            elif found is None or ((found < 0) | np.isfinite(found) & (found != np.floor(found))).any():
                self.faults.append(Fault("did.first_not_whole", {"column": first}))
            else:
                begun = np.where(np.isnan(found) | (found == 0), np.inf, found)
        return _Clock(number, begun, str, None)

    def _calendar(self, period: str, days: NDArray[np.datetime64], first: str | None) -> _Clock:
        """Periods from dates: the longest of year, quarter and month that fits all steps between them."""
        seen = np.isnat(days)
        months = calendar.month_number(days[~seen].astype(np.int64))
        different = np.unique(months)
        if len(np.unique(days[~seen])) > len(different):
            self.faults.append(Fault("did.period_days", {"column": period}))
            seen[:] = True  # nothing that depends on periods is judged then
            months = months[:0]
        step = int(np.gcd.reduce(np.diff(different))) if len(different) > 1 else 1
        length = 12 if step % 12 == 0 else 3 if step % 3 == 0 else 1
        zero = 1970 if length == 12 else 1 - int(different[0]) // length if len(different) else 1
        number = np.full(len(days), np.nan)
        number[~seen] = months // length + zero
        begun = np.full(len(days), np.inf)
        if first:
            begins = self._as_days(first)
            found = self._as_numbers(first)
            if begins is not None:
                known = ~np.isnat(begins)
                begun[known] = calendar.month_number(begins[known].astype(np.int64)) // length + zero
                begun = np.maximum(begun, number.min(initial=np.inf, where=~seen))  # 0 would be read as never
            elif found is None or not (np.isnan(found) | (found == 0) | np.isinf(found)).all():
                self.faults.append(Fault("did.first_not_alike", {"column": first, "period": period}))
        return _Clock(number, begun, lambda at: period_label(at - zero, length), length)

    def switched_on(self, name: str, units: NDArray[Any], number: Array, placed: Mask) -> Array:
        """The first treated period of the unit of each row, from a column that is 1 from then on."""
        found = self._as_numbers(name)
        never = np.full(len(number), np.inf)
        if found is None or not np.isin(found[placed], (0.0, 1.0)).all():
            self.faults.append(Fault("did.treated_not_binary", {"column": name}))
            return never
        code = np.unique(units, return_inverse=True)[1]
        first = np.full(int(code.max(initial=0)) + 1, np.inf)
        on = placed & (found == 1)
        np.minimum.at(first, code[on], number[on])
        off = placed & (found == 0) & (number >= first[code])
        if off.any():
            count = len(np.unique(code[off]))
            self.faults.append(Fault("did.treatment_stops", {"column": name, "count": count}))
        return first[code]


def period_label(number: int, length: int) -> str:
    """A calendar period as text, from its number since January 1970 in periods of 1, 3 or 12 months."""
    if length == 12:
        return str(1970 + number)
    parts = 12 // length
    year, part = 1970 + number // parts, number % parts + 1
    return f"{year}-{part:02d}" if length == 1 else f"{year} Q{part}"


def _coded_months(number: Array) -> bool:
    """Whether months seem to be written as 201911, 201912, 202001: between years the numbers jump."""
    known = number[~np.isnan(number)]
    if not len(known) or known.min() < 190001 or known.max() > 219912:
        return False
    return bool(np.isin(known % 100, np.arange(1, 13)).all() and known.max() // 100 > known.min() // 100)


def _alike(
    code: Ints, number: Array, first: Array, groups: NDArray[Any], unit: str, begins: str | None, cluster: str | None
) -> list[Fault]:
    """A unit is seen once in a period, has one first treated period and one cluster."""
    faults = []
    order = np.lexsort((number, code))
    code, number, first, groups = code[order], number[order], first[order], groups[order]
    same = code[1:] == code[:-1]
    if twice := int((same & (number[1:] == number[:-1])).sum()):
        faults.append(Fault("did.duplicate_rows", {"unit": unit, "count": twice}))
    changed = same & (first[1:] != first[:-1])
    if begins and changed.any():
        count = len(np.unique(code[1:][changed]))
        faults.append(Fault("did.first_changes", {"column": begins, "count": count}))
    moved = same & (groups[1:] != groups[:-1])
    if cluster and moved.any():
        faults.append(Fault("did.cluster_changes", {"column": cluster, "count": len(np.unique(code[1:][moved]))}))
    return faults


def _drop(steps: Sequence[tuple[str, Mask]], code: Ints) -> tuple[Ints, tuple[DroppedRows, ...]]:
    """Which step takes each row, -1 for none, and what each step took; ``code``: units, -1 without one."""
    fate = np.full(len(code), -1, np.int64)
    dropped: list[DroppedRows] = []
    for reason, mask in steps:
        out = (fate < 0) & mask
        if out.any():
            before = _count(code[fate < 0])
            fate[out] = len(dropped)
            dropped.append(DroppedRows(reason, int(out.sum()), before - _count(code[fate < 0])))
    return fate, tuple(dropped)


def _count(code: Ints) -> int:
    return len(np.unique(code[code >= 0]))


def _order(
    rows: Ints, number: Array, code: Ints, repeated: bool, first: Array, groups: NDArray[Any], *others: Array
) -> Ints:
    """The order of rows that does not depend on the order in which they came."""
    if not repeated:
        return np.lexsort((number[rows], code[rows]))
    keys = [column for values in reversed(others) for column in np.atleast_2d(values.T)]
    group = np.unique(groups, return_inverse=True)[1]
    return np.lexsort((*(key[rows] for key in keys), first[rows], group[rows], number[rows]))


def _snapped(first: Array, periods: Array) -> tuple[Array, int]:
    """First treated periods that nobody is seen in become the next one that somebody is; and how many values did."""
    at = np.searchsorted(periods, first)
    inside = np.isfinite(first) & (at < len(periods)) & (first >= periods[0])
    made = first.copy()
    made[inside] = periods[at[inside]]
    return made, len(np.unique(first[inside & (made != first)]))


def check_design(panel: Panel) -> None:
    """Refuse a panel in which no effect can be estimated at all.

    Raises
    ------
    DesignError
        ``did.one_period``, ``did.no_treated``, ``did.no_period_before``, ``did.no_comparison``.
    """
    if len(panel.periods) < 2:
        raise DesignError(Fault("did.one_period", {}))
    if not len(panel.cohorts):
        raise DesignError(Fault("did.no_treated", {}))
    later = panel.cohorts[panel.cohorts > panel.periods[0]]
    if not len(later):
        raise DesignError(Fault("did.no_period_before", {}))
    if not (panel.first > later[0]).any():
        raise DesignError(Fault("did.no_comparison", {}))


def panel_notes(panel: Panel) -> tuple[Finding, ...]:
    """What there is to know about a panel that is no fault."""
    notes = []
    if not panel.repeated:
        seen = np.bincount(panel.unit, minlength=panel.units)
        short = seen < len(panel.periods)
        if short.any():
            cells = int((len(panel.periods) - seen).sum())
            notes.append(_note("panel_gaps", int(short.sum()), "info", rows=cells, units=panel.units))
    holes = int(panel.periods[-1] - panel.periods[0]) + 1 - len(panel.periods)
    if holes:
        notes.append(_note("panel_holes", holes, "warn"))
    always = panel.first <= panel.periods[0]
    if always.any():
        notes.append(_note("panel_always_treated", int(always.sum())))
    if not (panel.first == NEVER).any():
        notes.append(_note("panel_no_never_treated", 0))
    whom = panel.cluster if panel.repeated else np.arange(panel.units)
    pairs = np.unique(np.column_stack([panel.first, whom])[~always & (panel.first < NEVER)], axis=0)
    sizes = np.unique(pairs[:, 0], return_counts=True)[1]
    if (sizes == 1).any():
        notes.append(_note("panel_singleton_cohorts", int((sizes == 1).sum()), "warn", cohorts=len(sizes)))
    return tuple(notes)


def _note(code: str, count: int, verdict: Literal["info", "warn"] = "info", **params: Any) -> Finding:
    return Finding(code, "panel", verdict, float(count), None, {"count": count, **params})


def _started_in_gap(panel: Panel) -> int:
    """Units whose last row before treatment is not of the period just before: when they began is not known for sure."""
    row = np.flatnonzero(panel.period == panel.first[panel.unit])
    before = row - 1
    has = (before >= 0) & (panel.unit[before] == panel.unit[row])
    late = np.where(has, panel.time[row] - panel.time[before] > 1, panel.time[row] > 0)
    return int(late.sum())
