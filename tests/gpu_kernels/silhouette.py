"""The kernels of the silhouette."""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int32, int64

from gpuclust.metrics.silhouette import kernels_cuda
from tests.gpu_kernels.case import Case, Loop, array


def cases() -> list[Case]:
    found = []
    for d, dtype in ((5, float32), (11, float32), (11, float64)):
        # A pair takes d subtractions, d multiplications with addition, and a square root.
        pair = Loop(marker="MUFU.SQRT|MUFU.RSQ" if dtype is float32 else "MUFU.RSQ64H")
        each = kernels_cuda.targets_per_thread(d, np.dtype(str(dtype)))
        found.append(
            Case(
                name=f"silhouette_add_{d}_{dtype}",
                function=kernels_cuda._add_kernel(d, dtype, each, kernels_cuda.THREADS, kernels_cuda.SHARED_BYTES),
                signature=(
                    array(int64, 1), array(dtype, 1), int64, array(int64, 1), array(int32, 1), array(int32, 2), array(float64, 3),
                ),
                max_registers=128,
                max_shared=17 << 10,
                loops={"pair": pair},
                threads=kernels_cuda.THREADS,
                unit="pair",
                max_stack=8 * kernels_cuda.LEVELS * each,  # the sums of the labelings
            )
        )  # fmt: skip
    return [
        *found,
        Case(
            name="silhouette_largest_float32",
            function=kernels_cuda._largest_kernel(float32, kernels_cuda.THREADS),
            signature=(array(float32, 2), array(float32, 1)),
            max_registers=64,
            max_shared=2 << 10,
            loops={},
            threads=kernels_cuda.THREADS,
        ),
        Case(
            name="silhouette_gather_float32",
            function=kernels_cuda._gather_kernel,
            signature=(array(float32, 2), array(int64, 1), float32, array(float32, 1), array(float32, 1)),
            max_registers=64,
            max_shared=2 << 10,
            loops={},
            threads=kernels_cuda.THREADS,
        ),
        Case(
            name="silhouette_coefficient",
            function=kernels_cuda._coefficient_kernel,
            signature=(
                array(float64, 3),
                array(int64, 1),
                array(float64, 1),
                array(int32, 2),
                int64,
                int64,
                array(float64, 2),
            ),
            max_registers=96,
            max_shared=2 << 10,
            loops={"part": Loop(marker="DADD")},
            threads=kernels_cuda.THREADS,
            unit="cell",
        ),
    ]
