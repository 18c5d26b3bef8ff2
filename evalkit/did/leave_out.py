"""One effect that sums up a result, averages of several, and how much it hangs on one unit, cluster or cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalkit.did.effects import Effects, Estimator
from evalkit.did.panel import NEVER, Numbers, Panel
from evalkit.effects import Array, Covariance, Influence, frozen
from evalkit.errors import DesignError, EvalkitError, Fault, UsageError

Level = Literal["unit", "cluster", "cohort"]

MOST = 500
"""How many times an estimate is repeated at most: leaving out persons one by one is never worth its time."""


def overall(effects: Effects) -> Effects:
    """The one number that sums up effects: itself, its ``overall``, or the plain mean of what it estimates.

    Of event times those from 0 on count; ones that are not estimable do not.

    Raises
    ------
    DesignError
        ``did.no_overall`` when no effect after the start of treatment is estimable.
    """
    if effects.by == "simple":
        if not np.isfinite(effects.estimate).all():
            raise DesignError(Fault("did.no_overall", {}))
        return effects
    if effects.overall is not None and np.isfinite(effects.overall.estimate).all():
        return effects.overall
    used = np.isfinite(effects.estimate)
    if effects.by == "event":
        used &= effects.at >= 0
    if not used.any():
        raise DesignError(Fault("did.no_overall", {}))
    weights = used / used.sum()
    uncertainty = effects.uncertainty.linear(weights[None, :])
    return Effects(
        "simple", np.zeros(1, np.int64), np.array([weights[used] @ effects.estimate[used]]),
        np.array([weights[used] @ effects.counterfactual[used]]), np.array([effects.n_treated[used].max()]),
        np.array([effects.n_comparison[used].max()]),
        Covariance(np.full((1, 1), np.nan)) if uncertainty is None else uncertainty, se_kind=effects.se_kind,
    )  # fmt: skip


def combine(parts: Sequence[Effects], weights: Array) -> Effects:
    """A weighted sum of single effects, with the covariance that sharing units implies.

    Influence functions are summed by cluster. Where a part has none, the standard error is the sum of the parts' own
    times the size of their weights: an upper bound, whatever their correlation.
    """
    estimate = float(np.dot(weights, [part.estimate[0] for part in parts]))
    held = [part.uncertainty for part in parts]
    uncertainty: Influence | Covariance
    if all(isinstance(u, Influence) for u in held) and len({u.level for u in held if isinstance(u, Influence)}) == 1:
        influences = [u for u in held if isinstance(u, Influence)]
        ids = np.unique(np.concatenate([u.ids for u in influences]))
        rows = np.column_stack([u.aligned(ids)[:, 0] for u in influences])
        uncertainty, kind = Influence(ids, rows @ weights[:, None], influences[0].level), parts[0].se_kind
    else:
        bound = float(np.dot(np.abs(weights), [part.std_error[0] for part in parts]))
        uncertainty, kind = Covariance(np.array([[bound**2]])), "upper bound for any dependence"
    return Effects(
        "simple", np.zeros(1, np.int64), np.array([estimate]),
        np.array([np.dot(weights, [part.counterfactual[0] for part in parts])]),
        np.array([sum(int(part.n_treated[0]) for part in parts)]),
        np.array([max(int(part.n_comparison[0]) for part in parts)]),
        uncertainty, se_kind=kind,
    )  # fmt: skip


@dataclass(frozen=True)
class LeaveOneOut:
    """The overall effect without one unit, cluster or cohort at a time.

    Attributes
    ----------
    level: what is left out.
    cohort: (L,) the cohort left out, ``NEVER`` for the untreated; empty for units and clusters, which are not named:
        they stand in the order of ``estimate``.
    units: (L,) how many units were left out. ``treated``: (L,) how many of them were treated.
    estimate, std_error: (L,) the overall effect without them; NaN where there is none.
    full: the overall effect with everyone.
    """

    level: Level
    cohort: Numbers
    units: Numbers
    treated: Numbers
    estimate: Array
    std_error: Array
    full: Effects

    def __post_init__(self) -> None:
        for name, dtype in (("cohort", np.int64), ("units", np.int64), ("treated", np.int64), ("estimate", float),
                            ("std_error", float)):  # fmt: skip
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))

    def __len__(self) -> int:
        return len(self.estimate)

    @property
    def change(self) -> Array:
        """(L,) estimate less the full one."""
        return self.estimate - self.full.estimate[0]

    @property
    def largest(self) -> int:
        """Place of the largest change in size; -1 when nothing could be estimated."""
        return -1 if np.isnan(self.change).all() else int(np.nanargmax(np.abs(self.change)))

    @property
    def sign_changes(self) -> int:
        """How many of the estimates have the other sign than the full one."""
        return int((np.sign(self.estimate) * np.sign(self.full.estimate[0]) < 0).sum())

    @property
    def jackknife(self) -> float:
        """Jackknife standard error, ``sqrt((L - 1) / L * sum (estimate - mean)^2)``; NaN when an estimate is missing.

        Meant for ``level="cluster"`` (or for units that are independent): a cohort is no unit of sampling.
        """
        held = len(self)
        spread = float(((self.estimate - self.estimate.mean()) ** 2).sum())
        return float(np.sqrt((held - 1) / held * spread)) if self.level != "cohort" else np.nan


def leave_one_out(panel: Panel, estimator: Estimator, level: Level = "cluster") -> LeaveOneOut:
    """The overall effect without each cluster, cohort or unit in turn: how much hangs on one of them.

    Without a cohort the estimand changes, since the average effect is then over other units; a large change is no sign
    of bias by itself. ``cohort`` also leaves out the units that are never treated, as one.

    Raises
    ------
    UsageError
        ``did.leave_too_many``: more than 500 re-estimations; take clusters or cohorts.
    """
    if level not in ("unit", "cluster", "cohort"):
        raise ValueError(f"leave_one_out: {level}")
    names = np.unique(panel.first)
    code = {
        "unit": np.arange(panel.units),
        "cluster": panel.cluster,
        "cohort": np.searchsorted(names, panel.first),
    }[level]
    count = {"unit": panel.units, "cluster": len(panel.cluster_ids), "cohort": len(names)}[level]
    if count > MOST:
        raise UsageError(Fault("did.leave_too_many", {"count": count, "most": MOST}))
    full = overall(estimator(panel))
    estimate, std_error = np.full(count, np.nan), np.full(count, np.nan)
    for place in range(count):
        try:
            without = overall(estimator(panel.take_units(code != place)))
        except (EvalkitError, np.linalg.LinAlgError):  # nobody treated or nobody to compare with is left
            continue
        estimate[place], std_error[place] = without.estimate[0], without.std_error[0]
    units = np.bincount(code, minlength=count)
    treated = np.bincount(code, panel.first < NEVER, minlength=count)
    cohort = names if level == "cohort" else np.empty(0, np.int64)
    order = np.arange(count) if level == "cohort" else np.lexsort((treated, units, estimate))
    return LeaveOneOut(level, cohort, units[order], treated[order], estimate[order], std_error[order], full)
