"""Averages of cohort-period effects: by event time, by cohort, by calendar period, or one number.

Every average is sum_c s_c ATT(c) with s_c the share of the cell's cohort among the cohorts that take part,
s_c = P(G = g_c) / sum P(G = g). The shares are estimated, which adds to the influence of unit i, in sum form,
w_i sum_c 1{G_i = g_c} (ATT(c) - average) / sum_c W_c, with w_i the unit's weight and W_c the sum of the weights of
the cohort of cell c.

Source: Callaway and Sant'Anna (2021), Journal of Econometrics 225: 200-230, section 3 and Corollary 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from evalkit.did.effects import By, Effects, by_cluster
from evalkit.did.panel import Numbers
from evalkit.effects import Array
from evalkit.errors import Fault, UsageError

if TYPE_CHECKING:
    from evalkit.did.cells import Cells, Shares


def aggregate(
    cells: Cells,
    by: By = "event",
    *,
    balance: int | None = None,
    window: tuple[int | None, int | None] | None = None,
    shares: Shares = "estimated",
) -> Effects:
    """Averages of the cells, with their joint influence by cluster.

    Parameters
    ----------
    by:
        ``event``: by periods since the first treated one, cohorts weighted by their share; ``overall`` is the plain
        mean over event times 0 and later. ``group``: by cohort, the plain mean over its treated periods; ``overall``
        weights cohorts by their share. ``calendar``: by period, over the cohorts treated by then, weighted by share;
        ``overall`` is the plain mean over periods. ``simple``: all treated cells, each weighted by its cohort's share.
    balance:
        Only with ``event``: only cohorts that are seen for ``balance`` periods after the first treated one, and
        event times up to ``balance``, so that event times 0..``balance`` describe the same cohorts. Event times
        before 0 still differ in which cohorts are seen.
    window:
        Only with ``event``: smallest and largest event time, None for no limit; the overall mean is over those left.
    shares:
        ``estimated``: with the influence of the estimated cohort shares. ``known``: without it, for a population that
        is not a sample, or to compare with programs that leave it out.

    Returns
    -------
    Effects. Cells that are not estimable are left out of the averages and listed in ``missing``; an event time, cohort
    or period of which no cell is estimable has NaN. ``n_treated`` counts the units of the cohorts that take part,
    ``n_comparison`` the largest comparison group beneath. ``base``: event times of which every cell is a base cell.

    Raises
    ------
    UsageError
        ``did.group_time_setting``: an unknown setting, or ``balance`` or ``window`` with another ``by`` than ``event``.
    """
    if by not in get_args(By):
        raise UsageError(Fault("did.group_time_setting", {"setting": "by", "allowed": ", ".join(get_args(By))}))
    if shares not in ("estimated", "known"):
        raise UsageError(Fault("did.group_time_setting", {"setting": "shares", "allowed": "estimated, known"}))
    if by != "event" and not (balance is None and window is None):
        raise UsageError(Fault("did.group_time_setting", {"setting": "by", "allowed": "event"}))
    treated = cells.event >= 0
    taking = np.ones(len(cells), bool) if by == "event" else treated
    key = {"event": cells.event, "group": cells.group, "calendar": cells.time}.get(by, np.zeros(len(cells), np.int64))
    if balance is not None:
        last, first = int(cells.panel.periods[-1]), int(cells.panel.periods[0])
        taking &= (last - cells.group >= balance) & (key <= balance) & (key >= balance - last + first)
    if window is not None:
        low, high = window
        taking &= (key >= (-np.inf if low is None else low)) & (key <= (np.inf if high is None else high))
    at, row = np.unique(key[taking], return_inverse=True)
    if by == "simple":
        at, row = np.zeros(1, np.int64), np.zeros(int(taking.sum()), np.int64)
    member = np.zeros((len(at), len(cells)), bool)
    member[row, np.flatnonzero(taking)] = True
    return _averages(cells, by, at, member, shares)


def _averages(cells: Cells, by: By, at: Numbers, member: NDArray[np.bool_], shares: Shares) -> Effects:
    """The averages of the cells that are members (M, C) of each row, and the one that sums them up."""
    cohorts = np.unique(cells.group)
    place = np.searchsorted(cohorts, cells.group)
    unit_weight = cells.unit_weight
    of_unit = np.searchsorted(cohorts, cells.panel.first)
    known = (of_unit < len(cohorts)) & (cohorts[np.minimum(of_unit, len(cohorts) - 1)] == cells.panel.first)
    size = np.bincount(of_unit[known], unit_weight[known], minlength=len(cohorts))
    weight = np.where(member & cells.estimable, 1.0 if by == "group" else size[place], 0.0)
    total = weight.sum(axis=1, keepdims=True)
    possible = total[:, 0] > 0
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    effect = np.where(cells.estimable, cells.estimate, 0.0)
    estimate = share @ effect

    # (M, cohorts): what a unit of weight one adds by being of a cohort, through the estimated shares
    through = np.zeros((len(at), len(cohorts)))
    if shares == "estimated" and by != "group":
        pull = np.where(weight > 0, effect - estimate[:, None], 0.0)
        of_cohort = (place[:, None] == np.arange(len(cohorts))).astype(float)
        through = np.divide(pull, total, out=np.zeros_like(pull), where=total > 0) @ of_cohort

    # the one number: a plain mean, or for cohorts a mean by share
    if by == "group":
        of_row = np.where(possible, size[np.searchsorted(cohorts, at)], 0.0)
    else:
        of_row = (possible & ((at >= 0) if by == "event" else True)).astype(float)
    overall = by != "simple" and of_row.sum() > 0
    combine = np.eye(len(at))
    if overall:
        mean = of_row / of_row.sum()
        combine = np.vstack([combine, mean])
    share, through, value = combine @ share, combine @ through, combine @ estimate
    if overall and by == "group" and shares == "estimated":
        gap = np.where(of_row > 0, estimate - value[-1], 0.0) / of_row.sum()
        through[-1, np.searchsorted(cohorts, at)] += gap

    influence = np.asarray(cells.influence @ share.T)
    if through.any():
        influence += unit_weight[:, None] * np.vstack([through.T, np.zeros(len(share))])[np.where(known, of_unit, -1)]
    counterfactual = share @ np.where(cells.estimable, cells.counterfactual, 0.0)
    n_treated, n_comparison = _numbers(cells, share, place, len(cohorts))
    se_kind = cells.se_kind if shares == "estimated" else f"{cells.se_kind}, cohort shares known"
    count = len(at)
    one = None
    if overall:
        one = Effects(
            "simple", np.zeros(1, np.int64), value[count:], counterfactual[count:], n_treated[count:],
            n_comparison[count:], by_cluster(cells.panel, influence[:, count:]), (), se_kind, None, cells.missing,
        )  # fmt: skip
    anchored = possible & ~(member & cells.estimable & ~cells.base).any(axis=1)
    return Effects(
        by, at, np.where(possible, value[:count], np.nan), np.where(possible, counterfactual[:count], np.nan),
        n_treated[:count], n_comparison[:count], by_cluster(cells.panel, influence[:, :count]),
        tuple(int(e) for e in at[anchored]) if by == "event" else (), se_kind, one, cells.missing,
    )  # fmt: skip


def _numbers(cells: Cells, share: Array, place: Numbers, cohorts: int) -> tuple[Numbers, Numbers]:
    """Units beneath each row of shares: of a cohort its largest cell, of comparison units the largest cell."""
    used = share > 0
    by_cohort = np.zeros((len(share), cohorts), np.int64)
    for cohort in range(cohorts):
        mine = place == cohort
        by_cohort[:, cohort] = (used[:, mine] * cells.n_treated[mine]).max(axis=1, initial=0)
    return by_cohort.sum(axis=1), (used * cells.n_comparison).max(axis=1, initial=0)
