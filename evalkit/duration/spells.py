"""Spells of which instruments can start along the way, cut into stretches in which nothing changes.

One function makes the design of any month of any spell, real or imagined: the rows that a model is fitted on and the
paths "started in month s" and "did not start" that effects are worked out from are the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.histories import Histories, Timing
from evalkit.duration.repeated import FAR, Repeated
from evalkit.duration.terms import Terms, factor, interacted, joined
from evalkit.effects import frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError
from evalkit.exhibits import Finding

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

NEVER = 2**30
"""Stands for "does not start": later than any month."""

CHUNK = 50_000
"""Spells that are cut at a time, and rows of which designs are made: so much memory beside the result."""


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
        for name in ("start", "length"):
            object.__setattr__(self, name, _whole(f"{self.name}: {name}", getattr(self, name)))
        if self.clock == "end" and (short := int(((self.length < 0) & (self.start < NEVER)).sum())) > 0:
            raise DataError(Fault("duration.spells_length", {"instrument": self.name, "rows": short}))
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


def planned(name: str, start: Numbers, length: NDArray[Any], **settings: Any) -> tuple[Instrument, int]:
    """An instrument with phases by its planned end, and how many plans were filled in.

    ``length`` (S,): planned months, negative or NaN where it is not known: such a start gets the median length (rounded
    down) of the starts whose plan is known. Other settings are those of :class:`Instrument`.

    Raises
    ------
    DesignError
        ``duration.spells_no_plan`` when no plan is known.
    """
    months = np.asarray(length, float)
    starts = np.asarray(start) < NEVER
    known = np.isfinite(months) & (months >= 0)
    if not (known & starts).any():
        raise DesignError(Fault("duration.spells_no_plan", {"instrument": name}))
    usual = int(np.median(months[known & starts]))
    settings.setdefault("clock", "end")
    settings.setdefault("bounds", (6, 12))
    filled = np.where(known, months, usual)
    return Instrument(name, start, np.where(starts, filled, 0), **settings), int((starts & ~known).sum())


def _whole(name: str, values: Any) -> Numbers:
    """Whole numbers, frozen; fractions are refused rather than cut off."""
    array = np.asarray(values)
    if array.dtype.kind not in "iub" and (odd := int((~(array == np.round(array))).sum())) > 0:
        raise DataError(Fault("duration.spells_not_whole", {"column": name, "rows": odd}))
    return frozen(array, np.int64)


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
    repeated: events that happen again and again, see :class:`~evalkit.duration.repeated.Repeated`.
    notes: what was found when they were read that is no fault; sentences stand under ``finding.<code>``.

    Raises
    ------
    DataError
        ``duration.zero_length``, ``duration.spells_not_whole`` for parts of months.
    UsageError
        ``duration.spells_names`` for two instruments or repeated events of one name, ``duration.spells_circle`` when
        instruments need each other.
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
    repeated: tuple[Repeated, ...] = ()
    notes: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        for name in ("person", "entry", "stop", "cause", "begin", "cluster"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        spells = len(self.person)
        lengths = [len(self.entry), len(self.stop), len(self.cause), len(self.begin), len(self.x)]
        if any(each != spells for each in lengths + [len(each.start) for each in self.instruments]):
            raise ValueError("spells: columns of unlike length")
        if spells and ((np.diff(self.person) < 0).any() or self.entry.min() < 0):
            raise ValueError("spells: sort by person; entry is in month 0 or later")
        if spells and not -1 <= self.cause.min() <= self.cause.max() < len(self.causes):
            raise ValueError("spells: a cause without a name")
        if any(len(each) and not 0 <= each.spell[0] <= each.spell[-1] < spells for each in self.repeated):
            raise ValueError("spells: a repeated event of a spell that is not there")
        names = [each.name for each in self.instruments] + [each.name for each in self.repeated]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise UsageError(Fault("duration.spells_names", {"names": ", ".join(twice)}))
        self.turns  # noqa: B018  (instruments that need each other)
        if (short := int((self.stop <= self.entry).sum())) > 0:
            raise DataError(Fault("duration.zero_length", {"rows": short}))

    def __len__(self) -> int:
        return len(self.person)

    @property
    def instrument(self) -> Instrument:
        """The one that is evaluated."""
        return self.instruments[0]

    @cached_property
    def turns(self) -> tuple[int, ...]:
        """Numbers of the instruments in the order in which they take a month: as listed, but after what they need."""
        number = {each.name: place for place, each in enumerate(self.instruments)}
        out: list[int] = []
        left = list(range(len(self.instruments)))
        while left:
            free = [j for j in left if number.get(self.instruments[j].after, -1) not in left]
            if not free:
                names = ", ".join(self.instruments[j].name for j in left)
                raise UsageError(Fault("duration.spells_circle", {"names": names}))
            out.append(free[0])
            left.remove(free[0])
        return tuple(out)

    @cached_property
    def started(self) -> tuple[Numbers, ...]:
        """By instrument (S,) the month of its start, as far as it was seen.

        A start counts when the spell is still observed in that month, or was censored at its beginning: who leaves in
        the month before is taken to have left first. Only one instrument starts in a month: the later one in the list
        waits for a month without another start. One that needs another (``after``) is the later one of the two.
        """
        out: dict[int, Numbers] = {}
        for number in self.turns:
            own = self.instruments[number]
            month = np.where(own.start < NEVER, np.maximum(own.start, 0), NEVER)
            for _ in out:
                taken = np.zeros(len(self), bool)
                for earlier in out.values():
                    taken |= (month < NEVER) & (month == earlier)
                month = np.where(taken, month + 1, month)
            seen = (month < self.stop) | ((month == self.stop) & (self.cause < 0))
            out[number] = np.where(seen, month, NEVER).astype(np.int64)
        return tuple(out[number] for number in range(len(self.instruments)))

    def take(self, keep: NDArray[Any]) -> Spells:
        """Some of the spells; numbers of persons and clusters stay what they are."""
        rows = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep)
        own = tuple(replace(each, start=each.start[rows], length=each.length[rows]) for each in self.instruments)
        parts = {name: getattr(self, name)[rows] for name in ("person", "entry", "stop", "cause", "begin")}
        again = tuple(each.take(rows) for each in self.repeated)
        return replace(self, **parts, x=self.x.take(rows), instruments=own, repeated=again)


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
    by_phase: whether it differs by those covariates in each phase apart, instead of by the same factor in all phases.
    together: pairs of instruments with a column of their own, ``first with second``, from when both have started: what
        the two do together beyond what each does by itself.
    """

    duration: tuple[int, ...] = (1, 2, 3, 6, 9, 12, 18, 24, 36)
    calendar: Literal["none", "year", "quarter"] = "none"
    by: tuple[str, ...] = ()
    start_duration: tuple[int, ...] | None = None
    by_phase: bool = False
    together: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("duration", "start_duration"):
            bounds = getattr(self, name)
            if bounds is not None and (list(bounds) != sorted(set(bounds)) or (bounds and bounds[0] < 1)):
                raise UsageError(Fault("duration.bounds", {"setting": name}))

    def turns(self, begin: Numbers, longest: int) -> list[Numbers]:
        """(S,) elapsed months in which a calendar step begins, one array a step, up to ``longest``."""
        if self.calendar == "none":
            return []
        step = 12 if self.calendar == "year" else 3
        return [step - begin % step + step * number for number in range(longest // step + 1)]


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
        number = {each.name: place for place, each in enumerate(spells.instruments)}
        wanted = [each.after for each in spells.instruments if each.after]
        for name in [*wanted, *(name for pair in self.timeline.together for name in pair)]:
            if name not in number:
                raise UsageError(Fault("duration.instrument_unknown", {"name": name}))
        for one, two in self.timeline.together:
            needed = (*self.needs(number[one]), *self.needs(number[two]))
            if one == two or number[one] in needed or number[two] in needed:
                raise UsageError(Fault("duration.spells_together", {"first": one, "second": two}))
        for name in [*self.timeline.by, *(name for each in spells.repeated for name in each.by)]:
            if not self._by(name):
                raise UsageError(Fault("duration.covariate_unknown", {"name": name}))

    def _by(self, name: str) -> list[int]:
        return [j for j, own in enumerate(self.spells.x.names) if own == name or own.startswith(f"{name}:")]

    @cached_property
    def by_columns(self) -> Terms:
        """Covariates by which the effect differs (S rows), columns in the order asked for."""
        return self._columns(self.timeline.by)

    def _columns(self, names: Sequence[str]) -> Terms:
        """Some of the covariates (S rows), columns in the order asked for."""
        return self.spells.x.only(np.array([j for name in names for j in self._by(name)], np.int64))

    def as_known(self, month: Numbers) -> Layout:
        """The same without repeated events after a month; month (S,).

        For paths from a start on: events after it are what came of it, among those who were still there.
        """
        again = tuple(each.until(month) for each in self.spells.repeated)
        return replace(self, spells=replace(self.spells, repeated=again))

    def base(self, spell: Numbers, month: Numbers, *, start: bool = False) -> Terms:
        """Design without instruments: covariates, elapsed month, calendar; of exits, or of a start."""
        return joined(*self._base(spell, month, start))

    def _base(self, spell: Numbers, month: Numbers, start: bool) -> list[Terms]:
        line = self.timeline
        bounds = line.start_duration if start and line.start_duration is not None else line.duration
        steps = factor(np.searchsorted(bounds, month, side="right"), bands(bounds))
        return [self.spells.x.take(spell), steps, *self.calendar(self.spells.begin[spell] + month)]

    def calendar(self, when: Numbers) -> list[Terms]:
        """Columns of the calendar month ``when``; a year without a column is like the nearest that has one."""
        if self.timeline.calendar == "year":
            years = self.years or (0,)
            return [factor(np.clip(when // 12, years[0], years[-1]) - years[0], [f"year {y}" for y in years])]
        if self.timeline.calendar == "quarter":
            return [factor(when % 12 // 3, [f"quarter {q}" for q in (1, 2, 3, 4)])]
        return []

    def effect(self, number: int, spell: Numbers, since: Numbers, *, always: bool = False) -> Terms:
        """Design of one instrument ``since`` months after its start (negative: not started).

        ``always``: it has started in all rows that count, so that its first phase is the reference.
        """
        own = self.spells.instruments[number]
        phase = own.phase(spell, since)
        reference = 0 if always else None
        steps = factor(phase, own.phases, reference=reference)
        if number or not self.timeline.by or (always and not self.timeline.by_phase):
            return steps
        by = self.by_columns.take(spell)
        if self.timeline.by_phase:
            return joined(steps, interacted(by, phase, own.phases, reference))
        return joined(steps, interacted(by, np.where(phase >= 0, 0, -1), [own.name]))

    def exits(self, spell: Numbers, month: Numbers, since: Sequence[Numbers]) -> Terms:
        """Design of every exit: base, all instruments, pairs of them, repeated events; ``since`` by instrument."""
        own = [self.effect(number, spell, months) for number, months in enumerate(since)]
        again = [self._repeated(each, spell, month) for each in self.spells.repeated]
        return joined(*self._base(spell, month, False), *own, *self._together(since), *again)

    def starts(self, number: int, spell: Numbers, month: Numbers, since: Sequence[Numbers]) -> Terms:
        """Design of the start of an instrument: base, and the instruments that started before it.

        Of one that it needs, which has always started by then, the first phase is the reference.
        """
        needs = self.needs(number)
        others = [self.effect(j, spell, each, always=j in needs) for j, each in enumerate(since) if j != number]
        again = [self._repeated(each, spell, month) for each in self.spells.repeated if each.starts]
        beside = self._together(since, {number, *needs})
        return joined(*self._base(spell, month, True), *others, *beside, *again)

    def needs(self, number: int) -> tuple[int, ...]:
        """Numbers of the instruments without which one cannot start, those that they need included."""
        names = [each.name for each in self.spells.instruments]
        out: list[int] = []
        while after := self.spells.instruments[out[-1] if out else number].after:
            out.append(names.index(after))
        return tuple(out)

    def _together(self, since: Sequence[Numbers], without: set[int] | None = None) -> Iterator[Terms]:
        number = {each.name: place for place, each in enumerate(self.spells.instruments)}
        for pair in self.timeline.together:
            first, second = (number[name] for name in pair)
            if not {first, second} & (without or set()):
                both = (since[first] >= 0) & (since[second] >= 0)
                yield factor(np.where(both, 0, -1), [" with ".join(pair)], reference=None)

    def _repeated(self, each: Repeated, spell: Numbers, month: Numbers) -> Terms:
        return each.columns(spell, month, self._columns(each.by).take(spell) if each.by else None)

    @cached_property
    def modelled(self) -> tuple[int, ...]:
        """Numbers of the instruments whose start is a risk."""
        return tuple(j for j, each in enumerate(self.spells.instruments) if each.modelled)

    @cached_property
    def risks(self) -> tuple[str, ...]:
        """Exits, then starts."""
        own = (f"start {self.spells.instruments[j].name}" for j in self.modelled)
        return (*self.spells.causes, *own)

    def part(self, before: bool = True) -> Mask:
        """(S,) spells that take part in :meth:`histories`.

        With ``before`` a stock spell in which an instrument had started by the time it came under observation takes no
        part, nor do later spells of that person: the chance of the past is not in the model, and hidden differences are
        no longer those of people at entry.
        """
        spells = self.spells
        early = np.zeros(len(spells), bool)
        if not before:
            return ~early
        for month in spells.started:
            early |= (month <= spells.entry) & (spells.entry > 0)
        since = np.full(int(spells.person.max(initial=0)) + 1, np.iinfo(np.int64).max)
        np.minimum.at(since, spells.person[early], spells.begin[early])
        return ~early & (spells.begin < since[spells.person])

    def histories(self, timing: Timing = "grouped", *, before: bool = True) -> Histories:
        """The stretches of all spells, with starts as risks where they are modelled.

        ``before``: also the time before spells of the stock came under observation, for models with hidden
        heterogeneity; see :meth:`part` for spells that take no part. Calendar steps before the first observed one are
        taken to be like it.

        Raises
        ------
        DesignError
            ``duration.no_start`` when nobody starts the evaluated instrument.
        """
        spells = self.spells
        started = spells.started
        if spells.instruments and not (started[0] < NEVER).any():
            raise DesignError(Fault("duration.no_start", {"instrument": spells.instrument.name}))
        row, low, high = self._stretches(self.part(before), before)

        def since(own: slice) -> list[Numbers]:
            at, month = row[own], low[own]
            return [np.where(each[at] <= month, month - each[at], -1) for each in started]

        exits = _built(lambda own: self.exits(row[own], low[own], since(own)), len(row))
        designs = [exits] * len(spells.causes)
        at_risk = np.ones((len(row), len(self.risks)), bool)
        event = np.where((high == spells.stop[row]), spells.cause[row], -1)
        names = [each.name for each in spells.instruments]
        for place, number in enumerate(self.modelled, len(spells.causes)):
            own = started[number][row]
            may = own > low
            if needed := spells.instruments[number].after:
                may &= started[names.index(needed)][row] <= low
            at_risk[:, place] = may

            def start(part: slice, number: int = number) -> Terms:
                return self.starts(number, row[part], low[part], since(part))

            designs.append(_built(start, len(row)))
            event = np.where((own == high) & may, place, event)
        hidden = low < spells.entry[row]
        event = np.where(hidden, -1, event)
        used, person = np.unique(spells.person[row], return_inverse=True)
        order = np.r_[np.zeros(len(spells.causes), int), np.ones(len(self.modelled), int)]
        ids, cluster = np.unique(spells.cluster[used], return_inverse=True)
        return Histories(
            person, (high - low).astype(float), event, at_risk, hidden, tuple(designs), self.risks,
            order, np.ones(len(used)), cluster, spells.cluster_ids[ids], spells.level, timing,
        )  # fmt: skip

    def _stretches(self, use: Mask, before: bool) -> tuple[Numbers, Numbers, Numbers]:
        """Spell, first month and month after the last of each stretch, in the order of the spells."""
        again = [each.edges() for each in self.spells.repeated]
        parts = [
            self._cut(own, before, again)
            for own in np.array_split(np.flatnonzero(use), max(1, -(-int(use.sum()) // CHUNK)))
        ]
        row, low, high = (np.concatenate(each) for each in zip(*parts, strict=True))
        return row, low, high

    def _cut(
        self, own: Numbers, before: bool, again: list[tuple[Numbers, Numbers]]
    ) -> tuple[Numbers, Numbers, Numbers]:
        """The stretches of some spells: where each begins as one number, sorted."""
        spells, line = self.spells, self.timeline
        entry, stop = spells.entry[own], spells.stop[own]
        marks: list[Numbers | int] = [*sorted({*line.duration, *(line.start_duration or ())}), entry]
        for each, started in zip(spells.instruments, spells.started, strict=True):
            month = started[own]
            marks += [np.where(month < NEVER, edge[own] + month - each.start[own], NEVER) for edge in each.edges()]
        marks += line.turns(spells.begin[own], int(stop.max(initial=0)))
        head = np.zeros(len(own), np.int64) if before else entry
        flat = []
        for spell, month in again:
            at = np.minimum(np.searchsorted(own, spell), max(len(own) - 1, 0))
            mine = own[at] == spell if len(own) else np.zeros(len(spell), bool)
            flat.append((at[mine], month[mine]))
        at, low, high = cut(head, stop, marks, flat)
        return own[at], low, high


def cut(
    head: Numbers, stop: Numbers, marks: Sequence[Numbers | int], flat: Sequence[tuple[Numbers, Numbers]] = ()
) -> tuple[Numbers, Numbers, Numbers]:
    """Cut S intervals of months, ``head`` to ``stop - 1``, where one of the marks begins.

    ``marks``: a month, or (S,) months; ``flat``: pairs of interval and month. Marks outside an interval do nothing.
    Returns interval, first month and month after the last of each stretch, in order.
    """
    place = np.arange(len(head)) * FAR
    keys = [place + head]
    for month in marks:
        inside = (month > head) & (month < stop)
        keys.append((place + month)[inside])
    for at, month in flat:
        inside = (month > head[at]) & (month < stop[at])
        keys.append(at[inside] * FAR + month[inside])
    key = np.sort(np.concatenate(keys))
    if not len(key):
        return key, key, key
    key = key[np.r_[True, np.diff(key) > 0]]
    at, low = key // FAR, key % FAR
    return at, low, np.where(np.r_[np.diff(at) > 0, True], stop[at], np.r_[low[1:], 0])


def _built(make: Callable[[slice], Terms], rows: int) -> Terms:
    """A design of many rows, made a part at a time."""
    if rows <= CHUNK:
        return make(slice(0, rows))
    first = make(slice(0, 0))
    codes = np.empty((rows, first.codes.shape[1]), np.int32)
    numbers = np.empty((rows, first.numbers.shape[1]))
    for low in range(0, rows, CHUNK):
        own = slice(low, min(low + CHUNK, rows))
        part = make(own)
        codes[own], numbers[own] = part.codes, part.numbers
    return Terms(codes, numbers, first.at, first.names)
