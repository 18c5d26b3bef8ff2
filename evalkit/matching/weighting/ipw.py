"""Inverse probability weights and their kin from a propensity score, with the influence of the logit behind it.

With e the chance of treatment and h(e) the tilting function, treated rows weigh h/e and the others h/(1 - e): h = e
for the treated (att), 1 - e for the others (atc), 1 for all (ate), e (1 - e) for those with overlap (ato; Li, Morgan
and Zaslavsky 2018), min(e, 1 - e) for those an even match keeps (atm; Li and Greene 2013).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from evalkit.matching.adjustment import Array, Mask, TargetName
from evalkit.matching.weighting.models import fit_logit_to
from evalkit.matching.weighting.newton import influence_of
from evalkit.matching.weighting.terms import Problem, Solution


@dataclass(frozen=True)
class Tilted:
    """Weights (n,) and target population (n,), each with its slope in the linear predictor of the score."""

    weight: Array
    weight_slope: Array
    population: Array
    population_slope: Array


def tilted(treated: Mask, eta: Array, target: TargetName) -> Tilted:
    """Weights for a target from the linear predictor ``eta`` (n,) of the chance of treatment.

    At e = 1/2 the weights for ``atm`` have a kink; the slope is then that of smaller chances.
    """
    chance, other = expit(eta), expit(-eta)
    one, nought = np.ones(len(eta)), np.zeros(len(eta))
    if target == "ate":
        signed = np.where(treated, -eta, eta)
        odds = np.exp(signed)
        return Tilted(1.0 + odds, np.where(treated, -odds, odds), one, nought)
    if target == "att":
        odds = np.exp(eta)
        return Tilted(np.where(treated, 1.0, odds), np.where(treated, 0.0, odds), treated.astype(float), nought)
    if target == "atc":
        odds = np.exp(-eta)
        return Tilted(np.where(treated, odds, 1.0), np.where(treated, -odds, 0.0), (~treated).astype(float), nought)
    spread = chance * other
    if target == "ato":
        return Tilted(
            np.where(treated, other, chance),
            np.where(treated, -spread, spread),
            spread,
            spread * (other - chance),
        )
    rare = eta <= 0.0
    odds = np.exp(-np.abs(eta))
    falls = np.where(rare, odds, -odds)
    whole = rare == treated  # rows whose own chance is the smaller one, or ties: weight one
    return Tilted(
        np.where(whole, 1.0, odds),
        np.where(whole, 0.0, falls),
        np.where(rare, chance, other),
        np.where(rare, spread, -spread),
    )


def inverse_probability(given: Problem) -> Solution:
    """Weights from a logit by maximum likelihood on the terms of the problem.

    Influence on the coefficients in sum form: H^-1 (D - e) z, with H the information.

    Raises
    ------
    DesignError
        ``design.separation`` naming a term.
    """
    found = fit_logit_to(given)
    influence = None
    if given.account:
        influence = influence_of(given.z, given.base * (expit(found.eta) - given.treated), found.hessian)
    return from_score(given, found.eta, influence, found.iterations)


def from_score(
    given: Problem, eta: Array, influence: Array | None, iterations: int, converged: bool = True
) -> Solution:
    """Weights from a linear predictor, with ``influence`` (n, k) on its coefficients where there is one."""
    shape = tilted(given.treated, eta, given.target)
    fixed = np.zeros(len(eta), bool)
    if given.target in ("att", "atc"):
        fixed = given.treated == (given.target == "att")
    moves = influence is not None and given.target in ("ato", "atm")
    return Solution(
        weight=given.base * shape.weight,
        population=given.base * shape.population,
        score=expit(eta),
        derivative=None if influence is None else (given.base * shape.weight_slope)[:, None] * given.z,
        influence=influence,
        fixed=fixed,
        population_derivative=(given.base * shape.population_slope)[:, None] * given.z if moves else None,
        converged=converged,
        iterations=iterations,
    )
