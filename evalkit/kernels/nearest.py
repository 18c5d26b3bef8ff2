"""Nearest neighbours on one score within strata, with replacement."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _mix(a, b):
    z = a ^ (b * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1))
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def nearest_with_replacement(score, key, person, first, last, pool_score, pool_key, pool_person, ratio, caliper, same):
    """For each treated row its ``ratio`` nearest pool rows on the score, nearest first.

    The pool is sorted by (stratum, score); treated row i may use pool rows first[i] .. last[i]-1. Distances that differ
    by ``same`` or less are equal: a year older and a year younger lie equally far but for the last bit of the
    arithmetic, which differs between machines. Ties are settled by the lowest hash of (treated key, pool key), so that
    they spread over the pool and never depend on row order. Caliper is inclusive. Nobody is matched to himself. Returns
    (n, ratio) pool positions, -1 where none is left.
    """
    n = score.shape[0]
    chosen = np.full((n, ratio), -1, np.int64)
    best_distance = np.empty(ratio, np.float64)
    best_hash = np.empty(ratio, np.uint64)
    for i in range(n):
        a, b = first[i], last[i]
        right = a + np.searchsorted(pool_score[a:b], score[i])
        left = right - 1
        found = 0
        while left >= a or right < b:
            near_left = score[i] - pool_score[left] if left >= a else np.inf
            near_right = pool_score[right] - score[i] if right < b else np.inf
            if near_left <= near_right:
                distance = near_left
                j = left
                left -= 1
            else:
                distance = near_right
                j = right
                right += 1
            if distance > caliper + same or (found == ratio and distance > best_distance[found - 1] + same):
                break
            if pool_person[j] == person[i]:
                continue
            h = _mix(key[i], pool_key[j])
            if found == ratio:
                if distance >= best_distance[found - 1] - same and h >= best_hash[found - 1]:
                    continue
                found -= 1
            at = found
            while at > 0 and (
                best_distance[at - 1] > distance + same
                or (best_distance[at - 1] >= distance - same and best_hash[at - 1] > h)
            ):
                best_distance[at] = best_distance[at - 1]
                best_hash[at] = best_hash[at - 1]
                chosen[i, at] = chosen[i, at - 1]
                at -= 1
            best_distance[at] = distance
            best_hash[at] = h
            chosen[i, at] = j
            found += 1
        for at in range(found, ratio):
            chosen[i, at] = -1
    return chosen
