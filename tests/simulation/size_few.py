"""How often a true hypothesis of no effect is rejected at 5 per cent when one, two or five of twenty clusters are
treated: the procedures for few treated clusters, as published and as used here, and clustered errors.

    python tests/simulation/size_few.py --reps 4000

Noise of a cluster: a shock that all its persons share, autoregressive over ten periods, and the mean of what is each
person's own (variance 1/M relative to the shock's where M is the median size), autoregressive too.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from scipy import stats

from evalkit.did.few.conley_taber import Stage, placed, scores, stand_ins, standing, variance_line
from evalkit.did.few.conley_taber import _independent as independent
from evalkit.did.few.conley_taber import _statistics as statistics
from evalkit.did.few.result import share_as_large
from evalkit.did.few.wild import wild_cluster

CLUSTERS, PERIODS, BEGIN = 20, 10, 5
SPAN = np.exp(np.linspace(np.log(50), np.log(5_000), CLUSTERS))


@dataclass(frozen=True)
class Design:
    """``treated`` of twenty; ``where``: any, the smallest or the largest; ``dates``: one, or different ones."""

    treated: int
    rho: float
    sizes: str
    where: str = "any"
    dates: str = "one"

    @property
    def name(self) -> str:
        return f"{self.treated} | {self.rho} | {self.sizes} | {self.where} | {self.dates}"


DESIGNS = [
    *(Design(j, rho, "equal") for j in (1, 2, 5) for rho in (0.5, 0.8)),
    *(Design(j, rho, "equal", dates="several") for j in (2, 5) for rho in (0.5, 0.8)),
    *(Design(j, 0.5, "unequal", w) for j in (1, 2, 5) for w in ("any", "smallest", "largest")),
    *(Design(j, 0.8, "unequal", w, "several") for j in (2, 5) for w in ("any", "smallest", "largest")),
]  # fmt: skip
METHODS = ("clustered", "wild", "CT published", "CT", "FP published", "FP")


def noise(design: Design, size: np.ndarray, reps: int, rng: np.random.Generator) -> np.ndarray:
    """(R, N, T): stationary, unit variance in a cluster of equal size, or 1 + median / M."""
    e = rng.normal(size=(reps, CLUSTERS, PERIODS))
    out = np.empty_like(e)
    out[..., 0] = e[..., 0]
    for t in range(1, PERIODS):
        out[..., t] = design.rho * out[..., t - 1] + np.sqrt(1 - design.rho**2) * e[..., t]
    if design.sizes == "unequal":
        out *= np.sqrt(1 + np.median(size) / size)[:, None]
    return out


def rejections(design: Design, reps: int, seed: int, wild_reps: int) -> dict[str, float]:
    """Share of rejections by method."""
    rng = np.random.default_rng(seed)
    size = SPAN if design.sizes == "unequal" else np.full(CLUSTERS, 500.0)
    blocks = CLUSTERS if design.where == "any" and design.sizes == "unequal" else 1
    found: dict[str, list[np.ndarray]] = {m: [] for m in METHODS}
    for block in range(blocks):
        order = np.arange(CLUSTERS)
        if design.where == "any" and blocks > 1:
            treated = np.sort((block + np.round(np.arange(design.treated) * CLUSTERS / design.treated)) % CLUSTERS)
        elif design.where == "largest":
            treated = order[-design.treated :]
        else:
            treated = order[: design.treated]
        treated = treated.astype(int)
        begin = np.full(design.treated, BEGIN)
        if design.dates == "several":
            begin = BEGIN - 2 + np.arange(design.treated)
        y = noise(design, size, reps // blocks, rng)
        one = block_rejections(y, treated, begin, size, rng, wild_reps // blocks)
        for method, values in one.items():
            found[method].append(values)
    return {m: share_of(np.concatenate(v)) for m, v in found.items()}


def share_of(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def block_rejections(
    y: np.ndarray, treated: np.ndarray, begin: np.ndarray, size: np.ndarray, rng: np.random.Generator, wild_reps: int
) -> dict[str, np.ndarray]:
    """One set of treated clusters; the replications take the place of the effects of a stage."""
    reps = len(y)
    dates, cohort = np.unique(begin, return_inverse=True)
    contrast = np.stack([y[:, :, d:].mean(axis=2).T - y[:, :, :d].mean(axis=2).T for d in dates])
    never = np.setdiff1d(np.arange(CLUSTERS), treated)
    first = np.full(CLUSTERS, -1)
    first[treated] = cohort
    member = np.stack([(first == -1) | (first == c) for c in range(len(dates))])
    share = np.full((len(treated), reps), 1 / len(treated))
    given = Stage(
        contrast, treated, cohort, member, never, share, np.arange(reps), size, share, (), np.arange(CLUSTERS), 0
    )
    who, _ = stand_ins(given, 999, rng)
    values, _ = statistics(given, who)
    out = {"CT": share_as_large(values, values[0], 1e-12) <= 0.05 + 1e-9}
    estimate = given.estimate()
    only = independent(never, len(treated), 999, rng)
    around = contrast - contrast[:, never].mean(axis=1, keepdims=True)
    reference = sum(share[k] * around[c][only[:, k]] for k, c in enumerate(cohort))
    out["CT published"] = share_as_large(reference, estimate) <= 0.05
    inverse = np.median(size) / size
    reference = np.zeros((len(only), reps))
    for k, c in enumerate(cohort):
        squares = (around[c, never] ** 2).T
        a, b = variance_line(squares, inverse[never], np.ones_like(squares))
        deviation = np.sqrt(np.maximum(a[:, None] + b[:, None] * inverse, 1e-12))
        reference += share[k] * deviation[:, treated[k]] * (around[c] / deviation.T)[only[:, k]]
    out["FP published"] = share_as_large(reference, estimate) <= 0.05
    # what ``placed`` does, with replications instead of hypotheses
    scored = {c: scores(np.ascontiguousarray(contrast[c, member[c]].T), inverse[member[c]]) for c in range(len(dates))}
    shown = standing(given, share[:, 0], scored, who)
    check = placed(given, 0, np.zeros(1), inverse, who)[:, 0]
    assert np.allclose(check, shown[:, 0])
    out["FP"] = share_as_large(shown, shown[0]) <= 0.05 + 1e-9
    d = np.zeros((CLUSTERS, PERIODS))
    for unit, when in zip(treated, begin, strict=True):
        d[unit, when:] = 1
    within = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0) + d.mean()
    centred = y - y.mean(axis=2, keepdims=True) - y.mean(axis=1, keepdims=True) + y.mean(axis=(1, 2), keepdims=True)
    slope = (y * within).sum(axis=(1, 2)) / (within**2).sum()
    part = ((centred - slope[:, None, None] * within) * within).sum(axis=2)
    n, k = d.size, 1 + CLUSTERS + PERIODS - 1
    factor = CLUSTERS / (CLUSTERS - 1) * (n - 1) / (n - k)
    error = np.sqrt(factor * (part**2).sum(axis=1)) / (within**2).sum()
    out["clustered"] = np.abs(slope) > stats.t.ppf(0.975, CLUSTERS - 1) * error
    dummies = np.tile(np.eye(PERIODS)[1:], (CLUSTERS, 1, 1)).reshape(-1, PERIODS - 1)
    x = np.column_stack([(d - d.mean(axis=1, keepdims=True)).ravel(), dummies - 1 / PERIODS])
    cluster = np.repeat(np.arange(CLUSTERS), PERIODS)
    wild = []
    for r in range(min(wild_reps, reps)):
        column = (y[r] - y[r].mean(axis=1, keepdims=True)).ravel()
        wild.append(wild_cluster(x, column, cluster, 0, draws=399, seed=r, sets=False, absorbed=CLUSTERS).p_value[0])
    out["wild"] = np.array(wild) <= 0.05 + 1e-9
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=4_000)
    parser.add_argument("--wild-reps", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print("treated | AR(1) | sizes | which | dates | " + " | ".join(METHODS))
    print("|".join(["-"] * (5 + len(METHODS))))
    for number, design in enumerate(DESIGNS):
        rates = rejections(design, given.reps, given.seed + number, given.wild_reps)
        print(design.name + " | " + " | ".join(f"{100 * rates[m]:.1f}" for m in METHODS), flush=True)


if __name__ == "__main__":
    main()
