"""Do the intervals of effects on states cover, and are they unbiased?

A municipality: people enter benefit over two years and are observed for at most five. They move between benefit, a
subsidised job, a regular job and out of view for good; hazards depend on age, sex, months since entry and months in
the state. On benefit an instrument of some months can start, sooner for the young. While it lasts people move less
often to jobs; after it they move more often, and a regular job lasts longer.

``effect``  as above, clusters are persons; ``null``  no effect in any move.

The truth is simulated, not worked out with the code that is tested: a million starters, drawn from the same law, lived
through again with the start, without any, and with the start hazard running on.

``OMP_NUM_THREADS=1 python tests/simulation/cover_states.py --reps 250 --out table.md``
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

import numpy as np

from evalkit.duration.hazards import fit_hazards
from evalkit.duration.spells import NEVER, Instrument
from evalkit.duration.states.effects import starters, state_effects
from evalkit.duration.states.layout import Journeys, Layout, Steps  # noqa: E402
from evalkit.duration.states.stays import stays  # noqa: E402
from evalkit.duration.terms import dense, factor, joined  # noqa: E402
from evalkit.effects import generator  # noqa: E402

Z95 = 1.959963984540054
STATES = ("benefit", "subsidised", "regular", "out")
HORIZON, LATEST, WINDOW = 24, 18, 60
SHOWN = (1, 3, 6, 9, 12, 18, 24)
STEPS = Steps(duration=(6, 12), stay=(3, 12), least=1)

# log hazard; by step of months since entry; by step of months in the state; age, man; effect in the programme, after it
MOVES = {
    (0, 1): (-4.0, (0.0, -0.2, -0.5), (0.0, 0.1, -0.1), (-0.2, 0.1), (-0.6, 0.5)),
    (0, 2): (-3.0, (0.0, -0.3, -0.6), (0.0, -0.1, -0.4), (-0.3, 0.2), (-0.7, 0.4)),
    (0, 3): (-4.2, (0.0, 0.0, -0.2), (0.0, 0.0, 0.0), (0.2, 0.0), (-0.2, 0.0)),
    (1, 0): (-2.9, (0.0, 0.0, 0.0), (0.0, 0.4, 0.2), (0.1, 0.0), (0.0, -0.2)),
    (1, 2): (-2.8, (0.0, 0.0, -0.1), (0.0, 0.3, 0.5), (-0.2, 0.0), (0.3, 0.3)),
    (2, 0): (-3.0, (0.0, 0.0, 0.0), (0.0, -0.3, -0.8), (0.1, 0.1), (0.1, -0.4)),
    (2, 3): (-5.0, (0.0, 0.0, 0.0), (0.0, 0.0, -0.2), (0.0, 0.0), (0.0, 0.0)),
}
START = (-3.2, (0.0, 0.2, -0.2), (0.0, 0.2, 0.0), (-0.4, 0.1))


def people(size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Age (standardised), sex, months observed, months the instrument would last."""
    return {
        "age": rng.normal(size=size),
        "man": rng.integers(0, 2, size),
        "until": WINDOW - rng.integers(0, 24, size),
        "length": rng.integers(3, 7, size),
    }


def chances(
    who: dict[str, np.ndarray], state: np.ndarray, month: np.ndarray, spent: np.ndarray, since: np.ndarray, effect: bool
) -> np.ndarray:
    """(n, 4) chances of each state at the close of the month."""
    old, here = np.digitize(month, STEPS.duration), np.digitize(spent, STEPS.stay)
    h = np.zeros((len(state), 4))
    for (a, b), (base, duration, stay, x, on) in MOVES.items():
        eta = base + np.array(duration)[old] + np.array(stay)[here] + x[0] * who["age"] + x[1] * who["man"]
        if effect:
            eta = eta + np.where(since < 0, 0.0, np.where(since < who["length"], on[0], on[1]))
        h[:, b] += np.where(state == a, np.exp(eta), 0.0)
    total = h.sum(axis=1, keepdims=True)
    p = np.where(total > 0, h / np.where(total > 0, total, 1) * -np.expm1(-total), 0.0)
    p[np.arange(len(state)), state] = 1 - p.sum(axis=1)
    return p


def start_chance(who: dict[str, np.ndarray], month: np.ndarray, spent: np.ndarray) -> np.ndarray:
    """Chance to start at the close of a month on benefit."""
    base, duration, stay, x = START
    eta = base + np.array(duration)[np.digitize(month, STEPS.duration)]
    eta = eta + np.array(stay)[np.digitize(spent, STEPS.stay)] + x[0] * who["age"] + x[1] * who["man"]
    return -np.expm1(-np.exp(eta))


def live(
    who: dict[str, np.ndarray], month: np.ndarray, spent: np.ndarray, since: np.ndarray, months: int, effect: bool,
    starts: bool, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """States (n, months + 1) from benefit on, and month of the start, counted from 0, with ``NEVER``."""
    size = len(month)
    state, spent, since = np.zeros(size, np.int64), spent.copy(), since.copy()
    path = np.zeros((size, months + 1), np.int64)
    began = np.full(size, NEVER)
    for k in range(months):
        p = chances(who, state, month + k, spent, since, effect).cumsum(axis=1)
        new = np.minimum((rng.random(size)[:, None] > p).sum(axis=1), 3)
        stay = new == state
        begins = rng.random(size) < start_chance(who, month + k, spent)
        begins &= (since < 0) & stay & (state == 0) & starts
        since = np.where(begins, 0, np.where(since >= 0, since + 1, -1))
        began[begins] = k + 1
        spent = np.where(stay, spent + 1, 0)
        state = new
        path[:, k + 1] = state
    return path, began


def municipality(size: int, rng: np.random.Generator, effect: bool) -> Journeys:
    """What a register would show."""
    who = people(size, rng)
    none = np.zeros(size, np.int64)
    path, began = live(who, none, none, none - 1, WINDOW, effect, True, rng)
    change = np.ones((size, WINDOW + 1), bool)
    change[:, 1:] = path[:, 1:] != path[:, :-1]
    person, month = np.nonzero(change)
    last = np.r_[person[1:] != person[:-1], True]
    to = np.where(last, WINDOW, np.r_[month[1:], WINDOW])
    state = path[person, month]
    goes = np.where(last, -1, np.r_[state[1:], -1])
    until = who["until"][person]
    seen = (month < until) & (state != 3)
    goes = np.where(to <= until, goes, -1)
    names = np.array([*STATES, ""], object)
    made = stays(
        person[seen], names[state[seen]], month[seen], np.minimum(to, until)[seen], names[goes[seen]], states=STATES
    )
    x = joined(factor(who["man"], ["woman", "man"]), dense(who["age"][:, None], ["age"]))
    return Journeys(
        made, np.zeros(size, np.int64), x,
        Instrument("training", began, who["length"], "end", ()), "benefit",
    )  # fmt: skip


def early(journeys: Journeys) -> np.ndarray:
    """The starters that are asked about."""
    own = starters(journeys)
    return own[journeys.started[own] < LATEST]


def truth(size: int, effect: bool) -> dict[str, np.ndarray]:
    """Effects (4, K) against ``never`` and ``wait``, and their simulation errors."""
    rng = generator(7, "truth", effect)
    sums = {name: np.zeros((2, 4, HORIZON)) for name in ("never", "wait")}
    count = 0
    while count < size:
        journeys = municipality(min(100_000, 2 * size), rng, effect)
        own = early(journeys)
        month = journeys.started[own]
        spent = (month - journeys.stays.start[journeys.stay[own]]).astype(np.int64)
        who = {
            "age": journeys.x.numbers[own, 0],
            "man": (journeys.x.codes[own, 0] >= 0).astype(int),
            "length": np.asarray(journeys.instrument.length[own]),
        }
        zero = np.zeros(len(own), np.int64)
        lives = [live(who, month, spent, zero + s, HORIZON, effect, w, rng)[0][:, 1:]
                 for s, w in ((0, False), (-1, False), (-1, True))]  # fmt: skip
        for name, other in (("never", lives[1]), ("wait", lives[2])):
            for a in range(4):
                gap = (lives[0] == a).astype(float) - (other == a)
                sums[name][0, a] += gap.sum(axis=0)
                sums[name][1, a] += (gap**2).sum(axis=0)
        count += len(own)
    out = {}
    for name, (one, two) in sums.items():
        out[name] = one / count
        out[name + " error"] = np.sqrt((two / count - out[name] ** 2) / count)
    return out


def once(job: tuple[int, int, bool]) -> dict[str, np.ndarray]:
    """Estimates and errors (2, 4, K) of one municipality, and the numbers of starters."""
    rep, size, effect = job
    journeys = municipality(size, generator(11, "cover states", rep, effect), effect)
    layout = Layout(journeys, STEPS)
    fitted = fit_hazards(layout.histories())
    out = {}
    for versus in ("never", "wait") if effect else ("never",):
        found = state_effects(layout, fitted, horizon=HORIZON, versus=versus, person=early(journeys))
        out[versus] = np.stack([found.effect, found.std_error])
        out["n"] = np.array(len(found.person))
    return out


def table(results: list[dict[str, np.ndarray]], true: dict[str, np.ndarray], name: str) -> list[str]:
    """Lines of the table of one design."""
    lines = []
    for versus in (each for each in ("never", "wait") if each in results[0]):
        got = np.stack([each[versus] for each in results])
        estimate, error = got[:, 0], got[:, 1]
        covered = np.abs(estimate - true[versus]) <= Z95 * error
        for a, state in enumerate(STATES):
            for k in SHOWN:
                e = estimate[:, a, k - 1]
                t = true[versus][a, k - 1]
                lines.append(
                    f"| {name} | {versus} | {state} | {k} | {t:.4f} | {e.mean() - t:.4f} | {e.std(ddof=1):.4f} | "
                    f"{error[:, a, k - 1].mean():.4f} | {100 * covered[:, a, k - 1].mean():.1f} |"
                )
        lines.append(f"| {name} | {versus} | all | all | | | | | {100 * covered.mean():.1f} |")
    return lines


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reps", type=int, default=250)
    parser.add_argument("--size", type=int, default=1200)
    parser.add_argument("--truth", type=int, default=1_000_000)
    parser.add_argument("--designs", nargs="*", default=["effect", "null"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    lines = [
        "| design | versus | state | month | truth | bias | sd | mean error | coverage |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for design in options.designs:
        begin = time.perf_counter()
        effect = design == "effect"
        true = truth(options.truth, True) if effect else {v: np.zeros((4, HORIZON)) for v in ("never", "wait")}
        jobs = [(rep, options.size, effect) for rep in range(options.reps)]
        if options.processes > 1:
            with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
                results = pool.map(once, jobs, chunksize=4)
        else:
            results = [once(job) for job in jobs]
        lines += table(results, true, design)
        starters_seen = np.mean([each["n"] for each in results])
        print(f"{design}: {options.reps} municipalities, {starters_seen:.0f} starters, "
              f"{time.perf_counter() - begin:.0f} s", flush=True)  # fmt: skip
    print("\n".join(lines))
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
