"""The likelihood of hazards with hidden groups of people, given how many and where: persons' parts, derivatives.

Person i is of group q with chance p_q; in it the intercepts of the K risks are mu_q. His likelihood is

    L_i = sum_q p_q M_i(mu_q) / sum_q p_q S_i(mu_q),

M that of all his stretches, S that of having survived those before he came under observation. Given the coefficients,
exposures ``A_ik = sum_r tau_r exp(x_r'theta_k)`` and numbers of events n_ik are all that M needs of the rows:
``ln M_i(mu) = c_i + sum_k (n_ik mu_k - A_ik exp(mu_k))``; in grouped time the month of an event adds
``ln((1 - exp(-H)) / H)``, H the sum of the hazards that compete in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.fitted import Hazards
from evalkit.duration.histories import Histories
from evalkit.duration.likelihood import log_share, log_share_bend, log_share_slope, rates, summed
from evalkit.duration.terms import Terms
from evalkit.effects import Array, Influence

Numbers = NDArray[np.int64]

BELOW, ABOVE = 6.0, 8.0
"""The box: points lie so far below to so far above the intercepts of one point."""
EDGE = 1e-9


@dataclass(frozen=True)
class State:
    """theta of all risks in one vector, points (Q, K), shares (Q,)."""

    theta: Array
    points: Array
    shares: Array

    @property
    def packed(self) -> Array:
        """All parameters in one vector, as in ``Hazards``."""
        return np.concatenate([self.theta, self.points.ravel(), np.log(self.shares[1:] / self.shares[0])])


@dataclass(frozen=True)
class Persons:
    """What the likelihood needs of N persons, given theta.

    count, c: (N,). n, a: (N, K) events, exposures. b: (N, K) the exposures before observation, None without any.
    rivals: (E, K) of events in grouped time the hazards that compete, at mu = 0; owner: (E,) whose they are.
    """

    count: Array
    n: Array
    a: Array
    b: Array | None
    c: Array
    rivals: Array
    owner: Numbers

    def of_events(self, values: Array) -> Array:
        """(N, C) sums of events (E, C) by person."""
        size = len(self.count)
        return np.column_stack([np.bincount(self.owner, column, minlength=size) for column in values.T])

    def log_m(self, points: Array) -> Array:
        """(N, Q) log-likelihood of each person's stretches at each point."""
        v = np.exp(points)
        out = self.c[:, None] + self.n @ points.T - self.a @ v.T
        if len(self.owner):
            out += self.of_events(log_share(self.rivals @ v.T))
        return np.asarray(out)

    def log_s(self, points: Array) -> Array | None:
        """(N, Q) log chance of the time before observation; None without any."""
        return None if self.b is None else -self.b @ np.exp(points).T

    def slope(self, point: Array) -> Array:
        """(N, K) derivative of ``log_m`` at one point."""
        v = np.exp(point)
        out = self.n - self.a * v
        if len(self.owner):
            h = self.rivals * v
            out = out + self.of_events(log_share_slope(h.sum(axis=1))[:, None] * h)
        return np.asarray(out)

    def take(self, who: Numbers) -> Persons:
        """Some of the persons."""
        place = np.full(len(self.count), -1)
        place[who] = np.arange(len(who))
        own = place[self.owner] >= 0
        b = None if self.b is None else self.b[who]
        return Persons(
            self.count[who], self.n[who], self.a[who], b, self.c[who], self.rivals[own], place[self.owner[own]]
        )


class Mixed:
    """Histories with what does not depend on parameters. ``first``: the model with one point, held levels included."""

    def __init__(self, histories: Histories, first: Hazards):
        h = self.h = histories
        self.first = first
        self.count, self.people = h.count, float(h.count.sum())
        self.risks, self.offsets = len(h.risks), first.offsets
        self.width = self.offsets[-1]
        self.grouped = h.timing == "grouped"
        self.event = np.zeros((len(h), self.risks))
        self.rows = np.flatnonzero(h.event >= 0)
        self.event[self.rows, h.event[self.rows]] = 1.0
        periods = np.repeat(h.length[:, None], self.risks, axis=1)
        if self.grouped:
            of_event = np.where(h.event >= 0, h.order[np.maximum(h.event, 0)], np.iinfo(np.int64).max)
            periods = periods - (of_event[:, None] <= h.order[None, :])
        self.seen = np.where(h.at_risk, periods, 0.0)
        self.hidden = np.where(h.at_risk & h.before[:, None], periods, 0.0) if h.before.any() else None
        self.n = self._by_person(self.event)
        if self.grouped:
            self.owner = h.person[self.rows]
            self.rival = h.at_risk[self.rows] & (h.order[None, :] == h.order[h.event[self.rows]][:, None])
        else:
            self.owner, self.rival = np.zeros(0, np.int64), np.zeros((0, self.risks), bool)
        middle = first.points[0]
        self.box = np.array([middle - BELOW, middle + ABOVE])

    def _by_person(self, values: Array) -> Array:
        """(N, ..) sums of rows (R, ..) by person."""
        heads, last = self.h.first[:-1], self.h.first[1:]
        out = np.add.reduceat(values, np.minimum(heads, max(len(values) - 1, 0)), axis=0)
        out[heads == last] = 0.0
        return np.asarray(out)

    @cached_property
    def _of_events(self) -> list[Array]:
        """By risk (N, P_k) sums of the columns of events."""
        return [d.sums(self.event[:, k], self.h.person, self.h.persons) for k, d in enumerate(self.h.designs)]

    @cached_property
    def _event_designs(self) -> list[Terms]:
        """By risk the designs of rows with an event, in grouped time."""
        return [design.take(self.rows) for design in self.h.designs]

    def first_state(self) -> State:
        """One point."""
        return State(np.concatenate(self.first.theta), np.array(self.first.points), np.ones(1))

    def _eta(self, theta: Array) -> Array:
        at = self.offsets
        return np.column_stack([d.predict(theta[at[k] : at[k + 1]]) for k, d in enumerate(self.h.designs)])

    def persons(self, theta: Array) -> Persons:
        """Person-level sums given theta."""
        eta = self._eta(theta)
        return self._persons(eta, rates(self.h.at_risk, eta))

    def _persons(self, eta: Array, rate: Array) -> Persons:
        c = self._by_person((self.event * np.where(self.event > 0, eta, 0.0)).sum(axis=1))
        before = None if self.hidden is None else self._by_person(self.hidden * rate)
        rivals = np.where(self.rival, rate[self.rows], 0.0) if self.grouped else np.zeros((0, self.risks))
        return Persons(self.count, self.n, self._by_person(self.seen * rate), before, c, rivals, self.owner)

    def value(self, state: State) -> float:
        """Log-likelihood."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = float(weights(self.persons(state.theta), state)[0] @ self.count)
        return found if np.isfinite(found) else -np.inf

    def moved(self, state: State, move: Array) -> State:
        """The state after a step (P,), points kept inside the box."""
        size = state.points.size
        points = state.points + move[self.width : self.width + size].reshape(state.points.shape)
        a = np.append(0.0, np.log(state.shares[1:] / state.shares[0]) + move[self.width + size :])
        shares = np.exp(a - a.max())
        return State(state.theta + move[: self.width], np.clip(points, *self.box), shares / shares.sum())

    def movable(self, state: State, gradient: Array) -> NDArray[np.bool_]:
        """(P,) parameters that are not held: levels held in the first model; points that press against the box."""
        free = np.ones(len(gradient), bool)
        free[: self.width] = self.first.free[: self.width]
        at = slice(self.width, self.width + state.points.size)
        low = (state.points <= self.box[0] + EDGE).ravel() & (gradient[at] < 0)
        high = (state.points >= self.box[1] - EDGE).ravel() & (gradient[at] > 0)
        free[at] = ~(low | high)
        return free

    def derivatives(self, state: State) -> tuple[Array, Array, Array]:
        """Gradient (P,), minus the second derivative (P, P), and scores of persons (N, P) of the log-likelihood.

        By Louis (1982): the observed information is that of complete data less the variance of its score given the
        data; here both are conditional on survival before observation.
        """
        eta = self._eta(state.theta)
        rate = rates(self.h.at_risk, eta)
        persons = self._persons(eta, rate)
        _, w, u = weights(persons, state)
        information, scores = self._part(persons, rate, state, w, before=False)
        if u is not None:
            other, more = self._part(persons, rate, state, u, before=True)
            information, scores = information - other, scores - more
        return self.count @ scores, information, scores

    def _part(self, persons: Persons, rate: Array, state: State, w: Array, *, before: bool) -> tuple[Array, Array]:
        """Information and scores of ln sum_q p_q M_iq (or S_iq), w (N, Q) its posterior."""
        h, risks, size, at = self.h, self.risks, len(state.shares), self.offsets
        last = self.width + state.points.size
        info = np.zeros((last + size - 1, last + size - 1))
        time, exposure = (self.hidden, persons.b) if before else (self.seen, persons.a)
        assert time is not None and exposure is not None
        v, wc = np.exp(state.points), w * self.count[:, None]
        # complete data: rows weighted by the expected hazard of their person
        z = [d.sums(time[:, k] * rate[:, k], h.person, h.persons) for k, d in enumerate(h.designs)]
        for k, design in enumerate(h.designs):
            mine = slice(at[k], at[k + 1])
            info[mine, mine] += design.products(time[:, k] * rate[:, k] * (wc @ v[:, k])[h.person])
            for q in range(size):
                place = self.width + q * risks + k
                cross = (wc[:, q] * v[q, k]) @ z[k]
                info[mine, place] += cross
                info[place, mine] += cross
                info[place, place] += v[q, k] * (wc[:, q] @ exposure[:, k])
        events = [] if before or not self.grouped else self._months_of_events(persons, v, wc, info)
        p = state.shares
        info[last:, last:] += self.people * (np.diag(p[1:]) - np.outer(p[1:], p[1:]))
        # scores by point; their variance over points is what is not known of the complete data
        mean = np.zeros((h.persons, len(info)))
        for q in range(size):
            score = np.zeros((h.persons, len(info)))
            for k in range(risks):
                own = -v[q, k] * z[k] if before else self._of_events[k] - v[q, k] * z[k]
                if events:
                    own = own + self._event_designs[k].sums(events[q][:, k], self.owner, h.persons)
                score[:, at[k] : at[k + 1]] = own
            points = slice(self.width + q * risks, self.width + (q + 1) * risks)
            score[:, points] = -exposure * v[q] if before else persons.slope(state.points[q])
            score[:, last:] = (np.arange(1, size) == q) - p[1:]
            root = np.sqrt(wc[:, q])[:, None] * score
            info -= root.T @ root
            mean += w[:, q, None] * score
        root = np.sqrt(self.count)[:, None] * mean
        return info + root.T @ root, mean

    def _months_of_events(self, persons: Persons, v: Array, wc: Array, info: Array) -> list[Array]:
        """By point (E, K) derivatives of what the months of events add; adds their second derivatives to ``info``."""
        h, risks, at, rows = self.h, self.risks, self.offsets, self._event_designs
        out = []
        for q in range(len(v)):
            hazard = persons.rivals * v[q]
            total = hazard.sum(axis=1)
            slope = log_share_slope(total)[:, None] * hazard
            weight, bend = wc[self.owner, q], log_share_bend(total)
            out.append(slope)
            for k in range(risks):
                for m in range(risks):
                    if h.order[k] != h.order[m]:
                        continue
                    value = -weight * ((slope[:, k] if k == m else 0.0) + bend * hazard[:, k] * hazard[:, m])
                    if not value.any():
                        continue
                    mine, other = slice(at[k], at[k + 1]), slice(at[m], at[m + 1])
                    a, b = self.width + q * risks + k, self.width + q * risks + m
                    info[mine, other] += rows[k].products(value, rows[m])
                    cross = rows[k].sums(value)[0]
                    info[mine, b] += cross
                    info[b, mine] += cross
                    info[a, b] += value.sum()
        return out

    def fitted(self, state: State, iterations: int = 0) -> Hazards:
        """The model with its errors; points in the order of their shares, those at the edge of the box held."""
        order = np.argsort(-state.shares, kind="stable")
        state = State(state.theta, state.points[order], state.shares[order])
        gradient, information, scores = self.derivatives(state)
        free = self.movable(state, gradient)
        at = slice(self.width, self.width + state.points.size)
        edge = (state.points <= self.box[0] + EDGE) | (state.points >= self.box[1] - EDGE)
        free[at] &= ~edge.ravel()
        bread = np.zeros_like(information)
        bread[np.ix_(free, free)] = _inverse(information[np.ix_(free, free)])
        h, first = self.h, self.first
        theta = tuple(state.theta[low:high] for low, high in zip(self.offsets[:-1], self.offsets[1:], strict=True))
        return Hazards(
            "hazard", h.risks, h.order, first.names, theta, state.points, state.shares, free,
            Influence(h.cluster_ids, summed(h, scores) @ bread, h.level), bread, self.value(state), self.people,
            first.events, iterations, float(np.abs(gradient[free]).max() / self.people),
        )  # fmt: skip


def weights(persons: Persons, state: State) -> tuple[Array, Array, Array | None]:
    """Log-likelihood (N,), and the chances of the points given everything (N, Q), and given survival before."""
    log_p = np.log(state.shares)
    value, w = posterior(persons.log_m(state.points) + log_p)
    log_s = persons.log_s(state.points)
    if log_s is None:
        return value, w, None
    base, u = posterior(log_s + log_p)
    return value - base, w, u


def posterior(values: Array) -> tuple[Array, Array]:
    """ln of the row sums of exp(values), and each one's part in it."""
    top = values.max(axis=1, keepdims=True)
    parts = np.exp(values - top)
    total = parts.sum(axis=1, keepdims=True)
    return (top + np.log(total))[:, 0], parts / total


def _inverse(matrix: Array) -> Array:
    """Inverse of an information matrix; directions without information get none."""
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(matrix)), 1e-300))
    roots, vectors = np.linalg.eigh(matrix * np.outer(scale, scale))
    keep = roots > 1e-10 * roots.max()
    inverse = (vectors[:, keep] / roots[keep]) @ vectors[:, keep].T
    return np.asarray(inverse * np.outer(scale, scale))
