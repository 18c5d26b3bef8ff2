"""What a duration model shows beside its effects: who leaves when, multiples of rates, fit, what may be doubted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.analyses.duration import Known, Made, Settings
from evalkit.balance import holm
from evalkit.duration.answers import supported
from evalkit.duration.calibration import calibrate, late_stretches, proportional
from evalkit.duration.describe import aalen_johansen, gray_test, logrank
from evalkit.duration.episodes import Episodes, episodes
from evalkit.duration.hazard_tables import Coefficient, coefficients, criteria
from evalkit.duration.npmle import CLOSED
from evalkit.duration.spells import NEVER, Spells
from evalkit.exhibits import Chart, Column, Exhibit, Finding, Note, Series, Table, Verdict
from evalkit.sample import Sample

Array = NDArray[np.float64]
_CERTIFICATE: dict[bool, tuple[str, Verdict]] = {
    True: ("duration_certificate", "pass"),
    False: ("duration_certificate_open", "info"),
}
OFF = 0.10
"""A month in which the model is so far off, and clearly so, is told."""
MOVES = 0.10
"""An effect (log) that moves so much along the path of points is told."""
SURE = 0.01
"""A covariate that works differently late, at this level after correction, is told."""


@dataclass(frozen=True)
class Shown:
    """Exhibits and findings."""

    exhibits: tuple[Exhibit, ...]
    findings: tuple[Finding, ...]


def shown(sample: Sample, settings: Settings, known: Known, made: Made) -> Shown:
    """Everything that stands beside the profiles."""
    stretches = _episodes(made.spells)
    rates, fit = _rates(made)
    exhibits: list[Exhibit] = [_effects(made), _curves(made.spells, stretches), rates]
    exhibits += _tests(sample, known, stretches)
    findings: list[Finding] = [fit]
    tested = _proportional(made)
    exhibits += tested.exhibits
    findings += tested.findings
    if made.path is not None:
        mixture = _mixture(made)
        exhibits += mixture.exhibits
        findings += mixture.findings
    exhibits.append(_model(made))
    if known.plans_unknown:
        share = known.plans_unknown / max(1, int((made.spells.started[0] < NEVER).sum()))
        params = {"share": share, "starters": known.plans_unknown}
        findings.append(Finding("duration_unknown_plan", "", "warn" if share > 0.2 else "info", share, 0.2, params))
    exhibits += _notes(sample, settings, made)
    return Shown(tuple(exhibits), tuple(findings))


def _notes(sample: Sample, settings: Settings, made: Made) -> Iterator[Note]:
    words = {
        "estimator": settings.model,
        "outcomes": list(made.spells.causes),
        "steps": "1, 2, 3, …" if settings.duration == "monthly" else ", ".join(map(str, settings.duration)),
    }
    yield Note("duration_method", words)
    yield Note("duration_clock")
    if made.spells.instrument.clock == "end":
        yield Note("duration_realised" if settings.phases == "realised" else "duration_planned")
    if sample.study.treatment.versus == "wait":
        yield Note("duration_wait")
    if settings.model == "mixture":
        yield Note("duration_mixture")


# -- multiples of rates ------------------------------------------------------------------------------------------------


def effect_columns(made: Made) -> list[int]:
    """Where the phases of the evaluated instrument stand among the coefficients of an exit."""
    names = made.hazards.names[0]
    return [names.index(phase) for phase in made.spells.instrument.phases if phase in names]


def _effects(made: Made) -> Table:
    """Exit rates in each phase as a multiple of those without the instrument."""
    hazards, own = made.hazards, made.spells.instrument
    columns = (
        Column("destination", "destination", "text"), Column("phase", "phase", "text"),
        Column("hazard_ratio", "hazard_ratio", "stat", support="exits"),
        Column("hr_low", "hr_low", "stat", support="exits"), Column("hr_high", "hr_high", "stat", support="exits"),
        Column("exits", "exits", "count", decimals=0),
    )  # fmt: skip
    rows, shown = [], {(row.risk, row.name): row for row in coefficients(hazards)}
    for j, cause in enumerate(made.spells.causes):
        exits = made.histories.designs[j].sums((made.histories.event == j).astype(float))[0]
        for column, phase in zip(effect_columns(made), own.phases, strict=True):
            of = shown[cause, phase]
            limits = {"hazard_ratio": of.ratio, "hr_low": np.exp(of.low), "hr_high": np.exp(of.high)}
            words = {"destination": cause, "phase": words_of(phase, own.name), "exits": int(exits[column])}
            rows.append(words | {name: _told(of, value) for name, value in limits.items()})
    return Table("duration_effects", "duration_effects", columns, tuple(rows))


def words_of(name: str, instruments: str | list[str]) -> str:
    """The name of a column of the design as ``column:level``, which the report puts into words."""
    for own in [instruments] if isinstance(instruments, str) else instruments:
        if name.startswith(f"{own} "):
            level = name.removeprefix(f"{own} ")
            level = level if level.startswith(("during", "after")) else f"since {level}"
            return f"{own}:{level.replace('+', ' plus').replace(' ', '_').replace('-', '_')}"
    head, _, rest = name.partition(" ")
    column = {"month": "elapsed", "year": "calendar_year", "quarter": "quarter"}.get(head)
    return f"{column}:{rest.replace('-', '–')}" if column and rest[:1].isdigit() else name


def _told(of: Coefficient, value: float) -> float | None:
    """A number of a coefficient; none where its level was held."""
    return float(value) if np.isfinite(of.std_error) else None


# -- who leaves when ---------------------------------------------------------------------------------------------------


def _episodes(spells: Spells) -> Episodes:
    """Spells as stretches of time at risk, in months."""
    names = np.array(["", *spells.causes], object)
    return episodes(
        spells.stop, names[spells.cause + 1], start=spells.entry, causes=spells.causes,
        cluster=spells.cluster[spells.person], level=spells.level,
    )  # fmt: skip


def _curves(spells: Spells, made: Episodes) -> Chart:
    """Cumulated exits by destination (Aalen-Johansen)."""
    found = aalen_johansen(made, errors="influence")
    months = np.arange(1, supported(spells)[0] + 1)
    support = tuple(int(n) for n in found.curves[0].at_risk_at(months))
    series = tuple(
        Series(cause, tuple(map(float, curve.at(months))), support=support)
        for cause, curve in zip(found.causes, found.curves, strict=True)
    )
    return Chart(
        "duration_exits", "duration_exits", "step", tuple(months.tolist()), series, "share", "month_on_benefit"
    )


def _rates(made: Made) -> tuple[Chart, Finding]:
    """Observed exits in each elapsed month beside those that the model expects of the people at risk in it."""
    (fit,) = calibrate(made.layout, made.hazards)
    last = supported(made.spells)[0]
    at_risk, expected, variance, left = (
        fit.at_risk[:last],
        *(part.sum(axis=1)[:last] for part in (fit.expected, fit.variance, fit.observed)),
    )

    def rate(key: str, values: Array) -> Series:
        shares = tuple(float(v / n) if n else None for v, n in zip(values, at_risk, strict=True))
        return Series(key, shares, support=tuple(int(n) for n in at_risk))

    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(left / expected - 1)
        clear = np.abs(left - expected) > 3.0 * np.sqrt(variance)
    many = expected >= 20
    worst = float(gap[many].max()) if many.any() else 0.0
    off = bool((many & clear & (gap > OFF)).any())
    verdict: Verdict = "warn" if off else "pass"
    finding = Finding("duration_fit_off" if off else "duration_fit", "", verdict, worst, OFF, {"gap": worst})
    series = (rate("observed_rate", left), rate("fitted_rate", expected))
    months = tuple(range(1, last + 1))
    return Chart("duration_rate", "duration_rate", "line", months, series, "share", "month_on_benefit"), finding


# -- tests ------------------------------------------------------------------------------------------------------------


def _tests(sample: Sample, known: Known, made: Episodes) -> Iterator[Table]:
    """Whether the groups of the study leave at different speeds: log-rank on leaving, Gray's test by destination."""
    spells, rows = known.spells, []
    for subgroup in sample.study.subgroups:
        group = sample.group(subgroup.name, subgroup.cuts, known.timed.entries)
        if len(np.unique(group.codes)) < 2:
            continue
        tests = {"any": logrank(made.together(), group.codes)}
        if len(spells.causes) > 1:
            tests |= {cause: gray_test(made, group.codes, cause) for cause in spells.causes}
        rows += [
            {"variable": subgroup.name, "destination": cause, "statistic": float(test.statistic), "df": str(test.df),
             "p_value": float(test.p_value), "exits": len(spells)}
            for cause, test in tests.items()
        ]  # fmt: skip
    if rows:
        columns = (
            Column("variable", "variable", "text"), Column("destination", "destination", "text"),
            Column("statistic", "statistic", "stat", support="exits"), Column("df", "df", "text"),
            Column("p_value", "p_value", "stat", support="exits"), Column("exits", "exits", "count", decimals=0),
        )  # fmt: skip
        yield Table("duration_tests", "duration_tests", columns, tuple(rows))


def _proportional(made: Made) -> Shown:
    """Does a covariate, or the instrument, work alike early and late? For the first destination."""
    hazards = made.hazards if made.path is None else made.path.models[0]
    cause, names = made.spells.causes[0], made.hazards.names[0]
    middle = int(np.median(made.spells.stop[made.spells.cause >= 0]))
    cut = max((step for step in made.layout.timeline.duration if step <= middle), default=0)
    late = late_stretches(made.histories.designs[0], cut)
    if not cut or not late.any():
        return Shown((), ())
    columns: dict[str, tuple[int, ...]] = {}
    for place, name in enumerate(names[: made.spells.x.width]):
        if hazards.free[place]:
            columns[name.partition(":")[0]] = (*columns.get(name.partition(":")[0], ()), place)
    own = tuple(place for place in effect_columns(made) if hazards.free[place])
    if own:
        columns[made.spells.instrument.name] = own
    found = proportional(made.histories, hazards, cause, columns, late)
    if not found:
        return Shown((), ())
    corrected = holm(np.array([test.p_value for test in found]))
    support = int(((made.spells.cause == 0) & (made.spells.stop > cut)).sum())
    rows = tuple(
        {"variable": test.name, "statistic": test.statistic, "df": str(test.df), "p_value": test.p_value,
         "p_holm": float(p), "exits": support}
        for test, p in zip(found, corrected, strict=True)
    )  # fmt: skip
    parts = (
        Column("variable", "variable", "text"), Column("statistic", "statistic", "stat", support="exits"),
        Column("df", "df", "text"), Column("p_value", "p_value", "stat", support="exits", decimals=3),
        Column("p_holm", "p_holm", "stat", support="exits", decimals=3),
        Column("exits", "exits_late", "count", decimals=0),
    )  # fmt: skip
    smallest = float(corrected.min())
    finding = Finding(
        "duration_proportional_off" if smallest < SURE else "duration_proportional", "",
        "warn" if smallest < SURE else "pass", smallest, SURE,
        {"p": smallest, "covariates": [t.name for t, p in zip(found, corrected, strict=True) if p < SURE]},
    )  # fmt: skip
    table = Table("duration_proportional", "duration_proportional", parts, rows)
    return Shown((table, Note("duration_proportional", {"month": cut})), (finding,))


# -- hidden differences -----------------------------------------------------------------------------------------------


def _mixture(made: Made) -> Shown:
    """The path by number of groups, the certificate, and what identification rests on."""
    assert made.path is not None
    columns = [
        Column("points", "points", "text"), Column("log_likelihood", "log_likelihood", "stat", decimals=1),
        *(Column(name, name, "stat", decimals=1) for name in ("aic", "hq", "bic")),
        Column("destination", "destination", "text"), Column("effect_log", "effect_log", "stat"),
        Column("std_error", "std_error", "stat"), Column("chosen", "chosen", "text"),
    ]  # fmt: skip
    rows, first = [], effect_columns(made)[-1]
    for fit in made.path.models:
        judged = criteria(fit)
        rows.append(
            {
                "points": str(len(fit.shares)), "log_likelihood": fit.log_likelihood, "aic": judged.aic,
                "hq": judged.hq, "bic": judged.bic, "destination": made.spells.causes[0],
                "effect_log": float(fit.theta[0][first]), "std_error": float(fit.std_error[fit.offsets[0] + first]),
                "chosen": "*" if fit is made.hazards else "",
            }
        )  # fmt: skip
    table = Table("duration_points", "duration_points", tuple(columns), tuple(rows))
    return Shown((table,), tuple(_doubts(made, rows)))


def _doubts(made: Made, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    path = made.path
    assert path is not None
    params: dict[str, Any] = {"gap": float(path.largest), "points": len(path.last.shares)}
    code, verdict = _CERTIFICATE[path.closed]
    yield Finding(code, "", verdict, float(path.largest), CLOSED, params)
    chosen = len(made.hazards.shares)
    if chosen == 1:
        yield Finding("duration_hidden_none", "", "info")
    else:
        effect = {"without": rows[0]["effect_log"], "with": float(made.hazards.theta[0][effect_columns(made)[-1]])}
        yield Finding("duration_hidden", "", "info", params={"points": chosen, **effect})
    later = [row["effect_log"] for row in rows if int(row["points"]) >= chosen]
    if max(later) - min(later) > MOVES:
        params = {"low": float(min(later)), "high": float(max(later))}
        yield Finding("duration_effect_moves", "", "warn", max(later) - min(later), MOVES, params)
    if not made.hazards.free.all():
        yield Finding("duration_edge", "", "info")
    several = len(np.unique(made.spells.person)) < len(made.spells)
    if not several:
        yield Finding("duration_proportionality_only", "", "warn")


def _model(made: Made) -> Table:
    """All coefficients, for the referee."""
    columns = (
        Column("destination", "destination", "text"), Column("variable", "variable", "text"),
        Column("coefficient", "coefficient", "stat"), Column("std_error", "std_error", "stat"),
    )  # fmt: skip
    instruments = [each.name for each in made.spells.instruments]
    rows = tuple(
        {"destination": f"{of.risk.removeprefix('start ')}:start" if of.risk.startswith("start ") else of.risk,
         "variable": words_of(of.name, instruments), "coefficient": _told(of, of.estimate),
         "std_error": _told(of, of.std_error)}
        for of in coefficients(made.hazards)
    )  # fmt: skip
    return Table("duration_model", "duration_model", columns, rows)
