"""The k nearest rows of every row, exactly, one leaf of the KD-tree at a time.

Distances are those of fast_hdbscan and do not depend on the tree. Where its choice among rows at the same distance matters,
its search is repeated for a single row (`first_denser_neighbour`).
"""

from __future__ import annotations

import numpy as np

from gpuclust.algorithms.hdbscan.kd_tree import push, rdist, sort_heap, to_node
from gpuclust.algorithms.hdbscan.leaf_tiles import LeafTiles, push_children, to_box, to_rows
from gpuclust.runtime.backend import Progress
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.threads import in_threads

PARTS = 50  # of the search, for smooth progress
UNRESOLVED = -2  # in place of a row: rows at the same distance leave the choice open


def nearest_rows(leaves: LeafTiles, k: int, progress: Progress = lambda _: None) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of n >= k rows for each row, itself included: row numbers, int32 (n, k), and squared distances,
    float32 (n, k), nearest first; ``progress`` receives the fraction done. A row with k others at distance 0 may be missing from its own list.
    """
    n_rows = len(leaves.tree.data)
    neighbors = np.full((n_rows, k), -1, dtype=np.int32)
    squared = np.full((n_rows, k), np.inf, dtype=np.float32)

    def run(first: int, last: int) -> None:
        _search(leaves, leaves.workspace(), neighbors, squared, first, last)

    n_leaves = len(leaves.nodes)
    in_threads(n_leaves, run, n_parts=PARTS, progress=lambda done: progress(done / n_leaves))
    return neighbors, squared


def first_denser_neighbour(
    leaves: LeafTiles, neighbors: np.ndarray, squared: np.ndarray, core: np.ndarray, k: int
) -> np.ndarray:
    """For each row the first of its k nearest whose core distance is at most its own, int32 (n,), or -1.

    `neighbors` and `squared` are from `nearest_rows`, with k + 1 columns where there are more than k rows; `core` (n,)
    float32. Ties (including with the row itself at distance 0) are broken as fast_hdbscan does.
    """
    picks = np.empty(len(core), dtype=np.int32)
    in_threads(len(core), lambda first, last: _pick(neighbors, squared, core, k, picks, first, last))
    order = leaves.tree.rows
    unresolved = order[picks[order] == UNRESOLVED]  # in the order of the leaves, so that they read the same ones

    def run(first: int, last: int) -> None:
        distances, found = np.empty(k, np.float32), np.empty(k, np.int32)
        _resolve_ties(leaves, leaves.workspace(), distances, found, core, unresolved[first:last], picks)

    if len(unresolved):
        in_threads(len(unresolved), run)
    return picks


@compiled(fastmath=False)
def _search(leaves, workspace, neighbors, squared, first, last):  # type: ignore[no-untyped-def]
    """Fill neighbors (n, k) int32 and squared (n, k) float32 for the rows of leaves first to last."""
    tree, tiles, slack, leaf_of_node = leaves.tree, leaves.tiles, leaves.slack, leaves.leaf_of_node
    data, rows, starts, ends, lower, upper = tree.data, tree.rows, tree.starts, tree.ends, tree.lower, tree.upper
    out, box_distances, tops, nodes, bounds = workspace
    for leaf in range(first, last):
        home = leaves.nodes[leaf]
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
            if leaf_of_node[node] < 0:
                waiting = push_children(lower, upper, home, node, nodes, bounds, waiting)
                continue
            n_others = ends[node] - starts[node]
            to_box(tiles[leaf], lower[node], upper[node], box_distances)
            worst = np.float32(0)
            for r in range(n_own):
                limit = tops[r] * slack
                if box_distances[r] <= limit:
                    row = rows[start + r]
                    to_rows(tiles[leaf_of_node[node]], data[row], out)
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
    """The first denser neighbour, picks (n,) int32, of rows first to last, or UNRESOLVED."""
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
def _resolve_ties(leaves, workspace, distances, found, core, unresolved, picks):  # type: ignore[no-untyped-def]
    """The first denser neighbours, picks (n,) int32, of the rows `unresolved`, by fast_hdbscan's search.

    It visits rows in the same order, so its heap, distances (k,) float32 and found (k,) int32, ends in the same order.
    """
    tree, tiles, slack, leaf_of_node = leaves.tree, leaves.tiles, leaves.slack, leaves.leaf_of_node
    data, rows, starts, ends, lower, upper = tree.data, tree.rows, tree.starts, tree.ends, tree.lower, tree.upper
    out, nodes, bounds = workspace.to_rows, workspace.nodes, workspace.bounds
    for i in unresolved:
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
            if leaf_of_node[node] >= 0:
                to_rows(tiles[leaf_of_node[node]], point, out)
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
