"""The CUDA silhouette pass against the CPU one: under numba's CUDA simulator anywhere, and on the device."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from gpuclust.metrics.silhouette.score import silhouette

# Both sum the same terms, in other runs: float64 to its last digits, float32 to 32 additions of 6e-8.
TOLERANCE = {"float64": 1e-12, "float32": 5e-6}

SIMULATED = """
import sys
import numpy as np
from numba import cuda
from tests.gpu_fakes import simulator
from gpuclust.metrics.silhouette import kernels_cuda as module
from gpuclust.errors import FitError

simulator.install()
given = np.load(sys.argv[1])
module.THREADS = 32  # the simulator runs a Python thread for each
for name, value in zip(given["names"], given["numbers"]):
    setattr(module, str(name), int(value))
weight = given["weight"] if given["weighted"] else None
rows = given["rows"] if given["sampled"] else None
seen = []
results = module.silhouette_cuda(
    cuda.to_device(given["X"]), list(given["labelings"]), rows=rows, sample_weight=weight, return_samples=True,
    progress=seen.append,
)
assert seen[-1] == 1.0
np.savez(
    sys.argv[2],
    score=[r.score for r in results],
    error=[r.standard_error for r in results],
    **{f"samples_{i}": r.samples for i, r in enumerate(results)},
)
X = given["X"].copy()
X[1, 0] = np.nan
try:
    module.silhouette_cuda(X, list(given["labelings"]))
except FitError as error:
    assert "NaN" in str(error)
else:
    raise AssertionError("NaN went unnoticed")
"""


def small_table(dtype, n_features):
    rng = np.random.default_rng(7)
    X = (rng.normal(size=(75, n_features)) + 3).astype(dtype)
    X[10:20] = X[0]
    labelings = np.stack([rng.integers(-1, 2, 75), rng.integers(0, 6, 75), np.arange(75) % 40])
    return X, labelings, rng.integers(1, 4, 75)


def assert_equal(results, expected, tolerance):
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.samples, wanted.samples, rtol=0, atol=tolerance)
        assert result.score == pytest.approx(wanted.score, abs=tolerance)
        assert result.standard_error == pytest.approx(wanted.standard_error, abs=tolerance)


@pytest.mark.parametrize(
    ("dtype", "n_features", "sampled", "weighted", "constants"),
    [
        ("float64", 3, False, False, {}),
        ("float32", 1, True, False, {}),
        ("float64", 5, True, True, {"STRETCH": 16, "LEVELS": 2}),  # several stretches, which end inside cells
        ("float32", 5, False, True, {"STRETCH": 30, "MAX_TARGETS": 1, "SUMS_BYTES": 8 * 48 * 32 * 3}),  # and launches
        ("float64", 40, False, False, {"SHARED_BYTES": 3 * 40 * 8}),  # a tile of three rows
    ],
)
def test_simulated_equals_cpu(tmp_path, dtype, n_features, sampled, weighted, constants):
    X, labelings, weight = small_table(dtype, n_features)
    rows = np.arange(0, 75, 2)
    np.savez(
        tmp_path / "given.npz",
        X=X,
        labelings=labelings,
        weight=weight,
        rows=rows,
        sampled=sampled,
        weighted=weighted,
        names=np.array(list(constants), dtype=str),
        numbers=np.array(list(constants.values()), dtype=int),
    )
    subprocess.run(
        [sys.executable, "-c", SIMULATED, tmp_path / "given.npz", tmp_path / "found.npz"],
        check=True,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
    )
    found = np.load(tmp_path / "found.npz")
    expected = silhouette(
        X,
        list(labelings),
        rows=rows if sampled else None,
        sample_weight=weight if weighted else None,
        return_samples=True,
    )
    for i, wanted in enumerate(expected):
        np.testing.assert_allclose(found[f"samples_{i}"], wanted.samples, rtol=0, atol=TOLERANCE[dtype])
        assert found["score"][i] == pytest.approx(wanted.score, abs=TOLERANCE[dtype])
        assert found["error"][i] == pytest.approx(wanted.standard_error, abs=TOLERANCE[dtype])


def test_a_launch_fills_the_device_or_its_share_of_memory():
    """The number of stretches follows from the blocks of one launch, not from those of all targets."""
    from gpuclust.metrics.silhouette.kernels_cuda import BLOCKS, Launch

    width, gib = 512, 1 << 30
    every = Launch.of(1_160_000, 1_160_000, 10, width, 4 * gib)
    assert every.step * 1_160_000 <= 2e11
    assert every.splits * every.step // width >= BLOCKS
    sample = Launch.of(10_000, 1_160_000, 10, width, 4 * gib)
    assert sample.splits * sample.step // width >= BLOCKS
    many = Launch.of(1_160_000, 1_160_000, 3_000, width, 4 * gib)
    assert many.splits * many.step // width > 300  # two for each of the 132 multiprocessors of an H100
    assert Launch.of(100, 100, 5, width, gib).splits == 1


@pytest.fixture
def cuda():
    cuda = pytest.importorskip("numba.cuda")
    if not cuda.is_available():
        pytest.skip("no CUDA GPU on this machine")
    return cuda


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n_features", [1, 11, 40, 100])
@pytest.mark.parametrize("sampled", [False, True])
def test_device_equals_cpu(cuda, dtype, n_features, sampled):
    from gpuclust.metrics.silhouette.kernels_cuda import silhouette_cuda

    rng = np.random.default_rng(0)
    X = (rng.normal(size=(20_001, n_features)) * 100 + 1e4).astype(dtype)
    labelings = [rng.integers(-1, k, len(X)) for k in (2, 7, 300)]
    rows = np.arange(0, len(X), 17) if sampled else None
    found = silhouette_cuda(cuda.to_device(X), labelings, rows=rows, return_samples=True)
    assert_equal(found, silhouette(X, labelings, rows=rows, return_samples=True), TOLERANCE[dtype])


@pytest.mark.gpu
def test_device_result_does_not_change_from_run_to_run(cuda):
    from gpuclust.metrics.silhouette.kernels_cuda import silhouette_cuda

    rng = np.random.default_rng(0)
    X = cuda.to_device(rng.normal(size=(30_000, 5)).astype(np.float32))
    labels = [cuda.to_device(rng.integers(0, 4, 30_000))]
    assert silhouette_cuda(X, labels) == silhouette_cuda(X, labels)
