"""Spells as counting-process episodes, and as patterns with a count, in the engine.

An episode is a stretch of whole months of one spell in which nothing that is asked for changes. Patterns are the
episodes of persons who are alike in everything that the episodes hold, over all their spells. ``docs/shapes.md``
defines both and says why a fit on patterns equals the fit on rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import narwhals as nw

from evalkit.errors import DataError, Fault
from evalkit.register import Register
from evalkit.register.schema import fields
from evalkit.sample.shapes.spells import spell_table
from evalkit.study import Study

_c = nw.col
_NONE = -1
"""Stands for "never" where a column is part of a key: a month is not negative."""
_PATHS = """SELECT {who}, max(code) FILTER (WHERE spell = 0) AS path_0, max(code) FILTER (WHERE spell = 1) AS path_1,
    max(code) FILTER (WHERE spell = 2) AS path_2, array_sort(array_agg(code) FILTER (WHERE spell > 2)) AS path_3
    FROM {{source}} GROUP BY {who}"""


@dataclass(frozen=True)
class Splits:
    """Where episodes are cut, besides at the start of the instrument; all in whole months.

    ``since_entry``, ``since_start``: months since entry and since the start of the instrument. ``planned_end``: where
    its planned end has passed. ``years``: where a calendar year begins, by the first day of the elapsed month.
    ``until``: observation stops after so many months since entry, when given.
    """

    since_entry: Sequence[int] = ()
    since_start: Sequence[int] = ()
    planned_end: bool = False
    years: bool = False
    until: int | None = None

    def __post_init__(self) -> None:
        if any(cut < 1 for cut in (*self.since_entry, *self.since_start)) or (self.until or 1) < 1:
            raise ValueError("splits are whole months from 1")


@dataclass(frozen=True)
class Traits:
    """What stands beside an episode. ``columns``: covariates (of persons, or ``age`` at entry in whole years).

    ``bands``: lower bounds of the second and later groups of a number, which then becomes the number of its group,
    from 0. ``where``: which spells take part, as an expression on the columns of ``spell_table`` and the covariates.
    """

    columns: Sequence[str] | None = None
    bands: Mapping[str, Sequence[float]] | None = None
    where: nw.Expr | None = None


def _names(study: Study, traits: Traits) -> tuple[list[str], list[str]]:
    """The covariates asked for, otherwise the study's own that do not change over time; and which are texts."""
    kinds = {field.name: field.kind for field in fields(study, "persons") if field.own and field.name != "person"}
    if "birth_year" in kinds:
        kinds["age"] = "integer"
    names = traits.columns
    if names is None:
        own = (*study.covariates.categorical, *study.covariates.numeric)
        names = [name for name in own if name in kinds]  # the others change over time
    numbers = [name for name, kind in kinds.items() if kind in ("integer", "number")]
    for code, wanted, valid in (
        ("shapes.unknown_column", names, list(kinds)),
        ("shapes.not_a_number", traits.bands or {}, numbers),
    ):
        if unknown := [name for name in wanted if name not in valid]:
            raise DataError(Fault(code, {"name": unknown[0], "valid": ", ".join(sorted(valid))}))
    names = list(dict.fromkeys(names))
    return names, [name for name in names if kinds[name] in ("text", "code")]


def _band(name: str, bounds: Sequence[float]) -> nw.Expr:
    """The number of the group that a number falls in; empty stays empty."""
    group: nw.Expr = nw.lit(0)
    for bound in bounds:
        group = group + (_c(name) >= bound).cast(nw.Int64)
    return nw.when(~_c(name).is_null()).then(group).otherwise(None).alias(name)


def described(register: Register, study: Study, splits: Splits, traits: Traits) -> tuple[nw.LazyFrame, list[str]]:
    """Spells observed for a month at least, with covariates and cluster above the person; names of the covariates."""
    names, texts = _names(study, traits)
    spells = spell_table(register, study)
    if study.eligibility.stock == "exclude":
        spells = spells.filter(~_c("stock"))
    if splits.until is not None:
        over = _c("stop") > splits.until
        spells = spells.with_columns(
            event=nw.when(over).then(0).otherwise(_c("event")),
            stop=nw.when(over).then(splits.until).otherwise(_c("stop")),
        )
    spells = spells.filter(_c("entry") < _c("stop"))
    spells = spells.with_columns(  # a start after observation ends is not seen, nor the plan of one at its very end
        treated=nw.when(_c("treated") <= _c("stop")).then(_c("treated")).otherwise(None),
        planned=nw.when(_c("treated") < _c("stop")).then(_c("planned")).otherwise(None),
    )
    own = [name for name in names if name != "age"]
    level = study.treatment.cluster
    needed = dict.fromkeys([*own, *["birth_year"] * ("age" in names), *[level] * (level != "person")])
    people = register.engine.places("persons").select("place", *(_c(name).alias(f"of_{name}") for name in needed))
    spells = spells.join(people, on="place", how="left")
    made = {name: _c(f"of_{name}") for name in own}
    if "age" in names:
        made["age"] = _c("begin").dt.year().cast(nw.Int32) - _c("of_birth_year").cast(nw.Int32)
    if level != "person":
        made["cluster"] = _c(f"of_{level}").cast(nw.String)
    spells = spells.with_columns(**made)
    if study.covariates.missing == "exclude":
        spells = spells.filter(*(~_c(name).is_null() for name in names)) if names else spells
    elif texts:
        spells = spells.with_columns(_c(name).fill_null("missing") for name in texts)
    if traits.where is not None:
        spells = spells.filter(traits.where)
    if bands := {name: bounds for name, bounds in (traits.bands or {}).items() if name in names}:
        spells = spells.with_columns(_band(name, bounds) for name, bounds in bands.items())
    columns = "place spell entry stop event reason treated planned month".split() + ["cluster"] * (level != "person")
    return spells.select(*columns, *names), names


def _pieces(register: Register, spells: nw.LazyFrame, splits: Splits) -> nw.LazyFrame:
    """Each spell as stretches ``start`` to ``until``: cut at everything that is asked for."""
    marks = [_c("treated") + months for months in (0, *splits.since_start)]
    if splits.planned_end:
        marks.append(nw.when(_c("planned") > _c("treated")).then(_c("planned")).otherwise(None))
    inside = {"mark_0": _c("entry"), "zero": nw.lit(0), "number": nw.lit(len(marks))}
    for i, mark in enumerate(marks, 1):
        inside[f"mark_{i}"] = nw.when((mark > _c("entry")) & (mark < _c("stop"))).then(mark).otherwise(None)
    names = [name for name in inside if name.startswith("mark")]
    frame = register.engine.explode(spells.with_columns(**inside), "zero", "number", "nth")
    here, again = _c("mark_0"), nw.lit(False)
    for i, name in enumerate(names):
        here = nw.when(_c("nth") == i).then(_c(name)).otherwise(here)
        again = again | ((_c("nth") > i) & (_c(name) == _c("start")).fill_null(False))
    frame = frame.with_columns(start=here).filter(~_c("start").is_null(), ~again)
    later = [nw.when(_c(name) > _c("start")).then(_c(name)).otherwise(None) for name in names]
    frame = frame.with_columns(until=nw.min_horizontal("stop", *later)).drop("zero", "number", "nth", *names)
    if splits.since_entry:
        frame = _by_band(register, frame, sorted(set(splits.since_entry)))
    if splits.years:
        frame = _by_year(register, frame)
    return frame


def _by_band(register: Register, frame: nw.LazyFrame, cuts: Sequence[int]) -> nw.LazyFrame:
    """Cut stretches at fixed months since entry."""

    def place(month: nw.Expr) -> nw.Expr:
        number: nw.Expr = nw.lit(0)
        for cut in cuts:
            number = number + (month >= cut).cast(nw.Int64)
        return number

    frame = frame.with_columns(band_1=place(_c("start")), band_2=place(_c("until") - 1))
    frame = register.engine.explode(frame, "band_1", "band_2", "band")
    low, high = nw.lit(0), nw.lit(2**30)
    for i, cut in enumerate(cuts):
        low = nw.when(_c("band") == i + 1).then(nw.lit(cut)).otherwise(low)
        high = nw.when(_c("band") == i).then(nw.lit(cut)).otherwise(high)
    frame = frame.with_columns(start=nw.max_horizontal("start", low), until=nw.min_horizontal("until", high))
    return frame.drop("band_1", "band_2", "band")


def _by_year(register: Register, frame: nw.LazyFrame) -> nw.LazyFrame:
    """Cut stretches where the first day of an elapsed month is the first in a new calendar year."""
    first, last = _c("month") + _c("start"), _c("month") + _c("until") - 1
    frame = register.engine.explode(
        frame.with_columns(year_1=first // 12, year_2=last // 12), "year_1", "year_2", "year_0"
    )
    begin = _c("year_0") * 12 - _c("month")
    frame = frame.with_columns(
        start=nw.max_horizontal("start", begin), until=nw.min_horizontal("until", begin + 12), year=_c("year_0") + 1970
    )
    return frame.drop("year_1", "year_2", "year_0")


def _columns(frame: nw.LazyFrame, who: str, shown: nw.Expr, splits: Splits, rest: Sequence[nw.Expr]) -> nw.LazyFrame:
    """Stretches with the columns that the contract names, sorted by ``who``."""
    started = (_c("treated") <= _c("start")).fill_null(False)
    ends = _c("until") == _c("stop")
    frame = frame.with_columns(
        risk_set=~started,
        starts=(_c("treated") == _c("until")).fill_null(False),
        since_start=nw.when(started).then(_c("start") - _c("treated")).otherwise(None),
        planned_since_end=nw.when(started).then(_c("start") - _c("planned")).otherwise(None),
        event=nw.when(ends).then(_c("event")).otherwise(0),
    )
    frame = frame.with_columns(exit=nw.when(_c("event") == 1).then(_c("reason")).otherwise(None), stop=_c("until"))
    order = ["spell", "start", "stop", "event", "exit", "risk_set", "starts", "since_start", "planned_since_end"]
    return frame.sort(who, "spell", "start").select(shown, *order, *["year"] * splits.years, *rest)


def episodes(
    register: Register, study: Study, splits: Splits | None = None, traits: Traits | None = None
) -> nw.LazyFrame:
    """Counting-process episodes: one row for each stretch (start, stop] of a spell in which nothing changes.

    Returns
    -------
    ``person``, ``spell``, ``start``, ``stop``, ``event``, ``exit``, ``risk_set``, ``starts``, ``since_start``,
    ``planned_since_end``, ``year`` when split by it, ``cluster``, covariates; sorted, not yet computed.

    Raises
    ------
    DataError
        ``shapes.unknown_column``.
    """
    splits, traits = splits or Splits(), traits or Traits()
    spells, names = described(register, study, splits, traits)
    people = register.engine.places("persons").select("place", "person")
    frame = _pieces(register, spells, splits).join(people, on="place", how="left")
    cluster = _c("person" if study.treatment.cluster == "person" else "cluster").alias("cluster")
    return _columns(frame, "place", _c("person"), splits, [cluster, *map(_c, names)])


def patterns(
    register: Register, study: Study, splits: Splits | None = None, traits: Traits | None = None
) -> nw.LazyFrame:
    """Episodes of persons who are alike in all of them, once, with the number of such persons.

    Returns
    -------
    The columns of ``episodes`` with ``pattern`` for ``person``, and ``count``; ``cluster`` only where it lies above the
    person. ``planned_since_end`` is empty unless ``splits.planned_end`` asks for it, since it would set persons apart.

    Raises
    ------
    DataError
        ``shapes.unknown_column``.
    """
    splits, traits = splits or Splits(), traits or Traits()
    spells, names = described(register, study, splits, traits)
    path = ["spell", "entry", "stop", "event", "reason", "treated"]
    path += ["planned"] * splits.planned_end + ["first_year", "turn"] * splits.years + ["age"] * ("age" in names)
    year = (_c("month") + _c("entry")) // 12
    turn = (year + 1) * 12 - _c("month")  # the elapsed month that is the first in a new year
    spells = spells.with_columns(first_year=year, turn=nw.when(turn < _c("stop")).then(turn).otherwise(None))
    if not splits.planned_end:
        spells = spells.with_columns(planned=nw.lit(None, dtype=nw.Int32))
    same = ["cluster"] * (study.treatment.cluster != "person") + [name for name in names if name != "age"]
    key = {name: _c(name).fill_null(_NONE) for name in path if name != "reason"}
    key["reason"] = nw.when(_c("event") == 1).then(_c("reason")).otherwise(nw.lit(""))
    found = _alike(register, spells, key, same)
    spells = spells.join(found, on="place", how="inner")
    rest = [*same, *["age"] * ("age" in names), "count"]
    return _columns(_pieces(register, spells, splits), "pattern", _c("pattern"), splits, [_c(name) for name in rest])


def _alike(register: Register, spells: nw.LazyFrame, key: Mapping[str, nw.Expr], same: Sequence[str]) -> nw.LazyFrame:
    """One person of each group that has the same spells and the same traits: ``place``, ``pattern``, ``count``.

    Spells that are alike get one number, which grows with the number of the spell; a person's path is the numbers of
    his spells. The first three are columns of their own, which is much quicker than a list for everyone.
    """
    engine, path = register.engine, list(key)
    own = {f"own_{i}": _c(name) for i, name in enumerate(same)}
    coded = engine.keep_new(spells.select("place", **own, **key))
    codes = engine.number(coded.select(*path).unique(), "code", ["spell", *(name for name in path if name != "spell")])
    numbered = coded.join(codes, on=path, how="inner").select("place", "spell", *own, "code")
    people = engine.query(_PATHS.format(who=", ".join(["place", *own])), numbered)
    paths = [f"path_{i}" for i in range(4)]
    found = people.group_by(*paths, *own).agg(place=_c("place").min(), count=nw.len()).select("place", "count")
    kept = engine.keep_new(engine.number(found, "pattern", ["place"]))
    engine.forget(coded)
    return kept
