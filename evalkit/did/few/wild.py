"""The wild cluster bootstrap: tests and confidence sets that hold with some six to thirty clusters.

Sources: Cameron, Gelbach and Miller (2008); Webb (2023) for six-point weights; Roodman, MacKinnon, Nielsen and Webb
(2019) and MacKinnon (2023) for working with cross products of clusters; Kline and Santos (2012) for the score version.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.did.effects import Effects
from evalkit.did.few.result import Tested, hull, share_as_large
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Array, Influence, generator
from evalkit.errors import DesignError, Fault, UsageError

Kind = Literal["WCR", "WCU"]
Weights = Literal["auto", "rademacher", "webb", "mammen"]

SUPPORT = {"rademacher": np.array([-1.0, 1.0]), "webb": np.sqrt([1.5, 1.0, 0.5, 0.5, 1.0, 1.5]) * [-1, -1, -1, 1, 1, 1]}
FEWEST_RADEMACHER = 12
"""With fewer clusters two-point weights give too few different samples (2^11 = 2,048, half of them mirror images)."""
CHUNK = 2_000_000
"""Numbers in one block of draws x clusters."""


def multipliers(clusters: int, weights: Weights, draws: int, rng: np.random.Generator) -> tuple[Array, bool]:
    """Weights (B, G) of mean 0 and variance 1, and whether they are all that exist.

    ``rademacher``: -1 or 1; ``webb``: six points; ``mammen``: two points with third moment 1; ``auto``: Webb's with
    fewer than 12 clusters, otherwise Rademacher's. Where all combinations are no more than ``draws`` + 1 every one
    is used once, the observed sample (all weights 1) among them.
    """
    name = ("webb" if clusters < FEWEST_RADEMACHER else "rademacher") if weights == "auto" else weights
    if name == "mammen":
        root = np.sqrt(5.0)
        low = rng.random((draws, clusters)) < (root + 1) / (2 * root)
        return np.where(low, (1 - root) / 2, (1 + root) / 2), False
    points = SUPPORT[name]
    if len(points) ** clusters <= draws + 1:
        return np.array(list(product(points, repeat=clusters))), True
    return points[rng.integers(0, len(points), (draws, clusters))], False


def wild_cluster(
    x: ArrayLike,
    y: ArrayLike,
    cluster: ArrayLike,
    restriction: ArrayLike,
    *,
    null: float = 0.0,
    kind: Kind = "WCR",
    weights: Weights = "auto",
    draws: int = 9_999,
    seed: int = 0,
    level: float = 0.95,
    weight: ArrayLike | None = None,
    absorbed: int = 0,
    sets: bool = True,
) -> Tested:
    """Wild cluster bootstrap of linear combinations of least-squares coefficients.

    For each row r of ``restriction`` the hypothesis r'b = ``null`` is tested with the clustered t-statistic. A draw
    multiplies the residuals of each cluster by one random weight, fits again and studentises again:
    ``WCR`` takes residuals and fit under the hypothesis (the one to use), ``WCU`` without it. Nothing is fitted in a
    draw: with A_g = X_g'X_g, A their sum, w = A^-1 r and scores s_g = X_g'u_g the bootstrap statistic is
    sum_g v_g w's_g over the root of sum_g (v_g w's_g - w'A_g A^-1 sum_h v_h s_h)^2. The confidence set inverts the
    test; under WCR the scores are linear in the hypothesised value, so each value costs one pass over the draws.

    Parameters
    ----------
    x: (n, K). Columns may be demeaned within effects that lie inside clusters (units within clusters): then the draws
        are those of the regression with the effects. Effects that cut across clusters (periods) must be columns, or
        the draws leave out that they are estimated again.
    y: (n,), demeaned likewise. cluster: (n,) any labels. restriction: (K,) or (M, K); or the number of one column.
    weight: (n,) weights of the regression. absorbed: effects that were demeaned, for the factor
        G/(G-1) (n-1)/(n-K-absorbed) of the error; it cancels in the p-value.
    sets: find the confidence sets too; they take most of the time.

    Returns
    -------
    Tested
        With ``std_error``; p-values (number at least as large + 1)/(draws + 1), or the plain share when every
        combination of weights is used. A combination that the columns do not determine is NaN.
    """
    columns, outcome = np.asarray(x, float), np.asarray(y, float)
    scale = np.ones(len(outcome)) if weight is None else np.sqrt(np.asarray(weight, float))
    columns, outcome = columns * scale[:, None], outcome * scale
    _, code = np.unique(np.asarray(cluster), return_inverse=True)
    fit = _Fit.of(columns, outcome, code, absorbed)
    if isinstance(restriction, int | np.integer):
        rows = np.eye(columns.shape[1])[[int(restriction)]]
    else:
        rows = np.atleast_2d(np.asarray(restriction, float))
    drawn, exact = multipliers(fit.clusters, weights, draws, generator(seed, "wild cluster"))
    out = np.full((5, len(rows)), np.nan)
    for m, row in enumerate(rows):
        found = fit.determined(row)
        if found is not None:
            out[:, m] = _test(fit, row, found, drawn, exact, null, kind, level, sets)
    smallest = 1 / len(drawn) if exact else 1 / (len(drawn) + 1)
    estimate, error, p_value, low, high = out
    return Tested(estimate, p_value, low, high, level, f"wild {kind}", len(drawn), exact, smallest, error)


class _Fit:
    """Least squares by cross products of clusters: A^-1 (K, K), A_g (G, K, K), scores (G, K)."""

    def __init__(self, inverse: Array, crosses: Array, beta: Array, scores: Array, factor: float, whole: Array):
        self.inverse, self.crosses, self.beta, self.scores = inverse, crosses, beta, scores
        self.factor, self.whole, self.clusters = factor, whole, len(scores)

    @classmethod
    def of(cls, x: Array, y: Array, code: NDArray[np.int64], absorbed: int) -> _Fit:
        n, k = x.shape
        clusters = int(code.max()) + 1 if n else 0
        if clusters < 2:
            raise DesignError(Fault("did.few_one_cluster", {}))
        order = np.argsort(code, kind="stable")
        x, y, edge = x[order], y[order], np.searchsorted(code[order], np.arange(clusters + 1))
        crosses = np.empty((clusters, k, k))
        with_y = np.empty((clusters, k))
        for g in range(clusters):
            part = x[edge[g] : edge[g + 1]]
            crosses[g], with_y[g] = part.T @ part, part.T @ y[edge[g] : edge[g + 1]]
        total = crosses.sum(axis=0)
        size = np.sqrt(np.diag(total))
        size = np.where(size > 0, size, 1.0)
        roots, vectors = np.linalg.eigh(total / np.outer(size, size))
        kept = roots > 1e-10 * max(float(roots.max(initial=0.0)), 1e-300)
        basis = vectors[:, kept] / size[:, None]
        inverse = (basis / roots[kept]) @ basis.T
        beta = inverse @ with_y.sum(axis=0)
        rank = int(kept.sum())
        freedom = max(n - rank - absorbed, 1)
        factor = clusters / (clusters - 1) * (n - 1) / freedom
        return cls(inverse, crosses, beta, with_y - crosses @ beta, factor, inverse @ total)

    def determined(self, row: Array) -> Array | None:
        """A^-1 r when the data determine r'b."""
        tiny = 1e-7 * max(float(np.abs(row).max()), 1e-300)
        return self.inverse @ row if np.abs(row @ self.whole - row).max() <= tiny else None


def _test(
    fit: _Fit, row: Array, w: Array, drawn: Array, exact: bool, null: float, kind: Kind, level: float, sets: bool
) -> tuple[float, float, float, float, float]:
    """Estimate, error, p-value and confidence set of one combination."""
    estimate = float(row @ fit.beta)
    own = fit.scores @ w
    error = float(np.sqrt(fit.factor * (own @ own)))
    if error <= 0:
        return estimate, error, np.nan, np.nan, np.nan
    pull = fit.crosses @ w  # (G, K): what one unit of the hypothesis moves, times r'w
    sums = np.empty((5, len(drawn)))  # numerator: a + d b; squared denominator: e2 + 2 d ef + d^2 f2
    step = max(1, CHUNK // fit.clusters)
    spread = fit.inverse @ pull.T
    for start in range(0, len(drawn), step):
        v = drawn[start : start + step]
        e = v * own - (v @ fit.scores) @ spread
        at = slice(start, start + len(v))
        sums[0, at], sums[2, at] = v @ own, np.einsum("bg,bg->b", e, e)
        if kind == "WCR":
            f = -(v * (pull @ w) - (v @ pull) @ spread) / (row @ w)
            sums[1, at] = -(v @ (pull @ w)) / (row @ w)
            sums[3, at], sums[4, at] = np.einsum("bg,bg->b", e, f), np.einsum("bg,bg->b", f, f)
        else:
            sums[1, at] = sums[3, at] = sums[4, at] = 0.0

    def p_value(values: Array) -> Array:
        found = np.empty(len(values))
        for at, value in enumerate(values):
            d = value - estimate
            with np.errstate(divide="ignore", invalid="ignore"):
                t = np.abs(sums[0] + d * sums[1]) / np.sqrt(
                    fit.factor * np.clip(sums[2] + 2 * d * sums[3] + d * d * sums[4], 0, None)
                )
            t[np.isnan(t)] = np.inf  # nothing left to studentise with: counts against a rejection
            large = float(share_as_large(t[:, None], np.array([d / error]))[0])
            found[at] = large if exact else (large * len(t) + 1) / (len(t) + 1)
        return found

    low, high = hull(p_value, estimate, error, 1 - level) if sets else (np.nan, np.nan)
    return estimate, error, float(p_value(np.array([null]))[0]), low, high


def wild_two_way(
    panel: Panel,
    *,
    by: Literal["simple", "event"] = "simple",
    window: tuple[int, int] | None = None,
    anticipation: int = 0,
    kind: Kind = "WCR",
    weights: Weights = "auto",
    draws: int = 9_999,
    seed: int = 0,
    level: float = 0.95,
) -> Tested:
    """Wild cluster bootstrap of the two-way fixed-effects regression: one effect, or one for each event time.

    y_it = unit + period + effect x treated_it (``simple``), or + sum_e effect_e 1[t - first = e] with event time
    -1 - ``anticipation`` left out (``event``); the panel's weights and covariates count. Event times outside
    ``window`` are taken together with its ends, which are then no effect of one event time. In a panel of cross-
    sections the clusters take the place of the units. With staggered dates and effects that differ the static number
    is no average of effects with positive weights, whatever the bootstrap does.

    Raises
    ------
    DesignError
        ``did.few_one_cluster``.
    """
    within = panel.cluster[panel.unit] if panel.repeated else panel.unit
    since = panel.period - panel.first[panel.unit]
    ever = panel.first[panel.unit] < NEVER
    base = -1 - anticipation
    if by == "simple":
        at = np.zeros(0, np.int64)
        effects = panel.treated[:, None].astype(float)
    else:
        low, high = window if window is not None else (int(since[ever].min(initial=0)), int(since[ever].max(initial=0)))
        since = np.clip(since, low, high)
        at = np.unique(since[ever])
        effects = (ever[:, None] & (since[:, None] == at)).astype(float)
    free = np.flatnonzero(at != base) if by == "event" else np.array([0])
    periods = (panel.time[:, None] == np.arange(1, len(panel.periods))).astype(float)
    columns = np.column_stack([effects[:, free], panel.x, periods])
    demeaned = _within(np.column_stack([columns, panel.outcome]), within, panel.weight)
    groups = int(within.max()) + 1
    found = wild_cluster(
        demeaned[:, :-1], demeaned[:, -1], panel.cluster[panel.unit], np.eye(demeaned.shape[1] - 1)[: len(free)],
        kind=kind, weights=weights, draws=draws, seed=seed, level=level, weight=panel.weight, absorbed=groups,
    )  # fmt: skip
    count = effects.shape[1]

    def spread(values: Array, base_value: float) -> Array:
        whole = np.full(count, base_value)
        whole[free] = values
        return whole

    n_treated = np.array([len(np.unique(panel.unit[effects[:, m] > 0])) for m in range(count)])
    others = len(np.unique(panel.unit[~panel.treated]))
    estimate = spread(found.estimate, 0.0)
    on = effects * panel.weight[:, None]
    means = (on.T @ panel.outcome) / np.where(on.sum(axis=0) > 0, on.sum(axis=0), np.nan)
    result = replace(
        found, estimate=estimate, p_value=spread(found.p_value, np.nan), low=spread(found.low, 0.0),
        high=spread(found.high, 0.0), std_error=spread(found.std_error, 0.0),
    )  # fmt: skip
    where = at if by == "event" else np.zeros(1, np.int64)
    described = Effects(
        by, where, estimate, means - estimate, n_treated, np.full(count, others), result.intervals(),
        (base,) if base in at else (), result.kind,
    )  # fmt: skip
    return replace(result, effects=described)


def _within(columns: Array, unit: NDArray[np.int64], weight: Array) -> Array:
    """Columns less their weighted mean within the unit."""
    total = np.bincount(unit, weight)
    means = (
        np.stack([np.bincount(unit, weight * c) for c in columns.T], axis=1) / np.where(total > 0, total, 1)[:, None]
    )
    return np.asarray(columns - means[unit])


def wild_influence(
    effects: Effects,
    *,
    blocks: ArrayLike | None = None,
    weights: Weights = "auto",
    draws: int = 9_999,
    seed: int = 0,
    level: float = 0.95,
) -> Tested:
    """Wild score bootstrap of any estimator with influence by cluster: group-time, Sun-Abraham, imputation.

    A draw multiplies the influence psi_g of each cluster by one weight v_g; its statistic is sum_g v_g psi_g over the
    root of G/(G-1) sum_g (v_g psi_g - their mean)^2. The estimate is studentised in the same way. Nothing is
    estimated again, so there is no version with the hypothesis imposed; the set is estimate +- quantile x error.
    It corrects the normal quantile for few clusters, and not an influence function that is itself too small
    because few clusters are treated.

    Parameters
    ----------
    effects: with ``Influence``. blocks: (G,) a label for each cluster in the order of the influence (its first
        treated period): the mean is then taken within the label, as refitting cohort means would do.

    Raises
    ------
    UsageError
        ``did.few_no_influence`` when the effects come without influence by cluster.
    DesignError
        ``did.few_one_cluster``.
    """
    rng = generator(seed, "wild influence")
    return _scores(effects, blocks, weights, draws, rng, level)


def _scores(
    effects: Effects, blocks: ArrayLike | None, weights: Weights, draws: int, rng: np.random.Generator, level: float
) -> Tested:
    if not isinstance(effects.uncertainty, Influence):
        raise UsageError(Fault("did.few_no_influence", {}))
    psi = effects.uncertainty.values
    clusters = len(psi)
    if clusters < 2:
        raise DesignError(Fault("did.few_one_cluster", {}))
    label = np.zeros(clusters, np.int64) if blocks is None else np.unique(np.asarray(blocks), return_inverse=True)[1]
    member = (label[:, None] == np.arange(label.max() + 1)).astype(float)
    average = member / member.sum(axis=0)
    factor = clusters / (clusters - 1)
    v, exact = multipliers(clusters, weights, draws, rng)
    count = psi.shape[1]
    error, p_value, critical = np.full(count, np.nan), np.full(count, np.nan), np.full(count, np.nan)
    for m in range(count):
        own = psi[:, m]
        centred = own - member @ (average.T @ own)
        error[m] = np.sqrt(factor * (centred @ centred))
        if error[m] <= 0 or not np.isfinite(effects.estimate[m]):
            continue
        moved = v * own
        rest = moved - (moved @ average) @ member.T
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(moved.sum(axis=1)) / np.sqrt(factor * np.einsum("bg,bg->b", rest, rest))
        t[np.isnan(t)] = np.inf
        large = float(share_as_large(t[:, None], np.array([effects.estimate[m] / error[m]]))[0])
        p_value[m] = large if exact else (large * len(t) + 1) / (len(t) + 1)
        spare = 0 if exact else 1
        # the value t such that fewer than 1 - level of the draws (and the estimate itself) are as large
        place = int(np.floor((1 - level) * (len(t) + spare) + 1e-9)) - spare
        ordered = np.sort(t)[::-1]
        critical[m] = ordered[place] if 0 <= place < len(t) else np.inf
    base = (effects.estimate == 0) & (error == 0)
    width = np.where(base, 0.0, critical * error)
    smallest = 1 / len(v) if exact else 1 / (len(v) + 1)
    overall = None
    if effects.overall is not None and isinstance(effects.overall.uncertainty, Influence):
        overall = _scores(effects.overall, blocks, weights, draws, rng, level)
    result = Tested(
        effects.estimate, p_value, effects.estimate - width, effects.estimate + width, level, "wild score", len(v),
        exact, smallest, error, overall=overall,
    )  # fmt: skip
    return result.on(effects)
