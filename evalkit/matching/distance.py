"""How far two units lie apart: the score, Mahalanobis and its relatives, or given distances.

Every distance on covariates is the ordinary Euclidean one after a linear change of coordinates, so that one search
serves them all. The arithmetic runs in a fixed order, without a linear algebra library: the same bits on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from evalkit.errors import DataError, DesignError, Fault

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

DistanceName = Literal["score", "mahalanobis", "mahalanobis_overall", "robust_mahalanobis", "scaled", "euclidean"]

SINGULAR = 1e-9
"""Share of a covariate's variance that must be its own, not explained by the covariates before it."""


@dataclass(frozen=True)
class Space:
    """Where units lie.

    ``coords`` (n, d): the distance is Euclidean; one column is a line. ``matrix``: given distances instead, the rows
    that look for a match by the others; ``index`` (n,) says which row or column of it a unit is.
    """

    coords: Array
    matrix: Array | None = None
    index: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def line(self) -> bool:
        """Whether one coordinate says everything."""
        return self.matrix is None and self.coords.shape[1] == 1

    def swapped(self) -> Space:
        """The same distances seen from the other side."""
        return self if self.matrix is None else replace(self, matrix=np.ascontiguousarray(self.matrix.T))


def pooled_covariance(x: Array, treated: Mask) -> Array:
    """Covariance (p, p) of covariates (n, p) within the two groups: sums of squares about each mean over n - 2."""
    residual = np.array(x, np.float64)
    for arm in (treated, ~treated):
        residual[arm] -= residual[arm].mean(axis=0)
    return _products(residual) / (len(x) - 2)


def overall_covariance(x: Array) -> Array:
    """Covariance (p, p) of covariates (n, p) over all units, n - 1."""
    return _products(x - x.mean(axis=0)) / (len(x) - 1)


def place(
    kind: DistanceName | Array,
    treated: Mask,
    score: Array | None,
    covariates: Array | None,
    names: Sequence[str],
) -> Space:
    """The space of a distance.

    Parameters
    ----------
    kind: ``score``: |s_i - s_j|. ``mahalanobis``: sqrt((x_i - x_j)' S^-1 (x_i - x_j)), S the covariance pooled within
        the two groups (Rubin 1980); ``mahalanobis_overall``: S over all units (Abadie and Imbens 2006).
        ``robust_mahalanobis``: ranks, average ranks for ties, S their covariance with every variance set to that of
        ranks without ties (Rosenbaum 2010, section 8.3), so that rare values and long tails do not rule. ``scaled``: S
        the variances over all units (n - 1), no covariances. ``euclidean``: S the identity. An array (n1, n0): the
        distances themselves, treated by others, in row order; not finite where a pair may not be made.
    treated: (n,). score: (n,). covariates: (n, p), named by ``names``.

    Raises
    ------
    DesignError
        ``design.match_constant`` for a covariate without spread, ``design.match_collinear`` for one that follows from
        those before it, ``design.match_needs_score`` / ``design.match_needs_covariates`` for a missing argument,
        ``design.match_matrix_shape`` for distances of another shape. ``DataError``: ``data.match_negative`` for
        distances below zero.
    """
    if isinstance(kind, np.ndarray):
        index = np.where(treated, np.cumsum(treated), np.cumsum(~treated)) - 1
        return Space(np.zeros((len(treated), 0)), _given(kind, treated), index)
    if kind == "score":
        if score is None:
            raise DesignError(Fault("design.match_needs_score", {"how": "nearest"}))
        return Space(np.ascontiguousarray(score, np.float64)[:, None])
    if kind not in get_args(DistanceName):
        known = ", ".join(get_args(DistanceName))
        raise DesignError(Fault("design.match_unknown", {"option": "distance", "known": known}))
    if covariates is None or covariates.shape[1] == 0:
        raise DesignError(Fault("design.match_needs_covariates", {"distance": kind}))
    x = np.asarray(covariates, np.float64)
    names = list(names) or [str(k + 1) for k in range(x.shape[1])]
    if kind == "euclidean":
        return Space(np.ascontiguousarray(x))
    _refuse_constant(x, names)
    if kind == "robust_mahalanobis":
        x = np.column_stack([rankdata(column) for column in x.T])
        covariance = overall_covariance(x)
        untied = len(x) * (len(x) + 1) / 12.0
        ratio = np.sqrt(untied / np.diag(covariance))
        covariance = covariance * np.outer(ratio, ratio)
    elif kind == "mahalanobis":
        covariance = pooled_covariance(x, treated)
    elif kind == "mahalanobis_overall":
        covariance = overall_covariance(x)
    else:
        covariance = np.diag(np.var(x, axis=0, ddof=1))
    return Space(whiten(x, treated, covariance, names))


def whiten(x: Array, treated: Mask, covariance: Array, names: Sequence[str]) -> Array:
    """Coordinates (n, p) whose Euclidean distance is the Mahalanobis distance: (x - centre) L^-T with S = L L'.

    L is the lower Cholesky factor, so that the first coordinate is the first covariate in standard deviations. The
    centre, the mean of the treated, moves no distance, but it decides the last bit: where two distances are equal on
    paper (a year older, a year younger) ``tie="walk"`` follows that bit. Of several such arithmetics this one was kept
    because it picks the same people as MatchIt in the reference cases; in other data such a tie may fall the other way.
    """
    scale = np.sqrt(np.diag(covariance))
    if not (scale > 0).all():
        raise DesignError(Fault("design.match_constant", {"column": names[int(np.argmin(scale))]}))
    p = len(scale)
    inverse = np.zeros((p, p))
    factor = np.zeros((p, p))
    for a in range(p):
        for b in range(a + 1):
            rest = covariance[a, b]
            for k in range(b):
                rest -= factor[a, k] * factor[b, k]
            if a != b:
                factor[a, b] = rest / factor[b, b]
            elif rest <= SINGULAR * covariance[a, a]:
                raise DesignError(Fault("design.match_collinear", {"column": names[a]}))
            else:
                factor[a, a] = np.sqrt(rest)
        inverse[a, a] = 1.0 / factor[a, a]
        for b in range(a):
            inverse[a, b] = -sum(factor[a, k] * inverse[k, b] for k in range(b, a)) / factor[a, a]
    centred = x - x[treated].mean(axis=0)
    out = np.zeros(x.shape)
    for a in range(p):
        for k in range(a + 1):
            out[:, a] += inverse[a, k] * centred[:, k]
    return out


def _products(residual: Array) -> Array:
    p = residual.shape[1]
    out = np.empty((p, p))
    for a in range(p):
        for b in range(a + 1):
            out[a, b] = out[b, a] = (residual[:, a] * residual[:, b]).sum()
    return out


def _refuse_constant(x: Array, names: Sequence[str]) -> None:
    for k, name in enumerate(names):
        if np.ptp(x[:, k]) <= 0:
            raise DesignError(Fault("design.match_constant", {"column": name}))


def _given(matrix: Array, treated: Mask) -> Array:
    shape = (int(treated.sum()), int((~treated).sum()))
    if matrix.shape != shape:
        raise DesignError(Fault("design.match_matrix_shape", {"rows": shape[0], "columns": shape[1]}))
    if (matrix < 0).any():
        raise DataError(Fault("data.match_negative", {"number": int((matrix < 0).sum())}))
    return np.ascontiguousarray(matrix, np.float64)
