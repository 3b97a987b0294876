"""The scores and the profile of rows on a device against those of a CPU, and what they copy.

Run by `tests.test_gpu_fakes` in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cupy as cp
import numpy as np
import pytest

from gpuclust.analysis.members import Members
from gpuclust.analysis.moments import moments_and_medians
from gpuclust.config import ScoreConfig
from gpuclust.metrics import grouped_sums_cuda
from gpuclust.metrics.grouped_sums import ORIGIN_ROWS
from gpuclust.metrics.icl_gain import split_gain
from gpuclust.metrics.silhouette import kernels_cuda, silhouettes
from gpuclust.metrics.validity import _validities, score
from gpuclust.runtime.blocks import MemoryBlocks
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.deduplicate import distinct_rows
from gpuclust.runtime.gpu import GpuBackend
from tests.gpu_fakes.device import DEVICE, DOWN, UP
from tests.test_cluster import matrix_of
from tests.test_validity import clustering

N_ROWS, N_CLUSTERS = 240, 3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few threads, each of which runs in Python here."""
    monkeypatch.setattr(kernels_cuda, "THREADS", 32)
    monkeypatch.setattr(grouped_sums_cuda, "THREADS", 32)
    monkeypatch.setattr(grouped_sums_cuda, "MERGED", 8)
    monkeypatch.setattr(grouped_sums_cuda, "SEGMENT", 64)


def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_ROWS, 3))
    X[:, 0] += np.arange(N_ROWS) % N_CLUSTERS * 4
    labels = (np.arange(N_ROWS) % N_CLUSTERS).astype(np.int32)
    labels[::17] = -1
    return X, labels


@pytest.mark.parametrize(
    "config", [ScoreConfig(), ScoreConfig(exact_limit=0, sample_size=50)], ids=["exact", "sampled"]
)
def test_the_scores_are_those_of_the_cpu(config: ScoreConfig) -> None:
    X, labels = table()
    clusterings = [clustering(labels), clustering(labels + 1)]
    matrix = matrix_of(X)
    expected = score(matrix, clusterings, config, seed=0, backend=CpuBackend())
    found = score(replace(matrix, X=cp.asarray(matrix.X)), clusterings, config, seed=0, backend=GpuBackend())
    for wanted, got in zip(expected, found, strict=True):
        assert got.metrics.keys() == wanted.metrics.keys()
        for name, value in wanted.metrics.items():
            # float64 sums of 240 terms in another order
            assert got.metrics[name] == pytest.approx(value, rel=1e-10, abs=1e-10), name


def test_the_gain_of_wide_and_of_short_tables_is_that_of_the_cpu() -> None:
    rng = np.random.default_rng(1)
    for shape in ((150, grouped_sums_cuda.TILE_ROWS * 2 + 6), (30, 40)):
        X, labels = rng.normal(size=shape), table()[1][: shape[0]]
        assert split_gain(cp.asarray(X), labels) == pytest.approx(split_gain(X, labels), rel=1e-9)


def test_a_clustering_is_scored_with_one_upload_of_its_labels_and_small_downloads() -> None:
    X, labels = table()
    given, one = cp.asarray(X.astype(np.float32)), clustering(labels)
    with DEVICE.measure() as counts:
        _validities(given, [one])
    width = X.shape[1] + 1
    cells = width * (width + 1) // 2
    *small, largest = sorted(event.n_bytes for event in counts.of(UP))
    assert largest == 4 * N_ROWS, counts.table()
    assert max(small) < N_ROWS, counts.table()
    launches = {name.rpartition(".")[2]: n for name, n in counts.launches().items()}
    assert launches == {"take": 1, "argsort": 1, "add_products": 1, "add_distances": 1, "add_segments": 2}
    of_origin, of_products, of_spreads = 4 * ORIGIN_ROWS * 3, 8 * (N_CLUSTERS + 1) * cells, 8 * (N_CLUSTERS + 1) * 2
    assert [event.n_bytes for event in counts.of(DOWN)] == [of_origin, of_products, of_spreads], counts.table()


def test_the_profile_is_that_of_the_cpu() -> None:
    X, labels = table()
    members = Members(labels)
    expected, medians = moments_and_medians(MemoryBlocks(X), members)
    with DEVICE.measure() as counts:
        found, found_medians = moments_and_medians(MemoryBlocks(cp.asarray(X)), members)
    np.testing.assert_array_equal(found_medians, medians)
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-12)
    assert sum(event.n_bytes == 4 * N_ROWS for event in counts.of(UP)) == 1, counts.table()
    assert len(counts.of(DOWN)) == 3, counts.table()  # the sums, the squares, and the medians


def all_alike(columns: object, n_rows: int, zeros: Callable[..., Any]) -> Any:
    """A hash that all rows share."""
    return zeros(n_rows, np.uint64)


def test_distinct_rows_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.repeat(table()[0], 3, axis=0)
    for _ in range(2):
        expected, found = distinct_rows(X), distinct_rows(cp.asarray(X))
        np.testing.assert_array_equal(found.X.get(), expected.X)
        for name in ("first", "inverse", "counts"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        monkeypatch.setattr("gpuclust.runtime.deduplicate.hash_rows", all_alike)


def test_the_silhouette_of_distinct_rows_copies_no_more_than_their_labels_and_numbers() -> None:
    X, labels = table()
    X, labels = np.repeat(X, 3, axis=0), np.repeat(labels, 3)
    labelings = [labels, np.where(labels < 0, N_CLUSTERS, labels).astype(np.int32)]
    expected = silhouettes(X, labelings, backend=CpuBackend(), distinct=distinct_rows(X))
    rows = distinct_rows(cp.asarray(X))
    with DEVICE.measure() as counts:
        found = silhouettes(cp.asarray(X), labelings, backend=GpuBackend(), distinct=rows)
    for wanted, got in zip(expected, found, strict=True):
        assert got.score == pytest.approx(wanted.score, abs=1e-12)
        assert (got.standard_error, got.n_scored) == (0.0, wanted.n_scored)
    large = [event.n_bytes for event in counts.of(UP) if event.n_bytes >= 4 * N_ROWS][1:]  # but for X itself
    assert sorted(large) == [4 * N_ROWS, 4 * N_ROWS, 8 * N_ROWS], counts.table()  # two labelings and the counts
    assert counts.largest(DOWN) < 4 * N_ROWS, counts.table()
