"""The multiplier bootstrap: its moments, its quantiles, and that a seed fixes every bit."""

import numpy as np
import pytest
from scipy import special, stats
from test_did_group_time import panel_of, simulated
from tolerances import EXACT, MONTE_CARLO, QUANTILE_DRAWS

from evalkit.did import multiplier
from evalkit.did.group_time import group_time
from evalkit.did.multiplier import multiplier_bootstrap
from evalkit.effects import Influence, generator
from evalkit.errors import UsageError

WEIGHTS = ("rademacher", "mammen", "webb", "normal")


def influence_of(clusters=300, effects=4, seed=1, factor=1.0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(clusters, 1))
    values = (common + rng.normal(size=(clusters, effects))) / clusters
    return Influence(np.arange(clusters), values, "unit", factor)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_multipliers_have_mean_zero_and_variance_one(weights):
    drawn = multiplier._multipliers(np.random.default_rng(3), 500, 403, weights)
    assert drawn.shape == (500, 403)
    n = drawn.size
    assert abs(drawn.mean()) <= MONTE_CARLO / np.sqrt(n)
    assert abs((drawn**2).mean() - 1) <= MONTE_CARLO * np.std(drawn**2) / np.sqrt(n) + EXACT
    third = {"mammen": 1.0}.get(weights, 0.0)
    assert abs((drawn**3).mean() - third) <= MONTE_CARLO * np.std(drawn**3) / np.sqrt(n)
    assert len(np.unique(drawn)) == {"rademacher": 2, "mammen": 2, "webb": 6}.get(weights, n)
    between = np.corrcoef(drawn[:, :2].T)[0, 1]  # another cluster, another number
    assert abs(between) <= MONTE_CARLO / np.sqrt(500)
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) <= MONTE_CARLO / np.sqrt(403)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("spread", ["iqr", "sd"])
def test_errors_are_those_of_the_influence(weights, spread):
    influence = influence_of(factor=1.3)
    draws = 4000
    found = multiplier_bootstrap(influence, seed=5, draws=draws, weights=weights, spread=spread)
    exact = np.sqrt(np.diag(influence.vcov))
    noise = {"sd": 1 / np.sqrt(2 * draws), "iqr": 1.167 / np.sqrt(draws)}[spread]
    np.testing.assert_allclose(found.std_error, exact, rtol=MONTE_CARLO * noise)
    assert (found.draws, found.clusters, found.weights, found.spread) == (draws, 300, weights, spread)


def test_draws_and_spread_in_plain_loops():
    influence = influence_of(clusters=37, effects=3)
    found = multiplier_bootstrap(influence, seed=2, draws=400)
    signs = multiplier._multipliers(generator(2, "multiplier", "rademacher"), 400, 37, "rademacher")
    drawn = np.array([[sum(s[g] * influence.values[g, k] for g in range(37)) for k in range(3)] for s in signs])
    error = [stats.iqr(drawn[:, k]) / (2 * stats.norm.ppf(0.75)) for k in range(3)]
    np.testing.assert_allclose(found.std_error, error, rtol=1e-12)
    largest = np.sort([max(abs(d[k]) / error[k] for k in range(3)) for d in drawn])
    assert found.critical == pytest.approx(largest[int(np.ceil(0.95 * 400)) - 1], rel=1e-12)
    sd = multiplier_bootstrap(influence, seed=2, draws=400, spread="sd")
    np.testing.assert_allclose(sd.std_error, np.sqrt((drawn**2).mean(axis=0)), rtol=1e-12)


def test_critical_value_is_that_of_the_largest_of_correlated_normals():
    influence = influence_of(clusters=800, effects=6)
    found = multiplier_bootstrap(influence, seed=1, draws=QUANTILE_DRAWS, spread="sd")
    correlation = np.corrcoef(influence.values.T)
    law = np.random.default_rng(0).multivariate_normal(np.zeros(6), correlation, QUANTILE_DRAWS)
    expected = np.quantile(np.abs(law).max(axis=1), 0.95)
    assert abs(found.critical - expected) < 0.04  # five errors of the difference of two such quantiles
    assert found.pointwise == pytest.approx(1.959964, abs=1e-6) and found.critical > 2.3


def test_one_effect_and_none():
    one = multiplier_bootstrap(influence_of(effects=1), seed=1)
    assert one.critical >= one.pointwise
    zero = Influence(np.arange(20), np.zeros((20, 2)))
    found = multiplier_bootstrap(zero, seed=1)
    assert not found.std_error.any() and found.critical == found.pointwise


def test_base_periods_take_no_part_and_bands_follow():
    events = group_time(panel_of(simulated()), control="never").aggregate()
    influence = events.uncertainty
    found = multiplier_bootstrap(influence, seed=3, level=0.9)
    base = events.std_error == 0
    assert base.any() and not found.std_error[base].any()
    kept = Influence(influence.ids, influence.values[:, ~base], influence.level)
    again = multiplier_bootstrap(kept, seed=3, level=0.9)
    np.testing.assert_allclose(again.std_error, found.std_error[~base], rtol=1e-10)
    assert again.critical == pytest.approx(found.critical, rel=1e-10)
    band = found.band(events.estimate)
    assert band.level == 0.9 and found.pointwise == pytest.approx(special.ndtri(0.95))
    np.testing.assert_array_equal(band.low[base], events.estimate[base])
    np.testing.assert_allclose(band.high - band.low, 2 * found.pointwise * found.std_error, atol=EXACT)
    np.testing.assert_allclose(band.band_high - band.band_low, 2 * found.critical * found.std_error, atol=EXACT)
    assert (band.band_low <= band.low).all() and (band.high <= band.band_high).all()


def test_a_seed_fixes_every_bit_and_blocks_only_the_memory(monkeypatch):
    influence = influence_of(clusters=20_000, effects=3)
    one, two = (multiplier_bootstrap(influence, seed=9) for _ in range(2))
    np.testing.assert_array_equal(one.std_error, two.std_error)
    assert one.critical == two.critical
    other = multiplier_bootstrap(influence, seed=10)
    assert (other.std_error != one.std_error).all()
    largest = []
    inside = multiplier._multipliers

    def watched(rng, draws, clusters, weights):
        largest.append(draws * clusters)
        return inside(rng, draws, clusters, weights)

    monkeypatch.setattr(multiplier, "_multipliers", watched)
    multiplier_bootstrap(influence, seed=9)
    assert len(largest) > 1 and max(largest) <= multiplier.BLOCK


@pytest.mark.parametrize(
    "asked", [{"weights": "x"}, {"spread": "x"}, {"draws": 199}, {"level": 1.0}, {"level": 0.1}], ids=str
)
def test_settings(asked):
    with pytest.raises(UsageError) as error:
        multiplier_bootstrap(influence_of(), seed=1, **asked)
    assert [f.code for f in error.value.faults] == ["did.multiplier_setting"]
    assert error.value.faults[0].params["setting"] in asked


def test_simultaneous_band_covers_all_at_once():
    """All event times together in 95 of 100 samples; pointwise intervals together in clearly fewer."""
    joint, apart, runs = 0, 0, 200
    for run in range(runs):
        rng = np.random.default_rng(run)
        values = rng.normal(size=(120, 1)) + rng.normal(size=(120, 5))
        error = values.mean(axis=0)  # the truth is zero
        influence = Influence(np.arange(120), (values - error) / 120)
        band = multiplier_bootstrap(influence, seed=run, draws=400).band(error)
        joint += bool(((band.band_low <= 0) & (band.band_high >= 0)).all())
        apart += bool(((band.low <= 0) & (band.high >= 0)).all())
    assert 0.90 <= joint / runs <= 0.99
    assert apart / runs < 0.90
