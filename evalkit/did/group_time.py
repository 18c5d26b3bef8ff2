"""Effects of cohorts in periods by two-by-two comparisons with units not yet treated (Callaway and Sant'Anna 2021).

ATT(g, t) = E[Y_t(g) - Y_t(never) | G = g]: the average effect in period t on the units first treated in g. It is
identified by (conditional) parallel trends between cohort g and the comparison group from the base period on, and by no
anticipation more than ``anticipation`` before treatment.

Source: Callaway and Sant'Anna (2021), Journal of Econometrics 225: 200-230.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evalkit.did.cells import Cells
from evalkit.did.effects import Missing
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.did.two_by_two import Method, TwoByTwo, panel_effects, section_effects
from evalkit.effects import Array
from evalkit.errors import DesignError, Fault, UsageError

Control = Literal["not_yet", "never"]
Base = Literal["universal", "varying"]
Unbalanced = Literal["complete", "by_pair", "cross_sections"]


def group_time(
    panel: Panel,
    *,
    control: Control = "not_yet",
    method: Method = "dr",
    base: Base = "universal",
    anticipation: int = 0,
    unbalanced: Unbalanced = "complete",
    smallest: int = 1,
) -> Cells:
    """Effects of every cohort in every period, with the influence of every unit.

    Parameters
    ----------
    panel:
        Units over periods, or repeated cross-sections. Units that are treated from the first period on (less
        ``anticipation``) have no period before and are dropped. ``panel.weight`` are sampling weights, or persons.
    control:
        ``not_yet``: units that are treated later than both the period and the base period (plus ``anticipation``), or
        never; not the cohort itself. ``never``: units that are not treated within the periods.
    method:
        See :mod:`evalkit.did.two_by_two`; without covariates all are ``means``. For a panel, covariates and weights
        are those of the earlier calendar period of the two; for cross-sections those of each row.
    base:
        ``universal``: every period is compared with the last one before g - ``anticipation``, which is a cell of zero.
        ``varying``: a period before g - ``anticipation`` is compared with the one before it, so that such a cell is a
        one-period placebo. Later periods are the same.
    anticipation:
        Periods before treatment, on the scale of the periods, in which it may already have an effect.
    unbalanced:
        What to do with units that are not seen in every period; no part in repeated cross-sections.
        ``complete``: leave them out (the R package did by default). Every cell describes the same units.
        ``by_pair``: use a unit in a cell when it is seen in both its periods (csdid in Stata). Cells describe
        different units; within a cell every unit is its own comparison over time.
        ``cross_sections``: treat rows as repeated cross-sections and sum the influence to units (did with
        ``allow_unbalanced_panel``). All rows are used, but a cell then also compares different units over time:
        who is seen when must have nothing to do with the outcome. Without gaps it is a panel all the same.
        The shares of cohorts (:attr:`Cells.unit_weight`) count every unit left in ``Cells.panel``. Stata's csdid
        weights a cell by the units in that cell instead, so its averages differ where units are missing.
    smallest:
        Cohorts of fewer units are not estimated. With one treated (or one comparison) unit in a cell the estimate
        exists, but the standard error leaves out how that unit varies and is too small; such a cell is listed in
        ``missing`` under ``cell_lone``.

    Returns
    -------
    Cells, by cohort and period. Not estimable cells have NaN and a reason in ``missing``: ``cell_no_treated``,
    ``cell_no_comparison``, ``cell_small``, ``cell_singular`` (covariates that the comparison group cannot tell apart),
    ``cell_separated`` (covariates that tell treated units apart without error) and ``cell_no_overlap`` (a chance of
    treatment of 0.999 or more). Listed although the estimate stands: ``cell_lone``, and ``cell_trimmed`` (comparison
    units with a chance of 0.995 or more have no weight).

    Raises
    ------
    UsageError
        ``did.group_time_setting``.
    DesignError
        ``did.group_time_nobody``: nobody is treated within the periods. ``did.group_time_no_before``: all treated units
        are treated from the first period on. ``did.group_time_no_complete``: no treated unit is seen in every period.
        ``did.group_time_no_never``: no never treated units while ``control`` asks for them. ``did.group_time_at_once``:
        everyone is treated, all at once. ``did.group_time_nothing``: no cell is estimable; the reasons follow it.
    """
    _check(control, method, base, anticipation, unbalanced, smallest)
    panel = _usable(panel, control, anticipation, unbalanced)
    plan = _Plan.of(panel, control, base, anticipation)
    rows = panel.repeated or not (panel.balanced or unbalanced == "by_pair")
    fitted = _Filled.empty(panel, len(plan.group))
    columns = 0 if method == "means" else len(panel.names)
    source: _Sections | _Wide = _Sections.of(panel, columns) if rows else _Wide.of(panel, columns)
    source.fill(plan, fitted, method, smallest)
    if not (np.isfinite(fitted.estimate) & ~plan.base).any():
        reasons = Counter(code for code, base_cell in zip(fitted.code, plan.base, strict=True) if not base_cell)
        faults = [Fault("did.group_time_nothing", {"cells": int((~plan.base).sum())})]
        raise DesignError(faults + [Fault(f"did.{code}") for code, _ in reasons.most_common() if code])
    _anchor(plan, fitted)
    missing = tuple(
        Missing(int(g), int(t), code)
        for g, t, first, second in zip(plan.group, plan.time, fitted.code, fitted.note, strict=True)
        for code in (first, second)
        if code
    )
    return Cells(
        panel, plan.group, plan.time, fitted.estimate, fitted.counterfactual, fitted.n_treated, fitted.n_comparison,
        fitted.influence.T, plan.base, missing, f"influence function, clustered on {panel.level}",
    )  # fmt: skip


def _check(control: str, method: str, base: str, anticipation: int, unbalanced: str, smallest: int) -> None:
    choices: tuple[tuple[str, str, Any], ...] = (
        ("control", control, Control), ("method", method, Method), ("base", base, Base),
        ("unbalanced", unbalanced, Unbalanced),
    )  # fmt: skip
    for name, value, allowed in choices:
        if value not in get_args(allowed):
            raise UsageError(
                Fault("did.group_time_setting", {"setting": name, "allowed": ", ".join(get_args(allowed))})
            )
    for name, number, least in (("anticipation", anticipation, 0), ("smallest", smallest, 1)):
        if int(number) != number or number < least:
            raise UsageError(Fault("did.group_time_setting", {"setting": name, "allowed": f"{least}, {least + 1}, .."}))


def _usable(panel: Panel, control: Control, anticipation: int, unbalanced: Unbalanced) -> Panel:
    """The units that the design can use; refused when there is no design."""
    if not len(panel.cohorts):
        raise DesignError(Fault("did.group_time_nobody"))
    panel = panel.without_always_treated(anticipation)[0]
    if not len(panel.cohorts):
        raise DesignError(Fault("did.group_time_no_before", {"anticipation": anticipation}))
    if not panel.repeated and not panel.balanced and unbalanced == "complete":
        panel = panel.complete()[0]
        if not len(panel.cohorts):
            raise DesignError(Fault("did.group_time_no_complete"))
    never = bool((panel.first == NEVER).any())
    if control == "never" and not never:
        raise DesignError(Fault("did.group_time_no_never"))
    if not never and len(panel.cohorts) == 1:
        raise DesignError(Fault("did.group_time_at_once"))
    return panel


@dataclass(frozen=True)
class _Plan:
    """The cells: cohort, period, numbers of the period and of its base, and after which period comparison units start.

    ``after`` is NEVER - 1 when they are never treated.
    """

    group: Numbers
    time: Numbers
    now: Numbers
    before: Numbers
    after: Numbers
    base: Mask

    @classmethod
    def of(cls, panel: Panel, control: Control, base: Base, anticipation: int) -> _Plan:
        cells: list[tuple[int, int, int]] = []
        for g in panel.cohorts:
            anchor = int(np.searchsorted(panel.periods, g - anticipation)) - 1
            for t in range(len(panel.periods)):
                if base == "varying" and t <= anchor:
                    if t:
                        cells.append((int(g), t, t - 1))
                else:
                    cells.append((int(g), t, anchor))
        group, now, before = np.array(cells, np.int64).T
        time = panel.periods[now]
        after = np.maximum(time, panel.periods[before]) + anticipation
        if control == "never":
            after = np.full(len(group), NEVER - 1)
        return cls(group, time, now, before, after, now == before)


@dataclass(frozen=True)
class _Filled:
    """What the cells are filled with, one after another; influence is (C, N) here so that a cell is contiguous."""

    estimate: Array
    counterfactual: Array
    mean: Array
    n_treated: Numbers
    n_comparison: Numbers
    influence: Array
    code: list[str]
    note: list[str]

    @classmethod
    def empty(cls, panel: Panel, cells: int) -> _Filled:
        missing, none = np.full(cells, np.nan), np.zeros(cells, np.int64)
        influence = np.zeros((cells, panel.units))
        return cls(
            missing, missing.copy(), missing.copy(), none, none.copy(), influence, [""] * cells, [""] * cells
        )  # fmt: skip

    def put(self, cell: int, found: TwoByTwo, line: int, mean: float, n: tuple[int, int]) -> None:
        """Everything but the influence."""
        self.estimate[cell] = found.estimate[line]
        self.mean[cell] = mean
        self.counterfactual[cell] = mean - found.estimate[line]
        self.n_treated[cell], self.n_comparison[cell] = n
        self.code[cell] = found.code
        if not found.code:
            self.note[cell] = "cell_lone" if min(n) == 1 else "cell_trimmed" if found.trimmed else ""


def _anchor(plan: _Plan, fitted: _Filled) -> None:
    """A base cell is zero where its cohort has any other estimate to go with it, and has no reason of its own."""
    of_cohort = np.unique(plan.group[np.isfinite(fitted.estimate) & ~plan.base])
    for cell in np.flatnonzero(plan.base):
        if plan.group[cell] not in of_cohort:
            fitted.estimate[cell] = fitted.counterfactual[cell] = np.nan
        elif np.isnan(fitted.estimate[cell]):
            fitted.estimate[cell], fitted.counterfactual[cell] = 0.0, fitted.mean[cell]
        fitted.code[cell] = fitted.note[cell] = ""


def _parts(first: Numbers, group: int, after: int) -> tuple[slice, list[slice]]:
    """Where the cohort and its comparison units, those later than ``after``, are among units sorted by ``first``."""
    low, high = (int(i) for i in np.searchsorted(first, [group, group + 1]))
    start, end = int(np.searchsorted(first, after, side="right")), len(first)
    others = [slice(start, low), slice(high, end)] if start < high else [slice(start, end)]
    return slice(low, high), [part for part in others if part.stop > part.start]


def _join(values: NDArray[Any], parts: list[slice]) -> NDArray[Any]:
    """Columns of several slices side by side."""
    return np.concatenate([values[..., part] for part in parts], axis=-1)


def _standard(x: Array, axis: int | tuple[int, ...]) -> Array:
    """Covariates with mean 0 and standard deviation 1: the estimates do not depend on it, rounding errors do."""
    if not x.size:
        return x
    centre = np.nanmean(x, axis=axis, keepdims=True)
    scale = np.nanstd(x, axis=axis, keepdims=True)
    constant = scale <= 1e-12 * np.abs(centre)
    return np.where(constant, 0.0 * x, (x - centre) / np.where(constant, 1.0, scale))  # a constant is refused later


@dataclass(frozen=True)
class _Wide:
    """Periods by units (T, N), units sorted by cohort, ``order`` their numbers.

    Covariates (P, N) and weights (N,) when they do not change, otherwise (T, P, N) and (T, N). ``seen`` is None when
    every unit is seen in every period; otherwise absent values are NaN.
    """

    order: Numbers
    first: Numbers
    y: Array
    x: Array
    weight: Array
    seen: Mask | None

    @classmethod
    def of(cls, panel: Panel, columns: int) -> _Wide:
        order = np.argsort(panel.first, kind="stable")
        first = panel.first[order]
        units, periods = panel.units, len(panel.periods)
        given = panel.x[:, :columns]
        if panel.balanced:
            y = np.ascontiguousarray(panel.wide()[order].T)
            weight = panel.wide(panel.weight)
            weight = weight[order, 0] if (weight == weight[:, :1]).all() else np.ascontiguousarray(weight[order].T)
            cube = given.reshape(units, periods, columns)
            if (cube == cube[:, :1]).all():
                return cls(order, first, y, _standard(np.ascontiguousarray(cube[order, 0].T), 1), weight, None)
            x = np.ascontiguousarray(cube[order].transpose(1, 2, 0))
            return cls(order, first, y, _standard(x, (0, 2)), weight, None)
        rank = np.empty(units, np.int64)
        rank[order] = np.arange(units)
        place = (panel.time, rank[panel.unit])
        y, weight = np.full((periods, units), np.nan), np.full((periods, units), np.nan)
        x = np.full((periods, units, columns), np.nan)
        y[place], weight[place], x[place] = panel.outcome, panel.weight, given
        x = _standard(np.ascontiguousarray(x.transpose(0, 2, 1)), (0, 2))
        return cls(order, first, y, x, weight, np.isfinite(y))

    def fill(self, plan: _Plan, fitted: _Filled, method: Method, smallest: int) -> None:
        """All cells. Those with the same units and covariates go together: one model of each kind serves them all."""
        fixed = self.x.ndim == 2 and self.weight.ndim == 1
        starts = np.searchsorted(self.first, plan.after, side="right")
        together: dict[tuple[int, ...], list[int]] = {}
        for cell, (group, now, before) in enumerate(zip(plan.group, plan.now, plan.before, strict=True)):
            early = 0 if fixed else min(now, before)
            pair = () if self.seen is None else (now, before)
            together.setdefault((int(group), int(starts[cell]), early, *pair), []).append(cell)
        for (group, _, early, *_), cells in together.items():
            treated, others = _parts(self.first, group, int(plan.after[cells[0]]))
            self._fit(plan, fitted, method, smallest, np.array(cells), [treated, *others], early)

    def _fit(
        self,
        plan: _Plan,
        fitted: _Filled,
        method: Method,
        smallest: int,
        cells: Numbers,
        parts: list[slice],
        early: int,
    ) -> None:
        rows = _join(self.order, parts)
        x = _join(self.x if self.x.ndim == 2 else self.x[early], parts)
        weight = _join(self.weight if self.weight.ndim == 1 else self.weight[early], parts)
        latest, delta = np.empty((len(cells), parts[0].stop - parts[0].start)), np.empty((len(cells), len(rows)))
        for line, cell in enumerate(cells):
            now, before = self.y[plan.now[cell]], self.y[plan.before[cell]]
            latest[line] = now[parts[0]]
            at = 0
            for part in parts:
                end = at + part.stop - part.start
                np.subtract(now[part], before[part], out=delta[line, at:end])
                at = end
        treated = whole = latest.shape[1]
        if self.seen is not None:  # a pair of periods at a time
            both = np.isfinite(delta[0])
            latest = latest[:, both[:treated]]
            treated = latest.shape[1]
            rows, delta, x, weight = rows[both], delta[:, both], x[:, both], weight[both]
        if whole < smallest:
            found = TwoByTwo(np.full(len(cells), np.nan), delta, "cell_small")
        else:
            found = panel_effects(delta, treated, x, weight, method)
        total = weight[:treated].sum()
        mean = latest @ weight[:treated] / total if total > 0 else np.full(len(cells), np.nan)
        for line, cell in enumerate(cells):
            fitted.put(int(cell), found, line, float(mean[line]), (treated, len(rows) - treated))
            if not found.code and not plan.base[cell]:
                fitted.influence[cell, rows] = found.influence[line]


@dataclass(frozen=True)
class _Sections:
    """Rows sorted by period and cohort; ``edge`` (T + 1,) where the periods begin."""

    unit: Numbers
    first: Numbers
    edge: Numbers
    y: Array
    x: Array
    weight: Array
    repeated: bool

    @classmethod
    def of(cls, panel: Panel, columns: int) -> _Sections:
        first = panel.first[panel.unit]
        order = np.lexsort((first, panel.time))
        edge = np.searchsorted(panel.time[order], np.arange(len(panel.periods) + 1))
        x = _standard(np.ascontiguousarray(panel.x[order, :columns].T), 1)
        return cls(panel.unit[order], first[order], edge, panel.outcome[order], x, panel.weight[order], panel.repeated)

    def fill(self, plan: _Plan, fitted: _Filled, method: Method, smallest: int) -> None:
        """All cells, one after another: each has other rows."""
        for cell in range(len(plan.group)):
            self._fit(plan, fitted, method, smallest, cell)

    def _fit(self, plan: _Plan, fitted: _Filled, method: Method, smallest: int, cell: int) -> None:
        treated, others = [], []
        for time in (plan.now[cell], plan.before[cell]):
            low, high = int(self.edge[time]), int(self.edge[time + 1])
            mine, rest = _parts(self.first[low:high], int(plan.group[cell]), int(plan.after[cell]))
            treated.append(np.arange(low + mine.start, low + mine.stop))
            pieces = [np.arange(low + part.start, low + part.stop) for part in rest]
            others.append(np.concatenate([np.empty(0, np.int64), *pieces]))
        blocks = [*treated, *others]
        seen = 1 if plan.base[cell] else 2
        n = self._distinct(treated[:seen]), self._distinct(others[:seen])
        rows = np.concatenate(blocks)
        a = self.weight[blocks[0]]
        mean = float(a @ self.y[blocks[0]] / a.sum()) if a.sum() > 0 else np.nan
        if plan.base[cell]:
            found = TwoByTwo(np.zeros(1), np.empty((1, 0)))
        elif n[0] < smallest:
            found = TwoByTwo(np.full(1, np.nan), np.empty((1, 0)), "cell_small")
        else:
            sizes = (len(blocks[0]), len(blocks[1]), len(blocks[2]), len(blocks[3]))
            found = section_effects(self.y[rows], sizes, self.x[:, rows], self.weight[rows], method)
            if not found.code:
                np.add.at(fitted.influence[cell], self.unit[rows], found.influence[0])
        fitted.put(cell, found, 0, mean, n)

    def _distinct(self, blocks: list[Numbers]) -> int:
        rows = np.concatenate(blocks)
        return len(rows) if self.repeated else len(np.unique(self.unit[rows]))
