"""What the procedures for few clusters return, and the inversion of a test into a confidence set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from evalkit.did.effects import Effects
from evalkit.effects import Array, Intervals, frozen

REACH = 1e4
"""A set that goes on after this many times the spread of the reference distribution is taken to have no end."""


@dataclass(frozen=True)
class Tested:
    """Effects (M,) with the p-value of "no effect" and a confidence set found by inverting the test.

    Attributes
    ----------
    estimate: (M,) in outcome units.
    p_value: (M,) two-sided; NaN where there is nothing to test (a base period, an effect that is not estimable).
    low, high: (M,) ends of the set of effects that are not rejected at 1 - ``level``; infinite when the test cannot
        reject far away, NaN when the set could not be found.
    std_error: (M,) the clustered error beneath a t-statistic; NaN where the procedure uses none.
    kind: the procedure: ``wild WCR``, ``wild WCU``, ``wild score``, ``randomisation estimate``, ``randomisation t``,
        ``conley_taber`` or ``ferman_pinto``, with ``(published)`` for the version of the paper.
    draws: draws or assignments in the reference distribution, the observed one included when ``exact`` or by
        permutation; ``exact``: they are all there are.
    smallest: the smallest p-value that the procedure can give; above 1 - ``level`` the set is always infinite.
    undefined: assignments for which the estimator gave nothing, left out of the reference distribution.
    effects: the same as :class:`~evalkit.did.effects.Effects` whose uncertainty is these intervals; None for plain
        arrays.
    overall: the effect that sums up the others, tested in the same way.
    """

    estimate: Array
    p_value: Array
    low: Array
    high: Array
    level: float
    kind: str
    draws: int
    exact: bool
    smallest: float
    std_error: Array
    undefined: int = 0
    effects: Effects | None = None
    overall: Tested | None = None

    def __post_init__(self) -> None:
        for name in ("estimate", "p_value", "low", "high", "std_error"):
            object.__setattr__(self, name, frozen(np.atleast_1d(getattr(self, name))))

    def intervals(self) -> Intervals:
        """The intervals as an uncertainty from which nothing else can be derived."""
        return Intervals(self.low, self.high, self.level, self.kind)

    def on(self, effects: Effects) -> Tested:
        """This result with ``effects`` carrying its intervals, and those of the overall effect."""
        total = effects.overall
        if total is not None and self.overall is not None:
            total = replace(total, uncertainty=self.overall.intervals(), se_kind=self.kind)
        return replace(self, effects=replace(effects, uncertainty=self.intervals(), se_kind=self.kind, overall=total))


def hull(p_value: Callable[[Array], Array], centre: float, scale: float, alpha: float) -> tuple[float, float]:
    """The smallest interval that holds every value which a test does not reject, searched from ``centre`` outwards.

    ``p_value`` maps values (L,) to p-values (L,) and is not below ``alpha`` at ``centre``. Values are tried at steps
    that grow by some 31 per cent, from a thousandth of ``scale`` to ten thousand times it; the end lies between the
    farthest one that is not rejected and the next, and is then halved down. Without an end: infinite. A p-value from
    draws is a step function of the value, so an end is a step.
    """
    if not np.isfinite(scale) or scale <= 0:
        return float("nan"), float("nan")
    steps = np.concatenate([[0.0], scale * np.geomspace(1e-3, REACH, 60)])
    sides = np.array([-1.0, 1.0])
    inside = p_value((centre + sides[:, None] * steps).ravel()).reshape(2, -1) > alpha
    inside[:, 0] = True
    last = inside.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1)
    open_ended = last == len(steps) - 1
    near, far = steps[last], steps[np.minimum(last + 1, len(steps) - 1)]
    for _ in range(34):
        middle = (near + far) / 2
        within = p_value(centre + sides * middle) > alpha
        near, far = np.where(within, middle, near), np.where(within, far, middle)
    ends = np.where(open_ended, np.inf, near)
    return float(centre - ends[0]), float(centre + ends[1])


def share_as_large(reference: Array, observed: Array, tiny: float = 0.0) -> Array:
    """(L,) share of ``reference`` (B, L) that is at least as large as ``observed`` (L,) in absolute value.

    Equal up to rounding counts as large: a permutation of equal units gives the same statistic by other sums.
    """
    bound = np.abs(observed) * (1 - 1e-9) - tiny
    return np.asarray(np.mean(np.abs(reference) >= bound, axis=0))
