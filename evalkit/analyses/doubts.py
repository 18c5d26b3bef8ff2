"""How wrong could it be: sensitivity to what is not recorded, on the outcome that counts most."""

from __future__ import annotations

from evalkit.analyses.adjusted import Shown, Way
from evalkit.analyses.adjusting import Adjusting, Fitted
from evalkit.effects import EffectProfile
from evalkit.errors import Fault
from evalkit.matching.adjustment import Adjustment
from evalkit.sample import Sample
from evalkit.study import Study


def doubt_faults(study: Study, settings: Adjusting, *, pairs: bool) -> list[Fault]:
    """Bounds within pairs need pairs that share nobody."""
    if "rosenbaum" in settings.sensitivity and not pairs:
        return [Fault("matching.rosenbaum_pairs", {}, study.path.name)]
    return []


def doubt(sample: Sample, way: Way, fitted: Fitted, adjustment: Adjustment, lead: EffectProfile) -> Shown:
    """The checks that the settings ask for, on the primary outcome."""
    return Shown((), ())
