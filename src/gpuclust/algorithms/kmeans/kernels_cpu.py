"""The Lloyd pass: assignments, sums, counts and inertia of several K-Means fits in one read of the matrix.

A tile of 256 rows (`nearest`) is taken once and every fit works on it while it is in cache. Distances are compared
in float32 on centred rows; where the best two are closer than the rounding error could be, the row is decided again in
float64, so that the labels are those of float64. Only rows whose label changed touch the statistics: they move
from one cluster's float64 sums to another's, as the float32 rows that are in cache; `exact` gives the sums of the
matrix itself, for when the labels have settled. Statistics are gathered per chunk of tiles and merged in the order of the
chunks, so neither the number of threads nor the other fits of the batch can change a bit of the result.

Coordinates here are centred and scaled by a power of two: z = (x - shift) * scale. Lloyd, S. (1982), "Least squares
quantization in PCM", IEEE Transactions on Information Theory 28, 129-137.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

UNIT = 2.0**-24  # of rounding in float32
UNSET = 65535
MAX_CLUSTERS = 65535  # labels of a running fit are kept in 16 bits


@compiled(inner=True)
def _flag(nearest, two, labels, doubt, flags):  # type: ignore[no-untyped-def]
    """Mark the rows of a tile that change their label, or may."""
    for r in range(ROWS):
        flags[r] = (nearest[r] != np.int32(labels[r])) | (two[ROWS + r] - two[r] <= doubt)


@compiled(inner=True)
def _list(flags, words, busy, moved):  # type: ignore[no-untyped-def]
    """The numbers of the rows marked, without a branch on what none can predict; `words` are eight flags each."""
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
def _decide(X, row, shift, scale, centers, first, n_clusters):  # type: ignore[no-untyped-def]
    """The nearest centre in float64; the lower index wins a tie."""
    nearest, least = 0, math.inf
    for c in range(n_clusters):
        square = 0.0
        for f in range(X.shape[1]):
            difference = (X[row, f] - shift[f]) * scale - centers[first + c, f]
            square += difference * difference
        if square < least:
            nearest, least = c, square
    return nearest


@compiled(inner=True)
def _transfer(tile, r, n_features, mass, old, new, sums, masses, sizes):  # type: ignore[no-untyped-def]
    """Take a row out of cluster `old` and put it into `new`."""
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
def _label(tile, first, n_clusters, centers32, half_norms, n_features, features, scores, two, nearest):  # type: ignore[no-untyped-def]
    reset_best_two(two, nearest)
    for c in range(0, n_clusters, GROUP):
        if len(features):
            nearest_of_four(tile, centers32, half_norms, first + c, features, two, nearest, c)
        else:
            fill_scores(scores, tile, centers32, half_norms, first + c, n_features)
            update_best_two(scores, two, nearest, c)


@compiled()
def _pass(  # type: ignore[no-untyped-def]
    X, weight, shift, scale, tiles, reach, edges, first_chunk, last_chunk, scores, two, nearest, flags, words, busy, moved, fits, first,
    n_clusters, features, centers, centers32, half_norms, slack, labels, sums, masses, sizes, changed,
):  # fmt: skip
    """Labels by the present centres, and by how much the rows that changed theirs change each chunk's statistics."""
    n_rows = len(X)
    n_features = len(features) if len(features) else X.shape[1]
    nowhere = first[-1]  # the cluster of rows without a label yet
    for chunk in range(first_chunk, last_chunk):
        my_sums, my_masses, my_sizes = sums[chunk], masses[chunk], sizes[chunk]
        for fit in fits:
            changed[chunk, fit] = 0
            for c in range(first[fit], first[fit] + n_clusters[fit]):
                my_masses[c], my_sizes[c] = 0, 0
                for f in range(n_features):
                    my_sums[c * n_features + f] = 0
        for t in range(edges[chunk], edges[chunk + 1]):
            tile = tiles[t * n_features * ROWS : (t + 1) * n_features * ROWS]
            for fit in fits:
                c0, k = first[fit], n_clusters[fit]
                _label(tile, c0, k, centers32, half_norms, n_features, features, scores, two, nearest)
                doubt = np.float32(slack[fit, 0] * reach[t] + slack[fit, 1])
                start = t * ROWS
                known = labels[fit, start : start + ROWS]
                _flag(nearest, two, known, doubt, flags)
                for r in range(n_rows - start, ROWS):
                    flags[r] = 0
                for i in range(_list(flags, words, busy, moved)):
                    r = moved[i]
                    new, old = np.int64(nearest[r]), np.int64(known[r])
                    if two[ROWS + r] - two[r] <= doubt:
                        new = _decide(X, start + r, shift, scale, centers, c0, k)
                        if new == old:
                            continue
                    known[r] = new
                    changed[chunk, fit] += 1
                    mass = weight[start + r] if len(weight) else 1.0
                    if mass > 0:
                        old = c0 + old if old != UNSET else nowhere
                        _transfer(tile, r, n_features, mass, old, c0 + new, my_sums, my_masses, my_sizes)


@compiled()
def _exact(X, weight, shift, labels, start, stop, sums, masses):  # type: ignore[no-untyped-def]
    """Add rows start to stop to the sums about `shift`, and the masses, of their clusters."""
    for row in range(start, stop):
        mass = weight[row] if len(weight) else 1.0
        masses[labels[row]] += mass
        for f in range(X.shape[1]):
            sums[labels[row], f] += mass * (X[row, f] - shift[f])


@compiled()
def _merge(  # type: ignore[no-untyped-def]
    fits, first, n_clusters, chunk_sums, chunk_masses, chunk_sizes, chunk_changed, sums, masses, sizes, changed, means,
    n_empty,
):  # fmt: skip
    """Add the chunks' changes, in order, to the statistics; means of the clusters, the biggest one's for an empty one."""
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
            if sizes[c] == 0:  # exactly: what rounding left of the rows that came and went is no cluster
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
def _move(fits, first, n_clusters, centers, means, centers32, half_norms, slack, moved):  # type: ignore[no-untyped-def]
    """Make the means the centres, with what the next pass wants to know of them; `moved` is the squared shift."""
    n_features = centers.shape[1]
    for fit in fits:
        farthest, moved[fit] = 0.0, 0.0
        for c in range(first[fit], first[fit] + n_clusters[fit]):
            norm = 0.0
            for f in range(n_features):
                moved[fit] += (means[c, f] - centers[c, f]) ** 2
                centers[c, f] = means[c, f]
                centers32[c * n_features + f] = means[c, f]
                norm += means[c, f] ** 2
            half_norms[c] = norm / 2
            farthest = max(farthest, math.sqrt(norm))
        # Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1: each of two scores is wrong by at most
        # (n_features + 6) units of |x||c| + |c|²/2, rounding of x and c included; twice that to be on the safe side.
        unit = 4 * (n_features + 6) * UNIT
        slack[fit, 0], slack[fit, 1] = unit * farthest, unit * farthest**2 / 2 + 1e-36


@dataclass(frozen=True)
class LloydStatistics:
    """What one pass finds for one set of centres; they add up over parts of a matrix."""

    labels: Any  # (n_samples,) int32, where X lies
    sums: np.ndarray  # (n_clusters, n_features) float64, of the weighted rows of each cluster
    masses: np.ndarray  # (n_clusters,) float64, their weights
    inertia: float  # weighted sum of squared distances to the centres given


def _scratch() -> tuple[np.ndarray, ...]:
    """What a thread of `_pass` writes to, from `scores` to `moved`."""
    flags = workspace(ROWS, np.uint8)
    return (
        workspace(GROUP * ROWS, np.float32), workspace(2 * ROWS, np.float32), workspace(ROWS, np.int32), flags,
        flags.view(np.uint64), np.zeros(ROWS // 8, np.int64), np.zeros(ROWS, np.int64),
    )  # fmt: skip


class LloydBatch:
    """K-Means fits in progress on one matrix: their centres, labels and statistics, all in the coordinates of `rows`."""

    def __init__(self, rows: TiledMatrix, starts: Sequence[np.ndarray]) -> None:
        n_features = rows.X.shape[1]
        self.rows = rows
        self.n_clusters = np.array([len(start) for start in starts])
        self.first = np.cumsum([0, *(len(padded(start)) for start in starts)])
        n_fits, n_centers, n_chunks = len(starts), int(self.first[-1]), rows.n_chunks
        self.centers, self.means = np.zeros((2, n_centers, n_features))
        self.sums, self.masses = np.zeros((n_centers, n_features)), np.zeros(n_centers)
        self.sizes = np.zeros(n_centers, np.int64)
        self.changed, self.n_empty = np.zeros((2, n_fits), np.int64)
        self.moved = np.zeros(n_fits)
        self.labels = np.full((n_fits, len(rows.max_norm) * ROWS), UNSET, np.uint16)
        self._floats = (np.zeros(n_centers * n_features, np.float32), np.full(n_centers, FAR, np.float32))
        self._features = unrolled(n_features)
        self._slack = np.zeros((n_fits, 2))
        self._edges = np.arange(n_chunks + 1) * len(rows.max_norm) // n_chunks
        self._scratch = [_scratch() for _ in range(n_chunks)]
        self._chunks = (
            np.zeros((n_chunks, (n_centers + 1) * n_features)),
            np.zeros((n_chunks, n_centers + 1)),
            np.zeros((n_chunks, n_centers + 1), np.int64),
            np.zeros((n_chunks, n_fits), np.int64),
        )
        for fit, start in enumerate(starts):
            self.means[self.of(fit)] = start
        self.move(np.arange(n_fits))

    def of(self, fit: int) -> slice:
        """Where a fit's clusters are in the arrays of all of them."""
        return slice(self.first[fit], self.first[fit] + self.n_clusters[fit])

    def run_pass(self, fits: np.ndarray) -> None:
        """One read of the matrix: labels by the present centres; sums, masses, sizes and means by those labels."""
        rows = self.rows

        def run(first: int, last: int) -> None:
            _pass(
                rows.X, rows.weight, *rows.origin_scale, rows.tiles, rows.max_norm, self._edges, first, last,
                *self._scratch[first], fits, self.first, self.n_clusters, self._features, self.centers, *self._floats,
                self._slack, self.labels, *self._chunks,
            )  # fmt: skip

        in_threads(rows.n_chunks, run)
        _merge(
            fits, self.first, self.n_clusters, *self._chunks, self.sums, self.masses, self.sizes, self.changed,
            self.means, self.n_empty,
        )  # fmt: skip

    def move(self, fits: np.ndarray) -> None:
        """Make the means the centres; `moved` is then the squared length of that move."""
        _move(
            fits, self.first, self.n_clusters, self.centers, self.means, *self._floats, self._slack, self.moved
        )  # fmt: skip

    def exact(self, fit: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums about the shift, in the scale of X, and masses by the present labels, of X itself in float64."""
        rows, k = self.rows, self.n_clusters[fit]
        n_rows, n_chunks = len(rows.X), rows.n_chunks
        sums, masses = np.zeros((n_chunks, k, rows.X.shape[1])), np.zeros((n_chunks, k))

        def run(first: int, last: int) -> None:
            for chunk in range(first, last):
                start, stop = chunk * n_rows // n_chunks, (chunk + 1) * n_rows // n_chunks
                _exact(
                    rows.X, rows.weight, rows.origin_scale[0], self.labels[fit], start, stop, sums[chunk], masses[chunk]
                )

        in_threads(n_chunks, run)
        return sums.sum(axis=0), masses.sum(axis=0)

    def inertia(self, fit: int) -> float:
        """Weighted sum of squared distances from the rows to the means of their clusters, from the statistics alone."""
        sums, masses = self.sums[self.of(fit)], self.masses[self.of(fit)]
        filled = masses > 0
        return self.rows.sum_sq_norm - float(((sums[filled] ** 2).sum(axis=1) / masses[filled]).sum())


def lloyd_pass(
    X: np.ndarray, centers: Sequence[np.ndarray], sample_weight: np.ndarray | None = None
) -> list[LloydStatistics]:
    """One pass over a C-contiguous float32 or float64 matrix for several sets of centres, each of (n_clusters,
    n_features) in the coordinates of X: the form in which the CUDA twin, `lloyd_cuda.lloyd_pass`, has it too.
    """
    weight = np.empty(0) if sample_weight is None else np.ascontiguousarray(sample_weight, np.float64)
    rows = tile_matrix(X, weight)
    shift, scale = rows.origin_scale
    starts = [(np.asarray(start, np.float64) - shift) * scale for start in centers]
    fits = LloydBatch(rows, starts)
    fits.run_pass(np.arange(len(starts)))
    found = []
    for fit, start in enumerate(starts):
        sums, masses = fits.exact(fit)
        inertia = rows.sum_sq_norm - 2 * scale * float((start * sums).sum()) + float(masses @ (start**2).sum(axis=1))
        labels = fits.labels[fit, : len(X)].astype(np.int32)
        found.append(LloydStatistics(labels, sums + masses[:, None] * shift, masses, inertia / scale**2))
    return found
