"""Difference-in-differences on panels, and in hazards: settings and sample in, profiles by event time out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evalkit.did.choice import Choice, SyntheticErrors, within, without_covariate, without_covariates
from evalkit.did.effects import RESERVATIONS, Effects
from evalkit.did.few import (
    Tested,
    conley_taber,
    ferman_pinto,
    few_clusters,
    randomisation,
    wild_influence,
    wild_two_way,
)
from evalkit.did.multiplier import multiplier_bootstrap
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Covariance, EffectProfile, Estimand, Influence, Intervals
from evalkit.errors import DesignError, Fault, StudyError, UsageError
from evalkit.exhibits import Analysis, Exhibit, Finding, Note
from evalkit.gate import placebo_finding
from evalkit.sample import PanelData, PanelStep, Sample
from evalkit.study import Frozen, Outcome, Study

Estimator = Literal[
    "group_time", "sun_abraham", "imputation", "extended", "stacked", "two_way", "synthetic", "triple", "hazards"
]
Errors = Literal[
    "influence", "multiplier", "wild", "randomisation", "conley_taber", "ferman_pinto", "placebo", "jackknife",
    "bootstrap",
]  # fmt: skip
REPEATED = ("placebo", "jackknife", "bootstrap")
"""Errors of synthetic difference-in-differences only."""
BY_TEST = ("wild", "randomisation", "conley_taber", "ferman_pinto")
"""Procedures that give intervals and nothing else."""
NEVER_ONLY = ("conley_taber", "ferman_pinto")
"""Procedures that estimate by contrasts with never treated groups of their own."""
SHORT = {1: 12, 3: 8, 12: 5}
"""Periods before the start that are shown by default, by the length of a period in months."""
TOLD = ("cell_lone", "regression_cohort_small")
"""Reservations that the findings on the panel itself make already."""
NOBODY = {"did.no_treated", "did.no_comparison", "did.no_period_before", "did.one_period", "did.no_rows"}


class Placebo(Frozen):
    """A test on the periods before the start: their mean effect must lie within ``margin``, in outcome units."""

    margin: float = Field(gt=0)


class Honest(Frozen):
    """Robustness to trends that are not parallel.

    ``relative``: bounds as multiples of the largest move between two periods before. ``smooth``: bounds on a change of
    slope per period, in outcome units (percentage points as fractions).
    """

    relative: tuple[Annotated[float, Field(ge=0)], ...] = (0.5, 1.0, 2.0)
    smooth: tuple[Annotated[float, Field(ge=0)], ...] = ()


class Hazard(Frozen):
    """How exit rates are modelled without the approach: see ``evalkit.did.hazards``."""

    link: Literal["cloglog", "identity"] = "cloglog"
    duration: Literal["monthly", "bands"] = "monthly"
    group_durations: bool = False
    population: Literal["exposed", "stock", "inflow"] = "exposed"


class Settings(Frozen):
    """Which estimator on which panel, with which errors, and what is looked at besides.

    ``unit``: ``person`` or a column of persons, by default ``treatment.unit``; ``period``: of the panel. ``inflow``:
    instead of following units, those who enter, by period of entry, with their outcome so many months later.
    ``before``: periods before the start that are shown. ``draws``: repetitions of bootstraps and tests. ``rings``:
    the covariate that says in which ring around treated units an untreated unit lies (0, 1, ..; -1 far away).
    The other settings are those of ``evalkit.did.choice.Choice``.
    """

    estimator: Estimator = "group_time"
    unit: str = ""
    period: Literal["month", "quarter", "year"] = "month"
    inflow: int = Field(default=0, ge=0, le=120)
    control: Literal["not_yet", "never"] = "not_yet"
    adjust: Literal["dr", "ipw", "reg", "dr_improved"] = "dr"
    covariates: bool = True
    base: Literal["universal", "varying"] = "universal"
    anticipation: int = Field(default=0, ge=0, le=60)
    unbalanced: Literal["complete", "by_pair", "cross_sections"] = "complete"
    family: Literal["linear", "logit", "poisson"] = "linear"
    eligible: str = ""
    before: int | None = Field(default=None, ge=1, le=240)
    errors: Errors | None = None
    draws: int = Field(default=999, ge=99, le=99_999)
    placebo: Placebo | None = None
    honest: Honest | None = Honest()
    leave_out: bool = True
    composition: bool = True
    placebo_dates: int = Field(default=0, ge=0, le=60)
    placebo_groups: bool = False
    rings: str = ""
    hazard: Hazard = Hazard()

    @property
    def chosen_errors(self) -> Errors:
        """The errors asked for, else those that go with the estimator."""
        return self.errors or ("placebo" if self.estimator == "synthetic" else "influence")

    def choice(self, periods: int, period_months: int, complete: bool, seed: int) -> Choice:
        """The estimator for a horizon of so many periods."""
        errors = self.chosen_errors
        repetitions: SyntheticErrors = "placebo"
        if errors == "jackknife" or errors == "bootstrap":
            repetitions = errors
        return Choice(
            estimator=self.estimator if self.estimator != "hazards" else "group_time", control=self.control,
            adjust=self.adjust, base=self.base, anticipation=self.anticipation, unbalanced=self.unbalanced,
            family=self.family, before=self.before or SHORT.get(period_months, 6), after=periods - 1,
            complete=complete, covariates=self.covariates, eligible=self.eligible,
            repetitions=repetitions, draws=self.draws, seed=seed,
        )  # fmt: skip


def faults(study: Study, settings: Settings) -> list[Fault]:
    """What the settings ask that does not go together, or that this study cannot give."""
    place, errors = study.path.name, settings.chosen_errors
    wrong: list[Fault] = []
    if study.table is not None:
        wrong.append(Fault("did.no_panel", {"source": "table"}, place))
    synthetic = settings.estimator == "synthetic"
    if (errors in REPEATED) != synthetic:
        allowed = ", ".join(REPEATED) if synthetic else "influence, multiplier, " + ", ".join(BY_TEST)
        wrong.append(
            Fault("did.errors_unfit", {"errors": errors, "estimator": settings.estimator, "allowed": allowed}, place)
        )
    elif errors in NEVER_ONLY and settings.estimator != "group_time":
        params = {
            "errors": errors,
            "estimator": settings.estimator,
            "allowed": "influence, multiplier, wild, randomisation",
        }
        wrong.append(Fault("did.errors_unfit", params, place))
    if errors == "multiplier" and settings.draws < 200:
        wrong.append(Fault("did.multiplier_setting", {"setting": "draws", "allowed": "200, 201, ..."}, place))
    if settings.placebo is not None and (synthetic or settings.estimator == "extended"):
        wrong.append(Fault("did.placebo_by_construction", {"estimator": settings.estimator}, place))
    if settings.anticipation and settings.estimator in ("stacked", "synthetic"):
        wrong.append(Fault("did.no_anticipation", {"estimator": settings.estimator}, place))
    if settings.estimator == "triple" and not settings.eligible:
        wrong.append(Fault("did.triple_needs_eligible", {}, place))
    if settings.estimator == "hazards":
        wrong += _hazard_faults(study, settings)
    asked = settings.honest is not None and bool(settings.honest.relative or settings.honest.smooth)
    if settings.base == "varying" and asked and "honest" in settings.model_fields_set:
        wrong.append(Fault("did.honest_needs_universal_base", {}, place))
    if settings.estimator != "hazards" and not _outcomes(study, settings)[0]:
        wrong.append(Fault("did.exit_of_person", {}, place))
    if settings.inflow and study.data is None:
        wrong.append(Fault("did.inflow_register", {}, place))
    return wrong


def _hazard_faults(study: Study, settings: Settings) -> Iterator[Fault]:
    place = study.path.name
    if study.data is None:
        yield Fault("did.hazards_register", {}, place)
    elif not any(o.source.startswith("exit:") and o.role == "effect" for o in study.outcomes):
        yield Fault("did.hazards_no_exit", {}, place)
    if settings.chosen_errors != "influence":
        params = {"errors": settings.chosen_errors, "estimator": "hazards", "allowed": "influence"}
        yield Fault("did.errors_unfit", params, place)
    if study.treatment.unit == "person" and not settings.unit:
        yield Fault("did.hazards_needs_groups", {}, place)


@dataclass(frozen=True)
class Estimated:
    """One outcome: its panel, the estimator with its settings, and what came of it.

    ``ring`` (N,): the ring of each unit where the study names a column of rings; it is no covariate then.
    """

    outcome: Outcome
    data: PanelData
    choice: Choice
    effects: Effects
    tested: Tested | None = None
    ring: NDArray[np.int64] | None = None

    @cached_property
    def persons(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """People beneath each event time; worked out once, since every exhibit asks for it."""
        return persons_beneath(self)


def run(sample: Sample, settings: Settings, rng: np.random.Generator, id: str = "did") -> Analysis:
    """Average effects on the treated by months (periods) since their start, placebo months before it included.

    Raises
    ------
    StudyError
        See :func:`faults`.
    DesignError, DataError
        Those of the panel and of the estimator.
    """
    wrong = faults(sample.study, settings)
    if wrong:
        raise StudyError(wrong)
    if settings.chosen_errors in NEVER_ONLY:  # what they do: contrasts with the never treated, without covariates
        settings = settings.model_copy(update={"control": "never", "covariates": False})
    if settings.estimator == "hazards":
        from evalkit.analyses.did_hazards import run_hazards

        return run_hazards(sample, settings, id)
    from evalkit.analyses.did_credible import credible, described

    outcomes, left_out = _outcomes(sample.study, settings)
    made = [estimated(sample, settings, outcome) for outcome in outcomes]
    profiles = [profile_of(sample, settings, id, one) for one in made]
    lead = next((one for one in made if one.outcome.primary), made[0])
    shown = [described(sample, settings, lead), credible(sample, settings, lead)]
    findings: list[Finding] = [*lead.data.notes, *few_of(lead, settings)]
    for one, profile in zip(made, profiles, strict=True):
        findings += list(_of_outcome(settings, one, profile))
    groups, notes = _subgroups(sample, settings, id, outcomes)
    findings += [f for part in shown for f in part.findings]
    exhibits = [e for part in shown for e in part.exhibits]
    exhibits += [*notes, _method(settings, lead)]
    if left_out:
        exhibits.append(Note("did_exit_of_person", {"outcomes": left_out}, "warn"))
    return Analysis(id, "did", (*profiles, *groups), tuple(exhibits), tuple(findings), tuple(lead.data.lost))


def _outcomes(study: Study, settings: Settings) -> tuple[list[Outcome], list[str]]:
    """The outcomes that the panel can have, and the names of those that it cannot: one person has no exit rate."""
    found = [o for o in study.outcomes if o.role == "effect"]
    if study.data is None or settings.inflow or (settings.unit or study.treatment.unit) != "person":
        return found, []
    exits = [o for o in found if o.source.startswith("exit:")]
    return [o for o in found if o not in exits], [o.name for o in exits]


def estimated(
    sample: Sample, settings: Settings, outcome: Outcome, among: NDArray[np.bool_] | None = None
) -> Estimated:
    """The panel of one outcome and the effects on it."""
    if settings.inflow:
        data = sample.cross_sections(
            outcome.name, months=settings.inflow, group=settings.unit or None, period=settings.period, among=among
        )
    else:
        data = sample.panel(outcome.name, unit=settings.unit or None, period=settings.period, among=among)
    periods = max(1, sample.horizon // data.period_months) if sample.source == "register" else sample.horizon
    choice = settings.choice(periods, data.period_months, sample.follow_up == "complete", sample.study.seed)
    data, ring = _without_rings(_completed(data, settings), settings.rings)
    effects, tested = uncertain(data, choice, settings, sample.study.seed)
    return Estimated(outcome, data, choice, effects, tested, ring)


def _completed(data: PanelData, settings: Settings) -> PanelData:
    """Only units that are seen in every period, where the estimator needs that or was told so; counted in the flow."""
    panel = data.panel
    whole = settings.estimator in ("synthetic", "triple") or (
        settings.estimator == "group_time" and settings.unbalanced == "complete"
    )
    if panel.repeated or panel.balanced or not whole:
        return data
    kept, dropped = panel.complete()
    if not kept.units:
        raise DesignError(Fault("did.group_time_no_complete", {"units": panel.units}))
    stays = np.ones(panel.units, bool)
    stays[dropped] = False
    return replace(data, panel=kept, persons=data.persons[stays], flow=_fewer(data, stays))


def _fewer(data: PanelData, stays: NDArray[np.bool_]) -> tuple[PanelStep, ...]:
    """The flow with a step for units that are not seen in every period."""
    panel, steps = data.panel, []
    rows = np.bincount(panel.unit, minlength=panel.units)
    for step in data.flow:
        if step.kind == "left":
            gone = ~stays & ((panel.first < NEVER) == (step.arm == "treated"))
            size = (int(gone.sum()), int(rows[gone].sum()), int(data.persons[gone].sum()))
            if gone.any():
                steps.append(PanelStep(step.step, step.arm, "out", "not_every_period", *size))
            left = (step.units - size[0], step.rows - size[1], step.persons - size[2])
            step = PanelStep(step.step + int(gone.any()), step.arm, "left", step.reason, *left)
        steps.append(step)
    return tuple(steps)


def _without_rings(data: PanelData, name: str) -> tuple[PanelData, NDArray[np.int64] | None]:
    """The panel without the column of rings, and the ring of each unit; -1 for units that are treated."""
    panel = data.panel
    if not name or name not in panel.names:
        return data, None
    ring = np.full(panel.units, -1, np.int64)
    ring[panel.unit] = panel.x[:, panel.names.index(name)].astype(np.int64)
    return replace(data, panel=without_covariate(panel, name)), np.where(panel.first == NEVER, ring, -1)


def uncertain(data: PanelData, choice: Choice, settings: Settings, seed: int) -> tuple[Effects, Tested | None]:
    """The effects with the uncertainty asked for; the test behind it where it is one."""
    errors, panel = settings.chosen_errors, data.panel
    if not choice.covariates:
        panel = without_covariates(panel)
    window = (-(choice.before or 0), choice.after or 0)
    tested: Tested
    if errors in ("conley_taber", "ferman_pinto"):
        ready = _followed(panel, choice)
        test = conley_taber if errors == "conley_taber" else ferman_pinto
        tested = test(
            ready, base="last", anticipation=choice.anticipation, window=window, draws=settings.draws, seed=seed
        )
    elif errors == "randomisation":
        tested = randomisation(panel, choice, draws=settings.draws, seed=seed)
    elif errors == "wild" and choice.estimator == "two_way":
        tested = wild_two_way(
            choice.prepared(panel), by="event", anticipation=choice.anticipation, draws=settings.draws, seed=seed
        )
    elif errors == "wild":
        found = choice(panel)
        tested = wild_influence(found, blocks=_blocks(panel, found), draws=settings.draws, seed=seed)
    elif errors == "multiplier":
        return _by_multiplier(choice(panel), settings.draws, seed), None
    else:
        return choice(panel), None
    if tested.effects is None:
        raise DesignError(Fault("did.no_overall", {}))
    return within(tested.effects, window), tested


def _blocks(panel: Panel, effects: Effects) -> NDArray[np.int64] | None:
    """The first treated period of each cluster, in the order of the influence."""
    if not isinstance(effects.uncertainty, Influence):
        return None
    of = dict(zip(panel.cluster_ids.tolist(), panel.first_of_cluster.tolist(), strict=True))
    return np.array([of[i] for i in effects.uncertainty.ids.tolist()], np.int64)


def _followed(panel: Panel, choice: Choice) -> Panel:
    """Without the units that start too late to be followed, where everyone is to be followed equally long."""
    choice.prepared(panel)  # says so when nobody can be
    if not choice.complete or choice.after is None:
        return panel
    return panel.take_units((panel.first == NEVER) | (panel.first + choice.after <= panel.periods[-1]))


def _by_multiplier(effects: Effects, draws: int, seed: int) -> Effects:
    """Standard errors of a multiplier bootstrap in the place of those of the influence function, correlations kept."""
    if not isinstance(effects.uncertainty, Influence):
        return effects
    own = effects.std_error
    drawn = multiplier_bootstrap(effects.uncertainty, draws=draws, seed=seed).std_error
    scale = np.divide(drawn, own, out=np.zeros_like(own), where=own > 0)
    kind = effects.se_kind.replace("influence function", "multiplier bootstrap")
    overall = None if effects.overall is None else _by_multiplier(effects.overall, draws, seed)
    vcov = scale[:, None] * np.asarray(effects.vcov) * scale
    return replace(effects, uncertainty=Covariance(vcov), se_kind=kind, overall=overall)


# -- from effects by event time to a profile ------------------------------------------------------------------------


def profile_of(sample: Sample, settings: Settings, id: str, one: Estimated, subgroup: str = "") -> EffectProfile:
    """The effects as a profile: event time e is month (period) e + 1, months up to 0 lie before the start."""
    study, effects, outcome, data = sample.study, one.effects, one.outcome, one.data
    rate = outcome.kind == "event" and not settings.inflow
    treated, comparison = one.persons
    labels = {
        "analysis": id,
        "method": "did",
        "instrument": study.treatment.instrument,
        "comparison": "no_adoption",
        "outcome": outcome.name,
        "subgroup": subgroup,
        "better": outcome.better,
        "primary": "true" if outcome.primary else "false",
        "unit_of_panel": data.unit,
        "covariates_used": ",".join(_used(settings, one)),
    }
    if settings.inflow:
        labels["inflow_months"] = str(settings.inflow)
    if data.period_months != 1:
        labels["period_months"] = str(data.period_months)
    numbers = effects.n_treated[(effects.at >= 0) & np.isfinite(effects.estimate)]
    fixed = len(set(numbers.tolist())) == 1 and not rate and not data.panel.repeated
    return EffectProfile(
        estimand=Estimand(
            "starters" if data.unit == "person" else "exposed",
            study.treatment.instrument,
            "no_adoption",
            "start" if data.unit == "person" else "adoption",
            outcome.name,
            "flow" if rate else outcome.kind,
            outcome.unit,
            _identification(settings, one),
            "follow_up" if _short(one) else "",
        ),
        labels=labels,
        month=effects.at + 1,
        estimate=effects.estimate,
        counterfactual=effects.counterfactual,
        n_treated=treated,
        n_comparison=comparison,
        uncertainty=effects.uncertainty,
        se_kind=_kind(effects, data),
        composition="fixed" if fixed else "varying",
    )


def _kind(effects: Effects, data: PanelData) -> str:
    """The name of the standard error, with the level it is clustered on in the study's words."""
    kind = effects.se_kind.partition(",")[0]
    for repeated in ("jackknife", "bootstrap", "placebo"):
        if kind.startswith(repeated):
            return repeated
    if isinstance(effects.uncertainty, Influence):
        kind = "influence function"
    if isinstance(effects.uncertainty, Intervals):
        return kind
    own = data.unit if data.panel.level in ("unit", "") else data.panel.level
    return f"{kind}, clustered on {own}"


def _used(settings: Settings, one: Estimated) -> list[str]:
    """Covariates that the estimate takes into account, without their levels."""
    if not settings.covariates or settings.estimator in ("stacked", "synthetic"):
        return []
    names = (name.partition(":")[0] for name in one.data.panel.names)
    return [name for name in dict.fromkeys(names) if name != settings.eligible]


def _identification(settings: Settings, one: Estimated) -> str:
    if settings.estimator == "synthetic":
        return "synthetic_control"
    if settings.estimator == "triple":
        return "parallel_gaps"
    adjusted = bool(_used(settings, one))
    return "conditional_parallel_trends" if adjusted else "parallel_trends"


def _short(one: Estimated) -> bool:
    """Whether cohorts were left out because they cannot be followed up to the horizon."""
    panel, choice = one.data.panel, one.choice
    return bool(choice.complete and (panel.cohorts + (choice.after or 0) > panel.periods[-1]).any())


def persons_beneath(one: Estimated) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(M,) persons of the treated units beneath each event time, and of the smallest comparison that it rests on.

    What disclosure control goes by. For rates these are people at risk in the period.
    """
    panel, choice, at = one.data.panel, one.choice, one.effects.at
    first, high = panel.first, int(panel.periods[-1])
    taking = first < NEVER
    if choice.complete and choice.after is not None:
        taking &= first + choice.after <= high
    row_first = first[panel.unit]
    beneath = np.ones(len(panel), np.int64) if panel.person_rows is None else panel.person_rows
    treated, comparison = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    for j, e in enumerate(at.tolist()):
        if not np.isfinite(one.effects.estimate[j]):
            continue
        own = taking[panel.unit] & (panel.period - row_first == e)
        treated[j] = beneath[own].sum()
        least = []
        for period in np.unique(panel.period[own]).tolist():
            other = (panel.period == period) & (row_first > period + max(-e - 1, 0) + choice.anticipation)
            if choice.control == "never":
                other = (panel.period == period) & (row_first == NEVER)
            least.append(int(beneath[other].sum()))
        comparison[j] = min(least, default=0)
    return treated, comparison


# -- findings ---------------------------------------------------------------------------------------------------------


def few_of(one: Estimated, settings: Settings) -> Iterator[Finding]:
    """What to do when the clusters that decide the uncertainty are few; silent when that was done."""
    errors = settings.chosen_errors
    if errors in REPEATED or (errors in BY_TEST and errors != "wild"):
        return
    found = few_clusters(one.data.panel).finding()
    if errors == "wild" and found is not None and found.code != "did_few_treated":
        return  # that is what it cures; few treated clusters it does not
    if found is not None:  # the estimate stands, its margin does not: a loud warning, not a rejection
        yield replace(found, verdict="warn")


def _of_outcome(settings: Settings, one: Estimated, profile: EffectProfile) -> Iterator[Finding]:
    """Cells that are not estimable, people that change, and the placebo that was named beforehand."""
    scope = one.outcome.name
    codes: dict[str, int] = {}
    for missing in (m for m in one.effects.missing if m.code not in TOLD):
        codes[missing.code] = codes.get(missing.code, 0) + 1
    for code, cells in codes.items():
        name = "did_cells_reserved" if code in RESERVATIONS else "did_cells_missing"
        yield Finding(name, scope, "warn", float(cells), None, {"cells": cells, "why": f"did.{code}"})
    if profile.composition == "varying":
        since = one.effects.n_treated[profile.month >= 1]
        if len(set(since.tolist())) > 1:
            yield _varying(one, profile)
    if settings.placebo is not None:
        base = np.isin(one.effects.at, one.effects.base)
        early = (one.effects.at < -settings.anticipation) & ~base & np.isfinite(profile.estimate)
        judged = profile
        if profile.vcov is None:  # a test gives no covariance: the margin is judged on the influence function
            plain = replace(one, effects=one.choice(one.data.panel))
            keep = np.isin(plain.effects.at, one.effects.at)
            judged = replace(profile, uncertainty=plain.effects.uncertainty.take(keep))
        yield placebo_finding(judged.take(early), scope, settings.placebo.margin)


def _varying(one: Estimated, profile: EffectProfile) -> Finding:
    """That points describe different people; of groups, different units."""
    scope = one.outcome.name
    if one.data.unit == "person":
        since = profile.n_treated[profile.month >= 1]
        params = {"first": int(since[0]), "last": int(since[-1]), "month": int(profile.month[-1])}
        return Finding("composition_varying", scope, "warn", params=params)
    if one.data.panel.repeated:
        return Finding("did_entries_varying", scope, "info")
    units = one.effects.n_treated[profile.month >= 1]
    return Finding("did_composition_varying", scope, "warn", params={"first": str(units[0]), "last": str(units[-1])})


def _method(settings: Settings, one: Estimated) -> Note:
    panel, unit = one.data.panel, one.data.unit
    control = {"sun_abraham": "never", "synthetic": "never", "two_way": "all"}.get(settings.estimator, settings.control)
    params: dict[str, Any] = {"estimator": settings.estimator, "control": control}
    params |= {"cohorts": len(panel.cohorts), "periods": len(panel.periods)}
    if unit == "person":
        return Note("did_method", params)
    return Note("did_method_unit", params | {"unit": unit, "units": panel.units})


# -- subgroups --------------------------------------------------------------------------------------------------------


def _subgroups(
    sample: Sample, settings: Settings, id: str, outcomes: list[Outcome]
) -> tuple[tuple[EffectProfile, ...], tuple[Exhibit, ...]]:
    """The same for the people of each level, each with a panel of their own."""

    def of_level(name: str, among: NDArray[np.bool_]) -> list[EffectProfile]:
        parts = [estimated(sample, settings, outcome, among) for outcome in outcomes]
        return [profile_of(sample, settings, id, one, name) for one in parts]

    return by_level(sample, of_level)


def by_level(
    sample: Sample, of_level: Callable[[str, NDArray[np.bool_]], list[EffectProfile]]
) -> tuple[tuple[EffectProfile, ...], tuple[Exhibit, ...]]:
    """Profiles of each level of each subgroup, from its name and who is in it (P,); notes on those without."""
    profiles: list[EffectProfile] = []
    notes: list[Exhibit] = []
    known = {f.name: f for f in sample.people.factors + sample.people.groups}
    for subgroup in sample.study.subgroups:
        made = known.get(subgroup.name)
        if made is None:
            notes.append(Note("subgroup_not_fixed", {"subgroup": subgroup.name}, "warn"))
            continue
        for number, level in enumerate(made.levels):
            name = f"{subgroup.name}={level}"
            try:
                profiles += of_level(name, made.codes == number)
            except (DesignError, UsageError) as error:
                nobody = {fault.code for fault in error.faults} <= NOBODY
                notes.append(Note("subgroup_empty" if nobody else "subgroup_fails", {"subgroup": name}, "warn"))
    return tuple(profiles), tuple(notes)
