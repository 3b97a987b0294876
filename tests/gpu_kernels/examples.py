"""A kernel that can grow and spill, to show that the check sees both."""

from __future__ import annotations

from typing import Any

from numba import cuda, float32

from gpuclust.runtime.jit_cuda import cuda_kernel
from tests.gpu_kernels.case import Case, Loop, array

WIDTH = 24


def kernel(more: int, **options: Any) -> Any:
    """Sums of products of a row with ``more`` additional operations for each of them."""

    @cuda_kernel(**options)
    def products(X, out):  # type: ignore[no-untyped-def]
        values = cuda.local.array(WIDTH, float32)
        for f in range(WIDTH):
            values[f] = float32(0)
        for row in range(X.shape[0]):
            x = X[row, cuda.threadIdx.x]
            for f in range(WIDTH):
                values[f] += x * values[WIDTH - 1 - f]
            for f in range(more):
                values[f] = values[f] / x
        for f in range(WIDTH):
            out[cuda.threadIdx.x, f] = values[f]

    return products


def case(more: int = 0, **options: Any) -> Case:
    return Case(
        name="products",
        function=kernel(more, **options),
        signature=(array(float32, 2), array(float32, 2)),
        max_registers=128,
        max_shared=2 << 10,
        loops={"row": Loop(marker="LDG")},
    )
