"""Balance: by hand, against cobalt on the National Supported Work data, and against dense and looping twins."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from tolerances import EXACT, REFERENCE, SOLVED

from evalkit.balance import balance, columns, effective_size, holm, moments, paired_p_values, wide
from evalkit.design import Design, Factor, factor

FOLDER = Path(__file__).parent / "reference"


def design_of(
    numeric: np.ndarray,
    names: tuple[str, ...],
    factors: tuple[Factor, ...] = (),
    index: np.ndarray | None = None,
    own: np.ndarray | None = None,
) -> Design:
    """A design whose rows are its units unless an index says otherwise."""
    rows = np.arange(len(numeric)) if index is None else index
    own = np.empty((len(rows), 0)) if own is None else own
    return Design(rows.astype(np.int32), numeric, names, own, ("age",) * own.shape[1], factors)


def random_design(seed: int = 1) -> Design:
    """Forty units in 150 rows."""
    rng = np.random.default_rng(seed)
    index = np.sort(rng.integers(0, 40, 150))
    made = factor("sex", rng.choice(["m", "v"], 40)), factor("education", rng.choice(["a", "b", "c"], 40))
    return design_of(rng.normal(3, 2, (40, 2)), ("x", "z"), made, index, rng.normal(40, 10, (150, 1)))


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_five_rows_by_hand() -> None:
    """Treated 2, 4 (mean 3, variance 2) against 1, 1, 7 (mean 3, variance 12), matched with weights 1.5, 0.5, 0.

    After: mean 1, variance 0. Weights count relative to their sum: 3/4 and 1/4.
    """
    design = design_of(np.array([[2.0], [4.0], [1.0], [1.0], [7.0]]), ("x",), (factor("sex", list("mvmmv")),))
    treated = np.array([True, True, False, False, False])
    weight = np.array([0, 0, 1.5, 0.5, 0])
    number, man, woman = balance(design, treated, treated.astype(float), weight, np.array([0.1, 0.2, 0.3]))
    assert (number.variable, number.level, number.p_value) == ("x", "", 0.1)
    assert (number.mean_treated, number.mean_before, number.mean_after) == pytest.approx((3, 3, 1), abs=EXACT)
    assert (number.smd_before, number.smd_after) == pytest.approx((0, 2 / np.sqrt(2)), abs=EXACT)
    assert number.vr_before == pytest.approx(2 / 12, rel=EXACT)
    assert number.vr_after == np.inf  # no spread after matching
    assert (man.variable, man.level, man.vr_before, man.vr_after) == ("sex", "m", None, None)
    assert (man.mean_treated, man.mean_before, man.mean_after) == pytest.approx((0.5, 2 / 3, 1), abs=EXACT)
    assert (man.smd_before, man.smd_after) == pytest.approx((-1 / 3, -1), abs=EXACT)
    assert woman.smd_after == pytest.approx(1, abs=EXACT)


def test_weighted_variance_by_hand() -> None:
    """Weights 1/2, 1/4, 1/4 on 0, 4, 8: mean 3, sum w (x - 3)^2 = 11, divided by 1 - 3/8."""
    design = design_of(np.array([[0.0], [4.0], [8.0]]), ("x",))
    made = moments(design, np.array([2.0, 1.0, 1.0]))
    assert (made.mean[0], made.variance[0]) == pytest.approx((3, 11 / 0.625), abs=1e2 * EXACT)


def test_the_standard_deviation_is_that_of_all_treated() -> None:
    """A starter without a match counts in the denominator, not in the mean after."""
    design = design_of(np.array([[0.0], [2.0], [10.0], [0.0], [4.0]]), ("x",))
    treated = np.array([1, 1, 1, 0, 0], bool)
    (row,) = balance(design, treated, np.array([1.0, 1, 0, 0, 0]), np.array([0, 0, 0, 1.0, 1]))
    assert row.mean_treated == pytest.approx(4, rel=EXACT)
    assert row.smd_after == pytest.approx((1 - 2) / np.std([0, 2, 10], ddof=1), rel=EXACT)
    assert row.p_value == 1


@pytest.mark.parametrize(("other", "expected"), [(1.0, 0.0), (2.0, -np.inf)])
def test_a_column_without_spread_among_the_treated(other: float, expected: float) -> None:
    design = design_of(np.array([[1.0], [1.0], [other], [other]]), ("x",))
    treated = np.array([1, 1, 0, 0], bool)
    (row,) = balance(design, treated, treated.astype(float), (~treated).astype(float))
    assert row.smd_after == expected


def test_effective_size_by_hand() -> None:
    assert effective_size(np.array([1.0, 1.0, 1.0])) == 3
    assert effective_size(np.array([2.0, 1.0, 1.0, 0.0])) == pytest.approx(16 / 6, rel=EXACT)
    assert effective_size(np.zeros(3)) == 0


# -- cobalt ----------------------------------------------------------------------------------------------------------

NUMBERS, BINARY = ("age", "educ", "re74", "re75"), ("black", "hisp", "marr", "nodegree")


def lalonde(data: dict[str, np.ndarray]) -> Design:
    numeric = np.column_stack([data[name] for name in NUMBERS]).astype(float)
    return design_of(numeric, NUMBERS, tuple(factor(name, data[name].astype(int)) for name in BINARY))


def rows_by_name(design: Design, *weights: np.ndarray) -> dict[str, object]:
    made = balance(design, *weights)  # type: ignore[arg-type]
    return {row.variable: row for row in made if row.level in ("", "1")}


@pytest.mark.parametrize("ratio", ["one", "three"])
def test_balance_after_matching_is_that_of_cobalt(ratio: str) -> None:
    with (FOLDER / "nsw_cps_matched.csv").open() as file:
        rows = list(csv.DictReader(file))
    data = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    number = data["row"].astype(int)
    treated = data["treat"] == 1
    pairs = json.loads((FOLDER / "nsw_cps_matchit.json").read_text())[ratio]["controls"]
    weight = np.zeros(len(rows))
    for chosen in pairs:
        chosen = chosen if isinstance(chosen, list) else [chosen]
        for control in chosen:
            weight[np.flatnonzero(number == control)] += 1 / len(chosen)
    theirs = json.loads((FOLDER / "nsw_cps_balance.json").read_text())[ratio]
    ours = rows_by_name(lalonde(data), treated, treated.astype(float), weight)
    assert set(ours) == set(theirs["balance"])
    for name, expected in theirs["balance"].items():
        row = ours[name]
        assert row.smd_after == pytest.approx(expected["smd_adj"], rel=REFERENCE), name  # type: ignore[attr-defined]
        if expected["vr_adj"] is not None:
            assert row.vr_after == pytest.approx(expected["vr_adj"], rel=REFERENCE), name  # type: ignore[attr-defined]
    assert effective_size(weight) == pytest.approx(theirs["effective_size"], rel=REFERENCE)


def test_balance_before_matching_is_that_of_cobalt() -> None:
    causaldata = pytest.importorskip("causaldata")
    mine = causaldata.nsw_mixtape.load_pandas().data
    other = causaldata.cps_mixtape.load_pandas().data
    names = (*NUMBERS, *BINARY)
    data = {name: np.concatenate([mine.loc[mine.treat == 1, name], other[name]]) for name in names}
    treated = np.arange(len(data["age"])) < 185
    ours = rows_by_name(lalonde(data), treated, treated.astype(float), (~treated).astype(float))
    theirs = json.loads((FOLDER / "nsw_cps_balance.json").read_text())["one"]["balance"]
    for name, expected in theirs.items():
        row = ours[name]
        assert row.smd_before == pytest.approx(expected["smd_un"], rel=REFERENCE), name  # type: ignore[attr-defined]
        if expected["vr_un"] is not None:
            assert row.vr_before == pytest.approx(expected["vr_un"], rel=REFERENCE), name  # type: ignore[attr-defined]


# -- twins -----------------------------------------------------------------------------------------------------------


def test_moments_are_those_of_the_written_out_columns() -> None:
    design = random_design()
    rng = np.random.default_rng(2)
    for weight in (np.ones(150), rng.exponential(size=150), (rng.uniform(size=150) < 0.3).astype(float)):
        dense = wide(design, np.arange(150))
        share = weight / weight.sum()
        mean = share @ dense
        variance = share @ (dense - mean) ** 2 / (1 - share @ share)
        made = moments(design, weight)
        assert np.allclose(made.mean, mean, rtol=1e2 * EXACT)
        shares = np.array([bool(level) for _, level in columns(design)])
        assert np.allclose(made.variance[~shares], variance[~shares], rtol=1e2 * EXACT)
        assert np.allclose(made.variance[shares], (mean * (1 - mean))[shares], rtol=1e2 * EXACT)


def test_unweighted_moments_are_the_sample_ones() -> None:
    design = random_design()
    dense = wide(design, np.arange(150))
    made = moments(design, np.ones(150))
    assert np.allclose(made.variance[:3], dense[:, :3].var(axis=0, ddof=1), rtol=1e2 * EXACT)


def test_columns_written_out_by_hand() -> None:
    units = np.array([[7.0], [8.0]])
    design = design_of(units, ("x",), (factor("sex", ["m", "v"]),), np.array([0, 1, 1]), np.array([[30.0], [40], [41]]))
    assert columns(design) == [("x", ""), ("age", ""), ("sex", "m"), ("sex", "v")]
    assert wide(design, np.array([2, 0])).tolist() == [[8, 41, 0, 1], [7, 30, 1, 0]]


def test_paired_p_values_are_those_of_a_loop() -> None:
    """Cameron, Gelbach and Miller: by starter plus by comparison person minus by pair."""
    rng = np.random.default_rng(3)
    starters, ratio, people = 30, 2, 12
    values = rng.normal(size=(starters + 20, 3)) + 0.3
    treated = np.repeat(np.arange(starters), ratio)
    control = starters + rng.integers(0, 20, starters * ratio)
    weight = np.full(len(treated), 1 / ratio)
    person = np.concatenate([np.arange(100, 100 + starters), rng.integers(0, people, 20)])
    ours = paired_p_values(values, treated, control, weight, person)
    for j in range(3):
        gaps = [values[t, j] - values[c, j] for t, c in zip(treated, control, strict=True)]
        mean = sum(w * g for w, g in zip(weight, gaps, strict=True)) / starters
        part = [w * (g - mean) / starters for w, g in zip(weight, gaps, strict=True)]
        both = starter = 0.0
        for a in range(len(part)):
            for b in range(len(part)):
                same_starter = treated[a] == treated[b]
                same_person = person[control[a]] == person[control[b]]
                starter += part[a] * part[b] * same_starter
                both += part[a] * part[b] * (int(same_starter) + int(same_person) - int(a == b))
        z = abs(mean) / np.sqrt(max(both, starter))
        assert ours[j] == pytest.approx(2 * stats.norm.sf(z), rel=SOLVED)


def test_paired_p_value_of_independent_pairs_is_nearly_that_of_a_t_test() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(2_000, 1))
    values[:1_000] += 0.1
    ours = paired_p_values(values, np.arange(1_000), np.arange(1_000, 2_000), np.ones(1_000), np.arange(2_000))
    theirs = stats.ttest_rel(values[:1_000, 0], values[1_000:, 0]).pvalue
    assert ours[0] == pytest.approx(theirs, rel=0.02)  # n against n - 1, normal against t


def test_equal_values_have_p_value_one() -> None:
    assert paired_p_values(np.ones((4, 1)), np.array([0, 1]), np.array([2, 3]), np.ones(2), np.arange(4))[0] == 1


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_holm_is_that_of_statsmodels(size: int) -> None:
    rng = np.random.default_rng(size)
    for power in (1, 4):
        p_values = rng.uniform(size=size).round(2) ** power  # with ties
        assert np.allclose(holm(p_values), multipletests(p_values, method="holm")[1], rtol=0, atol=EXACT)
