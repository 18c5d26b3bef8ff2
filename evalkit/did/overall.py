"""One effect that sums up a result, averages of several, and estimates that may fail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evalkit.did.effects import Effects, Estimator
from evalkit.did.panel import Numbers, Panel
from evalkit.effects import Array, Covariance, Influence
from evalkit.errors import DesignError, EvalkitError, Fault


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
        missing=effects.missing,
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


def attempt(estimator: Estimator, panel: Panel) -> Effects | None:
    """The whole result when it has an overall effect; None when the estimator cannot do it on this panel."""
    try:
        found = estimator(panel)
        overall(found)
    except (EvalkitError, np.linalg.LinAlgError):
        return None
    return found


def table(found: Sequence[Effects | None]) -> tuple[Array, Array, Numbers, Numbers]:
    """Overall effect, standard error, treated and comparison units of each; NaN and 0 where there is none."""
    values, units = np.full((2, len(found)), np.nan), np.zeros((2, len(found)), np.int64)
    for place, effects in enumerate(found):
        if effects is not None:
            whole = overall(effects)
            values[:, place] = whole.estimate[0], whole.std_error[0]
            units[:, place] = whole.n_treated[0], whole.n_comparison[0]
    return values[0], values[1], units[0], units[1]
