"""Effects on untreated neighbours, by distance, and the main effect without neighbours among the comparison units.

If treatment reaches units nearby, those are no longer a picture of what would have happened: compared with them, the
effect is off by the spillover on them. Units further than the last ring are assumed not to be reached.

Source: Butts (2023), Difference-in-differences estimation with spatial spillovers (arXiv:2105.03737).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from evalkit.did.effects import Effects, Estimator, Missing
from evalkit.did.overall import attempt, combine, overall, table
from evalkit.did.panel import NEVER, Mask, Numbers, Panel
from evalkit.effects import Array, frozen
from evalkit.errors import DesignError, Fault, UsageError

FAR = -1
"""The ring of a unit that is beyond the last ring, or that is treated itself."""


@dataclass(frozen=True)
class Exposure:
    """Ring (N,) of every untreated unit, ``FAR`` for others, and the period (N,) from which it is exposed."""

    ring: Numbers
    onset: Numbers

    def __post_init__(self) -> None:
        for name in ("ring", "onset"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))


@dataclass(frozen=True)
class Spillovers:
    """Spillover effects by ring (R,), and the main effect with and without the rings among the comparison units.

    Attributes
    ----------
    low, high: (R,) distances that a ring lies between, ``low < distance <= high`` (the first ring holds distance 0);
        NaN where rings were given as a column.
    units: (R,) untreated units in it. ``far``: untreated units beyond the last ring.
    effects: (R,) effects on the units of the ring, compared with the far ones; None when not estimable (``missing``:
        ``spillover_ring_empty``, ``group`` is the number of the ring).
    main: the main effect with every untreated unit as comparison. ``without``: with the far ones only.
    difference: overall ``main`` less ``without``; its standard error counts that both use the same units.
    exposure: who is in which ring since when. Microdata.
    """

    low: Array
    high: Array
    units: Numbers
    far: int
    effects: tuple[Effects | None, ...]
    main: Effects
    without: Effects
    difference: Effects
    exposure: Exposure
    missing: tuple[Missing, ...] = ()

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        object.__setattr__(self, "units", frozen(self.units, np.int64))

    def table(self) -> tuple[Array, Array]:
        """Overall effect and standard error of each ring (R,), NaN where not estimable."""
        return table(self.effects)[:2]


def exposure(
    panel: Panel,
    rings: Sequence[float],
    *,
    distance: ArrayLike | None = None,
    coordinates: ArrayLike | None = None,
    onset: Literal["first", "nearest"] = "first",
) -> Exposure:
    """Which ring every untreated unit lies in, by its distance to the nearest unit ever treated, and since when.

    Parameters
    ----------
    rings: outer limits, increasing, in the unit of the distances.
    distance: (N, N) between the panel's units, or (N, K) from every unit to the K ever treated ones, in the panel's
        order.
    coordinates: (N, 2) or more, in the unit of the rings (such as metres); the distance is the straight line.
    onset: ``first``: exposed from the first period in which any unit within the ring's outer limit is treated.
        ``nearest``: from when the nearest treated unit is (the earliest of those equally near). A unit may then have
        been exposed before, to one a bit further away.

    Raises
    ------
    UsageError
        ``did.spillover_rings``: not increasing above zero. ``did.spillover_distance``: neither or both of distance and
        coordinates, wrong shape, or values that are negative or no number.
    DesignError
        ``did.spillover_no_treated``.
    """
    edges = np.asarray(rings, float)
    if edges.ndim != 1 or not len(edges) or not (np.diff(edges, prepend=0.0) > 0).all():
        raise UsageError(Fault("did.spillover_rings", {}))
    treated = panel.first < NEVER
    if not treated.any():
        raise DesignError(Fault("did.spillover_no_treated", {}))
    if onset not in ("first", "nearest"):
        raise ValueError(f"exposure: {onset}")
    if (distance is None) == (coordinates is None):
        raise UsageError(Fault("did.spillover_distance", {"units": panel.units, "treated": int(treated.sum())}))
    near = _nearest(panel, treated, distance, coordinates)
    closest = near.min(axis=1)
    ring = np.searchsorted(edges, closest, side="left")
    ring = np.where(treated | (ring == len(edges)), FAR, ring)
    if onset == "first":
        reached = near <= edges[np.maximum(ring, 0)][:, None]
    else:
        reached = near <= closest[:, None]
    since = panel.cohorts[reached.argmax(axis=1)]
    return Exposure(ring, np.where(ring == FAR, NEVER, since))


def _nearest(panel: Panel, treated: Mask, distance: ArrayLike | None, coordinates: ArrayLike | None) -> Array:
    """(N, C) distance of every unit to the nearest one of each cohort."""
    fault = Fault("did.spillover_distance", {"units": panel.units, "treated": int(treated.sum())})
    given = np.asarray(distance if coordinates is None else coordinates, float)
    if given.ndim != 2 or len(given) != panel.units or not np.isfinite(given).all():
        raise UsageError(fault)
    if coordinates is not None:
        return np.column_stack([cKDTree(given[panel.first == g]).query(given)[0] for g in panel.cohorts])
    if given.shape[1] == panel.units:
        given = given[:, treated]
    if given.shape[1] != treated.sum() or (given < 0).any():
        raise UsageError(fault)
    cohort = panel.first[treated]
    return np.column_stack([given[:, cohort == g].min(axis=1) for g in panel.cohorts])


def given_rings(panel: Panel, ring: ArrayLike, onset: ArrayLike | None = None) -> Exposure:
    """Rings that are known: (N,) 0 for the nearest, 1, ..; -1 for units far away. What treated units have is not used.

    ``onset``: (N,) first exposed period of units in a ring; not needed when all treated units start in one period.

    Raises
    ------
    UsageError
        ``did.spillover_onset``: treatment starts in several periods and onset is not given, or lacks a value.
    """
    place = np.asarray(ring).astype(np.int64)
    if place.shape != (panel.units,):
        raise ValueError("given_rings: one value a unit")
    if not len(panel.cohorts):
        raise DesignError(Fault("did.spillover_no_treated", {}))
    place = np.where((panel.first < NEVER) | (place < 0), FAR, place)
    if onset is None:
        if len(panel.cohorts) > 1:
            raise UsageError(Fault("did.spillover_onset", {"starts": len(panel.cohorts)}))
        when = np.full(panel.units, panel.cohorts[0])
    else:
        asked = np.asarray(onset, float)
        if asked.shape != (panel.units,) or not np.isfinite(asked[place != FAR]).all():
            raise UsageError(Fault("did.spillover_onset", {"starts": len(panel.cohorts)}))
        when = np.where(np.isfinite(asked), asked, 0).astype(np.int64)
    return Exposure(place, np.where(place == FAR, NEVER, when))


def spillover_rings(
    panel: Panel,
    rings: Sequence[float],
    estimator: Estimator,
    *,
    distance: ArrayLike | None = None,
    coordinates: ArrayLike | None = None,
    onset: Literal["first", "nearest"] = "first",
) -> Spillovers:
    """Effects on untreated units by ring, and the main effect without the rings; see :func:`exposure`."""
    found = exposure(panel, rings, distance=distance, coordinates=coordinates, onset=onset)
    edges = np.asarray(rings, float)
    return of_exposure(panel, found, estimator, np.concatenate([[0.0], edges[:-1]]), edges)


def of_exposure(
    panel: Panel, exposure: Exposure, estimator: Estimator, low: ArrayLike | None = None, high: ArrayLike | None = None
) -> Spillovers:
    """Spillover effects from rings that are known.

    The units of a ring are a treated group of their own, from their first exposed period, compared with the untreated
    units beyond the last ring by the given estimator. The estimand is the average effect of being near treated units on
    the untreated units of that ring. It is identified if ring and far units would have had parallel trends and the far
    ones are not reached. ``without`` has parallel trends of treated and far units as its assumption; cohorts treated
    later still serve as comparison where the estimator uses them, and may be reached by earlier ones before.

    Raises
    ------
    DesignError
        ``did.spillover_no_far``: no untreated unit beyond the last ring. ``did.spillover_no_ring``: none in any ring.
    """
    never = panel.first >= NEVER
    inside = exposure.ring != FAR
    far = never & ~inside
    count = int(exposure.ring.max(initial=FAR)) + 1 if low is None else len(np.atleast_1d(np.asarray(low)))
    if not inside.any():
        raise DesignError(Fault("did.spillover_no_ring", {}))
    if not far.any():
        raise DesignError(Fault("did.spillover_no_far", {"rings": count}))
    effects: list[Effects | None] = []
    missing: list[Missing] = []
    for r in range(count):
        members = exposure.ring == r
        result: Effects | None = None
        if members.any():
            chosen = members | far
            result = attempt(estimator, panel.with_first(np.where(members, exposure.onset, NEVER)).take_units(chosen))
        if result is None:
            missing.append(Missing(r, 0, "spillover_ring_empty"))
        effects.append(result)
    main, without = estimator(panel), estimator(panel.take_units(~inside))
    difference = combine([overall(main), overall(without)], np.array([1.0, -1.0]))
    unknown = np.full(count, np.nan)
    return Spillovers(
        unknown if low is None else np.asarray(low, float),
        unknown if high is None else np.asarray(high, float),
        np.bincount(exposure.ring[inside], minlength=count),
        int(far.sum()),
        tuple(effects),
        main,
        without,
        difference,
        exposure,
        tuple(missing),
    )
