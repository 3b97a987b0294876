"""The gain in likelihood of several clusters over one: the null hypothesis that silhouette and inertia lack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gpuclust.metrics.grouped_sums import MAX_COLUMNS, ClusterProducts, cluster_products
from gpuclust.model.records import NOISE, sizes_of
from gpuclust.runtime.backend import Array
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.passes import OneByOne, PerRow, as_blocks, each_block, on_host, xp_of

# Share of the overall covariance that each cluster's is mixed with: a cluster of identical or of few rows then has a
# finite density, and no direction can gain more than log(1 / SHRINKAGE) / 2 = 2.3 nats.
SHRINKAGE = 0.01
# Directions whose variance is below this share of the largest hold no information.
MIN_VARIANCE = 1e-9
# A covariance is estimated from at least this many rows for each parameter of a cluster.
ROWS_PER_PARAMETER = 15
# Numbers in the products of a block up to which those of several blocks are computed at once.
SMALL_PRODUCTS = 1 << 18


def split_gain(X: Array | RowBlocks, labels: np.ndarray) -> float:
    """Nats a row by which one Gaussian for each cluster describes the rows better than one Gaussian for all of them.

    X (n_samples, n_columns) on the backend's device, or in blocks; ``labels`` (n_samples,) int32 on the host, noise (-1) left out.
    This is the integrated classification likelihood (Biernacki, Celeux and Govaert 2000) of the hard partition with
    full covariances, less that of a single cluster, over n:

        sum_c p_c (log p_c - logdet(S_c) / 2) - (k - 1) m log(n) / 2n,    m = 1 + r + r (r + 1) / 2

    where S_c is the covariance of cluster c in the coordinates in which all rows have the identity, r their rank. Cutting
    a uniform distribution gains nothing, as the cells are as dense as the whole; cutting a Gaussian loses; separated
    groups gain most at their own number. It does not change under affine maps. nan with fewer than two clusters.

    Where the rows are fewer than ``ROWS_PER_PARAMETER`` for each of the m parameters of a cluster, r is the largest number of
    leading principal components for which they are not (at least 1): a full covariance of a wide table cannot be estimated,
    and its penalty would be many nats a row whatever the clusters. Costs three reads
    of the rows and one eigendecomposition of size min(n, n_columns); on a GPU one read (`gain_of_products`), unless there are many columns.
    """
    rows, own = as_blocks(X), PerRow(labels)
    sizes = sizes_of(labels)
    if len(np.flatnonzero(sizes)) < 2:
        return float("nan")
    n = int(sizes.sum())
    if adds_products(rows, n):
        return gain_of_products(cluster_products(rows, own, len(sizes)))
    whiten, mean = _whitening(rows, own, n)
    if whiten.shape[1] == 0:
        return float("nan")
    return _gain(rows.reduce(_whitened_sums, own, whiten, mean, len(sizes)), sizes)


def adds_products(X: RowBlocks, n_clustered: int) -> bool:
    """Whether the gain follows from the products of the rows of each cluster: on a GPU, of few columns and more clustered rows."""
    return X.on_device and X.shape[1] <= min(MAX_COLUMNS, n_clustered)


def gain_of_products(found: ClusterProducts) -> float:
    """`split_gain` from the products of the rows of each cluster about one origin; it agrees to about 1e-16 times the ratio of the largest
    to the smallest variance that is used."""
    n = found.counts.sum()
    mean = found.sums.sum(axis=0) / n
    variance, directions = _largest(found.products.sum(axis=0) / n - np.outer(mean, mean), most_components(int(n)))
    used = variance > MIN_VARIANCE * max(float(variance[-1]), np.finfo(np.float64).tiny)
    if not used.any():
        return float("nan")
    whiten = directions[:, used] / np.sqrt(variance[used])
    cross = found.sums[:, :, None] * mean
    centred = found.products - cross - cross.transpose(0, 2, 1) + found.counts[:, None, None] * np.outer(mean, mean)
    totals = (found.sums - found.counts[:, None] * mean) @ whiten
    return _gain(WhitenedSums(totals, whiten.T @ centred @ whiten), found.counts)


def _gain(found: WhitenedSums, sizes: np.ndarray) -> float:
    """The gain from the sums of the whitened rows of clusters of these sizes (n_clusters,)."""
    n, rank = int(sizes.sum()), found.totals.shape[1]
    present = np.flatnonzero(sizes)
    likelihood = 0.0
    for c in present.tolist():
        size = sizes[c]
        centre = found.totals[c] / size
        covariance = found.products[c] / size - np.outer(centre, centre)
        mixed = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.eye(rank)
        share = size / n
        likelihood += share * (np.log(share) - 0.5 * np.linalg.slogdet(mixed)[1])
    free = (len(present) - 1) * (1 + rank + rank * (rank + 1) / 2)
    return float(likelihood - free * np.log(n) / (2 * n))


@dataclass(frozen=True)
class WhitenedSums:
    """Of each cluster's whitened rows: ``totals`` (n_clusters, rank) and ``products`` (n_clusters, rank, rank), float64."""

    totals: np.ndarray
    products: np.ndarray

    def __add__(self, other: WhitenedSums) -> WhitenedSums:
        return WhitenedSums(self.totals + other.totals, self.products + other.products)


def _by_cluster(labels: np.ndarray) -> np.ndarray:
    """Numbers of the rows (n_clustered,) that are not noise, sorted by cluster."""
    kept = np.flatnonzero(labels != NOISE)
    own = labels[kept]
    small = own.max(initial=0) <= np.iinfo(np.int16).max  # which NumPy sorts by radix
    return kept[np.argsort(own.astype(np.int16) if small else own, kind="stable")]


def _clustered(X: Array, labels: np.ndarray) -> Array:
    """The rows of X that are not noise, sorted by cluster, float64."""
    return X[xp_of(X).asarray(_by_cluster(labels))].astype(np.float64)


def _whitened_sums(
    run: Run, labels: PerRow, whiten: np.ndarray, mean: np.ndarray, n_clusters: int
) -> Iterable[WhitenedSums]:
    """The sums of each block."""
    xp, own, rank = xp_of(run.X), labels.of(run), whiten.shape[1]
    matrix, centre = xp.asarray(whiten), xp.asarray(mean)

    def of(start: int, stop: int) -> WhitenedSums:
        X, sizes = run.X[start:stop], np.bincount(own[start:stop] + 1, minlength=n_clusters + 1)[1:]
        rows = _clustered(X, own[start:stop])
        totals, products, first = xp.zeros((n_clusters, rank)), xp.zeros((n_clusters, rank, rank)), 0
        for c in np.flatnonzero(sizes).tolist():
            z = (rows[first : first + sizes[c]] - centre) @ matrix
            totals[c], products[c] = z.sum(axis=0), z.T @ z
            first += sizes[c]
        return WhitenedSums(on_host(totals), on_host(products))

    few = n_clusters * rank**2 <= SMALL_PRODUCTS
    return each_block(run, of) if few else OneByOne(run, of)


def most_components(n_rows: int) -> int:
    """The largest rank r whose m = 1 + r + r (r + 1) / 2 parameters have ``ROWS_PER_PARAMETER`` rows each; at least 1."""
    rank = 1
    while ROWS_PER_PARAMETER * (2 + rank + (rank + 1) * (rank + 2) / 2) <= n_rows:
        rank += 1
    return rank


def _whitening(X: RowBlocks, labels: PerRow, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The map (n_columns, rank) to coordinates in which the covariance of the ``n`` clustered rows is the identity, and their mean.

    The eigenvectors are those of the covariance; if there are fewer rows than columns, they are computed from those of the Gram matrix of
    the rows.
    """
    mean = X.reduce(_clustered_sum, labels) / n
    if n < X.shape[1]:
        centred = on_host(X.take(_by_cluster(labels.values))).astype(np.float64) - mean
        variance, directions = _largest(centred @ centred.T / n, most_components(n))
        used = variance > MIN_VARIANCE * max(float(variance[-1]), np.finfo(np.float64).tiny)
        # X' u / sqrt(n v) is an eigenvector of the covariance, and dividing by sqrt(v) whitens.
        return centred.T @ directions[:, used] / (np.sqrt(n) * variance[used]), mean
    products = X.reduce(_clustered_products, labels, mean)
    variance, directions = _largest(products / n, most_components(n))
    used = variance > MIN_VARIANCE * max(float(variance[-1]), np.finfo(np.float64).tiny)
    return directions[:, used] / np.sqrt(variance[used]), mean


def _clustered_sum(run: Run, labels: PerRow) -> list[np.ndarray]:
    own = labels.of(run)
    return each_block(run, lambda a, b: on_host(_clustered(run.X[a:b], own[a:b]).sum(axis=0)))


def _clustered_products(run: Run, labels: PerRow, mean: np.ndarray) -> list[np.ndarray]:
    own, centre = labels.of(run), xp_of(run.X).asarray(mean)

    def of(start: int, stop: int) -> np.ndarray:
        centred = _clustered(run.X[start:stop], own[start:stop]) - centre
        return on_host(centred.T @ centred)

    return each_block(run, of)


def _largest(symmetric: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` largest eigenvalues, ascending, and their eigenvectors; all of them by NumPy where there are no more."""
    size = len(symmetric)
    if count >= size:
        return np.linalg.eigh(symmetric)
    from scipy.linalg import eigh

    return eigh(symmetric, subset_by_index=[size - count, size - 1])
