"""The silhouette pass on a GPU, by numba.cuda; the same sums as on the CPU, in the same order of cells.

A thread owns one scored row and walks over the sorted rows, which its block brings to shared memory a tile at a time.
Blocks of one scored row but different stretches of the sorted rows write float64 sums of their own, which a second
kernel merges in a fixed order: there are no atomics, and a result does not change from run to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import cuda

from gpuclust.errors import FitError
from gpuclust.metrics.silhouette.joint_labels import Array, Cells, positions, sort_into_cells
from gpuclust.metrics.silhouette.score import (
    SilhouetteResult,
    check_weights,
    choose_targets,
    scale_exponent,
    summarise,
)
from gpuclust.runtime.jit import ignore_small_grid_warnings

THREADS = 128
SHARED_BYTES = 32 << 10  # of one tile of sorted rows
RUN = 32  # rows added in the input precision before the sum goes on in float64
BLOCKS = 2048  # wanted at once; few scored rows are spread over several stretches of the sorted rows to get there
STRETCH = 4096  # sorted rows that a block takes at least
SUMS_BYTES = 512 << 20  # of device memory for the sums of one launch


def silhouette_cuda(
    X: Any,
    labelings: Sequence[Any],
    *,
    rows: Array | None = None,
    return_samples: bool = False,
    sample_weight: Any | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[SilhouetteResult]:
    """As `silhouette`, for a float32 or float64 matrix that lies on the device.

    `X`, and the labelings and weights where they lie there too, come as any object with `__cuda_array_interface__`
    (NumPy arrays are copied to the device). Memory: a sorted copy of `X` and at most 512 MB of sums.
    """
    with ignore_small_grid_warnings():
        return _silhouette(X, labelings, rows, return_samples, sample_weight, progress)


def _silhouette(
    X: Any,
    labelings: Sequence[Any],
    rows: Array | None,
    return_samples: bool,
    sample_weight: Any | None,
    progress: Callable[[float], None] | None,
) -> list[SilhouetteResult]:
    X = _on_device(X)
    if X.ndim != 2 or 0 in X.shape or X.dtype not in (np.float32, np.float64):
        raise FitError(
            f"silhouette: X is {X.dtype} of shape {X.shape}; give float32 or float64 (n_samples, n_features)"
        )
    scale = 2.0 ** -scale_exponent(_largest(X), X.dtype)
    weight = check_weights(None if sample_weight is None else _on_host(sample_weight), len(X), X.dtype)
    cells = sort_into_cells([_on_host(labels) for labels in labelings], len(X), weight)
    targets = choose_targets(rows, cells, len(X))
    values = _run(X, scale, weight, cells, targets, progress)
    return summarise(
        values, cells.sums_of[:, targets], weight[targets], cells.n_clustered, return_samples=return_samples
    )


def _on_device(array: Any) -> Any:
    if hasattr(array, "__cuda_ndarray__"):  # numba's own, the simulator's too
        return array
    if hasattr(array, "__cuda_array_interface__"):
        return cuda.as_cuda_array(array)
    return cuda.to_device(np.ascontiguousarray(array))


def _on_host(array: Any) -> Array:
    on_device = hasattr(array, "__cuda_ndarray__") or hasattr(array, "__cuda_array_interface__")
    return np.asarray(_on_device(array).copy_to_host() if on_device else array)


def _largest(X: Any) -> float:
    """Largest magnitude in X, NaN if it holds one."""
    largest = cuda.to_device(np.zeros(min(BLOCKS * THREADS, len(X)), X.dtype))
    _largest_kernel[-(-len(largest) // THREADS), THREADS](X, largest)
    return float(np.max(largest.copy_to_host()))


def _run(
    X: Any, scale: float, weight: Array, cells: Cells, targets: Array, progress: Callable[[float], None] | None
) -> Array:
    """Coefficients (n_labelings, n_targets) of the targets, in as many launches as their sums need."""
    n_sources, n_sums = len(cells.order), int(cells.first[-1])
    sources = cuda.device_array((n_sources, X.shape[1]), X.dtype)
    _gather_kernel[-(-n_sources // THREADS), THREADS](X, cuda.to_device(cells.order), X.dtype.type(scale), sources)
    blocks = -(-len(targets) // THREADS)
    splits = max(1, min(BLOCKS // blocks, -(-n_sources // STRETCH), SUMS_BYTES // (8 * n_sums * THREADS)))
    step = max(1, min(blocks, SUMS_BYTES // (8 * n_sums * splits * THREADS))) * THREADS
    sums = cuda.device_array((splits, n_sums, min(step, len(targets))), np.float64)
    rows = (cuda.to_device(weight[cells.order]), cuda.to_device(cells.starts), cuda.to_device(cells.sums))
    clusters = (cuda.to_device(cells.first), cuda.to_device(cells.weights))
    values = np.empty((len(cells.sums_of), len(targets)))
    add_kernel = _add_kernel(X.shape[1], numba.from_dtype(X.dtype))
    position = positions(cells, targets)
    for begin in range(0, len(targets), step):
        part = slice(begin, min(begin + step, len(targets)))
        own = cuda.to_device(np.ascontiguousarray(cells.sums_of[:, targets[part]]))
        part_values = cuda.device_array(own.shape, np.float64)
        grid = -(-own.shape[1] // THREADS)
        add_kernel[(grid, splits), THREADS](cuda.to_device(position[part]), sources, *rows, sums)
        _coefficient_kernel[(grid, own.shape[0]), THREADS](sums, *clusters, own, part_values)
        values[:, part] = part_values.copy_to_host()
        if progress is not None:
            progress(part.stop / len(targets))
    return values


@cuda.jit
def _largest_kernel(X, largest):  # type: ignore[no-untyped-def]
    """largest[i] = the largest magnitude in rows i, i + m, ... of X (n, d), or NaN; largest (m,) of X's dtype, zeros at first."""
    thread = cuda.grid(1)
    if thread >= largest.shape[0]:
        return
    found = largest[thread]
    for i in range(thread, X.shape[0], largest.shape[0]):
        for f in range(X.shape[1]):
            magnitude = abs(X[i, f])
            if magnitude > found or math.isnan(magnitude):  # once NaN, nothing compares greater
                found = magnitude
    largest[thread] = found


@cuda.jit
def _gather_kernel(X, order, scale, sources):  # type: ignore[no-untyped-def]
    """sources (m, d) = scale times rows order (m,) int64 of X (n, d), all but ``order`` of X's dtype."""
    i = cuda.grid(1)
    if i < order.shape[0]:
        for f in range(X.shape[1]):
            sources[i, f] = X[order[i], f] * scale


@cache
def _add_kernel(n_features: int, dtype: Any) -> Any:
    """The kernel of the distances, for one number of features, so that a row of them stays in registers."""
    tile = max(1, min(64, SHARED_BYTES // (n_features * dtype.bitwidth // 8)))

    @cuda.jit
    def add(targets, sources, weight, starts, cell_sums, sums):  # type: ignore[no-untyped-def]
        """Write the weighted sums of the distances from each target to one stretch of the sources, cluster by cluster.

        ``targets`` (n_targets,) int64 are the targets' positions in ``sources`` (m, n_features), rows sorted by cell;
        ``weight`` (m,). ``starts`` (n_cells + 1,) int64 are the first rows of the cells, ``cell_sums`` (n_cells,
        n_labelings) int32 the sum that a cell counts in, -1 for noise. ``sums`` (n_splits, n_sums, n_targets) float64.
        """
        tile_rows = cuda.shared.array((tile, n_features), dtype)
        tile_weight = cuda.shared.array(tile, dtype)
        point = cuda.local.array(n_features, dtype)
        split = cuda.blockIdx.y
        target = cuda.grid(1)
        row = targets[min(target, targets.shape[0] - 1)]  # threads past the end help to load, and keep nothing
        for f in range(n_features):
            point[f] = sources[row, f]
        if target < targets.shape[0]:
            for s in range(sums.shape[1]):
                sums[split, s, target] = 0.0
        begin = sources.shape[0] * split // cuda.gridDim.y
        end = sources.shape[0] * (split + 1) // cuda.gridDim.y
        cell = _cell_of(starts, begin)
        cell_total = 0.0
        for first in range(begin, end, tile):
            n_rows = min(tile, end - first)
            for i in range(cuda.threadIdx.x, n_rows * n_features, cuda.blockDim.x):
                tile_rows[i // n_features, i % n_features] = sources[first + i // n_features, i % n_features]
            for i in range(cuda.threadIdx.x, n_rows, cuda.blockDim.x):
                tile_weight[i] = weight[first + i]
            cuda.syncthreads()
            done = 0
            while done < n_rows:
                run_end = min(n_rows, done + RUN, starts[cell + 1] - first)
                run = dtype(0)
                for i in range(done, run_end):
                    square = dtype(0)
                    for f in range(n_features):
                        difference = point[f] - tile_rows[i, f]
                        square += difference * difference
                    run += tile_weight[i] * math.sqrt(square)
                cell_total += run
                done = run_end
                if first + done == starts[cell + 1] or first + done == end:
                    if target < targets.shape[0]:
                        for labeling in range(cell_sums.shape[1]):
                            s = cell_sums[cell, labeling]
                            if s >= 0:
                                sums[split, s, target] += cell_total
                    cell_total = 0.0
                    cell += 1
            cuda.syncthreads()

    return add


@cuda.jit(device=True)
def _cell_of(starts, i):  # type: ignore[no-untyped-def]
    """The cell that sorted row i is in, by bisection of starts (n_cells + 1,) int64."""
    low, high = 0, starts.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if starts[middle] <= i:
            low = middle
        else:
            high = middle
    return low


@cuda.jit
def _coefficient_kernel(sums, first, cluster_weight, own_sums, values):  # type: ignore[no-untyped-def]
    """Merge the stretches in order, then values (n_labelings, n_targets) float64 = (b - a) / max(a, b).

    ``sums`` (n_splits, n_sums, n_targets) float64; ``first`` (n_labelings + 1,) int64, the first sum of each labeling;
    ``cluster_weight`` (n_sums,) float64; ``own_sums`` (n_labelings, n_targets) int32, the sum of the target's own cluster, -1
    for noise, whose value is 0.
    """
    target, labeling = cuda.grid(1), cuda.blockIdx.y
    if target >= values.shape[1]:
        return
    own = own_sums[labeling, target]
    a, b = 0.0, math.inf
    for cluster in range(first[labeling], first[labeling + 1]):
        total = 0.0
        for split in range(sums.shape[0]):
            total += sums[split, cluster, target]
        if cluster == own:
            a = total / (cluster_weight[own] - 1) if cluster_weight[own] > 1 else -1.0
        else:
            b = min(b, total / cluster_weight[cluster])
    larger = max(a, b)
    values[labeling, target] = (b - a) / larger if own >= 0 and a >= 0 and larger > 0 else 0.0
