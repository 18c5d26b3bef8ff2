"""Tests of trends before treatment and their power: the published example, draws, and closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest
from naive import did_honest as naive
from scipy import special, stats
from tolerances import EXACT, MONTE_CARLO, REFERENCE, SOLVED

from evalkit.did import pretrends
from evalkit.did.effects import Effects
from evalkit.did.pretrends import pretrend_power, pretrend_test
from evalkit.effects import Covariance
from evalkit.errors import DesignError, UsageError

SAID = json.loads((Path(__file__).parent / "reference" / "did_honest.json").read_text())["pretrends"]


def effects_of(beta, sigma, pre):
    """Effects by event time, base -1."""
    at = np.arange(-1 - pre, len(beta) - pre)
    vcov = np.insert(np.insert(sigma, pre, 0.0, axis=0), pre, 0.0, axis=1)
    none = np.zeros(len(at), int)
    return Effects(
        "event", at, np.insert(beta, pre, 0.0), np.full(len(at), np.nan), none, none, Covariance(vcov), base=(-1,)
    )


def drawn(seed, pre, post, share=1.0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, pre + post)) + share * rng.normal(size=(60, 1))
    sigma = rows.T @ rows / 600
    return rng.multivariate_normal(np.zeros(pre + post), sigma), sigma


@pytest.fixture(scope="module")
def published():
    """The readme prints estimates with one small-sample factor; the stored covariance has another."""
    stored = np.array(SAID["sigma"])
    ratio = np.array(SAID["std_error"]) / np.sqrt(np.diag(stored))
    assert np.ptp(ratio) < 1e-6
    return effects_of(np.array(SAID["beta"]), stored * np.mean(ratio**2), SAID["pre"])


def test_the_slope_of_the_published_example(published):
    found = pretrend_power(published, power=0.5)
    assert found.slope == pytest.approx(SAID["slope_50"], rel=REFERENCE)
    assert found.power == pytest.approx(0.5, abs=SOLVED)
    assert found.bayes_factor == pytest.approx(SAID["linear"]["bayes_factor"], rel=REFERENCE)
    assert found.likelihood_ratio == pytest.approx(SAID["linear"]["likelihood_ratio"], rel=REFERENCE)
    assert found.mean_if_passed == pytest.approx(SAID["linear"]["mean_if_passed"], abs=1.5e-7)  # seven digits printed
    assert found.trend.tolist() == pytest.approx([found.slope * e for e in (-3, -2, -1, 1, 2, 3, 4)], rel=EXACT)


def test_another_shape_in_the_published_example(published):
    said = SAID["quadratic"]
    found = pretrend_power(published, trend=[said["coefficient"] * e**2 for e in (-3, -2, -1, 1, 2, 3, 4)])
    for name in ("power", "bayes_factor", "likelihood_ratio"):
        assert getattr(found, name) == pytest.approx(said[name], rel=REFERENCE), name
    assert found.mean_if_passed == pytest.approx(said["mean_if_passed"], abs=1.5e-7)
    assert np.isnan(found.slope)


@pytest.mark.parametrize("pre", [1, 2, 3, 4, 5, 6, 10])
def test_power_and_pretest_bias_are_those_of_draws(pre):
    beta, sigma = drawn(pre, pre, 2)
    found = pretrend_power(effects_of(beta, sigma, pre), power=0.6)
    rng = np.random.default_rng(pre)
    share, error, mean, spread = naive.pretrend_draws(found.trend, sigma, pre, special.ndtri(0.975), 400_000, rng)
    assert abs(1 - found.power - share) < MONTE_CARLO * error
    assert (np.abs(found.mean_if_passed - mean) < MONTE_CARLO * spread).all()
    assert found.post.tolist() == [False] * pre + [True] * 2
    # what passes is not what was true: with estimates that move together it starts from a worse place
    assert (np.abs(found.mean_if_passed - found.trend) > MONTE_CARLO * spread).any()


@pytest.mark.parametrize("pre", [2, 3, 4, 5, 6, 9, 24])
def test_the_rectangle_is_exact_where_it_can_be_checked(pre):
    """One common factor makes the probability a single integral."""
    load = np.linspace(0.3, 0.95, pre)
    correlation = np.outer(load, load) + np.diag(1 - load**2)
    mean = np.linspace(-1.5, 0.7, pre)
    z, w = np.polynomial.legendre.leggauss(400)
    z, w = 9 * z, 9 * w * np.exp(-((9 * z) ** 2) / 2) / np.sqrt(2 * np.pi)
    rest = np.sqrt(1 - load**2)[:, None]
    at = mean[:, None] + load[:, None] * z
    low, high = (-1.96 - at) / rest, (1.96 - at) / rest
    parts = special.ndtr(high) - special.ndtr(low)
    exact = float(parts.prod(axis=0) @ w)
    moved = rest * (np.exp(-(low**2) / 2) - np.exp(-(high**2) / 2)) / np.sqrt(2 * np.pi) + at * parts
    others = np.array([np.delete(parts, j, axis=0).prod(axis=0) for j in range(pre)])
    centre = (moved * others) @ w / exact
    probability, found = pretrends._Rectangle(correlation, 1.96).passed(mean)
    # beyond five quasi-random points, whose error is stated: of the probability, and of the mean in standard errors
    close, near = (1e-10, 1e-10) if pre <= 5 else (1e-5, 1e-4) if pre < 24 else (3e-4, 1e-3)
    assert probability == pytest.approx(exact, rel=close)
    assert found == pytest.approx(centre, abs=near)


def test_one_period_before_in_closed_form():
    sigma = np.array([[0.04, 0.03], [0.03, 0.09]])
    found = pretrend_power(effects_of(np.array([0.1, 0.3]), sigma, 1), slope=0.2)
    q = special.ndtri(0.975)
    truncated = stats.truncnorm(-q + 1.0, q + 1.0, loc=-0.2, scale=0.2)
    assert 1 - found.power == pytest.approx(stats.norm.cdf(q + 1) - stats.norm.cdf(-q + 1), rel=SOLVED)
    assert found.size == pytest.approx(0.05, rel=SOLVED)
    assert found.mean_if_passed[0] == pytest.approx(truncated.mean(), rel=SOLVED)
    assert found.mean_if_passed[1] == pytest.approx(0.2 + (truncated.mean() + 0.2) * 0.75, rel=SOLVED)


def test_the_joint_test_in_closed_form_and_by_draws():
    beta, sigma = drawn(3, 4, 2)
    found = pretrend_power(effects_of(beta, sigma, 4), power=0.8, rule="wald")
    inverse = np.linalg.inv(sigma[:4, :4])
    away = found.trend[:4] @ inverse @ found.trend[:4]
    limit = stats.chi2.ppf(0.95, 4)
    assert 1 - stats.ncx2.cdf(limit, 4, away) == pytest.approx(0.8, abs=SOLVED)
    assert found.size == pytest.approx(0.05, abs=SOLVED)
    rng = np.random.default_rng(3)
    noise = rng.multivariate_normal(found.trend, sigma, size=400_000)
    kept = noise[np.einsum("ij,jk,ik->i", noise[:, :4], inverse, noise[:, :4]) <= limit]
    error = kept.std(axis=0) / np.sqrt(len(kept))
    assert (np.abs(kept.mean(axis=0) - found.mean_if_passed) < MONTE_CARLO * error).all()
    flat = pretrend_power(effects_of(beta, sigma, 4), slope=0.0, rule="wald")
    assert flat.power == pytest.approx(flat.size, abs=SOLVED)
    assert flat.bayes_factor == pytest.approx(1.0, rel=SOLVED)
    assert flat.mean_if_passed == pytest.approx(np.zeros(6), abs=SOLVED)


def test_slopes_of_either_sign_are_as_easy_to_see():
    beta, sigma = drawn(5, 3, 1)
    effects = effects_of(beta, sigma, 3)
    up = pretrend_power(effects, power=0.8)
    down = pretrend_power(effects, slope=-up.slope)
    assert down.power == pytest.approx(0.8, abs=SOLVED)
    assert down.mean_if_passed == pytest.approx(-up.mean_if_passed, abs=SOLVED)
    assert pretrend_power(effects).slope < up.slope
    assert pretrend_power(effects, level=0.9).slope < pretrend_power(effects, level=0.99).slope
    assert pretrend_power(effects).slope == pretrend_power(effects, power=0.5).slope


def test_the_tests_themselves():
    beta, sigma = drawn(6, 3, 2)
    found = pretrend_test(effects_of(beta, sigma, 3))
    assert found.event.tolist() == [-4, -3, -2]
    assert found.wald == pytest.approx(beta[:3] @ np.linalg.solve(sigma[:3, :3], beta[:3]), rel=SOLVED)
    assert found.p_joint == pytest.approx(stats.chi2.sf(found.wald, 3), rel=SOLVED)
    top = np.abs(found.t).max()
    draws = np.random.default_rng(1).multivariate_normal(np.zeros(3), sigma[:3, :3], size=400_000)
    share = (np.abs(draws / found.std_error).max(axis=1) > top).mean()
    assert abs(found.p_any - share) < MONTE_CARLO * np.sqrt(share * (1 - share) / 400_000)
    assert pretrend_test(effects_of(beta, sigma, 3), window=(-3, 0)).event.tolist() == [-3, -2]
    one = pretrend_test(effects_of(beta, sigma, 3), window=(-2, 0))
    assert one.p_any == pytest.approx(one.p_joint, rel=SOLVED)
    none = pretrend_test(effects_of(beta * 1e-9, sigma, 3))
    assert none.p_any == pytest.approx(1.0, abs=SOLVED)


def test_a_singular_covariance_has_a_joint_test_of_its_rank():
    half = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 2.0], [1.0, 1.0]])
    sigma = half @ half.T
    beta = half @ [0.5, -0.7]
    found = pretrend_test(effects_of(beta, sigma, 3))
    assert (found.df, found.wald) == (2, pytest.approx(0.74, rel=SOLVED))
    assert np.isnan(found.p_any)


BETA, SIGMA = drawn(0, 2, 2)
EFFECTS = effects_of(BETA, SIGMA, 2)
SINGULAR = np.array([[1.0, 3.0, 0.0, 0.0], [3.0, 9.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
FAULTS = {
    "pretrend_one_of": [lambda: pretrend_power(EFFECTS, slope=1.0, power=0.5)],
    "pretrend_rule": [lambda: pretrend_power(EFFECTS, rule="all")],
    "pretrend_power_range": [lambda: pretrend_power(EFFECTS, power=0.05), lambda: pretrend_power(EFFECTS, power=1.0)],
    "pretrend_trend": [
        lambda: pretrend_power(EFFECTS, trend=[1.0, 2.0]),
        lambda: pretrend_power(EFFECTS, slope=float("nan")),
    ],
    "pretrend_never_passes": [
        lambda: pretrend_power(EFFECTS, slope=1e3),
        lambda: pretrend_power(EFFECTS, slope=1e3, rule="wald"),
    ],
    "honest_level": [lambda: pretrend_power(EFFECTS, level=0.05)],
    "honest_singular": [lambda: pretrend_power(effects_of(BETA, SINGULAR, 2))],
    "honest_no_pre": [lambda: pretrend_test(EFFECTS, window=(-1, 1))],
}


@pytest.mark.parametrize("code", FAULTS)
def test_what_it_refuses(code):
    for call in FAULTS[code]:
        with pytest.raises((UsageError, DesignError)) as error:
            call()
        fault = error.value.faults[0]
        assert fault.code == f"did.{code}"
        assert fault.text("en") and fault.text("nl")
