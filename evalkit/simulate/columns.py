"""What may be told of what persons are: how often a value occurs, and how it goes with leaving and starting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import Days
from evalkit.errors import DisclosureError, Fault
from evalkit.register.schema import Field, fields
from evalkit.simulate.aggregates import Column, Level
from evalkit.simulate.facts import Facts
from evalkit.simulate.rounding import Cut, Rules, cut, whole
from evalkit.study import Study

Array = NDArray[np.float64]

AGE_STEP = 5
_MOST_LEVELS = 30


@dataclass(frozen=True)
class Course:
    """By person: first day seen on benefit, whether ever at risk, and what happened while waiting for a start."""

    entry: Days
    at_risk: NDArray[np.bool_]
    exits: Array
    exits_expected: Array
    starts: Array
    starts_expected: Array


def columns(facts: Facts, course: Course, rules: Rules) -> tuple[Column, ...]:
    """The columns of persons that the study maps, in its order, and then the covariates that change.

    Raises
    ------
    DisclosureError
        ``twin.too_few.changes`` when nothing can be told of a table of changes, which may not be empty.
    """
    study = facts.study
    assert study.data is not None
    known = {field.name: field for field in fields(study, "persons")}
    mapped = [name for name in study.data.persons.columns if name != "person"]
    found = [_column(study, known[name], facts.persons, course, rules) for name in mapped]
    for name in study.data.changes:
        values = facts.at_entry(name)
        numbers = values.dtype.kind == "f"
        made = _numeric(name, "number", values, course, rules) if numbers else _categorical(name, values, course, rules)
        if made.kind == "empty":
            raise DisclosureError(Fault("twin.too_few.changes", {"table": f"changes.{name}", "minimum": rules.minimum}))
        found.append(made.model_copy(update={"table": "changes"}))
    return tuple(found)


def _column(study: Study, field: Field, persons: Mapping[str, Any], course: Course, rules: Rules) -> Column:
    name, values = field.name, persons[field.name]
    used = {*study.covariates.categorical, *(group.name for group in study.subgroups), *study.eligibility.exclude}
    if field.kind == "date":
        return Column(name=name, kind="entry")
    if name == "birth_year":
        return _numeric(name, "age", calendar.year(course.entry) - values.astype(float), course, rules, AGE_STEP)
    if field.kind in ("number", "integer"):
        return _numeric(name, "number", values.astype(float), course, rules)
    if name == "household_id":
        return Column(name=name, kind="empty")
    if field.codes is not None or name in used:
        return _categorical(name, values, course, rules)
    if name == study.treatment.cluster:
        return _cluster(name, values, rules)
    return Column(name=name, kind="empty")  # nothing in the study looks at it


def _levels(codes: NDArray[np.int64], number: int, course: Course, rules: Rules) -> list[dict[str, Any]]:
    """Persons of each level, and how they leave and start."""
    rows = np.flatnonzero(codes >= 0)

    def total(values: NDArray[Any]) -> Array:
        return np.bincount(codes[rows], values[rows].astype(float), number).astype(float)

    size, risk = total(np.ones(len(codes))), total(course.at_risk)
    found: list[dict[str, Any]] = [{"persons": rules.count(n)} for n in size]
    for name in ("exits", "starts"):
        events, foreseen = getattr(course, name), getattr(course, f"{name}_expected")
        hit, sums, would = total(events > 0), total(events), total(foreseen)
        for i in range(number):
            if rules.splits(hit[i], risk[i]) and rules.count(would[i]):
                found[i] |= {name: rules.count(sums[i]), f"{name}_expected": rules.count(would[i])}
    return found


def _with_missing(gap: NDArray[np.bool_], course: Course, rules: Rules) -> tuple[bool, Level | None]:
    """Whether enough persons have a value, and the level of those who have none."""
    n = int(gap.sum())
    if len(gap) - n < rules.minimum:
        return False, None
    if n < rules.minimum:
        return True, None
    return True, Level(**_levels(np.where(gap, 0, -1), 1, course, rules)[0])


def _numeric(name: str, kind: Any, values: Array, course: Course, rules: Rules, step: float | None = None) -> Column:
    gap = np.isnan(values)
    enough, missing = _with_missing(gap, course, rules)
    cuts: Sequence[Cut] = ()
    group = np.full(len(values), -1, np.int64)
    if enough:
        cuts, group[~gap] = cut(values[~gap], rules, step)
    if not cuts:
        return Column(name=name, kind="empty")
    levels = _levels(group, len(cuts), course, rules)
    return Column(
        name=name,
        kind=kind,
        step=_fineness(values[~gap], cuts, rules),
        levels=tuple(Level(low=c.low, high=c.high, **told) for c, told in zip(cuts, levels, strict=True)),
        missing=missing,
    )


def _fineness(values: Array, cuts: Sequence[Cut], rules: Rules) -> float:
    """1 where numbers are whole, else about a twentieth of the usual width of a group, as a power of ten."""
    widths = [c.high - c.low for c in cuts if c.high > c.low]
    if whole(values, rules) or not widths:
        return 1.0
    return float(10.0 ** np.floor(np.log10(float(np.median(widths)) / 20)))


def _categorical(name: str, values: NDArray[Any], course: Course, rules: Rules) -> Column:
    codes, found = pd.factorize(values)
    enough, missing = _with_missing(codes < 0, course, rules)
    if not enough:
        return Column(name=name, kind="empty")
    number = np.bincount(codes[codes >= 0], minlength=len(found))
    by_size = sorted(range(len(found)), key=lambda i: (-number[i], str(found[i])))
    kept = [i for i in by_size if number[i] >= rules.minimum][:_MOST_LEVELS]
    rest = int(number.sum() - number[kept].sum())
    new = np.full(len(found) + 1, -1, np.int64)
    shown: list[str | None] = [*sorted(str(found[i]) for i in kept)]
    for i in kept:
        new[i] = shown.index(str(found[i]))
    if rest:  # the rare ones together, or with the smallest of the others
        rare = [i for i in range(len(found)) if i not in set(kept)]
        if rest >= rules.minimum:
            new[rare] = len(shown)
            shown.append(None)
        else:
            new[rare] = new[kept[-1]]
    levels = _levels(new[codes], len(shown), course, rules)
    return Column(
        name=name,
        kind="category",
        levels=tuple(Level(value=value, **told) for value, told in zip(shown, levels, strict=True)),
        missing=missing,
    )


def _cluster(name: str, values: NDArray[Any], rules: Rules) -> Column:
    """How many persons a cluster has on average; its names may be those of people."""
    codes, found = pd.factorize(values)
    known = int((codes >= 0).sum())
    if known < rules.minimum:
        return Column(name=name, kind="empty")
    return Column(name=name, kind="cluster", each=max(1.0, round(rules.count(known) / len(found), 1)))
