"""Placebo outcomes and negative controls: by hand, against statsmodels and the likelihood, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from tolerances import EXACT, MONTE_CARLO, SOLVED

from evalkit.effects import Covariance, EffectProfile, Estimand, Influence, Intervals
from evalkit.errors import DesignError, UsageError
from evalkit.sensitivity import (
    SystematicError,
    calibrate,
    corrected_by_control,
    placebo_equivalence,
    placebo_of_profile,
    systematic_error,
)

# -- placebo ----------------------------------------------------------------------------------------------------------


def test_a_placebo_by_hand() -> None:
    """1 and 2.5 points, errors of 1 point: 1 + 1.645 < 3 passes, 2.5 + 1.645 does not."""
    made = placebo_equivalence([0.01, 0.025], np.diag([1e-4, 1e-4]))
    assert made.inside.tolist() == [True, False]
    assert not made.passes
    assert made.high == pytest.approx(np.array([0.01, 0.025]) + 1.6448536269514722e-2, rel=SOLVED)
    assert made.p_equivalence == pytest.approx(stats.norm.sf([2, 0.5]), rel=SOLVED)
    assert made.wald == pytest.approx(1 + 6.25, rel=SOLVED)
    assert made.p_joint == pytest.approx(stats.chi2.sf(7.25, 2), rel=SOLVED)
    assert made.frame().shape == (2, 8)


def test_the_interval_passes_exactly_where_both_one_sided_tests_do() -> None:
    rng = np.random.default_rng(1)
    for df in (np.inf, 12.0):
        made = placebo_equivalence(rng.normal(0, 0.02, 200), np.diag(rng.uniform(1e-5, 4e-4, 200)), df=df)
        assert np.array_equal(made.inside, made.p_equivalence < 0.05)
        assert 20 < made.inside.sum() < 180


def test_the_joint_test_allows_for_covariance_and_for_a_singular_one() -> None:
    rng = np.random.default_rng(2)
    half = rng.normal(size=(3, 3))
    matrix, b = half @ half.T, rng.normal(size=3)
    made = placebo_equivalence(b, matrix, 100)
    assert made.wald == pytest.approx(b @ np.linalg.solve(matrix, b), rel=1e-8)
    twice = placebo_equivalence(np.r_[b, b[2]], np.pad(matrix, ((0, 1), (0, 1)), mode="edge"), 100)
    assert (twice.wald_df, made.wald_df) == (3, 3)
    assert twice.wald == pytest.approx(made.wald, rel=1e-6)
    finite = placebo_equivalence(b, matrix, 100, df=20)
    assert finite.p_joint == pytest.approx(stats.f.sf(made.wald / 3, 3, 20), rel=1e-8)


def test_an_effect_at_the_margin_passes_once_in_twenty() -> None:
    rng = np.random.default_rng(3)
    runs, error = 4000, 0.005
    passed = np.mean([placebo_equivalence(0.03 + error * z, error**2).passes for z in rng.normal(size=runs)])
    assert abs(passed - 0.05) < MONTE_CARLO * math.sqrt(0.05 * 0.95 / runs)


def profile(uncertainty: object) -> EffectProfile:
    estimand = Estimand("starters", "a", "wait", "start", "work", "event", "fraction", "conditional_independence")
    month = np.array([-2, -1, 0])
    estimate = np.array([0.001, -0.002, 0.004])
    count = np.array([50, 50, 50])
    return EffectProfile(estimand, {"analysis": "m"}, month, estimate, estimate, count, count, uncertainty, "cluster")  # type: ignore[arg-type]


def test_a_profile_can_be_a_placebo() -> None:
    made = placebo_of_profile(profile(Covariance(np.diag([1e-6, 1e-6, 1e-6]), 9)))
    assert made.month.tolist() == [-2, -1, 0]
    assert made.passes
    assert made.high[2] == pytest.approx(0.004 + stats.t.ppf(0.95, 9) * 1e-3, rel=SOLVED)
    with pytest.raises(UsageError, match="no_covariance"):
        placebo_of_profile(profile(Intervals(np.zeros(3), np.ones(3), 0.95, "honest")))
    with pytest.raises(UsageError, match="margin_not_positive"):
        placebo_equivalence([0.0], [[1.0]], 0.0)


# -- systematic error -------------------------------------------------------------------------------------------------


def loglik(mean: float, sd: float, b: np.ndarray, se: np.ndarray) -> float:
    return float(stats.norm.logpdf(b, mean, np.sqrt(sd**2 + se**2)).sum())


def test_the_fit_is_the_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(4)
    for _ in range(5):
        se = rng.uniform(0.05, 0.4, 25)
        b = rng.normal(0.1, 0.2, 25) + se * rng.normal(size=25)
        made = systematic_error(b, se)
        assert made.loglik == pytest.approx(loglik(made.mean, made.sd, b, se), rel=SOLVED)
        for step in (1e-3, 1e-2, 0.1):
            for mean, sd in ((made.mean + step, made.sd), (made.mean - step, made.sd), (made.mean, made.sd + step)):
                assert loglik(mean, sd, b, se) <= made.loglik + 1e-9
            assert loglik(made.mean, max(0.0, made.sd - step), b, se) <= made.loglik + 1e-9
        grid = np.linspace(0, 1, 101)
        assert made.loglik >= max(loglik(m, s, b, se) for m in np.linspace(-0.3, 0.5, 21) for s in grid[::4]) - 1e-9


def test_equal_errors_by_hand() -> None:
    """Equal errors: the mean is the average and sd^2 the mean square deviation less se^2, or zero."""
    b = np.array([1.0, 2, 3, 6])
    made = systematic_error(b, np.full(4, 0.5))
    assert made.mean == pytest.approx(3, rel=SOLVED)
    assert made.sd == pytest.approx(math.sqrt(b.var() - 0.25), rel=1e-6)
    assert systematic_error(b, np.full(4, 50.0)).sd == 0


def known_error(mean: float, sd: float, mean_error: float) -> SystematicError:
    """A systematic error whose sd is certain."""
    one = np.ones(1)
    return SystematicError(mean, sd, 12, 0.0, sd * one, one, mean * one, mean_error * one)


def test_calibration_by_hand() -> None:
    error = known_error(0.2, 0.3, 0.1)
    known = calibrate(1.0, 0.4, error, allow_for_fit=False)
    assert (known.estimate, known.std_error) == pytest.approx((0.8, 0.5), rel=EXACT)
    assert known.p_value == pytest.approx(2 * stats.norm.sf(1.6), rel=SOLVED)
    assert known.p_uncalibrated == pytest.approx(2 * stats.norm.sf(2.5), rel=SOLVED)
    assert known.low == pytest.approx(0.8 - stats.norm.ppf(0.975) * 0.5, rel=SOLVED)
    fitted = calibrate(1.0, 0.4, error)
    assert fitted.std_error == pytest.approx(math.sqrt(0.26), rel=SOLVED)
    assert fitted.high == pytest.approx(0.8 + stats.norm.ppf(0.975) * math.sqrt(0.26), rel=SOLVED)
    assert fitted.frame().shape == (1, 6)


def test_a_mixture_of_two_spreads_by_hand() -> None:
    """Half the weight on sd 0, half on sd 1, mean 0, se 1: P(below) is the average of two normal laws."""
    error = SystematicError(0, 0, 5, 0.0, np.array([0.0, 1]), np.full(2, 0.5), np.zeros(2), np.zeros(2))
    made = calibrate(2.0, 1.0, error)
    assert made.std_error == pytest.approx(math.sqrt(1.5), rel=SOLVED)
    for edge, part in ((made.low, 0.025), (made.high, 0.975)):
        assert (stats.norm.cdf(edge - 2) + stats.norm.cdf((edge - 2) / math.sqrt(2))) / 2 == pytest.approx(
            part, abs=1e-9
        )
    assert made.p_value == pytest.approx(stats.norm.sf(2) + stats.norm.sf(2 / math.sqrt(2)), rel=SOLVED)


def test_the_law_of_the_spread_is_the_integrated_likelihood() -> None:
    """Mean and sd integrated over a fine grid, flat in both: the same moments of the sd."""
    rng = np.random.default_rng(5)
    se = rng.uniform(0.1, 0.3, 8)
    b = rng.normal(0.1, 0.2, 8) + se * rng.normal(size=8)
    made = systematic_error(b, se)
    sd, mean = np.linspace(0, 4, 2001), np.linspace(-3, 3, 301)
    variance = sd[:, None] ** 2 + se**2
    fit = stats.norm.logpdf(b[None, None, :], mean[None, :, None], np.sqrt(variance)[:, None, :]).sum(axis=2)
    weight = np.exp(fit - fit.max()).sum(axis=1)
    weight[0] /= 2
    weight /= weight.sum()
    assert made.weights.sum() == pytest.approx(1, rel=EXACT)
    assert made.weights @ made.sds == pytest.approx(weight @ sd, rel=2e-3)
    assert made.weights @ np.minimum(made.sds, 0.5) == pytest.approx(weight @ np.minimum(sd, 0.5), rel=1e-3)


def test_without_systematic_error_nothing_changes() -> None:
    made = calibrate(1.0, 0.4, known_error(0.0, 0.0, 0.0))
    assert made.p_value == pytest.approx(made.p_uncalibrated, rel=SOLVED)


@pytest.mark.slow
@pytest.mark.parametrize("controls", [10, 50])
def test_calibrated_intervals_cover(controls: int) -> None:
    """Systematic error N(0.1, 0.15^2) everywhere: the uncalibrated interval fails, the calibrated one covers; taking
    the fitted distribution as known covers too little where the controls are few."""
    rng = np.random.default_rng(controls)
    runs, covered = 1000, {"plain": 0, "known": 0, "fitted": 0}
    for _ in range(runs):
        se = rng.uniform(0.05, 0.3, controls)
        error = systematic_error(rng.normal(0.1, np.sqrt(0.15**2 + se**2)), se)
        own = 0.1
        estimate = 0.5 + rng.normal(0.1, 0.15) + own * rng.normal()
        covered["plain"] += abs(estimate - 0.5) < 1.96 * own
        for name, fit in (("known", False), ("fitted", True)):
            made = calibrate(estimate, own, error, allow_for_fit=fit)
            covered[name] += made.low < 0.5 < made.high
    share = {name: count / runs for name, count in covered.items()}
    assert share["plain"] < 0.7
    assert abs(share["fitted"] - 0.95) < MONTE_CARLO * math.sqrt(0.95 * 0.05 / runs)
    if controls == 10:
        assert share["known"] < 0.9


def test_too_few_controls_are_refused() -> None:
    with pytest.raises(DesignError, match="too_few_controls"):
        systematic_error([0.1, 0.2], [0.1, 0.1])
    with pytest.raises(ValueError, match="positive standard errors"):
        systematic_error([0.1, 0.2, 0.3], [0.1, 0.1, 0])


# -- one control ------------------------------------------------------------------------------------------------------


def test_one_control_by_hand() -> None:
    """0.5 less 0.2; variances 4 and 1, covariance 1: 4 + 1 - 2 = 3; at half the ratio 4 + 1/4 - 1."""
    made = corrected_by_control(0.5, 0.2, [[4.0, 1.0], [1.0, 1.0]])
    assert made.estimate[0] == pytest.approx(0.3, rel=EXACT)
    assert made.vcov[0, 0] == pytest.approx(3, rel=EXACT)
    assert made.std_error[0] == pytest.approx(math.sqrt(3), rel=EXACT)
    half = corrected_by_control(0.5, 0.2, [[4.0, 1.0], [1.0, 1.0]], ratio=0.5)
    assert (half.estimate[0], half.vcov[0, 0]) == pytest.approx((0.4, 3.25), rel=EXACT)


def test_a_control_for_all_months_makes_them_depend() -> None:
    joint = np.diag([1.0, 2.0, 0.5])
    made = corrected_by_control([1.0, 2.0], 0.5, joint)
    assert made.estimate.tolist() == [0.5, 1.5]
    assert np.allclose(made.vcov, [[1.5, 0.5], [0.5, 2.5]])
    by_month = corrected_by_control([1.0, 2.0], [0.5, 0.25], np.eye(4))
    assert by_month.estimate.tolist() == [0.5, 1.75]
    assert np.allclose(by_month.vcov, 2 * np.eye(2))
    assert made.frame().shape == (2, 4)


def test_the_corrected_interval_covers_with_the_covariance_of_shared_people() -> None:
    """Outcome and control share their people and their bias; ignoring the covariance would widen the interval."""
    rng = np.random.default_rng(6)
    runs, people, covered, widths = 1500, 400, 0, []
    for _ in range(runs):
        shared = rng.normal(size=people)
        first, second = 1.2 + shared + rng.normal(size=people), 0.7 + shared + rng.normal(size=people)
        values = np.column_stack([first - first.mean(), second - second.mean()]) / people
        joint = Influence(np.arange(people), values).vcov
        made = corrected_by_control(first.mean(), second.mean(), joint)
        covered += bool(made.low[0] < 0.5 < made.high[0])
        widths.append(joint[0, 0] + joint[1, 1] > 1.5 * made.vcov[0, 0])
    assert abs(covered / runs - 0.95) < MONTE_CARLO * math.sqrt(0.95 * 0.05 / runs)
    assert all(widths)
