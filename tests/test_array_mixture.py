"""scikit-learn's mixture by its array API, from our own start, against scikit-learn's ordinary path."""

from __future__ import annotations

import os

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from gpuclust.algorithms.mixture import array_api as array_mixture
from gpuclust.algorithms.mixture.array_api import fit_mixture, m_step
from gpuclust.config import GmmConfig
from gpuclust.errors import FitError

TYPES = ("full", "tied", "diag", "spherical")


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 3)) * 4
    return centres[rng.integers(0, 4, 800)] + rng.normal(size=(800, 3)) @ np.diag([1.0, 0.5, 2.0])


def labels_by_kmeans(X):
    return lambda seed: KMeans(4, n_init=1, random_state=seed).fit_predict(X)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_it_follows_scikit_learns_path_from_the_same_labels(X, covariance_type):
    request = GmmConfig(n_clusters=4, covariance_type=covariance_type, tol=1e-6)
    # scikit-learn draws its K-Means from the same generator that it then no longer needs.
    expected = GaussianMixture(4, covariance_type=covariance_type, tol=1e-6, max_iter=200, random_state=3).fit(X)
    found = fit_mixture(X, request, 0, lambda _: _scikit_learns_labels(X, 3), np)
    assert found.converged_
    assert found.n_iter_ == expected.n_iter_
    # The same iterations; only the first precisions are inverted on another way.
    np.testing.assert_allclose(found.lower_bound_, expected.lower_bound_, rtol=1e-12)
    np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-9)
    np.testing.assert_allclose(found.precisions_cholesky_, expected.precisions_cholesky_, rtol=1e-8, atol=1e-12)


def _scikit_learns_labels(X, seed):
    return KMeans(4, n_init=1, random_state=np.random.RandomState(seed)).fit(X).labels_


@pytest.mark.parametrize("init", ["k-means++", "random", "random_from_data"])
def test_other_starts_are_scikit_learns(X, init):
    found = fit_mixture(X, GmmConfig(n_clusters=4, init_params=init), 1, labels_by_kmeans(X), np)
    expected = GaussianMixture(4, init_params=init, max_iter=200, random_state=1).fit(X)
    assert found.n_iter_ == expected.n_iter_
    np.testing.assert_allclose(found.lower_bound_, expected.lower_bound_, rtol=1e-9)  # the same iterations


def test_the_best_of_several_starts_is_kept(X):
    starts = {5: np.arange(800) % 4, 6: labels_by_kmeans(X)(0), 7: np.arange(800) // 200}
    one = GmmConfig(n_clusters=4, max_iter=5, tol=0.0)
    bounds = [fit_mixture(X, one, seed, starts.__getitem__, np).lower_bound_ for seed in starts]
    together = fit_mixture(X, GmmConfig(n_clusters=4, max_iter=5, tol=0.0, n_init=3), 5, starts.__getitem__, np)
    assert together.lower_bound_ == max(bounds) > min(bounds)
    assert not together.converged_


@pytest.mark.parametrize("covariance_type", TYPES)
def test_an_empty_component_starts_as_scikit_learns(X, covariance_type):
    labels = np.arange(800) % 3
    start = m_step(X, labels, GmmConfig(n_clusters=4, covariance_type=covariance_type), np)
    assert np.isfinite(start["precisions_init"]).all()
    assert start["weights_init"].tolist() == pytest.approx([267 / 800, 267 / 800, 266 / 800, 0.0])


def test_a_mixture_that_cannot_be_fitted_says_so_in_a_line(X):
    constant = np.column_stack([X, np.zeros(len(X))])
    with pytest.raises(FitError, match=r"mixture of 4 components cannot be fitted: [^\n]*$"):
        fit_mixture(constant, GmmConfig(n_clusters=4, reg_covar=0.0), 0, labels_by_kmeans(constant), np)


def test_the_environment_is_left_as_it_was(X, monkeypatch):
    monkeypatch.delenv("SCIPY_ARRAY_API", raising=False)
    with array_mixture.array_api():
        assert os.environ["SCIPY_ARRAY_API"] == "1"
    assert "SCIPY_ARRAY_API" not in os.environ
    monkeypatch.setenv("SCIPY_ARRAY_API", "0")
    with array_mixture.array_api():
        pass
    assert os.environ["SCIPY_ARRAY_API"] == "0"
