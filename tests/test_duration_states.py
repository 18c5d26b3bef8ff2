"""States: shares against R and plain loops, months with and without the instrument by plain recursion."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from naive import duration_states as naive
from simulation.cover_states import STATES, STEPS, early, municipality, truth
from tolerances import EXACT, MONTE_CARLO, REFERENCE, SOLVED

from evalkit.duration.hazards import fit_hazards
from evalkit.duration.likelihood import stretches
from evalkit.duration.spells import NEVER, Instrument
from evalkit.duration.states.effects import _paths, _patterns, starters, state_effects, supported
from evalkit.duration.states.layout import Journeys, Layout, Steps
from evalkit.duration.states.occupancy import occupancy
from evalkit.duration.states.stays import stays, stays_from_frame
from evalkit.duration.terms import dense, factor, joined
from evalkit.effects import generator
from evalkit.errors import DataError, DesignError, UsageError

FACTS = json.loads((Path(__file__).parent / "reference" / "duration_states.json").read_text("utf-8"))
DATA = pd.DataFrame(FACTS["data"])
DATA["goes"] = [FACTS["states"][goes - 1] if goes else "" for goes in DATA["goes"]]
FINE = Steps(duration=(2, 6, 12), stay=(1, 4), calendar="quarter", least=3)


def made(frame=DATA, **columns):
    return stays_from_frame(
        frame, states=FACTS["states"], person="id", state="from", start="start", stop="stop", next="goes", **columns
    )


def agrees(found, reference):
    """Within 1e-6 of the larger of the number and its standard error."""
    share, error = (np.array(reference[name]).T for name in ("share", "std_error"))
    assert (np.abs(found.share[0] - share) <= REFERENCE * np.maximum(share, error)).all()
    assert (np.abs(found.std_error[0] - error) <= REFERENCE * error + EXACT).all()


def test_inflow_is_r_s():
    first = DATA.drop_duplicates("id").set_index("id")
    own = first.index[(first["start"] == 0) & (first["from"] == "benefit")]
    agrees(occupancy(made(DATA[DATA["id"].isin(own)]), FACTS["inflow"]["times"]), FACTS["inflow"])


def test_late_entry_is_r_s_where_the_first_shares_are_known():
    before = occupancy(made(), [0.25]).share[0, :, 0]
    assert before == pytest.approx([0.8, 0.0, 0.2, 0.0], abs=EXACT)
    agrees(occupancy(made(), FACTS["late"]["times"], start=before), FACTS["late"])


@pytest.mark.parametrize(("name", "columns"), [("late", {}), ("weighted", {"weight": "weight", "cluster": "cluster"})])
def test_where_people_begin_is_estimated_too(name, columns):
    reference = {"share": FACTS[name]["share"], "std_error": FACTS[f"{name}_full"]}
    agrees(occupancy(made(**columns), FACTS[name]["times"]), reference)


def test_groups_are_r_s_and_do_not_touch_each_other():
    group = DATA.drop_duplicates("id").sort_values("id")["group"].to_numpy()
    found = occupancy(made(), FACTS["late"]["times"], group=group)
    assert found.groups == ("even", "odd")
    for number, name in enumerate(found.groups):
        rows = [k for k, each in enumerate(FACTS["groups"]["strata"]) if each == f"group={name}"]
        assert found.share[number] == pytest.approx(np.array(FACTS["groups"]["share"])[rows].T, abs=EXACT)
    assert found.std_error[0] == pytest.approx(np.array(FACTS["even_full"]).T, rel=REFERENCE, abs=EXACT)
    cubes = found.influence.values.reshape(-1, *found.share.shape)
    assert not cubes[group == "odd", 0].any() and not cubes[group == "even", 1].any()
    assert found.persons.tolist() == [(group == name).sum() for name in found.groups]


def test_from_a_later_time_is_r_s():
    reference = FACTS["from_benefit"]
    agrees(occupancy(made(), reference["times"], start="benefit", since=4.25), reference)


def test_people_found_in_a_state_are_r_s():
    reference = FACTS["found"]
    found = occupancy(made(), reference["times"], start="benefit", since=4.25, only_there=True)
    agrees(found, reference)
    there = (DATA["start"] <= 4.25) & (DATA["stop"] > 4.25) & (DATA["from"] == "benefit")
    assert found.persons[0] == there.sum()


def test_expected_months_are_r_s_area():
    found = occupancy(made(), [7.0, 12.0], since=4.25)
    assert found.months[0, :, 1] == pytest.approx(FACTS["area"]["months"], rel=SOLVED)
    assert found.months.sum(axis=1)[0] == pytest.approx([2.75, 7.75], rel=EXACT)
    assert found.share.sum(axis=1)[0] == pytest.approx([1, 1], rel=EXACT)


def test_shares_and_months_are_the_plain_products():
    number = {name: k for k, name in enumerate(FACTS["states"])} | {"": -1}
    rows = [(r.id, number[r._4], r.start, r.stop, number[r.goes], r.weight) for r in DATA.itertuples()]
    begin = [0.5, 0.0, 0.5, 0.0]
    times = [2.0, 5.0, 8.25]
    found = occupancy(made(weight="weight"), times, start=begin, since=1.5)
    assert found.share[0].T == pytest.approx(np.array(naive.occupancy(rows, 4, times, begin, 1.5)), abs=EXACT)
    for k, until in enumerate(times):
        assert found.months[0, :, k] == pytest.approx(naive.months(rows, 4, until, begin, 1.5), abs=EXACT)


def test_influence_is_the_derivative_in_weights():
    found = occupancy(made(), [2.0, 6.0, 11.0])
    for person in (2, 7, 30):
        ends = []
        for step in (1e-5, -1e-5):
            moved = DATA.assign(weight=np.where(DATA["id"] == person, 1 + step, 1.0))
            ends.append(occupancy(made(moved, weight="weight"), [2.0, 6.0, 11.0]))
        place = found.influence.ids.tolist().index(person)
        share = (ends[0].share - ends[1].share).ravel() / 2e-5
        area = (ends[0].months - ends[1].months).ravel() / 2e-5
        assert found.influence.values[place] == pytest.approx(share, abs=1e-9)  # central differences
        assert found.months_influence.values[place] == pytest.approx(area, abs=1e-8)
        assert np.abs(share).max() > 1e-4


def test_rows_in_any_order_and_split_stays_give_the_same():
    one = occupancy(made(), [3.0, 9.0])
    two = occupancy(made(DATA.sample(frac=1, random_state=1)), [3.0, 9.0])
    assert (one.share == two.share).all() and (one.influence.values == two.influence.values).all()
    without = stays(DATA["id"], DATA["from"], DATA["start"], DATA["stop"], states=FACTS["states"][:3])
    moved = DATA["goes"].to_numpy().copy()
    moved[moved == "out"] = ""
    again = stays(DATA["id"], DATA["from"], DATA["start"], DATA["stop"], moved, states=FACTS["states"][:3])
    assert (without.next == again.next).all() and (without.moves == made().moves[:3, :3]).all()


def test_moments_that_differ_by_rounding_are_one():
    third = 0.1 + 0.2
    found = stays([1, 1, 2], ["a", "b", "a"], [0, 0.3, 0], [third, 1, 1], states=["a", "b"])
    assert found.start[1] == third and found.next.tolist() == [1, -1, -1]


def test_all_that_is_wrong_with_stays_is_told_at_once():
    frame = pd.DataFrame(
        [
            (1, "a", 0, 2, "b"), (1, "b", 3, 4, ""),  # gap
            (2, "a", 0, 2, "b"), (2, "b", 1, 4, ""),  # overlap
            (3, "a", 2, 2, "b"),  # no length
            (4, "a", 0, 2, "a"),  # to itself
            (5, "a", 0, 2, "x"),  # not a state
            (6, "a", 0, 2, "c"), (6, "b", 2, 4, ""),  # not what follows
            (7, "a", 0, 9, "b"),  # after the close
        ],
        columns=["id", "from", "start", "stop", "goes"],
    )  # fmt: skip
    frame["weight"] = [1.0] * 9 + [0.0]
    frame["already"] = [0.0] * 9 + [-1.0]
    frame["cluster"] = [1, 2, *range(8)]
    with pytest.raises(DataError) as caught:
        stays_from_frame(
            frame, states=["a", "b", "c", "d"], person="id", state="from", start="start", stop="stop", next="goes",
            weight="weight", already="already", cluster="cluster", last=8,
        )  # fmt: skip
    codes = {fault.code: dict(fault.params) for fault in caught.value.faults}
    assert codes == {
        "duration.states_unknown": {"known": "a, b, c, d"}, "duration.zero_length": {"rows": 1},
        "duration.states_gap": {"persons": 1}, "duration.states_overlap": {"persons": 1},
        "duration.states_next": {"persons": 1}, "duration.states_same": {"rows": 1},
        "duration.states_nobody": {"state": "d"}, "duration.weight": {"rows": 1},
        "duration.states_already": {"rows": 1}, "duration.after_close": {"rows": 1},
        "duration.states_cluster": {"persons": 3},
    }  # fmt: skip
    for lang in ("en", "nl"):
        assert "{" not in caught.value.text(lang)


def test_stays_without_moves_or_with_empty_times():
    with pytest.raises(DataError, match="states_no_moves"):
        stays([1, 2], ["a", "b"], [0, 0], [1, 1], states=["a", "b"])
    with pytest.raises(DataError, match="not_a_number"):
        stays([1], ["a"], [np.nan], [1], ["b"], states=["a", "b"])


@pytest.mark.parametrize(
    ("settings", "error", "code"),
    [
        ({"times": [3, 2]}, UsageError, "states_times"),
        ({"times": [2], "since": 3.0}, UsageError, "states_times"),
        ({"times": [8], "since": 3.0, "only_there": True}, UsageError, "states_landmark"),
        ({"times": [8], "start": [0.5, 0.2, 0.2, 0.2]}, UsageError, "states_shares"),
        ({"times": [8], "start": "job"}, DataError, "states_unknown"),
        ({"times": [8], "since": 3.0, "start": "out", "only_there": True}, DesignError, "states_nobody_there"),
        ({"times": [40]}, DesignError, "states_horizon"),
    ],
)
def test_occupancy_refuses(settings, error, code):
    with pytest.raises(error, match=code):
        occupancy(made(), **settings)


def test_the_longest_time_is_named_unless_everybody_is_gone():
    longest = DATA["stop"].max()
    with pytest.raises(DesignError, match=f"longest horizon is {longest:g}"):
        occupancy(made(), [longest + 1])
    gone = stays([1, 2], ["a", "a"], [0, 0], [2, 3], ["b", "b"], states=["a", "b"])
    assert occupancy(gone, [10.0]).share[0, :, 0].tolist() == [0.0, 1.0]


# With and without an instrument


@pytest.fixture(scope="module")
def journeys():
    own = municipality(400, generator(1, "states"), True)
    begin = np.arange(400) % 7
    return replace(own, instrument=replace(own.instrument, bounds=(6,)), begin=begin)


@pytest.fixture(scope="module")
def layout(journeys):
    return Layout(journeys, FINE)


@pytest.fixture(scope="module")
def fitted(layout):
    return fit_hazards(layout.histories())


def predictors(layout, fitted, person):
    """Linear predictors of one person by plain look-up: (state, month, months there, since) and (month, months)."""
    journeys, steps = layout.journeys, layout.steps
    x = journeys.x.take(np.array([person])).matrix()[0]
    length, begin = int(journeys.instrument.length[person]), int(journeys.begin[person])

    def value(risk, month, spent, since):
        own, theta = layout.columns[risk], fitted.theta[risk]
        total = fitted.points[0, risk] + sum(theta[c] * each for c, each in zip(own.x, x, strict=True) if c >= 0)
        levels = [
            own.duration[sum(month >= bound for bound in steps.duration)],
            own.stay[sum(spent >= bound for bound in steps.stay)],
            own.calendar[(begin + month) % 12 // 3],
        ]
        if since >= 0:
            levels.append(own.effect[0 if since < length else 1 if since < length + 6 else 2])
        return total + sum(theta[c] for c in levels if c >= 0)

    pairs = layout.pairs.tolist()

    def moves(state, month, spent, since):
        return [(b, value(r, month, spent, since)) for r, (a, b) in enumerate(pairs) if a == state]

    return moves, lambda month, spent: value(len(pairs), month, spent, -1)


def test_stretches_are_the_months(layout, fitted):
    """The likelihood of the stretches is that of all months of all people, one by one."""
    journeys = layout.journeys
    histories = layout.histories()
    eta = np.column_stack([
        design.predict(theta) + point
        for design, theta, point in zip(histories.designs, fitted.theta, fitted.points[0], strict=True)
    ])  # fmt: skip
    total = 0.0
    own, started = journeys.stays, journeys.started
    events = 0
    for row in range(len(own)):
        person = int(own.person[row])
        moves, start = predictors(layout, fitted, person)
        for month in range(int(own.start[row]), int(own.stop[row])):
            spent, since = month - int(own.start[row]), month - int(started[person])
            chances = [(to, math.exp(v)) for to, v in moves(int(own.state[row]), month, spent, max(since, -1))]
            hazard = sum(h for _, h in chances)
            if month + 1 == own.stop[row] and own.next[row] >= 0:
                total += math.log(dict(chances)[int(own.next[row])] / hazard * -math.expm1(-hazard))
                events += 1
                continue
            total -= hazard
            if own.state[row] == 0 and since < 0:
                h = math.exp(start(month, spent))
                total += math.log(-math.expm1(-h)) if since == -1 else -h
                events += since == -1
    assert stretches(histories, eta, "hazard")[0].sum() == pytest.approx(total, rel=EXACT)
    assert fitted.log_likelihood == pytest.approx(total, rel=EXACT)
    assert (histories.event >= 0).sum() == events


@pytest.mark.parametrize("link", ["hazard", "logit"])
@pytest.mark.parametrize("versus", ["never", "wait"])
def test_shares_ahead_are_the_tree_of_what_can_happen(layout, fitted, link, versus):
    model = replace(fitted, link=link)
    own = early(layout.journeys)[:5]
    found = state_effects(layout, model, horizon=9, versus=versus, person=own)
    on, off = np.zeros((9, 4)), np.zeros((9, 4))
    for person in own.tolist():
        moves, start = predictors(layout, model, person)
        month = int(layout.journeys.started[person])
        spent = month - int(layout.journeys.stays.start[layout.journeys.stay[person]])
        on += naive.ahead(moves, None, 0, 0, month, spent, 0, 9, 4, link, {})
        other = start if versus == "wait" else None
        off += naive.ahead(moves, other, 0, 0, month, spent, -1, 9, 4, link, {})
    assert found.started.T == pytest.approx(on / 5, abs=EXACT)
    assert found.versus.T == pytest.approx(off / 5, abs=EXACT)
    assert np.abs(found.effect).max() > 0.01


@pytest.mark.parametrize("versus", ["never", "wait"])
def test_gradient_is_that_of_small_steps(layout, fitted, versus):
    pattern, _, counts = _patterns(layout, early(layout.journeys)[:10], 6)
    share = counts / counts.sum()

    def moved(theta, link):
        edges = fitted.offsets
        own = tuple(theta[a:b] for a, b in zip(edges, edges[1:], strict=False))
        model = replace(fitted, theta=own, points=theta[edges[-1] :][None], link=link)
        return _paths(layout, model, pattern, share, 6, versus == "wait")

    for link in ("hazard", "logit"):
        theta = fitted.packed
        gradient = moved(theta, link)[2]
        for p in range(len(theta)):
            step = 1e-5 * (np.arange(len(theta)) == p)
            ends = [moved(theta + sign * step, link) for sign in (1, -1)]
            effect = [np.einsum("i,iak->ka", share, (on - off)[:, :3]).ravel() for on, off, _ in ends]
            assert gradient[p] == pytest.approx((effect[0] - effect[1]) / 2e-5, abs=1e-9), fitted.labels[p]


def test_people_are_somewhere(layout, fitted):
    found = state_effects(layout, fitted, horizon=12, versus="wait", person=early(layout.journeys))
    for shares in (found.started, found.versus):
        assert shares.sum(axis=0) == pytest.approx(np.ones(12), rel=EXACT) and (shares >= 0).all()
    cubes = found.influence.values.reshape(-1, 4, 12)
    assert np.abs(cubes.sum(axis=1)).max() < EXACT and np.abs(found.effect.sum(axis=0)).max() < EXACT
    months = [found.months_in(name) for name in STATES]
    assert sum(each.started for each in months) == pytest.approx(np.arange(1, 13), rel=EXACT)
    assert months[0].std_error[0] == pytest.approx(found.std_error[0, 0], rel=EXACT)
    assert found.of("regular").effect.tolist() == found.effect[2].tolist()
    assert found.of("regular").std_error == pytest.approx(found.std_error[2], rel=EXACT)
    with pytest.raises(UsageError, match="states_unknown"):
        found.of("work")


def test_influence_is_what_leaving_somebody_out_does(journeys):
    """Leaving one person out of everything, starters and model, moves the effects by his influence."""
    steps = Steps(duration=(12,), stay=(), least=1)

    def run(keep):
        rows = np.flatnonzero(keep[journeys.stays.person])
        number = np.cumsum(keep) - 1
        own = replace(
            journeys.stays.take(rows), person=number[journeys.stays.person[rows]],
            person_ids=journeys.stays.person_ids[keep], cluster=np.arange(keep.sum()),
            cluster_ids=journeys.stays.cluster_ids[keep],
        )  # fmt: skip
        instrument = replace(
            journeys.instrument, start=journeys.instrument.start[keep], length=journeys.instrument.length[keep],
            clock="start", bounds=(),
        )  # fmt: skip
        left = replace(journeys, stays=own, begin=journeys.begin[keep], x=journeys.x.take(np.flatnonzero(keep)),
                       instrument=instrument)  # fmt: skip
        layout = Layout(left, steps)
        return state_effects(layout, fit_hazards(layout.histories()), horizon=10, versus="wait")

    everybody = np.ones(journeys.stays.persons, bool)
    whole = run(everybody)
    started = starters(journeys)
    for person in [*started[:3].tolist(), *np.setdiff1d(np.arange(40), started)[:3].tolist()]:
        keep = everybody.copy()
        keep[person] = False
        gone = (whole.effect - run(keep).effect).ravel()
        influence = whole.influence.values[person]
        assert np.abs(gone).max() > 1e-5
        assert np.abs(gone - influence).max() < 0.12 * np.abs(influence).max(), person  # second order, 1 in 400


def test_coarser_clusters_sum_the_influence_of_persons(journeys):
    cluster = np.arange(400) % 20
    own = replace(journeys.stays, cluster=cluster, cluster_ids=np.arange(20), level="district")
    one, two = Layout(journeys, FINE), Layout(replace(journeys, stays=own), FINE)
    found = [state_effects(each, fit_hazards(each.histories()), horizon=6) for each in (one, two)]
    summed = np.zeros((20, 24))
    np.add.at(summed, cluster, found[0].influence.values)
    assert found[1].influence.level == "district"
    assert found[1].influence.values == pytest.approx(summed, abs=SOLVED)


def test_starters_with_the_same_path_are_worked_out_once():
    own = municipality(600, generator(2, "states"), True)
    x = factor(np.arange(600) % 3, ["a", "b", "c"])
    layout = Layout(replace(own, x=x), STEPS)
    model = fit_hazards(layout.histories())
    chosen = early(layout.journeys)
    pattern, which, counts = _patterns(layout, chosen, 6)
    assert len(pattern) < len(chosen) == counts.sum()
    found = state_effects(layout, model, horizon=6, person=chosen)
    one = [state_effects(layout, model, horizon=6, person=chosen[k : k + 1]).effect for k in range(len(chosen))]
    assert found.effect == pytest.approx(np.mean(one, axis=0), abs=EXACT)
    assert [round(each[0, 5], 12) for each in one] == [
        round(one[int(np.flatnonzero(which == w)[0])][0, 5], 12) for w in which
    ]


def test_a_step_a_month_gives_the_shares_without_a_model():
    """Without covariates and effects and with a step a month the model is Aalen and Johansen's estimator."""
    own = municipality(1500, generator(3, "states"), True)
    start = np.where(np.arange(1500) % 10 == 0, 0, own.instrument.start)
    journeys = replace(
        own, x=dense(np.zeros((1500, 0)), []), instrument=Instrument("training", start, own.instrument.length)
    )
    pairs = np.argwhere(own.stays.moves > 0)
    moves = tuple(f"{STATES[a]} -> {STATES[b]}" for a, b in pairs.tolist())
    layout = Layout(journeys, Steps(duration=(1, 2, 3, 4, 5), stay=(), unaffected=moves, least=1))
    assert not [each for each in layout.joined if "-> benefit" in each and "subsidised" not in each][1:]
    model = fit_hazards(layout.histories())
    first = np.flatnonzero(journeys.started == 0)
    found = state_effects(layout, model, horizon=4, person=first)
    shares = occupancy(own.stays, [1, 2, 3, 4], start="benefit", since=0.0).share[0]
    # nobody can move out of a job in month 0: that step joins the next, and is not read
    assert found.started == pytest.approx(shares, abs=SOLVED)
    assert not found.effect.any() and np.abs(found.influence.values).max() < EXACT


def test_no_effect_on_any_move_is_no_effect(layout, fitted):
    theta = []
    for own, columns in zip(fitted.theta, layout.columns, strict=True):
        each = own.copy()
        each[columns.effect[columns.effect >= 0]] = 0.0
        theta.append(each)
    for versus in ("never", "wait"):
        found = state_effects(layout, replace(fitted, theta=tuple(theta)), horizon=10, versus=versus)
        assert np.abs(found.effect).max() < EXACT
        assert found.std_error[0, 9] > 0.001  # that it is none is still an estimate


def test_truth_is_found_in_a_large_municipality():
    """One large draw: every month within what chance allows, for both comparisons."""
    true = truth(20_000, True)
    layout = Layout(municipality(4_000, generator(4, "states"), True), STEPS)
    model = fit_hazards(layout.histories())
    for versus in ("never", "wait"):
        found = state_effects(layout, model, horizon=24, versus=versus, person=early(layout.journeys)[:400])
        error = np.hypot(found.std_error, true[f"{versus} error"])
        assert (np.abs(found.effect - true[versus]) < MONTE_CARLO * error).all(), versus
        assert (np.abs(found.effect[:3, [1, 11, 23]]) > 2 * error[:3, [1, 11, 23]]).mean() > 0.5


def test_phases_and_steps_with_few_events_are_joined():
    own = municipality(300, generator(5, "states"), True)
    layout = Layout(own, Steps(duration=(1, 2, 30), stay=(3,), least=10))
    assert "benefit -> out: month 30+" in layout.joined or "subsidised -> regular: month 30+" in layout.joined
    histories = layout.histories()
    for number, (name, columns) in enumerate(zip(layout.risks, layout.columns, strict=True)):
        own = np.flatnonzero(histories.event == number)
        counts = histories.designs[number].take(own).sums(np.ones(len(own)))[0]
        for kind in ("duration", "stay", "effect"):
            steps = np.unique(getattr(columns, kind))
            steps = steps[steps >= 0]
            alone = kind == "effect" and len(steps) == 1
            assert alone or (counts[steps] >= 10).all(), (name, kind)
    assert np.isfinite(fit_hazards(histories).std_error).all()


def test_levels_without_events_join_the_reference():
    own = municipality(500, generator(6, "states"), True)
    moved = np.unique(own.stays.person[(own.stays.state == 2) & (own.stays.next == 3)])
    group = np.arange(500) % 3
    group[moved] = 1  # only the second level ever leaves a regular job for good
    layout = Layout(replace(own, x=factor(group, ["a", "b", "c"])), STEPS)
    place = layout.risks.index("regular -> out")
    assert not [name for name in layout.columns[place].names if name in ("b", "c")]
    assert {"regular -> out: b", "regular -> out: c"} <= set(layout.joined)
    assert np.abs(np.concatenate(fit_hazards(layout.histories()).theta)).max() < 10


def test_months_in_the_state_that_follow_from_months_since_entry_are_left_out():
    person = np.arange(60)
    stop = 1 + person * 7 % 9
    goes = np.where(person % 3 == 0, "", np.where(person % 3 == 1, "job", "out"))
    own = stays(person, ["benefit"] * 60, [0] * 60, stop, goes, states=["benefit", "job", "out"])
    journeys = Journeys(
        own, np.zeros(60), dense(np.zeros((60, 0)), []),
        Instrument("training", np.where(person % 2 == 0, 1, NEVER), np.zeros(60), bounds=()), "benefit",
    )  # fmt: skip
    layout = Layout(journeys, Steps(duration=(3,), stay=(3,), least=1))
    assert "benefit -> job: in state 3+" in layout.joined
    assert layout.columns[0].names == ("month 3+", "training 0+")


def test_people_found_on_benefit_had_been_there():
    """Late entry: months in the state count from before observation, and the instrument may have begun before it."""
    own = stays(
        [1, 1, 2, 3, 4], ["benefit", "job", "benefit", "benefit", "benefit"], [5, 9, 0, 4, 0], [9, 12, 8, 7, 3],
        ["job", "", "job", "job", "job"], states=["benefit", "job"], already=[5, 0, 0, 1, 0],
    )  # fmt: skip
    instrument = Instrument("training", [7, 2, 1, NEVER], np.zeros(4), bounds=(3,))
    journeys = Journeys(own, np.zeros(4), dense(np.zeros((4, 0)), []), instrument, "benefit")
    assert journeys.started.tolist() == [7, 2, 1, NEVER]
    assert starters(journeys).tolist() == [0, 1]  # the third began before he came in view
    layout = Layout(journeys, Steps(duration=(), stay=(6,), least=1))
    cut = layout._cut
    third = cut.person == 2
    assert cut.levels["effect"][third].tolist() == [1] and not cut.at_risk[third, -1].any()
    first = (cut.person == 0) & (cut.row == 0)
    assert cut.low[first].tolist() == [5, 6, 7] and cut.levels["stay"][first].tolist() == [0, 1, 1]
    assert cut.event[first].tolist() == [-1, 1, 0]


def test_who_leaves_in_the_month_before_did_not_start(journeys):
    own = journeys.stays
    left = np.flatnonzero((own.state == 0) & (own.next > 0) & (own.start == 0))[:4]
    start = journeys.instrument.start.copy()
    start[own.person[left]] = own.stop[left].astype(int)
    moved = replace(journeys, instrument=replace(journeys.instrument, start=start))
    assert (moved.started[own.person[left]] == NEVER).all()
    start[own.person[left]] += 1
    there = own.state[left + 1] != 0
    if (there & (own.stop[left + 1] > start[own.person[left]])).any():
        with pytest.raises(DataError, match="states_start_elsewhere"):
            replace(journeys, instrument=replace(journeys.instrument, start=start)).started  # noqa: B018


def test_journeys_refuse(journeys):
    size = journeys.stays.persons
    with pytest.raises(DesignError, match="no_start"):
        replace(journeys, instrument=replace(journeys.instrument, start=np.full(size, NEVER)))
    with pytest.raises(DataError, match="states_unknown"):
        replace(journeys, where="work")
    with pytest.raises(UsageError, match="states_weights"):
        replace(journeys, stays=replace(journeys.stays, weight=journeys.stays.weight * 2))
    with pytest.raises(DataError, match="states_months"):
        replace(journeys, stays=replace(journeys.stays, stop=journeys.stays.stop + 0.5))
    with pytest.raises(ValueError, match="one row a person"):
        replace(journeys, begin=journeys.begin[1:])


def test_a_layout_refuses(journeys):
    with pytest.raises(UsageError, match="states_move_unknown"):
        Layout(journeys, Steps(unaffected=("regular -> subsidised",)))
    with pytest.raises(UsageError, match="bounds"):
        Steps(stay=(3, 2))
    late = np.where(journeys.instrument.start < NEVER, 55, NEVER)
    stay = journeys.stays
    on = np.zeros(400, bool)
    on[stay.person[(stay.start <= 55) & (stay.stop > 55) & (stay.state == 0)]] = True
    few = replace(journeys, instrument=replace(journeys.instrument, start=np.where(on, late, NEVER)))
    with pytest.raises(DesignError, match="states_no_effect"):
        Layout(few, FINE)


def test_effects_refuse(layout, fitted):
    journeys = layout.journeys
    since_entry, since_start = supported(journeys)
    first = int(journeys.started[starters(journeys)].min())
    longest = min(since_start, since_entry - first)
    with pytest.raises(DesignError, match=f"longest horizon is {longest}"):
        state_effects(layout, fitted, horizon=70)
    found = state_effects(layout, fitted, horizon=longest)
    assert found.longest == longest and found.left_out > 0
    assert len(found.person) + found.left_out == len(starters(journeys))
    assert (np.diff(found.compared) <= 0).all() and found.compared[0] > found.compared[-1]
    with pytest.raises(UsageError, match="states_layout"):
        state_effects(Layout(journeys, Steps(least=400)), fitted, horizon=6)
    with pytest.raises(UsageError, match="states_not_started"):
        state_effects(layout, fitted, horizon=6, person=np.flatnonzero(journeys.started == NEVER)[:1])
    points = replace(
        fitted, points=np.tile(fitted.points, (2, 1)), shares=np.array([0.5, 0.5]),
        influence=replace(fitted.influence, values=np.zeros((1, len(fitted.packed) + len(fitted.risks) + 1)),
                          ids=np.zeros(1)),
        information=np.zeros((len(fitted.packed) + len(fitted.risks) + 1,) * 2),
    )  # fmt: skip
    with pytest.raises(UsageError, match="states_points"):
        state_effects(layout, points, horizon=6)


def test_the_same_twice_is_the_same_to_the_bit(layout, fitted):
    one, two = (state_effects(layout, fitted, horizon=8, versus="wait") for _ in range(2))
    assert (one.influence.values == two.influence.values).all() and (one.effect == two.effect).all()


def test_several_covariates_of_both_kinds(journeys):
    """Two factors and two numbers: columns end where they belong."""
    size = journeys.stays.persons
    numbers = generator(8, "x").normal(size=(size, 2))
    x = joined(factor(np.arange(size) % 2, ["p", "q"]), dense(numbers, ["u", "v"]), factor(np.arange(size) % 5 // 2,
               ["k", "l", "m"]))  # fmt: skip
    layout = Layout(replace(journeys, x=x), STEPS)
    model = fit_hazards(layout.histories())
    own = early(layout.journeys)[:3]
    found = state_effects(layout, model, horizon=4, person=own)
    by_hand = np.zeros((4, 4))
    steps = layout.steps
    for person in own.tolist():
        values = x.take(np.array([person])).matrix()[0]
        month = int(layout.journeys.started[person])
        spent = month - int(layout.journeys.stays.start[layout.journeys.stay[person]])
        length = int(layout.journeys.instrument.length[person])

        def moves(state, at, there, since, values=values, length=length):
            out = []
            for r, (a, b) in enumerate(layout.pairs.tolist()):
                if a != state:
                    continue
                named = dict(zip(layout.columns[r].names, model.theta[r], strict=True))
                total = model.points[0, r] + sum(named.get(n, 0.0) * v for n, v in zip(x.names, values, strict=True))
                columns = layout.columns[r]
                past = since - length
                phase = 0 if past < 0 else 1 if past < 6 else 2
                for c in (columns.duration[sum(at >= q for q in steps.duration)],
                          columns.stay[sum(there >= q for q in steps.stay)], columns.effect[phase]):  # fmt: skip
                    total += model.theta[r][c] if c >= 0 else 0.0
                out.append((b, total))
            return out

        by_hand += naive.ahead(moves, None, 0, 0, month, spent, 0, 4, 4, "hazard", {})
    assert found.started.T == pytest.approx(by_hand / 3, abs=EXACT)
