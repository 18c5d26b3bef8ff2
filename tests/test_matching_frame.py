"""Matching and weighting on a data frame: what the array functions give, reached by column names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from causaldata import cps_mixtape, nsw_mixtape
from scipy.special import expit
from tolerances import REFERENCE

from evalkit.errors import DataError, DesignError, UsageError
from evalkit.matching import match_frame, weight_frame

FOLDER = Path(__file__).parent / "reference"
NAMES = ["age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"]


@pytest.fixture(scope="module")
def experiment() -> pd.DataFrame:
    return nsw_mixtape.load_pandas().data.drop(columns="data_id").astype(float)


@pytest.fixture(scope="module")
def survey(experiment) -> pd.DataFrame:
    others = cps_mixtape.load_pandas().data.drop(columns="data_id").astype(float)
    return pd.concat([experiment[experiment.treat == 1], others], ignore_index=True)


def invented(n: int = 600, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age, sex = rng.normal(40, 10, n), rng.choice(["m", "v"], n)
    joined = rng.random(n) < expit(-1 + 0.03 * (age - 40) + 0.5 * (sex == "v"))
    early = rng.random((n, 2)) < 0.5
    late = rng.random((n, 3)) < (0.3 + 0.2 * early[:, :1] + 0.1 * joined[:, None])
    frame = pd.DataFrame({"id": [f"p{i:04d}" for i in range(n)], "joined": joined, "age": age, "sex": sex})
    frame["team"] = rng.integers(0, 60, n).astype(str)
    for j in range(2):
        frame[f"before{j}"] = early[:, j].astype(float)
    for j in range(3):
        frame[f"work{j}"] = late[:, j].astype(float)
    return frame


CASES = {
    "nn_1to1_norepl": dict(replace=False, caliper=None),
    "nn_1to1_norepl_caliper02": dict(replace=False, caliper=0.2),
    "nn_1to3_repl": dict(ratio=3, caliper=None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_reference_by_column_names(survey, name):
    """Weighted means and g-computation as MatchIt's weights give them, and errors clustered by matched set."""
    theirs = json.loads((FOLDER / "matching_effects.json").read_text())["matchit"][name]["effect"]
    made = match_frame(survey, treatment="treat", numeric=NAMES, unit="sd", tie="walk", **CASES[name])
    for model, key in (("means", "att_weighted_means"), ("gcomputation", "att_gcomputation")):
        profile = made.effect("re78", model=model, unit="dollar")
        assert abs(profile.estimate[0] - theirs[key]) <= REFERENCE * abs(theirs[key])
    if "repl" in name and "norepl" not in name:
        return
    for model, key in (
        ("means", "se_weighted_means_cluster_HC1"),
        ("regression", "se_regression_adjusted_cluster_HC1"),
    ):
        error = made.effect("re78", model=model, errors="pair_cluster", unit="dollar").std_error[0]
        assert abs(error - theirs[key]) <= REFERENCE * theirs[key]


def test_weights_sum_to_those_they_stand_for():
    frame = invented()
    made = match_frame(frame, treatment="joined", numeric=["age"], categorical=["sex"], id="id", ratio=2)
    table = made.weights()
    assert table.id.is_monotonic_increasing
    kept = table[table.treated & (table.weight > 0)]
    assert table[~table.treated].weight.sum() == pytest.approx(len(kept))
    assert table[~table.treated & (table.weight > 0)].scaled.mean() == pytest.approx(1)
    pairs = made.matches()
    assert set(pairs.treated) == set(kept.id)
    assert pairs.groupby("treated").weight.sum().to_numpy() == pytest.approx(1.0)
    once = match_frame(frame, treatment="joined", numeric=["age"], categorical=["sex"], id="id", replace=False)
    assert once.matches().comparison.is_unique
    assert (once.weights().subclass >= 0).sum() == 2 * len(once.matches())


def test_rows_in_another_order_give_the_same():
    frame = invented()
    keys = dict(treatment="joined", numeric=["age"], categorical=["sex"], id="id")
    for adjust, more in (
        (match_frame, {"replace": False}),
        (match_frame, {"how": "full"}),
        (weight_frame, {"how": "cbps"}),
    ):
        one = adjust(frame, **keys, **more).effect(["work0", "work1"])
        two = adjust(frame.sample(frac=1, random_state=1), **keys, **more).effect(["work0", "work1"])
        assert np.array_equal(one.estimate, two.estimate) and np.array_equal(one.std_error, two.std_error)


@pytest.mark.parametrize("how", ["ipw", "entropy", "cbps", "stable", "overlap"])
def test_weighting_on_a_frame(experiment, how):
    made = weight_frame(experiment, treatment="treat", numeric=NAMES, how=how)
    profile = made.effect("re78", unit="dollar")
    assert profile.se_kind == "m_estimation"
    assert profile.estimand.population == ("overlap" if how == "overlap" else "starters")
    assert 1_600 < profile.estimate[0] < 1_850 and 640 < profile.std_error[0] < 700
    if how != "ipw":
        assert made.balance_table().smd_after.abs().max() < 1e-6
    table = made.weights()
    y, w = experiment.re78.to_numpy(), table.weight.to_numpy()
    arm = table.treated.to_numpy()
    plain = np.average(y[arm], weights=w[arm]) - np.average(y[~arm], weights=w[~arm])
    assert made.effect("re78", model="means", unit="dollar").estimate[0] == pytest.approx(plain)


def test_the_change_since_before():
    """Conditional difference-in-differences is the effect on the outcome less its mean before."""
    frame = invented()
    keys = dict(treatment="joined", numeric=["age"], categorical=["sex"], id="id", cluster="team")
    made = match_frame(frame, **keys)
    changed = made.effect(["work0", "work2"], before=["before0", "before1"])
    assert changed.estimand.identification == "conditional_parallel_trends"
    mean = frame[["before0", "before1"]].mean(axis=1)
    own = frame.assign(work0=frame.work0 - mean, work2=frame.work2 - mean)
    plain = match_frame(own, **keys).effect(["work0", "work2"])
    assert np.allclose(changed.estimate, plain.estimate, atol=1e-12)
    assert np.allclose(changed.std_error, plain.std_error, atol=1e-12)
    assert len(changed.uncertainty.ids) == frame.team.nunique()


def test_a_confounder_like_an_observed_one():
    frame = invented(800, 5)
    woman = (frame.sex == "v").astype(float)
    frame = frame.assign(woman=woman)
    made = weight_frame(frame, treatment="joined", numeric=["age"], id="id")
    found = made.simulated_confounder("work0", "woman", draws=20)
    base = made.effect("work0")
    assert found.baseline == pytest.approx(float(base.estimate[0]))
    assert found.selection_effect > 1.2  # women join more often
    assert abs(found.estimate - found.baseline) < 2 * base.std_error[0]


def test_table_one_before_and_after():
    frame = invented()
    made = match_frame(frame, treatment="joined", numeric=["age"], categorical=["sex"], id="id")
    text = made.table_one().text("nl")
    assert "age" in text and "sex" in text and "," in text


def test_what_has_no_pairs_says_so():
    frame = invented()
    made = match_frame(frame, treatment="joined", numeric=["age"], categorical=["sex"], how="cem")
    with pytest.raises(DataError, match="no_pairs"):
        made.matches()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (dict(joined=True), "design.no_controls"),
        (dict(joined=False), "design.no_treated"),
        (dict(age=np.nan), "matching.missing_values"),
        (dict(age=1.0), "design"),
    ],
)
def test_bad_frames(change, code):
    frame = invented().assign(**change)
    for adjust in (match_frame, weight_frame):
        try:
            adjust(frame, treatment="joined", numeric=["age"], categorical=["sex"])
        except (DataError, DesignError) as error:
            assert any(fault.code.startswith(code) for fault in error.faults)
        else:  # a constant covariate tells nothing and is left out of the start model
            assert "age" in change


def test_a_caliper_nobody_meets():
    frame = invented()
    with pytest.raises(DesignError, match="nobody_matched"):
        match_frame(frame, treatment="joined", numeric=["age"], caliper=1e-12, unit="raw_linear")


def test_a_draw_takes_its_own_columns():
    """What is redone in a bootstrap draw looks at the cells of the people drawn."""
    frame = invented()
    made = match_frame(
        frame, treatment="joined", numeric=["age"], categorical=["sex"], exact=["sex"], how="exact", id="id"
    )
    rows = np.random.default_rng(1).integers(0, len(frame), len(frame))
    drawn = made.prepared.take(rows)
    assert np.array_equal(drawn.codes(["sex"])[:, 0], made.prepared.codes(["sex"])[rows, 0])
    assert np.array_equal(drawn.values(["work0"]), made.prepared.values(["work0"])[rows])
    plain, again = (made.effect("work0", model="means", errors=e, draws=100) for e in ("influence", "bootstrap"))
    assert np.array_equal(plain.estimate, again.estimate)
    assert again.std_error[0] == pytest.approx(plain.std_error[0], rel=0.3)  # 100 draws: seven per cent, and rest


@pytest.mark.parametrize("wrong", [{"errors": "bootstap"}, {"model": "mean"}])
def test_words_that_do_not_exist(wrong):
    made = match_frame(invented(), treatment="joined", numeric=["age"])
    with pytest.raises(UsageError, match="choice"):
        made.effect("work0", **wrong)
    with pytest.raises(UsageError, match="choice"):
        match_frame(invented(), treatment="joined", numeric=["age"], unit="sd_lin")
    with pytest.raises(UsageError, match="choice"):
        weight_frame(invented(), treatment="joined", numeric=["age"], how="entropie")


def test_its_printed_form_holds_no_data():
    frame = invented()
    made = match_frame(frame, treatment="joined", numeric=["age"], categorical=["sex"], id="id")
    assert "p0001" not in repr(made) and str(round(frame.age[0], 3)) not in repr(made)


def test_diagnostics_of_a_frame():
    frame = invented()
    keys = dict(treatment="joined", numeric=["age"], categorical=["sex"], id="id")
    made = match_frame(frame, caliper=0.005, replace=False, **keys)
    love = made.love_plot()
    assert list(love.names) and (np.diff(np.abs(love.before)) <= 1e-12).all()
    rows = {(r.variable + (f":{r.level}" if r.level else "")): r for r in made.balance}
    for name, before, after in zip(love.names, love.before, love.after, strict=True):
        assert before == pytest.approx(abs(rows[name].smd_before)) and after == pytest.approx(abs(rows[name].smd_after))
    raw = made.statistics("raw")
    share = list(raw.names).index("sex:v")
    assert raw.smd_before[share] == pytest.approx(
        frame.sex[frame.joined].eq("v").mean() - frame.sex[~frame.joined].eq("v").mean()
    )
    lost = made.dropped()
    assert lost.answered == "att_kept" and lost.treated.kept == len(made.matches())
