"""Names of categories: a value that few people have is shown as a number, since it could tell who someone is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from evalkit.design import MISSING, Factor
from evalkit.register.schema import UNKNOWN
from evalkit.study import Study
from evalkit.text import RARE


def shown(study: Study, made: Factor) -> Factor:
    """The factor with the names of its rare levels replaced; codes stay."""
    persons = np.bincount(made.codes, minlength=len(made.levels))
    return replace(made, levels=names(study, made.name, made.levels, persons))


def names(study: Study, column: str, levels: Sequence[str], persons: ArrayLike) -> tuple[str, ...]:
    """Names of levels in their order, those of fewer persons than may be shown replaced.

    A value that the study file names itself stays.

    Parameters
    ----------
    persons: how many persons have each level.
    """
    known = _named(study, column)
    found, number = [], 0
    for level, count in zip(levels, np.asarray(persons).tolist(), strict=True):
        if count < study.disclosure.minimum and level not in known:
            number += 1
            level = f"{RARE}{number}"
        found.append(level)
    return tuple(found)


def _named(study: Study, column: str) -> set[str]:
    """Values of a column that stand in the study file: as fixed code, as a label, or to exclude people by."""
    found = {MISSING, UNKNOWN}
    tables = study.data.tables if study.data else {}
    for table, spec in tables.items():
        codes = getattr(spec, "codes", None) or {}
        if table == "persons":
            found |= set(codes.get(column, ()))
        elif table.partition(".")[2] == column:
            found |= set(codes.get("value", ()))
    for words in study.labels.values():
        found |= {word.removeprefix(f"{column}:") for word in words}
    return found | set(study.eligibility.exclude.get(column, ()))
