"""Weighting: propensity models, entropy balancing, covariate balancing scores, stable weights."""

from evalkit.matching.weighting.models import DenseLogit, fit_dense_logit
from evalkit.matching.weighting.weigh import TARGETS, weigh

__all__ = ["TARGETS", "DenseLogit", "fit_dense_logit", "weigh"]
