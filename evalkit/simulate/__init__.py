"""Simulated municipalities whose true effects are known exactly, and synthetic twins of real ones."""

from evalkit.simulate.aggregates import Aggregates
from evalkit.simulate.auditing import audit
from evalkit.simulate.blueprint import Effect
from evalkit.simulate.counting import aggregates
from evalkit.simulate.draw import Tables, draw
from evalkit.simulate.like import Made, gather, load, make
from evalkit.simulate.model import DEMO, NO_EFFECT, NULL, SMALL, Municipality, Slopes
from evalkit.simulate.truth import TrueEffect, truth
from evalkit.simulate.twin import known_effect, twin
from evalkit.simulate.write import write

__all__ = [
    "DEMO",
    "NO_EFFECT",
    "NULL",
    "SMALL",
    "Aggregates",
    "Effect",
    "Made",
    "Municipality",
    "Slopes",
    "Tables",
    "TrueEffect",
    "aggregates",
    "audit",
    "draw",
    "gather",
    "known_effect",
    "load",
    "make",
    "truth",
    "twin",
    "write",
]
