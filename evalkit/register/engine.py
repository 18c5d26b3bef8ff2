"""The door to DuckDB: the only place with SQL. Text becomes typed columns here; nothing raises on a value.

The database lives in memory, uses two threads, reads and writes no file, and loads no extension.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import duckdb
import narwhals as nw
import numpy as np
import pyarrow as pa

from evalkit.errors import DataError, Fault
from evalkit.register.schema import UNKNOWN, Field

if TYPE_CHECKING:
    from evalkit.study import Format

EMPTY, GOOD, BAD, OPEN = 0, 1, 2, 3
"""What a cell turned out to be, in the column ``state_column(name)``: BAD is unreadable or an unknown code, OPEN an
end date that stands for "no end" (year 2900 or later, such as 31-12-9999)."""

ROW = "__row"

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "temp_directory": "",
    "lock_configuration": "true",
}
_BLANK = "' ' || chr(9) || chr(10) || chr(13) || chr(160)"
_CLOCK = r"[ T]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?Z?$"
_ISO = "%Y-%m-%d"
_FIRST_YEAR, _OPEN_YEAR = 1900, 2900
_OPEN_ENDED = ("end", "planned_end")


def state_column(name: str) -> str:
    """Name of the column that says what the cells of a column turned out to be."""
    return f"__state_{name}"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _text(column: str, kind: pa.DataType) -> str:
    """SQL for the trimmed text of a cell; empty and NULL are null."""
    if pa.types.is_string(kind):
        return f"nullif(nullif(trim({column}, {_BLANK}), ''), 'NULL')"
    if pa.types.is_floating(kind):
        whole = f"{column} = trunc({column}) AND abs({column}) < 1e15"
        plain = f"CASE WHEN {whole} THEN {column}::BIGINT::VARCHAR ELSE {column}::VARCHAR END"
        return f"CASE WHEN NOT isnan({column}) THEN {plain} END"
    return f"{column}::VARCHAR"


def _number(text: str, kind: pa.DataType, decimal: str) -> str:
    """SQL for a number in the study's notation; points between thousands only in groups of three."""
    if not pa.types.is_string(kind):
        decimal = "."
    other = "," if decimal == "." else "."
    comma, thousands = f"[{decimal}]", f"[{other}]"
    plain = rf"^[+-]?(\d+{comma}?\d*|{comma}\d+)([eE][+-]?\d+)?$"
    grouped = rf"^[+-]?\d{{1,3}}({thousands}\d{{3}})+({comma}\d+)?$"
    ungrouped = f"replace({text}, {_quote(other)}, '')"
    return (
        f"CASE WHEN regexp_matches({text}, {_quote(plain)}) "
        f"THEN try_cast(replace({text}, {_quote(decimal)}, '.') AS DOUBLE) "
        f"WHEN regexp_matches({text}, {_quote(grouped)}) "
        f"THEN try_cast(replace({ungrouped}, {_quote(decimal)}, '.') AS DOUBLE) END"
    )


def _date(text: str, kind: pa.DataType, pattern: str) -> str:
    """SQL for a date in the study's format or ISO; a time of day behind it is ignored."""
    if pa.types.is_date(kind):
        date = f"{text}::DATE"
    else:
        patterns = f"[{_quote(pattern)}, {_quote(_ISO)}]"
        bare = f"regexp_replace({text}, {_quote(_CLOCK)}, '')"
        date = f"coalesce(try_strptime({text}, {patterns}), try_strptime({bare}, {patterns}))::DATE"
    return f"CASE WHEN year({date}) >= {_FIRST_YEAR} THEN {date} END"


def _code(text: str, codes: dict[str, str]) -> str:
    """SQL for the fixed code; empty stays empty unless the study names the empty code."""
    cases = []
    for fixed in dict.fromkeys(codes.values()):
        owns = [own for own, of in codes.items() if of == fixed and own not in ("", "*")]
        if owns:
            cases.append(f"WHEN {text} IN ({', '.join(map(_quote, owns))}) THEN {_quote(fixed)}")
    empty = _quote(codes[""]) if "" in codes else "NULL"
    rest = _quote(codes.get("*", UNKNOWN))
    return f"CASE WHEN {text} IS NULL THEN {empty} {' '.join(cases)} ELSE {rest} END"


def _typed(field: Field, text: str, kind: pa.DataType, layout: Format) -> tuple[str, str]:
    """SQL for the value of a column and, given the value, for its state."""
    value = _name(field.name)
    state = f"CASE WHEN {text} IS NULL THEN {EMPTY} WHEN {value} IS NULL THEN {BAD} ELSE {GOOD} END"
    match field.kind:
        case "date":
            if field.name in _OPEN_ENDED:
                state = state.replace(f"ELSE {GOOD}", f"WHEN year({value}) >= {_OPEN_YEAR} THEN {OPEN} ELSE {GOOD}")
            return _date(text, kind, layout.date), state
        case "number":
            return _number(text, kind, layout.decimal), state
        case "integer":
            number = _number(text, kind, layout.decimal)
            return f"CASE WHEN {number} = trunc({number}) AND abs({number}) < 1e15 THEN ({number})::BIGINT END", state
        case "code":
            codes = dict(field.codes or {})
            known = "true" if "*" in codes else f"{text} IN ({', '.join(map(_quote, codes)) or 'NULL'})"
            return _code(text, codes), f"CASE WHEN {text} IS NULL THEN {EMPTY} WHEN {known} THEN {GOOD} ELSE {BAD} END"
    return text, state


_TYPES = {
    "key": "VARCHAR",
    "text": "VARCHAR",
    "code": "VARCHAR",
    "date": "DATE",
    "integer": "BIGINT",
    "number": "DOUBLE",
}


class Engine:
    """An embedded database that holds the tables of one register."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:", config=_SETTINGS)

    def check_date_format(self, pattern: str, place: str) -> None:
        """Refuse a date format that cannot be read (``data.date_format``)."""
        valid = False
        with contextlib.suppress(duckdb.Error):
            self._connection.execute(f"SELECT try_strptime('x', {_quote(pattern)})").fetchall()
            valid = True
        if not valid:
            raise DataError(Fault("data.date_format", {"format": pattern}, place))

    def type_table(
        self, name: str, table: pa.Table, header: Sequence[str], fields: Sequence[Field], layout: Format
    ) -> nw.LazyFrame:
        """Make a table of typed columns out of a file.

        Parameters
        ----------
        name:
            Name of the new table.
        table, header:
            Columns ``c0``, ``c1``, .. with their own names, and ``row``.
        fields:
            The columns wanted. One that is not mapped becomes an empty column.

        Returns
        -------
        Frame with the fields, for every field its ``state_column``, and ``__row``.
        """
        texts, values, states = [f"row AS {ROW}"], [ROW], [ROW]
        for i, field in enumerate(fields):
            if field.own:
                column = f"c{list(header).index(field.own)}"
                kind = table.schema.field(column).type
                texts.append(f"{_text(column, kind)} AS __t{i}")
                value, state = _typed(field, f"__t{i}", kind, layout)
            else:
                value, state = "NULL", str(EMPTY)
            shown = _name(field.name)
            values.append(f"({value})::{_TYPES[field.kind]} AS {shown}" + (f", __t{i}" if field.own else ""))
            if field.kind == "date" and field.name in _OPEN_ENDED:
                shown = f"CASE WHEN year({shown}) < {_OPEN_YEAR} THEN {shown} END AS {shown}"
            states += [shown, f"({state})::TINYINT AS {_name(state_column(field.name))}"]
        inner = f"SELECT {', '.join(texts)} FROM __raw"
        middle = f"SELECT {', '.join(values)} FROM ({inner})"
        self._connection.register("__raw", table)
        self._connection.execute(f"CREATE TABLE {_name(name)} AS SELECT {', '.join(states)} FROM ({middle})")
        self._connection.unregister("__raw")
        return self.frame(name)

    def frame(self, name: str) -> nw.LazyFrame:
        """A table as lazy frame."""
        return nw.from_native(self._connection.table(_name(name)))

    def keep(self, name: str, frame: nw.LazyFrame) -> nw.LazyFrame:
        """Compute a lazy frame once and keep it as a table."""
        frame.to_native().create(name)
        return self.frame(name)

    def keep_sorted(self, name: str, frame: nw.LazyFrame, order: Sequence[str], row_id: str = "") -> nw.LazyFrame:
        """Keep a table in order, empty cells last, with a row number from 0 in front when ``row_id`` is given.

        ``order`` must settle the order of all rows that differ, so that it does not depend on the order of input.
        """
        by = ", ".join(f"{_name(column)} NULLS LAST" for column in order)
        number = f"row_number() OVER (ORDER BY {by}) - 1 AS {_name(row_id)}, " if row_id else ""
        query = f"SELECT {number}* FROM source ORDER BY {by}"
        frame.to_native().query("source", query).create(name)
        return self.frame(name)

    def drop(self, name: str) -> None:
        """Forget a table."""
        self._connection.execute(f"DROP TABLE {_name(name)}")

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """A table as numpy arrays in its kept order.

        Dates are ``datetime64[D]`` with NaT, text is object with None, row numbers are int64; every other number is
        float64 with NaN.
        """
        table = self._connection.table(_name(name)).to_arrow_table()
        arrays = {}
        for column in table.column_names:
            values = table.column(column).to_numpy()
            if values.dtype.kind in "iu" and column not in ("spell", "episode", "job"):
                values = values.astype(np.float64)
            arrays[column] = values
        return arrays
