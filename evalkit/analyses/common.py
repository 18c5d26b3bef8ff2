"""What every adapter needs: labels, profiles and balance in the study's words."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.balance import BalanceRow
from evalkit.effects import EffectProfile, Estimand, MonthlyEffect
from evalkit.exhibits import Column, Table
from evalkit.sample import Sample
from evalkit.study import Outcome


def make_profile(
    sample: Sample,
    analysis: str,
    method: str,
    outcome: Outcome,
    effect: MonthlyEffect,
    observed: NDArray[np.bool_],
    *,
    population: str,
    identification: str,
    se_kind: str,
    restriction: str = "",
    subgroup: str = "",
    variant: str = "",
) -> EffectProfile:
    """An effect profile with the study's estimand and labels; ``observed`` (n, K) tells its composition."""
    study = sample.study
    labels = {
        "analysis": analysis,
        "method": method,
        "instrument": study.treatment.instrument,
        "comparison": study.treatment.versus,
        "outcome": outcome.name,
        "subgroup": subgroup,
        "better": outcome.better,
        "primary": "true" if outcome.primary else "false",
    }
    if variant:
        labels["variant"] = variant
    if study.table is not None and study.table.period_months != 1:
        labels["period_months"] = str(study.table.period_months)
    return EffectProfile(
        estimand=Estimand(
            population,  # type: ignore[arg-type]  # a literal, checked where adapters write it
            study.treatment.instrument,
            study.treatment.versus,
            study.time.clock,
            outcome.name,
            outcome.kind,
            outcome.unit,
            identification,
            restriction,
        ),
        labels=labels,
        month=np.arange(1, len(effect.estimate) + 1),
        estimate=effect.estimate,
        counterfactual=effect.counterfactual,
        n_treated=effect.n_treated,
        n_comparison=effect.n_comparison,
        uncertainty=effect.uncertainty,
        se_kind=se_kind,
        composition=composition_of(observed),
    )


def composition_of(observed: NDArray[np.bool_]) -> Literal["fixed", "varying"]:
    """``fixed`` when every month observes the same rows."""
    return "fixed" if bool((observed == observed[:, :1]).all()) else "varying"


def balance_table(
    rows: tuple[BalanceRow, ...], n_treated: int, n_before: int, n_comparison: int, n_kept: int | None = None
) -> Table:
    """Who is compared and how alike they are, as one exhibit: the Table 1 of a paper beside the balance statistics.

    They stand in one table because a standardised difference gives the share behind it back. Levels of a categorical
    covariate are parts of one total. Persons beneath the means: all treated, all candidates for the comparison
    (before), those it uses (after). ``n_kept``: the treated are weighted or some were lost, so that their means after
    differ; so many persons are beneath those.
    """
    weighted = (
        (Column("mean_treated_after", "mean_treated_after", "share", support="n_kept", decimals=2),)
        if n_kept is not None
        else ()
    )
    columns = (
        Column("variable", "variable", "text"),
        Column("level", "level", "text"),
        Column("measure", "measure", "key"),
        Column("mean_treated", "mean_treated", "share", support="n_treated", decimals=2),
        Column("sd_treated", "sd_treated", "stat", support="n_treated", decimals=2),
        *weighted,
        Column("mean_before", "mean_before", "share", support="n_before", decimals=2),
        Column("sd_before", "sd_before", "stat", support="n_before", decimals=2),
        Column("mean_after", "mean_after", "share", support="n_comparison", decimals=2),
        Column("sd_after", "sd_after", "stat", support="n_comparison", decimals=2),
        Column("smd_before", "smd_before", "stat", decimals=2),
        Column("smd_after", "smd_after", "stat", decimals=2),
        Column("vr_before", "vr_before", "stat", decimals=2),
        Column("vr_after", "vr_after", "stat", decimals=2),
        Column("ks_before", "ks_before", "stat", decimals=2),
        Column("ks_after", "ks_after", "stat", decimals=2),
        Column("n_treated", "n_treated", "count", decimals=0),
        Column("n_before", "n_before", "count", decimals=0),
        Column("n_comparison", "n_comparison", "count", decimals=0),
        *([] if n_kept is None else [Column("n_kept", "n_kept", "count", decimals=0)]),
    )
    body = []
    for row in rows:
        values = {c.key: getattr(row, c.key) for c in columns if hasattr(row, c.key)}
        measure = "share" if row.level or row.variable.endswith(":missing") else "mean"
        numbers = {"n_treated": n_treated, "n_before": n_before, "n_comparison": n_comparison}
        numbers |= {} if n_kept is None else {"n_kept": n_kept}
        body.append(values | {"measure": measure} | numbers)
    return Table("balance", "balance", columns, tuple(body))
