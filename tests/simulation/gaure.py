"""Bias of a treatment effect by the number of mass points and by criterion, in the spirit of Gaure, Roed and Zhang.

    python tests/simulation/gaure.py --write

Law, months as the grid: people enter in one of 36 calendar months and are followed to the end of the sixth year. In a
month the rate of leaving is exp(-3.2 + x'b + step of time on benefit + year + 0.4 once training has started + v), that
of starting exp(-3.4 + x'c + step + year + w), starts after exits. Covariates: a yes or no, one of three levels, a
number. (v, w) do not depend on x: ``normal``: standard deviation 0.8 each, correlation 0.6 (no number of points is
right); ``groups``: four groups (0.8, 0.8), (0.8, -0.8), (-0.8, 0.8), (-0.8, -0.8) with shares 0.4, 0.1, 0.1, 0.4. The
model has the columns of the law. Truth: 0.4.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from evalkit.duration.npmle import Path as Points
from evalkit.duration.npmle import npmle
from evalkit.duration.spells import NEVER, Instrument, Layout, Spells, Timeline
from evalkit.duration.terms import dense, factor, joined

TRUTH = 0.4
EFFECT = "work:training 0+"
STEPS, WORK, START = (3, 6, 12), np.array([0.0, -0.1, -0.3, -0.6]), np.array([0.0, 0.3, 0.1, -0.2])
YEARS_WORK = np.array([0.0, 0.25, 0.45, 0.1, -0.2, 0.15])
YEARS_START = np.array([0.0, -0.4, 0.3, 0.5, -0.2, 0.1])
CLOSE = 72
PLANS = ((2_000, 30, None), (5_000, 15, 5))
"""People, samples, most points."""
DOCS = Path(__file__).parents[2] / "docs" / "coverage-duration.md"
OPEN, SHUT = "<!-- points -->", "<!-- /points -->"


def hidden(rng: np.random.Generator, size: int, law: str) -> np.ndarray:
    """(n, 2) what hidden differences add to leaving and to starting."""
    if law == "normal":
        lower = np.linalg.cholesky(0.64 * np.array([[1.0, 0.6], [0.6, 1.0]]))
        return rng.normal(size=(size, 2)) @ lower.T
    places = 0.8 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    return places[rng.choice(4, size, p=[0.4, 0.1, 0.1, 0.4])]


def draw(size: int, seed: int, law: str) -> Spells:
    """Spells of one sample."""
    rng = np.random.default_rng([seed, size])
    yes, level, number = rng.integers(0, 2, size), rng.integers(0, 3, size), rng.normal(size=size)
    entered = rng.integers(0, 36, size)
    v, w = hidden(rng, size, law).T
    x_work = 0.5 * (yes - 0.5) + np.array([0.0, 0.3, -0.3])[level] + 0.4 * number
    x_start = -0.4 * (yes - 0.5) + np.array([0.0, 0.4, 0.2])[level] + 0.2 * number
    stop, cause, start = CLOSE - entered, np.full(size, -1), np.full(size, NEVER)
    alive = np.ones(size, bool)
    for month in range(CLOSE):
        band = int(np.searchsorted(STEPS, month, side="right"))
        year = np.minimum((entered + month) // 12, 5)
        here = alive & (month < CLOSE - entered)
        rate = -3.2 + x_work + WORK[band] + YEARS_WORK[year] + TRUTH * (start <= month) + v
        leaves = here & (rng.random(size) < -np.expm1(-np.exp(rate)))
        stop[leaves], cause[leaves] = month + 1, 0
        alive &= ~leaves
        rate = -3.4 + x_start + START[band] + YEARS_START[year] + w
        begins = here & ~leaves & (start == NEVER) & (rng.random(size) < -np.expm1(-np.exp(rate)))
        start[begins] = month + 1
    people, zero = np.arange(size), np.zeros(size, np.int64)
    x = joined(
        factor(yes, ["yes:0", "yes:1"]),
        factor(level, ["level:0", "level:1", "level:2"]),
        dense(number[:, None], ["number"]),
    )
    training = Instrument("training", start, zero, "start", ())
    return Spells(
        people, people, zero, stop, cause, ("work",), entered + 24_000, x, (training,), people, people
    )  # fmt: skip


def replication(size: int, seed: int, law: str, points: int | None) -> Points:
    """The path of models of one sample."""
    layout = Layout(draw(size, seed, law), Timeline(STEPS, "year"))
    return npmle(layout.histories(), points)


def rows(law: str, size: int, reps: int, points: int | None) -> list[str]:
    """Lines of the table: by number of points where at least half of the samples have them, then by criterion."""
    found: dict[str, list[tuple[float, float, int]]] = {}
    chosen = ["BIC", "HQ", "AIC", *(["all that help"] if points is None else [])]
    for seed in range(reps):
        path = replication(size, seed, law, points)
        fits = {str(len(model.shares)): model for model in path.models}
        fits |= {"BIC": path.best("bic"), "HQ": path.best("hq"), "AIC": path.best("aic"), "all that help": path.last}
        for name, fit in fits.items():
            place = fit.labels.index(EFFECT)
            own = (float(fit.packed[place]), float(fit.std_error[place]), len(fit.shares))
            found.setdefault(name, []).append(own)
    counted = sorted((name for name in found if name.isdigit()), key=int)
    lines = []
    for name in [*counted, *chosen]:
        value, error, number = np.array(found[name]).T
        if len(value) < reps / 2:
            continue
        cover = 100 * (np.abs(value - TRUTH) <= 1.959964 * error).mean()
        lines.append(
            f"| {law} | {size:,} | {name} | {value.mean() - TRUTH:+.3f} | {value.std(ddof=1):.3f} | "
            f"{error.mean():.3f} | {cover:.0f} | {number.mean():.1f} | {len(value)} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, help="people; the two sizes of the table without it")
    parser.add_argument("--reps", type=int, default=30)
    parser.add_argument("--points", type=int, help="most mass points; as many as help without it")
    parser.add_argument("--laws", nargs="*", default=["normal", "groups"])
    parser.add_argument("--write", action="store_true", help="put the table into docs/coverage-duration.md")
    options = parser.parse_args()
    plans = [(options.size, options.reps, options.points)] if options.size else PLANS
    lines = [
        "| hidden differences | people | points | bias | spread | mean error | coverage | mean points | samples |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    began = time.process_time()
    for plan in plans:
        for law in options.laws:
            lines += rows(law, *plan)
    print(f"{time.process_time() - began:.0f} s")
    if options.write:
        text = DOCS.read_text("utf-8")
        before, rest = text.split(OPEN)
        DOCS.write_text(before + OPEN + "\n" + "\n".join(lines) + "\n" + SHUT + rest.split(SHUT)[1], "utf-8")


if __name__ == "__main__":
    main()
