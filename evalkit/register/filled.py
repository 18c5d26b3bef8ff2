"""What a layout filled in, as checks, so that a reader sees what the study file does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.register.schema import Check

if TYPE_CHECKING:
    from evalkit.study import Study


def filled_in(study: Study, table: str) -> list[Check]:
    """What the layout of a table filled in, and how many of its codes nobody has verified."""
    found = []
    for filled in (filled for filled in study.filled if filled.table == table):
        spec = study.data.tables[table] if study.data else None
        mapped = len(spec.columns) if spec else 0
        lists = ", ".join(f"{item.column} ({item.codelist}, {item.count})" for item in filled.codes)
        params = {"layout": filled.layout, "columns": ", ".join(filled.columns) or "–", "lists": lists or "–"}
        count = len(filled.columns)
        found.append(Check("layout_filled", "info", table, count, count / mapped if mapped else 0.0, params, "columns"))
        for item in (item for item in filled.codes if item.unverified):
            params = {"column": item.column, "codelist": item.codelist}
            share = item.unverified / item.count
            found.append(Check("codes_unverified", "info", table, item.unverified, share, params, "codes"))
    return found
