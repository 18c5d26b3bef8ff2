"""Gamma distributed frailty of mean 1 and variance theta, shared within groups, integrated out in closed form.

A group with D events and cumulated hazard A (that before entry included, A0 of it) adds

    sum_(j < D) ln(1 + j theta) - (D + 1/theta) ln(1 + theta A) + 1/theta ln(1 + theta A0)

to the log-likelihood, beside the log hazards of its events: it is conditioned on having lasted until entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalkit.duration.episodes import Numbers
from evalkit.effects import Array

SMALL = 0.01


@dataclass(frozen=True)
class Mixed:
    """By group (N,): value; ``mean`` of the frailty given the data, ``entry`` given survival to entry; ``outer`` and
    ``entry_outer``, how much squares of the gradients of A and A0 count; derivatives in theta, once and twice, and of
    ``mean`` and ``entry`` in theta."""

    value: Array
    mean: Array
    entry: Array
    outer: Array
    entry_outer: Array
    slope: Array
    bend: Array
    mean_slope: Array
    entry_slope: Array


def mixed(theta: float, events: Numbers, hazard: Array, before: Array) -> Mixed:
    """What groups add, see the module."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _mixed(np.float64(theta), events, hazard, before)


def _mixed(theta: np.float64, events: Numbers, hazard: Array, before: Array) -> Mixed:
    order = np.arange(max(int(events.max(initial=0)), 1))
    steps = [np.log1p(order * theta), order / (1 + order * theta), -((order / (1 + order * theta)) ** 2)]
    level, slope, bend = (np.concatenate([[0.0], np.cumsum(step)])[events] for step in steps)
    grown, first = 1 + theta * hazard, 1 + theta * before
    own, own_bend = _entropy(theta, hazard)
    late, late_bend = _entropy(theta, before)
    return Mixed(
        level - (events + 1 / theta) * np.log1p(theta * hazard) + np.log1p(theta * before) / theta,
        (1 + theta * events) / grown,
        1 / first,
        theta * (1 + theta * events) / grown**2,
        theta / first**2,
        slope - events * hazard / grown + own - late,
        bend + events * (hazard / grown) ** 2 + own_bend - late_bend,
        (events - hazard) / grown**2,
        -before / first**2,
    )


def at_zero(events: Numbers, hazard: Array, before: Array) -> Array:
    """(N,) derivative in theta where theta is zero."""
    return np.asarray(((events - hazard) ** 2 - events - before**2) / 2)


def _entropy(theta: np.float64, hazard: Array) -> tuple[Array, Array]:
    """Derivative of ``-ln(1 + theta A) / theta`` in theta, and its own; by a series where theta A is small."""
    y = theta * hazard
    small = y < SMALL
    value = (np.log1p(y) - y / (1 + y)) / theta**2
    bend = (hazard / (1 + y)) ** 2 / theta - 2 * value / theta
    near, series, slope = np.where(small, y, 0.0), np.zeros_like(y), np.zeros_like(y)
    for m in range(12, 1, -1):
        series = series * near + (-1) ** m * (m - 1) / m
        if m > 2:
            slope = slope * near + (-1) ** m * (m - 1) * (m - 2) / m
    return np.where(small, hazard**2 * series, value), np.where(small, hazard**3 * slope, bend)
