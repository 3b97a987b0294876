"""The kernels of the Lloyd pass."""

from __future__ import annotations

from numba import boolean, float32, float64, int32, int64

from gpuclust.algorithms.kmeans import kernels_cuda
from tests.gpu_kernels.case import Case, Loop, array


def cases() -> list[Case]:
    found = [
        Case(
            name=f"lloyd_pass_{dtype}",
            function=kernels_cuda._pass,
            signature=(
                array(dtype, 2), array(float64, 1), boolean, array(float64, 2), array(float32, 2), array(float32, 1),
                array(float64, 2), array(int64, 1), array(int64, 1), array(int64, 1), array(int64, 1), int64, array(int32, 2), array(float64, 1),
            ),
            max_registers=128,
            max_shared=4 << 10,
            dynamic_shared=32 << 10,
            # One step of the loop over features, for a row and a centre.
            loops={"product": Loop(marker="FFMA")},
        )
        for dtype in (float32, float64)
    ]  # fmt: skip
    merge = Case(
        name="lloyd_merge",
        function=kernels_cuda._merge,
        signature=(
            array(int64, 1), array(int64, 1), array(int64, 1), array(int64, 1), int64, int64, array(float64, 1), array(float64, 1),
        ),
        max_registers=64,
        max_shared=2 << 10,
        loops={"part": Loop(marker="DADD")},
        unit="cell",
    )  # fmt: skip
    return [*found, merge]
