"""t-SNE (van der Maaten 2014) by scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuclust.runtime.backend import Backend

if TYPE_CHECKING:
    from gpuclust.reducers.landmarks import EmbeddingSettings

FEW_ROWS = 5_000


def embed(points: np.ndarray, settings: EmbeddingSettings, backend: Backend) -> np.ndarray:
    """The positions (n, n_components) of points (n, n_columns) float32, computed on the CPU; ``n_neighbors`` is the perplexity."""
    del backend
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    fitted = TSNE(
        n_components=settings.n_components,
        perplexity=min(settings.n_neighbors or 30, (len(points) - 1) / 3),
        init="pca",
        random_state=settings.seed,
    )
    # Of few rows an iteration takes less time than to wake threads, much less where other processes use the cores.
    with threadpool_limits(1 if len(points) < FEW_ROWS else None):
        return np.asarray(fitted.fit_transform(points))
