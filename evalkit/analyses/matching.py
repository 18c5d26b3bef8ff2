"""Matching inside risk sets: settings, sample in, profiles and exhibits out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evalkit.analyses.common import Path, balance_table, composition_of, make_profile
from evalkit.balance import balance, effective_size, paired_p_values, wide
from evalkit.design import Design
from evalkit.effects import EffectProfile
from evalkit.errors import DesignError, Fault, StudyError
from evalkit.exhibits import Analysis, Chart, Column, Exhibit, Finding, Lost, Note, Series, Table
from evalkit.gate import balance_findings, follow_up_finding, support_finding
from evalkit.hashing import mix
from evalkit.matching.effect import Matched, matched_effect, tally
from evalkit.matching.nearest import Candidates, Pairs, match_nearest
from evalkit.matching.propensity import Logit, fit_logit
from evalkit.matching.support import common_levels
from evalkit.sample import Entries, Sample
from evalkit.study import Frozen, Study

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

FEW_CLUSTERS = 30
SE_KIND = "influence function, clustered on {level}"


class Caliper(Frozen):
    """How far a match may lie: ``width`` standard deviations or raw units of the score."""

    width: float = Field(gt=0)
    unit: Literal["sd_linear", "raw_linear", "sd", "raw"] = "sd_linear"


class Settings(Frozen):
    """Propensity-score nearest-neighbour matching inside each risk set, bias-corrected.

    ``propensity``: one start model over all risk sets, or one for each elapsed month. ``exact``: matches agree on
    these; by default elapsed month and calendar quarter. ``ratio``: comparison entries for each starter.
    """

    propensity: Literal["pooled", "by_month"] = "pooled"
    exact: tuple[str, ...] | None = None
    caliper: Caliper | None = Caliper(width=0.2)
    ratio: int = Field(default=1, ge=1, le=50)
    replace: Literal[True] = True


def faults(study: Study, settings: Settings) -> list[Fault]:
    """What the settings ask that this study cannot give; known before any data are read.

    ``matching.versus``: risk sets compare starting now with waiting; "never" would condition on the future, and another
    instrument needs its own starters. ``matching.exact_unknown``: a name that is no categorical column of the study.
    """
    wrong = []
    register = study.data is not None
    if register and study.treatment.versus != "wait":
        wrong.append(Fault("matching.versus", {"versus": study.treatment.versus}, study.path.name))
    known = [*(("elapsed", "quarter") if register else ()), *study.covariates.categorical]
    for name in settings.exact or ():
        if name not in known:
            params = {"name": name, "known": ", ".join(known) or "–"}
            wrong.append(Fault("matching.exact_unknown", params, study.path.name))
    return wrong


@dataclass(frozen=True)
class _Fitted:
    """Candidates with their score: rows of the sample's entries that have common support in every category."""

    entries: Entries
    design: Design
    treated: NDArray[np.bool_]
    candidates: Candidates
    model: Logit
    starters: int
    findings: tuple[Finding, ...]


def run(sample: Sample, settings: Settings, rng: np.random.Generator, id: str = "matching") -> Analysis:
    """Match, estimate every outcome and every subgroup, and describe what was matched.

    Raises
    ------
    StudyError
        See :func:`faults`.
    DesignError
        ``design.*`` faults: no starters, no comparison, separation, nobody within the caliper.
    """
    wrong = faults(sample.study, settings)
    if wrong:
        raise StudyError(wrong)
    fitted = _fit(sample, settings)
    pairs = _match(fitted.candidates, settings)
    matched = Matched.of(pairs)
    profiles, cautions = _profiles(sample, id, fitted, matched, pairs)
    groups, notes = _subgroups(sample, settings, id, fitted)
    if sample.alternative is not None:
        profiles += _alternative(sample.alternative, settings, id)
    exhibits, findings = _describe(sample, settings, fitted, matched, pairs)
    findings += (*_follow_up(sample, fitted, matched), *cautions)
    return Analysis(
        id, "matching", profiles + groups, exhibits + notes, fitted.findings + findings, _lost(fitted, pairs)
    )


def _lost(fitted: _Fitted, pairs: Pairs) -> tuple[Lost, ...]:
    """Starters outside support, and comparison entries that no starter is matched with."""
    person = fitted.entries.person
    starters, used = np.unique(pairs.treated), np.unique(pairs.control)
    return (
        Lost("treated", "outside_support", len(np.unique(person[starters])), len(starters)),
        Lost("comparison", "unmatched_not_used", len(np.unique(person[used])), len(used)),
    )


def _fit(sample: Sample, settings: Settings) -> _Fitted:
    """The start model and everyone's linear predictor; categories without starters or without others fall out."""
    everyone = sample.entries
    starters = int((everyone.arm == 1).sum())
    shared = common_levels(sample.design(everyone), everyone.arm == 1)
    findings = []
    if shared.dropped:
        findings.append(Finding("ps_separation", "", "warn", params={"variables": list(shared.dropped)}))
    entries = everyone if shared.rows is None else everyone.take(shared.rows)
    design, treated = shared.design, entries.arm == 1
    model = fit_logit(design, treated)
    score = model.score
    if settings.propensity == "by_month":
        score, small = _by_month(design, treated, entries.elapsed, score)
        if small:
            findings.append(Finding("small_month", "", "warn", float(len(small)), params={"months": len(small)}))
    people = sample.people
    candidates = Candidates(
        treated,
        entries.person.astype(np.int64),
        mix(people.key[entries.person], entries.time_zero),
        _strata(sample, settings, entries),
        score,
    )
    return _Fitted(entries, design, treated, candidates, model, starters, tuple(findings))


def _by_month(
    design: Design, treated: NDArray[np.bool_], elapsed: NDArray[np.int16], pooled: Array
) -> tuple[Array, list[str]]:
    """A model for each elapsed month; months with fewer than five starters a parameter keep the pooled score."""
    score, small = pooled.copy(), []
    for month in np.unique(elapsed):
        rows = np.flatnonzero(elapsed == month)
        part = design.take(rows)
        part = replace(part, own_factors=tuple(f for f in part.own_factors if f.name != "elapsed"))
        own = _own_score(part, treated[rows])
        if own is None:
            small.append(str(int(month)))
        else:
            score[rows] = own
    return score, small


def _own_score(design: Design, treated: NDArray[np.bool_]) -> Array | None:
    """The score from a model for these rows alone; None when they are too few or too uneven for one."""
    try:
        shared = common_levels(design, treated)
        if shared.rows is None and min(treated.sum(), (~treated).sum()) >= 5 * len(shared.design.names):
            return fit_logit(shared.design, treated).score
    except DesignError:
        pass
    return None


def _strata(sample: Sample, settings: Settings, entries: Entries) -> NDArray[np.int64]:
    """One code for each combination of the exact-matching variables."""
    code = np.zeros(len(entries), np.int64)
    for name in _exact(sample, settings):
        if name in sample.time_names:
            level = getattr(entries, name).astype(np.int64)
        else:
            known = {f.name: f for f in sample.people.factors}
            level = known[name].codes[entries.person].astype(np.int64)
        level = level - level.min()
        code = code * (int(level.max()) + 1) + level
    return code


def _match(candidates: Candidates, settings: Settings) -> Pairs:
    caliper = settings.caliper
    return match_nearest(
        candidates,
        ratio=settings.ratio,
        width=None if caliper is None else caliper.width,
        unit="sd_linear" if caliper is None else caliper.unit,
    )


def _regressors(sample: Sample, fitted: _Fitted, rows: Rows) -> Array:
    """X of the bias correction: intercept, score, covariates, and time as second-degree polynomials."""
    dense = fitted.design.without_row_factors().matrix(rows)
    blocks = [dense[:, :1], fitted.candidates.score[rows][:, None], dense[:, 1:]]
    for name in sample.time_names:
        value = getattr(fitted.entries, name)[rows].astype(float)
        value = (value - value.mean()) / max(value.std(), 1.0)
        blocks.append(np.column_stack([value, value**2]))
    return np.concatenate(blocks, axis=1)


def _profiles(
    sample: Sample, id: str, fitted: _Fitted, matched: Matched, pairs: Pairs, subgroup: str = "", variant: str = ""
) -> tuple[tuple[EffectProfile, ...], tuple[Finding, ...]]:
    """One profile an outcome, and what to be careful about in it."""
    lost = len(pairs.outside) + fitted.starters - int(fitted.treated.sum())
    used = fitted.entries.take(matched.rows)
    regressors = _regressors(sample, fitted, matched.rows)
    profiles, findings = [], []
    for outcome in sample.study.outcomes:
        y, observed = sample.outcome(outcome.name, used)
        effect = matched_effect(
            matched,
            y,
            observed,
            regressors,
            used.person.astype(np.int64),
            sample.people.cluster[used.person],
            sample.people.cluster_level,
        )
        numbers = effect.n_treated
        path = Path(
            outcome,
            effect.estimate,
            effect.counterfactual,
            numbers,
            effect.n_comparison,
            effect.influence,
            composition_of(observed),
        )
        profiles.append(
            make_profile(
                sample,
                id,
                "matching",
                path,
                population="starters",
                identification="conditional_independence",
                se_kind=SE_KIND.format(level=sample.people.cluster_level),
                restriction="caliper" if lost else "",
                subgroup=subgroup,
                variant=variant,
            )
        )
        wanted = regressors.shape[1]
        if effect.columns < wanted:
            params = {"used": effect.columns - 1, "wanted": wanted - 1}
            findings.append(Finding("bias_correction_reduced", outcome.name, "warn", params=params))
        if path.composition == "varying":
            params = {"first": int(numbers[0]), "last": int(numbers[-1]), "month": len(numbers)}
            findings.append(Finding("composition_varying", outcome.name, "warn", params=params))
    return tuple(profiles), tuple(findings)


def _subgroups(
    sample: Sample, settings: Settings, id: str, fitted: _Fitted
) -> tuple[tuple[EffectProfile, ...], tuple[Exhibit, ...]]:
    """Each level of each subgroup matched within itself on the common score."""
    profiles: tuple[EffectProfile, ...] = ()
    notes: list[Exhibit] = []
    for subgroup in sample.study.subgroups:
        made = sample.group(subgroup.name, subgroup.cuts, fitted.entries)
        for number, level in enumerate(made.levels):
            rows = np.flatnonzero(made.codes == number)
            part = replace(
                fitted,
                entries=fitted.entries.take(rows),
                design=fitted.design.take(rows),
                treated=fitted.treated[rows],
                candidates=Candidates(*(getattr(fitted.candidates, n)[rows] for n in Candidates.__dataclass_fields__)),
                starters=int(fitted.treated[rows].sum()),
            )
            name = f"{subgroup.name}={level}"
            try:
                pairs = _match(part.candidates, settings)
            except DesignError:
                notes.append(Note("subgroup_empty", {"subgroup": name}, "warn"))
                continue
            profiles += _profiles(sample, id, part, Matched.of(pairs), pairs, subgroup=name)[0]
    return profiles, tuple(notes)


def _alternative(sample: Sample, settings: Settings, id: str) -> tuple[EffectProfile, ...]:
    """The same analysis under the other convention for starts and exits in the same month."""
    fitted = _fit(sample, settings)
    pairs = _match(fitted.candidates, settings)
    return _profiles(sample, id, fitted, Matched.of(pairs), pairs, variant=sample.convention)[0]


def _follow_up(sample: Sample, fitted: _Fitted, matched: Matched) -> list[Finding]:
    used = fitted.entries.take(matched.rows)
    starters = np.unique(matched.treated)
    weight = matched.uses()
    findings = []
    for outcome in sample.study.outcomes:
        seen = sample.outcome(outcome.name, used)[1].mean(axis=1)
        treated, comparison = seen[starters].mean(), (weight @ seen) / weight.sum()
        findings.append(follow_up_finding(outcome.name, float(treated), float(comparison), sample.horizon))
    return findings


def _describe(
    sample: Sample, settings: Settings, fitted: _Fitted, matched: Matched, pairs: Pairs
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
    n = len(np.unique(entries.person[starters]))
    cells = tuple(round(min(r.mean_treated, 1 - r.mean_treated) * n) if r.level else n for r in rows)
    exhibits: list[Exhibit] = [
        balance_table(rows, n, people),
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
    exhibits.append(_method_note(sample, settings))
    used_columns = _regressors(sample, fitted, matched.rows[:1]).shape[1] - 1
    exhibits.append(Note("bias_corrected", {"covariates": used_columns}))
    return tuple(exhibits), tuple(findings)


def _exact(sample: Sample, settings: Settings) -> tuple[str, ...]:
    """What matches agree on: the setting, else elapsed month and quarter (nothing for a ready table)."""
    return sample.time_names if settings.exact is None else settings.exact


def _method_note(sample: Sample, settings: Settings) -> Note:
    """How was matched: with a caliper in standard deviations, in raw units, or without; exactly on something or not."""
    exact, caliper = _exact(sample, settings), settings.caliper
    params: dict[str, object] = {"ratio": settings.ratio}
    key = "matching_method_free"
    if caliper is not None:
        key = "matching_method" if caliper.unit.startswith("sd") else "matching_method_raw"
        params["caliper"] = caliper.width
    if exact:
        return Note(key, params | {"exact": list(exact)})
    return Note(f"{key}_any", params)


def _overlap(fitted: _Fitted, weight: Array) -> Chart:
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


def _matching_table(fitted: _Fitted, starters: Rows, used: Rows, weight: Array, people: int, pairs: Pairs) -> Table:
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
    columns = tuple(
        Column(key, key, "text" if key == "elapsed" else "count", decimals=0)
        for key in ("elapsed", "n_treated", "n_at_risk", "matched", "outside")
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
