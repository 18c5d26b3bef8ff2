"""The logit and the nearest-neighbour search against other programs and slow twins."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from matched import nearest as match_nearest
from naive import matching as naive

from evalkit.design import Design, factor, integer_factor
from evalkit.errors import DesignError
from evalkit.kernels.logit import score_and_information
from evalkit.matching import Candidates, fit_logit

REFERENCE = Path(__file__).parent / "reference"
RNG = np.random.default_rng


def plain(numeric, names, *factors):
    """A design with one row a unit."""
    n = len(numeric)
    return Design(np.arange(n, dtype=np.int32), np.asarray(numeric, float), names, np.empty((n, 0)), (), factors)


def risk_sets(rng, units=300, n=4000):
    """Rows that share units, with numbers and factors of both kinds."""
    index = rng.integers(0, units, n).astype(np.int32)
    design = Design(
        index,
        np.column_stack([rng.gamma(2, 1, units), rng.normal(2e4, 8e3, units)]),
        ("distance", "income"),
        rng.uniform(20, 64, (n, 1)),
        ("age",),
        (factor("sex", rng.choice(["m", "v"], units)), factor("education", rng.choice(["a", "b", "c"], units))),
        (integer_factor("elapsed", rng.integers(0, 8, n)), integer_factor("quarter", rng.integers(180, 184, n))),
    )
    x = design.matrix()
    linear = -2 + 0.4 * x[:, 1] - 2e-5 * x[:, 2] - 0.02 * (x[:, 3] - 40) + 0.3 * x[:, 4] - 0.1 * x[:, 9]
    return design, rng.random(n) < 1 / (1 + np.exp(-linear))


@pytest.mark.parametrize("seed", range(3))
def test_logit_is_statsmodels(seed):
    design, y = risk_sets(RNG(seed))
    mine = fit_logit(design, y)
    x = design.matrix()
    theirs = sm.Logit(y.astype(float), x).fit(method="newton", tol=1e-13, maxiter=100, disp=0)
    se = theirs.bse
    assert np.abs((mine.coefficients - theirs.params) / se).max() < 1e-8
    assert np.abs(mine.std_error / se - 1).max() < 1e-8
    assert np.abs(mine.vcov - theirs.cov_params()).max() < 1e-8 * np.abs(mine.vcov).max()
    assert mine.loglik == pytest.approx(theirs.llf, rel=1e-12)
    assert np.abs(mine.score - x @ theirs.params).max() < 1e-8
    assert mine.names == design.names


def test_score_and_information_are_the_dense_ones():
    design, y = risk_sets(RNG(9), units=20, n=150)
    shared, own = design.parameter_codes()
    x = design.matrix()
    theta = RNG(1).normal(size=x.shape[1]) * np.where(np.abs(x).max(axis=0) > 100, 1e-5, 0.05)
    value, score, information = score_and_information(
        design.index, design.numeric, design.own_numeric, shared, own, y, theta
    )
    p = 1 / (1 + np.exp(-x @ theta))
    assert value == pytest.approx(np.log(np.where(y, p, 1 - p)).sum(), rel=1e-12)
    assert np.allclose(score, x.T @ (y - p), rtol=1e-10)
    assert np.allclose(information, (x * (p * (1 - p))[:, None]).T @ x, rtol=1e-10)


def r_design(everything):
    d = pd.read_csv(REFERENCE / "logit.csv")
    units = d.drop_duplicates("unit")
    shared = (factor("sex", units.sex), factor("education", units.education)) if everything else ()
    own = (integer_factor("quarter", d.quarter.to_numpy()),) if everything else ()
    design = Design(
        d.unit.to_numpy(np.int32), units[["distance"]].to_numpy(float), ("distance",), d[["age"]].to_numpy(float),
        ("age",), shared, own,
    )  # fmt: skip
    return design, d.started.to_numpy() == 1


@pytest.mark.parametrize("model", ["numbers", "everything"])
def test_logit_is_glm_of_r(model):
    reference = json.loads((REFERENCE / "logit_glm.json").read_text())[model]
    design, y = r_design(model == "everything")
    mine = fit_logit(design, y)
    names = [name.replace("intercept", "(Intercept)").replace(":", "") for name in mine.names]
    coefficient = np.array([reference["coefficient"][name] for name in names])
    se = np.array([reference["std_error"][name] for name in names])
    assert len(reference["coefficient"]) == len(names)
    assert np.abs((mine.coefficients - coefficient) / se).max() < 1e-8
    assert np.abs(mine.std_error / se - 1).max() < 1e-8
    assert mine.loglik == pytest.approx(reference["loglik"], rel=1e-12)


def test_logit_on_the_job_training_experiment():
    """All 16,177 rows, against glm as MatchIt ran it; needs the examples extra."""
    data = pytest.importorskip("causaldata")
    treated, other = (module.load_pandas().data for module in (data.nsw_mixtape, data.cps_mixtape))
    d = pd.concat([treated[treated.treat == 1], other])
    reference = json.loads((REFERENCE / "nsw_cps_matchit.json").read_text())["propensity"]
    names = tuple(reference["coefficient"])[1:]
    mine = fit_logit(plain(d[list(names)], names), d.treat.to_numpy() == 1)
    se = np.array(list(reference["std_error"].values()))
    assert np.abs((mine.coefficients - list(reference["coefficient"].values())) / se).max() < 1e-6
    assert np.abs(mine.std_error / se - 1).max() < 1e-4  # R's are from the last but one iteration


def fault(design, y):
    """The fault of a fit, which must come without a warning of any kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DesignError) as caught:
            fit_logit(design, y)
    return caught.value.faults[0]


def test_a_rare_level_with_a_high_chance_is_no_separation():
    """A full Newton step leaps so far from the intercept that it never comes back; 8 of 44 is no perfect prediction."""
    rng = RNG(0)
    x, level = rng.normal(size=40_044), np.append(rng.integers(0, 3, 40_000), np.full(44, 3))
    y = rng.random(len(x)) < 1 / (1 + np.exp(-(np.log(0.0125) + x)))
    y[-44:] = np.arange(44) < 8
    mine = fit_logit(plain(x[:, None], ("x",), integer_factor("quarter", level)), y)
    dummies = [(level == i).astype(float) for i in (1, 2, 3)]
    theirs = sm.Logit(y.astype(float), np.column_stack([np.ones(len(x)), x, *dummies])).fit(disp=0, maxiter=200)
    assert np.abs((mine.coefficients - theirs.params) / theirs.bse).max() < 1e-6


def test_empty_arms_are_faults():
    design = plain(RNG(0).normal(size=(10, 1)), ("x",))
    assert fault(design, np.zeros(10, bool)).code == "design.no_treated"
    assert fault(design, np.ones(10, bool)).code == "design.no_controls"


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1, -3.0])
def test_constant_column_is_named(value):
    rng = RNG(0)
    design = plain(np.column_stack([rng.normal(size=100), np.full(100, value)]), ("x", "same"))
    found = fault(design, rng.random(100) < 0.3)
    assert (found.code, found.params["column"]) == ("design.constant_column", "same")


def test_collinear_column_is_named():
    rng = RNG(0)
    x = rng.normal(size=(100, 2))
    y = rng.random(100) < 0.3
    design = plain(np.column_stack([x, 2 * x[:, 0] - x[:, 1] + 7]), ("a", "b", "sum"))
    found = fault(design, y)
    assert (found.code, found.params["column"]) == ("design.collinear", "sum")
    sex = rng.choice(["m", "v"], 100)
    twice = plain(x, ("a", "b"), factor("sex", sex), factor("gender", sex))
    found = fault(twice, y)
    assert (found.code, found.params["column"]) == ("design.collinear", "gender:v")


@pytest.mark.parametrize("n", [20, 200, 5000])
def test_perfectly_separating_number_is_named(n):
    x = RNG(n).normal(size=(n, 2))
    found = fault(plain(x, ("noise", "x")), x[:, 1] > 0.3)
    assert (found.code, found.params["column"]) == ("design.separation", "x")


@pytest.mark.parametrize("size", [1, 3, 30, 300, 3000])
@pytest.mark.parametrize("starts", [True, False])
def test_separating_level_is_named_whatever_its_size(size, starts):
    """Small levels too: their likelihood levels off long before the coefficient looks large."""
    rng = RNG(size)
    level = np.where(np.arange(6000) < size, "b", "a")
    y = rng.random(6000) < 0.2
    y[:size] = starts
    found = fault(plain(rng.normal(size=(6000, 1)), ("x",), factor("g", level)), y)
    assert (found.code, found.params["column"]) == ("design.separation", "g:b")


@pytest.mark.parametrize("size", [3, 30])
def test_separating_indicator_among_numbers_is_named(size):
    """A missing-value indicator is a number; scaled, its coefficient stays small while its rows run away."""
    rng = RNG(size)
    gap = (np.arange(5000) < size).astype(float)
    y = rng.random(5000) < 0.2
    y[:size] = True
    found = fault(plain(np.column_stack([rng.normal(size=5000), gap]), ("x", "x:missing")), y)
    assert (found.code, found.params["column"]) == ("design.separation", "x:missing")


def test_rare_but_not_separated_is_fitted():
    """One start in a level of 3,000, and a value far outside: large predictors with a maximum."""
    rng = RNG(2)
    level = np.where(np.arange(6000) < 3000, "b", "a")
    y = rng.random(6000) < 0.2
    y[:3000] = False
    y[7] = True
    x = rng.normal(size=6000)
    x[-1] = 400.0
    y[-1] = False
    x[-2] = -20.0
    y[-2] = True
    design = plain(x[:, None], ("x",), factor("g", level))
    mine = fit_logit(design, y)
    theirs = sm.GLM(y.astype(float), design.matrix(), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
    assert np.abs((mine.coefficients - theirs.params) / theirs.bse).max() < 1e-6


# nearest neighbours


def problem(rng, n=60, ties=True, strata=3, persons=None):
    score = rng.integers(0, 8, n) / 4.0 if ties else rng.normal(size=n)
    return Candidates(
        rng.random(n) < 0.35,
        rng.integers(0, persons or n, n),
        rng.integers(0, 2**64, n, dtype=np.uint64),
        rng.integers(0, strata, n),
        score,
    )


def as_set(pairs):
    return sorted((int(i), int(j), round(float(w), 12)) for i, j, w in pairs)


@pytest.mark.parametrize("ratio", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [None, 0.25, 0.5])  # scores lie on a grid of 0.25, so both widths are on the boundary
@pytest.mark.parametrize("ties", [True, False])
def test_nearest_is_the_double_loop(ratio, width, ties):
    for seed in range(8):
        c = problem(RNG(100 * ratio + seed), ties=ties, persons=25 if seed % 2 else None)
        pairs = match_nearest(c, ratio=ratio, width=width, unit="raw_linear")
        reach = np.inf if width is None else width
        expected, outside = naive.nearest(c.treated, c.person, c.key, c.stratum, c.score, ratio, reach)
        got = zip(pairs.treated, pairs.control, pairs.weight, strict=True)
        assert [(i, j) for i, j, _ in expected] == list(zip(pairs.treated, pairs.control, strict=True))
        assert as_set(got) == as_set(expected)
        assert pairs.outside.tolist() == outside
        assert (c.person[pairs.treated] != c.person[pairs.control]).all()
        assert sorted({*pairs.matched, *pairs.outside}) == np.flatnonzero(c.treated).tolist()


def test_six_rows_by_hand():
    """Starters 0 and 1; the nearest of 0 are 2 and 3 (0.1 each), of 1 it is 5, as 4 is himself and 3 lies further."""
    c = Candidates(
        treated=np.array([True, True, False, False, False, False]),
        person=np.array([10, 11, 12, 13, 11, 14]),
        key=np.arange(6, dtype=np.uint64),
        stratum=np.zeros(6, np.int64),
        score=np.array([0.5, 1.0, 0.375, 0.625, 1.0, 1.25]),
    )
    two = match_nearest(c, ratio=2, width=None, unit="raw_linear")
    assert sorted(two.control[two.treated == 0].tolist()) == [2, 3]
    assert two.control[two.treated == 1].tolist() == [5, 3]  # 0.25, then 0.375
    assert two.weight.tolist() == [0.5] * 4
    near = match_nearest(c, ratio=2, width=0.25, unit="raw_linear")  # the caliper is inclusive
    assert near.control[near.treated == 1].tolist() == [5]
    assert near.weight.tolist() == [0.5, 0.5, 1.0]
    tight = match_nearest(c, ratio=2, width=0.2, unit="raw_linear")
    assert tight.outside.tolist() == [1] and tight.matched.tolist() == [0]


def test_ties_spread_over_the_pool():
    """Forty starters and forty equal comparison rows: no row is everyone's match."""
    n = 40
    c = Candidates(
        np.repeat([True, False], n), np.arange(2 * n), RNG(0).integers(0, 2**64, 2 * n, dtype=np.uint64),
        np.zeros(2 * n, np.int64), np.zeros(2 * n),
    )  # fmt: skip
    pairs = match_nearest(c, ratio=1, width=None, unit="raw")
    assert np.bincount(pairs.control - n).max() <= 6
    assert len(np.unique(pairs.control)) > 18


@pytest.mark.parametrize("unit", ["sd_linear", "raw_linear", "sd", "raw"])
def test_shuffled_rows_give_the_same_pairs(unit):
    rng = RNG(11)
    c = problem(rng, n=200, persons=90)
    ids = np.arange(200)
    order = rng.permutation(200)
    moved = Candidates(*(getattr(c, name)[order] for name in Candidates.__dataclass_fields__))
    by_id = []
    for candidates, label in ((c, ids), (moved, ids[order])):
        pairs = match_nearest(candidates, ratio=3, width=0.5, unit=unit)
        by_id.append(as_set(zip(label[pairs.treated], label[pairs.control], pairs.weight, strict=True)))
    assert by_id[0] == by_id[1]


def test_caliper_units():
    c = problem(RNG(5), n=300, ties=False)
    chance = 1 / (1 + np.exp(-c.score))
    spread = []
    for values in (c.score, chance):
        inside = [values[c.stratum == s] for s in np.unique(c.stratum)]
        squares = sum(((v - v.mean()) ** 2).sum() for v in inside)
        spread.append((squares / (len(values) - len(inside))) ** 0.5)
    widths = {u: match_nearest(c, ratio=1, width=0.2, unit=u).width for u in ("sd_linear", "sd", "raw", "raw_linear")}
    assert widths["sd_linear"] == pytest.approx(0.2 * spread[0], rel=1e-12)
    assert widths["sd"] == pytest.approx(0.2 * spread[1], rel=1e-12)
    assert widths["raw"] == widths["raw_linear"] == 0.2
    assert match_nearest(c, ratio=1, width=None, unit="sd").width == np.inf


def test_probability_scale_measures_probabilities():
    """From 0.90, 0.96 is nearer than 0.83 as a chance and further as a log odds."""
    logit = np.log(np.array([0.9, 0.83, 0.96]) / (1 - np.array([0.9, 0.83, 0.96])))
    c = Candidates(
        np.array([True, False, False]), np.arange(3), np.arange(3, dtype=np.uint64), np.zeros(3, np.int64), logit
    )
    assert match_nearest(c, ratio=1, width=None, unit="raw").control.tolist() == [2]
    assert match_nearest(c, ratio=1, width=None, unit="raw_linear").control.tolist() == [1]


def test_extreme_scores_do_not_overflow():
    c = Candidates(
        np.array([True, False, False]), np.arange(3), np.arange(3, dtype=np.uint64), np.zeros(3, np.int64),
        np.array([-900.0, -1000.0, 900.0]),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_nearest(c, ratio=1, width=0.1, unit="raw").control.tolist() == [1]


@pytest.mark.parametrize("stratum", [[0, 1, 1], [1, 0, 0]])
def test_nobody_within_reach_is_a_fault(stratum):
    c = Candidates(
        np.array([True, False, False]), np.arange(3), np.arange(3, dtype=np.uint64), np.array(stratum), np.zeros(3)
    )
    with pytest.raises(DesignError) as caught:
        match_nearest(c, ratio=1, width=0.2, unit="sd_linear")
    assert caught.value.faults[0].code == "design.nobody_matched"


def test_no_comparison_rows_at_all():
    c = Candidates(np.ones(2, bool), np.arange(2), np.arange(2, dtype=np.uint64), np.zeros(2, np.int64), np.zeros(2))
    with pytest.raises(DesignError):
        match_nearest(c, ratio=1, width=None, unit="sd_linear")
