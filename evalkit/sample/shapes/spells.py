"""One row a benefit spell, worked out in the engine: merged as the sample merges them, in whole months from entry.

The rules are those of ``evalkit.sample.merging`` and ``evalkit.sample.spells``, which work on arrays; tests hold the
two against each other. ``docs/shapes.md`` defines every column.
"""

from __future__ import annotations

import datetime as dt
import hashlib

import narwhals as nw
import numpy as np
import pyarrow as pa

from evalkit.calendar import NEVER
from evalkit.register import Register
from evalkit.register.schema import UNKNOWN
from evalkit.sample.instruments import read_instruments
from evalkit.sample.merging import merge_benefits
from evalkit.sample.shapes.months import date, month_number, months_before, next_day, whole_months
from evalkit.sample.spells import Intervals, locator
from evalkit.study import Study

FAR = dt.date(9998, 12, 31)
"""The last day of a spell that still runs."""

_c = nw.col
_BEFORE = """SELECT place, start, until, code, row, max(until) OVER
    (PARTITION BY place ORDER BY start, row ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM {source}"""


def placed(register: Register, frame: nw.LazyFrame) -> nw.LazyFrame:
    """A frame with ``place``, the row of its person in the table of persons, instead of ``person``.

    A number is quicker to group and to sort by than a pseudonym, and gives the same order.
    """
    places = register.engine.places("persons").select("person", "place")
    return frame.join(places, on="person", how="inner").drop("person")


def spell_table(register: Register, study: Study) -> nw.LazyFrame:
    """Benefit spells of everyone, one row each.

    Returns
    -------
    ``place`` (row of the person among persons), ``spell`` (0 for his first), ``begin`` and ``end`` (first and last day
    on benefit; empty while it runs), ``reason`` (empty text without one), ``stock`` (ran already when the window began)
    and, in whole months from ``begin``: ``entry`` (under observation from), ``stop`` (until), ``event`` (1: ended
    there), ``began`` (elapsed month in which the instrument first starts), ``treated`` (first elapsed month that begins
    with it) and ``planned`` (first one that begins after its planned end), empty when it does not start. ``month`` and
    ``day`` are the calendar month (since January 1970) and the day of the month of ``begin``.

    It is worked out once a register and kept in its engine.
    """
    name = f"__spells_{_digest(study)}"
    if register.engine.has(name):
        return register.engine.frame(name)
    return register.engine.keep(name, _observed(register, study, _with_start(register, study, merged(register, study))))


def _digest(study: Study) -> str:
    """What of the study the spells depend on, as a short text."""
    parts = (study.spells, study.time, study.treatment, study.instruments, study.eligibility.stock)
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def merged(register: Register, study: Study) -> nw.LazyFrame:
    """Spells of which no two of a person overlap or lie less than the study's gap apart.

    ``place``, ``spell``, ``begin``, ``until`` (``FAR`` while it runs), ``reason``. Of rows that end last together the
    reason of the highest rank counts: unknown, then those that the study does not list, then those it lists, in order.
    """
    reasons, size = _ranked(register, study)
    until = _c("end").fill_null(date(FAR))
    frame = register.benefits.with_columns(until=until, row=_c("spell"), reason=_c("reason").fill_null(""))
    frame = frame.join(reasons, on="reason", how="inner")
    until = _c("until")
    number = (until.dt.year() * 10_000 + until.dt.month() * 100 + until.dt.day()).cast(nw.Int64)
    frame = frame.with_columns(code=number * size + _c("rank"))
    if study.spells.level == "household":
        frame = _for_members(register, frame)
    frame = placed(register, frame.select("person", "start", "until", "code", "row"))
    frame = _components(register, frame, study.spells.merge_gap_months)
    frame = frame.group_by("place", "spell").agg(
        begin=_c("start").min(), until=_c("until").max(), rank=_c("code").max() % size
    )
    return frame.join(reasons, on="rank", how="inner").select("place", "spell", "begin", "until", "reason")


def _ranked(register: Register, study: Study) -> tuple[nw.LazyFrame, int]:
    """The reasons in the register (the empty text stands for none) with their ``rank`` from 0, and how many."""
    found = register.benefits.select("reason").unique().collect("pyarrow").to_native().column("reason").to_pylist()
    assert study.data is not None
    listed = list(study.data.benefits.codes.get("reason", {}))
    others = sorted({reason or "" for reason in found} - {UNKNOWN, *listed})
    reasons = [UNKNOWN, *others, *listed]
    name = f"__reasons_{hashlib.blake2b(repr(reasons).encode(), digest_size=8).hexdigest()}"
    if register.engine.has(name):
        return register.engine.frame(name), len(reasons)
    ranks = np.arange(len(reasons))
    return register.engine.put(name, pa.table({"reason": pa.array(reasons, pa.string()), "rank": ranks})), len(reasons)


def _for_members(register: Register, frame: nw.LazyFrame) -> nw.LazyFrame:
    """Rows of a household for each of its members; a row without a household stays with its person."""
    members = register.benefits.select("household_id", "person")
    if "household_id" in register.persons.collect_schema().names():
        members = nw.concat([members, register.persons.select("household_id", "person")])
    members = members.filter(~_c("household_id").is_null()).unique()
    columns = ["person", "start", "until", "code", "row"]
    named = ~_c("household_id").is_null()
    shared = frame.filter(named).select("household_id", *columns[1:]).join(members, on="household_id", how="inner")
    return nw.concat([frame.filter(~named).select(columns), shared.select(columns)])


def _components(register: Register, frame: nw.LazyFrame, gap_months: int) -> nw.LazyFrame:
    """Number the spells that rows become part of: those that overlap, touch or lie a short gap apart are one."""
    frame = register.engine.query(_BEFORE, frame)
    off = next_day(_c("before"))  # the first day off benefit
    back = off.dt.offset_by(f"{gap_months}mo").cast(nw.Date) if gap_months else next_day(off)
    joined = ~_c("before").is_null() & ((_c("before") >= date(FAR)) | (_c("start") < back))
    frame = frame.with_columns(new=(~joined.fill_null(False)).cast(nw.Int64))
    return frame.with_columns(spell=_c("new").cum_sum().over("place", order_by=["start", "row"]).cast(nw.Int32) - 1)


def union(register: Register, frame: nw.LazyFrame) -> nw.LazyFrame:
    """Intervals ``place``, ``start``, ``until``, ``row`` of which those that overlap or touch are one."""
    frame = _components(register, frame.with_columns(code=nw.lit(0)), 0)
    return frame.group_by("place", "spell").agg(begin=_c("start").min(), until=_c("until").max())


def first_starts(register: Register, study: Study) -> nw.LazyFrame:
    """Days on which a person starts the instrument: ``place``, ``on``, ``planned_end`` (the latest of that day)."""
    name = study.treatment.instrument
    if any(listed.name == name for listed in study.instruments):
        frame = _derived(register, study)
    else:  # episodes as they stand in the table
        clock = "referral" if study.time.clock == "referral" else "start"
        own = register.episodes.filter(_c("type") == name, ~_c(clock).is_null())
        frame = placed(register, own.select("person", "planned_end", on=_c(clock)))
    return frame.group_by("place", "on").agg(planned_end=_c("planned_end").max())


def _derived(register: Register, study: Study) -> nw.LazyFrame:
    """Starts of an instrument that is joined, combined or numbered, which is done on arrays."""
    name = f"__starts_{_digest(study)}"
    if register.engine.has(name):
        return register.engine.frame(name)
    persons = register.arrays("persons")
    of = locator(persons["person"])
    spells = merge_benefits(study, register.arrays("benefits"), persons, of)
    held = Intervals(spells.person, spells.start, spells.end)
    own = read_instruments(study, register.arrays("episodes"), of, held)[study.treatment.instrument]
    known = np.flatnonzero(own.day < NEVER)
    columns = {"place": pa.array(own.person[known])}
    for column, days in (("on", own.day[known]), ("planned_end", own.planned_end[known])):
        columns[column] = pa.array(np.minimum(days, 2**30).astype(np.int32), mask=days >= NEVER).cast(pa.date32())
    return register.engine.put(name, pa.table(columns))


def _with_start(register: Register, study: Study, spells: nw.LazyFrame) -> nw.LazyFrame:
    """Add the day on which the instrument first starts within the spell, and its planned end."""
    starts = first_starts(register, study)
    held = spells.select("place", "spell", "begin", "until").join(starts, on="place", how="inner")
    held = held.filter(_c("begin") <= _c("on"), _c("on") <= _c("until"))
    held = held.with_columns(nth=_c("on").cum_count().over("place", "spell", order_by="on"))
    first = held.filter(_c("nth") == 1).select("place", "spell", "on", "planned_end")
    return spells.join(first, on=["place", "spell"], how="left")


def _observed(register: Register, study: Study, spells: nw.LazyFrame) -> nw.LazyFrame:
    """Days turned into whole months from entry, cut off where observation begins and ends."""
    first, last = (date(day) for day in register.window)
    month, day = _c("month"), _c("day")
    frame = spells.with_columns(
        month=month_number(_c("begin")),
        day=_c("begin").dt.day().cast(nw.Int32),
        after=next_day(last),
        end=nw.when(_c("until") < date(FAR)).then(_c("until")).otherwise(None),
        stock=_c("begin") < first,
    )
    entry = months_before(month, day, first)
    frame = frame.with_columns(
        entry=nw.when(entry > 0).then(entry).otherwise(nw.lit(0, nw.Int32)),
        seen=whole_months(month, day, _c("after")) - study.spells.merge_gap_months,
        length=whole_months(month, day, _c("end")) + 1,
        began=whole_months(month, day, _c("on")),
        border=months_before(month, day, _c("on")),
        planned=months_before(month, day, next_day(_c("planned_end"))),
    )
    ended = (_c("length") <= _c("seen")).fill_null(False)
    treated = {"dates": _c("border"), "start_first": _c("began"), "exit_first": _c("began") + 1}
    frame = frame.with_columns(
        stop=nw.when(ended).then(_c("length")).otherwise(_c("seen")),
        event=ended.cast(nw.Int32),
        treated=treated[study.time.within_month],
    )
    names = "place spell begin end reason stock entry stop event began treated planned month day"
    return frame.select(*names.split())
