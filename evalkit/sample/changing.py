"""Covariates that change over time, as known before a day: a person's own values, and figures of his area by month."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days
from evalkit.design import MISSING, Factor, cut_factor
from evalkit.effects import frozen
from evalkit.errors import DataError, Fault
from evalkit.register import Register
from evalkit.sample.history import AnyDays, History, Rows, history
from evalkit.sample.levels import names
from evalkit.study import Study

Array = NDArray[np.float64]
Codes = NDArray[np.int32]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Moves:
    """In which area someone is on a day: always the same (``area`` a person), or that of the row of a history."""

    area: Codes
    history: History | None = None

    def of(self, person: NDArray[np.integer], day: AnyDays) -> Codes:
        """The area of each person (-1: not known) as known before a day."""
        if self.history is None:
            return self.area[person]
        rows = self.history.as_of(person, day)
        return np.where(rows >= 0, self.area[rows], -1).astype(np.int32)


@dataclass(frozen=True)
class Covariate:
    """One covariate that changes.

    history: by person, or with ``moves`` by area. values: by row of the table and last, for none at all, NaN (numeric)
    or the code of ``missing``. levels: of a categorical one, sorted, ``missing`` last. known: of figures, the day from
    which each is known.
    """

    name: str
    history: History
    values: Array | Codes
    levels: tuple[str, ...] = ()
    moves: Moves | None = None
    known: Days | None = None

    def rows(self, person: NDArray[np.integer], day: AnyDays) -> Rows:
        """The row of the table that counts for each person as known before a day; -1 none."""
        return self.history.as_of(person if self.moves is None else self.moves.of(person, day), day)

    def numbers(self, person: NDArray[np.integer], day: AnyDays) -> Array:
        """Numbers (n,); NaN where none was known."""
        return np.asarray(self.values[self.rows(person, day)], np.float64)

    def codes(self, person: NDArray[np.integer], day: AnyDays) -> Codes:
        """Codes of the levels (n,)."""
        return np.asarray(self.values[self.rows(person, day)], np.int32)

    def missing(self, person: NDArray[np.integer], day: AnyDays) -> NDArray[np.bool_]:
        """Whether no value was known (n,)."""
        if self.levels:
            return self.codes(person, day) == len(self.levels) - 1
        return np.isnan(self.numbers(person, day))

    def age(self, person: NDArray[np.integer], day: AnyDays) -> NDArray[np.int64]:
        """For how many days the figure that counts was known (n,); 0 where there is none."""
        assert self.known is not None
        rows = self.rows(person, day)
        return np.where(rows >= 0, day - self.known[rows], 0)


@dataclass(frozen=True)
class Fill:
    """What stands in for a number that was not known: the mean of those known up to that day. ``gaps``: any missing."""

    first: int
    mean: Array
    gaps: bool

    def at(self, day: AnyDays) -> Array:
        """The mean by day (n,)."""
        return self.mean[day - self.first]


@dataclass(frozen=True)
class Changing:
    """The covariates that change, by name; ``numeric`` and ``categorical`` are those that the start model uses."""

    covariates: Mapping[str, Covariate] = field(default_factory=dict)
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.covariates

    def group(self, name: str, cuts: tuple[float, ...], person: NDArray[np.integer], day: AnyDays) -> Factor:
        """A covariate as a factor of the levels that occur, numbers cut at ``cuts``."""
        made = self.covariates[name]
        if not made.levels:
            return cut_factor(name, made.numbers(person, day), cuts)
        present, codes = np.unique(made.codes(person, day), return_inverse=True)
        return Factor(name, tuple(made.levels[i] for i in present), frozen(codes, np.int32))

    def lacking(self, person: NDArray[np.integer], day: AnyDays) -> NDArray[np.bool_]:
        """Whether any of the study's covariates was not known (n,)."""
        gap = np.zeros(len(person), bool)
        for name in (*self.numeric, *self.categorical):
            gap |= self.missing(name, person, day)
        return gap

    def missing(self, name: str, person: NDArray[np.integer], day: AnyDays) -> NDArray[np.bool_]:
        """Whether no value of one covariate was known (n,)."""
        return self.covariates[name].missing(person, day)

    def one_of(
        self, name: str, values: tuple[str, ...], person: NDArray[np.integer], day: AnyDays
    ) -> NDArray[np.bool_]:
        """Whether a categorical covariate had one of some values (n,)."""
        made = self.covariates[name]
        return np.asarray(np.isin(made.levels, values)[made.codes(person, day)])

    def fill(self, name: str, person: NDArray[np.integer], day: AnyDays) -> Fill:
        """What stands in for the missing among some entries.

        The mean runs over the entries up to and on the same day, so that not even the stand-in depends on the future.

        Raises
        ------
        DataError
            ``sample.covariate_empty`` when no number was known at all.
        """
        first = int(day.min())
        total, count = (np.zeros(int(day.max()) - first + 1) for _ in range(2))
        for begin in range(0, len(day), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            values = self.covariates[name].numbers(person[part], day[part])
            known = ~np.isnan(values)
            at = day[part][known] - first
            np.add.at(total, at, values[known])  # one by one: the sum of a day does not depend on the pieces
            np.add.at(count, at, 1.0)
        if not count.any():
            raise DataError(Fault("sample.covariate_empty", {"column": name}))
        running = np.cumsum(count)
        return Fill(first, np.cumsum(total) / np.maximum(running, 1.0), running[-1] < len(day))


def read_changing(
    study: Study, register: Register, persons: Mapping[str, NDArray[Any]], of: Callable[[Any], NDArray[np.int64]]
) -> Changing:
    """The covariates of a register that change.

    Parameters
    ----------
    persons: the arrays of that table. ``of``: from ids to rows of people.
    """
    if study.data is None or not study.data.changing:
        return Changing()
    cut = {group.name for group in study.subgroups if group.cuts}
    numbers = {*study.covariates.numeric, *cut}
    made: dict[str, Covariate] = {}
    own: dict[str, NDArray[Any]] = {}
    for name in study.data.changes:
        table = register.arrays(f"changes.{name}")
        person = of(table["person"])
        order = np.argsort(person, kind="stable")  # rows keep their order within a person
        table = {column: values[order] for column, values in table.items()}
        known, over = known_days(table)
        own[name] = table["value"]
        values, levels = _values(table["value"], name in numbers)
        levels = _named(study, name, levels, values, person[order])
        made[name] = Covariate(name, history(person[order], known, over), values, levels)
    for name, spec in study.data.areas.items():
        table = register.arrays(f"areas.{name}")
        areas, unit = np.unique(table["area"].astype(str), return_inverse=True)
        known = figure_days(table["month"], spec.delay_months)
        moved = spec.area in own
        told = own[spec.area] if moved else persons[spec.area]
        moves = Moves(_located(told, areas), made[spec.area].history if moved else None)
        values, levels = _values(table["value"], name in numbers)
        made[name] = Covariate(name, history(unit, known), values, levels, moves, known)
    covariates = study.covariates
    numeric, categorical = (
        tuple(name for name in names if name in made) for names in (covariates.numeric, covariates.categorical)
    )
    return Changing(made, numeric, categorical)


def _named(
    study: Study, name: str, levels: tuple[str, ...], values: Array | Codes, person: NDArray[np.int64]
) -> tuple[str, ...]:
    """The levels as they may be shown; ``values`` are codes of rows with a person each, and last that for none."""
    if not levels:
        return levels
    size = int(person.max(initial=0)) + 1
    held = np.unique(values[:-1].astype(np.int64) * size + person) // size
    return names(study, name, levels, np.bincount(held, minlength=len(levels)))


def known_days(table: Mapping[str, NDArray[Any]]) -> tuple[Days, Days]:
    """The day on which each row of a table of changes became known, and the one after the last that it holds.

    A change is known from its start, or from its registration when that is mapped and later. Without an end: NEVER.
    """
    known = calendar.to_days(table["start"])
    if "registered" in table:
        known = np.maximum(known, calendar.to_days(table["registered"]))
    end = calendar.to_days(table["end"])
    return known, np.where(end < NEVER, end + 1, NEVER)


def figure_days(month: NDArray[Any], delay_months: int) -> Days:
    """The day on which the figure of a month became known: the first after it, ``delay_months`` months later."""
    return calendar.month_start(calendar.month_number(calendar.to_days(month)) + 1 + delay_months)


def _values(values: NDArray[Any], numeric: bool) -> tuple[Array | Codes, tuple[str, ...]]:
    """Values with that for none at all behind them, and the levels of a categorical covariate, ``missing`` last."""
    if numeric:
        return np.append(values.astype(np.float64), np.nan), ()
    import pandas as pd

    empty = np.array(None, object)
    codes, found = pd.factorize(np.where(values == MISSING, empty, values))  # -1 for empty ones: the last level
    order = np.argsort(found.astype(str), kind="stable")
    number = np.full(len(found) + 1, len(found), np.int32)
    number[order] = np.arange(len(found), dtype=np.int32)
    return np.append(number[codes], np.int32(len(found))), (*(str(found[i]) for i in order), MISSING)


def _located(told: NDArray[Any], areas: NDArray[np.str_]) -> Codes:
    """The number of each area among those with figures; -1 where there is none."""
    import pandas as pd

    return pd.Index(areas.astype(object)).get_indexer(pd.Index(told, dtype=object)).astype(np.int32)
