"""Common support in categories: a level that only one arm has cannot be compared and has no finite coefficient."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalkit.design import Design, Factor
from evalkit.effects import frozen
from evalkit.errors import DesignError, Fault


@dataclass(frozen=True)
class Shared:
    """``rows``: rows whose categories both arms have (None: all); ``dropped``: the ``factor:level`` left out."""

    design: Design
    rows: NDArray[np.int64] | None
    dropped: tuple[str, ...]


def common_levels(design: Design, treated: NDArray[np.bool_]) -> Shared:
    """Rows whose every category occurs in both arms, with factors reduced to the levels that are left.

    Raises
    ------
    DesignError
        ``design.no_treated`` / ``design.no_controls`` when an arm is empty.
    """
    if not treated.any() or treated.all():
        raise DesignError(Fault("design.no_treated" if not treated.any() else "design.no_controls"))
    keep = np.ones(len(treated), bool)
    dropped: list[str] = []
    while True:  # leaving out one level can empty another
        bad: list[str] = []
        for made, codes in row_codes(design):
            size = len(made.levels)
            one = np.bincount(codes[keep & treated], minlength=size)
            other = np.bincount(codes[keep & ~treated], minlength=size)
            alone = (one > 0) != (other > 0)
            bad += [f"{made.name}:{made.levels[i]}" for i in np.flatnonzero(alone)]
            if alone.any():
                keep &= ~alone[codes]
        if not bad:
            break
        dropped += bad
        if not (keep & treated).any() or not (keep & ~treated).any():
            raise DesignError(Fault("design.no_common_support", {"columns": ", ".join(dropped)}))
    rows = np.flatnonzero(keep) if dropped else None
    part = design if rows is None else design.take(rows)
    return Shared(compact(part), rows, tuple(dropped))


def row_codes(design: Design) -> list[tuple[Factor, NDArray[np.int32]]]:
    shared = [(f, f.codes[design.index]) for f in design.factors]
    return shared + [(f, f.codes) for f in design.row_factors]


def compact(design: Design) -> Design:
    """Factors and numeric columns reduced to what varies among the rows."""
    used = np.bincount(design.index, minlength=len(design.numeric)) > 0
    factors = tuple(made for f in design.factors if len((made := _present(f, used)).levels) > 1)
    every = np.ones(len(design.index), bool)
    own, time = (
        tuple(made for f in group if len((made := _present(f, every)).levels) > 1)
        for group in (design.own_factors, design.time_factors)
    )
    vary = [j for j in range(design.numeric.shape[1]) if np.ptp(design.numeric[used, j]) > 0]
    own_vary = [j for j in range(design.own_numeric.shape[1]) if np.ptp(design.own_numeric[:, j]) > 0]
    return replace(
        design,
        numeric=design.numeric[:, vary],
        numeric_names=tuple(design.numeric_names[j] for j in vary),
        own_numeric=design.own_numeric[:, own_vary],
        own_numeric_names=tuple(design.own_numeric_names[j] for j in own_vary),
        factors=factors,
        own_factors=own,
        time_factors=time,
    )


def _present(made: Factor, used: NDArray[np.bool_]) -> Factor:
    count = np.bincount(made.codes[used], minlength=len(made.levels))
    levels = np.flatnonzero(count)
    number = np.zeros(len(made.levels), np.int32)
    number[levels] = np.arange(len(levels), dtype=np.int32)
    return Factor(made.name, tuple(made.levels[i] for i in levels), frozen(number[made.codes], np.int32))
