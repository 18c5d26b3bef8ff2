"""Weighting methods: rows worked by hand, brute-force twins, and what must not change a weight."""

from __future__ import annotations

import numpy as np
import pytest
from naive import weighting as naive
from tolerances import EXACT, SOLVED

from evalkit.matching.weighting import fit_dense_logit, weigh
from evalkit.matching.weighting.ipw import tilted
from evalkit.matching.weighting.terms import problem

OPTIMISER = 2e-4
"""Of the mean weight: a general-purpose optimiser in forty dimensions; the conditions of optimality hold exactly."""

TARGETS = ("att", "atc", "ate")

WAYS = (
    [{"how": "ipw", "target": target} for target in ("att", "atc", "ate", "ato", "atm")]
    + [{"how": "entropy", "target": target} for target in TARGETS]
    + [{"how": "cbps", "target": target, "over": over} for target in TARGETS for over in (False, True)]
    + [{"how": "stable", "target": target, "tolerance": wide} for target in TARGETS for wide in (0.0, 0.05)]
)


def drawn(rows=300, seed=1):
    """Treatment (n,), covariates (n, 5), base weights (n,) and outcome (n,)."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(rows, 3)), rng.random(rows) < 0.4, rng.exponential(size=rows)])
    treated = rng.random(rows) < 1 / (1 + np.exp(-(x @ [0.5, -0.3, 0.2, 0.6, -0.4])))
    y = x @ [1.0, 2.0, 0.0, 1.0, 1.0] + x[:, 0] ** 2 + rng.normal(size=rows) + treated
    return treated, x, rng.uniform(0.5, 2.0, rows), y


# one covariate with two values: 2 treated and 1 other with x = 1, 1 treated and 3 others with x = 0
TREATED = np.array([True, True, True, False, False, False, False])
X = np.array([[1.0], [1.0], [0.0], [1.0], [0.0], [0.0], [0.0]])
BY_HAND = {  # treated x = 1, treated x = 0, other x = 1, other x = 0; chances of treatment 2/3 and 1/4
    "att": (1, 1, 2, 1 / 3),
    "atc": (1 / 2, 3, 1, 1),
    "ate": (3 / 2, 4, 3, 4 / 3),
    "ato": (1 / 3, 3 / 4, 2 / 3, 1 / 4),
    "atm": (1 / 2, 1, 1, 1 / 3),
}


@pytest.mark.parametrize("way", [way for way in WAYS if not way.get("tolerance")], ids=str)
def test_two_cells_by_hand(way) -> None:
    found = weigh(TREATED, X, **way)
    a, b, c, d = BY_HAND[way["target"]]
    assert found.weight == pytest.approx([a, a, b, c, d, d, d], rel=SOLVED)
    population = {
        "att": TREATED,
        "atc": ~TREATED,
        "ate": np.ones(7),
        "ato": np.where(X[:, 0] == 1, 2 / 9, 3 / 16),
        "atm": np.where(X[:, 0] == 1, 1 / 3, 1 / 4),
    }[way["target"]]
    assert found.population == pytest.approx(np.asarray(population, float), rel=SOLVED)
    assert found.converged
    assert found.imbalance < SOLVED
    if way["how"] in ("ipw", "cbps"):
        assert found.score == pytest.approx(np.where(X[:, 0] == 1, 2 / 3, 1 / 4), rel=SOLVED)
    else:
        assert found.score is None


def test_stable_with_a_tolerance_by_hand() -> None:
    """Two thirds of the treated have x = 1, SD sqrt(2/9); with 0.5 SD that of the others may be 2/3 - sqrt(2)/6."""
    found = weigh(TREATED, X, how="stable", tolerance=0.5)
    share = 2 / 3 - np.sqrt(2) / 6
    assert found.weight == pytest.approx([1, 1, 1, 3 * share, 1 - share, 1 - share, 1 - share], rel=SOLVED)
    assert found.imbalance == pytest.approx(0.5, rel=SOLVED)
    loose = weigh(TREATED, X, how="stable", tolerance=1.0)  # equal weights differ by 0.88 SD: nothing binds
    assert loose.weight == pytest.approx([1, 1, 1, 0.75, 0.75, 0.75, 0.75], rel=SOLVED)
    assert loose.imbalance == pytest.approx((2 / 3 - 1 / 4) / np.sqrt(2 / 9), rel=SOLVED)


def test_overlap_is_the_target_of_overlap() -> None:
    treated, x, _, _ = drawn()
    one, other = weigh(treated, x, how="overlap"), weigh(treated, x, how="ipw", target="ato")
    assert one.target == "ato"
    assert (one.weight == other.weight).all()
    assert one.imbalance < SOLVED  # overlap weights from a logit balance exactly (Li, Morgan and Zaslavsky 2018)


def test_logit_against_statsmodels() -> None:
    import statsmodels.api as sm

    treated, x, base, _ = drawn()
    fitted = fit_dense_logit(treated, x, list("abcde"))
    other = sm.Logit(treated.astype(float), sm.add_constant(x)).fit(disp=0, tol=1e-14)
    assert fitted.names == ("intercept", "a", "b", "c", "d", "e")
    assert fitted.coefficients == pytest.approx(other.params, rel=SOLVED)
    assert fitted.vcov == pytest.approx(other.cov_params(), rel=SOLVED, abs=SOLVED)
    assert fitted.std_error == pytest.approx(other.bse, rel=SOLVED)
    assert fitted.loglik == pytest.approx(other.llf, rel=SOLVED)
    weighted = fit_dense_logit(treated, x, list("abcde"), base)
    assert weighted.coefficients == pytest.approx(naive.logit(treated, sm.add_constant(x), base), rel=SOLVED)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("wide", [None, 0.0, 0.1])
def test_closest_weights_against_the_primal(target, wide) -> None:
    """Entropy balancing (None) and stable weights as the papers state them, by sequential quadratic programming."""
    treated, x, base, _ = drawn(90, seed=2)
    asked = {"how": "entropy"} if wide is None else {"how": "stable", "tolerance": wide}
    found = weigh(treated, x, base=base, target=target, **asked)
    aim = {"att": treated, "atc": ~treated, "ate": np.ones(len(x), bool)}[target]
    total, mean = base[aim].sum(), np.average(x[aim], weights=base[aim], axis=0)
    share = np.array([len(np.unique(column)) == 2 for column in x.T])
    variance = []
    for arm in (treated, ~treated):
        middle = np.average(x[arm], weights=base[arm], axis=0)
        spread = np.average((x[arm] - middle) ** 2, weights=base[arm], axis=0)
        variance.append(spread * np.where(share, 1.0, arm.sum() / (arm.sum() - 1)))
    width = np.sqrt({"att": variance[0], "atc": variance[1], "ate": (variance[0] + variance[1]) / 2}[target])
    for arm in [~treated] if target == "att" else [treated] if target == "atc" else [treated, ~treated]:
        assert found.weight[arm].sum() == pytest.approx(total, rel=SOLVED)
        gap = np.abs(np.average(x[arm], weights=found.weight[arm], axis=0) - mean) / width
        assert gap.max() <= (wide or 0.0) + SOLVED
        if wide is None:
            expected = naive.entropy(x[arm], base[arm], mean, total)
            design = np.column_stack([np.ones(arm.sum()), x[arm]])  # log(w/q) is linear in x: the first-order condition
            log = np.log(found.weight[arm] / base[arm])
            assert design @ np.linalg.lstsq(design, log, rcond=None)[0] == pytest.approx(log, abs=SOLVED)
        else:
            expected = naive.stable(x[arm], base[arm], mean, total, None if wide == 0 else wide * width)
        assert found.weight[arm] == pytest.approx(expected, abs=OPTIMISER * total / arm.sum())
    if target in ("att", "atc"):
        assert found.weight[aim] == pytest.approx(base[aim], rel=EXACT)


@pytest.mark.parametrize("target", TARGETS)
def test_covariate_balancing_score_against_a_root_finder(target) -> None:
    treated, x, base, _ = drawn()
    z = naive.standardised(x)
    first = naive.logit(treated, z, base)
    exact = naive.just_identified(treated, z, base, target, first)
    found = weigh(treated, x, base=base, how="cbps", target=target)
    assert found.score == pytest.approx(naive.chance(z, exact), rel=1e-7)
    again = weigh(treated, x, base=base, how="entropy", target=target)
    if target != "ate":
        assert again.weight == pytest.approx(found.weight, rel=1e-8)
    over = weigh(treated, x, base=base, how="cbps", target=target, over=True)
    criterion = naive.gmm_criterion(treated, z, base, target, first)
    from scipy.optimize import minimize

    best = minimize(criterion, first, method="BFGS", options={"gtol": 1e-9})
    theta = np.linalg.lstsq(z, np.log(over.score / (1 - over.score)), rcond=None)[0]
    assert criterion(theta) <= best.fun + 1e-12
    assert over.score == pytest.approx(naive.chance(z, best.x), abs=1e-4)
    assert over.imbalance > 0.01  # it does not balance exactly, unlike the just-identified one
    assert found.imbalance < SOLVED


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_must_not_change_a_weight(way) -> None:
    """The order of rows, the units of covariates, rows without base weight; a base weight of two is a row twice."""
    treated, x, base, _ = drawn(200)
    found = weigh(treated, x, base=base, **way)
    order = np.random.default_rng(5).permutation(len(x))
    shuffled = weigh(treated[order], x[order], base=base[order], **way)
    assert shuffled.weight == pytest.approx(found.weight[order], rel=SOLVED, abs=EXACT)
    units = weigh(treated, x * [1e3, 1e-3, 1.0, 2.0, 1.0] + [7.0, 0.0, 1e5, 0.0, -3.0], base=base, **way)
    assert units.weight == pytest.approx(found.weight, rel=1e-7, abs=SOLVED)
    more = weigh(np.append(treated, True), np.vstack([x, x[:1]]), base=np.append(base, 0.0), **way)
    assert more.weight == pytest.approx(np.append(found.weight, 0.0), rel=SOLVED, abs=EXACT)
    if way["how"] != "stable" or not way["tolerance"]:  # that tolerance is in an SD with n - 1
        twice = weigh(np.append(treated, treated), np.vstack([x, x]), base=np.append(base, base) / 2, **way)
        assert twice.weight == pytest.approx(np.append(found.weight, found.weight) / 2, rel=1e-7, abs=SOLVED)
    tenfold = weigh(treated, x, base=10 * base, **way)
    assert tenfold.weight == pytest.approx(10 * found.weight, rel=1e-7, abs=SOLVED)


def test_powers_and_products_are_balanced() -> None:
    treated, x, _, _ = drawn(2_000)
    found = weigh(treated, x, how="entropy", moments=3, interactions=True)
    columns = [x[:, j] ** power for j in (0, 1, 2, 4) for power in (1, 2, 3)]
    columns += [x[:, i] * x[:, j] for i in range(5) for j in range(i)]
    wide = np.column_stack(columns)
    gap = np.average(wide[treated], axis=0) - np.average(wide[~treated], weights=found.weight[~treated], axis=0)
    assert gap / wide[treated].std(axis=0) == pytest.approx(np.zeros(wide.shape[1]), abs=1e-8)
    plain = weigh(treated, x, how="entropy")
    assert plain.imbalance < SOLVED
    gap = np.average(wide[treated], axis=0) - np.average(wide[~treated], weights=plain.weight[~treated], axis=0)
    assert np.abs(gap / wide[treated].std(axis=0)).max() > 0.01


def test_terms_that_follow_from_others_are_left_out() -> None:
    """Of a covariate with two values no powers; of two exclusive ones no product; of three values no cube."""
    rng = np.random.default_rng(0)
    level = rng.integers(0, 3, 400)
    x = np.column_stack([level == 1, level == 2, rng.integers(-1, 2, 400)]).astype(float)
    terms = problem(rng.random(400) < 0.5, x, np.ones(400), "att", ("a", "b", "c"), moments=3, interactions=True)
    assert terms.names == ("a", "b", "c", "c^2", "a x c", "b x c")
    assert terms.z.mean(axis=0) == pytest.approx([1.0] + [0.0] * 6, abs=EXACT * 10)
    assert terms.z[:, 1:].std(axis=0) == pytest.approx(np.ones(6), rel=SOLVED)


@pytest.mark.parametrize("target", ["att", "atc", "ate", "ato", "atm"])
def test_slopes_of_weights_and_population(target) -> None:
    eta = np.array([-3.0, -0.4, 0.3, 2.0] * 2)
    treated = np.arange(8) < 4
    step = 1e-6
    up, now, down = (tilted(treated, eta + shift, target) for shift in (step, 0.0, -step))
    assert now.weight_slope == pytest.approx((up.weight - down.weight) / (2 * step), abs=1e-7)
    assert now.population_slope == pytest.approx((up.population - down.population) / (2 * step), abs=1e-7)


def test_without_the_account_only_the_weights_come() -> None:
    treated, x, _, _ = drawn()
    for way in WAYS:
        full, bare = weigh(treated, x, **way), weigh(treated, x, account=False, **way)
        assert (bare.weight == full.weight).all()
        assert bare.derivative is None and bare.influence is None and bare.population_derivative is None
        assert full.derivative is not None and full.influence is not None
        assert (full.population_derivative is not None) == (way["target"] in ("ato", "atm"))
