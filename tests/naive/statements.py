"""Monthly statements made into spells, person by person in plain loops."""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

DAY = dt.timedelta(days=1)
Row = Mapping[str, Any]


def last_day(month: dt.date) -> dt.date:
    return month.replace(day=calendar.monthrange(month.year, month.month)[1])


def spells(rows: Iterable[Row], window: tuple[dt.date, dt.date]) -> list[tuple[Any, ...]]:
    """(person, start, end or None, reason or None) of rows with person, month, start, end, reason."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        month, start, end = row["month"], row["start"], row["end"]
        if month is None:
            continue
        begin = start or (min(month, end) if end else month)
        if end and end < begin:
            continue
        if row not in kept:
            kept.append({**row, "begin": begin, "undated": start is None})
    first, last = min(row["month"] for row in kept), max(row["month"] for row in kept)
    for row in kept:
        if row["undated"] and row["month"] == first:
            row["begin"] = min(first, window[0]) - DAY
        row["until"] = row["end"] or max(last_day(row["month"]), row["begin"])
    made = []
    for person in sorted({row["person"] for row in kept}):
        own = sorted((row for row in kept if row["person"] == person), key=lambda row: (row["begin"], row["until"]))
        parts: list[list[dict[str, Any]]] = []
        reach = None
        for row in own:
            if reach is None or row["begin"] > reach + DAY:
                parts.append([])
            parts[-1].append(row)
            reach = max(reach or row["until"], row["until"])
        for part in parts:
            latest = max(part, key=lambda row: (row["month"], row["until"]))
            start = min(row["begin"] for row in part)
            end = latest["until"] if latest["end"] or latest["month"] < last else None
            if start > window[1] or (end and end < window[0]):
                continue
            made.append((person, start, end, (latest["reason"] or "unknown") if end else None))
    return sorted(made, key=lambda spell: (spell[0], spell[1], spell[2] or dt.date.max))
