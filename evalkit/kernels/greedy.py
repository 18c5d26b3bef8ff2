"""Greedy nearest-neighbour matching on a line, in a space, or on given distances.

Units stand in the order (stratum, axis, row); every array below is in that order and units are named by their place in
it. ``focal`` units are matched, the others are the pool. Which pool unit j a focal unit i may have is decided by
``_allowed``; which of the allowed it gets: the nearest, and among those that lie as near (within ``same``) the one with
the lowest ``_rank``. That is all there is to the rule; the structures only make the search fast.
"""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit

LINE, SPACE, MATRIX = 0, 1, 2
HASH, WALK = 0, 1
LEAF = 12


@njit(cache=True)
def _mix(a, b):
    z = a ^ (b * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1))
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def _allowed(i, j, person, anti, columns, widths, slack, score, reach, same):
    """Not the same person, different on every anti-exact column, inside every caliper."""
    if person[i] == person[j] or abs(score[i] - score[j]) > reach + same:
        return False
    for a in range(anti.shape[1]):
        if anti[i, a] == anti[j, a]:
            return False
    for c in range(columns.shape[1]):
        gap = abs(columns[i, c] - columns[j, c])
        if widths[c] >= 0:
            if gap > widths[c] + slack[c]:
                return False
        elif gap <= -widths[c] + slack[c]:
            return False
    return True


@njit(cache=True)
def _rank(i, j, tie, mode, key, above):
    """What settles a tie: the hash of the pair, or how soon a walk from i reaches j.

    On a line the walk leaves from i itself and looks left and right in turn, left first. In a space it leaves from
    behind the last unit with i's first coordinate (``above``) and the right comes first.
    """
    if tie == HASH:
        return _mix(key[i], key[j])
    if mode == SPACE:
        return np.uint64(j - above[i]) if j >= above[i] else np.uint64(1 << 62) + np.uint64(above[i] - j)
    return np.uint64(2 * (i - j) - 1) if j < i else np.uint64(2 * (j - i))


@njit(cache=True)
def _find(parent, a):
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@njit(cache=True)
def grow(coords, score, pool, first, last):
    """One k-d tree a stratum over the pool: split at the median of the widest coordinate down to LEAF units.

    Returns the pool in tree order, the nodes (start, end, left child, parent; -1 where there is none; the right child
    follows the left one), boxes (low, high) over coordinates and score, and the leaf of every unit.
    """
    n, d = coords.shape
    size = 1
    for s in range(first.shape[0]):
        size += 2 * ((2 * (last[s] - first[s])) // LEAF + 1) + 1
    start = np.zeros(size, np.int64)
    end = np.zeros(size, np.int64)
    child = np.full(size, -1, np.int64)
    parent = np.full(size, -1, np.int64)
    low = np.zeros((size, d + 1))
    high = np.zeros((size, d + 1))
    leaf = np.full(n, -1, np.int64)
    order = pool.copy()
    used = first.shape[0]
    stack = np.empty(size, np.int64)
    for s in range(first.shape[0]):
        start[s], end[s] = first[s], last[s]
        top = 0
        stack[0] = s
        while top >= 0:
            node = stack[top]
            top -= 1
            a, b = start[node], end[node]
            if a == b:
                continue
            widest, width = 0, -1.0
            for k in range(d + 1):
                lo, hi = np.inf, -np.inf
                for m in range(a, b):
                    v = coords[order[m], k] if k < d else score[order[m]]
                    lo = min(lo, v)
                    hi = max(hi, v)
                low[node, k], high[node, k] = lo, hi
                if k < d and hi - lo > width:
                    widest, width = k, hi - lo
            if b - a <= LEAF:
                for m in range(a, b):
                    leaf[order[m]] = node
                continue
            part = order[a:b].copy()
            order[a:b] = part[np.argsort(coords[part, widest], kind="mergesort")]
            middle = (a + b) // 2
            child[node] = used
            start[used], end[used], parent[used] = a, middle, node
            start[used + 1], end[used + 1], parent[used + 1] = middle, b, node
            stack[top + 1], stack[top + 2] = used, used + 1
            top += 2
            used += 2
    return order, start[:used], end[:used], child[:used], parent[:used], low[:used], high[:used], leaf


@njit(cache=True)
def _bound(i, node, coords, score, reach, low, high):
    """Least squared distance from i to the node's box, infinite where the score's caliper excludes the box."""
    d = coords.shape[1]
    if low[node, d] - score[i] > reach or score[i] - high[node, d] > reach:
        return np.inf
    total = 0.0
    for k in range(d):
        v = coords[i, k]
        gap = low[node, k] - v if v < low[node, k] else (v - high[node, k] if v > high[node, k] else 0.0)
        total += gap * gap
    return total


@njit(cache=True)
def _apart(i, j, coords, most):
    """Squared distance, or anything above ``most`` once it is known to exceed that."""
    total = 0.0
    for k in range(coords.shape[1]):
        gap = coords[i, k] - coords[j, k]
        total += gap * gap
        if total > most:
            break
    return total


@njit(cache=True)
def _taken(chosen, row, number, j):
    for m in range(number):
        if chosen[row, m] == j:
            return True
    return False


@njit(cache=True)
def _search_line(i, lo, hi, row, number, chosen, before, after, rules, axis, tie, key, above, reach, same):
    """Nearest allowed pool unit on the line: (least distance, rank, unit), unit -1 for none."""
    person, anti, columns, widths, slack, score, _ = rules
    left = _find(before, i) - 1
    right = _find(after, i + 1)
    best, best_rank, unit = np.inf, np.uint64(0), -1
    while True:
        near_left = axis[i] - axis[left] if left >= lo else np.inf
        near_right = axis[right] - axis[i] if right < hi else np.inf
        if left < lo and right >= hi:
            break
        if near_left <= near_right:
            distance, j = near_left, left
            left = _find(before, left) - 1
        else:
            distance, j = near_right, right
            right = _find(after, right + 1)
        if distance > reach + same or distance > best + same:
            break
        if _taken(chosen, row, number, j) or not _allowed(
            i, j, person, anti, columns, widths, slack, score, np.inf, 0.0
        ):
            continue
        rank = _rank(i, j, tie, LINE, key, above)
        if unit < 0:
            best = distance
        if unit < 0 or rank < best_rank:
            best_rank, unit = rank, j
        if tie == WALK:  # no later one on this side is reached sooner
            if j < i:
                left = lo - 1
            else:
                right = hi
    return best, best_rank, unit


@njit(cache=True)
def _search_space(i, root, row, number, chosen, free, tree, count, rules, coords, tie, key, above, limit, same, stack):
    """As ``_search_line`` in a space: first the least distance, then the best rank among all that lie as near."""
    order, start, end, child, _, low, high, _ = tree
    person, anti, columns, widths, slack, score, reach = rules
    most = (limit + same) ** 2
    least = np.inf
    best_rank, unit = np.uint64(0), -1
    for again in range(2):
        if again == 1:
            if least == np.inf:
                break
            most = least if same == 0.0 else (np.sqrt(least) + same) ** 2
        top = 0
        stack[0] = root
        while top >= 0:
            node = stack[top]
            top -= 1
            if count[node] == 0 or _bound(i, node, coords, score, reach + same, low, high) > most:
                continue
            if child[node] >= 0:
                one, two = child[node], child[node] + 1
                if _bound(i, one, coords, score, reach + same, low, high) <= _bound(
                    i, two, coords, score, reach + same, low, high
                ):
                    one, two = two, one
                stack[top + 1], stack[top + 2] = one, two
                top += 2
                continue
            for m in range(start[node], end[node]):
                j = order[m]
                if not free[j]:
                    continue
                squared = _apart(i, j, coords, most)
                if squared > most or _taken(chosen, row, number, j):
                    continue
                if not _allowed(i, j, person, anti, columns, widths, slack, score, reach, same):
                    continue
                if again == 0:
                    if squared < least:
                        least = most = squared
                else:
                    rank = _rank(i, j, tie, SPACE, key, above)
                    if unit < 0 or rank < best_rank:
                        best_rank, unit = rank, j
    return np.sqrt(least), best_rank, unit


@njit(cache=True)
def _search_matrix(i, lo, hi, row, number, chosen, free, rules, matrix, column, tie, key, above, limit, same):
    """As ``_search_line`` on given distances; a distance that is not finite excludes the pair."""
    person, anti, columns, widths, slack, score, reach = rules
    best, best_rank, unit = np.inf, np.uint64(0), -1
    for again in range(2):
        for j in range(lo, hi):
            if not free[j]:
                continue
            distance = matrix[column[i], column[j]]
            if not distance <= (limit if again == 0 else best) + same or distance == np.inf:
                continue
            if (again == 0 and distance >= best) or _taken(chosen, row, number, j):
                continue
            if not _allowed(i, j, person, anti, columns, widths, slack, score, reach, same):
                continue
            if again == 0:
                best = distance
            else:
                rank = _rank(i, j, tie, LINE, key, above)
                if unit < 0 or rank < best_rank:
                    best_rank, unit = rank, j
        if best == np.inf:
            break
    return best, best_rank, unit


@njit(cache=True)
def greedy(
    mode, queue, wanted, closest, replace, focal, stratum, lows, highs, axis, coords, matrix, column, tree, person,
    anti, columns, widths, slack, score, reach, limit, tie, key, above, same,
):  # fmt: skip
    """Match the focal units of ``queue`` (m,), each with up to ``wanted`` (m,) pool units, round by round.

    Every focal unit gets its first match before any gets a second. ``closest``: within a round the pair that lies
    nearest comes first. Returns (m, max wanted) units, -1 for none.
    """
    n, m = focal.shape[0], queue.shape[0]
    most = wanted.max() if m else 0
    chosen = np.full((m, most), -1, np.int64)
    number = np.zeros(m, np.int64)
    free = ~focal
    rules = (person, anti, columns, widths, slack, score, reach)
    before = np.arange(n + 1)  # place + 1 of the nearest free unit at or left of it; 0 for none
    after = np.arange(n + 1)
    if mode == LINE:
        for p in range(n):
            if focal[p]:
                before[p + 1] = p
                after[p] = p + 1
    order, start, end, child, parent, _, _, leaf = tree
    count = end - start
    stack = np.empty(max(1, start.shape[0]), np.int64)
    done = np.zeros(m, np.bool_)
    for turn in range(most):
        heap = [(0.0, np.uint64(0), np.int64(-1), np.int64(-1))]
        heap.pop()
        at = 0
        while True:
            pair_known = False
            if at < m:
                row = at
                at += 1
                if done[row] or wanted[row] <= turn:
                    continue
            else:
                if not closest or len(heap) == 0:
                    break
                _, _, row, j = heapq.heappop(heap)
                pair_known = free[j]
            i = queue[row]
            if not pair_known:
                s = stratum[i]
                if mode == LINE:
                    distance, rank, j = _search_line(
                        i, lows[s], highs[s], row, number[row], chosen, before, after, rules, axis, tie, key, above,
                        reach, same,
                    )  # fmt: skip
                elif mode == SPACE:
                    distance, rank, j = _search_space(
                        i, s, row, number[row], chosen, free, tree, count, rules, coords, tie, key, above, limit, same,
                        stack,
                    )  # fmt: skip
                else:
                    distance, rank, j = _search_matrix(
                        i, lows[s], highs[s], row, number[row], chosen, free, rules, matrix, column, tie, key, above,
                        limit, same,
                    )  # fmt: skip
                if j < 0:
                    done[row] = True
                    continue
                if closest and not replace:
                    heapq.heappush(heap, (distance, rank, np.int64(row), np.int64(j)))
                    continue
            chosen[row, number[row]] = j
            number[row] += 1
            if not replace:
                free[j] = False
                before[j + 1] = j
                after[j] = j + 1
                if mode == SPACE:
                    node = leaf[j]
                    while node >= 0:
                        count[node] -= 1
                        node = parent[node]
    return chosen


@njit(cache=True)
def all_nearest(queue, ratio, stratum, coords, tree, person, anti, columns, widths, slack, score, reach, limit, spread):
    """Every pool unit whose squared distance is at most that of the ratio-th nearest plus ``spread``.

    Returns offsets (m + 1,) and the units one focal unit after another.
    """
    order, start, end, child, _, low, high, _ = tree
    m = queue.shape[0]
    offsets = np.zeros(m + 1, np.int64)
    found = np.empty(max(1, m * ratio), np.int64)
    stack = np.empty(max(1, start.shape[0]), np.int64)
    nearest = np.empty(ratio)
    for row in range(m):
        i = queue[row]
        nearest[:] = np.inf
        total = offsets[row]
        for again in range(2):
            most = limit * limit if again == 0 else min(nearest[ratio - 1] + spread, limit * limit)
            top = 0
            stack[0] = stratum[i]
            while top >= 0:
                node = stack[top]
                top -= 1
                if end[node] == start[node] or _bound(i, node, coords, score, reach, low, high) > most:
                    continue
                if child[node] >= 0:
                    one, two = child[node], child[node] + 1
                    if _bound(i, one, coords, score, reach, low, high) <= _bound(
                        i, two, coords, score, reach, low, high
                    ):
                        one, two = two, one
                    stack[top + 1], stack[top + 2] = one, two
                    top += 2
                    continue
                for p in range(start[node], end[node]):
                    j = order[p]
                    squared = _apart(i, j, coords, most)
                    if squared > most or not _allowed(i, j, person, anti, columns, widths, slack, score, reach, 0.0):
                        continue
                    if again == 0:
                        k = ratio - 1
                        if squared >= nearest[k]:
                            continue
                        while k > 0 and nearest[k - 1] > squared:
                            nearest[k] = nearest[k - 1]
                            k -= 1
                        nearest[k] = squared
                        most = min(most, nearest[ratio - 1])
                    else:
                        if total == found.shape[0]:
                            more = np.empty(2 * total, np.int64)
                            more[:total] = found
                            found = more
                        found[total] = j
                        total += 1
        offsets[row + 1] = total
    return offsets, found[: offsets[m]]
