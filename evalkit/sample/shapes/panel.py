"""Panels: a person or a group of persons by calendar month, quarter or year, in the engine.

``docs/shapes.md`` defines each outcome.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import narwhals as nw
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.errors import DataError, Fault
from evalkit.register import Register
from evalkit.register.schema import UNKNOWN, fields
from evalkit.sample.shapes.months import date, month_number
from evalkit.sample.shapes.spells import FAR, first_starts, merged, placed, union
from evalkit.study import Study
from evalkit.study.outcome_source import NOT, OutcomeSource, read_source

Period = Literal["month", "quarter", "year"]
LENGTH: Mapping[Period, int] = {"month": 1, "quarter": 3, "year": 12}

_c = nw.col


@dataclass(frozen=True)
class _Grid:
    """The whole calendar periods of the window: their length in months, the first and the last of them."""

    length: int
    first: int
    last: int

    @property
    def months(self) -> tuple[int, int]:
        """First and last month."""
        return self.first * self.length, (self.last + 1) * self.length - 1

    def number(self, month: nw.Expr) -> nw.Expr:
        """Period of a month, from 1."""
        return month // self.length - (self.first - 1)


def panel(
    register: Register,
    study: Study,
    outcome: str,
    *,
    unit: str = "person",
    period: Period = "month",
    adopted: Mapping[str, dt.date] | None = None,
    adopter: str | None = None,
    among: NDArray[np.bool_] | None = None,
    persons: bool = False,
) -> nw.LazyFrame:
    """A panel of one outcome.

    Parameters
    ----------
    outcome:
        Name of an outcome of the study, or a source as the study file writes it: ``state:benefit``, ``state:work``,
        ``exit:any``, ``exit:<reason>``, ``exit:not_<reason>``, ``months:benefit``, ``months:work``, ``flow:<column>``.
    unit:
        ``person``, or a column of persons: a team, a municipality.
    adopted:
        By unit the day on which it adopted the instrument. Without, it is the day on which the first of its persons
        starts it.
    adopter:
        The column of persons whose values adopt (or ``person``), when that is not ``unit``: persons of teams. It must
        be the same for all persons of a unit. Clusters are then adopters, unless the study names others.
    among:
        (P,) only these persons, in the order of the table of persons.
    persons:
        Also a last column ``persons``: those beneath the outcome, of the unit or, with an exit rate, at risk.

    Returns
    -------
    ``unit``, ``period`` (1 is the first whole period of the window), ``begins`` (its first day), ``outcome``,
    ``first_treated`` (period, 0 never), ``cluster``, ``weight``; sorted by unit and period, not yet computed.

    Raises
    ------
    DataError
        ``shapes.unknown_outcome``, ``shapes.unknown_column``, ``shapes.no_period``, ``sample.no_jobs``.
    """
    source = _source(register, study, outcome)
    grid = _grid(register, study, source, LENGTH[period])
    people = _people(register, study, unit, adopter or unit, among)
    sums = _sums(register, study, source, grid).join(people, on="place", how="inner")
    grouped = sums.with_columns(period=grid.number(_c("month"))).group_by("unit", "period")
    sums = grouped.agg(_c("y").sum(), _c("n").sum(), at_risk=_c("place").n_unique())
    units = people.group_by("unit").agg(persons=nw.len(), low=_c("cluster").min(), high=_c("cluster").max())
    same = nw.when(_c("low") == _c("high")).then(_c("low")).otherwise(_c("unit"))
    units = units.join(_treated(register, study, people, grid, adopted), on="unit", how="left").with_columns(
        cluster=same,
        first_treated=_c("first_treated").fill_null(0),
        from_=nw.lit(1),
        to=nw.lit(grid.last - grid.first + 1),
    )
    frame = register.engine.explode(units, "from_", "to", "period")
    rate = source.family == "exit"
    frame = frame.join(sums, on=["unit", "period"], how="inner" if rate else "left")
    if rate:
        frame = frame.with_columns(outcome=_c("y") / _c("n"), weight=_c("n").cast(nw.Float64), persons=_c("at_risk"))
    else:
        months = grid.length if source.family == "state" else 1
        frame = frame.with_columns(
            outcome=_c("y").fill_null(0.0) / (_c("persons") * months), weight=_c("persons").cast(nw.Float64)
        )
    begins = _months(register).select(number="month", begins="first_date")
    frame = frame.with_columns(number=(_c("period") + (grid.first - 1)) * grid.length).join(
        begins, on="number", how="left"
    )
    frame = frame.filter(_c("weight") > 0)
    names = ["unit", "period", "begins", "outcome", "first_treated", "cluster", "weight", *["persons"] * persons]
    return frame.select(*names).sort("unit", "period")


def at_risk(register: Register, study: Study, outcome: str, period: Period) -> nw.LazyFrame:
    """Who is on benefit at the close of the month before some month of a period: ``place``, ``period``, each once.

    Periods are those of a panel of the outcome.

    Raises
    ------
    DataError
        As ``panel``.
    """
    grid = _grid(register, study, _source(register, study, outcome), LENGTH[period])
    months = _sums(register, study, OutcomeSource("exit", "any"), grid)
    return months.select("place", period=grid.number(_c("month"))).unique()


def whole_periods(register: Register, period: Period) -> tuple[int, int]:
    """The first and the last calendar period of which every month lies in the window, since January 1970.

    Raises
    ------
    DataError
        ``shapes.no_period``.
    """
    grid = _whole(register, 0, LENGTH[period])
    return grid.first, grid.last


def _source(register: Register, study: Study, outcome: str) -> OutcomeSource:
    """What an outcome is made of; those that look ahead of a single exit have no panel."""
    named = {item.name: item.source for item in study.outcomes}
    source = read_source(named.get(outcome, outcome))
    if source is None or source.family in ("durable", "return") or source.register:
        valid = ", ".join([*named, "state:benefit", "exit:any", "months:benefit", "state:work", "flow:earnings"])
        raise DataError(Fault("shapes.unknown_outcome", {"name": outcome, "valid": valid}))
    if source.needs_jobs and register.jobs is None:
        raise DataError(Fault("sample.no_jobs"))
    return source


def _grid(register: Register, study: Study, source: OutcomeSource, length: int) -> _Grid:
    """Periods of which every month lies in the window, with what the outcome looks ahead."""
    return _whole(register, source.look_ahead(study.spells.merge_gap_months), length)


def _whole(register: Register, ahead: int, length: int) -> _Grid:
    first, last = (np.array(calendar.day_number(day)) for day in register.window)
    month = int(calendar.month_number(first))
    begin = month + int(calendar.month_start(month) < first)
    end = int(calendar.month_number(last + 1)) - 1 - ahead
    grid = _Grid(length, -(-begin // length), (end + 1) // length - 1)
    if grid.last < grid.first:
        raise DataError(Fault("shapes.no_period", {"months": length}))
    return grid


def _people(register: Register, study: Study, unit: str, adopter: str, among: NDArray[np.bool_] | None) -> nw.LazyFrame:
    """``place``, ``unit``, ``adopter``, ``cluster``; people without a unit or an adopter are left out."""
    known = {field.name for field in fields(study, "persons") if field.own}
    for name in (unit, adopter):
        if name not in known:
            raise DataError(Fault("shapes.unknown_column", {"name": name, "valid": ", ".join(sorted(known))}))
    level = study.treatment.cluster
    own, adopts = _c(unit).cast(nw.String), _c(adopter).cast(nw.String)
    cluster = adopts if level == "person" else nw.coalesce(_c(level).cast(nw.String), adopts)
    persons = register.engine.places("persons")
    frame = persons.select("place", own.alias("unit"), adopts.alias("adopter"), cluster.alias("cluster"))
    if among is not None:
        places = np.flatnonzero(among)
        name = f"__among_{hashlib.blake2b(places.tobytes(), digest_size=8).hexdigest()}"
        has = register.engine.has(name)
        chosen = register.engine.frame(name) if has else register.engine.put(name, pa.table({"place": places}))
        frame = frame.join(chosen, on="place", how="inner")
    return frame.filter(~_c("unit").is_null(), ~_c("adopter").is_null())


def _treated(
    register: Register, study: Study, people: nw.LazyFrame, grid: _Grid, adopted: Mapping[str, dt.date] | None
) -> nw.LazyFrame:
    """``unit`` and the period in which it is first treated; the first one for those who were before."""
    if adopted is None:
        days = first_starts(register, study).join(people, on="place", how="inner").select("adopter", "on")
    else:
        rows = sorted(adopted.items())
        name = f"__adopted_{hashlib.blake2b(repr(rows).encode(), digest_size=8).hexdigest()}"
        columns = {"adopter": [key for key, _ in rows], "on": pa.array([day for _, day in rows], pa.date32())}
        known = register.engine.has(name)
        days = register.engine.frame(name) if known else register.engine.put(name, pa.table(columns))
    frame = days.group_by("adopter").agg(on=_c("on").min())
    units = people.select("unit", "adopter").unique()
    frame = units.join(frame, on="adopter", how="inner").group_by("unit").agg(on=_c("on").min())
    number = grid.number(month_number(_c("on")))
    return frame.select("unit", first_treated=nw.when(number > 1).then(number).otherwise(1))


def _months(register: Register) -> nw.LazyFrame:
    """Calendar months from 1900 to 2199: ``month``, first and last day as numbers, first day as date."""
    if register.engine.has("__months"):
        return register.engine.frame("__months")
    month = np.arange(-840, 2760)
    first = calendar.month_start(month)
    columns = {"month": month, "first": first, "last": calendar.month_start(month + 1) - 1}
    dates = pa.array(first.astype("datetime64[D]"), pa.date32())
    return register.engine.put("__months", pa.table({**columns, "first_date": dates}))


def _sums(register: Register, study: Study, source: OutcomeSource, grid: _Grid) -> nw.LazyFrame:
    """What a person adds to the outcome of a month: ``place``, ``month``, ``y`` and (exits) ``n`` at risk."""
    if source.family == "flow":
        return _amounts(register, grid, _rates(register, study, source.which))
    held = _jobs(register) if source.needs_jobs else merged(register, study)
    if source.family == "months":
        ones = held.with_columns(amount=nw.lit(1.0), share=nw.lit(True))
        return _amounts(register, grid, ones.select("place", "begin", "until", "amount", "share"))
    begin, end = month_number(_c("begin")), month_number(_c("until"))  # on its last day a spell has ended
    first, last = (begin, end - 1) if source.family == "state" else (begin + 1, end)
    low, high = grid.months
    frame = held.with_columns(ends=end, low=nw.lit(low), high=nw.lit(high), first=first, last=last)
    frame = frame.with_columns(first=nw.max_horizontal("first", "low"), last=nw.min_horizontal("last", "high"))
    frame = register.engine.explode(frame.filter(_c("first") <= _c("last")), "first", "last", "month")
    if source.family == "state":
        return frame.select("place", "month", y=nw.lit(1.0), n=nw.lit(1))
    counts = _leads_to(source.which) & (_c("month") == _c("ends"))
    return frame.select("place", "month", y=counts.cast(nw.Float64), n=nw.lit(1))


def _leads_to(which: str) -> nw.Expr:
    """Whether the reason of a spell is the destination asked for."""
    if which == "any":
        return ~_c("reason").is_null()
    if which.startswith(NOT):
        return (_c("reason") != which.removeprefix(NOT)) & (_c("reason") != UNKNOWN)
    return _c("reason") == which


def _jobs(register: Register) -> nw.LazyFrame:
    """Stretches of time in any job; one that lasts to the window's last day runs on."""
    assert register.jobs is not None
    ends = _c("end").fill_null(date(FAR))
    until = nw.when(ends >= date(register.window[1])).then(date(FAR)).otherwise(ends)
    return union(register, placed(register, register.jobs.select("person", "start", until=until, row=_c("job"))))


def _rates(register: Register, study: Study, column: str) -> nw.LazyFrame:
    """Jobs with an amount: of each of their days, or a month's that holds on each (``share``)."""
    assert register.jobs is not None
    until = _c("end").fill_null(date(FAR))
    frame = register.jobs.filter(~_c(column).is_null()).with_columns(begin=_c("start"), until=until, amount=_c(column))
    frame = placed(register, frame.select("person", "start", "end", "begin", "until", "amount"))
    if study.spells.job_amounts == "rate":
        return frame.select("place", "begin", "until", "amount", share=nw.lit(True))
    frame = register.engine.day_numbers(frame.filter(~_c("end").is_null()), begin_day="start", end_day="end")
    daily = _c("amount") / (_c("end_day") - _c("begin_day") + 1)
    return frame.select("place", "begin", "until", amount=daily, share=nw.lit(False))


def _amounts(register: Register, grid: _Grid, frame: nw.LazyFrame) -> nw.LazyFrame:
    """Amounts by month: of the days that fall in it, or (``share``) by the share of its days."""
    low, high = grid.months
    frame = register.engine.day_numbers(frame, begin_day="begin", end_day="until")
    frame = frame.with_columns(
        low=nw.lit(low), high=nw.lit(high), first=month_number(_c("begin")), last=month_number(_c("until"))
    )
    frame = frame.with_columns(
        first_month=nw.max_horizontal("first", "low"), last_month=nw.min_horizontal("last", "high")
    )
    frame = frame.drop("first", "last").filter(_c("first_month") <= _c("last_month"))
    frame = register.engine.explode(frame, "first_month", "last_month", "month")
    frame = frame.join(_months(register), on="month", how="left")
    days = nw.min_horizontal("end_day", "last") - nw.max_horizontal("begin_day", "first") + 1
    length = nw.when(_c("share")).then(_c("last") - _c("first") + 1).otherwise(1)
    return frame.select("place", "month", y=_c("amount") * days / length, n=nw.lit(1))
