"""Changing a few values in the text of a study file, everything else (comments too) staying as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

from evalkit.study.lines import KeyPath, Lines


def edited(text: str, values: Mapping[KeyPath, str], without: Collection[KeyPath] = ()) -> str:
    """The text with other values (text) for some keys that it has, and without some others.

    A key of ``values`` whose last part is not in the text takes the place of the first of ``without`` beside it.
    """
    lines = Lines(text)
    changes: list[tuple[int, int, str]] = []
    taken: set[KeyPath] = set()
    for path, value in values.items():
        found = lines.pair(path)
        if found is not None:
            changes.append((found[1], found[2], _quoted(value)))
            continue
        beside = next(other for other in without if other[:-1] == path[:-1] and lines.pair(other) is not None)
        begin, start, end = lines.pair(beside) or (0, 0, 0)
        key = text[begin:start]
        last = key.rindex(str(beside[-1]))
        changes.append((begin, end, f"{key[:last]}{path[-1]}{key[last + len(str(beside[-1])) :]}{_quoted(value)}"))
        taken.add(beside)
    for path in without:
        found = lines.pair(path)
        if found is not None and path not in taken:
            changes.append((*_around(text, found[0], found[2]), ""))
    for begin, end, new in sorted(changes, reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _around(text: str, begin: int, end: int) -> tuple[int, int]:
    """A pair with its comma in an inline table, or with its line when it has one to itself."""
    after = re.compile(r"[ \t]*,[ \t]*").match(text, end)
    if after:
        return begin, after.end()
    before = re.search(r",[ \t]*$", text[:begin])
    if before:
        return before.start(), end
    line = text.rfind("\n", 0, begin) + 1
    rest = re.compile(r"[ \t\r]*(#[^\n]*)?(\n|$)").match(text, end)
    return (line, rest.end()) if rest and not text[line:begin].strip() else (begin, end)
