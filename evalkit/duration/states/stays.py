"""Stays in states: where each person was from when to when, and where he went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.effects import Array, frozen
from evalkit.errors import DataError, Fault

Numbers = NDArray[np.int64]

NEAR = 1e-9
"""Times nearer to each other than this are the same moment: sums of fractions of months do not end exactly."""


@dataclass(frozen=True)
class Stays:
    """S stays ``(start, stop]``, sorted by person and time, of N persons in M states. Make it with :func:`stays`.

    The stays of one person follow each other without gaps. Someone is at risk of moving at time t in a stay with
    ``start < t <= stop``. Who first comes in view above time 0 entered late (left truncation).

    Attributes
    ----------
    person: (S,) number of the person, 0..N-1. person_ids: (N,) names.
    state: (S,) number of the state, 0..M-1. states: M names.
    start, stop: (S,) time, in months for models.
    next: (S,) number of the state he moved to at ``stop``, -1 when observation ended.
    weight: (S,) case weights.
    already: (S,) months that he was in this state before ``start``; 0 except for people found in a state.
    cluster: (N,) 0..G-1, what counts as independent. cluster_ids: (G,). level: what a cluster is.
    """

    person: Numbers
    person_ids: NDArray[Any]
    state: Numbers
    states: tuple[str, ...]
    start: Array
    stop: Array
    next: Numbers
    weight: Array
    already: Array
    cluster: Numbers
    cluster_ids: NDArray[Any]
    level: str = "person"

    def __post_init__(self) -> None:
        for name, kind in (("person", np.int64), ("state", np.int64), ("start", np.float64), ("stop", np.float64),
                           ("next", np.int64), ("weight", np.float64), ("already", np.float64)):  # fmt: skip
            object.__setattr__(self, name, frozen(getattr(self, name), kind))
            if getattr(self, name).shape != self.person.shape:
                raise ValueError(f"stays: {name} does not fit")
        object.__setattr__(self, "cluster", frozen(self.cluster, np.int64))
        if self.cluster.shape != self.person_ids.shape:
            raise ValueError("stays: cluster does not fit")

    def __len__(self) -> int:
        return len(self.person)

    @property
    def persons(self) -> int:
        """N."""
        return len(self.person_ids)

    @cached_property
    def first(self) -> Numbers:
        """(N + 1,) first stay of each person, and S."""
        return np.searchsorted(self.person, np.arange(self.persons + 1)).astype(np.int64)

    @cached_property
    def moves(self) -> Numbers:
        """(M, M) how often each state was left for each other, unweighted."""
        out = np.zeros((len(self.states), len(self.states)), np.int64)
        moved = self.next >= 0
        np.add.at(out, (self.state[moved], self.next[moved]), 1)
        return out

    def number(self, state: str) -> int:
        """The number of a state.

        Raises
        ------
        DataError
            ``duration.states_unknown``.
        """
        if state not in self.states:
            raise DataError(Fault("duration.states_unknown", {"known": ", ".join(self.states)}))
        return self.states.index(state)

    def take(self, rows: NDArray[Any]) -> Stays:
        """Some of the stays; numbers of persons and clusters stay what they are."""
        names = ("person", "state", "start", "stop", "next", "weight", "already")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def stays_from_frame(
    frame: Any,
    *,
    states: Sequence[str],
    person: str,
    state: str,
    start: str,
    stop: str,
    next: str | None = None,
    weight: str | None = None,
    already: str | None = None,
    cluster: str | None = None,
    last: float | None = None,
) -> Stays:
    """From a frame (pandas, Polars, PyArrow) with one row a stay; names of columns for :func:`stays`."""
    table = nw.from_native(frame, eager_only=True)
    given = {"next": next, "weight": weight, "already": already, "cluster": cluster}
    columns: dict[str, Any] = {name: table[column].to_numpy() for name, column in given.items() if column}
    return stays(
        table[person].to_numpy(), table[state].to_numpy(), table[start].to_numpy(), table[stop].to_numpy(),
        states=states, level=cluster or "cluster", last=last, **columns,
    )  # fmt: skip


def stays(
    person: ArrayLike,
    state: ArrayLike,
    start: ArrayLike,
    stop: ArrayLike,
    next: ArrayLike | None = None,
    *,
    states: Sequence[str],
    weight: ArrayLike | None = None,
    already: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    level: str = "cluster",
    last: float | None = None,
) -> Stays:
    """Stays in any order, one value a stay (S,), checked.

    Parameters
    ----------
    states: names of all states, in the order wanted. A state in which nobody stays is one that nobody leaves.
    next: state moved to, empty (None, NaN, "") when observation ended. Where another stay of the person follows it
        may be left empty; without it moves are those between stays that follow each other.
    weight: case weights. already: months in the state before ``start``, for people found in it.
    cluster: what counts as independent, the same in all stays of a person; persons when None. level: its name.
    last: when observation closes.

    Raises
    ------
    DataError
        All that are found, together: ``duration.not_a_number``; ``duration.states_unknown`` (a state that is not among
        ``states``), ``duration.states_nobody`` (a state in which nobody ever is), ``duration.zero_length``,
        ``duration.states_gap``, ``duration.states_overlap``, ``duration.states_same`` (a move to the same state),
        ``duration.states_next`` (``next`` is not the state that follows), ``duration.states_already``,
        ``duration.states_cluster`` (a person in two clusters), ``duration.weight``, ``duration.after_close``,
        ``duration.states_no_moves``.
    """
    begin, until = np.array(start, float), np.array(stop, float)
    size = len(until)
    weights = np.ones(size) if weight is None else np.asarray(weight, float)
    spent = np.zeros(size) if already is None else np.asarray(already, float)
    names = tuple(states)
    finite = np.isfinite(begin) & np.isfinite(until)
    if not finite.all():
        raise DataError(Fault("duration.not_a_number", {"rows": int((~finite).sum())}))
    person_ids, who = np.unique(np.asarray(person), return_inverse=True)
    order = np.lexsort((until, begin, who))
    who = who[order]
    begin, until, weights, spent = begin[order], until[order], weights[order], spent[order]
    here, unknown = _numbers(np.asarray(state, object)[order], names)
    goes, wrong = (np.full(size, -1), False) if next is None else _numbers(np.asarray(next, object)[order], names)
    faults = []
    if unknown or wrong or (here < 0).any():
        faults.append(Fault("duration.states_unknown", {"known": ", ".join(names)}))
    if (short := int((until <= begin).sum())) > 0:
        faults.append(Fault("duration.zero_length", {"rows": short}))
    same = np.flatnonzero(np.diff(who) == 0)
    step = begin[same + 1] - until[same]
    near = np.abs(step) <= NEAR * np.maximum(1.0, np.abs(until[same]))
    begin[same[near] + 1] = until[same[near]]
    if (gap := (step > 0) & ~near).any():
        faults.append(Fault("duration.states_gap", {"persons": len(np.unique(who[same[gap]]))}))
    if (overlap := (step < 0) & ~near).any():
        faults.append(Fault("duration.states_overlap", {"persons": len(np.unique(who[same[overlap]]))}))
    follows = here[same + 1]
    goes[same] = np.where(goes[same] < 0, follows, goes[same])
    if (other := goes[same] != follows).any():
        faults.append(Fault("duration.states_next", {"persons": len(np.unique(who[same[other]]))}))
    if (still := int(((goes == here) & (here >= 0)).sum())) > 0:
        faults.append(Fault("duration.states_same", {"rows": still}))
    seen = np.union1d(here, goes)
    faults += [Fault("duration.states_nobody", {"state": name}) for j, name in enumerate(names) if j not in seen]
    if not (np.isfinite(weights) & (weights > 0)).all():
        faults.append(Fault("duration.weight", {"rows": int((~(np.isfinite(weights) & (weights > 0))).sum())}))
    if not (spent >= 0).all():
        faults.append(Fault("duration.states_already", {"rows": int((~(spent >= 0)).sum())}))
    if last is not None and (late := int((until > last + NEAR * max(1.0, abs(last))).sum())) > 0:
        faults.append(Fault("duration.after_close", {"rows": late}))
    if not (goes >= 0).any():
        faults.append(Fault("duration.states_no_moves", {}))
    cluster_ids, own, called = person_ids, np.arange(len(person_ids)), "person"
    if cluster is not None:
        cluster_ids, by_row = np.unique(np.asarray(cluster)[order], return_inverse=True)
        own, called = by_row[np.searchsorted(who, np.arange(len(person_ids)))], level
        if (two := by_row != own[who]).any():
            faults.append(Fault("duration.states_cluster", {"persons": len(np.unique(who[two]))}))
    if faults:
        raise DataError(faults)
    return Stays(who, person_ids, here, names, begin, until, goes, weights, spent, own, cluster_ids, called)


def _numbers(values: NDArray[Any], names: tuple[str, ...]) -> tuple[Numbers, bool]:
    """Numbers of names, -1 for empty or unknown ones; whether there are unknown ones."""
    place = {name: number for number, name in enumerate(names)}
    text = ["" if v is None or v != v else str(v) for v in values.tolist()]
    return np.array([place.get(v, -1) for v in text], np.int64), any(v and v not in place for v in text)
