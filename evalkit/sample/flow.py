"""Counting who falls out and why, by arm, so that the steps add up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.exhibits import Lost
from evalkit.sample.types import FlowRow

Mask = NDArray[np.bool_]


class Tally:
    """Counts exclusions of entries and of persons over several batches of candidates.

    A person falls out at the step that removes the last of his entries; so persons add up as entries do.
    """

    def __init__(self, arm: str, start: str, persons: int):
        self._arm = arm
        self._start = start
        self._size = persons
        self._entries: dict[str, int] = {}
        self._present: dict[str, Mask] = {start: np.zeros(persons, bool)}
        self._total = 0

    def sieve(self, person: NDArray[np.integer], steps: list[tuple[str, Mask]]) -> Mask:
        """Apply exclusions in order to one batch; each mask (n,) says who is excluded. Returns who is left."""
        self._total += len(person)
        self._present[self._start][person] = True
        left = np.ones(len(person), bool)
        for reason, excluded in steps:
            self._entries[reason] = self._entries.get(reason, 0) + int((left & excluded).sum())
            left &= ~excluded
            present = self._present.setdefault(reason, np.zeros(self._size, bool))
            present[person[left]] = True
        return left

    def rows(self) -> tuple[FlowRow, ...]:
        """The flow: start, one row a reason, left. Reasons that nobody met are left out."""
        persons = int(self._present[self._start].sum())
        entries = self._total
        rows = [FlowRow(0, self._arm, "start", self._start, persons, entries)]
        for reason, out in self._entries.items():
            now = int(self._present[reason].sum())
            if out:
                rows.append(FlowRow(len(rows), self._arm, "out", reason, persons - now, out))
            persons, entries = now, entries - out
        rows.append(FlowRow(len(rows), self._arm, "left", "left", persons, entries))
        return tuple(rows)


def extend(flow: tuple[FlowRow, ...], lost: Lost) -> tuple[FlowRow, ...]:
    """The flow with one more exclusion before the last row of its arm; nothing changes when nobody falls out."""
    out: list[FlowRow] = []
    for row in flow:
        if row.arm == lost.arm and row.kind == "left" and row.entries != lost.entries_left:
            gone = (row.persons - lost.persons_left, row.entries - lost.entries_left)
            out.append(FlowRow(row.step, row.arm, "out", lost.reason, *gone))
            row = FlowRow(row.step + 1, row.arm, "left", "left", lost.persons_left, lost.entries_left)
        out.append(row)
    return tuple(out)
