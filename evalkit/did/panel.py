"""Units over periods, and the period in which each was first treated: what every estimator here starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.effects import Array, frozen

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

NEVER = 2**40
"""Stands for "not treated within these periods": later than any period, so that ``first > t`` means not yet treated."""


@dataclass(frozen=True)
class Panel:
    """Observations sorted by unit and period; n rows, N units, T periods.

    Attributes
    ----------
    unit: (n,) number of the unit, 0..N-1, not decreasing.
    time: (n,) number of the period, 0..T-1; increases within a unit unless ``repeated``.
    outcome: (n,) finite.
    ids: (N,) names of the units, without doubles.
    periods: (T,) the periods on their own scale (years, or 1, 2, ..), increasing.
    first: (N,) the first treated period of a unit, on the scale of ``periods``; ``NEVER`` when not within them. A unit
        that was treated in the first period already has no period before: :meth:`without_always_treated` drops it.
    weight: (n,) sampling weights, or persons beneath; all ones when there are none.
    x: (n, P) covariates, ``names`` their names.
    cluster: (N,) the cluster of each unit, 0..G-1; ``cluster_ids`` (G,) their names; ``level`` what they are.
    repeated: cross-sections: every row is a unit of its own, seen once.
    person_rows: (n,) persons beneath a row, for disclosure; None when a unit is a person.
    """

    unit: Numbers
    time: Numbers
    outcome: Array
    ids: NDArray[Any]
    periods: Numbers
    first: Numbers
    weight: Array
    x: Array
    names: tuple[str, ...]
    cluster: Numbers
    cluster_ids: NDArray[Any]
    level: str = "unit"
    repeated: bool = False
    person_rows: Numbers | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        unit: ArrayLike,
        period: ArrayLike,
        outcome: ArrayLike,
        first: ArrayLike,
        *,
        weight: ArrayLike | None = None,
        x: ArrayLike | None = None,
        names: Sequence[str] = (),
        cluster: ArrayLike | None = None,
        level: str = "unit",
        repeated: bool = False,
    ) -> Panel:
        """A panel from columns in any order, one value a row; nothing is checked here (``from_frame`` does).

        ``first``: the unit's first treated period; 0, NaN or one after the last period: never. ``cluster``: one value a
        row, the same within a unit; without it every unit is its own. With ``repeated`` a row's unit is its number.
        """
        period = np.asarray(period)
        keys = np.arange(len(period)) if repeated else np.asarray(unit)
        rows = _order(keys, period)
        keys = keys[rows]
        ids, start, code = np.unique(keys, return_index=True, return_inverse=True)
        periods, time = np.unique(period[rows], return_inverse=True)
        begun = np.asarray(first, float)[rows][start]
        with np.errstate(invalid="ignore"):
            never = ~np.isfinite(begun) | (begun <= 0) | (begun > periods[-1])
        when = np.where(never, NEVER, np.where(never, 0, begun)).astype(np.int64)
        n = len(period)
        groups = ids if cluster is None else np.asarray(cluster)[rows][start]
        names_of_clusters, clusters = np.unique(groups, return_inverse=True)
        return cls(
            code.astype(np.int64), time.astype(np.int64), np.asarray(outcome, float)[rows], ids,
            periods.astype(np.int64), when,
            np.ones(n) if weight is None else np.asarray(weight, float)[rows],
            np.empty((n, 0)) if x is None else np.asarray(x, float).reshape(n, -1)[rows],
            tuple(names), clusters.astype(np.int64), names_of_clusters, level, repeated,
        )  # fmt: skip

    def __post_init__(self) -> None:
        for name, kind in (("unit", np.int64), ("time", np.int64), ("periods", np.int64), ("first", np.int64),
                           ("cluster", np.int64), ("outcome", float), ("weight", float), ("x", float)):  # fmt: skip
            object.__setattr__(self, name, frozen(getattr(self, name), kind))
        n, units = len(self.outcome), len(self.ids)
        if self.x.shape != (n, len(self.names)) or not len(self.unit) == len(self.time) == len(self.weight) == n:
            raise ValueError("panel: columns of unlike length")
        if len(self.first) != units or len(self.cluster) != units:
            raise ValueError("panel: first and cluster hold one value a unit")

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def units(self) -> int:
        """N."""
        return len(self.ids)

    @property
    def period(self) -> Numbers:
        """(n,) the period of each row on its own scale."""
        return self.periods[self.time]

    @cached_property
    def cohorts(self) -> Numbers:
        """The first treated periods that occur, increasing, without ``NEVER``."""
        found = np.unique(self.first)
        return found[found < NEVER]

    @cached_property
    def first_of_cluster(self) -> Numbers:
        """(G,) the first treated period of the unit of each cluster that is treated first."""
        first = np.full(len(self.cluster_ids), NEVER)
        np.minimum.at(first, self.cluster, self.first)
        return first

    @cached_property
    def treated(self) -> Mask:
        """(n,) whether a row is of a unit that has been treated."""
        return self.period >= self.first[self.unit]

    @cached_property
    def balanced(self) -> bool:
        """Whether every unit is seen once in every period."""
        return not self.repeated and len(self) == self.units * len(self.periods) and self._once

    @property
    def _once(self) -> bool:
        return bool(np.array_equal(self.time, np.tile(np.arange(len(self.periods)), self.units)))

    def wide(self, values: Array | None = None) -> Array:
        """(N, T) of a column of a balanced panel: the outcome, unless another is given."""
        if not self.balanced:
            raise ValueError("panel: only a balanced one is wide")
        return (self.outcome if values is None else values).reshape(self.units, len(self.periods))

    def take_units(self, keep: Mask) -> Panel:
        """Only some units (mask (N,)), periods that no row is left in included."""
        place = np.cumsum(keep) - 1
        rows = keep[self.unit]
        groups, cluster = np.unique(self.cluster[keep], return_inverse=True)
        return replace(
            self, unit=place[self.unit[rows]], time=self.time[rows], outcome=self.outcome[rows], ids=self.ids[keep],
            first=self.first[keep], weight=self.weight[rows], x=self.x[rows], cluster=cluster,
            cluster_ids=self.cluster_ids[groups],
            person_rows=None if self.person_rows is None else self.person_rows[rows],
        )  # fmt: skip

    def take_rows(self, keep: Mask) -> Panel:
        """Only some rows (mask (n,)); units and periods without a row go."""
        held = np.zeros(self.units, bool)
        held[self.unit[keep]] = True
        seen, time = np.unique(self.time[keep], return_inverse=True)
        place = np.cumsum(held) - 1
        groups, cluster = np.unique(self.cluster[held], return_inverse=True)
        periods = self.periods[seen]
        first = self.first[held]
        return replace(
            self, unit=place[self.unit[keep]], time=time, outcome=self.outcome[keep], ids=self.ids[held],
            periods=periods, first=np.where(first > periods[-1], NEVER, first), weight=self.weight[keep],
            x=self.x[keep], cluster=cluster, cluster_ids=self.cluster_ids[groups],
            person_rows=None if self.person_rows is None else self.person_rows[keep],
        )  # fmt: skip

    def with_first(self, first: Numbers) -> Panel:
        """The same observations with other first treated periods (N,): for placebo dates and reassignment."""
        return replace(self, first=first)

    def with_outcome(self, outcome: Array) -> Panel:
        """The same panel with another outcome (n,)."""
        return replace(self, outcome=outcome)

    def complete(self) -> tuple[Panel, Numbers]:
        """The units that are seen in every period, and the numbers of those that are not."""
        seen = np.bincount(self.unit, minlength=self.units)
        keep = seen == len(self.periods)
        return (self, np.empty(0, np.int64)) if keep.all() else (self.take_units(keep), np.flatnonzero(~keep))

    def without_always_treated(self, anticipation: int = 0) -> tuple[Panel, Numbers]:
        """The units that are seen before they are treated, and the numbers of those that are not."""
        keep = self.first > self.periods[0] + anticipation
        return (self, np.empty(0, np.int64)) if keep.all() else (self.take_units(keep), np.flatnonzero(~keep))


def _order(keys: NDArray[Any], period: NDArray[Any]) -> NDArray[np.int64] | slice:
    """The rows by unit and period; all of them as they stand when they do so already."""
    same = keys[1:] == keys[:-1]
    if bool((same | (keys[1:] > keys[:-1])).all()) and bool((period[1:] > period[:-1])[same].all()):
        return slice(None)
    return np.lexsort((period, keys))
