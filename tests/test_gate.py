"""The gate: every rule at its boundary, what a verdict concerns, and what stays hidden."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from profiles import ESTIMAND, influence, make

from evalkit import gate
from evalkit.balance import BalanceRow
from evalkit.exhibits import Analysis, Finding
from evalkit.gate import Judgement, balance_findings, follow_up_finding, judge, support_finding, withhold
from evalkit.study import Gate
from evalkit.text import LANGUAGES, say

LIMITS = Gate()


def row(smd: float, p_value: float = 1.0, name: str = "age", level: str = "") -> BalanceRow:
    return BalanceRow(name, level, 0.0, 0.0, 0.0, 0.9, smd, 1.0, 1.0, p_value)


@pytest.mark.parametrize(
    ("smd", "expected"),
    [
        (0.0, "pass"),
        (0.1, "pass"),
        (0.1001, "warn"),
        (-0.1001, "warn"),
        (0.25, "warn"),
        (0.2501, "fail"),
        (-0.3, "fail"),
    ],
)
def test_largest_difference(smd: float, expected: str) -> None:
    (finding,) = balance_findings([row(0.0), row(smd, name="debt")], LIMITS)
    assert (finding.code, finding.verdict, finding.threshold) == ("balance", expected, 0.25)
    assert finding.value == abs(smd)


def test_the_worst_covariate_is_named() -> None:
    findings = balance_findings([row(0.02), row(-0.2, name="education", level="laag"), row(0.1)], LIMITS)
    assert findings[0].params["variable"] == "education:laag"


@pytest.mark.parametrize(
    ("smd", "p_value", "fails"),
    [(0.15, 0.0166, True), (0.15, 0.0167, False), (0.1, 0.0001, False), (0.1001, 0.0001, True)],
)
def test_a_smaller_difference_fails_when_it_is_significant_after_holm(smd: float, p_value: float, fails: bool) -> None:
    """Three tests: the smallest p-value counts three times, so 0.05 / 3 is the limit."""
    findings = balance_findings([row(smd, p_value), row(0.0, 0.5), row(0.0, 0.9)], LIMITS)
    significant = [f for f in findings if f.code == "balance_significant"]
    assert [f.verdict for f in significant] == (["fail"] if fails else [])
    if fails:
        assert significant[0].params == {"variable": "age", "smd": smd, "p": pytest.approx(3 * p_value)}


def test_by_lot_imbalance_is_chance_and_only_warned_about() -> None:
    findings = balance_findings([row(0.4, 1e-6)], LIMITS, fails=False)
    assert {f.verdict for f in findings} == {"warn"}
    assert len(findings) == 2


def test_limits_come_from_the_study() -> None:
    strict = Gate(smd_fail=0.1, smd_warn=0.05, support_min=0.95)
    assert balance_findings([row(0.11)], strict)[0].verdict == "fail"
    assert balance_findings([row(0.06)], strict)[0].verdict == "warn"
    assert support_finding(94, 100, strict).verdict == "fail"


def test_an_infinite_difference_fails() -> None:
    """A level that only the comparison group has differs without bound."""
    assert balance_findings([row(np.inf), row(0.1)], LIMITS)[0].verdict == "fail"


def test_two_levels_count_once() -> None:
    """Men and women differ by the same: one test, so Holm does not double the p-value."""
    rows = [row(-0.15, 0.04, "sex", "man"), row(0.15, 0.04, "sex", "vrouw")]
    assert [f.params["variable"] for f in balance_findings(rows, LIMITS)] == ["sex:vrouw", "sex:vrouw"]
    three = [row(0.15, 0.02, "education", level) for level in ("a", "b", "c")]
    assert [f.code for f in balance_findings(three, LIMITS)] == ["balance"]  # 3 x 0.02


def test_no_covariates_no_findings() -> None:
    assert balance_findings([], LIMITS) == ()


@pytest.mark.parametrize(
    ("matched", "starters", "expected"), [(80, 100, "pass"), (79, 100, "fail"), (100, 100, "pass"), (0, 0, "fail")]
)
def test_support(matched: int, starters: int, expected: str) -> None:
    finding = support_finding(matched, starters, LIMITS)
    assert (finding.verdict, finding.threshold) == (expected, 0.8)
    assert finding.params == {"share": finding.value, "matched": matched, "starters": starters}


@pytest.mark.parametrize(
    ("treated", "comparison", "expected"),
    [(1.0, 1.0, "pass"), (0.96, 0.955, "pass"), (0.9, 0.8899, "fail"), (0.8899, 0.9, "fail")],
)
def test_follow_up(treated: float, comparison: float, expected: str) -> None:
    finding = follow_up_finding("left_to_work", treated, comparison, 24)
    assert (finding.verdict, finding.scope) == (expected, "left_to_work")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_finding_has_its_sentence(lang: str) -> None:
    """With exactly the parameters that the gate gives, and with hidden ones."""
    findings = [
        *balance_findings([row(0.3, 1e-9)], LIMITS),
        support_finding(70, 100, LIMITS),
        follow_up_finding("left_to_work", 0.9, 0.8, 24),
    ]
    assert len({f.code for f in findings}) == 4
    for finding in findings:
        given: dict[str, Any] = {"value": finding.value, "threshold": finding.threshold} | dict(finding.params)
        sentence = say(f"finding.{finding.code}", lang, **given)
        assert "{" not in sentence
        hidden = given | {key: None for key, value in given.items() if isinstance(value, int | float)}
        assert "–" in say(f"finding.{finding.code}", lang, **hidden)
        assert say(f"advice.{finding.code}", lang, **given)


# -- verdicts --------------------------------------------------------------------------------------------------------


def analysis(*findings: Finding) -> Analysis:
    profiles = []
    for outcome in ("left_to_work", "on_benefit"):
        for subgroup in ("", "sex=man"):
            labels = {"outcome": outcome, "subgroup": subgroup}
            estimand = dataclasses.replace(ESTIMAND, outcome=outcome)
            profiles.append(make([0.1, 0.2], influence([1, 2], [[1, 2], [3, 4]]), labels=labels, estimand=estimand))
    return Analysis("main", "matching", tuple(profiles), findings=findings)


def finding(verdict: Any, scope: str = "") -> Finding:
    return Finding("x", scope, verdict)


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ((), ["pass", "pass"]),
        ((finding("info"),), ["pass", "pass"]),
        ((finding("warn"), finding("pass")), ["warn", "warn"]),
        ((finding("fail", "on_benefit"), finding("warn")), ["warn", "fail"]),
        ((finding("fail"),), ["fail", "fail"]),
        ((finding("fail", "another"),), ["pass", "pass"]),
    ],
)
def test_the_worst_finding_that_concerns_an_outcome_decides(findings: tuple[Finding, ...], expected: list[str]) -> None:
    judged = judge(analysis(*findings), "")
    assert [j.outcome for j in judged] == ["left_to_work", "on_benefit"]
    assert [j.verdict for j in judged] == expected
    assert [j.withheld for j in judged] == [v == "fail" for v in expected]


def test_a_reason_shows_a_failed_estimate_and_is_kept_for_failures_only() -> None:
    judged = judge(analysis(finding("fail", "on_benefit")), "the council asks")
    assert [(j.verdict, j.shown_anyway, j.withheld) for j in judged] == [
        ("pass", "", False),
        ("fail", "the council asks", False),
    ]
    made = withhold(analysis(), judged)
    assert all(p.status == ("ok", "ok") for p in made.profiles)


def test_withheld_estimates_are_gone_in_all_subgroups_of_the_outcome() -> None:
    given = analysis(finding("fail", "on_benefit"))
    made = withhold(given, judge(given, ""))
    for before, profile in zip(given.profiles, made.profiles, strict=True):
        if profile.labels["outcome"] == "on_benefit":
            assert profile.status == ("withheld", "withheld")
            assert np.isnan(profile.estimate).all()
            assert np.isnan(profile.counterfactual).all()
            band = profile.band(1)
            assert np.isnan([band.low, band.high, band.band_low, band.band_high]).all()
            assert profile.n_treated.tolist() == before.n_treated.tolist()
        else:
            assert profile is before
    assert made.findings == given.findings


def test_a_verdict_on_another_analysis_hides_nothing() -> None:
    made = withhold(analysis(), [Judgement("other", "left_to_work", "fail")])
    assert {p.status for p in made.profiles} == {("ok", "ok")}


def test_gate_looks_at_the_design_only() -> None:
    """Other estimates, same verdict."""
    given = analysis(finding("warn"))
    wild = dataclasses.replace(
        given, profiles=tuple(dataclasses.replace(p, estimate=[9.0, -9.0]) for p in given.profiles)
    )  # type: ignore[arg-type]
    assert gate.judge(wild, "") == gate.judge(given, "")
