"""E-values: by hand, against the EValue program, and against the bound they invert."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scipy import stats
from tolerances import EXACT, REFERENCE, SOLVED

from evalkit.errors import UsageError
from evalkit.sensitivity import EValue, evalue_difference, evalue_ratio, evalue_risk_difference

CASES = json.loads((Path(__file__).parent / "reference" / "sensitivity_cases.json").read_text())["evalue"]

MADE = {
    "RR_3.9_1.8_8.7": evalue_ratio(3.9, 1.8, 8.7),
    "RR_0.8_0.71_0.91": evalue_ratio(0.8, 0.71, 0.91),
    "OR_rare_0.86": evalue_ratio(0.86, 0.75, 0.99, measure="or"),
    "OR_common_0.86": evalue_ratio(0.86, 0.75, 0.99, measure="or", common=True),
    "HR_rare_0.56": evalue_ratio(0.56, 0.46, 0.69, measure="hr"),
    "HR_common_0.56": evalue_ratio(0.56, 0.46, 0.69, measure="hr", common=True),
    "MD_0.5_se0.25": evalue_difference(0.5, 0.25),
    "OLS_0.293_se0.03_sd1": evalue_difference(0.293, 0.03, sd=1),
    "RR_true2": evalue_ratio(3.9, 1.8, 8.7, true=1.5),  # the figures are those of a true ratio of 1.5: E(3.9 / 1.5)
}


@pytest.mark.parametrize("name", MADE)
def test_evalues_are_those_of_the_program(name: str) -> None:
    made, theirs = MADE[name], CASES[name]
    assert [made.ratio, made.low, made.high] == pytest.approx(theirs["ratio"], rel=REFERENCE)
    interval = next(value for value in theirs["e"][1:] if value is not None)
    assert [made.point, made.interval] == pytest.approx([theirs["e"][0], interval], rel=REFERENCE)


def test_every_case_is_compared() -> None:
    assert set(MADE) | {"RD"} == set(CASES)


def test_risk_difference_is_that_of_the_program_on_its_grid() -> None:
    """The program walks the bounding factor in steps of 0.0001 and shows the first that suffices; ours is the root."""
    made, theirs = evalue_risk_difference(100, 900, 60, 940), CASES["RD"]["e"]
    assert made.point == pytest.approx(theirs[0], rel=SOLVED)  # a closed form there too
    assert made.interval is not None
    factor = made.interval**2 / (2 * made.interval - 1)
    stepped = 1 + math.ceil((factor - 1) / 1e-4) * 1e-4
    assert stepped + math.sqrt(stepped * (stepped - 1)) == pytest.approx(theirs[1], rel=REFERENCE)
    assert made.interval < theirs[1]


def test_by_hand() -> None:
    assert evalue_ratio(2.0).point == pytest.approx(2 + math.sqrt(2), rel=EXACT)
    assert evalue_ratio(0.5).point == pytest.approx(2 + math.sqrt(2), rel=EXACT)
    assert evalue_ratio(1.0).point == 1
    assert evalue_ratio(2.0).interval is None
    assert evalue_ratio(2.0, low=0.9).interval == 1
    assert evalue_ratio(0.5, high=1.2).interval == 1
    assert evalue_ratio(4.0, measure="or", common=True).ratio == 2
    assert evalue_difference(0.0).point == 1


def test_a_confounder_of_this_strength_just_does_it() -> None:
    """The bounding factor E^2 / (2 E - 1) of two associations E equals the ratio (Ding and VanderWeele 2016)."""
    for ratio in (1.01, 1.5, 3.9, 20.0):
        e = evalue_ratio(ratio).point
        assert e**2 / (2 * e - 1) == pytest.approx(ratio, rel=SOLVED)


def test_a_worst_confounder_with_these_ratios_makes_the_whole_effect() -> None:
    """No effect, a binary U of everybody treated and of a share 1/E of the others, risk E times as high with U."""
    e = evalue_ratio(3.0).point
    risk_treated, risk_control = e, (1 / e) * e + (1 - 1 / e) * 1
    assert risk_treated / risk_control == pytest.approx(3.0, rel=SOLVED)


def test_a_difference_in_other_units_is_the_same() -> None:
    first, second = evalue_difference(0.4, 0.1, sd=1), evalue_difference(400, 100, sd=1000)
    assert first.point == pytest.approx(second.point, rel=SOLVED)
    assert first.interval == pytest.approx(second.interval, rel=SOLVED)
    assert evalue_difference(0.2, delta=2).point == pytest.approx(evalue_difference(0.4).point, rel=SOLVED)
    assert evalue_difference(-0.4, 0.1).point == pytest.approx(first.point, rel=SOLVED)


def test_the_limit_of_the_risk_difference_is_a_root() -> None:
    """At the bounding factor found the lower limit of the bound is the value asked for; delta method in the open."""
    yes1, no1, yes0, no0, true = 80, 120, 40, 160, 0.02
    made = evalue_risk_difference(yes1, no1, yes0, no0, true=true)
    p1, p0, f = 0.4, 0.2, 0.5

    def bound(b: float, p1: float, p0: float, f: float) -> float:
        return (p1 - p0 * b) * (f + (1 - f) / b)

    point = made.point**2 / (2 * made.point - 1)
    assert bound(point, p1, p0, f) == pytest.approx(true, abs=SOLVED)
    assert made.interval is not None
    b = made.interval**2 / (2 * made.interval - 1)
    h = 1e-6
    slopes = [
        (bound(b, p1 + h, p0, f) - bound(b, p1 - h, p0, f)) / (2 * h),
        (bound(b, p1, p0 + h, f) - bound(b, p1, p0 - h, f)) / (2 * h),
        (bound(b, p1, p0, f + h) - bound(b, p1, p0, f - h)) / (2 * h),
    ]
    variances = [p1 * (1 - p1) / 200, p0 * (1 - p0) / 200, f * (1 - f) / 400]
    error = math.sqrt(sum(s**2 * v for s, v in zip(slopes, variances, strict=True)))
    assert bound(b, p1, p0, f) - stats.norm.ppf(0.975) * error == pytest.approx(true, abs=1e-7)


def test_what_has_no_evalue_is_refused() -> None:
    for call in (lambda: evalue_ratio(-1), lambda: evalue_ratio(2, low=0), lambda: evalue_ratio(2, true=0)):
        with pytest.raises(UsageError, match="ratio_not_positive"):
            call()
    with pytest.raises(UsageError, match="interval_excludes"):
        evalue_ratio(2, low=2.5)
    with pytest.raises(UsageError, match="sd_not_positive"):
        evalue_difference(1, sd=0)
    with pytest.raises(UsageError, match="risk_not_higher"):
        evalue_risk_difference(10, 90, 20, 80)
    with pytest.raises(UsageError, match="table_empty"):
        evalue_risk_difference(0, 0, 20, 80)


def test_frame() -> None:
    assert isinstance(MADE["RR_true2"], EValue)
    assert evalue_ratio(2, 1.5).frame().shape == (1, 6)
