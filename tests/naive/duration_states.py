"""States by plain loops: occupancy product by product, and one person's months ahead by the tree of what can happen."""

from __future__ import annotations

import math
from collections.abc import Callable

Row = tuple[int, int, float, float, int, float]
"""Person, state, start, stop, next (-1 none), weight."""


def occupancy(rows: list[Row], states: int, times: list[float], begin: list[float], since: float) -> list[list[float]]:
    """By time the shares in each state, moves after ``since``."""
    moments = sorted({stop for _, _, _, stop, goes, _ in rows if goes >= 0 and stop > since})
    out = []
    for until in times:
        p = list(begin)
        for s in moments:
            if s > until:
                break
            new = list(p)
            for j in range(states):
                at_risk = sum(w for _, a, start, stop, _, w in rows if a == j and start < s <= stop)
                for k in range(states):
                    moved = sum(w for _, a, _, stop, goes, w in rows if a == j and stop == s and goes == k)
                    if moved > 0:
                        new[j] -= p[j] * moved / at_risk
                        new[k] += p[j] * moved / at_risk
            p = new
        out.append(p)
    return out


def months(rows: list[Row], states: int, until: float, begin: list[float], since: float) -> list[float]:
    """Expected time in each state from ``since`` to ``until``: the area beneath the shares."""
    cuts = sorted({since, until, *(stop for _, _, _, stop, goes, _ in rows if goes >= 0 and since < stop < until)})
    total = [0.0] * states
    for low, high in zip(cuts, cuts[1:], strict=False):
        for j, share in enumerate(occupancy(rows, states, [low], begin, since)[0]):
            total[j] += share * (high - low)
    return total


Eta = Callable[[int, int, int, int], list[tuple[int, float]]]
"""Linear predictors of the moves out of a state: (state, month, months in the state, months since the start or -1)."""
Start = Callable[[int, int], float]
"""Linear predictor of starting: (month, months in the state)."""


def ahead(
    eta: Eta, start: Start | None, here: int, state: int, month: int, spent: int, since: int, left: int, states: int,
    link: str, known: dict[tuple[int, ...], list[list[float]]],
) -> list[list[float]]:  # fmt: skip
    """By month 1 .. left the chances of each state, from one state on; with ``start`` who has not started still may."""
    if left == 0:
        return []
    key = (state, month, spent, since, left)
    if key in known:
        return known[key]
    moves = [(to, math.exp(value)) for to, value in eta(state, month, spent, since)]
    total = sum(h for _, h in moves)
    branches = []
    stays = 1.0
    for to, h in moves:
        p = h / (1 + total) if link == "logit" else h / total * (1 - math.exp(-total))
        stays -= p
        branches.append((p, to, 0, since + 1 if since >= 0 else -1))
    if since < 0 and start is not None and state == here:
        h = math.exp(start(month, spent))
        g = h / (1 + h) if link == "logit" else 1 - math.exp(-h)
        branches.append((stays * g, state, spent + 1, 0))
        branches.append((stays * (1 - g), state, spent + 1, -1))
    else:
        branches.append((stays, state, spent + 1, since + 1 if since >= 0 else -1))
    out = [[0.0] * states for _ in range(left)]
    for p, to, own, later in branches:
        out[0][to] += p
        rest = ahead(eta, start, here, to, month + 1, own, later, left - 1, states, link, known)
        for k, shares in enumerate(rest):
            for a, share in enumerate(shares):
                out[k + 1][a] += p * share
    known[key] = out
    return out
