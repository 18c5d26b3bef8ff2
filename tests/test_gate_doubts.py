"""A withheld estimate is withheld everywhere: what rests on it goes with it, the design stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from profiles import ESTIMAND, make

from evalkit.exhibits import Analysis, Chart, Column, Exhibit, Finding, Note, Series, Table
from evalkit.gate import Judgement, judge, placebo_finding, support_finding, withhold
from evalkit.study import Gate

LIMITS = Gate()
DOUBTS = {"e_value", "robustness", "benchmarks", "rosenbaum", "simulated_confounder"}
DOUBT_NOTES = {
    "robustness",
    "rosenbaum",
    "rosenbaum_barely",
    "rosenbaum_none",
    "rosenbaum_not_pairs",
    "rosenbaum_no_difference",
    "simulated_confounder",
    "simulated_none",
}


def table(name: str) -> Table:
    return Table(name, name, (Column("ratio", "ratio"),), ({"ratio": 1.5},))


def analysis(*primary: str, failed: tuple[str, ...] = ()) -> Analysis:
    """Two outcomes, each with a subgroup before it; every doubt and some design."""
    profiles = []
    for outcome in ("on_benefit", "left_to_work"):
        for subgroup in ("sex=man", ""):
            labels = {"outcome": outcome, "subgroup": subgroup, "primary": str(outcome in primary).lower()}
            profiles.append(make([0.1, 0.2], labels=labels, estimand=replace(ESTIMAND, outcome=outcome)))
    exhibits: list[Exhibit] = [table(name) for name in ("balance", "dropped", *sorted(DOUBTS))]
    exhibits += [Note(key) for key in ("estimand_wait", *sorted(DOUBT_NOTES))]
    exhibits.append(Chart("placebo_left_to_work", "placebo", "interval", (-1,), (Series("difference", (0.01,)),)))
    findings = [Finding(code, "", "pass", 0.1) for code in ("balance", "negative_control", "negative_control_amount")]
    findings += [Finding("e_value", "left_to_work", "info"), Finding("placebo", "left_to_work", "pass", 0.01)]
    findings += [Finding("follow_up_unequal", outcome, "fail") for outcome in failed]
    return Analysis("main", "matching", tuple(profiles), tuple(exhibits), tuple(findings))


def names(made: Analysis) -> set[str]:
    return {("note." + e.key) if isinstance(e, Note) else e.id for e in made.exhibits}


def codes(made: Analysis) -> set[str]:
    return {finding.code for finding in made.findings}


def test_doubts_about_a_withheld_estimate_are_withheld() -> None:
    given = analysis("left_to_work", failed=("left_to_work",))
    made = withhold(given, judge(given, ""))
    assert names(made) == {"balance", "dropped", "note.estimand_wait", "placebo_left_to_work"}
    assert codes(given) - codes(made) == {"e_value"}  # the other outcome is shown, and with it the controls


def test_doubts_about_a_shown_estimate_stay_when_another_is_withheld() -> None:
    given = analysis("left_to_work", failed=("on_benefit",))
    made = withhold(given, judge(given, ""))
    assert (made.exhibits, made.findings) == (given.exhibits, given.findings)
    assert {p.labels["outcome"] for p in made.profiles if p.status[0] == "withheld"} == {"on_benefit"}


def test_without_a_primary_outcome_the_first_leads() -> None:
    given = analysis(failed=("on_benefit",))
    assert names(withhold(given, judge(given, ""))) & DOUBTS == set()
    given = analysis(failed=("left_to_work",))
    assert names(withhold(given, judge(given, ""))) >= DOUBTS


def test_blind_keeps_the_design_only() -> None:
    given = analysis("left_to_work", "on_benefit")
    blind = [replace(verdict, verdict="fail", shown_anyway="") for verdict in judge(given, "")]
    made = withhold(given, blind)
    assert names(made) == {"balance", "dropped", "note.estimand_wait", "placebo_left_to_work"}
    assert codes(made) == {"balance", "placebo"}


def test_a_reason_to_show_shows_the_doubts_too() -> None:
    given = analysis("left_to_work", failed=("left_to_work", "on_benefit"))
    made = withhold(given, judge(given, "the council asks"))
    assert (made.exhibits, made.findings) == (given.exhibits, given.findings)
    other = withhold(given, [Judgement("other", name, "fail") for name in ("left_to_work", "on_benefit")])
    assert other == given


# -- what findings carry ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "code"), [("atc", "support_comparison"), ("ate", "support_all")])
@pytest.mark.parametrize(("matched", "verdict"), [(80, "pass"), (79, "fail")])
def test_support_says_whom_it_is_about(target: str, code: str, matched: int, verdict: str) -> None:
    finding = support_finding(matched, 100, LIMITS, target)
    assert (finding.code, finding.verdict, finding.threshold) == (code, verdict, 0.8)
    assert finding.params == {"share": finding.value, "matched": matched, "entries": 100}


def test_all_other_targets_are_about_everybody() -> None:
    assert {support_finding(9, 10, LIMITS, target).code for target in ("ate", "ato", "atm")} == {"support_all"}
    assert support_finding(9, 10, LIMITS, target="att") == support_finding(9, 10, LIMITS)


def test_a_placebo_counts_the_people_beneath_the_months_that_it_uses() -> None:
    """The first month has no estimate and nobody; the smallest group beneath the others has seven people."""
    profile = make([np.nan, 0.01, 0.0], n_treated=np.array([0, 90, 80]), n_comparison=np.array([0, 7, 60]))
    assert placebo_finding(profile, "left_to_work", 0.03).params["support"] == 7
    swapped = make([0.0, 0.01], n_treated=np.array([12, 90]), n_comparison=np.array([50, 60]))
    support = placebo_finding(swapped, "left_to_work", 0.03).params["support"]
    assert (support, type(support)) == (12, int)
