"""What a profile says in single numbers: lock-in, crossing, break-even, cumulated effect, long run.

Definitions (f = effect times the sign that makes favourable positive, C = its running sum):

- a lock-in exists in the estimate if f_1 < 0; its initial run is 1..L, the maximal run with f < 0; it is established if
  the simultaneous band excludes zero somewhere in the initial run;
- depth = min f over the run, length = L, volume = sum of f over the run, crossing month = L + 1;
- break-even = first k after the lock-in with C_k >= 0;
- long run = mean effect over months 25..K, when K >= 36.

Depth, length, volume, crossing and break-even get confidence *sets*: the values they take over all paths inside the
simultaneous band of the profile (of its running sum for break-even). A true path inside the band therefore has its
measure inside the set. They have no standard error: under no effect half of all profiles begin with a "lock-in".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.effects import Band, EffectProfile

Array = NDArray[np.float64]

LONG_RUN_FROM, LONG_RUN_NEEDS = 25, 36
CUMULATED = (12, 24, 36, 48)


@dataclass(frozen=True)
class Measure:
    """One derived number. ``set_high`` None with a status of reached or not_reached: beyond the horizon."""

    measure: str
    estimate: float | None
    std_error: float | None
    set_low: float | None
    set_high: float | None
    status: str


@dataclass(frozen=True)
class LockIn:
    """Whether a lock-in exists in the estimate and whether the band establishes it."""

    exists: bool
    established: bool


@dataclass(frozen=True)
class Summary:
    """All measures of a profile, its band, its running sum with band (None where undefined), and its lock-in."""

    measures: tuple[Measure, ...]
    band: Band
    cumulated: EffectProfile | None
    cumulated_band: Band | None
    lock_in: LockIn | None


def run_length(path: Array) -> int:
    """Length of the maximal initial run of months below zero."""
    above = np.flatnonzero(~(path < 0))
    return int(above[0]) if len(above) else len(path)


def summarise(profile: EffectProfile, seed: int, level: float = 0.95) -> Summary:
    """Every measure of contract 5 for one profile; ``not_defined`` where the profile cannot carry it.

    Measures are about the months since the start; the band covers the months before it as well, so that their sets are
    a little wide where there are such months.
    """
    band = profile.band(seed, level)
    since, whole = profile.month >= 1, band
    profile, band = profile.after(), band.take(since)
    complete = (
        profile.composition == "fixed"
        and profile.vcov is not None
        and bool(np.isfinite(profile.estimate).all())
        and np.array_equal(profile.month, np.arange(1, len(profile.month) + 1))
        and len(profile.month) > 1
        and profile.labels.get("period_months", "1") == "1"  # summaries in months are for monthly profiles
    )
    if not complete:
        names = ("lock_in_depth", "lock_in_months", "lock_in_volume", "crossing_month", "break_even_month")
        undefined = tuple(Measure(name, None, None, None, None, "not_defined") for name in (*names, "long_run"))
        return Summary(undefined, whole, None, None, None)
    cumulated = profile.cumulate()
    cumulated_band = cumulated.band(seed, level)
    measures, lock_in = _path_measures(profile, band, cumulated, cumulated_band)
    measures += _linear_measures(profile, level)
    return Summary(tuple(measures), whole, cumulated, cumulated_band, lock_in)


def favourable(low: Array, high: Array, sign: float) -> tuple[Array, Array]:
    """Band of the effect with favourable positive."""
    return (low, high) if sign > 0 else (-high, -low)


def _path_measures(
    profile: EffectProfile, band: Band, cumulated: EffectProfile, cumulated_band: Band
) -> tuple[list[Measure], LockIn]:
    sign, horizon = profile.sign, len(profile.month)
    f = sign * profile.estimate
    low, high = favourable(band.band_low, band.band_high, sign)
    c_low, c_high = favourable(cumulated_band.band_low, cumulated_band.band_high, sign)
    length = run_length(f)
    certain, possible = run_length(high), run_length(low)  # shortest and longest initial run inside the band
    exists = length > 0
    lock_in = LockIn(exists, bool(exists and (high[:length] < 0).any()))

    def bounds(worst: float, best: float) -> tuple[float, float]:
        """Bounds on the outcome's own scale, lower one first (and no minus zero)."""
        return (worst, best) if sign > 0 else (0.0 - best, 0.0 - worst)

    depth_set = bounds(
        float(low[:possible].min()) if possible else 0.0, float(high[:certain].min()) if certain else 0.0
    )
    volume_set = bounds(
        float(low[:possible].sum()) if possible else 0.0, float(high[:certain].sum()) if certain else 0.0
    )
    length_set = (float(certain), float(possible) if possible < horizon else None)
    crossing_set = (float(certain + 1), float(possible + 1) if possible < horizon else None)
    running = sign * cumulated.estimate
    reachable, sure = np.flatnonzero(c_high >= 0), np.flatnonzero(c_low >= 0)
    even_set = (
        float(reachable[0] + 1) if len(reachable) else float(horizon + 1),
        float(sure[0] + 1) if len(sure) else None,
    )
    if not exists:
        rows = [
            Measure("lock_in_depth", None, None, *depth_set, "no_lock_in"),
            Measure("lock_in_months", 0.0, None, *length_set, "no_lock_in"),
            Measure("lock_in_volume", None, None, *volume_set, "no_lock_in"),
            Measure("crossing_month", None, None, *crossing_set, "no_lock_in"),
            Measure("break_even_month", None, None, *even_set, "no_lock_in"),
        ]
        return rows, lock_in
    over = length == horizon
    ended = "not_reached" if over else "reached"
    crossing = None if over else float(length + 1)
    after = np.flatnonzero(running >= 0)
    even = float(after[0] + 1) if len(after) else None
    rows = [
        Measure("lock_in_depth", sign * float(f[:length].min()), None, *depth_set, "reached"),
        Measure("lock_in_months", float(length), None, *length_set, ended),
        Measure("lock_in_volume", sign * float(f[:length].sum()), None, *volume_set, ended),
        Measure("crossing_month", crossing, None, *crossing_set, ended),
        Measure("break_even_month", even, None, *even_set, "not_reached" if even is None else "reached"),
    ]
    return rows, lock_in


def _linear_measures(profile: EffectProfile, level: float) -> list[Measure]:
    horizon = len(profile.month)
    weights = {f"cumulated_{k}": (np.arange(1, horizon + 1) <= k).astype(float) for k in CUMULATED if k <= horizon}
    rows = []
    if horizon >= LONG_RUN_NEEDS:
        late = (np.arange(1, horizon + 1) >= LONG_RUN_FROM).astype(float)
        weights["long_run"] = late / late.sum()
    for name, weight in weights.items():
        estimate, vcov = profile.linear(weight)
        std_error = float(np.sqrt(max(0.0, float(np.asarray(vcov)[0, 0]))))
        reach = profile.critical(level) * std_error
        value = float(estimate[0])
        rows.append(Measure(name, value, std_error, value - reach, value + reach, "reached"))
    if "long_run" not in weights:
        rows.append(Measure("long_run", None, None, None, None, "not_defined"))
    return rows
