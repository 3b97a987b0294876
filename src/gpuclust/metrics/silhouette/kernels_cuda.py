"""The silhouette pass on a GPU, by numba.cuda; the same sums as on the CPU, in the same order of cells.

A thread holds a few scored rows in registers and loops over the sorted rows, which its block copies to shared memory one tile at a
time. Blocks that compare the same scored rows with different stretches of the sorted rows write separate float64 sums. A second
kernel adds these in a fixed order, without atomics, so that a result does not change from run to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import cuda, float64, uint32, uint64

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
from gpuclust.runtime.jit_cuda import cuda_kernel
from gpuclust.runtime.passes import on_host, xp_of

THREADS = 128
MAX_TARGETS = 4  # of one thread: a value of shared memory is then read once for four distances
POINT_BYTES = 256  # of registers for the rows of a thread's targets
SHARED_BYTES = 16 << 10  # of one tile of sorted rows
RUN = 32  # rows added in the input precision before the sum goes on in float64
BLOCKS = 4096  # wanted in a launch: several waves, so that the last one leaves few multiprocessors idle
STRETCH = 4096  # sorted rows that a block takes at least
SUMS_BYTES = 512 << 20  # of device memory for the sums of one launch, or
SUMS_SHARE = 0.05  # of it if that is more: thousands of clusters need it so that a launch fills the device
LAUNCH_PAIRS = 2e11  # of one launch: about 0.2 s on an H100 by the model, short enough for progress updates and a display's watchdog
LEVELS = 16  # labelings whose sums are written once for each run of a cluster's rows; others, once for each cell
LARGEST_BLOCKS = 512  # of the kernel that finds the largest magnitude


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
    (NumPy arrays are copied to the device). Memory: a sorted copy of `X`, and sums of at most 512 MB or a twentieth of the device's.
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
    xp = np if isinstance(X, np.ndarray) or hasattr(X, "__cuda_ndarray__") else xp_of(X)
    X = _on_device(X)
    if X.ndim != 2 or 0 in X.shape or X.dtype not in (np.float32, np.float64):
        raise FitError(
            f"silhouette: X is {X.dtype} of shape {X.shape}; give float32 or float64 (n_samples, n_features)"
        )
    scale = 2.0 ** -scale_exponent(_largest(X), X.dtype)
    if sample_weight is None:
        weight = xp.ones(len(X), X.dtype)
    else:
        weight = xp.asarray(check_weights(_on_host(sample_weight), len(X), X.dtype))
    cells = sort_into_cells([_on_host(labels) for labels in labelings], len(X), weight, xp)
    targets = choose_targets(rows, cells, len(X), xp)
    own = xp.ascontiguousarray(cells.sums_of[:, targets])
    values = _run(X, scale, weight, cells, targets, own, progress, xp)
    if rows is None and not return_samples and xp is not np:
        return _means(xp.asarray(values), own, weight[targets], xp)
    return summarise(
        values.copy_to_host(), on_host(own), on_host(weight[targets]), cells.n_clustered, return_samples=return_samples
    )


def _means(values: Any, own: Any, weight: Any, xp: Any) -> list[SilhouetteResult]:
    """`summarise` on the device where every clustered row was scored."""
    found = []
    for row_values, clusters in zip(values, own, strict=True):
        scored = clusters >= 0
        weights = xp.where(scored, weight, 0).astype(np.float64)
        sums = on_host(xp.stack([(row_values * weights).sum(), weights.sum(), scored.sum().astype(np.float64)]))
        found.append(SilhouetteResult(float(sums[0] / sums[1]), 0.0, int(sums[2]), None))
    return found


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
    blocks = min(LARGEST_BLOCKS, -(-len(X) // THREADS))
    largest = cuda.device_array(blocks, X.dtype)
    _largest_kernel(numba.from_dtype(X.dtype), THREADS)[blocks, THREADS](X, largest)
    return float(np.max(largest.copy_to_host()))


@dataclass(frozen=True)
class Launch:
    """The shape of a launch: ``step`` targets, each compared with the sources in ``splits`` stretches."""

    step: int
    splits: int

    @classmethod
    def of(cls, n_targets: int, n_sources: int, n_sums: int, width: int, sums_bytes: int) -> Launch:
        """For blocks of ``width`` targets: as many targets as a launch may take, and then as many stretches as fill the device."""
        fitting = max(1, sums_bytes // (8 * n_sums * width))
        blocks = min(-(-n_targets // width), fitting, max(1, int(LAUNCH_PAIRS) // (n_sources * width)))
        splits = max(1, min(-(-BLOCKS // blocks), n_sources // STRETCH, fitting // blocks))
        return cls(blocks * width, splits)


def _sums_bytes() -> int:
    total = cuda.current_context().get_memory_info()[1]  # infinite in the simulator
    return int(max(SUMS_BYTES, SUMS_SHARE * total)) if math.isfinite(total) else SUMS_BYTES


def targets_per_thread(n_features: int, dtype: Any) -> int:
    """The number of targets of a thread, whose rows fit in its registers."""
    return max(1, min(MAX_TARGETS, POINT_BYTES // (n_features * dtype.itemsize)))


def _run(
    X: Any,
    scale: float,
    weight: Any,
    cells: Cells,
    targets: Any,
    own: Any,
    progress: Callable[[float], None] | None,
    xp: Any,
) -> Any:
    """Coefficients (n_labelings, n_targets) on the device of the targets, whose own sums are ``own``, in as many launches as they need."""
    n_sources, n_sums, n_features = len(cells.order), int(cells.first[-1]), X.shape[1]
    dtype, each = X.dtype, targets_per_thread(n_features, X.dtype)
    sources = cuda.device_array(n_sources * (n_features + 1), dtype)
    _gather_kernel[-(-n_sources // THREADS), THREADS](
        X, _on_device(cells.order), dtype.type(scale), _on_device(weight[cells.order]), sources
    )
    launch = Launch.of(len(targets), n_sources, n_sums, THREADS * each, _sums_bytes())
    sums = cuda.device_array((launch.splits, n_sums, min(launch.step, len(targets))), np.float64)
    table = [cuda.to_device(array) for array in (cells.starts, _first_changes(cells.sums), cells.sums)]
    clusters = (cuda.to_device(cells.first), cuda.to_device(cells.weights))
    own, position = _on_device(own), _on_device(positions(cells, targets, xp))
    values = cuda.device_array(own.shape, np.float64)
    add_kernel = _add_kernel(n_features, numba.from_dtype(dtype), each, THREADS, SHARED_BYTES)
    for begin in range(0, len(targets), launch.step):
        end = min(begin + launch.step, len(targets))
        grid = (-(-(end - begin) // (THREADS * each)), launch.splits)
        add_kernel[grid, THREADS](position[begin:end], sources, n_sources, *table, sums)
        _coefficient_kernel[(-(-(end - begin) // THREADS), own.shape[0]), THREADS](
            sums, *clusters, own, begin, end, values
        )
        if progress is not None:
            cuda.synchronize()
            progress(end / len(targets))
    return values


def _first_changes(cell_sums: Array) -> Array:
    """The first labeling in which each cell (n_cells, n_labelings) has another sum than the next one, (n_cells,) int32; 0 for the last."""
    changes = np.zeros(len(cell_sums), np.int32)
    changes[:-1] = (cell_sums[1:] != cell_sums[:-1]).argmax(axis=1)
    return changes


@cache
def _largest_kernel(dtype: Any, threads: int) -> Any:
    """The kernel that finds the largest magnitude of a matrix."""

    @cuda_kernel()
    def largest_magnitudes(X, largest):  # type: ignore[no-untyped-def]
        """largest[block] = the largest magnitude in the rows of X (n, d) that the block reads, or NaN; largest (n_blocks,) of X's dtype."""
        shared = cuda.shared.array(threads, dtype)
        t = cuda.threadIdx.x
        found = dtype(0)
        for i in range(cuda.grid(1), X.shape[0], cuda.gridsize(1)):
            for f in range(X.shape[1]):
                magnitude = abs(X[uint64(i), uint32(f)])
                if magnitude > found or math.isnan(magnitude):  # once NaN, nothing compares greater
                    found = magnitude
        shared[t] = found
        cuda.syncthreads()
        if t == 0:
            for i in range(1, threads):
                if shared[i] > found or math.isnan(shared[i]):
                    found = shared[i]
            largest[cuda.blockIdx.x] = found

    return largest_magnitudes


@cuda_kernel()
def _gather_kernel(X, order, scale, weight, sources):  # type: ignore[no-untyped-def]
    """Rows of sources (m * (d + 1),): scale times row order[i] of X (n, d), and weight[i]; order (m,) int64, all others of X's dtype."""
    i = cuda.grid(1)
    if i < order.shape[0]:
        row, at = uint64(order[i]), uint64(i) * uint64(X.shape[1] + 1)
        for f in range(X.shape[1]):
            sources[at] = X[row, uint32(f)] * scale
            at += uint64(1)
        sources[at] = weight[i]


@cache
def _add_kernel(n_features: int, dtype: Any, each: int, threads: int, shared_bytes: int) -> Any:
    """The kernel of the distances for one number of features, so that the rows of ``each`` targets stay in a thread's registers."""
    width = n_features + 1
    tile = max(1, min(128, shared_bytes // (width * dtype.bitwidth // 8)))
    n_shared, n_point, n_kept, span = tile * width, n_features * each, LEVELS * each, threads * each

    @cuda_kernel(fastmath=True)  # for the square root of float32: within 2 units of the last place, 1.5 times as fast
    def add_distances(targets, sources, n_sources, starts, changes, cell_sums, sums):  # type: ignore[no-untyped-def]
        """Write the weighted sums of the distances from each target to one stretch of the sources, cluster by cluster.

        ``targets`` (n_targets,) int64 are the targets' positions in ``sources`` (n_sources * width,), the rows sorted by cell, each with its
        weight after it. ``starts`` (n_cells + 1,) int64 are the first rows of the cells, ``cell_sums`` (n_cells, n_labelings) int32
        the sum that a cell counts in, -1 for noise, and ``changes`` (n_cells,) the first labeling in which the next cell counts
        in another one. ``sums`` (n_splits, n_sums, n_targets or more) float64.

        A sum is written when the sorted rows leave its cluster, not after each cell. ``kept`` holds what was added since then for each of
        the first LEVELS labelings: the sum of a labeling is also the next part of the sum of the labeling before it.
        """
        rows = cuda.shared.array(n_shared, dtype)
        point = cuda.local.array(n_point, dtype)
        square = cuda.local.array(each, dtype)
        run = cuda.local.array(each, dtype)
        total = cuda.local.array(each, float64)
        kept = cuda.local.array(n_kept, float64)
        t, split = cuda.threadIdx.x, uint32(cuda.blockIdx.y)
        n_targets, n_labelings = targets.shape[0], cell_sums.shape[1]
        n_levels = min(n_labelings, LEVELS)
        mine = cuda.blockIdx.x * span + t
        for j in range(each):
            row = uint64(targets[uint32(min(mine + j * threads, n_targets - 1))]) * uint64(width)
            for f in range(n_features):
                point[j * n_features + f] = sources[row + uint64(f)]
            total[j] = 0.0
            if mine + j * threads < n_targets:
                for s in range(sums.shape[1]):
                    sums[split, uint32(s), uint32(mine + j * threads)] = 0.0
        for i in range(n_levels * each):
            kept[uint32(i)] = 0.0
        begin = n_sources * cuda.blockIdx.y // cuda.gridDim.y
        end = n_sources * (cuda.blockIdx.y + 1) // cuda.gridDim.y
        cell = _cell_of(starts, begin)
        cell_end = starts[uint64(cell + 1)]
        for first in range(begin, end, tile):
            n_rows = min(tile, end - first)
            origin = uint64(first) * uint64(width)
            for i in range(t, n_rows * width, threads):
                rows[uint32(i)] = sources[origin + uint64(i)]
            cuda.syncthreads()
            done = 0
            while done < n_rows:
                run_end = min(n_rows, done + RUN, cell_end - first)
                for j in range(each):
                    run[j] = dtype(0)
                at = uint32(done * width)
                for _ in range(run_end - done):
                    for j in range(each):
                        square[j] = dtype(0)
                    for f in range(n_features):
                        x = rows[at + uint32(f)]
                        for j in range(each):
                            difference = point[j * n_features + f] - x
                            square[j] += difference * difference
                    row_weight = rows[at + uint32(n_features)]
                    for j in range(each):
                        run[j] += row_weight * math.sqrt(square[j])
                    at += uint32(width)
                for j in range(each):
                    total[j] += run[j]
                done = run_end
                if first + done == cell_end or first + done == end:
                    for labeling in range(n_levels, n_labelings):
                        s = cell_sums[uint64(cell), uint32(labeling)]
                        if s >= 0:
                            for j in range(each):
                                if mine + j * threads < n_targets:
                                    sums[split, uint32(s), uint32(mine + j * threads)] += total[j]
                    for j in range(each):
                        kept[uint32((n_levels - 1) * each + j)] += total[j]
                        total[j] = 0.0
                    last = changes[uint64(cell)] if first + done < end else 0
                    for labeling in range(n_levels - 1, last - 1, -1):
                        s = cell_sums[uint64(cell), uint32(labeling)]
                        for j in range(each):
                            here = uint32(labeling * each + j)
                            if s >= 0 and mine + j * threads < n_targets:
                                sums[split, uint32(s), uint32(mine + j * threads)] += kept[here]
                            if labeling > 0:
                                kept[here - uint32(each)] += kept[here]
                            kept[here] = 0.0
                    cell += 1
                    if first + done < end:
                        cell_end = starts[uint64(cell + 1)]
            cuda.syncthreads()

    return add_distances


@cuda_kernel(device=True)
def _cell_of(starts, i):  # type: ignore[no-untyped-def]
    """The cell that sorted row i is in, by bisection of starts (n_cells + 1,) int64."""
    low, high = 0, starts.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if starts[uint64(middle)] <= i:
            low = middle
        else:
            high = middle
    return low


@cuda_kernel()
def _coefficient_kernel(sums, first, cluster_weight, own_sums, begin, end, values):  # type: ignore[no-untyped-def]
    """Merge the stretches in order, then values (n_labelings, n_targets) float64 = (b - a) / max(a, b), for the targets begin to end.

    ``sums`` (n_splits, n_sums, end - begin or more) float64; ``first`` (n_labelings + 1,) int64, the first sum of each labeling;
    ``cluster_weight`` (n_sums,) float64; ``own_sums`` (n_labelings, n_targets) int32, the sum of the target's own cluster, -1
    for noise, whose value is 0.
    """
    column, labeling = uint32(cuda.grid(1)), uint32(cuda.blockIdx.y)
    target = uint64(column) + uint64(begin)
    if target >= uint64(end):
        return
    own = own_sums[labeling, target]
    a, b = 0.0, math.inf
    for cluster in range(first[labeling], first[labeling + uint32(1)]):
        total = 0.0
        for split in range(sums.shape[0]):
            total += sums[uint32(split), uint32(cluster), column]
        weight = cluster_weight[uint32(cluster)]
        if cluster == own:
            a = total / (weight - 1) if weight > 1 else -1.0
        else:
            b = min(b, total / weight)
    larger = max(a, b)
    values[labeling, target] = (b - a) / larger if own >= 0 and a >= 0 and larger > 0 else 0.0
