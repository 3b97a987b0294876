"""Maps other than principal components: fitted on a sample of the rows of a matrix, with the others placed among these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from gpuclust.config import MapConfig
from gpuclust.data.table import sample_rows
from gpuclust.model.landmarks import Landmarks
from gpuclust.model.preparation import MAP_DIMENSIONS, run_blocks
from gpuclust.reducers.landmarks import EmbeddingSettings, fit_landmarks, taken
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import LocalBlocks, RowBlocks, Run
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.passes import xp_of
from gpuclust.runtime.scratch import Scratch


@dataclass(frozen=True)
class FittedMap:
    """A map and the ``coordinates`` (n_rows, 3) float32 of all rows on it, on the host or in blocks; ``metrics`` say how good it is."""

    landmarks: Landmarks
    coordinates: np.ndarray | RowBlocks
    metrics: Mapping[str, float] = field(default_factory=dict)

    def on(self, matrix: Matrix) -> Matrix:
        """The matrix with this map."""
        preparation = replace(matrix.preparation, map_projection=self.landmarks)
        return replace(matrix, preparation=preparation, coordinates=self.coordinates, map_metrics=self.metrics)


def fit_map(
    matrix: Matrix, config: MapConfig, *, seed: int, backend: Backend, scratch: Scratch | None = None
) -> FittedMap:
    """Fit the map on at most ``config.sample_rows`` rows, and place all rows. Raises as `fit_landmarks`."""
    settings = EmbeddingSettings(config.n_components, config.n_neighbors, config.min_dist, seed)
    sample = taken(matrix.X, sample_rows(matrix.n_rows, config.sample_rows, seed), backend)
    landmarks = fit_landmarks(sample, config.method, settings, backend, f"map={config.method}")
    return FittedMap(landmarks, _placed(matrix.X, landmarks, scratch))


def _placed(X: Array | RowBlocks, landmarks: Landmarks, scratch: Scratch | None) -> np.ndarray | RowBlocks:
    if not isinstance(X, RowBlocks):
        return _coordinates(X, landmarks)
    if scratch is None or not isinstance(X, LocalBlocks):
        return np.concatenate(X.collect(_of_run, landmarks))
    writer = scratch.writer("map", MAP_DIMENSIONS, np.float32)
    try:
        for _, rows in X.runs():
            writer.append(_coordinates(rows, landmarks))
    finally:
        blocks = writer.close()
    return blocks


def _of_run(run: Run, landmarks: Landmarks) -> np.ndarray:
    return _coordinates(run.X, landmarks)


def _coordinates(X: Array, landmarks: Landmarks) -> np.ndarray:
    """The coordinates (n, 3) float32 of rows of the matrix, in the blocks of `Preparation.transform`; axes that the map lacks are 0."""
    found = np.zeros((len(X), MAP_DIMENSIONS), dtype=np.float32)
    on_host = xp_of(X) is np

    def place(block: slice) -> None:
        rows = X[block] if on_host else X[block].get()
        found[block, : landmarks.n_columns] = landmarks.transform(rows)

    run_blocks(place, len(X), xp_of(X))
    return found
