"""Do intervals of effects by month from duration models cover? Prints a table; truth by recursion.

    python tests/simulation/cover_duration.py --reps 500 --processes 2

Law: exits to work (covariate, steps of time on benefit, effect of training by time since its start) and to other, the
start of training depending on the covariate, months as the grid; 3,000 people, horizon 24. Without hidden differences,
and with two hidden groups: those who leave sooner start more often.
"""

from __future__ import annotations

import argparse
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from duration_example import HIDDEN, Town

from evalkit.duration.answers import answers
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.npmle import npmle
from evalkit.duration.spells import Layout

HORIZON, MONTHS = 24, (1, 6, 12, 24)
PLAIN, MIXED = Town(), Town(hidden=HIDDEN)
CASES = {
    "cloglog": (PLAIN, "grouped", "hazard"),
    "piecewise": (PLAIN, "exact", "hazard"),
    "logit": (PLAIN, "grouped", "logit"),
    "mixture": (PLAIN, "grouped", "mixture"),
    "mixture, hidden groups": (MIXED, "grouped", "mixture"),
    "cloglog, hidden groups": (MIXED, "grouped", "hazard"),
}
"""By name the law, how time is taken, and the model."""


def replication(task: tuple[str, int, int, int]) -> np.ndarray:
    """(2, M + 1, 2) deviation and standard error of work at the months, and summed over them, by strategy."""
    name, seed, size, each = task
    town, timing, model = CASES[name]
    spells = town.draw(size, seed, each)
    layout = Layout(spells, town.line)
    made = layout.histories(timing)
    fit = npmle(made, points=4).best("aic") if model == "mixture" else fit_hazards(made, model)
    rows = []
    for versus in ("never", "wait"):
        found = answers(layout, fit, horizon=HORIZON, versus=versus).of["work"]
        pick = np.vstack([np.eye(HORIZON)[[month - 1 for month in MONTHS]], np.ones(HORIZON)])
        error = np.sqrt(np.einsum("mk,kl,ml->m", pick, found.influence.vcov, pick))
        rows.append(np.column_stack([pick @ (found.effect - town.truth(HORIZON, versus)[0]), error]))
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reps", type=int, default=500)
    parser.add_argument("--size", type=int, default=3000)
    parser.add_argument("--each", type=int, default=1, help="spells a person")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    options = parser.parse_args()
    heads = [f"month {month}" for month in MONTHS] + ["summed"]
    print("| model | versus | " + " | ".join(heads) + " | bias, month 24 (points) |")
    print("|---|---|" + "---|" * (len(heads) + 1))
    with Pool(options.processes) as pool:
        for name in options.cases:
            tasks = [(name, seed, options.size, options.each) for seed in range(options.reps)]
            found = np.array(pool.map(replication, tasks, chunksize=4))
            hit = np.abs(found[..., 0]) <= 1.959964 * found[..., 1]
            for place, versus in enumerate(("never", "wait")):
                shares = " | ".join(f"{100 * share:.1f}" for share in hit[:, place].mean(axis=0))
                bias = 100 * found[:, place, len(MONTHS) - 1, 0].mean()
                print(f"| {name} | {versus} | {shares} | {bias:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
