"""What comes after an exit: time until the return to benefit, in one model with the exit and the start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.histories import Histories
from evalkit.duration.spells import Layout, Spells, bands, cut
from evalkit.duration.terms import Terms, factor, joined
from evalkit.effects import frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
RETURN = "return"


@dataclass(frozen=True)
class Afterwards:
    """J times after an exit, at most one a spell, and how the hazard of returning moves.

    In month m after an exit that followed t months of benefit, u months after the start,

        ln h_return = x'b + step(m) + length(t) + calendar + delta(phase(u)) + mu_return

    Month 0 is the one after the month of the exit. The phase is that in the month of the exit and stays what it was.

    Attributes
    ----------
    spell: (J,) number of the spell that ended. stop: (J,) months until the return or until observation ends.
    returned: (J,) whether it ended in a return, in month ``stop - 1``.
    cause: the exit that they follow.
    duration: months since the exit at which the second and later steps of the baseline begin.
    length: months of the benefit spell at which its second and later steps begin, () for none.
    phases: ``phase``: a column for each phase of each instrument that had started; ``started``: one an instrument;
        ``none``.
    """

    spell: Numbers
    stop: Numbers
    returned: Mask
    cause: str = "work"
    duration: tuple[int, ...] = (3, 6, 12)
    length: tuple[int, ...] = (6, 12, 24)
    phases: Literal["phase", "started", "none"] = "phase"

    def __post_init__(self) -> None:
        order = np.argsort(np.asarray(self.spell), kind="stable")
        for name, kind in (("spell", np.int64), ("stop", np.int64), ("returned", np.bool_)):
            object.__setattr__(self, name, frozen(np.asarray(getattr(self, name))[order], kind))
        for name in ("duration", "length"):
            bounds = getattr(self, name)
            if list(bounds) != sorted(set(bounds)) or (bounds and bounds[0] < 1):
                raise UsageError(Fault("duration.bounds", {"setting": name}))
        faults = []
        if short := int((self.stop < 1).sum()):
            faults.append(Fault("duration.zero_length", {"rows": short}))
        if twice := int((np.unique(self.spell, return_counts=True)[1] > 1).sum()):
            faults.append(Fault("duration.afterwards_twice", {"spells": twice}))
        if faults:
            raise DataError(faults)

    def __len__(self) -> int:
        return len(self.spell)

    @classmethod
    def of(cls, spells: Spells, last: int, cause: str = "work") -> Afterwards:
        """From the spells themselves: after each exit to ``cause``, until the person's next spell begins.

        ``last``: the last calendar month that is observed, on the scale of ``spells.begin``. A next spell that
        begins in the month of the exit counts as a return in month 0. Exits in the last month have no time after them.
        Other settings than the usual ones: ``dataclasses.replace``.
        """
        if cause not in spells.causes:
            raise DataError(Fault("duration.cause_unknown", {"known": ", ".join(spells.causes)}))
        order = np.lexsort((spells.begin, spells.person))
        follows = np.full(len(spells), -1)
        same = np.diff(spells.person[order]) == 0
        follows[order[:-1][same]] = order[1:][same]
        own = np.flatnonzero(spells.cause == spells.causes.index(cause))
        out = spells.begin[own] + spells.stop[own]
        back = follows[own] >= 0
        stop = np.where(back, np.maximum(spells.begin[follows[own]] - out, 0), last - out) + 1
        keep = stop > 0
        return cls(own[keep], stop[keep], back[keep], cause)

    def design(self, layout: Layout, spell: Numbers, month: Numbers) -> Terms:
        """Design of the return, ``month`` months after the exit of a spell."""
        spells = layout.spells
        t = spells.stop[spell]
        parts = [
            spells.x.take(spell),
            factor(np.searchsorted(self.duration, month, side="right"), bands(self.duration)),
        ]
        parts += layout.calendar(spells.begin[spell] + t + month)
        if self.length:
            low = [1, *(each + 1 for each in self.length)]
            spans = [f"benefit {a}-{b - 1} months" for a, b in zip(low, low[1:], strict=False)]
            spans.append(f"benefit {low[-1]}+ months")
            parts.append(factor(np.searchsorted(self.length, t - 1, side="right"), spans))
        for number, own in enumerate(spells.instruments):
            started = spells.started[number][spell]
            since = np.where(started < t, t - 1 - started, -1)
            if self.phases == "phase":
                parts.append(layout.effect(number, spell, since))
            elif self.phases == "started":
                parts.append(factor(np.where(since < 0, -1, 0), [own.name], reference=None))
        return joined(*parts)


def with_afterwards(histories: Histories, layout: Layout, after: Afterwards, *, before: bool = True) -> Histories:
    """The stretches of a layout, and those after exits, in which the risk is ``return``.

    They belong to the person whose exit it was, so that hidden differences in leaving, starting and returning are
    estimated together; risks are those of the layout, then ``return``. Times after spells that take no part in the
    histories take none.

    Parameters
    ----------
    histories: ``layout.histories(timing, before=before)``.

    Raises
    ------
    DataError
        ``duration.afterwards_cause``, ``duration.cause_unknown``.
    DesignError
        ``duration.afterwards_none`` when nobody returns.
    UsageError
        ``duration.spells_other_histories``.
    """
    spells = layout.spells
    use = layout.part(before)
    people = np.unique(spells.person[use])
    if histories.risks != layout.risks or histories.persons != len(people) or (histories.count != 1).any():
        raise UsageError(Fault("duration.spells_other_histories", {}))
    if after.cause not in spells.causes:
        raise DataError(Fault("duration.cause_unknown", {"known": ", ".join(spells.causes)}))
    if wrong := int((spells.cause[after.spell] != spells.causes.index(after.cause)).sum()):
        raise DataError(Fault("duration.afterwards_cause", {"spells": wrong, "cause": after.cause}))
    mine = np.flatnonzero(use[after.spell])
    if not after.returned[mine].any():
        raise DesignError(Fault("duration.afterwards_none", {"cause": after.cause}))
    stop, spell = after.stop[mine], after.spell[mine]
    marks: list[Numbers | int] = [
        *after.duration,
        *layout.timeline.turns(spells.begin[spell] + spells.stop[spell], int(stop.max())),
    ]
    at, low, high = cut(np.zeros(len(mine), np.int64), stop, marks)
    person = np.searchsorted(people, spells.person[spell[at]])
    event = np.where((high == stop[at]) & after.returned[mine[at]], len(layout.risks), -1)
    old, new = len(histories), len(at)
    order = np.argsort(np.concatenate([histories.person, person]), kind="stable")

    def rows(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.concatenate([first, second])[order])

    longer: dict[int, Terms] = {}
    for design in histories.designs:
        if id(design) not in longer:
            longer[id(design)] = _stacked(design, old + new, np.arange(old)).take(order)
    back = _stacked(after.design(layout, spell[at], low), old + new, np.arange(old, old + new)).take(order)
    at_risk = np.zeros((old + new, len(layout.risks) + 1), bool)
    at_risk[:old, :-1] = histories.at_risk
    at_risk[old:, -1] = True
    return replace(
        histories,
        person=rows(histories.person, person),
        length=rows(histories.length, (high - low).astype(float)),
        event=rows(histories.event, event),
        at_risk=at_risk[order],
        before=rows(histories.before, np.zeros(new, bool)),
        designs=(*(longer[id(design)] for design in histories.designs), back),
        risks=(*histories.risks, RETURN),
        order=np.append(histories.order, 0),
    )


def _stacked(design: Terms, rows: int, place: Numbers) -> Terms:
    """The same columns in more rows, empty but for those at ``place``."""
    codes = np.full((rows, design.codes.shape[1]), -1, np.int32)
    numbers = np.zeros((rows, design.numbers.shape[1]))
    codes[place], numbers[place] = design.codes, design.numbers
    return Terms(codes, numbers, design.at, design.names)
