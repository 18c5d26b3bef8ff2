"""What was known of a person before a day, row by row, with calendar dates only."""

import datetime as dt

DAY = dt.timedelta(days=1)


def _order(row):
    """(start, end, registered, value) as rows of one person are ordered; what is empty comes last."""
    start, end, registered, value = row
    return (start, registered or dt.date.min, end or dt.date.max, (value is None, value if value is not None else 0))


def known_before(rows, day):
    """The value of one person's rows (start, end, registered, value) that counts before a day; None without any."""
    ordered = sorted(rows, key=_order)
    found = None
    for i, (start, end, registered, value) in enumerate(ordered):
        if not (start < day and (registered is None or registered < day)):
            continue
        if end is not None:
            if end < day - DAY:
                continue
        elif any(s < day and (r is None or r < day) for s, _, r, _ in ordered[i + 1 :]):
            continue
        found = value
    return found


def first_after(month, delay):
    """The first day after a month, given by its first day, and so many months later."""
    number = month.year * 12 + month.month - 1 + 1 + delay
    return dt.date(number // 12, number % 12 + 1, 1)


def figure_before(rows, area, delay, day):
    """The last figure of (area, first day of the month, figure) known before a day; of two of a month the highest."""
    known = [(m, f) for a, m, f in rows if a == area and f is not None and first_after(m, delay) < day]
    return max(known)[1] if known else None


def fills(values, days):
    """What stands in for each missing value: the mean of those known up to and on the same day, in their order."""
    out = []
    for day in days:
        known = [v for v, d in zip(values, days, strict=True) if d <= day and v is not None]
        out.append(sum(known) / len(known) if known else 0.0)
    return out
