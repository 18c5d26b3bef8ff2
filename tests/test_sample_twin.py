"""The sample of a crooked little municipality, entry by entry, against plain loops over persons, spells and months."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from naive import risk_sets as naive
from naive.spells import merge
from sample_example import cut, protocol

from evalkit import simulate
from evalkit.calendar import NEVER

FIRST, LAST = dt.date(2017, 1, 1), dt.date(2020, 12, 31)
TOWN = simulate.Municipality(
    window=(FIRST, LAST), entry_days="any", stock_months=18, start_rate=0.05, coaching_rate=0.03, work_rate=0.07,
    return_rates=(0.05, 0.05, 0.03),
)  # fmt: skip


def crooked(seed, persons=300):
    """Simulated tables with what registers are like: overlaps, touching spells, restarts, starts on the edges."""
    tables = simulate.draw(TOWN, persons, seed)
    rng = np.random.default_rng(seed)
    one = pd.Timedelta(days=1)
    people = tables.persons.assign(team=np.arange(persons) % 5)
    people["birth_year"] = people["birth_year"].astype("Int64").mask(rng.random(persons) < 0.08)
    people["distance"] = people["distance"].mask(rng.random(persons) < 0.05)
    benefits, episodes = tables.benefits.copy(), tables.episodes.drop(columns="planned_end")
    ended = benefits[benefits.end.notna() & (benefits.end < "2020-06-01")]
    touching = ended.sample(20, random_state=seed)
    overlapping = ended.sample(20, random_state=seed + 1)
    extra = [
        touching.assign(start=touching.end + one, end=touching.end + 200 * one, reason="work"),
        overlapping.assign(start=overlapping.end - 10 * one, end=overlapping.end + 150 * one, reason="other"),
        overlapping.head(5).assign(reason="education"),  # twice the same days, for another reason
    ]
    edge = benefits.sample(10, random_state=seed + 2).index  # ends on the window's last day
    benefits.loc[edge, "end"] = benefits.loc[edge, "end"].fillna(pd.Timestamp(LAST))
    benefits["reason"] = benefits["reason"].mask(benefits.end.notna() & benefits.reason.isna(), "other")
    beyond = benefits[benefits.end.isna()].head(5).index  # ends after the window
    benefits.loc[beyond, "end"] = pd.Timestamp("2021-03-31")
    benefits.loc[beyond, "reason"] = "work"
    benefits = pd.concat([benefits, *extra], ignore_index=True)

    def starts(rows, days, kind="training", length=60):
        rows = rows[["person"]].assign(type=kind, start=days)
        return rows.assign(end=rows.start + length * one, referral=rows.start - 3 * one)

    some = benefits[benefits.end.notna() & (benefits.start >= str(FIRST))]
    on_first, on_last, outside = (some.sample(12, random_state=seed + i) for i in (3, 4, 5))
    again = episodes[episodes.type == "training"].head(15)
    running = episodes[episodes.type == "training"].sample(4, random_state=seed)
    more = [
        starts(on_first, on_first.start),
        starts(on_last, on_last.end),
        starts(outside, outside.end + one),
        starts(overlapping, overlapping.end - 5 * one),  # a day that two spells hold
        starts(again, again.start + 40 * one),
        starts(again, again.start),  # the same day twice
        starts(running, running.start, "coaching"),  # another instrument from the very day
        starts(running, running.start - 60 * one, "coaching"),  # and one that ends on it
    ]
    episodes = pd.concat([episodes, *more], ignore_index=True)
    episodes.loc[episodes.sample(5, random_state=seed).index, "end"] = pd.NaT
    episodes.loc[episodes.sample(5, random_state=seed + 6).index, "referral"] = pd.NaT
    for frame in (benefits, episodes):
        frame.drop(frame[frame.start > str(LAST)].index, inplace=True)
    return {"persons": people, "benefits": benefits, "episodes": episodes}


def rows_of(frame, columns):
    """Plain tuples; dates as dates, gaps as None."""
    plain = frame[columns].astype(object)
    plain = plain.where(plain.notna(), None)
    return [tuple(v.date() if isinstance(v, pd.Timestamp) else v for v in row) for row in plain.itertuples(index=False)]


REASONS = ["work", "education", "other"]


def twin(tables, keys, merge_gap=0):
    """The naive risk sets; rows that the register leaves out are left out here too."""
    known = set(tables["persons"].loc[tables["persons"].distance.notna(), "person"])
    keys = {key: value for key, value in keys.items() if key != "merge_gap"}
    rules = naive.Rules(seed=5, first=FIRST, last=LAST, known=known, look_ahead=merge_gap, **keys)
    births = dict(rows_of(tables["persons"], ["person", "birth_year"]))
    benefits = rows_of(tables["benefits"], ["person", "start", "end", "reason"])
    benefits = sorted({b for b in benefits if b[2] is None or b[2] >= FIRST}, key=str)
    merged = {p: merge(rows, merge_gap, REASONS) for p, rows in naive.spells_of(benefits).items()}
    spells = [(person, *row) for person, rows in merged.items() for row in rows]
    episodes = rows_of(tables["episodes"], ["person", "type", "start", "end", "referral"])
    episodes = sorted({e for e in episodes if e[3] is None or e[3] >= FIRST}, key=str)
    return *naive.risk_sets(births, spells, episodes, rules, benefits), merged


def entries_of(sample):
    """{(person, nth spell, elapsed): (arm, time zero, follow-up, wait)} of the sample."""
    e, spells = sample.entries, sample.outcomes.spells
    zero = e.time_zero.astype("datetime64[D]").astype(object)
    wait = [None if w >= 2**29 else int(w) for w in e.own_start_after]
    keys = zip(sample.people.ids[e.person], spells.earlier[e.spell].tolist(), e.elapsed.tolist(), strict=True)
    values = zip(e.arm.tolist(), zero, e.follow_up.tolist(), wait, strict=True)
    return dict(zip(keys, values, strict=True))


def flow_of(sample, arm):
    rows = [row for row in sample.flow if row.arm == arm]
    return [(row.reason if row.kind == "out" else row.kind, row.persons, row.entries) for row in rows]


STUDIES = {
    "plain": (dict(eligibility="elapsed = [0, 23]"), dict()),
    "strict": (
        dict(
            eligibility='age = [25, 55]\nelapsed = [1, 9]\nearlier_spells = [0, 0]\nstock = "exclude"',
            covariates='numeric = ["distance"]\nmissing = "exclude"',
        ),
        dict(age=(25, 55), elapsed=(1, 9), earlier=(0, 0), exclude_missing=True),
    ),
    "loose": (
        dict(
            eligibility='stock = "include"\nother_instrument = "include"\nearlier_spells = [1, 5]',
            follow_up="available",
        ),
        dict(stock=True, other=True, earlier=(1, 5), complete=False),
    ),
    "referral": (dict(clock="referral", horizon=6), dict(clock="referral", horizon=6)),
    "start_first": (dict(within="start_first"), dict(convention="start_first")),
    "exit_first": (dict(within="exit_first", follow_up="available"), dict(convention="exit_first", complete=False)),
    "stock": (dict(eligibility='stock = "include"\nelapsed = [6, 60]'), dict(stock=True, elapsed=(6, 60))),
    "merged": (dict(spells=""), dict(merge_gap=1)),
    "merged far": (
        dict(spells="merge_gap_months = 4", within="start_first", follow_up="available", eligibility=""),
        dict(merge_gap=4, convention="start_first", complete=False),
    ),
}


@pytest.fixture(scope="module")
def town():
    return crooked(11, 400)


@pytest.fixture(scope="module")
def twins(town):
    """The naive risk sets of every study."""
    return {name: twin(town, rules, rules.get("merge_gap", 0)) for name, (_, rules) in STUDIES.items()}


@pytest.mark.parametrize("name", STUDIES)
def test_entries_flow_and_outcomes(town, twins, name):
    keys, rules = STUDIES[name]
    made = protocol(seed=5, first=str(FIRST), last=str(LAST), **keys)
    sample = cut(made, town)
    expected, flow, spells = twins[name]
    got = entries_of(sample)
    assert len(got) == len(sample.entries)
    assert got == expected
    assert sum(v[0] for v in got.values()) > 5 and len(got) > 50  # something was compared
    for arm in ("treated", "comparison"):
        assert flow_of(sample, arm) == flow[arm]

    horizon = made.time.horizon
    e = sample.entries
    some = np.random.default_rng(0).permutation(len(e))[:400]
    part = e.take(some)
    keys = list(got)
    for outcome, reason in (("left_to_work", "work"), ("left", None)):
        values, observed = sample.outcome(outcome, part)
        for row, at in enumerate(some):
            person, nth, _ = keys[at]
            zero = got[keys[at]][1]
            assert values[row].tolist() == naive.exit_path(spells[person][nth], zero, horizon, reason)
            ahead = rules.get("merge_gap", 0)
            seen = [naive.after(zero, k + ahead) <= LAST + naive.DAY for k in range(1, horizon + 1)]
            assert observed[row].tolist() == seen
    values, _ = sample.outcome("on_benefit", part)
    for row, at in enumerate(some):
        person = keys[at][0]
        assert values[row].tolist() == naive.state_path(spells[person], got[keys[at]][1], horizon)


def test_the_town_is_as_crooked_as_it_should_be(twins):
    """Every rule of the twin bites somewhere."""
    seen = set()
    for expected, flow, _ in twins.values():
        seen |= {reason for rows in flow.values() for reason, _, _ in rows}
        seen |= {"waiting" for v in expected.values() if v[0] == 0 and v[3] is not None}
    wanted = set(naive.ORDER) | {"start", "left", "waiting"}
    assert wanted - seen <= {"start_after_window", "previous_event"}


def test_month_only_data_give_both_conventions(town):
    made = protocol(seed=5, first=str(FIRST), last=str(LAST), within="start_first")
    sample = cut(made, town)
    assert sample.convention == "start_first" and sample.alternative.convention == "exit_first"
    other = cut(protocol(seed=5, first=str(FIRST), last=str(LAST), within="exit_first"), town)
    assert entries_of(sample.alternative) == entries_of(other)
    assert entries_of(other.alternative) == entries_of(sample)
    assert cut(protocol(seed=5, first=str(FIRST), last=str(LAST)), town).alternative is None


@pytest.mark.parametrize("within", ["dates", "start_first"])
def test_shuffled_rows_are_bit_identical(town, within):
    made = protocol(
        seed=5, first=str(FIRST), last=str(LAST), within=within, covariates='numeric = ["age", "distance"]\n'
        'categorical = ["sex"]', subgroups='[[subgroup]]\nname = "team"',
    )  # fmt: skip
    rng = np.random.default_rng(1)
    shuffled = {name: frame.iloc[rng.permutation(len(frame))] for name, frame in town.items()}
    one, two = cut(made, town), cut(made, shuffled)
    while one is not None:
        for name in one.entries.__dataclass_fields__:
            a, b = getattr(one.entries, name), getattr(two.entries, name)
            assert a.dtype == b.dtype and np.array_equal(a, b)
        for name in ("ids", "key", "cluster", "numeric", "birth_year"):
            a, b = getattr(one.people, name), getattr(two.people, name)
            assert np.array_equal(a, b, equal_nan=name in ("numeric", "birth_year"))
        assert one.flow == two.flow
        assert np.array_equal(one.design(one.entries).matrix(), two.design(two.entries).matrix())
        for outcome in made.outcomes:
            assert np.array_equal(one.outcome(outcome.name, one.entries)[0], two.outcome(outcome.name, two.entries)[0])
        one, two = one.alternative, two.alternative


def test_other_people_change_nothing_but_the_day_drawn(town):
    """Without the comparison people of one team, starters stay as they were and no other entry appears."""
    made = protocol(seed=5, first=str(FIRST), last=str(LAST))
    everyone = entries_of(cut(made, town))
    starters = {key[0] for key, value in everyone.items() if value[0] == 1}
    people = town["persons"]
    kept = set(people.loc[(people.team != 1) | people.person.isin(starters), "person"])
    fewer = {name: frame[frame.person.isin(kept)] for name, frame in town.items()}
    assert entries_of(cut(made, fewer)) == {key: value for key, value in everyone.items() if key[0] in kept}


def test_entries_keep_their_order_and_size(town):
    sample = cut(protocol(seed=5, first=str(FIRST), last=str(LAST)), town)
    e = sample.entries
    order = np.lexsort((e.time_zero, e.spell, e.elapsed))
    assert np.array_equal(order, np.arange(len(e)))
    assert len(sample.risk_set(3)) == (e.elapsed == 3).sum()
    assert (sample.risk_set(3).elapsed == 3).all()
    assert np.array_equal(sample.months, np.unique(e.elapsed))
    assert (sample.outcomes.spells.end[e.spell] >= e.time_zero).all()  # everyone is on benefit at time zero
    assert sample.outcomes.spells.end.max() == NEVER
    assert replace(sample, horizon=3).outcome("left", e)[0].shape == (len(e), 3)
