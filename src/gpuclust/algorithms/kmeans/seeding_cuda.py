"""Starting centres of many K-Means fits, drawn on the GPU in one launch: greedy k-means++, and rows by their squared distance.

Each block draws one start with the same random numbers and the same order of the rows as `seeding.plus_plus`, so that both choose the
same rows, unless rounding errors of the sums change a choice. Rows are the float32 tiles of the Lloyd pass.

Arthur, D. and Vassilvitskii, S. (2007), "k-means++: the advantages of careful seeding", SODA.
"""

from __future__ import annotations

from numba import cuda, float32, float64, int64, uint64

from gpuclust.algorithms.kmeans.kernels_cuda import FIRST_CENTER, FIRST_ROW, N_CLUSTERS, N_ROWS, TILE
from gpuclust.runtime.jit_cuda import cuda_kernel
from gpuclust.runtime.nearest import FAR

N_SUMS = TILE + 1
MAX_TRIALS = 16  # candidates of a centre, 2 + log k


@cuda_kernel(device=True)
def _square(values, row, center, n_features, offset, step):  # type: ignore[no-untyped-def]
    """The squared distance of a row of the tiles to the coordinates ``center[offset]``, ``center[offset + step]``, ..."""
    square, f, other = float32(0), uint64(0), uint64(offset)
    at = uint64(row // TILE) * uint64(n_features * TILE) + uint64(row % TILE)
    while f < uint64(n_features):
        difference = values[at] - center[other]
        square += difference * difference
        at += uint64(TILE)
        other += uint64(step)
        f += uint64(1)
    return square


@cuda_kernel(device=True)
def _running_sums(closest, start, n_rows, same, sums):  # type: ignore[no-untyped-def]
    """Fill sums (TILE + 1,) with the weight of the rows before each thread's rows, and of all; weights are ``closest``, or 1 where ``same``."""
    t = cuda.threadIdx.x
    step = (n_rows + TILE - 1) // TILE
    total = 0.0
    for row in range(t * step, min(n_rows, (t + 1) * step)):
        total += 1.0 if same else float64(closest[start, row])
    sums[t + 1] = total
    if t == 0:
        sums[0] = 0.0
    cuda.syncthreads()
    if t == 0:
        for i in range(TILE):
            sums[i + 1] += sums[i]
    cuda.syncthreads()


@cuda_kernel(device=True)
def _pick(closest, start, n_rows, same, sums, at):  # type: ignore[no-untyped-def]
    """The row where the running sum of the weights exceeds ``at``."""
    step = (n_rows + TILE - 1) // TILE
    part = 0
    while part < TILE - 1 and at >= sums[part + 1]:
        part += 1
    at -= sums[part]
    last = min(n_rows - 1, part * step)
    for row in range(part * step, min(n_rows, (part + 1) * step)):
        weight = 1.0 if same else float64(closest[start, row])
        if weight > 0.0:
            last = row
            if at < weight:
                return row
            at -= weight
    return last


@cuda_kernel()
def plus_plus(values, n_features, plan, draws, first_draw, closest, chosen):  # type: ignore[no-untyped-def]
    """One block chooses the rows of one start.

    values (n_tiles * d * TILE,) float32; plan (n_starts, N_PLAN) int64 as in the Lloyd pass: the rows, and the centres of the start in
    chosen (n_centers,) int64, which receives row numbers; draws (n_draws,) float64 in [0, 1), those of start i from first_draw[i] on,
    (n_clusters, n_trials); closest (n_starts, n_rows) float32 is overwritten.
    """
    sums = cuda.shared.array(N_SUMS, float64)
    reduced = cuda.shared.array(TILE, float64)
    rows = cuda.shared.array(MAX_TRIALS, int64)
    best = cuda.shared.array(2, float64)
    start, t = cuda.blockIdx.x, cuda.threadIdx.x
    first, n_rows, n_clusters = plan[start, FIRST_ROW], plan[start, N_ROWS], plan[start, N_CLUSTERS]
    n_trials = (first_draw[start + 1] - first_draw[start]) // n_clusters
    for row in range(t, n_rows, TILE):
        closest[start, row] = FAR
    cuda.syncthreads()
    for c in range(n_clusters):
        _running_sums(closest, start, n_rows, c == 0, sums)
        same = c == 0 or not sums[TILE] > 0.0  # every row is on a centre already
        if same and c > 0:
            cuda.syncthreads()  # all threads have read the sum
            _running_sums(closest, start, n_rows, True, sums)
        trials = 1 if c == 0 else n_trials
        if t < trials:
            rows[t] = _pick(
                closest, start, n_rows, same, sums, draws[first_draw[start] + c * n_trials + t] * sums[TILE]
            )
        if t == 0:
            best[0], best[1] = 0.0, -1.0
        cuda.syncthreads()
        for i in range(trials if trials > 1 else 0):
            candidate = first + rows[i]
            at, total = (candidate // TILE) * n_features * TILE + candidate % TILE, 0.0
            for row in range(t, n_rows, TILE):
                total += min(closest[start, row], _square(values, first + row, values, n_features, at, TILE))
            reduced[t] = total
            width = TILE // 2
            while width:
                cuda.syncthreads()
                if t < width:
                    reduced[t] += reduced[t + width]
                width //= 2
            if t == 0 and (best[1] < 0.0 or reduced[0] < best[1]):
                best[0], best[1] = float64(i), reduced[0]
            cuda.syncthreads()
        row = rows[int(best[0])]
        candidate = first + row
        at = (candidate // TILE) * n_features * TILE + candidate % TILE
        if t == 0:
            chosen[plan[start, FIRST_CENTER] + c] = candidate
        for other in range(t, n_rows, TILE):
            square = _square(values, first + other, values, n_features, at, TILE)
            closest[start, other] = min(closest[start, other], square)
        cuda.syncthreads()


@cuda_kernel()
def draw_rows(values, n_features, plan, floats, draws, closest, chosen):  # type: ignore[no-untyped-def]
    """One block draws one row by its squared distance to the nearest centre of its start.

    plan and values as in `plus_plus`; floats (n_centers * (d + 1),) float32 are the centres, each after half its squared norm; draws and
    chosen (n_starts,) float64 in [0, 1) and int64.
    """
    sums = cuda.shared.array(N_SUMS, float64)
    start, t = cuda.blockIdx.x, cuda.threadIdx.x
    first, n_rows = plan[start, FIRST_ROW], plan[start, N_ROWS]
    for row in range(t, n_rows, TILE):
        least = float32(FAR)
        for c in range(plan[start, N_CLUSTERS]):
            at = (plan[start, FIRST_CENTER] + c) * (n_features + 1) + 1
            least = min(least, _square(values, first + row, floats, n_features, at, 1))
        closest[start, row] = least
    cuda.syncthreads()
    _running_sums(closest, start, n_rows, False, sums)
    if t == 0:
        chosen[start] = first + _pick(closest, start, n_rows, False, sums, draws[start] * sums[TILE])
