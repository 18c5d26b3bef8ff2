"""Does the form fit: criteria of several families, Cox-Snell residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from evalkit.duration.describe.curves import nelson_aalen
from evalkit.duration.episodes import Episodes
from evalkit.duration.parametric.families import FAMILIES, Family
from evalkit.duration.parametric.fit import parametric
from evalkit.duration.parametric.model import Parametric
from evalkit.effects import Array, frozen
from evalkit.errors import Fault, UsageError


@dataclass(frozen=True)
class Criterion:
    """One family among others: log-likelihood, number of parameters, criteria, and AIC less that of the best."""

    family: Family
    parameters: int
    log_likelihood: float
    aic: float
    bic: float
    difference: float


def compare(
    episodes: Episodes,
    x: ArrayLike,
    names: Sequence[str],
    families: Sequence[Family] = FAMILIES,
    *,
    scale_by_stratum: bool = False,
) -> tuple[Parametric, ...]:
    """Every family fitted to the same rows, the lowest AIC first; what is raised is that of :func:`parametric`."""
    fits = (parametric(episodes, x, names, each, scale_by_stratum=scale_by_stratum) for each in families)
    return tuple(sorted(fits, key=lambda fit: fit.aic))


def criteria(fits: Sequence[Parametric]) -> tuple[Criterion, ...]:
    """A table of fits to the same rows, the lowest AIC first.

    A better AIC says that a form fits better than others, not that it fits: see :func:`cox_snell`.
    """
    best = min(fit.aic for fit in fits)
    return tuple(
        Criterion(fit.family, len(fit.parameters), fit.log_likelihood, fit.aic, fit.bic, fit.aic - best)
        for fit in sorted(fits, key=lambda fit: fit.aic)
    )


@dataclass(frozen=True)
class Residuals:
    """Cox-Snell residuals against what they should be.

    residual: (K,) in rising order. cumulated: (K,) Nelson-Aalen hazard of residuals, equal to ``residual`` if the form
    is right; std_error: (K,) of it, as if parameters were known. at_risk: (K,) weighted.
    """

    residual: Array
    cumulated: Array
    std_error: Array
    at_risk: Array

    def __post_init__(self) -> None:
        for name in ("residual", "cumulated", "std_error", "at_risk"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


def cox_snell(fit: Parametric, episodes: Episodes, x: ArrayLike) -> Episodes:
    """Residuals as episodes: each row from the hazard cumulated until its start to that until its end.

    If the form is right they come from an exponential distribution of rate 1, censored and entered late as the rows
    (Cox and Snell 1968). With frailty of rows the hazard is that averaged over those still there,
    ``ln(1 + theta H) / theta``; frailty shared by several rows has no such residual of a row.

    Raises
    ------
    UsageError
        ``duration.parametric_residuals`` with a frailty that rows share.
    """
    values = np.asarray(x, float).reshape(len(episodes), -1)
    theta = 0.0 if fit.frailty is None else fit.frailty.variance
    if theta > 0 and fit.frailty is not None and len(fit.frailty.ids) < len(episodes):
        raise UsageError(Fault("duration.parametric_residuals", {}))
    stratum = episodes.stratum if fit.strata else np.zeros(len(episodes), np.int64)
    begin, end = np.zeros(len(episodes)), np.zeros(len(episodes))
    for s in np.unique(stratum):
        own = np.flatnonzero(stratum == s)
        both = np.stack([fit.along(times[own], values[own], int(s)) for times in (episodes.start, episodes.stop)])
        begin[own], end[own] = np.log1p(theta * both) / theta if theta > 0 else both
    return replace(episodes, start=begin, stop=end)


def residual_table(residuals: Episodes, points: int = 10) -> Residuals:
    """The hazard of residuals at ``points`` of them, so that as many events lie between."""
    curve = nelson_aalen(residuals)
    ended = np.sort(residuals.stop[residuals.cause > 0])
    place = np.unique(np.ceil(np.arange(1, points + 1) * len(ended) / points).astype(int)) - 1
    at = np.unique(ended[place])
    return Residuals(at, curve.at(at), curve.error_at(at), curve.at_risk_at(at))
