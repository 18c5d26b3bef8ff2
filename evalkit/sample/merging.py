"""From rows of benefits to spells of a person: household spells given to every member, overlaps and short gaps merged.

The statistics on social assistance do not count an interruption of less than a month as an exit. ``docs/outcomes.md``
says what that does to exits and returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import Days
from evalkit.register.schema import UNKNOWN, Check
from evalkit.sample.spells import Intervals
from evalkit.study import Study

Ints = NDArray[np.int64]

_SPAN = 10**7
_FAR = 5 * 10**6
"""Days are far fewer; an open end counts as this day where days and persons are put in one number."""


@dataclass(frozen=True)
class Merged:
    """Benefit spells of which no two of a person overlap or touch, sorted by (person, start).

    ``reason``: code into ``reasons`` of the part that ends last. ``gaps``: days off benefit within a spell, which were
    bridged. ``checks``: what was joined, counted.
    """

    person: Ints
    start: Days
    end: Days
    reason: NDArray[np.int32]
    reasons: tuple[str, ...]
    gaps: Intervals
    checks: tuple[Check, ...]


def components(held: Intervals, gap_months: int, gap_days: int = 0) -> tuple[Ints, Days]:
    """Which spell each of the sorted intervals becomes part of, and the latest day of the parts before it.

    Intervals that overlap or touch belong together; so do those with less than ``gap_months`` between the first day
    after the one and the first day of the next, or no more than ``gap_days`` days between them (-1: they must overlap).
    The latest day is of no meaning for the first part of a spell.
    """
    latest = np.maximum.accumulate(held.person * _SPAN + np.minimum(held.end, _FAR)) - held.person * _SPAN
    before = np.append(0, latest[:-1])[: len(latest)]
    same = np.append(False, held.person[1:] == held.person[:-1])[: len(latest)]
    off = np.where(same & (before < _FAR), before, 0) + 1  # the first day off benefit
    back = np.maximum(off + 1 + gap_days, calendar.add_months(off, gap_months))  # touching is no interruption at all
    joined = same & ((before >= _FAR) | (held.start < back))
    return np.cumsum(~joined) - 1, before


def union(held: Intervals) -> Intervals:
    """Sorted intervals of a person that overlap or touch as one."""
    part, _ = components(held, 0)
    first = np.flatnonzero(np.append(True, part[1:] != part[:-1])[: len(part)])
    end = np.maximum.reduceat(held.end, first) if len(first) else held.end
    return Intervals(held.person[first], held.start[first], end)


def merge_benefits(study: Study, benefits: Mapping[str, Any], persons: Mapping[str, Any], of: Any) -> Merged:
    """Benefit spells as the study file asks for them, from the tables of the register.

    Parameters
    ----------
    of: gives the row of persons for an array of ids.
    """
    reason, reasons = _reasons(benefits["reason"])
    start, end = calendar.to_days(benefits["start"]), calendar.to_days(benefits["end"])
    rows = _Rows(of(benefits["person"]), start, end, reason)
    count, checks = len(rows.person), []
    if study.spells.level == "household":
        rows, given = rows.for_members(benefits["household_id"], persons.get("household_id"))
        checks.append(_check("spells_household", given, count))
    rows = rows.take(np.argsort(rows.person * _SPAN + rows.start, kind="stable"))
    held = Intervals(rows.person, rows.start, rows.end)
    months = study.spells.merge_gap_months
    part, before = components(held, months)
    number = int(part[-1]) + 1 if len(part) else 0
    joined = np.append(False, part[1:] == part[:-1])[: len(part)]
    overlapping = int((joined & (held.start <= before)).sum())
    bridged = int(joined.sum()) - overlapping
    gap = np.flatnonzero(joined & (held.start > before + 1))
    checks += [
        _check("spells_overlap_joined", overlapping, count),
        _check("spells_merged", bridged, count, months=months),
    ]
    first = np.searchsorted(part, np.arange(number))
    last = first.copy()
    several = np.flatnonzero(joined | np.append(joined[1:], False)[: len(part)])
    several = several[np.lexsort((_rank(study, reasons)[rows.reason[several]], rows.end[several], part[several]))]
    last[part[several]] = several  # within a spell by end, then by reason: the last one stays
    return Merged(
        rows.person[first],
        rows.start[first],
        rows.end[last],
        rows.reason[last],
        reasons,
        Intervals(rows.person[gap], before[gap] + 1, rows.start[gap] - 1),
        tuple(check for check in checks if check.count),
    )


def _check(code: str, count: int, rows: int, **params: Any) -> Check:
    return Check(code, "info", "benefits", count, count / rows if rows else 0.0, params)


def _reasons(column: NDArray[Any]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """A code a row and the reasons in order; a running spell has none, which is the last code."""
    codes, found = pd.factorize(column)
    order = np.argsort(found.astype(str))
    place = np.append(np.argsort(order), len(found))  # code -1 takes the last
    return place[codes].astype(np.int32), (*found[order].tolist(), "")


def _rank(study: Study, reasons: tuple[str, ...]) -> Ints:
    """Of two rows that end on the same day the reason with the higher rank counts.

    A known reason goes before an unknown one; of known ones that which the study file lists last, since the exit that
    is hoped for stands first.
    """
    listed: list[str] = []
    if study.data is not None:
        listed = list(study.data.benefits.codes.get("reason", {}))
    known = [UNKNOWN, *sorted(r for r in reasons if r not in (UNKNOWN, *listed)), *listed]
    return np.array([known.index(r) for r in reasons], np.int64)


@dataclass(frozen=True)
class _Rows:
    person: Ints
    start: Days
    end: Days
    reason: NDArray[np.int32]

    def take(self, rows: Ints) -> _Rows:
        return _Rows(self.person[rows], self.start[rows], self.end[rows], self.reason[rows])

    def for_members(self, household: NDArray[Any], of_persons: NDArray[Any] | None) -> tuple[_Rows, int]:
        """Rows of a household for each of its members, and how many rows that adds.

        Members are the persons with a row of the household, and those whom the table of persons puts in it. A row
        without a household stays with its person alone.
        """
        extra = np.empty(0, object) if of_persons is None else of_persons
        codes = pd.factorize(np.concatenate([household, extra]))[0].astype(np.int64)  # -1: no household
        own, other = codes[: len(household)], codes[len(household) :]
        named = np.flatnonzero(codes >= 0)
        house, member = _distinct(codes[named], np.append(self.person, np.arange(len(other)))[named])
        begin = np.searchsorted(house, own)
        number = np.where(own >= 0, np.searchsorted(house, own, side="right") - begin, 1)
        row = np.repeat(np.arange(len(own)), number)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
        person = self.person[row].copy()
        shared = own[row] >= 0
        person[shared] = member[begin[row[shared]] + nth[shared]]
        made = _distinct(person, self.start[row], self.end[row], self.reason[row])  # partners may both have the row
        before = _distinct(self.person, self.start, self.end, self.reason)
        return _Rows(*made), len(made[0]) - len(before[0])


def _distinct(*columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Rows that differ, sorted by the columns in their order."""
    order = np.lexsort(columns[::-1])
    ordered = [column[order] for column in columns]
    new = np.ones(len(order), bool)
    if len(order):
        new[1:] = np.any([column[1:] != column[:-1] for column in ordered], axis=0)
    return tuple(column[new] for column in ordered)
