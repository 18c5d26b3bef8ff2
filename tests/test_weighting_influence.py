"""What is owed to the estimation of weights: against the derivative of the estimate in each row, and in simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from naive import weighting as naive
from test_weighting_methods import WAYS, drawn
from tolerances import MONTE_CARLO, SOLVED

from evalkit.matching.weighting import weigh

STEP = 1e-3
NUMERICAL = 1e-6
"""Of the largest influence: the derivative is a central difference; its error is of the order of the squared step."""

MORE = [
    {"how": "entropy", "target": "att", "moments": 2, "interactions": True},
    {"how": "cbps", "target": "ate", "moments": 2},
    {"how": "stable", "target": "att", "moments": 2},
]


@pytest.mark.parametrize("way", WAYS + MORE, ids=str)
def test_influence_is_the_derivative_in_each_row(way) -> None:
    """A row's influence in sum form is the slope of the estimate in its base weight, times that weight.

    True of every estimate that is a function of the weighted rows, so it checks derivative and influence of all
    methods at once: first steps, estimated targets and estimated standard deviations included.
    """
    treated, x, base, y = drawn()
    psi = naive.influence(weigh(treated, x, base=base, **way), y)
    for row in range(0, len(x), 20):
        effect = []
        for sign in (1, -1):
            moved = base.copy()
            moved[row] += sign * STEP
            effect.append(naive.hajek(treated, weigh(treated, x, base=moved, account=False, **way).weight, y))
        slope = (effect[0] - effect[1]) / (2 * STEP) * base[row]
        assert slope == pytest.approx(psi[row], abs=NUMERICAL * np.abs(psi).max())


@pytest.mark.parametrize("way", WAYS + MORE, ids=str)
def test_influences_add_up_to_nothing_and_matter(way) -> None:
    treated, x, base, y = drawn()
    found = weigh(treated, x, base=base, **way)
    assert found.influence.sum(axis=0) == pytest.approx(np.zeros(found.influence.shape[1]), abs=1e-8)
    fixed = naive.influence(replace(found, derivative=None, influence=None), y)
    assert np.linalg.norm(naive.influence(found, y)) < 0.9 * np.linalg.norm(fixed)


@pytest.mark.parametrize("target", ["ato", "atm"])
def test_population_of_overlap_moves_with_the_score(target) -> None:
    """The mean of a fixed function over the target population, with its influence, against the derivative in a row."""
    treated, x, base, _ = drawn()
    value = x[:, 0] ** 2
    found = weigh(treated, x, base=base, how="ipw", target=target)
    total = found.population.sum()
    mean = found.population @ value / total
    psi = found.population * (value - mean) / total
    psi = psi + found.influence @ (found.population_derivative.T @ (value - mean)) / total
    for row in range(0, len(x), 25):
        ends = []
        for sign in (1, -1):
            moved = base.copy()
            moved[row] += sign * STEP
            again = weigh(treated, x, base=moved, how="ipw", target=target, account=False)
            ends.append(np.average(value, weights=again.population))
        slope = (ends[0] - ends[1]) / (2 * STEP) * base[row]
        assert slope == pytest.approx(psi[row], abs=NUMERICAL * np.abs(psi).max())


def test_capped_rows_do_not_move_and_trimmed_rows_have_no_part() -> None:
    treated, x, base, y = drawn()
    plain = weigh(treated, x, base=base, how="ipw", target="ate")
    found = weigh(treated, x, base=base, how="ipw", target="ate", cap=3.0)
    above = plain.weight / base > 3.0
    assert found.truncated == above.sum() > 5
    assert found.cap == 3.0
    assert found.weight[above] == pytest.approx(3.0 * base[above], rel=SOLVED)
    assert (found.weight[~above] == plain.weight[~above]).all()
    assert (found.derivative[above] == 0).all()
    assert (found.derivative[~above] == plain.derivative[~above]).all()
    psi = naive.influence(found, y)
    for row in range(0, len(x), 30):
        ends = []
        for sign in (1, -1):
            moved = base.copy()
            moved[row] += sign * STEP
            again = weigh(treated, x, base=moved, how="ipw", target="ate", cap=3.0, account=False)
            ends.append(naive.hajek(treated, again.weight, y))
        assert (ends[0] - ends[1]) / (2 * STEP) * base[row] == pytest.approx(psi[row], abs=1e-5 * np.abs(psi).max())
    for how in ("ipw", "entropy", "cbps", "stable"):
        left = weigh(treated, x, base=base, how=how, trim=(0.2, 0.8))
        out = np.zeros(len(x), bool)
        out[left.trimmed] = True
        score = fitted_score(treated, x, base)
        assert (out == ((score < 0.2) | (score > 0.8))).all()
        assert 10 < out.sum() < 200
        for values in (left.weight, left.population, left.derivative, left.influence):
            assert (values[out] == 0).all()
        alone = weigh(treated[~out], x[~out], base=base[~out], how=how)
        assert left.weight[~out] == pytest.approx(alone.weight, rel=SOLVED, abs=SOLVED)
        assert left.influence[~out] == pytest.approx(alone.influence, rel=1e-7, abs=SOLVED)
        assert left.imbalance == pytest.approx(alone.imbalance, abs=SOLVED)


def fitted_score(treated, x, base):
    z = naive.standardised(x)
    return naive.chance(z, naive.logit(treated, z, base))


SIMULATED = [
    {"how": "ipw", "target": "att"},
    {"how": "ipw", "target": "ate"},
    {"how": "overlap"},
    {"how": "entropy", "target": "att"},
    {"how": "entropy", "target": "ate"},
    {"how": "cbps", "target": "ate"},
    {"how": "cbps", "target": "att", "over": True},
    {"how": "stable", "target": "att", "tolerance": 0.05},
]


@pytest.mark.slow
@pytest.mark.parametrize("way", SIMULATED, ids=str)
def test_intervals_cover(way) -> None:
    """1,000 samples of 600: the mean standard error is the spread of the estimates; 95 % intervals cover the effect.

    The effect differs with a covariate and the outcome depends much on covariates, so that standard errors that take
    the weights as known are far off. Stable weights with a tolerance leave a bias and are centred on their own mean.
    """
    rng = np.random.default_rng(20)
    draws, rows = 1_000, 600
    estimates, errors, naively = np.empty(draws), np.empty(draws), np.empty(draws)
    slope = np.array([0.5, -0.4, 0.3])
    big = rng.normal(size=(2_000_000, 3))
    e = 1 / (1 + np.exp(0.5 - big @ slope))
    target = "ato" if way["how"] == "overlap" else way["target"]
    weight = {"att": e, "ate": np.ones(len(e)), "ato": e * (1 - e)}[target]
    truth = np.average(1.0 + 2.0 * big[:, 0], weights=weight)
    for draw in range(draws):
        x = rng.normal(size=(rows, 3))
        treated = rng.random(rows) < 1 / (1 + np.exp(0.5 - x @ slope))
        y = x @ [3.0, 2.0, 1.0] + treated * (1.0 + 2.0 * x[:, 0]) + rng.normal(size=rows)
        found = weigh(treated, x, **way)
        estimates[draw] = naive.hajek(treated, found.weight, y)
        errors[draw] = np.linalg.norm(naive.influence(found, y))
        naively[draw] = np.linalg.norm(naive.influence(replace(found, derivative=None, influence=None), y))
    spread = estimates.std(ddof=1)
    if way["how"] == "stable":
        truth = estimates.mean()
    assert abs(estimates.mean() - truth) < MONTE_CARLO * spread / np.sqrt(draws) + 0.02
    assert abs(errors.mean() / spread - 1) < MONTE_CARLO / np.sqrt(2 * draws)
    covered = (np.abs(estimates - truth) < 1.96 * errors).mean()
    assert abs(covered - 0.95) < MONTE_CARLO * np.sqrt(0.95 * 0.05 / draws)
    assert naively.mean() / spread > 1.2
