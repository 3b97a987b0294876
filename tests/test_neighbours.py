"""The nearest rows against every distance computed, on values with and without ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.compute.kernels.kd_tree import build_kdtree
from gpuclust.compute.kernels.leaves import Leaves
from gpuclust.compute.kernels.neighbours import first_no_sparser, nearest_rows


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
    rows, squared = nearest_rows(Leaves(build_kdtree(X)), k)
    np.testing.assert_array_equal(squared, by_hand(X, k))
    np.testing.assert_array_equal(((X[rows] - X[:, None]) ** 2).sum(axis=2), squared)
    assert all(len(set(own)) == k for own in rows.tolist())


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("n_features", [3, 11, 24])
def test_values_of_any_size_and_place(n_features: int, offset: float) -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(1_500, n_features)) * 10.0 ** rng.integers(-3, 4, n_features) + offset).astype(np.float32)
    _, squared = nearest_rows(Leaves(build_kdtree(X)), 9)
    np.testing.assert_allclose(squared, by_hand(X, 9), rtol=1e-5)


def test_neighbours_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(1).integers(0, 6, size=(3_000, 4)).astype(np.float32)
    several = nearest_rows(Leaves(build_kdtree(X)), 12)
    monkeypatch.setattr("gpuclust.compute.kernels.nearest.get_num_threads", lambda: 1)
    for found, expected in zip(nearest_rows(Leaves(build_kdtree(X)), 12), several, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_first_no_sparser_row_by_hand() -> None:
    """Rows on a line; the core distance is that to the second neighbour."""
    X = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]], np.float32)
    leaves = Leaves(build_kdtree(X))
    rows, squared = nearest_rows(leaves, 4)
    core = squared[:, 2]
    assert core.tolist() == [9.0, 4.0, 9.0, 36.0, 144.0]
    # 0 meets 1 first (4 <= 9); 1 meets no sparser row among 0 and 2; 2 meets 1; 3 meets 2; 4 meets 3.
    assert first_no_sparser(leaves, rows, squared, core, 3).tolist() == [1, -1, 1, 2, 3]
