"""The kernels of EM."""

from __future__ import annotations

from typing import Any

from numba import float32, float64, int32, int64

from gpuclust.algorithms.mixture import kernels_cuda
from gpuclust.algorithms.mixture.em_cuda import em_launch, score_launch
from tests.gpu_kernels.case import Case, Loop, array

ROWS = 1_160_000


def tiles(d: int, k: int, T: Any, diagonal: bool = False) -> Case:
    """The statistics of `ROWS` rows of d features and k components."""
    launch = em_launch(ROWS, d, k, str(T), diagonal)
    shape = launch.shape
    multiply = "FFMA" if T is float32 else "DFMA"
    if diagonal:
        e_products, m_products = 2 * shape.block, 2 * shape.block
    elif shape.whole:
        e_products, m_products = d * (d + 1) // 2 + d, d * (d + 1) // 2
    else:  # a feature of a block of products, and a pair of blocks
        e_products, m_products = shape.block, shape.block**2
    return Case(
        name=f"em_pass_{'diagonal_' if diagonal else ''}{d}_{k}_{T}",
        function=kernels_cuda.em_tiles(shape),
        signature=(
            array(T, 2), array(float64, 1), array(int32, 1), array(T, 1), array(float64, 2), array(float64, 1), int64, int64,
        ),
        max_registers=shape.max_registers,
        max_shared=1 << 10,
        dynamic_shared=launch.shared_bytes,
        threads=32 * launch.warps,
        loops={
            # Of one row and component: its log density, the exponential, and its part of the moments.
            "density": Loop(marker=multiply, per_step=e_products, steps=k, needs=("LDG",), lacks=("BAR",)),
            "moments": Loop(marker=multiply, per_step=m_products, steps=k, lacks=("LDG", "BAR")),
        } | ({
            "exponential": Loop(marker=r"MUFU\.EX2", steps=k),
            "row": Loop(marker=r"MUFU\.RCP", needs=("LDG", "BAR")),  # the rest of a row: it is loaded and scaled
        } if T is float32 else {}),
    )  # fmt: skip


def cases() -> list[Case]:
    found = [
        tiles(5, 5, float32),
        tiles(11, 10, float32),
        tiles(8, 5, float64),
        tiles(32, 10, float64),
        tiles(11, 10, float32, diagonal=True),
    ]
    launch = score_launch(ROWS, 11, 10, "float64", False)
    found.append(
        Case(
            name="em_score_rows_11_float64",
            function=kernels_cuda.score_rows(launch.shape),
            signature=(
                array(float32, 2), array(float64, 1), array(float64, 1), int64, float64, array(int32, 1), array(float32, 1),
                array(float32, 1), array(float64, 1), array(float64, 2), array(float64, 2),
            ),
            max_registers=255,
            max_shared=1 << 10,
            dynamic_shared=launch.shared_bytes,
            threads=32 * launch.warps,
            loops={"density": Loop(marker="DFMA", per_step=launch.shape.block, steps=10, needs=("LDG",))},
        )
    )  # fmt: skip
    found.append(
        Case(
            name="em_merge",
            function=kernels_cuda.merge,
            signature=(array(float64, 2), array(float64, 1), array(float64, 1)),
            max_registers=64,
            max_shared=9 << 10,
            threads=1024,
            loops={"line": Loop(marker="DADD", needs=("LDG",))},
            unit="cell",
        )
    )
    found.append(
        Case(
            name="em_m_step_float32",
            function=kernels_cuda.m_step(True),
            signature=(
                array(float64, 1), array(float64, 1), array(float32, 1), array(float64, 4), int64, int64, int64, int64,
                float64, float64, float64, float64, int64,
            ),
            max_registers=200,
            max_shared=1 << 10,
            threads=kernels_cuda.M_STEP_THREADS,
            loops={"inverse": Loop(marker="DFMA", needs=("LDG",))},
            unit="cell",
        )
    )  # fmt: skip
    found.append(
        Case(
            name="em_take_rows_float32",
            function=kernels_cuda.take_rows,
            signature=(array(float32, 2), array(int64, 1), array(float32, 2)),
            max_registers=64,
            max_shared=1 << 10,
            threads=128,
            loops={"value": Loop(marker="STG")},
            unit="cell",
        )
    )
    return found
