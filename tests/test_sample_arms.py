"""Several instruments side by side, entry by entry, against plain loops; and one instrument against another."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from naive import several as naive
from naive.risk_sets import Rules, spells_of
from naive.spells import merge
from sample_example import cut, frames, person, protocol
from test_sample_twin import FIRST, LAST, REASONS, crooked, entries_of, flow_of, rows_of

from evalkit import study
from evalkit.errors import DesignError, StudyError

NAMES = ("wait", "training", "coaching", "job_coach")
TYPES = 'coaching = ["coaching"]'


def asked(treatment: str, **keys) -> study.Study:
    """A study of training with more under [treatment]."""
    made = protocol(seed=5, first=str(FIRST), last=str(LAST), **keys)
    text = made.text.replace(TYPES, TYPES + ', job_coach = ["job_coach"], meeting = ["meeting"]')
    return study.parse(text.replace('instrument = "training"', f'instrument = "training"\n{treatment}'), Path("s.toml"))


@pytest.fixture(scope="module")
def town():
    """A crooked town with a third and a fourth instrument, and starts of two on one day."""
    tables = crooked(7, 500)
    rng = np.random.default_rng(3)
    episodes = tables["episodes"].reset_index(drop=True)
    other = (episodes.type == "coaching") & (rng.random(len(episodes)) < 0.5)
    episodes.loc[other, "type"] = np.where(rng.random(int(other.sum())) < 0.8, "job_coach", "meeting")
    both = episodes[episodes.type == "training"].sample(12, random_state=2).assign(type="job_coach")
    return tables | {"episodes": pd.concat([episodes, both], ignore_index=True)}


STUDIES = {
    "several": ('others = ["coaching", "job_coach"]', {}, {}),
    "with others": (
        'others = ["coaching", "job_coach"]',
        dict(eligibility='other_instrument = "include"'),
        dict(other=True),
    ),
    "older": (
        'others = ["coaching", "job_coach"]',
        dict(eligibility='age = [25, 55]\nelapsed = [1, 15]\nstock = "include"', follow_up="available"),
        dict(age=(25, 55), elapsed=(1, 15), stock=True, complete=False),
    ),
    "referral": ('others = ["coaching", "job_coach"]', dict(clock="referral"), dict(clock="referral")),
    "merged": ('others = ["coaching", "job_coach"]', dict(spells=""), dict(look_ahead=1)),
    "start_first": ('others = ["coaching", "job_coach"]', dict(within="start_first"), dict(convention="start_first")),
    "exit_first": ('others = ["coaching", "job_coach"]', dict(within="exit_first"), dict(convention="exit_first")),
}  # fmt: skip
VERSUS = {
    "one against another": ('versus = "coaching"', {}, {}),
    "loosely": (
        'versus = "coaching"',
        dict(eligibility='other_instrument = "include"', within="exit_first"),
        dict(other=True, convention="exit_first"),
    ),
    "referral": ('versus = "job_coach"', dict(clock="referral", horizon=6), dict(clock="referral", horizon=6)),
}


def twin(tables, codes, waiting, rules):
    rules = Rules(seed=5, first=FIRST, last=LAST, **rules)
    births = dict(rows_of(tables["persons"], ["person", "birth_year"]))
    rows = rows_of(tables["benefits"], ["person", "start", "end", "reason"])
    rows = sorted({b for b in rows if b[2] is None or b[2] >= FIRST}, key=str)
    merged = {p: merge(own, rules.look_ahead, REASONS) for p, own in spells_of(rows).items()}
    spells = [(who, *row) for who, own in merged.items() for row in own]
    episodes = rows_of(tables["episodes"], ["person", "type", "start", "end", "referral"])
    episodes = sorted({e for e in episodes if e[3] is None or e[3] >= FIRST}, key=str)
    return naive.arms(births, spells, episodes, rules, codes, waiting, rows)


def entries_out(found):
    """By reason how many entries fell out, and how many were left."""
    count = Counter(reason for _, reason in found)
    return count.pop(None, 0), dict(count)


def same_flow(sample, label, found):
    rows = flow_of(sample, label)
    assert rows[0][0] == "start" and rows[0][1:] == (len({p for p, _ in found}), len(found))
    left, out = entries_out(found)
    assert {reason: entries for reason, _, entries in rows[1:-1]} == out
    assert rows[-1] == ("left", len({p for p, reason in found if reason is None}), left)
    assert rows[0][1] == sum(persons for _, persons, _ in rows[1:])


@pytest.mark.parametrize("name", STUDIES)
def test_arms_and_their_flow(town, name):
    treatment, keys, rules = STUDIES[name]
    sample = cut(asked(treatment, **keys), town)
    several = sample.several
    assert several.names == NAMES and several.sample.several is None
    codes = {own: (code, own) for code, own in enumerate(NAMES) if code}
    expected, found = twin(town, codes, "wait", rules)
    got = entries_of(several.sample)
    assert len(got) == len(several.sample.entries) and got == expected
    arms = Counter(values[0] for values in got.values())
    assert set(arms) == {0, 1, 2, 3} and min(arms.values()) > 5
    for label in NAMES:
        same_flow(several.sample, label, found[label])
    assert {row.arm for row in several.sample.flow} == set(NAMES)


@pytest.mark.parametrize("name", VERSUS)
def test_one_instrument_against_another(town, name):
    treatment, keys, rules = VERSUS[name]
    sample = cut(asked(treatment, **keys), town)
    other = treatment.split('"')[1]
    expected, found = twin(town, {"training": (1, "treated"), other: (0, "comparison")}, "", rules)
    assert entries_of(sample) == expected
    assert Counter(values[0] for values in expected.values()).keys() == {0, 1}
    for label in ("treated", "comparison"):
        same_flow(sample, label, found[label])
    e = sample.entries
    assert (np.lexsort((e.spell, e.elapsed)) == np.arange(len(e))).all()
    cells = {(m, q) for m, q, arm in zip(e.elapsed, e.quarter, e.arm, strict=True) if arm == 1}
    assert {(m, q) for m, q, arm in zip(e.elapsed, e.quarter, e.arm, strict=True) if arm == 0} <= cells
    assert sample.several is None


@pytest.mark.slow
def test_every_rule_bites(town):
    """Reasons that the twins above see: the starts of two on one day among them."""
    seen = set()
    for treatment, keys, _ in [*STUDIES.values(), *VERSUS.values()]:
        sample = cut(asked(treatment, **keys), town)
        seen |= {row.reason for row in (sample.several.sample if sample.several else sample).flow if row.kind == "out"}
    wanted = "same_day_start not_first_start no_benefit_at_start elapsed stock age already_in_instrument"
    assert {*wanted.split(), "other_instrument", "follow_up", "no_starter_same_month"} <= seen


def test_an_ordinary_study_is_what_it_was(town):
    """The comparison of the study does not look at ``others``, and nothing is built without them."""
    plain = cut(asked(""), town)
    beside = cut(asked('others = ["coaching", "job_coach"]'), town)
    assert plain.several is None
    assert plain.flow == beside.flow
    for name in plain.entries.__dataclass_fields__:
        assert np.array_equal(getattr(plain.entries, name), getattr(beside.entries, name))


def test_both_conventions_have_their_arms(town):
    sample = cut(asked('others = ["coaching"]', within="start_first"), town)
    other = cut(asked('others = ["coaching"]', within="exit_first"), town)
    assert sample.alternative.several.sample.convention == "exit_first"
    assert entries_of(sample.alternative.several.sample) == entries_of(other.several.sample)


def test_shuffled_rows_are_bit_identical(town):
    rng = np.random.default_rng(1)
    shuffled = {name: frame.iloc[rng.permutation(len(frame))] for name, frame in town.items()}
    for treatment in ('others = ["coaching", "job_coach"]', 'versus = "coaching"'):
        one, two = (cut(asked(treatment), tables) for tables in (town, shuffled))
        pairs = [(one, two)] + ([(one.several.sample, two.several.sample)] if one.several else [])
        for a, b in pairs:
            assert a.flow == b.flow
            for name in a.entries.__dataclass_fields__:
                assert np.array_equal(getattr(a.entries, name), getattr(b.entries, name))


# -- a few lines ------------------------------------------------------------------------------------------------------

LONG = ("2019-01-01", None, None)


def few(episodes, treatment, more="", **keys):
    people = sorted({row[0] for row in episodes} | {"W", "X"})
    tables = frames(
        [person(p) for p in people],
        [(p, *LONG) for p in people],
        [(p, kind, start, end, None) for p, kind, start, end in episodes],
    )
    made = protocol(horizon=3, first="2018-01-01", last="2020-12-31", spells="", **keys)
    text = made.text.replace(TYPES, TYPES + ', job_coach = ["job_coach"], meeting = ["meeting"]')
    text = text.replace('instrument = "training"', f'instrument = "training"\n{treatment}')
    return cut(study.parse(text + more, Path("s.toml")), tables)


def arms_of(sample):
    e = sample.entries
    rows = zip(sample.people.ids[e.person], e.elapsed.tolist(), e.arm.tolist(), strict=True)
    return {(who, month): arm for who, month, arm in rows}


EPISODES = [
    ("A", "training", "2019-03-10", "2019-04-10"),
    ("A", "coaching", "2019-06-10", "2019-07-10"),
    ("B", "coaching", "2019-03-20", "2019-04-10"),
    ("B", "training", "2019-03-25", "2019-07-10"),
    ("C", "training", "2019-03-15", "2019-04-10"),
    ("C", "coaching", "2019-03-15", "2019-04-10"),
    ("D", "meeting", "2019-02-15", "2019-02-20"),
    ("D", "training", "2019-03-15", "2019-05-10"),
    ("E", "coaching", "2018-12-01", "2019-12-10"),
    ("E", "training", "2019-03-15", "2019-05-10"),
]


def test_the_first_of_those_compared_counts():
    """A training, B coaching, C neither (both on a day), D training: meetings are not compared; E is in coaching."""
    sample = few(EPISODES, 'others = ["coaching"]').several.sample
    found = arms_of(sample)
    starters = {key: arm for key, arm in found.items() if arm}
    assert starters == {("A", 2): 1, ("B", 2): 2, ("D", 2): 1}
    assert {key for key, arm in found.items() if not arm} == {("W", 2), ("X", 2)}
    out = {(row.arm, row.reason): row.entries for row in sample.flow if row.kind == "out"}
    assert out["training", "same_day_start"] == out["coaching", "same_day_start"] == 1
    assert out["training", "not_first_start"] == 1 and out["coaching", "not_first_start"] == 1  # B's, A's
    assert out["training", "already_in_instrument"] == 1  # E's coaching began before
    assert out["coaching", "no_benefit_at_start"] == 1  # E's

    versus = few(EPISODES, 'versus = "coaching"')
    assert arms_of(versus) == {("A", 2): 1, ("D", 2): 1, ("B", 2): 0}
    wait = dict(zip(versus.people.ids[versus.entries.person], versus.entries.own_start_after, strict=True))
    assert wait["B"] == 0 and wait["A"] == 0  # B starts training within the month


SECOND = '\n[[instrument]]\nname = "second_meeting"\nof = "meeting"\norder = 2\n'


def test_where_an_event_must_have_come_before_it_must_have_for_everybody():
    """A second meeting beside training: who trains or waits without a first meeting is not compared."""
    episodes = [
        ("P", "meeting", "2019-02-10", "2019-02-10"),
        ("P", "meeting", "2019-03-12", "2019-03-12"),
        ("Q", "meeting", "2019-02-12", "2019-02-12"),
        ("Q", "training", "2019-03-15", "2019-04-15"),
        ("R", "training", "2019-03-18", "2019-04-18"),
        ("W", "meeting", "2019-02-01", "2019-02-01"),
    ]
    sample = few(episodes, 'others = ["second_meeting"]', more=SECOND).several.sample
    assert arms_of(sample) == {("P", 2): 2, ("Q", 2): 1, ("W", 2): 0}
    out = {(row.arm, row.reason): row.entries for row in sample.flow if row.kind == "out"}
    assert out["training", "previous_event"] == 1 and out["wait", "previous_event"] > 1


def test_versus_another_and_others_beside_it(town):
    """The comparison of the study sets one against the other; beside it both and the third with waiting."""
    sample = cut(asked('versus = "coaching"\nothers = ["job_coach"]'), town)
    plain = cut(asked('versus = "coaching"'), town)
    assert entries_of(sample) == entries_of(plain) and sample.flow == plain.flow
    assert sample.several.names == NAMES
    beside = cut(asked('others = ["coaching", "job_coach"]'), town).several.sample
    assert entries_of(sample.several.sample) == entries_of(beside)


def test_who_is_not_there_is_named():
    with pytest.raises(DesignError) as caught:
        few(EPISODES, 'others = ["job_coach"]')
    assert caught.value.faults[0].code == "design.no_starters"
    assert caught.value.faults[0].params == {"instrument": "job_coach"}
    with pytest.raises(DesignError):
        few(EPISODES, 'versus = "job_coach"')


def faults(treatment, more=""):
    text = asked("").text.replace('instrument = "training"', f'instrument = "training"\n{treatment}') + more
    with pytest.raises(StudyError) as caught:
        study.parse(text)
    return [fault.code for fault in caught.value.faults]


BOTH = '\n[[instrument]]\nname = "both"\ncombine = ["training", "coaching"]\n'


def test_faults_of_others():
    assert faults('others = ["coachingg"]') == ["study.not_allowed"]
    assert faults('others = ["wait"]') == ["study.not_allowed"]
    assert faults('others = ["coaching", "coaching"]') == ["study.duplicate"]
    assert faults('others = ["training"]') == ["study.duplicate"]
    assert faults('versus = "coaching"\nothers = ["coaching"]') == ["study.duplicate"]
    assert faults('others = ["both"]', BOTH) == ["study.compared_part"]
    made = study.parse(asked('versus = "coaching"\nothers = ["job_coach"]').text)
    assert made.treatment.compared == ("training", "coaching", "job_coach")
    assert made.treatment.opposed == ("training", "coaching")
    assert asked('others = ["coaching"]').treatment.opposed == ("training",)
