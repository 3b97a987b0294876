"""The kernels of Lloyd's iterations: passes, centres, seeds."""

from __future__ import annotations

from numba import float32, float64, int32, int64

from gpuclust.algorithms.kmeans import kernels_cuda, seeding_cuda
from tests.gpu_kernels.case import Case, Loop, array

CLUSTERS = 10  # of the counts for a row

PLAN, STATE, SUMS = array(int64, 2), array(float64, 2), array(float64, 1)


def cases() -> list[Case]:
    found = [
        Case(
            name=f"lloyd_pass_{d}",
            function=kernels_cuda.pass_kernel(d),
            signature=_pass_signature(dtype),
            max_registers=128,
            max_shared=2 << 10,
            dynamic_shared=40 << 10,
            threads=kernels_cuda.THREADS,
            loops={
                # A thread's two rows and one centre
                "center": Loop(marker="FFMA", per_step=2 * d, steps=CLUSTERS / 2, needs=("FMNMX",)),
                # One feature of a row added to the sums of its cluster
                "column": Loop(marker="DADD", steps=d, needs=("LDS", "STS", "LDG"), lacks=("DFMA",)),
                "count": Loop(marker="DADD", needs=("LDS", "STS"), lacks=("LDG",)),
                # What is left of a tile: a thread's two rows
                "tile": Loop(marker=r"BAR\.SYNC", per_step=2, steps=1 / 2),
            },
        )
        for d, dtype in ((5, float32), (11, float64))
    ]
    wide = Case(
        name="lloyd_wide_pass",
        function=kernels_cuda.wide_pass,
        signature=_pass_signature(float32),
        max_registers=96,
        max_shared=2 << 10,
        dynamic_shared=24 << 10,
        threads=kernels_cuda.THREADS,
        # One feature of a thread's two rows and four centres
        loops={"product": Loop(marker="FFMA", per_step=8, lacks=("FMNMX",))},
    )
    move = Case(
        name="lloyd_move_centers",
        function=kernels_cuda.move_centers,
        signature=(PLAN, float64, SUMS, SUMS, array(float64, 2), array(float64, 2), array(float64, 2), array(float32, 1), STATE),
        max_registers=96,
        max_shared=5 << 10,
        threads=kernels_cuda.MOVE_THREADS,
        # One feature of a centre
        loops={"move": Loop(marker="STG", per_step=3, needs=("F2F",))},
        unit="cell",
    )  # fmt: skip
    fill = Case(
        name="lloyd_fill_tiles",
        function=kernels_cuda.fill_tiles,
        signature=(array(float32, 2), array(float64, 1), array(float32, 1)),
        max_registers=64,
        max_shared=1 << 10,
        threads=kernels_cuda.TILE,
        loops={"value": Loop(marker="STG")},
        unit="cell",
    )
    return [*found, wide, move, fill, *_seeding()]


def _pass_signature(dtype: object) -> tuple[object, ...]:
    return (
        array(dtype, 2), array(float32, 1), array(float64, 1), array(int32, 1), PLAN, STATE, array(float64, 2),
        array(float32, 1), SUMS,
    )  # fmt: skip


def _seeding() -> list[Case]:
    values, closest, chosen = array(float32, 1), array(float32, 2), array(int64, 1)
    square = Loop(marker="FFMA", needs=("FADD",), lacks=("FMNMX",))  # one feature of a row and a candidate
    return [
        Case(
            name="kmeans_plus_plus",
            function=seeding_cuda.plus_plus,
            signature=(values, int64, PLAN, array(float64, 1), array(int64, 1), closest, chosen),
            max_registers=128,
            max_shared=6 << 10,
            threads=seeding_cuda.TILE,
            loops={"square": square},
        ),
        Case(
            name="kmeans_draw_rows",
            function=seeding_cuda.draw_rows,
            signature=(values, int64, PLAN, array(float32, 1), array(float64, 1), closest, chosen),
            max_registers=128,
            max_shared=6 << 10,
            threads=seeding_cuda.TILE,
            loops={"square": square},
        ),
    ]
