"""The fitted value of a form of duration, and what follows from it: hazards, survival, their gradients and errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.duration.fitted import BothErrors
from evalkit.duration.parametric.families import Bent, Family, cumulated, log_hazard
from evalkit.effects import Array, Influence, frozen
from evalkit.errors import Fault, UsageError


@dataclass(frozen=True)
class Proportional(BothErrors):
    """A fit read as proportional hazards.

    names: ``ln(rate)``, the covariates, ``ln(shape)`` (Weibull: hazard ``rate shape t^(shape - 1) e^(x'b)``) or
    ``gamma`` (Gompertz: ``rate e^(gamma t) e^(x'b)``). coefficients (P,): of the covariates, log hazard ratios.
    information (P, P) model-based covariance; influence (G, P).
    """

    names: tuple[str, ...]
    coefficients: Array
    information: Array
    influence: Influence

    def __post_init__(self) -> None:
        for name in ("coefficients", "information"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


@dataclass(frozen=True)
class Frailty:
    """Gamma frailty of mean 1: ``variance``; groups ids (N,) and their means given the data (N,), 1 without frailty.

    statistic: twice the gain over no frailty; p_value against half a chi-square of one degree (the variance is at the
    edge of what it can be). At the edge the variance is 0 and the fit is the one without frailty.
    """

    variance: float
    ids: NDArray[np.generic]
    means: Array
    statistic: float
    p_value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", frozen(self.ids, np.asarray(self.ids).dtype))
        object.__setattr__(self, "means", frozen(self.means))


@dataclass(frozen=True)
class Parametric(BothErrors):
    """A fitted form of duration.

    Attributes
    ----------
    names: ``(intercept)``, the covariates, ``ln(scale)`` (``gamma`` with Gompertz, none with exponential; one a stratum
        if asked for), ``ln(frailty)`` when the variance of a frailty was estimated. parameters: (P,).
        Covariates move the log of time, but with Gompertz the log of the hazard.
    information: (P, P) inverse of the observed information. influence: (G, P) in sum form, by cluster.
    log_likelihood: of times (not of their logs). rows, persons, events: numbers. iterations: Newton steps.
    strata: names of strata with a second parameter of their own, empty when it is common. frailty: None when not asked.
    """

    family: Family
    names: tuple[str, ...]
    parameters: Array
    information: Array
    influence: Influence
    log_likelihood: float
    rows: int
    persons: int
    events: int
    iterations: int
    strata: tuple[str, ...] = ()
    frailty: Frailty | None = None

    def __post_init__(self) -> None:
        for name in ("parameters", "information"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def aic(self) -> float:
        """Akaike's criterion: lower is better, also between families."""
        return 2 * len(self.parameters) - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion, on the number of persons."""
        return float(np.log(self.persons)) * len(self.parameters) - 2 * self.log_likelihood

    @property
    def _tails(self) -> int:
        return 0 if self.family == "exponential" else max(1, len(self.strata))

    @property
    def _wide(self) -> int:
        return len(self.parameters) - self._tails - (self._variance > 0)

    @property
    def _variance(self) -> float:
        return 0.0 if self.frailty is None else self.frailty.variance

    @property
    def scale(self) -> Array:
        """(S,) s by stratum, one when common; 1 with exponential.

        Raises
        ------
        UsageError
            ``duration.parametric_scale`` for Gompertz, which has none.
        """
        if self.family == "gompertz":
            raise UsageError(Fault("duration.parametric_scale", {}))
        return np.exp(self.parameters[self._wide : self._wide + self._tails]) if self._tails else np.ones(1)

    def proportional(self) -> Proportional:
        """Exponential, Weibull, Gompertz as proportional hazards.

        Weibull: log hazard ratios ``-b / s``, ``ln(rate) = -a / s``, ``ln(shape) = -ln(s)``, by the delta method.

        Raises
        ------
        UsageError
            ``duration.parametric_proportional`` for the other families, and when s differs between strata.
        """
        if self.family not in ("exponential", "weibull", "gompertz") or (self.family == "weibull" and self._tails > 1):
            raise UsageError(Fault("duration.parametric_proportional", {"family": self.family}))
        wide, size = self._wide, len(self.parameters)
        names = ("ln(rate)", *self.names[1:])
        values, slope = self.parameters.copy(), np.eye(size)
        if self.family != "gompertz":
            scale = float(self.scale[0])
            values[:wide] = -self.parameters[:wide] / scale
            slope[:wide, :wide] = -np.eye(wide) / scale
            if self.family == "weibull":
                values[wide] = -self.parameters[wide]
                slope[:wide, wide], slope[wide, wide] = -values[:wide], -1.0
                names = (*names[:wide], "ln(shape)", *names[wide + 1 :])
        return Proportional(names, values, slope @ self.information @ slope.T, self.influence.linear(slope))

    def hazard(self, times: ArrayLike, x: ArrayLike, parameters: ArrayLike | None = None, stratum: int = 0) -> Array:
        """(n, T) hazard at times above 0, of someone with frailty 1; x as for :meth:`cumulative_hazard`."""
        at, path, _ = self._asked(times, x)
        eta, tau = self._predictors(path, parameters, stratum)
        return np.exp(log_hazard(self.family, np.broadcast_to(at, eta.shape), eta, tau).value)

    def cumulative_hazard(
        self, times: ArrayLike, x: ArrayLike, parameters: ArrayLike | None = None, stratum: int = 0
    ) -> Array:
        """(n, T) cumulated hazard from 0 to times (T,), of someone with frailty 1.

        x: (n, P) covariates that do not change; or (n, T, P) a path, of which entry k holds in
        ``(times[k - 1], times[k]]`` (the first from 0 on), times increasing. The hazard at t is that of the covariates
        of the moment, ``lambda(t | x_t)``, in every family: also with accelerated time, where it is *not* time that
        runs faster for a while. parameters: others than the fitted ones, for derivatives.
        """
        return self._cumulated(times, x, parameters, stratum)[0].value

    def along(self, times: ArrayLike, x: ArrayLike, stratum: int = 0) -> Array:
        """(n,) cumulated hazard of each of n people at a time of his own, times (n,), x (n, P)."""
        _, path, _ = self._asked([1.0], x)
        eta, tau = self._predictors(path, None, stratum)
        return cumulated(self.family, np.asarray(times, float), eta[:, 0], tau[:, 0]).value

    def cumulative_hazard_gradient(self, times: ArrayLike, x: ArrayLike, stratum: int = 0) -> Array:
        """(n, T, P) derivative of :meth:`cumulative_hazard` in all parameters (zero in that of frailty)."""
        whole, design = self._cumulated(times, x, None, stratum)
        out = np.zeros((*whole.value.shape, len(self.parameters)))
        if design.shape[1] == 1:
            out[:, :, : self._wide] = whole.e[:, :, None] * design
        else:
            steps = np.diff(whole.e, axis=1, prepend=0.0)
            out[:, :, : self._wide] = np.cumsum(steps[:, :, None] * design, axis=1)
        if self._tails:
            out[:, :, self._wide + (stratum if self.strata else 0)] = whole.t
        return out

    def survival(self, times: ArrayLike, x: ArrayLike, parameters: ArrayLike | None = None, stratum: int = 0) -> Array:
        """(n, T) chance of still being there, averaged over frailty: ``exp(-H)`` or ``(1 + theta H)^(-1/theta)``."""
        hazard = self.cumulative_hazard(times, x, parameters, stratum)
        theta = self._theta(parameters)
        return np.exp(-(np.log1p(theta * hazard) / theta if theta > 0 else hazard))

    def survival_gradient(self, times: ArrayLike, x: ArrayLike, stratum: int = 0) -> Array:
        """(n, T, P) derivative of :meth:`survival` in all parameters."""
        hazard, theta = self.cumulative_hazard(times, x, stratum=stratum), self._variance
        survival = self.survival(times, x, stratum=stratum)
        out = self.cumulative_hazard_gradient(times, x, stratum) * (-survival / (1 + theta * hazard))[:, :, None]
        if theta > 0:
            out[:, :, -1] = survival * (np.log1p(theta * hazard) / theta - hazard / (1 + theta * hazard))
        return out

    def survival_error(self, times: ArrayLike, x: ArrayLike, stratum: int = 0, robust: bool = True) -> Array:
        """(n, T) standard error of :meth:`survival`, from the influence function or (``robust=False``) information."""
        gradient = self.survival_gradient(times, x, stratum)
        vcov = self.influence.vcov if robust else self.information
        return np.sqrt(np.clip(np.einsum("ntp,pq,ntq->nt", gradient, vcov, gradient), 0.0, None))

    def _theta(self, parameters: ArrayLike | None) -> float:
        free = self._variance > 0 and parameters is not None
        return float(np.exp(np.asarray(parameters, float)[-1])) if free else self._variance

    def _asked(self, times: ArrayLike, x: ArrayLike) -> tuple[Array, Array, bool]:
        """Times (T,), design (n, 1 or T, wide), and whether covariates change."""
        at = np.atleast_1d(np.asarray(times, float))
        values = np.asarray(x, float)
        values = values[None, :] if values.ndim == 1 else values
        changing = values.ndim == 3
        path = values if changing else values[:, None, :]
        if path.shape[2] != self._wide - 1:
            params = {"columns": path.shape[2], "names": self._wide - 1}
            raise UsageError(Fault("duration.parametric_columns", params))
        if changing and (path.shape[1] != len(at) or (np.diff(at, prepend=0.0) <= 0).any()):
            raise UsageError(Fault("duration.parametric_path", {"times": len(at), "columns": path.shape[1]}))
        return at, np.concatenate([np.ones((*path.shape[:2], 1)), path], axis=2), changing

    def _predictors(self, path: Array, parameters: ArrayLike | None, stratum: int) -> tuple[Array, Array]:
        theta = self.parameters if parameters is None else np.asarray(parameters, float)
        if not 0 <= stratum < max(1, len(self.strata)):
            raise UsageError(Fault("duration.parametric_stratum", {"strata": max(1, len(self.strata))}))
        eta = path @ theta[: self._wide]
        return eta, np.full(eta.shape, theta[self._wide + stratum] if self._tails else 0.0)

    def _cumulated(
        self, times: ArrayLike, x: ArrayLike, parameters: ArrayLike | None, stratum: int
    ) -> tuple[Bent, Array]:
        at, path, changing = self._asked(times, x)
        eta, tau = self._predictors(path, parameters, stratum)
        shape = (len(eta), len(at))
        eta, tau = np.broadcast_to(eta, shape), np.broadcast_to(tau, shape)
        whole = cumulated(self.family, np.broadcast_to(at, shape), eta, tau)
        if not changing:
            return whole, path
        before = cumulated(self.family, np.broadcast_to(np.concatenate([[0.0], at[:-1]]), shape), eta, tau)
        steps = [a - b for a, b in zip(whole.all, before.all, strict=True)]
        return Bent(*(np.cumsum(step, axis=1) for step in steps)), path
