"""Few clusters in plain loops: the bootstrap that fits again in every draw, permutations one by one."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np


def clustered(
    x: np.ndarray, y: np.ndarray, cluster: np.ndarray, r: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
    """r'b of weighted least squares and its clustered error without the factor."""
    root = np.sqrt(weight)
    beta = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
    bread = np.linalg.inv((x * weight[:, None]).T @ x)
    meat = np.zeros_like(bread)
    for g in np.unique(cluster):
        rows = cluster == g
        score = (x[rows] * weight[rows, None]).T @ (y[rows] - x[rows] @ beta)
        meat += np.outer(score, score)
    return float(r @ beta), float(np.sqrt(r @ bread @ meat @ bread @ r))


def wild_statistics(
    x: np.ndarray, y: np.ndarray, cluster: np.ndarray, r: np.ndarray, null: float, impose: bool, draws: np.ndarray,
    weight: np.ndarray | None = None,
) -> tuple[float, list[float]]:  # fmt: skip
    """t of r'b = null, and t of every draw (a row of weights by cluster in sorted order), each fitted again."""
    weight = np.ones(len(y)) if weight is None else weight
    root = np.sqrt(weight)
    beta = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
    if impose:  # least squares under r'b = null
        inverse = np.linalg.inv((x * weight[:, None]).T @ x)
        start = beta - inverse @ r * (r @ beta - null) / (r @ inverse @ r)
        centre = null
    else:
        start, centre = beta, float(r @ beta)
    residual = y - x @ start
    estimate, error = clustered(x, y, cluster, r, weight)
    _, code = np.unique(cluster, return_inverse=True)
    out = []
    for v in draws:
        again = x @ start + v[code] * residual
        b, e = clustered(x, again, cluster, r, weight)
        out.append((b - centre) / e)
    return (estimate - null) / error, out


def two_way_columns(unit: np.ndarray, time: np.ndarray, treated: np.ndarray) -> np.ndarray:
    """Treatment, and dummies of all units and of all periods but one."""
    units, times = np.unique(unit), np.unique(time)
    return np.column_stack([treated, *(unit == u for u in units), *(time == t for t in times[1:])]).astype(float)


def score_statistics(psi: np.ndarray, draws: np.ndarray, block: np.ndarray) -> list[float]:
    """The score bootstrap of one effect."""
    clusters = len(psi)
    out = []
    for v in draws:
        moved = [v[g] * psi[g] for g in range(clusters)]
        squares = 0.0
        for g in range(clusters):
            same = [moved[h] for h in range(clusters) if block[h] == block[g]]
            squares += (moved[g] - sum(same) / len(same)) ** 2
        out.append(sum(moved) / np.sqrt(clusters / (clusters - 1) * squares))
    return out


def contrast(y: np.ndarray, begin: int, event: int | None) -> np.ndarray:
    """(N,) mean since ``begin`` (or at one event time) less the mean before; y (N, T), periods 0..T-1."""
    before = y[:, :begin].mean(axis=1)
    return y[:, begin:].mean(axis=1) - before if event is None else y[:, begin + event] - before


def permuted(y: np.ndarray, begin: dict[int, int], effect: float, event: int | None = None) -> tuple[float, float]:
    """Estimate less ``effect``, and the p-value of all stand-ins; ``begin``: first treated period of a cluster."""
    treated = sorted(begin)
    if event is not None:
        treated = [j for j in treated if 0 <= begin[j] + event < y.shape[1]]
    never = [i for i in range(len(y)) if i not in begin]
    found = []
    for row in permutations([*treated, *never], len(treated)):
        if any(i not in never and begin[i] != begin[j] for i, j in zip(row, treated, strict=True)):
            continue
        total = 0.0
        for i, j in zip(row, treated, strict=True):
            z = contrast(y, begin[j], event)
            for k in treated:
                if begin[k] == begin[j]:
                    z[k] -= effect
            left = [k for k in [*never, *(m for m in treated if begin[m] == begin[j])] if k not in row]
            total += (z[i] - np.mean([z[k] for k in left])) / len(treated)
        found.append((list(row) == treated, total))
    observed = next(value for own, value in found if own)
    return observed, float(np.mean([abs(value) >= abs(observed) - 1e-10 for _, value in found]))


def assign(first: np.ndarray, statistic: callable) -> float:
    """p-value of all different assignments of ``first``; ``statistic`` maps an assignment to a number."""
    different = sorted(set(permutations(first.tolist())))
    observed = abs(statistic(first))
    return float(np.mean([abs(statistic(np.array(one))) >= observed - 1e-10 for one in different]))


def all_signs(clusters: int) -> np.ndarray:
    return np.array(list(product([-1.0, 1.0], repeat=clusters)))


def mean_and_line(
    z: np.ndarray, inverse: np.ndarray, use: np.ndarray, turns: int, line: callable
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weighted mean of the rows used (0 or 1), its variance, and a, b; all (L,)."""
    scale = z.var(axis=1)[:, None] + 1e-300
    variance = np.broadcast_to(scale, z.shape)
    for _ in range(turns):
        w = use * (scale / variance)
        total = w.sum(axis=1)
        mean = (w * z).sum(axis=1) / total
        squares = (z - mean[:, None]) ** 2 / np.maximum(1 - w / total[:, None], 0.05)
        a, b = line(squares, inverse, w * (scale / variance))
        variance = np.maximum(a[:, None] + b[:, None] * inverse, 1e-9 * scale)
    return mean, 1 / (use / variance).sum(axis=1), a, b
