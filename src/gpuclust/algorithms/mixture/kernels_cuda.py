"""The kernels of EM on a CUDA device: statistics of tiles of rows, their sum, the M-step, and the scores of rows.

A block takes a tile of rows at a time. First a thread computes the responsibilities of its own rows, which go to shared memory beside
the rows. Then a warp sums the moments of one component, or of a part of it, over the tile: a lane takes every 32nd row, with all
sums in registers. At intervals the lanes' sums are added in float64 to the block's line in global memory. The lines are
added in a fixed order, so a result is the same in every run; no sum uses atomics.

Kernels are compiled for each number of features for which all sums of a component fit the registers (``whole``); for more features the lower triangle
is cut into squares of `BLOCK` features. Offsets are unsigned and incremented: for signed ones numba adds the test for a negative index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda, types

from gpuclust.runtime.jit_cuda import cuda_kernel

WHOLE = {"float32": 11, "float64": 10}  # features of which all sums of a component fit the registers
BLOCK = {"float32": 8, "float64": 6}  # features of a block where they do not
CHUNK_BYTES = 64  # of one lane's sums that are added at a time at the end of a tile
REGISTERS = 65_536  # of a multiprocessor, which a block may take
MERGED_ENTRIES = 32  # of the lines that one block adds
MAX_MERGERS = 32  # threads that share the lines of one entry
M_STEP_THREADS = 128

# Cells of the state of a run, which is (m,) float64: see `state_layout`.
DONE, CONVERGED, BASE, ITERATION, HEADER = 0, 1, 2, 3, 4
FULL, TIED, DIAG, SPHERICAL = range(4)
NOT_FINITE, EMPTY, ILL_DEFINED = 1, 2, 3
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Shape:
    """How kernels for ``d`` features are made: ``block`` features at a time, which are all of them where it is ``whole``.

    ``padded`` is the number of features with the padding, of which the first is a column of ones (the sums of products with it are the
    sums and the count). ``diagonal``: only the diagonal of the scatter is wanted. ``dtype``: float32 or float64, of the arithmetic.
    ``rows``: the rows of a tile that one thread takes; each parameter is loaded once for all of them.
    """

    d: int
    diagonal: bool
    dtype: str
    rows: int = 1

    @property
    def whole(self) -> bool:
        return self.d <= WHOLE[self.dtype]

    @property
    def block(self) -> int:
        return self.d if self.whole else BLOCK[self.dtype]

    @property
    def padded(self) -> int:
        return self.d if self.whole else (self.d // self.block + 1) * self.block

    @property
    def parts(self) -> int:
        """The parts of the sums of one component, which different warps take."""
        n_blocks = self.padded // self.block
        return n_blocks if self.diagonal else n_blocks * (n_blocks + 1) // 2

    @property
    def n_sums(self) -> int:
        """The sums of one part, in the registers of a lane."""
        if self.diagonal:
            return 2 * self.block + 1
        return (self.d + 1) * (self.d + 2) // 2 if self.whole else self.block**2

    @property
    def entries(self) -> int:
        """The statistics of a component in a line: the scatter (lower triangle or diagonal), the sums (d,) and the count."""
        return 2 * self.d + 1 if self.diagonal else (self.d + 1) * (self.d + 2) // 2

    @property
    def record(self) -> int:
        """The values of a component in the records of parameters."""
        n_blocks = self.padded // self.block
        factors = self.padded if self.diagonal else self.block**2 * n_blocks * (n_blocks + 1) // 2
        return 2 + 2 * self.padded + factors

    @property
    def chunk(self) -> int:
        """Sums of a lane that are added at a time at the end of a tile."""
        return CHUNK_BYTES // np.dtype(self.dtype).itemsize

    @property
    def max_warps(self) -> int:
        """The warps of a block for which the registers suffice."""
        words = self.n_sums * np.dtype(self.dtype).itemsize // 4
        return 10 if words <= (96 if self.whole else 64) else 8

    @property
    def max_registers(self) -> int:
        """The registers of a thread at which a block of ``max_warps`` can start."""
        return min(248, REGISTERS // (32 * self.max_warps) // 8 * 8)

    def factor_positions(self) -> np.ndarray:
        """The places of the factors (d, d), or (d,) of a diagonal, in a record; above the diagonal they have no meaning."""
        at = 2 + 2 * self.padded
        if self.diagonal:
            return at + np.arange(self.d)
        j, i = np.indices((self.d, self.d))
        b = j // self.block
        return at + self.block**2 * (b * (b + 1) // 2) + i * self.block + j % self.block


@dataclass(frozen=True)
class StateLayout:
    """The cells of a run's state: a header, then a failure and a count for each component, the lower bounds, and the parameters."""

    failures: int
    counts: int
    lower_bounds: int
    weights: int
    means: int
    covariances: int
    cholesky: int
    size: int


def state_layout(k: int, d: int, n_covariances: int, max_iter: int) -> StateLayout:
    """Where things are in the state; ``n_covariances`` is the size of the covariances of this type."""
    sizes = (HEADER, k, k, max_iter, k, k * d, n_covariances, n_covariances)
    return StateLayout(*map(int, np.cumsum(sizes)))


@lru_cache
def _e_step(block: int, whole: bool, diagonal: bool, dtype: str, rows: int) -> Any:
    """The device function for a thread's rows of a tile: see its docstring."""
    real = types.float64 if dtype == "float64" else types.float32
    both = rows * block

    @cuda_kernel(device=True)
    def e_step(X, records, shared, tile, k, n_blocks, top, total, best, cross):  # type: ignore[no-untyped-def]
        """Leave the thread's rows of X (n, d) and exp(log joint - top) of each component in shared memory.

        ``records`` (k * record,) real are the parameters, ``shared`` real: (k,) constants, (k, tile) shares, (tile,) for the caller and
        (padded, tile) features. Of each of the thread's rows: ``top`` is the largest log joint, of component ``best``,
        ``total`` the sum of the shares and ``cross`` their sum times (log joint - top). Rows past the end repeat the last.
        """
        t = types.uint32(cuda.threadIdx.x)
        threads = types.uint32(cuda.blockDim.x)
        stride = types.uint32(rows) * threads
        last = types.uint32(X.shape[0]) - types.uint32(1)
        d = types.uint32(X.shape[1])
        padded = types.uint32(block * n_blocks)
        share0 = types.uint32(k) + t
        x0 = share0 + (types.uint32(k) + types.uint32(1)) * stride
        x = cuda.local.array(both, real)
        y = cuda.local.array(both, real)
        diff = cuda.local.array(rows, real)
        value = cuda.local.array(rows, real)
        for r in range(rows):
            row = min(types.uint32(tile) + types.uint32(r) * threads + t, last)
            at = x0 + types.uint32(r) * threads
            if whole:
                for i in range(block):
                    shared[at] = real(X[row, types.uint32(i)])
                    at += stride
            else:
                i = types.uint32(0)
                while i < d:
                    shared[at] = real(X[row, i])
                    at += stride
                    i += types.uint32(1)
                while i < padded:
                    shared[at] = real(1) if i == d else real(0)
                    at += stride
                    i += types.uint32(1)
        if whole:
            for e in range(both):  # one flat loop, which is always written out, so that the arrays are registers
                x[e] = shared[x0 + types.uint32(e % block) * stride + types.uint32(e // block) * threads]

        at = share0
        record = types.uint32(0)
        constant = types.uint32(0)
        for c in range(k):
            centre = record + types.uint32(2)
            offset = centre + padded
            factor = offset + padded
            for r in range(rows):
                value[r] = shared[constant]
            for part in range(n_blocks):
                for e in range(both):
                    y[e] = records[offset + types.uint32(e % block)]
                if diagonal:
                    feature = x0 + types.uint32(block * part) * stride
                    for e in range(both):
                        b = types.uint32(e % block)
                        z = x[e] if whole else shared[feature + b * stride + types.uint32(e // block) * threads]
                        y[e] += records[factor + b] * (z - records[centre + b])
                    centre += types.uint32(block)
                    factor += types.uint32(block)
                elif whole:
                    for i in range(block):
                        for r in range(rows):
                            diff[r] = x[r * block + i] - records[centre + types.uint32(i)]
                        for b in range(block):
                            if b >= i:
                                for r in range(rows):
                                    y[r * block + b] += records[factor + types.uint32(i * block + b)] * diff[r]
                else:
                    feature = x0
                    at_centre = centre
                    for _ in range(block * (part + 1)):
                        for r in range(rows):
                            diff[r] = shared[feature + types.uint32(r) * threads] - records[at_centre]
                        for b in range(block):
                            for r in range(rows):
                                y[r * block + b] += records[factor + types.uint32(b)] * diff[r]
                        feature += stride
                        at_centre += types.uint32(1)
                        factor += types.uint32(block)
                offset += types.uint32(block)
                for e in range(both):
                    value[e // block] -= y[e] * y[e]
            for r in range(rows):
                shared[at + types.uint32(r) * threads] = value[r]
                if c == 0 or value[r] > top[r]:
                    top[r] = value[r]
                    best[r] = c
            at += stride
            record += types.uint32(2) + types.uint32(2) * padded
            record += padded if diagonal else types.uint32(block * block * (n_blocks * (n_blocks + 1) // 2))
            constant += types.uint32(1)

        for r in range(rows):
            total[r] = real(0)
            cross[r] = real(0)
            at = share0 + types.uint32(r) * threads
            end = at + types.uint32(k) * stride
            while at < end:
                exponent = shared[at] - top[r]
                e = math.exp(exponent)
                shared[at] = e
                total[r] += e
                if e > real(0):
                    cross[r] += e * exponent
                at += stride

    return e_step


@cuda_kernel(device=True)
def _load_constants(records, shared, k, record, lowest):  # type: ignore[no-untyped-def]
    """Leave the constants of the components, less the largest, in shared (k,); return the largest, float64.

    Each is the sum of the first two values of its record. ``lowest`` real replaces -inf.
    """
    base = -math.inf
    at = types.uint32(0)
    for _ in range(k):
        base = max(base, float(records[at]) + float(records[at + types.uint32(1)]))
        at += types.uint32(record)
    for c in range(cuda.threadIdx.x, k, cuda.blockDim.x):
        at = types.uint32(c) * types.uint32(record)
        constant = float(records[at]) + float(records[at + types.uint32(1)]) - base
        shared[types.uint32(c)] = max(constant, float(lowest))
    return base


@cuda_kernel(device=True)
def _block_sum(value, shared, at):  # type: ignore[no-untyped-def]
    """The sum of the threads' float64 values, in a fixed order, for thread 0.

    The values go through shared memory from ``at`` on as two numbers of its type each, the second of which is the rounding error of the first.
    """
    t = cuda.threadIdx.x
    high = types.uint32(at) + types.uint32(t)
    low = high + types.uint32(cuda.blockDim.x)
    cuda.syncthreads()
    for limit in (32, 1):  # of the threads that add
        shared[high] = value
        shared[low] = value - float(shared[high])
        cuda.syncthreads()
        if t < limit:
            for other in range(t + limit, cuda.blockDim.x if limit == 32 else 32, limit):
                step = types.uint32(other - t)
                value += float(shared[high + step]) + float(shared[low + step])
        cuda.syncthreads()
    return value


@lru_cache
def _entry_of(block: int, whole: bool, diagonal: bool) -> Any:
    """The device function for the places of a part's sums."""

    @cuda_kernel(device=True)
    def entry_of(e, high, low, d):  # type: ignore[no-untyped-def]
        """The place of sum ``e`` of a part among the entries of its component, or -1 for padding."""
        if whole and not diagonal:
            return e
        if diagonal:
            if e == 2 * block:
                return 2 * d if high == 0 else -1
            feature = block * high + e % block
            return -1 if feature >= d else feature + (d if e >= block else 0)
        i = block * high + e // block
        j = block * low + e % block
        return i * (i + 1) // 2 + j if j <= i <= d else -1

    return entry_of


@lru_cache
def em_tiles(shape: Shape) -> Any:
    """The kernel that adds the statistics of rows, for parameters of this `Shape`."""
    block, whole, diagonal, rows = shape.block, shape.whole, shape.diagonal, shape.rows
    chunk, n_sums, wide = shape.chunk, shape.n_sums, shape.block + 1
    real = types.float64 if shape.dtype == "float64" else types.float32
    lowest = float(np.finfo(shape.dtype).min)
    e_step = _e_step(block, whole, diagonal, shape.dtype, rows)
    entry_of = _entry_of(block, whole, diagonal)

    @cuda_kernel(max_registers=shape.max_registers)
    def em_tiles_kernel(X, weight, labels, records, partial, state, k, tiles_to_add):  # type: ignore[no-untyped-def]
        """Write the statistics of the rows of X (n, d) about the centres to ``partial``.

        ``weight`` (n,) float64, or (0,) where every row counts once; ``labels`` (n,) int32 make the responsibilities 0 or 1, with (0,) they
        come from the densities. ``records`` (k * record,) real. ``partial`` (lines, k * entries + 1) float64: of each component
        the entries of `Shape`; last the log-likelihood without the base. A block has a line for each warp that sums the same part.
        ``tiles_to_add``: after so many tiles the sums in registers are added to the lines. ``state`` (m,) float64 receives the base.
        """
        if state[DONE] != 0.0:
            return
        n = X.shape[0]
        d = block if whole else X.shape[1]
        t = types.uint32(cuda.threadIdx.x)
        lane = t % types.uint32(32)
        warp = cuda.threadIdx.x // 32
        warps = cuda.blockDim.x // 32
        per_block = rows * cuda.blockDim.x
        stride = types.uint32(per_block)
        n_blocks = 1 if whole else d // block + 1
        padded = types.uint32(block * n_blocks)
        pairs = n_blocks * (n_blocks + 1) // 2
        parts = n_blocks if diagonal else pairs
        entries = 2 * d + 1 if diagonal else (d + 1) * (d + 2) // 2
        record = types.uint32(2) + types.uint32(2) * padded
        record += padded if diagonal else types.uint32(block * block * pairs)
        n_items = k * parts
        lines = max(1, warps // n_items)  # of this block
        groups = warps // lines
        keep = n_items <= groups
        line = cuda.blockIdx.x * lines + warp // groups

        shared = cuda.shared.array(0, real)
        top = cuda.local.array(rows, real)
        total = cuda.local.array(rows, real)
        best = cuda.local.array(rows, types.int32)
        cross = cuda.local.array(rows, real)
        sums = cuda.local.array(n_sums, real)
        z = cuda.local.array(wide, real)
        z2 = cuda.local.array(wide, real)
        centres = cuda.local.array(wide, real)
        centres2 = cuda.local.array(wide, real)
        base = _load_constants(records, shared, k, record, lowest)
        if cuda.blockIdx.x == 0 and cuda.threadIdx.x == 0:
            state[BASE] = base
        cuda.syncthreads()

        share0 = types.uint32(k)
        scale0 = share0 + types.uint32(k) * stride
        x0 = scale0 + stride
        scratch0 = share0 if keep else x0 + padded * stride
        scratch0 += types.uint32(warp * chunk * 33)
        mine = 0.0
        for e in range(n_sums):
            sums[e] = real(0)
        step = cuda.gridDim.x * per_block
        until_add = tiles_to_add
        first = True
        for tile in range(cuda.blockIdx.x * per_block, n, step):
            e_step(X, records, shared, tile, k, n_blocks, top, total, best, cross)
            for r in range(rows):
                at = types.uint32(r) * types.uint32(cuda.blockDim.x) + t
                row = types.uint32(tile) + at
                if row < types.uint32(n):
                    w = 1.0
                    if weight.shape[0] > 0:
                        w = weight[row]
                    if labels.shape[0] > 0:
                        own = labels[row]
                        shared[scale0 + at] = real(w)
                        at += share0
                        for c in range(k):
                            shared[at] = real(1) if own == c else real(0)
                            at += stride
                    else:
                        shared[scale0 + at] = real(w) / total[r]
                        mine += w * (float(top[r]) + float(math.log(total[r])))
            cuda.syncthreads()

            filled = min(per_block, n - tile)
            until_add -= 1
            add = until_add == 0 or tile + step >= n or not keep
            for first_item in range(0, n_items, groups):
                item = first_item + warp % groups
                inside = item < n_items
                c = min(item, n_items - 1) // parts
                low = (
                    min(item, n_items - 1) % parts
                )  # a part multiplies features of block `high` by those of block `low`
                high = low
                if not (whole or diagonal):
                    high = 0
                    while low > high:
                        high += 1
                        low -= high
                if not keep:
                    for e in range(n_sums):
                        sums[e] = real(0)
                p = types.uint32(c) * record + types.uint32(2 + block * high)
                p2 = types.uint32(c) * record + types.uint32(2 + block * low)
                for b in range(block):
                    centres[b] = records[p + types.uint32(b)]
                    centres2[b] = records[p2 + types.uint32(b)]
                start = 32 * (warp // groups)
                at = types.uint32(start) + lane
                share = share0 + types.uint32(c) * stride + at
                scale = scale0 + at
                x = x0 + types.uint32(block * high) * stride + at
                x2 = x0 + types.uint32(block * low) * stride + at
                jump = types.uint32(32 * lines)
                for _ in range(start + cuda.threadIdx.x % 32, filled if inside else 0, 32 * lines):
                    s = shared[share] * shared[scale]
                    for b in range(block):
                        z[b] = shared[x + types.uint32(b) * stride] - centres[b]
                    if diagonal:
                        for b in range(block):
                            sums[b] += s * z[b] * z[b]
                            sums[block + b] += s * z[b]
                        sums[n_sums - 1] += s
                    elif whole:
                        z[block] = real(1)
                        for a in range(wide):
                            sz = s * z[a]
                            for b in range(wide):
                                if b <= a:
                                    sums[a * (a + 1) // 2 + b] += sz * z[b]
                    else:
                        for b in range(block):
                            z2[b] = shared[x2 + types.uint32(b) * stride] - centres2[b]
                        for a in range(block):
                            sz = s * z[a]
                            for b in range(block):
                                sums[block * a + b] += sz * z2[b]
                    share += jump
                    scale += jump
                    x += jump
                    x2 += jump
                if add:
                    for e0 in range(0, n_sums, chunk):
                        cuda.syncthreads()
                        at = scratch0 + lane
                        for e in range(chunk):
                            if e0 + e < n_sums:
                                shared[at + types.uint32(33 * e)] = sums[e0 + e]
                                sums[e0 + e] = real(0)
                        cuda.syncthreads()
                        e = e0 + cuda.threadIdx.x % 32
                        entry = (
                            entry_of(e, high, low, d) if inside and cuda.threadIdx.x % 32 < chunk and e < n_sums else -1
                        )
                        if entry >= 0:
                            found = 0.0
                            at = scratch0 + types.uint32(33) * lane
                            for _ in range(cuda.warpsize):
                                found += float(shared[at])
                                at += types.uint32(1)
                            where = types.uint32(c * entries + entry)
                            if first:
                                partial[line, where] = found
                            else:
                                partial[line, where] += found
            if add:
                first = False
                until_add = tiles_to_add
            cuda.syncthreads()
        mine = _block_sum(mine, shared, k)
        if cuda.threadIdx.x == 0:
            for i in range(lines):
                partial[cuda.blockIdx.x * lines + i, k * entries] = mine if i == 0 else 0.0

    return em_tiles_kernel


@lru_cache
def score_rows(shape: Shape) -> Any:
    """The kernel that scores rows, for parameters of this `Shape`."""
    block, whole, diagonal, rows = shape.block, shape.whole, shape.diagonal, shape.rows
    real = types.float64 if shape.dtype == "float64" else types.float32
    lowest = float(np.finfo(shape.dtype).min)
    e_step = _e_step(block, whole, diagonal, shape.dtype, rows)

    @cuda_kernel()
    def score_rows_kernel(X, weight, records, k, base, labels, confidence, distance, log_prob, shares, totals):  # type: ignore[no-untyped-def]
        """Write the scores of the rows of X (n, d).

        ``weight`` (n,) float64, or (0,) where every row counts once; ``records`` (k * record,) real; ``base`` is added to each log p(x). Results: ``labels`` (n,) int32,
        ``confidence`` (n,) float32; ``distance`` (n,) float32 to the centre of the label, ``log_prob`` (n,) float64 and ``shares`` (n, k) real, or
        arrays without rows where they are not wanted. ``totals`` (blocks, 2) float64: log-likelihood without the base, and entropy.
        """
        n = X.shape[0]
        d = block if whole else X.shape[1]
        n_blocks = 1 if whole else d // block + 1
        padded = types.uint32(block * n_blocks)
        record = types.uint32(2) + types.uint32(2) * padded
        record += padded if diagonal else types.uint32(block * block * (n_blocks * (n_blocks + 1) // 2))
        per_block = rows * cuda.blockDim.x
        stride = types.uint32(per_block)
        t = types.uint32(cuda.threadIdx.x)
        shared = cuda.shared.array(0, real)
        top = cuda.local.array(rows, real)
        total = cuda.local.array(rows, real)
        best = cuda.local.array(rows, types.int32)
        cross = cuda.local.array(rows, real)
        base += _load_constants(records, shared, k, record, lowest)
        cuda.syncthreads()
        log_likelihood = 0.0
        entropy = 0.0
        for tile in range(cuda.blockIdx.x * per_block, n, cuda.gridDim.x * per_block):
            e_step(X, records, shared, tile, k, n_blocks, top, total, best, cross)
            for r in range(rows):
                at = types.uint32(k) + types.uint32(r) * types.uint32(cuda.blockDim.x) + t
                row = types.uint32(tile + r * cuda.blockDim.x) + t
                if row < types.uint32(n):
                    w = 1.0
                    if weight.shape[0] > 0:
                        w = weight[row]
                    logarithm = float(math.log(total[r]))
                    labels[row] = best[r]
                    confidence[row] = real(1) / total[r]
                    log_likelihood += w * (float(top[r]) + logarithm)
                    entropy += w * (logarithm - float(cross[r]) / float(total[r]))
                    if log_prob.shape[0] > 0:
                        log_prob[row] = base + (float(top[r]) + logarithm)
                    if distance.shape[0] > 0:
                        square = 0.0
                        x = at + (types.uint32(k) + types.uint32(1)) * stride
                        p = types.uint32(best[r]) * record + types.uint32(2)
                        for _ in range(d):
                            difference = float(shared[x]) - float(records[p])
                            square += difference * difference
                            x += stride
                            p += types.uint32(1)
                        distance[row] = math.sqrt(square)
                    if shares.shape[0] > 0:
                        for c in range(k):
                            shares[row, types.uint32(c)] = shared[at] / total[r]
                            at += stride
        log_likelihood = _block_sum(log_likelihood, shared, k)
        entropy = _block_sum(entropy, shared, k)
        if cuda.threadIdx.x == 0:
            totals[cuda.blockIdx.x, 0] = log_likelihood
            totals[cuda.blockIdx.x, 1] = entropy

    return score_rows_kernel


@cuda_kernel()
def take_rows(X, numbers, rows):  # type: ignore[no-untyped-def]
    """rows (m, d) = the rows of X (n, d) with the numbers (m,) int64."""
    row = cuda.grid(1)
    if row < numbers.shape[0]:
        for i in range(X.shape[1]):
            rows[row, i] = X[numbers[row], i]


@cuda_kernel()
def merge(partial, state, merged):  # type: ignore[no-untyped-def]
    """merged (entries,) = the sum of partial (lines, entries) over the lines, in a fixed order; all float64.

    A block adds `MERGED_ENTRIES` entries: thread (i, j) the lines j, j + blockDim.y, ... of entry i. The iteration is counted here, after
    the run is done too, so that the M-step of a later iteration does nothing.
    """
    if cuda.blockIdx.x == 0 and cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        state[ITERATION] += 1.0
    if state[DONE] != 0.0:
        return
    scratch = cuda.shared.array((MAX_MERGERS, MERGED_ENTRIES), types.float64)
    i, j = cuda.threadIdx.x, cuda.threadIdx.y
    entry = types.uint32(cuda.blockIdx.x * MERGED_ENTRIES + i)
    found = 0.0
    if entry < types.uint32(merged.shape[0]):
        for line in range(j, partial.shape[0], cuda.blockDim.y):
            found += partial[types.uint32(line), entry]
    scratch[types.uint32(j), types.uint32(i)] = found
    cuda.syncthreads()
    if j == 0 and entry < types.uint32(merged.shape[0]):
        for other in range(1, cuda.blockDim.y):
            found += scratch[types.uint32(other), types.uint32(i)]
        merged[entry] = found


@lru_cache
def m_step(matrices: bool) -> Any:
    """The kernel of the M-step, for covariances that are ``matrices`` (FULL and TIED) or not."""

    @cuda_kernel()
    def m_step_kernel(merged, state, records, work, k, d, block, kind, reg_covar, resolution, tol, total, max_iter):  # type: ignore[no-untyped-def]
        """The M-step: block c leaves the parameters of component c in the state and in its record.

        ``merged`` (k * entries + 1,), ``state`` of `state_layout` and ``work`` (k, 2, d, d) are float64, ``records`` (k * record,) real. ``block`` is that
        of the `Shape` of the records, ``kind`` one of FULL, TIED, DIAG, SPHERICAL; ``total`` the sum of the weights. Where a component is not finite,
        empty (weight of ``resolution`` or less) or ill-defined, or the mean log-likelihood changes by less than ``tol``, the state says after which
        iteration the run is done; kernels of later iterations then leave everything as it is.
        """
        iteration = int(state[ITERATION])
        if state[DONE] != 0.0 and state[DONE] < iteration:
            return
        c = cuda.blockIdx.x
        t = cuda.threadIdx.x
        threads = cuda.blockDim.x
        entries = (d + 1) * (d + 2) // 2 if matrices else 2 * d + 1
        padded = block if block == d else (d // block + 1) * block
        n_blocks = padded // block
        size = 2 + 2 * padded + (block * block * n_blocks * (n_blocks + 1) // 2 if matrices else padded)
        record = c * size
        line = c * entries
        first_sum = entries - 1 - d
        failures, counts = HEADER, HEADER + k
        lower_bounds = counts + k
        weights = lower_bounds + max_iter
        means = weights + k
        covariances = means + k * d
        per_component = d * d if matrices else d if kind == DIAG else 1
        cholesky = covariances + (per_component if kind == TIED else k * per_component)
        own = 0 if kind == TIED else c * per_component
        writes = kind != TIED or c == 0

        if c == 0 and t == 0:
            bound = (merged[k * entries] + state[BASE] * total) / total
            state[lower_bounds + iteration - 1] = bound
            if iteration > 1 and abs(bound - state[lower_bounds + iteration - 2]) < tol:
                state[CONVERGED] = 1.0
                state[DONE] = iteration
        count = merged[line + entries - 1]
        failure = 0
        for i in range(d):
            if not math.isfinite(merged[line + first_sum + i]):
                failure = NOT_FINITE
        if failure == 0 and count <= resolution:
            failure = EMPTY
        if failure != 0:
            if t == 0:
                state[failures + c] = failure
                state[counts + c] = count
                state[DONE] = iteration
            return
        all_counts = 0.0
        for q in range(k):
            all_counts += merged[q * entries + entries - 1]
        weight = count / all_counts
        for i in range(t, d, threads):
            mean = float(records[record + 2 + i]) + merged[line + first_sum + i] / count
            state[means + c * d + i] = mean
            records[record + 2 + i] = mean  # rounded to the type of the records
        cuda.syncthreads()

        log_det = 0.0
        ill_defined = False
        if matrices:
            for p in range(t, d * d, threads):
                i = p // d
                j = p % d
                if j <= i:
                    value = 0.0
                    for q in range(0 if kind == TIED else c, k if kind == TIED else c + 1):
                        at = q * entries
                        n_q = merged[at + entries - 1]
                        moved = merged[at + first_sum + i] / n_q
                        value += merged[at + i * (i + 1) // 2 + j] - moved * merged[at + first_sum + j]
                    value /= all_counts if kind == TIED else count
                    if i == j:
                        value += reg_covar
                    work[c, 0, i, j] = value
                    if writes:
                        state[covariances + own + i * d + j] = value
                        state[covariances + own + j * d + i] = value
            for j in range(d):  # Cholesky, a column at a time
                cuda.syncthreads()
                pivot = work[c, 0, j, j]
                if not pivot > 0.0:
                    ill_defined = True
                    break
                root = math.sqrt(pivot)
                cuda.syncthreads()
                for i in range(j + t, d, threads):
                    work[c, 0, i, j] /= root
                cuda.syncthreads()
                m = d - j - 1
                for p in range(t, m * m, threads):
                    i = j + 1 + p // m
                    q = j + 1 + p % m
                    if q <= i:
                        work[c, 0, i, q] -= work[c, 0, i, j] * work[c, 0, q, j]
            if not ill_defined:
                for j in range(t, d, threads):  # the inverse, a column for each thread
                    for i in range(d):
                        value = 1.0 if i == j else 0.0
                        for q in range(j, i):
                            value -= work[c, 0, i, q] * work[c, 1, q, j]
                        work[c, 1, i, j] = value / work[c, 0, i, i] if i >= j else 0.0
                cuda.syncthreads()
                for i in range(d):
                    log_det += math.log(work[c, 1, i, i])
                for p in range(t, d * d if writes else 0, threads):
                    state[cholesky + own + p] = work[c, 1, p % d, p // d]
        else:
            value = 0.0
            for i in range(d):
                moved = merged[line + first_sum + i] / count
                variance = merged[line + i] / count - moved * moved + reg_covar
                if kind == SPHERICAL:
                    value += variance / d
                else:
                    ill_defined = ill_defined or not variance > 0.0
                    log_det -= 0.5 * math.log(max(variance, TINY))
                    if t == 0:
                        work[c, 0, 0, i] = variance
            if kind == SPHERICAL:
                ill_defined = not value > 0.0
                log_det = -0.5 * d * math.log(max(value, TINY))
                if t == 0:
                    for i in range(d):
                        work[c, 0, 0, i] = value
            cuda.syncthreads()
        if ill_defined:
            if t == 0:
                state[failures + c] = ILL_DEFINED
                state[DONE] = iteration
            return

        half = math.sqrt(0.5)
        at_offset = record + 2 + padded
        at_factor = at_offset + padded
        for j in range(t, d, threads):
            offset = 0.0
            part = j // block
            for i in range(0 if matrices else j, j + 1):
                factor = work[c, 1, j, i] if matrices else 1.0 / math.sqrt(work[c, 0, 0, j])
                offset += factor * (float(records[record + 2 + i]) - state[means + c * d + i])
                if matrices:
                    records[at_factor + block * block * (part * (part + 1) // 2) + i * block + j % block] = (
                        half * factor
                    )
                else:
                    records[at_factor + j] = half * factor
                    if kind == DIAG:
                        state[covariances + own + j] = work[c, 0, 0, j]
                        state[cholesky + own + j] = factor
            records[at_offset + j] = half * offset
        if t == 0:
            constant = math.log(weight) + log_det - 0.5 * d * math.log(2.0 * math.pi)
            state[weights + c] = weight
            records[record] = constant
            records[record + 1] = constant - float(records[record])
            if kind == SPHERICAL:
                state[covariances + c] = work[c, 0, 0, 0]
                state[cholesky + c] = 1.0 / math.sqrt(work[c, 0, 0, 0])

    return m_step_kernel
