"""Kernel, radius and ridge matching against double loops and known properties."""

import numpy as np
import pytest
from naive import matching_engine as naive
from tolerances import SOLVED

from evalkit.errors import DesignError
from evalkit.hashing import hash_ids
from evalkit.kernels.smooth import KERNELS
from evalkit.matching.match import match

RNG = np.random.default_rng


def drawn(seed, n=60):
    rng = RNG(seed)
    treated = rng.permutation(np.arange(n) < n // 3)
    score = np.round(rng.normal(treated * 0.5, 1.0), 1 if seed % 2 else 6)
    return treated, score, {"exact": rng.integers(0, 2, n), "person": rng.integers(0, n // 2, n)} if seed % 3 else {}


@pytest.mark.parametrize("how", ["kernel", "radius", "ridge"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_are_those_of_loops(how, kernel):
    for seed in range(8):
        treated, score, rules = drawn(seed)
        width = (0.3, 1.1)[seed % 2] + 1e-4
        target = ("att", "atc", "ate")[seed % 3]
        made = match(treated, how=how, target=target, score=score, kernel=kernel, bandwidth=width, ridge=0.4, **rules)
        weight, outside = naive.smooth(
            treated.tolist(), score.tolist(), target, kernel, width, 0.4 if how == "ridge" else None,
            np.asarray(rules.get("exact", np.zeros(60))).tolist(), np.asarray(rules.get("person", range(60))).tolist(),
        )  # fmt: skip
        assert made.weight == pytest.approx(weight, abs=SOLVED)
        assert made.outside.tolist() == outside
        assert made.weight.sum() == pytest.approx(2 * made.population.sum())
        assert made.pairs is None and made.subclass is None and made.width == width


def test_kernels_integrate_to_one():
    u = np.linspace(-8, 8, 160_001)
    for kernel in KERNELS:
        area = sum(naive.height(kernel, v) for v in u) * (u[1] - u[0])
        assert area == pytest.approx(1.0, abs=1e-4), kernel


def test_uniform_kernel_is_the_radius():
    treated, score, _ = drawn(4)
    one = match(treated, how="radius", score=score, bandwidth=0.5)
    other = match(treated, how="kernel", kernel="uniform", score=score, bandwidth=0.5)
    assert np.array_equal(one.weight, other.weight)


def test_local_line_reproduces_a_line():
    """Without ridge a straight line is predicted without error; with ridge, and by a local mean, it is not."""
    treated, score, _ = drawn(2, 200)
    gap = {}
    for how, ridge in (("ridge", 0.0), ("ridge", None), ("kernel", None)):
        made = match(treated, how=how, score=score, bandwidth=1.0, ridge=ridge)
        gap[how, ridge] = abs(made.weight[treated] @ score[treated] - made.weight[~treated] @ score[~treated])
    assert gap["ridge", 0.0] < SOLVED < gap["ridge", None] < gap["kernel", None]


def test_ridge_by_hand():
    """Two neighbours at 0 and 1, row at 0.25, h = 2: the formula written out."""
    treated = np.array([1, 0, 0], bool)
    made = match(treated, how="ridge", score=np.array([0.25, 0.0, 1.0]), bandwidth=2.0)
    k = 0.75 * (1 - np.array([0.125, 0.375]) ** 2)
    s = np.array([0.0, 1.0])
    c = (k @ s) / k.sum()
    slope = (0.25 - c) / (k @ (s - c) ** 2 + 5 / 16 * 2.0 * abs(0.25 - c))
    assert made.weight[1:] == pytest.approx(k / k.sum() + k * (s - c) * slope)
    assert made.weight[1:].sum() == pytest.approx(1.0)


def test_ridge_weights_may_be_negative():
    treated = np.array([1, 0, 0, 0], bool)
    made = match(treated, how="ridge", score=np.array([0.0, 0.1, 0.2, 0.9]), bandwidth=1.0, ridge=0.0)
    assert made.weight.min() < 0


def test_one_score_nearby_makes_no_line():
    treated = np.array([1, 0, 0, 0], bool)
    made = match(treated, how="ridge", score=np.array([0.1, 0.3, 0.3, 0.3]), bandwidth=1.0, ridge=0.0)
    assert made.weight == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])


def test_bandwidth_rules():
    treated = np.array([1] * 10 + [0] * 10, bool)
    gaps = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]) / 100
    score = np.concatenate([np.arange(10.0), np.arange(10) + gaps])
    distances = gaps[gaps > 0]
    rule = match(treated, how="kernel", score=score).width
    assert rule == pytest.approx(1.5 * np.quantile(distances, 0.9))
    assert match(treated, how="radius", score=score, bandwidth="widest").width == pytest.approx(0.12)
    swapped = match(~treated, how="kernel", score=score, target="atc").width
    assert swapped == pytest.approx(rule)


def test_cross_validation_is_the_least_error_left_out():
    rng = RNG(6)
    treated = rng.random(150) < 0.3
    score = rng.normal(size=150)
    values = np.sin(3 * score) + 0.2 * rng.normal(size=150)
    key = hash_ids(1, map(str, range(150)))
    chosen = match(treated, how="kernel", score=score, bandwidth="cv", bandwidth_values=values, key=key).width
    pair = match(treated, how="kernel", score=score, key=key).width
    pool = np.flatnonzero(~treated)
    errors = {}
    for h in np.geomspace(0.5 * pair, score.std(ddof=1), 20):
        error = 0.0
        for i in pool:
            k = [naive.height("epanechnikov", (score[j] - score[i]) / h) if j != i else 0.0 for j in pool]
            fitted = np.dot(k, values[pool]) / sum(k) if sum(k) else values[pool].mean()
            error += (values[i] - fitted) ** 2
        errors[h] = error
    best = min(errors, key=lambda h: errors[h])
    assert chosen == pytest.approx(best)
    assert list(errors).index(best) not in (0, 19)


def test_what_is_refused():
    treated, score, _ = drawn(1)

    def code(**options):
        with pytest.raises(DesignError) as error:
            match(**{"treated": treated, "how": "kernel", "score": score} | options)
        return error.value.faults[0].code

    assert code(score=None) == "design.match_needs_score"
    assert code(bandwidth=0.0) == "design.match_bandwidth"
    assert code(bandwidth="best") == "design.match_bandwidth"
    assert code(bandwidth="cv") == "design.match_bandwidth_values"
    assert code(kernel="square") == "design.match_kernel"
    assert code(how="ridge", kernel="uniform") == "design.match_ridge"
    assert code(how="ridge", ridge=-1.0) == "design.match_ridge"
    assert code(caliper=0.2) == "design.match_option"
    assert code(score=np.where(treated, 0.0, 5.0), bandwidth=0.5) == "design.nobody_matched"
