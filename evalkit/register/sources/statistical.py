"""Files of Stata, SPSS and SAS, through pyreadstat: codes, not their labels; missing values of any kind are empty."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evalkit.register.reader import Raw, plain_table, read_bytes, unreadable_file
from evalkit.register.sources.packages import load

if TYPE_CHECKING:
    from evalkit.study import Format

_READERS = {
    ".dta": "read_dta",
    ".sav": "read_sav",
    ".zsav": "read_sav",
    ".por": "read_por",
    ".sas7bdat": "read_sas7bdat",
    ".xpt": "read_xport",
}
_OLD = {"auto": "WINDOWS-1252", "cp1252": "WINDOWS-1252", "utf-8": "UTF-8"}  # for files that do not tell


def read_statistical(path: Path, kind: str, layout: Format, place: str) -> Raw:
    """Read a file of a statistical package.

    The file tells its own encoding; where it does not, or wrongly, that of the study is tried, and cp1252 for ``auto``.
    """
    pyreadstat = load("pyreadstat", path.name, f"{place}.file")
    sha256 = hashlib.sha256(read_bytes(path, f"{place}.file")).hexdigest()
    reader = getattr(pyreadstat, _READERS[path.suffix.lower()])
    found: dict[str, list[Any]] | None = None
    for encoding in (None, _OLD[layout.encoding]):
        try:
            found, _ = reader(str(path), output_format="dict", **({"encoding": encoding} if encoding else {}))
            break
        except Exception:  # the library's own errors have no common base; its words may quote a value
            continue
    if found is None:
        raise unreadable_file(path.name, f"{place}.file")
    columns = {name.strip(): _column(values) for name, values in found.items()}
    return plain_table(columns, name=path.name, sha256=sha256, kind=kind)


def _column(values: list[Any]) -> pa.ChunkedArray | None:
    """Values of one kind as a column; None for times of day and the like."""
    try:
        return pa.chunked_array([pa.array(values, from_pandas=True)])
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
