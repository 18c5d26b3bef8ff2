"""Code lists as CSV files that a user may edit: reading them with all their faults, and writing ours out.

The columns are those of ``COLUMNS``. A row without a code is a term that waits for one. Code lists hold no data rows,
so a message may name a code.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from evalkit.errors import Fault, UsageError
from evalkit.files import write_files

COLUMNS = ("code", "term", "label_nl", "label_en", "source", "verified", "note")
"""The first line of a code list; the order is free."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_YES_NO = {"yes": True, "ja": True, "no": False, "nee": False, "": False}
_HINT = re.compile(r"sep=(.)\r?\n")
_SHOWN = 12  # lines and codes in one message


@dataclass(frozen=True)
class Code:
    """One row: an own code (empty: still to be filled in), the fixed term it stands for, and where it comes from."""

    code: str
    term: str
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    verified: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))


@dataclass(frozen=True)
class CodeList:
    """A code list by its name; ``own`` when it is the user's instead of ours."""

    name: str
    codes: tuple[Code, ...]
    own: bool = False

    def by_term(self) -> dict[str, tuple[str, ...]]:
        """Fixed term to own codes, in the order of the list; terms without a code are left out."""
        found: dict[str, tuple[str, ...]] = {}
        for row in self.codes:
            if row.code:
                found[row.term] = (*found.get(row.term, ()), row.code)
        return found

    def labels(self, lang: str) -> dict[str, str]:
        """Fixed term to its words: those of the first row that has any."""
        found: dict[str, str] = {}
        for row in self.codes:
            if row.labels.get(lang):
                found.setdefault(row.term, row.labels[lang])
        return found

    @property
    def unverified(self) -> frozenset[str]:
        """The own codes that nobody has compared with the official list."""
        return frozenset(row.code for row in self.codes if row.code and not row.verified)


@cache
def list_names() -> tuple[str, ...]:
    """Names of the lists that evalkit ships."""
    entries = files("evalkit.layouts").joinpath("codelists").iterdir()
    return tuple(sorted(entry.name.removesuffix(".csv") for entry in entries if entry.name.endswith(".csv")))


def _shipped_bytes(name: str) -> bytes:
    return files("evalkit.layouts").joinpath("codelists", f"{name}.csv").read_bytes()


@cache
def shipped(name: str) -> CodeList:
    """A list of ours.

    Raises
    ------
    KeyError
        When there is no such list.
    """
    if name not in list_names():
        raise KeyError(name)
    made, faults = read_list(_shipped_bytes(name), name)
    assert not faults, faults
    return CodeList(name, made.codes)


def read_lists(folder: Path, known: Iterable[str]) -> tuple[dict[str, CodeList], list[Fault]]:
    """The code lists that a user keeps in a folder, and everything that is wrong with them.

    Parameters
    ----------
    known:
        Names a file in the folder may have; another ``.csv`` file is a fault, since it would do nothing.
    """
    known = tuple(known)
    if not folder.is_dir():
        return {}, [Fault("layouts.folder_missing", {"folder": folder.name}, folder.name)]
    lists: dict[str, CodeList] = {}
    faults: list[Fault] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv"):
        if path.stem not in known:
            faults.append(Fault("layouts.list_unknown", {"file": path.name, "known": ", ".join(known)}, path.name))
            continue
        try:
            data = path.read_bytes()
        except OSError:
            faults.append(Fault("layouts.list_unreadable", {"file": path.name, "line": 1}, path.name))
            continue
        lists[path.stem], wrong = read_list(data, path.stem)
        faults += wrong
    return lists, faults


def read_list(data: bytes, name: str) -> tuple[CodeList, list[Fault]]:
    """A code list from the bytes of its file, and everything that is wrong with it.

    UTF-8, with or without byte order mark; semicolons or commas. With faults the list is not to be used.
    """
    file = f"{name}.csv"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return CodeList(name, (), True), [Fault("layouts.list_encoding", {"file": file, "line": line}, file)]
    hint = _HINT.match(text)
    rows = _Rows(file, text[hint.end() :] if hint else text, 1 if hint else 0)
    codes = tuple(rows.codes())
    return CodeList(name, codes, True), rows.faults()


class _Rows:
    """The rows of one list, and what is wrong with them, gathered kind by kind."""

    def __init__(self, file: str, text: str, above: int):
        self.file, self.above = file, above
        first = next((line for line in text.splitlines() if line.strip()), "")
        self._text, self._delimiter = text, ";" if first.count(";") >= first.count(",") else ","
        self._wrong: dict[str, list[int]] = {}
        self._lines: dict[str, list[int]] = {}
        self._fatal: list[Fault] = []

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and trimmed cells of every record that is not blank."""
        reader = csv.reader(io.StringIO(self._text, newline=""), delimiter=self._delimiter, strict=True)
        try:
            for cells in reader:
                trimmed = [cell.strip() for cell in cells]
                if any(trimmed):
                    yield reader.line_num + self.above, trimmed
        except csv.Error:
            params = {"file": self.file, "line": reader.line_num + self.above}
            self._fatal.append(Fault("layouts.list_unreadable", params, self.file))

    def codes(self) -> Iterator[Code]:
        """The rows as codes; faults are gathered on the way."""
        records = self._records()
        header = [cell.lower() for cell in next(records, (0, []))[1]]
        if sorted(header) != sorted(COLUMNS):
            if not self._fatal:
                params = {"file": self.file, "columns": ", ".join(COLUMNS)}
                self._fatal.append(Fault("layouts.list_header", params, self.file))
            return
        for line, cells in records:
            if len(cells) != len(header):
                self._note("list_ragged", line)
                continue
            row = dict(zip(header, cells, strict=True))
            if not row["term"]:
                self._note("list_term_empty", line)
            elif not _NAME.fullmatch(row["term"]):
                self._note("list_term_name", line)
            if row["verified"].lower() not in _YES_NO:
                self._note("list_verified", line)
            if row["code"]:
                self._lines.setdefault(row["code"], []).append(line)
            labels = {lang: row[f"label_{lang}"] for lang in ("nl", "en")}
            verified = _YES_NO.get(row["verified"].lower(), False)
            yield Code(row["code"], row["term"], labels, row["source"], verified, row["note"])

    def _note(self, code: str, line: int) -> None:
        self._wrong.setdefault(code, []).append(line)

    def faults(self) -> list[Fault]:
        """One fault for each kind of thing that is wrong, with the lines it is on."""
        if self._fatal:
            return self._fatal
        found = [
            Fault(f"layouts.{code}", {"file": self.file, "lines": _some(map(str, lines))}, self.file)
            for code, lines in self._wrong.items()
        ]
        twice = {code: lines for code, lines in self._lines.items() if len(lines) > 1}
        if twice:
            lines = sorted(line for several in twice.values() for line in several)
            params = {"file": self.file, "codes": _some(twice), "lines": _some(map(str, lines))}
            found.append(Fault("layouts.list_code_twice", params, self.file))
        if not self._lines and not self._wrong:
            found.append(Fault("layouts.list_without_codes", {"file": self.file}, self.file))
        return found


def _some(items: Iterable[str]) -> str:
    """The first of some words, with a sign that there are more."""
    counted = list(Counter(items))
    return ", ".join(counted[:_SHOWN]) + (", …" if len(counted) > _SHOWN else "")


def write_lists(folder: Path, names: Iterable[str] | None = None) -> tuple[list[Path], list[Path]]:
    """Write our lists into a folder, to be edited; a file that exists is left as it is.

    The files begin with a byte order mark, so that Excel reads their letters right.

    Parameters
    ----------
    names:
        Which lists; all of them when None.

    Returns
    -------
    The files that were written, and those that were there already.

    Raises
    ------
    UsageError
        ``layouts.no_list`` when a name is no list of ours.
    """
    wanted = tuple(names) if names is not None else list_names()
    for name in wanted:
        if name not in list_names():
            raise UsageError(Fault("layouts.no_list", {"name": name, "known": ", ".join(list_names())}))
    there = [folder / f"{name}.csv" for name in wanted if (folder / f"{name}.csv").exists()]
    new = {f"{name}.csv": name for name in wanted if folder / f"{name}.csv" not in there}
    contents = {file: b"\xef\xbb\xbf" + _shipped_bytes(name).replace(b"\n", b"\r\n") for file, name in new.items()}
    return (write_files(folder, contents) if contents else []), there
