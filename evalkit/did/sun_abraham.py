"""Interaction-weighted event study: effects by cohort and period from one regression (Sun and Abraham 2021).

y_it = a_i + b_t + sum over cohorts g and event times e != base of delta_ge 1{g(i) = g, t - g = e} + x_it'gamma + u_it.
The comparison units have no interactions: those never treated, or the cohort that is treated last, before it is.

Identification: parallel trends between each cohort and the comparison units in all periods, no anticipation before the
base period. Then delta_ge is the average effect on cohort g at event time e, whatever the effects of other cohorts.
Without covariates and with every unit seen in every period delta_ge is the difference between the changes of two means
since the base period, and equals the effect of Callaway and Sant'Anna (2021) with never treated comparison units and a
universal base.

Source: Sun and Abraham (2021), Journal of Econometrics 225: 175-199, sections 4 and 5.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from evalkit.did.cells import Cells
from evalkit.did.effects import Missing
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.did.within import (
    Covariates,
    SmallSample,
    allow,
    cell_sums,
    cell_units,
    cohort_numbers,
    regress,
    usable,
)
from evalkit.effects import Array
from evalkit.errors import DesignError, Fault, UsageError

Control = Literal["never", "last"]


def sun_abraham(
    panel: Panel,
    *,
    base: int = -1,
    control: Control = "never",
    covariates: Covariates = True,
    small_sample: SmallSample = "none",
) -> Cells:
    """Effects of cohorts in periods by the saturated regression of Sun and Abraham.

    ``sun_abraham(panel).aggregate("event")`` is the interaction-weighted event study. fixest's ``sunab`` treats the
    cohort shares as known: ``sun_abraham(panel, small_sample="nested").aggregate("event", shares="known")`` is its
    standard error.

    Parameters
    ----------
    panel: with or without missing periods and weights. Repeated cross-sections: cohort effects for unit effects.
    base: event time of the base period: the last period of the panel at or before ``first + base``. -2 allows effects
        to begin one period early.
    control: ``never``: units never treated. ``last``: the cohort treated last, in the periods before it is; units never
        treated are left out.
    covariates: which of ``panel.x`` enter by row, with one coefficient each for all cohorts: True all, False none, or
        names. Those constant in time drop out.
    small_sample: factor of the covariance, :func:`~evalkit.did.within.small_sample_factor`; ``none`` to compare with
        the other estimators by cohort and period.

    Returns
    -------
    Cells. In ``missing``, without an estimate: cells without rows (``regression_cell_empty``), not identified
    (``regression_not_identified``) or with nobody to compare with (``regression_no_comparison``). With an estimate:
    cohorts within a single cluster (``regression_cohort_small``), whose own variation the standard error does not know.

    Raises
    ------
    DesignError
        ``did.regression_no_never`` when there are no such comparison units, and those of
        :func:`~evalkit.did.two_way.two_way`.
    UsageError
        ``did.regression_setting`` for an unknown control group or ``base >= 0``.
    """
    if base >= 0:
        raise UsageError(Fault("did.regression_setting", {"setting": "base", "allowed": "-1, -2, ..."}))
    allow("control", control, "never", "last")
    panel = usable(last_as_control(panel, -1 - base) if control == "last" else panel)
    if not (panel.first == NEVER).any():
        raise DesignError(Fault("did.regression_no_never", {}))
    bases = base_periods(panel, base)
    wanted = ~bases
    wanted[-1] = False
    column, places = number_cells(panel, wanted)
    fit = regress(panel, column, len(places), covariates=covariates)
    linear = np.eye(len(places))
    factor = fit.factor(small_sample)
    influence = np.sqrt(factor) * fit.influence(linear)
    compared = np.broadcast_to(cell_units(panel)[-1], column.shape)
    estimate = np.where(fit.estimable(linear), fit.coefficients[:, 0], np.nan)
    reasons = {(int(h), int(t)): "regression_no_comparison" for h, t in np.argwhere(wanted & (compared == 0))}
    return cells_of(
        panel, places, estimate, influence, bases, compared, f"Sun-Abraham, small sample: {small_sample}",
        wanted=wanted, reasons=reasons,
    )  # fmt: skip


def last_as_control(panel: Panel, anticipation: int = 0) -> Panel:
    """The periods before the last cohort is treated, without the units never treated."""
    last = int(panel.cohorts[-1]) if len(panel.cohorts) else NEVER
    end = last - anticipation
    keep = (panel.first == last) | (panel.first < end)  # who is treated in between has begun to anticipate
    if not (keep.any() and (panel.period < end).any()):
        raise DesignError(Fault("did.regression_no_never", {}))
    panel = panel.take_units(keep)
    return panel.take_rows(panel.period < end)


def base_periods(panel: Panel, base: int) -> Mask:
    """(H, T) the last period at or before first + base, of every cohort that has one."""
    found = np.zeros((len(panel.cohorts) + 1, len(panel.periods)), bool)
    for h, first in enumerate(panel.cohorts):
        before = np.flatnonzero(panel.periods <= first + base)
        if len(before):
            found[h, before[-1]] = True
    return found


def number_cells(panel: Panel, wanted: Mask) -> tuple[Numbers, Numbers]:
    """A column for each wanted cell (H, T) that has rows: their numbers, and cohort and period of each (C, 2)."""
    wanted = wanted & (cell_units(panel) > 0)
    places = np.argwhere(wanted)
    column = np.full(wanted.shape, -1)
    column[wanted] = np.arange(len(places))
    return column, places


def cells_of(
    panel: Panel,
    places: Numbers,
    estimate: Array,
    influence: Array,
    bases: Mask,
    compared: Numbers,
    se_kind: str,
    *,
    wanted: Mask,
    reasons: dict[tuple[int, int], str],
) -> Cells:
    """Cells from estimates of ``places`` (C, 2: cohort, period), with base cells and reasons for what is missing.

    ``compared`` (H, T): comparison units of a cell. ``wanted`` (H, T): cells that should be there, bases apart.
    ``reasons``: why an estimate is NaN, where it is not that the data do not identify it.
    """
    cohort = cohort_numbers(panel)
    units = cell_units(panel, cohort)
    anchor = np.argwhere(bases & (units > 0))
    everything = np.vstack([places, anchor])
    order = np.lexsort((everything[:, 1], everything[:, 0]))
    h, t = everything[order].T
    value = np.concatenate([estimate, np.zeros(len(anchor))])[order]
    weight = cell_sums(panel, panel.weight, cohort)
    mean = np.divide(cell_sums(panel, panel.weight * panel.outcome, cohort), weight, where=weight > 0,
                     out=np.full(weight.shape, np.nan))  # fmt: skip
    spread = np.zeros((panel.units, len(order)))
    spread[:, np.argsort(order)[: len(places)]] = np.where(np.isfinite(estimate), influence, 0.0)
    named = [(int(panel.cohorts[i]), int(panel.periods[j]), i, j) for i, j in zip(h.tolist(), t.tolist(), strict=True)]
    missing = [
        Missing(g, p, reasons.get((i, j), "regression_not_identified"))
        for (g, p, i, j), known in zip(named, np.isfinite(value).tolist(), strict=True)
        if not known
    ]
    empty = (units == 0) & wanted
    missing += [
        Missing(int(panel.cohorts[i]), int(panel.periods[j]), "regression_cell_empty") for i, j in np.argwhere(empty)
    ]
    for i, first in enumerate(panel.cohorts.tolist()):
        if len(np.unique(panel.cluster[cohort == i])) == 1:
            missing += [Missing(g, p, "regression_cohort_small") for g, p, k, _ in named if k == i and p >= first]
    is_base = bases[h, t]
    return Cells(
        panel, panel.cohorts[h], panel.periods[t], value, mean[h, t] - value, units[h, t], compared[h, t], spread,
        is_base, tuple(missing), f"{se_kind}, clustered on {panel.level}",
    )  # fmt: skip
