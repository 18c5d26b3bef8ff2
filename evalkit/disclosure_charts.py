"""Charts under disclosure control, and the rounding that charts share with everything else that is shown."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any, Protocol

BASE = 5

Json = dict[str, Any]


class Rules(Protocol):
    """What a chart asks of a disclosure profile."""

    def small(self, count: float | None) -> bool:
        """Whether a count is too small to show."""

    def hide(self, where: str) -> None:
        """Enter a hidden number in the ledger."""


def to_base(value: float, base: int = BASE) -> int:
    """The nearest multiple of the base, halves up."""
    return int(math.floor(value / base + 0.5)) * base


def rounded(value: float | None, decimals: int) -> float | None:
    """Rounded, without minus zero."""
    return None if value is None else round(value, decimals) + 0


def protect_chart(chart: Json, gate: Rules, gone: Collection[str]) -> None:
    """Hide the points of few people and those of covariates that are ``gone``; round the others; drop the counts."""
    named = any(isinstance(value, str) for value in chart["x"])
    for line in chart["series"]:
        support = line["support"] or [None] * len(line["y"])
        small = [n is not None and gate.small(n) for n in support]
        if named:
            small = [hide or name in gone for hide, name in zip(small, chart["x"], strict=True)]
        elif chart["mark"] == "area" and any(small):  # an empty bin shown as such says that a hidden one is not empty
            small = [hide or n == 0 for hide, n in zip(small, support, strict=True)]
        whole = _whole(chart, line, support)
        decimals = 3 if chart["unit"] == "points" else 2
        if chart["unit"] == "share" and chart["mark"] != "area" and whole:  # nor those who are not in the share
            rest = [v is not None and gate.small(whole - round(v * whole)) for v in line["y"]]
            small = [a or b for a, b in zip(small, rest, strict=True)]
        for key in ("y", "low", "high"):
            line[key] = [_point(v, hide, whole, decimals) for v, hide in zip(line[key], small, strict=False)]
        for _ in filter(None, small):
            gate.hide(chart["id"])
        line["support"] = []
    chart["x"] = [rounded(v, 2) if isinstance(v, float) else v for v in chart["x"]]


def _whole(chart: Json, line: Json, support: list[Any]) -> float:
    """How many people the shares of a line are shares of; zero where they are not shares of counted people.

    The bins of an area add up; points of another line each have their own share, so the last one tells.
    """
    if chart["unit"] != "share" or not line["support"]:
        return 0
    if chart["mark"] == "area":
        return float(sum(n or 0 for n in support))
    known = [(n, y) for n, y in zip(support, line["y"], strict=True) if n and y]
    return float(round(known[-1][0] / known[-1][1])) if known else 0


def _point(value: float | None, hide: bool, whole: float, decimals: int = 2) -> float | None:
    """A point, rounded; a share of ``whole`` people is rounded as its count would be."""
    if value is None or hide:
        return None
    if whole:
        return rounded(min(1.0, to_base(value * whole) / (to_base(whole) or BASE)), 3)
    return rounded(value, decimals)


def last_of(exhibits: Iterable[Json], finding: Json) -> float | None:
    """The last point of the chart of the same name and analysis, None where it is hidden."""
    for exhibit in exhibits:
        if (exhibit["type"], exhibit["analysis"]) != ("chart", finding["analysis"]):
            continue
        if exhibit["id"] == finding["code"]:
            last: float | None = exhibit["series"][0]["y"][-1]
            return last
    return None
