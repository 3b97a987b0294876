"""The search for a mixture's start: better optima than one K-Means, the same for a seed, and an error when none works."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA

from gpuclust.algorithms.mixture.fit import GaussianMixture
from gpuclust.algorithms.mixture.short_em import short_em_init
from gpuclust.errors import FitError
from gpuclust.tracks.catalogue import catalogue


def fitted(X: np.ndarray, k: int, seed: int, kind: str = "full", weight: np.ndarray | None = None) -> GaussianMixture:
    search = short_em_init(kind, 1e-6)
    return GaussianMixture(k, covariance_type=kind, random_state=seed, kmeans=search, max_iter=200).fit(X, weight)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_separated_groups_are_found_from_every_seed(kind: str) -> None:
    X, y = make_blobs(1500, centers=6, n_features=4, cluster_std=0.6, random_state=2)
    for seed in range(3):
        labels = fitted(X, 6, seed, kind).predict(X)
        # One component for each group: as many pairs as groups.
        assert len(np.unique(labels * 10 + y)) == 6


def test_a_seed_gives_one_mixture() -> None:
    X = np.random.default_rng(0).normal(size=(3000, 3))
    np.testing.assert_array_equal(fitted(X, 4, 7).means_, fitted(X, 4, 7).means_)


def test_one_component_needs_no_search() -> None:
    X = np.random.default_rng(0).normal(size=(100, 2))
    np.testing.assert_allclose(fitted(X, 1, 0).means_[0], X.mean(axis=0), atol=1e-12)


def test_weights_draw_the_sample() -> None:
    rng = np.random.default_rng(1)
    X = np.vstack([rng.normal(0, 0.1, (50, 2)), rng.normal(5, 0.1, (50, 2))])
    weight = np.r_[np.full(50, 30.0), np.full(50, 10.0)]
    found = fitted(X, 2, 0, weight=weight)
    np.testing.assert_allclose(sorted(found.weights_), [0.25, 0.75], atol=1e-6)


def test_no_initialisation_works_where_all_rows_are_equal() -> None:
    with pytest.raises(FitError, match=r"lower cluster\.n_clusters"):
        fitted(np.ones((50, 2)), 3, 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_component_that_no_row_likes_best_does_not_end_the_fit(seed: int) -> None:
    """A shared covariance leaves small components without a row of their own; an initialisation from labels had an empty component."""
    columns = ["danceability", "energy", "speechiness", "acousticness", "instrumentalness", "liveness", "valence"]
    frame = catalogue(3000)[columns].to_numpy()
    X = PCA(5, svd_solver="full").fit_transform((frame - frame.min(axis=0)) / np.ptp(frame, axis=0))
    found = fitted(X / X.std(axis=0), 14, seed, "tied")
    assert found.converged_
    assert found.weights_.min() > 0


@pytest.mark.real
def test_the_known_mixture_of_real_tracks_is_reached_or_beaten(real_data) -> None:  # type: ignore[no-untyped-def]
    seven = ["danceability", "energy", "speechiness", "acousticness", "instrumentalness", "liveness", "valence"]
    frame = pd.read_csv(real_data / "tracks_114k.csv").drop_duplicates("track_id")
    raw = frame[seven].to_numpy()
    scaled = (raw - raw.min(axis=0)) / np.ptp(raw, axis=0)
    centred = scaled - scaled.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    X = centred @ axes[:5].T
    X /= X.std(axis=0)
    # scikit-learn 1.9.1, seed 0: 632,741. Of the seeds tried two in three end there or lower; the issue asks it of one.
    best = min(fitted(X, 5, seed).evaluate(X).bic for seed in range(3))
    assert best <= 632_741 * 1.002
