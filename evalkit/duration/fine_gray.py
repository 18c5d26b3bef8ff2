"""Fine and Gray's (1999) regression for the share that leaves for one cause among several.

The hazard of the subdistribution: those who left for another cause at ``T_i`` stay in the risk set, with the chance
of still being under observation, ``w_i(t) = G(t-) H(t-) / (G(T_i-) H(T_i-))``. G is the Kaplan-Meier curve of
censoring, H that of entry, backwards in time (Geskus 2011); without delayed entry H is 1. The partial likelihood, its
Newton steps and all influence functions factorise in ``G H (t-)`` and ``1 / G H (T_i-)``, so that they are running
sums over sorted times: O(n log n + n P^2).

Who leaves and who is censored at one time, in which order? ``follows`` says it, see :func:`fine_gray`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from evalkit.duration.episodes import Episodes, Numbers
from evalkit.duration.fitted import BothErrors
from evalkit.duration.newton import dependent, solve, unbounded
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError

Follows = Literal["survival", "cmprsk"]
Errors = Literal["derivative", "known", "paper"]
Ties = Literal["efron", "breslow"]

MOST = 40
GAIN = 1e-14
FAR = 20.0
"""A coefficient that moves the log hazard by so much for a standard deviation of its column has run away."""


@dataclass(frozen=True)
class Incidence:
    """Predicted shares that left for the cause (n, T): standard errors and an interval from the log-log scale."""

    times: Array
    values: Array
    std_error: Array
    low: Array
    high: Array

    def __post_init__(self) -> None:
        for name in ("times", "values", "std_error", "low", "high"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


@dataclass(frozen=True)
class FineGray(BothErrors):
    """A fitted regression of one cause.

    Attributes
    ----------
    names, coefficients: (P,) log ratios of subdistribution hazards.
    information: (P, P) inverse of minus the second derivative of the weighted partial likelihood; not a covariance,
        since the weights are estimated.
    influence: (G, P) in sum form by cluster; its covariance is the robust one.
    log_likelihood_null, log_likelihood: of the weighted partial likelihood.
    times, stratum, increments: (T,) event times, the stratum of each, steps of the cumulated baseline hazard of the
        subdistribution (x = 0).
    persons, events: numbers. iterations: Newton steps. follows, ties, errors: as chosen.
    """

    cause: str
    names: tuple[str, ...]
    coefficients: Array
    information: Array
    influence: Influence
    log_likelihood_null: float
    log_likelihood: float
    times: Array
    stratum: Numbers
    increments: Array
    persons: int
    events: int
    iterations: int
    follows: Follows
    ties: Ties
    errors: Errors
    _problem: _Problem = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("coefficients", "information", "times", "increments"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        object.__setattr__(self, "stratum", frozen(self.stratum, np.int64))

    def baseline(self, times: ArrayLike, stratum: int = 0) -> tuple[Array, Influence]:
        """Cumulated baseline hazard of the subdistribution at times (T,), for someone with mean covariates.

        Returns (T,) and the influence (G, T + P) of these and, after them, of the coefficients.
        """
        return self._problem.baseline(self, np.atleast_1d(np.asarray(times, float)), self._known(stratum))

    def incidence(self, times: ArrayLike, x: ArrayLike, stratum: int = 0) -> Array:
        """(n, T) share that left for the cause by each time, for covariates x (n, P): ``1 - exp(-e^(x'b) L0(t))``."""
        cumulated, risk, _ = self._predicted(np.atleast_1d(np.asarray(times, float)), x, self._known(stratum))
        return np.asarray(-np.expm1(-risk[:, None] * cumulated[None, :]))

    def predict(self, times: ArrayLike, x: ArrayLike, stratum: int = 0, level: float = 0.95) -> Incidence:
        """The same with errors: influence of the baseline (steps, weights) and of the coefficients, together.

        The interval is ``1 - (1 - F)^exp(+-z se / |(1 - F) ln(1 - F)|)``, which stays within 0 and 1.
        """
        at = np.atleast_1d(np.asarray(times, float))
        cumulated, risk, shift = self._predicted(at, x, self._known(stratum))
        influence = self.baseline(at, stratum)[1]
        vcov, size = influence.vcov, len(at)
        hazard = risk[:, None] * cumulated[None, :]
        steps, mixed, slopes = np.diag(vcov)[:size], vcov[:size, size:], vcov[size:, size:]
        tilt = np.einsum("np,pq,nq->n", shift, slopes, shift)
        spread = steps[None, :] + 2 * cumulated[None, :] * (shift @ mixed.T) + cumulated[None, :] ** 2 * tilt[:, None]
        error = risk[:, None] * np.sqrt(np.clip(spread, 0.0, None))
        quantile = float(special.ndtri(0.5 + level / 2))
        factor = np.exp(quantile * np.divide(error, hazard, out=np.zeros_like(error), where=hazard > 0))
        low, high = -np.expm1(-hazard / factor), -np.expm1(-hazard * factor)
        return Incidence(at, -np.expm1(-hazard), np.exp(-hazard) * error, low, high)

    def _predicted(self, at: Array, x: ArrayLike, stratum: int) -> tuple[Array, Array, Array]:
        who = np.atleast_2d(np.asarray(x, float))
        if who.shape[1] != len(self.names):
            raise UsageError(Fault("duration.parametric_columns", {"columns": who.shape[1], "names": len(self.names)}))
        shift = who - self._problem.centre
        own = self.stratum == stratum
        whole = np.concatenate(
            [[0.0], np.cumsum(self.increments[own] * np.exp(self._problem.centre @ self.coefficients))]
        )
        return (
            whole[np.searchsorted(self.times[own], at, side="right")],
            np.exp(shift @ self.coefficients),
            shift,
        )

    def _known(self, stratum: int) -> int:
        if not 0 <= stratum < len(self._problem.first):
            raise UsageError(Fault("duration.fine_gray_stratum", {"strata": len(self._problem.first)}))
        return stratum


def fine_gray(
    episodes: Episodes,
    x: ArrayLike,
    names: Sequence[str],
    cause: str,
    *,
    follows: Follows = "survival",
    ties: Ties | None = None,
    errors: Errors = "derivative",
    censoring: ArrayLike | None = None,
    weighted_curves: bool = True,
) -> FineGray:
    """Fit the subdistribution hazard of one cause.

    Estimand: log ratios of hazards of the subdistribution, ``F(t|x) = 1 - exp(-e^(x'b) L0(t))``, the share that left
    for the cause by t when other causes act as they do. Identified if censoring and entry are independent of cause and
    time given the groups of ``censoring``.

    Parameters
    ----------
    x: (R, P), known at entry: the same in all rows of a person. A person's rows follow each other without a gap.
    follows: who comes first at one time. ``survival``: events, then censoring, then entry; with these weights and no
        covariates the estimate is exactly that of Aalen and Johansen, tied or not. ``cmprsk``: in G whoever leaves at a
        time counts as at risk of being censored at it; no delayed entry. Without ties they are one.
    ties: of events: ``efron`` (default with ``survival``) or ``breslow`` (default with ``cmprsk``).
    errors: ``derivative``: the exact derivative of the estimate in case weights, that of G and H included.
        ``known``: G and H as if known (what R's survival gives). ``paper``: Fine and Gray's plug-in term of G (what
        cmprsk gives).
    censoring: (R,) groups with curves of censoring and entry of their own; the strata of ``episodes`` when None.

    weighted_curves: whether case weights count in G and H (R's survival leaves them out there).

    Baselines differ between the strata of ``episodes`` (Zhou and others 2011); case weights count as so many people;
    influence is by cluster.

    Raises
    ------
    UsageError
        ``duration.fine_gray_setting``, ``duration.fine_gray_entry`` (delayed entry as in cmprsk),
        ``duration.parametric_columns``.
    DataError
        ``duration.fine_gray_changing``, ``duration.fine_gray_broken``, ``duration.cause_unknown``,
        ``duration.no_events``, ``duration.cox_not_finite``.
    DesignError
        ``duration.fine_gray_few``, ``duration.fine_gray_nobody``, ``duration.cox_collinear``,
        ``duration.cox_monotone``, ``duration.cox_not_converged``.
    """
    chosen: Ties = ties or ("efron" if follows == "survival" else "breslow")
    for name, given, known in (
        ("follows", follows, ("survival", "cmprsk")),
        ("ties", chosen, ("efron", "breslow")),
        ("errors", errors, ("derivative", "known", "paper")),
    ):
        if given not in known:
            raise UsageError(Fault("duration.fine_gray_setting", {"setting": name, "known": ", ".join(known)}))
    episodes.only(cause)
    values = np.asarray(x, float)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape != (len(episodes), len(names)):
        raise UsageError(Fault("duration.parametric_columns", {"columns": values.shape[1], "names": len(names)}))
    if not np.isfinite(values).all():
        raise DataError(Fault("duration.cox_not_finite", {"rows": int((~np.isfinite(values)).any(axis=1).sum())}))
    group = episodes.stratum if censoring is None else np.unique(np.asarray(censoring), return_inverse=True)[1]
    people, rows = _persons(episodes, values, group)
    if follows == "cmprsk" and (people.start > 0).any():
        raise UsageError(Fault("duration.fine_gray_entry", {"persons": int((people.start > 0).sum())}))
    number = episodes.causes.index(cause) + 1
    events, size = int((people.cause == number).sum()), len(names)
    if events < size:
        raise DesignError(Fault("duration.fine_gray_few", {"events": events, "parameters": size, "cause": cause}))
    problem = _Problem(people, values[rows], group[rows], number, follows, chosen, errors, weighted_curves)
    beta, null, value, information, steps = _newton(problem, names)
    inverse = solve(information, np.eye(size)) if size else np.zeros((0, 0))
    influence = Influence(people.cluster_ids, problem.collect(problem.scores(beta)) @ inverse, people.level)
    real = problem.real
    increments = problem.parts(beta).hazard[real] * np.exp(-problem.centre @ beta)
    return FineGray(
        cause, tuple(names), beta, inverse, influence, null, value, problem.times[real], problem.stratum_of[real],
        increments, len(people), events, steps, follows, chosen, errors, problem,
    )  # fmt: skip


def _newton(problem: _Problem, names: Sequence[str]) -> tuple[Array, float, float, Array, int]:
    beta = np.zeros(len(names))
    null, gradient, information = problem.at(beta)
    if bad := dependent(information):
        raise DesignError([Fault("duration.cox_collinear", {"column": names[j]}) for j in bad])
    value, alike = null, information
    if not len(beta):
        return beta, null, value, information, 0
    for steps in range(1, MOST + 1):
        move = solve(information, gradient)
        gain, length = float(gradient @ move), 1.0
        while not problem.value(beta + length * move) >= value - 1e-12 * abs(value) and length > 1e-6:
            length /= 2
        beta = beta + length * move
        value, gradient, information = problem.at(beta)
        far = np.flatnonzero(np.abs(beta) * problem.spread > FAR)
        if len(far):
            raise DesignError([Fault("duration.cox_monotone", {"column": names[int(j)]}) for j in far])
        if not np.isfinite(value):
            break
        if gain < GAIN * max(1.0, abs(value)):
            zero = np.zeros(len(beta))
            if away := unbounded(problem.value, zero, beta, alike, information, problem.reach, problem.spread):
                raise DesignError([Fault("duration.cox_monotone", {"column": names[j]}) for j in away])
            return beta, null, value, information, steps
    raise DesignError(Fault("duration.cox_not_converged", {"steps": MOST}))


def _persons(episodes: Episodes, x: Array, group: Numbers) -> tuple[Episodes, Numbers]:
    """One row a person, and which row of ``episodes`` has his covariates."""
    order = np.lexsort((episodes.start, episodes.person))
    person = episodes.person[order]
    follows = np.concatenate([[False], person[1:] == person[:-1]])
    if not follows.any():
        return episodes, np.arange(len(episodes))
    later, before = order[follows], order[np.flatnonzero(follows) - 1]
    broken = (episodes.start[later] != episodes.stop[before]) | (episodes.cause[before] > 0)
    if broken.any():
        persons = len(np.unique(episodes.person[later][broken]))
        raise DataError(Fault("duration.fine_gray_broken", {"persons": persons}))
    changing = (x[later] != x[before]).any(axis=1) | (group[later] != group[before])
    for name in ("weight", "stratum", "cluster"):
        values = getattr(episodes, name)
        changing |= values[later] != values[before]
    if changing.any():
        persons = len(np.unique(episodes.person[later][changing]))
        raise DataError(Fault("duration.fine_gray_changing", {"persons": persons}))
    first = order[~follows]
    last = order[np.concatenate([~follows[1:], [True]])]
    return replace(episodes.take(last), start=episodes.start[first]), first


@dataclass(frozen=True)
class _Curves:
    """Curves of censoring and entry of one group on the grid of its times, with derivatives in case weights.

    at: (U,). before: (U + 1,) log of G H just before each time, and after all. end: G is zero after it.
    stay, lost: (U,) derivative of the log factor of G in the weight of one at risk of being censored: he is not, he is.
    there, entered: (U,) the same of H, of one who was under observation before, who is from then on.
    begins, ends: (n,) places of the persons' own times on the grid.
    """

    at: Array
    before: Array
    end: float
    stay: Array
    lost: Array
    there: Array
    entered: Array
    begins: Numbers
    ends: Numbers

    def log_before(self, times: Array) -> Array:
        return np.asarray(self.before[np.searchsorted(self.at, times)])


def _curves(people: Episodes, follows: Follows, errors: Errors, number: int) -> _Curves:
    at = np.unique(np.concatenate([people.start, people.stop]))
    begins, ends = np.searchsorted(at, people.start), np.searchsorted(at, people.stop)
    censored, size = people.cause == 0, len(at)

    def sums(place: Numbers, weight: Array | None = None) -> Array:
        return np.asarray(np.bincount(place, weight, minlength=size).astype(float))

    def later(values: Array) -> Array:
        return np.cumsum(values[::-1])[::-1]

    new, ended, lost = (
        sums(begins, people.weight),
        sums(ends, people.weight),
        sums(ends[censored], people.weight[censored]),
    )
    number_after = later(sums(ends)) - later(sums(begins)) - sums(ends)
    after = np.where(number_after > 0, later(ended) - later(new) - ended, 0.0)
    others = 0.0 if follows == "survival" else ended - lost
    risk = after + lost + others
    number_left = number_after + (0.0 if follows == "survival" else sums(ends) - sums(ends[censored]))
    falls, rises = (lost > 0) & (number_left > 0), (new > 0) & (number_after > 0)
    gone = people.stop[(people.cause > 0) & (people.cause != number)].min(initial=np.inf)
    broken = (((lost > 0) & (number_left == 0)) | ((new > 0) & (number_after == 0))) & (at >= gone)
    if (broken & (at <= people.start.max())).any():
        raise DesignError(Fault("duration.fine_gray_nobody", {"time": float(at[broken][0])}))
    plain = errors == "paper"
    with np.errstate(divide="ignore", invalid="ignore"):
        fall = np.where(falls, np.log1p(-lost / risk), 0.0)
        rise = np.where(rises, np.log1p(new / after), 0.0)
        stay = np.where(falls, lost / (risk * (risk if plain else risk - lost)), 0.0)
        out = np.where(falls, -1 / risk + (lost / risk**2 if plain else 0.0), 0.0)
        there = np.where(rises, -new / (after * (after + new)), 0.0)
        entered = np.where(rises, 1 / (after + new), 0.0)
    before = np.concatenate([[0.0], np.cumsum(fall + rise)])
    end = at[broken].min(initial=np.inf)
    return _Curves(at, before, float(end), stay, out, there, entered, begins, ends)


@dataclass(frozen=True)
class _Parts:
    """Sums by event time (T, ..) at some coefficients; ``own`` of those with tied events, who count less (Efron)."""

    risk: Array
    hazard: Array
    own_hazard: Array
    mean_hazard: Array
    own_mean_hazard: Array
    mean: Array
    square: Array
    own_square: Array
    inverse: Array
    log_likelihood: float
    outer: Array


class _Problem:
    """Risk sets of the subdistribution: those still there, and those who left for another cause with their weights.

    Event times of all strata stand one after the other, each stratum closed by a time without event; ``first`` and
    ``last`` (S,) say where a stratum begins and where that time is. Someone is at risk at times ``enter .. leave - 1``;
    who left for another cause counts with his weight at ``leave .. last``.
    """

    def __init__(
        self, people: Episodes, x: Array, group: Numbers, number: int, follows: Follows, ties: Ties, errors: Errors,
        weighted: bool,
    ):  # fmt: skip
        self.people, self.follows, self.errors, self.weighted = people, follows, errors, weighted
        self.weight = people.weight
        self.centre = self.weight @ x / self.weight.sum()
        self.x = x - self.centre
        self.spread = np.sqrt(self.weight @ self.x**2 / self.weight.sum())
        self.event = people.cause == number
        self._slots()
        other = (people.cause > 0) & ~self.event
        self.curves: list[tuple[Numbers, _Curves]] = []
        self.pairs: list[tuple[int, int, Numbers, Array, Array]] = []
        for g in np.unique(group):
            members = np.flatnonzero(group == g)
            counted = people if weighted else replace(people, weight=np.ones(len(people)))
            curves = _curves(counted.take(members), follows, errors, number)
            self.curves.append((members, curves))
            gone = members[other[members]]
            for s in np.unique(people.stratum[gone]):
                own = gone[people.stratum[gone] == s]
                times = self.times[self.first[s] : self.last[s] + 1]
                level = curves.log_before(people.stop[own])
                shift = level.mean()
                ahead = np.where(times <= curves.end, np.exp(curves.log_before(times) - shift), 0.0)
                self.pairs.append((len(self.curves) - 1, int(s), own, ahead, np.exp(shift - level)))
        self._pieces(ties)

    def _slots(self) -> None:
        people = self.people
        strata = len(people.stratum_ids)
        times, first, last, at = [], np.zeros(strata, np.int64), np.zeros(strata, np.int64), 0
        self.enter, self.leave = np.zeros(len(people), np.int64), np.zeros(len(people), np.int64)
        for s in range(strata):
            own = people.stratum == s
            found = np.unique(people.stop[own & self.event])
            first[s], last[s] = at, at + len(found)
            self.enter[own] = at + np.searchsorted(found, people.start[own], side="right")
            self.leave[own] = at + np.searchsorted(found, people.stop[own], side="right")
            times.append(np.append(found, np.inf))
            at += len(found) + 1
        self.times, self.first, self.last = np.concatenate(times), first, last
        self.stratum_of = np.repeat(np.arange(strata), last - first + 1)
        self.real = np.isfinite(self.times)
        self.rank = self.leave[self.event] - 1

    def _pieces(self, ties: Ties) -> None:
        size = len(self.times)
        own = self.weight[self.event]
        self.died = np.bincount(self.rank, own, minlength=size)
        count = np.bincount(self.rank, minlength=size)
        times = count if ties == "efron" else np.minimum(count, 1)
        self.slot = np.repeat(np.arange(size), times)
        place = np.arange(len(self.slot)) - np.repeat(np.cumsum(times) - times, times)
        self.share = place / times[self.slot]
        self.mass = self.died[self.slot] / times[self.slot]

    def _still(self, values: Array) -> Array:
        """(T, ..) sums over those under observation and at risk."""
        return _later(self.leave, values, len(self.times) + 1)[1:] - _later(self.enter, values, len(self.times) + 1)[1:]

    def _sums(self, values: Array) -> Array:
        """(T, ..) weighted sums over the risk set at each event time."""
        out = self._still(values)
        for _, s, own, ahead, share in self.pairs:
            gone = _running(self.leave[own] - self.first[s], _times(values[own], share), len(ahead))
            out[self.first[s] : self.last[s] + 1] += _times(gone, ahead)
        return out

    def _along(self, values: Array) -> Array:
        """(n, ..) sums of values (T, ..) over each person's times at risk, weighted."""
        whole = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
        out = whole[self.leave] - whole[self.enter]
        for _, s, own, ahead, share in self.pairs:
            mine = _tail(_times(values[self.first[s] : self.last[s] + 1], ahead))
            out[own] += _times(mine[self.leave[own] - self.first[s]], share)
        return np.asarray(out)

    def reach(self, move: Array) -> float:
        """The largest change in a linear predictor."""
        return float(np.abs(self.x @ move).max())

    def value(self, beta: Array) -> float:
        """Log partial likelihood."""
        return self.parts(beta, False).log_likelihood

    def parts(self, beta: Array, slopes: bool = True) -> _Parts:
        """All that goes by event time."""
        eta = self.x @ beta
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            risk = self.weight * np.exp(eta)
            s0, died = self._sums(risk), np.bincount(self.rank, risk[self.event], minlength=len(self.times))
            base = s0[self.slot] - self.share * died[self.slot]
            value = float(self.weight[self.event] @ eta[self.event]) - float(self.mass @ np.log(base))
        if not slopes:
            return _Parts(risk, s0, s0, s0, s0, s0, s0, s0, s0, value, s0)
        size = len(self.times)
        rest = 1 - self.share
        s1 = self._sums(risk[:, None] * self.x)
        tied = _bins(self.rank, risk[self.event][:, None] * self.x[self.event], size)
        mean = (s1[self.slot] - self.share[:, None] * tied[self.slot]) / base[:, None]
        step = self.mass / base
        whole = np.maximum(self.died, 1e-300)

        def by_time(values: Array) -> Array:
            return _bins(self.slot, values, size)

        return _Parts(
            risk, by_time(step), by_time(step * rest), by_time(step[:, None] * mean),
            by_time((step * rest)[:, None] * mean), by_time(self.mass[:, None] * mean) / whole[:, None],
            by_time(step / base), by_time(step / base * rest), by_time(step) / whole, value,
            (mean * self.mass[:, None]).T @ mean,
        )  # fmt: skip

    def at(self, beta: Array) -> tuple[float, Array, Array]:
        """Log partial likelihood, gradient, information."""
        parts = self.parts(beta)
        load = self._along(parts.hazard)
        load[self.event] -= (parts.hazard - parts.own_hazard)[self.rank]
        load *= parts.risk
        weight = self.weight[self.event]
        gradient = weight @ self.x[self.event] - load @ self.x
        return parts.log_likelihood, gradient, (self.x * load[:, None]).T @ self.x - parts.outer

    def scores(self, beta: Array) -> Array:
        """(n, P) derivative of the score in case weights."""
        parts = self.parts(beta)
        unit = np.exp(self.x @ beta)
        load, mean = self._along(parts.hazard), self._along(parts.mean_hazard)
        load[self.event] -= (parts.hazard - parts.own_hazard)[self.rank]
        mean[self.event] -= (parts.mean_hazard - parts.own_mean_hazard)[self.rank]
        out = unit[:, None] * (mean - self.x * load[:, None])
        out[self.event] += self.x[self.event] - parts.mean[self.rank]
        return out + self._estimated_weights(parts.risk, parts.hazard, parts.mean_hazard)

    def collect(self, values: Array) -> Array:
        """(G, ..) weighted sums by cluster."""
        return _bins(self.people.cluster, self.weight[:, None] * values, len(self.people.cluster_ids))

    def baseline(self, fit: FineGray, times: Array, stratum: int) -> tuple[Array, Influence]:
        """Cumulated baseline at the mean covariates, with coefficients' influence."""
        parts = self.parts(fit.coefficients)
        unit = np.exp(self.x @ fit.coefficients)
        within = (self.stratum_of == stratum)[:, None] & (self.times[:, None] <= times[None, :])
        values = within.T @ parts.hazard
        square, own_square = within * parts.square[:, None], within * parts.own_square[:, None]
        load = self._along(square)
        load[self.event] -= (square - own_square)[self.rank]
        out = -unit[:, None] * load
        out[self.event] += within[self.rank] * parts.inverse[self.rank][:, None]
        out += self._estimated_weights(parts.risk, np.zeros(len(self.times)), -square)
        slope = within.T @ parts.mean_hazard
        rows = self.collect(out) - fit.influence.values @ slope.T
        ids, level = self.people.cluster_ids, self.people.level
        return np.asarray(values), Influence(ids, np.column_stack([rows, fit.influence.values]), level)

    def _estimated_weights(self, risk: Array, a: Array, b: Array) -> Array:
        """(n, K) what the estimation of G and H adds, for a functional that falls by ``w_j r_j (x_j a_t - b_t)``.

        With q(u) its derivative in the log factor of G H at u, summed over those who left before and event times after,
        each person moves that factor as :class:`_Curves` says.
        """
        out = np.zeros((len(self.x), b.shape[1]))
        if self.errors == "known":
            return out
        slopes: dict[int, Array] = {}
        for number, s, own, ahead, share in self.pairs:
            curves = self.curves[number][1]
            of = slice(self.first[s], self.last[s] + 1)
            place, size = np.searchsorted(curves.at, self.people.stop[own]), len(curves.at)
            paper = self.errors == "paper"
            mass = _running(place + paper, risk[own] * share, size + 1)[:size]
            after = np.searchsorted(self.times[of], curves.at, side="left" if paper else "right")
            q = mass[:, None] * _tail(_times(b[of], ahead))[after]
            if a.any():
                whole = _running(place + paper, (risk[own] * share)[:, None] * self.x[own], size + 1)[:size]
                q -= whole * _tail(a[of] * ahead)[after][:, None]
            slopes[number] = slopes.get(number, 0.0) + q
        for number, q in slopes.items():
            members, curves = self.curves[number]
            walk = np.concatenate([np.zeros((1, q.shape[1])), np.cumsum(_times(q, curves.stay + curves.there), axis=0)])
            censored = self.people.cause[members] == 0
            last = np.where(censored, curves.lost[curves.ends], 0.0)
            if self.follows == "cmprsk":
                last = np.where(censored, last, curves.stay[curves.ends])
            out[members] = (
                walk[curves.ends] - walk[curves.begins + 1] + _times(q[curves.ends], last)
                + _times(q[curves.begins], curves.entered[curves.begins])
            )  # fmt: skip
        return out if self.weighted else _times(out, 1 / self.weight)


def _times(values: Array, factor: Array) -> Array:
    return np.asarray(values * factor.reshape(-1, *[1] * (values.ndim - 1)))


def _bins(place: Numbers, values: Array, size: int) -> Array:
    """(size, ..) sums of rows by place."""
    if values.ndim == 1:
        return np.asarray(np.bincount(place, values, minlength=size), float)
    columns = [np.bincount(place, column, minlength=size) for column in values.T]
    return np.column_stack(columns) if columns else np.zeros((size, 0))


def _running(place: Numbers, values: Array, size: int) -> Array:
    return np.cumsum(_bins(place, values, size), axis=0)


def _later(place: Numbers, values: Array, size: int) -> Array:
    return np.asarray(np.cumsum(_bins(place, values, size)[::-1], axis=0)[::-1])


def _tail(values: Array) -> Array:
    """(T + 1, ..) sums from each place on."""
    return np.concatenate([np.cumsum(values[::-1], axis=0)[::-1], np.zeros((1, *values.shape[1:]))])
