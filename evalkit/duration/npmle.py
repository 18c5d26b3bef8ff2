"""Timing of events: hazards of several risks with a non-parametric distribution of hidden differences between people.

Person i belongs to group q with chance p_q; in it the intercepts of the K risks are mu_q = (mu_q1, .., mu_qK), the
same in all his stretches and spells. His likelihood is

    L_i = sum_q p_q M_i(mu_q) / sum_q p_q S_i(mu_q),

M the likelihood of all his stretches, S that of having survived those before he came under observation (1 without
any). Neither the number of groups nor their places are given: by Lindsay (1983) the maximum over all distributions is
one on finitely many points, and a distribution is that maximum, given the coefficients, if and only if

    D(mu) = sum_i [ M_i(mu) / sum_q p_q M_i(mu_q) - S_i(mu) / sum_q p_q S_i(mu_q) ] <= 0   for all mu.

Search: from one point on, a new point is put where, among the local maxima of D, it raises the likelihood most (D
itself is largest where a single odd person would like a point, which gains little). The shares are then maximised with
all points held (constrained Newton, Wang 2007), then everything together by Newton's method on the observed likelihood.
Points that lose their share or meet are dropped. It ends when D is closed over a stated box, or at the number of points
asked for; then models with fewer points are looked for once more from those with more. Nothing is drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from evalkit.duration.fitted import Hazards
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.effects import Array, Influence, frozen

Numbers = NDArray[np.int64]
Criterion = Literal["aic", "hq", "bic"]

BELOW, ABOVE = 6.0, 8.0
"""The box: this far below and above the intercepts of one point."""
CLOSED = 1e-3
TINY = 1e-3
"""A share that holds less than this part of one person is none."""
TRIES = 6
"""Places for a new point that are tried before the search gives up."""
SOME, MANY, SHORT = 3, 5, 8
"""So many beginnings of each kind climb so many steps before the best is chosen, up to so many points; then one."""
HALF = 0.7
"""Half the distance at which a point is split."""
MEET = 0.02
"""Points nearer than this in every risk are one."""
NEWTON = 60
GAIN = 1e-9
SCREEN = 4_000
"""Persons on whom a coarse grid is looked at first."""


@dataclass(frozen=True)
class Step:
    """The best model found with so many points, and its criteria (lower is better; persons are the observations)."""

    hazards: Hazards
    aic: float
    hq: float
    bic: float


@dataclass(frozen=True)
class Path:
    """Models by number of points.

    Attributes
    ----------
    steps: with 1, 2, .. points, in this order.
    largest: largest directional derivative D at the last model, over the box; at most ``closed`` when nothing can be
        gained. at: (K,) where it lies. box: (2, K) lowest and highest intercepts looked at.
    """

    steps: tuple[Step, ...]
    largest: float
    at: Array
    box: Array

    def __post_init__(self) -> None:
        for name in ("at", "box"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def closed(self) -> bool:
        """Whether the certificate holds: no further point would raise the likelihood."""
        return self.largest <= CLOSED

    @property
    def last(self) -> Hazards:
        """The model with the highest likelihood."""
        return max(self.steps, key=lambda step: step.hazards.log_likelihood).hazards

    def best(self, criterion: Criterion) -> Hazards:
        """The model with the lowest criterion."""
        return min(self.steps, key=lambda step: getattr(step, criterion)).hazards


def npmle(histories: Histories, points: int | None = None) -> Path:
    """Fit mixed hazards with a growing number of points.

    Parameters
    ----------
    points: stop at so many; None: until no further point would help (the NPMLE), 30 at most.

    Raises
    ------
    DesignError
        Those of :func:`~evalkit.duration.hazards.fit_hazards`, which fits the first step.
    """
    first = fit_hazards(histories)
    data = _Data(histories, first)
    most = 30 if points is None else points
    now = _State(np.concatenate(first.theta), first.points.copy(), np.ones(1))
    found = {1: (first.log_likelihood, now)}
    largest, places = data.largest(now)
    for _ in range(4 * most):
        if largest <= CLOSED or len(now.shares) >= most:
            break
        better = data.better(now, places)
        if better is None:
            break
        now = better
        value, size = data.value(now), len(now.shares)
        if size not in found or value > found[size][0]:
            found[size] = (value, now)
        largest, places = data.largest(now)
    for size in sorted(found, reverse=True):
        if size - 1 in found and size > 2:
            for start in data.smaller(found[size][1]):
                trial = data.climb(data.reweigh(start))
                value, number = data.value(trial), len(trial.shares)
                if number == size - 1 and value > found[number][0]:
                    found[number] = (value, trial)
    steps = tuple(data.step(state) for size, (_, state) in sorted(found.items()) if size <= most)
    return Path(steps, largest, places[0], data.box)


@dataclass(frozen=True)
class _State:
    """theta of all risks in one vector, points (Q, K), shares (Q,)."""

    theta: Array
    points: Array
    shares: Array


@dataclass(frozen=True)
class _Stats:
    """What the likelihood of persons needs, given theta: exposures A (whole) and B (before), log hazards c, and of
    events in grouped time the hazards b of those that compete."""

    a: Array
    b: Array | None
    c: Array
    rate: Array
    rivals: Array


class _Data:
    """Histories with what does not depend on parameters."""

    def __init__(self, histories: Histories, first: Hazards):
        self.h = histories
        self.first = first
        h = histories
        self.count = h.count
        self.tiny = TINY / float(h.count.sum())
        self.risks = len(h.risks)
        self.grouped = h.timing == "grouped"
        self.event = np.zeros((len(h), self.risks))
        happened = np.flatnonzero(h.event >= 0)
        self.event[happened, h.event[happened]] = 1.0
        periods = np.repeat(h.length[:, None], self.risks, axis=1)
        if self.grouped:
            of_event = np.where(h.event >= 0, h.order[np.maximum(h.event, 0)], np.iinfo(np.int64).max)
            periods = periods - (of_event[:, None] <= h.order[None, :])
        self.seen = np.where(h.at_risk, periods, 0.0)
        self.hidden = np.where(h.at_risk & h.before[:, None], periods, 0.0) if h.before.any() else None
        self.n = self._by_person(self.event)
        self.rows = happened
        self.who = h.person[happened]
        self.rival = (
            h.at_risk[happened] & (h.order[None, :] == h.order[h.event[happened]][:, None])
            if self.grouped
            else np.zeros((0, self.risks), bool)
        )
        held = ~first.free
        self.offsets = first.offsets
        self.width = self.offsets[-1]
        self.fixed = held[: self.width]
        middle = first.points[0]
        self.box = np.array([middle - BELOW, middle + ABOVE])

    # -- sums ----------------------------------------------------------------------------------------------------------

    @cached_property
    def _heads(self) -> Numbers:
        return self.h.first[:-1]

    def _by_person(self, values: Array) -> Array:
        """(N, ..) sums of rows (R, ..) by person."""
        if not len(self.h):
            return np.zeros((self.h.persons, *values.shape[1:]))
        heads, last = self.h.first[:-1], self.h.first[1:]
        out = np.add.reduceat(values, np.minimum(heads, len(values) - 1), axis=0)
        out[heads == last] = 0.0
        return out

    def _by_event(self, values: Array) -> Array:
        """(N, ..) sums of events (E, ..) by person."""
        out = np.zeros((self.h.persons, *values.shape[1:]))
        if values.ndim == 1:
            return np.bincount(self.who, values, minlength=self.h.persons).astype(float)
        for column in range(values.shape[1]):
            out[:, column] = np.bincount(self.who, values[:, column], minlength=self.h.persons)
        return out

    def stats(self, theta: Array) -> _Stats:
        """Person-level sums given theta."""
        at = self.offsets
        eta = np.column_stack([d.predict(theta[at[k] : at[k + 1]]) for k, d in enumerate(self.h.designs)])
        rate = np.where(self.h.at_risk, np.exp(np.where(self.h.at_risk, eta, 0.0)), 0.0)
        c = self._by_person((self.event * np.where(self.event > 0, eta, 0.0)).sum(axis=1))
        before = None if self.hidden is None else self._by_person(self.hidden * rate)
        rivals = np.where(self.rival, rate[self.rows], 0.0) if self.grouped else self.rival.astype(float)
        return _Stats(self._by_person(self.seen * rate), before, c, rate, rivals)

    def log_m(self, stats: _Stats, points: Array) -> Array:
        """(N, Q) log-likelihood of each person's stretches at each point."""
        v = np.exp(points)
        out = stats.c[:, None] + self.n @ points.T - stats.a @ v.T
        if self.grouped:
            out += self._by_event(_log_ratio(stats.rivals @ v.T))
        return np.asarray(out)

    def log_s(self, stats: _Stats, points: Array) -> Array | None:
        """(N, Q) log chance of the time before observation; None without any."""
        return None if stats.b is None else -stats.b @ np.exp(points).T

    def weights(self, stats: _Stats, state: _State) -> tuple[Array, Array, Array | None]:
        """Log-likelihood (N,), and the chances of the points given everything (N, Q), and given survival before."""
        log_p = np.log(state.shares)
        value, w = _posterior(self.log_m(stats, state.points) + log_p)
        log_s = self.log_s(stats, state.points)
        if log_s is None:
            return value, w, None
        base, u = _posterior(log_s + log_p)
        return value - base, w, u

    def value(self, state: _State) -> float:
        """Log-likelihood."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = float(self.weights(self.stats(state.theta), state)[0] @ self.count)
        return found if np.isfinite(found) else -np.inf

    # -- a further point ----------------------------------------------------------------------------------------------

    def _slope(
        self, stats: _Stats, log_l: Array, log_b: Array | None, points: Array, who: Numbers | None = None
    ) -> Array:
        """(Q,) directional derivatives at points; ``who``: only those persons, scaled up."""
        if who is not None:
            part = self._few(stats, who)
            m = np.exp(np.minimum(part(points) - log_l[who, None], 600.0))
            scale = self.count.sum() / self.count[who].sum()
            out = scale * (self.count[who] @ m)
            base = self.count.sum()
            if log_b is not None:
                s = np.exp(-stats.b[who] @ np.exp(points).T - log_b[who, None])  # type: ignore[index]
                base = scale * (self.count[who] @ s)
            return np.asarray(out - base)
        m = np.exp(np.minimum(self.log_m(stats, points) - log_l[:, None], 600.0))
        out = self.count @ m
        log_s = self.log_s(stats, points)
        if log_s is None:
            return np.asarray(out - self.count.sum())
        assert log_b is not None
        return np.asarray(out - self.count @ np.exp(log_s - log_b[:, None]))

    def _few(self, stats: _Stats, who: Numbers):  # type: ignore[no-untyped-def]
        """log M of some persons as a function of points."""
        place = np.full(self.h.persons, -1)
        place[who] = np.arange(len(who))
        mine = place[self.who] >= 0 if self.grouped else np.zeros(0, bool)
        rivals, owner = stats.rivals[mine], place[self.who[mine]] if self.grouped else np.zeros(0, int)

        def log_m(points: Array) -> Array:
            v = np.exp(points)
            out = stats.c[who, None] + self.n[who] @ points.T - stats.a[who] @ v.T
            if self.grouped:
                g = _log_ratio(rivals @ v.T)
                for column in range(len(points)):
                    out[:, column] += np.bincount(owner, g[:, column], minlength=len(who))
            return np.asarray(out)

        return log_m

    def largest(self, state: _State) -> tuple[float, Array]:
        """The largest directional derivative over the box, and its local maxima (m, K), the largest first.

        By a grid (on some of the persons where they are many), then ascent with everybody from its best places and from
        near the points there are.
        """
        stats = self.stats(state.theta)
        log_p = np.log(state.shares)
        log_l = _posterior(self.log_m(stats, state.points) + log_p)[0]
        log_s = self.log_s(stats, state.points)
        log_b = None if log_s is None else _posterior(log_s + log_p)[0]
        each = {1: 81, 2: 25, 3: 11, 4: 7}.get(self.risks, 5)
        axes = [np.linspace(low, high, each) for low, high in self.box.T]
        grid = np.array(list(product(*axes)))
        shifts = np.array([s for s in product((-0.4, 0.0, 0.4), repeat=min(self.risks, 3)) if any(s)])
        shifts = np.pad(shifts, ((0, 0), (0, self.risks - shifts.shape[1])))
        near = np.clip((state.points[:, None] + shifts[None]).reshape(-1, self.risks), *self.box)
        grid = np.concatenate([grid, near])
        persons = self.h.persons
        who = None if persons <= SCREEN else np.linspace(0, persons - 1, SCREEN).astype(np.int64)
        block = max(1, 20_000_000 // max(1, min(persons, SCREEN)) // 8)
        rough = np.concatenate(
            [self._slope(stats, log_l, log_b, grid[i : i + block], who) for i in range(0, len(grid), block)]
        )
        starts = grid[np.argsort(-rough, kind="stable")[:40]]
        starts = np.concatenate([_apart(starts, 0.5)[:12], near[:: max(1, len(near) // 8)][:8]])
        tops = [self._ascend(stats, log_l, log_b, start) for start in starts]
        tops.sort(key=lambda top: -top[0])
        return tops[0][0], _apart(np.array([place for _, place in tops]), 0.1)

    def better(self, state: _State, places: Array) -> _State | None:
        """A better model with a point more; None when nothing gains.

        A new point at the places given, or a point there is split in two; after the best shares for each, the most
        promising of both kinds climb a few steps, and the best of these to the top.
        """
        now = self.value(state)
        added = self._promising([self.insert(state, place) for place in places])
        split = self._promising(self.halves(state))
        some = SOME if len(state.shares) < MANY else 1
        begun = [self.climb(trial, SHORT) for trial in (*added[:some], *split[:some])]
        begun.sort(key=lambda trial: -self.value(trial))
        for trial in (*begun[:2], *added[some:TRIES]):
            found = self.climb(trial)
            if self.value(found) > now + 1e-7:
                return found
        return None

    def _promising(self, trials: list[_State]) -> list[_State]:
        """With the best shares, those of the highest likelihood first."""
        weighed = [self.reweigh(trial) for trial in trials]
        weighed.sort(key=lambda trial: -self.value(trial))
        return weighed

    def halves(self, state: _State) -> list[_State]:
        """The two largest points split in two: apart in all risks, in exits only, in one risk, against each other."""
        directions = [np.ones(self.risks), *np.eye(self.risks)]
        if (self.h.order > self.h.order.min()).any():
            directions += [np.where(self.h.order == self.h.order.min(), 1.0, 0.0)]
            directions += [np.where(self.h.order == self.h.order.min(), 1.0, -1.0)]
        elif self.risks > 1:
            directions += [np.where(np.arange(self.risks) == self.risks - 1, -1.0, 1.0)]
        out = []
        for largest in np.argsort(-state.shares, kind="stable")[:2]:
            for direction in directions:
                points = np.vstack([state.points, state.points[largest] + HALF * direction])
                points[largest] = points[largest] - HALF * direction
                shares = np.append(state.shares, state.shares[largest] / 2)
                shares[largest] /= 2
                out.append(_State(state.theta, np.clip(points, *self.box), shares))
        return out

    def _ascend(self, stats: _Stats, log_l: Array, log_b: Array | None, start: Array) -> tuple[float, Array]:
        """A local maximum of log(D + N) from a place, inside the box."""

        def negative(point: Array) -> tuple[float, Array]:
            v = np.exp(point)
            log_m = self.log_m(stats, point[None])[:, 0]
            m = self.count * np.exp(np.minimum(log_m - log_l, 600.0))
            slope = self.n - stats.a * v
            if self.grouped:
                h = stats.rivals * v
                slope = slope + self._by_event(_bend(h.sum(axis=1))[:, None] * h)
            total, gradient = m.sum(), m @ slope
            if log_b is not None:
                assert stats.b is not None
                s = self.count * np.exp(-stats.b @ v - log_b)
                total, gradient = total - s.sum() + self.count.sum(), gradient + s @ (stats.b * v)
            return -float(total) / persons, -gradient / persons

        persons = float(self.count.sum())
        found = optimize.minimize(
            negative, start, jac=True, method="L-BFGS-B", bounds=self.box.T, options={"maxiter": 60, "ftol": 1e-12}
        )
        return float(-found.fun * persons - self.count.sum()), np.asarray(found.x)

    def insert(self, state: _State, at: Array) -> _State:
        """One more point with the share that a line search gives it."""
        points = np.vstack([state.points, at])
        best, share = -np.inf, 0.0
        stats = self.stats(state.theta)
        for tried in (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.35):
            shares = np.append(state.shares * (1 - tried), tried)
            value = float(self.weights(stats, _State(state.theta, points, shares))[0] @ self.count)
            if value > best:
                best, share = value, tried
        return _State(state.theta, points, np.append(state.shares * (1 - share), share))

    def reweigh(self, state: _State) -> _State:
        """The best shares with points and coefficients held."""
        stats = self.stats(state.theta)
        log_m = self.log_m(stats, state.points)
        top = log_m.max(axis=1, keepdims=True)
        m = np.exp(log_m - top)
        log_s = self.log_s(stats, state.points)
        if log_s is not None:
            s = np.exp(log_s - log_s.max(axis=1, keepdims=True))

            def negative(p: Array) -> tuple[float, Array]:
                a, b = m @ p, s @ p
                value = self.count @ (np.log(a) - np.log(b))
                return -float(value), -(m.T @ (self.count / a) - s.T @ (self.count / b))

            found = optimize.minimize(
                negative, state.shares, jac=True, method="L-BFGS-B", bounds=[(1e-12, None)] * len(state.shares),
                options={"maxiter": 200},
            )  # fmt: skip
            return replace(state, shares=found.x / found.x.sum())
        p = state.shares
        root = np.sqrt(self.count)
        for _ in range(50):
            mixed = m @ p
            ratio = m / mixed[:, None]
            gradient = self.count @ ratio - self.count.sum()
            if gradient.max() < 1e-6 * self.count.sum():
                break
            weighted = ratio * root[:, None]
            # minimise |S x - 2|^2 over the simplex by nonnegative least squares with a heavy row for the sum
            gram, right = weighted.T @ weighted, 2.0 * (weighted.T @ root)
            heavy = 1e4 * float(np.trace(gram))
            gram = gram + heavy
            right = right + heavy
            lower = np.linalg.cholesky(gram + 1e-12 * np.trace(gram) * np.eye(len(p)))
            target = optimize.nnls(lower.T, linalg.solve_triangular(lower, right, lower=True))[0]
            target = target / target.sum()
            old = float(self.count @ np.log(mixed))
            size = 1.0
            while size > 1e-6:
                new = p + size * (target - p)
                value = m @ new
                if value.min() > 0 and float(self.count @ np.log(value)) > old:
                    break
                size /= 2
            else:
                break
            p = new
        return replace(state, shares=np.maximum(p, 0.0) / np.maximum(p, 0.0).sum())

    # -- everything together -------------------------------------------------------------------------------------------

    def pruned(self, state: _State) -> _State:
        """Without points that have no share, and with points that meet as one."""
        keep = state.shares > self.tiny
        points, shares = state.points[keep], state.shares[keep]
        place = 0
        while place < len(points):
            near = (np.abs(np.exp(points) - np.exp(points[place])) <= MEET * np.exp(points[place])).all(axis=1)
            near[: place + 1] = False
            if near.any():
                own = shares[place] + shares[near].sum()
                points[place] = (shares[place] * points[place] + shares[near] @ points[near]) / own
                shares[place] = own
                points, shares = points[~near], shares[~near]
            place += 1
        return _State(state.theta, points, shares / shares.sum())

    def smaller(self, state: _State) -> list[_State]:
        """Where to look from for the best model with a point less: without one of small share, or with two as one."""
        out = []
        for gone in np.argsort(state.shares, kind="stable")[:3]:
            keep = np.arange(len(state.shares)) != gone
            out.append(_State(state.theta, state.points[keep], state.shares[keep] / state.shares[keep].sum()))
        apart = np.abs(state.points[:, None] - state.points[None]).max(axis=2)
        np.fill_diagonal(apart, np.inf)
        a, b = np.unravel_index(int(np.argmin(apart)), apart.shape)
        share = state.shares[a] + state.shares[b]
        points = state.points.copy()
        points[a] = (state.shares[a] * points[a] + state.shares[b] * points[b]) / share
        shares = state.shares.copy()
        shares[a] = share
        keep = np.arange(len(shares)) != b
        out.append(_State(state.theta, points[keep], shares[keep]))
        return out

    def climb(self, state: _State, most: int = NEWTON) -> _State:
        """A maximum in all parameters, from this state: Newton's method with damping, points inside the box."""
        state = self.pruned(state)
        value = self.value(state)
        damp = 1e-3
        for step in range(most):
            gradient, information, _ = self.derivatives(state)
            free = self.movable(state, gradient)
            matrix, right = information[np.ix_(free, free)], gradient[free]
            roots, vectors = np.linalg.eigh(matrix)
            scale = np.abs(roots).max()
            improved = False
            for _ in range(12):
                size = np.maximum(np.abs(roots), 1e-10 * scale) + damp * np.maximum(np.abs(roots), 1e-6 * scale)
                move = np.zeros(len(gradient))
                move[free] = vectors @ ((vectors.T @ right) / size)
                largest = np.abs(move).max()
                if largest > 2.0:
                    move *= 2.0 / largest
                tried = self.moved(state, move)
                new = self.value(tried)
                if new > value:
                    improved = True
                    damp = max(damp / 5, 1e-9)
                    break
                damp = max(damp * 10, 1e-3)
            if not improved:
                break
            gain, state, value = new - value, tried, new
            if state.shares.min() < self.tiny or step % 10 == 9:
                state = self.pruned(state)
                value = self.value(state)
            if gain < GAIN * max(1.0, abs(value)) * 1e-2:
                break
        return self.pruned(state)

    def pack(self, state: _State) -> Array:
        """All parameters in one vector, as in ``Hazards``."""
        return np.concatenate([state.theta, state.points.ravel(), np.log(state.shares[1:] / state.shares[0])])

    def moved(self, state: _State, move: Array) -> _State:
        """The state after a step, points kept inside the box."""
        size = state.points.size
        points = state.points + move[self.width : self.width + size].reshape(state.points.shape)
        points = np.clip(points, self.box[0], self.box[1])
        a = np.append(0.0, np.log(state.shares[1:] / state.shares[0]) + move[self.width + size :])
        shares = np.exp(a - a.max())
        return _State(state.theta + move[: self.width], points, shares / shares.sum())

    def movable(self, state: _State, gradient: Array) -> NDArray[np.bool_]:
        """Parameters that are not held: held levels, and points that the gradient presses against the box."""
        free = np.ones(len(gradient), bool)
        free[: self.width] = ~self.fixed
        at = slice(self.width, self.width + state.points.size)
        low = (state.points <= self.box[0] + 1e-12).ravel() & (gradient[at] < 0)
        high = (state.points >= self.box[1] - 1e-12).ravel() & (gradient[at] > 0)
        free[at] = ~(low | high)
        return free

    def derivatives(self, state: _State) -> tuple[Array, Array, Array]:
        """Gradient (P,), minus the second derivative (P, P), and scores of persons (N, P) of the log-likelihood.

        By Louis (1982): the observed information is that of complete data less the variance of its score given the
        data; here both are conditional on survival before observation.
        """
        stats = self.stats(state.theta)
        _, w, u = self.weights(stats, state)
        at, scores = self._part(stats, state, w, before=False)
        if u is not None:
            other, more = self._part(stats, state, u, before=True)
            at, scores = at - other, scores - more
        return self.count @ scores, at, scores

    def _part(self, stats: _Stats, state: _State, w: Array, *, before: bool) -> tuple[Array, Array]:
        """Information and scores of ln sum_q p_q M_iq (or S_iq), w (N, Q) its posterior."""
        h, risks, size = self.h, self.risks, len(state.shares)
        total = self.width + state.points.size + size - 1
        info = np.zeros((total, total))
        time = self.hidden if before else self.seen
        assert time is not None
        v = np.exp(state.points)
        exposure = stats.b if before else stats.a
        assert exposure is not None
        at = self.offsets
        wc = w * self.count[:, None]
        # complete data, coefficients: rows weighted by the expected hazard of their person
        z = [d.sums(time[:, k] * stats.rate[:, k], h.person, h.persons) for k, d in enumerate(h.designs)]
        fixed = [
            d.sums(self.event[:, k], h.person, h.persons) if not before else np.zeros((h.persons, d.width))
            for k, d in enumerate(h.designs)
        ]
        for k, design in enumerate(h.designs):
            mine = slice(at[k], at[k + 1])
            mean = (wc @ v[:, k])[h.person]
            info[mine, mine] += design.products(time[:, k] * stats.rate[:, k] * mean)
            for q in range(size):
                place = self.width + q * risks + k
                cross = (wc[:, q] * v[q, k]) @ z[k]
                info[mine, place] += cross
                info[place, mine] += cross
                info[place, place] += v[q, k] * (wc[:, q] @ exposure[:, k])
        events = []
        if self.grouped and not before and len(self.rows):
            rows = [design.take(self.rows) for design in h.designs]
            for q in range(size):
                hazard = stats.rivals * v[q]
                sum_ = hazard.sum(axis=1)
                events.append(_bend(sum_)[:, None] * hazard)
                weight = wc[self.who, q]
                twist = _twist(sum_)
                for k in range(risks):
                    for m in range(risks):
                        if h.order[k] != h.order[m]:
                            continue
                        value = -weight * (
                            (_bend(sum_) * hazard[:, k] if k == m else 0.0) + twist * hazard[:, k] * hazard[:, m]
                        )
                        if not value.any():
                            continue
                        mine, other = slice(at[k], at[k + 1]), slice(at[m], at[m + 1])
                        a, b = self.width + q * risks + k, self.width + q * risks + m
                        info[mine, other] += rows[k].products(value, rows[m])
                        cross = rows[k].sums(value)[0]
                        info[mine, b] += cross
                        info[b, mine] += cross
                        info[a, b] += value.sum()
        last = self.width + state.points.size
        p = state.shares
        info[last:, last:] += self.count.sum() * (np.diag(p[1:]) - np.outer(p[1:], p[1:]))
        # scores by point; their variance over points is what is not known of the complete data
        mean = np.zeros((h.persons, total))
        for q in range(size):
            score = np.zeros((h.persons, total))
            for k, design in enumerate(h.designs):
                own = fixed[k] - v[q, k] * z[k]
                if events:
                    rows_k = design.take(self.rows)
                    own = own + rows_k.sums(events[q][:, k], self.who, h.persons)
                score[:, at[k] : at[k + 1]] = own
                point = -exposure[:, k] * v[q, k] + (0.0 if before else self.n[:, k])
                if events:
                    point = point + np.bincount(self.who, events[q][:, k], minlength=h.persons)
                score[:, self.width + q * risks + k] = point
            score[:, last:] = (np.arange(1, size) == q) - p[1:]
            root = np.sqrt(wc[:, q])[:, None] * score
            info -= root.T @ root
            mean += w[:, q, None] * score
        root = np.sqrt(self.count)[:, None] * mean
        info += root.T @ root
        return info, mean

    def step(self, state: _State) -> Step:
        """The model with its errors and criteria; points in the order of their shares."""
        order = np.argsort(-state.shares, kind="stable")
        state = _State(state.theta, state.points[order], state.shares[order])
        gradient, information, scores = self.derivatives(state)
        free = self.movable(state, gradient)
        at = slice(self.width, self.width + state.points.size)
        edge = (state.points <= self.box[0] + 1e-9) | (state.points >= self.box[1] - 1e-9)
        free[at] &= ~edge.ravel()
        bread = np.zeros_like(information)
        bread[np.ix_(free, free)] = _inverse(information[np.ix_(free, free)])
        h = self.h
        scores = scores * (np.sqrt(h.count) if h.level == "person" else h.count)[:, None]
        whole = np.zeros((len(h.cluster_ids), scores.shape[1]))
        np.add.at(whole, h.cluster, scores)
        value, n = self.value(state), float(h.count.sum())
        theta = tuple(state.theta[low:high] for low, high in zip(self.offsets[:-1], self.offsets[1:], strict=True))
        hazards = Hazards(
            "hazard", h.risks, h.order, self.first.names, theta, state.points, state.shares, free,
            Influence(h.cluster_ids, whole @ bread, h.level), bread, value, n, self.first.events, 0,
            float(np.abs(gradient[free]).max() / n),
        )  # fmt: skip
        k = int(free.sum())
        return Step(hazards, 2 * k - 2 * value, 2 * k * np.log(np.log(n)) - 2 * value, k * np.log(n) - 2 * value)


def _posterior(values: Array) -> tuple[Array, Array]:
    """ln of the row sums of exp(values), and each one's part in it."""
    top = values.max(axis=1, keepdims=True)
    parts = np.exp(values - top)
    total = parts.sum(axis=1, keepdims=True)
    return (top + np.log(total))[:, 0], parts / total


def _log_ratio(t: Array) -> Array:
    """ln((1 - exp(-t)) / t)."""
    small = t < 1e-5
    safe = np.where(small, 1.0, t)
    return np.where(small, -t / 2 + t * t / 24, np.log(-np.expm1(-safe) / safe))


def _bend(t: Array) -> Array:
    """Its derivative: 1 / (exp(t) - 1) - 1 / t."""
    small = t < 1e-4
    safe = np.where(small, 1.0, np.minimum(t, 700.0))
    return np.where(small, -0.5 + t / 12, 1 / np.expm1(safe) - 1 / safe)


def _twist(t: Array) -> Array:
    """Its second derivative: 1 / t^2 - exp(t) / (exp(t) - 1)^2."""
    small = t < 1e-2
    safe = np.where(small, 1.0, np.minimum(t, 300.0))
    return np.where(
        small, 1 / 12 - t * t / 240 + t**4 / 6048, 1 / safe**2 - np.exp(safe) / np.expm1(safe) ** 2
    )  # fmt: skip


def _inverse(matrix: Array) -> Array:
    """Inverse of an information matrix; directions without information get none."""
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(matrix)), 1e-300))
    roots, vectors = np.linalg.eigh(matrix * np.outer(scale, scale))
    keep = roots > 1e-10 * roots.max()
    inverse = (vectors[:, keep] / roots[keep]) @ vectors[:, keep].T
    return np.asarray(inverse * np.outer(scale, scale))


def _apart(points: Array, distance: float) -> Array:
    """Those that lie at least so far from all before them."""
    kept: list[Array] = []
    for point in points:
        if all(np.abs(point - other).max() >= distance for other in kept):
            kept.append(point)
    return np.array(kept)
