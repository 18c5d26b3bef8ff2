"""Counting and weighing: from columns to the lines of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.balance import BinaryConvention, Mask, Target, balance_statistics, effective_size
from evalkit.errors import DataError, DesignError, Fault, UsageError
from evalkit.table_one.hiding import hidden_cells
from evalkit.table_one.model import COLUMNS, Cell, Hidden, Row, TableOne

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Variable:
    """A column as numbers (n,) or as codes (n,) of ``levels``; missing is NaN or -1."""

    name: str
    values: Array
    levels: tuple[str, ...] | None

    @property
    def missing(self) -> Mask:
        return np.isnan(self.values) if self.levels is None else self.values < 0


@dataclass(frozen=True)
class _Column:
    """Rows and weights (m,) of one column of the table; ``even`` when all its rows weigh the same."""

    rows: NDArray[np.int64]
    weight: Array

    @property
    def even(self) -> bool:
        return bool(np.ptp(self.weight) <= 1e-9 * self.weight.max())


def table_one(
    frame: pd.DataFrame | Mapping[str, ArrayLike],
    treated: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    variables: Sequence[str] | None = None,
    categorical: Sequence[str] | None = None,
    median: Sequence[str] = (),
    target: Target = "att",
    binary_convention: BinaryConvention = "standardised",
    minimum: int = 0,
    labels: Mapping[str, str] | None = None,
) -> TableOne:
    """Characteristics of both groups before and after adjustment.

    Parameters
    ----------
    frame: columns (n,) by name.
    treated: (n,) bool. ``weight``: (n,) weights after adjustment; None for a table of the groups as they are.
    variables: which columns, in this order; None for all.
    categorical: columns counted by level; None for texts, booleans and columns with two distinct values or fewer.
    median: numeric columns that also get a line with median and quartiles.
    target, binary_convention: as in :func:`evalkit.balance.balance_statistics`.
    minimum: cells of fewer people are hidden ("<10"), with what would give them back; 0 hides nothing.
    labels: words for variables (``name``) and levels (``name=level``).

    Returns
    -------
    TableOne. Lines: people; after adjustment the effective number; per numeric variable mean (SD); per level of a
    categorical one the number and share; missing values where there are any. Means, shares and differences are among
    the known values; a line of missing values has a share of all and a difference of its own.

    Raises
    ------
    UsageError
        ``design.table_unknown_variable`` for columns that are not in the data.
    DataError
        ``design.table_missing_arm`` when ``treated`` has missing values.
    DesignError
        ``design.balance_no_weight`` when a group is empty.

    Notes
    -----
    After adjustment a number of people is shown only where all used rows of the group weigh the same (1:1 matching);
    otherwise a weighted share alone: a sum of weights counts nobody. The weighted quantile is the smallest value at
    which the cumulative weight reaches the share asked for (the mean of two neighbours where it reaches it exactly).

    Hiding (:func:`hidden_cells`), within one column and variable, whose levels and missing values add up to the people
    in the column: counts of 1 .. minimum - 1 are hidden, and as many others as it takes that a reader who subtracts is
    left three values at least. What is hidden before is hidden after. With a minimum, missing counts as a level of its
    own in shares and differences (shares of the known would give its number back), shares are whole percentages,
    numbers of people after adjustment are left out where somebody fell out of the group (the number of the group where
    fewer than the minimum did), and a standardised difference goes with its cells. Variables that count the same
    people twice (an age and its classes) are not linked; a median is the value of one person: leave ``median`` empty
    where that matters.
    """
    import pandas as pd

    columns = {str(name): pd.Series(column).reset_index(drop=True) for name, column in frame.items()}
    wanted = list(columns) if variables is None else list(variables)
    absent = [name for name in [*wanted, *(categorical or ()), *median] if name not in columns]
    if absent:
        known = ", ".join(columns)
        raise UsageError(Fault("design.table_unknown_variable", {"names": ", ".join(absent), "known": known}))
    arm = _arm(treated)
    made = [_variable(name, columns[name], categorical) for name in wanted]
    base = np.ones(len(arm))
    sides = [_column(a, base) for a in (arm, ~arm)]
    after = None if weight is None else np.asarray(weight, float)
    if after is not None:
        sides += [_column(a, after) for a in (arm, ~arm)]
    differences = _Differences(arm, after, target, binary_convention)
    rows = [Row("number", "", "", tuple(Cell(count=float(len(side.rows))) for side in sides), None, None)]
    if after is not None:
        sizes = tuple(Cell(count=effective_size(side.weight)) for side in sides)
        rows.append(Row("effective", "", "", sizes, None, None))
    for variable in made:
        lines = _lines(variable, sides, variable.name in median, differences, missing_is_level=minimum > 0)
        rows += _protected(variable, lines, sides, minimum) if minimum else lines
    if minimum and after is not None:
        rows[:2] = [_numbers_hidden(row, sides, minimum) for row in rows[:2]]
    names = COLUMNS if after is not None else COLUMNS[:2]
    return TableOne(tuple(rows), names, target, binary_convention, minimum, dict(labels or {}))


def _arm(treated: ArrayLike) -> Mask:
    import pandas as pd

    given = pd.Series(np.asarray(treated))
    if given.isna().any():
        raise DataError(Fault("design.table_missing_arm", {"count": int(given.isna().sum())}))
    return given.to_numpy().astype(bool)


def _variable(name: str, series: pd.Series, categorical: Sequence[str] | None) -> _Variable:
    import pandas as pd

    if categorical is not None:
        counted = name in categorical
    else:
        number = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
        counted = not number or series.nunique() <= 2
    if not counted:
        return _Variable(name, pd.to_numeric(series).to_numpy(float, na_value=np.nan), None)
    codes, levels = pd.factorize(series, sort=True)
    return _Variable(name, codes.astype(float), tuple(_word(level) for level in levels))


def _word(level: object) -> str:
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def _column(arm: Mask, weight: Array) -> _Column:
    rows = np.flatnonzero(arm & (weight > 0))
    if not len(rows):
        raise DesignError(Fault("design.balance_no_weight", {}))
    return _Column(rows, weight[rows])


@dataclass(frozen=True)
class _Differences:
    """Standardised differences of one column of numbers, among the rows where it is known."""

    arm: Mask
    weight: Array | None
    target: Target
    convention: BinaryConvention

    def of(self, values: Array, known: Mask, binary: bool) -> tuple[float | None, float | None]:
        weight = np.ones(len(self.arm)) if self.weight is None else self.weight
        if any(not (weight[known & a] > 0).any() for a in (self.arm, ~self.arm)):
            return None, None
        made = balance_statistics(
            values[known][:, None],
            ("x",),
            [binary],
            self.arm[known],
            weight[known],
            target=self.target,
            binary_convention=self.convention,
        )
        return float(made.smd_before[0]), None if self.weight is None else float(made.smd_after[0])


def _lines(
    variable: _Variable, sides: Sequence[_Column], median: bool, differences: _Differences, *, missing_is_level: bool
) -> list[Row]:
    known, name = ~variable.missing, variable.name
    everybody = np.ones(len(known), bool)
    among = everybody if missing_is_level else known
    rows: list[Row] = []
    if variable.levels is None:
        cells = tuple(_mean_sd(variable.values, known, side) for side in sides)
        rows.append(Row("mean_sd", name, "", cells, *differences.of(variable.values, known, False)))
        if median:
            cells = tuple(_quartiles(variable.values, known, side) for side in sides)
            rows.append(Row("median_iqr", name, "", cells, None, None))
    else:
        for code, level in enumerate(variable.levels):
            inside = variable.values == code
            cells = tuple(_counted(inside, among, side) for side in sides)
            rows.append(Row("level", name, level, cells, *differences.of(inside.astype(float), among, True)))
    if not known.all():
        cells = tuple(_counted(~known, everybody, side) for side in sides)
        rows.append(Row("missing", name, "", cells, *differences.of((~known).astype(float), everybody, True)))
    return rows


def _counted(inside: Mask, known: Mask, side: _Column) -> Cell:
    part, whole = inside[side.rows], known[side.rows]
    total = float(side.weight[whole].sum())
    count = float(part.sum()) if side.even else None
    return Cell(count=count, share=float(side.weight[part].sum()) / total if total > 0 else None)


def _mean_sd(values: Array, known: Mask, side: _Column) -> Cell:
    inside = known[side.rows]
    x, w = values[side.rows][inside], side.weight[inside]
    if not len(x):
        return Cell()
    w = w / w.sum()
    mean, spread = float(w @ x), 1.0 - float(w @ w)
    return Cell(first=mean, second=float(np.sqrt(w @ (x - mean) ** 2 / spread)) if spread > 1e-15 else None)


def _quartiles(values: Array, known: Mask, side: _Column) -> Cell:
    inside = known[side.rows]
    x, w = values[side.rows][inside], side.weight[inside]
    if not len(x):
        return Cell()
    order = np.argsort(x, kind="stable")
    x, reached = x[order], np.cumsum(w[order]) / w.sum()
    made = []
    for part in (0.5, 0.25, 0.75):
        at = min(int(np.searchsorted(reached, part - 1e-12)), len(x) - 1)
        exact = abs(reached[at] - part) < 1e-12 and at + 1 < len(x)
        made.append(float((x[at] + x[at + 1]) / 2 if exact else x[at]))
    return Cell(first=made[0], second=made[1], third=made[2])


# -- without what tells of few people ---------------------------------------------------------------------------------


def _protected(variable: _Variable, lines: list[Row], sides: Sequence[_Column], minimum: int) -> list[Row]:
    """The lines of one variable without what tells of few people."""
    if variable.levels is None:
        return [_few(variable, row, sides, minimum) for row in lines]
    inside = [variable.values == code for code in range(len(variable.levels))]
    if len(lines) > len(inside):
        inside.append(variable.missing)
    marks = [hidden_cells([int(part[side.rows].sum()) for part in inside], minimum) for side in sides]
    for a in range(2, len(sides)):
        marks[a] = _with_before(marks[a], marks[a - 2])
    made = []
    for j, row in enumerate(lines):
        cells = []
        for a, cell in enumerate(row.cells):
            mark = marks[a][j]
            cells.append(cell.emptied(mark) if mark else _without_count(cell, a, sides))
        gone = [bool(cell.hidden) for cell in cells]
        before = None if any(gone[:2]) else row.smd_before
        made.append(replace(row, cells=tuple(cells), smd_before=before, smd_after=None if any(gone) else row.smd_after))
    return made


def _with_before(after: tuple[Hidden, ...], before: tuple[Hidden, ...]) -> tuple[Hidden, ...]:
    return tuple(a or ("cover" if b else "") for a, b in zip(after, before, strict=True))


def _without_count(cell: Cell, a: int, sides: Sequence[_Column]) -> Cell:
    """A shown cell: with a minimum, shares after adjustment are whole percentages, numbers those of a whole group."""
    if a < 2:
        return cell
    whole = len(sides[a].rows) == len(sides[a - 2].rows)
    rounded = None if cell.share is None else round(cell.share, 2)
    return replace(cell, count=cell.count if whole else None, share=rounded)


def _few(variable: _Variable, row: Row, sides: Sequence[_Column], minimum: int) -> Row:
    """Means of fewer people than the minimum, and numbers of missing values below it, are hidden."""
    known = ~variable.missing
    cells = []
    for a, (cell, side) in enumerate(zip(row.cells, sides, strict=True)):
        number_known = int(known[side.rows].sum())
        number_missing = len(side.rows) - number_known
        small = number_known < minimum if row.kind != "missing" else 0 < number_missing < minimum
        if not small and row.kind == "missing":
            small = 0 < number_known < minimum
        cells.append(cell.emptied("small") if small else _without_count(cell, a, sides))
    for a in range(2, len(sides)):
        if cells[a - 2].hidden and not cells[a].hidden:
            cells[a] = cells[a].emptied("cover")
    gone = [bool(cell.hidden) for cell in cells]
    before = None if any(gone[:2]) else row.smd_before
    return replace(row, cells=tuple(cells), smd_before=before, smd_after=None if any(gone) else row.smd_after)


def _numbers_hidden(row: Row, sides: Sequence[_Column], minimum: int) -> Row:
    """Numbers of people after adjustment, hidden where fewer than the minimum fell out (the effective one too)."""
    cells = list(row.cells)
    for a in (2, 3):
        if 0 < len(sides[a - 2].rows) - len(sides[a].rows) < minimum:
            cells[a] = cells[a].emptied("cover")
    for a in range(4):
        if 0 < len(sides[a].rows) < minimum:
            cells[a] = cells[a].emptied("small")
    return replace(row, cells=tuple(cells))
