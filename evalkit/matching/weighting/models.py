"""Models of the chance of treatment on arrays: a logit by maximum likelihood, and two learners with cross-fitting.

The logit estimates P(D = 1 | x) = 1 / (1 + exp(-a - x'b)) by Newton's method (McCullagh and Nelder 1989, ch. 4) and
agrees with R's ``glm``. With gradient boosting (of scikit-learn, an optional package) and with the lasso, each row's
chance comes from a model fitted without that person (cross-fitting; Chernozhukov et al. 2018).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from evalkit.errors import DesignError, Fault
from evalkit.hashing import Hash
from evalkit.matching.adjustment import Array, Ints, Mask
from evalkit.matching.weighting.lasso import chosen_penalty, lasso_path, penalties
from evalkit.matching.weighting.newton import Logistic, Minimum, minimise
from evalkit.matching.weighting.terms import Problem, problem

ModelName = Literal["logit", "boosting", "lasso"]

LARGEST = 30.0
"""A coefficient on a standardised column and a linear predictor beyond this are a chance of 1e-13: separation."""

MAX_ITERATIONS = 60
"""Under separation a linear predictor grows by one an iteration; a logit that has a maximum needs some ten."""

CERTAIN = 1e-6
"""Chances of learners are kept this far from 0 and 1."""


@dataclass(frozen=True)
class DenseLogit:
    """A fitted logit.

    Attributes
    ----------
    names: (1 + p,) the intercept first. ``coefficients`` (1 + p,) on the columns as given.
    vcov: (1 + p, 1 + p) inverse information. ``score``: (n,) linear predictor. ``chance``: (n,) fitted chance.
    loglik, iterations: at the maximum.
    """

    names: tuple[str, ...]
    coefficients: Array
    vcov: Array
    score: Array
    chance: Array
    loglik: float
    iterations: int

    @property
    def std_error(self) -> Array:
        """Standard errors (1 + p,)."""
        return np.sqrt(np.diag(self.vcov))


def fit_dense_logit(treated: Mask, x: Array, names: Sequence[str], base: Array | None = None) -> DenseLogit:
    """Maximum-likelihood logit of ``treated`` (n,) on ``x`` (n, p), with an intercept of its own.

    Parameters
    ----------
    names: (p,) names of the columns. ``base``: (n,) weights > 0 on the log-likelihood, 1 without.

    Raises
    ------
    DesignError
        ``design.no_treated``, ``design.no_controls``; ``design.constant_column``, ``design.collinear`` naming a column;
        ``design.separation`` when some combination of covariates tells perfectly who is treated.
    """
    base = np.ones(len(treated)) if base is None else base
    if treated.all() or not treated.any():
        raise DesignError(Fault("design.no_controls" if treated.any() else "design.no_treated"))
    fitted = problem(treated, x, base, "ate", tuple(names))
    found = fit_logit_to(fitted)
    back = np.eye(1 + x.shape[1])
    back[1:, 1:] /= fitted.scale[:, None]
    back[0, 1:] = -fitted.centre / fitted.scale
    return DenseLogit(
        ("intercept",) + tuple(names),
        back @ found.theta,
        back @ np.linalg.inv(found.hessian) @ back.T,
        found.eta,
        expit(found.eta),
        -found.value,
        found.iterations,
    )


def fit_logit_to(given: Problem) -> Minimum:
    """The logit on the terms of a problem; ``design.separation`` naming the term that runs away."""
    total = float(given.base.sum())
    share = float(given.base @ given.treated) / total
    start = np.zeros(given.z.shape[1])
    start[0] = np.log(share / (1.0 - share))
    found = minimise(
        given.z, Logistic(given.treated, given.base), total=total, start=start, stop=_runs_away, most=MAX_ITERATIONS
    )
    if not found.converged:
        raise separated(given, found.step)
    return found


def _runs_away(theta: Array, eta: Array) -> bool:
    return bool(np.abs(theta[1:]).max(initial=0.0) > LARGEST and np.abs(eta).max() > LARGEST)


def separated(given: Problem, step: Array) -> DesignError:
    """The fault that names the term whose share in the linear predictor moves the furthest."""
    moved = np.abs(step[1:]) * np.abs(given.z[:, 1:]).max(axis=0)
    return DesignError(Fault("design.separation", {"column": given.names[int(moved.argmax())]}))


def folds_of(key: Hash, treated: Mask, folds: int) -> Ints:
    """Fold (n,) of each row: all rows of a person in one, treated persons spread evenly, no row order involved.

    ``key``: (n,) keyed hash of the person. Persons with a treated row and those without are each ranked by hash and
    dealt out in turn.
    """
    persons, inverse = np.unique(key, return_inverse=True)
    ever = np.bincount(inverse, treated, minlength=len(persons)) > 0
    fold = np.empty(len(persons), np.int64)
    fold[ever] = np.arange(ever.sum()) % folds
    fold[~ever] = np.arange((~ever).sum()) % folds
    return fold[inverse]


def cross_fitted(
    model: Literal["boosting", "lasso"], treated: Mask, x: Array, base: Array, key: Hash, folds: int
) -> Array:
    """Chance of treatment (n,), each row's from a model fitted on the persons of the other folds.

    Rows are put in one order before fitting (by hash, then by what they hold), one thread is used and seeds are fixed:
    the order of the rows given makes no difference.

    Raises
    ------
    DesignError
        ``design.weights_package`` for boosting without scikit-learn; ``design.weights_folds`` when there are too few
        treated or untreated persons for the folds.
    """
    order = np.lexsort((*x.T, base, treated, key))
    treated, x, base, key = treated[order], x[order], base[order], key[order]
    fold = folds_of(key, treated, folds)
    chance = np.empty(len(treated))
    fit = _boosting if model == "boosting" else _lasso
    for left_out in range(folds):
        rows, others = fold == left_out, fold != left_out
        few = min(int(treated[others].sum()), int((~treated[others]).sum()))
        if few < 2 * folds:
            raise DesignError(Fault("design.weights_folds", {"folds": folds, "needed": 2 * folds}))
        predict = fit(treated[others], x[others], base[others], key[others], folds)
        chance[rows] = predict(x[rows])
    out = np.empty(len(chance))
    out[order] = np.clip(chance, CERTAIN, 1.0 - CERTAIN)
    return out


def _boosting(treated: Mask, x: Array, base: Array, key: Hash, folds: int) -> Callable[[Array], Array]:
    """Gradient boosted trees: 100 shallow trees, no early stopping (which would hold out rows)."""
    ensemble, threads = _package("sklearn.ensemble"), _package("threadpoolctl")
    machine = ensemble.HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=0
    )

    def predict(rows: Array) -> Array:
        with threads.threadpool_limits(limits=1):
            return np.asarray(machine.predict_proba(rows)[:, 1], float)

    with threads.threadpool_limits(limits=1):
        machine.fit(x, treated, sample_weight=None if np.ptp(base) == 0 else base)
    return predict


def _lasso(treated: Mask, x: Array, base: Array, key: Hash, folds: int) -> Callable[[Array], Array]:
    """Logit with an absolute penalty on standardised columns, chosen by cross-validation over persons."""
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(centre), scale, np.inf)  # a column without spread stays out

    def wide(rows: Array) -> Array:
        return np.column_stack([np.ones(len(rows)), (rows - centre) / scale])

    z = wide(x)
    grid = penalties(z, treated, base)
    best = chosen_penalty(z, treated, base, folds_of(key, treated, folds), grid)
    theta = lasso_path(z, treated, base, grid[: best + 1])[-1]
    return lambda rows: np.asarray(expit(wide(rows) @ theta), float)


def _package(name: str) -> Any:
    """Import a module of scikit-learn, or say that the package is needed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pass
    raise DesignError(Fault("design.weights_package", {"package": "scikit-learn"}))
