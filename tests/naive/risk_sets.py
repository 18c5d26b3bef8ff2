"""Risk sets from registers, person by person and month by month, with calendar dates only."""

import datetime as dt
import math
from dataclasses import dataclass, field

from dateutil.relativedelta import relativedelta
from naive.keyed import hash_id, mix, uniform

DAY = dt.timedelta(days=1)


@dataclass
class Rules:
    """What the study says."""

    seed: int
    first: dt.date
    last: dt.date
    instrument: str = "training"
    clock: str = "start"
    horizon: int = 12
    complete: bool = True
    elapsed: tuple = (0, 23)
    age: tuple | None = None
    stock: bool = False
    other: bool = False
    earlier: tuple | None = None
    convention: str = "dates"
    known: set = field(default_factory=set)  # persons without a missing covariate, when those are excluded
    exclude_missing: bool = False
    look_ahead: int = 0
    before: dict | None = None  # by (person, nth spell) the day of the event before the one that is studied


def after(day, months):
    return day + relativedelta(months=months)


def whole_months(start, day):
    """Count from well below until the next month would begin after the day."""
    m = 12 * (day.year - start.year - 1)
    while after(start, m + 1) <= day:
        m += 1
    return m


def spells_of(benefits):
    """person -> [(start, end or None, reason)] in order."""
    found = {}
    for person, start, end, reason in benefits:
        found.setdefault(person, []).append((start, end, reason))
    return {p: sorted(s, key=lambda x: (x[0], x[1] or dt.date.max, x[2] or "")) for p, s in found.items()}


def on(spell, day):
    return spell[0] <= day and (spell[1] is None or day <= spell[1])


def risk_sets(births, benefits, episodes, rules, rows=None):
    """``benefits`` are spells; ``rows`` what they were merged from, when gaps were bridged.

    Entries {(person, nth spell, elapsed): (arm, time zero, follow-up, wait)} and the flow of both arms."""
    spells = spells_of(benefits)
    days = spells if rows is None else spells_of(rows)

    def really(person, day):
        return any(on(spell, day) for spell in days.get(person, []))

    starts, same, others = {}, {}, {}
    for person, kind, begin, end, referral in episodes:
        if kind == rules.instrument:
            day = referral if rules.clock == "referral" else begin
            if day is not None:
                starts.setdefault(person, []).append(day)
            if begin is not None:
                same.setdefault(person, []).append((begin, end))
        elif begin is not None:
            others.setdefault(person, []).append((begin, end))

    def own_start(person, spell):
        inside = [d for d in starts.get(person, []) if on(spell, d)]
        return min(inside) if inside else None

    def reason_out(person, nth, zero, start):
        spell = spells[person][nth]
        if not rules.stock and spell[0] < rules.first:
            return "stock"
        if rules.earlier and not rules.earlier[0] <= nth <= rules.earlier[1]:
            return "earlier_spells"
        if zero < rules.first:
            return "start_before_window"
        if zero > rules.last:
            return "start_after_window"
        if rules.age:
            born = births[person]
            if born is None or not rules.age[0] <= zero.year - born <= rules.age[1]:
                return "age"
        if any(begin < start and on((begin, end), start) for begin, end in same.get(person, [])):
            return "already_in_instrument"
        if not rules.other and any(on(o, zero) for o in others.get(person, [])):
            return "other_instrument"
        if rules.before is not None and rules.before.get((person, nth), dt.date.max) >= start:
            return "previous_event"
        if after(zero, (rules.horizon if rules.complete else 1) + rules.look_ahead) > rules.last + DAY:
            return "follow_up"
        if rules.exclude_missing and person not in rules.known:
            return "missing_covariate"
        return None

    def zero_of(spell, month):
        if rules.convention == "start_first":
            return after(spell[0], month)
        return after(spell[0], month + 1) - DAY

    entries, candidates = {}, {"treated": [], "comparison": []}
    fractions, cells = [], set()
    for person in sorted(starts):
        taken = set()
        for day in sorted(starts[person]):
            holding = [n for n, spell in enumerate(spells.get(person, [])) if on(spell, day)]
            if not holding or not really(person, day):
                candidates["treated"].append((person, "no_benefit_at_start"))
                continue
            nth = holding[-1]
            spell = spells[person][nth]
            if day != own_start(person, spell) or nth in taken:
                candidates["treated"].append((person, "not_first_start"))
                continue
            taken.add(nth)
            month = whole_months(spell[0], day)
            if not rules.elapsed[0] <= month <= rules.elapsed[1]:
                candidates["treated"].append((person, "elapsed"))
                continue
            zero = day if rules.convention == "dates" else zero_of(spell, month)
            reason = reason_out(person, nth, zero, day)
            candidates["treated"].append((person, reason))
            if reason is None:
                wait = None if zero > day else 0
                entries[person, nth, month] = (1, zero, whole_months(zero, rules.last + DAY), wait)
                begin = after(spell[0], month)
                fractions.append(((zero - begin).days + 0.5) / (after(spell[0], month + 1) - begin).days)
                cells.add((month, zero.year, (zero.month - 1) // 3))
    fractions.sort()

    for person in sorted(spells):
        for nth, spell in enumerate(spells[person]):
            started = own_start(person, spell)
            for month in range(rules.elapsed[0], rules.elapsed[1] + 1):
                begin, end = after(spell[0], month), after(spell[0], month + 1)
                if started is not None and started < end:
                    continue
                if rules.convention == "dates":
                    draw = uniform(mix(mix(hash_id(rules.seed, person), nth), month))
                    fraction = fractions[int(draw * len(fractions))]
                    zero = begin + math.floor(fraction * (end - begin).days) * DAY
                else:
                    zero = zero_of(spell, month)
                if spell[0] > rules.last or not on(spell, zero) or not really(person, zero):
                    continue
                reason = reason_out(person, nth, zero, zero)
                if reason is None and (month, zero.year, (zero.month - 1) // 3) not in cells:
                    reason = "no_starter_same_month"
                candidates["comparison"].append((person, reason))
                if reason is None:
                    wait = None if started is None else whole_months(zero, started)
                    entries[person, nth, month] = (0, zero, whole_months(zero, rules.last + DAY), wait)
    return entries, {arm: flow(found, arm) for arm, found in candidates.items()}


ORDER = (
    "no_benefit_at_start not_first_start elapsed stock earlier_spells start_before_window start_after_window age "
    "already_in_instrument other_instrument previous_event follow_up missing_covariate no_starter_same_month"
).split()


def flow(candidates, arm):
    """[(reason, persons, entries)]: a person falls out with the last of his entries."""
    left = list(candidates)
    rows = [("start", len({p for p, _ in left}), len(left))]
    for reason in ORDER:
        stay = [c for c in left if c[1] != reason]
        if len(stay) < len(left):
            rows.append((reason, len({p for p, _ in left}) - len({p for p, _ in stay}), len(left) - len(stay)))
        left = stay
    return [*rows, ("left", len({p for p, _ in left}), len(left))]


def exit_path(spell, zero, horizon, reason=None):
    """1 from the first month k with last day on benefit < t0 + k months."""
    end = spell[1]
    counts = end is not None and reason in (None, spell[2])
    return [float(counts and end < after(zero, k)) for k in range(1, horizon + 1)]


def state_path(spells, zero, horizon):
    """1 when on benefit at the close of month k: begun by its last day, and last day on benefit after it."""
    path = []
    for k in range(1, horizon + 1):
        close = after(zero, k) - DAY
        path.append(float(any(s[0] <= close and (s[1] is None or s[1] > close) for s in spells)))
    return path
