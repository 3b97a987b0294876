"""The kernels of the Lloyd pass: assignments, sums and counts of several K-Means fits in one read of the rows.

A tile of 256 rows (`gpuclust.runtime.nearest`) is read once, and every fit uses it while it is in cache. Distances are compared
in float32 on centred rows; where the best two are closer than the rounding error could be, the row is assigned again in float64,
so that the labels are those of float64. Only rows whose label changed update the statistics: they move from one cluster's
float64 sums to another's, as the float32 values that are in cache, which are on a grid on which float64 sums are exact (`Frame.rounding`).
So the sums are those of the labels alone: labels that are kept, lost or found elsewhere give the same bits. With weights that are not
whole numbers the sums are not exact; then they are the same for the same history of labels.

Statistics are collected per chunk of tiles and merged in the order of the chunks, so neither the number of threads nor the other fits
change a bit of the result. `add_exactly` computes the sums of the rows themselves once the labels have converged.

Coordinates here are those of a `Frame`. Lloyd, S. (1982), "Least squares quantization in PCM", IEEE Transactions on Information
Theory 28, 129-137.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpuclust.algorithms.kmeans.tiled_matrix import fill_tile
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

UNIT = 2.0**-24  # the unit roundoff of float32
MAX_CLUSTERS = 65535  # labels of a running fit are kept in 8 or 16 bits
MAX_CHUNKS = 32  # of rows whose statistics are collected separately
CHUNK_TILES = 8  # of a chunk, at least


class Centers(NamedTuple):
    """The centres of several fits, in the coordinates of a `Frame`. Each fit's are padded to a multiple of GROUP.

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


class Sums(NamedTuple):
    """The statistics of the clusters of several fits, with their present labels."""

    sums: np.ndarray  # (n_centers, n_features) float64, of the weighted rows
    masses: np.ndarray  # (n_centers,) float64, sums of weights
    sizes: np.ndarray  # (n_centers,) int64, rows of weight above 0


class Means(NamedTuple):
    """Quantities that are derived from the statistics of several fits."""

    means: np.ndarray  # (n_centers, n_features) float64
    changed: np.ndarray  # (n_fits,) int64, whether the last pass changed the statistics, and so the labels
    n_empty: np.ndarray  # (n_fits,) int64, clusters without rows
    moved: np.ndarray  # (n_fits,) float64, squared distance that the centres moved


class PassWorkspace(NamedTuple):
    """Arrays that one thread of `lloyd_chunks` writes to: one tile and one fit."""

    tile: np.ndarray  # (n_features * ROWS,) float32, where the rows are not in tiles already
    norms: np.ndarray  # (ROWS,) float32, of the rows of that tile
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
def list_flagged(flags, words, busy, moved):  # type: ignore[no-untyped-def]
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
def lloyd_chunks(  # type: ignore[no-untyped-def]
    X, weight, origin, scale, rounding, values, max_norm,  # rows, their `Frame`, and `Tiles` or none
    first, n_clusters, centers64, centers32, half_norms, error_bound, features,  # `Centers`
    all_sums, all_masses, all_sizes,  # `ChunkStatistics`
    own_tile, norms, scores, best_two, nearest, flags, words, busy, moved,  # `PassWorkspace`
    fits, labels, unset, first_chunk, last_chunk,
):  # fmt: skip
    """Label the rows of some chunks by the centres of `fits`; the changes of the statistics of each chunk.

    fits (n_running,) int64; labels (n_fits, n_tiles * ROWS) uint8 or uint16, `unset` where a row has none yet. The tuples come unpacked:
    as tuples they cost 8 to 15 % of the pass on few features.
    """
    n_rows, n_chunks = len(X), len(all_masses)
    n_tiles = -(-n_rows // ROWS)
    n_features = len(features) if len(features) else X.shape[1]
    unlabelled = first[-1]  # the cluster of rows without a label yet
    for chunk in range(first_chunk, last_chunk):
        sums, masses, sizes = all_sums[chunk], all_masses[chunk], all_sizes[chunk]
        for fit in fits:
            for c in range(first[fit], first[fit] + n_clusters[fit]):
                masses[c], sizes[c] = 0, 0
                for f in range(n_features):
                    sums[c * n_features + f] = 0
        for t in range(chunk * n_tiles // n_chunks, (chunk + 1) * n_tiles // n_chunks):
            start = t * ROWS
            if len(max_norm):
                tile, norm = values[start * n_features : (start + ROWS) * n_features], max_norm[t]
            else:
                tile, norm = (
                    own_tile,
                    fill_tile(X, start, min(ROWS, n_rows - start), origin, scale, rounding, norms, own_tile),
                )
            for fit in fits:
                c0, clusters = first[fit], (first[fit], n_clusters[fit])
                _label_tile(tile, clusters, centers32, half_norms, features, scores, best_two, nearest)
                margin = np.float32(error_bound[fit, 0] * norm + error_bound[fit, 1])
                known = labels[fit, start : start + ROWS]
                _flag_changed(nearest, best_two, known, margin, flags)
                for r in range(n_rows - start, ROWS):
                    flags[r] = 0
                for i in range(list_flagged(flags, words, busy, moved)):
                    r = moved[i]
                    new, old = np.int64(nearest[r]), np.int64(known[r])
                    if best_two[ROWS + r] - best_two[r] <= margin:
                        new = _assign_exactly(X, start + r, origin, scale, centers64, clusters)
                        if new == old:
                            continue
                    known[r] = new
                    mass = weight[start + r] if len(weight) else 1.0
                    if mass > 0:
                        old = c0 + old if old != unset else unlabelled
                        _transfer(tile, r, n_features, mass, old, c0 + new, sums, masses, sizes)


@compiled()
def merge_chunks(fits, first, n_clusters, chunks, total):  # type: ignore[no-untyped-def]
    """Add the changes of the chunks, in order, to the statistics of their rows."""
    chunk_sums, chunk_masses, chunk_sizes = chunks
    sums, masses, sizes = total
    n_features = sums.shape[1]
    for fit in fits:
        for c in range(first[fit], first[fit] + n_clusters[fit]):
            for chunk in range(len(chunk_masses)):
                masses[c] += chunk_masses[chunk, c]
                sizes[c] += chunk_sizes[chunk, c]
                for f in range(n_features):
                    sums[c, f] += chunk_sums[chunk, c * n_features + f]
            if sizes[c] == 0:  # exactly 0: rounding of weights leaves a remainder of the rows that were removed
                masses[c] = 0
                for f in range(n_features):
                    sums[c, f] = 0


@compiled()
def update_means(fits, first, n_clusters, found, total, state):  # type: ignore[no-untyped-def]
    """Store `found`, which has only the clusters of `fits`, as the statistics; an empty cluster gets the mean of the largest one."""
    found_sums, found_masses, found_sizes = found
    sums, masses, sizes = total
    means, changed, n_empty, _ = state
    n_features = sums.shape[1]
    at = 0
    for fit in fits:
        changed[fit], n_empty[fit] = 0, 0
        biggest = first[fit]
        for c in range(first[fit], first[fit] + n_clusters[fit]):
            if masses[c] != found_masses[at] or sizes[c] != found_sizes[at]:
                changed[fit] = 1
            masses[c], sizes[c] = found_masses[at], found_sizes[at]
            for f in range(n_features):
                if sums[c, f] != found_sums[at, f]:
                    changed[fit] = 1
                sums[c, f] = found_sums[at, f]
            at += 1
            n_empty[fit] += sizes[c] == 0
            if masses[c] > masses[biggest]:
                biggest = c
        for c in range(first[fit], first[fit] + n_clusters[fit]):
            source = c if masses[c] > 0 else biggest
            for f in range(n_features):
                means[c, f] = sums[source, f] / masses[source]


@compiled()
def move_centers(fits, all_centers, grid, means, moved):  # type: ignore[no-untyped-def]
    """Make the means the centres, with their float32 form and error bounds; `moved` is the squared shift. ``grid`` is `Frame.grid`."""
    first, n_clusters, centers, centers32, half_norms, error_bound, _ = all_centers
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
        # (n_features + 6) units of |x||c| + |c|²/2, rounding of x and c included, and x is moved to the grid; doubled as a safety margin.
        unit = 4 * (n_features + 6) * UNIT
        error_bound[fit, 0], error_bound[fit, 1] = unit * largest, (unit * largest / 2 + 2 * grid) * largest + 1e-36


@compiled()
def add_exactly(X, weight, origin, labels, start, stop, scratch, sums, masses):  # type: ignore[no-untyped-def]
    """Add rows start to stop to the sums (n_clusters, n_features) about the origin, in the scale of X, and the masses.

    In float64, by chunks of the rows; ``scratch`` is one chunk's (n_clusters, n_features + 1).
    """
    n_features, n_rows = X.shape[1], stop - start
    n_chunks = max(1, min(MAX_CHUNKS, -(-n_rows // ROWS) // CHUNK_TILES))
    for chunk in range(n_chunks):
        scratch[:] = 0
        for row in range(start + chunk * n_rows // n_chunks, start + (chunk + 1) * n_rows // n_chunks):
            mass = weight[row] if len(weight) else 1.0
            mine = scratch[labels[row]]
            mine[n_features] += mass
            for f in range(n_features):
                mine[f] += mass * (X[row, f] - origin[f])
        for c in range(len(masses)):
            masses[c] += scratch[c, n_features]
            for f in range(n_features):
                sums[c, f] += scratch[c, f]


@dataclass(frozen=True)
class LloydStatistics:
    """The results of one pass for one set of centres; those of parts of a matrix add up."""

    labels: Any  # (n_samples,) int32, on the device of X
    sums: np.ndarray  # (n_clusters, n_features) float64, of the weighted rows of each cluster
    masses: np.ndarray  # (n_clusters,) float64, their weights
    inertia: float  # weighted sum of squared distances to the centres given


def make_centers(starts: Sequence[np.ndarray], grid: float) -> Centers:
    """The centres of several fits, each (n_clusters, n_features), made ready for a pass over rows rounded to a grid (`Frame.grid`)."""
    n_features = starts[0].shape[1]
    first = np.cumsum([0, *(len(padded(start)) for start in starts)])
    n_fits, n_centers = len(starts), int(first[-1])
    centers = Centers(
        first, np.array([len(start) for start in starts]), np.zeros((n_centers, n_features)),
        np.zeros(n_centers * n_features, np.float32), np.full(n_centers, FAR, np.float32), np.zeros((n_fits, 2)),
        unrolled(n_features),
    )  # fmt: skip
    means = np.concatenate([padded(np.asarray(start, np.float64)) for start in starts])
    move_centers(np.arange(n_fits), centers, grid, means, np.zeros(n_fits))
    return centers


def pass_workspace(n_features: int) -> PassWorkspace:
    """The arrays of one thread."""
    flags = workspace(ROWS, np.uint8)
    return PassWorkspace(
        workspace(n_features * ROWS, np.float32), workspace(ROWS, np.float32), workspace(GROUP * ROWS, np.float32), workspace(2 * ROWS, np.float32),
        workspace(ROWS, np.int32), flags, flags.view(np.uint64), np.zeros(ROWS // 8, np.int64), np.zeros(ROWS, np.int64),
    )  # fmt: skip
