"""Bayesian mixtures: scikit-learn's as the reference, the number of components that are used, and the whole path."""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import mixture
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpuclust as gc
from gpuclust.algorithms.bayesian import BayesianGmmConfig
from gpuclust.algorithms.bayesian.fit import log_offsets
from gpuclust.errors import FitError
from gpuclust.model.prediction import rule_of
from tests.fitting import fit_one
from tests.journey import Journey, assert_predictions_are_the_labels, journey

KINDS = ("full", "tied", "diag", "spherical")
PRIORS = ("dirichlet_process", "dirichlet_distribution")


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Five groups that overlap at their borders."""
    return make_blobs([200, 160, 120, 90, 60], n_features=3, cluster_std=1.3, random_state=1)


def reference(X: np.ndarray, **settings: Any) -> mixture.BayesianGaussianMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.BayesianGaussianMixture(random_state=0, **settings).fit(X)


@pytest.mark.parametrize(("kind", "prior"), [*product(KINDS, PRIORS[:1]), ("full", PRIORS[1])])
def test_predictions_are_scikit_learns(kind: str, prior: str, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    """With all components, also of rows far from all of them."""
    X, _ = blobs
    model = reference(X, n_components=7, covariance_type=kind, weight_concentration_prior_type=prior, max_iter=30)
    names = ("weights", "means", "covariances", "precisions_cholesky")
    parameters = {name: getattr(model, f"{name}_") for name in names} | {"log_offsets": log_offsets(model)}
    new = np.random.default_rng(0).normal(scale=12, size=(500, 3))
    labels, confidence, _ = rule_of("bayesian_gmm").place(parameters, {"covariance_type": kind})(new)
    np.testing.assert_array_equal(labels, model.predict(new))
    np.testing.assert_allclose(confidence, model.predict_proba(new).max(axis=1), rtol=1e-9)
    soft = rule_of("bayesian_gmm").soft
    assert soft is not None
    np.testing.assert_allclose(soft(parameters, {"covariance_type": kind})(new)[0], model.predict_proba(new), atol=1e-9)


def test_a_fit_is_scikit_learns_without_the_components_that_have_no_rows(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    found = fit_one(X, BayesianGmmConfig(max_components=8))
    model = reference(X, n_components=8, max_iter=500)
    assert adjusted_rand_score(found.labels, model.predict(X)) == 1.0
    assert len(found.parameters["weights"]) == len(np.unique(model.predict(X))) == 5 == len(np.unique(y))
    assert found.parameters["weights"].sum() == pytest.approx(1.0)
    weights = model.weights_
    assert found.metrics["effective_components"] == pytest.approx(np.exp(-(weights * np.log(weights)).sum()))
    assert found.metrics["lower_bound"] == model.lower_bound_
    own = np.linalg.norm(X - found.parameters["means"][found.labels], axis=1)
    np.testing.assert_allclose(found.distance, own, rtol=1e-6)  # float32


def test_a_low_concentration_uses_fewer_components() -> None:
    X = np.random.default_rng(0).uniform(size=(150, 2))
    few, many = (
        fit_one(X, BayesianGmmConfig(max_components=10, weight_concentration_prior=prior, max_iter=30)).metrics
        for prior in (1e-3, 1e3)
    )
    assert few["effective_components"] < 0.8 * many["effective_components"]


def test_what_cannot_be_fitted_is_refused(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(FitError, match=r"mixture of 2 components cannot be fitted: .*degrees_of_freedom_prior"):
        fit_one(blobs[0], BayesianGmmConfig(max_components=2, degrees_of_freedom_prior=1.0))
    found = fit_one(blobs[0], BayesianGmmConfig(max_components=9, max_iter=2))
    assert not found.converged
    assert "raise cluster.max_iter" in found.notes[0]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Journey:
    X, _ = make_blobs([140, 110, 80], n_features=3, centers=[[0, 0, 0], [9, 0, 3], [0, 9, 6]], random_state=0)
    overrides = ("cluster=bayesian_gmm", "cluster.max_components=4,6,8", "report.figures=false")
    return journey(tmp_path_factory.mktemp("bayesian"), store_template, X, *overrides)


def test_a_sweep_finds_the_number_and_has_a_verdict(swept: Journey) -> None:
    verdict = swept.verdict()
    assert verdict["kind"] == "clear"
    assert [job.metrics["n_clusters"] for job in swept.recorder.jobs()] == [3] * 3
    assert any(line.startswith("the Bayesian mixture: 3 clusters at ") for line in verdict["because"]), verdict


def test_exports_predict_and_serve_the_labels(swept: Journey) -> None:
    assert_predictions_are_the_labels(swept)


@parametrize_with_checks([gc.BayesianGaussianMixture(n_components=2, covariance_type="diag")])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():  # of the checks themselves, which fit noise with few iterations
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimator_has_scikit_learns_probabilities(kind: str, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = blobs
    ours = gc.BayesianGaussianMixture(5, covariance_type=kind, random_state=0).fit(X)
    model = reference(X, n_components=5, covariance_type=kind, max_iter=500)
    match = [int(np.abs(model.means_ - mean).sum(axis=1).argmin()) for mean in ours.means_]
    assert sorted(match) == np.unique(model.predict(X)).tolist(), "those that have rows"
    expected = model.predict_proba(X)[:, match]
    np.testing.assert_allclose(ours.predict_proba(X), expected / expected.sum(axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), ours.labels_)
    np.testing.assert_allclose(ours.weights_, model.weights_[match] / model.weights_[match].sum())
    assert (np.diff(np.bincount(ours.labels_)) <= 0).all()


def test_not_converging_is_a_warning(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        gc.BayesianGaussianMixture(6, max_iter=2, tol=0, random_state=0).fit(blobs[0])
