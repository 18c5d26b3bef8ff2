"""Wild bootstrap and randomisation: against a program, against refitting in every draw, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from naive import did_few as naive
from tolerances import EXACT, REFERENCE, SOLVED

from evalkit.did.effects import Effects, by_cluster
from evalkit.did.few import few_clusters, randomisation, wild_cluster, wild_influence, wild_two_way
from evalkit.did.few.randomisation import assignments, count_assignments
from evalkit.did.few.result import hull
from evalkit.did.few.wild import multipliers
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Covariance, Influence, Intervals, generator
from evalkit.errors import DataError, DesignError, UsageError
from evalkit.text import LANGUAGES, say

REFERENCE_RUN = json.loads((Path(__file__).parent / "reference" / "did_few.json").read_text())


def code_of(error: pytest.ExceptionInfo) -> str:
    return error.value.faults[0].code


def drawn(clusters: int = 7, each: int = 5, seed: int = 3) -> tuple[np.ndarray, ...]:
    """x (n, 3), y, cluster (in no order), weight."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(clusters), each))
    x = np.column_stack([cluster < clusters // 2, rng.normal(size=len(cluster)), np.ones(len(cluster))]).astype(float)
    y = 0.4 * x[:, 0] + x[:, 1] + rng.normal(size=clusters)[cluster] + rng.normal(size=len(cluster))
    return x, y, cluster, rng.uniform(0.5, 2, len(cluster))


def panel_of(first: list[int], periods: int = 6, seed: int = 1, effect: float = 0.0, each: int = 1) -> Panel:
    """Clusters of ``each`` units; ``first`` 0 is never."""
    rng = np.random.default_rng(seed)
    units = len(first) * each
    unit, time = np.repeat(np.arange(units), periods), np.tile(np.arange(1, periods + 1), units)
    begin = np.array(first)[unit // each]
    y = rng.normal(size=units)[unit] + 0.3 * time + rng.normal(size=len(unit))
    y += rng.normal(size=(len(first), periods)).ravel()[(unit // each) * periods + time - 1]
    y += effect * ((begin > 0) & (time >= begin))
    rows = rng.permutation(len(unit))
    return Panel.of(unit[rows], time[rows], y[rows], begin[rows], cluster=(unit // each)[rows], level="area")


def mean_difference(panel: Panel, last: bool = False) -> Effects:
    """Outcome less its mean before, treated less never treated, by event time; one date.

    ``last``: less the last period before.
    """
    wide = panel.wide()
    on = panel.first < NEVER
    if on.all() or not on.any():
        raise DesignError([])
    begin = int(panel.first[on][0])
    since = panel.periods - begin
    origin = wide[:, since == -1 if last else since < 0].mean(axis=1)
    z = np.column_stack([wide - origin[:, None], wide[:, since >= 0].mean(axis=1) - origin])
    estimate = z[on].mean(axis=0) - z[~on].mean(axis=0)
    psi = np.where(on[:, None], (z - z[on].mean(axis=0)) / on.sum(), -(z - z[~on].mean(axis=0)) / (~on).sum())
    n1, n0 = int(on.sum()), int((~on).sum())

    def effects(by: str, at: np.ndarray, part: slice, total: Effects | None) -> Effects:
        count = len(at)
        return Effects(
            by, at, estimate[part], np.full(count, np.nan), np.full(count, n1), np.full(count, n0),
            by_cluster(panel, psi[:, part]), (-1,) if last and total is not None else (), overall=total,
        )  # fmt: skip

    total = effects("simple", np.zeros(1), slice(len(since), None), None)
    return effects("event", since, slice(0, len(since)), total)


@pytest.mark.parametrize("case", ["g8", "g10"])
@pytest.mark.parametrize("kind", ["WCR", "WCU"])
def test_wild_agrees_with_the_program(case: str, kind: str) -> None:
    data = REFERENCE_RUN[case]
    found = wild_cluster(data["x"], data["y"], data["cluster"], 0, kind=kind, weights="rademacher", draws=99_999)
    meant = data[kind]
    assert found.exact and found.draws == meant["draws"]
    assert found.estimate[0] / found.std_error[0] == pytest.approx(meant["t"], rel=REFERENCE)
    # the program leaves out the observed sample and its mirror image, which are as large by definition
    ties = 2 if kind == "WCR" else 0
    assert round(found.p_value[0] * found.draws) == meant["larger"] + ties


@pytest.mark.parametrize("impose", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_wild_is_refitting_in_every_draw(impose: bool, weighted: bool) -> None:
    x, y, cluster, weight = drawn()
    weight = weight if weighted else np.ones(len(y))
    r = np.array([1.0, 0.5, 0.0])
    kind = "WCR" if impose else "WCU"
    for null in (0.0, 0.7):
        t, draws = naive.wild_statistics(x, y, cluster, r, null, impose, naive.all_signs(7), weight)
        found = wild_cluster(
            x, y, cluster, r, null=null, kind=kind, weights="rademacher", draws=127, weight=weight, sets=False
        )
        assert found.p_value[0] == pytest.approx(np.mean(np.abs(draws) >= abs(t) * (1 - 1e-9)), abs=EXACT)


@pytest.mark.parametrize("weights", ["webb", "mammen"])
def test_wild_with_drawn_weights_is_refitting(weights: str) -> None:
    x, y, cluster, _ = drawn(9)
    v, exact = multipliers(9, weights, 60, generator(5, "wild cluster"))
    assert not exact
    t, draws = naive.wild_statistics(x, y, cluster, np.array([1.0, 0, 0]), 0.0, True, v)
    found = wild_cluster(x, y, cluster, 0, weights=weights, draws=60, seed=5, sets=False)
    assert found.p_value[0] == pytest.approx((np.sum(np.abs(draws) >= abs(t)) + 1) / 61, abs=EXACT)


@pytest.mark.parametrize("weights", ["rademacher", "webb", "mammen"])
def test_multipliers_have_mean_zero_and_variance_one(weights: str) -> None:
    v, _ = multipliers(20, weights, 20_000, np.random.default_rng(1))
    assert abs(v.mean()) < 0.01 and abs(v.var() - 1) < 0.01
    assert abs((v**3).mean() - (weights == "mammen")) < 0.03
    few, exact = multipliers(3, weights, 999, np.random.default_rng(1))
    assert exact == (weights != "mammen") and (not exact or len(few) == {"rademacher": 8, "webb": 216}[weights])


@pytest.mark.parametrize("kind", ["WCR", "WCU"])
def test_wild_set_holds_what_is_not_rejected(kind: str) -> None:
    x, y, cluster, _ = drawn(10)
    found = wild_cluster(x, y, cluster, 0, kind=kind, weights="rademacher", draws=1_999, level=0.9)
    low, high = found.low[0], found.high[0]
    step = 1e-5 * (high - low)
    for value, rejected in ((low - step, True), (low + step, False), (high - step, False), (high + step, True)):
        p = wild_cluster(x, y, cluster, 0, null=value, kind=kind, weights="rademacher", draws=1_999, sets=False).p_value
        assert (p[0] <= 0.1) == rejected


def test_two_way_is_refitting_with_dummies() -> None:
    panel = panel_of([3, 3, 4, 0, 0, 0, 0], each=2)
    found = wild_two_way(panel, draws=127, weights="rademacher")
    columns = naive.two_way_columns(panel.unit, panel.time, panel.treated)
    cluster = panel.cluster[panel.unit]
    r = np.eye(columns.shape[1])[0]
    t, draws = naive.wild_statistics(columns, panel.outcome, cluster, r, 0.0, True, naive.all_signs(7))
    assert found.exact and found.p_value[0] == pytest.approx(np.mean(np.abs(draws) >= abs(t) * (1 - 1e-9)), abs=EXACT)
    estimate, error = naive.clustered(columns, panel.outcome, cluster, r, np.ones(len(panel)))
    assert found.estimate[0] == pytest.approx(estimate, rel=SOLVED)
    factor = 7 / 6 * (len(panel) - 1) / (len(panel) - columns.shape[1])
    assert found.std_error[0] == pytest.approx(np.sqrt(factor) * error, rel=SOLVED)


def test_two_way_by_event_time() -> None:
    panel = panel_of([3, 3, 3, 3, 0, 0, 0, 0])
    found = wild_two_way(panel, by="event", draws=255, weights="rademacher")
    effects = found.effects
    assert effects is not None and effects.at.tolist() == [-2, -1, 0, 1, 2, 3] and effects.base == (-1,)
    at = effects.at.tolist().index(-1)
    assert found.low[at] == found.high[at] == 0 and np.isnan(found.p_value[at])
    wide, on = panel.wide(), panel.first < NEVER
    for m, e in enumerate(effects.at):
        change = wide[:, 2 + e] - wide[:, 1]
        assert found.estimate[m] == pytest.approx(change[on].mean() - change[~on].mean(), abs=SOLVED)
    assert isinstance(effects.uncertainty, Intervals) and np.array_equal(effects.uncertainty.low, found.low)


def test_what_the_columns_do_not_determine_is_missing() -> None:
    x, y, cluster, _ = drawn()
    found = wild_cluster(np.column_stack([x, x[:, 1]]), y, cluster, np.eye(4)[[0, 1]], draws=99)
    assert np.isfinite(found.p_value[0]) and np.isnan(found.estimate[1]) and np.isnan(found.low[1])


def test_score_bootstrap_is_the_loop() -> None:
    panel = panel_of([4, 4, 4, 0, 0, 0, 0, 0])
    effects = mean_difference(panel)
    block = (panel.first < NEVER).astype(int)
    found = wild_influence(effects, blocks=block, weights="rademacher", draws=255)
    psi = effects.uncertainty.values
    for m in range(len(effects)):
        t = effects.estimate[m] / np.sqrt(8 / 7 * (psi[:, m] ** 2).sum())
        draws = np.abs(naive.score_statistics(psi[:, m], naive.all_signs(8), block))
        assert found.p_value[m] == pytest.approx(np.mean(draws >= abs(t) * (1 - 1e-9)), abs=EXACT)
        half = (found.high[m] - found.low[m]) / 2
        critical = half / found.std_error[m]
        assert np.mean(draws >= critical * (1 + 1e-9)) <= 0.05 < np.mean(draws >= critical * (1 - 1e-9))
    assert found.overall is not None and found.effects.overall.se_kind == "wild score"


def test_score_bootstrap_leaves_a_base_period_alone() -> None:
    psi = np.column_stack([np.arange(8.0) - 3.5, np.zeros(8)])
    effects = Effects("event", [-2, -1], [1.0, 0.0], [0, 0], [1, 1], [1, 1], Influence(np.arange(8), psi), base=(-1,))
    found = wild_influence(effects, draws=99)
    assert found.low[1] == found.high[1] == 0 and np.isnan(found.p_value[1])


def test_randomisation_is_all_assignments() -> None:
    panel = panel_of([4, 4, 0, 0, 0, 0, 0], effect=1.0)
    found = randomisation(panel, mean_difference)
    assert found.exact and found.draws == 21 and found.smallest == 1 / 21

    def statistic(first: np.ndarray, m: int, shift: np.ndarray | float = 0.0, t: bool = False) -> float:
        effects = mean_difference(panel.with_first(first).with_outcome(panel.outcome - shift))
        return float(effects.estimate[m] / (effects.std_error[m] if t else 1.0))

    for m in range(6):
        assert found.p_value[m] == pytest.approx(naive.assign(panel.first, lambda f, m=m: statistic(f, m)), abs=EXACT)
    studentised = randomisation(panel, mean_difference, statistic="t")
    p = naive.assign(panel.first, lambda f: statistic(f, 4, t=True))
    assert studentised.p_value[4] == pytest.approx(p, abs=EXACT)
    for result, t in ((found, False), (studentised, True)):  # the ends are where the test turns
        for m, end in ((4, result.low[4]), (4, result.high[4])):
            for value, rejected in ((end * (1 + 1e-6 * np.sign(end)), end == result.high[4]),
                                    (end * (1 - 1e-6 * np.sign(end)), end == result.low[4])):  # fmt: skip
                shift = value * panel.treated
                p = naive.assign(panel.first, lambda f, m=m, s=shift, t=t: statistic(f, m, s, t))
                assert (p <= 0.05) == rejected


def test_randomisation_of_a_placebo_period() -> None:
    panel = panel_of([4, 4, 0, 0, 0, 0, 0])

    found = randomisation(panel, lambda one: mean_difference(one, True), level=0.9)
    m = found.effects.at.tolist().index(-2)
    assert found.low[m + 1] == found.high[m + 1] == 0 and np.isnan(found.p_value[m + 1])
    step = 1e-6 * (found.high[m] - found.low[m])
    before = (panel.first[panel.unit] < NEVER) & (panel.period < 3)
    for value, rejected in ((found.low[m] - step, True), (found.low[m] + step, False)):
        moved = panel.with_outcome(panel.outcome - value * before)
        p = naive.assign(panel.first, lambda f, q=moved: mean_difference(q.with_first(f), True).estimate[m])
        assert (p <= 0.1) == rejected


def test_randomisation_with_covariance_only() -> None:
    """The squared error from a third point equals that from influence."""
    panel = panel_of([4, 4, 0, 0, 0, 0, 0], effect=1.0)

    def plain(one: Panel) -> Effects:
        whole = mean_difference(one)
        return Effects(whole.by, whole.at, whole.estimate, whole.counterfactual, whole.n_treated, whole.n_comparison,
                       Covariance(whole.vcov))  # fmt: skip

    one, other = (randomisation(panel, f, statistic="t") for f in (plain, mean_difference))
    np.testing.assert_allclose(one.p_value, other.p_value, atol=EXACT)
    np.testing.assert_allclose(one.low, other.low, rtol=1e-6)


def test_randomisation_of_a_curved_estimator_gives_a_p_value_only() -> None:
    panel = panel_of([4, 4, 0, 0, 0, 0, 0])

    def curved(one: Panel) -> Effects:
        whole = mean_difference(one)
        return Effects(whole.by, whole.at, whole.estimate**3, whole.counterfactual, whole.n_treated,
                       whole.n_comparison, Covariance(whole.vcov))  # fmt: skip

    found, straight = randomisation(panel, curved), randomisation(panel, mean_difference)
    np.testing.assert_allclose(found.p_value, straight.p_value)
    assert np.isnan(found.low).all()


def test_randomisation_leaves_out_what_cannot_be_estimated() -> None:
    panel = panel_of([4, 4, 0, 0, 0, 0, 0])

    def picky(one: Panel) -> Effects:
        if one.first[6] < NEVER:
            raise DesignError([])
        return mean_difference(one)

    found = randomisation(panel, picky)
    assert found.undefined == 6 and found.draws == 15


def test_assignments_keep_strata_and_the_observed_first() -> None:
    first = np.array([3, NEVER, NEVER, 3, 4, NEVER])
    strata = np.array([0, 0, 0, 1, 1, 1])
    assert count_assignments(first) == 60 and count_assignments(first, strata) == 18
    rows, exact = assignments(first, 100, np.random.default_rng(1), strata)
    assert exact and len(np.unique(rows, axis=0)) == 18 and np.array_equal(rows[0], first)
    rows, exact = assignments(first, 10, np.random.default_rng(1), strata)
    assert not exact and np.array_equal(rows[0], first)
    assert (np.sort(rows[:, 3:], axis=1) == np.sort(first[3:])).all()


def test_results_do_not_depend_on_the_order_of_rows() -> None:
    panel = panel_of([4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    rows = np.random.default_rng(3).permutation(len(panel))
    again = Panel.of(panel.unit[rows], panel.period[rows], panel.outcome[rows], panel.first[panel.unit[rows]])
    for run in (
        lambda p: wild_two_way(p, draws=199),
        lambda p: randomisation(p, mean_difference, draws=100),
    ):
        np.testing.assert_allclose(run(panel).p_value, run(again).p_value, atol=EXACT)


def test_the_farthest_value_that_is_not_rejected() -> None:
    low, high = hull(lambda v: np.where(np.abs(v - 1) < 0.5, 1.0, 0.01), 1.0, 0.1, 0.05)
    assert (low, high) == (pytest.approx(0.5), pytest.approx(1.5))
    assert hull(lambda v: np.ones(len(v)), 0.0, 1.0, 0.05) == (-np.inf, np.inf)
    gap = hull(lambda v: np.where((np.abs(v) < 1) | (np.abs(v - 3) < 0.5), 1.0, 0.0), 0.0, 1.0, 0.05)
    assert gap == (pytest.approx(-1), pytest.approx(3.5))


def test_refusals() -> None:
    x, y, _, _ = drawn()
    with pytest.raises(DesignError) as error:
        wild_cluster(x, y, np.zeros(len(y)), 0)
    assert code_of(error) == "did.few_one_cluster"
    effects = mean_difference(panel_of([4, 4, 0, 0]))
    with pytest.raises(UsageError) as usage:
        wild_influence(Effects("simple", [0], [1.0], [0], [1], [1], Covariance(np.eye(1))))
    assert code_of(usage) == "did.few_no_influence"
    with pytest.raises(DesignError) as error:
        wild_influence(Effects("simple", [0], [1.0], [0], [1], [1], Influence([0], np.ones((1, 1)))))
    assert code_of(error) == "did.few_one_cluster"
    mixed = panel_of([4, 4, 0, 0], each=2)
    with pytest.raises(DesignError) as error:
        randomisation(mixed.with_first(np.array([4, NEVER, 4, 4, *[NEVER] * 4])), mean_difference)
    assert code_of(error) == "did.few_mixed_clusters" and error.value.faults[0].params["clusters"] == 1
    with pytest.raises(DesignError) as error:
        randomisation(panel_of([4, 4, 4]), mean_difference)
    assert code_of(error) == "did.few_one_assignment"
    with pytest.raises(DataError) as data:
        randomisation(panel_of([4, 0, 0]), mean_difference, strata=[1, 2])
    assert code_of(data) == "did.few_strata"
    with pytest.raises(UsageError) as usage:
        randomisation(
            panel_of([4, 4, 0, 0]),
            lambda p: Effects("simple", [0], effects.overall.estimate, [0], [1], [1], Intervals([0], [1], 0.95, "")),
            statistic="t",
        )
    assert code_of(usage) == "did.few_no_error"


@pytest.mark.parametrize(
    ("counts", "code", "procedure"),
    [
        ({"clusters": 40, "treated": 15}, "", "influence"),
        ({"clusters": 20, "treated": 8}, "did_few_clusters", "wild"),
        ({"clusters": 60, "treated": 3}, "did_few_treated", "conley_taber"),
        ({"clusters": 60, "treated": 57}, "did_few_treated", "randomisation"),
        ({"clusters": 12, "treated": 12, "comparison": 3}, "did_few_treated", "randomisation"),
    ],
)
def test_verdict_on_counts(counts: dict[str, int], code: str, procedure: str) -> None:
    verdict = few_clusters(**counts)
    assert (verdict.code, verdict.procedure, verdict.sufficient) == (code, procedure, not code)
    finding = verdict.finding("work")
    assert (finding is None) == (code == "")
    if finding is not None:
        for lang in LANGUAGES:
            assert str(counts["clusters"]) in say(f"finding.{code}", lang, **finding.params)
            assert f'errors = "{procedure}"' in say(f"advice.{code}", lang, **finding.params)


def test_verdict_on_a_panel() -> None:
    verdict = few_clusters(panel_of([4, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
    assert verdict.code == "did_few_treated" and verdict.smallest == pytest.approx(0.1)
    # one treated of N at one date: squares (N-1)^2 against N-1 times 1, so 4 (N-1)/N in all
    assert verdict.effective == pytest.approx((81 + 9) ** 2 / (81**2 + 9), rel=SOLVED)
    even = few_clusters(panel_of([4] * 20 + [0] * 20))
    assert even.effective == pytest.approx(40) and even.sufficient
    panel = panel_of([4] * 20 + [0] * 20, each=2)
    heavy = Panel.of(
        panel.unit, panel.period, panel.outcome, panel.first[panel.unit], cluster=panel.cluster[panel.unit],
        weight=np.where((panel.unit < 2) | (panel.unit >= 78), 400.0, 1.0),
    )  # fmt: skip
    assert few_clusters(heavy).code == "did_uneven_clusters"
    one = few_clusters(panel_of([4, 4, *[0] * 20]))
    big = panel_of([4, 4, *[0] * 20])
    other = Panel.of(big.unit, big.period, big.outcome, big.first[big.unit], weight=1.0 + big.unit)
    assert (one.procedure, few_clusters(other).procedure) == ("conley_taber", "ferman_pinto")
