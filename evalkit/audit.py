"""The last look before anything is written: a document that disclosure control should have made safe, checked again.

Independent of how :mod:`evalkit.disclosure` works, so that a mistake there, or a document changed by hand, is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalkit.errors import DisclosureError, Fault


def audit(document: Mapping[str, Any]) -> None:
    """Refuse a document that shows a small count of persons or a covariance; ``open`` documents pass.

    Raises
    ------
    DisclosureError
        ``disclosure.small_count`` for each part with counts of 1..minimum-1, ``disclosure.covariance``.
    """
    rules = document["disclosure"]
    if rules["profile"] == "open":
        return
    small: dict[str, int] = {}
    for where, count in _counts(document):
        if count is not None and 0 < count < rules["minimum"]:
            small[where] = small.get(where, 0) + 1
    faults = [
        Fault("disclosure.small_count", {"where": where, "cells": cells, "minimum": rules["minimum"]})
        for where, cells in small.items()
    ]
    if any(profile["vcov"] is not None for profile in document["profiles"]):
        faults.append(Fault("disclosure.covariance"))
    if faults:
        raise DisclosureError(faults)


def _counts(document: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    """Every number in the document that counts persons, with where it stands."""
    for row in document["flow"]:
        yield "flow", row["persons"]
        yield "flow", row["entries"]
    for profile in document["profiles"]:
        for month in profile["months"]:
            yield "profiles", month["n_treated"]
            yield "profiles", month["n_comparison"]
    for exhibit in document["exhibits"]:
        if exhibit["type"] == "table":
            keys = [column["key"] for column in exhibit["columns"] if column["role"] == "count"]
            for row in exhibit["rows"]:
                yield from ((exhibit["id"], row[key]) for key in keys)
        elif exhibit["type"] == "chart":
            for series in exhibit["series"]:
                yield from ((exhibit["id"], count) for count in series["support"])
    for check in document["checks"]:
        if check.get("unit", "rows") == "rows":
            yield "checks", check["count"]
        yield from (("checks", arm["count"]) for arm in check.get("arms", {}).values())
