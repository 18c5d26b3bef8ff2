"""Hazards by risk in plain loops: likelihoods person by person, frailty by a sum over nodes, expected events."""

from __future__ import annotations

import math

import numpy as np


def stretch(histories, r, rates, link):
    """Log-likelihood of one stretch, period by period; rates (K,)."""
    event, out = int(histories.event[r]), 0.0
    mine = [rates[k] if histories.at_risk[r, k] else 0.0 for k in range(len(rates))]
    if histories.timing == "exact":
        return (math.log(mine[event]) if event >= 0 else 0.0) - histories.length[r] * sum(mine)
    for period in range(int(histories.length[r])):
        last = period + 1 == int(histories.length[r])
        for order in sorted(set(histories.order.tolist())):
            here = [k for k in range(len(mine)) if histories.order[k] == order]
            total = sum(mine[k] for k in here)
            stay = 1 / (1 + total) if link == "logit" else math.exp(-total)
            if last and event in here:
                leave = total / (1 + total) if link == "logit" else 1 - math.exp(-total)
                out += math.log(mine[event] / total * leave)
                break
            out += math.log(stay)
    return out


def log_likelihood(histories, theta, intercepts, link="hazard"):
    """Of all observed stretches, identical persons counted; theta by risk."""
    matrices = [design.matrix() for design in histories.designs]
    total = 0.0
    for r in range(len(histories)):
        if histories.before[r]:
            continue
        rates = [math.exp(float(matrix[r] @ b) + mu) for matrix, b, mu in zip(matrices, theta, intercepts, strict=True)]
        total += histories.count[histories.person[r]] * stretch(histories, r, rates, link)
    return total


def with_frailty(histories, theta, intercept, variance, group=None):
    """Log-likelihood with gamma frailty of the only risk, by generalised Gauss-Laguerre with 100 nodes."""
    from scipy.special import roots_genlaguerre

    nodes, weights = roots_genlaguerre(100, 1 / variance - 1)
    z, chance = nodes * variance, weights / weights.sum()
    unit = np.arange(histories.persons) if group is None else np.asarray(group)
    design, total = histories.designs[0].matrix(), 0.0
    for who in np.unique(unit):
        whole, lived = np.zeros(len(z)), np.zeros(len(z))
        for r in range(len(histories)):
            if unit[histories.person[r]] != who:
                continue
            rate = math.exp(float(design[r] @ theta) + intercept)
            times = 1.0 if group is None else histories.count[histories.person[r]]
            each = np.array([stretch(histories, r, [rate * one], "hazard") for one in z]) * times
            whole += each
            if histories.before[r]:
                lived += each
        copies = histories.count[who] if group is None else 1.0
        total += copies * (math.log(chance @ np.exp(whole)) - math.log(chance @ np.exp(lived)))
    return total


def expected(histories, fit, number, group, groups):
    """Observed and expected events by group, period by period."""
    matrices = [design.matrix() for design in histories.designs]
    out = np.zeros((2, groups))
    for r in range(len(histories)):
        if histories.before[r] or not histories.at_risk[r, number] or group[r] < 0:
            continue
        count, event = histories.count[histories.person[r]], int(histories.event[r])
        rates = [
            math.exp(float(m[r] @ b) + mu) if histories.at_risk[r, k] else 0.0
            for k, (m, b, mu) in enumerate(zip(matrices, fit.theta, fit.points[0], strict=True))
        ]
        out[0, group[r]] += count * (event == number)
        if histories.timing == "exact":
            out[1, group[r]] += count * histories.length[r] * rates[number]
            continue
        rivals = sum(rates[k] for k in range(len(rates)) if histories.order[k] == histories.order[number])
        chance = rates[number] / (1 + rivals) if fit.link == "logit" else rates[number] / rivals * -math.expm1(-rivals)
        for period in range(int(histories.length[r])):
            last = period + 1 == int(histories.length[r])
            if last and event >= 0 and histories.order[event] < histories.order[number]:
                continue
            out[1, group[r]] += count * chance
    return out
