"""The front door of weighting: from treatment and covariates to weights, whatever the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from evalkit.errors import DesignError, Fault
from evalkit.hashing import Hash
from evalkit.matching.adjustment import Array, Ints, Mask, TargetName, Weights
from evalkit.matching.weighting.cbps import covariate_balancing
from evalkit.matching.weighting.entropy import entropy
from evalkit.matching.weighting.ipw import from_score, inverse_probability
from evalkit.matching.weighting.models import ModelName, cross_fitted, fit_logit_to
from evalkit.matching.weighting.stable import stable
from evalkit.matching.weighting.terms import Problem, Solution, problem
from evalkit.matching.weighting.trimming import Trim, capped, kept_by_score

Method = Literal["ipw", "overlap", "entropy", "cbps", "stable"]

TARGETS: dict[str, tuple[TargetName, ...]] = {
    "ipw": ("att", "atc", "ate", "ato", "atm"),
    "overlap": ("ato",),
    "entropy": ("att", "atc", "ate"),
    "cbps": ("att", "atc", "ate"),
    "stable": ("att", "atc", "ate"),
}
"""Which targets a method has."""


@dataclass(frozen=True)
class _Rows:
    """The rows that take part; ``number``: their numbers among the rows given."""

    number: Ints
    treated: Mask
    x: Array
    base: Array
    key: Hash | None

    def where(self, keep: Mask) -> _Rows:
        if keep.all():
            return self
        key = None if self.key is None else self.key[keep]
        return _Rows(self.number[keep], self.treated[keep], self.x[keep], self.base[keep], key)


@dataclass(frozen=True)
class _Recipe:
    """What :func:`weigh` was asked, without the data."""

    how: Method
    target: TargetName
    names: tuple[str, ...]
    model: ModelName
    folds: int
    moments: int
    interactions: bool
    over: bool
    tolerance: float
    account: bool

    def problem(self, rows: _Rows) -> Problem:
        return problem(
            rows.treated,
            rows.x,
            rows.base,
            self.target,
            self.names,
            moments=self.moments,
            interactions=self.interactions,
            account=self.account,
        )

    def learned(self, rows: _Rows) -> Array:
        """Cross-fitted chance of treatment (n,)."""
        if self.model == "logit" or rows.key is None:
            raise ValueError("weigh: boosting and lasso need the key of each row's person")
        return cross_fitted(self.model, rows.treated, rows.x, rows.base, rows.key, self.folds)

    def solve(self, given: Problem, rows: _Rows) -> Solution:
        if self.how == "entropy":
            return entropy(given)
        if self.how == "cbps":
            return covariate_balancing(given, over=self.over)
        if self.how == "stable":
            return stable(given, tolerance=self.tolerance)
        if self.model == "logit":
            return inverse_probability(given)
        return from_score(given, logit(self.learned(rows)), None, 0)


def weigh(
    treated: NDArray[np.bool_],
    x: Array,
    *,
    how: Method,
    target: TargetName = "att",
    names: Sequence[str] | None = None,
    base: Array | None = None,
    key: Hash | None = None,
    model: ModelName = "logit",
    folds: int = 5,
    moments: int = 1,
    interactions: bool = False,
    over: bool = False,
    tolerance: float = 0.0,
    trim: Trim | None = None,
    cap: float | None = None,
    cap_quantile: float | None = None,
    account: bool = True,
) -> Weights:
    """Weights that make two groups alike, with what is needed to account for their estimation.

    The effect for the target is the difference of the weighted means of the outcome between the arms. No weights are
    rescaled; for ``att`` each treated row has its base weight.

    Parameters
    ----------
    treated: (n,) bool. ``x``: (n, p) covariates without an intercept, finite.
    how: ``ipw`` inverse probability weights from ``model``; ``overlap`` the same for target ``ato``; ``entropy``
        entropy balancing; ``cbps`` covariate balancing propensity score; ``stable`` stable balancing weights.
    target: ``att``, ``atc``, ``ate``; for ``ipw`` also ``ato`` and ``atm``. ``overlap`` is always ``ato``.
    names: (p,) names for messages.
    base: (n,) base weights >= 0; a row counts as that many rows. Rows with 0 take no part.
    key: (n,) keyed hash of each row's person; needed for ``boosting`` and ``lasso``.
    model: of the chance of treatment for ``ipw``: ``logit``; ``boosting`` or ``lasso``, cross-fitted in ``folds``.
    moments: powers of the covariates to balance or fit on, 1 to 3. ``interactions``: and the products of pairs.
    over: for ``cbps``: with the likelihood score beside the balance conditions (over-identified).
    tolerance: for ``stable``: the difference that may be left, in standard deviations.
    trim: rows outside a range of the chance of treatment are left out: ``(low, high)``, ``crump``, ``common``; see
        :func:`~evalkit.matching.weighting.trimming.kept_by_score`. The chance is that of ``model``, or of a logit on
        the terms. The weights are then estimated on the rows that are left, and all is conditional on them.
    cap, cap_quantile: largest weight a unit of base weight: a value, or a quantile of the weights that are estimated.
    account: work out ``derivative`` and ``influence``; without, they are None and memory is saved.

    Returns
    -------
    Weights
        ``influence`` is None for ``boosting`` and ``lasso``: cross-fitted, their error enters a doubly robust estimate
        only as a product with that of the outcome model (Chernozhukov et al. 2018); an estimate from the weights alone
        has no valid standard error. ``score`` of a trimmed row is the chance it was trimmed on, NaN where a row takes
        no part. Derivatives are 0 for capped rows (the cap is taken as given). ``imbalance`` is the largest difference
        of weighted means between the arms over all terms, in the standard deviation of the treated (``att``), of the
        others (``atc``), or the root of the mean of both variances, of the rows that are kept, before weighting.

    Raises
    ------
    DesignError
        ``design.no_treated``, ``design.no_controls``; ``design.constant_column``, ``design.collinear``,
        ``design.separation`` naming a column; ``design.weights_not_finite``, ``design.weights_base``;
        ``design.weights_cannot_balance`` naming terms; ``design.weights_nobody_left`` after trimming;
        ``design.weights_package``, ``design.weights_folds`` for the learners.
    """
    treated, x = np.asarray(treated, bool), np.asarray(x, float)
    weight = np.ones(len(treated)) if base is None else np.asarray(base, float)
    labels = tuple(names) if names is not None else tuple(f"x{j + 1}" for j in range(x.shape[1]))
    aim: TargetName = "ato" if how == "overlap" else target
    recipe = _Recipe(how, aim, labels, model, folds, moments, interactions, over, tolerance, account)
    _check_call(recipe, trim, cap, cap_quantile)
    _check_data(treated, x, labels, weight)
    rows = _Rows(np.arange(len(treated)), treated, x, weight, key).where(weight > 0)
    score = np.full(len(treated), np.nan)
    trimmed = np.empty(0, np.int64)
    if trim is not None:
        learned = how in ("ipw", "overlap") and model != "logit"
        chance = recipe.learned(rows) if learned else expit(fit_logit_to(recipe.problem(rows)).eta)
        score[rows.number] = chance
        keep = kept_by_score(chance, rows.treated, rows.base, aim, trim)
        trimmed = rows.number[~keep]
        rows = rows.where(keep)
        if rows.treated.all() or not rows.treated.any():
            left = int(rows.treated.sum())
            raise DesignError(
                Fault("design.weights_nobody_left", {"treated": left, "comparison": len(rows.treated) - left})
            )
    given = recipe.problem(rows)
    solved = recipe.solve(given, rows)
    capped_weight, limit, above = capped(solved.weight, rows.base, solved.fixed, cap, cap_quantile)
    if solved.score is not None:
        score[rows.number] = solved.score
    derivative, influence, moving = solved.derivative, solved.influence, solved.population_derivative
    if derivative is not None and above.any():
        derivative = np.where(above[:, None], 0.0, derivative)
    if not account:  # covariate balancing works them out on its way
        derivative = influence = moving = None
    n = len(treated)
    return Weights(
        treated=treated,
        target=aim,
        population=_spread(solved.population, rows, n),
        weight=_spread(capped_weight, rows, n),
        score=None if solved.score is None else score,
        derivative=None if derivative is None else _spread(derivative, rows, n),
        influence=None if influence is None else _spread(influence, rows, n),
        population_derivative=None if moving is None else _spread(moving, rows, n),
        trimmed=trimmed,
        truncated=int(above.sum()),
        cap=limit,
        converged=solved.converged,
        iterations=solved.iterations,
        imbalance=left_over(given, capped_weight),
    )


def left_over(given: Problem, weight: Array) -> float:
    """Largest absolute difference of weighted means between the arms over all terms, in standard deviations."""
    arms = [given.treated & (weight > 0), ~given.treated & (weight > 0)]
    if not all(arm.any() for arm in arms):
        return float("inf")
    shares = [np.where(arm, weight, 0.0) / weight[arm].sum() for arm in arms]
    gap = (shares[0] - shares[1]) @ given.z[:, 1:]
    return float(np.abs(gap / given.yardstick).max())


def _spread(values: Array, rows: _Rows, n: int) -> Array:
    """Values of the rows that take part among all ``n`` rows, 0 elsewhere."""
    if len(rows.number) == n:
        return values
    out = np.zeros((n,) + values.shape[1:])
    out[rows.number] = values
    return out


def _check_call(recipe: _Recipe, trim: Trim | None, cap: float | None, cap_quantile: float | None) -> None:
    """Refuse settings that contradict each other."""
    if recipe.how not in TARGETS or recipe.target not in TARGETS[recipe.how]:
        raise ValueError(f"weigh: {recipe.how} has no target {recipe.target}")
    if recipe.model != "logit":
        if recipe.how not in ("ipw", "overlap"):
            raise ValueError(f"weigh: {recipe.how} has no other model than its own")
        if recipe.moments > 1 or recipe.interactions:
            raise ValueError(f"weigh: powers and products are for the logit, not for {recipe.model}")
    if recipe.moments not in (1, 2, 3) or recipe.tolerance < 0 or recipe.folds < 2:
        raise ValueError("weigh: moments 1 to 3, tolerance at least 0, at least 2 folds")
    if trim == "crump" and recipe.target in ("ato", "atm"):
        raise ValueError(f"weigh: {recipe.target} needs no trimming by variance; its weights are bounded")
    if isinstance(trim, tuple) and not 0 <= trim[0] < trim[1] <= 1:
        raise ValueError("weigh: trim between two chances, the lower one first")
    if (cap is not None and not cap > 0) or (cap_quantile is not None and not 0 < cap_quantile <= 1):
        raise ValueError("weigh: a cap is positive and its quantile between 0 and 1")


def _check_data(treated: Mask, x: Array, names: tuple[str, ...], base: Array) -> None:
    """Refuse data that no method can use."""
    if x.ndim != 2 or x.shape != (len(treated), len(names)) or base.shape != treated.shape or not names:
        raise ValueError("weigh: treated (n,), x (n, p) with p >= 1, names (p,) and base (n,) must fit together")
    if not np.isfinite(base).all() or (base < 0).any():
        raise DesignError(Fault("design.weights_base"))
    taking = treated[base > 0]
    if taking.all() or not taking.any():
        raise DesignError(Fault("design.no_controls" if taking.any() else "design.no_treated"))
    bad = np.flatnonzero(~np.isfinite(x).all(axis=0))
    if len(bad):
        raise DesignError(Fault("design.weights_not_finite", {"column": names[bad[0]]}))
