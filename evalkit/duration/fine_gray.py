"""Fine and Gray's (1999) regression for the share that leaves for one cause among several.

The hazard of the subdistribution: those who left for another cause stay in the risk set, with the weight that they
would not yet have been censored, ``w_i(t) = G(t-) / G(T_i-)``, G the Kaplan-Meier curve of censoring, in which who
leaves at a time counts as at risk of being censored at it. Ties of events are Breslow's. These are the conventions of
the R package cmprsk. The package survival (finegray and coxph) breaks ties the other way and knows nothing of G's
estimation; on heavily tied data the two differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evalkit.duration.episodes import Episodes
from evalkit.duration.newton import dependent, solve
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DataError, DesignError, Fault

Errors = Literal["derivative", "paper"]

MOST = 40
GAIN = 1e-14


@dataclass(frozen=True)
class FineGray:
    """A fitted regression of one cause.

    Attributes
    ----------
    names, coefficients: (P,) log ratios of subdistribution hazards. information: (P, P) inverse information.
    influence: (G, P) in sum form by cluster, with the term of the estimated censoring curve.
    log_likelihood_null, log_likelihood: of the weighted partial likelihood. times, increments: (T,) of the baseline.
    """

    cause: str
    names: tuple[str, ...]
    coefficients: Array
    information: Array
    influence: Influence
    log_likelihood_null: float
    log_likelihood: float
    times: Array
    increments: Array
    events: int

    def __post_init__(self) -> None:
        for name in ("coefficients", "information", "times", "increments"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def robust_error(self) -> Array:
        """(P,) Fine and Gray's sandwich."""
        return np.sqrt(np.diag(self.influence.vcov))

    def incidence(self, times: ArrayLike, x: ArrayLike) -> Array:
        """(n, T) share that left for the cause by each time, for people with covariates x (n, P)."""
        whole = np.concatenate([[0.0], np.cumsum(self.increments)])
        base = whole[np.searchsorted(self.times, np.asarray(times, float), side="right")]
        risk = np.exp(np.atleast_2d(np.asarray(x, float)) @ self.coefficients)
        return 1 - np.exp(-risk[:, None] * base[None, :])


def fine_gray(
    episodes: Episodes, x: ArrayLike, names: Sequence[str], cause: str, *, errors: Errors = "derivative"
) -> FineGray:
    """Fit the subdistribution hazard of one cause.

    ``errors``: influence is the exact derivative of the estimate in case weights (``derivative``), or the term of the
    censoring curve is that of the paper, with those at risk in place of those at risk and not censored (``paper``), as
    in cmprsk; in large samples they are the same.

    One row a person from time 0 on: the covariates of those who left cannot change, nor can they enter late. Case
    weights count as so many people.

    Raises
    ------
    DataError
        ``duration.fine_gray_rows`` for several rows a person or delayed entry; ``duration.cause_unknown``,
        ``duration.no_events``, ``duration.cox_not_finite``.
    DesignError
        ``duration.cox_collinear``, ``duration.cox_monotone``, ``duration.cox_not_converged``.
    """
    if (episodes.start > 0).any() or len(np.unique(episodes.person)) < len(episodes):
        raise DataError(Fault("duration.fine_gray_rows", {}))
    episodes.only(cause)
    values = np.asarray(x, float).reshape(len(episodes), -1)
    if not np.isfinite(values).all():
        raise DataError(Fault("duration.cox_not_finite", {"rows": int((~np.isfinite(values)).any(axis=1).sum())}))
    problem = _Problem(episodes, values - values.mean(axis=0), episodes.causes.index(cause) + 1, errors)
    beta = np.zeros(values.shape[1])
    null, gradient, information = problem.at(beta)
    if bad := dependent(information):
        raise DesignError([Fault("duration.cox_collinear", {"column": names[j]}) for j in bad])
    value = null
    for _ in range(MOST):
        move = solve(information, gradient)
        gain, size = float(gradient @ move), 1.0
        while problem.at(beta + size * move)[0] < value - 1e-12 * abs(value) and size > 1e-6:
            size /= 2
        beta = beta + size * move
        value, gradient, information = problem.at(beta)
        far = np.abs(beta) * values.std(axis=0) > 20
        if far.any():
            raise DesignError([Fault("duration.cox_monotone", {"column": names[int(j)]}) for j in np.flatnonzero(far)])
        if gain < GAIN * max(1.0, abs(value)):
            break
    else:
        raise DesignError(Fault("duration.cox_not_converged", {"steps": MOST}))
    inverse = solve(information, np.eye(len(beta)))
    scores = problem.scores(beta)
    by_cluster = np.zeros((len(episodes.cluster_ids), len(beta)))
    np.add.at(by_cluster, episodes.cluster, scores * episodes.weight[:, None])
    increments = problem.increments(beta) * np.exp(-values.mean(axis=0) @ beta)
    return FineGray(
        cause, tuple(names), beta, inverse, Influence(episodes.cluster_ids, by_cluster @ inverse, episodes.level), null,
        value, problem.times, increments, int((episodes.cause == problem.number).sum()),
    )  # fmt: skip


class _Problem:
    """Risk sets of the subdistribution: those still there, and earlier others with the weight of not being censored."""

    def __init__(self, episodes: Episodes, x: Array, number: int, errors: Errors = "derivative"):
        self.exact = errors == "derivative"
        self.x, self.number, self.weight = x, number, episodes.weight
        self.stop, self.cause = episodes.stop, episodes.cause
        self.times = np.unique(self.stop[self.cause == number])
        at, place = np.unique(self.stop, return_inverse=True)
        lost = np.bincount(place, self.weight * (self.cause == 0))
        left = np.bincount(place, self.weight * (self.cause > 0))
        here = np.cumsum((lost + left)[::-1])[::-1]
        self.censored_at, self.lost = at, lost
        self.at_risk_censoring = here  # who leaves at a time counts as at risk of being censored at it
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = np.where(lost > 0, 1 - lost / self.at_risk_censoring, 1.0)
        after = np.cumprod(factor)
        self.before = np.concatenate([[1.0], after[:-1]])  # G(t-) at the times `at`
        self.g_times = self.before[np.searchsorted(at, self.times)]
        self.g_own = self.before[place]
        self.other = (self.cause > 0) & (self.cause != number)
        self.rank = np.searchsorted(self.times, self.stop, side="left")  # first event time not before the own time
        self.past = np.searchsorted(self.times, self.stop, side="right")  # first event time after it

    def _sums(self, values: Array) -> Array:
        """(T, ..) weighted sums over the risk set at each event time."""
        size = len(self.times)
        shape = (size + 1, *values.shape[1:])
        still, gone = np.zeros(shape), np.zeros(shape)
        np.add.at(still, self.past, values)  # in the risk set at event times before `past`
        share = values[self.other] / self.g_own[self.other].reshape(-1, *[1] * (values.ndim - 1))
        np.add.at(gone, self.past[self.other], share)
        here = np.cumsum(still[::-1], axis=0)[::-1][1:]
        earlier = np.cumsum(gone, axis=0)[:-1]
        return np.asarray(here + self.g_times.reshape(-1, *[1] * (values.ndim - 1)) * earlier)

    def _parts(self, beta: Array) -> tuple[Array, Array, Array]:
        risk = self.weight * np.exp(self.x @ beta)
        s0 = self._sums(risk)
        s1 = self._sums(risk[:, None] * self.x)
        return risk, s0, s1

    @property
    def _events(self) -> Array:
        own = self.cause == self.number
        return np.bincount(self.rank[own], self.weight[own], minlength=len(self.times)).astype(float)

    def at(self, beta: Array) -> tuple[float, Array, Array]:
        """Log partial likelihood, gradient, information."""
        risk, s0, s1 = self._parts(beta)
        s2 = self._sums(risk[:, None, None] * self.x[:, :, None] * self.x[:, None, :])
        own, d = self.cause == self.number, self._events
        mean = s1 / s0[:, None]
        value = float(self.weight[own] @ (self.x[own] @ beta)) - float(d @ np.log(s0))
        gradient = self.weight[own] @ self.x[own] - d @ mean
        information = np.einsum("t,tij->ij", d / s0, s2) - np.einsum("t,ti,tj->ij", d, mean, mean)
        return value, gradient, information

    def increments(self, beta: Array) -> Array:
        """(T,) of the cumulated baseline hazard of the subdistribution."""
        return np.asarray(self._events / self._parts(beta)[1])

    def scores(self, beta: Array) -> Array:
        """(R, P) influence on the score: eta, and psi for the estimated censoring curve (Fine and Gray 1999)."""
        risk, s0, s1 = self._parts(beta)
        mean = s1 / s0[:, None]
        hazard = self._events / s0
        unit = np.exp(self.x @ beta)
        whole = np.concatenate([[0.0], np.cumsum(hazard)])
        means = np.concatenate([np.zeros((1, self.x.shape[1])), np.cumsum(hazard[:, None] * mean, axis=0)])
        late = np.concatenate([[0.0], np.cumsum(self.g_times * hazard)])
        late_means = np.concatenate(
            [np.zeros((1, self.x.shape[1])), np.cumsum((self.g_times * hazard)[:, None] * mean, axis=0)]
        )
        until = self.past
        eta = -unit[:, None] * (self.x * whole[until][:, None] - means[until])
        own = self.cause == self.number
        eta[own] += self.x[own] - mean[self.rank[own]]
        more = (late[-1] - late[until]) / self.g_own
        more_means = (late_means[-1] - late_means[until]) / self.g_own[:, None]
        after = -unit[:, None] * (self.x * more[:, None] - more_means)
        eta[self.other] += after[self.other]
        return eta + self._psi(unit, hazard, mean)

    def _psi(self, unit: Array, hazard: Array, mean: Array) -> Array:
        """What the estimation of G adds: the integral of q(u) / pi(u) by the martingale of censoring."""
        at = self.censored_at
        size, wide = len(at), self.x.shape[1]
        # q(u) = sum over others i with T_i <= u and event times t > u of (x_i - mean_t) w_i(t) risk_i dH_t
        after = np.searchsorted(self.times, at, side="right")  # event times t with u < t: G(t-) has the factor of u
        weighted = self.g_times * hazard
        tail = np.concatenate([np.cumsum(weighted[::-1])[::-1], [0.0]])[after]
        tail_means = np.concatenate([np.cumsum((weighted[:, None] * mean)[::-1], axis=0)[::-1], np.zeros((1, wide))])[
            after
        ]
        others = np.flatnonzero(self.other)
        share = self.weight[others] * unit[others] / self.g_own[others]
        # those whose own time lies before u, or at u: G(T_i-) does not have the factor of u
        place = np.searchsorted(at, self.stop[others])
        s0 = np.cumsum(np.bincount(place, share, minlength=size))
        s1 = np.zeros((size, wide))
        np.add.at(s1, place, share[:, None] * self.x[others])
        s1 = np.cumsum(s1, axis=0)
        q = s1 * tail[:, None] - s0[:, None] * tail_means
        pi = self.at_risk_censoring - (self.lost if self.exact else 0.0)  # d ln(1 - lost / n) is 1 / (n - lost)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(pi[:, None] > 0, q / pi[:, None], 0.0)
            step = np.where(pi > 0, self.lost / self.at_risk_censoring, 0.0)
        whole = np.concatenate([np.zeros((1, wide)), np.cumsum(ratio * step[:, None], axis=0)])
        own = np.searchsorted(at, self.stop)
        until = own + 1
        psi = -whole[until]
        lost = self.cause == 0
        psi[lost] += ratio[own[lost]]
        return np.asarray(psi)
