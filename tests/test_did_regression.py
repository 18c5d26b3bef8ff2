"""Two-way fixed effects, Sun-Abraham, extended and stacked regressions against dummies in loops, and their faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from naive import did_regression as naive
from tolerances import EXACT, SOLVED

from evalkit.did.absorb import TwoWay
from evalkit.did.effects import Missing
from evalkit.did.extended import extended
from evalkit.did.panel import NEVER, Panel
from evalkit.did.stacked import stacked
from evalkit.did.sun_abraham import sun_abraham
from evalkit.did.two_way import event_study, two_way
from evalkit.did.within import absorbed, small_sample_factor
from evalkit.errors import DataError, DesignError, UsageError
from evalkit.text import LANGUAGES, catalogue

SOME = (0, 4, 6)


def panel_of(seed=1, units=60, periods=7, *, gaps=True, weights=True, x="varying", cohorts=(3, 5, 6, 0), clusters=None,
             outcome="linear", repeated=False):  # fmt: skip
    """A panel with growing effects; cohorts 0 are never treated."""
    rng = np.random.default_rng(seed)
    first = np.tile(cohorts, units)[:units]
    unit = np.repeat(np.arange(units), periods)
    period = np.tile(np.arange(1, periods + 1), units)
    g = first[unit]
    fixed = rng.normal(size=(units, 2))
    covariates = fixed[unit] + (rng.normal(size=(len(unit), 2)) if x == "varying" else 0.0)
    treated = (g > 0) & (period >= g)
    index = 0.2 * period + 0.3 * fixed[unit, 0] + 0.1 * g / 6 + treated * (0.4 + 0.2 * (period - g))
    index = index + 0.2 * covariates[:, 0] - 0.5
    if outcome == "linear":
        y = index + rng.normal(size=units)[unit] + rng.normal(size=len(unit))
    elif outcome == "logit":
        y = (rng.random(len(unit)) < 1 / (1 + np.exp(-index))).astype(float)
    else:
        y = rng.poisson(np.exp(index)).astype(float)
    keep = rng.random(len(unit)) < (0.85 if gaps else 2)
    weight = rng.uniform(0.5, 2.0, len(unit) if gaps else units)
    weight = weight if gaps else weight[unit]
    return Panel.of(
        unit[keep], period[keep], y[keep], g[keep],
        weight=weight[keep] if weights else None,
        x=None if x is None else covariates[keep], names=() if x is None else ("a", "b"),
        cluster=None if clusters is None else (unit % clusters)[keep], level="unit" if clusters is None else "area",
        repeated=repeated,
    )  # fmt: skip


SHAPES = {
    "balanced": dict(gaps=False, weights=False, x=None),
    "weights": dict(gaps=False, x="varying"),
    "gaps": dict(),
    "clusters": dict(clusters=17),
    "cross-sections": dict(repeated=True),
}


@pytest.fixture(params=SHAPES, ids=list(SHAPES))
def panel(request):
    return panel_of(**SHAPES[request.param])


def same(mine, other, tolerance=SOLVED):
    np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)


# --- the transformation


def test_residuals_are_those_of_a_regression_on_dummies(panel):
    effects = naive.effects_of(panel)
    theta, _, _ = naive.least_squares(effects, panel.outcome, panel.weight, panel.unit)
    same(TwoWay.of(panel).residual(panel.outcome), panel.outcome - effects @ theta)


def test_residuals_where_units_and_periods_fall_apart():
    unit, period = np.repeat(np.arange(4), 2), np.array([1, 2, 1, 2, 3, 4, 3, 4])
    panel = Panel.of(unit, period, np.arange(8.0) ** 2, np.zeros(8))
    effects = naive.effects_of(panel)
    theta, _, _ = naive.least_squares(effects, panel.outcome, panel.weight, panel.unit)
    same(TwoWay.of(panel).residual(panel.outcome), panel.outcome - effects @ theta)


def test_further_columns_and_their_weights_on_the_outcomes(panel):
    rows = np.flatnonzero(~panel.treated)
    rng = np.random.default_rng(3)
    fixed = rng.normal(size=panel.units)[panel.unit[rows]]
    z = np.column_stack([rng.normal(size=len(rows)), fixed])  # the second one stays the same within units
    if panel.repeated:
        z[:, 1] = panel.first[panel.unit[rows]] == NEVER
    fit = TwoWay.of(panel, rows, z)
    y, solved = panel.outcome[rows], fit.solve(panel.outcome[rows])
    effects = np.column_stack([naive.effects_of(panel)[rows], z[:, 0]])
    theta, _, _ = naive.least_squares(effects, y, panel.weight[rows], panel.unit[rows])
    same(solved.residual, y - effects @ theta)
    same(solved.slope[0], theta[-1])
    same(fit.weights_of_slope(0) @ y, theta[-1])
    assert fit.slopes_identified.tolist() == [True, False]


def test_rows_without_weight_and_levels_without_rows_change_nothing():
    panel = panel_of()
    keep = panel.unit != 4
    lost = TwoWay.of(replace(panel, weight=np.where(keep, panel.weight, 0.0)))
    part = TwoWay.of(panel, np.flatnonzero(keep))
    assert lost.total[4] == part.total[4] == 0
    same(lost.residual(panel.outcome)[keep], part.residual(panel.outcome[keep]))
    cell = panel.unit[:1] * 0 + 4, panel.time[:1], np.empty((1, 0))
    assert not part.identified(*cell).any() and not lost.identified(*cell).any()


# --- two-way fixed effects


def test_two_way(panel):
    mine = two_way(panel, small_sample="none")
    theta, influence = naive.regression(panel, panel.treated[:, None].astype(float))
    same(mine.estimate, theta)
    same(mine.uncertainty.values, influence)
    inside = panel.treated
    mean = np.average(panel.outcome[inside], weights=panel.weight[inside])
    same(mine.counterfactual, mean - theta)
    assert mine.n_treated[0] == len(set(panel.unit[inside]))
    since = panel.period >= panel.cohorts[0]
    assert mine.n_comparison[0] == len(set(panel.unit[~inside & since]))


def test_event_study(panel):
    mine = event_study(panel, small_sample="none")
    assert mine.base == (-1,) and mine.estimate[mine.at == -1] == 0
    free = mine.at != -1
    theta, influence = naive.regression(panel, naive.event_columns(panel, mine.at[free]))
    same(mine.estimate[free], theta)
    same(mine.uncertainty.values[:, free], influence)
    assert not mine.uncertainty.values[:, ~free].any()
    after = mine.at >= 0
    same(mine.overall.estimate, mine.estimate[after].mean())
    same(mine.overall.uncertainty.values[:, 0], mine.uncertainty.values[:, after].mean(axis=1))
    for k, e in enumerate(mine.at):
        inside = naive.event_columns(panel, [e])[:, 0] == 1
        assert mine.n_treated[k] == len(set(panel.unit[inside]))
        compared = np.isin(panel.period, np.unique(panel.period[inside])) & ~panel.treated & ~inside
        assert mine.n_comparison[k] == len(set(panel.unit[compared]))
        same(mine.counterfactual[k] + mine.estimate[k], np.average(panel.outcome[inside], weights=panel.weight[inside]))


def test_event_study_with_window_and_two_bases():
    panel = panel_of(3)
    mine = event_study(panel, base=(-1, -2), window=(-3, 1), small_sample="none")
    assert mine.at.tolist() == [-3, -2, -1, 0, 1] and mine.base == (-2, -1)
    theta, influence = naive.regression(panel, naive.event_columns(panel, [-3, 0, 1], window=(-3, 1)))
    same(mine.estimate[[0, 3, 4]], theta)
    same(mine.uncertainty.values[:, [0, 3, 4]], influence)


def test_event_study_without_never_treated_needs_two_bases():
    panel = panel_of(4, cohorts=(3, 5, 6), x=None)
    with pytest.raises(DesignError) as caught:
        event_study(panel)
    assert caught.value.faults[0].code == "did.regression_collinear"
    mine = event_study(panel, base=(-1, -4), small_sample="none")
    free = ~np.isin(mine.at, (-1, -4))
    theta, _ = naive.regression(panel, naive.event_columns(panel, mine.at[free]))
    same(mine.estimate[free], theta)


@pytest.mark.parametrize("shape", ["balanced", "weights", "gaps", "clusters"])
def test_linearmodels_is_the_same_engine(shape):
    panel = panel_of(**SHAPES[shape])
    mine, theirs = two_way(panel), two_way(panel, engine="linearmodels")
    same(mine.estimate, theirs.estimate, 1e-8)
    same(mine.uncertainty.values, theirs.uncertainty.values, 1e-8)


def test_clustered_covariance_of_linearmodels():
    """PanelOLS with group_debias and debiased has the factor "full"; with neither effects nor coefficients counted it
    has G / (G - 1) (n - 1) / n: "cluster" but for (n - 1) / n."""
    import pandas as pd
    from linearmodels.panel import PanelOLS

    panel = panel_of()
    index = pd.MultiIndex.from_arrays([panel.unit, panel.time])
    at = [-2, 0, 1, 2, 3, 4]
    columns = naive.event_columns(panel, [-5, -4, -3, *at])
    frame = pd.DataFrame(np.column_stack([columns, panel.x]), index=index).add_prefix("v")
    model = PanelOLS(pd.Series(panel.outcome, index, name="y"), frame, weights=pd.Series(panel.weight, index),
                     entity_effects=True, time_effects=True)  # fmt: skip
    n = len(panel)
    for kind, factor, asked in (
        ("full", 1.0, dict(debiased=True)), ("cluster", (n - 1) / n, dict(auto_df=False, count_effects=False)),
    ):  # fmt: skip
        found = model.fit(cov_type="clustered", cluster_entity=True, group_debias=True, **{"debiased": False, **asked})
        mine = event_study(panel, small_sample=kind)
        free = mine.at != -1
        same(mine.estimate[free], found.params.to_numpy()[: free.sum()], 1e-8)
        same(mine.std_error[free] * factor**0.5, found.std_errors.to_numpy()[: free.sum()], 1e-8)


def test_small_sample_factors_count_what_they_say():
    assert small_sample_factor("none", 50, 550, 11, 50, True) == 1
    assert small_sample_factor("cluster", 50, 550, 11, 50, True) == 50 / 49
    assert small_sample_factor("nested", 50, 550, 11, 50, True) == 50 / 49 * 549 / 538
    assert small_sample_factor("full", 50, 550, 11, 50, True) == 50 / 49 * 549 / 489
    assert small_sample_factor("nested", 500, 550, 11, 4, False) == 500 / 499 * 549 / 535
    panel = panel_of(clusters=17)
    fit = [two_way(panel, small_sample=kind) for kind in ("none", "cluster", "nested", "full")]
    n, k = len(panel), 1 + 2 + len(panel.periods) - 1
    expected = [1, 17 / 16, 17 / 16 * (n - 1) / (n - k - 1), 17 / 16 * (n - 1) / (n - k - panel.units)]
    same([f.vcov[0, 0] / fit[0].vcov[0, 0] for f in fit], expected)
    with pytest.raises(ValueError):
        small_sample_factor("other", 50, 550, 11, 50, True)


def test_repeated_cross_sections_count_cohort_effects():
    panel = panel_of(repeated=True, x=None)
    n, k = len(panel), 1 + len(panel.periods) - 1 + 4
    ratio = two_way(panel).vcov[0, 0] / two_way(panel, small_sample="none").vcov[0, 0]
    same(ratio, n / (n - 1) * (n - 1) / (n - k))


def test_what_the_effects_absorb_drops_out():
    panel = panel_of(weights=False)
    x = np.column_stack([panel.x, panel.unit % 3, panel.period**2, panel.x[:, 0] + panel.unit])
    wide = replace(panel, x=x, names=("a", "b", "fixed", "common", "follows"))
    assert absorbed(wide) == ("fixed", "common", "follows") and absorbed(panel) == ()
    same(two_way(wide).estimate, two_way(panel).estimate)
    same(two_way(wide).vcov, two_way(panel).vcov)
    for asked, columns in ((["b"], panel.x[:, 1:]), (False, panel.x[:, :0])):
        alone, _ = naive.regression(panel, panel.treated[:, None] * 1.0, columns)
        same(two_way(wide, covariates=asked).estimate, alone)
    assert absorbed(wide, False) == ()


def test_negative_although_every_effect_is_positive():
    """Early units serve as comparison for late ones: growing effects turn the sign. No noise: this is the estimand."""
    units, periods = 40, 20
    first = np.repeat([2, 16, 0], [24, 14, 2])
    unit, period = np.repeat(np.arange(units), periods), np.tile(np.arange(1, periods + 1), units)
    g = first[unit]
    effect = np.where((g > 0) & (period >= g), 1.0 + (period - g), 0.0)
    rng = np.random.default_rng(2)
    panel = Panel.of(unit, period, rng.normal(size=units)[unit] + 0.3 * period + effect, g)
    truth = effect[effect > 0].mean()
    assert effect[effect > 0].min() == 1.0
    assert two_way(panel).estimate[0] < -0.3
    for cells in (sun_abraham(panel), extended(panel), extended(panel, control="never")):
        after = cells.event >= 0
        same(cells.estimate[after], 1.0 + cells.event[after])
        same(cells.aggregate("simple").estimate, truth)
    dynamic = event_study(panel)
    clean = sun_abraham(panel).aggregate("event")
    same(clean.estimate[clean.at < 0], 0.0)
    same(clean.estimate[clean.at >= 0], 1.0 + clean.at[clean.at >= 0])
    # the same course in both cohorts: the dynamic form is right here, and wrong once courses differ
    same(dynamic.estimate[dynamic.at >= 0], 1.0 + dynamic.at[dynamic.at >= 0])
    uneven = panel.with_outcome(panel.outcome + np.where(g == 16, effect, 0.0))
    assert np.abs(event_study(uneven).estimate[dynamic.at < -1]).max() > 0.1  # leads although trends are parallel
    same(sun_abraham(uneven).aggregate("event").estimate[clean.at < 0], 0.0)


# --- Sun and Abraham


def test_sun_abraham(panel):
    mine = sun_abraham(panel)
    free = ~mine.base
    assert (mine.event[mine.base] == -1).all() and mine.base.sum() == 3
    theta, influence = naive.regression(panel, naive.cell_columns(panel, mine.group[free], mine.time[free]))
    same(mine.estimate[free], theta)
    summed = np.zeros((len(panel.cluster_ids), len(mine)))
    np.add.at(summed, panel.cluster, mine.influence)
    same(summed[:, free], influence)
    assert not mine.influence[:, ~free].any()
    for c in range(len(mine)):
        inside = (panel.first[panel.unit] == mine.group[c]) & (panel.period == mine.time[c])
        assert mine.n_treated[c] == inside.sum()
        never = (panel.first[panel.unit] == NEVER) & (panel.period == mine.time[c])
        assert mine.n_comparison[c] == never.sum()
        mean = np.average(panel.outcome[inside], weights=panel.weight[inside])
        same(mine.counterfactual[c] + mine.estimate[c], mean)


def test_sun_abraham_earlier_base_and_factor():
    panel = panel_of(5)
    mine, plain = sun_abraham(panel, base=-2, small_sample="cluster"), sun_abraham(panel, base=-2)
    assert (mine.event[mine.base] == -2).all()
    theta, _ = naive.regression(panel, naive.cell_columns(panel, mine.group[~mine.base], mine.time[~mine.base]))
    same(mine.estimate[~mine.base], theta)
    same(mine.vcov, plain.vcov * panel.units / (panel.units - 1))


def test_sun_abraham_with_the_last_cohort_as_control():
    panel = panel_of(6, gaps=False, weights=False, x=None)
    mine = sun_abraham(panel, control="last")
    assert set(mine.group.tolist()) == {3, 5} and mine.time.max() == 5
    kept = panel.take_units(panel.first < NEVER)
    short = kept.take_rows(kept.period < 6)
    same(mine.estimate, sun_abraham(short).estimate, EXACT)
    y = panel.wide()
    late, early = panel.first == 6, panel.first == 3
    change = (y[:, 4] - y[:, 1])[early].mean() - (y[:, 4] - y[:, 1])[late].mean()
    same(mine.estimate[(mine.group == 3) & (mine.time == 5)], change)
    wider = sun_abraham(panel, control="last", base=-2)  # cohort 5 has begun to anticipate where the control ends
    assert set(wider.group.tolist()) == {3} and wider.time.max() == 4


def test_periods_with_gaps_take_the_last_one_before():
    unit, period = np.repeat(np.arange(12), 4), np.tile([2000, 2002, 2004, 2007], 12)
    first = np.where(unit % 2 == 0, 2003, 0)
    rng = np.random.default_rng(1)
    panel = Panel.of(unit, period, rng.normal(size=48), first)
    mine = sun_abraham(panel)
    assert mine.time[mine.base].tolist() == [2002]
    y, treated = panel.wide(), panel.first < NEVER
    expected = [(y[:, t] - y[:, 1])[treated].mean() - (y[:, t] - y[:, 1])[~treated].mean() for t in range(4)]
    same(mine.estimate, expected)


def test_shares_known_leaves_their_part_out():
    cells = sun_abraham(panel_of(7))
    known, estimated = cells.aggregate("event", shares="known"), cells.aggregate("event", shares="estimated")
    same(known.estimate, estimated.estimate)
    assert (known.std_error[known.at >= 0] != estimated.std_error[known.at >= 0]).any()


# --- extended


@pytest.mark.parametrize("control", ["not_yet", "never"])
@pytest.mark.parametrize("shape", ["weights", "gaps", "clusters"])
def test_extended_linear(control, shape):
    panel = panel_of(**{**SHAPES[shape], "x": "fixed"})
    mine = extended(panel, control=control)
    free = ~mine.base
    theta, influence = naive.extended_linear(panel, mine.group[free], mine.time[free])
    same(mine.estimate[free], theta, 1e-8)
    summed = np.zeros((len(panel.cluster_ids), len(mine)))
    np.add.at(summed, panel.cluster, mine.influence)
    same(summed[:, free], influence, 1e-8)
    assert (mine.event >= 0).all() == (control == "not_yet")


@pytest.mark.parametrize("control", ["not_yet", "never"])
@pytest.mark.parametrize("family", ["logit", "poisson", "linear"])
@pytest.mark.parametrize("x", ["fixed", None])
def test_extended_pooled(family, control, x):
    """Fitting the untreated rows is the same as the interactions of all rows with average partial effects."""
    panel = panel_of(9, 120, 5, x=x, outcome=family, cohorts=(3, 4, 0), repeated=family == "linear")
    mine = extended(panel, family=family, control=control)
    free = ~mine.base
    estimate, influence = naive.extended_pooled(panel, mine.group[free], mine.time[free], family)
    same(mine.estimate[free], estimate, 1e-7)
    same(mine.influence[:, free], influence, 1e-7)


def test_extended_equals_sun_abraham_without_covariates():
    panel = panel_of(10)
    mine, other = extended(panel, control="never", covariates=False), sun_abraham(panel, covariates=False)
    same(mine.estimate, other.estimate, EXACT)
    same(mine.influence, other.influence, EXACT)


def test_unit_effects_and_cohort_effects_agree_when_balanced():
    """The two-way Mundlak equivalence (Wooldridge 2021), in estimate and in influence; not with gaps."""
    from evalkit.did.extended import Design, _pooled, _within

    for control in ("not_yet", "never"):
        balanced = panel_of(11, gaps=False, x="fixed")
        a, b = (f(Design.of(balanced, control, 0, True)) for f in (_within, lambda d: _pooled(d, "linear")))
        same(a.estimate, b.estimate)
        same(a.influence, b.influence)
        gaps = panel_of(11, x="fixed")
        a, b = (f(Design.of(gaps, control, 0, True)) for f in (_within, lambda d: _pooled(d, "linear")))
        assert np.abs(a.estimate - b.estimate).max() > 0.01


def test_extended_allows_anticipation():
    panel = panel_of(12, x=None, gaps=False)
    mine = extended(panel, anticipation=1)
    assert mine.event.min() == -1
    moved = panel.with_first(np.where(panel.first < NEVER, panel.first - 1, NEVER))
    same(mine.estimate, extended(moved).estimate, EXACT)
    never = extended(panel, anticipation=1, control="never")
    assert (never.event[never.base] == -2).all()
    same(never.estimate, sun_abraham(panel, base=-2).estimate, EXACT)


def test_extended_takes_the_first_value_of_a_covariate():
    panel = panel_of(13, gaps=False)
    first = np.repeat(panel.x[:: len(panel.periods)], len(panel.periods), axis=0)
    same(extended(panel).estimate, extended(replace(panel, x=first)).estimate, EXACT)


@pytest.mark.parametrize("family", ["linear", "logit", "poisson"])
def test_one_cohort_two_periods_by_hand(family):
    rng = np.random.default_rng(3)
    unit, period = np.repeat(np.arange(80), 2), np.tile([1, 2], 80)
    y = rng.integers(0, 2, 160).astype(float)
    panel = Panel.of(unit, period, y, np.where(unit % 2, 2, 0))
    m = {(g, t): y[(unit % 2 == g) & (period == t)].mean() for g in (0, 1) for t in (1, 2)}
    if family == "linear":
        other = m[1, 1] + m[0, 2] - m[0, 1]
    elif family == "poisson":
        other = m[1, 1] * m[0, 2] / m[0, 1]
    else:
        odds = {k: v / (1 - v) for k, v in m.items()}
        o = odds[1, 1] * odds[0, 2] / odds[0, 1]
        other = o / (1 + o)
    mine = extended(panel, family=family)
    same(mine.estimate, [m[1, 2] - other])
    same(mine.counterfactual, [other])


def test_poisson_and_logit_with_shares_and_scale():
    panel = panel_of(14, 120, 5, x="fixed", outcome="poisson", cohorts=(3, 4, 0))
    small, large = (extended(panel.with_outcome(panel.outcome * k), family="poisson") for k in (1, 1e6))
    same(small.estimate * 1e6, large.estimate)
    same(small.std_error * 1e6, large.std_error)
    shares = panel.with_outcome(panel.outcome / (1 + panel.outcome))
    mine = extended(shares, family="logit")
    estimate, _ = naive.extended_pooled(shares, mine.group, mine.time, "logit")
    same(mine.estimate, estimate, 1e-7)


def separated(kind):
    """Cohort 3 (units 0..9), cohort 4 (10..19), never (20..39), 5 periods; ``kind``: where nobody has the outcome."""
    rng = np.random.default_rng(4)
    unit, period = np.repeat(np.arange(40), 5), np.tile(np.arange(1, 6), 40)
    first = np.where(unit < 10, 3, np.where(unit < 20, 4, 0))
    y = rng.integers(0, 2, 200).astype(float)
    where = {
        "treated": (first == 3) & (period == 4), "cohort": (first == 3) & (period < 3),
        "period": ((first == 0) & (period == 5)), "everybody": np.ones(200, bool),
    }[kind]  # fmt: skip
    y[where] = 0.0
    return Panel.of(unit, period, y, first)


@pytest.mark.parametrize("family", ["logit", "poisson"])
def test_separation(family):
    whole = extended(separated("treated"), family=family)  # a treated cell of 0 % has an effect: minus its comparison
    cell = (whole.group == 3) & (whole.time == 4)
    assert whole.estimate[cell] == -whole.counterfactual[cell] and (whole.std_error[cell] > 0) and not whole.missing
    cohort = extended(separated("cohort"), family=family)
    assert np.isnan(cohort.estimate[cohort.group == 3]).all() and np.isfinite(cohort.estimate[cohort.group == 4]).all()
    assert {(m.group, m.code) for m in cohort.missing} == {(3, "regression_separated_cell")}
    rest = separated("cohort")
    same(cohort.estimate[cohort.group == 4], extended(rest.take_units(rest.first != 3), family=family).estimate)
    period = extended(separated("period"), family=family)
    assert np.isnan(period.estimate[period.time == 5]).all() and np.isfinite(period.estimate[period.time < 5]).all()
    assert not np.isnan(period.influence).any() and not period.influence[:, period.time == 5].any()
    with pytest.raises(DesignError) as caught:
        extended(separated("everybody"), family=family)
    assert caught.value.faults[0].code == "did.regression_separated"


def test_all_ones_separate_a_logit_only():
    panel = separated("cohort")
    turned = panel.with_outcome(1 - panel.outcome)
    assert np.isnan(extended(turned, family="logit").estimate).any()
    assert np.isfinite(extended(turned, family="poisson").estimate).all()


def test_covariates_that_separate():
    panel = separated("treated")
    x = np.repeat(np.arange(40) % 2, 5).astype(float)
    with pytest.raises(DesignError) as caught:
        extended(replace(panel.with_outcome(x), x=x[:, None], names=("same",)), family="logit")
    assert caught.value.faults[0].code == "did.regression_separated"


# --- stacked


@pytest.mark.parametrize("control", ["not_yet", "never"])
@pytest.mark.parametrize("weighting", ["corrective", "none"])
@pytest.mark.parametrize("gaps", [False, True])
def test_stacked(control, weighting, gaps):
    panel = panel_of(15, periods=8, gaps=gaps, cohorts=(3, 5, 5, 6, 0, 0, 7), x=None)
    mine = stacked(panel, before=2, after=1, control=control, weighting=weighting)
    assert mine.at.tolist() == [-2, -1, 0, 1] and mine.base == (-1,)
    free, theta, units, influence = naive.stacked(panel, 2, 1, control, weighting)
    place = np.searchsorted(mine.at, free)
    same(mine.estimate[place], theta)
    if weighting == "none":  # the regression's shares are a function of the sizes, and its scores know it
        full = np.zeros((panel.units, len(free)))
        full[units] = influence
        same(mine.uncertainty.values[:, place], full)
    same(mine.overall.estimate, mine.estimate[2:].mean())


def test_stacked_corrective_is_the_average_over_the_treated():
    panel = panel_of(16, gaps=False, weights=False, x=None, cohorts=(3, 3, 3, 5, 0))
    mine = stacked(panel, before=1, after=2)
    y, first = panel.wide(), panel.first
    expected, sizes = [], []
    for g in (3, 5):
        change = y[:, g - 1 + 2] - y[:, g - 2]
        clean = first > g + 2
        expected.append(change[first == g].mean() - change[clean].mean())
        sizes.append((first == g).sum())
    same(mine.estimate[-1], np.average(expected, weights=sizes))
    assert mine.std_error[0] == 0 and (mine.std_error[1:] > 0).all()


def test_stacked_says_who_takes_no_part():
    panel = panel_of(17, gaps=False, x=None, cohorts=(2, 4, 7, 0))
    mine = stacked(panel, before=2, after=1)
    assert set(mine.missing) == {Missing(2, 2, "regression_window"), Missing(7, 7, "regression_window")}
    late = panel_of(17, gaps=False, x=None, cohorts=(3, 5))
    mine = stacked(late, before=1, after=1)
    assert mine.missing == (Missing(5, 5, "regression_no_comparison"),)
    with pytest.raises(DesignError) as caught:
        stacked(panel, before=6, after=6)
    assert caught.value.faults[0].code == "did.regression_no_stack"


# --- influence is the derivative with respect to a unit's weight


def weighted_by(panel, unit, factor):
    return replace(panel, weight=np.where(panel.unit == unit, panel.weight * factor, panel.weight))


ESTIMATORS = {
    "two_way": lambda p: two_way(p, small_sample="none"),
    "event_study": lambda p: event_study(p, small_sample="none"),
    "sun_abraham": lambda p: sun_abraham(p).aggregate("event"),
    "extended": lambda p: extended(p).aggregate("simple"),
    "extended never": lambda p: extended(p, control="never").aggregate("event"),
    "logit": lambda p: extended(p, family="logit").aggregate("event"),
    "poisson": lambda p: extended(p, family="poisson", control="never").aggregate("event"),
    "stacked": lambda p: stacked(p, before=2, after=1),
    "stacked none": lambda p: stacked(p, before=2, after=1, weighting="none"),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_influence_is_a_derivative(name):
    """The influence of unit i is d estimate / d log(weight of i): no algebra of the estimator is used."""
    family = name if name in ("logit", "poisson") else "linear"
    panel = panel_of(18, 200 if name == "logit" else 64, 7, x="fixed", outcome=family, cohorts=(4, 5, 5, 0))
    whole = ESTIMATORS[name](panel)
    h = 1e-4
    for unit in (0, 1, 2, 3, 20, 43):
        up, down = (ESTIMATORS[name](weighted_by(panel, unit, np.exp(s * h))).estimate for s in (1, -1))
        np.testing.assert_allclose(whole.uncertainty.values[unit], (up - down) / (2 * h), rtol=1e-5, atol=1e-7)


def test_order_of_rows_does_not_matter():
    rng = np.random.default_rng(5)
    unit, period = np.repeat(np.arange(30), 5), np.tile(np.arange(5), 30)
    columns = rng.normal(size=150), np.array([2, 3, 0])[unit % 3], rng.uniform(1, 2, 150), rng.normal(size=(150, 1))
    order = rng.permutation(150)
    for estimator in (two_way, event_study, lambda p: sun_abraham(p).aggregate(), lambda p: extended(p).aggregate()):
        a, b = (
            estimator(Panel.of(unit[o], period[o], columns[0][o], columns[1][o], weight=columns[2][o], x=columns[3][o],
                               names=("a",)))
            for o in (np.arange(150), order)
        )  # fmt: skip
        assert np.array_equal(a.estimate, b.estimate) and np.array_equal(a.vcov, b.vcov)


# --- missing cells


def test_a_cohort_without_its_base_period_has_no_effects():
    panel = panel_of(19, x=None)
    cut = panel.take_rows(~((panel.first[panel.unit] == 5) & (panel.period == 4)))
    mine = sun_abraham(cut)
    assert np.isnan(mine.estimate[mine.group == 5]).all() and np.isfinite(mine.estimate[mine.group != 5]).all()
    codes = {(m.group, m.code) for m in mine.missing}
    assert codes == {(5, "regression_not_identified")}
    free = (mine.group != 5) & ~mine.base
    same(mine.estimate[free], sun_abraham(cut.take_units(cut.first != 5)).estimate[~mine.base[mine.group != 5]])


def test_an_empty_cell_is_named():
    panel = panel_of(20, x=None)
    cut = panel.take_rows(~((panel.first[panel.unit] == 5) & (panel.period == 6)))
    for mine in (sun_abraham(cut), extended(cut), extended(cut, family="poisson")
                 if (cut.outcome >= 0).all() else extended(cut)):  # fmt: skip
        assert Missing(5, 6, "regression_cell_empty") in mine.missing
        assert not ((mine.group == 5) & (mine.time == 6)).any()


@pytest.mark.parametrize("repeated", [False, True])
def test_periods_without_anybody_untreated(repeated):
    panel = panel_of(21, cohorts=(3, 5), x=None, repeated=repeated)
    mine = extended(panel)
    late = mine.time >= 5
    assert np.isnan(mine.estimate[late]).all() and np.isfinite(mine.estimate[~late]).all()
    assert {m.code for m in mine.missing} == {"regression_no_comparison"} and len(mine.missing) == late.sum()
    early = panel.take_rows(panel.period < 5)
    if not repeated:
        balanced = panel_of(21, cohorts=(3, 5), x=None, gaps=False, weights=False)
        mine, early = extended(balanced), balanced.take_rows(balanced.period < 5)
    same(mine.estimate[mine.time < 5], extended(early).estimate)


def test_a_cohort_within_one_cluster_stands_with_a_reservation():
    panel = panel_of(22, x=None, clusters=4)  # cohorts repeat every four units, so each lies in one cluster
    mine = sun_abraham(panel)
    assert {m.code for m in mine.missing} == {"regression_cohort_small"} and np.isfinite(mine.estimate).all()
    assert {(m.group, m.time) for m in mine.missing} == {
        (g, t) for g, t in zip(mine.group.tolist(), mine.time.tolist(), strict=True) if t >= g
    }
    alone = stacked(panel, before=1, after=0)
    assert {m.code for m in alone.missing} == {"regression_cohort_small"}


def test_more_covariates_than_units_in_a_cohort():
    panel = panel_of(23, gaps=False, weights=False, x="fixed")
    few = panel.take_units((panel.first != 3) | (np.cumsum(panel.first == 3) <= 2))
    mine = extended(few)  # two units, three coefficients: their mean is still told
    assert np.isfinite(mine.estimate).all() and not mine.missing
    plain = naive.extended_linear(few, mine.group, mine.time)  # by a pseudo-inverse as well
    same(mine.estimate, plain[0], 1e-7)
    same(mine.influence, plain[1], 1e-7)


def test_always_treated_units_are_left_out():
    panel = panel_of(24, cohorts=(1, 3, 5, 0), x=None)
    rest = panel.take_units(panel.first != 1)
    for estimator in (two_way, event_study, lambda p: sun_abraham(p).aggregate(), lambda p: extended(p).aggregate()):
        same(estimator(panel).estimate, estimator(rest).estimate, EXACT)
    empty = replace(panel, weight=np.where(panel.first[panel.unit] == 5, 0.0, panel.weight))
    same(two_way(empty).estimate, two_way(panel.take_units(panel.first != 5)).estimate, EXACT)


# --- faults


def simple(first, periods=3, outcome=None, **asked):
    first = np.asarray(first)
    unit, period = np.repeat(np.arange(len(first)), periods), np.tile(np.arange(1, periods + 1), len(first))
    y = np.random.default_rng(1).normal(size=len(unit)) if outcome is None else np.full(len(unit), outcome)
    return Panel.of(unit, period, y, first[unit], **asked)


FAULTS = [
    ("regression_two_periods", DesignError, lambda: two_way(simple([0, 0], 1))),
    ("regression_no_treated", DesignError, lambda: two_way(simple([0, 0, 0]))),
    ("regression_no_treated", DesignError, lambda: sun_abraham(simple([1, 1, 0]))),
    ("regression_no_treated", DesignError, lambda: extended(simple([2, 2, 0, 0]), anticipation=1)),
    ("regression_no_untreated", DesignError, lambda: two_way(simple([2, 2, 2]))),
    ("regression_no_untreated", DesignError, lambda: extended(simple([2, 2, 2]))),
    ("regression_no_never", DesignError, lambda: sun_abraham(simple([2, 2, 3, 3]))),
    ("regression_no_never", DesignError, lambda: extended(simple([2, 2, 3, 3]), control="never")),
    ("regression_no_treated", DesignError, lambda: sun_abraham(simple([0, 0]), control="last")),
    ("regression_no_never", DesignError, lambda: sun_abraham(simple([0, 2, 2]), control="last", base=-2)),
    ("regression_few_clusters", DesignError, lambda: two_way(simple([2, 0], cluster=np.zeros(6)))),
    ("regression_few_clusters", DesignError, lambda: two_way(simple([2, 0], 2), small_sample="full")),
    ("regression_unknown_covariate", UsageError, lambda: two_way(simple([2, 0]), covariates=["z"])),
    ("regression_setting", UsageError, lambda: two_way(simple([2, 0]), engine="other")),
    ("regression_setting", UsageError, lambda: sun_abraham(simple([2, 0]), base=0)),
    ("regression_setting", UsageError, lambda: sun_abraham(simple([2, 0]), control="other")),
    ("regression_setting", UsageError, lambda: extended(simple([2, 0]), family="probit")),
    ("regression_setting", UsageError, lambda: extended(simple([2, 0]), control="other")),
    ("regression_setting", UsageError, lambda: extended(simple([2, 0]), anticipation=-1)),
    ("regression_setting", UsageError, lambda: stacked(simple([2, 0]), before=0, after=1)),
    ("regression_setting", UsageError, lambda: stacked(simple([2, 0]), before=1, after=-1)),
    ("regression_setting", UsageError, lambda: stacked(simple([2, 0]), before=1, after=1, weighting="other")),
    ("regression_base", UsageError, lambda: event_study(simple([2, 2, 0]), base=-4)),
    ("regression_base", UsageError, lambda: event_study(simple([2, 2, 0]), window=(1, 2))),
    ("regression_base", UsageError, lambda: event_study(simple([3, 3, 0]), window=(-1, 1), base=-2)),
    ("regression_repeated", UsageError, lambda: stacked(simple([2, 2, 0], repeated=True), before=1, after=0)),
    ("regression_repeated", UsageError, lambda: two_way(simple([2, 2, 0], repeated=True), engine="linearmodels")),
    ("regression_outcome_share", DataError, lambda: extended(simple([2, 0], outcome=1.5), family="logit")),
    ("regression_outcome_count", DataError, lambda: extended(simple([2, 0], outcome=-1.0), family="poisson")),
    ("regression_no_stack", DesignError, lambda: stacked(simple([2, 0]), before=3, after=1)),
]  # fmt: skip


@pytest.mark.parametrize(("code", "kind", "call"), FAULTS, ids=[f"{c}-{i}" for i, (c, _, _) in enumerate(FAULTS)])
def test_faults(code, kind, call):
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.faults[0].code == f"did.{code}"
    for lang in LANGUAGES:
        assert "{" not in caught.value.text(lang)


def test_treatment_that_is_a_covariate():
    panel = simple([2, 2, 3, 0, 0])
    doubled = replace(panel, x=panel.treated[:, None].astype(float), names=("programme",))
    with pytest.raises(DesignError) as caught:
        two_way(doubled)
    assert caught.value.faults[0].code == "did.regression_collinear"
    two_way(doubled, covariates=False)


@pytest.mark.parametrize(
    "code", ["not_identified", "cell_empty", "no_comparison", "separated_cell", "cohort_small", "window"]
)
def test_reasons_have_sentences(code):
    for lang in LANGUAGES:
        for part in ("say", "fix"):
            assert catalogue(lang)[f"fault.did.regression_{code}.{part}"]
