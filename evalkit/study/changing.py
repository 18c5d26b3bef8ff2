"""The rules about covariates that change over time, and about values that keep people out."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from evalkit.study.lines import KeyPath
from evalkit.study.model import Codes, Columns, Covariates
from evalkit.study.parts import Parts
from evalkit.study.translate import Issue, nearest, not_allowed

CHANGING = ("changes", "areas")
"""Tables of which a study may have several, each under the name of a covariate."""

SINGLE = ("persons", "benefits", "episodes", "jobs")
"""Tables of which a study has one at most."""

_NOT_GIVEN = ("missing", "unknown")
"""Values that no file holds: no value, and a code that the study does not name."""


def register_tables(parts: Parts) -> list[tuple[str, ...]]:
    """Where the tables of ``[data]`` stand; those of which there is one at most whether they are there or not."""
    places: list[tuple[str, ...]] = [("data", table) for table in SINGLE]
    for kind in CHANGING:
        tables = parts.raw("data", kind)
        places += [("data", kind, name) for name in (tables if isinstance(tables, dict) else ())]
    return places


def _names(parts: Parts) -> list[tuple[str, ...]]:
    return [place for place in register_tables(parts) if place[1] in CHANGING]


def usable_columns(parts: Parts, columns: Collection[str]) -> list[str]:
    """What covariates, subgroups and eligibility may name, given the columns of persons."""
    return [*(name for name in columns if name != "person"), "age", *(place[2] for place in _names(parts))]


def changing(parts: Parts, reserved: Collection[str]) -> Iterator[Issue]:
    """Every covariate that changes has a name of its own, and an area that is told somewhere."""
    columns = parts.get(Columns, "data", "persons", "columns")
    numeric = _numeric(parts)
    owners = dict.fromkeys(columns or (), "data.persons")
    for place in _names(parts):
        name = place[2]
        if name in reserved or name in ("person", "birth_year", "measured"):
            yield Issue(place, "study.reserved_name", {"name": name})
        elif name in owners:
            params = {"name": name, "first": owners[name], "second": ".".join(place[:2])}
            yield Issue(place, "study.covariate_twice", params)
        owners.setdefault(name, ".".join(place[:2]))
        area = parts.raw(*place, "area") if place[1] == "areas" else None
        if isinstance(area, str) and area and columns is not None:
            known = [column for column in columns if column not in ("person", "birth_year", "measured")]
            known += [other[2] for other in _names(parts) if other[1] == "changes"]
            if area not in known:
                yield not_allowed((*place, "area"), area, known or ["–"])
            elif area in numeric:
                yield Issue((*place, "area"), "study.area_numeric", {"name": area})
    yield from _exclude(parts, columns, numeric)


def _numeric(parts: Parts) -> set[str]:
    """Columns that hold numbers."""
    covariates = parts.section(Covariates, "covariates") or Covariates()
    return {"age", "birth_year", *covariates.numeric}


def _exclude(parts: Parts, columns: Columns | None, numeric: Collection[str]) -> Iterator[Issue]:
    """Values that keep people out belong to categories that are there."""
    wanted = parts.get(dict[str, tuple[str, ...]], "eligibility", "exclude")
    if not wanted or columns is None:
        return
    places = {place[2]: place for place in _names(parts)}
    usable = [name for name in usable_columns(parts, columns) if name not in numeric]
    for name, values in wanted.items():
        path: KeyPath = ("eligibility", "exclude", name)
        if name in numeric:
            yield Issue(path, "study.exclude_numeric", {"name": name})
        elif name not in usable:
            params = {"name": name, "nearest": nearest(name, usable or ["–"]), "valid": ", ".join(usable)}
            yield Issue(path, "study.unknown_column", params)
        else:
            place, column = (places[name], "value") if name in places else (("data", "persons"), name)
            codes = (parts.get(Codes, *place, "codes") or {}).get(column)
            for i, value in enumerate(values):
                if codes is not None and value not in (*codes, *_NOT_GIVEN):
                    yield not_allowed((*path, i), value, [*codes, *_NOT_GIVEN])
