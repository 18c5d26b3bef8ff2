"""Small populations whose spells and hazards are made up, shared by the tests of duration models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from evalkit.duration.fitted import Hazards
from evalkit.duration.spells import NEVER, Instrument, Layout, Spells, Timeline
from evalkit.duration.terms import dense, factor, joined
from evalkit.effects import Influence

CAUSES = ("work", "education", "other")


def spells(size: int, seed: int = 1, *, two: bool = False, repeat: float = 0.8, longest: int = 40) -> Spells:
    """Spells of which some start an instrument, with one or two covariates and several spells for some people."""
    rng = np.random.default_rng(seed)
    person = np.unique(np.sort(rng.integers(0, max(1, int(size * repeat)), size)), return_inverse=True)[1]
    people = int(person.max()) + 1
    stop = np.minimum(rng.geometric(0.05, size), longest)
    cause = np.where(stop < longest, rng.integers(0, 3, size), -1)

    def start() -> np.ndarray:
        month = rng.geometric(0.05, size)
        return np.where(month < stop, month, NEVER)

    instruments = [Instrument("training", start(), np.full(size, 4), "end", (3, 8))]
    if two:
        instruments.append(Instrument("coaching", start(), np.zeros(size, int), "start", (3,)))
    x = joined(factor(rng.integers(0, 2, size), ["sex:man", "sex:woman"]), dense(rng.normal(size=(size, 1)), ["age"]))
    return Spells(
        person, np.arange(people), np.zeros(size, int), stop, cause, CAUSES, rng.integers(24_000, 24_048, size), x,
        tuple(instruments), np.arange(people), np.arange(people),
    )  # fmt: skip


LINE = Timeline(duration=(3, 6, 12), by=("sex",), calendar="year")


def hazards(layout: Layout, points: int, link: str = "hazard", seed: int = 1) -> Hazards:
    """Any hazards on this layout: numbers drawn, nothing fitted."""
    rng = np.random.default_rng(seed)
    made = layout.histories()
    theta = tuple(rng.normal(0, 0.3, design.width) for design in made.designs)
    risks = len(made.risks)
    size = sum(map(len, theta)) + points * risks + points - 1
    return Hazards(
        link, made.risks, made.order, tuple(design.names for design in made.designs), theta,
        np.log(rng.uniform(0.01, 0.06, (points, risks))), rng.dirichlet(np.ones(points)), np.ones(size, bool),
        Influence(made.cluster_ids, rng.normal(size=(len(made.cluster_ids), size)) / made.persons), np.eye(size), 0.0,
        float(made.persons), made.events, 1, 0.0,
    )  # fmt: skip


def moved(fit: Hazards, packed: np.ndarray) -> Hazards:
    """The same with other parameters."""
    at, shape = fit.offsets, fit.points.shape
    theta = tuple(packed[at[k] : at[k + 1]] for k in range(len(fit.risks)))
    points = packed[at[-1] : at[-1] + fit.points.size].reshape(shape)
    shares = np.exp(np.append(0.0, packed[at[-1] + fit.points.size :]))
    return replace(fit, theta=theta, points=points, shares=shares / shares.sum())


@dataclass(frozen=True)
class Town:
    """Monthly law: exits to work and other, start of training; hidden groups differ in both; the truth follows.

    ``log_rate``: of work and other. ``effect``: log multiple on work by month since the start: ``during`` for
    ``length`` months, then ``later``. ``hidden``: by group its share and what it adds to work and to the start.
    """

    log_rate: tuple[float, float] = (-2.9, -3.9)
    slope: float = 0.6
    duration: tuple[float, ...] = (0.0, -0.2, -0.5)
    bands: tuple[int, ...] = (6, 12)
    during: float = -0.5
    later: float = 0.5
    length: int = 4
    log_start: float = -3.2
    start_slope: float = 0.5
    hidden: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0),)
    longest: int = 40

    def draw(self, size: int, seed: int, spells_each: int = 1) -> Spells:
        """Spells of ``size`` people, followed for ``longest`` months each."""
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(size), spells_each)
        x = np.repeat(rng.integers(0, 3, size), spells_each) / 2 - 0.5 if spells_each == 1 else None
        n = len(person)
        x = rng.integers(0, 3, n) / 2 - 0.5 if x is None else x
        shares = np.array([h[0] for h in self.hidden])
        group = rng.choice(len(shares), size, p=shares / shares.sum())[person]
        add = np.array([h[1:] for h in self.hidden])[group]
        alive = np.ones(n, bool)
        stop, cause, start = np.full(n, self.longest), np.full(n, -1), np.full(n, NEVER)
        for month in range(self.longest):
            band = np.searchsorted(self.bands, month, side="right")
            since = np.where(start <= month, month - start, -1)
            effect = np.where(since < 0, 0.0, np.where(since < self.length, self.during, self.later))
            work = np.exp(self.log_rate[0] + self.slope * x + self.duration[band] + effect + add[:, 0])
            other = np.full(n, np.exp(self.log_rate[1]))
            total = work + other
            leaves = alive & (rng.random(n) < -np.expm1(-total))
            to_work = rng.random(n) < work / total
            stop[leaves], cause[leaves] = month + 1, np.where(to_work[leaves], 0, 1)
            alive &= ~leaves
            rate = np.exp(self.log_start + self.start_slope * x + add[:, 1])
            begins = alive & (start == NEVER) & (month + 1 < self.longest) & (rng.random(n) < -np.expm1(-rate))
            start[begins] = month + 1
        return Spells(
            person, np.arange(size), np.zeros(n, int), stop, cause, ("work", "other"), np.full(n, 24_000),
            dense(x[:, None], ["x"]), (Instrument("training", start, np.full(n, self.length), "end", ()),),
            np.arange(size), np.arange(size),
        )  # fmt: skip

    @property
    def line(self) -> Timeline:
        """The timeline that holds this law."""
        return Timeline(duration=self.bands)

    def truth(self, horizon: int, versus: str) -> np.ndarray:
        """(2, K) effect on cumulated exit to work and other among starters seen to be followed so long."""
        effect, whole = np.zeros((2, horizon)), 0.0
        shares = np.array([h[0] for h in self.hidden]) / sum(h[0] for h in self.hidden)
        for x in (-0.5, 0.0, 0.5):
            for share, (_, add_work, add_start) in zip(shares, self.hidden, strict=True):
                weight = share / 3
                g = -np.expm1(-np.exp(self.log_start + self.start_slope * x + add_start))
                for start in range(1, self.longest):
                    h = self._rates(x, add_work, start - 1, None)
                    weight *= np.exp(-h.sum())
                    if start + horizon <= self.longest:
                        on = self._path(x, add_work, start, horizon, 0)
                        off = self._waiting(x, add_work, g if versus == "wait" else 0.0, start, horizon)
                        effect += weight * g * (on - off)
                        whole += weight * g
                    weight *= 1 - g
        return effect / whole

    def _rates(self, x: float, add: float, month: int, since: int | None) -> np.ndarray:
        effect = 0.0 if since is None else self.during if since < self.length else self.later
        band = int(np.searchsorted(self.bands, month, side="right"))
        work = np.exp(self.log_rate[0] + self.slope * x + self.duration[band] + effect + add)
        return np.array([work, np.exp(self.log_rate[1])])

    def _path(self, x: float, add: float, month: int, horizon: int, since: int | None) -> np.ndarray:
        alive, out = 1.0, np.zeros((2, horizon))
        for k in range(horizon):
            h = self._rates(x, add, month + k, None if since is None else since + k)
            out[:, k:] += (alive * h / h.sum() * -np.expm1(-h.sum()))[:, None]
            alive *= np.exp(-h.sum())
        return out

    def _waiting(self, x: float, add: float, g: float, month: int, horizon: int) -> np.ndarray:
        alive, out = 1.0, np.zeros((2, horizon))
        for k in range(horizon):
            h = self._rates(x, add, month + k, None)
            out[:, k:] += (alive * h / h.sum() * -np.expm1(-h.sum()))[:, None]
            alive *= np.exp(-h.sum())
            if g > 0 and k + 1 < horizon:
                out[:, k + 1 :] += alive * g * self._path(x, add, month + k + 1, horizon - k - 1, 0)
                alive *= 1 - g
        return out


HIDDEN = ((0.5, -0.7, -0.5), (0.5, 0.7, 0.5))
"""Two groups: those who leave sooner start more often as well."""
