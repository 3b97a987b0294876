"""The kernels of the EM pass."""

from __future__ import annotations

from numba import float32, float64, int32

from gpuclust.algorithms.mixture import kernels_cuda
from tests.gpu_kernels.case import Case, Loop, array


def cases() -> list[Case]:
    found = []
    for T in (float32, float64):
        em, score, _ = kernels_cuda._kernels(str(T))
        multiply = "FFMA" if T is float32 else "DFMA"
        found += [
            Case(
                name=f"em_tiles_{T}",
                function=em,
                signature=(
                    array(T, 2), array(float64, 1), array(int32, 1), array(T, 2), array(T, 3), array(T, 2), array(T, 1),
                    array(int32, 1), array(int32, 1), array(float64, 2), array(float64, 1),
                ),
                max_registers=128,
                max_shared=2 << 10,
                dynamic_shared=44 << 10,
                # One row's part of an entry of a covariance: share * (x_i - mean_i) * (x_j - mean_j).
                loops={"entry": Loop(marker=multiply, needs=("LDS",))},
            ),
            Case(
                name=f"em_score_rows_{T}",
                function=score,
                signature=(
                    array(T, 2), array(float64, 1), array(T, 2), array(T, 3), array(T, 2), array(T, 1), float64,
                    array(int32, 1), array(float32, 1), array(float64, 1), array(T, 2), array(float64, 2),
                ),
                max_registers=128,
                max_shared=2 << 10,
                dynamic_shared=44 << 10,
                loops={"product": Loop(marker=multiply, needs=("LDS",))},
            ),
        ]  # fmt: skip
    _, _, merge = kernels_cuda._kernels("float64")
    found.append(
        Case(
            name="em_merge",
            function=merge,
            signature=(array(float64, 2), array(float64, 1)),
            max_registers=64,
            max_shared=2 << 10,
            loops={"block": Loop(marker="DADD")},
            unit="cell",
        )
    )
    return found
