"""From an analysis-ready table (one row a person) to a sample with a single risk set."""

from __future__ import annotations

import numpy as np

from evalkit.design import factor
from evalkit.hashing import hash_ids
from evalkit.register import Table
from evalkit.sample.build import cluster_codes, group_factors
from evalkit.sample.filling import fill_missing
from evalkit.sample.flow import Tally
from evalkit.sample.levels import shown
from evalkit.sample.outcomes import TableOutcomes
from evalkit.sample.types import NO_START, Entries, People, Sample
from evalkit.study import Study


def from_table(study: Study, table: Table) -> Sample:
    """One risk set from a table: rows are units, months are the outcome columns in their order.

    Rows without treatment fall out and are counted; so do rows with a missing covariate where the study says
    ``exclude``, and, under complete follow-up, rows with a missing outcome.
    """
    spec = study.table
    assert spec is not None
    columns = {name: values for name, values in table.columns.items()}
    order = np.argsort(columns[spec.unit].astype(str), kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    ids = columns[spec.unit]
    n = len(ids)
    names = list(study.covariates.numeric)
    raw = np.column_stack([columns[name].astype(float) for name in names]) if names else np.empty((n, 0))
    factors = tuple(shown(study, factor(name, columns[name])) for name in study.covariates.categorical)
    incomplete = np.isnan(raw).any(axis=1)
    for made in factors:
        if "missing" in made.levels:
            incomplete |= made.codes == made.levels.index("missing")
    values = {
        name: np.column_stack([columns[column].astype(float) for column in chosen])
        for name, chosen in spec.outcomes.items()
    }
    history = {
        name: np.column_stack([columns[column].astype(float) for column in chosen])
        for name, chosen in spec.before.items()
    }
    unseen = np.zeros(n, bool)
    for path in values.values():
        unseen |= np.isnan(path).any(axis=1)
    treatment = columns[spec.treatment].astype(float)
    left = np.zeros(n, bool)
    flow = []
    steps = [("missing_treatment", np.isnan(treatment))]
    if study.covariates.missing == "exclude":
        steps.append(("missing_covariate", incomplete))
    if study.time.follow_up == "complete":
        steps.append(("missing_outcome", unseen))
    for arm, tally in ((1, Tally("treated", "randomised_all", n)), (0, Tally("comparison", "randomised_all", n))):
        rows = np.flatnonzero((treatment == 1) == bool(arm))  # unknown treatment counts with the comparison
        kept = tally.sieve(rows, [(reason, mask[rows]) for reason, mask in steps])
        left[rows[kept]] = True
        flow += list(tally.rows())
    numeric, labels = fill_missing(raw, names)
    groups = group_factors(study, columns, study.covariates.categorical)
    cluster, level = np.arange(n), "person"
    if study.treatment.cluster != "person":
        level = study.treatment.cluster
        cluster = cluster_codes(columns[level])
    people = People(
        ids, hash_ids(study.seed, ids), cluster, level, numeric, tuple(labels), factors, np.full(n, np.nan), groups
    )
    rows = np.flatnonzero(left)
    size = len(rows)
    entries = Entries(
        person=rows.astype(np.int32),
        spell=rows.astype(np.int32),
        arm=treatment[rows].astype(np.int8),
        elapsed=np.zeros(size, np.int16),
        time_zero=np.zeros(size, np.int32),
        quarter=np.zeros(size, np.int16),
        follow_up=np.full(size, study.time.horizon, np.int16),
        own_start_after=np.full(size, NO_START, np.int32),
    )
    return Sample(
        study=study,
        source="table",
        people=people,
        entries=entries,
        outcomes=TableOutcomes(values, history),
        horizon=study.time.horizon,
        follow_up=study.time.follow_up,
        flow=tuple(flow),
        age=False,
        time_names=(),
    )
