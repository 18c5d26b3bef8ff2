"""The gate: may an estimate be shown? Judged on the design, never on the estimate.

A verdict stands per analysis and outcome. Fails: a standardised difference beyond ``smd_fail``; one beyond ``smd_warn``
that is significant after Holm's correction; support for fewer than ``support_min`` of starters; follow-up that differs
between the arms. A failed estimate is withheld unless the study file gives a reason to show it, which is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalkit.balance import BalanceRow, holm
from evalkit.effects import EffectProfile
from evalkit.exhibits import Analysis, Finding, Note, Verdict
from evalkit.sensitivity.placebo import placebo_equivalence
from evalkit.study import Gate

_ORDER: dict[str, int] = {"pass": 0, "info": 0, "warn": 1, "fail": 2}
_DOUBTS = (
    "e_value", "robustness", "benchmarks", "rosenbaum", "rosenbaum_barely", "rosenbaum_none", "rosenbaum_not_pairs",
    "rosenbaum_no_difference", "simulated_confounder", "simulated_none", "did_tested", "did_test", "did_honest",
    "did_breakdown", "did_breakdown_none", "did_breakdown_any", "did_totals", "did_groups", "did_bacon",
    "did_leave_out", "did_leave_out_sign", "did_rings", "did_power", "duration_effects", "duration_points",
    "duration_model", "duration_hidden", "duration_effect_moves",
)  # fmt: skip
"""Exhibits and findings that are reckoned from the estimate that leads: it can be read from them."""
_CONTROLS = ("negative_control", "negative_control_amount")


@dataclass(frozen=True)
class Judgement:
    """Verdict on one outcome of one analysis; ``shown_anyway`` is the study's reason for showing a failed one."""

    analysis: str
    outcome: str
    verdict: Verdict
    shown_anyway: str = ""

    @property
    def withheld(self) -> bool:
        """Whether the estimate stays hidden."""
        return self.verdict == "fail" and not self.shown_anyway


def balance_findings(rows: Sequence[BalanceRow], gate: Gate, *, fails: bool = True) -> tuple[Finding, ...]:
    """Verdicts on balance after adjustment: the largest difference, and the significant ones (Holm).

    ``fails=False`` for randomised designs, where imbalance is chance and only warned about.
    """
    rows = _once(rows)
    if not rows:
        return ()
    size = np.abs([row.smd_after for row in rows])
    worst = int(np.nanargmax(size))
    largest = float(size[worst])
    verdict: Verdict = "pass"
    if largest > gate.smd_warn:
        verdict = "fail" if fails and largest > gate.smd_fail else "warn"
    params = {"variable": _name(rows[worst]), "smd": largest, "attention": gate.smd_warn}
    findings = [Finding("balance", "", verdict, largest, gate.smd_fail, params)]
    adjusted = holm(np.array([row.p_value for row in rows]))
    for row, p_value, smd in zip(rows, adjusted, size, strict=True):
        if smd > gate.smd_warn and p_value < 0.05:
            params = {"variable": _name(row), "smd": float(smd), "p": float(p_value)}
            findings.append(
                Finding("balance_significant", "", "fail" if fails else "warn", float(smd), gate.smd_warn, params)
            )
    return tuple(findings)


def _once(rows: Sequence[BalanceRow]) -> list[BalanceRow]:
    """Rows without the first of two levels, which says the same as the second."""
    levels: dict[str, int] = {}
    for row in rows:
        levels[row.variable] = levels.get(row.variable, 0) + 1
    seen: set[str] = set()
    kept = []
    for row in rows:
        if row.level and levels[row.variable] == 2 and row.variable not in seen:
            seen.add(row.variable)
            continue
        kept.append(row)
    return kept


def _name(row: BalanceRow) -> str:
    return f"{row.variable}:{row.level}" if row.level else row.variable


def support_finding(matched: int, starters: int, gate: Gate, target: str = "att") -> Finding:
    """Share of those asked for who have somebody like them.

    ``target`` says who they are: starters (``att``), comparison entries (``atc``) or all entries (any other), and
    ``starters`` counts them.
    """
    share = matched / starters if starters else 0.0
    verdict: Verdict = "pass" if share >= gate.support_min else "fail"
    if target == "att":
        params = {"share": share, "matched": matched, "starters": starters}
        return Finding("support", "", verdict, share, gate.support_min, params)
    params = {"share": share, "matched": matched, "entries": starters}
    code = "support_comparison" if target == "atc" else "support_all"
    return Finding(code, "", verdict, share, gate.support_min, params)


def follow_up_finding(outcome: str, treated: float, comparison: float, horizon: int) -> Finding:
    """Observed share of person-months in the two arms; a difference of more than one point fails."""
    gap = abs(treated - comparison)
    params = {"treated": treated, "comparison": comparison, "month": horizon}
    return Finding("follow_up_unequal", outcome, "fail" if gap > 0.01 else "pass", gap, 0.01, params)


def placebo_finding(profile: EffectProfile, outcome: str, margin: float) -> Finding:
    """The mean difference over the months before time zero: its 90 % interval must lie within the margin.

    A test of equivalence (two one-sided tests at 5 %): not finding a difference is not enough, it must be shown to be
    small. Months without an estimate are left out; ``margin`` is in the outcome's own unit.
    """
    used = np.flatnonzero(np.isfinite(profile.estimate))
    if not len(used) or profile.vcov is None:
        return Finding("placebo_not_estimable", outcome, "warn", None, margin, {"margin": margin})
    mean = np.full((1, len(used)), 1.0 / len(used))
    vcov = mean @ np.asarray(profile.vcov)[np.ix_(used, used)] @ mean.T
    found = placebo_equivalence(mean @ profile.estimate[used], vcov, margin, df=profile.df)
    value = float(found.estimate[0])
    params: dict[str, object] = {"estimate": value, "low": float(found.low[0]), "high": float(found.high[0])}
    support = min(int(profile.n_treated[used].min()), int(profile.n_comparison[used].min()))
    params |= {"margin": margin, "months": len(used), "unit": profile.estimand.unit, "support": support}
    code = "placebo" if profile.estimand.unit == "fraction" else "placebo_amount"
    return Finding(code, outcome, "pass" if found.passes else "fail", value, margin, params)


def judge(analysis: Analysis, show_anyway: str) -> tuple[Judgement, ...]:
    """The verdict on each outcome: the worst of the findings that concern it or the whole analysis."""
    outcomes = list(dict.fromkeys(profile.labels["outcome"] for profile in analysis.profiles))
    verdicts = []
    for outcome in outcomes:
        worst: Verdict = "pass"
        for finding in analysis.findings:
            if finding.scope in ("", outcome) and _ORDER[finding.verdict] > _ORDER[worst]:
                worst = finding.verdict
        reason = show_anyway if worst == "fail" else ""
        verdicts.append(Judgement(analysis.id, outcome, worst, reason))
    return tuple(verdicts)


def withhold(analysis: Analysis, judgements: Sequence[Judgement]) -> Analysis:
    """The analysis with the profiles of failed outcomes emptied (status ``withheld``), and what tells of them left out.

    What rests on the leading estimate (E-values, bounds, simulated confounders) goes with it; negative controls go
    when every outcome does. The placebo stays: it looks at the months before, which is design.
    """
    hidden = {j.outcome for j in judgements if j.analysis == analysis.id and j.withheld}
    if not hidden:
        return analysis
    exhibits, findings = analysis.exhibits, analysis.findings
    if _lead(analysis) in hidden:
        exhibits = tuple(e for e in exhibits if (e.key if isinstance(e, Note) else e.id) not in _DOUBTS)
        findings = tuple(f for f in findings if f.code not in _DOUBTS)
    if hidden >= {profile.labels["outcome"] for profile in analysis.profiles}:
        findings = tuple(f for f in findings if f.code not in _CONTROLS)
    profiles = tuple(emptied(p) if p.labels["outcome"] in hidden else p for p in analysis.profiles)
    return replace(analysis, profiles=profiles, exhibits=exhibits, findings=findings)


def _lead(analysis: Analysis) -> str:
    """The outcome that the sensitivity of an analysis is about: the first primary one, else the first."""
    whole = (p for p in analysis.profiles if p.labels.get("primary") == "true" and not p.labels.get("subgroup"))
    lead = next(whole, analysis.profiles[0] if analysis.profiles else None)
    return "" if lead is None else lead.labels["outcome"]


def emptied(profile: EffectProfile) -> EffectProfile:
    """The profile without its numbers since the start, as withheld; the months before it are design and stay."""
    since = profile.month >= 1
    status = tuple("withheld" if later else s for later, s in zip(since.tolist(), profile.status, strict=True))
    estimate, counterfactual = (np.where(since, np.nan, v) for v in (profile.estimate, profile.counterfactual))
    return replace(profile, estimate=estimate, counterfactual=counterfactual, status=status)
