"""What an adjustment did to the groups: the love plot's data, overlap of the scores, and who fell out.

Everything is data: arrays in, frozen values out; drawing and sentences live elsewhere. Conventions of the balance
statistics stand in :mod:`evalkit.balance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.balance import BalanceTable, Mask, Target, is_binary
from evalkit.effects import frozen
from evalkit.errors import DesignError, Fault
from evalkit.text import say

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

# -- love plot --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LovePlot:
    """Standardised differences of each covariate before and after, in the order of drawing (largest first)."""

    names: tuple[str, ...]
    before: Array
    after: Array

    def frame(self) -> pd.DataFrame:
        """One row a covariate."""
        import pandas as pd

        return pd.DataFrame({"before": self.before, "after": self.after}, index=pd.Index(self.names, name="covariate"))


def love_plot(
    table: BalanceTable, *, order: Literal["before", "after", "given"] = "before", absolute: bool = True
) -> LovePlot:
    """Data of a love plot.

    Parameters
    ----------
    order: sorted by the absolute difference before or after adjustment, largest first, equal ones as given; ``given``
        keeps the order of the table.
    absolute: absolute differences, as love plots usually show; False keeps the sign.
    """
    if order == "given":
        rows = np.arange(len(table.names))
    else:
        rows = np.argsort(-np.abs(table.smd_before if order == "before" else table.smd_after), kind="stable")
    before, after = table.smd_before[rows], table.smd_after[rows]
    if absolute:
        before, after = np.abs(before), np.abs(after)
    return LovePlot(tuple(table.names[j] for j in rows), frozen(before), frozen(after))


# -- overlap ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """The score's distribution in both arms, before and after weighting.

    Attributes
    ----------
    at: (g,) points of the score; for a histogram the middles of the bins, with ``edges`` (g + 1,), else None.
    treated, comparison: (g,) densities that integrate to one.
    treated_after, comparison_after: the same under the weights; equal to the former without weights.
    bandwidth: standard deviation of the kernel in each arm, NaN for a histogram.
    shared: overlap coefficient, integral of min(f1, f0) before; ``shared_after`` after. 1 for equal distributions.
    support: (low, high), the range of scores that both arms reach.
    outside: how many treated and comparison rows lie outside it.
    """

    at: Array
    edges: Array | None
    treated: Array
    comparison: Array
    treated_after: Array
    comparison_after: Array
    bandwidth: tuple[float, float]
    shared: float
    shared_after: float
    support: tuple[float, float]
    outside: tuple[int, int]

    def frame(self) -> pd.DataFrame:
        """One row a point: the series of the chart."""
        import pandas as pd

        names = ("at", "treated", "comparison", "treated_after", "comparison_after")
        return pd.DataFrame({name: getattr(self, name) for name in names})


def overlap_density(
    score: ArrayLike,
    treated: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    method: Literal["density", "histogram"] = "density",
    points: int = 200,
    bandwidth: float | None = None,
    limits: tuple[float, float] | None = (0.0, 1.0),
) -> Overlap:
    """Overlap of the scores of both arms, as data for a chart.

    Parameters
    ----------
    score: (n,) chance of treatment, or its linear predictor with ``limits=None``.
    treated: (n,) bool. ``weight``: (n,) weights after adjustment, None for ones.
    method: ``density``, Gaussian kernels; or ``histogram``, ``points`` equal bins.
    points: points at which the density is worked out, or bins.
    bandwidth: of the kernel; None for Silverman's rule, 0.9 min(sd, IQR / 1.34) n^(-1/5), in each arm.
    limits: the score's bounds. Mass that a kernel puts beyond them is folded back (reflection), so that densities near
        0 and 1 are not too low; None for a score without bounds.

    Raises
    ------
    DesignError
        ``design.overlap_arm_empty`` when an arm has no rows (or no weight).

    Notes
    -----
    The density is worked out on a fine grid of bin counts (2,000 bins), so the time hardly depends on n. A small group
    shows in it: charts of the score are to pass disclosure control. Source: Silverman (1986), Density Estimation.
    """
    values, arm = np.asarray(score, float), np.asarray(treated, bool)
    after = np.ones(len(values)) if weight is None else np.asarray(weight, float)
    if not np.isfinite(values).all():
        raise ValueError("overlap_density: scores must be finite")
    if not (arm.any() and (~arm).any() and after[arm].sum() > 0 and after[~arm].sum() > 0):
        raise DesignError(Fault("design.overlap_arm_empty", {}))
    low, high = limits if limits is not None else _reach(values, arm, bandwidth)
    if values.min() < low or values.max() > high:
        raise ValueError("overlap_density: scores beyond their limits")
    sides = [(values[a], np.ones(a.sum()), after[a]) for a in (arm, ~arm)]
    edges: Array | None = None
    if method == "histogram":
        edges = np.linspace(low, high, points + 1)
        at = (edges[1:] + edges[:-1]) / 2
        made = [np.histogram(v, edges, weights=w, density=True)[0] for v, *both in sides for w in both]
        widths = (float("nan"), float("nan"))
        measure = np.diff(edges)
    else:
        at = np.linspace(low, high, points)
        widths = tuple(bandwidth or _silverman(v) for v, _, _ in sides)  # type: ignore[assignment]
        folded = limits is not None
        made = [
            _kernel_density(v, w, at, h, low, high, folded)
            for (v, *both), h in zip(sides, widths, strict=True)
            for w in both
        ]
        measure = np.full(points, (high - low) / (points - 1))
        measure[[0, -1]] /= 2  # trapezium
    shared, shared_after = (float(np.minimum(made[k], made[k + 2]) @ measure) for k in (0, 1))
    reach = max(v.min() for v, _, _ in sides), min(v.max() for v, _, _ in sides)
    outside = tuple(int(((v < reach[0]) | (v > reach[1])).sum()) for v, _, _ in sides)
    return Overlap(
        frozen(at),
        None if edges is None else frozen(edges),
        frozen(made[0]),
        frozen(made[2]),
        frozen(made[1]),
        frozen(made[3]),
        widths,
        shared,
        shared_after,
        (float(reach[0]), float(reach[1])),
        (outside[0], outside[1]),
    )


FINE = 2000


def _silverman(values: Array) -> float:
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    quartiles = np.quantile(values, [0.25, 0.75])
    between = float(quartiles[1] - quartiles[0]) / 1.34
    scale = min(spread, between) if between > 0 else spread
    return 0.9 * scale * len(values) ** -0.2 if scale > 0 else 0.01


def _reach(values: Array, arm: Mask, bandwidth: float | None) -> tuple[float, float]:
    """Bounds of the chart for a score without bounds: three bandwidths beyond the outermost rows."""
    margin = 3 * max(bandwidth or _silverman(values[a]) for a in (arm, ~arm))
    return float(values.min()) - margin, float(values.max()) + margin


def _kernel_density(
    values: Array, weight: Array, at: Array, width: float, low: float, high: float, folded: bool
) -> Array:
    """Gaussian kernel density from fine bins, each standing at the mean of its rows."""
    place = np.minimum(((values - low) / (high - low) * FINE).astype(np.int64), FINE - 1)
    mass = np.bincount(place, weight, minlength=FINE)
    used = mass > 0
    centre = np.bincount(place, weight * values, minlength=FINE)[used] / mass[used]
    share = mass[used] / mass.sum()

    def kernel(points: Array) -> Array:
        return np.exp(-0.5 * ((points[:, None] - centre[None, :]) / width) ** 2) @ share

    density = kernel(at)
    if folded:
        density = density + kernel(2 * low - at) + kernel(2 * high - at)
    return density / (width * np.sqrt(2 * np.pi))


# -- who was dropped --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DroppedArm:
    """Kept and dropped rows of one arm; arrays (c,) by covariate, NaN where there are no such rows.

    ``smd_kept``: (mean of the kept - mean of all) / standard deviation of all: how far the group described by the
    estimate lies from the one asked about. ``smd_dropped``: (dropped - kept) on the same scale.
    """

    n: int
    kept: int
    reasons: Mapping[str, int]
    mean_all: Array
    mean_kept: Array
    mean_dropped: Array
    sd_all: Array
    smd_kept: Array
    smd_dropped: Array

    @property
    def dropped(self) -> int:
        """Rows that fell out."""
        return self.n - self.kept


@dataclass(frozen=True)
class Dropped:
    """Who fell out of the adjustment and what that does to the estimand.

    Attributes
    ----------
    names, binary: covariates. ``treated``, ``comparison``: profiles by arm.
    target: what was asked. ``answered``: what the estimate is about: ``target`` itself when no row of the target
        population fell out, else ``<target>_kept`` (the kept part of it).
    lost: share of the target population that fell out.
    restriction: the reasons among its rows, joined by ``+`` and in order of size; empty when nobody fell out. Fits the
        field of that name of :class:`evalkit.effects.Estimand`.
    """

    names: tuple[str, ...]
    binary: Mask
    treated: DroppedArm
    comparison: DroppedArm
    target: Target
    answered: str
    lost: float
    restriction: str

    def frame(self) -> pd.DataFrame:
        """One row an arm and covariate."""
        import pandas as pd

        columns = ("mean_all", "mean_kept", "mean_dropped", "sd_all", "smd_kept", "smd_dropped")
        parts = [
            pd.DataFrame({"arm": arm, "covariate": self.names} | {name: getattr(side, name) for name in columns})
            for arm, side in (("treated", self.treated), ("comparison", self.comparison))
        ]
        return pd.concat(parts, ignore_index=True)

    def sentence(self, lang: str = "en") -> str:
        """What the estimate is about, in one sentence."""
        sides = {"att": [self.treated], "atc": [self.comparison]}.get(self.target, [self.treated, self.comparison])
        params = {
            "all": sum(side.n for side in sides),
            "dropped": sum(side.dropped for side in sides),
            "kept": sum(side.kept for side in sides),
            "share": self.lost,
        }
        return say(f"diagnostics.estimand.{self.answered}", lang, **params)


def who_was_dropped(
    x: ArrayLike,
    names: Sequence[str],
    binary: ArrayLike | None,
    treated: ArrayLike,
    kept: ArrayLike,
    *,
    target: Target = "att",
    reason: ArrayLike | None = None,
) -> Dropped:
    """Profile of the rows that fell out of an adjustment, against those that were kept and all.

    Parameters
    ----------
    x: (n, c) covariates, ``names`` c names, ``binary`` (c,) which are shares (None finds them).
    treated: (n,) bool. ``kept``: (n,) bool, rows whose outcomes are used (positive weight).
    target: whose effect was asked for.
    reason: (n,) why a row fell out: ``no_match``, ``discarded``, ``trimmed``, ...; empty for kept rows. None calls
        every dropped row ``no_match``.

    Notes
    -----
    For ``att`` comparison rows without a match are the rule and change nothing; treated rows without one change who the
    estimate is about: it becomes the effect on the kept treated. For ``atc`` the other way round; for ``ate`` both
    count. The overlap targets (``ato``, ``atm``) describe whoever overlaps, so that only trimming before weighting
    changes them. Standard deviations as in :func:`evalkit.balance.balance_statistics`.
    """
    values, arm, used = np.asarray(x, float), np.asarray(treated, bool), np.asarray(kept, bool)
    shares = is_binary(values) if binary is None else np.asarray(binary, bool)
    if values.shape != (len(arm), len(names)) or used.shape != arm.shape:
        raise ValueError("who_was_dropped: x (n, c), names (c,), treated and kept (n,)")
    why = np.where(used, "", "no_match") if reason is None else np.asarray(reason, str)
    why = np.where(~used & (why == ""), "no_match", why)
    sides = [_profile(values[a], shares, used[a], why[a]) for a in (arm, ~arm)]
    focal = {"att": arm, "atc": ~arm}.get(target, np.ones(len(arm), bool))
    gone = focal & ~used
    lost = float(gone.sum() / focal.sum()) if focal.any() else 0.0
    return Dropped(
        tuple(names),
        shares,
        sides[0],
        sides[1],
        target,
        f"{target}_kept" if gone.any() else target,
        lost,
        "+".join(_counted(why[gone])),
    )


def _counted(reasons: NDArray[np.str_]) -> dict[str, int]:
    """Reasons with their numbers, most frequent first, equal ones by name."""
    found, number = np.unique(reasons, return_counts=True)
    order = np.lexsort((found, -number))
    return {str(found[j]): int(number[j]) for j in order}


def _profile(values: Array, shares: Mask, kept: Mask, why: NDArray[np.str_]) -> DroppedArm:
    def mean(rows: Mask) -> Array:
        return values[rows].mean(axis=0) if rows.any() else np.full(values.shape[1], np.nan)

    everyone, stayed, left = mean(np.ones(len(kept), bool)), mean(kept), mean(~kept)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    spread = np.where(shares, np.sqrt(np.abs(everyone * (1 - everyone))), spread)
    scale = np.where(spread > 0, spread, np.nan)

    def standardised(difference: Array) -> Array:
        return np.where(np.abs(difference) < 1e-12, 0.0, difference / scale)

    return DroppedArm(
        len(kept),
        int(kept.sum()),
        _counted(why[~kept]),
        frozen(everyone),
        frozen(stayed),
        frozen(left),
        frozen(spread),
        frozen(standardised(stayed - everyone)),
        frozen(standardised(left - stayed)),
    )
