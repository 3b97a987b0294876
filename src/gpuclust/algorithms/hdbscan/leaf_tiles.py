"""The leaves of a KD-tree as tiles that searches take whole: transposed, padded, their boxes beside them.

The rows of a leaf go down the tree together: a subtree is passed over when its box is too far from theirs for all of them.
At a leaf, all of them take their distances to its box at once, and those that are near enough their distances to its rows at
once, in vector registers. A search for each row alone (Bentley, CACM 18(9), 1975) spends its time on branches that no
processor predicts.

Distances from the vectors only choose what to look at: SLACK covers their rounding, and what counts is `rdist`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.algorithms.hdbscan.kd_tree import KdTree
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import workspace
from gpuclust.runtime.threads import in_threads

LANES = 16  # a leaf's rows are padded to a multiple of it
FAR = 1e19  # a coordinate of rows that pad a leaf
DEPTH = 128  # of the stack: two entries a level, and a KD-tree of 2**60 rows has 60 levels
UNIT = 2.0**-23


class Leaves:
    """A KD-tree of n rows and d features, made ready for searches by whole leaves."""

    def __init__(self, tree: KdTree) -> None:
        self.tree = tree
        n_features = tree.data.shape[1]
        self.nodes = np.flatnonzero(tree.is_leaf & (tree.ends > tree.starts))  # (n_leaves,)
        self.place = np.full(len(tree.is_leaf), -1)  # of each node among the leaves; -1: it is none
        self.place[self.nodes] = np.arange(len(self.nodes))
        self.width = -(-int((tree.ends - tree.starts)[self.nodes].max()) // LANES) * LANES
        tiles = workspace(len(self.nodes) * n_features * self.width, np.float32)
        self.tiles = tiles.reshape(len(self.nodes), n_features, self.width)
        # By how much, as a factor, a distance from the vectors may exceed a limit before the exact one does for sure.
        self.slack = np.float32(1 + 2 * (n_features + 4) * UNIT)
        in_threads(len(self.nodes), self._fill)

    def _fill(self, first: int, last: int) -> None:
        tree = self.tree
        _fill(tree.data, tree.rows, tree.starts, tree.ends, self.nodes, self.tiles, first, last)

    @property
    def shape(self) -> tuple[Any, ...]:
        """What kernels want to know, from `data` to `slack`."""
        tree = self.tree
        ranges = (tree.data, tree.rows, tree.starts, tree.ends, tree.lower, tree.upper)
        return (*ranges, self.nodes, self.place, self.tiles, self.slack)

    def scratch(self) -> tuple[np.ndarray, ...]:
        """What a thread writes to: three values for each row of a leaf, and the stack of nodes and their bounds."""
        three = (workspace(self.width, np.float32) for _ in range(3))
        return (*three, np.empty(DEPTH, np.int64), np.empty(DEPTH, np.float32))


@compiled()
def _fill(data, rows, starts, ends, leaves, tiles, first, last):  # type: ignore[no-untyped-def]
    for leaf in range(first, last):
        start, end = starts[leaves[leaf]], ends[leaves[leaf]]
        for f in range(tiles.shape[1]):
            for c in range(tiles.shape[2]):
                tiles[leaf, f, c] = data[rows[start + c], f] if start + c < end else FAR


@compiled(inner=True)
def to_rows(tile, point, out):  # type: ignore[no-untyped-def]
    """Squared distances of a point to the rows of a tile."""
    for c in range(tile.shape[1]):
        out[c] = 0
    for f in range(tile.shape[0]):
        x = point[f]
        for c in range(tile.shape[1]):
            difference = tile[f, c] - x
            out[c] += difference * difference


@compiled(inner=True)
def to_box(tile, low, high, out):  # type: ignore[no-untyped-def]
    """Squared distances of the rows of a tile to a box."""
    for c in range(tile.shape[1]):
        out[c] = 0
    for f in range(tile.shape[0]):
        for c in range(tile.shape[1]):
            gap = max(max(low[f] - tile[f, c], tile[f, c] - high[f]), np.float32(0))
            out[c] += gap * gap


@compiled(inner=True, fastmath=False)
def open_node(lower, upper, home, node, nodes, bounds, waiting):  # type: ignore[no-untyped-def]
    """Put the two parts of a node on the stack in its place, the one whose box is nearer to that of `home` on top."""
    for part in range(2):
        child, total = 2 * node + 2 - part, np.float32(0)
        for f in range(lower.shape[1]):
            gap = max(lower[home, f] - upper[child, f], lower[child, f] - upper[home, f])
            if gap > 0:
                total += gap * gap
        nodes[waiting + part], bounds[waiting + part] = child, total
    if bounds[waiting] < bounds[waiting + 1]:
        nodes[waiting], nodes[waiting + 1] = nodes[waiting + 1], nodes[waiting]
        bounds[waiting], bounds[waiting + 1] = bounds[waiting + 1], bounds[waiting]
    return waiting + 2
