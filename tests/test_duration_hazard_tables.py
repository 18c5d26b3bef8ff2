"""What fitted hazards say: coefficients and tests, criteria, expected events, influential persons."""

from __future__ import annotations

from dataclasses import replace

import duration_example as example
import numpy as np
import pytest
import statsmodels.api as sm
from naive import duration_hazards as naive
from scipy import optimize, stats
from tolerances import MONTE_CARLO, SOLVED

from evalkit.duration.hazard_tables import (
    coefficients,
    criteria,
    likelihood_ratio,
    most_influential,
    observed_expected,
    wald,
)
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.spells import Layout
from evalkit.duration.terms import dense, factor, joined
from evalkit.errors import DesignError, UsageError

KINDS = [("exact", "hazard"), ("grouped", "hazard"), ("grouped", "logit")]


def histories(timing, size=250, seed=1):
    return Layout(example.spells(size, seed), replace(example.LINE, calendar="none")).histories(timing)


def single(size, seed, timing="exact"):
    """Two stretches a person, one risk."""
    rng = np.random.default_rng(seed)
    person, x = np.repeat(np.arange(size), 2), rng.normal(size=2 * size)
    length = np.ones(2 * size) if timing == "grouped" else rng.uniform(0.5, 2.0, 2 * size)
    event = rng.random(2 * size) < -np.expm1(-np.exp(-1 + 0.4 * x) * length)
    design = joined(dense(x[:, None], ["x"]), factor(np.tile([0, 1], size), ["first", "second"]))
    return Histories(
        person, length, np.where(event, 0, -1), np.ones((2 * size, 1), bool), np.zeros(2 * size, bool), (design,),
        ("exit",), np.zeros(1), np.ones(size), np.arange(size), np.arange(size), timing=timing,
    )  # fmt: skip


@pytest.mark.parametrize(("timing", "link"), KINDS)
def test_the_likelihood_is_the_loop_and_its_maximum_scipy_s(timing, link):
    """Three exits that compete within a month, and a start that comes after them."""
    made = histories(timing, 60)
    few = replace(
        made, designs=tuple(dense(d.matrix()[:, :2], ["sex", "age"]) for d in made.designs),
        count=np.random.default_rng(1).integers(1, 4, made.persons).astype(float),
    )  # fmt: skip
    fit = fit_hazards(few, link)
    assert fit.log_likelihood == pytest.approx(naive.log_likelihood(few, fit.theta, fit.points[0], link), rel=1e-10)
    risks = len(few.risks)

    def negative(p):
        return -naive.log_likelihood(few, p[: 2 * risks].reshape(risks, 2), p[2 * risks :], link)

    for j in range(0, 3 * risks, 2):
        step = 1e-4 * (np.arange(3 * risks) == j)
        up, down, here = negative(fit.packed + step), negative(fit.packed - step), -fit.log_likelihood
        assert abs(up - down) < 1e-4 * (up + down - 2 * here) / 1e-4 and up > here and down > here
    found = optimize.minimize(negative, fit.packed + 0.02, method="BFGS", options={"maxiter": 4})
    assert -found.fun <= fit.log_likelihood + 1e-8


@pytest.mark.parametrize("link", ["logit", "hazard"])
def test_coefficients_are_statsmodels(link):
    made = single(400, 1, "grouped")
    fit = fit_hazards(made, link)
    x = np.column_stack([made.designs[0].matrix(), np.ones(len(made))])
    family = sm.families.Binomial(sm.families.links.Logit() if link == "logit" else sm.families.links.CLogLog())
    theirs = sm.GLM((made.event == 0).astype(float), x, family=family).fit(tol=1e-14, maxiter=100)
    table = coefficients(fit, robust=False)
    assert [row.name for row in table] == ["x", "second"] and {row.risk for row in table} == {"exit"}
    assert [row.estimate for row in table] == pytest.approx(theirs.params[:2], rel=1e-7)
    if link == "logit":
        assert [row.std_error for row in table] == pytest.approx(theirs.bse[:2], rel=1e-7)
        assert [row.p_value for row in table] == pytest.approx(theirs.pvalues[:2], rel=1e-6)
        low, high = theirs.conf_int()[:2].T
        assert [row.low for row in table] == pytest.approx(low, rel=1e-6)
        assert [row.high for row in table] == pytest.approx(high, rel=1e-6)
    robust = sm.GLM((made.event == 0).astype(float), x, family=family).fit(tol=1e-14, maxiter=100)
    score = x * robust.resid_response[:, None] if link == "logit" else None
    if score is not None:
        by = np.add.reduceat(score, np.arange(0, len(x), 2))
        bread = fit.information
        sandwich = np.sqrt(np.diag(bread @ by.T @ by @ bread))
        assert [row.std_error for row in coefficients(fit)] == pytest.approx(sandwich[:2], rel=1e-7)


def test_a_held_level_has_no_error():
    made = single(200, 2)
    level = np.arange(len(made)) // 2 % 3
    one = factor(level, ["a", "b", "c"])
    fit = fit_hazards(replace(made, designs=(one,), event=np.where(level == 2, -1, made.event)))
    held = coefficients(fit)[1]
    assert held.name == "c" and np.isnan([held.std_error, held.z, held.p_value, held.low, held.high]).all()
    with pytest.raises(UsageError) as caught:
        wald(fit, "exit", ["b", "c"])
    assert [fault.params["column"] for fault in caught.value.faults] == ["c"]


def test_tests_of_several_coefficients():
    made = single(400, 3)
    fit = fit_hazards(made)
    one = wald(fit, "exit", ["x"])
    row = coefficients(fit)[0]
    assert one.statistic == pytest.approx(row.z**2) and one.df == 1 and one.p_value == pytest.approx(row.p_value)
    x = np.column_stack([made.designs[0].matrix(), np.ones(len(made))])
    theirs = sm.GLM(
        (made.event == 0).astype(float), x, family=sm.families.Poisson(), offset=np.log(made.length)
    ).fit(tol=1e-14, maxiter=100)  # fmt: skip
    both = wald(fit, "exit", ["x", "second"], robust=False)
    expected = theirs.wald_test(np.eye(3)[:2], use_f=False, scalar=True)
    assert (
        both.statistic == pytest.approx(float(expected.statistic), rel=1e-7) and both.df == 2
    )  # its last step but one
    small = fit_hazards(replace(made, designs=(dense(made.designs[0].matrix()[:, :1], ["x"]),)))
    ratio = likelihood_ratio(small, fit)
    assert ratio.df == 1 and ratio.p_value == pytest.approx(stats.chi2.sf(ratio.statistic, 1))
    assert ratio.statistic == pytest.approx(wald(fit, "exit", ["second"], robust=False).statistic, rel=0.1)
    found = criteria(fit)
    extra = float((np.log(made.length) * (made.event == 0)).sum())  # theirs is of counts, ours of times
    assert found.aic == pytest.approx(theirs.aic + 2 * extra, rel=1e-10)
    assert found.bic - found.aic == pytest.approx(3 * np.log(400) - 6)
    assert found.hq - found.aic == pytest.approx(6 * np.log(np.log(400)) - 6)


def test_tests_that_cannot_be_made():
    made = single(100, 4)
    fit = fit_hazards(made)
    two = replace(made, cluster=np.arange(100) % 2, cluster_ids=np.arange(2), level="town")
    town = fit_hazards(two)
    for call, code in (
        (lambda: wald(fit, "holiday", ["x"]), "tables_risk"),
        (lambda: wald(fit, "exit", ["y"]), "tables_column"),
        (lambda: wald(town, "exit", ["x", "second"]), "tables_clusters"),
        (lambda: likelihood_ratio(fit, fit), "tables_not_nested"),
        (lambda: likelihood_ratio(fit, fit_hazards(single(90, 4))), "tables_not_nested"),
        (lambda: most_influential(fit, "exit:y"), "tables_parameter"),
        (lambda: observed_expected(made, fit, "holiday", np.zeros(200)), "tables_risk"),
        (lambda: observed_expected(histories("exact"), fit, "exit", np.zeros(200)), "tables_histories"),
        (lambda: observed_expected(made, town, "exit", np.zeros(200)), "tables_histories"),
        (lambda: observed_expected(two, town, "exit", np.arange(200) % 5), "tables_clusters"),
    ):
        with pytest.raises((UsageError, DesignError)) as caught:
            call()
        assert caught.value.faults[0].code == f"duration.{code}"
        assert caught.value.faults[0].text("nl") and caught.value.faults[0].text("en")
    layout = Layout(example.spells(100), example.LINE)
    with pytest.raises(DesignError) as caught:
        observed_expected(layout.histories(), example.hazards(layout, 2), "work", np.zeros(len(layout.histories())))
    assert caught.value.faults[0].code == "duration.points_one"


@pytest.mark.parametrize(("timing", "link"), KINDS)
def test_expected_events_are_the_loop(timing, link):
    made = histories(timing)
    made = replace(made, count=np.random.default_rng(1).integers(1, 4, made.persons).astype(float))
    fit = fit_hazards(made, link)
    group = np.random.default_rng(2).integers(-1, 3, len(made))
    for number, risk in enumerate(made.risks):
        found = observed_expected(made, fit, risk, group)
        observed, expected = naive.expected(made, fit, number, group, 3)
        assert [row.observed for row in found.rows] == pytest.approx(observed, abs=1e-9)
        assert [row.expected for row in found.rows] == pytest.approx(expected, rel=1e-10)
        assert found.test.df in (2, 3)


@pytest.mark.parametrize(("timing", "link"), KINDS)
def test_what_the_model_fits_is_no_test_of_it(timing, link):
    made = histories(timing)
    fit = fit_hazards(made, link)
    column = made.designs[0].names.index("month 3-5")
    found = observed_expected(made, fit, "work", (made.designs[0].codes == column).any(axis=1).astype(int))
    assert found.test.df == 0 or link == "hazard" and timing == "grouped"
    for row in found.rows:
        assert row.observed == pytest.approx(row.expected, rel=1e-9 if link == "logit" or timing == "exact" else 1e-2)


def test_the_error_of_observed_less_expected_is_that_of_repeated_samples():
    """Levels with the same people drawn again and again: estimated coefficients make the differences smaller."""
    gaps, errors, p_values = [], [], []
    for seed in range(150):
        made = single(150, seed, "exact")
        fit = fit_hazards(made)
        group = (made.designs[0].matrix()[:, 0] > 0).astype(int)
        found = observed_expected(made, fit, "exit", group)
        gaps.append(found.rows[1].observed - found.rows[1].expected)
        errors.append(found.rows[1].std_error)
        p_values.append(found.test.p_value)
    assert found.test.df == 1
    assert np.std(gaps) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=MONTE_CARLO / np.sqrt(300))
    assert np.mean(np.array(p_values) < 0.05) < 0.05 + MONTE_CARLO * np.sqrt(0.05 * 0.95 / 150)
    wrong = single(2000, 1)
    bent = replace(wrong, designs=(dense(wrong.designs[0].matrix()[:, 1:], ["second"]),))
    group = (wrong.designs[0].matrix()[:, 0] > 0).astype(int)
    assert observed_expected(bent, fit_hazards(bent), "exit", group).test.p_value < 1e-6


def test_patterns_expect_what_rows_expect():
    made = single(60, 5)
    copies = np.random.default_rng(1).integers(1, 5, made.persons)
    rows = np.concatenate([np.tile(np.arange(2) + 2 * i, c) for i, c in enumerate(copies)])
    people = int(copies.sum())
    written = replace(
        made, person=np.repeat(np.arange(people), 2), designs=(made.designs[0].take(rows),), count=np.ones(people),
        cluster=np.arange(people), cluster_ids=np.arange(people),
        **{name: getattr(made, name)[rows] for name in ("length", "event", "at_risk", "before")},
    )  # fmt: skip
    alike = replace(made, count=copies.astype(float))
    one, two = fit_hazards(alike), fit_hazards(written)
    assert one.packed == pytest.approx(two.packed, abs=1e-10)
    assert one.std_error == pytest.approx(two.std_error, rel=1e-8)
    group = np.arange(len(made)) // 4 % 3
    a, b = observed_expected(alike, one, "exit", group), observed_expected(written, two, "exit", group[rows])
    for mine, theirs in zip(a.rows, b.rows, strict=True):
        assert mine.std_error == pytest.approx(theirs.std_error, rel=1e-8)
        assert mine.expected == pytest.approx(theirs.expected, rel=1e-9)
    assert a.test.statistic == pytest.approx(b.test.statistic, rel=1e-7)
    top = most_influential(one, "exit:x", 1, histories=alike)[0]
    assert top.change == pytest.approx(most_influential(two, "exit:x", 1)[0].change, rel=1e-8)


def test_who_moves_a_coefficient_most():
    made = single(300, 6)
    x = made.designs[0].matrix()
    x[10, 0] = 6.0
    made = replace(made, designs=(dense(x, ["x", "second"]),), event=np.where(np.arange(600) == 10, -1, made.event))
    fit = fit_hazards(made)
    found = most_influential(fit, "exit:x", 3)
    assert len(found) == 3 and abs(found[0].change) > abs(found[1].change) > abs(found[2].change)
    assert found[0].cluster == 5
    assert found[0].in_errors == pytest.approx(found[0].change / coefficients(fit)[0].std_error, abs=SOLVED)
    keep = np.flatnonzero(made.person != 5)
    without = fit_hazards(made.take(keep))
    assert found[0].change == pytest.approx(without.theta[0][0] - fit.theta[0][0], rel=0.6)
    assert np.sign(found[0].change) == np.sign(without.theta[0][0] - fit.theta[0][0])
