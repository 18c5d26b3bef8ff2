"""Hazards by risk without hidden heterogeneity, by maximum likelihood, on rows or on patterns.

The log-likelihood is the sum over persons of their count times that of their stretches (:class:`Histories`), maximised
by Newton's method with halved steps. The score of a person is summed over all his stretches and spells before it is
squared, so that a fit on patterns has the errors of a fit on rows.

Left truncation needs no term of its own: without hidden heterogeneity the time before observation drops out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.fitted import Hazards, Link
from evalkit.duration.histories import Histories
from evalkit.duration.likelihood import bends, stretches, summed
from evalkit.duration.newton import dependent, solve, unbounded, uphill
from evalkit.effects import Array, Influence
from evalkit.errors import DataError, DesignError, Fault, UsageError

Numbers = NDArray[np.int64]

HELD = -30.0
"""A level of a factor in which nobody has the event has this coefficient: no event, and no error."""
MOST = 60
SMALLEST = 1e-7
GAIN = 1e-12
"""Newton stops when a step would raise the log-likelihood by less than this part of it."""
RUNAWAY = 300.0
"""No hazard is as high as exp(RUNAWAY)."""


def fit_hazards(histories: Histories, link: Link = "hazard") -> Hazards:
    """Fit the hazards of all risks together: one point, no hidden heterogeneity.

    Parameters
    ----------
    link: ``hazard``: with exact time rates that are constant within a stretch (piecewise exponential), with grouped
        time complementary log-log. ``logit``: grouped time, multinomial logit within an order.

    Returns
    -------
    Hazards, with the covariance of the inverse observed information, and influence by cluster. A level of a factor in
    which nobody has the event is held at no events, one in which nobody is at risk at zero; they are not ``free``.
    Nor is a number that varies in such levels only; it is held at zero.

    Raises
    ------
    UsageError
        ``duration.hazards_link`` for a logit in exact time.
    DataError
        ``duration.hazards_not_finite`` for numbers of a design that are empty or infinite.
    DesignError
        ``duration.hazards_no_events`` for a risk that nobody has, ``duration.hazards_collinear`` with a column that
        follows from others, ``duration.hazards_separated`` with columns for which the likelihood has no maximum
        (and ``duration.hazards_reference`` when that is because nobody in the reference levels has the event),
        ``duration.hazards_not_converged``.
    """
    if link == "logit" and histories.timing == "exact":
        raise UsageError(Fault("duration.hazards_link", {}))
    problem = _Problem(histories, link)
    problem.check_numbers()
    theta = problem.first
    value, gradient, alike = problem.at(theta)
    problem.check_rank(alike)
    information = alike
    for steps in range(1, MOST + 1):
        move = uphill(information, gradient)
        gain = float(gradient @ move)
        size = 1.0
        while problem.value(theta + size * move) < value - 1e-13 * abs(value) and size > SMALLEST:
            size /= 2
        if size <= SMALLEST:
            break
        theta = theta + size * move
        value, gradient, information = problem.at(theta)
        if gain < GAIN * max(1.0, abs(value)):
            problem.check_maximum(theta, information, alike)
            return problem.result(theta, value, gradient, information, steps)
    problem.check_maximum(theta, information, alike)
    problem.check_climbing(theta, value)
    raise DesignError(Fault("duration.hazards_not_converged", {"steps": steps}))


@dataclass(frozen=True)
class _Problem:
    """The likelihood in one vector: theta by risk, then the intercepts."""

    histories: Histories
    link: Link

    @cached_property
    def rows(self) -> Histories:
        """Observed stretches only."""
        h = self.histories
        return h.take(~h.before) if h.before.any() else h

    @cached_property
    def weight(self) -> Array:
        return np.asarray(self.rows.count[self.rows.person])

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        return (0, *np.cumsum([design.width for design in self.rows.designs]).tolist())

    @cached_property
    def size(self) -> int:
        return self.offsets[-1] + len(self.rows.risks)

    @property
    def names(self) -> tuple[str, ...]:
        parts = [
            f"{risk}:{name}" for risk, d in zip(self.rows.risks, self.rows.designs, strict=True) for name in d.names
        ]
        return (*parts, *(f"{risk}:intercept" for risk in self.rows.risks))

    @cached_property
    def held(self) -> NDArray[np.bool_]:
        """(P,) columns of factors in which nobody has the event, or nobody is at all."""
        h = self.rows
        if len(h.risks) and (bare := [risk for risk, n in zip(h.risks, h.events, strict=True) if not n]):
            raise DesignError([Fault("duration.hazards_no_events", {"risk": risk}) for risk in bare])
        held = np.zeros(self.size, bool)
        for k, design in enumerate(h.designs):
            events = np.where(h.event == k, self.weight, 0.0)
            marked = np.ones(design.width, bool)
            marked[design.at] = False
            held[self.offsets[k] : self.offsets[k + 1]] = marked & (design.sums(events)[0] == 0)
        return held

    @cached_property
    def empty(self) -> NDArray[np.bool_]:
        """(P,) columns of factors in which nobody is at risk: their coefficient is left at zero."""
        out = np.zeros(self.size, bool)
        for k, design in enumerate(self.rows.designs):
            here = design.sums(np.where(self.rows.at_risk[:, k], self.weight, 0.0))[0]
            out[self.offsets[k] : self.offsets[k + 1]] = here == 0
        return out & self.held

    @cached_property
    def idle(self) -> NDArray[np.bool_]:
        """(P,) numbers that are zero wherever the event can happen: their coefficient is left at zero."""
        out = np.zeros(self.size, bool)
        for k, design in enumerate(self.rows.designs):
            own = out[self.offsets[k] : self.offsets[k + 1]]
            own[design.at] = True
            can = self.rows.at_risk[:, k] & ~self._never[:, k]
            for column, values in zip(design.at, design.numbers.T, strict=True):
                own[column] &= not (can & (values != 0)).any()
        return out

    @cached_property
    def free(self) -> NDArray[np.bool_]:
        return ~(self.held | self.idle)

    @cached_property
    def first(self) -> Array:
        """Rates of everybody alike."""
        h = self.rows
        theta = np.where(self.held & ~self.empty, HELD, 0.0)
        at_risk = h.at_risk & ~self._never
        exposure = (np.where(at_risk, h.length[:, None], 0.0) * self.weight[:, None]).sum(axis=0)
        theta[self.offsets[-1] :] = np.log(h.events / exposure)
        return theta

    @cached_property
    def _never(self) -> NDArray[np.bool_]:
        """(R, K) rows that lie in a held level."""
        out = np.zeros((len(self.rows), len(self.rows.risks)), bool)
        for k, design in enumerate(self.rows.designs):
            own = (self.held & ~self.empty)[self.offsets[k] : self.offsets[k + 1]]
            if own.any():
                out[:, k] = ((design.codes >= 0) & own[np.maximum(design.codes, 0)]).any(axis=1)
        return out

    def eta(self, theta: Array) -> Array:
        """(R, K)."""
        last = self.offsets[-1]
        return np.column_stack(
            [
                design.predict(theta[low:high]) + theta[last + k]
                for k, (design, low, high) in enumerate(
                    zip(self.rows.designs, self.offsets[:-1], self.offsets[1:], strict=True)
                )
            ]
        )

    def value(self, theta: Array) -> float:
        """Log-likelihood."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = float(stretches(self.rows, self.eta(theta), self.link)[0] @ self.weight)
        return found if np.isfinite(found) else -np.inf

    def at(self, theta: Array) -> tuple[float, Array, Array]:
        """Log-likelihood, its gradient and minus its second derivative, in the free parameters."""
        h, eta, last = self.rows, self.eta(theta), self.offsets[-1]
        value, score = stretches(h, eta, self.link)
        with np.errstate(over="ignore"):
            a, b = bends(h, eta, self.link)
        score = np.where(h.at_risk, score, 0.0) * self.weight[:, None]
        gradient, information = np.zeros(self.size), np.zeros((self.size, self.size))
        for k, design in enumerate(h.designs):
            mine = slice(self.offsets[k], self.offsets[k + 1])
            gradient[mine] = design.sums(score[:, k])[0]
            gradient[last + k] = score[:, k].sum()
            for m in range(k, len(h.designs)):
                weight = self.weight * ((a[:, k] if m == k else 0.0) - b[:, k] * b[:, m])
                if m != k and h.order[m] != h.order[k]:
                    continue
                rows = np.flatnonzero(weight)
                if m != k and not len(rows):
                    continue
                few = m != k and len(rows) < len(h) / 2
                first, second = (h.designs[j].take(rows) if few else h.designs[j] for j in (k, m))
                w = weight[rows] if few else weight
                other = slice(self.offsets[m], self.offsets[m + 1])
                information[mine, other] = first.products(w, second)
                information[mine, last + m] = first.sums(w)[0]
                information[last + k, other] = second.sums(w)[0]
                information[last + k, last + m] = w.sum()
                if m != k:
                    information[other, mine] = information[mine, other].T
                    information[last + m, mine] = information[mine, last + m]
                    information[other, last + k] = information[last + k, other]
                    information[last + m, last + k] = information[last + k, last + m]
                else:
                    information[last + k, mine] = information[mine, last + k]
        free = self.free
        gradient[~free] = 0.0
        information[~free] = information[:, ~free] = 0.0
        information[~free, ~free] = 1.0
        return float(value @ self.weight), gradient, information

    def check_rank(self, information: Array) -> None:
        """Whether each column adds something, judged with rates of everybody alike."""
        order = np.r_[np.arange(self.offsets[-1], self.size), np.arange(self.offsets[-1])]
        bad = dependent(information, order)
        if bad:
            raise DesignError([Fault("duration.hazards_collinear", {"column": self.names[j]}) for j in bad])

    def check_numbers(self) -> None:
        """Whether the numbers of the designs are numbers where they are read."""
        bad = []
        for k, design in enumerate(self.rows.designs):
            odd = ~np.isfinite(design.numbers) & self.rows.at_risk[:, k, None]
            bad += [self.names[self.offsets[k] + design.at[j]] for j in np.flatnonzero(odd.any(axis=0))]
        if bad:
            raise DataError([Fault("duration.hazards_not_finite", {"column": name}) for name in dict.fromkeys(bad)])

    @cached_property
    def spread(self) -> Array:
        """(P,) largest value of each column among those at risk."""
        out = np.ones(self.size)
        for k, design in enumerate(self.rows.designs):
            for column, values in zip(design.at, design.numbers[self.rows.at_risk[:, k]].T, strict=True):
                out[self.offsets[k] + column] = np.abs(values).max(initial=0.0)
        return out

    def check_maximum(self, theta: Array, information: Array, alike: Array) -> None:
        """Whether the likelihood has a maximum where Newton's steps stopped."""

        def reach(move: Array) -> float:
            eta = self.eta(theta + np.where(self.free, move, 0.0)) - self.eta(theta)
            return float(np.abs(np.where(self.rows.at_risk, eta, 0.0)).max())

        spread = np.where(self.free, self.spread, 0.0)
        if away := unbounded(self.value, self.first, theta, alike, information, reach, spread):
            self._no_maximum(np.array(away))

    def check_climbing(self, theta: Array, value: float) -> None:
        """Whether the steps ran into numbers that are too large to be held while the likelihood still rose."""
        move = theta - self.first
        highest = np.where(self.rows.at_risk, self.eta(theta), -np.inf).max()
        if highest > RUNAWAY and self.value(theta - 0.05 * move) < value:
            size = np.abs(move) * self.spread
            self._no_maximum(np.flatnonzero(size > 0.3 * size.max()))

    def _no_maximum(self, columns: Numbers) -> None:
        names, last = self.names, self.offsets[-1]
        bare = [j for j in columns.tolist() if j >= last]
        own = [j for j in columns.tolist() if j < last] or bare
        faults = [Fault("duration.hazards_separated", {"column": names[j]}) for j in own]
        for j in bare:
            k, risk = j - last, self.rows.risks[j - last]
            own = [c - self.offsets[k] for c in columns.tolist() if self.offsets[k] <= c < self.offsets[k + 1]]
            if own and not np.isin(own, self.rows.designs[k].at).any():
                marked = ", ".join(self.rows.designs[k].names[c] for c in own)
                faults.append(Fault("duration.hazards_reference", {"risk": risk, "columns": marked}))
        raise DesignError(faults)

    def result(self, theta: Array, value: float, gradient: Array, information: Array, steps: int) -> Hazards:
        """The fitted model with its errors."""
        h, free, last = self.histories, self.free, self.offsets[-1]
        bread = solve(information, np.eye(self.size))
        bread[~free] = bread[:, ~free] = 0.0
        _, score = stretches(self.rows, self.eta(theta), self.link)
        score = np.where(self.rows.at_risk, score, 0.0)
        own = np.zeros((h.persons, self.size))
        for k, design in enumerate(self.rows.designs):
            own[:, self.offsets[k] : self.offsets[k + 1]] = design.sums(score[:, k], self.rows.person, h.persons)
            own[:, last + k] = np.bincount(self.rows.person, score[:, k], minlength=h.persons)
        split = tuple(theta[low:high] for low, high in zip(self.offsets[:-1], self.offsets[1:], strict=True))
        return Hazards(
            self.link, h.risks, h.order, tuple(design.names for design in h.designs), split, theta[None, last:],
            np.ones(1), free, Influence(h.cluster_ids, summed(h, own) @ bread, h.level), bread, value,
            float(h.count.sum()), self.rows.events, steps, float(np.abs(gradient).max() / h.count.sum()),
        )  # fmt: skip
