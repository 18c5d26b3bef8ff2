"""Matching and weighting: on a plain frame, or piece by piece on arrays."""

from evalkit.matching.adjustment import Adjustment, Candidates, Matching, Pairs, Weights
from evalkit.matching.frame import AdjustedFrame, MatchedFrame, match_frame, weight_frame
from evalkit.matching.match import match
from evalkit.matching.outcome import estimate
from evalkit.matching.propensity import Logit, fit_logit
from evalkit.matching.weighting.weigh import weigh

__all__ = [
    "AdjustedFrame",
    "Adjustment",
    "Candidates",
    "Logit",
    "MatchedFrame",
    "Matching",
    "Pairs",
    "Weights",
    "estimate",
    "fit_logit",
    "match",
    "match_frame",
    "weigh",
    "weight_frame",
]
