"""The true effect profile of a municipality, summed over its law: no draw is involved.

For every cell of covariates, entry month and start sub-step the two strategies are followed forward in time from
"on benefit and not started yet": start now, and wait (or never). See ``docs/simulator.md`` for the equations.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evalkit.calendar import add_months, day_number
from evalkit.effects import frozen
from evalkit.simulate.model import (
    COVARIATES,
    STARTS,
    STEP_DAYS,
    STEPS,
    Array,
    Ints,
    Law,
    Municipality,
    law,
    month_days,
    step_probability,
)

OUTCOMES = ("left_to_work", "left", "on_benefit")
BLOCK = 16
"""Cells that are worked through together."""
_NONE = np.zeros((0, 3 * BLOCK))


@dataclass(frozen=True)
class TrueEffect:
    """The true profile of one outcome, fractions by month (K,).

    ``effect`` = ``treated`` - ``counterfactual``, averaged over the law of the starters; ``starters`` is the expected
    number of eligible starters a person who enters in the window.
    """

    month: NDArray[np.int64]
    effect: Array
    treated: Array
    counterfactual: Array
    starters: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "month", frozen(self.month, np.int64))
        for name in ("effect", "treated", "counterfactual"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


def truth(
    municipality: Municipality,
    horizon: int = 36,
    versus: Literal["wait", "never"] = "wait",
    elapsed: tuple[int, int] = (0, STARTS - 1),
    window: tuple[dt.date, dt.date] | None = None,
    where: Mapping[str, Collection[Any]] | None = None,
    other_instrument: Literal["exclude", "include"] = "exclude",
) -> dict[str, TrueEffect]:
    """The effect of starting now for those who start, by outcome and month 1..horizon.

    Parameters
    ----------
    horizon: months of follow-up; only starts with all of them inside the window count.
    versus: ``wait``: no start in the rest of this elapsed month, after it the usual chance, and later starters get the
        effect. ``never``: no start at all.
    elapsed: first and last elapsed month in which a start counts.
    window: observation window of the study, within the municipality's (default).
    where: only persons with these values, such as ``{"sex": ["woman"]}``; ``age`` is age at entry.
    other_instrument: ``exclude``: those in coaching at time zero do not count.

    Returns
    -------
    ``left_to_work`` (left to work by month k), ``left`` (left for any reason), ``on_benefit`` (on benefit at the
    close of month k, later spells included), each a :class:`TrueEffect`.

    Raises
    ------
    ValueError: no start has complete follow-up, or an argument is unknown.
    """
    if versus not in ("wait", "never") or other_instrument not in ("exclude", "include") or horizon < 1:
        raise ValueError("truth: versus is wait or never, other_instrument exclude or include, horizon at least 1")
    first_day, last_day = window or municipality.window
    if first_day < municipality.window[0] or last_day > municipality.window[1]:
        raise ValueError("truth: the window lies within the municipality's")
    model = _select(law(replace(municipality, stock_months=0)), where or {})
    entry_days = np.ones(28 if municipality.entry_days == "any" else 1)
    weight = eligible(model, entry_days, horizon, elapsed, day_number(first_day), day_number(last_day))
    if not weight.any():
        raise ValueError("truth: no start has complete follow-up in the window")
    if other_instrument == "exclude":
        weight = weight * _not_coached(municipality, model)
    sums, total = np.zeros((2, len(OUTCOMES), horizon)), 0.0
    returning = np.repeat(_returning(model, horizon * STEPS), BLOCK, axis=1)
    for first in range(0, len(model.share), BLOCK):
        cells = slice(first, first + BLOCK)
        for entry in np.flatnonzero(weight.any(axis=1)):
            total += follow(
                hazards(model, cells, int(entry), horizon),
                np.repeat(weight[entry][:, None], BLOCK, axis=1),
                model,
                cells,
                returning,
                versus == "wait",
                False,
                sums,
            )
    return effects(sums, total, total / (model.share.sum() * model.entries))


def effects(sums: Array, total: float, starters: float) -> dict[str, TrueEffect]:
    """The profiles from sums over starters (2, 3, K) and their weight."""
    mean = sums / total
    month = np.arange(1, sums.shape[2] + 1)
    return {
        name: TrueEffect(month, mean[0, i] - mean[1, i], mean[0, i], mean[1, i], starters)
        for i, name in enumerate(OUTCOMES)
    }


def document(effects: Mapping[str, Any]) -> dict[str, Any]:
    """True effects, at any depth of naming, as plain lists for JSON."""
    return {
        name: document(value)
        if isinstance(value, Mapping)
        else {"starters": value.starters}
        | {key: getattr(value, key).tolist() for key in ("month", "effect", "treated", "counterfactual")}
        for name, value in effects.items()
    }


def _select(model: Law, where: Mapping[str, Collection[Any]]) -> Law:
    """The cells with the wanted values; cells with the same rates become one."""
    keep = np.ones(len(model.share), bool)
    for name, values in where.items():
        if name not in COVARIATES or isinstance(values, str):
            raise ValueError(f"truth: where maps one of {COVARIATES} to a collection of values")
        keep &= np.isin(model.levels[name], np.asarray(list(values), model.levels[name].dtype))
    rates, index = np.unique(np.column_stack([model.work, model.start])[keep], axis=0, return_inverse=True)
    size = -(-len(rates) // BLOCK) * BLOCK  # whole blocks; the last is filled up with cells of share 0
    share = np.bincount(index.ravel(), model.share[keep], size).astype(float)
    rates = np.concatenate([rates, np.zeros((size - len(rates), 2))])
    return replace(model, levels={}, share=share, work=rates[:, 0].copy(), start=rates[:, 1].copy())


def eligible(model: Law, day_weights: Array, horizon: int, elapsed: tuple[int, int], first: int, last: int) -> Array:
    """Share of entry days for which a start counts, by entry month and sub-step (E, starts * STEPS).

    ``day_weights``: how often an entry falls on the first, second, .. day of a month. ``first``, ``last``: entries
    count from the one day on, and months of follow-up up to the other.
    """
    step = np.arange(model.starts * STEPS)
    month = np.arange(model.entries)[:, None] + step // STEPS
    days = month_days(model, model.starts)
    total = np.zeros(month.shape)
    for offset in np.flatnonzero(day_weights):
        start = days[month] + offset + STEP_DAYS * (step % STEPS)
        counts = (add_months(start, horizon) <= last + 1) & (days[: model.entries, None] + offset >= first)
        total += counts * day_weights[offset]
    inside = (step // STEPS >= elapsed[0]) & (step // STEPS <= elapsed[1])
    return np.asarray(total * inside / day_weights.sum())


def _not_coached(municipality: Municipality, model: Law) -> Array:
    """Chance not to be in coaching on the first day of a sub-step, given on benefit (STARTS * STEPS,)."""
    step = np.arange(STARTS * STEPS)
    before = np.maximum(0, step - municipality.coaching_months * STEPS + 1)
    return np.asarray(1 - ((1 - model.coach) ** before - (1 - model.coach) ** (step + 1)))


def _returning(model: Law, steps: int) -> Array:
    """Chance to be on benefit n = 0..steps sub-steps after the close of the sub-step of exit, by reason (n, 3)."""
    off, on = np.eye(3), np.zeros(3)
    chance = np.zeros((steps + 1, 3))
    for n in range(1, steps + 1):
        off, on = off * (1 - model.back) + np.outer(on, model.again), on * (1 - model.again.sum()) + off @ model.back
        chance[n] = on
    return chance


def hazards(model: Law, cells: slice, entry: int, horizon: int) -> tuple[Array, Array, Array]:
    """Chances in a sub-step for entries of one month.

    Exits after a start ((starts + 1) * K, 3 * B), a row by elapsed month minus months since start, and months since
    start; exits before it (starts + K + 1, 3 * B) by elapsed month; starts (starts, B).
    """
    elapsed = np.arange(model.starts + horizon + 1)
    calendar = np.minimum(entry + elapsed, len(model.calendar) - 1)  # months past the window are never reached
    known = np.minimum(elapsed, len(model.duration) - 1)
    base = model.duration[known] * model.calendar[calendar]
    plain = np.empty((len(elapsed), 3, len(model.share[cells])))
    plain[:, 0] = base[:, None] * model.work[cells]
    plain[:, 1:] = (model.others[:, None] * model.others_duration[:, known]).T[:, :, None]
    since = np.arange(horizon)
    changed = plain[np.arange(model.starts + 1)[:, None] + since] * model.path[:, :horizon].T[:, :, None]
    start = model.start_elapsed[: model.starts] * model.start_calendar[calendar[: model.starts]]
    return _split(changed), _split(plain), step_probability(start[:, None] * model.start[cells])


def _split(rates: Array) -> Array:
    """Chances of three competing exits in a sub-step from their monthly rates (.., 3, B), as rows of 3 * B."""
    total = rates.sum(axis=-2, keepdims=True)
    chances = rates * (step_probability(total) / np.maximum(total, 1e-300))
    return np.asarray(chances.reshape(-1, 3 * rates.shape[-1]))


@njit(cache=True)
def _forward(
    chances: Array, rows: Ints, back: Array, again: Array, returning: Array, left: Array, state: Array, path: Array
) -> None:
    """Fill ``path`` (n, 3 * BLOCK): outcomes at the close of each sub-step from on benefit, no start on the way.

    ``chances[rows[t]]`` are the exits in sub-step t. ``state`` is workspace: in the first spell; off it for work,
    education, other; in a later spell; ever to work. Rows of fixed width make the loop over cells vector instructions.
    Where spells are renewed, ``left`` (n, 3 * BLOCK) is workspace for the exits, which ``returning`` brings back;
    otherwise it is empty, and ``back`` and ``again`` tell of later spells.
    """
    stay = 1.0 - (again[0] + again[1] + again[2])
    to_work, to_education, to_other = again[0], again[1], again[2]
    from_work, from_education, from_other = back[0], back[1], back[2]
    state[:BLOCK] = 1.0
    state[BLOCK:] = 0.0
    for t in range(len(rows)):
        leave, out = chances[rows[t]], path[t]
        for c in range(BLOCK):
            here = state[c]
            off_work = state[BLOCK + c]
            off_education = state[2 * BLOCK + c]
            off_other = state[3 * BLOCK + c]
            later = state[4 * BLOCK + c]
            work = here * leave[c]
            education = here * leave[BLOCK + c]
            other = here * leave[2 * BLOCK + c]
            here -= work + education + other
            on = later * stay + off_work * from_work + off_education * from_education + off_other * from_other
            ever = state[5 * BLOCK + c] + work
            state[c] = here
            state[BLOCK + c] = off_work * (1.0 - from_work) + work + later * to_work
            state[2 * BLOCK + c] = off_education * (1.0 - from_education) + education + later * to_education
            state[3 * BLOCK + c] = off_other * (1.0 - from_other) + other + later * to_other
            state[4 * BLOCK + c] = on
            state[5 * BLOCK + c] = ever
            out[c] = ever
            out[BLOCK + c] = 1.0 - here
            out[2 * BLOCK + c] = here + on
            if len(left):
                left[t, c], left[t, BLOCK + c], left[t, 2 * BLOCK + c] = work, education, other
                out[2 * BLOCK + c] = here
        if len(left):
            for before in range(t):
                gone, chance = left[before], returning[t - before]
                for c in range(BLOCK):
                    back_on = gone[c] * chance[c] + gone[BLOCK + c] * chance[BLOCK + c]
                    out[2 * BLOCK + c] += back_on + gone[2 * BLOCK + c] * chance[2 * BLOCK + c]


@njit(cache=True)
def _step_back(leave: Array, returning: Array, value: Array) -> None:
    """From the outcomes (3 * BLOCK) of those on benefit after a sub-step without a start to those before it.

    ``returning`` (3 * BLOCK): chance to be on benefit at the outcome's time after leaving in this sub-step.
    """
    for c in range(BLOCK):
        work, education, other = leave[c], leave[BLOCK + c], leave[2 * BLOCK + c]
        gone = work + education + other
        on = work * returning[c] + education * returning[BLOCK + c] + other * returning[2 * BLOCK + c]
        value[c] = work + (1.0 - gone) * value[c]
        value[BLOCK + c] = gone + (1.0 - gone) * value[BLOCK + c]
        value[2 * BLOCK + c] = on + (1.0 - gone) * value[2 * BLOCK + c]


def follow(
    chances: tuple[Array, Array, Array],
    weight: Array,
    model: Law,
    cells: slice,
    returning: Array,
    wait: bool,
    renewed: bool,
    sums: Array,
) -> float:
    """Add the weighted outcomes of the starters in a block of cells to ``sums`` (2, 3, K); return their weight.

    Parameters
    ----------
    chances: see :func:`hazards`.
    weight: (starts * STEPS, BLOCK) how much a start counts, by sub-step and cell.
    returning: (K * STEPS + 1, 3 * BLOCK) chance to be on benefit n sub-steps after the close of that of the exit.
    wait: those who do not start now have the usual chance to do so from the next elapsed month on.
    renewed: whether ``returning`` tells who is back on benefit; otherwise the law's ``back`` and ``again`` do.
    """
    treated, untreated, start = chances
    later = start if wait else np.zeros_like(start)
    left = np.zeros((sums.shape[2] * STEPS, 3 * BLOCK)) if renewed else _NONE
    share = np.ascontiguousarray(model.share[cells])
    arrays = (model.back, model.again, returning, left, sums)
    return float(_follow(treated, untreated, start, later, weight, share, *arrays))


@njit(cache=True)
def _follow(
    treated: Array,
    untreated: Array,
    start: Array,
    later: Array,
    weight: Array,
    share: Array,
    back: Array,
    again: Array,
    returning: Array,
    left: Array,
    sums: Array,
) -> float:
    """The loops of :func:`follow`.

    ``free[T]``: the outcomes at the close of sub-step T - 1 of those on benefit and untreated at ``step``, who may
    start at once; built backwards from the last sub-step with starts. ``at_month``: the same at the next elapsed month.
    """
    horizon = sums.shape[2]
    steps, begins = horizon * STEPS, len(weight)
    last = begins - 1
    while not weight[last].any():
        last -= 1
    arrive = np.zeros((last + 1, BLOCK))
    for c in range(BLOCK):
        alive = share[c]
        for step in range(last + 1):
            month = step // STEPS
            arrive[step, c] = alive * start[month, c] * weight[step, c]
            gone = untreated[month, c] + untreated[month, BLOCK + c] + untreated[month, 2 * BLOCK + c]
            alive *= (1.0 - start[month, c]) * (1.0 - gone)
    end = last + steps
    first = min(end, begins)
    free = np.zeros((end + 1, 3 * BLOCK))
    path, state, value = np.zeros((steps, 3 * BLOCK)), np.zeros(6 * BLOCK), np.zeros(3 * BLOCK)
    since = np.arange(steps) // STEPS
    _forward(untreated, (first + np.arange(end - first)) // STEPS, back, again, returning, left, state, path)
    free[first + 1 :] = path[: end - first]
    at_month = free.copy()
    total = 0.0
    for step in range(first - 1, -1, -1):
        month = step // STEPS
        until = min(end, step + steps)
        leave = untreated[month]
        free[step + 1, 2 * BLOCK :] = 1.0
        if (step + 1) % STEPS == 0:
            at_month[step + 1 : until + 1] = free[step + 1 : until + 1]
        starting = later[month].any()
        counted = step <= last and weight[step].any()
        if starting or counted:
            rows = ((step + np.arange(until - step)) // STEPS - since[: until - step]) * horizon + since[: until - step]
            _forward(treated, rows, back, again, returning, left, state, path)
        if counted:
            for k in range(horizon):
                close = step + (k + 1) * STEPS
                value[:] = at_month[close]
                for before in range((month + 1) * STEPS - 1, step - 1, -1):
                    _step_back(leave, returning[close - before - 1], value)
                now = path[close - step - 1]
                for o in range(3):
                    for c in range(BLOCK):
                        sums[0, o, k] += arrive[step, c] * now[o * BLOCK + c]
                        sums[1, o, k] += arrive[step, c] * value[o * BLOCK + c]
            total += arrive[step].sum()
        chance = later[month]
        for T in range(step + 1, until + 1):
            ahead = free[T]
            _step_back(leave, returning[T - step - 1], ahead)
            if starting:
                begun = path[T - step - 1]
                for c in range(BLOCK):
                    ahead[c] += chance[c] * (begun[c] - ahead[c])
                    ahead[BLOCK + c] += chance[c] * (begun[BLOCK + c] - ahead[BLOCK + c])
                    ahead[2 * BLOCK + c] += chance[c] * (begun[2 * BLOCK + c] - ahead[2 * BLOCK + c])
    return total
