"""Stability against brute force, and what it says of stable and of made-up clusters."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.config import ClusterConfig
from gpuclust.metrics import stability as stability_module
from gpuclust.metrics.stability import (
    SEEDS,
    SPLITS,
    SUBSET,
    matched_jaccard,
    refits,
    scaled,
    stability,
    strength,
)
from gpuclust.model.prediction import assign
from gpuclust.runtime.blocks import MemoryBlocks
from gpuclust.runtime.cpu import CpuBackend
from tests.fitting import fit_one
from tests.known_answers import groups, standardised

BACKEND = CpuBackend()


def fitted(X: np.ndarray, request: ClusterConfig) -> np.ndarray:
    return fit_one(X, request).labels


REQUESTS = [KMeansConfig(n_clusters=3), GmmConfig(n_clusters=3), HdbscanConfig(min_cluster_size=40)]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.name)
def test_separated_groups_are_stable_for_every_algorithm(request_: ClusterConfig) -> None:
    X = groups(3, n_columns=2, n_rows=400, seed=0, apart=12.0)
    labels = fitted(X, request_)
    assert labels.max() == 2
    found = stability(X, labels, request_, n_resamples=5, seed=0, backend=BACKEND)
    assert min(found.jaccard) > 0.95
    assert found.prediction_strength > 0.9
    assert all(found.word(c) == "stable" for c in range(3))
    assert all(a > 0.99 for a in found.ari_seeds)
    assert len(found.ari_seeds) == (0 if isinstance(request_, HdbscanConfig) else SEEDS)
    assert found.dissolved == (0.0, 0.0, 0.0)
    assert found.recovered == (1.0, 1.0, 1.0)
    assert found.metrics()["stability_jaccard_min"] == min(found.jaccard)


def test_clusters_of_a_single_cloud_are_not() -> None:
    X = standardised(np.random.default_rng(0).normal(size=(400, 5)))
    request = KMeansConfig(n_clusters=7, n_init=1)
    found = stability(X, fitted(X, request), request, n_resamples=5, seed=0, backend=BACKEND)
    assert min(found.jaccard) < 0.75
    assert found.prediction_strength < 0.5
    assert found.metrics()["stability_ari_mean"] < 0.8


def test_the_bootstrap_is_what_scikit_learn_would_do_with_the_same_rows() -> None:
    """The resamples drawn again, refitted with scikit-learn and matched by trying every permutation."""
    from itertools import permutations

    from sklearn.cluster import KMeans

    X = groups(3, n_columns=2, n_rows=300, seed=2)
    request = KMeansConfig(n_clusters=3)
    labels = fitted(X, request)
    found = stability(X, labels, request, n_resamples=4, seed=5, backend=BACKEND)
    rng = np.random.default_rng(5)
    expected = []
    for _ in range(4):
        rows = np.sort(rng.integers(0, 300, 300))
        other = KMeans(3, n_init=10, random_state=0).fit(X[rows]).labels_
        distinct, first = np.unique(rows, return_index=True)
        mine = [set(distinct[labels[distinct] == c]) for c in range(3)]
        theirs = [set(distinct[other[first] == c]) for c in range(3)]
        pairs = [[len(a & b) / len(a | b) for b in theirs] for a in mine]
        best = max(permutations(range(3)), key=lambda p: sum(pairs[i][p[i]] for i in range(3)))
        expected.append([pairs[i][best[i]] for i in range(3)])
    # Both fits find the one optimum of three far groups, so the sets are the same.
    np.testing.assert_allclose(found.jaccard, np.mean(expected, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.jaccard_std, np.std(expected, axis=0), atol=1e-12)


def test_matching_with_noise_and_missing_clusters() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, -1])
    other = np.array([2, 2, 2, -1, -1, -1, 0, 0])
    found = matched_jaccard(labels, other, 3)
    # Cluster 0 shares three of four rows; 1 shares one row of {4, 5, 6} and {6, 7}; 2 has no row here.
    np.testing.assert_allclose(found[:2], [3 / 4, 1 / 4])
    assert np.isnan(found[2])
    assert matched_jaccard(labels, np.full(8, -1), 2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_prediction_strength_by_counting_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(-1, 3, 60), rng.integers(-1, 3, 60)
    shares = []
    for c in range(3):
        rows = np.flatnonzero(labels == c)
        pairs = [(i, j) for i in rows for j in rows if i != j]
        shares.append(np.mean([predicted[i] == predicted[j] != -1 for i, j in pairs]))
    assert strength(labels, predicted) == pytest.approx(min(shares), rel=1e-12)


def test_a_cluster_of_one_row_has_no_pairs() -> None:
    assert strength(np.array([0, 0, 1]), np.array([0, 0, 1])) == 1.0
    assert strength(np.array([0]), np.array([0])) == 0.0


def test_seeds_are_compared_by_the_adjusted_rand_index() -> None:
    X = standardised(np.random.default_rng(1).normal(size=(300, 4)))
    request = KMeansConfig(n_clusters=5, n_init=1)
    labels = fitted(X, request)
    found = stability(X, labels, request, n_resamples=1, seed=0, backend=BACKEND)
    expected = [adjusted_rand_score(labels, fit_one(X, request, seed=s).labels) for s in range(1, SEEDS + 1)]
    np.testing.assert_allclose(found.ari_seeds, expected, atol=1e-12)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.name)
def test_it_costs_what_it_says(request_: ClusterConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[float] = []

    fit = stability_module.fit

    def counted(data: Any, configs: Any) -> Any:
        fits.append(len(data.X))
        return fit(data, configs)

    monkeypatch.setattr(stability_module, "fit", counted)
    X = groups(3, n_columns=2, n_rows=200, seed=0)
    labels = fitted(X, request_)
    fits.clear()
    told: list[float] = []
    stability(X, labels, request_, n_resamples=3, seed=0, backend=BACKEND, progress=told.append)
    share = SUBSET if isinstance(request_, HdbscanConfig) else 1.0
    rest = SPLITS + (0 if isinstance(request_, HdbscanConfig) else SEEDS)
    assert refits(request_, 3) == 3 + rest
    assert sum(fits) == pytest.approx(200 * (3 * share + rest))
    assert len(told) == refits(request_, 3)
    assert told[-1] == 1.0


def test_hdbscan_gets_each_row_once_and_a_scaled_size() -> None:
    assert scaled(HdbscanConfig(min_cluster_size=50), 0.8) == HdbscanConfig(min_cluster_size=40)
    assert scaled(HdbscanConfig(min_cluster_size="auto"), 0.8) == HdbscanConfig(min_cluster_size="auto")
    assert scaled(KMeansConfig(), 0.5) == KMeansConfig()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.name)
def test_fitted_rows_are_placed_where_they_were(request_: ClusterConfig) -> None:
    X = groups(3, n_columns=2, n_rows=300, seed=0)
    found = fit_one(X, request_)
    np.testing.assert_array_equal(assign(request_.name, found.parameters, found.options, X), found.labels)


def test_a_refit_that_fails_counts_as_dissolved() -> None:
    X = groups(2, n_columns=2, n_rows=60, seed=0)
    request = HdbscanConfig(min_cluster_size=20, min_samples=55)  # 80 % of 60 rows are too few neighbours
    labels = np.repeat([0, 1], 30).astype(np.int32)
    found = stability(X, labels, request, n_resamples=2, seed=0, backend=BACKEND)
    assert found.jaccard == (0.0, 0.0)
    assert found.dissolved == (1.0, 1.0)
    assert found.prediction_strength == 0.0


def test_a_large_table_is_sampled_and_the_same_from_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability_module, "MAX_ROWS", 300)
    X = groups(3, n_columns=2, n_rows=600, seed=0, apart=12.0)
    for request in (KMeansConfig(n_clusters=3), HdbscanConfig(min_cluster_size=40)):
        labels = fitted(X, request)
        found = stability(X, labels, request, n_resamples=3, seed=0, backend=BACKEND)
        in_blocks = stability(MemoryBlocks(X), labels, request, n_resamples=3, seed=0, backend=BACKEND)
        assert found.n_rows == in_blocks.n_rows == 300
        assert min(found.jaccard) > 0.95, "sizes are scaled to the sample"
        assert replace(found, seconds=0.0) == replace(in_blocks, seconds=0.0)
