"""The kernels that add up the rows of each cluster, for the other scores and for profiles."""

from __future__ import annotations

from numba import float32, float64, int64

from gpuclust.metrics import grouped_sums_cuda as kernels
from tests.gpu_kernels.case import Case, Loop, array

ROWS = (array(int64, 1), array(int64, 2))  # their order and their segments


def cases() -> list[Case]:
    found = [
        Case(
            name=f"grouped_products_{d}_{dtype}",
            function=kernels._product_kernel(d, kernels.THREADS, kernels.TILE_ROWS),
            signature=(array(dtype, 2), *ROWS, array(float64, 1), array(float64, 2)),
            max_registers=64,
            max_shared=12 << 10,
            loops={
                "product": Loop(marker="DFMA", steps=(d + 1) * (d + 2) // 2, lacks=("BAR",)),
                "value": Loop(marker="LDG", needs=("STS",), lacks=("BAR",), per_step=3, steps=d + 1),
            },
            threads=kernels.THREADS,
        )
        for d, dtype in ((11, float32), (33, float64))
    ]
    return [
        *found,
        Case(
            name="grouped_columns_float64",  # of a profile, of the features in original units
            function=kernels._column_kernel(kernels.THREADS),
            signature=(array(float64, 2), *ROWS, array(float64, 2), int64, array(float64, 2)),
            max_registers=64,
            max_shared=5 << 10,
            loops={"value": Loop(marker="DFMA", steps=11)},
            threads=kernels.THREADS,
        ),
        Case(
            name="grouped_spreads_float32",
            function=kernels._spread_kernel(kernels.THREADS),
            signature=(array(float32, 2), *ROWS, array(float64, 2), array(float64, 2)),
            max_registers=64,
            max_shared=5 << 10,
            loops={"value": Loop(marker="DFMA", needs=("LDG",), lacks=("MUFU",), steps=11)},
            threads=kernels.THREADS,
        ),
        Case(
            name="grouped_merge",
            function=kernels._merge_kernel(kernels.THREADS, kernels.MERGED),
            signature=(array(float64, 2), array(int64, 1), array(float64, 2)),
            max_registers=64,
            max_shared=3 << 10,
            loops={"segment": Loop(marker="LDG")},
            threads=kernels.THREADS,
            unit="cell",
        ),
    ]
