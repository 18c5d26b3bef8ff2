"""Stacked difference-in-differences: a clean comparison for every cohort, side by side, then one event study.

For each cohort a with a full window (periods a - before .. a + after in the panel) a stack holds the cohort and its
clean controls: units not treated up to a + after (``not_yet``) or never (``never``). DID_a(e) is the change of the
cohort's mean outcome since event time -1 less that of its controls. The effect at e is sum_a s_a DID_a(e), the same
cohorts at every e. What the regression on the stacked rows makes of s_a depends on its weights:

* ``corrective`` (Wing, Freedman and Hollingsworth 2024): controls of stack a get (N_a^D / N^D) / (N_a^C / N^C), so that
  treated and controls have the same composition; then s_a = N_a^D / N^D: the average effect on the treated of the
  cohorts with a full window. Identified by parallel trends between each cohort and its clean controls over the window
  and no anticipation at -1.
* ``none`` (Cengiz, Dube, Lindner and Zipperer 2019): unit-by-stack and period-by-stack effects without weights; then
  s_a is proportional to N_a^D N_a^C / (N_a^D + N_a^C): weights that minimise a variance and answer no question.

N are sums of unit weights. A unit that serves as control in several stacks has one influence, the sum over the stacks:
rows of the stacks are not independent, and neither are stacks.

Sources: Cengiz, Dube, Lindner and Zipperer (2019), Quarterly Journal of Economics 134: 1405-1454, appendix D; Wing,
Freedman and Hollingsworth (2024), Stacked difference-in-differences, NBER working paper 32054.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evalkit.did.effects import Effects, Missing, by_cluster
from evalkit.did.overall import overall
from evalkit.did.panel import NEVER, Numbers, Panel
from evalkit.did.within import allow, usable
from evalkit.effects import Array
from evalkit.errors import DesignError, Fault, UsageError

Weighting = Literal["corrective", "none"]
Control = Literal["not_yet", "never"]
Shares = Literal["estimated", "known"]


@dataclass(frozen=True)
class _Stack:
    """One cohort and its clean controls, seen in every period of the window: numbers of units, outcomes (units, E)."""

    first: int
    treated: Numbers
    control: Numbers
    treated_outcome: Array
    control_outcome: Array


def stacked(
    panel: Panel,
    *,
    before: int,
    after: int,
    control: Control = "not_yet",
    weighting: Weighting = "corrective",
    shares: Shares = "estimated",
) -> Effects:
    """Effects by event time -before .. after of the cohorts that are seen in that whole window.

    Parameters
    ----------
    panel: followed units; covariates are not used. Periods must be consecutive around a cohort for it to take part. A
        unit without an outcome somewhere in the window of a stack is left out of that stack. Unit weights: the mean
        over the unit's rows.
    before, after: window; before >= 1, after >= 0. At event time -1 the effect is 0.
    control: ``not_yet``: treated later than the window, or never. ``never``: never.
    weighting: ``corrective`` or ``none``.
    shares: ``estimated``: the shares s_a are those of a sample. ``known``: without their part in the standard error.

    Returns
    -------
    Effects with ``by="event"``; ``overall`` is the plain mean over event times 0 and later. ``n_comparison`` counts
    distinct units. ``missing``, at the first treated period: cohorts that take no part, ``regression_window`` (no full
    window) or ``regression_no_comparison`` (no clean control); and ``regression_cohort_small``: takes part, but within
    one cluster, whose variation the standard error does not know.

    Raises
    ------
    DesignError
        ``did.regression_no_stack`` when no cohort takes part; those of :func:`~evalkit.did.two_way.two_way`.
    UsageError
        ``did.regression_repeated`` for repeated cross-sections; ``did.regression_setting``.
    """
    _settings(before, after, control, weighting, shares)
    if panel.repeated:
        raise UsageError(Fault("did.regression_repeated", {"method": "stacked"}))
    panel = usable(panel)
    event = np.arange(-before, after + 1)
    rows = np.bincount(panel.unit, minlength=panel.units)
    weight = np.bincount(panel.unit, panel.weight, panel.units) / rows
    stacks, missing = _stacks(panel, event, control)
    if not stacks:
        raise DesignError(Fault("did.regression_no_stack", {"before": before, "after": after}))
    size_treated = np.array([weight[s.treated].sum() for s in stacks])
    size_control = np.array([weight[s.control].sum() for s in stacks])
    value, slope_treated, slope_control = _shares(size_treated, size_control, weighting)
    base = int(np.searchsorted(event, -1))
    change = [(s.treated_outcome - s.treated_outcome[:, [base]], s.control_outcome - s.control_outcome[:, [base]])
              for s in stacks]  # fmt: skip
    means = [(weight[s.treated] @ d / weight[s.treated].sum(), weight[s.control] @ c / weight[s.control].sum())
             for s, (d, c) in zip(stacks, change, strict=True)]  # fmt: skip
    did = np.stack([d - c for d, c in means])
    estimate = value @ did
    influence = np.zeros((panel.units, len(event)))
    for a, stack in enumerate(stacks):
        treated, controls = stack.treated, stack.control
        influence[treated] += (value[a] / size_treated[a] * weight[treated])[:, None] * (change[a][0] - means[a][0])
        influence[controls] -= (value[a] / size_control[a] * weight[controls])[:, None] * (change[a][1] - means[a][1])
        if shares == "estimated":  # through the sizes, that of stack a moves the shares of all
            influence[treated] += weight[treated, None] * (slope_treated[:, a] @ did)
            influence[controls] += weight[controls, None] * (slope_control[:, a] @ did)
    outcome = np.stack([weight[s.treated] @ s.treated_outcome / weight[s.treated].sum() for s in stacks])
    n_treated = len(np.unique(np.concatenate([s.treated for s in stacks])))
    n_comparison = len(np.unique(np.concatenate([s.control for s in stacks])))
    se_kind = f"stacked, weighting {weighting}, clustered on {panel.level}" + (
        "" if shares == "estimated" else ", cohort shares known"
    )
    found = Effects(
        "event", event, estimate, value @ outcome - estimate, np.full(len(event), n_treated),
        np.full(len(event), n_comparison), by_cluster(panel, influence), (-1,), se_kind, None, missing,
    )  # fmt: skip
    return replace(found, overall=overall(found))


def _settings(before: int, after: int, control: str, weighting: str, shares: str) -> None:
    allow("control", control, "not_yet", "never")
    allow("weighting", weighting, "corrective", "none")
    allow("shares", shares, "estimated", "known")
    if before < 1:
        raise UsageError(Fault("did.regression_setting", {"setting": "before", "allowed": "1, 2, ..."}))
    if after < 0:
        raise UsageError(Fault("did.regression_setting", {"setting": "after", "allowed": "0, 1, ..."}))


def _stacks(panel: Panel, event: Numbers, control: Control) -> tuple[list[_Stack], tuple[Missing, ...]]:
    """The stacks of cohorts with a full window and clean controls; why others take no part."""
    stacks: list[_Stack] = []
    missing: list[Missing] = []
    for first in panel.cohorts.tolist():
        place = np.searchsorted(panel.periods, first + event)
        inside = place < len(panel.periods)
        if not inside.all() or not np.array_equal(panel.periods[place], first + event):
            missing.append(Missing(first, first, "regression_window"))
            continue
        clean = panel.first == NEVER if control == "never" else panel.first > first + event[-1]
        own = panel.first == first
        rows = (own | clean)[panel.unit] & (panel.time >= place[0]) & (panel.time <= place[-1])
        seen = np.bincount(panel.unit[rows], minlength=panel.units) == len(event)
        rows &= seen[panel.unit]
        units = np.flatnonzero(seen)
        outcome = panel.outcome[rows].reshape(len(units), len(event))
        mine = own[units]
        if not mine.any():
            missing.append(Missing(first, first, "regression_window"))
            continue
        if mine.all():
            missing.append(Missing(first, first, "regression_no_comparison"))
            continue
        if len(np.unique(panel.cluster[units[mine]])) == 1:
            missing.append(Missing(first, first, "regression_cohort_small"))
        stacks.append(_Stack(first, units[mine], units[~mine], outcome[mine], outcome[~mine]))
    return stacks, tuple(missing)


def _shares(treated: Array, control: Array, weighting: Weighting) -> tuple[Array, Array, Array]:
    """Shares s (A,), and their derivatives (A, A) with respect to the sizes: [b, a] is d s_b / d size of a."""
    if weighting == "corrective":
        raw, by_treated, by_control = treated, np.ones_like(treated), np.zeros_like(control)
    else:
        both = treated + control
        raw, by_treated, by_control = treated * control / both, (control / both) ** 2, (treated / both) ** 2
    total = raw.sum()
    share = raw / total
    spread = (np.eye(len(share)) - share[:, None]) / total
    return share, spread * by_treated, spread * by_control
