"""A synthetic register with the marginal shape of a real one and an effect that is known, from aggregates alone.

Nothing here ever sees the register: ``twin`` draws from an ``Aggregates``, and ``known_effect`` sums over the law that
``twin`` draws from. ``docs/twin.md`` says what is kept and what is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER, Days, day_number
from evalkit.effects import generator
from evalkit.simulate.aggregates import MONTH, Aggregates, Band, Group, Instrument, Jobs, Share
from evalkit.simulate.blueprint import USUAL, Blueprint, Effect, blueprint, middle
from evalkit.simulate.draw import Tables, dates
from evalkit.simulate.lives import LATEST_DAY, lives
from evalkit.simulate.model import STEPS, Ints, Law
from evalkit.simulate.people import Margin, cells, restrict, values
from evalkit.simulate.renewal import Arrivals, renewed_truth
from evalkit.simulate.truth import TrueEffect, eligible
from evalkit.study import Study
from evalkit.study.outcome_source import NOT, WORK_REGISTER, read_source

_STOCK_POINTS = 5
"""So many lengths stand for those of the stock in the known effect."""


def twin(aggregates: Aggregates, persons: int, seed: int, effect: Effect = USUAL) -> Tables:
    """Tables with fixed names and fixed codes, the same for the same seed.

    Columns of persons are independent of each other; rates of leaving and starting depend on them as told. Whoever
    starts the instrument of the study leaves to the target faster or slower, as ``effect`` says; other instruments do
    nothing.
    """
    if persons < 1:
        raise ValueError("twin: at least one person")
    plan = blueprint(aggregates, effect)
    rng = generator(seed, "twin")
    window = tuple(day_number(day) for day in aggregates.window)
    drawn = {name: one.draw(rng, persons) for name, one in plan.margins.items()}
    ratio = np.zeros((persons, 2))
    for name, one in plan.margins.items():
        ratio += one.ratios(*drawn[name])
    entry, has = _entries(plan, rng, persons, window)
    month = calendar.month_number(entry)
    own = replace(plan.law, work=np.exp(ratio[:, 0]), start=np.exp(ratio[:, 1]))
    here = np.flatnonzero(has)
    own_here = replace(own, work=own.work[here], start=own.start[here])
    offset = entry - calendar.month_start(month)
    rows = lives(rng, own_here, month[here] - own.first, offset[here], window[0], window[1])
    rows[:, 0] = here[rows[:, 0]]
    names = np.array([f"T{i + 1:0{max(6, len(str(persons)))}d}" for i in range(persons)], object)
    seen = np.maximum(entry, window[0])
    columns: dict[str, Any] = {"person": names}
    changes = {}
    for column in aggregates.columns:
        if column.name in plan.margins:
            found = values(plan.margins[column.name], *drawn[column.name], calendar.year(seen))
        elif column.kind == "cluster":
            number = max(1, round(persons / column.each))
            keys = np.array([f"c{i + 1}" for i in range(number)], object)
            found = keys[rng.integers(number, size=persons)]
        elif column.kind == "entry":
            found = dates(np.where(has, seen, NEVER))
        else:
            found = np.full(persons, None, object)
        if column.table == "persons":
            columns[column.name] = found
        else:  # known from the day before everybody's first on benefit, and the same ever after
            frame = pd.DataFrame({"person": names, "start": dates(seen - 1), "value": found})
            changes[column.name] = frame[frame["value"].notna()].reset_index(drop=True)
    return Tables(
        pd.DataFrame(columns),
        _benefits(aggregates, rng, names, rows),
        _episodes(aggregates, rng, names, rows, window),
        seed,
        None if aggregates.jobs is None else _jobs(aggregates.jobs, rng, names, rows, window),
        changes,
    )


def _entries(
    plan: Blueprint, rng: np.random.Generator, persons: int, window: tuple[int, ...]
) -> tuple[Days, NDArray[np.bool_]]:
    """The first day of everybody's first spell, and who has a spell at all."""
    first, last = window
    chance = np.concatenate([plan.inflow, plan.stock_share])
    has = rng.random(persons) < plan.aggregates.with_spell.part / plan.aggregates.with_spell.persons
    which = rng.choice(len(chance), persons, p=chance / chance.sum())
    offset = rng.choice(len(plan.day_weights), persons, p=plan.day_weights / plan.day_weights.sum())
    month = plan.law.first + plan.before + np.minimum(which, plan.months - 1)
    flowed = np.clip(calendar.month_start(month) + offset, first, last)
    running = _draw(plan.aggregates.stock, rng, persons, which - plan.months)
    before = calendar.add_months(first, -running.astype(np.int64)) - 1 - rng.integers(LATEST_DAY, size=persons)
    day = np.where(which < plan.months, flowed, before)
    start = calendar.month_start(calendar.month_number(day))
    return start + np.minimum(day - start, LATEST_DAY), has


def _draw(groups: Sequence[Group], rng: np.random.Generator, n: int, which: Ints | None = None) -> NDArray[np.float64]:
    """Whole numbers from a distribution in groups; ``which`` tells the group where it is known (others: any)."""
    if not groups:
        return np.zeros(n)
    if which is None:
        share = np.array([group.persons for group in groups], float)
        which = rng.choice(len(groups), n, p=share / share.sum())
    low = np.array([group.low for group in groups])[np.clip(which, 0, len(groups) - 1)]
    high = np.array([group.high for group in groups])[np.clip(which, 0, len(groups) - 1)]
    return low + np.floor(rng.random(n) * np.maximum(np.ceil(high - low), 1.0)) * (high > low)


def _known(share: Share | None) -> float:
    return share.part / share.persons if share is not None else 0.0


def _benefits(aggregates: Aggregates, rng: np.random.Generator, names: NDArray[Any], rows: Ints) -> pd.DataFrame:
    reason = np.full(len(rows), None, object)
    for kind, one in enumerate(aggregates.exits):
        chosen = np.flatnonzero(rows[:, 3] == kind)
        if one.reasons:
            share = np.array([own.persons for own in one.reasons], float)
            codes = np.array([own.code for own in one.reasons], object)
            reason[chosen] = codes[rng.choice(len(codes), len(chosen), p=share / share.sum())]
    return pd.DataFrame(
        {"person": names[rows[:, 0]], "start": dates(rows[:, 1]), "end": dates(rows[:, 2]), "reason": reason}
    )


# -- instruments ----------------------------------------------------------------------------------------------------


def _episodes(
    aggregates: Aggregates, rng: np.random.Generator, names: NDArray[Any], rows: Ints, window: tuple[int, ...]
) -> pd.DataFrame:
    parts = []
    for number, own in enumerate(aggregates.instruments):
        day = rows[:, 4] if number == 0 else _other_starts(own.starts, rng, rows, window)
        chosen = np.flatnonzero(day < NEVER)
        parts.append(_of_type(own, aggregates, rng, rows[chosen], day[chosen], window, number == 0))
    frame = pd.concat(parts, ignore_index=True)
    order = np.lexsort((frame["start"], frame["person"]))
    frame = frame.iloc[order].reset_index(drop=True)
    return frame.assign(person=names[frame["person"].to_numpy(np.int64)])


def _other_starts(bands: Sequence[Band], rng: np.random.Generator, rows: Ints, window: tuple[int, ...]) -> Days:
    """The day on which each spell sees its first start of an instrument that does nothing; NEVER where it sees none."""
    first, last = window
    begin, stop = rows[:, 1], np.minimum(rows[:, 2], last)
    seen = np.maximum(begin, first)
    left = rng.exponential(size=len(rows))
    day = np.full(len(rows), NEVER)
    for band in bands:
        low = np.maximum(calendar.add_months(begin, band.first), seen)
        high = calendar.add_months(begin, 1200 if band is bands[-1] else band.last)
        rate = band.events / band.months / MONTH
        length = np.maximum(high - low, 0)
        here = (day == NEVER) & (left < rate * length)
        if rate:
            day[here] = low[here] + np.floor(left[here] / rate).astype(np.int64)
        left = left - rate * length
    return np.where(day <= stop, day, NEVER)


def _of_type(
    own: Instrument,
    aggregates: Aggregates,
    rng: np.random.Generator,
    rows: Ints,
    day: Days,
    window: tuple[int, ...],
    studied: bool,
) -> pd.DataFrame:
    """Episodes of one type that begin on some days in some spells; a length that is not told is that which is."""
    n = len(day)
    stop = np.minimum(rows[:, 2], window[1])
    planned = calendar.add_months(day, _draw(own.planned or own.realised, rng, n).astype(np.int64)) - 1
    end = calendar.add_months(day, _draw(own.realised or own.planned, rng, n).astype(np.int64)) - 1
    end = np.minimum(np.maximum(end, day), rows[:, 2])
    way = _draw(own.referred, rng, n).astype(np.int64)
    start, referral = day.copy(), np.maximum(day - way, np.minimum(rows[:, 1], day))
    if studied and aggregates.clock == "referral":
        referral, start = day, day + way
        planned, end = planned + way, np.minimum(end + way, rows[:, 2])
        never = start > stop
        start[never], end[never] = NEVER, NEVER
    else:
        referral = np.where(rng.random(n) < _known(own.referral_known), referral, NEVER)
    known = rng.random(n) < _known(own.planned_known)
    plain = not own.event
    return pd.DataFrame(
        {
            "person": rows[:, 0],
            "type": np.full(n, own.type, object),
            "start": dates(start),
            "end": dates(np.where((end <= window[1]) & plain, end, NEVER)),
            "planned_end": dates(np.where(known & plain, planned, NEVER)),
            "referral": dates(referral),
        }
    )


# -- jobs -----------------------------------------------------------------------------------------------------------


def _jobs(
    told: Jobs, rng: np.random.Generator, names: NDArray[Any], rows: Ints, window: tuple[int, ...]
) -> pd.DataFrame:
    """Jobs that begin the day after an exit, and jobs that begin with the first day on benefit that is seen."""
    first, last = window
    person, begin, end, kind = rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3]
    follows = np.append(person[1:] == person[:-1], False)[: len(person)]
    again = np.where(follows, np.append(begin[1:], NEVER)[: len(begin)], NEVER)
    chance = np.array([*map(_known, told.after), 0.0])[kind]
    after = np.flatnonzero(rng.random(len(rows)) < chance)
    start = np.where(end < NEVER, end, 0)[after] + 1
    whole = np.maximum(_draw(told.lengths, rng, len(after)).astype(np.int64), 1)
    until = np.minimum(calendar.add_months(start, whole) - 1, again[after] - 1)
    new = np.append(True, person[1:] != person[:-1])[: len(person)]
    during = np.flatnonzero(new & (rng.random(len(rows)) < _known(told.during)))
    beside = np.maximum(begin[during], first)
    length = np.maximum(_draw(told.lengths, rng, len(during)).astype(np.int64), 1)
    ends = np.minimum(calendar.add_months(beside, length) - 1, end[during])
    who = np.concatenate([person[after], person[during]])
    start, until = np.concatenate([start, beside]), np.concatenate([until, ends])
    inside = start <= last
    who, start, until = who[inside], start[inside], until[inside]
    if told.monthly:
        who, start, until = _by_calendar_month(who, start, np.minimum(until, last))
    order = np.lexsort((start, who))
    who, start, until = who[order], start[order], until[order]
    frame = {"person": names[who], "start": dates(start), "end": dates(np.where(until <= last, until, NEVER))}
    for amount in told.amounts:
        number = np.round(_amounts(amount.groups, rng, len(who)), 2)
        frame[amount.name] = np.where(rng.random(len(who)) < _known(amount.known), number, np.nan)
    return pd.DataFrame(frame)


def _amounts(groups: Sequence[Group], rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Numbers from a distribution in groups, each as likely within its group."""
    if not groups:
        return np.full(n, np.nan)
    share = np.array([group.persons for group in groups], float)
    which = rng.choice(len(groups), n, p=share / share.sum())
    low, high = (np.array([getattr(group, name) for group in groups])[which] for name in ("low", "high"))
    return np.asarray(low + rng.random(n) * (high - low))


def _by_calendar_month(who: Ints, start: Days, until: Days) -> tuple[Ints, Days, Days]:
    """Each job cut into the calendar months that it covers."""
    number = calendar.month_number(until) - calendar.month_number(start) + 1
    row = np.repeat(np.arange(len(who)), number)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    month = calendar.month_number(start)[row] + nth
    begin = np.maximum(calendar.month_start(month), start[row])
    return who[row], begin, np.minimum(calendar.month_start(month + 1) - 1, until[row])


# -- the known effect -----------------------------------------------------------------------------------------------


def known_effect(study: Study, aggregates: Aggregates, effect: Effect = USUAL) -> dict[str, TrueEffect]:
    """The effect that a study of the twin should find, by the name of its outcome; see ``docs/twin.md``.

    Outcomes whose effect is not worked out are left out: those that look at jobs by month, returns and durable exits;
    all of them when the study compares with another instrument, or when no start counts.
    """
    versus = study.treatment.versus
    if versus not in ("wait", "never"):
        return {}
    parts = {outcome.name: _parts(aggregates, outcome.source) for outcome in study.outcomes}
    plan = blueprint(aggregates, effect)
    wanted = {key for mix in parts.values() for key in mix}
    found: dict[str, TrueEffect] = {}
    for first in range(3):
        back = first == 0 and "on_benefit" in wanted
        if f"exit{first}" in wanted or back:
            try:
                made = _summed(study, plan, first, versus, back)  # type: ignore[arg-type]
            except ValueError:
                return {}
            found[f"exit{first}"] = made["left_to_work"]
            if back:
                found["on_benefit"] = made["on_benefit"]
    return {name: _mixed(mix, found) for name, mix in parts.items() if mix}


def _parts(aggregates: Aggregates, source: str) -> dict[str, float]:
    """An outcome as a sum of kinds of exit, or being on benefit; empty when it is neither."""
    read = read_source(source)
    if read is None or read.family not in ("exit", "state"):
        return {}
    if read.family == "state":
        return {"on_benefit": 1.0} if read.which == "benefit" else {}
    if read.register:
        if aggregates.jobs is None or aggregates.gap_months < 1:
            return {}
        share = [_known(one) for one in aggregates.jobs.after]
        return {f"exit{k}": share[k] if read.which == WORK_REGISTER else 1 - share[k] for k in range(3)}
    named = [{one.code: one.persons for one in own.reasons} for own in aggregates.exits]
    whole = [sum(codes.values()) for codes in named]
    if read.which == "any":
        return {f"exit{k}": 1.0 for k in range(3)}
    if read.which == "unknown":
        return {f"exit{k}": 1.0 for k in range(3) if not named[k]}
    code, other = read.which.removeprefix(NOT), read.which.startswith(NOT)
    mix = {}
    for k in range(3):
        if named[k]:
            share_of = named[k].get(code, 0) / whole[k]
            mix[f"exit{k}"] = 1 - share_of if other else share_of
    return {key: value for key, value in mix.items() if value}


def _mixed(mix: Mapping[str, float], found: Mapping[str, TrueEffect]) -> TrueEffect:
    first = found[next(iter(mix))]
    effect, treated, without = (
        sum(share * getattr(found[key], name) for key, share in mix.items())
        for name in ("effect", "treated", "counterfactual")
    )
    return TrueEffect(first.month, effect, treated, without, first.starters)


def _summed(
    study: Study, plan: Blueprint, first: int, versus: Literal["wait", "never"], back: bool
) -> dict[str, TrueEffect]:
    """The sum over the law of those who may take part, with one kind of exit put first."""
    share, ratio = cells([_allowed(study, one) for one in plan.margins.values()])
    low, high = study.eligibility.elapsed
    horizon = study.time.horizon
    law = replace(
        plan.law,
        share=share,
        work=np.exp(ratio[:, 0]),
        start=np.exp(ratio[:, 1]),
        starts=min(high + 1 + horizon, len(plan.law.duration)),
    )
    return renewed_truth(law, _arrivals(study, plan, law, (low, high)), horizon, versus, first, back)


def _allowed(study: Study, one: Margin) -> Margin:
    """A column among those who may take part."""
    name = "age" if one.column.kind == "age" else one.column.name
    covariates = {*study.covariates.numeric, *study.covariates.categorical}
    known = (study.covariates.missing == "exclude" and name in covariates) or (
        name == "age" and study.eligibility.age is not None
    )
    numbers = study.eligibility.age if name == "age" else None
    return restrict(one, numbers, study.eligibility.exclude.get(name, ()), known)


def _arrivals(study: Study, plan: Blueprint, law: Law, elapsed: tuple[int, int]) -> Arrivals:
    """When spells begin and which starts in them count."""
    assert study.data is not None
    first_day, last_day = day_number(study.data.window.first), day_number(study.data.window.last)
    least = (study.time.horizon if study.time.follow_up == "complete" else 1) + study.look_ahead
    months, any_day = slice(plan.before, plan.before + plan.months), np.ones(LATEST_DAY + 1)
    later = eligible(law, any_day, least, elapsed, first_day, last_day)[months]
    first = eligible(law, plan.day_weights, least, elapsed, first_day, last_day)[months]
    stock, counted = _stock(plan), np.zeros((0, later.shape[1]))
    if stock and study.eligibility.stock == "include":
        of_any = eligible(law, any_day, least, elapsed, int(calendar.month_start(law.first)), last_day)
        step = np.arange(later.shape[1])
        counted = np.array([of_any[plan.before - on - 1] * (step >= on * STEPS) for on, _ in stock])
    elif stock:
        counted = np.zeros((len(stock), later.shape[1]))
    numbers = study.eligibility.earlier_spells or (0, 10_000)
    return Arrivals(plan.inflow, stock, first, later, counted, numbers)


def _stock(plan: Blueprint) -> list[tuple[int, float]]:
    """A few lengths that stand for the stock, each with its chance."""
    if not len(plan.stock_share):
        return []
    length = np.array([middle(group) for group in plan.aggregates.stock])
    cut = np.cumsum(plan.stock_share) / plan.stock_share.sum()
    part = np.minimum((cut * _STOCK_POINTS - 1e-9).astype(int), _STOCK_POINTS - 1)
    found = []
    for p in np.unique(part):
        chance = plan.stock_share[part == p]
        found.append((round(float(np.average(length[part == p], weights=chance))), float(chance.sum())))
    return found
