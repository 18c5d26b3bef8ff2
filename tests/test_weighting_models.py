"""Trimming, caps, folds and the learners behind a propensity score."""

from __future__ import annotations

import numpy as np
import pytest
from naive import weighting as naive
from test_weighting_methods import drawn
from tolerances import SOLVED

from evalkit.hashing import hash_ids
from evalkit.matching.weighting import weigh
from evalkit.matching.weighting.lasso import lasso_path, penalties
from evalkit.matching.weighting.models import cross_fitted, folds_of
from evalkit.matching.weighting.trimming import capped, crump_limit, kept_by_score


def test_trimming_by_hand() -> None:
    score = np.array([0.05, 0.1, 0.3, 0.6, 0.9, 0.95])
    treated = np.array([False, True, False, True, False, True])
    base = np.ones(6)
    assert kept_by_score(score, treated, base, "att", (0.1, 0.9)).tolist() == [False, True, True, True, True, False]
    assert kept_by_score(score, treated, base, "att", "common").tolist() == [False, True, True, True, True, False]
    # by hand: costs 1, 2, 30 have sums 1, 3, 33 over squared counts 1, 4, 9: 1, 0.75, 3.67; the first two are kept
    assert crump_limit(np.array([30.0, 1.0, 2.0]), np.ones(3)) == 2.0


@pytest.mark.parametrize("seed", range(5))
def test_crump_against_every_limit(seed) -> None:
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-rng.normal(-1, 2, 300)))
    treated = rng.random(300) < score
    kept = kept_by_score(score, treated, np.ones(300), "ate", "crump")
    assert (kept == naive.crump_ate(score)).all()
    assert 0 < (~kept).sum() < 300
    cost = 1 / (score * (1 - score))
    assert cost[kept].max() <= 2 * cost[kept].mean()  # the condition in the paper
    assert cost[~kept].min() > 2 * cost[kept].mean()
    high = kept_by_score(score, treated, np.ones(300), "att", "crump")
    assert score[high].max() < score[~high].min()
    low = kept_by_score(1 - score, ~treated, np.ones(300), "atc", "crump")
    assert (low == high).all()
    moderate = 0.3 + 0.4 * rng.random(300)
    assert kept_by_score(moderate, treated, np.ones(300), "ate", "crump").all()


def test_what_trimming_reports() -> None:
    treated, x, _, _ = drawn()
    plain = weigh(treated, x, how="ipw", target="ate")
    found = weigh(treated, x, how="ipw", target="ate", trim="crump")
    kept = kept_by_score(plain.score, treated, np.ones(300), "ate", "crump")
    assert found.trimmed.tolist() == np.flatnonzero(~kept).tolist()
    assert len(found.trimmed) > 0
    assert found.score[found.trimmed] == pytest.approx(plain.score[found.trimmed], rel=SOLVED)
    again = weigh(treated[kept], x[kept], how="ipw", target="ate")
    assert found.score[kept] == pytest.approx(again.score, rel=SOLVED)  # fitted again on those who are left
    assert (found.population == kept).all()
    assert plain.trimmed.size == 0 and plain.truncated == 0 and plain.cap == np.inf


def test_caps_by_hand() -> None:
    weight, base = np.array([1.0, 4.0, 10.0, 12.0]), np.array([1.0, 1.0, 2.0, 4.0])
    fixed = np.array([True, False, False, False])  # of the others 4, 5 and 3 a unit of base weight
    out, cap, above = capped(weight, base, fixed, 3.5, None)
    assert (out.tolist(), cap, above.tolist()) == ([1.0, 3.5, 7.0, 12.0], 3.5, [False, True, True, False])
    out, cap, above = capped(weight, base, fixed, None, 0.5)
    assert (out.tolist(), cap, above.tolist()) == ([1.0, 4.0, 8.0, 12.0], 4.0, [False, False, True, False])
    out, cap, above = capped(weight, base, fixed, None, None)
    assert (out.tolist(), cap, above.any()) == (weight.tolist(), np.inf, False)
    out, _, above = capped(weight, base, fixed, 0.5, None)
    assert out[0] == 1.0 and not above[0]  # the target's own rows keep their weight


def test_caps_are_counted_and_leave_imbalance() -> None:
    treated, x, _, _ = drawn()
    found = weigh(treated, x, how="entropy", cap_quantile=0.95)
    plain = weigh(treated, x, how="entropy")
    assert found.truncated == int((plain.weight[~treated] > np.quantile(plain.weight[~treated], 0.95)).sum()) > 0
    assert found.weight[~treated].max() == found.cap
    assert plain.imbalance < SOLVED < 0.01 < found.imbalance


def test_folds_keep_persons_together_and_know_no_row_order() -> None:
    rng = np.random.default_rng(0)
    person = rng.integers(0, 120, 500)
    key = hash_ids(3, range(120))[person]
    treated = rng.random(500) < 0.1
    fold = folds_of(key, treated, 4)
    assert all(len(set(fold[person == one])) == 1 for one in np.unique(person))
    ever = np.array([treated[person == one].any() for one in np.unique(person)])
    of_person = np.array([fold[person == one][0] for one in np.unique(person)])
    for group in (ever, ~ever):
        sizes = np.bincount(of_person[group], minlength=4)
        assert sizes.max() - sizes.min() <= 1
    order = rng.permutation(500)
    assert (folds_of(key[order], treated[order], 4) == fold[order]).all()
    assert (folds_of(hash_ids(4, range(120))[person], treated, 4) != fold).any()


def test_lasso_path_against_its_conditions() -> None:
    """At the minimum the gradient is the penalty against the sign, or no larger where the coefficient is zero."""
    treated, x, base, _ = drawn()
    z = naive.standardised(x)
    grid = penalties(z, treated, base)
    path = lasso_path(z, treated, base, grid)
    assert (np.abs(path[0, 1:]) < 1e-9).all()
    assert (path[-1, 1:] != 0).all()
    assert {int((row[1:] != 0).sum()) for row in path} >= {0, 3, 4, 5}
    for penalty, theta in zip(grid, path, strict=True):
        gradient = z.T @ (base * (naive.chance(z, theta) - treated)) / base.sum()
        assert abs(gradient[0]) < SOLVED
        used = theta[1:] != 0
        assert gradient[1:][used] == pytest.approx(-penalty * np.sign(theta[1:][used]), abs=SOLVED)
        assert (np.abs(gradient[1:][~used]) <= penalty + SOLVED).all()


def test_lasso_against_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    treated, x, _, _ = drawn()
    z = naive.standardised(x)
    penalty = penalties(z, treated, np.ones(300))[8]
    machine = linear.LogisticRegression(
        l1_ratio=1.0, solver="saga", C=1 / (300 * penalty), tol=1e-12, max_iter=100_000
    ).fit(z[:, 1:], treated)
    ours = lasso_path(z, treated, np.ones(300), np.array([penalty]))[0]
    assert ours == pytest.approx(np.append(machine.intercept_, machine.coef_[0]), abs=1e-6)


@pytest.mark.parametrize("model", [pytest.param("boosting", marks=pytest.mark.slow), "lasso"])
def test_cross_fitting(model) -> None:
    if model == "boosting":
        pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    person = rng.integers(0, 250, 600)
    x = rng.normal(size=(600, 4))
    treated = rng.random(600) < naive.chance(x, np.array([1.0, -0.5, 0.0, 0.0]))
    key = hash_ids(1, range(250))[person]
    chance = cross_fitted(model, treated, x, np.ones(600), key, 4)
    order = rng.permutation(600)
    again = cross_fitted(model, treated[order], x[order], np.ones(600), key[order], 4)
    assert (again == chance[order]).all()
    assert np.corrcoef(chance, naive.chance(x, np.array([1.0, -0.5, 0.0, 0.0])))[0, 1] > 0.6
    both = next(p for p in range(250) if 0 < treated[person == p].mean() < 1)
    one = person == both  # what a person's own rows say does not enter that person's chance, but that of others
    turned = cross_fitted(model, np.where(one, ~treated, treated), x, np.ones(600), key, 4)
    assert turned[one] == pytest.approx(chance[one], abs=1e-6)
    assert np.abs(turned - chance).max() > 1e-5
    found = weigh(treated, x, how="ipw", model=model, key=key, folds=4)
    assert found.score == pytest.approx(chance, rel=SOLVED)
    assert found.weight[~treated] == pytest.approx((chance / (1 - chance))[~treated], rel=SOLVED)
    assert found.influence is None and found.derivative is None and found.population_derivative is None
    assert found.imbalance < weigh_nothing(treated, x)


def weigh_nothing(treated, x):
    """Largest standardised difference before weighting."""
    gap = x[treated].mean(axis=0) - x[~treated].mean(axis=0)
    return float(np.abs(gap / x[treated].std(axis=0, ddof=1)).max())
