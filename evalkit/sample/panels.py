"""Panels of a study: units over calendar periods, from the register or from a ready file, with what falls out counted.

``docs/shapes.md`` defines the outcomes and units; ``docs/study-file.md`` says where adoption days stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER as NO_DAY
from evalkit.calendar import Days
from evalkit.design import Factor, cut_factor, factor
from evalkit.did.frame import PanelFrame, check_design, panel_from_frame, panel_notes, period_label
from evalkit.did.panel import Panel
from evalkit.effects import frozen
from evalkit.errors import DataError, DesignError, Fault
from evalkit.exhibits import Finding, Lost
from evalkit.hashing import hash_ids
from evalkit.register import Check, PanelTable, Register
from evalkit.register.schema import fields
from evalkit.sample.changing import Changing
from evalkit.sample.filling import fill_missing
from evalkit.sample.jobs import read_jobs
from evalkit.sample.levels import shown
from evalkit.sample.merging import merge_benefits
from evalkit.sample.outcomes import SpellOutcomes
from evalkit.sample.shapes.panel import LENGTH, Period, at_risk, whole_periods
from evalkit.sample.shapes.panel import panel as shape
from evalkit.sample.shapes.spells import first_starts
from evalkit.sample.spells import Spells, attach_starts, locator
from evalkit.sample.types import NO_START, Among, Entries, FlowRow, Panels, People, Sample
from evalkit.study import Study
from evalkit.study.model import PanelSpec
from evalkit.study.outcome_source import OutcomeSource, read_source

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Arm = Literal["treated", "comparison"]
Size = tuple[int, int, int]
"""Units, rows and persons."""

COUNTED = ("no_unit", "missing_covariate")
"""Reasons that the flow of a sample counts already, before any panel is made."""


@dataclass(frozen=True)
class PanelStep:
    """One step of the flow of a panel: ``start``, ``out`` (with the reason) or ``left``; units, rows, persons add up.

    ``arm``: ``treated`` (of a unit that adopts or starts before the data end) or ``comparison``. ``rows``: observations
    of a unit in a period. ``persons``: beneath the units.
    """

    step: int
    arm: Arm
    kind: Literal["start", "out", "left"]
    reason: str
    units: int
    rows: int
    persons: int


@dataclass(frozen=True)
class PanelData:
    """A panel with what a report needs beside it.

    Attributes
    ----------
    panel: what estimators take; units that were treated from the first period on are out. ``x`` holds covariates as
        known before the panel begins (a person's own; of a group the means of its persons), the same in every row of a
        unit; of cross-sections those of the person at entry; of a ready file its columns as they are. ``weight``:
        persons of the unit. ``person_rows``: persons beneath each row.
    outcome: its name in the study; ``unit``: ``person``, a column of persons, ``inflow``, or that of a ready file.
    labels: (T,) the periods as text: ``2019-04``, ``2019 Q2``, ``2019``, or the number itself.
    period_months: length of a period.
    persons: (N,) persons beneath each unit.
    flow: steps that add up, by arm.
    notes: findings about the data of the panel (gaps, cohorts of one unit, ...), sentences under ``finding.<code>``.
    traits: (n, Q) mean of each trait among those on benefit in a row's period, NaN where nobody is; None unless asked
        for. ``trait_names``: (Q,).
    """

    panel: Panel
    outcome: str
    unit: str
    labels: tuple[str, ...]
    period_months: int
    persons: Ints = field(repr=False)
    flow: tuple[PanelStep, ...] = ()
    notes: tuple[Finding, ...] = ()
    traits: Array | None = field(default=None, repr=False)
    trait_names: tuple[str, ...] = ()

    @property
    def lost(self) -> tuple[Lost, ...]:
        """Who falls out of the panel, as an analysis hands it to the sample's flow; an entry there is a person."""
        lost, left = [], 0
        for step in self.flow:
            left = step.persons if step.kind == "start" else left - step.persons if step.kind == "out" else left
            if step.kind == "out" and step.reason not in COUNTED:
                lost.append(Lost(step.arm, step.reason, left, left))
        return tuple(lost)


def _steps(arm: Arm, start: str, held: Size, outs: Sequence[tuple[str, Size]]) -> list[PanelStep]:
    """The flow of one arm: how much there is at the start, and after each reason."""
    steps = [PanelStep(0, arm, "start", start, *held)]
    for reason, now in outs:
        gone = (held[0] - now[0], held[1] - now[1], held[2] - now[2])
        if any(gone):
            steps.append(PanelStep(len(steps), arm, "out", reason, *gone))
        held = now
    return [*steps, PanelStep(len(steps), arm, "left", "left", *held)]


# -- from the register ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Units:
    """Persons by unit. code: (P,) of ``ids``, -1 without one; day: (N,) on which it adopted, ``NO_DAY`` if never."""

    ids: NDArray[np.str_]
    code: Ints
    day: Days


@dataclass(frozen=True)
class RegisterPanels:
    """Panels of a register. ``usable``: (P,) who has every covariate, where those who lack one do not take part."""

    study: Study
    register: Register
    people: People
    usable: Mask
    changing: Changing
    barred: Mapping[str, Mask]

    @property
    def _window(self) -> tuple[int, int]:
        first, last = (calendar.day_number(day) for day in self.register.window)
        return first, last

    @cached_property
    def _persons(self) -> dict[str, NDArray[Any]]:
        return self.register.arrays("persons")

    def _codes(self, column: str) -> tuple[NDArray[np.str_], Ints]:
        """Names of the values of a column of persons, sorted, and the code of each person's; -1 for none."""
        known = [name for name in self._persons if name in _mapped(self.study)]
        if column not in known:
            raise DataError(Fault("shapes.unknown_column", {"name": column, "valid": ", ".join(sorted(known))}))
        values = self._persons[column]
        absent = np.asarray(pd.isna(values), bool)
        names, code = np.unique(values[~absent].astype(str), return_inverse=True)
        found = np.full(len(values), -1, np.int64)
        found[~absent] = code
        return names, found

    @cached_property
    def _adopters(self) -> Units:
        """Persons by the unit that adopts."""
        names, code = self._codes(self.study.treatment.unit)
        day = np.full(len(names), NO_DAY)
        if self.study.treatment.adopts:
            places = {str(name): i for i, name in enumerate(names)}
            for name, adopted in self.register.adopted.items():
                if name in places:
                    day[places[name]] = calendar.day_number(adopted)
        else:
            starts = first_starts(self.register, self.study).select("place", "on").collect("pyarrow").to_native()
            place = starts.column("place").to_numpy().astype(np.int64)
            on = calendar.to_days(starts.column("on").to_numpy())
            own = code[place]
            np.minimum.at(day, own[own >= 0], on[own >= 0])
        return Units(names, code, day)

    def checks(self) -> tuple[Check, ...]:
        """Units with a day of adoption that no person belongs to, as one check."""
        unknown = len(set(self.register.adopted) - set(self._adopters.ids.tolist()))
        if not unknown:
            return ()
        share = unknown / len(self.register.adopted)
        params = {"column": self.study.treatment.unit}
        return (Check("adopted_unknown", "warn", "persons", unknown, share, params, "codes"),)

    def units(self, column: str) -> Units:
        """Persons by unit, with the day on which the unit's adopter did.

        Raises
        ------
        DataError
            ``did.unit_mixed`` when persons of one unit belong to adopters with different days.
        """
        adopters = self._adopters
        if column == self.study.treatment.unit:
            return adopters
        names, code = self._codes(column)
        whom = np.flatnonzero((code >= 0) & (adopters.code >= 0))
        unit, day = code[whom], adopters.day[adopters.code[whom]]
        first, last = np.full(len(names), NO_DAY), np.full(len(names), -NO_DAY)
        np.minimum.at(first, unit, day)
        np.maximum.at(last, unit, day)
        if mixed := int(((last > first) & (last > -NO_DAY)).sum()):
            params = {"unit": column, "adopter": self.study.treatment.unit, "count": mixed}
            raise DataError(Fault("did.unit_mixed", params))
        code[adopters.code < 0] = -1
        return Units(names, code, first)

    def flow(self) -> tuple[FlowRow, ...]:
        """Persons by whether their unit adopts before the data end, less those who take part in no panel."""
        adopters = self._adopters
        arm = self._arm(adopters.day, adopters.code)
        rows = []
        for name, own in (("treated", arm), ("comparison", ~arm)):
            count, number = int(own.sum()), 0
            rows.append(FlowRow(0, name, "start", "all_persons", count, count))
            for reason, out in (("no_unit", adopters.code < 0), ("missing_covariate", ~self.usable)):
                gone = int((own & out).sum())
                own = own & ~out
                if gone:
                    number += 1
                    rows.append(FlowRow(number, name, "out", reason, gone, gone))
            rows.append(FlowRow(number + 1, name, "left", "left", int(own.sum()), int(own.sum())))
        return tuple(rows)

    def _arm(self, day: Days, code: Ints) -> Mask:
        """(P,) whether the unit of each person adopts before the data end."""
        return np.asarray((code >= 0) & (day[code] <= self._window[1])) if len(day) else np.zeros(len(code), bool)

    def panel(self, outcome: str, unit: str, period: Period, traits: bool, among: Among) -> PanelData:
        """See :meth:`evalkit.sample.types.Sample.panel`."""
        units = self.units(unit)
        everyone = np.ones(len(units.code), bool) if among is None else np.asarray(among, bool)
        chosen = everyone & self.usable
        found = _columns(
            shape(
                self.register, self.study, outcome, unit=unit, period=period, adopter=self.study.treatment.unit,
                adopted=self.register.adopted if self.study.treatment.adopts else None,
                among=None if chosen.all() else chosen, persons=True,
            )
        )  # fmt: skip
        held, code = _coded(found["unit"])
        place = np.searchsorted(units.ids, held.astype(units.ids.dtype))[code]
        first_day = int(calendar.to_days(found["begins"]).min(initial=NO_DAY))
        size = len(units.ids)
        beneath = np.bincount(units.code[chosen & (units.code >= 0)], minlength=size)
        x, names = self._covariates(units, chosen, first_day, size)
        if not len(place):
            raise DesignError(Fault("did.nobody_at_risk", {}))
        clusters, cluster = _coded(found["cluster"])
        panel = Panel.of(
            place, found["period"], found["outcome"], found["first_treated"], weight=beneath[place], x=x[place],
            names=names, cluster=cluster, level=self._level(unit),
        )  # fmt: skip
        panel = replace(
            panel, ids=units.ids[panel.ids], cluster_ids=clusters[panel.cluster_ids],
            person_rows=None if unit == "person" else found["persons"].astype(np.int64),
        )  # fmt: skip
        check_design(panel)
        notes = panel_notes(panel)
        kept, always = panel.without_always_treated()
        begun = np.isin(units.ids, panel.ids[always])
        rows = np.bincount(place, minlength=size)
        at_start = np.bincount(units.code[everyone & (units.code >= 0)], minlength=size)
        flow = self._flow(units, everyone, chosen, at_start > 0, rows, begun)
        length = LENGTH[period]
        base = int(calendar.month_number(first_day)) // length - int(found["period"].min())
        labels = tuple(period_label(base + int(number), length) for number in kept.periods)
        at = np.searchsorted(units.ids, kept.ids.astype(units.ids.dtype))
        data = PanelData(kept, outcome, unit, labels, length, frozen(beneath[at], np.int64), flow, notes)
        return self._with_traits(data, units, chosen, period, base) if traits else data

    def _level(self, unit: str) -> str:
        """What the clusters are."""
        cluster = self.study.treatment.cluster
        return cluster if cluster != "person" else self.study.treatment.unit

    def _flow(
        self, units: Units, everyone: Mask, chosen: Mask, exists: Mask, rows: Ints, begun: Mask
    ) -> tuple[PanelStep, ...]:
        """The flow of a panel: persons without a unit first, then units, to which a person belongs."""
        size = len(units.ids)
        treated = units.day <= self._window[1]
        homeless = int((everyone & (units.code < 0)).sum())
        people = np.bincount(units.code[everyone & (units.code >= 0)], minlength=size)
        left = np.bincount(units.code[chosen & (units.code >= 0)], minlength=size)
        steps: list[PanelStep] = []
        arms: tuple[tuple[Arm, Mask, int], ...] = (
            ("treated", treated & exists, 0),
            ("comparison", ~treated & exists, homeless),
        )
        for arm, own, nobody in arms:
            able, seen = own & (left > 0), own & (left > 0) & (rows > 0)
            outs = (("no_unit", own, people), ("missing_covariate", able, left), ("never_at_risk", seen, left),
                    ("treated_before_window", seen & ~begun, left))  # fmt: skip
            sized = [(reason, _size(stays, rows, counted)) for reason, stays, counted in outs]
            start = _size(own, rows, people)
            steps += _steps(arm, "all_units", (start[0], start[1], start[2] + nobody), sized)
        return tuple(steps)

    def _traits_of(self, person: Ints, day: Days) -> tuple[Array, tuple[str, ...]]:
        """Covariates of persons as known before a day each, (m, Q): numbers, shares of levels, age that year."""
        people, changing = self.people, self.changing
        columns: list[Array] = [people.numeric[person, j] for j in range(people.numeric.shape[1])]
        names = list(people.numeric_names)
        numbers = []
        if "age" in self.study.covariates.numeric:
            numbers.append(("age", calendar.year(day) - people.birth_year[person]))
        numbers += [(name, changing.covariates[name].numbers(person, day)) for name in changing.numeric]
        for name, values in numbers:
            gap = np.isnan(values)
            if gap.all():
                raise DataError(Fault("sample.covariate_empty", {"column": name}))
            columns.append(np.where(gap, np.nanmean(values), values))
            names.append(name)
            if gap.any():
                columns.append(gap.astype(float))
                names.append(f"{name}:missing")
        factors = [Factor(made.name, made.levels, made.codes[person]) for made in people.factors]
        factors += [changing.group(name, (), person, day) for name in changing.categorical]
        for made in factors:
            for j, level in enumerate(made.levels[1:], 1):
                columns.append((made.codes == j).astype(float))
                names.append(f"{made.name}:{level}")
        wide = np.column_stack(columns) if columns else np.empty((len(person), 0))
        return wide, tuple(names)

    def _covariates(self, units: Units, chosen: Mask, first_day: int, size: int) -> tuple[Array, tuple[str, ...]]:
        """Means of the covariates of each unit's persons (N, Q), as known before the panel begins."""
        whom = np.flatnonzero(chosen & (units.code >= 0))
        if not len(whom):
            return np.empty((size, 0)), ()
        values, names = self._traits_of(whom, np.full(len(whom), first_day))
        return _means(values, units.code[whom], size)[0], names

    def _with_traits(self, data: PanelData, units: Units, chosen: Mask, period: Period, base: int) -> PanelData:
        """The data with the means of traits among those on benefit in each row's period."""
        found = _columns(at_risk(self.register, self.study, data.outcome, period).sort("place", "period"))
        place, when = found["place"].astype(np.int64), found["period"].astype(np.int64)
        use = chosen[place] & (units.code[place] >= 0)
        place, when = place[use], when[use]
        panel = data.panel
        position = np.full(len(units.ids), -1, np.int64)
        position[np.searchsorted(units.ids, panel.ids.astype(units.ids.dtype))] = np.arange(panel.units)
        unit = position[units.code[place]]
        wide = int(max(panel.periods[-1], when.max(initial=0))) + 1
        rows, asked = panel.unit * wide + panel.period, unit * wide + when
        at = np.minimum(np.searchsorted(rows, asked), len(rows) - 1)
        at = np.where((unit >= 0) & (rows[at] == asked), at, -1)
        inside = at >= 0
        begins = calendar.month_start((base + when[inside]) * LENGTH[period])
        values, names = self._traits_of(place[inside], begins)
        means, count = _means(values, at[inside], len(panel))
        means[count == 0] = np.nan
        return replace(data, traits=frozen(means), trait_names=names)

    def cross_sections(self, outcome: str, months: int, group: str, period: Period, among: Among) -> PanelData:
        """See :meth:`evalkit.sample.types.Sample.cross_sections`."""
        if group == "person" or self.study.treatment.unit == "person":
            raise DesignError(Fault("did.inflow_person", {}))
        if months < 1:
            raise ValueError("cross-sections: at least one month")
        units = self.units(group)
        spells, outcomes = self._spells
        source = self._sources.get(outcome)
        if source is None:
            valid = ", ".join(self._sources)
            raise DataError(Fault("shapes.unknown_outcome", {"name": outcome, "valid": valid}))
        first, last = self._window
        length = LENGTH[period]
        low, high = whole_periods(self.register, period)
        ahead = months + source.look_ahead(self.study.spells.merge_gap_months)
        person, start = spells.person, spells.start
        number = calendar.month_number(start) // length
        closing = calendar.month_start((number + 1) * length) - 1
        followed = calendar.add_months(closing, ahead) <= last + 1
        unit = units.code[person]
        day = np.where(unit >= 0, units.day[unit], NO_DAY)
        begun = (day < NO_DAY) & (calendar.month_number(np.minimum(day, last)) // length <= low)
        everyone = np.ones(len(self.people.ids), bool) if among is None else np.asarray(among, bool)
        inflow = np.flatnonzero((start >= first) & (start <= last) & everyone[person])
        steps = [
            ("no_unit", unit < 0),
            ("missing_covariate", ~self.usable[person]),
            *self._ineligible(spells),
            ("part_of_a_period", (number < low) | (number > high)),
            ("follow_up", ~followed),
            ("treated_before_window", begun),
        ]
        treated = (unit >= 0) & (day <= last)
        flow = _spell_flow(inflow, person, treated, steps)
        usable = inflow[~np.any([mask[inflow] for _, mask in steps[:-1]], axis=0)]
        if not len(usable):
            raise DesignError(Fault("did.inflow_months", {"months": months}))
        y = self._after(outcomes, outcome, source, spells, usable, months)
        values, names = self._traits_of(person[usable], start[usable])
        adopted = np.maximum(calendar.month_number(np.minimum(day, last)) // length, low) - low + 1
        adopted = np.where(day <= last, adopted, 0)
        panel = Panel.of(
            usable, number[usable] - low + 1, y, adopted[usable], x=values, names=names,
            cluster=units.ids[unit[usable]], level=group, repeated=True,
        )  # fmt: skip
        check_design(panel)
        notes = panel_notes(panel)
        kept, _ = panel.without_always_treated()
        labels = tuple(period_label(low - 1 + int(at), length) for at in kept.periods)
        return PanelData(kept, outcome, "inflow", labels, length, np.ones(kept.units, np.int64), flow, notes)

    @cached_property
    def _sources(self) -> dict[str, OutcomeSource]:
        found = {outcome.name: read_source(outcome.source) for outcome in self.study.outcomes}
        return {name: source for name, source in found.items() if source is not None}

    @cached_property
    def _spells(self) -> tuple[Spells, SpellOutcomes]:
        """Benefit spells and what comes after their entry; starts of instruments are left out."""
        study, register = self.study, self.register
        of = locator(self._persons["person"])
        merged = merge_benefits(study, register.arrays("benefits", places=True), self._persons, of)
        nothing = np.empty(0, np.int64)
        spells, _ = attach_starts(
            merged.person, merged.start, merged.end, merged.reason, merged.reasons, nothing, nothing
        )
        jobs = None
        if register.jobs is not None:
            jobs = read_jobs(study, register.arrays("jobs", places=True), of, self._window[1])
        elif any(source.needs_jobs for source in self._sources.values()):
            raise DataError(Fault("sample.no_jobs"))
        gap = study.spells.merge_gap_months
        return spells, SpellOutcomes(spells, jobs, self._sources, gap, self._window[0])

    def _ineligible(self, spells: Spells) -> list[tuple[str, Mask]]:
        """Eligibility on the day of entry: age, earlier spells, and values that keep people out."""
        rules, person, start = self.study.eligibility, spells.person, spells.start
        steps: list[tuple[str, Mask]] = []
        if rules.earlier_spells is not None:
            low, high = rules.earlier_spells
            steps.append(("earlier_spells", (spells.earlier < low) | (spells.earlier > high)))
        if rules.age is not None:
            age = calendar.year(start) - self.people.birth_year[person]
            steps.append(("age", ~((age >= rules.age[0]) & (age <= rules.age[1]))))
        for name, values in rules.exclude.items():
            known = self.changing.one_of(name, values, person, start) if name in self.changing else None
            steps.append((f"excluded_by_value:{name}", self.barred[name][person] if known is None else known))
        return steps

    def _after(
        self, outcomes: SpellOutcomes, name: str, source: OutcomeSource, spells: Spells, rows: Ints, months: int
    ) -> Array:
        """The outcome so many months after the entry of some spells; an amount is summed."""
        size = len(rows)
        zero = spells.start[rows]
        seen = np.minimum(calendar.whole_months(zero, np.int64(self._window[1] + 1)), 32_000)
        entries = Entries(
            person=spells.person[rows].astype(np.int32),
            spell=rows.astype(np.int32),
            arm=np.zeros(size, np.int8),
            elapsed=np.zeros(size, np.int16),
            time_zero=zero.astype(np.int32),
            quarter=calendar.quarter_number(zero).astype(np.int16),
            follow_up=seen.astype(np.int16),
            own_start_after=np.full(size, NO_START, np.int32),
        )
        values, _ = outcomes.paths(name, entries, months)
        return values.sum(axis=1) if source.kind == "flow" else values[:, -1]


def _size(stays: Mask, rows: Ints, persons: Ints) -> Size:
    return int(stays.sum()), int(rows[stays].sum()), int(persons[stays].sum())


def _mapped(study: Study) -> set[str]:
    """Columns of persons that the study maps."""
    return {column.name for column in fields(study, "persons") if column.own}


def _columns(frame: Any) -> dict[str, Any]:
    """A lazy frame as arrays; texts stay in arrow, see :func:`_coded`."""
    table: pa.Table = frame.collect("pyarrow").to_native()
    columns = {name: table.column(name) for name in table.column_names}
    return {name: one if pa.types.is_string(one.type) else one.to_numpy() for name, one in columns.items()}


def _coded(column: Any) -> tuple[NDArray[np.str_], Ints]:
    """The different texts of a column, sorted, and which of them each row has; no object is made for a row."""
    words = column.combine_chunks().dictionary_encode()
    names = np.array(words.dictionary.to_pylist(), str)
    order = np.argsort(names)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return names[order], rank[words.indices.to_numpy(zero_copy_only=False).astype(np.int64)]


def _means(values: Array, at: Ints, size: int) -> tuple[Array, Ints]:
    """Means of rows by where they belong (size, Q), in a fixed order of sums, and how many rows each has."""
    count = np.bincount(at, minlength=size)
    total = np.column_stack([np.bincount(at, column, minlength=size) for column in values.T]) if values.size else None
    if total is None:
        return np.zeros((size, values.shape[1])), count
    return total / np.maximum(count, 1)[:, None], count


def _spell_flow(rows: Ints, person: Ints, treated: Mask, steps: Sequence[tuple[str, Mask]]) -> tuple[PanelStep, ...]:
    """The flow of spells: each is a unit and a row; a person falls out with the last of his spells."""
    flow: list[PanelStep] = []
    arms: tuple[tuple[Arm, Mask], ...] = (("treated", treated[rows]), ("comparison", ~treated[rows]))
    for arm, own in arms:
        left = rows[own]
        start, outs = _spell_size(left, person), []
        for reason, mask in steps:
            left = left[~mask[left]]
            outs.append((reason, _spell_size(left, person)))
        flow += _steps(arm, "all_entries", start, outs)
    return tuple(flow)


def _spell_size(left: Ints, person: Ints) -> Size:
    return len(left), len(left), len(np.unique(person[left]))


# -- from a ready file ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadyPanels:
    """Panels of a ready file. ``unit_of``: (rows of the file) the row of people, -1 without a unit."""

    study: Study
    table: PanelTable
    people: People
    unit_of: Ints

    @property
    def _spec(self) -> PanelSpec:
        assert self.study.panel is not None
        return self.study.panel

    @cached_property
    def _frame(self) -> tuple[pd.DataFrame, list[str]]:
        """The columns as a frame in which covariates have no gaps when a gap is a category, and the covariates."""
        columns: dict[str, Any] = dict(self.table.columns)
        covariates = self.study.covariates
        category = covariates.missing == "category"
        names = []
        for name in covariates.numeric:
            filled, labels = (
                fill_missing(columns[name][:, None], [name]) if category else (columns[name][:, None], [name])
            )
            for j, label in enumerate(labels):
                columns[f"__{label}"] = filled[:, j]
                names.append(f"__{label}")
        for name in covariates.categorical:
            made = shown(self.study, factor(name, columns[name]))
            level = np.array(made.levels, object)[made.codes]
            columns[f"__{name}"] = (
                level if category else np.where(pd.isna(columns[name]), np.array(None, object), level)
            )
            names.append(f"__{name}")
        return pd.DataFrame(columns), names

    def read(self, outcome: str, among: Among = None) -> tuple[PanelFrame, Mask]:
        """One outcome as a panel, and which rows of the file it was made from."""
        spec = self._spec
        if outcome not in spec.outcomes:
            params = {"name": outcome, "valid": ", ".join(spec.outcomes)}
            raise DataError(Fault("shapes.unknown_outcome", params, "panel"))
        frame, names = self._frame
        rows = np.ones(len(frame), bool) if among is None else (self.unit_of >= 0) & among[self.unit_of]
        found = panel_from_frame(
            frame[rows].reset_index(drop=True), unit=spec.unit, period=spec.period, outcome=spec.outcomes[outcome],
            first_treated=spec.first_treated or None, treated=spec.treated or None, cluster=spec.cluster or None,
            weight=spec.weight or None, persons=spec.persons or None, covariates=names, repeated=spec.repeated,
        )  # fmt: skip
        own = tuple(name.removeprefix("__") for name in found.panel.names)
        return replace(found, panel=replace(found.panel, names=own)), rows

    def period_months(self, found: PanelFrame) -> int:
        """Months in a period: dates and years tell it, otherwise the study does.

        Raises
        ------
        DataError
            ``did.period_months``, ``did.period_months_differ``.
        """
        given, told = self._spec.period_months, found.period_months
        if told is None and (found.panel.periods >= 1900).all() and (found.panel.periods < 2200).all():
            told = 12
        if given is not None and told is not None and given % told:
            params = {"given": given, "found": told}
            raise DataError(Fault("did.period_months_differ", params, "panel.period_months"))
        if given is None and told is None:
            raise DataError(Fault("did.period_months", {"column": self._spec.period}, "panel.period_months"))
        return given or told or 1

    def panel(self, outcome: str, unit: str, period: Period, traits: bool, among: Among) -> PanelData:
        """See :meth:`evalkit.sample.types.Sample.panel`; unit and period are those of the file."""
        found, rows = self.read(outcome, among)
        months = self.period_months(found)
        panel = found.panel
        kept, always = panel.without_always_treated()
        begun = np.isin(panel.unit, always)
        flow = self._flow(found, rows, found.rows[begun])
        beneath = np.ones(kept.units, np.int64)
        if kept.person_rows is not None:
            np.maximum.at(beneath, kept.unit, kept.person_rows)
        labels = tuple(label for label, at in zip(found.labels, panel.periods, strict=True) if at in kept.periods)
        data = PanelData(kept, outcome, self._spec.unit, labels, months, frozen(beneath, np.int64), flow, found.notes)
        return replace(data, traits=kept.x, trait_names=kept.names) if traits else data

    def _persons(self, rows: Mask) -> Ints:
        """Persons beneath each row of the file."""
        if not self._spec.persons:
            return np.ones(int(rows.sum()), np.int64)
        return np.nan_to_num(self.table.columns[self._spec.persons][rows]).astype(np.int64)

    def _flow(self, found: PanelFrame, rows: Mask, begun: Ints) -> tuple[PanelStep, ...]:
        """Rows by unit: a unit falls out with its last row. Persons of a unit are those of its largest row."""
        unit, persons = found.unit_of, self._persons(rows)
        largest = np.zeros(int(unit.max(initial=-1)) + 1, np.int64)
        np.maximum.at(largest, unit[unit >= 0], persons[unit >= 0])
        fate = found.fate.copy()
        last = len(found.dropped)
        fate[begun] = last
        flow: list[PanelStep] = []
        arms: tuple[tuple[Arm, Mask], ...] = (("treated", found.ever_treated), ("comparison", ~found.ever_treated))
        for arm, own in arms:
            outs = []
            for i, reason in enumerate([*(step.reason for step in found.dropped), "treated_before_window"]):
                outs.append((reason, _row_size(own & ((fate < 0) | (fate > i)), unit, largest)))
            flow += _steps(arm, "all_units", _row_size(own, unit, largest), outs)
        return tuple(flow)

    def cross_sections(self, outcome: str, months: int, group: str, period: Period, among: Among) -> PanelData:
        """Not from a ready file: its cross-sections are :meth:`panel` with ``repeated``."""
        raise DesignError(Fault("did.inflow_register", {}))


def _row_size(left: Mask, unit: Ints, largest: Ints) -> Size:
    units = np.unique(unit[left & (unit >= 0)])
    return len(units), int(left.sum()), int(largest[units].sum())


# -- samples without entries ----------------------------------------------------------------------------------------


class NoOutcomes:
    """Stands where a sample has no entries, so that nothing has an outcome path."""

    def paths(self, name: str, entries: Entries, horizon: int) -> tuple[Array, Mask]:
        """Nothing."""
        return np.empty((len(entries), horizon)), np.zeros((len(entries), horizon), bool)

    def has_history(self, name: str) -> bool:
        """Never."""
        return False

    def before(self, name: str, entries: Entries, day: Any, months: int) -> tuple[Array, Mask]:
        """Nothing."""
        return self.paths(name, entries, months)


def _no_entries() -> Entries:
    kinds = {"arm": np.int8, "elapsed": np.int16, "quarter": np.int16, "follow_up": np.int16}
    return Entries(**{name: np.empty(0, kinds.get(name, np.int32)) for name in Entries.__dataclass_fields__})


def without_entries(
    study: Study, source: Literal["register", "panel"], people: People, panels: Panels, flow: tuple[FlowRow, ...],
    horizon: int, **more: Any,
) -> Sample:  # fmt: skip
    """A sample that gives panels only: no risk sets are cut."""
    return Sample(
        study=study, source=source, people=people, entries=_no_entries(), outcomes=NoOutcomes(),
        horizon=horizon, follow_up=study.time.follow_up, flow=flow, age="age" in study.covariates.numeric,
        time_names=(), panels=panels, **more,
    )  # fmt: skip


def from_panel(study: Study, table: PanelTable) -> Sample:
    """A sample without entries from a ready panel file. Its people are units, or rows where cross-sections are.

    Raises
    ------
    DataError, DesignError
        As :func:`evalkit.did.frame.panel_from_frame`; ``did.subgroup_changes`` when a subgroup differs within a unit;
        ``did.period_months``, ``did.period_months_differ``.
    """
    spec = study.panel
    assert spec is not None
    size = len(table.columns[spec.unit])
    if spec.repeated:
        ids, unit_of, first = np.arange(size).astype(str).astype(object), np.arange(size), np.arange(size)
    else:
        values = table.columns[spec.unit]
        absent = np.asarray(pd.isna(values), bool)
        known, first_row, code = np.unique(values[~absent].astype(str), return_index=True, return_inverse=True)
        ids, unit_of = known.astype(object), np.full(size, -1, np.int64)
        unit_of[~absent] = code
        first = np.flatnonzero(~absent)[first_row]
    groups = _constant(study, table, unit_of, first)
    nothing = np.empty((len(ids), 0))
    people = People(
        ids, hash_ids(study.seed, ids), np.arange(len(ids)), "unit", nothing, (), (), np.full(len(ids), np.nan), groups
    )
    panels = ReadyPanels(study, table, people, unit_of)
    data = panels.panel(study.primary.name, "", "year", False, None)
    flow: list[FlowRow] = []
    for step in data.flow:
        if step.kind == "start":
            flow.append(FlowRow(0, step.arm, "start", "all_units", step.persons, step.persons))
            flow.append(FlowRow(1, step.arm, "left", "left", step.persons, step.persons))
    horizon = min(study.time.horizon, len(data.panel.periods) - 1)  # periods, the first treated one included
    return without_entries(study, "panel", people, panels, tuple(flow), horizon)


def _constant(study: Study, table: PanelTable, unit_of: Ints, first: Ints) -> tuple[Factor, ...]:
    """Subgroups as factors of units, which must be the same in all rows of a unit."""
    groups = []
    for subgroup in study.subgroups:
        values = table.columns[subgroup.name]
        whole = cut_factor(subgroup.name, values, subgroup.cuts) if subgroup.cuts else factor(subgroup.name, values)
        has = unit_of >= 0
        own = whole.codes[first]
        if wrong := len(np.unique(unit_of[has][whole.codes[has] != own[unit_of[has]]])):
            raise DataError(Fault("did.subgroup_changes", {"column": subgroup.name, "count": wrong}, "panel"))
        present, codes = np.unique(own, return_inverse=True)
        made = Factor(subgroup.name, tuple(whole.levels[i] for i in present), frozen(codes, np.int32))
        groups.append(made if subgroup.cuts else shown(study, made))
    return tuple(groups)
