"""The multiplier bootstrap: standard errors and simultaneous bands from an influence function.

One draw is sum_g xi_g psi_g over clusters g with psi the influence in sum form and xi independent of the data with
mean 0 and variance 1: nothing is estimated again. Its covariance given the data is that of the influence; it adds that
the critical value of a simultaneous band respects how the effects hang together.

Sources: Callaway and Sant'Anna (2021), Journal of Econometrics 225: 200-230, algorithm 1; Mammen (1993), Annals of
Statistics 21: 255-285; Webb (2023), Canadian Journal of Economics 56: 839-858.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import special

from evalkit.effects import Array, Band, Influence, frozen, generator
from evalkit.errors import Fault, UsageError

Weights = Literal["rademacher", "mammen", "webb", "normal"]
Spread = Literal["iqr", "sd"]

BLOCK = 2**23
"""Numbers xi that are held at a time (64 MB). Fixed, so that the order of the sums does not depend on the machine."""


@dataclass(frozen=True)
class Multiplier:
    """Standard errors (K,) and the critical value of the simultaneous band at ``level``; read-only.

    Attributes
    ----------
    std_error: (K,) spread of the draws; 0 where the influence is zero (a base period).
    critical: with it the band covers all K effects together. Never below ``pointwise``, the normal quantile.
    draws, weights, spread: as asked. ``clusters``: how many clusters were drawn for.
    """

    std_error: Array
    critical: float
    pointwise: float
    level: float
    draws: int
    weights: Weights
    spread: Spread
    clusters: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "std_error", frozen(self.std_error))

    def band(self, estimate: Array) -> Band:
        """Pointwise intervals and simultaneous band around estimates (K,); NaN where an estimate is NaN."""
        value = np.asarray(estimate, float)
        near, far = self.pointwise * self.std_error, self.critical * self.std_error
        return Band(value - near, value + near, value - far, value + far, self.critical, self.level)


def multiplier_bootstrap(
    influence: Influence,
    *,
    seed: int,
    draws: int = 1000,
    weights: Weights = "rademacher",
    spread: Spread = "iqr",
    level: float = 0.95,
) -> Multiplier:
    """Standard errors and a simultaneous critical value by the multiplier bootstrap, at the level of the clusters.

    Parameters
    ----------
    influence:
        (G, K) in sum form by cluster: ``effects.uncertainty``.
    seed:
        The same seed and influence give the same result, bit by bit.
    draws:
        200 or more; 1,000 leave an error of about 3 % in a standard error.
    weights:
        ``rademacher`` +1 or -1; ``mammen`` two points with third moment 1; ``webb`` six points, for few clusters;
        ``normal``.
    spread:
        ``iqr``: interquartile range of the draws over that of the normal (1.349), as the R package; ``sd``: their
        standard deviation around zero.
    level:
        Of intervals and band.

    Returns
    -------
    Multiplier. The critical value is the ``level`` quantile over draws of max_k |draw_k| / std_error_k, over the
    effects with any influence; the largest observation at or below which a share ``level`` lies.

    Raises
    ------
    UsageError
        ``did.multiplier_setting``.
    """
    for name, value, allowed in (("weights", weights, get_args(Weights)), ("spread", spread, get_args(Spread))):
        if value not in allowed:
            raise UsageError(Fault("did.multiplier_setting", {"setting": name, "allowed": ", ".join(allowed)}))
    if draws < 200:
        raise UsageError(Fault("did.multiplier_setting", {"setting": "draws", "allowed": "200, 201, .."}))
    if not 0.5 <= level < 1:
        raise UsageError(Fault("did.multiplier_setting", {"setting": "level", "allowed": "0.5 .. 0.999"}))
    values = influence.values
    clusters, width = values.shape
    rng = generator(seed, "multiplier", weights)
    drawn = np.zeros((draws, width))
    block = max(1, BLOCK // draws)
    for start in range(0, clusters, block):
        part = values[start : start + block]
        drawn += _multipliers(rng, draws, len(part), weights) @ part
    drawn *= np.sqrt(influence.factor)
    if spread == "iqr":
        low, high = np.quantile(drawn, [0.25, 0.75], axis=0)
        std_error = (high - low) / (2 * special.ndtri(0.75))
    else:
        std_error = np.sqrt(np.mean(drawn**2, axis=0))
    used = std_error > 0
    pointwise = float(special.ndtri(0.5 + level / 2))
    critical = pointwise
    if used.any():
        largest = np.abs(drawn[:, used] / std_error[used]).max(axis=1)
        critical = max(pointwise, float(np.quantile(largest, level, method="inverted_cdf")))
    return Multiplier(std_error, critical, pointwise, level, draws, weights, spread, clusters)


def _multipliers(rng: np.random.Generator, draws: int, clusters: int, weights: Weights) -> Array:
    """(draws, clusters) independent numbers with mean 0 and variance 1."""
    size = (draws, clusters)
    if weights == "normal":
        return rng.standard_normal(size)
    if weights == "rademacher":
        bits = np.frombuffer(rng.bytes(-(-draws * clusters // 8)), np.uint8)
        signs = np.unpackbits(bits, count=draws * clusters).reshape(size).astype(np.float64)
        signs *= 2.0
        signs -= 1.0
        return signs
    if weights == "mammen":
        root = np.sqrt(5.0)
        return np.where(rng.random(size) < (root + 1) / (2 * root), (1 - root) / 2, (1 + root) / 2)
    points = np.sqrt(np.array([0.5, 1.0, 1.5]))
    return np.concatenate([-points, points])[rng.integers(0, 6, size)]
