"""What a method shows: findings and three kinds of exhibit, without prose and without drawing.

The report knows these kinds and never a method. Columns say what they are and which column holds the count beneath
them, so that disclosure control can follow from a share to its count and from a part to its total.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from evalkit.effects import EffectProfile

Role = Literal["count", "share", "mean", "stat", "text", "key"]
Mark = Literal["line", "step", "interval", "bar", "area", "flow"]
Verdict = Literal["pass", "warn", "fail", "info"]


@dataclass(frozen=True)
class Column:
    """A column: ``label`` is a message key (``column.<label>``); role ``key`` holds message keys in its cells.

    ``support`` names the column with the count beneath this one, ``parent`` the column or row with its total.
    """

    key: str
    label: str
    role: Role = "stat"
    support: str = ""
    parent: str = ""
    decimals: int = 2


@dataclass(frozen=True)
class Table:
    """A table; ``title``: a message key under ``exhibit.``; ``hidden``: (row, column, status) of emptied cells."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    hidden: tuple[tuple[int, str, str], ...] = ()

    def __post_init__(self) -> None:
        keys = {column.key for column in self.columns}
        rows = tuple(MappingProxyType(dict(row)) for row in self.rows)
        for row in rows:
            if set(row) != keys:
                raise ValueError(f"table {self.id}: a row has columns {sorted(row)}, expected {sorted(keys)}")
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", rows)


@dataclass(frozen=True)
class Series:
    """One line of a chart; all sequences are as long as the chart's ``x``; missing is None."""

    key: str
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    support: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A chart as data: mark, grid, series, unit."""

    id: str
    title: str
    mark: Mark
    x: tuple[Any, ...]
    series: tuple[Series, ...]
    unit: str = ""
    x_label: str = ""

    def __post_init__(self) -> None:
        for line in self.series:
            for name in ("y", "low", "high", "support"):
                values = getattr(line, name)
                if values and len(values) != len(self.x):
                    raise ValueError(
                        f"chart {self.id}: {line.key}.{name} has {len(values)} values on {len(self.x)} points"
                    )


@dataclass(frozen=True)
class Note:
    """A sentence by its message key (``note.<key>``) with parameters."""

    key: str
    params: Mapping[str, Any] = field(default_factory=dict)
    severity: Literal["info", "warn", "fail"] = "info"

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))


Exhibit = Table | Chart | Note


@dataclass(frozen=True)
class Finding:
    """A verdict of a check, a gate or a diagnostic: ``code`` is a message key under ``finding.``."""

    code: str
    scope: str
    verdict: Verdict
    value: float | None = None
    threshold: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))


@dataclass(frozen=True)
class Lost:
    """Who an analysis leaves out of the sample's last step: the reason, and how many of the arm remain."""

    arm: Literal["treated", "comparison"]
    reason: str
    persons_left: int
    entries_left: int


@dataclass(frozen=True)
class Analysis:
    """What a method returns: profiles, exhibits, findings and losses under the id of the study file's analysis."""

    id: str
    method: str
    profiles: tuple[EffectProfile, ...]
    exhibits: tuple[Exhibit, ...] = ()
    findings: tuple[Finding, ...] = ()
    lost: tuple[Lost, ...] = ()
