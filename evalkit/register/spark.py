"""Tables in a Spark session: the same checks and shapes, computed where the data are.

pyspark is imported here and nowhere else, when a study or a caller names a session. The session is the user's own: no
setting of it is changed, no table or view is left in its catalogue. What Spark keeps while it works lies where the
session says.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pyarrow as pa

from evalkit.errors import DataError, Fault
from evalkit.register import privacy
from evalkit.register.cells import SparkDialect, typed_query
from evalkit.register.engine import to_arrays
from evalkit.register.reader import Raw
from evalkit.register.schema import Check, Field

if TYPE_CHECKING:
    from evalkit.study import Format
    from evalkit.study.model import TableSpec

_DIALECT = SparkDialect()
_PLACE = "__place"
_SHOWN = 2000  # different texts of a column that are looked at to tell how dates and numbers are written


def _functions() -> Any:
    from pyspark.sql import functions

    return functions


class SparkEngine:
    """Tables of one register in a Spark session; the same methods as ``Engine``."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._frames: dict[str, Any] = {}
        self._numbers = itertools.count()

    def check_date_format(self, pattern: str, place: str) -> None:
        """Refuse a date format that cannot be read (``data.date_format``)."""
        try:
            _DIALECT.dates("''", [pattern])
            return
        except KeyError:
            pass
        raise DataError(Fault("data.date_format", {"format": pattern}, place))

    def type_table(
        self, name: str, table: Any, header: Sequence[str], fields: Sequence[Field], layout: Format
    ) -> nw.LazyFrame:
        """Make a table of typed columns out of a Spark table; see ``Engine.type_table``."""
        query = typed_query(_DIALECT, "{source}", plain_schema(table), header, fields, layout)
        return self.keep(name, nw.from_native(self._sql(query, table)))

    def _sql(self, text: str, source: Any) -> Any:
        """A query on a Spark frame; braces that are no place of the frame are kept."""
        parts = [part.replace("{", "{{").replace("}", "}}") for part in text.split("{source}")]
        return self._session.sql("{source}".join(parts), source=source)

    def frame(self, name: str) -> nw.LazyFrame:
        """A table as lazy frame."""
        return nw.from_native(self._frames[name].drop(_PLACE))

    def keep(self, name: str, frame: nw.LazyFrame) -> nw.LazyFrame:
        """Compute a lazy frame once, when it is first needed, and keep it."""
        self._frames[name] = frame.to_native().persist()
        return self.frame(name)

    def keep_sorted(self, name: str, frame: nw.LazyFrame, order: Sequence[str], row_id: str = "") -> nw.LazyFrame:
        """Keep a table with the place of each row in order, also as ``row_id``; see ``Engine.keep_sorted``."""
        numbered = self._numbered(frame.to_native(), _PLACE, order)
        if row_id:
            columns = [column for column in numbered.columns if column != _PLACE]
            numbered = numbered.select(numbered[_PLACE].alias(row_id), *columns, _PLACE)
        self._frames[name] = numbered.persist()
        return self.frame(name)

    def _numbered(self, frame: Any, name: str, order: Sequence[str]) -> Any:
        """Rows numbered from 0 in order, without putting all of them in one place.

        They are spread over ranges of the order; a number is the place within a range and the size of those before.
        """
        from pyspark.sql import Window

        functions = _functions()
        by = [functions.col(f"`{column}`").asc_nulls_last() for column in order]
        parts = int(self._session.conf.get("spark.sql.shuffle.partitions"))
        spread = frame.repartitionByRange(parts, *by).withColumn("__range", functions.spark_partition_id()).persist()
        sizes = {row["__range"]: row["count"] for row in spread.groupBy("__range").count().collect()}
        before, total = functions.lit(0), 0
        for part in sorted(sizes):
            before = functions.when(functions.col("__range") == part, functions.lit(total)).otherwise(before)
            total += sizes[part]
        within = functions.row_number().over(Window.partitionBy("__range").orderBy(*by))
        return spread.withColumn(name, (within - 1 + before).cast("bigint")).drop("__range")

    def keep_new(self, frame: nw.LazyFrame) -> nw.LazyFrame:
        """Compute a lazy frame once and keep it, until ``forget``."""
        return self.keep(f"__kept_{next(self._numbers)}", frame)

    def forget(self, frame: nw.LazyFrame) -> None:
        """Nothing: frames are computed late, so what they came from may still be needed. Spark drops what it must."""

    def drop(self, name: str) -> None:
        """Forget a table by name; frames made of it go on."""
        del self._frames[name]

    def has(self, name: str) -> bool:
        """Whether there is such a table."""
        return name in self._frames

    def places(self, name: str) -> nw.LazyFrame:
        """A sorted table with ``place``: the number of each row in its order, from 0."""
        return nw.from_native(self._frames[name].withColumnRenamed(_PLACE, "place"))

    def number(self, frame: nw.LazyFrame, name: str, order: Sequence[str]) -> nw.LazyFrame:
        """Number rows from 0 by columns that settle their order, in the new column ``name``."""
        return nw.from_native(self._numbered(frame.to_native(), name, order))

    def put(self, name: str, table: pa.Table) -> nw.LazyFrame:
        """Keep an arrow table."""
        self._frames[name] = self._session.createDataFrame(table).persist()
        return self.frame(name)

    def query(self, text: str, frame: nw.LazyFrame) -> nw.LazyFrame:
        """SQL that every engine reads alike; ``{source}`` stands for the frame."""
        return nw.from_native(self._sql(text, frame.to_native()))

    def explode(self, frame: nw.LazyFrame, first: str, last: str, name: str) -> nw.LazyFrame:
        """A row for every whole number from one column to another, both included, in the new column ``name``."""
        functions = _functions()
        low, high = functions.col(first).cast("bigint"), functions.col(last).cast("bigint")
        numbers = functions.explode(functions.sequence(low, high))
        return nw.from_native(frame.to_native().where(low <= high).withColumn(name, numbers))

    def day_numbers(self, frame: nw.LazyFrame, **dates: str) -> nw.LazyFrame:
        """Days since 1970-01-01 of date columns, in new columns."""
        functions = _functions()
        days = {name: functions.unix_date(functions.col(date).cast("date")) for name, date in dates.items()}
        return nw.from_native(frame.to_native().withColumns(days))

    def arrays(self, name: str, places: bool = False) -> dict[str, np.ndarray]:
        """A table as numpy arrays in its kept order; see ``Engine.arrays``. The rows come to this machine."""
        frame = self._frames[name]
        if places:
            known = self._frames["persons"].select("person", self._frames["persons"][_PLACE].alias("__row"))
            frame = frame.join(known, "person").drop("person").withColumnRenamed("__row", "person")
        return to_arrays(frame.orderBy(_PLACE).drop(_PLACE).toArrow())


def active_session() -> Any:
    """The Spark session that runs, or the one that the machine's own settings give.

    Raises
    ------
    DataError
        ``data.no_spark``.
    """
    with contextlib.suppress(Exception):  # no package, no Java, no cluster: each has an error of its own
        from pyspark.sql import SparkSession

        return SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
    raise DataError(Fault("data.no_spark", {}, "data"))


@dataclass(frozen=True)
class Spark:
    """Where the tables of a study are: a session, and frames or names that go before those of the study file."""

    session: Any
    tables: Mapping[str, Any]

    def read(self, table: str, spec: TableSpec, columns: Sequence[Field]) -> Raw:
        """A table of the study; see ``read_spark``. A key that must be composed is a fault (``data.spark_key``)."""
        place = f"data.{table}"
        if any(field.parts for field in columns):
            raise DataError(Fault("data.spark_key", {"table": table}, f"{place}.columns"))
        return read_spark(self.session, self.tables.get(table, spec.table), place)

    def blanks(self, table: str, raw: Raw, columns: Sequence[Field]) -> list[Check]:
        """See ``blanks``."""
        return blanks(table, raw, columns)

    def texts(self, raw: Raw, columns: Sequence[Field]) -> Raw:
        """See ``sample_texts``."""
        return sample_texts(raw, columns)


# -- reading --------------------------------------------------------------------------------------------------------


def _plain(kind: Any) -> tuple[str, pa.DataType] | None:
    """How Spark is asked for a column, and as what it comes; None for what a table cannot hold."""
    from pyspark.sql import types

    if isinstance(kind, (types.StringType, types.CharType, types.VarcharType, types.BooleanType, types.NullType)):
        return "STRING", pa.string()
    if isinstance(kind, (types.DateType, types.TimestampType, types.TimestampNTZType)):
        return "DATE", pa.date32()
    if isinstance(kind, types.DecimalType):
        if kind.scale == 0:
            return ("BIGINT", pa.int64()) if kind.precision <= 18 else ("STRING", pa.string())
        return "DOUBLE", pa.float64()
    if isinstance(kind, types.IntegralType):
        return "BIGINT", pa.int64()
    if isinstance(kind, types.FractionalType):
        return "DOUBLE", pa.float64()
    return None


def plain_schema(frame: Any) -> pa.Schema:
    """The types of a frame that ``read_spark`` made."""
    found = [(field.name, _plain(field.dataType)) for field in frame.schema.fields]
    return pa.schema([(name, kind[1]) for name, kind in found if kind is not None])


def read_spark(session: Any, table: Any, place: str) -> Raw:
    """A table of the session, or a Spark frame, as ``Raw``: its columns stay in Spark (``native``).

    Raises
    ------
    DataError
        ``data.missing_table``, ``data.empty_file``.
    """
    from pyspark.errors import PySparkException

    name, frame, rows = (table if isinstance(table, str) else place.rpartition(".")[2]), None, 0
    try:
        frame = session.table(table) if isinstance(table, str) else table
        rows = frame.count()
    except PySparkException:  # its words may quote a value
        frame = None
    if frame is None:
        raise DataError(Fault("data.missing_table", {"file": "Spark", "table": name, "nearest": "–"}, f"{place}.table"))
    if not rows:
        raise DataError(Fault("data.empty_file", {"file": name}, place))
    functions = _functions()
    kinds = {field.name: _plain(field.dataType) for field in frame.schema.fields}
    good = {column: kind for column, kind in kinds.items() if kind is not None}
    columns = [
        functions.col(f"`{column}`").cast(kind[0]).alias(f"c{i}") for i, (column, kind) in enumerate(good.items())
    ]
    native = frame.select(*columns, (functions.monotonically_increasing_id() + 1).alias("row"))
    schema = pa.schema([*((f"c{i}", kind[1]) for i, kind in enumerate(good.values())), ("row", pa.int64())])
    return Raw(
        name=name,
        sha256=_fingerprint(native, list(good)),
        rows=rows,
        header=tuple(column.strip() for column in good),
        table=schema.empty_table(),
        unreadable=tuple(column for column, kind in kinds.items() if kind is None),
        kind="spark",
        native=native,
        numbers=tuple(i for i, kind in enumerate(good.values()) if _is_bsn(native, f"c{i}", kind[1])),
    )


def _fingerprint(frame: Any, names: Sequence[str]) -> str:
    """A checksum of the contents, whatever the order of the rows."""
    functions = _functions()
    own = functions.xxhash64(*(functions.col(f"c{i}") for i in range(len(names))))
    sums = frame.select(own.alias("own")).agg(
        functions.count("*"), functions.sum(functions.col("own").cast("decimal(38,0)")), functions.bit_xor("own")
    )
    return hashlib.sha256(repr((list(names), [str(value) for value in sums.first()])).encode()).hexdigest()


def _is_bsn(frame: Any, column: str, kind: pa.DataType) -> bool:
    """Whether a column holds citizen service numbers; the judgement is that of ``privacy.is_bsn``."""
    functions = _functions()
    value = functions.col(column)
    if pa.types.is_string(kind):
        text = functions.regexp_replace(value, r"[.\s\u00a0\u202f]", "")
        number = functions.when(text.rlike("^[0-9]{8,9}$"), text.try_cast("bigint"))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        long = (value >= 10**7) & (value < 10**9) & (functions.floor(value) == value)
        number = functions.when(long, value.cast("bigint"))
    else:
        return False
    digits = [functions.floor(functions.col("n") / 10**power) % 10 for power in range(9)]
    total = sum((weight * digits[weight - 1] for weight in range(2, 10)), -digits[0])
    passes = functions.when((functions.col("n") > 0) & (total % 11 == 0), 1)
    different = frame.select(number.alias("n")).where("n IS NOT NULL").distinct()
    count, passing = different.agg(functions.count("*"), functions.count(passes)).first()
    return bool(count >= privacy.MINIMUM and passing >= privacy.SHARE * count)


def sample_texts(raw: Raw, columns: Sequence[Field]) -> Raw:
    """The file with some of the different values of its dates and numbers, to tell how they are written."""
    own = {field.own for field in columns if field.kind in ("date", "month", "number", "integer")}
    found: dict[str, list[Any]] = {}
    for field, name in zip(raw.table.schema, raw.header, strict=False):
        if name in own and not pa.types.is_date(field.type):
            rows = raw.native.select(field.name).where(f"{field.name} IS NOT NULL").distinct().orderBy(field.name)
            found[field.name] = rows.limit(_SHOWN).toArrow().column(0).to_pylist()
    longest = max(map(len, found.values()), default=0)
    filled = {f.name: [*found.get(f.name, []), *[None] * longest][:longest] for f in raw.table.schema}
    return replace(raw, table=pa.table({f.name: pa.array(filled[f.name], f.type) for f in raw.table.schema}))


def blanks(table: str, raw: Raw, columns: Sequence[Field]) -> list[Check]:
    """Text columns in which values have blanks around them, as ``checks.blanks`` finds them."""
    functions = _functions()
    found = []
    for field in (field for field in columns if field.own in raw.header):
        i = raw.header.index(field.own)
        if pa.types.is_string(raw.table.schema.field(i).type):
            bare = functions.length(functions.regexp_replace(f"c{i}", r"^[ \t\r\n\u00a0]+|[ \t\r\n\u00a0]+$", ""))
            shorter = (bare > 0) & (bare < functions.length(f"c{i}"))
            (count,) = raw.native.agg(functions.count(functions.when(shorter, 1))).first()
            if count:
                found.append(Check("blank_around", "info", table, count, count / raw.rows, {"column": field.name}))
    return found
