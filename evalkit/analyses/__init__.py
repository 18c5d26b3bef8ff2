"""Methods by name: each a module with ``Settings`` and ``run(sample, settings, rng) -> Analysis``.

Imported on demand, so that asking for one method does not load the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

METHODS = {
    "matching": "evalkit.analyses.matching",
    "weighting": "evalkit.analyses.weighting",
    "pairwise": "evalkit.analyses.pairwise",
    "did": "evalkit.analyses.did",
    "duration": "evalkit.analyses.duration",
    "experiment": "evalkit.analyses.experiment",
}


def method(name: str) -> Any:
    """The module of a method."""
    return import_module(METHODS[name])


def all_settings() -> dict[str, Any]:
    """The settings model of every method."""
    return {name: method(name).Settings for name in METHODS}
