"""Honest intervals against HonestDiD for R, with the reason for every difference shown.

That program inverts its test on a grid of 1,000 points, takes the first step's critical value from 1,000 draws, and the
folded normal quantile from a million draws, all from R's generator with seed 0. Given the same draws our test must
accept the same points of the same grid; without them the ends may differ by the grid and by the error of those draws.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from naive import did_honest as naive
from scipy import optimize
from tolerances import REFERENCE

from evalkit.did.honest import fixed_length, honest_arrays, hybrid, moments
from evalkit.did.honest.study import of_arrays

SAID = json.loads((Path(__file__).parent / "reference" / "did_honest.json").read_text())["honest"]
BETA, SIGMA = np.array(SAID["beta"]), np.array(SAID["sigma"])
PRE, POST = SAID["pre"], SAID["post"]
FIRST = np.array([1.0, 0.0, 0.0, 0.0])
ERROR = float(np.sqrt(SIGMA[PRE, PRE]))
KAPPA = 0.005
HYBRID = [(r, row) for r in ("relative_magnitudes", "smoothness") for row in SAID[r]]
NAMES = [f"{r} {row['m']}" for r, row in HYBRID]


@pytest.fixture(scope="module")
def study():
    return of_arrays(BETA, SIGMA, PRE, POST)


def grid(restriction, m):
    reach = 20 * ERROR + (m if restriction == "smoothness" else 0.0)
    return np.linspace(-reach, reach, 1000)


def parts(study, restriction, m):
    """Moments of each set of the union, and their inequalities in that program's order: upper sides, then lower."""
    if restriction == "smoothness":
        cases, found = [(0, 1)], (moments.smoothness(study, FIRST, m),)
    else:
        cases, found = [(i, s) for i in range(PRE) for s in (1, -1)], moments.relative_magnitudes(study, FIRST, m)
    rows = [naive.inequalities(PRE, POST, restriction, m, *case)[0] for case in cases]
    return [(part, np.concatenate([a[::2], a[1::2]])) for part, a in zip(found, rows, strict=True)]


def drawn_critical(rows):
    """The critical value from that program's own thousand draws."""
    cov = rows @ SIGMA @ rows.T
    roots, vectors = np.linalg.eigh(cov)
    half = (vectors * np.sqrt(np.clip(roots, 0.0, None))) @ vectors.T
    noise = naive.r_normals(0, 1000 * len(rows)).reshape(1000, -1) @ half
    g = naive.vertices(rows, SIGMA, PRE, FIRST)
    return np.quantile((noise @ g.T).max(axis=1), 1 - KAPPA)


def test_the_generator_is_r_s():
    assert naive.r_normals(0, 3) == pytest.approx([1.262954285, -0.326233361, 1.329799263], abs=5e-10)


def test_without_a_restriction_it_is_the_usual_interval():
    assert honest_arrays(BETA, SIGMA, PRE, POST, m=[0.0])[0].low == pytest.approx(SAID["original"][0], rel=REFERENCE)
    assert honest_arrays(BETA, SIGMA, PRE, POST, m=[0.0])[0].high == pytest.approx(SAID["original"][1], rel=REFERENCE)


@pytest.mark.parametrize(("restriction", "row"), HYBRID, ids=NAMES)
def test_with_its_draws_we_accept_exactly_its_points(study, restriction, row):
    points = grid(restriction, row["m"])
    inside = np.zeros(len(points), bool)
    for part, rows in parts(study, restriction, row["m"]):
        inside |= hybrid.accepts(part, points, 0.05, drawn_critical(rows))
    ends = points[np.flatnonzero(inside)[[0, -1]]]
    assert ends == pytest.approx([row["low"], row["high"]], abs=1e-12)


@pytest.mark.parametrize(("restriction", "row"), HYBRID, ids=NAMES)
def test_the_exact_ends_differ_by_no_more_than_grid_and_draws(study, restriction, row):
    """Its critical values lie within the error of a thousand draws around the exact ones; with them and no grid, each
    end lies less than a grid step outside its end."""
    ours = honest_arrays(BETA, SIGMA, PRE, POST, restriction=restriction, m=[row["m"]], method="hybrid")[0]
    step = np.diff(grid(restriction, row["m"]))[0]
    points = np.linspace(row["low"] - 4 * step, row["high"] + 4 * step, 16001)
    with_draws, exactly = np.zeros(len(points), bool), np.zeros(len(points), bool)
    for part, rows in parts(study, restriction, row["m"]):
        drawn, exact = drawn_critical(rows), hybrid.least_favourable(part.loading, KAPPA)
        # five of a thousand lie above: less than one time in a hundred beyond either of these
        assert hybrid.least_favourable(part.loading, 0.0135) < drawn < hybrid.least_favourable(part.loading, 0.0012)
        with_draws |= hybrid.accepts(part, points, 0.05, drawn)
        exactly |= hybrid.accepts(part, points, 0.05, exact)
    fine = np.diff(points)[0]
    without_grid = points[np.flatnonzero(with_draws)[[0, -1]]]
    assert row["low"] - step - fine <= without_grid[0] <= row["low"] + fine
    assert row["high"] - fine <= without_grid[1] <= row["high"] + step + fine
    inside = points[np.flatnonzero(exactly)[[0, -1]]]
    assert inside[0] - fine <= ours.low <= inside[0] and inside[1] <= ours.high <= inside[1] + fine
    assert ours.pieces == ((ours.low, ours.high),)
    assert abs(ours.low - row["low"]) < 1.25 * step and abs(ours.high - row["high"]) < 1.25 * step


@pytest.fixture(scope="module")
def folded():
    draws = naive.r_normals(0, 1_000_000)
    return lambda t: np.quantile(np.abs(draws + t), 0.95)


@pytest.mark.parametrize("row", SAID["fixed_length"], ids=lambda row: str(row["m"]))
def test_its_fixed_length_is_on_our_frontier_but_not_its_best_point(study, folded, row):
    """With its draws, the path of least variance at each bias gives its length at its centre; our optimum is shorter.

    It searches the frontier on a grid of standard errors, so its centre lies elsewhere on a flat minimum. At m = 0 the
    frontier is one point and only the accuracy of its solver is left.
    """
    centre, half = (row["low"] + row["high"]) / 2, (row["high"] - row["low"]) / 2
    ours = fixed_length.optimal(study, FIRST, row["m"], 0.05)
    with_its_draws = ours.std_error * folded(ours.bias / ours.std_error)
    assert with_its_draws < half * (1 + 1e-9)
    assert with_its_draws == pytest.approx(half, rel=3e-4)
    assert ours.half == pytest.approx(with_its_draws, rel=1.5e-3)  # the error of a million draws
    if row["m"] == 0:
        assert with_its_draws == pytest.approx(half, rel=1e-7)
        assert ours.estimate == pytest.approx(centre, abs=5e-4 * ours.std_error)
        return
    on_frontier = [on for on in frontier(study, row["m"], centre) if on[0] <= half * 1.01]
    length = min(abs(error * folded(bias / error) / half - 1) for error, bias in on_frontier)
    assert length < REFERENCE


def frontier(study, m, centre):
    """Standard error and bias of every estimator on the path whose estimate is ``centre``."""
    rows = moments.curvature(PRE, POST)
    fixed = moments.second_weights(FIRST)
    start, free = fixed @ rows[PRE - 1 :], rows[: PRE - 1]
    path = fixed_length._Path(free @ SIGMA @ free.T, free @ SIGMA @ start)

    def away(penalty):
        return (start + path.at(penalty) @ free) @ BETA - centre

    at = np.linspace(0.0, path.top, 2001)
    values = np.array([away(p) for p in at])
    for i in np.flatnonzero(values[1:] * values[:-1] <= 0):
        k = path.at(optimize.brentq(away, at[i], at[i + 1], xtol=1e-16))
        v = start + k @ free
        yield np.sqrt(v @ SIGMA @ v), m * (np.abs(fixed).sum() + np.abs(k).sum())
