"""Omitted variable bias of a linear regression in terms of partial R2 (Cinelli and Hazlett 2020).

How much of the residual variance of treatment and of outcome would a confounder Z have to explain to change the
conclusion? The algebra is exact for least squares, weighted or not, with classical standard errors: for robust or
clustered errors the estimate's part holds, the part that involves the error is an approximation. It concerns the
regression's own
coefficient: with heterogeneous effects that is a variance-weighted average effect, not the ATT.

Source: Cinelli and Hazlett (2020), Journal of the Royal Statistical Society B 82: 39-67.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, special

from evalkit.effects import frozen
from evalkit.errors import DesignError, Fault, UsageError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regression:
    """A linear regression of the outcome on treatment and covariates, as far as sensitivity needs it.

    Attributes
    ----------
    estimate, std_error, dof: coefficient of the treatment, its classical standard error, residual degrees of freedom.
    names: covariates (or groups of columns that are one covariate).
    r2_treatment, r2_outcome: (g,) partial R2 of each with the treatment given the other covariates, and with the
        outcome given treatment and the other covariates.
    """

    estimate: float
    std_error: float
    dof: float
    names: tuple[str, ...]
    r2_treatment: Array
    r2_outcome: Array

    @property
    def partial_r2(self) -> float:
        """Partial R2 of treatment with outcome: what a confounder that explains all the rest of the outcome would have
        to explain of the treatment at least, to bring the estimate to zero."""
        return partial_r2(self.estimate / self.std_error, self.dof)


def linear_regression(
    outcome: ArrayLike,
    treatment: ArrayLike,
    covariates: ArrayLike,
    names: Sequence[str],
    weight: ArrayLike | None = None,
) -> Regression:
    """Fit the regression that :func:`robustness_value` and :func:`benchmark_bounds` speak about.

    Parameters
    ----------
    outcome, treatment: (n,). ``covariates``: (n, c), without constant, which is added. ``names``: c names; columns of
        the same name are one covariate (the dummies of a factor).
    weight: (n,) weights of least squares, None for ones; rows with weight 0 do not count.

    Raises
    ------
    DesignError
        ``design.regression_collinear`` when a column is a combination of the others; ``design.regression_too_small``
        when fewer than two degrees of freedom remain.
    """
    y, d, x = (np.asarray(a, float) for a in (outcome, treatment, covariates))
    w = np.ones(len(y)) if weight is None else np.asarray(weight, float)
    if not (y.shape == d.shape == w.shape) or x.shape != (len(y), len(names)):
        raise ValueError("linear_regression: outcome, treatment, weight (n,), covariates (n, c), names (c,)")
    if not all(np.isfinite(a).all() for a in (y, d, x, w)) or (w < 0).any():
        raise ValueError("linear_regression: values must be finite and weights not negative")
    root = np.sqrt(w[w > 0])[:, None]
    design = np.column_stack([d, np.ones(len(y)), x])[w > 0] * root
    target = y[w > 0] * root[:, 0]
    if len(target) - design.shape[1] < 2:
        raise DesignError(Fault("design.regression_too_small", {"rows": len(target), "columns": design.shape[1]}))
    scale = np.linalg.norm(design, axis=0)
    if (scale == 0).any() or np.linalg.matrix_rank(design / np.where(scale > 0, scale, 1.0)) < design.shape[1]:
        raise DesignError(Fault("design.regression_collinear", {}))
    groups = tuple(dict.fromkeys(names))
    places = [2 + np.flatnonzero([name == group for name in names]) for group in groups]
    coefficients, spread, rest = _least_squares(design, target)
    dof = len(target) - design.shape[1]
    of_treatment = _least_squares(design[:, 1:], design[:, 0])
    return Regression(
        float(coefficients[0]),
        float(math.sqrt(rest / dof * spread[0, 0])),
        float(dof),
        groups,
        frozen([_partial(of_treatment, place - 1) for place in places]),
        frozen([_partial((coefficients, spread, rest), place) for place in places]),
    )


def _least_squares(design: Array, target: Array) -> tuple[Array, Array, float]:
    """Coefficients, inverse of X'X, residual sum of squares."""
    q, r = np.linalg.qr(design)
    coefficients = linalg.solve_triangular(r, q.T @ target)
    inverse = linalg.solve_triangular(r, np.eye(len(r)))
    residual = target - design @ coefficients
    return coefficients, inverse @ inverse.T, float(residual @ residual)


def _partial(fit: tuple[Array, Array, float], columns: NDArray[np.int64]) -> float:
    """Partial R2 of some columns: the rise of the residual sum of squares without them, as a share of that sum."""
    coefficients, spread, rest = fit
    part = coefficients[columns]
    rise = float(part @ np.linalg.solve(spread[np.ix_(columns, columns)], part))
    return rise / (rise + rest) if rise + rest > 0 else 0.0


def partial_r2(t: float, dof: float) -> float:
    """Partial R2 of a single column from its t value: t^2 / (t^2 + dof)."""
    return t**2 / (t**2 + dof)


def robustness_value(
    estimate: float, std_error: float, dof: float, *, q: float = 1.0, alpha: float | None = None
) -> float:
    """Robustness value: the partial R2 with treatment *and* outcome that suffices to change the conclusion.

    Parameters
    ----------
    estimate, std_error, dof: coefficient, its classical standard error, residual degrees of freedom.
    q: share of the estimate to take away; 1 brings it to zero.
    alpha: None for the estimate itself; else the smallest strength that makes it no longer differ from (1 - q) times
        the estimate at this two-sided level.

    Returns
    -------
    RV in [0, 1]. A confounder weaker than this in both respects cannot do it.

    Notes
    -----
    f = q |t| / sqrt(dof); RV = (sqrt(f^4 + 4 f^2) - f^2) / 2. With alpha: c = t*(alpha, dof - 1) / sqrt(dof - 1), f - c
    in the place of f; 0 when f <= c; where f > 1 / c the weakest such confounder explains less of the outcome than of
    the treatment, and RV = (f^2 - c^2) / (1 + f^2).
    """
    f = q * abs(estimate / std_error) / math.sqrt(dof)
    if alpha is None:
        return _equal_strength(f)
    c = float(special.stdtrit(dof - 1, 1 - alpha / 2)) / math.sqrt(dof - 1)
    if f <= c:
        return 0.0
    return _equal_strength(f - c) if f * c < 1 else (f**2 - c**2) / (1 + f**2)


def _equal_strength(f: float) -> float:
    return 0.5 * (math.sqrt(f**4 + 4 * f**2) - f**2)


@dataclass(frozen=True)
class Adjusted:
    """What the regression would show with the confounder in it: arrays by scenario, two-sided interval at ``level``.

    ``label`` names the scenario; ``possible`` is False where no confounder can be that strong (then NaN).
    """

    label: tuple[str, ...]
    r2_treatment: Array
    r2_outcome: Array
    estimate: Array
    std_error: Array
    t: Array
    low: Array
    high: Array
    possible: NDArray[np.bool_]
    level: float

    def frame(self) -> pd.DataFrame:
        """One row a scenario."""
        import pandas as pd

        names = ("r2_treatment", "r2_outcome", "estimate", "std_error", "t", "low", "high", "possible")
        index = pd.Index(self.label, name="scenario")
        return pd.DataFrame({name: getattr(self, name) for name in names}, index=index)


def adjusted(
    estimate: float,
    std_error: float,
    dof: float,
    r2_treatment: ArrayLike,
    r2_outcome: ArrayLike,
    *,
    towards_zero: bool = True,
    null: float = 0.0,
    level: float = 0.95,
    label: Sequence[str] | None = None,
) -> Adjusted:
    """Estimate and standard error with a confounder of given strength.

    Parameters
    ----------
    r2_treatment: (s,) share of the residual variance of the treatment that it explains, in [0, 1).
    r2_outcome: (s,) share of the residual variance of the outcome, given treatment, in [0, 1].
    towards_zero: whether it moves the estimate towards zero (and beyond) or away from it. ``null``: for t.

    Notes
    -----
    bias = se sqrt(dof) sqrt(R2y R2d / (1 - R2d)); adjusted se = se sqrt((1 - R2y) / (1 - R2d)) sqrt(dof / (dof - 1)).
    """
    r2d, r2y = np.broadcast_arrays(
        np.atleast_1d(np.asarray(r2_treatment, float)), np.atleast_1d(np.asarray(r2_outcome, float))
    )
    if ((r2d < 0) | (r2y < 0)).any():
        raise UsageError(Fault("sensitivity.strength_outside", {}))
    possible = (r2d < 1) & (r2y <= 1)
    r2d_safe, r2y_safe = np.where(possible, r2d, np.nan), np.where(possible, r2y, np.nan)
    bias = std_error * np.sqrt(dof * r2y_safe * r2d_safe / (1 - r2d_safe))
    sign = (1.0 if estimate >= 0 else -1.0) * (1.0 if towards_zero else -1.0)
    moved = estimate - sign * bias
    error = std_error * np.sqrt((1 - r2y_safe) / (1 - r2d_safe)) * math.sqrt(dof / (dof - 1))
    reach = float(special.stdtrit(dof - 1, 0.5 + level / 2)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (moved - null) / error
    names = tuple(label) if label is not None else ("",) * len(r2d)
    return Adjusted(
        names,
        frozen(r2d),
        frozen(r2y),
        frozen(moved),
        frozen(error),
        frozen(t),
        frozen(moved - reach),
        frozen(moved + reach),
        frozen(possible, bool),
        level,
    )


def benchmark_bounds(
    regression: Regression,
    names: Sequence[str] | None = None,
    times: Sequence[float] = (1.0, 2.0, 3.0),
    *,
    times_outcome: Sequence[float] | None = None,
    level: float = 0.95,
) -> Adjusted:
    """The regression with a confounder as strong as (or some times as strong as) an observed covariate.

    Parameters
    ----------
    names: covariates of the regression to compare with; None for all.
    times: k, how many times as strongly the confounder explains the treatment; ``times_outcome`` the outcome, None for
        the same.

    Returns
    -------
    Adjusted, one scenario a covariate and k, called ``k x name``.

    Notes
    -----
    With R2d, R2y the partial R2 of covariate j and f2 = R2d / (1 - R2d): R2(D~Z|X) = k f2;
    R2(Z~Xj|D, X) = k R2d^2 / ((1 - k R2d)(1 - R2d)); R2(Y~Z|D, X) <= eta^2 R2y / (1 - R2y), with
    eta = (sqrt(k) + sqrt(R2(Z~Xj|D,X))) / sqrt(1 - R2(Z~Xj|D,X)). A bound above one on the outcome's side is set to
    one; where the treatment's side reaches one, no such confounder exists. Z is taken orthogonal to the covariates.
    """
    chosen = list(regression.names) if names is None else list(names)
    unknown = [name for name in chosen if name not in regression.names]
    if unknown:
        known = ", ".join(regression.names)
        raise UsageError(Fault("sensitivity.unknown_covariate", {"names": ", ".join(unknown), "known": known}))
    label, with_treatment, with_outcome = [], [], []
    for name in chosen:
        j = regression.names.index(name)
        r2d, r2y = float(regression.r2_treatment[j]), float(regression.r2_outcome[j])
        for k, k_outcome in zip(times, times if times_outcome is None else times_outcome, strict=True):
            bound_d = k * r2d / (1 - r2d) if r2d < 1 else math.inf
            other = k * r2d**2 / ((1 - k * r2d) * (1 - r2d)) if r2d < 1 and k * r2d < 1 else math.inf
            if bound_d >= 1 or other >= 1:
                bound_y = math.inf
            else:
                eta = (math.sqrt(k_outcome) + math.sqrt(other)) / math.sqrt(1 - other)
                bound_y = min(1.0, eta**2 * r2y / (1 - r2y)) if r2y < 1 else 1.0
            label.append(f"{k:g} x {name}")
            with_treatment.append(bound_d)
            with_outcome.append(bound_y)
    return adjusted(
        regression.estimate,
        regression.std_error,
        regression.dof,
        with_treatment,
        with_outcome,
        level=level,
        label=label,
    )


@dataclass(frozen=True)
class Contours:
    """Adjusted estimate and t (a, b) over a grid of strengths with treatment (a,) and with outcome (b,): a chart's
    data."""

    r2_treatment: Array
    r2_outcome: Array
    estimate: Array
    t: Array


def contours(
    estimate: float, std_error: float, dof: float, *, largest: float = 0.4, points: int = 41, null: float = 0.0
) -> Contours:
    """Adjusted estimate and t over a square grid of strengths up to ``largest`` (below one)."""
    axis = np.linspace(0.0, largest, points)
    r2d, r2y = (a.ravel() for a in np.meshgrid(axis, axis, indexing="ij"))
    made = adjusted(estimate, std_error, dof, r2d, r2y, null=null)
    shape = (points, points)
    return Contours(frozen(axis), frozen(axis), frozen(made.estimate.reshape(shape)), frozen(made.t.reshape(shape)))
