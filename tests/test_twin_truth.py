"""The known effect of a twin: against a slow exact twin in plain loops, against draws, and against the matching run."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evalkit import register, simulate
from evalkit import study as studies
from evalkit.calendar import add_months, day_number, to_days, whole_months
from evalkit.run import run
from evalkit.simulate import Aggregates, Effect
from evalkit.simulate.blueprint import blueprint
from evalkit.simulate.model import STEPS, Law
from evalkit.simulate.people import cells, margin
from evalkit.simulate.renewal import Arrivals, renewed_truth
from evalkit.simulate.truth import BLOCK
from evalkit.study import Study, template

pytestmark = pytest.mark.slow

MONTHS, STARTS, HORIZON = 4, 3, 2
KINDS = 3


def small_law() -> Law:
    """Two cells, three months of starts, rates that change every month, returns that differ by kind of exit."""
    rng = np.random.default_rng(3)
    span = 2 * MONTHS + STARTS + 1
    share, work, start = np.zeros(BLOCK), np.zeros(BLOCK), np.zeros(BLOCK)
    share[:2], work[:2], start[:2] = (0.7, 0.3), (0.5, 1.3), (1.5, 0.6)
    return Law(
        levels={}, share=share, work=work, start=start, duration=rng.uniform(0.2, 0.6, span),
        start_elapsed=rng.uniform(0.2, 0.8, span), calendar=np.ones(1), start_calendar=np.ones(1),
        path=rng.uniform(0.4, 2.0, (KINDS, span)), others=np.ones(2), others_duration=rng.uniform(0.05, 0.3, (2, span)),
        back=np.zeros(KINDS), again=np.zeros(KINDS), coach=0.0, first=0, entries=MONTHS, starts=STARTS,
        returns=rng.uniform(0.0, 0.2, (KINDS, MONTHS * STEPS)),
    )  # fmt: skip


def small_arrivals(numbers: tuple[int, int]) -> Arrivals:
    rng = np.random.default_rng(4)
    steps = STARTS * STEPS
    counted = [rng.random((MONTHS, steps)), rng.random((MONTHS, steps))]
    stock = [(1, 0.1), (2, 0.15)]
    of_stock = np.array([rng.random(steps) * (np.arange(steps) >= elapsed * STEPS) for elapsed, _ in stock])
    return Arrivals(np.array([0.2, 0.1, 0.3, 0.15]), stock, *counted, of_stock, numbers)


def exits(law: Law, cell: int, elapsed: int, begun: int) -> NDArray[np.float64]:
    """Chances of the three exits in a sub-step; ``begun`` = -1: not started. Written again, not imported."""
    month = elapsed // STEPS
    rates = np.array([law.work[cell] * law.duration[month], *law.others_duration[:, month]])
    if begun >= 0:
        rates = rates * law.path[:, (elapsed - begun) // STEPS]
    return rates / rates.sum() * -np.expm1(-rates.sum() / STEPS)


def starting(law: Law, cell: int, elapsed: int) -> float:
    month = elapsed // STEPS
    return 0.0 if month >= STARTS else float(-np.expm1(-law.start[cell] * law.start_elapsed[month] / STEPS))


def push(law: Law, cell: int, step: int, begun: int, free_from: int) -> NDArray[np.float64]:
    """Outcomes (3, K) of those on benefit at ``step`` by pushing every state forward, a sub-step at a time."""
    assert law.returns is not None
    on = {(True, step, begun): 1.0}  # in the first spell, sub-step since it began, sub-step of the start
    off: dict[tuple[int, int], float] = {}  # kind of exit, sub-steps since
    ever = left = 0.0
    out = np.zeros((3, HORIZON))
    for t in range(HORIZON * STEPS):
        away: dict[tuple[int, int], float] = defaultdict(float)
        now: dict[tuple[bool, int, int], float] = defaultdict(float)
        for (kind, since), chance in off.items():
            back = law.returns[kind, since]
            away[kind, since + 1] += chance * (1 - back)
            now[False, 0, -1] += chance * back
        for state, chance in on.items():
            now[state] += chance
        on = defaultdict(float)
        for (first, elapsed, start), chance in now.items():
            may = start < 0 and not (first and elapsed < free_from)
            begins = starting(law, cell, elapsed) if may else 0.0
            for at, part in ((elapsed, chance * begins), (start, chance * (1 - begins))):
                if not part:
                    continue
                gone = exits(law, cell, elapsed, at)
                for kind in range(KINDS):
                    away[kind, 0] += part * gone[kind]
                if first:
                    ever, left = ever + part * gone[0], left + part * gone.sum()
                on[first, elapsed + 1, at] += part * (1 - gone.sum())
        off = away
        if (t + 1) % STEPS == 0:
            assert abs(sum(on.values()) + sum(off.values()) - 1) < 1e-12
            out[:, t // STEPS] = ever, left, sum(on.values())
    return out


def following(law: Law, cell: int, elapsed: int) -> NDArray[np.float64]:
    """Chance that the next spell begins 0, 1, .. months later, from on benefit and not started after some months."""
    assert law.returns is not None
    found = np.zeros(MONTHS)
    states = {-1: 1.0}
    for t in range(MONTHS * STEPS):
        step = elapsed * STEPS + t
        later: dict[int, float] = defaultdict(float)
        for begun, chance in states.items():
            begins = starting(law, cell, step) if begun < 0 else 0.0
            for at, part in ((step, chance * begins), (begun, chance * (1 - begins))):
                if not part:
                    continue
                gone = exits(law, cell, step, at)
                later[at] += part * (1 - gone.sum())
                for kind in range(KINDS):
                    rest = part * gone[kind]
                    for u in range(1, MONTHS * STEPS - t):
                        found[(t + u) // STEPS] += rest * law.returns[kind, u - 1]
                        rest *= 1 - law.returns[kind, u - 1]
        states = later
    return found


def expected(law: Law, arrivals: Arrivals, versus: str) -> tuple[NDArray[np.float64], float]:
    """Mean outcomes (2, 3, K) of those who start, and how many there are a person."""
    sums, total = np.zeros((2, 3, HORIZON)), 0.0
    lowest, highest = arrivals.numbers
    for cell in range(2):
        weight = np.zeros(STARTS * STEPS)
        alive = np.ones(STARTS * STEPS + 1)
        for s in range(STARTS * STEPS):
            alive[s + 1] = alive[s] * (1 - starting(law, cell, s)) * (1 - exits(law, cell, s, -1).sum())
        if lowest == 0:
            weight += arrivals.inflow @ arrivals.counted_first
            for (elapsed, chance), counted in zip(arrivals.stock, arrivals.counted_stock, strict=True):
                weight += chance * counted / alive[elapsed * STEPS]
        begins = np.zeros(MONTHS)
        sources = [(month, chance, following(law, cell, 0)) for month, chance in enumerate(arrivals.inflow)]
        sources += [(0, chance, following(law, cell, elapsed)) for elapsed, chance in arrivals.stock]
        for month, chance, ahead in sources:
            begins[month:] += chance * ahead[: MONTHS - month]
        ahead = following(law, cell, 0)
        for number in range(1, 60):
            if lowest <= number <= highest:
                weight += begins @ arrivals.counted_later
            begins = np.convolve(begins, ahead)[:MONTHS]
        for s in range(STARTS * STEPS):
            mass = law.share[cell] * alive[s] * starting(law, cell, s) * weight[s]
            month_end = (s // STEPS + 1) * STEPS
            total += mass
            sums[0] += mass * push(law, cell, s, s, 0)
            sums[1] += mass * push(law, cell, s, -1, {"wait": month_end, "never": 10**6}[versus])
    return sums / total, total


@pytest.mark.parametrize(("versus", "numbers"), [("wait", (0, 10_000)), ("never", (0, 0)), ("wait", (1, 2))])
def test_truth_equals_an_exact_twin(versus: str, numbers: tuple[int, int]) -> None:
    law, arrivals = small_law(), small_arrivals(numbers)
    means, starters = expected(law, arrivals, versus)
    found = renewed_truth(law, arrivals, HORIZON, versus)  # type: ignore[arg-type]
    for i, name in enumerate(("left_to_work", "left", "on_benefit")):
        np.testing.assert_allclose(found[name].treated, means[0, i], rtol=0, atol=1e-10)
        np.testing.assert_allclose(found[name].counterfactual, means[1, i], rtol=0, atol=1e-10)
        assert found[name].starters == pytest.approx(starters, rel=1e-5)
    only = renewed_truth(law, arrivals, HORIZON, versus, back=False)  # type: ignore[arg-type]
    assert set(only) == {"left_to_work", "left"}
    np.testing.assert_allclose(only["left"].effect, found["left"].effect, rtol=0, atol=1e-12)


def test_kinds_of_exit_add_up() -> None:
    law, arrivals = small_law(), small_arrivals((0, 10_000))
    kinds = [renewed_truth(law, arrivals, HORIZON, first_kind=kind) for kind in range(3)]
    total = sum(one["left_to_work"].treated for one in kinds)
    np.testing.assert_allclose(total, kinds[0]["left"].treated, rtol=0, atol=1e-12)
    for one in kinds[1:]:
        np.testing.assert_allclose(one["on_benefit"].effect, kinds[0]["on_benefit"].effect, rtol=0, atol=1e-12)


# -- the law of a real study ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study() -> Study:
    return studies.parse(template("en"), "study.toml")


@pytest.fixture(scope="module")
def told(study: Study) -> Aggregates:
    original = simulate.draw(simulate.DEMO, 20_000, 8)
    tables = {"persons": original.persons, "benefits": original.benefits, "episodes": original.episodes}
    return simulate.aggregates(study, register.from_frames(study, **tables))


def test_cells_stand_for_all_combinations_of_the_columns(told: Aggregates) -> None:
    margins = [one for one in map(margin, told.columns) if one is not None]
    share, ratio = cells(margins)
    assert share.sum() == pytest.approx(1) and len(share) % BLOCK == 0
    rng = np.random.default_rng(1)
    drawn = np.zeros((200_000, 2))
    for one in margins:
        drawn += one.ratios(*one.draw(rng, len(drawn)))
    np.testing.assert_allclose(share @ ratio, drawn.mean(axis=0), atol=0.005)
    for power in (1.0, -1.0):
        found, exact = share @ np.exp(power * ratio), np.exp(power * drawn).mean(axis=0)
        np.testing.assert_allclose(found, exact, rtol=0.006)


def test_drawn_starters_agree_with_the_truth(study: Study, told: Aggregates) -> None:
    persons = 150_000
    anyone = study.model_copy(update={"eligibility": study.eligibility.model_copy(update={"earlier_spells": None})})
    known = simulate.known_effect(anyone, told)
    drawn = simulate.twin(told, persons, 3)
    training = drawn.episodes.query("type == 'training'")[["person", "start"]].rename(columns={"start": "zero"})
    frame = training.merge(drawn.benefits, on="person")
    zero, start, end = (to_days(frame[name]) for name in ("zero", "start", "end"))
    first, last = (day_number(day) for day in told.window)
    kept = (start <= zero) & (zero <= end) & (start >= first) & (add_months(zero, 36) <= last + 1)
    kept &= whole_months(start, np.minimum(zero, end)) <= 23
    frame, zero, end = frame[kept], zero[kept], end[kept]
    spells = frame[["person", "zero"]].merge(drawn.benefits, on="person")
    assert abs(len(frame) / persons / known["left_to_work"].starters - 1) < 0.02 + 4 / np.sqrt(len(frame))
    for k in (1, 6, 12, 24, 36):
        ends = add_months(to_days(spells["zero"]), k)
        found = {
            "left_to_work": ((end < add_months(zero, k)) & (frame["reason"] == "work")).mean(),
            "on_benefit": ((to_days(spells["start"]) < ends) & (to_days(spells["end"]) >= ends)).sum() / len(frame),
        }
        for name, value in found.items():
            share = known[name].treated[k - 1]
            assert abs(value - share) < 4 * np.sqrt(share * (1 - share) / len(frame)), (name, k)


def test_the_law_meets_the_rates_that_are_told(told: Aggregates) -> None:
    plan = blueprint(told, Effect.read("none"))
    assert plan.inflow.sum() + plan.stock_share.sum() == pytest.approx(1)
    assert (plan.law.duration[:24] < 0.07).all() and plan.law.start_elapsed[24:].max() == 0


def test_the_matching_run_finds_the_known_effect(study: Study, told: Aggregates, tmp_path: Path) -> None:
    own = study.model_copy(update={"path": tmp_path / "study.toml"})
    made = simulate.make(own, told, 40_000, 11)
    for name, content in made.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    true = json.loads((tmp_path / "data" / "truth.json").read_text("utf-8"))
    assert set(true) == {"left_to_work", "on_benefit"} and true["left_to_work"]["month"] == list(range(1, 37))
    outcome = run(tmp_path / "study.toml")
    assert outcome.primary_shown
    profiles = [p for p in outcome.results.document["profiles"] if not p["labels"].get("subgroup")]
    seen = pd.DataFrame(
        {"outcome": p["labels"]["outcome"], **{key: m[key] for key in ("month", "estimate", "std_error")}}
        for p in profiles
        for m in p["months"]
        if m["month"] % 6 == 0
    )
    assert len(seen) == 12
    for row in seen.itertuples():
        effect = true[row.outcome]["effect"][row.month - 1]
        assert abs(row.estimate - effect) < 3.5 * row.std_error, (row.outcome, row.month)
    work = seen[seen["outcome"] == "left_to_work"].set_index("month")["estimate"]
    assert work[6] < -0.03 and work[36] > 0
