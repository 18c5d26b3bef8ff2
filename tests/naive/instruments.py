"""Instruments from rows of episodes, person by person in plain loops with calendar dates."""

import datetime as dt

from naive.risk_sets import after, on

DAY = dt.timedelta(days=1)
FAR = dt.date.max - dt.timedelta(days=400)


def joined(rows, gap=None, event=False, open_months=None):
    """Rows (start, end, planned, referral) of a type and person as episodes (start, end, until, planned, referral)."""
    made = []
    for start, end, planned, referral in rows:
        if event:
            end = start
        until = end
        if end is None and start is not None and open_months:
            until = after(start, open_months) - DAY
        made.append((start, end, until, planned, referral))
    groups = []
    for row in made:
        linked = [group for group in groups if any(extends(row, other, gap, event) for other in group)]
        groups = [group for group in groups if group not in linked] + [[row, *(r for group in linked for r in group)]]
    return sorted((one_of(group) for group in groups), key=str)


def extends(one, other, gap, event):
    """Whether two rows of a person are one episode."""
    if one[0] is None or other[0] is None:
        return False
    if event:
        return one[0] == other[0]
    if gap is None:
        return False
    first, second = sorted([one, other], key=lambda row: row[0])
    return first[2] is None or second[0] <= first[2] + (gap + 1) * DAY


def one_of(group):
    start = group[0][0] if group[0][0] is None else min(row[0] for row in group)
    ends, untils = [row[1] for row in group], [row[2] for row in group]
    plans = [row[3] for row in group if row[0] == start and row[3] is not None]
    referrals = [row[4] for row in group if row[4] is not None]
    return (
        start,
        None if None in ends else max(ends),
        None if None in untils else max(untils),
        min(plans, default=None),
        min(referrals, default=None),
    )


def day_of(episode, clock):
    return episode[4] if clock == "referral" else episode[0]


def latest(values):
    return None if None in values else max(values)


def combined(parts, months, clock="start"):
    """Combinations of a person's episodes, by part; as episodes whose day is the last of the parts' days."""
    days = sorted({day_of(e, clock) for part in parts for e in part} - {None})
    found, done = [], dt.date.min
    for day in days:
        chosen = []
        for part in parts:
            new = [e for e in part if day_of(e, clock) is not None and done < day_of(e, clock) <= day]
            best = max(new, key=lambda e: (day_of(e, clock), e[0] or FAR, e[2] or FAR), default=None)
            chosen.append(best)
        if None in chosen:
            continue
        if day < after(min(day_of(e, clock) for e in chosen), months):
            found.append(tuple(latest([e[i] for e in chosen]) for i in range(5)))
            done = day
    return found


def numbered(episodes, order, spells, clock="start"):
    """The order-th of a type within each spell, and by spell the day of the one before it."""
    found, before = [], {}
    for nth, spell in enumerate(spells):
        inside = [e for e in episodes if day_of(e, clock) is not None and on(spell, day_of(e, clock))]
        days = sorted({day_of(e, clock) for e in inside})
        if len(days) >= order - 1:
            before[nth] = days[order - 2]
        if len(days) >= order:
            found += [e for e in inside if day_of(e, clock) == days[order - 1]]
    return found, before
