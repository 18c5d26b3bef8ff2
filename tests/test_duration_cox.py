"""Cox regression against R's survival, plain loops, and leave-one-out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines.datasets import load_rossi, load_stanford_heart_transplants
from tolerances import REFERENCE, SOLVED

from evalkit.duration.cox import cause_specific, cox, shared_frailty
from evalkit.duration.episodes import episodes
from evalkit.errors import DataError, DesignError, UsageError

FACTS = json.loads((Path(__file__).parent / "reference" / "duration_regression.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def rossi():
    return load_rossi()


def agree(fit, reference):
    """Coefficients, errors, likelihoods and tests of a fit are those of the reference."""
    names, error = list(reference["coef"]), np.array(list(reference["se"].values()))
    assert list(fit.names) == names
    assert (np.abs(fit.coefficients - list(reference["coef"].values())) <= REFERENCE * error).all()
    if "robust_se" not in reference:
        assert fit.std_error == pytest.approx(error, rel=REFERENCE)
    assert fit.log_likelihood == pytest.approx(reference["loglik"], rel=1e-8)
    assert fit.log_likelihood_null == pytest.approx(reference["loglik_null"], rel=1e-8)
    if "score" in reference:
        assert fit.score_test == pytest.approx(reference["score"], rel=REFERENCE)
    if "robust_se" in reference:
        robust = reference["robust_se"]
        values = list(robust.values()) if isinstance(robust, dict) else robust
        assert fit.robust_error == pytest.approx(values, rel=REFERENCE)


def numbers(frame, names):
    return frame[list(names)].to_numpy(float)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_rossi(rossi, ties):
    reference = FACTS["rossi"][f"cox_{ties}"]
    names = list(reference["coef"])
    agree(cox(episodes(rossi.week, rossi.arrest), numbers(rossi, names), names, ties=ties), reference)


@pytest.mark.parametrize(
    ("case", "given"),
    [
        ("cox_robust", {}),
        ("cox_strata_wexp", {"stratum": "wexp"}),
        ("cox_cluster_age", {"cluster": "age"}),
        ("cox_weights_robust", {"weight": "weight"}),
    ],
)
def test_strata_clusters_weights(rossi, case, given):
    reference = FACTS["rossi"][case]
    frame = rossi.assign(weight=1 + np.arange(1, len(rossi) + 1) % 3 / 2)
    made = episodes(frame.week, frame.arrest, **{name: frame[column] for name, column in given.items()})
    agree(cox(made, numbers(frame, reference["coef"]), list(reference["coef"])), reference)


@pytest.fixture(scope="module")
def counted(rossi):
    """Rossi cut at weeks 10, 20, 30, 40, with help that works differently after week 20."""
    rows = []
    for person, row in enumerate(rossi.itertuples()):
        edges = [0, *(cut for cut in (10, 20, 30, 40) if cut < row.week), row.week]
        for start, stop in zip(edges, edges[1:], strict=False):
            rows.append((person, start, stop, int(stop == row.week and row.arrest), row.fin, row.fin * (start >= 20),
                         row.age, row.prio))  # fmt: skip
    return pd.DataFrame(rows, columns=["person", "start", "stop", "event", "fin", "finlate", "age", "prio"])


def test_start_stop_rows(counted):
    names = list(FACTS["rossi"]["cox_counting_cluster"]["coef"])
    made = episodes(counted.stop, counted.event, start=counted.start, person=counted.person)
    fit = cox(made, numbers(counted, names), names)
    agree(fit, FACTS["rossi"]["cox_counting_fin_by_period"])
    agree(fit, FACTS["rossi"]["cox_counting_cluster"])


@pytest.mark.parametrize("case", ["cox", "cox_breslow", "cox_cluster"])
def test_heart_transplants(case):
    heart = load_stanford_heart_transplants().rename(columns={"transplant": "tr"})
    reference = FACTS["heart"][case]
    names = list(reference["coef"])
    made = episodes(heart.stop, heart.event, start=heart.start, person=heart.id)
    agree(cox(made, numbers(heart, names), names, ties="breslow" if "breslow" in case else "efron"), reference)


@pytest.mark.parametrize("transform", ["km", "identity", "log", "rank"])
def test_proportionality_is_that_of_survival(rossi, transform):
    reference = FACTS["rossi"][f"zph_{transform}"]
    names = list(FACTS["rossi"]["cox_efron"]["coef"])
    found = cox(episodes(rossi.week, rossi.arrest), numbers(rossi, names), names).proportionality(transform)
    assert found.statistic == pytest.approx([reference[name]["chisq"] for name in names], rel=REFERENCE)
    assert found.p_value == pytest.approx([reference[name]["p"] for name in names], rel=1e-5)
    assert found.overall == pytest.approx(reference["GLOBAL"]["chisq"], rel=REFERENCE)


def test_proportionality_with_changing_covariates():
    heart = load_stanford_heart_transplants().rename(columns={"transplant": "tr"})
    reference = FACTS["heart"]["zph"]
    names = [name for name in reference if name != "GLOBAL"]
    found = cox(episodes(heart.stop, heart.event, start=heart.start), numbers(heart, names), names).proportionality()
    assert found.statistic == pytest.approx([reference[name]["chisq"] for name in names], rel=REFERENCE)


def test_baseline_and_prediction(rossi):
    names = list(FACTS["rossi"]["cox_efron"]["coef"])
    fit = cox(episodes(rossi.week, rossi.arrest), numbers(rossi, names), names)
    base = FACTS["rossi"]["basehaz_uncentered"]
    increments, influence = fit.baseline(base["time"])
    assert np.cumsum(increments) == pytest.approx(base["hazard"], rel=REFERENCE)
    shown = FACTS["rossi"]["cox_survfit_newdata"]
    grid = np.array(shown["times"], float)
    increments, influence = fit.baseline(grid)
    x = np.array([[row[name] for name in names] for row in shown["newdata"]], float)
    for number, row in enumerate(x):
        hazard = np.cumsum(increments) * np.exp(row @ fit.coefficients)
        assert np.exp(-hazard) == pytest.approx(np.array(shown["surv"])[:, number], rel=REFERENCE)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_influence_of_baseline_and_coefficients_is_the_derivative_in_weights(rossi, ties):
    """Infinitesimal jackknife: a little more weight on one person, fitted again."""
    frame = rossi.iloc[:120]
    names, grid = ["fin", "age", "prio"], [10.0, 20.0, 35.0, 52.0]
    x = numbers(frame, names)

    def both(weight):
        fit = cox(episodes(frame.week, frame.arrest, weight=weight), x, names, ties=ties)
        increments, influence = fit.baseline(grid)
        return np.concatenate([increments, fit.coefficients]), influence.values

    _, influence = both(np.ones(len(frame)))
    for person in (0, 7, 40, 77, 101):
        step = 1e-4 * (np.arange(len(frame)) == person)
        numeric = (both(1 + step)[0] - both(1 - step)[0]) / 2e-4
        assert influence[person] == pytest.approx(numeric, rel=2e-5, abs=1e-8)


def test_residuals(counted):
    names = ["fin", "finlate", "age", "prio"]
    made = episodes(counted.stop, counted.event, start=counted.start, person=counted.person)
    fit = cox(made, numbers(counted, names), names)
    assert fit.martingale.sum() == pytest.approx(0.0, abs=1e-9)
    assert fit.score_residuals.sum(axis=0) == pytest.approx(np.zeros(4), abs=1e-8)
    times, left = fit.schoenfeld
    assert left.sum(axis=0) == pytest.approx(np.zeros(4), abs=1e-8) and len(times) == counted.event.sum()
    by_person = np.zeros((counted.person.max() + 1, 4))
    np.add.at(by_person, counted.person.to_numpy(), fit.dfbeta)
    assert by_person.T @ by_person == pytest.approx(fit.influence.vcov, rel=SOLVED)


def test_strata_and_delayed_entry_against_plain_loops():
    rng = np.random.default_rng(8)
    n = 60
    start, x = rng.integers(0, 4, n).astype(float), rng.normal(size=(n, 2))
    stop, event = start + rng.integers(1, 6, n), rng.random(n) < 0.6
    weight, stratum = rng.uniform(0.5, 2, n), rng.integers(0, 2, n)
    made = episodes(stop, event, start=start, weight=weight, stratum=stratum)
    fit = cox(made, x, ["a", "b"], ties="breslow")

    def value(beta):
        total = 0.0
        for i in np.flatnonzero(event):
            at = (stratum == stratum[i]) & (start < stop[i]) & (stop >= stop[i])
            total += weight[i] * (x[i] @ beta - np.log((weight[at] * np.exp(x[at] @ beta)).sum()))
        return total

    assert fit.log_likelihood == pytest.approx(value(fit.coefficients), rel=1e-12)
    for j in range(2):
        step = 1e-5 * (np.arange(2) == j)
        assert (value(fit.coefficients + step) - value(fit.coefficients - step)) / 2e-5 == pytest.approx(0, abs=1e-6)


def test_causes_share_their_clusters(rossi):
    event = np.where(rossi.arrest == 1, np.where(rossi.prio > 2, "many", "few"), "")
    fits = cause_specific(episodes(rossi.week, event), numbers(rossi, ["fin", "age"]), ["fin", "age"])
    assert set(fits) == {"few", "many"}
    assert (fits["few"].influence.ids == fits["many"].influence.ids).all()
    alone = cox(episodes(rossi.week, event == "few"), numbers(rossi, ["fin", "age"]), ["fin", "age"])
    assert fits["few"].coefficients == pytest.approx(alone.coefficients, rel=1e-12)


def test_shared_frailty_is_that_of_survival_run_to_its_end(rossi):
    reference = FACTS["frailty"]
    names = list(FACTS["rossi"]["cox_efron"]["coef"])
    found = shared_frailty(episodes(rossi.week, rossi.arrest), numbers(rossi, names), names, rossi.age)
    assert found.theta == pytest.approx(reference["theta"], rel=1e-5)
    assert found.coefficients == pytest.approx(reference["coef"], rel=1e-5)
    assert found.log_likelihood == pytest.approx(reference["loglik"], rel=1e-9)
    assert 0 < found.p_value < 0.5


def test_no_frailty_where_there_is_none(rossi):
    group = np.random.default_rng(3).integers(0, 150, len(rossi))
    made, names = episodes(rossi.week, rossi.arrest), ["fin", "age"]
    found = shared_frailty(made, numbers(rossi, names), names, group)
    assert found.statistic < 2.7 and found.p_value > 0.05


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_a_rare_column_with_which_nobody_leaves_has_no_coefficient(ties):
    """The likelihood rises for ever, by less and less: steps that stop gaining are no maximum."""
    rng = np.random.default_rng(4)
    rare = (np.arange(200) < 8).astype(float)
    event = (rng.random(200) < 0.6) & (rare == 0)
    made = episodes(rng.exponential(size=200), event)
    with pytest.raises(DesignError) as caught:
        cox(made, np.column_stack([rng.normal(size=200), rare]), ["x", "rare"], ties=ties)
    assert [f.params["column"] for f in caught.value.faults] == ["rare"]
    assert caught.value.faults[0].code == "duration.cox_monotone"
    few = np.where(np.arange(200) < 4, event | True, event)  # some with it leave: there is a maximum, far out or not
    fit = cox(episodes(made.stop, few), np.column_stack([rng.normal(size=200), rare]), ["x", "rare"], ties=ties)
    assert np.isfinite(fit.std_error).all() and fit.std_error.max() < 2


def test_what_cannot_be_fitted(rossi):
    made, x = episodes(rossi.week, rossi.arrest), numbers(rossi, ["fin", "age"])
    with pytest.raises(DesignError) as caught:
        cox(made, np.column_stack([x, x.sum(axis=1)]), ["fin", "age", "both"])
    assert [f.params["column"] for f in caught.value.faults] == ["both"]
    with pytest.raises(DesignError) as caught:
        cox(made, np.column_stack([x, np.ones(len(x))]), ["fin", "age", "one"])
    assert caught.value.faults[0].code == "duration.cox_collinear"
    with pytest.raises(DesignError) as caught:
        cox(made, np.column_stack([x, -rossi.week]), ["fin", "age", "tells"])
    assert caught.value.faults[0].params["column"] == "tells"
    with pytest.raises(DataError) as caught:
        cox(made, np.where(x == 1, np.nan, x), ["fin", "age"])
    assert caught.value.faults[0].code == "duration.cox_not_finite"
    with pytest.raises(UsageError):
        cox(made, x, ["fin", "age"], ties="exact")
    for bad, code in (
        ({"stop": [2.0, 0.0], "event": [1, 0]}, "duration.zero_length"),
        ({"stop": [2.0, 5.0], "event": [0, 0]}, "duration.no_events"),
        ({"stop": [2.0, 5.0], "event": [1, 1], "person": [1, 1], "start": [0.0, 1.0]}, "duration.overlap"),
        ({"stop": [2.0, 5.0], "event": [1, 0], "person": [1, 1], "start": [0.0, 2.0]}, "duration.after_event"),
        ({"stop": [2.0, 5.0], "event": [1, 0], "last": 4.0}, "duration.after_close"),
        ({"stop": [2.0, np.nan], "event": [1, 0]}, "duration.not_a_number"),
        ({"stop": [2.0, 1.0], "event": [1, 0], "weight": [0.0, 1.0]}, "duration.weight"),
    ):
        with pytest.raises(DataError) as caught:
            episodes(**bad)
        assert code in [fault.code for fault in caught.value.faults]
