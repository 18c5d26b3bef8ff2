"""Gamma frailty: against R, negative binomial regression and sums over nodes; no frailty; what cannot be fitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duration_example as example
import numpy as np
import pytest
import statsmodels.api as sm
from naive import duration_hazards as naive
from scipy import optimize, special
from tolerances import MONTE_CARLO, REFERENCE

from evalkit.duration.frailty import _Problem, gamma_frailty
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.spells import Layout
from evalkit.duration.terms import dense, factor, joined
from evalkit.errors import DesignError, UsageError

FACTS = json.loads((Path(__file__).parent / "reference" / "duration_hazards.json").read_text("utf-8"))


def histories(rows, timing, cluster=None, level="person"):
    """Rows (person, length, event, before, late, x) of one risk."""
    rows = np.asarray(rows, float)
    person = rows[:, 0].astype(int)
    n = int(person[-1]) + 1
    design = joined(dense(rows[:, [5]], ["x"]), factor(rows[:, 4].astype(int), ["early", "late"]))
    cluster = np.arange(n) if cluster is None else cluster
    return Histories(
        person, rows[:, 1], np.where(rows[:, 2] > 0, 0, -1), np.ones((len(rows), 1), bool), rows[:, 3] > 0, (design,),
        ("exit",), np.zeros(1), np.ones(n), cluster, np.unique(cluster), level, timing,
    )  # fmt: skip


def draw(size, variance, seed, timing, spells=1, entry=0, longest=20):
    """Spells with rates exp(-2.5 + x / 2), from month 5 on times exp(-0.3); half of them seen from ``entry`` on."""
    rng = np.random.default_rng(seed)
    z = rng.gamma(1 / variance, variance, size) if variance else np.ones(size)
    rows, person = [], 0
    for i in range(size):
        x, here = rng.normal(), len(rows)
        for _ in range(spells):
            first, second = z[i] * np.exp(np.array([-2.5, -2.8]) + x / 2)
            need = rng.exponential()
            stop = need / first if need < 5 * first else 5 + (need - 5 * first) / second
            stop = np.ceil(stop) if timing == "grouped" else stop
            event, stop = stop <= longest, min(stop, longest)
            since = entry * (i % 2)
            if stop <= since:
                continue
            cuts = sorted({0, stop, *(c for c in (5, since) if c < stop)})
            for low, high in zip(cuts, cuts[1:], strict=False):
                rows.append((person, high - low, event and high == stop, high <= since, low >= 5, x))
        person += len(rows) > here
    return histories(rows, timing)


CASES = {
    "exact": {"timing": "exact"},
    "exact, several spells": {"timing": "exact", "spells": 3},
    "exact, entered late": {"timing": "exact", "entry": 3},
    "months": {"timing": "grouped"},
    "months, several spells": {"timing": "grouped", "spells": 3},
    "months, entered late": {"timing": "grouped", "entry": 3},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("variance", [0.3, 1.5])
def test_the_likelihood_is_the_sum_over_frailties(case, variance):
    made = draw(25, 0.8, 3, **CASES[case])
    packed = np.array([0.4, -0.2, -2.2, variance])
    mine = _Problem(made, np.ones(3, bool), None).value(packed)
    assert mine == pytest.approx(naive.with_frailty(made, packed[:2], packed[2], variance), rel=1e-8)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("variance", [0.02, 0.8])
def test_its_derivatives(case, variance):
    made = draw(200, 0.8, 4, **CASES[case])
    for group in (None, np.arange(made.persons) // 4):
        problem = _Problem(made, np.ones(3, bool), group)
        packed = np.array([0.4, -0.2, -2.2, variance])

        def gradient(at, problem=problem):
            return problem.copies @ problem.at(at)[1]

        value, _, information = problem.at(packed)
        steps = 1e-5 * np.eye(4)
        slope = np.array([problem.value(packed + e) - problem.value(packed - e) for e in steps]) / 2e-5
        bend = -np.array([gradient(packed + e) - gradient(packed - e) for e in steps]) / 2e-5
        assert value == pytest.approx(problem.value(packed), rel=1e-13)
        assert gradient(packed) == pytest.approx(slope, abs=1e-6 * np.abs(slope).max())
        assert information == pytest.approx(bend, abs=1e-6 * np.abs(bend).max())


def test_the_maximum_is_scipy_s():
    made = draw(200, 0.8, 5, "grouped", 3)
    fit = gamma_frailty(made, "exit")
    problem = _Problem(made, np.ones(3, bool), None)

    def negative(p):
        at = np.append(p[:3], np.exp(p[3]))
        slope = -(problem.copies @ problem.at(at)[1])
        return -problem.value(at), slope * np.array([1, 1, 1, at[3]])

    theirs = optimize.minimize(negative, [0, 0, -2, -1.0], jac=True, method="BFGS", options={"gtol": 1e-8})
    expected = np.append(theirs.x[:3], np.exp(theirs.x[3]))
    assert (np.abs(fit.packed - expected) <= 1e-5 * fit.std_error).all()
    assert fit.log_likelihood >= -theirs.fun - 1e-9


def test_counts_with_a_constant_rate_are_negative_binomial():
    """R's dnbinom maximised, and statsmodels."""
    data = np.array(FACTS["data"]["repeated"])
    rows = [(i, t / max(k, 1), k > 0, 0, 0, x) for i, (t, k, x) in enumerate(data) for _ in range(int(max(k, 1)))]
    made = histories(rows, "exact")
    made = replace(made, designs=(dense(made.designs[0].numbers, ["x"]),))
    fit = gamma_frailty(made, "exit")
    reference = FACTS["repeated"]
    expected = np.array([reference[name] for name in ("x", "intercept", "variance")])
    assert (np.abs(fit.packed - expected) <= REFERENCE * fit.std_error).all()
    time, events, x = data.T
    extra = (events * np.log(time) - special.gammaln(events + 1)).sum()
    assert fit.log_likelihood + extra == pytest.approx(reference["loglik"], rel=1e-8)
    design = np.column_stack([x, np.ones(len(x))])
    theirs = sm.NegativeBinomial(events, design, offset=np.log(time)).fit(disp=0, method="bfgs", gtol=1e-9, maxiter=500)
    theirs = sm.NegativeBinomial(events, design, offset=np.log(time)).fit(
        theirs.params, disp=0, method="newton", tol=1e-12
    )
    assert (np.abs(fit.packed - theirs.params) <= 1e-5 * fit.std_error).all()
    assert np.sqrt(np.diag(fit.information)) == pytest.approx(theirs.bse, rel=1e-4)


def test_spells_by_month_are_r_s_integral():
    rows = []
    for person, stop, event, x in FACTS["data"]["months"]:
        cuts = [0, 4, stop] if stop > 4 else [0, stop]
        rows += [(person, b - a, event and b == stop, 0, a >= 4, x) for a, b in zip(cuts, cuts[1:], strict=False)]
    problem = _Problem(histories(rows, "grouped"), np.ones(3, bool), None)
    for point, value in zip(FACTS["months"]["points"], FACTS["months"]["loglik"], strict=True):
        assert problem.value(np.array(point)) == pytest.approx(value, rel=1e-8)


def test_no_frailty_is_the_plain_fit():
    made = next(
        h for h in (draw(300, 0, seed, "exact", 2) for seed in range(20)) if not gamma_frailty(h, "exit").variance
    )
    fit, plain = gamma_frailty(made, "exit"), fit_hazards(made)
    assert fit.packed[:-1] == pytest.approx(plain.packed, abs=1e-10)
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-12)
    assert fit.std_error[:-1] == pytest.approx(plain.std_error, rel=1e-8)
    assert fit.information[:-1, :-1] == pytest.approx(plain.information, rel=1e-7)
    assert fit.p_value == 1 and fit.statistic == 0 and not fit.free[-1] and fit.std_error[-1] == 0


@pytest.mark.parametrize("timing", ["exact", "grouped"])
def test_a_small_variance_is_near_none(timing):
    made = draw(100, 0.5, 6, timing, 2)
    problem = _Problem(made, np.ones(3, bool), None)
    packed = np.array([0.4, -0.2, -2.2, 0.0])
    value, score, _ = problem.at(packed)
    slope = score[:, 3].sum()
    off = [(problem.value(packed + [0, 0, 0, v]) - value) / v - slope for v in (1e-3, 1e-4)]
    assert np.abs(off[0]) < 0.05 * np.abs(score[:, 3]).sum() and off[1] == pytest.approx(off[0] / 10, rel=0.05)


def test_patterns_are_rows_and_groups_are_people_who_share():
    made = draw(40, 0.8, 7, "grouped", 2)
    twice = np.r_[made.person, made.person + made.persons]
    rows = np.r_[np.arange(len(made)), np.arange(len(made))]
    parts = {name: getattr(made, name)[rows] for name in ("length", "event", "at_risk", "before")}
    both = replace(
        made, **parts, person=twice, designs=(made.designs[0].take(rows),), count=np.ones(2 * made.persons),
        cluster=np.arange(2 * made.persons), cluster_ids=np.arange(2 * made.persons),
    )  # fmt: skip
    alike = gamma_frailty(replace(made, count=np.full(made.persons, 2.0)), "exit")
    written = gamma_frailty(both, "exit")
    assert alike.packed == pytest.approx(written.packed, abs=1e-8)
    assert alike.log_likelihood == pytest.approx(written.log_likelihood, rel=1e-12)
    assert alike.std_error == pytest.approx(written.std_error, rel=1e-7)
    assert alike.persons == written.persons == 2 * made.persons
    own = gamma_frailty(made, "exit", group=np.arange(made.persons))
    assert own.packed == pytest.approx(gamma_frailty(made, "exit").packed, abs=1e-8) and own.influence.level == "group"
    group = np.arange(made.persons) // 3
    shared = _Problem(made, np.ones(3, bool), group)
    packed = np.array([0.4, -0.2, -2.2, 0.7])
    assert shared.value(packed) == pytest.approx(naive.with_frailty(made, packed[:2], -2.2, 0.7, group), rel=1e-8)


def test_the_variance_is_found_and_the_test_keeps_its_level():
    found, p_values = [], []
    for seed in range(60):
        fit = gamma_frailty(draw(300, 0.8, seed, "exact", 2), "exit")
        found.append((fit.packed - [0.5, -0.3, -2.5, 0.8]) / fit.std_error)
        p_values.append(gamma_frailty(draw(150, 0, seed, "exact", 2), "exit").p_value)
    off = np.abs(np.mean(found, axis=0)) * np.sqrt(len(found))
    assert off.max() < MONTE_CARLO and np.std(found, axis=0) == pytest.approx(np.ones(4), abs=0.35)
    assert np.mean(np.array(p_values) < 0.05) < 0.05 + MONTE_CARLO * np.sqrt(0.05 * 0.95 / 60)
    assert 0.25 < np.mean(np.array(p_values) == 1) < 0.75


def test_survival_is_averaged_over_the_frailty():
    made = draw(400, 0.8, 8, "exact", 2)
    fit = gamma_frailty(made, "exit")
    design = joined(dense(np.array([[0.3], [0.3], [-1.0]]), ["x"]), factor([0, 1, 0], ["early", "late"]))
    share, influence = fit.survival(design, [5.0, 4.0, 5.0], [0, 0, 1])
    rate = np.exp(design.matrix() @ fit.theta + fit.intercept)
    z = np.random.default_rng(1).gamma(1 / fit.variance, fit.variance, 400_000)
    drawn = np.exp(-z * (5 * rate[0] + 4 * rate[1]))
    assert share[1] == pytest.approx(drawn.mean(), abs=MONTE_CARLO * drawn.std() / np.sqrt(len(z)))
    assert share[2] == pytest.approx((1 + fit.variance * 5 * rate[2]) ** (-1 / fit.variance), rel=1e-12)
    for j, e in enumerate(1e-6 * np.eye(4)):
        moved = [
            replace(fit, theta=p[:2], intercept=p[2], variance=p[3]).survival(design, [5.0, 4.0, 5.0], [0, 0, 1])[0]
            for p in (fit.packed + e, fit.packed - e)
        ]
        slope = (moved[0] - moved[1]) / 2e-6
        one = replace(fit, influence=replace(fit.influence, values=np.eye(4)[[j]], ids=np.arange(1)))
        assert one.survival(design, [5.0, 4.0, 5.0], [0, 0, 1])[1].values[0] == pytest.approx(slope, rel=1e-5, abs=1e-9)
    assert influence.values.shape == (made.persons, 3)


def test_one_risk_among_several():
    layout = Layout(example.spells(400), replace(example.LINE, calendar="none"))
    made = layout.histories("exact")
    fit, alone = gamma_frailty(made, "work"), gamma_frailty(made.only((0,)), "work")
    assert fit.packed == pytest.approx(alone.packed, abs=1e-9) and fit.events == made.events[0]
    months = layout.histories("grouped")
    start = gamma_frailty(months, "start training")  # who leaves in a month was not at risk of starting in it
    first = (months.event >= 0) & (months.event < 3)
    length = months.length - first
    keep = months.at_risk[:, 3] & (length > 0)
    cut = replace(
        months.take(keep), length=length[keep], event=np.where(months.event == 3, 0, -1)[keep],
        at_risk=np.ones((keep.sum(), 1), bool), designs=(months.designs[3].take(keep),), risks=("s",),
        order=np.zeros(1),
    )  # fmt: skip
    assert start.packed == pytest.approx(gamma_frailty(cut, "s").packed, abs=1e-9)
    with pytest.raises(UsageError) as caught:
        gamma_frailty(months, "work")
    assert caught.value.faults[0].code == "duration.frailty_rivals"
    with pytest.raises(UsageError) as caught:
        gamma_frailty(months, "holiday")
    assert caught.value.faults[0].code == "duration.frailty_risk"


def test_what_cannot_be_fitted():
    made = draw(60, 0.8, 9, "exact")
    town = replace(made, cluster=np.arange(made.persons) % 6, cluster_ids=np.arange(6), level="town")
    with pytest.raises(UsageError) as caught:
        gamma_frailty(town, "exit", group=np.arange(made.persons) // 2)
    assert caught.value.faults[0].code == "duration.frailty_groups"
    assert gamma_frailty(town, "exit", group=np.arange(made.persons) % 12).influence.level == "town"
    with pytest.raises(DesignError) as caught:
        gamma_frailty(replace(made, event=np.full(len(made), -1)), "exit")
    assert caught.value.faults[0].code == "duration.hazards_no_events"
