"""Triple differences: an instrument that reaches only eligible units of the places that have it.

A place (municipality) adopts at some date; only its eligible units are then treated. The trends of eligible and
ineligible units may differ, and so may the trends of places; what must not differ between places is the *gap* of the
two trends. With Y(never) the outcome without treatment, S the date of the place and Q eligible, for covariates x::

    E[dY(never) | S=g, Q=1, x] - E[dY(never) | S=g, Q=0, x] = E[dY(never) | S=c, Q=1, x] - E[dY(never) | S=c, Q=0, x]

The estimand is ATT(g, t) = E[Y_t(g) - Y_t(never) | S = g, Q = 1]: the average effect on the eligible units of cohort g.

Two things that look harmless are wrong (Ortiz-Villavicencio and Sant'Anna 2025). The difference between a
difference-in-differences of eligible units and one of ineligible units averages covariates over two different groups;
all three comparison groups have to be brought to the covariates of the *treated eligible* units. And comparison
cohorts cannot be pooled: a pool of cohorts has another mix of cohorts among its eligible than among its ineligible
units, and their trends may differ. Here the effect is, for one comparison cohort c at a time,

    DiD[(g, eligible) v (g, ineligible)] + DiD[(g, eligible) v (c, eligible)] - DiD[(g, eligible) v (c, ineligible)],

each by :func:`evalkit.did.two_by_two.panel_effects`, and cohorts c are averaged with the weights of least variance.

Source: Ortiz-Villavicencio and Sant'Anna (2025), Better understanding triple differences estimators (arXiv:2505.09942).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evalkit.did.cells import Cells
from evalkit.did.effects import Missing
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.did.two_by_two import panel_effects, section_effects
from evalkit.effects import Array
from evalkit.errors import DesignError, Fault, UsageError

SINGULAR = 1e-8
"""Smallest eigenvalue of the correlation of several comparisons, below which no weights of least variance are
sought."""


def triple(
    panel: Panel,
    eligible: ArrayLike,
    *,
    control: Literal["not_yet", "never"] = "not_yet",
    method: Literal["dr", "reg", "ipw"] = "dr",
    base: Literal["universal", "varying"] = "universal",
    anticipation: int = 0,
) -> Cells:
    """Triple difference effects of cohorts in periods, with the influence of every unit.

    Parameters
    ----------
    panel: ``first`` is the date of the unit's *place*, for its ineligible units too. Units of a panel that are not
        seen in every period are left out; repeated cross-sections are possible. Places that have it from the first
        period on are left out. Covariates and weights of a panel are those of the earlier of a cell's two periods.
    eligible: (N,) whether a unit is reached once its place has it; fixed over time.
    control: ``never``: compare with places that never adopt. ``not_yet``: also with every cohort that adopts later
        than the period and the base period (plus ``anticipation``), each by itself; the estimates are averaged with
        the weights of least variance ``w = V^-1 1 / (1' V^-1 1)``, V their covariance. With V nearly singular (few
        clusters) the weights are proportional to 1 / variance.
    method: ``dr`` doubly robust: right if, for each comparison, either the model of its outcome changes or that of its
        score is. ``reg``, ``ipw`` rest on the one or the other. Without covariates all three are differences of means.
    base: ``universal``: the last period before ``g - anticipation``, a cell of zero. ``varying``: before that, the
        period before the cell's.

    Returns
    -------
    Cells whose panel holds ``NEVER`` as the date of ineligible units, so that averages weight cohorts by their eligible
    units. ``n_treated`` counts eligible units of the cohort; ``n_comparison`` the units of the other groups.

    Raises
    ------
    UsageError
        ``did.triple_setting``; ``did.triple_mask``: not one value a unit.
    DesignError
        ``did.triple_both``: no eligible or no ineligible units. ``did.triple_no_cohort``: no cohort with eligible and
        ineligible units and a period before. ``did.triple_no_comparison``: no cohort to compare with that has both.
        ``did.triple_nothing``: no cell is estimable.
    """
    for name, value, allowed in (
        ("control", control, ("not_yet", "never")),
        ("method", method, ("dr", "reg", "ipw")),
        ("base", base, ("universal", "varying")),
    ):
        if value not in allowed:
            raise UsageError(Fault("did.triple_setting", {"setting": name, "allowed": ", ".join(allowed)}))
    if anticipation < 0:
        raise UsageError(Fault("did.triple_setting", {"setting": "anticipation", "allowed": "0, 1, .."}))
    panel, mask = _usable(panel, eligible, anticipation)
    both = [int(c) for c in np.unique(panel.first) if len(set(mask[panel.first == c].tolist())) == 2]
    cohorts = [c for c in both if c < NEVER]
    if not cohorts:
        raise DesignError(Fault("did.triple_no_cohort", {}))
    others = [c for c in both if control == "not_yet" or c == NEVER]
    if not any(c > cohorts[0] for c in others):
        raise DesignError(Fault("did.triple_no_comparison", {}))
    source = _Changes.of(panel, mask, method)
    parts = [_cohort(source, g, others, base, anticipation) for g in cohorts]
    filled = [cell for part in parts for cell in part]
    if not any(np.isfinite(cell.estimate) and not cell.base for cell in filled):
        code = Counter(cell.code for cell in filled if cell.code).most_common(1)
        fault = Fault("did.triple_nothing", {"cells": sum(not cell.base for cell in filled)})
        raise DesignError([fault, *(Fault(f"did.{name}") for name, _ in code)])
    return Cells(
        panel.with_first(np.where(mask, panel.first, NEVER)),
        np.array([cell.group for cell in filled]),
        np.array([cell.time for cell in filled]),
        np.array([cell.estimate for cell in filled]),
        np.array([cell.mean - cell.estimate for cell in filled]),
        np.array([cell.n[0] for cell in filled]),
        np.array([cell.n[1] for cell in filled]),
        np.column_stack([cell.influence for cell in filled]),
        np.array([cell.base for cell in filled]),
        tuple(Missing(cell.group, cell.time, cell.code) for cell in filled if cell.code),
        f"influence function, clustered on {panel.level}",
    )


def _usable(panel: Panel, eligible: ArrayLike, anticipation: int) -> tuple[Panel, Mask]:
    mask = np.asarray(eligible)
    if mask.shape != (panel.units,) or not np.isin(mask, (0, 1)).all():
        raise UsageError(Fault("did.triple_mask", {"units": panel.units}))
    mask = mask.astype(bool)
    keep = panel.first > panel.periods[0] + anticipation
    if not panel.repeated and not panel.balanced:
        keep &= np.bincount(panel.unit, minlength=panel.units) == len(panel.periods)
    if not keep.any():
        raise DesignError(Fault("did.triple_no_cohort", {}))
    panel, mask = panel.take_units(keep), mask[keep]
    if mask.all() or not mask.any():
        raise DesignError(Fault("did.triple_both", {"eligible": int(mask.sum()), "units": panel.units}))
    return panel, mask


@dataclass(frozen=True)
class _Cell:
    group: int
    time: int
    estimate: float
    mean: float
    n: tuple[int, int]
    influence: Array
    base: bool
    code: str


@dataclass(frozen=True)
class _Found:
    """Estimates (L,) for pairs of periods, influence (L, N) of the panel's units, why there is none."""

    estimate: Array
    influence: Array
    code: str


@dataclass(frozen=True)
class _Changes:
    """Compares two groups of units between pairs of periods."""

    panel: Panel
    eligible: Mask
    method: Literal["dr", "reg", "ipw"]
    x: Array  # (n, P), standardised: estimates do not depend on it, rounding errors do
    fixed: bool  # covariates and weights do not change within units: one model serves all periods
    moment: tuple[Numbers, ...]  # rows of a cross-section by period

    @classmethod
    def of(cls, panel: Panel, eligible: Mask, method: Literal["dr", "reg", "ipw"]) -> _Changes:
        mean, spread = panel.x.mean(axis=0), panel.x.std(axis=0)
        told = spread > 1e-12 * np.abs(mean)
        x = np.where(told, (panel.x - mean) / np.where(told, spread, 1.0), 0.0)
        if panel.repeated:
            rows = tuple(np.flatnonzero(panel.time == t) for t in range(len(panel.periods)))
            return cls(panel, eligible, method, x, False, rows)
        cube = np.column_stack([x, panel.weight]).reshape(panel.units, len(panel.periods), -1)
        return cls(panel, eligible, method, x, bool((cube == cube[:, :1]).all()), ())

    def group(self, first: int, eligible: bool) -> Numbers:
        return np.flatnonzero((self.panel.first == first) & (self.eligible == eligible))

    def mean(self, units: Numbers, time: int) -> float:
        """Mean outcome of units in a period."""
        if self.panel.repeated:
            rows = self.moment[time][np.isin(self.moment[time], units)]
        else:
            rows = units * len(self.panel.periods) + time
        if not len(rows) or self.panel.weight[rows].sum() <= 0:
            return np.nan
        return float(np.average(self.panel.outcome[rows], weights=self.panel.weight[rows]))

    def compare(self, one: Numbers, two: Numbers, pairs: list[tuple[int, int]]) -> _Found:
        """Effects on ``one`` with ``two`` as comparison, from the second of each pair of periods to the first."""
        if self.panel.repeated:
            return _stack([self._sections(one, two, now, before) for now, before in pairs])
        if not self.fixed and len(pairs) > 1:
            return _stack([self.compare(one, two, [pair]) for pair in pairs])
        units = np.concatenate([one, two])
        y = self.panel.wide()[units]
        now, before = np.array(pairs).T
        row = units * len(self.panel.periods) + int(min(now[0], before[0]))
        found = panel_effects(
            np.ascontiguousarray((y[:, now] - y[:, before]).T), len(one), np.ascontiguousarray(self.x[row].T),
            self.panel.weight[row], self.method,
        )  # fmt: skip
        influence = np.zeros((len(pairs), self.panel.units))
        influence[:, units] = found.influence
        return _Found(found.estimate, influence, found.code)

    def _sections(self, one: Numbers, two: Numbers, now: int, before: int) -> _Found:
        blocks = [np.intersect1d(self.moment[t], who, assume_unique=True) for who in (one, two) for t in (now, before)]
        rows = np.concatenate(blocks)
        a, b, c, d = map(len, blocks)
        found = section_effects(
            self.panel.outcome[rows], (a, b, c, d), np.ascontiguousarray(self.x[rows].T), self.panel.weight[rows],
            self.method,
        )  # fmt: skip
        influence = np.zeros((1, self.panel.units))
        influence[:, rows] = found.influence
        return _Found(found.estimate, influence, found.code)


def _stack(parts: list[_Found]) -> _Found:
    code = next((part.code for part in parts if part.code), "")
    return _Found(
        np.concatenate([p.estimate for p in parts]), np.concatenate([p.influence for p in parts]), code
    )  # fmt: skip


def _cohort(source: _Changes, g: int, others: list[int], base: str, anticipation: int) -> list[_Cell]:
    """All cells of a cohort."""
    panel = source.panel
    anchor = int(np.searchsorted(panel.periods, g - anticipation)) - 1
    treated, beside = source.group(g, True), source.group(g, False)
    pairs = []
    for t in range(len(panel.periods)):
        if base == "varying" and t <= anchor:
            if t:
                pairs.append((t, t - 1))
        else:
            pairs.append((t, anchor))
    told = [pair for pair in pairs if pair[0] != pair[1]]
    own = source.compare(treated, beside, told)
    lines = {pair: line for line, pair in enumerate(told)}
    after = {pair: int(max(panel.periods[pair[0]], panel.periods[pair[1]])) + anticipation for pair in told}
    of_cohort: dict[int, tuple[list[tuple[int, int]], _Found, int]] = {}
    for c in others:
        usable = [pair for pair in told if c > after[pair] and c != g]
        if usable:
            members = [source.group(c, True), source.group(c, False)]
            ours, theirs = (source.compare(treated, member, usable) for member in members)
            found = _Found(
                ours.estimate - theirs.estimate, ours.influence - theirs.influence, ours.code or theirs.code
            )  # fmt: skip
            of_cohort[c] = (usable, found, sum(map(len, members)))
    cells = []
    for pair in pairs:
        time, mean = int(panel.periods[pair[0]]), source.mean(treated, pair[0])
        if pair[0] == pair[1]:
            cells.append(_Cell(g, time, 0.0, mean, (len(treated), len(beside)), np.zeros(panel.units), True, ""))
            continue
        line = lines[pair]
        estimates, influences, count, code = [], [], len(beside), own.code
        for usable, found, members_of in of_cohort.values():
            if pair in usable:
                place = usable.index(pair)
                value = own.estimate[line] + found.estimate[place]
                if np.isfinite(value):
                    estimates.append(value)
                    influences.append(own.influence[line] + found.influence[place])
                    count += members_of
                else:
                    code = code or found.code
        if not estimates:
            code = code or "cell_no_comparison"
            cells.append(_Cell(g, time, np.nan, mean, (len(treated), 0), np.zeros(panel.units), False, code))
            continue
        columns = np.column_stack(influences)
        w = _weights(panel, columns)
        cells.append(_Cell(g, time, float(w @ estimates), mean, (len(treated), count), columns @ w, False, ""))
    if not any(np.isfinite(cell.estimate) and not cell.base for cell in cells):
        cells = [
            _Cell(c.group, c.time, np.nan, c.mean, c.n, c.influence, c.base, c.code) for c in cells
        ]  # a zero alone says nothing
    return cells


def _weights(panel: Panel, influence: Array) -> Array:
    """Weights of least variance of estimates of the same number."""
    if influence.shape[1] == 1:
        return np.ones(1)
    summed = np.zeros((len(panel.cluster_ids), influence.shape[1]))
    np.add.at(summed, panel.cluster, influence)
    variance = summed.T @ summed
    scale = np.sqrt(np.diag(variance))
    if not (scale > 0).all():
        return np.full(len(scale), 1.0 / len(scale))
    correlation = variance / np.outer(scale, scale)
    if np.linalg.eigvalsh(correlation)[0] > SINGULAR:
        weights = np.linalg.solve(correlation, 1.0 / scale) / scale
    else:
        weights = 1.0 / scale**2
    return np.asarray(weights / weights.sum())
