"""Spectral clustering on landmarks: scikit-learn's clusters, the vectors of its eigenproblem, and the way from a sweep to the API."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import KDTree
from sklearn.cluster import SpectralClustering
from sklearn.datasets import make_circles, make_moons
from sklearn.metrics import adjusted_rand_score

import gpuclust as gc
from gpuclust.algorithms.registry import FitInput, FitResult, fit
from gpuclust.algorithms.spectral import SpectralConfig
from gpuclust.algorithms.spectral.fit import described, projection_of
from gpuclust.compose import compose
from gpuclust.errors import ConfigurationError, FitError, ModelError
from gpuclust.model import spectral as rule
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from tests.journey import Journey, assert_predictions_are_the_labels, journey

SHAPES = {
    "moons": make_moons(800, noise=0.06, random_state=0),
    "circles": make_circles(800, noise=0.05, factor=0.4, random_state=0),
}


def data_of(X: np.ndarray, seed: int = 0) -> FitInput:
    return FitInput(X.astype(np.float32), seed, CpuBackend(), ResultCache(), "rows")


@pytest.mark.filterwarnings("ignore:Graph is not fully connected")  # scikit-learn's graph: its parts are the clusters
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_clusters_are_those_of_scikit_learn(shape: str, seed: int) -> None:
    X, y = SHAPES[shape]
    (found,) = fit(data_of(X, seed), [SpectralConfig(n_clusters=2, n_landmarks=150)])
    assert isinstance(found, FitResult)
    reference = SpectralClustering(2, affinity="nearest_neighbors", n_neighbors=10, random_state=seed).fit_predict(X)
    assert adjusted_rand_score(reference, found.labels) > 0.98
    assert adjusted_rand_score(y, found.labels) > 0.98


def test_vectors_are_the_eigenvectors_of_the_normalised_similarity() -> None:
    """By hand: all pairs of rows, S = Z D⁻¹ Zᵀ, whose leading eigenvector is constant."""
    X = SHAPES["moons"][0][:300]
    config = SpectralConfig(n_clusters=3, n_landmarks=60)
    found = described(X, config, 0)
    tree = KDTree(found.points)
    Z = rule.similarities(X, tree, found.n_nearest, found.bandwidth).toarray()
    np.testing.assert_allclose(Z.sum(axis=1), 1.0)
    assert ((Z > 0).sum(axis=1) <= config.n_nearest).all()
    S = Z / Z.sum(axis=0) @ Z.T
    vectors = Z @ projection_of(found, 3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-8)
    values = np.linalg.eigvalsh(S)[::-1]
    np.testing.assert_allclose(S @ vectors, vectors * values[:3], atol=1e-8)
    assert values[0] == pytest.approx(1.0)
    np.testing.assert_allclose(np.abs(vectors[:, 0]), 1 / np.sqrt(len(X)), rtol=1e-6)


def test_all_numbers_of_clusters_share_the_landmarks() -> None:
    data = data_of(SHAPES["moons"][0])
    together = fit(data, [SpectralConfig(n_clusters=k, n_landmarks=100) for k in (2, 3, 4)])
    assert data.cache.n_created["landmarks"] == 1
    (alone,) = fit(data_of(SHAPES["moons"][0]), [SpectralConfig(n_clusters=3, n_landmarks=100)])
    np.testing.assert_array_equal(together[1].labels, alone.labels)  # type: ignore[union-attr]


def test_new_rows_join_the_clusters() -> None:
    X, y = SHAPES["circles"]
    fitted = gc.SpectralClustering(n_clusters=2, n_landmarks=100, random_state=0).fit(X[::2])
    assert adjusted_rand_score(y[1::2], fitted.predict(X[1::2])) > 0.98
    np.testing.assert_array_equal(fitted.predict(X[::2]), fitted.labels_)
    far = fitted.predict(np.array([[1e6, 1e6], [0.0, 0.0]]))
    assert set(far) <= {0, 1}


def test_few_distinct_rows() -> None:
    X = np.repeat(np.eye(4), 25, axis=0)
    (found, refused) = fit(data_of(X), [SpectralConfig(n_clusters=4), SpectralConfig(n_clusters=5)])
    assert isinstance(found, FitResult)
    assert adjusted_rand_score(np.repeat(range(4), 25), found.labels) == 1.0
    assert isinstance(refused, FitError)
    assert str(refused) == "cluster.n_clusters=5 is more than the 4 distinct landmarks; lower it"


def test_more_clusters_than_landmarks_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"cluster.n_clusters=9 is more than cluster.n_landmarks=5; raise"):
        compose(["data=catalogue", "cluster=spectral", "cluster.n_clusters=9", "cluster.n_landmarks=5"])


def test_impossible_models_are_refused() -> None:
    (found,) = fit(data_of(SHAPES["moons"][0]), [SpectralConfig(n_clusters=2, n_landmarks=50)])
    assert isinstance(found, FitResult)
    rule.check(found.parameters, {})
    for change in ({"n_nearest": np.asarray(51)}, {"bandwidth": np.asarray(0.0)}):
        with pytest.raises(ModelError, match="the array parameters/"):
            rule.check({**found.parameters, **change}, {})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Journey:
    options = ("cluster=spectral", "cluster.n_clusters=2,3,4", "cluster.n_landmarks=100", "scale=none", "report=none")
    return journey(tmp_path_factory.mktemp("spectral"), store_template, SHAPES["moons"][0], *options)


def test_a_sweep_has_curves_and_a_verdict(swept: Journey) -> None:
    (sweep,) = swept.recorder.sweeps()
    assert sweep.metrics["k/silhouette"]
    verdict = swept.verdict()
    assert (verdict["kind"], verdict["sizes"]) == ("clear", [2])
    assert any(line.startswith("spectral clustering: silhouette peaks at k=4 ") for line in verdict["because"]), verdict
    assert {job.metrics["n_clusters"] for job in swept.recorder.jobs()} == {2.0, 3.0, 4.0}


def test_every_way_to_predict_gives_the_labels(swept: Journey) -> None:
    assert_predictions_are_the_labels(swept)
