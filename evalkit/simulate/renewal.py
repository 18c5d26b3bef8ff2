"""The truth where every later spell obeys the law of a first one: who starts in which spell, and who is back when.

Rates do not depend on the calendar here, so that all spells of a cell have one law, seen from their own beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from scipy.signal import fftconvolve

from evalkit.simulate.model import STEPS, Array, Law
from evalkit.simulate.truth import BLOCK, TrueEffect, effects, follow, hazards

_NEGLIGIBLE = 1e-10


@dataclass(frozen=True)
class Arrivals:
    """When spells begin, and which starts in them count.

    Attributes
    ----------
    inflow: (W,) chance that a person's first spell begins in each month of the window.
    stock: (elapsed months when the window begins, chance) of first spells that run by then.
    counted_first, counted_later: (W, starts * STEPS) share of starts that count, by month of the spell's beginning and
        sub-step, in first and later spells; ``counted_stock``: the same by row of ``stock``.
    numbers: lowest and highest number of earlier spells of a spell that counts.
    """

    inflow: Array
    stock: Sequence[tuple[int, float]]
    counted_first: Array
    counted_later: Array
    counted_stock: Array
    numbers: tuple[int, int]


def renewed_truth(
    model: Law,
    arrivals: Arrivals,
    horizon: int,
    versus: Literal["wait", "never"] = "wait",
    first_kind: int = 0,
    back: bool = True,
) -> dict[str, TrueEffect]:
    """The effect of starting now for those who start, in spells of any number; see ``docs/simulator.md``.

    Parameters
    ----------
    first_kind: ``left_to_work`` is leaving by the exit of this kind.
    back: also work out who is back on benefit; without, ``on_benefit`` is left out, which is quicker.

    Raises
    ------
    ValueError: no start counts.
    """
    assert model.returns is not None and len(model.share) % BLOCK == 0
    months = len(arrivals.inflow)
    order = [first_kind, *(kind for kind in range(3) if kind != first_kind)]
    gaps = np.ascontiguousarray(_gaps(model.returns, months * STEPS)[:, order])
    sums, total = np.zeros((2, 3, horizon)), 0.0
    returning = np.zeros((horizon * STEPS + 1, 3 * BLOCK))
    for first in range(0, len(model.share), BLOCK):
        cells = slice(first, first + BLOCK)
        long = _ordered(hazards(model, cells, 0, months), order)
        leave = np.zeros((months * STEPS, 3 * BLOCK))
        _usual(*long, months, 0, leave)
        weight = _weight(model, cells, arrivals, long, leave, gaps)
        if weight.any():
            if back:
                returning = _returning(leave[: horizon * STEPS], gaps)
            short = _ordered(hazards(model, cells, 0, horizon), order)
            total += follow(short, weight, model, cells, returning, versus == "wait", back, sums)
    if not total:
        raise ValueError("renewed_truth: no start counts")
    found = effects(sums, total, total / model.share.sum())
    return {name: value for name, value in found.items() if back or name != "on_benefit"}


def _ordered(chances: tuple[Array, Array, Array], order: Sequence[int]) -> tuple[Array, Array, Array]:
    """The same chances with the kinds of exit in another order."""
    after, before, start = chances
    blocks = np.concatenate([np.arange(kind * BLOCK, (kind + 1) * BLOCK) for kind in order])
    return np.ascontiguousarray(after[:, blocks]), np.ascontiguousarray(before[:, blocks]), start


def _gaps(returns: Array, steps: int) -> Array:
    """(steps, 3) chance that a person is back in exactly the first, second, .. sub-step after that of the exit."""
    chance = np.zeros((steps, 3))
    known = min(steps, returns.shape[1])
    chance[:known] = returns[:, :known].T
    away = np.vstack([np.ones((1, 3)), np.cumprod(1 - chance, axis=0)[:-1]])
    return np.asarray(away * chance)


@njit(cache=True)
def _usual(treated: Array, untreated: Array, start: Array, horizon: int, first: int, leave: Array) -> None:
    """Fill ``leave`` (n, 3 * BLOCK): chance to leave in each sub-step from ``first`` on, of those then on benefit and
    not started, who start as usual."""
    steps = len(leave)
    waiting, begun = np.ones(BLOCK), np.zeros(BLOCK)
    for t in range(steps):
        month = (first + t) // STEPS
        if month < len(start):
            for c in range(BLOCK):
                begun[c] = waiting[c] * start[month, c]
                waiting[c] -= begun[c]
            for at in range(t, steps):
                since = (at - t) // STEPS
                row = treated[((first + at) // STEPS - since) * horizon + since]
                out = leave[at]
                for c in range(BLOCK):
                    here = begun[c]
                    out[c] += here * row[c]
                    out[BLOCK + c] += here * row[BLOCK + c]
                    out[2 * BLOCK + c] += here * row[2 * BLOCK + c]
                    begun[c] = here * (1.0 - row[c] - row[BLOCK + c] - row[2 * BLOCK + c])
        row, out = untreated[min(month, len(untreated) - 1)], leave[t]
        for c in range(BLOCK):
            here = waiting[c]
            out[c] += here * row[c]
            out[BLOCK + c] += here * row[BLOCK + c]
            out[2 * BLOCK + c] += here * row[2 * BLOCK + c]
            waiting[c] = here * (1.0 - row[c] - row[BLOCK + c] - row[2 * BLOCK + c])


@njit(cache=True)
def _returning(leave: Array, gaps: Array) -> Array:
    """(n + 1, 3 * BLOCK) chance to be on benefit n sub-steps after the close of that of the exit, by kind of exit.

    ``on[v]``: the same v sub-steps after a spell began. A spell begins in the sub-step in which the gap ends.
    """
    steps = len(leave)
    back = np.zeros((steps + 1, 3 * BLOCK))
    on, stay = np.zeros((steps + 1, BLOCK)), np.ones(BLOCK)
    for n in range(1, steps + 1):
        for c in range(BLOCK):
            stay[c] -= leave[n - 1, c] + leave[n - 1, BLOCK + c] + leave[n - 1, 2 * BLOCK + c]
            on[n, c] = stay[c]
        for before in range(n - 1):
            gone, again = leave[before], back[n - 1 - before]
            for c in range(BLOCK):
                back_on = gone[c] * again[c] + gone[BLOCK + c] * again[BLOCK + c]
                on[n, c] += back_on + gone[2 * BLOCK + c] * again[2 * BLOCK + c]
        for u in range(1, n + 1):
            for r in range(3):
                chance = gaps[u - 1, r]
                if chance > 0.0:
                    for c in range(BLOCK):
                        back[n, r * BLOCK + c] += chance * on[n - u + 1, c]
    return back


def _weight(
    model: Law, cells: slice, arrivals: Arrivals, chances: tuple[Array, Array, Array], leave: Array, gaps: Array
) -> Array:
    """(starts * STEPS, BLOCK) how often a start in a sub-step counts, given that the spell lasts until then."""
    months = len(arrivals.inflow)
    lowest, highest = arrivals.numbers
    next_in = _next(leave, gaps, months)
    begins = np.repeat(arrivals.inflow[:, None], BLOCK, axis=1)
    weight = np.zeros((arrivals.counted_first.shape[1], BLOCK))
    if lowest == 0:
        weight += arrivals.counted_first.T @ begins
        waiting = _waiting(chances)
        for (elapsed, chance), counted in zip(arrivals.stock, arrivals.counted_stock, strict=True):
            weight += chance * counted[:, None] / np.maximum(waiting[elapsed * STEPS], 1e-12)
    begins = _after(begins, next_in)
    for elapsed, chance in arrivals.stock:
        running = np.zeros_like(leave)
        _usual(*chances, months, elapsed * STEPS, running)
        begins += chance * _next(running, gaps, months)
    number = 1
    while number <= highest and begins.sum() > _NEGLIGIBLE * BLOCK:
        if number >= lowest:
            weight += arrivals.counted_later.T @ begins
        begins, number = _after(begins, next_in), number + 1
    return np.ascontiguousarray(weight)


def _waiting(chances: tuple[Array, Array, Array]) -> Array:
    """(n, BLOCK) chance to be on benefit and not started at the beginning of each sub-step of a spell."""
    _, untreated, start = chances
    gone = untreated.reshape(-1, 3, BLOCK).sum(axis=1)
    begin = np.zeros_like(gone)
    begin[: len(start)] = start
    stay = np.repeat((1 - gone) * (1 - begin), STEPS, axis=0)
    return np.vstack([np.ones((1, BLOCK)), np.cumprod(stay, axis=0)])


def _next(leave: Array, gaps: Array, months: int) -> Array:
    """(months, BLOCK) chance that the next spell begins 0, 1, .. months after that from which ``leave`` counts."""
    total = np.zeros((months * STEPS, BLOCK))
    for kind in range(3):
        spell, gap = leave[:, kind * BLOCK : (kind + 1) * BLOCK], gaps[:, kind]
        if gap.any():
            total[1:] += np.maximum(fftconvolve(spell, gap[:, None], axes=0), 0.0)[: months * STEPS - 1]
    return np.asarray(total.reshape(months, STEPS, BLOCK).sum(axis=1))


def _after(begins: Array, next_in: Array) -> Array:
    """When the spells after some others begin: their months convolved with what lies between."""
    return np.maximum(fftconvolve(begins, next_in, axes=0), 0.0)[: len(begins)]
