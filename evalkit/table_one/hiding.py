"""Which counts to hide, so that a small one is neither shown nor derived from its total."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.table_one.model import Hidden

VALUES = 3
"""A hidden count must leave a reader who adds and subtracts this many values at least."""


def hidden_cells(counts: Sequence[int], minimum: int) -> tuple[Hidden, ...]:
    """Which counts of one total to hide: ``small`` ones, and ``cover`` so that none can be derived.

    Counts of 1 .. minimum - 1 are small. A reader knows the total, the shown counts, that small ones lie in
    1 .. minimum - 1, and that covers are 0 or at least ``minimum`` and no larger than any shown count that is not 0.
    While that leaves a small count fewer than three possible values (or fewer than there are when minimum < 4), the
    smallest shown count that is not zero is hidden too, then a zero; without one left to hide, all are hidden as
    covers.
    """
    why: list[Hidden] = ["small" if 0 < count < minimum else "" for count in counts]
    if "small" not in why:
        return tuple(why)
    while _possible(counts, why, minimum) < min(VALUES, minimum - 1):
        shown = sorted((j for j in range(len(counts)) if not why[j]), key=lambda j: (counts[j] == 0, counts[j], j))
        if not shown:
            why = ["cover"] * len(counts)
            break
        why[shown[0]] = "cover"
    return tuple(why)


def _possible(counts: Sequence[int], why: Sequence[str], minimum: int) -> int:
    """How many values one small count may have (all of them alike), for who knows the total and what is shown."""
    rest = sum(count for count, hidden in zip(counts, why, strict=True) if hidden)
    small = sum(hidden == "small" for hidden in why) - 1
    covers = sum(hidden == "cover" for hidden in why)
    largest = min((c for c, hidden in zip(counts, why, strict=True) if not hidden and c > 0), default=rest)

    def reachable(left: int) -> bool:
        """Whether ``left`` is a sum of the other small counts and the covers."""
        return any(
            small + used * minimum <= left <= small * (minimum - 1) + used * max(minimum, largest)
            for used in range(covers + 1)
        )

    return sum(reachable(rest - value) for value in range(1, minimum))
