"""Confounders that change: values as of time zero recover the true effect, later ones and none do not."""

from __future__ import annotations

import numpy as np
import pytest
from changing_simulated import COVARIATES, HORIZON, cut, draw, protocol, truth

from evalkit import analyses
from evalkit.run import bind_all

PERSONS, SEED = 30_000, 2


def test_the_truth_is_a_difference_of_two_paths():
    start, wait = truth()
    assert start.shape == wait.shape == (HORIZON,)
    assert (np.diff(start) > 0).all() and (np.diff(wait) > 0).all()
    assert (start > wait).all() and 0.05 < (start - wait)[-1] < 0.1


@pytest.mark.slow
def test_values_as_of_time_zero_recover_the_effect():
    frames, (start, wait) = draw(PERSONS, SEED), truth()
    away = {}
    for which in COVARIATES:
        made = protocol(which)
        (settings,) = bind_all(made)
        found = analyses.method("matching").run(cut(made, frames), settings, np.random.default_rng(1), "main")
        profile = found.profiles[0]
        error = np.sqrt(np.diag(profile.uncertainty.vcov))
        away[which] = (profile.estimate - (start - wait)) / error
    assert np.abs(away["as of time zero"]).max() < 3
    assert away["last in the files"].min() > 5  # leaving changed the household
    assert away["left out"].min() > 5
