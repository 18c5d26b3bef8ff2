"""What matching shows beside its effects: balance, overlap, the start model, risk sets, who starts later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.analyses.common import balance_table
from evalkit.balance import balance, effective_size, paired_p_values, wide
from evalkit.design import Design
from evalkit.exhibits import Chart, Column, Exhibit, Finding, Note, Series, Table
from evalkit.gate import balance_findings, support_finding
from evalkit.matching.effect import Matched, tally
from evalkit.matching.nearest import Candidates, Pairs
from evalkit.matching.propensity import Logit
from evalkit.sample import Entries, Sample

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

FEW_CLUSTERS = 30


@dataclass(frozen=True)
class Fitted:
    """Candidates with their score: rows of the sample's entries that have common support in every category."""

    entries: Entries
    design: Design
    treated: NDArray[np.bool_]
    candidates: Candidates
    model: Logit
    starters: int
    findings: tuple[Finding, ...]


def regressors(sample: Sample, fitted: Fitted, rows: Rows) -> Array:
    """X of the bias correction: intercept, score, covariates, and time as second-degree polynomials."""
    dense = fitted.design.without_time().matrix(rows)
    blocks = [dense[:, :1], fitted.candidates.score[rows][:, None], dense[:, 1:]]
    for name in sample.time_names:
        value = getattr(fitted.entries, name)[rows].astype(float)
        value = (value - value.mean()) / max(value.std(), 1.0)
        blocks.append(np.column_stack([value, value**2]))
    return np.concatenate(blocks, axis=1)


def describe(
    sample: Sample, fitted: Fitted, matched: Matched, pairs: Pairs
) -> tuple[tuple[Exhibit, ...], tuple[Finding, ...]]:
    gate = sample.study.gate
    entries, design = fitted.entries, fitted.design
    starters = np.unique(pairs.treated)
    weight = tally(pairs.control, pairs.weight, len(entries))
    of_starters = np.zeros(len(entries))
    of_starters[starters] = 1.0
    person = entries.person[matched.rows].astype(np.int64)
    p_values = paired_p_values(wide(design, matched.rows), matched.treated, matched.control, matched.weight, person)
    rows = balance(design, fitted.treated, of_starters, weight, p_values)
    used = np.flatnonzero(weight > 0)
    people = len(np.unique(entries.person[used]))
    findings = [*balance_findings(rows, gate), support_finding(len(starters), fitted.starters, gate)]
    clusters = len(np.unique(sample.people.cluster[person]))
    if clusters < FEW_CLUSTERS:
        params = {"clusters": clusters, "minimum": FEW_CLUSTERS}
        findings.append(Finding("few_clusters", "", "warn", float(clusters), FEW_CLUSTERS, params))
    n, candidates = (len(np.unique(entries.person[fitted.treated == arm])) for arm in (True, False))
    cells = tuple(round(min(r.mean_treated, 1 - r.mean_treated) * n) if r.level else n for r in rows)
    exhibits: list[Exhibit] = [
        balance_table(rows, n, candidates, people),
        Chart(
            "love",
            "love",
            "interval",
            tuple(f"{r.variable}:{r.level}" if r.level else r.variable for r in rows),
            (
                Series("before", tuple(abs(r.smd_before) for r in rows), support=cells),
                Series("after", tuple(abs(r.smd_after) for r in rows), support=cells),
            ),
        ),
        _overlap(fitted, weight),
        _model_table(fitted.model),
        _matching_table(fitted, starters, used, weight, people, pairs),
    ]
    if sample.source == "register":
        chart, later = _later_start(sample, entries, used, weight)
        findings.append(later)
        exhibits += [_risk_sets(entries, starters), chart, Note("estimand_wait")]
        exhibits.append(Note("within_month", {"convention": sample.convention}))
    used_columns = regressors(sample, fitted, matched.rows[:1]).shape[1] - 1
    exhibits.append(Note("bias_corrected", {"covariates": used_columns}))
    return tuple(exhibits), tuple(findings)


def _overlap(fitted: Fitted, weight: Array) -> Chart:
    """Share of each group by score, on the same bins."""
    score, treated = fitted.candidates.score, fitted.treated
    low, high = np.quantile(score, [0.001, 0.999])
    edges = np.linspace(low, high, 31) if high > low else np.array([low - 0.5, low + 0.5])
    series = []
    for key, w in (("treated", treated.astype(float)), ("comparison", 1.0 - treated), ("matched", weight)):
        share = np.histogram(np.clip(score, low, high), edges, weights=w)[0]
        people = np.histogram(np.clip(score, low, high), edges, weights=(w > 0).astype(float))[0]
        series.append(Series(key, tuple((share / share.sum()).tolist()), support=tuple(people.astype(int).tolist())))
    middle = (edges[:-1] + edges[1:]) / 2
    return Chart("overlap", "overlap", "area", tuple(middle.tolist()), tuple(series), "share", "score")


def _model_table(model: Logit) -> Table:
    columns = (
        Column("variable", "variable", "text"),
        Column("coefficient", "coefficient", "stat"),
        Column("std_error", "std_error", "stat"),
    )
    keep = [i for i, name in enumerate(model.names) if not name.startswith(("elapsed:", "quarter:"))]
    rows = tuple(
        {
            "variable": model.names[i],
            "coefficient": float(model.coefficients[i]),
            "std_error": float(model.std_error[i]),
        }
        for i in keep
    )
    return Table("model", "model", columns, rows)


def _matching_table(fitted: Fitted, starters: Rows, used: Rows, weight: Array, people: int, pairs: Pairs) -> Table:
    """How many were matched with whom, and how unevenly comparison people are used."""
    columns = (Column("what", "what", "key"), Column("value", "value", "count", decimals=0))
    values = (
        ("starters", fitted.starters),
        ("starters_matched", len(starters)),
        ("comparison_entries_used", len(used)),
        ("comparison_persons_used", people),
        ("comparison_effective", int(round(effective_size(weight[used])))),
    )
    return Table("matching", "matching", columns, tuple({"what": f"what.{k}", "value": v} for k, v in values))


def _risk_sets(entries: Entries, starters: Rows) -> Table:
    matched = np.zeros(len(entries), bool)
    matched[starters] = True
    columns = (
        Column("elapsed", "elapsed", "text", decimals=0),
        Column("n_treated", "n_treated", "count", decimals=0),
        Column("n_at_risk", "n_at_risk", "count", decimals=0),
        Column("matched", "matched", "count", parent="n_treated", decimals=0),
        Column("outside", "outside", "count", parent="n_treated", decimals=0),
    )
    rows = []
    for month in np.unique(entries.elapsed):
        at = entries.elapsed == month
        started = at & (entries.arm == 1)
        n, kept = int(started.sum()), int((started & matched).sum())
        rows.append(
            {
                "elapsed": int(month),
                "n_treated": n,
                "n_at_risk": int((at & (entries.arm == 0)).sum()),
                "matched": kept,
                "outside": n - kept,
            }
        )
    return Table("risk_sets", "risk_sets", columns, tuple(rows))


def _later_start(sample: Sample, entries: Entries, used: Rows, weight: Array) -> tuple[Chart, Finding]:
    """Share of the matched comparison group that has started by month k: later starters stay in (waiting)."""
    wait, w = entries.own_start_after[used], weight[used]
    months = np.arange(1, sample.horizon + 1)
    share = np.array([float(w[wait < k].sum() / w.sum()) for k in months])
    people = [len(np.unique(entries.person[used[wait < k]])) for k in months]
    chart = Chart(
        "later_start",
        "later_start",
        "line",
        tuple(months.tolist()),
        (Series("comparison", tuple(share.tolist()), support=tuple(people)),),
        "share",
        "month",
    )
    last = float(share[-1])
    return chart, Finding("later_start", "", "info", last, None, {"share": last, "horizon": len(months)})
