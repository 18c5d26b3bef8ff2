"""Cumulated exits of one person by plain recursion: no arrays, no shortcuts."""

from __future__ import annotations

import math
from collections.abc import Callable

Hazard = Callable[[int, int], list[float]]
"""Linear predictors of the exits in elapsed month m, ``since`` months after the start (-1: not started)."""


def chances(eta: list[float], link: str) -> list[float]:
    """Chances of each exit within a month."""
    h = [math.exp(e) for e in eta]
    total = sum(h)
    if link == "logit":
        return [each / (1 + total) for each in h]
    return [each / total * (1 - math.exp(-total)) if total > 0 else 0.0 for each in h]


def started(eta: Hazard, month: int, horizon: int, link: str, since: int = 0) -> list[list[float]]:
    """By exit the cumulated chance within 1..horizon months, started ``since`` months before ``month``."""
    alive, out = 1.0, [[0.0] * horizon for _ in eta(month, since)]
    for k in range(horizon):
        p = chances(eta(month + k, since + k), link)
        for j, each in enumerate(p):
            out[j][k] = (out[j][k - 1] if k else 0.0) + alive * each
        alive *= 1 - sum(p)
    return out


def never(eta: Hazard, month: int, horizon: int, link: str) -> list[list[float]]:
    """The same without the instrument."""
    alive, out = 1.0, [[0.0] * horizon for _ in eta(month, -1)]
    for k in range(horizon):
        p = chances(eta(month + k, -1), link)
        for j, each in enumerate(p):
            out[j][k] = (out[j][k - 1] if k else 0.0) + alive * each
        alive *= 1 - sum(p)
    return out


def wait(eta: Hazard, start: Callable[[int], float], month: int, horizon: int, link: str) -> list[list[float]]:
    """The same when the start hazard keeps running: by the tree of all later starts."""
    exits = len(eta(month, -1))
    if horizon == 0:
        return [[] for _ in range(exits)]
    p = chances(eta(month, -1), link)
    g = math.exp(start(month))
    g = g / (1 + g) if link == "logit" else 1 - math.exp(-g)
    alive = 1 - sum(p)
    later = started(eta, month + 1, horizon - 1, link) if horizon > 1 else [[] for _ in range(exits)]
    waiting = wait(eta, start, month + 1, horizon - 1, link)
    out = []
    for j in range(exits):
        own = [p[j]]
        own += [p[j] + alive * (g * a + (1 - g) * b) for a, b in zip(later[j], waiting[j], strict=True)]
        out.append(own)
    return out
