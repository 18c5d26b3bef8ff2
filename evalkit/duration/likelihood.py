"""What a stretch adds to the log-likelihood, and its derivatives in the linear predictors."""

from __future__ import annotations

import numpy as np

from evalkit.duration.fitted import Link
from evalkit.duration.histories import Histories
from evalkit.effects import Array


def stretches(histories: Histories, eta: Array, link: Link) -> tuple[Array, Array]:
    """Log-likelihood (R,) of each stretch and its derivative (R, K) to eta (R, K); see :class:`Histories`."""
    at_risk, event = histories.at_risk, histories.event
    h = np.where(at_risk, np.exp(np.where(at_risk, eta, 0.0)), 0.0)
    happened = event >= 0
    mine = np.zeros_like(h, bool)
    mine[np.flatnonzero(happened), event[happened]] = True
    log_h = np.where(mine, np.where(mine, eta, 0.0), 0.0).sum(axis=1)
    if histories.timing == "exact":
        return log_h - histories.length * h.sum(axis=1), mine - histories.length[:, None] * h
    value, score = np.zeros(len(h)), np.zeros_like(h)
    of_event = np.where(happened, histories.order[np.maximum(event, 0)], np.iinfo(np.int64).max)
    for order in np.unique(histories.order):
        own = histories.order == order
        part = h[:, own]
        total = part.sum(axis=1)
        here = of_event == order
        periods = histories.length - (of_event <= order)
        if link == "logit":
            value -= (periods + here) * np.log1p(total)
            score[:, own] = mine[:, own] - ((periods + here) / (1 + total))[:, None] * part
        else:
            value -= periods * total
            score[:, own] = -periods[:, None] * part
            t = np.where(here, total, 1.0)
            with np.errstate(divide="ignore"):
                value += np.where(here, np.log(-np.expm1(-t)) - np.log(t), 0.0)
            bend = np.where(t < 1e-6, -0.5 + t / 12, 1 / np.expm1(np.minimum(t, 700.0)) - 1 / t)
            score[:, own] += np.where(here, bend, 0.0)[:, None] * part + mine[:, own]
    return value + log_h, score


def bends(histories: Histories, eta: Array, link: Link) -> tuple[Array, Array, Array]:
    """Minus the second derivatives of :func:`stretches` in its predictors, as diag(a) - c_o h_o h_o' in each order.

    Returns a (R, K), c (R, K) that of the order of each risk, and h (R, K), zero where not at risk. Risks of unlike
    order do not interact.
    """
    at_risk, event = histories.at_risk, histories.event
    h = np.where(at_risk, np.exp(np.where(at_risk, eta, 0.0)), 0.0)
    a, c = np.zeros_like(h), np.zeros_like(h)
    if histories.timing == "exact":
        return histories.length[:, None] * h, c, h
    of_event = np.where(event >= 0, histories.order[np.maximum(event, 0)], np.iinfo(np.int64).max)
    for order in np.unique(histories.order):
        own = histories.order == order
        part = h[:, own]
        total = part.sum(axis=1)
        here = of_event == order
        periods = histories.length - (of_event <= order)
        if link == "logit":
            weight = (periods + here) / (1 + total)
            a[:, own] = weight[:, None] * part
            c[:, own] = (weight / (1 + total))[:, None]
            continue
        t = np.where(here, total, 1.0)
        small = t < 1e-3
        t_safe = np.where(small, 1.0, np.minimum(t, 300.0))
        first = np.where(t < 1e-6, -0.5 + t / 12, 1 / np.expm1(np.minimum(t, 700.0)) - 1 / t)
        second = np.where(
            small, 1 / 12 - t * t / 240, 1 / t_safe**2 - np.exp(t_safe) / np.expm1(t_safe) ** 2
        )  # fmt: skip
        a[:, own] = (periods - np.where(here, first, 0.0))[:, None] * part
        c[:, own] = np.where(here, second, 0.0)[:, None]
    return a, c, h
