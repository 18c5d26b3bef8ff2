"""Draws persons, benefit spells and episodes from the law of a municipality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

from evalkit.calendar import NEVER, day_number
from evalkit.effects import generator
from evalkit.simulate.model import REASON, STEP_DAYS, STEPS, Ints, Law, Municipality, law, month_days

TRAINING, COACHING = "training", "coaching"


@dataclass(frozen=True)
class Tables:
    """Register tables with fixed names, sorted by person and date; ``seed`` is what drew them.

    persons: person, sex, birth_year, education, household, distance.
    benefits: person, start, end (last day on benefit; NaT while running), reason (None while running).
    episodes: person, type, start, end (NaT while running), planned_end, referral.
    jobs: person, start, end (NaT while running), and amounts; None when there is no such table.
    changes: by covariate that changes person, start, value.
    A twin has the columns of persons that its study has.
    """

    persons: pd.DataFrame
    benefits: pd.DataFrame
    episodes: pd.DataFrame
    seed: int
    jobs: pd.DataFrame | None = None
    changes: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def draw(municipality: Municipality, persons: int, seed: int) -> Tables:
    """A register of ``persons`` persons, the same for the same seed.

    What happens after the window's last day is unknown: spells and episodes that end later are running.
    Every person has one first spell, which may be followed by later ones; person numbers carry no information.
    """
    if persons < 1:
        raise ValueError("draw: at least one person")
    model = law(municipality)
    rng = generator(seed, "simulate")
    first, last = (day_number(day) for day in municipality.window)
    cell, entry, spells, episodes = _live(
        rng,
        persons,
        np.cumsum(model.share),
        model.work,
        model.start,
        model.others,
        model.others_duration,
        model.duration,
        model.calendar,
        model.start_elapsed,
        model.start_calendar,
        model.path,
        model.back,
        model.again,
        model.coach,
        month_days(model, max(municipality.programme_months, municipality.coaching_months)),
        model.entries,
        28 if municipality.entry_days == "any" else 1,
        municipality.programme_months,
        municipality.coaching_months,
        first,
        last,
    )
    return _tables(model, cell, entry, spells, episodes, rng.permutation(persons), seed)


@njit(cache=True)
def _geometric(rng: Any, probability: float) -> int:
    """Number of sub-steps until the first event, at least 1; far away when there is none."""
    if probability <= 0.0:
        return 1 << 40
    return 1 + int(np.log1p(-rng.random()) / np.log1p(-probability))


@njit(cache=True)
def boundary(days: Ints, entry: int, offset: int, step: int) -> int:
    """First day of a sub-step."""
    return days[entry + step // STEPS] + offset + STEP_DAYS * (step % STEPS)


@njit(cache=True)
def day_within(rng: Any, days: Ints, entry: int, offset: int, step: int) -> int:
    """A day of a sub-step, each as likely."""
    first = boundary(days, entry, offset, step)
    return first + int(rng.random() * (boundary(days, entry, offset, step + 1) - first))


@njit(cache=True)
def _end_of(days: Ints, entry: int, offset: int, step: int, months: int, last_day: int, last: int) -> tuple[Any, Any]:
    """Planned and actual last day of an episode that begins in a sub-step; NEVER when not over by ``last``."""
    planned = boundary(days, entry, offset, step + STEPS * months) - 1
    end = min(planned, last_day)
    return planned, end if end <= last else NEVER


@njit(cache=True)
def spell(
    rng: Any,
    work: float,
    start: float,
    others: NDArray[Any],
    others_duration: NDArray[Any],
    duration: NDArray[Any],
    calendar: NDArray[Any],
    start_elapsed: NDArray[Any],
    start_calendar: NDArray[Any],
    path: NDArray[Any],
    entry: int,
    first: int,
    steps: int,
) -> tuple[int, int, int]:
    """One spell, seen from sub-step ``first``: sub-step of the start and of the exit (-1 none), and the reason."""
    begun = -1
    for step in range(first, steps):
        month = step // STEPS
        if begun < 0:
            rate = start * start_elapsed[month] * start_calendar[entry + month]
            if rate > 0.0 and rng.random() < -np.expm1(-rate / STEPS):
                begun = step
        to_work = work * duration[month] * calendar[entry + month]
        to_education, to_other = others[0] * others_duration[0, month], others[1] * others_duration[1, month]
        if begun >= 0:
            since = (step - begun) // STEPS
            to_work *= path[0, since]
            to_education *= path[1, since]
            to_other *= path[2, since]
        total = to_work + to_education + to_other
        if rng.random() < -np.expm1(-total / STEPS):
            which = rng.random() * total
            return begun, step, 0 if which < to_work else 1 if which < to_work + to_education else 2
    return begun, -1, -1


@njit(cache=True)
def _live(
    rng: Any,
    persons: int,
    cumulated: NDArray[Any],
    work: NDArray[Any],
    start: NDArray[Any],
    others: NDArray[Any],
    others_duration: NDArray[Any],
    duration: NDArray[Any],
    calendar: NDArray[Any],
    start_elapsed: NDArray[Any],
    start_calendar: NDArray[Any],
    path: NDArray[Any],
    back: NDArray[Any],
    again: NDArray[Any],
    coach: float,
    days: Ints,
    entries: int,
    entry_days: int,
    programme_months: int,
    coaching_months: int,
    first: int,
    last: int,
) -> tuple[Ints, Ints, Ints, Ints]:
    """Cell and entry month of each person; rows (person, start, end, reason) and (person, type, start, end, ..)."""
    cells = np.empty(persons, np.int64)
    months = np.empty(persons, np.int64)
    spells = np.empty((2 * persons + 8, 4), np.int64)
    episodes = np.empty((persons + 8, 6), np.int64)
    n_spells = n_episodes = 0
    for person in range(persons):
        while True:
            cell = min(np.searchsorted(cumulated, rng.random(), side="right"), len(cumulated) - 1)
            entry = int(rng.random() * entries)
            offset = int(rng.random() * entry_days)
            steps = (entries - entry) * STEPS
            begun, left, reason = spell(
                rng,
                work[cell],
                start[cell],
                others,
                others_duration,
                duration,
                calendar,
                start_elapsed,
                start_calendar,
                path,
                entry,
                0,
                steps,
            )
            end: Any = day_within(rng, days, entry, offset, left) if left >= 0 else NEVER
            if end >= first:  # of the stock only those still on benefit are in the register
                break
        cells[person] = cell
        months[person] = entry
        begin = days[entry] + offset
        stop = steps if left < 0 else left + 1
        coached = _geometric(rng, coach) - 1
        for kind in range(2):
            at = begun if kind == 0 else coached
            day = boundary(days, entry, offset, at) if 0 <= at < stop else NEVER
            if day <= last:
                if n_episodes == len(episodes):
                    episodes = np.concatenate((episodes, np.empty_like(episodes)))
                length = programme_months if kind == 0 else coaching_months
                planned, over = _end_of(days, entry, offset, at, length, end, last)
                referral = max(begin, day - 7 - int(rng.random() * 29))
                row = episodes[n_episodes]
                row[0], row[1], row[2], row[3], row[4], row[5] = person, kind, day, over, planned, referral
                n_episodes += 1
        while begin <= last:
            if n_spells == len(spells):
                spells = np.concatenate((spells, np.empty_like(spells)))
            row = spells[n_spells]
            row[0], row[1], row[2], row[3] = person, begin, end if end <= last else NEVER, reason if end <= last else -1
            n_spells += 1
            if end > last:
                break
            left += _geometric(rng, back[reason])
            if left >= steps:
                break
            begin = boundary(days, entry, offset, left) + 1  # a day off benefit lies between two spells
            left += _geometric(rng, again.sum())
            which = rng.random() * again.sum()
            reason = 0 if which < again[0] else 1 if which < again[0] + again[1] else 2
            end = day_within(rng, days, entry, offset, left) if left < steps else NEVER
    return cells, months, spells[:n_spells], episodes[:n_episodes]


def _tables(model: Law, cell: Ints, entry: Ints, spells: Ints, episodes: Ints, number: Ints, seed: int) -> Tables:
    order = np.argsort(number)
    width = max(6, len(str(len(number))))
    names = np.array([f"P{i + 1:0{width}d}" for i in range(len(number))], object)
    who = cell[order]
    persons = pd.DataFrame(
        {
            "person": names,
            "sex": model.levels["sex"][who],
            "birth_year": (model.first + entry[order]) // 12 + 1970 - model.levels["age"][who],
            "education": model.levels["education"][who],
            "household": model.levels["household"][who],
            "distance": model.levels["distance"][who],
        }
    )
    rank = number[spells[:, 0]]
    spells, rank = _sorted(spells, rank, spells[:, 1])
    benefits = pd.DataFrame(
        {
            "person": names[rank],
            "start": dates(spells[:, 1]),
            "end": dates(spells[:, 2]),
            "reason": np.array([*REASON, None], object)[spells[:, 3]],
        }
    )
    rank = number[episodes[:, 0]]
    episodes, rank = _sorted(episodes, rank, episodes[:, 2])
    trajectories = pd.DataFrame(
        {
            "person": names[rank],
            "type": np.array([TRAINING, COACHING], object)[episodes[:, 1]],
            "start": dates(episodes[:, 2]),
            "end": dates(episodes[:, 3]),
            "planned_end": dates(episodes[:, 4]),
            "referral": dates(episodes[:, 5]),
        }
    )
    return Tables(persons, benefits, trajectories, seed)


def _sorted(rows: Ints, rank: Ints, start: Ints) -> tuple[Ints, Ints]:
    order = np.lexsort((start, rank))
    return rows[order], rank[order]


def dates(days: Ints) -> NDArray[Any]:
    """Days as a frame holds them; NEVER is NaT."""
    dates = np.where(days == NEVER, 0, days).astype("datetime64[D]").astype("datetime64[ns]")
    dates[days == NEVER] = np.datetime64("NaT")
    return dates
