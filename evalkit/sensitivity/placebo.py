"""Effects where there should be none: placebo outcomes, judged by equivalence and by a joint test.

A placebo outcome (months before the start, something the instrument cannot touch) should show no effect. That a test
does not reject is no proof: with few people nothing is rejected. So the question is turned round: does the interval lie
inside a margin small enough not to matter?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from evalkit.effects import EffectProfile, frozen
from evalkit.errors import Fault, UsageError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
MARGIN = 0.03
"""Three percentage points: the gate's margin for a pre-specified placebo."""


@dataclass(frozen=True)
class Placebo:
    """Is a placebo effect small for certain?

    Attributes
    ----------
    month, estimate, std_error, low, high: (K,) with intervals at ``level``. ``margin``: (K,).
    inside: (K,) whether the interval lies within +-margin. ``p_equivalence``: (K,) the larger of the two one-sided
        p-values (Schuirmann 1987); below (1 - level) / 2 exactly where ``inside``.
    passes: all inside. ``wald``, ``wald_df``, ``p_joint``: joint test that all are zero; df below K where the
        covariance is singular.
    """

    month: NDArray[np.int64]
    estimate: Array
    std_error: Array
    low: Array
    high: Array
    margin: Array
    inside: NDArray[np.bool_]
    p_equivalence: Array
    passes: bool
    wald: float
    wald_df: int
    p_joint: float
    level: float

    def frame(self) -> pd.DataFrame:
        """One row a month."""
        import pandas as pd

        names = ("month", "estimate", "std_error", "low", "high", "margin", "inside", "p_equivalence")
        return pd.DataFrame({name: getattr(self, name) for name in names})


def placebo_equivalence(
    estimate: ArrayLike,
    vcov: ArrayLike,
    margin: ArrayLike = MARGIN,
    *,
    df: float = np.inf,
    level: float = 0.90,
    month: ArrayLike | None = None,
) -> Placebo:
    """Judge a placebo effect.

    Parameters
    ----------
    estimate: (K,) effects that should be zero; ``vcov``: (K, K) their covariance.
    margin: what still counts as no effect, in units of the outcome; one number or (K,).
    df: degrees of freedom, infinite for normal. ``level``: of the interval; 0.90 gives a test of size 0.05.

    Notes
    -----
    Two one-sided tests: pass where estimate -+ q se lies in (-margin, margin), q the (1 + level) / 2 quantile.
    Demanding this of every month needs no correction for their number: it is an intersection-union test (Berger 1982).
    Joint: estimate' V^- estimate, chi-squared with the rank of V (F when df is finite).
    """
    b = np.atleast_1d(np.asarray(estimate, float))
    v = np.atleast_2d(np.asarray(vcov, float))
    limit = np.broadcast_to(np.asarray(margin, float), b.shape)
    if v.shape != (len(b), len(b)):
        raise ValueError("placebo_equivalence: estimate (K,) and vcov (K, K)")
    if not (limit > 0).all():
        raise UsageError(Fault("sensitivity.margin_not_positive", {}))
    error = np.sqrt(np.clip(np.diag(v), 0.0, None))
    quantile = special.stdtrit(df, 0.5 + level / 2) if np.isfinite(df) else special.ndtri(0.5 + level / 2)
    low, high = b - quantile * error, b + quantile * error
    inside = (low > -limit) & (high < limit)
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = (np.abs(b) - limit) / error
    worst = np.where(error > 0, worst, 0.0)
    p_value = special.stdtr(df, worst) if np.isfinite(df) else special.ndtr(worst)
    p_equivalence = np.where(error > 0, p_value, np.where(np.abs(b) < limit, 0.0, 1.0))
    roots, vectors = np.linalg.eigh((v + v.T) / 2)
    kept = roots > 1e-10 * max(float(roots.max()), 0.0)
    rank = int(kept.sum())
    wald = float(((vectors[:, kept].T @ b) ** 2 / roots[kept]).sum())
    if rank == 0:
        p_joint = float("nan")
    elif np.isfinite(df):
        p_joint = float(special.fdtrc(rank, df, wald / rank))
    else:
        p_joint = float(special.chdtrc(rank, wald))
    months = np.arange(1, len(b) + 1) if month is None else np.asarray(month, np.int64)
    return Placebo(
        frozen(months, np.int64),
        frozen(b),
        frozen(error),
        frozen(low),
        frozen(high),
        frozen(limit),
        frozen(inside, bool),
        frozen(p_equivalence),
        bool(inside.all()),
        wald,
        rank,
        p_joint,
        level,
    )


def placebo_of_profile(profile: EffectProfile, margin: ArrayLike = MARGIN, *, level: float = 0.90) -> Placebo:
    """:func:`placebo_equivalence` of an effect profile on a placebo outcome.

    Raises
    ------
    UsageError
        ``effects.no_covariance`` when the profile has intervals only.
    """
    if profile.vcov is None:
        raise UsageError(Fault("effects.no_covariance", {"profile": profile.id}))
    return placebo_equivalence(profile.estimate, profile.vcov, margin, df=profile.df, level=level, month=profile.month)
