"""How much an effect hangs on one unit, cluster or cohort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalkit.did.effects import Effects, Estimator
from evalkit.did.overall import attempt, overall, table
from evalkit.did.panel import NEVER, Numbers, Panel
from evalkit.effects import Array, frozen
from evalkit.errors import Fault, UsageError

Level = Literal["unit", "cluster", "cohort"]

MOST = 500
"""How many times an estimate is repeated at most: leaving out persons one by one is never worth its time."""


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
    # NaN where nobody treated or nobody to compare with is left; the whole results are too large to keep
    parts = [table([attempt(estimator, panel.take_units(code != place))])[:2] for place in range(count)]
    estimate, std_error = np.concatenate(parts, axis=1)
    units = np.bincount(code, minlength=count)
    treated = np.bincount(code, panel.first < NEVER, minlength=count)
    cohort = names if level == "cohort" else np.empty(0, np.int64)
    order = np.arange(count) if level == "cohort" else np.lexsort((treated, units, estimate))
    return LeaveOneOut(level, cohort, units[order], treated[order], estimate[order], std_error[order], full)
