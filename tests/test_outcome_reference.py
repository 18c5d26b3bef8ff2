"""Outcome steps and standard errors against MatchIt, Matching, WeightIt, lm with sandwich, and Stata."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels
from causaldata import cps_mixtape, nsw_mixtape
from naive import outcome as naive
from scipy import stats
from test_outcome_influence import logit_weights
from tolerances import REFERENCE

from evalkit.effects import Influence
from evalkit.matching.abadie_imbens import Neighbours
from evalkit.matching.adjustment import Matching, Pairs, Weights
from evalkit.matching.inference import PairSums, Score
from evalkit.matching.outcome import estimate

NAMES = ["age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"]
SAID = json.loads((Path(__file__).parent / "reference" / "matching_effects.json").read_text())
NOBODY = np.array([], np.int64)
STEPS = {"means": "weighted_means", "regression": "regression_adjusted", "gcomputation": "gcomputation"}


def rows_of(which):
    nsw = nsw_mixtape.load_pandas().data
    rows = nsw if which == "nsw_experiment" else pd.concat([nsw[nsw.treat == 1], cps_mixtape.load_pandas().data])
    x = np.column_stack([np.ones(len(rows)), rows[NAMES].to_numpy(float)])
    return rows.treat.to_numpy() == 1, x, rows.re78.to_numpy(float)


@pytest.fixture(scope="module")
def data():
    return {which: rows_of(which) for which in ("nsw_cps", "nsw_experiment")}


def answer(adjustment, y, x, **asked):
    return estimate(adjustment, y[:, None], np.ones((len(y), 1), bool), x, person=np.arange(len(y)), **asked)


def error_of(effect):
    return float(np.sqrt(effect.uncertainty.vcov[0, 0]))


def agrees(mine, value, se):
    """Contract 7, for the estimate and for its standard error."""
    assert abs(mine.estimate[0] - value) <= REFERENCE * max(abs(value), se)
    assert abs(error_of(mine) - se) <= REFERENCE * se


def matching_of(treated, focal, match, weight, target="att", sets=False):
    population = np.zeros(len(treated))
    population[focal] = 1
    pairs = Pairs(focal, match, weight, NOBODY, np.inf)
    subclass = None
    if sets:
        subclass = np.full(len(treated), -1)
        subclass[focal] = subclass[match] = focal
    total = population + np.bincount(match, weight, minlength=len(treated))
    return Matching(treated, target, population, total, pairs, subclass, NOBODY, NOBODY)


def strata_of(treated, code, target="att"):
    code = np.unique(code, axis=0, return_inverse=True)[1].ravel()
    both = (np.bincount(code, treated) > 0) & (np.bincount(code, ~treated) > 0)
    kept = both[code].astype(float)
    weight, population = naive.stratum_weights(treated, np.where(both[code], code, -1), np.ones(len(code)), target)
    return Matching(
        treated, target, population * kept, weight * kept, None, np.where(both[code], code, -1), NOBODY, NOBODY
    )


# MatchIt

PAIRS = [name for name, case in SAID["matchit"].items() if "controls" in case]


@pytest.mark.parametrize("model", STEPS)
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_matchit(data, name, model):
    treated, x, y = data["nsw_cps"]
    case = SAID["matchit"][name]
    focal, match, weight = [], [], []
    for i, others in enumerate(case["controls"]):
        others = [j for j in (others if isinstance(others, list) else [others]) if j is not None]
        focal += [i] * len(others)
        match += others
        weight += [1 / max(len(others), 1)] * len(others)
    sets = len(set(match)) == len(match)
    assert sets == ("repl" not in name or "norepl" in name)
    matching = matching_of(treated, np.array(focal), np.array(match), np.array(weight), sets=sets)
    mine = answer(matching, y, x, model=model, errors="pair_cluster")
    said = case["effect"]
    agrees(mine, said[f"att_{STEPS[model]}"], said[f"se_{STEPS[model]}_cluster_HC1"])


def codes(treated, x, name):
    numbers = x[:, 1:]
    if name == "exact":
        return numbers[:, [2, 3, 4, 5]]
    if name == "subclass6":
        said = SAID["propensity"]
        chance = 1 / (1 + np.exp(-x @ [said["(Intercept)"], *(said[k] for k in NAMES)]))
        cuts = np.quantile(chance[treated], np.linspace(0, 1, 7))
        return np.clip(np.searchsorted(cuts, chance, side="right"), 1, 6)
    cuts = {0: [20, 25, 30, 35, 40, 45], 1: [8.5, 11.5, 12.5]}
    cuts[6] = cuts[7] = [0.5, 2000, 5000, 10000, 20000]
    bins = max(1, int(np.ceil(np.log2(len(x)) + 1)))
    columns = []
    for k, column in enumerate(numbers.T):
        if name == "cem":
            edges = np.linspace(column.min(), column.max(), bins + 1)[1:-1]
        else:
            edges = cuts.get(k, [0.5])
        columns.append(np.searchsorted(edges, column, side="right"))
    return np.column_stack(columns)


@pytest.mark.parametrize("model", STEPS)
@pytest.mark.parametrize("name", ["exact", "subclass6", "cem", "cem_cutpoints"])
def test_strata_of_matchit(data, name, model):
    treated, x, y = data["nsw_cps"]
    matching = strata_of(treated, codes(treated, x, name))
    said = SAID["matchit"][name]["effect"]
    assert (matching.weight > 0).sum() == said["n_rows"]
    mine = answer(matching, y, x, model=model, errors="pair_cluster")
    agrees(mine, said[f"att_{STEPS[model]}"], said[f"se_{STEPS[model]}_cluster_HC1"])


def test_pair_clusters_without_factors(data):
    """HC0 without the factor for the number of sets is the bare sum of squares by set."""
    treated, x, y = data["nsw_cps"]
    case = SAID["matchit"]["nn_1to1_norepl"]
    match = np.array(case["controls"])
    matching = matching_of(treated, np.arange(185), match, np.ones(185), sets=True)
    mine = answer(matching, y, x, model="means")
    pairs = np.zeros((185, 1))
    ours = (y[:185] - y[:185].mean()) / 185 - (y[match] - y[match].mean()) / 185
    pairs[:, 0] = ours
    sums = PairSums(pairs, None, None, np.array([370.0]), np.array([2.0]))
    said = case["effect"]["se_weighted_means_cluster_HC0_nocadjust"]
    assert np.sqrt(sums.vcov(adjust=False)[0, 0]) == pytest.approx(said, rel=REFERENCE)
    assert mine.estimate[0] == pytest.approx(case["effect"]["att_weighted_means"], rel=REFERENCE)


@pytest.mark.parametrize("errors", ["HC0", "HC3"])
def test_six_classes_for_all(data, errors):
    """MatchIt moves rows so that each class has both arms, which our engine does too."""
    from evalkit.matching.match import match

    treated, x, y = data["nsw_cps"]
    said = SAID["propensity"]
    chance = 1 / (1 + np.exp(-x @ [said["(Intercept)"], *(said[k] for k in NAMES)]))
    matching = match(treated, how="subclass", target="ate", score=chance, subclasses=6)
    said = SAID["matchit"]["subclass6_ATE"]
    agrees(answer(matching, y, x, model="means", errors=errors), said["ate"], said[f"se_{errors}"])


@pytest.mark.parametrize("errors", ["HC1", "HC2", "HC3"])
@pytest.mark.parametrize("which", ["nsw_cps", "nsw_experiment"])
def test_plain_regression(data, which, errors):
    treated, x, y = data[which]
    plain = Weights(treated, "ate", np.ones(len(y)), np.ones(len(y)), None, None, None)
    mine = answer(plain, y, x, model="regression", errors=errors)
    agrees(mine, SAID["lm"][which]["treat"], SAID["lm"][which][errors])
    assert isinstance(mine.uncertainty, Influence)


# WeightIt


@pytest.mark.parametrize("target", ["ATT", "ATE", "ATO", "ATM"])
@pytest.mark.parametrize("which", ["nsw_cps", "nsw_experiment"])
def test_weights_from_a_logit(data, which, target):
    treated, x, y = data[which]
    scaled = x / np.abs(x).max(axis=0)
    if target == "ATM":
        weights = for_an_even_match(treated, scaled)
    else:
        weights = logit_weights(treated, scaled, target.lower())
    said = SAID["weightit"][which][f"ipw_logit_{target}"]
    agrees(answer(weights, y, x, model="means"), said["effect"], said["se_M_estimation"])
    agrees(answer(weights, y, x, model="means", errors="HC0"), said["effect"], said["se_HC0"])
    mine = answer(weights, y, x, model="regression", errors="HC0")
    agrees(mine, said["effect_regression_adjusted"], said["se_adj_HC0"])


def for_an_even_match(treated, z):
    """min(e, 1 - e) over the chance of the own arm, by hand."""
    ate = logit_weights(treated, z, "ate")
    e = ate.score
    slope = (e * (1 - e))[:, None] * z
    least, side = np.minimum(e, 1 - e), np.where(e < 0.5, 1.0, -1.0)[:, None]
    derivative = side * slope * ate.weight[:, None] + least[:, None] * ate.derivative
    return Weights(treated, "atm", least, least * ate.weight, e, derivative, ate.influence, side * slope)


@pytest.mark.parametrize("which", ["nsw_cps", "nsw_experiment"])
def test_entropy_balancing_with_targets_given_and_estimated(data, which):
    """WeightIt 1.1 takes the means of the treated as given; they are estimated, and the derivative says ours."""
    treated, x, y = data[which]
    z = np.column_stack([np.ones(len(y)), (x[:, 1:] - x[treated, 1:].mean(axis=0)) / x[treated, 1:].std(axis=0)])
    weight, population = naive.balancing_weights(treated, z, np.ones(len(y)))
    others = np.where(treated, 0, weight)[:, None]
    inverse = np.linalg.inv((z * others).T @ z)
    said = SAID["weightit"][which]["ebal_ATT"]
    given = Weights(treated, "att", population, weight, None, others * z, -(others * z) @ inverse)
    mine = answer(given, y, x, model="means")
    assert abs(mine.estimate[0] - said["effect"]) <= 1e-4 * said["se_M_estimation"]  # their solver stops earlier
    assert error_of(mine) == pytest.approx(said["se_M_estimation"], rel=REFERENCE)
    influence = (treated[:, None] * z - others * z) @ inverse
    full = answer(Weights(treated, "att", population, weight, None, others * z, influence), y, x, model="means")
    assert abs(error_of(full) / error_of(mine) - 1) > 3e-3
    if which == "nsw_experiment":
        few = np.concatenate([np.arange(10), np.arange(len(y) - 10, len(y))])

        def estimator(f):
            w, g = naive.balancing_weights(treated, z, f)
            return naive.effect("means", treated, x, y, w, g, f)

        for i in few:
            shift = np.zeros(len(y))
            shift[i] = 1e-4
            slope = (estimator(1 + shift) - estimator(1 - shift)) / 2e-4
            assert full.uncertainty.values[i, 0] == pytest.approx(slope, abs=1e-5 * error_of(full))


# Matching

MATCHING = [(which, name) for which, cases in SAID["matching"].items() for name in cases]


def all_ties(coordinates, treated, target, ratio, width=None, tolerance=1e-5):
    """Every row whose squared distance exceeds that of the last match by the tolerance at most."""
    focal, match, weight = [], [], []
    for arm in {"att": (True,), "atc": (False,), "ate": (True, False)}[target]:
        pool = np.flatnonzero(treated != arm)
        for i in np.flatnonzero(treated == arm):
            square = ((coordinates[pool] - coordinates[i]) ** 2).sum(axis=1)
            near = square <= np.partition(square, ratio - 1)[ratio - 1] + tolerance
            if width is not None:
                near &= np.sqrt(square) <= width
            found = pool[near]
            focal += [i] * len(found)
            match += found.tolist()
            weight += [1 / max(len(found), 1)] * len(found)
    return matching_of(treated, np.array(focal), np.array(match), np.array(weight), target)


def coordinates_of(name, treated, x):
    numbers = x[:, 1:]
    if "mahalanobis" in name:
        return numbers @ np.linalg.cholesky(np.linalg.inv(np.cov(numbers, rowvar=False)))
    if "_ps_" in name:
        scaled = x / np.abs(x).max(axis=0)
        linear = scaled @ naive.regress(scaled, treated.astype(float), np.ones(len(x)), "logit")
        numbers = (linear if "linear" in name else naive.mean_of(linear, "logit"))[:, None]
    return numbers / numbers.std(axis=0, ddof=1)


@pytest.mark.parametrize(("which", "name"), MATCHING)
def test_abadie_imbens_of_matching(data, which, name):
    treated, x, y = data[which]
    place = coordinates_of(name, treated, x)
    target = "ate" if "ATE" in name else "atc" if "ATC" in name else "att"
    width = 0.25 if "caliper" in name else None
    matching = all_ties(place, treated, target, 4 if "m4" in name else 1, width)
    said = SAID["matching"][which][name]
    assert len(matching.pairs.treated) == said["n_matched_pairs_rows"]
    number = 4 if "var_M4" in name else 2 if "varcalc2" in name else None
    model = "bias_corrected" if "biasadj" in name else "means"
    near = None if number is None else Neighbours(place, number)
    mine = answer(matching, y, x, model=model, errors="abadie_imbens", neighbours=near)
    value, se = said["est"], said["se_abadie_imbens"]
    if matching.population.sum() == treated.sum() - 1:
        # With a row outside the caliper Matching 4.10-8 counts it in, with a difference of zero: (0 - estimate)^2 more
        # in the sum, and one row more below it. Undone here: the other terms agree.
        kept = matching.population.sum()
        squares = error_of(mine) ** 2 * kept**2 + mine.estimate[0] ** 2
        assert np.sqrt(squares) / (kept + 1) == pytest.approx(se, rel=REFERENCE)
        assert abs(error_of(mine) / se - 1) > 1e-3
        se = error_of(mine)
    agrees(mine, value, se)


# Stata


@pytest.fixture(scope="module")
def births():
    path = Path(statsmodels.__file__).parent / "treatment" / "tests" / "results" / "cataneo2.csv"
    if not path.exists():
        pytest.skip("statsmodels without its tests")
    rows = pd.read_csv(path)
    ones = np.ones(len(rows))
    outcome = np.column_stack([ones, rows[["prenatal1_", "mmarried_", "mage", "fbaby_"]].to_numpy(float)])
    chance = np.column_stack([ones, rows[["mmarried_", "mage", "mage2", "fbaby_", "medu"]].to_numpy(float)])
    return rows.mbsmoke_.to_numpy() == 1, outcome, chance, rows.bweight.to_numpy(float)


def probit_weights(treated, z, target):
    """Weights from a probit by maximum likelihood, with the observed information, by hand."""
    theta, sign = np.zeros(z.shape[1]), 2.0 * treated - 1
    z = z / np.abs(z).max(axis=0)
    for _ in range(40):
        index = z @ theta
        ratio = sign * stats.norm.pdf(index) / stats.norm.cdf(sign * index)
        information = (z * (ratio * (ratio + index))[:, None]).T @ z
        theta = theta + np.linalg.solve(information, z.T @ ratio)
    e, slope = stats.norm.cdf(z @ theta)[:, None], stats.norm.pdf(z @ theta)[:, None] * z
    one = treated[:, None]
    if target == "ate":
        weight, derivative = np.where(one, 1 / e, 1 / (1 - e)), np.where(one, -slope / e**2, slope / (1 - e) ** 2)
    else:
        weight, derivative = np.where(one, 1, e / (1 - e)), np.where(one, 0, slope / (1 - e) ** 2)
    population = np.ones(len(e)) if target == "ate" else treated * 1.0
    influence = (z * ratio[:, None]) @ np.linalg.inv(information)
    return Weights(treated, target, population, weight[:, 0], e[:, 0], derivative, influence)


@pytest.mark.parametrize(("target", "suffix"), [("ate", ""), ("att", "_t")])
def test_stata_weights_and_regressions(births, target, suffix):
    treated, x, z, y = births
    weights = probit_weights(treated, z, target)
    agrees(answer(weights, y, x, model="means"), *SAID["stata"]["ipw" + suffix])
    agrees(answer(weights, y, x, model="gcomputation"), *SAID["stata"]["ipwra" + suffix])
    nothing = np.zeros((len(y), 1))
    plain = Weights(treated, target, weights.population, np.ones(len(y)), None, nothing, nothing)
    agrees(answer(plain, y, x, model="gcomputation"), *SAID["stata"]["ra" + suffix])


def test_stata_matching_on_an_estimated_score(births):
    """Printed with four and three decimals."""
    treated, _, z, y = births
    scaled = z / np.abs(z).max(axis=0)
    linear = scaled @ naive.regress(scaled, treated.astype(float), np.ones(len(y)), "logit")
    chance = naive.mean_of(linear, "logit")[:, None]
    matching = all_ties(chance, treated, "ate", 1, tolerance=1e-16)
    assert np.bincount(matching.pairs.treated).max() == 74
    mine = answer(
        matching, y, z, model="means", errors="abadie_imbens_estimated", neighbours=Neighbours(chance, 1),
        score=Score.of_logit(linear, scaled, treated),
    )  # fmt: skip
    value, se = SAID["stata"]["psmatch"]
    assert abs(mine.estimate[0] - value) < 0.5e-4
    assert abs(error_of(mine) - se) < 0.5e-3
