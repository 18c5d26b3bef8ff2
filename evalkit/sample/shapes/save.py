"""A shape in a file, because somebody asked for it: microdata, never beside results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import narwhals as nw
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from evalkit.errors import Fault, UsageError
from evalkit.files import write_files

EXTENSIONS = (".parquet", ".csv")


@dataclass(frozen=True)
class Saved:
    """What was written: rows, how many units (persons, teams, patterns) and how many of those are of few persons."""

    rows: int
    units: int
    few: int


def check_place(path: Path) -> None:
    """Refuse a place that a file of persons must not have.

    Raises
    ------
    UsageError
        ``cli.exists``, ``shapes.extension``, ``shapes.in_results``.
    """
    if path.suffix.lower() not in EXTENSIONS:
        raise UsageError(Fault("shapes.extension", {"file": path.name}))
    if path.exists():
        raise UsageError(Fault("cli.exists", {"path": str(path)}))
    if (path.parent / "results.json").exists() or path.parent.name == "results":
        raise UsageError(Fault("shapes.in_results", {"folder": str(path.parent)}))


def save(frame: nw.LazyFrame, path: Path, minimum: int) -> Saved:
    """Compute a shape and write it as Parquet or CSV; the file appears whole or not at all.

    Parameters
    ----------
    minimum:
        Patterns of fewer persons than this are counted as ``few``.
    """
    check_place(path)
    table: pa.Table = frame.collect("pyarrow").to_native()
    buffer = pa.BufferOutputStream()
    if path.suffix.lower() == ".parquet":
        pq.write_table(table, buffer)
    else:
        pa_csv.write_csv(table, buffer)
    write_files(path.parent, {path.name: buffer.getvalue().to_pybytes()})
    own = table.select([table.column_names[0], *(["count"] if "count" in table.column_names else [])])
    units = own.group_by(own.column_names).aggregate([])
    few = pc.sum(pc.less(units.column("count"), minimum)).as_py() or 0 if "count" in own.column_names else 0
    return Saved(table.num_rows, units.num_rows, int(few))


def numbers(text: str) -> Sequence[int]:
    """Whole numbers between commas.

    Raises
    ------
    UsageError
        ``shapes.numbers``.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if all(part.isascii() and part.isdigit() and 0 < int(part) <= 600 for part in parts):
        return tuple(sorted({int(part) for part in parts}))
    raise UsageError(Fault("shapes.numbers", {"text": text}))
