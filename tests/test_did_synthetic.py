"""Synthetic difference-in-differences: weights against every support, against the R program, errors against loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from naive import did_synthetic as naive
from tolerances import EXACT, MONTE_CARLO, REFERENCE, SOLVED

from evalkit.did.imputation import imputation
from evalkit.did.panel import NEVER, Panel
from evalkit.did.synthetic import synthetic_did
from evalkit.did.synthetic.simplex import certificate, simplex_least_squares
from evalkit.effects import Covariance, Influence, Intervals
from evalkit.errors import DesignError, EvalkitError, UsageError

HERE = Path(__file__).parent / "reference"
SAID = json.loads((HERE / "did_synthetic.json").read_text())
METHODS = ("did", "synthetic_control", "synthetic_did")


@pytest.fixture(scope="module")
def smoking():
    rows = pd.read_csv(HERE / "california_prop99.csv")
    return Panel.of(rows.State, rows.Year, rows.PacksPerCapita, np.where(rows.State == "California", 1989, 0))


def parts(panel):
    y = panel.wide()
    return y[panel.first >= NEVER], y[panel.first < NEVER]


# Weights on the simplex


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ridge", [0.0, 1e-8, 0.3, 50.0])
def test_weights_are_the_best_of_all_supports(seed, ridge):
    rng = np.random.default_rng(seed)
    m, n = [(3, 6), (6, 6), (12, 5)][seed % 3]
    if ridge == 0 and n > m:
        ridge = 1e-6  # without ridge the minimum is not unique
    a, b = 5 + rng.normal(size=(m, n)), 5 + 0.7 * rng.normal(size=m)
    found = simplex_least_squares(a, b, ridge)
    assert found.x.sum() == pytest.approx(1, abs=EXACT)
    assert (found.x >= 0).all()
    said = naive.best_by_support(a, b, ridge)
    assert found.objective <= naive.objective(a, b, ridge, said) + 1e-10
    assert found.objective == pytest.approx(naive.objective(a, b, ridge, found.x), abs=1e-10)
    if ridge > 1e-3 or m >= n:
        assert found.x == pytest.approx(said, abs=1e-7)


@pytest.mark.parametrize(("m", "n"), [(8, 400), (60, 60), (400, 30)])
@pytest.mark.parametrize("ridge", [1e-9, 1.0, 1e3])
def test_large_problems_have_a_certificate(m, n, ridge):
    rng = np.random.default_rng(m + n)
    a = 100 + 10 * rng.normal(size=(m, n)) + 5 * rng.normal(size=(m, 1))
    b = a[:, :3] @ [0.5, 0.3, 0.2] + rng.normal(size=m)
    found = simplex_least_squares(a, b, ridge)
    assert found.gap <= 1e-9 * float((b - b.mean()) @ (b - b.mean()))
    corners = [naive.objective(a, b, ridge, np.eye(n)[j]) for j in range(0, n, 37)]
    assert found.objective < min(corners)


@pytest.mark.parametrize("ridge", [1e-9, 0.5, 20.0])
def test_the_unit_of_measurement_does_not_matter(ridge):
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(10, 40)), rng.normal(size=10)
    mine = simplex_least_squares(a, b, ridge).x
    for unit in (1e-5, 1e5):
        assert simplex_least_squares(unit * a, unit * b, unit**2 * ridge).x == pytest.approx(mine, abs=SOLVED)


def test_one_column_equal_columns_and_constant_columns():
    assert simplex_least_squares(np.ones((3, 1)), np.zeros(3), 0.1).x.tolist() == [1.0]
    found = simplex_least_squares(np.tile(np.arange(4.0)[:, None], 3), np.arange(4.0), 0.5)
    assert found.x == pytest.approx(np.full(3, 1 / 3), abs=SOLVED)  # the ridge shares equally
    assert simplex_least_squares(np.zeros((4, 5)), np.zeros(4), 0.0).x.sum() == pytest.approx(1)


def test_the_certificate_bounds_any_weights():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 6)), rng.normal(size=9)
    best = simplex_least_squares(a, b, 0.2)
    for _ in range(20):
        x = rng.dirichlet(np.ones(6))
        objective, gap = certificate(a, b, 0.2, x)
        assert objective == pytest.approx(naive.objective(a, b, 0.2, x), abs=SOLVED)
        assert 0 <= objective - best.objective <= gap


# Against the R program


def test_did_is_that_of_r(smoking):
    found = synthetic_did(smoking, method="did", errors="none")
    assert found.estimate == pytest.approx(SAID["did"], rel=1e-12)


def test_noise_is_that_of_r(smoking):
    found = synthetic_did(smoking, errors="none")
    assert found.zeta[0] == pytest.approx(SAID["noise_level"], rel=1e-12)
    assert found.noise[0] == pytest.approx(naive.noise(parts(smoking)[0], 19), rel=1e-12)


@pytest.mark.parametrize(("method", "key"), [("synthetic_did", "synthdid"), ("synthetic_control", "sc")])
def test_r_stops_before_the_optimum(smoking, method, key):
    """R's number is what its stopping rule leaves: the rule gives it to all digits, and our weights are better."""
    controls, treated = parts(smoking)
    omega, lambdas, early = naive.early_stopped(controls, treated, 19, method)
    assert early == pytest.approx(SAID[key], rel=1e-12)
    found = synthetic_did(smoking, method=method, errors="none")
    paths, target = controls[:, :19].T, treated.mean(axis=0)[:19]
    if method == "synthetic_did":
        said = np.array([SAID["omega"][name] for name in found.controls])
        assert omega == pytest.approx(said, abs=1e-12)
        assert list(lambdas[:19]) == pytest.approx(list(SAID["lambda"].values()), abs=1e-12)
        paths, target = paths - paths.mean(axis=0), target - target.mean()
    ridge = 19 * found.zeta[0] ** 2
    theirs, their_gap = certificate(paths, target, ridge, omega)
    ours, our_gap = certificate(paths, target, ridge, found.unit_weights[0])
    assert our_gap <= 1e-9 * ours and found.unit_gap[0] <= 1e-9 * ours
    assert theirs > ours + 1e6 * our_gap  # theirs is not the minimum, by more than our weights can be off
    assert their_gap >= theirs - ours
    assert abs(found.estimate - SAID[key]) > REFERENCE * abs(SAID[key])
    assert found.estimate == pytest.approx(SAID[key], rel=0.006)


def test_more_steps_of_theirs_lead_towards_ours(smoking):
    """Frank and Wolfe without the early stop, from R's weights on: nearer and nearer to our minimum, never below."""
    controls, treated = parts(smoking)
    found = synthetic_did(smoking, errors="none")
    paths, target = controls[:, :19].T, treated.mean(axis=0)[:19]
    a, b, ridge = paths - paths.mean(axis=0), target - target.mean(), 19 * found.zeta[0] ** 2
    best, _ = certificate(a, b, ridge, found.unit_weights[0])
    x = np.array([SAID["omega"][name] for name in found.controls])
    excess = [certificate(a, b, ridge, x)[0] - best]
    for _ in range(3):
        x = naive.frank_wolfe(a, b, ridge, x, 0.0, 8_000)
        excess.append(certificate(a, b, ridge, x)[0] - best)
        # the objective curves at least as much as its ridge, so that this bounds the distance in weights
        assert ((x - found.unit_weights[0]) ** 2).sum() <= excess[-1] / ridge
    assert np.all(np.diff(excess) < 0) and 0 < excess[-1] < 0.5 * excess[0]


def test_placebo_error_is_within_chance_of_r(smoking):
    """R draws 200 of the 38 states with replacement; we take every state once. R's number is one such draw."""
    found = synthetic_did(smoking)
    assert found.deviations.shape == (38, 31)
    once = np.sqrt(38) * found.deviations[:, 19:].mean(axis=1)
    assert found.std_error == pytest.approx(once.std(), abs=SOLVED)
    rng = np.random.default_rng(1)
    drawn = [rng.choice(once, 200).std() for _ in range(2000)]
    assert np.quantile(drawn, 0.005) < SAID["se_placebo_seed12345_200reps"] < np.quantile(drawn, 0.995)


# Effects, several cohorts, errors


def make(seed=0, controls=9, cohorts=((5, 2), (7, 3)), periods=9, effect=1.0, x=False):
    rng = np.random.default_rng(seed)
    first = np.concatenate([np.zeros(controls), *(np.full(k, g) for g, k in cohorts)])
    n = len(first)
    time = np.arange(1, periods + 1)
    factor = rng.normal(size=(n, 2)) @ rng.normal(size=(2, periods))
    y = rng.normal(size=(n, 1)) + 0.2 * time + factor + 0.5 * rng.normal(size=(n, periods))
    y = y + effect * ((first[:, None] > 0) & (time >= first[:, None]))
    columns = np.repeat(np.arange(n), periods), np.tile(time, n), y.ravel(), np.repeat(first, periods)
    more = {"x": rng.normal(size=n * periods) + 0.1 * columns[1], "names": ("x",)} if x else {}
    return Panel.of(*columns, **more)


@pytest.mark.parametrize("method", METHODS)
def test_effects_by_loops(method):
    panel = make()
    found = synthetic_did(panel, method=method, errors="none")
    y = panel.wide()
    controls = y[panel.first >= NEVER]
    total = weight = 0.0
    for c, (g, k) in enumerate(((5, 2), (7, 3))):
        path = naive.effects(controls, y[panel.first == g], found.unit_weights[c], found.time_weights[c])
        assert found.effect[c] == pytest.approx(path, abs=SOLVED)
        assert found.unit_weights[c].sum() == pytest.approx(1, abs=EXACT)
        assert found.time_weights[c].sum() == pytest.approx(0 if method == "synthetic_control" else 1, abs=EXACT)
        assert (found.time_weights[c, g - 1 :] == 0).all()
        total += k * sum(path[g - 1 :])
        weight += k * (10 - g)
    assert found.estimate == pytest.approx(total / weight, abs=SOLVED)
    event = found.effects()
    assert event.at.tolist() == list(range(-6, 5))
    k = event.at.tolist().index(1)  # period 6 of cohort 5, period 8 of cohort 7
    assert event.estimate[k] == pytest.approx((2 * found.effect[0, 5] + 3 * found.effect[1, 7]) / 5, abs=SOLVED)
    assert event.n_treated[k] == 5 and event.n_treated[-1] == 2
    assert set(event.n_comparison) == {9}
    assert found.effects(by="group").estimate == pytest.approx([found.effect[0, 4:].mean(), found.effect[1, 6:].mean()])
    calendar = found.effects(by="calendar")
    assert calendar.at.tolist() == [5, 6, 7, 8, 9]
    assert calendar.estimate[0] == pytest.approx(found.effect[0, 4])
    assert event.overall.estimate[0] == pytest.approx(found.estimate)
    assert isinstance(event.uncertainty, Intervals) and np.isnan(found.std_error)
    assert found.effects(window=(-1, 2)).at.tolist() == [-1, 0, 1, 2]
    observed = y[panel.first == 5].mean(axis=0)
    group = found.effects(by="group")
    assert group.counterfactual[0] + group.estimate[0] == pytest.approx(observed[4:].mean())


def test_did_with_one_cohort_is_imputation():
    panel = make(cohorts=((6, 3),))
    mine = synthetic_did(panel, method="did", errors="none").effects()
    other = imputation(panel, pretrend=0)
    assert mine.estimate[mine.at >= 0] == pytest.approx(other.estimate, abs=SOLVED)


@pytest.mark.parametrize("method", METHODS)
def test_placebo_takes_every_control_once(method):
    panel = make(cohorts=((6, 1),), controls=7)
    found = synthetic_did(panel, method=method)
    y = panel.wide()[:7]
    paths = []
    for i in range(7):
        rest = [j for j in range(7) if j != i]
        columns = np.repeat(np.arange(7), 9), np.tile(np.arange(1, 10), 7)
        first = np.where(columns[0] == i, 6, 0)
        again = synthetic_did(Panel.of(*columns, y.ravel(), first), method=method, errors="none")
        paths.append(naive.effects(y[rest], y[[i]], again.unit_weights[0], again.time_weights[0]))
    event = found.effects()
    assert isinstance(event.uncertainty, Covariance)
    assert event.vcov == pytest.approx(np.cov(np.array(paths).T, ddof=0), abs=SOLVED)
    estimates = np.array(paths)[:, 5:].mean(axis=1)
    assert found.std_error == pytest.approx(estimates.std(), abs=SOLVED)


def test_placebo_draws_do_not_depend_on_the_order_of_rows():
    panel = make(controls=12)
    order = np.random.default_rng(3).permutation(len(panel))
    columns = panel.unit, panel.period, panel.outcome, np.where(panel.first < NEVER, panel.first, 0)[panel.unit]
    other = Panel.of(*(c[order] for c in columns))
    mine = synthetic_did(panel, draws=8, seed=5)
    assert np.array_equal(mine.deviations, synthetic_did(other, draws=8, seed=5).deviations)
    assert not np.array_equal(mine.deviations, synthetic_did(panel, draws=8, seed=6).deviations)
    assert len(mine.deviations) == 8


def test_jackknife_by_loops():
    panel = make()
    found = synthetic_did(panel, errors="jackknife")
    y, n = panel.wide(), panel.units
    total = np.zeros(())
    for i in range(n):
        part = 0.0
        for c, g in enumerate((5, 7)):
            inside = [j for j in range(n) if j != i and panel.first[j] == g]
            others = [j for j in range(9) if j != i]
            omega = found.unit_weights[c][others] / found.unit_weights[c][others].sum()
            path = naive.effects(y[others], y[inside], omega, found.time_weights[c])
            part += (2, 3)[c] * sum(path[g - 1 :])
        total = total + (part / (2 * 5 + 3 * 3) - found.estimate) ** 2
    assert found.std_error == pytest.approx(np.sqrt((n - 1) / n * total), abs=SOLVED)
    assert isinstance(found.effects().uncertainty, Influence)
    assert found.effects().uncertainty.ids.tolist() == panel.ids.tolist()


def test_errors_of_equal_weights_are_those_of_two_means():
    """With method did and one cohort, everything is known: var of double differences over n, in each arm."""
    panel = make(1, controls=40, cohorts=((6, 30),))
    y = panel.wide()
    double = y[:, 5:].mean(axis=1) - y[:, :5].mean(axis=1)
    arms = double[panel.first >= NEVER], double[panel.first < NEVER]
    known = np.sqrt(sum(arm.var() / len(arm) for arm in arms))
    boot = synthetic_did(panel, method="did", errors="bootstrap", draws=800)
    assert boot.std_error == pytest.approx(known, rel=MONTE_CARLO / np.sqrt(1600) + 1 / 30)
    left = synthetic_did(panel, method="did", errors="jackknife")
    own = [arm.var() / len(arm) * (len(arm) / (len(arm) - 1)) ** 2 for arm in arms]
    assert left.std_error == pytest.approx(np.sqrt(sum(own) * 69 / 70), abs=SOLVED)


def test_clusters_are_left_out_together():
    panel = make(2, controls=10, cohorts=((5, 4),))
    code = np.arange(14) // 2
    grouped = Panel.of(panel.unit, panel.period, panel.outcome, np.where(panel.first < NEVER, 5, 0)[panel.unit],
                       cluster=code[panel.unit], level="district")  # fmt: skip
    found = synthetic_did(grouped, errors="jackknife").effects(by="simple")
    assert found.uncertainty.ids.tolist() == list(range(7))
    assert found.uncertainty.level == "district"
    assert "district" in found.se_kind
    boot = synthetic_did(grouped, errors="bootstrap", draws=5)
    assert np.isfinite(boot.std_error)
    with pytest.raises(UsageError) as caught:
        synthetic_did(grouped)
    assert caught.value.faults[0].code == "did.synthetic_clusters"


def test_what_the_covariate_does_is_taken_out():
    panel = make(4, x=True)
    moved = panel.with_outcome(panel.outcome + 7 * panel.x[:, 0])
    for errors in ("placebo", "jackknife", "bootstrap"):
        mine = synthetic_did(panel, errors=errors, draws=10)
        other = synthetic_did(moved, errors=errors, draws=10)
        assert other.effect == pytest.approx(mine.effect, abs=1e-7)
        assert other.deviations == pytest.approx(mine.deviations, abs=1e-7)
    without = synthetic_did(moved, errors="none", covariates=False)
    assert np.abs(without.effect - mine.effect).max() > 0.1


def test_units_that_are_not_always_seen():
    panel = make()
    keep = ~((panel.unit == 3) & (panel.time == 2))
    part = panel.take_rows(keep)
    with pytest.raises(DesignError) as caught:
        synthetic_did(part)
    assert caught.value.faults[0].code == "did.synthetic_incomplete"
    found = synthetic_did(part, incomplete="drop", errors="none")
    assert found.dropped == 1
    assert found.estimate == synthetic_did(panel.take_units(np.arange(14) != 3), errors="none").estimate


@pytest.mark.parametrize(
    ("code", "panel", "given"),
    [
        ("did.synthetic_no_treated", make(cohorts=()), {}),
        ("did.synthetic_controls", make(controls=1), {}),
        ("did.synthetic_controls", make(controls=0), {}),
        ("did.synthetic_before", make(cohorts=((2, 2),)), {}),
        ("did.synthetic_before", make(cohorts=((1, 2),)), {"method": "did"}),
        ("did.synthetic_placebo", make(controls=6), {}),
        ("did.synthetic_jackknife", make(cohorts=((5, 1),)), {"errors": "jackknife"}),
        ("did.synthetic_bootstrap", make(cohorts=((5, 1),)), {"errors": "bootstrap"}),
        ("did.synthetic_one_control", None, {"errors": "jackknife"}),
        ("did.synthetic_levels", make(), {"errors": "jackknife", "method": "synthetic_control"}),
        ("did.synthetic_repeated", "repeated", {}),
        ("did.synthetic_weights", "weights", {}),
    ],
)
def test_faults(code, panel, given):
    base = make()
    columns = base.unit, base.period, base.outcome, np.where(base.first < NEVER, base.first, 0)[base.unit]
    if panel is None:  # one control rises, the other falls, the treated rise faster than the one
        unit, time = np.repeat(np.arange(4), 10), np.tile(np.arange(1, 11), 4)
        y = np.array([1.0, -1.0, 3.0, 3.0])[unit] * time + 0.01 * np.random.default_rng(0).normal(size=40)
        panel = Panel.of(unit, time, y, np.where(unit > 1, 9, 0))
    elif panel == "repeated":
        panel = Panel.of(*columns, repeated=True)
    elif panel == "weights":
        panel = Panel.of(*columns, weight=1.0 + columns[1])
    with pytest.raises(EvalkitError) as caught:
        synthetic_did(panel, **given)
    assert caught.value.faults[0].code == code
    for lang in ("en", "nl"):
        assert "{" not in caught.value.faults[0].text(lang)


def test_settings_that_do_not_exist():
    for given in ({"method": "magic"}, {"errors": "magic"}, {"draws": 1}):
        with pytest.raises(ValueError):
            synthetic_did(make(), **given)
    with pytest.raises(ValueError):
        synthetic_did(make(), errors="none").effects(by="magic")


# The truth


def simulate(seed, repetitions, method, controls=30, treated=2, alike=False, **given):
    """Two factors drive all units. The treated load more on one, so that trends are not parallel, unless ``alike``."""
    rng = np.random.default_rng(seed)
    periods, before = 16, 11
    off, errors = [], []
    for _ in range(repetitions):
        n = controls + treated
        loading = np.column_stack([rng.uniform(0, 2, n), rng.uniform(0, 1, n)])
        if not alike:
            loading[controls:, 0] = rng.uniform(1.2, 1.8, treated)
        path = np.column_stack([np.linspace(0, 3, periods), np.sin(np.arange(periods))])
        y = rng.normal(size=(n, 1)) + loading @ path.T + 0.4 * rng.normal(size=(n, periods))
        y[controls:, before:] += np.arange(periods - before)[None, :]
        first = np.repeat(np.where(np.arange(n) < controls, 0, before + 1), periods)
        panel = Panel.of(np.repeat(np.arange(n), periods), np.tile(np.arange(1, periods + 1), n), y.ravel(), first)
        found = synthetic_did(panel, method=method, draws=60, **given)
        off.append(found.estimate - 2.0)
        errors.append(found.std_error)
    return np.array(off), np.array(errors)


def test_weighting_removes_most_of_a_bias_that_did_has():
    """Some is left: with eleven periods before, the ridge keeps the weights from fitting the paths closely."""
    mine, _ = simulate(1, 60, "synthetic_did", errors="none")
    plain, _ = simulate(1, 60, "did", errors="none")
    error = plain.std(ddof=1) / np.sqrt(60)
    assert plain.mean() > 10 * error  # loadings of the treated are higher by a half
    assert abs(mine.mean()) < 0.3 * plain.mean()


def test_unbiased_when_treated_and_untreated_are_alike():
    mine, _ = simulate(4, 200, "synthetic_did", errors="none", alike=True)
    assert abs(mine.mean()) <= MONTE_CARLO * mine.std(ddof=1) / np.sqrt(200)


@pytest.mark.slow
@pytest.mark.parametrize(("errors", "treated"), [("placebo", 2), ("jackknife", 10)])
def test_intervals_cover_when_treated_and_untreated_are_alike(errors, treated):
    """100 draws: a coverage of 95 % has a standard error of 2.2 points."""
    off, error = simulate(2, 100, "synthetic_did", errors=errors, treated=treated, alike=True)
    assert 0.88 < (np.abs(off) <= 1.959964 * error).mean() <= 1.0
    assert 0.8 < error.mean() / off.std(ddof=1) < 1.45  # the jackknife is conservative
