"""The rules that need the sample, as data: how many start when, beside whom, and what either arm lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalkit.register.schema import Check, Severity, Unit, by_arm, uneven
from evalkit.sample.types import NO_START, Sample

Mask = NDArray[np.bool_]

FEW = 50
"""Starters below which hardly any effect shows."""
EXPECTED = 20
"""How many an arm should have had, going by the other, before it counts as strange that it has none."""

OLD = 731
"""Days after which a figure of an area is called old: with yearly figures it is up to a year by nature."""

_JUDGED = 4000  # entries of an arm whose outcomes are looked at, evenly spread


@dataclass(frozen=True)
class Found:
    """What a rule found: how many of how many in each arm (or of months), in which column."""

    counts: dict[bool, int]
    totals: dict[bool, int]
    column: str = ""
    unit: Unit = "rows"


@dataclass(frozen=True)
class View:
    """A sample with what several rules ask of it."""

    sample: Sample

    @cached_property
    def starts(self) -> Mask:
        """Which entries are starters."""
        return np.asarray(self.sample.entries.arm > 0)

    @cached_property
    def persons(self) -> dict[bool, NDArray[np.int64]]:
        """The different persons of each arm: starters, and those at risk who do not start later either."""
        size, entries = len(self.sample.people.ids), self.sample.entries
        never = ~self.starts & (entries.own_start_after == NO_START)
        starter, other = (np.bincount(entries.person[rows], minlength=size) > 0 for rows in (self.starts, never))
        return {True: np.flatnonzero(starter), False: np.flatnonzero(other & ~starter)}

    @cached_property
    def sizes(self) -> dict[bool, int]:
        """How many."""
        return {arm: len(rows) for arm, rows in self.persons.items()}

    @cached_property
    def months(self) -> dict[bool, NDArray[np.int64]]:
        """Entries of each arm by elapsed month."""
        elapsed = self.sample.entries.elapsed
        size = int(elapsed.max(initial=0)) + 1
        return {arm: np.bincount(elapsed[self.starts == arm], minlength=size) for arm in (True, False)}

    def people(self, chosen: Mask, column: str) -> Found:
        """Persons of each arm among chosen rows of people."""
        return Found({arm: int(chosen[rows].sum()) for arm, rows in self.persons.items()}, self.sizes, column)

    def rows(self, chosen: Mask, column: str) -> Found:
        """Chosen entries of each arm: starts, and months in which others were at risk."""
        counts = {arm: int((chosen & (self.starts == arm)).sum()) for arm in (True, False)}
        return Found(counts, {arm: int((self.starts == arm).sum()) for arm in (True, False)}, column)

    @cached_property
    def gaps(self) -> list[Found]:
        """By covariate that changes, the entries before which nothing was known of it."""
        entries, changing = self.sample.entries, self.sample.changing
        if not changing.covariates:
            return []
        day = self.sample.known_day(entries)
        return [self.rows(changing.missing(name, entries.person, day), name) for name in changing.covariates]


def starters_few(view: View) -> Iterator[Found]:
    """Fewer than fifty starters."""
    if view.sizes[True] < FEW:
        yield Found({True: view.sizes[True]}, {True: len(view.sample.people.ids)})


def _months(odd: Mask, among: Mask) -> Iterator[Found]:
    if odd.sum() and 2 * odd.sum() >= among.sum():
        yield Found({True: int(odd.sum())}, {True: int(among.sum())}, "elapsed", "months")


def starters_thin(view: View) -> Iterator[Found]:
    """In half of the elapsed months with starters or more, fewer than the smallest number that is shown."""
    if view.sample.source == "register":
        some = view.months[True] > 0
        yield from _months(some & (view.months[True] < view.sample.study.disclosure.minimum), some)


def comparison_thin(view: View) -> Iterator[Found]:
    """In half of the elapsed months with starters or more, fewer than three at risk for each."""
    if view.sample.source == "register":
        some = view.months[True] > 0
        yield from _months(some & (view.months[False] < 3 * view.months[True]), some)


def starters_one_quarter(view: View) -> Iterator[Found]:
    """More than half of the starters in one calendar quarter."""
    entries = view.sample.entries
    if view.sample.source == "register" and view.sizes[True] >= EXPECTED:
        quarters = np.bincount(entries.quarter[view.starts].astype(np.int64))
        if quarters.max() > view.starts.sum() / 2:
            yield Found({True: int(quarters.max())}, {True: int(view.starts.sum())})


def level_one_arm(view: View) -> Iterator[Found]:
    """Starters with a category that nobody else has."""
    if view.sizes[False] < EXPECTED:
        return
    for made in view.sample.people.factors:
        codes = {arm: np.bincount(made.codes[rows], minlength=len(made.levels)) for arm, rows in view.persons.items()}
        alone = (codes[True] > 0) & (codes[False] == 0)
        if alone.any():
            yield Found({True: int(codes[True][alone].sum())}, {True: view.sizes[True]}, made.name)
    for name in view.sample.changing.categorical:
        made = view.sample.group(name, (), view.sample.entries)
        codes = {arm: np.bincount(made.codes[view.starts == arm], minlength=len(made.levels)) for arm in (True, False)}
        alone = (codes[True] > 0) & (codes[False] == 0)
        if alone.any():
            yield Found({True: int(codes[True][alone].sum())}, {True: int(view.starts.sum())}, name)


def _missing(view: View) -> Iterator[tuple[str, Mask]]:
    people = view.sample.people
    for name, values in zip(people.numeric_names, people.numeric.T, strict=True):
        if name.endswith(":missing"):
            yield name.removesuffix(":missing"), values > 0
    for made in people.factors:
        if "missing" in made.levels:
            yield made.name, np.asarray(made.codes == made.levels.index("missing"))
    if view.sample.age:
        yield "birth_year", np.isnan(people.birth_year)


def covariate_missing_uneven(view: View) -> Iterator[Found]:
    """A share without a value that differs by more than ten points between the arms, beyond chance."""
    for name, gap in _missing(view):
        found = view.people(gap, name)
        if min(view.sizes.values()) >= EXPECTED and uneven(found.counts, found.totals):
            yield found
    for found in view.gaps:
        if min(view.sizes.values()) >= EXPECTED and uneven(found.counts, found.totals):
            yield found


def value_not_known(view: View) -> Iterator[Found]:
    """Entries before which nothing was known of a covariate that changes."""
    yield from (found for found in view.gaps if sum(found.counts.values()))


def figure_old(view: View) -> Iterator[Found]:
    """Entries whose last known figure had been known for more than two years."""
    entries, changing = view.sample.entries, view.sample.changing
    for name, made in changing.covariates.items():
        if made.known is not None:
            found = view.rows(made.age(entries.person, view.sample.known_day(entries)) > OLD, name)
            if sum(found.counts.values()):
                yield found


def _outcomes(view: View) -> Iterator[tuple[str, dict[bool, tuple[NDArray[np.float64], Mask]]]]:
    """Outcome paths of evenly spread entries of each arm."""
    rows = {arm: np.flatnonzero(view.starts == arm) for arm in (True, False)}
    rows = {arm: chosen[:: len(chosen) // _JUDGED + 1] for arm, chosen in rows.items()}
    for outcome in view.sample.study.outcomes:
        yield (
            outcome.name,
            {arm: view.sample.outcome(outcome.name, view.sample.entries.take(at)) for arm, at in rows.items()},
        )


def outcome_one_arm(view: View) -> Iterator[Found]:
    """An outcome that is known in one arm only, or that nobody in one arm has though many in the other do."""
    for name, paths in _outcomes(view):
        known = {arm: int(observed.any(axis=1).sum()) for arm, (_, observed) in paths.items()}
        have = {arm: int((observed & (values != 0)).any(axis=1).sum()) for arm, (values, observed) in paths.items()}
        for arm in (True, False):
            other = have[not arm] / max(known[not arm], 1)
            unknown = not known[arm] and known[not arm] >= EXPECTED and len(paths[arm][0])
            if unknown or (known[arm] and not have[arm] and other * known[arm] >= EXPECTED):
                yield Found({arm: view.sizes[arm]}, {arm: view.sizes[arm]}, name)


@dataclass(frozen=True)
class SampleRule:
    """A code, how serious it is, whether its counts are told by arm, and how it is found."""

    code: str
    severity: Severity
    arms: bool
    find: Callable[[View], Iterator[Found]]


SAMPLE_RULES: tuple[SampleRule, ...] = (
    SampleRule("starters_few", "warn", False, starters_few),
    SampleRule("starters_thin", "warn", False, starters_thin),
    SampleRule("comparison_thin", "warn", False, comparison_thin),
    SampleRule("starters_one_quarter", "warn", False, starters_one_quarter),
    SampleRule("level_one_arm", "warn", False, level_one_arm),
    SampleRule("covariate_missing_uneven", "warn", True, covariate_missing_uneven),
    SampleRule("value_not_known", "info", True, value_not_known),
    SampleRule("figure_old", "warn", True, figure_old),
    SampleRule("outcome_one_arm", "error", False, outcome_one_arm),
)
"""What is looked for in the sample."""


def judge_sample(sample: Sample) -> tuple[Check, ...]:
    """The checks of a sample; one without entries, which gives panels only, has none."""
    view, checks = View(sample), []
    if sample.panels is not None and not len(sample.entries):
        return ()
    for rule in SAMPLE_RULES:
        for found in rule.find(view):
            count, of = sum(found.counts.values()), sum(found.totals.values())
            arms = by_arm(found.counts, found.totals) if rule.arms else {}
            share = count / of if of else 0.0
            params = {"column": found.column}
            checks.append(Check(rule.code, rule.severity, "sample", count, share, params, found.unit, arms))
    return tuple(checks)
