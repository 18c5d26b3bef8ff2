"""People who move between states, and an instrument that can start along the way, cut into stretches for a model.

Months are whole: a stay ``(start, stop]`` covers the months start .. stop - 1 and who moves at ``stop`` moved within
month stop - 1, so that the state at the beginning of month k is the state at the close of the month before. At most
one move a month.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.duration.histories import Histories
from evalkit.duration.spells import NEVER, Instrument, bands
from evalkit.duration.states.stays import Stays
from evalkit.duration.terms import Terms
from evalkit.effects import Array, frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

DEPENDENT = 1e-9
"""A column of which no more than this share of its length is left beside the other columns adds nothing."""


@dataclass(frozen=True)
class Journeys:
    """Stays of N persons in whole months since entry, with what is known of them and the instrument.

    Attributes
    ----------
    stays.
    begin: (N,) number of the calendar month of entry (month 0), on a scale on which 12 divides the first month of a
        year.
    x: covariates known at entry (N rows).
    instrument: its ``start`` and ``length`` by person (N,).
    where: the state in which it can start.

    Raises
    ------
    DataError
        ``duration.states_unknown``; ``duration.states_months`` (a time that is no whole month);
        ``duration.states_start_elsewhere`` (people who start the instrument in another state than ``where``).
    DesignError
        ``duration.no_start`` when nobody starts it while observed.
    UsageError
        ``duration.states_weights``: models know no case weights.
    """

    stays: Stays
    begin: Numbers
    x: Terms
    instrument: Instrument
    where: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "begin", frozen(self.begin, np.int64))
        stays = self.stays
        size = stays.persons
        if any(len(each) != size for each in (self.begin, self.x, self.instrument.start, self.instrument.length)):
            raise ValueError("journeys: one row a person")
        stays.number(self.where)
        if (stays.weight != 1).any():
            raise UsageError(Fault("duration.states_weights", {}))
        times = np.column_stack([stays.start, stays.stop, stays.already])
        if (broken := int((times != np.round(times)).any(axis=1).sum())) > 0:
            raise DataError(Fault("duration.states_months", {"rows": broken}))
        if not (self.started < NEVER).any():
            raise DesignError(Fault("duration.no_start", {"instrument": self.instrument.name}))

    @cached_property
    def _placed(self) -> tuple[Numbers, Numbers]:
        """(N,) the month of the start, and the stay in which it falls: -1 when that lies before observation."""
        stays, size = self.stays, self.stays.persons
        month = np.where(self.instrument.start < NEVER, np.maximum(self.instrument.start, 0), NEVER)
        own = month[stays.person]
        inside = (own >= stays.start) & ((own < stays.stop) | ((own == stays.stop) & (stays.next < 0)))
        stay = np.full(size, -1)
        stay[stays.person[inside]] = np.flatnonzero(inside)
        early = month < stays.start[stays.first[:-1]]
        where = stays.number(self.where)
        there = (stay >= 0) & (stays.state[stay] == where)
        just_left = np.zeros(size, bool)
        left = (own == stays.stop) & (stays.next >= 0) & (stays.state == where)
        just_left[stays.person[left]] = True
        beyond = ~early & (stay < 0)
        elsewhere = (stay >= 0) & ~there & ~just_left
        if elsewhere.any():
            raise DataError(Fault("duration.states_start_elsewhere",
                                  {"persons": int(elsewhere.sum()), "state": self.where}))  # fmt: skip
        counts = early | there
        return np.where(counts & ~beyond, month, NEVER).astype(np.int64), np.where(there, stay, -1)

    @property
    def started(self) -> Numbers:
        """(N,) month of the start of the instrument as far as it was seen, else ``NEVER``.

        Who leaves the state in the month before is taken to have left first, and did not start.
        """
        return self._placed[0]

    @property
    def stay(self) -> Numbers:
        """(N,) the stay in which the instrument starts; -1 without one, or when it started before observation."""
        return self._placed[1]


@dataclass(frozen=True)
class Steps:
    """How hazards of moving depend on time.

    Attributes
    ----------
    duration: months since entry at which the second and later steps begin.
    stay: the same in months in the state.
    calendar: ``none``, ``year`` (a step a calendar year) or ``quarter`` (a step a quarter of the year).
    unaffected: moves (``regular -> benefit``) that the instrument leaves as they are.
    least: events a step must have; one with fewer joins the step before it (the first: the one after it).
    """

    duration: tuple[int, ...] = (3, 6, 12, 24)
    stay: tuple[int, ...] = (3, 12)
    calendar: Literal["none", "year", "quarter"] = "none"
    unaffected: tuple[str, ...] = ()
    least: int = 5

    def __post_init__(self) -> None:
        for name in ("duration", "stay"):
            bounds = getattr(self, name)
            if list(bounds) != sorted(set(bounds)) or (bounds and bounds[0] < 1):
                raise UsageError(Fault("duration.bounds", {"setting": name}))


@dataclass(frozen=True)
class Columns:
    """Which column of one hazard each covariate and each step has; -1: none.

    Attributes
    ----------
    x: (P,) by covariate. duration, calendar, stay, effect: by step.
    names: of the columns.
    """

    x: Numbers
    duration: Numbers
    calendar: Numbers
    stay: Numbers
    effect: Numbers
    names: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Which columns the hazard of each move has: journeys and steps together.

    A hazard has its own covariates, steps of time since entry, of calendar time, of time in the state, and of the
    effect of the instrument. Steps with too few events are joined; levels of a covariate without events join the
    reference; columns that follow from the others are left out. ``joined`` says which.

    Raises
    ------
    UsageError
        ``duration.states_move_unknown``: ``unaffected`` names a move that nobody makes.
    DesignError
        ``duration.states_no_effect``: nobody, or everybody, who makes a move had started, so that its effect cannot be
        told; name the move as ``unaffected``.
    """

    journeys: Journeys
    steps: Steps = Steps()

    def __post_init__(self) -> None:
        known = self.moves
        for name in self.steps.unaffected:
            if name not in known:
                raise UsageError(Fault("duration.states_move_unknown", {"known": ", ".join(known)}))
        self._made  # noqa: B018  (what cannot be told is refused at once)

    @cached_property
    def pairs(self) -> Numbers:
        """(J, 2) moves that are made: state left, state moved to."""
        return np.argwhere(self.journeys.stays.moves > 0)

    @property
    def moves(self) -> tuple[str, ...]:
        """J names, ``benefit -> regular``."""
        names = self.journeys.stays.states
        return tuple(f"{names[a]} -> {names[b]}" for a, b in self.pairs.tolist())

    @property
    def risks(self) -> tuple[str, ...]:
        """Moves, then the start of the instrument."""
        return (*self.moves, f"start {self.journeys.instrument.name}")

    @property
    def order(self) -> Numbers:
        """Moves come first in a month, a start comes last."""
        return np.r_[np.zeros(len(self.pairs), np.int64), 1]

    @property
    def columns(self) -> tuple[Columns, ...]:
        """By risk."""
        return self._made[0]

    @property
    def joined(self) -> tuple[str, ...]:
        """What was joined or left out: ``benefit -> out: month 24+``."""
        return self._made[1]

    def histories(self) -> Histories:
        """The stretches of everybody, for a model of all moves and of starting together."""
        cut, stays = self._cut, self.journeys.stays
        designs = tuple(self._design(own, cut) for own in self.columns)
        return Histories(
            stays.person[cut.row], (cut.high - cut.low).astype(float), cut.event, cut.at_risk,
            np.zeros(len(cut.row), bool), designs, self.risks, self.order, np.ones(stays.persons), stays.cluster,
            stays.cluster_ids, stays.level, "grouped",
        )  # fmt: skip

    def level(self, kind: str, value: ArrayLike) -> Numbers:
        """Number of the step of ``duration`` (months since entry), ``stay`` (in the state), ``calendar`` (month)."""
        number = np.asarray(value, np.int64)
        if kind == "calendar":
            if self.steps.calendar == "quarter":
                return number % 12 // 3
            if self.steps.calendar == "none":
                return np.zeros_like(number)
            first, last = self._years
            return np.clip(number // 12, first, last) - first
        return np.searchsorted(getattr(self.steps, kind), number, side="right").astype(np.int64)

    @cached_property
    def _years(self) -> tuple[int, int]:
        stays, begin = self.journeys.stays, self.journeys.begin[self.journeys.stays.person]
        return int((begin + stays.start).min() // 12), int((begin + stays.stop - 1).max() // 12)

    @cached_property
    def _levels(self) -> dict[str, tuple[str, ...]]:
        """Names of the steps."""
        calendar: tuple[str, ...] = ("all",)
        if self.steps.calendar == "year":
            first, last = self._years
            calendar = tuple(f"year {y}" for y in range(first, last + 1))
        elif self.steps.calendar == "quarter":
            calendar = tuple(f"quarter {q}" for q in (1, 2, 3, 4))
        stay = tuple(name.replace("month", "in state", 1) for name in bands(self.steps.stay))
        return {"duration": bands(self.steps.duration), "calendar": calendar, "stay": stay,
                "effect": self.journeys.instrument.phases}  # fmt: skip

    @cached_property
    def _cut(self) -> _Cut:
        """Stretches in which nothing changes, in the order of the stays."""
        journeys, steps = self.journeys, self.steps
        stays, size = journeys.stays, len(journeys.stays)
        start, stop = stays.start.astype(np.int64), stays.stop.astype(np.int64)
        entered = start - stays.already.astype(np.int64)
        marks = [np.full(size, bound) for bound in steps.duration]
        marks += [entered + bound for bound in steps.stay]
        month = journeys.started[stays.person]
        shift = np.where(month < NEVER, month - journeys.instrument.start[stays.person], 0)
        for edge in journeys.instrument.edges():
            marks.append(np.where(month < NEVER, edge[stays.person] + shift, NEVER))
        if steps.calendar != "none":
            wide = 12 if steps.calendar == "year" else 3
            first = wide - journeys.begin[stays.person] % wide
            marks += [first + wide * k for k in range(int(stop.max()) // wide + 2)]
        table = np.clip(np.column_stack([start, *marks, stop]), start[:, None], stop[:, None])
        table.sort(axis=1)
        keep = table[:, :-1] < table[:, 1:]
        row = np.broadcast_to(np.arange(size)[:, None], keep.shape)[keep]
        low, high = table[:, :-1][keep], table[:, 1:][keep]
        since = np.where(month[row] <= low, low - month[row], -1)
        phase = journeys.instrument.phase(stays.person[row], since)
        number = np.full((len(stays.states) + 1, len(stays.states) + 1), -1)
        number[tuple(self.pairs.T)] = np.arange(len(self.pairs))
        event = np.where(high == stop[row], number[stays.state[row], stays.next[row]], -1)
        may = (stays.state[row] == stays.number(journeys.where)) & (month[row] > low)
        event = np.where(may & (month[row] == high) & (event < 0), len(self.pairs), event)
        at_risk = np.column_stack([stays.state[row][:, None] == self.pairs[:, 0], may])
        levels = {
            "duration": self.level("duration", low),
            "calendar": self.level("calendar", journeys.begin[stays.person[row]] + low),
            "stay": self.level("stay", low - entered[row]),
            "effect": phase,
        }
        return _Cut(row, low, high, event, at_risk, stays.person[row], levels)

    @cached_property
    def _made(self) -> tuple[tuple[Columns, ...], tuple[str, ...]]:
        made, joined = [], []
        for number, name in enumerate(self.risks):
            columns, lost = self._columns(number, name)
            made.append(columns)
            joined += [f"{name}: {level}" for level in lost]
        return tuple(made), tuple(joined)

    def _columns(self, number: int, name: str) -> tuple[Columns, list[str]]:
        """Columns of one hazard, and what was joined or left out."""
        cut, x = self._cut, self.journeys.x
        exposed = np.flatnonzero(cut.at_risk[:, number])
        events = np.flatnonzero(cut.event == number)
        affected = number < len(self.pairs) and name not in self.steps.unaffected
        lost: list[str] = []
        places: dict[str, Numbers] = {}
        labels: list[str] = list(x.names)
        place = np.arange(x.width)
        for kind in ("duration", "calendar", "effect", "stay"):
            names = self._levels[kind]
            if kind == "effect" and not affected:
                places[kind] = np.full(len(names), -1)
                continue
            level = cut.levels[kind]
            counts = np.bincount(level[events][level[events] >= 0], minlength=len(names))
            if kind == "effect" and not counts.any():
                raise DesignError(Fault("duration.states_no_effect", {"move": name}))
            group, firsts = _together(counts, self.steps.least)
            lost += [names[k] for k in range(len(names)) if k not in firsts]
            keep = [names[k] for k in firsts]
            if kind != "effect":
                group, keep = group - 1, keep[1:]
            places[kind] = np.where(group >= 0, group + len(labels), -1)
            labels += keep
        design = self._design(_placed(place, places, labels), cut).take(exposed)
        held = _independent(design, (cut.high - cut.low)[exposed].astype(float))
        held[_without_events(x.take(cut.person[exposed]), np.searchsorted(exposed, events))] = False
        if not held[places["effect"][places["effect"] >= 0]].all():
            raise DesignError(Fault("duration.states_no_effect", {"move": name}))
        lost += [labels[k] for k in np.flatnonzero(~held)]
        new = np.r_[np.where(held, np.cumsum(held) - 1, -1), -1]
        kept = tuple(label for label, own in zip(labels, held.tolist(), strict=True) if own)
        moved = {kind: new[each] for kind, each in places.items()}
        return _placed(new[place], moved, kept), lost

    def _design(self, columns: Columns, cut: _Cut) -> Terms:
        """The design of one hazard in every stretch."""
        x = self.journeys.x
        own = np.r_[columns.x, -1]
        steps = [getattr(columns, kind)[cut.levels[kind]] for kind in ("duration", "calendar", "stay")]
        phase = cut.levels["effect"]
        steps.append(np.where(phase >= 0, columns.effect[phase], -1))
        codes = np.column_stack([own[x.codes[cut.person]], *steps])
        used = columns.x[x.at] >= 0
        return Terms(codes, x.numbers[cut.person][:, used], columns.x[x.at[used]].astype(np.int32), columns.names)


@dataclass(frozen=True)
class _Cut:
    """Stretches: stay (R,), months low .. high - 1, event, at_risk (R, J + 1), person, steps by kind."""

    row: Numbers
    low: Numbers
    high: Numbers
    event: Numbers
    at_risk: Mask
    person: Numbers
    levels: dict[str, Numbers]


def _placed(x: Numbers, places: dict[str, Numbers], names: Sequence[str]) -> Columns:
    return Columns(x, places["duration"], places["calendar"], places["stay"], places["effect"], tuple(names))


def _without_events(x: Terms, events: Numbers) -> Numbers:
    """Columns of the levels of covariates without events; where the reference has none, of its largest level."""
    out: list[int] = []
    for code in x.codes.T:
        mine = np.unique(code[code >= 0])
        counts = np.bincount(code[events] + 1, minlength=x.width + 1)
        out += [int(k) for k in mine if counts[k + 1] == 0]
        if counts[0] == 0 and (code < 0).any() and len(mine):
            out.append(int(mine[np.argmax(counts[mine + 1])]))
    return np.array(out, np.int64)


def _together(counts: Numbers, least: int) -> tuple[Numbers, list[int]]:
    """Group of each step so that every group has enough events, as far as there are; and the first step of each."""
    group, firsts, inside = np.zeros(len(counts), np.int64), [0], 0
    for k, count in enumerate(counts.tolist()):
        rest = int(counts[k:].sum())
        if k and inside >= max(least, 1) and rest >= max(least, 1):
            firsts.append(k)
            inside = 0
        group[k] = len(firsts) - 1
        inside += count
    return group, firsts


def _independent(design: Terms, weight: Array) -> Mask:
    """(P,) columns that do not follow from the intercept and those before them."""
    width = design.width
    gram = np.zeros((width + 1, width + 1))
    gram[0, 0] = weight.sum()
    gram[0, 1:] = gram[1:, 0] = design.sums(weight)[0]
    gram[1:, 1:] = design.products(weight)
    length = gram.diagonal().copy()
    held = np.zeros(width + 1, bool)
    for k in range(width + 1):
        if gram[k, k] > DEPENDENT * length[k]:
            held[k] = True
            gram = gram - np.outer(gram[:, k], gram[k]) / gram[k, k]
    return held[1:]
