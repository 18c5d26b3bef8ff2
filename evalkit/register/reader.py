"""Reading one CSV or Parquet file as it is: bytes to columns, whatever the dialect. Nothing is interpreted here.

Other kinds of files and databases are read in ``sources``; all give the same ``Raw``.

Faults name files, columns, positions and counts. Errors of the libraries beneath may quote rows, so they are never
passed on nor chained.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import hashlib
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from evalkit.errors import DataError, Fault
from evalkit.register import privacy

if TYPE_CHECKING:
    from evalkit.study import Format

DELIMITERS = (";", ",", "\t")
SEP = re.compile(rb"\s*sep=(.)\r?\n")
"""The first line that Excel writes to tell the delimiter."""

PARQUET = (".parquet", ".pq")
_BLANK = " \t\u00a0\ufeff"
_VALUE = re.compile(r"[\d\s.,:/+-]*\d[\d\s.,:/+-]*")
_SHOWN = 40  # names in a message, and characters of a name


@dataclass(frozen=True)
class Raw:
    """A file as read: columns ``c0``, ``c1``, .. and ``row`` (the record in the file, the first under the header is 1).

    CSV columns are all text; those of other kinds are text, int64, float64 or date32. ``ragged`` counts records with
    another number of fields than the header; they are not in the table. ``suspect`` is set when the file looks like
    UTF-8 while the study says otherwise. ``unreadable`` names columns of a type that a table cannot have. ``kind`` is
    empty for a frame; ``delimiter`` and ``encoding`` are those found, empty where a file has none. ``layout`` is the
    study's format with every ``auto`` filled in, once ``dialect.settle`` has looked at the columns. ``native`` is a
    table that stays where it is, in Spark; ``table`` then has its types and no rows, and ``numbers`` says which of its
    columns hold citizen service numbers.
    """

    name: str
    sha256: str
    rows: int
    header: tuple[str, ...]
    table: pa.Table
    ragged: int = 0
    suspect: bool = False
    unreadable: tuple[str, ...] = ()
    kind: str = ""
    delimiter: str = ""
    encoding: str = ""
    layout: Format | None = None
    native: Any = None
    numbers: tuple[int, ...] = ()


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name most like this one; empty when none is."""
    by_fold = {other.casefold(): other for other in reversed(known)}
    match = difflib.get_close_matches(name.casefold(), list(by_fold), 1, 0.5)
    return by_fold[match[0]] if match else ""


def visible(delimiter: str) -> str:
    """A delimiter as a message writes it."""
    return {"\t": "tab"}.get(delimiter, delimiter)


def unreadable_file(name: str, place: str) -> DataError:
    """The error of a file whose contents cannot be read; the library's own words are never passed on."""
    return DataError(Fault("data.unreadable_file", {"file": name, "folder": "–", "nearest": "–"}, place))


def read_bytes(path: Path, place: str) -> bytes:
    """The bytes of a file, or ``data.missing_file`` with the nearest name."""
    if path.is_file():
        try:
            return path.read_bytes()
        except OSError:
            code = "data.unreadable_file"
    else:
        code = "data.missing_file"
    names = sorted(p.name for p in path.parent.iterdir() if p.is_file()) if path.parent.is_dir() else []
    params = {"file": path.name, "folder": str(path.parent), "nearest": nearest(path.name, names) or "–"}
    raise DataError(Fault(code, params, place))


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return False
    return True


def utf8(data: bytes, encoding: str, name: str, place: str) -> tuple[bytes, str, bool]:
    """The text as UTF-8 without byte order mark, its encoding, and whether the declared encoding looks wrong.

    A byte order mark settles the encoding. ``auto`` takes UTF-8 when every byte fits and cp1252 otherwise.
    """
    if data.startswith(codecs.BOM_UTF8):
        data, encoding = data[len(codecs.BOM_UTF8) :], "utf-8"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif encoding == "auto":
        encoding = "utf-8" if _decodes(data, "utf-8") else "cp1252"
    if not _decodes(data, encoding):
        raise DataError(Fault("data.encoding", {"file": name, "encoding": encoding}, place))
    if codecs.lookup(encoding).name == "utf-8":
        return data, "utf-8", False
    suspect = encoding != "utf-16" and not data.isascii() and _decodes(data, "utf-8")
    return data.decode(encoding).encode("utf-8"), encoding, suspect


def _sniff(line: str) -> str:
    """The delimiter that occurs most in the header outside quotes; a semicolon when none does."""
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=lambda mark: (bare.count(mark), -DELIMITERS.index(mark)))


def first_record(data: bytes, delimiter: str) -> tuple[list[str], str]:
    """The fields of the first record that is not blank, and the delimiter used."""
    head = data[:262_144].decode("utf-8", errors="ignore").lstrip("\r\n")
    if delimiter == "auto":
        delimiter = _sniff(head.splitlines()[0] if head else "")
    record = next((r for r in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter) if r), [])
    return record, delimiter


def _csv(data: bytes, layout: Format, name: str, place: str) -> tuple[tuple[str, ...], pa.Table, int, str]:
    """Header, text columns, number of ragged records and the delimiter used."""
    delimiter = {"tab": "\t"}.get(layout.delimiter, layout.delimiter)
    hint = SEP.match(data)
    if hint:
        data = data[hint.end() :]
        delimiter = hint.group(1).decode("utf-8", errors="replace")
    header, delimiter = first_record(data, delimiter)
    if not any(cell.strip() for cell in header):
        raise DataError(Fault("data.empty_file", {"file": name}, place))
    ragged: list[int] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        ragged.append(row.number)
        return "skip"

    names = [f"f{i}" for i in range(len(header))]
    table = None
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data if data.endswith(b"\n") else data + b"\n"),
            pa_csv.ReadOptions(use_threads=False, autogenerate_column_names=True, block_size=1 << 22),
            pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except (pa.ArrowException, ValueError):
        pass
    if table is None:  # raised here, so that the library's words, which may quote a row, are not chained
        raise unreadable_file(name, place)
    titles = tuple(str(table.column(i)[0].as_py()).strip(_BLANK) for i in range(table.num_columns))
    table = table.slice(1)
    filled = [i for i, title in enumerate(titles) if title or pc.any(pc.not_equal(table.column(i), "")).as_py()]
    records = np.setdiff1d(np.arange(2, 2 + table.num_rows + len(ragged)), ragged) - 1
    columns = {f"c{j}": table.column(i) for j, i in enumerate(filled)}
    return tuple(titles[i] for i in filled), pa.table({**columns, "row": records}), len(ragged), delimiter


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A typed column as text, int64, float64 or date32; None for what a table cannot hold."""
    kind = column.type
    types = pa.types
    if types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if types.is_timestamp(kind):
        wall = pc.local_timestamp(column) if kind.tz else column
        return wall.cast(pa.date32(), safe=False)
    if types.is_date(kind):
        return column.cast(pa.date32(), safe=False)
    if types.is_integer(kind) or (types.is_decimal(kind) and kind.scale == 0):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:  # too long for a whole number: a key, which must stay as it is
            return column.cast(pa.string())
    if types.is_floating(kind) or types.is_decimal(kind):
        return column.cast(pa.float64(), safe=False)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return column.cast(pa.string())
    if types.is_boolean(kind) or types.is_null(kind):
        return column.cast(pa.string())
    return None


def plain_table(columns: Mapping[str, pa.ChunkedArray | None], **about: Any) -> Raw:
    """A Raw from typed columns; None stands for a column that cannot be read.

    A column without name or value is left out.
    """
    columns = {n: c for n, c in columns.items() if n or (c is not None and c.null_count < len(c))}
    plain = {name: None if column is None else _plain(column) for name, column in columns.items()}
    good = {name: column for name, column in plain.items() if column is not None}
    rows = next((len(column) for column in good.values()), 0)
    table = pa.table({**{f"c{i}": column for i, column in enumerate(good.values())}, "row": np.arange(1, rows + 1)})
    return Raw(header=tuple(good), table=table, rows=rows, unreadable=tuple(n for n in plain if n not in good), **about)


def read_file(path: Path, layout: Format, place: str) -> Raw:
    """Read a CSV or Parquet file.

    Parameters
    ----------
    path:
        The file; ``.parquet`` and ``.pq`` are Parquet, everything else is CSV.
    layout:
        Delimiter and encoding; ``auto`` finds them out.
    place:
        Where the study names the file, for the messages.

    Raises
    ------
    DataError
        ``data.missing_file``, ``data.unreadable_file``, ``data.encoding``, ``data.empty_file``.
    """
    data = read_bytes(path, place)
    about: dict[str, Any] = {"name": path.name, "sha256": hashlib.sha256(data).hexdigest()}
    if path.suffix.lower() in PARQUET:
        frame = None
        try:
            frame = pq.read_table(pa.BufferReader(data), use_threads=False)
        except (pa.ArrowException, OSError):
            pass
        if frame is None:
            raise unreadable_file(path.name, place)
        columns = {name.strip(_BLANK): frame.column(i) for i, name in enumerate(frame.column_names)}
        raw = plain_table(columns, kind="parquet", **about)
    else:
        text, encoding, suspect = utf8(data, layout.encoding, path.name, place)
        header, table, ragged, delimiter = _csv(text, layout, path.name, place)
        read = {"header": header, "table": table, "rows": table.num_rows + ragged, "ragged": ragged}
        raw = Raw(**read, **about, kind="csv", suspect=suspect, delimiter=delimiter, encoding=encoding)
    if raw.rows == 0:
        raise DataError(Fault("data.empty_file", {"file": path.name}, place))
    return raw


def _names(names: Sequence[str]) -> str:
    printable = ("".join(c if c.isprintable() else "?" for c in name) for name in names)
    shown = ", ".join(name[:_SHOWN] for name in itertools.islice(printable, _SHOWN))
    return shown + (", …" if len(names) > _SHOWN else "") if names else "–"


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def headless(raw: Raw) -> bool:
    """Whether the names are probably a person: one is a number or a date, or stands among the values beneath it."""
    for i, title in enumerate(raw.header):
        column = raw.table.column(f"c{i}")
        if _VALUE.fullmatch(title):
            return True
        if not title or not pa.types.is_string(column.type):
            continue
        if pc.any(pc.equal(pc.utf8_trim_whitespace(column), title)).as_py():
            return True
    return False


def check_columns(raw: Raw, wanted: Mapping[str, str], layout: Format, place: str) -> list[Fault]:
    """Faults of a file's columns: missing, double, of an impossible type, or holding citizen service numbers.

    The names in the first record are shown only when at least one wanted name is among them and none looks like a
    value: in a file without a header that record is a person.

    Parameters
    ----------
    wanted:
        Fixed name to own name.
    """
    faults: list[Fault] = []
    header = raw.header
    about = {"file": raw.name}
    folded = {_fold(name) for name in header}
    trusted = any(own in header or _fold(own) in folded for own in wanted.values()) and not headless(raw)
    for own in dict.fromkeys(wanted.values()):
        if own in raw.unreadable:
            faults.append(Fault("data.column_type", {**about, "column": own}, place))
        elif header.count(own) > 1:
            faults.append(Fault("data.double_column", {**about, "column": own, "count": header.count(own)}, place))
    missing = [own for own in dict.fromkeys(wanted.values()) if own not in header and own not in raw.unreadable]
    if missing and len(header) == 1:
        marks = [mark for mark in (*DELIMITERS, "|") if mark in header[0]]
        found = max(marks, key=header[0].count) if marks else ""
        used = visible(layout.delimiter)
        faults.append(Fault("data.one_column", {**about, "delimiter": used, "found": visible(found) or "–"}, place))
    elif missing and not trusted:
        params = {**about, "missing": _names(missing), "columns": len(header)}
        faults.append(Fault("data.header", params, place))
    elif missing:
        near = [f"{own} → {near}" for own in missing if (near := nearest(own, header))]
        params = {**about, "missing": _names(missing), "present": _names(header), "nearest": _names(near)}
        faults.append(Fault("data.missing_columns", params, place))
    for i, title in enumerate(header):
        if i in raw.numbers or privacy.is_bsn(raw.table.column(f"c{i}")):
            named = trusted and re.search(r"[^\d\s.]", title) is not None
            params = {**about, "column": title[:_SHOWN] if named else "–", "position": i + 1}
            faults.append(Fault("data.bsn", params, place))
    return faults
