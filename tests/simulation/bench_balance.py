"""Time of the balance table by size, on one core: ``python tests/simulation/bench_balance.py``."""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from evalkit.balance import balance_statistics

SIZES = ((100_000, 20), (100_000, 50), (1_000_000, 20), (1_000_000, 50))


def drawn(rows: int, columns: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariates (half continuous, a quarter counts, a quarter shares), a tenth treated, weights of both arms."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    quarter = columns // 4
    x[:, :quarter] = x[:, :quarter] > 0.5
    x[:, quarter : 2 * quarter] = np.floor(10 * np.abs(x[:, quarter : 2 * quarter]))
    return x, rng.uniform(size=rows) < 0.1, rng.exponential(size=rows)


def main() -> None:
    """One line a size, fastest of three (of one for the largest): on the clock, and on the processor."""
    print(f"{'rows':>10} {'covariates':>10} {'seconds':>8} {'processor':>10}")
    for rows, columns in SIZES:
        x, treated, weight = drawn(rows, columns)
        times, busy = [], []
        for _ in range(1 if rows * columns > 3e7 else 3):
            start, used = time.perf_counter(), time.process_time()
            balance_statistics(x, [f"x{j}" for j in range(columns)], None, treated, weight, target="ate")
            times.append(time.perf_counter() - start)
            busy.append(time.process_time() - used)
        print(f"{rows:>10,} {columns:>10} {min(times):>8.2f} {min(busy):>10.2f}")


if __name__ == "__main__":
    main()
