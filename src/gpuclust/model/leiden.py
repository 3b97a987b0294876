"""Prediction with Leiden: the cluster of most of the nearest fitted rows.

The arrays of a model:

    points                (n, d) float32   the fitted rows
    n_neighbors           () int64         how many of them vote
    training_labels       (n,) int32       their clusters
    training_confidence   (n,) float32     the share of the weight of a row's edges that leads to its own cluster
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, Placed, PredictionRule, Soft, register_rule

# Rows (m, d) float32 -> distances (m, k) to the nearest fitted rows, and their numbers (m, k), nearest first.
Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
ARRAYS = {
    "points": ArraySpec("f", ("rows", "columns")),
    "n_neighbors": ArraySpec("i", ()),
    "training_labels": ArraySpec("i", ("rows",)),
    "training_confidence": ArraySpec("f", ("rows",)),
}
TREE_COLUMNS = 16
"""Up to this many columns a KD-tree finds the nearest rows; beyond, all are compared by matrix products."""
FITTED_ROWS = 16_384
"""Fitted rows that are compared at once."""
QUERIES = 256
"""New rows that are compared at once."""


def check(parameters: Parameters, options: Options) -> None:
    """Labels number clusters from 0, and there are as many rows as vote."""
    labels = parameters["training_labels"]
    if not np.array_equal(np.unique(labels), np.arange(int(labels.max()) + 1)):
        raise ModelError("the array parameters/training_labels does not number clusters from 0")
    if not 1 <= parameters["n_neighbors"] <= len(labels):
        raise ModelError(f"the array parameters/n_neighbors has values outside 1 to {len(labels)}")


def place(parameters: Parameters, options: Options) -> Place:
    """The cluster that most of the nearest fitted rows are in, ties to the one with the lower number; confidence is their share.

    A row that equals a fitted row gets that row's cluster and confidence; of several identical fitted rows one stands for all.
    """
    points, k = parameters["points"], int(parameters["n_neighbors"])
    labels, confidence = parameters["training_labels"], parameters["training_confidence"]
    search = _search(points, k)

    def run(rows: np.ndarray) -> Placed:
        distance, near = search(np.asarray(rows, dtype=np.float32))
        voted = np.sort(labels[near], axis=1)
        votes = (voted[:, :, None] == voted[:, None, :]).sum(axis=2)
        most = votes.argmax(axis=1)[:, None]  # of equal ones the first, which has the lowest number
        found, share = np.take_along_axis(voted, most, 1)[:, 0], np.take_along_axis(votes, most, 1)[:, 0] / k
        known = distance[:, 0] == 0.0
        same = near[:, 0]
        return np.where(known, labels[same], found), np.where(known, confidence[same], share), np.nan

    return run


def soft(parameters: Parameters, options: Options) -> Soft:
    """The share of the nearest fitted rows that is in each cluster. The outlier score is the distance to the last of them (Ramaswamy et al.
    2000)."""
    labels, k = parameters["training_labels"], int(parameters["n_neighbors"])
    n_clusters, search = int(labels.max()) + 1, _search(parameters["points"], k)

    def run(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance, near = search(np.asarray(rows, dtype=np.float32))
        cells = np.arange(len(rows))[:, None] * n_clusters + labels[near]
        votes = np.bincount(cells.ravel(), minlength=len(rows) * n_clusters)
        return votes.reshape(len(rows), n_clusters) / k, distance[:, -1]

    return run


def _search(points: np.ndarray, k: int) -> Search:
    return _by_tree(points, k) if points.shape[1] <= TREE_COLUMNS else _by_products(points, k)


def _by_tree(points: np.ndarray, k: int) -> Search:
    from scipy.spatial import KDTree

    tree = KDTree(points)
    return lambda rows: tree.query(rows, k=np.arange(1, k + 1))


def _by_products(points: np.ndarray, k: int) -> Search:
    """The k nearest by |p|² - 2 p·x in float32, then in the order of their distances, computed from differences."""
    norms = np.einsum("ij,ij->i", points, points)

    def search(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [_nearest(points, norms, rows[start : start + QUERIES], k) for start in range(0, len(rows), QUERIES)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]

    return search


def _nearest(points: np.ndarray, norms: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances (m, k) float64 and numbers (m, k) of the k nearest ``points`` (n, d) of each of the rows (m, d), nearest first."""
    best = np.empty((len(rows), 0), dtype=np.float32)
    near = np.empty((len(rows), 0), dtype=np.int64)
    for start in range(0, len(points), FITTED_ROWS):
        stop = min(start + FITTED_ROWS, len(points))
        best = np.concatenate([best, norms[start:stop] - 2.0 * (rows @ points[start:stop].T)], axis=1)
        near = np.concatenate([near, np.broadcast_to(np.arange(start, stop), (len(rows), stop - start))], axis=1)
        if best.shape[1] > k:
            kept = np.argpartition(best, k - 1, axis=1)[:, :k]
            best, near = np.take_along_axis(best, kept, 1), np.take_along_axis(near, kept, 1)
    distance = np.sqrt(((points[near].astype(np.float64) - rows[:, None]) ** 2).sum(axis=2))
    order = np.lexsort((near, distance), axis=1)
    return np.take_along_axis(distance, order, 1), np.take_along_axis(near, order, 1)


register_rule(
    PredictionRule(
        "leiden", ARRAYS, place, check=check, soft=soft, outlier="distance to the last of the nearest rows that vote"
    )
)
