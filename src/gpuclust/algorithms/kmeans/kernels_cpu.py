"""The Lloyd pass: assignments, sums, counts and inertia of several K-Means fits in one read of the matrix.

A tile of 256 rows (`gpuclust.runtime.nearest`) is read once, and every fit uses it while it is in cache. Distances are compared
in float32 on centred rows; where the best two are closer than the rounding error could be, the row is assigned again in float64,
so that the labels are those of float64. Only rows whose label changed update the statistics: they move from one cluster's
float64 sums to another's, as the float32 rows that are in cache. `LloydBatch.exact` computes the sums of the matrix itself once the
labels have converged. Statistics are collected per chunk of tiles and merged in the order of the chunks, so neither the number
of threads nor the other fits of the batch change a bit of the result.

Coordinates here are centred and scaled by a power of two: z = (x - origin) * scale. Lloyd, S. (1982), "Least squares
quantization in PCM", IEEE Transactions on Information Theory 28, 129-137.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpuclust.algorithms.kmeans.tiled_matrix import TiledMatrix, tile_matrix
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import (
    FAR,
    GROUP,
    ROWS,
    fill_scores,
    nearest_of_four,
    padded,
    reset_best_two,
    unrolled,
    update_best_two,
    workspace,
)
from gpuclust.runtime.threads import in_threads

UNIT = 2.0**-24  # the unit roundoff of float32
UNSET = 65535  # the label of a row before the first pass
MAX_CLUSTERS = 65535  # labels of a running fit are kept in 16 bits


class Centers(NamedTuple):
    """The centres of several fits, in the coordinates of a `TiledMatrix`. Each fit's are padded to a multiple of GROUP.

    Those of fit i are rows first[i] to first[i] + n_clusters[i]; n_centers is first[-1].
    """

    first: np.ndarray  # (n_fits + 1,) int64
    n_clusters: np.ndarray  # (n_fits,) int64
    float64: np.ndarray  # (n_centers, n_features) float64
    float32: np.ndarray  # (n_centers * n_features,) float32
    half_norms: np.ndarray  # (n_centers,) float32, |c|²/2, or FAR for the padding
    error_bound: np.ndarray  # (n_fits, 2) float64: scores of a row z are wrong by at most bound[0] |z| + bound[1]
    features: tuple[int, ...]  # of length n_features, where the kernels are compiled for their number (see `unrolled`)


class ChunkStatistics(NamedTuple):
    """How one pass changes the statistics, by chunk. The last entry of the clusters stands for rows without a label yet."""

    sums: np.ndarray  # (n_chunks, (n_centers + 1) * n_features) float64
    masses: np.ndarray  # (n_chunks, n_centers + 1) float64
    sizes: np.ndarray  # (n_chunks, n_centers + 1) int64
    changed: np.ndarray  # (n_chunks, n_fits) int64, rows whose label changed


class Statistics(NamedTuple):
    """The statistics of several fits, with the present labels."""

    sums: np.ndarray  # (n_centers, n_features) float64, of the weighted rows
    masses: np.ndarray  # (n_centers,) float64, sums of weights
    sizes: np.ndarray  # (n_centers,) int64, rows of weight above 0
    means: np.ndarray  # (n_centers, n_features) float64
    changed: np.ndarray  # (n_fits,) int64, rows whose label the last pass changed
    n_empty: np.ndarray  # (n_fits,) int64, clusters without rows
    moved: np.ndarray  # (n_fits,) float64, squared distance that the centres moved


class PassWorkspace(NamedTuple):
    """Arrays that one thread of `_pass` writes to: one tile and one fit."""

    scores: np.ndarray  # (GROUP * ROWS,) float32
    best_two: np.ndarray  # (2 * ROWS,) float32, the least score of each row, then the second least of each
    nearest: np.ndarray  # (ROWS,) int32, the nearest centre of each row
    flags: np.ndarray  # (ROWS,) uint8, rows that change their label, or may
    words: np.ndarray  # (ROWS // 8,) uint64, the same memory
    busy: np.ndarray  # (ROWS // 8,) int64, words that are not 0
    moved: np.ndarray  # (ROWS,) int64, the rows flagged


@compiled(inner=True)
def _flag_changed(nearest, best_two, labels, margin, flags):  # type: ignore[no-untyped-def]
    """Flag the rows of a tile whose label changes, or may: their best two scores differ by at most `margin`."""
    for r in range(ROWS):
        flags[r] = (nearest[r] != np.int32(labels[r])) | (best_two[ROWS + r] - best_two[r] <= margin)


@compiled(inner=True)
def _list_flagged(flags, words, busy, moved):  # type: ignore[no-untyped-def]
    """Write the flagged rows to `moved` and return their number; branch-free, as the flags are unpredictable."""
    n_busy, n_moved = 0, 0
    for word in range(ROWS // 8):
        busy[n_busy] = word
        n_busy += words[word] != 0
    for i in range(n_busy):
        for r in range(8 * busy[i], 8 * busy[i] + 8):
            moved[n_moved] = r
            n_moved += flags[r]
    return n_moved


@compiled(inner=True)
def _assign_exactly(X, row, origin, scale, centers, clusters):  # type: ignore[no-untyped-def]
    """The nearest centre of a row in float64; the lower index wins a tie. `clusters` is (first, number) of the fit's."""
    first, n_clusters = clusters
    nearest, least = 0, math.inf
    for c in range(n_clusters):
        square = 0.0
        for f in range(X.shape[1]):
            difference = (X[row, f] - origin[f]) * scale - centers[first + c, f]
            square += difference * difference
        if square < least:
            nearest, least = c, square
    return nearest


@compiled(inner=True)
def _transfer(tile, r, n_features, mass, old, new, sums, masses, sizes):  # type: ignore[no-untyped-def]
    """Move row r of a tile, of weight `mass`, from cluster `old` to cluster `new` in the statistics of one chunk."""
    leave, enter = old * n_features, new * n_features
    masses[old] -= mass
    masses[new] += mass
    sizes[old] -= 1
    sizes[new] += 1
    for f in range(n_features):
        value = mass * tile[f * ROWS + r]
        sums[leave + f] -= value
        sums[enter + f] += value


@compiled(inner=True)
def _label_tile(tile, clusters, centers, half_norms, features, scores, best_two, nearest):  # type: ignore[no-untyped-def]
    """The nearest centre and the two least scores of each row of a tile; `clusters` is (first, number) of the fit's."""
    first, n_clusters = clusters
    reset_best_two(best_two, nearest)
    for c in range(0, n_clusters, GROUP):
        if len(features):
            nearest_of_four(tile, centers, half_norms, first + c, features, best_two, nearest, c)
        else:
            fill_scores(scores, tile, centers, half_norms, first + c, len(tile) // ROWS)
            update_best_two(scores, best_two, nearest, c)


@compiled()
def _pass(  # type: ignore[no-untyped-def]
    X, weight, origin, scale, tiles, max_norm,  # of `TiledMatrix`
    first, n_clusters, centers64, centers32, half_norms, error_bound, features,  # `Centers`
    all_sums, all_masses, all_sizes, changed,  # `ChunkStatistics`
    scores, best_two, nearest, flags, words, busy, moved,  # `PassWorkspace`
    fits, labels, first_chunk, last_chunk,
):  # fmt: skip
    """Label the rows of some chunks by the centres of `fits`; the changes of the statistics of each chunk.

    fits (n_running,) int64; labels (n_fits, n_tiles * ROWS) uint16. The tuples come unpacked: as tuples they cost 8 to 15 % of the
    pass on few features.
    """
    n_rows, n_tiles, n_chunks = len(X), len(max_norm), len(all_masses)
    n_features = len(features) if len(features) else X.shape[1]
    unlabelled = first[-1]  # the cluster of rows without a label yet
    for chunk in range(first_chunk, last_chunk):
        sums, masses, sizes = all_sums[chunk], all_masses[chunk], all_sizes[chunk]
        for fit in fits:
            changed[chunk, fit] = 0
            for c in range(first[fit], first[fit] + n_clusters[fit]):
                masses[c], sizes[c] = 0, 0
                for f in range(n_features):
                    sums[c * n_features + f] = 0
        for t in range(chunk * n_tiles // n_chunks, (chunk + 1) * n_tiles // n_chunks):
            tile = tiles[t * n_features * ROWS : (t + 1) * n_features * ROWS]
            for fit in fits:
                c0, clusters = first[fit], (first[fit], n_clusters[fit])
                _label_tile(tile, clusters, centers32, half_norms, features, scores, best_two, nearest)
                margin = np.float32(error_bound[fit, 0] * max_norm[t] + error_bound[fit, 1])
                start = t * ROWS
                known = labels[fit, start : start + ROWS]
                _flag_changed(nearest, best_two, known, margin, flags)
                for r in range(n_rows - start, ROWS):
                    flags[r] = 0
                for i in range(_list_flagged(flags, words, busy, moved)):
                    r = moved[i]
                    new, old = np.int64(nearest[r]), np.int64(known[r])
                    if best_two[ROWS + r] - best_two[r] <= margin:
                        new = _assign_exactly(X, start + r, origin, scale, centers64, clusters)
                        if new == old:
                            continue
                    known[r] = new
                    changed[chunk, fit] += 1
                    mass = weight[start + r] if len(weight) else 1.0
                    if mass > 0:
                        old = c0 + old if old != UNSET else unlabelled
                        _transfer(tile, r, n_features, mass, old, c0 + new, sums, masses, sizes)


@compiled()
def _exact(matrix, labels, start, stop, sums, masses):  # type: ignore[no-untyped-def]
    """Add rows start to stop to the sums (n_clusters, n_features) about the origin, in the scale of X, and the masses."""
    X, weight, origin = matrix.X, matrix.weight, matrix.origin
    for row in range(start, stop):
        mass = weight[row] if len(weight) else 1.0
        masses[labels[row]] += mass
        for f in range(X.shape[1]):
            sums[labels[row], f] += mass * (X[row, f] - origin[f])


@compiled()
def _merge(fits, centers, chunks, total):  # type: ignore[no-untyped-def]
    """Add the changes of the chunks, in order, to the statistics; an empty cluster has the mean of the biggest one."""
    first, n_clusters = centers.first, centers.n_clusters
    chunk_sums, chunk_masses, chunk_sizes, chunk_changed = chunks
    sums, masses, sizes, means, changed, n_empty, _ = total
    n_chunks, n_features = len(chunk_sums), sums.shape[1]
    for fit in fits:
        changed[fit], n_empty[fit] = 0, 0
        for chunk in range(n_chunks):
            changed[fit] += chunk_changed[chunk, fit]
        biggest = first[fit]
        for c in range(first[fit], first[fit] + n_clusters[fit]):
            for chunk in range(n_chunks):
                masses[c] += chunk_masses[chunk, c]
                sizes[c] += chunk_sizes[chunk, c]
                for f in range(n_features):
                    sums[c, f] += chunk_sums[chunk, c * n_features + f]
            if sizes[c] == 0:  # set to 0 exactly, as rounding leaves a rest of the rows that came and went
                n_empty[fit] += 1
                masses[c] = 0
                for f in range(n_features):
                    sums[c, f] = 0
            if masses[c] > masses[biggest]:
                biggest = c
        for c in range(first[fit], first[fit] + n_clusters[fit]):
            source = c if masses[c] > 0 else biggest
            for f in range(n_features):
                means[c, f] = sums[source, f] / masses[source]


@compiled()
def _move(fits, all_centers, total):  # type: ignore[no-untyped-def]
    """Make the means the centres, with their float32 form and error bounds; `total.moved` is the squared shift."""
    first, n_clusters, centers, centers32, half_norms, error_bound, _ = all_centers
    means, moved = total.means, total.moved
    n_features = centers.shape[1]
    for fit in fits:
        largest, moved[fit] = 0.0, 0.0
        for c in range(first[fit], first[fit] + n_clusters[fit]):
            norm = 0.0
            for f in range(n_features):
                moved[fit] += (means[c, f] - centers[c, f]) ** 2
                centers[c, f] = means[c, f]
                centers32[c * n_features + f] = means[c, f]
                norm += means[c, f] ** 2
            half_norms[c] = norm / 2
            largest = max(largest, math.sqrt(norm))
        # Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1: each of two scores is wrong by at most
        # (n_features + 6) units of |x||c| + |c|²/2, rounding of x and c included; doubled as a safety margin.
        unit = 4 * (n_features + 6) * UNIT
        error_bound[fit, 0], error_bound[fit, 1] = unit * largest, unit * largest**2 / 2 + 1e-36


@dataclass(frozen=True)
class LloydStatistics:
    """The results of one pass for one set of centres; those of parts of a matrix add up."""

    labels: Any  # (n_samples,) int32, on the device of X
    sums: np.ndarray  # (n_clusters, n_features) float64, of the weighted rows of each cluster
    masses: np.ndarray  # (n_clusters,) float64, their weights
    inertia: float  # weighted sum of squared distances to the centres given


def _workspace() -> PassWorkspace:
    flags = workspace(ROWS, np.uint8)
    return PassWorkspace(
        workspace(GROUP * ROWS, np.float32), workspace(2 * ROWS, np.float32), workspace(ROWS, np.int32), flags,
        flags.view(np.uint64), np.zeros(ROWS // 8, np.int64), np.zeros(ROWS, np.int64),
    )  # fmt: skip


class LloydBatch:
    """K-Means fits in progress on one matrix: their centres, labels and statistics, all in the coordinates of `rows`."""

    def __init__(self, rows: TiledMatrix, starts: Sequence[np.ndarray]) -> None:
        n_features = rows.X.shape[1]
        self.rows = rows
        first = np.cumsum([0, *(len(padded(start)) for start in starts)])
        n_fits, n_centers, n_chunks = len(starts), int(first[-1]), rows.n_chunks
        self.labels = np.full((n_fits, len(rows.max_norm) * ROWS), UNSET, np.uint16)
        self.centers = Centers(
            first, np.array([len(start) for start in starts]), np.zeros((n_centers, n_features)),
            np.zeros(n_centers * n_features, np.float32), np.full(n_centers, FAR, np.float32), np.zeros((n_fits, 2)),
            unrolled(n_features),
        )  # fmt: skip
        self.total = Statistics(
            np.zeros((n_centers, n_features)), np.zeros(n_centers), np.zeros(n_centers, np.int64),
            np.zeros((n_centers, n_features)), np.zeros(n_fits, np.int64), np.zeros(n_fits, np.int64), np.zeros(n_fits),
        )  # fmt: skip
        self._chunks = ChunkStatistics(
            np.zeros((n_chunks, (n_centers + 1) * n_features)),
            np.zeros((n_chunks, n_centers + 1)),
            np.zeros((n_chunks, n_centers + 1), np.int64),
            np.zeros((n_chunks, n_fits), np.int64),
        )
        self._workspaces = [_workspace() for _ in range(n_chunks)]
        for fit, start in enumerate(starts):
            self.total.means[self.of(fit)] = start
        self.move(np.arange(n_fits))

    def of(self, fit: int) -> slice:
        """The clusters of a fit in the arrays of all fits."""
        first = self.centers.first[fit]
        return slice(first, first + self.centers.n_clusters[fit])

    def run_pass(self, fits: np.ndarray) -> None:
        """One read of the matrix: labels by the present centres; sums, masses, sizes and means by these labels."""

        def run(first: int, last: int) -> None:
            _pass(
                *self.rows[:6], *self.centers, *self._chunks, *self._workspaces[first], fits, self.labels, first, last
            )  # fmt: skip

        in_threads(self.rows.n_chunks, run)
        _merge(fits, self.centers, self._chunks, self.total)

    def move(self, fits: np.ndarray) -> None:
        """Make the means the centres; `total.moved` is then the squared length of that move."""
        _move(fits, self.centers, self.total)

    def exact(self, fit: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums (n_clusters, n_features) about the origin, in the scale of X, and masses, of X itself in float64."""
        rows, k = self.rows, self.centers.n_clusters[fit]
        n_rows, n_chunks = len(rows.X), rows.n_chunks
        sums, masses = np.zeros((n_chunks, k, rows.X.shape[1])), np.zeros((n_chunks, k))

        def run(first: int, last: int) -> None:
            for chunk in range(first, last):
                start, stop = chunk * n_rows // n_chunks, (chunk + 1) * n_rows // n_chunks
                _exact(rows, self.labels[fit], start, stop, sums[chunk], masses[chunk])

        in_threads(n_chunks, run)
        return sums.sum(axis=0), masses.sum(axis=0)

    def inertia(self, fit: int) -> float:
        """Weighted sum of squared distances from the rows to the means of their clusters, from the statistics alone."""
        sums, masses = self.total.sums[self.of(fit)], self.total.masses[self.of(fit)]
        filled = masses > 0
        return self.rows.sum_sq_norm - float(((sums[filled] ** 2).sum(axis=1) / masses[filled]).sum())


def lloyd_pass(
    X: np.ndarray, centers: Sequence[np.ndarray], sample_weight: np.ndarray | None = None
) -> list[LloydStatistics]:
    """One pass over a C-contiguous float32 or float64 matrix for several sets of centres.

    Each is (n_clusters, n_features) in the coordinates of X. `kernels_cuda.lloyd_pass` is the same on a GPU.
    """
    weight = np.empty(0) if sample_weight is None else np.ascontiguousarray(sample_weight, np.float64)
    rows = tile_matrix(X, weight)
    starts = [rows.to_tiled(start) for start in centers]
    batch = LloydBatch(rows, starts)
    batch.run_pass(np.arange(len(starts)))
    found = []
    for fit, start in enumerate(starts):
        sums, masses = batch.exact(fit)
        inertia = (
            rows.sum_sq_norm - 2 * rows.scale * float((start * sums).sum()) + float(masses @ (start**2).sum(axis=1))
        )
        labels = batch.labels[fit, : len(X)].astype(np.int32)
        sums = sums + masses[:, None] * rows.origin
        found.append(LloydStatistics(labels, sums, masses, inertia / rows.scale**2))
    return found
