"""How long does the whole line take, and how much memory? ``make bench``.

Each size runs in a process of its own, as a user would run it: CSV files on disk, register, sample, matching, results
with all measures, files, and the report in two languages. The numbers follow ``evalkit.run.run`` through its progress,
so they time the line itself. A first, small run compiles the kernels and is not counted. The last table times the
sample and the estimates alone, from tables in memory: 40,000 persons, 24 start months, 36 months of follow-up.

This file imports only the standard library until it is a child: the peak memory of a child starts at its parent's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (20_000, 50_000, 100_000, 200_000)
WARM_UP = 2_000
STAGES = ("imports", "register", "sample", "matching", "results", "report")


def simulate(folder: Path, persons: int) -> dict[str, object]:
    """Child: write the files of the demonstration municipality."""
    from evalkit import simulate, study

    simulate.write(folder / "data", simulate.draw(simulate.DEMO, persons, 1))
    (folder / study.FILE_NAME).write_text(study.template("nl"), "utf-8")
    return {}


def line(folder: Path, persons: int) -> dict[str, object]:
    """Child: the whole line; seconds by stage and what passed through."""
    clock = [("imports", time.perf_counter())]
    from evalkit import report
    from evalkit.analyses import matching  # noqa: F401  (what run imports on demand, counted as imports here)
    from evalkit.run import run

    def progress(step: str) -> None:
        name = step.partition(" ")[0]
        clock.append(({"read": "register", "analysis": "matching"}.get(name, name), time.perf_counter()))

    outcome = run(folder / "study.toml", progress)
    clock.append(("report", time.perf_counter()))
    document = dict(outcome.results.document)
    outcome.results.write(folder / "results")
    report.write(document, folder / "results")
    clock.append(("end", time.perf_counter()))
    seconds = dict.fromkeys(STAGES, 0.0)
    for (name, begin), (_, end) in zip(clock[:-1], clock[1:], strict=True):
        seconds[name] += end - begin
    left = [row["entries"] for row in document["flow"] if row["kind"] == "left"]
    return {"seconds": seconds, "starters": left[0], "profiles": len(document["profiles"])}


def estimate(folder: Path, persons: int) -> dict[str, object]:
    """Child: sample and matching from tables in memory, the second time round, when all is compiled."""
    from dataclasses import replace

    from designs import DESIGNS

    from evalkit import simulate
    from evalkit.analyses import matching
    from evalkit.effects import generator
    from evalkit.register import from_frames
    from evalkit.run import bind_all
    from evalkit.sample import from_register

    design = replace(DESIGNS[0], municipality=simulate.DEMO, horizon=36)
    study = design.study()
    tables = simulate.draw(design.municipality, persons, 1)
    (settings,) = bind_all(study)
    for _ in range(2):
        marks = [time.perf_counter()]
        register = from_frames(study, persons=tables.persons, benefits=tables.benefits, episodes=tables.episodes)
        marks.append(time.perf_counter())
        sample = from_register(study, register)
        marks.append(time.perf_counter())
        analysis = matching.run(sample, settings, generator(1, "bench"), "main")
        marks.append(time.perf_counter())
    seconds = {name: b - a for name, a, b in zip(("register", "sample", "matching"), marks, marks[1:], strict=False)}
    arms = [int((sample.entries.arm == arm).sum()) for arm in (1, 0)]
    return {
        "seconds": seconds,
        "starters": arms[0],
        "comparison": arms[1],
        "months": len(sample.months),
        "outcomes": len(analysis.profiles),
    }


TASKS = {"simulate": simulate, "line": line, "estimate": estimate}


def child(task: str, folder: Path, persons: int) -> dict[str, object]:
    """Run a task in a process of its own; what it reports, with wall time and peak memory (MiB) of the process."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder), "--sizes", str(persons)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": time.perf_counter() - began}


def table(sizes: list[int]) -> str:
    """The whole line at every size as a Markdown table."""
    lines = [
        "| persons | starters | " + " | ".join(STAGES) + " | whole line | processor | peak memory (MiB) |",
        "|" + "---:|" * (len(STAGES) + 5),
    ]
    for persons in (WARM_UP, *sizes):
        with tempfile.TemporaryDirectory() as folder:
            child("simulate", Path(folder), persons)
            found = child("line", Path(folder), persons)
        if persons == WARM_UP and persons not in sizes:
            continue
        seconds = found["seconds"]
        lines.append(
            f"| {persons:,} | {found['starters']:,} | "
            + " | ".join(f"{seconds[stage]:.2f}" for stage in STAGES)
            + f" | {found['wall']:.1f} | {found['processor']:.1f} | {found['memory']:,.0f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or be a child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=list(SIZES))
    parser.add_argument("--no-special", action="store_true", help="leave out the 40,000 x 24 x 36 case")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        found = TASKS[chosen.task](chosen.folder, chosen.sizes[0])
        used = resource.getrusage(resource.RUSAGE_SELF)
        found |= {"memory": used.ru_maxrss / 1024, "processor": used.ru_utime + used.ru_stime}  # kilobytes on Linux
        print(json.dumps(found))
        return
    print("Seconds by stage, and of the whole process: by the clock and of the processor. Report in two languages.\n")
    print(table(chosen.sizes))
    if not chosen.no_special:
        found = child("estimate", Path("."), 40_000)
        seconds = found["seconds"]
        print(
            f"\n40,000 persons, {found['months']} start months, horizon 36, {found['outcomes']} outcomes, in memory "
            f"({found['starters']:,} starters, {found['comparison']:,} comparison entries): "
            + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
            + f"; peak {found['memory']:,.0f} MiB."
        )


if __name__ == "__main__":
    main()
