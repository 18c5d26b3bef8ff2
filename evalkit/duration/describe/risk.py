"""Numbers at risk and events by time: what every curve, test and mean of this package is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.duration.episodes import Episodes
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError
from evalkit.kernels.duration_curves import spread

Numbers = NDArray[np.int64]

THIN = 10
"""Fewer persons at risk than this, before the risk set has filled, and one event moves a curve by a tenth for good."""


@dataclass(frozen=True)
class Risk:
    """Counts on the grid of T event times (of any cause), and the place of each of R stretches on it.

    Attributes
    ----------
    causes: J names. times: (T,) increasing. begin, last: where the clock begins, and the last moment observed.
    at_risk: (T,) weighted number at risk just before. events: (T, J) weighted number of events.
    persons: (T,) number at risk and counts: (T, J) number of events, unweighted.
    start, stop, cause, weight, cluster, label: (R,) of the stretches, joined and cut.
    low, high: (R,) number of grid times up to start and stop: at risk at grid times low .. high - 1.
    cluster_ids, level: as in the episodes.
    plain: weights are all one and nobody shares a cluster or has several stretches: counts are binomial.
    warnings: faults that do not stop the work: risk sets that are empty or very small early on.
    """

    causes: tuple[str, ...]
    times: Array
    begin: float
    last: float
    at_risk: Array
    events: Array
    persons: Numbers
    counts: Numbers
    start: Array
    stop: Array
    low: Numbers
    high: Numbers
    cause: Numbers
    weight: Array
    cluster: Numbers
    label: Numbers
    cluster_ids: NDArray[Any]
    level: str
    plain: bool
    warnings: tuple[Fault, ...]

    @cached_property
    def hazard(self) -> Array:
        """(T, J) events by person at risk."""
        return self.events / self.at_risk[:, None]

    @cached_property
    def total(self) -> Array:
        """(T,) the same for all causes together; exactly 1 where everyone at risk has an event."""
        all_events = self.counts.sum(axis=1) == self.persons
        return np.where(all_events, 1.0, self.hazard.sum(axis=1))

    @cached_property
    def survival(self) -> Array:
        """(T + 1,) product-limit survival after each time, 1 first."""
        return np.concatenate([[1.0], np.cumprod(1.0 - self.total)])

    @cached_property
    def exits(self) -> Array:
        """(T + 1, J) Aalen-Johansen cumulated exits by cause, 0 first."""
        return np.vstack([np.zeros(len(self.causes)), np.cumsum(self.survival[:-1, None] * self.hazard, axis=0)])

    @cached_property
    def stays(self) -> Array:
        """(T,) 1 / (number at risk less events): zero where nobody is left, since then nothing more can change."""
        return np.where(self.total < 1, 1 / (self.at_risk * np.where(self.total < 1, 1 - self.total, 1)), 0.0)

    def place(self, times: ArrayLike) -> Numbers:
        """How many grid times lie at or before each of ``times``.

        Raises
        ------
        DesignError
            ``duration.describe_beyond``: a time after the last that was observed, while people are still there;
            ``duration.describe_before``: a time before the clock begins.
        UsageError
            ``duration.describe_times``: not a number.
        """
        asked = np.atleast_1d(np.asarray(times, float))
        if not np.isfinite(asked).all():
            raise UsageError(Fault("duration.describe_times"))
        if (asked < self.begin).any():
            raise DesignError(Fault("duration.describe_before", {"first": float(self.begin)}))
        if (asked > self.last).any() and self.survival[-1] > 0:
            raise DesignError(Fault("duration.describe_beyond", {"last": float(self.last)}))
        return np.asarray(np.searchsorted(self.times, asked, side="right"), np.int64)

    def present(self, times: Array) -> Array:
        """(K,) weighted number at risk just before any times."""
        return np.array([self.weight[(self.start < time) & (self.stop >= time)].sum() for time in times])

    def labelled(self, number: int, cause: int | None = None) -> Array:
        """(T,) weighted number at risk with a label, or of their events for a cause."""
        mine = self.label == number
        if cause is None:
            return present(self.low[mine], self.high[mine], self.weight[mine], len(self.times))
        mine &= self.cause == cause + 1
        return np.asarray(np.bincount(self.high[mine] - 1, self.weight[mine], len(self.times)), float)

    def rows(self, score: Array) -> Array:
        """(R,) what each stretch adds: w [score(own event) - sum of score x hazard over its time at risk]; (T, J)."""
        drift = np.concatenate([[0.0], np.cumsum((score * self.hazard).sum(axis=1))])
        own = np.column_stack([np.zeros(len(self.times)), score])[np.maximum(self.high - 1, 0), self.cause]
        return self.weight * (own - (drift[self.high] - drift[self.low]))

    def multinomial(self, score: Array) -> float:
        """Variance of what :meth:`rows` adds up to, when events at a time are multinomial among those at risk."""
        first = (self.hazard * score**2).sum(axis=1)
        return float((self.at_risk * np.maximum(first - (self.hazard * score).sum(axis=1) ** 2, 0.0)).sum())

    def influence(self, scores: Sequence[Array]) -> Influence:
        """The same summed by cluster for K scores (T, J) each."""
        values = np.empty((len(self.cluster_ids), len(scores)))
        for k, score in enumerate(scores):
            values[:, k] = np.bincount(self.cluster, self.rows(score), len(self.cluster_ids))
        return Influence(self.cluster_ids, values, self.level)

    def spread(self, enter: Array, own: Array, at: Array) -> Array:
        """(T + 1,) sums of squared influence; own (T, J + 1, 2) is added by the event (first column: none)."""
        leave = own[np.maximum(self.high - 1, 0), self.cause] - enter[self.high]
        return np.maximum(
            spread(self.low, self.high, self.weight, self.cluster, len(self.cluster_ids), enter, leave, at), 0.0
        )


def risk(episodes: Episodes, from_time: float | None = None, label: Numbers | None = None) -> Risk:
    """Count who is at risk and who leaves at each time at which someone leaves.

    With ``from_time`` everything before it is left out: those still there at that time are followed from then on.
    Stretches of one person that follow on each other with one weight (and ``label``) are one stretch. Without any
    event the grid is the last moment observed.

    Raises
    ------
    UsageError
        ``duration.describe_times``: ``from_time`` is not a number.
    DesignError
        ``duration.describe_beyond``: nobody is followed after ``from_time``.
    """
    rows = joined(replace(episodes, stratum=np.zeros(len(episodes), np.int64) if label is None else label))
    if from_time is not None:
        if not np.isfinite(from_time):
            raise UsageError(Fault("duration.describe_times"))
        kept = rows.take(rows.stop > from_time)
        if not len(kept):
            raise DesignError(Fault("duration.describe_beyond", {"last": float(rows.stop.max())}))
        rows = replace(kept, start=np.maximum(kept.start, from_time))
    begin, last = float(rows.start.min() if from_time is None else from_time), float(rows.stop.max())
    went = rows.cause > 0
    times = distinct(rows.stop[went]) if went.any() else np.array([last])
    low, high = (np.searchsorted(times, moment, side="right") for moment in (rows.start, rows.stop))
    causes, size = len(rows.causes), len(times)
    cell = ((high - 1) * causes + rows.cause - 1)[went]
    counts = np.bincount(cell, minlength=size * causes).reshape(size, causes)
    persons = present(low, high, None, size).astype(np.int64)
    weighted = bool((rows.weight != 1).any())
    if weighted:
        at_risk = present(low, high, rows.weight, size)
        events = np.bincount(cell, rows.weight[went], size * causes).reshape(size, causes)
    else:
        at_risk, events = persons.astype(float), counts.astype(float)
    plain = not weighted and int(np.bincount(rows.person).max()) == 1 and _own_clusters(rows)
    found = Risk(
        rows.causes, frozen(times), begin, last, frozen(at_risk), frozen(events), frozen(persons, np.int64),
        frozen(counts, np.int64), rows.start, rows.stop, low, high, rows.cause, rows.weight, rows.cluster, rows.stratum,
        rows.cluster_ids, rows.level, plain, (),
    )  # fmt: skip
    return replace(found, warnings=tuple(_warnings(found, rows, from_time is None)))


def _own_clusters(rows: Episodes) -> bool:
    """Whether no two stretches, each a person, share a cluster."""
    return int(np.bincount(rows.cluster).max()) == 1


def present(low: Numbers, high: Numbers, weight: Array | None, size: int) -> Array:
    """(T,) how many are at risk at each place: entries less exits so far, or exits less entries to come.

    The two are equal but for rounding; the one with the smaller sums is taken, so that the last few at risk are not
    what is left of a million.
    """
    come = np.bincount(low, weight, size + 1)
    go = np.bincount(high, weight, size + 1)
    so_far = np.cumsum(come)[:size]
    to_come = np.cumsum(go[::-1])[::-1][1:]
    ahead = np.cumsum(come[::-1])[::-1][1:]
    return np.where(so_far <= to_come, so_far - np.cumsum(go)[:size], to_come - ahead)


def distinct(values: Array) -> Array:
    """The different values, increasing; whole numbers in a small range without sorting."""
    lowest, highest = values.min(), values.max()
    if highest - lowest < len(values) and (values == np.rint(values)).all():
        return np.flatnonzero(np.bincount((values - lowest).astype(np.int64))) + lowest
    return np.unique(values)


def joined(episodes: Episodes) -> Episodes:
    """Stretches of a person that follow on each other with one weight, cluster and stratum, as one."""
    if int(np.bincount(episodes.person).max()) == 1:
        return episodes
    change = np.diff(episodes.person)
    if (change < 0).any() or (np.diff(episodes.start)[change == 0] < 0).any():
        episodes = episodes.take(np.lexsort((episodes.start, episodes.person)))
    same = (
        (np.diff(episodes.person) == 0)
        & (episodes.start[1:] == episodes.stop[:-1])
        & (episodes.cause[:-1] == 0)
        & (np.diff(episodes.weight) == 0)
        & (np.diff(episodes.cluster) == 0)
        & (np.diff(episodes.stratum) == 0)
    )
    first = np.concatenate([[True], ~same])
    final = np.concatenate([~same, [True]])
    return replace(episodes.take(final), start=episodes.start[first])


def _warnings(found: Risk, rows: Episodes, unasked: bool) -> list[Fault]:
    """What makes the beginning of a curve worthless: survival of zero with people to come, gaps, very small sets."""
    warnings = []
    zero = np.flatnonzero(found.total == 1)
    early = found.times[zero[0]] if len(zero) else found.last
    if early < found.last:
        warnings.append(Fault("duration.describe_early_zero", {"time": float(early)}))
    if found.begin > 0 and unasked:
        warnings.append(Fault("duration.describe_conditional", {"first": found.begin}))
    if (rows.start > found.begin).any():
        ends = distinct(rows.stop)
        come, gone = (
            np.cumsum(np.bincount(np.searchsorted(ends, moment), minlength=len(ends)))
            for moment in (rows.start, rows.stop)
        )
        empty = ends[(come == gone) & (ends < found.last)]
        if len(empty):
            warnings.append(Fault("duration.describe_gap", {"gaps": len(empty), "time": float(empty[-1])}))
        filled = int(np.argmax(found.persons))
        thin = np.flatnonzero(found.persons[:filled] < THIN)
        if len(thin):
            params = {"times": len(thin), "limit": THIN, "time": float(found.times[thin[-1]])}
            warnings.append(Fault("duration.describe_thin", params))
    return warnings


def levels(episodes: Episodes, group: ArrayLike) -> tuple[NDArray[Any], Numbers]:
    """(L,) names of the levels of a factor, sorted, and the number of each stretch's level (R,).

    Raises
    ------
    UsageError
        ``duration.describe_group_length``: not one value a stretch.
    DataError
        ``duration.describe_group_missing``: stretches without a value.
    DesignError
        ``duration.describe_group_constant``: one level only.
    """
    values = np.asarray(group)
    if values.shape != (len(episodes),):
        raise UsageError(Fault("duration.describe_group_length", {"rows": len(episodes), "given": values.size}))
    if values.dtype.kind in "fO":
        missing = sum(value is None or value != value for value in values.tolist())
        if missing:
            raise DataError(Fault("duration.describe_group_missing", {"rows": missing}))
    names, place = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
    if len(names) < 2:
        raise DesignError(Fault("duration.describe_group_constant"))
    return names, place


def apart(parts: Sequence[Risk]) -> bool:
    """Whether no cluster is in two parts."""
    size = max(len(rows.cluster_ids) for rows in parts)
    return int(np.sum([np.bincount(rows.cluster, minlength=size) > 0 for rows in parts], axis=0).max()) == 1


def same_begin(parts: Sequence[Risk]) -> None:
    """DesignError ``duration.describe_begins`` when clocks begin at different times: then likes are not compared."""
    begins = {rows.begin for rows in parts}
    if len(begins) > 1:
        raise DesignError(Fault("duration.describe_begins", {"latest": max(begins)}))
