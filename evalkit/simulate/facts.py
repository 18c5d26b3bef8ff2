"""A register as the counting sees it: spells, exits and starts by person."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days
from evalkit.errors import Fault, UsageError
from evalkit.register import UNKNOWN, Register
from evalkit.sample.changing import Changing, read_changing
from evalkit.sample.instruments import Episodes, Instruments, read_instruments
from evalkit.sample.merging import merge_benefits
from evalkit.sample.spells import Intervals, Spells, attach_starts, locator
from evalkit.study import Study
from evalkit.study.outcome_source import read_source

Ints = NDArray[np.int64]


def refuse(study: Study) -> None:
    """Refuse a study whose data a twin cannot be made of.

    Raises
    ------
    UsageError
        ``twin.ready_table``, ``twin.tables``, ``twin.instrument``.
    """
    faults = []
    if study.data is None:
        faults.append(Fault("twin.ready_table", {}, "table"))
    else:
        if study.data.areas:
            areas = ", ".join(f"areas.{name}" for name in study.data.areas)
            faults.append(Fault("twin.tables", {"tables": areas}, "data.areas"))
        if study.instrument(study.treatment.instrument).derived:
            faults.append(Fault("twin.instrument", {"name": study.treatment.instrument}, "treatment.instrument"))
    if faults:
        raise UsageError(faults)


def target_reason(study: Study) -> str:
    """The reason of exit that the effect works on: that of the first outcome with one, else the first of the codes.

    Empty when the study has no reasons: the effect then works on every exit.
    """
    assert study.data is not None
    known = list(study.data.benefits.codes.get("reason", {}))
    for outcome in sorted(study.outcomes, key=lambda outcome: not outcome.primary):
        source = read_source(outcome.source)
        if source is not None and source.family in ("exit", "durable") and source.which in known:
            return source.which
    return known[0] if known else ""


@dataclass(frozen=True)
class Facts:
    """Spells and episodes by person.

    Attributes
    ----------
    kind: for every spell the kind of exit within the window (place in ``EXITS``), -1 while it runs.
    target: the reason that is the first kind; empty when every exit is.
    first: the first spell of every person who has one.
    first_day, last_day: of the window.
    """

    study: Study
    persons: dict[str, Any]
    changing: Changing
    spells: Spells
    instruments: Instruments
    kind: Ints
    target: str
    first: Ints
    first_day: int
    last_day: int

    @classmethod
    def read(cls, study: Study, register: Register) -> Facts:
        """The facts of a register."""
        persons, benefits = register.arrays("persons"), register.arrays("benefits")
        of = locator(persons["person"])
        merged = merge_benefits(study, benefits, persons, of)
        held = Intervals(merged.person, merged.start, merged.end)
        instruments = read_instruments(study, register.arrays("episodes"), of, held)
        first_day, last_day = (calendar.day_number(day) for day in register.window)
        own = instruments[study.treatment.instrument]
        spells = attach(merged, own, own.day)
        target = target_reason(study)
        names = np.array([*spells.reasons], object)[spells.reason]
        kind = np.where(names == UNKNOWN, 2, 1)
        kind[(names == target) if target else np.ones(len(names), bool)] = 0
        kind[spells.end > last_day] = -1
        first = np.flatnonzero(np.append(True, spells.person[1:] != spells.person[:-1])[: len(spells.person)])
        changing = read_changing(study, register, persons, of)
        return cls(study, persons, changing, spells, instruments, kind, target, first, first_day, last_day)

    def with_kind(self, old: int, new: int) -> Facts:
        """The same with all exits of one kind counted as another."""
        return replace(self, kind=np.where(self.kind == old, new, self.kind))

    def of(self, ids: NDArray[Any]) -> Ints:
        """The row of persons for an array of ids."""
        return locator(self.persons["person"])(ids)

    @property
    def people(self) -> int:
        """Number of persons."""
        return len(self.persons["person"])

    @cached_property
    def entry(self) -> Days:
        """The first day on benefit within the window of every person; the window's first for who has none."""
        entry = np.full(self.people, self.first_day)
        entry[self.spells.person[self.first]] = self.seen[self.first]
        return entry

    def at_entry(self, name: str) -> NDArray[Any]:
        """The value of a covariate that changes, as known on everybody's first day."""
        covariate, person = self.changing.covariates[name], np.arange(self.people)
        if not covariate.levels:
            return covariate.numbers(person, self.entry + 1)
        return np.array([*covariate.levels[:-1], None], object)[covariate.codes(person, self.entry + 1)]

    @cached_property
    def seen(self) -> Days:
        """The first day of every spell within the window."""
        return np.maximum(self.spells.start, self.first_day)

    @cached_property
    def stop(self) -> Days:
        """The day after the last one on which a spell is seen."""
        return np.asarray(np.minimum(self.spells.end, self.last_day) + 1)

    @cached_property
    def reasons(self) -> NDArray[np.object_]:
        """The reason of every spell's end."""
        return np.array([*self.spells.reasons], object)[self.spells.reason]


def attach(merged: Any, own: Episodes, day: Days) -> Spells:
    """Spells with the first of some starts in each."""
    known = np.flatnonzero(day < NEVER)
    spells, _ = attach_starts(
        merged.person, merged.start, merged.end, merged.reason, merged.reasons, own.person[known], day[known]
    )
    return spells
