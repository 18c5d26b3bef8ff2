"""A fitted model of hazards by risk: what curves, effects by month and tables of coefficients are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.effects import Array, Influence, frozen

Link = Literal["hazard", "logit"]


class BothErrors:
    """What every fit by a likelihood has: errors from its information and errors from its influence function."""

    information: Array
    influence: Influence

    @property
    def std_error(self) -> Array:
        """(P,) from the information, as if weights were known case weights."""
        return np.sqrt(np.diag(self.information))

    @property
    def robust_error(self) -> Array:
        """(P,) from the influence function, clustered: the one to report."""
        return np.sqrt(np.diag(self.influence.vcov))


@dataclass(frozen=True)
class Hazards:
    """Hazards ``exp(x_k' theta_k + mu_qk)`` of K risks with Q mass points (Q = 1: no hidden heterogeneity).

    With ``link = "hazard"`` they are hazards per unit of time, constant within a period; with ``logit`` the chance of
    event k in a period is ``h_k / (1 + sum over the risks of its order)``.

    All parameters in one vector, in this order: theta of the first risk, of the second, ..; the points row by row
    (``mu_11 .. mu_1K, mu_21 ..``); the shares as ``a_q = ln(p_q / p_1)``, q = 2..Q.

    Attributes
    ----------
    risks: K names. order: (K,) as in ``Histories``.
    names: by risk the names of its coefficients. theta: by risk (P_k,).
    points: (Q, K) intercepts; -inf where a risk is defective (such people never have the event). shares: (Q,).
    free: (P,) parameters that were estimated; the others (a point held at a bound, a defective risk) have no error.
    influence: (G, P) in sum form, zero where not free. information: (P, P) model-based covariance (inverse observed
        information), zero where not free.
    log_likelihood: at the estimate, identical persons counted. persons, events: counted; events (K,).
    iterations: Newton steps (or rounds). gap: largest absolute score at the estimate, per person.
    """

    link: Link
    risks: tuple[str, ...]
    order: NDArray[np.int64]
    names: tuple[tuple[str, ...], ...]
    theta: tuple[Array, ...]
    points: Array
    shares: Array
    free: NDArray[np.bool_]
    influence: Influence
    information: Array
    log_likelihood: float
    persons: float
    events: Array
    iterations: int
    gap: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", frozen(self.order, np.int64))
        object.__setattr__(self, "theta", tuple(frozen(each) for each in self.theta))
        for name in ("points", "shares", "information", "events"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        object.__setattr__(self, "free", frozen(self.free, np.bool_))
        sizes = sum(len(each) for each in self.theta) + self.points.size + len(self.shares) - 1
        if self.influence.values.shape[1] != sizes or self.information.shape != (sizes, sizes):
            raise ValueError("hazards: parameters do not fit")

    @property
    def offsets(self) -> tuple[int, ...]:
        """(K + 1) where theta of each risk begins in the vector of all parameters; last, where the points begin."""
        return (0, *np.cumsum([len(each) for each in self.theta]).tolist())

    @property
    def packed(self) -> Array:
        """(P,) all parameters."""
        return np.concatenate([*self.theta, self.points.ravel(), np.log(self.shares[1:] / self.shares[0])])

    @property
    def labels(self) -> tuple[str, ...]:
        """P names: ``risk:name``, ``risk:point q``, ``share q``."""
        coefficients = [f"{risk}:{name}" for risk, own in zip(self.risks, self.names, strict=True) for name in own]
        points = [f"{risk}:point {q + 1}" for q in range(len(self.shares)) for risk in self.risks]
        return (*coefficients, *points, *(f"share {q + 1}" for q in range(1, len(self.shares))))

    @property
    def std_error(self) -> Array:
        """(P,) from the influence function (robust, clustered)."""
        return np.sqrt(np.diag(self.influence.vcov))

    @property
    def parameters(self) -> int:
        """How many were estimated."""
        return int(self.free.sum())
