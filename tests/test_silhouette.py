"""The silhouette pass against scikit-learn."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_samples, silhouette_score

from gpuclust.errors import FitError
from gpuclust.metrics.silhouette import cpu as silhouette_cpu
from gpuclust.metrics.silhouette.joint_labels import sort_into_cells
from gpuclust.metrics.silhouette.score import silhouette

# float64: each distance carries n_features roundings of 1e-16, and a coefficient is a ratio of means of them.
FLOAT64 = 1e-12
# float32: a distance carries about 1e-7 of itself (its features are subtracted before they are squared, so nothing
# cancels), a and b hence as much of themselves, and (b - a) / max(a, b) at most twice that; runs of 32 additions in
# float32 add at most 32 * 6e-8.
FLOAT32 = 5e-6


def reference(X, labels):
    """Coefficients of the rows that are not noise, from float64 distances taken by difference.

    scikit-learn's own Euclidean distances are expanded as x.x - 2x.y + y.y, which loses all digits of values near 1e6.
    """
    clustered = labels >= 0
    points = X[clustered].astype(np.float64)
    return silhouette_samples(cdist(points, points), labels[clustered], metric="precomputed")


@contextmanager
def walking(in_pairs):
    """Make the pass walk over its distances in pairs of blocks, with many small groups of them, or by scored rows."""
    with (
        mock.patch.object(silhouette_cpu, "prefer_pair_blocks", return_value=in_pairs),
        mock.patch.object(silhouette_cpu, "GROUP_ROWS", 10),
    ):
        yield


def scorable(labels):
    labels = labels[labels >= 0]
    return 2 <= len(np.unique(labels)) < len(labels)


@st.composite
def tables(draw):
    """A matrix and some labelings, of any of the shapes that go wrong."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_samples = draw(st.sampled_from([3, 4, 15, 16, 17, 70, 300, 601]))
    n_features = draw(st.sampled_from([1, 2, 5, 11, 17, 40]))
    X = rng.normal(size=(n_samples, n_features))
    if draw(st.booleans()):
        X = X[rng.integers(0, max(2, n_samples // 3), n_samples)]  # duplicates
    if draw(st.booleans()):
        X[:, 0] = 3.0
    X = X * draw(st.sampled_from([1.0, 1e-3, 1e4])) + draw(st.sampled_from([0.0, 1e6]))
    labelings = []
    for _ in range(draw(st.integers(1, 5))):
        n_clusters = draw(st.sampled_from([2, 3, 10, n_samples - 1]))
        labels = rng.permutation(np.arange(n_samples) % min(n_clusters, n_samples - 1))
        if draw(st.booleans()):
            labels = np.where(rng.random(n_samples) < 0.3, -1, labels)
        if draw(st.booleans()):
            labels = np.where(labels >= 0, labels * 7 + 2, -1)  # numbers with gaps
        labelings.append(labels)
    return X.astype(draw(st.sampled_from([np.float32, np.float64]))), [x for x in labelings if scorable(x)]


@settings(deadline=None, max_examples=150)
@given(tables(), st.booleans())
def test_equals_scikit_learn(table, in_pairs):
    X, labelings = table
    if not labelings:
        return
    with walking(in_pairs):
        results = silhouette(X, labelings, return_samples=True)
    assert len(results) == len(labelings)
    for labels, result in zip(labelings, results, strict=True):
        expected = reference(X, labels)
        tolerance = FLOAT64 if X.dtype == np.float64 else FLOAT32
        np.testing.assert_allclose(result.samples, expected, rtol=0, atol=tolerance)
        assert result.score == pytest.approx(expected.mean(), abs=tolerance)
        assert (result.standard_error, result.n_scored) == (0.0, len(expected))


@settings(deadline=None, max_examples=40)
@given(tables(), st.integers(0, 2**32 - 1))
def test_sampled_rows_have_their_exact_values(table, seed):
    X, labelings = table
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(rng.random(len(X)) < 0.5)
    labelings = [labels for labels in labelings if np.count_nonzero(labels[rows] >= 0) >= 2]
    if not labelings:
        return
    with walking(in_pairs=False):  # the order of additions is then the same for a sample of rows, to the last bit
        whole = silhouette(X, labelings, return_samples=True)
    sampled = silhouette(X, labelings, rows=rows, return_samples=True)
    for labels, exact, result in zip(labelings, whole, sampled, strict=True):
        values = np.full(len(X), np.nan)
        values[labels >= 0] = exact.samples
        expected = values[rows[labels[rows] >= 0]]
        np.testing.assert_array_equal(result.samples, expected)
        m, n = len(expected), np.count_nonzero(labels >= 0)
        error = expected.std(ddof=1) / np.sqrt(m) * np.sqrt(1 - m / n)
        assert (result.n_scored, result.standard_error) == (m, pytest.approx(error, abs=1e-15))


@settings(deadline=None, max_examples=40)
@given(tables())
def test_several_labelings_equal_one_by_one(table):
    X, labelings = table
    if not labelings:
        return
    together = silhouette(X, labelings, return_samples=True)
    # Only the order of float64 additions, and which float32 ones come first, depend on the other labelings.
    tolerance = FLOAT64 if X.dtype == np.float64 else FLOAT32
    for labels, result in zip(labelings, together, strict=True):
        (alone,) = silhouette(X, [labels], return_samples=True)
        np.testing.assert_allclose(result.samples, alone.samples, rtol=0, atol=tolerance)


@pytest.mark.parametrize("in_pairs", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_repetitions(dtype, in_pairs):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(150, 4)).astype(dtype)
    labels = rng.integers(-1, 4, 150)
    labels[0] = 4  # alone, once
    labels[1] = 5  # alone, but repeated: its copies are its company
    counts = rng.integers(1, 6, 150)
    counts[:2] = 1, 3
    with walking(in_pairs):
        (weighted,) = silhouette(X, [labels], sample_weight=counts, return_samples=True)
    (repeated,) = silhouette(np.repeat(X, counts, axis=0), [np.repeat(labels, counts)], return_samples=True)
    assert weighted.score == pytest.approx(repeated.score, abs=FLOAT32 if dtype == np.float32 else FLOAT64)
    values = np.repeat(weighted.samples, counts[labels >= 0])
    np.testing.assert_allclose(values, repeated.samples, rtol=0, atol=FLOAT32 if dtype == np.float32 else FLOAT64)


def test_standard_error_covers_the_exact_score():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(1500, 3)), rng.normal(3.0, 2.0, size=(1500, 3))])
    labels = (X[:, 0] > 1).astype(int)
    exact = silhouette(X, [labels])[0].score
    z = []
    for seed in range(200):
        rows = np.sort(np.random.default_rng(seed).choice(len(X), 400, replace=False))
        (sampled,) = silhouette(X, [labels], rows=rows)
        z.append((sampled.score - exact) / sampled.standard_error)
    # Of 200 standard normals the standard deviation is 1 +- 0.05 and the mean 0 +- 0.07: four of those either way.
    assert np.std(z) == pytest.approx(1, abs=0.2)
    assert np.mean(z) == pytest.approx(0, abs=0.28)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_does_not_matter(scale):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 5))
    labels = rng.integers(0, 3, 200)
    (expected,) = silhouette(X.astype(np.float32), [labels])
    (scaled,) = silhouette((X * scale).astype(np.float32), [labels])
    # Rounding X * scale to float32 moves each value by 6e-8 of itself.
    assert scaled.score == pytest.approx(expected.score, abs=FLOAT32)


@pytest.mark.parametrize("view", ["fortran", "strided", "read-only", "integers"])
def test_any_layout(view):
    rng = np.random.default_rng(2)
    X = np.round(rng.normal(size=(120, 6)) * 10)
    labels = rng.integers(0, 3, 120)
    given = {
        "fortran": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
        "integers": X.astype(int),
    }.get(view, X.copy())
    given.flags.writeable = view != "read-only"
    assert silhouette(given, [labels]) == silhouette(X, [labels])


def test_many_clusters_and_short_cells():
    """Sums that outgrow their budget make the block narrower; labelings that cross leave cells of one row."""
    rng = np.random.default_rng(3)
    n_samples = 40_000
    X = rng.normal(size=(n_samples, 2))
    labelings = [rng.permutation(n_samples) // 2 % (n_samples // 2), rng.integers(0, 200, n_samples)]
    rows = np.arange(0, n_samples, 499)
    for labels, result in zip(labelings, silhouette(X, labelings, rows=rows, return_samples=True), strict=True):
        distances = cdist(X[rows], X)
        sums = np.stack([np.bincount(labels, row) for row in distances])
        counts = np.bincount(labels)
        own = labels[rows]
        a = sums[np.arange(len(rows)), own] / (counts[own] - 1)
        means = sums / counts
        means[np.arange(len(rows)), own] = np.inf
        b = means.min(axis=1)
        np.testing.assert_allclose(result.samples, (b - a) / np.maximum(a, b), rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("in_pairs", [True, False])
def test_progress_ends_at_one_and_stops_on_request(in_pairs):
    rng = np.random.default_rng(4)
    X, labels = rng.normal(size=(30_000, 2)).astype(np.float32), rng.integers(0, 3, 30_000)
    seen = []
    with walking(in_pairs):
        silhouette(X, [labels], progress=seen.append)
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def stop(fraction):
        raise KeyboardInterrupt

    with walking(in_pairs), pytest.raises(KeyboardInterrupt):
        silhouette(X, [labels], progress=stop)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 0, 0], "labeling 0 has 1 clusters in 4 clustered rows"),
        ([0, 1, 2, 3], "labeling 0 has 4 clusters in 4 clustered rows"),
        ([-1, -1, -1, -1], "labeling 0 has 0 clusters in 0 clustered rows"),
        ([0, 1], r"labeling 0 is int64 of shape \(2,\)"),
        ([0.0, 1.0, 0.0, 1.0], "labeling 0 is float64"),
    ],
)
def test_labelings_without_a_silhouette(labels, message):
    with pytest.raises(FitError, match=message):
        silhouette(np.arange(8.0).reshape(4, 2), [np.array(labels)])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labelings": []}, "no labeling"),
        ({"X": np.array([[0.0], [np.nan], [1.0], [2.0]])}, "NaN or infinity"),
        ({"X": np.zeros(4)}, "shape"),
        ({"rows": np.array([2, 1])}, "ascending"),
        ({"rows": np.array([1, 4])}, "below 4"),
        ({"rows": np.array([1])}, "sample more rows"),
        ({"sample_weight": np.ones(3)}, "one weight for each"),
        ({"sample_weight": np.array([1.0, 0.0, 1.0, 1.0])}, "above 0"),
    ],
)
def test_arguments_that_do_not_fit(changed, message):
    arguments = {"X": np.arange(8.0).reshape(4, 2), "labelings": [np.array([0, 0, 1, 1])]} | changed
    with pytest.raises(FitError, match=message):
        silhouette(arguments.pop("X"), arguments.pop("labelings"), **arguments)


def test_pairs_of_blocks_are_each_taken_once():
    """Coarse labelings of many rows go by pairs of blocks on their own, and agree with scoring row by row."""
    rng = np.random.default_rng(6)
    X = rng.normal(size=(9000, 6))
    labelings = [rng.integers(-1, 3, len(X)), rng.integers(0, 4, len(X))]
    assert silhouette_cpu.prefer_pair_blocks(sort_into_cells(labelings, len(X), np.ones(len(X))), X.shape[1])
    paired = silhouette(X, labelings, return_samples=True)
    by_rows = silhouette(X, labelings, rows=np.arange(len(X)), return_samples=True)
    for one, other in zip(paired, by_rows, strict=True):
        np.testing.assert_allclose(one.samples, other.samples, rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("n_groups", [1, 2, 6, 16])
def test_rounds_are_disjoint_and_cover_all_pairs(n_groups):
    rounds = list(silhouette_cpu._tournament(n_groups))
    games = [game for games in rounds for game in games]
    assert sorted(games) == [(a, b) for a in range(n_groups) for b in range(a, n_groups)]
    for turn in rounds[1:]:
        assert sorted(group for game in turn for group in game) == list(range(n_groups))


def test_cells_are_the_common_refinement():
    labelings = [np.array([0, 0, 1, 1, -1, -1]), np.array([5, 3, 3, 3, -1, 3])]
    cells = sort_into_cells(labelings, 6, np.ones(6))
    runs = [set(cells.order[a:b].tolist()) for a, b in zip(cells.starts[:-1], cells.starts[1:], strict=True)]
    assert sorted(runs, key=min) == [{0}, {1}, {2, 3}, {5}]
    np.testing.assert_array_equal(cells.weights, [2, 2, 4, 1])


PEAK = """
import numpy as np
from pathlib import Path
from gpuclust.metrics.silhouette.score import silhouette
rng = np.random.default_rng(0)
n_samples = 400_000
X = rng.normal(size=(n_samples, 5)).astype(np.float32)
labelings = [rng.integers(0, k, n_samples) for k in (2, 3, 4)]
silhouette(X[:500], [labels[:500] for labels in labelings])
def peak():  # of this process image; getrusage's maximum is inherited from the process that started it
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
before = peak()
silhouette(X, labelings, rows=np.arange(0, n_samples, 4000))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_memory_is_of_the_size_of_the_input():
    grown = int(subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout)
    # Sorted copy, sort keys, order and labels: some 100 bytes a row. One block of distances would be 400 MB.
    assert grown < 400_000 * 200


@pytest.mark.real
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_tracks_equal_scikit_learn(real_data: Path, dtype):
    pandas = pytest.importorskip("pandas")
    tracks = pandas.read_csv(real_data / "playlist_tracks_10k.csv").select_dtypes("number").dropna()[::3]
    X = tracks.to_numpy(np.float64)[:, :11]
    spread = X.std(axis=0)
    X = ((X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(dtype)
    labelings = [KMeans(k, n_init=1, random_state=0).fit_predict(X) for k in (2, 7)]
    for labels, result in zip(labelings, silhouette(X, labelings), strict=True):
        # The bound of the issue. scikit-learn's expanded distances alone are good to about 1e-8 here.
        assert result.score == pytest.approx(silhouette_score(X.astype(np.float64), labels), abs=1e-6)
