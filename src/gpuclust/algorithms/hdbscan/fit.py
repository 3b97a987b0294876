"""HDBSCAN in two steps: `spanning_tree` is expensive and runs once for each matrix and ``min_samples``; `extract_clusters` is
cheap and runs once for each setting.

`spanning_tree` gives the tree that fast_hdbscan finds (Borůvka over a KD-tree, float32 distances), with kernels of our own.
`tree_from_edges` accepts the edges of another implementation, such as cuML's. `extract_clusters` works on host arrays only.

``min_samples`` does not count the row itself, as in hdbscan, fast_hdbscan and cuML (scikit-learn counts it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpuclust.algorithms.hdbscan import condense as kernels
from gpuclust.algorithms.hdbscan.boruvka import minimum_spanning_edges
from gpuclust.algorithms.hdbscan.quality import cluster_persistence, relative_validity
from gpuclust.errors import FitError
from gpuclust.runtime.backend import Progress

METHODS = ("eom", "leaf")
# Distances are squared in float32: a larger coordinate would overflow to infinity.
MAX_COORDINATE = 1e18


@dataclass(frozen=True)
class SpanningTree:
    """The minimum spanning tree of mutual reachability, which all cuts with the same matrix and ``min_samples`` share.

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
    """A condensed tree with the entries of hdbscan's, in the same order; it can be drawn, and new rows can be placed in it.

    ``parent``, ``child``, ``child_size`` (m,) int64 and ``lambda_val`` (m,) float32 (infinite between identical rows) have
    one entry for each row that leaves a cluster and for each cluster that splits off. Clusters are numbered from
    ``n_rows``, which is the root. ``selected`` (n_clusters,) int64 is the cluster number of each label.
    """

    parent: np.ndarray
    child: np.ndarray
    lambda_val: np.ndarray
    child_size: np.ndarray
    selected: np.ndarray
    n_rows: int

    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """The parent's position of each cluster, root first, (n_nodes,) int64, -1 for the root; and the density at which the
        cluster splits off, (n_nodes,) float32."""
        splits = self.child >= self.n_rows
        parent = np.full(int(splits.sum()) + 1, -1, dtype=np.int64)
        birth = np.zeros(len(parent), dtype=np.float32)
        parent[self.child[splits] - self.n_rows] = self.parent[splits] - self.n_rows
        birth[self.child[splits] - self.n_rows] = self.lambda_val[splits]
        return parent, birth


@dataclass(frozen=True)
class HdbscanResult:
    """One clustering cut from a spanning tree.

    ``labels`` (n,) int32, -1 for noise, numbered as in fast_hdbscan. ``probabilities`` (n,) float64 in [0, 1], 0 for
    noise. ``persistence`` (n_clusters,) float64 in [0, 1]: the stability divided by its upper bound, which is the cluster's
    number of rows times the greatest finite density (hdbscan's ``cluster_persistence_``). ``relative_validity`` in [-1, 1].
    ``root_density``: where the root is the only cluster, a row belongs to it from this density on.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    persistence: np.ndarray
    relative_validity: float
    condensed: CondensedTree
    root_density: float

    @property
    def n_clusters(self) -> int:
        """The number of clusters; noise is not counted."""
        return len(self.persistence)


def spanning_tree(X: np.ndarray, *, min_samples: int, progress: Progress = lambda _: None) -> SpanningTree:
    """The minimum spanning tree of X (n_samples, n_features) under mutual reachability, in Euclidean distance.

    Follows Campello, Moulavi and Sander 2013 and McInnes and Healy 2017, with fast_hdbscan's Borůvka in float32. Where
    pairs of rows have exactly the same distance, several trees are minimal. This function always gives the one that
    fast_hdbscan finds with one thread, whatever the number of threads (fast_hdbscan's own choice depends on their timing).
    ``progress`` receives the fraction done, in [0, 1]. Raises FitError for values that are not finite or above 1e18, and when
    ``min_samples`` is not in 1..n_samples-1.
    """
    points = _checked_points(X, min_samples)
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

    Raises FitError when the edges are not a spanning tree of all rows.
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

    ``max_cluster_size`` limits the clusters of ``eom`` only; 0 is no limit. The result differs from fast_hdbscan 0.3.4 in
    two cases, where fast_hdbscan's is arbitrary or a KeyError: identical rows are never split from one another, and a single
    cluster beside one that is too large is kept. As in fast_hdbscan, all rows of a tree that never splits are noise. Raises
    FitError for a setting that is out of range.
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
    """The nodes that never split, without the root: a mask (n_nodes,) bool."""
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
    """The density (lambda) of each distance: 1 / distance in float32, infinite for 0."""
    with np.errstate(divide="ignore", over="ignore"):
        return (1.0 / np.asarray(distances, dtype=np.float64)).astype(np.float32)
