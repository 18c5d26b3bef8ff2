"""Occupancy of states by month along a path, with its gradient in the parameters of the hazards of moving."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evalkit.kernels.answers import LOGIT, node

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]


@njit(cache=True)
def add(scale: float, values: Array, row: Array) -> None:
    """Add scale times values to a row."""
    for o in range(len(row)):
        row[o] += scale * values[o]


@njit(cache=True)
def chances(
    kind: Numbers, first: int, done: NDArray[np.bool_], theta: Array, own: Numbers, months_eta: Array, effect: Numbers,
    stay: Numbers, bands: Numbers, link: int, p: Array, dp: Array, dtotal: Array, total: Array,
) -> None:  # fmt: skip
    """Chances of each move p (L, K, M, B, C) in months ``first`` .. K - 1, with derivatives dp (.., C, C) and dtotal.

    kind (K,) of each month: 0 without the instrument, else one more than the phase; what is ``done`` (L, K) stays. own
    (M, C) risks of each state, -1 none; months_eta (K, R) linear predictors without stay and effect; effect (R, L - 1)
    parameters by phase; stay (R, D) parameters by months in the state; bands (M, B) one number of months of each band.
    """
    eta = np.zeros(own.shape[1])
    for m in range(first, months_eta.shape[0]):
        f = kind[m]
        if done[f, m]:
            continue
        done[f, m] = True
        for a in range(own.shape[0]):
            count = 0
            while count < own.shape[1] and own[a, count] >= 0:
                count += 1
            if count == 0:
                continue
            for g in range(bands.shape[1]):
                if bands[a, g] < 0:
                    continue
                for c in range(count):
                    r = own[a, c]
                    eta[c] = months_eta[m, r]
                    if stay[r, bands[a, g]] >= 0:
                        eta[c] += theta[stay[r, bands[a, g]]]
                    if f > 0 and effect[r, f - 1] >= 0:
                        eta[c] += theta[effect[r, f - 1]]
                total[f, m, a, g] = node(
                    eta[:count], link, p[f, m, a, g, :count], dp[f, m, a, g, :count, :count], dtotal[f, m, a, g, :count]
                )


@njit(cache=True)
def forward(
    kind: Numbers, first: int, own: Numbers, to: Numbers, cell: Numbers, depth: Numbers, band: Numbers, p: Array,
    total: Array, start: Array, here: int, occ: Array, entering: Array,
) -> None:  # fmt: skip
    """Chances occ (K + 1, cells) of each state and months in it, from those in month ``first``, written in occ.

    Cells of state a: ``cell[a]`` .. ``cell[a] + depth[a]``. Of those that stay in state ``here`` (-1: none) a share
    start (K, D) leaves the path for ``entering`` (K + 1, D), by months in the state then.
    """
    for m in range(first, occ.shape[0] - 1):
        occ[m + 1] = 0.0
        for a in range(len(cell)):
            for d in range(depth[a] + 1):
                mass = occ[m, cell[a] + d]
                if mass == 0.0:
                    continue
                g = band[a, d]
                left = 0.0
                if own[a, 0] >= 0:
                    left = total[kind[m], m, a, g]
                    for c in range(own.shape[1]):
                        if own[a, c] < 0:
                            break
                        occ[m + 1, cell[to[own[a, c]]]] += mass * p[kind[m], m, a, g, c]
                stays = mass * (1.0 - left)
                nxt = min(d + 1, depth[a])
                if a == here:
                    entering[m + 1, nxt] += stays * start[m, d]
                    stays *= 1.0 - start[m, d]
                occ[m + 1, cell[a] + nxt] += stays


@njit(cache=True)
def backward(
    kind: Numbers, first: int, scale: float, own: Numbers, to: Numbers, cell: Numbers,
    depth: Numbers, band: Numbers, bands: Numbers, p: Array, dp: Array, dtotal: Array, total: Array, occ: Array,
    time: Numbers, effect: Numbers, stay: Numbers,
    here: int, risk: int, start: Array, dstart: Array, after: Array,
    value: Array, other: Array, gradient: Array, by_risk: Array,
) -> None:  # fmt: skip
    """Chances of each state at the close of each month given each cell, back to month ``first``, in ``value``.

    Only for cells in which somebody can be; the others are not read, and keep what they were.
    Columns of value (cells, K W): month, state within it; the last state is left out (W = M - 1). Adds scale times the
    derivatives of the path's occupancy to gradient (P, K W) and, for what does not change with months, to
    by_risk (R, K W). after (K + 1, D, K W): values of those that left the path from state ``here`` in each month.
    """
    months, wide = occ.shape[0] - 1, len(cell) - 1
    columns = months * wide
    mixed, moved, summed, by_start = np.zeros(columns), np.zeros(columns), np.zeros(columns), np.zeros(columns)
    vector = np.zeros((own.shape[1], columns))
    value[:] = 0.0
    for a in range(wide):
        for d in range(depth[a] + 1):
            value[cell[a] + d, (months - 1) * wide + a] = 1.0
    for m in range(months - 1, first - 1, -1):
        low = m * wide  # columns of months m + 1 and later
        size = columns - low
        by_start[:size] = 0.0
        for a in range(len(cell)):
            count = 0
            while count < own.shape[1] and own[a, count] >= 0:
                count += 1
            vector[:count, :size] = 0.0
            for g in range(bands.shape[1]):
                if bands[a, g] < 0:
                    continue
                weight = 0.0
                summed[:size] = 0.0
                for d in range(depth[a] + 1):
                    if band[a, d] != g:
                        continue
                    mass = occ[m, cell[a] + d]
                    if mass == 0.0:
                        continue
                    weight += mass
                    nxt = min(d + 1, depth[a])
                    following = value[cell[a] + nxt, low:]
                    if a == here:
                        mixed[:size] = following
                        moved[:size] = after[m + 1, nxt, low:]
                        add(-1.0, following, moved[:size])
                        add(start[m, d], moved[:size], mixed[:size])
                        stayed = mass * (1.0 - total[kind[m], m, a, g]) * dstart[m, d] * scale
                        add(stayed, moved[:size], by_start[:size])
                        if stay[risk, d] >= 0:
                            add(stayed, moved[:size], gradient[stay[risk, d], low:])
                        following = mixed[:size]
                    add(mass, following, summed[:size])
                    new = other[cell[a] + d, low:]
                    alive = 1.0 - total[kind[m], m, a, g] if count > 0 else 1.0
                    for o in range(size):
                        new[o] = alive * following[o]
                    for c in range(count):
                        add(p[kind[m], m, a, g, c], value[cell[to[own[a, c]]], low:], new)
                    if m > 0:
                        for b in range(wide):
                            other[cell[a] + d, low - wide + b] = 1.0 if a == b else 0.0
                if weight == 0.0:
                    continue
                for j in range(count):
                    loss = -scale * dtotal[kind[m], m, a, g, j]
                    for o in range(size):
                        moved[o] = loss * summed[o]
                    for c in range(count):
                        add(scale * weight * dp[kind[m], m, a, g, c, j], value[cell[to[own[a, c]]], low:], moved[:size])
                    column = stay[own[a, j], bands[a, g]]
                    if column >= 0:
                        add(1.0, moved[:size], gradient[column, low:])
                    add(1.0, moved[:size], vector[j, :size])
            for j in range(count):
                r = own[a, j]
                add(1.0, vector[j, :size], by_risk[r, low:])
                for f in range(time.shape[2]):
                    if time[m, r, f] >= 0:
                        add(1.0, vector[j, :size], gradient[time[m, r, f], low:])
                if kind[m] > 0 and effect[r, kind[m] - 1] >= 0:
                    add(1.0, vector[j, :size], gradient[effect[r, kind[m] - 1], low:])
        if here >= 0:
            add(1.0, by_start[:size], by_risk[risk, low:])
            for f in range(time.shape[2]):
                if time[m, risk, f] >= 0:
                    add(1.0, by_start[:size], gradient[time[m, risk, f], low:])
        for a in range(len(cell)):
            for d in range(depth[a] + 1):
                if occ[m, cell[a] + d] != 0.0:
                    value[cell[a] + d, max(low - wide, 0) :] = other[cell[a] + d, max(low - wide, 0) :]


@njit(cache=True)
def shares(first: int, cell: Numbers, depth: Numbers, occ: Array, out: Array) -> None:
    """Add occupancy in months ``first`` .. K of occ (K + 1, cells) to out (M, K), whose first column is month 1."""
    for m in range(max(first, 1), occ.shape[0]):
        for a in range(len(cell)):
            for d in range(depth[a] + 1):
                out[a, m - 1] += occ[m, cell[a] + d]


@njit(cache=True)
def effects(
    theta: Array, intercept: Numbers, own: Numbers, to: Numbers, here: int, link: int, wait: bool,
    cell: Numbers, depth: Numbers, band: Numbers, bands: Numbers, stay: Numbers,
    x_eta: Array, x_codes: Numbers, x_numbers: Array, x_at: Numbers, x_map: Numbers,
    levels: Numbers, maps: Numbers, phase: Numbers, effect_map: Numbers,
    already: Numbers, scale: Array, started: Array, versus: Array, gradient: Array,
) -> None:  # fmt: skip
    """Occupancy (N, M, K) of N people at the close of months 1 .. K, started and not, with the gradient of the effect.

    R risks: moves, then the start. theta (P,) all parameters, among which ``intercept`` (R,). own (M, C) risks of each
    state, to (R,) where they lead. Cells: state a for d months is ``cell[a] + d``, d at most ``depth[a]``; band (M, D)
    number of the band of d, bands (M, B) one d of each band; stay (R, D) the parameter of d.

    By person: x_eta (N, R) of covariates; x_codes (N, F), x_numbers (N, Z), x_at (Z,) covariates, x_map (R, ..) their
    parameters; levels (N, K, 2) steps of time, maps (2, R, ..) their parameters; phase (N, K) of the effect by month
    since the start, effect_map (R, ..) its parameters; already (N,) months in state ``here``; scale (N,).

    ``gradient`` (P, K (M - 1)): of started less not, summed with ``scale``; the last state is left out.
    """
    people, months = phase.shape
    risks, states, deep = len(intercept), len(cell), stay.shape[1]
    wide, risk = states - 1, risks - 1
    cells = cell[states - 1] + depth[states - 1] + 1
    moves, parts = own.shape[1], bands.shape[1]
    kinds = effect_map.shape[1] + 1
    p = np.zeros((kinds, months, states, parts, moves))
    dp = np.zeros((kinds, months, states, parts, moves, moves))
    dtotal = np.zeros((kinds, months, states, parts, moves))
    total = np.zeros((kinds, months, states, parts))
    done = np.zeros((kinds, months), np.bool_)
    without, kind = np.zeros(months, np.int64), np.zeros(months, np.int64)
    months_eta = np.zeros((months, risks))
    time = np.zeros((months, risks, 2), np.int64)
    occ, waiting = np.zeros((months + 1, cells)), np.zeros((months + 1, cells))
    value, other = np.zeros((cells, months * wide)), np.zeros((cells, months * wide))
    by_risk = np.zeros((risks, months * wide))
    start, dstart = np.zeros((months, deep)), np.zeros((months, deep))
    entering = np.zeros((months + 1, deep))
    after = np.zeros((months + 1 if wait else 1, deep, months * wide))
    none = np.zeros((months, deep))
    for i in range(people):
        by_risk[:] = 0.0
        for r in range(risks):
            for m in range(months):
                months_eta[m, r] = x_eta[i, r] + theta[intercept[r]]
                for f in range(2):
                    time[m, r, f] = maps[f, r, levels[i, m, f]]
                    if time[m, r, f] >= 0:
                        months_eta[m, r] += theta[time[m, r, f]]
        done[:] = False
        kind[:] = phase[i] + 1
        d = min(already[i], depth[here])
        occ[:] = 0.0
        occ[0, cell[here] + d] = 1.0
        chances(kind, 0, done, theta, own, months_eta, effect_map, stay, bands, link, p, dp, dtotal, total)
        forward(kind, 0, own, to, cell, depth, band, p, total, none, -1, occ, entering)
        shares(0, cell, depth, occ, started[i])
        backward(
            kind, 0, scale[i], own, to, cell, depth, band, bands, p, dp, dtotal, total, occ, time, effect_map,
            stay, -1, risk, none, none, after, value, other, gradient, by_risk,
        )  # fmt: skip
        if wait:
            for m in range(months):
                for e in range(depth[here] + 1):
                    eta = months_eta[m, risk]
                    if stay[risk, e] >= 0:
                        eta += theta[stay[risk, e]]
                    h = np.exp(eta)
                    if link == LOGIT:
                        start[m, e] = h / (1.0 + h)
                        dstart[m, e] = h / (1.0 + h) ** 2
                    else:
                        start[m, e] = -np.expm1(-h)
                        dstart[m, e] = h * np.exp(-h)
        leaves = here if wait else -1
        waiting[:] = 0.0
        waiting[0, cell[here] + d] = 1.0
        entering[:] = 0.0
        chances(without, 0, done, theta, own, months_eta, effect_map, stay, bands, link, p, dp, dtotal, total)
        forward(without, 0, own, to, cell, depth, band, p, total, start, leaves, waiting, entering)
        shares(0, cell, depth, waiting, versus[i])
        if wait:
            for t in range(1, months + 1):
                occ[:] = 0.0
                occ[t, cell[here] : cell[here] + depth[here] + 1] = entering[t, : depth[here] + 1]
                kind[t:] = phase[i, : months - t] + 1
                chances(kind, t, done, theta, own, months_eta, effect_map, stay, bands, link, p, dp, dtotal, total)
                forward(kind, t, own, to, cell, depth, band, p, total, none, -1, occ, entering)
                shares(t, cell, depth, occ, versus[i])
                backward(
                    kind, t, -scale[i], own, to, cell, depth, band, bands, p, dp, dtotal, total, occ, time, effect_map,
                    stay, -1, risk, none, none, after, value, other, gradient, by_risk,
                )  # fmt: skip
                after[t, : depth[here] + 1] = value[cell[here] : cell[here] + depth[here] + 1]
        backward(
            without, 0, -scale[i], own, to, cell, depth, band, bands, p, dp, dtotal, total, waiting, time, effect_map,
            stay, leaves, risk, start, dstart, after, value, other, gradient, by_risk,
        )  # fmt: skip
        for r in range(risks):
            add(1.0, by_risk[r], gradient[intercept[r]])
            for f in range(x_codes.shape[1]):
                column = x_map[r, x_codes[i, f]] if x_codes[i, f] >= 0 else -1
                if column >= 0:
                    add(1.0, by_risk[r], gradient[column])
            for c in range(len(x_at)):
                column = x_map[r, x_at[c]]
                if column >= 0 and x_numbers[i, c] != 0.0:
                    add(x_numbers[i, c], by_risk[r], gradient[column])
