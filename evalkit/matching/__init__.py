"""Matching on the chance of starting: on a plain frame, or piece by piece on arrays."""

from evalkit.matching.effect import Matched, matched_effect
from evalkit.matching.frame import MatchedFrame, match_frame
from evalkit.matching.nearest import Candidates, Pairs, match_nearest
from evalkit.matching.propensity import Logit, fit_logit

__all__ = [
    "Candidates",
    "Logit",
    "Matched",
    "MatchedFrame",
    "Pairs",
    "fit_logit",
    "match_frame",
    "match_nearest",
    "matched_effect",
]
