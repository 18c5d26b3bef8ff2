"""The register in the shapes that methods work on: panels, counting-process episodes, patterns with a count.

All are built in the engine that holds the register, as lazy frames: what is not asked for is never computed. See
``docs/shapes.md``.
"""

from evalkit.sample.shapes.episodes import Splits, Traits, episodes, patterns
from evalkit.sample.shapes.panel import panel
from evalkit.sample.shapes.spells import spell_table

__all__ = ["Splits", "Traits", "episodes", "panel", "patterns", "spell_table"]
