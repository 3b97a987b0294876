"""Rows assigned to centres on the GPU, in float64 and by the same operations as `nearest.py` on a CPU, and the sums of their clusters.

The kernels take anything with a CUDA array interface; nothing here needs RAPIDS, so numba's CUDA simulator runs it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float64, int32, uint64

from gpuclust.runtime.backend import Array
from gpuclust.runtime.jit import ignore_small_grid_warnings
from gpuclust.runtime.jit_cuda import cuda_kernel

THREADS = 256
LANES, PARTS, CLUSTERS = 32, 4, 16  # of a block of `add_rows`: columns, parts of its rows, clusters
CELLS = CLUSTERS * PARTS * LANES  # sums of a block
MAX_RANGES = 512  # of rows, that blocks of `add_rows` add up separately
MAX_PARTIAL = 2**24  # sums of all ranges: 128 MiB


@dataclass(frozen=True)
class Assignment:
    """Rows assigned to the nearest of some centres; arrays (n_samples,) on the device."""

    labels: Array  # int32
    confidence: Array  # float32, 1 - d(own centre) / d(next centre); 1 with one centre
    distance: Array  # float32, to the own centre
    squares: Array  # float64, of these distances


@cache
def nearest_kernel(n_features: int) -> Any:
    """The kernel that assigns rows of this number of features."""

    @cuda_kernel()
    def assign_rows(X, centers, labels, confidence, distance, squares):  # type: ignore[no-untyped-def]
        """One thread a row: the two least squared distances, summed feature after feature; a tie keeps the lower index.

        X (n, d) float32 or float64, centers (k * d,) float64; the other arrays are those of an `Assignment`.
        """
        row = uint64(cuda.blockIdx.x) * uint64(cuda.blockDim.x) + uint64(cuda.threadIdx.x)
        if row >= uint64(X.shape[0]):
            return
        best, runner_up, label, source, c = math.inf, math.inf, int32(0), uint64(0), int32(0)
        while source < uint64(centers.shape[0]):
            square = 0.0
            for f in range(n_features):
                difference = X[row, uint64(f)] - centers[source + uint64(f)]
                square += difference * difference
            if square < best:
                best, runner_up, label = square, best, c
            elif square < runner_up:
                runner_up = square
            source += uint64(n_features)
            c = int32(c + int32(1))
        nearest, second = math.sqrt(best), math.sqrt(runner_up)
        labels[row] = label
        distance[row] = nearest
        confidence[row] = 1.0 - nearest / second if second > 0.0 else 0.0
        squares[row] = nearest * nearest

    return assign_rows


def assign(X: Array, centers: Array, xp: Any) -> Assignment:
    """Assign every row to the nearest centre.

    X (n_samples, n_features) float32 or float64 and centers (n_clusters, n_features) float64 are on the device, as
    are the results; ``xp`` is their module.
    """
    n_rows, n_features = X.shape
    labels = xp.empty(n_rows, dtype=np.int32)
    confidence, distance = xp.empty(n_rows, dtype=np.float32), xp.empty(n_rows, dtype=np.float32)
    squares = xp.empty(n_rows, dtype=np.float64)
    centers = xp.ascontiguousarray(centers).reshape(-1)
    with ignore_small_grid_warnings():
        nearest_kernel(n_features)[max(1, math.ceil(n_rows / THREADS)), THREADS](
            X, centers, labels, confidence, distance, squares
        )
    return Assignment(labels, confidence, distance, squares)


@cuda_kernel()
def add_rows(X, labels, origin, n_clusters, partial):  # type: ignore[no-untyped-def]
    """One block adds LANES columns of range blockIdx.x of the rows to the sums of CLUSTERS clusters.

    X (n, d) float32 or float64; labels (n,) int32; origin (d,) float64; partial (n_ranges, n_clusters, d + 1) float64: sums of the rows
    about the origin, and their number. A thread adds a column of a part of the rows, in their order, to sums that only it writes to.
    """
    own = cuda.shared.array(CELLS, float64)
    n_features = uint64(X.shape[1])
    t, part = uint64(cuda.threadIdx.x), uint64(cuda.threadIdx.x) // uint64(LANES)
    column = uint64(cuda.blockIdx.z) * uint64(LANES) + t % uint64(LANES)
    first = uint64(cuda.blockIdx.y) * uint64(CLUSTERS)
    cell = t
    while cell < uint64(CELLS):
        own[cell] = 0.0
        cell += uint64(PARTS * LANES)
    cuda.syncthreads()
    n_parts = uint64(cuda.gridDim.x) * uint64(PARTS)
    number = uint64(cuda.blockIdx.x) * uint64(PARTS) + part
    row, last = uint64(X.shape[0]) * number // n_parts, uint64(X.shape[0]) * (number + uint64(1)) // n_parts
    shift = origin[column] if column < n_features else 0.0
    while row < last and column <= n_features:
        label = uint64(labels[row])
        if first <= label and label < first + uint64(CLUSTERS):
            value = 1.0
            if column < n_features:
                value = X[row, column] - shift
            own[(label - first) * uint64(PARTS * LANES) + t] += value
        row += uint64(1)
    cuda.syncthreads()
    if part == uint64(0) and column <= n_features:
        c = uint64(0)
        while c < uint64(CLUSTERS) and first + c < uint64(n_clusters):
            total = 0.0
            for i in range(PARTS):
                total += own[c * uint64(PARTS * LANES) + uint64(i * LANES) + t]
            partial[uint64(cuda.blockIdx.x), first + c, column] = total
            c += uint64(1)


def cluster_sums(X: Array, labels: Array, origin: Array, n_clusters: int, xp: Any) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each cluster's rows about the origin, (n_clusters, n_features) float64, and their number, (n_clusters,), on the host.

    X (n_samples, n_features), labels (n_samples,) int32 and origin (n_features,) float64 are on the device. The order of the additions
    depends on the shape of X alone, so two runs agree to the bit.
    """
    n_rows, n_features = X.shape
    n_ranges = max(1, min(MAX_RANGES, n_rows // (PARTS * LANES), MAX_PARTIAL // (n_clusters * (n_features + 1))))
    partial = xp.empty((n_ranges, n_clusters, n_features + 1), dtype=np.float64)
    grid = (n_ranges, -(-n_clusters // CLUSTERS), -(-(n_features + 1) // LANES))
    with ignore_small_grid_warnings():
        add_rows[grid, PARTS * LANES](X, labels, origin, n_clusters, partial)
    total = to_host(partial.sum(axis=0), xp)
    return total[:, :n_features].copy(), total[:, n_features].copy()


def to_host(array: Array, xp: Any) -> np.ndarray:
    """A copy on the host of an array of ``xp``, which is cupy, or numpy under the simulator."""
    found: np.ndarray = np.array(array) if xp is np else xp.asnumpy(array)
    return found
