"""Two-way fixed effects: one effect for "treated", or one for each period since the first treated one.

Static: y_it = a_i + b_t + delta D_it + x_it'gamma + u_it. Dynamic: the same with one coefficient for each event time.

**Neither estimates an average effect on the treated when effects differ** between cohorts or change with exposure. The
static coefficient is a weighted sum of the cells' effects whose weights add up to one but can be negative (de
Chaisemartin and D'Haultfoeuille 2020; Goodman-Bacon 2021): treated units serve as comparison for units treated later,
so that an effect that grows is subtracted. A coefficient of the dynamic form mixes effects of other event times in,
also before treatment, so that its leads are no test of parallel trends (Sun and Abraham 2021). Both are here to show
what the usual regression says, next to :func:`~evalkit.did.sun_abraham.sun_abraham` or the effects by cohort and
period. They do estimate the average effect when treatment starts in one period for all, or when the effect is the same
everywhere.

Sources: de Chaisemartin and D'Haultfoeuille (2020), American Economic Review 110: 2964-2996; Goodman-Bacon (2021),
Journal of Econometrics 225: 254-277; Sun and Abraham (2021), Journal of Econometrics 225: 175-199.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from evalkit.did.effects import Effects
from evalkit.did.overall import overall
from evalkit.did.panel import Mask, Numbers, Panel
from evalkit.did.within import (
    Covariates,
    Regression,
    SmallSample,
    allow,
    at_event,
    cell_sums,
    cell_units,
    chosen,
    cohort_numbers,
    regress,
    usable,
)
from evalkit.effects import Array
from evalkit.errors import DesignError, Fault, UsageError

Engine = Literal["within", "linearmodels"]

SE_KIND = "two-way fixed effects, clustered on {level}, small sample: {factor}"


def two_way(
    panel: Panel,
    *,
    covariates: Covariates = True,
    small_sample: SmallSample = "nested",
    engine: Engine = "within",
) -> Effects:
    """The coefficient of "treated" with unit and period effects (weighted least squares).

    Identified as an average effect on the treated by parallel trends *and* equal effects in all cohorts and periods;
    see the head of this module for what happens otherwise.

    Parameters
    ----------
    panel: with or without missing periods, weights, covariates. Units treated from their first period on are left out:
        they have no period before. Repeated cross-sections: cohort effects in the place of unit effects.
    covariates: which of ``panel.x`` enter: True all, False none, or names. Those that the effects absorb (constant in
        time) drop out, see :func:`~evalkit.did.within.absorbed`.
    small_sample: factor of the clustered covariance, :func:`~evalkit.did.within.small_sample_factor`. ``nested`` is
        what fixest, reghdfe and xtreg report, ``full`` what areg and a regression with dummies report.
    engine: ``within``: from moments by cohort, fast. ``linearmodels``: coefficients and residuals from its PanelOLS.

    Returns
    -------
    Effects with ``by="simple"``. ``n_treated``: units treated in some row; ``n_comparison``: units untreated in a
    period in which others are treated. ``counterfactual``: mean outcome of the treated rows less the effect.

    Raises
    ------
    DesignError
        ``did.regression_no_treated``, ``did.regression_no_untreated``, ``did.regression_two_periods``;
        ``did.regression_collinear`` when treatment follows from the effects and the covariates (all treated at once).
    """
    allow("engine", engine, "within", "linearmodels")
    panel = usable(panel)
    column = np.where(at_event(panel) >= 0, 0, -1)
    fit = regress(panel, column, 1, covariates=covariates)
    if not fit.estimable(np.ones((1, 1))).all():
        raise DesignError(Fault("did.regression_collinear", {}))
    if engine == "linearmodels":
        fit = _by_linearmodels(fit, covariates)
    return _effects(fit, "simple", np.zeros(1, np.int64), np.zeros(1, np.int64), small_sample)


def event_study(
    panel: Panel,
    *,
    base: int | Sequence[int] = -1,
    window: tuple[int, int] | None = None,
    covariates: Covariates = True,
    small_sample: SmallSample = "nested",
) -> Effects:
    """One coefficient for each event time with unit and period effects: the usual event study.

    Identified by parallel trends *and* the same course of effects in every cohort; see the head of this module.

    Parameters
    ----------
    panel, covariates, small_sample: as :func:`two_way`.
    base: event times whose effect is set to 0. Without units that are never treated one is too few: a line through all
        event times cannot be told from the period effects (Borusyak, Jaravel and Spiess 2024), so name two.
    window: (lowest, highest) event time; those beyond share the coefficient of the nearest end. None: all.

    Returns
    -------
    Effects with ``by="event"``, bases included as zeros. ``overall`` is the plain mean over event times 0 and later.

    Raises
    ------
    DesignError
        Those of :func:`two_way`; ``did.regression_collinear`` when the event times cannot be told apart.
    UsageError
        ``did.regression_base`` when a base is not among the event times, or the window does not hold the bases and 0.
    """
    panel = usable(panel)
    event = at_event(panel)
    occurs = cell_units(panel) > 0
    occurs[-1] = False
    low, high = window if window is not None else (int(event[occurs].min()), int(event[occurs].max()))
    event = np.where(occurs, np.clip(event, low, high), 0)
    at = np.unique(event[occurs])
    bases = (base,) if isinstance(base, int) else tuple(base)
    if low > 0 or high < 0 or not bases or not set(bases) <= set(at.tolist()):
        raise UsageError(Fault("did.regression_base", {"low": int(at[0]), "high": int(at[-1])}))
    free = at[~np.isin(at, bases)]
    column = np.where(occurs & ~np.isin(event, bases), np.searchsorted(free, event), -1)
    fit = regress(panel, column, len(free), covariates=covariates)
    if not fit.estimable(np.eye(len(free))).all():
        raise DesignError(Fault("did.regression_collinear", {}))
    return _effects(fit, "event", at, free, small_sample, bases)


def _effects(fit: Regression, by: Literal["simple", "event"], at: Numbers, free: Numbers, small_sample: SmallSample,
             base: tuple[int, ...] = ()) -> Effects:  # fmt: skip
    """Effects of a regression whose columns are the entries of ``at`` that are in ``free``."""
    panel = fit.panel
    place = np.searchsorted(at, free)
    linear = np.zeros((len(at), len(free)))
    linear[place, np.arange(len(free))] = 1.0
    estimate = linear @ fit.coefficients[:, 0]
    cells = np.where(fit.column >= 0, place[fit.column], -1)
    if base:  # a base has no column, but its cells are known
        event = np.clip(at_event(panel), at[0], at[-1])
        cells = np.where(np.isin(event, base) & (cell_units(panel) > 0), np.searchsorted(at, event), cells)
        cells[-1] = -1
    outcome, n_treated, n_comparison = _beneath(panel, cells, len(at))
    found = Effects(
        by, at, estimate, outcome - estimate, n_treated, n_comparison, fit.uncertainty(linear, small_sample),
        tuple(sorted(base)), SE_KIND.format(level=panel.level, factor=small_sample),
    )  # fmt: skip
    return replace(found, overall=overall(found)) if by == "event" and (at >= 0).any() else found


def _beneath(panel: Panel, cells: Numbers, count: int) -> tuple[Array, Numbers, Numbers]:
    """Mean outcome, units treated and units untreated in the same periods, of the cells (H, T) of each effect."""
    cohort = cohort_numbers(panel)
    weight, outcome = cell_sums(panel, panel.weight, cohort), cell_sums(panel, panel.weight * panel.outcome, cohort)
    units = cell_units(panel, cohort)
    seen = None if panel.repeated else np.bincount(
        panel.unit * len(panel.periods) + panel.time, minlength=panel.units * len(panel.periods)
    ).reshape(panel.units, -1).astype(bool)  # fmt: skip
    found: dict[tuple[int, bytes], int] = {}

    def distinct(h: int, periods: Mask) -> int:
        """Units of a cohort that are seen in one of some periods."""
        if seen is None or periods.sum() < 2:
            return int(units[h, periods].sum())
        key = (h, periods.tobytes())
        if key not in found:
            found[key] = int((seen[cohort == h][:, periods]).any(axis=1).sum())
        return found[key]

    untreated = at_event(panel) < 0
    mean = np.empty(count)
    n_treated, n_comparison = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for k in range(count):
        mine = cells == k
        mean[k] = outcome[mine].sum() / weight[mine].sum()
        compared = mine.any(axis=0) & untreated & ~mine
        for h in range(len(cells)):
            n_treated[k] += distinct(h, mine[h])
            n_comparison[k] += distinct(h, compared[h])
    return mean, n_treated, n_comparison


def _by_linearmodels(fit: Regression, covariates: Covariates) -> Regression:
    """The same regression with coefficients and residuals of PanelOLS."""
    import pandas as pd
    from linearmodels.panel import PanelOLS

    panel = fit.panel
    if panel.repeated:
        raise UsageError(Fault("did.regression_repeated", {"method": 'engine="linearmodels"'}))
    index = pd.MultiIndex.from_arrays([panel.unit, panel.time], names=["unit", "time"])
    regressors = pd.DataFrame({"treated": panel.treated.astype(float)}, index=index)
    for j in chosen(panel, covariates):
        regressors[f"x{j}"] = panel.x[:, j]
    model = PanelOLS(
        pd.Series(panel.outcome, index, name="outcome"), regressors, weights=pd.Series(panel.weight, index),
        entity_effects=True, time_effects=True, drop_absorbed=True, check_rank=False,
    )  # fmt: skip
    found = model.fit()
    theta = fit.theta.copy()
    theta[len(panel.periods) - 1] = found.params["treated"]
    weighted = np.asarray(found.wresids, float).ravel()  # of the regression in root-weighted variables
    mean = panel.weight.mean()  # PanelOLS scales weights to mean one
    return replace(fit, theta=theta, residual=weighted / np.sqrt(panel.weight / mean))
