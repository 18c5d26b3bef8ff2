"""Imputation in loops and dense matrices: dummies for every unit and period, weights and variance by definition."""

import numpy as np

NEVER = 2**40


def dummies(level, time, x):
    """Dense columns: one a level, one a period but the first, the covariates."""
    levels, times = sorted(set(level)), sorted(set(time))
    rows = []
    for i in range(len(level)):
        row = [float(level[i] == a) for a in levels] + [float(time[i] == t) for t in times[1:]]
        rows.append(row + list(x[i]))
    return np.array(rows)


def imputation(level, time, y, first, weight, x, cluster, wanted, group, *, anticipation=0, leave_out=False):
    """Estimate and influence by cluster (dict) of the weighted mean effect over treated rows with ``wanted``.

    All arguments hold one value a row; ``group``: the label of a treated row's group for recentring.
    """
    n = len(y)
    z = dummies(level, time, x)
    treated = [time[i] >= first[i] - anticipation for i in range(n)]
    zero = [i for i in range(n) if not treated[i]]
    one = [i for i in range(n) if treated[i] and wanted[i]]
    omega = np.diag([weight[i] for i in zero])
    z0, z1 = z[zero], z[one]
    inverse = np.linalg.pinv(z0.T @ omega @ z0)
    beta = inverse @ z0.T @ omega @ np.array([y[i] for i in zero])
    total = sum(weight[i] for i in one)
    w = np.array([weight[i] / total for i in one])
    tau = np.array([y[i] for i in one]) - z1 @ beta
    v0 = -omega @ z0 @ inverse @ z1.T @ w
    influence = dict.fromkeys(sorted(set(cluster)), 0.0)
    for v, i in zip(v0, zero, strict=True):
        influence[cluster[i]] += v * (y[i] - z[i] @ beta)
    sums = {}
    for k, i in enumerate(one):
        held = sums.setdefault(group[i], {}).setdefault(cluster[i], [0.0, 0.0])
        held[0] += w[k]
        held[1] += w[k] * tau[k]
    for members in sums.values():
        for c, (weight_c, product) in members.items():
            others = [m for name, m in members.items() if not leave_out or name != c]
            mean = sum(a * b for a, b in others) / sum(a * a for a, _ in others)
            influence[c] += product - weight_c * mean
    return float(w @ tau), influence, v0, zero


def pretrend(level, time, y, first, weight, x, cluster, leads, anticipation=0):
    """Coefficients of event times ``leads`` on untreated rows, and their influence by cluster (dicts)."""
    n = len(y)
    zero = [i for i in range(n) if time[i] < first[i] - anticipation]
    take = lambda values: [values[i] for i in zero]  # noqa: E731
    z = dummies(take(level), take(time), take(x))
    columns = np.array([[float(time[i] - first[i] == e) for e in leads] for i in zero])
    z = np.hstack([z, columns])
    omega = np.diag(take(weight))
    inverse = np.linalg.pinv(z.T @ omega @ z)
    beta = inverse @ z.T @ omega @ np.array(take(y))
    influence = {c: np.zeros(len(leads)) for c in sorted(set(cluster))}
    for k, i in enumerate(zero):
        influence[cluster[i]] += (inverse @ z[k])[-len(leads) :] * weight[i] * (y[i] - z[k] @ beta)
    return beta[-len(leads) :], influence
