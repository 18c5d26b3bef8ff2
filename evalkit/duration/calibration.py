"""Does a model of hazards expect the exits that happened, month by month; do covariates work alike early and late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evalkit.duration.fitted import Hazards
from evalkit.duration.histories import Histories
from evalkit.duration.likelihood import bends, chances, predictors, stretches, summed
from evalkit.duration.spells import Layout
from evalkit.duration.terms import Terms
from evalkit.effects import Array, frozen
from evalkit.errors import DesignError, Fault

Numbers = NDArray[np.int64]

CHUNK = 20_000
"""Persons that are written out by month at a time."""


@dataclass(frozen=True)
class Calibration:
    """Exits by elapsed month (M,) and destination (J).

    Attributes
    ----------
    at_risk: (M,) spells at risk. observed: (M, J) exits. expected: (M, J) what the model expects of them.
    variance: (M, J) of observed exits about the expected ones, if the model is right (binomial, parameters known).
    """

    at_risk: Array
    observed: Array
    expected: Array
    variance: Array

    def __post_init__(self) -> None:
        for name in ("at_risk", "observed", "expected", "variance"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


def calibrate(
    layout: Layout, hazards: Hazards, *, group: NDArray[np.integer] | None = None, groups: int = 1
) -> tuple[Calibration, ...]:
    """Observed and expected exits by elapsed month, in each group of spells (S,) in 0..groups - 1.

    The expectation is that of a person at risk in the month. With hidden groups his rates are averaged over their
    chances given all that happened to him before it: earlier spells, months survived in this one, and whether and when
    the instrument started.
    """
    spells = layout.spells
    months, causes = int(spells.stop.max(initial=0)), len(spells.causes)
    own = np.zeros(len(spells), np.int64) if group is None else np.asarray(group, np.int64)
    table = np.zeros((4, groups, months, causes))
    bounds = np.searchsorted(spells.person, np.arange(0, int(spells.person.max(initial=-1)) + 1 + CHUNK, CHUNK))
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        for row, month, chance in _months(layout, hazards, np.arange(low, high)):
            seen = month >= spells.entry[row]
            place = (own[row] * months + month)[seen]
            ends = (month + 1 == spells.stop[row]) & (spells.cause[row] >= 0)
            for j in range(causes):
                happened = (ends & (spells.cause[row] == j))[seen].astype(float)
                p = chance[seen, j]
                for part, values in zip(table, (np.ones(len(p)), happened, p, p * (1 - p)), strict=True):
                    sums = np.bincount(place, values, minlength=groups * months).reshape(groups, months)
                    part[:, :, j] += sums
    return tuple(Calibration(table[0, g, :, 0], *table[1:, g]) for g in range(groups))


def _months(layout: Layout, hazards: Hazards, rows: Numbers) -> Iterator[tuple[Numbers, Numbers, Array]]:
    """Spell, elapsed month and chance of each exit (n, J) of all months of some spells, whole persons at a time."""
    spells = layout.spells
    if not len(rows):
        return
    length = spells.stop[rows]
    row = np.repeat(rows, length)
    month = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    since = [np.where(started[row] <= month, month - started[row], -1) for started in spells.started]
    exits = layout.exits(row, month, since)
    causes = len(spells.causes)
    eta = np.column_stack([exits.predict(hazards.theta[j]) for j in range(causes)])
    if len(hazards.shares) == 1:
        yield row, month, chances(np.exp(eta + hazards.points[0, :causes]), hazards.link)
        return
    starts = [(k, n, layout.starts(n, row, month, since)) for k, n in enumerate(layout.modelled, causes)]
    ended = (month + 1 == spells.stop[row]) & (spells.cause[row] >= 0)
    person = spells.person[row]
    head = np.flatnonzero(np.r_[True, np.diff(person) > 0])
    log_weight = np.tile(np.log(hazards.shares), (len(row), 1))
    by_point = []
    for q in range(len(hazards.shares)):
        p = chances(np.exp(eta + hazards.points[q, :causes]), hazards.link)
        by_point.append(p)
        cause = np.maximum(spells.cause[row], 0)
        with np.errstate(divide="ignore"):
            what = np.where(ended, np.log(p[np.arange(len(row)), cause]), np.log1p(-p.sum(axis=1)))
        for k, number, design in starts:
            h = np.exp(design.predict(hazards.theta[k]) + hazards.points[q, k])
            begins = spells.started[number][row] == month + 1
            waits = (spells.started[number][row] > month + 1) & ~ended
            if hazards.link == "logit":
                stay, go = -np.log1p(h), np.log(h) - np.log1p(h)
            else:
                stay, go = -h, np.log(-np.expm1(-h))
            what += np.where(begins & ~ended, go, np.where(waits, stay, 0.0))
        total = np.cumsum(what) - what
        log_weight[:, q] += total - np.repeat(total[head], np.diff(np.append(head, len(row))))
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    yield row, month, np.einsum("rq,qrj->rj", weight, np.array(by_point))


@dataclass(frozen=True)
class Proportional:
    """A test that some columns of a hazard work alike early and late: score statistic, degrees of freedom, p-value."""

    name: str
    statistic: float
    df: int
    p_value: float


def proportional(
    histories: Histories, hazards: Hazards, risk: str, columns: dict[str, tuple[int, ...]], late: NDArray[np.bool_]
) -> tuple[Proportional, ...]:
    """Score tests of products of covariates with being late in the spell, for one risk of a model with one point.

    The score of the added columns at the fitted model, less what estimating the others makes of it, by cluster:
    ``u_g = U_zg - I_zt psi_g``, with psi the influence of the parameters; ``U' (sum_g u_g u_g')^-1 U`` is chi-square.
    The model is not fitted again. Robust: it does not rest on the information equality.

    Parameters
    ----------
    columns: by name the columns of the risk's design that are tested together. late: (R,) stretches that are late.

    Raises
    ------
    DesignError
        ``duration.points_one`` for a model with hidden groups.
    """
    if len(hazards.shares) > 1:
        raise DesignError(Fault("duration.points_one", {"points": len(hazards.shares)}))
    keep = ~histories.before
    own, late = histories.take(keep), np.asarray(late, bool)[keep]
    number = hazards.risks.index(risk)
    eta = predictors(own, hazards)
    _, score = stretches(own, eta, hazards.link)
    a, b = bends(own, eta, hazards.link)
    count = own.count[own.person]
    design = own.designs[number]
    mine = np.where(own.at_risk[:, number] & late, score[:, number], 0.0)
    by_cluster = summed(own, design.sums(mine, own.person, own.persons))
    total = design.sums(mine * count)[0]
    for k, other in enumerate(own.designs):
        if own.order[k] != own.order[number]:
            continue
        weight = count * late * ((a[:, number] if k == number else 0.0) - b[:, number] * b[:, k])
        cross = np.column_stack([design.products(weight, other), design.sums(weight)[0]])
        at = np.r_[np.arange(hazards.offsets[k], hazards.offsets[k + 1]), hazards.offsets[-1] + k]
        by_cluster -= hazards.influence.values[:, at] @ cross.T
    found = []
    for name, place in columns.items():
        values = by_cluster[:, list(place)]
        vcov = values.T @ values
        rank = int(np.linalg.matrix_rank(vcov, hermitian=True))
        if not rank:
            continue
        statistic = float(total[list(place)] @ np.linalg.pinv(vcov, hermitian=True) @ total[list(place)])
        found.append(Proportional(name, statistic, rank, float(stats.chi2.sf(statistic, rank))))
    return tuple(found)


def late_stretches(design: Terms, from_month: int) -> NDArray[np.bool_]:
    """(R,) stretches in a step of the baseline that begins in ``from_month`` or later, from the names of the steps."""
    late = []
    for column, name in enumerate(design.names):
        head, _, span = name.partition(" ")
        if head == "month" and span[:1].isdigit() and int(span.rstrip("+").split("-")[0]) >= from_month:
            late.append(column)
    return np.asarray(np.isin(design.codes, late).any(axis=1), np.bool_)
