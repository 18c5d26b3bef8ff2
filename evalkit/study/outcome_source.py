"""What the source of an outcome says: ``exit:work``, ``durable:work:6``, ``months:benefit``, taken apart.

``docs/outcomes.md`` defines each to the day.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

Family = Literal["exit", "durable", "return", "state", "months", "flow"]
Kind = Literal["event", "state", "flow"]

AMOUNTS = ("hours", "wage", "earnings")
"""Columns of jobs that can be added up; each is the source ``flow:<column>``."""
WORK_REGISTER = "work_register"
"""Destination of an exit as the statistics define it: in a job one month after the benefit ended."""
NOT = "not_"
"""Before a destination: left for another known one. No reason may begin with it."""

_KINDS: dict[Family, Kind] = {
    "exit": "event", "durable": "event", "return": "event", "state": "state", "months": "flow", "flow": "flow",
}  # fmt: skip
_FIXED = {"return": ("benefit",), "state": ("benefit", "work"), "months": ("benefit", "work"), "flow": AMOUNTS}
_MONTHS = re.compile(r"[1-9]\d?")
_LONGEST = 60


@dataclass(frozen=True)
class OutcomeSource:
    """One source. ``which``: destination, state or column; ``months``: how long a durable exit must last."""

    family: Family
    which: str
    months: int = 0

    @property
    def kind(self) -> Kind:
        """The kind of outcome it gives."""
        return _KINDS[self.family]

    @property
    def register(self) -> bool:
        """Whether the destination is looked up in the jobs, instead of in the reason that the benefit gives."""
        return self.family in ("exit", "durable") and self.which in (WORK_REGISTER, NOT + WORK_REGISTER)

    @property
    def needs_jobs(self) -> bool:
        """Whether it cannot do without the table of jobs."""
        return self.register or self.family == "flow" or (self.family in ("state", "months") and self.which == "work")

    def look_ahead(self, merge_gap_months: int) -> int:
        """Months after month k that must have been observed before the value at k is known.

        Where short interruptions are merged an exit is one only when nobody returned within that gap. A return is
        known on the day itself, and jobs are not merged over gaps.
        """
        if self.family == "return" or (self.needs_jobs and not self.register):
            return 0
        return max(merge_gap_months, self.months, int(self.register))


def read_source(text: str) -> OutcomeSource | None:
    """The source that a text stands for; None when it has no such form. Reasons are not looked up."""
    family, *rest = text.split(":")
    if family == "durable" and rest and _MONTHS.fullmatch(rest[-1]) and int(rest[-1]) <= _LONGEST:
        which = rest[:-1] or ["any"]
        return OutcomeSource("durable", which[0], int(rest[-1])) if len(which) == 1 and which[0] else None
    if len(rest) != 1 or family not in get_args(Family) or family == "durable":
        return None
    if family == "exit":
        return OutcomeSource("exit", rest[0]) if rest[0] else None
    return OutcomeSource(family, rest[0]) if rest[0] in _FIXED[family] else None  # type: ignore[arg-type]


def destinations(reasons: Collection[str], jobs: bool) -> list[str]:
    """Where an exit may lead: for a message the likely ones first."""
    found = [*reasons, "any", "unknown"] + [WORK_REGISTER, NOT + WORK_REGISTER] * jobs
    return found + [NOT + reason for reason in reasons]


def examples(reasons: Collection[str], jobs: bool, columns: Collection[str]) -> list[str]:
    """Sources that a study may use, for a message; a durable exit may have any destination and other months."""
    found = [f"exit:{which}" for which in destinations(reasons, jobs)]
    found += ["state:benefit", "months:benefit", "return:benefit", "durable:6", "durable:12"]
    found += [f"durable:{reason}:6" for reason in list(reasons)[:1]]
    if jobs:
        found += ["state:work", "months:work", *(f"flow:{column}" for column in AMOUNTS if column in columns)]
    return found
