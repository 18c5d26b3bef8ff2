"""Omitted variable bias: the paper's example, and confounders built to measure and put into the regression."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize, stats
from tolerances import REFERENCE, SOLVED

from evalkit.errors import DesignError, UsageError
from evalkit.sensitivity import (
    Regression,
    adjusted,
    benchmark_bounds,
    contours,
    linear_regression,
    partial_r2,
    robustness_value,
)

DARFUR = json.loads((Path(__file__).parent / "reference" / "sensitivity_cases.json").read_text())["darfur"]
PAPER = Regression(
    DARFUR["estimate"],
    DARFUR["std_error"],
    DARFUR["dof"],
    ("female",),
    np.array([partial_r2(DARFUR["t_female_treatment"], DARFUR["dof_treatment"])]),
    np.array([partial_r2(DARFUR["t_female_outcome"], DARFUR["dof"])]),
)


def drawn(seed: int = 1, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, treatment, three covariates, weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    d = (x @ [0.5, -0.3, 0.1] + rng.normal(size=n) > 0).astype(float)
    y = 0.5 * d + x @ [0.7, 0.4, 0.0] + rng.normal(size=n)
    return y, d, x, rng.uniform(0.2, 2, n)


def residual(target: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(target)), *columns])
    return target - design @ np.linalg.lstsq(design, target, rcond=None)[0]


def built(y: np.ndarray, d: np.ndarray, x: np.ndarray, r2d: float, r2y: float, sign: float) -> np.ndarray:
    """A confounder orthogonal to x with exactly these partial R2: parts along the residual of d, along that of y and
    along pure noise, whose lengths solve the two equations."""
    rng = np.random.default_rng(9)
    along_d = residual(d, x)
    along_d /= np.linalg.norm(along_d)
    along_y = residual(y, x, d)
    along_y /= np.linalg.norm(along_y)
    noise = residual(rng.normal(size=len(y)), x, d, y)
    noise /= np.linalg.norm(noise)
    # z = a along_d + b along_y + c noise: R2(D~Z|X) = a^2 of length one; R2(Y~Z|D, X) = b^2 / (b^2 + c^2)
    a, rest = math.sqrt(r2d), 1 - r2d
    return a * along_d + sign * math.sqrt(r2y * rest) * along_y + math.sqrt((1 - r2y) * rest) * noise


# -- the paper --------------------------------------------------------------------------------------------------------


def test_darfur() -> None:
    estimate, error, dof = PAPER.estimate, PAPER.std_error, PAPER.dof
    assert PAPER.partial_r2 == pytest.approx(DARFUR["r2_yd_x"], rel=REFERENCE)
    assert robustness_value(estimate, error, dof) == pytest.approx(DARFUR["rv"], rel=REFERENCE)
    assert robustness_value(estimate, error, dof, alpha=0.05) == pytest.approx(DARFUR["rv_alpha"], rel=REFERENCE)
    made = benchmark_bounds(PAPER, ["female"])
    ours = np.column_stack([made.r2_treatment, made.r2_outcome, made.estimate, made.std_error, made.t])
    theirs = np.array(DARFUR["female"])
    assert np.allclose(ours, theirs[:, :5], rtol=REFERENCE)
    # the program takes the t quantile of the regression without the confounder; with it there is a degree fewer
    for side, edge, column in ((-1, made.low, 5), (1, made.high, 6)):
        quantile = side * stats.t.ppf(0.975, dof)
        assert np.allclose(made.estimate + quantile * made.std_error, theirs[:, column], rtol=REFERENCE)
        assert np.allclose(edge, made.estimate + side * stats.t.ppf(0.975, dof - 1) * made.std_error, rtol=SOLVED)
    assert made.label == ("1 x female", "2 x female", "3 x female")


# -- the algebra is exact ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_the_regression_is_that_of_statsmodels(weighted: bool) -> None:
    y, d, x, w = drawn()
    made = linear_regression(y, d, x, "abc", w if weighted else None)
    weight = w if weighted else np.ones(len(y))
    theirs = sm.WLS(y, np.column_stack([np.ones(len(y)), d, x]), weight).fit()
    of_treatment = sm.WLS(d, np.column_stack([np.ones(len(y)), x]), weight).fit()
    assert made.estimate == pytest.approx(theirs.params[1], rel=SOLVED)
    assert made.std_error == pytest.approx(theirs.bse[1], rel=SOLVED)
    assert made.dof == theirs.df_resid
    outcome = theirs.tvalues[2:] ** 2 / (theirs.tvalues[2:] ** 2 + theirs.df_resid)
    treatment = of_treatment.tvalues[1:] ** 2 / (of_treatment.tvalues[1:] ** 2 + of_treatment.df_resid)
    assert np.allclose(made.r2_outcome, outcome, rtol=SOLVED)
    assert np.allclose(made.r2_treatment, treatment, rtol=SOLVED)


@pytest.mark.parametrize(("r2d", "r2y"), [(0.1, 0.2), (0.3, 0.05), (0.02, 0.6), (0.5, 0.5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_confounder_built_to_measure_gives_the_adjusted_estimate(r2d: float, r2y: float, weighted: bool) -> None:
    """Put into the regression, z moves coefficient and standard error to where the formula says, both ways."""
    y, d, x, w = drawn()
    root = np.sqrt(w) if weighted else np.ones(len(y))
    # weighted least squares is least squares of rows times the root of the weight, constant included
    ys, ds, xs = y * root, d * root, np.column_stack([root, x * root[:, None]])

    def without_constant(target: np.ndarray, *columns: np.ndarray) -> np.ndarray:
        design = np.column_stack(columns)
        return target - design @ np.linalg.lstsq(design, target, rcond=None)[0]

    base = linear_regression(y, d, x, "abc", w if weighted else None)
    for sign, towards in ((1.0, base.estimate > 0), (-1.0, base.estimate < 0)):
        parts = [
            without_constant(ds, xs),
            without_constant(ys, xs, ds),
            without_constant(np.random.default_rng(9).normal(size=len(y)), xs, ds, ys),
        ]
        along = [part / np.linalg.norm(part) for part in parts]
        z = (
            math.sqrt(r2d) * along[0]
            + sign * math.sqrt(r2y * (1 - r2d)) * along[1]
            + math.sqrt((1 - r2y) * (1 - r2d)) * along[2]
        )
        full = linear_regression(y, d, np.column_stack([x, z / root]), "abcz", w if weighted else None)
        made = adjusted(base.estimate, base.std_error, base.dof, r2d, r2y, towards_zero=bool(towards))
        assert full.r2_treatment[3] == pytest.approx(r2d, rel=SOLVED)
        assert full.r2_outcome[3] == pytest.approx(r2y, rel=SOLVED)
        assert full.estimate == pytest.approx(made.estimate[0], rel=1e-8, abs=1e-10)
        assert full.std_error == pytest.approx(made.std_error[0], rel=1e-8)


def test_a_confounder_at_the_robustness_value_brings_the_estimate_to_zero() -> None:
    y, d, x, _ = drawn()
    base = linear_regression(y, d, x, "abc")
    value = robustness_value(base.estimate, base.std_error, base.dof)
    z = built(y, d, x, value, value, math.copysign(1.0, base.estimate))
    full = linear_regression(y, d, np.column_stack([x, z]), "abcz")
    assert full.estimate == pytest.approx(0, abs=1e-9)
    half = robustness_value(base.estimate, base.std_error, base.dof, q=0.5)
    z = built(y, d, x, half, half, math.copysign(1.0, base.estimate))
    full = linear_regression(y, d, np.column_stack([x, z]), "abcz")
    assert full.estimate == pytest.approx(base.estimate / 2, rel=1e-8)


@pytest.mark.parametrize(("t", "dof"), [(4.2, 783), (2.2, 50), (8.0, 12), (25.0, 9), (60.0, 15), (1.5, 100)])
def test_the_robustness_value_with_alpha_is_the_smallest_that_suffices(t: float, dof: float) -> None:
    """By search: the least r such that some confounder of strength at most r in both makes |t| the critical value."""
    critical = float(stats.t.ppf(0.975, dof - 1))

    def smallest_t(r: float) -> float:
        grid = np.linspace(0, r, 4001)
        return float(np.min(adjusted(t, 1.0, dof, np.full(4001, r), grid).t))

    made = robustness_value(t, 1.0, dof, alpha=0.05)
    if smallest_t(0.0) <= critical:
        assert made == 0
        return
    found = optimize.brentq(lambda r: smallest_t(r) - critical, 0.0, 1 - 1e-9, xtol=1e-10)
    assert made == pytest.approx(found, abs=2e-4)


def test_an_extreme_confounder_needs_the_partial_r2_of_the_treatment() -> None:
    """One that explains all the rest of the outcome and this share of the treatment brings the estimate to zero."""
    made = adjusted(PAPER.estimate, PAPER.std_error, PAPER.dof, PAPER.partial_r2, 1.0)
    assert made.estimate[0] == pytest.approx(0, abs=1e-12)
    assert made.std_error[0] == 0


# -- benchmarks -------------------------------------------------------------------------------------------------------


def test_a_confounder_as_strong_as_a_covariate_stays_within_its_bound() -> None:
    """Z orthogonal to x with R2(D~Z|X) of exactly k times covariate j's and R2(Y~Z|X, D) likewise by the paper's
    definition (without j): the bound on R2(Y~Z|D, X) holds and is reached."""
    y, d, x, _ = drawn(seed=3, n=400)
    base = linear_regression(y, d, x, "abc")
    others = x[:, 1:]
    for k in (0.5, 1.0, 2.0):
        bound = benchmark_bounds(base, ["a"], [k])
        # the definition: relative strength without j, of Z against j (equations 4.6 of the paper)
        r2_d = 1 - (residual(d, x) @ residual(d, x)) / (residual(d, others) @ residual(d, others))
        wanted_d = k * r2_d / (1 - r2_d)
        assert bound.r2_treatment[0] == pytest.approx(wanted_d, rel=SOLVED)
        strongest = 0.0
        for share in np.linspace(0, 1, 41):
            for sign in (1.0, -1.0):
                z = built(y, d, x, wanted_d, share, sign)
                # R2(Y~Z|X without j, D) against that of j
                left = residual(y, others, d)
                with_z, with_j = residual(y, others, d, z), residual(y, others, d, x[:, 0])
                r2_z, r2_j = (1 - (r @ r) / (left @ left) for r in (with_z, with_j))
                if r2_z <= k * r2_j + 1e-9:
                    strongest = max(strongest, share)
        assert strongest <= bound.r2_outcome[0] + 1e-9
        assert strongest > bound.r2_outcome[0] - 0.06  # the grid of shares


def test_columns_of_one_factor_are_one_covariate() -> None:
    y, d, x, _ = drawn(seed=4)
    made = linear_regression(y, d, x, ["a", "g", "g"])
    assert made.names == ("a", "g")
    full, part = residual(y, d, x), residual(y, d, x[:, :1])
    assert made.r2_outcome[1] == pytest.approx(1 - (full @ full) / (part @ part), rel=SOLVED)
    full, part = residual(d, x), residual(d, x[:, :1])
    assert made.r2_treatment[1] == pytest.approx(1 - (full @ full) / (part @ part), rel=SOLVED)


def test_a_confounder_that_cannot_exist_is_said_to_be_impossible() -> None:
    strong = Regression(1.0, 0.1, 100, ("a",), np.array([0.6]), np.array([0.3]))
    made = benchmark_bounds(strong, times=[0.5, 2.0])
    assert made.possible.tolist() == [True, False]
    assert np.isnan(made.estimate[1])
    assert len(made.frame()) == 2


def test_contours_are_the_adjusted_estimates() -> None:
    made = contours(PAPER.estimate, PAPER.std_error, PAPER.dof, largest=0.3, points=4)
    assert made.estimate.shape == (4, 4)
    one = adjusted(PAPER.estimate, PAPER.std_error, PAPER.dof, 0.2, 0.1)
    assert made.estimate[2, 1] == pytest.approx(one.estimate[0], rel=SOLVED)
    assert made.t[2, 1] == pytest.approx(one.t[0], rel=SOLVED)


def test_what_cannot_be_fitted_is_refused() -> None:
    y, d, x, _ = drawn(n=20)
    with pytest.raises(DesignError, match="regression_collinear"):
        linear_regression(y, d, np.column_stack([x, x[:, 0] + x[:, 1]]), "abce")
    with pytest.raises(DesignError, match="regression_collinear"):
        linear_regression(y, d, np.column_stack([x, np.ones(20)]), "abce")
    with pytest.raises(DesignError, match="regression_too_small"):
        linear_regression(y[:6], d[:6], x[:6], "abc")
    with pytest.raises(UsageError, match="unknown_covariate"):
        benchmark_bounds(PAPER, ["male"])
    with pytest.raises(UsageError, match="strength_outside"):
        adjusted(1, 1, 10, -0.1, 0.1)
