"""Dehejia and Wahba (1999), table 3 on page 1060 and table 4 on page 1061, with evalkit: ``make examples``.

The trainees of the National Supported Work experiment beside the whole survey (CPS-1). What the paper prints, what
evalkit gives, and why where they differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from evalkit.effects import EffectProfile
from evalkit.matching import Pairs, match_frame, weight_frame
from evalkit.matching.adjustment import Matching
from evalkit.matching.outcome import estimate
from evalkit.sensitivity import linear_regression

sys.path.insert(0, str(Path(__file__).resolve().parent))
from prepare import frames  # noqa: E402  (a script beside this one)

SCORE = [
    "age", "age2", "age3", "educ", "educ2", "marr", "black", "hisp", "re74", "re75", "u74", "u75", "educ_re74",
]  # fmt: skip
"""Table 3, note e, but without the indicator of no diploma: only without it do the paper's matches come out."""
REGRESSION = ["age", "age2", "educ", "nodegree", "black", "hisp", "re74", "re75"]
"""Table 3, note a."""
LINEAR = ["age", "educ", "black", "hisp", "nodegree", "marr", "re74", "re75", "u74", "u75"]


def data() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Experiment and survey sample with the terms of the paper; whole numbers as floats, so that squares fit."""
    made = []
    for frame in frames().values():
        frame = frame.astype({name: float for name in frame.columns if name != "unit"})
        frame["age2"], frame["age3"], frame["educ2"] = frame.age**2, frame.age**3, frame.educ**2
        made.append(frame.assign(educ_re74=frame.educ * frame.re74))
    return made[0], made[1]


def regression(frame: pd.DataFrame, names: list[str], weight: np.ndarray | None = None) -> tuple[float, float]:
    """Coefficient and classical standard error of treatment in least squares."""
    fit = linear_regression(frame.re78, frame.treat, frame[names].to_numpy(), names, weight)
    return fit.estimate, fit.std_error


def first_in_file(score: np.ndarray, treated: np.ndarray) -> Pairs:
    """The nearest other on the chance of treatment; of equally near ones the first in the file."""
    chance = 1 / (1 + np.exp(-score))
    focal, pool = np.flatnonzero(treated), np.flatnonzero(~treated)
    nearest = pool[np.abs(chance[focal][:, None] - chance[pool][None, :]).argmin(axis=1)]
    return Pairs(focal, nearest, np.ones(len(focal)), focal[:0], np.inf)


def matched(frame: pd.DataFrame) -> dict[str, tuple[float, int, np.ndarray]]:
    """The effect, the number of men used and the weights, by how equally near men are told apart."""
    common = dict(treatment="treat", numeric=SCORE, caliper=None, unit="raw")
    found: dict[str, tuple[float, int, np.ndarray]] = {}
    for name, tie in (("by keyed hash", "hash"), ("walking through the file", "walk")):
        made = match_frame(frame, tie=tie, **common)
        profile = made.effect("re78", model="means", unit="dollar")
        found[name] = float(profile.estimate[0]), int(profile.n_comparison[0]), made.adjustment.weight
    treated = made.prepared.treated
    pairs = first_in_file(made.model.score, treated)
    weight = treated + np.bincount(pairs.control, minlength=len(treated)).astype(float)
    nobody = np.empty(0, np.int64)
    first = Matching(treated, "att", treated.astype(float), weight, pairs, None, nobody, nobody)
    y = frame[["re78"]].to_numpy()
    effect = estimate(
        first, y, np.isfinite(y), np.ones((len(y), 1)), model="means", person=np.arange(len(y)), level="person"
    )
    found["the first in the file"] = float(effect.estimate[0]), int(effect.n_comparison[0]), weight
    return found


def rows() -> list[tuple[str, str, str]]:
    """What, the paper's figure, ours."""
    experiment, survey = data()
    lines = [
        ("Experiment, difference in means", "1,794 (633)", shown(regression(experiment, []))),
        ("Experiment, regression", "1,672 (638)", shown(regression(experiment, REGRESSION))),
        ("Survey, difference in means", "-8,498 (712)", shown(regression(survey, []))),
        ("Survey, regression", "972 (550)", shown(regression(survey, REGRESSION))),
    ]
    found = matched(survey)
    for name in ("the first in the file", "by keyed hash", "walking through the file"):
        value, men, weight = found[name]
        paper = "1,582, 119 men" if name == "the first in the file" else ""
        lines.append((f"Survey, matched on the score; of equals {name}", paper, f"{value:,.0f}, {men} men"))
    value, men, weight = found["the first in the file"]
    adjusted = regression(survey, LINEAR, weight)
    lines.append(("The same, regression on the matched men", "1,616", f"{adjusted[0]:,.0f}"))
    chance = match_frame(survey, treatment="treat", numeric=SCORE, caliper=None).weights()["chance"].to_numpy()
    treated = survey.treat.to_numpy() == 1
    inside = (chance >= chance[treated].min()) & (chance <= chance[treated].max())
    squares = survey[inside].assign(p=chance[inside], p2=chance[inside] ** 2)
    lines.append(("Survey within the range of the trainees' scores", "4,117 men", f"{int(inside.sum()):,} men"))
    lines.append(
        ("Regression on the score and its square there", "1,117 (747)", shown(regression(squares, ["p", "p2"])))
    )
    for name, profile in evalkit_answers(survey).items():
        lines.append((name, "", f"{profile.estimate[0]:,.0f} ({profile.std_error[0]:,.0f})"))
    return lines


def evalkit_answers(survey: pd.DataFrame) -> dict[str, EffectProfile]:
    """What evalkit's own defaults make of the same comparison."""
    numbers, kinds = ["age", "educ", "re74", "re75"], ["black", "hisp", "marr", "nodegree", "u74", "u75"]
    columns = dict(treatment="treat", numeric=numbers, categorical=kinds, id="unit")
    adjusted = {
        "evalkit: nearest neighbour, bias-corrected": match_frame(survey, **columns),
        "evalkit: kernel matching": match_frame(survey, how="kernel", **columns),
        "evalkit: entropy balancing": weight_frame(survey, how="entropy", **columns),
        "evalkit: doubly robust": weight_frame(survey, how="ipw", **columns),
    }
    return {name: made.effect("re78", unit="dollar") for name, made in adjusted.items()}


def shown(pair: tuple[float, float]) -> str:
    return f"{pair[0]:,.0f} ({pair[1]:,.0f})"


def main() -> None:
    print(f"{'Effect on earnings in 1978, dollars':66}{'paper':>16}{'evalkit':>18}")
    for what, paper, ours in rows():
        print(f"{what:66}{paper:>16}{ours:>18}")


if __name__ == "__main__":
    main()
