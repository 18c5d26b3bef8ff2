"""Which table a file is, which column is which, and where its codes belong."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from evalkit.layouts.known import Own
from evalkit.mapping.content import Content, Kind, holders, judge
from evalkit.mapping.fitting import names_of, with_layout
from evalkit.register.reader import Raw, headless
from evalkit.register.schema import COLUMNS, EXTRA, MANY_TABLES, REQUIRED, TABLES, shape
from evalkit.register.sources import read_source, sources_in
from evalkit.study import Disclosure, Format, Source

MINIMUM = Disclosure().minimum
"""A code is shown when at least this many persons have it."""

Words = Mapping[str, Mapping[str, Sequence[str]]]

_AUTO = Format(decimal="auto", date="auto")
_SURE, _PROBABLE = 1.0, 0.7
_FITS: Mapping[str, tuple[Kind, ...]] = {
    "key": ("text", "number", "code", "year"),
    "date": ("date", "empty"),
    "code": ("code", "number", "text", "year"),
    "integer": ("year",),
    "number": ("number", "empty", "code", "year"),
    "month": ("date", "code", "text", "number", "year"),
}
_CODED = {"benefits": "reason", "episodes": "type"}


@dataclass(frozen=True)
class Codes:
    """The codes of one column, sorted into fixed ones as far as their words tell.

    Parameters
    ----------
    placed:
        Fixed code to own codes.
    unplaced:
        Own codes whose meaning is not known.
    hidden, hidden_rows:
        How many codes are too rare to be shown, and in how many rows they stand.
    many:
        Number of different values when there are too many for a list.
    """

    placed: Mapping[str, tuple[str, ...]]
    unplaced: tuple[str, ...] = ()
    hidden: int = 0
    hidden_rows: int = 0
    many: int = 0


@dataclass(frozen=True)
class ProposedTable:
    """What one file (or table in a file) seems to be; ``table`` is empty when it is not recognised.

    ``trusted`` is False when the first line is probably no header: its words are then nobody's to see.
    """

    source: Source
    path: Path
    rows: int
    table: str = ""
    layout: str = ""
    columns: Mapping[str, Own] = field(default_factory=dict)
    codes: Mapping[str, Codes] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    identifying: tuple[str, ...] = ()
    birth_date: str = ""
    bsn: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    trusted: bool = True


@dataclass(frozen=True)
class Proposal:
    """The tables, in the order of the study file and then those not recognised, and the notation they share."""

    tables: tuple[ProposedTable, ...]
    date: str = "auto"
    decimal: str = "auto"


@cache
def words() -> Words:
    """The words by which columns, files and codes are known."""
    text = files("evalkit.mapping").joinpath("words.toml").read_text("utf-8")
    return tomllib.loads(text)


def fold(name: str) -> str:
    """A name without capitals, accents, blanks and points."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def _parts(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    return [part.lower() for part in re.split(r"[^A-Za-z0-9]+", plain) if part]


def likeness(name: str, known: Sequence[str]) -> float:
    """How much a name is like some words: 1 one of them, 0.7 with one of them in it; earlier words a little more."""
    whole, parts = fold(name), _parts(name)
    runs = {"".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    best = 0.0
    for rank, word in enumerate(known):
        bare = fold(word)
        early = 0.001 * (len(known) - rank) / len(known)
        if whole == bare or (word.endswith("*") and whole.startswith(bare)):
            best = max(best, _SURE + early)
        elif bare in runs or (word.endswith("*") and any(part.startswith(bare) for part in parts)):
            best = max(best, _PROBABLE + 0.01 * len(bare) + early)
    return best


@dataclass(frozen=True)
class _File:
    source: Source
    path: Path
    raw: Raw
    contents: tuple[Content, ...]

    def columns(self) -> Iterator[tuple[Content, str]]:
        """Contents and names of the columns."""
        return zip(self.contents, self.raw.header, strict=True)


def propose(paths: Sequence[Path], minimum: int = MINIMUM) -> Proposal:
    """Look at files and propose what they are.

    Parameters
    ----------
    paths:
        Files of any kind that evalkit reads. Of a DuckDB file every table is looked at, of a workbook every sheet.
    minimum:
        A code is proposed when at least this many persons have it.

    Raises
    ------
    DataError
        When a file cannot be read.
    """
    read = []
    for path in paths:
        for source in sources_in(path):
            raw = read_source(source, path.parent, _AUTO, path.name)
            contents = tuple(judge(raw.table.column(f"c{i}")) for i in range(len(raw.header)))
            read.append(_File(source, path, raw, contents))
    roles = _roles(read)
    many = _many(read, roles)
    roles |= {i: table for i, (table, _) in many.items()}
    found = [_table(file, roles.get(i, ""), minimum, many.get(i, ("", None))[1]) for i, file in enumerate(read)]
    order = {table: i for i, table in enumerate((*TABLES, *MANY_TABLES))}
    found.sort(key=lambda table: order.get(shape(table.table), len(order)))
    dated = [i for i, table in roles.items() if shape(table) != "areas"]  # their months may be written otherwise
    used = [content for i, file in enumerate(read) if i in dated for content in file.contents]
    return Proposal(tuple(found), _agreed(c.date for c in used), _agreed(c.decimal for c in used))


def _agreed(seen: Iterable[str]) -> str:
    """The one thing that all columns say; ``auto`` when they differ or say nothing."""
    said = {word for word in seen if word}
    return said.pop() if len(said) == 1 else "auto"


def _known(table: str) -> dict[str, tuple[str, Sequence[str]]]:
    """By fixed name its kind and its words."""
    named: dict[str, Sequence[str]] = {**words()["person"], **words()[table]}
    if table == "areas":
        areas = [*words()["areas"]["area"], *words()["persons"]["municipality"], *words()["persons"]["district"]]
        named = {**words()["areas"], "person": words()["person"]["person"], "area": areas}
    for name, titles in names_of(table).items():
        named[name] = (*titles, *named.get(name, ()))
    kinds = {**COLUMNS[table], **EXTRA.get(table, {})}
    return {name: (kinds.get(name, "covariate"), known) for name, known in named.items()}


def _columns(file: _File, table: str) -> dict[str, tuple[int, float]]:
    """Fixed name to (position, likeness), each column once, the most alike first."""
    scored = []
    for name, (kind, known) in _known(table).items():
        for i, title in enumerate(file.raw.header):
            fits = _FITS.get(kind, ("code", "number", "text", "year"))
            score = likeness(title, known) if file.contents[i].kind in fits else 0.0
            if score and not likeness(title, words()["identifying"]["column"]) >= _SURE:
                scored.append((score, name in REQUIRED[table], name, i))
    found: dict[str, tuple[int, float]] = {}
    taken: set[int] = set()
    for score, _, name, i in sorted(scored, key=lambda item: (-item[0], not item[1], item[3])):
        if name not in found and i not in taken:
            found[name] = (i, score)
            taken.add(i)
    return found


def _roles(read: Sequence[_File]) -> dict[int, str]:
    """Which file is which table: the best fits first, every table once."""
    scored = []
    for i, file in enumerate(read):
        name = file.source.table or file.source.sheet or Path(file.source.file).stem
        for table in TABLES:
            found = _columns(file, table)
            have = sum(fixed in found for fixed in REQUIRED[table])
            special = sum(fixed in found for fixed in COLUMNS[table] if fixed not in ("person", "start", "end"))
            called = min(1.0, likeness(name, words()["file"][table]))
            if table == "persons":
                special = sum(fixed in found for fixed in words()["persons"])
                special -= 2 * sum(c.kind == "date" and not _born(title) for c, title in file.columns())
            if have >= len(REQUIRED[table]) - 1 and (called or special > 0):
                scored.append((called * 2 + special + have / len(REQUIRED[table]), -i, table))
    roles: dict[int, str] = {}
    for _, minus, table in sorted(scored, reverse=True):
        if -minus not in roles and table not in roles.values():
            roles[-minus] = table
    return roles


def _best(file: _File, known: Mapping[str, Sequence[str]], taken: Collection[int]) -> tuple[str, int] | None:
    """The name that fits a column best, and that column."""
    scored = [
        (likeness(title, words), -i, name)
        for name, words in known.items()
        for i, title in enumerate(file.raw.header)
        if i not in taken and file.contents[i].kind not in ("date", "bsn")
    ]
    score, minus, name = max(scored, default=(0.0, 0, ""))
    return (name, -minus) if score else None


def _many(read: Sequence[_File], roles: Mapping[int, str]) -> dict[int, tuple[str, dict[str, tuple[int, float]]]]:
    """Files among the others that hold a covariate which changes, by person and day or by area and month."""
    persons = {name: known for name, known in words()["persons"].items() if name not in ("birth_year", "sex")}
    values = {name: [*persons.get(name, ()), *words()["changing"].get(name, ())] for name in (*persons, "exemption")}
    figures = {name: [*known] for name, known in words()["figures"].items()}
    found: dict[int, tuple[str, dict[str, tuple[int, float]]]] = {}
    for i, file in enumerate(read):
        if i in roles:
            continue
        columns, kind, known = _columns(file, "changes"), "changes", values
        if "person" not in columns:
            columns, kind, known = _columns(file, "areas"), "areas", figures
        needed = {"person", "start"} if kind == "changes" else {"area", "month"}
        if not needed <= set(columns):
            continue
        best = _best(file, known, [at for at, _ in columns.values()])
        if best:
            name = f"{kind}.{best[0]}"
            if name not in {table for table, _ in found.values()}:
                found[i] = name, {**columns, "value": (best[1], _SURE)}
    return found


def _table(file: _File, table: str, minimum: int, given: dict[str, tuple[int, float]] | None = None) -> ProposedTable:
    header = file.raw.header
    contents = file.contents
    numbers = tuple(i + 1 for i, content in enumerate(contents) if content.kind == "bsn")
    plain = ProposedTable(file.source, file.path, file.raw.rows, bsn=numbers)
    everything = [*words()["person"].values(), *words()["identifying"].values()]
    parts = (*TABLES, *MANY_TABLES, "changing", "figures")
    everything += [known for part in parts for known in words()[part].values()]
    if headless(file.raw) or not any(likeness(title, known) for title in header for known in everything):
        return replace(plain, trusted=False)
    found = given or (_columns(file, table) if table else {})
    columns = {name: header[found[name][0]] for name in _order(table, found)}
    rest = [i for i in range(len(header)) if header[i] not in columns.values() and contents[i].kind != "bsn"]
    private = [i for i in rest if likeness(header[i], words()["identifying"]["column"])]
    born = [i for i in rest if _born(header[i]) and contents[i].kind == "date"]
    rest = [i for i in rest if i not in private and i not in born]
    covariates = [i for name, (i, _) in found.items() if table == "persons" and name not in COLUMNS["persons"]]
    column = _CODED.get(table, "")
    codes = {}
    if column in found:
        own = found[column][0]
        cells = file.raw.table.column(f"c{own}")
        persons = None
        if "person" in found and contents[own].counts:
            persons = holders(cells, file.raw.table.column(f"c{found['person'][0]}"))
        codes[column] = sort_codes(contents[own], column, minimum, persons)
    few = {header[i] for i in covariates if _few(contents[i])}
    proposed = replace(
        plain,
        table=table,
        columns=columns,
        codes=codes,
        unused=tuple(header[i] for i in rest if header[i]),
        categorical=tuple(name for name, own in columns.items() if own in few),
        numeric=tuple(n for n, own in columns.items() if own in {header[i] for i in covariates} - few),
        identifying=tuple(header[i] for i in private),
        birth_date=next((header[i] for i in born), ""),
        missing=tuple(
            name
            for name in REQUIRED.get(shape(table), ())
            if name not in columns and not (table == "benefits" and "month" in columns and name in ("start", "end"))
        ),
    )
    return with_layout(proposed, header)


def _born(title: str) -> bool:
    """Whether a name means a date of birth."""
    return likeness(title, words()["identifying"]["birth_date"]) > 0


def _few(content: Content) -> bool:
    return content.kind in ("code", "text") or (content.kind == "number" and content.distinct <= 10)


def _order(table: str, found: Mapping[str, object]) -> list[str]:
    """Fixed names in the order of the schema, then the others."""
    fixed = [name for name in COLUMNS.get(shape(table), ()) if name in found]
    return fixed + [name for name in found if name not in fixed]


def sort_codes(content: Content, column: str, minimum: int, persons: Mapping[str, int] | None = None) -> Codes:
    """The codes of a column of reasons or types that enough persons have, and the number of the others.

    ``persons``: by code how many different persons have it; None where it is not known who is meant, and rows count.
    """
    if not content.counts:
        return Codes({}, many=content.distinct)
    often = {code for code, count in (persons or dict(content.counts)).items() if count >= minimum}
    shown = [code for code, _ in content.counts if code in often]
    rare = [count for code, count in content.counts if code not in often]
    placed: dict[str, tuple[str, ...]] = {}
    unplaced = []
    for code in shown:
        name = _reason(code) if column == "reason" else _slug(code)
        if name:
            placed[name] = (*placed.get(name, ()), code)
        else:
            unplaced.append(code)
    return Codes(placed, tuple(unplaced), len(rare), sum(rare))


def _reason(code: str) -> str:
    scores = {name: likeness(code, known) for name, known in words()["reason"].items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] else ""


def _slug(code: str) -> str:
    """A fixed name for a type: its own words; codes of digits get a letter in front."""
    name = "_".join(_parts(code))
    if not name:
        return ""
    name = name if name[0].isalpha() else f"type_{name}"
    return f"{name}_type" if name in ("wait", "never") else name
