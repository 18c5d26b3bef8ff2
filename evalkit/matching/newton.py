"""Newton's method with step halving for a likelihood that has one maximum, or none when groups are separated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import DesignError, Fault

Array = NDArray[np.float64]
Likelihood = Callable[[Array], tuple[float, Array, Array]]

TOLERANCE = 1e-10  # on the Newton decrement: twice the log-likelihood still to be gained
SETTLED = 1e-3  # on the change of any row's linear predictor
MAX_ITERATIONS = 60
LONGEST = 5.0  # a step moves no row's linear predictor further: from a rare level a full step would leap away for good
LARGEST = 30.0  # a coefficient on a scaled column beyond this is a chance of 1e-13: separation


class Maximum(NamedTuple):
    """Where the likelihood is largest: parameters (q,), its log, the information (q, q), steps taken."""

    theta: Array
    value: float
    information: Array
    iterations: int


def maximise(
    likelihood: Likelihood,
    theta: Array,
    kept: NDArray[np.int64],
    slopes: NDArray[np.int64],
    moves: Callable[[Array], float],
    separated: Callable[[Array], DesignError],
) -> Maximum:
    """The maximum over the parameters ``kept``; the others stay as they are.

    Parameters
    ----------
    likelihood: log-likelihood, score and information at theta.
    slopes: the parameters on scaled columns, none of which can be large.
    moves: the furthest that a step moves the linear predictor of a row.
    separated: the fault to raise, given the direction in which the likelihood goes on growing.
    """
    value, score, information = likelihood(theta)
    step = theta
    for iteration in range(1, MAX_ITERATIONS + 1):
        step = np.zeros(len(theta))
        try:
            step[kept] = np.linalg.solve(information[np.ix_(kept, kept)], score[kept])
        except np.linalg.LinAlgError:
            raise separated(theta) from None
        decrement = float(score @ step)
        size = LONGEST / max(LONGEST, moves(step))
        while True:
            trial = theta + size * step
            new_value, new_score, new_information = likelihood(trial)
            if new_value >= value - 1e-12 * abs(value) or size < 1e-6:
                break
            size /= 2
        theta, value, score, information = trial, new_value, new_score, new_information
        # under separation the likelihood levels off while the predictor of the separated rows keeps growing by one
        if decrement < TOLERANCE and moves(size * step) < SETTLED:
            return Maximum(theta, float(value), information, iteration)
        if np.abs(theta[slopes]).max(initial=0.0) > LARGEST < moves(theta):
            break  # nearly collinear columns have large coefficients that cancel out: those are no separation
    raise separated(step)


def pivots(gram: Array, names: Sequence[str], optional: int, smallest: float) -> NDArray[np.int64]:
    """Columns with a pivot of their own, by Gaussian elimination on a scaled matrix of products.

    A column without one follows from those before it: from column ``optional`` on it is left out, before it is refused
    by name (``design.collinear``).
    """
    work = gram.copy()
    kept: list[int] = []
    for j in range(len(work)):
        if work[j, j] < smallest:
            if j < optional:
                raise DesignError(Fault("design.collinear", {"column": names[j]}))
            work[j, :] = work[:, j] = 0.0
            continue
        kept.append(j)
        work[j + 1 :, :] -= np.outer(work[j + 1 :, j] / work[j, j], work[j, :])
    return np.array(kept)
