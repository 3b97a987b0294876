"""Lloyd's iterations and the search for starts on a GPU against the CPU's: under numba's CUDA simulator anywhere, and on the device."""

from __future__ import annotations

import os

import numpy as np
import pytest

from gpuclust.algorithms.kmeans import KMeansConfig, kernels_cuda, lloyd_cuda, search_cuda, seeding_cuda
from gpuclust.algorithms.kmeans import init as kmeans_init
from gpuclust.algorithms.kmeans.fit import fit_centers, lloyd
from gpuclust.algorithms.kmeans.init import KMeansRequest
from gpuclust.algorithms.kmeans.lloyd import lloyd_pass, rows_in_memory
from gpuclust.algorithms.kmeans.lloyd_cuda import DeviceBatch, DeviceJob, exact_centers, rows_on_device, run_lloyd
from gpuclust.algorithms.kmeans.seeding import plus_plus
from gpuclust.algorithms.kmeans.tiled_matrix import tile_rows
from gpuclust.errors import FitError
from tests.conftest import run_in_simulator

IN_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
simulated = pytest.mark.skipif(not IN_SIMULATOR, reason="runs inside test_under_the_simulator")
TILE = 32
# Float64 sums of the same terms in another order: their number, some thousands, times 1e-16.
ROUNDING = 1e-12


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """The simulator runs the threads of a block one after another, so blocks are small, and several take part."""
    if IN_SIMULATOR:
        small = {
            "TILE": TILE,
            "THREADS": TILE // 2,
            "MOVE_THREADS": 8,
            "N_SUMS": TILE + 1,
            "BLOCKS": 3,
            "MAX_PART_BITS": 3,
        }
        for module in (kernels_cuda, lloyd_cuda, search_cuda, seeding_cuda):
            for name, value in small.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, value)


@pytest.mark.skipif(IN_SIMULATOR, reason="this is the simulator")
def test_under_the_simulator():
    """The tests below, where numba.cuda simulates the device."""
    done = run_in_simulator(__file__)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def clusters(n_rows: int, n_features: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(n_features)
    return (rng.normal(size=(n_rows, n_features)) + rng.integers(0, 3, (n_rows, 1)) * 2.5 + 50).astype(dtype)


def run(X, starts, xp, *, max_iter=100, tol=1e-4):
    rows = rows_on_device(X, xp)
    jobs = [DeviceJob(0, rows.to_tiled(xp.asarray(s)), max_iter, tol * rows.frame.variance) for s in starts]
    return rows, run_lloyd(rows, jobs)


def assert_equals_cpu(X, starts, xp, **options):
    """The iterations that the CPU makes, and its centres and inertia."""
    rows, found = run(xp.asarray(X), starts, xp, **options)
    scale = float(np.abs(X).max()) * len(X)
    for one, expected in zip(found, lloyd(X, starts, **options), strict=True):
        assert (one.n_iter, one.converged) == (expected.n_iter, expected.converged)
        centers = lloyd_cuda.to_host(exact_centers(rows, one), xp)
        np.testing.assert_allclose(centers, expected.centers, rtol=0, atol=ROUNDING * scale)
        # Of rows rounded to float32, from the sums alone.
        assert one.inertia / rows.frame.scale**2 == pytest.approx(expected.inertia, rel=1e-6)


@simulated
@pytest.mark.parametrize(
    ("dtype", "n_features", "max_cells"),
    [
        ("float32", 3, 3072),
        ("float64", 2, 40),  # fewer parts than threads
        ("float32", 4, 10),  # sums that do not fit in shared memory
        ("float32", 37, 3072),  # more features than registers
        ("float64", 33, 10),
    ],
)
def test_iterations_are_the_cpus(monkeypatch, dtype, n_features, max_cells):
    monkeypatch.setattr(lloyd_cuda, "MAX_CELLS", max_cells)
    X = clusters(165, n_features, dtype)
    assert_equals_cpu(X, [X[:3].astype(float), X[10:16].astype(float), X[:1].astype(float)], np)


@simulated
def test_many_clusters_need_no_shared_memory(monkeypatch):
    monkeypatch.setattr(lloyd_cuda, "MAX_NEAR", 8)
    X = clusters(130, 2, "float32")
    assert_equals_cpu(X, [X[:21].astype(float)], np)


@simulated
@pytest.mark.parametrize("n_features", [1, 33])
def test_float64_decides_where_float32_cannot(n_features):
    X = clusters(70, n_features, "float64")
    start = np.repeat(X[:1], 3, axis=0)
    start[1, 0] += 1e-8
    rows = rows_on_device(X, np)
    batch = DeviceBatch(rows, [DeviceJob(0, rows.to_tiled(start), 1, 0.0)])
    batch.run()
    (expected,) = lloyd_pass(X, [start])
    assert np.count_nonzero(expected.masses) == 2
    masses = batch.sums.reshape(-1, n_features + 1)[:3, n_features]
    np.testing.assert_array_equal(masses, expected.masses)


@simulated
@pytest.mark.parametrize("n_features", [2, 34])
def test_empty_clusters_are_given_the_farthest_rows_as_on_the_cpu(n_features):
    X = clusters(90, n_features, "float32")
    start = np.concatenate([X[:2], X[:3] + 1000]).astype(float)
    assert_equals_cpu(X, [start, X[:4].astype(float)], np)


@simulated
def test_more_clusters_than_distinct_rows_end():
    X = np.repeat(np.array([[0.0, 1.0], [5.0, 5.0]], np.float32), 20, axis=0)
    start = np.array([[0.0, 1.0], [5.0, 5.0], [5.0, 5.0], [9.0, 9.0]])
    assert_equals_cpu(X, [start], np)


@simulated
def test_a_fit_stops_at_its_limit_while_others_go_on(monkeypatch):
    monkeypatch.setattr(lloyd_cuda, "PASSES_PER_CHECK", 3)
    X = clusters(100, 2, "float32")
    rows = rows_on_device(X, np)
    start = rows.to_tiled(X[:6].astype(float))
    short, long = run_lloyd(rows, [DeviceJob(0, start, 2, 0.0), DeviceJob(0, start, 100, 0.0)])
    assert (short.n_iter, short.converged) == (2, False)
    assert long.converged
    assert long.n_iter > lloyd_cuda.PASSES_PER_CHECK
    (again,) = run_lloyd(rows, [DeviceJob(0, long.centers, 100, 0.0)])
    np.testing.assert_array_equal(again.centers, long.centers)


@simulated
@pytest.mark.parametrize(("n_rows", "k"), [(100, 4), (70, 9), (33, 1)])
def test_seeds_are_the_cpus_rows(n_rows, k):
    X = clusters(n_rows, 3, "float32")
    X[:5] = X[0]
    rows = rows_on_device(X, np)
    requests = [KMeansRequest(k, seed=1, n_init=3)]
    (found, *_) = [search_cuda._seeds(rows, [search_cuda._Seeding(0, 0, 0, range(3))], requests)]
    host = rows_in_memory(X, np.empty(0))
    generators = kmeans_init.restart_generators(requests[0], range(3), 0)
    chosen = plus_plus(tile_rows(X, host.frame), np.ones(n_rows), k, generators)
    for start, numbers in zip(found, chosen, strict=True):
        np.testing.assert_allclose(rows.from_tiled(start), X[numbers], rtol=1e-12)  # to the frame and back


@simulated
def test_seeds_of_identical_rows_are_rows():
    rows = rows_on_device(np.ones((40, 2)), np)
    seeding = search_cuda._Seeding(0, 0, 0, range(2))
    for start in search_cuda._seeds(rows, [seeding], [KMeansRequest(3, seed=0, n_init=2)]):
        np.testing.assert_array_equal(rows.from_tiled(start), np.ones((3, 2)))


@simulated
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_the_search_finds_the_cpus_centres(monkeypatch, init):
    for module in (kmeans_init, search_cuda):
        monkeypatch.setattr(module, "SAMPLE_ROWS", 64)
        monkeypatch.setattr(module, "ROWS_PER_CLUSTER", 16)
        monkeypatch.setattr(module, "SWAPS", 1)
    X = clusters(140, 2, "float64")
    # The second has more clusters than a sample suffices for; the third has one start.
    requests = [KMeansRequest(k, seed=3, n_init=n, init=init) for k, n in ((3, 2), (5, 2), (2, 1))]
    rows = rows_on_device(X, np)
    starts = search_cuda.choose_starts(rows, requests)
    jobs = [DeviceJob(0, start, 300, 1e-4 * rows.frame.variance) for _, start in starts]
    best = {}
    for (i, _), result in zip(starts, run_lloyd(rows, jobs), strict=True):
        best[i] = min(best.get(i, result), result, key=lambda r: r.inertia)
    for i, expected in enumerate(fit_centers(X, requests)):
        np.testing.assert_allclose(exact_centers(rows, best[i]), expected.centers, rtol=1e-10)


@simulated
def test_centres_that_differ_by_rounding_become_equal():
    X = clusters(100, 3, "float32")
    rows = rows_on_device(X, np)
    start = rows.to_tiled(X[:4].astype(float))
    noise = np.random.default_rng(0).uniform(-1e-7, 1e-7, start.shape)
    one, other = (lloyd_cuda.round_centers(rows, c) for c in (start, start + noise))
    np.testing.assert_array_equal(one, other)
    step = np.sqrt(rows.frame.variance) / (4 * 4 ** (1 / 3))
    assert 0 < np.abs(one - start).max() <= step / 2


@simulated
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    X = np.ones((30, 2))
    X[7, 1] = value
    with pytest.raises(FitError, match=r"NaN, infinity .* clean or scale"), np.errstate(invalid="ignore"):
        rows_on_device(X, np)


@pytest.fixture
def cupy():
    cupy = pytest.importorskip("cupy")
    if IN_SIMULATOR or not cupy.cuda.is_available():
        pytest.skip("no CUDA GPU on this machine")
    return cupy


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_features", [1, 5, 11, 32, 40, 300])
def test_iterations_on_the_device_are_the_cpus(cupy, dtype, n_features):
    X = clusters(20_001, n_features, dtype)
    starts = [X[:k].astype(float) for k in (1, 3, 17)]
    assert_equals_cpu(X, starts, cupy, max_iter=20)
    runs = [run(cupy.asarray(X), starts, cupy)[1] for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.centers.get(), other.centers.get())


@pytest.mark.gpu
def test_fits_on_the_device_are_the_cpus(cupy):
    from gpuclust.algorithms.kmeans.gpu import fit_fused
    from gpuclust.algorithms.registry import FitInput

    X = clusters(40_000, 5, "float64")
    rows = rows_on_device(cupy.asarray(X), cupy)
    configs = [KMeansConfig(n_clusters=k, engine="fused", n_init=4) for k in (3, 6)]
    cpu = fit_centers(X, [KMeansRequest(k, seed=0, n_init=4) for k in (3, 6)])
    data = FitInput(X, 0, None, None, "")
    for found, expected in zip(fit_fused(rows, configs, data), cpu, strict=True):
        np.testing.assert_allclose(found.parameters["centers"], expected.centers, atol=1e-6)
