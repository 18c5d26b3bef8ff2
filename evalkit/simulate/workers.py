"""What may be told of jobs: who is in one after an exit and during the benefit, how long, and what a row pays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.sample.merging import union
from evalkit.sample.spells import Intervals, intervals
from evalkit.simulate.aggregates import MONTH, Amount, Jobs, Share
from evalkit.simulate.facts import Facts, Ints
from evalkit.simulate.rounding import Rules, groups
from evalkit.study.outcome_source import AMOUNTS

_MONTHLY = 31


def jobs(table: Mapping[str, Any], facts: Facts, rules: Rules) -> Jobs:
    """What may be told of the table of jobs; one row, job or exit a person each time."""
    person = facts.of(table["person"])
    start, end = calendar.to_days(table["start"]), calendar.to_days(table["end"])
    rows = intervals(person, start, end)
    held = union(rows)
    inside = _first(held.person, held.start >= facts.first_day)
    ended = inside[held.end[inside] <= facts.last_day]
    lengths = np.maximum(1.0, np.round((held.end[ended] + 1 - held.start[ended]) / MONTH))
    entry = facts.first
    on_benefit = held.holds(facts.spells.person[entry], facts.seen[entry])
    assert facts.study.data is not None and facts.study.data.jobs is not None
    mapped = facts.study.data.jobs.columns
    one = _first(person, start >= facts.first_day)
    after = [_after(facts, held, kind, rules) for kind in range(3)]
    return Jobs(
        after=(after[0], after[1], after[2]),
        during=_share(on_benefit, rules),
        lengths=groups(lengths, rules),
        monthly=bool((rows.end - rows.start < _MONTHLY).mean() >= 0.5) if len(rows.start) else False,
        amounts=tuple(_amount(name, np.asarray(table[name], float)[one], rules) for name in AMOUNTS if name in mapped),
    )


def _share(mask: NDArray[np.bool_], rules: Rules) -> Share | None:
    """How many of those for whom it is asked; None when they are too few."""
    if len(mask) < rules.minimum:
        return None
    return Share(persons=rules.count(len(mask)), part=rules.part(int(mask.sum()), len(mask)))


def _first(person: Ints, chosen: NDArray[np.bool_]) -> Ints:
    """The first of the chosen rows of every person."""
    rows = np.flatnonzero(chosen)
    return rows[np.unique(person[rows], return_index=True)[1]]


def _after(facts: Facts, held: Intervals, kind: int, rules: Rules) -> Share | None:
    """Who is in a job on the last day of the first month off benefit, as the statistics look at it."""
    rows = _first(facts.spells.person, facts.kind == kind)
    day = calendar.add_months(facts.spells.end[rows] + 1, 1) - 1
    rows, day = rows[day <= facts.last_day], day[day <= facts.last_day]
    return _share(held.holds(facts.spells.person[rows], day), rules)


def _amount(name: str, values: NDArray[np.float64], rules: Rules) -> Amount:
    known = ~np.isnan(values)
    return Amount(name=name, groups=groups(values[known], rules), known=_share(known, rules))
