"""Regression-based difference-in-differences against fixest, did and didimputation on the castle doctrine data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from causaldata import castle
from tolerances import REFERENCE

from evalkit.did.extended import extended
from evalkit.did.panel import Panel
from evalkit.did.sun_abraham import sun_abraham
from evalkit.did.two_way import two_way

SAID = json.loads((Path(__file__).parent / "reference" / "did_regression.json").read_text())


def castle_panel(shift=0):
    """Homicides by state and year; ``shift`` -1 is the coding of the castle data in bacondecomp.

    That package has the outcome in single precision; the other files were read from its decimals.
    """
    rows = castle.load_pandas().data
    outcome = rows.l_homicide.astype(float) if shift else rows.l_homicide.astype(str).astype(float)
    began = rows[rows.post > 0].groupby("sid").year.min()
    first = rows.sid.map(began) + shift
    return Panel.of(rows.sid, rows.year, outcome, first.fillna(0))


def agrees(value, error, said_value, said_error):
    """Contract 7."""
    said_value, said_error = np.atleast_1d(said_value), np.atleast_1d(said_error)
    assert (np.abs(value - said_value) <= REFERENCE * np.maximum(np.abs(said_value), said_error)).all()
    assert (np.abs(error - said_error) <= REFERENCE * said_error).all()


@pytest.mark.parametrize("engine", ["within", "linearmodels"])
def test_two_way_is_that_of_fixest(engine):
    """The factor is G / (G - 1) (n - 1) / (n - K), K = 1 treatment + 10 periods + 1 for all states: "nested"."""
    mine = two_way(castle_panel(-1), engine=engine)
    agrees(mine.estimate, mine.std_error, SAID["twfe"]["coef"], SAID["twfe"]["se"])


def test_sun_abraham_is_that_of_fixest():
    cells = sun_abraham(castle_panel(), small_sample="nested")
    mine, said = cells.aggregate("event", shares="known"), SAID["sunab"]
    place = np.searchsorted(mine.at, said["event"])
    assert set(mine.at.tolist()) - set(said["event"]) == {-1} and len(place) == len(mine) - 1
    agrees(mine.estimate[place], mine.std_error[place], said["estimate"], said["se"])
    overall = cells.aggregate("simple", shares="known")
    agrees(overall.estimate, overall.std_error, said["att"], said["att_se"])


def test_cells_are_those_of_did_with_never_treated_and_universal_base():
    said = SAID["group_time"]
    error = np.array([np.nan if e is None else e for e in said["se"]], float)
    for mine in (sun_abraham(castle_panel()), extended(castle_panel(), control="never")):
        assert mine.group.tolist() == said["group"] and mine.time.tolist() == said["time"]
        free = ~mine.base
        assert np.array_equal(mine.base, ~np.isfinite(error))
        agrees(mine.estimate[free], mine.std_error[free], np.array(said["att"])[free], error[free])


def test_extended_is_the_imputation_estimate():
    """Balanced, no covariates: the same estimates. The error differs: imputation's is conservative by its residuals."""
    cells, said = extended(castle_panel(-1)), SAID["imputation"]
    mine = cells.aggregate("event")
    assert mine.at.tolist() == [0, 1, 2, 3, 4, 5]
    assert (np.abs(mine.estimate - said["horizon"]) <= REFERENCE * mine.std_error).all()
    overall = cells.aggregate("simple")
    assert abs(overall.estimate[0] - said["static"]) <= REFERENCE * overall.std_error[0]
