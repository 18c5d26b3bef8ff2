"""Who is at risk of leaving, in which group, calendar month and elapsed month: what hazards are estimated from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import narwhals as nw
import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.did.panel import NEVER, Mask, Numbers
from evalkit.effects import frozen
from evalkit.errors import DataError, Fault, UsageError

MANY_GROUPS = 30
"""From so many groups on, groups are the clusters unless the caller says otherwise."""

ClusterBy = Literal["auto", "group", "person"]


@dataclass(frozen=True)
class AtRisk:
    """Person-months at risk as counts, and the spells beneath them; R rows, S spells, G groups, D causes.

    A **stratum** is a group, a covariate cell and the calendar month in which spells begin. Its rows are its elapsed
    months, one after the other, so a spell is a run of rows. Elapsed month t lies in the calendar month in which it
    begins, ``calendar = begin + t``. Make it with :func:`spells_at_risk`, :meth:`of_counts` or :meth:`from_frame`.

    Attributes
    ----------
    stratum, group, cell, calendar, elapsed: (R,) numbers of stratum, group and covariate cell (0, 1, ..), calendar
        month on the caller's scale, elapsed month.
    at_risk: (R,) spells on benefit when the month begins. exits: (R, D) how many of them end in it, by cause.
    row, months: (S,) first row of a spell, and its number of rows. cause: (S,) cause of its end, -1 when it still runs
        at the close of the window. person, cluster: (S,) numbers of person and cluster. Sorted by row.
    group_ids (G,), cell_ids, person_ids, cluster_ids: names. level: what a cluster is.
    first: (G,) calendar month from which a group is treated; ``NEVER`` when not within the window.
    causes: D names. window: first and last calendar month.
    """

    stratum: Numbers
    group: Numbers
    cell: Numbers
    calendar: Numbers
    elapsed: Numbers
    at_risk: Numbers
    exits: Numbers
    row: Numbers
    months: Numbers
    cause: Numbers
    person: Numbers
    cluster: Numbers
    group_ids: NDArray[Any]
    cell_ids: NDArray[Any]
    person_ids: NDArray[Any]
    cluster_ids: NDArray[Any]
    level: str
    first: Numbers
    causes: tuple[str, ...]
    window: tuple[int, int]

    def __post_init__(self) -> None:
        for name in ("stratum", "group", "cell", "calendar", "elapsed", "at_risk", "exits", "row", "months", "cause",
                     "person", "cluster", "first"):  # fmt: skip
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))
        rows, spells = len(self.at_risk), len(self.row)
        if self.exits.shape != (rows, len(self.causes)) or len(self.first) != len(self.group_ids):
            raise ValueError("at risk: exits or first do not fit")
        for names, size in ((("stratum", "group", "cell", "calendar", "elapsed"), rows),
                            (("months", "cause", "person", "cluster"), spells)):  # fmt: skip
            if any(len(getattr(self, name)) != size for name in names):
                raise ValueError("at risk: columns of unlike length")

    def __len__(self) -> int:
        return len(self.at_risk)

    @cached_property
    def starts(self) -> Numbers:
        """(P + 1,) first row of each stratum, and R."""
        changes = np.flatnonzero(np.diff(self.stratum)) + 1
        return np.concatenate([[0], changes, [len(self)]]).astype(np.int64)

    @cached_property
    def begin(self) -> Numbers:
        """(P,) calendar month in which the spells of a stratum begin."""
        head = self.starts[:-1]
        return np.asarray(self.calendar[head] - self.elapsed[head], np.int64)

    def pooled(self, destination: str) -> AtRisk:
        """The same with two causes: ``destination``, and all others as ``competing``.

        Raises
        ------
        UsageError
            ``did.hazards_destination`` when nobody leaves for it.
        """
        if destination not in self.causes:
            raise UsageError(Fault("did.hazards_destination", {"known": len(self.causes)}))
        if len(self.causes) == 1:
            return self
        own = self.causes.index(destination)
        exits = np.column_stack([self.exits[:, own], self.exits.sum(axis=1) - self.exits[:, own]])
        cause = np.where(self.cause < 0, -1, (self.cause != own).astype(np.int64))
        return replace(self, exits=exits, cause=cause, causes=(destination, "competing"))

    def together(self) -> AtRisk:
        """The same with one cause, ``any``."""
        exits = self.exits.sum(axis=1, keepdims=True)
        return replace(self, exits=exits, cause=np.where(self.cause < 0, -1, 0), causes=("any",))

    @classmethod
    def of_counts(
        cls,
        group: ArrayLike,
        calendar: ArrayLike,
        elapsed: ArrayLike,
        at_risk: ArrayLike,
        exits: ArrayLike,
        adopted: ArrayLike,
        *,
        causes: Sequence[str] = ("exit",),
        cell: ArrayLike | None = None,
        window: tuple[int, int] | None = None,
        cluster: ClusterBy | ArrayLike = "auto",
        level: str = "cluster",
    ) -> AtRisk:
        """From counts by group, calendar month, elapsed month (and covariate cell): one row each, none without people.

        ``exits`` (R,) or (R, D) in the order of ``causes``; ``adopted`` (R,) the group's first treated calendar month;
        ``cluster`` ``auto``, ``group``, ``person`` (every spell is a person) or one value a row, the same for all rows
        of a group. ``window`` is the first and last calendar month of the rows unless given. Everyone of a stratum
        comes under observation in its first row; those at risk in a month are those of the month before who did not
        leave. See :func:`spells_at_risk` for the rest.

        Raises
        ------
        DataError
            ``did.hazards_counts`` when counts of one month do not follow from those of the month before.
        """
        group_names, g = np.unique(np.asarray(group), return_inverse=True)
        cells = np.zeros(len(g), np.int64) if cell is None else np.asarray(cell)
        cell_names, x = np.unique(cells, return_inverse=True)
        c, t, n = (np.asarray(values, np.int64) for values in (calendar, elapsed, at_risk))
        y = np.asarray(exits, np.int64).reshape(len(n), -1)
        order = np.lexsort((t, c - t, x, g))
        g, x, c, t, n, y = g[order], x[order], c[order], t[order], n[order], y[order]
        first, last = (int(c.min()), int(c.max())) if window is None else window
        begin = c - t
        same = (np.diff(g) == 0) & (np.diff(x) == 0) & (np.diff(begin) == 0)
        left = n - y.sum(axis=1)
        follows = np.where(same, (np.diff(t) == 1) & (n[1:] == left[:-1]), (left[:-1] == 0) | (c[:-1] == last))
        wrong = (
            int((~follows).sum()) + int(left[-1] != 0 and c[-1] != last) + int(((y < 0).any(axis=1) | (left < 0)).sum())
        )
        if wrong:
            raise DataError(Fault("did.hazards_counts", {"rows": wrong}))
        head = np.concatenate([[0], np.flatnonzero(~same) + 1])
        entry = np.repeat(t[head], np.diff(np.append(head, len(t))))
        stays = np.where(c == last, left, 0)
        rows = np.arange(len(t))
        counts = [*(y[:, d] for d in range(y.shape[1])), stays]
        spell = np.concatenate([np.repeat(rows, count) for count in counts])
        kind = np.repeat(np.arange(len(counts)), [int(count.sum()) for count in counts])
        event = kind < y.shape[1]
        names = np.array([*causes, ""], object)
        ids: ClusterBy | ArrayLike = cluster if isinstance(cluster, str) else np.asarray(cluster)[order][spell]
        return spells_at_risk(
            begin[spell], entry[spell], t[spell] + 1, event, names[kind], group_names[g][spell],
            np.asarray(adopted, float)[order][spell], (first, last),
            cell=None if cell is None else cell_names[x][spell], cluster=ids, level=level, causes=causes,
        )  # fmt: skip

    @classmethod
    def from_frame(cls, frame: Any, window: tuple[int, int], **columns: str) -> AtRisk:
        """From a frame (pandas, Polars, PyArrow) with one row a spell; ``columns`` name the arguments of
        :func:`spells_at_risk`: ``entry_month="begin", entry_offset="entry", stop="stop", ..``."""
        table = nw.from_native(frame, eager_only=True)
        return spells_at_risk(**{name: table[column].to_numpy() for name, column in columns.items()}, window=window)


def spells_at_risk(
    entry_month: ArrayLike,
    entry_offset: ArrayLike,
    stop: ArrayLike,
    event: ArrayLike,
    cause: ArrayLike,
    group: ArrayLike,
    adopted: ArrayLike,
    window: tuple[int, int],
    *,
    person: ArrayLike | None = None,
    cell: ArrayLike | None = None,
    cluster: ClusterBy | ArrayLike = "auto",
    level: str = "cluster",
    causes: Sequence[str] | None = None,
) -> AtRisk:
    """Person-months at risk from spells, one value a spell (S,), in any order.

    Parameters
    ----------
    entry_month: number of the calendar month of the spell's first day, on any scale that is above 0 (year x 12 +
        month).
    entry_offset: first elapsed month under observation: 0 for inflow, later for the stock of the window's first day
        (left truncation: who had left before is not in the data, so earlier months are not counted).
    stop: months until the spell ends or observation does: it is at risk in elapsed months ``entry_offset .. stop - 1``.
    event: whether it ended in elapsed month ``stop - 1``. cause: name of the reason, read where ``event``; empty:
        ``unknown``.
    group: what adopts: team, district, municipality. adopted: the first calendar month of which the elapsed months that
        begin in it are treated as a whole; 0, NaN or one after the window: never. The same within a group.
    window: first and last calendar month such that elapsed months that *begin* in it are observed as a whole, whatever
        the day of the month. Months after it are cut, exits and all.
    person: a person may have several spells; without it every spell is one. cell: covariate cell, a category.
    cluster: ``group``, ``person``, ``auto`` (groups from 30 groups on, else persons) or one value a spell; ``level``
        is then what it is called.
    causes: the names in the order wanted; those that occur, sorted, when None.

    The columns ``entry``, ``stop``, ``event`` and ``reason`` of the spell table are ``entry_offset``, ``stop``,
    ``event`` and ``cause``; ``begin`` gives ``entry_month``.

    Raises
    ------
    DataError
        ``did.hazards_lost`` when a spell stops before the window does and did not end: such loss is a cause of its
        own, or the window too long. ``did.hazards_adoption`` when one group has two months of adoption.
        ``did.hazards_nobody`` when no spell is at risk within the window.
    """
    begin, entry, until = (np.asarray(values, np.int64) for values in (entry_month, entry_offset, stop))
    happened = np.asarray(event).astype(bool)
    low, high = int(window[0]), int(window[1])
    full = high + 1 - begin
    entry = np.maximum(entry, low - begin)
    happened = happened & (until <= full)
    until = np.minimum(until, full)
    keep = entry < until
    lost = int((keep & ~happened & (until < full)).sum())
    if lost:
        raise DataError(Fault("did.hazards_lost", {"spells": lost}))
    if not keep.any():
        raise DataError(Fault("did.hazards_nobody", {}))
    names, why = _causes(cause, happened & keep, causes)
    group_ids, g = np.unique(np.asarray(group)[keep], return_inverse=True)
    first = _first(g, len(group_ids), np.asarray(adopted, float)[keep], high)
    person_ids, who = np.unique(
        np.arange(len(begin))[keep] if person is None else np.asarray(person)[keep], return_inverse=True
    )
    cell_ids, x = np.unique(
        np.zeros(int(keep.sum()), np.int64) if cell is None else np.asarray(cell)[keep], return_inverse=True
    )
    begin, entry, until, why = begin[keep], entry[keep], until[keep], why[keep]
    ids, code, called = _clusters(cluster, level, keep, (group_ids, g), (person_ids, who))
    order = np.lexsort((code, who, why, until, entry, begin, x, g))
    g, x, begin, entry, until, why, who, code = (v[order] for v in (g, x, begin, entry, until, why, who, code))

    head = np.flatnonzero(np.r_[True, (np.diff(g) != 0) | (np.diff(x) != 0) | (np.diff(begin) != 0)])
    lowest, highest = np.minimum.reduceat(entry, head), np.maximum.reduceat(until, head)
    length = highest - lowest
    offset = np.concatenate([[0], np.cumsum(length)])
    rows = int(offset[-1])
    stratum = np.repeat(np.arange(len(head)), length)
    of_spell = np.repeat(np.arange(len(head)), np.diff(np.append(head, len(g))))
    elapsed = np.arange(rows) - offset[stratum] + lowest[stratum]
    row = offset[of_spell] + entry - lowest[of_spell]
    months = until - entry
    change = np.bincount(row, minlength=rows + 1) - np.bincount(row + months, minlength=rows + 1)
    ended = why >= 0
    place = (row + months - 1)[ended] * len(names) + why[ended]
    exits = np.bincount(place, minlength=rows * len(names)).reshape(rows, len(names))
    by_row = np.argsort(row, kind="stable")
    return AtRisk(
        stratum, g[head][stratum], x[head][stratum], begin[head][stratum] + elapsed, elapsed, np.cumsum(change)[:rows],
        exits, row[by_row], months[by_row], why[by_row], who[by_row], code[by_row], group_ids, cell_ids, person_ids,
        ids, called, first, names, (low, high),
    )  # fmt: skip


def _causes(cause: ArrayLike, happened: Mask, wanted: Sequence[str] | None) -> tuple[tuple[str, ...], Numbers]:
    """Names of causes, and the number of each spell's cause, -1 when it did not end."""
    given = np.asarray(cause, object)
    text = np.array(["unknown" if v is None or v != v or v == "" else str(v) for v in given[happened]], object)
    found = sorted(set(text.tolist()))
    names = tuple(found) if wanted is None else tuple(wanted)
    if not names:
        names = ("exit",)
    if set(found) - set(names):
        raise UsageError(Fault("did.hazards_destination", {"known": len(names)}))
    place = {name: number for number, name in enumerate(names)}
    why = np.full(len(given), -1, np.int64)
    why[happened] = [place[v] for v in text.tolist()]
    return names, why


def _first(group: Numbers, groups: int, adopted: NDArray[np.float64], last: int) -> Numbers:
    with np.errstate(invalid="ignore"):
        never = ~np.isfinite(adopted) | (adopted <= 0) | (adopted > last)
    when = np.where(never, NEVER, np.where(never, 0, adopted)).astype(np.int64)
    low, high = np.full(groups, NEVER, np.int64), np.zeros(groups, np.int64)
    np.minimum.at(low, group, when)
    np.maximum.at(high, group, when)
    if (low != high).any():
        raise DataError(Fault("did.hazards_adoption", {"groups": int((low != high).sum())}))
    return low


def _clusters(
    cluster: ClusterBy | ArrayLike,
    level: str,
    keep: Mask,
    groups: tuple[NDArray[Any], Numbers],
    persons: tuple[NDArray[Any], Numbers],
) -> tuple[NDArray[Any], Numbers, str]:
    if isinstance(cluster, str):
        by = ("group" if len(groups[0]) >= MANY_GROUPS else "person") if cluster == "auto" else cluster
        if by not in ("group", "person"):
            raise UsageError(Fault("did.hazards_setting", {"setting": "cluster"}))
        return (*(groups if by == "group" else persons), by)
    ids, code = np.unique(np.asarray(cluster)[keep], return_inverse=True)
    return ids, code, level
