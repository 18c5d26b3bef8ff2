"""What matching and weighting show beside their effects: balance, overlap, the start model, risk sets, who was lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.analyses.adjusted import Shown, arm_weights, focal
from evalkit.analyses.adjusting import Fitted
from evalkit.analyses.common import balance_table
from evalkit.balance import balance, effective_size, moments, paired_p_values, weighted_p_values, wide
from evalkit.balance import columns as balance_columns
from evalkit.exhibits import Chart, Column, Exhibit, Finding, Note, Series, Table
from evalkit.gate import balance_findings, support_finding
from evalkit.matching.adjustment import Adjustment, Matching, Weights
from evalkit.matching.propensity import Logit
from evalkit.sample import Entries, Sample

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

FEW_CLUSTERS = 30
CONCENTRATED, MANIFOLD = 0.05, 3.0
"""One entry carries too much when it has more than this share of its group, and more than so many times the mean."""


def describe(sample: Sample, fitted: Fitted, adjustment: Adjustment) -> Shown:
    """Balance before and after with its verdicts, overlap, numbers, and with a register who is at risk when."""
    gate = sample.study.gate
    entries, design = fitted.entries, fitted.design
    of_treated, of_others = arm_weights(adjustment)
    used = adjustment.used
    person = entries.person[used].astype(np.int64)
    p_values = _p_values(fitted, adjustment, used, person)
    rows = balance(design, fitted.treated, of_treated, of_others, p_values, target=adjustment.target)
    kept = adjustment.population > 0
    asked = focal(adjustment)
    lost = fitted.starters - int(fitted.treated.sum()) if adjustment.target != "atc" else 0
    findings = [
        *balance_findings(rows, gate),
        support_finding(int((asked & kept).sum()), int(asked.sum()) + lost, gate, adjustment.target),
    ]
    clusters = len(np.unique(sample.people.cluster[person]))
    if clusters < FEW_CLUSTERS:
        params = {"clusters": clusters, "minimum": FEW_CLUSTERS}
        findings.append(Finding("few_clusters", "", "warn", float(clusters), FEW_CLUSTERS, params))
    n, candidates = (len(np.unique(entries.person[fitted.treated == arm])) for arm in (True, False))
    people = len(np.unique(entries.person[of_others != 0]))
    even = adjustment.target == "att" and bool((of_treated[fitted.treated] == 1).all())
    gone = len(np.unique(entries.person[fitted.treated & (of_treated == 0)]))
    secret = adjustment.target == "att" and _tells(sample, gone)
    stays = None if even or secret else len(np.unique(entries.person[of_treated != 0]))
    cells = tuple(round(min(r.mean_treated, 1 - r.mean_treated) * n) if r.level else n for r in rows)
    exhibits: list[Exhibit] = [
        balance_table(rows, n, candidates, people, stays),
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
        _overlap(fitted, adjustment),
        *([] if fitted.model is None else [_model_table(fitted.model)]),
        _numbers_table(fitted, adjustment, lost, people),
    ]
    exhibits += _dropped(sample, fitted, adjustment)
    if isinstance(adjustment, Weights):
        findings += _solved(adjustment)
    if sample.source == "register":
        if sample.study.treatment.versus == "wait":
            chart, later = _later_start(sample, entries, np.flatnonzero(of_others), of_others)
            findings.append(later)
            exhibits += [_risk_sets(entries, of_treated != 0), chart, Note("estimand_wait")]
        else:
            exhibits.append(_risk_sets(entries, of_treated != 0))
        exhibits.append(Note("within_month", {"convention": sample.convention}))
    return Shown(tuple(exhibits), tuple(findings))


def _p_values(fitted: Fitted, adjustment: Adjustment, used: Rows, person: Rows) -> Array:
    """Of the difference of each balance column after adjustment: within pairs where there are any."""
    values = wide(fitted.design, used)
    pairs = adjustment.pairs if isinstance(adjustment, Matching) else None
    if pairs is not None and adjustment.target == "att":
        part = adjustment.take(used)  # type: ignore[union-attr]
        assert isinstance(part, Matching) and part.pairs is not None
        return paired_p_values(values, part.pairs.treated, part.pairs.control, part.pairs.weight, person)
    return weighted_p_values(values, adjustment.treated[used], adjustment.weight[used], person)


def _overlap(fitted: Fitted, adjustment: Adjustment) -> Chart:
    """Share of each group by score, on the same bins."""
    score, treated = fitted.candidates.score, fitted.treated
    low, high = np.quantile(score, [0.001, 0.999])
    edges = np.linspace(low, high, 31) if high > low else np.array([low - 0.5, low + 0.5])
    of_treated, of_others = arm_weights(adjustment)
    groups = [("treated", treated.astype(float)), ("comparison", 1.0 - treated), ("matched", of_others)]
    if adjustment.target != "att":
        groups.append(("treated_after", of_treated))
    series = []
    for key, w in groups:
        share = np.histogram(np.clip(score, low, high), edges, weights=np.abs(w))[0]
        people = np.histogram(np.clip(score, low, high), edges, weights=(w != 0).astype(float))[0]
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


def _numbers_table(fitted: Fitted, adjustment: Adjustment, lost: int, people: int) -> Table:
    """How many were compared with whom, and how unevenly comparison people are used."""
    columns = (Column("what", "what", "key"), Column("value", "value", "count", decimals=0))
    of_treated, of_others = arm_weights(adjustment)
    values: list[tuple[str, int]] = [
        ("starters", int(fitted.treated.sum()) + lost),
        ("starters_matched", int((of_treated != 0).sum())),
        ("comparison_entries_used", int((of_others != 0).sum())),
        ("comparison_persons_used", people),
        ("comparison_effective", int(round(effective_size(of_others[of_others != 0])))),
    ]
    if adjustment.target != "att":
        values.append(("starters_effective", int(round(effective_size(of_treated[of_treated != 0])))))
    if isinstance(adjustment, Weights):
        if len(adjustment.trimmed):
            values.append(("trimmed", len(adjustment.trimmed)))
        if adjustment.truncated:
            values.append(("truncated", adjustment.truncated))
    elif len(adjustment.discarded):
        values.append(("discarded", len(adjustment.discarded)))
    return Table("matching", "matching", columns, tuple({"what": f"what.{k}", "value": v} for k, v in values))


def _dropped(sample: Sample, fitted: Fitted, adjustment: Adjustment) -> list[Exhibit]:
    """Whom the estimate asked for leaves out, and how they differ from those who stay; nothing when nobody is lost."""
    asked, kept = focal(adjustment), adjustment.population > 0
    out = asked & ~kept
    if not out.any():
        return []
    everyone, stay, left = (moments(fitted.design, mask.astype(float)) for mask in (asked, asked & kept, out))
    spread = np.sqrt(everyone.variance)
    gap = np.where(spread > 0, (left.mean - stay.mean) / np.where(spread > 0, spread, 1.0), 0.0)
    names = balance_columns(fitted.design)
    people = [len(np.unique(fitted.entries.person[mask])) for mask in (asked & kept, out)]
    share = float(out.sum() / asked.sum())
    variable, level = names[int(np.abs(gap).argmax())]
    name = f"{variable}:{level}" if level else variable
    params = {"share": share, "variable": name, "starters": int(asked.sum())}
    note = Note("estimand_narrowed", params, "warn" if share > 0.05 else "info")
    if _tells(sample, people[1]):
        return [note]
    columns = (
        Column("variable", "variable", "text"),
        Column("level", "level", "text"),
        Column("measure", "measure", "key"),
        Column("mean_kept", "mean_kept", "share", support="n_kept", decimals=2),
        Column("mean_dropped", "mean_dropped", "share", support="n_dropped", decimals=2),
        Column("smd_dropped", "smd_dropped", "stat", decimals=2),
        Column("n_kept", "n_kept", "count", decimals=0),
        Column("n_dropped", "n_dropped", "count", decimals=0),
    )
    body = []
    for j, (variable, level) in enumerate(names):
        body.append(
            {
                "variable": variable,
                "level": level,
                "measure": "share" if level or variable.endswith(":missing") else "mean",
                "mean_kept": float(stay.mean[j]),
                "mean_dropped": float(left.mean[j]),
                "smd_dropped": float(gap[j]),
                "n_kept": people[0],
                "n_dropped": people[1],
            }
        )
    return [Table("dropped", "dropped", columns, tuple(body)), note]


def _tells(sample: Sample, people: int) -> bool:
    """Whether means with and without so few people, side by side, would tell about those few."""
    rules = sample.study.disclosure
    return rules.profile != "open" and people < rules.minimum


def _solved(weights: Weights) -> list[Finding]:
    """Whether the weights were found, how much imbalance is left, and how much the largest one counts."""
    found = []
    if not weights.converged:
        found.append(Finding("weights_not_converged", "", "fail", weights.imbalance, None, {"smd": weights.imbalance}))
    for weight in (np.abs(w) for w in arm_weights(weights)):
        count, share = int((weight > 0).sum()), float(weight.max() / weight.sum()) if weight.any() else 0.0
        if share > CONCENTRATED and share * count > MANIFOLD:
            params = {"share": share, "count": count}
            found.append(Finding("weights_concentrated", "", "warn", share, CONCENTRATED, params))
    return found


def _risk_sets(entries: Entries, kept: NDArray[np.bool_]) -> Table:
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
        n, inside = int(started.sum()), int((started & kept).sum())
        rows.append(
            {
                "elapsed": int(month),
                "n_treated": n,
                "n_at_risk": int((at & (entries.arm == 0)).sum()),
                "matched": inside,
                "outside": n - inside,
            }
        )
    return Table("risk_sets", "risk_sets", columns, tuple(rows))


def _later_start(sample: Sample, entries: Entries, used: Rows, weight: Array) -> tuple[Chart, Finding]:
    """Share of the comparison group used that has started by month k: later starters stay in (waiting)."""
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
