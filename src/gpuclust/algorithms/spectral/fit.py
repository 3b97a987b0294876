"""Landmark-based spectral clustering: landmarks and singular vectors are computed once for all numbers of clusters.

Z (n, m) holds the similarities of rows to landmarks. Rows of Z sum to 1, so the similarity of two rows, Z D⁻¹ Zᵀ with the column sums D,
is normalised, and its leading eigenvectors are the left singular vectors of Z D^(-1/2); they come from the m × m matrix of its products
(Chen and Cai 2011, Large scale spectral clustering with landmark-based representation). New rows are projected in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.spatial import KDTree

from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.algorithms.spectral import SpectralConfig
from gpuclust.errors import FitError
from gpuclust.model.prediction import place_rows
from gpuclust.model.spectral import embedded, place, similarities
from gpuclust.runtime.cache import key

ROWS_PER_LANDMARK = 20
"""Rows of the sample, for each landmark, that K-Means finds the landmarks among."""


@dataclass(frozen=True)
class Landmarks:
    """``points`` (m, d) float64; the ``bandwidth`` of the similarities to the ``n_nearest`` of them; their column sums to the power of -1/2,
    ``scale`` (m,), and the ``products`` (m, m) float64 of the scaled columns."""

    points: np.ndarray
    n_nearest: int
    bandwidth: float
    scale: np.ndarray
    products: np.ndarray


def fit(data: FitInput, configs: Sequence[SpectralConfig]) -> list[FitResult]:
    """Cluster the rows of ``data.X`` (n_samples, n_columns), on the host or copied to it, for each configuration.

    Raises FitError where there are fewer landmarks, which are distinct, than clusters.
    """
    from sklearn.cluster import KMeans

    X, results = data.backend.to_host(data.X), []
    for i, config in enumerate(configs):
        name = key("landmarks", data.key, config.n_landmarks, config.n_nearest, data.seed)
        found = data.cache.get_or_create(name, lambda config=config: described(X, config, data.seed))  # type: ignore[misc]
        projection = projection_of(found, config.n_clusters)
        vectors = embedded(X, KDTree(found.points), found.n_nearest, found.bandwidth, projection)
        means = KMeans(config.n_clusters, n_init=config.n_init, random_state=data.seed).fit(vectors)
        parameters = {
            "landmarks": found.points,
            "n_nearest": np.asarray(found.n_nearest, dtype=np.int64),
            "bandwidth": np.asarray(found.bandwidth),
            "projection": projection,
            "centers": means.cluster_centers_,
        }
        labels, confidence, _ = place_rows(place(parameters, {}), X)
        results.append(FitResult(labels, confidence, None, parameters, {}, per_cluster=("centers",)))
        data.progress((i + 1) / len(configs))
    return results


def described(X: np.ndarray, config: SpectralConfig, seed: int) -> Landmarks:
    """Find the landmarks of X (n, d) and the similarities of all rows to them: the expensive step, which all numbers of clusters share."""
    points = landmarks_of(X, config.n_landmarks, seed)
    n_nearest, tree = min(config.n_nearest, len(points)), KDTree(points)
    bandwidth = bandwidth_of(X, tree, n_nearest, seed)
    Z = similarities(X, tree, n_nearest, bandwidth)
    scale = 1.0 / np.sqrt(np.maximum(np.asarray(Z.sum(axis=0)).ravel(), np.finfo(np.float64).tiny))
    return Landmarks(points, n_nearest, bandwidth, scale, (Z.T @ Z).toarray() * scale[:, None] * scale)


def projection_of(landmarks: Landmarks, n_vectors: int) -> np.ndarray:
    """From similarities to the leading singular vectors, the largest first: (m, n_vectors) float64."""
    m = len(landmarks.points)
    if m < n_vectors:
        raise FitError(f"cluster.n_clusters={n_vectors} is more than the {m} distinct landmarks; lower it")
    values, vectors = eigh(landmarks.products, subset_by_index=[m - n_vectors, m - 1])
    singular = np.sqrt(np.maximum(values, np.finfo(np.float64).eps))
    found: np.ndarray = (landmarks.scale[:, None] * vectors / singular)[:, ::-1]
    return np.ascontiguousarray(found)


def landmarks_of(X: np.ndarray, n_landmarks: int, seed: int) -> np.ndarray:
    """Centres of K-Means on a sample of X (n, d), without repetitions: (m, d) float64. Where there are few distinct rows, these rows."""
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng(seed)
    size = min(len(X), ROWS_PER_LANDMARK * n_landmarks)
    sample = X[np.sort(rng.choice(len(X), size, replace=False))].astype(np.float64)
    distinct = np.unique(sample, axis=0)
    if len(distinct) <= n_landmarks:
        return distinct
    means = MiniBatchKMeans(n_landmarks, n_init=1, batch_size=4096, random_state=seed).fit(sample)
    found: np.ndarray = np.unique(means.cluster_centers_, axis=0)
    return found


def bandwidth_of(X: np.ndarray, landmarks: KDTree, n_nearest: int, seed: int) -> float:
    """The bandwidth of the kernel: the mean distance of up to 10,000 rows to their nearest landmarks."""
    rows = np.random.default_rng(seed).choice(len(X), min(len(X), 10_000), replace=False)
    distance, _ = landmarks.query(X[rows], k=np.arange(1, n_nearest + 1))
    return float(distance.mean()) or 1.0
