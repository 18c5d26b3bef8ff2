"""SQL that makes a typed value of a cell; nothing raises on a value. What engines say differently is a ``Dialect``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from evalkit.register.schema import UNKNOWN, Field

if TYPE_CHECKING:
    from evalkit.study import Format

EMPTY, GOOD, BAD, OPEN = 0, 1, 2, 3
"""What a cell turned out to be, in the column ``state_column(name)``: BAD is unreadable or an unknown code, OPEN an
end date that stands for "no end" (year 2900 or later, such as 31-12-9999)."""

ROW = "__row"

_BLANK = "' ' || chr(9) || chr(10) || chr(13) || chr(160)"
_CLOCK = r"[ T]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?Z?$"
_ISO = "%Y-%m-%d"
_FIRST_YEAR, _OPEN_YEAR = 1900, 2900
_OPEN_ENDED = ("end", "planned_end")
_MOST = "1e15"  # numbers from here on are no amounts but keys or rubbish, and sums of them lose digits


def state_column(name: str) -> str:
    """Name of the column that says what the cells of a column turned out to be."""
    return f"__state_{name}"


class Dialect(Protocol):
    """How an engine writes what others write differently; every part is SQL."""

    text_type: str

    def name(self, name: str) -> str:
        """A name between quotation marks."""
        ...

    def quote(self, text: str) -> str:
        """A text as it is."""
        ...

    def trim(self, text: str, blanks: str) -> str:
        """Without certain characters at both ends."""
        ...

    def matches(self, text: str, pattern: str) -> str:
        """Whether a regular expression is found in a text."""
        ...

    def dates(self, text: str, patterns: Sequence[str]) -> str:
        """The date that the first fitting pattern reads, else null; patterns as in the study file."""
        ...


class DuckDialect:
    """The SQL of DuckDB."""

    text_type = "VARCHAR"

    def name(self, name: str) -> str:
        """See ``Dialect``."""
        return '"' + name.replace('"', '""') + '"'

    def quote(self, text: str) -> str:
        """See ``Dialect``."""
        return "'" + text.replace("'", "''") + "'"

    def trim(self, text: str, blanks: str) -> str:
        """See ``Dialect``."""
        return f"trim({text}, {blanks})"

    def matches(self, text: str, pattern: str) -> str:
        """See ``Dialect``."""
        return f"regexp_matches({text}, {self.quote(pattern)})"

    def dates(self, text: str, patterns: Sequence[str]) -> str:
        """See ``Dialect``."""
        return f"try_strptime({text}, [{', '.join(map(self.quote, patterns))}])::DATE"


class SparkDialect:
    """The SQL of Spark 4."""

    text_type = "STRING"
    _letters = {"d": "d", "m": "M", "Y": "yyyy", "H": "H", "M": "m", "S": "s"}

    def name(self, name: str) -> str:
        """See ``Dialect``."""
        return "`" + name.replace("`", "``") + "`"

    def quote(self, text: str) -> str:
        """See ``Dialect``."""
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def trim(self, text: str, blanks: str) -> str:
        """See ``Dialect``."""
        return f"btrim({text}, {blanks})"

    def matches(self, text: str, pattern: str) -> str:
        """See ``Dialect``."""
        return f"regexp_like({text}, {self.quote(pattern)})"

    def dates(self, text: str, patterns: Sequence[str]) -> str:
        """See ``Dialect``."""
        tries = [f"to_date(try_to_timestamp({text}, {self.quote(self._pattern(p))}))" for p in patterns]
        return f"coalesce({', '.join(tries)})"

    def _pattern(self, pattern: str) -> str:
        """A pattern of the study file in Spark's letters; side by side, days and months have two digits."""
        parts = re.findall(r"%(.)|([^%]+)", pattern)
        made = []
        for i, (letter, literal) in enumerate(parts):
            if literal:
                made.append("'" + literal.replace("'", "''") + "'")
                continue
            beside = (i > 0 and parts[i - 1][0]) or (i + 1 < len(parts) and parts[i + 1][0])
            sign = self._letters[letter]
            made.append(sign * 2 if beside and len(sign) == 1 else sign)
        return "".join(made)


def typed_query(
    dialect: Dialect, source: str, table: pa.Schema, header: Sequence[str], fields: Sequence[Field], layout: Format
) -> str:
    """The query that makes typed columns out of the columns ``c0``, ``c1``, .. and ``row`` of a source.

    Parameters
    ----------
    table:
        The types of those columns.
    header:
        Their own names.
    fields:
        The columns wanted. One that is not mapped becomes an empty column.

    Returns
    -------
    A query for the fields, for every field its ``state_column``, and ``__row``.
    """
    types = dict.fromkeys(("key", "text", "code"), dialect.text_type)
    types |= {"date": "DATE", "month": "DATE", "integer": "BIGINT", "number": "DOUBLE"}
    texts, values, states = [f"row AS {ROW}"], [ROW], [ROW]
    for i, field in enumerate(fields):
        if field.own:
            column = f"c{list(header).index(field.own)}"
            kind = table.field(column).type
            texts.append(f"{_text(dialect, column, kind)} AS __t{i}")
            value, state = _typed(dialect, field, f"__t{i}", kind, layout)
        else:
            value, state = "NULL", str(EMPTY)
        shown = dialect.name(field.name)
        values.append(f"({value})::{types[field.kind]} AS {shown}" + (f", __t{i}" if field.own else ""))
        if field.kind == "date" and field.name in _OPEN_ENDED:
            shown = f"CASE WHEN year({shown}) < {_OPEN_YEAR} THEN {shown} END AS {shown}"
        states += [shown, f"({state})::TINYINT AS {dialect.name(state_column(field.name))}"]
    inner = f"SELECT {', '.join(texts)} FROM {source}"
    middle = f"SELECT {', '.join(values)} FROM ({inner})"
    return f"SELECT {', '.join(states)} FROM ({middle})"


def _text(dialect: Dialect, column: str, kind: pa.DataType) -> str:
    """SQL for the trimmed text of a cell; empty and NULL are null."""
    if pa.types.is_string(kind):
        return f"nullif(nullif({dialect.trim(column, _BLANK)}, ''), 'NULL')"
    if pa.types.is_floating(kind):
        whole = f"{column} = floor({column}) AND abs({column}) < 1e15"
        text = dialect.text_type
        plain = f"CASE WHEN {whole} THEN {column}::BIGINT::{text} ELSE {column}::{text} END"
        return f"CASE WHEN NOT isnan({column}) THEN {plain} END"
    return f"{column}::{dialect.text_type}"


def _number(dialect: Dialect, text: str, kind: pa.DataType, decimal: str) -> str:
    """SQL for a number in the study's notation; points between thousands only in groups of three."""
    if not pa.types.is_string(kind):
        decimal = "."
    other = "," if decimal == "." else "."
    comma, thousands = f"[{decimal}]", f"[{other}]"
    plain = rf"^[+-]?(\d+{comma}?\d*|{comma}\d+)([eE][+-]?\d+)?$"
    grouped = rf"^[+-]?\d{{1,3}}({thousands}\d{{3}})+({comma}\d+)?$"
    quote = dialect.quote
    ungrouped = f"replace({text}, {quote(other)}, '')"
    return (
        f"CASE WHEN {dialect.matches(text, plain)} "
        f"THEN try_cast(replace({text}, {quote(decimal)}, '.') AS DOUBLE) "
        f"WHEN {dialect.matches(text, grouped)} "
        f"THEN try_cast(replace({ungrouped}, {quote(decimal)}, '.') AS DOUBLE) END"
    )


def _date(dialect: Dialect, text: str, kind: pa.DataType, pattern: str) -> str:
    """SQL for a date in the study's format or ISO; a time of day behind it is ignored."""
    if pa.types.is_date(kind):
        date = f"{text}::DATE"
    else:
        bare = f"regexp_replace({text}, {dialect.quote(_CLOCK)}, '')"
        date = f"coalesce({dialect.dates(text, [pattern, _ISO])}, {dialect.dates(bare, [pattern, _ISO])})"
    return f"CASE WHEN year({date}) >= {_FIRST_YEAR} THEN {date} END"


_MONTHS = (  # a pattern, the group of the year, the month in which the period ends
    (r"^(\d{4})[-/]?(0?[1-9]|1[0-2])$", 1, "{2}"),
    (r"^(0?[1-9]|1[0-2])[-/](\d{4})$", 2, "{1}"),
    (r"^(\d{4})MM(0[1-9]|1[0-2])$", 1, "{2}"),
    (r"^(\d{4})KW0([1-4])$", 1, "3 * {2}"),
    (r"^(\d{4})(JJ00)?$", 1, "12"),
)


def _month(dialect: Dialect, text: str, kind: pa.DataType, pattern: str) -> str:
    """SQL for the first day of the month in which a period ends: a month, quarter or year, or a day in the month."""
    day = f"date_trunc('month', {_date(dialect, text, kind, pattern)})::DATE"
    if pa.types.is_date(kind):
        return day
    cases = []
    for form, year, month in _MONTHS:
        part = {i: f"try_cast(regexp_extract({text}, {dialect.quote(form)}, {i}) AS INTEGER)" for i in (1, 2)}
        parts = f"{part[year]}, {month.format('', part[1], part[2])}, 1"
        cases.append(f"WHEN {dialect.matches(text, form)} THEN make_date({parts})")
    day = f"CASE {' '.join(cases)} ELSE {day} END"
    return f"CASE WHEN year({day}) >= {_FIRST_YEAR} THEN {day} END"


def _code(dialect: Dialect, text: str, codes: dict[str, str]) -> str:
    """SQL for the fixed code; empty stays empty unless the study names the empty code."""
    quote, cases = dialect.quote, []
    for fixed in dict.fromkeys(codes.values()):
        owns = [own for own, of in codes.items() if of == fixed and own not in ("", "*")]
        if owns:
            cases.append(f"WHEN {text} IN ({', '.join(map(quote, owns))}) THEN {quote(fixed)}")
    empty = quote(codes[""]) if "" in codes else "NULL"
    rest = quote(codes.get("*", UNKNOWN))
    return f"CASE WHEN {text} IS NULL THEN {empty} {' '.join(cases)} ELSE {rest} END"


def _typed(dialect: Dialect, field: Field, text: str, kind: pa.DataType, layout: Format) -> tuple[str, str]:
    """SQL for the value of a column and, given the value, for its state."""
    value = dialect.name(field.name)
    state = f"CASE WHEN {text} IS NULL THEN {EMPTY} WHEN {value} IS NULL THEN {BAD} ELSE {GOOD} END"
    match field.kind:
        case "date":
            if field.name in _OPEN_ENDED:
                state = state.replace(f"ELSE {GOOD}", f"WHEN year({value}) >= {_OPEN_YEAR} THEN {OPEN} ELSE {GOOD}")
            return _date(dialect, text, kind, layout.date), state
        case "month":
            return _month(dialect, text, kind, layout.date), state
        case "number":
            number = _number(dialect, text, kind, layout.decimal)
            return f"CASE WHEN abs({number}) < {_MOST} THEN {number} END", state
        case "integer":
            number = _number(dialect, text, kind, layout.decimal)
            whole = f"{number} = floor({number}) AND abs({number}) < {_MOST}"
            return f"CASE WHEN {whole} THEN ({number})::BIGINT END", state
        case "code":
            codes = dict(field.codes or {})
            known = "true" if "*" in codes else f"{text} IN ({', '.join(map(dialect.quote, codes)) or 'NULL'})"
            state = f"CASE WHEN {text} IS NULL THEN {EMPTY} WHEN {known} THEN {GOOD} ELSE {BAD} END"
            return _code(dialect, text, codes), state
    return text, state
