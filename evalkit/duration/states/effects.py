"""Months in each state with the instrument and without it, for those who started.

For a starter who begins in elapsed month s, ``P_ak`` is the chance of being in state a at the close of the k-th month
from the beginning of month s. Started: the effect of the instrument runs from then on, in every move it has an effect
on, also after he left the state and came back. ``never``: it does not start. ``wait``: it does not start now; the
hazard of starting keeps running at the end of each month spent in the state in which it can start, and who starts
later gets the effect from then on. Chances are worked out by recursion over state and months in the state, without
simulation: within a month the chance of move c out of state a is ``h_c / H (1 - exp(-H))``, H the sum of the hazards.

The effect is the mean over starters of the difference. Its influence has two terms: which starters were drawn,
``(difference of i - effect) / n``, and the estimated parameters, the gradient of the effect times their influence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.answers import Answer
from evalkit.duration.fitted import Hazards
from evalkit.duration.states.layout import Journeys, Layout
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DesignError, Fault, UsageError
from evalkit.kernels import duration_states as kernel

Numbers = NDArray[np.int64]
Versus = Literal["never", "wait"]


@dataclass(frozen=True)
class StateEffects:
    """Shares in M states at the close of months 1 .. K among starters, and what the instrument does to them.

    Attributes
    ----------
    months: (K,). states: M names.
    started, versus: (M, K) shares; effect: their difference. Over states shares sum to one and effects to zero.
    influence: (G, M K) of the effects, in sum form, columns in the order of ``effect.ravel()``.
    person: (n,) numbers of the starters. compared: (K,) persons observed without the instrument, in the state in which
        it can start, at elapsed months that month k or a later one of some starter lies in.
    longest: months that the data support, see :func:`supported`.
    left_out: starters whose horizon lies beyond what the data support.
    """

    months: Numbers
    states: tuple[str, ...]
    started: Array
    versus: Array
    effect: Array
    influence: Influence
    person: Numbers
    compared: Numbers
    longest: int
    left_out: int

    def __post_init__(self) -> None:
        for name in ("started", "versus", "effect"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        for name in ("months", "person", "compared"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))

    @property
    def std_error(self) -> Array:
        """(M, K) of the effects."""
        return np.sqrt((self.influence.values**2).sum(axis=0) * self.influence.factor).reshape(self.effect.shape)

    def of(self, state: str) -> Answer:
        """One state: the share in it by month."""
        return self._part(state, np.eye(len(self.months)))

    def months_in(self, state: str) -> Answer:
        """Expected months in a state until the close of month k; over states they sum to k."""
        return self._part(state, np.tril(np.ones((len(self.months), len(self.months)))))

    def _part(self, state: str, weights: Array) -> Answer:
        if state not in self.states:
            raise UsageError(Fault("duration.states_unknown", {"known": ", ".join(self.states)}))
        number, size = self.states.index(state), len(self.months)
        keep = np.zeros(len(self.states) * size, bool)
        keep[number * size : (number + 1) * size] = True
        return Answer(
            weights @ self.started[number], weights @ self.versus[number], weights @ self.effect[number],
            self.influence.take(keep).linear(weights),
        )  # fmt: skip


def starters(journeys: Journeys) -> Numbers:
    """Numbers of the persons who were seen to start the instrument in the state in which it can start."""
    return np.flatnonzero(journeys.stay >= 0)


def supported(journeys: Journeys) -> tuple[int, int]:
    """Months that moves which were seen reach: since entry, and since the start of the instrument.

    The first is the smaller one of those who had started and those who had not: both paths must be known so far.
    """
    stays = journeys.stays
    moved = stays.next >= 0
    started = journeys.started[stays.person]
    on = moved & (started < stays.stop)
    off = moved & ~on
    since_entry = min(int(stays.stop[each].max(initial=0)) for each in (on, off))
    return since_entry, int((stays.stop - started)[on].max(initial=0))


def state_effects(
    layout: Layout,
    hazards: Hazards,
    *,
    horizon: int,
    versus: Versus = "never",
    person: NDArray[np.integer] | None = None,
) -> StateEffects:
    """Effects on the share of people in each state by month, for those who started.

    Parameters
    ----------
    layout: journeys and steps that the model was fitted on: ``hazards`` fits ``layout.histories()``.
    horizon: K months.
    versus: ``never`` or ``wait``.
    person: starters by number; all of :func:`starters` when None.

    Raises
    ------
    UsageError
        ``duration.states_layout``: the model was not fitted on this layout. ``duration.states_points``: it has hidden
        groups. ``duration.states_not_started``: a person who was not seen to start.
    DesignError
        ``duration.states_horizon``: no starter can be followed so long within the data; names the longest horizon.
    """
    journeys = layout.journeys
    stays = journeys.stays
    if hazards.risks != layout.risks or hazards.names != tuple(each.names for each in layout.columns):
        raise UsageError(Fault("duration.states_layout", {}))
    if len(hazards.shares) > 1:
        raise UsageError(Fault("duration.states_points", {"points": len(hazards.shares)}))
    own = starters(journeys) if person is None else np.asarray(person, np.int64)
    if len(own) and (journeys.stay[own] < 0).any():
        raise UsageError(Fault("duration.states_not_started", {"persons": int((journeys.stay[own] < 0).sum())}))
    chosen, longest = _within(journeys, own, horizon)
    pattern, which, counts = _patterns(layout, chosen, horizon)
    size = len(chosen)
    on, off, gradient = _paths(layout, hazards, pattern, counts / size, horizon, versus == "wait")
    difference = (on - off)[which]
    effect = difference.mean(axis=0)
    states = len(stays.states)
    sampling = (difference - effect).reshape(size, -1) / size
    wide = gradient.reshape(len(gradient), horizon, states - 1).transpose(0, 2, 1)
    slope = np.concatenate([wide, -wide.sum(axis=1, keepdims=True)], axis=1).reshape(len(gradient), -1)
    influence = hazards.influence
    cluster = stays.cluster[chosen]
    ids = np.unique(np.concatenate([influence.ids, stays.cluster_ids[np.unique(cluster)]]))
    rows = np.zeros((len(ids), states * horizon))
    rows[np.searchsorted(ids, influence.ids)] = np.sqrt(influence.factor) * (influence.values @ slope)
    np.add.at(rows, np.searchsorted(ids, stays.cluster_ids[cluster]), sampling)
    return StateEffects(
        np.arange(1, horizon + 1), stays.states, on[which].mean(axis=0), off[which].mean(axis=0), effect,
        Influence(ids, rows, influence.level), chosen, _compared(journeys, chosen, horizon), longest,
        len(own) - len(chosen),
    )  # fmt: skip


def _within(journeys: Journeys, own: Numbers, horizon: int) -> tuple[Numbers, int]:
    """Starters whose first ``horizon`` months lie within what the data support, and the longest horizon there is."""
    since_entry, since_start = supported(journeys)
    month = journeys.started[own]
    longest = int(min(since_start, since_entry - month.min(initial=since_entry)))
    chosen = own[month + horizon <= since_entry]
    if horizon < 1 or horizon > since_start or not len(chosen):
        raise DesignError(Fault("duration.states_horizon", {"horizon": horizon, "longest": max(longest, 0)}))
    return chosen, longest


def _patterns(layout: Layout, chosen: Numbers, horizon: int) -> tuple[Numbers, Numbers, Array]:
    """One starter of each kind with the same path, the kind of each starter (n,), and how many there are of a kind."""
    journeys = layout.journeys
    month = journeys.started[chosen]
    first = layout.level("calendar", journeys.begin[chosen][:, None] + month[:, None] + np.arange(horizon))
    length = journeys.instrument.length[chosen] if journeys.instrument.clock == "end" else np.zeros(len(chosen))
    key = np.column_stack([
        month, _already(journeys, chosen), length, first, journeys.x.codes[chosen], journeys.x.numbers[chosen]
    ])  # fmt: skip
    _, place, which, counts = np.unique(key, axis=0, return_index=True, return_inverse=True, return_counts=True)
    return chosen[place], which.reshape(-1), counts.astype(float)


def _already(journeys: Journeys, chosen: Numbers) -> Numbers:
    """(n,) months that each starter had been in the state when he started."""
    stays, row = journeys.stays, journeys.stay[chosen]
    return (journeys.started[chosen] - stays.start[row] + stays.already[row]).astype(np.int64)


def _paths(
    layout: Layout, hazards: Hazards, chosen: Numbers, scale: Array, horizon: int, wait: bool
) -> tuple[Array, Array, Array]:
    """Occupancy (n, M, K) started and not, and the gradient (P, K (M - 1)) of the difference, summed with ``scale``."""
    journeys, x = layout.journeys, layout.journeys.x
    states, risks = len(journeys.stays.states), len(layout.risks)
    offsets = np.array(hazards.offsets[:-1], np.int64)
    intercept = hazards.offsets[-1] + np.arange(risks)
    columns = layout.columns

    def placed(name: str) -> Numbers:
        rows = np.stack([getattr(each, name) for each in columns])
        return np.where(rows >= 0, rows + offsets[:, None], -1)

    own = np.full((states, max(np.bincount(layout.pairs[:, 0]).max(), 1)), -1)
    for a in range(states):
        mine = np.flatnonzero(layout.pairs[:, 0] == a)
        own[a, : len(mine)] = mine
    here = journeys.stays.number(journeys.where)
    deepest = max(layout.steps.stay, default=0)
    stay = placed("stay")[:, layout.level("stay", np.arange(deepest + 1))]
    cell, depth, band, bands = _cells(stay, own, here)
    step = np.arange(horizon)
    month = journeys.started[chosen][:, None] + step
    calendar = layout.level("calendar", journeys.begin[chosen][:, None] + month)
    duration_map, calendar_map = placed("duration"), placed("calendar")
    maps = np.full((2, risks, max(duration_map.shape[1], calendar_map.shape[1])), -1)
    maps[0, :, : duration_map.shape[1]] = duration_map
    maps[1, :, : calendar_map.shape[1]] = calendar_map
    phase = np.stack([journeys.instrument.phase(chosen, np.full(len(chosen), k)) for k in step.tolist()], axis=1)
    theta = hazards.packed
    x_map = placed("x")
    whole = np.zeros((risks, max(x.width, 1)))
    whole[:, : x.width] = np.where(x_map >= 0, theta[x_map], 0.0)
    known = x.take(chosen)
    x_eta = np.column_stack([known.predict(whole[r]) for r in range(risks)])
    on, off = np.zeros((len(chosen), states, horizon)), np.zeros((len(chosen), states, horizon))
    gradient = np.zeros((len(theta), horizon * (states - 1)))
    levels = np.stack([layout.level("duration", month), calendar], axis=2)
    to = np.r_[layout.pairs[:, 1], -1]
    link = kernel.LOGIT if hazards.link == "logit" else 0
    kernel.effects(
        theta, _plain(intercept), _plain(own), _plain(to), here, link, wait,
        _plain(cell), _plain(depth), _plain(band), _plain(bands), _plain(stay),
        np.ascontiguousarray(x_eta), _plain(known.codes), np.array(known.numbers, order="C"), _plain(known.at),
        _plain(x_map), _plain(levels), _plain(maps), _plain(phase), _plain(placed("effect")),
        _plain(_already(journeys, chosen)), scale, on, off, gradient,
    )  # fmt: skip
    return on, off, gradient


def _plain(values: NDArray[np.integer]) -> Numbers:
    """A writable copy in rows, so that the kernel meets one kind of array only."""
    return np.array(values, np.int64, order="C")


def _cells(stay: Numbers, own: Numbers, here: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """First cell (M,) of each state, months in it that are told apart (M,), the band of each, one month of each band.

    Months that no hazard of a state tells apart share a band; from the last step on they share a cell.
    """
    states, deep = len(own), stay.shape[1]
    depth, band = np.zeros(states, np.int64), np.zeros((states, deep), np.int64)
    bands = np.full((states, deep), -1)
    for a in range(states):
        moves = stay[own[a][own[a] >= 0]]
        _, first, number = np.unique(moves.T, axis=0, return_index=True, return_inverse=True)
        band[a], bands[a, : len(first)] = number.reshape(-1), first
        told = np.vstack([moves, stay[-1:]]) if a == here else moves
        changes = np.flatnonzero((np.diff(told, axis=1) != 0).any(axis=0))
        depth[a] = changes[-1] + 1 if len(changes) else 0
    most = int(band.max()) + 1
    return np.r_[0, np.cumsum(depth + 1)[:-1]].astype(np.int64), depth, band, bands[:, :most]


def _compared(journeys: Journeys, chosen: Numbers, horizon: int) -> Numbers:
    """(K,) persons in the state without the instrument in elapsed month ``first + k - 1`` or later."""
    stays = journeys.stays
    first = int(journeys.started[chosen].min())
    last = np.minimum(stays.stop, journeys.started[stays.person]) - 1
    has = (last >= stays.start) & (stays.state == stays.number(journeys.where))
    reach = np.full(stays.persons, -1)
    np.maximum.at(reach, stays.person[has], last[has].astype(np.int64))
    return np.array([int((reach >= first + k).sum()) for k in range(horizon)])
