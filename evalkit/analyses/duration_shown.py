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
from evalkit.duration.describe import gray_test, logrank
from evalkit.duration.episodes import episodes
from evalkit.duration.spells import NEVER, Spells
from evalkit.exhibits import Chart, Column, Exhibit, Finding, Note, Series, Table, Verdict
from evalkit.sample import Sample

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
Z95 = 1.959963984540054
CLOSED = 1e-3
"""A directional derivative below this counts as none: per person it is nothing."""
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
    exhibits: list[Exhibit] = [_effects(made), *_curves(made.spells)]
    findings: list[Finding] = []
    rates, fit = _rates(made)
    exhibits.append(rates)
    exhibits += _tests(sample, known)
    findings.append(fit)
    tested = _proportional(made)
    exhibits += tested.exhibits
    findings += tested.findings
    if made.path is not None:
        mixture = _mixture(settings, made)
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
    error, rows = hazards.std_error, []
    for j, cause in enumerate(made.spells.causes):
        exits = _exits_by_phase(made, j)
        for column, phase in zip(effect_columns(made), own.phases, strict=True):
            place = hazards.offsets[j] + column
            value = float(hazards.theta[j][column])
            known = bool(hazards.free[place])
            reach = Z95 * float(error[place])
            rows.append(
                {
                    "destination": cause,
                    "phase": words_of(phase, own.name),
                    "hazard_ratio": float(np.exp(value)) if known else None,
                    "hr_low": float(np.exp(value - reach)) if known else None,
                    "hr_high": float(np.exp(value + reach)) if known else None,
                    "exits": int(exits[column]),
                }
            )
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


def _exits_by_phase(made: Made, cause: int) -> Array:
    """(P,) exits to a destination in each column of its design."""
    events = (made.histories.event == cause).astype(float)
    return made.histories.designs[cause].sums(events)[0]


# -- who leaves when ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Months:
    """By elapsed month: spells at risk (M,), and exits to each destination (M, J)."""

    at_risk: Numbers
    exits: Numbers

    @classmethod
    def of(cls, spells: Spells) -> _Months:
        last = supported(spells)[0]
        change = np.bincount(np.minimum(spells.entry, last), minlength=last + 1)
        change -= np.bincount(np.minimum(spells.stop, last), minlength=last + 1)
        ended = spells.cause >= 0
        place = (spells.stop[ended] - 1) * len(spells.causes) + spells.cause[ended]
        exits = np.bincount(place, minlength=last * len(spells.causes)).reshape(last, -1)
        return cls(np.cumsum(change)[:last], exits)


def _curves(spells: Spells) -> Iterator[Chart]:
    """Cumulated exits by destination (Aalen-Johansen), from the first month with enough people on."""
    months = _Months.of(spells)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(months.at_risk[:, None] > 0, months.exits / months.at_risk[:, None], 0.0)
    alive = np.concatenate([[1.0], np.cumprod(1 - rate.sum(axis=1))[:-1]])
    gone = np.cumsum(alive[:, None] * rate, axis=0)
    support = tuple(int(n) for n in months.at_risk)
    series = tuple(
        Series(cause, tuple(float(v) for v in gone[:, j]), support=support) for j, cause in enumerate(spells.causes)
    )
    x = tuple(range(1, len(gone) + 1))
    yield Chart("duration_exits", "duration_exits", "step", x, series, "share", "month_on_benefit")


def _rates(made: Made) -> tuple[Chart, Finding]:
    """Observed exits in each elapsed month beside those that the model expects of the people at risk in it."""
    months = _Months.of(made.spells)
    (fit,) = calibrate(made.layout, made.hazards)
    last = len(months.at_risk)
    expected, variance = fit.expected.sum(axis=1)[:last], fit.variance.sum(axis=1)[:last]
    left = months.exits.sum(axis=1)
    support = tuple(int(n) for n in months.at_risk)

    def rate(values: Array) -> tuple[float | None, ...]:
        return tuple(float(v / n) if n else None for v, n in zip(values, months.at_risk, strict=True))

    series = (
        Series("observed_rate", rate(left), support=support),
        Series("fitted_rate", rate(expected), support=support),
    )
    x = tuple(range(1, len(left) + 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(left / expected - 1)
        clear = np.abs(left - expected) > 3.0 * np.sqrt(variance)
    many = expected >= 20
    worst = float(gap[many].max()) if many.any() else 0.0
    off = bool((many & clear & (gap > OFF)).any())
    code, verdict = ("duration_fit_off", "warn") if off else ("duration_fit", "pass")
    finding = Finding(code, "", verdict, worst, OFF, {"gap": worst})  # type: ignore[arg-type]
    return Chart("duration_rate", "duration_rate", "line", x, series, "share", "month_on_benefit"), finding


# -- tests ------------------------------------------------------------------------------------------------------------


def _tests(sample: Sample, known: Known) -> Iterator[Table]:
    """Whether the groups of the study leave at different speeds: log-rank on leaving, Gray's test by destination."""
    spells, rows = known.spells, []
    names = np.array(["", *spells.causes], object)
    made = episodes(
        spells.stop, names[spells.cause + 1], start=spells.entry, causes=spells.causes,
        cluster=spells.cluster[spells.person], level=spells.level,
    )  # fmt: skip
    for subgroup in sample.study.subgroups:
        group = sample.group(subgroup.name, subgroup.cuts, known.timed.entries)
        if len(np.unique(group.codes)) < 2:
            continue
        plain = logrank(made.together(), group.codes)
        rows.append(_tested(subgroup.name, "any", plain, len(spells)))
        for cause in spells.causes if len(spells.causes) > 1 else ():
            rows.append(_tested(subgroup.name, cause, gray_test(made, group.codes, cause), len(spells)))
    if rows:
        columns = (
            Column("variable", "variable", "text"), Column("destination", "destination", "text"),
            Column("statistic", "statistic", "stat", support="exits"), Column("df", "df", "text"),
            Column("p_value", "p_value", "stat", support="exits"), Column("exits", "exits", "count", decimals=0),
        )  # fmt: skip
        yield Table("duration_tests", "duration_tests", columns, tuple(rows))


def _tested(name: str, cause: str, test: Any, support: int) -> dict[str, Any]:
    return {
        "variable": name, "destination": cause,
        "statistic": float(test.statistic), "df": str(int(test.df)), "p_value": float(test.p_value), "exits": support,
    }  # fmt: skip


def _proportional(made: Made) -> Shown:
    """Does a covariate, or the instrument, work alike early and late? For the first destination."""
    hazards = made.hazards if made.path is None else made.path.steps[0].hazards
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


def _mixture(settings: Settings, made: Made) -> Shown:
    """The path by number of groups, the certificate, and what identification rests on."""
    assert made.path is not None
    columns = [
        Column("points", "points", "text"), Column("log_likelihood", "log_likelihood", "stat", decimals=1),
        *(Column(name, name, "stat", decimals=1) for name in ("aic", "hq", "bic")),
        Column("destination", "destination", "text"), Column("effect_log", "effect_log", "stat"),
        Column("std_error", "std_error", "stat"), Column("chosen", "chosen", "text"),
    ]  # fmt: skip
    rows, first = [], effect_columns(made)[-1]
    for step in made.path.steps:
        fit = step.hazards
        place = fit.offsets[0] + first
        rows.append(
            {
                "points": str(len(fit.shares)), "log_likelihood": fit.log_likelihood, "aic": step.aic, "hq": step.hq,
                "bic": step.bic, "destination": made.spells.causes[0], "effect_log": float(fit.theta[0][first]),
                "std_error": float(fit.std_error[place]), "chosen": "*" if fit is made.hazards else "",
            }
        )  # fmt: skip
    table = Table("duration_points", "duration_points", tuple(columns), tuple(rows))
    return Shown((table,), tuple(_doubts(settings, made, rows)))


def _doubts(settings: Settings, made: Made, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    path = made.path
    assert path is not None
    persons = made.histories.persons
    closed = path.largest <= max(CLOSED, 1e-6 * persons)
    params: dict[str, Any] = {"gap": float(path.largest), "points": len(path.last.shares)}
    verdict: Verdict = "pass" if closed else "info"
    yield Finding("duration_certificate" if closed else "duration_certificate_open", "", verdict, float(path.largest),
                  CLOSED, params)  # fmt: skip
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
    hazards = made.hazards
    instruments = [each.name for each in made.spells.instruments]
    error, rows = hazards.std_error, []
    for k, risk in enumerate(hazards.risks):
        for place, name in enumerate(hazards.names[k]):
            at = hazards.offsets[k] + place
            held = not hazards.free[at]
            rows.append(
                {
                    "destination": f"{risk.removeprefix('start ')}:start" if risk.startswith("start ") else risk,
                    "variable": words_of(name, instruments),
                    "coefficient": None if held else float(hazards.theta[k][place]),
                    "std_error": None if held else float(error[at]),
                }
            )  # fmt: skip
    return Table("duration_model", "duration_model", columns, tuple(rows))
