"""The event study that honest inference looks at: effects before and after the base period, and contrasts of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.did.effects import Effects
from evalkit.effects import Array, frozen
from evalkit.errors import DesignError, Fault, UsageError

Numbers = NDArray[np.int64]
Contrast = Literal["first", "each", "average", "cumulated"]
CONTRASTS: tuple[str, ...] = ("first", "each", "average", "cumulated")
_ROUNDING = 1e-10


@dataclass(frozen=True)
class EventStudy:
    """Estimates (K,) without the base period, their covariance (K, K); the first ``pre`` are before the base period.

    ``event``: (K,) event times, consecutive but for ``base``. What follows the base counts as after, also the periods
    of anticipation between the base and 0: there the effect is free.
    """

    event: Numbers
    beta: Array
    sigma: Array
    pre: int
    base: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "event", frozen(self.event, np.int64))
        object.__setattr__(self, "beta", frozen(self.beta))
        object.__setattr__(self, "sigma", frozen(self.sigma))

    @property
    def post(self) -> int:
        """How many periods follow the base."""
        return len(self.beta) - self.pre


def of_arrays(beta: ArrayLike, sigma: ArrayLike, n_pre: int, n_post: int) -> EventStudy:
    """The event study from arrays: ``beta`` (n_pre + n_post,) without the base period -1, ``sigma`` its covariance.

    Raises
    ------
    UsageError
        ``did.honest_shapes`` when sizes do not fit or numbers are not finite, or sigma is no covariance.
    """
    values, matrix = np.asarray(beta, float), np.asarray(sigma, float)
    size = n_pre + n_post
    if values.shape != (size,) or matrix.shape != (size, size) or n_pre < 0 or n_post < 0:
        raise UsageError(Fault("did.honest_shapes", {"pre": n_pre, "post": n_post}))
    finite = np.isfinite(values).all() and np.isfinite(matrix).all()
    if not finite or not np.allclose(matrix, matrix.T, rtol=1e-8, atol=0.0) or (np.diag(matrix) < 0).any():
        raise UsageError(Fault("did.honest_shapes", {"pre": n_pre, "post": n_post}))
    event = np.concatenate([np.arange(-n_pre, 0) - 1, np.arange(n_post)])
    return checked(EventStudy(event, values, (matrix + matrix.T) / 2, n_pre, -1))


def of_effects(effects: Effects, window: tuple[int, int] | None = None) -> EventStudy:
    """The event study in effects by event time, between two event times when ``window`` says so.

    Raises
    ------
    UsageError
        ``did.honest_needs_event_times``: effects are not by event time. ``did.honest_needs_universal_base``: not one
        base period for all, as after ``base="varying"`` or an imputation estimator. ``did.honest_no_covariance``: only
        intervals exist.
    DesignError
        ``did.honest_gaps``: an event time is missing or not estimable. ``did.honest_no_pre``, ``did.honest_no_post``:
        no period before the base, or none after it. ``did.honest_degenerate``: an estimate without variance.
    """
    if effects.by != "event":
        raise UsageError(Fault("did.honest_needs_event_times", {"by": effects.by}))
    if len(effects.base) != 1 or effects.base[0] not in effects.at or effects.base[0] >= 0:
        raise UsageError(Fault("did.honest_needs_universal_base", {}))
    if effects.vcov is None:
        raise UsageError(Fault("did.honest_no_covariance", {}))
    base = int(effects.base[0])
    low, high = (int(effects.at.min()), int(effects.at.max())) if window is None else window
    wanted = np.array([e for e in range(low, high + 1) if e != base], np.int64)
    estimable = effects.at[np.isfinite(effects.estimate)]
    gaps = [str(e) for e in wanted.tolist() if e not in estimable]
    if gaps:
        raise DesignError(Fault("did.honest_gaps", {"events": ", ".join(gaps)}))
    place = np.searchsorted(effects.at, wanted)
    vcov = effects.vcov[np.ix_(place, place)]
    pre = int((wanted < base).sum())
    return checked(EventStudy(wanted, effects.estimate[place], (vcov + vcov.T) / 2, pre, base))


def checked(study: EventStudy) -> EventStudy:
    """The study itself, when it has periods on both sides and every estimate has a variance."""
    if study.pre == 0:
        raise DesignError(Fault("did.honest_no_pre", {"base": str(study.base)}))
    if study.post == 0 or study.event[-1] < 0:
        raise DesignError(Fault("did.honest_no_post", {}))
    # neither an estimate nor the step from one to the next may be known without error
    path = np.insert(np.eye(len(study.beta)), study.pre, 0.0, axis=0)
    moves = np.diff(path, axis=0)
    error = np.sqrt(np.diag(study.sigma))
    variance = np.minimum(error**2, np.einsum("ij,jk,ik->i", moves, study.sigma, moves))
    flat = [str(e) for e, v in zip(study.event.tolist(), variance, strict=True) if v <= 1e-12 * error.max() ** 2]
    if flat:
        raise DesignError(Fault("did.honest_degenerate", {"events": ", ".join(flat)}))
    return study


def independent(study: EventStudy, size: int | None = None) -> None:
    """Refuse a covariance (of the first ``size`` estimates) that is singular, as with fewer clusters than periods."""
    matrix = study.sigma[:size, :size]
    scale = np.sqrt(np.diag(matrix))
    if np.linalg.eigvalsh(matrix / np.outer(scale, scale))[0] < _ROUNDING:
        raise DesignError(Fault("did.honest_singular", {}))


def contrasts(study: EventStudy, contrast: Contrast | ArrayLike) -> tuple[tuple[str, int | None, Array], ...]:
    """Name, event time and weights (post,) of each contrast asked for.

    ``first`` is event time 0; ``each`` every event time from 0; ``average`` their mean; ``cumulated`` their running
    sums; an array (post,) or (L, post) weighs the periods after the base.

    Raises
    ------
    UsageError
        ``did.honest_contrast`` for another name; ``did.honest_weights`` when weights have another shape, are not
        finite, or are all zero.
    """
    treated = np.flatnonzero(study.event[study.pre :] >= 0)
    unit = np.eye(study.post)
    events = study.event[study.pre :][treated].tolist()
    if isinstance(contrast, str):
        if contrast == "first":
            return ((contrast, events[0], unit[treated[0]]),)
        if contrast == "average":
            return ((contrast, None, unit[treated].mean(axis=0)),)
        if contrast == "each":
            return tuple((f"event {e}", e, unit[i]) for e, i in zip(events, treated, strict=True))
        if contrast == "cumulated":
            sums = np.cumsum(unit[treated], axis=0)
            return tuple((f"cumulated {e}", e, row) for e, row in zip(events, sums, strict=True))
        raise UsageError(Fault("did.honest_contrast", {"contrast": contrast, "known": ", ".join(CONTRASTS)}))
    rows = np.atleast_2d(np.asarray(contrast, float))
    if rows.ndim != 2 or rows.shape[1] != study.post or not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise UsageError(Fault("did.honest_weights", {"post": study.post}))
    return tuple((f"weights {i + 1}", None, row) for i, row in enumerate(rows))
