"""Durations of a given form: exponential, Weibull, log-normal, log-logistic, by maximum likelihood.

Accelerated time: ``ln T = a + x'b + s e``, e extreme-value (Weibull; exponential with s = 1), normal (log-normal) or
logistic (log-logistic). With z = (ln t - a - x'b) / s, log density ``g(z)`` and log survival ``G(z)`` of e, a row that
ends in an event adds ``g(z) - ln s - ln t``, one that does not ``G(z)``; a row that begins at t0 > 0 subtracts the log
survival at t0. Parameters are (a, b, ln s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from evalkit.duration.episodes import Episodes
from evalkit.duration.newton import dependent, solve
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import DataError, DesignError, Fault, UsageError

Family = Literal["exponential", "weibull", "lognormal", "loglogistic"]

MOST = 100
GAIN = 1e-14


@dataclass(frozen=True)
class Parametric:
    """A fitted form of duration.

    Attributes
    ----------
    names: ``(intercept)``, the covariates, ``ln(scale)`` (not with exponential). parameters: (P,).
    information: (P, P) inverse of the observed information. influence: (G, P) in sum form, by cluster.
    log_likelihood: of times (not of their logs). rows, events: numbers.
    """

    family: Family
    names: tuple[str, ...]
    parameters: Array
    information: Array
    influence: Influence
    log_likelihood: float
    rows: int
    events: int
    iterations: int

    def __post_init__(self) -> None:
        for name in ("parameters", "information"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def std_error(self) -> Array:
        """(P,) from the information."""
        return np.sqrt(np.diag(self.information))

    @property
    def robust_error(self) -> Array:
        """(P,) from the influence function, clustered."""
        return np.sqrt(np.diag(self.influence.vcov))

    @property
    def aic(self) -> float:
        """Akaike's criterion: lower is better, also between families."""
        return 2 * len(self.parameters) - 2 * self.log_likelihood

    @property
    def scale(self) -> float:
        """s; 1 with exponential."""
        return 1.0 if self.family == "exponential" else float(np.exp(self.parameters[-1]))

    def proportional(self) -> tuple[Array, Array]:
        """Weibull and exponential as proportional hazards: log hazard ratios -b / s of the covariates, and errors.

        Raises
        ------
        UsageError
            ``duration.parametric_proportional`` for the other families, whose hazards are not proportional.
        """
        if self.family not in ("exponential", "weibull"):
            raise UsageError(Fault("duration.parametric_proportional", {"family": self.family}))
        last = len(self.parameters) - (self.family == "weibull")
        ratio = -self.parameters[1:last] / self.scale
        gradient = np.zeros((len(ratio), len(self.parameters)))
        gradient[:, 1:last] = -np.eye(len(ratio)) / self.scale
        if self.family == "weibull":
            gradient[:, -1] = -ratio
        return ratio, np.sqrt(np.einsum("ij,jk,ik->i", gradient, self.information, gradient))

    def cumulative_hazard(self, times: ArrayLike, x: ArrayLike, parameters: Array | None = None) -> Array:
        """(n, T) at times (T,) for people with covariates x (n, P'); ``parameters``: others than those fitted."""
        theta = self.parameters if parameters is None else np.asarray(parameters, float)
        last = len(theta) - (self.family != "exponential")
        scale = 1.0 if self.family == "exponential" else np.exp(theta[-1])
        values = np.atleast_2d(np.asarray(x, float))
        t = np.asarray(times, float)
        with np.errstate(divide="ignore"):
            z = (np.log(t)[None, :] - theta[0] - (values @ theta[1:last])[:, None]) / scale
        return -np.where(t > 0, _terms(np.where(t > 0, z, 0.0), self.family)[3], 0.0)

    def survival(self, times: ArrayLike, x: ArrayLike) -> Array:
        """(n, T)."""
        return np.exp(-self.cumulative_hazard(times, x))


def parametric(episodes: Episodes, x: ArrayLike, names: Sequence[str], family: Family = "weibull") -> Parametric:
    """Fit one family; all causes of ``episodes`` count as the event.

    Rows with a start above 0 are conditioned on having lasted until then, so that a person may have several rows, with
    covariates that change: with exponential and Weibull times the hazard then follows the covariates of the moment;
    with the other families a row has the hazard that time on benefit and its covariates give (as if they had always
    been those), the model lambda(t | x_t).

    Raises
    ------
    UsageError
        ``duration.parametric_family``.
    DataError
        ``duration.cox_not_finite``.
    DesignError
        ``duration.parametric_few`` with fewer events than parameters, ``duration.cox_collinear``,
        ``duration.cox_not_converged`` (a covariate tells who has the event, for one).
    """
    if family not in ("exponential", "weibull", "lognormal", "loglogistic"):
        raise UsageError(Fault("duration.parametric_family", {}))
    values = np.asarray(x, float).reshape(len(episodes), -1)
    if not np.isfinite(values).all():
        raise DataError(Fault("duration.cox_not_finite", {"rows": int((~np.isfinite(values)).any(axis=1).sum())}))
    design = np.column_stack([np.ones(len(values)), values])
    spread = np.sqrt((design**2).mean(axis=0))
    if bad := dependent(design.T @ design):
        raise DesignError([Fault("duration.cox_collinear", {"column": names[j - 1]}) for j in bad if j])
    free = family != "exponential"
    events = int((episodes.cause > 0).sum())
    size = design.shape[1] + free
    if events < size:
        raise DesignError(Fault("duration.parametric_few", {"events": events, "parameters": size}))
    exposure = float((episodes.weight * (episodes.stop - episodes.start)).sum())
    theta = np.zeros(size)
    theta[0] = np.log(exposure / float(episodes.weight[episodes.cause > 0].sum()))
    value, score, information = _likelihood(episodes, design, theta, family)
    damp = 0.0
    for steps in range(1, MOST + 1):  # noqa: B007  (told in the result)
        roots, vectors = np.linalg.eigh(information)
        size_of = np.maximum(np.abs(roots), 1e-12 * np.abs(roots).max())
        move = vectors @ ((vectors.T @ score.sum(axis=0)) / (size_of * (1 + damp)))
        length = 1.0
        while True:
            tried = theta + length * move
            new = _likelihood(episodes, design, tried, family)
            if np.isfinite(new[0]) and (new[0] >= value - 1e-13 * abs(value) or length < 1e-8):
                break
            length /= 2
        gain = new[0] - value
        theta, (value, score, information) = tried, new
        if gain < GAIN * max(1.0, abs(value)) and length == 1.0:
            break
        if (np.abs(theta[: design.shape[1]]) * spread > 60).any():
            raise DesignError(Fault("duration.cox_not_converged", {"steps": steps}))
    else:
        raise DesignError(Fault("duration.cox_not_converged", {"steps": MOST}))
    inverse = solve(information, np.eye(len(theta)))
    by_cluster = np.zeros((len(episodes.cluster_ids), len(theta)))
    np.add.at(by_cluster, episodes.cluster, score)
    labels = ("(intercept)", *names, *(("ln(scale)",) if free else ()))
    return Parametric(
        family, labels, theta, inverse, Influence(episodes.cluster_ids, by_cluster @ inverse, episodes.level), value,
        len(episodes), events, steps,
    )  # fmt: skip


def compare(episodes: Episodes, x: ArrayLike, names: Sequence[str]) -> tuple[Parametric, ...]:
    """Every family, the lowest AIC first."""
    families: tuple[Family, ...] = ("exponential", "weibull", "lognormal", "loglogistic")
    return tuple(sorted((parametric(episodes, x, names, each) for each in families), key=lambda fit: fit.aic))


def cox_snell(fit: Parametric, episodes: Episodes, x: ArrayLike) -> Episodes:
    """Residuals as episodes: cumulated hazards of each row. If the form is right they are exponential of rate 1."""
    values = np.asarray(x, float).reshape(len(episodes), -1)
    rows = np.arange(len(values))
    end = np.array([fit.cumulative_hazard([episodes.stop[i]], values[i])[0, 0] for i in rows])
    begin = np.array([fit.cumulative_hazard([episodes.start[i]], values[i])[0, 0] for i in rows])
    return replace(episodes, start=begin, stop=end)


def _terms(z: Array, family: Family) -> tuple[Array, Array, Array, Array, Array, Array]:
    """g, g', g'' (log density) and G, G', G'' (log survival) of the error at z."""
    if family in ("exponential", "weibull"):
        e = np.exp(np.minimum(z, 700.0))
        return z - e, 1 - e, -e, -e, -e, -e
    if family == "loglogistic":
        p = special.expit(z)
        log_s = -np.logaddexp(0.0, z)
        return z + 2 * log_s, 1 - 2 * p, -2 * p * (1 - p), log_s, -p, -p * (1 - p)
    log_s = special.log_ndtr(-z)
    log_d = -z * z / 2 - 0.5 * np.log(2 * np.pi)
    mills = np.exp(log_d - log_s)
    return log_d, -z, -np.ones_like(z), log_s, -mills, -mills * (mills - z)


def _likelihood(episodes: Episodes, design: Array, theta: Array, family: Family) -> tuple[float, Array, Array]:
    """Log-likelihood, scores of rows (R, P) and minus the second derivative, weighted."""
    free = family != "exponential"
    wide = design.shape[1]
    scale = float(np.exp(theta[-1])) if free else 1.0
    center = design @ theta[:wide]
    event = episodes.cause > 0
    weight = episodes.weight
    with np.errstate(over="ignore", invalid="ignore"):
        z = (np.log(episodes.stop) - center) / scale
        g, g1, g2, s, s1, s2 = _terms(z, family)
        value = np.where(event, g - np.log(scale) - np.log(episodes.stop), s)
        first, second = np.where(event, g1, s1), np.where(event, g2, s2)
        late = episodes.start > 0
        z0 = np.where(late, (np.log(np.where(late, episodes.start, 1.0)) - center) / scale, 0.0)
        _, _, _, t, t1, t2 = _terms(z0, family)
        value = value - np.where(late, t, 0.0)
        t1, t2 = np.where(late, t1, 0.0), np.where(late, t2, 0.0)
    # z depends on (a, b) by -x / s and on ln s by -z
    score = np.zeros((len(z), len(theta)))
    score[:, :wide] = design * (-(first - t1) / scale)[:, None]
    information = np.zeros((len(theta), len(theta)))
    information[:wide, :wide] = -(design.T * (weight * (second - t2) / scale**2)) @ design
    if free:
        score[:, -1] = -first * z + t1 * z0 - event
        cross = weight * ((second * z + first) - (t2 * z0 + t1)) / scale
        information[:wide, -1] = information[-1, :wide] = -(design.T @ cross)
        information[-1, -1] = -float((weight * ((second * z * z + first * z) - (t2 * z0 * z0 + t1 * z0))).sum())
    return float(weight @ value), score * weight[:, None], information
