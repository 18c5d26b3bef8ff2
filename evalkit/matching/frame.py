"""Matching and weighting on a plain data frame, for a notebook: one row a unit, one call to adjust, one to estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import NDArray
from scipy.special import expit

from evalkit.balance import (
    BalanceRow,
    BalanceTable,
    BinaryConvention,
    balance,
    balance_statistics,
    columns,
    paired_p_values,
    weighted_p_values,
    wide,
)
from evalkit.diagnostics import Dropped, LovePlot, love_plot, who_was_dropped
from evalkit.effects import EffectProfile, Estimand
from evalkit.errors import DataError, Fault, UsageError
from evalkit.matching.abadie_imbens import Neighbours
from evalkit.matching.adjustment import POPULATION, Adjustment, Matching, Pairs, TargetName
from evalkit.matching.admissible import ERRORS, MODEL_NAMES, ErrorName, se_kind
from evalkit.matching.bootstrap import Bootstrap, by_rows
from evalkit.matching.inference import Score
from evalkit.matching.match import How, match
from evalkit.matching.models import ModelName
from evalkit.matching.outcome import estimate
from evalkit.matching.prepared import Prepared, prepare
from evalkit.matching.propensity import Logit, fit_logit
from evalkit.matching.regressions import Family
from evalkit.matching.weighting.weigh import TARGETS, Method, weigh
from evalkit.sensitivity import SimulatedConfounder, observed_chances, simulated_confounder
from evalkit.table_one import TableOne, table_one

Array = NDArray[np.float64]
Unit = Literal["sd_linear", "raw_linear", "sd", "raw"]
"""Scale of a caliper and of distances: the linear predictor or the probability, in standard deviations or as it is."""


@dataclass(frozen=True)
class AdjustedFrame:
    """A data frame whose two groups are made alike, by matches or by weights.

    Attributes
    ----------
    prepared: the frame as it was used; ``adjustment``: :class:`~evalkit.matching.adjustment.Matching` or
        :class:`~evalkit.matching.adjustment.Weights`, whose rows are those of ``prepared``.
    balance: rows of the balance table, standard deviations of the target's group in the denominator.
    """

    prepared: Prepared
    adjustment: Adjustment = field(repr=False)
    balance: tuple[BalanceRow, ...] = field(repr=False)
    _adjust: Callable[[Prepared], Adjustment] = field(repr=False)
    _x: Array = field(repr=False)
    _default: ModelName
    _scored: bool

    @property
    def ids(self) -> NDArray[np.object_]:
        """(n,) ids of the rows."""
        return self.prepared.ids

    @property
    def model(self) -> Logit:
        """The fitted chance of treatment."""
        return self.prepared.model

    @property
    def n_treated(self) -> int:
        """Treated units in the frame, before any was left out."""
        return self.prepared.n_treated

    @property
    def pairs(self) -> Pairs:
        """Who is matched with whom.

        Raises
        ------
        DataError
            ``matching.no_pairs`` for weights, strata and kernels.
        """
        pairs = self.adjustment.pairs if isinstance(self.adjustment, Matching) else None
        if pairs is None:
            raise DataError(Fault("matching.no_pairs", {}))
        return pairs

    def matches(self) -> pd.DataFrame:
        """One row a pair: ids of the treated and the comparison unit, and the weight of the match."""
        pairs, of = self.pairs, self.ids
        return pd.DataFrame({"treated": of[pairs.treated], "comparison": of[pairs.control], "weight": pairs.weight})

    def weights(self) -> pd.DataFrame:
        """One row a unit: id, treatment, weight, chance of treatment, and the matched set or stratum if any.

        ``scaled`` has mean one among the rows used in each arm.
        """
        adjustment = self.adjustment
        weight = adjustment.weight
        scaled = weight.astype(float).copy()
        for arm in (adjustment.treated, ~adjustment.treated):
            used = arm & (scaled != 0)
            scaled[used] /= scaled[used].mean() if used.any() else 1.0
        out = pd.DataFrame(
            {
                "id": self.ids, "treated": adjustment.treated, "weight": weight, "scaled": scaled,
                "chance": expit(self.model.score),
            }
        )  # fmt: skip
        if isinstance(adjustment, Matching) and adjustment.subclass is not None:
            out["subclass"] = adjustment.subclass
        return out

    def balance_table(self) -> pd.DataFrame:
        """Balance before and after, one row a number or level."""
        return pd.DataFrame([vars(row) for row in self.balance])

    def statistics(self, binary_convention: BinaryConvention = "standardised") -> BalanceTable:
        """Balance with distances between distributions and effective sizes, shares by either convention."""
        x, names = self._covariates()
        return balance_statistics(
            x, names, None, self.adjustment.treated, self.adjustment.weight, target=self.adjustment.target,
            binary_convention=binary_convention,
        )  # fmt: skip

    def love_plot(self) -> LovePlot:
        """Data of a love plot: standardised differences before and after, the largest first."""
        return love_plot(self.statistics())

    def dropped(self) -> Dropped:
        """Who fell out, how they differ from those who stay, and whom the estimate is about then."""
        x, names = self._covariates()
        kept = self.adjustment.weight != 0
        return who_was_dropped(x, names, None, self.adjustment.treated, kept, target=self.adjustment.target)

    def _covariates(self) -> tuple[Array, list[str]]:
        names = [f"{name}:{level}" if level else name for name, level in columns(self.prepared.design)]
        return wide(self.prepared.design, np.arange(len(self.ids))), names

    def table_one(self, **options: Any) -> TableOne:
        """The first table of a paper: both groups before and after; options of :func:`evalkit.table_one.table_one`."""
        values = {name: self.prepared.columns[name].to_list() for name in self.prepared.names}
        weight = np.abs(self.adjustment.weight)
        return table_one(values, self.adjustment.treated, weight, target=self.adjustment.target, **options)

    def effect(
        self,
        outcomes: str | Sequence[str],
        *,
        model: ModelName | None = None,
        errors: ErrorName = "influence",
        family: Family = "linear",
        before: str | Sequence[str] = (),
        neighbours: int = 2,
        draws: int = 999,
        unit: str = "fraction",
        better: str = "higher",
    ) -> EffectProfile:
        """The effect, one month for each outcome column; see :func:`evalkit.matching.outcome.estimate`.

        Parameters
        ----------
        model: outcome step; default ``bias_corrected`` for matches (without replacement ``gcomputation``, the same
            estimate), ``aipw`` for inverse probability weights, ``means`` for weights that balance the covariates.
        errors: standard error by name. ``neighbours``: for ``abadie_imbens``, rows of the same arm among which the
            spread of outcomes is found; 0 takes one spread for all. ``draws``: for ``bootstrap``.
        before: columns with the outcome before treatment, whose mean is subtracted (conditional
            difference-in-differences).
        """
        _choice("errors", errors, ERRORS)
        _choice("model", model or self._default, MODEL_NAMES)
        names = [outcomes] if isinstance(outcomes, str) else list(outcomes)
        earlier = [before] if isinstance(before, str) else list(before)
        y = self.prepared.values(names)
        chosen = model or self._default
        observed = np.isfinite(y)
        found = self._estimate(y, chosen, errors, family, earlier, neighbours, draws)
        lost = bool(self._outside()) or self.prepared.n_treated > int(self.adjustment.treated.sum())
        method = "matching" if isinstance(self.adjustment, Matching) else "weighting"
        kind = se_kind(self.adjustment, errors)
        return EffectProfile(
            Estimand(
                POPULATION[self.adjustment.target],  # type: ignore[arg-type]
                self.prepared.treatment, "comparison", "start", names[0], "state", unit,
                "conditional_parallel_trends" if earlier else "conditional_independence",
                ("caliper" if method == "matching" else "trimming") if lost else "",
            ),
            {"analysis": method, "method": method, "outcome": names[0], "better": better},
            np.arange(1, len(names) + 1),
            found.estimate,
            found.counterfactual,
            found.n_treated,
            found.n_comparison,
            found.uncertainty,
            "influence function" if kind == "influence" else kind,
            "fixed" if bool(observed.all()) else "varying",
        )  # fmt: skip

    def simulated_confounder(
        self, outcome: str, like: str, *, draws: int = 100, model: ModelName | None = None
    ) -> SimulatedConfounder:
        """The effect with a simulated confounder made like an observed binary column ``like`` (0 or 1).

        Ichino, Mealli and Nannicini (2008); see :func:`evalkit.sensitivity.simulated_confounder`. The outcome counts as
        high above its mean.
        """
        y = self.prepared.values([outcome])[:, 0]
        high = y > np.nanmean(y)
        chances = observed_chances(self.prepared.values([like])[:, 0], self.prepared.treated, high)
        base = self.effect(outcome, model=model)

        def estimator(u: Array) -> tuple[float, float]:
            design = self.prepared.design
            numeric = np.column_stack([design.own_numeric, u])
            design = replace(design, own_numeric=numeric, own_numeric_names=(*design.own_numeric_names, "simulated"))
            logit = fit_logit(design, self.prepared.treated)
            prepared = replace(self.prepared, design=design, model=logit)
            again = replace(
                self, prepared=prepared, adjustment=self._adjust(prepared), _x=np.column_stack([self._x, u])
            )
            made = again._estimate(y[:, None], model or self._default, "influence", "linear", [], 0, 0)
            return float(made.estimate[0]), float(np.sqrt(np.asarray(made.uncertainty.vcov)[0, 0]))

        return simulated_confounder(
            estimator,
            self.prepared.treated,
            high,
            chances,
            draws=draws,
            seed=self.prepared.seed,
            key=self.prepared.key,
            baseline=float(base.estimate[0]),
        )

    def _outside(self) -> int:
        if isinstance(self.adjustment, Matching):
            return len(self.adjustment.outside) + len(self.adjustment.discarded)
        return len(self.adjustment.trimmed)

    def _estimate(
        self, y: Array, model: ModelName, errors: ErrorName, family: Family, before: list[str], near: int, draws: int
    ) -> Any:
        prepared = self.prepared
        more: dict[str, Any] = {}
        if self._scored and model == "means":
            design = prepared.design.matrix()[:, [prepared.design.names.index(n) for n in prepared.model.names]]
            more["score"] = Score.of_logit(prepared.model.score, design, prepared.treated)
        if errors in ("abadie_imbens", "abadie_imbens_estimated") and near:
            coordinates = prepared.model.score[:, None]
            if not self._scored:
                values = prepared.design.matrix()[:, 1:]
                coordinates = values / np.maximum(values.std(axis=0), 1e-300)
            more["neighbours"] = Neighbours(coordinates, near)
        if errors == "bootstrap":
            redo = by_rows(lambda rows: self._adjust(prepared.take(rows)))
            more["bootstrap"] = Bootstrap(redo, draws, prepared.seed)
        if before:
            earlier = prepared.values(before)
            seen = np.isfinite(earlier)
            more |= {"before": np.where(seen, earlier, 0.0), "before_observed": seen}
        observed = np.isfinite(y)
        return estimate(
            self.adjustment,
            np.where(observed, y, 0.0),
            observed,
            self._x,
            model=model,
            errors=errors,
            family=family,
            person=np.arange(len(y)),
            cluster=prepared.cluster,
            level="cluster",
            **more,
        )


MatchedFrame = AdjustedFrame


def match_frame(
    frame: IntoDataFrame,
    *,
    treatment: str,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    exact: Sequence[str] = (),
    id: str | None = None,
    cluster: str | None = None,
    how: How = "nearest",
    estimand: TargetName = "att",
    distance: str = "propensity",
    ratio: int = 1,
    replace: bool = True,
    caliper: float | None = 0.2,
    unit: Unit = "sd_linear",
    calipers: Mapping[str, float] | None = None,
    anti_exact: Sequence[str] = (),
    cutpoints: Mapping[str, int | Sequence[float]] | None = None,
    seed: int = 0,
    **options: Any,
) -> AdjustedFrame:
    """Match a frame; by default nearest neighbours with replacement on the logit of the chance of treatment.

    Parameters
    ----------
    frame: pandas, polars or another eager frame that narwhals knows; one row a unit.
    treatment: a column of 0/1 or booleans. ``numeric`` and ``categorical``: covariates of the chance of treatment.
    exact: categorical columns on which matches agree; ``anti_exact``: on which they differ. ``id``: a column of unique
        ids; row numbers when left out, and then ties depend on row order. ``cluster``: influences are summed within
        it; default each unit by itself.
    how, estimand: see :func:`evalkit.matching.match.match`. ``distance``: ``propensity``, ``mahalanobis`` or
        ``robust_mahalanobis`` on the covariates. ``ratio``, ``replace``: matches a treated unit, and whether a unit may
        be a match more than once.
    caliper, unit: largest distance on the score: standard deviations within exact cells, or raw units, of the linear
        predictor (``sd_linear``, ``raw_linear``) or of the probability (``sd``, ``raw``); distances are on that scale.
    calipers: by numeric column how far a match may lie, in the column's unit. ``cutpoints``: for ``cem``, by numeric
        column; others by Sturges' rule.
    options: further ones of :func:`evalkit.matching.match.match`: ``order``, ``tie``, ``discard``, ``subclasses``,
        ``kernel``, ``bandwidth``, ``max_ratio`` ...

    Raises
    ------
    DataError
        ``matching.missing_columns``, ``matching.not_binary``, ``matching.missing_values``, ``matching.duplicate_ids``.
    DesignError
        From the start model or when nobody can be matched.
    """
    _choice("unit", unit, get_args(Unit))
    _choice("how", how, get_args(How))
    _choice("distance", distance, ("propensity", "mahalanobis", "robust_mahalanobis"))
    limits, cuts = dict(calipers or {}), dict(cutpoints or {})
    wanted = [*exact, *anti_exact, *limits, *cuts]
    prepared = prepare(frame, treatment, numeric, categorical, wanted, id, cluster, seed)
    scored = distance == "propensity"

    def adjust(of: Prepared) -> Matching:
        score = of.model.score if unit.endswith("_linear") else expit(of.model.score)
        given: dict[str, Any] = dict(options)
        if how in ("nearest", "optimal", "full"):
            if caliper is not None:
                given |= {"caliper": caliper, "caliper_unit": "sd_within" if unit.startswith("sd") else "raw"}
            if limits:
                given |= {"caliper_columns": of.values(list(limits)), "caliper_widths": list(limits.values())}
                given["caliper_widths_unit"] = "raw"
            if not scored:
                given["distance"] = distance
        if how in ("nearest", "optimal"):
            given["ratio"] = ratio
        if how == "nearest":
            given["replace"] = replace
            if anti_exact:
                given["anti_exact"] = of.codes(anti_exact)
        stratum = of.codes(exact)
        if how in ("exact", "cem"):
            stratum = np.column_stack([stratum, of.codes(categorical)])
        if how == "cem":
            given |= {"covariates": of.values(numeric), "names": numeric}
            given["cutpoints"] = [cuts.get(name, "sturges") for name in numeric]
        elif not scored:
            given |= {"covariates": of.design.matrix()[:, 1:], "names": of.design.names[1:]}
        return match(
            of.treated,
            how=how,
            target=estimand,  # type: ignore[arg-type]  # refused there when there is no such one
            score=score,
            exact=stratum if stratum.shape[1] else None,
            key=of.key,
            **given,
        )

    dummies = [np.empty((len(prepared.treated), 0))]
    for codes in prepared.codes(exact).T:
        dummies.append((codes[:, None] == np.arange(1, codes.max() + 1)).astype(float))
    dense = prepared.design.matrix()
    x = np.concatenate([dense[:, :1], prepared.model.score[:, None], dense[:, 1:], *dummies], axis=1)
    pairs = how in ("optimal", "full") or (how == "nearest" and not replace)
    default: ModelName = "gcomputation" if pairs and estimand != "ate" else "bias_corrected"
    return _adjusted(prepared, adjust, x, default, scored)


def weight_frame(
    frame: IntoDataFrame,
    *,
    treatment: str,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    id: str | None = None,
    cluster: str | None = None,
    how: Method = "ipw",
    estimand: TargetName = "att",
    seed: int = 0,
    **options: Any,
) -> AdjustedFrame:
    """Weight a frame until its groups are alike; by default inverse probability weights from a logit.

    Parameters
    ----------
    frame, treatment, numeric, categorical, id, cluster: see :func:`match_frame`.
    how, estimand: ``ipw``, ``overlap``, ``entropy``, ``cbps`` or ``stable``, and whose effect; see
        :func:`evalkit.matching.weighting.weigh.weigh`.
    options: further ones of that function: ``model`` (``logit``, ``boosting``, ``lasso``), ``moments``,
        ``interactions``, ``over``, ``tolerance``, ``trim``, ``cap``, ``cap_quantile``.

    Raises
    ------
    DataError, DesignError
        As :func:`match_frame`; and ``design.weighting_*`` when no such weights exist.
    """
    _choice("how", how, get_args(Method))
    _choice("estimand", estimand, (*TARGETS[how], *(["att"] if how == "overlap" else [])))
    prepared = prepare(frame, treatment, numeric, categorical, (), id, cluster, seed)
    names = prepared.design.names[1:]

    def adjust(of: Prepared) -> Adjustment:
        x = of.design.matrix()[:, 1:]
        labels = (*names, *of.design.own_numeric_names)[: x.shape[1]]
        return weigh(of.treated, x, how=how, target=estimand, names=labels, key=of.key, **options)

    doubly = how == "ipw" and estimand in ("att", "atc", "ate")
    return _adjusted(prepared, adjust, prepared.design.matrix(), "aipw" if doubly else "means", False)


def _choice(name: str, value: str, valid: Sequence[str]) -> None:
    """Refuse an argument that is none of those there are."""
    if value not in valid:
        raise UsageError(Fault("matching.choice", {"name": name, "value": value, "known": ", ".join(valid)}))


def _adjusted(
    prepared: Prepared, adjust: Callable[[Prepared], Adjustment], x: Array, default: ModelName, scored: bool
) -> AdjustedFrame:
    adjustment = adjust(prepared)
    used = adjustment.used
    values, treated = wide(prepared.design, used), adjustment.treated
    pairs = adjustment.pairs if isinstance(adjustment, Matching) else None
    if pairs is not None and adjustment.target == "att":
        ends = [np.searchsorted(used, rows) for rows in (pairs.treated, pairs.control)]
        p_values = paired_p_values(values, ends[0], ends[1], pairs.weight, used)
    else:
        p_values = weighted_p_values(values, treated[used], adjustment.weight[used], used)
    weights = adjustment.weight * treated, adjustment.weight * ~treated
    rows = balance(prepared.design, treated, *weights, p_values, target=adjustment.target)
    return AdjustedFrame(prepared, adjustment, rows, adjust, x, default, scored)
