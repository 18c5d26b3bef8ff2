"""How long does the whole line take, and how much memory? ``make bench``.

Each size runs in a process of its own, as a user would run it: CSV files on disk, register, sample, matching, results
with all measures, files, and the report in two languages. The numbers follow ``evalkit.run.run`` through its progress,
so they time the line itself. A first, small run compiles the kernels and is not counted. The last table times the
sample and the estimates alone, from tables in memory: 40,000 persons, 24 start months, 36 months of follow-up. Then
large registers, up to two million persons: reading, sample, patterns and episodes (``--only-large`` for those alone).

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
LARGE = (200_000, 500_000, 1_000_000, 2_000_000)
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


def large(folder: Path, persons: int) -> dict[str, object]:
    """Child: write a large register, see ``scale``."""
    import scale

    return scale.write(folder, persons)


def shapes(folder: Path, persons: int) -> dict[str, object]:
    """Child: register, sample, episodes and patterns of a large register, one after the other in one process."""
    from evalkit import register, study
    from evalkit.sample import from_register
    from evalkit.sample.shapes import Splits, Traits
    from evalkit.sample.shapes import episodes as make_episodes
    from evalkit.sample.shapes import patterns as make_patterns

    protocol = study.read(folder / "study.toml")
    splits = Splits(since_start=(6, 12))
    traits = Traits(columns=["sex", "education", "age"], bands={"age": (27, 45)})
    marks: list[tuple[float, float, float]] = []

    def mark() -> None:
        marks.append((time.perf_counter(), time.process_time(), peak()))

    mark()
    tables = register.read(protocol)
    mark()
    sample = from_register(protocol, tables)
    mark()
    patterns = make_patterns(tables, protocol, splits, traits).collect("pyarrow").to_native()
    mark()
    episodes = make_episodes(tables, protocol, splits, traits).collect("pyarrow").to_native()
    mark()
    names = ("register", "sample", "patterns", "episodes")
    return {
        "seconds": {name: b[0] - a[0] for name, a, b in zip(names, marks, marks[1:], strict=False)},
        "used": marks[3][1] - marks[1][1],
        "peak": marks[3][2],
        "entries": len(sample.entries),
        "episodes": episodes.num_rows,
        "patterns": patterns.select(["pattern"]).group_by("pattern").aggregate([]).num_rows,
    }


TASKS = {"simulate": simulate, "line": line, "estimate": estimate, "large": large, "shapes": shapes}


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


def peak() -> float:
    """Peak memory of this process so far, in MiB; Linux counts kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large_table(sizes: list[int]) -> str:
    """Sample and shapes of large registers as a Markdown table."""
    stages = ("register", "sample", "patterns", "episodes")
    counts = ("person_months", "entries", "episodes", "patterns")
    lines = [
        "| persons | person-months | entries | episodes | patterns | "
        + " | ".join(f"{stage} (s)" for stage in stages)
        + " | sample and patterns (s) | of the processor (s) | peak memory (MiB) | with episodes (MiB) |",
        "|" + "---:|" * (len(counts) + len(stages) + 5),
    ]
    for persons in (WARM_UP, *sizes):
        with tempfile.TemporaryDirectory() as folder:
            drawn = child("large", Path(folder), persons)
            found = drawn | child("shapes", Path(folder), persons)
        if persons == WARM_UP:
            continue
        seconds = found["seconds"]
        both = seconds["sample"] + seconds["patterns"]
        lines.append(
            f"| {persons:,} | "
            + " | ".join(f"{round(found[count]):,}" for count in counts)
            + " | "
            + " | ".join(f"{seconds[stage]:.1f}" for stage in stages)
            + f" | {both:.1f} | {found['used']:.1f} | {found['peak']:,.0f} | {found['memory']:,.0f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or be a child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=list(SIZES))
    parser.add_argument("--no-special", action="store_true", help="leave out the 40,000 x 24 x 36 case")
    parser.add_argument("--large", type=lambda text: [int(part) for part in text.split(",")], default=list(LARGE))
    parser.add_argument("--only-large", action="store_true", help="sample and shapes of large registers alone")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        found = TASKS[chosen.task](chosen.folder, chosen.sizes[0])
        used = resource.getrusage(resource.RUSAGE_SELF)
        found |= {"memory": peak(), "processor": used.ru_utime + used.ru_stime}
        print(json.dumps(found))
        return
    if chosen.only_large:
        print(large_table(chosen.large))
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
    print("\nSample and shapes of large registers, in one process each.\n")
    print(large_table(chosen.large))


if __name__ == "__main__":
    main()
