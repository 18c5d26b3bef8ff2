"""What a stretch adds to the log-likelihood, and its derivatives in the linear predictors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.fitted import Hazards, Link
from evalkit.duration.histories import Histories
from evalkit.effects import Array


def stretches(histories: Histories, eta: Array, link: Link) -> tuple[Array, Array]:
    """Log-likelihood (R,) of each stretch and its derivative (R, K) to eta (R, K); see :class:`Histories`."""
    h, event = rates(histories.at_risk, eta), histories.event
    happened = event >= 0
    mine = np.zeros_like(h, bool)
    mine[np.flatnonzero(happened), event[happened]] = True
    log_h = np.where(mine, np.where(mine, eta, 0.0), 0.0).sum(axis=1)
    if histories.timing == "exact":
        return log_h - histories.length * h.sum(axis=1), mine - histories.length[:, None] * h
    value, score = np.zeros(len(h)), np.zeros_like(h)
    for own, here, periods in _orders(histories):
        part = h[:, own]
        total = part.sum(axis=1)
        if link == "logit":
            value -= (periods + here) * np.log1p(total)
            score[:, own] = mine[:, own] - ((periods + here) / (1 + total))[:, None] * part
        else:
            t = np.where(here, total, 1.0)
            value += np.where(here, log_share(t), 0.0) - periods * total
            score[:, own] = (np.where(here, log_share_slope(t), 0.0) - periods)[:, None] * part + mine[:, own]
    return value + log_h, score


def bends(histories: Histories, eta: Array, link: Link) -> tuple[Array, Array]:
    """Minus the second derivatives of :func:`stretches` in its predictors, as diag(a) - b_o b_o' in each order.

    Returns a (R, K) and b (R, K), zero where not at risk. Risks of unlike order do not interact.
    """
    h = rates(histories.at_risk, eta)
    a, b = np.zeros_like(h), np.zeros_like(h)
    if histories.timing == "exact":
        return histories.length[:, None] * h, b
    for own, here, periods in _orders(histories):
        part = h[:, own]
        total = part.sum(axis=1)
        if link == "logit":
            with np.errstate(invalid="ignore"):
                share = np.where(np.isfinite(part), part / (1 + total)[:, None], 1.0)
            a[:, own] = (periods + here)[:, None] * share
            b[:, own] = np.sqrt(periods + here)[:, None] * share
            continue
        t = np.where(here, total, 1.0)
        a[:, own] = (periods - np.where(here, log_share_slope(t), 0.0))[:, None] * part
        b[:, own] = np.where(here, t * np.sqrt(log_share_bend(t)), 0.0)[:, None] * (part / t[:, None])
    return a, b


def rates(at_risk: NDArray[np.bool_], eta: Array) -> Array:
    """exp(eta), zero where not at risk."""
    return np.where(at_risk, np.exp(np.where(at_risk, eta, 0.0)), 0.0)


def chances(h: Array, link: Link) -> Array:
    """(n, J) chance of each of J rival events within a period, from h (n, J)."""
    total = h.sum(axis=1, keepdims=True)
    return np.asarray(h / (1 + total) if link == "logit" else h * np.exp(log_share(total)))


def predictors(histories: Histories, hazards: Hazards, point: int = 0) -> Array:
    """(R, K) linear predictors of a fitted model at one of its points."""
    parts = zip(histories.designs, hazards.theta, hazards.points[point], strict=True)
    return np.column_stack([design.predict(theta) + mu for design, theta, mu in parts])


def summed(histories: Histories, scores: Array) -> Array:
    """(G, P) scores of persons (N, P) by cluster, as an influence function counts them."""
    out = np.zeros((len(histories.cluster_ids), scores.shape[1]))
    np.add.at(out, histories.cluster, scores * histories.score_weight[:, None])
    return out


def _orders(histories: Histories) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_], Array]]:
    """By order of risks: which they are (K,), where one has the event (R,), and periods survived by all (R,)."""
    event = histories.event
    of_event = np.where(event >= 0, histories.order[np.maximum(event, 0)], np.iinfo(np.int64).max)
    for order in np.unique(histories.order):
        yield histories.order == order, of_event == order, histories.length - (of_event <= order)


def log_share(t: Array) -> Array:
    """ln((1 - exp(-t)) / t): with hazards h that add up to t, h times its exponential is the chance in a period."""
    small = t < 1e-5
    safe = np.where(small, 1.0, t)
    near = np.minimum(t, 1.0)
    return np.where(small, -near / 2 + near * near / 24, np.log(-np.expm1(-safe)) - np.log(safe))


def log_share_slope(t: Array) -> Array:
    """Its derivative: 1 / (exp(t) - 1) - 1 / t."""
    small = t < 1e-4
    safe = np.where(small, 1.0, t)
    return np.where(small, -0.5 + t / 12, 1 / np.expm1(np.minimum(safe, 700.0)) - 1 / safe)


def log_share_bend(t: Array) -> Array:
    """Its second derivative, not below 0: 1 / t^2 - exp(t) / (exp(t) - 1)^2."""
    near = np.minimum(t, 1.0)
    small = t < 1e-2
    safe = np.where(small, 1.0, t)
    e = np.minimum(safe, 100.0)
    fall = np.where(safe < 100.0, np.exp(e) / np.expm1(e) ** 2, 0.0)
    return np.where(small, 1 / 12 - near * near / 240 + near**4 / 6048, (1 / safe) ** 2 - fall)
