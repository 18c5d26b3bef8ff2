"""The true profile against a slow exact twin, against brute force, and against what must hold."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evalkit.calendar import NEVER, add_months, day_number, to_days, whole_months
from evalkit.simulate import DEMO, NO_EFFECT, SMALL, Municipality, Tables, draw, truth
from evalkit.simulate.model import STARTS, STEPS, Law, law

pytestmark = pytest.mark.slow

OUTCOMES = ("left_to_work", "left", "on_benefit")


def exits(model: Law, cell: Any, entry: Any, step: Any, begun: Any) -> NDArray[np.float64]:
    """Chances of the three exits in a sub-step, (.., 3); ``begun`` = -1 untreated. Written again, not imported."""
    month = np.asarray(step) // STEPS
    rates = np.stack(
        np.broadcast_arrays(
            model.work[cell] * model.duration[month] * model.calendar[entry + month], model.others[0], model.others[1]
        ),
        axis=-1,
    )
    since = np.where(np.asarray(begun) >= 0, (step - np.asarray(begun)) // STEPS, 0)
    rates = rates * np.where((np.asarray(begun) >= 0)[..., None], model.path.T[since], 1.0)
    total = rates.sum(axis=-1, keepdims=True)
    return rates / total * -np.expm1(-total / STEPS)


def starts(model: Law, cell: Any, entry: Any, step: Any) -> NDArray[np.float64]:
    month = np.asarray(step) // STEPS
    rate = model.start[cell] * model.start_elapsed[month] * model.start_calendar[entry + month]
    return -np.expm1(-rate / STEPS)


def twin(town: Municipality, cells: list[int], horizon: int, versus: str) -> NDArray[np.float64]:
    """Both arms (2, 3, K) by pushing the distribution over (begun, state) forward, one sub-step at a time."""
    model = law(town)
    total, sums = 0.0, np.zeros((2, 3, horizon))
    for cell in cells:
        for entry in range(model.entries):
            alive = model.share[cell]
            for step in range(STARTS * STEPS):
                close = step + horizon * STEPS
                if entry * STEPS + close > model.entries * STEPS:
                    break
                chance = float(starts(model, cell, entry, step))
                weight = alive * chance
                alive *= (1 - chance) * (1 - exits(model, cell, entry, step, -1).sum())
                month_end = (step // STEPS + 1) * STEPS
                free_from = {"wait": month_end, "never": close}[versus]
                total += weight
                sums[0] += weight * push(model, cell, entry, step, step, horizon, close)
                sums[1] += weight * push(model, cell, entry, step, -1, horizon, free_from)
    return sums / total


def push(model: Law, cell: int, entry: int, step: int, begun: int, horizon: int, free_from: int) -> NDArray[np.float64]:
    here = {begun: 1.0}  # in the first spell, by sub-step of the start
    off, later, to_work = np.zeros(3), 0.0, 0.0
    out = np.zeros((3, horizon))
    for t in range(step, step + horizon * STEPS):
        if -1 in here and t >= free_from:
            chance = float(starts(model, cell, entry, t))
            here[t] = here[-1] * chance
            here[-1] *= 1 - chance
        gone = np.zeros(3)
        for start in here:
            leave = exits(model, cell, entry, t, start)
            gone += here[start] * leave
            here[start] *= 1 - leave.sum()
        returns = off @ model.back
        off = off * (1 - model.back) + gone + later * model.again
        later = later * (1 - model.again.sum()) + returns
        to_work += gone[0]
        if (t - step + 1) % STEPS == 0:
            alive = sum(here.values())
            assert abs(alive + off.sum() + later - 1) < 1e-12
            out[:, (t - step) // STEPS] = to_work, 1 - alive, alive + later
    return out


@pytest.mark.parametrize("versus", ["wait", "never"])
def test_truth_equals_exact_twin(versus: Any) -> None:
    town = replace(SMALL, window=(dt.date(2018, 1, 1), dt.date(2018, 5, 31)), fade_months=6.0, programme_months=2)
    where = {"sex": ["man"], "education": ["high"], "household": ["couple"], "distance": [0.5], "age": [20, 45]}
    model = law(town)
    cells = np.flatnonzero(np.all([np.isin(model.levels[k], v) for k, v in where.items()], axis=0)).tolist()
    assert len(cells) == 2
    expected = twin(town, cells, 3, versus)
    found = truth(town, 3, versus, where=where, other_instrument="include")
    for i, name in enumerate(OUTCOMES):
        np.testing.assert_allclose(found[name].treated, expected[0, i], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[name].counterfactual, expected[1, i], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[name].effect, expected[0, i] - expected[1, i], rtol=0, atol=1e-12)


def live(
    rng: np.random.Generator, model: Law, cell: Any, entry: Any, step: Any, begun: Any, free_from: Any, steps: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Potential outcomes of many persons by brute force: start, reason at each close (-1 none yet), on benefit."""
    begun, n = begun.copy(), len(cell)
    state = np.full(n, 3)  # 3 first spell, 0-2 off after that exit, 4 later spell
    reason = np.full(n, -1)
    reasons, on = [], []
    for t in range(steps):
        now = step + t
        u = rng.random((3, n))
        first = state == 3
        may = first & (begun < 0) & (now >= free_from)
        begun = np.where(may & (u[0] < starts(model, cell, entry, now)), now, begun)
        edges = np.cumsum(exits(model, cell, entry, now, begun), axis=1)
        which = (u[1][:, None] > edges).sum(axis=1)
        leaving = first & (which < 3)
        again = (u[1][:, None] > np.cumsum(model.again)).sum(axis=1)
        away = (state < 3) & (u[2] < model.back[np.minimum(state, 2)])
        state = np.where(leaving, which, np.where(away, 4, np.where((state == 4) & (again < 3), again, state)))
        reason = np.where(leaving, which, reason)
        if (t + 1) % STEPS == 0:
            reasons.append(reason)
            on.append(state >= 3)
    return begun, np.array(reasons), np.array(on)


def test_truth_equals_brute_force() -> None:
    horizon, repeats = 12, 4
    model = law(SMALL)
    rng = np.random.default_rng(5)
    n = 60_000
    cell = rng.choice(len(model.share), n, p=model.share)
    entry = rng.integers(0, model.entries - horizon, n)
    zero = np.zeros(n, int)
    steps = np.minimum(STARTS * STEPS, 24 * STEPS)
    begun = np.full(n, -1)
    active = np.arange(n)  # natural course up to the start; outcomes are drawn afresh below
    for step in range(steps):
        inside = entry[active] * STEPS + step + horizon * STEPS <= model.entries * STEPS
        active = active[inside]
        c, e = cell[active], entry[active]
        begins = rng.random(len(active)) < starts(model, c, e, zero[active] + step)
        begun[active[begins]] = step
        leaves = rng.random(len(active)) < exits(model, c, e, zero[active] + step, np.full(len(active), -1)).sum(axis=1)
        active = active[~begins & ~leaves]
    who = np.repeat(np.flatnonzero(begun >= 0), repeats)
    c, e, s = cell[who], entry[who], begun[who]
    month_end = (s // STEPS + 1) * STEPS
    _, reason1, on1 = live(rng, model, c, e, s, s, s, horizon * STEPS)
    _, reason0, on0 = live(rng, model, c, e, s, np.full(len(s), -1), month_end, horizon * STEPS)
    exact = truth(SMALL, horizon, "wait", other_instrument="include")
    pairs = {
        "left_to_work": (reason1 == 0, reason0 == 0),
        "left": (reason1 >= 0, reason0 >= 0),
        "on_benefit": (on1, on0),
    }
    for name, (treated, other) in pairs.items():
        for sample, value in (
            (treated.astype(float), exact[name].treated),
            (other.astype(float), exact[name].counterfactual),
            (treated.astype(float) - other, exact[name].effect),
        ):
            person = sample.reshape(horizon, -1, repeats).mean(axis=2)
            error = person.std(axis=1) / np.sqrt(person.shape[1])
            assert np.all(np.abs(person.mean(axis=1) - value) < 4 * error), name
    window_share = (model.entries - horizon) / model.entries
    assert abs((begun >= 0).mean() * window_share / exact["left"].starters - 1) < 4 / np.sqrt((begun >= 0).sum())


def starters(tables: Tables, town: Municipality, horizon: int) -> pd.DataFrame:
    """Starters with complete follow-up from the tables, with time zero; those in coaching stay in."""
    training = tables.episodes.query("type == 'training'")[["person", "start"]].rename(columns={"start": "zero"})
    first = tables.benefits.groupby("person", sort=False).first().reset_index()
    frame = training.merge(first, on="person")
    zero, begin = to_days(frame["zero"]), to_days(frame["start"])
    kept = (begin >= day_number(town.window[0])) & (add_months(zero, horizon) <= day_number(town.window[1]) + 1)
    elapsed = whole_months(begin, zero)
    assert elapsed.min() >= 0 and elapsed.max() < STARTS
    return frame[kept]


@pytest.mark.parametrize(("town", "horizon"), [(SMALL, 12), (replace(DEMO, start_rate=0.03), 36)])
def test_drawn_starters_agree_with_truth(town: Municipality, horizon: int) -> None:
    persons = 60_000
    tables = draw(town, persons, seed=3)
    frame = starters(tables, town, horizon)
    exact = truth(town, horizon, "never", other_instrument="include")
    zero, last = to_days(frame["zero"]), to_days(frame["end"])
    spells = frame[["person", "zero"]].merge(tables.benefits, on="person", how="left")
    reason = frame["reason"].to_numpy()
    for k in range(1, horizon + 1, 5):
        close = add_months(zero, k)
        ends = add_months(to_days(spells["zero"]), k)
        open_now = (to_days(spells["start"]) < ends) & (to_days(spells["end"]) >= ends)
        found = {
            "left_to_work": ((last < close) & (reason == "work")).mean(),
            "left": (last < close).mean(),
            "on_benefit": open_now.sum() / len(frame),
        }
        for name, value in found.items():
            expected = exact[name].treated[k - 1]
            assert abs(value - expected) < 4 * np.sqrt(expected * (1 - expected) / len(frame)), (name, k)
    if not town.stock_months:
        assert abs(len(frame) / persons / exact["left"].starters - 1) < 4 / np.sqrt(len(frame))
    assert last.max() == NEVER


@pytest.mark.parametrize("versus", ["wait", "never"])
@pytest.mark.parametrize("horizon", [1, 12])
def test_no_effect_is_a_zero_profile(versus: Any, horizon: int) -> None:
    for effect in truth(replace(SMALL, **NO_EFFECT), horizon, versus).values():
        assert np.abs(effect.effect).max() < 1e-14
        assert np.all(effect.counterfactual > 0)


def test_without_returns_on_benefit_is_not_left() -> None:
    found = truth(replace(SMALL, return_rates=(0.0, 0.0, 0.0)), 12)
    for arm in ("treated", "counterfactual"):
        total = getattr(found["left"], arm) + getattr(found["on_benefit"], arm)
        np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-13)


def test_subgroups_and_elapsed_months_add_up() -> None:
    whole = truth(SMALL, 12)["left_to_work"]
    for parts, shares in (
        ([truth(SMALL, 12, where={"sex": [sex]})["left_to_work"] for sex in ("man", "woman")], (0.47, 0.53)),
        ([truth(SMALL, 12, elapsed=span)["left_to_work"] for span in ((0, 5), (6, 23))], (1.0, 1.0)),
    ):
        weights = np.array([share * part.starters for share, part in zip(shares, parts, strict=True)])
        assert np.isclose(weights.sum(), whole.starters, rtol=1e-12)
        mixed = weights @ np.array([part.effect for part in parts]) / weights.sum()
        np.testing.assert_allclose(mixed, whole.effect, rtol=0, atol=1e-13)


def test_window_of_the_study_may_be_shorter() -> None:
    shorter = replace(SMALL, window=(dt.date(2018, 1, 1), dt.date(2020, 12, 31)))
    asked = truth(SMALL, 12, window=shorter.window)["left"]
    np.testing.assert_allclose(asked.effect, truth(shorter, 12)["left"].effect, rtol=0, atol=1e-13)
    later = truth(SMALL, 12, window=(dt.date(2019, 1, 1), dt.date(2021, 12, 31)))["left"]
    assert later.starters < truth(SMALL, 12)["left"].starters


def test_coaching_hardly_matters_and_the_default_profile_has_its_shape() -> None:
    town = Municipality()
    found = truth(town, 36)
    work = found["left_to_work"].effect
    assert -0.06 < work[5] < -0.04 and 0.03 < work[35] < 0.05
    assert work.argmin() == 5 and found["on_benefit"].effect[5] > 0
    included = truth(SMALL, 12, other_instrument="include")["left"].effect
    assert 0 < np.abs(included - truth(SMALL, 12)["left"].effect).max() < 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"horizon": 49},
        {"horizon": 0},
        {"versus": "later"},
        {"where": {"sex": "man"}},
        {"where": {"colour": ["red"]}},
        {"window": (dt.date(2018, 1, 1), dt.date(2022, 12, 31))},
    ],
)
def test_what_cannot_be_answered_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="truth"):
        truth(SMALL, **wrong)
