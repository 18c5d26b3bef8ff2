"""What fitted hazards say: coefficients, tests, criteria, events against those expected, influential persons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from evalkit.duration.fitted import Hazards
from evalkit.duration.histories import Histories
from evalkit.duration.likelihood import log_share, log_share_slope, predictors, rates
from evalkit.effects import Array
from evalkit.errors import DesignError, Fault, UsageError

Numbers = NDArray[np.int64]

RANK = 1e-4
"""Groups of which a combination varies by less than this part of what it would with known coefficients: the fit itself
makes it zero, so that it is no test."""


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of one risk; ``ratio`` is exp(estimate), of hazards (of odds against nothing with a logit).

    A level that was held (nobody has the event in it, or nobody is at risk) has no error: those numbers are NaN.
    """

    risk: str
    name: str
    estimate: float
    ratio: float
    std_error: float
    z: float
    p_value: float
    low: float
    high: float


def coefficients(hazards: Hazards, *, level: float = 0.95, robust: bool = True) -> tuple[Coefficient, ...]:
    """One row a coefficient, risk by risk in the order of their columns; intercepts are left out.

    Parameters
    ----------
    level: of the interval ``low`` to ``high``, on the scale of the estimate. robust: errors from the influence function
        (clustered); otherwise from the observed information.
    """
    error = hazards.std_error if robust else np.sqrt(np.diag(hazards.information))
    width = float(special.ndtri(0.5 + level / 2))
    rows = []
    for k, risk in enumerate(hazards.risks):
        for column, name in enumerate(hazards.names[k]):
            place, b = hazards.offsets[k] + column, float(hazards.theta[k][column])
            se = float(error[place]) if hazards.free[place] else np.nan
            z = b / se if se > 0 else np.nan
            rows.append(
                Coefficient(
                    risk,
                    name,
                    b,
                    float(np.exp(b)),
                    se,
                    z,
                    float(2 * special.ndtr(-abs(z))),
                    b - width * se,
                    b + width * se,
                )  # fmt: skip
            )
    return tuple(rows)


@dataclass(frozen=True)
class Tested:
    """A statistic to be set against chi-square with ``df`` degrees of freedom."""

    statistic: float
    df: int
    p_value: float


def wald(hazards: Hazards, risk: str, names: Sequence[str], *, robust: bool = True) -> Tested:
    """Wald's test that some coefficients of a risk are all zero: ``b' V^-1 b``, V clustered (or model-based).

    Raises
    ------
    UsageError
        ``duration.tables_risk``, ``duration.tables_column`` for unknown names or levels that were held.
    DesignError
        ``duration.tables_clusters`` when there are no more clusters than coefficients.
    """
    if risk not in hazards.risks:
        raise UsageError(Fault("duration.tables_risk", {"risk": risk, "known": ", ".join(hazards.risks)}))
    k = hazards.risks.index(risk)
    at = {name: hazards.offsets[k] + j for j, name in enumerate(hazards.names[k])}
    if bad := [name for name in names if name not in at or not hazards.free[at[name]]]:
        raise UsageError([Fault("duration.tables_column", {"risk": risk, "column": name}) for name in bad])
    place = np.array([at[name] for name in dict.fromkeys(names)], np.int64)
    clusters = len(hazards.influence.ids)
    if robust and clusters <= len(place):
        raise DesignError(Fault("duration.tables_clusters", {"clusters": clusters, "columns": len(place)}))
    vcov = (hazards.influence.vcov if robust else hazards.information)[np.ix_(place, place)]
    b = hazards.packed[place]
    statistic = float(b @ np.linalg.solve(vcov, b))
    return Tested(statistic, len(place), float(stats.chi2.sf(statistic, len(place))))


def likelihood_ratio(small: Hazards, large: Hazards) -> Tested:
    """Twice the difference in log-likelihood of two models, one within the other, of the same people.

    It takes stretches as independent given the model, whatever the clusters. It is no test of the number of mass
    points: under fewer points the extra ones have no place, and the statistic is not chi-square.

    Raises
    ------
    UsageError
        ``duration.tables_not_nested`` when they are not of the same people, risks, link and number of points, or when
        the larger one has no more parameters or a lower likelihood.
    """
    df = large.parameters - small.parameters
    gain = 2 * (large.log_likelihood - small.log_likelihood)
    same = (
        small.persons == large.persons
        and small.risks == large.risks
        and small.link == large.link
        and np.array_equal(small.events, large.events)
        and len(small.shares) == len(large.shares)
    )
    if not same or df < 1 or gain < -1e-8 * abs(large.log_likelihood):
        raise UsageError(Fault("duration.tables_not_nested", {}))
    statistic = max(gain, 0.0)
    return Tested(statistic, df, float(stats.chi2.sf(statistic, df)))


@dataclass(frozen=True)
class Criteria:
    """Information criteria, lower is better; persons are the observations (identical persons counted)."""

    aic: float
    hq: float
    bic: float


def criteria(hazards: Hazards) -> Criteria:
    """``-2 ln L`` plus 2, 2 ln ln N or ln N for each parameter."""
    k, n, fit = hazards.parameters, hazards.persons, -2 * hazards.log_likelihood
    return Criteria(2 * k + fit, 2 * k * float(np.log(np.log(n))) + fit, k * float(np.log(n)) + fit)


@dataclass(frozen=True)
class Expected:
    """Events of one risk in one group, beside what the model expects of those at risk. ``std_error`` is that of
    observed less expected, with the estimated coefficients, clustered."""

    group: int
    exposure: float
    observed: float
    expected: float
    std_error: float


@dataclass(frozen=True)
class Agreement:
    """Observed and expected events by group, and a test of all groups together."""

    risk: str
    rows: tuple[Expected, ...]
    test: Tested


def observed_expected(histories: Histories, hazards: Hazards, risk: str, group: ArrayLike) -> Agreement:
    """Events of a risk against those that a model without hidden groups expects, by groups of stretches.

    In each period someone is expected to have as many events as his chance of one, given that he is at risk then: tau h
    in exact time, ``(h / H)(1 - exp(-H))`` or ``h / (1 + H)`` in each period of grouped time. Observed less expected
    is zero (nearly, with complementary log-log) within the levels of every factor of the model and tests nothing;
    groups that the model does not know show where it is wrong: months, districts, interactions. With ``u_g`` a
    cluster's difference less what estimating the coefficients
    makes of it, ``u_gj = (o - e)_gj - dE_j / dpsi' psi_g``, the test is ``D' (sum u_g u_g')^- D``. It does not need the
    model's variance to be right.

    Parameters
    ----------
    group: (R,) 0..J-1 by stretch, -1: in none.

    Raises
    ------
    UsageError
        ``duration.tables_risk``. ``duration.tables_histories`` when the histories are not those of the model.
    DesignError
        ``duration.points_one`` for a model with hidden groups: see
        :func:`~evalkit.duration.calibration.calibrate`. ``duration.tables_clusters``.
    """
    if risk not in hazards.risks:
        raise UsageError(Fault("duration.tables_risk", {"risk": risk, "known": ", ".join(hazards.risks)}))
    if (
        histories.risks != hazards.risks
        or tuple(d.names for d in histories.designs) != hazards.names
        or not np.array_equal(histories.cluster_ids, hazards.influence.ids)
    ):
        raise UsageError(Fault("duration.tables_histories", {}))
    if len(hazards.shares) > 1:
        raise DesignError(Fault("duration.points_one", {"points": len(hazards.shares)}))
    own = np.asarray(group, np.int64)
    keep = ~histories.before & histories.at_risk[:, hazards.risks.index(risk)] & (own >= 0)
    h, own = histories.take(np.flatnonzero(keep)), own[keep]
    number, groups = hazards.risks.index(risk), int(own.max(initial=-1)) + 1
    expected, slope, periods = _chances(h, hazards, number)
    count = h.count[h.person]
    observed = (h.event == number).astype(float)
    by = np.zeros((groups, len(hazards.packed)))
    for m, design in enumerate(h.designs):
        low, high = hazards.offsets[m], hazards.offsets[m + 1]
        by[:, low:high] = design.sums(count * slope[:, m], own, groups)
        by[:, hazards.offsets[-1] + m] = np.bincount(own, count * slope[:, m], minlength=groups)
    weight = h.score_weight[h.person]
    clusters = len(h.cluster_ids)
    place = h.cluster[h.person] * groups + own
    gap = np.bincount(place, weight * (observed - expected), minlength=clusters * groups).reshape(clusters, groups)
    plain = np.bincount(own, count * (observed - expected) ** 2, minlength=groups)
    moved = gap - hazards.influence.values @ by.T
    vcov: Array = moved.T @ moved
    error = np.sqrt(np.diag(vcov)).tolist()
    sums = np.array([np.bincount(own, count * v, minlength=groups) for v in (periods, observed, expected)], float)
    rows = tuple(Expected(j, float(sums[0, j]), float(sums[1, j]), float(sums[2, j]), error[j]) for j in range(groups))
    return Agreement(risk, rows, _quadratic(sums[1] - sums[2], vcov, np.asarray(plain, float), clusters))


def _chances(h: Histories, hazards: Hazards, number: int) -> tuple[Array, Array, Array]:
    """Expected events (R,) of a risk, their derivatives (R, K) in the linear predictors, periods or time at risk."""
    rate = rates(h.at_risk, predictors(h, hazards))
    slope = np.zeros_like(rate)
    mine = rate[:, number]
    if h.timing == "exact":
        slope[:, number] = h.length * mine
        return h.length * mine, slope, h.length
    same = h.order == h.order[number]
    first = (h.event >= 0) & (h.order[np.maximum(h.event, 0)] < h.order[number])
    periods = h.length - first
    total = rate[:, same].sum(axis=1)
    if hazards.link == "logit":
        chance = mine / (1 + total)
        turn = -chance / (1 + total)
    else:
        chance = mine * np.exp(log_share(total))
        turn = chance * log_share_slope(total)
    slope[:, same] = turn[:, None] * rate[:, same]
    slope[:, number] += chance
    return periods * chance, periods[:, None] * slope, periods


def _quadratic(gap: Array, vcov: Array, plain: Array, clusters: int) -> Tested:
    """``gap' vcov^- gap`` in the directions that the model leaves free."""
    scale = 1 / np.sqrt(np.maximum(plain, 1e-300))
    roots, vectors = np.linalg.eigh(vcov * np.outer(scale, scale))
    free = roots > RANK
    df = int(free.sum())
    if df and clusters <= df:
        raise DesignError(Fault("duration.tables_clusters", {"clusters": clusters, "columns": df}))
    along = vectors[:, free].T @ (scale * gap)
    statistic = float((along**2 / roots[free]).sum())
    return Tested(statistic, df, float(stats.chi2.sf(statistic, df)) if df else np.nan)


@dataclass(frozen=True)
class Influential:
    """A cluster and how far a coefficient would move without it (about), also in standard errors. Microdata: the
    name of a person never leaves the machine."""

    cluster: object
    change: float
    in_errors: float


def most_influential(
    hazards: Hazards, parameter: str, n: int = 10, *, histories: Histories | None = None
) -> tuple[Influential, ...]:
    """The clusters that move a parameter most: minus their influence (dfbeta, one step from the estimate).

    Parameters
    ----------
    parameter: one of ``hazards.labels``, such as ``work:training during``. n: how many.
    histories: those of the fit. When given and clusters are persons, a history that stands for several persons counts
        as one of them; otherwise it counts as the root of their number.

    Raises
    ------
    UsageError
        ``duration.tables_parameter`` for a name that is none, or was held.
    """
    if parameter not in hazards.labels or not hazards.free[hazards.labels.index(parameter)]:
        raise UsageError(Fault("duration.tables_parameter", {"name": parameter}))
    place = hazards.labels.index(parameter)
    error = hazards.std_error[place]
    change = -hazards.influence.values[:, place]
    if histories is not None and histories.level == "person":
        alike = np.ones(len(change))
        alike[histories.cluster] = histories.count
        change = change / np.sqrt(alike)
    order = np.argsort(-np.abs(change), kind="stable")[:n]
    ids = hazards.influence.ids
    return tuple(Influential(ids[i].item(), float(change[i]), float(change[i] / error)) for i in order)
