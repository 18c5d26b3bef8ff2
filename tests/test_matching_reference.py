"""Agreement with MatchIt 4.7.1 and Matching 4.10-8: the same pairs, weights and differences."""

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from tolerances import REFERENCE, SOLVED

from evalkit.matching.distance import place
from evalkit.matching.match import match

CASES = json.loads((Path(__file__).parent / "reference" / "matchit_cases.json").read_text())
NAMES = ["age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"]
RAW = {"caliper_unit": "raw"}


class Rows:
    """One data set: treatment, covariates, outcome, the score from R's coefficients and one fitted here."""

    def __init__(self, frame):
        self.treated = frame.treat.to_numpy() == 1
        self.x = frame[NAMES].to_numpy(float)
        self.y = frame.re78.to_numpy(float)
        coefficients = CASES["coefficients"]
        self.linear = coefficients["(Intercept)"] + sum(coefficients[k] * frame[k].to_numpy(float) for k in NAMES)
        design = sm.add_constant(self.x)
        fit = sm.Logit(self.treated.astype(float), design).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
        self.fitted = design @ fit.params

    def column(self, *names):
        return self.x[:, [NAMES.index(name) for name in names]]

    def difference(self, made):
        """Weighted difference in outcomes and its standard error as two independent weighted means."""
        parts = []
        for arm in (self.treated, ~self.treated):
            w = made.weight[arm] / made.weight[arm].sum()
            mean = w @ self.y[arm]
            parts.append((mean, (w**2) @ (self.y[arm] - mean) ** 2))
        return parts[0][0] - parts[1][0], (parts[0][1] + parts[1][1]) ** 0.5


@pytest.fixture(scope="module")
def frames():
    causaldata = pytest.importorskip("causaldata")
    import pandas as pd

    experiment = causaldata.nsw_mixtape.load_pandas().data
    controls = causaldata.cps_mixtape.load_pandas().data
    both = pd.concat([experiment[experiment.treat == 1], controls], ignore_index=True)
    return {"nsw_cps": Rows(both), "nsw_experiment": Rows(experiment.reset_index(drop=True))}


def chance(linear):
    return 1 / (1 + np.exp(-linear))


def options_of(case, rows, linear):
    score = chance(linear)
    plain = {"score": score, "tie": "walk"}
    return {
        "nn_1to1_norepl": plain,
        "nn_1to1_norepl_caliper02": plain | {"caliper": 0.2},
        "nn_1to1_norepl_linear_caliper02": {"score": linear, "tie": "walk", "caliper": 0.2},
        "nn_1to3_repl": plain | {"ratio": 3, "replace": True},
        "nn_1to1_repl": plain | {"replace": True},
        "nn_1to1_repl_caliper": plain | {"replace": True, "caliper": 0.1},
        "nn_mdata": plain | {"order": "data"},
        "maha_exact": {"covariates": rows.x, "tie": "walk", "exact": rows.column("black", "marr")},
        "maha_exact_repl": {
            "covariates": rows.x, "tie": "walk", "replace": True,
            "exact": rows.column("black", "hisp", "marr", "nodegree"),
        },
        "maha_mahvars_caliper": plain | {
            "covariates": rows.column("age", "educ", "re74", "re75"), "distance": "mahalanobis", "caliper": 0.25,
        },
    }[case]  # fmt: skip


PAIRED = [case for case, content in CASES["cases"].items() if "pairs" in content]


@pytest.mark.parametrize("case", PAIRED)
@pytest.mark.parametrize("source", ["linear", "fitted"])
def test_pairs_are_those_of_matchit(frames, case, source):
    """With the score from R's coefficients and with one fitted here; the order within a set of three is free."""
    rows = frames["nsw_cps"]
    made = match(rows.treated, how="nearest", **options_of(case, rows, getattr(rows, source)))
    expected = CASES["cases"][case]
    found = {i: set() for i in range(185)}
    for i, j in zip(made.pairs.treated.tolist(), made.pairs.control.tolist(), strict=True):
        found[i].add(j)
    theirs = {i: set() if c is None else set(np.atleast_1d(c).tolist()) for i, c in enumerate(expected["pairs"])}
    assert found == theirs
    effect, error = rows.difference(made)
    assert abs(effect - expected["effect"]) <= REFERENCE * max(abs(effect), error)
    used = made.weight > 0
    assert [int((used & arm).sum()) for arm in (rows.treated, ~rows.treated)] == [
        expected["matched"]["treated"],
        expected["matched"]["control"],
    ]
    w = made.weight[~rows.treated]
    assert w.sum() ** 2 / (w @ w) == pytest.approx(expected["ess_control"], rel=REFERENCE)
    if expected["caliper"] is not None:
        assert made.width == pytest.approx(expected["caliper"], rel=REFERENCE)


def test_mahalanobis_pairs_differ_in_exact_ties_only(frames):
    """Which of two equally near people MatchIt takes can hang on the last bit; by hash every distance is the same.

    With replacement the distances of the pairs are those of MatchIt's, whoever is taken.
    """
    rows = frames["nsw_cps"]
    options = options_of("maha_exact_repl", rows, rows.linear) | {"tie": "hash"}
    made = match(rows.treated, how="nearest", **options)
    coords = place("mahalanobis", rows.treated, None, rows.x, NAMES).coords
    theirs = np.array(CASES["cases"]["maha_exact_repl"]["pairs"])
    order = np.argsort(made.pairs.treated)
    mine = made.pairs.control[order]
    gap = [np.sqrt(((coords[:185] - coords[partner]) ** 2).sum(axis=1)) for partner in (mine, theirs)]
    assert gap[0] == pytest.approx(gap[1], abs=SOLVED)
    assert 0 < (mine != theirs).sum() < 30


@pytest.mark.parametrize("case", ["cem", "cem_cutpoints", "exact", "subclass6", "subclass6_ATE"])
def test_strata_are_those_of_matchit(frames, case):
    rows = frames["nsw_cps"]
    limits = {"age": [20, 25, 30, 35, 40, 45], "educ": [8.5, 11.5, 12.5]}
    limits |= dict.fromkeys(("re74", "re75"), [0.5, 2000, 5000, 10000, 20000])
    score = chance(rows.linear)
    options = {
        "cem": {"how": "cem", "covariates": rows.x},
        "cem_cutpoints": {"how": "cem", "covariates": rows.x, "cutpoints": [limits.get(name) for name in NAMES]},
        "exact": {"how": "exact", "exact": rows.column("black", "hisp", "marr", "nodegree")},
        "subclass6": {"how": "subclass", "score": score, "subclasses": 6},
        "subclass6_ATE": {"how": "subclass", "score": score, "subclasses": 6, "target": "ate"},
    }[case]
    made = match(rows.treated, **options)
    expected = CASES["cases"][case]
    effect, error = rows.difference(made)
    assert abs(effect - expected["effect"]) <= REFERENCE * max(abs(effect), error)
    if case != "subclass6_ATE":
        used = made.weight > 0
        assert int((used & rows.treated).sum()) == expected["matched"]["treated"]
        assert int((used & ~rows.treated).sum()) == expected["matched"]["control"]
        w = made.weight[~rows.treated]
        assert w.sum() ** 2 / (w @ w) == pytest.approx(expected["ess_control"], rel=REFERENCE)


MATCHING = [(data, case) for data, group in CASES["matching"].items() for case in group]


@pytest.mark.parametrize(("data", "case"), MATCHING, ids=[f"{d}-{c}" for d, c in MATCHING])
def test_pairs_with_all_ties_are_those_of_matching(frames, data, case):
    rows = frames[data]
    expected = CASES["matching"][data][case]
    options = {"how": "nearest", "replace": True, "tie": "all"}
    options["target"] = "ate" if "ATE" in case else "atc" if "ATC" in case else "att"
    if "_X_" in case:
        options |= {"covariates": rows.x, "names": NAMES}
        options["distance"] = "mahalanobis_overall" if "mahalanobis" in case else "scaled"
    else:
        options["score"] = rows.fitted if "linear" in case else chance(rows.fitted)
    options["ratio"] = 4 if "m4" in case else 1
    if "caliper025" in case:
        options["caliper"] = 0.25
    made = match(rows.treated, **options)
    assert len(made.pairs.treated) == expected["n_matched_pairs_rows"]
    assert len(made.outside) == expected["n_dropped"]
    assert made.population.sum() == expected["nobs"]
    sign = np.where(rows.treated[made.pairs.treated], 1.0, -1.0)
    gap = sign * (rows.y[made.pairs.treated] - rows.y[made.pairs.control])
    effect = (made.pairs.weight @ gap) / made.population.sum()
    assert abs(effect - expected["est_noadj"]) <= REFERENCE * max(abs(effect), expected["se_standard"])


@pytest.mark.parametrize("data", ["nsw_cps", "nsw_experiment"])
def test_matching_without_replacement_draws_its_ties(frames, data):
    """Without replacement Matching breaks ties at random, so that its estimate is one of many.

    Rows choose in the order of the data among all whose squared distance is within 1e-5 of the least. Drawing from them
    gives a spread of estimates in which Matching's lies; no fixed rule can be expected to meet it.
    """
    rows = frames[data]
    score = chance(rows.fitted)
    score = score / score.std(ddof=1)
    pool = np.flatnonzero(~rows.treated)
    drawn = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        free = np.ones(len(pool), bool)
        gaps = []
        for i in np.flatnonzero(rows.treated):
            squared = (score[pool[free]] - score[i]) ** 2
            j = rng.choice(np.flatnonzero(free)[squared <= squared.min() + 1e-5])
            free[j] = False
            gaps.append(rows.y[i] - rows.y[pool[j]])
        drawn.append(np.mean(gaps))
    assert np.std(drawn) > 10
    assert min(drawn) - np.std(drawn) < CASES["norepl"][data] < max(drawn) + np.std(drawn)
