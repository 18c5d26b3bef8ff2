"""Episodes, patterns and panels by plain loops over persons, spells and months, with calendar dates only.

A spell is (first day, last day or None, reason or None). A start is (day, planned end or None).
"""

import datetime as dt
from collections import Counter
from dataclasses import dataclass

from naive.risk_sets import DAY, after, on


@dataclass
class Rules:
    """What is asked for."""

    first: dt.date
    last: dt.date
    gap: int = 1
    within: str = "dates"
    stock: bool = False
    since_entry: tuple = ()
    since_start: tuple = ()
    planned_end: bool = False
    years: bool = False
    until: int = 10**6


def _band(value, cuts):
    return sum(value >= cut for cut in cuts)


def _treated(begin, month, start, within):
    """Whether a month counts as one with the instrument."""
    if start is None:
        return False
    if within == "start_first":
        return start < after(begin, month + 1)
    if within == "exit_first":
        return start < after(begin, month)
    return start <= after(begin, month)


def months_of(spell, start, planned, rules):
    """Every whole month of a spell that is observed, with what is known of it at its beginning."""
    begin, end, reason = spell
    if begin < rules.first and not rules.stock:
        return []
    rows, month = [], 0
    started = planned_since = None
    while True:
        here, close = after(begin, month), after(begin, month + 1)
        if after(begin, month + 1 + rules.gap) > rules.last + DAY or month >= rules.until:
            break
        if end is not None and end < here:
            break
        if _treated(begin, month, start, rules.within):
            started = 0 if started is None else started + 1
        if planned is not None and planned < here:
            planned_since = 0 if planned_since is None else planned_since + 1
        ended = end is not None and end < close
        if here >= rules.first:
            passed = started is not None and planned_since is not None
            status = (
                started is not None,
                None if started is None else _band(started, rules.since_start),
                _band(month, rules.since_entry),
                passed if rules.planned_end else None,
                here.year if rules.years else None,
            )
            to_planned = None
            if started is not None and planned is not None:
                to_planned = planned_since if planned_since is not None else -_until(begin, month, planned)
            rows.append(
                {
                    "month": month, "status": status, "event": int(ended), "exit": (reason or "") if ended else None,
                    "started": started, "to_planned": to_planned, "year": here.year,
                    "starts": not _treated(begin, month, start, rules.within)
                    and _treated(begin, month + 1, start, rules.within),
                }
            )  # fmt: skip
        month += 1
    return rows


def _until(begin, month, planned):
    """Months until the first month that begins after the planned end."""
    ahead = 0
    while after(begin, month + ahead) <= planned:
        ahead += 1
    return ahead


def own_start(spell, starts):
    """The first start within a spell and the latest planned end given on that day."""
    inside = sorted(day for day, _ in starts if on(spell, day))
    if not inside:
        return None, None
    planned = [p for day, p in starts if day == inside[0] and p is not None]
    return inside[0], max(planned, default=None)


def episodes(spells, starts, rules):
    """Person -> rows (spell, start, stop, event, exit, risk_set, starts, since_start, planned_since_end, year)."""
    found = {}
    for person, own in spells.items():
        rows = []
        for nth, spell in enumerate(own):
            run = []
            months = months_of(spell, *own_start(spell, starts.get(person, [])), rules)
            for i, month in enumerate(months):
                run.append(month)
                if i + 1 < len(months) and months[i + 1]["status"] == month["status"]:
                    continue
                head = run[0]
                rows.append(
                    (
                        nth, head["month"], month["month"] + 1, month["event"], month["exit"], head["started"] is None,
                        month["starts"], head["started"], head["to_planned"], head["year"] if rules.years else None,
                    )
                )  # fmt: skip
                run = []
        if rows:
            found[person] = rows
    return found


def patterns(found, traits, keep_planned):
    """How many persons have the same traits and the same rows."""

    def path(rows):
        return tuple(row if keep_planned else (*row[:8], None, row[9]) for row in rows)

    return Counter((traits[person], path(rows)) for person, rows in found.items())


def calendar_months(first, last, length, ahead):
    """The whole periods of the window as lists of (first day, last day) of their months."""
    day, months = dt.date(first.year, first.month, 1), []
    while day <= last:
        close = after(day, 1) - DAY
        months.append((day, close, day >= first and after(day, 1 + ahead) - DAY <= last))
        day = after(day, 1)
    periods = {}
    for day, close, whole in months:
        periods.setdefault((day.year, (day.month - 1) // length), []).append((day, close, whole))
    return [
        [(day, close) for day, close, _ in rows]
        for rows in periods.values()
        if len(rows) == length and all(whole for *_, whole in rows)
    ]


def held(intervals, close):
    """In it at the close of a day: on that day and on the next."""
    return any(on(i, close) for i in intervals) and any(on(i, close + DAY) for i in intervals)


def on_benefit(spells, close):
    """On benefit at the close of a day; a spell whose last day that is has ended."""
    return any(s[0] <= close and (s[1] is None or s[1] > close) for s in spells)


def panel(persons, periods, values, rate):
    """Rows {(unit, period): (outcome, weight)}; ``values(person, month)`` gives (y, n) or None."""
    found = {}
    for unit in sorted(set(persons.values())):
        members = [person for person, of in persons.items() if of == unit]
        for number, months in enumerate(periods, 1):
            cells = [values(person, month) for person in members for month in months]
            y, n = sum(c[0] for c in cells), sum(c[1] for c in cells)
            if rate == "rate":
                if n:
                    found[unit, number] = (y / n, n)
            else:
                found[unit, number] = (y / (len(members) * (len(months) if rate == "state" else 1)), len(members))
    return found
