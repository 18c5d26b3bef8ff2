"""How wrong could it be: sensitivity to what is not recorded, on the outcome that counts most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evalkit.analyses.adjusted import Shown, Way, effect_of, using
from evalkit.analyses.adjusting import Adjusting, Fitted
from evalkit.design import Design
from evalkit.effects import EffectProfile
from evalkit.errors import DesignError, EvalkitError, Fault
from evalkit.exhibits import Column, Exhibit, Finding, Note, Table
from evalkit.matching.adjustment import Adjustment, Matching
from evalkit.matching.propensity import fit_logit
from evalkit.sample import Sample
from evalkit.sensitivity import (
    Chances,
    benchmark_bounds,
    critical_gamma,
    evalue_difference,
    evalue_ratio,
    killer_chances,
    linear_regression,
    mcnemar_bounds,
    observed_chances,
    robustness_value,
    signed_rank_bounds,
    simulated_confounder,
)
from evalkit.study import Study

Array = NDArray[np.float64]

BARELY, LARGEST = 1.05, 100.0
"""Below the first Gamma a result hardly stands up to anything; beyond the second it is not looked for."""
GAMMAS = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
YEAR = 12
BENCHMARKS = 5
"""Covariates that a hidden one is compared with: those that tell most about who starts."""
TIMES = (1.0, 2.0, 3.0)
LIKE = 3
"""Observed categories that a simulated confounder is made like."""
DRAWS = 40
STRONG = 0.2
"""How much a strong simulated confounder differs between outcomes, and between starters and others."""


def doubt_faults(study: Study, settings: Adjusting, *, pairs: bool) -> list[Fault]:
    """Bounds within pairs need pairs that share nobody."""
    if "rosenbaum" in settings.sensitivity and not pairs:
        return [Fault("matching.rosenbaum_pairs", {}, study.path.name)]
    return []


def doubt(sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment, lead: EffectProfile) -> Shown:
    """The checks that the settings ask for, on the primary outcome after a year and at the horizon."""
    asked = way.settings.sensitivity
    known = np.flatnonzero(np.isfinite(lead.estimate))
    if not asked or not len(known) or lead.vcov is None:
        return Shown((), ())
    at = sorted({int(known[-1]), *(int(k) for k in known if lead.month[k] == YEAR)})
    exhibits: list[Exhibit] = []
    findings: list[Finding] = []
    if "e_value" in asked:
        table, found = _e_values(sample, way, fitted, adjustment, lead, at)
        exhibits.append(table)
        findings += found
    if "robustness" in asked:
        exhibits += _robustness(sample, way, fitted, adjustment, lead, at)
    if "rosenbaum" in asked and isinstance(adjustment, Matching):
        exhibits += _rosenbaum(sample, way, fitted, adjustment, lead, at[-1])
    if "simulated_confounder" in asked:
        exhibits += _simulated(sample, way, fitted, adjustment, lead, at[-1])
    return Shown(tuple(exhibits), tuple(findings))


def _outcome(sample: Sample, way: Way, fitted: Fitted, rows: NDArray[np.int64], name: str) -> tuple[Array, Array]:
    """Outcomes (n, K) as they are estimated: less the mean before time zero where the analysis asks so."""
    used = fitted.entries.take(rows)
    y, observed = sample.outcome(name, used)
    if way.settings.before:
        before, seen = sample.before(name, used, way.settings.before)
        count = seen.sum(axis=1)
        y = y - (np.where(seen, before, 0.0).sum(axis=1) / np.maximum(count, 1))[:, None]
        observed = observed & (count > 0)[:, None]
    return y, observed.astype(float)


def _spread(sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment, name: str, month: int) -> float:
    """Pooled standard deviation of an outcome (or its change) among the rows in use."""
    rows = adjustment.used
    y, observed = _outcome(sample, way, fitted, rows, name)
    arm = fitted.treated[rows]
    parts = [y[(observed[:, month] > 0) & (arm == one), month] for one in (True, False)]
    degrees = sum(len(part) - 1 for part in parts)
    return float(np.sqrt(sum(((part - part.mean()) ** 2).sum() for part in parts) / max(degrees, 1)))


def _e_values(
    sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment, lead: EffectProfile, at: list[int]
) -> tuple[Table, list[Finding]]:
    """E-values: for shares from the ratio with and without the instrument, for amounts from the standardised effect.

    The ends of the interval are those of the difference over the share without, which is taken as known.
    """
    columns = (
        Column("month", "month", "text", decimals=0),
        Column("ratio", "ratio", "stat", support="events", decimals=2),
        Column("e_value", "e_value", "stat", support="events", decimals=2),
        Column("e_value_interval", "e_value_interval", "stat", support="events", decimals=2),
        Column("events", "events", "count", decimals=0),
    )
    rows, findings = [], []
    for k in at:
        value, error = float(lead.estimate[k]), float(lead.std_error[k])
        without, people = float(lead.counterfactual[k]), (int(lead.n_treated[k]), int(lead.n_comparison[k]))
        low, high = value - 1.959963984540054 * error, value + 1.959963984540054 * error
        support = min(people)
        if lead.estimand.unit == "fraction" and lead.estimand.identification == "conditional_independence":
            if not (without > 0 and without + value > 0):
                continue
            floor = 1e-6
            found = evalue_ratio(
                (without + value) / without, max(floor, (without + low) / without), (without + high) / without
            )
            shares = [(without + value, people[0]), (without, people[1])]
            support = int(min(min(s, 1 - s) * n for s, n in shares))
        else:
            spread = _spread(sample, way, fitted, adjustment, lead.labels["outcome"], k)
            if spread <= 0:
                continue
            found = evalue_difference(value, error, sd=spread)
        rows.append(
            {
                "month": int(lead.month[k]),
                "ratio": found.ratio,
                "e_value": found.point,
                "e_value_interval": found.interval,
                "events": max(support, 0),
            }
        )
        if k == at[-1]:
            params = {"month": int(lead.month[k]), "outcome": lead.labels["outcome"]}
            findings.append(Finding("e_value", lead.labels["outcome"], "info", None, None, params))
    return Table("e_value", "e_value", columns, tuple(rows)), findings if rows else []


def _robustness(
    sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment, lead: EffectProfile, at: list[int]
) -> list[Exhibit]:
    """Omitted variable bias of the weighted regression on treatment and covariates among the rows in use.

    The regression's classical error takes matches and weights for independent rows; whatever speaks of an interval
    uses the analysis's own standard error instead.
    """
    rows = adjustment.used
    on = using(sample, way, fitted, adjustment)
    x = on.x[np.searchsorted(on.rows, rows)][:, 1:]
    x, names = _independent(x, [*_names(sample, fitted, way)])
    y, observed = _outcome(sample, way, fitted, rows, lead.labels["outcome"])
    weight, treated = adjustment.weight[rows], fitted.treated[rows].astype(float)
    columns = (
        Column("month", "month", "text", decimals=0),
        Column("partial_r2", "partial_r2", "stat", support="n", decimals=1),
        Column("robustness_value", "robustness_value", "stat", support="n", decimals=1),
        Column("robustness_interval", "robustness_interval", "stat", support="n", decimals=1),
        Column("n", "n_rows", "count", decimals=0),
    )
    body, last = [], None
    for k in at:
        keep = (observed[:, k] > 0) & (weight > 0)
        try:
            fit = linear_regression(y[keep, k], treated[keep], x[keep], names, weight[keep])
        except EvalkitError:
            continue
        if not fit.std_error > 0:
            continue
        body.append(
            {
                "month": int(lead.month[k]),
                "partial_r2": 100 * fit.partial_r2,
                "robustness_value": 100 * robustness_value(fit.estimate, fit.std_error, fit.dof),
                "robustness_interval": 100 * _until_uncertain(lead, k, fit.std_error, fit.dof),
                "n": int(keep.sum()),
            }
        )
        last = fit, int(keep.sum()), float(lead.std_error[k]) / fit.std_error
    if last is None:
        return []
    fit, size, wider = last
    best = [
        fit.names[j]
        for j in np.argsort(-fit.r2_treatment, kind="stable")
        if fit.names[j] not in ("score", *sample.time_names)
    ][:BENCHMARKS]
    bounds = benchmark_bounds(fit, best, TIMES)
    scale, points, decimals = _scale(lead)
    against = (
        Column("variable", "variable", "text"),
        Column("times", "times", "text", decimals=0),
        Column("r2_treatment", "r2_treatment", "stat", support="n", decimals=1),
        Column("r2_outcome", "r2_outcome", "stat", support="n", decimals=1),
        Column("adjusted_estimate", f"adjusted_estimate{points}", "stat", support="n", decimals=decimals),
        Column("adjusted_low", "adjusted_low", "stat", support="n", decimals=decimals),
        Column("adjusted_high", "adjusted_high", "stat", support="n", decimals=decimals),
        Column("n", "n_rows", "count", decimals=0),
    )
    table = []
    for i, (name, times) in enumerate((name, times) for name in best for times in TIMES):
        if not bounds.possible[i]:
            continue
        table.append(
            {
                "variable": name,
                "times": times,
                "r2_treatment": 100 * float(bounds.r2_treatment[i]),
                "r2_outcome": 100 * float(bounds.r2_outcome[i]),
                "adjusted_estimate": scale * float(bounds.estimate[i]),
                "adjusted_low": scale * float(bounds.estimate[i] - wider * (bounds.estimate[i] - bounds.low[i])),
                "adjusted_high": scale * float(bounds.estimate[i] + wider * (bounds.high[i] - bounds.estimate[i])),
                "n": size,
            }
        )
    return [
        Table("robustness", "robustness", columns, tuple(body)),
        Table("benchmarks", "benchmarks", against, tuple(table)),
        Note("robustness", {"estimate": fit.estimate, "unit": lead.estimand.unit}),
    ]


def _until_uncertain(lead: EffectProfile, k: int, classical: float, dof: float) -> float:
    """Robustness value of the nearer end of the analysis's own interval; 0 when that holds zero."""
    near = abs(float(lead.estimate[k])) - 1.959963984540054 * float(lead.std_error[k])
    return robustness_value(near, classical, dof) if near > 0 else 0.0


def _names(sample: Sample, fitted: Fitted, way: Way) -> Iterator[str]:
    """The covariate behind every column of X after the intercept; the dummies of a factor share its name."""
    if way.method != "weighting":
        yield "score"
    for name in fitted.design.without_time().names[1:]:
        yield name.split(":")[0] if not name.endswith(":missing") else name
    for name in sample.time_names:
        yield from (name, name)


def _independent(x: Array, names: list[str]) -> tuple[Array, list[str]]:
    """Columns that do not follow from those before them, so that the regression has one solution."""
    kept: list[int] = []
    basis = np.ones((len(x), 1)) / np.sqrt(len(x))
    for j in range(x.shape[1]):
        column = x[:, j] - basis @ (basis.T @ x[:, j])
        column = column - basis @ (basis.T @ column)
        size = float(np.linalg.norm(column))
        if size > 1e-8 * max(float(np.linalg.norm(x[:, j])), 1e-300):
            kept.append(j)
            basis = np.column_stack([basis, column / size])
    return x[:, kept], [names[j] for j in kept]


def _scale(lead: EffectProfile) -> tuple[float, str, int]:
    """How effects are written in tables: shares as points, with what the heading and the decimals then are."""
    return (100.0, "_points", 1) if lead.estimand.unit == "fraction" else (1.0, "", 0)


def _rosenbaum(
    sample: Sample, way: Way, fitted: Fitted, matching: Matching, lead: EffectProfile, k: int
) -> list[Exhibit]:
    """Bounds on the p-value within pairs of one starter and one other, by how strong hidden selection could be."""
    pairs = matching.pairs
    if pairs is None or len(np.unique(pairs.treated)) < len(pairs.treated):
        return [Note("rosenbaum_not_pairs", {}, "warn")]
    ends = [_outcome(sample, way, fitted, rows, lead.labels["outcome"]) for rows in (pairs.treated, pairs.control)]
    both = (ends[0][1][:, k] > 0) & (ends[1][1][:, k] > 0)
    one, other = ends[0][0][both, k], ends[1][0][both, k]
    if matching.target == "atc":
        one, other = other, one
    alternative = "greater" if float(lead.estimate[k]) >= 0 else "less"
    try:
        if np.isin(np.concatenate([one, other]), (0.0, 1.0)).all():
            only = int(((one == 1) & (other == 0)).sum()), int(((one == 0) & (other == 1)).sum())
            test = partial(mcnemar_bounds, *only, alternative=alternative)  # type: ignore[arg-type]
        else:
            test = partial(signed_rank_bounds, one, other, alternative=alternative)  # type: ignore[arg-type]
        bounds = test(GAMMAS)
    except DesignError:
        return [Note("rosenbaum_no_difference", {}, "warn")]
    columns = (
        Column("gamma", "gamma", "text", decimals=2),
        Column("p_low", "p_low", "stat", support="n_sets", decimals=2),
        Column("p_high", "p_high", "stat", support="n_sets", decimals=2),
        Column("n_sets", "n_sets", "count", decimals=0),
    )
    rows = [
        {"gamma": float(g), "p_low": float(low), "p_high": float(high), "n_sets": bounds.n_sets}
        for g, low, high in zip(bounds.gamma, bounds.low, bounds.high, strict=True)
    ]
    limit = critical_gamma(test)
    note = Note("rosenbaum_none", {})
    if limit >= BARELY:
        note = Note("rosenbaum", {"gamma": min(limit, LARGEST)})
    elif limit >= 1:
        note = Note("rosenbaum_barely", {})
    return [Table("rosenbaum", "rosenbaum", columns, tuple(rows)), note]


def _simulated(
    sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment, lead: EffectProfile, k: int
) -> list[Exhibit]:
    """The estimate with a simulated confounder among the covariates, made like observed categories or strong."""
    everybody = np.arange(len(fitted.entries))
    y, observed = _outcome(sample, way, fitted, everybody, lead.labels["outcome"])
    seen, values = observed[:, k] > 0, y[:, k]
    high = seen & (values > float(values[seen].mean()))
    name = lead.labels["outcome"]
    scale, points, decimals = _scale(lead)
    plain = replace(way, settings=way.settings.model_copy(update={"errors": "influence"}))

    def estimator(u: Array) -> tuple[float, float]:
        design = _with_column(fitted.design, u)
        model = fit_logit(design, fitted.treated)
        part = replace(fitted, design=design, model=model, candidates=replace(fitted.candidates, score=model.score))
        on = using(sample, plain, part, plain.adjust(part))
        outcome, there = _outcome(sample, way, part, on.rows, name)
        effect = effect_of(sample, plain, on, outcome[:, k : k + 1], there[:, k : k + 1] > 0)
        return float(effect.estimate[0]), float(np.sqrt(np.asarray(effect.uncertainty.vcov)[0, 0]))

    columns = (
        Column("like", "like", "key"),
        Column("outcome_effect", "outcome_effect", "stat", support="n", decimals=2),
        Column("selection_effect", "selection_effect", "stat", support="n", decimals=2),
        Column("estimate", f"adjusted_estimate{points}", "stat", support="n", decimals=decimals),
        Column("low", "adjusted_low", "stat", support="n", decimals=decimals),
        Column("high", "adjusted_high", "stat", support="n", decimals=decimals),
        Column("n", "n_rows", "count", decimals=0),
    )
    rows = []
    for like, chances in _scenarios(fitted, high):
        try:
            found = simulated_confounder(
                estimator, fitted.treated, high, chances, draws=DRAWS, seed=sample.study.seed, key=fitted.candidates.key
            )
        except EvalkitError:
            continue
        rows.append(
            {
                "like": like,
                "outcome_effect": found.outcome_effect,
                "selection_effect": found.selection_effect,
                "estimate": scale * found.estimate,
                "low": scale * found.low,
                "high": scale * found.high,
                "n": int(len(np.unique(fitted.entries.person[fitted.treated]))),
            }
        )
    if not rows:
        return [Note("simulated_none", {}, "warn")]
    table = Table("simulated_confounder", "simulated_confounder", columns, tuple(rows))
    return [table, Note("simulated_confounder", {"draws": DRAWS, "unit": lead.estimand.unit})]


def _scenarios(fitted: Fitted, high: NDArray[np.bool_]) -> Iterator[tuple[str, Chances]]:
    """One that tells nothing, like the categories in which starters differ most from others, and a strong one.

    The first shows what adding any column does by itself: matches change. The others are to be held against it.
    """
    yield "what.neutral_confounder", Chances(0.5, 0.5, 0.5, 0.5)
    found = []
    for made in fitted.design.factors:
        codes = made.codes[fitted.design.index]
        for number, level in enumerate(made.levels[1:], 1):
            inside = codes == number
            gap = abs(inside[fitted.treated].mean() - inside[~fitted.treated].mean())
            spread = np.sqrt(max(inside.mean() * (1 - inside.mean()), 1e-12))
            found.append((-gap / spread, f"{made.name}:{level}", inside))
    for _, name, inside in sorted(found, key=lambda item: item[:2])[:LIKE]:
        try:
            yield name, observed_chances(inside.astype(float), fitted.treated, high)
        except EvalkitError:
            continue
    try:
        yield "what.strong_confounder", killer_chances(fitted.treated, high, d=STRONG, s=STRONG, prevalence=0.5)
    except EvalkitError:
        return


def _with_column(design: Design, u: Array) -> Design:
    """The design with one more number a row."""
    numbers = np.column_stack([design.own_numeric, u])
    return replace(design, own_numeric=numbers, own_numeric_names=(*design.own_numeric_names, "simulated"))
