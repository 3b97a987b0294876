"""Exact nearest neighbours in the prepared feature space, from memory-mapped arrays.

A k-d tree without inner nodes (Friedman, Bentley and Finkel, "An algorithm for finding best matches in logarithmic
expected time", ACM TOMS 1977): each cluster is split at the median of its widest dimension until a part has about
`LEAF_ROWS` rows; a leaf is a range of rows with a bounding box. A query visits the leaves by the distance to their boxes and
stops at the first box that is farther than the neighbours found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

LEAF_ROWS = 512


@dataclass(frozen=True)
class Tree:
    """The leaves of the tree.

    ``points`` (n, d) are the rows in leaf order, in the dtype of the model; ``ranks`` (n,) int32 the rank of each row;
    ``places`` (n,) int32 the row of each rank; ``starts`` (n_leaves + 1,) int64 the first row of each leaf; ``low`` and ``high``
    (n_leaves, d) float64 the boxes; ``clusters`` (n_leaves,) int32 the cluster of each leaf.
    """

    points: np.ndarray
    ranks: np.ndarray
    places: np.ndarray
    starts: np.ndarray
    low: np.ndarray
    high: np.ndarray
    clusters: np.ndarray

    def save(self, folder: Path) -> None:
        """Write ``tree-NAME.npy`` for each array."""
        for part in fields(self):
            np.save(folder / f"tree-{part.name}.npy", getattr(self, part.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Tree:
        """Map the arrays of `save` into memory."""
        mapped = {f.name: np.load(folder / f"tree-{f.name}.npy", "r", allow_pickle=False) for f in fields(cls)}
        # Plain arrays, because slicing np.memmap is much slower.
        return cls(**{name: np.asarray(array) for name, array in mapped.items()})

    def points_of(self, ranks: np.ndarray) -> np.ndarray:
        """The points of items: (len(ranks), d) float64."""
        return self.points[self.places[ranks]].astype(np.float64)

    def nearest(self, point: np.ndarray, k: int, *, cluster: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` rows nearest to a point (d,), in one cluster or in all: ranks (k,) int32 and Euclidean distances (k,)
        float64, nearest first, ties by rank.

        Exact up to the dtype of ``points``. Returns fewer rows if there are fewer.
        """
        if k < 1:
            return np.empty(0, np.int32), np.empty(0)
        point = np.asarray(point, dtype=np.float64)
        leaves = np.arange(len(self.clusters)) if cluster is None else np.flatnonzero(self.clusters == cluster)
        outside = np.maximum(np.maximum(self.low[leaves] - point, point - self.high[leaves]), 0.0)
        bounds = np.einsum("ij,ij->i", outside, outside)
        by_bound = np.argsort(bounds, kind="stable")
        leaves, bounds = leaves[by_bound], bounds[by_bound]
        ranks, squares, reach, seen = np.empty(0, np.int32), np.empty(0), np.inf, 0
        # A batch of leaves costs little more than one leaf, so batches double. The bound has a margin for rounding.
        batch = max(4, 2 * k // LEAF_ROWS)
        while seen < len(leaves) and bounds[seen] <= reach:
            taken = [leaf for leaf in range(seen, min(seen + batch, len(leaves))) if bounds[leaf] <= reach]
            found, far = self._distances(leaves[taken], point)
            close = far <= reach
            ranks, squares = np.concatenate([ranks, found[close]]), np.concatenate([squares, far[close]])
            if len(ranks) >= k:
                reach = np.partition(squares, k - 1)[k - 1]
                ranks, squares = ranks[squares <= reach], squares[squares <= reach]
                reach *= 1 + 1e-12
            seen, batch = seen + len(taken), 2 * batch
        order = np.lexsort((ranks, squares))[:k]
        return ranks[order], np.sqrt(squares[order])

    def _distances(self, leaves: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ranks and squared distances of all rows of some leaves; adjacent leaves are read together."""
        leaves = np.sort(leaves)
        gaps = np.flatnonzero(np.diff(leaves) > 1)
        starts = self.starts[leaves[np.append(0, gaps + 1)]]
        sizes = self.starts[leaves[np.append(gaps, len(leaves) - 1)] + 1] - starts
        ends = np.cumsum(sizes)
        away, ranks = np.empty((ends[-1], len(point))), np.empty(ends[-1], np.int32)
        for start, size, end in zip(starts.tolist(), sizes.tolist(), ends.tolist(), strict=True):
            np.subtract(self.points[start : start + size], point, out=away[end - size : end])
            ranks[end - size : end] = self.ranks[start : start + size]
        return ranks, np.einsum("ij,ij->i", away, away)


def build_tree(points: np.ndarray, clusters: np.ndarray) -> Tree:
    """Build the tree of points (n, d), where the row number is the rank of an item; ``clusters`` (n,) int32."""
    order = np.argsort(clusters, kind="stable").astype(np.int32)
    placed, own = points[order], clusters[order]
    edges = np.flatnonzero(np.diff(own)) + 1
    starts: list[int] = []
    for start, stop in zip(np.append(0, edges), np.append(edges, len(own)), strict=True):
        starts.extend(_split(placed, order, int(start), int(stop)))
    places = np.empty(len(order), dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return Tree(
        points=placed,
        ranks=order,
        places=places,
        starts=np.array([*starts, len(own)], dtype=np.int64),
        low=np.minimum.reduceat(placed, starts, axis=0).astype(np.float64),
        high=np.maximum.reduceat(placed, starts, axis=0).astype(np.float64),
        clusters=own[starts].astype(np.int32),
    )


def _split(points: np.ndarray, order: np.ndarray, start: int, stop: int) -> Iterator[int]:
    """Sort the rows from start to stop into leaf order, in place; yield the start of each leaf, ascending."""
    pending = [(start, stop)]
    while pending:
        start, stop = pending.pop()
        rows = points[start:stop]
        if stop - start <= LEAF_ROWS or not (spread := np.ptp(rows, axis=0)).any():
            yield start
            continue
        middle = (stop - start) // 2
        halves = np.argpartition(rows[:, spread.argmax()], middle)
        points[start:stop], order[start:stop] = rows[halves], order[start:stop][halves]
        pending += [(start + middle, stop), (start, start + middle)]
