"""Matching written out: a loop over starters, a loop over everyone else, a loop over months."""

import numpy as np
from naive.keyed import mix


def nearest(treated, person, key, stratum, score, ratio, reach):
    """(starter, comparison, weight) a pair, and the starters without any."""
    pairs, outside = [], []
    for i in range(len(score)):
        if not treated[i]:
            continue
        near = []
        for j in range(len(score)):
            if treated[j] or person[j] == person[i] or stratum[j] != stratum[i]:
                continue
            distance = round(abs(score[i] - score[j]), 10)  # a year older lies as far as a year younger
            if distance <= reach:
                near.append((distance, mix(int(key[i]), int(key[j])), j))
        near = sorted(near)[:ratio]
        pairs += [(i, j, 1.0 / len(near)) for _, _, j in near]
        if not near:
            outside.append(i)
    return pairs, outside


def corrected_effect(treated, control, weight, y, observed, x, person, cluster):
    """Bias-corrected effect by month: estimate, counterfactual, persons in both arms, influence by cluster."""
    months = y.shape[1]
    ids = sorted(set(cluster))
    estimate, counterfactual = [float("nan")] * months, [float("nan")] * months
    n_treated, n_comparison = [0] * months, [0] * months
    influence = np.zeros((len(ids), months))
    for k in range(months):
        matches = {}
        for i, j, w in zip(treated, control, weight, strict=True):
            if observed[i, k] and observed[j, k]:
                matches.setdefault(i, []).append((j, w))
        n1 = len(matches)
        uses = {}
        for found in matches.values():
            total = sum(w for _, w in found)
            for j, w in found:
                uses[j] = uses.get(j, 0.0) + w / total
        n_treated[k] = len({person[i] for i in matches})
        n_comparison[k] = len({person[j] for j in uses})
        if n1 < 2:
            continue
        columns = min(x.shape[1], max(1, len(uses) // 5))
        rows = sorted(uses)
        root = np.array([uses[j] ** 0.5 for j in rows])
        a = x[rows, :columns] * root[:, None]
        beta = np.linalg.lstsq(a, y[rows, k] * root, rcond=None)[0]
        hat = np.diag(a @ np.linalg.pinv(a.T @ a) @ a.T)
        residual = {r: y[r, k] - x[r, :columns] @ beta for r in [*matches, *uses]}
        total = 0.0
        for i, found in matches.items():
            share = sum(w for _, w in found)
            total += residual[i] - sum(w / share * residual[j] for j, w in found)
        tau = total / n1
        estimate[k] = tau
        counterfactual[k] = sum(y[i, k] for i in matches) / n1 - tau
        for i in matches:
            influence[ids.index(cluster[i]), k] += (residual[i] - tau) / (1 - 1 / n1) ** 0.5 / n1
        for j, leverage in zip(rows, hat, strict=True):
            share = uses[j] * residual[j] / max(1 - leverage, 0.1) ** 0.5
            influence[ids.index(cluster[j]), k] -= share / n1
    return estimate, counterfactual, n_treated, n_comparison, influence
