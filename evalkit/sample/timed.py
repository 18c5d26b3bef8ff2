"""Spells with the months in which instruments start: what duration models work on, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER as NO_DAY
from evalkit.design import Design
from evalkit.errors import DataError, DesignError, Fault
from evalkit.sample.exposed import YEAR_0
from evalkit.sample.outcomes import SpellOutcomes
from evalkit.sample.panels import RegisterPanels
from evalkit.sample.shapes import spell_table
from evalkit.sample.spells import by_person
from evalkit.sample.types import NO_START, Among, Entries, Sample

Ints = NDArray[np.int64]
Length = Literal["planned", "realised"]

NOT_STARTED = 2**30
"""Stands for "does not start while observed"."""


@dataclass(frozen=True)
class StartMonths:
    """When one instrument starts in each spell (S,).

    month: first elapsed month that counts as with it, ``NOT_STARTED``. length: whole months from there to its end
    (planned or realised), -1 where that is not known.
    """

    name: str
    month: Ints
    length: Ints


@dataclass(frozen=True)
class TimedSpells:
    """Spells (S,) in whole months since entry, sorted by person and entry.

    Attributes
    ----------
    person: number in ``sample.people``. later: whether the person had an earlier spell.
    entry: first elapsed month under observation. stop: months until the spell ends or observation does.
    event: whether it ended in month ``stop - 1``; reason: why, empty when unknown.
    begin: number of the calendar month of the first day, year times 12 plus month less 1.
    entries: the spells as entries on their first day (S), for what covariates and groups ask of an entry.
    design: covariates known before the first day (S rows), without time.
    instruments: the one that is evaluated first.
    starter: (n,) numbers of the spells whose start is a starter of the sample: the population of effects.
    lost: starters of the sample who left before the first whole month with the instrument, and those whose spell takes
        no part (a covariate is not known, or it belongs to the stock).
    """

    person: Ints
    later: NDArray[np.bool_]
    entry: Ints
    stop: Ints
    event: NDArray[np.bool_]
    reason: NDArray[np.object_]
    begin: Ints
    entries: Entries
    design: Design
    instruments: tuple[StartMonths, ...]
    starter: Ints
    lost: tuple[int, int]


def timed_spells(
    sample: Sample, others: Sequence[str] = (), *, length: Length = "planned", among: Among = None, first: bool = False
) -> TimedSpells:
    """The spells of a register study with the starts of its instrument, and of others.

    Parameters
    ----------
    others: further instruments whose starts are followed.
    length: up to the planned end, or to the last day that was registered.
    among: (P,) only these people. first: only the first spell of a person.

    Raises
    ------
    DesignError
        ``duration.register_only`` without a register; ``did.nobody_at_risk`` when no spell is left.
    """
    panels = sample.panels
    if not isinstance(panels, RegisterPanels) or not isinstance(sample.outcomes, SpellOutcomes):
        raise DesignError(Fault("duration.register_only", {"source": sample.source}))
    study = sample.study
    usable = panels.usable.copy() if among is None else panels.usable & np.asarray(among, bool)
    for barred in panels.barred.values():
        usable &= ~barred
    tables = [_table(panels, name) for name in (study.treatment.instrument, *others)]
    table = tables[0]
    place = table["place"].astype(np.int64)
    keep = usable[place] & (table["entry"] < table["stop"])
    if study.eligibility.stock == "exclude":
        keep &= ~table["stock"].astype(bool)
    if first:
        keep &= table["spell"] == 0
    begin = calendar.to_days(table["begin"])
    if study.eligibility.age is not None and sample.source == "register":
        age = calendar.year(begin) - sample.people.birth_year[place]
        low, high = study.eligibility.age
        keep &= ~((age < low) | (age > high))
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise DesignError(Fault("did.nobody_at_risk", {}))
    own, found = _sample_spells(sample.outcomes, place, begin)
    starter, lost = _starters(sample, own, found, rows, table, among)
    instruments = tuple(
        _starts(sample, each, name, length, rows)
        for each, name in zip(tables, (study.treatment.instrument, *others), strict=True)
    )
    entries = Entries(
        place[rows].astype(np.int32), own[rows].astype(np.int32), np.zeros(len(rows), np.int8),
        np.zeros(len(rows), np.int16), begin[rows].astype(np.int32), np.zeros(len(rows), np.int16),
        np.zeros(len(rows), np.int16), np.full(len(rows), NO_START, np.int32),
    )  # fmt: skip
    return TimedSpells(
        place[rows], (table["spell"] > 0)[rows], table["entry"][rows].astype(np.int64),
        table["stop"][rows].astype(np.int64), table["event"][rows].astype(bool), table["reason"][rows].astype(object),
        YEAR_0 + calendar.month_number(begin[rows]), entries, sample.design(entries, time=False), instruments, starter,
        lost,
    )  # fmt: skip


def _table(panels: RegisterPanels, instrument: str) -> dict[str, NDArray[Any]]:
    """The spell table with the starts of one instrument, as arrays sorted by person and spell."""
    study = panels.study
    if instrument != study.treatment.instrument:
        own = study.treatment.model_copy(update={"instrument": instrument})
        study = study.model_copy(update={"treatment": own})
    table = spell_table(panels.register, study).sort("place", "spell").collect("pyarrow").to_native()
    names = ("place", "spell", "begin", "end", "stock", "entry", "stop", "event", "reason", "treated", "planned")
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in names}


def _sample_spells(outcomes: SpellOutcomes, place: Ints, begin: NDArray[Any]) -> tuple[Ints, NDArray[np.bool_]]:
    """Number of each spell among those of the sample, and whether it is there."""
    spells = outcomes.spells
    key, asked = by_person(spells.person, spells.start), by_person(place, begin)
    at = np.minimum(np.searchsorted(key, asked), len(key) - 1)
    return at.astype(np.int64), np.asarray(key[at] == asked)


def _starters(
    sample: Sample, own: Ints, found: NDArray[np.bool_], rows: Ints, table: dict[str, NDArray[Any]], among: Among
) -> tuple[Ints, tuple[int, int]]:
    """Which of the rows hold a starter of the sample, and how many starters there are without one."""
    entries = sample.entries
    arm = entries.arm == 1
    if among is not None:
        arm &= np.asarray(among, bool)[entries.person]
    assert isinstance(sample.outcomes, SpellOutcomes)  # checked by the caller
    wanted = np.zeros(len(sample.outcomes.spells.person), np.bool_)
    wanted[entries.spell[arm]] = True
    here = found & wanted[own]
    month = _months(table["treated"])
    seen = (month < table["stop"]) | ((month == table["stop"]) & ~table["event"].astype(bool))
    mine = here[rows]
    starter = np.flatnonzero(mine & seen[rows])
    return starter, (int((mine & ~seen[rows]).sum()), int(wanted.sum() - mine.sum()))


def _months(values: NDArray[Any]) -> Ints:
    """Months, ``NOT_STARTED`` where empty."""
    number = np.asarray(values, float)
    return np.where(np.isnan(number), NOT_STARTED, np.nan_to_num(number)).astype(np.int64)


def _starts(
    sample: Sample, table: dict[str, NDArray[Any]], name: str, length: Length, rows: Ints
) -> StartMonths:  # fmt: skip
    month = _months(table["treated"])[rows]
    end = _months(table["planned"])[rows]
    if length == "realised":
        end = _realised(sample, table, name, rows)
    known = (month < NOT_STARTED) & (end < NOT_STARTED)
    return StartMonths(name, month, np.where(known, np.maximum(end - month, 0), -1))


def _realised(sample: Sample, table: dict[str, NDArray[Any]], name: str, rows: Ints) -> Ints:
    """First elapsed month that begins after the last registered day of the first episode in the spell."""
    if sample.instruments is None:
        raise DataError(Fault("duration.register_only", {"source": sample.source}))
    episodes = sample.instruments[name]
    place, begin = table["place"].astype(np.int64)[rows], calendar.to_days(table["begin"])[rows]
    key = episodes.person.astype(np.int64) * 10**7 + episodes.day + 10**6
    at = np.searchsorted(key, place * 10**7 + begin + 10**6)
    near = np.minimum(at, max(len(key) - 1, 0))
    there = (at < len(key)) & (episodes.person[near] == place) if len(key) else np.zeros(len(rows), bool)
    last = np.where(there, episodes.until[near] if len(key) else 0, NO_DAY)
    known = last < NO_DAY
    day = np.where(known, last, begin)
    whole = calendar.whole_months(begin, day + 1)
    whole = whole + (calendar.add_months(begin, whole) < day + 1)
    return np.where(known, whole, NOT_STARTED).astype(np.int64)
