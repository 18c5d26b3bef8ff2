"""Duration models: settings and sample in, effects on exit by month out, whatever the model of the hazards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evalkit.design import Design
from evalkit.duration.answers import ANY, Answers, Versus, answers, supported
from evalkit.duration.fitted import Hazards, Link
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories, Timing
from evalkit.duration.npmle import Path, npmle
from evalkit.duration.spells import NEVER, Instrument, Layout, Spells, Timeline, planned
from evalkit.duration.terms import Terms, dense, factor, joined
from evalkit.effects import EffectProfile, Estimand
from evalkit.errors import EvalkitError, Fault, StudyError
from evalkit.exhibits import Analysis, Exhibit, Lost, Note
from evalkit.sample import Length, Sample, StartMonths, TimedSpells, timed_spells
from evalkit.study import Frozen, Outcome, Study, Subgroup

Numbers = NDArray[np.int64]
Model = Literal["cloglog", "piecewise", "logit", "mixture"]
Step = Annotated[int, Field(ge=1, le=600)]

STEPS = (1, 2, 3, 6, 9, 12, 18, 24, 36)
SINCE_START = (3, 6, 12)
AFTER_END = (6, 12)
COMPETING = "other_exits"
"""All reasons of leaving that no outcome asks for, together."""


class Settings(Frozen):
    """Which model of exit rates, how they move with time, and how the effect moves with time since the start.

    ``model``: ``cloglog`` (months, by default), ``piecewise`` (constant within a stretch, moments taken as known),
    ``logit``, or ``mixture`` (timing of events: hidden differences between people in leaving and in starting).
    ``duration``, ``start_duration``: months on benefit at which a step of the exit rate, or of the start rate, begins;
    ``monthly``: in every month, which is Cox's model in months.
    ``calendar``: steps by calendar year, by quarter (season), or none. ``phases``: the effect is cut at the planned end
    (default), the registered end, or by time since the start only; ``bounds``: months after that at which the next
    phase begins. ``effect_by``: covariates by which the effect differs. ``others``: further instruments whose starts
    are followed. ``after``: an instrument that can only start after another. ``spells``: all of a person, or the first.
    ``points``: most mass points of a mixture; ``criterion``: which number of points is reported. ``timing``: of a
    mixture, see ``evalkit.duration.histories``. ``beside``: also show the strategy that the study does not ask for.
    """

    model: Model = "cloglog"
    duration: tuple[Step, ...] | Literal["monthly"] = STEPS
    start_duration: tuple[Step, ...] | None = None
    calendar: Literal["none", "year", "quarter"] = "year"
    phases: Literal["planned", "realised", "start"] = "planned"
    bounds: tuple[Step, ...] | None = None
    effect_by: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    after: dict[str, str] = {}
    covariates: bool = True
    spells: Literal["all", "first"] = "all"
    points: int = Field(default=8, ge=1, le=30)
    criterion: Literal["aic", "hq", "bic", "all"] = "aic"
    timing: Timing = "grouped"
    beside: bool = True

    @property
    def steps(self) -> tuple[int, ...]:
        """Months at which the later phases of the effect begin."""
        return self.bounds if self.bounds is not None else SINCE_START if self.phases == "start" else AFTER_END


@dataclass(frozen=True)
class Made:
    """A fitted model with what it was fitted on. ``path``: of a mixture."""

    spells: Spells
    layout: Layout
    histories: Histories
    hazards: Hazards
    path: Path | None = None


@dataclass(frozen=True)
class Known:
    """The spells of the study with the starters that effects are about (numbers of spells), and what was filled in."""

    timed: TimedSpells
    spells: Spells
    starter: Numbers
    plans_unknown: int


def faults(study: Study, settings: Settings) -> list[Fault]:
    """What the settings ask that this study cannot give; known before any data are read."""
    place, wrong = study.path.name, []
    if study.data is None:
        return [Fault("duration.register_only", {"source": "table" if study.table is not None else "panel"}, place)]
    if not any(_destination(outcome) for outcome in study.outcomes):
        wrong.append(Fault("duration.no_exit", {}, place))
    if study.treatment.versus not in ("wait", "never"):
        wrong.append(Fault("duration.versus", {"versus": study.treatment.versus}, place))
    known = [*study.covariates.categorical, *study.covariates.numeric]
    for name in settings.effect_by:
        if name not in known or not settings.covariates:
            wrong.append(Fault("duration.effect_by", {"name": name, "known": ", ".join(known) or "–"}, place))
    own = study.treatment.instrument
    types = list((study.data.episodes.codes if study.data.episodes else {}).get("type", {}))
    listed = [*types, *(each.name for each in study.instruments)]
    for name in settings.others:
        if name == own or (listed and name not in listed):
            allowed = ", ".join(dict.fromkeys(other for other in listed if other != own)) or "–"
            wrong.append(Fault("duration.others", {"name": name, "known": allowed}, place))
    for name, before in settings.after.items():
        for each in (name, before):
            if each not in (own, *settings.others):
                wrong.append(Fault("duration.after_unknown", {"name": each}, place))
    return wrong


def run(sample: Sample, settings: Settings, rng: np.random.Generator, id: str = "duration") -> Analysis:
    """Fit the hazards and say what they mean: exits by month, started against not started, for those who started.

    Raises
    ------
    StudyError
        See :func:`faults`.
    DesignError, DataError
        Those of ``evalkit.duration``.
    """
    from evalkit.analyses.duration_shown import shown

    if wrong := faults(sample.study, settings):
        raise StudyError(wrong)
    outcomes = [o for o in sample.study.outcomes if _destination(o) and o.role == "effect"]
    known = known_spells(sample, settings, outcomes)
    made = fitted(known, settings)
    versus: Versus = "never" if sample.study.treatment.versus == "never" else "wait"
    found = answers(made.layout, made.hazards, horizon=sample.horizon, versus=versus, spell=known.starter)
    profiles = [_profile(sample, settings, id, o, found, versus) for o in outcomes]
    if settings.beside:
        other: Versus = "wait" if versus == "never" else "never"
        beside = answers(made.layout, made.hazards, horizon=sample.horizon, versus=other, spell=known.starter)
        lead = [o for o in outcomes if o.primary] or outcomes[:1]
        profiles += [_profile(sample, settings, id, o, beside, other, variant=f"versus_{other}") for o in lead]
    same = settings.model_copy(update={"points": len(made.hazards.shares), "criterion": "all"})
    groups, notes = _subgroups(sample, same, id, outcomes, known, versus)
    about = shown(sample, settings, known, made)
    others = [o.name for o in sample.study.outcomes if not _destination(o) and o.role == "effect"]
    exhibits: list[Exhibit] = [*about.exhibits, *notes]
    if others:
        exhibits.append(Note("duration_exits_only", {"outcomes": others}, "warn"))
    lost = _lost(known, found)
    return Analysis(id, "duration", (*profiles, *groups), tuple(exhibits), about.findings, lost)


def _destination(outcome: Outcome) -> str:
    """Where an outcome says people go to, empty when it is no exit from the spell."""
    family, _, where = outcome.source.partition(":")
    return where if family == "exit" and where != "work_register" else ""


def known_spells(sample: Sample, settings: Settings, outcomes: list[Outcome]) -> Known:
    """The spells in the form that models take: destinations, covariates, starts and lengths of instruments."""
    length: Length = "realised" if settings.phases == "realised" else "planned"
    timed = timed_spells(sample, settings.others, length=length, first=settings.spells == "first")
    causes, cause = _causes(timed, [_destination(o) for o in outcomes])
    x = terms_of(timed.design) if settings.covariates else dense(np.zeros((len(timed.stop), 0)), ())
    if timed.later.any() and not timed.later.all():
        x = joined(x, factor(timed.later.astype(np.int64), ["spell:first", "spell:later"]))
    instruments, unknown = [], 0
    for place, each in enumerate(timed.instruments):
        made, missing = _instrument(each, settings)
        instruments.append(made)
        unknown += missing if not place else 0
    people, person = np.unique(timed.person, return_inverse=True)
    spells = Spells(
        person, sample.people.ids[people], timed.entry, timed.stop, cause, causes, timed.begin, x.varying(),
        tuple(instruments), *_clusters(sample, people),
    )  # fmt: skip
    seen = spells.started[0][timed.starter] < NEVER
    return Known(timed, spells, timed.starter[seen], unknown)


def _clusters(sample: Sample, people: Numbers) -> tuple[Numbers, NDArray[np.int64], str]:
    """(N,) cluster of each person, names of clusters as other methods name them, and what they are."""
    ids, cluster = np.unique(sample.people.cluster[people], return_inverse=True)
    return cluster, ids, sample.people.cluster_level


def _causes(timed: TimedSpells, wanted: list[str]) -> tuple[tuple[str, ...], Numbers]:
    """Destinations that outcomes ask for, the others as one; and the number of each spell's, -1 without an end."""
    named = [name for name in dict.fromkeys(wanted) if name != ANY]
    own = np.full(len(timed.stop), -1, np.int64)
    for number, name in enumerate(named):
        own[timed.event & (timed.reason == name)] = number
    rest = timed.event & (own < 0)
    own[rest] = len(named)
    return ((*named, COMPETING) if rest.any() else tuple(named)), own


def _instrument(each: StartMonths, settings: Settings) -> tuple[Instrument, int]:
    """The instrument with its phases; a length that is not known is the median of those that are."""
    name, after = each.name, settings.after.get(each.name, "")
    known = (each.month < NEVER) & (each.length >= 0)
    if settings.phases != "start" and known.any():
        return planned(name, each.month, each.length, bounds=settings.steps, after=after)
    bounds = settings.steps if settings.phases == "start" else SINCE_START
    return Instrument(name, each.month, np.zeros(len(each.month), int), "start", bounds, after), 0


def terms_of(design: Design) -> Terms:
    """Covariates of rows as columns: numbers from their mean on, so that the baseline is that of an average person."""
    numbers = np.concatenate([design.numeric[design.index], design.own_numeric], axis=1)
    parts = [dense(numbers - numbers.mean(axis=0), (*design.numeric_names, *design.own_numeric_names))]
    for each in design.factors:
        parts.append(factor(each.codes[design.index], [f"{each.name}:{level}" for level in each.levels]))
    for each in design.row_factors:
        parts.append(factor(each.codes, [f"{each.name}:{level}" for level in each.levels]))
    return joined(*parts)


def fitted(known: Known, settings: Settings, by: tuple[str, ...] = (), spells: Spells | None = None) -> Made:
    """The model of the settings; ``by``: further covariates by which the effect differs."""
    spells = known.spells if spells is None else spells
    steps, start = settings.duration, settings.start_duration
    if steps == "monthly":
        steps, start = tuple(range(1, supported(spells)[0])), STEPS if start is None else start
    first = first_events(spells)
    steps, start = begun(steps, max(first[:-1])), begun(steps if start is None else start, first[-1])
    timeline = Timeline(steps, settings.calendar, (*settings.effect_by, *by), start)
    layout = Layout(spells, timeline, _years(spells) if settings.calendar == "year" else None)
    timing: Timing = settings.timing if settings.model == "mixture" else "exact"
    if settings.model in ("cloglog", "logit"):
        timing = "grouped"
    histories = layout.histories(timing, before=settings.model == "mixture")
    if settings.model == "mixture":
        path = npmle(histories, points=settings.points)
        hazards = path.last if settings.criterion == "all" else path.best(settings.criterion)
        return Made(spells, layout, histories, hazards, path)
    link: Link = "logit" if settings.model == "logit" else "hazard"
    return Made(spells, layout, histories, fit_hazards(histories, link))


def first_events(spells: Spells) -> tuple[int, ...]:
    """By destination the elapsed month of the first exit, and the last of the months of first starts."""
    exits = tuple(int(spells.stop[spells.cause == j].min(initial=NEVER)) - 1 for j in range(len(spells.causes)))
    starts = [int(month.min(initial=NEVER)) for month in spells.started]
    return (*exits, max((month - 1 for month in starts if month < NEVER), default=0))


def begun(steps: tuple[int, ...], first: int) -> tuple[int, ...]:
    """Steps after the first event: the first step of a baseline is what the others are set against, so it needs one."""
    return tuple(step for step in steps if step > first)


def _years(spells: Spells) -> tuple[int, ...]:
    """Calendar years with a step: from the first to the last in which people leave for every destination."""
    year = (spells.begin + spells.stop - 1) // 12
    ends = [year[spells.cause == j] for j in range(len(spells.causes))]
    first, last = max(int(own.min()) for own in ends), min(int(own.max()) for own in ends)
    return tuple(range(first, max(first, last) + 1))


def identification(settings: Settings) -> str:
    """The assumption in one word."""
    return "timing_of_events" if settings.model == "mixture" else "no_unobserved_selection"


def _profile(
    sample: Sample, settings: Settings, id: str, outcome: Outcome, found: Answers, versus: Versus,
    subgroup: str = "", variant: str = "",
) -> EffectProfile:  # fmt: skip
    study, own = sample.study, found.of[_destination(outcome)]
    horizon = len(own.effect)
    labels = {
        "analysis": id, "method": "duration", "instrument": study.treatment.instrument, "comparison": versus,
        "outcome": outcome.name, "subgroup": subgroup, "better": outcome.better,
        "primary": "true" if outcome.primary else "false",
    }  # fmt: skip
    if variant:
        labels["variant"] = variant
    return EffectProfile(
        estimand=Estimand(
            "starters", study.treatment.instrument, versus, study.time.clock, outcome.name, "event", outcome.unit,
            identification(settings), "follow_up" if found.left_out else "",
        ),
        labels=labels,
        month=np.arange(1, horizon + 1),
        estimate=own.effect,
        counterfactual=own.versus,
        n_treated=np.full(horizon, found.persons),
        n_comparison=found.compared,
        uncertainty=own.influence,
        se_kind=f"influence function, clustered on {sample.people.cluster_level}",
        composition="fixed",
    )  # fmt: skip


def _lost(known: Known, found: Answers) -> tuple[Lost, ...]:
    """Starters of the sample that the effects are not about, step by step."""
    early, out = known.timed.lost
    total = len(known.starter) + early + out
    steps = (("left_in_start_month", early), ("no_spell_in_model", out), ("beyond_durations", found.left_out))
    lost, left = [], total
    for reason, gone in steps:
        left -= gone
        if gone:
            lost.append(Lost("treated", reason, left, left))
    return tuple(lost)


def _subgroups(
    sample: Sample, settings: Settings, id: str, outcomes: list[Outcome], known: Known, versus: Versus
) -> tuple[tuple[EffectProfile, ...], tuple[Exhibit, ...]]:
    """Effects for the starters of each level, from one model in which the instrument works differently by level."""
    profiles: list[EffectProfile] = []
    notes: list[Exhibit] = []
    for subgroup in sample.study.subgroups:
        try:
            profiles += _by_level(sample, settings, id, outcomes, known, versus, subgroup)
        except EvalkitError:
            notes.append(Note("subgroup_fails", {"subgroup": subgroup.name}, "warn"))
    return tuple(profiles), tuple(notes)


def _by_level(
    sample: Sample, settings: Settings, id: str, outcomes: list[Outcome], known: Known, versus: Versus,
    subgroup: Subgroup,
) -> Iterator[EffectProfile]:  # fmt: skip
    group = sample.group(subgroup.name, subgroup.cuts, known.timed.entries)
    spells, by = known.spells, subgroup.name
    if not any(name.startswith(f"{by}:") for name in spells.x.names):
        by = f"group {subgroup.name}"
        x = joined(spells.x, factor(group.codes, [f"{by}:{level}" for level in group.levels]))
        spells = replace(spells, x=x.varying())
    made = fitted(known, settings, (by,), spells)
    for number, level in enumerate(group.levels):
        own = known.starter[group.codes[known.starter] == number]
        if not len(own):
            continue
        found = answers(made.layout, made.hazards, horizon=sample.horizon, versus=versus, spell=own)
        for outcome in outcomes:
            yield _profile(sample, settings, id, outcome, found, versus, f"{subgroup.name}={level}")
