"""How a file turned out to be written: delimiter, encoding, decimal mark and date format, to be shown before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from evalkit.errors import Fault
from evalkit.register.reader import Raw, visible
from evalkit.text import say

if TYPE_CHECKING:
    from evalkit.register.schema import Field
    from evalkit.study import Format

AUTO = "auto"
DATES = {
    "%d-%m-%Y": r"^(?P<d>\d{1,2})-(?P<m>\d{1,2})-\d{4}",
    "%Y-%m-%d": r"^\d{4}-(?P<m>\d{1,2})-(?P<d>\d{1,2})",
    "%Y%m%d": r"^\d{4}(?P<m>\d{2})(?P<d>\d{2})(?:\.0)?$",
    "%d/%m/%Y": r"^(?P<d>\d{1,2})/(?P<m>\d{1,2})/\d{4}",
    "%m/%d/%Y": r"^(?P<m>\d{1,2})/(?P<d>\d{1,2})/\d{4}",
    "%d.%m.%Y": r"^(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.\d{4}",
    "%Y/%m/%d": r"^\d{4}/(?P<m>\d{1,2})/(?P<d>\d{1,2})",
    "%d%m%Y": r"^(?P<d>\d{2})(?P<m>\d{2})(?:19|20)\d{2}$",
    "%Y-%m": r"^\d{4}-(?P<m>\d{1,2})$",
    "%Y%m": r"^(?:19|20)\d{2}(?P<m>\d{2})$",
    "%m-%Y": r"^(?P<m>\d{1,2})-\d{4}$",
}
"""The formats that are recognised, most usual first."""

WITHOUT_DAYS = ("%Y-%m", "%Y%m", "%m-%Y")
"""Formats that ``auto`` never takes: whether days matter is for the study to say."""

_BLANK = " \t\r\n\u00a0"
_ENOUGH = 0.5  # share of the filled cells that a format must explain
_GROUPS = r"^[+-]?\d{1,3}([.,]\d{3})+$"  # one kind of mark, groups of three: thousands or decimals
_MARKS = {",": r"^[+-]?(\d{1,3}(\.\d{3})*|\d*),\d+$", ".": r"^[+-]?(\d{1,3}(,\d{3})*|\d*)\.\d+$"}


@dataclass(frozen=True)
class Dialect:
    """What was found in a file; empty where it has none or cannot be told.

    Parameters
    ----------
    kind:
        ``csv``, ``parquet``, ``stata``, ``spss``, ``sas``, ``excel``, ``duckdb``, ``postgres``, ``spark``.
    delimiter, encoding:
        Of a CSV file.
    decimal, date:
        As seen in text columns that the study maps to numbers and dates. Formats as in the study file.
    """

    file: str
    kind: str
    rows: int
    delimiter: str = ""
    encoding: str = ""
    decimal: str = ""
    date: str = ""

    def text(self, lang: str = "en") -> str:
        """One line for the reader."""
        dash = "–"
        words = {
            "file": self.file,
            "kind": say(f"sources.kind.{self.kind}", lang),
            "rows": self.rows,
            "delimiter": visible(self.delimiter) or dash,
            "encoding": self.encoding or dash,
            "decimal": self.decimal or dash,
            "date": self.date or dash,
        }
        return say("sources.found.text" if self.kind == "csv" else "sources.found.typed", lang, **words)


Notice = Callable[[Dialect], None]
"""Who wants to know what was found, before it is used."""


def unheard(dialect: Dialect) -> None:
    """Nobody wants to know."""


def settle(raw: Raw, columns: Sequence[Field], layout: Format, place: str) -> tuple[Raw, Dialect, list[Fault]]:
    """Look at the dates and numbers of a file and fill in what the study leaves to be found out.

    Parameters
    ----------
    columns:
        The columns that the study uses.
    layout:
        The format of the study.
    place:
        Where the study gives the format, for the messages: ``data.format``.

    Returns
    -------
    The file with its ``layout``; what was found; and faults: ``data.date_ambiguous`` and ``data.decimal_ambiguous``
    when the study says ``auto`` and the file allows two readings.
    """
    texts = {kind: _texts(raw, [c.own for c in columns if c.kind in kinds]) for kind, kinds in _USES.items()}
    date, other_date = date_format(texts["date"])
    decimal, unsure = decimal_mark(texts["number"])
    faults = []
    if layout.date == AUTO and other_date:
        params = {"file": raw.name, "first": date, "second": other_date}
        faults.append(Fault("data.date_ambiguous", params, f"{place}.date"))
    if layout.decimal == AUTO and unsure:
        faults.append(Fault("data.decimal_ambiguous", {"file": raw.name}, f"{place}.decimal"))
    chosen = {
        "date": (date if date not in WITHOUT_DAYS and date else "%d-%m-%Y") if layout.date == AUTO else layout.date,
        "decimal": (decimal or ",") if layout.decimal == AUTO else layout.decimal,
    }
    dialect = Dialect(raw.name, raw.kind, raw.rows, raw.delimiter, raw.encoding, decimal, date)
    return replace(raw, layout=layout.model_copy(update=chosen)), dialect, faults


_USES = {"date": ("date",), "number": ("number", "integer")}


def _texts(raw: Raw, names: Sequence[str]) -> pa.Array:
    """The different filled cells of text columns, without blanks around them."""
    columns = [raw.table.column(f"c{raw.header.index(name)}") for name in names if name in raw.header]
    texts = [pc.unique(column) for column in columns if pa.types.is_string(column.type)]
    if not texts:
        return pa.array([], pa.string())
    trimmed = pc.utf8_trim_whitespace(pa.chunked_array(texts, pa.string()))
    return pc.unique(trimmed.filter(pc.greater(pc.binary_length(trimmed), 0)))


def cell_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The filled cells as trimmed text; whole numbers without decimals."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = column.drop_null()
        column = column.filter(pc.is_finite(column))
        whole = pc.all(pc.equal(pc.trunc(column), column)).as_py() is not False
        column = column.cast(pa.int64(), safe=False) if whole else column
    column = pc.utf8_trim(column.cast(pa.string()).drop_null(), characters=_BLANK)
    return column.filter(pc.and_(pc.not_equal(column, ""), pc.not_equal(column, "NULL")))


def date_format(texts: pa.Array) -> tuple[str, str]:
    """The format that explains most of some texts, and another that explains as many; empty when there is none.

    A format explains a text when its day is 1 to 31 and its month 1 to 12.
    """
    if len(texts) == 0:
        return "", ""
    counts = {name: _explained(texts, pattern) for name, pattern in DATES.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] < _ENOUGH * len(texts):
        return "", ""
    twins = {"%d/%m/%Y": "%m/%d/%Y", "%m/%d/%Y": "%d/%m/%Y", "%Y%m%d": "%d%m%Y", "%d%m%Y": "%Y%m%d"}
    twin = twins.get(best, "")
    return best, twin if twin and counts[twin] == counts[best] else ""


def _explained(texts: pa.Array, pattern: str) -> int:
    parts = pc.extract_regex(texts, pattern).drop_null()
    if len(parts) == 0:
        return 0
    good = pa.array([True] * len(parts))
    for name, most in (("d", 31), ("m", 12)):
        if f"<{name}>" in pattern:
            value = pc.struct_field(parts, name).cast(pa.int64())
            good = pc.and_(good, pc.and_(pc.greater_equal(value, 1), pc.less_equal(value, most)))
    return int(pc.sum(good).as_py() or 0)


def decimal_mark(texts: pa.Array) -> tuple[str, bool]:
    """The decimal mark of some texts, and whether it cannot be told although it matters.

    ``12,5`` and ``1.234,5`` tell; ``1.234`` does not, since the point may stand between thousands.
    """
    groups = pc.match_substring_regex(texts, _GROUPS)
    telling = texts.filter(pc.invert(groups))
    counts = {mark: int(pc.sum(pc.match_substring_regex(telling, p)).as_py() or 0) for mark, p in _MARKS.items()}
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best]:
        return best, counts[","] == counts["."]
    several = pc.match_substring_regex(texts.filter(groups), r"[.,]\d{3}[.,]")  # 1.234.567 is never decimal
    seen = texts.filter(groups).filter(several)
    if len(seen):
        return ("," if "." in str(seen[0]) else "."), False
    return "", bool(pc.any(groups).as_py())
