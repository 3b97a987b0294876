"""Bisecting K-Means: its divisions against scikit-learn's, the stages of one tree, predictions, and the whole path."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import BisectingKMeans, KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpuclust as gc
from gpuclust.algorithms.bisecting import BisectingConfig
from gpuclust.errors import FitError, ModelError
from gpuclust.model import bisecting as model
from tests.fitting import fit_all, fit_one
from tests.journey import Journey, assert_predictions_are_the_labels, journey


@pytest.fixture(scope="module")
def nested() -> np.ndarray:
    """Eight groups: pairs of pairs, so that each division has one optimum."""
    rng = np.random.default_rng(0)
    centers = np.array([[a * 40, b * 16, c * 6] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=float)
    return np.concatenate([center + rng.normal(size=(60 + 7 * i, 3)) for i, center in enumerate(centers)])


@pytest.mark.parametrize("strategy", ["biggest_inertia", "largest_cluster"])
def test_divisions_are_scikit_learns(nested: np.ndarray, strategy: str) -> None:
    for k in (2, 3, 5, 8):
        ours = fit_one(nested, BisectingConfig(n_clusters=k, bisecting_strategy=strategy))
        reference = BisectingKMeans(k, n_init=5, bisecting_strategy=strategy, random_state=0).fit(nested)
        assert adjusted_rand_score(ours.labels, reference.labels_) == 1.0
        assert ours.metrics["inertia"] == pytest.approx(reference.inertia_, rel=1e-9)


def test_the_sizes_of_a_sweep_are_stages_of_one_tree() -> None:
    X = np.random.default_rng(1).normal(size=(900, 4)).astype(np.float32)
    sizes = (7, 2, 12, 4)
    together = fit_all(X, [BisectingConfig(n_clusters=k) for k in sizes])
    for k, found in zip(sizes, together, strict=True):
        alone = fit_one(X, BisectingConfig(n_clusters=k))
        np.testing.assert_array_equal(found.labels, alone.labels)
        assert found.metrics == alone.metrics
        assert len(np.unique(found.labels)) == k
    coarse, fine = together[0].labels, together[2].labels
    assert len({*zip(coarse.tolist(), fine.tolist(), strict=True)}) == 12, (
        "each cluster is inside one of the stage before"
    )


def test_the_inertia_is_near_that_of_k_means() -> None:
    X, _ = make_blobs(1200, n_features=6, centers=12, cluster_std=2.5, random_state=2)
    ours = fit_one(X, BisectingConfig(n_clusters=12)).metrics["inertia"]
    best = KMeans(12, n_init=3, random_state=0).fit(X).inertia_
    reference = BisectingKMeans(12, n_init=3, random_state=0).fit(X).inertia_
    assert best <= ours <= 1.02 * reference  # other starts, other local optima


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_predictions_repeat_the_labels(metric: str) -> None:
    X = np.random.default_rng(3).normal(size=(1000, 5))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    found = fit_one(X, BisectingConfig(n_clusters=9, metric=metric))
    labels, confidence, distance = model.place(found.parameters, {})(X)
    np.testing.assert_array_equal(labels, found.labels)
    np.testing.assert_allclose(confidence, found.confidence, atol=1e-6)  # float32
    np.testing.assert_allclose(distance, found.distance, rtol=1e-6)
    if metric == "cosine":
        np.testing.assert_allclose(np.linalg.norm(found.parameters["centers"], axis=1), 1.0)


def test_what_cannot_be_divided_is_refused() -> None:
    for rows in (np.ones((9, 2)), np.repeat([[0.0, 0.0], [1.0, 1.0]], 5, axis=0)):
        with pytest.raises(FitError, match=r"n_clusters=3 is more than the [12] distinct rows"):
            fit_one(rows, BisectingConfig(n_clusters=3))


def test_a_model_with_impossible_arrays_is_refused(nested: np.ndarray) -> None:
    parameters = dict(fit_one(nested, BisectingConfig(n_clusters=4)).parameters)
    model.check(parameters, {})
    damaged = {"divided": parameters["divided"][::-1] + 1, "node_labels": np.zeros(7, np.int32)}
    for name, value in damaged.items():
        with pytest.raises(ModelError, match=name):
            model.check({**parameters, name: value}, {})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Journey:
    X, _ = make_blobs([140, 110, 80], n_features=3, centers=[[0, 0, 0], [9, 0, 3], [0, 9, 6]], random_state=0)
    overrides = ("cluster=bisecting", "cluster.n_clusters=2,3,4", "report.figures=false")
    return journey(tmp_path_factory.mktemp("bisecting"), store_template, X, *overrides)


def test_a_sweep_has_a_verdict(swept: Journey) -> None:
    assert swept.verdict()["kind"] == "clear"
    assert swept.manifest["algorithm"] == "bisecting"
    assert swept.exported["cluster"].max() == 2


def test_exports_predict_and_serve_the_labels(swept: Journey) -> None:
    assert_predictions_are_the_labels(swept)


@parametrize_with_checks([gc.BisectingKMeans(n_clusters=3)])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():  # of the checks themselves
        warnings.simplefilter("ignore")
        check(estimator)


def test_the_estimator_is_numbered_by_size(nested: np.ndarray) -> None:
    ours = gc.BisectingKMeans(n_clusters=8, random_state=0).fit(nested)
    assert (np.diff(np.bincount(ours.labels_)) <= 0).all()
    np.testing.assert_array_equal(ours.predict(nested), ours.labels_)
    own = ((nested - ours.cluster_centers_[ours.labels_]) ** 2).sum()
    assert ours.inertia_ == pytest.approx(own)
