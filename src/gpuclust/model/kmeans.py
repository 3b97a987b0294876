"""Prediction with K-Means: the nearest centre."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpuclust.errors import ModelError
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


def membership(points: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The confidence 1 - d(own centre) / d(nearest other centre) of rows with labels (n,), 0 where another centre is nearer, and the
    distance to the own centre, both (n,) float64."""
    squares, rows = squared_distances(points, centers), np.arange(len(points))
    own = np.sqrt(squares[rows, labels])
    squares[rows, labels] = np.inf
    other = np.sqrt(squares.min(axis=1))
    ratio = np.divide(own, other, out=np.where(own > 0, 1.0, 0.0), where=other > 0)
    return np.clip(1.0 - ratio, 0.0, 1.0), own


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


CENTERS = {"centers": ArraySpec("f", ("clusters", "columns"))}
LIMITED = CENTERS | {
    "training_labels": ArraySpec("i", ("rows",)),
    "training_confidence": ArraySpec("f", ("rows",)),
    "training_distance": ArraySpec("f", ("rows",)),
}


def arrays(options: Options) -> Mapping[str, ArraySpec]:
    """The arrays of a model; ``limited``: the sizes of the clusters of the fitted rows were limited, so that these are not in their nearest."""
    return LIMITED if options.get("limited") else CENTERS


def check(parameters: Parameters, options: Options) -> None:
    """The labels of the fitted rows are clusters."""
    del options
    labels, n_clusters = parameters.get("training_labels"), len(parameters["centers"])
    if labels is not None and not (labels.min() >= 0 and labels.max() < n_clusters):
        raise ModelError(f"the array parameters/training_labels has values outside 0 to {n_clusters - 1}")


register_rule(
    PredictionRule(
        "kmeans",
        arrays,
        place,
        options={"limited": (None, True)},
        check=check,
        soft=soft,
        centres=centres,
        outlier="distance to the centre",
    )
)
