"""Do the intervals of matching and weighting cover? Every outcome step with every standard error that goes with it.

Five designs with a known effect in the superpopulation (worked out on a draw of a few million):

``linear``     1,000 people, good overlap, linear outcomes whose noise differs, an effect that differs by person;
``curved``     1,000 people, a binary outcome, chance and outcome both curved: the logit has the curvature, the linear
               outcome regressions do not;
``pilot``      some 95 starters beside 700 rows of others, of whom persons have several with a level of their own;
``thin``       700 people of whom nearly half start, outcome linear: too few others for each to be used once;
``thin_bent``  the same with a curved outcome, which a linear correction does not repair.

``python tests/simulation/cover_estimators.py --reps 1000 --processes 2 --out table.md``
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402  (threads are settled first)

from evalkit.effects import generator  # noqa: E402
from evalkit.errors import DesignError  # noqa: E402
from evalkit.hashing import hash_ids  # noqa: E402
from evalkit.matching.abadie_imbens import Neighbours  # noqa: E402
from evalkit.matching.admissible import admissible, se_kind  # noqa: E402
from evalkit.matching.bootstrap import Bootstrap  # noqa: E402
from evalkit.matching.inference import Score  # noqa: E402
from evalkit.matching.match import match  # noqa: E402
from evalkit.matching.outcome import estimate  # noqa: E402
from evalkit.matching.weighting import weigh  # noqa: E402

Z95, Z99 = 1.959963984540054, 2.5758293035489004
LIMITS = (0.93, 0.97)
TARGETS = ("att", "atc", "ate", "ato", "atm")


@dataclass(frozen=True)
class Data:
    """One draw: treated (n,), outcome (n,), covariates (n, p) of the logit and of the outcome step, persons (n,)."""

    treated: np.ndarray
    y: np.ndarray
    logit: np.ndarray
    x: np.ndarray
    person: np.ndarray
    effect: np.ndarray
    chance: np.ndarray

    @property
    def before(self) -> np.ndarray:
        """The outcome in two months before (n, 2): what a covariate says of its level, and noise."""
        rng = generator(int(1e6 * abs(self.y.sum())) % 2**31, "before")
        level = 0.4 * self.x[:, 0]
        return level[:, None] + 0.5 * rng.normal(size=(len(self.y), 2))


def _expit(index):
    return 1 / (1 + np.exp(-index))


def linear(rng: np.random.Generator, n: int = 1000) -> Data:
    z = rng.normal(size=(n, 3))
    chance = _expit(-1.0 + 0.5 * z[:, 0] - 0.4 * z[:, 1] + 0.3 * z[:, 2])
    treated = rng.random(n) < chance
    effect = 1 + 0.5 * z[:, 0]
    noise = rng.normal(size=n) * (1 + 0.3 * np.abs(z[:, 1]))
    y = z @ [1.0, 0.7, -0.5] + treated * effect + noise
    return Data(treated, y, z, z, np.arange(n), effect, chance)


def curved(rng: np.random.Generator, n: int = 1000) -> Data:
    z = rng.normal(size=(n, 2))
    bent = np.column_stack([z, z[:, 0] ** 2, z[:, 0] * z[:, 1]])
    chance = _expit(-1.2 + 0.5 * z[:, 0] + 0.4 * z[:, 1] + 0.2 * z[:, 0] ** 2 - 0.3 * z[:, 0] * z[:, 1])
    treated = rng.random(n) < chance
    without = _expit(-0.5 + 0.6 * z[:, 0] + 0.5 * z[:, 0] ** 2 - 0.4 * z[:, 1])
    with_it = _expit(0.3 + 0.3 * z[:, 0] + 0.5 * z[:, 0] ** 2 + 0.4 * z[:, 1])
    y = (rng.random(n) < np.where(treated, with_it, without)).astype(float)
    return Data(treated, y, bent, z, np.arange(n), with_it - without, chance)


def pilot(rng: np.random.Generator, n: int = 800) -> Data:
    """Starters have one row; other persons one to four, with the same covariates but for one that moves."""
    persons = n
    own = rng.normal(size=(persons, 2))
    chance = _expit(-2.05 + 0.5 * own[:, 0] - 0.4 * own[:, 1])
    starts = rng.random(persons) < chance
    rows = np.where(starts, 1, rng.integers(1, 5, persons))
    person = np.repeat(np.arange(persons), rows)
    # as many others as give a tenth of starters: keep starters, and the first others until n rows
    order = np.argsort(~starts[person], kind="stable")
    person = np.sort(person[order][:n])
    z = np.column_stack([own[person], rng.normal(size=n)])
    treated = starts[person]
    effect = 0.5 + 0.3 * z[:, 0]
    personal = rng.normal(size=persons)[person]
    y = z @ [0.8, 0.5, 0.3] + treated * effect + 0.8 * personal + 0.6 * rng.normal(size=n)
    return Data(treated, y, z, z, person, effect, np.full(n, np.nan))


def thin(rng: np.random.Generator, n: int = 700, bend: float = 0.0) -> Data:
    z = rng.normal(size=(n, 2))
    chance = _expit(-0.2 + 0.8 * z[:, 0] - 0.5 * z[:, 1])
    treated = rng.random(n) < chance
    effect = np.full(n, 0.5)
    y = z @ [1.0, -0.5] + bend * z[:, 0] ** 2 + treated * effect + rng.normal(size=n)
    return Data(treated, y, z, z, np.arange(n), effect, chance)


def thin_bent(rng: np.random.Generator, n: int = 700) -> Data:
    return thin(rng, n, bend=0.4)


DESIGNS: dict[str, Callable[..., Data]] = {
    "linear": linear,
    "curved": curved,
    "pilot": pilot,
    "thin": thin,
    "thin_bent": thin_bent,
}


def truths(name: str) -> dict[str, float]:
    """The effect for each target in the superpopulation."""
    if name == "pilot":  # the effect is linear in a covariate that is normal given a logistic chance
        rng = generator(7, "truth", name)
        z = rng.normal(size=(4_000_000, 2))
        chance = _expit(-2.05 + 0.5 * z[:, 0] - 0.4 * z[:, 1])
        return {"att": float(chance @ (0.5 + 0.3 * z[:, 0]) / chance.sum())}
    data = DESIGNS[name](generator(7, "truth", name), 4_000_000)
    e = data.chance
    share = {"att": e, "atc": 1 - e, "ate": np.ones(len(e)), "ato": e * (1 - e), "atm": np.minimum(e, 1 - e)}
    return {target: float(w @ data.effect / w.sum()) for target, w in share.items()}


def score_of(data: Data) -> Score:
    design = np.column_stack([np.ones(len(data.y)), data.logit])
    theta = np.zeros(design.shape[1])
    for _ in range(12):
        e = _expit(design @ theta)
        theta += np.linalg.solve((design * (e * (1 - e))[:, None]).T @ design, design.T @ (data.treated - e))
    return Score.of_logit(design @ theta, design, data.treated)


MATCHES: dict[str, dict] = {
    "1:1 with replacement": {"how": "nearest", "replace": True},
    "3:1 with replacement": {"how": "nearest", "replace": True, "ratio": 3},
    "1:1 without replacement": {"how": "nearest", "caliper": 0.2},
    "1:1 without replacement, no caliper": {"how": "nearest"},
    "Mahalanobis, with replacement": {"how": "nearest", "replace": True, "distance": "mahalanobis"},
    "full": {"how": "full"},
    "six classes of the score": {"how": "subclass", "subclasses": 6},
    "coarsened covariates": {"how": "cem", "cutpoints": 4},
    "kernel": {"how": "kernel"},
    "radius": {"how": "radius"},
    "ridge": {"how": "ridge"},
    "optimal pairs": {"how": "optimal", "caliper": 0.2},
    "robust Mahalanobis, with replacement": {"how": "nearest", "replace": True, "distance": "robust_mahalanobis"},
}
STEPS: dict[str, tuple[tuple[str, str], ...]] = {
    "1:1 with replacement": (
        ("means", "influence"), ("bias_corrected", "influence"), ("gcomputation", "influence"),
        ("regression", "influence"), ("aipw", "influence"), ("means", "abadie_imbens"),
        ("means", "abadie_imbens_estimated"), ("bias_corrected", "abadie_imbens"), ("means", "pair_cluster"),
    ),
    "3:1 with replacement": (
        ("means", "influence"), ("bias_corrected", "influence"), ("means", "abadie_imbens_estimated"),
    ),
    "1:1 without replacement": (
        ("means", "influence"), ("bias_corrected", "influence"), ("gcomputation", "influence"),
        ("means", "pair_cluster"), ("regression", "pair_cluster"), ("gcomputation", "pair_cluster"),
    ),
    "Mahalanobis, with replacement": (
        ("means", "influence"), ("bias_corrected", "influence"), ("means", "abadie_imbens"),
        ("bias_corrected", "abadie_imbens"),
    ),
    "full": (("means", "influence"), ("bias_corrected", "influence"), ("gcomputation", "influence")),
    "six classes of the score": (
        ("means", "influence"), ("bias_corrected", "influence"), ("gcomputation", "influence"), ("aipw", "influence"),
    ),
    "coarsened covariates": (("means", "influence"), ("bias_corrected", "influence"), ("gcomputation", "influence")),
    "kernel": (("means", "influence"), ("bias_corrected", "influence"), ("gcomputation", "influence")),
    "radius": (("means", "influence"), ("bias_corrected", "influence"), ("gcomputation", "influence")),
    "ridge": (("means", "influence"), ("bias_corrected", "influence")),
    "optimal pairs": (("means", "influence"), ("gcomputation", "influence"), ("gcomputation", "pair_cluster")),
    "robust Mahalanobis, with replacement": (("means", "influence"), ("bias_corrected", "influence")),
}  # fmt: skip
THIN = (
    ("1:1 with replacement", "means", "influence"), ("1:1 with replacement", "bias_corrected", "influence"),
    ("1:1 without replacement", "means", "influence"), ("1:1 without replacement", "bias_corrected", "influence"),
    ("1:1 without replacement", "gcomputation", "influence"), ("1:1 without replacement", "means", "pair_cluster"),
    ("1:1 without replacement, no caliper", "means", "influence"),
    ("1:1 without replacement, no caliper", "bias_corrected", "influence"),
    ("1:1 without replacement, no caliper", "gcomputation", "influence"),
    ("1:1 without replacement, no caliper", "means", "pair_cluster"),
    ("1:1 without replacement, no caliper", "gcomputation", "pair_cluster"),
)  # fmt: skip
FOR_ALL = (
    ("1:1 with replacement", "means", "influence"), ("1:1 with replacement", "means", "abadie_imbens_estimated"),
    ("1:1 with replacement", "bias_corrected", "influence"), ("six classes of the score", "gcomputation", "influence"),
)  # fmt: skip
WEIGHTS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "att": (("ipw", ("means", "regression", "gcomputation", "aipw")), ("entropy", ("means", "gcomputation", "aipw")),
            ("cbps", ("means", "gcomputation")), ("cbps over", ("means",)), ("stable", ("means",)),
            ("lasso", ("aipw",))),
    "atc": (("ipw", ("means", "gcomputation", "aipw")), ("entropy", ("means",))),
    "ate": (("ipw", ("means", "gcomputation", "aipw")), ("entropy", ("means", "aipw")), ("cbps", ("means",)),
            ("stable", ("means",))),
    "ato": (("ipw", ("means", "gcomputation")),),
    "atm": (("ipw", ("means",)),),
}  # fmt: skip
ALL_TARGETS = ("linear", "curved", "thin")
KEYS = hash_ids(1, map(str, range(2_000)))
CBPS_OVER = {"how": "cbps", "over": True}
DRAWS = 60
HEAD = """# Coverage of estimators

Does the 95 % interval of every outcome step, with every standard error that goes with it, hold the effect in 95 of
100 samples? Written by `make coverage`: {reps} replications a design ({boot} for bootstrap and lasso, {draws} draws
each), samples of 700 to 1,000 rows, the true effect from a draw of four million. A row is marked **outside** when
the 99 % Wilson interval of its coverage lies wholly outside 93-97 %, with the reason: bias (in standard deviations
of the estimate), or the standard error against that deviation. "By name": not a default, and not called valid. What
the table says: [coverage](coverage.md#estimators-one-by-one).

| design | what it tests |
|---|---|
| linear | 1,000 people, good overlap, linear outcomes with unequal noise, an effect that differs by person |
| curved | 1,000 people, a binary outcome; the start model has the curvature, the linear outcome regressions do not |
| pilot | some 95 starters beside 700 rows of others, persons with several rows and a level of their own |
| thin | 700 people of whom nearly half start: too few others for each to be used once |
| thin_bent | the same with a curved outcome, which a linear correction does not repair |

"Change since before": conditional difference-in-differences with two months before. "logit": the regressions by
group are logits.

"""
Row = tuple[str, str, str, str, float, float]


def answers(name: str, data: Data, number: int, boot: bool) -> Iterator[Row]:
    """(adjustment, target, step, kind of error, estimate, standard error) for everything that goes with the design."""
    score = score_of(data)
    clustered = len(np.unique(data.person)) < len(data.person)
    shared = {"score": score.linear, "covariates": data.x, "person": data.person}
    asked = [(kind, "att", *step) for kind, steps in STEPS.items() for step in steps]
    if name.startswith("thin"):
        asked = [(kind, "att", *step) for kind, *step in THIN]
    if name in ALL_TARGETS:
        asked += [(kind, target, *step) for target in ("atc", "ate") for kind, *step in FOR_ALL]
    made: dict[tuple[str, str], object] = {}
    for kind, target, model, errors in asked:
        if clustered and errors.startswith("abadie_imbens"):
            continue
        try:
            if (kind, target) not in made:
                made[kind, target] = match(data.treated, target=target, **MATCHES[kind], **shared)
            yield answer(data, made[kind, target], kind, target, model, errors, score)
            if kind == "1:1 with replacement" and (target, model, errors) == ("att", "bias_corrected", "influence"):
                yield answer(data, made[kind, target], kind, target, model, errors, score, before=True)
        except DesignError:
            yield kind, target, model, errors, np.nan, np.nan
    for target, methods in WEIGHTS.items():
        if name not in ALL_TARGETS and target != "att":
            continue
        for how, models in methods:
            if how == "lasso" and not boot:
                continue
            more = {"lasso": {"how": "ipw", "model": "lasso", "key": KEYS[data.person]}, "cbps over": CBPS_OVER}
            try:
                weights = weigh(data.treated, data.logit, target=target, **more.get(how, {"how": how}))
            except DesignError:
                continue
            for model in models:
                yield answer(data, weights, how, target, model, "influence", score)
            if target == "att" and how == "ipw":
                yield answer(data, weights, how, target, "aipw", "influence", score, before=True)
                if name == "curved":
                    yield answer(data, weights, how, target, "gcomputation", "influence", score, family="logit")
                    yield answer(data, weights, how, target, "aipw", "influence", score, family="logit")
            if how == "ipw":
                yield answer(data, weights, how, target, "means", "HC0", score)
            if boot and how == "ipw" and target == "att":
                yield answer(data, weights, how, target, "means", "bootstrap", score, number)


def answer(
    data: Data,
    adjustment,
    kind: str,
    target: str,
    model: str,
    errors: str,
    score: Score,
    number: int = 0,
    before: bool = False,
    family: str = "linear",
) -> Row:
    x = np.column_stack([np.ones(len(data.y)), data.x])
    more = {}
    if errors.startswith("abadie_imbens"):
        spread = data.x / data.x.std(axis=0)
        on_score = kind.endswith(":1 with replacement")
        more["neighbours"] = Neighbours(_expit(score.linear)[:, None] if on_score else spread, 2)
    if errors == "bootstrap":
        more["bootstrap"] = Bootstrap(
            lambda count: weigh(data.treated, data.logit, how=kind, target=target, base=count, account=False),
            draws=DRAWS, seed=number, kind="bayesian",
        )  # fmt: skip
    if before:
        more |= {"before": data.before, "before_observed": np.ones(data.before.shape, bool)}
    found = estimate(
        adjustment, data.y[:, None], np.ones((len(x), 1), bool), x, model=model, errors=errors, person=data.person,
        family=family, score=None if kind.startswith(("Mahalanobis", "robust", "coarsened")) else score, **more,
    )  # fmt: skip
    se = float(np.sqrt(found.uncertainty.vcov[0, 0]))
    status = "" if admissible(adjustment, model, errors) == "valid" else " (by name)"
    model += (", change since before" if before else "") + (f", {family}" if family != "linear" else "")
    return kind, target, model, se_kind(adjustment, errors) + status, float(found.estimate[0]), se


def replicate(task: tuple[str, int, bool]) -> list[Row]:
    name, number, boot = task
    return list(answers(name, DESIGNS[name](generator(20260101, name, number)), number, boot))


def wilson(hits: int, of: int, z: float = Z99) -> tuple[float, float]:
    """Wilson interval of a share."""
    share = hits / of
    middle = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z * np.sqrt(share * (1 - share) / of + z**2 / (4 * of**2)) / (1 + z**2 / of)
    return middle - half, middle + half


def table(name: str, replications: list[list[Row]]) -> list[str]:
    """Lines of one design's table."""
    truth = truths(name)
    found: dict[tuple[str, str, str, str], list[tuple[float, float]]] = {}
    for rows in replications:
        for *key, value, se in rows:
            found.setdefault(tuple(key), []).append((value, se))
    lines = [
        f"### {name}", "",
        "Effects: " + ", ".join(f"{target} {value:.4f}" for target, value in truth.items()) + ".", "",
        "| adjustment | whom | step | error | bias | SD | mean error | covers | 99 % | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for (kind, target, model, errors), pairs in found.items():
        values = np.array([pair for pair in pairs if np.isfinite(pair).all()])
        if not len(values):
            continue
        off = values[:, 0] - truth[target]
        hits = int((np.abs(off) <= Z95 * values[:, 1]).sum())
        low, high = wilson(hits, len(off))
        sd, se = off.std(ddof=1), np.sqrt((values[:, 1] ** 2).mean())
        mark = ""
        if high < LIMITS[0] or low > LIMITS[1]:
            mark = reason(off.mean() / sd, se / sd)
        lost = len(pairs) - len(values)
        mark += f" ({lost} without)" if lost else ""
        lines.append(
            f"| {kind} | {target} | {model} | {errors} | {off.mean():+.4f} | {sd:.4f} | {se:.4f} "
            f"| {100 * hits / len(off):.1f} | {100 * low:.1f} to {100 * high:.1f} | {mark.strip()} |"
        )
    return [*lines, ""]


def reason(bias: float, ratio: float) -> str:
    """Why an interval misses: bias in standard deviations, or the standard error against the standard deviation."""
    causes = []
    if abs(bias) > 0.25:
        causes.append(f"bias of {abs(bias):.1f} SD")
    if abs(ratio - 1) > 0.05:
        causes.append(f"error is {100 * (ratio - 1):+.0f} %")
    return "**outside**: " + (", ".join(causes) or "shape")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=1000)
    parser.add_argument("--boot", type=int, default=0, help="replications with the slow ones: bootstrap and lasso")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--designs", nargs="*", default=list(DESIGNS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = []
    for name in given.designs:
        started = time.perf_counter()
        tasks = [(name, number, number < given.boot) for number in range(given.reps)]
        if given.processes > 1:
            with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
                done = pool.map(replicate, tasks, chunksize=10)
        else:
            done = [replicate(task) for task in tasks]
        lines += table(name, done)
        if given.out:
            head = HEAD.format(reps=f"{given.reps:,}", boot=given.boot, draws=DRAWS)
            given.out.write_text(head + "\n".join(lines).replace("### ", "## "), "utf-8")
        print(name, f"{time.perf_counter() - started:.0f} s", flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
