"""One door to the estimators by event time: a choice with its settings, which is called with a panel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from evalkit.did.cells import Cells
from evalkit.did.effects import By, Effects
from evalkit.did.extended import Family, extended
from evalkit.did.group_time import Base, Control, Unbalanced, group_time
from evalkit.did.imputation import imputation
from evalkit.did.panel import NEVER, Mask, Panel
from evalkit.did.stacked import stacked
from evalkit.did.sun_abraham import sun_abraham
from evalkit.did.synthetic import synthetic_did
from evalkit.did.triple import triple
from evalkit.did.two_by_two import Method as Adjust
from evalkit.did.two_way import event_study, two_way
from evalkit.errors import DesignError, Fault, UsageError

Name = Literal["group_time", "sun_abraham", "imputation", "extended", "stacked", "two_way", "synthetic", "triple"]
SyntheticErrors = Literal["placebo", "jackknife", "bootstrap"]

LARGEST = 6 * 2**30
"""Bytes that the influence of all units on all cells may take."""
NAMES: tuple[str, ...] = get_args(Name)
BY_CELL = ("group_time", "sun_abraham", "extended", "triple")
"""Estimators that give an effect for each cohort and period, and aggregate them."""


@dataclass(frozen=True)
class Choice:
    """An estimator of average effects on the treated by event time, with its settings; call it with a panel.

    Attributes
    ----------
    estimator: ``group_time`` (Callaway and Sant'Anna), ``sun_abraham``, ``imputation`` (Borusyak, Jaravel and Spiess),
        ``extended`` (Wooldridge), ``stacked``, ``two_way`` (the usual event study), ``synthetic`` (synthetic
        difference-in-differences), ``triple`` (triple differences).
    control: ``not_yet`` or ``never``. Sun and Abraham compare with the last cohort where there are no never treated.
    adjust: how covariates enter ``group_time`` and ``triple``: see there.
    base: ``universal`` or ``varying`` (``group_time``).
    anticipation: periods before the first treated one in which effects may begin.
    unbalanced: what ``group_time`` does with units that are not seen in every period.
    family: of ``extended``: ``linear``, ``logit``, ``poisson``.
    before, after: event times -before .. after are returned; None: as far as the panel goes.
    complete: only cohorts that are seen for ``after`` periods after the first treated one, so that every event time
        from 0 on describes the same units. Needs ``after``. The others serve as comparison until they are treated.
    covariates: whether the panel's covariates are used.
    eligible: for ``triple`` the covariate, 0 or 1, that says who can be affected at all.
    repetitions: how ``synthetic`` finds its errors, ``draws`` and ``seed`` of it.
    """

    estimator: Name = "group_time"
    control: Control = "not_yet"
    adjust: Adjust = "dr"
    base: Base = "universal"
    anticipation: int = 0
    unbalanced: Unbalanced = "complete"
    family: Family = "linear"
    before: int | None = None
    after: int | None = None
    complete: bool = False
    covariates: bool = True
    eligible: str = ""
    repetitions: SyntheticErrors = "placebo"
    draws: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.estimator not in NAMES:
            raise UsageError(Fault("did.unknown_estimator", {"valid": ", ".join(NAMES)}))
        if self.complete and self.after is None:
            raise UsageError(Fault("did.complete_needs_after", {}))
        if self.estimator == "triple" and not self.eligible:
            raise UsageError(Fault("did.triple_needs_eligible", {}))

    def __call__(self, panel: Panel) -> Effects:
        """Effects by event time.

        Raises
        ------
        DesignError
            ``did.horizon_too_long`` when no cohort is seen for ``after`` periods; those of the estimator.
        """
        return self.by(panel, "event")

    def by(self, panel: Panel, by: By) -> Effects:
        """Effects by event time, cohort, calendar period, or one number.

        The one number of ``two_way`` is its static coefficient; ``stacked`` has event times only.
        """
        panel = self.prepared(panel)
        window = (-self.before if self.before is not None else None, self.after)
        if self.estimator in BY_CELL:
            if by != "event":
                return self.cells(panel).aggregate(by)
            balance = self.after if self.complete else None
            return self.cells(panel).aggregate("event", balance=balance, window=window)
        if self.estimator == "imputation":
            found = imputation(  # recentred by event time: cohort shares are those of a sample, as everywhere here
                panel, by=by, covariates=self.covariates, anticipation=self.anticipation,
                pretrend=self._pretrend(panel) if by == "event" else None,
                recentre="event" if by == "event" else "cohort" if by == "group" else "all",
            )  # fmt: skip
        elif self.estimator == "stacked":
            if by != "event":
                raise UsageError(Fault("did.only_event_times", {"estimator": self.estimator}))
            low, high = self._reach(panel)
            found = stacked(panel, before=max(low, 1), after=high, control=self.control)
        elif self.estimator == "two_way":
            if by == "simple":
                return two_way(panel, covariates=self.covariates)
            if by != "event":
                raise UsageError(Fault("did.only_event_times", {"estimator": self.estimator}))
            found = event_study(panel, base=-1 - self.anticipation, covariates=self.covariates)
        else:
            made = synthetic_did(
                panel, errors=self.repetitions, draws=self.draws, seed=self.seed, covariates=self.covariates
            )
            found = made.effects(by)
        return within(found, window) if by == "event" else found

    def cells(self, panel: Panel) -> Cells:
        """Effects by cohort and period, for the estimators that have them.

        Raises
        ------
        UsageError
            ``did.no_cells`` for the others.
        DesignError
            ``did.too_large`` when the influence of all units on all cells does not fit in memory.
        """
        cells = len(panel.cohorts) * len(panel.periods)
        if 8 * panel.units * cells > LARGEST:
            raise DesignError(Fault("did.too_large", {"units": panel.units, "cells": cells}))
        if self.estimator == "group_time":
            bare = panel if self.covariates else without_covariates(panel)
            method: Adjust = self.adjust if bare.names else "means"
            return group_time(
                bare, control=self.control, method=method, base=self.base, anticipation=self.anticipation,
                unbalanced=self.unbalanced,
            )  # fmt: skip
        if self.estimator == "sun_abraham":
            never = bool((panel.first == NEVER).any())
            return sun_abraham(
                panel, base=-1 - self.anticipation, control="never" if never else "last",
                covariates=self.covariates, small_sample="none",
            )  # fmt: skip
        if self.estimator == "extended":
            return extended(
                panel, family=self.family, control=self.control, covariates=self.covariates,
                anticipation=self.anticipation,
            )  # fmt: skip
        if self.estimator == "triple":
            eligible, rest = self.told(panel)
            if self.adjust not in ("dr", "reg", "ipw"):
                raise UsageError(Fault("did.triple_adjust", {"valid": "dr, reg, ipw"}))
            rest = rest if self.covariates else without_covariates(rest)
            return triple(
                rest, eligible, control=self.control, method=self.adjust if rest.names else "reg",
                anticipation=self.anticipation,
            )  # fmt: skip
        raise UsageError(Fault("did.no_cells", {"estimator": self.estimator}))

    def told(self, panel: Panel) -> tuple[Mask, Panel]:
        """For triple differences: who is eligible (N,), and the panel without that covariate.

        Raises
        ------
        UsageError
            ``did.triple_column`` when the covariate is not there, or is not 0 or 1 throughout each unit.
        """
        if self.eligible not in panel.names:
            raise UsageError(Fault("did.triple_column", {"column": self.eligible}))
        place = panel.names.index(self.eligible)
        column = panel.x[:, place]
        held = np.zeros(panel.units)
        held[panel.unit] = column
        if not np.isin(column, (0.0, 1.0)).all() or (held[panel.unit] != column).any():
            raise UsageError(Fault("did.triple_column", {"column": self.eligible}))
        return held == 1, without_covariate(panel, self.eligible)

    def prepared(self, panel: Panel) -> Panel:
        """The panel that is estimated on: with ``complete``, cohorts that cannot be followed long enough end at start.

        Estimators by cell leave such cohorts out of the averages instead, so that the panel stays as balanced as it is.
        """
        if not self.complete or self.after is None:
            return panel
        last = int(panel.periods[-1])
        cohorts = panel.cohorts
        if len(cohorts) and not (cohorts + self.after <= last).any():
            longest = int(last - cohorts.min())
            raise DesignError(Fault("did.horizon_too_long", {"wanted": self.after + 1, "longest": longest + 1}))
        if self.estimator in BY_CELL:
            return panel
        short = (panel.first < NEVER) & (panel.first + self.after > last)
        if not short.any():
            return panel
        begun = panel.period >= panel.first[panel.unit] - self.anticipation
        first = np.where(short, NEVER, panel.first)
        return panel.with_first(first).take_rows(~(short[panel.unit] & begun))

    def _reach(self, panel: Panel) -> tuple[int, int]:
        """Periods before and after that the panel has for some cohort, or those asked for."""
        cohorts = panel.cohorts
        if not len(cohorts):
            return 1, 0
        before = int(cohorts.min() - panel.periods[0]) if self.before is None else self.before
        after = int(panel.periods[-1] - cohorts.min()) if self.after is None else self.after
        return before, after

    def _pretrend(self, panel: Panel) -> int | None:
        """How many coefficients before the treatment: one period of every cohort stays as base."""
        cohorts = panel.cohorts
        if self.before is None or not len(cohorts):
            return None
        room = int((panel.periods < cohorts.min() - self.anticipation).sum()) - 1
        return max(0, min(self.before, room))


def within(effects: Effects, window: tuple[int | None, int | None]) -> Effects:
    """Only the event times in a window; the overall effect goes where event times from 0 on do."""
    low, high = window
    keep = np.ones(len(effects), bool)
    if low is not None:
        keep &= effects.at >= low
    if high is not None:
        keep &= effects.at <= high
    if keep.all():
        return effects
    overall = effects.overall
    if (effects.at[~keep] >= 0).any():
        overall = None  # it sums up periods that are not shown
    return replace(
        effects, at=effects.at[keep], estimate=effects.estimate[keep], counterfactual=effects.counterfactual[keep],
        n_treated=effects.n_treated[keep], n_comparison=effects.n_comparison[keep],
        uncertainty=effects.uncertainty.take(keep), overall=overall,
        base=tuple(e for e in effects.base if e in effects.at[keep]),
    )  # fmt: skip


def without_covariate(panel: Panel, name: str) -> Panel:
    """The same panel without one of its covariates."""
    place = panel.names.index(name)
    return replace(panel, x=np.delete(panel.x, place, axis=1), names=panel.names[:place] + panel.names[place + 1 :])


def without_covariates(panel: Panel) -> Panel:
    """The same panel without covariates."""
    return replace(panel, x=np.empty((len(panel), 0)), names=())
