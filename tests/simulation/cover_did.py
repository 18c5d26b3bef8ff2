"""Do intervals of difference-in-differences cover, and where does the two-way regression fail? Writes a table.

``python tests/simulation/cover_did.py --reps 1000 --processes 2 --out docs/coverage-did.md``

Effects differ by cohort and grow with time. Truth is that of the population from which units are drawn: cohort shares
are those of the population, not of the sample. Failing: the 99 % Wilson interval of the coverage lies outside 93-97 %.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from evalkit.did.choice import Choice
from evalkit.did.effects import Effects
from evalkit.did.panel import Panel
from evalkit.effects import band_of

PERIODS, BEFORE, AFTER = 8, 2, 2
COHORTS = (4, 6, 0)
Z = 1.959963984540054


@dataclass(frozen=True)
class Design:
    """Units, how they are spread over cohorts, and what the outcome is made of."""

    name: str
    units: int = 300
    clusters: int = 0
    selection: float = 0.0
    kind: str = "amount"
    never: float = 0.4
    growth: float = 0.5


DESIGNS = (
    Design("followed units"),
    Design("few never treated, effects grow fast", units=800, never=0.1, growth=1.5),
    Design("selection on a covariate with its own trend", selection=0.6),
    Design("60 clusters that start together", units=1200, clusters=60),
    Design("shares (0 or 1)", units=1200, kind="share"),
    Design("counts", units=800, kind="count"),
)


def effect(design: Design, cohort: int, event: int) -> float:
    """The effect of a cohort, growing with time; larger for the early one."""
    return (0.8 if cohort == 4 else 0.3) * (1 + design.growth * event)


def draw(design: Design, rng: np.random.Generator) -> tuple[Panel, dict[tuple[int, int], float]]:
    """A panel, and the true effect of each cohort and event time."""
    n = design.units
    x = rng.normal(size=n)
    if design.clusters:
        of = rng.integers(0, design.clusters, n)
        cluster_cohort = rng.choice(COHORTS, design.clusters, p=_mix(design))
        cohort = cluster_cohort[of]
        shock = rng.normal(scale=0.3, size=(design.clusters, PERIODS)).cumsum(axis=1)[of]
    else:
        of = np.arange(n)
        weight = np.exp(design.selection * x)[:, None] ** np.array([1.0, 1.0, 0.0]) * _mix(design)
        share = weight / weight.sum(axis=1, keepdims=True)
        cohort = np.array(COHORTS)[(rng.random((n, 1)) > share.cumsum(axis=1)).sum(axis=1).clip(0, 2)]
        shock = np.zeros((n, PERIODS))
    period = np.arange(1, PERIODS + 1)
    event = period - cohort[:, None]
    on = (cohort[:, None] > 0) & (event >= 0)
    added = np.array([[effect(design, int(g), int(t - g)) if g and t >= g else 0.0 for t in period] for g in cohort])
    trend = 0.2 * period + design.selection * 0.3 * x[:, None] * period
    level = rng.normal(size=n)[:, None] + 0.3 * (cohort[:, None] == 4)
    if design.kind == "amount":
        noise = np.empty((n, PERIODS))
        noise[:, 0] = rng.normal(size=n)
        for t in range(1, PERIODS):
            noise[:, t] = 0.5 * noise[:, t - 1] + rng.normal(scale=0.8, size=n)
        y = level + trend + shock + added * rng.normal(1, 0.3, size=(n, 1)) + noise
        truth = {(g, e): effect(design, g, e) for g in COHORTS[:2] for e in range(AFTER + 1)}
    else:
        index = 0.3 * (cohort[:, None] == 4) + 0.1 * period - 1.0
        if design.kind == "share":
            chance = 1 / (1 + np.exp(-(index + added)))
            y = (rng.random((n, PERIODS)) < chance).astype(float)
        else:
            y = rng.poisson(np.exp(index + added)).astype(float)
        link: Callable[[float], float] = (lambda v: 1 / (1 + math.exp(-v))) if design.kind == "share" else math.exp
        truth = {}
        for g in COHORTS[:2]:
            for e in range(AFTER + 1):
                base = 0.3 * (g == 4) + 0.1 * (g + e) - 1.0
                truth[g, e] = link(base + effect(design, g, e)) - link(base)
    rows = n * PERIODS
    covariate = np.repeat(x, PERIODS)[:, None] if design.selection else np.empty((rows, 0))
    panel = Panel.of(
        np.repeat(np.arange(n), PERIODS), np.tile(period, n), y.ravel(), np.repeat(cohort, PERIODS),
        x=covariate, names=("x",) if design.selection else (),
        cluster=np.repeat(of, PERIODS) if design.clusters else None, level="cluster",
    )  # fmt: skip
    assert on.any()
    return panel, truth


def _mix(design: Design) -> np.ndarray:
    """Shares of the cohorts, the never treated last."""
    treated = (1 - design.never) / 2
    return np.array([treated, treated, design.never])


def estimators(design: Design) -> dict[str, Choice]:
    """The estimators that claim to be right in a design, and the two-way regression that does not."""
    common = {"before": BEFORE, "after": AFTER, "complete": True}
    if design.kind != "amount":
        family = "logit" if design.kind == "share" else "poisson"
        return {f"extended, {family}": Choice("extended", family=family, **common)}  # type: ignore[arg-type]
    found = {}
    if design.selection:
        for adjust in ("dr", "reg", "ipw", "dr_improved"):
            found[f"group_time, {adjust}"] = Choice("group_time", adjust=adjust, **common)  # type: ignore[arg-type]
        found["extended"] = Choice("extended", **common)
        found["imputation"] = Choice("imputation", **common)
        found["group_time without the covariate"] = Choice("group_time", covariates=False, **common)
        return found
    for control in ("not_yet", "never"):
        found[f"group_time, {control}"] = Choice("group_time", control=control, **common)  # type: ignore[arg-type]
    found["sun_abraham"] = Choice("sun_abraham", **common)
    found["imputation"] = Choice("imputation", **common)
    found["extended"] = Choice("extended", **common)
    found["stacked"] = Choice("stacked", **common)
    found["two_way"] = Choice("two_way", **common)
    return found


def once(design: Design, rep: int) -> dict[str, tuple[float, ...]]:
    """One replication: by estimator bias, whether 0, the last event time and the mean are covered, and the band."""
    rng = np.random.default_rng([rep, DESIGNS.index(design)])
    panel, truth = draw(design, rng)
    true = np.array([sum(truth[g, e] for g in COHORTS[:2]) / 2 for e in range(AFTER + 1)])  # cohorts are as likely
    out: dict[str, tuple[float, ...]] = {}
    for name, choice in estimators(design).items():
        found: Effects = choice(panel)
        after = np.isin(found.at, np.arange(AFTER + 1))
        estimate, vcov = found.estimate[after], np.asarray(found.vcov)[np.ix_(after, after)]
        mean = np.full(AFTER + 1, 1 / (AFTER + 1))
        error = np.append(np.sqrt(np.diag(vcov)), np.sqrt(mean @ vcov @ mean))
        gap = np.append(estimate - true, mean @ (estimate - true))
        inside = np.abs(gap) <= Z * error
        band = band_of(estimate, vcov, np.inf, rng, draws=2000)
        whole = bool(((band.band_low <= true) & (true <= band.band_high)).all())
        early = found.at < -1
        clean = np.abs(found.estimate[early]) <= Z * found.std_error[early]
        out[name] = (
            float(gap[-1]), float(error[-1]), float(inside[0]), float(inside[AFTER]), float(inside[-1]), float(whole),
            float(clean.mean()) if early.any() else math.nan,
        )  # fmt: skip
    return out


def wilson(share: float, n: int, z: float = 2.5758293035489004) -> tuple[float, float]:
    """The 99 % Wilson interval of a share."""
    centre, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def summarise(design: Design, results: Sequence[dict[str, tuple[float, ...]]]) -> list[str]:
    """Rows of the table."""
    lines = []
    n = len(results)
    for name in results[0]:
        values = np.array([one[name] for one in results])
        gap = values[:, 0]
        covered = values[:, 2:].mean(axis=0)
        marks = []
        for share in covered:
            low, high = wilson(float(share), n) if np.isfinite(share) else (0.95, 0.95)
            outside = low > 0.97 or high < 0.93
            marks.append("–" if not np.isfinite(share) else f"{100 * share:.1f}" + (" **out**" if outside else ""))
        error = gap.std(ddof=1) / math.sqrt(n)
        lines.append(
            f"| {design.name} | {name} | {gap.mean():+.3f} ({error:.3f}) | {values[:, 1].mean() / gap.std(ddof=1):.2f} "
            "| "
            + " | ".join(marks) + " |"
        )  # fmt: skip
    return lines


def main(reps: int, processes: int, out: Path | None) -> list[str]:
    """All designs; the table as lines."""
    lines = [
        "# Coverage of difference-in-differences",
        "",
        "Do 95 % intervals hold the effect in 95 of 100 samples when effects differ by cohort and grow with time, and "
        "where does the two-way regression go wrong? Written by `make coverage`. What the table says: "
        "[coverage](coverage.md#difference-in-differences).",
        "",
        f"{reps} replications a design. Bias is that of the mean over event times 0-{AFTER}, its Monte Carlo error in "
        "brackets; *error* is the mean standard error over the standard deviation of the estimates. Coverage in per "
        f"cent of event time 0, event time {AFTER}, their mean, the simultaneous band, and (true value zero) the event "
        "times before -1. **out**: the 99 % Wilson interval lies outside 93–97 %.",
        "",
        "| design | estimator | bias | error | at 0 | last | mean | band | before |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    with ProcessPoolExecutor(processes) as pool:
        for design in DESIGNS:
            results = list(pool.map(partial(once, design), range(reps), chunksize=5))
            lines += summarise(design, results)
            print("\n".join(summarise(design, results)), flush=True)
    if out is not None:
        out.write_text("\n".join(lines) + "\n", "utf-8")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    main(given.reps, given.processes, given.out)
