"""The minimum spanning tree of mutual reachability: fast_hdbscan's Borůvka, deterministic and quick to compile.

The KD-tree and its neighbour search are fast_hdbscan's (0.3.4, BSD-2, McInnes and contributors); the rounds restate its
`boruvka.py` with serial kernels spread over threads, which compile in seconds where numba's own parallel loops take half
a minute. One comparison differs. In fast_hdbscan a row passes over candidates whose core distance equals the best edge that
another thread has just found, so thread timing decides between equal edges, and on tables with ties that changes
clusters. Here such candidates count (`<=` for `<`): the winner is always the first row, in order, that has the shortest
edge. That is also what fast_hdbscan finds with one thread, so the tree is the same as its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np

from gpuclust.compute.kernels.nearest import compiled, in_threads
from gpuclust.errors import FitError


class _Deferred(ModuleType):
    """A package whose submodules can be imported before, or without, running its ``__init__``."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _kd_tree() -> Any:
    """fast_hdbscan's KD-tree module alone: `import fast_hdbscan` would compile all of the package, for half a minute."""
    package = "fast_hdbscan"
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is not None:
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        sys.modules[package] = module
    try:
        return importlib.import_module(f"{package}.numba_kdtree")
    except RuntimeError:  # numba's answer where no cache folder is writable
        importlib.import_module(f"{package}.variables").NUMBA_CACHE = False  # type: ignore[attr-defined]
        return importlib.import_module(f"{package}.numba_kdtree")


_kd = _kd_tree()
build_kdtree, tree_query_recursion, siftdown = _kd.build_kdtree, _kd.tree_query_recursion, _kd.siftdown
point_to_node_lower_bound_rdist, rdist = _kd.point_to_node_lower_bound_rdist, _kd.rdist

DEPTH = 128  # of the stack: two entries a level, and a KD-tree of 2**60 rows has 60 levels


def minimum_spanning_edges(points: np.ndarray, min_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n-1, 3) float64 (row, row, mutual reachability distance) and core distances (n,) float32.

    ``points`` (n, d) float32, contiguous and finite, of more than ``min_samples`` rows.
    """
    n = len(points)
    tree = build_kdtree(points)
    neighbors, squared = _nearest_rows(tree, min_samples + 1)
    core = np.ascontiguousarray(squared[:, -1])
    edges = np.empty((n - 1, 3), dtype=np.float64)
    sets, components, node_components = np.arange(n), np.arange(n), np.full(len(tree.idx_start), -1)
    found = _first_edges(neighbors, squared, core, sets, edges)
    del neighbors, squared  # the greatest arrays here
    while found < n - 1:
        _update_components(tree, sets, components, node_components)
        distance, row = _nearest_outside(tree, core, components, node_components)
        before, found = found, _merge(sets, components, distance, row, edges, found)
        if found == before:
            raise FitError("HDBSCAN cannot join the rows: their distances overflow; scale the features")
    edges[:, 2] = np.sqrt(edges[:, 2])
    return edges, np.sqrt(core)


def _nearest_rows(tree, k):  # type: ignore[no-untyped-def]
    """The k nearest rows of each, itself among them, int32, and their squared distances, float32."""
    neighbors = np.full((len(tree.data), k), -1, dtype=np.int32)
    squared = np.full((len(tree.data), k), np.inf, dtype=np.float32)

    def run(first: int, last: int) -> None:
        _neighbors(tree, squared, neighbors, first, last)

    in_threads(len(tree.data), run)
    return neighbors, squared


def _nearest_outside(tree, core, components, node_components):  # type: ignore[no-untyped-def]
    """Per row: the squared mutual reachability distance to the nearest row of another component, and that row."""
    n = len(components)
    distance = np.full(n, np.inf, dtype=np.float32)
    row = np.full(n, -1, dtype=np.int32)
    shortest = np.full(n, np.inf, dtype=np.float32)  # of each component; shared between threads, only ever too long

    def run(first: int, last: int) -> None:
        _search(tree, core, components, node_components, shortest, distance, row, first, last)

    in_threads(n, run)
    return distance, row


@compiled(fastmath=False)
def _neighbors(tree, squared, neighbors, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        bound = point_to_node_lower_bound_rdist(tree.node_bounds[0, 0], tree.node_bounds[1, 0], tree.data[i])
        tree_query_recursion(tree, 0, tree.data[i], squared[i], neighbors[i], bound)
        for j in range(squared.shape[1] - 1, 0, -1):  # the heap's greatest to the end
            squared[i, 0], squared[i, j] = squared[i, j], squared[i, 0]
            neighbors[i, 0], neighbors[i, j] = neighbors[i, j], neighbors[i, 0]
            siftdown(squared[i, :j], neighbors[i, :j], 0)


@compiled(fastmath=False)
def _find(sets, row):  # type: ignore[no-untyped-def]
    while sets[row] != row:
        sets[row] = sets[sets[row]]
        row = sets[row]
    return row


@compiled(fastmath=False)
def _join(sets, i, j, weight, edges, found):  # type: ignore[no-untyped-def]
    """Add the edge i-j unless the two are joined already; the number of edges then."""
    a, b = _find(sets, i), _find(sets, j)
    if a == b:
        return found
    sets[max(a, b)] = min(a, b)
    edges[found, 0], edges[found, 1], edges[found, 2] = i, j, weight
    return found + 1


@compiled(fastmath=False)
def _first_edges(neighbors, squared, core, sets, edges):  # type: ignore[no-untyped-def]
    """Join each row to its first neighbour that is no sparser: its shortest edge, known without a search."""
    found = 0
    for i in range(len(core)):
        for j in range(1, neighbors.shape[1]):
            other = neighbors[i, j]
            if core[i] >= core[other]:
                found = _join(sets, i, np.int64(other), max(core[i], squared[i, j]), edges, found)
                break
    return found


@compiled(fastmath=False)
def _update_components(tree, sets, components, node_components):  # type: ignore[no-untyped-def]
    """The component of each row, and of each node of the KD-tree whose rows are all of one."""
    for i in range(len(components)):
        components[i] = _find(sets, i)
    for node in range(len(node_components) - 1, -1, -1):
        if tree.is_leaf[node]:
            component = components[tree.idx_array[tree.idx_start[node]]]
            for at in range(tree.idx_start[node] + 1, tree.idx_end[node]):
                if components[tree.idx_array[at]] != component:
                    break
            else:
                node_components[node] = component
        elif node_components[2 * node + 1] == node_components[2 * node + 2]:
            node_components[node] = node_components[2 * node + 1]


@compiled(fastmath=False)
def _merge(sets, components, distance, row, edges, found):  # type: ignore[no-untyped-def]
    """Join each component by its shortest edge, the first of equals, in the order of their first rows."""
    best = np.full(len(components), -1)
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


@compiled(fastmath=False)
def _search(tree, core, components, node_components, shortest, distance, row, first, last):  # type: ignore[no-untyped-def]
    nodes = np.empty(DEPTH, dtype=np.int64)
    bounds = np.empty(DEPTH, dtype=np.float32)
    lower, upper = tree.node_bounds[0], tree.node_bounds[1]
    for i in range(first, last):
        point, own, component = tree.data[i], core[i], components[i]
        best, best_row = np.float32(np.inf), np.int32(-1)
        nodes[0], bounds[0] = 0, point_to_node_lower_bound_rdist(lower[0], upper[0], point)
        waiting = 1
        while waiting > 0:
            waiting -= 1
            node, bound = nodes[waiting], bounds[waiting]
            limit = shortest[component]
            if bound > best or bound > limit or own > limit or node_components[node] == component:
                continue
            if tree.is_leaf[node]:
                for at in range(tree.idx_start[node], tree.idx_end[node]):
                    other = tree.idx_array[at]
                    if components[other] == component or core[other] > shortest[component]:
                        continue
                    reach = max(rdist(point, tree.data[other]), own, core[other])
                    if reach < best:
                        best, best_row = reach, np.int32(other)
                        if reach < shortest[component]:
                            shortest[component] = reach
                continue
            left, right = 2 * node + 1, 2 * node + 2
            to_left = point_to_node_lower_bound_rdist(lower[left], upper[left], point)
            to_right = point_to_node_lower_bound_rdist(lower[right], upper[right], point)
            near, far = (left, right) if to_left <= to_right else (right, left)
            nodes[waiting], bounds[waiting] = far, max(to_left, to_right)
            nodes[waiting + 1], bounds[waiting + 1] = near, min(to_left, to_right)
            waiting += 2
        distance[i], row[i] = best, best_row
