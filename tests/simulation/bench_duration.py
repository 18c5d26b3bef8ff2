"""Time and memory of duration models: timing of events, hazards on patterns, effects by month.

    OMP_NUM_THREADS=1 python tests/simulation/bench_duration.py

Timing of events as in the data that the R program durmod ships: two covariates that change between stretches, exact
time, job and programme with hidden differences; persons are drawn by the law of those data.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from duration_example import Town

from evalkit.duration.answers import answers
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.npmle import npmle
from evalkit.duration.spells import NEVER, Instrument, Layout, Spells, Timeline
from evalkit.duration.terms import dense, factor, joined


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


def line(what: str, persons: int, rows: str, began: float, note: str = "") -> None:
    """A row of the table."""
    took = time.process_time() - began
    print(f"| {what} | {persons:,} | {rows} | {took:.1f} | {memory():.1f} | {note} |", flush=True)


def patterns(persons: int, seed: int = 1) -> Histories:
    """Spells of so many people as patterns: three exits and a start by month, with sex, education and age."""
    rng = np.random.default_rng(seed)
    sex, education, age = rng.integers(0, 2, persons), rng.integers(0, 3, persons), rng.integers(0, 4, persons)
    alive, longest = np.ones(persons, bool), 24
    stop, cause = np.full(persons, longest), np.full(persons, -1)
    start = np.full(persons, NEVER)
    lift = 0.1 * sex + 0.2 * education - 0.1 * age
    for month in range(longest):
        since = np.where(start <= month, month - start, -1)
        work = 0.05 * np.exp(lift - 0.03 * month) * np.where(since < 0, 1.0, np.where(since < 6, 0.6, 1.4))
        total = work + 0.02
        leaves = alive & (rng.random(persons) < -np.expm1(-total))
        where = rng.random(persons) * total
        stop[leaves], cause[leaves] = month + 1, np.where(where < work, 0, np.where(where < work + 0.005, 1, 2))[leaves]
        alive &= ~leaves
        begins = alive & (start == NEVER) & (rng.random(persons) < 0.015) & (month + 1 < longest)
        start[begins] = month + 1
    keys = np.column_stack([stop, cause, np.where(start < NEVER, start, -1), sex, education, age])
    code = np.ravel_multi_index((keys + 1).T, tuple(keys.max(axis=0) + 2))
    _, first, count = np.unique(code, return_index=True, return_counts=True)
    x = joined(
        factor(sex[first], ["man", "woman"]), factor(education[first], ["low", "middle", "high"]),
        factor(age[first], ["18", "27", "45", "55"]),
    )  # fmt: skip
    n = len(first)
    own = Instrument("training", start[first], np.full(n, 6), "end", (6, 12))
    zero, every = np.zeros(n, np.int64), np.arange(n)
    causes = ("work", "education", "other")
    spells = Spells(every, every, zero, stop[first], cause[first], causes, zero + 24_000, x, (own,), every, every)
    return replace(Layout(spells, Timeline()).histories(), count=count.astype(float))


def main() -> None:
    print("| what | persons | stretches | processor seconds | GB so far | |\n|---|---|---|---|---|---|")
    for persons, points in ((5_000, None), (20_000, 6), (100_000, 6)):
        made = timing(persons)
        began = time.process_time()
        path = npmle(made, points=points)
        note = f"{len(path.models)} points, largest D {path.largest:.1e}, alpha {path.last.theta[0][2]:.3f}"
        line("timing of events, exact", persons, f"{len(made):,}", began, note)
    began = time.process_time()
    made = patterns(2_000_000)
    line("patterns of spells made", 2_000_000, f"{made.persons:,} patterns, {len(made):,}", began)
    began = time.process_time()
    fit = fit_hazards(made)
    line("hazards by month on patterns", 2_000_000, f"{len(made):,}", began, f"{fit.parameters} parameters")
    for persons in (20_000, 100_000):
        town = Town(hidden=((0.5, -0.7, -0.5), (0.5, 0.7, 0.5)))
        spells = town.draw(persons, 1)
        layout = Layout(spells, town.line)
        made = layout.histories()
        began = time.process_time()
        path = npmle(made, points=4)
        note = f"{len(path.models)} points, largest D {path.largest:.1e}"
        line("timing of events, months", persons, f"{len(made):,}", began, note)
        for versus in ("never", "wait"):
            began = time.process_time()
            found = answers(layout, path.best("aic"), horizon=24, versus=versus)
            line(f"effects by month, {versus}, hidden groups", persons, f"{len(found.spell):,} starters", began)
        began = time.process_time()
        fit_hazards(made)
        line("hazards by month", persons, f"{len(made):,}", began)


if __name__ == "__main__":
    main()
