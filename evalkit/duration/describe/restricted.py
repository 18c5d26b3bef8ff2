"""Mean time up to a horizon, and the time lost to each cause: areas under curves, with differences between groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from evalkit.duration.describe.curves import Errors, critical
from evalkit.duration.describe.risk import Risk, apart, levels, risk, same_begin
from evalkit.duration.episodes import Episodes
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DesignError, Fault, UsageError


@dataclass(frozen=True)
class Contrast:
    """A difference or a ratio with its interval and two-sided p-value; ``std_error`` is of the log for a ratio."""

    estimate: float
    std_error: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Means:
    """Mean time between ``begin`` and ``until``, by group: at risk (``stay``), or lost to one cause.

    Attributes
    ----------
    what: ``stay``, or the name of a cause. begin, until: limits of the time counted.
    groups: (L,) names, one when there are no groups.
    estimate, std_error: (L,) in units of time. vcov: (L, L). errors: ``greenwood`` or ``influence``.
    influence: (G, L) by cluster, in sum form; all clusters of the episodes.
    warnings: those of the curves.
    """

    what: str
    begin: float
    until: float
    groups: NDArray[Any]
    estimate: Array
    std_error: Array
    vcov: Array
    errors: Errors
    influence: Influence
    warnings: tuple[Fault, ...]

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Estimate -+ z standard errors, (L,) each; UsageError ``duration.describe_level``."""
        half = critical(level) * self.std_error
        return self.estimate - half, self.estimate + half

    def difference(self, first: Any, second: Any, level: float = 0.95) -> Contrast:
        """Mean of group ``first`` less that of ``second``.

        Raises
        ------
        UsageError
            ``duration.describe_group_unknown``, ``duration.describe_level``.
        """
        one, other = self._place(first), self._place(second)
        gradient = np.zeros(len(self.groups))
        gradient[one] += 1.0
        gradient[other] -= 1.0
        return self._contrast(float(gradient @ self.estimate), gradient, level)

    def ratio(self, first: Any, second: Any, level: float = 0.95, *, lost: bool = False) -> Contrast:
        """Mean of ``first`` by that of ``second``, interval on the log scale; ``lost``: ratio of the rest of the time.

        Raises
        ------
        UsageError
            As :meth:`difference`.
        DesignError
            ``duration.describe_ratio``: one of the two is zero.
        """
        one, other = self._place(first), self._place(second)
        value = self.until - self.begin - self.estimate if lost else self.estimate
        if min(value[one], value[other]) <= 0:
            raise DesignError(Fault("duration.describe_ratio"))
        gradient = np.zeros(len(self.groups))
        sign = -1.0 if lost else 1.0
        gradient[one] += sign / value[one]
        gradient[other] -= sign / value[other]
        log = self._contrast(math.log(value[one] / value[other]), gradient, level)
        low, middle, high = (math.exp(value) for value in (log.low, log.estimate, log.high))
        return Contrast(middle, log.std_error, low, high, log.p_value)

    def _contrast(self, estimate: float, gradient: Array, level: float) -> Contrast:
        error = math.sqrt(max(float(gradient @ self.vcov @ gradient), 0.0))
        half = critical(level) * error
        p = 2 * float(special.ndtr(-abs(estimate) / error)) if error > 0 else np.nan
        return Contrast(estimate, error, estimate - half, estimate + half, p)

    def _place(self, name: Any) -> int:
        names = self.groups.tolist()
        if name not in names:
            raise UsageError(Fault("duration.describe_group_unknown", {"known": ", ".join(map(str, names))}))
        return int(names.index(name))


def restricted_mean(
    episodes: Episodes,
    until: float,
    group: ArrayLike | None = None,
    *,
    from_time: float | None = None,
    errors: Errors | None = None,
) -> Means:
    """Mean time at risk up to ``until``: the area under Kaplan-Meier, of all causes together.

    With delayed entry the time counts from ``from_time``, or from the first entry, for those still there then.

    Parameters
    ----------
    until: the horizon. In every group someone must be followed that long, unless all have left before.
    group: (R,) level of each stretch; differences and ratios are methods of the result.
    errors: ``greenwood``: sum over times of (area from there to the horizon)^2 d / (Y (Y - d)), for independent
        persons with weights of one, and their default; ``influence`` by cluster: the default otherwise.

    Raises
    ------
    DesignError
        ``duration.describe_beyond``: nobody is followed that long, in a group; ``duration.describe_begins``: groups are
        observed from different times; ``duration.describe_group_constant``.
    UsageError
        ``duration.describe_until``: not after the beginning; ``duration.describe_errors``,
        ``duration.describe_group_length``, ``duration.describe_times``.
    DataError
        ``duration.describe_group_missing``.

    Sources: Andersen, Hansen and Klein (2004); Uno et al. (2014) for the ratios.
    """
    return _means({"stay": _stay}, episodes, until, group, from_time, errors)["stay"]


def months_lost(
    episodes: Episodes,
    until: float,
    group: ArrayLike | None = None,
    *,
    from_time: float | None = None,
    errors: Errors | None = None,
) -> dict[str, Means]:
    """Mean time between leaving for each cause and ``until``: the area under its Aalen-Johansen curve, by cause.

    With :func:`restricted_mean` these add up to the horizon. In units of the clock: months when that counts months.
    ``greenwood`` errors are multinomial (:func:`aalen_johansen`). Settings and what is raised as there.

    Sources: Andersen (2013).
    """
    areas = {cause: _lost(number) for number, cause in enumerate(episodes.causes)}
    return _means(areas, episodes, until, group, from_time, errors)


Area = Callable[[Risk, float], tuple[float, Array]]


def _means(
    areas: Mapping[str, Area], episodes: Episodes, until: float, group: ArrayLike | None, from_time: float | None,
    errors: Errors | None,
) -> dict[str, Means]:  # fmt: skip
    """The risk sets are counted once for all areas."""
    if group is None:
        names: NDArray[Any] = np.array(["all"])
        parts = [risk(episodes, from_time)]
    else:
        names, place = levels(episodes, group)
        parts = [risk(episodes.take(np.flatnonzero(place == number)), from_time) for number in range(len(names))]
    same_begin(parts)
    for rows in parts:
        if not until > rows.begin:
            raise UsageError(Fault("duration.describe_until", {"first": rows.begin}))
        rows.place(until)
    plain = all(rows.plain for rows in parts) and apart(parts)
    kind: Errors = errors or ("greenwood" if plain else "influence")
    if kind not in ("greenwood", "influence") or (kind == "greenwood" and not plain):
        raise UsageError(Fault("duration.describe_errors", {"known": "greenwood, influence"}))
    return {what: _mean(what, area, episodes, parts, names, float(until), kind) for what, area in areas.items()}


def _mean(
    what: str, area: Area, episodes: Episodes, parts: list[Risk], names: NDArray[Any], until: float, kind: Errors
) -> Means:
    found = [area(rows, until) for rows in parts]
    columns = [rows.influence([score]).values[:, 0] for rows, (_, score) in zip(parts, found, strict=True)]
    influence = Influence(episodes.cluster_ids, np.column_stack(columns), episodes.level)
    if kind == "greenwood":
        vcov = np.diag([rows.multinomial(score) for rows, (_, score) in zip(parts, found, strict=True)])
    else:
        vcov = influence.values.T @ influence.values
    return Means(
        what, parts[0].begin, until, names, frozen([value for value, _ in found]),
        frozen(np.sqrt(np.diag(vcov))), frozen(vcov), kind, influence,
        tuple(fault for rows in parts for fault in rows.warnings),
    )  # fmt: skip


def _rest(rows: Risk, until: float, steps: Array) -> Array:
    """(T + 1,) area under steps (T + 1,) from the beginning, and from each grid time, to ``until``."""
    edges = np.minimum(np.concatenate([[rows.begin], rows.times, [np.inf]]), until)
    return np.cumsum((steps * np.diff(edges))[::-1])[::-1]


def _stay(rows: Risk, until: float) -> tuple[float, Array]:
    """Area under survival, and its scores (T, J)."""
    rest = _rest(rows, until, rows.survival)
    score = -rows.stays * rest[1:] * (rows.times <= until)
    return float(rest[0]), np.repeat(score[:, None], len(rows.causes), axis=1)


def _lost(number: int) -> Area:
    def area(rows: Risk, until: float) -> tuple[float, Array]:
        """Area under the share that left for the cause, and its scores (T, J)."""
        exits = rows.exits[:, number]
        rest = _rest(rows, until, exits)
        ahead = np.maximum(until - rows.times, 0.0)
        score = np.repeat((-rows.stays * (rest[1:] - ahead * exits[1:]))[:, None], len(rows.causes), axis=1)
        score[:, number] += rows.survival[:-1] / rows.at_risk * ahead
        return float(rest[0]), score * (rows.times <= until)[:, None]

    return area
