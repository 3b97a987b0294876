"""Assigning rows to centres on the GPU, in float64 and by the same operations as `nearest.py` on a CPU.

Kernels take anything with a CUDA array interface; nothing here needs RAPIDS, so numba's CUDA simulator runs it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda

from gpuclust.runtime.backend import Array
from gpuclust.runtime.jit import ignore_small_grid_warnings

THREADS = 256


@cuda.jit
def _nearest_two(X, centers, labels, nearest, second):  # type: ignore[no-untyped-def]
    """One thread a row: the two least squared distances, summed feature after feature; a tie keeps the lower index."""
    row = cuda.grid(1)
    if row >= X.shape[0]:
        return
    best, runner_up, label = math.inf, math.inf, 0
    for c in range(centers.shape[0]):
        square = 0.0
        for f in range(centers.shape[1]):
            difference = X[row, f] - centers[c, f]
            square += difference * difference
        if square < best:
            best, runner_up, label = square, best, c
        elif square < runner_up:
            runner_up = square
    labels[row] = label
    nearest[row] = math.sqrt(best)
    second[row] = math.sqrt(runner_up)


def nearest_two(X: Array, centers: Array, xp: Any) -> tuple[Array, Array, Array]:
    """Labels (int32) and the distances (float64) to the nearest and second nearest centre of every row.

    X (n_samples, n_features) float32 or float64 and centers (n_clusters, n_features) float64 are on the device, as
    are the results; ``xp`` is their module. With one centre the second distance is infinite.
    """
    n_rows = X.shape[0]
    labels = xp.empty(n_rows, dtype=np.int32)
    nearest, second = xp.empty(n_rows, dtype=np.float64), xp.empty(n_rows, dtype=np.float64)
    with ignore_small_grid_warnings():
        _nearest_two[max(1, math.ceil(n_rows / THREADS)), THREADS](X, centers, labels, nearest, second)
    return labels, nearest, second


def cluster_sums(X: Array, labels: Array, n_clusters: int, xp: Any) -> tuple[Array, Array]:
    """Sum of each cluster's rows (n_clusters, n_features) and their number (n_clusters,), float64.

    Summed by matrix products over fixed blocks of rows, not by atomic additions, so that two runs agree to the bit.
    """
    sums = xp.zeros((n_clusters, X.shape[1]), dtype=np.float64)
    counts = xp.zeros(n_clusters, dtype=np.float64)
    clusters = xp.arange(n_clusters, dtype=np.int32)[:, None]
    block = max(1, MEMBERSHIP_CELLS // n_clusters)
    for start in range(0, X.shape[0], block):
        member = (labels[None, start : start + block] == clusters).astype(np.float64)
        sums += member @ X[start : start + block].astype(np.float64)
        counts += member.sum(axis=1)
    return sums, counts


MEMBERSHIP_CELLS = 2**24
"""Entries of the membership matrix of one block in `cluster_sums`: 128 MiB of float64."""


def refine_float64(X: Array, centers: Array, *, least_move: float, max_iter: int, xp: Any) -> tuple[Array, int, bool]:
    """Lloyd's iterations in float64 from centres that have nearly settled, until scikit-learn's criterion holds.

    They stop when no label changes or the centres' squared moves sum to ``least_move`` or less; an empty cluster
    keeps its centre. Returns the centres (n_clusters, n_features) float64, the iterations done, and whether they
    settled within ``max_iter``.
    """
    before = None
    for done in range(1, max_iter + 1):
        labels, _, _ = nearest_two(X, centers, xp)
        if before is not None and bool((labels == before).all()):
            return centers, done, True
        sums, counts = cluster_sums(X, labels, centers.shape[0], xp)
        moved = xp.where(counts[:, None] > 0, sums / xp.maximum(counts, 1.0)[:, None], centers)
        shift = float(((moved - centers) ** 2).sum())
        centers, before = moved, labels
        if shift <= least_move:
            return centers, done, True
    return centers, max_iter, False


@dataclass
class LloydState:
    """One K-Means in progress: ``centers`` (n_clusters, n_features) float64 on the host, and its stopping rule."""

    centers: np.ndarray
    least_move: float
    max_iter: int
    n_iter: int = 0
    inertia: float = math.inf
    settled: bool = False

    @property
    def running(self) -> bool:
        """Whether another pass is needed."""
        return not self.settled and self.n_iter < self.max_iter


def run_lloyd_gpu(X: Array, descents: Sequence[LloydState]) -> None:
    """Run Lloyd's iterations of every state to the end, all of them in each pass over X, which is on the device.

    An empty cluster keeps its centre. The sums are the same in every run, so labels that no longer change leave the
    centres where they are: that move of 0 is scikit-learn's strict convergence.
    """
    from gpuclust.algorithms.kmeans.kernels_cuda import lloyd_pass

    while running := [descent for descent in descents if descent.running]:
        with ignore_small_grid_warnings():
            found = lloyd_pass(X, [descent.centers for descent in running])
        for descent, statistics in zip(running, found, strict=True):
            masses = statistics.masses[:, None]
            moved = np.where(masses > 0, statistics.sums / np.maximum(masses, 1.0), descent.centers)
            shift = float(((moved - descent.centers) ** 2).sum())
            descent.centers, descent.inertia = moved, statistics.inertia
            descent.n_iter += 1
            descent.settled = shift <= descent.least_move
