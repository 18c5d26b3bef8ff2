"""Effect profiles: rows worked by hand, and naive twins of everything that is derived."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from profiles import ESTIMAND, influence, make
from scipy import stats
from tolerances import COVERAGE, EXACT, MONTE_CARLO, QUANTILE_DRAWS

from evalkit.effects import (
    Covariance,
    Influence,
    Intervals,
    band_of,
    contrast,
    generator,
    joint_vcov,
    subgroup_contrasts,
)
from evalkit.errors import UsageError


def code(error: pytest.ExceptionInfo[UsageError]) -> str:
    return error.value.faults[0].code


# -- influence functions ---------------------------------------------------------------------------------------------


def test_vcov_is_the_sum_of_products() -> None:
    psi = influence(["a", "b", "c"], [[1, 2], [0, -1], [-1, 1]])
    assert np.allclose(psi.vcov, [[2, 1], [1, 6]], rtol=0, atol=EXACT)
    assert np.allclose(replace(psi, factor=1.5).vcov, [[3, 1.5], [1.5, 9]], rtol=0, atol=EXACT)


def test_linear_is_the_influence_of_the_combination() -> None:
    psi = influence(["a", "b"], [[1, 2], [3, -4]], factor=2.0)
    weights = np.array([[1.0, 1.0], [0.0, -2.0]])
    made = psi.linear(weights)
    assert made.values.tolist() == [[3, -4], [-1, 8]]
    assert np.allclose(made.vcov, weights @ psi.vcov @ weights.T, rtol=0, atol=EXACT)


def test_coarsen_sums_within_clusters() -> None:
    psi = influence([1, 2, 3], [[1, 0], [2, 5], [-4, 1]], factor=1.25)
    made = psi.coarsen({1: "x", 2: "y", 3: "x"}, "team")
    assert (made.ids.tolist(), made.values.tolist()) == (["x", "y"], [[-3, 1], [2, 5]])
    assert (made.level, made.factor) == ("team", 1.25)


def test_aligned_puts_absent_clusters_at_zero_and_scales() -> None:
    psi = influence(["d", "b"], [[1.0], [2.0]], factor=4.0)
    rows = psi.aligned(np.array(["a", "b", "c", "d"]))
    assert rows.ravel().tolist() == [0, 4, 0, 2]
    assert np.allclose(rows.T @ rows, psi.vcov, rtol=0, atol=EXACT)


@pytest.mark.parametrize("ids", [["a", "b"], ["d", "b"], ["a", "c", "e"]])
def test_aligned_refuses_ids_that_lack_a_cluster_or_are_unsorted(ids: list[str]) -> None:
    with pytest.raises(ValueError, match="align"):
        influence(["d", "b"], [[1.0], [2.0]]).aligned(np.array(ids))


@pytest.mark.parametrize(
    ("ids", "values"),
    [(["a", "b"], [[1.0]]), (["a", "a"], [[1.0], [2.0]]), (["a"], [[np.nan]]), (["a"], [[np.inf]]), (["a"], [1.0])],
)
def test_bad_influence_is_refused(ids: list[str], values: list[object]) -> None:
    with pytest.raises(ValueError, match="influence"):
        Influence(np.array(ids), np.array(values))


def test_covariance_must_be_square() -> None:
    with pytest.raises(ValueError, match="square"):
        Covariance(np.ones((2, 3)))


# -- the profile as a value ------------------------------------------------------------------------------------------


def test_arrays_are_private_copies_and_read_only() -> None:
    values = np.array([0.1, 0.2])
    rows = np.ones((3, 2))
    ids = np.array([1, 2, 3])
    profile = make(values, Influence(ids, rows))
    values[:], rows[:], ids[:] = 9, 9, 9
    assert profile.estimate.tolist() == [0.1, 0.2]
    assert isinstance(profile.uncertainty, Influence)
    assert profile.uncertainty.values.max() == 1
    assert profile.uncertainty.ids.tolist() == [1, 2, 3]
    for array in (profile.estimate, profile.month, profile.n_treated, profile.uncertainty.values):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(FrozenInstanceError):
        profile.estimate = values  # type: ignore[misc]
    with pytest.raises(TypeError):
        profile.labels["outcome"] = "x"  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [
        {"counterfactual": np.zeros(3)},
        {"n_treated": np.zeros(1)},
        {"month": [1, 1]},
        {"month": [2, 1]},
        {"status": ("ok",)},
        {"uncertainty": Covariance(np.eye(3))},
        {"uncertainty": Intervals(np.zeros(1), np.ones(1), 0.95, "wild")},
        {"estimate": np.zeros((2, 1))},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="profile|status|month"):
        make([0.1, 0.2], **change) if "estimate" not in change else make(**change)  # type: ignore[arg-type]


def test_status_follows_from_the_estimate() -> None:
    assert make([0.1, np.nan]).status == ("ok", "not_estimable")


def test_id_names_analysis_variant_outcome_and_subgroup() -> None:
    profile = make([0.1], labels={"variant": "adjusted", "subgroup": "sex=man"})
    assert profile.id == "main/adjusted/left_to_work/sex=man"
    assert make([0.1]).id == "main/left_to_work"


def test_standard_errors_are_roots_of_the_diagonal() -> None:
    profile = make([0.1, 0.2], Covariance(np.array([[4.0, 1.0], [1.0, 9.0]])))
    assert profile.std_error.tolist() == [2, 3]
    assert np.isnan(make([0.1], Intervals([0.0], [1.0], 0.9, "wild")).std_error).all()  # type: ignore[arg-type]


# -- linear combinations and running sums ----------------------------------------------------------------------------


def test_cumulated_row_by_hand() -> None:
    profile = make([-0.1, 0.05, 0.2], influence([1, 2], [[1, 0, 2], [0, 3, -1]]))
    total = profile.cumulate()
    assert np.allclose(total.estimate, [-0.1, -0.05, 0.15], rtol=0, atol=EXACT)
    assert np.allclose(total.counterfactual, [0.3, 0.6, 0.9], rtol=0, atol=EXACT)
    assert isinstance(total.uncertainty, Influence)
    assert total.uncertainty.values.tolist() == [[1, 1, 3], [0, 3, 2]]
    assert np.allclose(total.std_error, np.sqrt([1, 10, 13]), rtol=0, atol=EXACT)
    assert (total.estimand.kind, total.estimand.unit) == ("cumulated", "months")


def test_cumulated_keeps_another_unit() -> None:
    profile = make([100.0, 50.0], estimand=replace(ESTIMAND, unit="euro", kind="flow"))
    assert profile.cumulate().estimand.unit == "euro"


def test_what_cannot_be_cumulated_raises() -> None:
    with pytest.raises(UsageError) as error:
        make([0.1, 0.2], composition="varying").cumulate()
    assert code(error) == "effects.varying_composition"
    with pytest.raises(UsageError) as error:
        make([0.1, 0.2], month=[1, 3]).cumulate()
    assert code(error) == "effects.months_missing"
    with pytest.raises(UsageError) as error:
        make([0.1], Intervals([0.0], [1.0], 0.9, "wild")).cumulate()  # type: ignore[arg-type]
    assert code(error) == "effects.no_covariance"


def test_linear_of_one_row_and_of_intervals() -> None:
    profile = make([0.1, 0.3], Covariance(np.array([[4.0, 1.0], [1.0, 9.0]]), df=7))
    estimate, vcov = profile.linear([0.5, 0.5])
    assert vcov is not None
    assert (estimate.tolist(), vcov.tolist()) == ([0.2], [[3.75]])
    assert make([0.1], Intervals([0.0], [1.0], 0.9, "wild")).linear([1.0])[1] is None  # type: ignore[arg-type]


# -- several profiles ------------------------------------------------------------------------------------------------


def test_contrast_of_overlapping_people_is_the_direct_difference() -> None:
    """The difference of two means over overlapping people has the variance of the summed contributions."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=60)
    first, second = np.arange(0, 40), np.arange(25, 60)

    def mean(people: np.ndarray) -> tuple[float, Influence]:
        value = y[people].mean()
        return value, Influence(people, ((y[people] - value) / len(people))[:, None])

    (a, psi_a), (b, psi_b) = mean(first), mean(second)
    difference = contrast(make([a], psi_a), make([b], psi_b))
    direct = np.zeros(60)
    direct[first] += (y[first] - a) / 40
    direct[second] -= (y[second] - b) / 35
    assert difference.estimate[0] == pytest.approx(a - b, abs=EXACT)
    assert difference.std_error[0] == pytest.approx(np.sqrt((direct**2).sum()), rel=EXACT)
    apart = np.sqrt(psi_a.vcov + psi_b.vcov)[0, 0]
    assert difference.std_error[0] < apart  # sharing people is not ignored


def test_contrast_of_the_same_profile_is_certain() -> None:
    profile = make([0.1, 0.2], influence([1, 2], [[1, 2], [3, 4]], factor=1.1))
    nothing = contrast(profile, profile)
    assert np.abs(nothing.estimate).max() == 0
    assert nothing.std_error.max() < EXACT


def test_contrast_aligns_months_and_counts_the_smaller_side() -> None:
    one = make([1.0, 2.0, 3.0], influence([1], [[1, 2, 3]]), month=[1, 2, 3], n_treated=[9, 8, 7])
    two = make([5.0, 7.0], influence([2], [[10, 20]]), month=[2, 3], n_treated=[4, 40])
    made = contrast(one, two)
    assert made.month.tolist() == [2, 3]
    assert made.estimate.tolist() == [-3, -4]
    assert made.n_treated.tolist() == [4, 7]
    assert np.allclose(made.vcov, np.outer([2, 3], [2, 3]) + np.outer([10, 20], [10, 20]), rtol=0, atol=EXACT)


def test_joint_covariance_is_that_of_the_stacked_influence() -> None:
    one = make([0.1, 0.2], influence(["a", "b"], [[1, 2], [3, 4]], factor=2.0))
    two = make([0.3], influence(["b", "c"], [[5], [6]], factor=0.5))
    stacked = np.array([[1, 2, 0], [3, 4, 5], [0, 0, 6]]) * np.sqrt([2.0, 2.0, 0.5])
    assert np.allclose(joint_vcov([one, two]), stacked.T @ stacked, rtol=0, atol=1e3 * EXACT)


def test_unlike_estimands_raise_and_are_named_when_asked_for() -> None:
    one = make([0.1], influence([1], [[1.0]]))
    two = make([0.2], influence([1], [[1.0]]), estimand=replace(ESTIMAND, population="overlap", versus="never"))
    with pytest.raises(UsageError) as error:
        contrast(one, two)
    assert code(error) == "effects.unlike_estimands"
    assert error.value.faults[0].params["fields"] == "population, versus"
    made = contrast(one, two, across_estimands=True)
    assert made.labels["kind"] == "difference_between_answers"
    assert (made.labels["first"], made.labels["second"]) == (one.id, two.id)
    assert contrast(one, one).labels["kind"] == "contrast"


def test_unlike_units_never_mix() -> None:
    one = make([0.1], influence([1], [[1.0]]))
    two = make([20.0], influence([1], [[1.0]]), estimand=replace(ESTIMAND, unit="euro"))
    with pytest.raises(UsageError):
        contrast(one, two, across_estimands=True)


def test_what_cannot_be_joined_raises() -> None:
    one = make([0.1], influence([1], [[1.0]]))
    with pytest.raises(UsageError) as error:
        contrast(one, make([0.1]))
    assert code(error) == "effects.no_influence"
    with pytest.raises(UsageError) as error:
        joint_vcov([one, make([0.1], influence([1], [[1.0]], level="team"))])
    assert code(error) == "effects.levels_differ"
    with pytest.raises(UsageError) as error:
        contrast(one, make([0.1], influence([1], [[1.0]]), month=[2]))
    assert code(error) == "effects.no_common_month"


def test_subgroup_contrasts_compare_with_the_first_level() -> None:
    def level(name: str, value: float, outcome: str = "left_to_work") -> object:
        estimand = replace(ESTIMAND, outcome=outcome)
        labels = {"subgroup": name, "outcome": outcome}
        return make([value], influence([name], [[0.1]]), estimand=estimand, labels=labels)

    whole = make([0.5], influence(["x"], [[0.1]]))
    profiles = [whole, level("sex=m", 0.1), level("sex=v", 0.4), level("edu=a", 0.2), level("sex=m", 0.9, "other")]
    made = subgroup_contrasts(profiles)  # type: ignore[arg-type]
    assert [(p.labels["subgroup"], round(float(p.estimate[0]), 6)) for p in made] == [("sex=v - sex=m", 0.3)]
    assert made[0].std_error[0] == pytest.approx(np.sqrt(0.02), rel=EXACT)


# -- bands -----------------------------------------------------------------------------------------------------------


def test_band_of_one_month_is_the_interval() -> None:
    band = make([0.2], se=0.05).band(1)
    assert band.critical == pytest.approx(stats.norm.ppf(0.975), rel=EXACT)
    assert (band.band_low[0], band.band_high[0]) == (band.low[0], band.high[0])
    assert band.low[0] == pytest.approx(0.2 - 0.05 * stats.norm.ppf(0.975), rel=EXACT)


def test_perfectly_dependent_months_need_no_wider_band() -> None:
    band = make([0.1, 0.2, 0.3], influence([1], [[0.1, 0.2, 0.4]])).band(1, draws=200_000)
    assert band.critical == pytest.approx(stats.norm.ppf(0.975), abs=0.02)  # a simulated quantile of one |normal|


def test_independent_months_have_the_known_critical_value() -> None:
    """P(max |Z| <= c) = (2 Phi(c) - 1)^K."""
    band = make(np.zeros(12)).band(5, draws=QUANTILE_DRAWS)
    exact = stats.norm.ppf(0.5 + 0.95 ** (1 / 12) / 2)
    assert band.critical == pytest.approx(exact, abs=0.03)  # four standard errors of the simulated quantile


def test_band_is_the_multiplier_bootstrap() -> None:
    """Drawing from the covariance gives the critical value of the Gaussian multiplier bootstrap on the influence."""
    rng = np.random.default_rng(3)
    psi = np.cumsum(rng.standard_exponential((150, 9)) - 1, axis=1) / 150
    profile = make(np.zeros(9), Influence(np.arange(150), psi))
    ours = profile.band(11, draws=QUANTILE_DRAWS).critical
    largest = np.empty(QUANTILE_DRAWS)
    for start in range(0, QUANTILE_DRAWS, 5_000):
        xi = rng.standard_normal((5_000, 150))
        largest[start : start + 5_000] = np.abs(xi @ psi / profile.std_error).max(axis=1)
    theirs = float(np.quantile(largest, 0.95))
    near = np.mean(np.abs(largest - theirs) < 0.1) / 0.2  # density at the quantile
    error = np.sqrt(2 * 0.95 * 0.05 / QUANTILE_DRAWS) / near
    assert abs(ours - theirs) < MONTE_CARLO * error
    assert theirs > stats.norm.ppf(0.975) + 10 * error  # the comparison means something


def test_band_covers_the_whole_path_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    root = np.tril(np.ones((8, 8))) * 0.3 + np.eye(8)
    vcov = root @ root.T
    critical = band_of(np.zeros(8), vcov, np.inf, generator(1, "x")).critical
    paths = rng.standard_normal((2_000, 8)) @ root.T
    inside = (np.abs(paths) <= critical * np.sqrt(np.diag(vcov))).all(axis=1).mean()
    assert COVERAGE[0] < inside < COVERAGE[1]


def test_finite_degrees_of_freedom_widen() -> None:
    vcov = np.eye(4)
    normal = make(np.zeros(4), Covariance(vcov)).band(1)
    few = make(np.zeros(4), Covariance(vcov, df=6))
    band = few.band(1)
    assert few.critical() == pytest.approx(stats.t.ppf(0.975, 6), rel=EXACT)
    assert np.allclose(band.high, few.critical(), rtol=EXACT)
    assert band.critical > normal.critical
    # one common chi-square: the tail of max |Z| / sqrt(chi2 / df), simulated another way
    rng = np.random.default_rng(4)
    draws = np.abs(rng.standard_normal((QUANTILE_DRAWS, 4))).max(axis=1)
    draws /= np.sqrt(stats.chi2.rvs(6, size=QUANTILE_DRAWS, random_state=rng) / 6)
    assert few.band(1, draws=QUANTILE_DRAWS).critical == pytest.approx(np.quantile(draws, 0.95), abs=0.08)


def test_band_never_narrower_than_the_interval_and_leaves_out_what_is_unknown() -> None:
    vcov = np.diag([0.01, 0.0, 0.04])
    band = make([0.1, 0.0, np.nan], Covariance(vcov)).band(1)
    assert band.critical == pytest.approx(stats.norm.ppf(0.975), rel=EXACT)  # one month is left that varies
    assert (band.low[1], band.high[1]) == (0, 0)
    assert np.isnan(band.band_low[2])


def test_intervals_are_passed_on_without_a_band() -> None:
    band = make([0.1], Intervals([-0.2], [0.3], 0.9, "wild")).band(1)  # type: ignore[arg-type]
    assert (band.low[0], band.high[0], band.level) == (-0.2, 0.3, 0.9)
    assert np.isnan(band.band_low).all()


def test_band_depends_on_seed_and_profile_only() -> None:
    profile = make(np.zeros(5))
    assert profile.band(1).critical == profile.band(1).critical
    assert profile.band(1).critical != profile.band(2).critical
    assert profile.band(1).critical != make(np.zeros(5), labels={"outcome": "other"}).band(1).critical
    assert generator(1, "a", "b").random() != generator(1, "ab").random()
