"""The leaves of a KD-tree as tiles for searches of all rows of a leaf at once.

The rows of a leaf go down the tree together: a subtree is skipped when its box is too far from all of them. At a leaf, their
distances to its box, and then to its rows, are computed in vector registers. A search for each row alone (Bentley, CACM 18(9),
1975) spends its time on branches that no processor predicts.

Distances from the vectors only select candidates, with a slack for their rounding; the result is computed by `rdist`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpuclust.algorithms.hdbscan.kd_tree import KdTree
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import workspace
from gpuclust.runtime.threads import in_threads

LANES = 16  # a leaf's rows are padded to a multiple of it
FAR = 1e19  # the coordinates of rows that pad a leaf
STACK_SIZE = 128  # two entries a level, and a KD-tree of 2**60 rows has 60 levels
UNIT = 2.0**-23


class SearchWorkspace(NamedTuple):
    """Arrays that one thread of a search writes to. A leaf has at most `width` rows, d features."""

    to_rows: np.ndarray  # (width,) float32, squared distances of one row to the rows of a leaf
    to_box: np.ndarray  # (width,) float32, squared distances of the rows of a leaf to the box of another node
    limits: np.ndarray  # (width,) float32, the search radius of each row of a leaf, squared
    nodes: np.ndarray  # (STACK_SIZE,) int64, nodes still to visit
    bounds: np.ndarray  # (STACK_SIZE,) float32, their least squared distances


class LeafTiles(NamedTuple):
    """A KD-tree of n rows and d features with its leaves as tiles."""

    tree: KdTree
    nodes: np.ndarray  # (n_leaves,) int64, the tree's nodes that are leaves
    leaf_of_node: np.ndarray  # (n_nodes,) int64, the position in `nodes`, or -1 for an inner node
    tiles: np.ndarray  # (n_leaves, d, width) float32, the rows of each leaf, transposed and padded
    slack: np.float32  # the factor by which an approximate squared distance may exceed a limit that the exact one meets

    def workspace(self) -> SearchWorkspace:
        """Arrays for one thread."""
        width = self.tiles.shape[2]
        to_rows, to_box, limits = (workspace(width, np.float32) for _ in range(3))
        return SearchWorkspace(
            to_rows, to_box, limits, np.empty(STACK_SIZE, np.int64), np.empty(STACK_SIZE, np.float32)
        )


def leaf_tiles(tree: KdTree) -> LeafTiles:
    """Cut the leaves of a tree into tiles."""
    n_features = tree.data.shape[1]
    nodes = np.flatnonzero(tree.is_leaf & (tree.ends > tree.starts))
    leaf_of_node = np.full(len(tree.is_leaf), -1)
    leaf_of_node[nodes] = np.arange(len(nodes))
    width = -(-int((tree.ends - tree.starts)[nodes].max()) // LANES) * LANES
    tiles = workspace(len(nodes) * n_features * width, np.float32).reshape(len(nodes), n_features, width)
    leaves = LeafTiles(tree, nodes, leaf_of_node, tiles, np.float32(1 + 2 * (n_features + 4) * UNIT))
    in_threads(len(nodes), lambda first, last: _fill(leaves, first, last))
    return leaves


@compiled()
def _fill(leaves, first, last):  # type: ignore[no-untyped-def]
    """Copy the rows of leaves first to last into their tiles."""
    data, rows, starts, ends = leaves.tree.data, leaves.tree.rows, leaves.tree.starts, leaves.tree.ends
    nodes, tiles = leaves.nodes, leaves.tiles
    for leaf in range(first, last):
        start, end = starts[nodes[leaf]], ends[nodes[leaf]]
        for f in range(tiles.shape[1]):
            for c in range(tiles.shape[2]):
                tiles[leaf, f, c] = data[rows[start + c], f] if start + c < end else FAR


@compiled(inner=True)
def to_rows(tile, point, out):  # type: ignore[no-untyped-def]
    """Squared distances, out (width,), of a point (d,) to the rows of a tile (d, width), all float32."""
    for c in range(tile.shape[1]):
        out[c] = 0
    for f in range(tile.shape[0]):
        x = point[f]
        for c in range(tile.shape[1]):
            difference = tile[f, c] - x
            out[c] += difference * difference


@compiled(inner=True)
def to_box(tile, low, high, out):  # type: ignore[no-untyped-def]
    """Squared distances, out (width,), of the rows of a tile (d, width) to the box from `low` (d,) to `high` (d,)."""
    for c in range(tile.shape[1]):
        out[c] = 0
    for f in range(tile.shape[0]):
        for c in range(tile.shape[1]):
            gap = max(max(low[f] - tile[f, c], tile[f, c] - high[f]), np.float32(0))
            out[c] += gap * gap


@compiled(inner=True, fastmath=False)
def push_children(lower, upper, home, node, nodes, bounds, waiting):  # type: ignore[no-untyped-def]
    """Push the children of a node on the stack, the one whose box is nearer to that of `home` on top; the new stack size.

    Boxes (n_nodes, d) float32; the arrays are not in their tuple here, as its reference counts would cost 3 % of a search.
    """
    return push_children_between(lower, upper, home, lower, upper, node, nodes, bounds, waiting)


@compiled(inner=True, fastmath=False)
def push_children_between(own_lower, own_upper, home, lower, upper, node, nodes, bounds, waiting):  # type: ignore[no-untyped-def]
    """The same if `home` is a node of another tree, with the boxes `own_lower` and `own_upper`."""
    for part in range(2):
        child, total = 2 * node + 2 - part, np.float32(0)
        for f in range(lower.shape[1]):
            gap = max(own_lower[home, f] - upper[child, f], lower[child, f] - own_upper[home, f])
            if gap > 0:
                total += gap * gap
        nodes[waiting + part], bounds[waiting + part] = child, total
    if bounds[waiting] < bounds[waiting + 1]:
        nodes[waiting], nodes[waiting + 1] = nodes[waiting + 1], nodes[waiting]
        bounds[waiting], bounds[waiting + 1] = bounds[waiting + 1], bounds[waiting]
    return waiting + 2
