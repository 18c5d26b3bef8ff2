"""Matching, weighting and pairwise comparison from the study file: each way, its population, exhibits and doubts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sample_example import cut, protocol

from evalkit import simulate
from evalkit.analyses import method as module_of
from evalkit.analyses.adjusted import focal
from evalkit.analyses.adjusting import columns_of, fit_start, regressors
from evalkit.analyses.matching import Settings, matched
from evalkit.effects import generator
from evalkit.errors import StudyError
from evalkit.matching import estimate, weigh
from evalkit.run import bind_all
from evalkit.study import parse

TOWN = replace(simulate.SMALL, entry_days="any", start_rate=0.05)
KEYS = dict(
    first="2018-01-01",
    last="2021-12-31",
    eligibility="age = [18, 64]",
    covariates='numeric = ["age", "distance"]\ncategorical = ["sex"]',
)


@pytest.fixture(scope="module")
def town():
    tables = simulate.draw(TOWN, 900, 4)
    rng = np.random.default_rng(2)
    people = tables.persons.assign(team=rng.integers(0, 40, len(tables.persons)).astype(str))
    worked = people.person.sample(frac=0.6, random_state=1)
    jobs = pd.DataFrame({"person": worked, "start": pd.Timestamp("2018-01-01")})
    jobs["end"] = jobs.start + pd.to_timedelta(rng.integers(200, 1400, len(jobs)), "D")
    return {"persons": people, "benefits": tables.benefits, "episodes": tables.episodes, "jobs": jobs}


def run(town, method="matching", only=None, **keys):
    """The sample and the analysis, of one outcome ``only`` where each takes long."""
    made = protocol(**(KEYS | {"method": method, "jobs": True} | keys))
    if only is not None:
        made = made.model_copy(update={"outcomes": tuple(o for o in made.outcomes if o.name == only)})
    sample = cut(made, town)
    (settings,) = bind_all(made)
    return sample, module_of(method).run(sample, settings, generator(1, "main"), "main")


def whole(analysis):
    return {p.labels["outcome"]: p for p in analysis.profiles if not p.labels.get("subgroup")}


def exhibit(analysis, name):
    found = [e for e in analysis.exhibits if getattr(e, "id", "") == name]
    assert found, name
    return found[0]


def notes(analysis):
    return {e.key for e in analysis.exhibits if type(e).__name__ == "Note"}


WAYS = {
    "nearest once": ('replace = false\nestimand = "att"', "starters"),
    "others": ('estimand = "atc"', "comparison"),
    "everyone": ('estimand = "ate"', "eligible"),
    "mahalanobis": ('distance = "mahalanobis"\ncaliper = { width = 100, unit = "raw" }', "starters"),
    "optimal": ('how = "optimal"\nexact = ["elapsed"]', "starters"),
    "full": ('how = "full"\nexact = ["elapsed"]', "starters"),
    "exact": ('how = "exact"', "starters"),
    "coarsened": ('how = "cem"\ncutpoints = { age = 3, distance = [0.5, 1.0, 1.5] }', "starters"),
    "subclass": ('how = "subclass"\nexact = []\nsubclasses = 5\nestimand = "ate"', "eligible"),
    "kernel": ('how = "kernel"', "starters"),
    "radius": ('how = "radius"', "starters"),
    "ridge": ('how = "ridge"\nexact = []', "starters"),
    "limits": ('calipers = { age = 10 }\ncaliper = { width = 0.5, unit = "sd_linear" }', "starters"),
    "variable": ("replace = false\nratio = 2\nmax_ratio = 4", "starters"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_matching(town, way):
    settings, population = WAYS[way]
    sample, analysis = run(town, settings=settings)
    profiles = whole(analysis)
    assert set(profiles) == {"left_to_work", "left", "on_benefit", "in_work"}
    for profile in profiles.values():
        assert profile.estimand.population == population
        assert np.isfinite(profile.estimate).all() and (profile.std_error > 0).all()
        assert (np.abs(profile.estimate) < 0.6).all()
    assert {"balance", "love", "overlap", "matching", "risk_sets"} <= {getattr(e, "id", "") for e in analysis.exhibits}
    starters = int((sample.entries.arm == 1).sum())
    counts = {row["what"]: row["value"] for row in exhibit(analysis, "matching").rows}
    assert counts["what.starters"] == starters
    assert 0 < counts["what.starters_matched"] <= starters
    after = [abs(row["smd_after"]) for row in exhibit(analysis, "balance").rows if row["variable"] == "distance"]
    before = [abs(row["smd_before"]) for row in exhibit(analysis, "balance").rows if row["variable"] == "distance"]
    assert after[0] < before[0]


WEIGHTS = {
    "ipw": ("", "starters", "outcome_aipw"),
    "means": ('outcome_model = "means"', "starters", "outcome_means"),
    "everyone": ('estimand = "ate"', "eligible", "outcome_aipw"),
    "overlap": ('estimand = "ato"', "overlap", "outcome_means"),
    "entropy": ('how = "entropy"', "starters", "outcome_means"),
    "cbps": ('how = "cbps"', "starters", "outcome_means"),
    "stable": ('how = "stable"\ntolerance = 0.05', "starters", "outcome_means"),
    "trimmed": ('trim = [0.02, 0.2]\nestimand = "ate"', "eligible", "outcome_aipw"),
    "capped": ("cap_quantile = 0.99", "starters", "outcome_aipw"),
    "regression": ('outcome_model = "gcomputation"', "starters", "outcome_gcomputation"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WEIGHTS)
def test_every_way_of_weighting(town, way):
    settings, population, note = WEIGHTS[way]
    _, analysis = run(town, "weighting", settings=settings)
    for profile in whole(analysis).values():
        assert profile.estimand.population == population
        assert profile.se_kind == "m_estimation, clustered on person"
        assert np.isfinite(profile.estimate).all() and (profile.std_error > 0).all()
    assert note in notes(analysis)
    assert any(p.estimand.restriction == "trimming" for p in analysis.profiles) == (way == "trimmed")
    if way in ("entropy", "cbps"):
        assert max(abs(row["smd_after"]) for row in exhibit(analysis, "balance").rows) < 1e-6


def test_weighting_is_its_parts(town):
    """What the analysis reports is weigh and estimate on the design of the sample, clustered by person."""
    sample, analysis = run(town, "weighting", settings='how = "entropy"\noutcome_model = "means"')
    fitted = fit_start(sample, ())
    x, names = columns_of(fitted)
    weights = weigh(fitted.treated, x, how="entropy", names=names)
    y, observed = sample.outcome("in_work", fitted.entries)
    person = fitted.entries.person.astype(np.int64)
    rows = np.arange(len(person))
    mine = estimate(
        weights,
        y,
        observed,
        regressors(sample, fitted, rows, score=False),
        model="means",
        person=person,
        level="person",
    )
    profile = whole(analysis)["in_work"]
    assert np.allclose(profile.estimate, mine.estimate, atol=1e-12)
    assert np.allclose(profile.std_error, np.sqrt(np.diag(mine.uncertainty.vcov)), atol=1e-12)
    treated = y[fitted.treated].mean(axis=0)
    others = weights.weight[~fitted.treated] @ y[~fitted.treated] / weights.weight[~fitted.treated].sum()
    assert np.allclose(profile.estimate, treated - others, atol=1e-12)


@pytest.mark.parametrize("method", ["matching", "weighting"])
def test_the_order_of_rows_changes_nothing(town, method):
    settings = "replace = false" if method == "matching" else 'how = "cbps"'
    first = run(town, method, settings=settings)[1]
    rng = np.random.default_rng(5)
    shuffled = {name: table.iloc[rng.permutation(len(table))] for name, table in town.items()}
    second = run(shuffled, method, settings=settings)[1]
    for one, two in zip(first.profiles, second.profiles, strict=True):
        assert one.id == two.id
        assert np.array_equal(one.estimate, two.estimate)
        assert np.array_equal(one.std_error, two.std_error)


def changes(town, settings, **keys):
    """A run whose primary outcome is a state."""
    made = protocol(**(KEYS | {"jobs": True, "settings": settings} | keys))
    text = made.text.replace('source = "exit:work"\nprimary = true', 'source = "exit:work"')
    text = text.replace('source = "state:work"\n', 'source = "state:work"\nprimary = true\n')
    study_ = parse(text, Path("study.toml"))
    sample = cut(study_, town)
    return sample, module_of("matching").run(sample, bind_all(study_)[0], generator(1, "main"), "main")


def test_changes_since_before(town):
    """Conditional difference-in-differences: only what exists before time zero, and less its own mean there."""
    sample, analysis = changes(town, "before = 6")
    profiles = whole(analysis)
    assert set(profiles) == {"on_benefit", "in_work"}
    assert {p.estimand.identification for p in profiles.values()} == {"conditional_parallel_trends"}
    assert "no_history_left_out" in notes(analysis)
    _, level = run(town)
    before, seen = sample.before("in_work", sample.entries, 6)
    assert seen.any() and before[seen].mean() > 0.1  # there is something to subtract
    gap = np.abs(profiles["in_work"].estimate - whole(level)["in_work"].estimate)
    assert gap.max() > 1e-3


def test_the_level_beside_a_change(town):
    """The counterfactual of a change is shown as a level: starters' mean before plus the change of the comparison."""
    sample, analysis = changes(town, "before = 2", eligibility="elapsed = [3, 23]")
    changed = whole(analysis)["in_work"]
    fitted = fit_start(sample, sample.time_names)
    matching = matched(sample, Settings(), fitted)
    starters = np.flatnonzero(matching.population > 0)
    y, _ = sample.outcome("in_work", fitted.entries.take(starters))
    _, seen = sample.before("in_work", fitted.entries.take(starters), 2)
    assert seen.all()  # so far into a spell the months before lie within the window
    assert np.allclose(changed.counterfactual + changed.estimate, y.mean(axis=0), atol=1e-12)


def test_weights_within_a_subgroup_that_is_a_covariate(town):
    subgroups = '[[subgroup]]\nname = "sex"\n'
    for settings in ('how = "entropy"', 'how = "ipw"'):
        _, analysis = run(town, "weighting", settings=settings, subgroups=subgroups)
        groups = {p.labels["subgroup"] for p in analysis.profiles if p.labels.get("subgroup")}
        assert len(groups) == 2 and not notes(analysis) & {"subgroup_empty", "subgroup_fails"}
    near = 'distance = "mahalanobis"\ncaliper = { width = 100, unit = "raw" }'
    _, analysis = run(town, settings=near, subgroups=subgroups)
    assert len({p.labels["subgroup"] for p in analysis.profiles if p.labels.get("subgroup")}) == 2


def test_placebo_months(town):
    _, analysis = run(town, settings="placebo = { months = 4, margin = 0.5 }\nratio = 3")
    chart = exhibit(analysis, "placebo_in_work")
    assert chart.x == (-4, -3, -2, -1)
    assert all(
        low < y < high
        for y, low, high in zip(*(getattr(chart.series[0], k) for k in ("y", "low", "high")), strict=True)
    )
    verdict = {f.scope: f.verdict for f in analysis.findings if f.code == "placebo"}
    assert verdict["in_work"] == "pass"
    _, strict = run(town, settings="placebo = { months = 4, margin = 0.0001 }\nratio = 3")
    assert {f.verdict for f in strict.findings if f.code == "placebo" and f.scope == "in_work"} == {"fail"}


def test_a_negative_control_gives_a_finding_and_no_profile(town):
    extra = '[[outcome]]\nname = "control"\nkind = "state"\nsource = "state:work"\nrole = "negative_control"\n'
    _, analysis = run(town, outcomes=extra)
    assert "control" not in whole(analysis)
    (found,) = [f for f in analysis.findings if f.code == "negative_control"]
    same = whole(analysis)["in_work"]
    assert found.value == pytest.approx(float(same.estimate[-1]), abs=1e-12)
    assert found.verdict == ("pass" if found.params["low"] <= 0 <= found.params["high"] else "warn")


@pytest.mark.slow
def test_doubts(town):
    settings = 'replace = false\nsensitivity = ["e_value", "robustness", "rosenbaum", "simulated_confounder"]'
    _, analysis = run(town, settings=settings)
    lead = whole(analysis)["left_to_work"]
    row = exhibit(analysis, "e_value").rows[-1]
    without, effect = float(lead.counterfactual[-1]), float(lead.estimate[-1])
    ratio = (without + effect) / without
    high = max(ratio, 1 / ratio)
    assert row["month"] == 12 and row["ratio"] == pytest.approx(ratio)
    assert row["e_value"] == pytest.approx(high + np.sqrt(high * (high - 1)))
    bounds = exhibit(analysis, "rosenbaum").rows
    assert bounds[0]["p_low"] == pytest.approx(bounds[0]["p_high"])
    assert all(a["p_high"] <= b["p_high"] for a, b in zip(bounds, bounds[1:], strict=False))
    values = exhibit(analysis, "robustness").rows[-1]
    assert 0 <= values["robustness_interval"] <= values["robustness_value"] < 100
    assert {row["times"] for row in exhibit(analysis, "benchmarks").rows} <= {1.0, 2.0, 3.0}
    simulated = exhibit(analysis, "simulated_confounder").rows
    assert any(row["like"] == "sex:v" or str(row["like"]).startswith("sex:") for row in simulated)
    strong = next(row for row in simulated if row["like"] == "what.strong_confounder")
    assert strong["outcome_effect"] > 1.5 and strong["selection_effect"] > 1.5
    neutral = next(row for row in simulated if row["like"] == "what.neutral_confounder")
    assert abs(neutral["selection_effect"] - 1) < 0.2
    assert strong["estimate"] < neutral["estimate"]  # it works upwards on both, so without it less is left
    widths = [row["adjusted_high"] - row["adjusted_low"] for row in exhibit(analysis, "benchmarks").rows]
    own = 100 * 2 * 1.959964 * float(lead.std_error[-1])
    assert all(0.9 < width / own < 1.1 for width in widths)  # intervals are those of the analysis, not of least squares


def test_who_fell_out_is_told(town):
    _, analysis = run(town, settings='caliper = { width = 0.01, unit = "sd_linear" }')
    assert {p.estimand.restriction for p in analysis.profiles} == {"caliper"}
    table = exhibit(analysis, "dropped")
    (note,) = [e for e in analysis.exhibits if getattr(e, "key", "") == "estimand_narrowed"]
    counts = {row["what"]: row["value"] for row in exhibit(analysis, "matching").rows}
    assert note.params["share"] == pytest.approx(
        1 - counts["what.starters_matched"] / counts["what.starters"], abs=0.02
    )
    assert table.rows[0]["n_dropped"] > 0


@pytest.mark.slow
def test_several_instruments_pair_by_pair(town):
    sample, analysis = run(town, "pairwise", treatment='others = ["coaching"]', settings="exact = []")
    pairs = {(p.labels["instrument"], p.labels["comparison"]) for p in analysis.profiles}
    assert ("training", "wait") in pairs and ("coaching", "training") in pairs
    primary = [p for p in analysis.profiles if p.labels["primary"] == "true"]
    assert {(p.estimand.strategy, p.estimand.versus) for p in primary} == {("training", "wait")}
    table = {(row["first"], row["second"]): row for row in exhibit(analysis, "pairwise_support").rows}
    several = sample.several
    assert several.names == ("wait", "training", "coaching")
    starters = np.unique(several.sample.entries.person[several.sample.entries.arm == 1])
    assert table["training", "wait"]["n_first"] == len(starters)
    for row in table.values():
        assert row["n_joint"] <= row["n_supported"] <= row["n_first"]


@pytest.mark.slow
def test_the_bootstrap_of_weights_agrees(town):
    settings = 'how = "ipw"\noutcome_model = "means"\n'
    _, plain = run(town, "weighting", only="left_to_work", settings=settings)
    bootstrap = settings + 'errors = "bootstrap"\ndraws = 200'
    _, drawn = run(town, "weighting", only="left_to_work", settings=bootstrap)
    one, two = whole(plain)["left_to_work"], whole(drawn)["left_to_work"]
    assert np.array_equal(one.estimate, two.estimate)
    assert two.se_kind == "bootstrap, clustered on person"
    assert np.allclose(two.std_error / one.std_error, 1.0, atol=0.25)  # 200 draws: five per cent, and small samples


@pytest.mark.parametrize(
    ("method", "settings", "code"),
    [
        ("matching", 'estimand = "ato"', "matching.estimand"),
        ("matching", 'replace = false\nestimand = "ate"', "matching.estimand"),
        ("matching", "calipers = { sex = 1 }", "matching.caliper_unknown"),
        ("matching", 'anti_exact = ["team"]', "matching.exact_unknown"),
        ("matching", 'errors = "bootstrap"', "outcome.bootstrap_of_matches"),
        ("matching", 'errors = "m_estimation"', "outcome.no_weight_model"),
        ("matching", 'sensitivity = ["rosenbaum"]', "matching.rosenbaum_pairs"),
        ("weighting", 'how = "entropy"\nestimand = "ato"', "matching.estimand"),
        ("weighting", "trim = [0.9, 0.1]", "weighting.trim_order"),
        ("weighting", 'errors = "pair_cluster"', "outcome.no_matched_sets"),
        ("weighting", 'outcome_model = "bias_corrected"', "outcome.correction_needs_matches"),
        ("pairwise", "", "pairwise.no_others"),
    ],
)
def test_what_cannot_be_is_refused_before_any_data_are_read(method, settings, code):
    with pytest.raises(StudyError) as error:
        bind_all(protocol(**(KEYS | {"method": method, "settings": settings, "jobs": True})))
    assert code in {fault.code for fault in error.value.faults}


def test_changes_need_a_primary_outcome_that_exists_before():
    with pytest.raises(StudyError) as error:
        bind_all(protocol(**(KEYS | {"settings": "before = 6", "jobs": True})))
    assert {fault.code for fault in error.value.faults} == {"matching.no_history"}


def test_a_word_that_does_not_exist_where_a_list_may_stand():
    for method, settings, key in (
        ("weighting", 'trim = "crumb"', "trim"),
        ("matching", 'bandwidth = "wide"', "bandwidth"),
    ):
        with pytest.raises(StudyError) as error:
            bind_all(protocol(**(KEYS | {"method": method, "settings": settings})))
        (fault,) = error.value.faults
        assert fault.code == "study.not_allowed" and key in fault.text() and "typing" not in fault.text()


def test_focal_rows():
    from evalkit.matching.adjustment import Weights

    treated = np.array([True, False, True])
    for target, expected in (("att", [1, 0, 1]), ("atc", [0, 1, 0]), ("ate", [1, 1, 1]), ("ato", [1, 1, 1])):
        weights = Weights(treated, target, np.ones(3), np.ones(3), None, None, None)
        assert focal(weights).tolist() == [bool(v) for v in expected]
