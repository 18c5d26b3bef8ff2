"""The whole line: it recovers the known truth, ignores row order, and never leaves half a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command import within

from evalkit import simulate
from evalkit.analyses import matching
from evalkit.effects import generator
from evalkit.register import from_frames
from evalkit.run import run
from evalkit.sample import from_register
from evalkit.study import template

sys.path.insert(0, str(Path(__file__).parent / "simulation"))
from cover import _task, true_paths  # noqa: E402
from designs import DESIGNS  # noqa: E402


@pytest.mark.slow
def test_truth_is_recovered() -> None:
    """60 replications: no bias beyond Monte Carlo error, coverage within what 60 draws allow."""
    design = DESIGNS[2]
    truths = true_paths(design)
    replications = 60
    draws = [_task((design, truths, 10_000 + i)) for i in range(replications)]
    for name, truth in truths.items():
        estimates = np.array([d[name].estimate for d in draws if d is not None])
        errors = np.array([d[name].std_error for d in draws if d is not None])
        assert len(estimates) == replications
        z = (estimates.mean(axis=0) - truth) / (estimates.std(axis=0, ddof=1) / np.sqrt(replications))
        assert np.abs(z).max() < 4.0, f"{name}: bias of {np.abs(z).max():.1f} Monte Carlo errors"
        covered = (np.abs(estimates - truth) <= 1.96 * errors).mean(axis=0)
        assert 0.90 < covered.mean() < 0.99  # 60 x 24 correlated months
        assert covered.min() > 0.83  # 99.9 % of binomial(60, 0.95) lies above
        ratio = errors.mean(axis=0) / estimates.std(axis=0, ddof=1)
        assert 0.85 < ratio.mean() < 1.2


def test_row_order_changes_nothing_bit_for_bit(tmp_path: Path) -> None:
    tables = simulate.draw(simulate.SMALL, 1500, 5)
    simulate.write(tmp_path / "data", tables)
    (tmp_path / "study.toml").write_text(template("nl"), "utf-8")
    first = run(tmp_path / "study.toml").results.document
    rng = generator(7, "shuffle")
    for path in (tmp_path / "data").glob("*.csv"):
        head, *lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(head + b"".join(lines[i] for i in rng.permutation(len(lines))))
    second = run(tmp_path / "study.toml").results.document
    for part in ("flow", "gates", "profiles", "exhibits", "findings", "checks", "disclosure"):
        assert first[part] == second[part], part
    assert [i["sha256"] for i in first["inputs"]] != [i["sha256"] for i in second["inputs"]]


def test_frames_in_another_order_give_identical_arrays() -> None:
    design = DESIGNS[2]
    study = design.study()
    tables = simulate.draw(design.municipality, 1200, 11)
    rng = generator(3, "shuffle")
    results = []
    for shuffle in (False, True):
        frames = {
            name: getattr(tables, name).iloc[rng.permutation(len(getattr(tables, name)))]
            if shuffle
            else getattr(tables, name)
            for name in ("persons", "benefits", "episodes")
        }
        sample = from_register(study, from_frames(study, **frames))
        results.append(matching.run(sample, matching.Settings(), generator(1, "x"), "main"))
    for one, other in zip(results[0].profiles, results[1].profiles, strict=True):
        assert np.array_equal(one.estimate, other.estimate)
        assert np.array_equal(one.uncertainty.values, other.uncertainty.values)


def test_a_run_killed_half_way_leaves_no_half_written_file(tmp_path: Path) -> None:
    simulate.write(tmp_path / "data", simulate.draw(simulate.SMALL, 800, 5))
    (tmp_path / "study.toml").write_text(template("nl"), "utf-8")
    code = (
        "import evalkit.results, os, time\n"
        "def stop(descriptor): print('writing', flush=True); time.sleep(60)\n"
        "evalkit.results.os.fsync = stop\n"
        f"import sys; sys.argv = ['evalkit', 'run', {str(tmp_path)!r}]\n"
        "from evalkit.cli import main; main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "writing"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    left = [path.name for path in (tmp_path / "results").iterdir() if path.is_file()]
    assert left == []
    assert within("run", tmp_path, "-q").returncode == 0
    assert (tmp_path / "results" / "results.json").is_file()
