"""The design that is never expanded, written out and compared with one that is."""

import numpy as np
import pandas as pd
import pytest

from evalkit.design import Design, cut_factor, factor, integer_factor
from evalkit.errors import DesignError
from evalkit.kernels.logit import linear_predictor
from evalkit.matching.support import common_levels


def example(rng, units=7, n=40):
    index = rng.integers(0, units, n).astype(np.int32)
    sex = rng.choice(["m", "v"], units)
    education = rng.choice(["low", "middle", "high"], units)
    household = rng.choice(["single", "couple", "parent"], n)
    quarter = rng.integers(-1, 3, n)
    design = Design(
        index,
        rng.normal(size=(units, 2)),
        ("distance", "income"),
        rng.normal(size=(n, 1)),
        ("age",),
        (factor("sex", sex), factor("education", education)),
        (factor("household", household),),
        (integer_factor("quarter", quarter),),
    )
    rows = {"sex": sex[index], "education": education[index], "household": household, "quarter": quarter}
    frame = pd.DataFrame(rows)
    return design, frame


def test_matrix_is_pandas_dummies():
    design, frame = example(np.random.default_rng(1))
    dummies = pd.get_dummies(frame, columns=["sex", "education", "household", "quarter"], drop_first=True, dtype=float)
    numbers = np.column_stack([np.ones(len(frame)), design.numeric[design.index], design.own_numeric])
    assert np.array_equal(design.matrix(), np.column_stack([numbers, dummies]))
    names = [c.replace("_", ":") for c in dummies.columns]
    assert design.names == ("intercept", "distance", "income", "age", *names)


def test_parameter_codes_point_at_the_same_columns():
    rng = np.random.default_rng(2)
    design, _ = example(rng)
    theta = rng.normal(size=len(design.names))
    shared, own = design.parameter_codes()
    got = linear_predictor(design.index, design.numeric, design.own_numeric, shared, own, theta)
    assert np.allclose(got, design.matrix() @ theta, atol=1e-12)


def test_take_and_without_time():
    design, _ = example(np.random.default_rng(3))
    rows = np.array([5, 2, 2, 30])
    assert np.array_equal(design.matrix(rows), design.matrix()[rows])
    assert np.array_equal(design.take(rows).matrix(), design.matrix()[rows])
    short = design.without_time()
    assert short.names == design.names[: len(short.names)] == design.names[:-3]
    assert np.array_equal(short.matrix(), design.matrix()[:, : len(short.names)])


def test_missing_is_a_level_of_its_own():
    made = factor("education", ["low", None, float("nan"), "high"])
    assert made.levels == ("high", "low", "missing")
    assert made.codes.tolist() == [1, 2, 2, 0]
    assert integer_factor("q", np.array([10, -1, 2])).levels == ("-1", "2", "10")


def test_cuts_include_their_lower_bound_and_name_what_occurs():
    made = cut_factor("age", np.array([29.9, 30.0, 49.0, 50.0, np.nan]), (50, 30))
    assert made.levels == ("<30", "30 - <50", ">=50", "missing")
    assert made.codes.tolist() == [0, 1, 1, 2, 3]
    assert cut_factor("age", np.array([60.0, 20.0]), (30, 50)).levels == ("<30", ">=50")
    assert cut_factor("age", np.array([60.0]), ()).levels == ("all",)


def test_sizes_that_do_not_fit_are_refused():
    one = np.zeros(3, np.int32)
    none = np.empty((3, 0))
    with pytest.raises(ValueError, match="own_numeric"):
        Design(one, none, (), np.empty((2, 1)), ("age",), ())
    with pytest.raises(ValueError, match="names"):
        Design(one, none, ("x",), none, (), ())
    with pytest.raises(ValueError, match="factor"):
        Design(one, np.empty((1, 0)), (), none, (), (factor("sex", ["m", "v"]),))


def test_levels_of_one_arm_fall_out_until_none_is_left():
    """Leaving out the only one with ``b`` empties the treated side of ``y``, whose rows must go too."""
    first = factor("first", ["a", "a", "a", "b", "a"])
    second = factor("second", ["x", "x", "y", "y", "x"])
    treated = np.array([True, False, False, True, True])
    none = np.empty((5, 0))
    varying = np.array([[1.0, 3.0], [1.0, 4.0], [2.0, 5.0], [2.0, 6.0], [1.0, 7.0]])
    design = Design(np.arange(5, dtype=np.int32), varying, ("same", "other"), none, (), (first, second))
    shared = common_levels(design, treated)
    assert shared.rows is not None and shared.rows.tolist() == [0, 1, 4]
    assert set(shared.dropped) == {"first:b", "second:y"}
    assert shared.design.names == ("intercept", "other")  # what no longer varies is gone
    assert np.array_equal(shared.design.matrix()[:, 1], [3.0, 4.0, 7.0])


def test_full_support_keeps_every_row():
    design, _ = example(np.random.default_rng(4), units=40, n=400)
    shared = common_levels(design, np.arange(400) % 2 == 0)
    assert shared.rows is None and shared.dropped == ()
    assert shared.design.names == design.names


@pytest.mark.parametrize(
    ("treated", "levels", "code"),
    [
        ([False] * 4, "aabb", "design.no_treated"),
        ([True] * 4, "aabb", "design.no_controls"),
        ([True, True, False, False], "aabb", "design.no_common_support"),
    ],
)
def test_empty_arms_and_no_overlap_are_faults(treated, levels, code):
    none = np.empty((4, 0))
    design = Design(np.arange(4, dtype=np.int32), none, (), none, (), (factor("f", list(levels)),))
    with pytest.raises(DesignError) as caught:
        common_levels(design, np.array(treated))
    assert caught.value.faults[0].code == code
