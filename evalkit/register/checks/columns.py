"""The rules on the columns of persons, as data: what is missing, constant, rare, misspelt or out of range.

A column comes as its different values with their counts by arm. Values never leave this module.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalkit.register.checks.rules import MANY
from evalkit.register.schema import Check, Severity, by_arm

Mask = NDArray[np.bool_]

LEVELS = 50
"""Categories above which a column looks like an identifier or a free text."""

_WORD = re.compile(r"^(\W*|onbekend|unknown|nvt|n\.?v\.?t\.?|n/?a|nan|null|none|missing|leeg|xx+|9{2,})$", re.I)
_BETWEEN = r"[\s_.,;:'\"/()-]+"
_LOOSE = re.compile(rf"{_BETWEEN}(?!\d)|(?<=[^\W\d_]){_BETWEEN}")
"""Blanks and punctuation without meaning; before a digit they have one (1.1, -5), unless a letter precedes (mbo 1)."""
_SENTINELS = (-1.0, -9.0, -99.0, -999.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0, 9999999.0, 99999999.0, 999999999.0)


@dataclass(frozen=True)
class Column:
    """A column's values (n,), text or numbers, None or NaN where empty, with how many of which arm have each.

    ``minimum``: the smallest number of persons that is shown.
    """

    name: str
    values: NDArray[np.object_]
    starter: Mask
    count: NDArray[np.int64]
    numeric: bool
    minimum: int = 10

    @cached_property
    def empty(self) -> Mask:
        """Where there is no value."""
        return np.array([value is None or value != value for value in self.values], bool)

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """The values as numbers, NaN where empty."""
        return np.where(self.empty, np.nan, self.values).astype(float)

    @cached_property
    def total(self) -> int:
        """How many persons."""
        return int(self.count.sum())

    @cached_property
    def filled(self) -> int:
        """How many of them have a value."""
        return int(self.count[~self.empty].sum())

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Persons by category."""
        found: dict[str, int] = {}
        for value, n in zip(self.values[~self.empty], self.count[~self.empty], strict=True):
            found[str(value)] = found.get(str(value), 0) + int(n)
        return found

    def quantiles(self, *shares: float) -> list[float]:
        """Values below which these shares of the filled ones lie."""
        order = np.argsort(self.numbers[~self.empty], kind="stable")
        running = np.cumsum(self.count[~self.empty][order])
        at = [int(np.searchsorted(running, share * self.filled)) for share in shares]
        return [float(self.numbers[~self.empty][order][i]) for i in at]

    def among(self, levels: Sequence[str]) -> Mask:
        """Where the value is one of some categories."""
        wanted = set(levels)
        return ~self.empty & np.array([str(value) in wanted for value in self.values], bool)


@dataclass(frozen=True)
class ColumnRule:
    """A code, how serious it is, whether it is for numbers or categories (None both), and which rows it counts."""

    code: str
    severity: Severity
    numeric: bool | None
    find: Callable[[Column], Mask | None]


def missing(column: Column) -> Mask | None:
    """Some have no value, yet not nearly all."""
    return column.empty if column.filled >= 0.1 * column.total else None


def almost_empty(column: Column) -> Mask | None:
    """More than nine in ten have no value."""
    return column.empty if column.filled < 0.1 * column.total else None


def constant(column: Column) -> Mask | None:
    """Everyone who has a value has the same."""
    return ~column.empty if column.filled > 1 and len(set(column.values[~column.empty].tolist())) == 1 else None


def spelling(column: Column) -> Mask | None:
    """Categories that differ from a commoner one in capitals, blanks or punctuation only."""
    best: dict[str, str] = {}
    for level, n in sorted(column.sizes.items()):
        plain = _LOOSE.sub("", unicodedata.normalize("NFKC", level).casefold()) or level
        if plain not in best or n > column.sizes[best[plain]]:
            best[plain] = level
    return column.among([level for level in column.sizes if level not in best.values()])


def rare(column: Column) -> Mask | None:
    """Categories of fewer persons than may be shown."""
    if len(column.sizes) > LEVELS or column.filled < MANY:
        return None
    return column.among([level for level, n in column.sizes.items() if n < column.minimum])


def many(column: Column) -> Mask | None:
    """More than fifty categories."""
    return ~column.empty if len(column.sizes) > LEVELS else None


def unknown_word(column: Column) -> Mask | None:
    """Words and signs that stand for no value."""
    return column.among([level for level in column.sizes if _WORD.match(level)])


def outlier(column: Column) -> Mask | None:
    """Further from the middle half than five times its width, codes for no value apart."""
    if column.filled < MANY:
        return None
    low, high = column.quantiles(0.25, 0.75)
    reach = 5 * (high - low)
    if not reach:
        return None
    codes = sentinel(column)
    far = (column.numbers < low - reach) | (column.numbers > high + reach)
    return far if codes is None else far & ~codes


def sentinel(column: Column) -> Mask | None:
    """The lowest or highest number is -1 or a row of nines and stands alone: a code for no value."""
    if column.filled < MANY:
        return None
    numbers = np.unique(column.numbers[~column.empty])
    if len(numbers) < 5:
        return None
    ends = [(numbers[0], numbers[1]), (numbers[-1], numbers[-2])]
    width = numbers[-2] - numbers[1]
    codes = [end for end, next_ in ends if end in _SENTINELS and abs(end - next_) > (0 if end < 0 else 0.2 * width)]
    codes = [code for code in codes if code > 0 or numbers[1] >= 0]
    return np.isin(column.numbers, codes)


def birth_year_heaped(column: Column) -> Mask | None:
    """More than three in ten birth years end in 0 or 5, where two in ten would."""
    round_ = ~column.empty & (np.where(column.empty, 1, column.numbers) % 5 == 0)
    return round_ if column.filled >= MANY and column.count[round_].sum() > 0.3 * column.filled else None


def birth_year_peak(column: Column) -> Mask | None:
    """One birth year holds at least one in fifty, and four times as many as the years around it."""
    if column.filled < MANY:
        return None
    year = column.numbers[~column.empty].astype(np.int64)
    by_year = np.bincount(year - year.min() + 2, column.count[~column.empty], year.max() - year.min() + 5)
    around = (by_year[:-4] + by_year[1:-3] + by_year[3:-1] + by_year[4:]) / 4
    here = by_year[2:-2]
    odd = np.flatnonzero((here >= 0.02 * column.filled) & (here > 4 * np.maximum(around, 1))) + year.min()
    return np.isin(column.numbers, odd)


COLUMN_RULES: tuple[ColumnRule, ...] = (
    ColumnRule("covariate_missing", "info", None, missing),
    ColumnRule("covariate_almost_empty", "warn", None, almost_empty),
    ColumnRule("covariate_constant", "warn", None, constant),
    ColumnRule("category_spelling", "warn", False, spelling),
    ColumnRule("category_rare", "info", False, rare),
    ColumnRule("category_many", "warn", False, many),
    ColumnRule("category_unknown_word", "info", False, unknown_word),
    ColumnRule("numeric_outlier", "warn", True, outlier),
    ColumnRule("numeric_sentinel", "warn", True, sentinel),
)
"""What is looked for in covariates and subgroups."""

BIRTH_RULES: tuple[ColumnRule, ...] = (
    ColumnRule("birth_year_heaped", "warn", True, birth_year_heaped),
    ColumnRule("birth_year_peak", "warn", True, birth_year_peak),
)
"""What is looked for in the birth year."""

_JUDGED = {"covariate_missing", "covariate_almost_empty"}  # among all persons; the others among those with a value


def column_checks(table: str, column: Column, rules: Sequence[ColumnRule] = COLUMN_RULES) -> Iterator[Check]:
    """The checks of one column."""
    for rule in rules:
        if not column.total or rule.numeric not in (None, column.numeric):
            continue
        chosen = rule.find(column)
        if chosen is None or not (count := int(column.count[chosen].sum())):
            continue
        judged = np.ones(len(column.values), bool) if rule.code in _JUDGED else ~column.empty
        counts, totals = (
            {arm: int(column.count[rows & (column.starter == arm)].sum()) for arm in (True, False)}
            for rows in (chosen, judged)
        )
        share = count / int(column.count[judged].sum())
        params = {"column": column.name}
        yield Check(rule.code, rule.severity, table, count, share, params, arms=by_arm(counts, totals))
