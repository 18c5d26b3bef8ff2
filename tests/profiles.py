"""Small effect profiles for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evalkit.effects import Covariance, EffectProfile, Estimand, Influence, Uncertainty

ESTIMAND = Estimand(
    "starters", "training", "wait", "start", "left_to_work", "event", "fraction", "conditional_independence"
)


def make(
    estimate: Sequence[float] | np.ndarray,
    uncertainty: Uncertainty | None = None,
    *,
    se: float = 0.01,
    estimand: Estimand = ESTIMAND,
    month: Sequence[int] | None = None,
    labels: dict[str, str] | None = None,
    **more: Any,
) -> EffectProfile:
    """A profile; without an uncertainty its months are independent with standard error ``se``."""
    size = len(estimate)
    known = {"analysis": "main", "method": "matching", "instrument": "training", "comparison": "wait"}
    known |= {"outcome": "left_to_work", "subgroup": "", "better": "higher", "primary": "true"}
    fields: dict[str, Any] = {
        "estimand": estimand,
        "labels": known | (labels or {}),
        "month": np.arange(1, size + 1) if month is None else month,
        "estimate": estimate,
        "counterfactual": np.full(size, 0.3),
        "n_treated": np.full(size, 200),
        "n_comparison": np.full(size, 180),
        "uncertainty": Covariance(np.eye(size) * se**2) if uncertainty is None else uncertainty,
        "se_kind": "test",
    }
    return EffectProfile(**(fields | more))


def influence(ids: Sequence[Any], rows: Sequence[Sequence[float]], **more: Any) -> Influence:
    """An influence function from rows."""
    return Influence(np.array(ids), np.array(rows, float), **more)
