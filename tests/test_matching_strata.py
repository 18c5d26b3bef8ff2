"""Strata by hand and against loops."""

import numpy as np
import pytest

from evalkit.errors import DesignError
from evalkit.matching.match import match
from evalkit.matching.strata import cells, coarsen, score_classes

RNG = np.random.default_rng


def test_weights_by_hand():
    """Stratum a: 1 treated, 2 others; b: 2 and 1; c: treated only; d: others only."""
    treated = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    stratum = np.array(list("aaabbbcd"))
    att = match(treated, how="exact", exact=stratum)
    assert att.weight.tolist() == [1, 0.5, 0.5, 1, 1, 2, 0, 0]
    assert att.population.tolist() == [1, 0, 0, 1, 1, 0, 0, 0]
    assert att.subclass.tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
    assert att.outside.tolist() == [6]
    atc = match(treated, how="exact", exact=stratum, target="atc")
    assert atc.weight.tolist() == [2, 1, 1, 0.5, 0.5, 1, 0, 0]
    assert atc.outside.tolist() == [7]
    ate = match(treated, how="exact", exact=stratum, target="ate")
    assert ate.weight.tolist() == [3, 1.5, 1.5, 1.5, 1.5, 3, 0, 0]
    assert ate.population.sum() == 6
    assert ate.outside.tolist() == [6, 7]
    assert att.scaled_weight.tolist() == [1, 0.5, 0.5, 1, 1, 2, 0, 0]


@pytest.mark.parametrize("target", ["att", "atc", "ate"])
def test_weighted_means_are_those_of_strata(target):
    """The weighted difference is the mean of stratum differences over the target population."""
    rng = RNG(2)
    n = 500
    treated, codes, y = rng.random(n) < 0.3, rng.integers(0, 9, (n, 2)), rng.normal(size=n)
    made = match(treated, how="exact", exact=codes, target=target)
    total, people = 0.0, 0
    for a in range(9):
        for b in range(9):
            rows = (codes == (a, b)).all(axis=1)
            one, other = y[rows & treated], y[rows & ~treated]
            if len(one) and len(other):
                size = {"att": len(one), "atc": len(other), "ate": len(one) + len(other)}[target]
                total += size * (one.mean() - other.mean())
                people += size
    w = made.weight
    difference = np.average(y[treated], weights=w[treated]) - np.average(y[~treated], weights=w[~treated])
    assert difference == pytest.approx(total / people)
    assert made.population.sum() == people
    assert w[treated].sum() == pytest.approx(people) == pytest.approx(w[~treated].sum())


def test_cells_tell_rows_apart():
    codes = np.array([[1, 2], [1, 3], [2, 2], [1, 2]])
    assert cells(codes).tolist() == [0, 1, 2, 0]
    assert cells(["b", "a", "b"]).tolist() == [1, 0, 1]


def test_coarsening_by_hand():
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 10.0])
    assert coarsen(x, 2).tolist() == [0, 0, 0, 0, 0, 1]
    assert coarsen(x, 5).tolist() == [0, 0, 1, 1, 2, 4]  # a bin holds its lower limit, the last its upper one too
    assert coarsen(x, [2.0, 4.0]).tolist() == [0, 0, 1, 1, 2, 2]
    assert coarsen(x, "q2").tolist() == [0, 0, 0, 1, 1, 1]
    assert coarsen(x, None).tolist() == [0, 1, 2, 3, 4, 5]
    assert coarsen(x, 0).tolist() == [0, 1, 2, 3, 4, 5]
    assert coarsen(np.ones(4)).tolist() == [0, 0, 0, 0]
    wide = np.linspace(0, 1, 100)
    assert coarsen(wide).max() + 1 == 8  # ceil(log2 100 + 1)
    assert coarsen(wide, "scott").max() + 1 == np.ceil(1 / (3.5 * wide.std(ddof=1) * 100 ** (-1 / 3)))
    assert coarsen(wide, "fd").max() + 1 == np.ceil(1 / (2 * 0.5 * 100 ** (-1 / 3)))


def test_cem_is_exact_on_bins_and_columns():
    rng = RNG(4)
    treated = rng.random(200) < 0.4
    x, sex = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    one = match(treated, how="cem", covariates=x, cutpoints=[3, "q4"], exact=sex)
    other = match(treated, how="exact", exact=np.column_stack([coarsen(x[:, 0], 3), coarsen(x[:, 1], "q4"), sex]))
    assert np.array_equal(one.weight, other.weight)


def test_classes_by_hand():
    score = np.arange(12.0)
    treated = np.arange(12) >= 6
    key = np.arange(12).astype(np.uint64)
    # median of the treated is 8.5
    assert score_classes(treated, score, "att", 2, 0, key).tolist() == [0] * 9 + [1] * 3
    # the upper class lacks others: the highest of them moves up
    assert score_classes(treated, score, "att", 2, 1, key).tolist() == [0] * 5 + [1] + [0] * 3 + [1] * 3
    assert score_classes(treated, score, "att", 2, 2, key).tolist() == [0] * 4 + [1] * 2 + [0] * 3 + [1] * 3
    assert score_classes(treated, score, "ate", (0.25, 0.5, 0.75), 0, key).tolist() == sorted([0, 1, 2, 3] * 3)
    with pytest.raises(DesignError):
        score_classes(treated, score, "att", 2, 4, key)


def test_classes_within_exact_strata():
    rng = RNG(9)
    treated, score, sex = rng.random(300) < 0.4, rng.random(300), rng.integers(0, 2, 300)
    made = match(treated, how="subclass", score=score, subclasses=3, exact=sex)
    for code in range(made.subclass.max() + 1):
        assert len(set(sex[made.subclass == code])) == 1
