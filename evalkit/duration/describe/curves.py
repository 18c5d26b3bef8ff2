"""Curves of staying and leaving: Kaplan-Meier, Nelson-Aalen, Aalen-Johansen, with errors and influence by cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from evalkit.duration.describe.risk import Numbers, Risk, levels, risk, same_begin
from evalkit.duration.episodes import Episodes
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DataError, Fault, UsageError

Kind = Literal["survival", "hazard", "incidence"]
Errors = Literal["greenwood", "influence"]
Scale = Literal["log-log", "log", "plain"]

SAME = 1e-9
"""Two levels of a curve this close are one: rounding of products of fractions."""


@dataclass(frozen=True)
class Quantile:
    """A time by which a share has left, with its interval; NaN where the curve does not get there."""

    share: float
    time: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A step function of time, with its error after each step. It jumps at ``times`` and is flat in between.

    Attributes
    ----------
    kind: ``survival`` (1 falling), ``hazard`` (cumulated, 0 rising) or ``incidence`` (share that left for one cause).
    cause: name of the cause, or of all together.
    times: (T,) times at which anyone leaves, for any cause. begin, last: from when, and the last moment observed.
    at_risk, events: (T,) weighted. persons, counts: (T,) the same unweighted.
    estimate, std_error: (T,) after each time. The error is NaN where survival is 0: nobody is left to learn from.
    errors: ``greenwood`` (binomial, independent persons) or ``influence`` (by cluster).
    warnings: faults with sentences that do not stop the work; read them before the curve.
    """

    kind: Kind
    cause: str
    times: Array
    begin: float
    last: float
    at_risk: Array
    events: Array
    persons: Numbers
    counts: Numbers
    estimate: Array
    std_error: Array
    errors: Errors
    warnings: tuple[Fault, ...]
    basis: Risk = field(repr=False, compare=False)
    number: int = field(repr=False, compare=False, default=-1)

    def at(self, times: ArrayLike) -> Array:
        """Estimate (K,) at any times (K,).

        Raises
        ------
        DesignError
            ``duration.describe_beyond`` or ``duration.describe_before``: where the curve is not known.
        UsageError
            ``duration.describe_times``: not a number.
        """
        return self._steps(self.estimate)[self.basis.place(times)]

    def error_at(self, times: ArrayLike) -> Array:
        """Standard error (K,) at any times; raises as :meth:`at`."""
        return np.concatenate([[0.0], self.std_error])[self.basis.place(times)]

    def at_risk_at(self, times: ArrayLike) -> Array:
        """Weighted number at risk (K,) just before any times; raises as :meth:`at`."""
        self.basis.place(times)
        return self.basis.present(np.atleast_1d(np.asarray(times, float)))

    def interval(self, level: float = 0.95, scale: Scale | None = None) -> tuple[Array, Array]:
        """Pointwise interval (T,), (T,), made on the given scale of the estimate itself.

        ``log-log`` exp(-exp(log(-log p) -+ z se / (p log p))), ``log`` p exp(-+ z se / p), ``plain`` p -+ z se; cut at
        0 and 1. Hazards take ``log`` (default) and ``plain``; the others default to ``log-log``. NaN where the error is
        unknown or the scale does not exist: no event yet, or nobody left.

        Raises
        ------
        UsageError
            ``duration.describe_scale``, ``duration.describe_level``.
        """
        return interval(self.estimate, self.std_error, level, scale, self.kind)

    def interval_at(self, times: ArrayLike, level: float = 0.95, scale: Scale | None = None) -> tuple[Array, Array]:
        """The same at any times (K,), without width before the first event; raises as :meth:`at`, :meth:`interval`."""
        place = self.basis.place(times)
        low, high = (self._steps(side)[place] for side in self.interval(level, scale))
        return low, high

    def quantile(self, share: float, level: float = 0.95, scale: Scale | None = None) -> Quantile:
        """The first time by which ``share`` has left; the middle of the flat part when the curve is flat at that share.

        The interval is where the pointwise interval of the curve gets there (Brookmeyer and Crowley 1982).

        Raises
        ------
        UsageError
            ``duration.describe_share``: not above 0 and below 1, or asked of a cumulated hazard.
        """
        if self.kind == "hazard" or not 0 < share < 1:
            raise UsageError(Fault("duration.describe_share"))
        low, high = self.interval(level, scale)
        if self.kind == "survival":
            gone = self.estimate == 0
            left, early, late = 1 - self.estimate, 1 - np.where(gone, 0.0, low), 1 - high
        else:
            left, early, late = self.estimate, high, low
        return Quantile(share, *(self._first(side, share) for side in (left, early, late)))

    @property
    def median(self) -> Quantile:
        """The time by which half has left."""
        return self.quantile(0.5)

    def influence(self, times: ArrayLike) -> Influence:
        """Influence (G, K) by cluster on the estimate at ``times`` (K,), in sum form.

        The derivative of the curve to the weight of each stretch, times that weight, summed by cluster (the
        infinitesimal jackknife). Clusters are all those of the episodes, also of rows that are not in this curve, so
        that curves of groups can be subtracted. Case weights count as known. Raises as :meth:`at`.
        """
        return self.basis.influence([self._score(place) for place in self.basis.place(times).tolist()])

    def _steps(self, values: Array) -> Array:
        return np.concatenate([[1.0 if self.kind == "survival" else 0.0], values])

    def _first(self, left: Array, share: float) -> float:
        """Where a rising curve gets to a share; NaN if it does not."""
        there = np.flatnonzero(left >= share - SAME)
        if not len(there):
            return np.nan
        at = int(there[0])
        if left[at] > share + SAME:
            return float(self.times[at])
        later = np.flatnonzero(left > share + SAME)
        return float((self.times[at] + (self.times[later[0]] if len(later) else self.last)) / 2)

    def _score(self, place: int) -> Array:
        """(T, J) by how much an event at each time, of each cause, moves the estimate after ``place`` grid times."""
        rows = self.basis
        shape, earlier = rows.events.shape, (np.arange(len(rows.times)) < place)[:, None]
        if self.kind == "survival":
            return np.broadcast_to(-rows.survival[place] * rows.stays[:, None], shape) * earlier
        if self.kind == "hazard":
            return np.broadcast_to(1 / rows.at_risk[:, None], shape) * earlier
        exits = rows.exits[:, self.number]
        score = np.repeat((-rows.stays * (exits[place] - exits[1:]))[:, None], shape[1], axis=1)
        score[:, self.number] += rows.survival[:-1] / rows.at_risk
        return score * earlier


@dataclass(frozen=True)
class Incidence:
    """Shares that left for each of J competing causes, a :class:`Curve` each, and the share that stayed: together 1."""

    causes: tuple[str, ...]
    curves: tuple[Curve, ...]
    survival: Curve

    def cause(self, name: str) -> Curve:
        """The curve of one cause.

        Raises
        ------
        DataError
            ``duration.cause_unknown``.
        """
        if name not in self.causes:
            raise DataError(Fault("duration.cause_unknown", {"known": ", ".join(self.causes)}))
        return self.curves[self.causes.index(name)]

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """Those of the curves; the same for all."""
        return self.survival.warnings


@dataclass(frozen=True)
class Difference:
    """One curve less another at times (K,), with pointwise intervals on the plain scale and influence (G, K)."""

    times: Array
    estimate: Array
    std_error: Array
    low: Array
    high: Array
    influence: Influence


def kaplan_meier(episodes: Episodes, *, from_time: float | None = None, errors: Errors | None = None) -> Curve:
    """Product-limit estimate of the share still there after each time: S(t) = prod over u <= t of (1 - d(u) / Y(u)).

    All causes together; ``episodes.only(cause)`` treats the others as censored. Censoring and delayed entry must have
    nothing to do with leaving, given the weights. At one time, exits come before censoring, and entries after both.
    Strata of the episodes play no part.

    Parameters
    ----------
    from_time: condition on still being there at this time: the curve starts there at 1, from all at risk since.
        With delayed entry the remedy against an early risk set of one or two persons.
    errors: ``greenwood``: S^2 sum d / (Y (Y - d)), for independent persons with weights of one; the default for them.
        ``influence``: sum over clusters of squared influence; the default with weights, clusters or several spells.

    Raises
    ------
    UsageError
        ``duration.describe_errors``: ``greenwood`` with weights or clusters, or an unknown name.
        ``duration.describe_times``.
    DesignError
        ``duration.describe_beyond``: nobody is followed after ``from_time``.

    Sources: Kaplan and Meier (1958); Greenwood (1926); Andersen, Borgan, Gill and Keiding (1993, IV.3).
    """
    rows = risk(episodes, from_time)
    return _curve(rows, "survival", _errors(rows, errors), -1)


def nelson_aalen(episodes: Episodes, *, from_time: float | None = None, errors: Errors | None = None) -> Curve:
    """Cumulated hazard H(t) = sum over u <= t of d(u) / Y(u), all causes together; ``episodes.only(cause)`` for one.

    ``greenwood`` errors are Aalen's here: sum d / Y^2. Otherwise as :func:`kaplan_meier`.

    Sources: Nelson (1969); Aalen (1978).
    """
    rows = risk(episodes, from_time)
    return _curve(rows, "hazard", _errors(rows, errors), -1)


def aalen_johansen(episodes: Episodes, *, from_time: float | None = None, errors: Errors | None = None) -> Incidence:
    """Share that left for each cause by t, when leaving for one ends the chance of another.

    F_j(t) = sum over u <= t of S(u-) d_j(u) / Y(u), with S of all causes together, so that the shares and S add to 1.
    Ties, delayed entry, weights and rows are treated as in :func:`kaplan_meier`, which also says what is raised.

    ``greenwood`` errors are multinomial: sum over u of Y [sum_c h_c a_c^2 - (sum_c h_c a_c)^2], where an event moves
    the share by a_c(u) = 1(c = j) S(u-) / Y - (F_j(t) - F_j(u)) / (Y - d). Without delayed entry both kinds are equal.

    Sources: Aalen and Johansen (1978); Andersen, Borgan, Gill and Keiding (1993, IV.4).
    """
    rows = risk(episodes, from_time)
    kind = _errors(rows, errors)
    curves = tuple(_curve(rows, "incidence", kind, number) for number in range(len(rows.causes)))
    return Incidence(rows.causes, curves, _curve(rows, "survival", kind, -1))


def by_group(
    episodes: Episodes, group: ArrayLike, curve: Callable[..., Any] = kaplan_meier, **settings: Any
) -> dict[Any, Any]:
    """A curve for each level of a factor (R,), one value a stretch, by level in sorted order.

    Someone whose group changes is censored in the one and enters the other late: a description of two risk sets, not
    what a change would do. Settings go to ``curve``. Influence covers all clusters of the episodes in every level.

    Raises
    ------
    DesignError
        ``duration.describe_group_constant``.
    DataError
        ``duration.describe_group_missing``.
    UsageError
        ``duration.describe_group_length``; and what ``curve`` raises.
    """
    names, place = levels(episodes, group)
    return {
        name: curve(episodes.take(np.flatnonzero(place == number)), **settings)
        for number, name in enumerate(names.tolist())
    }


def difference(first: Curve, second: Curve, times: ArrayLike, level: float = 0.95) -> Difference:
    """``first`` less ``second`` at times (K,), from the two influences, so also for curves on the same people.

    Errors are those of the influence, whatever those of the curves. NaN where one of the errors is unknown.

    Raises
    ------
    UsageError
        ``duration.describe_unlike``: a survival less a hazard, or curves of other episodes (clusters differ).
        ``duration.describe_level``.
    DesignError
        ``duration.describe_begins``: the curves begin at different times; and as :meth:`Curve.at`.
    """
    same = first.basis.cluster_ids is second.basis.cluster_ids or np.array_equal(
        first.basis.cluster_ids, second.basis.cluster_ids
    )
    if first.kind != second.kind or not same:
        raise UsageError(Fault("duration.describe_unlike"))
    same_begin([first.basis, second.basis])
    asked = np.atleast_1d(np.asarray(times, float))
    estimate = first.at(asked) - second.at(asked)
    one, other = first.influence(asked), second.influence(asked)
    influence = Influence(one.ids, one.values - other.values, one.level)
    known = np.isfinite(first.error_at(asked)) & np.isfinite(second.error_at(asked))
    std_error = np.where(known, np.sqrt(np.sum(influence.values**2, axis=0)), np.nan)
    half = critical(level) * std_error
    return Difference(
        frozen(asked), frozen(estimate), frozen(std_error), frozen(estimate - half), frozen(estimate + half), influence
    )


def critical(level: float) -> float:
    """Normal quantile of a two-sided level; UsageError ``duration.describe_level`` unless between 0 and 1."""
    if not 0 < level < 1:
        raise UsageError(Fault("duration.describe_level"))
    return float(special.ndtri(0.5 + level / 2))


def interval(estimate: Array, std_error: Array, level: float, scale: Scale | None, kind: Kind) -> tuple[Array, Array]:
    """Pointwise limits of shares or cumulated hazards; see :meth:`Curve.interval`."""
    z = critical(level)
    chosen = scale or ("log" if kind == "hazard" else "log-log")
    if chosen not in ("log-log", "log", "plain") or (kind == "hazard" and chosen == "log-log"):
        raise UsageError(Fault("duration.describe_scale", {"known": "log-log, log, plain"}))
    top = np.inf if kind == "hazard" else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        if chosen == "plain":
            low, high = estimate - z * std_error, estimate + z * std_error
        elif chosen == "log":
            step = z * std_error / np.where(estimate > 0, estimate, np.nan)
            low, high = estimate * np.exp(-step), estimate * np.exp(step)
        else:
            logs = np.log(np.where((estimate > 0) & (estimate < 1), estimate, np.nan))
            step = z * std_error / (estimate * logs)
            low, high = np.exp(logs * np.exp(-step)), np.exp(logs * np.exp(step))
    return np.maximum(low, 0.0), np.minimum(high, top)


def _errors(rows: Risk, asked: Errors | None) -> Errors:
    if asked is None:
        return "greenwood" if rows.plain else "influence"
    if asked not in ("greenwood", "influence") or (asked == "greenwood" and not rows.plain):
        raise UsageError(Fault("duration.describe_errors", {"known": "greenwood, influence"}))
    return asked


def _curve(rows: Risk, kind: Kind, errors: Errors, number: int) -> Curve:
    if kind == "survival":
        estimate = rows.survival[1:]
        variance = _survival_greenwood(rows) if errors == "greenwood" else _survival_spread(rows)
    elif kind == "hazard":
        estimate = np.cumsum(rows.hazard.sum(axis=1))
        variance = _hazard_aalen(rows) if errors == "greenwood" else _hazard_spread(rows)
    else:
        estimate = rows.exits[1:, number]
        variance = _exit_greenwood(rows, number) if errors == "greenwood" else _exit_spread(rows, number)
    gone = (rows.survival[1:] == 0) & (kind == "survival")
    one = kind == "incidence"
    return Curve(
        kind,
        rows.causes[number] if one or len(rows.causes) == 1 else "any",
        rows.times,
        rows.begin,
        rows.last,
        rows.at_risk,
        frozen(rows.events[:, number] if one else rows.events.sum(axis=1)),
        rows.persons,
        frozen(rows.counts[:, number] if one else rows.counts.sum(axis=1), np.int64),
        frozen(estimate),
        frozen(np.where(gone, np.nan, np.sqrt(np.maximum(variance, 0.0)))),
        errors,
        rows.warnings,
        rows,
        number,
    )


def _survival_greenwood(rows: Risk) -> Array:
    return rows.survival[1:] ** 2 * np.cumsum(rows.total * rows.stays)


def _hazard_aalen(rows: Risk) -> Array:
    return np.cumsum(rows.hazard.sum(axis=1) / rows.at_risk)


def _exit_greenwood(rows: Risk, number: int) -> Array:
    """Multinomial variance of the exits for one cause: squares of (F(t) - F(u)) written out, one pass."""
    h, h_j, exits = rows.total, rows.hazard[:, number], rows.exits[1:, number]
    s, g, y = rows.survival[:-1] / rows.at_risk, rows.stays, rows.at_risk
    own = y * h_j * (1 - h_j) * s**2
    cross = y * h_j * s * g * (1 - h)
    square = y * h * (1 - h) * g**2
    constant = np.cumsum(own + 2 * cross * exits + square * exits**2)
    linear = np.cumsum(cross + square * exits)
    return constant - 2 * exits * linear + exits**2 * np.cumsum(square)


def _own(rows: Risk, x: Array, y: Array | float, number: int | None = None) -> Array:
    """(T, J + 1, 2) what an event adds: (x, y) for one cause or for all, nothing without an event."""
    own = np.zeros((len(rows.times), len(rows.causes) + 1, 2))
    where = slice(1, None) if number is None else slice(number + 1, number + 2)
    own[:, where, 0] = np.asarray(x)[:, None]
    own[:, where, 1] = y
    return own


def _from_zero(values: Array) -> Array:
    return np.concatenate([[0.0], np.cumsum(values)])


def _survival_spread(rows: Risk) -> Array:
    drift = _from_zero(rows.total * rows.stays)
    none = np.zeros_like(drift)
    at = np.column_stack([rows.survival, none, -rows.survival * drift])
    return rows.spread(np.column_stack([drift, none]), _own(rows, rows.stays, 0.0), at)[1:]


def _hazard_spread(rows: Risk) -> Array:
    drift = _from_zero(rows.hazard.sum(axis=1) / rows.at_risk)
    none = np.zeros_like(drift)
    at = np.column_stack([none + 1, none, -drift])
    return rows.spread(np.column_stack([drift, none]), _own(rows, 1 / rows.at_risk, 0.0), at)[1:]


def _exit_spread(rows: Risk, number: int) -> Array:
    exits = rows.exits[:, number]
    jump = rows.survival[:-1] / rows.at_risk
    direct = _from_zero(jump * rows.hazard[:, number] + rows.total * rows.stays * exits[1:])
    later = _from_zero(rows.total * rows.stays)
    at = np.column_stack([np.ones_like(exits), -exits, exits * later - direct])
    own = _own(rows, rows.stays * exits[1:], rows.stays[:, None])
    own[:, number + 1, 0] += jump
    return rows.spread(np.column_stack([direct, later]), own, at)[1:]
