"""The fixed schema of the register and the small values that are kept beside the tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from evalkit.text import say

if TYPE_CHECKING:
    from evalkit.study import Study

Kind = Literal["key", "text", "code", "date", "integer", "number"]
Severity = Literal["error", "warn", "info"]
Unit = Literal["rows", "months", "codes"]
"""What a check counts: rows of a table (or persons), calendar or elapsed months, codes. Only rows count people."""

STARTERS, OTHERS = "starters", "others"
"""The arms of a check: persons who start the instrument somewhere in the data, and everyone else."""

TABLES = ("persons", "benefits", "episodes", "jobs")

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
    }
)
"""The columns every table has after reading, with their kind; unmapped ones are empty. Mapped extra columns follow."""

EXTRA: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        "persons": {"measured": "date"},
        "benefits": {"registered": "date", "household_id": "text"},
        "episodes": {"registered": "date"},
        "jobs": {"earnings": "number"},
    }
)
"""Columns with a fixed kind that a table has only when they are mapped."""

REQUIRED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "persons": ("person",),
        "benefits": ("person", "start", "end"),
        "episodes": ("person", "type", "start", "end"),
        "jobs": ("person", "start", "end"),
    }
)
"""The columns the study must map."""

ROW_ID: Mapping[str, str] = MappingProxyType({"benefits": "spell", "episodes": "episode", "jobs": "job"})
"""The row number that a table gets after sorting by person, start and end."""

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
    """

    name: str
    kind: Kind
    own: str = ""
    codes: Mapping[str, str] | None = None


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
    for starters and others, where it is known to whom a row belongs; the two counts then add up to ``count``.
    """

    code: str
    severity: Severity
    table: str
    count: int
    share: float
    params: Mapping[str, Any] = field(default_factory=dict)
    unit: Unit = "rows"
    arms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

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


def by_arm(counts: Mapping[bool, int], totals: Mapping[bool, int]) -> dict[str, dict[str, float]]:
    """Counts of starters (True) and others (False) with their shares, as a check holds them."""
    return {
        name: {"count": counts.get(arm, 0), "share": counts.get(arm, 0) / totals[arm] if totals.get(arm) else 0.0}
        for arm, name in ((True, STARTERS), (False, OTHERS))
    }


def _own_to_fixed(codes: Mapping[str, Any]) -> dict[str, str]:
    """Turn fixed -> own codes round; the first fixed code that names an own code keeps it."""
    turned: dict[str, str] = {}
    for fixed, owns in codes.items():
        for own in owns:
            turned.setdefault(str(own).strip(), fixed)
    return turned


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
        One of ``TABLES``.
    present:
        Names of the columns of a frame that has fixed names and fixed codes already. The columns then map to
        themselves. None: map as the study says.
    """
    assert study.data is not None
    spec = getattr(study.data, table)
    columns: dict[str, str] = dict(spec.columns) if spec else {}
    codes: dict[str, Mapping[str, Any]] = dict(getattr(spec, "codes", None) or {})
    if present is not None:
        fixed = [name for name in COLUMNS[table] if name in present]
        columns = {name: name for name in (*fixed, *columns)}
    numeric = _numeric(study) if table == "persons" else set()
    result = []
    for name in (*COLUMNS[table], *(name for name in columns if name not in COLUMNS[table])):
        mapping = None
        if name in codes and present is not None:
            mapping = {fixed: fixed for fixed in (*codes[name], UNKNOWN)}
        elif name in codes:
            mapping = _own_to_fixed(codes[name])
        kind: Kind = {**COLUMNS[table], **EXTRA.get(table, {})}.get(name) or ("number" if name in numeric else "code")
        if kind == "code" and mapping is None:
            kind = "text"
        result.append(Field(name, kind, columns.get(name, ""), mapping))
    return tuple(result)
