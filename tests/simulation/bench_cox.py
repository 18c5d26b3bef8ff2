"""Cox regression with an instrument that starts along the way: this program, R's coxph, and other Python programs.

    OMP_NUM_THREADS=1 python tests/simulation/bench_cox.py

1,000,000 start-stop rows x 10 covariates, robust errors by person, on one core. R (package survival) through Rscript
when there is one, on the same rows; lifelines and statsmodels on a twentieth of them.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from evalkit.duration.cox import Ties, cox
from evalkit.duration.episodes import episodes

NAMES = ["treated", *(f"x{j}" for j in range(1, 10))]
R = """
library(survival); names <- c({names}); x <- paste(names[-(1:4)], collapse = " + ")
d <- as.data.frame(matrix(readBin("{file}", "double", {rows} * length(names)), {rows}, dimnames = list(NULL, names)))
run <- function(robust) {{
  f <- as.formula(paste("Surv(start, stop, event) ~", x))
  fit <- function() if (robust) coxph(f, d, cluster = person, ties = "{ties}") else coxph(f, d, ties = "{ties}")
  t <- system.time(m <- fit())
  took <- t[["user.self"]] + t[["sys.self"]]
  cat(robust, took, formatC(coef(m)[1], digits = 12), formatC(sqrt(m$var[1, 1]), digits = 12), "\\n")
}}
run(FALSE); run(TRUE)
"""


def rows(persons: int, seed: int = 1, continuous: bool = True) -> pd.DataFrame:
    """Two rows for who starts, one for others; times continuous or in months."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(persons, 9))
    log_rate = -3 + x @ np.linspace(-0.3, 0.3, 9)
    begin = rng.exponential(12.0, persons)
    free = rng.exponential(size=persons) / np.exp(log_rate)
    end = np.where(free < begin, free, begin + (free - begin) / np.exp(0.3))
    last = np.minimum(rng.uniform(6, 60, persons), 60.0)
    if not continuous:
        begin, end, last = np.ceil(begin), np.ceil(end), np.ceil(last)
    stop, event = np.minimum(end, last), end <= last
    split = begin < stop
    first = pd.DataFrame({"person": np.arange(persons), "start": 0.0, "stop": np.where(split, begin, stop)})
    first["event"] = np.where(split, 0, event).astype(int)
    second = pd.DataFrame({"person": np.flatnonzero(split), "start": begin[split], "stop": stop[split]})
    second["event"] = event[split].astype(int)
    both = pd.concat([first.assign(treated=0.0), second.assign(treated=1.0)], ignore_index=True)
    frame = pd.DataFrame(x, columns=NAMES[1:]).iloc[both["person"]].reset_index(drop=True)
    return pd.concat([both, frame], axis=1)


def ours(frame: pd.DataFrame, ties: Ties) -> tuple[float, float, float]:
    """Processor seconds, first coefficient, its robust error."""
    began = time.process_time()
    made = episodes(frame["stop"], frame["event"], start=frame["start"], person=frame["person"])
    fit = cox(made, frame[NAMES].to_numpy(), NAMES, ties=ties)
    return time.process_time() - began, float(fit.coefficients[0]), float(fit.robust_error[0])


def line(name: str, rows: int, times: str, ties: str, errors: str, took: float, value: float, error: float) -> None:
    """A row of the table."""
    print(f"| {name} | {rows:,} | {times} | {ties} | {errors} | {took:.2f} | {value:.6f} ({error:.6f}) |", flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    ours(rows(2_000), "efron")  # compiled
    print("| program | rows | times | ties | errors | processor seconds | coefficient (error) |")
    print("|---|---|---|---|---|---|---|")
    small = None
    for continuous in (True, False):
        frame = rows(640_000, continuous=continuous)
        small = frame[frame["person"] % 20 == 0] if continuous else small
        kind = "continuous" if continuous else "months"
        for ties in ("efron", "breslow"):
            seconds, value, error = ours(frame, ties)
            line("evalkit", len(frame), kind, ties, "robust", seconds, value, error)
            if shutil.which("Rscript") and ties == "efron":
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder) / "rows.bin"
                    columns = ["person", "start", "stop", "event", *NAMES]
                    frame[columns].to_numpy(float).T.tofile(file)
                    names = ", ".join(f'"{name}"' for name in columns)
                    text = R.format(file=file, names=names, ties=ties, rows=len(frame))
                    out = subprocess.run(["Rscript", "-e", text], capture_output=True, text=True, check=True).stdout
                for row in out.splitlines():
                    robust, took, value_r, error_r = row.split()
                    errors = "robust" if robust == "TRUE" else "information"
                    line("R survival", len(frame), kind, ties, errors, float(took), float(value_r), float(error_r))
    assert small is not None
    seconds, value, error = ours(small, "efron")
    line("evalkit", len(small), "continuous", "efron", "robust", seconds, value, error)
    from lifelines import CoxTimeVaryingFitter
    from statsmodels.duration.hazard_regression import PHReg

    began = time.process_time()
    fit = CoxTimeVaryingFitter().fit(small, id_col="person", event_col="event", start_col="start", stop_col="stop")
    took = time.process_time() - began
    value, error = float(fit.params_.iloc[0]), float(fit.standard_errors_.iloc[0])
    line("lifelines", len(small), "continuous", "efron", "information", took, value, error)
    began = time.process_time()
    model = PHReg(small["stop"], small[NAMES], status=small["event"], entry=small["start"], ties="breslow")
    result = model.fit(groups=small["person"])
    took = time.process_time() - began
    line("statsmodels", len(small), "continuous", "breslow", "robust", took, result.params[0], result.bse[0])


if __name__ == "__main__":
    main()
