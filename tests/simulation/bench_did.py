"""Group-time effects side by side with other programs: ``python tests/simulation/bench_did.py [--peers PYTHON]``.
The other programs are installed into an environment of their own unless an interpreter is named that has them.

Every program gets the same table (units, periods, cohorts, two covariates), estimates doubly robust effects of cohorts
in periods with never treated units as comparison and varying base, and averages them by event time with standard
errors. Each runs in a process of its own on one core. ``fit``: seconds from the table to the averages, the fastest of
the repetitions in that process (the first one may load or compile); ``cpu``: the same in processor time, for a machine
that does other things too. ``process``: seconds of the whole process, drawing the data included. ``memory``: its peak
in MB. The overall effect and its error (nan: not given) show that the answers are the same.
Programs that the interpreter after ``--peers`` cannot import are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench_peers import ENVIRONMENT, installed

ROOT = Path(__file__).parents[2]
LIMIT = 300

DRAW = """
import json, resource, sys, time, warnings
import numpy as np, pandas as pd
warnings.filterwarnings("ignore")
units, draws, repeat = (int(a) for a in sys.argv[1:4])
rng = np.random.default_rng(1)
periods = 10
x = rng.normal(size=(units, 2))
first = np.array([0, 4, 5, 6, 7, 8])[rng.choice(6, units, p=[0.4] + [0.12] * 5)]
i, t = np.repeat(np.arange(units), periods), np.tile(np.arange(1, periods + 1), units)
y = rng.normal(size=units)[i] + 0.1 * t * (1 + x[i, 0]) + ((first[i] > 0) & (t >= first[i])) + rng.normal(size=len(i))
table = pd.DataFrame({"i": i, "t": t, "y": y, "g": first[i], "a": x[i, 0], "b": x[i, 1]})
best = cpu = float("inf")
for _ in range(repeat):
    started, begun = time.perf_counter(), time.process_time()
"""
CLOSE = """
    best, cpu = min(best, time.perf_counter() - started), min(cpu, time.process_time() - begun)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"fit": best, "cpu": cpu, "memory": memory, "effect": float(effect), "error": float(error)}))
"""
OURS = """
    from evalkit.did.group_time import group_time
    from evalkit.did.panel import Panel
    panel = Panel.of(table.i, table.t, table.y, table.g, x=table[["a", "b"]], names=("a", "b"))
    cells = group_time(panel, control="never", base="varying")
    events = cells.aggregate("event")
    effect, error = events.overall.estimate[0], events.overall.std_error[0]
    events.std_error
    if draws:
        from evalkit.did.multiplier import multiplier_bootstrap
        from evalkit.effects import Influence
        names = events.uncertainty.ids
        joint = np.hstack([cells.influence, events.uncertainty.values, events.overall.uncertainty.values])
        error = multiplier_bootstrap(Influence(names, joint), seed=1, draws=draws).std_error[-1]
"""
PEERS = {
    "diff_diff": """
    from diff_diff import CallawaySantAnna
    model = CallawaySantAnna(control_group="never_treated", estimation_method="dr", n_bootstrap=draws, seed=1)
    found = model.fit(table, "y", "i", "t", "g", covariates=["a", "b"], aggregate="event_study")
    later = found.event_study_effects
    effect = np.mean([v["effect"] for e, v in later.items() if e >= 0])
    error = np.nan
""",
    "csdid": """
    from csdid.att_gt import ATTgt
    model = ATTgt(yname="y", gname="g", idname="i", tname="t", xformla="y ~ a + b", data=table, biters=draws or 1000)
    found = model.fit(est_method="dr", bstrap=bool(draws)).aggte(typec="dynamic", bstrap=bool(draws), cband=False)
    effect, error = found.atte["overall_att"], found.atte["overall_se"]
    effect, error = np.ravel(effect)[0], np.ravel(error)[0]
""",
    "differences": """
    from differences import ATTgt
    model = ATTgt(data=table.assign(g=table.g.where(table.g > 0)).set_index(["i", "t"]), cohort_column="g")
    asked = {"boot_iterations": draws, "random_state": 1}
    fitted = model.fit("y ~ a + b", est_method="dr", progress_bar=False, **asked)
    fitted.aggregate("event", **asked)
    found = fitted.aggregate("event", overall=True, **asked)
    effect, error = np.ravel(found)[:2]
""",
    "pyfixest": """
    import pyfixest
    named = table.rename(columns={"i": "unit"})[["unit", "t", "y", "g"]]  # i() is a function there
    found = pyfixest.event_study(named, "y", "unit", "t", "g", cluster="unit", estimator="saturated")
    effect = error = np.nan  # Sun and Abraham without covariates: no doubly robust estimator, another amount of work
""",
}


def run(python: str, code: str, units: int, draws: int, repeat: int) -> dict[str, float] | str:
    """What one program reports, or why it does not."""
    program = DRAW + code + CLOSE
    environment = os.environ | {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    command = [python, "-c", program, *map(str, (units, draws, repeat))]
    started = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, env=environment, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return f"over {LIMIT} s"
    whole = time.perf_counter() - started
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:100]
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"process": whole}


def importable(python: str, name: str) -> bool:
    done = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False)
    return done.returncode == 0


def prepared(names: list[str]) -> str:
    """The interpreter of an environment into which the programs were installed, as far as they could be."""
    for name in names:
        if not installed(name):
            print(f"{name}: could not be installed here")
    return str(ENVIRONMENT / "bin" / "python")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--peers", default="", help="interpreter that has the others; without, they are installed")
    asked.add_argument("--units", type=int, nargs="*", default=[10_000, 100_000])
    asked.add_argument("--draws", type=int, nargs="*", default=[0, 1000])
    asked.add_argument("--only", nargs="*", default=list(PEERS))
    asked.add_argument("--repeat", type=int, default=3)
    chosen = asked.parse_args()
    programs = {"evalkit": (sys.executable, OURS)}
    peers = chosen.peers or prepared(chosen.only)
    programs |= {name: (peers, PEERS[name]) for name in chosen.only if importable(peers, name)}
    columns = ("fit", "cpu", "process", "memory", "effect", "error")
    print(f"{'units':>9}{'draws':>7}  {'program':13}" + "".join(f"{name:>10}" for name in columns))
    for units in chosen.units:
        for draws in chosen.draws:
            for name, (python, code) in programs.items():
                if name == "pyfixest" and draws:
                    continue
                found = run(python, code, units, draws, chosen.repeat)
                shown = found
                if isinstance(found, dict):
                    shown = "".join(f"{found[c]:10.0f}" if c == "memory" else f"{found[c]:10.4f}" for c in columns)
                print(f"{units:9d}{draws:7d}  {name:13}{shown}", flush=True)


if __name__ == "__main__":
    main()
