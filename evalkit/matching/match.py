"""One door to every way of matching: arrays in, one ``Matching`` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.errors import DataError, DesignError, Fault
from evalkit.hashing import Hash, mix
from evalkit.matching.adjustment import Matching, Pairs
from evalkit.matching.distance import DistanceName, Space, place
from evalkit.matching.greedy import Order, Tie, Units, extremal_numbers, match_all_ties, match_greedy
from evalkit.matching.optimal import match_full, match_optimal
from evalkit.matching.smooth import Bandwidth, KernelName, match_smooth
from evalkit.matching.strata import Cut, cells, coarsen, score_classes, stratum_matching

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

How = Literal["nearest", "optimal", "full", "exact", "cem", "subclass", "kernel", "radius", "ridge"]
Target = Literal["att", "atc", "ate"]
CaliperUnit = Literal["sd", "sd_within", "raw"]
Discard = Literal["none", "both", "control", "treated"]

TIES_TOLERANCE = 1e-5


def match(
    treated: Mask,
    *,
    how: How,
    target: Target = "att",
    score: Array | None = None,
    covariates: Array | None = None,
    names: Sequence[str] = (),
    distance: DistanceName | Array | None = None,
    exact: ArrayLike | None = None,
    anti_exact: ArrayLike | None = None,
    ratio: float = 1,
    min_ratio: float | None = None,
    max_ratio: float | None = None,
    replace: bool = False,
    order: Order | None = None,
    tie: Tie = "hash",
    tie_tolerance: float = TIES_TOLERANCE,
    caliper: float | None = None,
    caliper_unit: CaliperUnit = "sd",
    caliper_columns: Array | None = None,
    caliper_widths: Sequence[float] = (),
    caliper_widths_unit: Literal["sd", "raw"] = "sd",
    discard: Discard = "none",
    person: Ints | None = None,
    key: Hash | None = None,
    cutpoints: Cut | Sequence[Cut] = "sturges",
    subclasses: int | Sequence[float] = 6,
    min_per_arm: int = 1,
    kernel: KernelName | None = None,
    bandwidth: Bandwidth = "pair",
    bandwidth_values: Array | None = None,
    ridge: float | None = None,
) -> Matching:
    """Make two groups alike by matching, without a look at any outcome.

    Parameters
    ----------
    treated: (n,) bool.
    how: ``nearest``: greedy nearest neighbours (``greedy.match_greedy``). ``optimal``: fixed numbers of matches with
        the least total distance; ``full``: sets of one treated and several others or the reverse, everybody in a set
        (``optimal``). ``exact``: strata of ``exact``; ``cem``: strata of coarsened covariates; ``subclass``: classes of
        the score (``strata``). ``kernel``, ``radius``, ``ridge``: everybody near counts, by nearness (``smooth``).
    target: whose average effect: the treated (``att``), the others (``atc``), all (``ate``: nearest with replacement in
        both directions, full, strata, kernels).
    score: (n,) chance of treatment or its linear predictor; distances and calipers are on the scale given.
    covariates: (n, p), numbers, with ``names`` for messages: for distances on covariates and ``cem``.
    distance: a name, see ``distance.place``, or distances (n1, n0), treated by others in row order, not finite where a
        pair may not be made. Default ``score`` where there is one, else ``mahalanobis``.
    exact, anti_exact: (n,) or (n, k) codes; matches are equal on all of the first and differ on each of the second.
    ratio: matches a focal row. With ``max_ratio`` (and ``min_ratio``, default 1) nearest neighbours get a variable
        number with this mean, see ``greedy.extremal_numbers``. For ``full`` the two bound the others a treated unit.
    replace: whether a row may be a match more than once.
    order: who chooses first without replacement: ``largest`` score (default for ``att``), ``smallest`` (default for
        ``atc``), ``closest`` pair, ``data`` (rows as given), ``random`` (by keyed hash). Without a score the default is
        ``random``, with ``tie="walk"`` ``data``.
    tie: ``hash``, ``walk`` (see ``greedy.match_greedy``) or ``all``: with replacement, every row whose squared distance
        in standard deviations exceeds that of the last match by ``tie_tolerance`` at most is a match too.
    caliper: largest distance on the score, inclusive. ``caliper_unit``: standard deviations of the score over all rows
        that are not discarded, of the score within exact strata, or its own units. Without a score it is the largest
        distance itself, in its own units (``raw``).
    caliper_columns, caliper_widths: (n, k) further numbers on which matches may differ by (k,) at most, in standard
        deviations over all rows that are not discarded or in units; a negative width asks for a larger difference.
    discard: rows outside common support on the score that are left out beforehand: treated beyond the range of the
        others (``treated``), others beyond that of the treated (``control``), or both.
    person: (n,) codes; nobody is his own match. key: (n,) keyed hashes (``hash_ids``) that settle ties; default hashes
        of the row numbers, which depend on the order of rows.
    cutpoints: for ``cem`` how each covariate is coarsened, one for all or one each, see ``strata.coarsen``.
    subclasses, min_per_arm: for ``subclass``, see ``strata.score_classes``.
    kernel, bandwidth, bandwidth_values, ridge: see ``smooth.match_smooth``.

    Returns
    -------
    Matching; ``width`` is the caliper or the bandwidth in units of the score.

    Raises
    ------
    DesignError
        ``design.no_treated`` / ``design.no_controls``; ``design.nobody_matched`` when nobody meets the rules;
        ``design.match_no_overlap`` when nobody is left after ``discard``; ``design.match_unknown`` for a value that
        does not exist, ``design.match_option`` for options that do not go together, ``design.match_length`` for an
        array of another length; those of the functions named above.
    DataError
        ``data.match_not_finite`` for a gap or an infinite value.
    """
    _refuse_unknown(how=how, target=target, order=order, tie=tie, caliper_unit=caliper_unit,
                    caliper_widths_unit=caliper_widths_unit, discard=discard)  # fmt: skip
    treated = np.asarray(treated, bool)
    if not treated.any() or treated.all():
        raise DesignError(Fault("design.no_treated" if not treated.any() else "design.no_controls"))
    _refuse_options(how, target, replace, tie, ratio, min_ratio, max_ratio, order, distance, score)
    score = _column(score, treated, "score")
    covariates = _columns(covariates, treated, names, "covariates")
    caliper_columns = _columns(caliper_columns, treated, (), "caliper_columns")
    names = list(names) or [str(k + 1) for k in range(0 if covariates is None else covariates.shape[1])]
    kept = _support(treated, score, discard)
    discarded = np.flatnonzero(~kept)
    if not (kept & treated).any() or not (kept & ~treated).any():
        raise DesignError(Fault("design.match_no_overlap", {}))
    n = len(treated)
    key = mix(np.zeros(n, np.uint64), np.arange(n)) if key is None else np.asarray(key, np.uint64)
    stratum = np.zeros(n, np.int64) if exact is None else cells(_codes(exact, treated, "exact"))

    if how == "exact":
        if exact is None:
            raise DesignError(Fault("design.match_needs_exact", {}))
        return stratum_matching(treated, kept, stratum, target, discarded)
    if how == "cem":
        code = _coarse_cells(covariates, stratum, cutpoints)
        return stratum_matching(treated, kept, code, target, discarded)
    if how == "subclass":
        return _by_class(treated, kept, discarded, score, stratum, target, subclasses, min_per_arm, key)

    values = _column(bandwidth_values, treated, "bandwidth_values")
    if how in ("kernel", "radius", "ridge") and (
        anti_exact is not None or caliper_columns is not None or caliper is not None
    ):
        raise DesignError(Fault("design.match_option", {"one": f'how = "{how}"', "other": "caliper, anti_exact"}))
    units = _units(
        treated, kept, score, stratum, person, key, anti_exact, caliper_columns, caliper_widths, caliper_widths_unit
    )
    if how == "kernel" or how == "radius" or how == "ridge":
        if score is None:
            raise DesignError(Fault("design.match_needs_score", {"how": how}))
        return match_smooth(
            units, treated, target, discarded, how=how, kernel=kernel, bandwidth=bandwidth, values=values, ridge=ridge
        )
    kind = distance if distance is not None else "score" if score is not None else "mahalanobis"
    space = place(kind, treated, score, covariates, names)
    units = _with_caliper(units, space, score, caliper, caliper_unit)
    if how == "full":
        return match_full(units, space, treated, target, discarded, fewest=min_ratio, most=max_ratio)
    if target == "atc":
        units, space = units.swapped(), space.swapped()
    if how == "optimal":
        pairs = match_optimal(units, space, ratio=int(ratio))
        return paired(treated, target, units, (pairs,), False, discarded)
    return _nearest(units, space, treated, target, discarded, ratio, min_ratio, max_ratio, replace, order, tie,
                    tie_tolerance, score)  # fmt: skip


def paired(
    treated: Mask, target: Target, units: Units, directions: Sequence[Pairs], repeated: bool, discarded: Ints
) -> Matching:
    """A Matching from pairs: one direction for ``att`` and ``atc``, both for ``ate``.

    ``repeated``: whether a row may serve twice; then there are no sets.
    """
    pairs = directions[0]
    if len(directions) > 1:
        pairs = Pairs(
            np.concatenate([p.treated for p in directions]),
            np.concatenate([p.control for p in directions]),
            np.concatenate([p.weight for p in directions]),
            np.sort(np.concatenate([p.outside for p in directions])),
            directions[0].width,
        )
    matched = pairs.matched
    population = np.zeros(len(treated))
    population[matched] = 1.0
    weight = population + np.bincount(pairs.control, pairs.weight, minlength=len(treated))
    subclass = None
    if not repeated:
        subclass = np.full(len(treated), -1, np.int64)
        subclass[matched] = np.arange(len(matched))
        subclass[pairs.control] = subclass[pairs.treated]
    return Matching(treated, target, population, weight, pairs, subclass, pairs.outside, discarded, pairs.width)


def _nearest(
    units: Units, space: Space, treated: Mask, target: Target, discarded: Ints, ratio: float, min_ratio: float | None,
    max_ratio: float | None, repeat: bool, order: Order | None, tie: Tie, tolerance: float, score: Array | None,
) -> Matching:  # fmt: skip
    directions = [units, units.swapped()] if target == "ate" else [units]
    spaces = [space, space.swapped()]
    if order is None:
        order = ("smallest" if target == "atc" else "largest") if score is not None else "random"
        if score is None and tie == "walk":
            order = "data"
    found = []
    for one, where in zip(directions, spaces, strict=False):
        if tie == "all":
            if where.line:
                where = Space(where.coords / one.spread)
                one = _replace(one, limit=one.limit / one.spread)
            found.append(match_all_ties(one, where, ratio=int(ratio), tolerance=tolerance))
            continue
        numbers: Ints | int = int(ratio)
        if max_ratio is not None:
            second = None if tie == "walk" else one.key[one.focal]
            low, high = int(min_ratio or 1), int(max_ratio)
            numbers = extremal_numbers(
                one.score[one.focal], float(one.score[one.pool].mean()), ratio, low, high, second
            )
        found.append(match_greedy(one, where, numbers=numbers, replace=repeat, order=order, tie=tie))
    return paired(treated, target, units, found, repeat, discarded)


def _by_class(
    treated: Mask, kept: Mask, discarded: Ints, score: Array | None, stratum: Ints, target: Target,
    subclasses: int | Sequence[float], least: int, key: Hash,
) -> Matching:  # fmt: skip
    if score is None:
        raise DesignError(Fault("design.match_needs_score", {"how": "subclass"}))
    code = np.zeros(len(treated), np.int64)
    rows = np.flatnonzero(kept)
    code[rows] = score_classes(treated[rows], score[rows], target, subclasses, least, key[rows])
    if stratum.any():
        code = cells(np.column_stack([stratum, code]))
    return stratum_matching(treated, kept, code, target, discarded)


def _coarse_cells(covariates: Array | None, stratum: Ints, cutpoints: Cut | Sequence[Cut]) -> Ints:
    if covariates is None:
        raise DesignError(Fault("design.match_needs_covariates", {"distance": "cem"}))
    p = covariates.shape[1]
    each = list(cutpoints) if isinstance(cutpoints, list | tuple) else [cutpoints] * p
    if len(each) != p:
        raise DesignError(Fault("design.match_length", {"name": "cutpoints", "rows": p}))
    columns = [coarsen(covariates[:, k], each[k]) for k in range(p)]  # type: ignore[arg-type]
    return cells(np.column_stack([stratum, *columns]))


def _units(
    treated: Mask, kept: Mask, score: Array | None, stratum: Ints, person: Ints | None, key: Hash,
    anti_exact: ArrayLike | None, columns: Array | None, widths: Sequence[float], unit: Literal["sd", "raw"],
) -> Units:  # fmt: skip
    n = len(treated)
    columns = np.zeros((n, 0)) if columns is None else columns
    width = np.asarray(widths, np.float64)
    if width.shape != (columns.shape[1],):
        raise DesignError(Fault("design.match_length", {"name": "caliper_widths", "rows": columns.shape[1]}))
    if np.isnan(width).any():
        raise DataError(Fault("data.match_not_finite", {"column": "caliper_widths"}))
    if unit == "sd" and len(width):
        width = width * columns[kept].std(axis=0, ddof=1)
    anti = np.zeros((n, 0), np.int64)
    if anti_exact is not None:
        given = _codes(anti_exact, treated, "anti_exact").reshape(n, -1)
        anti = np.column_stack([cells(column) for column in given.T])
    return Units(
        focal=treated & kept,
        pool=~treated & kept,
        stratum=stratum,
        person=np.arange(n, dtype=np.int64) if person is None else cells(_codes(person, treated, "person")),
        key=key,
        score=np.zeros(n) if score is None else score,
        anti=anti,
        columns=columns,
        widths=width,
    )


def _with_caliper(units: Units, space: Space, score: Array | None, caliper: float | None, unit: CaliperUnit) -> Units:
    """Units with the caliper in units of the score, or of the distance where there is no score."""
    kept = units.focal | units.pool
    spread = 1.0
    if space.line and score is not None:
        spread = float(np.std(score[kept], ddof=1))
    elif space.matrix is not None:
        finite = space.matrix[np.isfinite(space.matrix)]
        spread = float(finite.std()) if len(finite) else 1.0
    units = _replace(units, spread=spread)
    if caliper is None:
        return units
    if not caliper >= 0:
        raise DesignError(Fault("design.match_caliper", {}))
    if score is None:
        if unit != "raw":
            raise DesignError(Fault("design.match_caliper_unit", {"unit": unit}))
        return _replace(units, limit=float(caliper))
    if unit == "raw":
        return _replace(units, reach=float(caliper))
    if unit == "sd":
        return _replace(units, reach=float(caliper * np.std(score[kept], ddof=1)))
    own, values = units.stratum[kept], score[kept]
    _, cell = np.unique(own, return_inverse=True)
    count = np.bincount(cell)
    residual = values - (np.bincount(cell, values) / count)[cell]
    degrees = max(1, len(values) - len(count))
    return _replace(units, reach=float(caliper * np.sqrt((residual @ residual) / degrees)))


def _replace(units: Units, **changes: object) -> Units:
    return replace(units, **changes)  # type: ignore[arg-type]


def _support(treated: Mask, score: Array | None, discard: Discard) -> Mask:
    """Rows inside common support: the range of the other group's scores, inclusive."""
    kept = np.ones(len(treated), bool)
    if discard == "none":
        return kept
    if score is None:
        raise DesignError(Fault("design.match_needs_score", {"how": "discard"}))
    for arm, name in ((treated, "treated"), (~treated, "control")):
        if discard in ("both", name):
            other = score[~arm]
            kept &= ~arm | ((score >= other.min()) & (score <= other.max()))
    return kept


KNOWN: dict[str, tuple[str, ...]] = {
    "how": get_args(How),
    "target": get_args(Target),
    "order": get_args(Order),
    "tie": get_args(Tie),
    "caliper_unit": get_args(CaliperUnit),
    "caliper_widths_unit": ("sd", "raw"),
    "discard": get_args(Discard),
}


def _refuse_unknown(**given: str | None) -> None:
    for option, value in given.items():
        if value is not None and value not in KNOWN[option]:
            raise DesignError(Fault("design.match_unknown", {"option": option, "known": ", ".join(KNOWN[option])}))


def _refuse_options(
    how: How, target: Target, repeat: bool, tie: Tie, ratio: float, low: float | None, high: float | None,
    order: Order | None, distance: DistanceName | Array | None, score: Array | None,
) -> None:  # fmt: skip
    def refuse(one: str, other: str) -> None:
        raise DesignError(Fault("design.match_option", {"one": one, "other": other}))

    if target == "ate" and how == "nearest" and not repeat:
        refuse('target = "ate"', "replace = False")
    if target == "ate" and how == "optimal":
        refuse('target = "ate"', 'how = "optimal"')
    if repeat and how in ("optimal", "full"):
        refuse("replace = True", f'how = "{how}"')
    if tie == "all" and not repeat:
        refuse('tie = "all"', "replace = False")
    if tie == "all" and isinstance(distance, np.ndarray):
        refuse('tie = "all"', "distance = a matrix")
    if order in ("largest", "smallest") and score is None and how == "nearest":
        refuse(f'order = "{order}"', "score = None")
    if how in ("nearest", "optimal") and (ratio < 1 or (high is None and ratio != int(ratio))):
        raise DesignError(Fault("design.match_ratio", {}))
    if how == "optimal" and (high is not None or low is not None):
        refuse("min_ratio, max_ratio", 'how = "optimal"')
    if how == "nearest" and high is not None:
        if score is None or tie == "all":
            refuse("max_ratio", "score = None" if score is None else 'tie = "all"')
        if not (low or 1) <= ratio <= high or (low or 1) < 1 or (low or 1) == high:
            raise DesignError(Fault("design.match_ratio_bounds", {}))


def _column(values: Array | None, treated: Mask, name: str) -> Array | None:
    if values is None:
        return None
    out = np.asarray(values, np.float64)
    if out.shape != treated.shape:
        raise DesignError(Fault("design.match_length", {"name": name, "rows": len(treated)}))
    if not np.isfinite(out).all():
        raise DataError(Fault("data.match_not_finite", {"column": name}))
    return out


def _columns(values: Array | None, treated: Mask, names: Sequence[str], what: str) -> Array | None:
    if values is None:
        return None
    out = np.asarray(values, np.float64)
    out = out[:, None] if out.ndim == 1 else out
    if out.ndim != 2 or len(out) != len(treated):
        raise DesignError(Fault("design.match_length", {"name": what, "rows": len(treated)}))
    bad = np.flatnonzero(~np.isfinite(out).all(axis=0))
    if len(bad):
        name = names[bad[0]] if names else f"{what} {bad[0] + 1}"
        raise DataError(Fault("data.match_not_finite", {"column": name}))
    return out


def _codes(values: ArrayLike, treated: Mask, what: str) -> NDArray[np.generic]:
    out = np.asarray(values)
    if out.ndim not in (1, 2) or len(out) != len(treated):
        raise DesignError(Fault("design.match_length", {"name": what, "rows": len(treated)}))
    if out.dtype.kind == "f" and not np.isfinite(out).all():
        raise DataError(Fault("data.match_not_finite", {"column": what}))
    return out
