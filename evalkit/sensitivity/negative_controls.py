"""Negative controls: learn the systematic error of a design from outcomes on which the truth is no effect.

Many controls: their estimates are draws of systematic plus random error; the fitted distribution of the systematic
error widens and shifts the interval of the outcome of interest (empirical calibration). One control: its estimate is
taken as the bias and subtracted.

Sources: Schuemie, Ryan, DuMouchel, Suchard and Madigan (2014), Statistics in Medicine 33: 209-218; Schuemie, Hripcsak,
Ryan, Madigan and Suchard (2018), PNAS 115: 2571-2577; Lipsitch, Tchetgen Tchetgen and Cohen (2010), Epidemiology 21:
383-388.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from evalkit.effects import frozen
from evalkit.errors import DesignError, Fault

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
GRID = 801
FEWEST = 3
"""A spread cannot be learnt from fewer controls."""


@dataclass(frozen=True)
class SystematicError:
    """Normal distribution of the systematic error.

    Attributes
    ----------
    mean, sd: fitted by maximum likelihood. ``n``: number of controls. ``loglik``: at the maximum.
    sds, weights: (g,) values of the sd and their probabilities given the controls (flat prior on sd >= 0);
        means, mean_errors: (g,) mean and its standard error at each. Together the law of the systematic error that
        allows for its having been fitted.
    """

    mean: float
    sd: float
    n: int
    loglik: float
    sds: Array
    weights: Array
    means: Array
    mean_errors: Array


@dataclass(frozen=True)
class Calibrated:
    """An estimate with its calibrated interval and two-sided p-value (of no effect), beside the uncalibrated
    p-value."""

    estimate: float
    std_error: float
    low: float
    high: float
    p_value: float
    p_uncalibrated: float
    level: float

    def frame(self) -> pd.DataFrame:
        """One row."""
        import pandas as pd

        names = ("estimate", "std_error", "low", "high", "p_value", "p_uncalibrated")
        return pd.DataFrame([{name: getattr(self, name) for name in names}])


def systematic_error(estimates: ArrayLike, std_errors: ArrayLike) -> SystematicError:
    """Fit the systematic error's distribution to negative controls by maximum likelihood.

    Parameters
    ----------
    estimates, std_errors: (m,) of outcomes that the instrument cannot affect, estimated by the same design and on the
        same scale as the outcome of interest (log ratios, or points).

    Raises
    ------
    DesignError
        ``design.too_few_controls`` for fewer than three.

    Notes
    -----
    estimate_i ~ N(mean, sd^2 + se_i^2), independent. The likelihood is profiled over the mean and maximised over sd >=
    0. The weights are the likelihood with the mean integrated out, times a flat prior on sd (Gelman 2006, Bayesian
    Analysis 1: 515-534), on a grid up to ten times the range of the estimates. Controls estimated on the same people
    are not independent; the fitted distribution is then less certain than it seems.
    """
    b, se = np.asarray(estimates, float), np.asarray(std_errors, float)
    if b.shape != se.shape or b.ndim != 1 or not np.isfinite(b).all() or not (np.isfinite(se).all() and (se > 0).all()):
        raise ValueError("systematic_error: estimates and positive standard errors (m,)")
    if len(b) < FEWEST:
        raise DesignError(Fault("design.too_few_controls", {"count": len(b), "minimum": FEWEST}))

    def fit(sd: Array) -> tuple[Array, Array, Array]:
        """Mean, its standard error and the log-likelihood, each at every sd (g,)."""
        variance = sd[:, None] ** 2 + se**2
        precision = (1 / variance).sum(axis=1)
        mean = (b / variance).sum(axis=1) / precision
        loglik = -0.5 * (np.log(2 * np.pi * variance) + (b - mean[:, None]) ** 2 / variance).sum(axis=1)
        return mean, 1 / np.sqrt(precision), loglik

    top = 10 * (float(np.ptp(b)) + float(se.max()))
    root = np.linspace(0.0, 1.0, GRID)
    grid = top * root**2  # finer near zero
    means, mean_errors, loglik = fit(grid)
    marginal = np.exp(loglik + np.log(mean_errors) - (loglik + np.log(mean_errors)).max()) * root
    marginal[-1] /= 2  # trapezium in the root; the density of the root carries a factor 2 root
    best = int(np.argmax(loglik))
    bounds = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, GRID - 1)])
    found = optimize.minimize_scalar(
        lambda sd: -float(fit(np.array([sd]))[2][0]), bounds=bounds, method="bounded", options={"xatol": 1e-10 * top}
    )
    sd = float(found.x) if -float(found.fun) > loglik[0] else 0.0
    mean, _, height = (float(value[0]) for value in fit(np.array([sd])))
    share = marginal / marginal.sum()
    return SystematicError(mean, sd, len(b), height, frozen(grid), frozen(share), frozen(means), frozen(mean_errors))


def calibrate(
    estimate: float, std_error: float, error: SystematicError, *, level: float = 0.95, allow_for_fit: bool = True
) -> Calibrated:
    """Shift and widen an estimate by the systematic error of its design.

    Parameters
    ----------
    estimate, std_error: of the outcome of interest. ``error``: from :func:`systematic_error`.
    allow_for_fit: allow for mean and sd having been estimated; False takes the fitted distribution as known, as the
        paper does, and covers too little with few controls (83 to 92 % for ten, in simulation).

    Notes
    -----
    Known: estimate - mean -+ q sqrt(se^2 + sd^2). Allowing for the fit: the mixture over the sd of normal laws with
    mean estimate - mean(sd) and variance se^2 + sd^2 + se(mean(sd))^2; ``estimate`` and ``std_error`` are its mean and
    standard deviation, the interval its quantiles. It is supposed that the systematic error does not depend on the size
    of the true effect, and that the controls are exchangeable with the outcome of interest.
    """
    if allow_for_fit:
        weights, centre = error.weights, estimate - error.means
        spread = np.sqrt(std_error**2 + error.sds**2 + error.mean_errors**2)
    else:
        weights, centre = np.ones(1), np.array([estimate - error.mean])
        spread = np.array([np.hypot(std_error, error.sd)])

    def below(value: float) -> float:
        return float(weights @ special.ndtr((value - centre) / spread))

    middle = float(weights @ centre)
    total = float(np.sqrt(weights @ (spread**2 + (centre - middle) ** 2)))

    def quantile(part: float) -> float:
        low, high = (float(edge) for edge in ((centre - 40 * spread).min(), (centre + 40 * spread).max()))
        return float(optimize.brentq(lambda value: below(value) - part, low, high, xtol=1e-12 * (high - low)))

    smaller = min(below(0.0), float(weights @ special.ndtr(centre / spread)))
    return Calibrated(
        middle,
        total,
        quantile(0.5 - level / 2),
        quantile(0.5 + level / 2),
        min(1.0, 2 * smaller),
        float(2 * special.ndtr(-abs(estimate) / std_error)),
        level,
    )


@dataclass(frozen=True)
class Corrected:
    """Effects (K,) less the bias that a negative control shows, with covariance and pointwise intervals at
    ``level``."""

    estimate: Array
    vcov: Array
    low: Array
    high: Array
    level: float

    @property
    def std_error(self) -> Array:
        """Standard errors (K,)."""
        return np.sqrt(np.clip(np.diag(self.vcov), 0.0, None))

    def frame(self) -> pd.DataFrame:
        """One row a month."""
        import pandas as pd

        return pd.DataFrame(
            {"estimate": self.estimate, "std_error": self.std_error, "low": self.low, "high": self.high}
        )


def corrected_by_control(
    estimate: ArrayLike, control: ArrayLike, vcov: ArrayLike, *, ratio: float = 1.0, level: float = 0.95
) -> Corrected:
    """Subtract what a negative control shows: the outcome's estimate if the bias is ``ratio`` times the control's.

    Parameters
    ----------
    estimate: (K,) effects on the outcome of interest. ``control``: (K,) effects on the control outcome, month by month,
        or one number for all months.
    vcov: joint covariance of both stacked, (2K, 2K) or (K + 1, K + 1); from
        :func:`evalkit.effects.joint_vcov`, since the same people are in both.
    ratio: bias of the outcome over bias of the control; 1 supposes that confounding is equally strong for both on this
        scale, which is an assumption and not tested by the data.
    """
    b, c = np.atleast_1d(np.asarray(estimate, float)), np.atleast_1d(np.asarray(control, float))
    if len(c) not in (1, len(b)):
        raise ValueError("corrected_by_control: control (K,) or one number")
    joint = np.asarray(vcov, float)
    size = len(b) + len(c)
    if joint.shape != (size, size):
        raise ValueError("corrected_by_control: vcov covers estimate and control stacked")
    spread = np.ones((len(b), 1)) if len(c) == 1 else np.eye(len(b))
    contrast = np.hstack([np.eye(len(b)), -ratio * spread])
    made = contrast @ np.concatenate([b, c])
    matrix = contrast @ joint @ contrast.T
    reach = float(special.ndtri(0.5 + level / 2)) * np.sqrt(np.clip(np.diag(matrix), 0.0, None))
    return Corrected(frozen(made), frozen(matrix), frozen(made - reach), frozen(made + reach), level)
