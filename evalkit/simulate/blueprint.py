"""The law of a twin: rates and margins worked out from aggregates, with an effect of one's own choice.

Nothing here sees a register. ``twin`` draws from this law and ``known_effect`` sums over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import fftconvolve

from evalkit.calendar import day_number, month_number
from evalkit.errors import Fault, UsageError
from evalkit.simulate.aggregates import Aggregates, Band, Exit, Group
from evalkit.simulate.lives import LATEST_DAY
from evalkit.simulate.model import STEPS, Array, Law, step_probability
from evalkit.simulate.people import Margin, cells, margin

_SETTLED = 1
"""Sub-steps by which a gap outlasts those that are bridged, so that months of different length make no difference."""
_USUAL_LENGTH = 6
_ROUNDS = 3
_MOST, _LONGEST = 20, 120  # a factor, and months, beyond which an effect is a slip of the pen


@dataclass(frozen=True)
class Effect:
    """The effect that a twin gets: factors on the rate of leaving to the target.

    ``during`` in the first ``months`` months since the start, ``after`` from then on. ``months`` None: the usual
    planned length of the instrument.
    """

    during: float = 0.6
    after: float = 1.42
    months: int | None = None

    @classmethod
    def read(cls, text: str) -> Effect:
        """From ``0.6,1.42`` or ``0.6,1.42,6``; ``none`` is no effect.

        Raises
        ------
        UsageError
            ``twin.effect``.
        """
        if text.strip().lower() == "none":
            return cls(1.0, 1.0)
        parts = text.split(",")
        try:
            during, after = (float(part) for part in parts[:2])
            months = int(parts[2]) if len(parts) == 3 else None
        except ValueError:
            during = after = -1.0
        sound = len(parts) <= 3 and min(during, after) >= 0 and max(during, after) <= _MOST
        if sound and (months is None or 1 <= months <= _LONGEST):
            return cls(during, after, months)
        raise UsageError(Fault("twin.effect", {}, "--effect"))


USUAL = Effect()
"""A lock-in and then a gain, as long as the instrument usually lasts."""


@dataclass(frozen=True)
class Blueprint:
    """The law of a twin.

    Attributes
    ----------
    margins: the columns that tell something, by name.
    law: of the cells of all persons.
    before: months before the window in which a stock spell may begin.
    months: of the window.
    inflow: chance that a person's first spell begins in each month of the window.
    stock_share: chance that it runs when the window begins, by the groups of the stock in the aggregates.
    day_weights: how often a first spell begins on the first, second, .. day of a month.
    """

    aggregates: Aggregates
    margins: dict[str, Margin]
    law: Law
    before: int
    months: int
    inflow: Array
    stock_share: Array
    day_weights: Array


def blueprint(aggregates: Aggregates, effect: Effect) -> Blueprint:
    """The law that goes with some aggregates and an effect."""
    first, last = (int(month_number(day_number(day))) for day in aggregates.window)
    months = last - first + 1
    before = int(max((group.high for group in aggregates.stock), default=0)) + 2
    span = before + months + 1
    whole = aggregates.with_spell.part / aggregates.with_spell.persons
    flowed = np.zeros(months)
    for quarters in aggregates.inflow:
        a, b = _month(quarters.first) - first, _month(quarters.last) + 3 - first
        inside = np.arange(max(a, 0), min(b, months))
        flowed[inside] += quarters.persons / len(inside)
    stock = np.array([group.persons for group in aggregates.stock], float)
    total = flowed.sum() + stock.sum()
    margins = {one.column.name: one for one in map(margin, aggregates.columns) if one is not None}
    share, ratio = cells(list(margins.values()))
    exits = aggregates.exits
    day = np.ones(LATEST_DAY + 1)
    if aggregates.on_first is not None:
        on_first = aggregates.on_first.part / aggregates.on_first.persons
        day = np.append(on_first, np.full(LATEST_DAY, (1 - on_first) / LATEST_DAY))
    target, start = _by_month(exits[0].bands, span), _by_month(aggregates.instruments[0].starts, span)
    others = np.array([_by_month(exits[kind].bands, span) for kind in (1, 2)])
    inflow, held = whole * flowed / total, whole * stock / total
    law = Law(
        levels={},
        share=share,
        work=np.exp(ratio[:, 0]),
        start=np.exp(ratio[:, 1]),
        duration=target,
        start_elapsed=start,
        calendar=np.ones(1),
        start_calendar=np.ones(1),
        path=_path(aggregates, effect, span),
        others=np.ones(2),
        others_duration=others,
        back=np.zeros(3),
        again=np.zeros(3),
        coach=0.0,
        first=first - before,
        entries=before + months,
        starts=span,
        returns=np.array([_return(aggregates, one, months) for one in exits]),
    )
    points = [(round(middle(group)), chance) for group, chance in zip(aggregates.stock, held, strict=True)]
    law = _calibrated(law, inflow, points)
    return Blueprint(aggregates, margins, law, before, months, inflow, held, day)


def _month(quarter: str) -> int:
    """The first month of a quarter, as months since 1970."""
    return (int(quarter[:4]) - 1970) * 12 + (int(quarter[-1]) - 1) * 3


def _by_month(bands: Sequence[Band], months: int) -> Array:
    """Rate by month; the last band goes on."""
    rate = np.zeros(months)
    for band in bands:
        rate[band.first :] = band.events / band.months
    return rate


def _path(aggregates: Aggregates, effect: Effect, months: int) -> Array:
    """(3, months) factors on the kinds of exit since the start."""
    path = np.ones((3, months))
    path[0] = np.where(np.arange(months) < lock_in_months(aggregates, effect), effect.during, effect.after)
    return path


def lock_in_months(aggregates: Aggregates, effect: Effect) -> int:
    """How long the first part of an effect lasts."""
    if effect.months is not None:
        return effect.months
    own = aggregates.instruments[0]
    lengths = own.planned or own.realised
    if not lengths:
        return 1 if own.event else _USUAL_LENGTH
    half, below = sum(group.persons for group in lengths) / 2, 0
    for group in lengths:
        below += group.persons
        if below >= half:
            break
    return max(1, round(middle(group)))


def middle(group: Group) -> float:
    """The middle of a group of whole numbers."""
    return (group.low + max(group.high - 1, group.low)) / 2


def _return(aggregates: Aggregates, one: Exit, months: int) -> Array:
    """Chance to return in each sub-step since an exit."""
    rate = np.repeat(_by_month(one.returns or aggregates.returns, months), STEPS)
    if aggregates.gap_months:
        rate[: aggregates.gap_months * STEPS + _SETTLED] = 0.0
    return np.asarray(step_probability(rate))


def _calibrated(law: Law, inflow: Array, stock: Sequence[tuple[int, float]]) -> Law:
    """The law with rates such that those at risk in each elapsed month have the told rates on average.

    Persons with high rates leave first, so that without this the rates of the others would be too low later on; and
    they come back more often, so that those in later spells have higher rates than those in first ones.
    """
    made, later = law, np.zeros((len(inflow), len(law.share)))
    for _ in range(_ROUNDS):
        made, stay = _fitted(law, inflow, stock, later)
        later = _later(made, inflow, stock, stay)
    return made


def _fitted(law: Law, inflow: Array, stock: Sequence[tuple[int, float]], later: Array) -> tuple[Law, Array]:
    """One round: the rates, and the chance (months + 1, C) to be on benefit and not started after so many months.

    ``later``: (W, C) spells after the first that begin in each month of the window, by person of a cell.
    """
    months = len(law.duration)
    begins = np.zeros((months, len(law.share)))  # spells of which at least so many months are seen
    begins[: len(inflow)] = np.cumsum(inflow[:, None] + later, axis=0)[::-1]
    stay = np.ones((months + 1, len(law.share)))
    target, start = law.duration.copy(), law.start_elapsed.copy()
    for m in range(months):
        weight = begins[m] * stay[m]
        for elapsed, chance in stock:
            if elapsed <= m < elapsed + len(inflow):
                weight = weight + chance * stay[m] / np.maximum(stay[elapsed], 1e-300)
        weight = law.share * (weight if weight.any() else stay[m])
        target[m] = law.duration[m] * weight.sum() / (weight @ law.work)
        start[m] = law.start_elapsed[m] * weight.sum() / (weight @ law.start)
        rate = target[m] * law.work + law.others_duration[:, m].sum() + start[m] * law.start
        stay[m + 1] = stay[m] * np.exp(-rate)
    return replace(law, duration=target, start_elapsed=start), stay


def _later(law: Law, inflow: Array, stock: Sequence[tuple[int, float]], stay: Array) -> Array:
    """(W, C) spells after the first, to the month and as if nobody started."""
    months = len(inflow)
    assert law.returns is not None
    away = np.cumprod(np.hstack([np.ones((3, 1)), 1 - law.returns]), axis=1)
    gap = -np.diff(away[:, ::STEPS], axis=1)[:, :months]
    others = np.repeat(law.others_duration[:, :, None], len(law.share), 2)
    exits = np.concatenate([(law.duration[:, None] * law.work)[None], others])
    total = exits.sum(axis=0)
    on = np.exp(-np.vstack([np.zeros((1, len(law.share))), np.cumsum(total, axis=0)]))
    leave = exits * (on[:-1] - on[1:]) / np.maximum(total, 1e-300)

    def following(leave_from: Array) -> Array:
        both = sum(fftconvolve(leave_from[k], gap[k][:, None], axes=0)[:months] for k in range(3))
        moved = np.vstack([np.zeros((1, len(law.share))), both[:-1]])
        return np.asarray(np.maximum((both + moved) / 2, 0.0))  # half a month in the one and half in the other

    next_in = following(leave[:, :months])
    begins = np.maximum(fftconvolve(np.repeat(inflow[:, None], len(law.share), 1), next_in, axes=0), 0.0)[:months]
    for elapsed, chance in stock:
        begins += chance * following(leave[:, elapsed : elapsed + months] / np.maximum(on[elapsed], 1e-300))
    found = np.zeros_like(begins)
    while begins.sum() > 1e-4 * len(law.share):
        found += begins
        begins = np.maximum(fftconvolve(begins, next_in, axes=0), 0.0)[:months]
    return found
