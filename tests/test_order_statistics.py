"""Order statistics of blocks against NumPy's sorting: exact, whatever the values, the groups and the bits of a read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.runtime import blocks as blocks_module
from gpuclust.runtime import order_statistics as module
from gpuclust.runtime.blocks import BLOCK_ROWS, DiskWriter, MemoryBlocks
from gpuclust.runtime.order_statistics import medians, order_statistics, quantiles

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


def awkward(n: int, seed: int = 0) -> np.ndarray:
    """Columns of ties, zeros of both signs, negative, tiny and huge numbers."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.normal(size=n),
            rng.integers(-2, 3, n).astype(np.float64),
            np.where(rng.random(n) < 0.5, -0.0, 0.0),
            -np.exp(rng.normal(size=n) * 50),
            rng.choice([5e-324, -5e-324, 1.7e308, -1.7e308, 1e-300], n),
            np.full(n, 0.1),
        ]
    )


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 1001, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 4])
def test_medians_and_quantiles_are_numpys(n: int) -> None:
    X = awkward(n)
    X[:, 4] /= 4  # NumPy's median of the two largest would overflow
    blocks = MemoryBlocks(X)
    np.testing.assert_array_equal(medians(blocks), np.median(X, axis=0))
    np.testing.assert_array_equal(quantiles(blocks, SHARES), np.quantile(X, SHARES, axis=0))


def test_ranks_are_those_of_the_sorted_rows() -> None:
    X = awkward(5000)
    ranks = np.array([4999, 0, 17, 17, 2500])
    np.testing.assert_array_equal(order_statistics(MemoryBlocks(X), ranks), np.sort(X, axis=0)[ranks])


@pytest.mark.parametrize("counters_bytes", [module.COUNTERS_BYTES, 1])
def test_groups_have_their_own_and_an_empty_one_has_none(counters_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNTERS_BYTES", counters_bytes)  # 1: four bits a read
    X = awkward(BLOCK_ROWS + 3000)[:, :4]
    labels = np.random.default_rng(1).integers(-1, 5, len(X)).astype(np.int32)
    labels[labels == 2] = 4
    found = medians(MemoryBlocks(X), labels, 6)
    thirds = quantiles(MemoryBlocks(X), (1 / 3,), labels, 6)
    assert found.shape == (6, 4)
    for c in range(6):
        if c in (2, 5):
            assert np.isnan(found[c]).all()
            assert np.isnan(thirds[c]).all()
        else:
            np.testing.assert_array_equal(found[c], np.median(X[labels == c], axis=0))
            np.testing.assert_array_equal(thirds[c, 0], np.quantile(X[labels == c], 1 / 3, axis=0))


def test_the_disk_gives_the_same(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(blocks_module, "RUN_BLOCKS", 1)
    X = awkward(2 * BLOCK_ROWS + 5)[:, :3]
    writer = DiskWriter(tmp_path / "x", 3, np.float64)
    writer.append(X)
    np.testing.assert_array_equal(quantiles(writer.close(), SHARES), np.quantile(X, SHARES, axis=0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60), st.data())
def test_any_rank_of_any_numbers(values: list[float], data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, len(values) - 1))
    X = np.array(values)[:, None]
    assert order_statistics(MemoryBlocks(X), np.array([rank]))[0, 0] == sorted(values)[rank]
