"""What each person was at risk of, stretch by stretch: what hazard models with several risks start from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.duration.terms import Terms
from evalkit.effects import Array, frozen

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Timing = Literal["exact", "grouped"]


@dataclass(frozen=True)
class Histories:
    """N persons, R stretches, K risks. Within a stretch every hazard is constant.

    In stretch r the hazard of risk k is ``h_k = exp(x_k' theta_k + mu_k)`` per unit of time, for the risks of which the
    person is at risk; the intercept ``mu_k`` belongs to the model (one a risk, or one a mass point and risk).

    What a stretch adds to the likelihood:

    - ``exact``: length tau, event d at its very end: ``1[d] ln h_d - tau H``, H the sum of the hazards at risk.
    - ``grouped``: tau whole periods, the event d in the last one, its moment within that period unknown. Risks of the
      same ``order`` compete within a period, those of a lower order come first: who leaves in a period (order 0) is not
      at risk of starting (order 1) in it. With H the sum over one order, an order without event adds ``-tau H`` (or
      ``-(tau - 1) H`` when an event of a lower order ends the last period before its turn), an order with event d adds
      ``-(tau - 1) H + ln(h_d / H) + ln(1 - exp(-H))``.

    Stretches with ``before`` lie before the person came under observation (left truncation): nothing can have happened
    in them, for otherwise he would not be here. The likelihood of a person is that of all his stretches, divided by
    that of having survived these.

    Attributes
    ----------
    person: (R,) number of the person, 0..N-1, not decreasing; all spells of one person stand together.
    length: (R,) above 0; whole numbers when ``grouped``.
    event: (R,) -1 none, else the number of the risk.
    at_risk: (R, K).
    before: (R,).
    designs: by risk its design (R rows; a row that is not at risk is not read), without intercept.
    risks: K names. order: (K,).
    count: (N,) how many persons with this very history there are.
    cluster: (N,) 0..G-1. cluster_ids: (G,) names. level: what a cluster is. With level ``person`` each history is a
        cluster of its own, and one that stands for n persons stands for n clusters: its row of an influence function
        is that of one person times the root of n, so that the covariance is right.
    timing: ``exact`` or ``grouped``.
    """

    person: Numbers
    length: Array
    event: Numbers
    at_risk: Mask
    before: Mask
    designs: tuple[Terms, ...]
    risks: tuple[str, ...]
    order: Numbers
    count: Array
    cluster: Numbers
    cluster_ids: NDArray[Any]
    level: str = "person"
    timing: Timing = "exact"

    def __post_init__(self) -> None:
        for name, kind in (("person", np.int64), ("length", np.float64), ("event", np.int64), ("at_risk", np.bool_),
                           ("before", np.bool_), ("order", np.int64), ("count", np.float64),
                           ("cluster", np.int64)):  # fmt: skip
            object.__setattr__(self, name, frozen(getattr(self, name), kind))
        rows, risks = len(self.person), len(self.risks)
        if self.at_risk.shape != (rows, risks) or len(self.designs) != risks or len(self.order) != risks:
            raise ValueError("histories: risks do not fit")
        lengths = [len(self.length), len(self.event), len(self.before), *map(len, self.designs)]
        if any(each != rows for each in lengths):
            raise ValueError("histories: columns of unlike length")
        if rows and (np.diff(self.person) < 0).any():
            raise ValueError("histories: sort by person")
        if len(self.count) != len(self.cluster) or (rows and self.person[-1] >= len(self.count)):
            raise ValueError("histories: persons do not fit")
        if self.timing == "grouped" and (self.length != np.round(self.length)).any():
            raise ValueError("histories: grouped time is in whole periods")
        happened = self.event >= 0
        if not self.at_risk[happened, self.event[happened]].all() or (happened & self.before).any():
            raise ValueError("histories: an event of which one was not at risk")

    def __len__(self) -> int:
        return len(self.person)

    @property
    def persons(self) -> int:
        """N, the number of histories."""
        return len(self.count)

    @cached_property
    def first(self) -> Numbers:
        """(N + 1,) first row of each person, and R."""
        return np.searchsorted(self.person, np.arange(self.persons + 1)).astype(np.int64)

    @cached_property
    def events(self) -> Array:
        """(K,) events of each risk, identical persons counted."""
        happened = self.event >= 0
        weight = self.count[self.person[happened]]
        return np.bincount(self.event[happened], weight, minlength=len(self.risks)).astype(float)

    @cached_property
    def score_weight(self) -> Array:
        """(N,) by which the score of one person counts in an influence function: see ``cluster``."""
        return np.sqrt(self.count) if self.level == "person" else self.count

    def take(self, rows: NDArray[Any]) -> Histories:
        """Some of the stretches; persons stay what they are."""
        parts = {name: getattr(self, name)[rows] for name in ("person", "length", "event", "at_risk", "before")}
        return replace(self, **parts, designs=tuple(design.take(rows) for design in self.designs))

    def only(self, keep: tuple[int, ...]) -> Histories:
        """The same with some of the risks; events of the others end a stretch without event.

        With grouped time a risk of a lower order that is dropped still ends the period before the turn of the others.
        """
        if self.timing == "grouped":
            raise ValueError("histories: choose risks of exact time only")
        place = np.full(len(self.risks) + 1, -1)
        place[list(keep)] = np.arange(len(keep))
        return replace(
            self, event=place[self.event], at_risk=self.at_risk[:, list(keep)], order=self.order[list(keep)],
            designs=tuple(self.designs[k] for k in keep), risks=tuple(self.risks[k] for k in keep),
        )  # fmt: skip
