"""The command line as a user meets it: exit codes, streams, files; each exit code once from a process of its own."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import process, within

from evalkit import simulate
from evalkit.study import template

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small municipality with a study that has been run once; to be copied, not to be changed."""
    folder = tmp_path_factory.mktemp("demo")
    done = process("demo", folder, "--persons", 3000)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def town(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it that tests may run again."""
    return shutil.copytree(demo, tmp_path_factory.mktemp("town"), dirs_exist_ok=True)


def test_demo_writes_results_and_reports_and_says_where(town: Path) -> None:
    names = {path.name for path in (town / "results").iterdir()}
    assert names == {"results.json", "effects.csv", "summary.csv", "report.nl.html", "report.en.html"}
    again = process("run", town, "--lang", "nl")
    assert again.returncode == 0
    assert str(town / "results" / "report.nl.html") in again.stdout
    assert "procentpunt" in again.stdout and "Schatten" in again.stderr


def test_same_study_same_numbers(town: Path) -> None:
    first = (town / "results" / "effects.csv").read_bytes()
    assert within("run", town, "-q").returncode == 0
    assert (town / "results" / "effects.csv").read_bytes() == first


def test_changes_after_the_first_results_are_kept(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo, tmp_path / "s")
    study, results = tmp_path / "s" / "study.toml", tmp_path / "s" / "results" / "results.json"
    before = study.read_text("utf-8")
    first = json.loads(results.read_text("utf-8"))
    assert first["first_run"] is None
    for ratio in ("2", "4"):
        study.write_text(before.replace("ratio = 3", f"ratio = {ratio}"), "utf-8")
        assert within("run", study, "-q").returncode == 0
        again = json.loads(results.read_text("utf-8"))
        assert again["first_run"]["text"] == before and again["first_run"]["sha256"] == first["study"]["sha256"]


def test_quiet_and_json(town: Path) -> None:
    done = within("run", town, "--quiet", "--json")
    assert done.returncode == 0 and done.stderr == ""
    document = json.loads(done.stdout)
    assert document["results"]["schema"] == 1 and len(document["files"]) == 5


def test_no_colour_codes_anywhere(town: Path) -> None:
    done = within("check", town, NO_COLOR="1")
    assert "\x1b" not in done.stdout + done.stderr


def test_check_shows_the_design_and_no_estimate(town: Path) -> None:
    done = within("check", town)
    assert done.returncode == 0, done.stderr
    assert "Who is in the sample" in done.stdout and "Design gate" in done.stdout
    document = json.loads(within("check", town, "--json", "-q").stdout)
    for profile in document["profiles"]:
        for month in profile["months"]:
            assert month["estimate"] is None and month["std_error"] is None and month["counterfactual"] is None


def test_report_again_is_the_same(town: Path, tmp_path: Path) -> None:
    done = within("report", town / "results", "--out", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "report.nl.html").read_bytes() == (town / "results" / "report.nl.html").read_bytes()


def test_report_without_results(tmp_path: Path) -> None:
    done = process("report", tmp_path)
    assert done.returncode == 2 and "cli.no_results" in done.stderr


def test_init_gives_a_study_that_runs(tmp_path: Path) -> None:
    assert within("init", tmp_path / "mine", "-q").returncode == 0
    assert within("check", tmp_path / "mine", "-q").returncode == 0
    again = within("init", tmp_path / "empty", "--empty")
    assert again.returncode == 0 and [p.name for p in (tmp_path / "empty").iterdir()] == ["study.toml"]


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("mine", "utf-8")
    done = within("init", tmp_path)
    assert done.returncode == 2 and "cli.exists" in done.stderr
    assert (tmp_path / "study.toml").read_text("utf-8") == "mine"


def test_simulate_writes_the_truth(tmp_path: Path) -> None:
    done = within("simulate", tmp_path, "--persons", 600, "--variant", "small", "-q")
    assert done.returncode == 0 and done.stdout.strip().endswith("study.toml")
    assert json.loads((tmp_path / "data" / "truth.json").read_text("utf-8"))


def test_faulty_study_exits_2_with_every_fault(town: Path, tmp_path: Path) -> None:
    bad = town / "bad.toml"
    bad.write_text(
        template("en").replace("horizon = 36", 'horizon = "long"').replace("caliper =", "calliper ="), "utf-8"
    )
    done = within("run", bad)
    assert done.returncode == 2
    assert "bad.toml line" in done.stderr and "caliper" in done.stderr and "horizon" in done.stderr
    as_json = json.loads(within("run", bad, "--json").stdout)
    assert as_json["exit_code"] == 2 and len(as_json["faults"]) >= 1


def test_missing_study_exits_2(tmp_path: Path) -> None:
    assert within("run", tmp_path / "none.toml").returncode == 2


def test_missing_data_exits_3(tmp_path: Path) -> None:
    within("init", tmp_path, "--empty", "-q")
    done = process("run", tmp_path, "--lang", "nl")
    assert done.returncode == 3 and "data." in done.stderr


def test_nobody_treated_exits_4(town: Path) -> None:
    lonely = town / "lonely.toml"
    lonely.write_text(template("en").replace("elapsed = [0, 23]", "elapsed = [200, 201]"), "utf-8")
    done = within("run", lonely, "-q")
    assert done.returncode == 4 and "design.no_starters" in done.stderr


def test_failed_gate_exits_4_and_withholds(town: Path, tmp_path: Path) -> None:
    strict = town / "strict.toml"
    text = template("en")
    assert "[gate]" in text
    strict.write_text(
        text.replace("support_min = 0.80", "support_min = 1.0").replace("width = 0.2", "width = 0.001"), "utf-8"
    )
    done = process("run", strict, "--out", tmp_path, "-q", "--json")
    assert done.returncode == 4
    document = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert {m["status"] for p in document["profiles"] for m in p["months"]} == {"withheld"}
    assert {g["verdict"] for g in document["gates"]} == {"fail"}


def test_internal_errors_tell_no_value(town: Path) -> None:
    broken = "import evalkit.run, evalkit.cli, sys\ndef run(*a, **k): raise RuntimeError('ZZMARKER7')\n"
    broken += f"evalkit.run.run = run\nsys.argv = ['evalkit', 'run', {str(town)!r}]\nevalkit.cli.main()"
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True)
    assert done.returncode == 1 and "ZZMARKER7" not in done.stdout + done.stderr and "RuntimeError" in done.stderr


def test_help_is_quick_and_imports_no_statistics() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
    heavy = ("numpy", "pandas", "statsmodels", "matplotlib", "duckdb")
    code = f"import sys, evalkit.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_results_changed_by_hand_are_stopped(town: Path, tmp_path: Path) -> None:
    document = json.loads((town / "results" / "results.json").read_text("utf-8"))
    document["flow"][0]["persons"] = 3
    (tmp_path / "results.json").write_text(json.dumps(document), "utf-8")
    done = process("report", tmp_path)
    assert done.returncode == 5 and "disclosure.small_count" in done.stderr
    assert not list(tmp_path.glob("*.html"))


def test_bsn_column_is_refused_without_its_values(tmp_path: Path) -> None:
    tables = simulate.draw(simulate.SMALL, 600, 3)
    simulate.write(tmp_path / "data", tables)
    (tmp_path / "study.toml").write_text(template("nl"), "utf-8")
    path = tmp_path / "data" / "personen.csv"
    lines = path.read_text("cp1252").splitlines()
    numbers = [str(n) for n in range(100_000_000, 100_020_000) if _eleven(n)][: len(lines) - 1]
    lines = [lines[0] + ";nummer", *(f"{line};{number}" for line, number in zip(lines[1:], numbers, strict=True))]
    path.write_text("\n".join(lines), "cp1252")
    done = within("check", tmp_path, "--lang", "nl")
    assert done.returncode == 3 and "data.bsn" in done.stderr
    assert not any(number in done.stderr + done.stdout for number in numbers)


def _eleven(number: int) -> bool:
    digits = [int(d) for d in f"{number:09d}"]
    return sum(w * d for w, d in zip((9, 8, 7, 6, 5, 4, 3, 2, -1), digits, strict=True)) % 11 == 0
