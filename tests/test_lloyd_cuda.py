"""The CUDA Lloyd pass against the CPU one: under numba's CUDA simulator anywhere, and on the device."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from gpuclust.algorithms.kmeans.lloyd import lloyd_pass

# Float64 sums of the same terms in another order: their number, some thousands, times 1e-16.
ROUNDING = 1e-12

SIMULATED = """
import sys
import numpy as np
from numba import cuda
from tests.gpu_fakes import simulator
from gpuclust.algorithms.kmeans import kernels_cuda as lloyd_cuda

simulator.install()
given = np.load(sys.argv[1])
lloyd_cuda.THREADS = 16  # the simulator runs a Python thread for each
lloyd_cuda.MIN_THREADS = 4
lloyd_cuda.SHARED_BYTES = int(given["shared_bytes"])
lloyd_cuda.CELLS = int(given["cells"])
lloyd_cuda.BLOCKS = 3
centers = [given[f"centers_{i}"] for i in range(int(given["n_fits"]))]
weight = given["weight"] if given["weighted"] else None
found = lloyd_cuda.lloyd_pass(cuda.to_device(given["X"]), centers, weight)
np.savez(
    sys.argv[2],
    **{f"labels_{i}": one.labels.copy_to_host() for i, one in enumerate(found)},
    **{f"sums_{i}": one.sums for i, one in enumerate(found)},
    **{f"masses_{i}": one.masses for i, one in enumerate(found)},
    **{f"inertia_{i}": one.inertia for i, one in enumerate(found)},
)
"""


def table(n_rows, n_features, dtype):
    rng = np.random.default_rng(n_features)
    X = (rng.standard_normal((n_rows, n_features)) * 3 + 100).astype(dtype)
    centers = [X[:k].astype(np.float64) + 0.1 for k in (1, 2, 7)]
    centers.append(np.repeat(X[:1].astype(np.float64), 3, axis=0))
    centers[-1][1, 0] += 1e-8  # so near to the first that only float64 tells them apart
    return X, centers, rng.uniform(0, 2, n_rows)


def assert_same(found, expected, X):
    scale = float(np.abs(X).max()) * len(X)
    for one, wanted in zip(found, expected, strict=True):
        labels = one.labels if isinstance(one.labels, np.ndarray) else one.labels.copy_to_host()
        np.testing.assert_array_equal(labels, wanted.labels)
        np.testing.assert_allclose(one.sums, wanted.sums, rtol=0, atol=ROUNDING * scale)
        np.testing.assert_allclose(one.masses, wanted.masses, rtol=ROUNDING)
        # The CPU's comes from the sums: it loses what |x|² is larger than |x - c|², less than 100 times here.
        assert one.inertia == pytest.approx(wanted.inertia, rel=100 * ROUNDING)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n_rows", "n_features", "weighted", "shared_bytes", "cells"),
    [
        (1, 1, False, 1024, 3072),
        (90, 3, True, 1024, 3072),  # five rows a part
        (67, 5, False, 4 * 5 * 8, 30),  # tiles of eight rows, statistics of one part
        (50, 20, True, 4 * 20 * 16, 3072),  # more columns than threads
    ],
)
def test_simulated_equals_cpu(tmp_path, dtype, n_rows, n_features, weighted, shared_bytes, cells):
    X, centers, weight = table(n_rows, n_features, dtype)
    np.savez(
        tmp_path / "given.npz",
        X=X,
        weight=weight,
        weighted=weighted,
        shared_bytes=shared_bytes,
        cells=cells,
        n_fits=len(centers),
        **{f"centers_{i}": one for i, one in enumerate(centers)},
    )
    subprocess.run(
        [sys.executable, "-c", SIMULATED, tmp_path / "given.npz", tmp_path / "found.npz"],
        check=True,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
    )
    loaded = np.load(tmp_path / "found.npz")
    expected = lloyd_pass(X, centers, weight if weighted else None)
    found = [
        type(wanted)(loaded[f"labels_{i}"], loaded[f"sums_{i}"], loaded[f"masses_{i}"], float(loaded[f"inertia_{i}"]))
        for i, wanted in enumerate(expected)
    ]
    assert_same(found, expected, X)
    assert len(np.unique(found[-1].labels)) >= min(2, n_rows)


@pytest.fixture
def cuda():
    cuda = pytest.importorskip("numba.cuda")
    if not cuda.is_available():
        pytest.skip("no CUDA GPU on this machine")
    return cuda


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_features", [1, 5, 11, 40, 200])
@pytest.mark.parametrize("weighted", [False, True])
def test_device_equals_cpu(cuda, dtype, n_features, weighted):
    from gpuclust.algorithms.kmeans import kernels_cuda as lloyd_cuda

    X, centers, weight = table(50_001, n_features, dtype)
    centers.append(X[:300].astype(np.float64))
    given = cuda.to_device(X)
    found = lloyd_cuda.lloyd_pass(given, centers, weight if weighted else None)
    assert_same(found, lloyd_pass(X, centers, weight if weighted else None), X)
    again = lloyd_cuda.lloyd_pass(given, centers, weight if weighted else None)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.sums, other.sums)
        assert one.inertia == other.inertia
