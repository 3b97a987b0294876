"""HDBSCAN on a GPU, as far as a machine without one shows it: exact lengths of a rounded tree, and which tree is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.hdbscan import distances as exact
from gpuclust.algorithms.hdbscan.cpu import build_tree, fit_cuts, is_exact
from gpuclust.algorithms.hdbscan.fit import SpanningTree, extract_clusters, spanning_tree, tree_from_edges
from gpuclust.algorithms.registry import FitInput
from gpuclust.runtime.blocks import MemoryBlocks
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    """Rows in three groups far from zero, with repeated rows: (600, 5) float32."""
    rng = np.random.default_rng(0)
    centers = rng.normal(scale=4, size=(3, 5)) + 50
    X = np.concatenate([rng.normal(size=(180, 5)) + center for center in centers]).astype(np.float32)
    return np.concatenate([X, np.repeat(X[:6], 10, axis=0)])


def rounded(X: np.ndarray) -> np.ndarray:
    """Distances as cuML computes them: the root of |a|² + |b|² - 2ab in float32, of rows about their mean."""
    Z = (X - X.mean(axis=0, dtype=np.float64)).astype(np.float32)
    norms = (Z * Z).sum(axis=1, dtype=np.float32)
    squares = norms[:, None] + norms - np.float32(2) * (Z @ Z.T)
    return np.sqrt(np.maximum(squares, 0)).astype(np.float32)


def cuml_tree(X: np.ndarray, min_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges (n-1, 3) of cuML's tree, by its rounded distances, and the nearest rows of each row as it finds them."""
    n, distance = len(X), rounded(X)
    near = np.argsort(distance, axis=1, kind="stable")[:, : min_samples + 1]
    core = np.sort(distance, axis=1)[:, min_samples]
    weights = np.maximum(np.maximum(core[:, None], core), distance).astype(np.float64) + 1e-9
    tree = minimum_spanning_tree(coo_matrix(np.triu(weights, 1))).tocoo()
    assert tree.nnz == n - 1
    return np.column_stack([tree.row, tree.col, tree.data]), near


def refined(X: np.ndarray, min_samples: int) -> SpanningTree:
    """The tree that `gpuclust.algorithms.hdbscan.gpu.fit_tree` makes of cuML's."""
    edges, _ = cuml_tree(X, min_samples)
    _, near = cuml_tree(X, min_samples + 8)
    core = exact.core_distances(X, near, min_samples)
    ends = edges[:, :2].astype(np.int64)
    lengths = exact.reachability(X, ends[:, 0], ends[:, 1], core)
    return tree_from_edges(np.column_stack([ends, lengths]), core, min_samples)


@pytest.mark.parametrize("pairs", [exact.PAIRS, 100])
def test_core_distances_and_lengths_are_those_of_float64(X: np.ndarray, monkeypatch: Any, pairs: int) -> None:
    monkeypatch.setattr(exact, "PAIRS", pairs)  # 100: in many steps
    tree, distance = refined(X, 5), cdist(X.astype(np.float64), X.astype(np.float64))
    np.testing.assert_allclose(tree.core_distances, np.sort(distance, axis=1)[:, 5], rtol=1e-12)
    a, b = tree.edges[:, :2].astype(int).T
    wanted = np.maximum(np.maximum(tree.core_distances[a], tree.core_distances[b]), distance[a, b])
    np.testing.assert_allclose(tree.edges[:, 2], wanted, rtol=1e-12)


def test_repeated_rows_are_at_distance_zero_again(X: np.ndarray) -> None:
    edges, _ = cuml_tree(X, 5)
    assert (edges[:, 2] > 0).all()  # as rounding leaves them between equal rows
    tree, best = refined(X, 5), spanning_tree(X, min_samples=5)
    assert (tree.edges[:, 2] == 0).sum() == (best.edges[:, 2] == 0).sum() == 6 * 10
    assert (tree.core_distances == 0).sum() == (best.core_distances == 0).sum()


def test_the_tree_with_exact_lengths_gives_the_clusters_of_the_exact_tree(X: np.ndarray) -> None:
    found, wanted = (extract_clusters(t, min_cluster_size=60) for t in (refined(X, 5), spanning_tree(X, min_samples=5)))
    np.testing.assert_array_equal(found.labels, wanted.labels)
    assert found.relative_validity == pytest.approx(wanted.relative_validity, abs=1e-4)  # the CPU's lengths are float32


def test_core_distances_of_a_part_of_the_rows(X: np.ndarray) -> None:
    _, near = cuml_tree(X, 9)
    whole = exact.core_distances(X, near, 9)
    np.testing.assert_array_equal(exact.core_distances(X, near[100:250], 9, start=100), whole[100:250])


class Device(CpuBackend):
    """The CPU under the name of the GPU."""

    name = "gpu"


def given(X: np.ndarray, **options: Any) -> FitInput:
    return replace(FitInput(X, 0, Device(), ResultCache(), "matrix"), **options)


@pytest.mark.parametrize(("n_columns", "asked", "taken"), [
    (8, None, True), (9, None, False), (2, False, False), (40, True, True),
])  # fmt: skip
def test_the_exact_tree_is_taken_for_few_columns_or_where_it_is_asked_for(
    n_columns: int, asked: Any, taken: bool
) -> None:
    X, config = np.zeros((4, n_columns), np.float32), HdbscanConfig(exact=asked)
    assert is_exact(given(X), config) == taken
    assert is_exact(given(X, backend=CpuBackend()), config)
    assert is_exact(given(MemoryBlocks(X)), config)


def test_the_two_trees_are_kept_apart(X: np.ndarray) -> None:
    grown: list[bool | None] = []

    def grow(rows: np.ndarray, config: HdbscanConfig, progress: Any) -> SpanningTree:
        grown.append(config.exact)
        return build_tree(rows, config, progress)

    configs = [HdbscanConfig(min_samples=5, min_cluster_size=size, exact=e) for size in (20, 40) for e in (True, False)]
    fit_cuts(given(X), configs, grow)
    assert grown == [True, False]
    assert len({repr(c) for c in configs}) == 4
