"""E-values: how strong an unmeasured confounder would have to be, on the scale of risk ratios.

The E-value is the smallest strength of association, as a risk ratio, that a confounder would need with both treatment
and outcome, beyond the measured covariates, to move the estimate (or the near end of its interval) to the null:
E = RR + sqrt(RR (RR - 1)) for RR >= 1, its inverse first for RR < 1. It says nothing about whether such a confounder
exists, and it assumes the most harmful one (prevalence among the unexposed near zero). Sources: Ding and VanderWeele
(2016), Epidemiology 27: 368-377; VanderWeele and Ding (2017), Annals of Internal Medicine 167: 268-274.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import optimize, special

from evalkit.errors import Fault, UsageError

if TYPE_CHECKING:
    import pandas as pd

Measure = Literal["rr", "or", "hr"]


@dataclass(frozen=True)
class EValue:
    """E-values of an estimate and of the end of its interval nearest the null.

    Attributes
    ----------
    ratio, low, high: estimate and interval as (approximate) risk ratios; None where not given. For a risk difference
        ``ratio`` is the observed risk ratio and the interval is None: its E-value is not a function of that.
    point: E-value of the estimate.
    interval: E-value of the nearer end; 1 when the interval holds the null, None without one.
    true: the risk ratio (or difference) that the confounder is to leave: 1 (0) for no effect.
    """

    ratio: float
    low: float | None
    high: float | None
    point: float
    interval: float | None
    true: float

    def frame(self) -> pd.DataFrame:
        """One row: the ratio, its interval and both E-values."""
        import pandas as pd

        values = {"ratio": self.ratio, "low": self.low, "high": self.high}
        return pd.DataFrame([values | {"e_value": self.point, "e_value_interval": self.interval, "true": self.true}])


def _threshold(ratio: float) -> float:
    """E-value of a risk ratio against 1."""
    if ratio < 1:
        ratio = 1 / ratio
    return ratio + math.sqrt(ratio * (ratio - 1))


def _as_risk_ratio(value: float, measure: Measure, common: bool) -> float:
    if measure == "rr" or not common:
        return value
    if measure == "or":
        return math.sqrt(value)
    return (1 - 0.5 ** math.sqrt(value)) / (1 - 0.5 ** math.sqrt(1 / value))


def evalue_ratio(
    estimate: float,
    low: float | None = None,
    high: float | None = None,
    *,
    measure: Measure = "rr",
    common: bool = False,
    true: float = 1.0,
) -> EValue:
    """E-value of a risk, odds or hazard ratio.

    Parameters
    ----------
    estimate, low, high: the ratio and the ends of its interval (either may be None).
    measure: ``rr``, ``or`` or ``hr``. ``common``: the outcome occurs in more than 15 % by the end of follow-up; then
        the risk ratio is approximated by sqrt(OR), or by (1 - 0.5^sqrt(HR)) / (1 - 0.5^sqrt(1/HR)). A rare outcome's
        odds or hazard ratio is taken as a risk ratio.
    true: ratio, on the scale of ``measure``, to which the confounder is to move the estimate; 1 for no effect. The
        E-value is that of estimate / true.

    Raises
    ------
    UsageError
        ``sensitivity.ratio_not_positive``; ``sensitivity.interval_excludes`` when the estimate lies outside its
        interval.
    """
    given = [value for value in (estimate, low, high, true) if value is not None]
    if not all(math.isfinite(value) and value > 0 for value in given):
        raise UsageError(Fault("sensitivity.ratio_not_positive", {}))
    if (low is not None and low > estimate) or (high is not None and high < estimate):
        raise UsageError(Fault("sensitivity.interval_excludes", {}))
    ratio, null = _as_risk_ratio(estimate, measure, common), _as_risk_ratio(true, measure, common)
    ends = [None if value is None else _as_risk_ratio(value, measure, common) for value in (low, high)]
    return _from_ratios(ratio, ends[0], ends[1], null)


def _from_ratios(ratio: float, low: float | None, high: float | None, null: float) -> EValue:
    near = low if ratio > null else high
    interval = None
    if near is not None:
        beyond = near > null if ratio > null else near < null
        interval = _threshold(near / null) if beyond else 1.0
    elif (low is not None and ratio == null) or (high is not None and ratio == null):
        interval = 1.0
    return EValue(ratio, low, high, _threshold(ratio / null), interval, null)


def evalue_difference(
    estimate: float, std_error: float | None = None, *, sd: float = 1.0, delta: float = 1.0, true: float = 0.0
) -> EValue:
    """E-value of a difference of means or of a coefficient of a linear regression.

    Parameters
    ----------
    estimate, std_error: difference (or coefficient) in units of the outcome; std_error None without an interval.
    sd: standard deviation of the outcome (pooled over the arms for a difference of means, residual within covariates
        for a coefficient); 1 when the estimate is already standardised.
    delta: change in the exposure that the effect is worked out for; 1 for a treatment of 0 or 1.
    true: difference to which the confounder is to move the estimate, in units of the outcome.

    Notes
    -----
    d = delta estimate / sd, se likewise; RR ~ exp(0.91 d), interval exp(0.91 d -+ 1.78 se). The approximation supposes
    a normally distributed outcome, dichotomised anywhere but in its tails (Chinn 2000; VanderWeele 2017); 1.78 is
    0.91 x 1.96, and the published formula is kept to its two decimals.
    """
    if sd <= 0 or not math.isfinite(sd):
        raise UsageError(Fault("sensitivity.sd_not_positive", {}))
    d, null = delta * estimate / sd, delta * true / sd
    ratio = math.exp(0.91 * d)
    if std_error is None:
        return _from_ratios(ratio, None, None, math.exp(0.91 * null))
    reach = 1.78 * abs(delta) * std_error / sd
    return _from_ratios(ratio, math.exp(0.91 * d - reach), math.exp(0.91 * d + reach), math.exp(0.91 * null))


def evalue_risk_difference(
    treated_yes: float,
    treated_no: float,
    control_yes: float,
    control_no: float,
    *,
    true: float = 0.0,
    level: float = 0.95,
) -> EValue:
    """E-value of a risk difference from a two-by-two table (Ding and VanderWeele 2016).

    Parameters
    ----------
    treated_yes, treated_no, control_yes, control_no: numbers with and without the outcome. The treated must have the
        higher risk; turn the arms round otherwise.
    true: risk difference to which the confounder is to move the estimate. ``level`` of the interval.

    Returns
    -------
    EValue. ``point``: the smallest confounder for which the bound on the standardised difference reaches ``true``;
    ``interval``: for which the lower confidence limit of that bound does.

    Raises
    ------
    UsageError
        ``sensitivity.table_empty`` for an arm without people; ``sensitivity.risk_not_higher`` when the difference does
        not exceed ``true``.

    Notes
    -----
    With bounding factor B (for a confounder of strength E with both: B = E^2 / (2 E - 1)), share exposed f, risks p1
    and
    p0: the true difference is at least D(B) = (p1 - p0 B) (f + (1 - f) / B). Variances: of p1, p0 and f binomial; that
    of D by the delta method. Both bounds fall in B and are solved for their root; programs that walk B over a grid give
    a figure slightly above.
    """
    n1, n0 = treated_yes + treated_no, control_yes + control_no
    if min(treated_yes, treated_no, control_yes, control_no) < 0 or n1 <= 0 or n0 <= 0:
        raise UsageError(Fault("sensitivity.table_empty", {}))
    p1, p0, f = treated_yes / n1, control_yes / n0, n1 / (n1 + n0)
    if p1 - p0 <= true or not -1 < true < 1:
        raise UsageError(Fault("sensitivity.risk_not_higher", {}))
    z = float(special.ndtri(0.5 + level / 2))
    variances = p1 * (1 - p1) / n1, p0 * (1 - p0) / n0, f * (1 - f) / (n1 + n0)

    def bound(b: float) -> float:
        return (p1 - p0 * b) * (f + (1 - f) / b)

    def lower(b: float) -> float:
        width = f + (1 - f) / b
        slopes = width, b * width, (p1 - p0 * b) * (1 - 1 / b)
        variance = sum(s**2 * v for s, v in zip(slopes, variances, strict=True))
        return bound(b) - z * math.sqrt(variance)

    def solved(function: object) -> float:
        def shifted(b: float) -> float:
            return float(function(b)) - true  # type: ignore[operator]

        if shifted(1.0) <= 0:
            return 1.0
        top = 2.0
        while shifted(top) > 0:
            top *= 2
            if top > 1e12:
                return float("inf")
        return _threshold(float(optimize.brentq(shifted, 1.0, top, xtol=1e-14, rtol=4 * np.finfo(float).eps)))

    ratio = p1 / p0 if p0 > 0 else float("inf")
    return EValue(ratio, None, None, solved(bound), solved(lower), true)
