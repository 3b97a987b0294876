"""Lloyd's iterations to their end: many runs advanced together, with scikit-learn's stopping rule and empty clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpuclust.algorithms.kmeans.kernels_cpu import UNIT, LloydBatch
from gpuclust.algorithms.kmeans.tiled_matrix import TiledMatrix

BATCH_BYTES = 64 * 2**20  # of labels and statistics of the runs that advance together


@dataclass(frozen=True)
class LloydResult:
    """Where a run of Lloyd's iterations ended."""

    centers: np.ndarray  # in the coordinates of the rows
    inertia: float
    n_iter: int
    converged: bool


def run_lloyd(rows: TiledMatrix, jobs: Sequence[tuple[np.ndarray, int, float]], *, exact: bool) -> list[LloydResult]:
    """Run (start, max_iter, tol) jobs to their ends, as many at once as BATCH_BYTES allows.

    With `exact`, centres are the means of the rows of the matrix in float64, not of its float32 tiles.
    """
    outcomes: list[LloydResult] = []
    for group in _batches(rows, jobs):
        batch = LloydBatch(rows, [start for start, _, _ in group])
        limits = np.array([max_iter for _, max_iter, _ in group])
        least_move = np.array([tol for _, _, tol in group]) * rows.variance
        n_iter = np.zeros(len(group), np.int64)
        settled, relocated = np.zeros((2, len(group)), bool)
        running = np.arange(len(group))
        while len(running):
            batch.run_pass(running)
            relocated[running] = False
            for fit in running[batch.total.n_empty[running] > 0]:
                relocated[fit] = _relocate(batch, int(fit))
            batch.move(running)
            n_iter[running] += 1
            settled[running] = (batch.total.changed[running] == 0) | (batch.total.moved[running] <= least_move[running])
            running = running[~settled[running] & (n_iter[running] < limits[running])]
        outcomes += [
            LloydResult(
                _centers(batch, i, exact and not relocated[i]), batch.inertia(i), int(n_iter[i]), bool(settled[i])
            )
            for i in range(len(group))
        ]
    return outcomes


def _centers(batch: LloydBatch, fit: int, exact: bool) -> np.ndarray:
    """A run's centres; the means of their rows in the matrix itself where that is wanted."""
    if not exact:
        return batch.centers.float64[batch.of(fit)].copy()
    return _means(*batch.exact(fit)) * batch.rows.scale


def _means(sums: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Means of the clusters; an empty one is given the biggest one's, as in scikit-learn."""
    source = np.where(masses > 0, np.arange(len(masses)), np.argmax(masses))
    return sums[source] / masses[source, None]


def _batches(
    rows: TiledMatrix, jobs: Sequence[tuple[np.ndarray, int, float]]
) -> Iterator[list[tuple[np.ndarray, int, float]]]:
    batch: list[tuple[np.ndarray, int, float]] = []
    used = 0
    for job in jobs:
        size = 2 * len(rows.X) + 8 * rows.n_chunks * job[0].size
        if batch and used + size > BATCH_BYTES:
            yield batch
            batch, used = [], 0
        batch.append(job)
        used += size
    yield batch


def _relocate(batch: LloydBatch, fit: int) -> bool:
    """Give each empty cluster the row farthest from its centre, taken out of the cluster it is in, as scikit-learn does.

    False where there is no such row: more clusters than distinct rows.
    """
    X, weight, shift, scale, *_ = batch.rows
    labels = batch.labels[fit, : len(X)]
    squares = (((X - shift) * scale - batch.centers.float64[batch.of(fit)][labels]) ** 2).sum(axis=1)
    if squares.max() <= X.shape[1] * (2 * UNIT) ** 2:  # centres are means of rows rounded to float32
        return False
    sums, masses = batch.exact(fit)
    empty = np.flatnonzero(batch.total.sizes[batch.of(fit)] == 0)
    farthest = np.argpartition(squares, -len(empty))[: -len(empty) - 1 : -1]
    for cluster, row in zip(empty, farthest, strict=True):
        mass = weight[row] if len(weight) else 1.0
        sums[labels[row]] -= mass * (X[row] - shift)
        sums[cluster] = mass * (X[row] - shift)
        masses[labels[row]] -= mass
        masses[cluster] = mass
    batch.total.means[batch.of(fit)] = _means(sums, masses) * scale
    return True
