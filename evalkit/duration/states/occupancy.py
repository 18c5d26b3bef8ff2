"""Who is where when: the share of people in each state by time, without a model of how fast they move.

Transition hazards ``dA_jk(s) = dN_jk(s) / Y_j(s)``: weighted moves from j to k at s over the weight at risk in j, those
who came in late included from then on. Occupancy ``p(t) = p(0) prod_{s <= t} (I + dA(s))`` (Aalen and Johansen 1978).
It is right for the share in each state also when moving depends on the past (Datta and Satten 2001), as long as
coming in view and leaving it do not. Started from one state at a later time it needs the future to depend on the
present state only, or else just the people found in that state then (Putter and Spitoni 2018).

Influence of a stay in state j: ``sum over s of p_j(s-) / Y_j(s) (dN(s) - 1[at risk] dA_j(s)) P(s, t)``, the
infinitesimal jackknife; with the influence of ``p(0)`` where that is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.duration.states.stays import NEAR, Stays
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DesignError, Fault, UsageError

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Occupancy:
    """Shares in M states at T times in L groups.

    Attributes
    ----------
    states, groups: names. times: (T,). since: where time begins.
    share: (L, M, T), sums to one over states.
    months: (L, M, T) expected time in each state from ``since`` until each time, sums to ``times - since``.
    influence, months_influence: (G, L M T) in sum form, columns in the order of ``share.ravel()``.
    persons: (L,) persons in each group.
    """

    states: tuple[str, ...]
    groups: tuple[str, ...]
    times: Array
    since: float
    share: Array
    months: Array
    influence: Influence
    months_influence: Influence
    persons: Numbers

    def __post_init__(self) -> None:
        for name in ("times", "share", "months"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        object.__setattr__(self, "persons", frozen(self.persons, np.int64))

    @property
    def std_error(self) -> Array:
        """(L, M, T) of the shares."""
        return np.sqrt((self.influence.values**2).sum(axis=0)).reshape(self.share.shape)

    @property
    def months_std_error(self) -> Array:
        """(L, M, T) of the expected months."""
        return np.sqrt((self.months_influence.values**2).sum(axis=0)).reshape(self.share.shape)


def occupancy(
    stays: Stays,
    times: ArrayLike,
    *,
    group: ArrayLike | None = None,
    start: str | ArrayLike | None = None,
    since: float | None = None,
    only_there: bool = False,
) -> Occupancy:
    """Shares of people in each state at given times.

    Parameters
    ----------
    times: (T,) increasing.
    group: (N,) group of each person; all together when None.
    start: the state in which everybody begins, or shares (M,) of the states; None: as found among those in view.
    since: time at which they begin; moves after it count. None: just before the first move.
    only_there: follow only the people found in the state ``start`` just after ``since``. Then nothing is supposed about
        how moving depends on the past.

    Raises
    ------
    UsageError
        ``duration.states_times`` (not increasing, before ``since``), ``duration.states_landmark`` (``only_there``
        without a state and a time), ``duration.states_shares`` (not M shares that sum to one).
    DataError
        ``duration.states_unknown``.
    DesignError
        ``duration.states_nobody_there``: nobody is in view where a group begins. ``duration.states_horizon``: nobody is
        followed so long; names the longest time.
    """
    when = np.asarray(times, float)
    if when.ndim != 1 or not len(when) or not np.isfinite(when).all() or (np.diff(when) <= 0).any():
        raise UsageError(Fault("duration.states_times", {}))
    zero = float(stays.start.min()) if since is None else float(since)
    if when[0] < zero:
        raise UsageError(Fault("duration.states_times", {}))
    if only_there and (since is None or not isinstance(start, str)):
        raise UsageError(Fault("duration.states_landmark", {}))
    given = _start(stays, start)
    if group is None:
        names, member = np.array(["all"]), np.zeros(stays.persons, np.int64)
    else:
        names, member = np.unique(np.asarray(group).astype(str), return_inverse=True)
    parts = []
    for number, name in enumerate(names.tolist()):
        keep = member == number
        if only_there and since is not None and given is not None:
            found = (stays.start <= since) & (stays.stop > since) & (stays.state == int(np.argmax(given)))
            there = np.zeros(stays.persons, bool)
            there[stays.person[found]] = True
            keep &= there
        rows = np.flatnonzero(keep[stays.person])
        parts.append((*_one(stays.take(rows), when, given, since, zero, name), int(keep.sum())))
    clusters = len(stays.cluster_ids)
    whole, sums = (np.stack([part[k] for part in parts], axis=1).reshape(clusters, -1) for k in (2, 3))
    return Occupancy(
        stays.states, tuple(names.tolist()), when, zero,
        np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts]),
        Influence(stays.cluster_ids, whole, stays.level), Influence(stays.cluster_ids, sums, stays.level),
        np.array([part[4] for part in parts]),
    )  # fmt: skip


def _start(stays: Stays, start: str | ArrayLike | None) -> Array | None:
    """(M,) shares where people begin, None when they are to be found."""
    if start is None:
        return None
    if isinstance(start, str):
        return np.eye(len(stays.states))[stays.number(start)]
    shares = np.asarray(start, float)
    if shares.shape != (len(stays.states),) or not (shares >= 0).all() or abs(shares.sum() - 1) > NEAR:
        raise UsageError(Fault("duration.states_shares", {"states": len(stays.states)}))
    return shares


def _one(
    stays: Stays, when: Array, given: Array | None, since: float | None, zero: float, name: str
) -> tuple[Array, Array, Array, Array]:
    """Shares (M, T), time in states (M, T), and the influence (G, M, T) of each."""
    size, clusters = len(stays.states), len(stays.cluster_ids)
    moved = stays.next >= 0
    if since is not None:
        moved &= stays.stop > since
    marks = np.unique(stays.stop[moved])
    begin = zero if since is not None or not len(marks) else float(marks[0])
    own = stays.cluster[stays.person]
    drawn = np.zeros((clusters, size))
    if given is None:
        if since is None:
            found = (stays.start < begin) & (stays.stop >= begin)
        else:
            found = (stays.start <= begin) & (stays.stop > begin)
        weight = stays.weight[found]
        if not len(weight):
            raise DesignError(Fault("duration.states_nobody_there", {"group": name}))
        at = np.bincount(stays.state[found], weight, minlength=size) / weight.sum()
        lead = (np.eye(size)[stays.state[found]] - at) * (weight / weight.sum())[:, None]
        np.add.at(drawn, own[found], lead)
    else:
        if not len(stays):
            raise DesignError(Fault("duration.states_nobody_there", {"group": name}))
        at = given
    hazard, at_risk = _hazards(stays, moved, marks, size)
    before = np.zeros((len(marks), size))
    p = at
    place = np.searchsorted(marks, when, side="right")
    path = [p]
    for s in range(len(marks)):
        before[s] = p
        p = p + p @ hazard[s]
        path.append(p)
    share = np.stack([path[k] for k in place], axis=1)
    absorbing = ~np.isin(np.arange(size), stays.state)
    followed = float(stays.stop.max(initial=zero))
    open_ended = (when > followed + NEAR) & (share[~absorbing].sum(axis=0) > NEAR)
    if open_ended.any():
        raise DesignError(Fault("duration.states_horizon", {"horizon": f"{when[-1]:g}", "longest": f"{followed:g}"}))
    rate = np.divide(before, at_risk, out=np.zeros_like(before), where=at_risk > 0)
    span = np.searchsorted(marks, stays.start, side="right"), np.searchsorted(marks, stays.stop, side="right")
    whole, sums = np.zeros((clusters, size, len(when))), np.zeros((clusters, size, len(when)))
    months = np.zeros((size, len(when)))
    level, total, spent, low, clock = drawn, np.zeros_like(drawn), np.zeros(size), 0, zero
    for t, high in enumerate(place.tolist()):
        steps = marks[low:high]
        after, later = _ahead(hazard[low:high], np.r_[clock, steps, when[t]])
        spent = spent + path[low] @ later[0]
        total = total + level @ later[0]
        level = level @ after[0]
        gain = [_contributions(stays, moved, span, rate, hazard, low, high, each[1:], own) for each in (after, later)]
        level, total = level + gain[0], total + gain[1]
        whole[:, :, t], sums[:, :, t], months[:, t] = level, total, spent
        low, clock = high, float(when[t])
    return share, months, whole, sums


def _hazards(stays: Stays, moved: NDArray[np.bool_], marks: Array, size: int) -> tuple[Array, Array]:
    """Increments (D, M, M) of the transition hazards at each mark, rows summing to zero, and weight at risk (D, M)."""
    moves, at_risk = np.zeros((len(marks), size, size)), np.zeros((len(marks), size))
    moment = np.searchsorted(marks, stays.stop[moved])
    np.add.at(moves, (moment, stays.state[moved], stays.next[moved]), stays.weight[moved])
    for j in range(size):
        mine = stays.state == j
        inside = np.zeros(len(marks) + 1)
        came = np.searchsorted(marks, stays.start[mine], side="right")
        left = np.searchsorted(marks, stays.stop[mine], side="right")
        np.add.at(inside, came, stays.weight[mine])
        np.add.at(inside, left, -stays.weight[mine])
        at_risk[:, j] = np.cumsum(inside)[:-1]
    out = np.divide(moves, at_risk[:, :, None], out=np.zeros_like(moves), where=moves > 0)
    diagonal = np.arange(size)
    out[:, diagonal, diagonal] -= out.sum(axis=2)
    return out, at_risk


def _ahead(hazard: Array, clock: Array) -> tuple[Array, Array]:
    """From just after each moment until the last: chances (D + 1, M, M) of each state, and expected time in it.

    ``hazard`` (D, M, M) at the moments between the first and the last of ``clock`` (D + 2,).
    """
    size = hazard.shape[1]
    after, later = np.zeros((len(hazard) + 1, size, size)), np.zeros((len(hazard) + 1, size, size))
    one = np.eye(size)
    after[-1], later[-1] = one, one * (clock[-1] - clock[-2])
    for s in range(len(hazard) - 1, -1, -1):
        after[s] = after[s + 1] + hazard[s] @ after[s + 1]
        later[s] = one * (clock[s + 1] - clock[s]) + later[s + 1] + hazard[s] @ later[s + 1]
    return after, later


def _contributions(
    stays: Stays, moved: NDArray[np.bool_], span: tuple[Numbers, Numbers], rate: Array, hazard: Array, low: int,
    high: int, after: Array, own: Numbers,
) -> Array:  # fmt: skip
    """(G, M) what stays add to the influence between two reported times, carried on to the later one by ``after``."""
    size = hazard.shape[1]
    out = np.zeros((len(stays.cluster_ids), size))
    expected = np.zeros((high - low + 1, size, size))
    np.cumsum(rate[low:high, :, None] * (hazard[low:high] @ after), axis=0, out=expected[1:])
    first, last = (np.clip(each, low, high) - low for each in span)
    row = np.flatnonzero(first < last)
    value = expected[first[row], stays.state[row]] - expected[last[row], stays.state[row]]
    goes = moved[row] & (span[1][row] <= high)
    event = row[goes]
    s = span[1][event] - 1
    ends = after[s - low, stays.next[event]] - after[s - low, stays.state[event]]
    value[goes] += rate[s, stays.state[event], None] * ends
    np.add.at(out, own[row], value * stays.weight[row, None])
    return out
