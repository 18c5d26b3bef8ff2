"""Panels by plain loops: of a frame's records, of persons with spells, and of those who enter."""

import math

from naive.risk_sets import DAY, after
from naive.shapes import on_benefit


def _absent(value):
    return value is None or (isinstance(value, float) and math.isnan(value))


def panel(records, how):
    """Rows (unit, period, outcome, first, weight, cluster, x) sorted, and [(reason, rows, units)] that fell out.

    Records have u, t, y, g, d, c, w, x and s, which is high, low or none.
    """
    first = {}
    for r in records:
        if how == "first_treated" and r["g"] > 0:
            first[r["u"]] = r["g"]
        if how == "treated" and r["d"] == 1:
            first[r["u"]] = min(first.get(r["u"], math.inf), r["t"])
    reasons = (
        ("missing_outcome", lambda r: _absent(r["y"])),
        ("missing_covariate", lambda r: _absent(r["x"]) or _absent(r["s"])),
        ("missing_weight", lambda r: _absent(r["w"])),
        ("zero_weight", lambda r: r["w"] == 0),
    )
    left, dropped = list(records), []
    for reason, out in reasons:
        stay = [r for r in left if not out(r)]
        if len(stay) < len(left):
            units = len({r["u"] for r in left}) - len({r["u"] for r in stay})
            dropped.append((reason, len(left) - len(stay), units))
        left = stay
    rows = []
    for r in sorted(left, key=lambda r: (r["u"], r["t"])):
        x = (r["x"], float(r["s"] == "low"), float(r["s"] == "none"))
        rows.append((r["u"], r["t"], r["y"], first.get(r["u"]), r["w"], r["c"], x))
    last = max(r["t"] for r in left)
    seen = sorted({r["t"] for r in left})

    def snapped(g):
        return None if g is None or g > last else min(t for t in seen if t >= g)

    return [(u, t, y, snapped(g), w, c, x) for u, t, y, g, w, c, x in rows], dropped


def inflow(spells, team_of, first, last, months, ahead, periods, outcome):
    """Those who enter within whole periods: {(person, first day): (period, outcome so many months later)}.

    ``periods``: [(first day, last day)] of the window. A period takes part when its last entrant can be followed.
    """
    found = {}
    for person, rows in spells.items():
        if team_of.get(person) is None:
            continue
        for begin, end, why in rows:
            for number, (opens, closes) in enumerate(periods, 1):
                if first <= begin <= last and opens <= begin <= closes and after(closes, months + ahead) <= last + DAY:
                    left = end is not None and end < after(begin, months)
                    y = {
                        "left": left, "left_to_work": left and why == "work",
                        "on_benefit": on_benefit(rows, after(begin, months) - DAY),
                    }[outcome]  # fmt: skip
                    found[person, begin] = (number, float(y))
    return found
