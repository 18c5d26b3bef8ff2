"""Fine and Gray against cmprsk and survival, both orders of ties; influence against refitting; plain loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from naive import duration_parametric as naive
from tolerances import EXACT, REFERENCE

from evalkit.duration.cox import cox
from evalkit.duration.episodes import episodes
from evalkit.duration.fine_gray import fine_gray
from evalkit.errors import DataError, DesignError, UsageError

SHARES = json.loads((Path(__file__).parent / "reference" / "duration_fine_gray.json").read_text("utf-8"))
ROWS = {name: np.array(values) for name, values in SHARES["rows"].items()}
X = np.column_stack([ROWS["x1"], ROWS["x2"]]).astype(float)
NAMES = ("x1", "x2")
EVENT = np.array(["", "own", "other"])[ROWS["s"]]


def times(tied):
    return (np.ceil(ROWS["t"] / 3), np.floor(ROWS["e"] / 3)) if tied else (ROWS["t"], ROWS["e"])


SETTINGS = {
    "cmprsk": ((), {"follows": "cmprsk", "errors": "paper"}),
    "survival": ((), {"errors": "known"}),
    "survival_breslow": ((), {"errors": "known", "ties": "breslow"}),
    "survival_strata": (("stratum",), {"errors": "known"}),
    "survival_weights": (("weight",), {"errors": "known", "weighted_curves": False}),
    "survival_cluster": (("cluster",), {"errors": "known"}),
    "survival_entry": (("start",), {"errors": "known"}),
    "survival_everything": (("start", "weight", "stratum", "cluster"), {"errors": "known", "weighted_curves": False}),
}


def rows(tied, parts):
    stop, start = times(tied)
    given = {"start": start, "weight": ROWS["w"], "stratum": ROWS["g"], "cluster": ROWS["k"]}
    return episodes(stop, EVENT, **{name: given[name] for name in parts})


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_both_programs_are_reproduced(name, tied):
    parts, settings = SETTINGS[name]
    reference = SHARES["tied" if tied else "untied"][name]
    fit = fine_gray(rows(tied, parts), X, NAMES, "own", **settings)
    error = np.sqrt(np.diag(reference["var" if name == "cmprsk" else "robust"]))
    assert (np.abs(fit.coefficients - reference["coef"]) <= REFERENCE * error).all()
    assert fit.robust_error == pytest.approx(error, rel=REFERENCE)
    likelihoods = [reference["loglik_null"], reference["loglik"]] if name == "cmprsk" else reference["loglik"]
    assert [fit.log_likelihood_null, fit.log_likelihood] == pytest.approx(likelihoods, rel=1e-8)
    if name != "cmprsk":
        assert fit.std_error == pytest.approx(np.sqrt(np.diag(reference["naive"])), rel=REFERENCE)
    for time, *shares in reference.get("incidence", []):
        assert fit.incidence([time + 1e-9], [[0, 1], [1, 0]])[:, 0] == pytest.approx(shares, rel=REFERENCE)


def test_the_programs_differ_with_ties_only():
    fits = {
        (tied, follows): fine_gray(rows(tied, ()), X, NAMES, "own", follows=follows, ties="breslow").coefficients
        for tied in (False, True)
        for follows in ("survival", "cmprsk")
    }
    assert fits[False, "survival"] == pytest.approx(fits[False, "cmprsk"], abs=1e-10)
    assert np.abs(fits[True, "survival"] - fits[True, "cmprsk"]).max() > 1e-4
    efron = fine_gray(rows(True, ()), X, NAMES, "own").coefficients
    assert np.abs(efron - fits[True, "cmprsk"]).max() > 0.02


@pytest.mark.parametrize("parts", [(), ("weight",), ("start",), ("start", "weight")])
def test_without_covariates_it_is_aalen_johansen_with_ties_and_late_entry(parts):
    made = rows(True, parts)
    nothing = np.zeros((len(made), 0))
    cause = np.where(made.cause == 0, 0, np.where(made.cause == made.causes.index("own") + 1, 1, 2))
    reference = naive.aalen_johansen(made.start, made.stop, cause, made.weight)
    fit = fine_gray(made, nothing, (), "own", ties="breslow")
    assert 1 - np.cumprod(1 - fit.increments) == pytest.approx(reference, rel=EXACT)
    if "start" not in parts:
        other = fine_gray(made, nothing, (), "own", follows="cmprsk")
        assert np.abs(1 - np.cumprod(1 - other.increments) - reference).max() > 1e-5


CASES = {
    "plain": ((), {}),
    "known_order": ((), {"follows": "cmprsk"}),
    "groups": ((), {"censoring": ROWS["g"]}),
    "strata": (("stratum", "weight"), {}),
    "strata_one_curve": (("stratum",), {"censoring": np.zeros(len(X)), "ties": "breslow"}),
    "entry": (("start", "weight", "cluster"), {"censoring": ROWS["g"]}),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_influence_is_the_derivative_in_case_weights(case, tied):
    parts, settings = CASES[case]
    stop, start = times(tied)
    given = {"start": start, "stratum": ROWS["g"], "cluster": ROWS["k"]}
    chosen = {name: given[name] for name in parts if name in given}
    weight = ROWS["w"] if "weight" in parts else np.ones(len(X))
    at, who = [stop.max() / 4, stop.max() / 2], np.array([[0.3, 1.0]])

    def fit(weights):
        return fine_gray(episodes(stop, EVENT, weight=weights, **chosen), X, NAMES, "own", **settings)

    whole = fit(weight)
    centre = weight @ X / weight.sum()
    hazards, rows_of = whole.baseline(at)
    gradient = np.column_stack([np.eye(2), np.outer(hazards, (who - centre)[0])])
    risk = np.exp((who - centre) @ whole.coefficients)[0]
    own = (rows_of.values @ gradient.T) * risk
    for person in (0, 2, 5, 47, 123):
        group = ROWS["k"] == ROWS["k"][person] if "cluster" in parts else np.arange(len(X)) == person
        step = 1e-4 * np.where(group, 1.0, 0.0)
        up, down = fit(weight * (1 + step)), fit(weight * (1 - step))
        place = np.flatnonzero(whole.influence.ids == (ROWS["k"][person] if "cluster" in parts else person))[0]
        numeric = (up.coefficients - down.coefficients) / 2e-4
        assert whole.influence.values[place] == pytest.approx(numeric, rel=2e-5, abs=1e-8)
        hazard = [-np.log1p(-each.incidence(at, who)[0]) for each in (up, down)]
        assert own[place] == pytest.approx((hazard[0] - hazard[1]) / 2e-4, rel=2e-5, abs=1e-8)


def test_errors_of_predicted_shares():
    fit = fine_gray(rows(True, ("stratum",)), X, NAMES, "own")
    at, who = [2.0, 5.0, 8.0], np.array([[0.0, 1.0], [1.5, 0.0]])
    shown = fit.predict(at, who, stratum=1)
    assert shown.values == pytest.approx(fit.incidence(at, who, stratum=1), abs=EXACT)
    hazards, influence = fit.baseline(at, 1)
    for i, row in enumerate(who):
        shift = row - X.mean(axis=0)
        risk = np.exp(shift @ fit.coefficients)
        gradient = np.column_stack([np.eye(3), np.outer(hazards, shift)]) * risk * (1 - shown.values[i])[:, None]
        assert shown.std_error[i] == pytest.approx(np.sqrt(np.diag(influence.linear(gradient).vcov)), rel=1e-9)
    assert (0 < shown.low).all() and (shown.low < shown.values).all()
    assert (shown.values < shown.high).all() and (shown.high < 1).all()
    half = np.log(np.log(1 - shown.high) / np.log(1 - shown.values))
    assert half == pytest.approx(np.log(np.log(1 - shown.values) / np.log(1 - shown.low)), rel=1e-9)
    assert fit.predict([0.0], who).std_error[:, 0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(4))
def test_likelihood_is_that_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    n = 40
    start = np.where(rng.random(n) < 0.3, rng.integers(0, 2, n), 0).astype(float)
    stop, cause = start + rng.integers(1, 8, n), rng.choice([0, 1, 2], n)
    weight, group, stratum = rng.choice([1.0, 2.5], n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    x = rng.normal(size=(n, 2))
    made = episodes(stop, np.array(["", "a", "b"])[cause], start=start, weight=weight, stratum=stratum)
    for ties in ("efron", "breslow"):
        fit = fine_gray(made, x, NAMES, "a", ties=ties, censoring=group)
        for beta, value in ((np.zeros(2), fit.log_likelihood_null), (fit.coefficients, fit.log_likelihood)):
            loops = naive.log_likelihood(
                beta, x.tolist(), start, stop, cause, weight, group, stratum, "survival", ties == "efron"
            )
            assert value == pytest.approx(loops, rel=1e-11)
        for nudge in np.vstack([np.eye(2), -np.eye(2)]) * 1e-3:
            near = naive.log_likelihood(
                fit.coefficients + nudge, x.tolist(), start, stop, cause, weight, group, stratum, "survival",
                ties == "efron",
            )  # fmt: skip
            assert near < fit.log_likelihood


@pytest.mark.parametrize("tied", [False, True])
def test_censoring_in_groups_as_cmprsk_but_for_its_errors(tied):
    """Its coefficients are ours; its errors are a thousandth off the paper's formula taken by group, which is ours."""
    made, reference = rows(tied, ()), SHARES["tied" if tied else "untied"]["cmprsk_groups"]
    fit = fine_gray(made, X, NAMES, "own", follows="cmprsk", errors="paper", censoring=ROWS["g"])
    error = np.sqrt(np.diag(reference["var"]))
    assert (np.abs(fit.coefficients - reference["coef"]) <= REFERENCE * error).all()
    loops = naive.plug_in(X, made.stop, ROWS["s"], ROWS["g"], fit.coefficients)
    assert fit.influence.vcov == pytest.approx(loops, rel=1e-9)
    assert fit.robust_error == pytest.approx(error, rel=2e-3)


def test_paper_and_derivative_meet_in_large_samples():
    made = rows(False, ())
    exact = fine_gray(made, X, NAMES, "own").robust_error
    paper = fine_gray(made, X, NAMES, "own", errors="paper").robust_error
    known = fine_gray(made, X, NAMES, "own", errors="known").robust_error
    assert exact == pytest.approx(paper, rel=5e-3)
    assert np.abs(known / exact - 1).max() > 1e-4


def test_weights_count_as_so_many_people():
    copies = np.where(ROWS["w"] == 2, 2, 1)
    often = np.repeat(np.arange(len(X)), copies)
    stop, start = times(True)
    apart = fine_gray(episodes(stop[often], EVENT[often], start=start[often]), X[often], NAMES, "own", ties="breslow")
    heavy = fine_gray(episodes(stop, EVENT, start=start, weight=copies), X, NAMES, "own", ties="breslow")
    assert heavy.coefficients == pytest.approx(apart.coefficients, abs=1e-10)
    assert heavy.increments == pytest.approx(apart.increments, rel=1e-10)


def test_rows_that_follow_each_other_are_one():
    stop, start = times(False)
    long = np.flatnonzero(stop - start > 4)
    row = np.r_[np.arange(len(X)), long]
    until, begin, event = stop.copy(), start[row], EVENT.copy()
    until[long], event[long], begin[len(X) :] = start[long] + 2, "", start[long] + 2
    made = episodes(np.r_[until, stop[long]], np.r_[event, EVENT[long]], start=begin, person=row)
    cut = fine_gray(made, X[row], NAMES, "own")
    whole = fine_gray(rows(False, ("start",)), X, NAMES, "own")
    assert cut.coefficients.tolist() == whole.coefficients.tolist() and cut.persons == len(X)
    assert cut.influence.values.tolist() == whole.influence.values.tolist()


def test_without_others_it_is_cox():
    rng = np.random.default_rng(1)
    time, x = np.ceil(rng.exponential(4, size=120)), rng.normal(size=(120, 1))
    event = np.where(rng.random(120) < 0.7, "own", "")
    for ties in ("efron", "breslow"):
        alone = fine_gray(episodes(time, event), x, ["x"], "own", ties=ties)
        plain = cox(episodes(time, event == "own"), x, ["x"], ties=ties)
        assert alone.coefficients == pytest.approx(plain.coefficients, rel=1e-9)
        assert alone.robust_error == pytest.approx(plain.robust_error, rel=1e-9)


def code_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    assert all(fault.text(lang) for fault in caught.value.faults for lang in ("en", "nl"))
    return caught.value.faults[0].code


def test_what_cannot_be_answered():
    made = rows(False, ())
    twice = episodes([2.0, 5.0, 3.0], ["", "own", "other"], start=[0.0, 2.0, 0.0], person=[1, 1, 2])
    gap = episodes([2.0, 5.0, 3.0], ["", "own", "other"], start=[0.0, 3.0, 0.0], person=[1, 1, 2])
    one = np.ones((3, 1))
    bad = X.copy()
    bad[3, 0] = np.nan
    nobody = episodes([1.0, 2.0, 5.0, 6.0, 7.0], ["other", "own", "own", "", "own"], start=[0.0, 0.0, 3.0, 3.0, 3.0])
    for kind, code, call in (
        (UsageError, "fine_gray_setting", lambda: fine_gray(made, X, NAMES, "own", follows="stata")),
        (UsageError, "fine_gray_setting", lambda: fine_gray(made, X, NAMES, "own", ties="exact")),
        (UsageError, "fine_gray_setting", lambda: fine_gray(made, X, NAMES, "own", errors="none")),
        (UsageError, "parametric_columns", lambda: fine_gray(made, X, ["x1"], "own")),
        (UsageError, "fine_gray_entry", lambda: fine_gray(rows(False, ("start",)), X, NAMES, "own", follows="cmprsk")),
        (DataError, "fine_gray_changing", lambda: fine_gray(twice, [[0.0], [1.0], [1.0]], ["x"], "own")),
        (DataError, "fine_gray_broken", lambda: fine_gray(gap, one, ["x"], "own")),
        (DataError, "cause_unknown", lambda: fine_gray(made, X, NAMES, "moved")),
        (DataError, "cox_not_finite", lambda: fine_gray(made, bad, NAMES, "own")),
        (DesignError, "fine_gray_few", lambda: fine_gray(twice, np.eye(3)[:, [0, 2]][[0, 0, 1]], NAMES, "own")),
        (DesignError, "fine_gray_nobody", lambda: fine_gray(nobody, np.arange(5.0)[:, None], ["x"], "own")),
        (DesignError, "cox_collinear", lambda: fine_gray(made, np.column_stack([X, X[:, 0]]), ("a", "b", "c"), "own")),
        (DesignError, "cox_monotone", lambda: fine_gray(made, (made.cause == 2)[:, None] + 0.0, ["x"], "own")),
    ):
        assert code_of(kind, call) == f"duration.{code}"
    fit = fine_gray(made, X, NAMES, "own")
    assert code_of(UsageError, lambda: fit.incidence([1], X, stratum=1)) == "duration.fine_gray_stratum"
    assert code_of(UsageError, lambda: fit.incidence([1], [[1.0]])) == "duration.parametric_columns"
