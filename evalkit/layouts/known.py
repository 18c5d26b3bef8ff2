"""What each layout fills in, read from ``layouts.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType

Own = str | tuple[str, ...]
"""A column of a file; several for a key that is composed of them."""


@dataclass(frozen=True)
class Layout:
    """One layout for one kind of table.

    Parameters
    ----------
    name, table:
        ``bus`` and ``benefits``; the table is ``persons``, ``benefits``, ``episodes``, ``jobs`` or ``changes``.
    columns:
        Fixed name to the column in the source.
    codes:
        Fixed name to the code list that its codes are looked up in.
    widths:
        Digits of a number that serves as key, by its column in small letters: zeros in front belong to it.
    """

    name: str
    table: str
    columns: Mapping[str, Own]
    codes: Mapping[str, str] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)


@cache
def layouts() -> Mapping[tuple[str, str], Layout]:
    """All layouts by name and table."""
    raw = tomllib.loads(files("evalkit.layouts").joinpath("layouts.toml").read_text("utf-8"))
    found = {}
    for name, tables in raw.items():
        widths = MappingProxyType(dict(tables.get("widths", {})))
        for table, what in tables.items():
            if table == "widths":
                continue
            own = {key: tuple(value) if isinstance(value, list) else value for key, value in what["columns"].items()}
            codes = MappingProxyType(dict(what.get("codes", {})))
            found[name, table] = Layout(name, table, MappingProxyType(own), codes, widths)
    return MappingProxyType(found)


def of_table(table: str) -> Mapping[str, Layout]:
    """The layouts of one kind of table by name; ``changes.scheme`` is of the kind ``changes``."""
    kind = table.partition(".")[0]
    return {name: layout for (name, of), layout in layouts().items() if of == kind}
