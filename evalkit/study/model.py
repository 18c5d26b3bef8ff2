"""The study: a target-trial protocol as frozen values whose names are the keys of the study file.

What each key means, its default and what it may hold stands in ``docs/study-file.md``. Checks that need more than one
key stand in ``rules``; a ``Study`` comes from ``evalkit.study.read`` or ``parse`` only, so it has passed both.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from evalkit.study.outcome_source import read_source

Language = Literal["nl", "en"]
Method = Literal["matching", "experiment"]

Text = Annotated[str, StringConstraints(min_length=1)]
"""Words that may not be empty."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
"""A name the results use as a key: it ends up in identifiers, formulas and file names."""

Day = Annotated[dt.date, Field(ge=dt.date(1950, 1, 1), le=dt.date(2100, 12, 31))]
Count = Annotated[int, Field(ge=0)]
Months = Annotated[int, Field(ge=0, le=600)]
Age = Annotated[int, Field(ge=0, le=120)]
Columns = dict[Name, Text]
Codes = dict[Text, dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]]]


class Frozen(BaseModel):
    """Base of everything read from a study file: frozen, no unknown keys, no silent conversion.

    Arrays arrive as tuples, so fields that hold several values are tuples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, strict=True, allow_inf_nan=False)


class Format(Frozen):
    """How the files were written."""

    delimiter: Literal["auto", ";", ","] = "auto"
    encoding: Literal["auto", "utf-8", "cp1252"] = "auto"
    decimal: Literal["auto", ",", "."] = ","
    date: Text = "%d-%m-%Y"


class Window(Frozen):
    """The days the data describe, both included."""

    first: Day
    last: Day


class Source(Frozen):
    """Where a table comes from: a file (with a table or sheet in it), or a table in a database.

    ``database`` is the name of the environment variable that holds the connection string, never the string itself.
    """

    file: Text = ""
    table: Text = ""
    sheet: Text = ""
    database: Text = ""


class TableSpec(Source):
    """One register table: its source, fixed name -> own column, and per column fixed code -> own codes."""

    columns: Columns
    codes: Codes = {}


class Data(Frozen):
    """Raw register tables."""

    folder: Text = "data"
    format: Format = Format()
    window: Window
    persons: TableSpec
    benefits: TableSpec
    episodes: TableSpec
    jobs: TableSpec | None = None


class TableData(Source):
    """A file ready for analysis: one row a person, treatment 0 or 1, outcomes by period as columns."""

    unit: Text
    treatment: Text
    outcomes: Annotated[dict[Name, Annotated[tuple[Text, ...], Field(min_length=1)]], Field(min_length=1)]
    period_months: int = Field(default=1, ge=1, le=60)
    format: Format = Format()


class Spells(Frozen):
    """How rows of benefits and jobs become spells and amounts."""

    merge_gap_months: int = Field(default=1, ge=0, le=12)
    level: Literal["person", "household"] = "person"
    job_amounts: Literal["total", "rate"] = "total"


class Time(Frozen):
    """The clock and how long each person is followed."""

    clock: Literal["start", "referral"] = "start"
    within_month: Literal["dates", "start_first", "exit_first"] = "dates"
    horizon: int = Field(ge=1, le=240)
    follow_up: Literal["complete", "available"] = "complete"


class Eligibility(Frozen):
    """Who may enter the comparison, judged at time zero; ranges include both ends."""

    age: tuple[Age, Age] | None = None
    elapsed: tuple[Months, Months] = (0, 23)
    stock: Literal["exclude", "include"] = "exclude"
    other_instrument: Literal["exclude", "include"] = "exclude"
    earlier_spells: tuple[Count, Count] | None = None


class Treatment(Frozen):
    """The two strategies that are compared."""

    instrument: Name
    versus: Name = "wait"
    cluster: Text = "person"
    design: Literal["observational", "randomised"] = "observational"


class Outcome(Frozen):
    """One thing the instrument should change."""

    name: Name
    kind: Literal["event", "state", "flow"]
    source: str = ""
    better: Literal["higher", "lower"] = "higher"
    primary: bool = False
    unit: Text = "fraction"


class Covariates(Frozen):
    """What the two groups are made alike on."""

    numeric: tuple[Text, ...] = ()
    categorical: tuple[Text, ...] = ()
    missing: Literal["category", "exclude"] = "category"


class Subgroup(Frozen):
    """A split of the people; ``cuts`` are the lower bounds of the second and later groups of a numeric column."""

    name: Text
    planned: bool = False
    cuts: tuple[float, ...] = ()


class AnalysisSpec(Frozen):
    """One analysis; ``settings`` are its remaining keys, which the method's own ``Settings`` validate."""

    id: Name
    method: Method
    settings: dict[str, Any] = {}


class Gate(Frozen):
    """When an estimate is withheld."""

    smd_fail: float = Field(default=0.25, gt=0, le=1)
    smd_warn: float = Field(default=0.10, gt=0, le=1)
    support_min: float = Field(default=0.80, ge=0, le=1)
    show_anyway: str = ""


class Cost(Frozen):
    """An amount in euro with its range and where it comes from."""

    value: float = Field(ge=0)
    low: float = Field(ge=0)
    high: float = Field(ge=0)
    source: Text


class Disclosure(Frozen):
    """How small a group may be shown."""

    profile: Literal["municipal", "open", "cbs", "strict"] = "municipal"
    minimum: int = Field(default=10, ge=1, le=1000)


class Protocol(Frozen):
    """Exactly what may stand in a study file."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    seed: int = Field(ge=0, le=2**63 - 1)
    languages: Annotated[tuple[Language, ...], Field(min_length=1)] = ("nl", "en")
    title: dict[Language, Text]
    data: Data | None = None
    table: TableData | None = None
    spells: Spells = Spells()
    time: Time
    eligibility: Eligibility = Eligibility()
    treatment: Treatment
    outcomes: Annotated[tuple[Outcome, ...], Field(alias="outcome", min_length=1)]
    covariates: Covariates = Covariates()
    subgroups: tuple[Subgroup, ...] = Field(default=(), alias="subgroup")
    analyses: Annotated[tuple[AnalysisSpec, ...], Field(alias="analysis", min_length=1)]
    gate: Gate = Gate()
    costs: dict[Name, Cost] = {}
    disclosure: Disclosure = Disclosure()
    labels: dict[Language, dict[Text, Text]] = {}


class Study(Protocol):
    """The protocol together with the file it was read from.

    ``text`` is the file as read, ``sha256`` the checksum of that text in UTF-8.
    """

    path: Path
    text: str
    sha256: str

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def folder(self) -> Path:
        """Where the data files lie: the study's own folder, with ``data.folder`` added for register tables."""
        return self.path.parent / self.data.folder if self.data else self.path.parent

    @property
    def primary(self) -> Outcome:
        """The one primary outcome."""
        return next(outcome for outcome in self.outcomes if outcome.primary)

    @property
    def look_ahead(self) -> int:
        """Months beyond the horizon that the outcome which looks ahead furthest needs; 0 for a ready table."""
        sources = [read_source(outcome.source) for outcome in self.outcomes]
        return max((s.look_ahead(self.spells.merge_gap_months) for s in sources if s), default=0)

    def protocol(self) -> dict[str, Any]:
        """The protocol as plain JSON values under the attribute names, for the results document."""
        return self.model_dump(mode="json", exclude={"path", "text", "sha256"})
