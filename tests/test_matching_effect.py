"""The bias-corrected effect and its influence against a written-out twin, by hand, and against MatchIt."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matched import Matched
from matched import effect as matched_effect
from matched import nearest as match_nearest
from naive import matching as naive

from evalkit.matching import Candidates, Pairs
from evalkit.matching.models import ROWS_A_COLUMN

REFERENCE = Path(__file__).parent / "reference"
NOBODY = np.array([], np.int64)


def setting(seed, n=160, months=5, ratio=2, persons=None):
    """Pairs on random scores, covariates that matter, outcome paths, and several rows a person."""
    rng = np.random.default_rng(seed)
    treated = rng.random(n) < 0.3
    covariate = rng.normal(size=(n, 2))
    score = 0.5 * covariate[:, 0] - 0.3 * covariate[:, 1]
    person = rng.permutation(n) if persons is None else rng.integers(0, persons, n)
    c = Candidates(treated, person, rng.integers(0, 2**64, n, dtype=np.uint64), rng.integers(0, 3, n), score)
    pairs = match_nearest(c, ratio=ratio, width=0.8, unit="sd_linear")
    matched = Matched.of(pairs)
    x = np.column_stack([np.ones(n), score, covariate[:, 0]])[matched.rows]
    y = (covariate[:, :1] + rng.normal(size=(n, months)) + treated[:, None])[matched.rows]
    return matched, x, y, person[matched.rows], rng


def both(matched, y, observed, x, person, cluster):
    mine = matched_effect(matched, np.where(observed, y, 0.0), observed, x, person, cluster)
    twin = naive.corrected_effect(
        matched.treated.tolist(), matched.control.tolist(), matched.weight.tolist(), y, observed, x, person.tolist(),
        cluster.tolist(),
    )  # fmt: skip
    return mine, twin


def agree(mine, twin, tolerance=1e-10):
    estimate, counterfactual, n_treated, n_comparison, influence = twin
    assert np.allclose(mine.estimate, estimate, rtol=0, atol=tolerance, equal_nan=True)
    assert np.allclose(mine.counterfactual, counterfactual, rtol=0, atol=tolerance, equal_nan=True)
    assert mine.n_treated.tolist() == n_treated
    assert mine.n_comparison.tolist() == n_comparison
    assert np.allclose(mine.uncertainty.values, influence, rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ratio", [1, 3])
def test_complete_follow_up(seed, ratio):
    matched, x, y, person, _ = setting(seed, ratio=ratio)
    mine, twin = both(matched, y, np.ones(y.shape, bool), x, person, person)
    agree(mine, twin)
    assert mine.columns == 3
    assert np.abs(mine.estimate - difference(matched, y)).max() > 1e-3  # the correction does something


def difference(matched, y):
    starters = np.unique(matched.treated)
    return y[starters].mean(axis=0) - matched.uses() @ y / len(starters)


def test_persons_and_clusters_above_rows():
    """Several rows a person, on both sides: the influence is summed before it is squared."""
    matched, x, y, person, rng = setting(7, persons=60)
    observed = np.ones(y.shape, bool)
    agree(*both(matched, y, observed, x, person, person))
    team = person % 7
    mine, twin = both(matched, y, observed, x, person, team)
    agree(mine, twin)
    rows, _ = both(matched, y, observed, x, np.arange(len(x)), np.arange(len(x)))
    summed = np.zeros((7, y.shape[1]))
    np.add.at(summed, team, rows.uncertainty.values)
    assert np.allclose(mine.uncertainty.values, summed, atol=1e-12)
    assert np.allclose(mine.estimate, rows.estimate, atol=1e-12)


def test_influence_sums_to_zero_up_to_the_small_sample_factor():
    """By the normal equations of the weighted regression; exactly so for the starters."""
    matched, x, y, person, _ = setting(3, n=2000)
    mine = matched_effect(matched, y, np.ones(y.shape, bool), x, np.arange(len(x)), np.arange(len(x)))
    starters = np.unique(matched.treated)
    assert np.abs(mine.uncertainty.values[starters].sum(axis=0)).max() < 1e-12
    assert np.abs(mine.uncertainty.values.sum(axis=0)).max() < 0.02 * np.sqrt(np.diag(mine.uncertainty.vcov)).min()


def test_varying_follow_up_is_each_month_by_itself():
    matched, x, y, person, rng = setting(5, n=500, ratio=3)
    reach = rng.integers(1, 6, len(x))
    observed = reach[:, None] >= np.arange(1, 6)
    mine, twin = both(matched, np.where(observed, y, np.nan), observed, x, person, person)
    agree(mine, twin)
    for k in range(5):
        keep = observed[matched.treated, k] & observed[matched.control, k]
        part = matched.where(keep)
        alone = matched_effect(part, y[:, [k]], np.ones((len(x), 1), bool), x, person, person)
        assert alone.estimate[0] == pytest.approx(mine.estimate[k], abs=1e-12)
        assert np.allclose(alone.uncertainty.values[:, 0], mine.uncertainty.values[:, k], atol=1e-12)
    assert len(set(mine.n_treated.tolist())) > 1


def test_a_starter_whose_match_is_lost_leans_on_the_others():
    """Starter 0 has matches 2 and 3; in month 2 row 3 is no longer seen and row 2 counts in full."""
    matched = Matched(np.arange(4), np.array([0, 0, 1]), np.array([2, 3, 3]), np.array([0.5, 0.5, 1.0]))
    y = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.5], [1.0, 9.0]])
    observed = np.array([[True, True], [True, True], [True, True], [True, False]])
    mine = matched_effect(matched, y, observed, np.ones((4, 1)), np.arange(4), np.arange(4))
    assert mine.estimate[0] == pytest.approx((1 + 0) / 2 - (0.5 * 0 + 1.5 * 1) / 2)
    assert np.isnan(mine.estimate[1]) and np.isnan(mine.counterfactual[1])  # one starter: no standard error
    assert mine.n_treated.tolist() == [2, 1] and mine.n_comparison.tolist() == [2, 1]


def test_by_hand():
    """Two starters at x = 1 and 2, matches at 0 and 2 whose regression line is y = x: the correction moves one by 1."""
    matched = Matched(np.arange(4), np.array([0, 1]), np.array([2, 3]), np.array([1.0, 1.0]))
    x = np.column_stack([np.ones(4), [1.0, 2.0, 0.0, 2.0]])
    y = np.array([[3.0], [5.0], [0.0], [2.0]])
    few = matched_effect(matched, y, np.ones((4, 1), bool), x, np.arange(4), np.arange(4))
    assert few.columns == 1  # two matches carry no slope
    assert few.estimate[0] == pytest.approx((3 + 5) / 2 - (0 + 2) / 2)
    more_x = np.tile(x, (5, 1))
    rows = np.arange(20)
    pairs = Matched(rows, np.flatnonzero(rows % 4 < 2), np.flatnonzero(rows % 4 >= 2), np.ones(10))
    many = matched_effect(pairs, np.tile(y, (5, 1)), np.ones((20, 1), bool), more_x, rows, rows)
    assert many.columns == 2
    assert many.estimate[0] == pytest.approx(((3 - 1) + (5 - 2)) / 2)
    assert many.counterfactual[0] == pytest.approx(4 - 2.5)
    starters = np.array([2 - 2.5, 3 - 2.5]) / np.sqrt(1 - 1 / 10) / 10
    assert np.allclose(many.uncertainty.values[:4, 0], [*starters, 0, 0], atol=1e-12)


def test_few_comparison_rows_fall_back_on_the_first_columns():
    matched, x, y, person, _ = setting(2, n=30, ratio=1)
    used = int((matched.uses() > 0).sum())
    assert used // ROWS_A_COLUMN < 3
    mine, twin = both(matched, y, np.ones(y.shape, bool), x, person, person)
    agree(mine, twin)
    assert mine.columns == max(1, used // ROWS_A_COLUMN)


def test_columns_that_say_nothing_among_the_matches_change_nothing():
    """A level that no match has, a copy, and a multiple of the intercept leave the regression as it was."""
    matched, x, y, person, _ = setting(6, n=600)
    observed = np.ones(y.shape, bool)
    starters = np.unique(matched.treated)
    level = np.zeros(len(x))
    level[starters[:5]] = 1.0
    wide = np.column_stack([x, level, x[:, 1], np.full(len(x), 7.0)])
    plain = matched_effect(matched, y, observed, x, person, person)
    more = matched_effect(matched, y, observed, wide, person, person)
    assert np.allclose(plain.estimate, more.estimate, atol=1e-10)
    assert np.allclose(plain.uncertainty.values, more.uncertainty.values, atol=1e-10)


def test_columns_of_very_different_size():
    matched, x, y, person, _ = setting(1)
    observed = np.ones(y.shape, bool)
    plain = matched_effect(matched, y, observed, x, person, person)
    scaled = matched_effect(matched, y, observed, x * np.array([1.0, 1e-7, 1e9]), person, person)
    assert np.allclose(plain.estimate, scaled.estimate, atol=1e-9)
    assert np.allclose(plain.uncertainty.values, scaled.uncertainty.values, atol=1e-9)


def test_one_starter_or_none_has_no_estimate():
    matched = Matched(np.arange(2), np.array([0]), np.array([1]), np.array([1.0]))
    y = np.array([[1.0, 1.0], [0.0, 0.0]])
    observed = np.array([[True, False], [True, True]])
    mine = matched_effect(matched, y, observed, np.ones((2, 1)), np.arange(2), np.arange(2))
    assert np.isnan(mine.estimate).all() and np.isnan(mine.counterfactual).all()
    assert mine.n_treated.tolist() == [1, 0]
    assert not mine.uncertainty.values.any()


# MatchIt on the job training data


@pytest.fixture(scope="module")
def matchit():
    rows = pd.read_csv(REFERENCE / "nsw_cps_matched.csv")
    return rows, json.loads((REFERENCE / "nsw_cps_matchit.json").read_text())


def pairs_of(rows, reference):
    controls = np.array(reference["controls"]).reshape(185, -1)
    row = rows.row.to_numpy()
    ratio = controls.shape[1]
    treated = np.repeat(np.arange(185), ratio)
    control = np.searchsorted(row, controls.ravel())
    assert np.array_equal(row[control], controls.ravel()) and np.array_equal(row[:185], np.arange(185))
    return Pairs(treated, control, np.full(len(treated), 1.0 / ratio), NOBODY, np.inf)


NAMES = ["age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"]


@pytest.mark.parametrize("name", ["one", "three"])
def test_effects_of_matchit(matchit, name):
    """On MatchIt's pairs: the weighted difference, and g-computation, which is the bias-corrected effect."""
    rows, document = matchit
    reference = document[name]
    matched = Matched.of(pairs_of(rows, reference))
    part = rows.iloc[matched.rows]
    y = part[["re78"]].to_numpy(float)
    ids = matched.rows
    ones = np.ones((len(part), 1))
    for x, key in ((ones, "att_weighted_means"), (np.column_stack([ones, part[NAMES]]), "att_gcomputation")):
        effect = matched_effect(matched, y, np.ones(y.shape, bool), x, ids, ids)
        se = np.sqrt(effect.uncertainty.vcov[0, 0])
        assert abs(effect.estimate[0] - reference[key]) <= 1e-6 * max(abs(reference[key]), se)
        assert effect.n_comparison[0] == reference["matched_controls"]


@pytest.mark.parametrize(("name", "ratio"), [("one", 1), ("three", 3)])
def test_distances_of_matchit(matchit, name, ratio):
    """Nobody has a nearer match than MatchIt's; the pairs differ only where several are equally near."""
    rows, document = matchit
    coefficient = document["propensity"]["coefficient"]
    score = coefficient["intercept"] + rows[NAMES].to_numpy() @ [coefficient[name] for name in NAMES]
    n = len(rows)
    c = Candidates(
        rows.treat.to_numpy() == 1, np.arange(n), np.arange(n, dtype=np.uint64), np.zeros(n, np.int64), score
    )
    mine = match_nearest(c, ratio=ratio, width=None, unit="raw")
    theirs = pairs_of(rows, document[name])
    chance = 1 / (1 + np.exp(-score))

    def distances(pairs):
        return np.sort(np.abs(chance[pairs.treated] - chance[pairs.control]).reshape(185, ratio), axis=1)

    assert np.abs(distances(mine) - distances(theirs)).max() < 1e-12
