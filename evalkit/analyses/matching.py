"""Matching inside risk sets: settings, sample in, profiles and exhibits out."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit

from evalkit.analyses.adjusted import Way, run_adjusted
from evalkit.analyses.adjusting import Adjusting, Fitted, codes_of, common_faults, fit_start, numbers_of
from evalkit.analyses.described import describe
from evalkit.analyses.doubts import doubt, doubt_faults
from evalkit.errors import Fault, StudyError
from evalkit.exhibits import Analysis, Note
from evalkit.matching.adjustment import Matching
from evalkit.matching.admissible import Kind, fault
from evalkit.matching.match import match
from evalkit.matching.models import ModelName
from evalkit.sample import Sample
from evalkit.study import Frozen, Study

Array = NDArray[np.float64]

KINDS: dict[str, Kind] = {
    "nearest": "replacement", "optimal": "pairs", "full": "pairs", "exact": "strata", "cem": "strata",
    "subclass": "strata", "kernel": "kernel", "radius": "kernel", "ridge": "kernel",
}  # fmt: skip


class Caliper(Frozen):
    """How far a match may lie: ``width`` standard deviations or raw units of the score."""

    width: float = Field(gt=0)
    unit: Literal["sd_linear", "raw_linear", "sd", "raw"] = "sd_linear"


class Settings(Adjusting):
    """Matching inside each risk set; by default the nearest neighbour on the chance of starting, bias-corrected.

    ``how``: the way of matching. ``propensity``: one start model over all risk sets, or one for each elapsed month.
    ``exact``: matches agree on these; by default elapsed month and calendar quarter. ``anti_exact``: they differ on
    these. ``distance``: on the score or on the covariates. ``ratio``: comparison entries for each starter, on average
    when ``max_ratio`` lets the number vary. ``calipers``: by numeric covariate how far a match may lie, in its
    unit. ``discard``: who outside common support is left out first. ``subclasses``, ``cutpoints``, ``kernel`` and
    ``bandwidth`` belong to the ways that need them.
    """

    how: Literal["nearest", "optimal", "full", "exact", "cem", "subclass", "kernel", "radius", "ridge"] = "nearest"
    propensity: Literal["pooled", "by_month"] = "pooled"
    distance: Literal["propensity", "mahalanobis", "robust_mahalanobis"] = "propensity"
    exact: tuple[str, ...] | None = None
    anti_exact: tuple[str, ...] = ()
    caliper: Caliper | None = Caliper(width=0.2)
    calipers: dict[str, Annotated[float, Field(gt=0)]] = {}
    ratio: int = Field(default=1, ge=1, le=50)
    max_ratio: int | None = Field(default=None, ge=2, le=50)
    replace: bool = True
    order: Literal["largest", "smallest", "closest", "random"] = "largest"
    discard: Literal["none", "both", "treated", "control"] = "none"
    subclasses: int = Field(default=6, ge=2, le=100)
    cutpoints: dict[str, int | tuple[float, ...]] = {}
    kernel: Literal["epanechnikov", "gaussian", "uniform", "triangular", "biweight"] | None = None
    bandwidth: Annotated[float, Field(gt=0)] | Literal["pair", "widest"] = "pair"

    @property
    def model(self) -> ModelName:
        """The outcome step: bias correction; for pairs without replacement the same estimate by g-computation, whose
        standard error has the estimation of the correction, which counts where the pool is thin."""
        if self.outcome_model is not None:
            return self.outcome_model
        return "gcomputation" if self.kind == "pairs" and self.estimand != "ate" else "bias_corrected"

    @property
    def kind(self) -> Kind:
        """What sort of adjustment comes out, as far as standard errors are concerned."""
        return "pairs" if self.how == "nearest" and not self.replace else KINDS[self.how]


def faults(study: Study, settings: Settings) -> list[Fault]:
    """What the settings ask that this study cannot give; known before any data are read.

    ``matching.exact_unknown``: a name that is no categorical column of the study; ``matching.caliper_unknown``: no
    numeric one. ``matching.estimand``: a population that matching does not have, or not in this way.
    """
    wrong = common_faults(study, settings)
    place = study.path.name
    times = ("elapsed", "quarter") if study.data is not None else ()
    known = [*times, *study.covariates.categorical]
    for name in (*(settings.exact or ()), *settings.anti_exact):
        if name not in known:
            wrong.append(Fault("matching.exact_unknown", {"name": name, "known": ", ".join(known) or "–"}, place))
    numbers = list(study.covariates.numeric)
    for name in (*settings.calipers, *settings.cutpoints):
        if name not in numbers:
            params = {"name": name, "known": ", ".join(numbers) or "–"}
            wrong.append(Fault("matching.caliper_unknown", params, place))
    both = settings.how == "full" or settings.kind != "pairs"
    valid = ["att", "atc", *(["ate"] if both else [])]
    if settings.estimand not in valid:
        params = {"estimand": settings.estimand, "how": settings.how, "known": ", ".join(valid)}
        wrong.append(Fault("matching.estimand", params, place))
    refused = fault(settings.kind, settings.model, settings.errors)
    if refused is not None:
        wrong.append(Fault(refused.code, refused.params, place))
    if settings.propensity == "by_month" and (
        settings.errors == "bootstrap" or "simulated_confounder" in settings.sensitivity
    ):
        wrong.append(Fault("matching.by_month_again", {}, place))
    pairs = settings.kind == "pairs" and settings.how != "full" and settings.ratio == 1
    return wrong + doubt_faults(study, settings, pairs=pairs)


def run(sample: Sample, settings: Settings, rng: np.random.Generator, id: str = "matching") -> Analysis:
    """Match, estimate every outcome and every subgroup, and describe what was matched.

    Raises
    ------
    StudyError
        See :func:`faults`.
    DesignError
        ``design.*`` faults: no starters, no comparison, separation, nobody within the caliper.
    """
    wrong = faults(sample.study, settings)
    if wrong:
        raise StudyError(wrong)
    model = settings.model
    scored = settings.propensity == "pooled" and settings.distance == "propensity"
    way = Way(id, "matching", settings, model, partial(matched, sample, settings), score=scored)
    analysis = run_adjusted(
        sample,
        way,
        lambda of: fit_start(of, _exact(of, settings), settings.propensity),
        partial(describe, sample),
        partial(doubt, sample, way),
    )
    notes = [_method_note(sample, settings)]
    if settings.estimand != "att":
        notes.append(Note(f"target_{settings.estimand}"))
    if model == "bias_corrected":
        notes.insert(0, Note("bias_corrected", {"covariates": _covariates(sample)}))
    else:
        notes.append(Note(f"outcome_{model}"))
    exhibits = (*analysis.exhibits[: _end(analysis)], *notes, *analysis.exhibits[_end(analysis) :])
    return Analysis(id, "matching", analysis.profiles, exhibits, analysis.findings, analysis.lost)


def matched(sample: Sample, settings: Settings, fitted: Fitted) -> Matching:
    """The candidates matched as the settings say."""
    candidates = fitted.candidates
    caliper = settings.caliper if settings.how in ("nearest", "optimal", "full") else None
    linear = caliper is None or caliper.unit.endswith("_linear")
    score = candidates.score if linear else expit(candidates.score)
    design = fitted.design.without_time()
    chosen: dict[str, object] = {}
    if settings.distance != "propensity" or settings.how == "cem":
        dense = design.matrix()[:, 1:]
        varies = np.flatnonzero(np.ptp(dense, axis=0) > 0)  # within a subgroup its own column does not
        chosen |= {"covariates": dense[:, varies], "names": [design.names[1 + j] for j in varies]}
    if settings.how in ("nearest", "optimal"):
        chosen |= {"ratio": settings.ratio}
    if settings.how == "nearest":
        chosen |= {"replace": settings.replace, "order": settings.order, "max_ratio": settings.max_ratio}
        if settings.anti_exact:
            codes = [codes_of(sample, (name,), fitted.entries) for name in settings.anti_exact]
            chosen["anti_exact"] = np.column_stack(codes)
    if settings.how in ("nearest", "optimal", "full"):
        if settings.distance != "propensity":
            chosen["distance"] = settings.distance
        if caliper is not None:
            chosen |= {
                "caliper": caliper.width,
                "caliper_unit": "sd_within" if caliper.unit.startswith("sd") else "raw",
            }
        if settings.calipers:
            columns = [numbers_of(sample, name, fitted) for name in settings.calipers]
            chosen |= {"caliper_columns": np.column_stack(columns), "caliper_widths": list(settings.calipers.values())}
            chosen["caliper_widths_unit"] = "raw"
    if settings.how == "subclass":
        chosen["subclasses"] = settings.subclasses
    if settings.how in ("kernel", "radius", "ridge"):
        chosen |= {"kernel": settings.kernel, "bandwidth": settings.bandwidth}
    stratum = candidates.stratum
    if settings.how in ("exact", "cem"):
        stratum = codes_of(sample, (*_exact(sample, settings), *sample.study.covariates.categorical), fitted.entries)
    if settings.how == "cem":
        numbers = [*design.numeric_names, *design.own_numeric_names]
        values = [design.numeric[design.index], design.own_numeric]
        chosen |= {"covariates": np.concatenate(values, axis=1), "names": numbers}
        chosen["cutpoints"] = [settings.cutpoints.get(name, "sturges") for name in numbers]
    return match(
        fitted.treated,
        how=settings.how,
        target=settings.estimand,  # type: ignore[arg-type]  # checked in faults
        score=score,
        exact=stratum,
        discard=settings.discard,
        person=candidates.person,
        key=candidates.key,
        **chosen,  # type: ignore[arg-type]
    )


def _exact(sample: Sample, settings: Settings) -> tuple[str, ...]:
    """What matches agree on: the setting, else elapsed month and quarter (nothing for a ready table)."""
    return sample.time_names if settings.exact is None else settings.exact


def _covariates(sample: Sample) -> int:
    """Columns of the bias correction besides the constant: the score, the covariates, and two a measure of time."""
    return len(sample.design(sample.entries.take(slice(0, 1)), time=False).names) + 2 * len(sample.time_names)


def _end(analysis: Analysis) -> int:
    """Where the notes on the method belong: before those on subgroups."""
    for place, exhibit in enumerate(analysis.exhibits):
        if isinstance(exhibit, Note) and exhibit.key in ("subgroup_empty", "subgroup_fails", "no_history_left_out"):
            return place
    return len(analysis.exhibits)


def _method_note(sample: Sample, settings: Settings) -> Note:
    """How was matched: with a caliper in standard deviations, in raw units, or without; exactly on something or not."""
    exact, caliper = _exact(sample, settings), settings.caliper
    if settings.how != "nearest" or settings.distance != "propensity":
        name = settings.how if settings.how != "nearest" else "covariates"
        return Note(f"matching_by_{name}", {"subclasses": settings.subclasses, "ratio": settings.ratio})
    params: dict[str, object] = {"ratio": settings.ratio}
    key = "matching_method_free"
    if caliper is not None:
        key = "matching_method" if caliper.unit.startswith("sd") else "matching_method_raw"
        params["caliper"] = caliper.width
    if exact:
        return Note(key, params | {"exact": list(exact)})
    return Note(f"{key}_any", params)
