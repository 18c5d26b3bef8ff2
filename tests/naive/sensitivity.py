"""Balance and sensitivity written out: every treatment assignment, every hidden confounder, every row in a loop."""

from itertools import product
from math import sqrt


def weighted_share(values, weights, at):
    return sum(w for v, w in zip(values, weights, strict=True) if v <= at) / sum(weights)


def balance(column, binary, treated, weight, base, target):
    """Statistics of one covariate under weights: differences, variances, distances."""
    sides = []
    for w in (base, weight):
        arms = []
        for a in (True, False):
            x = [v for v, t in zip(column, treated, strict=True) if t == a]
            ww = [v for v, t in zip(w, treated, strict=True) if t == a]
            total = sum(ww)
            mean = sum(v * u for v, u in zip(x, ww, strict=True)) / total
            if binary:
                variance = mean * (1 - mean)
            else:
                square = sum((u / total) ** 2 for u in ww)
                variance = sum(u / total * (v - mean) ** 2 for v, u in zip(x, ww, strict=True)) / (1 - square)
            arms.append((mean, variance, x, ww))
        sides.append(arms)
    v1, v0 = sides[0][0][1], sides[0][1][1]
    scale = sqrt({"att": v1, "atc": v0}.get(target, (v1 + v0) / 2))
    made = []
    for (m1, s1, x1, w1), (m0, s0, x0, w0) in sides:
        if binary:
            distances = [abs(m1 - m0)]
        else:
            distances = [abs(weighted_share(x1, w1, at) - weighted_share(x0, w0, at)) for at in sorted(set(column))]
        made.append(((m1 - m0) / scale, s1 / s0, max(distances), sum(distances) / len(distances)))
    return made


def signed_rank(differences, gamma):
    """Smallest and largest P(T >= observed) over all signs, each positive with the same chance."""
    used = [d for d in differences if d != 0]
    size = [abs(d) for d in used]
    ranks = [(sum(s < v for s in size) + (sum(s == v for s in size) + 1) / 2) for v in size]
    seen = sum(r for r, d in zip(ranks, used, strict=True) if d > 0)
    made = []
    for p in (1 / (1 + gamma), gamma / (1 + gamma)):
        total = 0.0
        for signs in product((0, 1), repeat=len(used)):
            if sum(r for r, s in zip(ranks, signs, strict=True) if s) >= seen - 1e-9:
                k = sum(signs)
                total += p**k * (1 - p) ** (len(used) - k)
        made.append(total)
    return made


def treated_in_set(scores, hidden, gamma):
    """Mean and variance of the treated one's score when the odds are gamma^u, u in {0, 1} hidden."""
    odds = [gamma**u for u in hidden]
    whole = sum(odds)
    mean = sum(q * o for q, o in zip(scores, odds, strict=True)) / whole
    return mean, sum(q * q * o for q, o in zip(scores, odds, strict=True)) / whole - mean**2


def most_biased(scores, gamma):
    """The largest mean over every hidden confounder, and the largest variance among those."""
    made = [treated_in_set(scores, hidden, gamma) for hidden in product((0, 1), repeat=len(scores))]
    top = max(mean for mean, _ in made)
    return top, max(variance for mean, variance in made if mean > top - 1e-12)


def worst_tail(sets, gamma):
    """The largest P(at least as many treated with the event) over every hidden confounder, by enumeration.

    sets: (events of its members as 0 or 1, number of the treated one).
    """
    seen = sum(events[lone] for events, lone in sets)
    largest, smallest = 0.0, 1.0
    for hidden in product(*[list(product((0, 1), repeat=len(events))) for events, _ in sets]):
        total = 0.0
        for picked in product(*[range(len(events)) for events, _ in sets]):
            if sum(events[j] for (events, _), j in zip(sets, picked, strict=True)) >= seen:
                chance = 1.0
                for j, u in zip(picked, hidden, strict=True):
                    chance *= gamma ** u[j] / sum(gamma**v for v in u)
                total += chance
        largest, smallest = max(largest, total), min(smallest, total)
    return smallest, largest


def derivable(counts, marks, minimum):
    """For each small count the values it may have, over every table that fits what is shown, by enumeration."""
    hidden = [j for j, mark in enumerate(marks) if mark]
    rest = sum(counts[j] for j in hidden)
    shown = [c for c, mark in zip(counts, marks, strict=True) if not mark and c > 0]
    cap = min(shown) if shown else rest
    choices = [
        range(1, minimum) if marks[j] == "small" else [0, *range(minimum, max(cap, minimum) + 1)] for j in hidden
    ]
    values = {j: set() for j in hidden}
    for fill in product(*choices):
        if sum(fill) == rest:
            for j, value in zip(hidden, fill, strict=True):
                values[j].add(value)
    return {j: values[j] for j in hidden if marks[j] == "small"}
