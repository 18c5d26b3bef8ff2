"""A simulated binary confounder (Ichino, Mealli and Nannicini 2008).

A confounder U is drawn for everybody with a chance p_ij that depends on treatment i and on whether the outcome is high
(j), and the estimator is run again with U among the covariates. Repeated over draws this shows what an unmeasured U
like an observed covariate, or one strong enough to be a "killer", would do to the estimate.

Source: Ichino, Mealli and Nannicini (2008), Journal of Applied Econometrics 23: 305-327.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from evalkit.effects import frozen, generator
from evalkit.errors import DesignError, Fault, UsageError
from evalkit.hashing import Hash, mix, uniform

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Estimator = Callable[[Array], tuple[float, float]]
"""From a confounder (n,) to estimate and standard error, with that confounder among the covariates."""


@dataclass(frozen=True)
class Chances:
    """P(U = 1 | treatment i, outcome low or high j): ``p_ij`` with i, j in 0, 1."""

    p00: float
    p01: float
    p10: float
    p11: float

    def __post_init__(self) -> None:
        if not all(0 <= p <= 1 for p in (self.p00, self.p01, self.p10, self.p11)):
            raise UsageError(Fault("sensitivity.chance_outside", {}))

    def of(self, treated: Mask, high: Mask) -> Array:
        """(n,) each person's chance."""
        return np.where(treated, np.where(high, self.p11, self.p10), np.where(high, self.p01, self.p00))


@dataclass(frozen=True)
class SimulatedConfounder:
    """The estimate with the confounder in it, over draws.

    Attributes
    ----------
    estimate: mean over draws. ``std_error``: root of Rubin's total variance, mean of the squared standard errors plus
        (1 + 1/m) times the variance between draws; ``within`` and ``between``: roots of the two parts.
    low, high: interval at ``level``, t quantile with Rubin's degrees of freedom ``df``.
    outcome_effect: mean odds ratio of U in a logit of a high outcome among the untreated (Gamma in the paper).
    selection_effect: mean odds ratio of U in a logit of treatment (Lambda).
    baseline: the estimate without U; NaN when not given. ``chances``: how U was drawn. ``draws``: (m,) estimates.
    """

    estimate: float
    std_error: float
    within: float
    between: float
    low: float
    high: float
    df: float
    outcome_effect: float
    selection_effect: float
    baseline: float
    chances: Chances
    draws: Array
    level: float

    def frame(self) -> pd.DataFrame:
        """One row."""
        import pandas as pd

        names = ("estimate", "std_error", "low", "high", "outcome_effect", "selection_effect", "baseline")
        made = {name: getattr(self, name) for name in names}
        chances = {name: getattr(self.chances, name) for name in ("p00", "p01", "p10", "p11")}
        return pd.DataFrame([chances | made])


def observed_chances(covariate: ArrayLike, treated: ArrayLike, high: ArrayLike) -> Chances:
    """The chances of an observed binary covariate (n,), so that the simulated one is like it.

    Raises
    ------
    DesignError
        ``design.confounder_cell_empty`` when treatment and outcome do not cross in all four ways.
    """
    u, arm, top = np.asarray(covariate, float), np.asarray(treated, bool), np.asarray(high, bool)
    if not np.isin(u, (0.0, 1.0)).all():
        raise ValueError("observed_chances: the covariate must be 0 or 1")
    cells = [(arm == i) & (top == j) for i in (False, True) for j in (False, True)]
    if not all(cell.any() for cell in cells):
        raise DesignError(Fault("design.confounder_cell_empty", {}))
    return Chances(*(float(u[cell].mean()) for cell in cells))


def killer_chances(
    treated: ArrayLike, high: ArrayLike, *, d: float, s: float, prevalence: float, d_treated: float = 0.0
) -> Chances:
    """Chances of a confounder with a given effect on outcome and on selection.

    Parameters
    ----------
    treated, high: (n,) bool. ``d``: p01 - p00, its tie to the outcome among the untreated. ``s``: p1. - p0., its tie to
        treatment. ``prevalence``: P(U = 1). ``d_treated``: p11 - p10.

    Raises
    ------
    UsageError
        ``sensitivity.chance_outside`` when no chances between 0 and 1 have these properties.
    """
    arm, top = np.asarray(treated, bool), np.asarray(high, bool)
    if not (arm.any() and (~arm).any()):
        raise DesignError(Fault("design.confounder_cell_empty", {}))
    untreated = prevalence - float(arm.mean()) * s
    p00 = untreated - d * float(top[~arm].mean())
    p10 = untreated + s - d_treated * float(top[arm].mean())
    return Chances(*(_inside(p) for p in (p00, p00 + d, p10, p10 + d_treated)))


def _inside(chance: float) -> float:
    """Rounding errors just outside 0 and 1 undone."""
    return min(1.0, max(0.0, chance)) if -1e-12 < chance < 1 + 1e-12 else chance


def simulated_confounder(
    estimator: Estimator,
    treated: ArrayLike,
    high: ArrayLike,
    chances: Chances,
    *,
    draws: int = 100,
    seed: int = 1,
    key: Hash | None = None,
    covariates: ArrayLike | None = None,
    baseline: float = float("nan"),
    level: float = 0.95,
) -> SimulatedConfounder:
    """Run an estimator again with a simulated confounder among its covariates.

    Parameters
    ----------
    estimator: from U (n,) to estimate and standard error.
    treated: (n,) bool. ``high``: (n,) bool, a binary outcome, or an outcome above its mean (or median).
    chances: of U by treatment and outcome, from :func:`observed_chances` or :func:`killer_chances`.
    draws: m, at least 2. ``seed``; ``key``: (n,) keyed hashes of the persons, so that the order of rows does not
        matter; None draws in the order of rows.
    covariates: (n, c) covariates of the two logits; None for U alone.

    Notes
    -----
    U depends on the outcome by construction, so that with U in it the estimate is that under *this* departure from
    unconfoundedness; a neutral U (all chances equal) brings the baseline back up to noise. Odds ratios are averaged
    over draws, as in the paper; draws in which a logit does not converge (U separates the groups) leave theirs out.
    """
    arm, top = np.asarray(treated, bool), np.asarray(high, bool)
    if draws < 2:
        raise ValueError("simulated_confounder: at least two draws")
    chance = chances.of(arm, top)
    x = np.empty((len(arm), 0)) if covariates is None else np.asarray(covariates, float)
    found, errors, effects = np.empty(draws), np.empty(draws), np.full((draws, 2), np.nan)
    for m in range(draws):
        if key is None:
            picked = generator(seed, "simulated_confounder", m).uniform(size=len(arm))
        else:
            picked = uniform(mix(mix(key, seed), m))
        u = (picked < chance).astype(float)
        found[m], errors[m] = estimator(u)
        effects[m] = _odds_ratio(top[~arm], u[~arm], x[~arm]), _odds_ratio(arm, u, x)
    within, between = float((errors**2).mean()), float(found.var(ddof=1))
    extra = (1 + 1 / draws) * between
    df = (draws - 1) * (1 + within / extra) ** 2 if extra > 0 else float("inf")
    quantile = special.stdtrit(df, 0.5 + level / 2) if np.isfinite(df) else special.ndtri(0.5 + level / 2)
    total = float(np.sqrt(within + extra))
    middle, reach = float(found.mean()), float(quantile) * total
    outcome_effect, selection_effect = (
        float(c[np.isfinite(c)].mean()) if np.isfinite(c).any() else float("nan") for c in effects.T
    )
    return SimulatedConfounder(
        middle,
        total,
        float(np.sqrt(within)),
        float(np.sqrt(between)),
        middle - reach,
        middle + reach,
        float(df),
        outcome_effect,
        selection_effect,
        baseline,
        chances,
        frozen(found),
        level,
    )


def _odds_ratio(outcome: Mask, u: Array, covariates: Array) -> float:
    """Odds ratio of u in a logit of the outcome; NaN where it does not exist."""
    y = outcome.astype(float)
    if np.ptp(u) == 0 or np.ptp(y) == 0:
        return float("nan")
    if covariates.shape[1] == 0:
        table = [float((outcome == a)[u == b].sum()) for a in (True, False) for b in (1.0, 0.0)]
        return table[0] * table[3] / (table[1] * table[2]) if table[1] * table[2] > 0 else float("nan")
    centred = covariates - covariates.mean(axis=0)
    spread = centred.std(axis=0)
    design = np.column_stack([u, np.ones(len(u)), centred[:, spread > 0] / spread[spread > 0]])
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        p = special.expit(design @ beta)
        information = (design * (p * (1 - p))[:, None]).T @ design
        step, *_ = np.linalg.lstsq(information, design.T @ (y - p), rcond=1e-12)
        beta = beta + np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-10:
            return float(np.exp(beta[0]))
        if np.abs(beta).max() > 30:
            break
    return float("nan")
