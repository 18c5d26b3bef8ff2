"""Several instruments: the chance of each, and for every two of them who can be compared (Imbens 2000; Lechner 2001).

The chance of arm j is P_j(x) = exp(x'theta_j) / (1 + sum_l exp(x'theta_l)), with arm 0 (waiting) as the base: a
multinomial logit by maximum likelihood, pooled over risk sets. For the effect of starting a instead of b on those who
start a, matching on the chance of a among those in either, P_a / (P_a + P_b), suffices. Its log odds are
x'(theta_a - theta_b): the linear score that two-arm matching works with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from evalkit.design import Design
from evalkit.errors import DesignError, Fault
from evalkit.kernels import logit, multinomial
from evalkit.matching.newton import maximise
from evalkit.matching.propensity import back_transform, centred, independent, separated
from evalkit.matching.support import common_levels, compact, row_codes

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ArmModel:
    """A fitted chance of each of J + 1 arms.

    Attributes
    ----------
    arms: their names by code; the first is the base.
    names: columns of the design (p,).
    coefficients: (J, p), of each arm but the base; 0 where ``used`` (J, p) is False: the column tells that arm nothing
        that its others do not.
    vcov: (q, q) from the inverse information, of the q used coefficients, arm by arm.
    rows: (n,) the rows that the model knows, ascending; the others have a category that none in their own arm can be
        compared on.
    linear: (n, J + 1) log odds against the base; -inf where a row has a category that the arm has nobody in.
    dropped: by arm the ``factor:level`` for which there is no comparison with the base.
    """

    arms: tuple[str, ...]
    names: tuple[str, ...]
    coefficients: Array
    used: Mask
    vcov: Array
    rows: Ints
    linear: Array
    dropped: tuple[tuple[str, ...], ...]
    loglik: float
    iterations: int

    @property
    def chances(self) -> Array:
        """The chance of each arm (n, J + 1); every row sums to one."""
        return np.asarray(softmax(self.linear, axis=1))


def fit_arms(design: Design, arm: NDArray[np.integer], arms: Sequence[str]) -> ArmModel:
    """Multinomial logit of the arm on the design, by Newton's method with step halving.

    A category that an arm has nobody in gives that arm chance 0 there, which is where the likelihood has its supremum;
    the other arms keep it. A row whose own arm cannot be compared with the base in one of its categories is left out.

    Parameters
    ----------
    design: n rows, as for :func:`evalkit.matching.fit_logit`.
    arm: (n,) codes 0..J; arm 0 is the base.
    arms: (J + 1,) their names.

    Raises
    ------
    DesignError
        ``design.arm_empty`` naming an arm without rows; ``design.no_common_support``, ``design.collinear``,
        ``design.constant_column`` and ``design.separation`` as for two arms.
    """
    for code, name in enumerate(arms):
        if not (arm == code).any():
            raise DesignError(Fault("design.arm_empty", {"arm": name}))
    possible, dropped = _possible(design, arm, len(arms) - 1)
    rows = np.flatnonzero((arm == 0) | possible[np.arange(len(arm)), arm - 1])
    part, possible = compact(design.take(rows)), possible[rows]
    chosen = arm[rows].astype(np.int64)
    shared, own = centred(part)
    codes, own_codes = part.parameter_codes()
    arrays = (part.index, shared[0], own[0], codes, own_codes)
    names = part.names
    p, size = len(names), len(arms) - 1

    def likelihood(theta: Array) -> tuple[float, Array, Array]:
        value, score, information = multinomial.score_and_information(*arrays, chosen, possible, theta.reshape(size, p))
        return value, score.ravel(), information.reshape(size * p, size * p)

    def moves(step: Array) -> float:
        return max(float(np.abs(logit.linear_predictor(*arrays, one)).max()) for one in step.reshape(size, p))

    numeric = np.concatenate([np.abs(block).max(axis=0, initial=0.0) for block in (shared[0], own[0])])
    reach = np.append(np.append(1.0, numeric), np.ones(p - 1 - len(numeric)))
    theta = np.zeros((size, p))
    for j in range(size):
        theta[j, 0] = np.log((chosen == j + 1).sum() / (chosen[possible[:, j]] == 0).sum())
    used = _used(part, dropped, likelihood(theta.ravel())[2])
    kept = np.flatnonzero(used.ravel())
    slopes = np.flatnonzero(np.arange(size * p) % p > 0)
    best = maximise(likelihood, theta.ravel(), kept, slopes, moves, lambda step: _apart(step, reach, names))
    linear = np.zeros((len(rows), size + 1))
    for j, one in enumerate(best.theta.reshape(size, p)):
        linear[:, j + 1] = np.where(possible[:, j], logit.linear_predictor(*arrays, one), -np.inf)
    back = np.kron(np.eye(size), back_transform(p, shared, own))
    inverse = np.zeros((size * p, size * p))
    inverse[np.ix_(kept, kept)] = np.linalg.inv(best.information[np.ix_(kept, kept)])
    vcov = (back @ inverse @ back.T)[np.ix_(kept, kept)]
    coefficients = (back @ best.theta).reshape(size, p)
    return ArmModel(tuple(arms), names, coefficients, used, vcov, rows, linear, dropped, best.value, best.iterations)


def _possible(design: Design, arm: NDArray[np.integer], size: int) -> tuple[Mask, tuple[tuple[str, ...], ...]]:
    """Which arms a row may have, (n, J): those in which, as in the base, all its categories occur; and which lack."""
    possible = np.ones((len(arm), size), bool)
    dropped = []
    for j in range(size):
        pair = np.flatnonzero((arm == j + 1) | (arm == 0))
        lacking = common_levels(design.take(pair), arm[pair] == j + 1).dropped
        for made, codes in row_codes(design):
            bad = [i for i, level in enumerate(made.levels) if f"{made.name}:{level}" in lacking]
            possible[:, j] &= ~np.isin(codes, bad)
        dropped.append(lacking)
    return possible, tuple(dropped)


def _used(design: Design, dropped: tuple[tuple[str, ...], ...], information: Array) -> Mask:
    """Which coefficients each arm has, (J, p): of the levels that it can have the first is its reference."""
    names = design.names
    used = np.ones((len(dropped), len(names)), bool)
    time = len(names) - sum(len(made.levels) - 1 for made in design.time_factors)
    for j, lacking in enumerate(dropped):
        position = 1 + len(design.numeric_names) + len(design.own_numeric_names)
        for made, _ in row_codes(design):
            there = np.array([f"{made.name}:{level}" not in lacking for level in made.levels])
            there[np.flatnonzero(there)[:1]] = False
            used[j, position : position + len(there) - 1] = there[1:]
            position += len(there) - 1
        kept = np.flatnonzero(used[j])
        block = slice(j * len(names), (j + 1) * len(names))
        own = information[block, block][np.ix_(kept, kept)]
        alone = independent(own, tuple(names[i] for i in kept), int((kept < time).sum()))
        used[j] = np.isin(np.arange(len(names)), kept[alone])
    return used


def _apart(step: Array, reach: Array, names: tuple[str, ...]) -> DesignError:
    """The fault that names the column whose term moves the furthest in some arm."""
    arms = step.reshape(-1, len(names))
    return separated(arms[np.abs(arms[:, 1:] * reach[1:]).max(axis=1, initial=0.0).argmax()], reach, names)


@dataclass(frozen=True)
class ArmPair:
    """Who starts ``focal`` set against who is in ``other``: the rows of one matching.

    Attributes
    ----------
    focal, other: names of the arms.
    rows: (m,) rows of the data in either arm with a chance of both, ascending.
    treated: (m,) whether a row belongs to ``focal``.
    score: (m,) log odds of ``focal`` against ``other``: log P_a - log P_b.
    support: (m,) the score lies where both arms have some.
    joint: (m,) so does the score of every other pair of arms.
    stratum: (m,) cell within which matches are exact.
    """

    focal: str
    other: str
    rows: Ints
    treated: Mask
    score: Array
    support: Mask
    joint: Mask
    stratum: Ints

    @property
    def chance(self) -> Array:
        """P_a / (P_a + P_b), (m,)."""
        return np.asarray(expit(self.score))

    def within(self, rule: Literal["pair", "joint"]) -> ArmPair:
        """Only the rows with support: in this comparison, or in every one of them."""
        keep = self.support if rule == "pair" else self.joint
        names = ("rows", "treated", "score", "support", "joint", "stratum")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})


def pairs_of(model: ArmModel, arm: NDArray[np.integer], stratum: NDArray[np.integer]) -> tuple[ArmPair, ...]:
    """Every ordered pair of arms whose first is an instrument: its starters set against each other arm.

    Support follows the rule of minima and maxima (Dehejia and Wahba 1999; Lechner 2002) on the score of the pair: a
    row has it when its score is neither below the larger of the two arms' minima nor above the smaller of their
    maxima. A row has joint support when that holds for every two arms, also those that it is in neither of, so that
    effects of different pairs may be set side by side for the same kind of people.

    Parameters
    ----------
    model: fitted on the design of the same rows.
    arm, stratum: (n,) codes of all rows of the data.
    """
    size = len(model.arms)
    known = arm[model.rows]
    inside: dict[tuple[int, int], Mask] = {}
    joint = np.ones(len(known), bool)
    for a in range(size):
        for b in range(a):
            inside[a, b] = inside[b, a] = _shared(model.linear, known, a, b)
            joint &= inside[a, b]
    made = []
    for a, b in ((a, b) for a in range(1, size) for b in range(size) if a != b):
        both = np.isfinite(model.linear[:, a]) & np.isfinite(model.linear[:, b])
        at = np.flatnonzero(both & ((known == a) | (known == b)))
        rows = model.rows[at]
        made.append(
            ArmPair(
                model.arms[a],
                model.arms[b],
                rows,
                known[at] == a,
                model.linear[at, a] - model.linear[at, b],
                inside[a, b][at],
                joint[at],
                stratum[rows].astype(np.int64),
            )
        )
    return tuple(made)


def _shared(linear: Array, arm: NDArray[np.integer], a: int, b: int) -> Mask:
    """Rows of any arm whose score for a against b lies where both arms have some."""
    both = np.isfinite(linear[:, a]) & np.isfinite(linear[:, b])
    score = np.where(both, linear[:, a], 0.0) - np.where(both, linear[:, b], 0.0)
    one, two = score[both & (arm == a)], score[both & (arm == b)]
    if not len(one) or not len(two):
        return np.zeros(len(arm), bool)
    low, high = max(one.min(), two.min()), min(one.max(), two.max())
    return np.asarray(both & (low <= score) & (score <= high))


@dataclass(frozen=True)
class PairSupport:
    """How many starters of ``focal`` can be compared with ``other``; rows, and persons where the name says so.

    ``starters``: all; ``comparable``: with a chance of both arms; ``supported``: with support in this pair;
    ``joint``: in every pair; ``alone``: supported, but nobody supported of the other arm in their stratum.
    ``others``: supported rows of the other arm.
    """

    focal: str
    other: str
    starters: int
    comparable: int
    supported: int
    joint: int
    alone: int
    others: int
    persons: int
    persons_supported: int
    persons_joint: int


def support_table(
    model: ArmModel, pairs: Sequence[ArmPair], arm: NDArray[np.integer], person: NDArray[np.integer]
) -> tuple[PairSupport, ...]:
    """Support of each pair, counted; ``arm`` and ``person`` (n,) are codes of all rows of the data."""
    table = []
    for pair in pairs:
        own, of = pair.treated, person[pair.rows]
        supported, joint = own & pair.support, own & pair.joint
        cells = np.unique(pair.stratum[~own & pair.support])
        table.append(
            PairSupport(
                pair.focal,
                pair.other,
                int((arm == model.arms.index(pair.focal)).sum()),
                int(own.sum()),
                int(supported.sum()),
                int(joint.sum()),
                int((supported & ~np.isin(pair.stratum, cells)).sum()),
                int((~own & pair.support).sum()),
                len(np.unique(person[arm == model.arms.index(pair.focal)])),
                len(np.unique(of[supported])),
                len(np.unique(of[joint])),
            )
        )
    return tuple(table)
