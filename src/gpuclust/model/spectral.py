"""Prediction with spectral clustering on landmarks: the nearest centre among the singular vectors.

The arrays of a model:

    landmarks     (m, d) float64   where similarities are measured from
    n_nearest     () int64         how many of the nearest landmarks describe a row
    bandwidth     () float64       of the Gaussian kernel
    projection    (m, p) float64   from similarities to singular vectors
    centers       (k, p) float64   the centres of the clusters among the singular vectors
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import KDTree

from gpuclust.errors import ModelError
from gpuclust.model.kmeans import place as nearest_center
from gpuclust.model.kmeans import soft as soft_of_centers
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, Placed, PredictionRule, Soft, register_rule

ARRAYS = {
    "landmarks": ArraySpec("f", ("landmarks", "columns")),
    "n_nearest": ArraySpec("i", ()),
    "bandwidth": ArraySpec("f", ()),
    "projection": ArraySpec("f", ("landmarks", "vectors")),
    "centers": ArraySpec("f", ("clusters", "vectors")),
}


def check(parameters: Parameters, options: Options) -> None:
    """A row is described by some of the landmarks, with a positive bandwidth."""
    if not 1 <= parameters["n_nearest"] <= len(parameters["landmarks"]):
        raise ModelError(f"the array parameters/n_nearest has values outside 1 to {len(parameters['landmarks'])}")
    if not parameters["bandwidth"] > 0:
        raise ModelError("the array parameters/bandwidth is not positive")


def similarities(points: np.ndarray, landmarks: KDTree, n_nearest: int, bandwidth: float) -> csr_array:
    """Gaussian similarities of points (n, d) to their nearest landmarks, each row divided by its sum: (n, m) sparse float64."""
    distance, near = landmarks.query(points, k=np.arange(1, n_nearest + 1))
    squares = (
        distance**2 - distance[:, :1] ** 2
    )  # the factor of the nearest one is 1, so that far rows do not become 0 / 0
    values = np.exp(-squares / (2 * bandwidth**2))
    values /= values.sum(axis=1, keepdims=True)
    starts = np.arange(0, near.size + 1, n_nearest)
    return csr_array((values.ravel(), near.ravel(), starts), shape=(len(points), landmarks.n))


def embedded(
    points: np.ndarray, landmarks: KDTree, n_nearest: int, bandwidth: float, projection: np.ndarray
) -> np.ndarray:
    """The singular vectors of points (n, d), each row of length 1: (n, p) float64."""
    vectors = similarities(points, landmarks, n_nearest, bandwidth) @ projection
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def place(parameters: Parameters, options: Options) -> Place:
    """The nearest centre among the singular vectors; confidence 1 - d(own centre) / d(next centre) there."""
    landmarks, n_nearest = KDTree(parameters["landmarks"]), int(parameters["n_nearest"])
    bandwidth, projection = float(parameters["bandwidth"]), parameters["projection"].astype(np.float64)
    nearest = nearest_center(parameters, options)

    def run(points: np.ndarray) -> Placed:
        labels, confidence, _ = nearest(embedded(points, landmarks, n_nearest, bandwidth, projection))
        return labels, confidence, np.nan

    return run


def soft(parameters: Parameters, options: Options) -> Soft:
    """Those of K-Means (`gpuclust.model.kmeans.soft`) among the singular vectors."""
    landmarks, n_nearest = KDTree(parameters["landmarks"]), int(parameters["n_nearest"])
    bandwidth, projection = float(parameters["bandwidth"]), parameters["projection"].astype(np.float64)
    of_vectors = soft_of_centers(parameters, options)
    return lambda points: of_vectors(embedded(points, landmarks, n_nearest, bandwidth, projection))


register_rule(
    PredictionRule(
        "spectral", ARRAYS, place, check=check, soft=soft, outlier="distance to the centre among the singular vectors"
    )
)
