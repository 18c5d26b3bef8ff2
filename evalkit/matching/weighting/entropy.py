"""Entropy balancing: the weights closest to the base weights that balance exactly (Hainmueller 2012).

For the treated (att) the weights of the others minimise sum_i w_i log(w_i / q_i), q the base weights, subject to
sum_i w_i z_i = sum over treated of q_i z_i with z = (1, terms). They are w_i = q_i exp(z_i'theta), theta the minimum of
a convex function, found by Newton's method. For all (ate) each arm is weighted to the full sample.
"""

from __future__ import annotations

import numpy as np

from evalkit.errors import DesignError, Fault
from evalkit.matching.adjustment import Array, Mask
from evalkit.matching.weighting.newton import Exponential, Minimum, influence_of, minimise
from evalkit.matching.weighting.terms import PIVOT, Problem, Solution, cross

LONGEST = 10.0
"""A Newton step multiplies no weight by more than exp(10)."""


def entropy(given: Problem) -> Solution:
    """Entropy balancing weights.

    The weights of each arm that is weighted add up to the base weights of its target. Influence: theta solves
    sum_i [1(arm) w_i - 1(target) q_i] z_i = 0, so its influence in sum form is -H^-1 times that term, H = sum over the
    arm of w z z'. Rows of the target count because the means that are aimed at are estimated too.

    Raises
    ------
    DesignError
        ``design.weights_cannot_balance`` naming terms, with a proof: some combination of them is larger in the target
        than in any row of the arm (or as large as in the very largest: only rows at the edge could then have weight).
    """
    n, k = given.z.shape
    arms = {"att": (False,), "atc": (True,), "ate": (True, False)}[given.target]
    weight = given.base.copy()
    derivative = np.zeros((n, k * len(arms))) if given.account else None
    influence = np.zeros((n, k * len(arms))) if given.account else None
    converged, iterations = True, 0
    aim = np.ones(n, bool) if given.target == "ate" else given.treated == (given.target == "att")
    for part, arm in enumerate(arms):
        rows = given.treated == arm
        kept, found = balance_arm(given, rows, aim)
        weight[rows] = given.base[rows] * np.exp(found.eta)
        if derivative is not None and influence is not None:
            whole = len(kept) == k
            columns = slice(part * k, part * k + k) if whole else part * k + kept
            z = given.z if whole else given.z[:, kept]
            of_arm = np.where(rows, weight, 0.0)
            derivative[:, columns] = of_arm[:, None] * z
            residual = of_arm - np.where(aim, given.base, 0.0)
            influence[:, columns] = influence_of(z, residual, found.hessian)
        converged &= found.converged
        iterations = max(iterations, found.iterations)
    fixed = np.zeros(n, bool) if given.target == "ate" else aim
    population = np.where(aim, given.base, 0.0)
    return Solution(weight, population, None, derivative, influence, fixed, None, converged, iterations)


def balance_arm(given: Problem, rows: Mask, aim: Mask) -> tuple[np.ndarray, Minimum]:
    """Columns that the arm can tell apart (with the intercept), and the minimum on them."""
    total = float(given.base[aim].sum())
    target = given.base[aim] @ given.z[aim]
    z, base = given.z[rows], given.base[rows]
    within(given, z, target / total)
    kept = told_apart(given, z, base, target / total)
    if len(kept) < z.shape[1]:
        z, target = np.ascontiguousarray(z[:, kept]), target[kept]
    full = np.zeros(given.z.shape[1] - 1)

    def level(eta: Array) -> float:
        top = float(eta.max())
        return float(np.log(total) - top - np.log(base @ np.exp(eta - top)))

    def stop(theta: Array, eta: Array) -> bool:
        return apart(theta, eta, target / total)

    found = minimise(z, Exponential(base), linear=target, total=total, longest=LONGEST, level=level, stop=stop)
    if not found.converged and (found.stopped or _on_edge(found, target / total)):
        full[kept[1:] - 1] = found.theta[1:]
        raise DesignError(Fault("design.weights_cannot_balance", {"columns": given.named(full)}))
    return kept, found


def within(given: Problem, z: Array, mean: Array) -> None:
    """Refuse terms whose mean in the target lies outside, or at the edge of, what the arm covers."""
    low, high = z.min(axis=0), z.max(axis=0)
    slack = 1e-9
    outside = (mean > high - slack) | (mean < low + slack)
    outside &= ~((high - low < slack) & (np.abs(mean - low) < slack))  # the same for all of the arm and the target
    bad = np.flatnonzero(outside[1:])
    if len(bad):
        listed = ", ".join(given.names[j] for j in bad[:5])
        raise DesignError(Fault("design.weights_cannot_balance", {"columns": listed}))


def told_apart(given: Problem, z: Array, base: Array, mean: Array) -> np.ndarray:
    """Columns that do not follow from those before them within the arm.

    One that does is balanced with the others when the same relation holds for the target; otherwise it cannot be.
    """
    gram = cross(z, base / base.sum())
    work = gram.copy()
    kept: list[int] = []
    for j in range(len(gram)):
        if work[j, j] < PIVOT * max(gram[j, j], PIVOT):
            before = np.array(kept, np.int64)
            slope = np.linalg.solve(gram[np.ix_(before, before)], gram[before, j])
            if abs(float(mean[before] @ slope) - float(mean[j])) > 1e-6:
                raise DesignError(Fault("design.weights_cannot_balance", {"columns": given.names[j - 1]}))
            work[j, :] = work[:, j] = 0.0
            continue
        kept.append(j)
        work[j + 1 :, :] -= np.outer(work[j + 1 :, j] / work[j, j], work[j, :])
    return np.array(kept)


def apart(theta: Array, eta: Array, mean: Array) -> bool:
    """Whether the target lies beyond every row in direction ``theta``: then no weights >= 0 can balance."""
    aimed = float(mean @ theta)  # mean[0] is one, so the intercept is on both sides
    return aimed > float(eta.max()) + 1e-9 * (1.0 + abs(aimed))


def _on_edge(found: Minimum, mean: Array) -> bool:
    """Whether the search ran off towards the edge of what the arm covers."""
    aimed = float(mean @ found.theta)
    return float(found.eta.max()) - aimed < 1e-2 * float(np.ptp(found.eta))
