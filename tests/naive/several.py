"""Starters of several instruments and those who wait, spell by spell and month by month, with calendar dates only."""

import datetime as dt
import math

from naive.keyed import hash_id, mix, uniform
from naive.risk_sets import DAY, after, on, spells_of, whole_months

FAR = dt.date.max


def quarter(day):
    return day.year, (day.month - 1) // 3


def arms(births, benefits, episodes, rules, codes, waiting, rows):
    """Entries {(person, nth spell, elapsed): (arm, time zero, follow-up, wait)} and candidates by label with a reason.

    ``codes``: by instrument its (code, label), the one that is evaluated first; ``waiting``: the label of those who
    start none, or "" when they are not compared. ``benefits`` are spells, ``rows`` what they were merged from.
    """
    spells, raw = spells_of(benefits), spells_of(rows)
    main = next(iter(codes))
    starts, busy, elsewhere = {}, {}, {}
    for person, kind, begin, end, referral in episodes:
        if kind in codes:
            day = referral if rules.clock == "referral" else begin
            if day is not None:
                starts.setdefault(person, []).append((day, list(codes).index(kind), kind))
            if begin is not None:
                busy.setdefault(person, []).append((begin, end))
        elif begin is not None:
            elsewhere.setdefault(person, []).append((begin, end))

    def really(person, day):
        return any(on(spell, day) for spell in raw.get(person, []))

    def firsts(person, spell, kinds):
        inside = [s for s in starts.get(person, []) if on(spell, s[0]) and s[2] in kinds]
        return min(s[0] for s in inside) if inside else None

    def zero_of(spell, month):
        return after(spell[0], month) if rules.convention == "start_first" else after(spell[0], month + 1) - DAY

    def unfit(person, nth, zero, start):
        spell = spells[person][nth]
        if not rules.stock and spell[0] < rules.first:
            return "stock"
        if zero < rules.first:
            return "start_before_window"
        if zero > rules.last:
            return "start_after_window"
        if rules.age:
            born = births[person]
            if born is None or not rules.age[0] <= zero.year - born <= rules.age[1]:
                return "age"
        if any(begin < start and on((begin, end), start) for begin, end in busy.get(person, [])):
            return "already_in_instrument"
        if not rules.other and any(on(o, zero) for o in elsewhere.get(person, [])):
            return "other_instrument"
        if after(zero, (rules.horizon if rules.complete else 1) + rules.look_ahead) > rules.last + DAY:
            return "follow_up"
        return None

    found = {label: [] for _, label in codes.values()} | ({waiting: []} if waiting else {})
    entries, fractions, cells = {}, [], set()
    low, high = rules.elapsed
    for kind, (code, label) in codes.items():  # the one that is evaluated comes first, so its cells are known
        for person in sorted(starts):
            counted = set()
            for day, _, own in sorted(starts[person]):
                if own != kind:
                    continue
                holding = [n for n, spell in enumerate(spells.get(person, [])) if on(spell, day)]
                if not holding or not really(person, day):
                    found[label].append((person, "no_benefit_at_start"))
                    continue
                nth = holding[-1]
                spell = spells[person][nth]
                first = firsts(person, spell, codes)
                if day == first and len({s[2] for s in starts[person] if s[0] == day}) > 1:
                    found[label].append((person, "same_day_start"))
                    continue
                if day != first or nth in counted:
                    found[label].append((person, "not_first_start"))
                    continue
                counted.add(nth)
                month = whole_months(spell[0], day)
                if not low <= month <= high:
                    found[label].append((person, "elapsed"))
                    continue
                zero = day if rules.convention == "dates" else zero_of(spell, month)
                reason = unfit(person, nth, zero, day)
                if reason is None and code == 0 and (month, quarter(zero)) not in cells:
                    reason = "no_starter_same_month"
                found[label].append((person, reason))
                if reason is None:
                    if waiting:
                        wait = 0 if zero <= day else None
                    else:
                        later = firsts(person, spell, [main])
                        wait = None if later is None else whole_months(zero, later) if later >= zero else None
                        if code == 0 and later is not None:
                            wait = max(0, whole_months(zero, later))
                    entries[person, nth, month] = (code, zero, whole_months(zero, rules.last + DAY), wait)
                    if code > 0:
                        begin, end = after(spell[0], month), after(spell[0], month + 1)
                        fractions.append(((zero - begin).days + 0.5) / (end - begin).days)
                        cells.add((month, quarter(zero)))
    fractions.sort()
    for person in sorted(spells) if waiting else ():
        for nth, spell in enumerate(spells[person]):
            started = firsts(person, spell, codes) or FAR
            for month in range(low, high + 1):
                begin, end = after(spell[0], month), after(spell[0], month + 1)
                if started < end:
                    break
                if rules.convention == "dates":
                    draw = uniform(mix(mix(hash_id(rules.seed, person), nth), month))
                    zero = begin + math.floor(fractions[int(draw * len(fractions))] * (end - begin).days) * DAY
                else:
                    zero = zero_of(spell, month)
                if spell[0] > rules.last or not on(spell, zero) or not really(person, zero):
                    continue
                reason = unfit(person, nth, zero, zero)
                if reason is None and (month, quarter(zero)) not in cells:
                    reason = "no_starter_same_month"
                found[waiting].append((person, reason))
                if reason is None:
                    wait = None if started == FAR else whole_months(zero, started)
                    entries[person, nth, month] = (0, zero, whole_months(zero, rules.last + DAY), wait)
    return entries, found


def support(score, arm, a, b):
    """Rows whose score lies where both arms have some, by sorting; rows without a score have none."""
    one, two = ([s for s, own in zip(score, arm, strict=True) if own == code and s is not None] for code in (a, b))
    if not one or not two:
        return [False] * len(score)
    low, high = sorted([min(one), min(two)])[1], sorted([max(one), max(two)])[0]
    return [s is not None and low <= s <= high for s in score]
