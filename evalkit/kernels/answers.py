"""Cumulated exit along months, started now against not started, with its gradient in every linear predictor."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int32]

LOGIT = 1
SMALL = 1e-4


@njit(cache=True)
def node(eta: Array, link: int, p: Array, dp: Array, dtotal: Array) -> float:
    """Chances of each exit in a month, p (J,), with derivatives dp (J, J) and those of their sum (J,); the sum."""
    exits = len(eta)
    total = 0.0
    for j in range(exits):
        total += np.exp(eta[j])
    if link == LOGIT:
        for j in range(exits):
            p[j] = np.exp(eta[j]) / (1.0 + total)
        whole = total / (1.0 + total)
        for j in range(exits):
            dtotal[j] = p[j] * (1.0 - whole)
            for k in range(exits):
                dp[j, k] = -p[j] * p[k]
            dp[j, j] += p[j]
        return whole
    stays = np.exp(-total)
    if total < SMALL:
        ratio = 1.0 - total / 2.0 + total * total / 6.0
        slope = -0.5 + total / 3.0 - total * total / 8.0
    else:
        ratio = -np.expm1(-total) / total
        slope = (stays - ratio) / total
    for j in range(exits):
        h = np.exp(eta[j])
        p[j] = h * ratio
        dtotal[j] = h * stays
        for k in range(exits):
            dp[j, k] = h * np.exp(eta[k]) * slope
        dp[j, j] += h * ratio
    return -np.expm1(-total)


@njit(cache=True)
def walk(first: int, p: Array, total: Array, alive: Array, gone: Array) -> None:
    """Survival (K + 1) and cumulated exits (J, K + 1) of a path that begins in month ``first``; zero before."""
    months, exits = p.shape
    for k in range(first + 1):
        alive[k] = 1.0
        for j in range(exits):
            gone[j, k] = 0.0
    for m in range(first, months):
        for j in range(exits):
            gone[j, m + 1] = gone[j, m] + alive[m] * p[m, j]
        alive[m + 1] = alive[m] * (1.0 - total[m])


@njit(cache=True)
def slopes(
    weight: float, first: int, dp: Array, dtotal: Array, alive: Array, gone: Array, by_month: Array, by_since: Array
) -> None:
    """Add weight times the derivatives of a path's exits to ``by_month`` (K, J, J K) and ``by_since`` (K, J, J K)."""
    months, exits = dtotal.shape
    for m in range(first, months):
        left = alive[m + 1]
        for own in range(exits):
            for j in range(exits):
                direct = dp[m, j, own]
                for k in range(m + 1, months + 1):
                    later = (gone[j, k] - gone[j, m + 1]) / left if left > 0.0 else 0.0
                    value = weight * alive[m] * (direct - dtotal[m, own] * later)
                    by_month[m, own, j * months + k - 1] += value
                    by_since[m - first, own, j * months + k - 1] += value


@njit(cache=True)
def scatter(
    codes: Codes, numbers: Array, at: Codes, offset: int, row: int, values: Array, gradient: Array
) -> None:  # fmt: skip
    """Add values (J K,) times the columns of a row to the gradient (P, J K)."""
    for f in range(codes.shape[1]):
        if codes[row, f] >= 0:
            gradient[offset + codes[row, f]] += values
    for c in range(numbers.shape[1]):
        if numbers[row, c] != 0.0:
            gradient[offset + at[c]] += numbers[row, c] * values


@njit(cache=True)
def answer(
    base: Array, delta: Array, start: Array, points: Array, point_start: Array, weight: Array, scale: Array, link: int,
    wait: bool, slope: bool,
    base_codes: Codes, base_numbers: Array, base_at: Codes,
    effect_codes: Codes, effect_numbers: Array, effect_at: Codes,
    start_codes: Codes, start_numbers: Array, start_at: Codes,
    offsets: NDArray[np.int64], start_offset: int, first_point: int,
    started: Array, versus: Array, by_point: Array, gradient: Array,
) -> None:  # fmt: skip
    """Cumulated exits of N people by month, started (N, J, K) and not (N, J, K), averaged over Q points.

    base (N, K, J) linear predictors of exits without the instrument, delta (N, K, J) what it adds by month since its
    start, start (N, K) that of starting; points (Q, J), point_start (Q,); weight (N, Q) chances of the points. With
    ``wait`` those who have not started may do so at the end of each month.

    ``by_point`` (N, Q, J K): difference given the point. ``gradient`` (P, J K): of the differences, summed with
    ``scale`` (N,), in theta of exit j from ``offsets[j]`` on, of the start from ``start_offset`` on, and in points,
    row by row, from ``first_point`` on (J of exits, then one of the start when ``start_offset`` >= 0).
    """
    people, months, exits = base.shape
    wide = exits * months
    risks = exits + (1 if start_offset >= 0 else 0)
    p = np.zeros((months, exits))
    dp = np.zeros((months, exits, exits))
    dtotal = np.zeros((months, exits))
    total = np.zeros(months)
    alive = np.zeros(months + 1)
    gone = np.zeros((exits, months + 1))
    p0, dp0, dtotal0, total0 = np.zeros_like(p), np.zeros_like(dp), np.zeros_like(dtotal), np.zeros(months)
    eta = np.zeros(exits)
    waiting, enters = np.zeros(months + 1), np.zeros(months + 1)
    chance, dchance = np.zeros(months), np.zeros(months)
    after = np.zeros((months + 1, exits, months + 1))
    value, following = np.zeros((exits, months + 1)), np.zeros((exits, months + 1))
    by_month = np.zeros((months, exits, wide))
    by_since = np.zeros((months, exits, wide))
    unused = np.zeros((months, exits, wide))
    by_start = np.zeros((months, wide))
    start_before = np.zeros(wide)
    for i in range(people):
        if slope:
            by_month[:] = 0.0
            by_since[:] = 0.0
            by_start[:] = 0.0
        for q in range(points.shape[0]):
            w = weight[i, q]
            if w <= 0.0:
                continue
            sloped = w * scale[i]
            for m in range(months):
                for j in range(exits):
                    eta[j] = base[i, m, j] + delta[i, m, j] + points[q, j]
                total[m] = node(eta, link, p[m], dp[m], dtotal[m])
                for j in range(exits):
                    eta[j] = base[i, m, j] + points[q, j]
                total0[m] = node(eta, link, p0[m], dp0[m], dtotal0[m])
            before_m = by_month.sum(axis=0) if slope and points.shape[0] > 1 else unused[0]
            before_s = by_start.sum(axis=0) if slope and points.shape[0] > 1 else start_before
            walk(0, p, total, alive, gone)
            if slope:
                slopes(sloped, 0, dp, dtotal, alive, gone, by_month, by_since)
            for j in range(exits):
                for k in range(months):
                    started[i, j, k] += w * gone[j, k + 1]
                    by_point[i, q, j * months + k] = gone[j, k + 1]
            if not wait:
                walk(0, p0, total0, alive, gone)
                if slope:
                    slopes(-sloped, 0, dp0, dtotal0, alive, gone, by_month, unused)
                for j in range(exits):
                    for k in range(months):
                        versus[i, j, k] += w * gone[j, k + 1]
                        by_point[i, q, j * months + k] -= gone[j, k + 1]
            else:
                waiting[0] = 1.0
                enters[0] = 0.0
                for m in range(months):
                    h = np.exp(start[i, m] + point_start[q])
                    if link == LOGIT:
                        chance[m] = h / (1.0 + h)
                        dchance[m] = chance[m] * (1.0 - chance[m])
                    else:
                        chance[m] = -np.expm1(-h)
                        dchance[m] = h * np.exp(-h)
                    stay = waiting[m] * (1.0 - total0[m])
                    enters[m + 1] = stay * chance[m]
                    waiting[m + 1] = stay * (1.0 - chance[m])
                for r in range(1, months + 1):
                    for m in range(r, months):
                        for j in range(exits):
                            eta[j] = base[i, m, j] + delta[i, m - r, j] + points[q, j]
                        total[m] = node(eta, link, p[m], dp[m], dtotal[m])
                    walk(r, p, total, alive, gone)
                    after[r] = gone
                    if slope and enters[r] > 0.0:
                        slopes(-sloped * enters[r], r, dp, dtotal, alive, gone, by_month, by_since)
                value[:] = 0.0  # cumulated exits by k of who still waits in month m
                for m in range(months - 1, -1, -1):
                    for j in range(exits):
                        for k in range(months + 1):
                            following[j, k] = chance[m] * after[m + 1, j, k] + (1.0 - chance[m]) * value[j, k]
                    if slope:
                        stay = waiting[m] * (1.0 - total0[m])
                        for j in range(exits):
                            for k in range(m + 1, months + 1):
                                place = j * months + k - 1
                                by_start[m, place] -= sloped * stay * dchance[m] * (after[m + 1, j, k] - value[j, k])
                                for own in range(exits):
                                    by_month[m, own, place] -= (
                                        sloped * waiting[m] * (dp0[m, j, own] - dtotal0[m, own] * following[j, k])
                                    )
                    for j in range(exits):
                        for k in range(months + 1):
                            value[j, k] = (1.0 - total0[m]) * following[j, k]
                            if k > m:
                                value[j, k] += p0[m, j]
                for j in range(exits):
                    for k in range(months):
                        versus[i, j, k] += w * value[j, k + 1]
                        by_point[i, q, j * months + k] -= value[j, k + 1]
            if slope:
                row = first_point + q * risks
                for own in range(exits):
                    for m in range(months):
                        gradient[row + own] += by_month[m, own]
                    if points.shape[0] > 1:
                        gradient[row + own] -= before_m[own]
                if wait and start_offset >= 0:
                    for m in range(months):
                        gradient[row + exits] += by_start[m]
                    if points.shape[0] > 1:
                        gradient[row + exits] -= before_s
        if slope:
            for m in range(months):
                row = i * months + m
                for own in range(exits):
                    scatter(base_codes, base_numbers, base_at, offsets[own], row, by_month[m, own], gradient)
                    scatter(effect_codes, effect_numbers, effect_at, offsets[own], row, by_since[m, own], gradient)
                if wait and start_offset >= 0:
                    scatter(start_codes, start_numbers, start_at, start_offset, row, by_start[m], gradient)
