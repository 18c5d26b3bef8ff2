"""Derived measures: paths worked by hand, and the sets against the measures of many paths inside the band."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import make
from scipy import stats
from tolerances import EXACT

from evalkit.effects import Band, Covariance, Intervals
from evalkit.measures import Measure, _path_measures, run_length, summarise

Z = stats.norm.ppf(0.975)
BROAD = ("lock_in_depth", "lock_in_months", "lock_in_volume", "crossing_month", "break_even_month")


def measures(estimate: list[float], se: float = 1e-6, **more: object) -> dict[str, Measure]:
    return {m.measure: m for m in summarise(make(estimate, se=se, **more), seed=1).measures}  # type: ignore[arg-type]


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_lock_in_that_ends_and_is_paid_back() -> None:
    """f = -2 -3 -1 0 2 3 3 points: depth 3, three months, six points lost; C = -2 -5 -6 -6 -4 -1 2."""
    found = measures([-0.02, -0.03, -0.01, 0.0, 0.02, 0.03, 0.03])
    assert {name: (m.estimate, m.status) for name, m in found.items() if name in BROAD} == {
        "lock_in_depth": (pytest.approx(-0.03), "reached"),
        "lock_in_months": (3, "reached"),
        "lock_in_volume": (pytest.approx(-0.06), "reached"),
        "crossing_month": (4, "reached"),
        "break_even_month": (7, "reached"),
    }
    assert all(found[name].std_error is None for name in BROAD)
    assert found["long_run"].status == "not_defined"


def test_lock_in_that_ends_but_is_not_paid_back() -> None:
    found = measures([-0.05, -0.03, 0.01, 0.02])
    assert (found["crossing_month"].estimate, found["crossing_month"].status) == (3, "reached")
    even = found["break_even_month"]
    assert (even.estimate, even.status) == (None, "not_reached")
    assert (even.set_low, even.set_high) == (5, None)  # beyond the horizon, certainly


def test_lock_in_that_lasts() -> None:
    found = measures([-0.02, -0.04, -0.01])
    assert (found["lock_in_depth"].estimate, found["lock_in_depth"].status) == (pytest.approx(-0.04), "reached")
    assert (found["lock_in_months"].estimate, found["lock_in_months"].status) == (3, "not_reached")
    assert (found["lock_in_volume"].estimate, found["lock_in_volume"].status) == (pytest.approx(-0.07), "not_reached")
    assert (found["crossing_month"].estimate, found["crossing_month"].status) == (None, "not_reached")
    assert (found["crossing_month"].set_low, found["crossing_month"].set_high) == (4, None)
    assert (found["lock_in_months"].set_low, found["lock_in_months"].set_high) == (3, None)


@pytest.mark.parametrize("first", [0.0, 0.01])
def test_no_lock_in(first: float) -> None:
    """The first month decides, whatever comes later."""
    profile = make([first, -0.05, 0.02], se=0.001)
    summary = summarise(profile, seed=1)
    found = {m.measure: m for m in summary.measures}
    assert summary.lock_in is not None
    assert (summary.lock_in.exists, summary.lock_in.established) == (False, False)
    assert {found[name].status for name in BROAD} == {"no_lock_in"}
    assert found["lock_in_months"].estimate == 0
    assert {found[name].estimate for name in BROAD if name != "lock_in_months"} == {None}


def test_lock_in_is_established_only_when_the_band_excludes_zero_within_it() -> None:
    for se, established in ((0.001, True), (0.05, False)):
        lock_in = summarise(make([-0.01, -0.02, 0.3], se=se), seed=1).lock_in
        assert lock_in is not None
        assert (lock_in.exists, lock_in.established) == (True, established)
    vcov = np.diag([0.05, 0.05, 0.0001]) ** 2
    later = summarise(make([-0.01, 0.01, -0.5], Covariance(vcov)), seed=1).lock_in
    assert later is not None
    assert (later.exists, later.established) == (True, False)  # what the band excludes lies after the run


def test_less_is_better_turns_the_signs() -> None:
    """On benefit: +3 points is a loss of 3; sets turn with it, months do not."""
    path = [-0.02, -0.03, -0.01, 0.02, 0.05, 0.06]
    up = measures(path, se=0.008)
    down = measures([-v for v in path], se=0.008, labels={"better": "lower"})
    for name in ("lock_in_months", "crossing_month", "break_even_month"):
        assert down[name] == up[name]
    for name in ("lock_in_depth", "lock_in_volume"):
        assert down[name].estimate == pytest.approx(-up[name].estimate)  # type: ignore[operator]
        assert down[name].set_low == pytest.approx(-up[name].set_high)  # type: ignore[operator]
        assert down[name].set_high == pytest.approx(-up[name].set_low)  # type: ignore[operator]
    assert up["lock_in_depth"].estimate == pytest.approx(-0.03)


def test_no_minus_zero() -> None:
    found = measures([0.001, -0.05], se=0.01, labels={"better": "lower"})
    for name in ("lock_in_depth", "lock_in_volume"):
        assert found[name].set_low == 0
        assert not np.signbit(found[name].set_low)


def test_linear_measures_have_standard_errors() -> None:
    rng = np.random.default_rng(2)
    root = rng.normal(size=(40, 40)) / 100
    vcov = root @ root.T
    path = rng.normal(size=40) / 10
    profile = make(path, Covariance(vcov))
    found = {m.measure: m for m in summarise(profile, seed=1).measures}
    for months in (12, 24, 36):
        m = found[f"cumulated_{months}"]
        se = np.sqrt(vcov[:months, :months].sum())
        assert m.estimate == pytest.approx(path[:months].sum(), abs=EXACT)
        assert m.std_error == pytest.approx(se, rel=1e3 * EXACT)
        assert m.set_low == pytest.approx(path[:months].sum() - Z * se, abs=1e3 * EXACT)
        assert m.set_high == pytest.approx(path[:months].sum() + Z * se, abs=1e3 * EXACT)
    assert "cumulated_48" not in found
    late = found["long_run"]
    assert late.estimate == pytest.approx(path[24:].mean(), abs=EXACT)
    assert late.std_error == pytest.approx(np.sqrt(vcov[24:, 24:].sum()) / 16, rel=1e3 * EXACT)


def test_linear_measures_use_the_t_quantile() -> None:
    found = {m.measure: m for m in summarise(make(np.zeros(12), Covariance(np.eye(12), df=5)), seed=1).measures}
    assert found["cumulated_12"].set_high == pytest.approx(stats.t.ppf(0.975, 5) * np.sqrt(12), rel=1e3 * EXACT)


@pytest.mark.parametrize(("months", "defined"), [(35, False), (36, True)])
def test_long_run_needs_36_months(months: int, defined: bool) -> None:
    found = measures([0.01] * months)["long_run"]
    assert found.status == ("reached" if defined else "not_defined")
    assert (found.estimate is not None) == defined


@pytest.mark.parametrize(
    "change",
    [
        {"composition": "varying"},
        {"labels": {"period_months": "12"}},
        {"month": [2, 3, 4]},
        {"uncertainty": Intervals(np.zeros(3), np.ones(3), 0.95, "wild")},
        {"estimate": [0.1, np.nan, 0.2]},
    ],
)
def test_a_profile_that_cannot_carry_measures_has_none(change: dict[str, object]) -> None:
    profile = make(**({"estimate": [-0.1, 0.1, 0.2]} | change))  # type: ignore[arg-type]
    summary = summarise(profile, seed=1)
    assert {m.status for m in summary.measures} == {"not_defined"}
    assert {m.measure for m in summary.measures} == {*BROAD, "long_run"}
    assert {v for m in summary.measures for v in (m.estimate, m.std_error, m.set_low, m.set_high)} == {None}
    assert (summary.cumulated, summary.cumulated_band, summary.lock_in) == (None, None, None)


def test_one_month_has_no_path() -> None:
    assert {m.status for m in summarise(make([-0.1]), seed=1).measures} == {"not_defined"}


# -- the sets, against brute force -----------------------------------------------------------------------------------


def twin(f: np.ndarray) -> dict[str, float]:
    """The measures of one path with favourable positive, written out from the contract; months beyond = inf.

    Where no lock-in exists nothing is lost (0), it lasts 0 months and the effect is favourable from month 1.
    """
    length = 0
    while length < len(f) and f[length] < 0:
        length += 1
    return {
        "lock_in_depth": min(f[:length], default=0.0),
        "lock_in_months": length if length < len(f) else np.inf,
        "lock_in_volume": sum(f[:length]),
        "crossing_month": length + 1 if length < len(f) else np.inf,
    }


def twin_even(running: np.ndarray) -> float:
    """The first month with a running sum of at least zero."""
    return next((k + 1.0 for k, total in enumerate(running) if total >= 0), np.inf)


def paths_inside(low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Corners (all of them when there are few), mixtures of both edges, and uniform paths."""
    if len(low) <= 8:
        for corner in itertools.product((False, True), repeat=len(low)):
            yield np.where(corner, high, low)
    for _ in range(100):
        share = rng.uniform(size=len(low)) ** rng.choice([0.2, 1.0, 5.0])
        yield low + share * (high - low)
        yield np.where(rng.uniform(size=len(low)) < rng.uniform(), high, low)
    yield low
    yield high


def bands(estimate: np.ndarray, width: np.ndarray, even_width: np.ndarray) -> tuple[Band, Band]:
    """Bands set by hand around an estimate and its running sum."""
    total = np.cumsum(estimate)
    one, two = (estimate - width, estimate + width), (total - even_width, total + even_width)
    return Band(*one, *one, 2.5, 0.95), Band(*two, *two, 2.5, 0.95)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    estimate=st.lists(st.integers(-5, 5), min_size=2, max_size=8),
    width=st.lists(st.integers(0, 6), min_size=8, max_size=8),
    seed=st.integers(0, 1000),
    sign=st.sampled_from([1.0, -1.0]),
)
def test_sets_hold_every_path_inside_the_band_and_no_more(
    estimate: list[int], width: list[int], seed: int, sign: float
) -> None:
    """Every path's measure lies in its set; both bounds are attained by some path. Whole numbers meet zero exactly."""
    rng = np.random.default_rng(seed)
    f = np.array(estimate, float)
    widths = np.array(width[: len(f)], float)
    profile = make(sign * f, labels={"better": "higher" if sign > 0 else "lower"})
    band, even = bands(sign * f, widths, np.cumsum(widths))
    found = {m.measure: m for m in _path_measures(profile, band, profile.cumulate(), even)[0]}
    seen: dict[str, list[float]] = {name: [] for name in BROAD}
    for path in paths_inside(f - widths, f + widths, rng):
        for name, value in twin(path).items():
            seen[name].append(value)
    total, reach = np.cumsum(f), np.cumsum(widths)
    for path in paths_inside(total - reach, total + reach, rng):
        seen["break_even_month"].append(twin_even(path))
    for name, values in seen.items():
        low, high = float(min(values)), float(max(values))
        m = found[name]
        beyond = {"lock_in_months": len(f), "lock_in_depth": np.inf, "lock_in_volume": np.inf}.get(name, len(f) + 1)
        if name in ("lock_in_depth", "lock_in_volume") and sign < 0:
            low, high = -high, -low
        assert m.set_low == pytest.approx(min(low, beyond), abs=EXACT), name
        assert (np.inf if m.set_high is None else m.set_high) == pytest.approx(high, abs=EXACT), name


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    estimate=st.lists(st.integers(-5, 5), min_size=2, max_size=8),
    width=st.lists(st.integers(0, 6), min_size=8, max_size=8),
)
def test_estimates_are_those_of_the_definitions_and_lie_in_their_sets(estimate: list[int], width: list[int]) -> None:
    f = np.array(estimate, float)
    widths = np.array(width[: len(f)], float)
    profile = make(f)
    band, even = bands(f, widths, np.cumsum(widths))
    rows, lock_in = _path_measures(profile, band, profile.cumulate(), even)
    expected = twin(f) | {"break_even_month": twin_even(np.cumsum(f))}
    assert lock_in.exists == (f[0] < 0)
    for m in rows:
        if not lock_in.exists:
            assert m.status == "no_lock_in"
            continue
        value = expected[m.measure]
        if m.measure in ("crossing_month", "break_even_month", "lock_in_months"):
            assert m.status == ("reached" if np.isfinite(value) else "not_reached")
        if m.estimate is None:
            assert value == np.inf
            continue
        assert m.estimate == pytest.approx(min(value, len(f)) if m.measure == "lock_in_months" else value)
        assert m.set_low is not None
        assert m.set_low - EXACT <= m.estimate <= (np.inf if m.set_high is None else m.set_high) + EXACT


def test_break_even_never_precedes_the_crossing() -> None:
    """Within the run the running sum only falls, so the first month at zero or more comes after it."""
    rng = np.random.default_rng(5)
    for _ in range(500):
        f = rng.normal(size=10).round(1)
        if f[0] < 0:
            assert twin_even(np.cumsum(f)) > run_length(f)


@pytest.mark.parametrize(
    ("path", "length"), [([-1, -1], 2), ([0, -1], 0), ([-1, 0, -1], 1), ([-1, np.nan, -1], 1), ([], 0)]
)
def test_run_length(path: list[float], length: int) -> None:
    assert run_length(np.array(path, float)) == length
