"""Spells described: how many there are, for how many months they are observed, and how they end.

The counts are those of ``evalkit.sample.shapes.spell_table``, here on the arrays of the sample; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evalkit import calendar
from evalkit.calendar import NEVER
from evalkit.exhibits import Column, Exhibit, Table
from evalkit.register import Register
from evalkit.sample.outcomes import SpellOutcomes
from evalkit.sample.types import Sample

COLUMNS = (
    Column("spells_of", "spells_of", "key"),
    Column("persons", "persons", "count", decimals=0),
    Column("spells", "observed_spells", "count", "persons", decimals=0),
    Column("months", "observed_months", "count", "persons", decimals=0),
    Column("exits", "observed_exits", "count", parent="spells", decimals=0),
    Column("running", "observed_censored", "count", parent="spells", decimals=0),
    Column("starts", "observed_starts", "count", "persons", decimals=0),
)


def describe_spells(register: Register, sample: Sample) -> Iterator[Exhibit]:
    """Inflow and stock: persons, spells and whole months under observation, exits and first starts within them."""
    if not isinstance(sample.outcomes, SpellOutcomes):
        return
    spells = sample.outcomes.spells
    first, last = (np.int64(calendar.day_number(day)) for day in register.window)
    seen = calendar.whole_months(spells.start, last + 1) - sample.study.spells.merge_gap_months
    entry = np.maximum(calendar.whole_months(spells.start, first - 1) + 1, 0)
    length = np.where(spells.end < NEVER, spells.end, last + 10_000)
    length = calendar.whole_months(spells.start, length) + 1
    stop, ended = np.minimum(length, seen), (length <= seen) & (spells.end < NEVER)
    rows = []
    stock = spells.stock(int(first))
    for name, among in (("inflow", ~stock), ("stock", stock)):
        chosen = np.flatnonzero(among & (entry < stop))
        if len(chosen):
            own = spells.own_elapsed[chosen]
            rows.append(
                {
                    "spells_of": f"spells_of.{name}",
                    "persons": len(np.unique(spells.person[chosen])),
                    "spells": len(chosen),
                    "months": int((stop - entry)[chosen].sum()),
                    "exits": int(ended[chosen].sum()),
                    "running": int((~ended[chosen]).sum()),
                    "starts": int(((own >= entry[chosen]) & (own < stop[chosen])).sum()),
                }
            )
    if rows:
        yield Table("observed_spells", "observed_spells", COLUMNS, tuple(rows))
