"""Hazards of one risk with gamma frailty: hidden differences between people, or between groups, of a given form.

The hazard of someone with frailty z is ``z h``, ``h = exp(x'theta + mu)``; z is gamma with mean 1 and variance v, the
same in all his stretches and spells. With C the sum of h over the time he was followed, and phi(s) = (1 + v s)^(-1/v)
the average of exp(-z s), what he adds to the likelihood is closed:

- exact time, n events: ``prod(h_events) prod_{j<n}(1 + v j) (1 + v C)^(-1/v - n)``;
- grouped time, no event: ``phi(C)``; one event in a period with hazard h after C: ``phi(C) - phi(C + h)``;

divided by phi(B), B the part of C before he came under observation. Grouped time with n > 1 events is a mixed
difference of phi of order n, whose terms cancel; it is integrated over ln z by the trapezoidal rule instead, to some
twelve digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.newton import solve, uphill
from evalkit.duration.terms import Terms
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DesignError, Fault, UsageError

Numbers = NDArray[np.int64]

MOST = 100
GAIN = 1e-12
BEGIN = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Variances at which the likelihood is looked at before it is climbed."""
NONE, LARGEST = 1e-6, 1e4
CHUNK = 4_000_000
NODES, DEPTH, SIGMAS = 128, 45.0, 9.0
"""Nodes of the integral over ln z: so many, down to exp(-DEPTH) of the top on its slow side."""


@dataclass(frozen=True)
class GammaFrailty:
    """Hazards of one risk with gamma frailty. Parameters in this order: theta, intercept, variance.

    Attributes
    ----------
    names, theta: (P,) log hazard ratios at equal frailty. intercept. variance: v; 0: no frailty was found.
    free: (P + 2,) parameters that were estimated. information: (P + 2, P + 2) model-based covariance (inverse observed
        information). influence: (G, P + 2) in sum form, by cluster; zero where not free.
    log_likelihood. without: that of the best fit with v = 0. persons, events: counted. iterations: Newton steps.
    """

    risk: str
    names: tuple[str, ...]
    theta: Array
    intercept: float
    variance: float
    free: NDArray[np.bool_]
    information: Array
    influence: Influence
    log_likelihood: float
    without: float
    persons: float
    events: float
    iterations: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", frozen(self.theta))
        object.__setattr__(self, "information", frozen(self.information))
        object.__setattr__(self, "free", frozen(self.free, np.bool_))

    @property
    def labels(self) -> tuple[str, ...]:
        """P + 2 names."""
        return (*self.names, "(intercept)", "(variance)")

    @property
    def packed(self) -> Array:
        """(P + 2,) all parameters."""
        return np.concatenate([self.theta, [self.intercept, self.variance]])

    @property
    def std_error(self) -> Array:
        """(P + 2,) from the influence function (robust, clustered)."""
        return np.sqrt(np.diag(self.influence.vcov))

    @property
    def statistic(self) -> float:
        """Twice what the frailty adds to the log-likelihood."""
        return max(0.0, 2 * (self.log_likelihood - self.without))

    @property
    def p_value(self) -> float:
        """Of no frailty: v = 0 lies at the edge, so half a chi-square of one degree and half a point at zero.

        It takes persons (groups) as independent, whatever the clusters.
        """
        return float(stats.chi2.sf(self.statistic, 1) / 2) if self.statistic > 0 else 1.0

    def survival(self, design: Terms, length: ArrayLike, path: ArrayLike | None = None) -> tuple[Array, Influence]:
        """Share without the event at the end of each stretch of imagined lives, averaged over the frailty of all.

        ``exp(-ln(1 + v C) / v)``, C the hazard summed from the first stretch of the path on. Whoever lives on is less
        frail, so this falls more slowly than the curve of someone with frailty one.

        Parameters
        ----------
        design: (R rows) as in the fit. length: (R,) of each stretch, months or time. path: (R,) which life a stretch
            belongs to, not decreasing; one life when None.
        """
        tau = np.asarray(length, float)
        own = np.zeros(len(tau), np.int64) if path is None else np.asarray(path, np.int64)
        hazard = tau * np.exp(design.predict(self.theta) + self.intercept)
        x = np.column_stack([design.matrix(), np.ones(len(tau))])
        head = np.searchsorted(own, own)
        summed, slope = (np.cumsum(values, axis=0) for values in (hazard, hazard[:, None] * x))
        before = head > 0
        total = summed - np.where(before, summed[head - 1], 0.0)
        slope = slope - np.where(before[:, None], slope[head - 1], 0.0)
        r, r_v, _ = _log_mean(total, self.variance)
        share = np.exp(-r)
        by = np.column_stack([slope / -(1 + self.variance * total)[:, None], -r_v]) * share[:, None]
        return share, self.influence.linear(by)


def gamma_frailty(histories: Histories, risk: str, group: ArrayLike | None = None) -> GammaFrailty:
    """Fit the hazard of one risk with gamma frailty by maximum likelihood; events of other risks end a stretch.

    The variance is looked for from several beginnings; coefficients and variance are then found together by Newton's
    method. Where no variance above zero is better than none, the fit is that of ``fit_hazards``.

    Parameters
    ----------
    group: (N,) 0..; people who share one frailty (a team, a household). None: every person has his own.

    Raises
    ------
    UsageError
        ``duration.frailty_risk`` for an unknown risk. ``duration.frailty_rivals`` in grouped time when others of the
        same order have events: how long someone who left for another reason was at risk in his last period is not
        known. ``duration.frailty_groups`` when clusters cut through groups.
    DesignError
        Those of ``fit_hazards``; ``duration.frailty_unbounded``, ``duration.frailty_not_converged``.
    """
    if risk not in histories.risks:
        raise UsageError(Fault("duration.frailty_risk", {"risk": risk, "known": ", ".join(histories.risks)}))
    one = _single(histories, histories.risks.index(risk))
    plain = fit_hazards(one)
    problem = _Problem(one, plain.free, None if group is None else np.asarray(group, np.int64))
    beta = np.append(plain.theta[0], plain.points[0, 0])
    without = problem.value(np.append(beta, 0.0))
    best, steps = np.append(beta, 0.0), 0
    tried = best
    found = without
    for v in BEGIN:
        tried, value, used = problem.climb(np.append(tried[:-1], v), hold=True)
        steps += used
        if value > found:
            best, found = tried, value
    start = best if best[-1] > 0 else np.append(beta, BEGIN[0] / 5)
    full, value, used = problem.climb(start, hold=False)
    steps += used
    if value <= without or full[-1] <= NONE:
        full = np.append(beta, 0.0)
    return problem.result(
        full, without, plain.events, steps, risk, histories.designs[histories.risks.index(risk)].names
    )


def _single(histories: Histories, k: int) -> Histories:
    """The stretches of one risk, other risks as the end of observation."""
    h = histories
    event = np.where(h.event == k, 0, -1)
    length, keep = h.length.copy(), h.at_risk[:, k].copy()
    if h.timing == "grouped":
        rivals = [j for j in range(len(h.risks)) if j != k and h.order[j] == h.order[k] and h.events[j] > 0]
        if rivals:
            raise UsageError(
                Fault("duration.frailty_rivals", {"risk": h.risks[k], "others": ", ".join(h.risks[j] for j in rivals)})
            )
        first = (h.event >= 0) & (h.order[np.maximum(h.event, 0)] < h.order[k])
        length = length - first
        keep &= length > 0
    return Histories(
        h.person[keep], length[keep], event[keep], np.ones((int(keep.sum()), 1), bool), h.before[keep],
        (h.designs[k].take(np.flatnonzero(keep)),), (h.risks[k],), np.zeros(1, np.int64), h.count, h.cluster,
        h.cluster_ids, h.level, h.timing,
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """Derivatives for some units in s = (C, h of each event (E)), and in the variance v."""

    units: Numbers
    events: Numbers
    value: Array
    by: Array
    twice: Array
    by_v: Array
    cross: Array
    twice_v: Array


class _Problem:
    """The likelihood of one risk in (theta, mu, v)."""

    def __init__(self, histories: Histories, free: NDArray[np.bool_], group: Numbers | None):
        h = self.h = histories
        self.free = np.append(free, True)
        if group is None:
            self.unit, self.units = h.person, h.persons
            self.copies, self.weight = h.count, np.ones(len(h))
            self.cluster, self.ids, self.level = h.cluster, h.cluster_ids, h.level
            self.scale = h.score_weight
        else:
            self.unit, self.units = group[h.person], int(group.max()) + 1
            self.copies, self.weight = np.ones(self.units), h.count[h.person]
            self.scale = self.copies
            first = np.zeros(self.units, np.int64)
            first[group] = h.cluster
            if h.level == "person":
                self.cluster, self.ids, self.level = np.arange(self.units), np.arange(self.units), "group"
            else:
                if (first[group] != h.cluster).any():
                    raise UsageError(Fault("duration.frailty_groups", {"level": h.level}))
                self.cluster, self.ids, self.level = first, h.cluster_ids, h.level
        self.grouped = h.timing == "grouped"
        self.design = h.designs[0]
        self.width = self.design.width + 2
        self.happened = np.flatnonzero(h.event == 0)
        self.time = self.weight * (h.length - ((h.event == 0) if self.grouped else 0))
        self.hidden = np.flatnonzero(h.before)

    @cached_property
    def number(self) -> Numbers:
        """(U,) events of each unit."""
        found = np.bincount(self.unit[self.happened], self.weight[self.happened], minlength=self.units)
        return np.round(found).astype(np.int64)

    @cached_property
    def at_events(self) -> Array:
        """(E, P + 1) design of the rows with events, with the intercept."""
        return np.column_stack([self.design.take(self.happened).matrix(), np.ones(len(self.happened))])

    @cached_property
    def of_events(self) -> Array:
        """(U, P + 1) sums of the design over events."""
        weight = np.where(self.h.event == 0, self.weight, 0.0)
        return np.column_stack([self.design.sums(weight, self.unit, self.units), self.number])

    @cached_property
    def classes(self) -> tuple[tuple[Numbers, Numbers], ...]:
        """Units with equally many rows with events, and those rows (U, E) as places among ``happened``."""
        if not self.grouped:
            return ((np.arange(self.units), np.zeros((self.units, 0), np.int64)),)
        own = self.unit[self.happened]
        order = np.argsort(own, kind="stable")
        rows = np.bincount(own, minlength=self.units)
        head = np.cumsum(rows) - rows
        out = []
        for number in np.unique(rows):
            units = np.flatnonzero(rows == number)
            out.append((units, order[head[units][:, None] + np.arange(number)]))
        return tuple(out)

    def _rates(self, packed: Array) -> Array:
        return np.asarray(np.exp(self.design.predict(packed[:-2]) + packed[-2]))

    def _sums(self, values: Array, rows: Numbers | None = None) -> Array:
        unit = self.unit if rows is None else self.unit[rows]
        return np.bincount(unit, values, minlength=self.units).astype(float)

    def _parts(self, rate: Array, v: float) -> Iterator[_Part]:
        whole = self._sums(self.time * rate)
        hit = rate[self.happened]
        for units, events in self.classes:
            for own in np.array_split(np.arange(len(units)), max(1, events.size * NODES // CHUNK)):
                who, rows = units[own], events[own]
                c, h, weight = whole[who], hit[rows], self.weight[self.happened][rows]
                if not self.grouped:
                    yield _exact(who, rows, c, self.number[who], v)
                elif rows.shape[1] == 0 or v == 0:
                    yield _nothing(who, rows, c, h, weight, v)
                elif rows.shape[1] == 1 and (weight == 1).all():
                    yield _one(who, rows, c, h[:, 0], v)
                else:
                    yield _many(who, rows, c, h, weight, v)

    def value(self, packed: Array) -> float:
        """Log-likelihood."""
        v = float(packed[-1])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rate = self._rates(packed)
            total = sum(float(part.value @ self.copies[part.units]) for part in self._parts(rate, v))
            if not self.grouped:
                total += float(self.of_events @ packed[:-1] @ self.copies)
            if len(self.hidden):
                b = self._sums((self.time * rate)[self.hidden], self.hidden)
                total += float(_log_mean(b, v)[0] @ self.copies)
        return total if np.isfinite(total) else -np.inf

    def at(self, packed: Array) -> tuple[float, Array, Array]:
        """Log-likelihood, scores of units (U, P + 2), and minus the second derivative."""
        v, last = float(packed[-1]), self.width - 1
        rate = self._rates(packed)
        z = self._slopes(self.time * rate)
        x = self.at_events * rate[self.happened, None]
        score, info = np.zeros((self.units, self.width)), np.zeros((self.width, self.width))
        value, bend, of_event = 0.0, np.zeros(self.units), np.zeros(len(self.happened))
        for part in self._parts(rate, v):
            jump = np.concatenate([z[part.units, None], x[part.events]], axis=1)
            copies = self.copies[part.units]
            value += float(part.value @ copies)
            score[part.units, :last] = np.einsum("us,usp->up", part.by, jump)
            score[part.units, last] = part.by_v
            turned = np.einsum("ust,utp->usp", part.twice * copies[:, None, None], jump)
            flat = (-1, last)
            info[:last, :last] -= jump.reshape(flat).T @ turned.reshape(flat)
            side = np.einsum("us,usp->p", part.cross * copies[:, None], jump)
            info[:last, last] -= side
            info[last, :last] -= side
            info[last, last] -= part.twice_v @ copies
            bend[part.units] = part.by[:, 0]
            of_event[part.events] = part.by[:, 1:]
        weight = self.copies[self.unit] * self.time * rate * bend[self.unit]
        weight[self.happened] += self.copies[self.unit[self.happened]] * rate[self.happened] * of_event
        if not self.grouped:
            value += float(self.of_events @ packed[:-1] @ self.copies)
            score[:, :last] += self.of_events
        if len(self.hidden):
            b = self._sums((self.time * rate)[self.hidden], self.hidden)
            r, r_v, r_vv = _log_mean(b, v)
            inside = np.zeros(len(self.h))
            inside[self.hidden] = (self.time * rate)[self.hidden]
            zb, down = self._slopes(inside), 1 / (1 + v * b)
            value += float(r @ self.copies)
            score[:, :last] += down[:, None] * zb
            score[:, last] += r_v
            info[:last, :last] += (zb.T * (v * down**2 * self.copies)) @ zb
            side = (b * down**2 * self.copies) @ zb
            info[:last, last] += side
            info[last, :last] += side
            info[last, last] -= r_vv @ self.copies
            weight += self.copies[self.unit] * inside * down[self.unit]
        info[: last - 1, : last - 1] -= self.design.products(weight)
        edge = self.design.sums(weight)[0]
        info[: last - 1, last - 1] -= edge
        info[last - 1, : last - 1] -= edge
        info[last - 1, last - 1] -= weight.sum()
        return value, score, info

    def _slopes(self, weight: Array) -> Array:
        """(U, P + 1) sums of weight times design by unit."""
        return np.column_stack([self.design.sums(weight, self.unit, self.units), self._sums(weight)])

    def climb(self, packed: Array, hold: bool) -> tuple[Array, float, int]:
        """Newton's method from here; ``hold``: with the variance as it is."""
        free = self.free.copy()
        free[-1] = not hold
        value, score, info = self.at(packed)
        for steps in range(1, MOST + 1):
            gradient = np.where(free, self.copies @ score, 0.0)
            info[~free] = info[:, ~free] = 0.0
            info[~free, ~free] = 1.0
            move = uphill(info, gradient)
            gain, size = float(gradient @ move), 1.0
            if not hold and move[-1] < 0:
                size = min(1.0, 0.7 * packed[-1] / -move[-1])
            while self.value(packed + size * move) < value - 1e-12 * abs(value) and size > 1e-9:
                size /= 2
            packed = packed + size * move
            if not hold and packed[-1] <= NONE:
                return packed, self.value(packed), steps
            if packed[-1] > LARGEST:
                raise DesignError(Fault("duration.frailty_unbounded", {"risk": self.h.risks[0]}))
            value, score, info = self.at(packed)
            if gain < (1e-6 if hold else GAIN) * max(1.0, abs(value)) and size == 1.0:
                return packed, value, steps
        raise DesignError(Fault("duration.frailty_not_converged", {"risk": self.h.risks[0], "steps": MOST}))

    def result(
        self, packed: Array, without: float, events: Array, steps: int, risk: str, names: tuple[str, ...]
    ) -> GammaFrailty:
        """The fitted model with its errors."""
        value, score, info = self.at(packed)
        free = self.free.copy()
        free[-1] = packed[-1] > 0
        info[~free] = info[:, ~free] = 0.0
        info[~free, ~free] = 1.0
        bread = solve(info, np.eye(self.width))
        bread[~free] = bread[:, ~free] = 0.0
        whole = np.zeros((len(self.ids), self.width))
        np.add.at(whole, self.cluster, score * self.scale[:, None])
        return GammaFrailty(
            risk, names, packed[:-2], float(packed[-2]), float(packed[-1]), free, bread,
            Influence(self.ids, whole @ bread, self.level), value, without, float(self.h.count.sum()),
            float(events[0]), steps,
        )  # fmt: skip


def _log_mean(s: Array, v: float) -> tuple[Array, Array, Array]:
    """r = ln(1 + v s) / v, minus the log of the mean of exp(-z s); its first and second derivatives in v."""
    t = v * s
    small = t < 1e-2
    safe = np.where(small, 1.0, s)
    if v > 0:
        r = np.log1p(v * safe) / v
        r_v = (safe / (1 + v * safe) - r) / v
        r_vv = (-((safe / (1 + v * safe)) ** 2) - 2 * r_v) / v
    else:
        r = r_v = r_vv = np.zeros_like(s)
    k = np.arange(10)
    sign = (-1.0) ** k
    tiny = np.where(small, t, 0.0)
    power = tiny[:, None] ** k
    one = s * (power @ (sign / (k + 1)))
    two = s**2 * (power[:, :-1] @ (sign * k / (k + 1))[1:])
    three = s**3 * (power[:, :-2] @ (sign * k * (k - 1) / (k + 1))[2:])
    return np.where(small, one, r), np.where(small, two, r_v), np.where(small, three, r_vv)


def _exact(units: Numbers, events: Numbers, c: Array, n: Numbers, v: float) -> _Part:
    """Exact time; the log hazards of the events stand elsewhere."""
    r, r_v, r_vv = _log_mean(c, v)
    down = 1 / (1 + v * c)
    value, by_v, twice_v = -r - n * np.log1p(v * c), -r_v - n * c * down, -r_vv + n * (c * down) ** 2
    for j in range(int(n.max(initial=0))):
        more = n > j
        value[more] += np.log1p(v * j)
        by_v[more] += j / (1 + v * j)
        twice_v[more] -= (j / (1 + v * j)) ** 2
    by, twice = -(1 + n * v) * down, v * (1 + n * v) * down**2
    cross = -(n - c) * down**2
    return _Part(units, events, value, by[:, None], twice[:, None, None], by_v, cross[:, None], twice_v)


def _nothing(units: Numbers, events: Numbers, c: Array, h: Array, weight: Array, v: float) -> _Part:
    """Grouped time: no events with any variance, or any events with none."""
    r, r_v, r_vv = _log_mean(c, v)
    down, number = 1 / (1 + v * c), h.shape[1]
    value = -r + (weight * np.log(-np.expm1(-h))).sum(axis=1)
    b, turn = _odds(h)
    by = np.column_stack([-down, weight * b])
    twice = np.zeros((len(units), number + 1, number + 1))
    twice[:, 0, 0] = v * down**2
    twice[:, np.arange(1, number + 1), np.arange(1, number + 1)] = weight * turn
    cross = np.column_stack([c * down**2, np.zeros_like(h)])
    if not number:
        return _Part(units, events, value, by, twice, -r_v, cross, -r_vv)
    # at v = 0 the average of exp(f(z)) has the derivative (f'' + f'^2) / 2 in v, f as a function of z at 1
    slope = -c + (weight * h * b).sum(axis=1)
    by_v = (slope**2 + (weight * h**2 * turn).sum(axis=1)) / 2
    return _Part(units, events, value, by, twice, by_v, cross, -np.ones(len(units)))


def _one(units: Numbers, events: Numbers, c: Array, h: Array, v: float) -> _Part:
    """Grouped time, one event: phi(C) (1 - exp(-q)), q = ln(1 + v h / (1 + v C)) / v."""
    r, r_v, r_vv = _log_mean(c, v)
    s, s_v, s_vv = _log_mean(c + h, v)
    down, low = 1 / (1 + v * c), 1 / (1 + v * (c + h))
    q = np.log1p(v * h * down) / v
    b, turn = _odds(q)
    q_c, q_v = -v * h * down * low, s_v - r_v
    q_hh, q_cc = -v * low**2, v * (down**2 - low**2)
    q_hv, q_cv = -(c + h) * low**2, c * down**2 - (c + h) * low**2
    by = np.column_stack([-down + b * q_c, b * low])
    twice = np.empty((len(units), 2, 2))
    twice[:, 0, 0] = v * down**2 + turn * q_c**2 + b * q_cc
    twice[:, 0, 1] = twice[:, 1, 0] = turn * q_c * low + b * q_hh
    twice[:, 1, 1] = turn * low**2 + b * q_hh
    cross = np.column_stack([c * down**2 + turn * q_v * q_c + b * q_cv, turn * q_v * low + b * q_hv])
    value = -r + np.log(-np.expm1(-q))
    return _Part(
        units, events, value, by, twice, -r_v + b * q_v, cross, -r_vv + turn * q_v**2 + b * (s_vv - r_vv)
    )  # fmt: skip


def _many(units: Numbers, events: Numbers, c: Array, h: Array, weight: Array, v: float) -> _Part:
    """Grouped time, several events: means over z given the data."""
    a = 1 / v
    total = weight.sum(axis=1)
    y, chance, log_mean = _given(a, c, h, weight, total)
    z = np.exp(y)
    b, turn = _odds(z[:, None, :] * h[:, :, None])
    score = np.concatenate([-z[:, None, :], weight[:, :, None] * z[:, None, :] * b], axis=1)
    of_v = -(a**2) * (_digamma(a)[0] + y - np.expm1(y))
    of_vv = a**4 * _digamma(a)[1] + 2 * a**3 * (_digamma(a)[0] + y - np.expm1(y))
    by, by_v = np.einsum("ust,ut->us", score, chance), (of_v * chance).sum(axis=1)
    centred, off = score - by[:, :, None], of_v - by_v[:, None]
    twice = np.einsum("ust,urt,ut->usr", centred, centred, chance, optimize=True)
    place = np.arange(1, h.shape[1] + 1)
    twice[:, place, place] += np.einsum("ujt,ut->uj", weight[:, :, None] * z[:, None, :] ** 2 * turn, chance)
    cross = np.einsum("ust,ut->us", centred, off * chance)
    twice_v = ((of_vv + off**2) * chance).sum(axis=1)
    return _Part(units, events, log_mean, by, twice, by_v, cross, twice_v)


def _given(a: float, c: Array, h: Array, weight: Array, total: Array) -> tuple[Array, Array, Array]:
    """Nodes y = ln z (U, T), their chances given the data, and the log of the mean of the likelihood."""
    middle = np.log((a + total) / (a + c + (weight * h).sum(axis=1) / 2))
    for _ in range(100):
        z = np.exp(middle)[:, None]
        b, turn = _odds(z * h)
        slope = a + (weight * z * h * b).sum(axis=1) - z[:, 0] * (a + c)
        bend = z[:, 0] * (a + c) - (weight * z * h * (b + z * h * turn)).sum(axis=1)
        step = np.clip(slope / bend, -1.0, 1.0)
        middle = middle + step
        if np.abs(step).max(initial=0.0) < 1e-6:
            break
    sigma = 1 / np.sqrt(bend)
    low, high = middle - DEPTH / (a + total) - SIGMAS * sigma, middle + SIGMAS * sigma
    width = (high - low) / (NODES - 1)
    y = low[:, None] + width[:, None] * np.arange(NODES)
    z = np.exp(y)
    with np.errstate(over="ignore", under="ignore"):
        log = a * (y - np.expm1(y)) - z * c[:, None]
        for j in range(h.shape[1]):
            log += weight[:, j, None] * np.log(-np.expm1(-z * h[:, j, None]))
    log += _log_constant(a)
    top = log.max(axis=1, keepdims=True)
    part = np.exp(log - top)
    whole = part.sum(axis=1, keepdims=True)
    return y, part / whole, (top + np.log(whole))[:, 0] + np.log(width)


def _odds(t: Array) -> tuple[Array, Array]:
    """1 / (exp(t) - 1), the slope of ln(1 - exp(-t)), and its own slope."""
    b = 1 / np.expm1(np.minimum(t, 700.0))
    return b, -b * (1 + b)


def _log_constant(a: float) -> float:
    """a ln a - a - ln Gamma(a)."""
    if a < 50:
        return float(a * np.log(a) - a - special.gammaln(a))
    return float(0.5 * np.log(a / (2 * np.pi)) - 1 / (12 * a) + 1 / (360 * a**3) - 1 / (1260 * a**5))


def _digamma(a: float) -> tuple[float, float]:
    """ln a - psi(a) and 1 / a - psi'(a)."""
    if a < 50:
        return float(np.log(a) - special.digamma(a)), float(1 / a - special.polygamma(1, a))
    return (
        1 / (2 * a) + 1 / (12 * a**2) - 1 / (120 * a**4) + 1 / (252 * a**6),
        -1 / (2 * a**2) - 1 / (6 * a**3) + 1 / (30 * a**5) - 1 / (42 * a**7),
    )
