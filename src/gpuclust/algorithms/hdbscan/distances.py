"""Exact distances for a spanning tree that another library found with rounded ones: core distances and lengths of edges in float64.

The functions take the array module from their arrays, so they run on a GPU and on a CPU. cuML computes distances in float32 as
|a|² + |b|² - 2ab: identical rows need not be at distance 0, and near rows are off by about 1e-3 of the spread of the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpuclust.runtime.backend import Array
from gpuclust.runtime.passes import xp_of

PAIRS = 1 << 24
"""Pairs of rows whose distances are computed at once: three float64 arrays of 128 MB."""


def core_distances(X: Array, neighbours: Array, min_samples: int, start: int = 0) -> Array:
    """The distance of rows to their ``min_samples``-th other row: (m,) float64.

    X (n, d) are all rows; ``neighbours`` (m, k) are candidates for the nearest rows of the rows from ``start`` on, in any order, each row
    among its own candidates; k is above ``min_samples``.
    """
    xp = xp_of(X)
    m, k = neighbours.shape
    core = xp.empty(m, dtype=xp.float64)
    for first, last in _steps(m, k):
        near = neighbours[first:last]
        squares = xp.zeros(near.shape, dtype=xp.float64)
        for j in range(X.shape[1]):
            column = X[:, j].astype(xp.float64)
            squares += (column[near] - column[start + first : start + last, None]) ** 2
        squares.sort(axis=1)
        core[first:last] = xp.sqrt(squares[:, min_samples])
    return core


def reachability(X: Array, a: Array, b: Array, core: Array) -> Array:
    """The mutual reachability distance of pairs of rows, (m,) float64: the distance of the rows ``a`` and ``b`` (m,) int64 of X (n, d),
    at least the core distance (n,) of each."""
    xp = xp_of(X)
    lengths = xp.maximum(core[a], core[b])
    for first, last in _steps(len(a), 1):
        squares = xp.zeros(last - first, dtype=xp.float64)
        for j in range(X.shape[1]):
            column = X[:, j].astype(xp.float64)
            squares += (column[a[first:last]] - column[b[first:last]]) ** 2
        lengths[first:last] = xp.maximum(lengths[first:last], xp.sqrt(squares))
    return lengths


def _steps(n_rows: int, pairs_per_row: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows of at most `PAIRS` pairs."""
    step = max(PAIRS // pairs_per_row, 1)
    for first in range(0, n_rows, step):
        yield first, min(first + step, n_rows)
