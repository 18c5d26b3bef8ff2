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
from scipy import optimize, special, stats

from evalkit.effects import frozen
from evalkit.errors import DesignError, Fault

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
FEWEST = 3
"""A spread cannot be learnt from fewer controls."""


@dataclass(frozen=True)
class SystematicError:
    """Normal distribution of the systematic error: ``mean``, ``sd``, and the standard error of the mean given the sd.

    ``n``: number of controls. ``loglik``: at the maximum.
    """

    mean: float
    sd: float
    mean_error: float
    n: int
    loglik: float


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
    0. Controls estimated on the same people are not independent; the fitted mean is then less certain than it seems.
    """
    b, se = np.asarray(estimates, float), np.asarray(std_errors, float)
    if b.shape != se.shape or b.ndim != 1 or not np.isfinite(b).all() or not (np.isfinite(se).all() and (se > 0).all()):
        raise ValueError("systematic_error: estimates and positive standard errors (m,)")
    if len(b) < FEWEST:
        raise DesignError(Fault("design.too_few_controls", {"count": len(b), "minimum": FEWEST}))

    def mean_given(variance: float) -> float:
        weight = 1 / (variance + se**2)
        return float((weight @ b) / weight.sum())

    def loss(sd: float) -> float:
        variance = sd**2 + se**2
        return 0.5 * float((np.log(2 * np.pi * variance) + (b - mean_given(sd**2)) ** 2 / variance).sum())

    top = float(np.ptp(b)) + float(se.max())
    grid = np.linspace(0.0, top, 201)
    best = int(np.argmin([loss(sd) for sd in grid]))
    bounds = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 200)])
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12 * max(top, 1e-300)})
    sd = float(found.x) if float(found.fun) < loss(0.0) else 0.0
    mean_error = float(1 / np.sqrt((1 / (sd**2 + se**2)).sum()))
    return SystematicError(mean_given(sd**2), sd, mean_error, len(b), -loss(sd))


def calibrate(
    estimate: float, std_error: float, error: SystematicError, *, level: float = 0.95, allow_for_fit: bool = True
) -> Calibrated:
    """Shift and widen an estimate by the systematic error of its design.

    Parameters
    ----------
    estimate, std_error: of the outcome of interest. ``error``: from :func:`systematic_error`.
    allow_for_fit: allow for the mean having been estimated, and for few controls, with a t quantile with m - 2 degrees
        of freedom (Higgins, Thompson and Spiegelhalter 2009); False takes the distribution as known, as the papers do.

    Notes
    -----
    estimate - mean -+ q sqrt(se^2 + sd^2 [+ se(mean)^2]). It is supposed that the systematic error does not depend on
    the size of the true effect, and that the controls are exchangeable with the outcome of interest.
    """
    variance = std_error**2 + error.sd**2
    if allow_for_fit:
        variance += error.mean_error**2
        law = stats.t(error.n - 2)
    else:
        law = stats.norm()
    spread = float(np.sqrt(variance))
    shifted = estimate - error.mean
    reach = float(law.ppf(0.5 + level / 2)) * spread
    return Calibrated(
        shifted,
        spread,
        shifted - reach,
        shifted + reach,
        float(2 * law.sf(abs(shifted) / spread)),
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
