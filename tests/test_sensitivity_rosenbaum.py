"""Rosenbaum bounds: by hand, against rbounds, and against every hidden confounder there can be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from naive import sensitivity as naive
from scipy import stats
from tolerances import EXACT, MONTE_CARLO, REFERENCE, SOLVED

from evalkit.errors import DesignError, UsageError
from evalkit.sensitivity import (
    critical_gamma,
    hodges_lehmann_bounds,
    mantel_haenszel_bounds,
    matched_set_bounds,
    mcnemar_bounds,
    signed_rank_bounds,
)
from evalkit.sensitivity.rosenbaum import _most_biased

CASES = json.loads((Path(__file__).parent / "reference" / "sensitivity_cases.json").read_text())
TREATED, CONTROL = np.array(CASES["treated"]), np.array(CASES["control"])


# -- signed rank ------------------------------------------------------------------------------------------------------


def test_three_pairs_by_hand() -> None:
    """Differences 1, 2, 3: T = 6, reached only when all are positive: p^3."""
    made = signed_rank_bounds([1, 2, 3], [0, 0, 0], [1, 2], method="exact")
    assert made.statistic == 6
    assert made.high == pytest.approx([1 / 8, 8 / 27], rel=1e2 * EXACT)
    assert made.low == pytest.approx([1 / 8, 1 / 27], rel=1e2 * EXACT)
    less = signed_rank_bounds([0, 0, 0], [1, 2, 3], [2], method="exact", alternative="less")
    assert less.high[0] == pytest.approx(8 / 27, rel=1e2 * EXACT)


def test_psens_of_rbounds() -> None:
    """Four decimals, all that it prints: normal, equal pairs left out, no correction for continuity."""
    theirs = np.array(CASES["psens"])
    made = signed_rank_bounds(TREATED, CONTROL, theirs[:, 0])
    assert len(theirs) == 9
    assert np.abs(made.low - theirs[:, 1]).max() <= 0.5e-4 + EXACT
    assert np.abs(made.high - theirs[:, 2]).max() <= 0.5e-4 + EXACT
    assert made.statistic == CASES["wilcox"]["V"]
    assert made.high[0] == pytest.approx(CASES["wilcox"]["p_one_sided"], rel=REFERENCE)
    assert (made.n_sets, made.uninformative) == (172, 13)


def test_without_bias_the_exact_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    difference = rng.normal(0.4, 1, 18)
    made = signed_rank_bounds(difference, np.zeros(18), [1.0], method="exact")
    theirs = stats.wilcoxon(difference, alternative="greater", method="exact")
    assert made.statistic == theirs.statistic
    assert made.high[0] == made.low[0] == pytest.approx(theirs.pvalue, rel=SOLVED)


@pytest.mark.parametrize("gamma", [1.0, 1.7, 4.0])
def test_the_exact_bounds_are_those_of_every_sign(gamma: float) -> None:
    difference = np.array([1.0, 1, -2, 3, 0, 3, 4, -1, 6, 6])  # ties and a pair without difference
    made = signed_rank_bounds(difference, np.zeros(10), [gamma], method="exact")
    assert [made.low[0], made.high[0]] == pytest.approx(naive.signed_rank(difference, gamma), rel=SOLVED)


def test_the_normal_bounds_are_near_the_exact_ones() -> None:
    gammas = [1.0, 1.5, 2.0]
    exact, normal = (signed_rank_bounds(TREATED, CONTROL, gammas, method=m) for m in ("exact", "normal"))  # type: ignore[arg-type]
    assert np.allclose(exact.high, normal.high, atol=5e-3)  # no correction for continuity
    assert (exact.high[1:] > exact.low[1:]).all()


def test_bounds_hold_what_hidden_bias_can_do() -> None:
    """Treatment within pairs with odds of 2 that depend on the outcome: the upper bound keeps its size."""
    rng = np.random.default_rng(2)
    pairs, runs, gamma = 60, 2000, 2.0
    worst = np.empty(runs)
    for run in range(runs):
        y = rng.normal(size=(pairs, 2))
        larger = y.max(axis=1), y.min(axis=1)
        first = rng.uniform(size=pairs) < gamma / (1 + gamma)  # the larger outcome is treated with the largest odds
        treated, control = np.where(first, larger[0], larger[1]), np.where(first, larger[1], larger[0])
        worst[run] = signed_rank_bounds(treated, control, [gamma]).high[0]
    for size in (0.05, 0.2):
        share = (worst <= size).mean()
        assert abs(share - size) < MONTE_CARLO * math.sqrt(size * (1 - size) / runs) + 0.005  # normal for 60 pairs
    assert (worst <= 0.05).mean() < 0.08


# -- Hodges-Lehmann ---------------------------------------------------------------------------------------------------


def walsh(difference: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(len(difference))
    return np.sort((difference[i] + difference[j]) / 2)


def test_estimate_is_the_median_of_averages() -> None:
    rng = np.random.default_rng(3)
    for size in (5, 6, 7, 40):
        difference = rng.normal(size=size)
        made = hodges_lehmann_bounds(difference, np.zeros(size), [1.0])
        assert (
            made.estimate == made.low[0] == made.high[0] == pytest.approx(np.median(walsh(difference)), abs=1e2 * EXACT)
        )


def test_bounds_are_quantiles_of_averages() -> None:
    """Three pairs 0, 2, 6: averages 0 1 2 3 4 6; Gamma = 2: four above for the lower bound, two for the upper one."""
    made = hodges_lehmann_bounds([0, 2, 6], [0, 0, 0], [1.0, 2.0, 5.0])
    assert made.low == pytest.approx([2.5, 1.5, 0.5], abs=1e2 * EXACT)
    assert made.high == pytest.approx([2.5, 3.5, 5.0], abs=1e2 * EXACT)


def test_bounds_solve_the_equation_of_the_signed_rank_statistic() -> None:
    gammas = np.array([1.0, 1.25, 1.5, 2.0, 3.0])
    made = hodges_lehmann_bounds(TREATED, CONTROL, gammas)
    difference = TREATED - CONTROL
    half = len(difference) * (len(difference) + 1) / 2
    for bound, chance in ((made.low, gammas / (1 + gammas)), (made.high, 1 / (1 + gammas))):
        for shift, p in zip(bound, chance, strict=True):
            above, below = (signed_rank_bounds(difference, shift + e * np.ones(185)).statistic for e in (-1e-6, 1e-6))
            assert below <= p * half <= above
    assert (np.diff(made.low) < 0).all()
    assert (np.diff(made.high) > 0).all()


def test_hlsens_of_rbounds_is_the_next_step_outward() -> None:
    """rbounds starts at the estimate *without* equal pairs and walks in steps of 50 past the bound *with* them."""
    theirs, start = np.array(CASES["hlsens"]), CASES["hlsens_start"]
    made = hodges_lehmann_bounds(TREATED, CONTROL, theirs[:, 0])
    differing = TREATED != CONTROL
    alone = hodges_lehmann_bounds(TREATED[differing], CONTROL[differing], [1.0])
    assert alone.estimate == pytest.approx(start, rel=5e-6)  # R iterates to 1e-4 on a step function
    assert theirs[0, 1] == theirs[0, 2] == pytest.approx(start, rel=1e-4)  # printed in five digits
    for gamma, low, high, printed in zip(made.gamma[1:], made.low[1:], made.high[1:], theirs[1:], strict=True):
        stepped = start - 50 * math.ceil((start - low) / 50), start + 50 * math.ceil((high - start) / 50)
        assert stepped == pytest.approx(tuple(printed[1:]), rel=1e-4), gamma
    assert made.estimate == pytest.approx(1284.2166, abs=1e-3)  # not 1538.4: the 13 equal pairs count too


# -- binary -----------------------------------------------------------------------------------------------------------


def test_mcnemar_by_hand() -> None:
    """Three discordant pairs, all treated only: p^3; with two of three: 3 p^2 (1 - p) + p^3."""
    assert mcnemar_bounds(3, 0, [1, 2]).high == pytest.approx([1 / 8, 8 / 27], rel=1e2 * EXACT)
    assert mcnemar_bounds(2, 1, [2]).high[0] == pytest.approx(20 / 27, rel=1e2 * EXACT)
    assert mcnemar_bounds(2, 1, [2]).low[0] == pytest.approx(7 / 27, rel=1e2 * EXACT)
    assert mcnemar_bounds(1, 2, [2], alternative="less").high[0] == pytest.approx(20 / 27, rel=1e2 * EXACT)


@pytest.mark.parametrize("name", CASES["binarysens"])
def test_binarysens_of_rbounds_leaves_the_observed_number_out(name: str) -> None:
    """Its figures are P(B > b): ours with one more pair. At Gamma = 1 ours is McNemar's exact test."""
    few, many = map(int, name.split(","))
    theirs = np.array(CASES["binarysens"][name])
    shifted = mcnemar_bounds(many + 1, few - 1, theirs[:, 0])
    assert np.abs(shifted.low - theirs[:, 1]).max() <= 0.5e-5 + EXACT
    assert np.abs(shifted.high - theirs[:, 2]).max() <= 0.5e-5 + EXACT
    made = mcnemar_bounds(many, few, theirs[:, 0])
    assert made.high[0] == pytest.approx(stats.binomtest(many, many + few, alternative="greater").pvalue, rel=SOLVED)
    assert (made.high > theirs[:, 2]).all()


def test_sets_of_two_are_pairs() -> None:
    size, events = np.full(40, 2), np.repeat([0, 1, 2], [10, 25, 5])
    hit = np.r_[np.zeros(10), np.arange(25) < 18, np.ones(5)].astype(bool)
    made = mantel_haenszel_bounds(size, events, hit, [1, 1.5, 3])
    pairs = mcnemar_bounds(18, 7, [1, 1.5, 3])
    assert np.allclose(made.high, pairs.high, rtol=SOLVED)
    assert np.allclose(made.low, pairs.low, rtol=SOLVED)
    assert (made.n_sets, made.uninformative) == (25, 15)


@pytest.mark.parametrize("gamma", [1.0, 2.5])
def test_set_bounds_are_the_worst_of_all_confounders(gamma: float) -> None:
    sets = [((1, 0, 0), 0), ((1, 1, 0), 0), ((0, 1, 1), 0)]
    made = mantel_haenszel_bounds(
        [len(e) for e, _ in sets], [sum(e) for e, _ in sets], [e[j] == 1 for e, j in sets], [gamma]
    )
    assert [made.low[0], made.high[0]] == pytest.approx(naive.worst_tail(sets, gamma), rel=SOLVED)


def test_fewer_events_is_more_of_the_others() -> None:
    size, events = np.array([3, 3, 4, 2, 3]), np.array([1, 2, 1, 1, 2])
    hit = np.array([0, 0, 0, 1, 1], bool)
    less = mantel_haenszel_bounds(size, events, hit, [1, 2], alternative="less")
    mirrored = mantel_haenszel_bounds(size, size - events, ~hit, [1, 2])
    assert np.array_equal(less.high, mirrored.high)


def test_normal_and_exact_agree_for_many_sets() -> None:
    rng = np.random.default_rng(4)
    size = rng.integers(2, 6, 3000)
    events = np.array([rng.integers(1, n) for n in size])
    hit = rng.uniform(size=3000) < events / size + 0.05
    exact, normal = (mantel_haenszel_bounds(size, events, hit, [1, 1.1], method=m) for m in ("exact", "normal"))  # type: ignore[arg-type]
    assert np.allclose(exact.high, normal.high, atol=0.01)


# -- sets, any outcome ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 1.5, 6.0])
def test_the_most_biased_assignment_is_found(gamma: float) -> None:
    rng = np.random.default_rng(5)
    for size in (2, 3, 5, 7):
        for scores in (rng.normal(size=size), rng.integers(0, 3, size).astype(float)):
            if np.ptp(scores) > 0:
                assert _most_biased(np.sort(scores)[None, :], gamma) == pytest.approx(
                    naive.most_biased(scores, gamma), rel=SOLVED
                )


def test_without_bias_the_set_test_is_a_permutation_test() -> None:
    """Gamma = 1: expectation and variance of T over all assignments within sets, enumerated by drawing."""
    rng = np.random.default_rng(6)
    subclass = np.repeat(np.arange(30), 4)
    outcome = rng.normal(size=120) + subclass
    treated = np.tile([True, False, False, False], 30)
    made = matched_set_bounds(outcome, treated, subclass, [1.0])
    assert made.low[0] == pytest.approx(made.high[0], rel=SOLVED)
    drawn = []
    for _ in range(1200):
        picked = np.zeros((30, 4), bool)
        picked[np.arange(30), rng.integers(0, 4, 30)] = True
        drawn.append(matched_set_bounds(outcome, picked.ravel(), subclass, [1.0]).statistic)
    share = np.mean(np.array(drawn) >= made.statistic - 1e-12)
    assert abs(share - made.high[0]) < MONTE_CARLO * math.sqrt(share * (1 - share) / 1200) + 0.01  # 30 sets: normal


def test_full_matching_turns_round() -> None:
    """A set of one control and several treated is one of a lone treated with outcomes and arms turned round."""
    rng = np.random.default_rng(7)
    subclass, lone = np.repeat(np.arange(20), 3), np.tile([True, False, False], 20)
    outcome = rng.normal(size=60)
    direct = matched_set_bounds(outcome, lone, subclass, [1, 2])
    turned = matched_set_bounds(-outcome, ~lone, subclass, [1, 2])
    assert np.allclose(direct.high, turned.high, rtol=SOLVED)
    less = matched_set_bounds(-outcome, lone, subclass, [1, 2], alternative="less")
    assert np.allclose(direct.high, less.high, rtol=SOLVED)


def test_bias_widens_the_bounds_and_rows_outside_sets_do_not_count() -> None:
    rng = np.random.default_rng(8)
    subclass = np.append(np.repeat(np.arange(80), 3), [-1, -1])
    treated = np.append(np.tile([True, False, False], 80), [True, False])
    outcome = rng.normal(size=242) + 0.6 * treated
    outcome[-2:] = 1e6
    made = matched_set_bounds(outcome, treated, subclass, [1, 1.3, 2, 4])
    assert (np.diff(made.high) > 0).all()
    assert (np.diff(made.low) < 0).all()
    assert made.n_sets == 80
    assert made.high[0] < 0.01


# -- one number and refusals ------------------------------------------------------------------------------------------


def test_critical_gamma_solves_for_alpha() -> None:
    found = critical_gamma(lambda gamma: mcnemar_bounds(24, 2, gamma))
    assert mcnemar_bounds(24, 2, [found]).high[0] == pytest.approx(0.05, abs=1e-6)
    assert mcnemar_bounds(24, 2, [found + 1e-3]).high[0] > 0.05
    assert math.isnan(critical_gamma(lambda gamma: mcnemar_bounds(3, 3, gamma)))
    assert critical_gamma(lambda gamma: mcnemar_bounds(400, 0, gamma), largest=5) == math.inf


def test_frames() -> None:
    assert list(mcnemar_bounds(3, 1).frame().columns) == ["gamma", "p_low", "p_high"]
    assert len(hodges_lehmann_bounds([1, 2], [0, 0]).frame()) == 7


def test_what_cannot_be_bounded_is_refused() -> None:
    with pytest.raises(UsageError, match="gamma_below_one"):
        mcnemar_bounds(3, 1, [0.5])
    with pytest.raises(DesignError, match="no_differing_pairs"):
        signed_rank_bounds([1, 2], [1, 2])
    with pytest.raises(DesignError, match="no_differing_pairs"):
        mcnemar_bounds(0, 0)
    with pytest.raises(UsageError, match="exact_too_large"):
        signed_rank_bounds(np.arange(700.0) + 1, np.zeros(700), method="exact")
    with pytest.raises(DesignError, match="sets_not_one_to_many"):
        matched_set_bounds(np.arange(4.0), [True, True, False, False], [0, 0, 0, 0])
    with pytest.raises(ValueError, match="finite"):
        signed_rank_bounds([np.nan], [0])
