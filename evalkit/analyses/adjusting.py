"""Settings that every way of making groups alike shares, and the start model that they begin with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evalkit.design import Design
from evalkit.errors import DesignError, Fault
from evalkit.exhibits import Finding
from evalkit.hashing import mix
from evalkit.matching.adjustment import Candidates
from evalkit.matching.admissible import ErrorName
from evalkit.matching.models import ModelName
from evalkit.matching.propensity import Logit, fit_logit
from evalkit.matching.regressions import Family
from evalkit.matching.support import common_levels
from evalkit.sample import Entries, Sample
from evalkit.study import Frozen, Outcome, Study

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

Doubt = Literal["e_value", "rosenbaum", "robustness", "simulated_confounder"]


class Placebo(Frozen):
    """The same comparison on outcomes before time zero, where there can be no effect.

    ``months``: how many. ``margin``: the gate fails when the 90 % interval of their mean leaves it; for shares 0.03 is
    three points, for amounts three per cent of the mean of the comparison.
    """

    months: int = Field(default=6, ge=1, le=60)
    margin: float = Field(default=0.03, gt=0)


class Estimating(Frozen):
    """How an effect is estimated once the groups are alike: for whom, the outcome step, the standard error.

    ``estimand``: whose average effect. ``outcome_model``: what is done with the outcomes of the groups that are made
    alike; each way has its own default. ``family``: of the regressions. ``errors``: the standard error by name;
    ``draws`` of the bootstrap. ``before``: months before time zero whose mean is subtracted from every outcome
    (conditional difference-in-differences); 0 for none.
    """

    estimand: Literal["att", "atc", "ate", "ato", "atm"] = "att"
    outcome_model: ModelName | None = None
    family: Family = "linear"
    errors: ErrorName = "influence"
    draws: int = Field(default=999, ge=50, le=20_000)
    before: int = Field(default=0, ge=0, le=120)


class Adjusting(Estimating):
    """What matching and weighting have in common; ``placebo``, ``sensitivity``: how much could be wrong."""

    placebo: Placebo | None = None
    sensitivity: tuple[Doubt, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """Candidates with their score: rows of the sample's entries that have common support in every category.

    ``model``: the start model behind the score; None where the score comes from a model of several instruments.
    """

    entries: Entries
    design: Design
    treated: Mask
    candidates: Candidates
    model: Logit | None
    starters: int
    findings: tuple[Finding, ...]

    def take(self, rows: Rows) -> Fitted:
        """Some of the candidates; the start model stays."""
        return replace(
            self,
            entries=self.entries.take(rows),
            design=self.design.take(rows),
            treated=self.treated[rows],
            candidates=Candidates(*(getattr(self.candidates, n)[rows] for n in Candidates.__dataclass_fields__)),
            starters=int(self.treated[rows].sum()),
        )


def common_faults(study: Study, settings: Estimating) -> list[Fault]:
    """What the settings ask that this study cannot give, whichever way the groups are made alike.

    ``matching.versus``: "never" would condition on the future. ``matching.no_history``: the primary outcome does not
    exist before time zero. ``matching.linear_only``: a family for a regression that has one slope for both groups.
    """
    wrong = []
    if study.data is not None and study.treatment.versus == "never":
        wrong.append(Fault("matching.versus", {"versus": study.treatment.versus}, study.path.name))
    if settings.before and not has_history(study, study.primary):
        wrong.append(Fault("matching.no_history", {"months": settings.before}, study.path.name))
    if settings.outcome_model == "regression" and settings.family != "linear":
        wrong.append(Fault("matching.linear_only", {"family": settings.family}, study.path.name))
    return wrong


def has_history(study: Study, outcome: Outcome) -> bool:
    """Whether an outcome exists before time zero: states and amounts do, events do not; a table must give it."""
    return outcome.name in study.table.before if study.table is not None else outcome.kind != "event"


def fit_start(sample: Sample, exact: tuple[str, ...], propensity: Literal["pooled", "by_month"] = "pooled") -> Fitted:
    """The start model and everyone's linear predictor; categories without starters or without others fall out."""
    everyone = sample.entries
    starters = int((everyone.arm == 1).sum())
    shared = common_levels(sample.design(everyone), everyone.arm == 1)
    findings = []
    if shared.dropped:
        findings.append(Finding("ps_separation", "", "warn", params={"variables": list(shared.dropped)}))
    entries = everyone if shared.rows is None else everyone.take(shared.rows)
    design, treated = shared.design, entries.arm == 1
    model = fit_logit(design, treated)
    score = model.score
    if propensity == "by_month":
        score, small = _by_month(design, treated, entries.elapsed, score)
        if small:
            findings.append(Finding("small_month", "", "warn", float(len(small)), params={"months": len(small)}))
    people = sample.people
    candidates = Candidates(
        treated,
        entries.person.astype(np.int64),
        mix(people.key[entries.person], entries.time_zero),
        codes_of(sample, exact, entries),
        score,
    )
    return Fitted(entries, design, treated, candidates, model, starters, tuple(findings))


def _by_month(design: Design, treated: Mask, elapsed: NDArray[np.int16], pooled: Array) -> tuple[Array, list[str]]:
    """A model for each elapsed month; months with fewer than five starters a parameter keep the pooled score."""
    score, small = pooled.copy(), []
    for month in np.unique(elapsed):
        rows = np.flatnonzero(elapsed == month)
        part = design.take(rows)
        part = replace(part, time_factors=tuple(f for f in part.time_factors if f.name != "elapsed"))
        own = _own_score(part, treated[rows])
        if own is None:
            small.append(str(int(month)))
        else:
            score[rows] = own
    return score, small


def _own_score(design: Design, treated: Mask) -> Array | None:
    """The score from a model for these rows alone; None when they are too few or too uneven for one."""
    try:
        shared = common_levels(design, treated)
        if shared.rows is None and min(treated.sum(), (~treated).sum()) >= 5 * len(shared.design.names):
            return fit_logit(shared.design, treated).score
    except DesignError:
        pass
    return None


def codes_of(sample: Sample, names: tuple[str, ...], entries: Entries) -> NDArray[np.int64]:
    """One code for each combination of variables (elapsed month, quarter, categorical covariates)."""
    code = np.zeros(len(entries), np.int64)
    for name in names:
        if name in sample.time_names:
            level = getattr(entries, name).astype(np.int64)
        else:
            level = sample.group(name, (), entries).codes.astype(np.int64)
        level = level - level.min()
        code = code * (int(level.max()) + 1) + level
    return code


def numbers_of(sample: Sample, name: str, fitted: Fitted) -> Array:
    """A numeric covariate of the candidates by name, as in the design (missing values filled in)."""
    design = fitted.design
    if name in design.numeric_names:
        return np.asarray(design.numeric[design.index, design.numeric_names.index(name)])
    return np.asarray(design.own_numeric[:, design.own_numeric_names.index(name)])


def regressors(sample: Sample, fitted: Fitted, rows: Rows, *, score: bool = True) -> Array:
    """X of the outcome step: intercept, score, covariates, and time as second-degree polynomials."""
    dense = fitted.design.without_time().matrix(rows)
    blocks = [dense[:, :1], fitted.candidates.score[rows][:, None]] if score else [dense[:, :1]]
    blocks.append(dense[:, 1:])
    for name in sample.time_names:
        value = getattr(fitted.entries, name)[rows].astype(float)
        value = (value - value.mean()) / max(value.std(), 1.0)
        blocks.append(np.column_stack([value, value**2]))
    return np.concatenate(blocks, axis=1)


def columns_of(fitted: Fitted) -> tuple[Array, tuple[str, ...]]:
    """The columns of the start model without the intercept, written out (n, p), with their names."""
    assert fitted.model is not None
    names = fitted.design.names
    kept = [names.index(name) for name in fitted.model.names[1:]]
    return fitted.design.matrix()[:, kept], fitted.model.names[1:]
