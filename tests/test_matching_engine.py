"""Greedy and optimal matching against loops over everybody, and rows worked by hand."""

import dataclasses

import numpy as np
import pytest
from naive import matching_engine as naive
from tolerances import EXACT, SOLVED

from evalkit.errors import DataError, DesignError
from evalkit.hashing import hash_ids
from evalkit.matching.distance import place, pooled_covariance
from evalkit.matching.greedy import extremal_numbers
from evalkit.matching.match import match

RNG = np.random.default_rng


def small_problem(seed):
    """Few units with many equal values, and a random set of rules."""
    rng = RNG(seed)
    n = int(rng.integers(8, 26))
    treated = rng.permutation(np.arange(n) < max(2, int(n * rng.uniform(0.15, 0.6))))
    grid = int(rng.choice([2, 3, 6, 12]))
    options = {
        "score": rng.integers(0, grid, n) / grid,
        "covariates": rng.integers(0, 4, (n, 2)).astype(float) + np.outer(np.arange(n) == 0, [0.5, 0.25]),
        "key": hash_ids(seed, map(str, range(n))),
    }
    if rng.random() < 0.5:
        options["exact"] = rng.integers(0, 2, n)
    if rng.random() < 0.4:
        options["anti_exact"] = rng.integers(0, 3, (n, int(rng.integers(1, 3))))
    if rng.random() < 0.4:
        options["person"] = rng.integers(0, n // 2 + 1, n)
    if rng.random() < 0.5:
        options |= {"caliper": rng.integers(1, 4) / grid, "caliper_unit": "raw"}
    if rng.random() < 0.4:
        columns = rng.integers(0, 5, (n, 2)).astype(float)
        options |= {"caliper_columns": columns, "caliper_widths": (2.0, -1.0 if rng.random() < 0.5 else 3.0)}
        options["caliper_widths_unit"] = "raw"
    return rng, treated, options


def plain(treated, target, options, coords, spread):
    """The problem as plain lists, for the slow twin."""
    n = len(treated)
    focal = treated if target != "atc" else ~treated
    columns = options.get("caliper_columns", np.zeros((n, 0)))
    return {
        "focal": focal.tolist(),
        "pool": (~focal).tolist(),
        "stratum": np.asarray(options.get("exact", np.zeros(n))).tolist(),
        "person": np.asarray(options.get("person", np.arange(n))).tolist(),
        "anti": np.asarray(options.get("anti_exact", np.zeros((n, 0)))).reshape(n, -1).tolist(),
        "columns": columns.tolist(),
        "widths": list(options.get("caliper_widths", ())),
        "slack": (1e-9 * columns.std(axis=0)).tolist(),
        "score": options["score"].tolist() if "score" in options else [0.0] * n,
        "reach": options.get("caliper", np.inf),
        "limit": np.inf,
        "coords": coords.tolist(),
        "key": options["key"].tolist(),
        "spread": spread,
    }


def by_focal(pairs):
    found = {}
    for i, j in zip(pairs.treated.tolist(), pairs.control.tolist(), strict=True):
        found.setdefault(i, []).append(j)
    return found


def or_nobody(treated, **options):
    """The matches, or none at all where that is a fault."""
    try:
        return by_focal(match(treated, how="nearest", **options).pairs)
    except DesignError as error:
        assert error.faults[0].code == "design.nobody_matched"
        return {}


@pytest.mark.parametrize("distance", ["score", "mahalanobis", "matrix"])
@pytest.mark.parametrize("order", ["largest", "smallest", "closest", "data", "random"])
@pytest.mark.parametrize("tie", ["hash", "walk"])
def test_greedy_is_what_loops_find(distance, order, tie):
    matched = 0
    for seed in range(60):
        rng, treated, options = small_problem(seed)
        target = "atc" if rng.random() < 0.3 else "att"
        replace = bool(rng.random() < 0.4)
        ratio = int(rng.integers(1, 4))
        matrix, given = None, distance
        if distance == "matrix":
            given = rng.integers(0, 6, (treated.sum(), (~treated).sum())).astype(float)
            given[rng.random(given.shape) < 0.1] = np.inf
            one, other = np.flatnonzero(treated), np.flatnonzero(~treated)
            matrix = {i: {} for i in range(len(treated))}
            for a, i in enumerate(one):
                for b, j in enumerate(other):
                    matrix[i][j] = matrix[j][i] = given[a, b]
        if distance == "score":
            coords, spread = options["score"][:, None], options["score"].std(ddof=1)
        else:
            coords = place("mahalanobis", treated, None, options["covariates"], ()).coords
            spread = 1.0 if distance == "mahalanobis" else given[np.isfinite(given)].std()
        if matrix is not None:
            coords = np.zeros((len(treated), 1))
        u = plain(treated, target, options, coords, spread)
        numbers = {i: ratio for i in range(len(treated)) if u["focal"][i]}
        expected = naive.greedy(u, numbers=numbers, replace=replace, order=order, tie=tie, matrix=matrix)
        found = or_nobody(
            treated, target=target, distance=given, ratio=ratio, replace=replace, order=order, tie=tie, **options
        )
        assert found == {i: m for i, m in expected.items() if m}, seed
        matched += len(found)
    assert matched > 100


@pytest.mark.parametrize("tie", ["hash", "walk"])
@pytest.mark.parametrize("order", ["largest", "closest"])
def test_deep_trees_find_what_loops_find(tie, order):
    """Enough rows for a tree of several levels, with and without a caliper on the score and strata."""
    for seed in range(4):
        rng = RNG(seed)
        n = 120
        treated = rng.random(n) < 0.25
        x = np.round(rng.normal(size=(n, 3)), seed % 3)
        options = {"score": np.round(x[:, 0] + rng.normal(size=n), 1), "key": hash_ids(seed, map(str, range(n)))}
        if seed % 2:
            options |= {"caliper": 0.4, "caliper_unit": "raw", "exact": rng.integers(0, 2, n)}
        coords = place("robust_mahalanobis", treated, None, x, ()).coords
        u = plain(treated, "att", options, coords, 1.0)
        numbers = {i: 2 for i in np.flatnonzero(treated).tolist()}
        for replace in (False, True):
            expected = naive.greedy(u, numbers=numbers, replace=replace, order=order, tie=tie)
            found = or_nobody(
                treated, covariates=x, distance="robust_mahalanobis", ratio=2, replace=replace, order=order, tie=tie,
                **options,
            )  # fmt: skip
            assert found == {i: m for i, m in expected.items() if m}, (seed, replace)


@pytest.mark.parametrize("tie", ["hash", "walk"])
def test_variable_ratio_is_what_loops_find(tie):
    for seed in range(40):
        rng = RNG(seed)
        n = 40
        treated = rng.permutation(np.arange(n) < 8)
        score = rng.integers(0, 9, n) / 9
        key = hash_ids(seed, map(str, range(n)))
        u = plain(treated, "att", {"score": score, "key": key}, score[:, None], score.std(ddof=1))
        rows = np.flatnonzero(treated)
        numbers = extremal_numbers(score[rows], score[~treated].mean(), 2.5, 1, 4, None if tie == "walk" else key[rows])
        assert numbers.sum() == 20
        expected = naive.greedy(
            u, numbers=dict(zip(rows.tolist(), numbers.tolist(), strict=True)), replace=False, order="largest", tie=tie
        )
        made = match(treated, how="nearest", score=score, key=key, ratio=2.5, min_ratio=1, max_ratio=4, tie=tie)
        assert by_focal(made.pairs) == expected


def test_extremal_numbers_by_hand():
    score = np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    # total 10 = 4 + 3 + 1 + 1 + 1: the lowest score, nearest to the others, gets most
    assert extremal_numbers(score, 0.2, 2, 1, 4).tolist() == [1, 4, 1, 3, 1]
    assert extremal_numbers(score, 0.8, 2, 1, 4).tolist() == [4, 1, 1, 1, 3]
    assert extremal_numbers(score, 0.2, 2, 1, 3).tolist() == [1, 3, 2, 3, 1]


def test_all_as_near_is_what_loops_find():
    for seed in range(80):
        rng, treated, options = small_problem(seed)
        options.pop("caliper", None)
        ratio = int(rng.integers(1, 4))
        coords = place("scaled", treated, None, options["covariates"], ()).coords
        u = plain(treated, "att", options, coords, 1.0)
        expected = naive.everyone_as_near(u, ratio=ratio, tolerance=0.3)
        found = or_nobody(
            treated, distance="scaled", ratio=ratio, replace=True, tie="all", tie_tolerance=0.3, **options
        )
        assert {i: sorted(m) for i, m in found.items()} == {i: m for i, m in expected.items() if m}


def test_order_of_rows_is_of_no_consequence():
    rng = RNG(5)
    n = 300
    treated = rng.random(n) < 0.3
    score = rng.integers(0, 20, n) / 20
    x = rng.integers(0, 4, (n, 3)).astype(float)
    key = hash_ids(1, map(str, range(n)))
    shuffle = rng.permutation(n)
    back = np.argsort(shuffle)
    for options in (
        {"how": "nearest", "score": score},
        {"how": "nearest", "score": score, "ratio": 2},
        {"how": "nearest", "score": score, "order": "closest"},
        {"how": "nearest", "score": score, "ratio": 1.5, "max_ratio": 3},
        {"how": "nearest", "covariates": x},
        {"how": "nearest", "covariates": x, "distance": "robust_mahalanobis", "replace": True, "target": "ate"},
        {"how": "optimal", "score": score},
        {"how": "full", "covariates": x},
        {"how": "subclass", "score": score, "min_per_arm": 10},
    ):
        one = match(treated, key=key, **options)
        moved = {k: v[shuffle] if isinstance(v, np.ndarray) else v for k, v in options.items()}
        other = match(treated[shuffle], key=key[shuffle], **moved)
        assert np.allclose(one.weight, other.weight[back], rtol=0, atol=EXACT), options
        if one.pairs is not None and other.pairs is not None:
            mine = set(zip(one.pairs.treated, one.pairs.control, strict=True))
            theirs = set(zip(shuffle[other.pairs.treated], shuffle[other.pairs.control], strict=True))
            assert mine == theirs, options


def test_pairs_by_hand():
    treated = np.array([1, 1, 0, 0, 0, 0], bool)
    score = np.array([0.5, 0.4, 0.45, 0.52, 0.1, 0.38])
    made = match(treated, how="nearest", score=score)
    assert by_focal(made.pairs) == {0: [3], 1: [5]}
    assert made.subclass.tolist() == [0, 1, -1, 0, -1, 1]
    assert made.weight.tolist() == [1, 1, 0, 1, 0, 1]
    two = match(treated, how="nearest", score=score, ratio=2)
    assert by_focal(two.pairs) == {0: [3, 2], 1: [5, 4]}
    assert two.weight.tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5]
    close = match(treated, how="nearest", score=score, ratio=2, caliper=0.05, caliper_unit="raw")
    assert by_focal(close.pairs) == {0: [3, 2], 1: [5]}
    both = match(treated, how="nearest", score=score, replace=True, target="ate")
    found = by_focal(both.pairs)
    assert found.pop(2) in ([0], [1])  # as near to either
    assert found == {0: [3], 1: [5], 3: [0], 4: [1], 5: [1]}
    assert both.population.tolist() == [1] * 6
    assert both.weight.sum() == 12
    others = match(treated, how="nearest", score=score, target="atc", order="smallest")
    assert by_focal(others.pairs) == {4: [1], 5: [0]}
    assert others.outside.tolist() == [2, 3]
    assert others.population.tolist() == [0, 0, 0, 0, 1, 1]


def test_calipers_by_hand():
    treated = np.array([1, 0, 0], bool)
    score = np.array([0.3, 0.1, 0.6])
    inclusive = match(treated, how="nearest", score=score, caliper=0.2, caliper_unit="raw")
    assert by_focal(inclusive.pairs) == {0: [1]}  # 0.3 - 0.1 is 0.19999... and 0.2 both ways
    sd = float(np.std(score, ddof=1))
    assert match(treated, how="nearest", score=score, caliper=2.0).width == pytest.approx(2 * sd, rel=EXACT)
    far = match(
        treated, how="nearest", score=score, caliper_columns=np.array([0.0, 1.0, 4.0]), caliper_widths=(-1.0,),
        caliper_widths_unit="raw",
    )  # fmt: skip
    assert by_focal(far.pairs) == {0: [2]}
    within = match(np.array([1, 0, 1, 0], bool), how="nearest", score=np.array([0.0, 0.1, 5.0, 5.1]),
                   exact=[0, 0, 1, 1], caliper=2.0, caliper_unit="sd_within")  # fmt: skip
    assert within.width == pytest.approx(2 * np.sqrt(0.01 / 2), rel=SOLVED)


def test_support_by_hand():
    treated = np.array([1, 1, 1, 0, 0, 0], bool)
    score = np.array([0.2, 0.5, 0.9, 0.1, 0.4, 0.6])
    options = {"how": "nearest", "score": score, "replace": True}
    assert match(treated, **options, discard="both").discarded.tolist() == [2, 3]
    assert match(treated, **options, discard="treated").discarded.tolist() == [2]
    assert match(treated, **options, discard="control").discarded.tolist() == [3]
    assert match(treated, **options, discard="both", target="ate").population.tolist() == [1, 1, 0, 0, 1, 1]


def test_nobody_is_his_own_match():
    treated = np.array([1, 0, 0], bool)
    made = match(treated, how="nearest", score=np.zeros(3), person=np.array([7, 7, 8]))
    assert by_focal(made.pairs) == {0: [2]}


def test_processing_order_settles_equal_scores_by_key():
    made = match(np.array([1, 1, 0], bool), how="nearest", score=np.zeros(3), key=np.array([9, 2, 5], np.uint64))
    assert by_focal(made.pairs) == {1: [2]}
    made = match(
        np.array([1, 1, 0], bool), how="nearest", score=np.zeros(3), key=np.array([9, 2, 5], np.uint64), tie="walk"
    )
    assert by_focal(made.pairs) == {0: [2]}


def test_distances_are_those_of_the_formulas():
    rng = RNG(3)
    x = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
    x[:, 2] = np.round(x[:, 2])
    treated = rng.random(50) < 0.4
    inside = [np.cov(x[arm].T) * (arm.sum() - 1) for arm in (treated, ~treated)]
    assert np.allclose(pooled_covariance(x, treated), sum(inside) / 48, rtol=SOLVED)
    ranks = np.column_stack([np.argsort(np.argsort(x[:, 0])) + 1.0, np.argsort(np.argsort(x[:, 1])) + 1.0,
                             [(np.sum(x[:, 2] < v) + np.sum(x[:, 2] <= v) + 1) / 2 for v in x[:, 2]]])  # fmt: skip
    cov = np.cov(ranks.T)
    untied = np.sqrt(np.var(np.arange(1, 51), ddof=1) / np.diag(cov))
    shapes = {
        "mahalanobis": (x, sum(inside) / 48),
        "mahalanobis_overall": (x, np.cov(x.T)),
        "robust_mahalanobis": (ranks, np.diag(untied) @ cov @ np.diag(untied)),
        "scaled": (x, np.diag(np.var(x, axis=0, ddof=1))),
        "euclidean": (x, np.eye(3)),
    }
    for kind, (values, s) in shapes.items():
        coords = place(kind, treated, None, x, ()).coords
        gap = values[7] - values[31]
        assert ((coords[7] - coords[31]) ** 2).sum() == pytest.approx(gap @ np.linalg.inv(s) @ gap, rel=SOLVED), kind


def tiny(seed):
    rng = RNG(seed)
    n1, n0 = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    d = np.round(rng.exponential(1, (n1, n0)), 1 if seed % 2 else 6)
    d[rng.random(d.shape) < 0.15] = np.inf
    return np.arange(n1 + n0) < n1, d


@pytest.mark.parametrize("ratio", [1, 2])
def test_optimal_is_the_best_of_all(ratio):
    for seed in range(60):
        treated, d = tiny(seed)
        most, rows, total = naive.least_total(d.tolist(), ratio)
        if not most:
            continue
        pairs = match(treated, how="optimal", distance=d, ratio=ratio).pairs
        made = d[pairs.treated, pairs.control - len(d)]
        assert (len(made), len(pairs.matched)) == (-most, -rows)
        assert made.sum() == pytest.approx(total, abs=SOLVED)
        assert len(set(pairs.control)) == len(pairs.control)


def test_optimal_on_the_line_is_the_assignment():
    """The arcs left out on a line are never missed: against the whole matrix, with and without caliper and strata."""
    for seed in range(200):
        rng = RNG(seed)
        n = int(rng.integers(6, 60))
        treated = rng.permutation(np.arange(n) < rng.integers(1, n - 1))
        score = np.round(rng.normal(treated * 1.0, 1.0), 1 if seed % 2 else 8)
        whole = np.abs(score[treated][:, None] - score[~treated][None, :])
        ratio = 1 + seed % 3
        options = {"caliper": 0.5, "caliper_unit": "raw"} if seed % 4 < 2 else {}
        options |= {"exact": rng.integers(0, 2, n)} if seed % 5 == 0 else {}
        try:
            one = match(treated, how="optimal", score=score, ratio=ratio, **options).pairs
        except DesignError:
            with pytest.raises(DesignError):
                match(treated, how="optimal", score=score, distance=whole, ratio=ratio, **options)
            continue
        other = match(treated, how="optimal", score=score, distance=whole, ratio=ratio, **options).pairs
        assert len(one.treated) == len(other.treated)
        assert len(one.matched) == len(other.matched)
        total = [np.abs(score[p.treated] - score[p.control]).sum() for p in (one, other)]
        assert total[0] == pytest.approx(total[1], abs=SOLVED)


def test_optimal_is_no_worse_than_greedy():
    rng = RNG(8)
    treated = rng.random(400) < 0.3
    score = rng.normal(treated * 1.0, 1.0)
    total = {}
    for how in ("nearest", "optimal"):
        pairs = match(treated, how=how, score=score).pairs
        total[how] = np.abs(score[pairs.treated] - score[pairs.control]).sum()
    assert total["optimal"] < total["nearest"]


@pytest.mark.parametrize("bounds", [(None, None), (None, 2.0), (0.5, None), (0.5, 2.0), (1.0, 3.0)])
def test_full_is_the_best_of_all(bounds):
    solved = 0
    for seed in range(50):
        treated, d = tiny(seed)
        best = naive.least_full(d.tolist(), *bounds)
        keep = np.isfinite(d).any()
        if not keep:
            continue
        if best == np.inf:
            with pytest.raises(DesignError):
                match(treated, how="full", distance=d, min_ratio=bounds[0], max_ratio=bounds[1])
            continue
        made = match(treated, how="full", distance=d, min_ratio=bounds[0], max_ratio=bounds[1], target="ate")
        half = made.pairs.treated < len(d)
        total = d[made.pairs.treated[half], made.pairs.control[half] - len(d)].sum()
        assert total == pytest.approx(best, abs=SOLVED), seed
        check_stars(made)
        solved += 1
    assert solved >= 10


def check_stars(made):
    """Every set has one of one arm; weights are those of the sets."""
    for code in range(made.subclass.max() + 1):
        rows = made.subclass == code
        n1, n0 = int((rows & made.treated).sum()), int((rows & ~made.treated).sum())
        assert min(n1, n0) == 1
        if made.target == "ate":
            assert made.weight[rows & made.treated] == pytest.approx((n1 + n0) / n1)
            assert made.weight[rows & ~made.treated] == pytest.approx((n1 + n0) / n0)


def test_full_on_the_line_is_full_on_the_matrix():
    for seed in range(40):
        rng = RNG(seed)
        n = int(rng.integers(6, 80))
        treated = rng.permutation(np.arange(n) < rng.integers(1, n - 1))
        score = np.round(rng.normal(treated * 1.0, 1.0), 1 if seed % 2 else 8)
        whole = np.abs(score[treated][:, None] - score[~treated][None, :])
        caliper = {"caliper": 0.4, "caliper_unit": "raw"} if seed % 3 == 0 else {}
        total = []
        for distance in ("score", whole):
            made = match(treated, how="full", score=score, distance=distance, **caliper)
            check_stars(made)
            pairs = made.pairs
            total.append(np.abs(score[pairs.treated] - score[pairs.control]).sum())
            assert made.weight[treated].sum() == pytest.approx(made.weight[~treated].sum())
        assert total[0] == pytest.approx(total[1], abs=SOLVED)


def test_what_is_refused():
    treated = np.arange(12) < 4
    score = np.linspace(0, 1, 12)
    x = np.column_stack([score, np.arange(12.0) % 3])

    def code(**options):
        with pytest.raises((DesignError, DataError)) as error:
            match(**{"treated": treated, "how": "nearest", "score": score} | options)
        for lang in ("en", "nl"):
            assert "{" not in error.value.text(lang)
        return error.value.faults[0].code

    assert code(treated=np.zeros(12, bool)) == "design.no_treated"
    assert code(treated=np.ones(12, bool)) == "design.no_controls"
    for option in ("how", "target", "order", "tie", "caliper_unit", "caliper_widths_unit", "discard", "distance"):
        assert code(**{option: "best"}) == "design.match_unknown"
    assert code(score=None) == "design.match_needs_covariates"
    assert code(score=None, distance="score") == "design.match_needs_score"
    assert code(score=np.where(np.arange(12) == 3, np.nan, score)) == "data.match_not_finite"
    assert code(covariates=np.where(x == 2, np.inf, x), names=("a", "b")) == "data.match_not_finite"
    assert code(score=score[:5]) == "design.match_length"
    assert code(caliper=1e-6, caliper_unit="raw") == "design.nobody_matched"
    assert code(caliper=-1) == "design.match_caliper"
    assert code(score=None, covariates=x, caliper=0.2) == "design.match_caliper_unit"
    assert code(target="ate") == "design.match_option"
    assert code(tie="all") == "design.match_option"
    assert code(how="optimal", replace=True) == "design.match_option"
    assert code(ratio=1.5) == "design.match_ratio"
    assert code(ratio=0) == "design.match_ratio"
    assert code(ratio=1.5, min_ratio=2, max_ratio=3) == "design.match_ratio_bounds"
    assert code(distance=np.zeros((3, 3))) == "design.match_matrix_shape"
    assert code(distance=-np.ones((4, 8))) == "data.match_negative"
    assert code(covariates=np.ones((12, 1)), distance="mahalanobis", names=("a",)) == "design.match_constant"
    assert code(covariates=np.column_stack([x, x @ [1, 2]]), distance="mahalanobis") == "design.match_collinear"
    assert code(covariates=treated.astype(float)[:, None], distance="mahalanobis") == "design.match_constant"
    assert code(discard="both") == "design.match_no_overlap"
    assert code(how="exact") == "design.match_needs_exact"
    assert code(how="exact", exact=np.arange(12)) == "design.match_no_stratum"
    assert code(how="cem") == "design.match_needs_covariates"
    assert code(how="cem", covariates=x, cutpoints="best") == "design.match_cutpoints"
    assert code(how="subclass", score=None) == "design.match_needs_score"
    assert code(how="subclass", subclasses=9) == "design.match_few_in_classes"
    assert code(how="subclass", subclasses=(0.5, 1.5)) == "design.match_classes"
    assert code(how="full", min_ratio=3, max_ratio=2) == "design.match_full_bounds"
    assert code(caliper_columns=x, caliper_widths=(1.0,)) == "design.match_length"


def test_constant_within_strata_only_is_fine():
    rng = RNG(1)
    treated = rng.random(60) < 0.4
    x = np.column_stack([rng.normal(size=60), np.arange(60) % 2])
    made = match(treated, how="nearest", covariates=x, exact=x[:, 1])
    assert np.array_equal(x[made.pairs.treated, 1], x[made.pairs.control, 1])


def test_values_are_frozen():
    made = match(np.array([1, 0], bool), how="nearest", score=np.zeros(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.target = "atc"
