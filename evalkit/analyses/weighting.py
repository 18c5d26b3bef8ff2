"""Weighting inside risk sets: settings, sample in, profiles and exhibits out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.special import expit

from evalkit.analyses.adjusted import Way, adjust_part, run_adjusted
from evalkit.analyses.adjusting import Adjusting, Fitted, columns_of, common_faults, fit_start
from evalkit.analyses.described import describe
from evalkit.analyses.doubts import doubt, doubt_faults
from evalkit.errors import Fault, StudyError
from evalkit.exhibits import Analysis, Note
from evalkit.matching.adjustment import Weights
from evalkit.matching.admissible import Kind, fault
from evalkit.matching.models import ModelName
from evalkit.matching.weighting.trimming import kept_by_score
from evalkit.matching.weighting.weigh import TARGETS, weigh
from evalkit.sample import Sample
from evalkit.study import Study


class Settings(Adjusting):
    """Comparison entries weighted until they are like the starters, over all risk sets together.

    ``how``: inverse probability weights from a start model, entropy balancing, covariate balancing propensity score, or
    stable balancing weights. ``propensity``: the start model of ``ipw``. ``moments``, ``interactions``: powers and
    products of the covariates that are balanced, or stand in the model. ``tolerance``: for ``stable``, in standard
    deviations. ``trim``: candidates with a chance outside a range are left out, by two limits or a rule.
    ``cap``: largest weight, ``cap_quantile``: as a quantile of the weights.
    """

    how: Literal["ipw", "entropy", "cbps", "stable"] = "ipw"
    propensity: Literal["logit", "boosting", "lasso"] = "logit"
    moments: int = Field(default=1, ge=1, le=3)
    interactions: bool = False
    over: bool = False
    tolerance: float = Field(default=0.0, ge=0, le=1)
    trim: (
        tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]
        | Literal["crump", "common"]
        | None
    ) = None
    cap: float | None = Field(default=None, gt=0)
    cap_quantile: float | None = Field(default=None, gt=0.5, lt=1)

    @property
    def kind(self) -> Kind:
        """Whether the estimation of the weights can be accounted for."""
        return "weights_fixed" if self.how == "ipw" and self.propensity != "logit" else "weights"

    @property
    def model(self) -> ModelName:
        """The outcome step: doubly robust for a start model, weighted means where weights balance the covariates."""
        if self.outcome_model is not None:
            return self.outcome_model
        return "aipw" if self.how == "ipw" and self.estimand in ("att", "atc", "ate") else "means"


def faults(study: Study, settings: Settings) -> list[Fault]:
    """What the settings ask that this study cannot give; known before any data are read.

    ``weighting.estimand``: a population that these weights do not have. ``weighting.trim_order``: limits reversed.
    """
    wrong = common_faults(study, settings)
    place = study.path.name
    valid = TARGETS[settings.how]
    if settings.estimand not in valid:
        params = {"estimand": settings.estimand, "how": settings.how, "known": ", ".join(valid)}
        wrong.append(Fault("matching.estimand", params, place))
    if isinstance(settings.trim, tuple) and settings.trim[0] >= settings.trim[1]:
        wrong.append(Fault("weighting.trim_order", {}, place))
    refused = fault(settings.kind, settings.model, settings.errors)
    if refused is not None:
        wrong.append(Fault(refused.code, refused.params, place))
    return wrong + doubt_faults(study, settings, pairs=False)


def run(sample: Sample, settings: Settings, rng: np.random.Generator, id: str = "weighting") -> Analysis:
    """Weight, estimate every outcome and every subgroup, and describe the weighted groups.

    Raises
    ------
    StudyError
        See :func:`faults`.
    DesignError
        ``design.*`` faults: no starters, no comparison, separation, weights that cannot balance.
    """
    wrong = faults(sample.study, settings)
    if wrong:
        raise StudyError(wrong)
    way = Way(id, "weighting", settings, settings.model, partial(weighted, sample, settings))
    analysis = run_adjusted(
        sample, way, lambda of: fit_start(of, ()), partial(describe, sample), partial(doubt, sample, way)
    )
    target = () if settings.estimand == "att" else (Note(f"target_{settings.estimand}"),)
    way_note = Note(f"weighting_by_{settings.how}", {"moments": settings.moments})
    notes = (*target, way_note, Note(f"outcome_{settings.model}"))
    return Analysis(id, "weighting", analysis.profiles, (*analysis.exhibits, *notes), analysis.findings, analysis.lost)


def weighted(sample: Sample, settings: Settings, fitted: Fitted) -> Weights:
    """The candidates weighted as the settings say, on the covariates, elapsed month and quarter.

    Trimming goes by the start model of all candidates; those who are left get one of their own, on the categories that
    both arms still have.
    """
    if settings.trim is not None:
        plain = settings.model_copy(update={"trim": None})
        way = Way("", "weighting", plain, plain.model, partial(weighted, sample, plain))
        chance = expit(fitted.candidates.score)
        keep = kept_by_score(chance, fitted.treated, np.ones(len(chance)), settings.estimand, settings.trim)
        rows = np.flatnonzero(keep)
        made = adjust_part(way, fitted.take(rows), fitted.treated, rows)
        assert isinstance(made, Weights)
        return replace(made, trimmed=np.flatnonzero(made.weight == 0))
    x, names = columns_of(fitted)
    return weigh(
        fitted.treated,
        x,
        how=settings.how,
        target=settings.estimand,
        names=names,
        key=sample.people.key[fitted.entries.person],
        model=settings.propensity,
        moments=settings.moments,
        interactions=settings.interactions,
        over=settings.over,
        tolerance=settings.tolerance,
        cap=settings.cap,
        cap_quantile=settings.cap_quantile,
    )
