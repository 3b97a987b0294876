"""Placing rows in a finished HDBSCAN clustering: `approximate_predict`, and `soft_membership` for rows that are noise.

Both need only the plain arrays of `prediction_data`, which go into a model bundle without pickle:

    points            (n, d) float32   the fitted rows, as the tree saw them
    core_distances    (n,) float64     distance to the min_samples-th other row
    min_samples       () int64
    row_node          (n,) int32       node of the condensed tree that the row falls out of; node 0 is the root
    row_density       (n,) float32     density (lambda) at which it does; infinity becomes the greatest finite one
    node_parent       (m,) int32       -1 for the root
    node_birth        (m,) float32     density at which the node split off
    node_density      (m,) float32     greatest density at which anything leaves the node
    cluster_node      (k,) int32       node of each label
    cluster_density   (k,) float32     greatest finite density at which a row leaves that node itself
    root_density      () float64       from which density rows belong to the root, where the root is the one cluster
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gpuclust.algorithms.hdbscan.condense import Exemplars, MembershipTree, top_membership
from gpuclust.algorithms.hdbscan.fit import HdbscanResult, SpanningTree
from gpuclust.errors import ModelError
from gpuclust.model.records import NOISE
from gpuclust.runtime.threads import in_threads

# Neighbours held at once: 64 MB of distances and row numbers, whatever min_samples is.
NEIGHBOURS_AT_ONCE = 1 << 22


def prediction_data(X: np.ndarray, tree: SpanningTree, cut: HdbscanResult) -> dict[str, np.ndarray]:
    """The arrays named at the top of this module, from the fitted rows X (n_samples, n_features) and their cut."""
    condensed = cut.condensed
    n, n_clusters = condensed.n_rows, cut.n_clusters
    lam = _finite(condensed.lambda_val)
    node = condensed.parent - n
    is_row = condensed.child < n
    parent, birth = condensed.nodes()
    density = np.zeros(len(parent), dtype=np.float32)
    np.maximum.at(density, node, lam)
    row_node = np.zeros(n, dtype=np.int32)
    row_density = np.zeros(n, dtype=np.float32)
    row_node[condensed.child[is_row]] = node[is_row]
    row_density[condensed.child[is_row]] = lam[is_row]
    label_of = np.full(len(parent), NOISE, dtype=np.int64)
    label_of[condensed.selected - n] = np.arange(n_clusters)
    own = is_row & np.isfinite(condensed.lambda_val) & (label_of[node] >= 0)
    cluster_density = np.zeros(n_clusters, dtype=np.float32)
    np.maximum.at(cluster_density, label_of[node[own]], lam[own])
    return {
        "points": np.ascontiguousarray(X, dtype=np.float32),
        "core_distances": np.asarray(tree.core_distances, dtype=np.float64),
        "min_samples": np.asarray(tree.min_samples, dtype=np.int64),
        "row_node": row_node,
        "row_density": row_density,
        "node_parent": parent.astype(np.int32),
        "node_birth": birth,
        "node_density": density,
        "cluster_node": (condensed.selected - n).astype(np.int32),
        "cluster_density": cluster_density,
        "root_density": np.asarray(cut.root_density, dtype=np.float64),
    }


def _finite(lam: np.ndarray) -> np.ndarray:
    """Densities with infinity replaced by the greatest finite one."""
    finite = np.isfinite(lam)
    return np.where(finite, lam, lam[finite].max(initial=0.0)).astype(np.float32)


def approximate_predict(data: Mapping[str, np.ndarray], X_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (int32, -1 noise) and probabilities (float32 in [0, 1]) of new rows X_new (n_new, n_features).

    As hdbscan's ``approximate_predict``: each row joins its nearest fitted row by mutual reachability, among its
    ``2 * min_samples`` nearest, and falls out of the tree with it, or before it where the row itself is less dense.
    The fitted core distances are used (hdbscan takes them one neighbour short), and a row's density is at most its
    neighbour's.

    What is promised for the fitted rows: a row that equals a fitted row is given that row's label and probability. Where
    several fitted rows are identical, one of them stands for all: only rows that share all features with others and
    tie between two clusters can differ from the fit. Raises ModelError when the number of features differs.
    """
    points = _as_rows(data, X_new)
    labels = np.full(len(points), NOISE, dtype=np.int32)
    probabilities = np.zeros(len(points), dtype=np.float32)
    label_of = _labels_below(data)
    for part, node, density in _placed(data, points):
        label = label_of[node]
        if len(data["cluster_node"]) and data["cluster_node"][0] == 0:
            label = np.where(density >= float(data["root_density"]), label, NOISE)
        found = label >= 0
        greatest = data["cluster_density"][label[found]]
        share = np.divide(density[found], greatest, out=np.ones(found.sum(), np.float32), where=greatest > 0)
        labels[part] = label
        probabilities[part][found] = np.minimum(share, 1.0)
    return labels, probabilities


def soft_membership(
    data: Mapping[str, np.ndarray], X_new: np.ndarray | None = None, *, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest cluster of every row, noise included: labels (int32) and memberships (float32 in [0, 1]).

    The greatest entry of hdbscan's ``all_points_membership_vectors``: closeness to the cluster's exemplars x height
    at which row and cluster meet in the tree, normalised, x the chance of being in some cluster. One entry a row is
    kept, so memory does not grow with n x n_clusters. Without ``X_new`` for the fitted rows, or those of them that
    ``rows`` (m,) numbers; new rows are placed in the tree as by `approximate_predict`. Without any cluster: all -1 and 0. Raises ModelError as that does.
    """
    if X_new is None:
        wanted = slice(None) if rows is None else rows
        points, node, density = data["points"][wanted], data["row_node"][wanted], data["row_density"][wanted]
    else:
        points = _as_rows(data, X_new)
        node = np.zeros(len(points), dtype=np.int32)
        density = np.zeros(len(points), dtype=np.float32)
        for part, nodes, densities in _placed(data, points):
            node[part], density[part] = nodes, densities
    labels = np.full(len(points), NOISE, dtype=np.int32)
    strengths = np.zeros(len(points), dtype=np.float32)
    if len(data["cluster_node"]) == 0:
        return labels, strengths
    exemplars = Exemplars(*_exemplars(data))
    tree = MembershipTree(data["node_parent"], data["node_birth"], data["node_density"], data["cluster_node"])

    order = np.argsort(node, kind="stable")
    points, node, density = points[order], node[order], density[order]
    found, strength = labels.copy(), strengths.copy()

    def run(first: int, last: int) -> None:
        rows = slice(first, last)
        meeting = np.empty(len(data["node_parent"]))
        top_membership(points[rows], node[rows], density[rows], exemplars, tree, meeting, found[rows], strength[rows])

    in_threads(len(points), run)
    labels[order], strengths[order] = found, strength
    return labels, strengths


def _as_rows(data: Mapping[str, np.ndarray], X_new: np.ndarray) -> np.ndarray:
    points = np.ascontiguousarray(X_new, dtype=np.float32)
    width = data["points"].shape[1]
    if points.ndim != 2 or points.shape[1] != width:
        raise ModelError(f"rows of shape {points.shape} do not fit this model: it takes {width} features a row")
    return points


def _labels_below(data: Mapping[str, np.ndarray]) -> np.ndarray:
    """The label of each node: its own, else its nearest selected ancestor's, else noise."""
    label_of = np.full(len(data["node_parent"]), NOISE, dtype=np.int32)
    label_of[data["cluster_node"]] = np.arange(len(data["cluster_node"]))
    for node in range(1, len(label_of)):  # parents have lower numbers
        if label_of[node] == NOISE:
            label_of[node] = label_of[data["node_parent"][node]]
    return label_of


def _placed(data: Mapping[str, np.ndarray], points: np.ndarray) -> Iterator[tuple[slice, Any, Any]]:
    """Node and density of each row in the condensed tree, batch by batch."""
    from scipy.spatial import KDTree

    n = len(data["points"])
    min_samples = int(data["min_samples"])
    k = min(2 * min_samples, n)
    search = KDTree(data["points"])
    core = data["core_distances"]
    step = max(1, NEIGHBOURS_AT_ONCE // k)
    for start in range(0, len(points), step):
        part = slice(start, min(start + step, len(points)))
        distance, neighbour = search.query(points[part], k=k, workers=-1)
        reach = np.maximum(np.maximum(distance, core[neighbour]), distance[:, min_samples : min_samples + 1])
        reach[distance[:, 0] == 0.0, 0] = 0.0  # an identical fitted row: fall out with it, free of rounding
        best = reach.argmin(axis=1)
        row = np.arange(len(best))
        nearest, reach = neighbour[row, best], reach[row, best]
        yield (part, *_fall(data, nearest, reach))


def _fall(data: Mapping[str, np.ndarray], nearest: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the neighbour's node up to the one that a row of density 1 / reach falls out of."""
    with np.errstate(divide="ignore"):
        own = 1.0 / reach
    node = data["row_node"][nearest].astype(np.int64)
    density = data["row_density"][nearest].astype(np.float64)
    climbing = np.flatnonzero(own < density)
    density = np.minimum(density, own)
    while len(climbing):
        at = node[climbing]
        climbing = climbing[(at > 0) & (data["node_birth"][at] >= own[climbing])]
        node[climbing] = data["node_parent"][node[climbing]]
    return node, density


def _exemplars(data: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The densest rows of every leaf under each cluster, grouped by label, and where each group starts, (k + 1,)."""
    parent = data["node_parent"]
    is_leaf = np.ones(len(parent), dtype=bool)
    is_leaf[parent[1:]] = False
    node = data["row_node"]
    label = _labels_below(data)[node]
    rows = np.flatnonzero(is_leaf[node] & (label >= 0) & (data["row_density"] == data["node_density"][node]))
    rows = rows[np.argsort(label[rows], kind="stable")]
    starts = np.searchsorted(label[rows], np.arange(len(data["cluster_node"]) + 1))
    return np.ascontiguousarray(data["points"][rows]), starts.astype(np.int64)
