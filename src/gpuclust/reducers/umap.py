"""UMAP (McInnes, Healy and Melville 2018) by umap-learn, or by cuML on a GPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from gpuclust.runtime.backend import Backend

if TYPE_CHECKING:
    from gpuclust.reducers.landmarks import EmbeddingSettings


def embed(points: np.ndarray, settings: EmbeddingSettings, backend: Backend) -> np.ndarray:
    """The positions (n, n_components) of points (n, n_columns) float32; the seed makes them reproducible on a CPU, in one thread."""
    n_neighbors = min(settings.n_neighbors or 15, len(points) - 1)
    if backend.name == "gpu":
        from gpuclust.reducers.gpu import umap_positions

        return umap_positions(backend.to_device(points), settings, n_neighbors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba, and where the graph of neighbours has several parts
        from umap import UMAP

        fitted = UMAP(
            n_neighbors=n_neighbors,
            n_components=settings.n_components,
            min_dist=settings.min_dist,
            random_state=settings.seed,
            n_jobs=1,
        )
        return np.asarray(fitted.fit_transform(points))
