"""t-SNE (van der Maaten 2014) by scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuclust.runtime.backend import Backend
from gpuclust.runtime.threads import one_thread_for_few

if TYPE_CHECKING:
    from gpuclust.reducers.landmarks import EmbeddingSettings


def embed(points: np.ndarray, settings: EmbeddingSettings, backend: Backend) -> np.ndarray:
    """The positions (n, n_components) of points (n, n_columns) float32, computed on the CPU; ``n_neighbors`` is the perplexity."""
    del backend
    from sklearn.manifold import TSNE

    fitted = TSNE(
        n_components=settings.n_components,
        perplexity=min(settings.n_neighbors or 30, (len(points) - 1) / 3),
        init="pca",
        random_state=settings.seed,
    )
    with one_thread_for_few(len(points)):
        return np.asarray(fitted.fit_transform(points))
