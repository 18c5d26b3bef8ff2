"""Which outcome step and which standard error go with which adjustment: one table, with the reason for each refusal."""

from __future__ import annotations

from typing import Literal

from evalkit.errors import DesignError, Fault
from evalkit.matching.adjustment import Adjustment, Matching
from evalkit.matching.models import ModelName
from evalkit.matching.regressions import Family

ErrorName = Literal[
    "influence", "m_estimation", "HC0", "HC1", "HC2", "HC3", "pair_cluster", "abadie_imbens",
    "abadie_imbens_estimated", "bootstrap",
]  # fmt: skip
Kind = Literal["replacement", "pairs", "strata", "kernel", "weights", "weights_fixed"]
"""``replacement``: a row may be the match of several; ``pairs``: matched sets without replacement; ``strata``: exact,
coarsened or subclasses; ``kernel``: smooth match weights; ``weights``: from a model or balance conditions, with
their influence; ``weights_fixed``: without it."""
Verdict = Literal["valid", "named"]
"""``valid``: may be a default. ``named``: given when asked for by name, for agreement with other programs or as a
second opinion; the documentation says what it leaves out."""

ERRORS: tuple[ErrorName, ...] = (
    "influence", "m_estimation", "HC0", "HC1", "HC2", "HC3", "pair_cluster", "abadie_imbens",
    "abadie_imbens_estimated", "bootstrap",
)  # fmt: skip
MODEL_NAMES: tuple[ModelName, ...] = ("means", "regression", "gcomputation", "bias_corrected", "aipw")
KINDS: tuple[Kind, ...] = ("replacement", "pairs", "strata", "kernel", "weights", "weights_fixed")

_MATCHED = ("replacement", "pairs", "strata", "kernel")
_ROBUST = ("HC0", "HC1", "HC2", "HC3")


def kind_of(adjustment: Adjustment) -> Kind:
    """What sort of adjustment this is, as far as standard errors are concerned."""
    if not isinstance(adjustment, Matching):
        return "weights_fixed" if adjustment.influence is None or adjustment.derivative is None else "weights"
    if adjustment.pairs is not None:
        return "replacement" if adjustment.subclass is None else "pairs"
    return "kernel" if adjustment.subclass is None else "strata"


def fault(kind: Kind, model: ModelName, errors: ErrorName) -> Fault | None:
    """Why a combination is refused; None when it is not."""
    if model == "bias_corrected" and kind not in _MATCHED:
        return Fault("outcome.correction_needs_matches", {"model": model})
    if errors == "influence" and kind == "weights_fixed" and model != "aipw":
        return Fault("outcome.weights_not_accounted", {"errors": errors})
    if errors == "m_estimation" and kind != "weights":
        return Fault("outcome.no_weight_model", {"errors": errors})
    if errors in _ROBUST and model == "bias_corrected":
        return Fault("outcome.robust_of_correction", {"errors": errors})
    if errors in ("HC1", "HC2", "HC3") and model == "aipw":
        return Fault("outcome.robust_of_two_steps", {"errors": errors})
    if errors == "pair_cluster" and kind not in ("replacement", "pairs", "strata"):
        return Fault("outcome.no_matched_sets", {"errors": errors})
    if errors == "pair_cluster" and model in ("bias_corrected", "aipw"):
        return Fault("outcome.pair_cluster_of_correction", {"model": model})
    if errors in ("abadie_imbens", "abadie_imbens_estimated"):
        if kind not in ("replacement", "pairs"):
            return Fault("outcome.no_nearest_neighbours", {"errors": errors})
        if model not in ("means", "bias_corrected"):
            return Fault("outcome.abadie_imbens_model", {"model": model})
        if errors == "abadie_imbens_estimated" and (model != "means" or kind != "replacement"):
            return Fault("outcome.estimated_score_model", {"errors": errors})
    if errors == "bootstrap" and kind in ("replacement", "pairs"):
        return Fault("outcome.bootstrap_of_matches", {"errors": errors})
    return None


def admissible(adjustment: Adjustment, model: ModelName, errors: ErrorName, family: Family = "linear") -> Verdict:
    """Whether a standard error goes with an outcome step on this adjustment.

    ===========================  =========================  =======================  ==================================
    errors                       valid                      named                    refused
    ===========================  =========================  =======================  ==================================
    ``influence``                matching; weights          ``aipw``, weights_fixed; weights_fixed, other steps
                                                            pairs, bias_corrected
    ``m_estimation``             weights                    nothing                  matching
    ``HC0`` .. ``HC3``           nothing                    all but the refused      ``bias_corrected``; ``aipw``
                                                                                     except ``HC0``
    ``pair_cluster``             pairs, regressions         pairs, ``means``;        kernel, weights; ``bias_corrected``
                                                            replacement, strata      and ``aipw``
    ``abadie_imbens``            replacement                pairs                    all but pairs; regressions
    ``abadie_imbens_estimated``  ``means``, replacement     nothing                  everything else
    ``bootstrap``                weights                    strata, kernel           nearest neighbours (Abadie and
                                                                                     Imbens 2008)
    ===========================  =========================  =======================  ==================================

    Valid means that the interval covers when the estimate is unbiased; no standard error repairs what matching leaves
    unbalanced. Too wide on a score that is estimated: ``abadie_imbens``, and ``pair_cluster`` of ``means``, which leave
    out that estimating the score makes matched groups more alike; likewise ``HC0`` .. ``HC3`` of ``means`` with
    estimated weights. Too small where a thin pool leaves much to correct: ``influence`` of ``bias_corrected`` without
    replacement. ``gcomputation``, for ``att`` and ``atc`` the same estimate, has the estimation of the correction.

    Raises
    ------
    DesignError
        With a fault of ``outcome.*`` that says why it is refused.
    """
    if model == "regression" and family != "linear":
        raise DesignError(Fault("outcome.linear_only", {"model": model, "family": family}))
    kind = kind_of(adjustment)
    refused = fault(kind, model, errors)
    if refused is not None:
        raise DesignError(refused)
    if errors in _ROBUST or (errors == "influence" and kind == "weights_fixed"):
        return "named"
    if errors == "pair_cluster":
        return "valid" if kind == "pairs" and model != "means" else "named"
    if errors == "influence" and kind == "pairs" and model == "bias_corrected":
        return "named"
    if errors == "bootstrap":
        return "valid" if kind == "weights" else "named"
    if errors == "abadie_imbens":
        return "valid" if kind == "replacement" else "named"
    return "valid"


def se_kind(adjustment: Adjustment, errors: ErrorName) -> str:
    """The name of the standard error as profiles carry it; ``influence`` of weights is M-estimation."""
    return "m_estimation" if errors == "influence" and kind_of(adjustment) == "weights" else errors
