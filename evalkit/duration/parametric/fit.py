"""Maximum likelihood of a form of duration on start-stop rows, with or without gamma frailty.

A row that begins at t0 and ends at t1 adds ``d ln lambda(t1) - (H(t1) - H(t0))``; with frailty, groups add what
:mod:`evalkit.duration.parametric.mixing` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from evalkit.duration.episodes import Episodes, Numbers
from evalkit.duration.newton import dependent, solve, unbounded
from evalkit.duration.parametric.families import FAMILIES, Bent, Family, cumulated, log_hazard
from evalkit.duration.parametric.mixing import Mixed, at_zero, mixed
from evalkit.duration.parametric.model import Frailty, Parametric
from evalkit.effects import Array, Influence
from evalkit.errors import DataError, DesignError, Fault, UsageError

MOST = 100
NEAR = 1e-9
"""A step whose gain is below this is the last one: the next would gain its square."""
THIN = -12.0
"""Log of a scale below which all times are the same."""
NONE, ENDLESS, FURTHEST = -18.0, 5.0, 1.5
"""Logs of a variance of frailty that is none, and that has no end; by how much it moves in a step."""
VARIANCES = (0.05, 0.2, 0.5, 1.0, 2.0)


def parametric(
    episodes: Episodes,
    x: ArrayLike,
    names: Sequence[str],
    family: Family = "weibull",
    *,
    scale_by_stratum: bool = False,
    frailty: Literal["row", "person"] | ArrayLike | None = None,
) -> Parametric:
    """Fit one family; all causes of ``episodes`` count as the event (one of several: ``episodes.only(cause)``).

    Families: ``exponential``, ``weibull``, ``lognormal``, ``loglogistic`` (``ln T = a + x'b + s e``; parameters a, b,
    ln s) and ``gompertz`` (hazard ``exp(a + x'b + gamma t)``; with gamma < 0 some never leave). Identified if censoring
    and entry are independent of duration given x, and the form is right.

    Parameters
    ----------
    x: (R, P), constant within a row. A row whose start is above 0 is conditioned on having lasted until then, so a
        person may have several rows, with covariates that change: the hazard at t is that of the covariates of the
        moment, ``lambda(t | x_t)``. With exponential, Weibull and Gompertz these are proportional hazards; with the
        others it is the hazard of someone who had always had these covariates, not time that runs faster for a while.
    scale_by_stratum: ln s (or gamma) of its own for each stratum of ``episodes``; otherwise strata play no part.
    frailty: gamma distributed factor of the hazard, of mean 1: of every ``row`` (each a spell of its own), of a
        ``person`` (shared by his spells), or (R,) groups that share one. A first row with a start above 0 counts as
        having lasted until then from 0 on, at its covariates; time between rows counts as not at risk.

    Case weights count as so many people (with frailty they are constant in a group); influence is by cluster.

    Raises
    ------
    UsageError
        ``duration.parametric_family``, ``duration.parametric_columns``, ``duration.parametric_groups``.
    DataError
        ``duration.cox_not_finite``; ``duration.parametric_group_differs`` when weights or clusters differ in a group.
    DesignError
        ``duration.parametric_few`` with fewer events than parameters; ``duration.cox_collinear``;
        ``duration.parametric_no_maximum`` with columns for which the likelihood has none;
        ``duration.parametric_degenerate`` when events leave no spread of time; ``duration.parametric_frailty_endless``
        when the variance of frailty grows without end; ``duration.cox_not_converged``.
    """
    if family not in FAMILIES:
        raise UsageError(Fault("duration.parametric_family", {}))
    values = np.asarray(x, float)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape != (len(episodes), len(names)):
        raise UsageError(Fault("duration.parametric_columns", {"columns": values.shape[1], "names": len(names)}))
    if not np.isfinite(values).all():
        raise DataError(Fault("duration.cox_not_finite", {"rows": int((~np.isfinite(values)).any(axis=1).sum())}))
    design = np.column_stack([np.ones(len(values)), values])
    if bad := dependent(design.T @ (design * episodes.weight[:, None])):
        raise DesignError([Fault("duration.cox_collinear", {"column": names[j - 1]}) for j in bad])
    if family != "exponential" and _at_once(episodes):
        raise DesignError(Fault("duration.parametric_degenerate", {}))
    strata = tuple(map(str, episodes.stratum_ids.tolist())) if scale_by_stratum and family != "exponential" else ()
    rows = _Rows(episodes, design, family, len(strata))
    asked = None if frailty is None else _groups(episodes, frailty)
    events, size = int(rows.event.sum()), rows.size + (asked is not None)
    if events < size:
        raise DesignError(Fault("duration.parametric_few", {"events": events, "parameters": size}))
    labels = ["(intercept)", *names]
    if family != "exponential":
        word = "gamma" if family == "gompertz" else "ln(scale)"
        labels += [f"{word} [{name}]" for name in strata] or [word]
    theta, steps, alike = _newton(rows, rows.first(), labels)
    value, score, information = rows.at(theta)
    held: Frailty | None = None
    if asked is not None:
        whole = _Groups(rows, *asked)
        held = Frailty(0.0, asked[0], np.ones(len(asked[0])), 0.0, 1.0)
        found = _shared(whole, theta, value, labels, alike)
        if found is not None:
            (theta, more), none = found, value
            value, score, information = whole.at(theta)
            statistic, steps = 2 * (value - none), steps + more
            labels, p_value = [*labels, "ln(frailty)"], float(special.chdtrc(1, statistic) / 2)
            held = Frailty(float(np.exp(theta[-1])), asked[0], whole.means(theta), statistic, p_value)
    inverse = solve(information, np.eye(len(theta)))
    by_cluster = np.zeros((len(episodes.cluster_ids), len(theta)))
    np.add.at(by_cluster, episodes.cluster, score)
    return Parametric(
        family, tuple(labels), theta, inverse, Influence(episodes.cluster_ids, by_cluster @ inverse, episodes.level),
        value, len(episodes), len(np.unique(episodes.person)), events, steps, strata, held,
    )  # fmt: skip


def _at_once(episodes: Episodes) -> bool:
    """Whether all events fall at the last time that is seen: then hazards may be zero until it."""
    ends = episodes.stop[episodes.cause > 0]
    return bool(len(ends)) and bool((ends == episodes.stop.max()).all())


class _Rows:
    """Rows with their log-likelihood; parameters are coefficients and second parameters."""

    def __init__(self, episodes: Episodes, design: Array, family: Family, strata: int):
        self.episodes, self.design, self.family = episodes, design, family
        self.event = episodes.cause > 0
        self.weight = episodes.weight
        self.wide = design.shape[1]
        self.tails = 0 if family == "exponential" else max(1, strata)
        self.size = self.wide + self.tails
        self.stratum = episodes.stratum if strata else np.zeros(len(episodes), np.int64)
        self.spread = np.concatenate([design.std(axis=0), np.zeros(self.tails)])
        self.predictors = np.column_stack([design, *(self.stratum == s for s in range(self.tails))])

    def first(self) -> Array:
        """Everybody alike, at a constant rate."""
        time = float(self.weight @ (self.episodes.stop - self.episodes.start))
        theta = np.zeros(self.size)
        theta[0] = np.log(time / float(self.weight[self.event].sum())) * (-1 if self.family == "gompertz" else 1)
        return theta

    def _predicted(self, theta: Array) -> tuple[Array, Array]:
        tau = theta[self.wide : self.size][self.stratum] if self.tails else np.zeros(len(self.stratum))
        return self.design @ theta[: self.wide], tau

    def parts(self, theta: Array) -> tuple[Bent, Bent, Bent]:
        """Log hazards at the end, for events; hazards cumulated to the end; to the start."""
        eta, tau = self._predicted(theta)
        e = self.episodes
        level = log_hazard(self.family, e.stop, eta, tau)
        level = Bent(*(np.where(self.event, part, 0.0) for part in level.all))
        return level, cumulated(self.family, e.stop, eta, tau), cumulated(self.family, e.start, eta, tau)

    def value(self, theta: Array) -> float:
        """Log-likelihood; minus infinity where it cannot be worked out."""
        level, whole, before = self.parts(theta)
        with np.errstate(invalid="ignore"):
            value = float(self.weight @ (level.value - (whole.value - before.value)))
        return value if np.isfinite(value) else -np.inf

    def at(self, theta: Array) -> tuple[float, Array, Array]:
        """Log-likelihood, scores (R, P) and minus the second derivative, weighted."""
        level, whole, before = self.parts(theta)
        total = level + whole.times(-1.0) + before
        return float(self.weight @ total.value), self.gradient(total), self.curvature(total)

    def gradient(self, parts: Bent) -> Array:
        """(R, P) weighted derivatives of rows."""
        return np.column_stack([self.design * (self.weight * parts.e)[:, None], self._tail(self.weight * parts.t)])

    def curvature(self, parts: Bent) -> Array:
        """(P, P) minus the weighted sum of second derivatives."""
        out = np.zeros((self.size, self.size))
        out[: self.wide, : self.wide] = -(self.design.T * (self.weight * parts.ee)) @ self.design
        cross = -self.design.T @ self._tail(self.weight * parts.et)
        out[: self.wide, self.wide :], out[self.wide :, : self.wide] = cross, cross.T
        out[self.wide :, self.wide :] = -np.diag(self._tail(self.weight * parts.tt).sum(axis=0))
        return out

    def _tail(self, values: Array) -> Array:
        """(R, S) values in the column of their second parameter."""
        return values[:, None] * (self.stratum[:, None] == np.arange(self.tails))


class _Groups:
    """The same with a gamma factor shared by groups; the last parameter is the log of its variance."""

    def __init__(self, rows: _Rows, ids: NDArray[Any], group: Numbers, entry: NDArray[np.bool_]):
        self.rows, self.group, self.entry, self.number = rows, group, entry, len(ids)
        self.size = rows.size + 1
        self.first_row = np.unique(group, return_index=True)[1]
        self.weight = rows.weight[self.first_row]
        self.events = np.bincount(group, rows.event).astype(np.int64)
        self.family, self.wide, self.tails = rows.family, rows.wide, rows.tails

    def _by_group(self, values: Array) -> Array:
        if values.ndim == 1:
            return np.asarray(np.bincount(self.group, values, minlength=self.number), float)
        return np.column_stack([np.bincount(self.group, column, minlength=self.number) for column in values.T])

    def _hazards(self, theta: Array) -> tuple[Bent, Bent, Bent]:
        """Log hazards; what is cumulated in each row, that before entry included; that before entry."""
        level, whole, before = self.rows.parts(theta[:-1])
        late = Bent(*(np.where(self.entry, part, 0.0) for part in before.all))
        return level, whole + before.times(-1.0) + late, late

    def _mixed(self, theta: Array, here: Bent, late: Bent) -> Mixed:
        return mixed(float(np.exp(theta[-1])), self.events, self._by_group(here.value), self._by_group(late.value))

    def none(self, theta: Array) -> float:
        """Derivative of the log-likelihood in the variance where there is no frailty."""
        _, here, late = self._hazards(np.append(theta, 0.0))
        return float(self.weight @ at_zero(self.events, self._by_group(here.value), self._by_group(late.value)))

    def means(self, theta: Array) -> Array:
        """(N,) mean of the factor given the data."""
        _, here, late = self._hazards(theta)
        return self._mixed(theta, here, late).mean

    def value(self, theta: Array) -> float:
        """Log-likelihood; minus infinity where it cannot be worked out."""
        with np.errstate(over="ignore", invalid="ignore"):
            level, here, late = self._hazards(theta)
            value = float(self.rows.weight @ level.value + self.weight @ self._mixed(theta, here, late).value)
        return value if np.isfinite(value) else -np.inf

    def at(self, theta: Array) -> tuple[float, Array, Array]:
        """Log-likelihood, scores (R, P), minus the second derivative; a group's own score stands at its first row."""
        level, here, late = self._hazards(theta)
        of = self._mixed(theta, here, late)
        variance, rows = float(np.exp(theta[-1])), self.rows
        value = float(rows.weight @ level.value + self.weight @ of.value)
        total = level + here.times(-of.mean[self.group]) + late.times(of.entry[self.group])
        score = np.column_stack([rows.gradient(total), np.zeros(len(self.group))])
        score[self.first_row, -1] = self.weight * variance * of.slope
        slopes, late_slopes = self._by_group(rows.gradient(here)), self._by_group(rows.gradient(late))
        out = np.zeros((self.size, self.size))
        out[:-1, :-1] = (
            rows.curvature(total)
            - (slopes.T * (of.outer / self.weight)) @ slopes
            + (late_slopes.T * (of.entry_outer / self.weight)) @ late_slopes
        )
        cross = variance * (of.mean_slope @ slopes - of.entry_slope @ late_slopes)
        out[:-1, -1] = out[-1, :-1] = cross
        out[-1, -1] = -float(self.weight @ (variance**2 * of.bend + variance * of.slope))
        return value, score, out


def _groups(episodes: Episodes, frailty: str | ArrayLike) -> tuple[NDArray[Any], Numbers, NDArray[np.bool_]]:
    """Names of groups, the group of each row, and which rows have a time before entry."""
    if isinstance(frailty, str):
        if frailty not in ("row", "person"):
            raise UsageError(Fault("duration.parametric_groups", {"rows": len(episodes)}))
        given: NDArray[Any] = np.arange(len(episodes)) if frailty == "row" else episodes.person_ids[episodes.person]
    else:
        given = np.asarray(frailty)
        if given.shape != (len(episodes),):
            raise UsageError(Fault("duration.parametric_groups", {"rows": len(episodes)}))
    ids, group = np.unique(given, return_inverse=True)
    first = np.unique(group, return_index=True)[1]
    unlike = np.zeros(len(episodes), bool)
    for name in ("weight", "cluster"):
        unlike |= getattr(episodes, name) != getattr(episodes, name)[first][group]
    if unlike.any():
        raise DataError(Fault("duration.parametric_group_differs", {"groups": len(np.unique(group[unlike]))}))
    order = np.lexsort((episodes.start, episodes.person))
    begins = np.concatenate([[True], np.diff(episodes.person[order]) != 0])
    entry = np.zeros(len(episodes), bool)
    entry[order[begins]] = True
    if isinstance(frailty, str) and frailty == "row":
        entry[:] = True
    return ids, group, entry & (episodes.start > 0)


def _shared(
    whole: _Groups, theta: Array, value: float, labels: Sequence[str], alike: Array
) -> tuple[Array, int] | None:
    """The maximum with frailty and its steps, from the best of several variances or else the first that leads to one.

    None when no frailty is best. Without end: the likelihood can rise towards a limit at an infinite variance (that of
    a Pareto distribution from the first event on, for Weibull), which is no fit.
    """
    overdispersed = whole.none(theta) > 0
    starts = [np.append(theta, np.log(variance)) for variance in VARIANCES]
    best = max(starts, key=lambda start: whole.value(start))
    if not overdispersed and whole.value(best) <= value:
        return None
    for start in (best, *starts):
        try:
            tried, steps, _ = _newton(whole, start, labels, alike)
        except DesignError:
            continue
        if tried[-1] > NONE and whole.value(tried) > value:
            return tried, steps
    if overdispersed:
        raise DesignError(Fault("duration.parametric_frailty_endless", {}))
    return None


def _newton(
    problem: _Rows | _Groups, theta: Array, labels: Sequence[str], alike: Array | None = None
) -> tuple[Array, int, Array]:
    """The maximum, steps, and the information at the start."""
    value, score, information = problem.at(theta)
    begun, first = _positive(information) if alike is None else alike, theta
    for steps in range(1, MOST + 1):
        move, gain = _step(information, score.sum(axis=0))
        shared = isinstance(problem, _Groups)
        length = min(1.0, FURTHEST / max(abs(float(move[-1])), 1e-300)) if shared else 1.0
        while not problem.value(theta + length * move) >= value - 1e-13 * abs(value) and length > 1e-8:
            length /= 2
        theta = theta + length * move
        value, score, information = problem.at(theta)
        if shared and theta[-1] < NONE:
            return theta, steps, begun
        if shared and theta[-1] > ENDLESS:
            raise DesignError(Fault("duration.parametric_frailty_endless", {}))
        if not np.isfinite(information).all():
            break
        thin = problem.family not in ("exponential", "gompertz") and problem.tails
        if thin and (theta[problem.wide : problem.wide + problem.tails] < THIN).any():
            raise DesignError(Fault("duration.parametric_degenerate", {}))
        if gain < NEAR:
            roots = np.linalg.eigvalsh(information)
            away = _away(problem, first, theta, begun, information) if isinstance(problem, _Rows) else []
            if away:
                raise DesignError([Fault("duration.parametric_no_maximum", {"column": labels[j]}) for j in away])
            if roots[0] > 0:
                return theta, steps, begun
            break
    raise DesignError(Fault("duration.cox_not_converged", {"steps": MOST}))


def _away(problem: _Rows, first: Array, theta: Array, begun: Array, information: Array) -> list[int]:
    def reach(move: Array) -> float:
        return float(np.abs(problem.predictors @ move).max())

    return unbounded(problem.value, first, theta, begun, information, reach, problem.spread)


def _step(information: Array, slope: Array) -> tuple[Array, float]:
    """Newton's step, uphill also where the likelihood is not concave, and twice the gain it promises."""
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    roots, vectors = np.linalg.eigh(information * np.outer(scale, scale))
    size = np.maximum(np.abs(roots), 1e-10 * np.abs(roots).max())
    along = vectors.T @ (scale * slope)
    return scale * (vectors @ (along / size)), float(along**2 @ (1 / size))


def _positive(matrix: Array) -> Array:
    """The nearest thing to an information at the start: its diagonal, where it is not positive definite."""
    scale = np.sqrt(np.maximum(np.abs(np.diag(matrix)), 1e-300))
    roots = np.linalg.eigvalsh(matrix / np.outer(scale, scale))
    return matrix if roots[0] > 1e-10 else np.diag(scale**2)
