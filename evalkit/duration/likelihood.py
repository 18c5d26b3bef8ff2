"""What a stretch adds to the log-likelihood, and the derivative in its linear predictors."""

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
