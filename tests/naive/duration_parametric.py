"""Slow twins of Fine and Gray and of forms of duration: plain loops over people, numerical integrals."""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate


def curve_before(group, follows):
    """Log of G H just before a time, as a function; ``group`` is a list of (start, stop, censored, weight)."""
    times = sorted({row[0] for row in group} | {row[1] for row in group})
    factors = {}
    for u in times:
        lost = sum(w for _, stop, c, w in group if stop == u and c)
        ended = sum(w for _, stop, c, w in group if stop == u and not c)
        after = sum(w for start, stop, _, w in group if start < u < stop)
        new = sum(w for start, _, _, w in group if start == u)
        risk = after + lost + (0 if follows == "survival" else ended)
        factor = 1 - lost / risk if lost else 1.0
        if new and after:
            factor *= (after + new) / after
        factors[u] = factor
    return lambda t: math.prod(factor for u, factor in factors.items() if u < t)


def shares(start, stop, cause, weight, group, follows="survival"):
    """Times of cause 1 and the weight of everybody in the risk set at each: (times, n lists)."""
    people = range(len(stop))
    rows = {g: [(start[i], stop[i], cause[i] == 0, weight[i]) for i in people if group[i] == g] for g in set(group)}
    curve = {g: curve_before(rows[g], follows) for g in rows}
    times = sorted({stop[i] for i in people if cause[i] == 1})
    out = []
    for i in people:
        own = []
        for t in times:
            if start[i] < t <= stop[i]:
                own.append(1.0)
            elif cause[i] == 2 and stop[i] < t:
                own.append(curve[group[i]](t) / curve[group[i]](stop[i]))
            else:
                own.append(0.0)
        out.append(own)
    return times, out


def log_likelihood(beta, x, start, stop, cause, weight, group, stratum, follows="survival", efron=True):
    """Weighted log partial likelihood of cause 1; x lists of covariates."""
    times, share = shares(start, stop, cause, weight, group, follows)
    value = 0.0
    risk = [weight[i] * math.exp(sum(b * v for b, v in zip(beta, x[i], strict=True))) for i in range(len(stop))]
    for s in set(stratum):
        own = [i for i in range(len(stop)) if stratum[i] == s]
        for k, t in enumerate(times):
            dead = [i for i in own if cause[i] == 1 and stop[i] == t]
            if not dead:
                continue
            total = sum(share[i][k] * risk[i] for i in own)
            tied = sum(risk[i] for i in dead)
            mass = sum(weight[i] for i in dead)
            value += sum(weight[i] * math.log(risk[i] / weight[i]) for i in dead)
            for place in range(len(dead) if efron else 1):
                taken = tied * place / len(dead)
                value -= mass / (len(dead) if efron else 1) * math.log(total - taken)
    return value


def aalen_johansen(start, stop, cause, weight):
    """Share that left for cause 1 by each of its times."""
    alive, share, out = 1.0, 0.0, []
    people = range(len(stop))
    for t in sorted({stop[i] for i in people if cause[i] > 0}):
        risk = sum(weight[i] for i in people if start[i] < t <= stop[i])
        own = sum(weight[i] for i in people if stop[i] == t and cause[i] == 1)
        every = sum(weight[i] for i in people if stop[i] == t and cause[i] > 0)
        share += alive * own / risk
        alive *= 1 - every / risk
        if own:
            out.append(share)
    return out


def plug_in(x, stop, cause, group, beta):
    """Fine and Gray's (1999) variance with cmprsk's order of ties, one covariate or more, censoring by group."""
    n = len(stop)
    zero, one = [0.0] * n, [1.0] * n
    times, share = shares(zero, stop, cause, one, group, "cmprsk")
    risk = [math.exp(sum(b * v for b, v in zip(beta, x[i], strict=True))) for i in range(n)]
    x = [np.array(row, float) for row in x]
    size = len(beta)
    steps, means, information = [], [], np.zeros((size, size))
    for k, t in enumerate(times):
        total = sum(share[i][k] * risk[i] for i in range(n))
        mean = sum(share[i][k] * risk[i] * x[i] for i in range(n)) / total
        died = sum(1 for i in range(n) if stop[i] == t and cause[i] == 1)
        steps.append(died / total)
        means.append(mean)
        information += steps[-1] * sum(share[i][k] * risk[i] * np.outer(x[i] - mean, x[i] - mean) for i in range(n))
    score = []
    for i in range(n):
        own = np.zeros(size)
        for k, t in enumerate(times):
            own -= share[i][k] * risk[i] * steps[k] * (x[i] - means[k])
            if cause[i] == 1 and stop[i] == t:
                own += x[i] - means[k]
        score.append(own)
    for g in set(group):
        mine = [i for i in range(n) if group[i] == g]
        for u in sorted({stop[i] for i in mine if cause[i] == 0}):
            q = np.zeros(size)
            for j in mine:
                if cause[j] == 2 and stop[j] < u:
                    for k, t in enumerate(times):
                        if t >= u:
                            q -= share[j][k] * risk[j] * steps[k] * (x[j] - means[k])
            there = [i for i in mine if stop[i] >= u]
            lost = [i for i in mine if stop[i] == u and cause[i] == 0]
            for i in lost:
                score[i] = score[i] - q / len(there)
            for i in there:
                score[i] = score[i] + q / len(there) * len(lost) / len(there)
    inverse = np.linalg.inv(information)
    return inverse @ sum(np.outer(own, own) for own in score) @ inverse


def hazard(family, t, eta, tau):
    """Hazard of one form at t, from density and survival of the error written out."""
    if family == "gompertz":
        return math.exp(eta + tau * t)
    s = 1.0 if family == "exponential" else math.exp(tau)
    z = (math.log(t) - eta) / s
    if family in ("exponential", "weibull"):
        density, left = math.exp(z - math.exp(z)), math.exp(-math.exp(z))
    elif family == "lognormal":
        density, left = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), math.erfc(z / math.sqrt(2)) / 2
    else:
        density, left = math.exp(-z) / (1 + math.exp(-z)) ** 2, 1 / (1 + math.exp(z))
    return density / left / (s * t)


def cumulated(family, low, high, eta, tau):
    """Integral of the hazard from low to high."""
    return integrate.quad(lambda t: hazard(family, t, eta, tau), low, high, epsabs=1e-13, epsrel=1e-12, limit=300)[0]


def form(family, theta, rows):
    """Log-likelihood; rows are (start, stop, event, x, weight, number of the second parameter)."""
    value = 0.0
    for start, stop, event, x, weight, stratum in rows:
        wide = len(x) + 1
        eta = theta[0] + sum(b * v for b, v in zip(theta[1:wide], x, strict=True))
        tau = 0.0 if family == "exponential" else theta[wide + stratum]
        own = -cumulated(family, start, stop, eta, tau)
        if event:
            own += math.log(hazard(family, stop, eta, tau))
        value += weight * own
    return value


def shared(family, theta, groups):
    """Log-likelihood with a gamma factor integrated numerically.

    Groups are lists of rows (start, stop, event, x, entry); entry: the row begins after a time that had to be survived.
    """
    nu = math.exp(-theta[-1])
    value = 0.0
    for rows in groups:
        logs, here, late, events = 0.0, 0.0, 0.0, 0
        for start, stop, event, x, entry in rows:
            wide = len(x) + 1
            eta = theta[0] + sum(b * v for b, v in zip(theta[1:wide], x, strict=True))
            tau = 0.0 if family == "exponential" else theta[wide]
            here += cumulated(family, start, stop, eta, tau)
            if entry:
                late += cumulated(family, 0.0, start, eta, tau)
            if event:
                events += 1
                logs += math.log(hazard(family, stop, eta, tau))

        def mean(power, rate):
            """E[v^power e^(-v rate)], v gamma of mean 1, over v = e^u."""
            level = nu * math.log(nu) - math.lgamma(nu)
            return integrate.quad(
                lambda u: math.exp(level + (power + nu) * u - (nu + rate) * math.exp(u)),
                -60 / min(nu, 1), 8, epsabs=0, epsrel=1e-11, limit=800, points=[-10, -3, 0, 2],
            )[0]  # fmt: skip

        value += logs + math.log(mean(events, here + late)) - math.log(mean(0, late))
    return value
