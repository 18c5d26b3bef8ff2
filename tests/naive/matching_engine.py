"""Matching of every kind written out: loops over everybody, all subsets where a best one is sought."""

import itertools
import math

from naive.keyed import mix

SAME = 1e-9


def squared(a, b):
    total = 0.0
    for x, z in zip(a, b, strict=True):
        total += (x - z) * (x - z)
    return total


def allowed(u, i, j, same):
    if u["stratum"][i] != u["stratum"][j] or u["person"][i] == u["person"][j]:
        return False
    if abs(u["score"][i] - u["score"][j]) > u["reach"] + same:
        return False
    if any(a == b for a, b in zip(u["anti"][i], u["anti"][j], strict=True)):
        return False
    for width, slack, a, b in zip(u["widths"], u["slack"], u["columns"][i], u["columns"][j], strict=True):
        if width >= 0 and abs(a - b) > width + (slack if same else 0.0):
            return False
        if width < 0 and abs(a - b) <= -width + (slack if same else 0.0):
            return False
    return True


def walk_place(u, i, j, line):
    """When a walk from i reaches j: among all rows of the stratum in the order of the first coordinate."""
    first = [c[0] for c in u["coords"]] if u["coords"] else [0.0] * len(u["score"])
    rows = [r for r in range(len(first)) if u["stratum"][r] == u["stratum"][i] and (u["focal"][r] or u["pool"][r])]
    rows.sort(key=lambda r: (first[r], r))
    if line:
        step = rows.index(j) - rows.index(i)
        return (abs(step), step > 0)
    behind = sum(first[r] <= first[i] for r in rows)
    step = rows.index(j) - behind
    return (0, step) if step >= 0 else (1, -step)


def greedy(u, *, numbers, replace, order, tie, matrix=None):
    """Matches by focal row, nearest first. ``u``: plain lists by row; ``matrix``: distance of (focal, pool) rows."""
    line = matrix is not None or len(u["coords"][0]) == 1 and [c[0] for c in u["coords"]] == list(u["score"])
    same = 0.0 if tie == "walk" else SAME * u["spread"]

    def between(i, j):
        if matrix is not None:
            return matrix[i][j]
        if line:
            return abs(u["coords"][i][0] - u["coords"][j][0])
        return squared(u["coords"][i], u["coords"][j]) ** 0.5

    def rank(i, j):
        return mix(int(u["key"][i]), int(u["key"][j])) if tie == "hash" else walk_place(u, i, j, line)

    focal = [i for i in range(len(u["focal"])) if u["focal"][i]]
    second = {i: i if tie == "walk" else int(u["key"][i]) for i in focal}
    if order == "random":
        focal.sort(key=lambda i: int(u["key"][i]))
    elif order == "closest":
        focal.sort(key=lambda i: second[i])
    elif order != "data":
        sign = -1 if order == "largest" else 1
        focal.sort(key=lambda i: (sign * u["score"][i], second[i]))
    matches = {i: [] for i in focal}
    used = set()

    def best(i):
        far = float("inf")
        near = [
            (between(i, j), j)
            for j in range(len(u["pool"]))
            if u["pool"][j] and j not in used and j not in matches[i] and allowed(u, i, j, same)
        ]
        near = [(d, j) for d, j in near if d <= u["limit"] + same and d < far]
        if not near:
            return None
        least = min(d for d, _ in near)
        choice = min((rank(i, j), j) for d, j in near if d <= least + same)
        return least, choice[0], focal.index(i), choice[1]

    for turn in range(max(numbers.values())):
        waiting = [i for i in focal if numbers[i] > turn and len(matches[i]) == turn]
        while waiting:
            if order == "closest" and not replace:
                found = [(b, i) for i in waiting if (b := best(i)) is not None]
                if not found:
                    break
                choice, i = min(found)
            else:
                i = waiting[0]
                choice = best(i)
            waiting.remove(i)
            if choice is not None:
                matches[i].append(choice[3])
                if not replace:
                    used.add(choice[3])
    return matches


def everyone_as_near(u, *, ratio, tolerance):
    """All pool rows whose squared distance is at most that of the ratio-th nearest plus the tolerance."""
    matches = {}
    for i in range(len(u["focal"])):
        if not u["focal"][i]:
            continue
        near = [
            (squared(u["coords"][i], u["coords"][j]), j)
            for j in range(len(u["pool"]))
            if u["pool"][j] and allowed(u, i, j, SAME)
        ]
        limit = sorted(near)[min(ratio, len(near)) - 1][0] + tolerance if near else 0.0
        matches[i] = sorted(j for d, j in near if d <= limit)
    return matches


def least_total(distance, ratio=1):
    """(slots filled, rows with a match, least total distance) of the best assignment, all tried one by one."""
    n1 = len(distance)
    n0 = len(distance[0])
    slots = [i for i in range(n1) for _ in range(ratio)]
    best = None
    for choice in itertools.product([None, *range(n0)], repeat=len(slots)):
        taken = [c for c in choice if c is not None]
        if len(taken) != len(set(taken)):
            continue
        pairs = [(i, c) for i, c in zip(slots, choice, strict=True) if c is not None]
        if any(distance[i][c] == float("inf") for i, c in pairs):
            continue
        value = (-len(pairs), -len({i for i, _ in pairs}), sum(distance[i][c] for i, c in pairs))
        if best is None or value < best:
            best = value
    return best


def least_full(distance, fewest=None, most=None):
    """Least total distance over all ways to put everybody in a star, tried as sets of edges one by one."""
    n1, n0 = len(distance), len(distance[0])
    edges = [(i, j) for i in range(n1) for j in range(n0) if distance[i][j] < float("inf")]
    ones, others = {i for i, _ in edges}, {j for _, j in edges}
    best = float("inf")
    for size in range(max(len(ones), len(others)), len(ones) + len(others)):
        for some in itertools.combinations(edges, size):
            if {i for i, _ in some} != ones or {j for _, j in some} != others:
                continue
            one = {i: sum(a == i for a, _ in some) for i in ones}
            other = {j: sum(b == j for _, b in some) for j in others}
            if any(one[i] > 1 and other[j] > 1 for i, j in some):
                continue
            numbers = [one[i] / max(other[j] for a, j in some if a == i) for i in ones]
            if fewest is not None and min(numbers) < fewest - 1e-9:
                continue
            if most is not None and max(numbers) > most + 1e-9:
                continue
            best = min(best, sum(distance[i][j] for i, j in some))
    return best


def height(kernel, u):
    a = abs(u)
    if kernel == "gaussian":
        return math.exp(-u * u / 2) / math.sqrt(2 * math.pi) if a <= 6 else 0.0
    if a > 1:
        return 0.0
    return {
        "epanechnikov": 3 / 4 * (1 - u**2),
        "uniform": 1 / 2,
        "triangular": 1 - a,
        "biweight": 15 / 16 * (1 - u**2) ** 2,
        "triweight": 35 / 32 * (1 - u**2) ** 3,
        "tricube": 70 / 81 * (1 - a**3) ** 3,
        "cosine": math.pi / 4 * math.cos(math.pi / 2 * u),
    }[kernel]


def smooth(treated, score, target, kernel, width, ridge, stratum, person):
    """Summed weights of every row, and the focal rows nobody is near to."""
    n = len(score)
    weight, outside = [0.0] * n, []
    for i in range(n):
        if target == "att" and not treated[i] or target == "atc" and treated[i]:
            continue
        near = {
            j: k
            for j in range(n)
            if treated[j] != treated[i] and stratum[j] == stratum[i] and person[j] != person[i]
            if (k := height(kernel, (score[j] - score[i]) / width)) > 0
        }
        if not near:
            outside.append(i)
            continue
        weight[i] += 1.0
        mass = sum(near.values())
        for j, k in near.items():
            weight[j] += k / mass
        if ridge is None:
            continue
        centre = sum(k * score[j] for j, k in near.items()) / mass
        spread = (
            sum(k * (score[j] - centre) ** 2 for j, k in near.items()) if len({score[j] for j in near}) > 1 else 0.0
        )
        bottom = spread + ridge * width * abs(score[i] - centre)
        for j, k in near.items():
            if bottom > 0:
                weight[j] += k * (score[j] - centre) * (score[i] - centre) / bottom
    return weight, outside
