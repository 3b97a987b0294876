"""The gain in likelihood of several clusters over one: the null hypothesis that silhouette and inertia lack."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.model.preparation import blocks
from gpuclust.model.records import NOISE
from gpuclust.runtime.backend import Backend

# Share of the overall covariance that each cluster's is mixed with: a cluster of identical or of few rows then has a
# finite density, and no direction can gain more than log(1 / SHRINKAGE) / 2 = 2.3 nats.
SHRINKAGE = 0.01
# Directions whose variance is below this share of the largest hold no information.
MIN_VARIANCE = 1e-9
# A covariance is estimated from at least this many rows for each parameter of a cluster.
ROWS_PER_PARAMETER = 15


def split_gain(X: Any, labels: np.ndarray, backend: Backend) -> float:
    """Nats a row by which one Gaussian for each cluster describes the rows better than one Gaussian for all of them.

    X (n_samples, n_columns) on the backend's device; ``labels`` (n_samples,) int32 on the host, noise (-1) left out.
    This is the integrated classification likelihood (Biernacki, Celeux and Govaert 2000) of the hard partition with
    full covariances, less that of a single cluster, over n:

        sum_c p_c (log p_c - logdet(S_c) / 2) - (k - 1) m log(n) / 2n,    m = 1 + r + r (r + 1) / 2

    where S_c is the covariance of cluster c in the coordinates in which all rows have the identity, r their rank. Cutting
    a uniform distribution gains nothing, as the cells are as dense as the whole; cutting a Gaussian loses; separated
    groups gain most at their own number. It does not change under affine maps. nan with fewer than two clusters.

    Where the rows are fewer than ``ROWS_PER_PARAMETER`` for each of the m parameters of a cluster, r is the largest number of
    leading principal components for which they are not (at least 1): a full covariance of a wide table cannot be estimated,
    and its penalty would be many nats a row whatever the clusters. Costs one eigendecomposition of size min(n, n_columns).
    """
    kept = np.flatnonzero(labels != NOISE)
    own = labels[kept]
    present, sizes = np.unique(own, return_counts=True)
    if len(present) < 2:
        return float("nan")
    rows = kept[np.argsort(own, kind="stable")]
    whiten, mean = _whitening(X, rows, backend)
    n, rank = len(rows), whiten.shape[1]
    if rank == 0:
        return float("nan")
    xp = backend.xp
    device_whiten, device_mean = backend.to_device(whiten), backend.to_device(mean)
    likelihood, start = 0.0, 0
    for size in sizes:
        members = backend.to_device(rows[start : start + size])
        total, square = xp.zeros(rank), xp.zeros((rank, rank))
        for block in blocks(int(size)):
            z = (X[members[block]].astype(xp.float64) - device_mean) @ device_whiten
            total += z.sum(axis=0)
            square += z.T @ z
        start += size
        centre = backend.to_host(total) / size
        covariance = backend.to_host(square) / size - np.outer(centre, centre)
        mixed = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.eye(rank)
        share = size / n
        likelihood += share * (np.log(share) - 0.5 * np.linalg.slogdet(mixed)[1])
    free = (len(present) - 1) * (1 + rank + rank * (rank + 1) / 2)
    return float(likelihood - free * np.log(n) / (2 * n))


def most_components(n_rows: int) -> int:
    """The largest rank r whose m = 1 + r + r (r + 1) / 2 parameters have ``ROWS_PER_PARAMETER`` rows each; at least 1."""
    rank = 1
    while ROWS_PER_PARAMETER * (2 + rank + (rank + 1) * (rank + 2) / 2) <= n_rows:
        rank += 1
    return rank


def _whitening(X: Any, rows: np.ndarray, backend: Backend) -> tuple[np.ndarray, np.ndarray]:
    """The map (n_columns, rank) to coordinates in which the rows' covariance is the identity, and their mean.

    The eigenvectors are those of the covariance, or where there are fewer rows than columns, from those of the rows' products.
    """
    xp = backend.xp
    device_rows = backend.to_device(rows)
    n, d = len(rows), X.shape[1]
    total = xp.zeros(d)
    for block in blocks(n):
        total += X[device_rows[block]].astype(xp.float64).sum(axis=0)
    mean = total / n
    if n < d:
        centred = backend.to_host(X[device_rows].astype(xp.float64) - mean)
        variance, directions = _largest(centred @ centred.T / n, most_components(n))
        used = variance > MIN_VARIANCE * max(float(variance[-1]), np.finfo(np.float64).tiny)
        # X' u / sqrt(n v) is an eigenvector of the covariance, and dividing by sqrt(v) whitens.
        return centred.T @ directions[:, used] / (np.sqrt(n) * variance[used]), backend.to_host(mean)
    square = xp.zeros((d, d))
    for block in blocks(n):
        centred = X[device_rows[block]].astype(xp.float64) - mean
        square += centred.T @ centred
    variance, directions = _largest(backend.to_host(square) / n, most_components(n))
    used = variance > MIN_VARIANCE * max(float(variance[-1]), np.finfo(np.float64).tiny)
    return directions[:, used] / np.sqrt(variance[used]), backend.to_host(mean)


def _largest(symmetric: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` largest eigenvalues, ascending, and their eigenvectors; all of them by NumPy where there are no more."""
    size = len(symmetric)
    if count >= size:
        return np.linalg.eigh(symmetric)
    from scipy.linalg import eigh

    return eigh(symmetric, subset_by_index=[size - count, size - 1])
