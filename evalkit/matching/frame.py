"""Matching on a plain data frame, for a notebook: one row a unit, one call to match, one to estimate."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import narwhals as nw
import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import NDArray

from evalkit.balance import BalanceRow, balance, paired_p_values, wide
from evalkit.design import Design, factor
from evalkit.effects import EffectProfile, Estimand
from evalkit.errors import DataError, Fault
from evalkit.hashing import hash_ids
from evalkit.matching.effect import Matched, matched_effect, tally
from evalkit.matching.nearest import Candidates, Pairs, Unit, match_nearest
from evalkit.matching.propensity import Logit, fit_logit
from evalkit.matching.support import common_levels

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MatchedFrame:
    """A matched data frame.

    Attributes
    ----------
    ids: (n,) unit ids in sorted order; ``pairs`` count rows in that order.
    model: the fitted chance of treatment.
    pairs: who is matched with whom.
    balance: rows of the balance table.
    n_treated: treated units before matching.
    """

    ids: NDArray[np.object_]
    model: Logit
    pairs: Pairs
    balance: tuple[BalanceRow, ...]
    n_treated: int
    _columns: nw.DataFrame
    _design: Design
    _cluster: NDArray[np.int64]
    _treatment: str
    _exact: Array

    def matches(self) -> pd.DataFrame:
        """One row a pair: ids of the treated and the comparison unit, and the weight of the match."""
        of = self.ids
        return pd.DataFrame(
            {"treated": of[self.pairs.treated], "comparison": of[self.pairs.control], "weight": self.pairs.weight}
        )

    def balance_table(self) -> pd.DataFrame:
        """Balance before and after, one row a number or level."""
        return pd.DataFrame([vars(row) for row in self.balance])

    def effect(self, outcomes: str | Sequence[str], *, unit: str = "fraction", better: str = "higher") -> EffectProfile:
        """Bias-corrected effect on the matched treated, one month for each outcome column; see ``matched_effect``."""
        names = [outcomes] if isinstance(outcomes, str) else list(outcomes)
        matched = Matched.of(self.pairs)
        y = np.column_stack([_numbers(self._columns, name) for name in names])[matched.rows]
        observed = np.isfinite(y)
        dense = self._design.matrix(matched.rows)
        score = self.model.score[matched.rows][:, None]
        x = np.concatenate([dense[:, :1], score, dense[:, 1:], self._exact[matched.rows]], axis=1)
        person = matched.rows
        effect = matched_effect(
            matched, np.where(observed, y, 0.0), observed, x, person, self._cluster[matched.rows], "cluster"
        )
        lost = len(self.pairs.outside)
        return EffectProfile(
            Estimand(
                "starters", self._treatment, "comparison", "start", names[0], "state", unit, "conditional_independence",
                "caliper" if lost else "",
            ),
            {"analysis": "matching", "method": "matching", "outcome": names[0], "better": better},
            np.arange(1, len(names) + 1),
            effect.estimate,
            effect.counterfactual,
            effect.n_treated,
            effect.n_comparison,
            effect.uncertainty,
            "influence function",
            "fixed" if bool(observed.all()) else "varying",
        )  # fmt: skip


def match_frame(
    frame: IntoDataFrame,
    *,
    treatment: str,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    exact: Sequence[str] = (),
    id: str | None = None,
    cluster: str | None = None,
    ratio: int = 1,
    caliper: float | None = 0.2,
    unit: Unit = "sd_linear",
    seed: int = 0,
) -> MatchedFrame:
    """Nearest-neighbour matching with replacement on the logit of the chance of treatment.

    Parameters
    ----------
    frame: pandas, polars or another eager frame that narwhals knows; one row a unit.
    treatment: a column of 0/1 or booleans. ``numeric`` and ``categorical``: covariates of the chance of treatment.
    exact: categorical columns on which matches agree. ``id``: a column of unique ids; row numbers when left out, and
        then ties depend on row order. ``cluster``: influences are summed within it; default each unit by itself.
    ratio, caliper, unit: see :func:`evalkit.matching.nearest.match_nearest`.

    Raises
    ------
    DataError
        ``matching.missing_columns``, ``matching.not_binary``, ``matching.missing_values``, ``matching.duplicate_ids``.
    DesignError
        From the start model or when nobody can be matched.
    """
    table = nw.from_native(frame, eager_only=True)
    wanted = [treatment, *numeric, *categorical, *exact, *filter(None, (id, cluster))]
    absent = [name for name in wanted if name not in table.columns]
    if absent:
        params = {"names": ", ".join(absent), "known": ", ".join(table.columns)}
        raise DataError(Fault("matching.missing_columns", params))
    ids = np.array([str(v) for v in (table[id].to_list() if id else range(len(table)))], dtype=object)
    if len(np.unique(ids)) != len(ids):
        raise DataError(Fault("matching.duplicate_ids", {"column": id or ""}))
    order = np.argsort(ids, kind="stable") if id else np.arange(len(ids))
    ids, table = ids[order], table[order.tolist()]
    flag = _numbers(table, treatment)
    if not np.isin(flag, (0.0, 1.0)).all():
        raise DataError(Fault("matching.not_binary", {"column": treatment}))
    values = np.column_stack([_numbers(table, name) for name in numeric]) if numeric else np.empty((len(ids), 0))
    gaps = [name for j, name in enumerate(numeric) if not np.isfinite(values[:, j]).all()]
    if gaps:
        raise DataError(Fault("matching.missing_values", {"names": ", ".join(gaps)}))
    factors = tuple(factor(name, table[name].to_list()) for name in categorical)
    strata = tuple(factor(name, table[name].to_list()) for name in exact)
    everyone = np.arange(len(ids), dtype=np.int32)
    design = Design(everyone, values, tuple(numeric), np.empty((len(ids), 0)), (), factors)
    shared = common_levels(design, flag == 1)
    rows = everyone if shared.rows is None else shared.rows
    treated, stratum = flag[rows] == 1, np.zeros(len(rows), np.int64)
    dummies = [np.empty((len(rows), 0))]
    for made in strata:
        stratum = stratum * len(made.levels) + made.codes[rows]
        dummies.append((made.codes[rows][:, None] == np.arange(1, len(made.levels))).astype(float))
    model = fit_logit(shared.design, treated)
    codes = np.arange(len(rows)) if cluster is None else factor(cluster, table[cluster].to_list()).codes[rows]
    candidates = Candidates(treated, rows.astype(np.int64), hash_ids(seed, ids[rows]), stratum, model.score)
    pairs = match_nearest(candidates, ratio=ratio, width=caliper, unit=unit)
    matched = Matched.of(pairs)
    weight = tally(pairs.control, pairs.weight, len(rows))
    of_treated = np.zeros(len(rows))
    of_treated[np.unique(pairs.treated)] = 1.0
    p_values = paired_p_values(
        wide(shared.design, matched.rows), matched.treated, matched.control, matched.weight, matched.rows
    )
    return MatchedFrame(
        ids[rows],
        model,
        pairs,
        balance(shared.design, treated, of_treated, weight, p_values),
        int((flag == 1).sum()),
        table[rows.tolist()],
        shared.design,
        codes.astype(np.int64),
        treatment,
        np.concatenate(dummies, axis=1),
    )


def _numbers(table: nw.DataFrame, name: str) -> Array:
    """A column as float64; what is no number is refused without showing it."""
    if name not in table.columns:
        raise DataError(Fault("matching.missing_columns", {"names": name, "known": ", ".join(table.columns)}))
    found: Array | None = None
    with contextlib.suppress(Exception):  # its words may quote a value, so it is not chained
        found = np.asarray(table[name].cast(nw.Float64).to_numpy(), float)
    if found is None:
        raise DataError(Fault("matching.not_numeric", {"column": name}))
    return found
