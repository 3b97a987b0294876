"""The kernels that assign rows to centres and add up clusters, in float64."""

from __future__ import annotations

from numba import float32, float64, int32, int64

from gpuclust.algorithms.kmeans import assign_cuda
from tests.gpu_kernels.case import Case, Loop, array


def cases() -> list[Case]:
    found = [
        Case(
            name=f"assign_rows_{d}_{dtype}",
            function=assign_cuda.nearest_kernel(d),
            signature=(
                array(dtype, 2), array(float64, 1), array(int32, 1), array(float32, 1), array(float32, 1), array(float64, 1),
            ),
            max_registers=96,
            max_shared=1 << 10,
            # One feature of a row and a centre
            loops={"square": Loop(marker="DFMA", needs=("DSETP",) if d <= 11 else ())},
        )
        for d, dtype in ((5, float32), (300, float64))
    ]  # fmt: skip
    add = Case(
        name="assign_add_rows",
        function=assign_cuda.add_rows,
        signature=(array(float32, 2), array(int32, 1), array(float64, 1), int64, array(float64, 3)),
        max_registers=64,
        max_shared=17 << 10,
        threads=assign_cuda.PARTS * assign_cuda.LANES,
        loops={"row": Loop(marker=r"STS", needs=("LDG", "DADD"))},
    )
    return [*found, add]
