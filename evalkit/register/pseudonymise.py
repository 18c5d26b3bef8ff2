"""Citizen service numbers replaced by keyed hashes, so that files can be linked and evaluated without them.

The pseudonym of a number is ``p`` and the first 32 hexadecimal digits of HMAC-SHA-256 over the number, nine digits with
its leading zeros. Without the key nobody can compute it; with the key anybody can try all numbers, so the key stays
away from the data. A plain hash would not do: a computer tries all numbers in minutes.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evalkit.errors import DataError, Fault, UsageError
from evalkit.files import write_files
from evalkit.register import privacy
from evalkit.register.reader import PARQUET, SEP, first_record, read_bytes, unreadable_file, utf8
from evalkit.register.sources import FOREIGN, kind_of
from evalkit.study import FILE_NAME, Source

_KEY_BYTES = 32
_BLANKS = re.compile(r"[.\s\u00a0\u202f-]")
_SHOWN = 5  # places named in a message


@dataclass(frozen=True)
class Counts:
    """What became of the cells of the columns: numbers that pass the 11-test, other contents, and empty ones."""

    rows: int
    valid: int
    invalid: int
    empty: int


def load_key(path: Path) -> tuple[bytes, bool]:
    """The key in a file, made with secure randomness when there is none; and whether it was made.

    Raises
    ------
    UsageError
        ``pseudonymise.key_inside`` in a study folder, ``pseudonymise.key_open`` when others than the owner may read
        it, ``pseudonymise.key_unusable`` when it is no key of ours, ``pseudonymise.key_folder`` without a folder.
    """
    about = {"file": path.name}
    for folder in {*path.absolute().parents, *path.resolve().parents}:
        if (folder / FILE_NAME).is_file():
            raise UsageError(Fault("pseudonymise.key_inside", about))
    if not path.parent.is_dir():
        raise UsageError(Fault("pseudonymise.key_folder", about))
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _existing_key(path), False
    except OSError:
        raise UsageError(Fault("pseudonymise.key_unusable", about)) from None
    key = secrets.token_bytes(_KEY_BYTES)
    with os.fdopen(handle, "w") as file:
        if hasattr(os, "fchmod"):
            os.fchmod(handle, 0o600)
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(handle)
    return key, True


def _existing_key(path: Path) -> bytes:
    about = {"file": path.name}
    text = ""
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(Fault("pseudonymise.key_open", about))
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        pass
    if not re.fullmatch(rf"[0-9a-f]{{{2 * _KEY_BYTES}}}", text):
        raise UsageError(Fault("pseudonymise.key_unusable", about))
    return bytes.fromhex(text)


class Pseudonyms:
    """Pseudonyms under one key, each worked out once, with counts of what was met."""

    def __init__(self, key: bytes):
        self._key = key
        self._known: dict[str, tuple[str, str]] = {}
        self.counts = {"valid": 0, "invalid": 0, "empty": 0}

    def of(self, text: str) -> str:
        """The pseudonym of a cell; empty for an empty cell and for nothing but zeros, which stand for "no number".

        Whatever does not pass the 11-test gets a pseudonym as well, so that no person is lost and none is shown.
        """
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._work_out(text)
        self.counts[found[0]] += 1
        return found[1]

    def _work_out(self, text: str) -> tuple[str, str]:
        number = normal(text)
        if not number.strip("0"):
            return "empty", ""
        valid = is_number(number)
        digest = hmac.new(self._key, number.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return "valid" if valid else "invalid", "p" + digest.hexdigest()[:32]


def normal(text: str) -> str:
    """A number as nine digits with its leading zeros; anything else without blanks, points and hyphens."""
    text = re.sub(r"^(\d+)\.0$", r"\1", text.strip())  # a number that went through a spreadsheet
    text = _BLANKS.sub("", text)
    return text.zfill(9) if text.isascii() and text.isdigit() else text


def is_number(number: str) -> bool:
    """Whether nine digits pass the 11-test."""
    if len(number) != 9 or not (number.isascii() and number.isdigit()):
        return False
    total = sum(w * int(d) for w, d in zip((9, 8, 7, 6, 5, 4, 3, 2, -1), number, strict=True))
    return total % 11 == 0 and int(number) > 0


def pseudonymise(file: Path, columns: Sequence[str], key: bytes, out: Path) -> Counts:
    """Write a copy of a CSV or Parquet file in which columns hold pseudonyms; everything else stays as it is.

    In a CSV file all other bytes stay: delimiters, quotation marks, line ends, encoding. Nothing is written when a
    number would still be in the copy.

    Raises
    ------
    UsageError
        ``cli.exists``.
    DataError
        ``pseudonymise.kind``, ``data.header``, ``data.double_column``, ``data.ragged_records``,
        ``pseudonymise.no_numbers``, ``pseudonymise.left``, ``data.bsn`` and those of reading.
    """
    if out.exists():
        raise UsageError(Fault("cli.exists", {"path": str(out)}))
    data = read_bytes(file, "")
    pseudonyms = Pseudonyms(key)
    suffix = file.suffix.lower()
    if suffix in FOREIGN or kind_of(Source(file=file.name)) not in ("csv", "parquet"):
        raise DataError(Fault("pseudonymise.kind", {"file": file.name}))
    work = _parquet if suffix in PARQUET else _text
    content, rows = work(data, columns, pseudonyms, file.name)
    if rows == 0:
        raise DataError(Fault("data.empty_file", {"file": file.name}))
    if not pseudonyms.counts["valid"]:
        raise DataError(Fault("pseudonymise.no_numbers", {"file": file.name, "columns": ", ".join(columns)}))
    write_files(out.parent, {out.name: content})
    return Counts(rows, **pseudonyms.counts)


def _positions(header: Sequence[str], columns: Sequence[str], name: str) -> list[int]:
    """Where the columns stand; the header is not shown, since without a header the first line is a person."""
    titles = [title.strip(" \t\u00a0\ufeff") for title in header]
    missing = [column for column in columns if column not in titles]
    if missing:
        params = {"file": name, "missing": ", ".join(missing), "columns": len(titles)}
        raise DataError(Fault("data.header", params))
    twice = [column for column in columns if titles.count(column) > 1]
    if twice:
        raise DataError(
            Fault("data.double_column", {"file": name, "column": twice[0], "count": titles.count(twice[0])})
        )
    return [titles.index(column) for column in columns]


def _guard(others: Sequence[tuple[int, str, pa.ChunkedArray]], name: str) -> None:
    """No other column holds citizen service numbers, or the number of its own row."""
    faults = []
    for position, title, column in others:
        if privacy.is_bsn(column):
            faults.append(Fault("data.bsn", {"file": name, "column": title, "position": position + 1}))
    if faults:
        raise DataError(faults)


def _refuse_left(left: dict[int, int], name: str) -> None:
    if left:
        places = ", ".join(str(position + 1) for position in sorted(left)[:_SHOWN])
        raise DataError(Fault("pseudonymise.left", {"file": name, "count": sum(left.values()), "positions": places}))


def _runs(text: str) -> frozenset[str]:
    """Every number of eight or nine digits that stands in a text, also one with blanks or points, as nine digits."""
    found = set()
    for match in re.finditer(r"\d{8,}", _BLANKS.sub("", text)):
        run = match.group()
        for width in (8, 9):
            found |= {run[i : i + width].zfill(9) for i in range(len(run) - width + 1)}
    return frozenset(found)


def _number(text: str) -> str:
    """A cell as nine digits; empty when it is something else."""
    number = normal(text)
    return number if len(number) == 9 and number.isdigit() and number.strip("0") else ""


# -- CSV ------------------------------------------------------------------------------------------------------------


def _text(data: bytes, columns: Sequence[str], pseudonyms: Pseudonyms, name: str) -> tuple[bytes, int]:
    """The bytes of a CSV file with pseudonyms in some columns, and its number of records."""
    plain, encoding, _ = utf8(data, "auto", name, "")
    hint = SEP.match(plain)
    delimiter = hint.group(1).decode("ascii", "replace") if hint else "auto"
    header, delimiter = first_record(plain[hint.end() :] if hint else plain, delimiter)
    order = ""
    if encoding == "utf-16":  # worked on as UTF-8 and put back as it was
        order = "utf-16-le" if data.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
        data, encoding = plain, "utf-8"
    begin = (hint.end() if hint else 0) + (len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
    wanted = _positions(header, columns, name)
    copier = _Copier(wanted, pseudonyms, len(header), encoding, delimiter.encode())
    content = data[:begin] + b"".join(copier.copy(data, begin))
    if copier.ragged:
        records = ", ".join(str(number) for number in copier.ragged[:_SHOWN])
        params = {"file": name, "count": len(copier.ragged), "records": records}
        raise DataError(Fault("data.ragged_records", params))
    _guard([(i, header[i].strip()[:40], copier.column(i)) for i in copier.others], name)
    _refuse_left(copier.left, name)
    if order:
        mark = codecs.BOM_UTF16_LE if order.endswith("le") else codecs.BOM_UTF16_BE
        content = mark + content.decode("utf-8").encode(order)
    return content, copier.rows


def _records(data: bytes, begin: int, delimiter: bytes) -> Iterator[tuple[list[bytes], bytes]]:
    """The records of a CSV text: the fields as they stand, quotation marks included, and the line end.

    A quotation mark counts at the start of a field only.
    """
    mark = re.escape(delimiter)
    field = re.compile(rb'("(?:[^"]|"")*"[^' + mark + rb"\r\n]*|[^" + mark + rb"\r\n]*)(" + mark + rb"|\r\n|\n|\r|\Z)")
    line = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
    position = begin
    while position < len(data):
        match = line.match(data, position)
        assert match is not None
        if b'"' not in match.group(1):
            yield match.group(1).split(delimiter), match.group(2)
            position = match.end()
            continue
        fields: list[bytes] = []
        while True:
            match = field.match(data, position)
            assert match is not None
            fields.append(match.group(1))
            position = match.end()
            if match.group(2) != delimiter:
                yield fields, match.group(2)
                break


class _Copier:
    """Copies records with some fields replaced, and keeps what the guard must see."""

    def __init__(self, wanted: Sequence[int], pseudonyms: Pseudonyms, width: int, encoding: str, delimiter: bytes):
        self.others = [i for i in range(width) if i not in wanted]
        self.rows = 0
        self.ragged: list[int] = []
        self.left: dict[int, int] = {}
        self._wanted, self._pseudonyms, self._width = wanted, pseudonyms, width
        self._encoding, self._delimiter = encoding, delimiter
        self._seen: dict[int, dict[bytes, frozenset[str]]] = {i: {} for i in self.others}

    def column(self, position: int) -> pa.ChunkedArray:
        """The different values of another column that are long enough to be a number."""
        values = sorted(value.decode(self._encoding).strip('" ') for value in self._seen[position])
        return pa.chunked_array([pa.array(values, pa.string())])

    def copy(self, data: bytes, begin: int) -> Iterator[bytes]:
        """The records as they are to be written, the header first."""
        heading = True
        for fields, end in _records(data, begin, self._delimiter):
            if len(fields) == 1 and not fields[0].strip():  # a blank line is no record
                pass
            elif heading:
                heading = False
            else:
                self.rows += 1
                if len(fields) == self._width:
                    self._replace(fields)
                else:
                    self.ragged.append(self.rows)
            yield self._delimiter.join(fields) + end

    def _replace(self, fields: list[bytes]) -> None:
        numbers = []
        for i in self._wanted:
            text = fields[i].decode(self._encoding)
            if text.startswith('"'):
                text = next(csv.reader([text.strip()]))[0]
            numbers.append(_number(text))
            fields[i] = self._pseudonyms.of(text).encode("ascii")
        for i in self.others:
            if len(fields[i]) >= 8:
                seen = self._seen[i]
                runs = seen.get(fields[i])
                if runs is None:
                    runs = seen[fields[i]] = _runs(fields[i].decode(self._encoding))
                if not runs.isdisjoint(numbers):
                    self.left[i] = self.left.get(i, 0) + 1


# -- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(data: bytes, columns: Sequence[str], pseudonyms: Pseudonyms, name: str) -> tuple[bytes, int]:
    """The bytes of a Parquet file with pseudonyms in some columns, and its number of rows."""
    table = None
    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
    except (pa.ArrowException, OSError):
        pass
    if table is None:
        raise unreadable_file(name, "")
    wanted = _positions(table.column_names, columns, name)
    numbers: list[list[str]] = [[] for _ in range(table.num_rows)]
    for i in wanted:
        texts = ["" if cell is None else str(cell) for cell in _flat(table.column(i)).to_pylist()]
        for of_row, text in zip(numbers, texts, strict=True):
            of_row.append(_number(text))
        made = pa.array([pseudonyms.of(text) or None for text in texts], pa.string())
        table = table.set_column(i, table.field(i).name, made)
    others = [(i, table.column_names[i], _flat(table.column(i))) for i in range(table.num_columns) if i not in wanted]
    left: dict[int, int] = {}
    for i, _, column in others:
        if pa.types.is_string(column.type) or pa.types.is_integer(column.type):
            runs = (_runs("" if cell is None else str(cell)) for cell in column.to_pylist())
            if held := sum(not found.isdisjoint(own) for found, own in zip(runs, numbers, strict=True)):
                left[i] = held
    _guard(others, name)
    _refuse_left(left, name)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None), sink)
    return sink.getvalue().to_pybytes(), table.num_rows


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text or whole numbers where it is a dictionary, long text or a number without decimals."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    if pa.types.is_floating(column.type) and pc.all(pc.equal(pc.trunc(column), column)).as_py() is not False:
        column = column.cast(pa.int64())
    return column
