"""The last look at aggregates before they are written or used: does any number rest on too few persons?

Works on the plain document, independent of how it was counted, so that a mistake there, or a file changed by hand, is
stopped. It cannot see the register: it checks that every number says on how many persons it rests, that these are
enough, that counts are rounded, and that nothing stands in the document that is not known to be harmless.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from evalkit.errors import DisclosureError, Fault
from evalkit.simulate.rounding import FLOOR

COUNTS = ("persons", "part", "events", "exits", "exits_expected", "starts", "starts_expected")
"""Keys that count persons, or events and person-months of so many persons."""

FACTS = {
    "schema", "minimum", "gap_months", "first", "last", "low", "high", "step", "each", "event", "monthly",
}  # fmt: skip
"""Keys of numbers that count nobody: limits of groups, months, and facts about whole columns."""

WORDS = {
    "name", "kind", "table", "value", "code", "type", "clock", "first", "last", "delimiter", "encoding", "decimal",
    "date", "window",
}  # fmt: skip
"""Keys of text: names of the study file, values that enough persons have, quarters, and how files are written."""


def audit(document: Mapping[str, Any], minimum: int = FLOOR) -> None:
    """Refuse aggregates in which a number rests on too few persons.

    Parameters
    ----------
    document: what ``aggregates.json`` holds.
    minimum: the fewest persons that the study allows behind a number.

    Raises
    ------
    DisclosureError
        ``twin.minimum`` when fewer persons are asked for than the study does; for each part ``twin.small`` for numbers
        on too few persons, ``twin.unrounded`` for counts that are no multiples of the minimum, ``twin.exact`` for
        groups with other limits than round ones, ``twin.unknown`` for what is not known to be harmless.
    """
    told = document.get("minimum")
    base = told if isinstance(told, int) and not isinstance(told, bool) else 0
    needed = max(FLOOR, minimum)
    if base < needed:
        raise DisclosureError(Fault("twin.minimum", {"told": base, "minimum": needed}))
    found: dict[str, dict[str, int]] = {}
    for where, code in _wrong(document, "", base):
        found.setdefault(code, {}).setdefault(where, 0)
        found[code][where] += 1
    faults = [
        Fault(f"twin.{code}", {"where": where, "cells": cells, "minimum": base})
        for code, parts in sorted(found.items())
        for where, cells in parts.items()
    ]
    if faults:
        raise DisclosureError(faults)


def _wrong(item: Any, part: str, base: int) -> Iterator[tuple[str, str]]:
    """Every fault: in which part of the document, and which."""
    if isinstance(item, list | tuple):
        for one in item:
            yield from _wrong(one, part, base)
    if not isinstance(item, Mapping):
        return
    for key, value in item.items():
        here = part or str(key)
        if isinstance(value, int | float):
            yield from ((here, code) for code in _number(key, value, item, base))
        elif key in WORDS:
            texts = value if isinstance(value, list | tuple) else [value]
            if not all(text is None or isinstance(text, str) for text in texts):
                yield here, "unknown"
        elif isinstance(value, str):
            yield here, "unknown"
        else:
            yield from _wrong(value, here, base)
    if not _round_limits(item):
        yield part, "exact"


def _number(key: str, value: float, item: Mapping[str, Any], base: int) -> Iterator[str]:
    """What is wrong with one number of an object."""
    if key == "months":
        if value <= 0 or value % base:
            yield "unrounded"
        return
    if key not in COUNTS:
        if key not in FACTS:
            yield "unknown"
        return
    persons = item.get("persons", 0)
    if value % base:
        yield "unrounded"
    if key == "persons" and value < base:
        yield "small"
    elif key != "persons" and (persons < base or 0 < value < base or value < 0):
        yield "small"
    elif key == "part" and (value > persons or 0 < persons - value < base):
        yield "small"


def _round_limits(item: Mapping[str, Any]) -> bool:
    """Whether a group is told by round numbers; a value by itself is told as it is, since enough persons have it."""
    low, high = item.get("low"), item.get("high")
    if low is None or high is None:
        return low is high
    if low == high:
        return "persons" in item
    if low > high:
        return False
    unit = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    return all(abs(limit / unit - round(limit / unit)) < 1e-6 for limit in (low, high))
