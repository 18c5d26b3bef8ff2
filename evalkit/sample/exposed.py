"""Spells by the group that adopts: what difference-in-differences in hazards works on, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.errors import DesignError, Fault
from evalkit.sample.panels import NO_DAY, RegisterPanels
from evalkit.sample.shapes import spell_table
from evalkit.sample.types import Among, Sample

Ints = NDArray[np.int64]

YEAR_0 = 1970 * 12
"""Added to months since January 1970, so that every month is a positive number: year times 12 plus month less 1."""


@dataclass(frozen=True)
class GroupSpells:
    """Spells (S,) of people whose group is known, one row each.

    Attributes
    ----------
    person: its number. group: its name. cell: the covariate cell: levels of the fixed categorical covariates.
    entry_month: number of the calendar month of the first day. entry_offset: first elapsed month under observation.
    stop: months until the spell ends or observation does; event: whether it ended; cause: why.
    adopted: the first calendar month in which elapsed months that begin are with the approach as a whole; 0 never.
    window: first and last calendar month such that elapsed months that begin in it are observed as a whole.
    cut: elapsed months that begin so many months before ``adopted`` are partly with the approach: 1 when every group
        adopted on the first day of a month, otherwise 2.
    persons, outside: people who take part, and people left out because their group or a covariate is not known.
    """

    person: Ints
    group: NDArray[np.str_]
    cell: NDArray[np.str_]
    entry_month: Ints
    entry_offset: Ints
    stop: Ints
    event: NDArray[np.bool_]
    cause: NDArray[np.object_]
    adopted: Ints
    window: tuple[int, int]
    cut: int
    persons: int
    outside: int


def group_spells(sample: Sample, unit: str = "", among: Among = None, *, covariates: bool = True) -> GroupSpells:
    """The spells of a register study by adopting group.

    Spells that ran before the window began take part where ``eligibility.stock`` includes them, from their first whole
    observed month on.

    Raises
    ------
    DesignError
        ``did.no_panel`` without a register; ``did.nobody_at_risk`` when no spell is left.
    DataError
        ``shapes.unknown_column``, ``did.unit_mixed``.
    """
    panels = sample.panels
    if not isinstance(panels, RegisterPanels):
        raise DesignError(Fault("did.no_panel", {"source": sample.source}))
    units = panels.units(unit or sample.study.treatment.unit)
    table = spell_table(panels.register, sample.study).sort("place", "spell").collect("pyarrow").to_native()
    columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in
               ("place", "begin", "stock", "entry", "stop", "event", "reason")}  # fmt: skip
    place = columns["place"].astype(np.int64)
    chosen = panels.usable if among is None else panels.usable & np.asarray(among, bool)
    known = (units.code >= 0) & chosen
    keep = known[place] & (columns["entry"] < columns["stop"])
    if sample.study.eligibility.stock == "exclude":
        keep &= ~columns["stock"].astype(bool)
    if not keep.any():
        raise DesignError(Fault("did.nobody_at_risk", {}))
    place = place[keep]
    begin = calendar.to_days(columns["begin"][keep])
    cell = np.full(len(place), "", object)
    for made in sample.people.factors if covariates else ():
        cell = cell + np.array([f"{level}|" for level in made.levels], object)[made.codes[place]]
    day = units.day[units.code[place]]
    whole = np.where(day < NO_DAY, day, 0)
    month = calendar.month_number(whole)
    inside = (day < NO_DAY) & (whole > calendar.month_start(month))
    adopted = np.where(day < NO_DAY, YEAR_0 + month + inside, 0)
    first, last = (calendar.day_number(d) for d in panels.register.window)
    begins = int(calendar.month_number(first))
    begins += int(first > int(calendar.month_start(begins)))
    closes = int(calendar.month_number(last + 1)) - 2 - sample.study.spells.merge_gap_months
    people = np.ones(len(known), bool) if among is None else np.asarray(among, bool)
    return GroupSpells(
        place, units.ids[units.code[place]], cell.astype(str), YEAR_0 + calendar.month_number(begin),
        columns["entry"][keep].astype(np.int64), columns["stop"][keep].astype(np.int64),
        columns["event"][keep].astype(bool), columns["reason"][keep].astype(object), adopted.astype(np.int64),
        (YEAR_0 + begins, YEAR_0 + closes), 1 + int(inside.any()), len(np.unique(place)), int((people & ~known).sum()),
    )  # fmt: skip
