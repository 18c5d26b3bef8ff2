"""Curves, tests and means in plain loops over rows (start, stop, cause, weight, ...): slow, easy to check by eye."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass
class Row:
    start: float
    stop: float
    cause: int
    weight: float
    cluster: int
    group: int = 0
    stratum: int = 0


def times_of(rows: Sequence[Row]) -> list[float]:
    return sorted({row.stop for row in rows if row.cause})


def at_risk(rows: Sequence[Row], t: float) -> float:
    return sum(row.weight for row in rows if row.start < t <= row.stop)


def events(rows: Sequence[Row], t: float, cause: int | None = None) -> float:
    return sum(row.weight for row in rows if row.stop == t and (row.cause == cause if cause else row.cause > 0))


def survival(rows: Sequence[Row], until: float) -> float:
    left = 1.0
    for t in times_of(rows):
        if t <= until:
            left *= 1 - events(rows, t) / at_risk(rows, t)
    return left


def hazard(rows: Sequence[Row], until: float) -> float:
    return sum(events(rows, t) / at_risk(rows, t) for t in times_of(rows) if t <= until)


def incidence(rows: Sequence[Row], cause: int, until: float) -> float:
    left, gone = 1.0, 0.0
    for t in times_of(rows):
        if t <= until:
            gone += left * events(rows, t, cause) / at_risk(rows, t)
            left *= 1 - events(rows, t) / at_risk(rows, t)
    return gone


def area(curve: Callable[[float], float], rows: Sequence[Row], until: float) -> float:
    """Area of a step function from 0 to ``until``."""
    edges = [0.0, *(t for t in times_of(rows) if t < until), until]
    return sum(curve(low) * (high - low) for low, high in zip(edges[:-1], edges[1:], strict=True))


def derivative(statistic: Callable[[list[Row]], float], rows: Sequence[Row], clusters: int) -> list[float]:
    """By cluster: how much the statistic moves when the weights of the cluster grow, by part (fourth order)."""

    def moved(cluster: int, step: float) -> float:
        return statistic(
            [
                Row(
                    r.start,
                    r.stop,
                    r.cause,
                    r.weight * (1 + step * (r.cluster == cluster)),
                    r.cluster,
                    r.group,
                    r.stratum,
                )
                for r in rows
            ]
        )

    h = 1e-3
    return [
        (8 * (moved(c, h) - moved(c, -h)) - (moved(c, 2 * h) - moved(c, -2 * h))) / (12 * h) for c in range(clusters)
    ]


def logrank(
    rows: Sequence[Row], groups: int, weight: Callable[[Sequence[Row], float], float]
) -> tuple[list[float], list[list[float]]]:
    """Observed less expected by group, and hypergeometric variance; summed over strata."""
    u = [0.0] * groups
    v = [[0.0] * groups for _ in range(groups)]
    for stratum in sorted({row.stratum for row in rows}):
        mine = [row for row in rows if row.stratum == stratum]
        for t in times_of(mine):
            y, d, w = at_risk(mine, t), events(mine, t), weight(mine, t)
            part = [at_risk([r for r in mine if r.group == g], t) / y for g in range(groups)]
            for g in range(groups):
                u[g] += w * (events([r for r in mine if r.group == g], t) - part[g] * d)
                for h in range(groups):
                    if y > 1:
                        v[g][h] += w**2 * d * (y - d) / (y - 1) * part[g] * ((g == h) - part[h])
    return u, v


def before(rows: Sequence[Row], t: float) -> float:
    """Survival just before t."""
    earlier = [s for s in times_of(rows) if s < t]
    return survival(rows, earlier[-1]) if earlier else 1.0


def gray_score(rows: Sequence[Row], groups: int, rho: float) -> list[float]:
    """Gray's z: events of cause 1 by group less those expected from the common subdistribution hazard."""
    z = [0.0] * groups
    common = 0.0
    parts = [[row for row in rows if row.group == g] for g in range(groups)]
    for t in (t for t in times_of(rows) if events(rows, t, 1)):
        scaled = [at_risk(part, t) / before(part, t) if at_risk(part, t) else 0.0 for part in parts]
        risk = [
            h * (1 - sum(incidence_step(part, s) for s in times_of(part) if s < t))
            for h, part in zip(scaled, parts, strict=True)
        ]
        d = [events(part, t, 1) for part in parts]
        for g in range(groups):
            z[g] += (1 - common) ** rho * (d[g] - risk[g] / sum(risk) * sum(d))
        common += sum(d) / sum(scaled)
    return z


def incidence_step(rows: Sequence[Row], t: float) -> float:
    return before(rows, t) * events(rows, t, 1) / at_risk(rows, t)


def rates(rows: Sequence[Row], edges: Sequence[float]) -> list[tuple[float, float]]:
    """(events, time at risk) in each interval."""
    found = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        spent = sum(r.weight * max(min(r.stop, high) - max(r.start, low), 0.0) for r in rows)
        left = sum(r.weight for r in rows if r.cause and low < r.stop <= high)
        found.append((left, spent))
    return found


def boundary_kernel(x: float, q: float) -> float:
    """Epanechnikov within q bandwidths of the beginning, closed form for -1 <= x <= q (Klein and Moeschberger 6.2)."""
    if not -1 <= x <= q:
        return 0.0
    below = (1 + q) ** 4 * (19 - 18 * q + 3 * q**2)
    alpha = 64 * (2 - 4 * q + 6 * q**2 - 3 * q**3) / below
    beta = 240 * (1 - q) ** 2 / below
    return 0.75 * (1 - x**2) * (alpha + beta * x)


def smoothed(rows: Sequence[Row], t: float, width: float) -> float:
    """Smoothed hazard at t, not near the end."""
    q = min(t / width, 1.0)
    return sum(boundary_kernel((t - s) / width, q) / width * events(rows, s) / at_risk(rows, s) for s in times_of(rows))
