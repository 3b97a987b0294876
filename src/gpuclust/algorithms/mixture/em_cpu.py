"""The EM pass on a CPU: blocks of rows, transposed so that every inner loop runs over contiguous memory.

Threads take chunks of rows, whose statistics are merged in a fixed order: the result has the same bits on any number of
threads. The only arrays of n rows are the results.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import numpy as np

from gpuclust.algorithms.mixture.em import Array, EMBackend, EMScores, EMStatistics, KernelParameters, recentre
from gpuclust.algorithms.mixture.kernels_cpu import ROWS, KernelArrays, Moments, RowRange, RowScores, em_chunk
from gpuclust.runtime.threads import in_threads

MIN_CHUNK = 16 * ROWS
MAX_CHUNKS = 64
MAX_PARTIALS = 16 * 2**20  # bytes of partial statistics that may wait to be merged

_T = TypeVar("_T")


class CpuPasses(EMBackend):
    """The passes in host memory, by the kernels of `kernels_cpu` in threads."""

    def matrix(self, X: Array) -> np.ndarray:
        """X (n, d) as float32 or float64 in C or Fortran order; a copy only where it is neither."""
        X = np.asarray(X)
        if X.dtype not in (np.float32, np.float64):
            X = X.astype(np.float64)
        if not (X.flags.aligned and (X.flags.c_contiguous or X.flags.f_contiguous)):
            X = np.array(X, order="C")
        return X

    def host(self, X: Array) -> np.ndarray:
        """X itself: it is in host memory."""
        return np.asarray(X)

    def _moments(self, X: np.ndarray, labels: Array, sample_weight: Array | None, c: KernelParameters) -> EMStatistics:
        """The statistics about the centres, chunk by chunk, then about the means."""
        k, d = c.centres.shape
        flat, row_stride, column_stride = _flat(X)
        labels = _writeable(np.ascontiguousarray(labels, dtype=np.int32))
        weight = _weights(sample_weight)
        no_out = RowScores(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0), np.empty((0, k), X.dtype))
        parameters = KernelArrays(*c.arrays)

        def accumulate(start: int, stop: int) -> EMStatistics:
            counts, sums, scatter = np.zeros(k), np.zeros((k, d)), np.zeros(c.factors.shape)
            rows = RowRange(flat, row_stride, column_stride, start, stop, weight, c.base)
            log_likelihood, _ = em_chunk(rows, labels, parameters, Moments(counts, sums, scatter), no_out)
            return EMStatistics(log_likelihood, counts, sums, scatter)

        chunks = _map_chunks(accumulate, len(X), partial_bytes=8 * (c.factors.size + k * d + k))
        merged = reduce(operator.add, chunks)
        return recentre(merged, c, _total(weight, len(X)))

    def _scores(
        self, X: np.ndarray, sample_weight: Array | None, c: KernelParameters, responsibilities: bool
    ) -> EMScores:
        n, k = len(X), len(c.centres)
        shares = np.empty((n if responsibilities else 0, k), dtype=X.dtype)
        out = RowScores(np.empty(n, dtype=np.int32), np.empty(n, dtype=np.float32), np.empty(n), shares)
        flat, row_stride, column_stride = _flat(X)
        weight = _weights(sample_weight)
        no_labels = np.empty(0, dtype=np.int32)
        no_moments = Moments(np.empty(0), np.empty((0, 0)), np.empty((0, 0, 0)))
        parameters = KernelArrays(*c.arrays)

        def score(start: int, stop: int) -> tuple[float, float]:
            rows = RowRange(flat, row_stride, column_stride, start, stop, weight, c.base)
            return em_chunk(rows, no_labels, parameters, no_moments, out)

        totals = np.array(_map_chunks(score, n, partial_bytes=16))
        log_likelihood, entropy = totals.sum(axis=0)
        log_likelihood += c.base * _total(weight, n)
        return EMScores(*out[:3], float(log_likelihood), float(entropy), shares if responsibilities else None)


def _total(weight: np.ndarray, n: int) -> float:
    return float(weight.sum()) if weight.size else float(n)


def _map_chunks(work: Callable[[int, int], _T], n: int, *, partial_bytes: int) -> list[_T]:
    """The results of work(start, stop) over chunks of the rows, in order. The chunks depend on the sizes alone."""
    n_chunks = max(1, min(MAX_CHUNKS, n // MIN_CHUNK, MAX_PARTIALS // partial_bytes))
    length = -(-n // (n_chunks * ROWS)) * ROWS
    starts = range(0, n, length)
    results: list[Any] = [None] * len(starts)

    def run(first: int, last: int) -> None:
        for chunk in range(first, last):
            results[chunk] = work(starts[chunk], min(starts[chunk] + length, n))

    in_threads(len(starts), run)
    return results


def _flat(X: np.ndarray) -> tuple[np.ndarray, int, int]:
    """X flattened (n * d,), and its row and column strides in elements: one compiled version serves both orders."""
    n, d = X.shape
    if X.flags.c_contiguous:
        return _writeable(X.reshape(-1)), d, 1
    return _writeable(X.T.reshape(-1)), 1, n


def _weights(sample_weight: Array | None) -> np.ndarray:
    """Sample weights (n,) float64; empty where there are none."""
    if sample_weight is None:
        return np.empty(0)
    return _writeable(np.ascontiguousarray(sample_weight, dtype=np.float64))


class _Alias:
    """The same memory without the read-only flag, which numba treats as another type. The passes never write to it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__: dict[str, Any] = interface


def _writeable(array: np.ndarray) -> np.ndarray:
    """Avoids compiling again for read-only arrays, as pandas and memory maps give them."""
    return array if array.flags.writeable else np.asarray(_Alias(array))
