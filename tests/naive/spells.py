"""Spells and outcomes by plain loops over rows, months and days, with calendar dates only.

A row of benefits is (start, end or None, reason); a job is (start, end or None, amounts by column).
"""

import datetime as dt

from naive.risk_sets import DAY, after, on

FAR = dt.date.max


def last(row):
    return row[1] or FAR


def belong(one, other, months):
    """Whether two rows are one spell: they overlap, touch, or lie less than so many months apart."""
    one, other = sorted((one, other), key=lambda row: row[0])
    return one[1] is None or other[0] <= one[1] + DAY or other[0] < after(one[1] + DAY, months)


def worse(reason, listed):
    """Where two rows end on the same day the higher counts: unknown, not listed, listed in order."""
    if reason in listed:
        return 2, listed.index(reason), ""
    return (0, 0, "") if reason == "unknown" else (1, 0, reason or "")


def merge(rows, months, listed):
    """The spells of one person: any two rows that belong together become one, until none do."""
    spells = list(rows)
    while True:
        pair = next(
            (
                (i, j)
                for i in range(len(spells))
                for j in range(i + 1, len(spells))
                if belong(spells[i], spells[j], months)
            ),
            None,
        )
        if pair is None:
            return sorted(spells, key=lambda row: row[0])
        i, j = pair
        ends = max((spells[i], spells[j]), key=lambda row: (last(row), worse(row[2], listed)))
        joined = (min(spells[i][0], spells[j][0]), ends[1], ends[2])
        spells = [row for n, row in enumerate(spells) if n not in pair] + [joined]


def members(rows, of_persons):
    """Rows (person, start, end, reason, household) -> person -> rows, given to everyone in the household."""
    found = {}
    for person, start, end, reason, household in rows:
        who = {person}
        if household is not None:
            who |= {p for p, *_, h in rows if h == household} | {p for p, h in of_persons.items() if h == household}
        for p in who:
            found.setdefault(p, set()).add((start, end, reason))
    return {p: sorted(spells, key=str) for p, spells in found.items()}


class Person:
    """The benefit spells and jobs of one person, and every outcome of an entry in the ``nth`` spell."""

    def __init__(self, spells, jobs, rate=False):
        self.spells, self.jobs, self.rate = spells, jobs, rate

    def on_benefit(self, day):
        return any(on(spell, day) for spell in self.spells)

    def in_job(self, day):
        return any(on(job, day) for job in self.jobs)

    def leads_to(self, which, nth):
        _, end, reason = self.spells[nth]
        if which == "any":
            return True
        if which.endswith("work_register"):
            day = after(end + DAY, 1) - DAY
            return not self.on_benefit(day) and self.in_job(day) == (which == "work_register")
        if which.startswith("not_"):
            return reason not in (which[4:], "unknown")
        return reason == which

    def exit_day(self, which, nth, stays_away=0):
        """Last day on benefit of an exit of this kind, None if there is none."""
        end = self.spells[nth][1]
        if end is None or not self.leads_to(which, nth):
            return None
        back = any(s[0] > end and s[0] < after(end + DAY, stays_away) for s in self.spells)
        return None if back else end

    def value(self, source, nth, zero, k):
        """One outcome at month k; None for a state that needs a day beyond what is known."""
        family, *rest = source.split(":")
        begin, close = after(zero, k - 1), after(zero, k)
        days = [begin + i * DAY for i in range((close - begin).days)]
        if family == "exit":
            day = self.exit_day(rest[0], nth)
            return float(day is not None and day < close)
        if family == "durable":
            which = rest[0] if len(rest) == 2 else "any"
            day = self.exit_day(which, nth, int(rest[-1]))
            return float(day is not None and day < close)
        if family == "return":
            end = self.spells[nth][1]
            return float(end is not None and any(end < s[0] < close for s in self.spells))
        held = self.on_benefit if rest[0] == "benefit" else self.in_job
        if family == "state":
            return float(held(close - DAY) and held(close))
        if family == "months":
            return sum(held(day) for day in days) / len(days)
        total = 0.0
        for start, end, amounts in self.jobs:
            amount = amounts[rest[0]]
            if amount is not None and (self.rate or end is not None):
                share = len(days) if self.rate else (end - start).days + 1
                total += amount / share * sum(on((start, end), day) for day in days)
        return total
