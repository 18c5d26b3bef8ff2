"""How long do weights take, and how much memory? ``OMP_NUM_THREADS=1 python tests/simulation/bench_weighting.py``.

Simulated covariates: half normal, a quarter skewed, a quarter zero or one; about one in ten treated. Every figure is
the best of three runs, with derivative and influence unless told otherwise; drawing the data is not counted.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import time
from typing import Any

import numpy as np
from scipy.special import expit

from evalkit.matching.weighting import weigh

REPEATS = 3

CASES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("logit att", 1_000_000, {"how": "ipw"}),
    ("overlap", 1_000_000, {"how": "overlap"}),
    ("entropy att, weights alone", 1_000_000, {"how": "entropy", "account": False}),
    ("entropy att", 1_000_000, {"how": "entropy"}),
    ("entropy ate", 1_000_000, {"how": "entropy", "target": "ate"}),
    ("cbps att", 100_000, {"how": "cbps"}),
    ("cbps ate", 100_000, {"how": "cbps", "target": "ate"}),
    ("cbps att, over", 100_000, {"how": "cbps", "over": True}),
    ("cbps ate, over", 100_000, {"how": "cbps", "target": "ate", "over": True}),
    ("stable att, exact", 100_000, {"how": "stable"}),
    ("stable att, 0.02 SD", 100_000, {"how": "stable", "tolerance": 0.02}),
    ("stable ate, 0.02 SD", 100_000, {"how": "stable", "tolerance": 0.02, "target": "ate"}),
)


def draw(rows: int, columns: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Treatment (n,) and covariates (n, p)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, columns))
    quarter = columns // 4
    x[:, :quarter] = rng.exponential(size=(rows, quarter))
    x[:, quarter : 2 * quarter] = rng.random((rows, quarter)) < 0.2
    slope = np.where(np.arange(columns) % 2 == 0, 0.25, -0.2)
    return rng.random(rows) < expit(x @ slope - 2.4), x


def best(rows: int, columns: int, **asked: Any) -> tuple[float, int, float]:
    """Seconds, iterations and what is left of imbalance."""
    treated, x = draw(rows, columns)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = weigh(treated, x, **asked)
        seconds.append(time.perf_counter() - start)
        assert found.converged
    return min(seconds), found.iterations, found.imbalance


def main(columns: int = 20) -> None:
    """Print the table."""
    print("| weights | rows | columns | seconds | iterations | imbalance left |\n|---|---|---|---|---|---|")
    for label, rows, asked in CASES:
        seconds, iterations, left = best(rows, columns, **asked)
        print(f"| {label} | {rows:,} | {columns} | {seconds:.2f} | {iterations} | {left:.0e} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory of the process: {peak:.1f} GB.")


if __name__ == "__main__":
    main()
