"""The Lloyd pass on a GPU, by numba.cuda: the statistics of `kernels_cpu.lloyd_pass` in one read of the matrix.

A block takes a range of rows for one set of centres; blocks of the same rows stand next to each other in the grid, so
that a row is read from memory once and from the cache for the other sets. A thread labels one row, in float32 and again in
float64 where the best two are within rounding, as the CPU does. Then the threads of the block share out the
columns of the statistics, each adding up, in float64, one column of every row of its part: no two threads write to one
place, so there are no atomics, and a result does not change from run to run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import cuda, float32, float64, int32

from gpuclust.algorithms.kmeans.kernels_cpu import UNIT, LloydStatistics
from gpuclust.errors import FitError

THREADS = 256  # at most, of a block: one for each row of its tile
MIN_THREADS = 32
SHARED_BYTES = 32 << 10  # of one tile of rows
CELLS = 3072  # of the statistics that one block keeps for its parts of the tile, where there is a choice
BLOCKS = 512  # of rows, at most
FAR = 3e38


@cuda.jit
def _pass(  # type: ignore[no-untyped-def]
    X, weight, weighted, centers, floats, half_norms, frames, first, n_clusters, parts, home, n_ranges, labels, partial
):  # fmt: skip
    """One block takes the rows of range blockIdx.y for the centres of fit blockIdx.x.

    X (n, d) float32 or float64; weight (n,) float64, read where `weighted`; centers (n_centers, d) float64 and floats, the
    same in float32, of all fits; half_norms (n_centers,) float32; frames (n_fits, d + 3) float64: origin, scale and error bounds of
    each fit (see `_frame`); first (n_fits + 1,), n_clusters, parts (n_fits,) and home (n_fits + 1,) int64: each fit's first centre,
    number of centres, parts of a block and offset in `partial`. Writes labels (n_fits, n) int32 and partial sums, float64.
    """
    fit, block, t, threads = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x, cuda.blockDim.x
    n_rows, n_features = X.shape
    tile = cuda.shared.array(0, float32)
    nearest = cuda.shared.array(THREADS, int32)
    squares = cuda.shared.array(THREADS, float64)
    c0, k = first[fit], n_clusters[fit]
    scale, slope, slack = frames[fit, n_features], frames[fit, n_features + 1], frames[fit, n_features + 2]
    columns = n_features + 2  # a sum for each feature, the mass, and the inertia
    base = home[fit] + block * parts[fit] * k * columns
    for i in range(t, parts[fit] * k * columns, threads):
        partial[base + i] = 0.0
    start = block * n_rows // n_ranges
    stop = (block + 1) * n_rows // n_ranges
    lanes = min(columns, threads)
    part = t // lanes
    while start < stop:
        row = start + t
        nearest[t] = -1
        if row < stop:
            norm = 0.0
            for f in range(n_features):
                z = (X[row, f] - frames[fit, f]) * scale
                tile[f * threads + t] = z
                norm += z * z
            best, second, label = float32(FAR), float32(FAR), 0
            for c in range(k):
                score = half_norms[c0 + c]
                for f in range(n_features):
                    score -= tile[f * threads + t] * floats[c0 + c, f]
                if score < best:
                    best, second, label = score, best, c
                elif score < second:
                    second = score
            if second - best <= slope * math.sqrt(norm) + slack:
                least = math.inf
                for c in range(k):
                    square = 0.0
                    for f in range(n_features):
                        difference = (X[row, f] - frames[fit, f]) * scale - centers[c0 + c, f]
                        square += difference * difference
                    if square < least:
                        least, label = square, c
            square = 0.0
            for f in range(n_features):
                difference = (X[row, f] - frames[fit, f]) * scale - centers[c0 + label, f]
                square += difference * difference
            squares[t] = square
            nearest[t] = label
            labels[fit, row] = label
        cuda.syncthreads()
        if part < parts[fit]:
            for f in range(t % lanes, columns, lanes):
                for r in range(part, threads, parts[fit]):
                    if nearest[r] < 0:
                        continue
                    value = weight[start + r] if weighted else 1.0
                    if f < n_features:
                        value *= (X[start + r, f] - frames[fit, f]) * scale
                    elif f == n_features + 1:
                        value *= squares[r]
                    partial[base + (part * k + nearest[r]) * columns + f] += value
        cuda.syncthreads()
        start += threads


@cuda.jit
def _merge(first, n_clusters, parts, home, n_ranges, columns, partial, merged):  # type: ignore[no-untyped-def]
    """One thread for each statistic of a fit: the sum over blocks and parts, in their order."""
    fit = cuda.blockIdx.y
    cell = cuda.grid(1)
    size = n_clusters[fit] * columns
    if cell < size:
        total = 0.0
        for part in range(n_ranges * parts[fit]):
            total += partial[home[fit] + part * size + cell]
        merged[first[fit] * columns + cell] = total


def _on_device(array: Any) -> Any:
    if hasattr(array, "__cuda_array_interface__"):
        return cuda.as_cuda_array(array)
    return cuda.to_device(np.ascontiguousarray(array))


def _threads(n_features: int) -> int:
    """TiledMatrix of a tile: the power of two, THREADS at most, whose float32 rows fit in the shared memory of a block."""
    fitting = SHARED_BYTES // (4 * n_features)
    if fitting < MIN_THREADS:
        raise FitError(f"{n_features} features are more than one tile of the GPU's Lloyd pass holds; reduce them first")
    return min(THREADS, 2 ** int(math.log2(fitting)))


def lloyd_pass(X: Any, centers: Sequence[np.ndarray], sample_weight: Any | None = None) -> list[LloydStatistics]:
    """As `kernels_cpu.lloyd_pass`, for a float32 or float64 matrix on the device; the labels stay there.

    X, and sample_weight where it lies there too, come as any object with `__cuda_array_interface__`; NumPy arrays are
    copied. Each of `centers` is a host array (n_clusters, n_features) in the coordinates of X. Raises FitError above
    256 features.
    """
    X = _on_device(X)
    n_rows, n_features = X.shape
    threads = _threads(n_features)
    columns = n_features + 2
    n_ranges = max(1, min(BLOCKS, n_rows // threads))
    n_clusters = np.array([len(start) for start in centers])
    first = np.concatenate([[0], np.cumsum(n_clusters)])
    frames = np.stack([_frame(np.asarray(start, np.float64)) for start in centers])
    shift, scale = frames[:, :n_features], frames[:, n_features]
    scaled = np.concatenate([(np.asarray(start) - shift[i]) * scale[i] for i, start in enumerate(centers)])
    parts = np.array([max(1, min(threads // min(columns, threads), CELLS // (k * columns))) for k in n_clusters])
    home = np.concatenate([[0], np.cumsum(n_ranges * parts * n_clusters * columns)])
    labels = cuda.device_array((len(centers), n_rows), np.int32)
    partial = cuda.device_array(int(home[-1]), np.float64)
    merged = cuda.device_array(int(first[-1]) * columns, np.float64)
    weight = _on_device(np.empty(1) if sample_weight is None else sample_weight)
    floats, half_norms = scaled.astype(np.float32), ((scaled**2).sum(axis=1) / 2).astype(np.float32)
    first_, n_clusters_, parts_, home_ = (cuda.to_device(part) for part in (first, n_clusters, parts, home))
    _pass[(len(centers), n_ranges), threads, 0, threads * n_features * 4](
        X, weight, sample_weight is not None, cuda.to_device(scaled), cuda.to_device(floats),
        cuda.to_device(half_norms), cuda.to_device(frames), first_, n_clusters_, parts_, home_, n_ranges, labels, partial,
    )  # fmt: skip
    cells = int(n_clusters.max()) * columns
    _merge[(math.ceil(cells / threads), len(centers)), threads](
        first_, n_clusters_, parts_, home_, n_ranges, columns, partial, merged
    )
    table = merged.copy_to_host().reshape(-1, columns)
    found = []
    for fit in range(len(centers)):
        mine = table[first[fit] : first[fit + 1]]
        masses = mine[:, n_features].copy()
        sums = mine[:, :n_features] / scale[fit] + masses[:, None] * shift[fit]
        inertia = float(mine[:, n_features + 1].sum()) / scale[fit] ** 2
        found.append(LloydStatistics(labels[fit], sums, masses, inertia))
    return found


def _frame(centers: np.ndarray) -> np.ndarray:
    """Shift, scale, and by how much two float32 scores may differ from their true difference: slope * |x| + slack.

    The bound is that of the CPU pass, in coordinates about the mean of the centres, the farthest within 1 of it.
    """
    shift = centers.mean(axis=0)
    scale = 2.0 ** -math.frexp(float(np.abs(centers - shift).max()))[1]
    farthest = math.sqrt(float((((centers - shift) * scale) ** 2).sum(axis=1).max()))
    unit = 4 * (centers.shape[1] + 6) * UNIT
    return np.array([*shift, scale, unit * farthest, unit * farthest**2 / 2 + 1e-36])
