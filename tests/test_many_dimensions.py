"""Passes over rows of many features: the same results as scikit-learn's and as the passes for few features."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans import lloyd as lloyd_module
from gpuclust.algorithms.kmeans.fit import lloyd, use_fused
from gpuclust.algorithms.kmeans.product_pass import use_products
from gpuclust.algorithms.registry import FitInput, fit
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.nearest import nearest_two
from gpuclust.runtime.products import nearest_centers, products_pay

N_ROWS, N_FEATURES, N_CLUSTERS = 1_500, 384, 12


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows around fifteen overlapping centres, float32."""
    random = np.random.default_rng(0)
    centers = 0.3 * random.normal(size=(15, N_FEATURES))
    X = centers[random.integers(0, 15, N_ROWS)] + random.normal(size=(N_ROWS, N_FEATURES))
    return X.astype(np.float32)


def test_kmeans_finds_what_scikit_learn_finds_from_the_same_centres(rows):
    start = rows[:N_CLUSTERS]
    (ours,) = lloyd(rows, [start])
    theirs = KMeans(N_CLUSTERS, init=start, n_init=1).fit(rows)
    assert use_products(N_FEATURES, N_CLUSTERS)
    assert np.array_equal(ours.labels, theirs.labels_)
    assert ours.n_iter == theirs.n_iter_
    assert ours.inertia == pytest.approx(float(theirs.inertia_), rel=1e-5)  # scikit-learn sums in float32


@pytest.mark.parametrize("spherical", [False, True])
def test_passes_by_products_have_the_bits_of_passes_by_tiles(rows, spherical, monkeypatch):
    X = rows / np.linalg.norm(rows, axis=1, keepdims=True) if spherical else rows
    weight = np.random.default_rng(1).random(len(X))
    starts = [X[:N_CLUSTERS], X[100:130], np.repeat(X[:3], 2, axis=0)]  # the last one has ties and empty clusters
    by_products = lloyd(X, starts, sample_weight=weight, spherical=spherical, max_iter=25)
    monkeypatch.setattr(lloyd_module, "use_products", lambda *_: False)
    by_tiles = lloyd(X, starts, sample_weight=weight, spherical=spherical, max_iter=25)
    for found, expected in zip(by_products, by_tiles, strict=True):
        assert np.array_equal(found.labels, expected.labels)
        assert np.array_equal(found.centers, expected.centers)
        assert (found.n_iter, found.inertia) == (expected.n_iter, expected.inertia)


@pytest.mark.parametrize(
    "case", ["plain", "far from the origin", "tiny", "ties", "one centre only", "too large for products"]
)
def test_nearest_centres_have_the_bits_of_distances_in_float64(rows, case):
    X, centers = rows[:700].astype(np.float64), rows[:40].astype(np.float64)
    if case == "far from the origin":
        X, centers = X + 1e4, centers + 1e4
    elif case == "tiny":
        X, centers = X * 1e-30, centers * 1e-30
    elif case == "ties":
        X, centers = np.round(X), np.repeat(np.round(centers[:5]), 8, axis=0)
    elif case == "one centre only":
        centers = np.repeat(centers[:1], 8, axis=0)
    elif case == "too large for products":
        X[3] *= 1e30
        X[-1] = 1e200
    assert products_pay(N_FEATURES, len(centers))
    for found, expected in zip(nearest_centers(X, centers), nearest_two(X, centers), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("n_features", "n_clusters", "fused"),
    [(2, 8, True), (128, 256, True), (384, 100, True), (768, 300, True), (128, 300, False), (768, 301, False)],
)
def test_auto_takes_the_engine_that_was_measured_to_be_faster(n_features, n_clusters, fused):
    assert use_fused(40_000, n_features, n_clusters) == fused


def test_a_job_of_vectors_takes_our_engine(rows):
    data = FitInput(rows, 0, CpuBackend(), ResultCache(0), "rows")
    found = fit(data, [KMeansConfig(n_clusters=N_CLUSTERS, n_init=1)])[0]
    assert found.engine == "fused"
    assert found.metrics["inertia"] == pytest.approx(float((found.distance.astype(np.float64) ** 2).sum()), rel=1e-5)
