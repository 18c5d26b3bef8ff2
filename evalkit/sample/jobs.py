"""Jobs: when a person is in one, and what each pays, ready to be added up by month."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit import calendar
from evalkit.calendar import NEVER
from evalkit.register.schema import Check
from evalkit.sample.merging import union
from evalkit.sample.spells import Intervals
from evalkit.study import Study
from evalkit.study.outcome_source import read_source


@dataclass(frozen=True)
class Jobs:
    """Jobs by person.

    ``rows``: as delivered, sorted by (person, start). ``held``: days in any job; a job that lasts to the window's last
    day runs on. ``amounts``: by column an amount a row, a day of the row's when ``daily``, else a rate that holds on
    each of its days.
    """

    rows: Intervals
    held: Intervals
    amounts: Mapping[str, NDArray[np.float64]]
    daily: bool
    checks: tuple[Check, ...]


def read_jobs(study: Study, table: Mapping[str, Any], of: Any, last_day: int) -> Jobs:
    """Jobs from the register's table; ``of`` gives the row of persons for an array of ids.

    Amounts are read for the outcomes that ask for them. A row without an amount counts as nothing, and so does, with
    totals, a row without an end, which cannot be spread; both are counted in ``checks``.
    """
    person = of(table["person"])
    start, end = calendar.to_days(table["start"]), calendar.to_days(table["end"])
    order = np.lexsort((end, start, person))
    rows = Intervals(person[order], start[order], end[order])
    daily = study.spells.job_amounts == "total"
    amounts, checks = {}, []
    sources = [read_source(outcome.source) for outcome in study.outcomes]
    for column in dict.fromkeys(source.which for source in sources if source and source.family == "flow"):
        amount = np.asarray(table[column], float)[order]
        missing = np.isnan(amount)
        open_end = daily & ~missing & (rows.end >= NEVER)
        length = np.where(rows.end < NEVER, rows.end - rows.start + 1, 1)
        amounts[column] = np.where(missing | open_end, 0.0, amount) / (length if daily else 1)
        for code, found in (("job_amount_missing", missing), ("job_amount_open", open_end)):
            if count := int(found.sum()):
                checks.append(Check(code, "warn", "jobs", count, count / len(amount), {"column": column}))
    running = Intervals(rows.person, rows.start, np.where(rows.end >= last_day, NEVER, rows.end))
    return Jobs(rows, union(running), amounts, daily, tuple(checks))
