"""Cox regression on start-stop rows: ties, strata, delayed entry, weights, clusters, covariates that change.

Someone is at risk at an event time t in a row with ``start < t <= stop``. The partial likelihood is Efron's (1977) or
Breslow's; robust errors come from score residuals (Lin and Wei 1989), for Efron with the reduced weight that those
with tied events have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from evalkit.duration.episodes import Episodes
from evalkit.duration.fitted import BothErrors
from evalkit.duration.newton import dependent, solve, unbounded
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError
from evalkit.kernels import partial as kernel

Numbers = NDArray[np.int64]
Ties = Literal["efron", "breslow"]
Transform = Literal["km", "identity", "log", "rank"]

_ALONE = np.zeros(0)
MOST = 40
GAIN = 1e-13
FAR = 20.0
"""A coefficient that moves the log hazard by so much for a standard deviation of its column has run away."""


@dataclass(frozen=True)
class Proportionality:
    """Score tests that a coefficient does not change with a function of time (P,), and all together."""

    names: tuple[str, ...]
    statistic: Array
    p_value: Array
    overall: float
    df: int
    overall_p_value: float


@dataclass(frozen=True)
class CoxFit(BothErrors):
    """A fitted Cox regression.

    Attributes
    ----------
    names, coefficients: (P,) log hazard ratios. information: (P, P) inverse of the observed information.
    influence: (G, P) in sum form, by cluster: its covariance is the robust one.
    log_likelihood_null, log_likelihood: of the partial likelihood. score_test: at zero. events, rows: numbers.
    ties: how. iterations: Newton steps.
    """

    names: tuple[str, ...]
    coefficients: Array
    information: Array
    influence: Influence
    log_likelihood_null: float
    log_likelihood: float
    score_test: float
    events: int
    rows: int
    ties: Ties
    iterations: int
    _problem: _Problem = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("coefficients", "information"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def wald(self) -> float:
        """Wald statistic of all coefficients, on the information."""
        return float(self.coefficients @ np.linalg.solve(self.information, self.coefficients))

    @property
    def likelihood_ratio(self) -> float:
        """Twice the gain over a model without covariates."""
        return 2 * (self.log_likelihood - self.log_likelihood_null)

    @cached_property
    def martingale(self) -> Array:
        """(R,) event less the cumulated hazard of each row."""
        return self._problem.residuals(self.coefficients)[1]

    @cached_property
    def score_residuals(self) -> Array:
        """(R, P), unweighted."""
        return self._problem.residuals(self.coefficients)[0]

    @cached_property
    def dfbeta(self) -> Array:
        """(R, P) about how much the coefficients change when a row is left out."""
        return (self.score_residuals * self._problem.episodes.weight[:, None]) @ self.information

    @cached_property
    def schoenfeld(self) -> tuple[Array, Array]:
        """Times (E,) and residuals (E, P) of events: x less its mean in the risk set; by stratum and time."""
        return self._problem.schoenfeld(self.coefficients)

    def proportionality(self, transform: Transform = "km") -> Proportionality:
        """Grambsch and Therneau's (1994) test as an exact score test: of ``x g(t)`` added to the model, at zero.

        ``transform``: g(t), one less the Kaplan-Meier curve before t (``km``), t, its log, or its mean rank among the
        ends of all rows.
        """
        return self._problem.proportionality(self.coefficients, transform, self.names)

    def baseline(self, times: ArrayLike, stratum: int = 0) -> tuple[Array, Influence]:
        """Increments of the cumulated baseline hazard (x = 0) between times (T,), with coefficients' influence.

        Increment k covers ``(times[k - 1], times[k]]``, the first one ``(0, times[0]]``; Breslow's estimator, with
        Efron's correction where ties are taken so. Returns (T,) and the influence (G, T + P) of the increments and,
        after them, of the coefficients.
        """
        return self._problem.baseline(self, np.asarray(times, float), stratum)


def cox(
    episodes: Episodes,
    x: ArrayLike,
    names: Sequence[str],
    *,
    ties: Ties = "efron",
    offset: ArrayLike | None = None,
) -> CoxFit:
    """Fit a Cox regression; all causes of ``episodes`` count as the event (choose one with ``episodes.only``).

    Parameters
    ----------
    x: (R, P), constant within a row; rows of a person may differ. Strata, weights and clusters are those of episodes.
    offset: (R,) added to the log hazard.

    Raises
    ------
    UsageError
        ``duration.cox_ties``.
    DataError
        ``duration.cox_not_finite``.
    DesignError
        ``duration.cox_collinear`` with the columns that are constant or follow from others, ``duration.cox_monotone``
        with those whose coefficient has no finite maximum, ``duration.cox_not_converged``.
    """
    if ties not in ("efron", "breslow"):
        raise UsageError(Fault("duration.cox_ties", {}))
    values = np.asarray(x, float).reshape(len(episodes), -1)
    if not np.isfinite(values).all():
        raise DataError(Fault("duration.cox_not_finite", {"rows": int((~np.isfinite(values)).any(axis=1).sum())}))
    problem = _Problem(episodes, values, ties == "efron", offset)
    beta = np.zeros(values.shape[1])
    null, gradient, information = problem.at(beta)
    value, alike = null, information
    if bad := dependent(information):
        raise DesignError([Fault("duration.cox_collinear", {"column": names[j]}) for j in bad])
    score_test = float(gradient @ solve(information, gradient)) if len(beta) else 0.0
    for steps in range(1, MOST + 1):  # noqa: B007  (told in the result)
        move = solve(information, gradient)
        gain = float(gradient @ move)
        size = 1.0
        while (new := problem.value(beta + size * move)) < value - 1e-12 * abs(value) and size > 1e-6:
            size /= 2
        beta = beta + size * move
        value, gradient, information = problem.at(beta)
        far = np.abs(beta) * problem.spread > FAR
        if far.any() or not np.isfinite(new):
            raise DesignError([Fault("duration.cox_monotone", {"column": names[int(j)]}) for j in np.flatnonzero(far)])
        if gain < GAIN * max(1.0, abs(value)):
            break
    else:
        raise DesignError(Fault("duration.cox_not_converged", {"steps": MOST}))
    if away := unbounded(problem.value, np.zeros(len(beta)), beta, alike, information, problem.reach, problem.spread):
        raise DesignError([Fault("duration.cox_monotone", {"column": names[j]}) for j in away])
    inverse = solve(information, np.eye(len(beta))) if len(beta) else np.zeros((0, 0))
    residual, _ = problem.residuals(beta)
    by_cluster = np.zeros((len(episodes.cluster_ids), len(beta)))
    np.add.at(by_cluster, episodes.cluster, residual * episodes.weight[:, None])
    influence = Influence(episodes.cluster_ids, by_cluster @ inverse, episodes.level)
    return CoxFit(
        tuple(names), beta, inverse, influence, null, value, score_test, int((episodes.cause > 0).sum()),
        len(episodes), ties, steps, problem,
    )  # fmt: skip


def cause_specific(
    episodes: Episodes, x: ArrayLike, names: Sequence[str], *, ties: Ties = "efron"
) -> dict[str, CoxFit]:
    """A Cox regression for each cause, the others ending a row without event.

    Their influence functions stand on the same clusters in the same order, so that anything made of several causes has
    the error that sharing people implies.
    """
    return {cause: cox(episodes.only(cause), x, names, ties=ties) for cause in episodes.causes}


@dataclass(frozen=True)
class SharedFrailty:
    """A Cox regression in which groups share a gamma distributed factor of mean 1 and variance ``theta``.

    log_likelihood: marginal, the factors integrated out (partial likelihood in the rest). frailty: (G,) their means
    given the data. statistic: twice the gain over no frailty, to be set against half a chi-square of one degree.
    """

    names: tuple[str, ...]
    coefficients: Array
    theta: float
    log_likelihood: float
    frailty: Array
    statistic: float
    p_value: float


def shared_frailty(
    episodes: Episodes, x: ArrayLike, names: Sequence[str], group: ArrayLike, *, ties: Ties = "efron"
) -> SharedFrailty:
    """Gamma frailty shared within groups, by the EM algorithm given theta (Klein 1992), theta by its likelihood.

    With nu = 1 / theta, group i with d_i events and cumulated hazard H_i has the factor w_i = (d_i + nu) / (H_i + nu)
    given the data, and the marginal log-likelihood is the partial one plus (Therneau and Grambsch 2000, 9.2)

        sum_i [ nu (ln w_i - w_i) + nu + nu ln nu - (nu + d_i) ln(nu + d_i) + d_i + ln G(nu + d_i) - ln G(nu) ].

    The variance is looked for between 0.0001 and 5. Standard errors that know of the groups: :func:`cox` with clusters.
    """
    index = np.unique(np.asarray(group), return_inverse=True)[1]
    plain = cox(episodes, x, names, ties=ties)
    deaths = np.bincount(index, (episodes.cause > 0) * episodes.weight)
    found: dict[float, tuple[float, CoxFit, Array]] = {}

    def fit(theta: float) -> float:
        nu, log_w = 1.0 / theta, np.zeros(len(deaths))
        for _ in range(500):
            now = cox(episodes, x, names, ties=ties, offset=log_w[index])
            hazard = np.bincount(index, ((episodes.cause > 0) - now.martingale) * episodes.weight) / np.exp(log_w)
            new = np.log((deaths + nu) / (hazard + nu))
            moved = float(np.abs(new - log_w).max())
            log_w = new
            if moved < 1e-9:
                break
        now = cox(episodes, x, names, ties=ties, offset=log_w[index])
        penalised = now.log_likelihood + nu * float((log_w - np.exp(log_w)).sum())
        correction = (
            nu
            - (nu + deaths) * np.log(nu + deaths)
            + nu * np.log(nu)
            + special.gammaln(nu + deaths)
            - special.gammaln(nu)
        )
        value = penalised + float((correction + deaths).sum())
        found[theta] = (value, now, np.exp(log_w))
        return value

    golden, low, high = (np.sqrt(5) - 1) / 2, np.log(1e-4), np.log(5.0)
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = fit(float(np.exp(a))), fit(float(np.exp(b)))
    while high - low > 1e-6:
        if at_a > at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = fit(float(np.exp(a)))
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = fit(float(np.exp(b)))
    theta = max(found, key=lambda each: found[each][0])
    value, best, frailty = found[theta]
    if value <= plain.log_likelihood:
        return SharedFrailty(
            tuple(names), plain.coefficients, 0.0, plain.log_likelihood, np.ones(len(deaths)), 0.0, 1.0
        )
    statistic = 2 * (value - plain.log_likelihood)
    return SharedFrailty(
        tuple(names), best.coefficients, theta, value, frailty, statistic, float(stats.chi2.sf(statistic, 1) / 2)
    )


class _Problem:
    """The rows sorted by stratum and falling stop; what goes out is in the order of the episodes again."""

    def __init__(self, episodes: Episodes, x: Array, efron: bool, offset: ArrayLike | None):
        self.order = np.lexsort((-episodes.stop, episodes.stratum)).astype(np.int64)
        self.episodes, self.efron = episodes.take(self.order), efron
        weight = episodes.weight
        self.centre = weight @ x / weight.sum()
        self.offset = np.zeros(len(episodes)) if offset is None else np.asarray(offset, float)[self.order]
        self.x = np.ascontiguousarray(x[self.order] - self.centre)
        self.spread = np.sqrt(self.episodes.weight @ self.x**2 / weight.sum())
        self.event = (self.episodes.cause > 0).astype(np.int64)
        self.by_start = np.lexsort((-self.episodes.start, self.episodes.stratum)).astype(np.int64)
        counts = np.bincount(episodes.stratum, minlength=len(episodes.stratum_ids))
        self.first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.most = int(self.event.sum())

    def _eta(self, beta: Array) -> Array:
        return np.asarray(self.x @ beta + self.offset)

    def _risk(self, beta: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(self.episodes.weight * np.exp(self._eta(beta)))

    def _pass(
        self, beta: Array, slope: bool, detail: bool = False, scale: Array = _ALONE
    ) -> tuple[float, dict[str, Array], Numbers]:
        size, most = self.x.shape[1], self.most if detail else 1
        gradient, information, scaled = np.zeros(size), np.zeros((size, size)), np.zeros((size, size))
        times, hazard, own_hazard = np.zeros(most), np.zeros(most), np.zeros(most)
        square, own_square, inverse = np.zeros(most), np.zeros(most), np.zeros(most)
        mean_hazard, own_mean_hazard, mean = np.zeros((most, size)), np.zeros((most, size)), np.zeros((most, size))
        bounds = np.zeros(len(self.first), np.int64)
        e = self.episodes
        value = kernel.partial(
            self.x, self._eta(beta), self._risk(beta), e.weight, e.start, e.stop, self.event, self.by_start, self.first,
            self.efron, slope, detail, scale, gradient, information, scaled, times, hazard, mean_hazard, own_hazard,
            own_mean_hazard, mean, square, own_square, inverse, bounds,
        )  # fmt: skip
        parts = {
            "gradient": gradient, "information": information, "scaled": scaled, "times": times, "hazard": hazard,
            "mean_hazard": mean_hazard, "own_hazard": own_hazard, "own_mean_hazard": own_mean_hazard, "mean": mean,
            "square": square, "own_square": own_square, "inverse": inverse,
        }  # fmt: skip
        return float(value), parts, bounds

    def reach(self, move: Array) -> float:
        """The largest change in a linear predictor."""
        return float(np.abs(self.x @ move).max())

    def value(self, beta: Array) -> float:
        """Log partial likelihood."""
        return self._pass(beta, False)[0]

    def at(self, beta: Array) -> tuple[float, Array, Array]:
        """With gradient and information."""
        value, parts, _ = self._pass(beta, True)
        return value, parts["gradient"], parts["information"]

    def _rising(self, beta: Array) -> tuple[dict[str, Array], Numbers]:
        """What the pass gives by event time, rising within strata."""
        _, parts, bounds = self._pass(beta, True, True)
        order = np.concatenate([np.arange(b - 1, a - 1, -1) for a, b in zip(bounds[:-1], bounds[1:], strict=True)])
        order = order.astype(np.int64)
        whole = ("gradient", "information", "scaled")
        return {name: np.ascontiguousarray(part[order]) for name, part in parts.items() if name not in whole}, bounds

    def residuals(self, beta: Array) -> tuple[Array, Array]:
        """Score (R, P) and martingale (R,) residuals."""
        parts, bounds = self._rising(beta)
        strata, size = len(bounds) - 1, self.x.shape[1]
        whole = np.zeros(int(bounds[-1]) + strata)
        mean = np.zeros((len(whole), size))
        for s in range(strata):
            a, b = bounds[s], bounds[s + 1]
            whole[a + s + 1 : b + s + 1] = np.cumsum(parts["hazard"][a:b])
            mean[a + s + 1 : b + s + 1] = np.cumsum(parts["mean_hazard"][a:b], axis=0)
        out, martingale = np.zeros_like(self.x), np.zeros(len(self.x))
        e = self.episodes
        kernel.scores(
            self.x, np.exp(self._eta(beta)), e.start, e.stop, self.event, e.stratum, bounds, parts["times"], whole,
            mean, parts["own_hazard"], parts["own_mean_hazard"], parts["mean"], out, martingale,
        )  # fmt: skip
        back, whole_martingale = np.empty_like(out), np.empty_like(martingale)
        back[self.order], whole_martingale[self.order] = out, martingale
        return back, whole_martingale

    def _place(self, bounds: Numbers, times: Array) -> tuple[Numbers, Numbers]:
        """Rows with events, by stratum and time, and the number of the event time of each."""
        rows = np.flatnonzero(self.event)
        rows = rows[np.lexsort((self.episodes.stop[rows], self.episodes.stratum[rows]))]
        place = np.empty(len(rows), np.int64)
        for s in range(len(bounds) - 1):
            own = self.episodes.stratum[rows] == s
            place[own] = bounds[s] + np.searchsorted(times[bounds[s] : bounds[s + 1]], self.episodes.stop[rows[own]])
        return rows, place

    def schoenfeld(self, beta: Array) -> tuple[Array, Array]:
        parts, bounds = self._rising(beta)
        rows, place = self._place(bounds, parts["times"])
        return self.episodes.stop[rows], self.x[rows] - parts["mean"][place]

    def proportionality(self, beta: Array, transform: Transform, names: tuple[str, ...]) -> Proportionality:
        parts, bounds = self._rising(beta)
        scale = self._transform(transform, parts["times"])
        falling = np.concatenate([np.arange(b - 1, a - 1, -1) for a, b in zip(bounds[:-1], bounds[1:], strict=True)])
        scale = np.ascontiguousarray(scale[falling.astype(np.int64)] - scale.mean())
        size, tilted = self.x.shape[1], self._pass(beta, True, scale=scale)[1]
        gradient, cross, square = tilted["gradient"], tilted["information"], tilted["scaled"]
        information = self.at(beta)[2]
        inner = solve(information, cross)
        rest = square - cross.T @ inner
        single = np.array([square[j, j] - cross[:, j] @ inner[:, j] for j in range(size)])
        statistic = gradient**2 / single
        overall = float(gradient @ np.linalg.solve(rest, gradient))
        return Proportionality(
            names, statistic, stats.chi2.sf(statistic, 1), overall, size, float(stats.chi2.sf(overall, size))
        )

    def _transform(self, transform: Transform, times: Array) -> Array:
        """g(t) at the event times."""
        if transform == "identity":
            return times
        if transform == "log":
            return np.log(times)
        e = self.episodes
        if transform == "rank":
            stop = np.sort(e.stop)
            return np.asarray((np.searchsorted(stop, times, "left") + np.searchsorted(stop, times, "right") + 1) / 2)
        ended = self.event == 1
        at, place = np.unique(e.stop[ended], return_inverse=True)
        weighted = np.bincount(place, e.weight[ended])
        by_start, by_stop = np.argsort(e.start, kind="stable"), np.argsort(e.stop, kind="stable")
        left = np.concatenate([[0.0], np.cumsum(e.weight[by_stop])])
        begun = np.concatenate([[0.0], np.cumsum(e.weight[by_start])])
        at_risk = (
            begun[np.searchsorted(e.start[by_start], at, "left")] - left[np.searchsorted(e.stop[by_stop], at, "left")]
        )
        alive = np.concatenate([[1.0], np.cumprod(1 - weighted / at_risk)[:-1]])
        return np.asarray(1 - alive[np.searchsorted(at, times)])

    def baseline(self, fit: CoxFit, times: Array, stratum: int) -> tuple[Array, Influence]:
        beta = fit.coefficients
        parts, bounds = self._rising(beta)
        own = slice(bounds[stratum], bounds[stratum + 1])
        event_times = parts["times"][own]
        bin_of = np.searchsorted(times, event_times)
        shrink = float(np.exp(-self.centre @ beta))
        inside = bin_of < len(times)
        increments = shrink * np.bincount(bin_of[inside], parts["hazard"][own][inside], minlength=len(times))
        e = self.episodes
        rows = np.flatnonzero(e.stratum == stratum)
        risk = np.exp(self._eta(beta))[rows]
        total = np.zeros((len(e.cluster_ids), len(times)))
        cumulated = np.concatenate([[0.0], np.cumsum(parts["square"][own])])
        edges = np.concatenate([[-np.inf], times])
        for k in range(len(times)):
            low = np.maximum(e.start[rows], edges[k])
            high = np.minimum(e.stop[rows], times[k])
            there = np.flatnonzero(high > low)
            if not len(there):
                continue
            r = rows[there]
            first = np.searchsorted(event_times, low[there], "right")
            last = np.searchsorted(event_times, high[there], "right")
            value = -risk[there] * (cumulated[last] - cumulated[first])
            ends = (self.event[r] == 1) & (e.stop[r] <= times[k])
            place = last[ends] - 1
            square, own_square = parts["square"][own][place], parts["own_square"][own][place]
            value[ends] += parts["inverse"][own][place] + risk[there][ends] * (square - own_square)
            np.add.at(total[:, k], e.cluster[r], e.weight[r] * value * shrink)
        slope = np.zeros((len(times), len(beta)))
        np.add.at(slope, bin_of[inside], parts["mean_hazard"][own][inside])
        slope = -shrink * slope - increments[:, None] * self.centre
        values = total + fit.influence.values @ slope.T
        return np.asarray(increments), Influence(
            e.cluster_ids, np.column_stack([values, fit.influence.values]), e.level
        )
