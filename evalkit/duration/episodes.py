"""Stretches of time at risk as a counting process: what curves, tests and regressions in continuous time start from."""

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
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Episodes:
    """R stretches ``(start, stop]`` of time at risk, in any order. Make it with :func:`episodes` or :meth:`from_frame`.

    Someone is at risk at time t in a stretch with ``start < t <= stop``: not at his own entry time.

    Attributes
    ----------
    start, stop: (R,) time, ``start < stop``.
    cause: (R,) 0 when the stretch ends without an event, else 1..J, the number of the event.
    causes: J names.
    person: (R,) number of the person, 0..N-1. person_ids: (N,) names.
    weight: (R,) case weights, all ones when there are none.
    stratum: (R,) 0..S-1. stratum_ids: (S,) names.
    cluster: (R,) 0..G-1, what counts as independent. cluster_ids: (G,) names. level: what a cluster is.
    """

    start: Array
    stop: Array
    cause: Numbers
    causes: tuple[str, ...]
    person: Numbers
    person_ids: NDArray[Any]
    weight: Array
    stratum: Numbers
    stratum_ids: NDArray[Any]
    cluster: Numbers
    cluster_ids: NDArray[Any]
    level: str = "person"

    def __post_init__(self) -> None:
        for name, kind in (("start", np.float64), ("stop", np.float64), ("weight", np.float64), ("cause", np.int64),
                           ("person", np.int64), ("stratum", np.int64), ("cluster", np.int64)):  # fmt: skip
            object.__setattr__(self, name, frozen(getattr(self, name), kind))
            if getattr(self, name).shape != self.start.shape:
                raise ValueError(f"episodes: {name} does not fit")

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def events(self) -> Numbers:
        """(J,) number of events of each cause, unweighted."""
        return np.bincount(self.cause, minlength=len(self.causes) + 1)[1:]

    def only(self, cause: str) -> Episodes:
        """The same with one cause: other events end a stretch without an event.

        Raises
        ------
        DataError
            ``duration.cause_unknown``, ``duration.no_events`` when nobody has it.
        """
        if cause not in self.causes:
            raise DataError(Fault("duration.cause_unknown", {"known": ", ".join(self.causes)}))
        number = self.causes.index(cause) + 1
        if not (self.cause == number).any():
            raise DataError(Fault("duration.no_events", {"cause": cause}))
        return replace(self, cause=(self.cause == number).astype(np.int64), causes=(cause,))

    def together(self, name: str = "any") -> Episodes:
        """The same with all causes as one."""
        return replace(self, cause=(self.cause > 0).astype(np.int64), causes=(name,))

    def take(self, rows: NDArray[Any]) -> Episodes:
        """Some of the stretches; numbers of persons, strata and clusters stay what they are."""
        parts = {name: getattr(self, name)[rows] for name in
                 ("start", "stop", "cause", "person", "weight", "stratum", "cluster")}  # fmt: skip
        return replace(self, **parts)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        stop: str,
        event: str,
        start: str | None = None,
        person: str | None = None,
        weight: str | None = None,
        stratum: str | Sequence[str] | None = None,
        cluster: str | None = None,
        **settings: Any,
    ) -> Episodes:
        """From a frame (pandas, Polars, PyArrow) with one row a stretch; names of columns for :func:`episodes`."""
        table = nw.from_native(frame, eager_only=True)
        given = {"start": start, "person": person, "weight": weight, "cluster": cluster}
        columns: dict[str, Any] = {name: table[column].to_numpy() for name, column in given.items() if column}
        if stratum is not None:
            names = [stratum] if isinstance(stratum, str) else list(stratum)
            parts = [table[name].to_numpy().astype(str) for name in names]
            columns["stratum"] = [", ".join(row) for row in zip(*parts, strict=True)]
        if cluster:
            settings.setdefault("level", cluster)
        return episodes(stop=table[stop].to_numpy(), event=table[event].to_numpy(), **columns, **settings)


def episodes(
    stop: ArrayLike,
    event: ArrayLike,
    *,
    start: ArrayLike | None = None,
    person: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    stratum: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    level: str = "cluster",
    causes: Sequence[str] | None = None,
    censored: Any = None,
    last: float | None = None,
    repeated: bool = False,
) -> Episodes:
    """Stretches of time at risk, one value a stretch (R,), checked.

    Parameters
    ----------
    stop: end of the stretch. start: beginning, 0 when None; a first start above 0 is delayed entry (left truncation).
    event: whether it ends in an event (True, 1), or the name of the event; ``censored``, None, NaN, "" and False or 0
        mean that it does not.
    person: who; without it every row is a person. Rows of one person may not overlap, and none comes after an event
        unless ``repeated``.
    weight: case weights, above 0. stratum: baselines differ between strata.
    cluster: what counts as independent, persons when None; ``level``: what it is called.
    causes: names of events in the order wanted; those that occur, sorted, when None.
    last: when observation closes. Nobody can be at risk or have an event after it.

    Raises
    ------
    DataError
        All that are found, together: ``duration.not_a_number``, ``duration.zero_length``, ``duration.overlap``,
        ``duration.after_event``, ``duration.after_close``, ``duration.weight``, ``duration.no_events`` (a cause without
        events, or no event at all), ``duration.cause_unknown``.
    """
    until = np.asarray(stop, float)
    begin = np.zeros(len(until)) if start is None else np.asarray(start, float)
    weights = np.ones(len(until)) if weight is None else np.asarray(weight, float)
    names, cause, faults = _causes(np.asarray(event), causes, censored)
    person_ids, who = np.unique(np.arange(len(until)) if person is None else np.asarray(person), return_inverse=True)
    finite = np.isfinite(until) & np.isfinite(begin)
    if not finite.all():
        raise DataError(Fault("duration.not_a_number", {"rows": int((~finite).sum())}))
    if (short := int((until <= begin).sum())) > 0:
        faults.append(Fault("duration.zero_length", {"rows": short}))
    if not (np.isfinite(weights) & (weights > 0)).all():
        faults.append(Fault("duration.weight", {"rows": int((~(weights > 0)).sum())}))
    if last is not None and (late := int((until > last).sum())) > 0:
        faults.append(Fault("duration.after_close", {"rows": late}))
    order = np.lexsort((until, begin, who))
    same = np.diff(who[order]) == 0
    overlap = same & (begin[order][1:] < until[order][:-1])
    if overlap.any():
        faults.append(Fault("duration.overlap", {"persons": len(np.unique(who[order][1:][overlap]))}))
    after = same & (cause[order][:-1] > 0)
    if not repeated and after.any():
        faults.append(Fault("duration.after_event", {"persons": len(np.unique(who[order][1:][after]))}))
    if faults:
        raise DataError(faults)
    strata_ids, strata = np.unique(
        np.zeros(len(until), int) if stratum is None else np.asarray(stratum), return_inverse=True
    )
    if cluster is None:
        cluster_ids, clusters, called = person_ids, who, "person"
    else:
        cluster_ids, clusters = np.unique(np.asarray(cluster), return_inverse=True)
        called = level
    return Episodes(
        begin, until, cause, names, who, person_ids, weights, strata, strata_ids, clusters, cluster_ids, called
    )


def _causes(
    event: NDArray[Any], wanted: Sequence[str] | None, censored: Any
) -> tuple[tuple[str, ...], Numbers, list[Fault]]:
    """Names of causes, the number of each row's cause (0 none), and what is wrong with them."""
    faults: list[Fault] = []
    if event.dtype.kind in "biuf":
        happened = np.where(np.isnan(event.astype(float)), 0, event.astype(float))
        text = np.where(happened == 0, "", happened.astype(np.int64).astype(str)).astype(object)
        if set(text.tolist()) <= {"", "1"}:
            text = np.where(text == "", "", (wanted or ("event",))[0]).astype(object)
    else:
        empty = np.array([v is None or v != v or v == "" or v is False for v in event.tolist()], bool)
        text = np.where(empty, "", event.astype(object))
    if censored is not None:
        text = np.where(text == str(censored), "", text)
    found = sorted({str(v) for v in text.tolist()} - {""})
    names = tuple(found) if wanted is None else tuple(wanted)
    if unknown := sorted(set(found) - set(names)):
        faults.append(Fault("duration.cause_unknown", {"known": ", ".join(names)}))
        names = (*names, *unknown)
    if not found:
        faults.append(Fault("duration.no_events", {"cause": names[0] if names else "event"}))
    faults += [Fault("duration.no_events", {"cause": name}) for name in names if found and name not in found]
    number = {name: place for place, name in enumerate(names, 1)}
    return names, np.array([number.get(str(v), 0) for v in text.tolist()], np.int64), faults
