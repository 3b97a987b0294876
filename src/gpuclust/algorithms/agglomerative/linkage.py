"""The tree of merges of weighted points, by nearest-neighbour chains, and its cuts."""

from __future__ import annotations

import numpy as np

LINKAGES = ("ward", "average", "complete", "single")


def merge_tree(points: np.ndarray, weights: np.ndarray, linkage: str) -> np.ndarray:
    """The merges of points (m, n_columns) with weights (m,) in SciPy's layout: (m-1, 4) float64.

    A line has the two nodes that merge, the height, and the number of leaves below. A point of weight w counts as w equal points, so that
    with counts of repeated rows the tree is that of all rows without the merges at height 0. Heights are those of `scipy.cluster.hierarchy.linkage`. O(m²)
    time and 8 m² bytes.
    """
    distance = pair_distances(np.asarray(points, np.float64), np.asarray(weights, np.float64), linkage)
    first, second, height = _chain_merges(distance, np.array(weights, np.float64), linkage)
    if linkage == "ward":
        height = np.sqrt(height)
    order = np.argsort(height, kind="stable")
    return _numbered(first[order], second[order], height[order])


def pair_distances(points: np.ndarray, weights: np.ndarray, linkage: str) -> np.ndarray:
    """The distances (m, m) that the merges start from, infinite on the diagonal; of ``ward`` twice the increase of the sum of squares."""
    from scipy.spatial.distance import cdist

    if linkage == "ward":
        distance = cdist(points, points, "sqeuclidean")
        distance *= weights
        distance *= weights[:, None]
        distance *= 2.0
        for i, weight in enumerate(weights):
            distance[i] /= weight + weights
    else:
        distance = cdist(points, points)
    np.fill_diagonal(distance, np.inf)
    return np.asarray(distance)


def _chain_merges(distance: np.ndarray, weights: np.ndarray, linkage: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All merges (m-1,) in the order of the chains: two leaves that stand for their clusters, and the height. Both arrays are changed.

    Murtagh (1983): follow nearest neighbours until two are each other's, merge them, and go on from the rest of the chain. The second leaf
    stands for the union. All four linkages are reducible, so the merges sorted by height are those of the greedy algorithm.
    """
    m = len(distance)
    first, second, height = np.empty(m - 1, np.int64), np.empty(m - 1, np.int64), np.empty(m - 1)
    alive = np.ones(m, dtype=bool)
    chain: list[int] = []
    for merge in range(m - 1):
        if not chain:
            chain.append(int(alive.argmax()))
        while True:
            at = chain[-1]
            near = int(distance[at].argmin())
            if (
                len(chain) > 1 and distance[at, chain[-2]] <= distance[at, near]
            ):  # a tie goes back, so that the chain ends
                near = chain[-2]
                break
            chain.append(near)
        del chain[-2:]
        gone, kept = sorted((at, near))
        first[merge], second[merge], height[merge] = gone, kept, distance[gone, kept]
        _merge(distance, weights, gone, kept, linkage)
        alive[gone] = False
    return first, second, height


def _merge(distance: np.ndarray, weights: np.ndarray, gone: int, kept: int, linkage: str) -> None:
    """Write the distances of the union in the place of ``kept`` (Lance and Williams 1967)."""
    a, b, height = distance[gone], distance[kept], distance[gone, kept]
    wa, wb = weights[gone], weights[kept]
    if linkage == "ward":
        union = ((wa + weights) * a + (wb + weights) * b - weights * height) / (wa + wb + weights)
    elif linkage == "average":
        union = (wa * a + wb * b) / (wa + wb)
    else:
        union = np.maximum(a, b) if linkage == "complete" else np.minimum(a, b)
    union[~np.isfinite(a) | ~np.isfinite(b)] = np.inf  # merged before, and the two themselves
    distance[kept], distance[:, kept] = union, union
    distance[gone], distance[:, gone] = np.inf, np.inf
    weights[kept] += wa


def _numbered(first: np.ndarray, second: np.ndarray, height: np.ndarray) -> np.ndarray:
    """The merges sorted by height, with the numbers of nodes in the place of leaves that stand for them."""
    m = len(height) + 1
    merges = np.empty((m - 1, 4))
    parent, count = list(range(2 * m - 1)), [1] * m + [0] * (m - 1)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for i, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        low, high = sorted((root(a), root(b)))
        parent[low] = parent[high] = m + i
        count[m + i] = count[low] + count[high]
        merges[i] = low, high, height[i], count[m + i]
    return merges


def cut(merges: np.ndarray, n_clusters: int) -> np.ndarray:
    """The labels (m,) int32 of the leaves of a tree after all merges but the last ``n_clusters - 1``."""
    m = len(merges) + 1
    label = np.full(2 * m - 1, -1, dtype=np.int32)
    kept = m - n_clusters
    children = merges[:, :2].astype(np.int64)
    roots = np.setdiff1d(np.arange(m + kept), children[:kept])
    label[roots] = np.arange(n_clusters)
    for i in range(kept - 1, -1, -1):
        label[children[i]] = label[m + i]
    return label[:m]
