"""Balance of plain arrays, overlap and who fell out: by hand, against cobalt and WeightIt, against loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from naive import sensitivity as naive
from scipy import stats
from scipy.special import expit
from tolerances import EXACT, REFERENCE, SOLVED

from evalkit.balance import balance_statistics, effective_size, is_binary
from evalkit.diagnostics import love_plot, overlap_density, who_was_dropped
from evalkit.errors import DesignError

CASES = json.loads((Path(__file__).parent / "reference" / "cobalt_cases.json").read_text())
COVARIATES = ("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75")
SHARES = np.isin(COVARIATES, ("black", "hisp", "marr", "nodegree"))


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_six_rows_by_hand() -> None:
    """Treated 2, 4; others 0, 2, 2, 9, weighing 1, 2, 1, 0 after: mean 1.5, variance (.25 2.25 + .75 .25) / .625."""
    x = np.array([[2.0], [4], [0], [2], [2], [9]])
    treated = np.array([1, 1, 0, 0, 0, 0], bool)
    made = balance_statistics(x, ["x"], None, treated, [1, 1, 1, 2, 1, 0])
    assert not made.binary[0]
    means = made.mean_treated_before[0], made.mean_comparison_before[0], made.mean_comparison_after[0]
    assert means == pytest.approx((3, 13 / 4, 1.5), abs=EXACT)
    assert made.sd_treated[0] == pytest.approx(np.sqrt(2), rel=EXACT)
    assert (made.smd_before[0], made.smd_after[0]) == pytest.approx((-0.25 / np.sqrt(2), 1.5 / np.sqrt(2)), abs=EXACT)
    assert made.vr_before[0] == pytest.approx(2 / np.var([0, 2, 2, 9], ddof=1), rel=EXACT)
    assert made.vr_after[0] == pytest.approx(2 / ((0.25 * 2.25 + 0.75 * 0.25) / 0.625), rel=EXACT)
    # distinct values 0, 2, 4, 9: treated 0, 1/2, 1, 1; others 1/4, 3/4, 3/4, 1 before and 1/4, 1, 1, 1 after
    assert (made.ks_before[0], made.ecdf_before[0]) == pytest.approx((0.25, 0.75 / 4), abs=EXACT)
    # after: the value 9, which has no weight left, still counts as a value
    assert (made.ks_after[0], made.ecdf_after[0]) == pytest.approx((0.5, 0.75 / 4), abs=EXACT)
    assert (made.n_treated, made.n_comparison) == (2, 3)
    assert made.ess_comparison == pytest.approx(16 / 6, rel=EXACT)


def test_shares_by_hand() -> None:
    """3/4 of the treated, 1/2 of the others: 1/4 raw, 1/4 over sqrt(3/16) for the treated, over 1/2 for the others."""
    x = np.array([[1.0], [1], [1], [0], [1], [0]])
    treated = np.array([1, 1, 1, 1, 0, 0], bool)
    one = np.ones(6)
    for target, scale in (("att", np.sqrt(3 / 16)), ("atc", 0.5), ("ate", np.sqrt((3 / 16 + 1 / 4) / 2))):
        made = balance_statistics(x, ["x"], None, treated, one, target=target)  # type: ignore[arg-type]
        assert made.smd_before[0] == pytest.approx(0.25 / scale, rel=EXACT)
        assert np.isnan(made.vr_before[0])
        assert made.ks_before[0] == made.ecdf_before[0] == pytest.approx(0.25, abs=EXACT)
    raw = balance_statistics(x, ["x"], None, treated, one, binary_convention="raw")
    assert raw.smd_before[0] == pytest.approx(0.25, abs=EXACT)
    assert raw.scale[0] == 1


def test_a_convention_for_shares_leaves_numbers_alone() -> None:
    rng = np.random.default_rng(1)
    x = np.column_stack([rng.normal(size=50), rng.integers(0, 2, 50)])
    treated = np.arange(50) < 20
    made = [
        balance_statistics(x, "ab", None, treated, np.ones(50), binary_convention=c) for c in ("standardised", "raw")
    ]
    assert made[0].smd_before[0] == made[1].smd_before[0]
    assert made[0].smd_before[1] != made[1].smd_before[1]


def test_a_column_without_spread() -> None:
    x = np.array([[1.0, 1], [1, 1], [1, 2], [1, 2]])
    made = balance_statistics(x, "ab", [False, False], np.array([1, 1, 0, 0], bool), np.ones(4))
    assert made.smd_before.tolist() == [0, -np.inf]
    assert np.isnan(made.vr_before).all()
    assert made.ks_before.tolist() == [0, 1]


def test_what_cannot_be_balanced_is_refused() -> None:
    x = np.array([[1.0, np.nan], [2.0, 3.0]])
    treated = np.array([True, False])
    with pytest.raises(DesignError, match="balance_missing") as raised:
        balance_statistics(x, ["a", "income"], None, treated, np.ones(2))
    assert raised.value.faults[0].params["names"] == "income"
    with pytest.raises(DesignError, match="balance_no_weight"):
        balance_statistics(x[:, :1], ["a"], None, treated, [1, 0])
    with pytest.raises(ValueError, match="not negative"):
        balance_statistics(x[:, :1], ["a"], None, treated, [1, -1])


def test_which_columns_are_shares() -> None:
    assert is_binary(np.array([[0, 1, 0.5], [1, 1, 0]])).tolist() == [True, True, False]


# -- cobalt -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nsw() -> tuple[np.ndarray, np.ndarray]:
    """Covariates of the treated of the experiment followed by those of the survey; the experiment's rows apart."""
    causaldata = pytest.importorskip("causaldata")
    mine = causaldata.nsw_mixtape.load_pandas().data
    other = causaldata.cps_mixtape.load_pandas().data
    names = list(COVARIATES)
    rows = np.concatenate([mine.loc[mine.treat == 1, names].to_numpy(float), other[names].to_numpy(float)])
    return rows, np.column_stack([mine.treat.to_numpy(float), mine[names].to_numpy(float)])


def propensity(x: np.ndarray) -> np.ndarray:
    coefficient = CASES["propensity"]
    return coefficient["(Intercept)"] + x @ np.array([coefficient[name] for name in COVARIATES])


def agree(ours: float, theirs: float | None) -> bool:
    if theirs is None:
        return bool(np.isnan(ours))
    return abs(ours - theirs) <= REFERENCE * max(1.0, abs(theirs))


def assert_as_cobalt(case: dict[str, object], x: np.ndarray, score: np.ndarray, weight: np.ndarray) -> None:
    treated = np.arange(len(x)) < 185
    table, names = np.column_stack([score, x]), ["distance", *COVARIATES]
    binary = np.append(False, SHARES)
    made = balance_statistics(table, names, binary, treated, weight)
    raw = balance_statistics(table, names, binary, treated, weight, binary_convention="raw")
    assert abs(made.ess_comparison - case["ess_control"]) < REFERENCE * case["ess_control"]  # type: ignore[operator]
    balance: dict[str, list[float | None]] = case["balance"]  # type: ignore[assignment]
    assert len(balance) >= 8
    for name, theirs in balance.items():
        j = names.index(name)
        ours = [
            made.smd_before[j],
            made.smd_after[j],
            made.vr_before[j],
            made.vr_after[j],
            made.ks_before[j],
            made.ks_after[j],
            raw.smd_before[j],
            raw.smd_after[j],
        ]
        assert all(agree(a, b) for a, b in zip(ours, theirs, strict=True)), (name, ours, theirs)


@pytest.mark.parametrize("name", CASES["matching"])
def test_balance_after_matching_is_that_of_cobalt(name: str, nsw: tuple[np.ndarray, np.ndarray]) -> None:
    x, case = nsw[0], CASES["matching"][name]
    weight = np.zeros(len(x))
    for row, controls in case["pairs"]:
        for control in controls:
            weight[row] = 1
            weight[control] += 1 / len(controls)
    score = propensity(x)
    assert_as_cobalt(case, x, score if "linear" in name else expit(score), weight)


def strata_weights(stratum: np.ndarray) -> np.ndarray:
    """Treated 1, others treated over others, in strata with both; 0 elsewhere."""
    _, code = np.unique(stratum, axis=0, return_inverse=True)
    code = code.ravel()
    treated = np.arange(len(code)) < 185
    n1, n0 = (np.bincount(code[a], minlength=code.max() + 1) for a in (treated, ~treated))
    both = (n1 > 0) & (n0 > 0)
    return np.where(both[code], np.where(treated, 1.0, n1[code] / np.maximum(n0[code], 1)), 0.0)


@pytest.mark.parametrize("name", CASES["strata"])
def test_balance_after_strata_is_that_of_cobalt(name: str, nsw: tuple[np.ndarray, np.ndarray]) -> None:
    x = nsw[0]
    chance = expit(propensity(x))
    if name == "subclass6":
        stratum = np.searchsorted(np.quantile(chance[:185], np.arange(1, 6) / 6), chance, side="right")[:, None]
    elif name == "cem":  # equal widths, Sturges, closed on the left
        bins = int(np.ceil(np.log2(len(x)) + 1))
        low, high = x.min(axis=0), x.max(axis=0)
        stratum = np.column_stack(
            [
                np.minimum(np.searchsorted(np.linspace(a, b, bins + 1), column, side="right"), bins)
                for column, a, b in zip(x.T, low, high, strict=True)
            ]
        )
    else:
        amounts = [0.5, 2000, 5000, 10000, 20000]
        cuts = {"age": range(20, 50, 5), "educ": [8.5, 11.5, 12.5], "re74": amounts, "re75": amounts}
        stratum = np.column_stack(
            [
                np.searchsorted(list(cuts[name]), column, side="right") if name in cuts else column
                for name, column in zip(COVARIATES, x.T, strict=True)
            ]
        )
    assert_as_cobalt(CASES["strata"][name], x, chance, strata_weights(stratum))


def fitted(x: np.ndarray, treated: np.ndarray) -> np.ndarray:
    """Chance of treatment by a logit, Newton's method."""
    design = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])
    beta = np.zeros(design.shape[1])
    for _ in range(60):
        p = expit(design @ beta)
        beta += np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design, design.T @ (treated - p))
    return np.asarray(expit(design @ beta))


@pytest.mark.parametrize("name", CASES["weighting"])
def test_balance_after_weighting_is_that_of_weightit(name: str, nsw: tuple[np.ndarray, np.ndarray]) -> None:
    """Weights of both arms and every target; the overlap targets take the pooled denominator too."""
    data, target = name.split("/")
    if data == "nsw_cps":
        x, treated = nsw[0], np.arange(len(nsw[0])) < 185
    else:
        x, treated = nsw[1][:, 1:], nsw[1][:, 0] == 1
    p = fitted(x, treated)
    weight = {
        "att": np.where(treated, 1, p / (1 - p)),
        "ate": np.where(treated, 1 / p, 1 / (1 - p)),
        "ato": np.where(treated, 1 - p, p),
        "atm": np.minimum(p, 1 - p) / np.where(treated, p, 1 - p),
    }[target]
    names = ("prop.score", *COVARIATES)
    table = np.column_stack([p, x])
    made = balance_statistics(table, names, None, treated, weight, target=target)  # type: ignore[arg-type]
    theirs = CASES["weighting"][name]
    for j, covariate in enumerate(names):
        assert agree(made.smd_before[j], theirs["smd_un"][covariate]), covariate
        assert agree(made.smd_after[j], theirs["smd_adj"][covariate]), covariate
    assert made.ess_treated == pytest.approx(theirs["ess_treated"], rel=REFERENCE)
    assert made.ess_comparison == pytest.approx(theirs["ess_control"], rel=REFERENCE)


# -- twins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["att", "atc", "ate"])
def test_balance_is_that_of_plain_loops(target: str) -> None:
    rng = np.random.default_rng(7)
    n = 60
    x = np.column_stack([rng.normal(size=n), rng.integers(0, 5, n), rng.integers(0, 2, n)]).astype(float)
    treated = rng.uniform(size=n) < 0.4
    weight = rng.exponential(size=n) * (rng.uniform(size=n) < 0.7)
    base = rng.exponential(size=n)
    made = balance_statistics(x, "abc", None, treated, weight, target=target, base=base)  # type: ignore[arg-type]
    for j in range(3):
        before, after = naive.balance(x[:, j], j == 2, treated, weight, base, target)
        ours = np.array(
            [
                [made.smd_before[j], made.vr_before[j], made.ks_before[j], made.ecdf_before[j]],
                [made.smd_after[j], made.vr_after[j], made.ks_after[j], made.ecdf_after[j]],
            ]
        )
        theirs = np.array([before, after])
        if j == 2:
            assert np.isnan(ours[:, 1]).all()
            ours, theirs = np.delete(ours, 1, axis=1), np.delete(theirs, 1, axis=1)
        assert np.allclose(ours, theirs, rtol=1e2 * EXACT, atol=1e2 * EXACT)


def test_the_distance_without_weights_is_that_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(3)
    x = np.round(rng.normal(size=300), 1)
    treated = rng.uniform(size=300) < 0.3
    made = balance_statistics(x[:, None], ["x"], None, treated, np.ones(300))
    assert made.ks_before[0] == pytest.approx(stats.ks_2samp(x[treated], x[~treated]).statistic, abs=1e2 * EXACT)
    assert made.ks_after[0] == made.ks_before[0]


def test_the_size_of_weights_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    x, treated, weight = rng.normal(size=(40, 2)), np.arange(40) < 15, rng.exponential(size=40)
    scaled = np.where(treated, 3.0, 0.01) * weight
    first, second = (balance_statistics(x, "ab", None, treated, w) for w in (weight, scaled))
    assert np.allclose(first.smd_after, second.smd_after, rtol=1e3 * EXACT)
    assert np.allclose(first.ks_after, second.ks_after, rtol=1e3 * EXACT)
    assert first.frame().shape == (2, 16)


# -- love plot --------------------------------------------------------------------------------------------------------


def test_love_plot_runs_from_the_largest_difference_down() -> None:
    x = np.array([[0.0, 5, 1], [0, 6, 2], [1, 5, 7], [0, 6, 8]])
    treated = np.array([1, 1, 0, 0], bool)
    table = balance_statistics(x, ("a", "b", "c"), [True, False, False], treated, np.ones(4), target="ate")
    made = love_plot(table)
    assert made.names == ("c", "a", "b")
    assert (made.before >= 0).all()
    assert (np.diff(made.before) <= 0).all()
    signed = love_plot(table, order="given", absolute=False)
    assert signed.names == ("a", "b", "c")
    assert signed.before[2] < 0
    assert np.array_equal(signed.before, table.smd_before)


# -- overlap ----------------------------------------------------------------------------------------------------------


def test_histogram_of_the_overlap_by_hand() -> None:
    score = np.array([0.1, 0.6, 0.7, 0.2, 0.3, 0.6])
    treated = np.array([1, 1, 1, 0, 0, 0], bool)
    made = overlap_density(score, treated, [1, 1, 1, 1, 0, 3], method="histogram", points=2)
    assert made.at.tolist() == [0.25, 0.75]
    assert made.treated == pytest.approx([2 / 3, 4 / 3], rel=EXACT)
    assert made.comparison == pytest.approx([4 / 3, 2 / 3], rel=EXACT)
    assert made.comparison_after == pytest.approx([0.5, 1.5], rel=EXACT)
    assert made.shared == pytest.approx(2 / 3, rel=EXACT)
    assert made.shared_after == pytest.approx(0.5 * (0.5 + 4 / 3), rel=EXACT)
    assert made.support == (0.2, 0.6)
    assert made.outside == (2, 0)


def test_density_integrates_to_one_and_is_that_of_a_kernel() -> None:
    rng = np.random.default_rng(5)
    score = rng.uniform(0.3, 0.7, 400)
    treated = rng.uniform(size=400) < 0.5
    made = overlap_density(score, treated, points=1001)
    for density in (made.treated, made.comparison):
        assert np.trapezoid(density, made.at) == pytest.approx(1, abs=1e-6)
    width = made.bandwidth[0]
    exact = stats.norm.pdf((made.at[:, None] - score[treated]) / width).mean(axis=1) / width
    assert np.abs(made.treated - exact).max() < 1e-4 * exact.max()  # bins of 1/2000 stand at the mean of their rows
    assert 0.7 < made.shared < 1


def test_mass_at_the_border_is_folded_back() -> None:
    score = np.concatenate([np.full(50, 0.0), np.linspace(0, 1, 50)])
    treated = np.arange(100) < 50
    made = overlap_density(score, treated, points=2001, bandwidth=0.05)
    assert np.trapezoid(made.treated, made.at) == pytest.approx(1, abs=1e-6)


def test_overlap_needs_both_arms() -> None:
    with pytest.raises(DesignError, match="overlap_arm_empty"):
        overlap_density([0.1, 0.2], [True, True])


def test_linear_scores_have_no_borders() -> None:
    rng = np.random.default_rng(6)
    score, treated = rng.normal(size=500), np.arange(500) < 100
    made = overlap_density(score, treated, limits=None, points=801)
    assert np.trapezoid(made.comparison, made.at) == pytest.approx(1, abs=1e-2)  # tails beyond three bandwidths
    assert made.at[0] < score.min()


# -- who was dropped --------------------------------------------------------------------------------------------------


def test_who_was_dropped_by_hand() -> None:
    """Treated 1, 2, 3, 6 (mean 3, sd sqrt(14/3)); 6 has no match: kept mean 2, one share of four gone."""
    x = np.array([[1.0, 0], [2, 1], [3, 1], [6, 1], [1, 0], [2, 0]])
    treated = np.array([1, 1, 1, 1, 0, 0], bool)
    kept = np.array([1, 1, 1, 0, 1, 0], bool)
    reason = np.array(["", "", "", "discarded", "", "no_match"])
    made = who_was_dropped(x, ("x", "z"), None, treated, kept, reason=reason)
    side = made.treated
    assert (side.n, side.kept, side.dropped, side.reasons) == (4, 3, 1, {"discarded": 1})
    assert (side.mean_all[0], side.mean_kept[0], side.mean_dropped[0]) == pytest.approx((3, 2, 6), abs=EXACT)
    assert side.sd_all == pytest.approx([np.sqrt(14 / 3), np.sqrt(3 / 16)], rel=EXACT)
    assert side.smd_kept[0] == pytest.approx(-1 / np.sqrt(14 / 3), rel=EXACT)
    assert side.smd_dropped[0] == pytest.approx(4 / np.sqrt(14 / 3), rel=EXACT)
    assert (made.answered, made.lost, made.restriction) == ("att_kept", 0.25, "discarded")
    assert made.comparison.reasons == {"no_match": 1}
    assert made.frame().shape == (4, 8)
    assert "3 of the 4" in made.sentence()
    assert "3 van de 4" in made.sentence("nl")


@pytest.mark.parametrize(
    ("target", "answered", "lost"), [("att", "att", 0.0), ("atc", "atc_kept", 0.5), ("ate", "ate_kept", 1 / 3)]
)
def test_what_a_loss_means_depends_on_the_target(target: str, answered: str, lost: float) -> None:
    treated = np.array([1, 0, 0], bool)
    kept = np.array([1, 1, 0], bool)
    made = who_was_dropped(np.zeros((3, 1)), ["x"], None, treated, kept, target=target)  # type: ignore[arg-type]
    assert (made.answered, made.lost) == (answered, pytest.approx(lost))
    for lang in ("en", "nl"):
        assert "{" not in made.sentence(lang)


def test_reasons_stand_in_order_of_size() -> None:
    kept = np.array([0, 0, 0, 1, 1], bool)
    reason = ["trimmed", "no_match", "no_match", "", ""]
    made = who_was_dropped(np.zeros((5, 1)), ["x"], None, np.array([1, 1, 1, 1, 0], bool), kept, reason=reason)
    assert made.restriction == "no_match+trimmed"
    assert np.isnan(made.comparison.mean_dropped).all()


def test_every_target_has_its_sentence() -> None:
    treated, kept = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    for target in ("att", "atc", "ate", "ato", "atm"):
        for used in (kept, np.ones(4, bool)):
            x = np.zeros((4, 1))
            made = who_was_dropped(x, ["x"], None, treated, used, target=target)
            assert made.sentence("nl") != made.sentence("en")


def test_effective_size_is_that_of_the_table() -> None:
    weight = np.array([2.0, 1, 1, 3, 1])
    treated = np.array([0, 0, 0, 1, 1], bool)
    made = balance_statistics(np.arange(5.0)[:, None], ["x"], None, treated, weight)
    assert made.ess_comparison == effective_size(weight[:3]) == pytest.approx(16 / 6, rel=SOLVED)
