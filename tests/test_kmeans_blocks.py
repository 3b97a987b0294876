"""K-Means over blocks of rows: the same bits in memory, on disk and on workers that lose what they keep."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.cluster import KMeans

from gpuclust.algorithms.kmeans import ALGORITHM, KMeansConfig, passes
from gpuclust.algorithms.kmeans.fit import KMeansRequest, fit_centers, fit_kmeans, use_fused
from gpuclust.algorithms.kmeans.lloyd import LloydBatch, exact_centers, rows_in_blocks, rows_in_memory, run_lloyd
from gpuclust.algorithms.kmeans.tiled_matrix import frame_of, tile_rows
from gpuclust.algorithms.registry import FitInput
from gpuclust.errors import ConfigurationError, FitError
from gpuclust.runtime.backend import create_backend
from gpuclust.runtime.blocks import BLOCK_ROWS, DiskBlocks, DiskWriter, MemoryBlocks, MergeTree, RowBlocks, Run
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.deduplicate import distinct_rows

N_ROWS = 4 * BLOCK_ROWS + 1234


class Workers(RowBlocks):
    """Runs of blocks on workers that merge their own sub-trees, arrive in any order, and lose their caches at random."""

    def __init__(self, X, edges, seed=0):
        super().__init__(X.shape, X.dtype)
        self._X, self._edges, self._random = X, edges, np.random.default_rng(seed)
        self._caches = [{} for _ in edges[1:]]
        self.n_lost = 0

    def passes(self, requests):
        found = []
        for request in requests:
            part, args = pickle.loads(pickle.dumps((request.part, request.args)))
            whole = MergeTree(self.n_blocks, request.add)
            results = {}
            for worker in self._random.permutation(len(self._caches)).tolist():
                first, stop = self._edges[worker : worker + 2]
                if self._random.random() < 0.3:
                    self._caches[worker].clear()
                    self.n_lost += 1
                run = Run(self._X[first * BLOCK_ROWS : stop * BLOCK_ROWS], first, self._caches[worker])
                results[worker] = result = part(run, *args)
                if request.add is not None:
                    own = MergeTree(self.n_blocks, request.add)
                    for i, value in enumerate(result):
                        own.put(0, first + i, value)
                    for (level, index), value in own.nodes.items():
                        whole.put(level, index, value)
            found.append([results[i] for i in sorted(results)] if request.add is None else whole.value)
        return found

    def take(self, rows):
        return self._X[rows]


def clusters(dtype=np.float32, seed=0, n_rows=N_ROWS):
    """Overlapping clusters, so that labels still change late; one feature is a millionth of the others."""
    rng = np.random.default_rng(seed)
    centers = 2 * rng.standard_normal((7, 4))
    X = (centers[rng.integers(0, 7, n_rows)] + rng.standard_normal((n_rows, 4))) * [1, 10, 1e-6, 3] + 5
    return X.astype(dtype)


def on_disk(path, X):
    writer = DiskWriter(path, X.shape[1], X.dtype)
    writer.append(X)
    return writer.close()


def holders(X, path):
    """The same rows, held in different ways."""
    return {
        "memory blocks": MemoryBlocks(X),
        "disk": on_disk(path / "x", X),
        "one worker": Workers(X, [0, 5]),
        "three workers": Workers(X, [0, 1, 3, 5], seed=1),
        "five workers": Workers(X, [0, 1, 2, 3, 4, 5], seed=2),
    }


def assert_same_result(found, expected):
    for name in ("labels", "confidence", "distance"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    np.testing.assert_array_equal(found.parameters["centers"], expected.parameters["centers"])
    assert found.metrics == expected.metrics
    assert (found.converged, found.engine, found.notes) == (expected.converged, expected.engine, expected.notes)


def given(X):
    return FitInput(X, 0, create_backend("cpu"), ResultCache(), "key")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_holder_gives_the_bits_of_the_matrix_in_memory(dtype, tmp_path):
    X = clusters(dtype)
    configs = [KMeansConfig(n_clusters=k, n_init=n, engine="fused") for k, n in ((2, 1), (6, 3), (9, 2))]
    expected = ALGORITHM.fitter("cpu")(given(X), configs)
    for name, blocks in holders(X, tmp_path).items():
        for found, wanted in zip(ALGORITHM.fitter("blocks")(given(blocks), configs), expected, strict=True):
            assert_same_result(found, wanted)
        assert not isinstance(blocks, Workers) or blocks.n_lost > 5, name
    reference = KMeans(6, n_init=3, random_state=0).fit(X.astype(np.float64))
    assert expected[1].metrics["inertia"] <= reference.inertia_ * 1.0005


@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_that_start_empty_are_moved_to_the_same_rows(weighted, tmp_path):
    X = clusters()
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.5, 2, len(X)) if weighted else np.empty(0)
    start = np.concatenate([X[:3].astype(np.float64), X.max(axis=0) + np.array([[1e3] * 4, [2e3] * 4])])
    rows = rows_in_memory(X, weight)
    jobs = [(rows.frame.to_tiled(start), limit, 1e-4) for limit in (1, 300)]
    outcomes = run_lloyd(rows, jobs)
    assert outcomes[0].key is None  # the first pass moved clusters
    if not weighted:
        for blocks in holders(X, tmp_path).values():
            others = rows_in_blocks(blocks)
            for other, outcome in zip(run_lloyd(others, jobs), outcomes, strict=True):
                np.testing.assert_array_equal(other.centers, outcome.centers)
                assert (other.inertia, other.n_iter) == (outcome.inertia, outcome.n_iter)
    reference = KMeans(5, init=start, n_init=1).fit(X.astype(np.float64), sample_weight=weight if weighted else None)
    order = np.lexsort(reference.cluster_centers_.T)
    centers = rows.frame.from_tiled(exact_centers(rows, outcomes)[1])
    np.testing.assert_allclose(centers[np.lexsort(centers.T)], reference.cluster_centers_[order], rtol=1e-9)


def test_labels_kept_and_labels_lost_give_the_same_bits_in_every_pass():
    X = clusters()
    rows = rows_in_memory(X, np.empty(0))
    starts = [rows.frame.to_tiled(X[np.random.default_rng(i).choice(len(X), 8)].astype(np.float64)) for i in range(3)]

    def statistics(*, keep):
        batch, found = LloydBatch(rows, starts), []
        for number in range(12):
            running = np.arange(3) if number < 6 else np.array([0, 2])
            batch.run_pass(running)
            batch.move(running)
            found.append([array.copy() for array in (*batch.total, *batch.state, batch.centers.float64)])
            if not keep:
                for cache in rows.blocks._caches[0].values():
                    del cache[passes.LABELS]
        return found

    for kept, fresh in zip(statistics(keep=True), statistics(keep=False), strict=True):
        for a, b in zip(kept, fresh, strict=True):
            np.testing.assert_array_equal(a, b)


def test_sums_of_all_rows_are_exact_on_the_grid():
    """The sums that a pass forms are those of exact arithmetic, also of a narrow feature and beside an outlier."""
    X = clusters(np.float64, n_rows=70_000)
    X[5, 1] = 1e9
    frame = frame_of(MemoryBlocks(X))
    tile = tile_rows(X[:256], frame).values.reshape(4, 256).astype(np.float64)
    grid = np.spacing(frame.rounding)[:, None]
    assert (np.round(tile / grid) == tile / grid).all()
    exact = ((X[:256] - frame.origin) * frame.scale).T
    assert (np.abs(tile - exact) <= grid / 2 + 2.0**-24 * np.abs(exact)).all()
    ranges = (X.max(axis=0) - X.min(axis=0)) * frame.scale
    assert (len(X) * ranges / grid[:, 0] < 2**53).all()
    assert (
        grid[:, 0] <= ranges * 2.0**-34
    ).all()  # relative to the feature's own range: 17 bits for the number of rows


def test_distinct_rows_with_counts_are_all_rows():
    X = np.round(clusters(np.float64), 1)[:, [0, 3]]
    requests = [KMeansRequest(k, 0, n_init=2) for k in (3, 6)]
    for whole, few in zip(fit_centers(X, requests), fit_centers(X, requests, distinct=distinct_rows(X)), strict=True):
        np.testing.assert_allclose(few.centers, whole.centers, rtol=1e-13)
        assert (few.n_iter, few.converged) == (whole.n_iter, whole.converged)


def test_batches_limited_by_memory_give_the_same_fits(tmp_path):
    X = clusters(n_rows=BLOCK_ROWS + 99)
    requests = [KMeansRequest(k, 0, n_init=1) for k in (1, 4, 300)]
    blocks = on_disk(tmp_path / "x", X)
    for alone, together in zip(fit_centers(blocks, requests, batch_bytes=1), fit_centers(X, requests), strict=True):
        np.testing.assert_array_equal(alone.centers, together.centers)
        assert (alone.n_iter, alone.converged) == (together.n_iter, together.converged)
    np.testing.assert_array_equal(fit_kmeans(X, requests[:1])[0].centers, fit_centers(blocks, requests[:1])[0].centers)


def test_starts_share_each_read(tmp_path, monkeypatch):
    blocks, reads = on_disk(tmp_path / "x", clusters()), []
    runs = DiskBlocks.runs
    monkeypatch.setattr(DiskBlocks, "runs", lambda self: reads.append(1) or runs(self))
    configs = [KMeansConfig(n_clusters=k, n_init=3, max_iter=4, tol=0) for k in (3, 5, 8)]
    ALGORITHM.fitter("blocks")(given(blocks), configs)
    assert len(reads) == 1 + 4 + 1 + 1  # the frame, four iterations, float64 sums, and the final assignment


def test_scikit_learn_needs_the_rows_in_memory():
    blocks = MemoryBlocks(clusters(n_rows=BLOCK_ROWS + 1))
    with pytest.raises(ConfigurationError, match=r"engine=library needs all rows in memory; use cluster\.engine=fused"):
        ALGORITHM.fitter("blocks")(given(blocks), [KMeansConfig(engine="library")])


@pytest.mark.parametrize("engine", ["auto", "library"])
def test_rows_of_one_block_are_fitted_as_in_memory(engine):
    X = clusters(n_rows=700)
    configs = [KMeansConfig(n_clusters=k, n_init=1, engine=engine) for k in (3, 300)]  # 300: auto is scikit-learn
    expected = ALGORITHM.fitter("cpu")(given(X), configs)
    for found, wanted in zip(ALGORITHM.fitter("blocks")(given(MemoryBlocks(X)), configs), expected, strict=True):
        assert_same_result(found, wanted)
    assert expected[1].engine == "library"


def test_auto_does_not_depend_on_whether_rows_fit_in_memory():
    assert all(use_fused(BLOCK_ROWS + 1, d, k) for d, k in ((2, 2), (500, 10), (5, 2000)))


def test_values_that_are_no_numbers_are_refused(tmp_path):
    X = clusters()
    X[BLOCK_ROWS + 3, 2] = np.nan
    with pytest.raises(FitError, match="NaN"):
        fit_centers(on_disk(tmp_path / "x", X), [KMeansRequest(2, 0)])
