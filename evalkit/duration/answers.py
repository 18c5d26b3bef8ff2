"""From hazards to answers: cumulated exits by month, started against not started, for those who started.

For a starter i who begins the instrument in elapsed month s, ``F_k`` is the chance of leaving for a destination within
k months from the beginning of that month, given that he was still there. Started: the instrument's effect runs from
then on. ``never``: it does not start. ``wait``: it does not start now; from the next month on its start hazard keeps
running, and who starts later gets the effect from then on. Covariates and other instruments stay what they are at the
start.

Hidden heterogeneity is averaged over its distribution given the person's history up to and through his start, never
given what happened to him after it: ``w_q ~ p_q M_i(mu_q)``, M the likelihood of the history.

The effect is ``E = mean_i (F_ik(started) - F_ik(versus))``. Its influence has two terms: which starters were drawn,
``(F_ik - F'_ik - E_k) / n``, and the estimated parameters, ``dE_k/dtheta`` times their influence, the weights' own
derivative included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.fitted import Hazards
from evalkit.duration.likelihood import stretches
from evalkit.duration.spells import NEVER, Layout, Spells
from evalkit.duration.terms import Terms
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DesignError, Fault, UsageError
from evalkit.kernels import answers as kernel

Numbers = NDArray[np.int64]
Versus = Literal["never", "wait"]
ANY = "any"


@dataclass(frozen=True)
class Answer:
    """Cumulated exit by month for one destination, among starters.

    Attributes
    ----------
    started, versus: (K,) shares that left within k months; effect: their difference, a fraction.
    influence: (G, K) of the effect, in sum form.
    """

    started: Array
    versus: Array
    effect: Array
    influence: Influence

    def __post_init__(self) -> None:
        for name in ("started", "versus", "effect"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def std_error(self) -> Array:
        """(K,)."""
        return np.sqrt(np.diag(self.influence.vcov))


@dataclass(frozen=True)
class Answers:
    """Answers by destination, ``any`` for all together; destinations add up.

    Attributes
    ----------
    of: by destination its :class:`Answer`.
    spell: (n,) the starters' spells. persons: distinct persons among them. compared: (K,) persons with time at risk
        without the instrument at elapsed months that month k or a later one of some starter lies in.
    longest: months that the data support, see :func:`supported`.
    left_out: starters whose horizon lies beyond what the data support.
    """

    of: Mapping[str, Answer]
    spell: Numbers
    persons: int
    compared: Numbers
    longest: int
    left_out: int


def starters(spells: Spells) -> Numbers:
    """Numbers of the spells in which the evaluated instrument was seen to start (at its first month at the latest)."""
    return np.flatnonzero(spells.started[0] < NEVER)


def supported(spells: Spells) -> tuple[int, int]:
    """Months that uncensored data reach: since entry, and since the start of the instrument.

    The last month in which somebody leaves, plus one.
    """
    left = spells.cause >= 0
    month = spells.started[0]
    with_it = left & (month < spells.stop)
    since = (spells.stop - month)[with_it]
    return int(spells.stop[left].max(initial=0)), int(since.max(initial=0))


def answers(
    layout: Layout,
    hazards: Hazards,
    *,
    horizon: int,
    versus: Versus = "never",
    spell: NDArray[np.integer] | None = None,
) -> Answers:
    """Effects on cumulated exit by destination, for those who started.

    Parameters
    ----------
    layout: the spells and timeline that the model was fitted on: ``hazards`` fits ``layout.histories(..)``.
    horizon: K months.
    versus: ``wait`` needs the start as a risk in the model.
    spell: starters by the number of their spell; all of :func:`starters` when None.

    Raises
    ------
    UsageError
        ``duration.no_start_model`` for ``wait`` without a start hazard; ``duration.other_layout`` when the model was
        not fitted on this layout.
    DesignError
        ``duration.horizon``: no starter can be followed so long within the data.
    """
    spells = layout.spells
    own = starters(spells) if spell is None else np.asarray(spell, np.int64)
    chosen, longest = within(spells, own, horizon)
    model = _Model.of(layout, hazards, versus)
    paths = _Paths.of(layout.as_known(spells.started[0]), model, chosen, horizon)
    weight, scores = _posterior(layout, hazards, chosen)
    size, exits = len(chosen), model.exits
    on, off = np.zeros((size, exits, horizon)), np.zeros((size, exits, horizon))
    by_point = np.zeros((size, len(hazards.shares), exits * horizon))
    gradient = np.zeros((len(hazards.packed), exits * horizon))
    paths.answer(model, weight, np.full(size, 1.0 / size), on, off, by_point, gradient)
    if len(hazards.shares) > 1:
        _through_weights(hazards, weight, scores, by_point, gradient)
    return collect(
        spells, chosen, on, off, hazards.influence, gradient[hazards.free].T, hazards.influence.values[:, hazards.free],
        model.causes, longest, len(own) - len(chosen),
    )  # fmt: skip


def by_differences(
    spells: Spells,
    exits_of: Callable[[Array, Numbers], tuple[Array, Array]],
    theta: Array,
    influence: Influence,
    *,
    horizon: int,
    spell: NDArray[np.integer] | None = None,
) -> Answers:
    """The same for any model whose exits by month can be worked out from its parameters.

    ``exits_of(theta, spells)`` gives cumulated exits (n, J, K) of starters, started and not; derivatives are central
    differences of their mean, with steps of 1e-5 (of the size of a parameter above 1), whose error is near 1e-9.
    """
    own = starters(spells) if spell is None else np.asarray(spell, np.int64)
    chosen, longest = within(spells, own, horizon)
    on, off = exits_of(theta, chosen)
    columns = []
    for number in range(len(theta)):
        step = 1e-5 * max(1.0, abs(float(theta[number])))
        moved = [exits_of(theta + sign * step * (np.arange(len(theta)) == number), chosen) for sign in (1, -1)]
        high, low = (np.mean(a - b, axis=0).ravel() for a, b in moved)
        columns.append((high - low) / (2 * step))
    gradient = np.column_stack(columns)
    return collect(
        spells, chosen, on, off, influence, gradient, influence.values, spells.causes, longest, len(own) - len(chosen)
    )


def within(spells: Spells, own: Numbers, horizon: int) -> tuple[Numbers, int]:
    """Starters whose first ``horizon`` months lie within what the data support, and the longest horizon there is."""
    since_entry, since_start = supported(spells)
    start = spells.started[0][own]
    longest = int(min(since_start, since_entry - start.min(initial=since_entry)))
    chosen = own[start + horizon <= since_entry]
    if horizon < 1 or horizon > since_start or not len(chosen):
        raise DesignError(Fault("duration.horizon", {"horizon": horizon, "longest": max(longest, 0)}))
    return chosen, longest


def collect(
    spells: Spells,
    chosen: Numbers,
    on: Array,
    off: Array,
    influence: Influence,
    gradient: Array,
    values: Array,
    causes: tuple[str, ...],
    longest: int,
    left_out: int,
) -> Answers:
    """Means over starters with their influence: gradient (J K, P) of the mean difference, values (G, P)."""
    size, exits, horizon = on.shape
    effect = (on - off).mean(axis=0)
    sampling = ((on - off) - effect).reshape(size, -1) / size
    cluster = spells.cluster[spells.person[chosen]]
    ids = np.unique(np.concatenate([influence.ids, spells.cluster_ids[np.unique(cluster)]]))
    whole = np.zeros((len(ids), exits * horizon))
    whole[np.searchsorted(ids, influence.ids)] = np.sqrt(influence.factor) * (values @ gradient.T)
    np.add.at(whole, np.searchsorted(ids, spells.cluster_ids[cluster]), sampling)
    of: dict[str, Answer] = {}
    cubes = whole.reshape(len(ids), exits, horizon)
    for j, name in enumerate(causes):
        rows = Influence(ids, cubes[:, j], influence.level)
        of[name] = Answer(on[:, j].mean(axis=0), off[:, j].mean(axis=0), effect[j], rows)
    of[ANY] = Answer(
        on.sum(axis=1).mean(axis=0), off.sum(axis=1).mean(axis=0), effect.sum(axis=0),
        Influence(ids, cubes.sum(axis=1), influence.level),
    )  # fmt: skip
    persons = len(np.unique(spells.person[chosen]))
    return Answers(MappingProxyType(of), chosen, persons, compared(spells, chosen, horizon), longest, left_out)


def compared(spells: Spells, chosen: Numbers, horizon: int) -> Numbers:
    """(K,) persons at risk without the instrument in elapsed month ``first + k - 1`` or later, first the earliest."""
    first = int(spells.started[0][chosen].min())
    last = np.minimum(spells.stop, spells.started[0]) - 1  # last month without it
    has = last >= spells.entry
    reach = np.full(int(spells.person.max()) + 1, -1)
    np.maximum.at(reach, spells.person[has], last[has])
    return np.array([int((reach >= first + k).sum()) for k in range(horizon)])


@dataclass(frozen=True)
class _Model:
    """Where the parameters of exits and of the start stand."""

    hazards: Hazards
    causes: tuple[str, ...]
    start: int
    wait: bool

    @property
    def exits(self) -> int:
        return len(self.causes)

    @classmethod
    def of(cls, layout: Layout, hazards: Hazards, versus: Versus) -> _Model:
        causes = layout.spells.causes
        if hazards.risks[: len(layout.risks)] != layout.risks:
            raise UsageError(Fault("duration.other_layout", {}))
        start = len(causes) if 0 in layout.modelled else -1
        if versus == "wait" and start < 0:
            raise UsageError(Fault("duration.no_start_model", {}))
        return cls(hazards, causes, start, versus == "wait")


@dataclass(frozen=True)
class _Paths:
    """Designs of the months of starters (n K rows): exits without the instrument, what it adds, its start."""

    base: Terms
    effect: Terms
    start: Terms
    months: int

    @classmethod
    def of(cls, layout: Layout, model: _Model, chosen: Numbers, months: int) -> _Paths:
        spells = layout.spells
        row = np.repeat(chosen, months)
        step = np.tile(np.arange(months), len(chosen))
        month = spells.started[0][row] + step
        since = []
        for own in spells.started[1:]:
            there = own[row] <= spells.started[0][row]
            since.append(np.where(there, month - own[row], -1))
        without = [np.full(len(row), -1), *since]
        base = layout.exits(row, month, without)
        both = layout.exits(row, month, [step, *since])
        gone = (base.codes >= 0) & (base.codes != both.codes)
        if gone.any():
            raise ValueError("answers: an instrument takes a level away; effects must be columns of their own")
        codes = np.where(both.codes != base.codes, both.codes, -1)
        effect = Terms(codes, both.numbers - base.numbers, both.at, both.names)
        start = layout.starts(0, row, month, without) if model.start >= 0 else base.take(np.arange(0))
        return cls(base, effect, start, months)

    def answer(
        self, model: _Model, weight: Array, scale: Array, on: Array, off: Array, by_point: Array, gradient: Array
    ) -> None:
        """Fill the arrays; see the kernel."""
        hazards, exits = model.hazards, model.exits
        shape = (len(on), self.months, exits)
        theta = hazards.theta
        base = np.column_stack([self.base.predict(theta[j]) for j in range(exits)]).reshape(shape)
        delta = np.column_stack([self.effect.predict(theta[j]) for j in range(exits)]).reshape(shape)
        start = np.zeros(shape[:2])
        point_start = np.full(len(hazards.points), -np.inf)
        start_offset = -1
        if model.start >= 0:
            start = self.start.predict(theta[model.start]).reshape(shape[:2])
            point_start = hazards.points[:, model.start]
            start_offset = hazards.offsets[model.start]
        # the kernel writes points as (exits, start); put them where this model has them
        risks = exits + (model.start >= 0)
        first = len(gradient)
        room = np.zeros((first + len(hazards.points) * risks, gradient.shape[1]))
        kernel.answer(
            base, delta, start, np.ascontiguousarray(hazards.points[:, :exits]), np.ascontiguousarray(point_start),
            weight, scale, kernel.LOGIT if hazards.link == "logit" else 0, model.wait, True,
            self.base.codes, self.base.numbers, self.base.at, self.effect.codes, self.effect.numbers, self.effect.at,
            self.start.codes, self.start.numbers, self.start.at,
            np.array(hazards.offsets[:exits], np.int64), start_offset, first, on, off, by_point, room,
        )  # fmt: skip
        gradient += room[:first]
        place = hazards.offsets[-1] + np.arange(len(hazards.points))[:, None] * len(hazards.risks)
        columns = [*range(exits), *([model.start] if model.start >= 0 else [])]
        gradient[(place + np.array(columns)).ravel()] += room[first:]


def _history(layout: Layout, chosen: Numbers) -> Spells:
    """What happened to each starter up to and through his start: his earlier spells, and this one until then.

    Starters are the persons, in their order.
    """
    spells = layout.spells
    month = spells.started[0]
    first = np.searchsorted(spells.person, spells.person[chosen])
    size = chosen - first + 1
    who = np.repeat(np.arange(len(chosen)), size)
    row = np.arange(len(who)) - np.repeat(np.cumsum(size) - size, size) + np.repeat(first, size)
    last = row == np.repeat(chosen, size)
    stop = np.where(last, month[row], spells.stop[row])
    cause = np.where(last, -1, spells.cause[row])
    keep = stop > np.where(last, spells.entry[row], -1)
    own = spells.take(row[keep])
    cut = replace(
        own, stop=stop[keep], cause=cause[keep], person=who[keep], causes=spells.causes,
        person_ids=np.arange(len(chosen)), cluster=np.arange(len(chosen)), cluster_ids=np.arange(len(chosen)),
    )  # fmt: skip
    return cut


def _posterior(layout: Layout, hazards: Hazards, chosen: Numbers) -> tuple[Array, list[Array]]:
    """Chances (n, Q) of the points given the history through the start, and by point the score (n, P) of ln p M."""
    shares = hazards.shares
    size, count = len(chosen), len(shares)
    if count == 1:
        return np.ones((size, 1)), []
    spells = _history(layout, chosen)
    known = Layout(spells, layout.timeline, layout.years)
    who = np.unique(spells.person[known.part()]) if len(spells) else np.zeros(0, np.int64)
    if not len(who):
        return np.tile(shares, (size, 1)), [np.zeros((size, len(hazards.packed)))] * count
    made = known.histories("grouped", before=True)
    log_m = np.tile(np.log(shares), (size, 1))
    scores = []
    eta0 = np.column_stack([made.designs[k].predict(hazards.theta[k]) for k in range(len(layout.risks))])
    for q in range(count):
        eta = eta0 + hazards.points[q, : len(layout.risks)]
        value, score = stretches(made, eta, hazards.link)
        log_m[who, q] += np.bincount(made.person, value, minlength=made.persons)
        out = np.zeros((size, len(hazards.packed)))
        for k, design in enumerate(made.designs):
            own = np.where(made.at_risk[:, k], score[:, k], 0.0)
            at = hazards.offsets[k]
            out[np.ix_(who, np.arange(at, at + design.width))] = design.sums(own, made.person, made.persons)
            point = hazards.offsets[-1] + q * len(hazards.risks) + k
            out[who, point] = np.bincount(made.person, own, minlength=made.persons)
        last = hazards.offsets[-1] + hazards.points.size
        out[:, last:] = (np.arange(1, count) == q) - shares[1:]
        scores.append(out)
    weight = np.exp(log_m - log_m.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True), scores


def _through_weights(
    hazards: Hazards, weight: Array, scores: list[Array], by_point: Array, gradient: Array
) -> None:  # fmt: skip
    """Add what the parameters do to the chances of the points: sum_q w_q (D_q - D) dln(p_q M_q)."""
    size = len(weight)
    mean = np.einsum("iq,iqk->ik", weight, by_point)
    for q, score in enumerate(scores):
        gradient += score.T @ (weight[:, q, None] * (by_point[:, q] - mean)) / size
