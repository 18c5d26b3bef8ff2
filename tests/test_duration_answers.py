"""Effects by month from hazards: against plain recursion, finite differences, and a known truth."""

from __future__ import annotations

from dataclasses import replace

import duration_example as example
import numpy as np
import pytest
from naive import duration_answers as naive
from tolerances import EXACT, SOLVED

from evalkit.duration.answers import answers, by_differences, starters, supported
from evalkit.duration.histories import Histories
from evalkit.duration.likelihood import stretches
from evalkit.duration.spells import NEVER, Layout
from evalkit.duration.terms import dense
from evalkit.effects import Influence
from evalkit.errors import DesignError, UsageError

HORIZON = 7


def effects_of(found):
    return np.concatenate([found.of[name].effect for name in example.CAUSES])


@pytest.mark.parametrize("link", ["hazard", "logit"])
@pytest.mark.parametrize("versus", ["never", "wait"])
def test_effects_are_those_of_plain_recursion(link, versus):
    spells = example.spells(80, two=True)
    layout = Layout(spells, example.LINE)
    fit = example.hazards(layout, 1, link)
    found = answers(layout, fit, horizon=HORIZON, versus=versus)
    on, off = [], []
    for spell in found.spell.tolist():
        row, start, other = np.array([spell]), int(spells.started[0][spell]), int(spells.started[1][spell])

        def beside(month, start=start, other=other):
            return np.array([month - other if other <= start else -1])

        def exits(month, since, row=row, beside=beside):
            design = layout.exits(row, np.array([month]), [np.array([since]), beside(month)])
            return [float(design.predict(fit.theta[j])[0] + fit.points[0, j]) for j in range(3)]

        def begins(month, row=row, beside=beside):
            design = layout.starts(0, row, np.array([month]), [np.array([-1]), beside(month)])
            return float(design.predict(fit.theta[3])[0] + fit.points[0, 3])

        on.append(naive.started(exits, start, HORIZON, link))
        off.append(
            naive.never(exits, start, HORIZON, link)
            if versus == "never"
            else naive.wait(exits, begins, start, HORIZON, link)
        )
    for j, name in enumerate(example.CAUSES):
        assert found.of[name].started == pytest.approx(np.mean(on, axis=0)[j], abs=EXACT)
        assert found.of[name].versus == pytest.approx(np.mean(off, axis=0)[j], abs=EXACT)
    whole = sum(found.of[name].effect for name in example.CAUSES)
    assert found.of["any"].effect == pytest.approx(whole, abs=EXACT)
    assert found.of["any"].influence.values == pytest.approx(
        sum(found.of[name].influence.values for name in example.CAUSES), abs=EXACT
    )


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("versus", ["never", "wait"])
def test_influence_is_the_derivative_and_the_draw_of_starters(points, versus):
    """A model whose influence is the unit matrix on people of its own shows the gradient; the rest is sampling."""
    layout = Layout(example.spells(60, two=True), example.LINE)
    fit = example.hazards(layout, points)
    size, first = len(fit.packed), 10**6
    shown = replace(fit, influence=Influence(np.arange(first, first + size), np.eye(size)))
    found = answers(layout, shown, horizon=HORIZON, versus=versus)
    values = np.concatenate([found.of[name].influence.values for name in example.CAUSES], axis=1)
    own = found.of["work"].influence.ids >= first

    def at(packed):
        return effects_of(answers(layout, example.moved(fit, packed), horizon=HORIZON, versus=versus))

    numeric = []
    for number in range(size):
        step = 1e-5 * (np.arange(size) == number)
        numeric.append((at(fit.packed + step) - at(fit.packed - step)) / 2e-5)
    assert values[own] == pytest.approx(np.array(numeric), abs=1e-9)
    assert np.abs(values[own]).max() > 0.01
    single = [
        effects_of(answers(layout, fit, horizon=HORIZON, versus=versus, spell=np.array([each]))) for each in found.spell
    ]
    parts = np.array(single) - np.mean(single, axis=0)
    person = layout.spells.person[found.spell]
    expected = np.zeros((int((~own).sum()), parts.shape[1]))
    np.add.at(expected, np.searchsorted(found.of["work"].influence.ids[~own], person), parts / len(found.spell))
    assert values[~own] == pytest.approx(expected, abs=SOLVED)


def test_hidden_groups_are_weighed_by_history_through_the_start_and_not_after():
    spells = example.spells(60)
    layout = Layout(spells, example.LINE)
    fit = example.hazards(layout, 2)
    spell = int(starters(spells)[spells.started[0][starters(spells)] + HORIZON <= supported(spells)[0]][0])
    given = answers(layout, fit, horizon=HORIZON, spell=np.array([spell]))
    by_point = []
    for q in range(2):
        size = len(fit.packed)
        one = replace(
            fit, points=fit.points[q : q + 1], shares=np.ones(1), free=np.ones(size - 5, bool),
            influence=Influence(fit.influence.ids, fit.influence.values[:, : size - 5]), information=np.eye(size - 5),
        )  # fmt: skip
        by_point.append(answers(layout, one, horizon=HORIZON, spell=np.array([spell])).of["work"].effect)
    start, chance = int(spells.started[0][spell]), fit.shares.copy()
    mine = np.flatnonzero(spells.person == spells.person[spell])
    for q in range(2):
        for each in mine[mine <= spell].tolist():
            begun = int(spells.started[0][each])
            for month in range(start if each == spell else int(spells.stop[each])):
                since = month - begun if begun <= month else -1
                row, when = np.array([each]), np.array([month])
                exits = layout.exits(row, when, [np.array([since])])
                h = np.exp([exits.predict(fit.theta[j])[0] + fit.points[q, j] for j in range(3)])
                ends = each != spell and month + 1 == spells.stop[each] and spells.cause[each] >= 0
                if ends:
                    chance[q] *= h[spells.cause[each]] / h.sum() * -np.expm1(-h.sum())
                    continue
                chance[q] *= np.exp(-h.sum())
                if since < 0:
                    g = np.exp(
                        layout.starts(0, row, when, [np.array([-1])]).predict(fit.theta[3])[0] + fit.points[q, 3]
                    )
                    chance[q] *= -np.expm1(-g) if month + 1 == begun else np.exp(-g)
    chance /= chance.sum()
    assert given.of["work"].effect == pytest.approx(chance[0] * by_point[0] + chance[1] * by_point[1], abs=EXACT)
    longer = replace(spells, stop=np.where(np.arange(len(spells)) == spell, spells.stop + 1, spells.stop))
    after = answers(Layout(longer, example.LINE), fit, horizon=HORIZON, spell=np.array([spell]))
    assert after.of["work"].effect == pytest.approx(given.of["work"].effect, abs=EXACT)


def test_derivatives_by_differences_are_those_worked_out():
    layout = Layout(example.spells(120), example.LINE)
    fit = example.hazards(layout, 1)
    direct = answers(layout, fit, horizon=HORIZON)

    def exits_of(packed, chosen):
        found = [
            answers(layout, example.moved(fit, packed), horizon=HORIZON, spell=np.array([each])) for each in chosen
        ]
        shape = (len(chosen), 3, HORIZON)
        on = np.array([[f.of[name].started for name in example.CAUSES] for f in found]).reshape(shape)
        off = np.array([[f.of[name].versus for name in example.CAUSES] for f in found]).reshape(shape)
        return on, off

    few = direct.spell[:6]
    direct = answers(layout, fit, horizon=HORIZON, spell=few)
    other = by_differences(layout.spells, exits_of, fit.packed, fit.influence, horizon=HORIZON, spell=few)
    for name in (*example.CAUSES, "any"):
        assert other.of[name].effect == pytest.approx(direct.of[name].effect, abs=EXACT)
        assert other.of[name].std_error == pytest.approx(direct.of[name].std_error, rel=1e-7)


def test_numbers_of_people_and_what_the_data_reach():
    spells = example.spells(200)
    layout = Layout(spells, example.LINE)
    fit = example.hazards(layout, 1)
    found = answers(layout, fit, horizon=12)
    entry, since = supported(spells)
    start = spells.started[0]
    assert (start[found.spell] + 12 <= entry).all() and found.left_out == len(starters(spells)) - len(found.spell)
    assert found.persons == len(np.unique(spells.person[found.spell]))
    first, without = start[found.spell].min(), np.minimum(spells.stop, start)
    counted = [len(np.unique(spells.person[without > first + k])) for k in range(12)]
    assert found.compared.tolist() == counted
    with pytest.raises(DesignError) as caught:
        answers(layout, fit, horizon=since + 1)
    assert caught.value.faults[0].code == "duration.horizon"
    assert answers(layout, fit, horizon=caught.value.faults[0].params["longest"]).persons > 0


def test_wait_needs_a_start_rate_and_the_model_its_own_spells():
    spells = example.spells(60)
    plain = replace(spells, instruments=(replace(spells.instrument, modelled=False),))
    layout = Layout(plain, example.LINE)
    fit = example.hazards(layout, 1)
    assert answers(layout, fit, horizon=5).persons > 0
    with pytest.raises(UsageError) as caught:
        answers(layout, fit, horizon=5, versus="wait")
    assert caught.value.faults[0].code == "duration.no_start_model"
    with pytest.raises(UsageError) as caught:
        answers(Layout(spells, example.LINE), fit, horizon=5)
    assert caught.value.faults[0].code == "duration.other_layout"


@pytest.mark.parametrize(("timing", "link"), [("exact", "hazard"), ("grouped", "hazard"), ("grouped", "logit")])
def test_likelihood_of_stretches(timing, link):
    """Against the sum over periods, and its derivative against differences."""
    rng = np.random.default_rng(3)
    rows = 60
    event = rng.integers(-1, 4, rows)
    at_risk = rng.random((rows, 4)) < 0.8
    at_risk[event >= 0, event[event >= 0]] = True
    length = rng.integers(1, 5, rows).astype(float)
    order = np.array([0, 0, 1, 1])
    made = Histories(
        np.arange(rows), length, event, at_risk, np.zeros(rows, bool), (dense(np.zeros((rows, 0)), []),) * 4,
        ("a", "b", "c", "d"), order, np.ones(rows), np.arange(rows), np.arange(rows), timing=timing,
    )  # fmt: skip
    eta = rng.normal(-1.5, 0.7, (rows, 4))
    value, score = stretches(made, eta, link)
    for r in range(rows):
        h = np.where(at_risk[r], np.exp(eta[r]), 0.0)
        total = 0.0
        if timing == "exact":
            total = (eta[r, event[r]] if event[r] >= 0 else 0.0) - length[r] * h.sum()
        else:
            for period in range(int(length[r])):
                last = period + 1 == length[r]
                for own in (0, 1):
                    part = np.where(order == own, h, 0.0)
                    stays = -np.log1p(part.sum()) if link == "logit" else -part.sum()
                    if last and event[r] >= 0 and order[event[r]] == own:
                        chance = (
                            part[event[r]] / (1 + part.sum())
                            if link == "logit"
                            else part[event[r]] / part.sum() * -np.expm1(-part.sum())
                        )
                        total += np.log(chance)
                        break
                    total += stays
        assert value[r] == pytest.approx(total, abs=1e-12)
    for k in range(4):
        step = 1e-6 * (np.arange(4) == k)
        numeric = (stretches(made, eta + step, link)[0] - stretches(made, eta - step, link)[0]) / 2e-6
        assert np.where(at_risk[:, k], score[:, k], 0) == pytest.approx(numeric, abs=1e-8)


def test_starts_that_are_not_seen_do_not_count():
    spells = example.spells(50)
    assert ((spells.started[0] < spells.stop) | (spells.started[0] == NEVER) | (spells.cause < 0)).all()


def test_stock_with_hidden_groups_whose_earlier_spell_takes_no_part():
    """A spell under way in which an instrument had started is not among the histories; the starter still is."""
    spells = example.spells(300, two=True, repeat=0.4)
    entry = np.where(np.arange(300) % 2 == 0, np.minimum(4, spells.stop - 1), 0)
    layout = Layout(replace(spells, entry=entry), replace(example.LINE, calendar="none"))
    fit = example.hazards(layout, 2)
    found = answers(layout, fit, horizon=6)
    assert found.persons > 10 and np.isfinite(found.of["any"].std_error).all()
