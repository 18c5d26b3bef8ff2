"""The door to DuckDB. The SQL that types cells stands in ``cells``; no other place has any.

The database lives in memory, uses two threads, reads and writes no file, and loads no extension.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import duckdb
import narwhals as nw
import numpy as np
import pyarrow as pa

from evalkit.errors import DataError, Fault
from evalkit.register.cells import DuckDialect, typed_query
from evalkit.register.schema import ROW_ID, Field

if TYPE_CHECKING:
    from evalkit.study import Format

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "temp_directory": "",
    "lock_configuration": "true",
}
_DIALECT = DuckDialect()
_name, _quote = _DIALECT.name, _DIALECT.quote


class Engine:
    """An embedded database that holds the tables of one register."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:", config=_SETTINGS)
        self._numbers = itertools.count()

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
        query = typed_query(_DIALECT, "__raw", table.schema, header, fields, layout)
        self._connection.register("__raw", table)
        self._connection.execute(f"CREATE TABLE {_name(name)} AS {query}")
        self._connection.unregister("__raw")
        return self.frame(name)

    def frame(self, name: str) -> nw.LazyFrame:
        """A table as lazy frame."""
        return nw.from_native(self._connection.table(_name(name)))

    def keep(self, name: str, frame: nw.LazyFrame) -> nw.LazyFrame:
        """Compute a lazy frame once and keep it as a table."""
        frame.to_native().create(_name(name))
        return self.frame(name)

    def keep_sorted(self, name: str, frame: nw.LazyFrame, order: Sequence[str], row_id: str = "") -> nw.LazyFrame:
        """Keep a table in order, empty cells last, with a row number from 0 in front when ``row_id`` is given.

        ``order`` must settle the order of all rows that differ, so that it does not depend on the order of input.
        """
        by = ", ".join(f"{_name(column)} NULLS LAST" for column in order)
        number = f"row_number() OVER (ORDER BY {by}) - 1 AS {_name(row_id)}, " if row_id else ""
        query = f"SELECT {number}* FROM source ORDER BY {by}"
        frame.to_native().query("source", query).create(_name(name))
        return self.frame(name)

    def drop(self, name: str) -> None:
        """Forget a table."""
        self._connection.execute(f"DROP TABLE {_name(name)}")

    def keep_new(self, frame: nw.LazyFrame) -> nw.LazyFrame:
        """Compute a lazy frame once and keep it under a name of its own, until ``forget``."""
        return self.keep(f"__kept_{next(self._numbers)}", frame)

    def forget(self, frame: nw.LazyFrame) -> None:
        """Drop the table that ``keep_new`` made."""
        self.drop(frame.to_native().alias)

    def has(self, name: str) -> bool:
        """Whether there is such a table."""
        query = "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?"
        return bool(self._connection.execute(query, [name]).fetchall()[0][0])

    def places(self, name: str) -> nw.LazyFrame:
        """A kept table with ``place``: the number of each row in its kept order, from 0."""
        return nw.from_native(self._connection.sql(f"SELECT rowid AS place, * FROM {_name(name)}"))

    def number(self, frame: nw.LazyFrame, name: str, order: Sequence[str]) -> nw.LazyFrame:
        """Number rows from 0 by columns that settle their order, in the new column ``name``."""
        return frame.with_row_index(name, order_by=order)

    def put(self, name: str, table: pa.Table) -> nw.LazyFrame:
        """Keep an arrow table."""
        self._connection.register("__raw", table)
        self._connection.execute(f"CREATE TABLE {_name(name)} AS SELECT * FROM __raw")
        self._connection.unregister("__raw")
        return self.frame(name)

    def query(self, text: str, frame: nw.LazyFrame) -> nw.LazyFrame:
        """SQL that every engine reads alike, for what narwhals has no words for; ``{source}`` stands for the frame."""
        return nw.from_native(frame.to_native().query("source", text.format(source="source")))

    def explode(self, frame: nw.LazyFrame, first: str, last: str, name: str) -> nw.LazyFrame:
        """A row for every whole number from one column to another, both included, in the new column ``name``."""
        numbers = f"unnest(range({_name(first)}::BIGINT, {_name(last)}::BIGINT + 1))"
        return self.query(f"SELECT *, {numbers} AS {_name(name)} FROM {{source}}", frame)

    def day_numbers(self, frame: nw.LazyFrame, **dates: str) -> nw.LazyFrame:
        """Days since 1970-01-01 of date columns, in new columns."""
        made = [f"{_name(date)}::DATE - DATE '1970-01-01' AS {_name(name)}" for name, date in dates.items()]
        return self.query(f"SELECT *, {', '.join(made)} FROM {{source}}", frame)

    def arrays(self, name: str, places: bool = False) -> dict[str, np.ndarray]:
        """A table as numpy arrays in its kept order.

        Dates are ``datetime64[D]`` with NaT, text is object with None, row numbers are int64; every other number is
        float64 with NaN. With ``places`` a person is the number of his row among persons.
        """
        query = f"SELECT * FROM {_name(name)}"
        if places:
            query = f"""SELECT p.rowid AS person, t.* EXCLUDE (person) FROM {_name(name)} t JOIN persons p
                USING (person) ORDER BY t.rowid"""
        return to_arrays(self._connection.sql(query).to_arrow_table())


def to_arrays(table: pa.Table) -> dict[str, np.ndarray]:
    """Columns as ``Engine.arrays`` gives them."""
    arrays = {}
    for column in table.column_names:
        values = table.column(column)
        if pa.types.is_string(values.type) and column != "person":
            words = values.combine_chunks().dictionary_encode()  # one object for each different text
            known = np.array([*words.dictionary.to_pylist(), None], object)
            arrays[column] = known[words.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)]
            continue
        made = values.to_numpy()
        if made.dtype.kind in "iu" and column not in (*ROW_ID.values(), "person"):
            made = made.astype(np.float64)
        arrays[column] = made
    return arrays
