"""Passes over rows of many features: the same results as scikit-learn's and as the passes for few features."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_samples
from sklearn.mixture import GaussianMixture as Reference

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans import lloyd as lloyd_module
from gpuclust.algorithms.kmeans.fit import lloyd, use_fused
from gpuclust.algorithms.kmeans.product_pass import use_products
from gpuclust.algorithms.mixture import em_cpu
from gpuclust.algorithms.mixture.fit import GaussianMixture, em_backend
from gpuclust.algorithms.mixture.kernels_wide import use_wide
from gpuclust.algorithms.registry import FitInput, fit
from gpuclust.metrics.silhouette.score import silhouette
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


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_a_mixture_finds_what_scikit_learn_finds_from_the_same_start(rows, covariance_type):
    X = rows.astype(np.float64)
    given = {"weights_init": np.full(5, 0.2), "means_init": X[:5], "max_iter": 4, "tol": 0.0}
    precisions = np.ones((5, N_FEATURES)) if covariance_type == "diag" else np.ones(5)
    ours = GaussianMixture(5, covariance_type=covariance_type, precisions_init=precisions, **given).fit(X)
    theirs = Reference(5, covariance_type=covariance_type, precisions_init=precisions, **given)
    with pytest.warns(match="did not converge"):
        theirs.fit(X)
    assert np.array_equal(ours.predict(X), theirs.predict(X))
    assert ours.lower_bounds_[-1] == pytest.approx(theirs.lower_bound_, rel=1e-12)
    np.testing.assert_allclose(ours.means_, theirs.means_, atol=1e-11)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-10)
    assert ours.evaluate(X).bic == pytest.approx(theirs.bic(X), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.campaign)])
@pytest.mark.parametrize("case", ["rows", "columns", "weights", "labels", "scores"])
def test_the_pass_of_many_features_finds_what_that_of_few_finds(rows, dtype, case, monkeypatch):
    X = np.array(rows[:701, :50], dtype=dtype, order="F" if case == "columns" else "C")
    weight = np.random.default_rng(2).random(len(X)) if case == "weights" else None
    parameters = (
        np.array([0.5, 0.2, 0.3]),
        X[:3].astype(np.float64),
        np.random.default_rng(3).uniform(0.5, 1.5, (3, 50)),
    )
    passes = em_backend("cpu")

    def run() -> list[np.ndarray]:
        if case == "scores":
            found = passes.score_pass(X, *parameters, "diag", responsibilities=True)
            return [found.labels, found.confidence, found.log_prob, found.responsibilities, np.array(found.entropy)]
        if case == "labels":
            labels = np.arange(len(X), dtype=np.int32) % 4 - 1
            found = passes.label_pass(X, labels, parameters[1], "diag")
            return [found.counts, found.sums, found.scatter]
        found = passes.em_pass(X, *parameters, "diag", weight)
        return [np.array(found.log_likelihood), found.counts, found.sums, found.scatter]

    wide = run()
    assert use_wide(np.empty((3, 1, 50)))
    monkeypatch.setattr(em_cpu, "use_wide", lambda _: False)
    for found, expected in zip(wide, run(), strict=True):
        np.testing.assert_allclose(
            found, expected, rtol=1e-10 if dtype == "float64" else 2e-4, atol=1e-9 if dtype == "float64" else 2e-3
        )


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.campaign)])
def test_silhouettes_are_those_of_scikit_learn(rows, dtype):
    X = rows[:703].astype(dtype)
    X[5] = X[9]  # equal rows have the distance 0
    labels = np.random.default_rng(4).integers(0, 6, len(X))  # more rows than a block in some clusters, fewer in others
    labels[:400] = 0
    expected = silhouette_samples(X.astype(np.float64), labels)
    few = np.concatenate([labels[:9] * 0 - 1, labels[9:]])  # some noise
    both = silhouette(X, [labels, few], return_samples=True)
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(both[0].samples, expected, atol=tolerance)
    np.testing.assert_allclose(
        both[1].samples, silhouette_samples(X[9:].astype(np.float64), labels[9:]), atol=tolerance
    )
    chosen = np.arange(0, len(X), 7)
    sampled = silhouette(X, [labels], rows=chosen, return_samples=True)[0]
    np.testing.assert_allclose(sampled.samples, expected[chosen], atol=tolerance)
