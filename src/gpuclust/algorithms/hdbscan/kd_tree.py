"""A KD-tree and the functions of searches in it, as in fast_hdbscan 0.3.4 (`numba_kdtree.py`, BSD-2, McInnes and contributors).

Nodes are numbered as in a heap: the children of node i are 2 i + 1 and 2 i + 2. The rows of a node are a range of one array. A
node is split at the median of its widest feature; equal values are ordered by row. The rows within a leaf have the order of
fast_hdbscan, which decides between rows at the same distance. Reimplemented because importing fast_hdbscan's costs 4 s of
compilation; this costs 1 s.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpuclust.runtime.jit import compiled

LEAF_ROWS = 40  # a leaf has this many rows to twice as many
SMALL = 16  # a range of at most this many rows is sorted rather than partitioned


class KdTree(NamedTuple):
    """The rows of node i are ``rows[starts[i]:ends[i]]``; its bounding box is ``lower[i]`` to ``upper[i]``."""

    data: np.ndarray  # (n, d) float32
    rows: np.ndarray  # (n,) int64, row numbers in the order of the leaves
    starts: np.ndarray  # (n_nodes,) int64
    ends: np.ndarray  # (n_nodes,) int64
    is_leaf: np.ndarray  # (n_nodes,) bool
    lower: np.ndarray  # (n_nodes, d) float32
    upper: np.ndarray  # (n_nodes, d) float32


def build_kdtree(data: np.ndarray, leaf_rows: int = LEAF_ROWS) -> KdTree:
    """The tree of a C-contiguous float32 matrix (n, d) of one row or more."""
    n_rows, n_features = data.shape
    n_levels = int(math.log2(max(1, (n_rows - 1) / leaf_rows)) + 1)
    n_nodes = 2**n_levels - 1
    starts, ends = np.zeros((2, n_nodes), dtype=np.int64)
    lower, upper = np.zeros((2, n_nodes, n_features), dtype=np.float32)
    tree = KdTree(data, np.arange(n_rows), starts, ends, np.zeros(n_nodes, dtype=np.bool_), lower, upper)
    ends[0] = n_rows
    _build(tree)
    return tree


@compiled(inner=True, fastmath=False)
def _after(data, axis, one, other):  # type: ignore[no-untyped-def]
    """Whether row `one` comes after row `other` along feature `axis`."""
    a, b = data[one, axis], data[other, axis]
    return a > b or (a == b and one > other)


@compiled(inner=True, fastmath=False)
def _heapsort(data, axis, rows, left, right):  # type: ignore[no-untyped-def]
    """Sort rows[left:right] along feature `axis`."""
    size = right - left
    building, last = size // 2 - 1, size
    while last > 1:
        if building >= 0:
            root = building
            building -= 1
        else:
            last -= 1
            rows[left], rows[left + last] = rows[left + last], rows[left]
            root = 0
        while 2 * root + 1 < last:
            child, largest = 2 * root + 1, root
            if _after(data, axis, rows[left + child], rows[left + largest]):
                largest = child
            if child + 1 < last and _after(data, axis, rows[left + child + 1], rows[left + largest]):
                largest = child + 1
            if largest == root:
                break
            rows[left + root], rows[left + largest] = rows[left + largest], rows[left + root]
            root = largest


@compiled(inner=True, fastmath=False)
def _select(data, axis, rows, left, right, middle):  # type: ignore[no-untyped-def]
    """Partition rows[left:right] about the row that belongs at `middle` (introspective selection, Musser 1997)."""
    patience = 2 * int(math.log2(right - left))
    while right - left > SMALL:
        if patience == 0:
            _heapsort(data, axis, rows, left, right)
            return
        patience -= 1
        centre, last = (left + right - 1) // 2, right - 1  # the median of three is the pivot
        if _after(data, axis, rows[left], rows[centre]):
            rows[left], rows[centre] = rows[centre], rows[left]
        if _after(data, axis, rows[centre], rows[last]):
            rows[centre], rows[last] = rows[last], rows[centre]
            if _after(data, axis, rows[left], rows[centre]):
                rows[left], rows[centre] = rows[centre], rows[left]
        rows[centre], rows[last] = rows[last], rows[centre]
        pivot, i, j = rows[last], left, right - 2
        while True:
            while i <= j and _after(data, axis, pivot, rows[i]):
                i += 1
            while i <= j and not _after(data, axis, pivot, rows[j]):
                j -= 1
            if i >= j:
                break
            rows[i], rows[j] = rows[j], rows[i]
            i += 1
            j -= 1
        rows[i], rows[last] = rows[last], rows[i]
        if middle == i:
            return
        if middle < i:
            right = i
        else:
            left = i + 1
    for i in range(left + 1, right):
        row, j = rows[i], i - 1
        while j >= left and _after(data, axis, rows[j], row):
            rows[j + 1] = rows[j]
            j -= 1
        rows[j + 1] = row


@compiled(fastmath=False)
def _build(tree):  # type: ignore[no-untyped-def]
    """Fill a tree whose root has all rows: ranges and boxes of the nodes, and the order of the rows."""
    data, rows, starts, ends, is_leaf, lower, upper = tree
    n_nodes, n_features = lower.shape
    for node in range(n_nodes):
        start, end = starts[node], ends[node]
        for f in range(n_features):
            lower[node, f], upper[node, f] = np.inf, -np.inf
        for at in range(start, end):
            for f in range(n_features):
                lower[node, f] = min(lower[node, f], data[rows[at], f])
                upper[node, f] = max(upper[node, f], data[rows[at], f])
        is_leaf[node] = 2 * node + 1 >= n_nodes or end - start < 2
        if not is_leaf[node]:
            axis, widest = 0, np.float32(0)
            for f in range(n_features):
                if upper[node, f] - lower[node, f] > widest:
                    axis, widest = f, upper[node, f] - lower[node, f]
            middle = start + (end - start) // 2
            _select(data, axis, rows, start, end, middle)
            starts[2 * node + 1], ends[2 * node + 1] = start, middle
            starts[2 * node + 2], ends[2 * node + 2] = middle, end


@compiled(inner=True, fastmath=True)
def rdist(x, y):  # type: ignore[no-untyped-def]
    """Squared Euclidean distance of two rows (d,), float32."""
    total = np.float32(0)
    for f in range(len(x)):
        difference = x[f] - y[f]
        total += difference * difference
    return total


@compiled(inner=True, fastmath=True)
def to_node(lower, upper, point):  # type: ignore[no-untyped-def]
    """Squared distance, float32, of a row (d,) to the box from `lower` (d,) to `upper` (d,)."""
    total = np.float32(0)
    for f in range(len(point)):
        below = lower[f] - point[f] if lower[f] > point[f] else np.float32(0)
        above = point[f] - upper[f] if point[f] > upper[f] else np.float32(0)
        total += (below + above) * (below + above)
    return total


@compiled(inner=True, fastmath=False)
def push(distances, found, distance, row):  # type: ignore[no-untyped-def]
    """Replace the top of a heap, its farthest row, if `row` is nearer; distances (k,) float32 and found (k,) int32 are the heap."""
    if distance >= distances[0]:
        return
    at, size = 0, len(distances)
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and not distances[child] >= distances[child + 1]:
            child += 1
        if not distance < distances[child]:
            break
        distances[at], found[at] = distances[child], found[child]
        at = child
    distances[at], found[at] = distance, row


@compiled(inner=True, fastmath=False)
def sort_heap(distances, found):  # type: ignore[no-untyped-def]
    """Sort such a heap, the nearest row first."""
    for last in range(len(found) - 1, 0, -1):
        distances[0], distances[last] = distances[last], distances[0]
        found[0], found[last] = found[last], found[0]
        at = 0
        while 2 * at + 1 < last:
            child, largest = 2 * at + 1, at
            if distances[largest] < distances[child]:
                largest = child
            if child + 1 < last and distances[largest] < distances[child + 1]:
                largest = child + 1
            if largest == at:
                break
            distances[at], distances[largest] = distances[largest], distances[at]
            found[at], found[largest] = found[largest], found[at]
            at = largest
