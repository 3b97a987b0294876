"""GaussianMixture against scikit-learn's: fits, criteria, errors, memory."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from gpuclust.algorithms.mixture.em import COVARIANCE_TYPES
from gpuclust.algorithms.mixture.fit import GaussianMixture, em_backend
from gpuclust.algorithms.mixture.m_step import cholesky_of_precisions, precisions
from gpuclust.errors import ConfigurationError, FitError, ModelError
from tests.test_em import blobs, parameters

# After some iterations from the same start the differences of one pass have grown with the convergence's own slowness.
FITTED = 1e-6
INITS = ("kmeans", "k-means++", "random", "random_from_data")

types = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


@types
@pytest.mark.parametrize("init_params", INITS)
@pytest.mark.parametrize("random_state", [0, 1, 7])
def test_fit_equals_scikit_learn(covariance_type: str, init_params: str, random_state: int) -> None:
    X = blobs(1500, 4, 3, seed=random_state)
    settings_: dict[str, Any] = {
        "covariance_type": covariance_type,
        "init_params": init_params,
        "random_state": random_state,
        "max_iter": 500,
        "tol": 1e-4,
    }
    reference = Reference(3, **settings_).fit(X)
    model = GaussianMixture(3, **settings_).fit(X)
    assert model.n_iter_ == reference.n_iter_
    assert model.converged_ is True
    # Where a component starts as one row, scikit-learn's diag and spherical variance is reg_covar + x^2 - x^2: 1e-15 / 1e-6.
    np.testing.assert_allclose(model.lower_bounds_[0], reference.lower_bounds_[0], rtol=1e-6)
    np.testing.assert_allclose(model.lower_bounds_[1:], reference.lower_bounds_[1:], rtol=1e-9)
    assert model.lower_bound_ == model.lower_bounds_[-1]
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(model, name), getattr(reference, name), rtol=FITTED, atol=FITTED)
    seen = model.evaluate(X, responsibilities=True)
    np.testing.assert_array_equal(seen.labels, reference.predict(X))
    np.testing.assert_allclose(seen.responsibilities, reference.predict_proba(X), rtol=0, atol=FITTED)
    np.testing.assert_allclose(seen.log_prob, reference.score_samples(X), rtol=FITTED)
    assert seen.log_likelihood / len(X) == pytest.approx(reference.score(X), rel=1e-9)
    for criterion in ("bic", "aic"):
        assert getattr(seen, criterion) == pytest.approx(getattr(reference, criterion)(X), rel=1e-9)


@types
@pytest.mark.parametrize("shape", ["one feature", "one row each", "40 features", "k near n", "duplicates", "constant"])
def test_fit_equals_scikit_learn_at_the_edges(covariance_type: str, shape: str) -> None:
    n, d, k = {
        "one feature": (400, 1, 3),
        "one row each": (5, 2, 5),
        "40 features": (800, 40, 2),
        "k near n": (12, 2, 10),
        "duplicates": (600, 3, 2),
        "constant": (300, 4, 2),
    }[shape]
    X = blobs(n, d, k, seed=3)
    if shape == "duplicates":
        X = np.repeat(X[:60], 10, axis=0)
    if shape == "constant":
        X[:, 1] = 7.25
    settings_: dict[str, Any] = {"covariance_type": covariance_type, "random_state": 0, "max_iter": 3, "tol": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reference = Reference(k, **settings_).fit(X)
    model = GaussianMixture(k, **settings_).fit(X)
    # Variances near reg_covar = 1e-6 are what is left of 1 - 1 in scikit-learn's diag, spherical and tied: 1e-14 / 1e-6.
    np.testing.assert_allclose(model.lower_bounds_, reference.lower_bounds_, rtol=1e-6)
    np.testing.assert_allclose(model.means_, reference.means_, rtol=FITTED, atol=FITTED)
    np.testing.assert_allclose(model.covariances_, reference.covariances_, rtol=FITTED, atol=FITTED)


@types
def test_far_data_fits_as_near_data(covariance_type: str) -> None:
    """Moving every row by 1e6 moves the means alone; scikit-learn's own formulas lose 4 to 8 digits there."""
    X = np.round(blobs(2000, 3, 2, seed=5) * 1024) / 1024  # so that adding 2^20 is exact
    near = GaussianMixture(2, covariance_type=covariance_type, random_state=0, tol=1e-6, max_iter=300)
    labels = Reference(2, random_state=0).fit_predict(X)
    near.kmeans = lambda *_: labels
    near.fit(X)
    far = GaussianMixture(2, covariance_type=covariance_type, tol=1e-6, max_iter=300, kmeans=lambda *_: labels)
    far.fit(X + 2**20)
    assert far.n_iter_ == near.n_iter_
    np.testing.assert_allclose(far.means_ - 2**20, near.means_, rtol=0, atol=1e-8)  # a mean of 1e6 has steps of 1e-10
    np.testing.assert_allclose(far.covariances_, near.covariances_, rtol=1e-7)
    assert far.lower_bound_ == pytest.approx(near.lower_bound_, rel=1e-9)


@types
def test_float32_finds_the_same_mixture(covariance_type: str) -> None:
    X = blobs(5000, 4, 3, seed=2)
    exact = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X)
    single = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X.astype(np.float32))
    # Rows are rounded by 6e-8 of their size, 1e-6 of a deviation.
    np.testing.assert_allclose(single.means_, exact.means_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(single.covariances_, exact.covariances_, rtol=1e-3, atol=1e-3)
    assert single.lower_bound_ == pytest.approx(exact.lower_bound_, rel=1e-5)
    assert single.means_.dtype == np.float64
    seen = single.evaluate(X.astype(np.float32), responsibilities=True)
    assert seen.responsibilities is not None
    assert seen.responsibilities.dtype == np.float32


@types
@pytest.mark.parametrize("init_params", ["kmeans", "random"])
def test_weights_count_as_repeated_rows(covariance_type: str, init_params: str, seed: int) -> None:
    X = blobs(400, 3, 2, seed)
    times = np.random.default_rng(seed).integers(0, 4, len(X))
    repeated = np.repeat(X, times, axis=0)
    options: dict[str, Any] = {"covariance_type": covariance_type, "init_params": init_params, "tol": 1e-5}
    start = GaussianMixture(2, random_state=0, max_iter=2, **options).fit(repeated)
    options |= {"weights_init": start.weights_, "means_init": start.means_, "precisions_init": start.precisions_}
    weighted = GaussianMixture(2, **options).fit(X, sample_weight=times)
    plain = GaussianMixture(2, **options).fit(repeated)
    assert weighted.n_iter_ == plain.n_iter_
    np.testing.assert_allclose(weighted.lower_bounds_, plain.lower_bounds_, rtol=1e-11)
    np.testing.assert_allclose(weighted.covariances_, plain.covariances_, rtol=1e-9, atol=1e-9)
    seen, expected = weighted.evaluate(X, sample_weight=times), plain.evaluate(repeated)
    assert (seen.bic, seen.icl) == pytest.approx((expected.bic, expected.icl), rel=1e-11)


def test_weighted_start_counts_as_repeated_rows(seed: int) -> None:
    X = blobs(300, 3, 2, seed)
    times = np.random.default_rng(seed).integers(1, 4, len(X))
    labels = np.random.default_rng(seed).integers(0, 2, len(X))
    weighted = GaussianMixture(2, max_iter=0, kmeans=lambda *_: labels).fit(X, sample_weight=times)
    repeated = GaussianMixture(2, max_iter=0, kmeans=lambda *_: np.repeat(labels, times))
    repeated.fit(np.repeat(X, times, axis=0))
    np.testing.assert_allclose(weighted.weights_, repeated.weights_, rtol=1e-12)
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-10, atol=1e-12)


@types
def test_given_parameters_start_as_in_scikit_learn(covariance_type: str) -> None:
    X = blobs(900, 3, 3, seed=4)
    weights, means, cholesky = parameters(X, 3, covariance_type, seed=9)
    options: dict[str, Any] = {
        "covariance_type": covariance_type,
        "weights_init": weights,
        "means_init": means,
        "precisions_init": precisions(cholesky, covariance_type),
        "max_iter": 400,
    }
    reference = Reference(3, **options).fit(X)
    model = GaussianMixture(3, **options).fit(X)
    np.testing.assert_allclose(model.lower_bounds_, reference.lower_bounds_, rtol=1e-9)
    np.testing.assert_allclose(
        cholesky_of_precisions(options["precisions_init"], covariance_type), cholesky, atol=1e-12
    )


def test_integers_are_taken_as_float64() -> None:
    X = np.round(10 * blobs(500, 2, 2, seed=0)).astype(np.int32)
    whole = GaussianMixture(2, random_state=0).fit(X)
    assert whole.lower_bound_ == GaussianMixture(2, random_state=0).fit(X.astype(np.float64)).lower_bound_


def test_icl_is_bic_plus_twice_the_entropy() -> None:
    X = blobs(2000, 3, 3, seed=1, spread=1.0)
    model = GaussianMixture(3, random_state=0).fit(X)
    seen = model.evaluate(X, responsibilities=True)
    shares = seen.responsibilities
    assert shares is not None
    entropy = -np.sum(shares * np.log(np.maximum(shares, 1e-300)))
    assert entropy > 1
    assert seen.icl == pytest.approx(seen.bic + 2 * entropy, rel=1e-10)
    np.testing.assert_array_equal(seen.labels, model.predict(X))
    np.testing.assert_allclose(seen.confidence, shares.max(axis=1), atol=1e-7)


def test_best_of_several_starts_is_kept() -> None:
    X = blobs(800, 2, 6, seed=8)
    one = GaussianMixture(6, random_state=0, init_params="random_from_data", max_iter=300)
    many = GaussianMixture(6, random_state=0, init_params="random_from_data", max_iter=300, n_init=5)
    reference = Reference(6, random_state=0, init_params="random_from_data", max_iter=300, n_init=5).fit(X)
    shares: list[float] = []
    assert many.fit(X, progress=shares.append).lower_bound_ >= one.fit(X).lower_bound_
    assert many.lower_bound_ == pytest.approx(reference.lower_bound_, rel=1e-9)
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1


def test_a_dying_component_is_reported() -> None:
    X = blobs(500, 2, 1, seed=0)
    model = GaussianMixture(
        2,
        weights_init=[0.5, 0.5],
        means_init=[[0.0, 0.0], [1e5, 1e5]],
        precisions_init=np.stack([np.eye(2)] * 2),
    )
    with pytest.raises(FitError, match=r"component 1 of 2 became empty.*cluster\.n_clusters.*reg_covar"):
        model.fit(X)


def test_more_components_than_distinct_rows_is_reported() -> None:
    X = np.repeat(blobs(2, 2, 1, seed=0), 50, axis=0)
    with pytest.raises(FitError, match=r"component \d of 3 became empty"):
        GaussianMixture(3, random_state=0).fit(X)


def test_a_collapsed_covariance_is_reported() -> None:
    X = np.column_stack([blobs(50, 1, 1, seed=0), np.ones(50)])
    for covariance_type in ("full", "diag"):
        with pytest.raises(FitError, match=r"covariance of component 0.*reg_covar"):
            GaussianMixture(1, covariance_type=covariance_type, reg_covar=0.0).fit(X)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_reported(bad: float) -> None:
    X = blobs(50, 2, 1, seed=0)
    X[17, 1] = bad
    with pytest.raises(FitError, match="missing or infinite"):
        GaussianMixture(2).fit(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"covariance_type": "round"}, "covariance_type='round' is unknown; choose one of full"),
        ({"init_params": "zeros"}, "init_params='zeros' is unknown"),
        ({"n_components": 0}, "n_components=0 is too low"),
        ({"tol": -1.0}, "tol=-1.0 is too low"),
        ({"device": "abacus"}, "device='abacus' has no EM pass"),
        ({"means_init": np.zeros((2, 5))}, r"means_init has shape \(2, 5\); give \(2, 3\)"),
        ({"weights_init": [0.5, 0.6]}, "sum to 1, not to 1.1"),
        (
            {"weights_init": [0.5, 0.5], "means_init": np.zeros((2, 3)), "precisions_init": -np.ones((2, 3, 3))},
            "precisions_init is not positive definite",
        ),
    ],
)
def test_wrong_parameters_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        GaussianMixture(**({"n_components": 2} | options)).fit(blobs(30, 3, 2, seed=0))


def test_wrong_rows_are_named() -> None:
    X = blobs(30, 3, 2, seed=0)
    with pytest.raises(FitError, match="n_components=31 is more than the 30 rows"):
        GaussianMixture(31).fit(X)
    with pytest.raises(FitError, match="call fit first"):
        GaussianMixture(2).predict(X)
    with pytest.raises(ModelError, match="mixture of 3 features"):
        GaussianMixture(2, random_state=0).fit(X).predict(X[:, :2])


def test_cpu_is_a_device_by_name_or_by_itself() -> None:
    X = blobs(100, 2, 2, seed=0)
    named = GaussianMixture(2, random_state=0, device="cpu").fit(X)
    assert named.lower_bound_ == GaussianMixture(2, random_state=0, device=em_backend("cpu")).fit(X).lower_bound_


MEMORY = """
import sys
import numpy as np
from gpuclust.algorithms.mixture.fit import GaussianMixture

def memory(of):  # of this process alone: ru_maxrss starts at the peak of the process that started it
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(of))

dtype = np.dtype(sys.argv[1])
random = np.random.default_rng(0)
small = random.normal(size=(2000, 5)).astype(dtype)
GaussianMixture(5, random_state=0, max_iter=3).fit(small).evaluate(small)  # what is loaded and compiled once
X = np.empty((1_160_000, 5), dtype)
for first in range(0, len(X), 10_000):
    X[first : first + 10_000] = random.normal(size=(10_000, 5)) + random.integers(0, 5, (10_000, 1)) * 2
before = memory("VmRSS")
model = GaussianMixture(5, random_state=0, max_iter=5).fit(X)
after_fit = memory("VmHWM")
scores = model.evaluate(X)
after = memory("VmHWM")
assert len(scores.labels) == len(X)
print(after_fit - before, after - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_memory_beyond_the_matrix_is_below_100_mb(dtype: str) -> None:
    """1.16 million rows x 5: the start by K-Means included, which copies the matrix once."""
    done = subprocess.run([sys.executable, "-c", MEMORY, dtype], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fit, evaluation = map(int, done.stdout.split())
    assert fit < 100e6
    assert evaluation < 100e6


@pytest.mark.real
def test_real_tracks_have_the_bic_that_was_computed_apart(real_data: Path) -> None:
    """Five components of five standardised principal components of the 0..1 features: BIC 632,741 (data README)."""
    names = ["acousticness", "danceability", "energy", "instrumentalness", "liveness", "speechiness", "valence"]
    tracks = pd.read_csv(real_data / "tracks_114k.csv").drop_duplicates("track_id")[names].to_numpy()
    low, high = tracks.min(axis=0), tracks.max(axis=0)
    X = PCA(5, svd_solver="full").fit_transform((tracks - low) / (high - low))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    model = GaussianMixture(5, random_state=0).fit(X)
    assert model.evaluate(X).bic == pytest.approx(632_741, abs=1)
