"""Randomised designs: Neyman's variance, Lin's regression adjustment against statsmodels, clusters, missing months."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from tolerances import EXACT, MONTE_CARLO, SOLVED

from evalkit.effects import MonthlyEffect
from evalkit.errors import DesignError
from evalkit.experiment import difference

N, MONTHS = 90, 3


@pytest.fixture
def trial() -> dict[str, np.ndarray]:
    """Ninety people, 35 treated, three months, two covariates that matter differently in the two arms."""
    rng = np.random.default_rng(7)
    treated = np.arange(N) < 35
    rng.shuffle(treated)
    x = np.column_stack([rng.normal(50, 12, N), rng.integers(0, 2, N).astype(float)])
    slope = np.array([[0.1, 0.3, -0.2], [1.0, 2.0, 0.5]])
    y = x @ slope + treated[:, None] * (np.array([1.0, 2.0, 3.0]) + 0.05 * x[:, :1]) + rng.normal(size=(N, MONTHS)) * 2
    return {"treated": treated, "y": y, "x": x, "observed": np.ones((N, MONTHS), bool), "cluster": np.arange(N)}


def run(trial: dict[str, np.ndarray], *, adjust: bool = False, **more: object) -> MonthlyEffect:
    given = {key: trial[key] for key in ("treated", "y", "observed", "cluster")} | more
    return difference(**given, x=trial["x"] if adjust else None)  # type: ignore[arg-type]


def lin(trial: dict[str, np.ndarray], month: int, rows: np.ndarray, x: np.ndarray) -> object:
    """Least squares on (1, D, x - mean, D (x - mean)) with HC2 errors, by statsmodels."""
    d = trial["treated"][rows].astype(float)
    centred = x[rows] - x[rows].mean(axis=0)
    z = np.column_stack([np.ones(len(rows)), d, centred, centred * d[:, None]])
    return sm.OLS(trial["y"][rows, month], z).fit(cov_type="HC2")


def test_difference_in_means_has_neymans_variance(trial: dict[str, np.ndarray]) -> None:
    made = run(trial)
    one, zero = trial["y"][trial["treated"]], trial["y"][~trial["treated"]]
    assert np.allclose(made.estimate, one.mean(axis=0) - zero.mean(axis=0), rtol=SOLVED)
    assert np.allclose(made.counterfactual, zero.mean(axis=0), rtol=SOLVED)
    neyman = one.var(axis=0, ddof=1) / len(one) + zero.var(axis=0, ddof=1) / len(zero)
    assert np.allclose(np.diag(made.uncertainty.vcov), neyman, rtol=SOLVED)
    together = np.cov(one.T) / len(one) + np.cov(zero.T) / len(zero)
    assert np.allclose(made.uncertainty.vcov, together, rtol=SOLVED)  # months too go together as they should
    assert (made.n_treated.tolist(), made.n_comparison.tolist()) == ([35] * 3, [55] * 3)
    assert made.columns == 0


def test_six_people_by_hand() -> None:
    """Treated 1, 3 (mean 2, variance 2), untreated 0, 0, 3, 1 (mean 1, variance 2): 1, with variance 2/2 + 2/4."""
    y = np.array([[1.0], [3.0], [0.0], [0.0], [3.0], [1.0]])
    made = difference(np.arange(6) < 2, y, np.ones((6, 1), bool), np.arange(6))
    assert made.estimate[0] == pytest.approx(1, abs=EXACT)
    assert made.counterfactual[0] == pytest.approx(1, abs=EXACT)
    assert made.uncertainty.vcov[0, 0] == pytest.approx(1.5, abs=EXACT)


def test_regression_adjustment_is_lins_with_hc2(trial: dict[str, np.ndarray]) -> None:
    made = run(trial, adjust=True)
    for month in range(MONTHS):
        fit = lin(trial, month, np.arange(N), trial["x"])
        assert made.estimate[month] == pytest.approx(fit.params[1], rel=SOLVED)  # type: ignore[attr-defined]
        assert made.counterfactual[month] == pytest.approx(fit.params[0], rel=SOLVED)  # type: ignore[attr-defined]
        error = np.sqrt(made.uncertainty.vcov[month, month])
        assert error == pytest.approx(fit.bse[1], rel=SOLVED)  # type: ignore[attr-defined]
    assert made.columns == 2


def test_adjustment_does_not_depend_on_units_of_covariates(trial: dict[str, np.ndarray]) -> None:
    made = run(trial, adjust=True)
    scaled = run(trial | {"x": trial["x"] * np.array([1e6, 1e-3]) + np.array([0.0, 5.0])}, adjust=True)
    assert np.allclose(scaled.estimate, made.estimate, rtol=SOLVED)
    assert np.allclose(scaled.uncertainty.vcov, made.uncertainty.vcov, rtol=1e2 * SOLVED)


def test_clusters_sum_within_and_keep_the_estimate(trial: dict[str, np.ndarray]) -> None:
    alone = run(trial, adjust=True)
    cluster = np.arange(N) // 3 + 100
    made = run(trial, adjust=True, cluster=cluster, level="team")
    assert np.array_equal(made.estimate, alone.estimate)
    assert (made.uncertainty.level, len(made.uncertainty.ids)) == ("team", 30)
    summed = np.array([alone.uncertainty.values[cluster == c].sum(axis=0) for c in np.unique(cluster)])
    assert np.allclose(made.uncertainty.values, summed, rtol=0, atol=EXACT)


def test_twins_in_a_cluster_do_not_count_twice() -> None:
    """Everybody twice: clustered on the pair, the variance is that of the single data up to n / (n - 1)."""
    rng = np.random.default_rng(1)
    y, treated = rng.normal(size=(40, 1)), np.arange(40) % 2 == 0
    once = difference(treated, y, np.ones((40, 1), bool), np.arange(40)).uncertainty.vcov[0, 0]
    twice = difference(
        np.repeat(treated, 2), np.repeat(y, 2, axis=0), np.ones((80, 1), bool), np.repeat(np.arange(40), 2)
    )
    assert twice.uncertainty.vcov[0, 0] == pytest.approx(once * (19 / 20) / (39 / 40), rel=SOLVED)


def test_missing_months_use_those_who_are_seen(trial: dict[str, np.ndarray]) -> None:
    observed = trial["observed"].copy()
    observed[:10, 1] = False
    y = np.where(observed, trial["y"], np.nan)
    made = run(trial, adjust=True, observed=observed, y=y)
    everyone = run(trial, adjust=True)
    rows = np.arange(10, N)
    fit = lin(trial, 1, rows, trial["x"])
    assert made.estimate[1] == pytest.approx(fit.params[1], rel=SOLVED)  # type: ignore[attr-defined]
    assert np.sqrt(made.uncertainty.vcov[1, 1]) == pytest.approx(fit.bse[1], rel=SOLVED)  # type: ignore[attr-defined]
    assert np.allclose(made.estimate[[0, 2]], everyone.estimate[[0, 2]], rtol=SOLVED)
    assert (made.uncertainty.values[:10, 1] == 0).all()
    gone = trial["treated"][:10].sum()
    assert made.n_treated.tolist() == [35, 35 - gone, 35]
    assert made.n_comparison.tolist() == [55, 45 + gone, 55]


def test_collinear_and_constant_columns_are_left_out(trial: dict[str, np.ndarray]) -> None:
    made = run(trial, adjust=True)
    x = trial["x"]
    padded = np.column_stack([x, x @ [2.0, -1.0], np.full(N, 0.1), x[:, 0]])
    again = run(trial | {"x": padded}, adjust=True)
    assert np.allclose(again.estimate, made.estimate, rtol=1e2 * SOLVED)
    assert np.allclose(again.uncertainty.vcov, made.uncertainty.vcov, rtol=1e2 * SOLVED)


def test_a_covariate_without_spread_in_one_arm(trial: dict[str, np.ndarray]) -> None:
    """No treated person has it: its own effect stays, its interaction falls out."""
    mark = np.where(trial["treated"], 0.0, (np.arange(N) % 2).astype(float))
    made = run(trial | {"x": np.column_stack([trial["x"], mark])}, adjust=True)
    assert np.isfinite(made.estimate).all()
    assert (np.diag(made.uncertainty.vcov) > 0).all()


def test_too_few_people_for_covariates_gives_the_plain_difference(trial: dict[str, np.ndarray]) -> None:
    rows = np.concatenate([np.flatnonzero(trial["treated"])[:14], np.flatnonzero(~trial["treated"])])
    part = {key: value[rows] for key, value in trial.items()}
    assert run(part, adjust=True).columns == 0  # 14 < 5 x (2 + 1)
    assert np.array_equal(run(part, adjust=True).estimate, run(part).estimate)
    rows = np.concatenate([np.flatnonzero(trial["treated"])[:15], np.flatnonzero(~trial["treated"])])
    assert run({key: value[rows] for key, value in trial.items()}, adjust=True).columns == 2


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_in_an_arm_raises(trial: dict[str, np.ndarray], count: int) -> None:
    observed = trial["observed"].copy()
    observed[np.flatnonzero(trial["treated"])[count:], 2] = False
    with pytest.raises(DesignError) as error:
        run(trial, observed=observed)
    assert error.value.faults[0].code == "design.too_few"
    assert error.value.faults[0].params == {"treated": count, "comparison": 55}


def test_intervals_cover_the_average_effect() -> None:
    """Simulated lots with effects that differ between people: no bias, and errors as large as they should be."""
    rng = np.random.default_rng(12)
    x = rng.normal(size=(200, 1))
    zero = x[:, 0] + rng.normal(size=200)
    one = zero + 1 + 0.5 * x[:, 0]
    truth, draws, errors = (one - zero).mean(), [], []
    for _ in range(400):
        treated = rng.permutation(200) < 80
        y = np.where(treated, one, zero)[:, None]
        made = difference(treated, y, np.ones((200, 1), bool), np.arange(200), x)
        draws.append(made.estimate[0])
        errors.append(np.sqrt(made.uncertainty.vcov[0, 0]))
    spread = np.std(draws, ddof=1)
    assert abs(np.mean(draws) - truth) < MONTE_CARLO * spread / np.sqrt(400)
    assert 0.9 < np.mean(errors) / spread < 1.4  # never too small: HC2 also allows for sampling the people
