"""The real-data example, run as ``make examples`` runs it: what it prints is what the data say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from causaldata import cps_mixtape, nsw_mixtape

from evalkit.run import run

pytestmark = pytest.mark.slow

NSW = Path(__file__).parent.parent / "examples" / "nsw"

# MatchIt 4.7.1 on the same people with the eight covariates of the file, nearest neighbours on a logit with
# replacement: weighted means, regression-adjusted and g-computation, and the largest and smallest of their clustered
# standard errors. It matches on the probability and breaks ties by row; many men have the same age, schooling and no
# earnings, so who among equals is taken moves the answer. Agreement is within a quarter of a standard error.
MATCHIT = {
    "nearest": ((1712.2, 1703.3, 1885.7), (764.7, 787.0)),
    "three": ((1767.0, 1636.4, 1722.6), (661.1, 687.4)),
}


def _script(name="run"):
    spec = importlib.util.spec_from_file_location(f"nsw_{name}", NSW / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The folder of a run, its rows by name, and the script."""
    folder = tmp_path_factory.mktemp("nsw")
    script = _script()
    rows = script.main(folder)
    return folder, {row["name"]: row for row in rows}, script


@pytest.fixture(scope="module")
def men():
    """Treatment and earnings in 1978 of the experiment, as the package has them."""
    frame = nsw_mixtape.load_pandas().data
    return frame["treat"].to_numpy() == 1, frame["re78"].to_numpy(float)


def test_the_experiment_is_the_difference_in_means(example, men):
    row = example[1]["The experiment: difference in means"]
    treated, earnings = men
    arms = earnings[treated], earnings[~treated]
    assert row["estimate"] == pytest.approx(arms[0].mean() - arms[1].mean(), abs=0.005)
    assert round(row["estimate"], 2) == 1794.34
    neyman = np.sqrt(sum(arm.var(ddof=1) / len(arm) for arm in arms))  # what HC2 is without covariates
    assert row["std_error"] == pytest.approx(neyman, abs=0.005)
    assert (row["n_treated"], row["n_comparison"]) == (185, 260)


def test_the_adjusted_experiment_is_least_squares_by_hand(example):
    """Interacted regression with HC2 errors, worked out from the normal equations."""
    frame = example[2].frames()["experiment.csv"]
    columns = ["age", "educ", "re74", "re75", "black", "hisp", "marr", "nodegree", "u74", "u75"]
    x = frame[columns].to_numpy(float)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    d = frame["treat"].to_numpy(float)[:, None]
    z = np.column_stack([np.ones(len(d)), d, x, x * d])
    y = frame["re78"].to_numpy()
    inverse = np.linalg.inv(z.T @ z)
    beta = inverse @ z.T @ y
    leverage = np.einsum("ij,jk,ik->i", z, inverse, z)
    meat = (z * ((y - z @ beta) ** 2 / (1 - leverage))[:, None]).T @ z
    row = example[1]["The experiment: adjusted for covariates"]
    assert row["estimate"] == pytest.approx(beta[1], abs=0.005)
    assert row["std_error"] == pytest.approx(np.sqrt((inverse @ meat @ inverse)[1, 1]), abs=0.005)


def test_the_survey_as_it_stands_is_far_off(example, men):
    row = example[1]["Survey, not matched: difference in means"]
    treated, earnings = men
    others = cps_mixtape.load_pandas().data["re78"].to_numpy(float)
    assert row["estimate"] == pytest.approx(earnings[treated].mean() - others.mean(), abs=0.005)
    assert row["estimate"] < -8000


@pytest.mark.parametrize("name", ["nearest neighbour", "three nearest neighbours"])
def test_matching_comes_back_to_the_experiment(example, name):
    """Within one standard error of the lottery's answer, and shown: the gate lets the comparison pass."""
    row = example[1][f"Survey, matched: {name}"]
    assert row["verdict"] in ("pass", "warn")
    assert row["status"] == "ok"
    assert abs(row["estimate"] - 1794.34) < row["std_error"]
    assert 600 < row["std_error"] < 950
    assert row["n_treated"] == 185


@pytest.fixture(scope="module")
def eight(example):
    """``matched.toml`` with the eight covariates of the reference run, and a way to give a reason to show it."""

    def run_with(reason):
        text = (NSW / "matched.toml").read_text("utf-8").replace(', "u74", "u75"]', "]")
        text = text.replace("support_min = 0.80", f'support_min = 0.80\nshow_anyway = "{reason}"')
        study = example[0] / "eight.toml"
        study.write_text(text, "utf-8")
        return run(study)

    return run_with


def test_the_gate_withholds_a_worse_comparison(eight):
    """Without the indicators of having no earnings the matched men are years younger: not shown, whatever comes out."""
    outcome = eight("")
    assert not outcome.primary_shown
    months = [profile["months"][0] for profile in outcome.results.document["profiles"]]
    assert all(month["status"] == "withheld" and month["estimate"] is None for month in months)


def test_matching_agrees_with_another_program(eight):
    for profile in eight("To compare with another program.").results.document["profiles"]:
        month = profile["months"][0]
        estimates, errors = MATCHIT[profile["labels"]["analysis"]]
        slack = min(errors) / 4
        assert min(estimates) - slack < month["estimate"] < max(estimates) + slack
        assert 0.9 * min(errors) < month["std_error"] < 1.1 * max(errors)


def test_balance_is_repaired(example):
    """Every covariate comes within a quarter of a standard deviation, from up to almost four."""
    document = json.loads((example[0] / "results" / "matched" / "results.json").read_text("utf-8"))
    tables = [e for e in document["exhibits"] if e["type"] == "table" and e["id"] == "balance"]
    assert len(tables) == 2
    for table in tables:
        before = [abs(row["smd_before"]) for row in table["rows"]]
        after = [abs(row["smd_after"]) for row in table["rows"]]
        assert max(before) == pytest.approx(3.76, abs=0.01)  # MatchIt: -3.764 for re75
        assert max(after) < 0.25


def test_files_are_there(example):
    folder = example[0]
    for study in ("experiment", "matched"):
        written = {path.name for path in (folder / "results" / study).iterdir()}
        assert written == {"results.json", "effects.csv", "summary.csv", "report.en.html", "report.nl.html"}
    page = (folder / "results" / "experiment" / "report.en.html").read_text("utf-8")
    assert "1,794" in page
    data = (folder / "data" / "observational.csv").read_text("cp1252").splitlines()
    assert len(data) == 1 + 185 + 15_992
    assert data[1].startswith("nsw00000;1;") and data[1].endswith(";9930,0459;1;1")


def test_the_printed_table(example):
    script = example[2]
    text = script.table(list(example[1].values()))
    assert len(text.splitlines()) == 6
    assert "1,794    671" in text and "-8,498" in text
    withheld = script.table([{"name": "x", "estimate": None, "verdict": "fail"}])
    assert "withheld" in withheld


def test_the_page_tells_the_numbers_of_the_experiment():
    """The documentation holds what the data say."""
    page = (NSW.parent.parent / "docs" / "examples.md").read_text("utf-8")
    for number in ("1,794", "671", "1,583", "678", "8,498"):
        assert number in page


def test_dehejia_and_wahba():
    """Table 3 of the paper (page 1060): what comes out to the dollar, and what does not, as docs/examples.md says."""
    lines = {what: (paper, ours) for what, paper, ours in _script("dehejia_wahba").rows()}
    for what in (
        "Experiment, difference in means",
        "Experiment, regression",
        "Survey, difference in means",
        "The same, regression on the matched men",
    ):
        assert lines[what][0] == lines[what][1], what
    paper, ours = lines["Survey, matched on the score; of equals the first in the file"]
    assert paper.split(",")[:2] == ours.split(",")[:2] == ["1", "582"]
    assert lines["Survey, matched on the score; of equals by keyed hash"][1] == "1,570, 119 men"
    assert lines["Survey, regression"] == ("972 (550)", "739 (547)")
    assert lines["Regression on the score and its square there"] == ("1,117 (747)", "1,109 (747)")
