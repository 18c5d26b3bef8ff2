"""A simulated confounder: chances by hand, a confounder that was really there, Rubin's rule, and the order of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from tolerances import EXACT, MONTE_CARLO

from evalkit.errors import DesignError, UsageError
from evalkit.hashing import hash_ids
from evalkit.sensitivity import Chances, killer_chances, observed_chances, simulated_confounder


def adjusting(treated: np.ndarray, outcome: np.ndarray, *columns: np.ndarray):  # type: ignore[no-untyped-def]
    """Regression on treatment, U and covariates."""

    def estimator(u: np.ndarray) -> tuple[float, float]:
        fit = sm.OLS(outcome, np.column_stack([np.ones(len(u)), treated, u, *columns])).fit()
        return float(fit.params[1]), float(fit.bse[1])

    return estimator


def drawn(seed: int = 1, n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Binary confounder, treatment, binary outcome; the true effect is 0.1."""
    rng = np.random.default_rng(seed)
    u = (rng.uniform(size=n) < 0.4).astype(float)
    treated = rng.uniform(size=n) < 0.2 + 0.4 * u
    outcome = rng.uniform(size=n) < 0.2 + 0.1 * treated + 0.4 * u
    return u, treated, outcome


def test_chances_by_hand() -> None:
    u = [1, 0, 1, 1, 0, 0, 1, 0]
    treated = [1, 1, 1, 1, 0, 0, 0, 0]
    high = [1, 1, 0, 0, 1, 1, 0, 0]
    made = observed_chances(u, treated, high)
    assert (made.p11, made.p10, made.p01, made.p00) == (0.5, 1.0, 0.0, 0.5)
    assert made.of(np.array([True, False]), np.array([False, True])).tolist() == [1.0, 0.0]


def test_a_killer_has_the_effects_asked_for() -> None:
    rng = np.random.default_rng(2)
    treated, high = rng.uniform(size=1000) < 0.3, rng.uniform(size=1000) < 0.5
    made = killer_chances(treated, high, d=0.3, s=0.2, prevalence=0.4, d_treated=0.1)
    assert made.p01 - made.p00 == pytest.approx(0.3, abs=EXACT)
    assert made.p11 - made.p10 == pytest.approx(0.1, abs=EXACT)
    by_arm = [made.of(treated, high)[a].mean() for a in (treated, ~treated)]
    assert by_arm[0] - by_arm[1] == pytest.approx(0.2, abs=1e2 * EXACT)
    assert made.of(treated, high).mean() == pytest.approx(0.4, abs=1e2 * EXACT)
    with pytest.raises(UsageError, match="chance_outside"):
        killer_chances(treated, high, d=0.9, s=0.9, prevalence=0.5)


def test_one_like_a_real_confounder_takes_its_bias_away() -> None:
    """U is left out and drawn again from its own chances by treatment and outcome: with outcome binary and no
    covariates the joint law of (U, D, Y) is that of the data, so adjusting for the drawn one gives what the real one
    gave."""
    u, treated, outcome = drawn(n=20_000)
    y = outcome.astype(float)
    plain = sm.OLS(y, np.column_stack([np.ones(len(y)), treated])).fit().params[1]
    real, error = adjusting(treated, y)(u)
    chances = observed_chances(u, treated, outcome)
    made = simulated_confounder(adjusting(treated, y), treated, outcome, chances, draws=40, baseline=float(plain))
    assert plain - real > 10 * error
    assert abs(made.estimate - real) < MONTE_CARLO * made.between  # u itself is one draw of forty-one
    assert made.baseline == plain
    table = [[(outcome & ~treated & (u == v)).sum(), (~outcome & ~treated & (u == v)).sum()] for v in (1, 0)]
    odds = table[0][0] * table[1][1] / (table[0][1] * table[1][0])
    assert made.outcome_effect == pytest.approx(odds, rel=0.05)
    odds = stats.contingency.odds_ratio(
        [
            [(treated & (u == 1)).sum(), (~treated & (u == 1)).sum()],
            [(treated & (u == 0)).sum(), (~treated & (u == 0)).sum()],
        ],
        kind="sample",
    ).statistic
    assert made.selection_effect == pytest.approx(odds, rel=0.05)


def test_a_neutral_confounder_changes_nothing() -> None:
    _, treated, outcome = drawn()
    y = outcome.astype(float)
    plain = float(sm.OLS(y, np.column_stack([np.ones(len(y)), treated])).fit().params[1])
    made = simulated_confounder(adjusting(treated, y), treated, outcome, Chances(0.5, 0.5, 0.5, 0.5), draws=50)
    assert abs(made.estimate - plain) < MONTE_CARLO * made.between / math.sqrt(50) + 1e-6
    assert made.outcome_effect == pytest.approx(1, abs=0.1)
    assert made.selection_effect == pytest.approx(1, abs=0.1)
    assert made.between < 0.1 * made.within


def test_the_error_is_that_of_rubin() -> None:
    _, treated, outcome = drawn(n=200)
    estimates = iter([1.0, 2.0, 4.0])
    made = simulated_confounder(
        lambda u: (next(estimates), 0.5), treated, outcome, Chances(0.2, 0.3, 0.4, 0.5), draws=3
    )
    between = np.var([1, 2, 4], ddof=1)
    total = 0.25 + (1 + 1 / 3) * between
    assert made.estimate == pytest.approx(7 / 3, rel=EXACT)
    assert made.std_error == pytest.approx(np.sqrt(total), rel=EXACT)
    assert (made.within, made.between) == pytest.approx((0.5, np.sqrt(between)), rel=EXACT)
    assert made.df == pytest.approx(2 * (1 + 0.25 / ((4 / 3) * between)) ** 2, rel=EXACT)
    assert made.high - made.estimate == pytest.approx(stats.t.ppf(0.975, made.df) * np.sqrt(total), rel=1e-9)


def test_effects_given_covariates_are_those_of_a_logit() -> None:
    u, treated, outcome = drawn(n=1500)
    x = np.random.default_rng(3).normal(size=(1500, 2)) + u[:, None]
    certain = observed_chances(u, treated, outcome)
    seen: list[np.ndarray] = []

    def estimator(drawn: np.ndarray) -> tuple[float, float]:
        seen.append(drawn)
        return 0.0, 1.0

    made = simulated_confounder(estimator, treated, outcome, certain, draws=2, covariates=x)
    theirs = []
    for one in seen:
        design = np.column_stack([np.ones(1500), one, x])
        first = sm.Logit(outcome[~treated].astype(float), design[~treated]).fit(disp=0)
        second = sm.Logit(treated.astype(float), design).fit(disp=0)
        theirs.append(np.exp([first.params[1], second.params[1]]))
    assert [made.outcome_effect, made.selection_effect] == pytest.approx(np.mean(theirs, axis=0), rel=1e-6)


def test_with_keys_the_order_of_rows_does_not_matter() -> None:
    _, treated, outcome = drawn(n=300)
    y, key = outcome.astype(float), hash_ids(1, map(str, range(300)))
    order = np.random.default_rng(4).permutation(300)
    chances = Chances(0.2, 0.5, 0.4, 0.7)
    first = simulated_confounder(adjusting(treated, y), treated, outcome, chances, draws=3, key=key)
    second = simulated_confounder(
        adjusting(treated[order], y[order]), treated[order], outcome[order], chances, draws=3, key=key[order]
    )
    assert np.allclose(first.draws, second.draws, rtol=1e-9)
    assert len(set(first.draws.tolist())) == 3
    other = simulated_confounder(adjusting(treated, y), treated, outcome, chances, draws=3, key=key, seed=2)
    assert not np.allclose(first.draws, other.draws)


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(DesignError, match="confounder_cell_empty"):
        observed_chances([1, 0], [1, 0], [1, 0])
    with pytest.raises(UsageError, match="chance_outside"):
        Chances(1.2, 0, 0, 0)
    with pytest.raises(ValueError, match="two draws"):
        simulated_confounder(lambda u: (0, 1), [True, False], [True, False], Chances(0, 0, 0, 0), draws=1)


def test_frame() -> None:
    _, treated, outcome = drawn(n=100)
    made = simulated_confounder(lambda u: (u.mean(), 1.0), treated, outcome, Chances(0.2, 0.3, 0.4, 0.5), draws=2)
    assert made.frame().shape == (1, 11)
