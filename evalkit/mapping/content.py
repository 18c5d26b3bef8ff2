"""What kind of thing a column holds, judged by its contents alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from evalkit.register import privacy
from evalkit.register.dialect import cell_texts, date_format, decimal_mark

Kind = Literal["empty", "bsn", "date", "year", "number", "code", "text"]

FEW = 80
"""Most different values that a list of codes has."""

_MOST = 0.9  # share of the different values that must fit a kind
_LONGEST = 60  # characters of a code
_YEAR = r"^(18[89]|19\d|20[0-4])\d$"
_NUMBER = r"^[+-]?\d[\d.,]*$|^[+-]?[.,]\d+$"


@dataclass(frozen=True)
class Content:
    """One column: its kind, how many cells are filled and how many values differ.

    Parameters
    ----------
    date, decimal:
        The date format and decimal mark of a text column; empty when they cannot be told.
    counts:
        For columns of few values: how often each occurs. Values from rows: shown only by ``write``, and only codes
        that occur often enough.
    """

    kind: Kind
    filled: int = 0
    distinct: int = 0
    date: str = ""
    decimal: str = ""
    counts: tuple[tuple[str, int], ...] = field(default=(), repr=False)


def judge(column: pa.ChunkedArray) -> Content:
    """What a column holds."""
    if privacy.is_bsn(column):
        return Content("bsn")
    filled = cell_texts(column)
    if len(filled) == 0:
        return Content("empty")
    counted = pc.value_counts(filled.combine_chunks())
    values, numbers = counted.field("values"), counted.field("counts")
    distinct = len(values)
    counts: tuple[tuple[str, int], ...] = ()
    if distinct <= FEW and (pc.max(pc.utf8_length(values)).as_py() or 0) <= _LONGEST:
        counts = tuple(sorted(zip(values.to_pylist(), numbers.to_pylist(), strict=True)))
    about = (len(filled), distinct)
    if pa.types.is_date(column.type):
        return Content("date", *about)
    if _share(values, _YEAR) >= _MOST:
        return Content("year", *about, counts=counts)
    date, _ = date_format(values)
    if date:
        return Content("date", *about, date=date)
    few = bool(counts) and len(filled) >= 2 * distinct
    if _share(values, _NUMBER) >= _MOST:
        decimal, _ = decimal_mark(values)
        return Content("number", *about, decimal=decimal, counts=counts)
    return Content("code" if few else "text", *about, counts=counts)


def holders(column: pa.ChunkedArray, person: pa.ChunkedArray) -> dict[str, int]:
    """How many different persons have each value of a column of few values; ``person`` says whose each cell is."""
    raw = pc.unique(column)
    texts = [(cell_texts(pa.chunked_array([raw[i : i + 1]])).to_pylist() or [None])[0] for i in range(len(raw))]
    values = pc.take(pa.array(texts, pa.string()), pc.index_in(column, value_set=raw))
    held = pa.table({"value": values, "person": person}).drop_null()
    counted = held.filter(pc.not_equal(held["person"].cast(pa.string()), "")).group_by("value")
    counts = counted.aggregate([("person", "count_distinct")]).to_pydict()
    return dict(zip(counts["value"], counts["person_count_distinct"], strict=True))


def _share(values: pa.Array, pattern: str) -> float:
    return float(pc.mean(pc.match_substring_regex(values, pattern).cast(pa.int64())).as_py() or 0.0)
