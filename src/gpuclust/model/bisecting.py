"""Prediction with bisecting K-Means: down the tree of divisions, at each to the nearer of the two centres."""

from __future__ import annotations

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.kmeans import membership, soft, squared_distances
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, Placed, PredictionRule, register_rule

ARRAYS = {
    "centers": ArraySpec("f", ("clusters", "columns")),
    "node_centers": ArraySpec("f", ("nodes", "columns")),
    "node_labels": ArraySpec("i", ("nodes",)),
    "divided": ArraySpec("i", ("divisions",)),
}


def check(parameters: Parameters, options: Options) -> None:
    """Each division is of a node that exists before it, and the undivided nodes have the labels of the clusters."""
    divided, labels = parameters["divided"], parameters["node_labels"]
    n_clusters, n_nodes = len(parameters["centers"]), 2 * len(divided) + 1
    if len(labels) != n_nodes or n_clusters != len(divided) + 1:
        raise ModelError(f"{len(labels)} nodes and {n_clusters} clusters do not fit {len(divided)} divisions")
    if (divided < 0).any() or (divided > 2 * np.arange(len(divided))).any() or len(np.unique(divided)) < len(divided):
        raise ModelError("the array parameters/divided is not a tree")
    ends = np.setdiff1d(np.arange(n_nodes), divided)
    if not np.array_equal(np.sort(labels[ends]), np.arange(n_clusters)):
        raise ModelError("the array parameters/node_labels must contain each cluster exactly once")


def descend(points: np.ndarray, divided: np.ndarray, node_centers: np.ndarray) -> np.ndarray:
    """The undivided node (n,) int64 of each point (n, n_columns). Division i of node ``divided[i]`` makes the nodes 2i + 1 and 2i + 2; a tie
    goes to the first."""
    node = np.zeros(len(points), dtype=np.int64)
    for i, parent in enumerate(divided.tolist()):
        rows = np.flatnonzero(node == parent)
        if len(rows):
            first = 2 * i + 1
            node[rows] = first + squared_distances(points[rows], node_centers[first : first + 2]).argmin(axis=1)
    return node


def place(parameters: Parameters, options: Options) -> Place:
    """The cluster of the undivided node; confidence and distance from the centres of the clusters."""
    del options
    centers, node_centers = (parameters[name].astype(np.float64) for name in ("centers", "node_centers"))
    divided, labels = parameters["divided"], parameters["node_labels"]

    def run(points: np.ndarray) -> Placed:
        own = labels[descend(points, divided, node_centers)]
        return own, *membership(points, own, centers)

    return run


register_rule(
    PredictionRule("bisecting", ARRAYS, place, check=check, soft=soft, outlier="distance to the nearest centre")
)
