"""Does the whole line recover the truth, and do its intervals cover? ``make coverage`` writes the table in the docs.

Each replication draws a municipality, builds the register, the sample, the start model, the matches and the profile,
and compares with the exact effect of the law it was drawn from.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit import simulate
from evalkit.analyses import matching
from evalkit.effects import generator
from evalkit.errors import DesignError
from evalkit.experiment import difference
from evalkit.measures import summarise
from evalkit.register import from_frames
from evalkit.run import bind_all
from evalkit.sample import from_register

sys.path.insert(0, str(Path(__file__).parent))
from designs import DESIGNS, Design  # noqa: E402  (a script beside this one)

Z99 = 2.5758293035489004


@dataclass(frozen=True)
class Draw:
    """One replication of one outcome: path with standard errors (K,), its sum, and whether band and sets held."""

    estimate: np.ndarray
    std_error: np.ndarray
    band_covers: bool
    cumulated: float
    cumulated_se: float
    starters: int
    sets_cover: float


def replicate(design: Design, truths: dict[str, np.ndarray], number: int) -> dict[str, Draw]:
    """One replication: outcome name to what was estimated."""
    study = design.study()
    tables = simulate.draw(design.municipality, design.persons, number)
    register = from_frames(study, persons=tables.persons, benefits=tables.benefits, episodes=tables.episodes)
    sample = from_register(study, register)
    (settings,) = bind_all(study)
    analysis = matching.run(sample, settings, generator(1, "coverage"), "main")
    out = {}
    for profile in analysis.profiles:
        name = profile.labels["outcome"]
        truth = truths[name]
        band = profile.band(number, draws=2_000)
        inside = (band.band_low <= truth) & (truth <= band.band_high)
        ones = np.ones(len(truth))
        value, vcov = profile.linear(ones)
        sets = np.nan
        if profile.composition == "fixed":
            sets = float(_sets_cover(profile, truth, number))
        out[name] = Draw(
            profile.estimate, profile.std_error, bool(inside.all()), float(value[0]),
            float(np.sqrt(np.asarray(vcov)[0, 0])), int(profile.n_treated[0]), sets,
        )  # fmt: skip
    return out


def _sets_cover(profile, truth: np.ndarray, seed: int) -> bool:
    """Whether the confidence sets of depth, length and crossing hold the truth's."""
    from dataclasses import replace

    true = {m.measure: m.estimate for m in summarise(replace(profile, estimate=truth), seed).measures}
    for measure in summarise(profile, seed).measures:
        if measure.measure in ("lock_in_depth", "lock_in_months", "crossing_month"):
            value = true[measure.measure]
            if value is None:
                continue
            high = np.inf if measure.set_high is None else measure.set_high
            low = -np.inf if measure.set_low is None else measure.set_low
            if not low - 1e-12 <= value <= high + 1e-12:
                return False
    return True


def _task(job: tuple[Design, dict[str, np.ndarray], int]) -> dict[str, Draw] | None:
    try:
        return replicate(*job)
    except DesignError:
        return None


def wilson(hits: int, n: int) -> tuple[float, float]:
    """99 % Wilson interval of a share."""
    p, z2 = hits / n, Z99**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z99 * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return middle - half, middle + half


def true_paths(design: Design) -> dict[str, np.ndarray]:
    """The true effect by month; with available follow-up each month describes whoever can be followed so long."""
    names = ("left_to_work", "on_benefit")
    if design.follow_up == "complete":
        true = simulate.truth(design.municipality, horizon=design.horizon)
        return {name: true[name].effect for name in names}
    each = [simulate.truth(design.municipality, horizon=k) for k in range(1, design.horizon + 1)]
    return {name: np.array([true[name].effect[-1] for true in each]) for name in names}


def measure(design: Design, replications: int, pool, first: int = 10_000) -> list[dict[str, object]]:
    """Rows of the coverage table for one design; ``first`` is the seed of the first replication."""
    truths = true_paths(design)
    started = time.time()
    jobs = [(design, truths, first + i) for i in range(replications)]
    draws = [d for d in pool.imap(_task, jobs, chunksize=4) if d is not None]
    print(f"{design.name}: {len(draws)} of {replications}, {time.time() - started:.0f} s", file=sys.stderr, flush=True)
    rows = []
    for name, truth in truths.items():
        parts = [d[name] for d in draws]
        estimates = np.array([p.estimate for p in parts])
        errors = np.array([p.std_error for p in parts])
        starters = float(np.mean([p.starters for p in parts]))
        for month in sorted({1, 3, 6, 12, design.horizon}):
            k = month - 1
            rows.append(_row(design, name, f"month {month}", truth[k], estimates[:, k], errors[:, k], starters))
        rows.append(
            _row(
                design,
                name,
                f"sum 1..{design.horizon}",
                truth.sum(),
                np.array([p.cumulated for p in parts]),
                np.array([p.cumulated_se for p in parts]),
                starters,
            )  # fmt: skip
        )
        band = sum(p.band_covers for p in parts)
        rows.append(_share_row(design, name, "band, all months", band, len(parts), starters))
        if design.follow_up == "complete":
            sets = int(sum(p.sets_cover for p in parts))
            rows.append(_share_row(design, name, "lock-in sets", sets, len(parts), starters))
    return rows


def _row(design, outcome, what, truth, estimate, error, starters):
    n = len(estimate)
    covered = int((np.abs(estimate - truth) <= 1.959963984540054 * error).sum())
    row = _share_row(design, outcome, what, covered, n, starters)
    mc = estimate.std(ddof=1) / np.sqrt(n)
    return row | {
        "truth": truth, "bias": estimate.mean() - truth, "mc_error": mc, "sd": estimate.std(ddof=1), "se": error.mean(),
    }  # fmt: skip


def _share_row(design, outcome, what, hits, n, starters):
    low, high = wilson(hits, n)
    wide_ok = what in ("band, all months", "lock-in sets")  # conservative by construction: only too low is wrong
    fails = high < 0.93 or (low > 0.97 and not wide_ok)
    return {
        "design": design.name, "outcome": outcome, "what": what, "n": n, "starters": starters, "coverage": hits / n,
        "low": low, "high": high, "fails": fails,
    }  # fmt: skip


def measure_experiment(persons: int, replications: int, first: int = 10_000) -> list[dict[str, object]]:
    """Rows for a randomised design with a true effect of 0.10 on a chance of 0.25 to 0.45; a third is treated."""
    found: dict[str, list[tuple[float, float, int]]] = {"difference in means": [], "adjusted": []}
    for number in range(replications):
        rng = generator(first + number, "experiment", persons)
        x = np.column_stack([rng.standard_normal(persons), rng.integers(0, 2, persons)])
        treated = rng.permutation(persons) < persons // 3
        chance = 0.25 + 0.10 * x[:, 1] + 0.10 / (1 + np.exp(-x[:, 0])) + 0.10 * treated
        y = (rng.random(persons) < chance).astype(float)[:, None]
        for name, covariates in (("difference in means", None), ("adjusted", x)):
            effect = difference(treated, y, np.ones_like(y, bool), np.arange(persons), covariates)
            error = float(np.sqrt(effect.uncertainty.vcov[0, 0]))
            found[name].append((float(effect.estimate[0]), error, int(effect.n_treated[0])))
    design = Design(f"experiment, {persons} persons", simulate.NULL, persons)
    rows = []
    for name, draws in found.items():
        estimate, error, starters = (np.array(part) for part in zip(*draws, strict=True))
        rows.append(_row(design, "event", name, 0.10, estimate, error, float(starters.mean())))
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| design | outcome | quantity | starters | truth | bias | MC error | SD | mean SE | coverage (99 %) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = [f"{row[k]:.4f}" if k in row else "" for k in ("truth", "bias", "mc_error", "sd", "se")]
        verdict = " **outside**" if row["fails"] else ""
        lines.append(
            f"| {row['design']} | {row['outcome']} | {row['what']} | {row['starters']:.0f} | {' | '.join(numbers)} "
            f"| {100 * row['coverage']:.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f}){verdict} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the designs and print the table; exit 1 when coverage lies outside 93–97 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--replications", type=int, default=500)
    parser.add_argument("--design", default="")
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    rows: list[dict[str, object]] = []
    with multiprocessing.get_context("spawn").Pool(multiprocessing.cpu_count()) as pool:
        for design in DESIGNS:
            if chosen.design in ("", design.name):
                rows += measure(design, chosen.replications, pool, chosen.seed)
    for persons in (60, 400):
        if chosen.design in ("", "experiment"):
            rows += measure_experiment(persons, 4 * chosen.replications, chosen.seed)
    text = table(rows)
    print(text)
    if chosen.out:
        head = f"{chosen.replications} replications a design; four times as many for the experiments.\n\n"
        chosen.out.write_text(head + text, "utf-8")
    sys.exit(1 if any(row["fails"] for row in rows) else 0)


if __name__ == "__main__":
    main()
