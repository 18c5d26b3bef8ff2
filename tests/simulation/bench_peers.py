"""Matching programs side by side, each in an environment of its own: ``python tests/simulation/bench_peers.py``.

Installs what can be installed into ``.venv-peers`` (not into the project's), times each program on the same draw, in a
process of its own with a limit, and evalkit beside it. The work is not identical: some fit their own score, none has
the same caliper. Orders of magnitude only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-peers"
LIMIT = 200

DRAW = """
import time, warnings
import numpy as np, pandas as pd
warnings.filterwarnings("ignore")
rng = np.random.default_rng(1)
n = {treated} + {others}
d = (np.arange(n) < {treated}).astype(int)
x = rng.normal(size=(n, 3)) + 0.5 * d[:, None]
frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(d=d, id=np.arange(n))
started = time.perf_counter()
"""
PEERS = {
    "causalml": """
from causalml.match import NearestNeighborMatch
frame["score"] = frame.a + frame.b + frame.c
started = time.perf_counter()
NearestNeighborMatch(replace=False, ratio=1, random_state=1).match(frame, "d", ["score"])
""",
}
SIZES = ((500, 2_000), (1_000, 5_000), (2_000, 20_000))
OURS = """
import numpy as np
from evalkit.matching import match
score = x.sum(axis=1)
match(d == 1, how="nearest", score=score, caliper=0.2)
started = time.perf_counter()
match(d == 1, how="nearest", score=score, caliper=0.2)
"""


def timed(python: str, code: str, treated: int, others: int) -> str:
    """Seconds that the last part of the code takes, or why not."""
    program = DRAW.format(treated=treated, others=others) + code + "\nprint(time.perf_counter() - started)\n"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [python, "-c", program], capture_output=True, text=True, timeout=LIMIT, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return f"over {LIMIT}"
    return f"{float(done.stdout.split()[-1]):.3f}" if done.returncode == 0 else "fails"


def installed(name: str) -> bool:
    """Whether a peer could be installed into the environment of its own."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", name], capture_output=True, check=False)
    return done.returncode == 0


def main() -> None:
    started = time.perf_counter()
    print(f"{'program':12}{'treated':>9}{'others':>9}{'seconds':>12}{'evalkit':>10}")
    for name, code in PEERS.items():
        if not installed(name):
            print(f"{name:12}could not be installed here")
            continue
        for treated, others in SIZES:
            theirs = timed(str(ENVIRONMENT / "bin" / "python"), code, treated, others)
            ours = timed(sys.executable, OURS, treated, others)
            print(f"{name:12}{treated:>9,}{others:>9,}{theirs:>12}{ours:>10}", flush=True)
    print(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
