"""One or a few treated clusters: against plain loops, what the tests refuse, and their size when nothing happens."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from causaldata import castle
from naive import did_few as naive
from tolerances import EXACT, SOLVED

from evalkit.did.few import conley_taber, ferman_pinto
from evalkit.did.few.conley_taber import scores, stage, stand_ins, variance_line
from evalkit.did.panel import Panel
from evalkit.errors import DataError, DesignError
from evalkit.kernels.did_few import leave_one_out

sys.path.insert(0, str(Path(__file__).parent / "simulation"))
from size_few import Design, rejections  # noqa: E402


def wide_panel(y: np.ndarray, begin: dict[int, int], size: np.ndarray | None = None) -> Panel:
    """Clusters by periods 0..; shuffled rows."""
    clusters, periods = y.shape
    unit, time = np.repeat(np.arange(clusters), periods), np.tile(np.arange(periods), clusters)
    first = np.array([begin.get(u, -1) for u in unit])
    rows = np.random.default_rng(9).permutation(len(unit))
    weight = None if size is None else size[unit][rows]
    return Panel.of(unit[rows], time[rows] + 1, y.ravel()[rows], (first + 1)[rows], weight=weight)


def noise(clusters: int = 9, periods: int = 6, seed: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(clusters, 1)) + rng.normal(size=periods) + rng.normal(size=(clusters, periods))


@pytest.mark.parametrize("begin", [{2: 3}, {1: 3, 5: 3}, {1: 3, 5: 4}, {0: 3, 4: 3, 6: 2}])
def test_conley_taber_is_the_loop(begin: dict[int, int]) -> None:
    y = noise()
    for j, when in begin.items():
        y[j, when:] += 1.5
    found = conley_taber(wide_panel(y, begin))
    estimate, p_value = naive.permuted(y, begin, 0.0)
    assert found.overall.estimate[0] == pytest.approx(estimate, abs=EXACT)
    assert found.overall.p_value[0] == pytest.approx(p_value, abs=EXACT)
    for e in (-1, 0, 1):
        m = found.effects.at.tolist().index(e)
        estimate, p_value = naive.permuted(y, begin, 0.0, e)
        assert found.estimate[m] == pytest.approx(estimate, abs=EXACT)
        assert found.p_value[m] == pytest.approx(p_value, abs=EXACT)


def test_conley_taber_set_is_what_is_not_rejected() -> None:
    y, begin = noise(), {1: 3, 5: 3}
    found = conley_taber(wide_panel(y, begin), level=0.9).overall
    low, high = found.low[0], found.high[0]
    assert np.isfinite([low, high]).all()
    step = 1e-6 * (high - low)
    for value, rejected in ((low - step, True), (low + step, False), (high - step, False), (high + step, True)):
        assert (naive.permuted(y, begin, value)[1] <= 0.1) == rejected


def test_few_clusters_cannot_reject() -> None:
    found = conley_taber(wide_panel(noise(12), {2: 3}))
    assert found.smallest == pytest.approx(1 / 12)
    assert np.isneginf(found.overall.low[0]) and np.isposinf(found.overall.high[0])
    enough = conley_taber(wide_panel(noise(20), {2: 3})).overall
    assert np.isfinite([enough.low[0], enough.high[0]]).all() and enough.low[0] < enough.estimate[0] < enough.high[0]


def test_base_periods_and_anticipation() -> None:
    y, begin = noise(), {2: 3, 4: 3}
    found = conley_taber(wide_panel(y, begin), base="last", anticipation=1, window=(-3, 1))
    assert found.effects.at.tolist() == [-3, -2, -1, 0, 1] and found.effects.base == (-2,)
    assert found.low[1] == found.high[1] == found.estimate[1] == 0 and np.isnan(found.p_value[1])
    change = y[:, 3] - y[:, 1]
    others = [i for i in range(9) if i not in begin]
    assert found.estimate[3] == pytest.approx(change[[2, 4]].mean() - change[others].mean(), abs=EXACT)
    assert found.effects.counterfactual[3] == pytest.approx(y[[2, 4], 3].mean() - found.estimate[3], abs=EXACT)


def test_units_are_averaged_within_clusters() -> None:
    y, begin = noise(), {2: 3}
    rng = np.random.default_rng(2)
    unit, time = np.repeat(np.arange(27), 6), np.tile(np.arange(6), 27)
    apart = rng.normal(size=(9, 3, 6))
    apart -= apart.mean(axis=1, keepdims=True)
    values = (y[:, None, :] + apart).ravel()
    first = np.where(unit // 3 == 2, 4, 0)
    grouped = conley_taber(Panel.of(unit, time + 1, values, first, cluster=unit // 3))
    alone = conley_taber(wide_panel(y, begin))
    np.testing.assert_allclose(grouped.estimate, alone.estimate, atol=SOLVED)
    np.testing.assert_allclose(grouped.p_value, alone.p_value)
    sections = conley_taber(Panel.of(unit, time + 1, values, first, cluster=unit // 3, repeated=True))
    np.testing.assert_allclose(sections.estimate, alone.estimate, atol=SOLVED)


def test_published_set_is_a_quantile_of_residuals() -> None:
    y, begin = noise(), {2: 3}
    found = conley_taber(wide_panel(y, begin), reference="published", level=0.5).overall
    z = naive.contrast(y, 3, None)
    others = np.delete(z, 2)
    around = np.sort(np.abs(others - others.mean()))
    assert found.estimate[0] == pytest.approx(z[2] - others.mean(), abs=EXACT)
    assert found.high[0] - found.estimate[0] == pytest.approx(around[3], rel=1e-6)


def test_variance_line_is_least_squares_without_negatives() -> None:
    rng = np.random.default_rng(1)
    inverse = rng.uniform(0.2, 3, 15)
    squares = (1 + 2 * inverse) * rng.chisquare(1, (6, 15))
    a, b = variance_line(squares, inverse, np.ones_like(squares))
    for row in range(6):
        slope, start = np.polyfit(inverse, squares[row], 1)
        if slope >= 0 and start >= 0:
            assert (a[row], b[row]) == (pytest.approx(start), pytest.approx(slope))
    assert (a >= 0).all() and (b >= 0).all()
    a, b = variance_line(np.array([[3.0, 2.0, 1.0]]), np.array([1.0, 2.0, 3.0]), np.ones((1, 3)))
    assert (a[0], b[0]) == (2.0, 0.0)
    a, b = variance_line(np.array([[0.0, 2.0, 5.0]]), np.array([1.0, 2.0, 3.0]), np.ones((1, 3)))
    assert a[0] == 0 and b[0] == pytest.approx(19 / 14)


def test_leaving_one_out_is_the_fit_without_it() -> None:
    rng = np.random.default_rng(2)
    inverse, z = rng.uniform(0.2, 3, 9), rng.normal(size=(4, 9))
    found = leave_one_out(z, inverse, 5)
    for skip in range(10):
        use = np.tile((np.arange(9) != skip).astype(float), (4, 1))
        meant = np.stack(naive.mean_and_line(z, inverse, use, 5, variance_line), axis=1)
        np.testing.assert_allclose(found[:, skip], meant, rtol=1e-7, atol=1e-9)
    # by another route: without the cluster there is one cluster fewer (only the common scale differs)
    one = leave_one_out(np.delete(z, 3, axis=1), np.delete(inverse, 3), 5)[:, -1]
    np.testing.assert_allclose(found[:, 3], one, rtol=1e-6, atol=1e-8)


def test_scores_do_not_see_place_or_scale() -> None:
    rng = np.random.default_rng(1)
    inverse, z = rng.uniform(0.2, 3, 12), rng.normal(size=(2, 12))
    score, deviation = scores(z, inverse)
    moved, wider = scores(5 + 3 * z, inverse)
    np.testing.assert_allclose(moved, score, rtol=1e-7)
    np.testing.assert_allclose(wider, 3 * deviation, rtol=1e-7)
    order = rng.permutation(12)
    np.testing.assert_allclose(scores(z[:, order], inverse[order])[0], score[:, order], rtol=1e-7)


def test_ferman_pinto_with_equal_sizes_is_conley_taber() -> None:
    """One treated cluster, one size: only the order of deviations counts, and it is the same."""
    y = noise(20)
    one, other = (f(wide_panel(y, {2: 3}), window=(-1, 0)) for f in (ferman_pinto, conley_taber))
    np.testing.assert_allclose(one.p_value, other.p_value)
    np.testing.assert_allclose(one.low, other.low, rtol=1e-6)


def test_ferman_pinto_is_wider_for_a_small_cluster() -> None:
    """The same outcomes: treated among large ones, a small one is allowed more noise and a large one less."""
    rng = np.random.default_rng(5)
    size = np.exp(np.linspace(3, 8, 24))
    y = noise(24) + rng.normal(size=(24, 6)) * np.sqrt(8 * np.median(size) / size)[:, None] * 0.6
    small, large = {1: 3}, {22: 3}
    width = {}
    for name, begin in (("small", small), ("large", large)):
        for method in (ferman_pinto, conley_taber):
            found = method(wide_panel(y, begin, size), window=(0, 0)).overall
            width[name, method] = found.high[0] - found.low[0]
    assert width["small", ferman_pinto] > width["small", conley_taber]
    assert width["large", ferman_pinto] < width["large", conley_taber]


def test_sizes_can_be_given() -> None:
    size = np.linspace(10, 200, 20)
    panel = wide_panel(noise(20), {2: 3}, size)
    bare = wide_panel(noise(20), {2: 3})
    one, other = ferman_pinto(panel, window=(0, 0)), ferman_pinto(bare, size=size, window=(0, 0))
    np.testing.assert_allclose(one.p_value, other.p_value)
    persons = replace(bare, person_rows=size[bare.unit].astype(int))
    np.testing.assert_allclose(ferman_pinto(persons, window=(0, 0)).p_value, one.p_value)


def test_stand_ins_take_one_place_and_keep_to_dates() -> None:
    given = stage(wide_panel(noise(9), {1: 3, 5: 4}))
    who, exact = stand_ins(given, 10_000, np.random.default_rng(1))
    assert exact and who[0].tolist() == [1, 5] and len(who) == 7 * 6 + 7 + 7 + 1
    assert not (who[:, 0] == 5).any() and (who[:, 0] != who[:, 1]).all()
    many = stage(wide_panel(noise(20), {0: 3, 1: 3, 2: 3, 3: 3, 4: 3}))
    rows, exact = stand_ins(many, 500, np.random.default_rng(1))
    assert not exact and len(rows) == 500 and rows[0].tolist() == [0, 1, 2, 3, 4]


def test_refusals() -> None:
    y = noise(6)
    cases = [
        (DesignError, "did.few_controls", lambda: conley_taber(wide_panel(y, {0: 3, 1: 3, 2: 3, 3: 3}))),
        (DesignError, "did.few_no_treated", lambda: conley_taber(wide_panel(y, {}))),
        (DataError, "did.few_size", lambda: ferman_pinto(wide_panel(y, {0: 3}), size=[1, 2])),
        (DataError, "did.few_size", lambda: ferman_pinto(wide_panel(y, {0: 3}), size=[0, 1, 1, 1, 1, 1])),
    ]
    many = noise(30, 14)
    begin = {j: 1 + j % 12 for j in range(15)}
    cases.append((DesignError, "did.few_assignments", lambda: conley_taber(wide_panel(many, begin))))
    for kind, code, run in cases:
        with pytest.raises(kind) as error:
            run()
        assert error.value.faults[0].code == code


def test_castle_laws_one_state() -> None:
    """Florida alone (2005) against the states without such a law: by hand."""
    data = castle.load_pandas().data.astype({"l_homicide": float})
    never = data.groupby("sid")["post"].transform("max") == 0
    kept = data[never | (data["state"] == "Florida")] if "state" in data else data[never | (data["sid"] == 10)]
    florida = kept.loc[~(kept.groupby("sid")["post"].transform("max") == 0), "sid"].unique()
    assert len(florida) == 1
    first = np.where(kept["sid"] == florida[0], 2005, 0)
    found = conley_taber(Panel.of(kept["sid"], kept["year"], kept["l_homicide"], first)).overall
    table = kept.pivot(index="sid", columns="year", values="l_homicide")
    z = table.loc[:, 2005:].mean(axis=1) - table.loc[:, :2004].mean(axis=1)
    own = z[florida[0]]
    assert found.estimate[0] == pytest.approx(own - z.drop(florida[0]).mean(), rel=SOLVED)
    placebo = [abs(z[s] - z.drop(s).mean()) for s in z.index]
    assert found.p_value[0] == pytest.approx(
        np.mean([p >= abs(own - z.drop(florida[0]).mean()) - 1e-12 for p in placebo])
    )


@pytest.mark.slow
@pytest.mark.parametrize("treated", [1, 2, 5])
def test_size_is_below_seven_per_cent(treated: int) -> None:
    """Share of rejections less three of its own standard errors; with the whole margin it is near 5."""
    reps = 2_000
    for design in (
        Design(treated, 0.5, "equal"),
        Design(treated, 0.8, "unequal"),
        *([Design(treated, 0.8, "equal", dates="several")] if treated > 1 else []),
    ):
        found = rejections(design, reps, 11, 1)
        margin = 3 * np.sqrt(0.07 * 0.93 / reps)
        for method in ("CT", "FP"):
            assert found[method] < 0.07 + margin / 2, (design.name, method, found)
            assert found[method] > 0.025, (design.name, method, found)
        if treated < 5:
            assert found["clustered"] > 0.15
        if design.sizes == "equal":
            assert found["CT published"] > found["CT"]


@pytest.mark.slow
def test_size_by_size_of_the_treated() -> None:
    """Only the version for unequal sizes holds for a treated cluster that is the smallest or the largest."""
    for where in ("smallest", "largest"):
        found = rejections(Design(2, 0.5, "unequal", where), 2_000, 5, 1)
        assert found["FP"] < 0.07
        assert (found["CT"] > 0.15) == (where == "smallest")
