"""PaCMAP (Wang, Huang, Rudin and Shaposhnik 2021) by the package pacmap."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np

from gpuclust.runtime.backend import Backend
from gpuclust.runtime.threads import one_thread_for_few

if TYPE_CHECKING:
    from gpuclust.reducers.landmarks import EmbeddingSettings


def embed(points: np.ndarray, settings: EmbeddingSettings, backend: Backend) -> np.ndarray:
    """The positions (n, n_components) of points (n, n_columns) float32, computed on the CPU."""
    del backend
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba, and that a seed limits the threads
        from pacmap import PaCMAP

        logging.getLogger(PaCMAP.__module__).setLevel(logging.ERROR)  # it says that there is a seed

        fitted = PaCMAP(
            n_components=settings.n_components,
            n_neighbors=min(settings.n_neighbors or 10, len(points) - 1),
            random_state=settings.seed,
            apply_pca=False,  # the points are in at most 64 principal components
        )
        with one_thread_for_few(len(points)):
            return np.asarray(fitted.fit_transform(points, init="pca"))
