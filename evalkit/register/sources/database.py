"""Tables in databases: a DuckDB file, opened for reading only, and PostgreSQL, in a session that may only read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from evalkit.errors import DataError, Fault
from evalkit.register.reader import Raw, nearest, plain_table, read_bytes, unreadable_file
from evalkit.register.sources.packages import load

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "temp_directory": "",
}
_TYPES: dict[int, pa.DataType] = {  # by the number that PostgreSQL gives its types; the rest by name, see _pg_type
    20: pa.int64(),
    21: pa.int64(),
    23: pa.int64(),
    700: pa.float64(),
    701: pa.float64(),
    1082: pa.date32(),
    1114: pa.date32(),
    1184: pa.date32(),
    1700: pa.decimal128(38),
}
_TEXTS = (16, 18, 19, 25, 1042, 1043, 2950)  # boolean, "char", name, text, char(n), varchar(n), uuid


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _open_ended(column: str) -> str:
    """SQL for a date in which "for ever" is the last day that a date can be, and "since ever" the first."""
    return (
        f"CASE WHEN {column} > DATE '9999-12-31' THEN DATE '9999-12-31' "
        f"WHEN {column} < DATE '0001-01-01' THEN DATE '0001-01-01' ELSE CAST({column} AS DATE) END"
    )


def _day(column: str, kind: str) -> str:
    """SQL for the date of a column; counted in nanoseconds none is too far away to be a date."""
    return f"CAST({column} AS DATE)" if kind == "TIMESTAMP_NS" else _open_ended(column)


def _find(table: str, known: Sequence[tuple[str, str]], name: str, place: str) -> str:
    """The quoted name of a table given as ``table`` or ``schema.table``; ``known``: (schema, table), best first."""
    found = next(((s, t) for s, t in known if table in (t, f"{s}.{t}")), None)
    if found is None:
        near = nearest(table, [t for _, t in known])
        raise DataError(Fault("data.missing_table", {"file": name, "table": table, "nearest": near or "–"}, place))
    return f"{_name(found[0])}.{_name(found[1])}"


def duckdb_tables(path: Path, place: str) -> list[tuple[str, str]]:
    """Schema and name of the tables and views of a DuckDB file."""
    with _duckdb(path, place) as connection:
        return _listed(connection)


def _duckdb(path: Path, place: str) -> duckdb.DuckDBPyConnection:
    connection = None
    try:
        connection = duckdb.connect(str(path), read_only=True, config=_SETTINGS)
    except duckdb.Error:
        pass
    if connection is None:
        raise unreadable_file(path.name, place)
    return connection


def _listed(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    query = """SELECT table_schema, table_name FROM information_schema.tables
        WHERE table_catalog = current_database() ORDER BY table_schema <> 'main', table_schema, table_name"""
    return [(str(schema), str(table)) for schema, table in connection.execute(query).fetchall()]


def read_duckdb(path: Path, table: str, place: str) -> Raw:
    """Read a table or view of a DuckDB file.

    Raises
    ------
    DataError
        ``data.missing_file``, ``data.unreadable_file``, ``data.missing_table``.
    """
    sha256 = hashlib.sha256(read_bytes(path, f"{place}.file")).hexdigest()
    frame = None
    with _duckdb(path, f"{place}.file") as connection:
        where = _find(table, _listed(connection), path.name, f"{place}.table")
        try:
            described = connection.execute(f"DESCRIBE SELECT * FROM {where}").fetchall()
            dates = {str(row[0]): str(row[1]) for row in described if str(row[1]).startswith(("DATE", "TIMESTAMP"))}
            swapped = ", ".join(f"{_day(_name(name), kind)} AS {_name(name)}" for name, kind in dates.items())
            columns = f"* REPLACE ({swapped})" if dates else "*"
            frame = connection.sql(f"SELECT {columns} FROM {where}").to_arrow_table()
        except duckdb.Error:  # a view on files or on another database, which this connection may not open
            pass
    if frame is None:
        raise unreadable_file(path.name, f"{place}.table")
    found = {name.strip(): frame.column(i) for i, name in enumerate(frame.column_names)}
    return plain_table(found, name=path.name, sha256=sha256, kind="duckdb")


def read_postgres(variable: str, table: str, place: str) -> Raw:
    """Read a table or view of a PostgreSQL database.

    Parameters
    ----------
    variable:
        The environment variable that holds the connection string.

    Returns
    -------
    A Raw whose checksum is that of the table's contents, sorted, since a database has no file.

    Raises
    ------
    DataError
        ``data.package_missing``, ``data.database_variable``, ``data.no_connection``, ``data.missing_table``.
    """
    psycopg = load("psycopg", table, f"{place}.database")
    string = os.environ.get(variable, "")
    if not string:
        raise DataError(Fault("data.database_variable", {"variable": variable}, f"{place}.database"))
    faults: tuple[Fault, ...] = ()
    raw = None
    try:
        with psycopg.connect(string, connect_timeout=10, application_name="evalkit") as connection:
            connection.read_only = True
            raw = _from_postgres(connection, table, place)
    except DataError as error:
        faults = error.faults
    except psycopg.Error:  # its words may quote the connection string or a value
        pass
    if faults:
        raise DataError(faults)
    if raw is None:
        raise DataError(Fault("data.no_connection", {"variable": variable, "table": table}, f"{place}.database"))
    return raw


_PG_TABLES = """SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    ORDER BY NOT pg_table_is_visible(c.oid), 1, 2"""


def _from_postgres(connection: Any, table: str, place: str) -> Raw:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL datestyle = 'ISO, YMD'")
        cursor.execute("SET LOCAL extra_float_digits = 3")
        where = _find(table, cursor.execute(_PG_TABLES).fetchall(), table, f"{place}.table")
        cursor.execute(f"SELECT * FROM {where} LIMIT 0")
        kinds = {column.name: _pg_type(cursor, column.type_code) for column in cursor.description}
        cursor.execute(f"SELECT * FROM {where} LIMIT 0")
        good = {name: kind for name, kind in kinds.items() if kind is not None}
        if not good:
            return plain_table(dict.fromkeys(kinds), name=table, sha256="", kind="postgres")
        shown = ", ".join(f"{_pg_value(name, kind)} AS {_name(name)}" for name, kind in good.items())
        order = ", ".join(f"{number}" for number in range(1, len(good) + 1))
        query = f"SELECT * FROM (SELECT {shown} FROM {where}) AS t ORDER BY {order}"
        with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)") as copy:
            data = b"".join(copy)
    digest = hashlib.sha256(repr(sorted(good)).encode() + data).hexdigest()
    columns = _columns(data, good)
    return plain_table({name: columns.get(name) for name in kinds}, name=table, sha256=digest, kind="postgres")


def _pg_type(cursor: Any, code: int) -> pa.DataType | None:
    """How a column is read; None for types that a table cannot hold."""
    if code in _TYPES:
        return _TYPES[code]
    if code in _TEXTS:
        return pa.string()
    kind = cursor.execute("SELECT typtype = 'e' OR typname = 'citext' FROM pg_type WHERE oid = %s", (code,)).fetchone()
    return pa.string() if kind and kind[0] else None


def _pg_value(name: str, kind: pa.DataType) -> str:
    if pa.types.is_date(kind):
        return _open_ended(_name(name))
    return f'{_name(name)}::text COLLATE "C"' if pa.types.is_string(kind) else _name(name)


def _columns(data: bytes, kinds: dict[str, pa.DataType]) -> dict[str, pa.ChunkedArray]:
    """Typed columns from what COPY gives: an empty cell is null, an empty text stands between quotation marks."""
    if not data:
        return {name: pa.chunked_array([pa.nulls(0, pa.string())]) for name in kinds}
    keys = [str(i) for i in range(len(kinds))]
    plain = {key: pa.string() if pa.types.is_decimal(k) else k for key, k in zip(keys, kinds.values(), strict=True)}
    table = pa_csv.read_csv(
        pa.BufferReader(data),
        pa_csv.ReadOptions(use_threads=False, column_names=keys, block_size=1 << 22),
        pa_csv.ParseOptions(newlines_in_values=True),
        pa_csv.ConvertOptions(
            column_types=plain, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    found = {name: table.column(key) for name, key in zip(kinds, keys, strict=True)}
    return {n: _numeric(c) if pa.types.is_decimal(kinds[n]) else c for n, c in found.items()}


def _numeric(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers of any length: whole when all are, as text when too long for that, so that no key changes."""
    if pc.any(pc.match_substring_regex(column, r"[^\d-]")).as_py():
        return column.cast(pa.float64())
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
