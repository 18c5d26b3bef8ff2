"""What may be told of a register so that one like it can be drawn: rounded counts with enough persons behind each.

``Aggregates`` is the only thing that passes from a register to its twin. It is written as ``aggregates.json``, for the
user and a privacy officer to read; ``docs/twin.md`` says what stands in it.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from evalkit.errors import Fault, UsageError
from evalkit.study import Frozen

SCHEMA = 1
_ROW = re.compile(r'\{(?:[^{}\[\]"]|"(?:\\.|[^"\\])*")*\}')  # an object without another one in it: on one line
FILE = "aggregates.json"

Quarter = Annotated[str, StringConstraints(pattern=r"^\d{4}-Q[1-4]$")]

MONTH = 365.25 / 12
"""Days in a month, on average: what person-months are counted in."""

ExitName = Literal["target", "other", "unknown"]
EXITS: tuple[ExitName, ...] = ("target", "other", "unknown")
"""Kinds of exit: that which the instrument is to bring about, other known ones, and those without a known reason."""


class Group(Frozen):
    """Persons with a number from ``low`` up to but not including ``high``; exactly ``low`` where the two are equal."""

    low: float
    high: float
    persons: int


class Quarters(Frozen):
    """Persons from the calendar quarter ``first`` up to and including ``last``, written as 2020-Q1."""

    first: Quarter
    last: Quarter
    persons: int


class Share(Frozen):
    """``part`` of ``persons``."""

    persons: int
    part: int


class Band(Frozen):
    """Months ``first`` up to but not including ``last`` since something began.

    ``persons`` were at risk in them, for ``months`` person-months together, and ``events`` happened.
    """

    first: int
    last: int
    persons: int
    events: int
    months: int


class Level(Frozen):
    """One category (``value``; None: the rare ones together) or one group of numbers (``low``, ``high``) of a column.

    ``exits`` to the target and ``starts`` of the instrument while waiting for it, and how many there would have been
    with everybody's rates by month; 0 where there are too few.
    """

    value: str | None = None
    low: float | None = None
    high: float | None = None
    persons: int
    exits: int = 0
    exits_expected: int = 0
    starts: int = 0
    starts_expected: int = 0


class Column(Frozen):
    """A column of persons, or a covariate that changes as it was on everybody's first day (``table``).

    ``category``: levels by value. ``number`` and ``age`` (at the first day on benefit that is seen): levels by group;
    ``step`` is the fineness of the numbers, 1 where all are whole. ``cluster``: only how many persons one has
    on average. ``entry``: the day on which the person's benefit begins. ``empty``: nothing is told.
    """

    name: str
    kind: Literal["category", "number", "age", "cluster", "entry", "empty"]
    table: Literal["persons", "changes"] = "persons"
    step: float = 0.0
    each: float = 0.0
    levels: tuple[Level, ...] = ()
    missing: Level | None = None


class Reason(Frozen):
    """A fixed code of the study file, and how many persons left for it."""

    code: str
    persons: int


class Exit(Frozen):
    """A kind of exit: its reasons, its rate by month on benefit before any start, and how soon people return."""

    name: ExitName
    reasons: tuple[Reason, ...] = ()
    bands: tuple[Band, ...] = ()
    returns: tuple[Band, ...] = ()


class Instrument(Frozen):
    """A type of episode: when it begins, by month on benefit; lengths in months; days from referral to start."""

    type: str
    event: bool = False
    starts: tuple[Band, ...]
    planned: tuple[Group, ...] = ()
    planned_known: Share | None = None
    realised: tuple[Group, ...] = ()
    referred: tuple[Group, ...] = ()
    referral_known: Share | None = None


class Amount(Frozen):
    """An amount in the table of jobs, by row."""

    name: str
    groups: tuple[Group, ...] = ()
    known: Share | None = None


class Jobs(Frozen):
    """Who is in a job: a month after each kind of exit, and during the benefit; lengths in months; amounts a row.

    ``monthly``: most rows cover a month at most.
    """

    after: tuple[Share | None, Share | None, Share | None]
    during: Share | None
    lengths: tuple[Group, ...]
    monthly: bool
    amounts: tuple[Amount, ...] = ()


class Layout(Frozen):
    """How a file is written."""

    delimiter: str = ";"
    encoding: str = "utf-8"
    decimal: str = ","
    date: str = "%d-%m-%Y"


class Aggregates(Frozen):
    """Everything that the twin knows of a register.

    Attributes
    ----------
    minimum: fewest persons behind a number, and what every count is a multiple of.
    window: as in the study file.
    persons: persons in the register; ``with_spell``: those with a benefit in the window.
    spells: persons by number of spells; the last group stands for more.
    columns: the columns of persons that the study maps.
    inflow: persons by calendar quarter in which their first spell begins.
    on_first: of those, how many begin on the first of a month.
    stock: persons whose first spell runs when the window begins, by months since it began.
    exits: in the order of ``EXITS``; ``returns``: how soon people return after any exit, where one kind alone is rare.
    instruments: that of the study first.
    gap_months: interruptions shorter than this were bridged before anything was counted.
    clock: what the start of the study's instrument is: the start or the referral.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    minimum: int
    window: tuple[dt.date, dt.date]
    persons: int
    with_spell: Share
    spells: tuple[Group, ...]
    columns: tuple[Column, ...]
    inflow: tuple[Quarters, ...]
    on_first: Share | None
    stock: tuple[Group, ...]
    exits: tuple[Exit, Exit, Exit]
    returns: tuple[Band, ...]
    instruments: tuple[Instrument, ...]
    jobs: Jobs | None
    gap_months: int
    clock: Literal["start", "referral"] = "start"
    layouts: dict[str, Layout]

    def to_json(self) -> str:
        """The document to write; fields that are at their default are left out."""
        plain = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        text = json.dumps({"schema": SCHEMA, **plain}, ensure_ascii=False, indent=1)
        return _ROW.sub(lambda row: " ".join(row.group().split()), text) + "\n"

    @property
    def document(self) -> dict[str, Any]:
        """The document as plain values, for :func:`evalkit.simulate.audit`."""
        document: dict[str, Any] = json.loads(self.to_json())
        return document

    @classmethod
    def from_json(cls, text: str, name: str = FILE) -> Aggregates:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        UsageError
            ``twin.unreadable`` when it is no such document.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            pass
        raise UsageError(Fault("twin.unreadable", {"file": name, "schema": SCHEMA}, name))
