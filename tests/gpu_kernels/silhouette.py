"""The kernels of the silhouette."""

from __future__ import annotations

from numba import float32, float64, int32, int64

from gpuclust.metrics.silhouette import kernels_cuda
from tests.gpu_kernels.case import Case, Loop, array


def cases() -> list[Case]:
    found = []
    for dtype in (float32, float64):
        for d in (5, 11):
            # A pair takes d multiplications with addition for the squares, and a square root.
            pair = Loop(marker="MUFU.RSQ" if dtype is float32 else "MUFU.RSQ64H")
            found.append(
                Case(
                    name=f"silhouette_add_{d}_{dtype}",
                    function=kernels_cuda._add_kernel(d, dtype),
                    signature=(
                        array(int64, 1), array(dtype, 2), array(dtype, 1), array(int64, 1), array(int32, 2), array(float64, 3),
                    ),
                    max_registers=128,
                    max_shared=33 << 10,
                    loops={"pair": pair},
                    threads=kernels_cuda.THREADS,
                    unit="pair",
                )
            )  # fmt: skip
        found += [
            Case(
                name=f"silhouette_largest_{dtype}",
                function=kernels_cuda._largest_kernel,
                signature=(array(dtype, 2), array(dtype, 1)),
                max_registers=64,
                max_shared=2 << 10,
                loops={},
                threads=kernels_cuda.THREADS,
            ),
            Case(
                name=f"silhouette_gather_{dtype}",
                function=kernels_cuda._gather_kernel,
                signature=(array(dtype, 2), array(int64, 1), dtype, array(dtype, 2)),
                max_registers=64,
                max_shared=2 << 10,
                loops={},
                threads=kernels_cuda.THREADS,
            ),
        ]
    found.append(
        Case(
            name="silhouette_coefficient",
            function=kernels_cuda._coefficient_kernel,
            signature=(array(float64, 3), array(int64, 1), array(float64, 1), array(int32, 2), array(float64, 2)),
            max_registers=96,
            max_shared=2 << 10,
            loops={"part": Loop(marker="DADD")},
            threads=kernels_cuda.THREADS,
            unit="cell",
        )
    )
    return found
