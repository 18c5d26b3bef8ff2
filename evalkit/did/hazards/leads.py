"""Were trends in hazards parallel before adoption? Leads of adoption in the model of untreated months."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evalkit.did.hazards.at_risk import AtRisk
from evalkit.did.hazards.chain import scores
from evalkit.did.hazards.estimate import Duration, coding_of, untreated
from evalkit.did.hazards.model import Link, fit, zeros
from evalkit.did.panel import NEVER, Numbers
from evalkit.effects import Array, frozen
from evalkit.errors import DesignError, Fault, UsageError


@dataclass(frozen=True)
class Leads:
    """Leads on the link scale, and the test that all are zero.

    Attributes
    ----------
    at: (L,) months before adoption, -L..-1 (with anticipation: that much earlier). estimate, std_error (L,):
        difference of adopters from parallel trends in those months, against all earlier months; with cloglog, a log
        hazard ratio. vcov (L, L).
    statistic: Wald statistic divided by L, against F(L, clusters - 1); p_value.
    """

    at: NDArray[np.int64]
    estimate: Array
    std_error: Array
    vcov: Array
    statistic: float
    df: tuple[int, int]
    p_value: float

    def __post_init__(self) -> None:
        for name in ("estimate", "std_error", "vcov"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        object.__setattr__(self, "at", frozen(self.at, np.int64))


def leads_test(
    at_risk: AtRisk,
    leads: int = 6,
    *,
    link: Link = "cloglog",
    duration: Duration = "monthly",
    group_durations: bool = False,
    destination: str | None = None,
    anticipation: int = 0,
) -> Leads:
    """Test parallel trends in hazards before adoption; settings as in :func:`~evalkit.did.hazards.hazard_did`.

    The model of untreated person-months gets a dummy for each of the last ``leads`` untreated months of groups that
    adopt. Without ``destination`` all exits count together. A test that does not reject proves nothing: look at the
    size of the leads.

    Raises
    ------
    DesignError
        ``did.hazards_leads`` when the leads are not all estimable (too few months before, nobody to compare with, a
        lead without exits, no more clusters than leads).
    """
    if leads < 1 or anticipation < 0:
        raise UsageError(Fault("did.hazards_setting", {"setting": "leads, anticipation"}))
    at_risk = at_risk.together() if destination is None else at_risk.pooled(destination)
    plain, sizes = coding_of(at_risk, duration, group_durations, 0)

    def coding(group: Numbers, cell: Numbers, calendar: Numbers, elapsed: Numbers) -> Numbers:
        first = at_risk.first[group]
        before = np.where(first < NEVER, first - anticipation - calendar, 0)
        return np.concatenate(
            [plain(group, cell, calendar, elapsed), np.where((before > 0) & (before <= leads), before, 0)[None]]
        )

    codes = coding(at_risk.group, at_risk.cell, at_risk.calendar, at_risk.elapsed)
    rows = untreated(at_risk, anticipation)
    whole = (*sizes, leads + 1)
    clusters = len(at_risk.cluster_ids)
    seen = np.bincount(codes[-1][rows & (at_risk.at_risk > 0)], minlength=leads + 1) > 0
    if not seen.all() or clusters <= leads:
        raise DesignError(Fault("did.hazards_leads", {"leads": leads}))
    model = fit(codes, whole, at_risk.at_risk, at_risk.exits[:, 0], rows, link)
    effect = model.coefficient[-1]
    loading = model.null[-1] - model.null[-1][:1]
    if not np.isfinite(effect).all() or (np.abs(loading) > 1e-6).any():
        raise DesignError(Fault("did.hazards_leads", {"leads": leads}))
    gradient = zeros(whole, leads)
    gradient[-1][0] = -1.0
    gradient[-1][1:] = np.eye(leads)
    values = scores(at_risk, (model,), coding, [[model.weights(tuple(gradient))]])[:, 0]
    order = np.arange(leads)[::-1]
    estimate = (effect[1:] - effect[0])[order]
    vcov = (values.T @ values)[np.ix_(order, order)]
    statistic = float(estimate @ np.linalg.solve(vcov, estimate)) / leads
    df = (leads, clusters - 1)
    at = -np.arange(1, leads + 1)[order] - anticipation
    return Leads(at, estimate, np.sqrt(np.diag(vcov)), vcov, statistic, df, float(stats.f.sf(statistic, *df)))
