"""How long looking up covariates that change takes: sixty million entries in a table of six million rows.

python tests/simulation/changing.py [millions of entries]
"""

from __future__ import annotations

import sys
import time

import numpy as np

from evalkit.calendar import NEVER
from evalkit.sample.history import history


def main(millions: int = 60) -> None:
    """Print the seconds that building and looking up take."""
    rng = np.random.default_rng(0)
    persons = max(millions * 10**6 // 30, 1)
    unit = np.repeat(np.arange(persons), rng.poisson(2, persons) + 1)
    start = rng.integers(15_000, 19_700, len(unit))
    start = start[np.lexsort((start, unit))]
    known = start + rng.integers(0, 60, len(unit))
    over = np.where(rng.random(len(unit)) < 0.3, start + rng.integers(10, 600, len(unit)), NEVER)
    history(unit[:9], known[:9], over[:9])  # compiles
    before = time.perf_counter()
    made = history(unit, known, over)
    print(f"{len(unit):,} rows: {time.perf_counter() - before:.1f} s")
    person = np.concatenate([np.sort(rng.integers(0, persons, persons, np.int32)) for _ in range(30)])
    day = rng.integers(16_400, 19_700, len(person), np.int32)
    before = time.perf_counter()
    rows = made.as_of(person, day)
    share = (rows >= 0).mean()
    print(f"{len(person):,} entries: {time.perf_counter() - before:.1f} s, {share:.0%} have a value")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
