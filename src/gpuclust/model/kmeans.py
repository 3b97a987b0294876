"""Prediction with K-Means: the nearest centre."""

from __future__ import annotations

import numpy as np

from gpuclust.model.prediction import (
    ArraySpec,
    Centres,
    Options,
    Parameters,
    Place,
    Placed,
    PredictionRule,
    Soft,
    register_rule,
)


def squared_distances(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (n, k) float64, summed feature by feature as the fit does."""
    squares = np.zeros((len(points), len(centers)))
    for j in range(centers.shape[1]):
        squares += (points[:, j, None].astype(np.float64) - centers[:, j]) ** 2
    return squares


def place(parameters: Parameters, options: Options) -> Place:
    """The nearest centre; confidence 1 - d(own centre) / d(next centre)."""
    centers = parameters["centers"].astype(np.float64)

    def run(points: np.ndarray) -> Placed:
        squares = squared_distances(points, centers)
        labels = squares.argmin(axis=1)
        two = np.sqrt(np.partition(squares, 1, axis=1)[:, :2]) if len(centers) > 1 else np.sqrt(squares)
        nearest = two[:, 0]
        second = two[:, 1] if len(centers) > 1 else np.full(len(points), np.inf)
        confidence = 1.0 - np.divide(nearest, second, out=np.ones(len(points)), where=second > 0)
        return labels, confidence, nearest

    return run


def soft(parameters: Parameters, options: Options) -> Soft:
    """The memberships of fuzzy c-means with m = 2 (Bezdek 1981) at these centres: in inverse proportion to the squared distances. The
    outlier score is the distance to the nearest centre."""
    centers = parameters["centers"].astype(np.float64)

    def run(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squares = squared_distances(points, centers)
        nearest = squares.min(axis=1, keepdims=True)
        at_centre = nearest == 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            closeness = np.where(at_centre, squares == 0.0, nearest / squares)
        return closeness / closeness.sum(axis=1, keepdims=True), np.sqrt(nearest[:, 0])

    return run


def centres(parameters: Parameters, options: Options) -> Centres:
    """The centres, by Euclidean distance."""
    return Centres(parameters["centers"].astype(np.float64))


register_rule(
    PredictionRule(
        "kmeans",
        {"centers": ArraySpec("f", ("clusters", "columns"))},
        place,
        soft=soft,
        centres=centres,
        outlier="distance to the centre",
    )
)
