"""Which standard error goes with what, those that are no influence function, and the bootstrap."""

from dataclasses import replace

import numpy as np
import pytest
from naive import outcome as naive
from test_outcome_influence import NOBODY, answer, in_strata, logit_weights, nearest, people
from tolerances import EXACT

from evalkit.effects import Covariance, Influence
from evalkit.errors import DesignError
from evalkit.matching.abadie_imbens import Neighbours, nearest_rows
from evalkit.matching.adjustment import Matching
from evalkit.matching.admissible import ERRORS, KINDS, MODEL_NAMES, admissible, fault, kind_of, se_kind
from evalkit.matching.bootstrap import Bootstrap, by_rows, counts
from evalkit.matching.inference import Score
from evalkit.matching.outcome import estimate

TREATED, Z, X, Y = people(2, n=160)


def once(treated, score):
    """Each match used once, nearest first in row order."""
    free = set(np.flatnonzero(~treated).tolist())
    focal, match = [], []
    for i in np.flatnonzero(treated):
        if free:
            j = min(sorted(free), key=lambda j: abs(score[j] - score[i]))
            free.remove(j)
            focal.append(i)
            match.append(j)
    from evalkit.matching.adjustment import Pairs

    pairs = Pairs(np.array(focal), np.array(match), np.ones(len(focal)), NOBODY, np.inf)
    population, subclass = np.zeros(len(treated)), np.full(len(treated), -1)
    population[focal] = 1
    subclass[focal] = subclass[match] = np.arange(len(focal))
    weight = population.copy()
    weight[match] = 1
    return Matching(treated, "att", population, weight, pairs, subclass, NOBODY, NOBODY)


def example(kind):
    from evalkit.matching.match import match

    weights = logit_weights(TREATED, Z, "att")
    return {
        "replacement": lambda: nearest(TREATED, Z[:, 1]),
        "pairs": lambda: once(TREATED, Z[:, 1]),
        "strata": lambda: in_strata(TREATED, Z, "att")[0],
        "kernel": lambda: match(TREATED, how="kernel", score=Z[:, 1]),
        "weights": lambda: weights,
        "weights_fixed": lambda: replace(weights, derivative=None, influence=None),
    }[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_is_answered_or_refused_with_its_reason(kind):
    adjustment = example(kind)
    assert kind_of(adjustment) == kind
    score = Score.of_logit(Z @ naive.regress(Z, TREATED * 1.0, np.ones(len(Y)), "logit"), Z, TREATED)
    drawn = "resample" if kind == "kernel" else "bayesian"
    redo = Bootstrap(lambda count: resampled(kind, count), draws=50, kind=drawn)
    for model in MODEL_NAMES:
        for errors in ERRORS:
            asked = {"model": model, "errors": errors, "score": score, "bootstrap": redo}
            refused = fault(kind, model, errors)
            if refused is not None:
                with pytest.raises(DesignError) as caught:
                    answer(adjustment, Y, X, **asked)
                assert caught.value.faults[0].code == refused.code
                continue
            mine = answer(adjustment, Y, X, **asked)
            assert np.isfinite(mine.estimate[0]) and 0.02 < np.sqrt(mine.uncertainty.vcov[0, 0]) < 1.5
            assert admissible(adjustment, model, errors) in ("valid", "named")
            expected = Influence if errors in ("influence", "m_estimation") or errors.startswith("HC") else Covariance
            assert isinstance(mine.uncertainty, expected)


def resampled(kind, count):
    """The adjustment of rows that count that often."""
    from evalkit.matching.weighting import weigh

    if kind == "strata":
        matching, stratum = in_strata(TREATED, Z, "att")
        weight, population = naive.stratum_weights(TREATED, stratum, count, "att")
        return replace(matching, weight=weight, population=population)
    if kind == "kernel":
        from evalkit.matching.match import match

        redo = by_rows(lambda rows: match(TREATED[rows], how="kernel", score=Z[rows, 1]))
        return redo(count)
    return weigh(TREATED, Z[:, 1:], how="ipw", target="att", base=count)


def test_the_names_of_standard_errors():
    assert se_kind(example("weights"), "influence") == "m_estimation"
    assert se_kind(example("pairs"), "influence") == "influence"
    assert se_kind(example("weights"), "HC3") == "HC3"
    assert admissible(example("pairs"), "means", "pair_cluster") == "named"
    assert admissible(example("pairs"), "gcomputation", "pair_cluster") == "valid"
    assert admissible(example("pairs"), "bias_corrected", "influence") == "named"
    assert admissible(example("pairs"), "gcomputation", "influence") == "valid"
    assert admissible(example("replacement"), "means", "pair_cluster") == "named"
    assert admissible(example("weights_fixed"), "aipw", "influence") == "named"
    with pytest.raises(DesignError, match="outcome.linear_only"):
        admissible(example("pairs"), "regression", "influence", "logit")


def test_matched_sets_are_clusters_of_one_another():
    """Without replacement, pairs: the standard error of a mean of differences, with its factors by hand."""
    matching = example("pairs")
    mine = answer(matching, Y, X, model="means", errors="pair_cluster")
    apart = Y[matching.pairs.treated] - Y[matching.pairs.control]
    n1 = len(apart)
    by_hand = ((apart - apart.mean()) ** 2).sum() / n1**2 * n1 / (n1 - 1) * (2 * n1 - 1) / (2 * n1 - 2)
    assert mine.estimate[0] == pytest.approx(apart.mean(), abs=EXACT)
    assert mine.uncertainty.vcov[0, 0] == pytest.approx(by_hand, rel=1e-10)


def test_abadie_imbens_of_single_pairs_is_that_of_their_differences():
    matching = example("pairs")
    mine = answer(matching, Y, X, model="means", errors="abadie_imbens")
    apart = Y[matching.pairs.treated] - Y[matching.pairs.control]
    by_hand = ((apart - apart.mean()) ** 2).sum() / len(apart) ** 2
    assert mine.uncertainty.vcov[0, 0] == pytest.approx(by_hand, rel=1e-10)


def test_abadie_imbens_by_hand():
    """Three starters 5, 6, 7; match 1 is used by two and match 4 by one. K^2 - K' = (4 - 2) + 0."""
    from evalkit.matching.adjustment import Pairs

    treated = np.array([True, True, True, False, False])
    y = np.array([5.0, 6.0, 7.0, 1.0, 4.0])
    pairs = Pairs(np.arange(3), np.array([3, 3, 4]), np.ones(3), NOBODY, np.inf)
    matching = Matching(treated, "att", treated * 1.0, np.array([1, 1, 1, 2.0, 1.0]), pairs, None, NOBODY, NOBODY)
    apart = np.array([4.0, 5.0, 3.0])
    mine = answer(matching, y, np.ones((5, 1)), model="means", errors="abadie_imbens")
    squares = ((apart - 4) ** 2).sum()
    assert mine.estimate[0] == 4
    assert mine.uncertainty.vcov[0, 0] == pytest.approx((squares + 2 * squares / 6) / 9, abs=EXACT)
    near = Neighbours(np.array([[0.0], [1], [2], [0], [1]]), 1)
    robust = answer(matching, y, np.ones((5, 1)), model="means", errors="abadie_imbens", neighbours=near)
    assert robust.uncertainty.vcov[0, 0] == pytest.approx((squares + 2 * (1.5**2 * 2)) / 9, abs=EXACT)


def test_months_have_a_common_covariance():
    """Abadie and Imbens by month: the variance of a sum of months is that of the summed outcome."""
    rng = np.random.default_rng(3)
    many = Y[:, None] + rng.normal(size=(len(Y), 3))
    matching = example("replacement")
    place = Neighbours(Z[:, 1:], 2)
    score = Score.of_logit(Z @ naive.regress(Z, TREATED * 1.0, np.ones(len(Y)), "logit"), Z, TREATED)
    for errors in ("abadie_imbens", "abadie_imbens_estimated", "pair_cluster"):
        asked = {"model": "means", "errors": errors, "neighbours": place, "score": score}
        mine = estimate(matching, many, np.ones(many.shape, bool), X, person=np.arange(len(Y)), **asked)
        total = answer(matching, many.sum(axis=1), X, **asked)
        assert mine.uncertainty.vcov.sum() == pytest.approx(total.uncertainty.vcov[0, 0], rel=1e-10)


def test_neighbours_count_ties_and_not_themselves():
    place = np.array([[0.0], [1.0], [-1.0], [5.0]])
    everyone = np.arange(4)
    assert [near.tolist() for near in nearest_rows(place, everyone, np.array([0, 3]), 1, False)] == [[1, 2], [1]]
    assert [near.tolist() for near in nearest_rows(place, everyone, np.array([0, 3]), 2, True)] == [[0, 1, 2], [1, 3]]
    assert [near.tolist() for near in nearest_rows(place, everyone[:2], np.array([0]), 5, False)] == [[1]]


def test_what_needs_independent_rows_and_equal_months():
    matching = example("replacement")
    with pytest.raises(DesignError, match="outcome.rows_not_independent"):
        estimate(
            matching, Y[:, None], np.ones((len(Y), 1), bool), X, model="means", errors="abadie_imbens",
            person=np.arange(len(Y)) // 2,
        )  # fmt: skip
    observed = np.ones((len(Y), 2), bool)
    observed[np.flatnonzero(TREATED)[0], 1] = False
    two = np.column_stack([Y, Y])
    with pytest.raises(DesignError, match="outcome.months_differ"):
        estimate(matching, two, observed, X, model="means", errors="abadie_imbens", person=np.arange(len(Y)))
    with pytest.raises(DesignError, match="outcome.score_missing"):
        answer(matching, Y, X, model="means", errors="abadie_imbens_estimated")


def test_a_regression_without_a_solution():
    """The outcome is whether the covariate is positive: no finite slope."""
    x = np.column_stack([np.ones(len(Y)), Z[:, 1]])
    with pytest.raises(DesignError, match="outcome.separated"):
        answer(example("weights"), (Z[:, 1] > 0) * 1.0, x, model="gcomputation", family="logit")


def test_negative_weights():
    kernel = example("kernel")
    weight = kernel.weight.copy()
    weight[np.flatnonzero(~TREATED)[0]] = -0.05
    odd = replace(kernel, weight=weight)
    with pytest.raises(DesignError, match="outcome.negative_weights"):
        answer(odd, Y, X, model="gcomputation")
    others, ours = weight * ~TREATED, odd.population
    mine = answer(odd, Y, X, model="means")
    assert mine.estimate[0] == pytest.approx(ours @ Y / ours.sum() - others @ Y / others.sum(), abs=EXACT)
    assert np.isfinite(answer(odd, Y, X, model="bias_corrected").estimate[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resample", "poisson", "bayesian"])
def test_the_bootstrap_agrees_with_m_estimation(kind):
    """A hundred and more people, smooth estimator: the two differ by the noise of 600 draws and by small samples."""
    from evalkit.matching.weighting import weigh

    def redo(count):
        return weigh(TREATED, Z[:, 1:], how="ipw", target="att", base=count, account=False)

    if kind != "bayesian":
        redo = by_rows(lambda rows: weigh(TREATED[rows], Z[rows, 1:], how="ipw", target="att", account=False))
    how = Bootstrap(redo, draws=600, seed=4, kind=kind)
    exact = answer(logit_weights(TREATED, Z, "att"), Y, X, model="aipw")
    mine = answer(example("weights"), Y, X, model="aipw", errors="bootstrap", bootstrap=how)
    assert mine.estimate[0] == pytest.approx(exact.estimate[0], abs=1e-8)
    assert np.sqrt(mine.uncertainty.vcov[0, 0] / exact.uncertainty.vcov[0, 0]) == pytest.approx(1, abs=0.12)


def test_copies_of_rows_and_counts_say_the_same():
    """A draw as repeated rows and as base weights gives the same weights, and the same doubly robust estimate."""
    from evalkit.matching.outcome import points
    from evalkit.matching.weighting import weigh

    count = counts(np.random.default_rng(1), len(Y), "resample")
    by_copy = by_rows(lambda rows: weigh(TREATED[rows], Z[rows, 1:], how="ipw", target="att"))(count)
    by_base = weigh(TREATED, Z[:, 1:], how="ipw", target="att", base=count)
    assert np.allclose(by_copy.weight, by_base.weight, atol=1e-8)
    rows = np.repeat(np.arange(len(Y)), count.astype(int))
    copies = weigh(TREATED[rows], Z[rows, 1:], how="ipw", target="att")
    for model in ("means", "gcomputation", "aipw"):
        long = answer(copies, Y[rows], X[rows], model=model).estimate
        short = points(by_copy, count, Y[:, None], np.ones((len(Y), 1), bool), X, model, "linear")
        assert short == pytest.approx(long, abs=1e-8)


def test_the_bootstrap_is_seeded_and_draws_clusters():
    def redo(count):
        assert (count.reshape(-1, 4) == count.reshape(-1, 4)[:, :1]).all()  # a person's rows go together
        return resampled("strata", count)

    how = Bootstrap(redo, draws=60, seed=1, kind="bayesian")
    asked = {"model": "means", "errors": "bootstrap", "person": np.arange(len(Y)) // 4}
    one = np.ones((len(Y), 1), bool)
    first, again = (estimate(example("strata"), Y[:, None], one, X, bootstrap=how, **asked) for _ in range(2))
    assert first.uncertainty.vcov == again.uncertainty.vcov
    other = estimate(example("strata"), Y[:, None], one, X, bootstrap=replace(how, seed=2), **asked)
    assert other.uncertainty.vcov != first.uncertainty.vcov


def test_a_bootstrap_that_fails_says_so():
    def redo(count):
        raise DesignError([])

    for how, code in (
        (None, "bootstrap_undefined"),
        (Bootstrap(redo, draws=10), "bootstrap_draws"),
        (Bootstrap(redo, draws=60), "bootstrap_fails"),
    ):
        with pytest.raises(DesignError, match=f"outcome.{code}"):
            answer(example("weights"), Y, X, model="means", errors="bootstrap", bootstrap=how)
