"""The E-step of a matrix that is larger than the GPU's memory: each run of rows is copied to the device, and its sums come back.

Only the sums of a run, as large as the parameters, are copied to the host, which adds them in the order of the rows: a fit is the same in every
run. Imported only where a GPU is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from gpuclust.algorithms.mixture.em import EMStatistics, KernelParameters
from gpuclust.algorithms.mixture.em_cuda import CudaPasses
from gpuclust.runtime.blocks import Run
from gpuclust.runtime.gpu import device_errors


class StreamedSums:
    """The sums of a run, as the part of a pass (`gpuclust.runtime.blocks.RowBlocks.collect`). The memory on the device is kept for the next
    run."""

    def __init__(self) -> None:
        self._passes = CudaPasses()
        self._rows: Any = None  # on the device, for the rows of one run

    def __call__(self, run: Run, c: KernelParameters) -> EMStatistics:
        """The statistics of the rows of a run about the centres of ``c``."""
        with device_errors("a pass of EM"):
            return self._passes.sums(self._on_device(run.X), c)

    def _on_device(self, X: np.ndarray) -> Any:
        kept = self._rows
        if kept is None or len(kept) < len(X) or kept.shape[1:] != X.shape[1:] or kept.dtype != X.dtype:
            self._rows = kept = cuda.device_array(X.shape, dtype=X.dtype)
        rows = kept if len(kept) == len(X) else kept[: len(X)]
        rows.copy_to_device(X)
        return rows
