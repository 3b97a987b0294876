"""The GPU's nearest-centre pass and its sums of clusters, under numba's CUDA simulator, against the CPU's."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.conftest import run_in_simulator

IN_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
simulated = pytest.mark.skipif(not IN_SIMULATOR, reason="runs inside test_under_the_simulator")


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    """The simulator runs the threads of a block one after another."""
    if IN_SIMULATOR:
        from gpuclust.algorithms.kmeans import assign_cuda

        monkeypatch.setattr(assign_cuda, "THREADS", 16)


@pytest.mark.skipif(IN_SIMULATOR, reason="this is the simulator")
def test_under_the_simulator():
    """The tests below, where numba.cuda simulates the device."""
    done = run_in_simulator(__file__)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@simulated
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d", "k"), [(700, 3, 5), (1, 1, 1), (257, 11, 2)])
def test_rows_are_assigned_as_on_the_cpu(dtype, n, d, k):
    from gpuclust.algorithms.kmeans import assign_cuda
    from gpuclust.algorithms.kmeans.cpu import centroid_confidence
    from gpuclust.runtime import nearest

    rng = np.random.default_rng(n)
    X, centers = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(k, d))
    found = assign_cuda.assign(X, centers, np)
    labels, first, second = nearest.nearest_two(X, centers)
    np.testing.assert_array_equal(found.labels, labels)
    # The CPU fuses multiply and add, the simulator does not: one rounding in each of d terms.
    np.testing.assert_allclose(found.squares, first**2, rtol=2 * d * 2e-16)
    np.testing.assert_allclose(found.distance, first, rtol=1e-7)  # float32
    np.testing.assert_allclose(found.confidence, centroid_confidence(first, second), atol=1e-7)  # float32


@simulated
def test_a_tie_goes_to_the_lower_label():
    from gpuclust.algorithms.kmeans.assign_cuda import assign

    found = assign(np.array([[0.5], [2.0]]), np.array([[0.0], [1.0], [1.0], [0.0]]), np)
    assert found.labels.tolist() == [0, 1]
    assert found.squares.tolist() == [0.25, 1.0]
    assert found.confidence.tolist() == [0.0, 0.0]


@simulated
def test_a_row_on_two_centres_has_no_confidence_and_one_centre_all_of_it():
    from gpuclust.algorithms.kmeans.assign_cuda import assign

    X = np.array([[1.0], [3.0]])
    assert assign(X, np.array([[1.0], [1.0]]), np).confidence.tolist() == [0.0, 0.0]
    assert assign(X, np.array([[1.0]]), np).confidence.tolist() == [1.0, 1.0]


@simulated
@pytest.mark.parametrize(("n", "d", "k"), [(900, 4, 6), (3, 2, 2), (300, 35, 20)])
def test_sums_of_clusters(n, d, k):
    from gpuclust.algorithms.kmeans.assign_cuda import cluster_sums

    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, k, n).astype(np.int32)
    labels[labels == 1] = 0  # an empty cluster
    origin = rng.normal(size=d)
    sums, counts = cluster_sums(X, labels, origin, k, np)
    assert counts.tolist() == np.bincount(labels, minlength=k).tolist()
    expected = [(X[labels == c] - origin).sum(axis=0) for c in range(k)]
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-12 * n)  # the order of n float64 additions
    again = cluster_sums(X, labels, origin, k, np)
    np.testing.assert_array_equal(sums, again[0])
