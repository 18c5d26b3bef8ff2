"""Several instruments pair by pair: what rejects a pair and how that is said, who is counted, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sample_example import cut, protocol

from evalkit import simulate
from evalkit.analyses import pairwise
from evalkit.analyses.matching import matched
from evalkit.effects import generator
from evalkit.errors import DesignError, Fault, StudyError
from evalkit.run import bind_all
from evalkit.text import catalogue

TOWN = replace(simulate.SMALL, entry_days="any", start_rate=0.05)
KEYS = dict(
    first="2018-01-01",
    last="2021-12-31",
    eligibility="age = [18, 64]",
    covariates='numeric = ["age", "distance"]\ncategorical = ["sex"]',
    method="pairwise",
    treatment='others = ["coaching"]',
    settings="exact = []",
)


@pytest.fixture(scope="module")
def town():
    tables = simulate.draw(TOWN, 2000, 4)
    people = tables.persons.assign(team=(np.arange(len(tables.persons)) % 40).astype(str))
    return {"persons": people, "benefits": tables.benefits, "episodes": tables.episodes}


def study(gate=None, **keys):
    made = protocol(**(KEYS | keys))
    return made if gate is None else made.model_copy(update={"gate": made.gate.model_copy(update=gate)})


def run(town, gate=None, **keys):
    made = study(gate, **keys)
    sample = cut(made, town)
    (settings,) = bind_all(made)
    return sample, pairwise.run(sample, settings, generator(1, "main"), "main")


def pairs(analysis, code):
    return {tuple(f.params["pair"]) for f in analysis.findings if f.code == code}


def profiles(analysis, pair):
    return [p for p in analysis.profiles if (p.labels["instrument"], p.labels["comparison"]) == pair]


def rows(analysis):
    (table,) = [e for e in analysis.exhibits if getattr(e, "id", "") == "pairwise_support"]
    return table, {(row["first"], row["second"]): row for row in table.rows}


ALL = {(a, b) for a in ("training", "coaching") for b in ("wait", "training", "coaching") if a != b}
NEVER = {"support_min": 0.0, "smd_fail": 1.0, "smd_warn": 1.0}


# -- who is counted -------------------------------------------------------------------------------------------------


def test_the_difference_stands_on_the_matched_people(town, monkeypatch):
    """n_matched are the distinct persons of the first instrument in the population of the matches."""
    counted = []

    def watched(sample, settings, fitted):
        made = matched(sample, settings, fitted)
        counted.append((len(set(fitted.entries.person[made.population > 0].tolist())), int(made.treated.sum())))
        return made

    monkeypatch.setattr(pairwise, "matched", watched)
    table, found = rows(run(town, NEVER, settings='exact = []\ncaliper = { width = 0.001, unit = "sd_linear" }')[1])
    assert next(c for c in table.columns if c.key == "smd").support == "n_matched"
    assert [row["n_matched"] for row in found.values()] == [n for n, _ in counted]
    for row in found.values():
        assert 0 < row["n_matched"] <= row["n_supported"] <= row["n_first"]
    assert any(row["n_matched"] < row["n_supported"] for row in found.values())


@pytest.mark.parametrize("lang", ["nl", "en"])
def test_the_header_says_that_overlap_is_before_cells_and_caliper(lang):
    for name in ("n_supported", "n_joint"):
        header = catalogue(lang)[f"column.{name}"]
        assert "caliper" in header and ("exact" in header)
    assert "caliper" not in catalogue(lang)["column.n_matched"]


# -- why a pair is rejected -----------------------------------------------------------------------------------------


def test_a_pair_that_fails_on_support_says_so(town):
    made = {"support_min": 0.99, "smd_fail": 1.0, "smd_warn": 1.0}
    _, analysis = run(town, made, settings='exact = []\ncaliper = { width = 0.001, unit = "sd_linear" }')
    failed = pairs(analysis, "pair_failed_support")
    assert failed
    for finding in analysis.findings:
        if finding.code == "pair_failed_support":
            assert finding.verdict == "warn" and finding.threshold == 0.99
            alone = tuple(finding.params["pair"]) not in pairs(analysis, "pair_failed_balance")
            assert "support" in finding.params["reasons"] and alone == (finding.params["reasons"] == ["support"])
    for pair in ALL:
        hidden = {s for p in profiles(analysis, pair) for s in p.status}
        assert ("withheld" in hidden) == (pair in failed | pairs(analysis, "pair_failed_balance"))


def test_a_pair_that_fails_on_balance_says_so(town):
    made = {"support_min": 0.0, "smd_fail": 1e-6, "smd_warn": 1e-7}
    _, analysis = run(town, made)
    assert pairs(analysis, "pair_failed_balance") == ALL and not pairs(analysis, "pair_failed_support")
    assert all("balance" in f.params["reasons"] for f in analysis.findings if f.code == "pair_failed_balance")
    assert [(f.scope, f.verdict) for f in analysis.findings if f.code == "pairs_failed"] == [("", "fail")]
    assert all(np.isnan(p.estimate).all() for p in analysis.profiles)


def test_both_reasons_make_two_sentences(town):
    made = {"support_min": 1.0, "smd_fail": 1e-6, "smd_warn": 1e-7}
    _, analysis = run(town, made, settings='exact = []\ncaliper = { width = 0.001, unit = "sd_linear" }')
    both = pairs(analysis, "pair_failed_support") & pairs(analysis, "pair_failed_balance")
    assert both
    for finding in analysis.findings:
        if finding.code == "pair_failed_support" and tuple(finding.params["pair"]) in both:
            assert {"support", "balance"} <= set(finding.params["reasons"])


def test_what_is_shown_anyway_gives_the_reason(town):
    made = {"support_min": 0.0, "smd_fail": 1e-6, "smd_warn": 1e-7, "show_anyway": "agreed beforehand"}
    _, analysis = run(town, made)
    assert pairs(analysis, "pair_shown_anyway") == ALL
    assert {f.params["reason"] for f in analysis.findings if f.code == "pair_shown_anyway"} == {"agreed beforehand"}
    assert all(np.isfinite(p.estimate).all() for p in analysis.profiles)


def test_nothing_is_said_of_pairs_that_pass(town):
    _, analysis = run(town, NEVER)
    assert not [f.code for f in analysis.findings if f.code.startswith(("pair_failed", "pairs_", "pair_empty"))]
    assert all(np.isfinite(p.estimate).all() for p in analysis.profiles)


# -- pairs without matches ------------------------------------------------------------------------------------------


def failing(code, pair):
    """Matching that fails with a code for one pair."""
    order = iter([("training", "wait"), ("training", "coaching"), ("coaching", "wait"), ("coaching", "training")])

    def made(sample, settings, fitted):
        if next(order) == pair:
            raise DesignError(Fault(code, {"starters": 3}))
        return matched(sample, settings, fitted)

    return made


@pytest.mark.parametrize("code", ["design.nobody_matched", "design.match_no_overlap"])
def test_a_pair_without_matches_is_named(town, monkeypatch, code):
    gone = ("training", "coaching")
    monkeypatch.setattr(pairwise, "matched", failing(code, gone))
    _, analysis = run(town, NEVER)
    assert pairs(analysis, "pair_empty") == {gone}
    assert {f.verdict for f in analysis.findings if f.code == "pair_empty"} == {"warn"}
    assert {(p.labels["instrument"], p.labels["comparison"]) for p in analysis.profiles} == ALL - {gone}
    _, found = rows(analysis)
    assert found[gone]["n_matched"] == 0 and found[gone]["smd"] is None and found[gone]["n_supported"] > 0


def test_another_fault_is_not_swallowed(town, monkeypatch):
    monkeypatch.setattr(pairwise, "matched", failing("design.match_ratio", ("training", "coaching")))
    with pytest.raises(DesignError) as error:
        run(town, NEVER)
    assert [fault.code for fault in error.value.faults] == ["design.match_ratio"]


def test_when_no_pair_has_matches_the_analysis_stops(town, monkeypatch):
    def nobody(*args):
        raise DesignError(Fault("design.nobody_matched", {"starters": 3}))

    monkeypatch.setattr(pairwise, "matched", nobody)
    with pytest.raises(DesignError) as error:
        run(town)
    assert [fault.code for fault in error.value.faults] == ["design.nobody_matched"]


def test_a_pair_without_overlap_is_named(town, monkeypatch):
    """Scores that do not overlap leave no rows at all; that is no fault of the study."""
    whole = pairwise.pairs_of

    def apart(*args):
        made = list(whole(*args))
        made[0] = replace(made[0], support=np.zeros(len(made[0].rows), bool))
        return tuple(made)

    monkeypatch.setattr(pairwise, "pairs_of", apart)
    _, analysis = run(town, NEVER)
    assert pairs(analysis, "pair_empty") == {("training", "wait")}


# -- cautions -------------------------------------------------------------------------------------------------------


def test_few_clusters_are_told_once(town):
    three = town | {"persons": town["persons"].assign(team=(np.arange(len(town["persons"])) % 3).astype(str))}
    _, analysis = run(three, NEVER, cluster="team")
    (few,) = [f for f in analysis.findings if f.code == "few_clusters"]
    assert few.value == 3 and few.verdict == "warn"
    _, analysis = run(town, NEVER)
    assert "few_clusters" not in {f.code for f in analysis.findings}


def test_a_reduced_correction_is_told_once_a_pair(town, monkeypatch):
    real = pairwise.profiles_of
    seen = []

    def reduced(*args):
        made, cautions = real(*args)
        seen.append(cautions)
        extra = [
            pairwise.Finding("bias_correction_reduced", name, "warn", params={"used": used, "wanted": 7})
            for name, used in (("left", 5), ("on_benefit", 3))
        ]
        return made, (*cautions, *extra)

    monkeypatch.setattr(pairwise, "profiles_of", reduced)
    _, analysis = run(town, NEVER)
    told = [f for f in analysis.findings if f.code == "pair_correction_reduced"]
    assert {tuple(f.params["pair"]) for f in told} == ALL and len(told) == len(ALL) == len(seen)
    assert {(f.params["used"], f.params["wanted"], f.verdict) for f in told} == {(3, 7, "warn")}


def test_unequal_follow_up_rejects_that_outcome_of_that_pair(town, monkeypatch):
    """Months of coaching after the sixth are lost for one outcome: every pair with coaching is rejected for it."""
    sample = cut(study(NEVER), town)
    base = sample.several.sample
    real = type(base).outcome
    code = sample.several.names.index("coaching")
    coached = {
        (int(p), int(t))
        for p, t in zip(
            *(getattr(base.entries, k)[base.entries.arm == code] for k in ("person", "time_zero")), strict=True
        )
    }

    def outcome(self, name, entries):
        y, observed = real(self, name, entries)
        if name == "left":
            keys = zip(entries.person.tolist(), entries.time_zero.tolist(), strict=True)
            lost = np.array([key in coached for key in keys])
            observed = observed.copy()
            observed[np.ix_(lost, np.arange(observed.shape[1]) >= 6)] = False
        return y, observed

    monkeypatch.setattr(type(base), "outcome", outcome)
    _, analysis = run(town, NEVER)
    told = [f for f in analysis.findings if f.code == "pair_follow_up"]
    assert pairs(analysis, "pair_follow_up") == {pair for pair in ALL if "coaching" in pair}
    for finding in told:
        assert (finding.scope, finding.verdict) == ("left", "warn")
        shares = finding.params["treated"], finding.params["comparison"]
        first = finding.params["pair"][0] == "coaching"
        assert shares == pytest.approx((0.5, 1.0) if first else (1.0, 0.5))
    for profile in analysis.profiles:
        pair = profile.labels["instrument"], profile.labels["comparison"]
        rejected = "coaching" in pair and profile.labels["outcome"] == "left"
        assert ("withheld" in profile.status) == rejected
    assert "pairs_failed" not in {f.code for f in analysis.findings}  # training against waiting stands


# -- what is refused ------------------------------------------------------------------------------------------------


def refused(**keys):
    with pytest.raises(StudyError) as error:
        bind_all(study(**keys))
    return [fault.code for fault in error.value.faults]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ('exact = ["nope"]', "matching.exact_unknown"),
        ('exact = ["nope", "nope"]', "matching.exact_unknown"),
        ('errors = "bootstrap"', "outcome.bootstrap_of_matches"),
        ('errors = "m_estimation"', "outcome.no_weight_model"),
        ('errors = "abadie_imbens_estimated"\noutcome_model = "means"', "pairwise.estimated_score"),
        ('outcome_model = "bias_corrected"\nerrors = "HC1"', "outcome.robust_of_correction"),
    ],
)
def test_settings_are_refused_before_any_data_are_read(settings, code):
    assert refused(settings=settings) == [code]


@pytest.mark.parametrize("line", ["draws = 99", "placebo = { months = 3 }", 'sensitivity = ["e_value"]'])
def test_settings_of_others_are_unknown(line):
    assert refused(settings=line) == ["study.unknown_key"]


def test_faults_are_told_once():
    assert refused(treatment='versus = "never"', settings='exact = ["nope"]').count("matching.versus") == 1
    assert refused(treatment="") == ["pairwise.no_others"]


def test_negative_controls_are_left_out_as_the_page_says(town):
    jobs = pd.DataFrame({"person": town["persons"].person, "start": pd.Timestamp("2019-01-01")})
    jobs["end"] = pd.Timestamp("2020-06-30")
    extra = '[[outcome]]\nname = "control"\nkind = "state"\nsource = "state:work"\nrole = "negative_control"\n'
    _, analysis = run(town | {"jobs": jobs}, NEVER, jobs=True, outcomes=extra)
    assert {p.labels["outcome"] for p in analysis.profiles} == {"left_to_work", "left", "on_benefit", "in_work"}
    text = (Path(__file__).parents[1] / "docs" / "methods" / "pairwise.md").read_text("utf-8")
    assert 'role = "negative_control"` are left out' in text
