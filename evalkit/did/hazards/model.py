"""Hazards with additive effects of duration, group and calendar month on a link scale, from counts.

For cause d, ``g(h_d(t, group, c, x)) = alpha_t + lambda_group + gamma_c + beta_x`` with g the complementary log-log
(``h = 1 - exp(-exp(eta))``) or the identity. Every effect is a factor, so normal equations are cross-tables: no design
matrix.

Cloglog: maximum likelihood by Newton's method; the log-likelihood is concave. Identity: least squares over
    person-months.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from evalkit.did.panel import Mask, Numbers
from evalkit.effects import Array
from evalkit.errors import DesignError, Fault

Link = Literal["cloglog", "identity"]

RANK = 1e-9
"""Eigenvalues of the scaled cross-table below this are zero: tables of ones hold no ratio anywhere near it."""

ESTIMABLE = 1e-6
"""What a combination may have of a direction that the data do not determine (of length one in its largest element)."""

LOWEST, HIGHEST = -25.0, 4.0
"""Linear predictors beyond these mean that the likelihood has no maximum."""

Blocks = tuple[Array, ...]
"""One array (levels, ..) a factor."""


@dataclass(frozen=True)
class Fitted:
    """A fitted hazard model of F factors.

    Attributes
    ----------
    coefficient: by factor (levels,). NaN: the level is not in the data; -inf, +inf: nobody, everybody in it left
        (cloglog).
    used: (R,) rows that the score runs over. eta: (R,) linear predictor there, 0 elsewhere.
    null: by factor (levels, q): directions that the data do not determine.
    """

    link: Link
    coefficient: Blocks
    used: Mask
    eta: Array
    null: Blocks
    parameters: int
    log_likelihood: float
    iterations: int
    _system: _System

    def hazard(self, codes: Numbers) -> tuple[Array, Array, Mask]:
        """Hazard, its derivative to the linear predictor, and whether it is estimable; codes (F, ..) of levels.

        A level in which nobody left has hazard 0 for whoever belongs to it: that is the maximum of the likelihood.
        """
        eta = sum(block[code] for block, code in zip(self.coefficient, codes, strict=True))
        eta = np.asarray(eta)
        parts = [block[code] for block, code in zip(self.coefficient, codes, strict=True)]
        never = np.any([part == -np.inf for part in parts], axis=0)
        always = np.any([part == np.inf for part in parts], axis=0)
        fixed = never ^ always
        known = np.isfinite(eta)
        free = known.copy()
        if self.null[0].shape[1]:
            loading = np.sum([block[code] for block, code in zip(self.null, codes, strict=True)], axis=0)
            free &= (np.abs(loading) < ESTIMABLE).all(axis=-1)
        safe = np.where(free, eta, 0.0)
        h, slope = inverse(safe, self.link)
        h = np.where(free, h, np.where(always, 1.0, 0.0))
        return h, np.where(free, slope, 0.0), free | fixed

    def weights(self, gradient: Blocks) -> Blocks:
        """Information inverse times a gradient, by factor (levels, K): an influence of sum_j gradient_j theta_j is
        these weights, summed over the levels of a row, times the row's score."""
        return self._system.solve(gradient)


def inverse(eta: Array, link: Link) -> tuple[Array, Array]:
    """Hazard and its derivative to the linear predictor."""
    if link == "identity":
        return eta, np.ones_like(eta)
    m = np.exp(np.minimum(eta, 50.0))
    return -np.expm1(-m), m * np.exp(-m)


def score_parts(eta: Array, link: Link) -> tuple[Array, Array]:
    """What a person-month adds to the score of the linear predictor without an exit, and with one."""
    if link == "identity":
        return -eta, 1.0 - eta
    m = np.exp(eta)
    with np.errstate(over="ignore"):
        return -m, m / np.expm1(m)


def _terms(eta: Array, n: Array, y: Array, link: Link) -> tuple[float, Array, Array]:
    """Log-likelihood (or minus half the sum of squares), its derivative to the predictors, minus the second one."""
    if link == "identity":
        return float(-0.5 * (y * (1 - eta) ** 2 + (n - y) * eta**2).sum()), y - n * eta, n
    m = np.exp(eta)
    h = -np.expm1(-m)
    a = m * (1 - h) / h  # m / (e^m - 1)
    # a^2 e^m - a = a (m / (1 - e^-m) - 1), which for small m loses its digits: the series is m/2 + m^2/12
    bend = np.where(m < 1e-4, m / 2 + m * m / 12, m / h - 1.0)
    stays = (n - y) * m
    return float((y * np.log(h)).sum() - stays.sum()), y * a - stays, stays + y * a * bend


class _System:
    """Normal equations of one-hot factors: the longest factor is diagonal and is eliminated, the others are dense."""

    def __init__(self, columns: list[Numbers], sizes: tuple[int, ...], weight: Array, known: list[Numbers]):
        self.sizes, self.known = sizes, known
        self.big = int(np.argmax([len(levels) for levels in known]))
        self.rest = [f for f in range(len(sizes)) if f != self.big]
        wide = [len(known[f]) for f in self.rest]
        self.edges = np.concatenate([[0], np.cumsum(wide)]).astype(int)
        b = len(known[self.big])
        self.diagonal = np.bincount(columns[self.big], weight, minlength=b)
        self.cross = np.concatenate(
            [_table(columns[self.big], columns[f], b, len(known[f]), weight) for f in self.rest], axis=1
        )
        core = np.zeros((self.edges[-1], self.edges[-1]))
        for i, f in enumerate(self.rest):
            for j, k in enumerate(self.rest[: i + 1]):
                block = _table(columns[f], columns[k], wide[i], wide[j], weight)
                core[self.edges[i] : self.edges[i + 1], self.edges[j] : self.edges[j + 1]] = block
                core[self.edges[j] : self.edges[j + 1], self.edges[i] : self.edges[i + 1]] = block.T
        self.core_diagonal = np.diag(core).copy()
        self.schur = core - self.cross.T @ (self.cross / self.diagonal[:, None])

    def null(self) -> tuple[Array, Blocks]:
        """Orthonormal null vectors of the dense part, and by factor the whole vectors, largest element one."""
        scale = 1.0 / np.sqrt(self.core_diagonal)
        roots, vectors = np.linalg.eigh(self.schur * np.outer(scale, scale))
        dense = scale[:, None] * vectors[:, roots < RANK]
        basis = np.linalg.qr(dense)[0] if dense.shape[1] else dense
        whole = self._whole(-(self.cross @ basis) / self.diagonal[:, None], basis)
        top = np.max([np.abs(block).max(axis=0, initial=0.0) for block in whole], axis=0) if basis.shape[1] else 1.0
        return basis, tuple(block / top for block in whole)

    def close(self, basis: Array) -> None:
        """Make it regular along the null vectors; solutions for estimable gradients do not depend on how."""
        self.factor = linalg.cho_factor(self.schur + np.mean(self.core_diagonal) * (basis @ basis.T))

    def solve(self, gradient: Blocks) -> Blocks:
        first = gradient[self.big][self.known[self.big]]
        others = np.concatenate([gradient[f][self.known[f]] for f in self.rest], axis=0)
        dense = linalg.cho_solve(self.factor, others - self.cross.T @ (first / self.diagonal[:, None]))
        return self._whole((first - self.cross @ dense) / self.diagonal[:, None], dense)

    def _whole(self, first: Array, dense: Array) -> Blocks:
        out = [np.zeros((size, dense.shape[1])) for size in self.sizes]
        out[self.big][self.known[self.big]] = first
        for i, f in enumerate(self.rest):
            out[f][self.known[f]] = dense[self.edges[i] : self.edges[i + 1]]
        return tuple(out)


def _table(a: Numbers, b: Numbers, rows: int, columns: int, weight: Array) -> Array:
    found = np.bincount(a * columns + b, weight, minlength=rows * columns)
    return np.asarray(found, np.float64).reshape(rows, columns)


def fit(
    codes: Numbers, sizes: tuple[int, ...], n: Numbers, y: Numbers, rows: Mask, link: Link, number: int = 1
) -> Fitted:
    """Fit on some rows; codes (F, R) of levels, two factors at least; n (R,) at risk, y (R,) exits. ``number``: of the
    cause, for faults.

    Raises
    ------
    DesignError
        ``did.hazards_no_exits`` when nobody leaves in these rows; ``did.hazards_not_converged`` when the likelihood
        has no maximum.
    """
    used = rows & (n > 0)
    if not y[used].sum():
        raise DesignError(Fault("did.hazards_no_exits", {"number": number}))
    coefficient = [np.full(size, np.nan) for size in sizes]
    if link == "cloglog":
        used = _without_edges(codes, sizes, n, y, used, coefficient)
    place = np.flatnonzero(used)
    if len(place) == 0:
        raise DesignError(Fault("did.hazards_not_converged", {"number": number}))
    own, at, out = codes[:, place], n[place].astype(float), y[place].astype(float)
    known = [np.unique(code) for code in own]
    columns = [_position(levels, size)[code] for levels, size, code in zip(known, sizes, own, strict=True)]
    basis, null = _System(columns, sizes, np.ones(len(place)), known).null()
    rank = sum(map(len, known)) - basis.shape[1]
    start = [np.zeros((size, 1)) for size in sizes]
    if link == "cloglog":
        start[0][:] = np.log(-np.log1p(-min(out.sum() / at.sum(), 0.99)))
    theta, eta, value, system, steps = _newton(own, columns, sizes, at, out, known, basis, tuple(start), link, number)
    for f, levels in enumerate(known):
        coefficient[f][levels] = theta[f][levels, 0]
    everywhere = np.zeros(len(n))
    everywhere[place] = eta
    return Fitted(link, tuple(coefficient), used, everywhere, null, rank, value, steps, system)


def _position(levels: Numbers, size: int) -> Numbers:
    place = np.full(size, -1)
    place[levels] = np.arange(len(levels))
    return place


def _without_edges(
    codes: Numbers, sizes: tuple[int, ...], n: Numbers, y: Numbers, used: Mask, coefficient: list[Array]
) -> Mask:
    """Rows without those of levels in which nobody or everybody left, whose effects are infinite."""
    while True:
        before = used
        for f, size in enumerate(sizes):
            risk = np.bincount(codes[f][used], n[used], minlength=size)
            left = np.bincount(codes[f][used], y[used], minlength=size)
            none, all_ = (risk > 0) & (left == 0), (risk > 0) & (left == risk)
            coefficient[f][none], coefficient[f][all_] = -np.inf, np.inf
            used = used & ~(none | all_)[codes[f]]
        if np.array_equal(used, before):
            return used


def _newton(
    codes: Numbers, columns: list[Numbers], sizes: tuple[int, ...], n: Array, y: Array, known: list[Numbers],
    basis: Array, theta: Blocks, link: Link, number: int,
) -> tuple[Blocks, Array, float, _System, int]:  # fmt: skip
    def at(point: Blocks) -> tuple[Array, float, Array, Array]:
        eta = np.zeros(len(n))
        for block, code in zip(point, codes, strict=True):
            eta += block[code, 0]
        if link == "cloglog" and (eta.min() < LOWEST or eta.max() > HIGHEST):
            return eta, -np.inf, eta, eta
        return eta, *_terms(eta, n, y, link)

    eta, value, residual, curvature = at(theta)
    close = False
    for step in range(1, 80):
        system = _System(columns, sizes, curvature, known)
        system.close(basis)
        if close:
            return theta, eta, value, system, step
        gradient = tuple(
            np.asarray(np.bincount(code, residual, minlength=size), np.float64)[:, None]
            for code, size in zip(codes, sizes, strict=True)
        )
        move = system.solve(gradient)
        # half of it is what the step still adds to the log-likelihood; the error after the step is of its order
        close = float(sum((g * m).sum() for g, m in zip(gradient, move, strict=True))) < 1e-10
        length = 1.0
        while True:
            trial = tuple(t + length * m for t, m in zip(theta, move, strict=True))
            eta, found, residual, curvature = at(trial)
            if found >= value - 1e-9 * abs(value) or length < 1e-4:
                break
            length /= 2
        if not np.isfinite(found):
            break  # at a limit: a combination of levels in which nobody, or everybody, left
        theta, value = trial, found
    raise DesignError(Fault("did.hazards_not_converged", {"number": number}))


def zeros(sizes: tuple[int, ...], width: int) -> list[NDArray[np.float64]]:
    """A gradient of nothing."""
    return [np.zeros((size, width)) for size in sizes]
