"""The kernels of Lloyd's iterations on a GPU, by numba.cuda: several K-Means fits advance in one launch, without the host.

The rows are kept in tiles of TILE rows, transposed, as float32 values on a grid on which float64 sums of all rows are exact
(`Frame.rounding`, as on the CPU). So sums are the same in every order, and blocks add theirs to the totals by atomic additions. A pass
reads only the tiles: a thread finds the nearest centre of ROWS_PER_THREAD rows in float32, or in float64 from the matrix itself where
the two smallest distances differ by less than the rounding error. Then the columns of the sums are divided among the threads of the block: each thread adds one column
of some of the tile's rows to its own sums in shared memory. `move_centers` computes the new centres and tests whether a fit has converged.

Kernels for few features are compiled for each number of features, so that rows stay in registers. Offsets are unsigned: numba adds instructions for
negative indices to signed ones.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from numba import cuda, float32, float64, uint32, uint64

from gpuclust.algorithms.kmeans.kernels_cpu import UNIT
from gpuclust.runtime.jit_cuda import cuda_kernel
from gpuclust.runtime.nearest import FAR, GROUP

TILE = 256  # rows
ROWS_PER_THREAD = 2
THREADS = TILE // ROWS_PER_THREAD
MAX_REGISTER_FEATURES = 32  # of a row that is kept in registers
MOVE_THREADS = 128
MAX_PART_BITS = 5  # 2**5 threads, a warp, add one column each to sums of their own
NO_SUMS = 63  # PART_BITS of a fit whose sums do not fit in shared memory

# The columns of the plan of a fit, int64
FIRST_ROW, N_ROWS, FIRST_CENTER, N_CLUSTERS, PART_BITS = range(5)
N_PLAN = 5
# The columns of the state of a fit, float64
STATUS, N_ITER, CHANGED, N_EMPTY, MOVED, EXPLAINED, SETTLED, RELOCATED, LEAST_MOVE, MAX_ITER, SLOPE, SLACK = range(12)
N_STATE = 12
# Values of STATUS
DONE, RUNNING, EMPTY, STARTING, GIVEN = 0.0, 1.0, 2.0, 3.0, 4.0
"""A fit that is EMPTY waits for the host to relocate its empty clusters. STARTING and GIVEN: its next centres are in ``means``."""


@cuda_kernel()
def fill_tiles(X, frame, values):  # type: ignore[no-untyped-def]
    """One thread for each row of the tiles; rows of padding are zero.

    X (n, d) float32 or float64; frame (2 d + 1,) float64: origin, rounding and scale; values (n_tiles * d * TILE,) float32.
    """
    n_features = uint32(X.shape[1])
    row = cuda.grid(1)
    at = uint64(cuda.blockIdx.x) * uint64(n_features * uint32(TILE)) + uint64(cuda.threadIdx.x)
    scale = frame[uint32(2) * n_features]
    for f in range(X.shape[1]):
        value = float32(0)
        if row < X.shape[0]:
            to_grid = frame[n_features + uint32(f)]
            value = float32((float32((X[row, f] - frame[uint32(f)]) * scale) + to_grid) - to_grid)
        values[at] = value
        at += uint64(TILE)


@cuda_kernel(device=True)
def _nearest_exactly(X, row, frame, centers, first, n_clusters):  # type: ignore[no-untyped-def]
    """The nearest of the centres first, first + 1, ... of a row, in float64; the lower number wins a tie."""
    n_features = uint64(X.shape[1])
    scale = frame[uint64(2) * n_features]
    nearest, least, c = uint64(0), math.inf, uint64(0)
    while c < n_clusters:
        square, f = 0.0, uint64(0)
        while f < n_features:
            difference = (X[uint64(row), f] - frame[f]) * scale - centers[uint64(first) + c, f]
            square += difference * difference
            f += uint64(1)
        if square < least:
            nearest, least = c, square
        c += uint64(1)
    return nearest


@cuda_kernel(device=True)
def _add_tile(values, at, cells, n_rows, n_features, bits, own, totals, home):  # type: ignore[no-untyped-def]
    """Add the first n_rows rows of a tile, which starts at ``values[at]``, to the sums of their clusters.

    2**bits threads add one column, each to sums of its own, (n_cells, 2**bits) in ``own``; ``cells`` (TILE,) uint32 is the first of them
    of each row's cluster. Where ``bits`` is NO_SUMS there are none, and the columns are added to ``totals`` from ``home`` on.
    """
    t = uint64(cuda.threadIdx.x)
    shift = bits if bits != uint64(NO_SUMS) else uint64(MAX_PART_BITS)
    parts = uint64(1) << shift
    part, column = t & (parts - uint64(1)), t >> shift
    while column <= n_features:
        row, source, mine = part, at + column * uint64(TILE), (column << bits) + part
        if bits == uint64(NO_SUMS):
            while row < n_rows:
                value = float64(values[source + row]) if column < n_features else 1.0
                if value != 0.0:
                    cuda.atomic.add(totals, home + uint64(cells[row]) + column, value)
                row += parts
        elif column < n_features:
            while row < n_rows:
                own[uint64(cells[row]) + mine] += float64(values[source + row])
                row += parts
        else:
            while row < n_rows:
                own[uint64(cells[row]) + mine] += 1.0
                row += parts
        column += uint64(THREADS) >> shift


@cuda_kernel(device=True)
def _add_own(own, n_cells, bits, totals, home):  # type: ignore[no-untyped-def]
    """Add the sums of a block to the totals."""
    cell = uint64(cuda.threadIdx.x)
    while cell < n_cells:
        total, source = 0.0, cell << bits
        last = source + (uint64(1) << bits)
        while source < last:
            total += own[source]
            source += uint64(1)
        if total != 0.0:
            cuda.atomic.add(totals, home + cell, total)
        cell += uint64(THREADS)


@cache
def pass_kernel(n_features: int) -> Any:
    """The pass for rows of this number of features, at most MAX_REGISTER_FEATURES."""
    columns = n_features + 1

    @cuda_kernel()
    def lloyd_pass(X, values, frame, fits, plan, state, centers, floats, totals):  # type: ignore[no-untyped-def]
        """One block adds some tiles of the rows of fit fits[blockIdx.x] to the sums of the clusters that they are nearest to.

        X (n, d), frame (2 d + 1,) and values as in `fill_tiles`; plan (n_fits, N_PLAN) int64; state (n_fits, N_STATE) float64; centers
        (n_centers, d) float64; floats (n_centers * (d + 1),) float32, half the squared norm and the coordinates of each centre;
        totals (n_centers * (d + 1),) float64, the sum of each coordinate and the number of rows. Dynamic shared memory: the sums of
        the block, if it keeps any, then the floats of the fit.
        """
        own = cuda.shared.array(0, float64)
        near = cuda.shared.array(0, float32)
        cells = cuda.shared.array(TILE, uint32)
        z0 = cuda.local.array(n_features, float32)
        z1 = cuda.local.array(n_features, float32)
        fit, t = uint64(fits[uint64(cuda.blockIdx.x)]), uint64(cuda.threadIdx.x)
        if state[fit, STATUS] != RUNNING:
            return
        n_clusters, bits = uint64(plan[fit, N_CLUSTERS]), uint64(plan[fit, PART_BITS])
        first_row, n_rows = uint64(plan[fit, FIRST_ROW]), uint64(plan[fit, N_ROWS])
        slope, slack = float32(state[fit, SLOPE]), float32(state[fit, SLACK])
        n_cells, home = n_clusters * uint64(columns), uint64(plan[fit, FIRST_CENTER]) * uint64(columns)
        n_own, shift = n_cells << bits, bits
        if bits == uint64(NO_SUMS):
            n_own, shift = uint64(0), uint64(0)
        base, i = uint64(2) * n_own, t
        while i < n_own:
            own[i] = 0.0
            i += uint64(THREADS)
        i = t
        while i < n_cells:
            near[base + i] = floats[home + i]
            i += uint64(THREADS)
        cuda.syncthreads()
        n_tiles = (n_rows + uint64(TILE - 1)) // uint64(TILE)
        tile = n_tiles * uint64(cuda.blockIdx.y) // uint64(cuda.gridDim.y)
        last = n_tiles * uint64(cuda.blockIdx.y + 1) // uint64(cuda.gridDim.y)
        at = (first_row // uint64(TILE) + tile) * uint64(n_features * TILE)
        while tile < last:
            size0, size1 = float32(0), float32(0)
            for f in range(n_features):
                z0[f] = values[at + t + uint64(f * TILE)]
                z1[f] = values[at + t + uint64(f * TILE + THREADS)]
                size0 += abs(z0[f])
                size1 += abs(z1[f])
            best0, second0, label0 = float32(FAR), float32(FAR), uint32(0)
            best1, second1, label1 = float32(FAR), float32(FAR), uint32(0)
            cell, source = uint32(0), base
            while cell < n_cells:
                score0 = near[source]
                score1 = score0
                for f in range(n_features):
                    coordinate = near[source + uint64(f + 1)]
                    score0 -= z0[f] * coordinate
                    score1 -= z1[f] * coordinate
                label0 = cell if score0 < best0 else label0
                second0 = min(second0, max(best0, score0))
                best0 = min(best0, score0)
                label1 = cell if score1 < best1 else label1
                second1 = min(second1, max(best1, score1))
                best1 = min(best1, score1)
                source += uint64(columns)
                cell = uint32(cell + uint32(columns))
            cells[t] = uint32(label0 << shift)
            cells[t + uint64(THREADS)] = uint32(label1 << shift)
            row, end = n_rows - tile * uint64(TILE), uint64(TILE)
            n_here = row if row < end else end
            # The rows t and t + THREADS whose two smallest distances differ by less than the rounding error
            row = t if second0 - best0 <= slope * size0 + slack else t + uint64(THREADS)
            end = t + uint64(2 * THREADS) if second1 - best1 <= slope * size1 + slack else t + uint64(THREADS)
            end = end if end < n_here else n_here
            while row < end:
                nearest = _nearest_exactly(
                    X, first_row + tile * uint64(TILE) + row, frame, centers, plan[fit, FIRST_CENTER], n_clusters
                )
                cells[row] = uint32((nearest * uint64(columns)) << shift)
                row += uint64(THREADS)
            cuda.syncthreads()
            _add_tile(values, at, cells, n_here, uint64(n_features), bits, own, totals, home)
            cuda.syncthreads()
            at += uint64(n_features * TILE)
            tile += uint64(1)
        if n_own:
            _add_own(own, n_cells, bits, totals, home)

    return lloyd_pass


@cuda_kernel()
def wide_pass(X, values, frame, fits, plan, state, centers, floats, totals):  # type: ignore[no-untyped-def]
    """As the kernel of `pass_kernel`, for any number of features: GROUP centres at once, which need not fit in shared memory.

    The centres of each fit are padded to a multiple of GROUP with centres whose half squared norm is FAR.
    """
    own = cuda.shared.array(0, float64)
    cells = cuda.shared.array(TILE, uint32)
    fit, t = uint64(fits[uint64(cuda.blockIdx.x)]), uint64(cuda.threadIdx.x)
    if state[fit, STATUS] != RUNNING:
        return
    n_features, columns = uint64(X.shape[1]), uint64(X.shape[1]) + uint64(1)
    n_clusters, bits = uint64(plan[fit, N_CLUSTERS]), uint64(plan[fit, PART_BITS])
    first_row, n_rows = uint64(plan[fit, FIRST_ROW]), uint64(plan[fit, N_ROWS])
    slope, slack = float32(state[fit, SLOPE]), float32(state[fit, SLACK])
    n_cells, home = n_clusters * columns, uint64(plan[fit, FIRST_CENTER]) * columns
    n_own, shift, i = n_cells << bits, bits, t
    if bits == uint64(NO_SUMS):
        n_own, shift = uint64(0), uint64(0)
    while i < n_own:
        own[i] = 0.0
        i += uint64(THREADS)
    cuda.syncthreads()
    n_tiles = (n_rows + uint64(TILE - 1)) // uint64(TILE)
    tile = n_tiles * uint64(cuda.blockIdx.y) // uint64(cuda.gridDim.y)
    last = n_tiles * uint64(cuda.blockIdx.y + 1) // uint64(cuda.gridDim.y)
    while tile < last:
        at = (first_row // uint64(TILE) + tile) * n_features * uint64(TILE)
        n_here = n_rows - tile * uint64(TILE)
        n_here = n_here if n_here < uint64(TILE) else uint64(TILE)
        size0, size1, f, source = float32(0), float32(0), uint64(0), at + t
        while f < n_features:
            size0 += abs(values[source])
            size1 += abs(values[source + uint64(THREADS)])
            source += uint64(TILE)
            f += uint64(1)
        best0, second0, label0 = float32(FAR), float32(FAR), uint64(0)
        best1, second1, label1 = float32(FAR), float32(FAR), uint64(0)
        c = uint64(0)
        while c < n_clusters:
            source, c0 = at + t, home + c * columns
            c1, c2, c3 = c0 + columns, c0 + uint64(2) * columns, c0 + uint64(3) * columns
            a0, a1, a2, a3 = floats[c0], floats[c1], floats[c2], floats[c3]
            b0, b1, b2, b3 = a0, a1, a2, a3
            f = uint64(1)
            while f < columns:
                z0, z1 = values[source], values[source + uint64(THREADS)]
                x0, x1, x2, x3 = floats[c0 + f], floats[c1 + f], floats[c2 + f], floats[c3 + f]
                a0, a1, a2, a3 = a0 - z0 * x0, a1 - z0 * x1, a2 - z0 * x2, a3 - z0 * x3
                b0, b1, b2, b3 = b0 - z1 * x0, b1 - z1 * x1, b2 - z1 * x2, b3 - z1 * x3
                source += uint64(TILE)
                f += uint64(1)
            best0, second0, label0 = _best_of_four(a0, a1, a2, a3, best0, second0, label0, c)
            best1, second1, label1 = _best_of_four(b0, b1, b2, b3, best1, second1, label1, c)
            c += uint64(GROUP)
        cells[t] = uint32((label0 * columns) << shift)
        cells[t + uint64(THREADS)] = uint32((label1 * columns) << shift)
        row = t if second0 - best0 <= slope * size0 + slack else t + uint64(THREADS)
        end = t + uint64(2 * THREADS) if second1 - best1 <= slope * size1 + slack else t + uint64(THREADS)
        end = end if end < n_here else n_here
        while row < end:
            nearest = _nearest_exactly(
                X, first_row + tile * uint64(TILE) + row, frame, centers, plan[fit, FIRST_CENTER], n_clusters
            )
            cells[row] = uint32((nearest * columns) << shift)
            row += uint64(THREADS)
        cuda.syncthreads()
        _add_tile(values, at, cells, n_here, n_features, bits, own, totals, home)
        cuda.syncthreads()
        tile += uint64(1)
    if n_own:
        _add_own(own, n_cells, bits, totals, home)


@cuda_kernel(device=True)
def _best_of_four(a, b, c, d, best, second, label, first):  # type: ignore[no-untyped-def]
    """Include the scores of four centres, from number ``first`` on, in the best two; a tie keeps the lower number."""
    label = first if a < best else label
    second, best = min(second, max(best, a)), min(best, a)
    label = first + uint64(1) if b < best else label
    second, best = min(second, max(best, b)), min(best, b)
    label = first + uint64(2) if c < best else label
    second, best = min(second, max(best, c)), min(best, c)
    label = first + uint64(3) if d < best else label
    return min(best, d), min(second, max(best, d)), label


@cuda_kernel()
def move_centers(plan, grid, totals, sums, means, centers, assigned, floats, state):  # type: ignore[no-untyped-def]
    """One block moves the centres of a fit to the means of their clusters, or to ``means``, and tests whether it has converged.

    Where a cluster is empty the fit becomes EMPTY and its centres stay. plan, centers, floats, totals and state as in the pass; ``grid``
    is `Frame.grid`; sums (n_centers * (d + 1),) float64: the totals of the last pass, which this kernel takes and sets to zero; means
    and assigned (n_centers, d) float64: the new centres, and those by which the last pass assigned the rows.
    """
    fit, t, n_features = uint64(cuda.blockIdx.x), uint64(cuda.threadIdx.x), uint64(centers.shape[1])
    columns = n_features + uint64(1)
    found = cuda.shared.array((4, MOVE_THREADS), float64)
    status = state[fit, STATUS]
    if status in (DONE, EMPTY):
        return
    n_clusters, first = uint64(plan[fit, N_CLUSTERS]), uint64(plan[fit, FIRST_CENTER])
    n_used = n_clusters if n_clusters < uint64(MOVE_THREADS) else uint64(MOVE_THREADS)  # threads with a cluster
    if status == RUNNING:
        changed, n_empty, c = 0.0, 0.0, t
        while c < n_clusters:
            cell = (first + c) * columns
            mass, f = totals[cell + n_features], uint64(0)
            while f < columns:
                total = totals[cell + f]
                totals[cell + f] = 0.0
                if total != sums[cell + f]:
                    changed = 1.0
                    sums[cell + f] = total
                if f < n_features and mass > 0.0:
                    means[first + c, f] = total / mass
                f += uint64(1)
            if mass == 0.0:
                n_empty += 1.0
            c += uint64(MOVE_THREADS)
        found[0, t], found[1, t] = changed, n_empty
        cuda.syncthreads()
        changed, n_empty, i = 0.0, 0.0, uint64(0)
        while i < n_used:
            changed = max(changed, found[0, i])
            n_empty += found[1, i]
            i += uint64(1)
        if t == 0:
            state[fit, CHANGED], state[fit, N_EMPTY] = changed, n_empty
        if n_empty > 0.0:
            if t == 0:
                state[fit, STATUS] = EMPTY
            return
        cuda.syncthreads()
    moved, explained, largest, c = 0.0, 0.0, 0.0, t
    while c < n_clusters:
        cell, norm, square, f = (first + c) * columns, 0.0, 0.0, uint64(0)
        mass = sums[cell + n_features]
        while f < n_features:
            mean, old = means[first + c, f], centers[first + c, f]
            assigned[first + c, f], centers[first + c, f] = old, mean
            floats[cell + f + uint64(1)] = mean
            moved += (mean - old) * (mean - old)
            norm += mean * mean
            square += sums[cell + f] * sums[cell + f]
            f += uint64(1)
        floats[cell] = norm / 2.0
        largest = max(largest, norm)
        if mass > 0.0:
            explained += square / mass
        c += uint64(MOVE_THREADS)
    found[2, t], found[3, t] = moved, explained
    cuda.syncthreads()
    found[0, t] = largest
    cuda.syncthreads()
    if t == 0:
        moved, explained, largest, i = 0.0, 0.0, 0.0, uint64(0)
        while i < n_used:
            moved += found[2, i]
            explained += found[3, i]
            largest = max(largest, found[0, i])
            i += uint64(1)
        _close_iteration(state, fit, status, moved, explained)
        # The bound of `kernels_cpu.move_centers`
        largest, unit = math.sqrt(largest), 4.0 * (float64(n_features) + 6.0) * UNIT
        state[fit, SLOPE] = unit * largest
        state[fit, SLACK] = (unit * largest / 2.0 + 2.0 * grid) * largest + 1e-36


@cuda_kernel(device=True)
def _close_iteration(state, fit, status, moved, explained):  # type: ignore[no-untyped-def]
    """Count the iteration, and stop the fit where it has converged or reached its limit."""
    state[fit, STATUS] = RUNNING
    if status == STARTING:
        return
    state[fit, N_ITER] += 1.0
    state[fit, MOVED], state[fit, EXPLAINED] = moved, explained
    state[fit, RELOCATED] = 1.0 if status == GIVEN else 0.0
    if state[fit, CHANGED] == 0.0 or moved <= state[fit, LEAST_MOVE]:
        state[fit, SETTLED], state[fit, STATUS] = 1.0, DONE
    elif state[fit, N_ITER] >= state[fit, MAX_ITER]:
        state[fit, STATUS] = DONE
