"""What dividing the rows into clusters gains over not dividing them: the null that silhouette and inertia lack."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.cluster import NOISE
from gpuclust.compute.backend import Backend
from gpuclust.prepare import blocks

# Share of the overall covariance that each cluster's is mixed with: a cluster of identical or of few rows then has a
# finite density, and no direction can gain more than log(1 / SHRINKAGE) / 2 = 2.3 nats.
SHRINKAGE = 0.01
# Directions whose variance is below this share of the largest hold no information.
LEAST_VARIANCE = 1e-9


def split_gain(X: Any, labels: np.ndarray, backend: Backend) -> float:
    """Nats a row by which one Gaussian for each cluster describes the rows better than one Gaussian for all of them.

    X (n_samples, n_columns) on the backend's device; ``labels`` (n_samples,) int32 on the host, noise (-1) left out.
    This is the integrated classification likelihood (Biernacki, Celeux and Govaert 2000) of the hard partition with
    full covariances, less that of a single cluster, over n:

        sum_c p_c (log p_c - logdet(S_c) / 2) - (k - 1) m log(n) / 2n,    m = 1 + r + r (r + 1) / 2

    where S_c is the covariance of cluster c in the coordinates in which all rows have the identity, r their rank. Cutting
    a uniform distribution gains nothing, as the cells are as dense as the whole; cutting a Gaussian loses; separated
    groups gain most at their own number. It does not change under affine maps. nan with fewer than two clusters.
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


def _whitening(X: Any, rows: np.ndarray, backend: Backend) -> tuple[np.ndarray, np.ndarray]:
    """The map (n_columns, rank) to coordinates in which the rows' covariance is the identity, and their mean."""
    xp = backend.xp
    device_rows = backend.to_device(rows)
    total, square = xp.zeros(X.shape[1]), xp.zeros((X.shape[1], X.shape[1]))
    for block in blocks(len(rows)):
        total += X[device_rows[block]].astype(xp.float64).sum(axis=0)
    mean = total / len(rows)
    for block in blocks(len(rows)):
        centred = X[device_rows[block]].astype(xp.float64) - mean
        square += centred.T @ centred
    variance, directions = np.linalg.eigh(backend.to_host(square) / len(rows))
    used = variance > LEAST_VARIANCE * max(float(variance[-1]), np.finfo(np.float64).tiny)
    return directions[:, used] / np.sqrt(variance[used]), backend.to_host(mean)
