"""Effects when trends are not parallel: robust intervals and breakdown values (Rambachan and Roth 2023)."""

from evalkit.did.honest.interval import (
    Breakdown,
    HonestInterval,
    breakdown,
    breakdown_arrays,
    honest,
    honest_arrays,
)

__all__ = ["Breakdown", "HonestInterval", "breakdown", "breakdown_arrays", "honest", "honest_arrays"]
