"""What cannot be weighted is said, with a name; nothing ends silently."""

from __future__ import annotations

import builtins
import importlib

import numpy as np
import pytest
from test_weighting_methods import WAYS, drawn

from evalkit.errors import DesignError
from evalkit.hashing import hash_ids
from evalkit.matching.weighting import fit_dense_logit, weigh

NAMES = ("age", "income", "distance", "origin", "months")
EXACT_WAYS = [way for way in WAYS if way["how"] in ("entropy", "stable") and not way.get("tolerance")]


def fault(*args, **kwargs):
    """Code and parameters of the fault."""
    with pytest.raises(DesignError) as raised:
        weigh(*args, **kwargs)
    (only,) = raised.value.faults
    assert only.text("nl") != only.text("en")
    return only.code, dict(only.params)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_data_that_no_method_can_use(way) -> None:
    treated, x, base, _ = drawn()
    given = {"names": NAMES, **way}
    assert fault(np.zeros(300, bool), x, **given) == ("design.no_treated", {})
    assert fault(np.ones(300, bool), x, **given) == ("design.no_controls", {})
    assert fault(treated, x, base=np.where(treated, 0.0, base), **given) == ("design.no_treated", {})
    for value in (np.nan, np.inf):
        spoilt = x.copy()
        spoilt[7, 2] = value
        assert fault(treated, spoilt, **given) == ("design.weights_not_finite", {"column": "distance"})
        weight = base.copy()
        weight[3] = value
        assert fault(treated, x, base=weight, **given) == ("design.weights_base", {})
    assert fault(treated, x, base=base - 1.0, **given) == ("design.weights_base", {})
    flat = x.copy()
    flat[:, 1] = 0.1
    assert fault(treated, flat, **given) == ("design.constant_column", {"column": "income"})
    double = x.copy()
    double[:, 4] = 3.0 * x[:, 0] - x[:, 2] + 5.0
    assert fault(treated, double, **given) == ("design.collinear", {"column": "months"})


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_nearly_collinear_is_solved(way) -> None:
    treated, x, _, _ = drawn()
    x[:, 4] = x[:, 0] + 1e-3 * np.random.default_rng(0).normal(size=300)
    found = weigh(treated, x, names=NAMES, **way)
    assert found.converged
    assert np.isfinite(found.influence).all()
    assert found.imbalance < 0.25


@pytest.mark.parametrize("way", [way for way in WAYS if way["how"] in ("ipw", "cbps")], ids=str)
def test_groups_that_covariates_tell_apart(way) -> None:
    _, x, _, _ = drawn()
    code, params = fault(x[:, 2] > 0.1, x, names=NAMES, **way)
    assert code in ("design.separation", "design.weights_cannot_balance")
    assert "distance" in params.get("column", params.get("columns"))
    treated, x, _, _ = drawn()
    x[:, 3] = treated & (np.arange(300) % 7 == 0)  # only treated people have it
    code, params = fault(treated, x, names=NAMES, **way)
    if way["target"] == "atc" and way["how"] == "cbps" and not way["over"]:
        assert code == "design.weights_cannot_balance"
    assert "origin" in params.get("column", params.get("columns"))


@pytest.mark.parametrize("way", EXACT_WAYS, ids=str)
def test_targets_that_no_weights_reach(way) -> None:
    treated, x, _, _ = drawn()
    aim = {"att": treated, "atc": ~treated, "ate": treated}[way["target"]]
    rare = x.copy()
    rare[:, 3] = aim & (np.arange(300) % 7 == 0)  # the arm to be weighted has nobody with it
    assert fault(treated, rare, names=NAMES, **way) == ("design.weights_cannot_balance", {"columns": "origin"})
    away = x.copy()
    away[aim, 1] += 50.0
    assert fault(treated, away, names=NAMES, **way)[1]["columns"].startswith("income")
    corner = x.copy()  # no column by itself is out of reach, their sum is
    corner[:, 0], corner[:, 1] = np.abs(x[:, 0]), np.abs(x[:, 1])
    corner[:, :2] /= corner[:, :2].sum(axis=1, keepdims=True) / np.random.default_rng(1).uniform(0, 1, (300, 1))
    corner[aim, 0] = corner[aim, 1] = 0.6
    corner[aim, :2] += np.random.default_rng(2).uniform(-0.01, 0.01, (aim.sum(), 2))
    code, params = fault(treated, corner, names=NAMES, **way)
    assert code == "design.weights_cannot_balance"
    assert set(params["columns"].split(", ")[:2]) == {"age", "income"}


def test_an_arm_that_cannot_tell_two_columns_apart() -> None:
    treated, x, _, _ = drawn()
    x[:, 4] = x[:, 0] > 0
    x[~treated, 3] = x[~treated, 4]  # the same among the others, not among the treated
    for how in ("entropy", "stable"):
        assert fault(treated, x, names=NAMES, how=how) == ("design.weights_cannot_balance", {"columns": "months"})
    assert weigh(treated, x, names=NAMES, how="ipw").converged


def test_weights_at_the_edge() -> None:
    """A value that no treated person has: entropy balancing would need weights of zero, stable weights may be zero."""
    treated, x, _, y = drawn()
    x[:, 3] = ~treated & (np.arange(300) % 7 == 0)
    assert fault(treated, x, names=NAMES, how="entropy") == ("design.weights_cannot_balance", {"columns": "origin"})
    found = weigh(treated, x, names=NAMES, how="stable")
    assert found.converged
    assert found.imbalance < 1e-9
    assert (found.weight[x[:, 3] == 1] < 1e-9).all()
    without = weigh(treated[x[:, 3] == 0], np.delete(x, 3, axis=1)[x[:, 3] == 0], how="stable")
    assert found.weight[x[:, 3] == 0] == pytest.approx(without.weight, abs=1e-8)
    from naive.weighting import influence

    mine, other = influence(found, y), influence(without, y[x[:, 3] == 0])
    assert mine[x[:, 3] == 0] == pytest.approx(other, abs=1e-8)
    assert mine[x[:, 3] == 1] == pytest.approx(0.0, abs=1e-8)


def test_an_edge_that_no_single_column_shows() -> None:
    """Of two traits all treated have one, the others one or none: weights would have to be zero for those with none."""
    treated, x, _, _ = drawn()
    one = np.arange(300) % 3
    x[:, 3], x[:, 4] = one == 0, np.where(treated, one != 0, one == 1)
    code, params = fault(treated, x, names=NAMES, how="entropy")
    assert code == "design.weights_cannot_balance"
    assert set(params["columns"].split(", ")) == {"origin", "months"}
    found = weigh(treated, x, names=NAMES, how="stable")
    assert found.converged and found.imbalance < 1e-9
    assert (found.weight[~treated & (one == 2)] < 1e-9).all()


def test_a_few_rows_that_are_told_apart_among_many() -> None:
    treated, x, _, _ = drawn(100_000)
    few = treated & (np.cumsum(treated) <= 3)
    for how, target in (("ipw", "att"), ("cbps", "ate")):
        rare = x.copy()
        rare[:, 3] = few
        assert fault(treated, rare, names=NAMES, how=how, target=target) == ("design.separation", {"column": "origin"})


def test_trimming_that_leaves_one_group() -> None:
    treated, x, _, _ = drawn()
    score = weigh(treated, x, how="ipw").score
    limit = float(score[~treated].max())
    code, params = fault(treated, x, how="entropy", trim=(limit + 1e-9, 1.0))
    assert code == "design.weights_nobody_left"
    assert params == {"treated": int((score > limit + 1e-9).sum()), "comparison": 0}


def test_boosting_needs_its_package(monkeypatch) -> None:
    treated, x, _, _ = drawn()
    key = hash_ids(1, range(300))
    real = builtins.__import__, importlib.import_module

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == "sklearn":
            raise ImportError(name)
        return real[1](name, *args, **kwargs)

    monkeypatch.setattr(importlib, "import_module", missing)
    found = fault(treated, x, how="ipw", model="boosting", key=key)
    assert found == ("design.weights_package", {"package": "scikit-learn"})
    assert weigh(treated, x, how="ipw", model="lasso", key=key).converged


def test_too_few_people_for_the_folds() -> None:
    treated, x, _, _ = drawn()
    few = treated & (np.cumsum(treated) <= 10)
    found = fault(few, x, how="ipw", model="lasso", key=hash_ids(1, range(300)), folds=5)
    assert found == ("design.weights_folds", {"folds": 5, "needed": 10})


@pytest.mark.parametrize(
    "wrong",
    [
        {"how": "entropy", "target": "ato"},
        {"how": "kernel"},
        {"how": "entropy", "model": "lasso"},
        {"how": "ipw", "model": "lasso"},
        {"how": "ipw", "model": "lasso", "moments": 2, "key": np.arange(300, dtype=np.uint64)},
        {"how": "ipw", "moments": 4},
        {"how": "stable", "tolerance": -0.1},
        {"how": "overlap", "trim": "crump"},
        {"how": "ipw", "trim": (0.9, 0.1)},
        {"how": "ipw", "cap": 0.0},
        {"how": "ipw", "cap_quantile": 99.0},
        {"how": "ipw", "names": ("a",)},
        {"how": "ipw", "base": np.ones(3)},
    ],
    ids=str,
)
def test_calls_that_contradict_themselves(wrong) -> None:
    treated, x, _, _ = drawn()
    with pytest.raises(ValueError, match="weigh"):
        weigh(treated, x, **wrong)


def test_dense_logit_has_the_same_faults() -> None:
    treated, x, _, _ = drawn()

    def code(d, columns):
        with pytest.raises(DesignError) as raised:
            fit_dense_logit(d, columns, NAMES)
        return raised.value.faults[0].code, dict(raised.value.faults[0].params)

    assert code(np.zeros(300, bool), x)[0] == "design.no_treated"
    assert code(np.ones(300, bool), x)[0] == "design.no_controls"
    assert code(x[:, 1] > 0, x) == ("design.separation", {"column": "income"})
    assert code(treated, np.column_stack([x[:, :4], np.ones(300)])) == (
        "design.constant_column",
        {"column": "months"},
    )
    assert code(treated, np.column_stack([x[:, :4], x[:, 0] + x[:, 1]])) == (
        "design.collinear",
        {"column": "months"},
    )


def test_a_search_that_ends_early_says_so(monkeypatch) -> None:
    from evalkit.matching.weighting import cbps, stable

    treated, x, _, _ = drawn()
    monkeypatch.setattr(stable, "MAX_ITERATIONS", 1)
    monkeypatch.setattr(cbps, "GMM_ITERATIONS", 1)
    short = weigh(treated, x, how="stable")
    assert not short.converged
    assert short.iterations == 1
    assert short.imbalance > 1e-3
    assert not weigh(treated, x, how="cbps", over=True).converged
