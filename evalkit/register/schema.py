"""The fixed schema of the register and the small values that are kept beside the tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from evalkit.layouts import of_table
from evalkit.layouts.known import Own
from evalkit.text import say

if TYPE_CHECKING:
    from evalkit.study import Study

Kind = Literal["key", "text", "code", "date", "month", "integer", "number"]
Severity = Literal["error", "warn", "info"]
Unit = Literal["rows", "months", "codes", "files", "columns"]
"""What a check counts: rows of a table (or persons), calendar or elapsed months, codes, files, columns. Only rows are
people."""

STARTERS, OTHERS = "starters", "others"
"""The arms of a check: persons who start the instrument somewhere in the data, and everyone else."""

TABLES = ("persons", "benefits", "episodes", "jobs")
"""The tables of which a register has one at most."""

MANY_TABLES = ("changes", "areas")
"""The tables of which it may have several, each by the name of a covariate: ``changes.household``."""

COLUMNS: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        "persons": {"person": "key", "birth_year": "integer"},
        "benefits": {"person": "key", "start": "date", "end": "date", "reason": "code"},
        "episodes": {
            "person": "key",
            "type": "code",
            "start": "date",
            "end": "date",
            "planned_end": "date",
            "referral": "date",
        },
        "jobs": {"person": "key", "start": "date", "end": "date", "hours": "number", "wage": "number"},
        "changes": {"person": "key", "start": "date", "end": "date", "value": "code"},
        "areas": {"area": "code", "month": "month", "value": "code"},
    }
)
"""The columns every table has after reading, with their kind; unmapped ones are empty. Mapped extra columns follow.

A ``value`` is a number where the covariate of that name is one.
"""

EXTRA: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        "persons": {"measured": "date"},
        "benefits": {"registered": "date", "household_id": "text", "scheme": "code", "month": "month"},
        "episodes": {
            "registered": "date",
            "month": "month",
            "provider": "text",
            "caseworker": "text",
            "cost": "number",
            "hours": "number",
        },
        "jobs": {"earnings": "number", "contract": "code"},
        "changes": {"registered": "date"},
    }
)
"""Columns with a fixed kind that a table has only when they are mapped."""

REQUIRED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "persons": ("person",),
        "benefits": ("person", "start", "end"),
        "episodes": ("person", "type", "start", "end"),
        "jobs": ("person", "start", "end"),
        "changes": ("person", "start", "value"),
        "areas": ("area", "month", "value"),
    }
)
"""The columns the study must map."""

ROW_ID: Mapping[str, str] = MappingProxyType(
    {"benefits": "spell", "episodes": "episode", "jobs": "job", "changes": "change", "areas": "figure"}
)
"""The row number that a table gets after sorting by person, start and end (areas: by area and month)."""

UNKNOWN = "unknown"
"""The fixed code of a value that the study's code lists do not name."""


@dataclass(frozen=True)
class Field:
    """One column of the fixed schema and where it comes from.

    Parameters
    ----------
    name:
        Fixed name.
    kind:
        How its text is read.
    own:
        Column name in the file; empty when the study does not map it.
    codes:
        Own code to fixed code; ``"*"`` stands for every other code. None: values are kept as they are.
    parts, widths:
        Of a key that ``keys.compose`` makes: the columns it is composed of, and how many digits each has (0: any).
    """

    name: str
    kind: Kind
    own: str = ""
    codes: Mapping[str, str] | None = None
    parts: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Input:
    """An input file: its name without folder, SHA-256 of its bytes (empty for a frame) and number of data rows."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Quarantined:
    """How many rows of a table were set aside for one reason; ``code`` is the code of the check."""

    table: str
    code: str
    column: str
    rows: int


@dataclass(frozen=True)
class Check:
    """What a check found: a code, counts and names, never a value from a data row.

    ``share`` is ``count`` as a fraction of the rows (or months, or codes) that were judged. ``arms`` holds the same two
    for starters and others, where it is known to whom a row belongs; the two counts then add up to ``count``. An arm of
    which nothing was judged has no share.
    """

    code: str
    severity: Severity
    table: str
    count: int
    share: float
    params: Mapping[str, Any] = field(default_factory=dict)
    unit: Unit = "rows"
    arms: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        object.__setattr__(self, "arms", MappingProxyType(dict(self.arms)))

    def _say(self, part: str, lang: str) -> str:
        words = {**self.params, "table": self.table, "count": self.count, "share": self.share}
        return say(f"check.{self.code}.{part}", lang, **words)

    def message(self, lang: str = "en") -> str:
        """What was found, in one sentence."""
        return self._say("say", lang)

    def reason(self, lang: str = "en") -> str:
        """Why it matters and what was done with the rows."""
        return self._say("why", lang)

    def remedy(self, lang: str = "en") -> str:
        """What the owner of the data can do."""
        return self._say("fix", lang)


def by_arm(counts: Mapping[bool, int], totals: Mapping[bool, int]) -> dict[str, dict[str, float | None]]:
    """Counts of starters (True) and others (False) with their shares, as a check holds them."""
    return {
        name: {"count": counts.get(arm, 0), "share": counts.get(arm, 0) / totals[arm] if totals.get(arm) else None}
        for arm, name in ((True, STARTERS), (False, OTHERS))
    }


def uneven(counts: Mapping[bool, int], totals: Mapping[bool, int]) -> bool:
    """Whether a share differs by more than ten points between the arms, and by more than chance explains.

    Chance: twice the standard error of the difference between two shares that are equal in truth.
    """
    if not (totals.get(True) and totals.get(False)):
        return False
    gap = abs(counts.get(True, 0) / totals[True] - counts.get(False, 0) / totals[False])
    whole = (counts.get(True, 0) + counts.get(False, 0)) / (totals[True] + totals[False])
    return gap > 0.1 and gap**2 > 4 * whole * (1 - whole) * (1 / totals[True] + 1 / totals[False])


def required(study: Study, table: str) -> tuple[str, ...]:
    """The columns that the study must map of a table.

    Episodes that are all points in time need no end; benefits that are monthly statements need no start nor end.
    """
    names = REQUIRED[shape(table)]
    if table == "benefits" and study.data and "month" in study.data.benefits.columns:
        return tuple(name for name in names if name not in ("start", "end"))
    types = study.data.episodes.codes.get("type", {}) if study.data else {}
    if table == "episodes" and types and set(types) <= set(study.events):
        return tuple(name for name in names if name != "end")
    return names


def _own_to_fixed(codes: Mapping[str, Any]) -> dict[str, str]:
    """Turn fixed -> own codes round; the first fixed code that names an own code keeps it."""
    turned: dict[str, str] = {}
    for fixed, owns in codes.items():
        for own in owns:
            turned.setdefault(str(own).strip(), fixed)
    return turned


def shape(table: str) -> str:
    """What kind of table a name stands for: ``changes`` for ``changes.household``, else the name itself."""
    return table.partition(".")[0]


def _numeric(study: Study) -> set[str]:
    """Columns that are read as numbers: numeric covariates and subgroups that are cut."""
    cut = {group.name for group in study.subgroups if group.cuts}
    return set(study.covariates.numeric) | cut


def fields(study: Study, table: str, present: Collection[str] | None = None) -> tuple[Field, ...]:
    """The columns of one register table: the fixed ones, then the study's own extra ones.

    Parameters
    ----------
    study:
        A study with ``[data]``.
    table:
        One of ``TABLES``, or ``changes.`` or ``areas.`` with the name of a covariate.
    present:
        Names of the columns of a frame that has fixed names and fixed codes already. The columns then map to
        themselves. None: map as the study says.
    """
    assert study.data is not None
    spec, form = study.data.tables.get(table), shape(table)
    columns: dict[str, Own] = dict(spec.columns) if spec else {}
    layout = of_table(form).get(spec.layout) if spec and present is None else None
    widths = layout.widths if layout else {}
    codes: dict[str, Mapping[str, Any]] = dict(getattr(spec, "codes", None) or {})
    if present is not None:
        fixed = [name for name in COLUMNS[form] if name in present]
        columns = {name: name for name in (*fixed, *columns)}
    numeric = _numeric(study) if table == "persons" else set()
    known: dict[str, Kind] = {**COLUMNS[form], **EXTRA.get(form, {})}
    if form in MANY_TABLES and table.partition(".")[2] in _numeric(study):
        known["value"] = "number"
    result = []
    for name in (*COLUMNS[form], *(name for name in columns if name not in COLUMNS[form])):
        mapping = None
        if name in codes and present is not None:
            mapping = {fixed: fixed for fixed in (*codes[name], UNKNOWN)}
        elif name in codes:
            mapping = _own_to_fixed(codes[name])
        kind: Kind = known.get(name) or ("number" if name in numeric else "code")
        if kind == "code" and mapping is None:
            kind = "text"
        own = columns.get(name, "")
        parts = own if isinstance(own, tuple) else (own,)
        digits = tuple(widths.get(part.lower(), 0) for part in parts)
        made = len(parts) > 1 or any(digits)
        shown = " + ".join(parts)
        result.append(Field(name, kind, shown, mapping, parts, digits) if made else Field(name, kind, shown, mapping))
    return tuple(result)


def wanted(columns: Sequence[Field]) -> dict[str, str]:
    """The columns that a file must have, by fixed name; the parts of a composed key are numbered."""
    found: dict[str, str] = {}
    for column in columns:
        if len(column.parts) > 1:
            found |= {f"{column.name} {i}": part for i, part in enumerate(column.parts, 1)}
        elif column.own:
            found[column.name] = column.own
    return found
