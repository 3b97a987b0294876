"""The scikit-learn estimators: scikit-learn's own checks, its tools, and its results as the reference."""

from __future__ import annotations

import pickle
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import cluster, mixture
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpuclust as gc
from gpuclust.errors import ConfigurationError

KINDS = ("full", "tied", "diag", "spherical")


def _drawn_by_row(estimator: Any) -> dict[str, str]:
    """The check that weighted and repeated rows give the same fit, where an initialisation draws a number for each row."""
    if isinstance(estimator, gc.GaussianMixture) and estimator.init_params != "kmeans":
        reason = "repeated rows draw other numbers, so EM on 15 rows of noise reaches another local optimum"
        return {"check_sample_weight_equivalence_on_dense_data": reason}
    return {}


@parametrize_with_checks(
    [
        gc.KMeans(),
        gc.KMeans(n_clusters=3, init="random", n_init=100, max_iter=50),
        gc.KMeans(n_clusters=2, n_init=20, tol=0.0, random_state=7),
        *(gc.GaussianMixture(covariance_type=kind) for kind in KINDS),
        *(gc.GaussianMixture(n_components=2, init_params=init, n_init=2)
          for init in ("k-means++", "random", "random_from_data")),
        gc.HDBSCAN(),
        gc.HDBSCAN(cluster_selection_method="leaf", min_samples=3),
        gc.HDBSCAN(min_cluster_size="auto", min_samples=2, allow_single_cluster=True),
        gc.HDBSCAN(min_cluster_size=None, min_samples=4, cluster_selection_epsilon=0.5),
        gc.DBSCAN(),
        gc.DBSCAN(eps="auto", min_samples=3, border=False),
        gc.PLSCAN(),
        gc.SpectralClustering(n_clusters=3, n_landmarks=20, n_init=1),
        *([gc.Leiden()] if find_spec("igraph") else []),
    ],
    expected_failed_checks=_drawn_by_row,
)  # fmt: skip
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():  # of the checks themselves, which fit noise with few iterations
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Four separated clouds of different sizes: X (650, 5) and the cloud of each row."""
    X, y = make_blobs([250, 200, 120, 80], n_features=5, cluster_std=0.6, random_state=3)
    return X, y


BY_NEIGHBOURS = [
    gc.DBSCAN(eps="auto"),
    gc.SpectralClustering(n_clusters=4, n_landmarks=60, random_state=0),
    *([gc.Leiden(resolution=0.1, random_state=0)] if find_spec("igraph") else []),
]
ALL = [
    gc.KMeans(n_clusters=4, random_state=0),
    gc.GaussianMixture(n_components=4, random_state=0),
    gc.HDBSCAN(min_cluster_size=20),
    *BY_NEIGHBOURS,
]


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_separated_clouds_are_found_and_numbered_by_size(estimator: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    fitted = clone(estimator).fit(X)
    found = fitted.labels_ >= 0
    assert found.mean() > 0.95
    assert adjusted_rand_score(y[found], fitted.labels_[found]) == 1.0
    sizes = np.bincount(fitted.labels_[found])
    assert (np.diff(sizes) <= 0).all()
    assert (fitted.predict(X)[found] == fitted.labels_[found]).all()
    assert (clone(estimator).fit_predict(X) == fitted.labels_).all()


@pytest.mark.parametrize("estimator", [*BY_NEIGHBOURS, gc.PLSCAN()], ids=lambda e: type(e).__name__)
def test_the_cosine_metric_is_euclidean_distance_of_unit_rows(estimator: Any) -> None:
    rng = np.random.default_rng(0)
    unit = np.repeat(np.eye(3, 8), (60, 40, 30), axis=0) + rng.normal(scale=0.1, size=(130, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    X = unit * rng.uniform(0.1, 10, size=(130, 1))
    by_cosine, by_distance = clone(estimator).set_params(metric="cosine").fit(X), clone(estimator).fit(unit)
    np.testing.assert_array_equal(by_cosine.labels_, by_distance.labels_)
    np.testing.assert_array_equal(by_cosine.predict(2 * X), by_cosine.labels_)
    assert (clone(estimator).fit(X).labels_ != by_cosine.labels_).any()


def test_kmeans_reaches_scikit_learns_inertia(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = blobs
    ours = gc.KMeans(n_clusters=6, random_state=0).fit(X)
    reference = cluster.KMeans(6, n_init=10, random_state=0).fit(X)
    # The best of ten restarts may be another local optimum; ours is never the worse one by a thousandth.
    assert ours.inertia_ <= reference.inertia_ * 1.001
    distances = ours.transform(X)
    np.testing.assert_allclose(distances.min(axis=1) @ distances.min(axis=1), ours.inertia_, rtol=1e-9)
    assert ours.score(X) == pytest.approx(-ours.inertia_, rel=1e-9)


def test_kmeans_takes_given_centres_as_scikit_learn_does(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = blobs
    start = X[[0, 10, 20, 30, 40]]
    reference = cluster.KMeans(5, init=start, n_init=1, tol=0).fit(X)
    for init in (start, start.tolist(), lambda X, n_clusters, random_state: start):
        ours = gc.KMeans(5, init=init, tol=0).fit(X)
        assert ours.inertia_ == pytest.approx(reference.inertia_, rel=1e-9)
        assert adjusted_rand_score(ours.labels_, reference.labels_) == 1.0
    with pytest.raises(ValueError, match="shape of the initial centers"):
        gc.KMeans(4, init=start).fit(X)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_continued_from_scikit_learns_start_has_its_likelihood(
    kind: str, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    X, _ = blobs
    start = {"means_init": X[[0, 10, 20, 30]], "weights_init": np.full(4, 0.25)}
    start["precisions_init"] = {"full": np.stack([np.eye(5)] * 4), "tied": np.eye(5), "diag": np.ones((4, 5)),
                                "spherical": np.ones(4)}[kind]  # fmt: skip
    settings: dict[str, Any] = {"covariance_type": kind, "tol": 1e-8, "max_iter": 500, **start}
    ours = gc.GaussianMixture(4, **settings).fit(X)
    reference = mixture.GaussianMixture(4, **settings).fit(X)
    assert ours.score(X) == pytest.approx(reference.score(X), abs=1e-6)
    assert ours.bic(X) == pytest.approx(reference.bic(X), rel=1e-6)
    assert ours.aic(X) == pytest.approx(reference.aic(X), rel=1e-6)
    match = [int(np.abs(reference.means_ - mean).sum(axis=1).argmin()) for mean in ours.means_]
    np.testing.assert_allclose(ours.weights_, reference.weights_[match], atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X)[:, match], atol=1e-5)
    np.testing.assert_allclose(ours.score_samples(X), reference.score_samples(X), atol=1e-4)
    for name in ("covariances_", "precisions_", "precisions_cholesky_"):
        mine, theirs = getattr(ours, name), getattr(reference, name)
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs if kind == "tied" else theirs[match], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_mixture_have_its_moments(kind: str, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    fitted = gc.GaussianMixture(4, covariance_type=kind, random_state=0).fit(blobs[0])
    X, y = fitted.sample(40_000)
    assert X.shape == (40_000, 5)
    np.testing.assert_allclose(np.bincount(y) / len(y), fitted.weights_, atol=0.01)  # four standard errors of a share
    for label in range(4):
        # The standard error of a mean of 5,000 values with a variance below 1 is at most 0.014.
        np.testing.assert_allclose(X[y == label].mean(axis=0), fitted.means_[label], atol=0.06)
    assert adjusted_rand_score(y, fitted.predict(X)) > 0.99
    with pytest.raises(ValueError, match="n_samples"):
        fitted.sample(0)


@pytest.mark.parametrize("method", ["eom", "leaf"])
def test_hdbscan_has_scikit_learns_labels(method: str, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = blobs
    X = X.astype(np.float32)
    settings: dict[str, Any] = {"min_cluster_size": 15, "min_samples": 8, "cluster_selection_method": method}
    ours = gc.HDBSCAN(**settings).fit(X)
    reference = cluster.HDBSCAN(**settings, copy=True).fit(X.astype(np.float64))
    assert adjusted_rand_score(ours.labels_, reference.labels_) > 0.99  # float32 distances settle ties otherwise
    assert len(ours.cluster_persistence_) == ours.labels_.max() + 1
    same = ours.labels_ == ours.predict(X)
    assert same[ours.labels_ >= 0].all()
    assert ((ours.probabilities_ == 0) == (ours.labels_ == -1)).all()


def test_a_cut_at_one_distance_is_scikit_learns(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X = blobs[0].astype(np.float32)
    ours = gc.HDBSCAN(min_cluster_size=15, min_samples=8).fit(X)
    reference = cluster.HDBSCAN(min_cluster_size=15, min_samples=8, copy=True).fit(X.astype(np.float64))
    for distance in (0.9, 1.2, 5.0):
        labels, others = (e.dbscan_clustering(distance, min_cluster_size=10) for e in (ours, reference))
        assert adjusted_rand_score(labels, others) == 1.0
        assert ((labels == -1) == (others == -1)).all()
        assert (np.diff(np.bincount(labels[labels >= 0])) <= 0).all()
    assert (ours.dbscan_clustering(0.0) == -1).all()


@pytest.mark.parametrize("estimator", ALL[:2], ids=lambda e: type(e).__name__)
def test_a_weight_counts_as_equal_rows(estimator: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = blobs
    weight = np.random.default_rng(0).integers(1, 4, len(X))
    weighted = clone(estimator).fit(X, sample_weight=weight)
    repeated = clone(estimator).fit(np.repeat(X, weight, axis=0))
    assert adjusted_rand_score(np.repeat(weighted.labels_, weight), repeated.labels_) == 1.0
    centers = "cluster_centers_" if isinstance(estimator, gc.KMeans) else "means_"
    np.testing.assert_allclose(getattr(weighted, centers), getattr(repeated, centers), atol=1e-3)  # EM stops by tol


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_names_of_features_pipelines_and_pickles(estimator: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    frame = pd.DataFrame(blobs[0], columns=list("abcde"))
    fitted = clone(estimator).fit(frame)
    assert list(fitted.feature_names_in_) == list("abcde")
    assert fitted.n_features_in_ == 5
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict(frame) == fitted.predict(frame)).all()
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[list("edcba")])
    pipeline = make_pipeline(StandardScaler(), clone(estimator)).fit(frame)
    assert (pipeline.predict(frame)[pipeline[-1].labels_ >= 0] == pipeline[-1].labels_[pipeline[-1].labels_ >= 0]).all()


def test_kmeans_gives_pandas_output(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    frame = pd.DataFrame(blobs[0], columns=list("abcde"), index=[f"r{i}" for i in range(len(blobs[0]))])
    found = gc.KMeans(n_clusters=3, random_state=0).set_output(transform="pandas").fit_transform(frame)
    assert list(found.columns) == ["kmeans0", "kmeans1", "kmeans2"]
    assert (found.index == frame.index).all()


def test_a_grid_search_chooses_the_mixture(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    grid = {"gaussianmixture__n_components": [1, 4], "gaussianmixture__covariance_type": ["diag", "spherical"]}
    pipeline = make_pipeline(StandardScaler(), gc.GaussianMixture(random_state=0))
    search = GridSearchCV(pipeline, grid, cv=3).fit(blobs[0])
    assert search.best_params_["gaussianmixture__n_components"] == 4
    by_inertia = GridSearchCV(gc.KMeans(random_state=0), {"n_clusters": [2, 4]}, cv=3).fit(blobs[0])
    assert by_inertia.best_params_ == {"n_clusters": 4}


def test_a_seed_is_an_int_a_generator_or_none() -> None:
    X = np.random.default_rng(0).normal(size=(400, 3))
    for kind in (gc.KMeans, gc.GaussianMixture):
        first = kind(5, n_init=1, random_state=11).fit(X).labels_
        assert (first == kind(5, n_init=1, random_state=11).fit(X).labels_).all()
        drawn = [kind(5, n_init=1, random_state=np.random.RandomState(2)).fit(X).labels_ for _ in range(2)]
        assert (drawn[0] == drawn[1]).all()
        assert kind(5, random_state=None).fit(X).labels_.shape == (400,)


def test_float32_and_integer_rows() -> None:
    X = np.random.default_rng(0).integers(0, 3, size=(60, 2)) * 10
    for dtype in (np.int64, np.float32, np.float64):
        assert gc.KMeans(9, random_state=0).fit(X.astype(dtype)).inertia_ == pytest.approx(0.0, abs=1e-9)


def test_warnings_of_convergence() -> None:
    X = np.random.default_rng(0).normal(size=(300, 4))
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        gc.GaussianMixture(6, max_iter=2, tol=0, random_state=0).fit(X)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(2\)"):
        gc.KMeans(3, random_state=0).fit(np.array([[0.0], [0.0], [1.0], [1.0]]))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (gc.KMeans(n_clusters=0), r"The 'n_clusters' parameter of KMeans must be an int in the range \[1, inf\)"),
        (gc.KMeans(n_clusters="a"), "The 'n_clusters' parameter of KMeans must be an int"),
        (gc.KMeans(n_clusters=range(2, 4)), "The 'n_clusters' parameter of KMeans must be an int"),
        (gc.KMeans(init="forgy"), "The 'init' parameter of KMeans must be a str among"),
        (gc.KMeans(n_clusters=9), r"n_samples=6 should be >= n_clusters=9"),
        (gc.GaussianMixture(covariance_type="round"), "The 'covariance_type' parameter of GaussianMixture"),
        (gc.GaussianMixture(n_components=7), r"n_samples >= n_components but got n_components=7, n_samples=6"),
        (gc.GaussianMixture(n_components=2, weights_init=[1.0, 1.0]), "weights_init must be shares that sum to 1"),
        (gc.GaussianMixture(n_components=2, means_init=[[1.0]]), "means_init"),
        (gc.HDBSCAN(min_cluster_size=1), "The 'min_cluster_size' parameter of HDBSCAN"),
        (gc.HDBSCAN(min_samples=7), r"min_samples \(7\) must be at most the number of samples in X \(6\)"),
        (gc.DBSCAN(eps=0), "The 'eps' parameter of DBSCAN"),
        (gc.PLSCAN(min_samples=3, layer=9), r"layer=9 is above the number of layers of the tree, \d+; lower it"),
        (gc.DBSCAN(min_samples=7), r"min_samples \(7\) must be at most the number of samples in X \(6\)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors_are_scikit_learns(estimator: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.fit(np.arange(12.0).reshape(6, 2))


def test_an_error_of_a_kernel_names_the_parameters_of_the_estimator() -> None:
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 20, axis=0)
    with pytest.raises(ValueError, match="component") as raised:
        gc.GaussianMixture(n_components=5, reg_covar=0.0, random_state=0).fit(X)
    assert "cluster." not in str(raised.value)


def test_an_initialisation_of_arrays_is_for_the_estimator_alone() -> None:
    with pytest.raises(ConfigurationError, match="init as an array"):
        gc.KMeans(init=np.zeros((8, 2)))._settings()
    with pytest.raises(ConfigurationError, match=r"gpuclust\.fit has no means_init"):
        gc.GaussianMixture(means_init=np.zeros((1, 2)))._settings()
