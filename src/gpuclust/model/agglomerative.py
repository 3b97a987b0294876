"""Prediction with an agglomerative clustering: the cluster of the nearest leaf of its tree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.kmeans import membership, soft
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, Placed, PredictionRule, register_rule

KD_TREE_COLUMNS = 16
"""With more columns a KD-tree visits most leaves, and a matrix product is faster."""
CANDIDATES = 4
"""The leaves whose distances are computed exactly, feature by feature as K-Means does, so that the lowest number wins a tie."""

ARRAYS = {
    "leaves": ArraySpec("f", ("leaves", "columns")),
    "leaf_sizes": ArraySpec("f", ("leaves",)),
    "leaf_labels": ArraySpec("i", ("leaves",)),
    "centers": ArraySpec("f", ("clusters", "columns")),
    "merges": ArraySpec("f", ("merges", "merge")),
}


def check(parameters: Parameters, options: Options) -> None:
    """The labels of the leaves are clusters, and there is one merge fewer than leaves."""
    labels, merges = parameters["leaf_labels"], parameters["merges"]
    if labels.min() < 0 or labels.max() >= len(parameters["centers"]):
        raise ModelError("the array parameters/leaf_labels has values that are not clusters")
    if merges.shape != (len(labels) - 1, 4):
        raise ModelError(f"the array parameters/merges has the shape {merges.shape}, not ({len(labels) - 1}, 4)")


def nearest_leaf(leaves: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The function from points (n, n_columns) to the numbers (n,) int64 of their nearest leaves (m, n_columns); the lowest wins a tie."""
    leaves = leaves.astype(np.float64)
    wanted = min(CANDIDATES, len(leaves))
    if leaves.shape[1] <= KD_TREE_COLUMNS:
        from scipy.spatial import KDTree

        tree = KDTree(leaves)
    else:
        tree, half_norms = None, np.einsum("ij,ij->i", leaves, leaves) / 2

    def run(points: np.ndarray) -> np.ndarray:
        points = points.astype(np.float64)
        if tree is not None:
            near = tree.query(points, k=np.arange(1, wanted + 1))[1]
        else:
            near = np.argpartition(half_norms - points @ leaves.T, wanted - 1, axis=1)[:, :wanted]
        near = np.sort(near, axis=1)
        squares = np.zeros(near.shape)
        for j in range(leaves.shape[1]):
            squares += (points[:, j, None] - leaves[near, j]) ** 2
        return np.asarray(near[np.arange(len(near)), squares.argmin(axis=1)])

    return run


def place(parameters: Parameters, options: Options) -> Place:
    """The cluster of the nearest leaf; confidence and distance from the centres of the clusters."""
    del options
    leaf, labels, centers = nearest_leaf(parameters["leaves"]), parameters["leaf_labels"], parameters["centers"]

    def run(points: np.ndarray) -> Placed:
        own = labels[leaf(points)]
        return own, *membership(points, own, centers)

    return run


register_rule(
    PredictionRule("agglomerative", ARRAYS, place, check=check, soft=soft, outlier="distance to the nearest centre")
)
