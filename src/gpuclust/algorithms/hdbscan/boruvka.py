"""The minimum spanning tree of mutual reachability: fast_hdbscan's Borůvka (0.3.4, BSD-2, McInnes and contributors), by leaves.

fast_hdbscan sends each row down the KD-tree on its own; here the rows of a leaf go together (`leaf_tiles.py`). The kernels are
serial and run in threads, which compiles in seconds; numba's parallel loops take half a minute. The tree is the same, to the
row. One comparison differs. In fast_hdbscan a row skips candidates whose core distance equals the best edge that another
thread has just found, so thread timing decides between equal edges, and on tables with ties that changes clusters. Here such
candidates count (`<=` for `<`), and equal edges are ordered as by fast_hdbscan's search with one thread (`_visited_first`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpuclust.algorithms.hdbscan.kd_tree import build_kdtree, rdist, to_node
from gpuclust.algorithms.hdbscan.knn import first_denser_neighbour, nearest_rows
from gpuclust.algorithms.hdbscan.leaf_tiles import LeafTiles, leaf_tiles, push_children, to_box, to_rows
from gpuclust.errors import FitError
from gpuclust.runtime.backend import Progress
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.threads import in_threads

SEARCH = 0.8  # the share of the time that the search of the nearest rows takes
LISTED = 32  # nearest rows of each row that prime the bounds of a round


def minimum_spanning_edges(
    points: np.ndarray, min_samples: int, progress: Progress = lambda _: None
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n-1, 3) float64 (row, row, mutual reachability distance) and core distances (n,) float32.

    ``points`` (n, d) float32, contiguous and finite, of more than ``min_samples`` rows. ``progress`` receives the fraction
    done, in [0, 1], as it was on tables of tracks: other tables take longer or shorter for the rounds.
    """
    n = len(points)
    tree = build_kdtree(points)
    leaves = leaf_tiles(tree)
    n_neighbors = min(min_samples + 2, n)  # one more, which shows ties with the last
    neighbors, squared = nearest_rows(leaves, n_neighbors, lambda done: progress(SEARCH * done))
    core = np.ascontiguousarray(squared[:, min_samples])
    edges = np.empty((n - 1, 3), dtype=np.float64)
    sets, components, node_components = np.arange(n), np.arange(n), np.full(len(tree.starts), -1)
    picks = first_denser_neighbour(
        leaves, neighbors, squared, core, min_samples + 1
    )  # a shortest edge, without a search
    found = _join_all(picks, core, sets, edges)
    near = neighbors[:, : min(min_samples + 1, LISTED)].copy()
    del neighbors, squared  # the largest arrays here
    best = np.empty(n, dtype=np.int64)
    first = n - found
    while found < n - 1:
        _update_components(tree, sets, components, node_components)
        distance, row = _nearest_outside(leaves, near, core, components, node_components)
        before, found = found, _merge(sets, components, distance, row, best, edges, found)
        if found == before:
            raise FitError("HDBSCAN cannot join the rows: their distances overflow; scale the features")
        progress(1 - (1 - SEARCH) * np.log(n - found) / np.log(first))
    edges[:, 2] = np.sqrt(edges[:, 2])
    return edges, np.sqrt(core)


class RowStates(NamedTuple):
    """The state of a search for the shortest edges between components. Positions are those in the tree's order of rows."""

    core: np.ndarray  # (n,) float32 by position: squared core distances
    components: np.ndarray  # (n,) int32 by position: the component of each row
    node_components: np.ndarray  # (n_nodes,) int64: the component of all rows of a node, or -1
    shortest: np.ndarray  # (n,) float32 by component: an upper bound of its shortest edge; shared between threads
    distance: np.ndarray  # (n,) float32 by row: squared mutual reachability distance to `nearest`
    nearest: np.ndarray  # (n,) int32 by row: position of the nearest row of another component, or -1


def _nearest_outside(
    leaves: LeafTiles, near: np.ndarray, core: np.ndarray, components: np.ndarray, node_components: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per row: squared mutual reachability distance (n,) to the nearest row of another component, and that row, int32 (n,).

    Of equal ones it is the row that a search for this row alone meets first. Correct for the rows that have the shortest edge
    of their component; others may have been skipped. ``near`` (n, m) int32 are some of each row's nearest rows.
    """
    n, order = len(components), leaves.tree.rows
    distance = np.full(n, np.inf, dtype=np.float32)
    nearest = np.full(n, -1, dtype=np.int32)
    shortest = np.full(n, np.inf, dtype=np.float32)
    state = RowStates(core[order], components[order].astype(np.int32), node_components, shortest, distance, nearest)

    def run(first: int, last: int) -> None:
        _search(leaves, leaves.workspace(), state, first, last)

    in_threads(n, lambda first, last: _prime_bounds(near, core, components, shortest, first, last))
    in_threads(len(leaves.nodes), run)
    return distance, np.where(nearest < 0, -1, order[nearest]).astype(np.int32)


@compiled(inner=True, fastmath=False)
def find_root(parent, node):  # type: ignore[no-untyped-def]
    """The root of a node's set; parent (n,) int64, a root is its own parent. Halves the path on its way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled(inner=True, fastmath=False)
def _join(sets, i, j, weight, edges, found):  # type: ignore[no-untyped-def]
    """Add the edge i-j to edges (n-1, 3) float64 unless the two are in one set of sets (n,) int64; the new number of edges."""
    a, b = find_root(sets, i), find_root(sets, j)
    if a == b:
        return found
    sets[max(a, b)] = min(a, b)
    edges[found, 0], edges[found, 1], edges[found, 2] = i, j, weight
    return found + 1


@compiled(fastmath=False)
def _join_all(picks, core, sets, edges):  # type: ignore[no-untyped-def]
    """Join each row to picks (n,) int32 by an edge of its core distance (n,) float32; the number of edges."""
    found = 0
    for i in range(len(picks)):
        if picks[i] >= 0:
            found = _join(sets, i, np.int64(picks[i]), core[i], edges, found)
    return found


@compiled(fastmath=False)
def _update_components(tree, sets, components, node_components):  # type: ignore[no-untyped-def]
    """The component of each row (n,) int64, and of each node (n_nodes,) int64 whose rows are all of one component."""
    rows, starts, ends, is_leaf = tree.rows, tree.starts, tree.ends, tree.is_leaf
    for i in range(len(components)):
        components[i] = find_root(sets, i)
    for node in range(len(node_components) - 1, -1, -1):
        if is_leaf[node]:
            component = components[rows[starts[node]]]
            for at in range(starts[node] + 1, ends[node]):
                if components[rows[at]] != component:
                    break
            else:
                node_components[node] = component
        elif node_components[2 * node + 1] == node_components[2 * node + 2]:
            node_components[node] = node_components[2 * node + 1]


@compiled(fastmath=False)
def _merge(sets, components, distance, row, best, edges, found):  # type: ignore[no-untyped-def]
    """Join each component by its shortest edge, the first of equal ones, in the order of their first rows."""
    for i in range(len(components)):
        best[components[i]] = -1
    for i in range(len(components)):
        held = best[components[i]]
        if held < 0 or distance[i] < distance[held]:
            best[components[i]] = i
    for i in range(len(components)):
        held = best[components[i]]
        best[components[i]] = -1
        if held >= 0 and row[held] >= 0:
            found = _join(sets, held, np.int64(row[held]), distance[held], edges, found)
    return found


@compiled(inner=True, fastmath=False)
def _visited_first(leaves, point, at, held):  # type: ignore[no-untyped-def]
    """Whether a search for the point alone, nearer child first, meets the row at position `at` before the one at `held`."""
    ends, lower, upper = leaves.tree.ends, leaves.tree.lower, leaves.tree.upper
    node = 0
    while leaves.leaf_of_node[node] < 0:
        left, right = 2 * node + 1, 2 * node + 2
        if (at < ends[left]) != (held < ends[left]):
            to_left = to_node(lower[left], upper[left], point)
            to_right = to_node(lower[right], upper[right], point)
            return (at < ends[left]) == (to_left <= to_right)
        node = left if at < ends[left] else right
    return at < held


@compiled(fastmath=False)
def _prime_bounds(near, core, components, shortest, first, last):  # type: ignore[no-untyped-def]
    """Bounds of the shortest edges (n,) float32 from near (n, m) int32, whose rows lie within the row's core distance."""
    for i in range(first, last):
        for j in range(near.shape[1]):
            other = near[i, j]
            if other >= 0 and components[other] != components[i]:
                shortest[components[i]] = min(shortest[components[i]], max(core[i], core[other]))


@compiled(fastmath=False)
def _search(leaves, workspace, state, first, last):  # type: ignore[no-untyped-def]
    """Update the distance and nearest row of the rows of leaves first to last, and the shortest edges of their components."""
    tree, tiles, slack, leaf_of_node = leaves.tree, leaves.tiles, leaves.slack, leaves.leaf_of_node
    data, rows, starts, ends, lower, upper = tree.data, tree.rows, tree.starts, tree.ends, tree.lower, tree.upper
    out, box_distances, nodes, bounds = workspace.to_rows, workspace.to_box, workspace.nodes, workspace.bounds
    core, components, node_components, shortest, distance, nearest = state
    for leaf in range(first, last):
        home = leaves.nodes[leaf]
        start, n_own = starts[home], ends[home] - starts[home]
        nodes[0], bounds[0] = 0, np.float32(0)
        nodes[1], bounds[1] = home, np.float32(0)  # first, and not again
        waiting, met_home = 2, False
        worst = np.float32(np.inf)
        while waiting > 0:
            waiting -= 1
            node = nodes[waiting]
            if bounds[waiting] > worst * slack or (met_home and node == home):
                continue
            met_home = True
            if node_components[node] >= 0 and node_components[node] == node_components[home]:
                continue
            if leaf_of_node[node] < 0:
                waiting = push_children(lower, upper, home, node, nodes, bounds, waiting)
                continue
            other_start, n_others = starts[node], ends[node] - starts[node]
            to_box(tiles[leaf], lower[node], upper[node], box_distances)
            worst = np.float32(0)
            for r in range(n_own):
                row, component = rows[start + r], components[start + r]
                limit = min(distance[row], shortest[component])
                if core[start + r] > limit:
                    continue
                if box_distances[r] <= limit * slack and node_components[node] != component:
                    to_rows(tiles[leaf_of_node[node]], data[row], out)
                    candidates = np.int32(0)
                    for c in range(n_others):
                        at = other_start + c
                        near = (out[c] <= limit * slack) & (core[at] <= limit)
                        candidates += np.int32(near & (components[at] != component))
                    if candidates:
                        for c in range(n_others):
                            at = other_start + c
                            if out[c] > limit * slack or core[at] > limit or components[at] == component:
                                continue
                            found = max(rdist(data[row], data[rows[at]]), core[start + r], core[at])
                            if found < distance[row] or (
                                found == distance[row]
                                and nearest[row] >= 0
                                and _visited_first(leaves, data[row], at, nearest[row])
                            ):
                                distance[row], nearest[row] = found, np.int32(at)
                                if found < shortest[component]:
                                    shortest[component] = found
                                limit = min(distance[row], shortest[component])
                worst = max(worst, limit)
