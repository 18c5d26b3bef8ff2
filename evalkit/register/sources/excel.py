"""Excel workbooks, through openpyxl: the values of one sheet, as Excel last computed them."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evalkit.errors import DataError, Fault
from evalkit.register.reader import Raw, nearest, plain_table, read_bytes, unreadable_file
from evalkit.register.sources.packages import load

if TYPE_CHECKING:
    from evalkit.study import Format

Rows = list[tuple[Any, ...]]


def read_excel(path: Path, sheet: str, layout: Format, place: str) -> Raw:
    """Read one sheet of a workbook; its first row that is not empty holds the column names.

    Rows without any value are no records. Without a sheet the workbook must have one sheet with values.

    Raises
    ------
    DataError
        ``data.sheet`` when the sheet is not there or not named; ``data.formulas`` when a column holds formulas that
        were never computed.
    """
    openpyxl = load("openpyxl", path.name, f"{place}.file")
    data = read_bytes(path, f"{place}.file")
    sheets = _sheets(openpyxl, data, sheet)
    if sheets is None:
        raise unreadable_file(path.name, f"{place}.file")
    if (sheet and sheet not in sheets) or (not sheet and len(sheets) > 1):
        params = {"file": path.name, "names": ", ".join(sheets), "nearest": nearest(sheet, list(sheets)) or "–"}
        raise DataError(Fault("data.sheet", params, f"{place}.sheet"))
    rows = sheets[sheet] if sheet else next(iter(sheets.values()), [])
    if len(rows) < 2:
        raise DataError(Fault("data.empty_file", {"file": path.name}, f"{place}.file"))
    header = ["" if cell is None else str(cell).strip() for cell in rows[0]]
    header += [""] * (max(map(len, rows)) - len(header))
    values = [[row[i] if i < len(row) else None for row in rows[1:]] for i in range(len(header))]
    empty = [i for i, title in enumerate(header) if title and all(cell is None for cell in values[i])]
    if empty and (formulas := _formulas(openpyxl, data, sheet, empty)):
        raise DataError(Fault("data.formulas", {"file": path.name, "count": formulas}, f"{place}.file"))
    return _raw(header, values, layout, path.name, hashlib.sha256(data).hexdigest())


def filled_sheets(path: Path, place: str) -> list[str]:
    """Names of the sheets that have rows."""
    openpyxl = load("openpyxl", path.name, place)
    sheets = _sheets(openpyxl, read_bytes(path, place), "")
    if sheets is None:
        raise unreadable_file(path.name, place)
    return list(sheets)


def _raw(header: list[str], values: list[list[Any]], layout: Format, name: str, sha256: str) -> Raw:
    """Columns under their names; of names that occur twice ``check_columns`` must see both."""
    keep = [i for i, title in enumerate(header) if title or any(cell is not None for cell in values[i])]
    columns = {str(i): _column(values[i], layout.decimal) for i in keep}
    raw = plain_table(columns, name=name, sha256=sha256, kind="excel")
    titles = tuple(header[i] for i in keep)
    return Raw(name, sha256, raw.rows, titles, raw.table, kind="excel")


def _sheets(openpyxl: Any, data: bytes, wanted: str) -> dict[str, Rows] | None:
    """By name the rows of the sheets that have any, without empty rows; all names when the wanted one is not there."""
    try:
        with warnings.catch_warnings(action="ignore"):
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            if wanted and wanted not in [sheet.title for sheet in book.worksheets]:
                return {sheet.title: [] for sheet in book.worksheets}
            found = {sheet.title: _rows(sheet) for sheet in book.worksheets if wanted in ("", sheet.title)}
    except Exception:  # damaged files raise anything; the words may quote a cell
        return None
    return found if wanted else {title: rows for title, rows in found.items() if rows}


def _rows(sheet: Any) -> Rows:
    sheet.reset_dimensions()  # other programs write wrong ones
    return [row for row in sheet.iter_rows(values_only=True) if any(cell not in (None, "") for cell in row)]


def _formulas(openpyxl: Any, data: bytes, sheet: str, columns: list[int]) -> int:
    """Number of columns, of those named, that hold formulas."""
    with warnings.catch_warnings(action="ignore"):
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True)
        sheets = [page for page in book.worksheets if sheet in ("", page.title)]
        rows = next((rows for page in sheets if (rows := _rows(page))), [])
    held = {i for row in rows for i in columns if i < len(row) and isinstance(row[i], str) and row[i].startswith("=")}
    return len(held)


def _column(values: list[Any], decimal: str) -> pa.ChunkedArray:
    """Cells of one kind as a column of that kind; mixed cells as text, numbers in the study's notation."""
    kinds = {_kind(cell) for cell in values if cell is not None}
    array = None
    if kinds == {"date"}:
        array = pa.array([cell.date() if isinstance(cell, dt.datetime) else cell for cell in values], pa.date32())
    elif kinds and kinds <= {"whole", "number"}:
        try:
            array = pa.array(values, pa.int64() if kinds == {"whole"} else pa.float64())
        except (pa.ArrowException, OverflowError):
            pass
    if array is None:
        array = pa.array([None if cell is None else _text(cell, decimal) for cell in values], pa.string())
    return pa.chunked_array([array])


def _kind(cell: Any) -> str:
    if isinstance(cell, bool):
        return "truth"
    if isinstance(cell, int):
        return "whole"
    if isinstance(cell, float):
        return "number"
    return "date" if isinstance(cell, dt.date) else "text"


def _text(cell: Any, decimal: str) -> str:
    match _kind(cell):
        case "truth":
            return str(cell).lower()
        case "number":
            shown = str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
            return shown.replace(".", decimal if decimal != "auto" else ",")
        case "date":
            return (cell.date() if isinstance(cell, dt.datetime) else cell).isoformat()
    return str(cell)
