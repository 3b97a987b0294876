"""HDBSCAN in two steps: `spanning_tree`, expensive, once per matrix and min_samples; `extract_clusters`, cheap, once per setting.

The spanning tree is the one that fast_hdbscan finds (Borůvka over a KD-tree, float32 distances), by kernels of our own, or any
tree of the same meaning, such as cuML's, through `tree_from_edges`. Cutting takes host arrays alone.

`min_samples` does not count the row itself, as in hdbscan, fast_hdbscan and cuML (scikit-learn counts it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpuclust.algorithms.hdbscan import condense as kernels
from gpuclust.algorithms.hdbscan.quality import (
    PersistenceCurve,
    cluster_persistence,
    persistence_curve,
    relative_validity,
)
from gpuclust.errors import FitError
from gpuclust.model.records import NOISE
from gpuclust.runtime.backend import Progress

__all__ = [
    "NOISE",
    "CondensedTree",
    "HdbscanResult",
    "PersistenceCurve",
    "SpanningTree",
    "auto_min_cluster_size",
    "extract_clusters",
    "persistence_curve",
    "relative_validity",
    "spanning_tree",
    "tree_from_edges",
]

METHODS = ("eom", "leaf")
# Distances are squared in float32: a larger coordinate would overflow to infinity.
MAX_COORDINATE = 1e18


@dataclass(frozen=True)
class SpanningTree:
    """The minimum spanning tree of mutual reachability: all that the cuts of one (matrix, min_samples) share.

    ``edges`` (n-1, 3) float64: row, row, mutual reachability distance, sorted by distance, then rows.
    ``core_distances`` (n,) float64: distance to the ``min_samples``-th other row.
    ``linkage`` (n-1, 4) float64: single linkage in SciPy's layout (the larger id first).
    """

    edges: np.ndarray
    core_distances: np.ndarray
    min_samples: int
    linkage: np.ndarray

    @property
    def n_rows(self) -> int:
        """Rows of the matrix."""
        return len(self.edges) + 1

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays hold."""
        return self.edges.nbytes + self.core_distances.nbytes + self.linkage.nbytes


@dataclass(frozen=True)
class CondensedTree:
    """A condensed tree, row for row as hdbscan's: enough to draw it and to place new rows in it.

    ``parent``, ``child``, ``child_size`` (int64) and ``lambda_val`` (float32; infinite between identical rows) have
    one entry per row that falls out of a cluster and per cluster that splits off; clusters are numbered from
    ``n_rows``, the root. ``selected`` (n_clusters,) int64: the cluster number of each label.
    """

    parent: np.ndarray
    child: np.ndarray
    lambda_val: np.ndarray
    child_size: np.ndarray
    selected: np.ndarray
    n_rows: int

    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Per cluster, root first: its parent's position, int64, -1 for the root; the density it is born at, float32."""
        splits = self.child >= self.n_rows
        parent = np.full(int(splits.sum()) + 1, -1, dtype=np.int64)
        birth = np.zeros(len(parent), dtype=np.float32)
        parent[self.child[splits] - self.n_rows] = self.parent[splits] - self.n_rows
        birth[self.child[splits] - self.n_rows] = self.lambda_val[splits]
        return parent, birth


@dataclass(frozen=True)
class HdbscanResult:
    """One clustering cut from a spanning tree.

    ``labels`` (n,) int32, -1 noise, numbered as fast_hdbscan does. ``probabilities`` (n,) float64 in [0, 1], 0 for
    noise. ``persistence`` (n_clusters,) float64 in [0, 1]: stability over its bound, the cluster's rows times the
    greatest finite density (hdbscan's ``cluster_persistence_``). ``relative_validity`` in [-1, 1].
    ``root_density``: where the root is the one cluster, rows belong to it from this density on.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    persistence: np.ndarray
    relative_validity: float
    condensed: CondensedTree
    root_density: float

    @property
    def n_clusters(self) -> int:
        """Clusters, noise not counted."""
        return len(self.persistence)


def spanning_tree(X: np.ndarray, *, min_samples: int, progress: Progress = lambda _: None) -> SpanningTree:
    """The minimum spanning tree of X (n_samples, n_features) under mutual reachability, in Euclidean distance.

    Follows Campello, Moulavi and Sander 2013 and McInnes and Healy 2017, by fast_hdbscan's Borůvka in float32. Where
    rows are at exactly the same distance more than one tree is minimal: this is always the one that fast_hdbscan finds
    with one thread, whatever the number of threads (fast_hdbscan's own choice depends on their timing).
    Raises FitError on non-finite or huge values and when ``min_samples`` is not in 1..n_samples-1.
    """
    points = _checked_points(X, min_samples)
    from gpuclust.algorithms.hdbscan.boruvka import minimum_spanning_edges

    edges, core_distances = minimum_spanning_edges(points, min_samples, progress)
    return tree_from_edges(edges, core_distances, min_samples)


def _checked_points(X: np.ndarray, min_samples: int) -> np.ndarray:
    points = np.ascontiguousarray(X, dtype=np.float32)
    if points.ndim != 2:
        raise FitError(f"HDBSCAN needs a table of rows and features, not an array of shape {points.shape}")
    if not 1 <= min_samples < len(points):
        raise FitError(
            f"min_samples={min_samples} needs 1 to {len(points) - 1} for the {len(points)} rows left after cleaning; "
            "lower cluster.min_samples or loosen clean.*"
        )
    if not (np.abs(points).max(initial=0.0) <= MAX_COORDINATE):  # also true of NaN
        bad = int((~(np.abs(points) <= MAX_COORDINATE)).any(axis=1).sum())
        raise FitError(
            f"HDBSCAN needs finite values up to {MAX_COORDINATE:g} and {bad} rows have others; "
            "clean or scale the features"
        )
    return points


def tree_from_edges(edges: np.ndarray, core_distances: np.ndarray, min_samples: int) -> SpanningTree:
    """A `SpanningTree` from any spanning tree's edges (n-1, 3), in any order: row, row, mutual reachability distance.

    Raises FitError when the edges do not join all rows once.
    """
    edges = np.asarray(edges, dtype=np.float64)
    order = np.lexsort((edges[:, 1], edges[:, 0], edges[:, 2]))
    edges = np.ascontiguousarray(edges[order])
    core_distances = np.asarray(core_distances, dtype=np.float64)
    ends = edges[:, :2].astype(np.int64)
    n = len(core_distances)
    if len(edges) != n - 1 or (len(ends) and not (ends.min() >= 0 and ends.max() < n)):
        raise FitError(f"{len(edges)} edges are no spanning tree of {n} rows; {n - 1} edges between them were expected")
    if np.isnan(edges[:, 2]).any():
        raise FitError("the spanning tree has distances that are not numbers; clean or scale the features")
    linkage = kernels.linkage_from_sorted_edges(ends[:, 0].copy(), ends[:, 1].copy(), edges[:, 2].copy())
    if len(linkage) != n - 1:
        raise FitError(f"the edges of the spanning tree hold a cycle, so they do not join all {n} rows")
    return SpanningTree(edges, core_distances, int(min_samples), linkage)


def extract_clusters(
    tree: SpanningTree,
    *,
    min_cluster_size: int,
    cluster_selection_method: str = "eom",
    cluster_selection_epsilon: float = 0.0,
    max_cluster_size: int = 0,
    allow_single_cluster: bool = False,
) -> HdbscanResult:
    """Clusters of at least ``min_cluster_size`` rows, with the labels of a direct fast_hdbscan fit of the same tree.

    ``max_cluster_size`` 0 is no limit; it binds ``eom`` alone. Two departures from fast_hdbscan 0.3.4, where its
    result is arbitrary or a KeyError: identical rows are never split from one another, and a lone cluster beside
    an oversized one is kept. As there, a tree that never splits is all noise. Raises FitError on a setting out of
    range.
    """
    _check_cut(tree, min_cluster_size, cluster_selection_method, cluster_selection_epsilon, max_cluster_size)
    n = tree.n_rows
    rows = kernels.condense(tree.linkage, densities(tree.linkage[:, 2]), min_cluster_size)
    nodes = kernels.cluster_nodes(rows, n)
    if cluster_selection_method == "eom":
        selected = kernels.select_eom(nodes, max_cluster_size or n, allow_single_cluster)
    else:
        selected = _leaves(nodes.parent)
    if selected.sum() > 1 and cluster_selection_epsilon > 0.0:
        selected = kernels.merge_within_epsilon(selected, nodes, float(cluster_selection_epsilon))
    if cluster_selection_epsilon > 0.0:
        root_density = 1.0 / cluster_selection_epsilon
    else:
        root_density = float(rows.lambdas[rows.parents == n].max())
    labels, probabilities = kernels.label_rows(rows, selected, nodes.parent, root_density, n)
    condensed = CondensedTree(*rows, selected=np.flatnonzero(selected) + n, n_rows=n)
    return HdbscanResult(
        labels,
        probabilities,
        cluster_persistence(condensed, labels),
        relative_validity(tree.edges, labels),
        condensed,
        root_density,
    )


def _leaves(parent: np.ndarray) -> np.ndarray:
    """The nodes that never split, the root left out."""
    leaves = np.ones(len(parent), dtype=np.bool_)
    leaves[parent[1:]] = False
    leaves[0] = False
    return leaves


def _check_cut(tree: SpanningTree, size: int, method: str, epsilon: float, max_size: int) -> None:
    if method not in METHODS:
        raise FitError(f"cluster_selection_method={method!r} is unknown; choose {' or '.join(METHODS)}")
    if not 2 <= size <= tree.n_rows:
        raise FitError(
            f"min_cluster_size={size} needs 2 to {tree.n_rows} for {tree.n_rows} rows; lower cluster.min_cluster_size"
        )
    if not (0.0 <= epsilon < np.inf) or max_size < 0:
        raise FitError(
            f"cluster_selection_epsilon={epsilon} and max_cluster_size={max_size} must be 0 (off) or positive numbers"
        )


def densities(distances: np.ndarray) -> np.ndarray:
    """Lambda of each distance, float32: 1 / distance, infinite at zero."""
    with np.errstate(divide="ignore", over="ignore"):
        return (1.0 / np.asarray(distances, dtype=np.float64)).astype(np.float32)


def auto_min_cluster_size(tree: SpanningTree, *, base_min_cluster_size: int = 5) -> PersistenceCurve:
    """``min_cluster_size=auto``: cut at ``.chosen`` of the `persistence_curve`."""
    return persistence_curve(tree, base_min_cluster_size=base_min_cluster_size)
