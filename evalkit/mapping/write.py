"""A proposal as TOML with its explanation, and its place in a study file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from evalkit.mapping.propose import MINIMUM, Codes, Proposal, ProposedTable
from evalkit.text import say

BEGIN, END = "# >>> evalkit map", "# <<< evalkit map"
"""Between these lines of a study file stands the proposal; a later one takes its place."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quote(name)


def _own(own: str | tuple[str, ...]) -> str:
    return _quote(own) if isinstance(own, str) else f"[{_list(own)}]"


def _list(names: Iterable[str]) -> str:
    return ", ".join(_quote(name) for name in names)


def as_toml(proposal: Proposal, lang: str, study_folder: Path | None = None, minimum: int = MINIMUM) -> str:
    """The proposal as TOML, explained in comments.

    Parameters
    ----------
    study_folder:
        Where the study file lies; files are named from there. None: only by their names.
    minimum:
        Below which codes were left out, for the explanation.
    """

    def note(key: str, **params: object) -> str:
        return "# " + say(f"map.{key}", lang, **params)

    folder = _folder(proposal, study_folder)
    lines = [note("intro")]
    tables = [table for table in proposal.tables if table.table]
    if tables:
        lines += [
            "[data]",
            f"folder = {_quote(folder)}",
            f"format = {{ decimal = {_quote(proposal.decimal)}, date = {_quote(proposal.date)} }}",
            "# window = { first = 2015-01-01, last = 2023-12-31 }   # " + say("map.window", lang),
        ]
    for table in tables:
        lines += ["", note("file", file=_shown(table), rows=table.rows), f"[data.{table.table}]"]
        lines.append(f"file = {_quote(_relative(table.path, study_folder, folder))}")
        lines += [f"{key} = {_quote(getattr(table.source, key))}" for key in ("table", "sheet")
                  if getattr(table.source, key)]  # fmt: skip
        if table.layout:
            lines.append(f"layout = {_quote(table.layout)}   # {say('map.layout', lang)}")
        lines += [f"columns.{name} = {_own(own)}" for name, own in table.columns.items()]
        if table.table.startswith("areas."):
            lines.append(f'area = "municipality"   # {say("map.area", lang)}')
        for column, codes in table.codes.items():
            lines += _codes(column, codes, lang, minimum)
        lines += _remarks(table, note)
    for table in proposal.tables:
        if not table.table:
            key = "left" if table.trusted else "headerless"
            lines += ["", note(key, file=_shown(table))]
            lines += _remarks(table, note) if table.trusted or table.bsn else []
    return "\n".join(lines) + "\n"


def _shown(table: ProposedTable) -> str:
    part = table.source.table or table.source.sheet
    return f"{table.path.name} / {part}" if part else table.path.name


def _folder(proposal: Proposal, study_folder: Path | None) -> str:
    """The folder that holds the files, seen from the study; ``data`` when they lie elsewhere."""
    parents = [str(table.path.resolve().parent) for table in proposal.tables]
    if study_folder is None or not parents:
        return "data"
    common, base = Path(os.path.commonpath(parents)), study_folder.resolve()
    return common.relative_to(base).as_posix() if common.is_relative_to(base) else "data"


def _relative(path: Path, study_folder: Path | None, folder: str) -> str:
    base = study_folder.resolve() / folder if study_folder else None
    inside = base is not None and path.resolve().is_relative_to(base)
    return path.resolve().relative_to(base).as_posix() if inside and base is not None else path.name


def _codes(column: str, codes: Codes, lang: str, minimum: int) -> list[str]:
    lines = [f"codes.{column}.{_key(name)} = [{_list(owns)}]" for name, owns in codes.placed.items()]
    if codes.many:
        lines.append("# " + say("map.codes_many", lang, codes=codes.many))
    if codes.unplaced:
        lines.append("# " + say("map.codes_unplaced", lang, codes=_list(codes.unplaced)))
    if codes.hidden:
        params = {"codes": codes.hidden, "count": codes.hidden_rows, "minimum": minimum}
        lines.append("# " + say("map.codes_rest", lang, **params))
    return lines


def _remarks(table: ProposedTable, note: object) -> list[str]:
    assert callable(note)
    lines = []
    if table.bsn:
        lines.append(note("bsn", positions=", ".join(map(str, table.bsn))))
    if table.missing:
        lines.append(note("missing", columns=", ".join(table.missing)))
    if table.birth_date:
        lines.append(note("birth_date", column=_quote(table.birth_date)))
    for key in ("categorical", "numeric", "identifying", "unused"):
        if names := getattr(table, key):
            lines.append(note(key, columns=_list(names)))
    return lines


def insert(text: str, proposal: str) -> str:
    """The text of a study file with a proposal at its end, every line behind a comment sign.

    An earlier proposal is replaced. Nothing else changes, so the file means what it meant.
    """
    end = "\r\n" if "\r\n" in text else "\n"
    lines = [BEGIN, *(line if line.startswith("#") else f"#{line}" for line in proposal.splitlines() if line), END]
    block = end.join(lines) + end
    old = re.search(rf"^{re.escape(BEGIN)}\r?\n(?:#.*\r?\n)*?{re.escape(END)}\r?\n?", text, flags=re.MULTILINE)
    if old:
        return text[: old.start()] + block + text[old.end() :]
    return text + ("" if not text or text.endswith("\n") else end) + end + block
