"""From a register to risk sets: in each elapsed month, who starts and who could have started but has not yet.

Sianesi (2004): starters in elapsed month u are compared with those still on benefit who have not started by the end of
that month, covariates as known before time zero. With days known, each comparison entry gets a pseudo start day drawn
by keyed hash from the starters' days, and must be on benefit on that day: starters, too, had to survive to theirs.
Of several instruments the first that is started in a spell counts (Lechner 2001); they are compared with each other in
the same way, with or without those who wait.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days
from evalkit.design import Factor, cut_factor, factor
from evalkit.errors import DataError, DesignError, Fault
from evalkit.hashing import hash_ids, mix, uniform
from evalkit.register import Check, Register
from evalkit.sample.changing import MISSING, Changing, read_changing
from evalkit.sample.filling import fill_missing
from evalkit.sample.flow import Tally
from evalkit.sample.instruments import Episodes, Instruments, read_instruments
from evalkit.sample.jobs import Jobs, read_jobs
from evalkit.sample.levels import shown
from evalkit.sample.merging import merge_benefits
from evalkit.sample.outcomes import SpellOutcomes
from evalkit.sample.panels import RegisterPanels, without_entries
from evalkit.sample.spells import Intervals, Spells, Starts, attach_starts, first_starts, locator
from evalkit.sample.types import NO_START, Entries, MultiArm, People, Sample
from evalkit.study import Study
from evalkit.study.model import PANEL_METHODS, SPELL_METHODS
from evalkit.study.outcome_source import OutcomeSource, read_source

Mask = NDArray[np.bool_]


def from_register(study: Study, register: Register) -> Sample:
    """Risk sets from administrative tables; none where every analysis works on panels.

    Raises
    ------
    DesignError
        ``design.no_starters`` when nobody eligible starts the instrument, ``design.no_risk_set`` when nobody is at risk
        beside them; both tell where people fell out.
    """
    if study.on_panels:
        return _panels_only(study, register)
    frame = _Frame.read(study, register)
    first, second = {
        "dates": ("dates", ""),
        "start_first": ("start_first", "exit_first"),
        "exit_first": ("exit_first", "start_first"),
    }[study.time.within_month]
    sample = _cut(frame, first)
    if any(analysis.method in PANEL_METHODS for analysis in study.analyses):
        panels = _panels(study, register, frame.people, frame.usable, frame.changing)
        sample = replace(sample, panels=panels, checks=(*sample.checks, *panels.checks()))
    elif any(analysis.method in SPELL_METHODS for analysis in study.analyses):
        sample = replace(sample, panels=_panels(study, register, frame.people, frame.usable, frame.changing))
    try:
        return replace(sample, alternative=_cut(frame, second)) if second else sample
    except DesignError:  # nobody left under the other convention: there is nothing to show beside the first
        return sample


def _panels_only(study: Study, register: Register) -> Sample:
    """A sample without entries: people, and panels of them."""
    persons = register.arrays("persons")
    people, usable = _people(study, persons)
    changing = read_changing(study, register, persons, locator(persons["person"]))
    panels = _panels(study, register, people, usable, changing)
    about = {"changing": changing, "checks": panels.checks()}
    return without_entries(study, "register", people, panels, panels.flow(), study.time.horizon, **about)


def _panels(study: Study, register: Register, people: People, usable: Mask, changing: Changing) -> RegisterPanels:
    return RegisterPanels(study, register, people, usable, changing, _barred(study, register.arrays("persons")))


def _cut(frame: _Frame, convention: str) -> Sample:
    """The comparison of the study, and beside it all instruments where it names several."""
    treatment = frame.study.treatment
    arms = [_Arm(treatment.instrument, 1, "treated")]
    arms += [_Arm(name, 0, "comparison") for name in treatment.opposed[1:]]
    sample = _build(frame, _Contrast.of(frame, arms, "comparison" if len(arms) == 1 else ""), convention)
    if not treatment.others:
        return sample
    names = ("wait", *treatment.compared)
    arms = [_Arm(name, code, name) for code, name in enumerate(names) if code]
    return replace(sample, several=MultiArm(names, _build(frame, _Contrast.of(frame, arms, "wait"), convention)))


@dataclass(frozen=True)
class _Frame:
    """What the risk sets are cut from: people, spells, starts of the instrument and the study's limits."""

    study: Study
    people: People
    usable: Mask
    spells: Spells
    starts: Starts
    instruments: Instruments
    gaps: Intervals
    jobs: Jobs | None
    first_day: int
    last_day: int
    checks: tuple[Check, ...]
    changing: Changing
    barred: Mapping[str, Mask]

    @classmethod
    def read(cls, study: Study, register: Register) -> _Frame:
        persons = register.arrays("persons")
        people, usable = _people(study, persons)
        of = locator(persons["person"])
        merged = merge_benefits(study, register.arrays("benefits", places=True), persons, of)
        held = Intervals(merged.person, merged.start, merged.end)
        instruments = read_instruments(study, register.arrays("episodes", places=True), of, held)
        own = begun(instruments, study.treatment.instrument)
        spells, starts = attach_starts(
            merged.person, merged.start, merged.end, merged.reason, merged.reasons, own.person, own.day
        )
        first_day, last_day = (calendar.day_number(d) for d in register.window)
        jobs = None
        if register.jobs is not None:
            jobs = read_jobs(study, register.arrays("jobs", places=True), of, last_day)
        elif any(source.needs_jobs for source in _sources(study).values()):
            raise DataError(Fault("sample.no_jobs"))
        checks = merged.checks + (jobs.checks if jobs else ())
        return cls(
            study, people, usable, spells, starts, instruments, merged.gaps, jobs, first_day, last_day, checks,
            read_changing(study, register, persons, of), _barred(study, persons),
        )  # fmt: skip

    def really(self, person: NDArray[np.integer], day: Days) -> Mask:
        """Whether a day of a spell was really on benefit: that a gap was bridged is known only after it."""
        return ~self.gaps.holds(person, day)

    def known_day(self, spell: NDArray[np.integer], elapsed: NDArray[np.integer], zero: Days, convention: str) -> Days:
        """The day before which covariates must have been known: time zero, or with months only their first day."""
        if convention == "dates":
            return zero
        return np.where(spell >= 0, calendar.add_months(self.spells.start[spell], np.maximum(elapsed, 0)), zero)

    def kept_out(self, person: NDArray[np.integer], day: Days) -> list[tuple[str, Mask]]:
        """Whom ``eligibility.exclude`` keeps out, a step a column, going by what was known before a day."""
        steps = []
        for name, values in self.study.eligibility.exclude.items():
            if name in self.changing:
                mask = self.changing.one_of(name, values, person, day)
            else:
                mask = self.barred[name][person]
            steps.append((f"excluded_by_value:{name}", mask))
        return steps


def begun(instruments: Instruments, name: str) -> Episodes:
    """The episodes of an instrument of which the day is known."""
    own = instruments[name]
    return own.take(np.flatnonzero(own.day < NEVER))


class _Arm(NamedTuple):
    """Those who start an instrument: its code among the entries, and what the flow calls it."""

    instrument: str
    code: int
    label: str


@dataclass(frozen=True)
class _Contrast:
    """Whose starts are compared.

    arms: one for each instrument, by ``starts.which``; of the first of them in a spell the person is a starter.
    waiting: what the flow calls those who have started none of them, who are arm 0; empty when they are no arm.
    start, elapsed: by spell the day of that first start (NEVER if none) and its elapsed month.
    later: by spell the start that counts as a later one for those in arm 0.
    same, others: days in one of the instruments since an earlier day; days in all other ones.
    before: by spell the day of the event that must have come before, for each instrument that asks for one.
    """

    arms: tuple[_Arm, ...]
    waiting: str
    starts: Starts
    start: Days
    elapsed: NDArray[np.int64]
    later: Days
    same: Intervals
    others: Intervals
    before: tuple[Days, ...]

    @classmethod
    def of(cls, frame: _Frame, arms: Sequence[_Arm], waiting: str) -> _Contrast:
        """The instrument of the study is the first of the arms."""
        made, spells = frame.instruments, frame.spells
        names = [arm.instrument for arm in arms]
        starts, start, elapsed = frame.starts, spells.own_start, spells.own_elapsed
        if len(arms) > 1:
            known = [begun(made, name) for name in names]
            which = np.repeat(np.arange(len(known)), [len(own) for own in known])
            person, day = (np.concatenate([getattr(own, column) for own in known]) for column in ("person", "day"))
            starts, start, elapsed = first_starts(spells, person, day, which)
        later = start if waiting else spells.own_start
        before = tuple(made.before[name] for name in names if name in made.before)
        return cls(
            tuple(arms), waiting, starts, start, elapsed, later, made.running(*names), made.others(*names), before
        )


def _sources(study: Study) -> dict[str, OutcomeSource]:
    """Where each outcome comes from; the rules of the study file have seen to it that it can be read."""
    found = {outcome.name: read_source(outcome.source) for outcome in study.outcomes}
    return {name: source for name, source in found.items() if source is not None}


def _barred(study: Study, persons: Mapping[str, Any]) -> dict[str, Mask]:
    """By column of persons in ``eligibility.exclude``, who has one of its values."""
    changing = study.data.changing if study.data else ()
    barred = {}
    for name, values in study.eligibility.exclude.items():
        if name not in changing:
            held = [MISSING if value is None else value for value in persons[name].tolist()]
            barred[name] = np.isin(np.asarray(held, object).astype(str), values)
    return barred


def _people(study: Study, persons: dict[str, Any]) -> tuple[People, Mask]:
    """People with their covariates, and who has none missing (or all are kept with a category of their own)."""
    ids = persons["person"]
    covariates = study.covariates
    changing = study.data.changing if study.data else ()
    numeric_names = [name for name in covariates.numeric if name not in ("age", *changing)]
    columns = [np.asarray(persons[name], float) for name in numeric_names]
    numeric = np.column_stack(columns) if columns else np.empty((len(ids), 0))
    fixed = (name for name in covariates.categorical if name not in changing)
    factors = tuple(shown(study, factor(name, persons[name])) for name in fixed)
    birth = np.asarray(persons["birth_year"], float) if "birth_year" in persons else np.full(len(ids), np.nan)
    usable = np.ones(len(ids), bool)
    if covariates.missing == "exclude":
        usable &= ~np.isnan(numeric).any(axis=1)
        if "age" in covariates.numeric:
            usable &= ~np.isnan(birth)
        for made in factors:
            if "missing" in made.levels:
                usable &= made.codes != made.levels.index("missing")
    numeric, names = fill_missing(numeric, numeric_names)
    groups = group_factors(study, persons, {*covariates.categorical, "age", *changing})
    cluster, level = np.arange(len(ids)), "person"
    if study.treatment.cluster != "person":
        level = study.treatment.cluster
        cluster = cluster_codes(persons[level])
    people = People(ids, hash_ids(study.seed, ids), cluster, level, numeric, tuple(names), factors, birth, groups)
    return people, usable


def group_factors(study: Study, columns: Mapping[str, Any], known: Container[str]) -> tuple[Factor, ...]:
    """Subgroups that are not ``known`` otherwise, as factors: numeric columns cut, others by value."""
    numeric = {s.name for s in study.subgroups if s.cuts} | set(study.covariates.numeric)
    groups = []
    for name, cuts in ((s.name, s.cuts) for s in study.subgroups if s.name not in known):
        values = columns[name]
        if name in numeric:
            groups.append(cut_factor(name, values.astype(float), cuts))
        else:
            groups.append(shown(study, factor(name, values)))
    return tuple(groups)


def cluster_codes(values: NDArray[np.object_]) -> NDArray[np.int64]:
    """A code a cluster; whoever has none is a cluster by himself."""
    missing = np.array([value is None or value != value for value in values], bool)
    _, codes = np.unique(np.where(missing, "", values).astype(str), return_inverse=True)
    return np.where(missing, len(values) + np.arange(len(values)), codes)


def _exclusions(
    frame: _Frame,
    contrast: _Contrast,
    person: NDArray[np.integer],
    spell: NDArray[np.integer],
    zero: Days,
    start: Days,
    day: Days,
) -> list[tuple[str, Mask]]:
    """Eligibility at time zero, the same for all arms, in the order in which it is counted.

    ``start``: the day itself of those who start (time zero is another day with month-only data), else time zero.
    ``day``: the day before which a value must have been known to count.
    """
    study, spells = frame.study, frame.spells
    rules = study.eligibility
    no_one = np.zeros(len(person), bool)
    known = spell >= 0
    stock = known & spells.stock(frame.first_day)[spell] if rules.stock == "exclude" else no_one
    earlier = no_one
    if rules.earlier_spells is not None:
        count = spells.earlier[spell]
        earlier = known & ((count < rules.earlier_spells[0]) | (count > rules.earlier_spells[1]))
    age_out = no_one
    if rules.age is not None:
        age = calendar.year(zero) - frame.people.birth_year[person]
        age_out = ~((age >= rules.age[0]) & (age <= rules.age[1]))
    other = no_one
    if rules.other_instrument == "exclude":
        other = contrast.others.covers(person, zero)
    early = no_one
    for before in contrast.before:  # the n-th of a type: whoever has not had the one before cannot have this one
        early = early | (known & (before[spell] >= start))
    least = (study.time.horizon if study.time.follow_up == "complete" else 1) + study.look_ahead
    short = calendar.whole_months(zero, np.int64(frame.last_day + 1)) < least
    lacking = no_one
    if study.covariates.missing == "exclude":
        lacking = frame.changing.lacking(person, day)
    return [
        ("stock", stock),
        ("earlier_spells", earlier),
        ("start_before_window", zero < frame.first_day),
        ("start_after_window", zero > frame.last_day),
        ("age", age_out),
        ("already_in_instrument", contrast.same.covers(person, start)),
        ("other_instrument", other),
        ("previous_event", early),
        ("follow_up", short),
        *frame.kept_out(person, day),
        ("missing_covariate", ~frame.usable[person] | lacking),
    ]


def _entries(
    frame: _Frame,
    contrast: _Contrast,
    spell: NDArray[np.int64],
    elapsed: NDArray[np.integer],
    zero: Days,
    arm: NDArray[np.int8],
) -> Entries:
    later = contrast.later[spell]
    if not contrast.waiting:  # who starts the one and then the other within the month has done so from month 0
        later = np.where(arm == 0, np.maximum(later, zero), later)
    wait = np.full(len(spell), NO_START, np.int64)
    starts = (later < NEVER) & (later >= zero)
    wait[starts] = calendar.whole_months(zero[starts], later[starts])
    return Entries(
        person=frame.spells.person[spell].astype(np.int32),
        spell=spell.astype(np.int32),
        arm=arm,
        elapsed=elapsed.astype(np.int16),
        time_zero=zero.astype(np.int32),
        quarter=calendar.quarter_number(zero).astype(np.int16),
        follow_up=np.minimum(calendar.whole_months(zero, np.int64(frame.last_day + 1)), 32_000).astype(np.int16),
        own_start_after=wait.astype(np.int32),
    )


def _cells(elapsed: NDArray[np.integer] | int, quarter: NDArray[np.integer]) -> NDArray[np.int64]:
    """One number for an elapsed month and a calendar quarter."""
    return np.asarray(np.asarray(elapsed, np.int64) * 100_000 + quarter)


def _zero(frame: _Frame, spell: NDArray[np.int64], elapsed: NDArray[np.integer], convention: str) -> Days:
    """Time zero of month-only conventions: the first day of the elapsed month, or its last."""
    start = frame.spells.start[spell]
    if convention == "start_first":
        return calendar.add_months(start, elapsed)
    return calendar.add_months(start, elapsed + 1) - 1


def _starters(frame: _Frame, contrast: _Contrast, convention: str) -> tuple[Entries, list[Tally]]:
    """Entries of those who start, by person and day, and how many fell out of each arm.

    Who is compared by a start of his own (arm 0) has someone of arm 1 in the same elapsed month and quarter.
    """
    starts = contrast.starts
    low, high = frame.study.eligibility.elapsed
    spell = starts.spell
    elapsed = np.where(spell >= 0, contrast.elapsed[spell], -1)
    zero = starts.day.copy()
    inside = np.flatnonzero((spell >= 0) & starts.first)
    if convention != "dates":
        zero[inside] = _zero(frame, spell[inside], elapsed[inside], convention)
    day = frame.known_day(spell, elapsed, zero, convention)
    steps = [
        ("no_benefit_at_start", (spell < 0) | ~frame.really(starts.person, starts.day)),
        ("same_day_start", starts.shared & (spell >= 0) & (starts.day == contrast.start[spell])),
        ("not_first_start", ~starts.first),
        ("elapsed", (elapsed < low) | (elapsed > high)),
        *_exclusions(frame, contrast, starts.person, spell, zero, starts.day, day),
    ]
    cells = _cells(elapsed, calendar.quarter_number(zero))
    arm = np.full(len(spell), -1, np.int8)
    tallies = []
    for number, own in enumerate(contrast.arms):
        rows = np.flatnonzero(starts.which == number)
        asked = [(reason, mask[rows]) for reason, mask in steps]
        if own.code == 0:
            asked.append(("no_starter_same_month", ~np.isin(cells[rows], cells[arm == 1])))
        tally = Tally(own.label, "all_starts", len(frame.people.ids))
        left = rows[tally.sieve(starts.person[rows], asked)]
        if not len(left):
            raise DesignError(Fault("design.no_starters", {"instrument": own.instrument}))
        arm[left] = own.code
        tallies.append(tally)
    left = np.flatnonzero(arm >= 0)
    return _entries(frame, contrast, spell[left], elapsed[left], zero[left], arm[left]), tallies


def _start_fractions(frame: _Frame, starters: Entries) -> NDArray[np.float64]:
    """Where in their elapsed month starters start, as fractions in [0, 1), sorted."""
    begin = calendar.add_months(frame.spells.start[starters.spell], starters.elapsed)
    length = calendar.add_months(frame.spells.start[starters.spell], starters.elapsed + 1) - begin
    return np.sort((starters.time_zero - begin + 0.5) / length)


def _build(frame: _Frame, contrast: _Contrast, convention: str) -> Sample:
    study = frame.study
    starters, tallies = _starters(frame, contrast, convention)
    if contrast.waiting:
        entries, tally = _beside(frame, contrast, starters, convention)
        tallies.append(tally)
    else:
        entries = starters.take(np.lexsort((starters.spell, starters.elapsed)))
    return Sample(
        study=study,
        source="register",
        people=frame.people,
        entries=entries,
        outcomes=SpellOutcomes(
            frame.spells, frame.jobs, _sources(study), study.spells.merge_gap_months, frame.first_day
        ),
        horizon=study.time.horizon,
        follow_up=study.time.follow_up,
        flow=tuple(row for tally in tallies for row in tally.rows()),
        age="age" in study.covariates.numeric,
        convention=convention,
        checks=frame.checks,
        changing=frame.changing,
        months_begin=None if convention == "dates" else frame.spells.start,
        instruments=frame.instruments,
    )


def _beside(frame: _Frame, contrast: _Contrast, starters: Entries, convention: str) -> tuple[Entries, Tally]:
    """The starters with, in each elapsed month, those who were at risk and started none of the instruments."""
    study, spells = frame.study, frame.spells
    fractions = _start_fractions(frame, starters)
    cells = np.unique(_cells(starters.elapsed, starters.quarter))
    tally = Tally(contrast.waiting, "all_candidate_months", len(frame.people.ids))
    spell_key = mix(frame.people.key[spells.person], spells.earlier)
    parts: list[Entries] = []
    low, high = study.eligibility.elapsed
    present = np.flatnonzero(spells.start <= frame.last_day)
    for month in range(low, high + 1):
        present = present[contrast.elapsed[present] > month]
        begin = calendar.add_months(spells.start[present], month)
        still = spells.end[present] >= begin
        risk = present = present[still]
        begin = begin[still]
        elapsed = np.full(len(risk), month)
        if convention == "dates":
            length = calendar.add_months(spells.start[risk], month + 1) - begin
            draw = (uniform(mix(spell_key[risk], month)) * len(fractions)).astype(np.int64)
            zero = begin + np.floor(fractions[draw] * length).astype(np.int64)
        else:
            zero = _zero(frame, risk, elapsed, convention)
        on_benefit = (spells.end[risk] >= zero) & frame.really(spells.person[risk], zero)
        risk, zero, elapsed = risk[on_benefit], zero[on_benefit], elapsed[on_benefit]
        alone = ~np.isin(_cells(month, calendar.quarter_number(zero)), cells)
        person = spells.person[risk]
        day = frame.known_day(risk, elapsed, zero, convention)
        steps = [
            *_exclusions(frame, contrast, person, risk, zero, zero, day),
            ("no_starter_same_month", alone),
        ]
        left = np.flatnonzero(tally.sieve(person, steps))
        beside = starters.take(np.flatnonzero(starters.elapsed == month))
        waiting = np.zeros(len(left), np.int8)
        part = _concatenate([beside, _entries(frame, contrast, risk[left], elapsed[left], zero[left], waiting)])
        parts.append(part.take(np.argsort(part.spell, kind="stable")))
    if sum(map(len, parts)) == len(starters):
        raise DesignError(Fault("design.no_risk_set", {"instrument": study.treatment.instrument}))
    return _concatenate(parts), tally


def _concatenate(parts: list[Entries]) -> Entries:
    """Parts one after the other; what has been copied is let go at once, because there may be tens of millions."""
    columns = {name: [getattr(part, name) for part in parts] for name in Entries.__dataclass_fields__}
    parts.clear()
    return Entries(**{name: np.concatenate(columns.pop(name)) for name in Entries.__dataclass_fields__})
