"""Group-time effects and their averages: against plain loops and derivatives to the weights, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from naive import did_group_time as naive
from scipy import stats
from tolerances import EXACT, MONTE_CARLO, SOLVED

from evalkit.did.cells import Cells
from evalkit.did.group_time import group_time
from evalkit.did.panel import NEVER, Panel
from evalkit.did.two_by_two import panel_effects, section_effects
from evalkit.errors import DesignError, Fault, UsageError
from evalkit.text import LANGUAGES

PERIODS = (1, 2, 4, 5, 7)
METHODS = ("dr", "ipw", "reg", "dr_improved", "means")


def simulated(seed=5, units=50, gaps=0.0, fixed=False, weighted=True, cohorts=(0, 3, 4, 5)):
    """Columns of a panel with irregular periods, covariates that move, and an effect that grows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(units, 2))
    chance = np.exp(0.3 * x[:, :1] * np.arange(len(cohorts)))
    pick = (rng.random((units, 1)) > np.cumsum(chance / chance.sum(1, keepdims=True), axis=1)).sum(1)
    first = np.array(cohorts)[np.minimum(pick, len(cohorts) - 1)]
    unit, period = np.repeat(np.arange(units), len(PERIODS)), np.tile(PERIODS, units)
    moving = x[unit] if fixed else x[unit] + 0.3 * rng.normal(size=(len(unit), 2))
    when = first[unit]
    effect = np.where((when > 0) & (period >= when), 1.0 + 0.3 * (period - when), 0.0)
    y = rng.normal(size=units)[unit] + 0.2 * period * (1 + x[unit, 0]) + effect + rng.normal(size=len(unit))
    weight = rng.uniform(0.5, 2, units)[unit] * (rng.uniform(0.8, 1.2, len(unit)) if weighted == "moving" else 1)
    columns = {"unit": unit, "period": period, "outcome": y, "first": when, "x": moving}
    columns["weight"] = weight if weighted else np.ones(len(unit))
    keep = rng.random(len(unit)) >= gaps
    return {name: values[keep] for name, values in columns.items()}


def panel_of(columns, **asked):
    return Panel.of(**columns, names=("a", "b"), **asked)


def data_of(columns):
    data: dict = {}
    for u, t, y, g, x, w in zip(
        *(columns[k] for k in ("unit", "period", "outcome", "first", "x", "weight")), strict=True
    ):
        data.setdefault(int(u), (int(g) or naive.NEVER, {}))[1][int(t)] = (float(y), float(w), tuple(x))
    return data


def keyed(cells):
    return {(int(g), int(t)): c for c, (g, t) in enumerate(zip(cells.group, cells.time, strict=True))}


# Against plain loops


@pytest.mark.parametrize("base", ["universal", "varying"])
@pytest.mark.parametrize("control", ["never", "not_yet"])
@pytest.mark.parametrize("method", METHODS)
def test_panel_as_in_plain_loops(method, control, base):
    columns = simulated(weighted="moving", fixed=method == "ipw")
    asked = {"control": control, "method": method, "base": base}
    cells = group_time(panel_of(columns), **asked)
    compare(cells, naive.cells(data_of(columns), **asked))


def compare(cells, expected):
    place = keyed(cells)
    assert set(place) == set(expected)
    for key, want in expected.items():
        c = place[key]
        if want is None:
            assert np.isnan(cells.estimate[c]) and not cells.influence[:, c].any()
            continue
        value, influence, treated, comparison = want
        assert cells.estimate[c] == pytest.approx(value, rel=SOLVED, abs=SOLVED)
        assert (cells.n_treated[c], cells.n_comparison[c]) == (treated, comparison)
        if influence is not None:
            mine = np.array([influence.get(int(u), 0.0) for u in cells.panel.ids])
            np.testing.assert_allclose(cells.influence[:, c], mine, rtol=SOLVED, atol=SOLVED)


@pytest.mark.parametrize("anticipation", [1, 2])
@pytest.mark.parametrize("base", ["universal", "varying"])
def test_anticipation_moves_base_and_comparison(base, anticipation):
    columns = simulated(units=60)
    asked = {"control": "not_yet", "method": "reg", "base": base, "anticipation": anticipation}
    cells = group_time(panel_of(columns), **asked)
    compare(cells, naive.cells(data_of(columns), **asked))
    assert cells.group.min() > PERIODS[0] + anticipation
    if base == "universal":
        anchor = {int(g): int(t) for g, t in zip(cells.group[cells.base], cells.time[cells.base], strict=True)}
        assert anchor == {g: max(t for t in PERIODS if t < g - anticipation) for g in np.unique(cells.group).tolist()}


@pytest.mark.parametrize("policy", ["complete", "by_pair", "cross_sections"])
@pytest.mark.parametrize("method", ["dr", "means"])
def test_gaps_by_each_policy(policy, method):
    columns = simulated(gaps=0.12, seed=8)
    asked = {"control": "never", "method": method, "base": "varying"}
    cells = group_time(panel_of(columns), unbalanced=policy, **asked)
    named = {"cross_sections": "sections"}.get(policy, policy)
    compare(cells, naive.cells(data_of(columns), **asked, policy=named))
    whole = np.bincount(columns["unit"]) == len(PERIODS)
    assert cells.panel.units == (whole.sum() if policy == "complete" else len(whole))


def test_policies_agree_without_gaps_and_without_covariates():
    panel = panel_of(simulated())
    answers = [group_time(panel, method="means", unbalanced=p) for p in ("complete", "by_pair", "cross_sections")]
    for other in answers[1:]:
        np.testing.assert_allclose(answers[0].estimate, other.estimate, rtol=EXACT, atol=EXACT)
    gone = np.ones(len(panel), bool)
    gone[-1] = False  # one row less, of the last unit: only cells with its last period may change
    few = group_time(panel.take_rows(gone), method="means", unbalanced="by_pair")
    moved = np.abs(answers[0].estimate - few.estimate) > SOLVED
    assert moved.any() and set(few.time[moved].tolist()) == {PERIODS[-1]}


def test_repeated_cross_sections_are_rows_of_their_own():
    columns = simulated(units=50)
    panel = panel_of(columns, repeated=True)
    cells = group_time(panel, method="dr", control="never")
    data = data_of({**columns, "unit": np.arange(len(columns["unit"]))})
    data = {u: (g, seen) for u, (g, seen) in data.items() if g > PERIODS[0]}
    compare(cells, naive.cells(data, method="dr", control="never", base="universal", policy="sections"))
    assert cells.panel.units == len(panel)


@pytest.mark.parametrize("method", METHODS)
def test_section_effects_in_plain_loops(method):
    rng = np.random.default_rng(2)
    n, x = 120, rng.normal(size=(120, 2))
    d, post = (rng.random(n) < 1 / (1 + np.exp(-x[:, 0]))).astype(int), (rng.random(n) < 0.4).astype(int)
    y, w = x[:, 0] * (1 + post) + d + rng.normal(size=n), rng.uniform(0.5, 2, n)
    block = 2 * (1 - d) + 1 - post
    order = np.argsort(block, kind="stable")
    found = section_effects(y[order], tuple(np.bincount(block).tolist()), x[order].T, w[order], method)
    rows = [{"d": int(d[i]), "post": int(post[i]), "y": y[i], "w": w[i], "x": np.array([1.0, *x[i]])} for i in order]
    value, influence = naive.section_cell(rows, method)
    assert found.estimate[0] == pytest.approx(value, rel=SOLVED)
    if method == "dr_improved":
        np.testing.assert_allclose(found.influence[0], influence, rtol=SOLVED, atol=SOLVED)


# Influence is the derivative to a unit's weight: estimates, averages, shares, everything at once


def everything(panel, asked):
    cells = group_time(panel, **asked)
    values, influence = [cells.estimate], [cells.influence]
    for by, balance in (("event", None), ("event", 1), ("group", None), ("calendar", None), ("simple", None)):
        effects = cells.aggregate(by, balance=balance)
        for part in (effects, effects.overall):
            if part is not None:
                values.append(part.estimate)
                influence.append(part.uncertainty.values)
    return np.nan_to_num(np.concatenate(values)), np.concatenate(influence, axis=1)


@pytest.mark.parametrize(
    ("gaps", "asked"),
    [
        (0.0, {"method": "dr"}),
        (0.0, {"method": "ipw", "base": "varying", "control": "never"}),
        (0.0, {"method": "reg", "anticipation": 1}),
        (0.0, {"method": "dr_improved"}),
        (0.12, {"method": "dr", "unbalanced": "by_pair"}),
        (0.12, {"method": "dr", "unbalanced": "cross_sections", "control": "never"}),
        (0.12, {"method": "ipw", "unbalanced": "cross_sections"}),
        (0.12, {"method": "reg", "unbalanced": "cross_sections"}),
    ],
    ids=str,
)
def test_influence_is_the_derivative_to_the_weight(gaps, asked):
    panel = panel_of(simulated(seed=9, units=80, gaps=gaps, weighted="moving"))
    _, influence = everything(panel, asked)
    used = group_time(panel, **asked).panel
    step = 1e-4
    for unit in range(0, used.units, 7):
        mine = panel.ids[panel.unit] == used.ids[unit]
        high, low = (
            everything(replace(panel, weight=np.where(mine, (1 + h) * panel.weight, panel.weight)), asked)[0]
            for h in (step, -step)
        )
        np.testing.assert_allclose((high - low) / (2 * step), influence[unit], atol=2e-7, rtol=2e-6)


# Averages


@pytest.mark.parametrize("by", ["event", "group", "calendar", "simple"])
def test_averages_in_plain_loops(by):
    columns = simulated(seed=3)
    cells = group_time(panel_of(columns), base="varying")
    found = {k: float(cells.estimate[c]) for k, c in keyed(cells).items() if np.isfinite(cells.estimate[c])}
    share = {g: float(cells.unit_weight[cells.panel.first == g].sum()) for g in {k[0] for k in found}}
    want, overall = naive.aggregate(found, share, by)
    effects = cells.aggregate(by)
    seen = np.isfinite(effects.estimate)
    assert dict(zip(effects.at[seen].tolist(), effects.estimate[seen], strict=True)) == pytest.approx(want, rel=SOLVED)
    assert (effects.overall is None) == (overall is None)
    if overall is not None:
        assert effects.overall.estimate[0] == pytest.approx(overall, rel=SOLVED)
    outcome = effects.counterfactual + effects.estimate  # the same average of the mean outcomes of the treated
    level = {k: float(cells.estimate[c] + cells.counterfactual[c]) for k, c in keyed(cells).items() if k in found}
    expected = naive.aggregate(level, share, by)[0]
    assert dict(zip(effects.at[seen].tolist(), outcome[seen], strict=True)) == pytest.approx(expected, rel=SOLVED)


def test_balanced_event_times_and_windows():
    cells = group_time(panel_of(simulated(seed=3)), control="never")
    found = {k: float(cells.estimate[c]) for k, c in keyed(cells).items()}
    share = {g: float(cells.unit_weight[cells.panel.first == g].sum()) for g in {k[0] for k in found}}
    want, overall = naive.aggregate(found, share, "event", balance=3, last=PERIODS[-1], first=PERIODS[0])
    effects = cells.aggregate(balance=3)
    assert dict(zip(effects.at.tolist(), effects.estimate, strict=True)) == pytest.approx(want, rel=SOLVED)
    assert effects.overall.estimate[0] == pytest.approx(overall, rel=SOLVED)
    whole, part = cells.aggregate(), cells.aggregate(window=(-2, 1))
    inside = (whole.at >= -2) & (whole.at <= 1)
    np.testing.assert_array_equal(part.at, whole.at[inside])
    np.testing.assert_allclose(part.estimate, whole.estimate[inside], rtol=EXACT)
    assert part.overall.estimate[0] == pytest.approx(part.estimate[part.at >= 0].mean(), rel=EXACT)
    np.testing.assert_array_equal(cells.aggregate(window=(None, 1)).at, whole.at[whole.at <= 1])


def test_known_shares_leave_their_influence_out():
    cells = group_time(panel_of(simulated(seed=3)), control="never")
    keys, units = list(keyed(cells)), cells.panel
    found = dict(zip(keys, cells.estimate.tolist(), strict=True))
    share = {int(g): float(cells.unit_weight[units.first == g].sum()) for g in units.cohorts}
    share[0] = float(cells.unit_weight[units.first == NEVER].sum())
    estimated, known = cells.aggregate("simple"), cells.aggregate("simple", shares="known")
    assert known.se_kind.endswith("cohort shares known") and estimated.estimate == known.estimate
    gap = (estimated.uncertainty.values - known.uncertainty.values)[:, 0]
    after = [k for k in keys if k[1] >= k[0]]
    want = [
        naive.share_influence(found, share, w, int(g), after)
        for w, g in zip(cells.unit_weight, units.first, strict=True)
    ]
    np.testing.assert_allclose(gap, want, atol=SOLVED)
    assert np.abs(gap).max() > 1e-3


def test_base_cells_are_zero_and_named():
    columns = simulated(cohorts=(0, 3, 5))
    cells = group_time(panel_of(columns), control="never")
    assert not cells.estimate[cells.base].any() and not cells.influence[:, cells.base].any()
    events = cells.aggregate()
    assert events.base == (-1,)  # of both; other event times before 0 are estimates of at least one
    mixed = group_time(panel_of(simulated(cohorts=(0, 4, 5, 7))), control="never").aggregate()
    assert mixed.base == (-2, -1)  # cohorts 4 and 7 have period 2 and 5 as base, nobody an estimate there
    at = events.at.tolist().index(-1)
    assert events.estimate[at] == events.std_error[at] == 0
    latest = cells.estimate + cells.counterfactual
    for (g, t), c in keyed(cells).items():
        rows = (columns["first"] == g) & (columns["period"] == t)
        assert latest[c] == pytest.approx(np.average(columns["outcome"][rows], weights=columns["weight"][rows]))
    assert group_time(panel_of(columns), base="varying").aggregate().base == ()


def test_missing_cells_leave_the_averages():
    columns = simulated(cohorts=(3, 4, 5), units=60)  # nobody is never treated
    cells = group_time(panel_of(columns), method="means")
    last = {(m.group, m.time) for m in cells.missing if m.code == "cell_no_comparison"}
    assert {(g, t) for g in (3, 4, 5) for t in PERIODS if t >= 5} <= last
    assert np.isnan(cells.estimate[cells.group == 5]).all()  # not even its base: nothing goes with it
    by_period = cells.aggregate("calendar")
    assert by_period.at.tolist() == [4, 5, 7] and np.isnan(by_period.estimate[1:]).all()
    assert np.isfinite(by_period.overall.estimate[0]) and by_period.overall.estimate[0] == by_period.estimate[0]
    assert by_period.n_treated.tolist()[1:] == [0, 0]
    assert np.isnan(cells.aggregate("group").estimate[-1])
    assert np.isnan(cells.std_error[np.isnan(cells.estimate)]).all()


def test_clusters_are_summed():
    columns = simulated(units=60)
    plain, coarse = panel_of(columns), panel_of(columns, cluster=columns["unit"] % 11, level="municipality")
    one, two = group_time(plain).aggregate(), group_time(coarse).aggregate()
    summed = np.stack([one.uncertainty.values[plain.ids % 11 == g].sum(0) for g in range(11)])
    np.testing.assert_allclose(two.uncertainty.values, summed, atol=EXACT)
    assert two.se_kind == "influence function, clustered on municipality"
    cells = group_time(coarse)
    by_hand = np.stack([cells.influence[coarse.ids % 11 == g].sum(0) for g in range(11)])
    np.testing.assert_allclose(cells.std_error, np.linalg.norm(by_hand, axis=0), atol=EXACT)


def test_row_order_plays_no_part():
    columns = simulated(gaps=0.1)
    shuffled = np.random.default_rng(0).permutation(len(columns["unit"]))
    other = {name: values[shuffled] for name, values in columns.items()}
    for policy in ("complete", "by_pair", "cross_sections"):
        one, two = (group_time(panel_of(c), unbalanced=policy) for c in (columns, other))
        np.testing.assert_array_equal(one.estimate, two.estimate)
        np.testing.assert_array_equal(one.influence, two.influence)


def test_scale_of_covariates_and_weights_plays_no_part():
    columns = simulated()
    moved = {**columns, "x": columns["x"] @ np.array([[1e4, 2.0], [0.0, 1e-3]]) + [2020.0, -5.0]}
    moved["weight"] = 1000 * columns["weight"]
    for method in ("dr", "ipw", "reg", "dr_improved"):
        one, two = (group_time(panel_of(c), method=method) for c in (columns, moved))
        np.testing.assert_allclose(one.estimate, two.estimate, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(one.std_error, two.std_error, rtol=1e-6)


def test_a_weight_counts_as_that_many_units():
    columns = simulated(units=40, weighted=False)
    twice = {**columns, "weight": np.where(columns["unit"] < 10, 2.0, 1.0)}
    copies = columns["unit"] < 10
    doubled = {name: np.concatenate([v, v[copies]]) for name, v in columns.items()}
    doubled["unit"] = np.concatenate([columns["unit"], columns["unit"][copies] + 1000])
    one, two = (group_time(panel_of(c)) for c in (twice, doubled))
    np.testing.assert_allclose(one.estimate, two.estimate, rtol=SOLVED, atol=SOLVED)
    for by in ("event", "group", "calendar", "simple"):
        first, second = one.aggregate(by), two.aggregate(by)
        np.testing.assert_allclose(first.estimate, second.estimate, rtol=SOLVED, atol=SOLVED)


# What cannot be estimated


def two_by_two(x, treated, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, len(x))), treated, np.asarray(x, float)[None], np.ones(len(x))


def test_trimmed_comparison_units_have_no_weight_and_are_counted():
    x = np.r_[np.ones(300), np.zeros(20), np.ones(1), np.zeros(50)]
    delta, treated, z, weight = two_by_two(x, 320)
    found = panel_effects(delta, treated, z, weight, "ipw")  # 300 of 301 with x = 1 are treated: 0.9967
    assert found.trimmed == 1 and found.code == ""
    assert found.estimate[0] == pytest.approx(delta[0, :320].mean() - delta[0, 321:].mean(), rel=1e-12)


@pytest.mark.parametrize("method", ["dr", "ipw", "dr_improved"])
def test_no_overlap(method):
    x = np.r_[np.ones(2000), np.zeros(20), np.ones(1), np.zeros(50)]
    found = panel_effects(*two_by_two(x, 2020), method)
    assert found.code == "cell_no_overlap" and np.isnan(found.estimate).all() and not found.influence.any()


@pytest.mark.parametrize("method", ["dr", "ipw", "dr_improved"])
def test_separation_is_refused(method):
    for x in (np.r_[np.linspace(1, 2, 20), np.linspace(-2, 0, 30)], np.r_[np.ones(8), np.zeros(12), np.zeros(30)]):
        found = panel_effects(*two_by_two(x, 20), method)
        assert found.code in ("cell_no_overlap", "cell_separated") and np.isnan(found.estimate).all()


def test_comparison_units_unlike_any_treated_do_no_harm():
    """A value that only comparison units have: their chance is 0 and so is their weight."""
    x = np.r_[np.zeros(20), np.zeros(30), np.ones(10)]
    delta, treated, z, weight = two_by_two(x, 20)
    other = np.random.default_rng(3).normal(size=len(x))
    with_them = panel_effects(delta, treated, np.vstack([z, other]), weight, "ipw")
    without = panel_effects(delta[:, :50], treated, other[None, :50], weight[:50], "ipw")
    assert with_them.estimate[0] == pytest.approx(without.estimate[0], rel=1e-9)
    np.testing.assert_allclose(with_them.influence[:, :50], without.influence, atol=1e-9)


@pytest.mark.parametrize("method", ["dr", "reg", "ipw", "dr_improved"])
def test_singular_covariates(method):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 40))
    found = panel_effects(rng.normal(size=(2, 40)), 15, np.vstack([x, x.sum(0)]), np.ones(40), method)
    assert found.code == "cell_singular" and found.estimate.shape == (2,) and np.isnan(found.estimate).all()
    few = panel_effects(rng.normal(size=(1, 18)), 15, rng.normal(size=(2, 18)), np.ones(18), "reg")
    assert few.code == "cell_singular"  # three coefficients through three points


def test_codes_of_cells():
    columns = simulated(units=60, cohorts=(0, 4, 5))
    lone = np.flatnonzero(columns["first"] == 4)
    keep = (columns["first"] != 4) | (columns["unit"] == columns["unit"][lone[0]])
    columns = {name: values[keep] for name, values in columns.items()}
    cells = group_time(panel_of(columns), method="means")
    noted = {m.group for m in cells.missing if m.code == "cell_lone"}
    assert noted == {4} and np.isfinite(cells.estimate[cells.group == 4]).all()
    small = group_time(panel_of(columns), method="means", smallest=2)
    assert {m.group for m in small.missing if m.code == "cell_small"} == {4}
    assert np.isnan(small.estimate[small.group == 4]).all()
    assert small.aggregate("group").overall.estimate[0] == pytest.approx(small.aggregate("group").estimate[1])
    gone = ~((columns["first"] == 4) & (columns["period"] == 7))
    gap = {name: values[gone] for name, values in columns.items()}
    for policy in ("by_pair", "cross_sections"):
        found = group_time(panel_of(gap), method="means", unbalanced=policy).missing
        assert ("cell_no_treated", 4, 7) in {(m.code, m.group, m.time) for m in found}


def code_of(error):
    return [fault.code for fault in error.value.faults]


@pytest.mark.parametrize(
    ("cohorts", "asked", "codes"),
    [
        ((0,), {}, ["did.group_time_nobody"]),
        ((0, 1), {}, ["did.group_time_no_before"]),
        ((0, 2), {"anticipation": 1}, ["did.group_time_no_before"]),
        ((3, 4), {"control": "never"}, ["did.group_time_no_never"]),
        ((4,), {}, ["did.group_time_at_once"]),
    ],
)
def test_designs_that_do_not_exist(cohorts, asked, codes):
    with pytest.raises(DesignError) as error:
        group_time(panel_of(simulated(cohorts=cohorts)), **asked)
    assert code_of(error) == codes


def test_nothing_estimable_says_why():
    columns = simulated(units=30, fixed=True)
    columns["x"] = np.column_stack([columns["x"][:, 0], 3 * columns["x"][:, 0]])
    with pytest.raises(DesignError) as error:
        group_time(panel_of(columns), control="never")
    assert code_of(error) == ["did.group_time_nothing", "did.cell_singular"]
    assert group_time(panel_of(columns), method="means", control="never").estimate.size


def test_no_complete_unit():
    columns = simulated(units=30)
    keep = columns["period"] != np.array(PERIODS)[columns["unit"] % len(PERIODS)]
    with pytest.raises(DesignError) as error:
        group_time(panel_of({name: values[keep] for name, values in columns.items()}))
    assert code_of(error) == ["did.group_time_no_complete"]


@pytest.mark.parametrize(
    "asked",
    [{"control": "x"}, {"method": "x"}, {"base": "x"}, {"unbalanced": "x"}, {"anticipation": -1}, {"smallest": 0}],
    ids=str,
)
def test_unknown_settings(asked):
    with pytest.raises(UsageError) as error:
        group_time(panel_of(simulated(units=20)), **asked)
    assert code_of(error) == ["did.group_time_setting"] and error.value.faults[0].params["setting"] in asked


@pytest.mark.parametrize("asked", [{"by": "x"}, {"by": "group", "balance": 1}, {"shares": "x"}], ids=str)
def test_unknown_averages(asked):
    with pytest.raises(UsageError) as error:
        group_time(panel_of(simulated(units=40))).aggregate(**asked)
    assert code_of(error) == ["did.group_time_setting"]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    "code",
    ["no_treated", "no_comparison", "small", "singular", "separated", "no_overlap", "lone", "trimmed"],
)
def test_every_reason_has_its_sentence(code, lang):
    assert "{" not in Fault(f"did.cell_{code}").text(lang)


def test_cells_check_their_shapes_and_are_read_only():
    cells = group_time(panel_of(simulated(units=40)))
    with pytest.raises(ValueError, match="read-only"):
        cells.influence[0, 0] = 1.0
    with pytest.raises(ValueError, match="unlike length"):
        replace(cells, group=cells.group[1:])
    with pytest.raises(ValueError, match="influence"):
        replace(cells, influence=cells.influence[1:])
    some = cells.take(cells.event >= 0)
    assert isinstance(some, Cells) and len(some) == (cells.event >= 0).sum()
    np.testing.assert_allclose(some.aggregate("simple").estimate, cells.aggregate("simple").estimate, rtol=EXACT)


# What it is for


@pytest.mark.parametrize("method", ["dr", "ipw", "reg", "dr_improved"])
def test_covers_the_truth_when_trends_depend_on_a_covariate(method):
    """Trends that differ by x, treatment that depends on x: means are biased, the others are not and cover."""
    truth, covered, gaps, naive_gap, errors = 1.0, [], [], [], []
    for run in range(runs := 160):
        rng = np.random.default_rng(1000 + run)
        x = rng.normal(size=200)
        late = rng.random(200) < 1 / (1 + np.exp(-0.7 * x))
        first = np.where(late, rng.choice([2, 3], 200), 0)
        t = np.arange(1, 4)
        y = rng.normal(size=(200, 1)) + 0.5 * t * x[:, None] + rng.normal(size=(200, 3))
        y += truth * ((first[:, None] > 0) & (t >= first[:, None]))
        u = np.repeat(np.arange(200), 3)
        panel = Panel.of(u, np.tile(t, 200), y.ravel(), first[u], x=x[u], names=("x",))
        one = group_time(panel, method=method).aggregate("simple")
        gaps.append(one.estimate[0] - truth)
        errors.append(one.std_error[0])
        covered.append(abs(gaps[-1]) <= 1.96 * errors[-1])
        if run < 30:
            naive_gap.append(group_time(panel, method="means").aggregate("simple").estimate[0] - truth)
    assert abs(np.mean(gaps)) <= MONTE_CARLO * np.std(gaps) / np.sqrt(len(gaps))
    assert np.mean(naive_gap) > 0.2
    low, high = stats.binomtest(int(np.sum(covered)), runs).proportion_ci(0.99, method="wilson")
    assert low <= 0.97 and high >= 0.93  # contract 7
    assert np.mean(errors) == pytest.approx(np.std(gaps), rel=MONTE_CARLO / np.sqrt(2 * len(gaps)))
