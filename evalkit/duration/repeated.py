"""Events that happen again and again within a spell, such as meetings: by how many there were and how long ago."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.terms import Terms, factor, interacted, joined
from evalkit.effects import frozen
from evalkit.errors import Fault, UsageError

Numbers = NDArray[np.int64]

FAR = 2**32
"""More than any month: spell and month in one number."""


@dataclass(frozen=True)
class Repeated:
    """M events of one kind in S spells.

    In elapsed month m a spell with n events in month m or before, the last one u months ago, has

        r(u) + o(n),   u in 0, 1-2, 3 and more months,   n = 1 (reference), 2, .., ``orders`` and more

    added to its log hazard, and nothing before its first event. With ``cells`` it has ``c(n, u)``, one for each pair.
    An event counts from the first month that begins on its day or after it, as instruments do: whoever has a meeting
    was there until then, so the month that the meeting falls in cannot count as one with it.

    The path of events is taken as given (each comes about without regard to who is about to leave, given covariates,
    time and hidden heterogeneity); their own hazard is not modelled.

    Attributes
    ----------
    name. spell: (M,) number of the spell, 0..S-1. month: (M,) first elapsed month that counts as with the event.
    orders: from which number on events count alike, 1 for no difference by number.
    recency: increasing months since the event at which the second and later phases begin; the first is the month itself
        with (1, ..).
    by: names of covariates by which the effect differs (columns ``covariate x name``, for all events alike).
    starts: whether it has columns in the hazards of starting as well.
    cells: whether number and recency have a column for each pair instead of adding up.
    """

    name: str
    spell: Numbers
    month: Numbers
    orders: int = 3
    recency: tuple[int, ...] = (1, 3)
    by: tuple[str, ...] = ()
    starts: bool = False
    cells: bool = False

    def __post_init__(self) -> None:
        spell, month = (frozen(each, np.int64) for each in (self.spell, self.month))
        if spell.shape != month.shape:
            raise ValueError("repeated: a month for each event")
        if list(self.recency) != sorted(set(self.recency)) or (self.recency and self.recency[0] < 1) or self.orders < 1:
            raise UsageError(Fault("duration.spells_repeated", {"name": self.name}))
        order = np.lexsort((month, spell))
        object.__setattr__(self, "spell", frozen(spell[order], np.int64))
        object.__setattr__(self, "month", frozen(month[order], np.int64))

    def __len__(self) -> int:
        return len(self.spell)

    @property
    def phases(self) -> tuple[str, ...]:
        """Names by recency."""
        edges = [0, *self.recency]
        spans = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in zip(edges, edges[1:], strict=False)]
        return tuple(f"{self.name} month {span}" for span in [*spans, f"{edges[-1]}+"])

    @property
    def numbered(self) -> tuple[str, ...]:
        """Names by number of events."""
        last = self.orders
        return tuple(f"{self.name} {n}{'+' if n == last else ''}" for n in range(1, last + 1))

    def state(self, spell: Numbers, month: Numbers) -> tuple[Numbers, Numbers]:
        """Events so far, and months since the last one (-1 without any)."""
        key = self.spell * FAR + self.month
        place = np.searchsorted(key, spell * FAR + month, side="right")
        count = place - np.searchsorted(self.spell, spell, side="left")
        last = self.month[np.maximum(place - 1, 0)] if len(self) else np.zeros(len(spell), np.int64)
        return count.astype(np.int64), np.where(count > 0, month - last, -1).astype(np.int64)

    def columns(self, spell: Numbers, month: Numbers, by: Terms | None = None) -> Terms:
        """Design of rows (spell, month); ``by``: covariates by which the effect differs, on the same rows."""
        count, since = self.state(spell, month)
        phase = np.where(since < 0, -1, np.searchsorted(self.recency, since, side="right"))
        number = np.minimum(count, self.orders) - 1
        if self.cells:
            names = [f"{number_of}, {made}" for number_of in self.numbered for made in self.phases]
            cell = np.where(since < 0, -1, number * len(self.phases) + phase)
            parts = [factor(cell, names, reference=None)]
        else:
            parts = [factor(phase, self.phases, reference=None), factor(number, self.numbered)]
        if by is not None and by.width:
            parts.append(interacted(by, np.where(since < 0, -1, 0), [self.name]))
        return joined(*parts)

    def edges(self) -> tuple[Numbers, Numbers]:
        """Spell and month of everything that changes: events, and the phases after each until the next."""
        later = np.full(len(self), np.iinfo(np.int64).max)
        same = np.diff(self.spell) == 0
        later[:-1][same] = self.month[1:][same]
        spells, months = [self.spell], [self.month]
        for bound in self.recency:
            own = self.month + bound < later
            spells.append(self.spell[own])
            months.append(self.month[own] + bound)
        return np.concatenate(spells), np.concatenate(months)

    def take(self, rows: Numbers) -> Repeated:
        """Those of some of the spells, numbered anew in the order of ``rows``; a spell may stand there twice."""
        first = np.searchsorted(self.spell, rows, side="left")
        size = np.searchsorted(self.spell, rows, side="right") - first
        spell = np.repeat(np.arange(len(rows)), size)
        place = np.arange(len(spell)) - np.repeat(np.cumsum(size) - size, size) + np.repeat(first, size)
        return replace(self, spell=spell, month=self.month[place])

    def until(self, last: Numbers) -> Repeated:
        """Without events after a month; last (S,)."""
        own = self.month <= last[self.spell]
        return replace(self, spell=self.spell[own], month=self.month[own])
