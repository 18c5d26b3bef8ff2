"""A randomised design: difference in means and regression-adjusted, with HC2 errors."""

from __future__ import annotations

import numpy as np

from evalkit.analyses.common import balance_table, make_profile
from evalkit.balance import balance
from evalkit.effects import EffectProfile
from evalkit.errors import Fault, StudyError
from evalkit.exhibits import Analysis, Finding, Note
from evalkit.experiment import difference
from evalkit.gate import balance_findings
from evalkit.sample import Sample
from evalkit.study import Frozen, Study

SE_KIND = "HC2, clustered on {level}"


class Settings(Frozen):
    """``adjust``: also estimate with covariates, fully interacted with treatment; that profile then comes first."""

    adjust: bool = True


def faults(study: Study, settings: Settings) -> list[Fault]:
    """``experiment.register``: risk sets repeat people, so entries are not the units that were randomised."""
    return [Fault("experiment.register", {}, study.path.name)] if study.data is not None else []


def run(sample: Sample, settings: Settings, rng: np.random.Generator, id: str = "experiment") -> Analysis:
    """Effect of assignment on everyone randomised; by subgroup within each level.

    Raises
    ------
    StudyError
        See :func:`faults`.
    DesignError
        ``design.too_few`` when an arm has fewer than two units.
    """
    wrong = faults(sample.study, settings)
    if wrong:
        raise StudyError(wrong)
    entries = sample.entries
    treated = entries.arm == 1
    design = sample.design(entries, time=False)
    covariates = design.matrix()[:, 1:]
    variants = ["regression_adjusted", "difference_in_means"] if settings.adjust and covariates.shape[1] else [""]
    everyone = np.arange(len(entries))
    profiles = [p for variant in variants for p in _profiles(sample, id, everyone, covariates, variant)]
    for subgroup in sample.study.subgroups:
        made = sample.group(subgroup.name, subgroup.cuts, entries)
        for number, level in enumerate(made.levels):
            rows = np.flatnonzero(made.codes == number)
            if min(treated[rows].sum(), (~treated[rows]).sum()) >= 2:
                profiles += _profiles(sample, id, rows, covariates, variants[0], f"{subgroup.name}={level}")
    one = treated.astype(float)
    rows_of_balance = balance(design, treated, one, 1.0 - one, _p_values(sample, treated))
    findings: tuple[Finding, ...] = balance_findings(rows_of_balance, sample.study.gate, fails=False)
    exhibits = (
        balance_table(rows_of_balance, int(treated.sum()), int((~treated).sum()), int((~treated).sum())),
        Note("experiment_method", {"adjusted": len(variants) > 1}),
    )
    return Analysis(id, "experiment", tuple(profiles), exhibits if rows_of_balance else exhibits[1:], findings)


def _profiles(
    sample: Sample, id: str, rows: np.ndarray, covariates: np.ndarray, variant: str, subgroup: str = ""
) -> list[EffectProfile]:
    entries = sample.entries.take(rows)
    treated = entries.arm == 1
    out = []
    for outcome in sample.study.outcomes:
        y, observed = sample.outcome(outcome.name, entries)
        effect = difference(
            treated,
            y,
            observed,
            sample.people.cluster[entries.person],
            covariates[rows] if variant == "regression_adjusted" else None,
            sample.people.cluster_level,
        )
        out.append(
            make_profile(
                sample,
                id,
                "experiment",
                outcome,
                effect,
                observed,
                population="eligible",
                identification="randomisation",
                se_kind=SE_KIND.format(level=sample.people.cluster_level),
                subgroup=subgroup,
                variant=variant,
            )
        )
    return out


def _p_values(sample: Sample, treated: np.ndarray) -> np.ndarray:
    """Two-sample p-values of each balance column (Welch)."""
    from scipy import stats

    from evalkit.balance import wide

    values = wide(sample.design(sample.entries, time=False), np.arange(len(treated)))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.ttest_ind(values[treated], values[~treated], equal_var=False).pvalue
    return np.nan_to_num(np.asarray(p), nan=1.0)
