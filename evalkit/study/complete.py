"""Layouts filled in: columns, codes and labels that the study file leaves to a layout, before anything is judged.

What the user gives always wins. The text of the study file stays as it is; what was added is told by ``Filled``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from evalkit import layouts
from evalkit.layouts import CodeList, Layout
from evalkit.study.changing import CHANGING, SINGLE
from evalkit.study.lines import KeyPath
from evalkit.study.model import Filled, FilledCodes
from evalkit.study.translate import Issue, not_allowed

REST = "*"
"""The own code that stands for all others."""

_LANGUAGES = ("nl", "en")


class _Chosen(NamedTuple):
    place: tuple[str, ...]
    table: str
    spec: dict[str, Any]
    layout: Layout


def complete(raw: dict[str, Any], folder: Path) -> tuple[list[Issue], tuple[Filled, ...]]:
    """Fill in the layouts of a study file, in place.

    Parameters
    ----------
    raw:
        The file as ``frozen`` left it; values that are not what they should be are left for the models to refuse.
    folder:
        Where the study file lies, from which ``data.codelists`` is seen.

    Returns
    -------
    What is wrong with layouts and code lists, and what was filled in.
    """
    data = raw.get("data")
    if not isinstance(data, dict):
        return [], ()
    issues: list[Issue] = []
    chosen = list(_chosen(data, issues))
    lists = _lists(data, folder, bool(chosen), issues)
    labels: dict[str, dict[str, str]] = {lang: {} for lang in _LANGUAGES}
    filled = []
    for place, table, spec, layout in chosen:
        columns = _columns(spec, layout)
        codes = _codes(spec, table, layout, lists, labels) if columns is not None else ()
        filled.append(Filled(table=table, layout=layout.name, columns=tuple(columns or ()), codes=tuple(codes)))
        parent = data if len(place) == 2 else data[place[1]]
        parent[place[-1]] = spec
    _label(raw, labels)
    return issues, tuple(filled)


def outside(value: str) -> bool:
    """Whether a path of the study file leads out of the study folder."""
    path = PureWindowsPath(value)  # reads both kinds of slash
    return bool(path.drive or path.root or ".." in path.parts)


def _chosen(data: dict[str, Any], issues: list[Issue]) -> Iterator[_Chosen]:
    """The tables with a layout, each with a copy of what the file says of it."""
    tables: dict[tuple[str, ...], Any] = {("data", table): data.get(table) for table in SINGLE}
    for kind in CHANGING:
        several = data.get(kind)
        tables |= {("data", kind, name): spec for name, spec in several.items()} if isinstance(several, dict) else {}
    for place, spec in tables.items():
        name = spec.get("layout") if isinstance(spec, dict) else None
        if not isinstance(name, str) or not name:
            continue
        known = layouts.of_table(place[1])
        if name in known:
            yield _Chosen(place, ".".join(place[1:]), dict(spec), known[name])
        elif known:
            issues.append(not_allowed((*place, "layout"), name, list(known)))
        else:
            issues.append(Issue((*place, "layout"), "layouts.none_here", {"table": place[1]}))


def _lists(data: dict[str, Any], folder: Path, used: bool, issues: list[Issue]) -> Mapping[str, CodeList]:
    """Every code list: the user's where he has one, otherwise ours."""
    lists = {name: layouts.shipped(name) for name in layouts.list_names()}
    where: KeyPath = ("data", "codelists")
    name = data.get("codelists")
    if not isinstance(name, str) or not name or outside(name):
        return lists
    if not used:
        issues.append(Issue(where, "layouts.lists_unused", {"folder": name}))
        return lists
    own, faults = layouts.read_lists(folder / name, layouts.list_names())
    whole = {"folder": name}  # as the study file names it
    issues += [Issue(where, f.code, {**f.params, **whole} if "folder" in f.params else f.params) for f in faults]
    return lists if faults else {**lists, **own}


def _parts(own: Any) -> tuple[Any, ...]:
    return own if isinstance(own, tuple) else (own,)


def _columns(spec: dict[str, Any], layout: Layout) -> list[str] | None:
    """Fill in the columns; an empty text says that the file has no such column. None: there is nothing to fill."""
    given = spec.get("columns", {})
    if not isinstance(given, dict):
        return None
    absent = {name for name, own in given.items() if own == "" and name in layout.columns}
    columns = {name: own for name, own in given.items() if name not in absent}
    used = {part for own in columns.values() for part in _parts(own) if isinstance(part, str)}
    added = {
        name: own
        for name, own in layout.columns.items()
        if name not in given and not used.intersection(_parts(own))  # the user has another use for that column
    }
    spec["columns"] = columns | added
    return list(added)


def _codes(
    spec: dict[str, Any],
    table: str,
    layout: Layout,
    lists: Mapping[str, CodeList],
    labels: Mapping[str, dict[str, str]],
) -> Iterator[FilledCodes]:
    """Fill in the codes of columns that are there, and note the words for them."""
    given = spec.get("codes", {})
    if not isinstance(given, dict):
        return
    codes = dict(given)
    for column in (column for column in layout.codes if column in spec["columns"]):
        own, codelist = codes.get(column, {}), lists[layout.codes[column]]
        if not isinstance(own, dict):
            continue
        claimed = {code for several in own.values() for code in _parts(several) if isinstance(code, str)}
        added: set[str] = set()
        merged = dict(own)
        for term, listed in codelist.by_term().items() if REST not in claimed else ():
            free = tuple(code for code in listed if code not in claimed)
            if free and isinstance(merged.get(term, ()), tuple):
                merged[term] = (*merged.get(term, ()), *free)
                added.update(free)
        codes[column] = merged
        for lang in _LANGUAGES:
            words = codelist.labels(lang)
            known = {_label_key(table, column, term): words[term] for term in merged if term in words}
            labels[lang].update({key: text for key, text in known.items() if key not in labels[lang]})
        if added:
            yield FilledCodes(
                column=column,
                codelist=codelist.name,
                own=codelist.own,
                count=len(added),
                unverified=len(added & codelist.unverified),
            )
    spec["codes"] = codes


def _label_key(table: str, column: str, term: str) -> str:
    """How the study file would label a code: a type by its name, any other as ``column:code``."""
    if (table, column) == ("episodes", "type"):
        return term
    return f"{table.partition('.')[2] or column}:{term}"


def _label(raw: dict[str, Any], words: Mapping[str, Mapping[str, str]]) -> None:
    """Add labels where the study file has none."""
    given = raw.get("labels", {})
    if not isinstance(given, dict):
        return
    labels = dict(given)
    for lang, added in words.items():
        own = labels.get(lang, {})
        if added and isinstance(own, dict):
            labels[lang] = {**added, **own}
    if labels:
        raw["labels"] = labels
