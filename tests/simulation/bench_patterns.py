"""Time and memory of hazards by month: rows, the same rows as patterns, and R and statsmodels on the rows.

    OMP_NUM_THREADS=1 python tests/simulation/bench_patterns.py

Two million people with three exits and the start of an instrument, months, on one core: from a frame of spells in
memory to coefficients with robust errors; gamma frailty of the start. Then a piecewise exponential model on 1,000,000
stretches, all unlike, beside ``glm`` and statsmodels' ``GLM`` when they are there.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from evalkit.duration.frailty import gamma_frailty
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.spells import NEVER, Instrument, Layout, Spells, Timeline
from evalkit.duration.terms import dense, factor, joined

LONGEST = 36
LEVELS = {"sex": ("man", "woman"), "education": ("low", "middle", "high"), "age": ("-27", "27-44", "45-54", "55+")}
CAUSES = ("work", "education", "other")
LINE = Timeline(duration=(1, 2, 3, 6, 9, 12, 18, 24))
R = """
d <- read.csv("{file}"); t <- system.time(
  m <- glm(event ~ factor(band) + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + offset(log(length)), poisson, d))
cat(t[["elapsed"]], formatC(coef(m)[["x1"]], digits = 12), formatC(sqrt(vcov(m)["x1", "x1"]), digits = 12), "\\n")
"""


def frame_of_spells(people: int, districts: int = 0, seed: int = 1) -> pd.DataFrame:
    """One spell a person: traits, months until it ends, how it ends (-1 not), month of the start."""
    rng = np.random.default_rng(seed)
    made = {name: rng.integers(0, len(levels), people).astype(np.int8) for name, levels in LEVELS.items()}
    level = 0.2 * made["sex"] + 0.2 * made["education"] - 0.25 * made["age"]
    stop, cause = np.full(people, LONGEST, np.int16), np.full(people, -1, np.int8)
    start, here = np.full(people, NEVER, np.int32), np.arange(people)
    for month in range(LONGEST):
        since = month - start[here]
        effect = np.where(since < 0, 0.0, np.where(since < 4, -0.4, 0.3))
        rates = np.exp([-3.4 - 0.01 * month + level[here] + effect, np.full(len(here), -5.5), np.full(len(here), -4.6)])
        total = rates.sum(axis=0)
        leaves = rng.random(len(here)) < -np.expm1(-total)
        which = (rng.random(len(here)) * total > rates.cumsum(axis=0)).sum(axis=0)
        stop[here[leaves]], cause[here[leaves]] = month + 1, which[leaves]
        here = here[~leaves]
        begins = (start[here] == NEVER) & (rng.random(len(here)) < 0.02)
        start[here[begins]] = month + 1
    made |= {"stop": stop, "cause": cause, "start": start}
    if districts:
        made["district"] = rng.integers(0, districts, people).astype(np.int16)
    return pd.DataFrame(made)


def histories_of(frame: pd.DataFrame, alike: bool) -> Histories:
    """Stretches of all people; ``alike``: people who are alike in everything stand once, with a count."""
    columns = {name: frame[name].to_numpy().astype(np.int64) for name in frame}
    columns["start"] = np.where(columns["start"] < NEVER, columns["start"], LONGEST + 1)
    count = np.ones(len(frame))
    if alike:
        key = np.zeros(len(frame), np.int64)
        for values in columns.values():
            key = key * (int(values.max()) + 2) + values + 1
        _, place, number = np.unique(key, return_index=True, return_counts=True)
        columns, count = {name: values[place] for name, values in columns.items()}, number.astype(float)
    people = np.arange(len(count))
    start = np.where(columns["start"] <= LONGEST, columns["start"], NEVER)
    instrument = Instrument("training", start, np.full(len(people), 4), "end", (6, 12))
    x = joined(*(factor(columns[name], [f"{name}:{level}" for level in levels]) for name, levels in LEVELS.items()))
    cluster = columns.get("district", people)
    ids = np.unique(cluster)
    spells = Spells(
        people, people, np.zeros(len(people), int), columns["stop"], columns["cause"], CAUSES,
        np.full(len(people), 24_000), x, (instrument,), cluster, ids, "district" if "district" in columns else "person",
    )  # fmt: skip
    return replace(Layout(spells, LINE).histories("grouped"), count=count)


def stretches(rows: int, seed: int = 1) -> tuple[Histories, pd.DataFrame]:
    """Rows that are all unlike: ten bands of time, eight numbers, some five stretches a person."""
    rng = np.random.default_rng(seed)
    person = np.sort(rng.integers(0, rows // 5, rows))
    person = np.unique(person, return_inverse=True)[1]
    band, x = rng.integers(0, 10, rows), rng.normal(size=(rows, 8))
    length = rng.uniform(0.1, 3.0, rows)
    rate = np.exp(-3 - 0.1 * band + x @ np.linspace(-0.3, 0.3, 8))
    event = rng.random(rows) < -np.expm1(-rate * length)
    names = [f"x{j}" for j in range(1, 9)]
    design = joined(factor(band, [f"band {k}" for k in range(10)]), dense(x, names))
    people = int(person.max()) + 1
    made = Histories(
        person, length, np.where(event, 0, -1), np.ones((rows, 1), bool), np.zeros(rows, bool), (design,), ("exit",),
        np.zeros(1), np.ones(people), np.arange(people), np.arange(people),
    )  # fmt: skip
    frame = pd.DataFrame(x, columns=names).assign(band=band, length=length, event=event.astype(int))
    return made, frame


def memory() -> float:
    """Largest resident size so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def line(what: str, people: int, patterns: int, rows: int, seconds: float, note: str = "") -> None:
    print(f"| {what} | {people:,} | {patterns:,} | {rows:,} | {seconds:.1f} | {memory():.1f} | {note} |", flush=True)


def main() -> None:
    fit_hazards(histories_of(frame_of_spells(2_000), alike=True))
    print("| what | people | patterns | stretches | seconds | GB so far | |\n|---|---:|---:|---:|---:|---:|---|")
    for people, districts, alike in (
        (200_000, 0, False),
        (200_000, 0, True),
        (2_000_000, 0, True),
        (2_000_000, 12, True),
    ):
        frame = frame_of_spells(people, districts)
        began = time.perf_counter()
        made = histories_of(frame, alike)
        cut = time.perf_counter() - began
        fit = fit_hazards(made)
        what = "people by person" if not alike else "patterns, by district" if districts else "patterns"
        note = (
            f"{cut:.1f} s of it to make stretches; {fit.parameters} parameters, {fit.iterations} steps; "
            f"training after 6-11 on work {fit.theta[0][fit.names[0].index('training after 6-11')]:.6f} "
            f"({fit.std_error[fit.names[0].index('training after 6-11')]:.6f})"
        )
        line(what, people, made.persons, len(made), time.perf_counter() - began, note)
        if people == 2_000_000 and not districts:
            began = time.perf_counter()
            frail = gamma_frailty(made, "start training")
            note = f"variance {frail.variance:.2f} ({frail.std_error[-1]:.2f}), {frail.iterations} steps"
            line("gamma frailty of the start", people, made.persons, len(made), time.perf_counter() - began, note)
    made, frame = stretches(1_000_000)
    began = time.perf_counter()
    fit = fit_hazards(made)
    seconds = time.perf_counter() - began
    place = fit.names[0].index("x1")
    note = f"x1 {fit.theta[0][place]:.9f} ({np.sqrt(fit.information[place, place]):.9f})"
    line("piecewise exponential", made.persons, made.persons, len(made), seconds, note)
    peers(frame)


def peers(frame: pd.DataFrame) -> None:
    """R's glm and statsmodels' GLM on the same rows."""
    if shutil.which("Rscript"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.csv"
            frame.to_csv(file, index=False)
            script = Path(folder) / "run.R"
            script.write_text(R.format(file=file))
            found = subprocess.run(["Rscript", str(script)], capture_output=True, text=True, check=True).stdout.split()
        line("R: glm, Poisson", 0, 0, len(frame), float(found[0]), f"x1 {float(found[1]):.9f} ({float(found[2]):.9f})")
    import statsmodels.api as sm

    began = time.perf_counter()
    x = pd.get_dummies(frame["band"], prefix="band", drop_first=True, dtype=float)
    x = pd.concat([x, frame[[name for name in frame if name.startswith("x")]]], axis=1).assign(one=1.0)
    found = sm.GLM(frame["event"], x, family=sm.families.Poisson(), offset=np.log(frame["length"])).fit()
    seconds = time.perf_counter() - began
    note = f"x1 {found.params['x1']:.9f} ({found.bse['x1']:.9f})"
    line("statsmodels: GLM, Poisson", 0, 0, len(frame), seconds, note)


if __name__ == "__main__":
    main()
