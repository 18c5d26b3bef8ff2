"""Hazards of a given form, with their derivatives.

``eta = a + x'b`` is the linear predictor, ``tau`` the second parameter. Accelerated time (exponential, Weibull,
log-normal, log-logistic): ``ln T = eta + s e``, ``tau = ln s``; e is extreme-value, normal or logistic. Gompertz:
hazard ``exp(eta + tau t)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from evalkit.effects import Array

Family = Literal["exponential", "weibull", "lognormal", "loglogistic", "gompertz"]
FAMILIES: tuple[Family, ...] = ("exponential", "weibull", "lognormal", "loglogistic", "gompertz")
TERMS = 18


@dataclass(frozen=True)
class Bent:
    """A function of (eta, tau): value, first derivatives (e, t) and second ones (ee, et, tt); all of one shape."""

    value: Array
    e: Array
    t: Array
    ee: Array
    et: Array
    tt: Array

    def __add__(self, other: Bent) -> Bent:
        return Bent(*(a + b for a, b in zip(self.all, other.all, strict=True)))

    def times(self, factor: Array | float) -> Bent:
        """Multiplied by a constant."""
        return Bent(*(factor * part for part in self.all))

    @property
    def all(self) -> tuple[Array, ...]:
        """The six arrays."""
        return self.value, self.e, self.t, self.ee, self.et, self.tt


def log_hazard(family: Family, time: Array, eta: Array, tau: Array) -> Bent:
    """Log of the hazard at ``time`` > 0."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if family == "gompertz":
            zero, one = np.zeros_like(eta), np.ones_like(eta)
            return Bent(eta + tau * time, one, time * one, zero, zero, zero)
        z = (np.log(time) - eta) * np.exp(-tau)
        if family in ("exponential", "weibull"):
            parts = z, np.ones_like(z), np.zeros_like(z)
        elif family == "loglogistic":
            p = special.expit(z)
            parts = -np.logaddexp(0.0, -z), 1 - p, -p * (1 - p)
        else:
            ratio, log_ratio = _mills(z)
            parts = log_ratio, ratio - z, ratio * (ratio - z) - 1
        accelerated = _chain(z, *parts, tau)
        return Bent(accelerated.value - tau - np.log(time), accelerated.e, accelerated.t - 1, *accelerated.all[3:])


def cumulated(family: Family, time: Array, eta: Array, tau: Array) -> Bent:
    """Hazard cumulated from 0 to ``time``; zero at time 0."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if family == "gompertz":
            level, u = np.exp(eta), tau * time
            whole, slope, bend = _exponential_mean(u)
            value, t = level * time * whole, level * time**2 * slope
            return Bent(value, value, t, value, t, level * time**3 * bend)
        there = time > 0
        z = np.where(there, (np.log(np.where(there, time, 1.0)) - eta) * np.exp(-tau), 0.0)
        if family in ("exponential", "weibull"):
            e = np.exp(z)
            parts = e, e, e
        elif family == "loglogistic":
            p = special.expit(z)
            parts = np.logaddexp(0.0, z), p, p * (1 - p)
        else:
            ratio, _ = _mills(z)
            parts = -special.log_ndtr(-z), ratio, ratio * (ratio - z)
        return Bent(*(np.where(there, part, 0.0) for part in _chain(z, *parts, tau).all))


def _chain(z: Array, value: Array, first: Array, second: Array, tau: Array) -> Bent:
    """Derivatives of f(z) in eta and tau, ``z = (ln t - eta) exp(-tau)``."""
    rate = np.exp(-tau)
    return Bent(
        value, -first * rate, -first * z, second * rate**2, (second * z + first) * rate, second * z * z + first * z
    )


def _mills(z: Array) -> tuple[Array, Array]:
    """Hazard of a standard normal at z, and its log."""
    log_ratio = -z * z / 2 - 0.5 * np.log(2 * np.pi) - special.log_ndtr(-z)
    return np.exp(log_ratio), log_ratio


def _exponential_mean(u: Array) -> tuple[Array, Array, Array]:
    """``(e^u - 1) / u`` and its first two derivatives; a series where u is small."""
    safe = np.where(np.abs(u) < 0.5, 1.0, u)
    e, rise = np.exp(safe), np.expm1(safe)
    near = np.clip(u, -0.5, 0.5)
    whole, slope, bend = np.zeros_like(near), np.zeros_like(near), np.zeros_like(near)
    for k in range(TERMS, -1, -1):
        part = 1 / special.factorial(k + 1)
        whole = whole * near + part
        slope = slope * near + (k + 1) * part / (k + 2)
        bend = bend * near + (k + 2) * (k + 1) * part / ((k + 2) * (k + 3))
    small = np.abs(u) < 0.5
    return (
        np.where(small, whole, rise / safe),
        np.where(small, slope, (safe * e - rise) / safe**2),
        np.where(small, bend, (safe**2 * e - 2 * safe * e + 2 * rise) / safe**3),
    )
