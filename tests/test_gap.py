"""The gap statistic and the split gain against independent recomputation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from gpuclust.metrics.gap import first_within_error, gap_statistic, reference_set
from gpuclust.metrics.icl_gain import SHRINKAGE, split_gain
from gpuclust.runtime.blocks import MemoryBlocks
from gpuclust.runtime.cpu import CpuBackend
from tests.known_answers import groups, standardised

BACKEND = CpuBackend()


def test_the_gap_of_separated_groups_equals_the_formula_computed_with_scikit_learn() -> None:
    X = groups(3, n_columns=2, n_rows=300, seed=0)
    found = gap_statistic(X, [4], n_references=4, seed=7, backend=BACKEND)
    assert found.sizes == (1, 2, 3, 4)

    def log_w(rows: np.ndarray) -> list[float]:
        return [np.log(KMeans(k, n_init=10, random_state=0).fit(rows).inertia_) for k in (1, 2, 3, 4)]

    rng = np.random.default_rng(7)
    references = np.array([log_w(reference_set(X.astype(np.float64), rng).astype(np.float32)) for _ in range(4)])
    # Of a reference set, which has no groups, the two K-Means stop in optima that differ by up to a per cent or two.
    np.testing.assert_allclose(found.reference_log_w, references.mean(axis=0), atol=0.02)
    # On three far groups both find the same optimum, in float32 (relative 1e-6); four cut one group in several ways.
    np.testing.assert_allclose(found.log_w[:3], log_w(X)[:3], atol=1e-5)
    np.testing.assert_allclose(found.gap, np.subtract(found.reference_log_w, found.log_w), rtol=1e-12)
    np.testing.assert_allclose(found.error, references.std(axis=0) * np.sqrt(1 + 1 / 4), atol=0.02)
    assert found.chosen == 3
    assert found.maximum == 3


@pytest.mark.parametrize("n_rows", [200, 900])
def test_blocks_have_the_gap_and_the_gain_of_the_array(n_rows: int) -> None:
    X = groups(3, n_columns=2, n_rows=n_rows, seed=0)
    found = gap_statistic(X, [3], n_references=2, seed=1, backend=BACKEND, most_rows=300)
    assert gap_statistic(MemoryBlocks(X), [3], n_references=2, seed=1, backend=BACKEND, most_rows=300) == found
    labels = (np.arange(n_rows) % 3).astype(np.int32)
    assert split_gain(MemoryBlocks(X), labels) == split_gain(X, labels)
    wide = np.random.default_rng(0).normal(size=(20, 30))
    assert split_gain(MemoryBlocks(wide), labels[:20]) == split_gain(wide, labels[:20])


def test_reference_sets_fill_the_box_of_the_principal_axes() -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    long_box = rng.uniform([-10, -1], [10, 1], (4000, 2)) @ turn.T + [3.0, 5.0]
    drawn = reference_set(long_box, rng)
    assert drawn.shape == long_box.shape
    # A box along the features would have about the same spread in both; sampled covariances of 4,000 rows are within 10 %.
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(drawn.T)), [1 / 3, 100 / 3], rtol=0.1)
    np.testing.assert_allclose(drawn.mean(axis=0), long_box.mean(axis=0), atol=0.5)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 0.5)), min_size=2, max_size=8))
def test_the_rule_takes_the_first_size_within_an_error_of_the_next(pairs: list[tuple[float, float]]) -> None:
    gap, error = (np.array(column) for column in zip(*pairs, strict=True))
    sizes = list(range(1, len(pairs) + 1))
    holds = [k for k in sizes[:-1] if gap[k - 1] >= gap[k] - error[k]]
    assert first_within_error(sizes, gap, error) == (holds[0] if holds else None)


def test_the_gap_is_seeded_sampled_and_reports_progress() -> None:
    X = groups(3, n_columns=2, n_rows=900, seed=0)
    told: list[float] = []
    one = gap_statistic(X, [3], n_references=2, seed=1, backend=BACKEND, most_rows=300, progress=told.append)
    two = gap_statistic(X, [3], n_references=2, seed=1, backend=BACKEND, most_rows=300)
    assert one == two
    assert one.n_rows == 300
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert one != gap_statistic(X, [3], n_references=2, seed=2, backend=BACKEND, most_rows=300)


def gain_by_hand(X: np.ndarray, labels: np.ndarray) -> float:
    """The definition with NumPy and SciPy densities, cluster by cluster."""
    from scipy.stats import multivariate_normal

    X = X.astype(np.float64)[labels >= 0]
    labels = labels[labels >= 0]
    n, d = X.shape
    overall = np.cov(X.T, bias=True)

    def likelihood(rows: np.ndarray, mixed: float) -> float:
        own = np.cov(rows.T, bias=True)
        used = (1 - mixed) * own + mixed * overall
        # The mean quadratic form is d by definition; the shrunk covariance changes the determinant alone.
        log_density = multivariate_normal(rows.mean(axis=0), used).logpdf(rows.mean(axis=0))
        return float(len(rows) * (log_density - d / 2))

    together = likelihood(X, 0.0)
    apart = sum(
        likelihood(X[labels == c], SHRINKAGE) + (labels == c).sum() * np.log((labels == c).mean()) for c in set(labels)
    )
    free = (len(set(labels)) - 1) * (1 + d + d * (d + 1) / 2)
    return (apart - together - free * np.log(n) / 2) / n


@pytest.mark.parametrize("n_columns", [2, 5])
def test_the_split_gain_is_its_definition(n_columns: int) -> None:
    rng = np.random.default_rng(n_columns)
    X = groups(4, n_columns=n_columns, n_rows=500, seed=3)
    labels = rng.integers(-1, 3, 500).astype(np.int32)
    # Both are float64 sums of 500 float32 values.
    assert split_gain(X, labels) == pytest.approx(gain_by_hand(X, labels), rel=1e-9, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_split_gain_does_not_change_under_affine_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 3)) + 3 * rng.integers(0, 2, 200)[:, None]
    labels = rng.integers(0, 3, 200).astype(np.int32)
    turned = X @ (np.eye(3) + 0.3 * rng.normal(size=(3, 3))) * [1, 10, 0.1] + [5, -3, 100]
    # The worst condition number drawn is about 1e5, of 1e-16 arithmetic; the ridge-free logdet keeps nine digits.
    assert split_gain(turned, labels) == pytest.approx(split_gain(X, labels), abs=1e-6)


def test_the_split_gain_of_separated_groups_is_that_of_their_mixture() -> None:
    """Far apart, every row belongs to one component, so the mixture's ICL and the hard partition's are the same."""
    X = groups(3, n_columns=2, n_rows=2000, seed=1, apart=15.0).astype(np.float64)
    fitted = GaussianMixture(3, random_state=0, n_init=3).fit(X)
    one = GaussianMixture(1).fit(X)
    difference = (one.bic(X) - fitted.bic(X)) / (2 * len(X))
    # The hundredth of the overall covariance that is mixed in costs these tight groups up to 0.5 nats a row.
    gain = split_gain(X, fitted.predict(X).astype(np.int32))
    assert gain == pytest.approx(difference, abs=0.5)
    assert gain > 1.0


def test_the_split_gain_without_two_clusters_or_without_variance_is_undefined() -> None:
    X = standardised(np.random.default_rng(0).normal(size=(50, 2)))
    assert np.isnan(split_gain(X, np.zeros(50, np.int32)))
    assert np.isnan(split_gain(np.zeros((50, 2)), np.arange(50, dtype=np.int32) % 2))
    twins = np.repeat([[0.0, 0.0], [1.0, 1.0]], 25, axis=0)
    assert np.isfinite(split_gain(twins, np.repeat([0, 1], 25).astype(np.int32)))
