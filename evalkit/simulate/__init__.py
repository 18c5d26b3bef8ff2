"""Simulated municipalities whose true effects are known exactly."""

from evalkit.simulate.draw import Tables, draw
from evalkit.simulate.model import DEMO, NO_EFFECT, NULL, SMALL, Municipality, Slopes
from evalkit.simulate.truth import TrueEffect, truth
from evalkit.simulate.write import write

__all__ = [
    "DEMO",
    "NO_EFFECT",
    "NULL",
    "SMALL",
    "Municipality",
    "Slopes",
    "Tables",
    "TrueEffect",
    "draw",
    "truth",
    "write",
]
