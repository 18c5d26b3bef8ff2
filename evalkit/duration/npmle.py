"""Timing of events: hazards of several risks with a non-parametric distribution of hidden differences between people.

Neither the number of hidden groups of :mod:`evalkit.duration.mixed` nor their places are given: by Lindsay (1983) the
maximum over all distributions is one on finitely many points, and a distribution is that maximum, given the
coefficients, if and only if

    D(mu) = sum_i [ M_i(mu) / sum_q p_q M_i(mu_q) - S_i(mu) / sum_q p_q S_i(mu_q) ] <= 0   for all mu.

Search: from one point on, a new point is put where, among the local maxima of D, it raises the likelihood most (D
itself is largest where a single odd person would like a point, which gains little), or a point is split in two. The
shares are then maximised with all points held (constrained Newton, Wang 2007), then everything together by Newton's
method on the observed likelihood. Points that lose their share or meet are dropped. It ends when D is closed over a
stated box, or at the number of points asked for; then models with fewer points are looked for once more from those
with more. Nothing is drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from evalkit.duration.fitted import Hazards
from evalkit.duration.hazard_tables import criteria
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.mixed import Mixed, Persons, State, posterior
from evalkit.effects import Array, frozen

Numbers = NDArray[np.int64]
Criterion = Literal["aic", "hq", "bic"]

CLOSED = 1e-3
"""D below this is none."""
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
BLOCK = 2_500_000
"""Persons times places that are worked out at once."""
HIGHEST = 600.0
"""No exponent goes beyond this."""


@dataclass(frozen=True)
class Path:
    """Models by number of points.

    Attributes
    ----------
    models: the best found with 1, 2, .. points.
    largest: largest directional derivative D at the last model, over the box; at most ``CLOSED`` when nothing can be
        gained. at: (K,) where it lies. box: (2, K) lowest and highest intercepts looked at.
    """

    models: tuple[Hazards, ...]
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
        return max(self.models, key=lambda model: model.log_likelihood)

    def best(self, criterion: Criterion) -> Hazards:
        """The model with the lowest criterion; persons are the observations."""
        return min(self.models, key=lambda model: float(getattr(criteria(model), criterion)))


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
    data = _Search(Mixed(histories, first))
    most = 30 if points is None else points
    now = data.of.first_state()
    found = {1: (first.log_likelihood, now)}
    largest, places = data.largest(now)
    for _ in range(4 * most):
        if largest <= CLOSED or len(now.shares) >= most:
            break
        better = data.better(now, places)
        if better is None:
            break
        now = better
        value, size = data.of.value(now), len(now.shares)
        if size not in found or value > found[size][0]:
            found[size] = (value, now)
        largest, places = data.largest(now)
    for size in sorted(found, reverse=True):
        if size - 1 in found and size > 2:
            for start in data.smaller(found[size][1]):
                trial = data.climb(data.reweigh(start))
                value, number = data.of.value(trial), len(trial.shares)
                if number == size - 1 and value > found[number][0]:
                    found[number] = (value, trial)
    models = tuple(data.of.fitted(state) for size, (_, state) in sorted(found.items()) if size <= most)
    return Path(models, largest, places[0], data.of.box)


class _Search:
    """Where points go: one more, one less, the best shares, the top."""

    def __init__(self, of: Mixed):
        self.of = of
        self.tiny = TINY / of.people

    def largest(self, state: State) -> tuple[float, Array]:
        """The largest directional derivative over the box, and its local maxima (m, K), the largest first.

        By a grid (on some of the persons where they are many), then ascent with everybody from its best places and from
        near the points there are.
        """
        of = self.of
        everybody = _Slope.of(of.persons(state.theta), state)
        each = {1: 81, 2: 25, 3: 11, 4: 7}.get(of.risks, 5)
        axes = [np.linspace(low, high, each) for low, high in of.box.T]
        shifts = np.array([s for s in product((-0.4, 0.0, 0.4), repeat=min(of.risks, 3)) if any(s)])
        shifts = np.pad(shifts, ((0, 0), (0, of.risks - shifts.shape[1])))
        near = np.clip((state.points[:, None] + shifts[None]).reshape(-1, of.risks), *of.box)
        grid = np.concatenate([np.array(list(product(*axes))), near])
        size = of.h.persons
        some = everybody if size <= SCREEN else everybody.take(np.linspace(0, size - 1, SCREEN).astype(np.int64))
        block = max(1, BLOCK // min(size, SCREEN))
        rough = np.concatenate([some.at(grid[i : i + block]) for i in range(0, len(grid), block)])
        starts = grid[np.argsort(-rough, kind="stable")[:40]]
        starts = np.concatenate([_apart(starts, 0.5)[:12], near[:: max(1, len(near) // 8)][:8]])
        tops = [everybody.top(start, of.box) for start in starts]
        tops.sort(key=lambda top: -top[0])
        return tops[0][0], _apart(np.array([place for _, place in tops]), 0.1)

    def better(self, state: State, places: Array) -> State | None:
        """A better model with a point more; None when nothing gains.

        A new point at the places given, or a point there is split in two; after the best shares for each, the most
        promising of both kinds climb a few steps, and the best of these to the top.
        """
        now = self.of.value(state)
        added = self._promising([self.insert(state, place) for place in places])
        split = self._promising(self.halves(state))
        some = SOME if len(state.shares) < MANY else 1
        begun = [self.climb(trial, SHORT) for trial in (*added[:some], *split[:some])]
        begun.sort(key=lambda trial: -self.of.value(trial))
        for trial in (*begun[:2], *added[some:TRIES]):
            found = self.climb(trial)
            if self.of.value(found) > now + 1e-7:
                return found
        return None

    def _promising(self, trials: list[State]) -> list[State]:
        """With the best shares, those of the highest likelihood first."""
        weighed = [self.reweigh(trial) for trial in trials]
        weighed.sort(key=lambda trial: -self.of.value(trial))
        return weighed

    def halves(self, state: State) -> list[State]:
        """The two largest points split in two: apart in all risks, in exits only, in one risk, against each other."""
        directions = [np.ones(self.of.risks), *np.eye(self.of.risks)]
        if (self.of.h.order > self.of.h.order.min()).any():
            directions += [np.where(self.of.h.order == self.of.h.order.min(), 1.0, 0.0)]
            directions += [np.where(self.of.h.order == self.of.h.order.min(), 1.0, -1.0)]
        elif self.of.risks > 1:
            directions += [np.where(np.arange(self.of.risks) == self.of.risks - 1, -1.0, 1.0)]
        out = []
        for largest in np.argsort(-state.shares, kind="stable")[:2]:
            for direction in directions:
                points = np.vstack([state.points, state.points[largest] + HALF * direction])
                points[largest] = points[largest] - HALF * direction
                shares = np.append(state.shares, state.shares[largest] / 2)
                shares[largest] /= 2
                out.append(State(state.theta, np.clip(points, *self.of.box), shares))
        return out

    def insert(self, state: State, at: Array) -> State:
        """One more point with the share that a line search gives it."""
        points = np.vstack([state.points, at])
        best, share = -np.inf, 0.0
        persons = self.of.persons(state.theta)
        log_m, log_s = persons.log_m(points), persons.log_s(points)
        for tried in (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.35):
            log_p = np.log(np.append(state.shares * (1 - tried), tried))
            value = posterior(log_m + log_p)[0] - (0.0 if log_s is None else posterior(log_s + log_p)[0])
            if (gain := float(value @ self.of.count)) > best:
                best, share = gain, tried
        return State(state.theta, points, np.append(state.shares * (1 - share), share))

    def reweigh(self, state: State) -> State:
        """The best shares with points and coefficients held."""
        persons, count = self.of.persons(state.theta), self.of.count
        log_m = persons.log_m(state.points)
        top = log_m.max(axis=1, keepdims=True)
        m = np.exp(log_m - top)
        log_s = persons.log_s(state.points)
        if log_s is not None:
            s = np.exp(log_s - log_s.max(axis=1, keepdims=True))

            def negative(p: Array) -> tuple[float, Array]:
                a, b = m @ p, s @ p
                value = count @ (np.log(a) - np.log(b))
                return -float(value), -(m.T @ (count / a) - s.T @ (count / b))

            found = optimize.minimize(
                negative, state.shares, jac=True, method="L-BFGS-B", bounds=[(1e-12, None)] * len(state.shares),
                options={"maxiter": 200},
            )  # fmt: skip
            return replace(state, shares=found.x / found.x.sum())
        p = state.shares
        root = np.sqrt(count)
        for _ in range(50):
            mixed = m @ p
            ratio = m / mixed[:, None]
            gradient = count @ ratio - count.sum()
            if gradient.max() < 1e-6 * count.sum():
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
            old = float(count @ np.log(mixed))
            size = 1.0
            while size > 1e-6:
                new = p + size * (target - p)
                value = m @ new
                if value.min() > 0 and float(count @ np.log(value)) > old:
                    break
                size /= 2
            else:
                break
            p = new
        return replace(state, shares=np.maximum(p, 0.0) / np.maximum(p, 0.0).sum())

    def pruned(self, state: State) -> State:
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
        return State(state.theta, points, shares / shares.sum())

    def smaller(self, state: State) -> list[State]:
        """Where to look from for the best model with a point less: without one of small share, or with two as one."""
        out = []
        for gone in np.argsort(state.shares, kind="stable")[:3]:
            keep = np.arange(len(state.shares)) != gone
            out.append(State(state.theta, state.points[keep], state.shares[keep] / state.shares[keep].sum()))
        apart = np.abs(state.points[:, None] - state.points[None]).max(axis=2)
        np.fill_diagonal(apart, np.inf)
        a, b = np.unravel_index(int(np.argmin(apart)), apart.shape)
        share = state.shares[a] + state.shares[b]
        points = state.points.copy()
        points[a] = (state.shares[a] * points[a] + state.shares[b] * points[b]) / share
        shares = state.shares.copy()
        shares[a] = share
        keep = np.arange(len(shares)) != b
        out.append(State(state.theta, points[keep], shares[keep]))
        return out

    def climb(self, state: State, most: int = NEWTON) -> State:
        """A maximum in all parameters, from this state: Newton's method with damping, points inside the box."""
        state = self.pruned(state)
        value = self.of.value(state)
        damp = 1e-3
        for step in range(most):
            gradient, information, _ = self.of.derivatives(state)
            free = self.of.movable(state, gradient)
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
                tried = self.of.moved(state, move)
                new = self.of.value(tried)
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
                value = self.of.value(state)
            if gain < GAIN * max(1.0, abs(value)) * 1e-2:
                break
        return self.pruned(state)


@dataclass(frozen=True)
class _Slope:
    """Directional derivatives at a state, of its persons or of some of them scaled up to ``people``.

    log_l, log_b: (N,) ln of what the state gives them, with and before observation (None without any time before).
    """

    persons: Persons
    log_l: Array
    log_b: Array | None
    people: float

    @classmethod
    def of(cls, persons: Persons, state: State) -> _Slope:
        log_p = np.log(state.shares)
        log_s = persons.log_s(state.points)
        log_b = None if log_s is None else posterior(log_s + log_p)[0]
        log_l = posterior(persons.log_m(state.points) + log_p)[0]
        return cls(persons, log_l, log_b, float(persons.count.sum()))

    def take(self, who: Numbers) -> _Slope:
        """Some of the persons, scaled up."""
        log_b = None if self.log_b is None else self.log_b[who]
        return _Slope(self.persons.take(who), self.log_l[who], log_b, self.people)

    def at(self, points: Array) -> Array:
        """(Q,) D at points."""
        persons = self.persons
        count = persons.count * (self.people / persons.count.sum())
        out = count @ np.exp(np.minimum(persons.log_m(points) - self.log_l[:, None], HIGHEST))
        log_s = persons.log_s(points)
        if log_s is None or self.log_b is None:
            return np.asarray(out - self.people)
        return np.asarray(out - count @ np.exp(log_s - self.log_b[:, None]))

    def top(self, start: Array, box: Array) -> tuple[float, Array]:
        """A local maximum of D from a place, inside the box, and where it lies."""
        persons = self.persons

        def negative(point: Array) -> tuple[float, Array]:
            m = persons.count * np.exp(np.minimum(persons.log_m(point[None])[:, 0] - self.log_l, HIGHEST))
            total, gradient = m.sum(), m @ persons.slope(point)
            if persons.b is not None and self.log_b is not None:
                v = np.exp(point)
                s = persons.count * np.exp(-persons.b @ v - self.log_b)
                total, gradient = total - s.sum() + self.people, gradient + s @ (persons.b * v)
            return -float(total) / self.people, -gradient / self.people

        found = optimize.minimize(
            negative, start, jac=True, method="L-BFGS-B", bounds=box.T, options={"maxiter": 60, "ftol": 1e-12}
        )
        return float(-found.fun * self.people - self.people), np.asarray(found.x)


def _apart(points: Array, distance: float) -> Array:
    """Those that lie at least so far from all before them."""
    kept: list[Array] = []
    for point in points:
        if all(np.abs(point - other).max() >= distance for other in kept):
            kept.append(point)
    return np.array(kept)
