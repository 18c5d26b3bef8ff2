"""Time and memory of matching, one core: ``OMP_NUM_THREADS=1 python tests/simulation/bench_matching.py``."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np

from evalkit.hashing import mix
from evalkit.matching.match import match


def population(treated: int, others: int, p: int = 5, cells: int = 20) -> dict[str, np.ndarray]:
    """Treated whose covariates lie half a standard deviation higher, a score, exact cells and keys."""
    rng = np.random.default_rng(treated + others)
    n = treated + others
    d = np.arange(n) < treated
    x = rng.normal(size=(n, p)) + 0.5 * d[:, None] * (np.arange(p) < 2)
    score = x[:, 0] + 0.5 * x[:, 1] + 0.3 * rng.normal(size=n)
    key = mix(np.zeros(n, np.uint64), np.arange(n))
    return {"treated": d, "covariates": x, "score": score, "exact": rng.integers(0, cells, n), "key": key}


def score_matching(treated: int = 100_000, others: int = 900_000, **options: object) -> Callable[[], object]:
    """Nearest neighbours on a score with a caliper of 0.2 standard deviations."""
    data = population(treated, others)
    arrays = {name: data[name] for name in ("treated", "score", "key")}
    return lambda: match(how="nearest", **{"caliper": 0.2} | arrays | options)  # type: ignore[arg-type]


def mahalanobis(treated: int = 20_000, others: int = 200_000, exact: bool = True, **options: object):
    """Mahalanobis distance on five covariates, within twenty exact cells."""
    data = population(treated, others)
    names = ("treated", "covariates", "key", *(["exact"] if exact else []))
    return lambda: match(how="nearest", **{name: data[name] for name in names} | options)  # type: ignore[arg-type]


def best(how: str, treated: int = 20_000, others: int = 100_000, **options: object):
    """Optimal or full matching on a score."""
    data = population(treated, others)
    return lambda: match(how=how, **{name: data[name] for name in ("treated", "score", "key")} | options)  # type: ignore


def smooth(how: str, treated: int = 100_000, others: int = 900_000, **options: object):
    """Kernel, radius and ridge matching on a score."""
    data = population(treated, others)
    return lambda: match(how=how, **{name: data[name] for name in ("treated", "score", "key")} | options)  # type: ignore


CASES: dict[str, Callable[[], Callable[[], object]]] = {
    "score 1:1, no replacement, 100k of 1M": lambda: score_matching(),
    "score 1:1, no replacement, walk": lambda: score_matching(tie="walk"),
    "score 1:1, closest first": lambda: score_matching(order="closest"),
    "score 3:1, no replacement": lambda: score_matching(ratio=3),
    "score 1:1, replacement": lambda: score_matching(replace=True),
    "score 5:1, replacement": lambda: score_matching(replace=True, ratio=5),
    "score, all ties, replacement": lambda: score_matching(replace=True, tie="all", tie_tolerance=0.0),
    "Mahalanobis 1:1, exact, 20k of 220k": lambda: mahalanobis(),
    "Mahalanobis 1:1, 20k of 220k": lambda: mahalanobis(exact=False),
    "Mahalanobis 1:1, 100k of 1M": lambda: mahalanobis(100_000, 900_000, exact=False),
    "optimal 1:1 on a score, 2k of 12k": lambda: best("optimal", 2_000, 10_000),
    "optimal 1:1 on a score, 20k of 120k": lambda: best("optimal"),
    "full on a score, 2k of 12k": lambda: best("full", 2_000, 10_000),
    "full on a score, 20k of 120k": lambda: best("full"),
    "kernel, 100k of 1M": lambda: smooth("kernel"),
    "radius, 100k of 1M": lambda: smooth("radius"),
    "ridge, 100k of 1M": lambda: smooth("ridge"),
}


def measure(build: Callable[[], Callable[[], object]], runs: int = 3) -> float:
    """Median seconds of a call, data made beforehand."""
    call = build()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if times[-1] > 30:
            break
    return float(np.median(times))


def main(chosen: list[str]) -> None:
    """Print a table; compile on small data first."""
    for warm in (score_matching(50, 400), mahalanobis(50, 400), score_matching(50, 400, replace=True, tie="all")):
        warm()
    print(f"{'case':45} {'seconds':>8} {'peak MB':>8}")
    for name, build in CASES.items():
        if chosen and not any(part in name for part in chosen):
            continue
        seconds = measure(build)
        print(f"{name:45} {seconds:8.2f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f}", flush=True)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
