"""Robust intervals for contrasts of an event study, and how large a violation of parallel trends they bear."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evalkit.did.effects import Effects
from evalkit.did.honest import fixed_length, hybrid, moments
from evalkit.did.honest.study import Contrast, EventStudy, contrasts, of_arrays, of_effects
from evalkit.effects import Array, frozen
from evalkit.errors import DesignError, Fault, UsageError

Restriction = Literal["relative_magnitudes", "smoothness"]
Method = Literal["hybrid", "fixed_length"]
METHODS: dict[str, tuple[str, ...]] = {"relative_magnitudes": ("hybrid",), "smoothness": ("fixed_length", "hybrid")}
_SCAN = 24
"""Steps a decade when looking for the smallest m at which the null is accepted."""


@dataclass(frozen=True)
class HonestInterval:
    """A confidence set for a contrast of effects that holds for every difference in trends within a restriction.

    Attributes
    ----------
    restriction, m: ``relative_magnitudes``: m times the largest increment of the trend between two periods before the
        base; ``smoothness``: a change of slope of m outcome units from one period to the next.
    method: ``hybrid`` (conditional-least-favourable) or ``fixed_length``.
    contrast: ``first``, ``average``, ``event 3``, ``cumulated 3`` or ``weights 1``; ``event``: its event time, if any.
    weights: (post,) of the effects after the base.
    estimate, std_error: of the contrast itself, under parallel trends.
    low, high: the ends of the set; NaN where it is empty: no difference in trends within the restriction fits.
    pieces: the separate intervals of the set; one nearly always.
    centre: what a fixed-length interval lies around, the estimate corrected for trend; NaN for the hybrid.
    """

    restriction: Restriction
    method: Method
    m: float
    contrast: str
    event: int | None
    weights: Array
    estimate: float
    std_error: float
    low: float
    high: float
    pieces: tuple[tuple[float, float], ...]
    centre: float
    level: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", frozen(self.weights))


@dataclass(frozen=True)
class Breakdown:
    """The violation of parallel trends that a conclusion bears.

    ``value``: the least m at which the robust set of ``level`` holds ``null``; the effect differs from it for every
    smaller m. 0: not even under m = 0. Infinite: however large m.
    """

    restriction: Restriction
    method: Method
    contrast: str
    event: int | None
    weights: Array
    value: float
    null: float
    level: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", frozen(self.weights))


def honest(
    effects: Effects,
    *,
    restriction: Restriction = "relative_magnitudes",
    m: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    contrast: Contrast | ArrayLike = "first",
    method: Method | None = None,
    level: float = 0.95,
    window: tuple[int, int] | None = None,
) -> tuple[HonestInterval, ...]:
    """Confidence sets for effects when trends need not be parallel, but differ by no more than a restriction says.

    Parameters
    ----------
    effects: by event time, with one base period for all cells (``base="universal"``): increments of a trend between
        periods before treatment cannot be read from effects that each have a base of their own.
    restriction: ``relative_magnitudes``: from one period to the next after the base, the difference in trends moves by
        at most m times its largest move before the base. ``smoothness``: its slope changes by at most m per period.
    m: one or more bounds, 0 or more. Under smoothness m = 0 is a linear difference in trends; m is in outcome units.
    contrast: ``first`` (event time 0), ``each``, ``average``, ``cumulated`` (running sums), or weights (post,) or
        (L, post) on the event times after the base.
    method: ``hybrid`` or ``fixed_length``; None takes ``fixed_length`` for smoothness (the shorter) and ``hybrid`` for
        relative magnitudes (a fixed length does not exist there).
    level: of the set, by normal approximation of all estimates together.
    window: only the event times from .. to .., bounds included.

    Returns
    -------
    Contrast by contrast, m by m, as many as there are contrasts times bounds.

    Raises
    ------
    UsageError
        ``did.honest_needs_universal_base``, ``did.honest_needs_event_times``, ``did.honest_no_covariance``,
        ``did.honest_contrast``, ``did.honest_weights``, ``did.honest_m``, ``did.honest_method``, ``did.honest_level``.
    DesignError
        ``did.honest_gaps``, ``did.honest_no_pre``, ``did.honest_no_post``, ``did.honest_degenerate``,
        ``did.honest_singular``.

    Notes
    -----
    Source: Rambachan and Roth (2023), Review of Economic Studies 90: 2555-2591. What follows the base is free to hold
    an effect, so periods of anticipation do not inform the bound.
    """
    return _intervals(of_effects(effects, window), restriction, m, contrast, method, level)


def honest_arrays(
    beta: ArrayLike,
    sigma: ArrayLike,
    n_pre: int,
    n_post: int,
    contrast: Contrast | ArrayLike = "first",
    *,
    restriction: Restriction = "relative_magnitudes",
    m: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    method: Method | None = None,
    level: float = 0.95,
) -> tuple[HonestInterval, ...]:
    """:func:`honest` for estimates from elsewhere.

    ``beta`` (n_pre + n_post,) without the base period, which lies between the two parts and is period -1; ``sigma`` its
    covariance. ``did.honest_shapes`` when they do not fit.
    """
    return _intervals(of_arrays(beta, sigma, n_pre, n_post), restriction, m, contrast, method, level)


def breakdown(
    effects: Effects,
    *,
    restriction: Restriction = "relative_magnitudes",
    contrast: Contrast | ArrayLike = "first",
    method: Method | None = None,
    level: float = 0.95,
    null: float = 0.0,
    window: tuple[int, int] | None = None,
) -> tuple[Breakdown, ...]:
    """For each contrast the least m at which the robust set holds ``null``; arguments and errors as :func:`honest`."""
    return _breakdowns(of_effects(effects, window), restriction, contrast, method, level, null)


def breakdown_arrays(
    beta: ArrayLike,
    sigma: ArrayLike,
    n_pre: int,
    n_post: int,
    contrast: Contrast | ArrayLike = "first",
    *,
    restriction: Restriction = "relative_magnitudes",
    method: Method | None = None,
    level: float = 0.95,
    null: float = 0.0,
) -> tuple[Breakdown, ...]:
    """:func:`breakdown` for estimates from elsewhere, as in :func:`honest_arrays`."""
    return _breakdowns(of_arrays(beta, sigma, n_pre, n_post), restriction, contrast, method, level, null)


def _chosen(restriction: str, method: str | None, level: float) -> Method:
    known = METHODS.get(restriction, ())
    if not known or (method is not None and method not in known):
        text = ", ".join(f"{name}: {'/'.join(ways)}" for name, ways in METHODS.items())
        raise UsageError(Fault("did.honest_method", {"restriction": restriction, "method": str(method), "known": text}))
    if not 0.5 <= level < 1:
        raise UsageError(Fault("did.honest_level", {}))
    return known[0] if method is None else method  # type: ignore[return-value]


def _inequalities(study: EventStudy, restriction: Restriction, weights: Array, m: float) -> tuple[moments.Moments, ...]:
    if restriction == "smoothness":
        return (moments.smoothness(study, weights, m),)
    return moments.relative_magnitudes(study, weights, m)


def _error(study: EventStudy, weights: Array) -> float:
    after = study.sigma[study.pre :, study.pre :]
    variance = float(weights @ after @ weights)
    if variance <= 1e-20 * float(np.abs(weights) @ np.sqrt(np.diag(after))) ** 2:
        raise DesignError(Fault("did.honest_singular", {}))
    return math.sqrt(variance)


def _intervals(
    study: EventStudy,
    restriction: Restriction,
    bounds: Sequence[float],
    contrast: Contrast | ArrayLike,
    method: Method | None,
    level: float,
) -> tuple[HonestInterval, ...]:
    way = _chosen(restriction, method, level)
    sizes = [float(value) for value in np.atleast_1d(np.asarray(bounds, float))]
    if not all(math.isfinite(size) and size >= 0 for size in sizes):
        raise UsageError(Fault("did.honest_m", {}))
    found = []
    for name, event, weights in contrasts(study, contrast):
        error = _error(study, weights)
        for size in sizes:
            centre = math.nan
            if way == "fixed_length":
                best = fixed_length.optimal(study, weights, size, 1 - level)
                centre = best.estimate
                pieces: hybrid.Pieces = ((centre - best.half, centre + best.half),)
            else:
                parts = _inequalities(study, restriction, weights, size)
                pieces = hybrid.union([hybrid.accepted(part, 1 - level) for part in parts])
            low, high = (pieces[0][0], pieces[-1][1]) if pieces else (math.nan, math.nan)
            estimate = float(weights @ study.beta[study.pre :])
            found.append(
                HonestInterval(
                    restriction, way, size, name, event, weights, estimate, error, low, high, pieces, centre, level
                )
            )
    return tuple(found)


def _breakdowns(
    study: EventStudy,
    restriction: Restriction,
    contrast: Contrast | ArrayLike,
    method: Method | None,
    level: float,
    null: float,
) -> tuple[Breakdown, ...]:
    way = _chosen(restriction, method, level)
    found = []
    for name, event, weights in contrasts(study, contrast):
        _error(study, weights)

        def holds(m: float, weights: Array = weights) -> bool:
            if way == "fixed_length":
                best = fixed_length.optimal(study, weights, m, 1 - level)
                return abs(best.estimate - null) <= best.half
            return hybrid.accepts_one(_inequalities(study, restriction, weights, m), null, 1 - level)

        # a unit of m: shares of the largest move, or a typical standard error per period
        unit = 1.0 if restriction == "relative_magnitudes" else float(np.sqrt(np.diag(study.sigma).mean()))
        value = _least(holds, unit)
        found.append(Breakdown(restriction, way, name, event, weights, value, float(null), level))
    return tuple(found)


def _least(holds: Callable[[float], bool], unit: float) -> float:
    """The least m at which ``holds``: steps upwards from a thousandth of ``unit``, then bisection between two steps.

    Sets need not grow with m in the last digit, so the first acceptance counts, not just any.
    """
    if holds(0.0):
        return 0.0
    below = 0.0
    for above in unit * np.logspace(-3, 6, 9 * _SCAN + 1):
        if holds(float(above)):
            break
        below = float(above)
    else:
        return math.inf
    above = float(above)
    while (middle := (below + above) / 2) not in (below, above) and above - below > 1e-13 * above:
        if holds(middle):
            above = middle
        else:
            below = middle
    return above
