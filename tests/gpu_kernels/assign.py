"""The kernels that assign rows to centres."""

from __future__ import annotations

from numba import float32, float64, int32

from gpuclust.algorithms.kmeans import assign_cuda
from tests.gpu_kernels.case import Case, Loop, array


def cases() -> list[Case]:
    return [
        Case(
            name=f"nearest_two_{dtype}",
            function=assign_cuda._nearest_two,
            signature=(array(dtype, 2), array(float64, 2), array(int32, 1), array(float64, 1), array(float64, 1)),
            max_registers=96,
            max_shared=2 << 10,
            # One step of the loop over features, for a row and a centre.
            loops={"square": Loop(marker="DFMA")},
        )
        for dtype in (float32, float64)
    ]
