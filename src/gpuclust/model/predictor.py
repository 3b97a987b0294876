"""Placing new rows in an exported clustering, from ``model.json`` and ``arrays.npz`` alone.

What `gpuclust.tracking.bundle.Bundle.predict` computes, in NumPy and SciPy: a server answers a few rows at a time, so
it builds the search tree once and compiles no kernel. The tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpuclust.model.files import read_model
from gpuclust.model.schema import NOISE, Description
from gpuclust.model.space import BLOCK_ROWS, Reduction, Space, reduction_of, space_of

UNPLACED = -2
MAP_DIMENSIONS = 3
# Scaled values beyond which squares, or distances in float32, overflow, by the type of the matrix.
MAX_SCALED = 1e15
REACH = {"float32": MAX_SCALED, "float64": 1e30}

# Labels (n,) int, confidences (n,) float64, and distances (n,) float64 or NaN, of points (n, d).
Placed = tuple[np.ndarray, np.ndarray, np.ndarray | float]


@dataclass(frozen=True)
class Placement:
    """Where rows belong: ``cluster`` (n,) int32, noise -1, -2 where a row could not be placed; ``confidence`` (n,) float32
    in [0, 1]; ``distance`` (n,) float32 to the own centre, NaN where the algorithm has none; ``coordinates`` (n, 3) float32
    on the map; NaN where not placed."""

    cluster: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    coordinates: np.ndarray


@dataclass(frozen=True)
class Predictor:
    """A model that was read. ``bounds`` are what cleaning allowed, by feature, in original units; ``place`` is the
    algorithm, from prepared points to labels."""

    description: Description
    space: Space
    bounds: Mapping[str, tuple[float | None, float | None]]
    map: Reduction
    place: Callable[[np.ndarray], Placed]

    def predict(self, raw: np.ndarray) -> Placement:
        """Place rows of raw features (n, n_features) float64, in the order of ``space.features``; missing is NaN."""
        raw = np.where(np.isfinite(raw), raw, np.nan)
        usable = self._usable(raw)
        placement = Placement(
            np.full(len(raw), UNPLACED, dtype=np.int32),
            np.full(len(raw), np.nan, dtype=np.float32),
            np.full(len(raw), np.nan, dtype=np.float32),
            np.full((len(raw), MAP_DIMENSIONS), np.nan, dtype=np.float32),
        )
        if usable.any():
            found = self.place(self.space.prepare(raw[usable]))
            placement.cluster[usable], placement.confidence[usable], placement.distance[usable] = found
            axes = (self.space.scaled(raw[usable]) - self.map.mean) @ self.map.components.T / self.map.scale
            placement.coordinates[usable] = 0.0
            placement.coordinates[usable, : axes.shape[1]] = axes
        return placement

    def _usable(self, raw: np.ndarray) -> np.ndarray:
        """Which rows of raw features, missing NaN, have no `obstacle`: (n,) bool."""
        usable = np.ones(len(raw), dtype=bool)
        farthest = REACH[self.space.dtype]
        for j, feature in enumerate(self.space.features):
            values = raw[:, j]
            low, high = self.bounds.get(feature, (None, None))
            if feature not in self.space.fills:
                usable &= ~np.isnan(values)
            for limit, outside in ((low, np.less), (high, np.greater)):
                if limit is not None:
                    usable &= ~outside(values, limit)
            usable &= ~(np.abs(values / farthest - self.space.offset[j] / farthest) > self.space.scale[j])
        return usable

    def obstacle(self, row: np.ndarray) -> str | None:
        """Why a row of raw features (n_features,) cannot be placed; None when it can."""
        farthest = REACH[self.space.dtype]
        for j, (feature, value) in enumerate(zip(self.space.features, row.tolist(), strict=True)):
            low, high = self.bounds.get(feature, (None, None))
            if not np.isfinite(value):
                if feature not in self.space.fills:
                    return f"{feature} is missing"
            elif (low is not None and value < low) or (high is not None and value > high):
                return (
                    f"{feature}={value:g} is outside {_number(low)} to {_number(high)}, which the model was fitted on"
                )
            elif abs(value / farthest - self.space.offset[j] / farthest) > self.space.scale[j]:
                return f"{feature}={value:g} is too far out to be placed"
        return None


def _number(limit: float | None) -> str:
    return "any" if limit is None else f"{limit:g}"


def read_predictor(folder: Path) -> Predictor:
    """The model in a folder. Raises ModelError when it cannot be used."""
    model = read_model(folder)
    description = model.description
    parameters = {
        name.removeprefix("parameters/"): array
        for name, array in model.arrays.items()
        if name.startswith("parameters/")
    }
    return Predictor(
        description=description,
        space=space_of(model),
        bounds=description.bounds,
        map=reduction_of("map", model.arrays),
        place=PLACERS[description.algorithm](parameters, {"covariance_type": description.covariance_type}),
    )


def squared_distances(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (n, k) float64, summed feature by feature as the fit does."""
    squares = np.zeros((len(points), len(centers)))
    for j in range(centers.shape[1]):
        squares += (points[:, j, None].astype(np.float64) - centers[:, j]) ** 2
    return squares


def _kmeans(parameters: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Callable[[np.ndarray], Placed]:
    """The nearest centre; confidence 1 - d(own centre) / d(next centre)."""
    centers = parameters["centers"].astype(np.float64)

    def place(points: np.ndarray) -> Placed:
        squares = squared_distances(points, centers)
        labels = squares.argmin(axis=1)
        two = np.sqrt(np.partition(squares, 1, axis=1)[:, :2]) if len(centers) > 1 else np.sqrt(squares)
        nearest = two[:, 0]
        second = two[:, 1] if len(centers) > 1 else np.full(len(points), np.inf)
        confidence = 1.0 - np.divide(nearest, second, out=np.ones(len(points)), where=second > 0)
        return labels, confidence, nearest

    return place


def _gmm(parameters: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Callable[[np.ndarray], Placed]:
    """The greatest responsibility, which is the confidence; precisions as scikit-learn shapes them."""
    weights, means, cholesky = (parameters[n].astype(np.float64) for n in ("weights", "means", "precisions_cholesky"))
    kind, (k, d) = options.get("covariance_type") or "full", means.shape
    # Of each component: the upper triangle (d, d), or the diagonal (d,), of its precision's Cholesky factor.
    factors = {"full": lambda: cholesky, "tied": lambda: np.broadcast_to(cholesky, (k, d, d)), "diag": lambda: cholesky,
               "spherical": lambda: np.repeat(cholesky[:, None], d, axis=1)}[kind]()  # fmt: skip
    diagonals = factors if factors.ndim == 2 else np.diagonal(factors, axis1=1, axis2=2)
    with np.errstate(divide="ignore"):
        constant = np.log(weights) + np.log(diagonals).sum(axis=1) - 0.5 * d * np.log(2 * np.pi)

    def place(points: np.ndarray) -> Placed:
        points = points.astype(np.float64)
        scores = np.empty((len(points), k))
        for c in range(k):
            away = points - means[c]
            whitened = away @ factors[c] if factors.ndim == 3 else away * factors[c]
            scores[:, c] = constant[c] - 0.5 * np.einsum("ij,ij->i", whitened, whitened)
        labels = scores.argmax(axis=1)
        confidence = 1.0 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
        away = points - means[labels]
        return labels, confidence, np.sqrt(np.einsum("ij,ij->i", away, away))

    return place


def _hdbscan(parameters: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Callable[[np.ndarray], Placed]:
    """As hdbscan's ``approximate_predict``; the arrays are those of `gpuclust.algorithms.hdbscan.predict`."""
    from scipy.spatial import KDTree

    rows, core = KDTree(parameters["points"]), parameters["core_distances"]
    min_samples = int(parameters["min_samples"])
    wanted = min(2 * min_samples, len(core))
    node_of, density_of = parameters["row_node"].astype(np.int64), parameters["row_density"].astype(np.float64)
    parent, birth = parameters["node_parent"], parameters["node_birth"]
    cluster_node, greatest = parameters["cluster_node"], parameters["cluster_density"]
    label_of = np.full(len(parent), NOISE, dtype=np.int64)
    label_of[cluster_node] = np.arange(len(cluster_node))
    for node in range(1, len(parent)):  # parents have lower numbers
        if label_of[node] == NOISE:
            label_of[node] = label_of[parent[node]]
    # A fit that is not yet numbered canonically has no such array.
    canonical = np.append(parameters.get("canonical", np.arange(len(cluster_node))), NOISE)
    root_alone = len(cluster_node) > 0 and cluster_node[0] == 0

    def place(points: np.ndarray) -> Placed:
        points = np.ascontiguousarray(points, dtype=np.float32)
        # Threads cost more than a few rows take.
        workers = -1 if len(points) > 1_000 else 1
        far, near = rows.query(points, k=np.arange(1, wanted + 1), workers=workers)
        own_core = far[:, min(min_samples, wanted - 1), None]
        reach = np.maximum(np.maximum(far, core[near]), own_core)
        reach[far[:, 0] == 0.0, 0] = 0.0  # an identical fitted row: fall out with it
        best = reach.argmin(axis=1)[:, None]
        row = np.take_along_axis(near, best, 1)[:, 0]
        with np.errstate(divide="ignore"):
            density = 1.0 / np.take_along_axis(reach, best, 1)[:, 0]
        node = node_of[row]
        climbing = np.flatnonzero(density < density_of[row])
        while len(climbing):
            climbing = climbing[(node[climbing] > 0) & (birth[node[climbing]] >= density[climbing])]
            node[climbing] = parent[node[climbing]]
        density = np.minimum(density, density_of[row])
        labels = label_of[node]
        if root_alone:
            labels = np.where(density >= float(parameters["root_density"]), labels, NOISE)
        confidence = np.zeros(len(points))
        inside = labels >= 0
        most = greatest[labels[inside]]
        confidence[inside] = np.divide(density[inside], most, out=np.ones(inside.sum()), where=most > 0)
        return canonical[labels], np.minimum(confidence, 1.0), np.nan

    return place


PLACERS: Mapping[str, Callable[..., Callable[[np.ndarray], Placed]]] = {
    "kmeans": _kmeans,
    "gmm": _gmm,
    "hdbscan": _hdbscan,
}


def assign(
    algorithm: str, parameters: Mapping[str, np.ndarray], options: Mapping[str, Any], X: np.ndarray
) -> np.ndarray:
    """Labels (n,) int32 of prepared rows X (n, n_columns) under fitted parameters, in the numbering of the fit."""
    place = PLACERS[algorithm](parameters, options)
    labels = np.empty(len(X), dtype=np.int32)
    for start in range(0, len(X), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        labels[part] = place(X[part])[0]
    return labels
