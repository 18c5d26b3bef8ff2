"""The study: a target-trial protocol as frozen values whose names are the keys of the study file.

What each key means, its default and what it may hold stands in ``docs/study-file.md``. Checks that need more than one
key stand in ``rules``; a ``Study`` comes from ``evalkit.study.read`` or ``parse`` only, so it has passed both.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

from evalkit.study.outcome_source import read_source

Language = Literal["nl", "en"]
Method = Literal["matching", "weighting", "pairwise", "experiment", "did", "duration"]

PANEL_METHODS = ("did",)
"""Methods that work on panels: units over calendar periods, not persons from a time zero."""

SPELL_METHODS = ("duration",)
"""Methods that work on whole spells beside the risk sets: their length, and when instruments start in them."""

Text = Annotated[str, StringConstraints(min_length=1)]
"""Words that may not be empty."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
"""A name the results use as a key: it ends up in identifiers, formulas and file names."""

Day = Annotated[dt.date, Field(ge=dt.date(1950, 1, 1), le=dt.date(2100, 12, 31))]
Count = Annotated[int, Field(ge=0)]
Months = Annotated[int, Field(ge=0, le=600)]
Age = Annotated[int, Field(ge=0, le=120)]
OwnColumn = Annotated[
    Annotated[Text, Tag("text")] | Annotated[tuple[Text, ...], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, tuple) else "text"),
]
"""A column of a file; several for a key that is composed of them."""

Columns = dict[Name, OwnColumn]
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
    """One register table: its source, fixed name -> own column, and per column fixed code -> own codes.

    ``layout`` names what was filled in by :mod:`evalkit.study.complete`.
    """

    layout: Text = ""
    columns: Columns
    codes: Codes = {}


class AreaSpec(TableSpec):
    """Figures by area and month. ``area``: which column of persons, or which table of changes, tells the area.

    A month's figure is known ``delay_months`` months after the month's end.
    """

    area: Name
    delay_months: int = Field(default=1, ge=0, le=60)


class Data(Frozen):
    """Raw register tables; ``changes`` and ``areas`` hold one for each covariate that changes, by its name."""

    folder: Text = "data"
    codelists: Text = ""
    format: Format = Format()
    window: Window
    persons: TableSpec
    benefits: TableSpec
    episodes: TableSpec
    jobs: TableSpec | None = None
    changes: dict[Name, TableSpec] = {}
    areas: dict[Name, AreaSpec] = {}

    @property
    def tables(self) -> dict[str, TableSpec]:
        """The tables that the study has, persons first; ``changes.household`` is one of several of its kind."""
        single = {name: getattr(self, name) for name in ("persons", "benefits", "episodes", "jobs")}
        found = {name: spec for name, spec in single.items() if spec is not None}
        found |= {f"changes.{name}": spec for name, spec in self.changes.items()}
        return found | {f"areas.{name}": spec for name, spec in self.areas.items()}

    @property
    def changing(self) -> tuple[str, ...]:
        """Names of the covariates that change over time."""
        return (*self.changes, *self.areas)


class TableData(Source):
    """A file ready for analysis: one row a person, treatment 0 or 1, outcomes by period as columns.

    ``before``: outcomes in periods before the treatment, oldest first.
    """

    unit: Text
    treatment: Text
    outcomes: Annotated[dict[Name, Annotated[tuple[Text, ...], Field(min_length=1)]], Field(min_length=1)]
    before: dict[Name, Annotated[tuple[Text, ...], Field(min_length=1)]] = {}
    period_months: int = Field(default=1, ge=1, le=60)
    format: Format = Format()

    @property
    def periods(self) -> tuple[str, ...]:
        """The columns that hold an outcome in some period, after the treatment and then before it."""
        return tuple(name for held in (self.outcomes, self.before) for names in held.values() for name in names)


class PanelSpec(Source):
    """A ready panel: one row a unit and period (``repeated``: one row a person in a cross-section).

    Either ``first_treated`` (the first treated period, empty or 0 for never) or ``treated`` (0 or 1 in each row).
    ``outcomes``: a column each. ``persons``: the column that tells how many persons are beneath a row.
    ``period_months``: None where dates or years tell it.
    """

    unit: Text
    period: Text
    outcomes: Annotated[dict[Name, Text], Field(min_length=1)]
    first_treated: Text = ""
    treated: Text = ""
    cluster: Text = ""
    weight: Text = ""
    persons: Text = ""
    repeated: bool = False
    period_months: Annotated[int, Field(ge=1, le=60)] | None = None
    format: Format = Format()


class AdoptedFrom(Source):
    """A table of the days on which units adopted the instrument: which column names the unit, and which the day."""

    unit: Text
    day: Text


class Spells(Frozen):
    """How rows of benefits and jobs become spells and amounts."""

    merge_gap_months: int = Field(default=1, ge=0, le=12)
    level: Literal["person", "household"] = "person"
    job_amounts: Literal["total", "rate"] = "total"


LONGEST = 240
"""Months (or periods) after which nothing is looked at."""


class Time(Frozen):
    """The clock and how long each person, or unit of a panel, is followed."""

    clock: Literal["start", "referral"] = "start"
    within_month: Literal["dates", "start_first", "exit_first"] = "dates"
    horizon: int = Field(ge=1, le=LONGEST)
    follow_up: Literal["complete", "available"] = "complete"


class Eligibility(Frozen):
    """Who may enter the comparison, judged at time zero; ranges include both ends. ``exclude``: column -> values."""

    age: tuple[Age, Age] | None = None
    elapsed: tuple[Months, Months] = (0, 23)
    stock: Literal["exclude", "include"] = "exclude"
    other_instrument: Literal["exclude", "include"] = "exclude"
    earlier_spells: tuple[Count, Count] | None = None
    exclude: dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]] = {}


STRATEGIES = ("wait", "never", "no_adoption")
"""What an instrument may be compared with besides another instrument."""


class Treatment(Frozen):
    """The two strategies that are compared; ``others`` are further instruments, compared with these pair by pair.

    ``unit``: at which level the instrument is taken up, where analyses work on panels: ``person`` or a column of
    persons. ``adopted``, ``adopted_from``: the day on which each of them did; without, the first start of a person.
    """

    instrument: Name
    versus: Name = "wait"
    others: tuple[Name, ...] = ()
    cluster: Text = "person"
    unit: Text = "person"
    adopted: Annotated[dict[Text, Day], Field(min_length=1)] | None = None
    adopted_from: AdoptedFrom | None = None
    design: Literal["observational", "randomised"] = "observational"

    @property
    def adopts(self) -> bool:
        """Whether days of adoption are given, so that nobody need start an instrument."""
        return self.adopted is not None or self.adopted_from is not None

    @property
    def opposed(self) -> tuple[str, ...]:
        """The instruments of the comparison itself: the one that is evaluated, and the other if it is one."""
        return (self.instrument,) if self.versus in STRATEGIES else (self.instrument, self.versus)

    @property
    def compared(self) -> tuple[str, ...]:
        """Every instrument that is compared, the one that is evaluated first."""
        return tuple(dict.fromkeys((*self.opposed, *self.others)))


FAMILIES = ("training", "guidance", "wage_subsidy", "job_creation", "other")
"""Families of instruments with a name of their own in the report; a further one needs a word under ``[labels]``."""

USUAL_FAMILY = {
    "training": "training",
    **dict.fromkeys(("coaching", "job_coach", "meeting", "monitoring", "warning", "sanction"), "guidance"),
    **dict.fromkeys(("wage_cost_subsidy", "wage_cost_subsidy_flat", "temporary_wage_subsidy"), "wage_subsidy"),
    **dict.fromkeys(("wiw_id_job", "sheltered_work"), "job_creation"),
}
"""The family of an instrument of that name, unless the study file gives another."""


class Instrument(Frozen):
    """One instrument: a type of episode, a combination of types (``combine``), or the ``order``-th ``of`` a type.

    A type that the study file does not list is an episode as it stands in the table: nothing of it is joined.
    """

    name: Name
    family: Text = ""
    kind: Literal["episode", "event"] = "episode"
    join_gap_days: Annotated[int, Field(ge=0, le=366)] | None = 0
    open_end_months: Annotated[int, Field(ge=1, le=600)] | None = None
    combine: tuple[Name, ...] = ()
    within_months: int = Field(default=3, ge=1, le=60)
    of: Text = ""
    order: int = Field(default=0, ge=2, le=100)

    @property
    def parts(self) -> tuple[str, ...]:
        """The types of episode it is made of."""
        return self.combine or ((self.of,) if self.of else (self.name,))

    @property
    def derived(self) -> bool:
        """Whether it is made of other instruments."""
        return bool(self.combine or self.of)


class Outcome(Frozen):
    """One thing the instrument should change, or (``negative_control``) one that it cannot change."""

    name: Name
    kind: Literal["event", "state", "flow"]
    source: str = ""
    better: Literal["higher", "lower"] = "higher"
    primary: bool = False
    unit: Text = "fraction"
    role: Literal["effect", "negative_control"] = "effect"


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
    panel: PanelSpec | None = None
    spells: Spells = Spells()
    time: Time
    eligibility: Eligibility = Eligibility()
    treatment: Treatment
    instruments: tuple[Instrument, ...] = Field(default=(), alias="instrument")
    outcomes: Annotated[tuple[Outcome, ...], Field(alias="outcome", min_length=1)]
    covariates: Covariates = Covariates()
    subgroups: tuple[Subgroup, ...] = Field(default=(), alias="subgroup")
    analyses: Annotated[tuple[AnalysisSpec, ...], Field(alias="analysis", min_length=1)]
    gate: Gate = Gate()
    costs: dict[Name, Cost] = {}
    disclosure: Disclosure = Disclosure()
    labels: dict[Language, dict[Text, Text]] = {}


class FilledCodes(Frozen):
    """A code list that was put under a column: how many of its codes, and how many of those nobody has verified."""

    column: str
    codelist: str
    own: bool
    count: int
    unverified: int


class Filled(Frozen):
    """What a layout filled in for one table: the columns by their fixed names, and the code lists."""

    table: str
    layout: str
    columns: tuple[str, ...]
    codes: tuple[FilledCodes, ...]


class Study(Protocol):
    """The protocol together with the file it was read from.

    ``text`` is the file as read, ``sha256`` the checksum of that text in UTF-8. The protocol is complete: ``filled``
    tells what layouts added to the text.
    """

    path: Path
    text: str
    sha256: str
    filled: tuple[Filled, ...] = ()

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
    def on_panels(self) -> bool:
        """Whether every analysis works on panels, so that no risk sets are needed."""
        return all(analysis.method in PANEL_METHODS for analysis in self.analyses)

    @property
    def look_ahead(self) -> int:
        """Months beyond the horizon that the outcome which looks ahead furthest needs; 0 for a ready table."""
        sources = [read_source(outcome.source) for outcome in self.outcomes]
        return max((s.look_ahead(self.spells.merge_gap_months) for s in sources if s), default=0)

    def instrument(self, name: str) -> Instrument:
        """What the study file says of an instrument; a type that it does not list stays as it stands in the table."""
        listed = (instrument for instrument in self.instruments if instrument.name == name)
        return next(listed, Instrument(name=name, join_gap_days=None))

    def family(self, name: str) -> str:
        """The family of an instrument: its own, else that of its name, or the one that its parts have in common."""
        instrument = self.instrument(name)
        if instrument.family or not instrument.derived:
            return instrument.family or USUAL_FAMILY.get(name, "other")
        families = {self.family(part) for part in instrument.parts}
        return families.pop() if len(families) == 1 else "other"

    @property
    def events(self) -> tuple[str, ...]:
        """Types of episode that are points in time, such as meetings; they have no end."""
        return tuple(instrument.name for instrument in self.instruments if instrument.kind == "event")

    def protocol(self) -> dict[str, Any]:
        """The protocol as plain JSON values under the attribute names, for the results document."""
        return self.model_dump(mode="json", exclude={"path", "text", "sha256", "filled"})
