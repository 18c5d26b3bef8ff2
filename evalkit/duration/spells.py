"""Spells of which instruments can start along the way, cut into stretches in which nothing changes.

One function makes the design of any month of any spell, real or imagined: the rows that a model is fitted on and the
paths "started in month s" and "did not start" that effects are worked out from are the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.histories import Histories, Timing
from evalkit.duration.terms import Terms, factor, interacted, joined
from evalkit.effects import frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

NEVER = 2**30
"""Stands for "does not start": later than any month."""


@dataclass(frozen=True)
class Instrument:
    """Something that can start once in a spell, and how its effect is cut by time since its start.

    Attributes
    ----------
    name.
    start: (S,) first elapsed month that counts as with it; ``NEVER`` when it does not start while observed.
    length: (S,) planned months from ``start`` to its planned end, 0 when it has none. Read with ``clock = "end"``.
    clock: ``start``: phases begin ``bounds`` months after the start. ``end``: the first phase lasts until the planned
        end, the later ones begin ``bounds`` months after that.
    bounds: increasing. With ``end`` and (6, 12): in the programme, 0-5, 6-11, 12 and more months after it.
    after: name of another instrument without which it cannot start (enforcement after a warning).
    modelled: whether its start is a risk of its own in the model.
    """

    name: str
    start: Numbers
    length: Numbers
    clock: Literal["start", "end"] = "start"
    bounds: tuple[int, ...] = (3, 6, 12)
    after: str = ""
    modelled: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", frozen(self.start, np.int64))
        object.__setattr__(self, "length", frozen(self.length, np.int64))
        if list(self.bounds) != sorted(set(self.bounds)) or (self.bounds and self.bounds[0] < 1):
            raise UsageError(Fault("duration.bounds", {"setting": self.name}))

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases."""
        edges = [0, *self.bounds]
        spans = [f"{low}-{high - 1}" for low, high in zip(edges, edges[1:], strict=False)] + [f"{edges[-1]}+"]
        if self.clock == "start":
            return tuple(f"{self.name} {span}" for span in spans)
        return (f"{self.name} during", *(f"{self.name} after {span}" for span in spans))

    def phase(self, spell: Numbers, since: Numbers) -> Numbers:
        """Number of the phase ``since`` months after the start of the instrument; -1 where ``since`` is negative."""
        if self.clock == "start":
            number = np.searchsorted(self.bounds, since, side="right")
        else:
            past = since - self.length[spell]
            number = np.where(past < 0, 0, 1 + np.searchsorted(self.bounds, past, side="right"))
        return np.where(since < 0, -1, number).astype(np.int64)

    def edges(self) -> list[Numbers]:
        """(S,) months in which a phase begins, one array a phase."""
        if self.clock == "start":
            return [self.start, *(self.start + bound for bound in self.bounds)]
        end = self.start + self.length
        return [self.start, end, *(end + bound for bound in self.bounds)]


@dataclass(frozen=True)
class Spells:
    """S spells in whole months since entry, sorted by person.

    Attributes
    ----------
    person: (S,) 0..N-1. person_ids: (N,).
    entry: (S,) first elapsed month under observation: 0 for inflow, later for stock (left truncation).
    stop: (S,) months until it ends or observation does: at risk in months ``entry .. stop - 1``.
    cause: (S,) -1 when it had not ended, else 0..J-1: it ended in month ``stop - 1``.
    causes: J names.
    begin: (S,) number of the calendar month of entry, on a scale on which 12 divides the first month of a year.
    x: covariates known at entry (S rows).
    instruments: the one that is evaluated comes first.
    cluster: (N,) 0..G-1, cluster_ids (G,), level.
    """

    person: Numbers
    person_ids: NDArray[Any]
    entry: Numbers
    stop: Numbers
    cause: Numbers
    causes: tuple[str, ...]
    begin: Numbers
    x: Terms
    instruments: tuple[Instrument, ...]
    cluster: Numbers
    cluster_ids: NDArray[Any]
    level: str = "person"

    def __post_init__(self) -> None:
        for name in ("person", "entry", "stop", "cause", "begin", "cluster"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))
        spells = len(self.person)
        lengths = [len(self.entry), len(self.stop), len(self.cause), len(self.begin), len(self.x)]
        if any(each != spells for each in lengths + [len(each.start) for each in self.instruments]):
            raise ValueError("spells: columns of unlike length")
        faults = []
        if (short := int((self.stop <= self.entry).sum())) > 0:
            faults.append(Fault("duration.zero_length", {"rows": short}))
        if spells and (np.diff(self.person) < 0).any():
            raise ValueError("spells: sort by person")
        if faults:
            raise DataError(faults)

    def __len__(self) -> int:
        return len(self.person)

    @property
    def instrument(self) -> Instrument:
        """The one that is evaluated."""
        return self.instruments[0]

    @cached_property
    def started(self) -> tuple[Numbers, ...]:
        """By instrument (S,) the month of its start, as far as it was seen.

        A start counts when the spell is still observed in that month, or was censored at its beginning: who leaves in
        the month before is taken to have left first. Only one instrument starts in a month: the later one in the list
        waits a month.
        """
        out: list[Numbers] = []
        for own in self.instruments:
            month = np.where(own.start < NEVER, np.maximum(own.start, 0), NEVER)
            for earlier in out:
                month = np.where((month < NEVER) & (month == earlier), month + 1, month)
            seen = (month < self.stop) | ((month == self.stop) & (self.cause < 0))
            out.append(np.where(seen, month, NEVER).astype(np.int64))
        return tuple(out)

    def take(self, keep: NDArray[Any]) -> Spells:
        """Some of the spells; numbers of persons and clusters stay what they are."""
        rows = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep)
        own = tuple(replace(each, start=each.start[rows], length=each.length[rows]) for each in self.instruments)
        parts = {name: getattr(self, name)[rows] for name in ("person", "entry", "stop", "cause", "begin")}
        return replace(self, **parts, x=self.x.take(rows), instruments=own)


@dataclass(frozen=True)
class Timeline:
    """How hazards move with time, besides the instruments.

    Attributes
    ----------
    duration: months since entry at which the second and later steps of the baseline begin.
    calendar: ``none``, ``year`` (a step a calendar year) or ``quarter`` (a step a quarter of the year: season).
    by: names of covariates by which the effect of the evaluated instrument differs; a prefix takes all columns of a
        categorical covariate (``sex`` takes ``sex:man``).
    start_duration: steps of the baseline of starting, those of ``duration`` when None.
    """

    duration: tuple[int, ...] = (1, 2, 3, 6, 9, 12, 18, 24, 36)
    calendar: Literal["none", "year", "quarter"] = "none"
    by: tuple[str, ...] = ()
    start_duration: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("duration", "start_duration"):
            bounds = getattr(self, name)
            if bounds is not None and (list(bounds) != sorted(set(bounds)) or (bounds and bounds[0] < 1)):
                raise UsageError(Fault("duration.bounds", {"setting": name}))


def bands(bounds: Sequence[int]) -> tuple[str, ...]:
    """Names of the steps of a baseline: ``month 0-2``, .., ``month 12+``."""
    edges = [0, *bounds]
    spans = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in zip(edges, edges[1:], strict=False)]
    return tuple(f"month {span}" for span in [*spans, f"{edges[-1]}+"])


@dataclass(frozen=True)
class Layout:
    """Which columns the hazards have: spells and a timeline together, from which the design of any month follows.

    ``years``: the calendar years that have a column, those of the spells when None.
    """

    spells: Spells
    timeline: Timeline
    years: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        spells = self.spells
        if self.years is None and self.timeline.calendar == "year" and len(spells):
            first = int((spells.begin + spells.entry).min() // 12)
            last = int((spells.begin + spells.stop - 1).max() // 12)
            object.__setattr__(self, "years", tuple(range(first, last + 1)))
        names = {each.name for each in spells.instruments}
        for each in spells.instruments:
            if each.after and each.after not in names:
                raise UsageError(Fault("duration.instrument_unknown", {"name": each.after}))
        for name in self.timeline.by:
            if not self._by(name):
                raise UsageError(Fault("duration.covariate_unknown", {"name": name}))

    def _by(self, name: str) -> list[int]:
        return [j for j, own in enumerate(self.spells.x.names) if own == name or own.startswith(f"{name}:")]

    @cached_property
    def by_columns(self) -> Terms:
        """Covariates by which the effect differs (S rows), columns in the order asked for."""
        keep = [j for name in self.timeline.by for j in self._by(name)]
        place = np.full(self.spells.x.width + 1, -1)
        place[keep] = np.arange(len(keep))
        x = self.spells.x
        own = [j for j, column in enumerate(x.at) if column in keep]
        return Terms(
            place[x.codes], x.numbers[:, own], place[x.at[own]].astype(np.int32), tuple(x.names[j] for j in keep)
        )

    def base(self, spell: Numbers, month: Numbers, *, start: bool = False) -> Terms:
        """Design without instruments: covariates, elapsed month, calendar; of exits, or of a start."""
        line = self.timeline
        bounds = line.start_duration if start and line.start_duration is not None else line.duration
        parts = [self.spells.x.take(spell)]
        parts.append(factor(np.searchsorted(bounds, month, side="right"), bands(bounds)))
        when = self.spells.begin[spell] + month
        if line.calendar == "year":
            years = self.years or (0,)
            parts.append(factor(np.clip(when // 12, years[0], years[-1]) - years[0], [f"year {y}" for y in years]))
        elif line.calendar == "quarter":
            parts.append(factor(when % 12 // 3, [f"quarter {q}" for q in (1, 2, 3, 4)]))
        return joined(*parts)

    def effect(self, number: int, spell: Numbers, since: Numbers) -> Terms:
        """Design of one instrument ``since`` months after its start (negative: not started)."""
        own = self.spells.instruments[number]
        phase = own.phase(spell, since)
        steps = factor(phase, own.phases, reference=None)
        if number or not self.timeline.by:
            return steps
        on = np.where(phase >= 0, 0, -1)
        return joined(steps, interacted(self.by_columns.take(spell), on, [own.name]))

    def exits(self, spell: Numbers, month: Numbers, since: Sequence[Numbers]) -> Terms:
        """Design of every exit: base and all instruments; ``since`` by instrument."""
        own = [self.effect(number, spell, months) for number, months in enumerate(since)]
        return joined(self.base(spell, month), *own)

    def starts(self, number: int, spell: Numbers, month: Numbers, since: Sequence[Numbers]) -> Terms:
        """Design of the start of an instrument: base, and the instruments that started before it."""
        others = [self.effect(j, spell, months) for j, months in enumerate(since) if j != number]
        return joined(self.base(spell, month, start=True), *others)

    @cached_property
    def modelled(self) -> tuple[int, ...]:
        """Numbers of the instruments whose start is a risk."""
        return tuple(j for j, each in enumerate(self.spells.instruments) if each.modelled)

    @cached_property
    def risks(self) -> tuple[str, ...]:
        """Exits, then starts."""
        own = (f"start {self.spells.instruments[j].name}" for j in self.modelled)
        return (*self.spells.causes, *own)

    def histories(self, timing: Timing = "grouped", *, before: bool = True) -> Histories:
        """The stretches of all spells, with starts as risks where they are modelled.

        ``before``: also the time before spells of the stock came under observation, for models with hidden
        heterogeneity. A stock spell in which an instrument had started by then takes no part with ``before``.

        Raises
        ------
        DesignError
            ``duration.no_start`` when nobody starts the evaluated instrument.
        """
        spells = self.spells
        started = spells.started
        if spells.instruments and not (started[0] < NEVER).any():
            raise DesignError(Fault("duration.no_start", {"instrument": spells.instrument.name}))
        early = np.zeros(len(spells), bool)
        for month in started:
            early |= (month <= spells.entry) & (spells.entry > 0)
        use = ~early if before else np.ones(len(spells), bool)
        row, low, high = self._stretches(use, before)
        month = low
        since = [np.where(each[row] <= low, low - each[row], -1) for each in started]
        exits = self.exits(row, month, since)
        designs = [exits] * len(spells.causes)
        at_risk = [np.ones(len(row), bool)] * len(spells.causes)
        event = np.where((high == spells.stop[row]), spells.cause[row], -1)
        for place, number in enumerate(self.modelled, len(spells.causes)):
            own = started[number][row]
            may = own > low
            needed = spells.instruments[number].after
            if needed:
                other = next(j for j, each in enumerate(spells.instruments) if each.name == needed)
                may &= since[other] >= 0
            at_risk.append(may)
            designs.append(self.starts(number, row, month, since))
            event = np.where((own == high) & may, place, event)
        hidden = low < spells.entry[row]
        event = np.where(hidden, -1, event)
        used, person = np.unique(spells.person[row], return_inverse=True)
        order = np.r_[np.zeros(len(spells.causes), int), np.ones(len(self.modelled), int)]
        ids, cluster = np.unique(spells.cluster[used], return_inverse=True)
        return Histories(
            person, (high - low).astype(float), event, np.column_stack(at_risk), hidden, tuple(designs), self.risks,
            order, np.ones(len(used)), cluster, spells.cluster_ids[ids], spells.level, timing,
        )  # fmt: skip

    def _stretches(self, use: Mask, before: bool) -> tuple[Numbers, Numbers, Numbers]:
        """Spell, first month and month after the last of each stretch, in the order of the spells."""
        spells, line = self.spells, self.timeline
        size = len(spells)
        bounds = sorted({*line.duration, *(line.start_duration or ())})
        marks = [np.full(size, bound) for bound in bounds]
        for each, month in zip(spells.instruments, spells.started, strict=True):
            shift = np.where(month < NEVER, month - each.start, 0)
            marks += [np.where(month < NEVER, edge + shift, NEVER) for edge in each.edges()]
        if line.calendar != "none":
            step = 12 if line.calendar == "year" else 3
            longest = int(spells.stop.max(initial=0)) // step + 2
            first = step - spells.begin % step
            marks += [first + step * k for k in range(longest)]
        marks.append(spells.entry)
        head = np.zeros(size, np.int64) if before else spells.entry
        table = np.column_stack([head, *marks, spells.stop])
        table = np.clip(table, head[:, None], spells.stop[:, None])[use]
        table.sort(axis=1)
        low, high = table[:, :-1], table[:, 1:]
        keep = low < high
        row = np.broadcast_to(np.flatnonzero(use)[:, None], low.shape)[keep]
        return row.astype(np.int64), low[keep], high[keep]
