"""Where a table comes from: every kind of file and database gives the same ``Raw`` as the CSV reader.

So the guard against citizen service numbers, the checks and the schema are the same for all of them. Packages that only
one kind needs are imported here and nowhere else, when a file of that kind is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import DataError, Fault
from evalkit.register.reader import PARQUET, Raw, read_bytes, read_file
from evalkit.study.rules import DUCKDB, EXCEL, SPARK

if TYPE_CHECKING:
    from evalkit.study import Format, Source

STATISTICAL = {
    ".dta": "stata",
    ".sav": "spss",
    ".zsav": "spss",
    ".por": "spss",
    ".sas7bdat": "sas",
    ".xpt": "sas",
}
"""Extensions of the files of statistical packages."""

FOREIGN = (".xls", ".xlsb", ".ods", ".mdb", ".accdb", ".rds", ".rdata", ".zip", ".gz", ".7z", ".pdf", ".doc", ".docx")
"""Extensions of files that cannot be read and would only be taken for a damaged CSV file."""

PACKAGES = {
    "stata": "pyreadstat",
    "spss": "pyreadstat",
    "sas": "pyreadstat",
    "excel": "openpyxl",
    "postgres": "psycopg",
    "spark": "pyspark",
}
"""The package that a kind of source needs besides those that evalkit always has."""


def kind_of(source: Source) -> str:
    """``csv``, ``parquet``, ``stata``, ``spss``, ``sas``, ``excel``, ``duckdb``, ``postgres`` or ``spark``.

    Empty: it cannot be read. What is not recognised by its extension is CSV.
    """
    if source.database:
        return "spark" if source.database == SPARK else "postgres"
    suffix = Path(source.file).suffix.lower()
    if suffix in STATISTICAL:
        return STATISTICAL[suffix]
    if suffix in FOREIGN:
        return ""
    known = {**dict.fromkeys(EXCEL, "excel"), **dict.fromkeys(DUCKDB, "duckdb"), **dict.fromkeys(PARQUET, "parquet")}
    return known.get(suffix, "csv")


def read_source(source: Source, folder: Path, layout: Format, place: str) -> Raw:
    """Read the table that a study names.

    Parameters
    ----------
    folder:
        Where the study's files lie.
    layout:
        How text was written; ``auto`` finds it out.
    place:
        The table of the study file that names the source, for the messages: ``data.persons``.

    Raises
    ------
    DataError
        ``data.missing_file``, ``data.unreadable_file``, ``data.encoding``, ``data.empty_file``,
        ``data.foreign_file``, ``data.package_missing``, ``data.sheet``, ``data.formulas``, ``data.missing_table``,
        ``data.database_variable``, ``data.no_connection``.
    """
    kind = kind_of(source)
    path = folder / source.file
    if kind in ("csv", "parquet"):
        return read_file(path, layout, f"{place}.file")
    if not kind:
        read_bytes(path, f"{place}.file")
        raise DataError(Fault("data.foreign_file", {"file": path.name}, f"{place}.file"))
    if kind == "excel":
        from evalkit.register.sources.excel import read_excel

        raw = read_excel(path, source.sheet, layout, place)
    elif kind == "duckdb":
        from evalkit.register.sources.database import read_duckdb

        raw = read_duckdb(path, source.table, place)
    elif kind == "postgres":
        from evalkit.register.sources.database import read_postgres

        raw = read_postgres(source.database, source.table, place)
    elif kind == "spark":
        from evalkit.register.spark import active_session, read_spark

        raw = read_spark(active_session(), source.table, place)
    else:
        from evalkit.register.sources.statistical import read_statistical

        raw = read_statistical(path, kind, layout, place)
    if raw.rows == 0:
        raise DataError(Fault("data.empty_file", {"file": raw.name}, place))
    return raw


def sources_in(path: Path) -> tuple[Source, ...]:
    """The tables that a file holds: those of a DuckDB file, the filled sheets of a workbook, otherwise the file itself.

    Raises
    ------
    DataError
        When the file is not there or cannot be opened.
    """
    from evalkit.study import Source as Table

    kind = kind_of(Table(file=path.name))
    if kind == "duckdb":
        from evalkit.register.sources.database import duckdb_tables

        read_bytes(path, path.name)
        return tuple(Table(file=path.name, table=f"{schema}.{name}") for schema, name in duckdb_tables(path, path.name))
    if kind == "excel":
        from evalkit.register.sources.excel import filled_sheets

        return tuple(Table(file=path.name, sheet=name) for name in filled_sheets(path, path.name))
    return (Table(file=path.name),)
