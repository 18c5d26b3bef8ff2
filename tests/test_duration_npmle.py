"""Mixed hazards: derivatives, brute force, the data of a published program, truncation, and a known truth."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import duration_example as example
import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from evalkit.duration.answers import answers
from evalkit.duration.hazard_tables import criteria
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.histories import Histories
from evalkit.duration.likelihood import stretches
from evalkit.duration.mixed import Mixed, State
from evalkit.duration.npmle import CLOSED, _Slope, npmle
from evalkit.duration.spells import Layout
from evalkit.duration.terms import dense

REFERENCE = Path(__file__).parent / "reference"


def written_out(made, fit):
    """ln L_i of each history by plain sums over its stretches, groups and what came before."""
    out = np.zeros(made.persons)
    parts = np.zeros((made.persons, len(fit.shares), 2))
    for q in range(len(fit.shares)):
        eta = np.column_stack([d.predict(t) for d, t in zip(made.designs, fit.theta, strict=True)]) + fit.points[q]
        value = stretches(made, eta, "hazard")[0]
        for r in range(len(made)):
            parts[made.person[r], q, int(made.before[r])] += value[r]
    for i in range(made.persons):
        whole = sum(p * np.exp(parts[i, q].sum()) for q, p in enumerate(fit.shares))
        out[i] = np.log(whole) - np.log(sum(p * np.exp(parts[i, q, 1]) for q, p in enumerate(fit.shares)))
    return out


@pytest.fixture(scope="module", params=["exact", "grouped"])
def stock(request):
    """Histories of which some were under way when observation began, a first fit, and some state to look from."""
    rng = np.random.default_rng(5)
    spells = example.spells(250, two=True)
    entry = np.where(rng.random(250) < 0.4, np.minimum(rng.integers(0, 6, 250), spells.stop - 1), 0)
    layout = Layout(replace(spells, entry=entry), replace(example.LINE, calendar="none"))
    made = layout.histories(request.param)
    first = fit_hazards(made)
    data = Mixed(made, first)
    state = State(
        np.concatenate(first.theta) + rng.normal(0, 0.1, first.offsets[-1]),
        first.points + rng.normal(0, 0.7, (3, len(made.risks))), rng.dirichlet(np.ones(3)),
    )  # fmt: skip
    return data, state


def test_likelihood_is_that_of_its_definition(stock):
    data, state = stock
    theta = tuple(state.theta[a:b] for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True))
    fit = replace(data.fitted(state), theta=theta, points=state.points, shares=state.shares)
    assert data.h.before.any()
    assert data.value(state) == pytest.approx(written_out(data.h, fit).sum(), rel=1e-12)


def test_first_and_second_derivatives(stock):
    data, state = stock
    gradient, information, scores = data.derivatives(state)
    size = len(gradient)
    assert data.count @ scores == pytest.approx(gradient)
    for j in range(0, size, 3):
        step = 1e-5 * (np.arange(size) == j)
        up, down = data.moved(state, step), data.moved(state, -step)
        assert (data.value(up) - data.value(down)) / 2e-5 == pytest.approx(gradient[j], abs=1e-5)
        second = (data.derivatives(up)[0] - data.derivatives(down)[0]) / 2e-5
        assert -information[j] == pytest.approx(second, abs=1e-6)


def test_directional_derivative_is_the_slope_of_the_likelihood(stock):
    data, state = stock
    point = state.points.mean(axis=0)
    whole = _Slope.of(data.persons(state.theta), state)
    slope = whole.at(point[None])[0]
    every = whole.take(np.arange(len(data.count)))
    assert every.at(point[None])[0] == pytest.approx(slope, rel=1e-12)

    def mixed(share):
        points = np.vstack([state.points, point])
        return data.value(State(state.theta, points, np.append(state.shares * (1 - share), share)))

    assert (mixed(1e-5) - mixed(1e-7)) / (1e-5 - 1e-7) == pytest.approx(slope, rel=0.02)


def test_two_points_by_brute_force():
    town = example.Town(hidden=example.HIDDEN)
    made = Layout(town.draw(400, 2), town.line).histories()
    path = npmle(made, points=2)
    fit = path.models[1]

    def negative(packed):
        return -written_out_fast(made, example.moved(fit, packed))

    def written_out_fast(made, fit):
        total = []
        for q in range(2):
            eta = np.column_stack([d.predict(t) for d, t in zip(made.designs, fit.theta, strict=True)]) + fit.points[q]
            total.append(np.bincount(made.person, stretches(made, eta, "hazard")[0]) + np.log(fit.shares[q]))
        return np.logaddexp(*total).sum()

    found = optimize.minimize(negative, fit.packed + 0.05, method="BFGS", options={"gtol": 1e-3})
    assert -found.fun == pytest.approx(fit.log_likelihood, abs=1e-4)
    assert found.x[fit.free] == pytest.approx(fit.packed[fit.free], abs=2e-2)


@pytest.fixture(scope="module")
def durdata():
    text = gzip.decompress((REFERENCE / "durdata.csv.gz").read_bytes()).decode()
    frame = pd.read_csv(io.StringIO(text))
    ids, person = np.unique(frame["id"], return_inverse=True)
    event = frame["d"].map({"none": -1, "job": 0, "program": 1}).to_numpy()
    unemployed = (frame["state"] == "unemp").to_numpy()
    return Histories(
        person, frame["duration"].to_numpy(), event, np.column_stack([np.ones(len(frame), bool), unemployed]),
        np.zeros(len(frame), bool),
        (dense(frame[["x1", "x2", "alpha"]], ["x1", "x2", "alpha"]), dense(frame[["x1", "x2"]], ["x1", "x2"])),
        ("job", "programme"), np.zeros(2), np.ones(len(ids)), np.arange(len(ids)), ids,
    )  # fmt: skip


@pytest.fixture(scope="module")
def path(durdata):
    return npmle(durdata)


def test_no_worse_than_the_published_program_at_any_number_of_points(path):
    facts = json.loads((REFERENCE / "duration_mixture.json").read_text("utf-8"))["by_points"]
    mine = {len(model.shares): model.log_likelihood for model in path.models}
    for points, value in facts.items():
        if int(points) in mine:
            assert mine[int(points)] >= value - 1e-8 * abs(value) - 0.01 * (points == "7")
    assert mine[1] == pytest.approx(facts["1"], rel=1e-8)
    assert mine[2] == pytest.approx(facts["2"], rel=1e-8)


def test_the_maximum_has_its_certificate(path, durdata):
    assert path.last.log_likelihood >= -22443.6
    assert path.largest <= CLOSED and path.closed
    assert (path.box[0] < path.last.points.min(axis=0) + 1e-9).all()
    assert path.last.gap < 1e-6
    again = npmle(durdata, points=4)
    assert again.models[2].packed.tobytes() == npmle(durdata, points=4).models[2].packed.tobytes()


def test_criteria_and_what_is_at_the_edge(path):
    best = path.best("aic")
    assert len(best.shares) == 7 and path.best("bic").parameters <= path.best("hq").parameters <= best.parameters
    judged = criteria(path.models[6])
    k = best.parameters
    assert judged.aic == pytest.approx(2 * k - 2 * best.log_likelihood)
    assert judged.bic == pytest.approx(k * np.log(5000) - 2 * best.log_likelihood)
    last = path.last
    at_box = (last.points <= path.box[0] + 1e-9) | (last.points >= path.box[1] - 1e-9)
    held = ~last.free[last.offsets[-1] : last.offsets[-1] + last.points.size].reshape(last.points.shape)
    assert (held == at_box).all() and (last.std_error[~last.free] == 0).all()
    assert best.theta[0] == pytest.approx([1.0, -1.03, 0.24], abs=0.03)  # the truth is 1, -1, 0.2


def test_stock_needs_the_time_before():
    """Who is still there after some months is no random draw of the hidden groups."""
    town = example.Town(hidden=((0.5, -1.0, -0.6), (0.5, 1.0, 0.6)), longest=30)
    spells = town.draw(6000, 4)
    entry = np.where(np.arange(len(spells)) % 2 == 0, 8, 0)
    keep = (spells.stop > entry) & ~((spells.started[0] <= entry) & (entry > 0))
    stock = replace(spells.take(keep), entry=entry[keep])
    layout = Layout(stock, town.line)
    right = npmle(layout.histories(), points=2).models[1]
    wrong = npmle(layout.histories(before=False), points=2).models[1]
    phase = right.names[0].index("training after 0+")
    assert right.theta[0][phase] == pytest.approx(town.later, abs=4 * right.std_error[phase])
    assert wrong.theta[0][phase] - town.later > 4 * wrong.std_error[phase]
    gap = abs(right.points[:, 0].max() - right.points[:, 0].min() - 2.0)
    assert gap < abs(wrong.points[:, 0].max() - wrong.points[:, 0].min() - 2.0)


def test_hidden_groups_repair_the_effect():
    town = example.Town(hidden=example.HIDDEN)
    layout = Layout(town.draw(4000, 6), town.line)
    made = layout.histories()
    truth = town.truth(12, "wait")[0][-1]
    mixed = answers(layout, npmle(made, points=3).best("aic"), horizon=12, versus="wait").of["work"]
    plain = answers(layout, fit_hazards(made), horizon=12, versus="wait").of["work"]
    assert abs(mixed.effect[-1] - truth) < 3 * mixed.std_error[-1]
    assert plain.effect[-1] - truth > 5 * plain.std_error[-1]
