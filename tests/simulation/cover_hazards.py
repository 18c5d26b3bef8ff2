"""Do the intervals of difference-in-differences for exit rates cover, and is it unbiased?

A stock of people on benefit and their inflow, in groups of which some adopt. Hazards of two exits are
1 - exp(-exp(eta)), eta = duration + group + calendar (+ shock of group x calendar month) (+ effect since adoption, to
work). Inflow jumps up in adopting groups and down in the others, so that the mix of durations moves differently: a
plain difference-in-differences of the exit rate is biased although hazards at equal duration move in parallel.

``persons``  4 groups, 2 adopt in one month, no shocks, clusters are persons;
``groups``   40 groups, 20 adopt in two months, shocks of group x month that last, clusters are groups;
``null``     as ``persons``, without effect.

The truth is worked out from the law: expected numbers at risk at exposure, times the difference of chained hazards;
with shocks it is averaged over 400 draws of shocks, numerator and denominator apart.

``python tests/simulation/cover_hazards.py --reps 1000 --processes 2 --out table.md``
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402  (threads are settled first)

from evalkit.did.hazards import AtRisk, hazard_did, spells_at_risk  # noqa: E402
from evalkit.effects import generator  # noqa: E402

Z95 = 1.959963984540054
CAUSES = ("other", "work")


@dataclass(frozen=True)
class Design:
    """``groups``, of which ``adopters`` adopt in ``months`` in turn; ``inflow`` a month and group; ``effect`` on log
    hazard to work."""

    groups: int
    adopters: int
    months: tuple[int, ...]
    inflow: float
    effect: float
    shock: float = 0.0
    lasting: float = 0.7
    history: int = 36
    window: int = 36
    horizon: int = 8
    tilt: float = 1.0
    cluster: str = "person"

    @property
    def adopted(self) -> np.ndarray:
        """(G,) month of adoption, 0 never."""
        out = np.zeros(self.groups, int)
        out[: self.adopters] = np.resize(self.months, self.adopters)
        return out

    @property
    def entries(self) -> np.ndarray:
        """(G, H + W) expected entries by begin month 1 - H .. W: from month 14 on up in adopters, down elsewhere.

        (Inflow that grows at one rate for ever would leave the mix of durations as it is.)
        """
        wave = np.tanh((np.arange(1 - self.history, self.window + 1) - 14) / 3) * self.tilt * 0.6
        up = np.where(self.adopted > 0, 1.0, -1.0)[:, None]
        return self.inflow * np.exp(up * wave)


DESIGNS = {
    "persons": Design(4, 2, (20,), 22.0, 0.3),
    "groups": Design(40, 20, (18, 22), 7.0, 0.3, shock=0.15, cluster="group"),
    "null": Design(4, 2, (20,), 22.0, 0.0),
}


def log_hazards(design: Design, shocks: np.ndarray, treated: bool) -> np.ndarray:
    """(2, G, H + W begin months, H + W elapsed months) log hazards; ``shocks`` (G, H + W) by calendar month."""
    span = design.history + design.window
    begin = np.arange(span)[:, None]
    elapsed = np.arange(span)[None, :]
    place = np.minimum(begin + elapsed, span - 1)  # calendar month, counted from 1 - H
    calendar = place + 1 - design.history
    rng = generator(1, "levels", design.groups)
    level = rng.normal(0, 0.25, (2, design.groups))
    duration = np.stack([-4.3 - 0.2 * np.log1p(elapsed / 4), -2.2 - 0.75 * np.log1p(elapsed / 2)])
    season = np.stack([0 * calendar, 0.2 * np.sin(calendar / 5) - 0.01 * calendar])
    eta = duration[:, None] + level[:, :, None, None] + season[:, None]
    eta = eta + shocks[:, place][None] * np.array([0.0, 1.0])[:, None, None, None]
    if treated:
        adopted = design.adopted[:, None, None]
        eta[1] += design.effect * ((adopted > 0) & (calendar[None] >= adopted))
    return eta


def chances(eta: np.ndarray) -> np.ndarray:
    return 1 - np.exp(-np.exp(eta))


def shocks_of(design: Design, rng: np.random.Generator) -> np.ndarray:
    """(G, H + W): first-order autoregressive with standard deviation ``shock``, stationary, of mean exp one."""
    span = design.history + design.window
    out = np.empty((design.groups, span))
    noise = rng.normal(size=out.shape) * design.shock
    out[:, 0] = noise[:, 0]
    for c in range(1, span):
        out[:, c] = design.lasting * out[:, c - 1] + np.sqrt(1 - design.lasting**2) * noise[:, c]
    return out - design.shock**2 / 2


def draw(design: Design, rng: np.random.Generator) -> AtRisk:
    """Spells that are on benefit in the window, as a register of window months 1..W has them."""
    h, eta = design.history, log_hazards(design, shocks_of(design, rng), True)
    chance = chances(eta)
    number = rng.poisson(design.entries)
    group, begin = (np.repeat(index.ravel(), number.ravel()) for index in np.indices(number.shape))
    cause = np.full(len(group), -1)
    stop = np.full(len(group), h + design.window - 1) - begin + 1
    alive = np.ones(len(group), bool)
    for t in range(h + design.window):
        at = np.flatnonzero(alive & (begin + t < h + design.window))
        u = rng.random(len(at))
        other, work = chance[0, group[at], begin[at], t], chance[1, group[at], begin[at], t]
        for d, gone in ((0, u < other), (1, (u >= other) & (u < other + work))):
            cause[at[gone]], stop[at[gone]], alive[at[gone]] = d, t + 1, False
    begins = begin + 1 - h
    shift = h + 12  # months above 0
    names = np.array([*CAUSES, ""], object)[cause]
    adopted = design.adopted[group]
    return spells_at_risk(
        begins + shift, np.maximum(0, 1 - begins), stop, cause >= 0, names, group,
        np.where(adopted > 0, adopted + shift, 0), (1 + shift, design.window + shift), cluster=design.cluster,
        causes=CAUSES,
    )  # fmt: skip


def expected(design: Design, shocks: np.ndarray) -> tuple[np.ndarray, float]:
    """Sum over those exposed of treated less untreated cumulated exit (2, K), and their number."""
    h, k = design.history, design.horizon
    with_it, without = (chances(log_hazards(design, shocks, treated)) for treated in (True, False))
    g, b = (index.ravel() for index in np.indices(design.entries.shape))
    at = np.maximum(design.adopted[g] + h - 1, b)
    keep = (design.adopted[g] > 0) & (at + k <= h + design.window)
    g, b, s = g[keep], b[keep], (at - b)[keep]
    survival = np.concatenate([np.ones((*without.shape[1:3], 1)), np.cumprod(1 - without.sum(axis=0), axis=2)], axis=2)
    number = design.entries[g, b] * survival[g, b, s]
    months = s[:, None] + np.arange(k)
    total = np.zeros((2, k))
    for sign, law in ((1, with_it), (-1, without)):
        p = law[:, g[:, None], b[:, None], months]
        alive = np.cumprod(1 - p.sum(axis=0), axis=1)
        alive = np.concatenate([np.ones((len(g), 1)), alive[:, :-1]], axis=1)
        total += sign * np.einsum("n,dnk->dk", number, np.cumsum(alive * p, axis=2))
    return total, float(number.sum())


def truth(design: Design) -> np.ndarray:
    """(2, K) effect on cumulated exit by cause."""
    if design.shock == 0:
        total, number = expected(design, np.zeros((design.groups, design.history + design.window)))
        return total / number
    rng = generator(2, "truth")
    parts = [expected(design, shocks_of(design, rng)) for _ in range(400)]
    return sum(p[0] for p in parts) / sum(p[1] for p in parts)


def one(job: tuple[str, int]) -> tuple[np.ndarray, np.ndarray, float, float]:
    name, rep = job
    design = DESIGNS[name]
    found = hazard_did(draw(design, generator(rep, "hazards", name)), horizon=design.horizon, placebo=6)
    effect = np.stack([found.effects[c].estimate for c in CAUSES])
    error = np.stack([found.effects[c].std_error for c in CAUSES])
    return effect, error, float(found.placebo["work"].estimate[-1]), float(found.placebo["work"].std_error[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reps", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--designs", nargs="*", default=list(DESIGNS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = ["| design | exit | k | truth | bias (mc se) | sd | mean se | cover (mc se) |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name in given.designs:
        begun = time.perf_counter()
        exact = truth(DESIGNS[name])
        jobs = [(name, rep) for rep in range(given.reps)]
        with multiprocessing.Pool(given.processes) as pool:
            rows = pool.map(one, jobs, chunksize=4)
        effect, error = (np.stack([r[i] for r in rows]) for i in (0, 1))
        shown = [
            (cause, k, exact[d, k - 1], effect[:, d, k - 1], error[:, d, k - 1])
            for d, cause in enumerate(CAUSES)
            for k in (1, 3, DESIGNS[name].horizon)
        ]
        before, before_error = (np.array([r[i] for r in rows]) for i in (2, 3))
        shown.append(("work, placebo", 6, 0.0, before, before_error))
        for cause, k, true, value, se in shown:
            cover = np.mean(np.abs(value - true) <= Z95 * se)
            spread, root = value.std(), len(value) ** 0.5
            lines.append(
                f"| {name} | {cause} | {k} | {true:.4f} | {value.mean() - true:+.4f} ({spread / root:.4f}) "
                f"| {spread:.4f} | {se.mean():.4f} | {cover:.3f} ({(cover * (1 - cover)) ** 0.5 / root:.3f}) |"
            )
        print("\n".join(lines), f"{name}: {time.perf_counter() - begun:.0f} s", sep="\n", flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
