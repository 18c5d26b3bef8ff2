"""Every influence function against the derivative of its estimator to how often a row stands in the data."""

import numpy as np
import pytest
from naive import outcome as naive

from evalkit.matching.adjustment import Matching, Pairs, Weights
from evalkit.matching.inference import Score
from evalkit.matching.outcome import estimate

NOBODY = np.array([], np.int64)
NUMERIC = 2e-9
"""Of a derivative by fourth-order differences with step 1e-4, relative to the largest contribution."""


def people(seed=1, n=70, kind="linear"):
    rng = np.random.default_rng(seed)
    z = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    treated = rng.random(n) < 1 / (1 + np.exp(0.4 - 0.5 * z[:, 1]))
    index = 0.3 + 0.5 * z[:, 1] - 0.4 * z[:, 2] + treated * (0.5 + 0.6 * z[:, 1])
    if kind == "logit":
        y = (rng.random(n) < 1 / (1 + np.exp(-index))).astype(float)
    elif kind == "poisson":
        y = rng.poisson(np.exp(0.5 * index)).astype(float)
    else:
        y = index + 0.7 * z[:, 1] ** 2 + rng.normal(size=n)
    x = np.column_stack([z[:, :2], z[:, 1] * z[:, 2]])
    return treated, z, x, y


def logit_weights(treated, z, target):
    """Weights by hand, with derivatives and influence worked out here."""
    theta = naive.regress(z, treated.astype(float), np.ones(len(z)), "logit")
    e = naive.mean_of(z @ theta, "logit")
    slope = (e * (1 - e))[:, None] * z
    influence = (z * (treated - e)[:, None]) @ np.linalg.inv(z.T @ slope)
    one, n = treated[:, None], len(e)
    population_derivative = None
    if target == "att":
        derivative, population = np.where(one, 0, slope / (1 - e[:, None]) ** 2), treated.astype(float)
    elif target == "atc":
        derivative, population = np.where(one, -slope / e[:, None] ** 2, 0), (~treated).astype(float)
    elif target == "ate":
        derivative = np.where(one, -slope / e[:, None] ** 2, slope / (1 - e[:, None]) ** 2)
        population = np.ones(n)
    else:
        derivative, population = np.where(one, -slope, slope), e * (1 - e)
        population_derivative = (1 - 2 * e)[:, None] * slope
    weight, _ = naive.chance_weights(treated, z, np.ones(n), target)
    return Weights(treated, target, population, weight, e, derivative, influence, population_derivative)


def answer(adjustment, y, x, **asked):
    return estimate(adjustment, y[:, None], np.ones((len(y), 1), bool), x, person=np.arange(len(y)), **asked)


def agree(mine, twin):
    assert np.abs(mine - twin).max() <= NUMERIC * np.abs(twin).max() * 10


CASES = [(m, "linear") for m in ("means", "regression", "gcomputation", "aipw")]
CASES += [(m, f) for m in ("gcomputation", "aipw") for f in ("logit", "poisson")]


@pytest.mark.parametrize("target", ["att", "atc", "ate", "ato"])
@pytest.mark.parametrize(("model", "family"), CASES)
def test_weights_from_a_logit(model, family, target):
    treated, z, x, y = people(kind=family)

    def estimator(f):
        w, g = naive.chance_weights(treated, z, f, target)
        return naive.effect(model, treated, x, y, w, g, f, family)

    mine = answer(logit_weights(treated, z, target), y, x, model=model, family=family)
    assert mine.estimate[0] == pytest.approx(estimator(np.ones(len(y))), abs=1e-10)
    agree(mine.uncertainty.values[:, 0], naive.jackknife(estimator, len(y)))


@pytest.mark.parametrize("model", ["means", "regression", "gcomputation", "aipw"])
def test_entropy_balancing_and_its_targets(model):
    """The means of the treated are estimated too: a row of the treated moves the weights of the others."""
    treated, z, x, y = people(3)
    weight, _ = naive.balancing_weights(treated, z, np.ones(len(y)))
    others = np.where(treated, 0, weight)
    information = (z * others[:, None]).T @ z
    influence = (z * (treated - others)[:, None]) @ np.linalg.inv(information)
    weights = Weights(treated, "att", treated * 1.0, weight, None, others[:, None] * z, influence)

    def estimator(f):
        w, g = naive.balancing_weights(treated, z, f)
        return naive.effect(model, treated, x, y, w, g, f)

    mine = answer(weights, y, x, model=model)
    assert mine.estimate[0] == pytest.approx(estimator(np.ones(len(y))), abs=1e-10)
    agree(mine.uncertainty.values[:, 0], naive.jackknife(estimator, len(y)))


def in_strata(treated, z, target):
    stratum = (z[:, 1] > 0).astype(np.int64) * 2 + (z[:, 2] > 0.2)
    weight, population = naive.stratum_weights(treated, stratum, np.ones(len(z)), target)
    return Matching(treated, target, population, weight, None, stratum, NOBODY, NOBODY), stratum


@pytest.mark.parametrize("target", ["att", "atc", "ate"])
@pytest.mark.parametrize("model", ["means", "gcomputation", "aipw"])
def test_strata(model, target):
    """Counting the strata anew, up to the factors for small samples, which are undone here."""
    treated, z, x, y = people(5, n=110)
    matching, stratum = in_strata(treated, z, target)

    def estimator(f):
        w, g = naive.stratum_weights(treated, stratum, f, target)
        return naive.effect(model, treated, x, y, w, g, f)

    from evalkit.matching import inference
    from evalkit.matching.models import MODELS
    from evalkit.matching.part import whole

    part = whole(matching)
    found = MODELS[model](part, x, y[:, None], "linear")
    own, other, _ = inference._expected(part, found, x, None)
    psi = part.population[:, None] * (found.by_population + found.by_weight + other)
    psi = psi + part.matches[:, None] * (found.by_weight - own)
    psi = psi + (0 if found.by_count is None else found.by_count)
    twin = naive.jackknife(estimator, len(y))
    agree(psi[:, 0], twin)
    mine = answer(matching, y, x, model=model)
    assert mine.estimate[0] == pytest.approx(estimator(np.ones(len(y))), abs=1e-10)
    ratio = np.sqrt(mine.uncertainty.vcov[0, 0] / (twin @ twin))
    assert 1.0 < ratio < 1.1


def test_means_in_strata_with_their_factors():
    """psi = D (Y - mean_0s - tau) / sqrt(1 - 1/N1) - (1 - D) K (Y - mean_0s) / sqrt(1 - 1/n0s), over N1, by hand."""
    treated, z, x, y = people(5, n=110)
    matching, stratum = in_strata(treated, z, "att")
    mine = answer(matching, y, x, model="means")
    n1 = treated.sum()
    expected = np.zeros(len(y))
    for s in np.unique(stratum):
        others = (stratum == s) & ~treated
        mean, n0, ours = y[others].mean(), others.sum(), (stratum == s) & treated
        expected[ours] = (y[ours] - mean - mine.estimate[0]) / n1 / np.sqrt(1 - 1 / n1)
        expected[others] = -(ours.sum() / n0) * (y[others] - mean) / n1 / np.sqrt(1 - 1 / n0)
    assert np.allclose(mine.uncertainty.values[:, 0], expected, atol=1e-12)


def test_a_stratum_with_one_other_row_borrows_the_regression():
    """Its residual would be zero and its noise would not be counted."""
    treated, z, x, y = people(5, n=110)
    stratum = (z[:, 1] > 0).astype(np.int64)
    lonely = np.flatnonzero(~treated)[0]
    company = np.flatnonzero(treated)[:8]
    stratum[lonely] = stratum[company] = 9
    weight, population = naive.stratum_weights(treated, stratum, np.ones(len(y)), "att")
    matching = Matching(treated, "att", population, weight, None, stratum, NOBODY, NOBODY)
    mine = answer(matching, y, x, model="means")
    assert abs(mine.uncertainty.values[lonely, 0]) > 0.01
    larger = y.copy()
    larger[lonely] += 10
    moved = answer(matching, larger, x, model="means")
    assert moved.uncertainty.vcov[0, 0] > mine.uncertainty.vcov[0, 0]


def nearest(treated, score, ratio=2):
    focal, match = [], []
    pool = np.flatnonzero(~treated)
    for i in np.flatnonzero(treated):
        near = pool[np.argsort(np.abs(score[pool] - score[i]), kind="stable")[:ratio]]
        focal += [i] * ratio
        match += near.tolist()
    pairs = Pairs(np.array(focal), np.array(match), np.full(len(focal), 1 / ratio), NOBODY, np.inf)
    weight = treated + np.bincount(pairs.control, pairs.weight, minlength=len(score))
    return Matching(treated, "att", treated * 1.0, weight, pairs, None, NOBODY, NOBODY)


def test_matched_means_on_an_estimated_score():
    """Known and estimated score, against plain loops."""
    treated, z, x, y = people(8, n=200)
    theta = naive.regress(z, treated.astype(float), np.ones(len(y)), "logit")
    score = Score.of_logit(z @ theta, z, treated)
    matching = nearest(treated, score.linear)
    chance = naive.mean_of(score.linear, "logit")
    tau, psi, t = naive.matched_means(
        matching.pairs.treated.tolist(), matching.pairs.control.tolist(), matching.pairs.weight.tolist(), y,
        score.linear, z, chance,
    )  # fmt: skip
    known = answer(matching, y, x, model="means", score=Score(score.linear))
    assert known.estimate[0] == pytest.approx(tau, abs=1e-12)
    assert np.allclose(known.uncertainty.values[:, 0], psi, atol=1e-12)
    estimated = answer(matching, y, x, model="means", score=score)
    information = (z * (chance * (1 - chance))[:, None]).T @ z
    influence = (z * (treated - chance)[:, None]) @ np.linalg.inv(information)
    assert np.allclose(estimated.uncertainty.values[:, 0], psi + influence @ t, atol=1e-12)
    assert np.abs(influence @ t).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("target", ["att", "atc", "ate"])
def test_what_the_estimated_score_costs(target):
    """t against its limit in closed form (Abadie and Imbens 2016), and for the treated against finite differences.

    With X normal, cov(X, mu_d | score) = b_d - a (a'b_d) / (a'a), a the slopes of the score and b_d those of mu_d.
    """
    from evalkit.matching.inference import matching_influence
    from evalkit.matching.match import match
    from evalkit.matching.models import means
    from evalkit.matching.part import whole

    rng = np.random.default_rng(4)
    n, h = 12_000, 0.1
    z = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    theta = np.array([-0.3, 0.6, -0.4])
    slopes = np.array([[1.0, 1.5], [1.0, 2.5]])
    chance = naive.mean_of(z @ theta, "logit")
    treated = rng.random(n) < chance
    y = np.where(treated, z[:, 1:] @ slopes[1], z[:, 1:] @ slopes[0]) + 0.3 * rng.normal(size=n)

    def matched(linear):
        return match(treated, how="nearest", target=target, score=linear, ratio=10, replace=True)

    part = whole(matched(z @ theta))
    found = means(part, z[part.rows, :1], y[part.rows, None], "linear")
    _, t = matching_influence(part, found, z[part.rows, :1], Score(z @ theta, z, np.zeros((n, 3))))
    a = theta[1:]
    cov = [b - a * (a @ b) / (a @ a) for b in slopes]
    limit = {"att": -cov[0], "atc": -cov[1], "ate": -(1 - chance.mean()) * cov[1] - chance.mean() * cov[0]}[target]
    assert np.allclose(t[1:, 0], limit, rtol=0.06)
    if target == "att":
        sides = []
        for sign in (1, -1):
            moved = theta + sign * h * np.array([0, 0, 1])
            sides.append(answer(matched(z @ moved), y, z[:, :1], model="means").estimate[0])
        assert t[2, 0] == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=0.15)


def test_bias_correction_for_all_joins_both_directions():
    """ate = [N1 att + N0 atc] / N, each with the regression among its own matches."""
    treated, z, x, y = people(9, n=200)
    score = z[:, 1]
    one, other = nearest(treated, score), nearest(~treated, score)
    both = Pairs(
        np.concatenate([one.pairs.treated, other.pairs.treated]),
        np.concatenate([one.pairs.control, other.pairs.control]),
        np.concatenate([one.pairs.weight, other.pairs.weight]),
        NOBODY,
        np.inf,
    )
    weight = one.weight + other.weight
    n = len(y)
    ate = answer(Matching(treated, "ate", np.ones(n), weight, both, None, NOBODY, NOBODY), y, x, model="bias_corrected")
    att = answer(one, y, x, model="bias_corrected")
    atc = answer(
        Matching(treated, "atc", (~treated) * 1.0, other.weight, other.pairs, None, NOBODY, NOBODY), y, x,
        model="bias_corrected",
    )  # fmt: skip
    n1 = treated.sum()
    assert ate.estimate[0] == pytest.approx((n1 * att.estimate[0] + (n - n1) * atc.estimate[0]) / n, abs=1e-12)
    assert 0 < ate.uncertainty.vcov[0, 0] < att.uncertainty.vcov[0, 0] + atc.uncertainty.vcov[0, 0]


@pytest.mark.parametrize("model", ["regression", "gcomputation", "aipw"])
def test_regressions_on_matches_without_a_score(model):
    """Match weights taken as they are, each residual with the factor of its leverage; all by hand."""
    treated, z, x, y = people(11, n=160)
    matching = nearest(treated, z[:, 1])
    w, g = matching.weight, matching.population
    used = w > 0

    def estimator(f):
        return naive.effect(model, treated[used], x[used], y[used], (w * f)[used], (g * f)[used], f[used])

    mine = answer(matching, y, x, model=model)
    assert mine.estimate[0] == pytest.approx(estimator(np.ones(len(y))), abs=1e-10)
    plain = naive.jackknife(estimator, len(y))
    n1 = treated.sum()
    expected = plain.copy()
    if model == "regression":
        hat = np.column_stack([treated, x])[used] * np.sqrt(w[used])[:, None]
        leverage = np.zeros(len(y))
        leverage[used] = np.diag(hat @ np.linalg.pinv(hat.T @ hat) @ hat.T)
        expected[treated] = (plain[treated] - plain[treated].mean()) / np.sqrt(1 - 1 / n1)
        expected[~treated] /= np.sqrt(1 - leverage[~treated])
    elif model == "gcomputation":
        others = used & ~treated
        hat = x[others] * np.sqrt(w[others])[:, None]
        expected[treated] /= np.sqrt(1 - 1 / n1)
        expected[others] /= np.sqrt(1 - np.diag(hat @ np.linalg.pinv(hat.T @ hat) @ hat.T))
    else:
        agree(mine.uncertainty.values[~treated, 0], plain[~treated])
        return
    agree(mine.uncertainty.values[:, 0], expected)
