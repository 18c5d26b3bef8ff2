"""The chance of starting: a logit by maximum likelihood on a design that is never expanded.

Estimates P(D = 1 | x) = 1 / (1 + exp(-x'theta)) by Newton's method with step halving (McCullagh and Nelder 1989,
ch. 4). Pooled over risk sets, with dummies for elapsed month and calendar quarter, it is the discrete-time hazard of
starting (Allison 1982). Agrees with R's ``glm`` and with statsmodels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.design import Design
from evalkit.errors import DesignError, Fault
from evalkit.kernels import logit
from evalkit.matching.newton import maximise, pivots

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Logit:
    """A fitted logit: coefficients (p,), covariance (p, p) from the inverse information, linear predictor (n,)."""

    names: tuple[str, ...]
    coefficients: Array
    vcov: Array
    score: Array
    loglik: float
    iterations: int

    @property
    def std_error(self) -> Array:
        """Standard errors (p,)."""
        return np.sqrt(np.clip(np.diag(self.vcov), 0.0, None))


def fit_logit(design: Design, y: NDArray[np.bool_]) -> Logit:
    """Maximum-likelihood logit of ``y`` (n,) on the design.

    Raises
    ------
    DesignError
        ``design.no_treated`` / ``design.no_controls``; ``design.collinear`` naming a column; ``design.separation`` when
        the likelihood has no maximum because some combination of covariates predicts the start perfectly.
    """
    n_treated = int(y.sum())
    if n_treated == 0 or n_treated == len(y):
        raise DesignError(Fault("design.no_treated" if n_treated == 0 else "design.no_controls"))
    shared, own = centred(design)
    factors, own_factors = design.parameter_codes()
    arrays = (design.index, shared[0], own[0], factors, own_factors)
    names = design.names
    reach = np.ones(len(names))
    numeric = [np.abs(block).max(axis=0, initial=0.0) for block in (shared[0], own[0])]
    reach[1 : 1 + sum(map(len, numeric))] = np.concatenate(numeric)
    theta = np.zeros(len(names))
    theta[0] = np.log(n_treated / (len(y) - n_treated))

    def likelihood(at: Array) -> tuple[float, Array, Array]:
        value, score, information = logit.score_and_information(*arrays, y, at)
        return value, score, information

    def moves(step: Array) -> float:
        return float(np.abs(logit.linear_predictor(*arrays, step)).max())

    time = sum(len(f.levels) - 1 for f in design.time_factors)
    kept = independent(likelihood(theta)[2], names, first_of_time=len(names) - time)
    slopes = np.arange(1, len(names))
    best = maximise(likelihood, theta, kept, slopes, moves, lambda step: separated(step, reach, names))
    linear = logit.linear_predictor(*arrays, best.theta)
    back = back_transform(len(names), shared, own)
    inverse = np.zeros_like(best.information)
    inverse[np.ix_(kept, kept)] = np.linalg.inv(best.information[np.ix_(kept, kept)])
    vcov = (back @ inverse @ back.T)[np.ix_(kept, kept)]
    return Logit(tuple(names[i] for i in kept), (back @ best.theta)[kept], vcov, linear, best.value, best.iterations)


def centred(design: Design) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """Unit-level and row-level numeric columns, centred and scaled, with centre and scale."""
    out = []
    for values in (design.numeric, design.own_numeric):
        centre = values.mean(axis=0) if len(values) else np.zeros(values.shape[1])
        scale = values.std(axis=0) if len(values) else np.ones(values.shape[1])
        varies = scale > 1e-12 * np.abs(centre)  # rounding gives a constant column a tiny spread
        scale = np.where(varies, scale, 1.0)
        out.append((np.ascontiguousarray(np.where(varies, (values - centre) / scale, 0.0)), centre, scale))
    return out[0], out[1]


def back_transform(p: int, shared: tuple[Array, Array, Array], own: tuple[Array, Array, Array]) -> Array:
    """Matrix that turns coefficients on scaled columns into coefficients on the columns themselves."""
    centre = np.concatenate([shared[1], own[1]])
    scale = np.concatenate([shared[2], own[2]])
    back = np.eye(p)
    for j in range(len(scale)):
        back[1 + j, 1 + j] = 1.0 / scale[j]
        back[0, 1 + j] = -centre[j] / scale[j]
    return back


def independent(information: Array, names: tuple[str, ...], first_of_time: int) -> NDArray[np.int64]:
    """Columns with a pivot of their own, on the scaled information, see :func:`pivots`.

    Row-level dummies (elapsed month, quarter) that follow from the columns before them are left out: the model stays
    the same. A covariate that does is refused by name.
    """
    scale = np.sqrt(np.diag(information))
    constant = np.flatnonzero(scale == 0)
    if len(constant):
        raise DesignError(Fault("design.constant_column", {"column": names[constant[0]]}))
    return pivots(information / np.outer(scale, scale), names, first_of_time, 1e-9)


def separated(step: Array, reach: Array, names: tuple[str, ...]) -> DesignError:
    """The fault that names the column whose term moves the furthest; ``reach``: its largest value in any row."""
    column = 1 + int(np.abs(step[1:] * reach[1:]).argmax()) if len(names) > 1 else 0
    return DesignError(Fault("design.separation", {"column": names[column]}))
