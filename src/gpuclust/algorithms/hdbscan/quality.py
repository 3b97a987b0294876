"""The quality of clusters cut from a tree: persistence, relative validity, and the persistence curve over all sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuclust.algorithms.hdbscan import condense as kernels
from gpuclust.errors import FitError

if TYPE_CHECKING:
    from gpuclust.algorithms.hdbscan.fit import CondensedTree, SpanningTree


@dataclass(frozen=True)
class PersistenceCurve:
    """Total persistence of the leaf clusters over ``min_cluster_size``.

    ``sizes`` (m,) int64, ascending: the sizes above which the set of leaf clusters changes. ``total_persistence`` (m,)
    float32. ``chosen`` is the ``min_cluster_size`` to use: the size of the highest peak plus 1.
    """

    sizes: np.ndarray
    total_persistence: np.ndarray
    chosen: int


def persistence_curve(tree: SpanningTree, *, base_min_cluster_size: int = 5, weighted: bool = True) -> PersistenceCurve:
    """Rank all sizes from ``base_min_cluster_size`` on, from one tree, as PLSCAN does (Bot, McInnes and Aerts 2025).

    The total persistence of a size is the sum over its leaf clusters of the range of sizes in which each exists, weighted by
    density. The values are those of fast_hdbscan's ``PLSCAN`` (``min_cluster_sizes_``, ``total_persistence_``), and
    ``extract_clusters(tree, min_cluster_size=chosen, cluster_selection_method="leaf")`` gives its first layer. Where the
    curve has no inner peak, its maximum is chosen. Without weights the values are those of fast_plscan's measure ``size``, and the maximum is
    chosen. Raises FitError when ``base_min_cluster_size`` is not in 2..n_rows.
    """
    n = tree.n_rows
    if not 2 <= base_min_cluster_size <= n:
        raise FitError(f"base_min_cluster_size={base_min_cluster_size} needs 2 to {n} for {n} rows; lower it")
    tree_rows = kernels.condense(tree.linkage, _relative_densities(tree), base_min_cluster_size)
    parents, children, lambdas, sizes = (column[tree_rows.children >= n] for column in tree_rows)
    if len(children) == 0:
        return PersistenceCurve(np.empty(0, np.int64), np.empty(0, np.float32), base_min_cluster_size)
    birth, death, weight = _barcode(parents - n, children - n, lambdas, sizes, n, base_min_cluster_size)
    changes = np.unique(birth)
    born, dead, share = birth[1:], death[1:], weight[1:]
    lasts = dead > born
    amount = (dead - (born * share if weighted else born))[lasts]
    steps = np.zeros(len(changes) + 1)
    np.add.at(steps, np.searchsorted(changes, born[lasts]), amount)
    np.subtract.at(steps, np.searchsorted(changes, dead[lasts]), amount)
    total = np.maximum(np.cumsum(steps[:-1]), 0.0).astype(np.float32)
    best = _highest_peak(total) if weighted else int(total.argmax())
    return PersistenceCurve(changes, total, int(changes[best]) + 1)


def layer_sizes(curve: PersistenceCurve) -> np.ndarray:
    """The ``min_cluster_size`` of each peak of a curve, (m,) int64, the most persistent first; both ends can be peaks."""
    from scipy.signal import find_peaks

    peaks = find_peaks(np.concatenate([[0.0], curve.total_persistence, [0.0]]))[0] - 1
    order = np.argsort(-curve.total_persistence[peaks], kind="stable")
    sizes: np.ndarray = curve.sizes[peaks[order]] + 1
    return sizes


def _relative_densities(tree: SpanningTree) -> np.ndarray:
    """PLSCAN's density exp(-d), where d is 0 at the smallest core distance and 1 at the mean core distance."""
    core = tree.core_distances[np.isfinite(tree.core_distances)]
    distance = tree.linkage[:, 2]
    if len(core) and core.mean() > core.min():
        distance = (distance - core.min()) / (core.mean() - core.min())
    density = np.exp(-distance).astype(np.float32)
    density[tree.linkage[:, 2] == 0.0] = np.inf  # identical rows are never split from one another
    return density


def _barcode(
    parent: np.ndarray, child: np.ndarray, lam: np.ndarray, size: np.ndarray, n: int, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each node, root first: the range of sizes in which it is a leaf cluster, from ``birth`` to ``death``, (n_nodes,) int64,
    and the weight of its birth, (n_nodes,) float64."""
    n_nodes = int(child[-1]) + 1
    birth = np.full(n_nodes, least, dtype=np.int64)
    death = np.full(n_nodes, n, dtype=np.int64)
    weight = np.zeros(n_nodes)
    for row in range(len(child) - 1, 0, -2):  # the two sides of a split are neighbours; splits below come later
        pair = child[row - 1 : row + 1]
        death[pair] = smaller = size[row - 1 : row + 1].min()
        with np.errstate(over="ignore"):  # a density so near to 0 that its inverse overflows weighs nothing
            weight[pair] = np.exp(-1.0 / lam[row]) if lam[row] > 0.0 else 0.0
        birth[parent[row]] = max(birth[pair].max(), smaller)
    return birth, death, weight


def _highest_peak(curve: np.ndarray) -> int:
    from scipy.signal import find_peaks

    peaks = find_peaks(curve)[0]
    return int(peaks[curve[peaks].argmax()]) if len(peaks) else int(curve.argmax())


def cluster_persistence(condensed: CondensedTree, labels: np.ndarray) -> np.ndarray:
    """The stability of each selected cluster divided by its number of rows times the greatest finite density of the tree,
    (n_clusters,) float64 in [0, 1]."""
    lam = condensed.lambda_val.astype(np.float64)
    finite = np.isfinite(lam)
    greatest = lam[finite].max(initial=0.0)
    if greatest == 0.0 or len(condensed.selected) == 0:
        return np.ones(len(condensed.selected), dtype=np.float64)
    lam[~finite] = greatest
    mass = lam * condensed.child_size
    n = condensed.n_rows
    stability = np.bincount(condensed.parent - n, weights=mass)
    is_cluster = condensed.child >= n
    stability[condensed.child[is_cluster] - n] -= mass[is_cluster]
    rows = np.bincount(labels[labels >= 0], minlength=len(condensed.selected))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = stability[condensed.selected - n] / (rows * greatest)
    return np.clip(np.nan_to_num(share, nan=1.0), 0.0, 1.0)


def relative_validity(edges: np.ndarray, labels: np.ndarray) -> float:
    """DBCV (Moulavi et al. 2014) approximated from the edges of the tree: hdbscan's ``relative_validity_``, in [-1, 1].

    The sparseness of a cluster is its longest inner edge, its separation the shortest edge to another cluster. Noise lowers
    the value by its share of the rows. Values are comparable for one matrix and one ``min_samples`` only. Without any cluster
    the value is 0.
    """
    n_clusters = int(labels.max(initial=-1)) + 1
    if n_clusters == 0:
        return 0.0
    a, b = labels[edges[:, 0].astype(np.int64)], labels[edges[:, 1].astype(np.int64)]
    length = edges[:, 2]
    inside = (a == b) & (a >= 0)
    between = (a != b) & (a >= 0) & (b >= 0)
    at_noise = (a >= 0) != (b >= 0)
    sparseness = np.zeros(n_clusters)
    np.maximum.at(sparseness, a[inside], length[inside])
    separation = np.full(n_clusters, np.inf)
    np.minimum.at(separation, a[between], length[between])
    np.minimum.at(separation, b[between], length[between])
    longest = length.max()
    # A cluster without an edge to another one: as in hdbscan, twice the longest edge; for the only cluster, twice the
    # shortest edge to noise.
    stand_in = longest if n_clusters > 1 else length[at_noise].min(initial=longest)
    separation[np.isinf(separation)] = 2.0 * stand_in
    scale = np.maximum(separation, sparseness)
    validity = np.divide(separation - sparseness, scale, out=np.zeros(n_clusters), where=scale > 0)
    rows = np.bincount(labels[labels >= 0], minlength=n_clusters)
    return float((rows * validity).sum() / len(labels))
