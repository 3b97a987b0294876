"""The k nearest rows of every row, exactly, a leaf of the KD-tree at a time.

Distances are fast_hdbscan's, and do not depend on the tree. Where its choice among rows at the same distance matters, its
search is made again, for a row alone (`first_denser_neighbour`).
"""

from __future__ import annotations

import numpy as np

from gpuclust.algorithms.hdbscan.kd_tree import push, rdist, sort_heap, to_node
from gpuclust.algorithms.hdbscan.leaf_tiles import Leaves, open_node, to_box, to_rows
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.threads import in_threads

UNRESOLVED = -2


def nearest_rows(leaves: Leaves, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the n >= k rows for each of them, itself among them: rows, int32 (n, k), and squared distances,
    float32 (n, k), the nearest first. A row with k others at distance 0 may not be among its own.
    """
    n_rows = len(leaves.tree.data)
    neighbors = np.full((n_rows, k), -1, dtype=np.int32)
    squared = np.full((n_rows, k), np.inf, dtype=np.float32)

    def run(first: int, last: int) -> None:
        _search(*leaves.shape, *leaves.scratch(), neighbors, squared, first, last)

    in_threads(len(leaves.nodes), run)
    return neighbors, squared


def first_denser_neighbour(
    leaves: Leaves, neighbors: np.ndarray, squared: np.ndarray, core: np.ndarray, k: int
) -> np.ndarray:
    """For each row the first of its k nearest whose core distance is at most its own, int32 (n,); -1: there is none.

    `neighbors` and `squared` as `nearest_rows` gives them, with one more than k where there are more rows. Among rows at
    the same distance, itself too where others are at distance 0, it is the one that fast_hdbscan's search puts first.
    """
    picks = np.empty(len(core), dtype=np.int32)
    in_threads(len(core), lambda first, last: _pick(neighbors, squared, core, k, picks, first, last))
    order = leaves.tree.rows
    open_rows = order[picks[order] == UNRESOLVED]  # neighbours after each other, as they read the same leaves

    def run(first: int, last: int) -> None:
        heap = np.empty(k, np.float32), np.empty(k, np.int32)
        _resolve_tie(*leaves.shape, *leaves.scratch(), *heap, core, open_rows[first:last], picks)

    if len(open_rows):
        in_threads(len(open_rows), run)
    return picks


@compiled(fastmath=False)
def _search(  # type: ignore[no-untyped-def]
    data, rows, starts, ends, lower, upper, leaves, place, tiles, slack, out, reach, tops, nodes, bounds, neighbors, squared,
    first, last,
):  # fmt: skip
    for leaf in range(first, last):
        home = leaves[leaf]
        start, n_own = starts[home], ends[home] - starts[home]
        for r in range(n_own):
            tops[r] = np.inf
        worst = np.float32(np.inf)
        nodes[0], bounds[0] = 0, np.float32(0)
        nodes[1], bounds[1] = home, np.float32(0)  # first, and not again
        waiting, met_home = 2, False
        while waiting > 0:
            waiting -= 1
            node = nodes[waiting]
            if bounds[waiting] > worst * slack or (met_home and node == home):
                continue
            met_home = True
            if place[node] < 0:
                waiting = open_node(lower, upper, home, node, nodes, bounds, waiting)
                continue
            n_others = ends[node] - starts[node]
            to_box(tiles[leaf], lower[node], upper[node], reach)
            worst = np.float32(0)
            for r in range(n_own):
                limit = tops[r] * slack
                if reach[r] <= limit:
                    row = rows[start + r]
                    to_rows(tiles[place[node]], data[row], out)
                    near = np.int32(0)
                    for c in range(n_others):
                        near += np.int32(out[c] <= limit)
                    if near:
                        distances = squared[row]
                        for c in range(n_others):
                            if out[c] <= distances[0] * slack:
                                other = rows[starts[node] + c]
                                push(distances, neighbors[row], rdist(data[row], data[other]), np.int32(other))
                        tops[r] = distances[0]
                worst = max(worst, tops[r])
        for r in range(n_own):
            distances, found = squared[rows[start + r]], neighbors[rows[start + r]]
            sort_heap(distances, found)


@compiled(fastmath=False)
def _pick(neighbors, squared, core, k, picks, first, last):  # type: ignore[no-untyped-def]
    """The first no sparser; UNRESOLVED where rows at the same distance leave it so."""
    for i in range(first, last):
        tied = len(squared[i]) > k and squared[i, k] == squared[i, k - 1]  # with a row that is not among the k
        alike = k > 1 and squared[i, 1] == 0  # rows like this one: which of them comes first?
        picks[i] = UNRESOLVED if alike or tied else -1
        if alike:
            continue
        at = np.float32(-1)  # the distance of the pick
        for j in range(k):
            other = neighbors[i, j]
            if at >= 0 and squared[i, j] > at:
                break
            if other >= 0 and other != i and core[other] <= core[i]:
                picks[i] = UNRESOLVED if at >= 0 or (tied and squared[i, j] == squared[i, k - 1]) else other
                at = squared[i, j]


@compiled(fastmath=False)
def _resolve_tie(  # type: ignore[no-untyped-def]
    data, rows, starts, ends, lower, upper, leaves, place, tiles, slack, out, reach, tops, nodes, bounds, distances, found, core,
    open_rows, picks,
):  # fmt: skip
    """The same by fast_hdbscan's search: what it takes in which order, and so the order in which its heap ends."""
    for i in open_rows:
        point = data[i]
        for j in range(len(found)):
            distances[j], found[j] = np.inf, -1
        nodes[0], bounds[0] = 0, np.float32(0)
        waiting = 1
        while waiting > 0:
            waiting -= 1
            node = nodes[waiting]
            if bounds[waiting] > distances[0]:
                continue
            if place[node] >= 0:
                to_rows(tiles[place[node]], point, out)
                for c in range(ends[node] - starts[node]):
                    if out[c] <= distances[0] * slack:
                        other = rows[starts[node] + c]
                        push(distances, found, rdist(point, data[other]), np.int32(other))
                continue
            left, right = 2 * node + 1, 2 * node + 2
            to_left = to_node(lower[left], upper[left], point)
            to_right = to_node(lower[right], upper[right], point)
            near, far = (left, right) if to_left <= to_right else (right, left)
            nodes[waiting], bounds[waiting] = far, max(to_left, to_right)
            nodes[waiting + 1], bounds[waiting + 1] = near, min(to_left, to_right)
            waiting += 2
        sort_heap(distances, found)
        picks[i] = -1
        for j in range(len(found) - 1, 0, -1):
            if core[found[j]] <= core[i]:
                picks[i] = found[j]
