"""Never from the future: rows that begin, are entered or are published on a day or later change nothing up to it.

Rows are added, deleted and changed at random. Every entry whose time zero is that day or earlier keeps its values and
its row of the design, to the bit, and the sample keeps its entries.
"""

from __future__ import annotations

import datetime as dt
import functools

import numpy as np
from changing_example import TOWNS, cut, day, protocol, town
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from naive.changing import first_after

from evalkit import sample

ROWS = town(7, persons=70)
DELAY = 2
_KEPT_OUT = 'exclude = { household = ["couple"] }'
_LEFT_OUT = 'numeric = ["debt"]\ncategorical = ["sex"]\nmissing = "exclude"'
STUDIES = {
    "dates": {"area": "town"},
    "moves": {"area": "place"},
    "months": {"within": "exit_first"},
    "kept_out": {"eligibility": _KEPT_OUT, "within": "start_first"},
    "left_out": {"covariates": _LEFT_OUT, "eligibility": _KEPT_OUT, "within": "dates"},
}


@functools.cache
def plain(name: str) -> sample.Sample:
    """The sample of the rows as they are."""
    return cut(protocol(delay=DELAY, **STUDIES[name]), ROWS)


class Future:
    """Rows as they might have been from a day on."""

    def __init__(self, seed: int, since: dt.date):
        self.rng, self.since = np.random.default_rng(seed), since

    def later(self) -> dt.date:
        """The day itself or a later one."""
        return self.since + dt.timedelta(days=int(self.rng.choice([0, 0, 1, self.rng.integers(2, 500)])))

    def change(self, table: str, row: tuple) -> tuple:
        """A row with another start, end, registration and value; it begins or is entered on the day or later."""
        person, start, _, entered, _ = row
        end = self.later() + dt.timedelta(days=400) if self.rng.random() < 0.5 else None
        value = self.value(table)
        if table == "household" and self.rng.random() < 0.6:  # it began before, and nobody knew
            start, entered = min(start, self.since), self.later()
            if self.rng.random() < 0.5:
                end = start + dt.timedelta(days=int(self.rng.integers(0, 300)))
        else:  # it was announced before it began
            start, entered = self.later(), entered
        end = None if table != "household" or (end is not None and end < start) else end
        return (person, start, end, entered, value)

    def value(self, table: str):
        if table == "household":
            return self.rng.choice(["single", "couple", "parent", "aa", "zz", None])
        return float(self.rng.integers(-50, 50)) if table == "debt" else self.rng.choice([*TOWNS, "X", None])

    def rows(self) -> dict:
        """All tables with their future changed."""
        rows = dict(ROWS)
        for table in ("household", "debt", "place"):
            out = []
            for row in ROWS[table]:
                ahead = row[1] >= self.since or (table == "household" and row[3] >= self.since)
                if not ahead or self.rng.random() < 0.3:
                    out.append(row)
                elif self.rng.random() < 0.5:
                    out.append(self.change(table, row))
            for person in self.rng.choice([p[0] for p in ROWS["persons"]], 25):
                out.append(self.change(table, (person, day(self.rng), None, day(self.rng), None)))
            rows[table] = out
        known = [f for f in ROWS["unemployment"] if first_after(f[1], DELAY) < self.since]
        ahead = [f for f in ROWS["unemployment"] if first_after(f[1], DELAY) >= self.since]
        ahead = [(a, m, float(self.rng.integers(0, 90))) for a, m, _ in ahead if self.rng.random() < 0.6]
        months = [dt.date(2016 + i // 12, i % 12 + 1, 1) for i in range(90)]
        months = [m for m in months if first_after(m, DELAY) >= self.since]
        ahead += [(self.rng.choice(TOWNS), months[self.rng.integers(len(months))], 77.0) for _ in range(10)]
        rows["unemployment"] = known + ahead
        return rows


def values(found: sample.Sample, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Every column of the design of some entries, by name; a level by its own."""
    design = found.design(found.entries, time=False).take(rows)
    made = dict(zip(design.own_numeric_names, design.own_numeric.T, strict=True))
    made |= {f"{f.name}:{level}": f.codes == code for f in design.own_factors for code, level in enumerate(f.levels)}
    raw, day = found.entries.take(rows), found.known_day(found.entries)[rows]
    for name in found.changing.numeric:
        made[f"raw {name}"] = found.changing.covariates[name].numbers(raw.person, day)
    group = found.group("household", (), raw)
    return made | {"group": np.array(group.levels)[group.codes]}


def same(one: sample.Sample, two: sample.Sample, rows: np.ndarray, others: np.ndarray) -> None:
    """Entries ``rows`` of one sample are entries ``others`` of the other, with the same values."""
    for name in one.entries.__dataclass_fields__:
        assert np.array_equal(getattr(one.entries, name)[rows], getattr(two.entries, name)[others]), name
    here, there = values(one, rows), values(two, others)
    nothing = np.zeros(len(rows))
    for name in {*here, *there}:
        a, b = here.get(name, nothing), there.get(name, nothing)
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name


def pick(found: sample.Sample, kind: str, rng: np.random.Generator) -> dt.date:
    """A day: any, that of an entry, or that of an entry on the first of a month, when figures become known."""
    if kind == "any":
        return day(rng, dt.date(2018, 9, 1), 900)
    days = [dt.date(1970, 1, 1) + dt.timedelta(days=int(n)) for n in np.unique(found.known_day(found.entries))]
    firsts = [d for d in days if d.day == 1] if kind == "first" else []
    return (firsts or days)[rng.integers(len(firsts or days))]


@settings(
    max_examples=16,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["any", "entry", "first"]), st.sampled_from(list(STUDIES)))
def test_the_future_changes_nothing(seed, kind, name):
    since = pick(plain(name), kind, np.random.default_rng(seed))
    one, two = plain(name), cut(protocol(delay=DELAY, **STUDIES[name]), Future(seed, since).rows())
    number = (since - dt.date(1970, 1, 1)).days
    rows, others = (np.flatnonzero(found.known_day(found.entries) <= number) for found in (one, two))
    if name == "kept_out":  # comparisons need a starter of the same quarter, who may start after the day
        quarter = (since.year - 1970) * 4 + (since.month - 1) // 3
        rows, others = (np.flatnonzero(found.entries.quarter < quarter) for found in (one, two))
    elif name == "left_out":  # and pseudo start days are drawn from those of all starters
        rows, others = (at[found.entries.arm[at] == 1] for found, at in ((one, rows), (two, others)))
    else:
        assert all(
            np.array_equal(getattr(one.entries, f), getattr(two.entries, f)) for f in one.entries.__dataclass_fields__
        )
    same(one, two, rows, others)


def test_the_changes_do_change_what_comes_after():
    """The test above would see it: from the day after on, values differ in every study."""
    since = dt.date(2019, 6, 1)
    rows = Future(1, since).rows()
    number = (since - dt.date(1970, 1, 1)).days
    for name in ("dates", "moves", "months"):
        one, two = plain(name), cut(protocol(delay=DELAY, **STUDIES[name]), rows)
        after = np.flatnonzero(one.known_day(one.entries) > number)
        before, later = values(one, after), values(two, after)
        for column in ("raw debt", "raw unemployment", "group", "debt"):
            assert not np.array_equal(before[column], later[column]), (name, column)
    for name in ("kept_out", "left_out"):
        assert len(cut(protocol(delay=DELAY, **STUDIES[name]), rows).entries) != len(plain(name).entries)
