"""Numbers that are missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import DataError, Fault


def fill_missing(numeric: NDArray[np.float64], names: list[str]) -> tuple[NDArray[np.float64], list[str]]:
    """Missing numbers become the column's mean, with an indicator column that says so."""
    columns, labels = [], []
    for j, name in enumerate(names):
        gap = np.isnan(numeric[:, j])
        if gap.all():
            raise DataError(Fault("sample.covariate_empty", {"column": name}))
        columns.append(np.where(gap, np.nanmean(numeric[:, j]), numeric[:, j]))
        labels.append(name)
        if gap.any():
            columns.append(gap.astype(float))
            labels.append(f"{name}:missing")
    return (np.column_stack(columns) if columns else np.empty((len(numeric), 0))), labels
