"""The GPU's nearest-centre pass and its float64 finish, under numba's CUDA simulator, against the CPU and scikit-learn."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

IN_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
simulated = pytest.mark.skipif(not IN_SIMULATOR, reason="runs inside test_under_the_simulator")


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    """The simulator runs a Python thread for each of a block's threads."""
    if IN_SIMULATOR:
        from gpuclust.algorithms.kmeans import assign_cuda
        from gpuclust.algorithms.kmeans import kernels_cuda as lloyd_cuda

        monkeypatch.setattr(assign_cuda, "THREADS", 16)
        monkeypatch.setattr(lloyd_cuda, "THREADS", 32)


@pytest.mark.skipif(IN_SIMULATOR, reason="this is the simulator")
def test_under_the_simulator():
    """The tests below, in a process where numba.cuda simulates the device: it must be told before numba is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@simulated
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d", "k"), [(700, 3, 5), (1, 1, 1), (257, 11, 2)])
def test_nearest_two_is_the_cpu_pass(dtype, n, d, k):
    from gpuclust.algorithms.kmeans import assign_cuda
    from gpuclust.runtime import nearest

    rng = np.random.default_rng(n)
    X, centers = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(k, d))
    labels, first, second = assign_cuda.nearest_two(X, centers, np)
    expected = nearest.nearest_two(X, centers)
    np.testing.assert_array_equal(labels, expected[0])
    # The CPU fuses multiply and add, the simulator does not: one rounding in each of d terms.
    np.testing.assert_allclose(first, expected[1], rtol=d * 2e-16)
    np.testing.assert_allclose(second, expected[2], rtol=d * 2e-16)


@simulated
def test_a_tie_goes_to_the_lower_label():
    from gpuclust.algorithms.kmeans.assign_cuda import nearest_two

    labels, first, second = nearest_two(np.array([[0.5], [2.0]]), np.array([[0.0], [1.0], [1.0], [0.0]]), np)
    assert labels.tolist() == [0, 1]
    assert first.tolist() == second.tolist() == [0.5, 1.0]


@simulated
def test_sums_do_not_depend_on_the_blocks(monkeypatch):
    from gpuclust.algorithms.kmeans import assign_cuda

    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(900, 4)).astype(np.float32), rng.integers(0, 6, 900).astype(np.int32)
    labels[labels == 4] = 5  # an empty cluster
    whole = assign_cuda.cluster_sums(X, labels, 6, np)
    monkeypatch.setattr(assign_cuda, "MEMBERSHIP_CELLS", 6 * 128)
    blocks = assign_cuda.cluster_sums(X, labels, 6, np)
    expected = [X[labels == c].astype(np.float64).sum(axis=0) for c in range(6)]
    for sums, counts in (whole, blocks):
        assert counts.tolist() == np.bincount(labels, minlength=6).tolist()
        np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-12)  # order of 900 float64 additions


@simulated
@pytest.mark.parametrize("tol", [1e-4, 0.0])
def test_the_finish_is_scikit_learns_lloyd(tol):
    from sklearn.cluster import KMeans

    from gpuclust.algorithms.kmeans.assign_cuda import refine_float64

    rng = np.random.default_rng(1)
    X = rng.normal(size=(600, 3)) + rng.integers(0, 4, (600, 1)) * 2.5
    start = X[:4].copy()
    centers, n_iter, settled = refine_float64(X, start, least_move=tol * X.var(axis=0).mean(), max_iter=300, xp=np)
    model = KMeans(4, init=start, n_init=1, tol=tol, algorithm="lloyd").fit(X)
    assert settled
    assert n_iter == model.n_iter_
    np.testing.assert_allclose(centers, model.cluster_centers_, rtol=1e-10)  # same path, other order of sums


@simulated
def test_the_finish_says_when_it_did_not_settle():
    from gpuclust.algorithms.kmeans.assign_cuda import refine_float64

    X = np.random.default_rng(2).normal(size=(400, 2))
    _, n_iter, settled = refine_float64(X, X[:8].copy(), least_move=0.0, max_iter=2, xp=np)
    assert (n_iter, settled) == (2, False)


@simulated
def test_an_empty_cluster_keeps_its_centre():
    from gpuclust.algorithms.kmeans.assign_cuda import refine_float64

    X = np.array([[0.0], [1.0], [9.0], [11.0]])
    centers, _, settled = refine_float64(X, np.array([[0.0], [10.0], [500.0]]), least_move=0.0, max_iter=9, xp=np)
    assert settled
    assert centers.ravel().tolist() == [0.5, 10.0, 500.0]


@simulated
def test_several_descents_share_their_passes_and_end_as_scikit_learns():
    from sklearn.cluster import KMeans

    from gpuclust.algorithms.kmeans.assign_cuda import LloydState, run_lloyd_gpu

    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 2)) + rng.integers(0, 3, (300, 1)) * 3.0
    starts = [X[:3].copy(), X[10:15].copy()]
    descents = [LloydState(start, least_move=1e-4 * X.var(axis=0).mean(), max_iter=100) for start in starts]
    short = LloydState(starts[1], least_move=0.0, max_iter=1)
    run_lloyd_gpu(X, [*descents, short])
    assert (short.n_iter, short.settled) == (1, False)
    for start, found in zip(starts, descents, strict=True):
        model = KMeans(len(start), init=start, n_init=1, algorithm="lloyd").fit(X)
        assert found.settled
        assert found.n_iter == model.n_iter_
        np.testing.assert_allclose(found.centers, model.cluster_centers_, rtol=1e-10)  # other order of sums
