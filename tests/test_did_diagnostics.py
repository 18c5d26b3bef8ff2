"""What the two-way estimate compares and weighs: against bacondecomp, twins with dummies, and its own algebra."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from causaldata import castle
from naive import did_diagnostics as naive
from tolerances import EXACT, REFERENCE, SOLVED

from evalkit.did.bacon import bacon
from evalkit.did.negative_weights import contamination, negative_weights
from evalkit.did.panel import NEVER, Panel
from evalkit.errors import DesignError, UsageError

HERE = Path(__file__).parent / "reference"
SAID = json.loads((HERE / "did_bacon.json").read_text())
KIND = {
    "Earlier vs Later Treated": "earlier_vs_later",
    "Later vs Earlier Treated": "later_vs_earlier",
    "Treated vs Untreated": "treated_vs_never",
    "Both Treated": "both_treated",
}


@pytest.fixture(scope="module")
def laws():
    """The castle panel as bacondecomp has it: treated from the year in which a law takes effect."""
    rows = castle.load_pandas().data.sort_values(["sid", "year"])
    begun = rows[rows.post > 0].groupby("sid").year.min() - 1
    people = np.log(np.array(SAID["castle_population"], float).ravel()).astype(np.float32)
    x = np.column_stack([people, rows.l_income])
    return Panel.of(rows.sid, rows.year, rows.l_homicide, rows.sid.map(begun).fillna(0), x=x, names=("pop", "income"))


@pytest.fixture(scope="module")
def reform():
    rows = pd.read_csv(HERE / "bacon_math_reform.csv")
    begun = rows[rows.reform_math > 0].groupby("state")["class"].min()
    return Panel.of(rows.state, rows["class"], rows.incearn_ln, rows.state.map(begun).fillna(0))


def drawn(seed=1, units=9, periods=6, always=True, weights=False, p=0):
    """A small balanced panel in shuffled rows, with cohorts that start at once or over time."""
    rng = np.random.default_rng(seed)
    first = rng.choice([1 if always else 3, 3, 4, 6, 0], units)
    first[:5] = [1 if always else 3, 3, 4, 6, 0]
    unit, time = (a.ravel() for a in np.meshgrid(np.arange(units), np.arange(1, periods + 1), indexing="ij"))
    order = rng.permutation(len(unit))
    w = np.repeat(rng.uniform(0.5, 2, units), periods)[order] if weights else None
    y = rng.normal(size=len(unit)) + unit + 0.3 * time
    x = rng.normal(size=(len(unit), p))
    return Panel.of(unit[order], time[order], y, first[unit[order]], weight=w, x=x, names=[f"x{i}" for i in range(p)])


def agrees(table, said):
    assert len(table) == len(said)
    place = {frozenset(pair): i for i, pair in enumerate(zip(table.treated.tolist(), table.versus.tolist(),
                                                             strict=True))}  # fmt: skip
    ordered = {
        (g, v, k): i
        for i, (g, v, k) in enumerate(
            zip(table.treated.tolist(), table.versus.tolist(), table.kind, strict=True)
        )  # fmt: skip
    }
    for row in said:
        versus, kind = row["untreated"] or NEVER, KIND[row["type"]]
        i = ordered.get((row["treated"], versus, kind), None)
        if kind == "both_treated":
            i = place[frozenset((row["treated"], versus))]
            assert table.kind[i] == kind
        assert abs(table.weight[i] - row["weight"]) <= REFERENCE * row["weight"]
        assert abs(table.estimate[i] - row["estimate"]) <= REFERENCE * abs(row["estimate"])


@pytest.mark.parametrize("name", ["bacon_castle", "bacon_math_reform"])
def test_decomposition_agrees_with_bacondecomp(name, laws, reform):
    found, said = bacon(laws if name == "bacon_castle" else reform), SAID[name]
    agrees(found, said["two_by_twos"])
    assert abs(found.total - said["twfe"]) <= REFERENCE * abs(said["twfe"])
    for kind, row in said["by_type"].items():
        weight, estimate = found.by_kind()[KIND[kind]]
        assert abs(weight - row["weight"]) <= REFERENCE * row["weight"]
        # the program's average is weight times estimate over weight: our own relative error is below 1e-6 as well
        assert abs(estimate - row["avg_estimate"]) <= REFERENCE * abs(row["avg_estimate"])


def test_decomposition_with_covariates_agrees_with_bacondecomp(laws):
    found, said = bacon(laws, covariates=True), SAID["bacon_castle_controls"]
    agrees(found, said["two_by_twos"])
    assert abs(found.within.share - said["Omega"]) <= REFERENCE * said["Omega"]
    assert abs(found.within.estimate - said["beta_hat_w"]) <= REFERENCE * said["beta_hat_w"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("always", [True, False])
def test_decomposition_is_that_of_the_regression(seed, always):
    panel = drawn(seed, always=always)
    found = bacon(panel)
    y = panel.wide().tolist()
    twin = naive.bacon(y, panel.first.tolist(), panel.periods.tolist(), NEVER)
    mine = {key: i for i, key in enumerate(zip(found.treated.tolist(), found.versus.tolist(), found.kind,
                                               strict=True))}  # fmt: skip
    assert mine.keys() == twin.keys()
    for key, (weight, estimate) in twin.items():
        assert found.weight[mine[key]] == pytest.approx(weight, rel=SOLVED)
        assert found.estimate[mine[key]] == pytest.approx(estimate, rel=SOLVED, abs=SOLVED)
    regression = naive.two_way(panel.outcome, panel.treated, panel.unit, panel.time)[0]
    assert found.total == pytest.approx(regression, rel=SOLVED)
    assert found.weight @ found.estimate == pytest.approx(regression, rel=SOLVED)
    assert found.weight.sum() == pytest.approx(1, rel=EXACT)
    assert (found.weight > 0).all()


def test_units_treated_before_the_data_begin_are_one_always_treated_group():
    panel = drawn()
    earlier = panel.with_first(np.where(panel.first == 1, [-4, 1] * 4 + [1], panel.first))
    assert len(bacon(earlier)) == len(bacon(panel))
    assert bacon(earlier).estimate == pytest.approx(bacon(panel).estimate, rel=EXACT)
    cells, same = negative_weights(earlier), negative_weights(panel)
    assert np.array_equal(cells.group, same.group) and cells.weight == pytest.approx(same.weight, rel=EXACT)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("weights", [True, False])
def test_decomposition_with_covariates_and_weights_adds_up(p, weights):
    panel = drawn(4, units=12, weights=weights, p=p)
    for covariates in (False, True):
        found = bacon(panel, covariates=covariates)
        x = panel.x if covariates else None
        regression = naive.two_way(panel.outcome, panel.treated, panel.unit, panel.time, panel.weight, x)[0]
        assert found.total == pytest.approx(regression, rel=SOLVED)
        part = float(found.weight @ found.estimate)
        if covariates:
            part = found.within.share * found.within.estimate + (1 - found.within.share) * part
        assert part == pytest.approx(regression, rel=SOLVED)


def test_covariates_alike_within_cohorts_have_no_within_part():
    panel = drawn(2, units=20, p=1)
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(len(panel.cohorts) + 1, len(panel.periods)))
    where = np.searchsorted(panel.cohorts, panel.first)[panel.unit]
    same = Panel.of(panel.unit, panel.period, panel.outcome, panel.first[panel.unit], x=alike[where, panel.time],
                    names=("x",))  # fmt: skip
    found = bacon(same, covariates=True)
    assert found.within.share == 0
    assert found.weight @ found.estimate == pytest.approx(found.total, rel=SOLVED)


def test_decomposition_faults():
    panel = drawn(p=1)
    with pytest.raises(DesignError, match="did.bacon_unbalanced"):
        bacon(panel.take_rows(np.arange(len(panel)) > 0))
    uneven = np.ones(len(panel))
    uneven[3] = 2
    with pytest.raises(DesignError, match="did.bacon_weights"):
        bacon(Panel.of(panel.unit, panel.period, panel.outcome, panel.first[panel.unit], weight=uneven))
    for first in (np.full(panel.units, 3), np.full(panel.units, NEVER), np.full(panel.units, 1)):
        with pytest.raises(DesignError, match="did.bacon_no_variation"):
            bacon(panel.with_first(first))
    for x in (panel.period.astype(float), panel.unit.astype(float), panel.treated.astype(float)):
        same = Panel.of(panel.unit, panel.period, panel.outcome, panel.first[panel.unit], x=x, names=("x",))
        with pytest.raises(DesignError, match="did.bacon_collinear"):
            bacon(same, covariates=True)


# negative weights


def uneven(seed=3, repeated=False, p=0):
    """Unbalanced, weighted, with cohorts that are treated from the start."""
    panel = drawn(seed, units=14, periods=7, p=p)
    rng = np.random.default_rng(seed)
    keep = rng.uniform(size=len(panel)) < 0.8
    unit, period, first = panel.unit[keep], panel.period[keep], panel.first[panel.unit[keep]]
    return Panel.of(unit, period, panel.outcome[keep], first, weight=rng.uniform(0.5, 3, keep.sum()), x=panel.x[keep],
                    names=panel.names, repeated=repeated)  # fmt: skip


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("p", [0, 2])
def test_weights_are_those_of_a_regression_with_dummies(repeated, p):
    panel = uneven(repeated=repeated, p=p)
    found = negative_weights(panel, covariates=p > 0)
    level = panel.first[panel.unit] if repeated else panel.unit
    x = panel.x if p else None
    cohort = np.maximum(panel.first, panel.periods[0])[panel.unit].tolist()
    twin = naive.cell_weights(
        panel.treated.astype(float), level, panel.time, cohort, panel.period.tolist(), panel.weight, x
    )
    assert list(twin) == list(zip(found.group.tolist(), found.time.tolist(), strict=True))
    assert found.share == pytest.approx([share for share, _ in twin.values()], rel=SOLVED)
    assert found.weight == pytest.approx([weight for _, weight in twin.values()], rel=1e-8)
    regression = naive.two_way(panel.outcome, panel.treated, level, panel.time, panel.weight, x)[0]
    assert found.estimate == pytest.approx(regression, rel=1e-8)


@pytest.mark.parametrize("by", ["cohort", "row"])
def test_the_coefficient_is_the_weighted_sum_of_effects(by):
    panel = drawn(5, units=30, periods=8)
    found = negative_weights(panel, by=by)
    rng = np.random.default_rng(8)
    effect = rng.normal(size=len(found))
    key = {
        (g, t): e for g, t, e in zip(found.group.tolist(), found.time.tolist(), effect, strict=True)
    }  # fmt: skip
    who = panel.first[panel.unit] if by == "cohort" else panel.unit
    y = (
        panel.unit
        - 0.5 * panel.time
        + np.array(
            [
                key[g, t] if d else 0.0
                for g, t, d in zip(who.tolist(), panel.period.tolist(), panel.treated, strict=True)
            ]
        )
    )
    coefficient = negative_weights(panel.with_outcome(y)).estimate
    assert found.contribution @ effect == pytest.approx(coefficient, rel=1e-8)
    assert found.share @ found.weight == pytest.approx(1, rel=SOLVED)
    assert found.share.sum() == pytest.approx(1, rel=SOLVED)


def test_robustness_ratios_are_the_least_standard_deviations():
    for seed in range(4):
        panel = drawn(seed + 20, units=10, periods=7)
        found = negative_weights(panel)
        assert found.negative > 0
        assert found.negative_sum == pytest.approx(found.contribution[found.weight < 0].sum(), rel=EXACT)
        assert 0 < found.negative_share < 1
        zero = naive.least_sd(found.share, found.weight, found.estimate, opposite=False)
        opposite = naive.least_sd(found.share, found.weight, found.estimate, opposite=True)
        # the twin is a numerical search with a relative error near 1e-6
        assert found.sd_for_zero == pytest.approx(zero, rel=1e-4)
        assert found.sd_for_opposite == pytest.approx(opposite, rel=1e-4)
        assert found.sd_for_opposite >= found.sd_for_zero * (1 - SOLVED)


def test_one_date_has_equal_weights():
    panel = drawn(always=False)
    once = panel.with_first(np.where(panel.first < NEVER, 3, NEVER))
    found = negative_weights(once)
    assert found.weight == pytest.approx(1, rel=SOLVED)
    assert found.negative == 0 and found.negative_share == 0 and found.negative_sum == 0
    assert found.sd_for_zero == np.inf and found.sd_for_opposite == np.inf


def test_negative_weights_can_turn_the_sign():
    """Effects that grow, without never treated units: all positive, the coefficient negative."""
    unit, time = (a.ravel() for a in np.meshgrid(np.arange(10), np.arange(1, 11), indexing="ij"))
    first = np.where(unit < 5, 2, 9)
    y = np.where(time >= first, (time - first + 1.0) ** 2, 0.0)
    found = negative_weights(Panel.of(unit, time, y, first))
    assert found.estimate < 0 and found.negative > 0
    twin = {(g, t): e for g, t, e in zip(first, time, y, strict=True)}
    effect = [twin[g, t] for g, t in zip(found.group.tolist(), found.time.tolist(), strict=True)]
    assert min(effect) > 0
    assert found.contribution @ effect == pytest.approx(found.estimate, rel=SOLVED)


def test_weight_faults():
    panel = drawn()
    with pytest.raises(DesignError, match="did.weights_no_treated"):
        negative_weights(panel.with_first(np.full(panel.units, NEVER)))
    with pytest.raises(DesignError, match="did.weights_no_treated"):
        contamination(panel.with_first(np.full(panel.units, NEVER)))
    with pytest.raises(DesignError, match="did.weights_no_variation"):
        negative_weights(panel.with_first(np.full(panel.units, 3)))


# contamination


@pytest.mark.parametrize("make", [lambda: drawn(6, units=16, always=False), uneven, lambda: uneven(repeated=True)])
@pytest.mark.parametrize("reference", [(-1,), (-1, 0)])
def test_contamination_is_a_regression_of_indicators(make, reference):
    panel = make()
    found = contamination(panel, reference=reference)
    level = panel.first[panel.unit] if panel.repeated else panel.unit
    begun = panel.first[panel.unit]
    event = np.where(begun < NEVER, panel.period - begun, NEVER)
    d = np.column_stack([event == k for k in found.at])
    for c, (e, k) in enumerate(zip(found.cohort, found.event, strict=True)):
        indicator = ((begun == e) & (event == k)).astype(float)
        twin = naive.two_way(indicator, d, level, panel.time, panel.weight)
        assert found.weight[:, c] == pytest.approx(twin, abs=1e-8)
    assert found.coefficient == pytest.approx(
        naive.two_way(panel.outcome, d, level, panel.time, panel.weight), abs=1e-8
    )


def test_contamination_weights_add_up_and_rebuild_the_coefficients():
    panel = drawn(7, units=24, periods=8, always=False)
    found = contamination(panel)
    for i, k in enumerate(found.at):
        for other in np.unique(found.event):
            total = found.weight[i, found.event == other].sum()
            wanted = 1.0 if other == k else -1.0 if other in found.reference else 0.0
            assert total == pytest.approx(wanted, abs=SOLVED)
    effect = np.random.default_rng(3).normal(size=len(found.cohort))
    key = {(g, k): v for g, k, v in zip(found.cohort.tolist(), found.event.tolist(), effect, strict=True)}
    begun = panel.first[panel.unit]
    y = (
        panel.unit
        - 0.1 * panel.time**2
        + np.array(
            [key[g, t - g] if g < NEVER else 0.0 for g, t in zip(begun.tolist(), panel.period.tolist(), strict=True)]
        )
    )
    again = contamination(panel.with_outcome(y))
    assert again.coefficient == pytest.approx(found.weight @ effect, abs=1e-8)
    assert (found.other > 0.01).any() and (found.negative_own <= 0).all()


def test_one_cohort_is_not_contaminated():
    panel = drawn(always=False)
    found = contamination(panel.with_first(np.where(panel.first < NEVER, 4, NEVER)))
    assert found.other == pytest.approx(0, abs=SOLVED)


def test_contamination_faults():
    panel = drawn(8, units=16, always=False)
    with pytest.raises(UsageError, match="did.contamination_reference"):
        contamination(panel, reference=(-40,))
    treated = panel.take_units(panel.first < NEVER)
    with pytest.raises(DesignError, match="did.contamination_collinear"):
        contamination(treated, reference=(-1,))
    assert len(contamination(treated, reference=(-5, -1)).at)


def test_rows_may_come_in_any_order():
    panel = uneven(p=1)
    order = np.random.default_rng(0).permutation(len(panel))
    other = Panel.of(panel.unit[order], panel.period[order], panel.outcome[order], panel.first[panel.unit[order]],
                     weight=panel.weight[order], x=panel.x[order], names=panel.names)  # fmt: skip
    for one, two in ((negative_weights(panel, covariates=True), negative_weights(other, covariates=True)),):
        assert np.array_equal(one.weight, two.weight) and one.estimate == two.estimate
    assert np.array_equal(contamination(panel).weight, contamination(other).weight)
