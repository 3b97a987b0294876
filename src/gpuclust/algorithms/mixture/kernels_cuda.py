"""The EM pass on a CUDA device: the same sums as `em_cpu`, a tile of rows per block at a time.

In a tile every thread first takes a row (its responsibilities go to shared memory), then an entry of the statistics,
which it sums over the tile. So each entry of a block's partial sums has one owner: no atomics. Partials are float64 in
global memory and merged in float64. Imported only where it is used; arrays come from any library that offers
``__cuda_array_interface__``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda, types

from gpuclust.algorithms.mixture.em import Array, EMBackend, EMScores, EMStatistics, KernelParameters, recentre
from gpuclust.errors import FitError
from gpuclust.runtime.jit import ignore_small_grid_warnings

SHARED_BYTES = 48 * 1024  # what a block may use on every device without asking for more
MAX_THREADS = 128
MAX_BLOCKS = 1024
MAX_PARTIALS = 256 * 2**20  # bytes of partial sums on the device


class CudaPasses(EMBackend):
    """The passes on the current CUDA device."""

    def matrix(self, X: Array) -> Array:
        """X (n, d) as an array on the device, float32 or float64; no copy of one that is there."""
        if hasattr(X, "__cuda_array_interface__"):
            X = cuda.as_cuda_array(X)
        elif isinstance(X, np.ndarray):
            X = cuda.to_device(X if X.dtype in (np.float32, np.float64) else X.astype(np.float64))
        if X.dtype not in (np.float32, np.float64):
            raise FitError(f"a matrix of {X.dtype} on the device cannot be fitted; convert it to float32 or float64")
        return X

    def host(self, X: Array) -> np.ndarray:
        """X in host memory."""
        if isinstance(X, np.ndarray):
            return X
        return (cuda.as_cuda_array(X) if not hasattr(X, "copy_to_host") else X).copy_to_host()

    def _moments(self, X: Array, labels: Array, sample_weight: Array | None, c: KernelParameters) -> EMStatistics:
        n, d = X.shape
        k, diagonal = len(c.factors), c.factors.shape[1] == 1
        if isinstance(labels, np.ndarray):
            labels = labels.astype(np.int32)
        rows, columns = (np.arange(d), np.arange(d)) if diagonal else np.tril_indices(d)
        entries = 1 + d + len(rows)  # a component's count, sums and scatter
        threads, shared = _tile(X, k)
        blocks = max(1, min(MAX_BLOCKS, -(-n // threads), MAX_PARTIALS // (8 * k * entries)))
        partial = cuda.to_device(np.zeros((blocks, k * entries)))
        log_likelihood = cuda.to_device(np.zeros(blocks * threads))
        merged = cuda.device_array(k * entries, dtype=np.float64)
        weight = _weights(sample_weight)
        em_tiles, _, merge = _kernels(str(X.dtype))
        pairs = [cuda.to_device(a.astype(np.int32)) for a in (rows, columns)]
        with ignore_small_grid_warnings():
            em_tiles[blocks, threads, 0, shared](
                X, weight, _device(labels), *map(cuda.to_device, c.arrays), *pairs, partial, log_likelihood
            )
            merge[-(-k * entries // MAX_THREADS), MAX_THREADS](partial, merged)
        found = merged.copy_to_host().reshape(k, entries)
        scatter = np.zeros(c.factors.shape)
        scatter[:, np.zeros(d, dtype=int) if diagonal else rows, columns] = found[:, 1 + d :]
        statistics = EMStatistics(
            float(log_likelihood.copy_to_host().sum()), found[:, 0].copy(), found[:, 1 : 1 + d].copy(), scatter
        )
        return recentre(statistics, c, float(n) if sample_weight is None else float(self.host(weight).sum()))

    def _scores(self, X: Array, sample_weight: Array | None, c: KernelParameters, responsibilities: bool) -> EMScores:
        n, k = X.shape[0], len(c.centres)
        threads, shared = _tile(X, k)
        blocks = max(1, min(MAX_BLOCKS, -(-n // threads)))
        labels = cuda.device_array(n, dtype=np.int32)
        confidence = cuda.device_array(n, dtype=np.float32)
        log_prob = cuda.device_array(n, dtype=np.float64)
        shares = cuda.device_array((n if responsibilities else 1, k), dtype=X.dtype)
        totals = cuda.to_device(np.zeros((2, blocks * threads)))
        parameters = [cuda.to_device(a) for a in c.arrays]
        _, score_rows, _ = _kernels(str(X.dtype))
        with ignore_small_grid_warnings():
            score_rows[blocks, threads, 0, shared](
                X, _weights(sample_weight), *parameters, c.base, labels, confidence, log_prob, shares, totals
            )
        log_likelihood, entropy = totals.copy_to_host().sum(axis=1)
        return EMScores(
            labels.copy_to_host(),
            confidence.copy_to_host(),
            log_prob.copy_to_host(),
            float(log_likelihood),
            float(entropy),
            shares.copy_to_host() if responsibilities else None,
        )


def _tile(X: Array, n_components: int) -> tuple[int, int]:
    """Rows of a tile, which are the threads of a block, and its bytes of shared memory."""
    row = (X.shape[1] + n_components) * np.dtype(X.dtype).itemsize
    threads = MAX_THREADS
    while threads >= 32:
        if (threads + 1) * row <= SHARED_BYTES:
            return threads, (threads + 1) * row
        threads //= 2
    raise FitError(
        f"{n_components} components of {X.shape[1]} features are too many for the device's shared memory; use "
        "backend=cpu, dtype=float32, or fewer of either"
    )


def _device(array: Array) -> Array:
    return cuda.to_device(array) if isinstance(array, np.ndarray) else cuda.as_cuda_array(array)


def _weights(sample_weight: Array | None) -> Array:
    """Sample weights on the device, or nothing for ones."""
    if sample_weight is None:
        return cuda.to_device(np.empty(0))
    return _device(sample_weight.astype(np.float64) if hasattr(sample_weight, "astype") else sample_weight)


@lru_cache
def _kernels(dtype: str) -> tuple[Any, Any, Any]:
    """The kernels for float32 or float64: statistics of tiles, scores of rows, merging of partials.

    Arrays are on the device. Those called ``real`` below have this dtype. Every kernel takes X (n, d) real, weight (n,)
    float64 or (0,) where every row counts once, and the parameters of `KernelParameters`, all real: centres (k, d),
    factors (k, d, d) or (k, 1, d), offsets (k, d), constants (k,). The dynamic shared memory of a block holds
    (d + k, threads + 1) real: the rows of its tile, a column each, and their responsibilities.
    """
    real = types.float64 if dtype == "float64" else types.float32
    one = np.dtype(dtype).type(1)
    zero = np.dtype(dtype).type(0)
    device_function: Callable[..., Any] = cuda.jit(device=True)

    @device_function
    def log_joint(x, t, stride, centres, factors, offsets, constants, c):  # type: ignore[no-untyped-def]
        """The log of component c's weighted density of row t of the tile, as in `KernelParameters`; real.

        ``x`` (d * stride,) real is the tile, feature after feature.
        """
        d = centres.shape[1]
        diagonal = factors.shape[1] == 1
        value = constants[c]
        for j in range(d):
            y = offsets[c, j]
            if diagonal:
                y += factors[c, 0, j] * (x[j * stride + t] - centres[c, j])
            else:
                for i in range(j + 1):
                    y += factors[c, j, i] * (x[i * stride + t] - centres[c, i])
            value -= y * y
        return value

    @device_function
    def responsibilities(x, t, stride, centres, factors, offsets, constants, share):  # type: ignore[no-untyped-def]
        """Leave exp(log joint - top) in share[c * stride + t]; the likeliest component, ``top`` and the sum.

        ``share`` (k * stride,) real; ``top`` is the largest log joint of the row. Returns int, real, real.
        """
        k = centres.shape[0]
        best = 0
        top = zero
        for c in range(k):
            value = log_joint(x, t, stride, centres, factors, offsets, constants, c)
            share[c * stride + t] = value
            if c == 0 or value > top:
                top = value
                best = c
        total = zero
        for c in range(k):
            e = math.exp(share[c * stride + t] - top)
            share[c * stride + t] = e
            total += e
        return best, top, total

    @cuda.jit
    def em_tiles(X, weight, labels, centres, factors, offsets, constants, rows, columns, partial, log_likelihood):  # type: ignore[no-untyped-def]
        """Add the moments of a block's tiles about the centres to its line of ``partial``.

        ``labels`` (n,) int32 make the responsibilities 0 or 1; with (0,) they come from the densities. ``rows`` and
        ``columns`` (m,) int32 are the entries of the scatter. ``partial`` (blocks, k * (1 + d + m)) float64, zeros at first:
        of each component the count, the sums and the scatter. ``log_likelihood`` (blocks * threads,) float64 receives each
        thread's sum of w log p(x) without the base.
        """
        n, d = X.shape
        k = centres.shape[0]
        t = cuda.threadIdx.x
        threads = cuda.blockDim.x
        stride = threads + 1  # neighbours in a column fall in different banks
        shared = cuda.shared.array(0, real)
        x = shared[: d * stride]
        share = shared[d * stride : (d + k) * stride]
        entries = 1 + d + rows.shape[0]
        block = cuda.blockIdx.x
        mine = 0.0
        for tile in range(block * threads, n, cuda.gridDim.x * threads):
            row = tile + t
            if row < n:
                w = one
                if weight.shape[0] > 0:
                    w = real(weight[row])
                for i in range(d):
                    x[i * stride + t] = X[row, i]
                if labels.shape[0] > 0:
                    for c in range(k):
                        share[c * stride + t] = w if labels[row] == c else zero
                else:
                    _, top, total = responsibilities(x, t, stride, centres, factors, offsets, constants, share)
                    mine += float(w) * (float(top) + float(math.log(total)))
                    for c in range(k):
                        share[c * stride + t] *= w / total
            cuda.syncthreads()
            filled = min(threads, n - tile)
            for entry in range(t, k * entries, threads):
                c = entry // entries
                m = entry - c * entries
                s = zero
                if m == 0:
                    for r in range(filled):
                        s += share[c * stride + r]
                elif m <= d:
                    i = m - 1
                    for r in range(filled):
                        s += share[c * stride + r] * (x[i * stride + r] - centres[c, i])
                else:
                    i = rows[m - 1 - d]
                    j = columns[m - 1 - d]
                    for r in range(filled):
                        a = x[i * stride + r] - centres[c, i]
                        b = x[j * stride + r] - centres[c, j]
                        s += share[c * stride + r] * a * b
                partial[block, entry] += s
            cuda.syncthreads()
        log_likelihood[block * threads + t] = mine

    @cuda.jit
    def score_rows(X, weight, centres, factors, offsets, constants, base, labels, confidence, log_prob, shares, totals):  # type: ignore[no-untyped-def]
        """Write the scores of every row, a thread a row at a time.

        ``base`` float64 is added to each log p(x). Results: ``labels`` (n,) int32, ``confidence`` (n,) float32,
        ``log_prob`` (n,) float64, ``shares`` (n, k) real or (1, k) where they are not wanted. ``totals``
        (2, blocks * threads) float64, zeros at first: each thread's log-likelihood and entropy.
        """
        n, d = X.shape
        k = centres.shape[0]
        t = cuda.threadIdx.x
        threads = cuda.blockDim.x
        stride = threads + 1
        shared = cuda.shared.array(0, real)
        x = shared[: d * stride]
        share = shared[d * stride : (d + k) * stride]
        mine = cuda.blockIdx.x * threads + t
        for row in range(mine, n, cuda.gridDim.x * threads):
            for i in range(d):
                x[i * stride + t] = X[row, i]
            best, top, total = responsibilities(x, t, stride, centres, factors, offsets, constants, share)
            logarithm = top + math.log(total)
            labels[row] = best
            confidence[row] = one / total
            log_prob[row] = base + float(logarithm)
            w = 1.0
            if weight.shape[0] > 0:
                w = weight[row]
            totals[0, mine] += w * log_prob[row]
            for c in range(k):
                r = share[c * stride + t] / total
                if r > zero:  # -r log r; a share of 0 counts 0
                    totals[1, mine] -= w * float(r) * math.log(float(r))
                if shares.shape[0] == n:
                    shares[row, c] = r

    @cuda.jit
    def merge(partial, merged):  # type: ignore[no-untyped-def]
        """merged (entries,) = the sum of partial (blocks, entries) over the blocks, in order; both float64."""
        entry = cuda.grid(1)
        if entry < merged.shape[0]:
            s = 0.0
            for block in range(partial.shape[0]):
                s += partial[block, entry]
            merged[entry] = s

    return em_tiles, score_rows, merge
