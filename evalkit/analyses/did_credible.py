"""Is it to be believed? What difference-in-differences shows beside its profiles, on the outcome that counts most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import special

from evalkit.analyses.adjusted import Shown
from evalkit.analyses.did import Estimated, Settings
from evalkit.did.bacon import bacon
from evalkit.did.choice import BY_CELL, Choice, without_covariates
from evalkit.did.composition import composition, presence
from evalkit.did.effects import By, Effects
from evalkit.did.few import Tested
from evalkit.did.honest import HonestInterval, breakdown, honest
from evalkit.did.leave_out import leave_one_out
from evalkit.did.negative_weights import negative_weights
from evalkit.did.overall import overall
from evalkit.did.panel import NEVER, Panel
from evalkit.did.placebo import placebo_dates, placebo_groups
from evalkit.did.pretrends import joint_test, pretrend_power
from evalkit.did.spillover import given_rings, of_exposure
from evalkit.effects import Influence
from evalkit.errors import DataError, DesignError, UsageError
from evalkit.exhibits import Column, Exhibit, Finding, Note, Table, Verdict
from evalkit.sample import Sample

Z = 1.959963984540054
WORTH = 0.10
"""A share of negative weights from which the two-way regression is warned about."""
SUMS: tuple[By, ...] = ("simple", "event", "group", "calendar")
WORK = 50_000_000
"""Rows that leaving out one at a time may estimate on in all: about a minute."""
MOST = 200
"""Clusters that are left out one by one, at most."""


def described(sample: Sample, settings: Settings, lead: Estimated) -> Shown:
    """Who starts when: cohorts with their units and people."""
    panel, data = lead.data.panel, lead.data
    grouped = data.unit != "person"
    of_units = (Column("units", "panel_units", "text"),) if grouped else ()
    columns = (Column("first", "first_treated", "key"), *of_units, Column("persons", "persons", "count", decimals=0))
    rows = []
    for cohort in [*panel.cohorts.tolist(), NEVER]:
        mine = panel.first == cohort
        if not mine.any():
            continue
        row: dict[str, Any] = {"first": "column.never_treated" if cohort == NEVER else label_of(lead, cohort)}
        row |= {"units": int(mine.sum())} if grouped else {}
        rows.append(row | {"persons": int(data.persons[mine].sum())})
    return Shown((Table("did_cohorts", "did_cohorts", columns, tuple(rows)),), ())


def label_of(lead: Estimated, period: int) -> str:
    """A period of the panel in words."""
    known = dict(zip(lead.data.panel.periods.tolist(), lead.data.labels, strict=True))
    return known.get(period, str(period))


def credible(sample: Sample, settings: Settings, lead: Estimated) -> Shown:
    """Everything that speaks for or against the design and the estimate."""
    exhibits: list[Exhibit] = []
    findings: list[Finding] = []
    for part in (
        _tested(lead), _pretrends(settings, lead), _honest(settings, lead), _totals(settings, lead),
        _two_way(settings, lead), _left_out(settings, lead), _placebos(sample, settings, lead),
        _rings(settings, lead), _changing(sample, settings, lead),
    ):  # fmt: skip
        exhibits += part.exhibits
        findings += part.findings
    return Shown(tuple(exhibits), tuple(findings))


def _scale(lead: Estimated) -> float:
    """Fractions are shown in percentage points."""
    return 100.0 if lead.outcome.unit == "fraction" else 1.0


def _smallest(lead: Estimated) -> int:
    """The number of people beneath the effects since the start, at its smallest: what single numbers rest on."""
    treated, comparison = lead.persons
    since = (lead.effects.at >= 0) & np.isfinite(lead.effects.estimate)
    if not since.any():
        return 0
    return int(min(treated[since].min(), comparison[since].min()))


def _numbers(lead: Estimated, *names: str) -> tuple[Column, ...]:
    """Columns of numbers that rest on the people of the whole estimate."""
    return (*(Column(name, name, "stat", support="persons", decimals=2) for name in names), _PERSONS)


_PERSONS = Column("persons", "persons_beneath", "count", decimals=0)


def _tested(lead: Estimated) -> Shown:
    """p-values and sets of a procedure for few clusters, by month and overall."""
    found = lead.tested
    if found is None or found.effects is None:
        return Shown((), ())
    scale, persons = _scale(lead), _smallest(lead)
    columns = (Column("month", "month_of_panel", "key"), *_numbers(lead, "estimate", "p_value", "ci_low", "ci_high"))
    rows = []
    for j, event in enumerate(found.effects.at.tolist()):
        if event in lead.effects.at and np.isfinite(found.p_value[j]):
            rows.append(_test_row(str(event + 1), found, j, scale, persons))
    if found.overall is not None:
        rows.append(_test_row("column.overall", found.overall, 0, scale, persons))
    exhibits = (Table("did_tested", "did_tested", columns, tuple(rows)),)
    params = {"kind": found.kind, "draws": found.draws}
    findings = [Finding("did_test", lead.outcome.name, "info", params=params)]
    if found.smallest > 1 - found.level:
        params = {"smallest": found.smallest, "assignments": found.draws}
        findings.append(Finding("did_test_cannot_reject", lead.outcome.name, "warn", params=params))
    return Shown(exhibits, tuple(findings))


def _test_row(name: str, found: Tested, j: int, scale: float, persons: int) -> dict[str, Any]:
    ends = [scale * float(v[j]) if np.isfinite(v[j]) else None for v in (found.low, found.high)]
    return {
        "month": name, "estimate": scale * float(found.estimate[j]), "p_value": float(found.p_value[j]),
        "ci_low": ends[0], "ci_high": ends[1], "persons": persons,
    }  # fmt: skip


# -- before the start -------------------------------------------------------------------------------------------------


def _pretrends(settings: Settings, lead: Estimated) -> Shown:
    """Do the groups move alike before the start, and would it have been noticed if they did not (Roth 2022)?"""
    effects = lead.effects
    if settings.estimator == "synthetic":
        return Shown((Note("did_synthetic_fit"),), ())  # its weights are chosen to fit the periods before
    findings = list(_joint(lead))
    scale, persons = _scale(lead), _smallest(lead)
    rows = []
    for power in (0.5, 0.8):
        try:
            found = pretrend_power(effects, power=power)
        except (DesignError, UsageError):
            continue
        last = int(np.flatnonzero(found.post)[-1])
        rows.append(
            {
                "power": power, "slope": scale * found.slope, "month": str(int(found.event[last]) + 1),
                "bias": scale * float(found.trend[last]), "bias_if_passed": scale * float(found.mean_if_passed[last]),
                "estimate": scale * float(found.estimate[last]), "persons": persons,
            }
        )  # fmt: skip
    columns = (
        Column("power", "chance_noticed", "share", decimals=2), Column("month", "month_of_panel", "key"),
        *_numbers(lead, "slope", "bias", "bias_if_passed", "estimate"),
    )  # fmt: skip
    table = (Table("did_power", "did_power", columns, tuple(rows)),) if rows else ()
    return Shown(table, tuple(findings))


def _joint(lead: Estimated) -> Iterator[Finding]:
    """The joint test that nothing happens before the start."""
    effects, panel = lead.effects, lead.data.panel
    if not isinstance(effects.uncertainty, Influence):
        effects = lead.choice(panel)  # whatever the margins come from, the test needs the influence function
    found = joint_test(panel, effects, anticipation=lead.choice.anticipation)
    if found is None:
        return
    params: dict[str, Any] = {"months": found.periods, "persons": _smallest(lead)}
    if np.isnan(found.p_value):
        yield Finding("did_pretrends_few", lead.outcome.name, "info", params=params)
        return
    differ = found.p_value < 0.05
    code = "did_pretrends_differ" if differ else "did_pretrends"
    params["p"] = found.p_value
    yield Finding(code, lead.outcome.name, _warn(differ, "pass"), found.p_value, 0.05, params)


def _honest(settings: Settings, lead: Estimated) -> Shown:
    """Sets that hold if trends are not quite parallel (Rambachan and Roth 2023)."""
    asked = settings.honest
    if asked is None or not (asked.relative or asked.smooth) or settings.estimator == "synthetic":
        return Shown((), ())
    rows: list[dict[str, Any]] = []
    findings: list[Finding] = []
    scale, persons = _scale(lead), _smallest(lead)
    last = lead.effects.at[np.isfinite(lead.effects.estimate)]
    try:
        for restriction, bounds in (("relative_magnitudes", asked.relative), ("smoothness", asked.smooth)):
            if not bounds:
                continue
            for contrast in ("first", "average"):
                found = honest(lead.effects, restriction=restriction, m=bounds, contrast=contrast)  # type: ignore[arg-type]
                rows += [_honest_row(one, scale, persons) for one in found]
        if asked.relative and len(last):
            limit = breakdown(lead.effects, contrast="average")[0].value
            code = "did_breakdown_none" if limit <= 0 else "did_breakdown_any" if not np.isfinite(limit) else ""
            value = float(limit) if np.isfinite(limit) else None
            params = {"limit": value, "persons": persons}
            verdict = _warn(limit < 1, "info")
            findings.append(Finding(code or "did_breakdown", lead.outcome.name, verdict, value, 1.0, params))
    except (DesignError, UsageError) as error:
        return Shown((Note("did_honest_not", {"why": error.faults[0].code}),), ())
    columns = (
        Column("restriction", "restriction", "key"), Column("m", "largest_violation", "text", decimals=1),
        Column("contrast", "contrast", "key"), *_numbers(lead, "estimate", "ci_low", "ci_high"),
    )  # fmt: skip
    return Shown((Table("did_honest", "did_honest", columns, tuple(rows)),), tuple(findings))


def _honest_row(found: HonestInterval, scale: float, persons: int) -> dict[str, Any]:
    bound = found.m if found.restriction == "relative_magnitudes" else scale * found.m
    return {
        "restriction": f"column.{found.restriction}", "m": float(bound), "contrast": f"column.effect_{found.contrast}",
        "estimate": scale * found.estimate, "ci_low": _known(scale * found.low), "ci_high": _known(scale * found.high),
        "persons": persons,
    }  # fmt: skip


def _warn(doubt: bool, otherwise: Verdict) -> Verdict:
    return "warn" if doubt else otherwise


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# -- other sums of the same effects -----------------------------------------------------------------------------------


def _totals(settings: Settings, lead: Estimated) -> Shown:
    """One number in four ways, and the effect of each cohort."""
    choice, panel, scale = lead.choice, lead.data.panel, _scale(lead)
    if choice.estimator not in (*BY_CELL, "imputation") or lead.effects.vcov is None:
        return Shown((), ())
    persons = _smallest(lead)
    totals, groups = [], []
    for by in SUMS:
        try:
            found = lead.effects if by == "event" else choice.by(panel, by)
            total = overall(found)
        except DesignError:
            continue
        totals.append({"total": f"column.overall_{by}", **_interval(total, 0, scale), "persons": persons})
        if by == "group":
            groups = list(_cohorts(lead, found, scale))
    columns = (Column("total", "total", "key"), *_numbers(lead, "estimate", "std_error", "ci_low", "ci_high"))
    exhibits: list[Exhibit] = [Table("did_totals", "did_totals", columns, tuple(totals))]
    if len(groups) > 1:
        columns = (
            Column("first", "first_treated", "key"),
            *_numbers(lead, "estimate", "std_error", "ci_low", "ci_high"),
        )
        exhibits.append(Table("did_groups", "did_groups", columns, tuple(groups)))
    return Shown(tuple(exhibits), ())


def _cohorts(lead: Estimated, found: Effects, scale: float) -> Iterator[dict[str, Any]]:
    panel = lead.data.panel  # all rows or none: a total less the others would give a hidden one back
    smallest = min(int(lead.data.persons[panel.first == cohort].sum()) for cohort in found.at.tolist())
    for j, cohort in enumerate(found.at.tolist()):
        mine = panel.first == cohort
        numbers = _interval(found, j, scale)
        if len(np.unique(panel.cluster[mine])) < 2:  # chance in a single unit cannot be told from the effect
            numbers |= dict.fromkeys(("std_error", "ci_low", "ci_high"))
        yield {"first": label_of(lead, cohort), **numbers, "persons": smallest}


def _interval(found: Effects, j: int, scale: float) -> dict[str, Any]:
    value, error = float(found.estimate[j]), float(found.std_error[j])
    ends = {"ci_low": value - Z * error, "ci_high": value + Z * error}
    return {k: _known(scale * v) for k, v in {"estimate": value, "std_error": error, **ends}.items()}


# -- what the two-way regression would have done ----------------------------------------------------------------------


def _two_way(settings: Settings, lead: Estimated) -> Shown:
    """The weights with which a two-way regression would average: Goodman-Bacon, and negative ones."""
    panel, scale, persons = lead.data.panel, _scale(lead), _smallest(lead)
    if panel.repeated or len(panel.cohorts) < 2:
        return Shown((), ())
    bare = without_covariates(panel)
    exhibits: list[Exhibit] = []
    findings: list[Finding] = []
    whole = bare.complete()[0]
    try:
        split = bacon(whole)
    except DesignError:
        split = None
    if split is not None:
        columns = (
            Column("comparison", "comparison_kind", "key"), *_numbers(lead, "weight", "estimate"),
        )  # fmt: skip
        rows = [
            {"comparison": f"column.bacon_{kind}", "weight": weight, "estimate": scale * value, "persons": persons}
            for kind, (weight, value) in split.by_kind().items()
        ]
        exhibits.append(Table("did_bacon", "did_bacon", columns, tuple(rows)))
    try:
        weights = negative_weights(bare)
    except DesignError:
        return Shown(tuple(exhibits), ())
    used = settings.estimator == "two_way"
    verdict = _warn(used and weights.negative_share > WORTH, "info")
    params = {"share": weights.negative_share, "total": weights.negative_sum, "persons": persons}
    code = "did_negative_weights" if weights.negative else "did_no_negative_weights"
    findings.append(Finding(code, lead.outcome.name, verdict, weights.negative_share, WORTH, params))
    return Shown(tuple(exhibits), tuple(findings))


# -- does it hang on one ----------------------------------------------------------------------------------------------


def _left_out(settings: Settings, lead: Estimated) -> Shown:
    """The overall effect without each cluster, or without each cohort where clusters are many."""
    panel, scale, persons = lead.data.panel, _scale(lead), _smallest(lead)
    if not settings.leave_out or settings.estimator == "synthetic":
        return Shown((), ())
    level = "cluster" if lead.data.unit != "person" and len(panel.cluster_ids) <= MOST else "cohort"
    runs = len(panel.cluster_ids) if level == "cluster" else len(panel.cohorts) + 1
    if (level == "cohort" and len(panel.cohorts) < 2) or runs * len(panel) > WORK:
        return Shown((), ())
    try:
        found = leave_one_out(panel, lead.choice, level)  # type: ignore[arg-type]
    except (DesignError, UsageError):
        return Shown((), ())
    known = np.isfinite(found.estimate)
    if not known.any():
        return Shown((), ())
    estimate = scale * found.estimate[known]
    group = panel.cluster if level == "cluster" else np.unique(panel.first, return_inverse=True)[1]
    persons = min(persons, int(np.bincount(group, lead.data.persons).min()))  # full less the lowest is one group's part
    rows = (
        {"what": "column.all_units", "estimate": scale * float(found.full.estimate[0]), "persons": persons},
        {"what": "column.lowest_without_one", "estimate": float(estimate.min()), "persons": persons},
        {"what": "column.highest_without_one", "estimate": float(estimate.max()), "persons": persons},
    )
    table = Table("did_leave_out", "did_leave_out", (Column("what", "what", "key"), *_numbers(lead, "estimate")), rows)
    params = {"left_out": len(found), "changes": found.sign_changes, "level": level, "persons": persons}
    code = "did_leave_out" if not found.sign_changes else "did_leave_out_sign"
    clear = abs(float(found.full.estimate[0])) > Z * float(found.full.std_error[0])  # near zero a sign means little
    verdict = _warn(found.sign_changes > 0 and clear, "info")
    return Shown((table,), (Finding(code, lead.outcome.name, verdict, float(found.sign_changes), 0.0, params),))


def _placebos(sample: Sample, settings: Settings, lead: Estimated) -> Shown:
    """Pretended dates and pretended groups."""
    panel, scale, persons = lead.data.panel, _scale(lead), _smallest(lead)
    exhibits: list[Exhibit] = []
    findings: list[Finding] = []
    bare = _unbounded(lead)
    if settings.placebo_dates:
        try:
            found = placebo_dates(panel, bare, settings.placebo_dates, anticipation=settings.anticipation)
        except (DesignError, UsageError) as error:
            return Shown((Note("did_placebo_not", {"why": error.faults[0].code}),), ())
        whole = found.combined
        if whole is not None:
            rows = [{"first": "column.all_cohorts", **_interval(whole, 0, scale), "persons": persons}]
            columns = (Column("first", "first_treated", "key"),
                       *_numbers(lead, "estimate", "std_error", "ci_low", "ci_high"))  # fmt: skip
            exhibits.append(Table("did_placebo_dates", "did_placebo_dates", columns, tuple(rows)))
            p_value = float(found.p_value[0]) if len(found) == 1 else _two_sided(whole)
            params = {"shift": settings.placebo_dates, "p": p_value, "persons": persons}
            verdict = _warn(p_value < 0.05, "pass")
            findings.append(Finding("did_placebo_dates", lead.outcome.name, verdict, p_value, 0.05, params))
    if settings.placebo_groups:
        try:
            drawn = placebo_groups(panel, bare, draws=min(settings.draws, 199), seed=sample.study.seed)
        except (DesignError, UsageError) as error:
            return Shown((*exhibits, Note("did_placebo_not", {"why": error.faults[0].code})), tuple(findings))
        share = drawn.rejected()
        params = {"share": share, "draws": len(drawn), "persons": persons}
        verdict = _warn(bool(share > 0.10), "pass")
        findings.append(Finding("did_placebo_groups", lead.outcome.name, verdict, share, 0.10, params))
    return Shown(tuple(exhibits), tuple(findings))


def _two_sided(one: Effects) -> float:
    error = float(one.std_error[0])
    return float(2 * special.ndtr(-abs(float(one.estimate[0])) / error)) if error > 0 else np.nan


def _unbounded(lead: Estimated) -> Choice:
    """The estimator as it is, over all periods there are: a placebo has fewer of them."""
    return replace(lead.choice, complete=False, before=None, after=None)


def _rings(settings: Settings, lead: Estimated) -> Shown:
    """Effects on untreated units near treated ones, and the effect with those left out (Butts 2021)."""
    panel, scale = lead.data.panel, _scale(lead)
    if not settings.rings:
        return Shown((), ())
    if lead.ring is None:
        return Shown((Note("did_no_rings", {"variable": settings.rings}, "warn"),), ())
    onset = None if len(panel.cohorts) == 1 else np.full(panel.units, int(panel.cohorts[0]))
    try:
        found = of_exposure(panel, given_rings(panel, lead.ring, onset), lead.choice)
    except (DesignError, UsageError, DataError) as error:
        return Shown((Note("did_placebo_not", {"why": error.faults[0].code}),), ())
    value, error_ = found.table()
    rows: list[dict[str, Any]] = []
    for number, units in enumerate(found.units.tolist()):
        persons = int(lead.data.persons[lead.ring == number].sum())
        ends = (value[number] - Z * error_[number], value[number] + Z * error_[number])
        rows.append(
            {"ring": str(number), "units": units, "estimate": _known(scale * value[number]),
             "ci_low": _known(scale * ends[0]), "ci_high": _known(scale * ends[1]), "persons": persons}
        )  # fmt: skip
    for name, effects in (("column.main_effect", found.main), ("column.main_without_rings", found.without)):
        numbers = _interval(overall(effects), 0, scale)
        numbers.pop("std_error")
        rows.append({"ring": name, "units": None, **numbers, "persons": _smallest(lead)})
    columns = (
        Column("ring", "ring", "key"), Column("units", "panel_units", "text"),
        *_numbers(lead, "estimate", "ci_low", "ci_high"),
    )  # fmt: skip
    return Shown((Table("did_rings", "did_rings", columns, tuple(rows)),), ())


# -- does the composition change --------------------------------------------------------------------------------------


def _changing(sample: Sample, settings: Settings, lead: Estimated) -> Shown:
    """Whether treatment goes together with who is observed: covariate means, and being seen at all."""
    panel = lead.data.panel
    persons = _smallest(lead)
    estimator = _unbounded(lead)
    findings: list[Finding] = []
    exhibits: list[Exhibit] = []
    traits = _traits(sample, settings, lead)
    if traits is not None:
        try:
            found = composition(traits, estimator)
        except (DesignError, UsageError):
            found = None
        if found is not None and np.isfinite(found.joint):
            rows = _composition_rows(found.names, found.standardised, found.p_holm, persons)
            columns = (Column("variable", "variable", "text"), *_numbers(lead, "standardised", "p_value"))
            exhibits.append(Table("did_composition", "did_composition", columns, rows))
            verdict = _warn(found.joint < 0.05, "pass")
            params = {"p": found.joint, "persons": persons}
            findings.append(Finding("did_composition", lead.outcome.name, verdict, found.joint, 0.05, params))
    if not panel.repeated and not panel.balanced:
        try:
            seen = overall(presence(panel, estimator))
        except (DesignError, UsageError):
            return Shown(tuple(exhibits), tuple(findings))
        p_value = _two_sided(seen)
        verdict = _warn(p_value < 0.05, "pass")
        params = {"p": p_value, "change": float(seen.estimate[0]), "persons": persons}
        findings.append(Finding("did_presence", lead.outcome.name, verdict, p_value, 0.05, params))
    return Shown(tuple(exhibits), tuple(findings))


def _traits(sample: Sample, settings: Settings, lead: Estimated) -> Panel | None:
    """A panel whose covariates say who is observed: in cross-sections their own, in groups means of those at risk."""
    panel = lead.data.panel
    if not settings.composition:
        return None
    if panel.repeated:
        return panel if panel.names else None
    covariates = sample.study.covariates
    if sample.source != "register" or lead.data.unit == "person" or not (covariates.numeric or covariates.categorical):
        return None
    data = sample.panel(lead.outcome.name, unit=settings.unit or None, period=settings.period, traits=True)
    assert data.traits is not None
    known = np.asarray(np.isfinite(data.traits).all(axis=1), bool)
    whole = replace(data.panel, x=np.where(np.isfinite(data.traits), data.traits, 0.0), names=data.trait_names)
    return whole if known.all() else whole.take_rows(known)


def _composition_rows(names: Sequence[str], size: Any, p_value: Any, persons: int) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"variable": name, "standardised": _known(a), "p_value": _known(p), "persons": persons}
        for name, a, p in zip(names, size, p_value, strict=True)
    )
