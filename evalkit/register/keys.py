"""Keys that are composed of several columns, and keys whose leading zeros are put back.

The parts are joined with ``MARK`` between them; a mark inside a part is escaped, so different parts never give the same
key. A key of which a part is empty is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from evalkit.register.reader import Raw
from evalkit.register.schema import Check, Field

MARK = "|"
_ESCAPE = "\\"
_BLANK = " \t\r\n\u00a0"


def compose(table: str, raw: Raw, columns: Sequence[Field]) -> tuple[Raw, list[Check]]:
    """Put the composed keys in front of the columns of a file.

    A key of which a column is missing is left out; ``check_columns`` has said so.

    Returns
    -------
    The file, and how many keys had lost zeros that were put back.
    """
    header, arrays = list(raw.header), [raw.table.column(f"c{i}") for i in range(len(raw.header))]
    names: list[str] = []
    made: list[pa.ChunkedArray] = []
    found: list[Check] = []
    for column in columns:
        if not column.parts or any(part not in header for part in column.parts):
            continue
        parts = []
        for part, width in zip(column.parts, column.widths, strict=True):
            text = _text(arrays[header.index(part)])
            short = _short(text, width)
            count = pc.sum(short).as_py() or 0
            if count:
                params = {"column": part, "width": width}
                found.append(Check("key_zeros_restored", "info", table, count, count / raw.rows, params))
                text = pc.if_else(short, pc.utf8_lpad(text, width, "0"), text)
            parts.append(text)
        names.append(column.own)
        made.append(parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*map(_escaped, parts), MARK))
    if not made:
        return raw, found
    columns_now = {f"c{i}": array for i, array in enumerate([*made, *arrays])}
    rows = pa.table({**columns_now, "row": raw.table.column("row")})
    return replace(raw, header=(*names, *header), table=rows), found


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Trimmed text; a whole number without decimals; empty cells null."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, None)
        whole = pc.all(pc.equal(pc.trunc(column), column)).as_py() is not False
        column = column.cast(pa.int64(), safe=False) if whole else column
    text = pc.utf8_trim(column.cast(pa.string()), characters=_BLANK)
    empty = pc.or_(pc.equal(text, ""), pc.equal(text, "NULL"))
    return pc.if_else(empty, None, text)


def _short(text: pa.ChunkedArray, width: int) -> pa.ChunkedArray:
    """Where a number has fewer digits than it should; nowhere when it may have any."""
    digits = pc.and_(pc.ascii_is_decimal(text), pc.greater(pc.binary_length(text), 0))
    return pc.fill_null(pc.and_(digits, pc.less(pc.binary_length(text), width)), False)


def _escaped(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text in which the mark cannot be mistaken for one between parts."""
    return pc.replace_substring(pc.replace_substring(text, _ESCAPE, _ESCAPE * 2), MARK, _ESCAPE + MARK)
