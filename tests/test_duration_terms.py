"""Designs whose factors stand as numbers, histories, fitted hazards: what they hold and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import duration_example as example
import numpy as np
import pytest
from tolerances import EXACT

from evalkit.duration.fitted import Hazards
from evalkit.duration.histories import Histories
from evalkit.duration.spells import Layout
from evalkit.duration.terms import Terms, dense, factor, interacted, joined


@pytest.fixture(scope="module")
def made():
    return Layout(example.spells(200), replace(example.LINE, calendar="none")).histories("exact")


def design(rows: int, seed: int = 1) -> Terms:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, 2)) * (rng.random((rows, 2)) < 0.7)
    return joined(
        factor(rng.integers(-1, 3, rows), ["a", "b", "c"]), dense(numbers, ["u", "v"]),
        factor(rng.integers(0, 2, rows), ["d", "e"], reference=None),
    )  # fmt: skip


def test_columns_written_out_one_by_one():
    levels = [2, 0, -1, 1]
    one = factor(levels, ["a", "b", "c"])
    assert one.names == ("b", "c") and one.matrix().tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]
    every = factor(levels, ["a", "b", "c"], reference=None)
    assert every.names == ("a", "b", "c") and every.matrix()[:, 0].tolist() == [0, 1, 0, 0]
    other = factor(levels, ["a", "b", "c"], reference=2)
    assert other.names == ("a", "b") and other.matrix().tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]
    both = joined(one, dense([[1.5], [2], [3], [4]], ["x"]))
    assert both.names == ("b", "c", "x") and both.width == 3 and len(both) == 4
    assert both.matrix()[0].tolist() == [0, 1, 1.5]
    by = interacted(both, [1, 1, 0, -1], ["no", "yes"], reference=0)
    assert by.names == ("b x yes", "c x yes", "x x yes")
    assert by.matrix().tolist() == [[0, 1, 1.5], [0, 0, 2], [0, 0, 0], [0, 0, 0]]


def test_sums_are_loops():
    rows = 60
    one, two = design(rows), design(rows, 2)
    rng = np.random.default_rng(3)
    weight, group, theta = rng.normal(size=rows), rng.integers(0, 4, rows), rng.normal(size=one.width)
    weight[::7] = 0
    x, z = one.matrix(), two.matrix()
    cross, sums, line = np.zeros((one.width, two.width)), np.zeros((4, one.width)), np.zeros(rows)
    for r in range(rows):
        for a in range(one.width):
            line[r] += x[r, a] * theta[a]
            sums[group[r], a] += weight[r] * x[r, a]
            for b in range(two.width):
                cross[a, b] += weight[r] * x[r, a] * z[r, b]
    assert one.predict(theta) == pytest.approx(line, abs=EXACT)
    assert one.sums(weight, group, 4) == pytest.approx(sums, abs=EXACT)
    assert one.sums(weight)[0] == pytest.approx(sums.sum(axis=0), abs=EXACT)
    assert one.products(weight, two) == pytest.approx(cross, abs=EXACT)
    assert one.products(weight) == pytest.approx((x.T * weight) @ x, abs=EXACT)


def test_some_rows_and_none():
    one = design(30)
    rows = np.array([4, 4, 0])
    assert np.array_equal(one.take(rows).matrix(), one.matrix()[rows])
    none = one.take(np.zeros(0, int))
    assert len(none) == 0 and none.predict(np.ones(one.width)).shape == (0,)
    assert not none.products(np.zeros(0)).any() and not none.sums(np.zeros(0)).any()
    bare = dense(np.zeros((3, 0)), [])
    assert bare.width == 0 and bare.predict([]).tolist() == [0, 0, 0] and bare.matrix().shape == (3, 0)


def test_a_design_cannot_be_changed_or_be_wrong():
    one = design(10)
    with pytest.raises(ValueError, match="read-only"):
        one.numbers[0, 0] = 1
    with pytest.raises(ValueError, match="outside"):
        replace(one, names=one.names[:-1])
    with pytest.raises(ValueError, match="fit"):
        replace(one, numbers=one.numbers[:-1])


def test_histories_know_their_persons_and_events(made):
    first = made.first
    assert first[0] == 0 and first[-1] == len(made) and len(first) == made.persons + 1
    for person in (0, 7, made.persons - 1):
        assert (made.person[first[person] : first[person + 1]] == person).all()
    assert made.events.tolist() == [float((made.event == k).sum()) for k in range(len(made.risks))]
    doubled = replace(made, count=np.full(made.persons, 2.0))
    assert doubled.events == pytest.approx(2 * made.events)
    half = made.take(np.arange(0, len(made), 2))
    assert half.persons == made.persons and len(half) == (len(made) + 1) // 2
    assert np.array_equal(half.designs[0].matrix(), made.designs[0].matrix()[::2])


def test_some_risks_only(made):
    part = made.only((2, 0))
    assert part.risks == ("other", "work") and part.at_risk.shape == (len(made), 2)
    assert part.events.tolist() == made.events[[2, 0]].tolist()
    assert ((part.event == -1) == ~np.isin(made.event, [0, 2])).all()
    months = Layout(example.spells(50), example.LINE).histories("grouped")
    with pytest.raises(ValueError, match="exact"):
        months.only((0,))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: {"person": h.person[::-1]}, "sort"),
        (lambda h: {"length": h.length[:-1]}, "unlike"),
        (lambda h: {"risks": h.risks[:-1]}, "risks"),
        (lambda h: {"order": h.order[:-1]}, "risks"),
        (lambda h: {"designs": h.designs[:-1]}, "risks"),
        (lambda h: {"count": h.count[:-1]}, "persons"),
        (lambda h: {"at_risk": np.zeros_like(h.at_risk)}, "at risk"),
        (lambda h: {"before": np.ones(len(h), bool)}, "at risk"),
        (lambda h: {"timing": "grouped", "length": h.length + 0.5}, "whole"),
    ],
)
def test_histories_that_contradict_themselves(made, change, words):
    with pytest.raises(ValueError, match=words):
        replace(made, **change(made))


def test_fitted_hazards_name_their_parameters(made):
    layout = Layout(example.spells(100), example.LINE)
    fit = example.hazards(layout, 3)
    assert len(fit.labels) == len(fit.packed) == len(fit.free) == fit.parameters
    assert fit.labels[0] == "work:sex:woman" and fit.labels[fit.offsets[-1]] == "work:point 1"
    assert fit.labels[-2:] == ("share 2", "share 3")
    assert fit.packed[-2:] == pytest.approx(np.log(fit.shares[1:] / fit.shares[0]))
    assert fit.packed[fit.offsets[1] : fit.offsets[2]].tolist() == fit.theta[1].tolist()
    assert fit.packed[fit.offsets[-1] :][:12].tolist() == fit.points.ravel().tolist()
    assert fit.std_error == pytest.approx(np.sqrt((fit.influence.values**2).sum(axis=0)))
    with pytest.raises(ValueError, match="fit"):
        replace(fit, points=fit.points[:2])
    assert isinstance(fit, Hazards) and isinstance(made, Histories)
