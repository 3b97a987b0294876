"""Sums over the rows of each cluster on a GPU, in one pass each: columns, products of columns, and distances to the means.

The rows are sorted by cluster on the device. A block adds up a *segment*: at most `SEGMENT` sorted rows of one cluster, so that each of its
threads keeps its sums in registers. A second kernel adds the segments of each cluster, in a fixed order. There are no atomics, and a result
is the same in every run. All sums are float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float64, uint32, uint64

from gpuclust.model.records import NOISE
from gpuclust.runtime.jit import ignore_small_grid_warnings
from gpuclust.runtime.jit_cuda import cuda_kernel

THREADS = 256  # of a block, at most
SEGMENT = 1024  # sorted rows of one block, at most
TILE_ROWS = 32  # rows in shared memory, of `products`
MERGED = 32  # sums that one block of the merge adds up, each in THREADS / MERGED parts


@dataclass(frozen=True)
class SortedRows:
    """The rows of a matrix in the order of their clusters, noise first.

    On the device: ``labels`` (n_rows,) int32; ``order`` (n_rows,) int64, the numbers of the sorted rows; ``segments`` (n_segments, 3) int64,
    the first row, the end and the group of each segment; ``first`` (n_clusters + 2,) int64, the first segment of each group. Group 0 is the
    noise, group c + 1 is cluster c. ``sizes`` (n_clusters + 1,) int64 are the rows of each group, on the host.
    """

    sizes: np.ndarray
    labels: Any
    order: Any
    segments: Any
    first: Any

    @property
    def n_groups(self) -> int:
        """The number of clusters, and one for the noise."""
        return len(self.sizes)


def sort_rows(labels: np.ndarray, n_clusters: int, xp: Any) -> SortedRows:
    """Sort the rows of labels (n_rows,) int32 on the host, -1 for noise. ``xp`` is cupy, or numpy in the simulator. The labels are the
    only large upload."""
    sizes = np.bincount(labels - NOISE, minlength=n_clusters + 1)
    on_device = xp.asarray(labels)
    order = xp.argsort(on_device, kind="stable")
    ends = np.cumsum(sizes)
    n_segments = -(-sizes // SEGMENT)
    first = np.concatenate([[0], np.cumsum(n_segments)])
    group = np.repeat(np.arange(len(sizes)), n_segments)
    start = (ends - sizes)[group] + (np.arange(len(group)) - first[group]) * SEGMENT
    segments = np.stack([start, np.minimum(start + SEGMENT, ends[group]), group], axis=1)
    return SortedRows(sizes, on_device, order, cuda.to_device(segments), cuda.to_device(first))


def column_sums(X: Any, rows: SortedRows, centers: np.ndarray) -> np.ndarray:
    """For each group the sums of its rows less its centre, and of the squares of these differences: (n_groups, 2, n_columns).

    X (n_rows, n_columns) float32 or float64 on the device; ``centers`` (n_groups, n_columns) float64 on the host.
    """
    n_columns = X.shape[1]
    lanes = min(n_columns, THREADS)
    partial = cuda.device_array((len(rows.segments), 2 * n_columns), np.float64)
    grid = (len(rows.segments), -(-n_columns // lanes))
    with ignore_small_grid_warnings():
        _column_kernel(THREADS)[grid, lanes * (THREADS // lanes)](
            X, rows.order, rows.segments, cuda.to_device(centers), lanes, partial
        )
    return _merged(partial, rows).reshape(-1, 2, n_columns)


def products(X: Any, rows: SortedRows, origin: np.ndarray) -> np.ndarray:
    """For each group the products of its rows about ``origin`` (n_columns,), with a column of ones added at the end.

    X (n_rows, n_columns) float32 or float64 on the device, few columns (`grouped_sums.MAX_COLUMNS`). The result (n_groups, n_columns + 1,
    n_columns + 1) holds the sums of the columns in its last row, and the number of rows in its corner.
    """
    width = X.shape[1] + 1
    n_cells = width * (width + 1) // 2
    lanes = min(n_cells, THREADS)
    partial = cuda.device_array((len(rows.segments), n_cells), np.float64)
    with ignore_small_grid_warnings():
        _product_kernel(X.shape[1], THREADS, TILE_ROWS)[len(rows.segments), lanes * (THREADS // lanes)](
            X, rows.order, rows.segments, cuda.to_device(origin), partial
        )
    merged = _merged(partial, rows)
    found = np.empty((rows.n_groups, width, width))
    i, j = np.triu_indices(width)
    found[:, i, j] = found[:, j, i] = merged
    return found


def spreads(X: Any, rows: SortedRows, centers: np.ndarray) -> np.ndarray:
    """For each group the sums of the distances of its rows from its centre, and of their squares: (n_groups, 2).

    X (n_rows, n_columns) float32 or float64 on the device; ``centers`` (n_groups, n_columns) float64 on the host.
    """
    partial = cuda.device_array((len(rows.segments), 2), np.float64)
    with ignore_small_grid_warnings():
        _spread_kernel(THREADS)[len(rows.segments), THREADS](
            X, rows.order, rows.segments, cuda.to_device(centers), partial
        )
    return _merged(partial, rows)


def _merged(partial: Any, rows: SortedRows) -> np.ndarray:
    """The sums (n_groups, n_cells) of those of the segments (n_segments, n_cells)."""
    merged = cuda.device_array((rows.n_groups, partial.shape[1]), np.float64)
    with ignore_small_grid_warnings():
        _merge_kernel(THREADS, MERGED)[(rows.n_groups, -(-partial.shape[1] // MERGED)), THREADS](
            partial, rows.first, merged
        )
    return merged.copy_to_host()


@cache
def _column_kernel(threads: int) -> Any:
    """The kernel of `column_sums`: a thread adds up one column of each of the rows of its part."""

    @cuda_kernel()
    def add_columns(X, order, segments, centers, lanes, partial):  # type: ignore[no-untyped-def]
        """partial[segment] = the sums of the columns of its rows less the centre of its group, and then those of the squares."""
        shared = cuda.shared.array(threads, float64)
        shared_squares = cuda.shared.array(threads, float64)
        t, segment = cuda.threadIdx.x, uint32(cuda.blockIdx.x)
        part, lane, parts = t // lanes, t % lanes, cuda.blockDim.x // lanes
        column = cuda.blockIdx.y * lanes + lane
        total, squares = 0.0, 0.0
        if column < X.shape[1]:
            center = centers[uint32(segments[segment, uint32(2)]), uint32(column)]
            at, end = uint64(segments[segment, uint32(0)] + part), uint64(segments[segment, uint32(1)])
            while at < end:
                difference = X[uint64(order[at]), uint32(column)] - center
                total += difference
                squares += difference * difference
                at += uint64(parts)
        shared[t], shared_squares[t] = total, squares
        cuda.syncthreads()
        if part == 0 and column < X.shape[1]:
            for p in range(1, parts):
                total += shared[uint32(p * lanes + t)]
                squares += shared_squares[uint32(p * lanes + t)]
            partial[segment, uint32(column)] = total
            partial[segment, uint32(X.shape[1] + column)] = squares

    return add_columns


@cache
def _product_kernel(n_columns: int, threads: int, tile_rows: int) -> Any:
    """The kernel of `products`: a thread adds up some products of each of the rows of its part."""
    width = n_columns + 1
    n_cells = width * (width + 1) // 2
    n_tile = tile_rows * width
    lanes = min(n_cells, threads)
    parts = threads // lanes
    each = -(-n_cells // lanes)  # products of a thread

    @cuda_kernel()
    def add_products(X, order, segments, origin, partial):  # type: ignore[no-untyped-def]
        """partial[segment] = the upper triangle, row after row, of the products of its rows about the origin."""
        tile = cuda.shared.array(n_tile, float64)
        shared = cuda.shared.array(threads, float64)
        total = cuda.local.array(each, float64)
        left = cuda.local.array(each, uint32)
        right = cuda.local.array(each, uint32)
        t, segment = cuda.threadIdx.x, uint32(cuda.blockIdx.x)
        part, lane = t // lanes, t % lanes
        for a in range(each):
            total[a] = 0.0
            i, cell = 0, min(lane + a * lanes, n_cells - 1)
            while cell >= width - i:
                cell -= width - i
                i += 1
            left[a], right[a] = uint32(i), uint32(i + cell)
        start, stop = segments[segment, uint32(0)], segments[segment, uint32(1)]
        for first in range(start, stop, tile_rows):
            n_values = uint32(min(tile_rows, stop - first) * width)
            at = uint32(t)
            while at < n_values:
                row = uint32(at // uint32(width))
                f = uint32(at - row * uint32(width))
                if f < uint32(n_columns):
                    tile[at] = X[uint64(order[uint64(first) + uint64(row)]), f] - origin[f]
                else:
                    tile[at] = 1.0
                at = uint32(at + uint32(lanes * parts))
            cuda.syncthreads()
            at = uint32(part * width)
            while at < n_values:
                for a in range(each):
                    total[a] += tile[at + left[a]] * tile[at + right[a]]
                at = uint32(at + uint32(parts * width))
            cuda.syncthreads()
        shared[t] = total[0]
        cuda.syncthreads()
        if part == 0:
            for p in range(1, parts):  # where a thread has several products, there is one part
                total[0] += shared[uint32(p * lanes + t)]
            for a in range(each):
                if lane + a * lanes < n_cells:
                    partial[segment, uint32(lane + a * lanes)] = total[a]

    return add_products


@cache
def _spread_kernel(threads: int) -> Any:
    """The kernel of `spreads`: a thread takes some rows."""

    @cuda_kernel()
    def add_distances(X, order, segments, centers, partial):  # type: ignore[no-untyped-def]
        """partial[segment] = the sum of the distances of its rows from the centre of its group, and that of their squares."""
        shared = cuda.shared.array(threads, float64)
        shared_squares = cuda.shared.array(threads, float64)
        t, segment = cuda.threadIdx.x, uint32(cuda.blockIdx.x)
        group = uint32(segments[segment, uint32(2)])
        at, end = uint64(segments[segment, uint32(0)] + t), uint64(segments[segment, uint32(1)])
        total, squares = 0.0, 0.0
        while at < end:
            row, square = uint64(order[at]), 0.0
            for f in range(X.shape[1]):
                difference = X[row, uint32(f)] - centers[group, uint32(f)]
                square += difference * difference
            total += math.sqrt(square)
            squares += square
            at += uint64(threads)
        shared[t], shared_squares[t] = total, squares
        cuda.syncthreads()
        half = threads // 2
        while half > 0:
            if t < half:
                shared[t] += shared[t + half]
                shared_squares[t] += shared_squares[t + half]
            cuda.syncthreads()
            half //= 2
        if t == 0:
            partial[segment, uint32(0)] = shared[0]
            partial[segment, uint32(1)] = shared_squares[0]

    return add_distances


@cache
def _merge_kernel(threads: int, merged_cells: int) -> Any:
    """The kernel that adds up the segments of a group: each of ``merged_cells`` sums by several threads."""
    parts = threads // merged_cells

    @cuda_kernel()
    def add_segments(partial, first, merged):  # type: ignore[no-untyped-def]
        """merged[group] = the sum of partial[first[group]:first[group + 1]]."""
        shared = cuda.shared.array(threads, float64)
        t, group = cuda.threadIdx.x, uint32(cuda.blockIdx.x)
        part, cell = t // merged_cells, cuda.blockIdx.y * merged_cells + t % merged_cells
        total = 0.0
        if cell < partial.shape[1]:
            at, end = uint64(first[group] + part), uint64(first[group + uint32(1)])
            while at < end:
                total += partial[at, uint32(cell)]
                at += uint64(parts)
        shared[t] = total
        cuda.syncthreads()
        if part == 0 and cell < partial.shape[1]:
            for p in range(1, parts):
                total += shared[uint32(p * merged_cells + t)]
            merged[group, uint32(cell)] = total

    return add_segments
