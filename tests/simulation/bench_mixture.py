"""Time, memory and likelihoods of timing of events with mass points.

    python tests/simulation/bench_mixture.py                 # all parts, with one and with two threads
    python tests/simulation/bench_mixture.py --part durdata --threads 1

Parts: ``durdata`` (the data that the R program durmod ships, to the certificate), ``exact`` (100,000 persons of a like
law, to 6 points), ``grouped`` (20,000 persons, whole periods, to 4 points and to the certificate).
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from evalkit.duration.histories import Histories
from evalkit.duration.mixture import Path as Models
from evalkit.duration.mixture import npmle
from evalkit.duration.terms import dense

DATA = Path(__file__).parents[1] / "reference" / "durdata.csv.gz"
SHARES = (0.4, 0.3, 0.2, 0.1)
JOB, PROGRAMME = (-1.8, -3.3, -2.6, -0.8), (-2.9, -3.8, -2.2, -1.2)
EFFECT = 0.2


def built(who, length, event, x1, x2, on, persons, timing, before=None, order=(0, 0)) -> Histories:
    """Histories of a job and a programme: two covariates, and an effect of the programme on finding a job."""
    return Histories(
        who, length, event, np.column_stack([np.ones(len(who), bool), ~on]),
        np.zeros(len(who), bool) if before is None else before,
        (dense(np.column_stack([x1, x2, on]), ["x1", "x2", "alpha"]), dense(np.column_stack([x1, x2]), ["x1", "x2"])),
        ("job", "programme"), np.array(order), np.ones(persons), np.arange(persons), np.arange(persons), timing=timing,
    )  # fmt: skip


def durdata() -> Histories:
    """The data of the R program: 5,000 persons, 11,011 stretches."""
    frame = pd.read_csv(io.StringIO(gzip.decompress(DATA.read_bytes()).decode()))
    ids, person = np.unique(frame["id"], return_inverse=True)
    event = frame["d"].map({"none": -1, "job": 0, "program": 1}).to_numpy()
    on = (frame["state"] != "unemp").to_numpy()
    x1, x2, length = (frame[name].to_numpy() for name in ("x1", "x2", "duration"))
    return built(person, length, event, x1, x2, on, len(ids), "exact")


def drawn(persons: int, seed: int, timing: str = "exact", longest: float = 80.0) -> Histories:
    """People of four hidden groups, followed for ``longest``; covariates are drawn anew in each stretch.

    Grouped: stretches of at most four whole periods; who finds a job in a period does not start in it.
    """
    rng = np.random.default_rng(seed)
    group = rng.choice(len(SHARES), persons, p=SHARES)
    job, programme = np.array(JOB)[group], np.array(PROGRAMME)[group]
    here, clock, on = np.arange(persons), np.zeros(persons), np.zeros(persons, bool)
    parts = []
    while len(here):
        x1, x2 = rng.normal(size=(2, len(here)))
        find = np.exp(x1 - x2 + EFFECT * on[here] + job[here])
        start = np.where(on[here], 0.0, np.exp(x1 + 0.5 * x2 + programme[here]))
        if timing == "exact":
            length = np.minimum(rng.exponential(30.0, len(here)), longest - clock[here])
            happens = rng.exponential(size=len(here)) / (find + start)
            event = np.where(happens < length, np.where(rng.random(len(here)) < find / (find + start), 0, 1), -1)
            length = np.maximum(np.minimum(happens, length), 1e-9)
        else:
            length = np.minimum(rng.integers(1, 5, len(here)), longest - clock[here])
            first = np.ceil(rng.exponential(size=len(here)) / np.maximum(find, 1e-12))
            then = np.ceil(rng.exponential(size=len(here)) / np.maximum(start, 1e-12))
            event = np.where(np.minimum(first, then) <= length, np.where(first <= then, 0, 1), -1)
            length = np.maximum(np.minimum(np.minimum(first, then), length), 1.0)
        parts.append((here, clock[here].copy(), length, event, x1, x2, on[here].copy()))
        clock[here] += length
        on[here[event == 1]] = True
        here = here[(event != 0) & (clock[here] < longest - 1e-9)]
    who, when, length, event, x1, x2, after = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.lexsort((when, who))
    values = (who[order], length[order], event[order], x1[order], x2[order], after[order])
    return built(*values, persons, timing, order=(0, 0) if timing == "exact" else (0, 1))


def shown(name: str, path: Models, wall: float, cpu: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{name}: {wall:.1f} s ({cpu:.1f} s of processor), {peak:.2f} GB, {len(path.steps)} models")
    for step in path.steps:
        fit = step.hazards
        print(
            f"  {len(fit.shares):2d} points  ln L {fit.log_likelihood:.4f}  alpha {fit.theta[0][2]:.4f}"
            f" ({fit.std_error[2]:.4f})  AIC {step.aic:.1f}  largest D {step.largest:.1e}  at the edge {step.edge.sum()}"
            f"  flat {step.flat}"
        )
    low, high = np.round(path.box, 2)
    print(f"  box {low} to {high}; certificate {'holds' if path.closed else 'open'}: {path.largest:.1e}", flush=True)


def run(part: str) -> None:
    small = drawn(300, 0, "grouped" if part == "grouped" else "exact")
    npmle(small, points=2)
    jobs = {
        "durdata": [("durdata", durdata, None)],
        "exact": [("100,000 persons, exact", lambda: drawn(100_000, 1), 6)],
        "grouped": [
            ("20,000 persons, grouped", lambda: drawn(20_000, 2, "grouped"), 4),
            ("20,000 persons, grouped", lambda: drawn(20_000, 2, "grouped"), None),
        ],
    }
    for name, make, points in jobs[part]:
        made = make()
        wall, cpu = time.perf_counter(), time.process_time()
        path = npmle(made, points, effects=["job:alpha"])
        shown(f"{name}, {len(made)} stretches", path, time.perf_counter() - wall, time.process_time() - cpu)
        if part == "durdata":
            again = npmle(made, effects=["job:alpha"])
            same = all(
                a.hazards.packed.tobytes() == b.hazards.packed.tobytes()
                for a, b in zip(path.steps, again.steps, strict=True)
            )
            print(f"  the same numbers once more, bit by bit: {same}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=["durdata", "exact", "grouped"])
    parser.add_argument("--threads", type=int, choices=[1, 2])
    given = parser.parse_args()
    if given.part and given.threads:
        run(given.part)
        return
    for threads in [given.threads] if given.threads else [1, 2]:
        for part in [given.part] if given.part else ["durdata", "exact", "grouped"]:
            print(f"-- {threads} thread(s)", flush=True)
            environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
            command = [sys.executable, __file__, "--part", part, "--threads", str(threads)]
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
