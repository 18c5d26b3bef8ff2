"""Five outcome steps on two weighted arms, each with its first-order expansion.

Notation: D treatment, w weight of a row in its arm, g weight in the population whose average effect is estimated,
S_d = sum of w in arm d, G = sum of g. Every estimator is a function T(w, g) of the two weight vectors (and of plain
counts, for regressions without weights), so its influence function follows from three derivatives:

    U_i = dT / dw_i,   V_i = dT / dg_i,   O_i = dT / d(count of row i in an unweighted regression).

Scaling row i by (1 + t) moves T by t (w_i U_i + g_i V_i + O_i): the infinitesimal jackknife (Efron 1982), which for
estimators defined by moment conditions is the influence function of M-estimation (Stefanski and Boos 2002). How the
weights themselves came about is accounted for elsewhere (``evalkit.matching.inference``).

======================  ================================================================================================
``means``               difference of weighted means: E_w[Y | D=1] - E_w[Y | D=0]. Identified when the weights balance
                        every covariate that matters.
``regression``          coefficient of D in the weighted regression on D and covariates, one slope for both arms. Equal
                        to the average effect only when the effect does not vary with the covariates, or when the
                        weights balance them (then it is ``means`` with less noise). Linear.
``gcomputation``        regression by arm under w, predicted for the population: sum g (m1 - m0) / G. For ``att`` on
                        matches it is bias-corrected matching with a linear m0. Right if either the weights or the
                        linear m_d are right (Robins, Sued, Lei-Gomez and Rotnitzky 2007; Wooldridge 2007).
``bias_corrected``      matches, each outcome moved to the covariates of the row it stands for with a regression among
                        the matches, weighted by how often each is used (Abadie and Imbens 2011).
``aipw``                regression by arm *without* weights plus the weighted mean residual of each arm (Robins,
                        Rotnitzky and Zhao 1994; for ``att`` Moodie, Saarela and Stephens 2018). Doubly robust.
======================  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.matching.part import Part
from evalkit.matching.regressions import Family, Fit, fit_mean

Array = NDArray[np.float64]
ModelName = Literal["means", "regression", "gcomputation", "bias_corrected", "aipw"]

ROWS_A_COLUMN = 5
"""Fewer rows than this a column of X, and regressions fall back on the first columns."""


@dataclass(frozen=True)
class Expansion:
    """An estimate by month with its first-order expansion.

    Attributes
    ----------
    estimate: (K,). ``versus``: (K,) mean outcome of the population without treatment.
    by_weight, by_population: (m, K) U and V.
    by_count: (m, K) O, or None.
    leverage: (m, 1) or (m, K): leverage of a row in the regression of its arm.
    parameters: regression coefficients behind the estimate.
    columns: columns of X that were used.
    adjusted: whether the regressions on X leave residuals that no longer go with X.
    expected: ``bias_corrected`` only: by arm, what U of a match with these covariates is expected to be (m, K).
    """

    estimate: Array
    versus: Array
    by_weight: Array
    by_population: Array
    by_count: Array | None
    leverage: Array
    parameters: int
    columns: int
    adjusted: bool = True
    expected: tuple[Array | None, Array | None] = (None, None)

    @property
    def corrected(self) -> bool:
        """Whether matches were moved to the covariates of the row they stand for."""
        return self.expected[0] is not None or self.expected[1] is not None


def width_of(x: Array, rows: int) -> int:
    """How many columns of ``x`` a regression on ``rows`` rows may use."""
    return min(x.shape[1], max(1, rows // ROWS_A_COLUMN))


def _arm_mean(y: Array, weight: Array) -> Array:
    return np.asarray(weight @ y / weight.sum())


def means(part: Part, x: Array, y: Array, family: Family) -> Expansion:
    """Difference of weighted means. U = (2D - 1) (Y - mean of the arm) / S_D."""
    by_weight, leverage, mean = np.zeros(y.shape), np.zeros((len(y), 1)), []
    for arm, rows in enumerate(part.arms()):
        total = part.weight[rows].sum()
        mean.append(_arm_mean(y[rows], part.weight[rows]))
        by_weight[rows] = (2 * arm - 1) * (y[rows] - mean[arm]) / total
        leverage[rows, 0] = part.weight[rows] / total
    nothing = np.zeros(y.shape)
    return Expansion(mean[1] - mean[0], mean[0], by_weight, nothing, None, leverage, 2, 1, adjusted=False)


def regression(part: Part, x: Array, y: Array, family: Family) -> Expansion:
    """Coefficient of D under one slope for both arms.

    By partialling out (Frisch and Waugh 1933): with R = D - its weighted regression on x and e the residual of the
    full regression, T = sum w R Y / sum w R D and U = R e / sum w R D. How much each arm counts is taken as given (see
    ``Part.rescaled``): when the effect varies with the covariates the coefficient depends on it.
    """
    weight = part.rescaled()
    width = width_of(x, int((weight > 0).sum()))
    both = fit_mean(x[:, :width], np.column_stack([part.treated, y]), weight)
    rest = part.treated - both.fitted[:, 0]
    total = float(weight @ (rest * part.treated))
    tau = (weight * rest) @ y / total
    residual = y - both.fitted[:, 1:] - rest[:, None] * tau
    scale = np.divide(weight, part.weight, out=np.zeros(len(weight)), where=part.weight > 0)
    by_weight = scale[:, None] * rest[:, None] * residual / total
    leverage = both.leverage + (weight * rest**2 / total)[:, None]
    without = both.fitted[:, 1:] - both.fitted[:, :1] * tau
    versus = _arm_mean(without, part.population)
    return Expansion(tau, versus, by_weight, np.zeros(y.shape), None, leverage, both.x.shape[1] + 1, width)


def _by_arm(part: Part, x: Array, y: Array, family: Family, weights: tuple[Array, Array]) -> tuple[Fit, Fit, int]:
    width = width_of(x, min(int((weight > 0).sum()) for weight in weights))
    control, treated = (fit_mean(x[:, :width], y, weight, family) for weight in weights)
    return control, treated, width


def gcomputation(part: Part, x: Array, y: Array, family: Family) -> Expansion:
    """Weighted regressions by arm, predicted for the population.

    V = (m1 - m0 - T) / G. U = (2D - 1) (grad_D' A_D^-1 x) (Y - m_D), with A_D = sum_arm w slope x x' and grad_D the
    derivative of the population mean of m_D to its coefficients.
    """
    arms = part.arms()
    control, treated, width = _by_arm(part, x, y, family, (part.weight * arms[0], part.weight * arms[1]))
    gap = treated.fitted - control.fitted
    tau = _arm_mean(gap, part.population)
    by_weight, leverage = np.zeros(y.shape), np.zeros(np.broadcast_shapes(control.leverage.shape))
    for arm, fit in enumerate((control, treated)):
        rows = arms[arm]
        pull = fit.pull(fit.gradient(part.population))
        by_weight[rows] = (2 * arm - 1) * (pull * (y - fit.fitted))[rows]
        leverage[rows] = fit.leverage[rows]
    by_population = (gap - tau) / part.population.sum()
    parameters = control.x.shape[1] + treated.x.shape[1]
    versus = _arm_mean(control.fitted, part.population)
    return Expansion(tau, versus, by_weight, by_population, None, leverage, parameters, width)


def aipw(part: Part, x: Array, y: Array, family: Family) -> Expansion:
    """Unweighted regressions by arm, plus the weighted mean residual r_d of each arm.

    V = (m1 - m0 - mean of it) / G; U = (2D - 1) (Y - m_D - r_D) / S_D; O = (2D - 1) ((grad_D - mean_w of slope x in the
    arm)' Q_D^-1 x) (Y - m_D) with Q_D = sum_arm slope x x'.
    """
    arms = part.arms()
    control, treated, width = _by_arm(part, x, y, family, (part.count * arms[0], part.count * arms[1]))
    gap = treated.fitted - control.fitted
    level = _arm_mean(gap, part.population)
    tau, versus = level.copy(), _arm_mean(control.fitted, part.population)
    by_weight, by_count = np.zeros(y.shape), np.zeros(y.shape)
    for arm, fit in enumerate((control, treated)):
        rows, sign = arms[arm], 2 * arm - 1
        weight = part.weight * rows
        residual = y - fit.fitted
        left = _arm_mean(residual[rows], part.weight[rows])
        tau += sign * left
        versus = versus + left if arm == 0 else versus
        by_weight[rows] = sign * (residual[rows] - left) / weight.sum()
        pull = fit.pull(fit.gradient(part.population) - fit.gradient(weight))
        by_count[rows] = sign * (part.count[:, None] * pull * residual)[rows]
    by_population = (gap - level) / part.population.sum()
    parameters = control.x.shape[1] + treated.x.shape[1]
    leverage = np.zeros((len(y), 1))
    return Expansion(tau, versus, by_weight, by_population, by_count, leverage, parameters, width)


def bias_corrected(part: Part, x: Array, y: Array, family: Family) -> Expansion:
    """Matches moved to the covariates of the row they stand for (Abadie and Imbens 2011).

    T = [sum g (2D - 1) (Y - m_other(X)) + sum (2D - 1) K (Y - m_own(X))] / G, with m_d fitted among the rows of arm d
    that serve as matches, weighted by K. U is that of ``means``; the regression enters as what the matches are
    expected to show (``expected``). Its own estimation multiplies the imbalance that matching leaves and is left out of
    the influence; where much is left (a thin pool, no caliper) ``gcomputation``, for ``att`` and ``atc`` the same
    estimate, has it.
    """
    plain = means(part, x, y, family)
    sign = np.where(part.treated, 1.0, -1.0)
    total = part.population.sum()
    serves = [(part.matches != 0) & (part.treated == bool(arm)) for arm in (0, 1)]
    width = width_of(x, min(int(rows.sum()) for rows in serves if rows.any()))
    tau, leverage, parameters = np.zeros(y.shape[1]), np.zeros(y.shape), 0
    imputed: list[Array | None] = [None, None]
    expected: list[Array | None] = [None, None]
    for arm, rows in enumerate(serves):
        if not rows.any():
            continue
        fit = fit_mean(x[:, :width], y, np.clip(part.matches * rows, 0.0, None), family)
        focal = part.focal & (part.treated != bool(arm))
        tau += (sign * (part.population * focal + part.matches * rows)) @ (y - fit.fitted) / total
        leverage[rows] = np.broadcast_to(fit.leverage, y.shape)[rows]
        parameters += fit.x.shape[1]
        weight = part.weight * (part.treated == bool(arm))
        imputed[arm] = fit.fitted
        expected[arm] = (2 * arm - 1) * (fit.fitted - _arm_mean(y, weight)) / weight.sum()
    treated_mean = y if imputed[1] is None else np.where(part.treated[:, None], y, imputed[1])
    versus = _arm_mean(treated_mean, part.population) - tau
    nothing = np.zeros(y.shape)
    return Expansion(
        tau, versus, plain.by_weight, nothing, None, leverage, parameters, width, expected=(expected[0], expected[1])
    )


MODELS: dict[str, Callable[[Part, Array, Array, Family], Expansion]] = {
    "means": means,
    "regression": regression,
    "gcomputation": gcomputation,
    "bias_corrected": bias_corrected,
    "aipw": aipw,
}
