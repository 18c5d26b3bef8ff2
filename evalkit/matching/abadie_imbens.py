"""Standard errors of Abadie and Imbens for nearest-neighbour matching with replacement, rows independent.

With d_i the difference between focal row i and its matches, signed so that it is treatment minus none, g_i one for
focal rows (G of them), K_j the summed and K'_j the summed squared match weight (Abadie and Imbens 2006, theorems 6
and 7):

    V = [ sum_i g_i (d_i - tau)(d_i - tau)' + sum_j (K_j^2 + 2 g_j K_j - K'_j) Sigma_j ] / G^2.

Sigma_j, the covariance of the outcomes given covariates, is the same for all (half the weighted mean over pairs of the
squared pair difference less tau, the default of R's ``Matching``) or the sample covariance among j and the J rows of
the same arm nearest to it (Abadie, Drukker, Herr and Imbens 2004). With bias correction d_i and the pair differences
are those of the corrected matches.

**Estimated score** (Abadie and Imbens 2016, theorem 2). The logit's information I being a sum over rows,

    V - c' I^-1 c                  for ``ate``,      V - c' I^-1 c + d' I^-1 d   for ``att`` and ``atc``,

    ate: c = mean of f [cov_1 / F + cov_0 / (1 - F)]
    att: c = sum f [X (mu_1 - mu_0 - tau) + cov_1 + F / (1 - F) cov_0] / N1,
         d = sum f [X (mu_1 - mu_0 - tau) + cov_1 - cov_0] / N1
    atc: with the arms and the sign exchanged,

with f = F (1 - F), and cov_d the covariance of X and outcome given the score and mu_d the mean outcome, both among the
L rows of arm d whose chance is nearest. The original estimates d by matching anew on all covariates; here d is
brought back to the same local moments, since E[X (mu_1(X) - mu_0(X)) | F] = E[X | F] (mu_1(F) - mu_0(F)) +
cov_1 - cov_0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import expit

from evalkit.matching.inference import Score
from evalkit.matching.models import Expansion
from evalkit.matching.part import Part

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
SAME = 1e-9
"""Distances that differ by less than this, relative to the farthest wanted, are equal."""


@dataclass(frozen=True)
class Neighbours:
    """Where to look for the spread of outcomes given covariates.

    ``coordinates``: (n, q) such that the ordinary distance between rows says how unlike they are (standardised
    covariates, or the score alone). ``number``: J, how many other rows of the same arm; rows as near as the last one
    are all counted.
    """

    coordinates: Array
    number: int = 1


def nearest_rows(coordinates: Array, among: Ints, of: Ints, number: int, itself: bool) -> list[Ints]:
    """For each row ``of``, the ``number`` nearest rows ``among``, ties with the last included, ascending.

    ``itself``: whether a row that is among them counts as its own neighbour.
    """
    tree = cKDTree(coordinates[among])
    wanted = min(number + (0 if itself else 1), len(among))
    distance = np.atleast_2d(tree.query(coordinates[of], k=[wanted])[0])[:, 0]
    found = tree.query_ball_point(coordinates[of], distance * (1 + SAME) + np.finfo(float).tiny, return_sorted=True)
    sets = [among[np.asarray(near, np.int64)] for near in found]
    return sets if itself else [near[near != row] for near, row in zip(sets, of.tolist(), strict=True)]


def pair_differences(part: Part, found: Expansion, y: Array) -> tuple[Array, Array]:
    """By pair (M, K): the focal row's outcome and what its match says it would have been in the other arm."""
    assert part.pairs is not None
    focal, match, _ = part.pairs
    imputed = y[match]
    if found.corrected:
        step = np.zeros_like(imputed)
        for arm, expected in enumerate(found.expected):
            rows = part.treated[match] == bool(arm)
            if expected is not None:
                total = part.weight[part.treated == bool(arm)].sum()
                step[rows] = (2 * arm - 1) * total * (expected[focal[rows]] - expected[match[rows]])
        imputed = imputed + step
    return y[focal], imputed


@dataclass(frozen=True)
class Everyone:
    """All rows of the data, among which neighbours are looked for: outcomes (n, K), treated (n,), usable (n,) bool."""

    y: Array
    treated: NDArray[np.bool_]
    usable: NDArray[np.bool_]

    def arm(self, treated: bool) -> Ints:
        """Rows of one arm that may be neighbours."""
        return np.flatnonzero(self.usable & (self.treated == treated))


def abadie_imbens(part: Part, found: Expansion, everyone: Everyone, near: Neighbours | None = None) -> Array:
    """Covariance (K, K) of the effects by month; see the module.

    ``near``: look for Sigma_j among neighbours; None for one Sigma for all.
    """
    assert part.pairs is not None
    focal, match, weight = part.pairs
    y = everyone.y[part.rows]
    size, total = len(part.rows), part.population.sum()
    sign = np.where(part.treated, 1.0, -1.0)
    own, imputed = pair_differences(part, found, y)
    mean = np.zeros(y.shape)
    np.add.at(mean, focal, weight[:, None] * imputed)
    rows = np.flatnonzero(part.focal)
    apart = sign[rows, None] * (y - mean)[rows] - found.estimate
    squares = apart.T @ apart
    share = weight * part.population[focal]
    times = np.bincount(match, share, size)
    extra = times**2 + 2 * part.population * times - np.bincount(match, share**2, size)
    if near is None:
        plain = sign[focal, None] * (own - imputed) - found.estimate
        spread = (plain * share[:, None]).T @ plain / (2 * share.sum())
        return np.asarray((squares + extra.sum() * spread) / total**2)
    for treated in (False, True):
        chosen = np.flatnonzero((part.treated == treated) & (extra > 0))
        if len(chosen):
            squares = squares + _spread(everyone, near, everyone.arm(treated), part.rows[chosen], extra[chosen])
    return np.asarray(squares / total**2)


def _spread(everyone: Everyone, near: Neighbours, among: Ints, of: Ints, times: Array) -> Array:
    """sum_j times_j Sigma_j (K, K), Sigma_j the sample covariance of row j and its J neighbours."""
    total = np.zeros((everyone.y.shape[1],) * 2)
    sets = nearest_rows(near.coordinates, among, of, near.number, itself=False)
    for row, rows, weight in zip(of.tolist(), sets, times.tolist(), strict=True):
        if len(rows):
            y = everyone.y[np.append(rows, row)]
            apart = y - y.mean(axis=0)
            total += weight / len(rows) * (apart.T @ apart)
    return total


def estimated_score_term(part: Part, found: Expansion, everyone: Everyone, score: Score, number: int = 2) -> Array:
    """What the estimation of the score adds to the covariance (K, K): -c'I^-1 c, plus d'I^-1 d unless ``ate``.

    ``number``: L >= 2, rows of each arm whose chance is nearest, among which moments are worked out.
    """
    assert score.design is not None
    chance = expit(score.linear)
    slope = chance * (1 - chance)
    x = score.design
    information = (x * slope[:, None]).T @ x
    rows = np.flatnonzero(everyone.usable)
    level, cov = [], []
    for treated in (False, True):
        sets = nearest_rows(chance[:, None], everyone.arm(treated), rows, number, itself=True)
        mean, together = _moments(sets, x, everyone.y)
        level.append(mean)
        cov.append(together)
    e, f = chance[rows, None, None], slope[rows, None, None]
    focal_arms = {bool(arm) for arm in part.treated[part.focal]}
    if len(focal_arms) == 2:
        c = (f * (cov[1] / e + cov[0] / (1 - e))).mean(axis=0)
        d = np.zeros_like(c)
    else:
        # f X (mu_1 - mu_0 - tau) stands for the shift of the population towards rows whose chance moves most
        shift = x[rows][:, :, None] * (level[1] - level[0] - found.estimate)[:, None, :]
        if True in focal_arms:
            c = (f * (shift + cov[1] + e / (1 - e) * cov[0])).sum(axis=0) / chance[rows].sum()
            d = (f * (shift + cov[1] - cov[0])).sum(axis=0) / chance[rows].sum()
        else:
            c = (f * (-shift + cov[0] + (1 - e) / e * cov[1])).sum(axis=0) / (1 - chance[rows]).sum()
            d = (f * (-shift + cov[0] - cov[1])).sum(axis=0) / (1 - chance[rows]).sum()
    inverse = np.linalg.pinv(information, hermitian=True)
    return np.asarray(d.T @ inverse @ d - c.T @ inverse @ c)


def _moments(sets: list[Ints], x: Array, y: Array) -> tuple[Array, Array]:
    """Mean of y (R, K) and covariance of the columns of x and y (R, q, K) by set of rows; zero for a single row."""
    size = np.array([len(near) for near in sets])
    rows, first = np.concatenate(sets), np.concatenate([[0], np.cumsum(size)[:-1]])

    def mean_of(values: Array) -> Array:
        return np.asarray(np.add.reduceat(values, first, axis=0) / size[:, None])

    mean = mean_of(y[rows])
    apart = y[rows] - np.repeat(mean, size, axis=0)
    together = np.empty((len(sets), x.shape[1], y.shape[1]))
    for k, column in enumerate(x.T):
        own = column[rows] - np.repeat(mean_of(column[rows, None]), size, axis=0)[:, 0]
        total = np.add.reduceat(own[:, None] * apart, first, axis=0)
        together[:, k] = total / np.maximum(size - 1, 1)[:, None]
    return mean, together
