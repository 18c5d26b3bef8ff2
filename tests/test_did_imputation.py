"""Imputation: against R, against dense matrices and loops, and against the truth of simulations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from causaldata import castle
from naive import did_imputation as naive
from tolerances import EXACT, MONTE_CARLO, REFERENCE, SOLVED

from evalkit.did.absorb import TwoWay
from evalkit.did.effects import by_cluster
from evalkit.did.imputation import imputation
from evalkit.did.panel import NEVER, Panel
from evalkit.effects import Influence
from evalkit.errors import DesignError, EvalkitError, UsageError

SAID = json.loads((Path(__file__).parent / "reference" / "did_imputation.json").read_text())


@pytest.fixture(scope="module")
def castle_panel():
    rows = castle.load_pandas().data
    start = rows.sid.map(rows[rows.post > 0].groupby("sid").year.min()) - 1
    return Panel.of(rows.sid, rows.year, rows.l_homicide, start.fillna(0))


def agrees(mine, value, se):
    """Contract 7, for the estimate and its standard error."""
    assert abs(mine[0] - value) <= REFERENCE * max(abs(value), se)
    assert abs(mine[1] - se) <= REFERENCE * se


def test_castle_static(castle_panel):
    found = imputation(castle_panel, by="simple")
    agrees((found.estimate[0], found.std_error[0]), SAID["static"]["estimate"], SAID["static"]["std.error"])


def test_castle_horizons(castle_panel):
    found = imputation(castle_panel)
    for said in SAID["horizon"]:
        k = found.at.tolist().index(int(said["term"]))
        agrees((found.estimate[k], found.std_error[k]), said["estimate"], said["std.error"])


def test_the_reference_recentres_by_cohort_and_period(castle_panel):
    """Any other grouping gives another error than R's, and a larger one."""
    said = SAID["static"]["std.error"]
    for recentre in ("event", "all"):
        assert imputation(castle_panel, by="simple", recentre=recentre).std_error[0] > said * (1 + 1e-4)
    assert imputation(castle_panel, by="simple", recentre="cohort").std_error[0] == pytest.approx(said, rel=1e-6)


# Against loops


def make(seed, units=24, periods=7, missing=0.15, cross=False, never=True, clusters=8):
    """An unbalanced panel with weights, one covariate that moves and one that does not, as columns."""
    rng = np.random.default_rng(seed)
    cohort = rng.choice([0, 4, 5, 7] if never else [4, 5, 7], units)
    cohort[:4] = [0 if never else 7, 4, 5, 7]
    fixed = rng.normal(size=units)
    rows = []
    for i in range(units):
        for t in range(1, periods + 1):
            if rng.random() < missing and i >= 4:
                continue
            x = rng.normal() + 0.3 * t
            treated = 0 < cohort[i] <= t
            y = fixed[i] * 0.2 * t + 0.4 * x + 0.1 * t + treated * (1 + 0.2 * (t - cohort[i])) + rng.normal()
            rows.append((len(rows) if cross else i, t, y, cohort[i], rng.uniform(0.5, 2), x, fixed[i], i % clusters))
    return np.array(rows).T


def panel_of(columns, order=None, names=("moves", "fixed"), **given):
    c = columns if order is None else columns[:, order]
    x = np.column_stack([c[5], c[6]])[:, : len(names)]
    return Panel.of(c[0], c[1], c[2], c[3], weight=c[4], x=x, names=names, cluster=c[7], level="district", **given)


def loops(columns, wanted, group, by_period=True, **given):
    """The naive answer for those columns; the fixed covariate times period dummies."""
    unit, time, y, cohort, weight, x, fixed, cluster = columns.tolist()
    first = [c if c > 0 else NEVER for c in cohort]
    if by_period:
        z = [[x[i]] + [fixed[i] * (time[i] == t) for t in sorted(set(time))] for i in range(len(y))]
    else:
        z = [[x[i], fixed[i]] for i in range(len(y))]
    return naive.imputation(unit, time, y, first, weight, z, cluster, wanted, group, **given)


CHOICES = {
    "cohort": lambda cohort, time: (cohort, time),
    "event": lambda cohort, time: time - cohort,
    "all": lambda cohort, time: 0,
}


@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("recentre", list(CHOICES))
def test_loops_agree(recentre, leave_out):
    columns = make(3, units=40)
    _, time, _, cohort, *_ = columns.tolist()
    group = [CHOICES[recentre](c, t) for c, t in zip(cohort, time, strict=True)]
    keys = {
        "simple": lambda c, t: 0,
        "event": lambda c, t: t - c,
        "group": lambda c, t: c,
        "calendar": lambda c, t: t,
    }
    for by, key in keys.items():
        found = imputation(panel_of(columns), by=by, recentre=recentre, leave_out=leave_out, pretrend=0)
        for k, at in enumerate(found.at.tolist()):
            wanted = [c > 0 and key(c, t) == at for c, t in zip(cohort, time, strict=True)]
            estimate, influence, _, _ = loops(columns, wanted, group, leave_out=leave_out)
            assert found.estimate[k] == pytest.approx(estimate, abs=SOLVED)
            assert isinstance(found.uncertainty, Influence)
            assert found.uncertainty.level == "district"
            assert found.uncertainty.values[:, k] == pytest.approx(list(influence.values()), abs=SOLVED)
        assert (found.overall is None) == (by == "simple")


def test_loops_agree_before_the_treatment():
    columns = make(5, units=30)
    unit, time, y, cohort, weight, x, fixed, cluster = columns.tolist()
    first = [c if c > 0 else NEVER for c in cohort]
    z = [[x[i]] + [fixed[i] * (time[i] == t) for t in sorted(set(time))] for i in range(len(y))]
    found = imputation(panel_of(columns))
    assert found.at.tolist() == [-3, -2, -1, 0, 1, 2, 3]  # the first cohort has three untreated periods
    assert found.base == (-3,)
    assert found.estimate[0] == found.std_error[0] == 0
    said, influence = naive.pretrend(unit, time, y, first, weight, z, cluster, [-2, -1])
    assert found.estimate[1:3] == pytest.approx(said, abs=SOLVED)
    before = np.array(list(influence.values()))
    assert found.uncertainty.values[:, 1:3] == pytest.approx(before, abs=SOLVED)
    wanted = [c > 0 and t == c for c, t in zip(cohort, time, strict=True)]
    _, after, _, _ = loops(columns, wanted, list(zip(cohort, time, strict=True)))
    assert found.vcov[1, 3] == pytest.approx(sum(before[:, 0] * np.array(list(after.values()))), abs=SOLVED)


def test_repeated_cross_sections_have_cohort_effects():
    columns = make(11, units=30, cross=True)
    _, time, y, cohort, weight, x, fixed, cluster = columns.tolist()
    first = [c if c > 0 else NEVER for c in cohort]
    panel = Panel.of(
        columns[0], columns[1], columns[2], columns[3], weight=columns[4], x=columns[5:7].T, names=("a", "b"),
        cluster=columns[7], repeated=True,
    )  # fmt: skip
    found = imputation(panel, by="simple")
    group = list(zip(cohort, time, strict=True))
    z = [[x[i], fixed[i]] for i in range(len(y))]
    estimate, influence, _, _ = naive.imputation(
        cohort, time, y, first, weight, z, cluster, [c > 0 for c in cohort], group
    )
    assert found.estimate[0] == pytest.approx(estimate, abs=SOLVED)
    assert found.uncertainty.values[:, 0] == pytest.approx(list(influence.values()), abs=SOLVED)


def test_cross_sections_of_the_same_units_give_the_panel_estimate():
    """Balanced, equal weights, no covariates: cohort effects do what unit effects do, with errors by unit."""
    columns = make(12, missing=0)
    c = columns
    panel = Panel.of(c[0], c[1], c[2], c[3])
    cross = Panel.of(np.arange(c.shape[1]), c[1], c[2], c[3], cluster=c[0], repeated=True)
    mine, other = imputation(panel), imputation(cross)
    assert other.estimate == pytest.approx(mine.estimate, abs=SOLVED)
    assert other.vcov == pytest.approx(mine.vcov, abs=SOLVED)


def test_weights_add_up_to_zero_in_every_unit_and_period():
    columns = make(8)
    panel = panel_of(columns, names=())
    rows = np.flatnonzero(panel.treated)
    zero = np.flatnonzero(~panel.treated)
    fit = TwoWay.of(panel, zero)
    w = panel.weight[rows] / panel.weight[rows].sum()
    v = fit.weights_of(panel.unit[rows], panel.time[rows], np.empty((len(rows), 0)), w)
    for code, size in ((panel.unit, panel.units), (panel.time, 7)):
        assert np.bincount(code[zero], v, size) == pytest.approx(np.bincount(code[rows], w, size), abs=SOLVED)


def test_one_cohort_is_the_difference_with_the_mean_of_all_periods_before():
    columns = make(2, missing=0)
    c = columns[:, np.isin(columns[3], [0, 5])]
    panel = Panel.of(c[0], c[1], c[2], c[3])
    y, treated = panel.wide(), panel.first < NEVER
    gap = y[treated].mean(axis=0) - y[~treated].mean(axis=0)
    found = imputation(panel, pretrend=0)
    assert found.estimate == pytest.approx(gap[4:] - gap[:4].mean(), abs=SOLVED)
    change = y - y[:, :4].mean(axis=1, keepdims=True)
    own = np.where(treated[:, None], change - change[treated].mean(axis=0), change[~treated].mean(axis=0) - change)
    own = own / np.where(treated, treated.sum(), (~treated).sum())[:, None]
    assert found.vcov == pytest.approx(own[:, 4:].T @ own[:, 4:], abs=SOLVED)
    assert found.counterfactual == pytest.approx(y[treated].mean(axis=0)[4:] - found.estimate, abs=SOLVED)
    assert by_cluster(panel, found.uncertainty.values).values == pytest.approx(found.uncertainty.values)


def test_order_of_rows_changes_nothing():
    columns = make(4)
    order = np.random.default_rng(0).permutation(columns.shape[1])
    mine, other = imputation(panel_of(columns)), imputation(panel_of(columns, order))
    assert np.array_equal(mine.estimate, other.estimate)
    assert np.array_equal(mine.vcov, other.vcov)


def test_adding_effects_and_covariates_moves_the_estimate_exactly():
    columns = make(6)
    panel = panel_of(columns)
    rng = np.random.default_rng(1)
    outcome = panel.outcome + 3 * panel.x[:, 0] + rng.normal(size=7)[panel.time] * panel.x[:, 1]
    outcome = outcome + rng.normal(size=panel.units)[panel.unit] + rng.normal(size=7)[panel.time]
    outcome = outcome + 2.5 * panel.treated
    mine, other = imputation(panel), imputation(panel.with_outcome(outcome))
    shift = np.where(mine.at >= 0, 2.5, 0.0)
    assert other.estimate == pytest.approx(mine.estimate + shift, abs=SOLVED)
    assert other.vcov == pytest.approx(mine.vcov, abs=SOLVED)


def test_large_numbers_cost_no_digits():
    columns = make(6)
    panel = panel_of(columns)
    moved = Panel.of(
        columns[0], columns[1], columns[2] + 1e6, columns[3], weight=columns[4],
        x=np.column_stack([columns[5] * 1e-3 + 1e4, columns[6] * 1e4]), names=("a", "b"), cluster=columns[7],
    )  # fmt: skip
    assert imputation(moved).estimate == pytest.approx(imputation(panel).estimate, abs=1e-7)
    assert imputation(moved).std_error == pytest.approx(imputation(panel).std_error, abs=1e-7)


def test_covariates_can_be_left_alone():
    columns = make(6)
    mine = imputation(panel_of(columns), covariates=False)
    assert mine.estimate == pytest.approx(imputation(panel_of(columns, names=())).estimate, abs=EXACT)
    assert abs(mine.estimate - imputation(panel_of(columns)).estimate)[-1] > 1e-3


def test_anticipation_is_an_earlier_start():
    columns = make(9)
    columns = columns[:, columns[1] >= 1]
    earlier = columns.copy()
    earlier[3] = np.where(columns[3] > 0, columns[3] - 1, 0)
    mine = imputation(panel_of(columns), anticipation=1)
    other = imputation(panel_of(earlier))
    assert mine.at.tolist() == (other.at - 1).tolist()
    assert mine.estimate == pytest.approx(other.estimate, abs=EXACT)
    assert mine.vcov == pytest.approx(other.vcov, abs=EXACT)
    assert mine.base == tuple(e - 1 for e in other.base)
    after = mine.n_treated * (mine.at >= 0)
    assert mine.overall.estimate[0] != pytest.approx(other.overall.estimate[0])  # event time -1 is in no sum
    assert after.sum() > 0


def test_window_and_number_of_leads():
    panel = panel_of(make(9))
    whole = imputation(panel, pretrend=2)
    part = imputation(panel, pretrend=2, window=(-1, 1))
    keep = (whole.at >= -1) & (whole.at <= 1)
    assert part.at.tolist() == [-1, 0, 1]
    assert np.array_equal(part.estimate, whole.estimate[keep])
    assert part.base == ()
    assert imputation(panel, pretrend=0).at.min() == 0
    more = imputation(panel, pretrend=5)
    assert more.base == (-6,)
    assert more.estimate[more.at >= 0] == pytest.approx(whole.estimate[whole.at >= 0], abs=EXACT)


# What cannot be estimated


def test_cells_without_comparison_are_missing():
    c = make(10, missing=0, never=False)
    panel = Panel.of(c[0], c[1], c[2], c[3])  # cohort 7 starts in the last period: nobody is untreated then
    found = imputation(panel)
    gone = {(m.group, m.time): m.code for m in found.missing}
    assert gone == {(g, 7): "imputation_none" for g in (4, 5, 7)}
    assert np.isnan(found.estimate[found.at.tolist().index(3)])  # cohort 4 in period 7 only
    assert found.uncertainty.values[:, found.at.tolist().index(3)].tolist() == [0] * panel.units
    wanted = [0 < g <= t < 7 for g, t in zip(c[3], c[1], strict=True)]
    said, *_ = naive.imputation(*c[:3].tolist(), c[3].tolist(), [1.0] * c.shape[1], [[]] * c.shape[1], c[0].tolist(),
                                wanted, list(zip(c[3], c[1], strict=True)))  # fmt: skip
    assert imputation(panel, by="simple").estimate[0] == pytest.approx(said, abs=SOLVED)


def test_units_never_seen_untreated_are_left_out():
    c = make(10, missing=0)
    keep = ~((c[0] == 2) & (c[1] < 5))  # unit 2, of cohort 5, is seen from its treatment on
    assert (c[3][c[0] == 2] == 5).all() and len(np.unique(c[0][c[3] == 5])) > 1
    c = c[:, keep]
    found = imputation(Panel.of(c[0], c[1], c[2], c[3]))
    assert {(m.group, m.time, m.code) for m in found.missing} == {(5, t, "imputation_partly") for t in (5, 6, 7)}
    rest = c[:, c[0] != 2]
    other = imputation(Panel.of(rest[0], rest[1], rest[2], rest[3]))
    assert found.estimate == pytest.approx(other.estimate, abs=SOLVED)


def test_untied_parts_of_the_panel_do_not_help_each_other():
    """Units 0-3 are seen in periods 1-2, units 4-7 in 3-4: no period effect links them."""
    unit = np.repeat(np.arange(8), 2)
    time = np.where(unit < 4, 1, 3) + np.tile([0, 1], 8)
    first = np.where(unit % 4 < 2, 0, np.where(unit < 4, 2, 4))
    y = np.random.default_rng(0).normal(size=16)
    whole = imputation(Panel.of(unit, time, y, first), by="group", pretrend=0)
    for part, g in ((unit < 4, 0), (unit >= 4, 1)):
        alone = imputation(Panel.of(unit[part], time[part], y[part], first[part]), by="simple")
        assert whole.estimate[g] == pytest.approx(alone.estimate[0], abs=SOLVED)
    cut = ~((unit < 4) & (time == 1))  # without period 1 nothing of the first part is identified
    found = imputation(Panel.of(unit[cut], time[cut], y[cut], first[cut]), by="group", pretrend=0)
    assert np.isnan(found.estimate[0]) and np.isfinite(found.estimate[1])


def test_a_covariate_beyond_the_data_is_not_extrapolated():
    c = make(6, missing=0)
    late = (c[1] == 7) & (c[3] > 0)
    panel = Panel.of(c[0], c[1], c[2], c[3], x=late.astype(float), names=("late",))  # never 1 untreated
    found = imputation(panel)
    assert {m.time for m in found.missing} == {7}
    assert np.isnan(found.estimate[-1])


@pytest.mark.parametrize(
    ("code", "change", "given"),
    [
        ("did.imputation_no_treated", lambda c: c[:, c[3] == 0], {}),
        ("did.imputation_nothing_identified", lambda c: c[:, (c[3] > 0) & (c[1] >= c[3])], {}),
        ("did.imputation_nothing_identified", lambda c: c[:, c[3] == 5], {"pretrend": 0}),
        ("did.imputation_alone", lambda c: c, {"leave_out": True}),
        ("did.imputation_pretrend", lambda c: c, {"pretrend": 6}),
        ("did.imputation_pretrend", lambda c: c, {"pretrend": -1}),
        ("did.imputation_window", lambda c: c, {"window": (20, 30)}),
    ],
)
def test_faults(code, change, given):
    c = make(4, units=8, missing=0)
    c[3, c[0] > 3] = 0  # one unit in each cohort
    c = change(c)
    with pytest.raises(EvalkitError) as caught:
        imputation(Panel.of(c[0], c[1], c[2], c[3]), **given)
    assert caught.value.faults[0].code == code
    assert isinstance(caught.value, UsageError if "pretrend" in code or "window" in code else DesignError)
    for lang in ("en", "nl"):
        assert "{" not in caught.value.faults[0].text(lang)


def test_a_cohort_of_one_adds_no_variance_unless_grouped():
    """What the documentation warns of: recentring takes the effect of a lone unit out completely."""
    c = make(4, units=30, missing=0)
    lone = c[:, (c[3] == 0) | (c[0] == 1)]
    panel = Panel.of(lone[0], lone[1], lone[2], lone[3])
    found = imputation(panel, pretrend=0)
    row = found.uncertainty.ids.tolist().index(1)
    assert np.abs(found.uncertainty.values[row]).max() < SOLVED


# The truth


def simulate(rng, units, sizes, periods=8):
    """Effects that differ by cohort, time and unit; errors that follow themselves; a trend that x drives."""
    cohort = np.repeat([0, 4, 5, 7], sizes)
    assert len(cohort) == units
    level = rng.normal(size=units) + cohort / 4
    error = rng.normal(size=(units, periods))
    for t in range(1, periods):
        error[:, t] += 0.5 * error[:, t - 1]
    time = np.arange(1, periods + 1)
    elapsed = time[None, :] - cohort[:, None]
    treated = (cohort[:, None] > 0) & (elapsed >= 0)
    mean = treated * (0.3 * cohort[:, None] / 4 + 0.2 * elapsed)
    effect = mean + treated * rng.normal(scale=0.8, size=(units, 1))
    y = level[:, None] + np.sin(time) + effect + error
    panel = Panel.of(np.repeat(np.arange(units), periods), np.tile(time, units), y.ravel(), np.repeat(cohort, periods))
    truth = [float(mean[treated & (elapsed == e)].mean()) for e in range(5)]
    return panel, np.array([0.0, 0.0, *truth])


def coverage(repetitions, sizes, **given):
    rng = np.random.default_rng(20260101)
    estimates, inside, overall = [], [], []
    for _ in range(repetitions):
        panel, truth = simulate(rng, sum(sizes), sizes)
        found = imputation(panel, window=(-2, 4), **given)
        estimates.append(found.estimate - truth)
        inside.append(np.abs(found.estimate - truth) <= 1.959964 * found.std_error)
        overall.append(found.std_error)
    return np.array(estimates), np.array(inside), np.array(overall)


def test_unbiased_and_covers():
    """250 draws: a coverage of 95 % has a standard error of 1.4 points, so 91-99 % is not excluded by chance."""
    off, inside, errors = coverage(250, (60, 30, 30, 30))
    spread = off.std(axis=0, ddof=1)
    assert (np.abs(off.mean(axis=0)) <= MONTE_CARLO * spread / np.sqrt(250)).all()
    assert (np.abs(errors.mean(axis=0) / spread - 1) < 0.15).all()
    share = inside.mean(axis=0)
    assert ((share > 0.91) & (share < 0.99)).all()


@pytest.mark.slow
def test_small_cohorts_need_leave_out():
    """Cohorts of four: errors recentred by cohort are too small, leave-one-out ones are not."""
    off, _, plain = coverage(400, (30, 4, 4, 4))
    _, _, left = coverage(400, (30, 4, 4, 4), leave_out=True)
    spread = off.std(axis=0, ddof=1)[2:]
    assert (np.sqrt((plain**2).mean(axis=0))[2:5] / spread[:3] < 0.95).all()
    assert (np.sqrt((left**2).mean(axis=0))[2:5] / spread[:3] > 0.97).all()
