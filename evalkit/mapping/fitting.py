"""Which layout fits a proposed table, and what of the proposal the layout already says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evalkit.layouts import Layout, of_table, shipped
from evalkit.layouts.known import Own

if TYPE_CHECKING:
    from evalkit.mapping.propose import Codes, ProposedTable

_LEAST = 3
"""Columns of a layout that a file must have, and half of them all; the parts of its key are enough when composed."""


def parts(own: Own) -> tuple[str, ...]:
    """The columns of the file behind a fixed name."""
    return own if isinstance(own, tuple) else (own,)


def names_of(table: str) -> dict[str, tuple[str, ...]]:
    """By fixed name how the layouts of a table call it; of a composed key its last part."""
    found: dict[str, tuple[str, ...]] = {}
    for layout in of_table(table).values():
        for name, own in layout.columns.items():
            found[name] = (*found.get(name, ()), parts(own)[-1])
    return found


def fitting(table: str, header: Sequence[str]) -> Layout | None:
    """The layout of which a file has most columns, capitals or not; None when it has too few of any."""
    have = {title.casefold() for title in header}
    best: tuple[int, Layout] | None = None
    for layout in of_table(table).values():
        found = sum(all(part.casefold() in have for part in parts(own)) for own in layout.columns.values())
        keyed = any(len(parts(own)) > 1 and _has(own, have) for own in layout.columns.values())
        enough = keyed or (found >= _LEAST and 2 * found >= len(layout.columns))
        if enough and (best is None or found > best[0]):
            best = found, layout
    return best[1] if best else None


def _has(own: Own, have: set[str]) -> bool:
    return all(part.casefold() in have for part in parts(own))


def with_layout(proposed: ProposedTable, header: Sequence[str]) -> ProposedTable:
    """The proposal with the layout that fits, and without what the layout fills in by itself.

    What the layout would fill in and the file does not have is proposed as empty, which says just that.
    """
    layout = fitting(proposed.table, header) if proposed.table else None
    if layout is None:
        return proposed
    spelling = {title.casefold(): title for title in header}
    columns: dict[str, Own] = dict(proposed.columns)
    for name, own in layout.columns.items():
        there = _has(own, set(spelling))
        if there and len(parts(own)) > 1:
            columns[name] = tuple(spelling[part.casefold()] for part in parts(own))
        if columns.get(name) == own:
            del columns[name]
        elif not there and name not in columns:
            columns[name] = ""
    keys = {part for own in layout.columns.values() if len(parts(own)) > 1 for part in parts(own)}
    unused = tuple(name for name in proposed.unused if name.casefold() not in {key.casefold() for key in keys})
    codes = {
        column: _rest(found, layout.codes[column]) if column in layout.codes else found
        for column, found in proposed.codes.items()
    }
    missing = tuple(name for name in proposed.missing if name not in layout.columns)
    return replace(proposed, layout=layout.name, columns=columns, codes=codes, unused=unused, missing=missing)


def _rest(found: Codes, codelist: str) -> Codes:
    """Codes that the layout's list does not have; those that it has need no line of their own."""
    listed = {row.code for row in shipped(codelist).codes}
    placed: Mapping[str, tuple[str, ...]] = {
        name: left for name, owns in found.placed.items() if (left := tuple(own for own in owns if own not in listed))
    }
    return replace(found, placed=placed, unplaced=tuple(code for code in found.unplaced if code not in listed))
