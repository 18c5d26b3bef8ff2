"""Months, changes and families: what is observed when, what is counted, and rows worked by hand."""

import numpy as np
import pytest
from test_outcome_influence import NOBODY, answer, in_strata, logit_weights, nearest, people
from tolerances import EXACT, SOLVED

from evalkit.matching.adjustment import Matching, Pairs
from evalkit.matching.outcome import changes, estimate


def paths(y, months=6, seed=0):
    rng = np.random.default_rng(seed)
    return y[:, None] + rng.normal(size=(len(y), months)) * 0.3


def adjustments(treated, z):
    yield "pairs", nearest(treated, z[:, 1])
    yield "strata", in_strata(treated, z, "ate")[0]
    yield "weights", logit_weights(treated, z, "att")
    from evalkit.matching.match import match

    yield "kernel", match(treated, how="kernel", score=z[:, 1])


@pytest.mark.parametrize("kind", ["pairs", "strata", "weights", "kernel"])
@pytest.mark.parametrize("model", ["means", "gcomputation", "regression", "aipw", "bias_corrected"])
def test_months_together_are_the_months_apart(kind, model):
    """Months seen for different people: each is what it is alone, whatever stands where it is not seen."""
    treated, z, x, y = people(2, n=160)
    adjustment = dict(adjustments(treated, z))[kind]
    if kind == "weights" and model == "bias_corrected":
        return
    many = paths(y)
    reach = np.random.default_rng(1).integers(2, 7, len(y))
    observed = reach[:, None] >= np.arange(1, 7)
    seen = np.where(observed, many, np.nan)
    person = np.arange(len(y)) // 2
    mine = estimate(adjustment, seen, observed, x, model=model, person=person)
    for k in range(6):
        alone = estimate(adjustment, seen[:, [k]], observed[:, [k]], x, model=model, person=person)
        assert alone.estimate[0] == pytest.approx(mine.estimate[k], abs=SOLVED)
        assert alone.counterfactual[0] == pytest.approx(mine.counterfactual[k], abs=SOLVED)
        assert np.allclose(alone.uncertainty.values[:, 0], mine.uncertainty.values[:, k], atol=SOLVED)
    assert mine.n_treated[0] > mine.n_treated[-1] > 0
    assert np.isfinite(mine.estimate).all()


def test_strata_carry_their_population_again_when_rows_are_lost():
    """Stratum 1: two starters 4 and 6, others 1 and 3. Stratum 2: one starter 8, others 5 and, in month 1 only, 7."""
    treated = np.array([1, 1, 0, 0, 1, 0, 0], bool)
    stratum = np.array([0, 0, 0, 0, 1, 1, 1])
    weight = np.array([1, 1, 1, 1, 1, 0.5, 0.5])
    matching = Matching(treated, "att", treated * 1.0, weight, None, stratum, NOBODY, NOBODY)
    y = np.array([[4, 4], [6, 6], [1, 1], [3, 3], [8, 8], [5, 5], [7, np.nan]], float)
    x = np.ones((7, 1))
    mine = estimate(matching, y, np.isfinite(y), x, model="means", person=np.arange(7))
    assert mine.estimate == pytest.approx([(2 * 3 + 2) / 3, (2 * 3 + 3) / 3], abs=EXACT)
    assert mine.counterfactual == pytest.approx([6 - 8 / 3, 3], abs=EXACT)
    assert mine.n_comparison.tolist() == [4, 3]
    gone = y.copy()
    gone[4, 1] = np.nan
    late = estimate(matching, gone, np.isfinite(gone), x, model="means", person=np.arange(7))
    assert late.estimate[1] == pytest.approx(5 - 2, abs=EXACT)  # the second stratum has no starter left
    assert late.n_treated.tolist() == [3, 2] and late.n_comparison.tolist() == [4, 2]


def test_a_month_nobody_is_seen_in_has_no_estimate():
    treated, z, x, y = people(2)
    for kind, adjustment in adjustments(treated, z):
        many = paths(y, 2)
        observed = np.ones(many.shape, bool)
        observed[treated, 1] = False
        model = "means" if kind != "pairs" else "bias_corrected"
        mine = estimate(adjustment, many, observed, x, model=model, person=np.arange(len(y)))
        assert np.isfinite(mine.estimate[0]) and np.isnan(mine.estimate[1]) and np.isnan(mine.counterfactual[1])
        assert mine.n_treated[1] == 0
        assert not mine.uncertainty.values[:, 1].any()


@pytest.mark.parametrize("kind", ["pairs", "strata", "weights", "kernel"])
def test_changes_are_outcomes_less_the_months_before(kind):
    """Conditional difference-in-differences is the same estimator on changes; months before not seen are left out."""
    treated, z, x, y = people(4)
    adjustment = dict(adjustments(treated, z))[kind]
    many, before = paths(y), paths(y, 3, seed=5)
    before[::3, 1] = np.nan
    observed = np.ones(many.shape, bool)
    asked = {"model": "gcomputation", "person": np.arange(len(y))}
    mine = estimate(adjustment, many, observed, x, before=before, **asked)
    mean = np.nanmean(before, axis=1)
    by_hand = estimate(adjustment, many - mean[:, None], observed, x, **asked)
    assert np.allclose(mine.estimate, by_hand.estimate, atol=EXACT)
    assert np.allclose(mine.uncertainty.values, by_hand.uncertainty.values, atol=EXACT)
    levels = estimate(adjustment, many, observed, x, **asked)
    assert np.abs(levels.estimate - mine.estimate).max() > 1e-3
    placed = estimate(
        adjustment, many, observed, x, before=np.nan_to_num(before), before_observed=np.isfinite(before), **asked
    )
    assert np.allclose(placed.estimate, mine.estimate, atol=EXACT)


def test_a_fixed_difference_between_people_is_gone_from_changes():
    """Starters who are 5 higher all along: levels say 5 + 2, changes say 2."""
    treated = np.array([True] * 6 + [False] * 6)
    focal, match = np.arange(6), np.arange(6, 12)
    pairs = Pairs(focal, match, np.ones(6), NOBODY, np.inf)
    matching = Matching(treated, "att", treated * 1.0, np.ones(12), pairs, None, NOBODY, NOBODY)
    own = np.arange(12.0) + 5 * treated
    y = (own + 2 * treated)[:, None]
    x = np.ones((12, 1))
    mine = answer(matching, y[:, 0], x, model="means", before=own[:, None])
    assert mine.estimate[0] == pytest.approx(2, abs=EXACT)
    assert mine.uncertainty.vcov[0, 0] == pytest.approx(0, abs=EXACT)


def test_rows_without_a_month_before_are_not_observed():
    y, observed = np.ones((3, 2)), np.array([[True, True], [True, False], [True, True]])
    before = np.array([[1.0, 3.0], [0.5, np.nan], [np.nan, np.nan]])
    value, seen = changes(y, observed, before, None)
    assert value[0].tolist() == [-1, -1] and value[1, 0] == 0.5
    assert seen.tolist() == [[True, True], [True, False], [False, False]]


def test_persons_are_counted_once_and_clusters_summed():
    treated, z, x, y = people(6, n=120)
    adjustment = logit_weights(treated, z, "att")
    person, team = np.arange(120) // 3, np.arange(120) // 12
    one = np.ones((120, 1), bool)
    rows = estimate(adjustment, y[:, None], one, x, model="means", person=np.arange(120))
    mine = estimate(adjustment, y[:, None], one, x, model="means", person=person, cluster=team, level="team")
    assert mine.uncertainty.level == "team" and len(mine.uncertainty.ids) == 10
    assert np.allclose(mine.uncertainty.values[:, 0], rows.uncertainty.values.reshape(10, 12).sum(axis=1), atol=EXACT)
    assert mine.n_treated[0] == len(set(person[treated])) < treated.sum()


@pytest.mark.parametrize("family", ["logit", "poisson"])
def test_an_outcome_that_never_happens(family):
    """No event in one arm: its mean is zero, and nothing is to be estimated there."""
    treated, z, x, y = people(7, kind="logit")
    y[~treated] = 0.0
    mine = answer(logit_weights(treated, z, "att"), y, x[:, :2], model="gcomputation", family=family)
    assert mine.counterfactual[0] == 0.0
    assert mine.estimate[0] == pytest.approx(y[treated].mean(), abs=1e-9)


def test_few_rows_fall_back_on_the_first_columns():
    treated, z, x, y = people(1, n=70)
    wide = np.column_stack([x, np.random.default_rng(0).normal(size=(70, 30))])
    adjustment = logit_weights(treated, z, "att")
    mine = answer(adjustment, y, wide, model="gcomputation")
    fewest = min(treated.sum(), (~treated).sum()) // 5
    assert mine.columns == fewest < wide.shape[1]
    same = answer(adjustment, y, wide[:, :fewest], model="gcomputation")
    assert same.estimate[0] == mine.estimate[0]


@pytest.mark.parametrize("model", ["means", "gcomputation", "regression", "aipw"])
def test_order_of_rows_changes_nothing(model):
    treated, z, x, y = people(3, n=120)
    shuffled = np.random.default_rng(0).permutation(120)
    mine = answer(logit_weights(treated, z, "ate"), y, x, model=model)
    other = answer(logit_weights(treated[shuffled], z[shuffled], "ate"), y[shuffled], x[shuffled], model=model)
    assert other.estimate[0] == pytest.approx(mine.estimate[0], abs=SOLVED)
    assert np.allclose(other.uncertainty.values, mine.uncertainty.values[shuffled], atol=SOLVED)
