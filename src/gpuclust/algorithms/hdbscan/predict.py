"""What an HDBSCAN model keeps of its fit (the arrays of `gpuclust.model.hdbscan`), and the likeliest cluster of noise rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpuclust.algorithms.hdbscan.condense import Exemplars, MembershipTree, top_membership
from gpuclust.algorithms.hdbscan.fit import HdbscanResult, SpanningTree
from gpuclust.model.hdbscan import exemplars_of
from gpuclust.model.records import NOISE
from gpuclust.runtime.threads import in_threads


def prediction_data(X: np.ndarray, tree: SpanningTree, cut: HdbscanResult) -> dict[str, np.ndarray]:
    """The arrays that `gpuclust.model.hdbscan` names, from the fitted rows X (n_samples, n_features) and their cut."""
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


def soft_membership(data: Mapping[str, np.ndarray], rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest cluster of every fitted row, or of those that ``rows`` (m,) numbers, noise included: labels (int32) and
    memberships (float32 in [0, 1]); without any cluster all -1 and 0.

    The greatest entry of hdbscan's ``all_points_membership_vectors``: closeness to the cluster's exemplars x height
    at which row and cluster meet in the tree, normalised, x the chance of being in some cluster. One entry a row is
    kept, so memory does not grow with n x n_clusters. Where the tree is of a sample, ``rows`` are numbers of the table's rows, and
    those outside the sample have -1 and 0.
    """
    if rows is not None and "sample" in data:
        return _membership_of_sample(data, rows)
    wanted = slice(None) if rows is None else rows
    points, node, density = data["points"][wanted], data["row_node"][wanted], data["row_density"][wanted]
    labels = np.full(len(points), NOISE, dtype=np.int32)
    strengths = np.zeros(len(points), dtype=np.float32)
    if len(data["cluster_node"]) == 0:
        return labels, strengths
    exemplars = Exemplars(*exemplars_of(data))
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


def _membership_of_sample(data: Mapping[str, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sample = data["sample"]
    at = np.minimum(np.searchsorted(sample, rows), len(sample) - 1)
    inside = sample[at] == rows
    labels, strengths = np.full(len(rows), NOISE, dtype=np.int32), np.zeros(len(rows), dtype=np.float32)
    of_tree = {name: value for name, value in data.items() if name != "sample"}
    labels[inside], strengths[inside] = soft_membership(of_tree, at[inside])
    return labels, strengths
