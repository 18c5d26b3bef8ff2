"""Spells from a data frame: everything that is wrong is told at once, what is filled in or not used is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import narwhals as nw
import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.duration.repeated import Repeated
from evalkit.duration.spells import NEVER, Instrument, Spells, planned
from evalkit.duration.terms import Terms, dense, factor, joined
from evalkit.effects import Array
from evalkit.errors import DataError, Fault
from evalkit.exhibits import Finding

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Missing = Literal["level", "refuse"]

EPOCH = 1970 * 12
"""January 1970 on the scale of ``Spells.begin``."""


@dataclass(frozen=True)
class Column:
    """Where an instrument stands in a frame; see :class:`~evalkit.duration.spells.Instrument` for what it means.

    Attributes
    ----------
    start: column with the first elapsed month that counts as with it, empty when it does not start.
    name: that of the column when empty.
    length: column with planned months; phases then go by the planned end. A plan that is not known is the median.
    bounds: months at which phases begin: 3, 6, 12 since the start, or 6, 12 since the planned end when None.
    after, modelled: as of ``Instrument``.
    """

    start: str
    name: str = ""
    length: str = ""
    bounds: tuple[int, ...] | None = None
    after: str = ""
    modelled: bool = True

    @property
    def called(self) -> str:
        """Name of the instrument."""
        return self.name or self.start


def spells_from_frame(
    frame: IntoDataFrame,
    *,
    person: str,
    stop: str,
    cause: str,
    entry: str | None = None,
    begin: str | None = None,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    instruments: Sequence[str | Column] = (),
    cluster: str | None = None,
    causes: Sequence[str] | None = None,
    window_close: Any = None,
    missing: Missing = "level",
    repeated: Sequence[Repeated] = (),
) -> Spells:
    """Spells from a frame (pandas, Polars, PyArrow) with one row a spell, in any order.

    Parameters
    ----------
    person: who; a person may have several spells.
    stop: months until the spell ends or observation does, whole. entry: first elapsed month under observation, 0
        without it.
    cause: why it ended; empty, False or 0 when it had not. True and 1 stand for ``event``.
    begin: first day on benefit (a date), or the number of its calendar month (12 times the year plus the month less 1).
        Without it there are no calendar steps, and spells of one person are not compared in time.
    numeric, categorical: covariates known at entry. Numbers count from their mean; of a text the first level in the
        alphabet is the reference, columns are called ``name:level``.
    instruments: columns with the month of the start, or :class:`Column`; the one that is evaluated comes first.
    cluster: what counts as independent, the same in all spells of a person; persons without it.
    causes: names in the order wanted; those that occur, sorted, when None.
    window_close: last calendar month that is observed (a date or a number as in ``begin``).
    missing: ``level``: a covariate that is empty is a level ``missing``, a number then its mean, with a column
        ``name:missing``. ``refuse``: it is a fault.
    repeated: repeated events, their ``spell`` being the row of the frame.

    Returns
    -------
    Spells sorted by person and time, with ``notes``: starts before entry, after the end of the spell, or without the
    instrument that they need; plans filled in; causes that occur only before or only after a start.

    Raises
    ------
    DataError
        Together: ``duration.spells_columns``, ``duration.spells_not_number``, ``duration.spells_not_whole``,
        ``duration.spells_person``, ``duration.zero_length``, ``duration.spells_overlap``, ``duration.after_close``,
        ``duration.no_events``, ``duration.cause_unknown``, ``duration.spells_missing``, ``duration.spells_cluster``,
        ``duration.spells_close``, ``duration.spells_length``, ``duration.spells_no_spells``.
    DesignError
        ``duration.spells_no_plan``.
    """
    own = [Column(each) if isinstance(each, str) else each for each in instruments]
    table = nw.from_native(frame, eager_only=True)
    wanted = [person, stop, cause, entry, begin, cluster, *numeric, *categorical]
    wanted += [name for each in own for name in (each.start, each.length) if name]
    if absent := [name for name in dict.fromkeys(wanted) if name is not None and name not in table.columns]:
        known = ", ".join(table.columns)
        raise DataError(Fault("duration.spells_columns", {"names": ", ".join(absent), "known": known}))
    if not len(table):
        raise DataError(Fault("duration.spells_no_spells", {}))
    read = _Reader(table)
    until = read.months(stop)
    since = read.months(entry) if entry else np.zeros(len(table), np.int64)
    first = read.calendar(begin) if begin else np.zeros(len(table), np.int64)
    names, why = read.causes(cause, causes)
    who_ids, who = read.names(person, "duration.spells_person")
    group_ids, group = read.names(cluster, "duration.spells_cluster_empty") if cluster else (who_ids, who)
    starts = [(read.months(each.start, NEVER), read.plan(each.length, each.start)) for each in own]
    x = read.covariates(numeric, categorical, missing)
    read.check("duration.zero_length", int(((until <= since) & read.sound).sum()), "rows")
    read.check("duration.spells_entry", int((since < 0).sum()), "rows")
    order = np.lexsort((until, since, first, who))
    if begin:
        read.overlap(who[order], (first + since)[order], (first + until)[order])
        if window_close is not None:
            last = _month(window_close)
            if last is None:
                read.faults.append(Fault("duration.spells_close", {}))
            else:
                read.check("duration.after_close", int((first + until - 1 > last).sum()), "rows")
    elif window_close is not None:
        read.faults.append(Fault("duration.spells_close", {}))
    of_person = np.full(len(who_ids), -1)
    of_person[who] = group
    read.check("duration.spells_cluster", len(np.unique(who[of_person[who] != group])), "persons")
    if read.faults:
        raise DataError(read.faults)
    made, filled = _instruments(own, starts)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    made = tuple(replace(each, start=each.start[order], length=each.length[order]) for each in made)
    again = tuple(replace(each, spell=place[each.spell]) for each in repeated)
    spells = Spells(
        who[order], who_ids, since[order], until[order], why[order], names, first[order], x.take(order), made,
        of_person, group_ids, cluster or "person", again,
    )  # fmt: skip
    notes = [
        _note("duration_spells_plan", count, instrument=each.name, total=int((each.start < NEVER).sum()))
        for each, count in zip(made, filled, strict=True)
        if count
    ]
    return replace(spells, notes=(*notes, *found(spells)))


def found(spells: Spells) -> tuple[Finding, ...]:
    """What there is to know about spells that is no fault.

    Starts before month 0, after the spell was over, later than given because another started in that month, or without
    the instrument that they need; repeated events after the spell was over; for each cause and instrument whether exits
    occur only before, or only after the start: the effect on that exit, or its baseline, is then not identified.
    """
    notes = []
    names = [each.name for each in spells.instruments]
    for each, month in zip(spells.instruments, spells.started, strict=True):
        given = each.start < NEVER
        counts = {
            "duration_spells_early": given & (each.start < 0),
            "duration_spells_late": given & (month == NEVER),
            "duration_spells_shifted": (month < NEVER) & (month > np.maximum(each.start, 0)),
        }
        if each.after in names:
            counts["duration_spells_needed"] = (month < NEVER) & (spells.started[names.index(each.after)] >= month)
        for code, hit in counts.items():
            if hit.any():
                notes.append(
                    _note(code, int(hit.sum()), instrument=each.name, needed=each.after, total=int(given.sum()))
                )
        if not (month < NEVER).any():
            continue
        for number, cause in enumerate(spells.causes):
            left = spells.cause == number
            with_it = int((left & (month < spells.stop)).sum())
            if left.any() and with_it == 0:
                notes.append(_note("duration_spells_before_only", int(left.sum()), instrument=each.name, cause=cause))
            elif with_it == int(left.sum()) > 0:
                notes.append(_note("duration_spells_after_only", with_it, instrument=each.name, cause=cause))
    for again in spells.repeated:
        out = (again.month >= spells.stop[again.spell]) | (again.month < 0)
        if out.any():
            notes.append(_note("duration_spells_repeated", int(out.sum()), name=again.name, total=len(again)))
    return tuple(notes)


def _note(code: str, count: int, **params: Any) -> Finding:
    return Finding(code, "duration", "warn", float(count), None, {"count": count, **params})


def _instruments(
    own: Sequence[Column], starts: Sequence[tuple[Numbers, Array]]
) -> tuple[tuple[Instrument, ...], tuple[int, ...]]:
    """The instruments, and of each how many plans were filled in."""
    made, filled = [], []
    for each, (month, length) in zip(own, starts, strict=True):
        settings: dict[str, Any] = {"after": each.after, "modelled": each.modelled}
        if each.bounds is not None:
            settings["bounds"] = each.bounds
        if each.length:
            one, count = planned(each.called, month, length, **settings)
        else:
            one, count = Instrument(each.called, month, np.zeros(len(month), np.int64), **settings), 0
        made.append(one)
        filled.append(count)
    return tuple(made), tuple(filled)


def _month(value: Any) -> int | None:
    """A calendar month on the scale of ``Spells.begin``, from a date or a whole number."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    try:
        stamp: Any = pd.Timestamp(value)
    except (TypeError, ValueError):
        return None
    return None if stamp is pd.NaT else int(stamp.year * 12 + stamp.month - 1)


class _Reader:
    """Columns of a frame as arrays; what is wrong with them is added to ``faults``, rows with gaps leave ``sound``."""

    def __init__(self, table: Any):
        self.table = table
        self.faults: list[Fault] = []
        self.sound = np.ones(len(table), bool)

    def check(self, code: str, count: int, what: str) -> None:
        """A fault when there are any."""
        if count:
            self.faults.append(Fault(code, {what: count}))

    def values(self, name: str) -> tuple[NDArray[Any], Mask]:
        """A column as objects, and where it is empty."""
        out = np.empty(len(self.table), object)
        out[:] = self.table[name].to_list()
        gap = np.asarray(pd.isna(out), bool) | (out == "")
        return out, gap

    def numbers(self, name: str) -> Array:
        """A column of numbers, NaN where it is empty; text and dates are a fault."""
        kind = self.table[name].dtype
        if kind.is_numeric():
            return np.array(self.table[name].cast(nw.Float64).to_numpy(), float)
        values, gap = self.values(name)
        out = np.full(len(values), np.nan)
        if not all(isinstance(value, int | float | np.number) for value in values[~gap]):
            self.faults.append(Fault("duration.spells_not_number", {"column": name}))
            return out
        out[~gap] = values[~gap].astype(float)
        return out

    def months(self, name: str, gap: int | None = None) -> Numbers:
        """Whole months; ``gap`` where it is empty, a fault without that."""
        found = self.numbers(name)
        empty = ~np.isfinite(found)
        if empty.any() and gap is None and not self._told("duration.spells_not_number", name):
            self.faults.append(Fault("duration.spells_empty", {"column": name, "rows": int(empty.sum())}))
            self.sound &= ~empty
        odd = ~empty & (found != np.round(found))
        if odd.any():
            self.faults.append(Fault("duration.spells_not_whole", {"column": name, "rows": int(odd.sum())}))
        return np.where(empty, 0 if gap is None else gap, np.minimum(found, NEVER)).astype(np.int64)

    def _told(self, code: str, name: str) -> bool:
        return any(each.code == code and each.params.get("column") == name for each in self.faults)

    def plan(self, name: str, start: str) -> Array:
        """Planned months, NaN where not known; below zero is a fault."""
        if not name:
            return np.zeros(len(self.table))
        found = self.numbers(name)
        if short := int((found < 0).sum()):
            self.faults.append(Fault("duration.spells_length", {"instrument": start, "rows": short}))
        odd = int((np.isfinite(found) & (found != np.round(found))).sum())
        if odd:
            self.faults.append(Fault("duration.spells_not_whole", {"column": name, "rows": odd}))
        return found

    def calendar(self, name: str) -> Numbers:
        """Numbers of calendar months, from dates or from numbers."""
        kind = self.table[name].dtype
        if kind.is_numeric():
            return self.months(name)
        values, gap = self.values(name)
        try:
            days = pd.to_datetime(pd.Series(values), errors="raise").to_numpy("datetime64[D]")
        except (TypeError, ValueError):
            self.faults.append(Fault("duration.spells_not_date", {"column": name}))
            return np.zeros(len(values), np.int64)
        if gap.any():
            self.faults.append(Fault("duration.spells_empty", {"column": name, "rows": int(gap.sum())}))
        return np.where(gap, 0, calendar.month_number(calendar.to_days(np.where(gap, days[0], days))) + EPOCH)

    def names(self, name: str, fault: str) -> tuple[NDArray[Any], Numbers]:
        """Names of persons or clusters, sorted, and the number of each row's."""
        values, gap = self.values(name)
        self.check(fault, int(gap.sum()), "rows")
        whole = all(isinstance(value, int | np.integer) for value in values[~gap])
        plain = values.astype(object)
        plain[gap] = 0 if whole else ""
        ids, number = np.unique(plain.astype(np.int64) if whole else plain.astype(str), return_inverse=True)
        return ids, number.astype(np.int64)

    def causes(self, name: str, wanted: Sequence[str] | None) -> tuple[tuple[str, ...], Numbers]:
        """Names of causes and the number of each row's, -1 without one."""
        values, gap = self.values(name)
        text = np.full(len(values), "", object)
        for place, value in enumerate(values.tolist()):
            if not gap[place] and value is not False and value != 0:
                text[place] = "event" if value is True or value == 1 else str(value)
        if wanted is not None and len(wanted) == 1:
            text[text == "event"] = wanted[0]
        seen = sorted(set(text.tolist()) - {""})
        known = tuple(seen) if wanted is None else tuple(wanted)
        if [each for each in seen if each not in known]:
            self.faults.append(Fault("duration.cause_unknown", {"known": ", ".join(known)}))
        for each in known or ("event",):
            if each not in seen:
                self.faults.append(Fault("duration.no_events", {"cause": each}))
        number = {each: place for place, each in enumerate(known)}
        return known, np.array([number.get(each, -1) for each in text.tolist()], np.int64)

    def overlap(self, who: Numbers, low: Numbers, high: Numbers) -> None:
        """Spells of one person that share more than the month in which one ends and the next begins."""
        same = np.diff(who) == 0
        hit = same & (low[1:] < high[:-1] - 1)
        self.check("duration.spells_overlap", len(np.unique(who[1:][hit])), "persons")

    def covariates(self, numeric: Sequence[str], categorical: Sequence[str], missing: Missing) -> Terms:
        """Columns of the covariates; a column that is the same everywhere is left out."""
        parts = [dense(np.zeros((len(self.table), 0)), ())]
        for name in numeric:
            found = self.numbers(name)
            if self._told("duration.spells_not_number", name):
                continue
            gap = ~np.isfinite(found)
            self._refused(name, gap, missing)
            usual = found[~gap].mean() if (~gap).any() else 0.0
            if len(np.unique(found[~gap])) > 1:
                parts.append(dense(np.where(gap, 0.0, found - usual)[:, None], (name,)))
            if gap.any() and not gap.all():
                parts.append(factor(gap, (f"{name}:known", f"{name}:missing")))
        for name in categorical:
            values, gap = self.values(name)
            self._refused(name, gap, missing)
            text = values.astype(str)
            gap |= text == "missing"
            text[gap] = ""
            levels = [*sorted(set(text[~gap].tolist())), *(["missing"] if gap.any() else [])]
            if len(levels) > 1:
                codes = np.where(
                    gap, len(levels) - 1, np.searchsorted(np.array(levels[: len(levels) - gap.any()]), text)
                )
                parts.append(factor(codes, [f"{name}:{level}" for level in levels]))
        return joined(*parts)

    def _refused(self, name: str, gap: Mask, missing: Missing) -> None:
        if missing == "refuse" and gap.any():
            self.faults.append(Fault("duration.spells_missing", {"column": name, "rows": int(gap.sum())}))
