"""The silhouette of several labelings in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gpuclust.metrics.silhouette.blocks import silhouette_blocks
from gpuclust.metrics.silhouette.score import SilhouetteResult, silhouette
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import RowBlocks
from gpuclust.runtime.deduplicate import Distinct

__all__ = ["SilhouetteResult", "silhouette", "silhouettes"]


def silhouettes(
    X: Array | RowBlocks,
    labelings: Sequence[np.ndarray],
    *,
    backend: Backend,
    rows: np.ndarray | None = None,
    distinct: Distinct | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[SilhouetteResult]:
    """Silhouettes of several labelings (n_samples,) of X (n_samples, n_columns) on the backend's device, or in blocks.

    Noise is left out. Exact, or for a sample of ``rows``, which blocks need. ``distinct`` is X without its repeated rows, given only where equal
    rows have equal labels.
    """
    if isinstance(X, RowBlocks):
        assert rows is not None, "all rows of a matrix in blocks are scored in memory"
        return silhouette_blocks(X, labelings, rows, progress=progress)
    weight = None
    if distinct is not None and rows is None:
        X, weight = distinct.X, distinct.counts
        labelings = [labels[distinct.first] for labels in labelings]
    if backend.name == "gpu":
        from gpuclust.metrics.silhouette.kernels_cuda import silhouette_cuda
        from gpuclust.runtime.gpu import device_errors

        with device_errors("the silhouette"):
            return silhouette_cuda(X, labelings, rows=rows, sample_weight=weight, progress=progress)
    return silhouette(X, labelings, rows=rows, sample_weight=weight, progress=progress)
