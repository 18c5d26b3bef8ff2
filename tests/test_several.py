"""Several instruments: the chance of each against statsmodels and score equations, and who can be compared."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matched import Matched, nearest
from matched import effect as matched_effect
from naive.several import support as naive_support
from sample_example import cut, protocol
from tolerances import MONTE_CARLO, REFERENCE, SOLVED

from evalkit import simulate, study
from evalkit.design import Design, factor, integer_factor
from evalkit.errors import DesignError
from evalkit.hashing import hash_ids
from evalkit.matching.adjustment import Candidates
from evalkit.matching.propensity import fit_logit
from evalkit.matching.several import fit_arms, pairs_of, support_table

ARMS = ("wait", "training", "coaching")


def draw(seed=1, units=400, rows=1500, arms=3):
    """Units with rows in several months: numbers and categories of units, of rows and of time, and an arm a row."""
    rng = np.random.default_rng(seed)
    index = np.sort(rng.integers(0, units, rows)).astype(np.int32)
    age, debt = rng.normal(40, 10, units), rng.normal(0, 1, rows)
    sex = rng.integers(0, 2, units)
    town = rng.integers(0, 3, rows)
    month = rng.integers(0, 4, rows)
    design = Design(
        index, age[:, None], ("age",), debt[:, None], ("debt",), (factor("sex", np.array(["m", "v"])[sex]),),
        (factor("town", np.array(["a", "b", "c"])[town]),), (integer_factor("elapsed", month),),
    )  # fmt: skip
    linear = [np.zeros(rows)]
    for j in range(1, arms):
        linear.append(
            -1.0 + 0.03 * (age[index] - 40) * (-1) ** j + 0.5 * debt * j - 0.4 * sex[index] + 0.2 * town - 0.1 * month
        )
    chance = np.exp(np.column_stack(linear))
    chance /= chance.sum(axis=1, keepdims=True)
    arm = (rng.random(rows)[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    return design, arm


def near(ours, theirs, error):
    assert (np.abs(ours - theirs) <= REFERENCE * np.maximum(np.abs(theirs), error)).all()


@pytest.mark.parametrize("arms", [2, 3, 4])
def test_agrees_with_statsmodels(arms):
    import statsmodels.api as sm

    design, arm = draw(arms=arms)
    ours = fit_arms(design, arm, [f"arm{j}" for j in range(arms)])
    theirs = sm.MNLogit(arm, design.matrix()).fit(disp=0, method="newton", maxiter=100, tol=1e-14)
    errors = np.asarray(theirs.bse).T
    near(ours.coefficients, np.asarray(theirs.params).T, errors)
    near(np.sqrt(np.diag(ours.vcov)), errors.ravel(), errors.ravel())
    assert ours.loglik == pytest.approx(theirs.llf, rel=1e-10)
    assert ours.names == design.names and ours.used.all() and (ours.rows == np.arange(len(arm))).all()
    chances = np.asarray(theirs.predict())
    assert np.abs(ours.chances - chances).max() < REFERENCE
    for pair in pairs_of(ours, arm, np.zeros(len(arm), np.int64)):
        a, b = ours.arms.index(pair.focal), ours.arms.index(pair.other)
        expected = chances[pair.rows][:, [a, b]]
        assert np.abs(pair.chance - expected[:, 0] / expected.sum(axis=1)).max() < REFERENCE
        assert np.array_equal(pair.treated, arm[pair.rows] == a)
        assert np.array_equal(pair.rows, np.flatnonzero((arm == a) | (arm == b)))


def test_two_arms_are_the_logit():
    design, arm = draw(arms=2)
    ours, logit = fit_arms(design, arm, ("wait", "training")), fit_logit(design, arm == 1)
    assert np.abs(ours.coefficients[0] - logit.coefficients).max() < SOLVED
    assert np.abs(ours.vcov - logit.vcov).max() < SOLVED
    assert np.abs(ours.linear[:, 1] - logit.score).max() < SOLVED
    assert ours.iterations == logit.iterations


def score_of(model, design, arm):
    """Sum over rows of what an arm is above its chance, for each column that the model uses for it."""
    x = design.matrix(model.rows)
    chances, chosen = model.chances, arm[model.rows]
    columns = [design.names.index(name) for name in model.names]
    return [
        ((chosen == j + 1).astype(float) - chances[:, j + 1]) @ x[:, columns][:, model.used[j]]
        for j in range(len(model.arms) - 1)
    ]


@pytest.mark.parametrize("level", ["a", "c"])  # the reference level and another one
def test_a_category_that_an_arm_has_nobody_in(level):
    """That arm has no chance there, the others keep it; the score equations hold for all that is left."""
    design, arm = draw(seed=3)
    town = design.own_factors[0]
    lacking = town.codes == town.levels.index(level)
    arm = np.where(lacking & (arm == 2), 0, arm)
    model = fit_arms(design, arm, ARMS)
    assert model.dropped == ((), (f"town:{level}",))
    assert len(model.rows) == len(arm)
    assert (model.chances[lacking, 2] == 0).all() and (model.chances[~lacking, 2] > 0).all()
    assert (model.chances[:, 1] > 0).all() and model.chances.sum(axis=1) == pytest.approx(1)
    for values in score_of(model, design, arm):
        assert np.abs(values).max() < 1e-6
    pairs = {(pair.focal, pair.other): pair for pair in pairs_of(model, arm, np.zeros(len(arm), np.int64))}
    assert not lacking[pairs["coaching", "training"].rows].any() and not lacking[pairs["coaching", "wait"].rows].any()
    assert lacking[pairs["training", "wait"].rows].any() and not lacking[pairs["training", "coaching"].rows].any()
    assert all(np.isfinite(pair.score).all() for pair in pairs.values())


def test_a_category_without_anybody_who_waits():
    """Who is in it in an arm cannot be compared with waiting and is left out."""
    design, arm = draw(seed=3)
    town = design.own_factors[0].codes == 1
    arm = np.where(town & (arm != 1), 1, arm)
    model = fit_arms(design, arm, ARMS)
    assert model.dropped == (("town:b",), ())
    assert np.array_equal(model.rows, np.flatnonzero(~town))
    table = support_table(model, pairs_of(model, arm, np.zeros(len(arm), np.int64)), arm, design.index)
    training = table[0]
    assert training.starters == (arm == 1).sum() and training.comparable == ((arm == 1) & ~town).sum()
    assert training.persons == len(np.unique(design.index[arm == 1]))


def test_faults():
    design, arm = draw()
    with pytest.raises(DesignError) as caught:
        fit_arms(design, np.where(arm == 2, 0, arm), ARMS)
    assert caught.value.faults[0].code == "design.arm_empty" and caught.value.faults[0].params == {"arm": "coaching"}
    twice = replace(design, own_numeric=np.repeat(design.own_numeric, 2, axis=1), own_numeric_names=("debt", "owed"))
    with pytest.raises(DesignError) as caught:
        fit_arms(twice, arm, ARMS)
    assert caught.value.faults[0].code == "design.collinear" and caught.value.faults[0].params == {"column": "owed"}
    apart = replace(
        design, own_numeric=np.column_stack([design.own_numeric, arm == 2]), own_numeric_names=("debt", "tell")
    )
    with pytest.raises(DesignError) as caught:
        fit_arms(apart, arm, ARMS)
    assert caught.value.faults[0].code == "design.separation" and caught.value.faults[0].params == {"column": "tell"}


def test_columns_that_follow_from_others():
    """A quarter that follows from the elapsed month is left out; a column without variation too."""
    design, arm = draw()
    months = design.time_factors[0]
    quarter = integer_factor("quarter", months.codes // 2)
    more = replace(
        design,
        time_factors=(months, quarter),
        own_numeric=np.column_stack([design.own_numeric, np.ones(len(arm))]),
        own_numeric_names=("debt", "one"),
    )
    one, two = fit_arms(design, arm, ARMS), fit_arms(more, arm, ARMS)
    assert np.abs(one.linear - two.linear).max() < SOLVED
    assert not two.used[:, two.names.index("quarter:1")].any() and "one" not in two.names
    assert (two.coefficients[~two.used] == 0).all() and len(two.vcov) == two.used.sum() == one.used.sum()


# -- support ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_support_is_that_of_minima_and_maxima(seed):
    design, arm = draw(seed, rows=600)
    town = design.own_factors[0].codes == 2
    arm = np.where(town & (arm == 2), 0, arm)
    model = fit_arms(design, arm, ARMS)
    stratum = np.arange(len(arm)) % 40
    pairs = pairs_of(model, arm, stratum)
    assert [(pair.focal, pair.other) for pair in pairs] == [
        ("training", "wait"), ("training", "coaching"), ("coaching", "wait"), ("coaching", "training"),
    ]  # fmt: skip
    inside = {}
    with np.errstate(divide="ignore"):
        log = np.log(model.chances)
    for a, b in ((1, 0), (2, 0), (1, 2)):
        score = [None if np.isinf(row[[a, b]]).any() else row[a] - row[b] for row in log]
        inside[a, b] = inside[b, a] = np.array(naive_support(score, arm[model.rows], a, b))
    joint = inside[1, 0] & inside[2, 0] & inside[1, 2]
    for pair in pairs:
        a, b = ARMS.index(pair.focal), ARMS.index(pair.other)
        assert np.array_equal(pair.support, inside[a, b][pair.rows])
        assert np.array_equal(pair.joint, joint[pair.rows])
        assert np.array_equal(pair.stratum, stratum[pair.rows])
        assert 0 < pair.joint.sum() < pair.support.sum() < len(pair.rows)
        assert pair.within("joint").joint.all() and len(pair.within("pair").rows) == pair.support.sum()
        back = next(other for other in pairs if (other.focal, other.other) == (pair.other, pair.focal)) if b else None
        if back:
            assert np.array_equal(back.rows, pair.rows) and np.array_equal(back.support, pair.support)
            assert np.abs(back.score + pair.score).max() == 0
    table = support_table(model, pairs, arm, design.index)
    for row, pair in zip(table, pairs, strict=True):
        own = pair.treated & pair.support
        assert (row.starters, row.comparable) == ((arm == ARMS.index(row.focal)).sum(), pair.treated.sum())
        assert (row.supported, row.joint) == (own.sum(), (pair.treated & pair.joint).sum())
        there = set(pair.stratum[~pair.treated & pair.support])
        assert row.alone == sum(cell not in there for cell in pair.stratum[own])
        assert row.others == (~pair.treated & pair.support).sum()
        assert row.persons_supported == len(set(design.index[pair.rows[own]]))
        assert row.persons_joint == len(set(design.index[pair.rows[pair.treated & pair.joint]]))
        assert row.starters >= row.comparable >= row.supported >= row.joint


def test_arms_that_do_not_meet():
    """No row lies where both have some when their scores do not overlap."""
    design, arm = draw(arms=3)
    model = fit_arms(design, arm, ARMS)
    far = model.linear.copy()
    far[:, 1] += np.where(arm == 1, 100.0, 0.0)
    pair = pairs_of(replace(model, linear=far), arm, np.zeros(len(arm), np.int64))[0]
    assert not pair.support.any() and not pair.joint.any()


# -- from registers ---------------------------------------------------------------------------------------------------


def effects(sample, horizon):
    """Pairwise effects of a sample with several arms by nearest-neighbour matching within month and quarter."""
    made, entries = sample.several.sample, sample.several.sample.entries
    model = fit_arms(made.design(entries), entries.arm, sample.several.names)
    stratum = entries.elapsed.astype(np.int64) * 1000 + entries.quarter
    found = {}
    for pair in pairs_of(model, entries.arm, stratum):
        pair = pair.within("pair")
        part = entries.take(pair.rows)
        key = hash_ids(1, [str(row) for row in pair.rows])
        candidates = Candidates(pair.treated, part.person.astype(np.int64), key, pair.stratum, pair.score)
        matched = Matched.of(nearest(candidates, ratio=2, width=None, unit="sd_linear"))
        used = part.take(matched.rows)
        y, observed = made.outcome("left", used)
        x = np.column_stack([np.ones(len(used)), pair.score[matched.rows]])
        person = used.person.astype(np.int64)
        found[pair.focal, pair.other] = matched_effect(matched, y, observed, x, person, person)
    return found


def test_arms_of_a_sample_can_be_compared():
    town = simulate.Municipality(
        window=(dt.date(2017, 1, 1), dt.date(2020, 12, 31)), start_rate=0.05, coaching_rate=0.04
    )
    tables = simulate.draw(town, 2500, 3)
    people = tables.persons.assign(team="a")
    episodes = tables.episodes.assign(referral=pd.NaT)
    made = protocol(seed=5, first="2017-01-01", last="2020-12-31", horizon=3)
    text = made.text.replace('instrument = "training"', 'instrument = "training"\nothers = ["coaching"]')
    sample = cut(study.parse(text), {"persons": people, "benefits": tables.benefits, "episodes": episodes})
    found = effects(sample, 3)
    assert set(found) == {
        ("training", "wait"), ("training", "coaching"), ("coaching", "wait"), ("coaching", "training"),
    }  # fmt: skip
    for effect in found.values():
        assert np.isfinite(effect.estimate).all() and (effect.n_treated > 30).all()


def random_starts(persons=20_000, hazard=0.05, rates=(0.02, 0.02), seed=2):
    """Exits at a constant rate; two instruments begin at random on real days and change nothing."""
    rng = np.random.default_rng(seed)
    month = 365.25 / 12
    entry = rng.integers(0, 1096, persons)
    end = entry + np.floor(rng.exponential(month / -np.log1p(-hazard), persons)).astype(int)
    base = np.datetime64("2015-01-01", "ns")
    days = lambda number: base + number.astype("timedelta64[D]")  # noqa: E731
    ids = np.array([f"P{i:06d}" for i in range(persons)], object)
    episodes = []
    for kind, rate in zip(("training", "coaching"), rates, strict=True):
        begin = entry + np.floor(rng.exponential(month / -np.log1p(-rate), persons)).astype(int)
        began = begin <= end
        episodes.append(pd.DataFrame({"person": ids[began], "type": kind, "start": days(begin[began])}))
    sex = np.where(rng.random(persons) < 0.5, "m", "v")
    tables = {
        "persons": pd.DataFrame({"person": ids, "sex": sex, "birth_year": 1985, "distance": 1.0, "team": "a"}),
        "benefits": pd.DataFrame({"person": ids, "start": days(entry), "end": days(end), "reason": "work"}),
        "episodes": pd.concat(episodes, ignore_index=True).assign(end=pd.NaT, referral=pd.NaT),
    }
    for frame in tables.values():
        if "start" in frame:
            frame.drop(frame[frame.start > "2019-12-31"].index, inplace=True)
    return tables


@pytest.mark.slow
def test_no_effect_is_no_effect_for_every_pair():
    """Two instruments that change nothing: on real days nobody gains by the order of start and exit within a month."""
    made = protocol(last="2019-12-31", horizon=6)
    text = made.text.replace('instrument = "training"', 'instrument = "training"\nothers = ["coaching"]')
    found = effects(cut(study.parse(text), random_starts()), 6)
    assert len(found) == 4
    for pair, effect in found.items():
        error = np.sqrt(np.diag(effect.uncertainty.vcov))
        assert (error < 0.02).all()
        assert np.abs(effect.estimate / error).max() < MONTE_CARLO, pair
