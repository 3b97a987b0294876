"""The minimum spanning tree of mutual reachability: fast_hdbscan's Borůvka (0.3.4, BSD-2, McInnes and contributors), by leaves.

Where fast_hdbscan sends each row down the KD-tree, a leaf's rows go together (`leaves.py`); kernels are serial and spread over
threads, which compiles in seconds where numba's own parallel loops take half a minute. The tree is the same, to the row. One
comparison differs. In fast_hdbscan a row passes over candidates whose core distance equals the best edge that another thread
has just found, so thread timing decides between equal edges, and on tables with ties that changes clusters. Here such
candidates count (`<=` for `<`), and between equal ones the search of fast_hdbscan decides, with one thread
(`_visited_first`).
"""

from __future__ import annotations

import numpy as np

from gpuclust.algorithms.hdbscan.kd_tree import build_kdtree, rdist, to_node
from gpuclust.algorithms.hdbscan.knn import first_denser_neighbour, nearest_rows
from gpuclust.algorithms.hdbscan.leaf_tiles import Leaves, open_node, to_box, to_rows
from gpuclust.errors import FitError
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.threads import in_threads

LISTED = 32  # nearest rows of each that the rounds look at first


def minimum_spanning_edges(points: np.ndarray, min_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n-1, 3) float64 (row, row, mutual reachability distance) and core distances (n,) float32.

    ``points`` (n, d) float32, contiguous and finite, of more than ``min_samples`` rows.
    """
    n = len(points)
    tree = build_kdtree(points)
    leaves = Leaves(tree)
    neighbors, squared = nearest_rows(leaves, min(min_samples + 2, n))  # one more, which tells of ties with the last
    core = np.ascontiguousarray(squared[:, min_samples])
    edges = np.empty((n - 1, 3), dtype=np.float64)
    sets, components, node_components = np.arange(n), np.arange(n), np.full(len(tree.starts), -1)
    picks = first_denser_neighbour(
        leaves, neighbors, squared, core, min_samples + 1
    )  # a shortest edge, without a search
    found = _join_all(picks, core, sets, edges)
    near = neighbors[:, : min(min_samples + 1, LISTED)].copy()
    del neighbors, squared  # the greatest arrays here
    best = np.empty(n, dtype=np.int64)
    while found < n - 1:
        _update_components(tree.rows, tree.starts, tree.ends, tree.is_leaf, sets, components, node_components)
        distance, row = _nearest_outside(leaves, near, core, components, node_components)
        before, found = found, _merge(sets, components, distance, row, best, edges, found)
        if found == before:
            raise FitError("HDBSCAN cannot join the rows: their distances overflow; scale the features")
    edges[:, 2] = np.sqrt(edges[:, 2])
    return edges, np.sqrt(core)


def _nearest_outside(leaves, near, core, components, node_components):  # type: ignore[no-untyped-def]
    """Per row: the squared mutual reachability distance to the nearest row of another component, and that row; of equals
    the one that a search for the row alone meets first. Right for the rows that have their component's shortest: others
    may have been passed over. ``near`` are some of each row's nearest rows."""
    n, order = len(components), leaves.tree.rows
    distance = np.full(n, np.inf, dtype=np.float32)
    at = np.full(n, -1, dtype=np.int32)  # where among the leaves' rows the nearest is
    shortest = np.full(n, np.inf, dtype=np.float32)  # of each component; shared between threads, only ever too long
    inside = core[order], components[order].astype(np.int32)  # as the leaves have their rows

    def run(first: int, last: int) -> None:
        _search(*leaves.shape, *leaves.scratch(), *inside, node_components, shortest, distance, at, first, last)

    in_threads(n, lambda first, last: _prime_bounds(near, core, components, shortest, first, last))
    in_threads(len(leaves.nodes), run)
    return distance, np.where(at < 0, -1, order[at]).astype(np.int32)


@compiled(inner=True, fastmath=False)
def _find(sets, row):  # type: ignore[no-untyped-def]
    while sets[row] != row:
        sets[row] = sets[sets[row]]
        row = sets[row]
    return row


@compiled(inner=True, fastmath=False)
def _join(sets, i, j, weight, edges, found):  # type: ignore[no-untyped-def]
    """Add the edge i-j unless the two are joined already; the number of edges then."""
    a, b = _find(sets, i), _find(sets, j)
    if a == b:
        return found
    sets[max(a, b)] = min(a, b)
    edges[found, 0], edges[found, 1], edges[found, 2] = i, j, weight
    return found + 1


@compiled(fastmath=False)
def _join_all(picks, core, sets, edges):  # type: ignore[no-untyped-def]
    """Join each row to the one picked for it, by an edge of its core distance; how many edges that makes."""
    found = 0
    for i in range(len(picks)):
        if picks[i] >= 0:
            found = _join(sets, i, np.int64(picks[i]), core[i], edges, found)
    return found


@compiled(fastmath=False)
def _update_components(rows, starts, ends, is_leaf, sets, components, node_components):  # type: ignore[no-untyped-def]
    """The component of each row, and of each node of the KD-tree whose rows are all of one."""
    for i in range(len(components)):
        components[i] = _find(sets, i)
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
    """Join each component by its shortest edge, the first of equals, in the order of their first rows."""
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
def _visited_first(point, at, held, starts, ends, lower, upper, place):  # type: ignore[no-untyped-def]
    """Whether a search for the point alone, nearer parts first, meets the row at `at` before the one at `held`."""
    node = 0
    while place[node] < 0:
        left, right = 2 * node + 1, 2 * node + 2
        if (at < ends[left]) != (held < ends[left]):
            to_left = to_node(lower[left], upper[left], point)
            to_right = to_node(lower[right], upper[right], point)
            return (at < ends[left]) == (to_left <= to_right)
        node = left if at < ends[left] else right
    return at < held


@compiled(fastmath=False)
def _prime_bounds(near, core, components, shortest, first, last):  # type: ignore[no-untyped-def]
    """Bounds from the nearest rows: each is no farther than the row's own core distance."""
    for i in range(first, last):
        for j in range(near.shape[1]):
            other = near[i, j]
            if other >= 0 and components[other] != components[i]:
                shortest[components[i]] = min(shortest[components[i]], max(core[i], core[other]))


@compiled(fastmath=False)
def _search(  # type: ignore[no-untyped-def]
    data, rows, starts, ends, lower, upper, leaves, place, tiles, slack, out, reach, limits, nodes, bounds, core,
    components, node_components, shortest, distance, nearest, first, last,
):  # fmt: skip
    for leaf in range(first, last):
        home = leaves[leaf]
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
            if place[node] < 0:
                waiting = open_node(lower, upper, home, node, nodes, bounds, waiting)
                continue
            other_start, n_others = starts[node], ends[node] - starts[node]
            to_box(tiles[leaf], lower[node], upper[node], reach)
            worst = np.float32(0)
            for r in range(n_own):
                row, component = rows[start + r], components[start + r]
                limit = min(distance[row], shortest[component])
                if core[start + r] > limit:
                    continue
                if reach[r] <= limit * slack and node_components[node] != component:
                    to_rows(tiles[place[node]], data[row], out)
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
                                and _visited_first(data[row], at, nearest[row], starts, ends, lower, upper, place)
                            ):
                                distance[row], nearest[row] = found, np.int32(at)
                                if found < shortest[component]:
                                    shortest[component] = found
                                limit = min(distance[row], shortest[component])
                worst = max(worst, limit)
