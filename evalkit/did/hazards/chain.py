"""From hazards to cumulated exit since exposure: what was observed, what would have been, and the influence of both.

For someone exposed at elapsed month s, with counterfactual hazards h_d(j) of causes d in the j-th month since, j = 0,
1, ..:

    S(0) = 1,  S(j + 1) = S(j) (1 - sum_d h_d(j)),  F_d(k) = sum_{j < k} S(j) h_d(j)

    dF_d(k) / dh_e(m) = 1(d = e) S(m) - (F_d(k) - F_d(m + 1)) / (1 - sum_d h_d(m))      for m < k, else 0

since an exit in month m takes away all that would have come after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from evalkit.did.hazards.at_risk import AtRisk
from evalkit.did.hazards.model import Blocks, Fitted, score_parts, zeros
from evalkit.did.panel import Mask, Numbers
from evalkit.effects import Array

Coding = Callable[[Numbers, Numbers, Numbers, Numbers], Numbers]
"""(group, cell, calendar, elapsed) to the levels of the model's factors (F, ..)."""

CHUNK = 4_000_000
"""Numbers held at once while derivatives are summed."""


@dataclass(frozen=True)
class Exposed:
    """Strata whose spells are exposed, P of them: everyone of a stratum is exposed in the same month.

    ``row`` (P,) the row at exposure; ``month`` (P,) its calendar month; ``follow_up`` (P,) months that are observed
    and whose hazards without treatment are estimable, from exposure on.
    """

    row: Numbers
    month: Numbers
    follow_up: Numbers

    def take(self, keep: Mask) -> Exposed:
        """Some of them."""
        return Exposed(self.row[keep], self.month[keep], self.follow_up[keep])


def hazards(
    at_risk: AtRisk, models: tuple[Fitted, ...], coding: Coding, exposed: Exposed, horizon: int
) -> tuple[Array, Array, Mask, Numbers]:
    """Without treatment: hazards and derivatives (D, P, K), whether estimable (P, K), and the levels (F, P, K)."""
    ahead = np.arange(horizon)
    row = exposed.row[:, None]
    codes = coding(
        np.broadcast_to(at_risk.group[row], (len(row), horizon)),
        np.broadcast_to(at_risk.cell[row], (len(row), horizon)),
        exposed.month[:, None] + ahead,
        at_risk.elapsed[row] + ahead,
    )
    found = [model.hazard(codes) for model in models]
    known = np.all([estimable for _, _, estimable in found], axis=0)
    return np.stack([h for h, _, _ in found]), np.stack([slope for _, slope, _ in found]), known, codes


def incidence(h: Array) -> tuple[Array, Array]:
    """Cumulated exit by cause (D, P, K) after 1..K months, survival (P, K) to the beginning of each; h (D, P, K)."""
    stay = 1.0 - h.sum(axis=0)
    survival = np.concatenate([np.ones((stay.shape[0], 1)), np.cumprod(stay, axis=1)[:, :-1]], axis=1)
    return np.cumsum(survival * h, axis=2), survival


@dataclass(frozen=True)
class Profile:
    """Cumulated exits of some exposed, by cause and month; D causes, K months, G clusters.

    ``observed``, ``without`` (D, K); ``influence`` (G, D, K) of their difference, sum form; ``spells`` (K,) exposed;
    ``persons`` (K,).
    """

    observed: Array
    without: Array
    influence: Array
    spells: Numbers
    persons: Numbers


def profile(
    at_risk: AtRisk, models: tuple[Fitted, ...], coding: Coding, exposed: Exposed, horizon: int, complete: bool
) -> Profile:
    """Average over the exposed of observed less counterfactual cumulated exit.

    The influence of a spell is ``1(exposed) (Y - F0 - tau) / N - dF0/dtheta' IF(theta)``, with ``IF(theta)`` the
    inverse information times its score over untreated months.
    """
    months = np.arange(1, horizon + 1)
    length = np.where(exposed.follow_up >= horizon, horizon, 0) if complete else exposed.follow_up
    counted = months <= length[:, None]
    n = at_risk.at_risk[exposed.row]
    total = n @ counted
    weight = n[:, None] * counted / np.maximum(total, 1)
    causes = len(models)
    without = np.zeros((causes, horizon))
    cumulated = np.zeros((causes, len(n), horizon))
    gradient = [[zeros(_sizes(model), horizon) for model in models] for _ in models]
    step = max(1, CHUNK // (horizon * horizon))
    for low in range(0, len(n), step):
        part = slice(low, low + step)
        h, slope, known, codes = hazards(at_risk, models, coding, exposed.take(_span(len(n), part)), horizon)
        # months beyond the follow-up of a stratum are not counted; a hazard of zero there keeps them finite
        h, slope = h * known, slope * known
        cumulated[:, part], survival = incidence(h)
        without += np.einsum("dpk,pk->dk", cumulated[:, part], weight[part])
        _add_gradient(gradient, h, slope, cumulated[:, part], survival, weight[part], codes)
    influence = -_scores(at_risk, models, coding, gradient)
    observed, persons = _observed(at_risk, exposed, cumulated, without, counted, total, influence)
    return Profile(observed, without, influence, total, persons)


def _sizes(model: Fitted) -> tuple[int, ...]:
    return tuple(len(block) for block in model.coefficient)


def _span(size: int, part: slice) -> Mask:
    keep = np.zeros(size, bool)
    keep[part] = True
    return keep


def _add_gradient(
    gradient: list[list[list[Array]]], h: Array, slope: Array, f: Array, survival: Array, weight: Array, codes: Numbers
) -> None:
    """Add, by cause d, cause e and factor, the sum over strata and months of weight dF_d/dh_e times slope of h_e."""
    causes, strata, horizon = h.shape
    stay = 1.0 - h.sum(axis=0)
    safe = np.where(stay == 0, 1.0, stay)
    later = np.triu(np.ones((horizon, horizon)))  # month m counts for k > m: by position, k - 1 >= m
    onehot = [
        sparse.csr_matrix(
            (np.ones(code.size), np.maximum(code.ravel(), 0), np.arange(code.size + 1)),
            (code.size, len(gradient[0][0][i])),
        ).T.tocsr()
        for i, code in enumerate(codes)
    ]
    for d in range(causes):
        loss = -(f[d][:, None, :] - f[d][:, :, None]) / safe[:, :, None] * later
        for e in range(causes):
            change = loss + survival[:, :, None] * later if d == e else loss
            each = (change * slope[e][:, :, None] * weight[:, None, :]).reshape(strata * horizon, horizon)
            for i, matrix in enumerate(onehot):
                gradient[d][e][i] += matrix @ each


def scores(at_risk: AtRisk, models: tuple[Fitted, ...], coding: Coding, weights: list[list[Blocks | None]]) -> Array:
    """Influence of L linear outputs on the clusters (G, L, K): sums over untreated months of weights times score.

    ``weights[l][e]``: by factor (levels, K), :meth:`Fitted.weights` of the gradient of output l to the model of cause
    e.
    """
    width = next(block.shape[1] for row in weights for blocks in row if blocks is not None for block in blocks)
    out = np.zeros((len(at_risk.cluster_ids), len(weights) * width))
    parts = [score_parts(model.eta, model.link) for model in models]
    codes = coding(at_risk.group, at_risk.cell, at_risk.calendar, at_risk.elapsed)
    for rows, spells in _blocks(at_risk, width * len(weights)):
        own = codes[:, rows]
        head = at_risk.row[spells] - rows.start
        end = head + at_risk.months[spells]
        cause = at_risk.cause[spells]
        values = np.zeros((len(head), len(weights) * width))
        for o, row in enumerate(weights):
            columns = slice(o * width, o * width + width)
            total = np.zeros((rows.stop - rows.start + 1, width))
            for e, blocks in enumerate(row):
                if blocks is None:
                    continue
                stay, leave = parts[e][0][rows], parts[e][1][rows]
                used = models[e].used[rows]
                each = np.zeros((len(used), width))
                for block, code in zip(blocks, own, strict=True):
                    each += block[code]
                each *= used[:, None]
                total[1:] += each * stay[:, None]
                gone = np.flatnonzero(cause == e)
                last = end[gone] - 1
                values[gone, columns] += each[last] * (leave - stay)[last][:, None]
            running = np.cumsum(total, axis=0)
            values[:, columns] += running[end] - running[head]
        out += _by_cluster(at_risk.cluster[spells], values, len(out))
    return out.reshape(len(out), len(weights), width)


def _scores(at_risk: AtRisk, models: tuple[Fitted, ...], coding: Coding, gradient: list[list[list[Array]]]) -> Array:
    return scores(
        at_risk, models, coding,
        [[model.weights(tuple(blocks)) for model, blocks in zip(models, row, strict=True)] for row in gradient],
    )  # fmt: skip


def _observed(
    at_risk: AtRisk,
    exposed: Exposed,
    cumulated: Array,
    without: Array,
    counted: Mask,
    total: Numbers,
    influence: Array,
) -> tuple[Array, Numbers]:
    """Observed cumulated exit (D, K) and persons (K,); adds the sampling of the exposed to ``influence`` in place."""
    causes, _, horizon = cumulated.shape
    months = np.arange(1, horizon + 1)
    place = np.full(len(at_risk.starts) - 1, -1)
    place[at_risk.stratum[exposed.row]] = np.arange(len(exposed.row))
    of_spell = place[at_risk.stratum[at_risk.row]]
    at = np.append(exposed.row, 0)[of_spell]
    inside = np.flatnonzero((of_spell >= 0) & (at_risk.row <= at) & (at < at_risk.row + at_risk.months))
    stratum = of_spell[inside]
    offset = at_risk.row[inside] + at_risk.months[inside] - at[inside]  # months since exposure, the last one included
    cause = at_risk.cause[inside]
    size = np.maximum(total, 1)
    observed = np.empty((causes, horizon))
    for d in range(causes):
        month = np.where((cause == d) & (offset <= horizon), offset, horizon + 1)
        exits = np.bincount(stratum * (horizon + 2) + month, minlength=len(exposed.row) * (horizon + 2))
        by = np.cumsum(exits.reshape(-1, horizon + 2)[:, 1 : horizon + 1], axis=1)
        observed[d] = (by * counted).sum(axis=0) / size
    effect = observed - without
    step = max(1, CHUNK // (causes * horizon))
    for low in range(0, len(inside), step):
        part = slice(low, low + step)
        values = np.empty((len(inside[part]), causes, horizon))
        for d in range(causes):
            left = (cause[part] == d)[:, None] & (offset[part, None] <= months)
            values[:, d] = (left - cumulated[d][stratum[part]] - effect[d]) * counted[stratum[part]] / size
        flat = values.reshape(len(values), -1)
        influence += _by_cluster(at_risk.cluster[inside[part]], flat, len(influence)).reshape(influence.shape)
    reach = np.zeros(len(at_risk.person_ids), np.int64)
    np.maximum.at(reach, at_risk.person[inside], counted.sum(axis=1)[stratum])
    return observed, (reach[:, None] >= months).sum(axis=0)


def _by_cluster(cluster: Numbers, values: Array, clusters: int) -> Array:
    order = np.arange(len(cluster) + 1)
    return np.asarray(sparse.csr_matrix((np.ones(len(cluster)), cluster, order), (len(cluster), clusters)).T @ values)


def _blocks(at_risk: AtRisk, width: int) -> Iterator[tuple[slice, slice]]:
    """Whole strata of so many rows at once, and their spells."""
    most = max(1, CHUNK // width)
    low = 0
    while low < len(at_risk):
        place = int(np.searchsorted(at_risk.starts, low + most, side="right")) - 1
        high = int(at_risk.starts[place])
        if high <= low:
            high = int(at_risk.starts[place + 1])
        first, last = np.searchsorted(at_risk.row, [low, high])
        yield slice(low, high), slice(int(first), int(last))
        low = high
