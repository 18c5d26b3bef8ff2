"""Durations described: curves of staying and leaving, tests between groups, mean time to a horizon, hazard by month."""

from evalkit.duration.describe.curves import (
    Curve,
    Difference,
    Incidence,
    Quantile,
    aalen_johansen,
    by_group,
    difference,
    kaplan_meier,
    nelson_aalen,
)
from evalkit.duration.describe.restricted import Contrast, Means, months_lost, restricted_mean
from evalkit.duration.describe.smooth import Rates, Smooth, hazard_by_month, smoothed_hazard
from evalkit.duration.describe.tests import GroupTest, gray_test, logrank

__all__ = [
    "Contrast",
    "Curve",
    "Difference",
    "GroupTest",
    "Incidence",
    "Means",
    "Quantile",
    "Rates",
    "Smooth",
    "aalen_johansen",
    "by_group",
    "difference",
    "gray_test",
    "hazard_by_month",
    "kaplan_meier",
    "logrank",
    "months_lost",
    "nelson_aalen",
    "restricted_mean",
    "smoothed_hazard",
]
