"""A compiled version of `gpuclust.model.hdbscan.nearest_fitted`: the fitted row that each of many new rows joins. The new rows have a
KD-tree of their own; one of its leaves at a time is searched for in the KD-tree of the fitted rows, as in `knn`. Distances are then
computed in float64, as SciPy's are: the two differ only between fitted rows at the same distance.
"""

from __future__ import annotations

import math

import numpy as np

from gpuclust.algorithms.hdbscan.kd_tree import build_kdtree, push, rdist, sort_heap
from gpuclust.algorithms.hdbscan.leaf_tiles import (
    STACK_SIZE,
    LeafTiles,
    SearchWorkspace,
    leaf_tiles,
    push_children_between,
    to_box,
    to_rows,
)
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import workspace
from gpuclust.runtime.threads import in_threads


class FittedRows:
    """Fitted rows (m, d) float32 with their core distances (m,) float64, ready for searches."""

    def __init__(self, points: np.ndarray, core_distances: np.ndarray, min_samples: int) -> None:
        self._leaves = leaf_tiles(build_kdtree(np.ascontiguousarray(points, dtype=np.float32)))
        self._core = np.ascontiguousarray(core_distances, dtype=np.float64)
        self._min_samples = min_samples

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The fitted row (n,) int64 that each row of ``points`` (n, d) joins, and the density (n,) float64 at which it does."""
        points = np.ascontiguousarray(points, dtype=np.float32)
        wanted = min(2 * self._min_samples, len(self._core))
        neighbors = np.full((len(points), wanted), -1, dtype=np.int32)
        squared = np.full((len(points), wanted), np.inf, dtype=np.float32)
        queries = leaf_tiles(build_kdtree(points))

        def search(first: int, last: int) -> None:
            _search(queries, self._leaves, self._workspace(queries), neighbors, squared, first, last)

        in_threads(len(queries.nodes), search)
        rows, density = np.empty(len(points), dtype=np.int64), np.empty(len(points))
        fitted = self._leaves.tree.data

        def join(first: int, last: int) -> None:
            far = np.empty(wanted)
            _join(points, fitted, self._core, self._min_samples, neighbors, far, rows, density, first, last)

        in_threads(len(points), join)
        return rows, density

    def _workspace(self, queries: LeafTiles) -> SearchWorkspace:
        of_leaf, of_query = self._leaves.tiles.shape[2], queries.tiles.shape[2]
        distances, to_boxes, limits = (workspace(width, np.float32) for width in (of_leaf, of_query, of_query))
        nodes, bounds = np.empty(STACK_SIZE, np.int64), np.empty(STACK_SIZE, np.float32)
        return SearchWorkspace(distances, to_boxes, limits, nodes, bounds)


@compiled(fastmath=False)
def _search(queries, leaves, workspace, neighbors, squared, first, last):  # type: ignore[no-untyped-def]
    """Fill neighbors (n, k) int32 and squared (n, k) float32, of the rows in ``leaves``, for the rows of queries' leaves first to last."""
    own, mine = queries.tree, queries.tiles
    tree, tiles, slack, leaf_of_node = leaves.tree, leaves.tiles, leaves.slack, leaves.leaf_of_node
    data, rows, starts, ends, lower, upper = tree.data, tree.rows, tree.starts, tree.ends, tree.lower, tree.upper
    points, order, own_lower, own_upper = own.data, own.rows, own.lower, own.upper
    out, box_distances, tops, nodes, bounds = workspace
    for leaf in range(first, last):
        home = queries.nodes[leaf]
        start, n_own = own.starts[home], own.ends[home] - own.starts[home]
        for r in range(n_own):
            tops[r] = np.inf
        worst = np.float32(np.inf)
        nodes[0], bounds[0] = 0, np.float32(0)
        waiting = 1
        while waiting > 0:
            waiting -= 1
            node = nodes[waiting]
            if bounds[waiting] > worst * slack:
                continue
            if leaf_of_node[node] < 0:
                waiting = push_children_between(own_lower, own_upper, home, lower, upper, node, nodes, bounds, waiting)
                continue
            n_others = ends[node] - starts[node]
            to_box(mine[leaf], lower[node], upper[node], box_distances)
            worst = np.float32(0)
            for r in range(n_own):
                limit = tops[r] * slack
                if box_distances[r] <= limit:
                    row = order[start + r]
                    to_rows(tiles[leaf_of_node[node]], points[row], out)
                    distances = squared[row]
                    for c in range(n_others):
                        if out[c] <= distances[0] * slack:
                            other = rows[starts[node] + c]
                            push(distances, neighbors[row], rdist(points[row], data[other]), np.int32(other))
                    tops[r] = distances[0]
                worst = max(worst, tops[r])
        for r in range(n_own):
            distances, found = squared[order[start + r]], neighbors[order[start + r]]
            sort_heap(distances, found)


@compiled(fastmath=False)
def _join(points, fitted, core, min_samples, neighbors, far, rows, density, first, last):  # type: ignore[no-untyped-def]
    """Fill rows (n,) int64 and density (n,) float64 of points first to last from their neighbors (n, k) int32, sorted here by exact
    distance; far (k,) float64 is for this thread."""
    wanted = neighbors.shape[1]
    for i in range(first, last):
        for j in range(wanted):
            other, total = neighbors[i, j], 0.0
            for f in range(points.shape[1]):
                difference = np.float64(points[i, f]) - np.float64(fitted[other, f])
                total += difference * difference
            distance, at = math.sqrt(total), j
            while at > 0 and far[at - 1] > distance:
                far[at], neighbors[i, at] = far[at - 1], neighbors[i, at - 1]
                at -= 1
            far[at], neighbors[i, at] = distance, other
        own_core = far[min(min_samples, wanted - 1)]
        best, shortest = 0, np.inf
        for j in range(wanted):
            reach = max(max(far[j], core[neighbors[i, j]]), own_core)
            if j == 0 and far[0] == 0.0:  # an identical fitted row: fall out with it
                reach = 0.0
            if reach < shortest:
                best, shortest = j, reach
        rows[i] = neighbors[i, best]
        density[i] = 1.0 / shortest if shortest > 0.0 else np.inf
