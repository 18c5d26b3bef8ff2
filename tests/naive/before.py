"""An outcome in the months before a day, day by day, from rows as they were delivered."""

import datetime as dt

from naive.risk_sets import DAY, after
from naive.spells import merge

FAR = dt.date(2999, 1, 1)


def days_of(rows):
    """Every day that some row holds."""
    return {begin + i * DAY for begin, end in rows for i in range((end - begin).days + 1)}


def before(name, who, day, months, benefits, jobs, first, last, gap, amounts):
    """Values of months -M..-1 and whether each lies within the window."""
    far = last + 800 * DAY
    spells = merge(
        sorted((row[1:] for row in benefits if row[0] == who and (row[2] or FAR) >= first), key=str), gap, ["work"]
    )
    held = days_of([(begin, min(end or far, far)) for begin, end, _ in spells])
    own = [row[1:] for row in jobs if row[0] == who and (row[2] or FAR) >= first]
    # a job that begins on the day or later is not known on that day
    worked = days_of([(begin, far if end is None or end >= last else end) for begin, end, *_ in own if begin < day])
    values, seen = [], []
    for m in range(months, 0, -1):
        begin, close = after(day, -m), after(day, 1 - m)
        inside = [begin + i * DAY for i in range((close - begin).days)]
        seen.append(begin >= first)
        if name == "on_benefit":
            values.append(float(close - DAY in held and close in held))
        elif name == "in_work":
            values.append(float(close - DAY in worked and close in worked and one_row(own, day, close, m)))
        elif name == "months_benefit":
            values.append(sum(d in held for d in inside) / len(inside))
        elif name == "months_work":
            values.append(sum(d in worked for d in inside) / len(inside))
        else:
            total = 0.0
            for start, end, *_, amount in own:
                if amounts == "total" and end is None:
                    continue
                share = amount / ((end - start).days + 1) if amounts == "total" else amount / len(inside)
                total += share * sum(start <= d and (end is None or d <= end) for d in inside)
            values.append(total)
    return values, seen


def one_row(rows, day, close, month):
    """On the eve of the day itself only a row that has begun and runs on tells that work goes on."""
    return month > 1 or any(begin < day and (end is None or end >= close) for begin, end, *_ in rows)
