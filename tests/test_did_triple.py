"""Triple differences: against means, three-way regressions, a twin with other solvers, and known truths."""

import numpy as np
import pytest
from naive import did_diagnostics as naive
from tolerances import EXACT, SOLVED

from evalkit.did.group_time import group_time
from evalkit.did.panel import NEVER, Panel
from evalkit.did.triple import triple
from evalkit.did.two_by_two import panel_effects
from evalkit.errors import DesignError, UsageError

METHODS = ("dr", "reg", "ipw")


def drawn(seed=1, units=400, periods=5, dates=(3, 4), p=0, repeated=False, effect=2.0, weight=None):
    """Places with dates (0: never), eligible and ineligible units with their own trends."""
    rng = np.random.default_rng(seed)
    n = units * periods if repeated else units
    place = rng.choice([*dates, 0], n)
    eligible = rng.uniform(size=n) < 0.4 + 0.1 * (place == dates[0])
    x = rng.normal(size=(n, p)) + 0.4 * eligible[:, None] - 0.2 * (place > 0)[:, None]
    own = rng.normal(size=n)
    if repeated:
        unit, time = np.arange(n), rng.integers(1, periods + 1, n)
    else:
        unit, time = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(1, periods + 1), indexing="ij"))
    begun = place[unit]
    y = own[unit] + rng.normal(size=len(unit)) + time * (0.3 * eligible[unit] + 0.2 * begun / 4)
    y = y + (x[unit].sum(axis=1) * 0.5 * time if p else 0.0)
    y = y + effect * ((begun > 0) & (time >= begun) & eligible[unit])
    panel = Panel.of(unit, time, y, begun, x=x[unit], names=[f"x{i}" for i in range(p)], repeated=repeated,
                     weight=None if weight is None else weight[unit])  # fmt: skip
    return panel, eligible


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("control", ["never", "not_yet"])
def test_without_covariates_it_is_the_difference_of_two_differences(control, method):
    panel, eligible = drawn(dates=(3, 5), units=90)
    found = triple(panel, eligible, control=control, method=method)
    y, periods = panel.wide().tolist(), panel.periods.tolist()
    for i, (g, t) in enumerate(zip(found.group.tolist(), found.time.tolist(), strict=True)):
        if found.base[i]:
            assert t == g - 1 and found.estimate[i] == 0 and not found.influence[:, i].any()
            continue
        others = [NEVER] + ([5] if control == "not_yet" and g == 3 and t < 5 else [])
        twins = [naive.triple_means(y, panel.first.tolist(), eligible, periods, g, t, g - 1, c) for c in others]
        if len(others) == 1:
            assert found.estimate[i] == pytest.approx(twins[0], rel=SOLVED)
        else:
            low, high = sorted(twins)
            alone = triple(panel.take_units(panel.first != NEVER), eligible[panel.first != NEVER], method=method)
            place = np.flatnonzero((alone.group == g) & (alone.time == t))[0]
            assert alone.estimate[place] == pytest.approx(twins[1], rel=SOLVED)
            never = triple(panel, eligible, control="never", method=method)
            whole = np.zeros(panel.units)
            whole[panel.first != NEVER] = alone.influence[:, place]
            pair = np.column_stack([never.influence[:, i], whole])
            inverse = np.linalg.inv(pair.T @ pair)
            weight = inverse.sum(axis=0) / inverse.sum()
            assert found.estimate[i] == pytest.approx(weight @ twins, rel=1e-8)
            assert found.std_error[i] == pytest.approx(np.sqrt(1 / inverse.sum()), rel=1e-8)
            assert found.std_error[i] <= min(never.std_error[i], alone.std_error[place])
            assert low != high
        members = (panel.first == g) & eligible
        assert found.n_treated[i] == members.sum()
        mean = panel.wide()[members, t - 1].mean()
        assert found.counterfactual[i] == pytest.approx(mean - found.estimate[i], rel=SOLVED)


def test_two_periods_are_the_regression_with_three_way_effects():
    panel, eligible = drawn(periods=2, dates=(2,), units=70)
    found = triple(panel, eligible)
    time, place = panel.time, (panel.first < NEVER)[panel.unit]
    extra = np.column_stack([place * time, eligible[panel.unit] * time]).astype(float)
    d = panel.treated & eligible[panel.unit]
    regression = naive.two_way(panel.outcome, d, panel.unit, time, None, extra)[0]
    assert found.estimate[found.time == 2][0] == pytest.approx(regression, rel=SOLVED)


def test_cross_sections_without_covariates_are_cell_means():
    panel, eligible = drawn(repeated=True, periods=2, dates=(2,), units=150)
    found = triple(panel, eligible)
    mean = {(g, q, t): panel.outcome[(panel.first == g) & (eligible == q) & (panel.time == t)].mean()
            for g in (2, NEVER) for q in (True, False) for t in (0, 1)}  # fmt: skip
    gap = [mean[g, True, t] - mean[g, False, t] for g in (2, NEVER) for t in (1, 0)]
    assert found.estimate[found.time == 2][0] == pytest.approx(gap[0] - gap[1] - gap[2] + gap[3], rel=SOLVED)


def test_covariates_enter_as_three_doubly_robust_comparisons():
    panel, eligible = drawn(p=2, dates=(3,), units=300)
    found = triple(panel, eligible)
    change = panel.wide()[:, 3] - panel.wide()[:, 1]
    x = panel.x.reshape(panel.units, 5, 2)[:, 1]
    group = {(g, q): (panel.first == g) & (eligible == q) for g in (3, NEVER) for q in (True, False)}
    total = 0.0
    for key, sign in (((3, False), 1), ((NEVER, True), 1), ((NEVER, False), -1)):
        rows = group[3, True] | group[key]
        total += sign * naive.dr_effect(change[rows], group[3, True][rows], x[rows])
    # the twin's general-purpose optimiser stops at a gradient of 1e-10 at best
    assert found.estimate[found.time == 4][0] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("repeated", [False, True])
def test_influence_is_the_derivative_to_a_units_weight(method, repeated):
    """Estimates are functions of weighted sums, so the influence of a unit is the derivative to its weight at 1."""
    panel, eligible = drawn(p=1, dates=(3,), units=60, periods=4, repeated=repeated)
    found = triple(panel, eligible, method=method)
    step = 1e-5
    for unit in range(0, panel.units, 7):
        ends = []
        for sign in (1, -1):
            weight = np.ones(panel.units)
            weight[unit] += sign * step
            other = Panel(panel.unit, panel.time, panel.outcome, panel.ids, panel.periods, panel.first,
                          weight[panel.unit], panel.x, panel.names, panel.cluster, panel.cluster_ids,
                          repeated=repeated)  # fmt: skip
            ends.append(triple(other, eligible, method=method).estimate)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert found.influence[unit] == pytest.approx(slope, abs=1e-7)


def conditional(seed, n=2000):
    """Trends that differ by place more for high x, and eligible treated units with high x; the effect is 1."""
    rng = np.random.default_rng(seed)
    place, eligible = rng.choice([2, 0], n), rng.uniform(size=n) < 0.5
    x = rng.normal(size=n) + 0.8 * ((place > 0) & eligible)
    change = 0.5 * eligible + x * (place > 0) + 0.5 * x * eligible + rng.normal(size=n) + ((place > 0) & eligible)
    level = rng.normal(size=n)
    y = np.column_stack([level, level + change]).ravel()
    unit = np.repeat(np.arange(n), 2)
    panel = Panel.of(unit, np.tile([1, 2], n), y, place[unit], x=x[unit], names=("x",))
    return panel, eligible


@pytest.mark.parametrize("method", METHODS)
def test_it_is_right_where_the_difference_of_two_differences_is_not(method):
    estimate, covered, wrong = [], [], []
    for seed in range(150):
        panel, eligible = conditional(seed, 600)
        found = triple(panel, eligible, method=method)
        value, error = found.estimate[1], found.std_error[1]
        estimate.append(value)
        covered.append(abs(value - 1) < 1.96 * error)
        if method == "dr":
            two = [group_time(panel.take_units(eligible == q)).estimate[1] for q in (True, False)]
            wrong.append(two[0] - two[1])
    # 150 draws: the mean within four of its errors; coverage within three errors of 1.8 points
    assert abs(np.mean(estimate) - 1) < 4 * np.std(estimate) / np.sqrt(150)
    assert 0.89 < np.mean(covered) <= 1.0
    if method == "dr":
        assert abs(np.mean(wrong) - 1.8) < 4 * np.std(wrong) / np.sqrt(150)


def test_pooling_cohorts_not_yet_treated_would_be_wrong():
    """Trends by place and more eligible units in one comparison cohort than in the other; the effect is 1."""
    rng = np.random.default_rng(5)
    n = 6000
    place = rng.choice([2, 3, 0], n)
    eligible = rng.uniform(size=n) < np.where(place == 3, 0.8, np.where(place == 2, 0.5, 0.2))
    change = 2.0 * (place == 3) + 0.5 * eligible + 0.1 * rng.normal(size=n) + ((place == 2) & eligible)
    level = rng.normal(size=n)
    y = np.column_stack([level, level + change, level + change]).ravel()
    unit = np.repeat(np.arange(n), 3)
    panel = Panel.of(unit, np.tile([1, 2, 3], n), y, place[unit])
    found = triple(panel, eligible)
    i = np.flatnonzero((found.group == 2) & (found.time == 2))[0]
    assert abs(found.estimate[i] - 1) < 4 * found.std_error[i]
    two = [group_time(panel.take_units(eligible == q)) for q in (True, False)]
    pooled = [c.estimate[(c.group == 2) & (c.time == 2)][0] for c in two]
    assert abs(pooled[0] - pooled[1] - 1) > 0.5


def test_averages_weight_cohorts_by_their_eligible_units():
    panel, eligible = drawn(units=500)
    found = triple(panel, eligible)
    assert np.array_equal(found.panel.first, np.where(eligible, panel.first, NEVER))
    simple = found.aggregate("simple")
    share = np.array([((panel.first == g) & eligible).sum() for g in found.group], float)
    after = found.event >= 0
    assert simple.estimate[0] == pytest.approx(np.average(found.estimate[after], weights=share[after]), rel=SOLVED)
    event = found.aggregate("event")
    assert abs(event.overall.estimate[0] - 2) < 4 * event.overall.std_error[0]
    assert event.base == (-1,)


def test_clusters_enter_the_error_and_the_weights():
    panel, eligible = drawn(units=200)
    place = np.arange(200) % 25
    whole = Panel.of(panel.unit, panel.period, panel.outcome, panel.first[panel.unit], cluster=place[panel.unit],
                     level="place")  # fmt: skip
    found = triple(whole, eligible, control="never")
    alone = triple(panel, eligible, control="never")
    assert found.estimate == pytest.approx(alone.estimate, rel=EXACT)
    summed = np.zeros((25, len(found)))
    np.add.at(summed, place, alone.influence)
    assert found.std_error == pytest.approx(np.sqrt((summed**2).sum(axis=0)), rel=SOLVED)
    assert "place" in found.se_kind
    few = Panel.of(panel.unit, panel.period, panel.outcome, panel.first[panel.unit], cluster=panel.unit * 0)
    assert np.isfinite(triple(few, eligible).estimate).all()  # V is singular: weights 1 / variance


def test_base_periods_and_anticipation():
    panel, eligible = drawn(dates=(4,), units=200)
    y, periods, first = panel.wide().tolist(), panel.periods.tolist(), panel.first.tolist()
    short = triple(panel, eligible, base="varying")
    assert short.time.tolist() == [2, 3, 4, 5] and not short.base.any()
    wanted = [naive.triple_means(y, first, eligible, periods, 4, t, min(t - 1, 3), NEVER) for t in (2, 3, 4, 5)]
    assert short.estimate == pytest.approx(wanted, rel=SOLVED)
    early = triple(panel, eligible, anticipation=1)
    assert early.time[early.base].tolist() == [2]
    wanted = [naive.triple_means(y, first, eligible, periods, 4, t, 2, NEVER) for t in (1, 2, 3, 4, 5)]
    assert early.estimate == pytest.approx(wanted, rel=SOLVED, abs=EXACT)


def test_covariates_that_change_are_those_of_the_earlier_period():
    panel, eligible = drawn(p=1, dates=(3,), units=300)
    moving = panel.x + 0.3 * np.random.default_rng(1).normal(size=panel.x.shape)
    other = Panel.of(panel.unit, panel.period, panel.outcome, panel.first[panel.unit], x=moving, names=("x",))
    found = triple(other, eligible)
    x = moving.reshape(300, 5)
    for t, early in ((1, 0), (5, 1)):
        change = other.wide()[:, t - 1] - other.wide()[:, 1]
        total = 0.0
        for g, q, sign in ((3, False, 1), (NEVER, True, 1), (NEVER, False, -1)):
            one, two = (
                np.flatnonzero((other.first == 3) & eligible),
                np.flatnonzero((other.first == g) & (eligible == q)),
            )
            rows = np.concatenate([one, two])
            total += sign * panel_effects(change[None, rows], len(one), x[None, rows, early], np.ones(len(rows)),
                                          "dr").estimate[0]  # fmt: skip
        assert found.estimate[found.time == t][0] == pytest.approx(total, rel=SOLVED)


def test_incomplete_units_and_early_places_are_left_out():
    panel, eligible = drawn(dates=(3,), units=80)
    first = np.where(np.arange(80) < 5, 1, panel.first)
    part = panel.with_first(first).take_rows(np.arange(len(panel)) != 77 * 5 + 2)
    keep = (first > 1) & (np.arange(80) != 77)
    found, twin = triple(part, eligible), triple(panel.take_units(keep), eligible[keep])
    assert np.array_equal(found.panel.ids, panel.ids[keep])
    assert found.estimate == pytest.approx(twin.estimate, rel=EXACT)


def test_cells_without_comparison_are_named():
    panel, eligible = drawn(dates=(3, 5), units=120)
    keep = panel.first < NEVER
    found = triple(panel.take_units(keep), eligible[keep])
    assert sorted({(m.group, m.time) for m in found.missing}) == [(3, 5), (5, 1), (5, 2), (5, 3), (5, 5)]
    assert {m.code for m in found.missing} == {"cell_no_comparison"}
    assert np.isnan(found.estimate[(found.group == 3) & (found.time == 5)]).all()
    assert not found.influence[:, ~found.estimable].any()
    assert np.isfinite(found.aggregate("event").overall.estimate[0])


def test_separation_is_named():
    panel, eligible = drawn(dates=(3,), units=80)
    x = ((panel.first == 3) & eligible)[panel.unit].astype(float)
    other = Panel.of(panel.unit, panel.period, panel.outcome, panel.first[panel.unit], x=x, names=("x",))
    with pytest.raises(DesignError, match="did.triple_nothing"):
        triple(other, eligible)


def test_faults():
    panel, eligible = drawn(units=60)
    for wrong in ({"control": "later"}, {"method": "ols"}, {"base": "first"}, {"anticipation": -1}):
        with pytest.raises(UsageError, match="did.triple_setting"):
            triple(panel, eligible, **wrong)
    for wrong in (eligible[:-1], np.where(np.arange(60) == 3, np.nan, 1.0)):
        with pytest.raises(UsageError, match="did.triple_mask"):
            triple(panel, wrong)
    for wrong in (np.ones(60, bool), np.zeros(60)):
        with pytest.raises(DesignError, match="did.triple_both"):
            triple(panel, wrong)
    with pytest.raises(DesignError, match="did.triple_no_cohort"):
        triple(panel.with_first(np.where(eligible, panel.first, NEVER)), eligible)
    with pytest.raises(DesignError, match="did.triple_no_cohort"):
        triple(panel.with_first(np.full(60, 1)), eligible)
    with pytest.raises(DesignError, match="did.triple_no_comparison"):
        triple(panel.with_first(np.full(60, 3)), eligible)
    keep = (panel.first < NEVER) | eligible
    with pytest.raises(DesignError, match="did.triple_no_comparison"):
        triple(panel.take_units(keep), eligible[keep], control="never")
