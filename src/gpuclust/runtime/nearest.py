"""The nearest centre of every row: the tiles and micro-kernels that the Lloyd pass, k-means++ and `nearest_two` share.

Rows are stored in tiles of ROWS rows, transposed, so that each instruction works on neighbouring rows of one feature while the
centres are broadcast. A micro-kernel processes four centres at once, which keeps their coordinates in registers; its inner loop
has a constant length, so LLVM vectorises it without a remainder. In the micro-kernels a tile is (n_features * ROWS,), float32 or
float64, the centres (n_padded * n_features,) of its dtype, and values of four centres (GROUP * ROWS,).

The kernels are serial and release the interpreter's lock; `gpuclust.runtime.threads` runs them in threads. That, loops instead of
array expressions, and flat arrays keep the compile time short.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpuclust.runtime.jit import compiled
from gpuclust.runtime.threads import in_threads

ROWS = 256  # of a tile: 16 features of one tile in float32 fill 16 KB, a third of a first-level cache
GROUP = 4  # centres of a micro-kernel
UNROLLED = (
    16  # features of `nearest_of_four`: 1.7 times as fast at three, 1.1 at sixteen, and slower from about twenty on
)
FAR = 3e38  # larger than any score, but finite: the kernels are compiled without infinity


def workspace(size: int, dtype: type) -> np.ndarray:
    """Zeros (size,) that start on a cache line, for aligned vector loads."""
    item = np.dtype(dtype).itemsize
    raw: np.ndarray = np.zeros(size + 64 // item, dtype)
    first = -(raw.ctypes.data // item) % (64 // item)
    return raw[first : first + size]


@compiled(inner=True)
def _scores_four(scores, tile, centers, at, step):  # type: ignore[no-untyped-def]
    """scores -= x·c over four features."""
    a0, a1, a2, a3 = centers[at], centers[at + 1], centers[at + 2], centers[at + 3]
    at += step
    b0, b1, b2, b3 = centers[at], centers[at + 1], centers[at + 2], centers[at + 3]
    at += step
    c0, c1, c2, c3 = centers[at], centers[at + 1], centers[at + 2], centers[at + 3]
    at += step
    d0, d1, d2, d3 = centers[at], centers[at + 1], centers[at + 2], centers[at + 3]
    for r in range(ROWS):
        x0, x1, x2, x3 = tile[r], tile[ROWS + r], tile[2 * ROWS + r], tile[3 * ROWS + r]
        scores[r] = scores[r] - x0 * a0 - x1 * a1 - x2 * a2 - x3 * a3
        scores[ROWS + r] = scores[ROWS + r] - x0 * b0 - x1 * b1 - x2 * b2 - x3 * b3
        scores[2 * ROWS + r] = scores[2 * ROWS + r] - x0 * c0 - x1 * c1 - x2 * c2 - x3 * c3
        scores[3 * ROWS + r] = scores[3 * ROWS + r] - x0 * d0 - x1 * d1 - x2 * d2 - x3 * d3


@compiled(inner=True)
def _scores_one(scores, tile, centers, at, step):  # type: ignore[no-untyped-def]
    """scores -= x·c over one feature."""
    a, b, c, d = centers[at], centers[at + step], centers[at + 2 * step], centers[at + 3 * step]
    for r in range(ROWS):
        x = tile[r]
        scores[r] = scores[r] - x * a
        scores[ROWS + r] = scores[ROWS + r] - x * b
        scores[2 * ROWS + r] = scores[2 * ROWS + r] - x * c
        scores[3 * ROWS + r] = scores[3 * ROWS + r] - x * d


@compiled(inner=True)
def fill_scores(scores, tile, centers, half_norms, first, n_features):  # type: ignore[no-untyped-def]
    """|c|²/2 - x·c, which orders centres as their distances do, for one tile and four centres from `first` on."""
    a, b, c, d = half_norms[first], half_norms[first + 1], half_norms[first + 2], half_norms[first + 3]
    for r in range(ROWS):
        scores[r] = a
        scores[ROWS + r] = b
        scores[2 * ROWS + r] = c
        scores[3 * ROWS + r] = d
    at = first * n_features
    f = 0
    while f + 4 <= n_features:
        _scores_four(scores, tile[f * ROWS : (f + 4) * ROWS], centers, at + f, n_features)
        f += 4
    while f < n_features:
        _scores_one(scores, tile[f * ROWS : (f + 1) * ROWS], centers, at + f, n_features)
        f += 1


@compiled(inner=True)
def _squares_one(squares, tile, centers, at, step):  # type: ignore[no-untyped-def]
    a, b, c, d = centers[at], centers[at + step], centers[at + 2 * step], centers[at + 3 * step]
    for r in range(ROWS):
        x = tile[r]
        squares[r] += (x - a) * (x - a)
        squares[ROWS + r] += (x - b) * (x - b)
        squares[2 * ROWS + r] += (x - c) * (x - c)
        squares[3 * ROWS + r] += (x - d) * (x - d)


@compiled(inner=True)
def fill_squares(squares, tile, centers, first, n_features):  # type: ignore[no-untyped-def]
    """(x - c)² of four centres, summed feature after feature, so that a row does not depend on its neighbours."""
    for r in range(GROUP * ROWS):
        squares[r] = 0
    for f in range(n_features):
        _squares_one(squares, tile[f * ROWS : (f + 1) * ROWS], centers, first * n_features + f, n_features)


@compiled(inner=True)
def reset_best_two(best_two, nearest):  # type: ignore[no-untyped-def]
    """Forget the least scores of each row of a tile, best_two (2 * ROWS,), and its nearest centre (ROWS,) int32."""
    for r in range(ROWS):
        best_two[r] = FAR
        best_two[ROWS + r] = FAR
        nearest[r] = 0


@compiled(inner=True)
def update_best_two(values, best_two, nearest, first):  # type: ignore[no-untyped-def]
    """Merge the values (GROUP * ROWS,) of four centres, from `first` on, into the two least; the lower index wins a tie."""
    i0, i1, i2, i3 = np.int32(first), np.int32(first + 1), np.int32(first + 2), np.int32(first + 3)
    for r in range(ROWS):
        low, high, index = best_two[r], best_two[ROWS + r], nearest[r]
        value = values[r]
        index = i0 if value < low else index
        high = min(high, max(low, value))
        low = min(low, value)
        value = values[ROWS + r]
        index = i1 if value < low else index
        high = min(high, max(low, value))
        low = min(low, value)
        value = values[2 * ROWS + r]
        index = i2 if value < low else index
        high = min(high, max(low, value))
        low = min(low, value)
        value = values[3 * ROWS + r]
        index = i3 if value < low else index
        high = min(high, max(low, value))
        low = min(low, value)
        best_two[r], best_two[ROWS + r], nearest[r] = low, high, index


@compiled(inner=True)
def nearest_of_four(tile, centers, half_norms, first, features, best_two, nearest, c):  # type: ignore[no-untyped-def]
    """`fill_scores` and `update_best_two` in registers, for features whose number the compiler knows (see `unrolled`)."""
    n_features = len(features)
    at = first * n_features
    to_0, to_1 = centers[at : at + n_features], centers[at + n_features : at + 2 * n_features]
    to_2, to_3 = centers[at + 2 * n_features : at + 3 * n_features], centers[at + 3 * n_features : at + 4 * n_features]
    n0, n1, n2, n3 = half_norms[first], half_norms[first + 1], half_norms[first + 2], half_norms[first + 3]
    i0, i1, i2, i3 = np.int32(c), np.int32(c + 1), np.int32(c + 2), np.int32(c + 3)
    for r in range(ROWS):
        v0, v1, v2, v3 = n0, n1, n2, n3
        for f in range(n_features):
            x = tile[f * ROWS + r]
            v0 -= x * to_0[f]
            v1 -= x * to_1[f]
            v2 -= x * to_2[f]
            v3 -= x * to_3[f]
        low, high, index = best_two[r], best_two[ROWS + r], nearest[r]
        index = i0 if v0 < low else index
        high = min(high, max(low, v0))
        low = min(low, v0)
        index = i1 if v1 < low else index
        high = min(high, max(low, v1))
        low = min(low, v1)
        index = i2 if v2 < low else index
        high = min(high, max(low, v2))
        low = min(low, v2)
        index = i3 if v3 < low else index
        high = min(high, max(low, v3))
        low = min(low, v3)
        best_two[r], best_two[ROWS + r], nearest[r] = low, high, index


def unrolled(n_features: int) -> tuple[int, ...]:
    """A tuple whose length, a part of its type, tells the compiler the number of features; empty where that is too many
    for the registers."""
    return (0,) * n_features if n_features <= UNROLLED else ()


class AssignWorkspace(NamedTuple):
    """Arrays that one thread of `_assign` writes to."""

    tile: np.ndarray  # (n_features * ROWS,) float64
    squares: np.ndarray  # (GROUP * ROWS,) float64
    best_two: np.ndarray  # (2 * ROWS,) float64
    nearest: np.ndarray  # (ROWS,) int32


class Assignment(NamedTuple):
    """The two nearest centres of every row."""

    labels: np.ndarray  # (n_samples,) int32, the nearest centre
    first: np.ndarray  # (n_samples,) float64, the distance to it
    second: np.ndarray  # (n_samples,) float64, the distance to the second nearest


@compiled()
def _assign(X, centers, n_clusters, start, stop, workspace, out):  # type: ignore[no-untyped-def]
    """Fill `out` from row start to row stop; centers is (n_padded * n_features,) float64, X float32 or float64."""
    tile, squares, best_two, nearest = workspace
    labels, first, second = out
    n_features = X.shape[1]
    for t in range(start, stop, ROWS):
        n = min(ROWS, stop - t)
        for r in range(n):
            for f in range(n_features):
                tile[f * ROWS + r] = X[t + r, f]
        reset_best_two(best_two, nearest)
        for c in range(0, n_clusters, GROUP):
            fill_squares(squares, tile, centers, c, n_features)
            for i in range((n_clusters - c) * ROWS, GROUP * ROWS):
                squares[i] = FAR
            update_best_two(squares, best_two, nearest, c)
        for r in range(n):
            labels[t + r] = nearest[r]
            first[t + r] = math.sqrt(best_two[r])
            second[t + r] = math.sqrt(best_two[ROWS + r])


def padded(centers: np.ndarray) -> np.ndarray:
    """Centres in a whole number of groups, the missing ones at the origin."""
    missing = -len(centers) % GROUP
    return np.concatenate([centers, np.zeros((missing, centers.shape[1]), centers.dtype)])


def nearest_two(X: np.ndarray, centers: np.ndarray) -> Assignment:
    """Labels (int32) and the distances (float64) to the nearest and the second nearest of `centers`.

    X is (n_samples, n_features), C-contiguous float32 or float64; centers is (n_clusters, n_features) float64. Every
    row is computed in float64 by the same operations whatever rows stand beside it. A tie goes to the lower index;
    with one centre the second distance is infinite.
    """
    n_rows, n_features = X.shape
    out = Assignment(np.empty(n_rows, np.int32), np.empty(n_rows), np.empty(n_rows))
    flat = padded(centers).ravel()

    def run(start: int, stop: int) -> None:
        arrays = AssignWorkspace(
            workspace(n_features * ROWS, np.float64), workspace(GROUP * ROWS, np.float64),
            workspace(2 * ROWS, np.float64), workspace(ROWS, np.int32),
        )  # fmt: skip
        _assign(X, flat, len(centers), start * ROWS, min(stop * ROWS, n_rows), arrays, out)

    in_threads(-(-n_rows // ROWS), run)
    if len(centers) == 1:
        out.second[:] = np.inf
    return out
