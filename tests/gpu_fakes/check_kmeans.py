"""K-Means on the stand-ins: both engines against the CPU's, and the same labels in every run.

Run by `tests.test_gpu_fakes` in a process of its own.
"""

from __future__ import annotations

from typing import Any

import cupy as cp
import numpy as np
import pytest
from cuml.cluster import KMeans as CumlKMeans

from gpuclust.algorithms.kmeans import KMeansConfig, gpu
from gpuclust.algorithms.kmeans.cpu import fit as fit_on_cpu
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.errors import FitError
from tests.gpu_fakes.device import DEVICE, DOWN, UP


def groups(n_rows: int, n_features: int, spread: float = 1.0, dtype: str = "float32") -> np.ndarray:
    rng = np.random.default_rng(n_features)
    return (spread * rng.normal(size=(n_rows, n_features)) + 3 * rng.integers(0, 3, (n_rows, 1))).astype(dtype)


def fitted(X: Any, *configs: KMeansConfig, fit: Any = gpu.fit) -> list[FitResult]:
    return fit(FitInput(cp.asarray(X) if fit is gpu.fit else X, 0, None, None, "X"), configs)  # type: ignore[arg-type, no-any-return]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_the_fused_engine_finds_what_the_cpu_finds(init: str, dtype: str) -> None:
    X = groups(170, 3, dtype=dtype)
    configs = [KMeansConfig(n_clusters=k, n_init=n, init=init, engine="fused") for k, n in ((3, 2), (7, 1))]
    for found, expected in zip(fitted(X, *configs), fitted(X, *configs, fit=fit_on_cpu), strict=True):
        np.testing.assert_array_equal(found.labels, expected.labels)
        # The origin of the coordinates is a mean that is summed in another order.
        np.testing.assert_allclose(found.parameters["centers"], expected.parameters["centers"], rtol=1e-9)
        np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-5)
        assert found.metrics["inertia"] == pytest.approx(expected.metrics["inertia"], rel=1e-9)
        assert (found.metrics["n_iter"], found.converged, found.notes) == (
            expected.metrics["n_iter"],
            expected.converged,
            expected.notes,
        )


@pytest.mark.parametrize("n_clusters", [2, 5])
def test_two_runs_of_cuml_give_the_same_labels(n_clusters: int) -> None:
    X = groups(300, 2, spread=3.0)  # no gaps between clusters
    config = KMeansConfig(n_clusters=n_clusters, n_init=1, tol=1e-2)
    first, second = (fitted(X, config)[0] for _ in range(2))
    assert first.engine == "library"
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.parameters["centers"], second.parameters["centers"])
    # The centres are the means of their rows: nothing is left to move.
    means = [X[first.labels == c].astype(np.float64).mean(axis=0) for c in range(n_clusters)]
    np.testing.assert_allclose(first.parameters["centers"], means, rtol=1e-12)
    assert first.converged


def test_errors_of_the_sums_of_cuml_do_not_change_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors are much larger than cuML's, so that they change rows of a small table."""
    made, numbers, once = gpu._cuml_centers, iter(range(4)), []

    def inexact(rows: Any, config: KMeansConfig, seed: int) -> tuple[cp.ndarray, int]:
        once.append(once[0] if once else made(rows, config, seed))
        centers, n_iter = once[0]
        error = 5e-3 * rows.frame.variance**0.5 * np.random.default_rng(next(numbers)).normal(size=centers.shape)
        return centers + cp.asarray(error), n_iter

    monkeypatch.setattr(gpu, "_cuml_centers", inexact)
    X, config = groups(300, 2, spread=3.0), KMeansConfig(n_clusters=3, n_init=1, tol=1e-2)
    first, *others = (fitted(X, config)[0] for _ in range(4))
    for other in others:
        np.testing.assert_array_equal(first.labels, other.labels)


@pytest.mark.parametrize("engine", ["library", "fused"])
def test_more_than_256_features(engine: str) -> None:
    X = groups(90, 260)
    (found,) = fitted(X, KMeansConfig(n_clusters=3, n_init=1, engine=engine))
    assert np.bincount(found.labels, minlength=3).min() > 0
    means = [X[found.labels == c].astype(np.float64).mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(found.parameters["centers"], means, rtol=1e-9)


def test_a_cluster_that_cuml_leaves_empty_is_given_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CumlKMeans, "empty_cluster", True)
    (found,) = fitted(groups(120, 2), KMeansConfig(n_clusters=3, n_init=1))
    assert np.bincount(found.labels, minlength=3).min() > 0


def test_a_fit_that_stops_at_its_limit_says_so() -> None:
    for engine in ("library", "fused"):
        (found,) = fitted(groups(200, 2, spread=4.0), KMeansConfig(n_clusters=6, n_init=1, max_iter=1, engine=engine))
        assert not found.converged
        assert "raise cluster.max_iter" in found.notes[0]


def test_more_clusters_than_rows_are_refused() -> None:
    with pytest.raises(FitError, match="n_clusters=9 for 8 rows"):
        fitted(groups(8, 2), KMeansConfig(n_clusters=9, engine="fused"))


def test_only_parameters_and_results_are_copied() -> None:
    X = groups(400, 3)
    configs = [KMeansConfig(n_clusters=k, n_init=2, engine="fused") for k in (3, 4)]
    data = FitInput(cp.asarray(X), 0, None, None, "X")  # type: ignore[arg-type]
    with DEVICE.measure() as counts:
        gpu.fit(data, configs)
    results = len(configs) * 3  # labels, confidence, distance
    large = [event for event in counts.of(DOWN) if event.n_bytes >= 4 * len(X)]
    assert len(large) == results, counts.table()
    assert counts.largest(UP) <= 8 * 512  # the numbers of the rows of a sample
