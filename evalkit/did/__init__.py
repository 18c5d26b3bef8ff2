"""Difference-in-differences: estimators, inference and credibility, on arrays and frames.

``panel_from_frame`` makes a :class:`Panel`; a :class:`Choice` is an estimator with its settings and is called with one.
Names are looked up when they are first used, so that a panel can be made without loading every estimator.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.did.bacon import bacon
    from evalkit.did.cells import Cells
    from evalkit.did.choice import Choice
    from evalkit.did.composition import composition, presence
    from evalkit.did.effects import Effects, Estimator, Missing
    from evalkit.did.extended import extended
    from evalkit.did.few import conley_taber, ferman_pinto, few_clusters, randomisation, wild_influence, wild_two_way
    from evalkit.did.frame import PanelFrame, panel_from_frame
    from evalkit.did.group_time import group_time
    from evalkit.did.honest import breakdown, honest
    from evalkit.did.imputation import imputation
    from evalkit.did.leave_out import leave_one_out
    from evalkit.did.multiplier import multiplier_bootstrap
    from evalkit.did.negative_weights import contamination, negative_weights
    from evalkit.did.panel import NEVER, Panel
    from evalkit.did.placebo import placebo_dates, placebo_groups
    from evalkit.did.pretrends import joint_test, pretrend_power, pretrend_test
    from evalkit.did.spillover import spillover_rings
    from evalkit.did.stacked import stacked
    from evalkit.did.sun_abraham import sun_abraham
    from evalkit.did.synthetic import synthetic_did
    from evalkit.did.triple import triple
    from evalkit.did.two_way import event_study, two_way

_HOMES = {
    "bacon": ("bacon",),
    "cells": ("Cells",),
    "choice": ("Choice",),
    "composition": ("composition", "presence"),
    "effects": ("Effects", "Estimator", "Missing"),
    "extended": ("extended",),
    "few": ("conley_taber", "ferman_pinto", "few_clusters", "randomisation", "wild_influence", "wild_two_way"),
    "frame": ("PanelFrame", "panel_from_frame"),
    "group_time": ("group_time",),
    "honest": ("breakdown", "honest"),
    "imputation": ("imputation",),
    "leave_out": ("leave_one_out",),
    "multiplier": ("multiplier_bootstrap",),
    "negative_weights": ("contamination", "negative_weights"),
    "panel": ("NEVER", "Panel"),
    "placebo": ("placebo_dates", "placebo_groups"),
    "pretrends": ("joint_test", "pretrend_power", "pretrend_test"),
    "spillover": ("spillover_rings",),
    "stacked": ("stacked",),
    "sun_abraham": ("sun_abraham",),
    "synthetic": ("synthetic_did",),
    "triple": ("triple",),
    "two_way": ("event_study", "two_way"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """The package; a name that is both a module and what it holds (``honest``) is what it holds."""

    def __getattribute__(self, name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(f"evalkit.did.{_HOME[name]}"), name)
        return super().__getattribute__(name)


sys.modules[__name__].__class__ = _Package

__all__ = [
    "NEVER", "Cells", "Choice", "Effects", "Estimator", "Missing", "Panel", "PanelFrame", "bacon", "breakdown",
    "composition", "conley_taber", "contamination", "event_study", "extended", "ferman_pinto", "few_clusters",
    "group_time", "honest", "imputation", "joint_test", "leave_one_out", "multiplier_bootstrap", "negative_weights",
    "panel_from_frame", "placebo_dates", "placebo_groups", "presence", "pretrend_power", "pretrend_test",
    "randomisation", "spillover_rings", "stacked", "sun_abraham", "synthetic_did", "triple", "two_way",
    "wild_influence", "wild_two_way",
]  # fmt: skip
