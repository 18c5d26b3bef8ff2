"""Cox's partial likelihood on start-stop rows: one pass over the event times, risk sets by adding and taking away."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@njit(cache=True)
def partial(
    x: Array, eta: Array, risk: Array, weight: Array, start: Array, stop: Array, event: Ints, by_start: Ints,
    first: Ints, efron: bool, slope: bool, detail: bool, scale: Array,
    gradient: Array, information: Array, scaled: Array,
    times: Array, hazard: Array, mean_hazard: Array, own_hazard: Array, own_mean_hazard: Array, mean: Array,
    square: Array, own_square: Array, inverse: Array, bounds: Ints,
) -> float:  # fmt: skip
    """Log partial likelihood; with ``slope`` its gradient (P,) and information (P, P), with ``detail`` more.

    With ``scale`` (one value g an event time, falling within strata; empty for none) the gradient is that of the
    products g x, ``information`` is theirs with x itself and ``scaled`` (P, P) theirs with themselves: sums over events
    of g and of g squared times the variance of x in the risk set.

    Rows stand by stratum and falling stop; ``by_start``: their numbers by stratum and falling start; ``first`` (S + 1)
    where a stratum begins. ``risk``: weight times exp(eta). By event time (at most as many as events, falling within a
    stratum, ``bounds`` (S + 1)) what residuals need: ``hazard`` the sum of the increments, ``mean_hazard`` (P) those
    times the mean of x, ``own_*`` what those who have the event themselves get (Efron), ``mean`` (P) the mean of x that
    an event is set against, ``square``, ``own_square`` sums of increments over the risk set's size, ``inverse`` the
    mean of one over that size.
    """
    size = x.shape[1]
    total, place, g = 0.0, 0, 1.0
    s1, e1 = np.zeros(size), np.zeros(size)
    s2, e2 = np.zeros((size, size)), np.zeros((size, size))
    m = np.zeros(size)
    for stratum in range(len(first) - 1):
        bounds[stratum] = place
        low, high = first[stratum], first[stratum + 1]
        enter, leave = low, low
        s0 = 0.0
        at_risk = 0
        s1[:] = 0.0
        s2[:] = 0.0
        while enter < high:
            row = enter
            if event[row] == 0:  # not an event time unless somebody has an event at this stop
                time = stop[row]
                ahead = enter
                found = False
                while ahead < high and stop[ahead] == time:
                    if event[ahead] == 1:
                        found = True
                        break
                    ahead += 1
            else:
                time = stop[row]
                found = True
            if found:
                while leave < high and start[by_start[leave]] >= time:
                    gone = by_start[leave]
                    r = risk[gone]
                    s0 -= r
                    at_risk -= 1
                    if slope:
                        for a in range(size):
                            v = r * x[gone, a]
                            s1[a] -= v
                            for b in range(a + 1):
                                s2[a, b] -= v * x[gone, b]
                    leave += 1
                if at_risk == 0:
                    s0 = 0.0
                    s1[:] = 0.0
                    s2[:] = 0.0
            if found and len(scale):
                g = scale[place]
            deaths, e0, whole = 0, 0.0, 0.0
            if slope and found:
                e1[:] = 0.0
                e2[:] = 0.0
            while enter < high and stop[enter] == time:
                row = enter
                r = risk[row]
                s0 += r
                at_risk += 1
                if slope:
                    for a in range(size):
                        v = r * x[row, a]
                        s1[a] += v
                        for b in range(a + 1):
                            s2[a, b] += v * x[row, b]
                if event[row] == 1:
                    deaths += 1
                    e0 += r
                    whole += weight[row]
                    total += weight[row] * eta[row]
                    if slope:
                        for a in range(size):
                            gradient[a] += g * weight[row] * x[row, a]
                            v = r * x[row, a]
                            e1[a] += v
                            for b in range(a + 1):
                                e2[a, b] += v * x[row, b]
                enter += 1
            if not found:
                continue
            each = whole / deaths
            if detail:
                times[place] = time
            steps = deaths if efron else 1
            share = each if efron else whole
            for step in range(steps):
                part = step / deaths
                base = s0 - part * e0
                total -= share * np.log(base)
                if slope:
                    h = share / base
                    own = 1.0 - part
                    for a in range(size):
                        m[a] = (s1[a] - part * e1[a]) / base
                        gradient[a] -= g * share * m[a]
                    if detail:
                        hazard[place] += h
                        own_hazard[place] += own * h
                        square[place] += h / base
                        own_square[place] += own * h / base
                        inverse[place] += 1.0 / (base * steps)
                        for a in range(size):
                            mean[place, a] += m[a] / steps
                            mean_hazard[place, a] += h * m[a]
                            own_mean_hazard[place, a] += own * h * m[a]
                    for a in range(size):
                        for b in range(a + 1):
                            v = share * ((s2[a, b] - part * e2[a, b]) / base - m[a] * m[b])
                            information[a, b] += g * v
                            scaled[a, b] += g * g * v
            place += 1
    bounds[len(first) - 1] = place
    if slope:
        for a in range(size):
            for b in range(a):
                information[b, a] = information[a, b]
                scaled[b, a] = scaled[a, b]
    return total


@njit(cache=True)
def scores(
    x: Array, risk: Array, start: Array, stop: Array, event: Ints, stratum: Ints, bounds: Ints, times: Array,
    hazard: Array, mean_hazard: Array, own_hazard: Array, own_mean_hazard: Array, mean: Array, out: Array,
    martingale: Array,
) -> None:  # fmt: skip
    """Score residuals (R, P) and martingale residuals (R,); hazard and mean_hazard cumulated from the last time on.

    Times rise within a stratum here; ``hazard[k]`` is the sum of increments up to and including time k of the stratum,
    with one entry before the first (so arrays have one row more a stratum: stratum s has rows bounds[s] + s ..).
    """
    size = x.shape[1]
    for r in range(len(risk)):
        low, high = bounds[stratum[r]], bounds[stratum[r] + 1]
        shift = low + stratum[r]
        a = np.searchsorted(times[low:high], start[r], side="right")
        b = np.searchsorted(times[low:high], stop[r], side="right")
        gone = hazard[shift + b] - hazard[shift + a]
        own = 0.0
        k = low + b - 1
        if event[r] == 1:
            own = (hazard[shift + b] - hazard[shift + b - 1]) - own_hazard[k]
        martingale[r] = event[r] - risk[r] * (gone - own)
        for j in range(size):
            value = x[r, j] * gone - (mean_hazard[shift + b, j] - mean_hazard[shift + a, j])
            if event[r] == 1:
                last = mean_hazard[shift + b, j] - mean_hazard[shift + b - 1, j]
                value -= x[r, j] * own - (last - own_mean_hazard[k, j])
                out[r, j] = x[r, j] - mean[k, j] - risk[r] * value
            else:
                out[r, j] = -risk[r] * value
