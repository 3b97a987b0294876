"""The nearest rows against every distance computed, on values with and without ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.algorithms.hdbscan.kd_tree import build_kdtree
from gpuclust.algorithms.hdbscan.knn import first_denser_neighbour, nearest_rows
from gpuclust.algorithms.hdbscan.leaf_tiles import leaf_tiles


def by_hand(X: np.ndarray, k: int) -> np.ndarray:
    """The k least of every row's squared distances, in float64."""
    return np.sort(((X[:, None].astype(np.float64) - X[None]) ** 2).sum(axis=2), axis=1)[:, :k]


@given(
    st.integers(2, 400),
    st.sampled_from([1, 2, 3, 5, 16, 40]),
    st.integers(1, 60),
    st.integers(0, 2**16),
)
@settings(max_examples=60)
def test_neighbours_are_those_of_all_distances(n_rows: int, n_features: int, k: int, seed: int) -> None:
    k = min(k, n_rows)
    # Whole numbers: float32 computes their distances without rounding, and nearly all of them are shared.
    X = np.random.default_rng(seed).integers(-4, 5, size=(n_rows, n_features)).astype(np.float32)
    rows, squared = nearest_rows(leaf_tiles(build_kdtree(X)), k)
    np.testing.assert_array_equal(squared, by_hand(X, k))
    np.testing.assert_array_equal(((X[rows] - X[:, None]) ** 2).sum(axis=2), squared)
    assert all(len(set(own)) == k for own in rows.tolist())


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("n_features", [3, 11, 24])
def test_values_of_any_size_and_place(n_features: int, offset: float) -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(1_500, n_features)) * 10.0 ** rng.integers(-3, 4, n_features) + offset).astype(np.float32)
    _, squared = nearest_rows(leaf_tiles(build_kdtree(X)), 9)
    np.testing.assert_allclose(squared, by_hand(X, 9), rtol=1e-5)


def test_neighbours_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(1).integers(0, 6, size=(3_000, 4)).astype(np.float32)
    several = nearest_rows(leaf_tiles(build_kdtree(X)), 12)
    monkeypatch.setattr("gpuclust.runtime.threads.get_num_threads", lambda: 1)
    for found, expected in zip(nearest_rows(leaf_tiles(build_kdtree(X)), 12), several, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_first_no_sparser_row_by_hand() -> None:
    """Rows on a line; the core distance is that to the second neighbour."""
    X = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]], np.float32)
    leaves = leaf_tiles(build_kdtree(X))
    rows, squared = nearest_rows(leaves, 4)
    core = squared[:, 2]
    assert core.tolist() == [9.0, 4.0, 9.0, 36.0, 144.0]
    # 0 meets 1 first (4 <= 9); 1 meets no sparser row among 0 and 2; 2 meets 1; 3 meets 2; 4 meets 3.
    assert first_denser_neighbour(leaves, rows, squared, core, 3).tolist() == [1, -1, 1, 2, 3]


@pytest.mark.parametrize("values", [3, 50, None])
@pytest.mark.parametrize("n_rows", [1, 2, 41, 81, 5_000])
def test_the_tree_is_fast_hdbscans_to_the_order_of_its_rows(n_rows: int, values: int | None) -> None:
    from fast_hdbscan.numba_kdtree import build_kdtree as reference

    rng = np.random.default_rng(n_rows)
    X = rng.normal(size=(n_rows, 3)) if values is None else rng.integers(0, values, size=(n_rows, 3))
    X = np.ascontiguousarray(X, np.float32)
    ours, theirs = build_kdtree(X), reference(X)
    np.testing.assert_array_equal(ours.rows, theirs.idx_array)
    filled = ours.ends > ours.starts
    np.testing.assert_array_equal(filled, theirs.idx_end > theirs.idx_start)
    np.testing.assert_array_equal(ours.is_leaf[filled], theirs.is_leaf[filled])
    np.testing.assert_array_equal(ours.starts[filled], theirs.idx_start[filled])
    np.testing.assert_array_equal(ours.lower[filled], theirs.node_bounds[0][filled])
    np.testing.assert_array_equal(ours.upper[filled], theirs.node_bounds[1][filled])


def test_an_order_that_halves_nothing_is_sorted() -> None:
    """Musser's killer of medians of three: each pivot takes two rows off, until the heap takes over, as in fast_hdbscan."""
    from fast_hdbscan.numba_kdtree import build_kdtree as reference

    half = 2_048
    killer = np.empty(2 * half, np.float32)
    odd = np.arange(1, half + 1, 2)
    killer[odd - 1], killer[odd], killer[half:] = odd, half + odd, 2 * np.arange(1, half + 1)
    np.testing.assert_array_equal(build_kdtree(killer[:, None]).rows, reference(killer[:, None]).idx_array)
