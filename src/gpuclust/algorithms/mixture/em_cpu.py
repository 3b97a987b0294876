"""The EM pass on a CPU: tiles of rows, transposed so that every inner loop runs over contiguous memory.

Threads take chunks of rows. The statistics of the chunks of a block of rows (`gpuclust.runtime.blocks`) are added in order, and those of
the blocks are merged in one fixed tree. The result therefore has the same bits with any number of threads, and wherever the blocks are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from gpuclust.algorithms.mixture.em import Array, EMScores, EMStatistics, KernelParameters, recentre
from gpuclust.algorithms.mixture.kernels_cpu import ROWS, KernelArrays, Moments, RowRange, RowScores, em_chunk
from gpuclust.algorithms.mixture.kernels_wide import em_chunk_wide, use_wide
from gpuclust.algorithms.mixture.m_step import HostIterations
from gpuclust.runtime.blocks import BLOCK_ROWS, MergeTree, Run
from gpuclust.runtime.threads import in_threads

MIN_CHUNK = 16 * ROWS
MAX_CHUNKS = 64  # of a matrix, where its blocks have more than two: a call costs as much as some hundred rows
MAX_PARTIALS = 16 * 2**20  # bytes of partial statistics that may wait to be merged

Chunk = tuple[int, int]
NO_LABELS = np.empty(0, dtype=np.int32)
NO_WEIGHT = np.empty(0)
NO_SCORES = {
    name: RowScores(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0), np.empty((0, 0), name))
    for name in ("float32", "float64")
}


def chunk_kernel(c: KernelParameters) -> Callable[..., tuple[float, float]]:
    """The kernel for these parameters."""
    return em_chunk_wide if use_wide(c.factors) else em_chunk


class CpuPasses(HostIterations):
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
        """The statistics about the centres, merged over the blocks, then about the means."""
        weight = _weights(sample_weight)
        tree = MergeTree(-(-len(X) // BLOCK_ROWS))
        for block, sums in enumerate(block_sums(X, labels, weight, c, len(X))):
            tree.put(0, block, sums)
        return statistics_of(tree.value, c, _total(weight, len(X)))

    def _scores(
        self, X: np.ndarray, sample_weight: Array | None, c: KernelParameters, responsibilities: bool
    ) -> EMScores:
        n, k = len(X), len(c.centres)
        shares = np.empty((n if responsibilities else 0, k), dtype=X.dtype)
        out = RowScores(np.empty(n, dtype=np.int32), np.empty(n, dtype=np.float32), np.empty(n), shares)
        flat, row_stride, column_stride = _flat(X)
        weight = _weights(sample_weight)
        no_moments = Moments(np.empty(0), np.empty((0, 0)), np.empty((0, 0, 0)))
        parameters = KernelArrays(*c.arrays)

        def score(start: int, stop: int) -> np.ndarray:
            rows = RowRange(flat, row_stride, column_stride, start, stop, weight, c.base)
            return np.array(chunk_kernel(c)(rows, NO_LABELS, parameters, no_moments, out))

        tree = MergeTree(-(-n // BLOCK_ROWS))
        for block, totals in enumerate(merged_chunks(chunks_of_blocks(n, partial_bytes=16), score)):
            tree.put(0, block, totals)
        log_likelihood, entropy = tree.value
        log_likelihood += c.base * _total(weight, n)
        return EMScores(*out[:3], float(log_likelihood), float(entropy), shares if responsibilities else None)


def block_sums(
    X: np.ndarray, labels: Array, weight: np.ndarray, c: KernelParameters, n_rows: int
) -> Iterator[np.ndarray]:
    """For each block of X, which are all or some of a matrix of ``n_rows`` rows, the log-likelihood without the base, and the count, sums and scatter of each component about the
    centres, in one line (m,) float64. ``labels`` (n,), or (0,) for an E-step; ``weight`` (n,) float64, or (0,)."""
    k, d = c.centres.shape
    flat, row_stride, column_stride = _flat(X)
    labels = _writeable(np.ascontiguousarray(labels, dtype=np.int32))
    no_out = NO_SCORES[X.dtype.name]
    parameters = KernelArrays(*c.arrays)
    width = 1 + k + k * d + c.factors.size

    def accumulate(start: int, stop: int) -> np.ndarray:
        line = np.zeros(width)
        rows = RowRange(flat, row_stride, column_stride, start, stop, weight, c.base)
        line[0], _ = chunk_kernel(c)(rows, labels, parameters, Moments(*_parts(line, c)), no_out)
        return line

    partial_bytes = 8 * (c.factors.size + k * d + k)
    blocks = chunks_of_blocks(len(X), partial_bytes=partial_bytes, most=max(2, MAX_CHUNKS // -(-n_rows // BLOCK_ROWS)))
    step = max(1, MAX_PARTIALS // (partial_bytes * max(map(len, blocks), default=1)))
    for first in range(0, len(blocks), step):
        yield from merged_chunks(blocks[first : first + step], accumulate)


@dataclass(frozen=True)
class ScoredRun:
    """The scores of the rows of a run: ``labels`` int32, ``confidence`` float32 in [0, 1] and ``distance`` float32 to the own mean,
    all (n,); and for each block the log-likelihood without the base and the entropy, (n_blocks, 2) float64."""

    labels: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    totals: np.ndarray


def score_part(run: Run, c: KernelParameters, means: np.ndarray) -> ScoredRun:
    """Score the rows of a run in float64, a chunk at a time, whatever their dtype and order."""
    n, k = len(run.X), len(means)
    labels, confidence, distance = np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.float32)
    no_moments = Moments(np.empty(0), np.empty((0, 0)), np.empty((0, 0, 0)))
    parameters = KernelArrays(*c.arrays)

    def score(start: int, stop: int) -> np.ndarray:
        X = _writeable(np.ascontiguousarray(run.X[start:stop], dtype=np.float64))
        out = RowScores(labels[start:stop], confidence[start:stop], np.empty(len(X)), np.empty((0, k)))
        rows = RowRange(X.reshape(-1), X.shape[1], 1, 0, len(X), NO_WEIGHT, c.base)
        totals = chunk_kernel(c)(rows, NO_LABELS, parameters, no_moments, out)
        squares = np.zeros(len(X))
        for j in range(X.shape[1]):
            squares += (X[:, j] - means[out.labels, j]) ** 2
        distance[start:stop] = np.sqrt(squares)
        return np.array(totals)

    totals = list(merged_chunks(chunks_of_blocks(n, partial_bytes=16), score))
    return ScoredRun(labels, confidence, distance, np.array(totals))


def moments_part(run: Run, c: KernelParameters, n_rows: int) -> list[np.ndarray]:
    """The lines of `block_sums` of a run, for the E-step."""
    return list(block_sums(run.X, NO_LABELS, NO_WEIGHT, c, n_rows))


def statistics_of(line: np.ndarray, c: KernelParameters, total: float) -> EMStatistics:
    """The statistics about the means, from the merged lines of `block_sums`. ``total`` is the sum of the weights."""
    return recentre(EMStatistics(float(line[0]), *_parts(line, c)), c, total)


def _parts(line: np.ndarray, c: KernelParameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The counts (k,), sums (k, d) and scatter of a line."""
    k, d = c.centres.shape
    sums, scatter = line[1 + k : 1 + k + k * d], line[1 + k + k * d :]
    return line[1 : 1 + k], sums.reshape(k, d), scatter.reshape(c.factors.shape)


@lru_cache(maxsize=64)
def chunks_of_blocks(n: int, *, partial_bytes: int, most: int = MAX_CHUNKS) -> list[list[Chunk]]:
    """The rows (start, stop) of the chunks of each block, at most ``most`` in each. They depend on the sizes alone."""
    blocks = []
    for first in range(0, n, BLOCK_ROWS):
        n_rows = min(BLOCK_ROWS, n - first)
        n_chunks = max(1, min(n_rows // MIN_CHUNK, MAX_PARTIALS // partial_bytes, most))
        length = -(-n_rows // (n_chunks * ROWS)) * ROWS
        blocks.append([(first + at, first + min(at + length, n_rows)) for at in range(0, n_rows, length)])
    return blocks


def merged_chunks(blocks: Sequence[Sequence[Chunk]], work: Callable[[int, int], np.ndarray]) -> Iterator[np.ndarray]:
    """For each block the sum of work(start, stop) over its chunks, in order; threads take the chunks of all blocks."""
    chunks = [chunk for block in blocks for chunk in block]
    results: list[Any] = [None] * len(chunks)

    def run(first: int, last: int) -> None:
        for i in range(first, last):
            results[i] = work(*chunks[i])

    in_threads(len(chunks), run)
    of_chunks = iter(results)
    for block in blocks:
        yield reduce(operator.add, [next(of_chunks) for _ in block])


def _total(weight: np.ndarray, n: int) -> float:
    return float(weight.sum()) if weight.size else float(n)


def _flat(X: np.ndarray) -> tuple[np.ndarray, int, int]:
    """X flattened (n * d,), and its row and column strides in elements: one compiled version serves both orders."""
    n, d = X.shape
    if X.flags.c_contiguous:
        return _writeable(X.reshape(-1)), d, 1
    return _writeable(X.T.reshape(-1)), 1, n


def _weights(sample_weight: Array | None) -> np.ndarray:
    """Sample weights (n,) float64; empty where there are none."""
    if sample_weight is None:
        return NO_WEIGHT
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
