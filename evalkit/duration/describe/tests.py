"""Do groups leave at different speeds: the log-rank family for hazards, Gray's test for shares by cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from evalkit.duration.describe.risk import Numbers, Risk, apart, levels, risk
from evalkit.duration.episodes import Episodes
from evalkit.effects import Array, frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError

Weights = Literal["logrank", "gehan", "tarone_ware", "peto_peto", "fleming_harrington"]
TestErrors = Literal["counts", "influence"]

RANK = 1e-10
"""Eigenvalues below this part of the largest are nil: groups never at risk together."""


@dataclass(frozen=True)
class GroupTest:
    """A chi-square test that groups do not differ.

    Attributes
    ----------
    name: ``logrank``, ..., ``gray``. cause: whose events. groups: (K,) names of levels.
    observed, expected: (K,) weighted numbers of events, and those if all had the common hazard. Their difference is
        what is tested; with weights by time they are sums of these.
    variance: (K, K) of the difference. errors: ``counts`` or ``influence``.
    statistic, df, p_value.
    """

    name: str
    cause: str
    groups: NDArray[Any]
    observed: Array
    expected: Array
    variance: Array
    statistic: float
    df: int
    p_value: float
    errors: TestErrors


def logrank(
    episodes: Episodes,
    group: ArrayLike,
    weights: Weights = "logrank",
    *,
    rho: float = 0.0,
    gamma: float = 0.0,
    from_time: float | None = None,
    errors: TestErrors | None = None,
) -> GroupTest:
    """Weighted log-rank test of equal hazards of K groups, by stratum of the episodes, with delayed entry.

    U_g = sum over strata and times of w(t) [d_g - Y_g d / Y], U' V^-1 U chi-square. All causes together;
    ``episodes.only(cause)`` tests the hazard of one cause.

    Parameters
    ----------
    group: (R,) level of each stretch; it may change over a person's stretches.
    weights: w(t) = 1 ``logrank``; Y ``gehan`` (Wilcoxon, Breslow); sqrt(Y) ``tarone_ware``; S(t-) ``peto_peto``;
        S(t-)^rho (1 - S(t-))^gamma ``fleming_harrington``; S Kaplan-Meier of the groups together, in the stratum.
    errors: ``counts``: hypergeometric with ties, w^2 d (Y - d) / (Y - 1) [..]; for independent persons with weights of
        one, and their default. ``influence``: sums by cluster of w(t) [1(g) - Y_g / Y] (dN - Y dH), the robust score
        test; the default otherwise.

    Raises
    ------
    UsageError
        ``duration.describe_weights``, ``duration.describe_rho``, ``duration.describe_errors``,
        ``duration.describe_group_length``, ``duration.describe_times``.
    DataError
        ``duration.describe_group_missing``.
    DesignError
        ``duration.describe_group_constant``; ``duration.describe_no_overlap``: groups are never at risk together;
        ``duration.describe_no_events``: no event after ``from_time``.

    Sources: Mantel (1966); Tarone and Ware (1977); Harrington and Fleming (1982); robust: Lin and Wei (1989).
    """
    if not (np.isfinite([rho, gamma]).all() and rho >= 0 and gamma >= 0):
        raise UsageError(Fault("duration.describe_rho"))
    names, place = levels(episodes, group)
    parts = [risk(rows, from_time, label) for rows, label in _strata(episodes, place, from_time)]
    kind = _errors(parts, errors)
    size = len(names)
    observed, expected, variance = np.zeros(size), np.zeros(size), np.zeros((size, size))
    score = np.zeros((len(episodes.cluster_ids), size))
    for rows in parts:
        w = _weight(weights, rows, rho, gamma)
        at_risk = np.column_stack([rows.labelled(g) for g in range(size)])
        causes = range(len(rows.causes))
        events = np.column_stack([sum(rows.labelled(g, c) for c in causes) for g in range(size)])
        share, total = at_risk / rows.at_risk[:, None], rows.events.sum(axis=1)
        observed += w @ events
        expected += (w * total) @ share
        if kind == "counts":
            ties = total * (rows.at_risk - total) / np.maximum(rows.at_risk - 1, 1)
            spread = share * (w**2 * ties)[:, None]
            variance += np.diag(spread.sum(axis=0)) - spread.T @ share
        else:
            own = [w[:, None] * ((np.arange(size) == g) - share) for g in range(size)]
            score += _by_cluster(rows, own)
    if kind == "influence":
        variance = score.T @ score
    cause = parts[0].causes[0] if len(parts[0].causes) == 1 else "any"
    return _tested(weights, cause, names, observed, expected, variance, kind)


def gray_test(
    episodes: Episodes,
    group: ArrayLike,
    cause: str,
    *,
    rho: float = 0.0,
    from_time: float | None = None,
    errors: TestErrors | None = None,
) -> GroupTest:
    """Gray's test that K groups have the same share that left for one cause by every time, others competing.

    z_k = sum W(t) [d_1k - R_k d_1 / R], R_k = Y_k (1 - F_1k(t-)) / S_k(t-): those still at risk and, in proportion,
    those who left for another cause. W = (1 - F(t-))^rho with F the common share. Strata of the episodes are summed.
    A log-rank test asks about the speed among those still there, this one about the shares that result.

    Parameters
    ----------
    group: (R,) level of each stretch, fixed for a person.
    errors: ``counts``: Gray's variance, in which an event of the cause or of another moves every later R_k, with his
        factors for ties; for independent persons with weights of one, and their default. ``influence``: the same
        movements summed by cluster; the default otherwise.

    Raises
    ------
    DataError
        ``duration.cause_unknown``, ``duration.describe_group_missing``; ``duration.describe_group_moves``: persons
        whose group changes.
    DesignError
        ``duration.describe_early_zero_test``: in a group everyone at risk left while others were yet to enter;
        ``duration.describe_group_constant``, ``duration.describe_no_overlap``, ``duration.describe_no_events``.
    UsageError
        ``duration.describe_rho``, ``duration.describe_errors``, ``duration.describe_group_length``,
        ``duration.describe_times``.

    Sources: Gray (1988).
    """
    if not (np.isfinite(rho) and rho >= 0):
        raise UsageError(Fault("duration.describe_rho"))
    episodes.only(cause)
    number = episodes.causes.index(cause)
    names, place = levels(episodes, group)
    size = len(names)
    met = np.bincount(episodes.person * size + place, minlength=len(episodes.person_ids) * size) > 0
    if (moved := int((met.reshape(-1, size).sum(axis=1) > 1).sum())) > 0:
        raise DataError(Fault("duration.describe_group_moves", {"persons": moved}))
    parts = [risk(rows, from_time, label) for rows, label in _strata(episodes, place, from_time)]
    kind = _errors(parts, errors)
    observed, expected, variance = np.zeros(size), np.zeros(size), np.zeros((size, size))
    score = np.zeros((len(episodes.cluster_ids), size))
    for rows in parts:
        _gray_stratum(rows, number, size, rho, kind, observed, expected, variance, score)
    if kind == "influence":
        variance = score.T @ score
    return _tested("gray", cause, names, observed, expected, variance, kind)


def _gray_stratum(
    rows: Risk, number: int, size: int, rho: float, kind: TestErrors, observed: Array, expected: Array, variance: Array,
    score: Array,
) -> None:  # fmt: skip
    """Add a stratum's numbers. Arrays (T, K) by time and group; after and before a time are apart, since they jump."""
    y, own, other = _gray_counts(rows, number, size)
    seen = np.where(y > 0, y, 1.0)
    h_own, h_other = own / seen, other / seen
    stay = np.where(own + other >= y * (1 - 1e-12), np.where(y > 0, 0.0, 1.0), 1 - h_own - h_other)
    after = np.cumprod(stay, axis=0)
    before = np.vstack([np.ones(size), after[:-1]])
    if ((y > 0) & (before == 0)).any():
        raise DesignError(Fault("duration.describe_early_zero_test"))
    gone = np.cumsum(before * h_own, axis=0)
    left = 1 - np.vstack([np.zeros(size), gone[:-1]])
    scaled = np.where(y > 0, y / np.where(before > 0, before, 1.0), 0.0)
    all_scaled = scaled.sum(axis=1)
    share = own.sum(axis=1) / np.where(all_scaled > 0, all_scaled, 1.0)
    common = 1 - np.cumsum(share)
    common_before = np.concatenate([[1.0], common[:-1]])
    w = common_before**rho
    weighted = scaled * left
    observed += w @ own
    expected += (w * own.sum(axis=1)) @ (weighted / np.maximum(weighted.sum(axis=1), 1e-300)[:, None])
    drift = np.where(common_before > 1e-12, share / np.where(common_before > 1e-12, common_before, 1.0), 0.0)
    scores = []
    for r in range(size):
        direct = (w * scaled[:, r])[:, None] * ((np.arange(size) == r) - scaled / all_scaled[:, None])
        steps = np.cumsum(direct * drift[:, None], axis=0)
        rest = steps[-1] - steps
        alive = after[:, r] > 0
        ratio = np.where(alive, common / np.where(alive, after[:, r], 1.0), 0.0)
        first = direct + (1 - ratio)[:, None] * rest
        second = -ratio[:, None] * rest
        inverse = np.where(scaled[:, r] > 0, 1 / np.where(scaled[:, r] > 0, scaled[:, r], 1.0), 0.0)
        if kind == "counts":
            tied = _tie(own.sum(axis=1), all_scaled * before[:, r])
            tied_other = _tie(other[:, r], y[:, r])
            one = first * np.sqrt(inverse * share * tied)[:, None]
            two = second * np.sqrt(inverse * before[:, r] * h_other[:, r] * tied_other)[:, None]
            variance += one.T @ one + two.T @ two
        else:
            scores.append((first * inverse[:, None], second * inverse[:, None], h_own[:, r], h_other[:, r]))
    if kind == "influence":
        score += _gray_influence(rows, number, size, scores)


def _gray_counts(rows: Risk, number: int, size: int) -> tuple[Array, Array, Array]:
    """(T, K) at risk, events of the cause, events of others."""
    y = np.column_stack([rows.labelled(g) for g in range(size)])
    own = np.column_stack([rows.labelled(g, number) for g in range(size)])
    rest = [c for c in range(len(rows.causes)) if c != number]
    other = np.column_stack([sum((rows.labelled(g, c) for c in rest), np.zeros(len(y))) for g in range(size)])
    return y, own, other


def _tie(events: Array, at_risk: Array) -> Array:
    """Gray's factor for events at one time, 1 - (d - 1) / (Y - 1)."""
    several = (events > 1) & (at_risk > 1)
    return np.where(several, np.maximum(1 - (events - 1) / np.where(several, at_risk - 1, 1.0), 0.0), 1.0)


def _gray_influence(rows: Risk, number: int, size: int, scores: list[tuple[Array, Array, Array, Array]]) -> Array:
    """(G, K) by cluster: own event less what was expected over the time at risk, in the person's own group."""
    total = np.zeros((len(rows.cluster_ids), size))
    last = np.maximum(rows.high - 1, 0)
    for r, (first, second, h_own, h_other) in enumerate(scores):
        mine = np.flatnonzero(rows.label == r)
        for k in range(size):
            drift = np.concatenate([[0.0], np.cumsum(first[:, k] * h_own + second[:, k] * h_other)])
            cause, place = rows.cause[mine], last[mine]
            event = np.where(cause == number + 1, first[place, k], np.where(cause > 0, second[place, k], 0.0))
            value = rows.weight[mine] * (event - drift[rows.high[mine]] + drift[rows.low[mine]])
            total[:, k] += np.bincount(rows.cluster[mine], value, len(total))
    return total


def _strata(episodes: Episodes, place: Numbers, from_time: float | None) -> list[tuple[Episodes, Numbers]]:
    """The stretches of each stratum in which someone leaves, with their groups."""
    if from_time is not None and not np.isfinite(from_time):
        raise UsageError(Fault("duration.describe_times"))
    late = episodes.stop > (-np.inf if from_time is None else from_time)
    parts = []
    for number in range(len(episodes.stratum_ids)):
        chosen = np.flatnonzero((episodes.stratum == number) & late)
        if (episodes.cause[chosen] > 0).any():
            parts.append((episodes.take(chosen), place[chosen]))
    if not parts:
        raise DesignError(Fault("duration.describe_no_events", {"first": float(from_time or 0.0)}))
    return parts


def _errors(parts: list[Risk], asked: TestErrors | None) -> TestErrors:
    """How the variance is made. Persons who change group are still independent of each other at every time."""
    plain = all((rows.weight == 1).all() and _once(rows) for rows in parts) and apart(parts)
    if asked is None:
        return "counts" if plain else "influence"
    if asked not in ("counts", "influence") or (asked == "counts" and not plain):
        raise UsageError(Fault("duration.describe_errors", {"known": "counts, influence"}))
    return asked


def _once(rows: Risk) -> bool:
    """Whether every cluster has one event at most and is never twice at risk at one time."""
    if int(np.bincount(rows.cluster).max()) == 1:
        return True
    order = np.lexsort((rows.low, rows.cluster))
    same = np.diff(rows.cluster[order]) == 0
    overlap = same & (rows.low[order][1:] < rows.high[order][:-1])
    return not overlap.any() and int(np.bincount(rows.cluster, rows.cause > 0).max()) <= 1


def _weight(name: Weights, rows: Risk, rho: float, gamma: float) -> Array:
    before = rows.survival[:-1]
    match name:
        case "logrank":
            return np.ones(len(before))
        case "gehan":
            return rows.at_risk
        case "tarone_ware":
            return np.sqrt(rows.at_risk)
        case "peto_peto":
            return before
        case "fleming_harrington":
            return before**rho * (1 - before) ** gamma
    known = "logrank, gehan, tarone_ware, peto_peto, fleming_harrington"
    raise UsageError(Fault("duration.describe_weights", {"known": known}))


def _by_cluster(rows: Risk, own: list[Array]) -> Array:
    """(G, K) influence when an event at each time counts ``own[group]`` (T, K), less the common hazard at risk."""
    size = own[0].shape[1]
    total = np.zeros((len(rows.cluster_ids), size))
    hazard = rows.hazard.sum(axis=1)
    last = np.maximum(rows.high - 1, 0)
    for g, score in enumerate(own):
        mine = np.flatnonzero(rows.label == g)
        drift = np.vstack([np.zeros(size), np.cumsum(score * hazard[:, None], axis=0)])
        event = score[last[mine]] * (rows.cause[mine] > 0)[:, None]
        value = rows.weight[mine, None] * (event - drift[rows.high[mine]] + drift[rows.low[mine]])
        for k in range(size):
            total[:, k] += np.bincount(rows.cluster[mine], value[:, k], len(total))
    return total


def _tested(
    name: str, cause: str, groups: NDArray[Any], observed: Array, expected: Array, variance: Array, errors: TestErrors
) -> GroupTest:
    """U' V^- U over the directions in which V is not nil; DesignError ``duration.describe_no_overlap`` if none is."""
    values, vectors = np.linalg.eigh((variance + variance.T) / 2)
    kept = values > RANK * max(values[-1], 1e-300)
    kept[0] = False
    if not kept.any():
        raise DesignError(Fault("duration.describe_no_overlap"))
    along = vectors[:, kept].T @ (observed - expected)
    statistic, df = float(np.sum(along**2 / values[kept])), int(kept.sum())
    return GroupTest(
        name, cause, groups, frozen(observed), frozen(expected), frozen(variance), statistic, df,
        float(special.chdtrc(df, statistic)), errors,
    )  # fmt: skip
