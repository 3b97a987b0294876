"""Fits of rows that are not in memory: the same bits as in memory, whoever holds the blocks; shared reads; sampled HDBSCAN."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from gpuclust.algorithms.cluster import Clustering, cluster, means
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.hdbscan.cpu import density_validity
from gpuclust.algorithms.hdbscan.place import FittedRows
from gpuclust.algorithms.hdbscan.predict import soft_membership
from gpuclust.algorithms.hdbscan.sample import sample_of
from gpuclust.algorithms.mixture import GmmConfig, short_em
from gpuclust.algorithms.mixture.init import MAX_PERMUTED, draw_rows
from gpuclust.algorithms.registry import Algorithm, FitInput
from gpuclust.config import ClusterConfig
from gpuclust.errors import ConfigurationError, FitError, GpuclustError
from gpuclust.model.bundle import Bundle
from gpuclust.model.hdbscan import nearest_fitted
from gpuclust.model.records import NOISE
from gpuclust.runtime.blocks import (
    BLOCK_ROWS,
    Collector,
    DiskBlocks,
    DiskWriter,
    MemoryBlocks,
    MergeTree,
    Request,
    RowBlocks,
    Run,
    together,
)
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from tests.test_cluster import matrix_of

BACKEND = CpuBackend()


class Shards(RowBlocks):
    """Blocks in several shards, each of which passes over its own rows alone, given only what can be pickled."""

    def __init__(self, X: np.ndarray, n_shards: int) -> None:
        super().__init__(X.shape, X.dtype)
        edges = [i * self.n_blocks // n_shards for i in range(n_shards + 1)]
        self.shards = [(first, X[first * BLOCK_ROWS : stop * BLOCK_ROWS]) for first, stop in itertools.pairwise(edges)]  # fmt: skip
        self.X = X

    def passes(self, requests: Sequence[Request]) -> list[Any]:
        results = []
        for request in requests:
            part, args, add = pickle.loads(pickle.dumps((request.part, request.args, request.add)))
            whole = MergeTree(self.n_blocks, add or max)
            found = []
            for first, X in reversed(self.shards) if add else self.shards:
                mine = Collector(self.n_blocks, Request(part, args, add))
                mine.add(Run(X.copy(), first))
                found += mine.found
                for (level, index), value in (mine.tree.nodes if mine.tree else {}).items():
                    whole.put(level, index, value)
            results.append(whole.value if add else found)
        return results

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.X[rows]


def on_disk(folder: Path, X: np.ndarray) -> DiskBlocks:
    writer = DiskWriter(folder / "rows", X.shape[1], X.dtype)
    writer.append(X)
    return writer.close()


def fitted(X: Any, *requests: ClusterConfig, memory: int | None = None) -> list[Clustering | GpuclustError]:
    matrix = matrix_of(np.zeros((1, X.shape[1]), np.float32))
    return cluster(replace(matrix, X=X), requests, seed=0, backend=BACKEND, cache=ResultCache(), memory=memory)


def assert_same(found: Any, expected: Any) -> None:
    """Bit for bit."""
    assert isinstance(found, Clustering), found
    for name in ("labels", "confidence", "distance", "centers", "sizes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.parameters.keys() == expected.parameters.keys()
    for name, value in expected.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], value, err_msg=name)
    assert (found.metrics, found.notes, found.options) == (expected.metrics, expected.notes, expected.options)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Five blocks of overlapping groups; too many values for a fit in float64."""
    random = np.random.default_rng(0)
    n, d = 4 * BLOCK_ROWS + 117, 8
    X = random.normal(size=(n, d)) + 2.5 * random.normal(size=(4, d))[random.integers(0, 4, n)]
    return X.astype(np.float32)


@pytest.fixture
def _short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and shorter runs in the search for a start: the same code in less time."""
    monkeypatch.setattr(short_em, "ROUNDS", ((2000, 5, 3), (5000, 5, 2)))


@pytest.mark.usefixtures("_short_search")
@pytest.mark.parametrize(
    "request_",
    [
        GmmConfig(n_clusters=4, max_iter=4),
        GmmConfig(n_clusters=1),
        GmmConfig(n_clusters=3, max_iter=3, init_params="random", n_init=2),
        *(
            GmmConfig(n_clusters=3, max_iter=2, init_params="random_from_data", covariance_type=c)
            for c in ("tied", "diag", "spherical")
        ),
    ],
    ids=lambda r: f"{r.init_params}-{r.covariance_type}-{r.n_clusters}",
)
def test_a_mixture_has_the_same_bits_whoever_holds_the_rows(
    request_: GmmConfig, rows: np.ndarray, tmp_path: Path
) -> None:
    (expected,) = fitted(rows, request_)
    for blocks in (on_disk(tmp_path, rows), MemoryBlocks(rows), Shards(rows, 2), Shards(rows, 3)):
        (found,) = fitted(blocks, request_)
        assert_same(found, expected)


def test_few_values_are_fitted_in_float64_as_in_memory(tmp_path: Path) -> None:
    X = np.random.default_rng(1).normal(size=(3000, 4)).astype(np.float32)
    request = GmmConfig(n_clusters=3, max_iter=5, init_params="k-means++")
    assert_same(fitted(on_disk(tmp_path, X), request)[0], fitted(X, request)[0])


@pytest.mark.usefixtures("_short_search")
def test_fits_share_each_read(rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    runs = DiskBlocks.runs
    monkeypatch.setattr(DiskBlocks, "runs", lambda self: reads.append(1) or runs(self))
    requests = [GmmConfig(n_clusters=k, max_iter=k, tol=0) for k in (2, 3, 4)]
    shares: list[float] = []
    matrix = replace(matrix_of(rows[:1]), X=on_disk(tmp_path, rows))
    found = cluster(matrix, requests, seed=0, backend=BACKEND, cache=ResultCache(), progress=shares.append)
    assert len(reads) == 4 + 1, "the passes of the longest fit, and one for the labels"
    assert shares == sorted(shares)
    for one, request in zip(found, requests, strict=True):
        assert_same(one, fitted(rows, request)[0])


def test_what_needs_all_rows_is_one_line_and_the_others_go_on(rows: np.ndarray) -> None:
    library, plus_plus, many, fine = fitted(
        MemoryBlocks(rows),
        GmmConfig(engine="library"),
        GmmConfig(init_params="k-means++"),
        GmmConfig(n_clusters=len(rows) + 1),
        GmmConfig(n_clusters=2, max_iter=2),
    )
    assert str(library) == (
        "cluster.engine=library needs all rows in memory; use cluster.engine=fused or memory.mode=resident"
    )
    assert str(plus_plus).startswith("cluster.init_params=k-means++ needs all rows in memory; use")
    assert isinstance(many, FitError)
    assert isinstance(fine, Clustering)
    toy = Algorithm(name="toy", config=ClusterConfig, fit={"cpu": lambda data, configs: []})
    with pytest.raises(ConfigurationError, match=r"^cluster=toy needs all rows in memory; use memory.mode=resident$"):
        toy.fitter("blocks")
    with pytest.raises(ConfigurationError, match=r"use backend=cpu$"):
        Algorithm(name="toy", config=ClusterConfig, fit={**toy.fit, "blocks": "a:b"}).fitter("gpu")


def test_values_that_are_not_finite_are_one_line(rows: np.ndarray) -> None:
    bad = rows.copy()
    bad[-1, 0] = np.inf
    init = {"init_params": "random_from_data", "covariance_type": "diag"}
    (found,) = fitted(MemoryBlocks(bad), GmmConfig(n_clusters=2, **init))
    assert isinstance(found, FitError)
    assert "clean.nulls" in str(found)


def test_means_of_members(rows: np.ndarray, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(-1, 3, len(rows)).astype(np.int32)
    expected = means(rows, labels, 4, BACKEND)
    np.testing.assert_array_equal(means(on_disk(tmp_path, rows), labels, 4, BACKEND), expected)
    np.testing.assert_array_equal(expected[3], 0)
    by_hand = [rows[labels == c].mean(axis=0, dtype=np.float64) for c in range(3)]
    np.testing.assert_allclose(expected[:3], by_hand, rtol=1e-12, atol=1e-12)


def test_rows_are_drawn_without_a_permutation_of_a_billion() -> None:
    few = np.random.RandomState(3).choice(1000, 10, replace=False)
    np.testing.assert_array_equal(draw_rows(np.random.RandomState(3), 1000, 10), few)
    for n in (MAX_PERMUTED + 1, 10**9):
        drawn = draw_rows(np.random.RandomState(0), n, 60_000)
        assert len(np.unique(drawn)) == 60_000
        assert 0.45 < np.mean(drawn < n / 2) < 0.55
        np.testing.assert_array_equal(drawn, draw_rows(np.random.RandomState(0), n, 60_000))


@pytest.fixture(scope="module")
def groups() -> tuple[np.ndarray, np.ndarray]:
    """Six dense groups with a fifth of noise; and the group of each row."""
    random = np.random.default_rng(3)
    n = 24_000
    group = random.integers(6, size=n)
    X = 12 * random.permutation(np.eye(6, 4) + np.eye(6, 4, -2))[group] + 0.6 * random.normal(size=(n, 4))
    noise = random.random(n) < 0.2
    X[noise] = random.uniform(-4, 16, (noise.sum(), 4))
    return X.astype(np.float32), np.where(noise, NOISE, group)


def test_hdbscan_of_rows_that_fit_into_memory_is_exact(groups: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X, _ = groups
    requests = [HdbscanConfig(min_cluster_size=s) for s in (200, "auto")]
    for found, expected in zip(fitted(on_disk(tmp_path, X), *requests), fitted(X, *requests), strict=True):
        assert_same(found, expected)


def test_hdbscan_of_a_sample(groups: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X, group = groups
    request = HdbscanConfig(min_cluster_size=400, max_cluster_size=9000, sample_rows=6000)
    (whole,) = fitted(X, replace(request, sample_rows="auto"))
    found, finer = fitted(X, request, replace(request, min_cluster_size=200))
    assert isinstance(found, Clustering)
    assert isinstance(whole, Clustering)
    assert found.n_clusters == whole.n_clusters == 6
    inside = (found.labels != NOISE) & (whole.labels != NOISE)
    assert adjusted_mutual_info_score(found.labels[inside], whole.labels[inside]) > 0.98
    assert adjusted_mutual_info_score(found.labels, whole.labels) > 0.9
    assert adjusted_mutual_info_score(found.labels, group) > 0.9
    assert found.metrics["min_cluster_size"] == 400
    assert any("tree of 6,000 of 24,000 rows" in note for note in found.notes)
    for blocks in (on_disk(tmp_path, X), Shards(X, 1)):
        for one, expected in zip(
            fitted(blocks, request, replace(request, min_cluster_size=200)), (found, finer), strict=True
        ):
            assert_same(one, expected)
    for rows_ in (X, MemoryBlocks(X)):
        data = FitInput(rows_, 0, BACKEND, ResultCache(), "m")
        assert density_validity(data, request, [found.labels]) == pytest.approx([found.metrics["relative_validity"]])
    for memory, note in ((1, "tree of 1,000 of 24,000 rows"), (10**10, "")):
        (by_memory,) = fitted(on_disk(tmp_path, X), replace(request, sample_rows="auto"), memory=memory)
        assert isinstance(by_memory, Clustering)
        assert by_memory.n_clusters == 6
        assert note in "; ".join(by_memory.notes)

    def sample(blocks: RowBlocks) -> np.ndarray | None:
        data = FitInput(blocks, 0, BACKEND, ResultCache(), "m", memory=1)
        return sample_of(data, replace(request, sample_rows="auto"))

    # Rows that are in memory are not sampled, as those of an array, also where fits share the reads.
    assert [sample(MemoryBlocks(X)), *together(MemoryBlocks(X), [sample])] == [None, None]
    (few,) = together(on_disk(tmp_path, X), [sample])
    assert isinstance(few, np.ndarray)
    assert len(few) == 1000


@pytest.mark.parametrize(
    ("n", "m", "d", "min_samples"), [(3000, 2000, 4, 10), (50, 9, 2, 7), (1, 300, 1, 5), (400, 3, 3, 1)]
)
def test_rows_join_the_fitted_row_that_a_model_finds(n: int, m: int, d: int, min_samples: int) -> None:
    """Compiled in float32 trees here, SciPy's tree in a model: the same rows, and densities to the last bits of a float64."""
    random = np.random.default_rng(n)
    fitted_rows, new = random.normal(size=(m, d)).astype(np.float32), random.normal(size=(n, d)).astype(np.float32)
    new[: min(n, m) // 3] = fitted_rows[: min(n, m) // 3]
    core = random.uniform(0.1, 0.5, m)
    tree = {"points": fitted_rows, "core_distances": core, "min_samples": np.int64(min_samples)}
    expected_row, expected_density = nearest_fitted(tree)(new)
    row, density = FittedRows(fitted_rows, core, min_samples).nearest(new)
    np.testing.assert_array_equal(row, expected_row)
    np.testing.assert_allclose(density, expected_density, rtol=1e-14)


def test_rows_at_equal_distances_join_one_of_the_nearest() -> None:
    random = np.random.default_rng(0)
    fitted_rows, new = (random.integers(0, 4, (n, 2)).astype(np.float32) for n in (300, 200))
    core = np.full(len(fitted_rows), 0.25)
    tree = {"points": fitted_rows, "core_distances": core, "min_samples": np.int64(4)}
    _, expected_density = nearest_fitted(tree)(new)
    row, density = FittedRows(fitted_rows, core, 4).nearest(new)
    np.testing.assert_array_equal(density, expected_density)
    np.testing.assert_array_equal(fitted_rows[row], new)


def test_the_model_of_a_sample_gives_all_labels_again(groups: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X = np.ascontiguousarray(groups[0][:, :3])
    (found,) = fitted(X, HdbscanConfig(sample_rows=5000))
    assert isinstance(found, Clustering)
    preparation = matrix_of(X).preparation
    Bundle("hdbscan", preparation, found.parameters, found.options).save(tmp_path / "model")
    again = Bundle.load(tmp_path / "model")
    kept = again.training(len(X), lambda: again.assign(X.astype(np.float64)))
    np.testing.assert_array_equal(kept.cluster, found.labels)
    np.testing.assert_array_equal(kept.confidence, found.confidence)
    noise = np.flatnonzero(found.labels == NOISE)
    labels, membership = soft_membership(found.parameters, rows=noise)
    in_sample = np.isin(noise, found.parameters["sample"])
    assert (labels[~in_sample] == NOISE).all()
    assert (labels[in_sample] != NOISE).all()
    assert membership[in_sample].max() > 0
    assert "sampled" not in fitted(X, HdbscanConfig())[0].options  # type: ignore[union-attr]


def test_a_sample_below_min_samples_is_refused() -> None:
    assert "cluster.sample_rows=10 must be above cluster.min_samples=10" in str(
        HdbscanConfig(sample_rows=10).complaint()
    )
