"""Durations of a given form: exponential, Weibull, log-normal, log-logistic, Gompertz; gamma frailty."""

from evalkit.duration.parametric.families import FAMILIES, Family
from evalkit.duration.parametric.fit import parametric
from evalkit.duration.parametric.goodness import (
    Criterion,
    Residuals,
    compare,
    cox_snell,
    criteria,
    residual_table,
)
from evalkit.duration.parametric.model import Frailty, Parametric, Proportional

__all__ = [
    "FAMILIES",
    "Criterion",
    "Family",
    "Frailty",
    "Parametric",
    "Proportional",
    "Residuals",
    "compare",
    "cox_snell",
    "criteria",
    "parametric",
    "residual_table",
]
