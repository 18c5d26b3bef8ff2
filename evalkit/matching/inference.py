"""Whose outcome moves an effect, and by how much: influence functions of the outcome steps.

Every function turns an :class:`~evalkit.matching.models.Expansion` T(w, g) into contributions by row, (n, K), in sum
form: estimate - truth is approximately their column sum. They are then summed within clusters.

**Matching** (``influence``). Who is matched with whom depends on the covariates alone, so a row acts in two ways.
Stand a focal row i once more in the data and its matches get more weight too; take a match j away and its focal rows
turn to others like it, who are expected to show c(j), the mean of U among rows of that arm who are like j. Hence

    psi_i = g_i V_i + g_i [U_i + c_other(i)] + K_i [U_i - c_own(i)],

with g_i one for focal rows and K_i the summed match weight. For ``means``, U is (Y - mean) / N1 up to sign, c is m0
up to the same constants, and this is [D (Y - m0 - tau) - (1 - D) K (Y - m0)] / N1 for the treated: the influence
function behind Abadie and Imbens (2006, 2012). What c is:

- ``bias_corrected``: the regression on X among the matches, weighted by K (Abadie and Imbens 2011);
- strata: the mean of U by stratum and arm, which makes psi the exact infinitesimal jackknife of an estimator whose
  stratum weights are counted anew; a stratum with one row of an arm borrows the regression on X;
- matching on a score: a cubic in the linear score, weighted by K;
- otherwise for ``means``: the regression on X; for regressions on X, whose U no longer depends on X: zero.

**An estimated score.** If the score comes from a logit with influence L_i on its coefficients, matching on it adds
L_i't with

    t = sum_j s_j K_j (X_j - x(score_j)) (U_j - c_j),   s_j = +1 for rows without treatment, -1 for others,

x the same cubic of the logit's own columns. In the limit t = -E[cov(X, mu_0(X) | score) | D = 1] for the treated and
-E[(1 - F) cov(X, mu_1 | score) + F cov(X, mu_0 | score)] for all, so that the variance is that of Abadie and Imbens
(2016, theorem 2): sigma^2 - c'I^-1 c (+ d'I^-1 d for the treated); see also Otsu and Rai (2017). ``bias_corrected``
leaves it out: its residuals no longer go with X.

**Weights** (``m_estimation``). With L_i the influence on the parameters theta of the weights,

    psi_i = w_i U_i + g_i V_i + O_i + L_i' [sum_j (dw_j / dtheta) U_j + (dg_j / dtheta) V_j],

the stacked moment conditions of weights, regressions and mean, solved for the last (Newey and McFadden 1994, section
6; Lunceford and Davidian 2004).

**Fixed weights** (``HC0`` to ``HC3``, ``pair_cluster``): psi_i = w_i U_i + O_i, conditional on the covariates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from evalkit.matching.adjustment import Weights
from evalkit.matching.models import Expansion, width_of
from evalkit.matching.part import Part
from evalkit.matching.regressions import Fit, fit_mean, small_sample

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """The score that rows were matched on.

    Attributes
    ----------
    linear: (n,) linear predictor x'theta.
    design: (n, q) columns x of the logit behind it, intercept included; None when the score is known, not estimated.
    influence: (n, q) influence of each row on theta in sum form; None when it is known.
    """

    linear: Array
    design: Array | None = None
    influence: Array | None = None

    @classmethod
    def of_logit(cls, linear: Array, design: Array, treated: NDArray[np.bool_]) -> Score:
        """A score from an unweighted logit of ``treated`` (n,) on ``design`` (n, q) by maximum likelihood.

        Influence I^-1 x (D - e) with I = sum e (1 - e) x x'.
        """
        chance = expit(linear)
        information = (design * (chance * (1 - chance))[:, None]).T @ design
        scores = design * (treated - chance)[:, None]
        return cls(linear, design, scores @ np.linalg.pinv(information, hermitian=True))


def matching_influence(part: Part, found: Expansion, x: Array, score: Score | None) -> tuple[Array, Array | None]:
    """Contributions (m, K) of the rows in use, and t (q, K) that goes with the score's influence (None without).

    Match terms are divided by sqrt(1 - leverage), focal ones by sqrt(1 - 1 / number of focal rows): HC2-type factors,
    which vanish in large samples (MacKinnon and White 1985).
    """
    own, other, leverage = _expected(part, found, x, score)
    share = part.population[:, None]
    focal = found.by_population + found.by_weight + other
    focal = share * (focal - share.T @ focal / share.sum()) / np.sqrt(1 - 1 / part.focal.sum())
    rest = part.matches[:, None] * (found.by_weight - own)
    psi = focal + small_sample(leverage) * rest
    if found.by_count is not None:
        psi = psi + found.by_count
    if score is None or score.design is None or found.corrected:
        return psi, None
    design, linear = score.design[part.rows], score.linear[part.rows]
    term = np.zeros((design.shape[1], psi.shape[1]))
    for treated in (False, True):
        rows = (part.matches != 0) & (part.treated == treated)
        if rows.any():
            aside = design - _smooth(linear, design, np.clip(part.matches * rows, 0.0, None)).fitted
            term += (-1.0 if treated else 1.0) * (aside[rows].T @ rest[rows])
    return psi, term


def _expected(part: Part, found: Expansion, x: Array, score: Score | None) -> tuple[Array, Array, Array]:
    """c of the own arm and of the other arm for each row (m, K), and the leverage of each row as a match."""
    shape = found.by_weight.shape
    by_arm = np.zeros((2, *shape))
    leverage = np.broadcast_to(found.leverage, shape).copy()
    strata = part.subclass is not None and part.pairs is None
    for arm in (0, 1):
        rows = (part.matches != 0) & (part.treated == bool(arm))
        if not rows.any():
            continue
        weight = np.clip(part.matches * rows, 0.0, None)
        given = found.expected[arm]
        fit: Fit | None = None
        if given is not None:
            by_arm[arm] = given
        elif strata or (score is None and not found.adjusted):
            fit = fit_mean(x[:, : width_of(x, int(rows.sum()))], found.by_weight, weight)
        elif score is not None:
            fit = _smooth(score.linear[part.rows], found.by_weight, weight)
        if fit is not None:
            by_arm[arm] = fit.fitted
            leverage[rows] = np.maximum(leverage, fit.leverage)[rows] if found.adjusted else fit.leverage[rows]
        if strata:
            _add_cells(part, weight, found.by_weight, by_arm[arm], leverage, alone=given is None)
    treated = part.treated[:, None]
    return np.where(treated, by_arm[1], by_arm[0]), np.where(treated, by_arm[0], by_arm[1]), leverage


def _add_cells(part: Part, weight: Array, values: Array, expected: Array, leverage: Array, *, alone: bool) -> None:
    """In strata with two rows or more of this arm: add to ``expected`` the mean of what it leaves.

    ``alone``: the mean takes the place of ``expected`` instead.
    """
    assert part.subclass is not None
    _, cell = np.unique(part.subclass, return_inverse=True)
    size = int(cell.max()) + 1
    serves = weight > 0
    total = np.bincount(cell, weight, size)
    several = np.bincount(cell[serves], minlength=size) > 1
    if alone:
        expected[several[cell]] = 0.0
    left = np.zeros((size, values.shape[1]))
    np.add.at(left, cell[serves], weight[serves, None] * (values - expected)[serves])
    mean = np.divide(left, total[:, None], out=np.zeros_like(left), where=several[:, None])
    expected += mean[cell]
    rows = serves & several[cell]
    leverage[rows] = (weight / np.where(total > 0, total, 1.0)[cell])[rows, None]


def _smooth(linear: Array, values: Array, weight: Array) -> Fit:
    """``values`` (m, K) as a cubic of the linear score among the rows with weight, level beyond their range."""
    used = weight > 0
    low, high = linear[used].min(), linear[used].max()
    z = (np.clip(linear, low, high) - (low + high) / 2) / max((high - low) / 2, np.finfo(float).tiny)
    powers = z[:, None] ** np.arange(4)
    return fit_mean(powers[:, : width_of(powers, int(used.sum()))], values, weight)


def weighting_influence(part: Part, found: Expansion, weights: Weights) -> tuple[Array, Array | None]:
    """Contributions (m, K) of the rows in use, and the term (p, K) that goes with ``weights.influence``.

    Without derivatives (cross-fitted learners) the term is None: right for ``aipw`` only, whose U and V have mean zero
    given the covariates when the outcome regressions are right, so that the weights' own error enters as a product
    with theirs (Chernozhukov et al. 2018).
    """
    psi = part.weight[:, None] * found.by_weight + part.population[:, None] * found.by_population
    if found.by_count is not None:
        psi = psi + found.by_count
    if weights.derivative is None:
        return psi, None
    term = weights.derivative[part.rows].T @ found.by_weight
    if weights.population_derivative is not None:
        term = term + weights.population_derivative[part.rows].T @ found.by_population
    return psi, term


def fixed_influence(part: Part, found: Expansion, kind: str = "HC0") -> Array:
    """Contributions (m, K) with weights and covariates taken as given: HC0, HC1, HC2 or HC3 of a weighted regression.

    HC1 scales by sqrt(n / (n - k)), n rows with weight and k coefficients; HC2 and HC3 divide residuals by
    sqrt(1 - h) and 1 - h (MacKinnon and White 1985).
    """
    psi = part.weight[:, None] * found.by_weight
    if found.by_count is not None:
        psi = psi + found.by_count
    if kind == "HC1":
        rows = int((part.weight != 0).sum())
        return np.asarray(psi * np.sqrt(rows / max(rows - found.parameters, 1)))
    if kind in ("HC2", "HC3"):
        rest = np.maximum(1 - found.leverage, np.finfo(float).eps)
        return np.asarray(psi / (rest if kind == "HC3" else np.sqrt(rest)))
    return np.asarray(psi)


@dataclass(frozen=True)
class PairSums:
    """Contributions by month summed three ways, for errors clustered by matched set.

    ``sets``: (G, K) by matched set. ``rows`` (n, K) by row of the data and ``single`` (R, K) by row of the list of
    matches: with replacement only, when a row is in several sets, else None. ``size``: (K,) rows of the regression;
    ``parameters``: its coefficients.
    """

    sets: Array
    rows: Array | None
    single: Array | None
    size: Array
    parameters: Array

    def vcov(self, adjust: bool = True) -> Array:
        """Covariance (K, K): sets + rows - single, each times G / (G - 1), all times (n - 1) / (n - k).

        Two-way clustering of Cameron, Gelbach and Miller (2011). ``adjust=False`` leaves both factors out.
        """
        total = np.zeros((self.sets.shape[1], self.sets.shape[1]))
        for sums, sign in ((self.sets, 1.0), (self.rows, 1.0), (self.single, -1.0)):
            if sums is None:
                continue
            groups = int((sums != 0).any(axis=1).sum())
            factor = groups / max(groups - 1, 1) if adjust else 1.0
            total += sign * factor * (sums.T @ sums)
        if adjust:
            scale = np.sqrt((self.size - 1) / np.maximum(self.size - self.parameters, 1))
            total = total * np.outer(scale, scale)
        return total


def pair_contributions(part: Part, found: Expansion) -> tuple[Array, Array, Array]:
    """With replacement, the list of matches: contributions of focal rows (m, K) and of matches (M, K), and both (m, K).

    A focal row stands in the list once with its weight in the population, a match once for each focal row.
    """
    assert part.pairs is not None
    focal, match, weight = part.pairs
    own = part.population[:, None] * found.by_weight
    lent = (weight * part.population[focal])[:, None] * found.by_weight[match]
    sets = own.copy()
    np.add.at(sets, focal, lent)
    return own, lent, sets
