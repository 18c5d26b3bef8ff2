"""What a register holds, as exhibits that belong to no analysis: the door for every description of the data.

Each description looks at the register and the sample and gives tables, charts or notes. Columns name the count of
persons beneath them, so that disclosure control protects them as it protects the exhibits of a method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from evalkit.exhibits import Exhibit
from evalkit.register import Register
from evalkit.sample.instrument_tables import describe_instruments
from evalkit.sample.observed import describe_spells
from evalkit.sample.types import Sample

Description = Callable[[Register, Sample], Iterable[Exhibit]]

DESCRIPTIONS: tuple[Description, ...] = (describe_spells, describe_instruments)
"""In the order in which the report shows them."""


def describe(register: Register, sample: Sample) -> tuple[Exhibit, ...]:
    """All descriptions of a register and the sample cut from it; none without risk sets."""
    if not len(sample.entries):
        return ()
    return tuple(exhibit for description in DESCRIPTIONS for exhibit in description(register, sample))
