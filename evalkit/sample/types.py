"""Who enters which risk set when: the sample as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import Days
from evalkit.design import Design, Factor, cut_factor, integer_factor
from evalkit.errors import DataError, DesignError, Fault
from evalkit.hashing import Hash
from evalkit.register.schema import Check
from evalkit.sample.changing import Changing, Fill
from evalkit.sample.history import AnyDays
from evalkit.sample.instruments import Instruments
from evalkit.study import Study

if TYPE_CHECKING:
    from evalkit.sample.panels import PanelData, Period

Array = NDArray[np.float64]
Among = NDArray[np.bool_] | None

NO_START = np.int32(2**30)


@dataclass(frozen=True)
class FlowRow:
    """One step of the flow: ``start``, ``out`` (with the reason) or ``left``; out and left rows add up to start.

    ``arm``: ``treated`` or ``comparison``; where several instruments are compared their names, and ``wait``.
    """

    step: int
    arm: str
    kind: Literal["start", "out", "left"]
    reason: str
    persons: int
    entries: int


@dataclass(frozen=True)
class People:
    """One row a person (P), sorted by id.

    ``key``: keyed hash. ``cluster``: the level at which starting was decided. ``numeric``/``factors``: covariates known
    before every time zero; ``birth_year`` (NaN unknown) makes age, which moves with time zero. ``groups``: subgroups
    that are no factor among the covariates. Covariates that change stand in ``Sample.changing``.
    """

    ids: NDArray[np.object_]
    key: Hash
    cluster: NDArray[np.int64]
    cluster_level: str
    numeric: Array
    numeric_names: tuple[str, ...]
    factors: tuple[Factor, ...]
    birth_year: Array
    groups: tuple[Factor, ...] = ()


@dataclass(frozen=True)
class Entries:
    """Person x spell x time zero, (n,) each. ``follow_up``: potential follow-up in months."""

    person: NDArray[np.int32]
    spell: NDArray[np.int32]
    arm: NDArray[np.int8]
    elapsed: NDArray[np.int16]
    time_zero: NDArray[np.int32]
    quarter: NDArray[np.int16]
    follow_up: NDArray[np.int16]
    own_start_after: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.person)

    def take(self, rows: NDArray[np.int64] | slice) -> Entries:
        """Some of the entries."""
        return Entries(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


class Outcomes(Protocol):
    """Outcome paths of entries: values (n, K) and whether they are observed (n, K)."""

    def paths(self, name: str, entries: Entries, horizon: int) -> tuple[Array, NDArray[np.bool_]]:
        """Values and observed for months 1..horizon."""
        ...

    def has_history(self, name: str) -> bool:
        """Whether the outcome exists before time zero."""
        ...

    def before(self, name: str, entries: Entries, day: AnyDays, months: int) -> tuple[Array, NDArray[np.bool_]]:
        """Values and observed in the months before a day of each entry, oldest first."""
        ...


class Panels(Protocol):
    """Where panels of a study come from; :class:`Sample` passes its calls on, see there."""

    def panel(self, outcome: str, unit: str, period: Period, traits: bool, among: Among) -> PanelData:
        """Units over periods."""
        ...

    def cross_sections(self, outcome: str, months: int, group: str, period: Period, among: Among) -> PanelData:
        """Those who enter, by period of entry."""
        ...


@dataclass(frozen=True)
class MultiArm:
    """Several instruments side by side, each person in the arm of the instrument that he starts first.

    Attributes
    ----------
    names: by arm code its name: ``wait``, then the instruments, the one that is evaluated first.
    sample: risk sets whose entries have arm 0 while none of the instruments has been started, and arm j in the month
        in which instrument j is, as the first of them in the spell. Its flow counts each arm under its name.
    """

    names: tuple[str, ...]
    sample: Sample


@dataclass(frozen=True)
class Sample:
    """Risk sets, outcomes and the flow of people; what every method starts from.

    ``entries`` are stored by elapsed month and within a month by (person, spell, time zero). They are compact:
    covariates stand once a person, outcome paths are worked out for the entries a method asks for.

    Attributes
    ----------
    study: the protocol it was cut by.
    source: ``register``, ``table`` or ``panel`` (a ready panel file).
    people, entries: see there.
    outcomes: gives paths by name.
    horizon: months of follow-up asked for; ``follow_up``: ``complete`` or ``available``.
    flow: steps that add up, by arm.
    convention: how starts and exits in the same month are ordered.
    alternative: with month-only data, the same sample under the other convention.
    checks: what was joined in the spells and what the jobs lack, counted.
    changing: covariates that change over time; ``months_begin``: with month-only data the first day of each spell.
    instruments: every instrument of the study with its episodes; None for a table.
    several: the same people by the instrument that they start first, where the study names ``others``.
    panels: gives panels; None for a table. A study of which every analysis works on panels has no entries: ``entries``
        is empty, and in ``flow`` an entry is a person.
    """

    study: Study
    source: Literal["register", "table", "panel"]
    people: People
    entries: Entries
    outcomes: Outcomes
    horizon: int
    follow_up: Literal["complete", "available"]
    flow: tuple[FlowRow, ...]
    age: bool
    time_names: tuple[str, ...] = ("elapsed", "quarter")
    convention: str = "dates"
    alternative: Sample | None = None
    checks: tuple[Check, ...] = ()
    changing: Changing = Changing()
    months_begin: Days | None = None
    instruments: Instruments | None = None
    several: MultiArm | None = None
    panels: Panels | None = field(default=None, repr=False, compare=False)

    def panel(
        self,
        outcome: str,
        *,
        unit: str | None = None,
        period: Period = "month",
        traits: bool = False,
        among: Among = None,
    ) -> PanelData:
        """A panel of one outcome: units over calendar periods, with the period in which each was first treated.

        Parameters
        ----------
        outcome: a name of the study. ``durable:`` and ``return:`` outcomes have no panel.
        unit: ``person`` or a column of persons; without, ``treatment.unit``. A unit may lie below the one that adopts
            (persons of teams), not above it. With a ready panel file unit, period and traits are those of the file.
        traits: also the mean of each covariate among those on benefit in each row's period: whom a unit consists of.
        among: (P,) only these of ``people``: a subgroup.

        Raises
        ------
        DataError
            ``shapes.unknown_outcome``, ``shapes.unknown_column``, ``shapes.no_period``, ``sample.no_jobs``,
            ``did.unit_mixed``, and those of ``evalkit.did.frame.panel_from_frame``.
        DesignError
            ``did.no_panel`` for a table; those of ``panel_from_frame``.
        """
        if self.panels is None:
            raise DesignError(Fault("did.no_panel", {"source": self.source}))
        return self.panels.panel(outcome, unit or self.study.treatment.unit, period, traits, among)

    def cross_sections(
        self,
        outcome: str,
        *,
        months: int,
        group: str | None = None,
        period: Period = "quarter",
        among: Among = None,
    ) -> PanelData:
        """Repeated cross-sections of inflow: those who enter, by the period in which they do.

        A row is a benefit spell that begins within the window, its outcome that ``months`` months after entry (an event
        by then, a state at that close, an amount summed until then), its first treated period that of its group: who
        enters from then on is treated. Clusters are groups. ``eligibility`` is judged on the day of entry, and only
        spells that can be followed so long take part.

        Parameters
        ----------
        months: at least 1.
        group: a column of persons; without, ``treatment.unit``.

        Raises
        ------
        DataError, DesignError
            As :meth:`panel`; ``did.inflow_person`` when the group is a person, ``did.inflow_months`` when nobody can be
            followed so long, ``did.inflow_register`` for a ready panel file.
        """
        if self.panels is None:
            raise DesignError(Fault("did.no_panel", {"source": self.source}))
        return self.panels.cross_sections(outcome, months, group or self.study.treatment.unit, period, among)

    @cached_property
    def months(self) -> NDArray[np.int16]:
        """Elapsed months that have entries."""
        return np.unique(self.entries.elapsed)

    def risk_set(self, elapsed: int) -> Entries:
        """Starters in one elapsed month and those at risk in it who have not started."""
        first, last = np.searchsorted(self.entries.elapsed, [elapsed, elapsed + 1])
        return self.entries.take(slice(int(first), int(last)))

    def outcome(self, name: str, entries: Entries) -> tuple[Array, NDArray[np.bool_]]:
        """Outcome path (n, K) for months 1..horizon and whether each month is observed."""
        return self.outcomes.paths(name, entries, self.horizon)

    def has_history(self, name: str) -> bool:
        """Whether an outcome exists before time zero: states and amounts do, what happens to a spell does not."""
        return self.outcomes.has_history(name)

    def before(self, name: str, entries: Entries, months: int) -> tuple[Array, NDArray[np.bool_]]:
        """An outcome in the months before time zero: values (n, M) and whether each month is observed, oldest first.

        Column j is month j - M: month -m covers [d - m months, d - (m - 1) months), so that the last column, month -1,
        ends on the day before d. Here d is time zero; with month-only data it is the first day of the elapsed month
        (see :meth:`known_day`). Nothing that begins on d or later counts. A month is observed when it lies within the
        window of the data; values elsewhere are 0.

        Parameters
        ----------
        name: an outcome for which :meth:`has_history` holds.
        months: M, at least 1; with a table, periods.

        Raises
        ------
        DesignError
            ``design.no_history`` when the outcome does not exist before time zero.
        """
        if not self.has_history(name):
            raise DesignError(Fault("design.no_history", {"outcome": name}))
        if months < 1:
            raise ValueError("before: at least one month")
        return self.outcomes.before(name, entries, self.known_day(entries), months)

    def ages(self, entries: Entries) -> Array:
        """Age in whole years at time zero: calendar year less year of birth."""
        return calendar.year(entries.time_zero) - self.people.birth_year[entries.person]

    def known_day(self, entries: Entries) -> AnyDays:
        """The day before which a covariate that changes must have been known.

        It is time zero; with month-only data the first day of the elapsed month, since what came first within it,
        change or start, is not known.
        """
        if self.months_begin is None:
            return entries.time_zero
        return calendar.add_months(self.months_begin[entries.spell], entries.elapsed)

    @cached_property
    def _fills(self) -> dict[str, Fill]:
        """By numeric covariate that changes, what stands in where it was not known; the same for all entries."""
        day = self.known_day(self.entries)
        return {name: self.changing.fill(name, self.entries.person, day) for name in self.changing.numeric}

    def _changing_numbers(self, entries: Entries, day: AnyDays) -> tuple[list[Array], tuple[str, ...]]:
        """Columns of the numeric covariates that change, each with an indicator where some entry lacks it."""
        columns, names = [], []
        for name in self.changing.numeric:
            values, fill = self.changing.covariates[name].numbers(entries.person, day), self._fills[name]
            columns.append(np.where(np.isnan(values), fill.at(day), values))
            names.append(name)
            if fill.gaps:
                columns.append(np.isnan(values).astype(float))
                names.append(f"{name}:missing")
        return columns, tuple(names)

    def design(self, entries: Entries, *, time: bool = True) -> Design:
        """Covariates of entries; ``time`` adds dummies for elapsed month and calendar quarter where they vary.

        Raises
        ------
        DataError
            ``sample.covariate_empty`` when nobody's age is known.
        """
        own = self.ages(entries)[:, None] if self.age else np.empty((len(entries), 0))
        names: tuple[str, ...] = ("age",) if self.age else ()
        if self.age and np.isnan(own).any():
            unknown = np.isnan(own)
            if unknown.all():
                raise DataError(Fault("sample.covariate_empty", {"column": "age"}))
            own = np.column_stack([np.where(unknown, np.nanmean(own), own), unknown.astype(float)])
            names = ("age", "age:missing")
        changed: tuple[Factor, ...] = ()
        if self.changing.covariates:
            day = self.known_day(entries)
            columns, more = self._changing_numbers(entries, day)
            own, names = np.column_stack([own, *columns]), names + more
            for covariate in (self.changing.covariates[name] for name in self.changing.categorical):
                changed += (Factor(covariate.name, covariate.levels, covariate.codes(entries.person, day)),)
        rows: tuple[Factor, ...] = ()
        if time:
            for name in self.time_names:
                made = integer_factor(name, getattr(entries, name))
                if len(made.levels) > 1:
                    rows += (made,)
        people = self.people
        return Design(entries.person, people.numeric, people.numeric_names, own, names, people.factors, changed, rows)

    def group(self, name: str, cuts: tuple[float, ...], entries: Entries) -> Factor:
        """Subgroup of entries: a column of people, a covariate that changes, or age at time zero cut at ``cuts``."""
        if name == "age" and self.source == "register":
            return cut_factor(name, self.ages(entries), cuts)
        if name in self.changing:
            return self.changing.group(name, cuts, entries.person, self.known_day(entries))
        known = {f.name: f for f in self.people.factors + self.people.groups}[name]
        return Factor(name, known.levels, known.codes[entries.person])
