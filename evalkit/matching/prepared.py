"""A frame made ready for matching or weighting: checked, sorted, cut to common support, with its start model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import narwhals as nw
import numpy as np
from narwhals.typing import IntoDataFrame
from numpy.typing import NDArray

from evalkit.design import Design, factor
from evalkit.errors import DataError, Fault
from evalkit.hashing import Hash, hash_ids
from evalkit.matching.adjustment import Ints, Mask
from evalkit.matching.propensity import Logit, fit_logit
from evalkit.matching.support import common_levels

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prepared:
    """A frame made ready: rows with common support in every category, sorted by id (or as given without ids).

    ``design``: covariates; ``model``: logit of the treatment; ``cluster``: (n,) codes; ``key``: (n,) keyed hashes.
    """

    ids: NDArray[np.object_] = field(repr=False)
    columns: nw.DataFrame = field(repr=False)
    treated: Mask = field(repr=False)
    design: Design = field(repr=False)
    model: Logit = field(repr=False)
    cluster: Ints = field(repr=False)
    key: Hash = field(repr=False)
    names: tuple[str, ...]
    treatment: str
    n_treated: int
    seed: int

    def take(self, rows: Ints) -> Prepared:
        """Some rows, which may repeat, with the logit fitted anew."""
        design = self.design.take(rows)
        treated = self.treated[rows]
        model = fit_logit(design, treated)
        columns = self.columns[rows.tolist()]
        return replace(
            self,
            ids=self.ids[rows],
            columns=columns,
            treated=treated,
            design=design,
            model=model,
            cluster=self.cluster[rows],
            key=self.key[rows],
        )

    def values(self, names: Sequence[str]) -> Array:
        """Numeric columns (n, k); gaps are NaN."""
        return np.column_stack([numbers(self.columns, name) for name in names])

    def codes(self, names: Sequence[str]) -> Ints:
        """Categorical columns as codes (n, k)."""
        rows = [factor(name, self.columns[name].to_list()).codes.astype(np.int64) for name in names]
        return np.column_stack(rows) if rows else np.empty((len(self.treated), 0), np.int64)


def prepare(
    frame: IntoDataFrame,
    treatment: str,
    numeric: Sequence[str],
    categorical: Sequence[str],
    others: Sequence[str],
    id: str | None,
    cluster: str | None,
    seed: int,
) -> Prepared:
    """Check the columns, sort by id, leave out categories that one arm lacks, fit the chance of treatment."""
    table = nw.from_native(frame, eager_only=True)
    wanted = [treatment, *numeric, *categorical, *others, *filter(None, (id, cluster))]
    absent = [name for name in wanted if name not in table.columns]
    if absent:
        params = {"names": ", ".join(absent), "known": ", ".join(table.columns)}
        raise DataError(Fault("matching.missing_columns", params))
    ids = np.array([str(v) for v in (table[id].to_list() if id else range(len(table)))], dtype=object)
    if len(np.unique(ids)) != len(ids):
        raise DataError(Fault("matching.duplicate_ids", {"column": id or ""}))
    order = np.argsort(ids, kind="stable") if id else np.arange(len(ids))
    ids, table = ids[order], table[order.tolist()]
    flag = numbers(table, treatment)
    if not np.isin(flag, (0.0, 1.0)).all():
        raise DataError(Fault("matching.not_binary", {"column": treatment}))
    values = np.column_stack([numbers(table, name) for name in numeric]) if numeric else np.empty((len(ids), 0))
    gaps = [name for j, name in enumerate(numeric) if not np.isfinite(values[:, j]).all()]
    if gaps:
        raise DataError(Fault("matching.missing_values", {"names": ", ".join(gaps)}))
    factors = tuple(factor(name, table[name].to_list()) for name in categorical)
    everyone = np.arange(len(ids), dtype=np.int32)
    design = Design(everyone, values, tuple(numeric), np.empty((len(ids), 0)), (), factors)
    shared = common_levels(design, flag == 1)
    rows = everyone if shared.rows is None else shared.rows
    treated = flag[rows] == 1
    model = fit_logit(shared.design, treated)
    codes = np.arange(len(rows)) if cluster is None else factor(cluster, table[cluster].to_list()).codes[rows]
    return Prepared(
        ids[rows],
        table[rows.tolist()],
        treated,
        shared.design,
        model,
        codes.astype(np.int64),
        hash_ids(seed, ids[rows]),
        (*numeric, *categorical),
        treatment,
        int((flag == 1).sum()),
        seed,
    )


def numbers(table: nw.DataFrame, name: str) -> Array:
    """A column as float64; what is no number is refused without showing it."""
    if name not in table.columns:
        raise DataError(Fault("matching.missing_columns", {"names": name, "known": ", ".join(table.columns)}))
    found: Array | None = None
    with contextlib.suppress(Exception):  # its words may quote a value, so it is not chained
        found = np.asarray(table[name].cast(nw.Float64).to_numpy(), float)
    if found is None:
        raise DataError(Fault("matching.not_numeric", {"column": name}))
    return found
