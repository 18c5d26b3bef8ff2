"""Time and memory of duration models: timing of events, hazards on patterns, effects by month.

    OMP_NUM_THREADS=1 python tests/simulation/bench_duration.py

Timing of events as in the data that the R program durmod ships: two covariates that change between stretches, exact
time, job and programme with hidden differences; persons are drawn by the law of those data.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from duration_example import Town

from evalkit.duration.answers import answers
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.npmle import npmle
from evalkit.duration.spells import Layout
from evalkit.duration.terms import dense


def timing(persons: int, seed: int = 1, longest: float = 80.0) -> Histories:
    """Stretches of people who find a job or enter a programme, covariates drawn anew in each stretch."""
    rng = np.random.default_rng(seed)
    group = rng.choice(4, persons, p=[0.4, 0.3, 0.2, 0.1])
    job, programme = (np.array(v)[group] for v in ([-1.8, -3.3, -2.6, -0.8], [-2.9, -3.8, -2.2, -1.2]))
    rows: list[tuple[np.ndarray, ...]] = []
    here, clock, on = np.arange(persons), np.zeros(persons), np.zeros(persons, bool)
    while len(here):
        x1, x2 = rng.normal(size=(2, len(here)))
        rates = np.exp(x1 - x2 + 0.2 * on[here] + job[here])
        start = np.where(on[here], 0.0, np.exp(x1 + 0.5 * x2 + programme[here]))
        stretch = np.minimum(rng.exponential(30.0, len(here)), longest - clock[here])
        happens = rng.exponential(size=len(here)) / (rates + start)
        event = np.where(happens < stretch, np.where(rng.random(len(here)) < rates / (rates + start), 0, 1), -1)
        length = np.minimum(happens, stretch)
        rows.append((here, clock[here].copy(), length, event, x1, x2, on[here].copy()))
        clock[here] += length
        on[here[event == 1]] = True
        here = here[(event != 0) & (clock[here] < longest - 1e-9)]
    who, when, length, event, x1, x2, after = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = np.lexsort((when, who))
    who, length, event, x1, x2, after = (v[order] for v in (who, length, event, x1, x2, after))
    designs = (
        dense(np.column_stack([x1, x2, after.astype(float)]), ["x1", "x2", "alpha"]),
        dense(np.column_stack([x1, x2]), ["x1", "x2"]),
    )
    return Histories(
        who, np.maximum(length, 1e-9), event, np.column_stack([np.ones(len(who), bool), ~after]),
        np.zeros(len(who), bool), designs, ("job", "programme"), np.zeros(2, int), np.ones(persons),
        np.arange(persons), np.arange(persons),
    )  # fmt: skip


def memory() -> float:
    """Largest resident size so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    print("| what | persons | stretches | seconds | GB so far | |\n|---|---|---|---|---|---|")
    for persons, points in ((5_000, None), (20_000, 6), (100_000, 6)):
        made = timing(persons)
        began = time.perf_counter()
        path = npmle(made, points=points)
        note = f"{len(path.steps)} points, largest D {path.largest:.1e}, alpha {path.last.theta[0][2]:.3f}"
        print(
            f"| timing of events, exact | {persons:,} | {len(made):,} | {time.perf_counter() - began:.1f} | {memory():.1f} | {note} |",
            flush=True,
        )
    for persons in (20_000, 100_000):
        town = Town(hidden=((0.5, -0.7, -0.5), (0.5, 0.7, 0.5)))
        spells = town.draw(persons, 1)
        layout = Layout(spells, town.line)
        made = layout.histories()
        began = time.perf_counter()
        path = npmle(made, points=4)
        note = f"{len(path.steps)} points, largest D {path.largest:.1e}"
        print(
            f"| timing of events, months | {persons:,} | {len(made):,} | {time.perf_counter() - began:.1f} | {memory():.1f} | {note} |",
            flush=True,
        )
        for versus in ("never", "wait"):
            began = time.perf_counter()
            found = answers(layout, path.best("aic"), horizon=24, versus=versus)
            print(
                f"| effects by month, {versus}, hidden groups | {persons:,} | {len(found.spell):,} starters | {time.perf_counter() - began:.1f} | {memory():.1f} | |",
                flush=True,
            )
        began = time.perf_counter()
        fit_hazards(made)
        print(
            f"| hazards by month | {persons:,} | {len(made):,} | {time.perf_counter() - began:.1f} | {memory():.1f} | |",
            flush=True,
        )


if __name__ == "__main__":
    main()
