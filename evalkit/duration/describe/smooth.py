"""How fast people leave, by month: events by time at risk, and a smooth curve through the jumps of Nelson-Aalen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from evalkit.duration.describe.curves import Errors, critical, interval
from evalkit.duration.describe.risk import Risk, risk
from evalkit.duration.episodes import Episodes
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DesignError, Fault, UsageError

BINS = 400
"""Times that the choice of a bandwidth looks at; more are put together."""

CANDIDATES = 25


@dataclass(frozen=True)
class Rates:
    """Events by time at risk in intervals ``(edges[m], edges[m + 1]]``, all arrays (M,).

    ``estimate`` and ``std_error`` are NaN where nobody was at risk. ``errors``: ``poisson`` or ``influence``.
    """

    edges: Array
    exposure: Array
    events: Array
    estimate: Array
    std_error: Array
    errors: Literal["poisson", "influence"]
    basis: Risk = field(repr=False, compare=False)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Limits (M,): exact for Poisson counts (Garwood 1936), else on the log scale, NaN without events."""
        if self.errors == "influence":
            return interval(self.estimate, self.std_error, level, "log", "hazard")
        critical(level)
        tail = (1 - level) / 2
        count = self.events
        low = np.where(count > 0, special.chdtri(np.maximum(2 * count, 1), 1 - tail) / 2, 0.0)
        high = special.chdtri(2 * count + 2, tail) / 2
        seen = np.where(self.exposure > 0, self.exposure, np.nan)
        return low / seen, high / seen

    def influence(self) -> Influence:
        """Influence (G, M) by cluster, in sum form: (events - rate x time at risk) / all time at risk."""
        columns = [_rate_scores(self, m) for m in range(len(self.events))]
        return Influence(self.basis.cluster_ids, np.column_stack(columns), self.basis.level)


@dataclass(frozen=True)
class Smooth:
    """A smoothed hazard at times (K,), with what was smoothed.

    ``std_error`` is that of the smoothed curve around its own mean: smoothing bends peaks, and no error says how much.
    ``errors``: ``greenwood`` (Aalen's) or ``influence``.
    """

    times: Array
    estimate: Array
    std_error: Array
    bandwidth: float
    begin: float
    until: float
    errors: Errors
    basis: Risk = field(repr=False, compare=False)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Pointwise limits (K,) on the log scale; NaN where the curve is zero."""
        return interval(self.estimate, self.std_error, level, "log", "hazard")

    def influence(self) -> Influence:
        """Influence (G, K) by cluster, in sum form."""
        shape = (1, self.basis.events.shape[1])
        return self.basis.influence([np.tile((row / self.basis.at_risk)[:, None], shape) for row in self._rows()])

    def _rows(self) -> Iterator[Array]:
        """(T,) kernel weights for each time in turn: all at once would be large when few times are tied."""
        for time in self.times:
            yield _kernel(np.array([time]), self.basis.times, self.bandwidth, self.begin, self.until)[0]


def hazard_by_month(episodes: Episodes, edges: ArrayLike | None = None) -> Rates:
    """Events by time at risk in each interval: the exit rate if it is constant there. All causes together.

    ``episodes.only(cause)`` gives the rate of one cause; these add up to that of all. Rates are per unit of time. Where
    everyone leaves at the end of a month, the rate by month is the share of those at risk that leaves.

    Parameters
    ----------
    edges: (M + 1,) increasing; whole numbers from the first entry to the last time when None. Time and events outside
        them do not count.

    Raises
    ------
    UsageError
        ``duration.describe_edges``: not increasing, or fewer than two.

    Errors are Poisson (sqrt(events) / time) for independent persons with weights of one, else by cluster.
    """
    rows = risk(episodes)
    first = np.floor(min(rows.begin, rows.last - 1))
    cut = np.arange(first, np.ceil(rows.last) + 1) if edges is None else np.asarray(edges, float)
    if cut.ndim != 1 or len(cut) < 2 or not np.isfinite(cut).all() or (np.diff(cut) <= 0).any():
        raise UsageError(Fault("duration.describe_edges"))
    exposure = np.diff(_time_before(rows.stop, rows.weight, cut) - _time_before(rows.start, rows.weight, cut))
    exposure = np.where(exposure > 1e-12 * max(float(exposure.max()), 1e-300), exposure, 0.0)
    place = np.searchsorted(cut, rows.times, side="left") - 1
    inside = (place >= 0) & (place < len(cut) - 1)
    events = np.bincount(place[inside], rows.events.sum(axis=1)[inside], len(cut) - 1)
    seen = np.where(exposure > 0, exposure, np.nan)
    kind: Literal["poisson", "influence"] = "poisson" if rows.plain else "influence"
    bare = Rates(frozen(cut), frozen(exposure), frozen(events), frozen(events / seen), frozen(seen), kind, rows)
    if rows.plain:
        error = np.sqrt(events) / seen
    else:
        squares = np.array([np.sum(_rate_scores(bare, m) ** 2) for m in range(len(events))])
        error = np.where(exposure > 0, np.sqrt(squares), np.nan)
    return replace(bare, std_error=frozen(error))


def smoothed_hazard(
    episodes: Episodes,
    times: ArrayLike | None = None,
    bandwidth: float | None = None,
    *,
    until: float | None = None,
    from_time: float | None = None,
) -> Smooth:
    """Epanechnikov kernel smooth of the jumps of Nelson-Aalen: sum over u of K((t - u) / b) / b x d(u) / Y(u).

    Within a bandwidth of either end the kernel is 3/4 (1 - x^2)(a + c x) on what is left of its width, with a and c
    such that it sums to one and has mean zero there (Gasser and Müller 1979). The estimate is cut at zero. All causes
    together; ``episodes.only(cause)`` for one.

    Parameters
    ----------
    times: (K,) where; 101 equal steps from the beginning to ``until`` when None.
    bandwidth: b, in units of time, the same everywhere. None: chosen by least-squares cross-validation (Ramlau-Hansen
        1983), between two steps of the grid of times (and 1/50 of the range) and half the range.
    until: where the curve ends; the last event when None. Few are left there: stop before them.

    Raises
    ------
    UsageError
        ``duration.describe_bandwidth``: not above zero; ``duration.describe_until``, ``duration.describe_times``.
    DesignError
        ``duration.describe_beyond``: ``until`` or a time after the last that is known; ``duration.describe_before``.

    Errors: sum K^2 d / Y^2 for independent persons with weights of one, else by cluster.
    """
    rows = risk(episodes, from_time)
    end = float(rows.times[-1] if until is None else until)
    if not end > rows.begin:
        raise UsageError(Fault("duration.describe_until", {"first": rows.begin}))
    rows.place(end)
    asked = np.linspace(rows.begin, end, 101) if times is None else np.atleast_1d(np.asarray(times, float))
    rows.place(asked)
    if (asked > end).any():
        raise DesignError(Fault("duration.describe_beyond", {"last": end}))
    if bandwidth is not None and not (np.isfinite(bandwidth) and bandwidth > 0):
        raise UsageError(Fault("duration.describe_bandwidth"))
    width = float(bandwidth) if bandwidth is not None else _chosen(rows, end)
    jumps = rows.hazard.sum(axis=1)
    kind: Errors = "greenwood" if rows.plain else "influence"
    bare = Smooth(frozen(asked), frozen(asked), frozen(asked), width, rows.begin, end, kind, rows)
    estimate = [max(float(row @ jumps), 0.0) for row in bare._rows()]
    if kind == "greenwood":
        variance = np.array([row**2 @ (jumps / rows.at_risk) for row in bare._rows()])
    else:
        variance = np.sum(bare.influence().values ** 2, axis=0)
    return replace(bare, estimate=frozen(estimate), std_error=frozen(np.sqrt(variance)))


def _time_before(moment: Array, weight: Array, cut: Array) -> Array:
    """(M + 1,) weighted sum of min(moment, cut), at every cut."""
    place = np.searchsorted(cut, moment, side="left")
    size = len(cut) + 1
    amount, sums = np.bincount(place, weight, size), np.bincount(place, weight * moment, size)
    return np.cumsum(sums)[:-1] + cut * np.cumsum(amount[::-1])[::-1][1:]


def _rate_scores(rates: Rates, m: int) -> Array:
    """(G,) influence on the rate of one interval; zero where nobody is at risk."""
    rows, low, high = rates.basis, rates.edges[m], rates.edges[m + 1]
    if not rates.exposure[m] > 0:
        return np.zeros(len(rows.cluster_ids))
    spent = np.maximum(np.minimum(rows.stop, high) - np.maximum(rows.start, low), 0.0)
    left = (rows.cause > 0) & (rows.stop > low) & (rows.stop <= high)
    value = rows.weight * (left - rates.estimate[m] * spent) / rates.exposure[m]
    return np.asarray(np.bincount(rows.cluster, value, len(rows.cluster_ids)), float)


def _moment(low: Array, high: Array, power: int) -> Array:
    """Integral of x^power 3/4 (1 - x^2) from low to high."""

    def upto(x: Array) -> Array:
        return 0.75 * (x ** (power + 1) / (power + 1) - x ** (power + 3) / (power + 3))

    return upto(high) - upto(low)


def _kernel(at: Array, events: Array, width: float, begin: float, end: float) -> Array:
    """(K, T) kernel weights of events for each time, adjusted near the two ends."""
    low, high = np.maximum((at - end) / width, -1.0), np.minimum((at - begin) / width, 1.0)
    zero, one, two = (_moment(low, high, power) for power in range(3))
    scale = zero * two - one**2
    x = (at[:, None] - events[None, :]) / width
    inside = (np.abs(x) <= 1) & (events >= begin)[None, :] & (events <= end)[None, :]
    shape = 0.75 * (1 - x**2) * ((two / scale)[:, None] - (one / scale)[:, None] * x)
    return np.where(inside, shape, 0.0) / width


def _chosen(rows: Risk, end: float) -> float:
    """The bandwidth with the smallest cross-validated squared error: integral of the square less twice the cross term.

    The cross term leaves out pairs of an event with itself.
    """
    length, size = end - rows.begin, len(rows.times)
    went = rows.cause > 0
    alone = np.bincount(rows.high[went] - 1, rows.weight[went] ** 2, size) / rows.at_risk**2
    jumps, times = rows.hazard.sum(axis=1), rows.times
    gap = float(np.median(np.diff(times))) if size > 1 else length / 4
    if size > BINS:
        place = np.minimum(((times - rows.begin) / length * BINS).astype(np.int64), BINS - 1)
        jumps, alone = (np.asarray(np.bincount(place, part, BINS), float) for part in (jumps, alone))
        times = rows.begin + (np.arange(BINS) + 0.5) / BINS * length
    least = min(max(2 * gap, length / 50), length / 2)
    widths = np.geomspace(least, length / 2, CANDIDATES)
    grid = np.linspace(rows.begin, end, BINS + 1)
    scores = []
    for width in widths.tolist():
        square = np.trapezoid((_kernel(grid, times, width, rows.begin, end) @ jumps) ** 2, grid)
        own = _kernel(times, times, width, rows.begin, end)
        scores.append(square - 2 * (jumps @ own @ jumps - np.diag(own) @ alone))
    return float(widths[int(np.argmin(scores))])
