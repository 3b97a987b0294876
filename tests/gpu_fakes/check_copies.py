"""What moves between host and device: in an iteration nothing larger than the parameters, in a job a few arrays of rows.

Run by `tests.test_gpu_fakes`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import cupy as cp
import numpy as np
import pytest

from gpuclust.algorithms.kmeans.kernels_cuda import N_STATE
from gpuclust.algorithms.kmeans.lloyd_cuda import PASSES_PER_CHECK, DeviceJob, rows_on_device, run_lloyd
from gpuclust.algorithms.mixture.em import EMSettings
from gpuclust.algorithms.mixture.em_cuda import ITERATIONS_PER_CHECK, CudaPasses
from gpuclust.algorithms.mixture.kernels_cuda import HEADER
from gpuclust.algorithms.mixture.m_step import MixtureParameters
from tests.gpu_fakes.device import DEVICE, DOWN, LAUNCH, Counts, Event

N, D, K = 250, 3, 6


def matrix(dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, D)).astype(dtype)


def lloyd(X: Any, max_iter: int) -> Counts:
    """Iterations that never settle, from given centres."""
    rows = rows_on_device(X, cp)
    with DEVICE.measure() as counts:
        (found,) = run_lloyd(rows, [DeviceJob(0, rows.to_tiled(X[:K]), max_iter, -1.0)])
    assert found.n_iter == max_iter
    return counts


def mixture(X: Any, max_iter: int) -> Counts:
    """Iterations whose gain is never below the tolerance."""
    passes = CudaPasses()
    on_device = passes.matrix(X)
    weights, means = np.full(K, 1 / K), X[:K].get().astype(np.float64)
    start = MixtureParameters(weights, means, np.tile(np.eye(D), (K, 1, 1)), np.tile(np.eye(D), (K, 1, 1)))
    with DEVICE.measure() as counts:
        found = passes.iterate(on_device, start, EMSettings("full", 1e-2, -1.0, max_iter), None, lambda share: None)
    assert len(found.lower_bounds) == max_iter
    return counts


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("run", "n_iter", "launches", "copies"),
    [
        (lloyd, PASSES_PER_CHECK, 2, {(DOWN, 8 * N_STATE)}),
        (mixture, ITERATIONS_PER_CHECK, 3, {(DOWN, 8 * HEADER)}),
    ],
    ids=["lloyd", "em"],
)
def test_an_iteration_copies_nothing_and_a_check_less_than_the_parameters(
    run: Any, n_iter: int, launches: int, copies: set[tuple[str, int]], dtype: str
) -> None:
    X = cp.asarray(matrix(dtype)[: None if run is lloyd else 64])  # the simulator takes its time for EM
    short, long = run(X, n_iter), run(X, 2 * n_iter)
    assert sum(long.launches().values()) - sum(short.launches().values()) == launches * n_iter
    moved = [
        Counter((e.kind, e.n_bytes) for e in c.events if e.kind != LAUNCH and not result(e)) for c in (short, long)
    ]
    assert set((moved[1] - moved[0]).elements()) == copies, long.table()
    assert max(n_bytes for _, n_bytes in copies) < 8 * K * D


def result(event: Event) -> bool:
    """Whether a copy is the result of a run, which holds the lower bound of every iteration."""
    return event.where[0].endswith(":outcome")
